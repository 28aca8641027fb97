"""Records that are decoded as they are read, compared with those that TensorFlow parses."""

from __future__ import annotations

from unittest import mock

import pytest

tf = pytest.importorskip("tensorflow")

import numpy as np

from tests.rasters import raster
from xee_tf import PatchSelection, export_image
from xee_tf.reading import open_export
from xee_tf.training.dataset import tf_dataset
from xee_tf.training.pieces import Pieces

SIDE = 40


@pytest.fixture(autouse=True)
def decode_small_records(monkeypatch):
    """Decode records of any size, and read each separately."""
    monkeypatch.setattr("xee_tf.training.dataset._LEAST_DECODED", 1)
    monkeypatch.setattr("xee_tf.training.pieces._LOCAL_BYTES", 1)


def export(folder, seed, **options):
    """Export a column of patches, each of which is a run of the manifest, with bands of several dtypes."""
    random = np.random.default_rng(seed)
    shape = (int(random.integers(4, 9)) * SIDE, SIDE)
    types = str(random.choice(["float", "band"]))
    bands = {
        "float": random.normal(size=shape).astype(random.choice(["float32", "float64"])),
        "integer": random.integers(-(2**15), 2**15, shape).astype("int32" if types == "band" else "int16"),
        "byte": random.integers(0, 256, shape).astype("uint8"),
    }
    bands["float"][random.random(shape) < 0.1] = np.nan
    ds = raster(bands)
    depth = int(random.integers(1, 4))
    ds["series"] = (("time", "y", "x"), random.normal(size=(depth, *shape)).astype("float32"))
    given = {
        "patch_dimensions": SIDE,
        "kernel_size": int(random.choice([1, 4])),
        "feature_types": types,
        "max_file_size": 100_000,
        "default_value": 7,
        **options,
    }
    return export_image(ds[random.permutation(list(ds)).tolist()], folder / "scene", **given)


def elements(result, decoded, **options):
    """Return the elements of a dataset, of which records are decoded or parsed."""
    with mock.patch.object(Pieces, "decode", autospec=True, side_effect=Pieces.decode) as decode:
        if decoded:
            data = tf_dataset(result, **options)
        else:
            with mock.patch("xee_tf.training.dataset._is_decoded", return_value=False):
                data = tf_dataset(result, **options)
        found = [tf.nest.flatten(element) for epoch in range(2) for element in data.as_numpy_iterator()]
    assert decode.called == decoded
    return found, data.cardinality().numpy(), data.element_spec


OPTIONS = [
    {"inputs": ["series", "float", "byte"], "target_dtype": "int64"},
    {"inputs": {"x": ["byte"], "y": ["series"]}, "drop_remainder": True, "repeat": 2},
    {"inputs": ["float", "integer"], "shuffle": 3, "seed": 1, "target_margins": "trim"},
    {"inputs": "series", "normalize": {"series": (0.5, 2)}, "sample_weight": "mask", "default_value": 7},
    {"inputs": "float", "unit": "pixel", "shuffle": True, "seed": 7, "batch_size": 999},
    {"inputs": "float", "augment": "d4", "seed": 3, "shuffle": 2, "num_parallel_reads": 2},
    {"inputs": "byte", "patches": [1, 3]},
]


@pytest.mark.parametrize("seed", range(len(OPTIONS)))
def test_decoded_records_equal_parsed_records(tmp_path, seed):
    result = export(tmp_path, seed, compressed=bool(seed % 2))
    options = {"targets": {"a": ["integer", "byte"], "b": "float"}, "batch_size": 3, **OPTIONS[seed]}
    if "patches" in options:
        options["patches"] = PatchSelection(open_export(result).grid, np.array(options["patches"]))
    found, size, spec = elements(result, True, **options)
    expected, same_size, same_spec = elements(result, False, **options)
    assert (size, len(found)) == (same_size, len(expected))
    for one, other in zip(tf.nest.flatten(spec), tf.nest.flatten(same_spec), strict=True):
        assert one.is_subtype_of(other)
    for these, those in zip(found, expected, strict=True):
        for one, other in zip(these, those, strict=True):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_corrupt_record_is_named(tmp_path, shuffle):
    result = export(tmp_path, 1, compressed=False)
    path = sorted(tmp_path.glob("*.tfrecord"))[-1]
    data = tf_dataset(result, inputs="float", shuffle=shuffle)
    content = bytearray(path.read_bytes())
    content[len(content) - 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(tf.errors.OpError, match=rf"RecordError: .*{path.name}: record \d+ is corrupt"):
        list(data)


def test_a_record_of_another_layout_is_named(tmp_path):
    """Without a manifest, only the first record is known when the dataset is created."""
    bands = {name: np.zeros((4 * SIDE, SIDE), "float32") for name in ("a", "b")}
    result = export_image(raster(bands), tmp_path / "scene", patch_dimensions=SIDE, compressed=False)
    bands["c"] = bands.pop("b")
    export_image(raster(bands), tmp_path / "other", patch_dimensions=SIDE, compressed=False)
    first, second = (next(tmp_path.glob(f"{name}*.tfrecord")) for name in ("scene", "other"))
    content, replaced = first.read_bytes(), second.read_bytes()
    half = len(content) // 2
    first.write_bytes(content[:half] + replaced[half:])
    next(tmp_path.glob("scene*.tfexport")).unlink()
    data = tf_dataset(result.mixer, inputs=["a", "b"], batch_size=1)
    with pytest.raises(tf.errors.OpError, match=rf"{first.name}: record 2: feature 'b' not found"):
        list(data)
