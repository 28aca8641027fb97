"""Tests of combining images, and of splitting arrays into bands."""

import dask.array as da
import numpy as np
import pytest
import rioxarray
import xarray as xr
from affine import Affine

from xee_tf.errors import GeoreferenceError, GridMismatchError, OptionError
from xee_tf.georef import read_georef, spatial_dims
from xee_tf.georef.bands import add_bands, image_dataset

Y = 4_500_000 - 30 * (np.arange(4) + 0.5)
X = 500_000 + 30 * (np.arange(5) + 0.5)


def plane(name="a", dims=("y", "x"), value=0, **coords):
    values = np.full((4, 5), value, "int16") + np.arange(20, dtype="int16").reshape(4, 5)
    return xr.DataArray(values, {dims[0]: Y, dims[1]: X, **coords}, dims, name=name).rio.write_crs(32633)


def unreadable(shape=(4, 5), chunks=2):
    """Return a lazy array that fails when computed."""

    def fail(block_info=None):
        raise AssertionError("computed")

    return da.map_blocks(
        fail, chunks=da.core.normalize_chunks(chunks, shape), dtype="f4", meta=np.empty((0, 0), "f4")
    )


# -- One image --------------------------------------------------------------------------------------


def test_a_dataset_is_returned_unchanged():
    scene = plane().to_dataset()
    assert image_dataset(scene) is scene
    assert add_bands(scene) is scene


@pytest.mark.parametrize(
    ("coords", "attrs", "expected"),
    [
        ({"band": ["red", "nir"]}, {"long_name": ("x", "y")}, ["red", "nir"]),
        ({"band": [1, 2]}, {"long_name": ("red", "nir")}, ["red", "nir"]),
        ({}, {"long_name": ["red", "nir"]}, ["red", "nir"]),
        ({"band": [4, 8]}, {}, ["B4", "B8"]),
        ({}, {}, ["B1", "B2"]),
        ({"band": [1, 2]}, {"long_name": "reflectance"}, ["B1", "B2"]),
        ({"band": [1, 2]}, {"long_name": ("red", None)}, ["B1", "B2"]),
        ({"band": [1, 2]}, {"long_name": ("red", "nir", "swir")}, ["B1", "B2"]),
    ],
)
def test_names_of_the_bands_of_an_array(coords, attrs, expected):
    image = xr.DataArray(
        np.arange(40).reshape(2, 4, 5), coords, ("band", "y", "x"), attrs=attrs, name="scene"
    )
    for turned in (image, image.transpose("x", "band", "y")):
        dataset = image_dataset(turned)
        assert list(dataset) == expected
        assert "band" not in dataset.coords
        for number, name in enumerate(expected):
            xr.testing.assert_equal(
                dataset[name], turned.isel(band=number).drop_vars("band", errors="ignore").rename(name)
            )
    assert image.attrs == attrs


def test_a_single_band():
    image = plane("elevation").expand_dims(band=[1])
    assert list(image_dataset(image)) == ["elevation"]
    assert list(image_dataset(image.rename(None))) == ["B1"]
    assert list(image_dataset(plane("elevation"))) == ["elevation"]
    assert list(image_dataset(plane(None))) == ["B1"]
    assert image_dataset(plane("elevation"))["elevation"].identical(plane("elevation"))


