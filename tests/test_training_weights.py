"""Weights, and elements with several inputs and targets, of `tf_dataset`, compared with numpy."""

from __future__ import annotations

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import pandas as pd

from tests.oracle import cut_patches
from tests.rasters import random_band, raster
from xee_tf import OptionError, export_table
from xee_tf.training.dataset import tf_dataset

SHAPE = (60, 84)
PATCH, KERNEL = (12, 20), (4, 6)
CROP = (random_band(SHAPE, "uint8", seed=2) % 4).astype("float32")
CLOUD = random_band(SHAPE, "float32", seed=3) > 90
BANDS = {
    "nir": random_band(SHAPE, "float32", seed=1) + 20,
    "red": random_band(SHAPE, "int16", seed=4),
    "crop": np.where(CLOUD, np.nan, CROP).astype("float32"),
    "yield": np.where(
        random_band(SHAPE, "uint8", seed=8) > 200, np.nan, random_band(SHAPE, "float32", seed=9)
    ),
    "quality": random_band(SHAPE, "float32", seed=5) / 7,
}
EMPTY = -5


def export(folder, bands=BANDS, **options):
    options = {"patch_dimensions": PATCH, "kernel_size": KERNEL, "default_value": EMPTY, **options}
    return raster(bands).tfexport(folder / "field", **options)


def patches(*names, trim=False, bands=BANDS):
    """The stored patches (patch, y, x, band), cut by numpy; masked pixels are NaN."""
    found = [
        np.stack(cut_patches(bands[name].astype("float64"), patch=PATCH, kernel=KERNEL, default=np.nan)[0])
        for name in names
    ]
    stacked = np.stack(found, axis=-1)
    top, left = KERNEL[1] // 2, KERNEL[0] // 2
    return stacked[:, top:-top, left:-left] if trim else stacked


def joined(data):
    """The tensors of all elements, joined along the first axis."""
    import tensorflow as tf

    elements = list(data.as_numpy_iterator())
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *elements)


def filled(values):
    return np.where(np.isnan(values), EMPTY, values).astype("float32")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("unit", ["patch", "pixel"])
def test_masked_targets_have_no_weight(tmp_path, compressed, unit):
    result = export(tmp_path, compressed=compressed)
    options = {"inputs": ["nir", "red"], "targets": ["crop", "yield"], "unit": unit, "batch_size": 11}
    plain = joined(tf_dataset(result, **options))
    images, targets, weights = joined(tf_dataset(result, **options, sample_weight="mask"))
    np.testing.assert_array_equal(images, plain[0])
    np.testing.assert_array_equal(targets, plain[1])
    expected = ~np.isnan(patches("crop", "yield", trim=unit == "pixel")).any(axis=-1)
    np.testing.assert_array_equal(weights, expected.reshape(targets.shape[:-1]))
    assert weights.dtype == "float32"
    assert 0 < weights.mean() < 1


def test_weights_have_the_margins_of_the_targets(tmp_path):
    result = export(tmp_path)
    data = tf_dataset(
        result,
        inputs="nir",
        targets="crop",
        target_margins="trim",
        sample_weight="mask",
        target_dtype="int32",
    )
    images, targets, weights = joined(data)
    assert images.shape[1:] == (26, 16, 1)
    np.testing.assert_array_equal(weights, ~np.isnan(patches("crop", trim=True))[..., 0])
    np.testing.assert_array_equal(targets, filled(patches("crop", trim=True)))


def test_bands_as_weights(tmp_path):
    result = export(tmp_path)
    data = tf_dataset(result, inputs="red", targets="crop", sample_weight=["quality", "nir"])
    _, _, weights = joined(data)
    expected = np.nan_to_num(patches("quality", "nir")).astype("float32").prod(axis=-1)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_a_band_named_mask(tmp_path):
    bands = {"nir": BANDS["nir"], "red": BANDS["red"], "mask": CLOUD.astype("int16")}
    result = export(tmp_path, bands)
    options = {"inputs": "nir", "targets": "red"}
    with pytest.raises(OptionError, match=r"ambiguous, .* band named 'mask': pass sample_weight=\['mask'\]"):
        tf_dataset(result, **options, sample_weight="mask")
    _, _, weights = joined(tf_dataset(result, **options, sample_weight=["mask"], margins="trim"))
    np.testing.assert_array_equal(weights, patches("mask", trim=True, bands=bands)[..., 0])


