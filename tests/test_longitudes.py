"""Longitudes in -180..180 and in 0..360, across 180 degrees: regions, tables, other projections."""

import warnings

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geom import BoundingBox

import xee_tf
from xee_tf.errors import GeoreferenceError, OptionError
from xee_tf.geometry import Size, Window
from xee_tf.georef import GeoRef, region_window, write_georef
from xee_tf.georef.crs import read_crs
from xee_tf.georef.longitudes import pixels_of_points, unwrap_rings, wrap_longitude
from xee_tf.model.projection import Projection
from xee_tf.model.resampling import to_projection

LONLAT = pyproj.CRS("EPSG:4326")


def globe(left, step=1.0):
    """A raster of the whole globe."""
    size = Size(x=round(360 / step), y=round(180 / step))
    return GeoRef(LONLAT, Affine(step, 0, left, 0, -step, 90), size)


def image_of(georef):
    """Each pixel holds its longitude, in -180..180, and its latitude."""
    columns, rows = np.meshgrid(np.arange(georef.shape.x) + 0.5, np.arange(georef.shape.y) + 0.5)
    x, y = georef.affine @ (columns, rows)
    lon, lat = pyproj.Transformer.from_crs(georef.crs, LONLAT, always_xy=True).transform(x, y)
    bands = {"lon": (lon + 180) % 360 - 180, "lat": lat}
    return write_georef(xr.Dataset({k: (("y", "x"), v.astype("f4")) for k, v in bands.items()}), georef)


# -- Regions -----------------------------------------------------------------------------------------

FIJI = {
    "box": (176, -20, -178, -15),
    "box beyond 180": (176, -20, 182, -15),
    "box beyond -180": (-184, -20, -178, -15),
    "odc box": BoundingBox(176, -20, 182, -15, "EPSG:4326"),
    "jumping polygon": {
        "type": "Polygon",
        "coordinates": [[[176, -20], [-178, -20], [-178, -15], [176, -15], [176, -20]]],
    },
    "clockwise": shapely.Polygon([(176, -20), (176, -15), (-178, -15), (-178, -20)]),
    "line": shapely.LineString([(176, -20), (-178, -15)]),
    "split": shapely.MultiPolygon([shapely.box(176, -20, 180, -15), shapely.box(-180, -20, -178, -15)]),
    "features": {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(*bounds)), "properties": {}}
            for bounds in ((176, -20, 180, -15), (-180, -20, -178, -15))
        ],
    },
}


@pytest.mark.parametrize("name", FIJI)
@pytest.mark.parametrize("left", [0, -0.5, -90, -270, 100])
def test_a_region_across_180_on_a_raster_that_goes_on_there(name, left):
    first = 176 - left if left > -200 else -184 - left
    window = region_window(FIJI[name], globe(left, 0.5), LONLAT if name == "box" else None)
    assert window == Window(210, 220, round(2 * first), round(2 * first) + 12)


@pytest.mark.parametrize("name", FIJI)
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "SR-ORG:6974"])
def test_a_region_across_180_on_a_raster_that_ends_there(name, crs):
    georef = globe(-180)
    if crs != "EPSG:4326":
        georef = GeoRef(read_crs(crs), Affine(1e5, 0, -20_037_508, 0, -1e5, 10_000_000), Size(x=401, y=200))
    with pytest.raises(
        OptionError, match=r"region .* crosses the edge of the raster.*each side.*region=\("
    ) as caught:
        region_window(FIJI[name], georef, LONLAT)
    if crs == "EPSG:4326":
        assert "(-180, -20, -178, -15)" in str(caught.value)
        assert "(176, -20, 180, -15)" in str(caught.value)
        assert "assign_coords(x=ds.x % 360).sortby('x')" in str(caught.value)


