"""Tests of the conversion of boxes, geometries and slices to windows of pixels."""

import json

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.coords import BoundingBox as RasterioBox

import xee_tf
from tests.optional import optional
from tests.rasters import raster
from tests.strategies import georefs
from xee_tf.errors import GeoreferenceError, OptionError
from xee_tf.geometry import Size, Window
from xee_tf.georef import GeoRef, region_window

geopandas = optional("geopandas")
GeoBox = optional("odc.geo.geobox", "GeoBox")
BoundingBox = optional("odc.geo.geom", "BoundingBox")
box = optional("odc.geo.geom", "box")
polygon = optional("odc.geo.geom", "polygon")

UTM = GeoRef(
    pyproj.CRS("EPSG:32633"),
    Affine(30, 0, 500_000, 0, -30, 5_000_000),
    Size(x=400, y=300),
    "easting",
    "northing",
)
WHOLE = Window(0, 300, 0, 400)


def touched(georef, to_raster, outline):
    """Oracle: a lower bound of the window, from the pixels of a dense set of points."""
    x, y = to_raster.transform(*outline)
    columns, rows = ~georef.affine @ (x, y)
    return (
        np.floor(rows).min(),
        np.floor(rows).max() + 1,
        np.floor(columns).min(),
        np.floor(columns).max() + 1,
    )


# -- Boxes ------------------------------------------------------------------------------------------


@given(georefs(), st.data())
def test_a_box_of_whole_pixels(place, data):
    assume(min(abs(place.affine.a), abs(place.affine.e)) > 1e-3)
    affine = Affine(place.affine.a, 0, place.affine.c, 0, place.affine.e, place.affine.f)
    place = GeoRef(place.crs, affine, place.shape)
    top, left = (data.draw(st.integers(0, n - 1)) for n in place.shape.shape)
    bottom, right = (
        data.draw(st.integers(first + 1, n)) for first, n in zip((top, left), place.shape.shape, strict=True)
    )
    (x0, y0), (x1, y1) = affine @ (left, top), affine @ (right, bottom)
    region = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    assert region_window(region, place) == Window(top, bottom, left, right)


def edges(length):
    """Two different positions, not on the edge of a pixel, whose range overlaps the raster."""
    fraction = st.floats(0.01, 0.99)
    starts = st.builds(float.__add__, st.integers(-50, length - 1).map(float), fraction)
    return starts.flatmap(
        lambda start: st.tuples(
            st.just(start),
            st.builds(float.__add__, st.integers(max(0, int(start) + 1), length + 50).map(float), fraction),
        )
    )


@given(edges(400), edges(300))
def test_boxes_are_rounded_outward_and_clipped(columns, rows):
    (left, right), (top, bottom) = columns, rows
    region = (500_000 + 30 * left, 5_000_000 - 30 * bottom, 500_000 + 30 * right, 5_000_000 - 30 * top)
    down = [row for row in range(300) if row + 1 > top and row < bottom]
    across = [column for column in range(400) if column + 1 > left and column < right]
    assert region_window(region, UTM) == Window(down[0], down[-1] + 1, across[0], across[-1] + 1)


def test_rounding_errors_add_no_pixels():
    exact, outward = np.array([500_300, 4_999_400, 500_600, 4_999_700]), np.array([-1, -1, 1, 1])
    assert region_window(tuple(exact + 1e-5 * outward), UTM) == Window(10, 20, 10, 20)
    assert region_window(exact + 1e-3 * outward, UTM) == Window(9, 21, 9, 21)


def test_boxes_of_all_kinds():
    numbers = (500_300, 4_999_400, 500_600, 4_999_700)
    expected = Window(10, 20, 10, 20)
    for region in (
        numbers,
        list(numbers),
        np.array(numbers),
        RasterioBox(*numbers),
        BoundingBox(*numbers, crs="EPSG:32633"),
        BoundingBox(*numbers),
        box(*numbers, crs="EPSG:32633"),
        GeoBox((10, 10), Affine(30, 0, 500_300, 0, -30, 4_999_700), "EPSG:32633"),
        GeoBox((5, 5), Affine(60, 0, 500_300, 0, 60, 4_999_400), "EPSG:32633"),
        geopandas.GeoSeries([shapely.box(*numbers)], crs="EPSG:32633"),
    ):
        assert region_window(region, UTM) == expected


