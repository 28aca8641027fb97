"""Normalized, augmented and one-hot encoded elements of `tf_dataset`, compared with numpy."""

from __future__ import annotations

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import pandas as pd

from tests.oracle import cut_patches
from tests.rasters import random_band, raster
from xee_tf import Model, OptionError, band_statistics, export_table, normalization
from xee_tf.training.dataset import tf_dataset

SHAPE = (72, 108)
BANDS = {
    "nir": random_band(SHAPE, "float32", seed=5) * 40 + 7,
    "red": random_band(SHAPE, "int16", seed=6),
    "number": np.arange(np.prod(SHAPE), dtype="float32").reshape(SHAPE),
    "crop": random_band(SHAPE, "uint8", seed=7) % 5,
}
INPUTS = ["nir", "number"]


def export(folder, **options):
    return raster(BANDS).tfexport(folder / "field", **{"patch_dimensions": 18, "kernel_size": 6, **options})


def stacked(data):
    """Return the tensors of all elements, one after another."""
    found = [element if isinstance(element, tuple) else (element,) for element in data.as_numpy_iterator()]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def test_inputs_are_normalized_with_statistics(tmp_path):
    statistics = band_statistics(raster(BANDS))
    result = export(tmp_path, kernel_size=1)
    plain, targets = stacked(tf_dataset(result, inputs=INPUTS, targets="crop"))
    found, same = stacked(tf_dataset(result, inputs=INPUTS, targets="crop", normalize=statistics))
    np.testing.assert_array_equal(same, targets)
    for number, name in enumerate(INPUTS):
        exact = BANDS[name].astype("float64")
        expected = (plain[..., number] - exact.mean()) / exact.std()
        np.testing.assert_allclose(found[..., number], expected, atol=2e-6)
        assert abs(found[..., number].mean()) < 1e-5


def test_offset_and_scale_of_each_input(tmp_path):
    result = export(tmp_path)
    options = {"inputs": ["red", "nir"], "batch_size": 7, "unit": "pixel"}
    [plain] = stacked(tf_dataset(result, **options))
    normalize = {"nir": (-3, 0.5), "red": (100, 20), "crop": (0, 0)}  # crop is not an input
    [found] = stacked(tf_dataset(result, **options, normalize=normalize))
    np.testing.assert_allclose(found, (plain - [100, -3]) / [20, 0.5], rtol=1e-5)


def test_constant_bands_become_zero(tmp_path):
    flat = raster({"a": np.full((8, 8), 5, "uint8")})
    result = flat.tfexport(tmp_path / "a", patch_dimensions=4)
    [found] = stacked(tf_dataset(result, inputs="a", normalize=band_statistics(flat)))
    assert not found.any()


@pytest.mark.parametrize("default_value", [0, -9999])
def test_masked_pixels_are_0_before_as_in_predictions(default_value, tmp_path):
    clouds = random_band(SHAPE, seed=9) > 80
    scene = raster({**BANDS, "nir": np.where(clouds, np.nan, BANDS["nir"])})
    scales = normalization(band_statistics(scene))
    result = scene.astype("float32").tfexport(
        tmp_path / "field", patch_dimensions=18, default_value=default_value
    )
    [found] = stacked(tf_dataset(result, inputs="nir", normalize=scales))
    # Each pixel gets the input of its neighbor, because the result of masked pixels is masked.
    model = Model.from_function(
        lambda tile: np.roll(tile, 1, axis=2)[..., 0],
        bands=["nir"],
        input_tile_size=18,
        normalize=scales,
        output_bands=["p"],
    )
    predicted = model.predict_image(scene)["p"].values
    expected = np.stack(cut_patches(predicted, patch=(18, 18), kernel=(1, 1), default=0)[0])
    rolled = np.roll(found[..., 0], 1, axis=2)
    np.testing.assert_array_equal(rolled[~np.isnan(expected)], expected[~np.isnan(expected)])
    offset, scale = np.float32(scales["nir"])
    assert (expected == (0 - offset) / scale).sum() > 100
    assert (found == (0 - offset) / scale).sum() == clouds.sum()


