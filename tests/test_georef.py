"""Tests of reading, writing and comparing the CRS and affine of xarray objects."""

import re
import warnings

import dask.array as da
import numpy as np
import pyproj
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.optional import optional
from tests.strategies import affines, georefs, sizes
from xee_tf.errors import GeoreferenceError, GridMismatchError, XeeTFError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import GeoRef, read_georef, spatial_dims, write_georef
from xee_tf.georef.coordinates import affine_of_centres, corner_distance, fit_axis, pixel_centres
from xee_tf.georef.crs import crs_name, crs_text, describe_crs, same_crs
from xee_tf.georef.reference import same_grid
from xee_tf.sidecars import Mixer

optional("odc.geo.xr")  # registers .odc
odc = optional("odc")
GeoBox = optional("odc.geo.geobox", "GeoBox")

NORTH_UP = Affine(30, 0, 500_000, 0, -30, 4_500_000)


def raster(affine=NORTH_UP, shape=(4, 5), dims=("y", "x"), **attrs):
    """Return an array with pixel-centre coordinates; `dims` is (y, x) regardless of the order of axes."""
    height, width = shape
    y = affine.f + affine.e * (np.arange(height) + 0.5)
    x = affine.c + affine.a * (np.arange(width) + 0.5)
    return xr.DataArray(
        np.arange(height * width, dtype="int16").reshape(shape),
        coords={dims[0]: y, dims[1]: x},
        dims=dims,
        attrs=attrs,
        name="band",
    )


# -- Dimensions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("y", "x"), ("latitude", "longitude"), ("lat", "lon"), ("Y", "X")])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("as_dataset", [False, True])
def test_dimensions_by_name_in_either_order(names, turned, as_dataset):
    image = raster(dims=names)
    image = image.transpose() if turned else image
    georef = read_georef(image.to_dataset() if as_dataset else image, crs="EPSG:32633")
    assert (georef.y_dim, georef.x_dim) == names
    assert georef.shape == Size(x=5, y=4)
    assert georef.affine == NORTH_UP


def test_dimensions_by_cf_attributes_and_by_the_user():
    image = raster(dims=("northing", "easting"))
    with pytest.raises(GeoreferenceError, match=r"among \('northing', 'easting'\).*rename.*set_spatial_dims"):
        spatial_dims(image)
    cf = image.assign_coords(easting=image.easting.assign_attrs(axis="X"))
    cf = cf.assign_coords(northing=image.northing.assign_attrs(standard_name="projection_y_coordinate"))
    assert spatial_dims(cf) == ("easting", "northing")
    for obj in (image, image.to_dataset()):
        named = obj.rio.set_spatial_dims(x_dim="easting", y_dim="northing")
        assert spatial_dims(named) == ("easting", "northing")
        assert read_georef(named, crs=32633).affine == NORTH_UP


@pytest.mark.parametrize(
    ("dims", "x_dim", "y_dim"),
    [
        (("easting", "northing"), "easting", "northing"),  # in any order
        (("Row", "Col", "band"), "Col", "Row"),
        (("a", "line", "column"), "column", "line"),
        (("a", "b"), "easting", "northing"),  # an example
    ],
)
def test_advice_about_dimensions_never_swaps_them(dims, x_dim, y_dim):
    message = re.escape(f"ds.rename({{{x_dim!r}: 'x', {y_dim!r}: 'y'}})")
    with pytest.raises(GeoreferenceError, match=message):
        spatial_dims(xr.DataArray(np.zeros((2,) * len(dims)), dims=dims))


def test_an_empty_raster_raises():
    with pytest.raises(GeoreferenceError, match="no pixels: x has length 5 and y has length 0"):
        read_georef(raster().isel(y=slice(0, 0)), crs=4326)


# -- CRS --------------------------------------------------------------------------------------------


def test_crs_of_rioxarray_odc_and_plain_cf():
    by_rio = raster().rio.write_crs("EPSG:32633")
    by_odc = odc.geo.xr.assign_crs(raster(), "EPSG:32633")
    by_cf = raster().assign_coords(albers=((), 0, pyproj.CRS("EPSG:32633").to_cf()))
    by_cf.albers.attrs.pop("crs_wkt")
    by_cf.attrs["grid_mapping"] = "albers"
    extended = raster().assign_coords(utm=by_rio.spatial_ref.variable, wgs84=((), 0))
    extended.attrs["grid_mapping"] = "utm: x y wgs84: latitude longitude"
    lone = raster().assign_coords(crs=by_rio.spatial_ref.variable)  # no variable refers to it
    for image in (by_rio, by_odc, by_cf, extended, lone):
        assert read_georef(image).crs.to_epsg() == 32633
        assert read_georef(image.to_dataset()).crs.to_epsg() == 32633


