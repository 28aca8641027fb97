"""Tests of units of coordinates, names of CRSs, and errors about a missing CRS."""

import json
import os

import numpy as np
import pyproj
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.rasters import random_band
from tests.rasters import raster as small_raster
from xee_tf.errors import GeoreferenceError, StorageError
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, read_georef, write_georef
from xee_tf.georef.crs import crs_text, read_crs, same_crs
from xee_tf.georef.units import axis_units
from xee_tf.sidecars import Mixer

GEOS = "+proj=geos +h=35785831 +lon_0=-75 +sweep=x +ellps=GRS80 +units=m"
FOOT, US_FOOT = 0.3048, 1200 / 3937


def raster(crs, units, step=30.0, origin=1000.0, factor=1.0):
    """Return a raster with the given units, whose coordinates are `factor` times those in the CRS."""
    x, y = origin + step * (np.arange(6) + 0.5), origin - step * (np.arange(4) + 0.5)
    attrs = {} if units is None else {"units": units}
    image = xr.Dataset(
        {"b": (("y", "x"), np.zeros((4, 6), "f4"))},
        {"y": ("y", y * factor, attrs), "x": ("x", x * factor, attrs)},
    )
    return image.rio.write_crs(crs)


# -- Units -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crs", "units", "factor"),
    [
        *(("EPSG:32633", units, 1.0) for units in ("m", "metre", "Meters", "metres", "", "1", None, "1 m")),
        *(("EPSG:32633", units, 1e3) for units in ("km", "Kilometre", "kilometers", "1000 metre", b"KM")),
        *(("EPSG:32633", units, FOOT) for units in ("ft", "feet", "international foot")),
        *(("EPSG:32633", units, US_FOOT) for units in ("US survey foot", "us-ft", "ftUS", "US_survey_foot")),
        *(("EPSG:2263", units, 1 / US_FOOT) for units in ("m", "meter")),
        *(("EPSG:2263", units, 1.0) for units in ("ft", "foot", "US survey foot", "0.304800609601219 metre")),
        ("EPSG:2222", "ft", 1.0),
        ("EPSG:2222", "US survey foot", US_FOOT / FOOT),
        ("+proj=laea +lat_0=90 +units=km", "m", 1e-3),
        ("+proj=laea +lat_0=90 +units=km", "km", 1.0),
        *(
            ("EPSG:4326", u, 1.0)
            for u in ("degrees_east", "degree", "deg", "°", "decimal degrees", "degreesE")
        ),
        *(("EPSG:4326", units, 180 / np.pi) for units in ("rad", "radians")),
        ("EPSG:4807", "degrees_east", 1.0),  # CF has no grads
        ("EPSG:4807", "radian", 200 / np.pi),
        *((GEOS, units, 35785831.0) for units in ("rad", "radian", "radians")),
        (GEOS, "microradian", 35.785831),
        (GEOS, "degree", 35785831 * np.pi / 180),
        (GEOS, "km", 1000.0),
    ],
)
def test_coordinates_are_scaled_to_the_unit_of_the_crs(crs, units, factor):
    crs = read_crs(crs)
    assert axis_units("x", {"units": units}, crs) == pytest.approx(factor, rel=1e-9)
    image = raster(crs, units, factor=1 / factor)
    expected = Affine(30, 0, 1000, 0, -30, 1000)
    found = read_georef(image).affine
    assert np.allclose(tuple(found)[:6], tuple(expected)[:6], rtol=2e-6)
    # With a GeoTransform, which is in units of the CRS, also for a single column.
    noted = image.rio.write_transform(expected)
    assert read_georef(noted).affine == expected
    assert np.allclose(tuple(read_georef(noted.isel(x=[0])).affine)[:6], tuple(expected)[:6], rtol=2e-6)
    cropped = read_georef(noted.isel(x=slice(2, None))).affine
    assert cropped.c == pytest.approx(1060, rel=2e-6)