@pytest.mark.parametrize("one_hot", [None, 4])
def test_weights_of_classes(tmp_path, one_hot):
    result = export(tmp_path)
    table = {0: 0.5, 2: 3, 3: 0}  # as in Keras, class 1 has the weight 1
    data = tf_dataset(
        result, inputs="red", targets="crop", class_weight=table, sample_weight="quality", one_hot=one_hot
    )
    _, targets, weights = joined(data)
    crop = patches("crop")[..., 0]
    lookup = np.select([np.isnan(crop), crop == 0, crop == 2, crop == 3], [0, 0.5, 3, 0], 1)
    expected = lookup * np.nan_to_num(patches("quality")[..., 0]).astype("float32")
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert targets.shape[-1] == (one_hot or 1)


def test_balanced_classes(tmp_path):
    parts = [np.where(CLOUD, 9, CROP).astype("uint8"), (CROP[:24, :36] > 1).astype("uint8") * 3]
    results = []
    for number, part in enumerate(parts):
        scene = raster({"nir": BANDS["nir"][: len(part), : part.shape[1]], "crop": part})
        scene["crop"].attrs["nodata"] = 9
        results.append(scene.tfexport(tmp_path / str(number), patch_dimensions=12, default_value=9))
    _, targets, weights = joined(
        tf_dataset(results, inputs="nir", targets="crop", class_weight="balanced", unit="pixel")
    )
    pixels = np.concatenate([part.ravel() for part in parts])
    classes, counts = np.unique(pixels[pixels != 9], return_counts=True)
    table = dict(zip(classes, counts.sum() / (len(classes) * counts), strict=True)) | {9: 0}
    expected = np.array([table[number] for number in targets[:, 0].astype(int)])
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights[targets[:, 0] != 9].mean() == pytest.approx(1, abs=1e-4)
    for number in classes:
        assert weights[targets[:, 0] == number].sum() == pytest.approx(counts.sum() / len(classes), rel=1e-4)
    _, vectors = joined(tf_dataset(results, inputs="nir", targets="crop", one_hot=True, unit="pixel"))
    np.testing.assert_array_equal(vectors, targets == np.arange(4))  # 9 is no class
    with pytest.raises(OptionError, match="one_hot=True needs the class counts of 'nir' in the manifest"):
        tf_dataset(results, inputs="crop", targets="nir", one_hot=True)
    empty = raster({"crop": np.full((12, 12), 9, "uint8")})
    empty["crop"].attrs["nodata"] = 9
    result = empty.tfexport(tmp_path / "empty", patch_dimensions=12, default_value=9)
    with pytest.raises(OptionError, match="all pixels of 'crop' are masked"):
        tf_dataset(result, inputs="crop", targets="crop", class_weight="balanced")
    with pytest.raises(OptionError, match="needs the class counts of 'nir' in the manifest"):
        tf_dataset(results, inputs="crop", targets="nir", class_weight="balanced")


def test_class_0_is_a_class_if_nothing_is_masked(tmp_path):
    result = export(tmp_path, {"nir": BANDS["nir"], "crop": CROP.astype("uint8")}, default_value=0)
    options = {"inputs": "nir", "targets": "crop", "class_weight": {0: 2, 1: 3}}
    _, targets, weights = joined(tf_dataset(result, **options, target_margins="trim"))
    np.testing.assert_array_equal(weights, np.select([targets == 0, targets == 1], [2, 3], 1)[..., 0])
    with pytest.raises(OptionError, match="which valid pixels may have, too"):  # margins outside the raster
        tf_dataset(result, **options)


def test_a_masked_pixel_never_counts_as_a_class(tmp_path):
    result = export(tmp_path, {"nir": BANDS["nir"], "crop": BANDS["crop"]}, default_value=0)
    options = {"inputs": "nir", "targets": "crop"}
    for weights in ({"sample_weight": "mask"}, {"class_weight": {0: 2, 1: 1}}):
        with pytest.raises(OptionError, match=r"masked pixels of 'crop' have the value 0, .* Export with"):
            tf_dataset(result, **options, **weights)
    # The class 0 has no weight anyway, or the user knows better.
    _, targets, weights = joined(tf_dataset(result, **options, class_weight={0: 0, 1: 4}))
    np.testing.assert_array_equal(weights, np.select([targets == 0, targets == 1], [0, 4], 1)[..., 0])
    _, targets, weights = joined(tf_dataset(result, **options, sample_weight="mask", default_value=0))
    np.testing.assert_array_equal(weights, targets[..., 0] != 0)