def test_an_explicit_crs_takes_precedence():
    image = raster().rio.write_crs("EPSG:32633")
    for crs in ("EPSG:32119", rasterio.crs.CRS.from_epsg(3035), odc.geo.CRS("EPSG:3857")):
        assert read_georef(raster(), crs=crs).crs == pyproj.CRS(crs)
        with pytest.warns(UserWarning, match=r"crs= is EPSG:3.*, but the raster.s own CRS is EPSG:32633"):
            assert read_georef(image, crs=crs).crs == pyproj.CRS(crs)
    assert read_georef(image, crs=32633) == read_georef(image)  # no contradiction
    assert read_georef(image.assign_coords(spatial_ref=0), crs=32633) == read_georef(image)


@pytest.mark.parametrize("crs", ["EPSG:4326", "OGC:CRS84", 4807])
def test_coordinates_out_of_range_for_degrees_raise(crs):
    for image in (raster(), raster().rio.write_crs("EPSG:32633"), raster().rio.write_crs("EPSG:3857")):
        with pytest.raises(GeoreferenceError, match=r"covers x .* and y .*, which cannot be degrees in"):
            read_georef(image, crs=crs)


@pytest.mark.parametrize(
    ("affine", "fits"),
    [
        (Affine(1, 0, -180, 0, -1, 90), True),
        (Affine(2, 0, 179, 0, -1, 90.5), True),  # the centres of the outer rows are the poles
        (Affine(1, 0, -540, 0, 1, -90), True),
        (Affine(1, 0, -541, 0, 1, -90), False),
        (Affine(1, 0, 0, 0, -1, 92), False),
        (Affine(2, 0, 181, 0, -1, 90), False),
    ],
)
def test_bounds_that_can_be_degrees(affine, fits):
    image = raster(affine, (181, int(360 / affine.a)))
    if fits:
        assert read_georef(image, crs=4326).affine == affine
    else:
        with pytest.raises(GeoreferenceError, match="cannot be degrees"):
            read_georef(image, crs=4326)


@pytest.mark.parametrize("dims", [("time", "y", "x"), ("time", "x", "y"), ("time", "lon", "lat")])
def test_datasets_from_xee(dims):
    y, x = (next(d for d in dims if d in pair) for pair in (("y", "lat"), ("x", "lon")))
    image = raster(dims=(y, x)).expand_dims(time=[np.datetime64("2020-01-01", "ns")]).transpose(*dims)
    # Before version 0.1, the dataset has the CRS of the grid, and variables the CRS of the source.
    old = image.assign_attrs(crs="EPSG:4326", crs_transform=[1, 0, 0, 0, 1, 0]).to_dataset()
    old.attrs["crs"] = "EPSG:32633"
    # Since 0.1, each variable has the CRS, and the transform of the source.
    new = image.assign_attrs(crs="EPSG:32633", crs_transform=[10, 0, 0, 0, -10, 0]).to_dataset()
    for dataset in (old, new):
        georef = read_georef(dataset)
        assert (georef.crs_text, georef.affine, georef.shape) == ("EPSG:32633", NORTH_UP, Size(x=5, y=4))
    assert read_georef(new["band"]).crs_text == "EPSG:32633"


def test_attributes_of_the_zarr_convention():
    image = raster(**{"proj:code": "EPSG:3035", "spatial:transform": list(NORTH_UP)[:6]})
    assert read_georef(image.drop_vars(["x", "y"])) == GeoRef(pyproj.CRS(3035), NORTH_UP, Size(x=5, y=4))


def test_zarr_without_decoded_coordinates(tmp_path):
    image = raster().to_dataset().rio.write_crs("EPSG:32119")
    image.to_zarr(tmp_path / "z", zarr_format=2)
    opened = xr.open_zarr(tmp_path / "z", decode_coords=False)
    assert "spatial_ref" in opened.data_vars
    assert read_georef(opened).crs_text == "EPSG:32119"
    with pytest.raises(
        GeoreferenceError, match=r"'spatial_ref', which was not found\. Open .* decode_coords='all'"
    ):
        read_georef(opened[["band"]])


def test_a_missing_crs_raises_with_a_fix():
    with pytest.raises(GeoreferenceError, match=r"no CRS\. Write one.*rio\.write_crs.*or pass crs="):
        read_georef(raster())
    with pytest.raises(GeoreferenceError, match=r"look like degrees: EPSG:4326\?"):
        read_georef(raster(dims=("lat", "lon")))


@pytest.mark.parametrize("text", ["EPSG:999999", "SR-ORG:9999", "nonsense", 3.5])
def test_an_invalid_crs(text):
    with pytest.raises(GeoreferenceError, match=re.escape(repr(text))):
        read_georef(raster(), crs=text)
    with pytest.raises(GeoreferenceError, match=re.escape(f"{text!r} of the raster (attribute 'crs')")):
        read_georef(raster(crs=text))


def test_an_invalid_grid_mapping():
    image = raster().assign_coords(spatial_ref=((), 0, {"grid_mapping_name": "flat_earth"}))
    with pytest.raises(GeoreferenceError, match=r"'spatial_ref' \(flat_earth\) cannot be parsed"):
        read_georef(image)


