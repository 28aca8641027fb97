"""Tests of opening exports of every kind as rasters, and of errors in their files."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import pickle
import shutil
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import dask
import dask.callbacks
import fsspec
import numpy as np
import pytest
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.foreign import Export, write_export
from tests.rasters import random_band, raster
from tests.strategies import affines, chunkings, examples, indices, sizes
from xee_tf import MissingShardError, Mixer, MixerError, OptionError, RecordError, Size
from xee_tf.reading.chunk import BandChunk
from xee_tf.reading.engine import TFRecordBackend
from xee_tf.reading.image import open_image
from xee_tf.reading.margins import infer_margin
from xee_tf.reading.opening import open_export
from xee_tf.shards import access, inflate, scan
from xee_tf.shards.inflate import InflateCache
from xee_tf.shards.members import read_index
from xee_tf.sidecars.shard_files import check_order, find_records, find_shards
from xee_tf.storage import Location

COMPRESSIONS = ["plain", "gzip", "members", "written"]


def three_kinds(shape, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "B4": rng.normal(size=shape).astype("float32"),
        "class": rng.integers(0, 256, shape).astype("uint8"),
        "height": rng.integers(-500, 9000, shape).astype("int16"),
    }


def check_raster(ds, export: Export, *, restored=False):
    """Check values, dtypes (`restored` from a manifest, or as stored) and georeference."""
    assert set(ds.data_vars) == set(export.raster)
    for name, expected in export.raster.items():
        assert ds[name].dims == ("y", "x")
        stored = {"u": np.uint8, "i": np.int64, "f": np.float32}[expected.dtype.kind]
        assert ds[name].dtype == (expected.dtype if restored else stored)
        np.testing.assert_array_equal(ds[name].values, expected)
    matrix = json.loads(export.mixer.read_text())["projection"]["affine"]["doubleMatrix"]
    a, b, c, d, e, f = matrix
    geotransform = [float(number) for number in ds.spatial_ref.attrs["GeoTransform"].split()]
    assert geotransform == [c, a, b, f, d, e]
    if not (b or d):
        height, width = expected.shape
        np.testing.assert_allclose(ds.x, c + a * (np.arange(width) + 0.5), rtol=1e-12)
        np.testing.assert_allclose(ds.y, f + e * (np.arange(height) + 0.5), rtol=1e-12)
        step = max(abs(a), abs(e))
        assert tuple(ds.rio.transform())[:6] == pytest.approx(matrix, rel=1e-9, abs=1e-9 * step)


# -- Exports of Earth Engine -------------------------------------------------------------------------


@given(st.data())
@examples(40)
def test_exports_in_the_form_of_earth_engine(tmp_path_factory, data):
    patch = data.draw(sizes(1, 9), label="patch")
    columns, rows = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    rest = data.draw(sizes(0, 8))
    shape = (rows * patch.y + rest.y % patch.y, columns * patch.x + rest.x % patch.x)
    kernel = data.draw(sizes(1, 9), label="kernel")
    bands = three_kinds(shape)
    chosen = data.draw(st.lists(st.sampled_from(list(bands)), min_size=1, unique=True))
    affine = data.draw(affines(), label="affine")
    stored = (patch.x + kernel.x // 2 * 2) * (patch.y + kernel.y // 2 * 2)
    export = write_export(
        tmp_path_factory.mktemp("ee"),
        {name: bands[name] for name in chosen},
        patch=patch.xy,
        kernel=kernel.xy,
        affine=tuple(affine)[:6],
        compression=data.draw(st.sampled_from(COMPRESSIONS), label="compression"),
        naming=data.draw(st.sampled_from(["drive", "cloud"])),
        max_file_size=data.draw(st.integers(1, 8), label="records a shard") * (stored * 20 + 90),
    )
    options = data.draw(st.sampled_from([{}, {"kernel_size": kernel.xy}]), label="options")
    if not options:
        fits = [
            (mx, my)
            for mx, my in itertools.product(range(stored), repeat=2)
            if (patch.x + 2 * mx) * (patch.y + 2 * my) == stored
        ]
        even = [fit for fit in fits if fit[0] == fit[1]]
        if len(fits) > 1 and not even:
            with pytest.raises(OptionError, match="kernel_size="):
                open_image(export.mixer)
            return
        if (even or fits)[0] != (kernel.x // 2, kernel.y // 2):
            return  # ambiguous; a square kernel is more likely
    chunks = data.draw(st.sampled_from([{}, None, 7, {"x": 5}, "auto"]), label="chunks")
    check_raster(open_image(export.mixer, chunks=chunks, **options), export)
    kept = open_image(export.mixer, margins="keep", chunks=chunks if chunks != {"x": 5} else {}, **options)
    for name, patches in export.patches.items():
        assert kept[name].dims == ("patch", "y", "x")
        np.testing.assert_array_equal(kept[name].values, patches)
    margin = (-(kernel.x // 2), -(kernel.y // 2))
    for i in range(len(kept.patch)):
        row, column = divmod(i, columns)
        assert (int(kept.row[i]), int(kept.column[i])) == (row, column)
        corner = affine @ (column * patch.x + margin[0], row * patch.y + margin[1])
        assert (float(kept.left[i]), float(kept.top[i])) == pytest.approx(corner, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("naming", ["drive", "cloud"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_several_shards_in_both_naming_schemes(tmp_path, naming, compression):
    bands = three_kinds((50, 70))
    record = (16 + 6) * (8 + 6) * 15
    export = write_export(
        tmp_path,
        bands,
        patch=(16, 8),
        kernel=(6, 6),
        naming=naming,
        compression=compression,
        max_file_size=5 * record,
        prefix="image_2021",
    )
    assert len(export.shards) > 2
    assert [shard.url for shard in find_records(Location.of(export.mixer))] == list(map(str, export.shards))
    ds = open_image(export.mixer)
    check_raster(ds, export)
    assert ds.rio.crs.to_string() == "EPSG:32633"
    assert ds.encoding["source"] == str(export.mixer)
    check_raster(open_image(export.mixer, export.shards), export)
    check_raster(open_image(Mixer.read(export.mixer), [str(path) for path in export.shards]), export)


def test_shard_numbers_above_99999_and_similar_prefixes(tmp_path):
    for name in ("s-00000", "s-100000", "s-099999", "s-b-00000", "s00000", "xs-00000"):
        (tmp_path / f"{name}.tfrecord").touch()
    with pytest.raises(MissingShardError, match=r"Shards 1, 2, .*, 10 and 99,989 more of .* are missing"):
        find_records(Location.of(tmp_path / "s-mixer.json"))
    (tmp_path / "s-100000.tfrecord").unlink()
    assert [file.name for file in find_records(Location.of(tmp_path / "s-mixer.json"))] == [
        "s-00000.tfrecord"
    ]
    assert [file.name for file in find_records(Location.of(tmp_path / "smixer.json"))] == ["s00000.tfrecord"]


def test_raster_is_no_file_of_records(tmp_path):
    (tmp_path / "scene.TIF").touch()
    (tmp_path / "scene.zarr").mkdir()
    for name in ("scene.TIF", "scene.zarr"):
        with pytest.raises(OptionError, match=f"{name} is a raster file, not a TFRecord file: open it with"):
            find_shards(Location.of(tmp_path / name))


def test_memory_does_not_depend_on_shard_numbers(tmp_path):
    prefix = Location.of(tmp_path / "prediction")
    last = tmp_path / "prediction-200000000001.tfrecord"
    for name in ("prediction-00001.tfrecord", last.name):
        (tmp_path / name).touch()
    expected = r"Shards 0, 2, .*, 10 and 199,999,999,990 more of .* are missing, but prediction-2"
    with pytest.raises(MissingShardError, match=expected):
        find_shards(prefix)
    with pytest.raises(MissingShardError, match=expected):
        find_records(prefix.with_suffix("-mixer.json"))
    with pytest.raises(MissingShardError, match=r"Shards 2, .*, 11 and 199,999,999,989 more are missing"):
        check_order([prefix.with_suffix("-00001.tfrecord"), Location.of(last)])


def test_compression_is_detected_regardless_of_the_suffix(tmp_path):
    export = write_export(tmp_path, three_kinds((20, 20)), patch=(10, 10), compression="gzip")
    for shard in export.shards:
        shard.write_bytes(gzip.decompress(shard.read_bytes()))
    check_raster(open_image(export.mixer), export)
    export = write_export(tmp_path / "b", three_kinds((20, 20)), patch=(10, 10), compression="plain")
    for shard in export.shards:
        shard.write_bytes(gzip.compress(shard.read_bytes()))
    check_raster(open_image(export.mixer), export)


def test_padding_after_a_gzip_stream_is_skipped(tmp_path):
    export = write_export(tmp_path, three_kinds((20, 20)), patch=(10, 10), compression="gzip")
    export.shards[0].write_bytes(export.shards[0].read_bytes() + bytes(1000))
    check_raster(open_image(export.mixer), export)


def test_empty_shards(tmp_path):
    export = write_export(tmp_path, three_kinds((20, 20)), patch=(10, 10), compression="gzip")
    empty = [tmp_path / "empty", tmp_path / "empty.gz"]
    empty[0].write_bytes(b"")
    empty[1].write_bytes(gzip.compress(b""))
    check_raster(open_image(export.mixer, [empty[0], empty[1], *export.shards, empty[0]]), export)
    with pytest.raises(MissingShardError, match="The shards contain no records; expected 4 patches"):
        open_image(export.mixer, empty)


def test_selection_and_order_of_bands(tmp_path):
    export = write_export(tmp_path, three_kinds((20, 20)), patch=(10, 10))
    assert list(open_image(export.mixer, bands=["height", "B4"])) == ["height", "B4"]
    assert list(open_image(export.mixer, bands="class")) == ["class"]
    with pytest.raises(OptionError, match=r"Band 'B5' not found; available: .*'class'"):
        open_image(export.mixer, bands=["B5"])
    with pytest.raises(OptionError, match="bands is empty: pass at least one name"):
        open_image(export.mixer, bands=[])
    with pytest.raises(OptionError, match="bands contains 'B4' more than once"):
        open_image(export.mixer, bands=["B4", "B4"])


def test_bands_with_names_of_coordinates_raise(tmp_path):
    export = write_export(tmp_path, {"x": random_band((20, 20)), "b": random_band((20, 20))}, patch=(10, 10))
    with pytest.raises(OptionError, match=r"'x' cannot be a variable.*bands="):
        open_image(export.mixer)
    assert list(open_image(export.mixer, bands=["b"])) == ["b"]


@given(st.data())
@examples(30)
def test_round_trip_of_xee_tf_exports(tmp_path_factory, data):
    patch, kernel = data.draw(sizes(1, 9)), data.draw(sizes(1, 6))
    shape = data.draw(sizes(max(9, patch.x), 30))
    bands = three_kinds((max(shape.y, patch.y), shape.x))
    ds = raster(bands)
    if data.draw(st.booleans(), label="chunked"):
        ds = ds.chunk(y=data.draw(chunkings(ds.sizes["y"])), x=data.draw(chunkings(ds.sizes["x"])))
    stored = (patch.x + kernel.x) * (patch.y + kernel.y)
    result = ds.tfexport(
        tmp_path_factory.mktemp("ours") / "scene",
        patch_dimensions=patch.xy,
        kernel_size=kernel.xy,
        compressed=data.draw(st.booleans()),
        feature_types=data.draw(st.sampled_from(["float", "band"])),
        max_file_size=data.draw(st.integers(1, 9)) * stored * 30,
    )
    opened = open_image(result.mixer, kernel_size=kernel.xy)
    height, width = opened.B4.shape
    assert (height % patch.y, width % patch.x) == (0, 0)
    cropped = ds.isel(y=slice(height), x=slice(width))
    for name in bands:
        np.testing.assert_array_equal(opened[name].values, cropped[name].values)
    np.testing.assert_allclose(opened.x, cropped.x, rtol=1e-12)
    np.testing.assert_allclose(opened.y, cropped.y, rtol=1e-12)


# -- Windows -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Exports of the same raster in every form."""
    folder = tmp_path_factory.mktemp("exports")
    bands = three_kinds((90, 130))
    size = 6 * (12 + 4) * (10 + 4) * 12
    made = {
        name: write_export(
            folder / name, bands, patch=(12, 10), kernel=(4, 4), compression=name, max_file_size=size
        )
        for name in COMPRESSIONS
    }
    for name in ("ours", "ours-plain"):
        result = raster(bands, y0=5_000_000.0, x0=700_000.0).tfexport(
            folder / name,
            patch_dimensions=(12, 10),
            kernel_size=4,
            compressed=name == "ours",
            max_file_size=size,
            feature_types="band",
        )
        paths = [folder / Location.of(file.path).name for file in result.files]
        mixer = folder / f"{name}-mixer.json"
        made[name] = Export(mixer, paths, made["plain"].patches, made["plain"].raster)
    return made