def test_a_south_up_and_a_sheared_raster():
    south_up = GeoRef(UTM.crs, Affine(30, 0, 500_000, 0, 30, 4_000_000), UTM.shape)
    assert region_window((500_300, 4_000_060, 500_600, 4_000_090), south_up) == Window(2, 3, 10, 20)
    turned = GeoRef(UTM.crs, Affine.rotation(45) @ Affine.scale(1, -1), Size(x=20, y=20))
    # The unit square stands on its corner in a grid rotated by 45 degrees.
    columns, rows = ~turned.affine @ (np.array([0, 1, 1, 0]), np.array([-0.5, -0.5, 0.5, 0.5]))
    window = region_window((0, -0.5, 1, 0.5), turned)
    assert window == Window(
        max(0, int(np.floor(rows.min()))), int(np.ceil(rows.max())), 0, int(np.ceil(columns.max()))
    )


# -- Other CRSs -------------------------------------------------------------------------------------


@given(st.floats(14.9, 15.1), st.floats(44.9, 45.2), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_a_box_in_degrees_covers_all_its_points(left, bottom, width, height):
    to_raster = pyproj.Transformer.from_crs(4326, UTM.crs, always_xy=True)
    x, y = np.meshgrid(np.linspace(left, left + width, 60), np.linspace(bottom, bottom + height, 60))
    top, low, west, east = touched(UTM, to_raster, (x.ravel(), y.ravel()))
    assume(low > 1 and top < 299 and east > 1 and west < 399)
    window = region_window((left, bottom, left + width, bottom + height), UTM, region_crs="EPSG:4326")
    assert 0 <= window.top <= max(top, 0)
    assert min(low, 300) <= window.bottom <= 300
    assert 0 <= window.left <= max(west, 0)
    assert min(east, 400) <= window.right <= 400
    # No larger than the points require, except for a pixel where an edge bends between them.
    assert window.top >= max(top - 1, 0)
    assert window.bottom <= min(low + 1, 300)
    assert window.left >= max(west - 1, 0)
    assert window.right <= min(east + 1, 400)


def test_curved_edges():
    # A parallel of latitude is an arc: its middle is far below its ends.
    conic = GeoRef(
        pyproj.CRS("EPSG:3035"), Affine(1000, 0, 2_500_000, 0, -1000, 5_500_000), Size(x=5000, y=4500)
    )
    window = region_window((-10, 40, 40, 60), conic, region_crs=4326)
    to_raster = pyproj.Transformer.from_crs(4326, 3035, always_xy=True)
    lowest = min(to_raster.transform(lon, 40)[1] for lon in np.linspace(-10, 40, 2000))
    ends = min(to_raster.transform(lon, 40)[1] for lon in (-10, 40))
    assert window.bottom == int(np.ceil((5_500_000 - lowest) / 1000))
    assert ends - lowest > 100_000


def test_a_region_around_a_pole():
    globe = GeoRef(pyproj.CRS(4326), Affine(1, 0, -180, 0, -1, 90), Size(x=360, y=180))
    window = region_window((-1e6, -1e6, 1e6, 1e6), globe, region_crs=3413)  # polar stereographic
    assert (window.top, window.left, window.right) == (0, 0, 360)
    assert window.bottom in range(12, 16)
    south = region_window((-1e6, -1e6, 1e6, 1e6), globe, region_crs=3031)
    assert (south.bottom, south.left, south.right) == (180, 0, 360)


def test_geometries_that_carry_a_crs():
    lonlat = box(15.0, 45.1, 15.05, 45.15, crs="EPSG:4326")
    expected = region_window((15.0, 45.1, 15.05, 45.15), UTM, region_crs=4326)
    assert region_window(lonlat, UTM) == expected
    assert region_window(lonlat, UTM, region_crs="OGC:CRS84") == expected
    assert region_window(lonlat.boundingbox, UTM) == expected
    assert region_window(geopandas.GeoSeries([lonlat.geom], crs=4326), UTM) == expected
    with pytest.raises(OptionError, match=r"region_crs is EPSG:32633 .* the region itself is in EPSG:4326"):
        region_window(lonlat, UTM, region_crs=UTM.crs)
    with pytest.raises(GeoreferenceError, match=r"^region_crs='EPSG:0' is not a CRS that pyproj accepts"):
        region_window((0, 0, 1, 1), UTM, region_crs="EPSG:0")


# -- GeoJSON ----------------------------------------------------------------------------------------

RING = [[15.0, 45.1], [15.05, 45.1], [15.05, 45.15], [15.0, 45.15], [15.0, 45.1]]
POLYGON = {"type": "Polygon", "coordinates": [RING]}


@pytest.mark.parametrize(
    "geometry",
    [
        POLYGON,
        {"type": "Polygon", "coordinates": [[[*point, 100.0] for point in RING]], "geodesic": False},
        {"type": "MultiPolygon", "coordinates": [[RING], [RING[:3]]]},
        {"type": "LineString", "coordinates": RING},
        {"type": "MultiPoint", "coordinates": RING},
        {"type": "GeometryCollection", "geometries": [POLYGON, {"type": "Point", "coordinates": RING[0]}]},
        {"type": "Feature", "geometry": POLYGON, "properties": {}},
        {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "geometry": None}, {"type": "Feature", "geometry": POLYGON}],
        },
        shapely.Polygon(RING),
        json.dumps(POLYGON),
    ],
)
def test_geojson_of_every_kind(geometry):
    expected = region_window(polygon(RING, crs=4326), UTM)
    found = region_window(geometry, UTM)
    assert found.shape == (187, 132)
    assert found == expected