def test_variables_with_different_crss():
    first = raster().rename("a").rio.write_crs("EPSG:32633", grid_mapping_name="one")
    second = raster().rename("b").rio.write_crs("EPSG:32634", grid_mapping_name="two")
    both = xr.Dataset({"a": first, "b": second})
    with pytest.raises(GridMismatchError, match=r"a has EPSG:32633 .*zone 33N\), b has EPSG:32634"):
        read_georef(both)
    assert read_georef(both, crs="EPSG:32633").crs.to_epsg() == 32633
    same = xr.Dataset(
        {"a": first, "b": second.drop_vars("two").rio.write_crs(32633, grid_mapping_name="two")}
    )
    assert read_georef(same).crs.to_epsg() == 32633
    # In attributes, as from Xee.
    attributes = xr.Dataset({"a": raster(crs="EPSG:32633"), "b": raster(crs="EPSG:32634")})
    with pytest.raises(GridMismatchError, match="different CRSs"):
        read_georef(attributes)


@pytest.mark.parametrize(
    "code", ["EPSG:4326", "EPSG:32119", "EPSG:3358", "EPSG:3035", "ESRI:102001", "OGC:CRS84"]
)
@pytest.mark.parametrize("version", [None, "WKT1_GDAL", "WKT2_2019"])
def test_crs_text_is_the_code_if_it_is_exact(code, version):
    crs = pyproj.CRS(code)
    assert crs_text(crs if version is None else pyproj.CRS(crs.to_wkt(version))) == code


@pytest.mark.parametrize(
    "crs",
    [
        "+proj=utm +zone=33 +ellps=GRS80 +units=m",
        "+proj=longlat +ellps=clrk66",
        "+proj=lcc +lat_1=36.1 +lat_2=34.3 +lat_0=33.75 +lon_0=-79 +x_0=609601.22 +datum=NAD83",
    ],
)
def test_crs_text_is_wkt_without_an_exact_code(crs):
    crs = pyproj.CRS(crs)
    text = crs_text(crs)
    assert text.startswith(("PROJCRS", "GEOGCRS"))
    assert pyproj.CRS(text) == crs
    assert rasterio.crs.CRS.from_string(text) == rasterio.crs.CRS.from_wkt(crs.to_wkt())


def test_crs_text_does_not_use_an_incorrect_code():
    utm = pyproj.CRS("EPSG:32633").to_wkt()
    moved = pyproj.CRS(utm.replace("500000", "400000"))
    assert crs_text(moved) == moved.to_wkt()
    for code in ('ID["EPSG",32634]', 'ID["EPSG",999999]', 'ID["MINE",7]'):
        assert crs_text(pyproj.CRS(utm.replace('ID["EPSG",32633]', code))) == "EPSG:32633"


# -- Affine from coordinates ------------------------------------------------------------------------


@given(affines(sheared=False), sizes(2))
def test_affine_from_coordinates(affine, size):
    image = raster(affine, size.shape)
    assume(len(set(image.x.values)) == size.x and len(set(image.y.values)) == size.y)
    try:
        found = read_georef(image, crs=32633).affine
    except GeoreferenceError:
        # Only if float64 is too imprecise for the pixels: an origin of 1e7 and pixels of about 1e-6.
        assert min(abs(affine.a), abs(affine.e)) < 1e-4 * max(abs(affine.c), abs(affine.f))
        return
    assert corner_distance(affine, found, size) < 0.2
    rounding = 4 * np.spacing(max(abs(v) for v in (*image.x.values, *image.y.values)))
    assert np.allclose(tuple(found)[:6], tuple(affine)[:6], rtol=0, atol=size.x + size.y and rounding * 2)