@pytest.mark.parametrize(
    ("crs", "units", "message"),
    [
        (
            "EPSG:32633",
            "degrees_east",
            r"The x coordinates are in 'degrees_east', .*EPSG:32633.* are in metre",
        ),
        ("EPSG:32633", "rad", "'rad'.* are in metre"),
        ("EPSG:2263", "degree", "are in US_survey_foot"),
        ("EPSG:4326", "m", r"'m', but .*EPSG:4326 \(WGS 84\) are in degree"),
        ("EPSG:4326", "km", "'km', but"),
        ("EPSG:32633", "furlong", "'furlong', which is not a known unit"),
        ("EPSG:32633", "pixel", "'pixel'"),
        (GEOS, "degrees_east", "'degrees_east'"),
    ],
)
def test_units_incompatible_with_the_crs(crs, units, message):
    image = raster(read_crs(crs), units)
    with pytest.raises(GeoreferenceError, match=rf"{message}.*attrs\['units'\] = .*crs=.*transform="):
        read_georef(image)
    assert read_georef(image, transform=(1, 0, 0, 0, -1, 0)).affine == Affine(1, 0, 0, 0, -1, 0)


@given(
    st.sampled_from([("km", 1000.0), ("ft", FOOT), ("cm", 0.01), ("m", 1.0)]),
    st.integers(1, 10_000),
    st.integers(-10_000, 10_000),
)
def test_round_trip_of_scaled_grids(unit, step, origin):
    units, factor = unit
    image = raster("EPSG:32633", units, step=float(step), origin=float(origin), factor=1 / factor)
    found = read_georef(image).affine
    assert np.allclose(tuple(found)[:6], (step, 0, origin, 0, -step, origin), rtol=1e-12, atol=1e-6)


def test_integers_of_metres_stay_integers():
    image = raster("EPSG:3413", "km", step=12_500.0, origin=-3_850_000.0, factor=1e-3)
    assert read_georef(image).affine == Affine(12_500, 0, -3_850_000, 0, -12_500, -3_850_000)


@pytest.mark.parametrize("units", [None, "", "1", "none"])
def test_scan_angles_without_units_are_radians(units):
    image = raster(GEOS, units, step=2004.0, origin=-150_000.0, factor=1 / 35785831.0)
    for part, column in ((image, 0), (image.isel(x=slice(2, None)), 2)):
        found = read_georef(part).affine
        expected = (2004, 0, -150_000 + column * 2004, 0, -2004, -150_000)
        assert np.allclose(tuple(found)[:6], expected, rtol=2e-6)
    written = write_georef(image, read_georef(image))
    assert abs(float(written.x[0])) > 1000
    in_metres = raster(GEOS, units, step=2004.0, origin=-150_000.0)
    assert read_georef(in_metres).affine == Affine(2004, 0, -150_000, 0, -2004, -150_000)
    small = raster("EPSG:3857", units, step=0.01, origin=0.0)
    assert read_georef(small).affine.a == 0.01


@pytest.mark.parametrize("units", ["1.2.3 m", "1.5.2e3 km", "e5 m", "1e m"])
def test_units_with_an_invalid_factor(units):
    with pytest.raises(GeoreferenceError, match="not a known unit"):
        read_georef(raster("EPSG:32633", units))


@pytest.mark.parametrize(
    ("attrs", "code"),
    [
        ({"epsg_code": "EPSG:32633"}, 32633),
        ({"epsg_code": "epsg:3031", "name": "x"}, 3031),
        ({"spatial_epsg": 3413}, 3413),
        ({"spatial_epsg": np.int32(3413)}, 3413),
        ({"EPSG": "32607"}, 32607),
        ({"proj4": "+proj=utm +zone=33 +datum=WGS84"}, 32633),
        ({"proj4text": "+init=epsg:3413"}, 3413),
        ({"grid_mapping_name": "no such", "proj4_string": "EPSG:3031"}, 3031),
        ({"esri_pe_string": pyproj.CRS(32633).to_wkt("WKT1_ESRI")}, 32633),
    ],
)
def test_grid_mappings_of_data_centres(attrs, code):
    image = raster(4326, None).drop_vars("spatial_ref").assign_coords(polar=((), 0, attrs))
    image.b.attrs["grid_mapping"] = "polar"
    image.b.encoding.clear()
    assert same_crs(read_georef(image).crs, pyproj.CRS(code))