@pytest.mark.parametrize("name", [*COMPRESSIONS, "ours", "ours-plain"])
@pytest.mark.parametrize("chunks", [None, {}, {"y": 7, "x": 50}])
@given(data=st.data())
@examples(15)
def test_windows_match_the_whole_raster(exports, name, chunks, data):
    export = exports[name]
    band = data.draw(st.sampled_from(list(export.raster)))
    expected = export.raster[band]
    index = data.draw(st.tuples(*(indices(n) for n in expected.shape)), label="index")
    found = open_image(export.mixer, chunks=chunks)[band]
    np.testing.assert_array_equal(found[index].values, expected[index])


def test_lazy_arrays_support_every_kind_of_index(exports):
    export = exports["ours"]
    ds = open_image(export.mixer, chunks=None)
    expected = export.raster["B4"]
    np.testing.assert_array_equal(ds.B4.isel(y=[3, 50, 7]).values, expected[[3, 50, 7]])
    points = {"y": xr.DataArray([1, 40, 77], dims="p"), "x": xr.DataArray([100, 3, 50], dims="p")}
    np.testing.assert_array_equal(ds.B4.isel(points).values, expected[[1, 40, 77], [100, 3, 50]])
    assert ds.B4.isel(y=slice(5, 5)).shape == (0, expected.shape[1])