@pytest.mark.parametrize("step", [28.5, 0.05, 0.1, 1 / 3, 30, 0.000089831528, 463.3127165])
@pytest.mark.parametrize("origin", [-180.0, 630534.0, 5_100_000.5, 0.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_round_numbers_are_recovered_exactly(step, origin, sign):
    edges = origin + sign * step * np.arange(2001)
    centres = (edges[1:] + edges[:-1]) / 2
    axis = fit_axis(centres, "x")
    assert axis.edge == origin
    assert axis.step == pytest.approx(sign * step, rel=1e-11)
    if step not in (1 / 3, 0.000089831528):
        assert axis.step == sign * step


def test_float32_coordinates():
    affine = Affine(0.1, 0, -180, 0, -0.1, 90)
    exact = raster(affine, (1800, 3600), dims=("lat", "lon"))
    image = exact.assign_coords(lat=exact.lat.astype("f4"), lon=exact.lon.astype("f4"))
    assert read_georef(image, crs=4326).affine == affine
    utm = Affine(10, 0, 499_980, 0, -10, 4_200_000)
    coarse = raster(utm, (1000, 1000))
    coarse = coarse.assign_coords(y=coarse.y.astype("f4"), x=coarse.x.astype("f4"))
    assert corner_distance(utm, read_georef(coarse, crs=32633).affine, Size(x=1000, y=1000)) < 0.05


def test_float32_coordinates_of_insufficient_precision_raise():
    centres = (4_500_000 + 0.3 * np.arange(50)).astype("f4")
    with pytest.raises(GeoreferenceError, match=r"not evenly spaced|must be increasing"):
        fit_axis(centres, "y")


def test_noise_of_linspace_and_arange_is_accepted():
    for centres in (np.linspace(-179.95, 179.95, 3600), np.arange(-179.95, 180, 0.1), np.cumsum([0.1] * 900)):
        axis = fit_axis(centres, "x")
        assert axis.step == pytest.approx(0.1, rel=1e-12)
    assert fit_axis(np.linspace(-179.95, 179.95, 3600), "x") == fit_axis(
        -180 + 0.1 * (np.arange(3600) + 0.5), "x"
    )


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint16", "float32"])
@pytest.mark.parametrize("descending", [False, True])
def test_integer_coordinates(dtype, descending):
    centres = np.arange(5, 105, 10).astype(dtype)
    axis = fit_axis(centres[::-1] if descending else centres, "x")
    assert (axis.step, axis.edge) == ((-10.0, 100.0) if descending else (10.0, 0.0))


@given(st.integers(3, 60), st.data())
def test_any_shifted_coordinate_raises(count, data):
    at = data.draw(st.integers(0, count - 1))
    by = data.draw(st.floats(0.01, 3.0)) * data.draw(st.sampled_from([1, -1]))
    centres = 1000 + 30.0 * np.arange(count)
    centres[at] += 30 * by
    with pytest.raises(GeoreferenceError, match=r"x coordinates") as caught:
        fit_axis(centres, "x")
    if count > 5:
        named = [int(n) for n in re.findall(r"x\[(\d+)\]", str(caught.value))]
        assert at in named


def test_irregular_coordinates_raise_with_position_and_distance():
    y = [0, 10, 20, 30, 45, 55]
    with pytest.raises(GeoreferenceError) as caught:
        read_georef(raster(shape=(6, 5)).assign_coords(y=y), crs=4326)
    assert str(caught.value).startswith(
        "The y coordinates are not evenly spaced: the step is 10.0, but from y[3] = 30.0 to y[4] = 45.0 "
        "it is 15.0 (0.5 px more)."
    )
    assert "rio.reproject" in str(caught.value)
    # A slow drift has no single jump.
    drifting = np.arange(1000.0) + 1e-6 * np.arange(1000.0) ** 2
    with pytest.raises(GeoreferenceError, match=r"x\[\d+\] = .* is 0\.2\d* px off an even grid"):
        fit_axis(drifting, "x")
    with pytest.raises(GeoreferenceError, match="must be increasing"):
        fit_axis([5.0, 5.0, 5.0], "x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, np.nan, 2.0], r"x\[1\] is .*nan"),
        ([0.0, 1.0, np.inf], r"x\[2\] is .*inf"),
        (["a", "b"], r"x\[0\] is .*'a'"),
        (np.array(["2020-01-01", "2020-01-02"], "M8[ns]"), r"x\[0\] is .*2020"),
    ],
)
def test_coordinates_that_are_not_numbers(values, message):
    with pytest.raises(GeoreferenceError, match=f"must be finite numbers; {message}"):
        fit_axis(values, "x")


# -- Affine from GeoTransform -----------------------------------------------------------------------


def test_a_geotransform_that_matches_the_coordinates_is_used():
    third = Affine(1 / 3, 0, 100 / 7, 0, -1 / 3, 200 / 7)
    image = raster(third, (300, 400)).rio.write_crs(4326).rio.write_transform(third)
    assert read_georef(image).affine == third
    noisy = image.assign_coords(x=image.x + 1e-5, y=image.y.astype("f4"))
    assert read_georef(noisy).affine == third


@given(affines(sheared=False), sizes(4), st.data())
def test_coordinates_take_precedence_after_a_crop(affine, size, data):
    assume(min(abs(affine.a), abs(affine.e)) > 1e-3)
    top, left = (data.draw(st.integers(0, n - 2)) for n in size.shape)
    image = raster(affine, size.shape).rio.write_crs(3857).rio.write_transform(affine)
    cropped = image.isel(y=slice(top, None), x=slice(left, None))
    expected = affine @ Affine.translation(left, top)
    assert corner_distance(expected, read_georef(cropped).affine, size) < 1e-3
    coarse = image.isel(y=slice(None, None, 2), x=slice(None, None, 2))
    assert (
        corner_distance(
            affine @ Affine.scale(2) @ Affine.translation(-0.25, -0.25), read_georef(coarse).affine, size
        )
        < 1e-3
    )
    flipped = image.isel(y=slice(None, None, -1))
    south_up = affine @ Affine.translation(0, size.y) @ Affine.scale(1, -1)
    assert corner_distance(south_up, read_georef(flipped).affine, size) < 1e-3


def test_an_explicit_transform_takes_precedence():
    image = raster().assign_coords(x=[0, 1, 5, 6, 7]).rio.write_crs(4326)
    given_one = Affine(1, 0.5, 2, 0.25, -1, 3)
    for value in (given_one, tuple(given_one)[:6], list(given_one), np.array(given_one)):
        assert read_georef(image, transform=value).affine == given_one


@pytest.mark.parametrize(
    "value", [[1, 2, 3], "abc", 5, [1, 0, 0, 0, np.nan, 0], [1, 0, 0, 0, "x", 0], [0] * 6]
)
def test_an_invalid_transform(value):
    with pytest.raises(GeoreferenceError, match=r"transform must be (six finite numbers|invertible)"):
        read_georef(raster(), crs=4326, transform=value)


def test_the_pixel_size_of_a_single_row_or_column():
    image = raster().rio.write_crs(32633).rio.write_transform(NORTH_UP)
    for window in ({"y": slice(2, 3)}, {"x": slice(1, 2)}, {"y": slice(3, 4), "x": slice(4, 5)}):
        shift = Affine.translation(*(window.get(d, slice(0)).start or 0 for d in ("x", "y")))
        assert read_georef(image.isel(window)).affine == NORTH_UP @ shift
    image.spatial_ref.attrs.pop("GeoTransform")
    with pytest.raises(
        GeoreferenceError,
        match=r"The pixel size along y cannot be inferred from a single y coordinate.*write_transform",
    ):
        read_georef(image.isel(y=slice(2, 3)))


def test_sheared_rasters_without_coordinates():
    sheared = Affine(10, 2, 1000, 3, -10, 5000)
    image = raster().drop_vars(["x", "y"]).rio.write_crs(32633)
    image.spatial_ref.attrs["GeoTransform"] = "1000.0 10.0 2.0 5000.0 3.0 -10.0"
    for obj in (image, image.to_dataset()):
        assert read_georef(obj).affine == sheared
    with pytest.raises(GeoreferenceError, match=r"GeoTransform is sheared \(b = 2.0, d = 3.0\)"):
        read_georef(image.assign_coords(raster().coords))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_sheared_rasters_from_rioxarray(tmp_path):
    sheared = Affine(10, 2, 1000, 3, -10, 5000)
    with rasterio.open(
        tmp_path / "s.tif",
        "w",
        driver="GTiff",
        width=5,
        height=4,
        count=1,
        dtype="uint8",
        crs=32633,
        transform=sheared,
    ) as file:
        file.write(np.arange(20, dtype="u1").reshape(1, 4, 5))
    image = rioxarray.open_rasterio(tmp_path / "s.tif")
    assert read_georef(image).affine == sheared
    # A crop changes the two-dimensional coordinates, but not the GeoTransform.
    cropped = image.isel(x=slice(2, None), y=slice(1, None))
    assert (
        corner_distance(sheared @ Affine.translation(2, 1), read_georef(cropped).affine, Size(x=3, y=3))
        < 1e-6
    )


def test_sheared_rasters_from_odc_geo():
    box = GeoBox(
        (4, 5), Affine.translation(1000, 2000) @ Affine.rotation(10) @ Affine.scale(10, -10), "EPSG:32633"
    )
    image = odc.geo.xr.xr_zeros(box)
    assert corner_distance(box.affine, read_georef(image).affine, Size(x=5, y=4)) < 1e-9
    for window in (
        {"x": slice(2, None), "y": slice(1, 3)},
        {"y": slice(None, None, 2)},
        {"x": slice(None, None, -1)},
    ):
        crop = image.isel(window)
        found = read_georef(crop)
        assert corner_distance(crop.odc.geobox.affine, found.affine, found.shape) < 1e-9
    column = read_georef(image.isel(x=slice(3, 4)))
    assert corner_distance(box.affine @ Affine.translation(3, 0), column.affine, column.shape) < 1e-9


def test_curvilinear_coordinates_raise():
    y, x = np.mgrid[0:4, 0:5].astype(float)
    with pytest.raises(GeoreferenceError, match="curvilinear"):
        affine_of_centres(x + 0.1 * x * y, y)


@given(affines(), sizes(2))
def test_affine_from_two_dimensional_centres(affine, size):
    assume(min(abs(affine.a), abs(affine.e)) > 1e-3)
    rows, columns = np.mgrid[0 : size.y, 0 : size.x] + 0.5
    x, y = affine @ (columns, rows)
    assert corner_distance(affine, affine_of_centres(x, y), size) < 1e-3


def test_one_coordinate_missing_or_both():
    image = raster().rio.write_crs(4326)
    with pytest.raises(GeoreferenceError, match="no coordinates along x"):
        read_georef(image.drop_vars("x"))
    with pytest.raises(GeoreferenceError, match="neither x and y coordinates nor a GeoTransform"):
        read_georef(image.drop_vars(["x", "y"]))
    image.spatial_ref.attrs["GeoTransform"] = "500000 30 0 4500000 0 -30 "
    assert read_georef(image.drop_vars("x")).affine == NORTH_UP
    assert read_georef(image.drop_vars(["y", "x"])).affine == NORTH_UP


@pytest.mark.parametrize("text", ["1 2 3", "a b c d e f", "0 0 0 0 0 0", [1, 2], 5.0, np.nan])
def test_an_invalid_geotransform(text):
    image = raster().rio.write_crs(4326)
    image.spatial_ref.attrs["GeoTransform"] = text
    with pytest.raises(GeoreferenceError, match="GeoTransform must be"):
        read_georef(image)


@pytest.mark.parametrize("value", ["log10", None, "", 3, [1, 2], "1, 2", {"a": 1}, [0] * 6])
@pytest.mark.parametrize("of_band", [False, True])
def test_attributes_with_another_meaning(value, of_band):
    image = raster().rio.write_crs(32633).rename("b").to_dataset()
    (image.b if of_band else image).attrs["transform"] = value
    assert read_georef(image).affine == NORTH_UP
    image.spatial_ref.attrs["GeoTransform"] = ""
    assert read_georef(image).affine == NORTH_UP
    with pytest.raises(GeoreferenceError, match=r"'transform' must be|neither x and y"):
        read_georef(image.drop_vars(["x", "y"]))


@pytest.mark.parametrize(
    "text",
    [
        str(NORTH_UP),
        repr(NORTH_UP),
        ", ".join(map(str, NORTH_UP)),
        str(list(NORTH_UP)[:6]),
        NORTH_UP.to_gdal(),
    ],
)
def test_an_affine_as_text(text):
    image = raster().drop_vars(["x", "y"]).rio.write_crs(32633)
    if isinstance(text, tuple):
        image.spatial_ref.attrs["GeoTransform"] = str(text)
    else:
        image.attrs["transform"] = text
    assert read_georef(image).affine == NORTH_UP


ROTATED = Affine(10, 1, 500, 1, -10, 800)


@pytest.mark.parametrize(
    "window",
    [
        {"y": slice(3, 4)},
        {"x": slice(4, 5)},
        {"y": slice(2, 3), "x": slice(1, 2)},
        {"y": slice(1, 2), "x": slice(0, 4, 2)},
        {"y": slice(1, None)},
    ],
)
def test_parts_of_rotated_rasters(tmp_path, window):
    with rasterio.open(
        tmp_path / "s.tif", "w", "GTiff", 7, 6, 1, 32633, ROTATED, "uint8", photometric="minisblack"
    ) as file:
        file.write(np.arange(42, dtype="u1").reshape(1, 6, 7))
    opened = rioxarray.open_rasterio(tmp_path / "s.tif")
    ours = write_georef(opened, read_georef(opened))
    for image in (opened, ours, ours.isel(y=slice(None)).to_dataset("band")):
        part = image.isel(window)
        starts = [window.get(dim, slice(0)).start or 0 for dim in ("x", "y")]
        steps = [window.get(dim, slice(0)).step or 1 for dim in ("x", "y")]
        expected = ROTATED @ Affine.translation(*starts)
        half = Affine.translation(0.5, 0.5)
        expected = expected @ half @ Affine.scale(*steps) @ ~half
        found = read_georef(part)
        assert corner_distance(expected, found.affine, found.shape) < 1e-9
        again = read_georef(write_georef(part, found))
        assert corner_distance(expected, again.affine, again.shape) < 1e-9


def test_a_crs_that_cf_cannot_describe():
    rotated = pyproj.CRS(
        "+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +lon_0=18 +a=1 +to_meter=0.0174532925199433"
    )
    image = write_georef(raster().drop_vars(["x", "y"]), GeoRef(rotated, NORTH_UP, Size(x=5, y=4)))
    assert same_crs(read_georef(image).crs, rotated)


@given(georefs(sheared=False))
def test_rioxarray_and_odc_geo_agree(place):
    pytest.importorskip("odc.geo")
    assume(min(abs(place.affine.a), abs(place.affine.e)) > 1e-3)
    assume(place.crs.to_authority() is not None)
    image = raster(place.affine, place.shape.shape).rio.write_crs(place.crs)
    found = read_georef(image)
    assert corner_distance(image.rio.transform(), found.affine, found.shape) < 1e-3
    assert corner_distance(Affine(*image.odc.geobox.affine), found.affine, found.shape) < 1e-3
    assert rasterio.crs.CRS.from_user_input(found.crs) == image.rio.crs
    assert np.allclose(found.bounds, image.rio.bounds(), rtol=1e-9)


# -- Writing ----------------------------------------------------------------------------------------


@given(georefs(min_side=1), st.booleans(), st.sampled_from([("x", "y"), ("lon", "lat"), ("a", "b")]))
def test_round_trip_of_georeferences(place, as_dataset, names):
    x_dim, y_dim = names
    image = xr.DataArray(np.zeros(place.shape.shape), dims=(y_dim, x_dim), name="band")
    image = image.to_dataset() if as_dataset else image
    written = write_georef(image, place, x_dim, y_dim)
    sheared = bool(place.affine.b or place.affine.d)
    assert read_georef(written) == GeoRef(place.crs, place.affine, place.shape, x_dim, y_dim)
    if not sheared:
        x, y = pixel_centres(place.affine, place.shape)
        assert (written[x_dim].values == x).all()
        assert (written[y_dim].values == y).all()
    top, left = place.shape.y // 2, place.shape.x // 3
    part = written.isel({y_dim: slice(top, None), x_dim: slice(left, left + 1)})
    found = read_georef(part).affine
    rounding = np.spacing(np.abs(place.bounds).max()) / min(abs(place.affine.a), abs(place.affine.e))
    assert (
        corner_distance(place.affine @ Affine.translation(left, top), found, Size(x=1, y=1))
        < 1e-3 + 4 * rounding
    )


def test_rioxarray_odc_geo_and_gdal_read_written_georeferences(tmp_path):
    pytest.importorskip("odc.geo")
    grid = PatchGrid(Size(x=5, y=4), Size(x=2, y=2), affine=NORTH_UP, crs="EPSG:32119")
    written = write_georef(xr.DataArray(np.ones((4, 5), "f4"), dims=("y", "x"), name="band"), grid)
    assert written.encoding["grid_mapping"] == "spatial_ref"
    assert {"crs_wkt", "spatial_ref", "GeoTransform", "grid_mapping_name"} <= set(written.spatial_ref.attrs)
    assert written.x.attrs["standard_name"] == "projection_x_coordinate"
    assert (written.rio.crs.to_epsg(), written.rio.transform()) == (32119, NORTH_UP)
    assert (written.odc.geobox.crs.epsg, Affine(*written.odc.geobox.affine)) == (32119, NORTH_UP)
    written.rio.to_raster(tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (file.crs.to_epsg(), file.transform) == (32119, NORTH_UP)
    written.to_dataset().to_zarr(tmp_path / "out.zarr", zarr_format=2)
    opened = xr.open_zarr(tmp_path / "out.zarr", decode_coords="all")
    assert read_georef(opened) == read_georef(written)


def test_writing_copies_and_replaces_old_georeferences(tmp_path):
    image = raster(crs="EPSG:4326", crs_transform=[1, 0, 0, 0, 1, 0], kept="yes").to_dataset()
    image.attrs = {"crs": "EPSG:4326", "kept": "yes"}
    image = image.assign_coords(old=((), 0, pyproj.CRS(4326).to_cf()), xc=(("y", "x"), np.zeros((4, 5))))
    image["band"].encoding = {"grid_mapping": "old", "_FillValue": -1}
    before = image.copy(deep=True)
    place = GeoRef(pyproj.CRS(32633), Affine(1, 0, 7, 0, 1, 8), Size(x=5, y=4))
    written = write_georef(image, place)
    assert read_georef(written) == place
    assert set(written.coords) == {"x", "y", "spatial_ref"}
    assert written.attrs == written["band"].attrs == {"kept": "yes"}
    assert written["band"].encoding == {"grid_mapping": "spatial_ref", "_FillValue": -1}
    xr.testing.assert_identical(image, before)
    assert image["band"].encoding == before["band"].encoding
    assert np.shares_memory(written["band"].values, image["band"].values)


def test_writing_an_inconsistent_georeference_raises():
    image = xr.DataArray(np.zeros((4, 5)), dims=("y", "x"))
    grid = PatchGrid(Size(x=5, y=4), Size(x=2, y=2))
    with pytest.raises(GeoreferenceError, match="has no CRS"):
        write_georef(image, grid)
    place = GeoRef(pyproj.CRS(4326), NORTH_UP, Size(x=4, y=5))
    with pytest.raises(
        GridMismatchError, match=r"are \{'y': 4, 'x': 5\}; expected those of the grid, \{'y': 5, 'x': 4\}"
    ):
        write_georef(image, place)
    with pytest.raises(GridMismatchError, match="None"):
        write_georef(image.rename(x="lon"), place)


# -- Comparing --------------------------------------------------------------------------------------

PLACE = GeoRef(pyproj.CRS("EPSG:32119"), NORTH_UP, Size(x=100, y=80))


def changed(**changes):
    return GeoRef(**{"crs": PLACE.crs, "affine": PLACE.affine, "shape": PLACE.shape, **changes})


def test_equal_grids():
    for other in (
        PLACE,
        changed(crs=pyproj.CRS(PLACE.crs.to_wkt("WKT1_GDAL"))),
        changed(affine=NORTH_UP @ Affine.translation(0.001, 0.001)),
        GeoRef(PLACE.crs, PLACE.affine, PLACE.shape, "lon", "lat"),
    ):
        same_grid(PLACE, other)
    # Coordinates are always (x, y), regardless of the axis order of the authority.
    same_grid(changed(crs=pyproj.CRS("EPSG:4326")), changed(crs=pyproj.CRS("OGC:CRS84")))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            changed(crs=pyproj.CRS("EPSG:3358")),
            r"CRS: EPSG:32119 \(NAD83 / North Carolina\) and EPSG:3358 \(NAD83\(HARN\) / North Carolina\)\..*"
            r"labels\.rio\.reproject_match\(scene\).*labels\.rio\.write_crs\(scene\.rio\.crs\)",
        ),
        (
            changed(affine=NORTH_UP @ Affine.translation(2, -0.5)),
            r"same grid\. Origin: labels starts 2\.0 pixels further along x and -0\.5 along y\. Reproject",
        ),
        (
            changed(affine=Affine(60, 0, 500_000, 0, -60, 4_500_000)),
            r"same grid\. Pixel size: 30\.0 x -30\.0 and 60\.0 x -60\.0\. Reproject",
        ),
        (
            changed(affine=Affine(30, 3, 500_000, 0, -30, 4_500_000)),
            r"Pixel size: 30\.0 x -30\.0 and 30\.0 x -30\.0 \(shear 3\.0, 0\.0\)\.",
        ),
        (
            changed(shape=Size(x=99, y=80)),
            r"same grid\. Shape: 100 x 80 and 99 x 80 pixels \(width x height\)\. Reproject",
        ),
        (
            changed(
                crs=pyproj.CRS(4326), affine=Affine(1, 0, 500_030, 0, -1, 4_500_000), shape=Size(x=1, y=1)
            ),
            r"CRS: .*Pixel size: .*Origin: labels starts 1\.0 pixels.*Shape: ",
        ),
    ],
)
def test_differences_between_grids(other, message):
    with pytest.raises(GridMismatchError, match=f"^scene and labels are not on .*{message}"):
        same_grid(PLACE, other, ("scene", "labels"))


