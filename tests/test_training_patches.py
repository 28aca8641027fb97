"""The records of selected patches, and the order of shuffled records."""

from __future__ import annotations

import gzip
from dataclasses import replace
from unittest import mock

import pytest

pytest.importorskip("tensorflow")

import numpy as np

from tests.oracle import cut_patches
from tests.rasters import random_band, raster
from xee_tf import GridMismatchError, Mixer, OptionError, PatchSelection, Size
from xee_tf.reading import open_export
from xee_tf.shards import access
from xee_tf.training.dataset import tf_dataset

SHAPE = (150, 170)
PATCH, KERNEL = (10, 12), (4, 2)
NUMBER = np.arange(np.prod(SHAPE), dtype="float32").reshape(SHAPE)
BANDS = {"number": NUMBER, "noise": random_band(SHAPE, "float32", seed=2)}


def export(folder, bands=BANDS, **options):
    given = {"patch_dimensions": PATCH, "kernel_size": KERNEL, "max_file_size": 30_000, **options}
    return raster(bands).tfexport(folder / "scene", **given)


def select(result, share=0.2, seed=1):
    grid = open_export(result).grid
    return PatchSelection(grid, np.flatnonzero(np.random.default_rng(seed).random(len(grid)) < share))


def expected(numbers, kernel=KERNEL):
    cut = cut_patches(NUMBER, patch=PATCH, kernel=kernel, default=0)[0]
    return np.stack([cut[number] for number in numbers])[..., None]


def joined(data):
    return np.concatenate(list(data.as_numpy_iterator()))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.3, 1])
def test_only_selected_patches_are_read(tmp_path, compressed, share):
    result = export(tmp_path, compressed=compressed)
    selection = select(result, share)
    data = tf_dataset(result, inputs="number", patches=selection, batch_size=4)
    np.testing.assert_array_equal(joined(data), expected(selection.patches))
    assert data.cardinality() == -(-len(selection) // 4)
    shuffled = tf_dataset(result, inputs="number", patches=selection, shuffle=True, seed=3)
    first, second = joined(shuffled), joined(shuffled)
    for found in (first, second):
        found = found[np.argsort(found[:, 5, 5, 0])]
        np.testing.assert_array_equal(found, expected(selection.patches))
    if len(selection) > 5:
        assert not np.array_equal(first, second)


@pytest.mark.parametrize("compressed", [True, False])
def test_other_records_are_not_read(tmp_path, compressed):
    noise = {f"b{n}": random_band(SHAPE, "float32", seed=n) for n in range(30)}
    result = export(tmp_path, {**BANDS, **noise}, compressed=compressed, max_file_size=2**20, kernel_size=1)
    selection = PatchSelection(open_export(result).grid, [3, 101, 102])
    data = tf_dataset(result, inputs="number", patches=selection)
    read, real = [], access._read_plain

    def count(shard, begin, end):
        read.append(end - begin)
        return real(shard, begin, end)

    with mock.patch.object(access, "_read_plain", count):
        np.testing.assert_array_equal(joined(data), expected([3, 101, 102], (1, 1)))
    stored = sum(file.stat().st_size for file in tmp_path.glob("*.tfrecord*"))
    assert 0 < sum(read) < 0.2 * stored


def test_dropped_patches(tmp_path):
    clouds = random_band((13, 18), seed=4).repeat(12, 0).repeat(10, 1)[: SHAPE[0], : SHAPE[1]] > 60
    masked = {"number": np.where(clouds, np.nan, NUMBER)}
    result = export(tmp_path, masked, masked_threshold=0.2, kernel_size=1)
    selection = select(result, 0.5)
    kept = open_export(result).patches
    numbers = np.intersect1d(selection.patches, kept)
    assert 0 < len(numbers) < len(selection)
    found = joined(tf_dataset(result, inputs="number", patches=selection))
    np.testing.assert_array_equal(found, expected(numbers, (1, 1)))
    nothing = PatchSelection(selection.grid, np.setdiff1d(np.arange(len(selection.grid)), kept)[:3])
    with pytest.raises(OptionError, match="no records of the 3 selected patches"):
        tf_dataset(result, inputs="number", patches=nothing)


def test_pixels_of_series(tmp_path):
    cube = raster({"number": NUMBER}).expand_dims(time=2)
    result = cube.tfexport(tmp_path / "cube", patch_dimensions=PATCH, sequence_data=True)
    selection = select(result)
    pixels = joined(tf_dataset(result, inputs="number", patches=selection, batch_size=1000))
    np.testing.assert_array_equal(pixels[:, 0, 0], expected(selection.patches, (1, 1)).ravel())


@pytest.mark.parametrize("cache", [True, "file"])
def test_files_of_other_programs_and_caches(tmp_path, cache):
    result = export(tmp_path)
    selection = select(result)
    for file in tmp_path.glob("*.gz"):  # one stream without an index
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())))
    options = {"inputs": "number", "cache": cache if cache is True else tmp_path / "cache"}
    for _ in range(2):
        data = tf_dataset(result, **options, patches=selection)
        np.testing.assert_array_equal(joined(data), expected(selection.patches))
    other = select(result, seed=7)
    data = tf_dataset(result, **options, patches=other)
    np.testing.assert_array_equal(joined(data), expected(other.patches))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"patch": Size(x=12, y=10)}, GridMismatchError, "of 12 x 10 pixels .* of 10 x 12 pixels"),
        ({"shape": Size(x=160, y=150)}, GridMismatchError, "x 16 patches.* x 17 patches"),
        ({"margin": Size(x=0, y=0)}, OptionError, r"a margin of \(0, 0\) pixels, but these have \(2, 1\)"),
        ({"crs": "EPSG:32634"}, GridMismatchError, "in EPSG:32634; expected .* in EPSG:"),
    ],
)
def test_the_grid_must_be_that_of_the_export(tmp_path, change, error, message):
    result = export(tmp_path)
    grid = replace(open_export(result).grid, **change)
    with pytest.raises(error, match=f"patches .*{message}"):
        tf_dataset(result, inputs="number", patches=PatchSelection(grid, [1, 2]))


