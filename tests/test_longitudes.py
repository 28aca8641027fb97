"""Tests of longitudes in any range and across 180 degrees, in regions, tables and projections."""

import warnings
from contextlib import suppress

import numpy as np
import pyproj
import pytest
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.optional import optional
from tests.strategies import examples
from xee_tf.errors import GeoreferenceError, OptionError
from xee_tf.geometry import Size, Window
from xee_tf.georef import GeoRef, region_window, write_georef
from xee_tf.georef.crs import read_crs
from xee_tf.georef.longitudes import pixels_of_points, turn_along_x, unwrap_rings, wrap_longitude
from xee_tf.models.projection import Projection
from xee_tf.predict.resampling import to_projection

gpd = optional("geopandas")
BoundingBox = optional("odc.geo.geom", "BoundingBox")

LONLAT = pyproj.CRS("EPSG:4326")


def globe(left, step=1.0):
    """Return the georeference of a global raster."""
    size = Size(x=round(360 / step), y=round(180 / step))
    return GeoRef(LONLAT, Affine(step, 0, left, 0, -step, 90), size)


def image_of(georef):
    """Return a raster whose pixels contain their longitude (-180..180) and latitude."""
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
def test_a_region_across_180_on_a_raster_that_continues_there(name, left):
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
def test_boxes_on_global_rasters(left, width, start):
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
def test_a_region_of_the_whole_globe(left, region):
    assert region_window(region, globe(left)) == Window(30, 150, 0, 360)


def test_invalid_boxes_in_degrees():
    utm = GeoRef(pyproj.CRS(32633), Affine(30, 0, 5e5, 0, -30, 5e6), Size(x=100, y=100))
    for region, georef in [
        ((5e5 + 60, 0, 5e5, 5e6), utm),
        ((10, 0, 10, 5), globe(0)),
        ((500, 0, 400, 5), globe(0)),
    ]:
        with pytest.raises(OptionError, match="left < right"):
            region_window(region, georef)
    europe = GeoRef(LONLAT, Affine(1, 0, 0, 0, -1, 60), Size(x=30, y=30))
    swapped = r"read as \(170, 40, 190, 50\)\. If left and right are swapped, pass \(-170, 40, 170, 50\)"
    with pytest.raises(OptionError, match=f"outside the raster.*{swapped}"):
        region_window((170, 40, -170, 50), europe)