# -- Real files -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def scene_and_labels(landsat_dir):
    return {
        name: rioxarray.open_rasterio(landsat_dir / f"{name}.tif", chunks={}).squeeze("band", drop=True)
        for name in ("lsat7_2000_10", "landsat96_labelled_pixels", "strata")
    }


def test_real_files_are_read_and_written_exactly(scene_and_labels, landsat_dir, land_cover_path):
    paths = {
        **{name: landsat_dir / f"{name}.tif" for name in scene_and_labels},
        "land cover": land_cover_path,
    }
    for path in paths.values():
        image = rioxarray.open_rasterio(path, chunks={}).squeeze("band", drop=True)
        with rasterio.open(path) as file:
            transform, crs, (height, width) = file.transform, file.crs, file.shape
        georef = read_georef(image)
        assert (georef.affine, georef.shape.shape) == (transform, (height, width))
        assert rasterio.crs.CRS.from_user_input(georef.crs) == crs
        bare = xr.DataArray(image.data, dims=("y", "x"))
        assert read_georef(write_georef(bare, georef)) == georef
        # Also through the text of a mixer, whose CRS may be WKT.
        mixer = Mixer(georef.crs_text, georef.affine, Size(x=width, y=height), 1, 1)
        again = write_georef(bare, Mixer.parse(mixer.text()).grid())
        assert read_georef(again) == georef
        assert again.rio.crs == crs