def test_a_grid_mapping_without_a_crs_raises():
    image = raster(4326, None).drop_vars("spatial_ref").assign_coords(polar=((), 0, {"srs_of_ours": "32633"}))
    image.b.attrs["grid_mapping"] = "polar"
    image.b.encoding.clear()
    with pytest.raises(GeoreferenceError, match=r"grid mapping 'polar' has the attributes 'srs_of_ours'"):
        read_georef(image)


@pytest.mark.parametrize("value", [np.array([1, 2]), np.array([]), np.nan, object()])
def test_attributes_without_a_crs(value):
    image = raster(4326, None).drop_vars("spatial_ref")
    image.attrs["crs"] = value
    with pytest.raises(GeoreferenceError):
        read_georef(image)


def test_a_geostationary_file_from_goes():
    mapping = {
        "grid_mapping_name": "geostationary",
        "perspective_point_height": 35786023.0,
        "semi_major_axis": 6378137.0,
        "semi_minor_axis": 6356752.31414,
        "longitude_of_projection_origin": -75.0,
        "latitude_of_projection_origin": 0.0,
        "sweep_angle_axis": "x",
    }
    angles = {"units": "rad", "axis": "X", "standard_name": "projection_x_coordinate"}
    image = xr.Dataset(
        {"C13": (("y", "x"), np.zeros((100, 120), "f4"), {"grid_mapping": "goes_imager_projection"})},
        {
            "y": ("y", (0.095340 - 5.6e-5 * (np.arange(100) - 20)).astype("f4"), {**angles, "axis": "Y"}),
            "x": ("x", (-0.024052 + 5.6e-5 * (np.arange(120) - 30)).astype("f4"), angles),
            "goes_imager_projection": ((), 0, mapping),
        },
    )
    georef = read_georef(image)
    assert georef.affine.a == pytest.approx(5.6e-5 * 35786023, rel=1e-4)
    # The example of the GOES-R Product User's Guide, volume 3, section 5.1.2.8.1.
    longitude, latitude = pyproj.Transformer.from_crs(georef.crs, 4326, always_xy=True).transform(
        *georef.affine @ (30.5, 20.5)
    )
    assert (longitude, latitude) == (pytest.approx(-84.690932, abs=1e-3), pytest.approx(33.846162, abs=1e-3))
    result = xee_tf.Model.from_function(
        lambda pixels: pixels[..., 0], input_tile_size=64, output_bands=["p"]
    ).predict_image(image, merge=False)
    assert result.x.attrs["units"] == "metre"
    assert read_georef(result) == georef


def test_two_dimensional_centres_in_kilometres():
    sheared = Affine(1000, 200, 5000, 100, -1000, 9000)
    columns, rows = np.meshgrid(np.arange(5) + 0.5, np.arange(4) + 0.5)
    x, y = sheared @ (columns, rows)
    image = xr.Dataset(
        {"b": (("y", "x"), np.zeros((4, 5)))},
        {"xc": (("y", "x"), x / 1000, {"units": "km"}), "yc": (("y", "x"), y / 1000, {"units": "km"})},
    )
    assert np.allclose(tuple(read_georef(image, crs=3413).affine), tuple(sheared))


def test_coordinates_are_written_in_units_of_the_crs():
    for code, units in ((2263, "US_survey_foot"), (4807, "grad"), (32633, "metre"), (4326, "degrees_east")):
        georef = GeoRef(pyproj.CRS(code), Affine(0.5, 0, 1, 0, -0.5, 40), Size(x=4, y=3))
        written = write_georef(xr.DataArray(np.zeros((3, 4)), dims=("y", "x")), georef)
        assert written.x.attrs["units"] == units
        assert read_georef(written) == georef
        assert read_georef(written.isel(x=slice(1, None))).affine.c == 1.5


