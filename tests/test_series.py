"""Compare tensors of array bands, series and collapsed bands with numpy; train on a real time series."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.foreign import floats
from tests.optional import optional
from tests.oracle import cut_patches
from tests.rasters import random_band, raster, raw_records
from tests.strategies import examples, sizes
from xee_tf.training.dataset import tf_dataset
from xee_tf.training.spec import feature_spec

tf = optional("tensorflow")

# -- Any export, in numpy ----------------------------------------------------------------------------


@st.composite
def exports(draw):
    """A shape, bands (dtype and steps; 0 steps for a scalar band), a depth, export options, a random seed."""
    shape = draw(sizes(4, 12))
    patch = (draw(st.integers(1, min(5, shape.x))), draw(st.integers(1, min(5, shape.y))))
    dtypes = st.sampled_from(["float32", "uint8", "int16"])
    bands = {"B0": (draw(dtypes), draw(st.integers(1, 4)))}
    for number in range(1, draw(st.integers(1, 4))):
        bands[f"B{number}"] = (draw(dtypes), draw(st.sampled_from([0, 2, 3])))
    options = {
        "patch_dimensions": patch,
        "default_value": draw(st.sampled_from([0, -3, 300])),
        "feature_types": draw(st.sampled_from(["float", "band"])),
        "collapse_bands": draw(st.booleans()),
        "compressed": draw(st.booleans()),
        "max_file_size": draw(st.sampled_from([2000, 2**30])),
    }
    if draw(st.booleans()):
        options |= {"sequence_data": True, "drop_masked_steps": draw(st.booleans())}
    else:
        options["kernel_size"] = draw(st.sampled_from([(1, 1), (4, 2)]))
    return shape, bands, draw(st.integers(1, 4)), options, draw(st.integers(0, 9))


def build(shape, bands, seed):
    """Build a Dataset; also return the values and the mask of each band, (step, y, x)."""
    rng = np.random.default_rng(seed)
    ds = raster({"template": np.zeros(shape.shape)}).drop_vars("template")
    truth = {}
    for number, (name, (dtype, steps)) in enumerate(bands.items()):
        values = random_band((max(steps, 1), *shape.shape), dtype, seed + number)
        masked = rng.random(values.shape) < 0.3
        data, attrs = np.where(masked, np.nan, values).astype("float32"), {}
        if dtype != "float32":
            masked = values == 5
            data, attrs = values, {"_FillValue": 5}
        truth[name] = values, masked
        dims = (f"time{number}", "y", "x") if steps else ("y", "x")
        ds[name] = (dims, data if steps else data[0], attrs)
    return ds, truth


def patches_of(truth, bands, depth, options):
    """The expected values and masks of the bands in the records: (patch, step, y, x)."""
    cut = {"patch": options["patch_dimensions"], "kernel": options.get("kernel_size", (1, 1))}
    found = {}
    for name, (dtype, steps) in bands.items():
        default = options["default_value"]
        if dtype != "float32":
            default = np.clip(default, np.iinfo(dtype).min, np.iinfo(dtype).max)
        planes = []
        for step in range(depth if steps else 1):
            values, masked = np.zeros(truth[name][0][0].shape), np.ones(truth[name][0][0].shape, bool)
            if step < len(truth[name][0]):
                values, masked = truth[name][0][step].astype("f8"), truth[name][1][step]
            patches, _ = cut_patches(values, **cut, default=default, masked=masked)
            where, _ = cut_patches(masked.astype("f8"), **cut, default=1, masked=masked)
            planes.append((np.stack(patches), np.stack(where) > 0))
        found[name] = tuple(np.stack(parts, axis=1) for parts in zip(*planes, strict=True))
    return found


def drop_masked(values, masked, fill):
    """Move the steps that are not masked to the front, and pad with `fill`."""
    order = np.argsort(masked, axis=1, kind="stable")
    return np.where(np.sort(masked, axis=1), fill, np.take_along_axis(values, order, axis=1))


def stacked(arrays, names, series, unit):
    """The expected tensor of bands."""
    deep = any(series[name] for name in names)
    depth = max(arrays[name].shape[1] for name in names)
    chosen = [
        arrays[name] if series[name] or not deep else np.repeat(arrays[name], depth, axis=1) for name in names
    ]
    tensor = np.stack(chosen, axis=-1).astype("float32")
    if unit == "pixel":
        tensor = tensor.transpose(0, 2, 3, 1, 4).reshape(-1, *tensor.shape[1::3])
        return tensor if deep else tensor[:, 0]
    return tensor if deep else tensor[:, 0]


def joined(dataset):
    elements = list(dataset.as_numpy_iterator())
    return tuple(np.concatenate(parts) for parts in zip(*elements, strict=True))


@pytest.mark.filterwarnings("ignore:default_value")  # tested in test_masks.py
@examples(40)
@given(exports(), st.integers(1, 40), st.data())
def test_any_export_equals_numpy(tmp_path_factory, export, batch_size, data):
    pytest.importorskip("tensorflow")
    shape, bands, depth, options, seed = export
    ds, truth = build(shape, bands, seed)
    depths = {name: depth for name, (_, steps) in bands.items() if steps}
    with dask.config.set(scheduler="sync"):
        result = ds.tfexport(tmp_path_factory.mktemp("any") / "scene", tensor_depths=depths, **options)

    found = patches_of(truth, bands, depth, options)
    series = {name: bool(steps) for name, (_, steps) in bands.items()}
    sequences = options.get("sequence_data", False)
    if options["collapse_bands"] and options.get("drop_masked_steps"):  # steps cannot be assigned to bands
        found = {"B0": tuple(np.concatenate(parts, axis=1) for parts in zip(*found.values(), strict=True))}
        series = {"B0": True}
    arrays = {name: values for name, (values, _) in found.items()}
    if options.get("drop_masked_steps"):
        kinds = {dtype for dtype, _ in bands.values()}
        for name in [name for name in found if series[name]]:
            dtypes = kinds if options["collapse_bands"] else {bands[name][0]}
            as_bytes = options["feature_types"] == "band" and dtypes == {"uint8"}
            fill = np.clip(options["default_value"], 0, 255) if as_bytes else options["default_value"]
            arrays[name] = drop_masked(*found[name], fill)

    some = st.lists(st.sampled_from(list(arrays)), min_size=1, unique=True)
    inputs, targets = data.draw(some), data.draw(some)
    unit = "pixel" if sequences else data.draw(st.sampled_from(["patch", "pixel"]))
    margins = data.draw(st.sampled_from(["keep", "trim"]))
    if margins == "trim":
        x, y = (side // 2 for side in options.get("kernel_size", (1, 1)))
        arrays = {
            name: values[:, :, y : values.shape[2] - y, x : values.shape[3] - x]
            for name, values in arrays.items()
        }
    dataset = tf_dataset(
        result.mixer,
        inputs=inputs,
        targets=targets,
        unit=None if sequences else unit,
        margins=margins,
        batch_size=batch_size,
        kernel_size=options.get("kernel_size"),
    )
    expected = [stacked(arrays, names, series, unit) for names in (inputs, targets)]
    for tensor, values, spec in zip(joined(dataset), expected, dataset.element_spec, strict=True):
        np.testing.assert_array_equal(tensor, values)
        assert spec.shape[1:] == values.shape[1:]
    assert dataset.cardinality() == -(-len(expected[0]) // batch_size)
    check_spec(result, arrays if margins == "keep" else {}, series, options)


def check_spec(result, arrays, series, options):
    """Parse all records in a batch, and the last record by itself, with the spec."""
    records = raw_records(result)
    spec = feature_spec(result.mixer, kernel_size=options.get("kernel_size"))
    if not options.get("sequence_data"):
        one, batch = tf.io.parse_single_example(records[-1], spec), tf.io.parse_example(records, spec)
        for name, values in ({} if options["collapse_bands"] else arrays).items():
            if batch[name].dtype == tf.string:
                assert b"".join(batch[name].numpy()) == values.astype("uint8").tobytes()
                continue
            values = values if series[name] else values[:, 0]
            np.testing.assert_array_equal(batch[name], values)
            np.testing.assert_array_equal(one[name], values[-1])
        return
    context, sequence = tf.io.parse_single_sequence_example(records[-1], *spec)
    contexts, sequences, lengths = tf.io.parse_sequence_example(records, *spec)
    assert (set(context), set(sequence)) == (set(contexts), set(sequences))
    for name in sequence:
        steps = int(lengths[name][-1])
        np.testing.assert_array_equal(sequence[name], sequences[name][-1, :steps])


# -- Series ------------------------------------------------------------------------------------------

CUBE = random_band((5, 12, 8), seed=1)
SCALARS = {"slope": random_band((12, 8), seed=2), "class": random_band((12, 8), "uint8", seed=3)}


def series_of(values, patch=4):
    """The pixels of (..., y, x) in the order of an export: patches row-major, pixels row-major in a patch."""
    *further, height, width = values.shape
    blocks = values.reshape(*further, height // patch, patch, width // patch, patch)
    return np.moveaxis(np.moveaxis(blocks, -3, -2).reshape(*further, -1), -1, 0)


def export(folder, name="scene", **options):
    ds = raster(SCALARS)
    ds["ndvi"] = (("time", "y", "x"), CUBE)
    ds["evi"] = (("time", "y", "x"), CUBE + 200)
    options = {"patch_dimensions": 4, "sequence_data": True, "max_file_size": 5000, **options}
    return ds.tfexport(f"{folder}/{name}", **options)


def test_series_have_the_axes_batch_time_band(tmp_path):
    pytest.importorskip("tensorflow")
    mixer = export(tmp_path, feature_types="band").mixer
    dataset = tf_dataset(
        mixer, inputs=["evi", "slope", "ndvi"], targets="class", target_dtype="int32", batch_size=10
    )
    series, classes = joined(dataset)
    ndvi = series_of(CUBE)
    slope = np.repeat(series_of(SCALARS["slope"])[:, None], 5, axis=1)
    np.testing.assert_array_equal(series, np.stack([ndvi + 200, slope, ndvi], axis=-1))
    np.testing.assert_array_equal(classes, series_of(SCALARS["class"])[:, None])
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [[None, 5, 3], [None, 1]]
    assert classes.dtype == "int32"
    assert dataset.cardinality() == 10  # 96 pixels by 10
    context = np.concatenate(list(tf_dataset(mixer, inputs=["slope", "class"])))
    np.testing.assert_array_equal(context, np.stack([series_of(SCALARS[name]) for name in SCALARS], -1))


def test_shuffled_series_are_a_permutation(tmp_path):
    pytest.importorskip("tensorflow")
    mixer = export(tmp_path).mixer
    options = {"inputs": ["ndvi", "evi"], "targets": "slope", "batch_size": 7, "shuffle": True}
    dataset = tf_dataset(mixer, seed=3, **options)
    first, second, again = joined(dataset), joined(dataset), joined(tf_dataset(mixer, seed=3, **options))
    plain = series_of(CUBE)
    assert not np.array_equal(first[0][..., 0], plain)
    assert not np.array_equal(first[0], second[0])
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    pairs = np.concatenate([plain, series_of(SCALARS["slope"])[:, None]], axis=1)
    for series, slope in (first, second):
        found = np.concatenate([series[..., 0], slope], axis=1)
        np.testing.assert_array_equal(found[np.lexsort(found.T)], pairs[np.lexsort(pairs.T)])
    assert {tuple(pixel) for pixel in first[0][:20, :, 0]} - {tuple(pixel) for pixel in plain[:40]}


def test_series_repeat_and_drop_remainders(tmp_path):
    pytest.importorskip("tensorflow")
    mixer = export(tmp_path).mixer
    repeated = tf_dataset(mixer, inputs="ndvi", batch_size=50, repeat=2, drop_remainder=True)
    assert [len(part) for part in repeated] == [50, 50, 50]
    assert repeated.cardinality() == 3
    assert repeated.element_spec.shape == (50, 5, 1)


def test_series_in_other_filesystems():
    pytest.importorskip("tensorflow")
    mixer = export("memory://series").mixer
    series = np.concatenate(list(tf_dataset(mixer, inputs="ndvi")))
    np.testing.assert_array_equal(series[..., 0], series_of(CUBE))


def test_series_without_a_mixer(tmp_path):
    pytest.importorskip("tensorflow")
    export(tmp_path)
    pattern = f"{tmp_path}/scene-*.tfrecord.gz"
    series, slope = joined(tf_dataset(pattern, inputs=["ndvi"], targets=["slope"]))
    np.testing.assert_array_equal(series[..., 0], series_of(CUBE))
    np.testing.assert_array_equal(slope[:, 0], series_of(SCALARS["slope"]))
    context, sequence = feature_spec(pattern)
    assert context["class"] == tf.io.FixedLenFeature([], tf.float32)
    assert sequence["evi"] == tf.io.FixedLenSequenceFeature([], tf.float32)


def test_series_cannot_be_read_as_patches(tmp_path):
    pytest.importorskip("tensorflow")
    mixer = export(tmp_path).mixer
    with pytest.raises(xee_tf.OptionError, match="is a single pixel or a row of a table: omit unit"):
        tf_dataset(mixer, inputs="ndvi", unit="patch")


@pytest.mark.parametrize("sequence_data", [True, False])
def test_bands_of_different_depths_cannot_be_stacked(tmp_path, sequence_data):
    pytest.importorskip("tensorflow")
    mixer = export(tmp_path, sequence_data=sequence_data, tensor_depths={"ndvi": 3, "evi": 4}).mixer
    with pytest.raises(xee_tf.OptionError, match=r"different depths.* got the depths {'ndvi': 3, 'evi': 4}"):
        tf_dataset(mixer, inputs=["ndvi", "slope", "evi"])
    series, targets = joined(tf_dataset(mixer, inputs="ndvi", targets=["evi", "slope"]))
    assert (series.shape[1], targets.shape[1]) == (3, 4)


def test_exports_of_different_depths_are_not_compatible(tmp_path):
    pytest.importorskip("tensorflow")
    one = export(tmp_path).mixer
    other = export(tmp_path, "other", tensor_depths={"ndvi": 4, "evi": 5}).mixer
    both = np.concatenate(list(tf_dataset([one, other], inputs="evi")))
    np.testing.assert_array_equal(both[..., 0], np.tile(series_of(CUBE) + 200, (2, 1)))
    with pytest.raises(xee_tf.OptionError, match=r"ndvi \(float, 5 steps\).* ndvi \(float, 4 steps\)"):
        tf_dataset([one, other], inputs="ndvi")
    shallow, deep = (
        export(
            tmp_path, f"collapsed-{count}", collapse_bands=True, tensor_depths={"ndvi": 2, "evi": count}
        ).mixer
        for count in (3, 4)
    )
    with pytest.raises(xee_tf.OptionError, match="from 2 of 7 in 'slope'"):
        tf_dataset([shallow, deep], inputs="ndvi")


def test_series_are_padded_with_the_default_value(tmp_path):
    """Ragged int64 and byte series; the first pixel has no steps."""
    pytest.importorskip("tensorflow")
    ds = raster(SCALARS)
    values = random_band((3, 12, 8), "int16", seed=5)
    values[:, 0, 0] = 7
    ds["a"] = (("time", "y", "x"), values, {"_FillValue": 7})
    ds["b"] = (("time", "y", "x"), values.astype("uint8"), {"_FillValue": 7})
    options = {"sequence_data": True, "drop_masked_steps": True, "feature_types": "band"}
    with pytest.warns(UserWarning, match=r"default_value=-9 .* 0 in 'b' \(uint8\)"):
        result = ds.tfexport(tmp_path / "scene", patch_dimensions=4, default_value=-9, **options)
    found = np.concatenate(list(tf_dataset(result.mixer, inputs=["a", "b"], batch_size=1)))
    for i, fill in enumerate([-9, 0]):
        series = series_of(values)[..., None, None].astype("f8")
        expected = drop_masked(series, series == 7, fill)[..., 0, 0]
        np.testing.assert_array_equal(found[..., i], expected)


# -- Files of other writers --------------------------------------------------------------------------


def write(path, messages):
    """Write records with TensorFlow, and a mixer with one row of patches of 2 x 2 pixels."""
    with tf.io.TFRecordWriter(str(path / "scene-00000.tfrecord")) as writer:
        for message in messages:
            writer.write(message.SerializeToString())
    (path / "scene-mixer.json").write_text(
        '{"projection": {"crs": "EPSG:32633", "affine": {"doubleMatrix": [30.0, 0.0, 0.0, 0.0, -30.0, 0.0]}},'
        ' "patchDimensions": [2, 2], "patchesPerRow": 2, "totalPatches": 2}'
    )
    return path / "scene-mixer.json", str(path / "scene-*.tfrecord")


def test_ragged_series_of_other_writers(tmp_path):
    values = np.arange(24, dtype="float32").reshape(8, 3)
    lengths = [2, 0, 3, 1, 2, 3, 0, 1]
    messages = []
    for row, length in zip(values, lengths, strict=True):
        steps = tf.train.FeatureList(feature=[floats(value) for value in row[:length]])
        lists = tf.train.FeatureLists(feature_list={"ndvi": steps})
        messages.append(
            tf.train.SequenceExample(
                context=tf.train.Features(feature={"slope": floats(row[0])}), feature_lists=lists
            )
        )
    sources = write(tmp_path, messages)
    expected = np.where(np.arange(3) < np.array(lengths)[:, None], values, 0)
    for source in sources:
        dataset = tf_dataset(source, inputs="ndvi", targets="slope", tensor_depths={"ndvi": 3}, batch_size=3)
        series, slope = joined(dataset)
        np.testing.assert_array_equal(series[..., 0], expected)
        np.testing.assert_array_equal(slope, values[:, :1])
        short = tf_dataset(source, inputs="ndvi")
        with pytest.raises(tf.errors.InvalidArgumentError, match="more than 2 steps of ndvi"):
            joined(short)


def test_array_bands_of_other_writers(tmp_path):
    """Depths are inferred from the lengths of lists if possible; otherwise tensor_depths gives them."""
    deep = np.arange(2 * 3 * 4, dtype="float32").reshape(2, 3, 2, 2)
    flat = np.arange(100, 108, dtype="float32").reshape(2, 2, 2)
    features = [{"ndvi": floats(one), "slope": floats(other)} for one, other in zip(deep, flat, strict=True)]
    messages = [tf.train.Example(features=tf.train.Features(feature=feature)) for feature in features]
    mixer, pattern = write(tmp_path, messages)
    expected = np.stack([deep, np.repeat(flat[:, None], 3, axis=1)], axis=-1)
    depth = {"tensor_depths": {"ndvi": 3}}
    for source, options in [
        (mixer, {}),
        (mixer, depth),
        (pattern, {"patch_dimensions": 2}),
        (pattern, {"patch_dimensions": 2, **depth}),
    ]:
        patches = np.concatenate(list(tf_dataset(source, inputs=["ndvi", "slope"], **options)))
        np.testing.assert_array_equal(patches, expected)
    pixels = np.concatenate(list(tf_dataset(mixer, inputs="ndvi", unit="pixel", batch_size=3, **depth)))
    np.testing.assert_array_equal(pixels[..., 0], deep.transpose(0, 2, 3, 1).reshape(8, 3))
    with pytest.raises(xee_tf.OptionError, match=r"'ndvi' 12, 'slope' 4\. If these are array bands"):
        tf_dataset(pattern, inputs=["ndvi", "slope"], unit="pixel")
    with pytest.raises(xee_tf.OptionError, match="tensor_depths specifies 3 for 'ndvi', which has 12 values"):
        tf_dataset(pattern, inputs="ndvi", **depth)
    with pytest.raises(xee_tf.RecordError, match="record 0: Band 'ndvi'"):
        tf_dataset(mixer, inputs="ndvi", tensor_depths={"ndvi": 4})


def test_depths_are_inferred_from_all_bands(tmp_path):
    """9 steps of 2 x 2 pixels have the length of a patch with a margin of 2; the other band rules it out."""
    deep = np.arange(2 * 9 * 4, dtype="float32").reshape(2, 9, 2, 2)
    features = [{"ndvi": floats(one), "slope": floats(one[0])} for one in deep]
    messages = [tf.train.Example(features=tf.train.Features(feature=feature)) for feature in features]
    _, pattern = write(tmp_path, messages)
    patches = np.concatenate(list(tf_dataset(pattern, inputs="ndvi", patch_dimensions=2)))
    np.testing.assert_array_equal(patches[..., 0], deep)
    wide = np.concatenate(list(tf_dataset(pattern, inputs="ndvi", patch_dimensions=2, kernel_size=4)))
    np.testing.assert_array_equal(wide[..., 0], deep.reshape(2, 6, 6))


def test_collapsed_bands_are_read_by_name(tmp_path):
    pytest.importorskip("tensorflow")
    mixer = export(tmp_path, sequence_data=False, collapse_bands=True).mixer
    patches = np.concatenate(list(tf_dataset(mixer, inputs=["evi", "class"], unit="pixel")))
    expected = [series_of(CUBE) + 200, np.repeat(series_of(SCALARS["class"])[:, None], 5, axis=1)]
    np.testing.assert_array_equal(patches, np.stack(expected, axis=-1))
    assert feature_spec(mixer) == {"slope": tf.io.FixedLenFeature([12, 4, 4], tf.float32)}


def test_a_single_scalar_band_is_not_ragged(tmp_path):
    image = raster({"B0": random_band((4, 4))})
    options = {"sequence_data": True, "collapse_bands": True, "drop_masked_steps": True}
    with pytest.warns(UserWarning, match="no array bands"):
        result = xee_tf.export_image(image, tmp_path / "s", patch_dimensions=2, **options)
    np.testing.assert_array_equal(xee_tf.open_image(result).B0, image.B0)


def test_additional_dimensions_are_one_axis_of_steps(tmp_path):
    pytest.importorskip("tensorflow")
    cube = random_band((2, 3, 8, 8))
    ds = raster({"slope": cube[0, 0]}).assign(a=(("time", "wave", "y", "x"), cube))
    mixer = ds.tfexport(tmp_path / "scene", patch_dimensions=4).mixer
    pixels = np.concatenate(list(tf_dataset(mixer, inputs="a", unit="pixel", batch_size=5)))
    np.testing.assert_array_equal(pixels[..., 0], series_of(cube.reshape(6, 8, 8)))


def test_pixels_of_array_bands_are_shuffled_across_patches(tmp_path):
    pytest.importorskip("tensorflow")
    mixer = export(tmp_path, sequence_data=False).mixer
    dataset = tf_dataset(mixer, inputs="ndvi", targets="slope", unit="pixel", shuffle=True, seed=1)
    series, slope = joined(dataset)
    found = np.concatenate([series[..., 0], slope], axis=1)
    plain = np.concatenate([series_of(CUBE), series_of(SCALARS["slope"])[:, None]], axis=1)
    assert not np.array_equal(found, plain)
    np.testing.assert_array_equal(found[np.lexsort(found.T)], plain[np.lexsort(plain.T)])


# -- A real time series ------------------------------------------------------------------------------

SENTINEL = ["B3", "B4", "B8A", "B11"]
CLEAR = [2, 4, 5, 7]  # classes of SCL: dark, vegetation, bare, unclassified; no cloud, shadow or snow


def forest(data_dir: Path) -> xr.Dataset:
    """Five years of Sentinel-2 at 140 dates, with masked clouds, and the tree cover density in percent.

    `train` is 1 in every other square of 200 m; the other squares are not used for training.
    """
    folder = data_dir / "nrt" / "data"
    cube = xr.open_dataset(
        folder / "sentinel2_cube_subset_romania_20m.nc", engine="h5netcdf", decode_coords="all"
    )
    with xr.open_dataset(folder / "tree_cover_density_2018_romania.tif", engine="rasterio") as tif:
        density = tif.band_data.squeeze("band").load()
    for axis in ("x", "y"):
        np.testing.assert_allclose(cube[axis], density[axis], rtol=0, atol=0.01)  # of 20 m
    ds = cube[SENTINEL].where(cube.SCL.isin(CLEAR))
    row, column = np.indices(density.shape) // 10
    return ds.assign(
        density=(("y", "x"), density.values), train=(("y", "x"), (1 - (row + column) % 2).astype("uint8"))
    )


def convolutional_network(mean):
    """A model of density from series of reflectance (0 for clouds): two convolutions along time."""
    pytest.importorskip("keras")
    from keras import Input, Model, layers, ops

    series = Input((140, len(SENTINEL)))
    clear = ops.cast(ops.any(series > 0, axis=-1, keepdims=True), "float32")
    _, red, infrared, shortwave = ops.split(series, 4, axis=-1)
    greenness = (infrared - red) / (infrared + red + 1)
    moisture = (infrared - shortwave) / (infrared + shortwave + 1)
    scaled = ops.concatenate([series / mean - 1, greenness, moisture], axis=-1)
    hidden = ops.concatenate([2 * scaled * clear, clear], axis=-1)
    for _ in range(2):
        hidden = layers.Conv1D(16, 7, strides=4, padding="same", activation="relu")(hidden)
    hidden = layers.Dropout(0.3)(layers.Flatten()(hidden))
    return Model(series, layers.Dense(1)(layers.Dense(16, activation="relu")(hidden)))


def r_squared(found, true):
    return 1 - ((found - true) ** 2).sum() / ((true - true.mean()) ** 2).sum()


def predict_density(data_dir, folder, seed=0, epochs=30):
    """Export, train, predict and write ``density.tif``; return the model and the scene."""
    keras = pytest.importorskip("keras")

    ds = forest(data_dir)
    result = ds.tfexport(folder / "forest", patch_dimensions=10, sequence_data=True)
    mean = np.array([ds[name].where(ds.train == 1).mean() for name in SENTINEL], "float32")
    keras.utils.set_random_seed(seed)
    model = convolutional_network(mean)
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    pixels = tf_dataset(
        result.mixer, inputs=SENTINEL, targets=["density", "train"], shuffle=True, seed=seed, batch_size=128
    )
    # Held-out pixels have the sample weight 0.
    weighted = pixels.map(lambda series, target: (series, target[:, :1] / 100, target[:, 1:]))
    model.fit(weighted, epochs=epochs, shuffle=False, verbose=0)
    with xee_tf.PredictionWriter(folder / "prediction.tfrecord.gz", result.mixer) as writer:
        for series in tf_dataset(result.mixer, inputs=SENTINEL, batch_size=300):
            writer.write({"density": 100 * model(series)[:, 0].numpy()})
    xee_tf.upload_image(folder / "prediction.tfrecord.gz", result.mixer, folder / "density.tif")
    return model, ds


def test_tree_cover_density_from_a_real_time_series(data_dir, tmp_path):
    model, ds = predict_density(data_dir, tmp_path)
    with xr.open_dataset(tmp_path / "density.tif", engine="rasterio") as tif:
        found = tif.band_data.squeeze("band").load()
    assert found.rio.crs.to_epsg() == 3035
    np.testing.assert_allclose(found.rio.transform(), ds.rio.transform(), rtol=0, atol=1e-6)

    # Each pixel has the location of its series.
    series = np.stack([ds[name].fillna(0) for name in SENTINEL], axis=-1).transpose(1, 2, 0, 3)
    predicted = 100 * model.predict(series.reshape(2500, 140, 4), verbose=0).reshape(50, 50)
    np.testing.assert_allclose(found, predicted, atol=0.01)

    # There, a random forest on seasonal medians reaches 0.84, networks with six random seeds 0.85 to 0.88.
    held_out = ds.train.values == 0
    assert r_squared(found.values[held_out], ds.density.values[held_out]) > 0.8