def test_the_real_labels_do_not_match_the_real_scene(scene_and_labels):
    scene, labels, strata = map(read_georef, scene_and_labels.values())
    for other, name in ((labels, "EPSG:3358"), (strata, r"EPSG:3358 \(NAD83\(HARN\) / North Carolina\)")):
        with pytest.raises(
            GridMismatchError, match=f"CRS: .*resembles EPSG:32119.* and .*{name}.*write_crs"
        ) as e:
            same_grid(scene, other, ("scene", "labels"))
        assert "Origin" not in str(e.value)
        assert "Shape" not in str(e.value)
    # Apply the fix from the message.
    mended = scene_and_labels["strata"].rio.write_crs(scene_and_labels["lsat7_2000_10"].rio.crs)
    same_grid(scene, read_georef(mended))
    assert "EPSG:32119" in describe_crs(scene.crs)
    assert not scene.crs_text.startswith("EPSG")  # a code would be a guess, because the datum is unknown


# -- Arbitrary input ----------------------------------------------------------------------


@given(
    coords=st.lists(st.floats(), min_size=1, max_size=6),
    geo_transform=st.none() | st.text(max_size=12) | st.lists(st.floats(), min_size=6, max_size=6),
    crs=st.none() | st.text(max_size=6) | st.just("EPSG:4326"),
)
def test_arbitrary_input_gives_a_georeference_or_a_xee_tf_error(coords, geo_transform, crs):
    attrs = {} if geo_transform is None else {"GeoTransform": geo_transform}
    image = xr.DataArray(
        np.zeros((2, len(coords))),
        {"y": [1.0, 0.0], "x": coords, "spatial_ref": ((), 0, attrs)},
        ("y", "x"),
        attrs={"grid_mapping": "spatial_ref"} | ({} if crs is None else {"crs": crs}),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            georef = read_georef(image)
        except XeeTFError:
            return
    assert np.isfinite(tuple(georef.affine)).all()
    assert not georef.affine.is_degenerate


def test_chunks_of_unknown_length():
    values = da.ones((20, 12), chunks=5)
    rows = xr.DataArray(values[da.arange(20, chunks=5) > 7], dims=("y", "x"))
    for image, dim in ((rows, "y"), (rows.rename(y="x", x="y"), "x")):
        with pytest.raises(GeoreferenceError, match=f"The length of {dim} is unknown.*compute_chunk_sizes"):
            read_georef(image, crs=32633, transform=Affine(30, 0, 7e5, 0, -30, 5e6))


@pytest.mark.parametrize("code", ["EPSG:32633", "EPSG:4326", "ESRI:54009"])
def test_a_crs_has_one_name_however_it_is_written(code):
    crs = pyproj.CRS(code)
    texts = [code, code.lower(), crs.to_wkt(), crs.to_wkt("WKT1_GDAL"), crs.to_json()]
    assert {crs_name(text) for text in texts} == {code}