def corrupt_members(path, spared):
    """Overwrite the gzip members of a shard, except those of some records; return the number of others."""
    data = bytearray(path.read_bytes())
    index = read_index(bytes(data))
    begin, record, left = 0, index.first_record, 0
    for count, size in zip(index.records, index.sizes, strict=True):
        if spared & set(range(record, record + count)):
            left += 1
        else:
            header = 12 + int.from_bytes(data[10:12], "little") if begin == 0 else 10
            data[begin + header : begin + size] = bytes(size - header)
        begin += size
        record += count
    path.write_bytes(bytes(data))
    return left


def test_a_window_decompresses_only_the_necessary_members(tmp_path):
    bands = {f"B{i}": random_band((2048, 2048), seed=i) for i in range(3)}
    result = raster(bands).tfexport(tmp_path / "scene", patch_dimensions=256, max_file_size=30 * 2**20)
    assert len(result.files) == 2
    needed = {0, *(row * 8 + column for row in (2, 3) for column in (4, 5))}
    left = [corrupt_members(tmp_path / Location.of(file.path).name, needed) for file in result.files]
    assert sum(left) == 5  # members of the window, and of the first record
    for chunks in (None, {}, 300):
        ds = open_image(result.mixer, chunks=chunks)
        window = ds.isel(y=slice(600, 856), x=slice(1100, 1356))
        for name, band in bands.items():
            np.testing.assert_array_equal(window[name].values, band[600:856, 1100:1356])
        with pytest.raises(RecordError, match=r"scene-00000.tfrecord.gz: from record 1 on: A gzip member"):
            ds.B0[0, 300].load()