def test_normalization_of_training_data_for_everything(tmp_path):
    scene = raster(BANDS)
    exact = {name: BANDS[name].astype("float64") for name in INPUTS}
    minmax = normalization(band_statistics(scene), "minmax")
    for name, values in exact.items():
        assert minmax[name] == (values.min(), np.ptp(values))
    [found] = stacked(tf_dataset(export(tmp_path, kernel_size=1), inputs=INPUTS, normalize=minmax))
    np.testing.assert_allclose(found.min(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(found.max(axis=(0, 1, 2)), 1, atol=1e-6)
    table = scene.to_dataframe()[INPUTS].reset_index(drop=True)
    model = Model.from_function(
        lambda rows: rows, input_properties=INPUTS, output_properties=["a", "b"], normalize=minmax
    )
    rows = model.predict_properties(table)
    for name, out in zip(INPUTS, "ab", strict=True):
        np.testing.assert_allclose(
            rows[out], (exact[name].ravel() - minmax[name][0]) / minmax[name][1], atol=1e-6
        )


@pytest.mark.parametrize("method", ["standard", "minmax"])
def test_statistics_of_the_manifests(method, tmp_path):
    one = {name: BANDS[name] for name in INPUTS}
    two = {name: band[:40, :60] + 90 for name, band in one.items()}
    two["nir"] = np.where(two["nir"] > 4000, np.nan, two["nir"])
    options = {"patch_dimensions": 4, "kernel_size": 2, "default_value": -1}
    results = [raster(bands).tfexport(tmp_path / str(n), **options) for n, bands in enumerate((one, two))]
    data = tf_dataset(results, inputs=INPUTS, normalize=method, margins="trim")
    [found] = stacked(data)
    for number, name in enumerate(INPUTS):
        exact = np.concatenate([bands[name].astype("float64").ravel() for bands in (one, two)])
        valid = exact[~np.isnan(exact)]
        offset = valid.mean() if method == "standard" else valid.min()
        scale = valid.std() if method == "standard" else np.ptp(valid)
        expected = (np.nan_to_num(exact) - offset) / scale  # masked pixels are 0 before
        np.testing.assert_allclose(np.sort(found[..., number], axis=None), np.sort(expected), atol=1e-5)
    alone = normalization(results[1], method)
    [found] = stacked(tf_dataset(results[1], inputs=INPUTS, normalize=method))
    [same] = stacked(tf_dataset(results[1], inputs=INPUTS, normalize=alone))
    np.testing.assert_array_equal(found, same)
    [found] = stacked(tf_dataset(results, inputs=INPUTS, normalize=method))
    [same] = stacked(tf_dataset(results, inputs=INPUTS, normalize=normalization(results, method)))
    np.testing.assert_array_equal(found, same)


def test_files_without_statistics(tmp_path):
    result = export(tmp_path)
    for path in tmp_path.glob("*.tfexport"):
        path.unlink()
    with pytest.raises(
        OptionError, match=r"normalize='minmax' needs statistics in the manifest, but .* Pass"
    ):
        tf_dataset(result.mixer, inputs=INPUTS, normalize="minmax", kernel_size=6)
    with pytest.raises(OptionError, match=r"normalization\(.* needs statistics in the manifest"):
        normalization(result.mixer)
    with pytest.raises(OptionError, match="needs at least one export"):
        normalization([])
    with pytest.raises(OptionError, match="method must be 'standard' or 'minmax'; got 'max'"):
        normalization(band_statistics(raster(BANDS)), "max")
    with pytest.raises(OptionError, match=r"got a Dataset with .*, without min and max along band"):
        normalization(band_statistics(raster(BANDS))[["mean", "std"]], "minmax")


def test_a_model_takes_only_bands_with_numbers():
    scene = raster(BANDS)
    model = Model.from_function(
        len, bands=INPUTS, input_tile_size=18, output_bands=["p"], normalize={"nir": (0, 1)}
    )
    with pytest.raises(OptionError, match=r"normalize lacks the inputs \['number'\]; it has \['nir'\]"):
        model.predict_image(scene)
    with pytest.raises(OptionError, match="normalize must be the result of"):
        Model.from_function(len, output_bands=["p"], normalize="standard")


@pytest.mark.parametrize("margins", ["keep", "trim"])
def test_symmetries_are_those_of_the_square(margins, tmp_path):
    result = export(tmp_path)
    options = {"inputs": INPUTS, "targets": ["number"], "margins": "keep", "target_margins": margins}
    plain, _ = stacked(tf_dataset(result, **options))
    trimmed = slice(3, -3) if margins == "trim" else slice(None)
    seen = set()
    for epoch_seed in range(6):
        data = tf_dataset(result, **options, augment="d4", seed=epoch_seed, batch_size=5)
        assert data.cardinality() == 5
        found, targets = stacked(data)
        assert found.shape == plain.shape
        for before, after, target in zip(plain, found, targets, strict=True):
            turned = [
                np.rot90(side, turns, (0, 1)) for side in (before, before[:, ::-1]) for turns in range(4)
            ]
            [which] = [number for number, each in enumerate(turned) if np.array_equal(each, after)]
            np.testing.assert_array_equal(target, after[trimmed, trimmed, 1:])
            seen.add(which)
    assert seen == set(range(8))


def test_symmetries_are_reproducible_and_differ_between_epochs(tmp_path):
    result = export(tmp_path)
    data = tf_dataset(result, inputs=INPUTS, augment="d4", seed=11)
    again = tf_dataset(result, inputs=INPUTS, augment="d4", seed=11)
    [first], [second] = stacked(data), stacked(data)
    [third] = stacked(again)
    np.testing.assert_array_equal(first, third)
    assert not np.array_equal(first, second)


def test_series_of_patches_are_turned_together(tmp_path):
    cube = raster({"a": random_band((12, 12), "float32", seed=1)}).expand_dims(time=3) * [[[1]], [[2]], [[3]]]
    result = cube.tfexport(tmp_path / "cube", patch_dimensions=6)
    [found] = stacked(tf_dataset(result, inputs="a", augment="d4", seed=2))
    assert found.shape == (4, 3, 6, 6, 1)
    np.testing.assert_allclose(found[:, 1], 2 * found[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found[:, 2], 3 * found[:, 0], rtol=1e-6)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_cached_records_are_not_read_again(where, tmp_path):
    result = export(tmp_path)
    cache = True if where == "memory" else tmp_path / "cache"
    options = {"inputs": INPUTS, "batch_size": 5}
    [expected] = stacked(tf_dataset(result, **options))
    data = tf_dataset(result, **options, cache=cache)
    turned = tf_dataset(result, **options, cache=True, augment="d4", shuffle=True, seed=4)
    np.testing.assert_array_equal(stacked(data)[0], expected)
    [before] = stacked(turned)
    shards = list(tmp_path.glob("field-*.tfrecord.gz"))
    assert shards
    for shard in shards:
        shard.unlink()
    np.testing.assert_array_equal(stacked(data)[0], expected)
    [after] = stacked(turned)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(np.sort(before, axis=None), np.sort(after, axis=None))


def test_a_cache_that_was_not_finished_is_named(tmp_path):
    result = export(tmp_path)
    cache, options = tmp_path / "ca[1]che", {"inputs": INPUTS, "batch_size": 1}
    first = iter(tf_dataset(result, **options, cache=cache))
    next(first)
    with pytest.raises(OptionError, match=r"cache='.*ca\[1\]che' is being written .*lockfile exists"):
        tf_dataset(result, **options, cache=cache)
    assert len(list(first)) == result.records - 1
    assert len(list(tf_dataset(result, **options, cache=cache))) == result.records


def test_a_cache_belongs_to_one_export(tmp_path):
    cache, options = tmp_path / "cache", {"inputs": INPUTS, "batch_size": 5}
    first = export(tmp_path)
    [before] = stacked(tf_dataset(first, **options, cache=cache))
    files = set(tmp_path.glob("cache-*"))
    assert files
    stamps = {file: file.stat().st_mtime_ns for file in files}
    [again] = stacked(tf_dataset(first, inputs=INPUTS[::-1], cache=cache))  # the same records
    np.testing.assert_array_equal(again, before[..., ::-1])
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("cache-*")} == stamps
    (tmp_path / "other").mkdir()
    other = raster({name: BANDS[name] * 3 for name in INPUTS}).tfexport(
        tmp_path / "other/field", patch_dimensions=24
    )
    [found] = stacked(tf_dataset(other, **options, cache=cache))
    np.testing.assert_array_equal(found, stacked(tf_dataset(other, **options))[0])
    replaced = export(tmp_path, patch_dimensions=12, if_exists="overwrite")
    [found] = stacked(tf_dataset(replaced, **options, cache=cache))
    np.testing.assert_array_equal(found, stacked(tf_dataset(replaced, **options))[0])


@pytest.mark.parametrize("where", ["memory", "file"])
def test_the_order_of_shards_is_not_frozen_by_the_cache(where, tmp_path):
    result = export(tmp_path, patch_dimensions=6, kernel_size=1, max_file_size=4096)
    assert len(result.files) > 10
    cache = True if where == "memory" else tmp_path / "cache"
    data = tf_dataset(result, inputs="number", shuffle=1, seed=8, cache=cache, batch_size=1)
    epochs = [stacked(data)[0][:, 0, 0, 0] for _ in range(3)]
    for one, other in ((0, 1), (1, 2)):
        assert sorted(epochs[one]) == sorted(epochs[other])
        assert not np.array_equal(epochs[one], epochs[other])
    repeated = tf_dataset(result, inputs="number", shuffle=1, seed=8, batch_size=1,
                          cache=cache if where == "memory" else tmp_path / "new")  # fmt: skip
    np.testing.assert_array_equal(stacked(repeated)[0][:, 0, 0, 0], epochs[0])


@pytest.mark.parametrize("unit", ["patch", "pixel"])
def test_one_hot_targets(unit, tmp_path):
    masked = {**BANDS, "crop": np.where(BANDS["crop"] == 4, 200, BANDS["crop"]).astype("uint8")}
    result = raster(masked).tfexport(tmp_path / "field", patch_dimensions=18)
    options = {"inputs": "red", "targets": "crop", "unit": unit}
    _, numbers = stacked(tf_dataset(result, **options))
    _, vectors = stacked(tf_dataset(result, **options, one_hot=4))
    np.testing.assert_array_equal(vectors, numbers == np.arange(4))
    assert (vectors.sum(axis=-1) == (numbers[..., 0] != 200)).all()  # 200 is not a class


def test_one_hot_labels_of_a_table(tmp_path):
    table = pd.DataFrame({"B2": [0.1, 0.2, 0.3], "label": [2, 0, 1]})
    result = export_table(table, tmp_path / "t")
    _, labels = stacked(tf_dataset(result, inputs="B2", targets="label", one_hot=3, target_dtype="int32"))
    assert labels.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_a_keras_model_is_trained(tmp_path):
    keras = pytest.importorskip("keras")
    scene = raster(BANDS)
    data = tf_dataset(
        export(tmp_path), inputs=INPUTS, targets="crop", one_hot=5, augment="d4", shuffle=True, seed=3,
        normalize=band_statistics(scene), batch_size=8,
    )  # fmt: skip
    model = keras.Sequential([keras.Input((None, None, 2)), keras.layers.Conv2D(5, 1, activation="softmax")])
    model.compile("adam", "categorical_crossentropy")
    history = model.fit(data, epochs=2, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": {"nir": (0, 1)}}, r"normalize lacks the inputs \['number'\]; it has \['nir'\]"),
        ({"normalize": {"nir": (0, 1), "number": (1, 0)}}, "scale 0 for 'number'"),
        ({"normalize": {"nir": (0, 1), "number": (float("nan"), 1)}}, "offset nan"),
        ({"normalize": {"nir": 3, "number": 4}}, "an offset and a scale for each band"),
        ({"normalize": "zscore"}, "normalize must be 'standard' or 'minmax'; got 'zscore'"),
        ({"normalize": {"nir": (0, 1), "number": (0, 1e-50)}}, "scale 1e-50 for 'number'"),
        ({"normalize": {"nir": (0, 1), "number": (1e39, 1)}}, r"offset 1e\+39 .*finite in float32"),
        ({"normalize": {"nir": (0, 1), "number": {"mean": 1}}}, "an offset and a scale for each band"),
        ({"normalize": {}}, "result of xee_tf.band_statistics"),
        ({"normalize": raster(BANDS)}, "got a Dataset with"),
        ({"augment": "flip"}, "augment"),
        ({"cache": 3}, "cache must be True, False or the path of a file; got 3"),
        ({"cache": None}, "cache must be True"),
        ({"cache": "s3://bucket/cache"}, "local disk"),
        ({"cache": "no/such/folder/cache"}, "does not exist. Create it"),
        ({"augment": "d4", "unit": "pixel"}, "unit is 'pixel'"),
        ({"one_hot": 5}, r"single target band.*targets=\[\]"),
        ({"one_hot": 0, "targets": "crop"}, "one_hot"),
        ({"one_hot": 5, "targets": ["crop", "red"]}, "single target band"),
    ],
)
def test_errors(options, message, tmp_path):
    result = export(tmp_path)
    with pytest.raises(OptionError, match=message):
        tf_dataset(result, **{"inputs": INPUTS, **options})


def test_patches_that_are_not_square(tmp_path):
    result = export(tmp_path, patch_dimensions=(18, 12))
    with pytest.raises(OptionError, match="24 x 18 pixels"):
        tf_dataset(result, inputs=INPUTS, augment="d4")