@pytest.mark.parametrize("name", FIJI)
def test_a_region_across_180_in_utm(name):
    utm = GeoRef(pyproj.CRS(32701), Affine(3000, 0, 100_000, 0, -3000, 8_300_000), Size(x=100, y=80))
    window = region_window(FIJI[name], utm, LONLAT)
    to_utm = pyproj.Transformer.from_crs(4326, 32701, always_xy=True)
    east = (to_utm.transform(-178, -17.5)[0] - 100_000) / 3000
    assert window.left == 0
    assert abs(window.right - east) < 4


@given(st.integers(-300, 170), st.integers(1, 120), st.sampled_from([0, -180, -90, -360, 180]))
def test_any_box_is_found_on_any_globe(left, width, start):
    raster = globe(start)
    inside = (left - start) % 360
    if inside + width <= 360:
        window = region_window((left, 10, left + width, 20), raster)
        assert window == Window(70, 80, inside, inside + width)
    else:
        with pytest.raises(OptionError, match="crosses the edge of the raster"):
            region_window((left, 10, left + width, 20), raster)


@pytest.mark.parametrize("left", [-180, 0, 20, -360])
@pytest.mark.parametrize("region", [(-180, -60, 180, 60), (0, -60, 360, 60), shapely.box(-180, -60, 180, 60)])
def test_the_whole_globe_is_all_of_it(left, region):
    assert region_window(region, globe(left)) == Window(30, 150, 0, 360)


def test_boxes_that_are_still_refused():
    utm = GeoRef(pyproj.CRS(32633), Affine(30, 0, 5e5, 0, -30, 5e6), Size(x=100, y=100))
    for region, georef in [
        ((5e5 + 60, 0, 5e5, 5e6), utm),
        ((10, 0, 10, 5), globe(0)),
        ((500, 0, 400, 5), globe(0)),
    ]:
        with pytest.raises(OptionError, match="left < right"):
            region_window(region, georef)
    europe = GeoRef(LONLAT, Affine(1, 0, 0, 0, -1, 60), Size(x=30, y=30))
    with pytest.raises(OptionError, match="outside the raster"):
        region_window((170, 40, -170, 50), europe)


def test_an_export_of_a_region_across_180(tmp_path):
    image = image_of(globe(0))
    result = image.tfexport(tmp_path / "s", patch_dimensions=10, region=(170, -10, -170, 10), region_crs=4326)
    opened = xee_tf.open_image(result.mixer)
    assert opened.lon.values[0].tolist() == [*np.arange(170.5, 180), *np.arange(-179.5, -170)]


def test_rings_are_unwrapped_with_their_holes():
    outer = [(170, -10), (-170, -10), (-170, 10), (170, 10)]
    inner = [(-178, -1), (-176, -1), (-176, 1), (-178, 1)]
    found = unwrap_rings(shapely.Polygon(outer, [inner]), 360.0)
    assert found.bounds == (170, -10, 190, 10)
    assert found.area == 20 * 20 - 2 * 2
    pole = shapely.Polygon([(-120, 60), (0, 60), (120, 60)])
    assert unwrap_rings(pole, 360.0).equals(pole)


@given(st.floats(-720, 720))
def test_wrapped_longitudes_mean_the_same(degrees):
    found = float(wrap_longitude(degrees))
    assert -180 <= found <= 180
    assert np.isclose((found - degrees + 180) % 360 - 180, 0, atol=1e-9)
    if -180 <= degrees <= 180:
        assert found == degrees


EIGHTHS = st.integers(-9000, 9000).map(lambda number: number / 8)
# Beyond two turns as well: what a region finds, points and polygons find too.
TURNS = [360, -540, -180.5, 720, 1060]