def test_bands_read_one_by_one_share_decompressed_data(tmp_path):
    bands = three_kinds((60, 60))
    result = raster(bands).tfexport(tmp_path / "scene", patch_dimensions=20)
    ds = xr.open_dataset(result.mixer, engine=TFRecordBackend, chunks={})
    ds.B4.load()
    (tmp_path / "scene-00000.tfrecord.gz").unlink()
    np.testing.assert_array_equal(ds["class"].values, bands["class"])
    with pytest.raises(FileNotFoundError):  # chunks of all bands are not cached
        open_image(str(result.mixer))


# -- Chunks of all bands -------------------------------------------------------------------------------


def test_a_chunk_is_read_once_for_all_bands(tmp_path):
    bands = three_kinds((60, 60))
    result = raster(bands).tfexport(tmp_path / "scene", patch_dimensions=20)
    reader = replace(open_export(result.mixer), share=False)  # without the cache
    chunk = BandChunk(reader, ((0, 60), (0, 60)))
    part = np.s_[20:40, ::-3]
    np.testing.assert_array_equal(chunk[(0, *part)], bands["B4"][part])
    copy = pickle.loads(pickle.dumps(chunk))
    np.testing.assert_array_equal(copy[(2, *part)], bands["height"][part])
    (tmp_path / "scene-00000.tfrecord.gz").rename(tmp_path / "away")
    np.testing.assert_array_equal(chunk[(1, *part)], bands["class"][part])
    with pytest.raises(FileNotFoundError):
        chunk[(1, *part)]  # the result was already removed
    (tmp_path / "away").rename(tmp_path / "scene-00000.tfrecord.gz")
    np.testing.assert_array_equal(chunk[(1, *part)], bands["class"][part])
    np.testing.assert_array_equal(chunk[2, [3, 1], 4], bands["height"][[3, 1], 4])


def test_threads_share_the_work_of_a_chunk(exports):
    export = exports["ours"]
    chunk = BandChunk(open_export(export.mixer), ((0, 90), (0, 120)))
    everything = (slice(None), slice(None))
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda i: chunk[(i % 3, *everything)], range(24)))
    for i, values in enumerate(found):
        np.testing.assert_array_equal(values, export.raster[["B4", "class", "height"][i % 3]])


def test_a_failure_reaches_all_threads_of_a_chunk(tmp_path):
    export = make(tmp_path, "plain", {"a": random_band((30, 30)), "b": random_band((30, 30))})
    chunk = BandChunk(open_export(export.mixer), ((0, 30), (0, 30)))
    export.shards[3].write_bytes(b"")
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(chunk.__getitem__, (i, slice(None), slice(None))) for i in range(2)]
    for future in futures:
        with pytest.raises(RecordError, match=r"scene-00003.tfrecord was replaced or modified"):
            future.result()


# -- The cache ---------------------------------------------------------------------------------------


def test_concurrent_requests_load_an_item_once():
    cache = InflateCache(1000)
    made, gate = [], threading.Barrier(4, timeout=30)

    def load(positions):
        for i in positions:
            made.append(i)
            yield bytes([i]) * 10

    def work(_):
        gate.wait()
        return cache.get(["a", "b", "c"], load)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert sorted(made) == [0, 1, 2]
    assert results == [[bytes([i]) * 10 for i in range(3)]] * 4


def test_the_cache_evicts_the_least_recently_used_item():
    cache = InflateCache(25)
    made = []

    def get(key):
        def load(_):
            made.append(key)
            yield key.encode() * 10

        return cache.get([key], load)[0]

    for key in "abacab":  # c evicts b, and then b evicts c
        assert get(key) == key.encode() * 10
    assert made == ["a", "b", "c", "b"]
    cache.discard("a")
    assert cache.peek("a") is None
    cache.clear()
    assert cache.peek("b") is None
    assert get("b")
    assert made[-1] == "b"


def test_failures_reach_all_waiting_threads_and_are_retried():
    cache = InflateCache(100)
    entered, waiting = threading.Event(), threading.Event()

    def failing(_):
        entered.set()
        waiting.wait(30)
        raise RecordError("corrupt")
        yield

    def wait_for_it():
        entered.wait(30)
        waiting.set()
        return cache.get(["a"], lambda _: iter([b"later"]))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, ["a"], failing)
        second = pool.submit(wait_for_it)
        with pytest.raises(RecordError, match="corrupt"):
            first.result()
        try:
            assert second.result() == [b"later"]  # it started after the failure
        except RecordError as error:
            assert str(error) == "corrupt"  # noqa: PT017 - depends on timing
    assert cache.get(["a"], lambda _: iter([b"again"])) in ([b"again"], [b"later"])


# -- Streams of other programs -----------------------------------------------------------------------


@pytest.fixture
def small_segments(monkeypatch):
    """Set restart points every 1000 bytes, so that small files have many of them."""
    monkeypatch.setattr(inflate, "SEGMENT", 1000)
    monkeypatch.setattr(scan, "SEGMENT", 1000)
    monkeypatch.setattr(access, "SEGMENT", 1000)
    monkeypatch.setattr(access, "_READ", 2500)
    inflate.CACHE.clear()