# -- Names of CRSs -----------------------------------------------------------------------------------

# Earth Engine's WKT of SR-ORG:6974, with the sphere in two parameters that PROJ ignores.
EARTH_ENGINES_WKT = (
    'PROJCS["MODIS Sinusoidal",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.01745329251994328]],PROJECTION["Sinusoidal"],'
    'PARAMETER["false_easting",0.0],PARAMETER["false_northing",0.0],PARAMETER["central_meridian",0.0],'
    'PARAMETER["semi_major",6371007.181],PARAMETER["semi_minor",6371007.181],UNIT["m",1.0],'
    'AUTHORITY["SR-ORG","6974"]]'
)
MODIS = pyproj.CRS("+proj=sinu +R=6371007.181 +units=m")


@pytest.mark.parametrize(
    "name",
    [
        "SR-ORG:6974",
        "sr-org:6842",
        " SR-ORG:6965 ",
        "urn:ogc:def:crs:SR-ORG::6974",
        EARTH_ENGINES_WKT,
        rasterio.crs.CRS.from_wkt(EARTH_ENGINES_WKT),
        pyproj.CRS(EARTH_ENGINES_WKT),
    ],
    ids=["6974", "6842", "6965", "urn", "wkt", "rasterio", "pyproj"],
)
def test_names_of_the_grid_of_modis(name):
    found = read_crs(name)
    assert same_crs(found, MODIS)
    # The corner of tile h09v05 (MODIS Land: 1,111,950.519667 m per tile).
    x, y = pyproj.Transformer.from_crs(found.geodetic_crs, found, always_xy=True).transform(-117.486656, 40.0)
    assert (x, y) == (pytest.approx(-9 * 1111950.519667, abs=1), pytest.approx(4 * 1111950.519667, abs=1))
    for path in (crs_text(found), found.to_wkt(), rasterio.crs.CRS.from_wkt(found.to_wkt())):
        assert same_crs(read_crs(path), MODIS)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("SR-ORG:6627", "EPSG:3857"),
        ("SR-ORG:6864", "EPSG:3857"),
        ("EPSG:900913", "EPSG:3857"),
        ("EPSG:102001", "ESRI:102001"),
        ("epsg:54009", "ESRI:54009"),
        ("urn:ogc:def:crs:EPSG::32633", "EPSG:32633"),
        ("http://www.opengis.net/def/crs/EPSG/0/32633", "EPSG:32633"),
        ("http://www.opengis.net/gml/srs/epsg.xml#32633", "EPSG:32633"),
        ("+init=epsg:32633", "EPSG:32633"),
        ("+init=epsg:4326 +no_defs", "EPSG:4326"),
        ({"init": "epsg:3035"}, "EPSG:3035"),
        ({"init": "epsg:3035", "no_defs": True}, "EPSG:3035"),
        ("CRS84", "EPSG:4326"),
        ("CRS:84", "EPSG:4326"),
        (np.int64(32633), "EPSG:32633"),
        (b"EPSG:32633", "EPSG:32633"),
        ("4326", "EPSG:4326"),
    ],
)
def test_other_names(name, meaning):
    assert same_crs(read_crs(name), pyproj.CRS(meaning))


@pytest.mark.parametrize(
    "name",
    ["SR-ORG:99", "EPSG:999999", "EPSG:10", "", "nowhere", True, None, 3.5, b"\xff", "file:///tmp", {}],
)
def test_invalid_crs_names(name):
    with pytest.raises(GeoreferenceError, match=r"of the test cannot be parsed \(.*\)\. Correct it\."):
        read_crs(name, "the test", "Correct it.")


