"""Batches for Keras straight from a raster: the arrays of `tf_dataset`, with any order of requests."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

import keras
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.rasters import random_band, raster
from tests.strategies import chunkings, examples
from tests.test_patches import Loads
from xee_tf import GridMismatchError, OptionError, PatchSequence, band_statistics, split_patches, tf_dataset
from xee_tf.training.patches import PatchReader
from xee_tf.training.turns import Turn, Turns


def bands(height, width):
    ds = raster(
        {
            "red": np.where(random_band((height, width), seed=3) < 20, np.nan, random_band((height, width))),
            "nir": random_band((height, width), "int16", seed=1),
            "crop": random_band((height, width), "uint8", seed=2) % 5,
        }
    )
    steps = random_band((3, height, width), "float64", seed=4) / 7
    return ds.assign(ndvi=(("time", "y", "x"), steps))


def batches(sequence):
    return [batch if isinstance(batch, tuple) else (batch,) for batch in sequence]


@examples(8)
@given(st.data())
def test_batches_are_those_of_an_export(data):
    height, width = data.draw(st.integers(12, 50)), data.draw(st.integers(12, 50))
    ds = bands(height, width)
    export = {
        "patch_dimensions": (data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))),
        "kernel_size": data.draw(st.integers(1, 8)),
        "edge": data.draw(st.sampled_from(["drop", "pad"])),
        "default_value": (default := data.draw(st.sampled_from([0, 3]))),
    }
    inputs = data.draw(st.lists(st.sampled_from(["red", "nir", "ndvi"]), min_size=1, unique=True))
    targets = data.draw(st.sampled_from([None, ["crop"], ["nir", "crop"], ["ndvi"]]))
    read = {
        "inputs": inputs,
        "targets": targets,
        "batch_size": data.draw(st.integers(1, 9)),
        "drop_remainder": data.draw(st.booleans()),
        "margins": data.draw(st.sampled_from(["keep", "trim"])),
        "target_margins": data.draw(st.sampled_from([None, "keep", "trim"])),
        "target_dtype": data.draw(st.sampled_from(["float32", "int64", "uint8", "float16"])),
        # 3 is also a value of valid pixels, which only the masks of the raster tell from masked ones.
        "normalize": data.draw(st.sampled_from([None, band_statistics(ds)])) if not default else None,
        "one_hot": data.draw(st.sampled_from([None, 4])) if targets == ["crop"] else None,
    }
    lazy = ds.chunk({"y": data.draw(chunkings(height)), "x": data.draw(chunkings(width)), "time": 2})
    sequence = PatchSequence(lazy, **read, **export, shuffle=False)
    with tempfile.TemporaryDirectory() as folder:
        result = ds.tfexport(Path(folder) / "a", **export)
        expected = batches(tf_dataset(result, **read).as_numpy_iterator())
    assert len(sequence) == len(expected)
    for found, wanted in zip(batches(sequence), expected, strict=True):
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine.dtype == theirs.dtype
            if read["normalize"] is None:
                np.testing.assert_array_equal(mine, theirs)
            else:
                np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)


def numbered(height, width, **options):
    ds = raster({"number": np.arange(float(height * width)).reshape(height, width)})
    ds = ds.chunk({"y": 16, "x": 16})
    return PatchSequence(ds, **{"inputs": "number", "patch_dimensions": 8, "batch_size": 5, **options})


def places(batch):
    return batch[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("threads", [1, 6])
@pytest.mark.parametrize("requests", ["ascending", "random", "repeated"])
def test_every_patch_once_per_epoch_whatever_the_requests(threads, requests):
    sequence = numbered(96, 80, seed=5)
    everything = sorted(place for batch in numbered(96, 80, shuffle=False) for place in places(batch))
    orders = []
    for epoch in range(3):
        indices = list(range(len(sequence)))
        if requests != "ascending":
            random.Random(epoch).shuffle(indices)
        if requests == "repeated":
            indices = [0, 1, *indices, *indices[:7]]
        with ThreadPoolExecutor(threads) as pool:
            found = dict(zip(indices, pool.map(sequence.__getitem__, indices), strict=True))
        orders.append([place for index in range(len(sequence)) for place in places(found[index])])
        assert sorted(orders[-1]) == everything
        sequence.on_epoch_end()
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[0] != everything


def test_seed_determines_order_and_symmetries():
    first, same, other = (
        [batch.tolist() for batch in numbered(64, 48, augment="d4", seed=seed)] for seed in (7, 7, 8)
    )
    assert first == same
    assert first != other


def test_symmetries_are_the_same_for_targets():
    ds = raster({"a": random_band((60, 60)), "b": random_band((60, 60), seed=1)}).assign(
        c=(("t", "y", "x"), random_band((2, 60, 60), seed=2))
    )
    options = {"inputs": ["a", "c"], "targets": ["a"], "patch_dimensions": 4, "kernel_size": 3}
    options |= {"shuffle": False, "batch_size": 200}
    plain, _ = next(iter(PatchSequence(ds, **options)))
    found, targets = next(iter(PatchSequence(ds, **options, augment="d4", seed=3)))
    np.testing.assert_array_equal(found[:, 1, :, :, :1], targets)
    seen = set()
    for before, after in zip(plain, found, strict=True):
        sides = (before, before[:, :, ::-1])
        turned = [np.rot90(side, turns, (1, 2)) for side in sides for turns in range(4)]
        seen.add(next(number for number, each in enumerate(turned) if np.array_equal(each, after)))
    assert seen == set(range(8))


@pytest.mark.parametrize(("workers", "ordered"), [(1, True), (3, True), (1, False), (3, False)])
def test_training_loads_each_chunk_about_once_per_epoch(workers, ordered):
    loads = Loads((2048, 512), (64, 64))  # 4 MiB
    sequence = PatchSequence(
        loads.dataset(),
        inputs="a",
        targets="a",
        patch_dimensions=32,
        kernel_size=5,
        batch_size=16,
        workers=workers,
        memory="24 MiB",
        normalize={"a": (0, 2**20)},
    )
    model = keras.Sequential([keras.layers.Conv2D(1, 1)])
    model.compile("sgd", "mse")
    epochs = 3
    history = model.fit(sequence, epochs=epochs, verbose=0, shuffle=not ordered)
    assert len(history.history["loss"]) == epochs
    assert len(loads.counts) == 256
    # TensorFlow requests two batches before the first epoch.
    assert sum(loads.counts.values()) <= (epochs + 0.5) * 256


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kernel", [1, 33])
def test_random_requests_of_a_raster_larger_than_memory(kernel, threads):
    loads = Loads((8192, 1536), (128, 128))  # 48 MiB
    options = {"patch_dimensions": 64, "kernel_size": kernel, "batch_size": 16, "seed": 1}
    sequence = PatchSequence(loads.dataset(), inputs="a", memory="14 MiB", **options)
    for epoch in range(2):
        before = sum(loads.counts.values())
        indices = list(range(len(sequence)))
        random.Random(epoch).shuffle(indices)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda index: sequence[index].shape, indices))
        assert sum(loads.counts.values()) - before <= 1.15 * 768
        sequence.on_epoch_end()


@pytest.mark.parametrize("step", ["load", "read"])
def test_threads_that_run_ahead_leave_a_slow_thread_its_blocks(step, monkeypatch):
    loads = Loads((4096, 768), (128, 128))  # 12 MiB
    options = {"patch_dimensions": 64, "kernel_size": 33, "batch_size": 16, "seed": 1}
    sequence = PatchSequence(loads.dataset(), inputs="a", memory="13 MiB", **options)
    expected = [sequence[index] for index in range(len(sequence))]
    loads.counts.clear()
    sequence = PatchSequence(loads.dataset(), inputs="a", memory="13 MiB", **options)
    held, go_on = threading.Event(), threading.Event()
    original = getattr(PatchReader, step)

    def slow(*args):
        if threading.current_thread() is thread:
            held.set()
            assert go_on.wait(300)
        return original(*args)

    monkeypatch.setattr(PatchReader, step, slow)
    first = []
    thread = threading.Thread(target=lambda: first.append(sequence[0]))
    thread.start()
    assert held.wait(300)
    found = [sequence[index] for index in range(1, len(sequence))]  # in the rest of the memory
    before = sum(loads.counts.values())
    assert before <= 1.15 * 192
    go_on.set()
    thread.join()
    assert sum(loads.counts.values()) == before
    np.testing.assert_array_equal(np.concatenate(first + found), np.concatenate(expected))


def test_requests_wait_in_their_order_if_their_windows_do_not_fit():
    turns = Turns(2)
    first, second, third, fourth = (Turn(turns, [name]) for name in "aabc")
    fifth = Turn(turns, ["a"])
    served = []
    threads = [
        threading.Thread(target=lambda turn=turn, name=name: (turn.wait(), served.append(name)))
        for name, turn in {"fourth": fourth, "fifth": fifth}.items()
    ]
    with first, second, third, fourth, fifth:
        for turn in (first, second, third):
            turn.wait()
        for thread in threads:
            thread.start()
        assert turns.used == ["a", "b"]
        assert not served
        third.__exit__()
        for thread in threads:
            thread.join(300)
        assert sorted(served) == ["fifth", "fourth"]
        assert turns.used == ["a", "c"]
        turns.begin(third)  # its context ends it again
    assert turns.used == []
    with pytest.raises(ValueError, match="interrupted"), first, Turn(turns, "bc"), Turn(turns, "d"):
        raise ValueError("interrupted while others wait")
    assert turns.used == []


def test_it_is_a_dataset_of_keras_and_of_its_own_class():
    class Weighted(PatchSequence):
        def __getitem__(self, index):
            inputs = super().__getitem__(index)
            return inputs, inputs, np.ones(len(inputs))

    ds = raster({"a": random_band((32, 32))})
    sequence = Weighted(ds, inputs="a", patch_dimensions=8, workers=2, max_queue_size=4)
    assert isinstance(sequence, keras.utils.PyDataset)
    assert isinstance(sequence, Weighted)
    assert (sequence.workers, sequence.max_queue_size, sequence.num_batches) == (2, 4, 1)
    assert len(sequence[0]) == 3
    assert repr(sequence).startswith("<xee_tf.PatchSequence: 1 batch from <xee_tf.Patches: 16 patches of 8")


SCRIPT = """
import sys
import keras, numpy as np, xarray as xr, xee_tf