@pytest.mark.parametrize("compression", ["gzip", "members"])
@pytest.mark.parametrize("limit", [0, 5000, 128 << 20])
def test_streams_are_read_in_any_order(tmp_path, small_segments, monkeypatch, compression, limit):
    monkeypatch.setattr(inflate.CACHE, "limit", limit)
    bands = three_kinds((120, 60))
    export = write_export(tmp_path, bands, patch=(10, 10), compression=compression)
    ds = open_image(export.mixer, chunks=None)
    random = np.random.default_rng(1)
    rows = [*range(0, 120, 10), *range(110, -1, -10), *random.permutation(120).tolist(), 0]
    for row in rows:
        np.testing.assert_array_equal(ds.B4[row : row + 5].values, bands["B4"][row : row + 5])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: ds.height[row].values, rows))
    np.testing.assert_array_equal(found, bands["height"][rows])


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ({"row": 3}, "chunks contains 'row', which is not a dimension .*; available: 'x', 'y'"),
        ({"y": 0}, r"chunks\['y'\] must be a number of pixels of at least 1, or -1 .*; got 0"),
        (-2, "chunks must be a number of pixels .*; got -2"),
        ((4, 0), r"chunks must be .*; got \(4, 0\)"),
        (2.5, r"chunks=2\.5 is not valid: .*[^.]\.$"),
    ],
)
def test_invalid_chunks(exports, chunks, message):
    with pytest.raises(OptionError, match=message):
        open_image(exports["gzip"].mixer, chunks=chunks)


def test_selectors_are_bands(exports):
    assert list(open_image(exports["gzip"].mixer, selectors=["B4"])) == ["B4"]
    with pytest.raises(OptionError, match=r"Unknown reading options: {'noData': 0}"):
        open_image(exports["gzip"].mixer, noData=0)
    with pytest.raises(xee_tf.GeoreferenceError, match=r"^crs='UTM 33' is not a CRS"):
        open_image(exports["gzip"].mixer, crs="UTM 33")


@pytest.mark.parametrize("function", [xee_tf.open_image, xee_tf.inspect, xee_tf.verify, xee_tf.open_table])
def test_sources_that_are_not_exports(exports, function):
    if function is xee_tf.open_image:
        with pytest.raises(OptionError, match="records contains an empty path"):
            function(exports["gzip"].mixer, [""])
    with pytest.raises(OptionError, match="The path is empty: pass the path of an export"):
        function("")
    for data in (xr.Dataset({"a": 1}), xr.DataArray([1])):
        with pytest.raises(OptionError, match=f"got a {type(data).__name__}"):
            function(data)


def test_inspect_counts_bytes_and_values_of_a_record(tmp_path):
    ds = raster({"cover": random_band((6, 8), "uint8"), "red": random_band((6, 8))})
    result = ds.tfexport(tmp_path / "a", patch_dimensions=(4, 3), feature_types="band")
    shutil.copy(result.files[0].path, tmp_path / "other.tfrecord.gz")
    found = str(xee_tf.inspect(tmp_path / "other.tfrecord.gz"))
    assert "cover         bytes, 12 bytes" in found
    assert "red           float, 12 values" in found


def test_inspect_expects_an_export_or_a_file(tmp_path):
    for name in ("out", "out.tfrecord"):
        with pytest.raises(MissingShardError, match=rf"{name} was not found: .* a TFRecord file"):
            xee_tf.inspect(tmp_path / name)


def test_streams_are_read_forward_by_dask(tmp_path, small_segments):
    export = write_export(tmp_path, three_kinds((200, 20)), patch=(10, 10), compression="gzip")
    ds = open_image(export.mixer, chunks={"y": 10})
    starts = []

    class Watch(dask.callbacks.Callback):
        def _pretask(self, key, *_):
            if isinstance(key, tuple) and key[0].startswith("read-tfrecord"):
                starts.append(key[1])

    with Watch(), dask.config.set(scheduler="threads", num_workers=2):
        check_raster(ds, export)
    per_band = [starts[i : i + 20] for i in range(0, len(starts), 20)]
    for order in per_band:
        assert all(abs(number - i) <= 1 for i, number in enumerate(order)), order


def test_streams_have_chunks_as_wide_as_the_raster(exports):
    assert open_image(str(exports["gzip"].mixer)).B4.chunks == ((90,), (120,))
    assert exports["gzip"].raster["B4"].shape == (90, 120)


# -- Chunks ------------------------------------------------------------------------------------------


def test_preferred_chunks_are_whole_patches(tmp_path):
    result = raster({"b": np.zeros((3000, 4000), "uint8")}).tfexport(
        tmp_path / "scene", patch_dimensions=(300, 200), feature_types="band"
    )
    ds = open_image(result.mixer)
    assert ds.b.chunks == ((1200, 1200, 600), (1200, 1200, 1200, 300))
    lazy = xr.open_dataset(result.mixer, engine=TFRecordBackend, chunks={})
    assert lazy.b.chunks == ds.b.chunks
    assert open_image(result.mixer, margins="keep").b.chunks[0] == (17,) * 11 + (8,)
    assert open_image(result.mixer, chunks={"y": 500}).b.chunks[0] == (500,) * 6
    assert open_image(result.mixer, chunks={"y": -1, "x": None}).b.chunks == ((3000,), ds.b.chunks[1])


