"""Patches straight from a raster: compared with numpy, with counts of loaded chunks, in bounded memory."""

from __future__ import annotations

import pickle
import sys
import threading
import tracemalloc
from collections import Counter

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle import cut_patches
from tests.rasters import random_band, raster
from tests.strategies import chunkings, examples
from xee_tf import MissingExtraError, OptionError, PatchSequence, open_patches, sample_patches
from xee_tf.training.block_memory import BlockMemory


class Loads:
    """A band that counts how often each of its chunks is loaded."""

    def __init__(self, shape, chunk, dtype="float32"):
        self.counts = Counter()
        self._lock = threading.Lock()
        values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        blocks = da.from_array(np.zeros(shape, "uint8"), chunks=chunk)
        self.values = values
        self.array = blocks.map_blocks(self._load, dtype=dtype, meta=np.empty((0, 0), dtype))

    def _load(self, chunk, block_info=None):
        place = block_info[0]["array-location"]
        with self._lock:
            self.counts[tuple(place)] += 1
        return self.values[tuple(slice(*each) for each in place)].copy()

    def dataset(self):
        values = raster({"a": self.values})
        return xr.Dataset({"a": (("y", "x"), self.array)}, coords=values.coords, attrs=values.attrs)


@examples(60)
@given(st.data())
def test_patches_are_those_of_numpy(data):
    height, width = data.draw(st.integers(4, 60)), data.draw(st.integers(4, 60))
    patch = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    kernel = data.draw(st.integers(1, min(9, width))), data.draw(st.integers(1, min(9, height)))
    edge = data.draw(st.sampled_from(["drop", "pad"]))
    chunks = data.draw(chunkings(height)), data.draw(chunkings(width))
    band = random_band((height, width), "float32")
    masked = random_band((height, width), seed=3) < 20
    ds = raster({"a": np.where(masked, np.nan, band)}).chunk(dict(zip("yx", chunks, strict=True)))
    expected, _ = cut_patches(band, patch=patch, kernel=kernel, default=-7, edge=edge, masked=masked)
    patches = open_patches(ds, patch_dimensions=patch, kernel_size=kernel, edge=edge, default_value=-7)
    assert len(patches) == len(expected) == len(patches.grid)
    np.testing.assert_array_equal(np.stack([each["a"] for each in patches]), expected)
    chosen = data.draw(st.lists(st.integers(-len(expected), len(expected) - 1), min_size=1, max_size=9))
    np.testing.assert_array_equal(patches[chosen]["a"], np.stack(expected)[chosen])
    np.testing.assert_array_equal(patches[chosen[0]]["a"], expected[chosen[0]])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("patch", "kernel"), [(30, 9), (32, 1), (20, 1)])