@pytest.mark.parametrize("left", TURNS)
@pytest.mark.parametrize("given", [-170, 190, 550, -530, 10])
def test_regions_points_and_polygons_are_at_the_same_turn(tmp_path, left, given):
    raster = globe(left)
    first = int((given - left) % 360)
    box = (given + 0.1, 10.1, given + 0.2, 10.4)
    window = Window(79, 80, first, first + 1)
    assert region_window(box, raster) == window
    assert region_window(shapely.box(*box), raster, LONLAT) == window
    assert pixels_of_points(np.array([box[:2]]), raster).astype(int).tolist() == [[first, 79]]
    for geometry, options in [(shapely.Point(box[:2]), {}), (shapely.box(*box), {"all_touched": True})]:
        frame = sampled(tmp_path, image_of(raster), [geometry], **options)
        assert set(frame.longitude) == {(left + first + 0.5 + 180) % 360 - 180}


@given(EIGHTHS, EIGHTHS, st.sampled_from([0.25, 1.0, 30.0]))
def test_points_at_any_turn_are_on_a_globe_at_any_turn(x, left, step):
    raster = globe(left, step)
    (column, _), (nowhere, _) = pixels_of_points(np.array([[x, 10.0], [np.inf, np.inf]]), raster)
    assert 0 <= column < raster.shape.x
    assert abs((left + column * step - x + 180) % 360 - 180) < 1e-9
    assert not np.isfinite(nowhere)


@pytest.mark.parametrize("crs", [LONLAT, pyproj.CRS(32633)])
def test_a_point_on_the_edge_is_in_the_first_pixel_however_it_is_rounded(crs):
    raster = GeoRef(crs, Affine(0.1, 0, 10.3, 0, -0.1, 20.7), Size(x=30, y=20))
    for x, y in [(10.3, 20.7), (10.3 - 1e-9, 20.7 + 1e-9)]:
        assert region_window(shapely.Point(x, y), raster, crs) == Window(0, 1, 0, 1)


def test_an_outline_keeps_its_turn_where_a_raster_is_wider_than_the_globe():
    wide = GeoRef(LONLAT, Affine(1, 0, -360, 0, -1, 90), Size(x=1080, y=180))
    for left in (-300, 60, 420):
        assert region_window((left, 0, left + 5, 5), wide).left == left + 360


# -- Tables ------------------------------------------------------------------------------------------


def sampled(tmp_path, image, geometries, crs=4326, **options):
    """A table with where its pixels are; the bands say so, too."""
    where = gpd.GeoDataFrame({"number": range(len(geometries))}, geometry=geometries, crs=crs)
    frame = xee_tf.open_table(
        image.tfexport.table(where, tmp_path / "t", if_exists="overwrite", **options).path
    )
    assert frame.longitude.between(-180, 180).all()
    np.testing.assert_allclose(frame.longitude, frame.lon, atol=1e-4)
    np.testing.assert_allclose(frame.latitude, frame.lat, atol=1e-4)
    return frame


POINTS = [(-115.3, 35.2), (244.7, 35.2), (179.7, 0.2), (-179.7, 0.2), (0.2, 0.2), (360.2, -1.5)]


@pytest.mark.parametrize("left", [-180, 0, -90, 100])
def test_points_in_any_range_of_longitudes(tmp_path, left):
    frame = sampled(tmp_path, image_of(globe(left)), shapely.points(POINTS))
    expected = [np.floor(x) + 0.5 for x, _ in POINTS]
    assert frame.longitude.tolist() == [(x + 180) % 360 - 180 for x in expected]
    assert frame.number.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("left", [-180, 0, -90])
