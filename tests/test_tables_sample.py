"""Compare samples of rasters with rasterio and numpy."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize

from tests.optional import optional
from tests.rasters import CRS, random_band, raster
from tests.strategies import chunkings, examples
from xee_tf.errors import DestinationError, GeoreferenceError, OptionError
from xee_tf.tables.read import open_table
from xee_tf.tables.sample import sample_table

gpd = optional("geopandas")

LANDSAT = [f"B{number}" for number in (1, 2, 3, 4, 5, 7)]
AFFINE = Affine(30, 0, 700_000, 0, -30, 5_000_000)  # as in tests.rasters.raster


def sampled(path, image, where, **options):
    return open_table(sample_table(image, where, path, **options).path)


def points(xy, crs=CRS, **columns):
    xy = np.asarray(xy, float)
    return gpd.GeoDataFrame(columns, geometry=gpd.points_from_xy(xy[:, 0], xy[:, 1]), crs=crs)


def centres(rows, columns):
    return np.column_stack(AFFINE @ (np.asarray(columns) + 0.5, np.asarray(rows) + 0.5))


# -- The Landsat scene -------------------------------------------------------------------------------


def read_bands(landsat_dir):
    bands = {}
    for name in LANDSAT:
        with rasterio.open(landsat_dir / f"lsat7_2000_{name[1]}0.tif") as source:
            bands[name] = source.read(1, masked=True).astype("f4").filled(np.nan)
    return bands, source.transform, source.crs


def test_points_of_the_landsat_scene(landsat, landsat_dir, tmp_path):
    bands, transform, crs = read_bands(landsat_dir)
    sites = gpd.read_file(landsat_dir / "landsat96_points.shp")[["id", "label", "geometry"]]
    with pytest.warns(UserWarning, match="115 of 1000 points are outside the raster"):
        found = sampled(tmp_path / "points", landsat, sites)

    moved = sites.to_crs(crs).geometry
    columns, rows = np.floor(~transform @ (moved.x.to_numpy(), moved.y.to_numpy())).astype(int)
    inside = (rows >= 0) & (rows < 443) & (columns >= 0) & (columns < 489)
    expected = {
        name: np.where(inside, band[rows.clip(0, 442), columns.clip(0, 488)], np.nan)
        for name, band in bands.items()
    }
    valid = ~np.isnan(list(expected.values())).any(axis=0)
    assert len(found) == valid.sum() > 500
    for name in LANDSAT:
        np.testing.assert_array_equal(found[name], expected[name][valid])
    assert found["label"].tolist() == sites["label"][valid].tolist()
    np.testing.assert_array_equal(found["id"], sites["id"][valid])
    place = gpd.GeoSeries(gpd.points_from_xy(found.longitude, found.latitude), crs=4326).to_crs(crs)
    assert place.distance(moved[valid].reset_index(drop=True)).max() < 28.5 * 0.8  # from the pixel centre


def test_polygons_of_the_landsat_scene(landsat, landsat_dir, tmp_path):
    bands, transform, crs = read_bands(landsat_dir)
    fields = gpd.read_file(landsat_dir / "landsat96_polygons.shp")
    with pytest.warns(UserWarning, match="1 of .* polygons is outside the raster.*first one is row 26"):
        found = sampled(tmp_path / "fields", landsat, fields, geometry=None)
    fields = fields.drop(index=26)

    expected = []
    for field in fields.to_crs(crs).itertuples():
        inside = rasterize([field.geometry], (443, 489), transform=transform).astype(bool)
        values = np.column_stack([band[inside] for band in bands.values()])
        values = values[~np.isnan(values).any(axis=1)]
        expected += [(*row, field.label, field.id) for row in values.tolist()]
    assert len(expected) > 1000
    assert list(found.itertuples(index=False, name=None)) == expected


@pytest.mark.filterwarnings("ignore:Classes have fewer pixels than n asks for")
def test_stratified_samples_of_the_landsat_scene(landsat, landsat_dir, tmp_path):
    fields = gpd.read_file(landsat_dir / "landsat96_polygons.shp").drop(index=26)
    everything = sampled(tmp_path / "all", landsat, fields)
    some = sampled(tmp_path / "some", landsat, fields, n=20, class_band="label")
    counts = everything["label"].value_counts()
    assert some["label"].value_counts().to_dict() == counts.clip(upper=20).to_dict()
    assert len(some.merge(everything, how="inner").drop_duplicates()) == len(some)
    chosen = sampled(tmp_path / "c", landsat, fields, n={"water": 7, "forest": 3}, class_band="label")
    assert chosen["label"].value_counts().to_dict() == {"water": 7, "forest": 3}
    again = sampled(tmp_path / "again", landsat.chunk(x=90, y=200), fields, n=20, class_band="label")
    pd.testing.assert_frame_equal(again, some)
    other = sampled(tmp_path / "other", landsat, fields, n=20, class_band="label", seed=1)
    assert not other.equals(some)


# -- Any chunking ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*(n asks for|were asked for)")
@examples(40)
@given(st.data())
def test_any_chunking_gives_the_same_rows(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("sample")
    shape = 23, 31
    arrays = {"a": random_band(shape, "float32", 1), "b": random_band(shape, "uint8", 2)}
    arrays["a"][random_band(shape, "i4", 3) < 12] = np.nan
    series = np.stack([random_band(shape, "int16", seed) for seed in (4, 5, 6)])
    ds = raster(arrays).assign(series=(("time", "y", "x"), series))
    chunked = ds.copy()
    for name in ds:
        y, x = data.draw(chunkings(shape[0])), data.draw(chunkings(shape[1]))
        chunks = (2, y, x) if name == "series" else (y, x)
        chunked[name] = ds[name].copy(data=da.from_array(ds[name].data, chunks=chunks))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kind = data.draw(st.sampled_from(["points", "polygons", "everywhere"]))
    if kind == "points":
        rows, columns = rng.integers(0, 23, 40), rng.integers(0, 31, 40)
        where = points(centres(rows, columns) + rng.uniform(-14, 14, (40, 2)), number=np.arange(40))
        pixels = [
            (number, row, column) for number, (row, column) in enumerate(zip(rows, columns, strict=True))
        ]
    elif kind == "polygons":
        xy = centres(rng.integers(0, 23, 3), rng.integers(0, 31, 3)) + 3.0
        circles = shapely.buffer(shapely.points(xy), rng.uniform(40, 200, 3))
        where = gpd.GeoDataFrame({"number": range(3)}, geometry=circles, crs=CRS)
        pixels = [
            (number, int(row), int(column))
            for number, circle in enumerate(circles)
            for row, column in np.argwhere(rasterize([circle], shape, transform=AFFINE))
        ]
    else:
        where = None
        pixels = [(0, row, column) for row in range(23) for column in range(31)]
    drop = data.draw(st.booleans())
    n = data.draw(st.none() | st.integers(1, 4))
    options = {"drop_nulls": drop, "n": n, "class_band": "b" if n else None, "geometry": None}

    found = sampled(folder / "chunked", chunked, where, **options)

    valid = [p for p in pixels if not (drop and np.isnan(arrays["a"][p[1:]]))]
    if n:
        whole = sampled(folder / "whole", ds, where, **options)
        pd.testing.assert_frame_equal(found, whole)
        counts = pd.Series([arrays["b"][p[1:]] for p in valid]).value_counts()
        assert found["b"].value_counts().to_dict() == counts.clip(upper=n).to_dict()
    else:
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], [array[p[1:]] for p in valid])
        np.testing.assert_array_equal(np.stack(found["series"]), [series[:, p[1], p[2]] for p in valid])
        if where is not None:
            np.testing.assert_array_equal(found["number"], [p[0] for p in valid])


def test_required_chunks_are_loaded_once_and_others_not_at_all(tmp_path):
    seen = []

    def load(block, block_info=None):
        seen.append(block_info[0]["chunk-location"])
        return block

    scene = da.zeros((2, 400, 400), chunks=(2, 100, 100)).map_blocks(load, meta=np.empty((0, 0, 0)))
    ds = raster({"a": np.zeros((400, 400))}).drop_vars("a")
    ds = ds.assign({name: (("y", "x"), scene[band]) for band, name in enumerate("ab")})
    where = points(centres([5, 7, 250, 251, 399], [5, 6, 130, 131, 399]))
    delayed = sample_table(ds, where, tmp_path / "t", compute=False)
    assert not seen
    assert not list(tmp_path.iterdir())
    delayed.compute(scheduler="threads")
    assert sorted(seen) == [(0, 0, 0), (0, 2, 1), (0, 3, 3)]

    seen.clear()
    box = gpd.GeoSeries([shapely.box(700_000, 4_997_000, 706_000, 5_000_000)], crs=CRS)
    assert len(sampled(tmp_path / "box", ds, box)) == 100 * 200
    assert sorted(seen) == [(0, 0, 0), (0, 0, 1)]


def test_a_random_sample_is_uniform(tmp_path):
    ds = raster({"a": np.arange(10_000.0).reshape(100, 100)})
    found = sampled(tmp_path / "t", ds, None, n=1000)
    assert len(set(found["a"])) == 1000
    quarters = np.histogram(found["a"], bins=4, range=(0, 10_000))[0]
    assert quarters.min() > 200  # expected: 250, with a standard deviation of 14


def test_bands_with_several_additional_dimensions(tmp_path):
    values = np.random.default_rng(0).random((3, 20, 2, 20, 1)).astype("f4")
    dims = ("time", "y", "level", "x", "one")
    ds = raster({"a": values[0, :, 0, :, 0]}).assign(cube=(dims, values))
    where = points(centres([2, 19], [3, 0]))
    for number, image in enumerate((ds, ds.chunk(time=2, level=1, x=7, y=9))):
        path = sample_table(image, where, tmp_path / str(number), geometry=None).path
        found = open_table(path, shapes={"cube": (3, 2)})
        np.testing.assert_array_equal(np.stack(found["cube"]), values[:, [2, 19], :, [3, 0], 0])


def test_coordinates_are_pixel_centres(tmp_path):
    ds = raster({"a": np.zeros((10, 10))})
    found = sampled(tmp_path / "t", ds, points(centres([2, 9], [3, 0]) + 10))
    expected = gpd.GeoSeries(gpd.points_from_xy(*centres([2, 9], [3, 0]).T), crs=CRS).to_crs(4326)
    np.testing.assert_allclose(found.longitude, expected.x, atol=1e-6)
    np.testing.assert_allclose(found.latitude, expected.y, atol=1e-6)


SCENE = raster({"a": np.zeros((10, 10)), "b": np.full((10, 10), np.nan)})
SITE = points(centres([2, 3], [3, 4]), label=["x", "y"])
FIELD = SITE.set_geometry(SITE.buffer(40))

INVALID = {
    "no geometry": (SITE.set_geometry([SITE.geometry[0], None]), {}, "Row 1 has no geometry"),
    "nowhere": (SITE[:0], {}, "no points or polygons"),
    "lines": (SITE.set_geometry(SITE.boundary.buffer(1).boundary), {}, "Row 0 has no geometry"),
    "a line": (SITE.set_geometry(SITE.buffer(9).boundary), {}, "row 0 is a LineString"),
    "a point among polygons": (
        FIELD.set_geometry([FIELD.geometry[0], SITE.geometry[1]]),
        {},
        "all points or all polygons; row 1 is a Point",
    ),
    "a polygon outside": (
        FIELD[:1].set_geometry([shapely.box(0, 0, 1, 1)], crs=CRS),
        {},
        r"The polygon is outside the raster: it covers \(0.0, 0.0, 1.0, 1.0\).*covers \(700000",
    ),
    "all polygons outside": (
        FIELD.set_geometry([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)], crs=CRS),
        {},
        "All 2 polygons are outside the raster: row 0 covers",
    ),
    "all points outside": (
        points([[0, 1]]),
        {},
        r"The point is outside the raster: it is at \(0.0, 1.0\), the raster covers .*, right, top\)\.$",
    ),
    "x and y swapped": (
        points([[0, 0], [4_999_900, 700_100]]),
        {},
        r"All 2 points are outside the raster: row 0 is at .* Are x and y swapped\? x, or the longitude, is",
    ),
    "two points outside": (points([[0, 0], [1, 1]]), {}, "All 2 points are outside the raster"),
    "a frame": (
        pd.DataFrame({"x": [1]}),
        {},
        r"GeoDataFrame or GeoSeries of .*; got DataFrame\. Make points .* geopandas.GeoDataFrame\(table, ",
    ),
    "unknown property": (SITE, {"properties": ["id"]}, r"\['id'\] not found; available: \['label'\]"),
    "unknown column": (SITE, {"columns": ["a", "id"]}, r"'id'.*'a', 'b', 'label', 'longitude'"),
    "a property like a band": (SITE.rename(columns={"label": "a"}), {}, r"unique, but \['a'\] appear"),
    "dates": (SITE.assign(label=pd.Timestamp("2020")), {}, "'label' holds datetime"),
    "unknown class": (SITE, {"n": 1, "class_band": "c"}, r"'c' not found; available bands: \['a', 'b'\]"),
    "class without n": (SITE, {"class_band": "a"}, "requires n="),
    "n": (SITE, {"n": 1.5}, "n must be a whole number"),
    "n of classes": (SITE, {"n": {1: 5}}, "class_band="),
    "no such class": (SITE, {"n": {"z": 5}, "class_band": "label"}, r"\['z'\] occurs"),
    "seed": (SITE, {"n": 1, "seed": "x"}, "seed must be"),
    "geometry": (SITE, {"geometry": "wkt"}, "'lonlat' or None"),
    "a path": ("sites.gpkg", {}, r"got str\. Open the file first: geopandas.read_file\('sites.gpkg'\)"),
    "a number": (2.5, {}, "where must be .*; got float"),
    "properties": (SITE, {"properties": 3}, r"properties must be a list of names, .*; got 3"),
    "columns": (SITE, {"columns": 1.5}, r"columns must be a list of names, .*; got 1\.5"),
    "classes": (SITE, {"n": 2, "class_band": ["a"]}, r"class_band must be the name .*; got \['a'\]"),
    "none": (SITE, {"n": 0}, "n=0 selects no pixels"),
    "none of a class": (SITE, {"n": {"x": 0}, "class_band": "label"}, r"n=\{'x': 0\} selects no pixels"),
    "bands": (SITE, {"bands": ["a"]}, "- bands: select the bands"),
    "all masked": (SITE, {}, r"no pixels to write \(2 masked pixels dropped\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_invalid_features_and_options_raise(tmp_path, case):
    where, options, message = INVALID[case]
    with pytest.raises(OptionError, match=f"(?s){message}"):
        sample_table(SCENE, where, tmp_path / "t", **options)
    assert not list(tmp_path.iterdir())


def test_points_without_a_crs_raise(tmp_path):
    with pytest.raises(GeoreferenceError, match="points or polygons have no CRS"):
        sample_table(SCENE, points([[0, 0]], crs=None), tmp_path / "t")


def test_a_band_of_times_raises(tmp_path):
    times = xr.full_like(SCENE[["a"]], 0).astype("datetime64[ns]")
    with pytest.raises(OptionError, match="Band 'a' has dtype datetime64"):
        sample_table(times, SITE, tmp_path / "t")


def test_polygons_outside_the_raster_and_without_pixels(tmp_path):
    tiny = SITE.geometry[0].buffer(1e-3)
    fields = FIELD.set_geometry([tiny, shapely.box(2, 2, 3, 3)], crs=CRS).translate(7)
    with (
        pytest.warns(UserWarning, match="1 of 2 polygons is outside the raster.*first one is row 1"),
        pytest.raises(OptionError, match=r"the 1 of 2 polygons that overlaps .* covers no pixel center"),
    ):
        sample_table(SCENE, fields, tmp_path / "t")


def test_classes_without_pixels_are_listed_beside_those_found(tmp_path):
    classes = np.repeat(np.array([[3], [4]], "uint8"), 6, axis=1)
    image = raster({"kind": classes}).chunk(x=2)
    with pytest.raises(OptionError, match=r"selects the classes 8, 9, but .* have the classes 3, 4 in"):
        sample_table(image, None, tmp_path / "t", n={8: 2, 9: 1, 3: 0}, class_band="kind")
    assert not list(tmp_path.iterdir())
    with pytest.warns(UserWarning, match=r"9 \(0 of 2\)"):
        found = sampled(tmp_path / "t", image, None, n={9: 2, 4: 1}, class_band="kind")
    assert found.kind.tolist() == [4]


@pytest.mark.parametrize("name", ["sites.csv", "sites.GeoJSON", "sites.parquet"])
def test_file_names_of_other_formats_are_not_prefixes(tmp_path, name):
    with pytest.raises(DestinationError, match=r"is not a prefix: .* Use '.*sites'\.$"):
        sample_table(SCENE, SITE, tmp_path / name)
    assert not list(tmp_path.iterdir())