assert keras.backend.backend() == {backend!r}
x, y = 7e5 + 30 * np.arange(64.0), 5e6 - 30 * np.arange(64.0)
band = (("y", "x"), np.random.default_rng(0).random((64, 64), "float32"))
ds = xr.Dataset({{"a": band, "b": band}}, coords={{"x": x, "y": y}}, attrs={{"crs": "EPSG:32633"}}).chunk(32)
options = dict(inputs="a", patch_dimensions=16, batch_size=4)
model = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Conv2D(1, 1)])
found = model.predict(xee_tf.PatchSequence(ds, shuffle=False, **options), verbose=0)
assert found.shape == (16, 16, 16, 1)
if {backend!r} != "numpy":  # which cannot train
    model.compile("adam", "mse")
    data = xee_tf.PatchSequence(ds, targets="b", augment="d4", workers=2, **options)
    history = model.fit(data, validation_data=data, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
if {backend!r} != "tensorflow":
    assert "tensorflow" not in sys.modules
"""
# Keras's backends numpy and jax both import SciPy and JAX.
JAX = all(find_spec(name) is not None for name in ("scipy", "jax"))
BACKENDS = ["tensorflow", *["numpy", "jax"] * JAX]


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_of_keras(backend):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", SCRIPT.format(backend=backend)], env=environment, check=True)


def test_the_package_does_not_import_keras():
    code = "import sys, xee_tf; xee_tf.PatchSequence; from xee_tf import *; print('keras' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ["a", "z"]}, "The image has no band 'z'; available: 'a', 'b', 'c'"),
        ({"inputs": ["b", "c"]}, "Bands of different depths cannot be stacked; got the depths"),
        ({"target_dtype": "text"}, "target_dtype must be a numeric dtype, such as 'float32'; got 'text'"),
        ({"augment": "d4", "patch_dimensions": (8, 4)}, "these have 8 x 4 pixels. Omit augment"),
        ({"one_hot": 3}, "one_hot=3 requires a single target band"),
        ({"normalize": {"b": (0, 1)}}, r"normalize lacks the inputs \['a'\]"),
        ({"margins": "crop"}, "margins must be 'keep' or 'trim'; got 'crop'"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 to"),
        ({"memory": 5000}, "memory=4.88 kiB is too small"),
    ],
)
def test_errors(options, message):
    ds = raster({"a": random_band((32, 32))})
    for name, steps in (("b", 2), ("c", 3)):
        ds[name] = ((name + "_steps", "y", "x"), random_band((steps, 32, 32)))
    with pytest.raises(OptionError, match=message):
        PatchSequence(ds, **{"inputs": "a", "patch_dimensions": 8, **options})


def test_several_inputs_of_one_side_of_a_split(tmp_path):
    ds = bands(60, 72).astype("float32").chunk({"y": 25, "x": 30})
    export = {"patch_dimensions": 8, "kernel_size": 4, "default_value": -7}
    split = split_patches(ds.tfexport.plan(**export), {"train": 0.6, "test": 0.4}, block=2, seed=3)
    read = {
        "inputs": {"image": ["red", "nir"], "series": "ndvi"},
        "targets": {"classes": ["crop"], "again": "nir"},
        "normalize": {"red": (-7, 2), "nir": {"mean": 1, "std": 4}, "ndvi": (0, 1)},
        "patches": split["test"],
        "batch_size": 6,
    }
    result = ds.tfexport(tmp_path / "a", **export)
    expected = list(tf_dataset(result, **read).as_numpy_iterator())
    found = list(PatchSequence(ds, **read, **export, shuffle=False))
    assert sum(len(inputs["image"]) for inputs, _ in found) == len(split["test"]) > 6
    for mine, theirs in zip(found, expected, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert list(one) == list(other)
            for name in one:
                np.testing.assert_allclose(one[name], other[name], rtol=1e-6)


def test_normalization_by_name_and_other_grids():
    ds = bands(40, 40)
    with pytest.raises(OptionError, match=r"'minmax' needs the statistics of an export.*band_statistics"):
        PatchSequence(ds, inputs="red", patch_dimensions=8, normalize="minmax")
    chosen = split_patches(ds.tfexport.plan(patch_dimensions=10), {"a": 1}, block=1)["a"]
    with pytest.raises(GridMismatchError, match="selects patches of another grid"):
        PatchSequence(ds, inputs="red", patch_dimensions=8, patches=chosen)


@pytest.mark.parametrize("augment", [None, "d4"])
@pytest.mark.parametrize(
    ("targets", "weights"),
    [
        ("crop", {"sample_weight": "mask"}),
        ("crop", {"class_weight": {0: 0.5, 3: 2}}),
        ("crop", {"class_weight": {1: 4}, "sample_weight": ["quality", "nir"], "one_hot": 5}),
        ({"a": ["crop", "red"], "b": "ndvi"}, {"sample_weight": "mask"}),
        ("ndvi", {"sample_weight": "quality"}),
    ],
)
def test_weights_are_those_of_an_export(tmp_path, targets, weights, augment):
    ds = bands(50, 45).astype("float32")
    ds["crop"] = ds["crop"].where(random_band((50, 45), seed=8) > 60)
    ds["quality"] = ds["red"] * 0 + 0.5
    ds["ndvi"] = ds["ndvi"].where(ds["ndvi"] > 10)
    export = {"patch_dimensions": 8, "kernel_size": 6, "default_value": -7, "edge": "pad"}
    read = {"inputs": "nir", "targets": targets, "batch_size": 7, "target_margins": "trim", **weights}
    found = list(
        PatchSequence(ds.chunk(y=20, x=30), **read, **export, shuffle=False, augment=augment, seed=1)
    )
    result = ds.tfexport(tmp_path / "a", **export)
    expected = list(tf_dataset(result, **read).as_numpy_iterator())
    for mine, theirs in zip(found, expected, strict=True):
        for one, other in zip(flat(mine), flat(theirs), strict=True):
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            if augment is None:
                np.testing.assert_allclose(one, other, rtol=1e-6)
        if augment is not None and targets == "crop" and weights == {"sample_weight": "mask"}:
            _, target, weight = mine
            np.testing.assert_array_equal(weight, (target[..., 0] != -7).astype("float32"))


def flat(batch):
    return [array for part in batch for array in (part.values() if isinstance(part, dict) else (part,))]


def test_weights_need_targets_and_numbers():
    ds = bands(20, 20)
    options = {"inputs": "red", "patch_dimensions": 8}
    for wrong, message in (
        ({"sample_weight": "mask"}, "there are no targets"),
        ({"targets": "crop", "class_weight": "balanced"}, "needs the class counts of an export"),
        ({"targets": ["crop", "nir"], "class_weight": {1: 2}}, "requires a single target band"),
        ({"targets": "crop", "sample_weight": "ndvi"}, "'ndvi' has 3 steps, but the targets have none"),
    ):
        with pytest.raises(OptionError, match=message):
            PatchSequence(ds, **options, **wrong)


def test_valid_pixels_with_the_default_value_are_normalized():
    values = random_band((32, 32), "uint8").astype("float32")
    masked = random_band((32, 32), seed=4) > 50
    ds = raster({"a": np.where(masked, np.nan, values)})
    options = {
        "inputs": "a",
        "patch_dimensions": 32,
        "default_value": float(values[~masked][0]),
        "shuffle": False,
    }
    [batch] = PatchSequence(ds, **options, normalize={"a": (10, 4)})
    np.testing.assert_array_equal(batch[0, ..., 0], (np.where(masked, 0, values) - 10) / 4)