def test_the_default_value_must_be_that_of_the_manifest(tmp_path):
    crop = np.where(np.isnan(BANDS["crop"]), 200, BANDS["crop"]).astype("uint8")
    ds = raster({"nir": BANDS["nir"], "crop": crop})
    ds["crop"].attrs["_FillValue"] = np.uint8(200)
    with pytest.warns(UserWarning, match="-3"):
        result = ds.tfexport(tmp_path / "t", patch_dimensions=4, default_value=-3)
    with pytest.raises(
        OptionError, match=r"default_value=-3 is not .* of 'crop' .* manifest, it is 0\. Omit"
    ):
        tf_dataset(result, inputs="nir", targets="crop", sample_weight="mask", default_value=-3)


def test_files_without_a_manifest_need_the_default_value(tmp_path):
    result = export(tmp_path)
    for path in tmp_path.glob("*.tfexport"):
        path.unlink()
    options = {"inputs": "nir", "targets": "crop", "kernel_size": KERNEL, "sample_weight": "mask"}
    with pytest.raises(OptionError, match=r"has no manifest that contains it: pass default_value"):
        tf_dataset(result.mixer, **options)
    _, _, weights = joined(tf_dataset(result.mixer, **options, default_value=EMPTY))
    np.testing.assert_array_equal(weights, ~np.isnan(patches("crop"))[..., 0])


def test_weights_follow_shuffles_and_symmetries(tmp_path):
    number = np.arange(np.prod(SHAPE), dtype="float32").reshape(SHAPE)
    bands = {"number": number, "crop": np.where(CLOUD, np.nan, number), "quality": number % 89}
    options = {"inputs": "number", "targets": "crop", "shuffle": True, "seed": 5}
    weighted = {"sample_weight": "mask"}, {"sample_weight": "quality"}
    square = export(tmp_path, bands, patch_dimensions=14, kernel_size=1, masked_threshold=1)
    for unit in ({"augment": "d4"}, {"unit": "pixel", "batch_size": 1000}):
        numbers, targets, weights = joined(tf_dataset(square, **options, **unit, **weighted[0]))
        np.testing.assert_array_equal(weights == 0, targets[..., 0] == EMPTY)
        np.testing.assert_array_equal(weights == 1, (targets == numbers)[..., 0])
        numbers, _, weights = joined(tf_dataset(square, **options, **unit, **weighted[1]))
        np.testing.assert_array_equal(weights, numbers[..., 0] % 89)


def test_series_of_pixels_are_weighted_by_scalar_bands(tmp_path):
    cube = raster({"a": BANDS["nir"]}).expand_dims(time=3)
    cube["weight"] = raster({"w": BANDS["quality"]})["w"]
    cube["label"] = cube["a"] * 2
    for name, options in {"patches": {}, "series": {"sequence_data": True}}.items():
        result = cube.tfexport(tmp_path / name, patch_dimensions=12, default_value=EMPTY, **options)
        data = tf_dataset(result, inputs="a", targets="label", sample_weight="weight", batch_size=500)
        _, targets, weights = joined(data)
        assert weights.shape == targets.shape[:-1]
        assert 3 in weights.shape
        axis = weights.shape.index(3)
        for step in range(3):
            np.testing.assert_array_equal(weights.take(step, axis), weights.take(0, axis))


def test_rows_of_a_table(tmp_path):
    table = pd.DataFrame({"B2": [1.0, 2, 3, 4], "label": [0, 1, 1, 2], "w": [0.5, 1, 2, 4]})
    table["height"] = [1.5, np.nan, 2.5, 3.5]
    result = export_table(table, tmp_path / "t")
    options = {"inputs": "B2", "batch_size": 3}
    data = tf_dataset(result, **options, targets="label", class_weight={1: 3}, sample_weight="w")
    assert joined(data)[2].tolist() == [0.5, 3, 6, 4]
    assert joined(tf_dataset(result, **options, targets="height", sample_weight="mask"))[2].tolist() == [
        1,
        0,
        1,
        1,
    ]