@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("name", ["jumping polygon", "clockwise", "split", "beyond", "far", "in UTM"])
def test_polygons_across_180(tmp_path, left, all_touched, name):
    crs = 4326
    polygon = {
        "jumping polygon": shapely.Polygon([(176, -20), (-178, -20), (-178, -15), (176, -15)]),
        "clockwise": FIJI["clockwise"],
        "split": FIJI["split"],
        "beyond": shapely.box(176, -20, 182, -15),
        "far": shapely.box(-184, -20, -178, -15),
        "in UTM": None,
    }[name]
    if polygon is None:
        crs, ring = (
            32701,
            [(x, y) for x, y in shapely.segmentize(shapely.box(176, -20, 182, -15), 0.1).exterior.coords],
        )
        to_utm = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
        polygon = shapely.Polygon([to_utm.transform(x, y) for x, y in ring])
    frame = sampled(tmp_path, image_of(globe(left)), [polygon], crs, all_touched=all_touched)
    inner = {(x, y) for x in (176.5, 177.5, 178.5, 179.5, -179.5, -178.5) for y in np.arange(-19.5, -15)}
    found = list(zip(frame.longitude.tolist(), frame.latitude.tolist(), strict=True))
    assert len(found) == len(set(found))
    assert inner <= set(found)
    assert all_touched or set(found) == inner


def test_a_polygon_across_the_edge_of_a_projection(tmp_path):
    mercator = GeoRef(
        pyproj.CRS(3857),
        Affine(200_375.08342789244, 0, -20_037_508.342789244, 0, -2e5, 1e7),
        Size(x=200, y=100),
    )
    image = image_of(mercator)
    for polygon in (shapely.box(170, -10, 190, 10), FIJI["split"]):
        frame = sampled(tmp_path, image, [polygon])
        inside = [
            shapely.contains_xy(polygon, image.lon.values + turn, image.lat.values).sum()
            for turn in (-360, 0, 360)
        ]
        assert len(frame) == sum(inside)


def test_a_raster_of_three_quarters_of_the_globe_is_sampled_whole(tmp_path):
    georef = GeoRef(LONLAT, Affine(10, 0, -150, 0, -10, 60), Size(x=30, y=12))
    result = xee_tf.sample_table(image_of(georef), None, tmp_path / "t", n=1000)
    assert len(xee_tf.open_table(result.path)) == 360


def test_exported_points_have_longitudes_in_the_usual_range(tmp_path):
    points = gpd.GeoDataFrame(
        {"a": [1, 2, 3]}, geometry=gpd.points_from_xy([244.5, -10, 360], [10, 5, 0], crs=4326)
    )
    assert xee_tf.open_table(xee_tf.export_table(points, tmp_path / "t").path).longitude.tolist() == [
        -115.5,
        -10,
        0,
    ]
    utm = gpd.GeoDataFrame({"a": [1]}, geometry=gpd.points_from_xy([500_000], [10], crs=4326))
    with pytest.raises(OptionError, match=r"Row 0 has a point at \(500000, 10\), which cannot be degrees"):
        xee_tf.export_table(utm, tmp_path / "u")


# -- Other projections -------------------------------------------------------------------------------


def predicted(georef, projection, chunk=None, resampling="nearest"):
    model = xee_tf.Model.from_function(
        lambda pixels: pixels,
        input_tile_size=32,
        bands=["lon", "lat"],
        output_bands=["lon_2", "lat_2"],
        proj=projection,
        fix_input_proj=True,
    )
    image = image_of(georef)
    image = image.chunk(y=chunk, x=chunk) if chunk else image
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The image has")
        return model.predict_image(image, resampling=resampling).load()


PACIFIC = {
    "UTM to degrees": (
        GeoRef(pyproj.CRS(32660), Affine(3000, 0, 700_000, 0, -3000, 1e6), Size(x=90, y=50)),
        4326,
    ),
    "170..190 to the Pacific's Mercator": (
        GeoRef(LONLAT, Affine(0.1, 0, 170, 0, -0.1, 10), Size(x=200, y=100)),
        3832,
    ),
    "0..360 to Mercator": (GeoRef(LONLAT, Affine(4, 0, 0, 0, -4, 80), Size(x=90, y=40)), 3857),
    "0..360 to equal area": (GeoRef(LONLAT, Affine(4, 0, 0, 0, -4, 80), Size(x=90, y=40)), 6933),
    "0..360 to degrees": (GeoRef(LONLAT, Affine(4, 0, 0, 0, -4, 80), Size(x=90, y=40)), 4326),
    "200..220 to UTM": (GeoRef(LONLAT, Affine(0.05, 0, 200, 0, -0.05, 5), Size(x=60, y=60)), 32604),
    "a pole to degrees": (
        GeoRef(pyproj.CRS(3413), Affine(50_000, 0, -1e6, 0, -50_000, 1e6), Size(x=40, y=40)),
        4326,
    ),
}