def test_one_task_reads_all_bands_of_a_chunk(exports):
    ds = open_image(exports["ours"].mixer, chunks={"y": 20, "x": 20})
    chunks = 5 * 6
    [graph] = dask.optimize(*[ds[list(ds)].to_array().data])
    reads = [key for key in graph.__dask_graph__() if key[0].startswith("read-tfrecord")]
    assert len(reads) == chunks
    assert open_image(exports["ours"].mixer).B4.data.name == open_image(exports["ours"].mixer).B4.data.name


def test_opened_images_survive_pickling_and_processes(exports):
    ds = open_image(exports["ours"].mixer, chunks={"y": 40})
    with dask.config.set(scheduler="processes", num_workers=2):
        check_raster(ds, exports["ours-plain"], restored=True)


# -- The engine --------------------------------------------------------------------------------------


def test_the_engine_opens_mixers(exports):
    export = exports["ours"]
    ds = xr.open_dataset(export.mixer, engine=TFRecordBackend)
    assert ds.B4.variable._in_memory is False
    check_raster(ds, exports["plain"], restored=True)
    ds = xr.open_dataset(
        export.mixer,
        engine=TFRecordBackend,
        bands=["B4", "class"],
        margins="keep",
        drop_variables="class",
    )
    assert dict(ds.sizes) == {"patch": 90, "y": 14, "x": 16}
    assert list(ds) == ["B4"]
    with pytest.raises(OptionError, match="path or URL of a mixer; got a BytesIO"):
        TFRecordBackend().open_dataset(io.BytesIO())
    for shards, message in (
        (str(export.shards[0]), "is a shard, not a mixer: pass the mixer, "),
        (
            [str(path) for path in export.shards],
            "got a list of .* items: pass one mixer as the first argument, and",
        ),
    ):
        with pytest.raises((OptionError, MixerError), match=message):
            xr.open_dataset(shards, engine=TFRecordBackend)
    with pytest.raises(OptionError, match="'trim' or 'keep'; got 'crop'"):
        xr.open_dataset(export.mixer, engine=TFRecordBackend, margins="crop")


def test_the_engine_is_an_entry_point():
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    announced = pyproject["project"]["entry-points"]["xarray.backends"]
    assert announced == {"tfrecord": f"{TFRecordBackend.__module__}:{TFRecordBackend.__name__}"}


@pytest.mark.parametrize(
    ("name", "can"),
    [
        ("a/scene-mixer.json", True),
        ("gs://b/scenemixer.json", True),
        (Path("x-mixer.json"), True),
        ("scene.json", False),
        ("scene-00000.tfrecord.gz", False),
        (b"mixer.json", False),
    ],
)
def test_the_engine_recognizes_file_names(name, can):
    assert TFRecordBackend().guess_can_open(name) is can


def test_other_filesystems(exports):
    fs = fsspec.filesystem("memory")
    fs.put(str(Path(exports["plain"].mixer).parent), "/remote", recursive=True)
    ds = open_image("memory://remote/scene-mixer.json")
    check_raster(ds, exports["plain"])
    fs.rm("/remote", recursive=True)


# -- Kernels -----------------------------------------------------------------------------------------


