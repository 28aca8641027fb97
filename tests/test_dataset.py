"""Compare the elements of tf.data pipelines with the exported pixels."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import pandas as pd
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle import cut_patches
from tests.rasters import random_band, raster, raw_records
from tests.strategies import examples, sizes
from xee_tf import MissingShardError, MixerError, OptionError, RecordError, export_table
from xee_tf.training.dataset import tf_dataset
from xee_tf.training.spec import feature_spec

SHAPE = (70, 90)
BANDS = {
    "B3": np.arange(70 * 90, dtype="float32").reshape(SHAPE),  # a different number in every pixel
    "B4": random_band(SHAPE, "float32", seed=1),
    "class": random_band(SHAPE, "uint8", seed=2),
    "height": random_band(SHAPE, "int16", seed=3) - 60,
}
PATCH, KERNEL = (20, 16), (6, 2)  # the only kernel that matches the length of these records


def export(folder, name="scene", bands=BANDS, **options):
    """Export bands to shards of a few records; return the path of the mixer."""
    options = {"patch_dimensions": PATCH, "kernel_size": KERNEL, "max_file_size": 25_000, **options}
    result = raster(bands).tfexport(folder / name, **options)
    return str(result.mixer)


def expected(*names, patch=PATCH, kernel=KERNEL, bands=BANDS):
    """The expected patches with bands last: (patch, y, x, band)."""
    cut = [cut_patches(bands[name], patch=patch, kernel=kernel, default=0)[0] for name in names]
    return np.stack([np.stack(patches).astype("float32") for patches in cut], axis=-1)


def joined(dataset):
    """All elements of a dataset as one array, or as a tuple of arrays."""
    elements = list(dataset.as_numpy_iterator())
    if isinstance(elements[0], tuple):
        return tuple(np.concatenate(parts) for parts in zip(*elements, strict=True))
    return np.concatenate(elements)


@pytest.fixture(scope="module")
def mixer(tmp_path_factory):
    return export(tmp_path_factory.mktemp("export"))


# -- Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature_types", ["float", "band"])
@pytest.mark.parametrize("compressed", [True, False])
def test_patches_equal_the_exported_patches(tmp_path, feature_types, compressed):
    mixer = export(tmp_path, feature_types=feature_types, compressed=compressed)
    inputs, targets = ["height", "B3", "class"], ["class"]
    dataset = tf_dataset(mixer, inputs=inputs, targets=targets, batch_size=3)
    images, labels = joined(dataset)
    np.testing.assert_array_equal(images, expected(*inputs))
    np.testing.assert_array_equal(labels, expected(*targets))
    assert images.dtype == labels.dtype == "float32"
    assert dataset.element_spec[0].shape.as_list() == [None, 18, 26, 3]
    assert dataset.cardinality() == 6  # 16 patches by 3


def test_inputs_without_targets(mixer):
    images = joined(tf_dataset(mixer, inputs="B4"))
    np.testing.assert_array_equal(images, expected("B4"))


def test_the_order_of_records_is_kept_with_parallel_reads(mixer):
    dataset = tf_dataset(mixer, inputs="B3", batch_size=1, num_parallel_reads=8)
    for _ in range(3):
        np.testing.assert_array_equal(joined(dataset), expected("B3"))


def test_margins_can_be_trimmed(mixer):
    core = expected("B3", "B4")[:, 1:-1, 3:-3]
    np.testing.assert_array_equal(joined(tf_dataset(mixer, inputs=["B3", "B4"], margins="trim")), core)
    images, labels = joined(tf_dataset(mixer, inputs="B3", targets="B4", target_margins="trim"))
    np.testing.assert_array_equal(images, expected("B3"))
    np.testing.assert_array_equal(labels, core[..., 1:])


def test_integer_targets(mixer):
    _, labels = joined(tf_dataset(mixer, inputs="B3", targets="height", target_dtype="int32"))
    assert labels.dtype == "int32"
    np.testing.assert_array_equal(labels, expected("height"))


@examples(10)
@given(patch=sizes(1, 30), kernel=sizes(1, 12), batch_size=st.integers(1, 9), data=st.data())
def test_any_patch_and_kernel(tmp_path_factory, patch, kernel, batch_size, data):
    size = data.draw(sizes(30, 60))
    bands = {"a": random_band(size.shape), "b": random_band(size.shape, "uint8", seed=5)}
    mixer = export(
        tmp_path_factory.mktemp("any"),
        bands=bands,
        patch_dimensions=patch.xy,
        kernel_size=kernel.xy,
        feature_types="band",
    )
    dataset = tf_dataset(mixer, inputs=["b", "a"], batch_size=batch_size, kernel_size=kernel.xy)
    np.testing.assert_array_equal(
        joined(dataset), expected("b", "a", patch=patch.xy, kernel=kernel.xy, bands=bands)
    )


# -- Pixels ------------------------------------------------------------------------------------------


def test_each_pixel_appears_once_in_the_order_of_the_patches(mixer):
    dataset = tf_dataset(mixer, inputs=["B3", "height"], targets="class", unit="pixel", batch_size=1000)
    pixels, labels = joined(dataset)
    core = expected("B3", "height", "class")[:, 1:-1, 3:-3].reshape(-1, 3)
    np.testing.assert_array_equal(pixels, core[:, :2])
    np.testing.assert_array_equal(labels, core[:, 2:])
    np.testing.assert_array_equal(np.sort(pixels[:, 0]), np.sort(BANDS["B3"][:64, :80].ravel()))
    assert dataset.cardinality() == 6  # 5,120 pixels by 1,000
    assert [len(part) for part, _ in dataset] == [1000] * 5 + [120]


def test_pixels_with_margins(mixer):
    pixels = joined(tf_dataset(mixer, inputs="B4", unit="pixel", margins="keep", batch_size=77))
    np.testing.assert_array_equal(pixels, expected("B4").reshape(-1, 1))


# -- Order -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["patch", "pixel"])
def test_shuffled_examples_are_a_permutation(mixer, unit):
    options = {"inputs": "B3", "targets": "B4", "unit": unit, "batch_size": 7}
    plain, plain_targets = joined(tf_dataset(mixer, **options))
    dataset = tf_dataset(mixer, shuffle=True, seed=3, **options)
    first, first_targets = joined(dataset)
    second, _ = joined(dataset)
    again, _ = joined(tf_dataset(mixer, shuffle=True, seed=3, **options))
    other, _ = joined(tf_dataset(mixer, shuffle=True, seed=4, **options))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, plain)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)

    def ordered(images, targets):
        """Examples and targets, sorted by the largest input, which is unique."""
        order = np.argsort(images.reshape(len(images), -1).max(1))
        return images[order], targets[order]

    for found, wanted in zip(ordered(first, first_targets), ordered(plain, plain_targets), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_pixels_are_shuffled_across_patches(mixer):
    dataset = tf_dataset(mixer, inputs="B3", unit="pixel", shuffle=True, seed=0, batch_size=64)
    pixels = next(iter(dataset)).numpy()[:, 0].astype(int)
    patches = {(pixel // 90 // 16, pixel % 90 // 20) for pixel in pixels}
    assert len(patches) > 10  # of 16


def test_a_small_shuffle_buffer_gives_every_record(mixer):
    images = joined(tf_dataset(mixer, inputs="B3", shuffle=2, seed=0, num_parallel_reads=2))
    assert set(images.max((1, 2, 3))) == set(expected("B3").max((1, 2, 3)))
    assert len(images) == 16


def test_repeat_and_remainder(mixer):
    twice = tf_dataset(mixer, inputs="B3", repeat=2, batch_size=5)
    np.testing.assert_array_equal(joined(twice), np.concatenate([expected("B3")] * 2))
    assert twice.cardinality() == 7
    assert tf_dataset(mixer, inputs="B3", repeat=True).cardinality() == tf.data.INFINITE_CARDINALITY
    whole = tf_dataset(mixer, inputs="B3", batch_size=5, drop_remainder=True)
    assert [len(images) for images in whole] == [5, 5, 5]
    assert whole.element_spec.shape[0] == 5
    pixels = tf_dataset(mixer, inputs="B3", batch_size=5000, drop_remainder=True, unit="pixel")
    assert [len(part) for part in pixels] == [5000]


# -- Sources -----------------------------------------------------------------------------------------


def test_files_without_a_mixer(mixer, tmp_path):
    pattern = mixer.replace("-mixer.json", "-*.tfrecord.gz")
    options = {"inputs": "B3", "patch_dimensions": PATCH, "kernel_size": KERNEL}
    np.testing.assert_array_equal(joined(tf_dataset(pattern, **options)), expected("B3"))
    first = mixer.replace("-mixer.json", "-00000.tfrecord.gz")
    one = joined(tf_dataset([first], **options))
    np.testing.assert_array_equal(one, expected("B3")[: len(one)])
    assert 0 < len(one) < 16
    pixels = joined(tf_dataset(pattern, inputs="B3", unit="pixel"))
    np.testing.assert_array_equal(pixels, expected("B3").reshape(-1, 1))
    with pytest.raises(OptionError, match=rf"-00000.* pass the mixer \({mixer}\) .*, or patch_dimensions"):
        tf_dataset(pattern, inputs="B3")
    with pytest.raises(MissingShardError, match="No files match"):
        tf_dataset(str(tmp_path / "none-*.tfrecord"), inputs="B3")


def test_records_of_a_renamed_mixer(mixer, tmp_path):
    copy = tmp_path / "elsewhere.json"
    shutil.copy(mixer, copy)
    shards = sorted(Path(mixer).parent.glob("scene-*.tfrecord.gz"))
    images = joined(tf_dataset(copy, inputs="B3", records=shards))
    np.testing.assert_array_equal(images, expected("B3"))


def test_several_exports_are_concatenated(mixer, tmp_path):
    bands = {name: band[::-1] for name, band in BANDS.items()}
    other = export(tmp_path, bands=bands)
    images = joined(tf_dataset([other, mixer], inputs="B3"))
    np.testing.assert_array_equal(images, np.concatenate([expected("B3", bands=bands), expected("B3")]))
    swapped = export(tmp_path, "swapped", patch_dimensions=PATCH[::-1], kernel_size=KERNEL[::-1])
    with pytest.raises(OptionError, match=r"exports are not compatible: scene.* swapped"):
        tf_dataset([mixer, swapped], inputs="B3")


def test_other_filesystems_are_read_through_fsspec():
    raster(BANDS).tfexport(
        "memory://dataset/scene", patch_dimensions=PATCH, kernel_size=KERNEL, max_file_size=60_000
    )
    dataset = tf_dataset("memory://dataset/scene-mixer.json", inputs=["B3", "height"], batch_size=5)
    np.testing.assert_array_equal(joined(dataset), expected("B3", "height"))
    shuffled = tf_dataset("memory://dataset/scene-mixer.json", inputs="B3", shuffle=True)
    assert joined(shuffled).sum() == expected("B3").sum()


@pytest.mark.parametrize("compression", ["GZIP", ""])
def test_records_written_by_tensorflow_under_cloud_storage_names(tmp_path, compression):
    patches, classes = expected("B3"), expected("class")
    suffix = ".gz" if compression else ""
    for number, part in enumerate(np.split(np.arange(16), [6, 12])):
        path = str(tmp_path / f"scene{number:05d}.tfrecord{suffix}")
        with tf.io.TFRecordWriter(path, compression) as writer:
            for i in part:
                blob = classes[i].astype("uint8").tobytes()
                features = {
                    "B3": tf.train.Feature(float_list=tf.train.FloatList(value=patches[i].ravel())),
                    "class": tf.train.Feature(bytes_list=tf.train.BytesList(value=[blob])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    (tmp_path / "scenemixer.json").write_text(
        '{"projection": {"crs": "EPSG:32633", "affine": {"doubleMatrix": [30.0, 0.0, 0.0, 0.0, -30.0, 0.0]}},'
        ' "patchDimensions": [20, 16], "patchesPerRow": 4, "totalPatches": 16}'
    )
    images, labels = joined(
        tf_dataset(tmp_path / "scenemixer.json", inputs="B3", targets="class", kernel_size=KERNEL)
    )
    np.testing.assert_array_equal(images, patches)
    np.testing.assert_array_equal(labels, classes)


def test_the_spec_parses_single_records(tmp_path):
    mixer = export(tmp_path, feature_types="band", compressed=False)
    spec = feature_spec(mixer)
    assert list(spec) == list(BANDS)
    assert spec["B3"] == tf.io.FixedLenFeature([18, 26], tf.float32)
    assert spec["height"] == tf.io.FixedLenFeature([18, 26], tf.int64)
    assert spec["class"] == tf.io.FixedLenFeature([], tf.string)
    record = next(iter(tf.data.TFRecordDataset(mixer.replace("-mixer.json", "-00000.tfrecord"))))
    values = tf.io.parse_single_example(record, spec)
    np.testing.assert_array_equal(values["height"], expected("height")[0, ..., 0])
    np.testing.assert_array_equal(tf.io.decode_raw(values["class"], tf.uint8), expected("class")[0].ravel())
    flat = feature_spec(mixer.replace("-mixer.json", "-00000.tfrecord"))
    assert flat["B3"] == tf.io.FixedLenFeature([468], tf.float32)


# -- Tables ------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """A table of 7 rows with numbers, an array column and strings."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"B4": rng.random(7), "B5": rng.random(7), "cover": np.arange(7)}).astype("float32")
    frame["ndvi"] = list(rng.random((7, 3)).astype("float32"))
    frame["name"] = ["oak", "", "fir", "ash tree", "x", "yew", "elm"]
    return export_table(frame, tmp_path / "sites"), frame