@pytest.mark.parametrize("chunk", [None, 23])
@pytest.mark.parametrize("name", PACIFIC)
def test_a_projection_across_180_and_back(name, chunk):
    georef, code = PACIFIC[name]
    metres = abs(georef.affine.a) * (111_319.49 if georef.crs.is_geographic else 1)
    found = predicted(georef, (f"EPSG:{code}", metres / 2), chunk)
    assert np.isfinite(found.lon_2.values).all()
    # Twice the nearest pixel: no more than one pixel off, on the ground.
    geod = pyproj.Geod(ellps="WGS84")
    _, _, off = geod.inv(found.lon, found.lat, found.lon_2, found.lat_2)
    assert off.max() < 1.6 * metres


def test_an_image_that_would_be_torn_apart_is_refused():
    utm = GeoRef(pyproj.CRS(32660), Affine(3000, 0, 700_000, 0, -3000, 1e6), Size(x=200, y=100))
    lonlat = GeoRef(LONLAT, Affine(0.1, 0, 170, 0, -0.1, 30), Size(x=200, y=100))
    for georef, projection in [
        (utm, ("EPSG:3857", 3000)),
        (lonlat, ("EPSG:3857", 1e4)),
        (lonlat, ("SR-ORG:6974", 1e4)),
    ]:
        with pytest.raises(
            GeoreferenceError,
            match=r"200 x 100 pixels.*spans [\d,]+ x 1\d\d pixels, \d\d times .*180 degrees",
        ):
            to_projection(image_of(georef), georef, Projection.of(projection), "nearest")


def test_an_image_that_reaches_beyond_a_projection_is_refused():
    disk = pyproj.CRS("+proj=geos +h=35785831 +lon_0=0")
    full = GeoRef(disk, Affine(1e5, 0, -5.5e6, 0, -1e5, 5.5e6), Size(x=110, y=110))
    image = write_georef(xr.Dataset({"b": (("y", "x"), np.zeros((110, 110)))}), full)
    with pytest.raises(
        GeoreferenceError,
        match=r"\d+ of 404 points along the edges .* have no coordinates.*\(-5500000, 5500000\)",
    ):
        to_projection(image, full, Projection.of(("EPSG:4326", 1e5)), "nearest")


@settings(max_examples=15)
@given(st.integers(-175, 175), st.integers(-60, 60), st.sampled_from([0, 360, -360]), st.integers(4, 40))
def test_any_place_on_the_globe_comes_back(lon, lat, turn, chunk):
    """Bilinear resampling of longitude and latitude gives longitude and latitude."""
    georef = GeoRef(LONLAT, Affine(0.05, 0, lon + turn, 0, -0.05, lat), Size(x=30, y=24))
    zone = int((lon + 0.75 + 180) // 6) + 1
    image = image_of(georef).chunk(y=chunk, x=chunk)
    values = image.lon.where(image.lon > lon - 90, image.lon + 360) if lon > 90 else image.lon
    there, _ = to_projection(
        image.assign(lon=values), georef, Projection.of((f"EPSG:{32600 + zone}", 5000)), "bilinear"
    )
    x, y = np.meshgrid(there.x, there.y)
    east, north = pyproj.Transformer.from_crs(32600 + zone, 4326, always_xy=True).transform(x, y)
    inside = np.isfinite(there.lat.values)
    assert inside.mean() > 0.5
    off = (there.lon.values - east + 180) % 360 - 180
    assert np.abs(off[inside]).max() < 0.04
    assert np.abs(there.lat.values - north)[inside].max() < 0.04