@given(sizes(1, 40), sizes(1, 30))
def test_kernels_are_inferred_or_ambiguous(patch, kernel):
    true = Size(x=kernel.x // 2, y=kernel.y // 2)
    values = (patch.x + 2 * true.x) * (patch.y + 2 * true.y)
    fits = [
        (mx, my)
        for mx in range(values)
        if values % (patch.x + 2 * mx) == 0
        for my in [(values // (patch.x + 2 * mx) - patch.y) / 2]
        if my >= 0 and my.is_integer()
    ]
    assert infer_margin(patch, values, kernel=kernel) == true
    even = [fit for fit in fits if fit[0] == fit[1]]
    if even or len(fits) == 1:
        found = infer_margin(patch, values)
        assert [(found.x, found.y)] == (even or fits)
    else:
        with pytest.raises(OptionError, match="which matches several kernels"):
            infer_margin(patch, values)


def test_list_lengths_that_fit_no_kernel_raise(tmp_path):
    export = write_export(tmp_path, {"b": random_band((20, 20))}, patch=(10, 10), kernel=(4, 4))
    with pytest.raises(RecordError, match=r"'b' has 196 values .* kernel_size=\(6, 6\) have 256"):
        open_image(export.mixer, kernel_size=6)
    rewrite_mixer(export.mixer, patchDimensions=[11, 11])
    with pytest.raises(RecordError, match="which matches no kernel"):
        open_image(export.mixer)
    rewrite_mixer(export.mixer, patchDimensions=[7, 7])
    assert open_image(export.mixer).b.sizes == {"depth": 4, "y": 14, "x": 14}


# -- Errors in files ----------------------------------------------------------------------


def rewrite_mixer(path, **keys):
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def make(folder, compression, bands=None):
    """Write five shards of two records (one in the last), as Earth Engine or with xee_tf."""
    bands = bands or {"b": random_band((30, 30))}
    widths = {"f": 4, "u": 1, "i": 10}  # maximum bytes per value
    record = 36 + sum(36 + 100 * widths[band.dtype.kind] for band in bands.values())
    if compression.startswith("ours"):
        result = raster(bands).tfexport(
            folder / "scene",
            patch_dimensions=10,
            compressed=compression == "ours",
            max_file_size=2 * record,
            feature_types="band",
        )
        paths = [folder / Location.of(file.path).name for file in result.files]
        export = Export(folder / "scene-mixer.json", paths, {}, bands)
    else:
        export = write_export(folder, bands, patch=(10, 10), compression=compression, records_per_shard=2)
    assert len(export.shards) == 5
    return export


FORMS = ["plain", "gzip", "members", "ours", "ours-plain"]
KINDS = [np.float32, np.uint8]


@pytest.mark.parametrize("compression", FORMS)
def test_missing_shards(tmp_path, compression):
    export = make(tmp_path, compression)
    last, middle = export.shards[4], export.shards[2]
    kept = last.read_bytes()
    last.unlink()
    message = r"Expected 9 records .*; the 4 shards .* contain 8 \(2, 2, 2, 2\)\. Shards after .*scene-00003"
    with pytest.raises(MissingShardError, match=message):
        open_image(export.mixer)
    last.write_bytes(kept)
    middle.unlink()
    with pytest.raises(MissingShardError, match=r"Shard 2 .*missing"):
        open_image(export.mixer)
    with pytest.raises(MissingShardError, match="Shard 2 is missing between scene-00001"):
        open_image(export.mixer, [path for path in export.shards if path != middle])
    with pytest.raises(MissingShardError, match=r"scene-00002.* does not exist"):
        open_image(export.mixer, export.shards)
    for path in export.shards:
        path.unlink(missing_ok=True)
    with pytest.raises(MissingShardError, match=r"No shards found for .*expected scene-00000.tfrecord or"):
        open_image(export.mixer)
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "nothing-mixer.json")


@pytest.mark.parametrize("compression", FORMS)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@given(data=st.data())
@examples(12)
def test_truncated_shards(tmp_path_factory, compression, last, dtype, data):
    export = make(tmp_path_factory.mktemp("cut"), compression, {"b": random_band((30, 30), dtype)})
    corrupted = export.shards[-1 if last else 1]
    whole = corrupted.read_bytes()
    size = data.draw(st.integers(0, len(whole) - 1), label="size")
    corrupted.write_bytes(whole[:size])
    with pytest.raises(RecordError, match=rf"{corrupted.name}|contain \d \({'.*' if last else '2, .*'}"):
        open_image(export.mixer).load()


@pytest.mark.parametrize("compression", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16])
@given(data=st.data())
@examples(20)
def test_corrupt_shards_never_give_wrong_values(tmp_path_factory, compression, dtype, data):
    bands = {"b": random_band((30, 30), dtype)}
    export = make(tmp_path_factory.mktemp("corrupt"), compression, bands)
    corrupted = export.shards[data.draw(st.integers(0, 4))]
    content = bytearray(corrupted.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1), label="position")
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    corrupted.write_bytes(bytes(content))
    try:
        found = open_image(export.mixer).b.values
    except RecordError as error:
        assert corrupted.name in str(error) or "scene-0000" in str(error)  # noqa: PT017 - else harmless
    else:  # a field of the gzip header, such as the time
        assert ".gz" in corrupted.name
        np.testing.assert_array_equal(found, bands["b"])


@pytest.mark.parametrize("compression", FORMS)
def test_reordered_shards(tmp_path, compression):
    export = make(tmp_path, compression)
    first, second, last = export.shards[0], export.shards[1], export.shards[4]
    with pytest.raises(RecordError, match=r"out of order: scene-00001.* comes before scene-00000"):
        open_image(export.mixer, [second, first, *export.shards[2:]])
    swap(first, last)
    with pytest.raises(RecordError, match=r"scene-0000\d.tfrecord.*out of order"):
        open_image(export.mixer)


def test_xee_tf_shards_detect_any_change_of_order(tmp_path):
    export = make(tmp_path, "ours")
    swap(export.shards[1], export.shards[2])
    message = r"scene-00001.tfrecord.gz starts with record 4 of its export, but the shards before it"
    with pytest.raises(RecordError, match=message):
        open_image(export.mixer)
    with pytest.raises(RecordError, match=message):
        open_image(export.mixer, export.shards)


def swap(one, other):
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize("compression", FORMS)
def test_shards_that_do_not_match_the_mixer(tmp_path, compression):
    export = make(tmp_path, compression)
    (tmp_path / "scene-image.tfexport").unlink(missing_ok=True)
    rewrite_mixer(export.mixer, totalPatches=6)
    with pytest.raises(RecordError, match=r"Expected 6 records .*; the 5 shards .* contain 9 .* The mixer"):
        open_image(export.mixer)
    rewrite_mixer(export.mixer, totalPatches=12)
    with pytest.raises(RecordError, match=r"Expected 12 records .* A shard is truncated, or shards"):
        open_image(export.mixer)


def test_duplicate_shards(tmp_path):
    export = make(tmp_path, "plain")
    shutil.copy(export.shards[0], tmp_path / "scene-00000.tfrecord.gz")
    with pytest.raises(RecordError, match=r"Shard 0 exists twice, as scene-00000.tfrecord and scene-00000"):
        open_image(export.mixer)