def test_selections_require_one_image(tmp_path):
    result = export(tmp_path)
    selection = select(result)
    with pytest.raises(OptionError, match=r"patches must be an xee_tf.PatchSelection, .*; got \[1, 2\]"):
        tf_dataset(result, inputs="number", patches=[1, 2])
    with pytest.raises(OptionError, match="requires one export of an image; got several exports"):
        tf_dataset([result, result], inputs="number", patches=selection)
    files = sorted(map(str, tmp_path.glob("*.gz")))
    with pytest.raises(OptionError, match="without a mixer or manifest"):
        tf_dataset(files, inputs="number", patches=selection, patch_dimensions=(14, 14))
    assert len(Mixer.read(result.mixer).grid()) == len(selection.grid)


def test_one_large_shard_is_shuffled_as_a_whole(tmp_path):
    wide = {"number": np.arange(320 * 320, dtype="float32").reshape(320, 320)}
    result = raster(wide).tfexport(tmp_path / "scene", patch_dimensions=32)
    assert len(result.files) == 1
    with mock.patch("xee_tf.training.pieces._LOCAL_BYTES", 16 << 10):
        data = tf_dataset(result, inputs="number", shuffle=8, seed=2, batch_size=1)
        again = tf_dataset(result, inputs="number", shuffle=8, seed=2, batch_size=1)
    first, second = (joined(data)[:, 0, 0, 0] for _ in range(2))
    np.testing.assert_array_equal(joined(again)[:, 0, 0, 0], first)
    assert not np.array_equal(first, second)
    plain = joined(tf_dataset(result, inputs="number"))[:, 0, 0, 0]
    np.testing.assert_array_equal(np.sort(first), np.sort(plain))
    place = {number: at for at, number in enumerate(plain)}
    # A buffer of 8 alone would keep each record close to its place.
    assert np.mean([place[number] for number in first[:20]]) > 20


def test_a_corrupt_record_is_found_by_shuffled_reads(tmp_path):
    import tensorflow as tf

    result = raster({"number": NUMBER}).tfexport(tmp_path / "scene", patch_dimensions=50, compressed=False)
    [file] = tmp_path.glob("*.tfrecord")
    data = tf_dataset(result, inputs="number", shuffle=True)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(tf.errors.OpError, match="record 4 is corrupt"):
        joined(data)