@pytest.mark.parametrize(
    "name", ["SR-ORG:6974", "SR-ORG:6842", "SR-ORG:6627", "EPSG:900913", EARTH_ENGINES_WKT]
)
def test_round_trip_of_a_crs_name_in_a_mixer(tmp_path, name):
    small_raster({"b": random_band((8, 8))}).tfexport(tmp_path / "s", patch_dimensions=4)
    document = json.loads((tmp_path / "s-mixer.json").read_text())
    document["projection"]["crs"] = name
    text = Mixer.parse(json.dumps(document)).text()
    (tmp_path / "s-mixer.json").write_text(text)
    assert Mixer.read(tmp_path / "s-mixer.json").text() == text
    opened = xee_tf.open_image(tmp_path / "s-mixer.json")
    assert same_crs(read_crs(opened.rio.crs), read_crs(name))
    xee_tf.open_image(tmp_path / "s-mixer.json", margins="keep")
    if len(name) < 20:
        again = opened.tfexport(tmp_path / "again", patch_dimensions=4)
        assert Mixer.read(again.mixer).text() == text
    xee_tf.upload_image(None, tmp_path / "s-mixer.json", tmp_path / "u.tif")
    with rasterio.open(tmp_path / "u.tif") as file:
        assert same_crs(read_crs(file.crs), read_crs(name))


# -- Why there is no CRS -----------------------------------------------------------------------------


def test_a_geotiff_without_a_crs(tmp_path):
    image = xr.DataArray(np.zeros((3, 4), "f4"), {"y": [2.5, 1.5, 0.5], "x": np.arange(4) + 0.5}, ("y", "x"))
    image.rio.to_raster(tmp_path / "bare.tif")
    opened = rioxarray.open_rasterio(tmp_path / "bare.tif")
    for obj in (opened, opened.squeeze("band", drop=True).to_dataset(name="b")):
        with pytest.raises(
            GeoreferenceError, match=r"no CRS: its file does not define one\. Write one"
        ) as caught:
            read_georef(obj)
        assert "decode_coords" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("size", [250, 500])
def test_a_geotiff_whose_crs_is_cut_off(tmp_path, size):
    values = np.zeros((300, 300), "f4")
    image = xr.DataArray(values, {"y": -np.arange(300.0), "x": np.arange(300.0)}, ("y", "x"))
    image.rio.write_crs("EPSG:32633").rio.to_raster(tmp_path / "cut.tif")
    os.truncate(tmp_path / "cut.tif", size)
    opened = rioxarray.open_rasterio(tmp_path / "cut.tif")
    for obj in (opened, opened.squeeze("band", drop=True).to_dataset(name="b")):
        with pytest.raises(StorageError, match=r"cut\.tif is damaged or incomplete: .* download it again"):
            read_georef(obj)


@pytest.mark.parametrize("names", [("lon", "lat"), ("XLONG", "XLAT"), ("nav_lon", "nav_lat"), ("a", "b")])
def test_curvilinear_coordinates(names):
    lon, lat = np.meshgrid(np.arange(5.0), np.arange(4.0))
    image = xr.Dataset(
        {"t": (("y", "x"), np.zeros((4, 5)))},
        {
            names[0]: (("y", "x"), lon + lat, {"units": "degrees_east"} if names[0] == "a" else {}),
            names[1]: (("y", "x"), lat, {"standard_name": "latitude"} if names[0] == "a" else {}),
        },
    )
    message = rf"'{names[0]}' and '{names[1]}' are two-dimensional.*curvilinear"
    with pytest.raises(GeoreferenceError, match=rf"no CRS: .*{message}"):
        read_georef(image)
    with pytest.raises(GeoreferenceError, match=message):
        read_georef(image, crs=4326)
    with pytest.raises(GeoreferenceError, match=rf"No x and y dimensions .*{message}"):
        read_georef(image.rename(x="i", y="j"))


def test_a_grid_mapping_that_was_not_decoded():
    image = raster("EPSG:32633", None).drop_vars("spatial_ref")
    with pytest.raises(GeoreferenceError, match=r"'spatial_ref', which was not found\..*decode_coords='all'"):
        read_georef(image)