def test_shards_of_different_sizes_are_allowed_if_passed(tmp_path):
    export = make(tmp_path, "plain")
    swap(export.shards[0], export.shards[4])
    with pytest.raises(RecordError, match=r"scene-00001.tfrecord contains 2 records, but .* contains 1"):
        open_image(export.mixer)
    swap(export.shards[0], export.shards[4])
    whole = b"".join(path.read_bytes() for path in export.shards)
    (tmp_path / "one").write_bytes(whole[: len(whole) // 9])
    (tmp_path / "two").write_bytes(whole[len(whole) // 9 :])
    check_raster(open_image(export.mixer, [tmp_path / "one", tmp_path / "two"]), export)


@pytest.mark.parametrize("compression", ["plain", "gzip"])
def test_records_that_differ_from_the_first(tmp_path, compression):
    band, number = random_band((30, 30)), random_band((30, 30), "int16")
    export = make(tmp_path, compression, {"b": band, "c": number})
    other = make(tmp_path / "other", compression, {"b": band + 1, "d": number})
    shutil.copy(other.shards[3], export.shards[3])
    with pytest.raises(
        RecordError, match=r"scene-00003.tfrecord.*: record 0: feature 'c' not found; available:"
    ):
        open_image(export.mixer).load()
    found = open_image(export.mixer, bands=["b"]).b.values
    np.testing.assert_array_equal(found[20:, :20], band[20:, :20] + 1)  # records 6 and 7


def test_paths_that_are_not_shards_or_mixers(tmp_path):
    export = make(tmp_path, "plain")
    with pytest.raises(
        MixerError,
        match=r"is a shard, not a mixer: pass the mixer, .*scene-mixer.json, as the first",
    ):
        open_image(export.shards[0])
    with pytest.raises(
        OptionError, match=r"scene-mixer.json describes .*: pass the TFRecord files, or .*/scene\."
    ):
        open_image(export.mixer, [export.mixer])
    with pytest.raises(OptionError, match="is a folder: pass the TFRecord files in it"):
        open_image(export.mixer, [tmp_path])
    export.mixer.rename(tmp_path / "scene.json")
    with pytest.raises(OptionError, match=r"does not end with 'mixer.json'"):
        open_image(tmp_path / "scene.json")
    check_raster(
        open_image(tmp_path / "scene.json", export.shards), replace(export, mixer=tmp_path / "scene.json")
    )
    with pytest.raises(OptionError, match="pass the shards as records="):
        open_image(Mixer.read(tmp_path / "scene.json"))


def test_verification_of_checksums_can_be_disabled(tmp_path):
    export = make(tmp_path, "plain")
    content = bytearray(export.shards[0].read_bytes())
    content[100] ^= 1
    export.shards[0].write_bytes(bytes(content))
    with pytest.raises(RecordError, match=r"scene-00000.tfrecord: record 0 is corrupt"):
        open_image(export.mixer)  # the first record is always checked
    content[100] ^= 1
    content[-100] ^= 1
    export.shards[0].write_bytes(bytes(content))
    with pytest.raises(RecordError, match="record 1 is corrupt: the checksum of its data does not match"):
        open_image(export.mixer).load()
    assert (open_image(export.mixer, verify=False).b.values != export.raster["b"]).sum() == 1


# -- Real data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 32])
def test_round_trip_of_a_landsat_scene(landsat, tmp_path, kernel):
    result = landsat.tfexport(tmp_path / "scene", patch_dimensions=(96, 64), kernel_size=kernel)
    opened = open_image(result.mixer)
    expected = landsat.fillna(0).isel(y=slice(6 * 64), x=slice(5 * 96)).compute()
    assert list(opened) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(opened[name].values, expected[name].values)
    assert opened.rio.crs == landsat.rio.crs
    assert opened.rio.transform() == landsat.rio.transform()
    np.testing.assert_array_equal(opened.x, expected.x)
    np.testing.assert_array_equal(opened.y, expected.y)


def test_round_trip_of_a_global_raster(land_cover_path, tmp_path):
    whole = rioxarray.open_rasterio(land_cover_path, chunks={"x": 7200, "y": 300}).isel(band=0, drop=True)
    whole = whole.rio.write_crs("EPSG:4326").to_dataset(name="cover")
    result = whole.tfexport(tmp_path / "globe", patch_dimensions=200, feature_types="band", default_value=255)
    ds = open_image(result.mixer)
    assert ds.cover.dtype == np.uint8
    np.testing.assert_array_equal(ds.cover.values, whole.cover.values)
    assert ds.rio.crs.to_epsg() == 4326
    assert ds.rio.transform().almost_equals(whole.rio.transform(), 1e-12)


def test_records_of_another_region_raise(tmp_path):
    ds = raster({"a": random_band((64, 96))})
    for name, left in (("left", 0), ("right", 32)):
        ds.tfexport(tmp_path / name, region=(slice(0, 64), slice(left, left + 64)), patch_dimensions=32)
    for read in (xee_tf.open_image, partial(xee_tf.upload_image, destination=tmp_path / "m.tif")):
        with pytest.raises(RecordError, match=r"right-\* are the shards of another export: doubleMatrix is"):
            read(mixer=tmp_path / "left-mixer.json", records=tmp_path / "right")
    assert not (tmp_path / "m.tif").exists()
    # Another export of the same patches
    ds.tfexport(tmp_path / "more", region=(slice(0, 64), slice(0, 64)), patch_dimensions=32, kernel_size=8)
    opened = xee_tf.open_image(tmp_path / "left-mixer.json", records=tmp_path / "more")
    np.testing.assert_array_equal(opened["a"], ds["a"][:, :64])