def test_a_geotiff_with_descriptions_keeps_georeference_and_nodata(tmp_path):
    image = xr.concat(
        [plane(), plane(value=100)], "band", coords="minimal", compat="override", join="override"
    )
    image = image.rio.write_nodata(-1).assign_attrs(long_name=("red", "nir"))
    image.rio.to_raster(tmp_path / "two.tif")
    opened = rioxarray.open_rasterio(tmp_path / "two.tif", chunks={"x": 2, "y": 2})
    dataset = image_dataset(opened)
    assert list(dataset) == ["red", "nir"]
    assert dataset["nir"].attrs["long_name"] == "nir"
    assert opened.attrs["long_name"] == ("red", "nir")
    assert (dataset["nir"].rio.nodata, dataset["nir"].chunks) == (-1, ((2, 2), (2, 2, 1)))
    assert read_georef(dataset) == read_georef(opened)
    np.testing.assert_array_equal(dataset["nir"], plane(value=100))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5)), "An image must be an xarray Dataset or DataArray; got ndarray"),
        (
            xr.DataArray(np.zeros((2, 4, 5)), {"band": ["a", "a"]}, ("band", "y", "x")),
            "The name 'a' is already used by another band",
        ),
        (xr.DataArray(np.zeros((0, 4, 5)), {}, ("band", "y", "x")), "The image has no bands"),
        (
            xr.DataArray(np.zeros((1, 2)), {"x": [1, 2]}, ("y", "x"), name="x"),
            "The name 'x' is already used by a coord",
        ),
        (
            xr.DataArray(np.zeros((1, 1, 2)), {"x": [1, 2], "band": ["x"]}, ("band", "y", "x")),
            "The name 'x' is already used",
        ),
    ],
)
def test_objects_that_are_not_an_image(image, message):
    with pytest.raises(OptionError, match=message):
        image_dataset(image)


# -- Several images ---------------------------------------------------------------------------------


def test_bands_are_added_without_computing_anything():
    scene = plane("B4").copy(data=unreadable()).to_dataset()
    labels = plane("label").copy(data=unreadable(chunks=3))
    both = add_bands(scene, labels)
    assert {name: band.chunks for name, band in both.items()} == {
        "B4": ((2, 2), (2, 2, 1)),
        "label": ((3, 1), (3, 2)),
    }
    assert both["label"].data.name == labels.data.name


def test_the_first_image_determines_coordinates_and_crs():
    scene = plane("B4", time=np.datetime64("2020-01-01", "ns")).to_dataset().assign_attrs(title="scene")
    labels = plane("label", value=100, time=np.datetime64("1999-01-01", "ns"))
    labels = labels.rio.write_crs(32633, grid_mapping_name="other").rio.write_nodata(-1)
    labels = labels.assign_coords(x=labels.x + 1e-4, y=labels.y.astype("f4")).assign_attrs(
        crs="EPSG:4326", kept=1
    )
    before = labels.copy(deep=True)
    both = add_bands(scene, labels)
    xr.testing.assert_identical(both.drop_vars("label"), scene)
    assert set(both.coords) == set(scene.coords)
    assert both["label"].rio.nodata == -1
    assert both["label"].attrs["kept"] == 1
    assert "crs" not in both["label"].attrs
    assert both["label"].encoding["grid_mapping"] == "spatial_ref"
    assert read_georef(both) == read_georef(scene)
    np.testing.assert_array_equal(both["label"], labels)
    xr.testing.assert_identical(labels, before)
    assert labels.encoding == before.encoding


def test_dimensions_of_other_names_and_orders():
    scene = plane("B4").to_dataset()
    lonlat = plane("label", dims=("latitude", "longitude"), value=7).transpose()
    both = add_bands(scene, lonlat)
    assert both["label"].dims == ("x", "y")
    np.testing.assert_array_equal(both["label"], lonlat)
    swapped = plane("label", value=7).rename(x="b", y="a").rio.set_spatial_dims(x_dim="b", y_dim="a")
    np.testing.assert_array_equal(add_bands(scene, swapped)["label"], swapped)
    odd = add_bands(swapped, plane("B4"))
    assert spatial_dims(odd) == ("b", "a")
    assert odd["B4"].dims == ("a", "b")


def test_several_images_of_every_kind():
    two = xr.concat([plane(), plane(value=9)], "band", coords="minimal", compat="override", join="override")
    both = add_bands(
        plane("B4").to_dataset(), two.assign_coords(band=["p", "q"]), plane("label"), plane("mask")
    )
    assert list(both) == ["B4", "p", "q", "label", "mask"]
    np.testing.assert_array_equal(both["q"], plane(value=9))


