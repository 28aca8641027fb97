"""Maps of classes: the most probable class of each pixel, compared with numpy's argmax."""

from pathlib import Path
from xml.etree import ElementTree

import dask.array as da
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rioxarray
import xarray as xr
from rasterio.enums import ColorInterp

import xee_tf
from tests.rasters import raster
from tests.test_model_image import box_sum
from xee_tf import Model, OptionError, PredictionError, RecordError, class_map
from xee_tf.classes import Classes, find_labels

NAMES = ["forest", "water", "bare soil"]
COLORS = ["#2f7d4f", "#2e7ebf", "#d9cbb2"]


def probabilities(shape=(17, 23), count=3, seed=0, masked=0.1):
    """Random numbers that are often equal, with NaN in some bands of some pixels."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 4, (count, *shape)).astype("float32") / 4
    values[random.random(values.shape) < masked] = np.nan
    return values


def scene(values, names=NAMES, chunks=5):
    ds = raster(dict(zip(names, values, strict=True)))
    return ds if chunks is None else ds.chunk(y=chunks, x=chunks + 2)


def expected(values, nodata=255, numbers=None):
    """The first of the highest values; where any is NaN, nodata."""
    masked = np.isnan(values).any(axis=0)
    index = np.where(np.isnan(values), -1, values).argmax(axis=0)
    found = index if numbers is None else np.array(numbers)[index]
    return np.where(masked, nodata, found)


@pytest.mark.parametrize("chunks", [None, 5, 64])
def test_the_most_probable_class_of_each_pixel(chunks):
    values = probabilities()
    found = class_map(scene(values, chunks=chunks))
    assert (found.dtype, found.name, found.dims, found.chunks is None) == (
        "uint8",
        "class",
        ("y", "x"),
        False,
    )
    np.testing.assert_array_equal(found, expected(values))
    assert found.rio.crs == "EPSG:32633"
    np.testing.assert_array_equal(found.x, scene(values).x)
    assert found.rio.nodata == 255


@pytest.mark.parametrize("more", [{"B4": "uint16"}, {"b_spread": "float32"}])
def test_other_bands_do_not_become_classes(more):
    shares = scene(probabilities()[:2], names=["a", "b"])
    image = shares.assign({name: shares["a"].fillna(0).astype(dtype) for name, dtype in more.items()})
    with pytest.raises(OptionError, match=r"would become classes beside 'a', 'b'.*bands=\['a', 'b'\]"):
        class_map(image)
    xr.testing.assert_identical(class_map(image, bands=["a", "b"]), class_map(shares))


def test_numbers_of_different_scales_are_not_compared():
    shares = scene(probabilities()[:2], names=["a", "b"])
    shares["a"].attrs["scale_factor"] = 0.5
    with pytest.raises(OptionError, match=r"different scale_factor and add_offset: .*decode_cf"):
        class_map(shares)
    shares["b"].attrs["scale_factor"] = 0.5
    assert class_map(shares).dtype == "uint8"


def test_the_number_of_a_class_is_not_nodata_of_a_geotiff(tmp_path):
    found = class_map(scene(probabilities()), values=[1, 4, 9], nodata=0)
    with pytest.raises(OptionError, match=r"nodata=4 is the class 'water' of 'class'. Choose"):
        xee_tf.to_cog(found, tmp_path / "m.tif", nodata=4)
    xee_tf.to_cog(found, tmp_path / "m.tif", nodata=0)


def test_confidence_is_the_highest_probability():
    values = probabilities()
    found = class_map(scene(values), confidence=True)
    assert list(found) == ["class", "confidence"]
    np.testing.assert_array_equal(found["class"], expected(values))
    np.testing.assert_array_equal(found["confidence"], values.max(axis=0))
    assert found["confidence"].dtype == "float32"
    assert found.rio.crs == "EPSG:32633"


def test_integers_are_masked_by_their_nodata():
    values = np.random.default_rng(1).integers(0, 100, (3, 8, 9)).astype("int16")
    values[0, :3] = -1
    ds = scene(values, chunks=4)
    ds["forest"].attrs["_FillValue"] = -1
    other = int(values[1, 5, 5])
    ds["water"].attrs["nodata"] = other
    masked = (values[0] == -1) | (values[1] == other)
    assert masked[3:].any()
    found = class_map(ds, confidence=True).compute()
    np.testing.assert_array_equal(found["class"], np.where(masked, 255, values.argmax(axis=0)))
    np.testing.assert_array_equal(found["confidence"], np.where(masked, np.nan, values.max(axis=0)))


@pytest.mark.parametrize(
    ("dim", "named", "names"),
    [
        ("band", {"band": NAMES}, NAMES),
        ("band", {}, ["B1", "B2", "B3"]),
        ("class", {"class": NAMES}, NAMES),
        ("class", {}, ["0", "1", "2"]),
        ("kind", {"kind": [4, 5, 6]}, ["4", "5", "6"]),
    ],
)
def test_classes_along_a_dimension(dim, named, names):
    values = probabilities()
    array = scene(values).to_dataarray(dim, name="scores").drop_vars(dim).assign_coords(named)
    array = array.chunk({dim: 1})
    found = class_map(array, **({"dim": dim} if dim == "kind" else {}), confidence=True)
    np.testing.assert_array_equal(found["class"], expected(values))
    np.testing.assert_array_equal(found["confidence"], values.max(axis=0))
    assert found["class"].attrs["class_names"] == names
    assert set(found.dims) == {"y", "x"}
    assert found.rio.crs == "EPSG:32633"
    for other in (array.to_dataset(name="scores"), array.transpose(..., dim)):
        again = class_map(other, **({"dim": dim} if dim == "kind" else {}))
        np.testing.assert_array_equal(again, found["class"])


def test_classes_of_a_file(tmp_path):
    values = probabilities(masked=0)
    values[:, :4] = -9999
    array = scene(values).to_dataarray("band").rio.write_crs(32633).rio.write_nodata(-9999)
    array.attrs["long_name"] = tuple(NAMES)
    array.rio.to_raster(tmp_path / "scores.tif")
    want = np.where(values[0] == -9999, 255, values.argmax(axis=0))
    for options in ({}, {"masked": True}, {"chunks": {"x": 8, "y": 8}}):
        with rioxarray.open_rasterio(tmp_path / "scores.tif", **options) as opened:
            found = class_map(opened)
            np.testing.assert_array_equal(found, want)
            assert found.attrs["class_names"] == NAMES


def test_files_are_not_loaded(tmp_path):
    scene(probabilities()).to_zarr(tmp_path / "scores.zarr", zarr_format=2)
    opened = xr.open_zarr(tmp_path / "scores.zarr", chunks=None)
    found = class_map(opened, bands=NAMES)
    assert not any(band.variable._in_memory for band in opened.data_vars.values())
    assert found.chunks is not None
    np.testing.assert_array_equal(found, expected(probabilities()))


def test_chunks_that_differ_between_bands():
    values = probabilities()
    ds = scene(values, chunks=None)
    ds = ds.assign(forest=ds["forest"].chunk(y=4), water=ds["water"].chunk(y=7, x=5))
    np.testing.assert_array_equal(class_map(ds, confidence=True)["confidence"], values.max(axis=0))
    turned = ds.assign(water=ds["water"].transpose())
    np.testing.assert_array_equal(class_map(turned), expected(values))


def test_other_dimensions_are_kept():
    values = probabilities((4, 6, 5))
    ds = xr.Dataset({name: (("time", "y", "x"), each) for name, each in zip(NAMES, values, strict=True)})
    found = class_map(ds.assign_coords(time=[1, 2, 3, 4]).chunk(time=1))
    assert found.dims == ("time", "y", "x")
    np.testing.assert_array_equal(found.time, [1, 2, 3, 4])
    np.testing.assert_array_equal(found, expected(values))


def test_bands_choose_the_classes_and_their_order():
    values = probabilities()
    found = class_map(scene(values), bands=["bare soil", "forest"])
    np.testing.assert_array_equal(found, expected(values[[2, 0]]))
    stacked = class_map(scene(values).to_dataarray("band"), bands=["bare soil", "forest"])
    np.testing.assert_array_equal(stacked, found)
    assert found.attrs["class_names"] == stacked.attrs["class_names"] == ["bare soil", "forest"]


def test_numbers_and_colors_by_name():
    values = probabilities()
    numbers, colors = dict(zip(NAMES, [3, 1, 2], strict=True)), dict(zip(NAMES, COLORS, strict=True))
    found = class_map(
        scene(values), values=dict(sorted(numbers.items())), colors=dict(sorted(colors.items()))
    )
    np.testing.assert_array_equal(found, expected(values, 255, [3, 1, 2]))
    assert find_labels(found.attrs).colors[1] == tuple(bytes.fromhex(colors["water"][1:]))


def test_attributes_follow_cf():
    found = class_map(scene(probabilities()), values=[1, 2, 7], colors=COLORS, nodata=0)
    np.testing.assert_array_equal(found, expected(probabilities(), 0, [1, 2, 7]))
    assert found.attrs["flag_values"].dtype == found.dtype == found.attrs["_FillValue"].dtype == "uint8"
    assert found.attrs["flag_values"].tolist() == [1, 2, 7]
    assert found.attrs["flag_meanings"] == "forest water bare_soil"
    assert found.attrs["flag_colors"] == "#2f7d4f #2e7ebf #d9cbb2"
    assert found.attrs["class_names"] == NAMES
    assert found.attrs["_FillValue"] == 0


@pytest.mark.parametrize(
    ("options", "dtype", "nodata"),
    [
        ({"values": [1, 2, 255]}, "uint8", 0),
        ({"values": [0, 1, 255]}, "uint8", 2),
        ({"values": [0, 1, 256]}, "uint16", 65535),
        ({"values": [0, 1, 65535]}, "uint16", 2),
        ({"nodata": 300}, "uint16", 300),
        ({"nodata": 9}, "uint8", 9),
    ],
)
def test_numbers_determine_the_type_and_nodata(options, dtype, nodata):
    values = probabilities()
    found = class_map(scene(values), **options)
    assert (found.dtype, found.attrs["_FillValue"]) == (dtype, nodata)
    np.testing.assert_array_equal(found, expected(values, nodata, options.get("values", [0, 1, 2])))


@pytest.mark.parametrize("count", [255, 256, 300])
def test_many_classes(count):
    values = np.random.default_rng(2).random((count, 3, 40), "float32")
    values[7, 0] = np.nan
    found = class_map(xr.DataArray(values, dims=("class", "y", "x")))
    assert found.dtype == ("uint8" if count == 255 else "uint16")
    np.testing.assert_array_equal(found, expected(values, int(found.attrs["_FillValue"])))


def test_one_task_for_each_chunk():
    lazy = da.zeros((3, 64, 64), chunks=(3, 8, 8))
    array = xr.DataArray(lazy, dims=("band", "y", "x"))
    assert len(dict(class_map(array).__dask_graph__())) <= 3 * 64  # zeros, a check of their shape, the map
    ds = array.to_dataset("band").rename({n: f"b{n}" for n in range(3)})
    own = len(dict(ds.__dask_graph__()))
    assert len(dict(class_map(ds).__dask_graph__())) <= own + 64


def test_maps_are_stored_with_their_attributes(tmp_path):
    values = probabilities()
    found = class_map(scene(values), values=[1, 2, 3], colors=COLORS, confidence=True)
    found.to_zarr(tmp_path / "map.zarr", zarr_format=2)
    stored = xr.open_zarr(tmp_path / "map.zarr", mask_and_scale=False, decode_coords="all")
    assert stored["class"].dtype == "uint8"
    np.testing.assert_array_equal(stored["class"], expected(values, 255, [1, 2, 3]))
    assert find_labels(stored["class"].attrs) == find_labels(found["class"].attrs)
    assert stored.rio.crs == "EPSG:32633"
    masked = xr.open_zarr(tmp_path / "map.zarr")["class"]
    assert masked.dtype.kind == "f"
    np.testing.assert_array_equal(masked.isnull(), np.isnan(values).any(axis=0))
    assert masked.attrs["flag_meanings"] == "forest water bare_soil"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": ["forest"]}, "two or more classes"),
        ({"bands": ["forest", "B4"]}, "'B4', which does not exist. The bands are 'forest', 'water'"),
        ({"class_names": ["a", "b"]}, "2 names, but there are 3 classes"),
        ({"class_names": ["a", "b", "a"]}, "'a' more than once"),
        ({"values": [1, 2]}, "one for each of the 3 classes"),
        ({"values": [1, 2, 1]}, "a different number for each class; got 1 twice"),
        ({"values": [1, 2, -1]}, r"values\[2\] must be a whole number from 0 to 65535; got -1"),
        ({"values": 5}, "one for each of the 3 classes"),
        ({"colors": ["red", "#000", "#fff"]}, r"colors\[0\] must be a color such as '#2f7d4f'"),
        ({"colors": [(0, 0, 256), "#000", "#fff"]}, "from 0 to 255"),
        ({"colors": {"forest": "#000"}}, "one for each class; got none for 'water', 'bare soil'"),
        ({"values": {"forest": 1}}, "one for each class; got none for 'water', 'bare soil'"),
        ({"colors": {"wood": "#000"}}, "'wood', which is no class"),
        ({"nodata": 1}, "must be a number that no class has; got 1, the number of 'water'"),
        ({"dim": "band"}, "for a single array"),
        ({"name": "x"}, "a coordinate has that name"),
        ({"name": "confidence", "confidence": True}, "the name of the second band"),
        ({"confidence": 1}, "confidence must be True or False"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(OptionError, match=message):
        class_map(scene(probabilities()), **options)


def test_invalid_probabilities():
    array = scene(probabilities()).to_dataarray("kind")
    with pytest.raises(OptionError, match=r"none of them is 'band' or 'class'\. .*as dim='kind', or a"):
        class_map(array)
    with pytest.raises(OptionError, match=r"of the classes as dim=, or a"):
        class_map(array.expand_dims("time"))
    with pytest.raises(OptionError, match="none is 'band'"):
        class_map(array, dim="band")
    with pytest.raises(OptionError, match="a dimension of the pixels"):
        class_map(array, dim="x")
    with pytest.raises(OptionError, match="dtype complex64; expected numbers"):
        class_map(scene(probabilities()).astype("complex64"))
    with pytest.raises(OptionError, match="must be an xarray Dataset or DataArray"):
        class_map(probabilities())


def test_vectors_of_a_model_name_their_dimension():
    kinds = {"probabilities": {"type": "float32", "shape": [3]}}
    found = model(kinds).predict_image(image())
    with pytest.raises(OptionError, match=r"class_map\(ds\['probabilities'\], dim='probabilities_0'\)"):
        class_map(found)
    with pytest.raises(OptionError, match=r"none of them is .* as dim='probabilities_0', or"):
        class_map(found["probabilities"].expand_dims("time"))
    np.testing.assert_array_equal(
        class_map(found["probabilities"], dim="probabilities_0"),
        model({"class": {"argmax": NAMES}}).predict_image(image())["class"],
    )


@pytest.mark.parametrize("numbers", [[1, 2, 7], range(1, 4), np.array([4, 9, 2])])
def test_numbers_of_classes_are_no_names(numbers):
    names = ", ".join(repr(str(number)) for number in numbers)
    message = rf"a list of names, .* pass names of them, such as \[{names}\], and the numbers as "
    with pytest.raises(
        OptionError, match=r"\['argmax'\] must be " + message + r"output_bands\['class'\]\['v"
    ):
        model({"class": {"argmax": numbers}})
    with pytest.raises(OptionError, match="class_names must be " + message + "values"):
        class_map(scene(probabilities()), class_names=numbers)


def test_labels_of_other_software():
    esa = {"flag_values": np.array([0, 10, 11], "u1"), "flag_meanings": "no_data crops herbs"}
    assert find_labels(esa).names == {0: "no_data", 10: "crops", 11: "herbs"}
    assert find_labels({**esa, "flag_colors": "#ffff64 #aaf0f0"}).colors == {}
    assert find_labels({**esa, "flag_colors": "#000000 #ffff64 #aaf0f0"}).colors[10] == (255, 255, 100)
    assert find_labels({**esa, "class_names": ["a", "b", "c"]}).names[11] == "herbs"  # of another map
    for wrong in ({"flag_values": [1, 2]}, {"flag_meanings": None}, {"flag_values": 1}, {"flag_masks": [1]}):
        found = {**esa, **wrong} if "flag_masks" not in wrong else {"flag_meanings": "a", **wrong}
        assert find_labels(found) is None


def test_the_first_free_number_is_nodata():
    assert Classes.of([str(n) for n in range(256)]).nodata == 256
    with pytest.raises(OptionError, match="no number is left"):
        Classes.of([str(n) for n in range(65536)])


# -- GeoTIFFs ------------------------------------------------------------------------------------------


def category_names(path, band=1):
    """Return the category names of a band as GDAL reads them, which rasterio does not: through a VRT."""
    vrt = Path(path).with_suffix(".vrt")
    rasterio.shutil.copy(path, vrt, driver="VRT")
    text = vrt.read_text()
    vrt.unlink()
    found = list(ElementTree.fromstring(text).iter("VRTRasterBand"))[band - 1].find("CategoryNames")
    return None if found is None else [each.text or "" for each in found]


def test_geotiffs_have_names_and_colors(tmp_path):
    values = probabilities((600, 40))
    names = ["forêt <mixed>", "water & ice", "bare soil"]
    found = class_map(scene(values, names, 300), values=[1, 2, 4], colors=COLORS)
    path = xee_tf.to_cog(found, tmp_path / "map.tif", overview_resampling="mode").path
    with rasterio.open(path) as file:
        assert (file.dtypes, file.nodata, file.count, file.crs.to_epsg()) == (("uint8",), 255, 1, 32633)
        assert file.colorinterp == (ColorInterp.palette,)
        assert [file.colormap(1)[value][:3] for value in (1, 2, 4)] == [
            (0x2F, 0x7D, 0x4F),
            (0x2E, 0x7E, 0xBF),
            (0xD9, 0xCB, 0xB2),
        ]
        assert file.colormap(1)[255][3] == 0  # transparent
        np.testing.assert_array_equal(file.read(1), expected(values, 255, [1, 2, 4]))
        assert (file.overviews(1), file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"]) == ([2], "COG")
    with rasterio.open(path, overview_level=0) as overview:
        assert overview.colorinterp == (ColorInterp.palette,)
        assert set(np.unique(overview.read(1))) <= {1, 2, 4, 255}
    assert category_names(path) == ["", names[0], names[1], "", names[2]]


def test_uint16_maps_have_colors(tmp_path):
    found = class_map(scene(probabilities()), values=[1, 300, 7], colors=COLORS)
    path = xee_tf.to_cog(found, tmp_path / "map.tif").path
    with rasterio.open(path) as file:
        assert file.dtypes == ("uint16",)
        assert file.colormap(1)[300][:3] == (0x2E, 0x7E, 0xBF)
    assert category_names(path)[300] == "water"


def test_a_map_and_its_confidence_in_one_geotiff(tmp_path):
    """All bands have the same dtype, so that there is no color table."""
    values = probabilities()
    found = class_map(scene(values), colors=COLORS, confidence=True)
    message = r"^The colors of 'class' are not written: .* has 2 bands of float32\."
    with pytest.warns(UserWarning, match=message) as warned:
        path = xee_tf.to_cog(found, tmp_path / "map.tif", overview_resampling={"confidence": "mean"}).path
    assert (len(warned), warned[0].filename) == (1, __file__)
    with rasterio.open(path) as file:
        assert file.descriptions == ("class", "confidence")
        assert file.dtypes == ("float32", "float32")
        np.testing.assert_array_equal(
            file.read(1), np.where(np.isnan(values).any(0), np.nan, expected(values))
        )
        np.testing.assert_array_equal(file.read(2), values.max(axis=0))
    assert category_names(path) == NAMES
    assert category_names(path, 2) is None


def test_names_of_steps_and_of_two_maps(tmp_path):
    values = probabilities((2, 6, 5))
    ds = xr.Dataset({name: (("time", "y", "x"), each) for name, each in zip(NAMES, values, strict=True)})
    place = scene(values[:, 0])
    two = class_map(ds.assign_coords(place.coords).assign_attrs(place.attrs), name="first").to_dataset()
    other = class_map(place, values=[3, 2, 1], nodata=255).compute()
    path = xee_tf.to_cog(two.assign(second=other), tmp_path / "maps.tif").path
    with rasterio.open(path) as file:
        assert (file.descriptions, file.dtypes[0]) == (("first_1", "first_2", "second"), "uint8")
    assert category_names(path) == category_names(path, 2) == NAMES
    assert category_names(path, 3) == ["", "bare soil", "water", "forest"]


def test_side_files_of_an_old_map_are_replaced(tmp_path):
    found = class_map(scene(probabilities()))
    path = Path(xee_tf.to_cog(found, tmp_path / "map.tif").path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]
    with rasterio.open(path) as file, pytest.raises(ValueError, match="color table"):
        file.colormap(1)
    xee_tf.to_cog(found.drop_attrs(deep=False), path, if_exists="overwrite")
    assert [each.name for each in tmp_path.iterdir()] == ["map.tif"]


def test_names_are_written_beside_maps_in_object_stores():
    found = class_map(scene(probabilities()))
    xee_tf.to_cog(found, "memory://classes/map.tif")
    side = xee_tf.typing.Location.of("memory://classes/map.tif.aux.xml")
    assert b"<Category>bare soil</Category>" in side.read_bytes()


def test_names_are_added_to_the_side_file_with_the_crs(tmp_path):
    """GDAL writes a CRS that GeoTIFF keys cannot describe to the same file."""
    crs = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +R=6371229 +no_defs"
    ds = scene(probabilities()).assign_attrs(crs=crs)
    path = xee_tf.to_cog(class_map(ds.assign_coords(x=ds.x / 1e6, y=ds.y / 1e6)), tmp_path / "map.tif").path
    assert "<SRS" in Path(f"{path}.aux.xml").read_text()
    with rasterio.open(path) as file:
        assert "39.25" in file.crs.to_wkt()
    assert category_names(path) == NAMES


def test_flags_of_other_software_are_written(tmp_path):
    flags = raster({"quality": np.array([[0, 1], [1, 4]], "uint8")})
    flags["quality"].attrs = {
        "flag_values": np.array([0, 1, 4], "uint8"),
        "flag_meanings": "good cloudy missing",
        "flag_colors": "#ffffff #888888 #000000",
    }
    path = xee_tf.to_cog(flags, tmp_path / "flags.tif").path
    with rasterio.open(path) as file:
        assert file.colormap(1)[1][:3] == (0x88, 0x88, 0x88)
    assert category_names(path) == ["good", "cloudy", "", "", "missing"]
    flags["quality"] = flags["quality"].astype("int16") * -1
    flags["quality"].attrs = {"flag_values": [0, -1, -4], "flag_meanings": "good cloudy missing"}
    path = xee_tf.to_cog(flags, tmp_path / "negative.tif").path
    assert category_names(path) is None


def test_names_that_xml_does_not_allow(tmp_path):
    found = class_map(scene(probabilities()), class_names=["a\x01b", "c\ud800", "d"])
    path = xee_tf.to_cog(found, tmp_path / "map.tif").path
    assert category_names(path) == ["a?b", "c?", "d"]


def test_overviews_are_no_means_of_classes(tmp_path):
    found = class_map(scene(probabilities()), confidence=True)
    with pytest.raises(
        OptionError, match=r"the values of 'class' are classes.*Pass {'class': 'mode', 'confidence': 'mean'}"
    ):
        xee_tf.to_cog(found, tmp_path / "map.tif", overview_resampling="mean")
    with pytest.raises(OptionError, match=r"is another class. Pass 'mode'"):
        xee_tf.to_cog(found["class"], tmp_path / "map.tif", overview_resampling="mean")
    both = found.assign(old=found["class"])
    message = (
        r"'class', 'old' are classes, according to their attributes flag_values.*"
        "{'class': 'mode', 'confidence': 'mean', 'old': 'mode'}"
    )
    with pytest.raises(OptionError, match=message):
        xee_tf.to_cog(both, tmp_path / "map.tif", overview_resampling="mean")
    with pytest.raises(OptionError, match=r"Pass 'mode'\.$"):
        xee_tf.to_cog(both[["class", "old"]], tmp_path / "map.tif", overview_resampling="mean")
    assert list(tmp_path.iterdir()) == []


# -- Predictions ---------------------------------------------------------------------------------------


def scores(tiles):
    """A score for each of three classes, from the pixels around each pixel; NaN where a pixel is 100."""
    mean = box_sum(tiles[..., 0], 1) / 9
    first = np.where(tiles[..., 0] == 100, np.nan, np.abs(mean - 50))
    return np.stack([first, np.abs(mean - 30), np.full(mean.shape, 20.0)], axis=-1).astype("float32")


def image(shape=(37, 45), masked=True):
    values = np.random.default_rng(3).integers(0, 120, shape).astype("float32")
    if masked:
        values[5:20, 7:30] = np.nan
    return raster({"B4": values}).chunk(y=16, x=16)


def model(output_bands, function=scores, **options):
    options = {"input_tile_size": 8, "input_overlap_size": 2, **options}
    return Model.from_function(function, output_bands=output_bands, **options)


ARGMAX = {"argmax": NAMES, "values": [1, 2, 7], "colors": COLORS, "confidence": True}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"blend": "hann"}, {"augment": "d4"}, {"blend": "hann", "augment": "d4"}]
)
def test_predicted_maps_equal_class_map(options, masked):
    ds = image(masked=masked)
    separate = model(NAMES).predict_image(ds, merge=False, **options)
    want = class_map(separate, bands=NAMES, values=[1, 2, 7], colors=COLORS, confidence=True).compute()
    found = model({"class": ARGMAX}).predict_image(ds, merge=False, **options)
    assert list(found) == ["class", "confidence"]
    assert str(found["class"].attrs) == str(want["class"].attrs)
    assert found.rio.crs == want.rio.crs
    found = found.compute()
    assert len(np.unique(found["class"])) == 4
    for name in want:
        assert found[name].dtype == want[name].dtype
        np.testing.assert_array_equal(found[name], want[name])


def test_predicted_maps_equal_numpy():
    ds = image(masked=False)
    whole = scores(ds["B4"].values[np.newaxis, ..., np.newaxis])[0]
    found = model({"class": {"argmax": NAMES}}).predict_image(ds)
    assert list(found) == ["B4", "class"]
    np.testing.assert_array_equal(found["class"], expected(np.moveaxis(whole, -1, 0)))


def test_maps_beside_other_outputs():
    def both(tiles):
        return {"class": scores(tiles), "height": tiles[..., 0]}

    ds = image()
    found = model({"height": "float32", "class": {"argmax": NAMES}}, both).predict_image(ds, merge=False)
    np.testing.assert_array_equal(found["height"], ds["B4"])
    alone = model({"class": {"argmax": NAMES}}).predict_image(ds, merge=False)
    np.testing.assert_array_equal(found["class"], alone["class"])


def test_maps_of_each_date():
    ds = image()
    cube = xr.concat([ds, ds + 7], xr.Variable("time", [2020, 2021]))
    found = model({"class": {"argmax": NAMES}}).predict_image(cube, merge=False, blend="hann")["class"]
    assert found.dims == ("time", "y", "x")
    for number, each in enumerate((ds, ds + 7)):
        alone = model({"class": {"argmax": NAMES}}).predict_image(
            each.assign_attrs(ds.attrs), merge=False, blend="hann"
        )
        np.testing.assert_array_equal(found[number], alone["class"])


@pytest.mark.parametrize("numbers", [(1, 300, 7), (0, 1, 255)])
def test_predicted_maps_are_written(tmp_path, numbers):
    ds = image()
    classes = {"argmax": NAMES, "values": numbers, "colors": dict(zip(NAMES, COLORS, strict=True))}
    mapped = model({"class": classes})
    want = mapped.predict_image(ds, merge=False)["class"].compute()
    masked = np.isnan(ds["B4"]) | (ds["B4"] == 100)
    np.testing.assert_array_equal(want == want.attrs["_FillValue"], masked)

    store = xee_tf.predict_to_zarr(mapped, ds, tmp_path / "map.zarr")
    stored = xr.open_zarr(store, mask_and_scale=False, decode_coords="all")["class"]
    assert stored.dtype == want.dtype
    np.testing.assert_array_equal(stored, want)
    assert find_labels(stored.attrs) == find_labels(want.attrs)
    assert stored.rio.crs == "EPSG:32633"
    decoded = xr.open_zarr(store, decode_coords="all")["class"]
    assert decoded.dtype.kind == "f"
    np.testing.assert_array_equal(decoded.isnull(), masked)

    path = xee_tf.predict_to_cog(mapped, ds, tmp_path / "map.tif", overview_resampling={"class": "mode"}).path
    with rasterio.open(path) as file:
        assert (file.dtypes, file.nodata) == ((str(want.dtype),), want.attrs["_FillValue"])
        np.testing.assert_array_equal(file.read(1), want)
        assert [file.colormap(1)[value][:3] for value in numbers] == [
            tuple(bytes.fromhex(color[1:])) for color in COLORS
        ]
    assert category_names(path)[numbers[1]] == "water"
    again = xee_tf.to_cog(decoded, tmp_path / "again.tif", overview_resampling="mode").path
    assert Path(again).read_bytes() == Path(path).read_bytes()
    assert category_names(again) == category_names(path)


def decoded_map(values, **encoding):
    """A map of classes, 11 and 12, as xarray decodes it."""
    found = raster({"kind": np.array(values, "float32")})
    found["kind"].attrs = {
        "flag_values": [11, 12],
        "flag_meanings": "ice snow",
        "flag_colors": "#ffffff #eeeeee",
    }
    found["kind"].encoding = {"dtype": np.dtype("int16"), "_FillValue": -3, **encoding}
    return found


def test_decoded_maps_become_integers_again(tmp_path):
    found = decoded_map([[11, np.nan], [12, 0]])
    with pytest.warns(UserWarning, match=r"colors of 'kind' are not written: .* has 1 band of int16\."):
        path = xee_tf.to_cog(found, tmp_path / "map.tif").path
    with rasterio.open(path) as file:
        assert (file.dtypes, file.nodata) == (("int16",), -3)
        np.testing.assert_array_equal(file.read(1), [[11, -3], [12, 0]])
    found["kind"].encoding["dtype"], found["kind"].encoding["_FillValue"] = "uint8", np.uint8(9)
    path = xee_tf.to_cog(found, tmp_path / "small.tif", nodata=5).path
    with rasterio.open(path) as file:
        assert (file.dtypes, file.nodata) == (("uint8",), 5)
        assert file.colormap(1)[12][:3] == (0xEE, 0xEE, 0xEE)
        np.testing.assert_array_equal(file.read(1), [[11, 5], [12, 0]])


@pytest.mark.parametrize("value", [11.5, 70_000, -3, np.inf])
def test_decoded_maps_with_other_values_are_refused(tmp_path, value):
    with (
        pytest.raises(RecordError, match=f"Band 'kind' contains {value:.1f}, but its attribute flag_values"),
        pytest.warns(UserWarning, match="colors"),
    ):
        xee_tf.to_cog(decoded_map([[11, np.nan], [value, 12]]), tmp_path / "map.tif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", [{"scale_factor": 0.5}, {"dtype": np.dtype("float32")}])
def test_other_floats_with_names_stay_floats(tmp_path, encoding):
    with pytest.warns(UserWarning, match=r"colors of 'kind' .* has 1 band of float32\."):
        path = xee_tf.to_cog(decoded_map([[11, np.nan], [11.5, 12]], **encoding), tmp_path / "map.tif").path
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), [[11, np.nan], [11.5, 12]])


@pytest.mark.parametrize("masked", [True, False])
def test_maps_of_a_model_of_single_pixels(masked):
    def shares(pixels):
        return np.stack([np.where(pixels[:, 0] == 100, np.nan, 50), pixels[:, 0]], axis=-1)

    ds = image(masked=masked)
    options = {"unit": "pixel", "bands": ["B4"]}
    mapped = Model.from_function(
        shares, output_bands={"class": {"argmax": NAMES[:2], "confidence": True}}, **options
    ).predict_image(ds, merge=False)
    missing = np.isnan(ds["B4"]) | (ds["B4"] == 100)
    np.testing.assert_array_equal(mapped["class"], np.where(missing, 255, ds["B4"] > 50))
    np.testing.assert_array_equal(mapped["confidence"], np.maximum(ds["B4"], 50).where(~missing))


def test_a_geotiff_of_a_map_with_another_nodata_value(tmp_path):
    mapped = model({"class": {"argmax": NAMES, "values": [1, 2, 3], "colors": COLORS}})
    want = mapped.predict_image(image(), merge=False)["class"]
    path = xee_tf.predict_to_cog(mapped, image(), tmp_path / "map.tif", nodata=0).path
    with rasterio.open(path) as file:
        assert (file.dtypes, file.nodata, file.colormap(1)[1][:3]) == (("uint8",), 0, (0x2F, 0x7D, 0x4F))
        np.testing.assert_array_equal(file.read(1), want.where(want != 255, 0))


def test_an_interrupted_geotiff_of_a_map_is_resumed(tmp_path):
    options = {"if_exists": "resume", "identity": "1"}
    mapped = model({"class": ARGMAX})
    with pytest.warns(UserWarning, match="colors of 'class' are not written"):
        path = xee_tf.predict_to_cog(mapped, image(), tmp_path / "map.tif", **options).path
    with rasterio.open(path) as file:
        want = mapped.predict_image(image(), merge=False)
        np.testing.assert_array_equal(file.read(2), want["confidence"])


def test_the_plan_of_a_map():
    mapped = model({"class": {"argmax": NAMES}})
    plan = mapped.plan(image())
    assert [(band.name, band.dtype, band.nodata) for band in plan.bands] == [("class", "|u1", (255,))]
    assert (plan.result_bytes, plan.skips_masked) == (37 * 45, True)
    assert not mapped.plan(image(masked=False).astype("uint8")).skips_masked


def test_maps_on_another_grid():
    ds = image()
    mapped = model(
        {"class": ARGMAX}, proj=("EPSG:32633", 60), fix_input_proj=True, input_overlap_size=0
    ).predict_image(ds, merge=False, resampling="bilinear")
    assert set(np.unique(mapped["class"])) <= {1, 2, 7, 255}
    np.testing.assert_array_equal(mapped["class"] == 255, mapped["confidence"].isnull())
    assert mapped["class"].attrs["class_names"] == NAMES


SENT = []


def counted(pixels):
    """A score for each of three classes; the numbers of tiles or pixels are kept in SENT."""
    SENT.append(len(pixels))
    own = pixels[..., 0]
    return np.stack([np.abs(own - 50), np.abs(own - 30), np.full(own.shape, 20.0)], axis=-1)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("unit", ["tile", "pixel"])
def test_maps_of_resampled_probabilities(resampling, unit):
    """The map and its confidence are those of the same probabilities, and the model runs once."""
    ds = image()
    cube = xr.concat([ds, ds + 7], xr.Variable("time", [2020, 2021])).chunk(y=16, x=20)
    options = {"unit": unit, "proj": ("EPSG:32634", 47), "fix_input_proj": True}
    options |= {"input_tile_size": 8, "input_overlap_size": 1} if unit == "tile" else {}
    how = {"resampling": resampling, "merge": False}
    SENT.clear()
    separate = Model.from_function(counted, output_bands=NAMES, **options).predict_image(cube, **how)
    want = class_map(separate, bands=NAMES, values=[1, 2, 7], colors=COLORS, confidence=True).compute()
    sent, SENT[:] = sum(SENT), []
    found = Model.from_function(counted, output_bands={"class": ARGMAX}, **options).predict_image(cube, **how)
    assert str(found["class"].attrs) == str(want["class"].attrs)
    assert found["class"].chunks == found["confidence"].chunks == separate["water"].chunks
    found = found.compute()
    assert sum(SENT) == sent > 0
    assert len(np.unique(found["class"])) == 4
    assert 0 < int((found["class"] == 255).sum()) < found["class"].size / 2
    for name in want:
        assert (found[name].dtype, found[name].dims) == (want[name].dtype, want[name].dims)
        np.testing.assert_array_equal(found[name], want[name])


def test_maps_of_a_keras_model():
    keras = pytest.importorskip("keras")
    network = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(3, 1, activation="softmax")]
    )
    ds = image()
    found = Model.from_keras(network, input_tile_size=16, output_bands={"class": {"argmax": NAMES}})
    separate = Model.from_keras(network, input_tile_size=16, output_bands=NAMES)
    want = class_map(separate.predict_image(ds, merge=False))
    np.testing.assert_array_equal(found.predict_image(ds)["class"], want)
    four = Model.from_keras(network, input_tile_size=16, output_bands={"class": {"argmax": [*NAMES, "d"]}})
    with pytest.raises(OptionError, match=r"as the argmax of 4 classes, .*Name a class for each channel"):
        four.predict_image(ds)


def test_the_repr_of_a_model_shows_maps():
    assert "class: argmax of 3 classes, confidence" in repr(model({"class": ARGMAX}))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"argmax": ["a"]}, r"output_bands\['class'\]\['argmax'\] must name two or more classes"),
        ({"argmax": 3}, r"\['argmax'\] must be a list of names"),
        ({"argmax": NAMES, "values": [1]}, r"\['values'\] must be numbers .* one for each of the 3 classes"),
        ({"argmax": NAMES, "type": "uint8"}, "'type', which a map of classes cannot have"),
        ({"argmax": NAMES, "confidence": 3}, r"\['confidence'\] must be True or False"),
    ],
)
def test_invalid_declarations(declared, message):
    with pytest.raises(OptionError, match=message):
        model({"class": declared})


def test_invalid_maps():
    with pytest.raises(OptionError, match="cannot have 'argmax', which output_bands has"):
        Model.from_function(scores, output_properties={"class": {"argmax": NAMES}})
    with pytest.raises(OptionError, match="Two outputs would be named 'confidence'"):
        model({"class": ARGMAX, "confidence": "float32"}).predict_image(image())
    with pytest.raises(PredictionError, match=r"expected .*\(2,\) for 'class'|expected .* 2\) "):
        model({"class": {"argmax": NAMES[:2]}}).predict_image(image()).compute()
    both = {"class": ARGMAX, "other": {"argmax": NAMES, "confidence": "certainty"}}
    two = model(both, lambda tiles: {name: scores(tiles) for name in both}).predict_image(
        image(), merge=False
    )
    assert list(two) == ["class", "confidence", "other", "certainty"]
    np.testing.assert_array_equal(two["confidence"], two["certainty"])