def test_the_rows_of_a_table(table):
    result, frame = table
    for unit in (None, "pixel"):
        dataset = tf_dataset(result.path, inputs=["B5", "B4"], targets="cover", unit=unit, batch_size=3)
        inputs, targets = joined(dataset)
        np.testing.assert_array_equal(inputs, frame[["B5", "B4"]])
        np.testing.assert_array_equal(targets, frame[["cover"]])
        assert [spec.shape.as_list() for spec in dataset.element_spec] == [[None, 2], [None, 1]]
    series = joined(tf_dataset(result.path, inputs=["ndvi", "B4"]))
    np.testing.assert_array_equal(series[..., 0], np.stack(frame["ndvi"]))
    np.testing.assert_array_equal(series[..., 1], np.repeat(frame[["B4"]].to_numpy(), 3, axis=1))
    mixed = joined(tf_dataset(result.path, inputs="cover", shuffle=True, seed=1))
    assert mixed[:, 0].tolist() != list(range(7))
    assert sorted(mixed[:, 0]) == list(range(7))


def test_the_spec_of_a_table_equals_the_spec_of_its_result(table):
    result, frame = table
    spec = feature_spec(result.path)
    assert spec == result.feature_spec()
    assert spec["B4"] == tf.io.FixedLenFeature([1], tf.float32)  # as in Earth Engine's guide
    records = raw_records(SimpleNamespace(files=[result.file]))
    batch = tf.io.parse_example(records, spec)
    np.testing.assert_array_equal(batch["ndvi"], np.stack(frame["ndvi"]))
    one = tf.io.parse_single_example(records[3], spec)
    assert one["name"].numpy().tolist() == [b"ash tree"]
    assert one["B5"].numpy().tolist() == [frame["B5"][3]]