def test_a_crs_and_a_transform_for_images_that_have_none():
    bare = xr.DataArray(np.zeros((4, 5)), dims=("y", "x"), name="a")
    with pytest.raises(GeoreferenceError, match="no CRS"):
        add_bands(bare, bare.rename("b"))
    both = add_bands(bare, bare.rename("b"), crs="EPSG:32633", transform=Affine.identity())
    assert list(both) == ["a", "b"]


def test_extra_dimensions():
    times = np.array(["2020-01-01", "2020-02-01"], "M8[ns]")
    series = plane("ndvi").expand_dims(time=times)
    both = add_bands(plane("label").to_dataset(), series)
    assert both["ndvi"].dims == ("time", "y", "x")
    assert (both["time"] == times).all()
    assert add_bands(series, series.rename("evi")).sizes["time"] == 2
    with pytest.raises(GridMismatchError, match="different coordinates along 'time'"):
        add_bands(series, series.rename("evi").assign_coords(time=times + np.timedelta64(1, "D")))
    with pytest.raises(GridMismatchError, match="different coordinates along 'time'"):
        add_bands(plane("label").to_dataset(), series, series.rename("evi").isel(time=[1, 0]))
    # A dimension of one step is dropped.
    one = series.isel(time=[0]).rename("evi").assign_coords(time=times[1:])
    assert add_bands(series, one)["evi"].dims == ("y", "x")


def test_duplicate_names_raise():
    for others in ([plane("B4")], [plane("label"), plane("label")], [plane("x1"), plane("B4")]):
        with pytest.raises(
            OptionError, match=r"The name '(B4|label)' is already used by another band\. Rename one"
        ):
            add_bands(plane("B4").to_dataset(), *others)
    dated = plane("B4", time=np.datetime64("2020-01-01", "ns")).to_dataset()
    with pytest.raises(OptionError, match="The name 'time' is already used by a coordinate"):
        add_bands(dated, plane("time"))


def test_different_grids_raise():
    scene = plane("B4").to_dataset()
    shifted = plane("label").assign_coords(x=X + 15)
    with pytest.raises(GridMismatchError, match=r"^image and other are .* Origin: other starts 0\.5 pixels"):
        add_bands(scene, shifted)
    with pytest.raises(GridMismatchError, match=r"^image and other 2 are .* Shape: 5 x 4 and 5 x 3"):
        add_bands(scene, plane("fine"), plane("label").isel(y=slice(0, 3)))
    with pytest.raises(GridMismatchError, match=r"CRS: EPSG:32633 .* and EPSG:32634"):
        add_bands(scene, plane("label").rio.write_crs(32634))


def test_variables_that_are_not_rasters():
    other = plane("label").to_dataset().assign(row_mean=("y", np.zeros(4)))
    with pytest.raises(GeoreferenceError, match=r"'row_mean' lack one of the dimensions x and y.*drop_vars"):
        add_bands(plane("B4").to_dataset(), other)
    # A grid mapping that was not decoded is allowed.
    other = plane("label").to_dataset().reset_coords("spatial_ref")
    assert list(add_bands(plane("B4").to_dataset(), other)) == ["B4", "label"]


def test_the_real_scene_and_labels(landsat, landsat_dir):
    strata = (
        rioxarray.open_rasterio(landsat_dir / "strata.tif", chunks={})
        .squeeze("band", drop=True)
        .rename("cover")
    )
    with pytest.raises(
        GridMismatchError, match=r"CRS: .*EPSG:3358 .*other\.rio\.write_crs\(image\.rio\.crs\)"
    ):
        add_bands(landsat, strata)
    both = add_bands(landsat, strata.rio.write_crs(landsat.rio.crs))
    assert list(both) == ["B1", "B2", "B3", "B4", "B5", "B7", "cover"]
    assert read_georef(both) == read_georef(landsat)
    np.testing.assert_array_equal(both["cover"], strata)