@pytest.mark.parametrize("unit", ["patch", "pixel"])
def test_several_inputs_and_targets(tmp_path, unit):
    result = export(tmp_path)
    inputs = {"image": ["red", "nir"], "aux": "quality"}
    targets = {"crop": "crop", "both": ["yield", "crop"]}
    data = tf_dataset(result, inputs=inputs, targets=targets, unit=unit, sample_weight="mask", batch_size=9)
    images, labels, weights = joined(data)
    core = unit == "pixel"

    def expected(*names):
        cut = patches(*names, trim=core)
        return cut.reshape(-1, len(names)) if core else cut

    assert list(images) == ["image", "aux"]
    np.testing.assert_array_equal(images["image"], filled(expected("red", "nir")))
    np.testing.assert_array_equal(images["aux"], filled(expected("quality")))
    for name, names in {"crop": ["crop"], "both": ["yield", "crop"]}.items():
        np.testing.assert_array_equal(labels[name], filled(expected(*names)))
        np.testing.assert_array_equal(weights[name], ~np.isnan(expected(*names)).any(axis=-1))
    alone = joined(tf_dataset(result, inputs={"image": "nir"}, unit=unit))
    np.testing.assert_array_equal(alone["image"], filled(expected("nir")))


def test_a_keras_model_with_several_inputs_is_trained(tmp_path):
    keras = pytest.importorskip("keras")
    data = tf_dataset(
        export(tmp_path, patch_dimensions=20, kernel_size=4),
        inputs={"image": ["red", "nir"], "aux": ["quality"]},
        targets="crop", one_hot=4, sample_weight="mask", class_weight={0: 2, 3: 0.5}, augment="d4",
        shuffle=True, seed=1, batch_size=5, cache=True,
        normalize={"red": (100, 50), "nir": (80, 60), "quality": {"min": 0, "max": 30}},
    )  # fmt: skip
    image, aux = keras.Input((None, None, 2), name="image"), keras.Input((None, None, 1), name="aux")
    both = keras.layers.Concatenate()([image, aux])
    model = keras.Model([image, aux], keras.layers.Conv2D(4, 1, activation="softmax")(both))
    model.compile("adam", "categorical_crossentropy", weighted_metrics=["accuracy"])
    history = model.fit(data, epochs=2, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()


def test_a_keras_model_with_several_targets_ignores_masked_pixels(tmp_path):
    keras = pytest.importorskip("keras")
    result = export(tmp_path, {"a": np.where(CLOUD, np.nan, 3), "b": BANDS["nir"] * 0 + 7}, kernel_size=1)
    data = tf_dataset(result, inputs="b", targets={"a": "a", "b": "b"}, unit="pixel", sample_weight="mask")
    pixel = keras.Input((1,))
    zero = keras.layers.Rescaling(0.0)(pixel)
    model = keras.Model(
        pixel, {name: keras.layers.Rescaling(1.0, offset=of)(zero) for name, of in (("a", 3), ("b", 7))}
    )
    model.compile("sgd", {"a": "mse", "b": "mse"})
    assert not np.any(model.evaluate(data, verbose=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": "mask", "targets": None}, "there are no targets"),
        ({"sample_weight": 5}, "sample_weight must be a list of names"),
        ({"sample_weight": "clouds"}, "Band 'clouds' not found"),
        ({"class_weight": "even"}, "class_weight must be 'balanced', or a mapping"),
        ({"class_weight": {}}, "class_weight must be 'balanced'"),
        ({"class_weight": {"water": 1}}, "from class numbers to weights"),
        ({"class_weight": {4: -1}}, r"class_weight\[4\] must be a finite number of at least 0; got -1"),
        ({"class_weight": {1: 2}, "targets": ["crop", "red"]}, r"single target band.*\['crop', 'red'\]"),
        ({"default_value": "none"}, "default_value must be a number"),
        ({"inputs": {}}, "a mapping from names of tensors to bands"),
        ({"inputs": {3: "nir"}}, "a mapping from names of tensors to bands"),
        ({"inputs": {"image": []}}, r"inputs\['image'\] is empty"),
        ({"targets": {"a": {"b": "crop"}}}, r"targets\['a'\] must be a list of names"),
    ],
)
def test_errors(options, message, tmp_path):
    result = export(tmp_path)
    with pytest.raises(OptionError, match=message):
        tf_dataset(result, **{"inputs": "nir", "targets": "crop", **options})


def test_normalization_needs_values_that_tell_masked_pixels(tmp_path):
    values = random_band(SHAPE, "uint8", seed=6).astype("float32")
    bands = {"nir": np.where(CLOUD, np.nan, values)}
    used = float(values[~CLOUD][5])
    result = export(tmp_path, bands, default_value=used)
    options = {"inputs": "nir", "normalize": {"nir": (3, 2)}}
    with pytest.raises(
        OptionError, match=r"normalize: masked pixels of 'nir' have the value .* valid pixels"
    ):
        tf_dataset(result, **options)
    images = joined(tf_dataset(result, **options, default_value=used))
    assert (images == -1.5).any()
