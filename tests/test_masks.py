"""Tests of nodata in all its forms, and of valid values that stay valid."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal
from fractions import Fraction

import dask
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import rioxarray
import xarray as xr
import zarr
from affine import Affine
from hypothesis import example, given
from hypothesis import strategies as st

import xee_tf
from tests.optional import optional
from tests.rasters import raster
from tests.strategies import examples
from xee_tf.blocks.assembling import PlaneRule
from xee_tf.errors import OptionError, PredictionError, RecordError
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, write_georef
from xee_tf.georef.masks import band_nodata
from xee_tf.models.types import fill_outside, pixel_type
from xee_tf.predict.resampling import from_projection
from xee_tf.upload.casting import common_nodata
from xee_tf_cli import main

gpd = optional("geopandas")

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOATS = ("float16", "float32", "float64")


def band_of(dtype, attrs=None, encoding=None, values=((1, 2), (3, 4))):
    band = raster({"b": np.array(values, dtype)})["b"]
    band.attrs.update(attrs or {})
    band.encoding.update(encoding or {})
    return band


# -- Which values --------------------------------------------------------------------------------------

NAMES = (
    *("_FillValue", "missing_value", "fill_value", "nodata", "nodatavals"),
    *("NODATA", "no_data", "nodata_value", "NoData_Value", "_Fillvalue", "missingValue", "FillValue"),
)
FORMS = (
    *(-99, -99.0, np.int16(-99), np.float32(-99), np.float64(-99), np.longdouble(-99), np.array(-99)),
    *(np.array([-99]), np.array([[-99.0]], ">f4"), [-99], (-99,), [[-99]], [np.int8(-99)], (None, -99)),
    *("-99", " -99.0 ", "-9.9e1", b"-99", b"-99\x00", np.str_("-99"), np.bytes_(b"-99"), np.array("-99")),
    *(Decimal(-99), Fraction(-99), xr.DataArray(-99), np.ma.array([-99, 5], mask=[False, True]), (-99, -99)),
)
NOTHING = (
    *(None, "", "none", "None", "null", "N/A", [], (), np.array([]), [None], (None, None), "nan", "NaN"),
    *(
        np.nan,
        float("nan"),
        np.float32("nan"),
        [np.nan],
        b"nan",
        False,
        np.False_,
        pd.NA,
        pd.NaT,
        np.ma.masked,
    ),
)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_forms_of_nodata(name):
    for form in FORMS:
        for dtype in ("int8", "int64", "float16", "float32", "float64"):
            found = band_nodata(band_of(dtype, {name: form}), "b")
            assert found == (-99,), (form, dtype)
            assert type(found[0]) is (float if dtype.startswith("float") else int)
        for dtype in ("uint8", "uint64", "bool"):
            assert band_nodata(band_of(dtype, {name: form}), "b") == ()
    for form in NOTHING:
        for dtype in ("uint8", "float32", "bool"):
            assert band_nodata(band_of(dtype, {name: form}), "b") == (), form


@pytest.mark.parametrize("name", ["_FillValue", "nodata", "nodatavals"])
@pytest.mark.parametrize("value", ["abc", b"\xff", 1j, {"b": 1}, [[1], "x"], np.datetime64("2020-01-01")])
def test_nodata_that_is_not_a_number_raises(name, value):
    with pytest.raises(OptionError, match=rf"Band 'B4' has attrs\['{name}'\] = .* is not a number\. .*ds\["):
        band_nodata(band_of("uint8", {name: value}), "B4")


def test_every_entry_point_names_the_band(tmp_path):
    scene = raster({"red": np.ones((8, 8), "uint8")})
    scene["red"].attrs["_FillValue"] = "none of these"
    model = xee_tf.Model.from_function(lambda t: t[..., 0], input_tile_size=8, output_bands=["p"])
    points = gpd.GeoSeries(gpd.points_from_xy([700_015], [4_999_985]), crs=32633)
    for call in (
        lambda: scene.tfexport.plan(patch_dimensions=4),
        lambda: scene.tfexport(tmp_path / "scene", patch_dimensions=4),
        lambda: scene.tfexport.table(points, tmp_path / "table"),
        lambda: model.predict_image(scene),
        lambda: xee_tf.predict_to_zarr(model, scene, tmp_path / "p.zarr"),
    ):
        with pytest.raises(OptionError, match=r"'red' has .*'none of these'"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dtype", "attrs", "encoding", "expected"),
    [
        # In CF both names mask; they take precedence over other names, as in rioxarray.
        ("int16", {"_FillValue": -1, "missing_value": -2, "nodata": 0}, {}, (-1, -2)),
        ("int16", {"missing_value": np.array([-2, -3], "i2")}, {}, (-2, -3)),
        ("int16", {"fill_value": 5, "nodata": 6, "nodatavals": (7,)}, {}, (5,)),
        ("int16", {"nodata": 6, "nodatavals": (7,)}, {}, (6,)),
        ("int16", {"_FillValue": None, "nodata": 6}, {}, (6,)),
        ("float32", {"_FillValue": np.nan, "nodata": 0}, {}, ()),
        # Out of range, with a fraction, or in range after rounding.
        ("uint8", {"_FillValue": 256}, {}, ()),
        ("uint8", {"_FillValue": 254.5}, {}, ()),
        ("uint8", {"_FillValue": 255.0}, {}, (255,)),
        ("int32", {"_FillValue": np.inf}, {}, ()),
        ("int64", {"_FillValue": 2**53 + 1}, {}, (2**53 + 1,)),
        ("int64", {"_FillValue": "-9223372036854775808"}, {}, (-(2**63),)),
        ("int64", {"_FillValue": 9.223372036854775807e18}, {}, (2**63 - 1,)),
        ("uint64", {"_FillValue": "18446744073709551615"}, {}, (2**64 - 1,)),
        ("uint64", {"_FillValue": 1.8446744073709552e19}, {}, (2**64 - 1,)),
        ("uint64", {"_FillValue": 10**400}, {}, ()),
        ("float16", {"_FillValue": -99999}, {}, (-np.inf,)),
        ("float16", {"_FillValue": float(np.finfo("f4").min)}, {}, (-np.inf,)),
        ("float32", {"_FillValue": 1e300}, {}, (np.inf,)),
        ("float32", {"_FillValue": "-1.7976931348623157e+308"}, {}, (-np.inf,)),
        ("float32", {"_FillValue": 10**400}, {}, (np.inf,)),
        ("float32", {"_FillValue": "-3.4028234663852886e+38"}, {}, (float(np.finfo("f4").min),)),
        ("float32", {"_FillValue": -9999.9}, {}, (float(np.float32(-9999.9)),)),
        ("float32", {"_FillValue": "-inf"}, {}, (-np.inf,)),
        # Unsigned integers in signed dtypes, and vice versa.
        ("int8", {"_FillValue": 255, "_Unsigned": "true"}, {}, (-1,)),
        ("int8", {"_FillValue": -1, "_Unsigned": "true"}, {}, (-1,)),
        ("uint8", {"_FillValue": np.int8(-1)}, {"_Unsigned": "true"}, (255,)),
        ("uint8", {"_FillValue": -1}, {}, ()),
        ("uint8", {"_FillValue": -1000, "_Unsigned": "false"}, {}, ()),
        # Raw values are compared, regardless of scaling; a valid range does not mask.
        ("int16", {"_FillValue": -1, "scale_factor": 0.1, "add_offset": -1.0}, {}, (-1,)),
        ("int16", {"valid_min": 0, "valid_max": 9, "valid_range": [0, 9]}, {}, ()),
        # The encoding applies only to integers that are not scaled.
        ("int16", {}, {"_FillValue": -1}, (-1,)),
        ("int16", {}, {"missing_value": np.int16(-1)}, (-1,)),
        ("int16", {"nodata": 0}, {"_FillValue": -1}, (-1,)),
        ("int16", {"_FillValue": 0}, {"_FillValue": -1}, (0,)),
        ("uint8", {}, {"fill_value": np.uint8(0)}, ()),  # for unwritten chunks of Zarr
        ("int16", {}, {"_FillValue": -1, "scale_factor": 2}, ()),
        ("float32", {}, {"_FillValue": -1}, ()),
        ("float32", {"nodata": -1}, {"_FillValue": -1, "dtype": "float32"}, ()),
        ("float32", {"nodata": 0}, {"scale_factor": 0.1, "dtype": "int16"}, ()),
        ("float32", {"nodata": -1}, {"_FillValue": -1}, (-1.0,)),  # odc-geo writes both
        ("float32", {"_FillValue": -1}, {"_FillValue": -2, "dtype": "float32"}, (-1.0,)),
    ],
)
def test_precedence_of_nodata_sources(dtype, attrs, encoding, expected):
    assert band_nodata(band_of(dtype, attrs, encoding), "b") == expected


def test_values_of_several_bands():
    values = np.arange(12, dtype="uint8").reshape(3, 2, 2)
    image = raster({"b": np.zeros((2, 2), "uint8")}).b.expand_dims(band=3).copy(data=values)
    for name in ("nodatavals", "nodata", "_FillValue"):
        noted = image.assign_attrs({name: (1, 5, None)})
        dataset = xee_tf.georef.bands.image_dataset(noted)
        assert [band_nodata(dataset[band], band) for band in dataset] == [(1,), (5,), ()]
    noted = image.assign_coords(band=[1, 2, 3]).assign_attrs(nodatavals=[1, 5, 9])
    two = xee_tf.georef.bands.image_dataset(noted.isel(band=slice(1, 3)))
    assert [band_nodata(band, str(name)) for name, band in two.items()] == [(5,), (9,)]
    assert band_nodata(noted.sel(band=2), "b") == (5,)
    assert band_nodata(image.assign_attrs(missing_value=[1, 5, 9]), "b") == (1, 5, 9)
    assert band_nodata(image.assign_attrs(nodatavals=[7, 7, 7]), "b") == (7,)
    with pytest.raises(
        OptionError, match=r"Band 'b' has attrs\['nodatavals'\] = \[1, 5, 9\], and it is ambiguous"
    ):
        band_nodata(noted.isel(band=1, drop=True), "b")


def test_nodata_of_a_dataset_applies_to_bands_without_nodata(tmp_path):
    values = np.arange(128, dtype="int16").reshape(2, 8, 8) % 50
    whole = xr.DataArray(values, dims=("band", "y", "x"), coords=raster({"b": values[0]}).coords)
    whole.rio.write_crs(32633).rio.write_nodata(7).rio.to_raster(tmp_path / "b.tif")
    scene = rioxarray.open_rasterio(tmp_path / "b.tif").to_dataset("band").rename({1: "red", 2: "nir"})
    assert not scene.red.attrs
    scene["own"] = scene.red.assign_attrs(nodata=9)
    scene["coded"] = scene.red.astype("float32")
    scene["coded"].encoding = {"_FillValue": 7, "dtype": "int16"}
    found = xee_tf.georef.bands.image_dataset(scene)
    masks = {name: band_nodata(found[name], name) for name in found}
    assert masks == {"red": (7,), "nir": (7,), "own": (9,), "coded": ()}
    assert "_FillValue" in scene.attrs  # the user's object is unchanged
    assert not scene.red.attrs
    result = scene[["nir"]].tfexport(tmp_path / "e", patch_dimensions=8, default_value=-1)
    np.testing.assert_array_equal(xee_tf.open_image(result).nir == -1, values[1] == 7)
    predicted = classes("float32").predict_image(scene[["red"]]).load()
    np.testing.assert_array_equal(predicted.c.isnull(), values[0] == 7)
    assert "_FillValue" not in predicted.attrs
    assert predicted.red.attrs["_FillValue"] == 7
    scene[["red"]].tfexport.table(None, tmp_path / "t")
    assert len(xee_tf.open_table(tmp_path / "t.tfrecord.gz")) == (values[0] != 7).sum()


def test_per_band_and_non_numeric_attributes_of_a_dataset():
    bands = {name: np.zeros((2, 2), "uint8") for name in "ab"}
    scene = raster(bands).assign_attrs(nodatavals=(1, 5), no_data="see the manual", missing_value=None)
    found = xee_tf.georef.bands.image_dataset(scene)
    assert [band_nodata(found[name], name) for name in "ab"] == [(1,), (5,)]
    assert found.attrs == {"crs": "EPSG:32633", "no_data": "see the manual", "missing_value": None}
    numbered = scene.rename(a=1, b=2)[[2]]
    assert band_nodata(xee_tf.georef.bands.image_dataset(numbered)[2], "2") == (5,)
    with pytest.raises(OptionError, match=r"Band 'b' has attrs\['nodatavals'\].* ambiguous"):
        scene[["b"]].tfexport.plan(patch_dimensions=2)


def test_pixels_out_of_range_for_float32_stay_masked(tmp_path):
    values = np.array([[1, 2, -1.797e308], [4, -1.797e308, 6]])
    scene = raster({"b": values}).rio.write_crs(32633)
    scene.b.rio.write_nodata(-1.797e308, inplace=True)
    with np.errstate(over="ignore"):
        scene["b"] = scene.b.astype("float32").assign_attrs(scene.b.attrs)
    predicted = classes("float32").predict_image(scene, merge=False).load()
    np.testing.assert_array_equal(predicted.c.isnull(), values < -1e300)


def test_nodata_from_rio_set_nodata():
    band = band_of("uint8")
    band.rio.set_nodata(3)
    assert band_nodata(xee_tf.georef.bands.image_dataset(band)["b"], "b") == (3,)


@given(
    st.sampled_from([*INTEGERS, *FLOATS]),
    st.lists(st.integers(-(2**64), 2**65) | st.floats() | st.integers(-130, 260), max_size=3),
    st.data(),
)
@examples(200)
def test_any_nodata_masks_equal_values(dtype, noted, data):
    """The oracle compares the exact values in the dtype, one by one."""
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind in "iu" else None
    near = [n for n in noted if limits and n == n and abs(n) < 2**70 and limits.min <= n <= limits.max]
    with np.errstate(over="ignore"):
        values = np.array([0, 1, 100, *map(int, near)], kind)
        if limits is None:
            values = np.array([0, 1, np.nan, np.inf, *(kind.type(float(n)) for n in noted)], kind)
    rule = PlaneRule(0, 0, band_nodata(band_of(dtype, {"missing_value": noted}), "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rule.masked(values)

    def masks(value, number):
        if limits is not None:
            whole = float(number).is_integer() if isinstance(number, float) else True
            high = number == float(limits.max) and limits.bits == 64 and isinstance(number, float)
            return whole and int(value) == (int(limits.max) if high else int(number))
        with np.errstate(over="ignore"):
            held = kind.type(float(number))
        return bool(value == held)  # infinite if out of range, as the pixels are

    expected = [value != value or any(masks(value, number) for number in noted) for value in values]
    np.testing.assert_array_equal(np.zeros(len(values), bool) if found is None else found, expected)


# -- Through files and arithmetic ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """Write a band with two masked pixels as GeoTIFF, NetCDF and Zarr, without scaling."""
    pytest.importorskip("h5netcdf")
    folder = tmp_path_factory.mktemp("counts")
    values = np.arange(64, dtype="int16").reshape(8, 8)
    values[1, 2] = values[5, 6] = -32768
    scene = raster({"b": values}).rio.write_crs(32633)
    scene["b"].encoding["_FillValue"] = np.int16(-32768)
    scene.to_netcdf(folder / "counts.nc", engine="h5netcdf")
    scene.to_zarr(folder / "counts.zarr", consolidated=False)
    scene.b.drop_encoding().rio.write_nodata(-32768).rio.write_crs(32633).rio.to_raster(folder / "counts.tif")
    return folder, values == -32768


@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize("suffix", ["nc", "zarr", "tif", "engine"])
def test_files_keep_their_masks(counts, tmp_path, suffix, decoded):
    pytest.importorskip("h5netcdf")
    folder, masked = counts
    if suffix == "tif":
        image = rioxarray.open_rasterio(folder / "counts.tif", masked=decoded, chunks=4)
    elif suffix == "engine":
        path = folder / "counts.tif"
        image = xr.open_dataset(path, engine="rasterio", mask_and_scale=decoded).isel(band=0, drop=True)
    else:
        options = {"mask_and_scale": decoded, "decode_coords": "all"}
        engine = "zarr" if suffix == "zarr" else "h5netcdf"
        image = xr.open_dataset(
            folder / f"counts.{suffix}",
            engine=engine,
            **options,
            **({"consolidated": False} if suffix == "zarr" else {}),
        )
    model = xee_tf.Model.from_function(lambda t: t[..., 0] * 0.5, input_tile_size=4, output_bands=["p"])
    predicted = model.predict_image(image, merge=False).p
    np.testing.assert_array_equal(np.isnan(predicted), masked)
    image.tfexport(tmp_path / "scene", patch_dimensions=8, default_value=777)
    band = next(iter(xee_tf.open_image(f"{tmp_path}/scene-mixer.json").data_vars.values()))
    np.testing.assert_array_equal(band == 777, masked)


def test_bands_decoded_by_xarray_are_not_masked_again(tmp_path):
    """After scaling, a valid pixel may have the fill value."""
    pytest.importorskip("h5netcdf")
    raw = np.array([[0, 10], [20, 30]], "int16")
    scene = raster({"b": raw}).rio.write_crs(32633)
    scene["b"].attrs.update(_FillValue=np.int16(0), scale_factor=0.5, add_offset=-5.0, nodata=0)
    scene.to_netcdf(tmp_path / "scaled.nc", engine="h5netcdf")
    opened = xr.open_dataset(tmp_path / "scaled.nc", engine="h5netcdf", decode_coords="all")
    np.testing.assert_array_equal(opened.b, [[np.nan, 0], [5, 10]])
    assert band_nodata(opened.b, "b") == ()
    filled = opened.b.fillna(1).astype("uint8")
    assert band_nodata(filled, "b") == (0,)  # the attribute nodata remains without the encoding
    assert band_nodata(filled.drop_attrs(), "b") == ()
    raw = xr.open_dataset(tmp_path / "scaled.nc", engine="h5netcdf", mask_and_scale=False)
    assert band_nodata(raw.b, "b") == (0,)


def test_inheritance_of_masks(tmp_path):
    scene = raster({"b": np.linspace(0, 1, 64, dtype="float32").reshape(8, 8)})
    scene["b"].attrs["_FillValue"] = np.float32(-99999)
    scene["b"].values[2, 3] = -99999
    with xr.set_options(keep_attrs=True):
        scene["flag"] = scene["b"] > 0.5
        scene["kind"] = scene["flag"].astype("uint8")
        scene["scaled"] = (scene["b"].where(scene["b"] > 0, 0) * 1000).astype("int16")
    with pytest.warns(UserWarning, match=r"written as 1 in 'flag' \(bool\)\."):
        scene.tfexport(tmp_path / "scene", patch_dimensions=8, default_value=9)
    found = xee_tf.open_image(f"{tmp_path}/scene-mixer.json").load()
    assert (found.b == 9).sum() == 1
    np.testing.assert_array_equal(found.flag, scene.b > 0.5)
    np.testing.assert_array_equal(found.kind, scene.b > 0.5)
    assert not (found.scaled == 9).any()


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, "bool"])
def test_bands_of_every_type_are_masked_everywhere(tmp_path, dtype):
    """Nodata and masks with other chunks give the same result in exports, tables and predictions."""
    values = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 9, (8, 8)).astype(dtype)
    scene = raster({"b": values})
    absent = np.zeros((8, 8), bool)
    if dtype != "bool":
        scene["b"].attrs["missing_value"] = 7
        absent = values == 7
    cloud = scene.b.copy(data=np.indices((8, 8)).sum(0) % 5 == 0).drop_attrs().chunk(y=3, x=5)
    chunked = scene.chunk(y=4, x=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Band 'b' is")  # integers of 32 and 64 bits as float32
        chunked.tfexport(tmp_path / "scene", patch_dimensions=4, default_value=1, mask=cloud)
    found = xee_tf.open_image(f"{tmp_path}/scene-mixer.json").b.values
    np.testing.assert_array_equal(found, np.where(absent | cloud.values, 1, values))

    xee_tf.sample_table(chunked, None, tmp_path / "table", geometry=None, drop_nulls=False)
    table = xee_tf.open_table(f"{tmp_path}/table.tfrecord.gz")
    np.testing.assert_array_equal(table["b"], np.where(absent, np.nan, values.astype("f4")).ravel())

    model = xee_tf.Model.from_function(
        lambda tile: tile[..., 0].astype("float64"), input_tile_size=4, output_bands={"p": "float64"}
    )
    predicted = model.predict_image(chunked, merge=False).p
    np.testing.assert_array_equal(predicted, np.where(absent, np.nan, values.astype("f8")))


# -- Defaults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "default", "stands"),
    [
        *(("uint8", -9999, 0), ("uint8", 256, 255), ("int8", 0.5, 0), ("bool", -1, 0), ("bool", 2, 1)),
        *(("int16", -1e9, -32768), ("float32", 1e300, float(np.finfo("f4").max))),
    ],
)
def test_a_default_value_that_a_band_cannot_represent_warns_once(tmp_path, dtype, default, stands):
    scene = raster({"b": np.ones((8, 8), dtype), "f": np.ones((8, 8), "float64")})
    mask = scene.f.copy(data=np.eye(8, dtype=bool))
    with pytest.warns(UserWarning, match="default_value") as caught:
        scene.tfexport(tmp_path / "scene", patch_dimensions=4, default_value=default, mask=mask)
    assert len(caught) == 1
    assert f"{stands:.15g} in 'b' ({dtype})" in str(caught[0].message)
    found = xee_tf.open_image(f"{tmp_path}/scene-mixer.json")
    assert set(found.b.values[mask]) == {np.float32(stands)}
    plan = scene.tfexport.plan(patch_dimensions=4, default_value=default)
    assert plan.warnings == (str(caught[0].message),)


def test_a_default_value_that_all_bands_can_represent_does_not_warn():
    scene = raster({"b": np.ones((8, 8), "int16"), "f": np.ones((8, 8), "float32")})
    assert scene.tfexport.plan(patch_dimensions=4, default_value=-9999).warnings == ()
    assert scene[["f"]].tfexport.plan(patch_dimensions=4, default_value=-9999.9).warnings == ()
    with pytest.raises(OptionError, match="default_value must be a finite number"):
        scene.tfexport.plan(patch_dimensions=4, default_value=10**400)


def test_a_default_value_out_of_range_for_float32_masks_no_pixels(tmp_path):
    scene = raster({"b": np.array([[1.0, np.inf], [-np.inf, 3.0]], "float32")})
    result = scene.tfexport(tmp_path / "scene", patch_dimensions=2)
    with pytest.warns(UserWarning, match=r"masks no pixels of 'b' \(float32\)"):
        found = xee_tf.open_image(result, default_value=-4e38)
    np.testing.assert_array_equal(found.b, scene.b)
    with pytest.raises(OptionError, match="cannot be represented as float32"):
        xee_tf.upload_image(None, result, tmp_path / "b.tif", nodata=-4e38)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize("spelling", ["nodata", "_FillValue", "missing_value", "fill_value", "encoding"])
def test_pixels_outside_a_projection_are_masked(dtype, spelling):
    place = GeoRef(pyproj.CRS(4326), Affine(0.5, 0, 10, 0, -0.5, 20), Size(x=6, y=4))
    wider = GeoRef(pyproj.CRS(4326), Affine(0.5, 0, 9, 0, -0.5, 20), Size(x=10, y=4))
    image = write_georef(xr.Dataset({"b": (("y", "x"), np.full((4, 6), 7, dtype))}), place)
    if spelling == "encoding":
        image.b.encoding["_FillValue"] = 111  # for floats it describes the file
    else:
        image.b.attrs[spelling] = 111
    found = from_projection(image, place, wider, "nearest").b
    assert found.dtype == dtype
    outside = math.nan if spelling == "encoding" and dtype == "float32" else 111
    np.testing.assert_array_equal(found[0], [outside] * 2 + [7] * 6 + [outside] * 2)


# -- Predictions ---------------------------------------------------------------------------------------


def ranged(low, high):
    return {"type": {"precision": "int", "min": low, "max": high}}


def classes(output, value=None):
    """Return a model whose output is its band, or a constant, in a dtype."""
    return xee_tf.Model.from_function(
        lambda tile: tile[..., 0] if value is None else np.full(tile.shape[:-1], value),
        input_tile_size=4,
        output_bands={"c": output},
    )


@given(st.sampled_from(INTEGERS), st.data())
def test_fills_are_outside_declared_ranges(dtype, data):
    limits = np.iinfo(dtype)
    ends = st.sampled_from([int(limits.min), int(limits.max), 0]) | st.integers(
        int(limits.min), int(limits.max)
    )
    low, high = sorted((data.draw(ends), data.draw(ends)))
    kind, fill = fill_outside(np.dtype(dtype), (low, high))
    assert np.iinfo(kind).min <= fill <= np.iinfo(kind).max
    assert kind.itemsize >= np.dtype(dtype).itemsize
    whole = (low, high) == (limits.min, limits.max)
    assert (not low <= fill <= high) or (whole and kind.itemsize == 8)
    assert (kind == np.dtype(dtype)) or whole
    usual = limits.max if dtype[0] == "u" else limits.min
    if limits.bits == 64:
        usual = 2**53 - 1 if dtype[0] == "u" else 1 - 2**53
        assert abs(fill) < 2**53 or (low <= 1 - 2**53 * (limits.min < 0) and high >= 2**53 - 1)
    assert fill_outside(np.dtype(dtype), None) == (np.dtype(dtype), usual)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "fill"),
    [
        (0, 9, "uint8", 255),
        (0, 255, "uint16", 65535),
        (1, 255, "uint8", 0),
        (-128, 127, "int16", -32768),
        (-128, 5, "int8", 127),
        (0, 65535, "uint32", 2**32 - 1),
        (None, None, "int32", -(2**31)),
    ],
)
def test_all_values_in_a_declared_range_stay_valid(tmp_path, low, high, dtype, fill):
    """In memory, GeoTIFF and Zarr; values out of range are clamped."""
    ends = np.linspace(-70000 if low is None else low - 3, 70000 if high is None else high + 3, 64)
    values = np.trunc(ends).reshape(8, 8)
    values[2, 5] = values[7, 0] = np.nan
    masked = np.isnan(values)
    expected = values if low is None else np.clip(values, low, high)
    scene = raster({"b": values}).rio.write_crs(32633)
    model = classes({"type": {"precision": "int"}} if low is None else ranged(low, high))
    predicted = model.predict_image(scene, merge=False).c
    assert (predicted.dtype, predicted.rio.nodata, predicted.rio.nodata.dtype) == (dtype, fill, dtype)
    np.testing.assert_array_equal(predicted, np.where(masked, fill, expected))
    predicted.rio.to_raster(tmp_path / "c.tif")
    with rasterio.open(tmp_path / "c.tif") as file:
        found = file.read(1, masked=True)
        np.testing.assert_array_equal(np.ma.getmaskarray(found), masked)
        np.testing.assert_array_equal(found.data[~masked], expected[~masked])
    xee_tf.predict_to_zarr(model, scene, tmp_path / "c.zarr")
    found = xr.open_zarr(tmp_path / "c.zarr", consolidated=False).c
    np.testing.assert_array_equal(found, np.where(masked, np.nan, expected))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_fill_value_in_the_valid_range_raises(tmp_path, monkeypatch, dtype, masked):
    monkeypatch.setattr("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1))
    limits = np.iinfo(dtype)
    fill = max(int(limits.min), 1 - 2**53) if dtype[0] == "i" else min(int(limits.max), 2**53 - 1)
    values = np.ones((8, 8))
    values[0, 0] = np.nan if masked else 1
    values[6, 5] = fill  # only in the last tile
    scene = raster({"b": values}).chunk(y=4, x=4)
    model = classes(dtype)
    with pytest.raises(PredictionError) as caught:
        model.predict_image(scene, merge=False).c.load()
    message = str(caught.value)
    assert f"The output 'c' is {fill} in 1 pixel that is not masked" in message
    assert "the tile is at row 1 and column 1" in message
    assert ("declare the range" in message) == (limits.bits < 64)
    other = {8: "int32", 16: "int32", 32: "int64", 64: "float64"}[limits.bits]
    assert f"declare a wider type, output_bands={{'c': '{other}'}}" in message
    found = classes(other).predict_image(scene, merge=False).c
    assert found[6, 5] == float(fill)
    with dask.config.set(scheduler="sync"), pytest.raises(PredictionError, match="marks masked pixels"):
        xee_tf.predict_to_zarr(model, scene, tmp_path / "c.zarr")
    done = zarr.open_array(tmp_path / "c.zarr", path="c", mode="r")
    assert (np.asarray(done[:4, 4:]) == 1).all()  # finished chunks remain


def test_clamped_values_are_valid_too():
    scene = raster({"b": np.full((4, 4), 300, "float32")})
    with pytest.raises(PredictionError, match="The output 'c' is 255 in 16 pixels that are not masked"):
        classes("uint8").predict_image(scene, merge=False).c.load()
    found = classes(ranged(0, 200)).predict_image(scene, merge=False).c
    assert (found == 200).all()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_all_values_are_valid_if_no_pixel_can_be_masked(tmp_path, dtype):
    limits = np.iinfo(dtype)
    values = np.full((8, 8), limits.max, dtype)
    values[:4] = limits.min
    scene = raster({"b": values}).rio.write_crs(32633)
    predicted = classes(dtype).predict_image(scene, merge=False).c
    assert (predicted.dtype, predicted.attrs, predicted.rio.nodata) == (dtype, {}, None)
    np.testing.assert_array_equal(predicted, values)
    predicted.to_zarr(tmp_path / "c.zarr", consolidated=False)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "c.zarr", consolidated=False).c, values)
    predicted.rio.to_raster(tmp_path / "c.tif")
    with rasterio.open(tmp_path / "c.tif") as file:
        assert file.read(1, masked=True).count() == 64
    assert classes(ranged(0, 255)).predict_image(scene, merge=False).c.dtype == "uint8"


@pytest.mark.parametrize("maskable", [True, False])
def test_booleans_are_zero_one_or_masked(maskable):
    values = np.random.default_rng(0).random((8, 8))
    values[3, 4] = np.nan if maskable else 0
    scene = raster({"b": values if maskable else (values * 100).astype("uint8")})
    found = classes("bool", True).predict_image(scene, merge=False).c
    assert (found.dtype, found.attrs) == ("uint8", {"_FillValue": 255} if maskable else {})
    np.testing.assert_array_equal(found, np.where(np.isnan(values), 255, 1))


def test_floats_have_nan_as_fill_value_in_the_encoding(tmp_path):
    values = np.random.default_rng(0).random((8, 8), "float32")
    values[3, 4] = np.nan
    scene = raster({"b": values}).rio.write_crs(32633)
    predicted = classes("float32").predict_image(scene, merge=False).c
    assert predicted.attrs == {}
    assert np.isnan(predicted.rio.nodata)
    predicted.rio.to_raster(tmp_path / "c.tif")
    (predicted > 0.5).astype("uint8").rio.to_raster(tmp_path / "kind.tif")
    with rasterio.open(tmp_path / "c.tif") as file:
        assert file.read(1, masked=True).count() == 63
    with rasterio.open(tmp_path / "kind.tif") as file:
        assert file.read(1, masked=True).count() == 64


def test_predictions_are_images_with_the_same_masks(tmp_path):
    values = np.arange(64, dtype="float32").reshape(8, 8)
    values[1, 1] = np.nan
    first = classes(ranged(0, 99)).predict_image(raster({"b": values}), merge=False)
    again = classes("float32").predict_image(first, merge=False).c
    np.testing.assert_array_equal(again, values)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"precision": "int", "min": 3}, (3, 2**31 - 1)),
        ({"precision": "int", "maxValue": 9.0}, (-(2**31), 9)),
        *(({"precision": "int"}, None), ({"precision": "float", "min": 0, "max": 1}, None), ("byte", None)),
    ],
)
def test_ranges_of_pixel_types(kind, expected):
    assert pixel_type(kind, "c").limits == expected


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [("0", 9, "must be numbers; got '0'"), (9, 0, "must not be greater than"), (0, True, "True")],
)
def test_invalid_ranges(low, high, message):
    with pytest.raises(OptionError, match=message):
        classes(ranged(low, high))


# -- Reprojection --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, "bool"])
def test_masks_survive_reprojection(dtype):
    """On the grid of the image, masks must be the same for all dtypes."""
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (8, 8)).astype(dtype)
    masked, attrs = np.zeros((8, 8), bool), {}
    if dtype != "bool":
        largest = (np.finfo if dtype in FLOATS else np.iinfo)(dtype).max
        values[3, 4], values[5, 0] = largest, 77
        attrs = {"_FillValue": largest, "missing_value": 77}
        masked = (values == largest) | (values == 77)
    scene = raster({"b": values}).rio.write_crs(32633)
    scene["b"].attrs.update(attrs)
    outputs = {"c": "uint64", "n": "int8", "h": "float16", "i": "int32", "f": "float32"}
    model = xee_tf.Model.from_function(
        lambda tile: dict.fromkeys(outputs, tile[..., 0] > 50),
        input_tile_size=4,
        output_bands=outputs,
        proj=("EPSG:32633", (30, 0, 700_000, 0, -30, 5_000_000)),
        fix_input_proj=True,
    )
    # rasterio suppresses warnings in a way that is not thread-safe.
    found = model.predict_image(scene, merge=False).compute(scheduler="sync")
    for name, kind in outputs.items():
        assert found[name].dtype == kind
        absent = np.isnan(found[name]) if kind[0] == "f" else found[name] == found[name].rio.nodata
        np.testing.assert_array_equal(absent, masked)
        np.testing.assert_array_equal(found[name].values[~masked], values[~masked] > 50)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("nodata", [True, False])
def test_large_integers_survive_reprojection(dtype, nodata):
    """GDAL compares them with nodata as float32, and converts 64-bit integers to float64."""
    limits = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(limits.max - 70, limits.max, (8, 8), dtype)
    if dtype[0] == "i":
        values[::2] = limits.min + np.arange(8)
    scene = raster({"b": values}).rio.write_crs(32633)
    if nodata:
        scene["b"].attrs["_FillValue"] = limits.max
    model = xee_tf.Model.from_function(
        lambda tile: (tile[..., 0] % 1009).astype("int16"),
        input_tile_size=4,
        output_bands={"c": "int16"},
        proj=("EPSG:32633", (30, 0, 700_000, 0, -30, 5_000_000)),
        fix_input_proj=True,
    )
    if limits.bits == 64 and not nodata:
        for image in (scene, scene.chunk()):
            with pytest.raises(
                PredictionError, match=r"'b' contains -?\d+, .*.attrs\['_FillValue'\] = -?9007199"
            ):
                model.predict_image(image, merge=False).load(scheduler="sync")
        return
    predicted = model.predict_image(scene, merge=False)
    expected = (values.astype(object) % 1009).astype("int16")
    np.testing.assert_array_equal(predicted.c.load(scheduler="sync"), expected)


def test_bilinear_resampling_of_integers_excludes_masked_pixels():
    values = np.full((8, 8), 2**24 + 5, "int32")
    values[::2] = 2**24 + 3
    values[3, 4] = 2**24 + 2
    scene = raster({"b": values}).rio.write_crs(32633)
    scene["b"].attrs["_FillValue"] = 2**24 + 2
    model = xee_tf.Model.from_function(
        lambda tile: tile[..., 0] - 2**24,
        input_tile_size=4,
        output_bands={"c": "int16"},
        proj=("EPSG:32633", (30, 0, 700_000, 0, -30, 5_000_000 - 15)),
        fix_input_proj=True,
    )
    found = model.predict_image(scene, merge=False, resampling="bilinear", output_grid="model").c
    found = found.load(scheduler="sync").values
    assert set(np.unique(found[:, :3])) <= {3, 4, 5, -(2**15)}
    assert 4 in found
    assert 2 not in found


# -- GeoTIFFs of several bands -------------------------------------------------------------------------


def with_fill(kind, end):
    fill = np.dtype(kind).type(min(getattr(np.iinfo(kind), end), 2**53 - 1))
    return xr.DataArray(np.zeros((1, 1), kind), dims=("y", "x"), attrs={"_FillValue": fill}, name="c")


@given(
    st.lists(
        st.tuples(st.sampled_from(INTEGERS[:6]), st.sampled_from(["max", "min"])), min_size=1, max_size=4
    )
)
@example([("uint8", "max"), ("uint8", "min")])
@example([("uint16", "min"), ("int16", "max"), ("int8", "min")])
@example([("uint64", "max"), ("uint8", "min")])
def test_one_nodata_for_bands_of_several_types(bands):
    made = {str(number): with_fill(*band) for number, band in enumerate(bands)}
    dtypes = {name: band.dtype for name, band in made.items()}
    dtype, nodata = common_nodata(dtypes, {name: band.attrs["_FillValue"] for name, band in made.items()}, "")
    assert nodata.dtype == dtype
    for band in made.values():
        limits = np.iinfo(band.dtype)
        assert np.can_cast(band.dtype, dtype, "safe")
        assert nodata == band.attrs["_FillValue"] or not limits.min <= int(nodata) <= limits.max


def test_nodata_for_bands_without_a_common_value():
    bands = {"a": np.dtype("uint8"), "b": np.dtype("int8")}
    assert common_nodata(bands, dict.fromkeys(bands), "") == ("int16", None)
    wide = dict.fromkeys("ab", np.dtype("uint64"))
    for fills in ({"a": 2**53 - 1, "b": 0}, {"a": 2**64 - 1, "b": 2**64 - 1}):
        with pytest.raises(
            OptionError, match=r"every value of both uint64 and float64 can be valid .*: widen"
        ):
            common_nodata(wide, fills, "widen")
    assert common_nodata(wide, dict.fromkeys("ab", 2**53 - 1), "")[1] == 2**53 - 1


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_masks_of_64_bits_survive_geotiffs(tmp_path, dtype):
    values = np.arange(64, dtype="float32").reshape(8, 8)
    values[2, 5] = values[7, 0] = np.nan
    scene = raster({"b": values}).rio.write_crs(32633)
    predicted = classes(dtype).predict_image(scene, merge=False).c
    predicted.rio.to_raster(tmp_path / "c.tif")
    with rasterio.open(tmp_path / "c.tif") as file:
        found = file.read(1, masked=True)
        np.testing.assert_array_equal(np.ma.getmaskarray(found), np.isnan(values))
    again = rioxarray.open_rasterio(tmp_path / "c.tif").squeeze("band", drop=True)
    assert band_nodata(again, "c") == (int(predicted.attrs["_FillValue"]),)
    assert again.dtype == dtype


def test_the_command_line_keeps_valid_values_of_several_bands(tmp_path):
    keras = pytest.importorskip("keras")

    values = np.arange(64, dtype="float32").reshape(8, 8) * 5
    values[0, 1] = np.nan
    raster({"b": values}).rio.write_crs(32633).b.rio.to_raster(tmp_path / "b.tif")
    pixels = keras.Input((4, 4, 1))
    both = keras.layers.Concatenate()([pixels, pixels])
    keras.Model(pixels, both).save(tmp_path / "m.keras")
    arguments = ["predict", tmp_path / "m.keras", tmp_path / "b.tif", tmp_path / "p.tif"]
    assert main([*map(str, arguments), "--output-bands", "big=int16,small=int32"]) == 0
    with rasterio.open(tmp_path / "p.tif") as file:
        for number in (1, 2):
            found = file.read(number, masked=True)
            assert found.count() == 63
            np.testing.assert_array_equal(found.data[~found.mask], values[~found.mask])


# -- Uploads -------------------------------------------------------------------------------------------


def test_uploads_mask_only_nan(tmp_path):
    values = np.random.default_rng(0).random((8, 8), "float32")
    scene = raster({"b": values})
    scene.tfexport(tmp_path / "scene", patch_dimensions=4)
    mixer = xee_tf.Mixer.read(tmp_path / "scene-mixer.json")
    predicted = values.copy()
    predicted[2, 3], predicted[5, 5] = np.nan, 254.6
    with xee_tf.PredictionWriter(tmp_path / "p.tfrecord", mixer) as writer:
        tiles = predicted.reshape(2, 4, 2, 4).swapaxes(1, 2).reshape(4, 4, 4)
        writer.write(tiles)
    for name in ("p.tif", "p.zarr"):
        xee_tf.upload_image(tmp_path / "p.tfrecord", mixer, tmp_path / name, nodata=-9999)
        with pytest.raises(RecordError, match=r"254.6.*, which is rounded to the nodata value 255 in uint8"):
            xee_tf.upload_image(
                tmp_path / "p.tfrecord", mixer, tmp_path / f"u{name}", nodata=255, dtype="uint8"
            )
        xee_tf.upload_image(
            tmp_path / "p.tfrecord", mixer, tmp_path / f"i{name}", nodata=2**31 - 1, dtype="int32"
        )
    with rasterio.open(tmp_path / "p.tif") as floats, rasterio.open(tmp_path / "ip.tif") as integers:
        for file, nodata in ((floats, -9999), (integers, 2**31 - 1)):
            found = file.read(1, masked=True)
            np.testing.assert_array_equal(np.ma.getmaskarray(found), np.isnan(predicted))
            assert found.data[2, 3] == nodata