def test_geojson_in_another_crs():
    ring = [[500_300, 4_999_400], [500_600, 4_999_400], [500_450, 4_999_700]]
    plain = {"type": "Polygon", "coordinates": [ring]}
    expected = Window(10, 20, 10, 20)
    assert region_window(plain, UTM, region_crs="EPSG:32633") == expected
    for name in ("EPSG:32633", "urn:ogc:def:crs:EPSG::32633"):
        member = {"type": "name", "properties": {"name": name}}
        assert region_window({**plain, "crs": member}, UTM) == expected
    with pytest.raises(OptionError, match=r"cannot be degrees in EPSG:4326 .*region_crs=ds\.rio\.crs"):
        region_window(plain, UTM)
    with pytest.raises(OptionError, match=r'"crs" member has no properties.name'):
        region_window({**plain, "crs": {"type": "link"}}, UTM)


def test_a_point_is_one_pixel():
    for x, y in ((500_310, 4_999_690), (500_300, 4_999_700)):
        point = {"type": "Point", "coordinates": [x, y]}
        assert region_window(point, UTM, region_crs=UTM.crs) == Window(10, 11, 10, 11)


# -- Slices -----------------------------------------------------------------------------------------


@given(st.data())
def test_slices_select_as_numpy_does(data):
    rows, columns = (
        slice(*(data.draw(st.none() | st.integers(-n - 5, n + 5)) for _ in range(2))) for n in (300, 400)
    )
    picked = [list(range(300))[rows], list(range(400))[columns]]
    forms = [
        (rows, columns),
        [rows, columns],
        {"y": rows, "x": columns},
        {"northing": rows, "easting": columns},
    ]
    for region in forms:
        if not all(picked):
            with pytest.raises(OptionError, match="is empty; the raster has"):
                region_window(region, UTM)
        else:
            window = region_window(region, UTM)
            assert window.slices == tuple(slice(p[0], p[-1] + 1) for p in picked)


def test_a_single_slice_keeps_the_other_axis():
    assert region_window({"x": slice(5, 9)}, UTM) == Window(0, 300, 5, 9)
    assert region_window((slice(None), slice(None)), UTM) == WHOLE


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((slice(0, 10, 2), slice(None)), r"slice\(0, 10, 2\) along y must not have a step"),
        ((slice(None), slice(None, None, -1)), "along x must not have a step"),
        ((slice(0.5, 10), slice(None)), "along y must contain integers"),
        ((slice(0, 10),), r"must be \(slice_y, slice_x\)"),
        ((slice(0, 10), 5), "must be slices along y and x"),
        ({"y": slice(0, 10), "x": 5}, "must be slices along y and x"),
        ({"row": slice(0, 10)}, r"Unknown dimensions 'row' in region; expected 'northing' and 'easting'"),
    ],
)
def test_invalid_slices(region, message):
    with pytest.raises(OptionError, match=message):
        region_window(region, UTM)