# Polygons wider than 180 degrees, their pixels of one degree, and their forms.
WIDE = {
    "a continent and more": (shapely.box(-120, -2, 150, 2), 1080),
    "clockwise": (shapely.box(-80, -3, 130, 2, ccw=False), 1050),
    "almost all of the globe": (shapely.box(-170, -80, 170, 84), 340 * 164),
    "to the last centres of pixels": (shapely.box(-179.9, -89.9, 179.9, 89.9), 360 * 180),
    "0..360": (shapely.box(10, -2, 350, 2), 340 * 4),
    "its whole width": (shapely.box(-180, -1, 180, 1, ccw=False), 720),
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("left", [-180, 0, -360, 90])
def test_polygons_wider_than_180_degrees(tmp_path, name, left):
    polygon, count = WIDE[name]
    assert len(sampled(tmp_path, image_of(globe(left)), [polygon])) == count


@pytest.mark.parametrize("name", WIDE)
def test_regions_wider_than_180_degrees(name):
    polygon, count = WIDE[name]
    mapping = shapely.geometry.mapping(polygon)
    for region in (polygon, mapping, {"type": "Feature", "geometry": mapping, "properties": {}}):
        left = 0 if name == "0..360" else -180
        assert region_window(region, globe(left)).size.pixels == count
    # In a raster in metres it covers the part inside the raster.
    for georef in (
        GeoRef(pyproj.CRS(32633), Affine(30, 0, 5e5, 0, -30, 5e4), Size(x=32, y=32)),
        GeoRef(pyproj.CRS(3857), Affine(1e3, 0, 2e6, 0, -1e3, 16e3), Size(x=32, y=32)),
    ):
        assert region_window(mapping, georef) == Window(0, 32, 0, 32)


def test_a_wide_region_with_parts_on_both_sides_raises():
    with pytest.raises(OptionError, match=r"crosses the edge.*\(0, -2, 100, 2\).*\(260, -2, 360, 2\)"):
        region_window(shapely.geometry.mapping(shapely.box(-100, -2, 100, 2)), globe(0))


def test_geometries_written_across_180():
    across = [(170, 0), (-170, 0), (-170, 5), (170, 5)]  # counterclockwise from 170 to -170
    assert unwrap_rings(shapely.Polygon(across), 360.0).bounds == (170, 0, 190, 5)
    assert unwrap_rings(shapely.box(170, 0, -170, 5), 360.0).bounds == (170, 0, 190, 5)
    with_seam = [(165, 0), (180, 0), (-180, 0), (-170, 0), (-170, 5), (-180, 5), (180, 5), (165, 5)]
    assert unwrap_rings(shapely.Polygon(with_seam), 360.0).bounds == (165, 0, 190, 5)
    for planar in (
        shapely.Polygon(across[::-1]),
        shapely.box(-170, 0, 170, 5),
        shapely.Polygon([(170, 0), (-80, 0), (-80, 5), (170, 5)]),
        shapely.box(170, 0, 190, 5),
        shapely.box(-180, 0, 180, 5, ccw=False),
    ):
        assert unwrap_rings(planar, 360.0).equals(planar)
    plain = {**shapely.geometry.mapping(shapely.Polygon(across)), "geodesic": False}
    assert region_window(plain, globe(-180)) == Window(85, 90, 10, 350)
    assert region_window({**plain, "geodesic": True}, globe(0)) == Window(85, 90, 170, 190)


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
def test_wrapped_longitudes_are_equivalent(degrees):
    found = float(wrap_longitude(degrees))
    assert -180 <= found <= 180
    assert np.isclose((found - degrees + 180) % 360 - 180, 0, atol=1e-9)
    if -180 <= degrees <= 180:
        assert found == degrees


EIGHTHS = st.integers(-9000, 9000).map(lambda number: number / 8)
# Regions, points and polygons give the same pixels, also beyond two turns.
TURNS = [360, -540, -180.5, 720, 1060]


@pytest.mark.parametrize("left", TURNS)
@pytest.mark.parametrize("given", [-170, 190, 550, -530, 10])
def test_regions_points_and_polygons_agree_at_any_turn(tmp_path, left, given):
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
def test_a_point_on_the_edge_is_in_the_first_pixel(crs):
    raster = GeoRef(crs, Affine(0.1, 0, 10.3, 0, -0.1, 20.7), Size(x=30, y=20))
    for x, y in [(10.3, 20.7), (10.3 - 1e-9, 20.7 + 1e-9)]:
        assert region_window(shapely.Point(x, y), raster, crs) == Window(0, 1, 0, 1)


def test_outlines_on_a_raster_wider_than_the_globe():
    wide = GeoRef(LONLAT, Affine(1, 0, -360, 0, -1, 90), Size(x=1080, y=180))
    for left in (-300, 60, 420):
        assert region_window((left, 0, left + 5, 5), wide).left == left + 360


# -- Tables ------------------------------------------------------------------------------------------


def sampled(tmp_path, image, geometries, crs=4326, **options):
    """Return a table with the location of pixels, and bands with the same numbers."""
    where = gpd.GeoDataFrame({"number": range(len(geometries))}, geometry=geometries, crs=crs)
    frame = xee_tf.open_table(
        image.tfexport.table(where, tmp_path / "t", if_exists="overwrite", **options).path
    )
    assert frame.longitude.between(-180, 180).all()
    np.testing.assert_allclose((frame.longitude - frame.lon + 180) % 360, 180, atol=1e-4)
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
@pytest.mark.parametrize("name", ["jumping polygon", "split", "beyond", "far", "in UTM"])
def test_polygons_across_180(tmp_path, left, all_touched, name):
    crs = 4326
    polygon = {
        "jumping polygon": shapely.Polygon([(176, -20), (-178, -20), (-178, -15), (176, -15)]),
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


CYLINDRICAL = [3857, 3395, 6933, "+proj=eqc +lon_0=150 +R=6371000", "+proj=cea +lat_ts=40 +lon_0=-60"]
WEST_EAST = [(178.4, -1.2), (-179.3, -1.2), (-179.3, 1.3), (178.4, 1.3)]


@pytest.mark.parametrize("crs", CYLINDRICAL)
def test_cylindrical_rasters_beyond_180(tmp_path, crs):
    crs = pyproj.CRS(crs)
    turn = turn_along_x(crs)
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(179.9, 0)
    for turns in (-1, 0, 1):
        step = turn / 3600
        georef = GeoRef(
            crs, Affine(step, 0, x - 30 * step + turns * turn, 0, -step, y + 30 * step), Size(x=60, y=60)
        )
        image = image_of(georef)
        lon = image.lon.values % 360
        for polygon in (shapely.Polygon(WEST_EAST), shapely.box(178.4, -1.2, 180.7, 1.3)):
            frame = sampled(tmp_path, image, [polygon])
            assert len(frame) == ((lon > 178.4) & (lon < 180.7) & (abs(image.lat.values - 0.05) < 1.25)).sum()
            window = region_window(polygon, georef, LONLAT)
            assert abs(window.size.x - 23) <= 1
            assert window.left > 5
        frame = sampled(tmp_path, image, shapely.points([(-179.8, 0.5), (179.2, 0.5), (180.4, -1)]))
        assert len(frame) == 3


@pytest.mark.parametrize(
    "crs",
    [32633, 3413, 3031, "SR-ORG:6974", "+proj=moll", "+proj=tmerc +lon_0=10", 2056, 5070, "+proj=geocent"],
)
def test_x_is_not_a_longitude_in_other_projections(crs):
    assert turn_along_x(read_crs(crs)) is None


POLAR = [
    shapely.box(-180, 85, 180, 90),
    shapely.box(-180, 82, 180, 86),
    shapely.box(-60, 80, 60, 90),
    shapely.box(170, 80, 190, 88),
    shapely.box(125.5, 80, 144.5, 88),
    shapely.Polygon([(0, 80), (350, 80), (350, 85), (0, 85)]),
]


@pytest.mark.parametrize("number", range(len(POLAR)))
@pytest.mark.parametrize("odd", [0, 1])
def test_polygons_in_degrees_in_polar_rasters(tmp_path, number, odd):
    polygon = POLAR[number]
    step = 1e5 + 1 - odd
    side = (40 + odd) * step / 2
    for code, sign in ((3413, 1), (3031, -1)):
        image = image_of(
            GeoRef(pyproj.CRS(code), Affine(step, 0, -side, 0, -step, side), Size(x=40 + odd, y=40 + odd))
        )
        there = shapely.transform(polygon, lambda at, sign=sign: at * (1, sign))
        lon, lat = image.lon.values, image.lat.values
        near = shapely.buffer(there, 1e-3)
        inside, around = (
            np.any([shapely.contains_xy(shape, lon + turn, lat) for turn in (-360, 0, 360)], axis=0)
            for shape in (shapely.buffer(there, -1e-3), near)
        )
        assert inside.sum() <= len(sampled(tmp_path, image, [there])) <= around.sum()


@pytest.mark.parametrize("left", [-180, 0, 37])
def test_polygons_around_a_pole_in_rasters_in_degrees(tmp_path, left):
    image = image_of(globe(left))
    for code, sign in ((3413, 1), (3031, -1)):
        x, y = pyproj.Transformer.from_crs(4326, code, always_xy=True).transform(image.lon, image.lat)
        outer = shapely.Point(3e4, 0).buffer(1.23e6)
        for polygon in (outer, outer.difference(shapely.Point(2e4, 1e4).buffer(5.4e5))):
            inside = shapely.contains_xy(polygon, x, y) & (sign * image.lat.values > 0)
            assert abs(len(sampled(tmp_path, image, [polygon], code)) - inside.sum()) <= 2


@pytest.mark.parametrize(
    "ring",
    [
        [(150, 10), (185, 10), (190, 10)],
        [(100, 10), (200, 20), (300, 30)],
        [(-120, 60), (0, 60), (120, 60)],
        [(175, 10), (185, 10), (175, 10)],
        [(150, 10), (190, -10), (190, 10), (150, -10)],
    ],
)
@pytest.mark.parametrize("code", [4326, 3857, 54009, 3413])
def test_degenerate_polygons_give_a_xee_tf_error_or_a_result(tmp_path, ring, code):
    crs = pyproj.CRS("+proj=moll" if code == 54009 else code)
    georef = (
        globe(-180) if code == 4326 else GeoRef(crs, Affine(4e5, 0, -2e7, 0, -4e5, 1e7), Size(x=100, y=50))
    )
    polygon = shapely.Polygon(ring)
    with suppress(OptionError):
        region_window(polygon, georef)
    image = write_georef(xr.Dataset({"b": (("y", "x"), np.zeros(georef.shape.shape))}), georef)
    where = gpd.GeoDataFrame({"i": [0]}, geometry=[polygon], crs=4326)
    for all_touched in (False, True):
        with suppress(OptionError):
            image.tfexport.table(where, tmp_path / "t", if_exists="overwrite", all_touched=all_touched)


def test_a_vertex_that_is_not_a_number_raises(tmp_path):
    corners = np.array([[10.0, 10.0], [20.0, np.nan], [20.0, 20.0]])
    with np.errstate(invalid="ignore"):
        polygons = [shapely.box(0, 0, 5, 5), shapely.Polygon(corners)]
    with pytest.raises(OptionError, match=r"Row 1 has a coordinate that is not a finite number"):
        sampled(tmp_path, image_of(globe(-180)), polygons)


@pytest.mark.parametrize("left", [-360, 180, 540])
def test_polygons_two_turns_away(tmp_path, left):
    frame = sampled(tmp_path, image_of(globe(left)), [shapely.box(350, -2, 370, 2)])
    assert len(frame) == 80


def test_sampling_a_raster_of_three_quarters_of_the_globe(tmp_path):
    georef = GeoRef(LONLAT, Affine(10, 0, -150, 0, -10, 60), Size(x=30, y=12))
    result = xee_tf.sample_table(image_of(georef), None, tmp_path / "t", n=360)
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
    with pytest.raises(OptionError, match=r"Row 0 has a point at \(500000, 10\), which is not in degrees"):
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
    # Nearest-neighbour resampling twice: at most one pixel off, on the ground.
    geod = pyproj.Geod(ellps="WGS84")
    _, _, off = geod.inv(found.lon, found.lat, found.lon_2, found.lat_2)
    assert off.max() < 1.6 * metres


@pytest.mark.parametrize("crs", ["SR-ORG:6974", "+proj=moll", "+proj=eqearth +lon_0=30", "+proj=robin"])
@pytest.mark.parametrize(("left", "width"), [(0, 360), (-180, 360), (100, 160), (-260, 170)])
@pytest.mark.parametrize("chunk", [None, 40])
def test_images_across_the_edge_of_a_projection_keep_their_pixels(crs, left, width, chunk):
    georef = GeoRef(LONLAT, Affine(2, 0, left, 0, -2, 60), Size(x=width // 2, y=60))
    found = predicted(georef, (crs, 1e5), chunk)
    known = np.isfinite(found.lon_2.values)
    assert known[1:-1, 1:-1].mean() > 0.995
    _, _, off = pyproj.Geod(ellps="WGS84").inv(found.lon, found.lat, found.lon_2, found.lat_2)
    assert off[known].max() < 1.6 * 222_000


@pytest.mark.parametrize("left", [0.5, 180, 195, 250, 300, -199])
@pytest.mark.parametrize("code", [4326, 3857, 4258])
def test_grads_to_other_units_and_back(left, code):
    georef = GeoRef(pyproj.CRS(4807), Affine(0.05, 0, left, 0, -0.05, 50), Size(x=30, y=20))
    assert np.isfinite(predicted(georef, (f"EPSG:{code}", 3000)).lon_2.values).all()


def test_an_image_that_would_be_split_raises():
    utm = GeoRef(pyproj.CRS(32660), Affine(3000, 0, 700_000, 0, -3000, 1e6), Size(x=200, y=100))
    lonlat = GeoRef(LONLAT, Affine(0.1, 0, 170, 0, -0.1, 30), Size(x=200, y=100))
    for georef, projection in [
        (utm, ("EPSG:3857", 3000)),
        (lonlat, ("EPSG:3857", 1e4)),
        (lonlat, ("SR-ORG:6974", 1e4)),
    ]:
        with pytest.raises(
            GeoreferenceError,
            match=r"180 degrees.*200 x 100 pixels.*spans [\d,]+ x 1\d\d pixels of .*, \d\d times",
        ):
            to_projection(image_of(georef), georef, Projection.of(projection), "nearest")


def test_an_image_beyond_the_range_of_a_projection_raises():
    disk = pyproj.CRS("+proj=geos +h=35785831 +lon_0=0")
    full = GeoRef(disk, Affine(1e5, 0, -5.5e6, 0, -1e5, 5.5e6), Size(x=110, y=110))
    image = write_georef(xr.Dataset({"b": (("y", "x"), np.zeros((110, 110)))}), full)
    with pytest.raises(
        GeoreferenceError,
        match=r"partly outside.* \d+ of 404 points .*\(-5500000, 5500000\)",
    ):
        to_projection(image, full, Projection.of(("EPSG:4326", 1e5)), "nearest")


@examples(15)
@given(st.integers(-175, 175), st.integers(-60, 60), st.sampled_from([0, 360, -360]), st.integers(4, 40))
def test_resampling_at_any_location_on_the_globe(lon, lat, turn, chunk):
    """Bilinear resampling of longitude and latitude preserves them."""
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