def test_each_chunk_is_loaded_once(patch, kernel, shuffle):
    loads = Loads((512, 640), (64, 64))
    patches = open_patches(loads.dataset(), patch_dimensions=patch, kernel_size=kernel)
    expected, _ = cut_patches(loads.values, patch=(patch, patch), kernel=(kernel, kernel), default=0)
    found = np.concatenate([batch["a"] for batch in patches.batches(7, shuffle=shuffle, seed=4)])
    if shuffle:
        assert not np.array_equal(found, expected)
        found = found[np.argsort(found[:, patch // 2, patch // 2])]
    np.testing.assert_array_equal(found, expected)
    assert len(loads.counts) == 80
    assert set(loads.counts.values()) == {1}


@pytest.mark.parametrize(
    ("kernel", "shuffle"),
    [
        (33, True),
        pytest.param(33, False, marks=pytest.mark.long),
        pytest.param(1, True, marks=pytest.mark.long),
        pytest.param(1, False, marks=pytest.mark.long),
    ],
)
def test_a_raster_larger_than_memory(kernel, shuffle):
    loads = Loads((8192, 1536), (128, 128))  # 48 MiB
    patches = open_patches(loads.dataset(), patch_dimensions=64, kernel_size=kernel, memory="14 MiB")
    list(open_patches(raster({"a": np.ones((64, 64))}), patch_dimensions=64).batches(1))  # imports
    total = 0
    tracemalloc.start()
    try:
        for batch in patches.batches(4, shuffle=shuffle, seed=8):
            inner = np.s_[:, kernel // 2 : kernel // 2 + 64, kernel // 2 : kernel // 2 + 64]
            total += float(batch["a"][inner].sum(dtype="f8"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == pytest.approx(loads.values.astype("f8").sum(), rel=1e-9)
    assert peak < 15 << 20
    assert sum(loads.counts.values()) <= 1.12 * len(loads.counts)


def test_shuffled_order_differs_by_seed_and_covers_all():
    ds = raster({"a": np.arange(96.0 * 96).reshape(96, 96)}).chunk({"y": 16, "x": 16})
    patches = open_patches(ds, patch_dimensions=8)

    def order(seed):
        return [tuple(batch["a"][:, 0, 0]) for batch in patches.batches(5, shuffle=True, seed=seed)]

    assert order(1) == order(1) != order(-1)
    assert sorted(sum(order(2), ())) == sorted(each["a"][0, 0] for each in patches)
    assert len(list(patches.batches(5, shuffle=True, drop_remainder=True))) == 28


def test_selected_patches_load_only_their_chunks():
    loads = Loads((2048, 2048), (512, 512))
    patches = open_patches(loads.dataset(), patch_dimensions=256, patches=[63, 0, 9])
    found = [each["a"][0, 0] for each in patches]
    assert found == [loads.values[1792, 1792], loads.values[0, 0], loads.values[256, 256]]
    assert patches.numbers.tolist() == [63, 0, 9]
    assert sum(loads.counts.values()) < 6


def test_bands_with_steps_masks_and_dtypes():
    values = random_band((3, 40, 50), "int16")
    flat = raster({"b": random_band((40, 50), "uint8"), "cloud": random_band((40, 50)) > 60})
    ds = flat.assign(series=(("time", "y", "x"), values)).chunk({"y": 13, "x": 17, "time": 2})
    patches = open_patches(
        ds, patch_dimensions=20, mask="cloud", default_value=9, feature_types="band", bands=["series", "b"]
    )
    assert patches.bands == ("series", "b")
    expected = np.where(flat["cloud"].values, 9, values)[:, :20, 20:40]
    assert patches[1]["series"].dtype == np.int16
    assert patches[1]["b"].dtype == np.uint8
    np.testing.assert_array_equal(patches[1]["series"], expected)
    assert patches[1:]["series"].shape == (3, 3, 20, 20)


def test_a_region_has_the_pixels_around_it_as_margin():
    values = np.arange(60.0 * 70).reshape(60, 70).astype("float32")
    patches = open_patches(
        raster({"a": values}).chunk({"y": 11}),
        patch_dimensions=10,
        kernel_size=5,
        region=(slice(20, 40), slice(30, 60)),
    )
    assert len(patches) == 6
    np.testing.assert_array_equal(patches[0]["a"], values[18:32, 28:42])


@pytest.mark.parametrize("threads", [1, 8])
def test_threads_read_the_same_patches_and_load_chunks_once(threads):
    loads = Loads((256, 256), (64, 64))
    patches = open_patches(loads.dataset(), patch_dimensions=32, kernel_size=5)
    expected, _ = cut_patches(loads.values, patch=(32, 32), kernel=(5, 5), default=0)
    found = {}

    def read(first):
        for index in range(first, len(patches), threads):
            found[index] = patches[index]["a"]

    running = [threading.Thread(target=read, args=(first,)) for first in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    np.testing.assert_array_equal(np.stack([found[index] for index in range(len(patches))]), expected)


@pytest.fixture
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as made,
    ):
        yield made


def test_distributed_cluster(client):
    values = random_band((200, 300))
    ds = raster({"a": values}).chunk({"y": 64, "x": 64})
    expected, _ = cut_patches(values, patch=(50, 60), kernel=(8, 8), default=0)
    for each in (ds, ds.persist()):
        patches = open_patches(each, patch_dimensions=(50, 60), kernel_size=8)
        found = np.concatenate([batch["a"] for batch in patches.batches(4)])
        np.testing.assert_array_equal(found, expected)


def test_errors_of_chunks_reach_the_caller():
    def fail(chunk):
        raise OSError("the disk is gone")

    ds = raster({"a": np.zeros((64, 64))}).chunk({"y": 32, "x": 32})
    ds["a"].data = ds["a"].data.map_blocks(fail, dtype="float64", meta=np.empty((0, 0)))
    patches = open_patches(ds, patch_dimensions=32)
    with pytest.raises(OSError, match="the disk is gone"):
        list(patches.batches(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patches": [0, 99]}, "patches has 99, but the grid has 16 patches, numbered from 0 to 15"),
        (
            {"patches": [0.5]},
            "patches must be an xee_tf.PatchSelection, or a sequence of at least one",
        ),
        ({"patches": []}, "patches must be an xee_tf.PatchSelection, or a sequence of at least one"),
        ({"memory": "much"}, "memory must be a number of bytes, or a text such as '2 GiB'; got 'much'"),
        ({"memory": True}, "memory must be a number of bytes"),
        ({"memory": 1000}, "memory=0.98 kiB is too small: blocks of whole chunks and patches have up to"),
        ({"bands": ["c"]}, "The image has no band 'c'; available: 'a'"),
        ({"patch_dimensions": 100}, "A patch of 100 pixels does not fit"),
    ],
)
def test_errors(options, message):
    ds = raster({"a": random_band((64, 64))})
    with pytest.raises(OptionError, match=message):
        open_patches(ds, **{"patch_dimensions": 16, **options})


def test_index_errors():
    patches = open_patches(raster({"a": random_band((64, 64))}), patch_dimensions=32)
    assert np.array_equal(patches[-1]["a"], patches[3]["a"])
    with pytest.raises(IndexError):
        patches[4]


def test_a_sequence_without_keras_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(
        MissingExtraError, match=r'PatchSequence needs keras.*pip install "xee-tf\[tensorflow\]"'
    ):
        PatchSequence(raster({"a": random_band((64, 64))}), inputs="a")


@pytest.mark.parametrize("bands", [None, ["a"]])
def test_mask_that_is_an_array(bands):
    values = random_band((30, 30), "float32")
    ds = raster({"a": values, "b": values})
    mask = ds["a"] > 50
    patches = open_patches(ds.chunk(8), patch_dimensions=10, bands=bands, mask=mask, default_value=-1)
    found = np.block([[patches[3 * row + column]["a"] for column in range(3)] for row in range(3)])
    np.testing.assert_array_equal(found, np.where(mask, -1, values))


def test_indices_and_pickles():
    patches = open_patches(raster({"a": random_band((40, 40))}).chunk(16), patch_dimensions=10)
    whole = patches[:]["a"]
    for index in (np.array([3, 0]), [15, 15], np.array(7), np.int32(2)):
        np.testing.assert_array_equal(patches[index]["a"], whole[index])
    with pytest.raises(IndexError, match="one axis; got an index with 2"):
        patches[np.zeros((2, 2), int)]
    copied = pickle.loads(pickle.dumps(patches))
    np.testing.assert_array_equal(copied[5]["a"], whole[5])
    with pytest.raises(OptionError, match="batch_size"):
        patches.batches(0)
    some = open_patches(raster({"a": random_band((40, 40))}), patch_dimensions=10, patches=[9, 2, 4])
    assert list(some.selection) == [2, 4, 9]
    assert set(sample_patches(some, 2)) < {2, 4, 9}


@pytest.mark.parametrize("batch_size", [7, 100, 1000])
def test_memory_is_a_limit_whatever_the_batches(batch_size, monkeypatch):
    loads = Loads((2048, 2048), (128, 128))
    patches = open_patches(loads.dataset(), patch_dimensions=32, memory="6 MiB")
    sizes = []
    load = BlockMemory._load

    def measured(memory, blocks):
        found = load(memory, blocks)
        sizes.append(sum(array.nbytes for block in found.values() for array in block.arrays))
        return found

    monkeypatch.setattr(BlockMemory, "_load", measured)
    numbers = [batch["a"][:, 0, 0] for batch in patches.batches(batch_size)]
    assert sorted(np.concatenate(numbers)) == sorted(patches[:]["a"][:, 0, 0])
    indices = np.random.default_rng(0).permutation(len(patches))[:batch_size]
    patches[indices]
    assert max(sizes) <= 6 * 2**20 / 5