# -- Bad regions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (
            (600_000, 4_999_400, 600_600, 4_999_700),
            r"outside the raster\. The region covers \(600000, .*raster covers \(500000, 4991000, 512000",
        ),
        (
            (14.9, 45.0, 15.1, 45.2),
            "outside the raster.* If the region is in degrees, .*region_crs='EPSG:4326'",
        ),
        ((500_600, 4_999_400, 500_300, 4_999_700), r"left < right and bottom < top; got \(500600"),
        ((500_300, 4_999_700, 500_600, 4_999_400), "left < right and bottom < top"),
        ((0, 0, 0, 0), "left < right"),
        ((0, 0, np.inf, 1), "left < right"),
        ((0, 0, np.nan, 1), "left < right"),
        ((1, 2, 3), r"region must be a box \(left.*got \(1, 2, 3\)"),
        ("Paris", "region must be a box .*got 'Paris'"),
        ("{Paris", "region must be a box .*got '{Paris'"),
        (5, "region must be a box .*got 5"),
        ({}, r"region must be a box .*got \{\}"),
        ({"type": "Polygon", "coordinates": []}, "The region is empty"),
        ({"type": "FeatureCollection", "features": []}, "The region is empty"),
        ({"type": "Polygon", "coordinates": [[["a", "b"]]]}, "The Polygon in region cannot be parsed"),
        ({"type": "Polygon", "coordinates": [[[1], [2]]]}, "The Polygon in region cannot be parsed"),
        ({"type": "Point", "coordinates": [np.nan, 1]}, "coordinates that are not finite numbers"),
        ({"type": "Point", "coordinates": 5}, "The Point in region cannot be parsed"),
        ({"type": "Point", "coordinates": [10.0, 20.0]}, "outside the raster"),
    ],
)
def test_invalid_regions(region, message):
    with pytest.raises(OptionError, match=message):
        region_window(region, UTM)


def test_a_region_around_the_whole_raster():
    # In UTM the outline of the globe encloses nothing: its meridian of 180 degrees is far beyond the pole.
    for region in ((-180, -90, 180, 90), (0, -90, 180, 90), (-200, -10, 30, 80), (370, 40, 380, 50)):
        assert region_window(region, UTM, region_crs=4326) == WHOLE
    south = GeoRef(pyproj.CRS(3031), Affine(10_000, 0, -3e6, 0, -10_000, 3e6), Size(x=600, y=600))
    assert region_window((-180, -90, 180, -50), south, region_crs=4326) == Window(0, 600, 0, 600)
    assert region_window((-180, -90, 180, -80), south, region_crs=4326).shape in [(220, 220), (218, 218)]


def test_a_region_without_a_location_in_the_crs_of_the_raster():
    mercator = GeoRef(pyproj.CRS(3857), Affine(1000, 0, 0, 0, -1000, 0), Size(x=10, y=10))
    with pytest.raises(OptionError, match=r"outside the raster.*\(10, 90, 10, 90\) in EPSG:4326"):
        region_window({"type": "Point", "coordinates": [10, 90]}, mercator)


def test_crs_that_cannot_be_converted():
    """The text is valid, but PROJ does not know its operation."""
    wkt = pyproj.CRS("EPSG:3395").to_wkt("WKT1_GDAL")
    wkt = wkt[: wkt.rindex("]")] + ',EXTENSION["PROJ4","+proj=foo"]]'
    ds = raster({"a": np.zeros((64, 64))})
    with pytest.raises(
        xee_tf.GeoreferenceError, match="cannot be converted from 'WGS 84 / World Mercator' to"
    ):
        ds.tfexport.plan(patch_dimensions=8, region=(7e5, 4e6, 8e5, 5e6), region_crs=wkt)
