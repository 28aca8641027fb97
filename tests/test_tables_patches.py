"""Compare patches around points with padding and slicing in numpy."""

from collections import Counter

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import shapely
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize

from tests.optional import optional
from tests.rasters import CRS, random_band, raster
from tests.strategies import chunkings, examples
from tests.test_tables_sample import AFFINE, SCENE, SITE, centres, points
from xee_tf.errors import OptionError
from xee_tf.storage import Location
from xee_tf.tables import patches as module
from xee_tf.tables.read import open_table
from xee_tf.tables.sample import sample_table

gpd = optional("geopandas")


def cut(band, row, column, size, default):
    """Return the patch around a pixel, with the index (n - 1) // 2 on each axis."""
    (width, height), planes = size, band if band.ndim == 3 else band[None]
    planes = planes.astype("f4")
    planes[np.isnan(planes)] = default
    padded = np.pad(planes, ((0, 0), (height,) * 2, (width,) * 2), constant_values=default)
    top, left = row - (height - 1) // 2 + height, column - (width - 1) // 2 + width
    patch = padded[:, top : top + height, left : left + width]
    return patch if band.ndim == 3 else patch[0]


def assert_patches(found, bands, pixels, size, default=0.0):
    assert len(found) == len(pixels)
    for name, band in bands.items():
        expected = [cut(band, row, column, size, default) for row, column in pixels]
        np.testing.assert_array_equal(np.stack(found[name]), expected)


def scene(shape, seed=0):
    """Return a Dataset of bands of several dtypes, some of them masked, and the same bands with NaN."""
    bands = {
        "a": random_band(shape, "float32", seed),
        "b": random_band(shape, "uint8", seed + 1),
        "c": random_band(shape, "float64", seed + 2),
    }
    bands["a"][random_band(shape, "i4", seed + 3) < 12] = np.nan
    ds = raster(bands)
    series = np.stack([random_band(shape, "int16", seed + step) for step in (4, 5, 6)])
    ds = ds.assign(series=(("time", "y", "x"), series))
    ds["b"].attrs["_FillValue"] = 7
    return ds, bands | {"b": np.where(bands["b"] == 7, np.nan, bands["b"]), "series": series}


def chunked(ds, chunks_of):
    result = ds.copy()
    for name in ds:
        chunks = (*([2] if ds[name].ndim == 3 else []), *chunks_of(name))
        result[name] = ds[name].copy(data=da.from_array(ds[name].data, chunks=chunks))
    return result


@examples(40)
@given(st.data())
def test_any_size_and_chunking(tmp_path_factory, data):
    shape = data.draw(st.tuples(st.integers(2, 25), st.integers(2, 31)))
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)) | st.just((40, 3)))
    ds, bands = scene(shape, data.draw(st.integers(0, 9)))
    image = chunked(ds, lambda name: [data.draw(chunkings(length)) for length in shape])
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kind = data.draw(st.sampled_from(["points", "corners", "polygons"]))
    if kind == "polygons":
        xy = centres(rng.integers(0, shape[0], 3), rng.integers(0, shape[1], 3)) + 3.0
        where = gpd.GeoDataFrame(
            {"number": range(3)}, geometry=shapely.buffer(shapely.points(xy), 60), crs=CRS
        )
        pixels = [
            (number, int(row), int(column))
            for number, circle in enumerate(where.geometry)
            for row, column in np.argwhere(rasterize([circle], shape, transform=AFFINE))
        ]
    else:
        rows, columns = (rng.integers(0, length, 20) for length in shape)
        if kind == "corners":
            rows, columns = [0, 0, shape[0] - 1, shape[0] - 1], [0, shape[1] - 1] * 2
        where = points(centres(rows, columns), number=np.arange(len(rows)))
        pixels = list(zip(range(len(rows)), map(int, rows), map(int, columns), strict=True))
    drop = data.draw(st.booleans())
    default = data.draw(st.sampled_from([0.0, -9999.5]))
    valid = [
        pixel for pixel in pixels if not (drop and any(np.isnan(bands[name][pixel[1:]]) for name in "ab"))
    ]
    folder = tmp_path_factory.mktemp("patches")
    options = {"patch_dimensions": size, "default_value": default, "drop_nulls": drop}
    if not valid:
        with pytest.raises(OptionError, match="There are no pixels to write"):
            sample_table(image, where, folder / "t", **options)
        return
    groups = data.draw(st.sampled_from([(1 << 24, 1 << 26), (4000, 1 << 26), (4000, 0)]))
    with pytest.MonkeyPatch.context() as patch:  # several row groups, in memory or in a file
        patch.setattr(module, "_GROUP_BYTES", groups[0])
        patch.setattr(module, "_HELD_BYTES", groups[1])
        result = sample_table(image, where, folder / "t", **options)
    found = open_table(result)
    assert_patches(found, bands, [pixel[1:] for pixel in valid], size, default)
    assert found["number"].tolist() == [pixel[0] for pixel in valid]
    assert result.dropped == len(pixels) - len(valid)
    assert result.shapes["series"] == (3, size[1], size[0])
    assert [path.name for path in sorted(folder.iterdir())] == ["t-table.tfexport", "t.tfrecord.gz"]