def test_strings_and_patches_of_a_table_raise(table):
    result, _ = table
    with pytest.raises(OptionError, match="'name' contains strings"):
        tf_dataset(result.path, inputs=["B4", "name"])
    with pytest.raises(OptionError, match="is a single pixel or a row"):
        tf_dataset(result.path, inputs="B4", unit="patch")


# -- Errors ------------------------------------------------------------------------------------------


def test_a_missing_shard_raises(tmp_path):
    mixer = export(tmp_path)
    (tmp_path / "scene-00001.tfrecord.gz").unlink()
    with pytest.raises(MissingShardError, match="Shard 1 "):
        tf_dataset(mixer, inputs="B3")


def test_missing_records_raise(tmp_path):
    mixer = export(tmp_path)
    dataset = tf_dataset(mixer, inputs="B3")
    last = sorted(tmp_path.glob("*.tfrecord.gz"))[-1]
    last.write_bytes(b"")  # the numbers of the shards are complete
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"scene-00005.tfrecord.gz was replaced"):
        joined(dataset)
    last.unlink()
    with pytest.raises(MissingShardError, match="Expected 16 records"):
        tf_dataset(mixer, inputs="B3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "B9"}, "Band 'B9' not found; available: 'B3', 'B4', 'class', 'height'"),
        ({"inputs": b"B3"}, r"inputs must be a list of names, such as \['B4', 'B3'\]; got b'B3'"),
        ({"inputs": "B3", "targets": {"B4"}}, "targets must be a list of names"),
        ({"inputs": []}, "inputs is empty: pass at least one name"),
        ({"inputs": ["B3", "B3"]}, "inputs contains 'B3' more than once"),
        ({"inputs": "B3", "unit": "tile"}, "unit must be 'patch', 'pixel' or None; got 'tile'"),
        ({"inputs": "B3", "margins": "cut"}, "margins must be 'keep', 'trim' or None; got 'cut'"),
        ({"inputs": "B3", "batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"inputs": "B3", "shuffle": -4}, "shuffle must be"),
        ({"inputs": "B3", "repeat": -1}, "repeat must be"),
        ({"inputs": "B3", "patch_dimensions": 32}, "patch_dimensions=32 is only for files without a mixer"),
        ({"inputs": "B3", "targets": "B4", "unit": "pixel", "target_margins": "keep"}, "Omit target"),
    ],
)
def test_invalid_options_raise(mixer, options, message):
    with pytest.raises(OptionError, match=message):
        tf_dataset(mixer, **options)


@pytest.mark.parametrize("dtype", ["9" * 5000, "(" * 50, "string", "i1[2", None])
def test_target_dtypes_that_are_no_numbers(mixer, dtype):
    with pytest.raises(OptionError, match=r"target_dtype must be a numeric dtype.{,200}$"):
        tf_dataset(mixer, inputs="B3", targets="B3", target_dtype=dtype)


def test_invalid_sources_raise(mixer, tmp_path):
    shard = mixer.replace("-mixer.json", "-00000.tfrecord.gz")
    for source in (tmp_path / "none", tmp_path / "none.tfrecord", [mixer, str(tmp_path / "none.json")]):
        with pytest.raises(MissingShardError, match=r"none.* was not found: expected a mixer .* Correct"):
            tf_dataset(source, inputs="B3")
    with pytest.raises(OptionError, match=rf"{shard} is a shard of {mixer}, .* pass only the mixer"):
        feature_spec([mixer, shard])
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(RecordError, match=r"notes.txt: record 0 is truncated.* not a TFRecord file"):
        feature_spec(tmp_path / "notes.txt")
    with pytest.raises(OptionError, match=r"got a Dataset. Export it with ds.tfexport"):
        tf_dataset(raster(BANDS), inputs="B3")
    with pytest.raises(OptionError, match=r"got a DataFrame. Export it with xee_tf.export_table"):
        tf_dataset(pd.DataFrame({"B3": [1]}), inputs="B3")


def test_records_require_one_mixer(mixer):
    with pytest.raises(OptionError, match="single mixer; got 2"):
        tf_dataset([mixer, mixer], inputs="B3", records=["a.tfrecord"])
    with pytest.raises(MixerError, match="is a TFRecord file, not a mixer"):
        tf_dataset("a.tfrecord", inputs="B3", records=["a.tfrecord"])
    with pytest.raises(OptionError, match="nothing to read"):
        tf_dataset([], inputs="B3")


# -- Training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["patch", "pixel"])
def test_a_model_fits_a_linear_relation(mixer, unit):
    keras = pytest.importorskip("tensorflow").keras

    bands = {"dark": (BANDS["B4"] / 120).astype("float32")}
    bands["bright"] = 3 * bands["dark"] - 1
    keras.utils.set_random_seed(0)
    channels = (None, None, 1) if unit == "patch" else (1,)
    layer = keras.layers.Conv2D(1, 1) if unit == "patch" else keras.layers.Dense(1)
    model = keras.Sequential([keras.Input(channels), layer])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    scene = export(Path(mixer).parent, f"linear-{unit}", bands=bands)
    size = 4 if unit == "patch" else 512
    data = tf_dataset(
        scene,
        inputs="dark",
        targets="bright",
        margins="trim",
        unit=unit,
        shuffle=True,
        seed=0,
        batch_size=size,
    )
    model.fit(data, epochs=30, verbose=0, shuffle=False)
    weight, bias = (float(np.squeeze(value)) for value in model.get_weights())
    assert weight == pytest.approx(3, abs=0.1)
    assert bias == pytest.approx(-1, abs=0.1)