SHAPE = 60, 70
ROWS, COLUMNS = (np.random.default_rng(5).integers(0, length, 300) for length in SHAPE)
PLACES = points(centres(ROWS, COLUMNS), name=[f"site {number}" for number in range(300)])


@pytest.mark.parametrize("compute", [True, False])
@pytest.mark.parametrize("store", ["disk", "memory"])
def test_a_table_that_does_not_fit_in_memory(tmp_path, monkeypatch, store, compute):
    monkeypatch.setattr(module, "_GROUP_BYTES", 20_000)
    monkeypatch.setattr(module, "_HELD_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    ds, bands = scene(SHAPE)
    image = chunked(ds, lambda name: (17, 20))
    destination = tmp_path / "t" if store == "disk" else f"memory://patches-{compute}/t"
    options = {"patch_dimensions": (6, 9), "drop_nulls": False}
    result = sample_table(image, PLACES, destination, compute=compute, **options)
    if not compute:
        assert not list((tmp_path / "temporary").iterdir())
        result = result.compute()
    found = open_table(result)
    assert_patches(found, bands, list(zip(ROWS, COLUMNS, strict=True)), (6, 9))
    assert found["name"].tolist() == PLACES["name"].tolist()
    assert not list((tmp_path / "temporary").iterdir())
    whole = sample_table(ds, PLACES, tmp_path / "whole", **options)
    assert Location.of(result.path).read_bytes() == Location.of(whole.path).read_bytes()


def test_a_block_without_valid_pixels_and_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_HELD_BYTES", 0)
    values = np.arange(64.0).reshape(8, 8)
    values[:4] = np.nan
    where = points(centres([1, 6, 2], [1, 5, 7]))
    result = sample_table(raster({"a": values}).chunk(x=4, y=4), where, tmp_path / "t", patch_dimensions=3)
    assert result.dropped == 2
    assert_patches(open_table(result), {"a": values}, [(6, 5)], (3, 3))


def test_workers_exchange_rows_if_there_is_no_common_disk(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_BYTES", 20_000)
    monkeypatch.setattr(module, "_HELD_BYTES", 0)
    monkeypatch.setattr(module, "_EXCHANGED", 5)
    ds, bands = scene(SHAPE)
    image = chunked(ds, lambda name: (17, 20))
    options = {"patch_dimensions": 5, "drop_nulls": False}
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        for destination, storage_options in ((f"{bucket.url}/t", bucket.options), (tmp_path / "t", None)):
            result = sample_table(image, PLACES, destination, storage_options=storage_options, **options)
            found = open_table(result.path, storage_options=storage_options)
            assert_patches(found, bands, list(zip(ROWS, COLUMNS, strict=True)), (5, 5))
            assert found["name"].tolist() == PLACES["name"].tolist()


def test_patches_are_uploaded_in_parts(bucket, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_BYTES", 20_000)
    monkeypatch.setattr(module, "_HELD_BYTES", 0)
    ds, bands = scene(SHAPE)
    image = chunked(ds, lambda name: (17, 20))
    destination = {"destination": f"{bucket.url}/t", "storage_options": bucket.options}
    sample_table(image, PLACES, **destination, patch_dimensions=(4, 5), drop_nulls=False)
    found = open_table(f"{bucket.url}/t", storage_options=bucket.options)
    assert_patches(found, bands, list(zip(ROWS, COLUMNS, strict=True)), (4, 5))


def test_only_the_required_chunks_are_loaded_and_each_once(tmp_path):
    seen = Counter()

    def load(block, block_info=None):
        seen[block_info[0]["chunk-location"]] += 1
        return block

    values = np.random.default_rng(0).random((400, 500))
    ds = raster({"a": values})
    ds["a"] = ds["a"].copy(data=da.from_array(values, chunks=100).map_blocks(load, meta=np.empty((0, 0))))
    # A pixel inside of a chunk, one on each side of an edge, one near a corner, one in that of the image.
    rows, columns = [150, 150, 150, 197, 399], [150, 199, 200, 302, 499]
    delayed = sample_table(
        ds, points(centres(rows, columns)), tmp_path / "t", patch_dimensions=(8, 7), compute=False
    )
    assert not seen
    delayed.compute()
    expected = {
        (row // 100, column // 100)
        for y, x in zip(rows, columns, strict=True)
        for row in range(max(0, y - 3), min(400, y + 4))
        for column in range(max(0, x - 3), min(500, x + 5))
    }
    assert expected == {(1, 1), (1, 2), (1, 3), (2, 3), (3, 4), (2, 2), (1, 2)}
    assert seen == dict.fromkeys(expected, 1)
    assert_patches(open_table(tmp_path / "t"), {"a": values}, list(zip(rows, columns, strict=True)), (8, 7))


def test_the_graph_grows_with_the_chunks_of_the_points_only(tmp_path):
    def tasks(pixels, side):
        ds = raster({"a": np.zeros((1, 1))}).drop_vars("a").isel(x=0, y=0, drop=True)
        y, x = 5e6 - 30 * (np.arange(10_000) + 0.5), 7e5 + 30 * (np.arange(10_000) + 0.5)
        ds = ds.assign(a=(("y", "x"), da.zeros((10_000, 10_000), chunks=side))).assign_coords(y=y, x=x)
        where = points(centres(*np.asarray(pixels).T))
        delayed = sample_table(ds, where, tmp_path / "t", patch_dimensions=9, compute=False)
        return len(dict(delayed.__dask_graph__()))

    one = tasks([(50, 50)], 100)
    assert one < 15
    assert tasks([(50, column) for column in range(20, 80)], 100) == one
    assert tasks([(50, 50)], 50) < 25
    assert tasks([(100 * step + 50,) * 2 for step in range(100)], 100) < 500


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("by", ["b", "kind", None])
def test_a_number_of_pixels_per_class(tmp_path, drop, by):
    ds, bands = scene(SHAPE)
    circles = shapely.buffer(shapely.points(centres([10, 30, 40], [10, 60, 30])), [300, 500, 400])
    where = gpd.GeoDataFrame({"kind": ["oak", "fir", "oak"]}, geometry=circles, crs=CRS)
    options = {"n": 3, "class_band": by, "seed": 4, "drop_nulls": drop}
    plain = sample_table(ds[["a", "b", "c"]], where, tmp_path / "plain", **options)
    sites = open_table(plain)
    for number, image in enumerate((ds, chunked(ds, lambda name: (11, 13 if name == "b" else 20)))):
        image = image[["a", "b", "c"]]
        result = sample_table(image, where, tmp_path / str(number), patch_dimensions=(3, 4), **options)
        found = open_table(result)
        assert result.dropped == plain.dropped
        pd.testing.assert_frame_equal(
            found[["kind", "longitude", "latitude"]], sites[["kind", "longitude", "latitude"]]
        )
        xy = gpd.GeoSeries.from_xy(found.longitude, found.latitude, crs=4326).to_crs(CRS)
        columns, rows = np.floor(~AFFINE @ (xy.x.to_numpy(), xy.y.to_numpy())).astype(int)
        pixels = list(zip(rows, columns, strict=True))
        assert_patches(found, {name: bands[name] for name in "abc"}, pixels, (3, 4))


def test_all_pixels_of_the_raster(tmp_path):
    ds, bands = scene((6, 5))
    result = sample_table(ds, None, tmp_path / "t", patch_dimensions=2, drop_nulls=False, geometry=None)
    assert_patches(
        open_table(result), bands, [(row, column) for row in range(6) for column in range(5)], (2, 2)
    )


def test_a_selection_of_columns(tmp_path):
    ds, bands = scene((9, 9))
    where = points(centres([2, 8], [3, 0]), number=[5, 6])
    options = {"patch_dimensions": 3, "drop_nulls": False}
    found = open_table(sample_table(ds, where, tmp_path / "t", columns=["number", "c"], **options))
    assert list(found) == ["number", "c"]
    assert_patches(found, {"c": bands["c"]}, [(2, 3), (8, 0)], (3, 3))
    found = open_table(sample_table(ds, where, tmp_path / "n", columns=["number"], **options))
    assert found["number"].tolist() == [5, 6]
    # A band that is not written still decides which pixels are masked.
    masked = ds.assign(d=ds["c"].where(ds["c"] != ds["c"][8, 0]))
    found = open_table(
        sample_table(masked[["d", "c"]], where, tmp_path / "d", patch_dimensions=3, columns=["c"])
    )
    assert_patches(found, {"c": bands["c"]}, [(2, 3)], (3, 3))


def test_default_values_beyond_float32_are_clamped(tmp_path):
    ds, bands = scene((9, 9))
    where = points(centres([0], [8]))
    result = sample_table(
        ds, where, tmp_path / "t", patch_dimensions=5, default_value=-1e300, drop_nulls=False
    )
    assert_patches(open_table(result), bands, [(0, 8)], (5, 5), np.finfo("f4").min)


def test_patches_of_nan(tmp_path):
    ds, bands = scene((9, 9))
    where = points(centres([0], [8]))
    result = sample_table(
        ds, where, tmp_path / "t", patch_dimensions=5, default_value=np.nan, drop_nulls=False
    )
    assert_patches(open_table(result), bands, [(0, 8)], (5, 5), np.nan)


def test_points_outside_the_raster_are_omitted(tmp_path):
    ds, bands = scene((9, 9))
    where = points(centres([2, -1, 8], [3, 4, 0]), number=[5, 6, 7])
    with pytest.warns(UserWarning, match="1 of 3 points is outside the raster and is omitted"):
        result = sample_table(ds, where, tmp_path / "t", patch_dimensions=3, drop_nulls=False)
    found = open_table(result)
    assert found["number"].tolist() == [5, 7]
    assert_patches(found, bands, [(2, 3), (8, 0)], (3, 3))


def test_resuming_returns_a_complete_table(tmp_path):
    ds, _ = scene((9, 9))
    where = points(centres([2, 8], [3, 0]))
    options = {"patch_dimensions": 3, "if_exists": "resume", "drop_nulls": False}
    first = sample_table(ds, where, tmp_path / "t", **options)
    assert not first.resumed
    assert sample_table(ds, where, tmp_path / "t", **options).resumed
    for change in ({"patch_dimensions": 5}, {"default_value": 1}):
        with pytest.raises(Exception, match=f"option {next(iter(change))}"):
            sample_table(ds, where, tmp_path / "t", **(options | change))


INVALID = {
    "zero": ({"patch_dimensions": 0}, "patch_dimensions must be at least 1 pixel"),
    "negative": ({"patch_dimensions": (3, -2)}, r"at least 1 pixel on each side; got \(3, -2\)"),
    "three sides": ({"patch_dimensions": (3, 3, 3)}, r"a pair of integers \(width, height\)"),
    "a fraction": ({"patch_dimensions": 2.5}, "must be an integer or a pair"),
    "default": ({"patch_dimensions": 3, "default_value": "x"}, "default_value must be a number"),
    "default only": ({"default_value": -1}, "default_value=-1 is written in patches only: pass patch_dim"),
    "kernel": ({"kernelSize": 33}, r"kernelSize: pass patch_dimensions=\(33, 33\)"),
    "sequences": ({"patch_dimensions": 3, "sequence_data": True}, "sequence_data: "),
    "all masked": ({"patch_dimensions": 3}, r"no pixels to write \(2 masked pixels dropped\)"),
    "all masked, with n": (
        {"patch_dimensions": 3, "n": 1},
        r"no pixels to write \(2 masked pixels dropped\)",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_options_raise(tmp_path, case):
    options, message = INVALID[case]
    with pytest.raises(OptionError, match=f"(?s){message}"):
        sample_table(SCENE, SITE, tmp_path / "t", **options)
    assert not list(tmp_path.iterdir())


def test_tensorflow_reads_the_patches(tmp_path):
    tf = pytest.importorskip("tensorflow")
    from xee_tf import tf_dataset

    ds, bands = scene((40, 50))
    rows, columns = [5, 39, 20, 11], [7, 0, 49, 30]
    where = points(centres(rows, columns), label=[3, 1, 2, 0], name=["a", "b", "c", "d"])
    image = ds[["a", "c"]].chunk(x=16, y=16)
    result = sample_table(
        image, where, tmp_path / "t", patch_dimensions=(9, 8), drop_nulls=False, geometry=None
    )
    expected = {
        name: np.stack([cut(bands[name], *pixel, (9, 8), 0.0) for pixel in zip(rows, columns, strict=True)])
        for name in "ac"
    }
    spec = result.feature_spec()
    assert spec["a"].shape == [8, 9]
    records = list(tf.data.TFRecordDataset(result.path, "GZIP"))
    for number, record in enumerate(records):
        parsed = tf.io.parse_single_example(record, spec)
        np.testing.assert_array_equal(parsed["c"], expected["c"][number])
        assert parsed["label"].numpy().tolist() == [[3, 1, 2, 0][number]]
        assert parsed["name"].numpy()[0] == b"abcd"[number : number + 1]
    for source in (result, result.path):
        for options in ({"patch_dimensions": (9, 8)}, {}):  # the manifest knows the size
            dataset = tf_dataset(source, inputs=["a", "c"], targets=["label"], batch_size=3, **options)
            inputs, targets = (np.concatenate(each) for each in zip(*dataset, strict=True))
            np.testing.assert_array_equal(inputs, np.stack([expected["a"], expected["c"]], -1))
            assert targets.tolist() == [[3], [1], [2], [0]]
    assert [each.shape for each in tf_dataset(result, inputs=["label"], batch_size=3)] == [(3, 1), (1, 1)]
    # A margin is part of the patch, but not another size.
    dataset = tf_dataset(result, inputs=["a"], patch_dimensions=(5, 4), kernel_size=5, batch_size=4)
    assert next(iter(dataset)).shape == (4, 8, 9, 1)
    with pytest.raises(OptionError, match=r"patch_dimensions=\(8, 9\) is not the size .* which is 9 × 8"):
        tf_dataset(result, inputs=["a"], patch_dimensions=(8, 9))


def test_masked_pixels_of_patches_are_known(tmp_path):
    pytest.importorskip("tensorflow")
    from xee_tf import tf_dataset

    ds, bands = scene((30, 20))
    rows, columns = [2, 29, 15, 8], [19, 4, 0, 10]
    where, size = points(centres(rows, columns), label=[0, 1, 1, 0]), (5, 7)
    options = {"patch_dimensions": size, "drop_nulls": False, "default_value": -7.1}
    result = sample_table(ds[["a", "b"]].chunk(x=8, y=8), where, tmp_path / "t", **options)
    patches = {
        name: np.stack([cut(bands[name], *pixel, size, np.nan) for pixel in zip(rows, columns, strict=True)])
        for name in "ab"
    }
    data = tf_dataset(result, inputs="a", targets="b", normalize={"a": (50, 20)}, sample_weight="mask")
    [(inputs, targets, weights)] = data
    np.testing.assert_allclose(inputs[..., 0], (np.nan_to_num(patches["a"]) - 50) / 20, rtol=1e-6)
    np.testing.assert_array_equal(targets[..., 0], np.nan_to_num(patches["b"], nan=np.float32(-7.1)))
    np.testing.assert_array_equal(weights, ~np.isnan(patches["b"]))
    other = sample_table(ds[["a", "b"]], where, tmp_path / "u", patch_dimensions=(4, 5))
    with pytest.raises(OptionError, match=r"different sizes: 5 × 7 pixels .* and 4 × 5 pixels"):
        tf_dataset([result, other], inputs="a")
    assert len(list(tf_dataset([result, other], inputs="label", batch_size=1))) == 4 + other.records


@pytest.mark.parametrize(("size", "length"), [((3, 2), 6), ((3, 2), 12), ((1, 1), 1), ((1, 1), 3)])
def test_labels_as_long_as_a_patch_are_no_patches(tmp_path, size, length):
    pytest.importorskip("tensorflow")
    from xee_tf import tf_dataset

    ds, _ = scene((30, 20))
    label = np.arange(3 * length).reshape(3, length)
    where = points(centres([2, 29, 15], [19, 4, 0]), label=list(label) if length > 1 else label[:, 0])
    result = sample_table(ds[["a"]], where, tmp_path / "t", patch_dimensions=size, drop_nulls=False)
    [(images, found)] = tf_dataset(result, inputs="a", targets="label")
    assert images.shape == (3, *size[::-1], 1)
    np.testing.assert_array_equal(np.reshape(found, (3, length)), label)
    assert found.shape == ((3, 1) if length == 1 else (3, length))


def test_a_chunk_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_HELD_BYTES", 0)

    def fail(block):
        raise ValueError("broken source")

    ds = raster({"a": np.zeros((40, 40))}).chunk(x=10, y=10)
    ds["a"] = ds["a"].copy(data=ds["a"].data.map_blocks(fail, meta=np.empty((0, 0))))
    with pytest.raises(ValueError, match="broken source"):
        sample_table(ds, points(centres([5, 25], [5, 25])), tmp_path / "t", patch_dimensions=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("held", [module._HELD_BYTES, 0])
def test_rounded_integers_of_patches_give_a_warning(tmp_path, monkeypatch, held):
    """As in rows of single pixels: of wide integers, and of floats without fractions."""
    monkeypatch.setattr(module, "_HELD_BYTES", held)
    values = np.arange(90).reshape(9, 10) + 2**24
    ds = raster({"a": values.astype("int32"), "b": values % 99, "c": values + 0.5, "d": values.astype("f8")})
    ds["e"] = ds["a"].astype("int64")
    ds["e"][:, 5:] = 2**30  # exact
    where = points(centres([2, 3], [7, 8]))
    with pytest.warns(UserWarning, match="columns 'a', 'd' hold integers that float32 cannot represent"):
        result = sample_table(ds.chunk(y=4, x=5), where, tmp_path / "t", patch_dimensions=3, geometry=None)
    assert result.rounded == ("a", "d")
    assert_patches(open_table(result), {name: ds[name].values for name in "abcde"}, [(2, 7), (3, 8)], (3, 3))
    with pytest.warns(UserWarning, match="columns 'a', 'd' hold"):
        plain = sample_table(ds, where, tmp_path / "plain", geometry=None)
    assert plain.rounded == result.rounded
