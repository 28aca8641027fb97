"""Predictions of array bands and single pixels, written to TFRecord and converted to rasters."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from tests.foreign import example, write_records
from tests.optional import optional
from tests.rasters import random_band, raster
from tests.strategies import examples, sizes
from xee_tf import Mixer, OptionError, RecordError, Size
from xee_tf.upload.image import upload_image
from xee_tf.upload.writer import PredictionWriter

tf = optional("tensorflow")


def make_mixer(patch=(6, 4), columns=3, rows=2):
    affine = Affine(30, 0, 700_000, 0, -30, 5_000_000)
    return Mixer("EPSG:32633", affine, Size.from_xy(patch, "patch"), columns, columns * rows)


def cube(mixer, depth, dtype="float32", seed=0):
    """Create integers (depth, y, x) for the raster of a mixer."""
    shape = (depth, mixer.rows * mixer.patch.y, mixer.patches_per_row * mixer.patch.x)
    return np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)


def cut(array, mixer, margin=(0, 0)):
    """Cut a (depth, y, x) array into row-major patches (patches, depth, height, width), padded with -1."""
    height, width = mixer.patch.shape
    across, down = margin
    padded = np.pad(array, ((0, 0), (down, down), (across, across)), constant_values=-1)
    return np.stack(
        [
            padded[:, row : row + height + 2 * down, column : column + width + 2 * across]
            for row in range(0, array.shape[1], height)
            for column in range(0, array.shape[2], width)
        ]
    )


def pixels_of(patches):
    """Convert patches (n, depth, height, width) to row-major pixels (n * height * width, depth)."""
    return patches.transpose(0, 2, 3, 1).reshape(-1, patches.shape[1])


def numbers(records, name):
    """Concatenate the float values of a feature in all records."""
    return np.concatenate([np.float32(record.features.feature[name].float_list.value) for record in records])


def read_with_tensorflow(path):
    compression = "GZIP" if path.read_bytes()[:2] == b"\x1f\x8b" else ""
    dataset = tf.data.TFRecordDataset(str(path), compression)
    return [tf.train.Example.FromString(record) for record in dataset.as_numpy_iterator()]


# -- PredictionWriter ---------------------------------------------------------------------------------


@given(st.data())
@examples(40)
def test_patches_and_pixels_give_the_same_records(tmp_path_factory, data):
    patch, columns, rows = data.draw(sizes(1, 5)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    mixer = make_mixer(patch.xy, columns, rows)
    kinds = data.draw(st.sampled_from(["float", "band"]))
    depths = {"a": data.draw(st.integers(1, 4)), "b": data.draw(st.integers(1, 3)), "c": 1}
    dtypes = ("f4", "i2", "u1")
    patches = {
        name: cut(cube(mixer, depth, dtype, seed), mixer)
        for seed, ((name, depth), dtype) in enumerate(zip(depths.items(), dtypes, strict=True))
    }
    folder = tmp_path_factory.mktemp("arrays")
    suffix = data.draw(st.sampled_from([".tfrecord", ".tfrecord.gz"]))

    def batches(count):
        cuts = sorted(data.draw(st.sets(st.integers(0, count), max_size=5)))
        return list(zip([0, *cuts], [*cuts, count], strict=True))

    total = columns * rows
    with PredictionWriter(folder / f"patches{suffix}", mixer, feature_types=kinds) as writer:
        for start, stop in batches(total):
            last = {name: array[start:stop].transpose(0, 2, 3, 1) for name, array in patches.items()}
            writer.write({**last, "c": last["c"][..., 0]}, first=start)
        assert writer.written == writer.total == total
    pixels = {name: pixels_of(array) for name, array in patches.items()}
    count = total * patch.pixels
    with PredictionWriter(
        folder / f"pixels{suffix}", mixer, feature_types=kinds, bands=["a", "b", "c"]
    ) as writer:
        # With bands= given, a batch with the shape of a patch is accepted as pixels.
        for start, stop in batches(count):
            part = {name: array[start:stop] for name, array in pixels.items()}
            writer.write({"c": part["c"][:, 0], "b": part["b"], "a": part["a"]}, first=start)
            assert writer.written == stop
        assert writer.total == count
    assert (folder / f"patches{suffix}").read_bytes() == (folder / f"pixels{suffix}").read_bytes()
    stored = patches if kinds == "band" else {name: array.astype("f4") for name, array in patches.items()}
    expected = [example({name: array[i] for name, array in stored.items()}) for i in range(total)]
    assert read_with_tensorflow(folder / f"pixels{suffix}") == expected
    assert len(list(folder.iterdir())) == 2


def test_margins_of_array_bands(tmp_path):
    mixer = make_mixer()
    values = np.random.default_rng(0).normal(size=(6, 6, 10, 3)).astype("f4")
    with PredictionWriter(tmp_path / "p", mixer) as writer:
        writer.write({"a": tf.constant(values), "b": values[..., :1]})
    records = read_with_tensorflow(tmp_path / "p")
    np.testing.assert_array_equal(numbers(records, "a"), values.transpose(0, 3, 1, 2).ravel())
    np.testing.assert_array_equal(numbers(records, "b"), values[..., 0].ravel())


@pytest.mark.parametrize(
    ("shape", "bands", "names"),
    [
        ((144,), None, ["prediction"]),
        ((144, 1), None, ["prediction"]),
        ((144, 3), None, ["prediction_0", "prediction_1", "prediction_2"]),
        ((144, 2), ["u", "v"], ["u", "v"]),
    ],
)
def test_channels_of_pixels_become_bands(tmp_path, shape, bands, names):
    mixer = make_mixer()
    values = np.random.default_rng(0).normal(size=shape).astype("f4")
    with PredictionWriter(tmp_path / "p", mixer, bands=bands) as writer:
        writer.write(values[:100])
        writer.write(values[100:])
    records = read_with_tensorflow(tmp_path / "p")
    assert len(records) == 6
    for channel, name in enumerate(names):
        np.testing.assert_array_equal(numbers(records, name), values.reshape(144, -1)[:, channel])
    assert all(sorted(record.features.feature) == names for record in records)


def test_pixels_of_different_integer_dtypes(tmp_path):
    """Batches of pixels may differ in dtype; concatenated as floats they would lose digits."""
    with PredictionWriter(tmp_path / "p", make_mixer(), feature_types="band") as writer:
        writer.write({"a": np.full(70, -(2**62) - 1)})
        writer.write({"a": np.full(70, 2**62 + 1, np.uint64)})
        with pytest.raises(
            OptionError, match="'a' contains 18446744073709551615, which int64 cannot represent"
        ):
            writer.write({"a": np.full(4, 2**64 - 1, np.uint64)})
        writer.write({"a": np.full(4, 3, np.uint16)})
    records = read_with_tensorflow(tmp_path / "p")
    found = [value for record in records for value in record.features.feature["a"].int64_list.value]
    assert found == [-(2**62) - 1] * 70 + [2**62 + 1] * 70 + [3] * 4


def test_pending_pixels_are_copied(tmp_path):
    buffer = np.zeros((18, 2), "f4")
    with PredictionWriter(tmp_path / "p", make_mixer(), bands=["a", "b"]) as writer:
        for number in range(8):
            buffer[:] = number
            writer.write(buffer)
    found = numbers(read_with_tensorflow(tmp_path / "p"), "a")
    np.testing.assert_array_equal(found, np.repeat(np.arange(8), 18))


@pytest.mark.parametrize(
    ("predictions", "options", "message"),
    [
        ({"a": np.zeros((4, 6))}, {}, r"got \(4, 6\). For a single patch, pass patch\[np.newaxis\]"),
        ({"a": np.zeros((2, 4, 6)), "b": np.zeros(48)}, {}, "All bands must have the same shape"),
        ({"a": np.zeros((2, 4, 6, 2, 2))}, {}, r"got \{'a': \(2, 4, 6, 2, 2\)\}"),
        ({"a": np.float32(0)}, {}, r"got \{'a': \(\)\}"),
        (np.float32(0), {}, r"got \(\)"),
        (np.zeros((2, 1, 4, 6, 2)), {}, r"got \(2, 1, 4, 6, 2\)"),
        ({"a": np.zeros((2, 12, 4, 6))}, {}, r"Channels must be last.*np.moveaxis\(values, 1, -1\)"),
        ({"a": np.zeros((2, 4, 6, 0))}, {}, r"'a' has no values; got an array of shape \(2, 4, 6, 0\)"),
        (np.zeros((2, 4, 6, 12)), {"bands": "ndvi"}, r"pass a mapping: \{'ndvi': predictions\}"),
        (np.zeros((20, 3)), {"bands": ["a", "b"]}, r"3 channels; expected 2, .* bands 'a', 'b'"),
        (np.zeros((20, 0)), {}, r"0 channels; expected 0"),
        (np.zeros(20, "U3"), {}, "an array of numbers; got an array of <U3"),
    ],
)
def test_invalid_predictions(tmp_path, predictions, options, message):
    writer = PredictionWriter(tmp_path / "p", make_mixer(), **options)
    with pytest.raises(OptionError, match=message):
        writer.write(predictions)
    assert writer.written == 0
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_later_predictions_must_match_the_first(tmp_path):
    path = tmp_path / "p.gz"
    with PredictionWriter(path, make_mixer()) as writer:
        writer.write({"a": np.zeros((10, 2))})
        with pytest.raises(OptionError, match="were pixels; got patches"):
            writer.write({"a": np.zeros((2, 4, 6, 2))})
        with pytest.raises(OptionError, match="'a' had 2 values per pixel in the first predictions; got 1"):
            writer.write({"a": np.zeros(10)})
        with pytest.raises(RecordError, match="in order: expected pixel 10; got 0"):
            writer.write({"a": np.zeros((10, 2))}, first=0)
        with pytest.raises(RecordError, match=r"specifies 144 pixels \(6 patches of 6 x 4\); got 145"):
            writer.write({"a": np.zeros((135, 2))}, first=10)
        writer.write({"a": np.zeros((4, 2))})
        writer.abort()
    with pytest.raises(RecordError, match="is closed; written: 14 pixels"):
        writer.write({"a": np.zeros((4, 2))})
    with PredictionWriter(path, make_mixer()) as writer:
        writer.write({"a": np.zeros((2, 4, 6, 2))})
        with pytest.raises(OptionError, match="were patches; got pixels"):
            writer.write({"a": np.zeros((10, 2))})
        with pytest.raises(OptionError, match="'a' had 2 values per pixel in the first predictions; got 3"):
            writer.write({"a": np.zeros((2, 4, 6, 3))})
        writer.abort()
    with (
        pytest.raises(RecordError, match=r"missing: the mixer specifies 144 pixels .*; got 143"),
        PredictionWriter(path, make_mixer()) as writer,
    ):
        writer.write(np.zeros(143))
    assert list(tmp_path.iterdir()) == []


# -- upload_image -------------------------------------------------------------------------------------


def sequence_example(context, series):
    """Create a SequenceExample with one value per context feature and one value per step."""
    message = tf.train.SequenceExample(context=example(context).features)
    for name, steps in series.items():
        feature_list = message.feature_lists.feature_list[name]
        for value in steps:
            feature_list.feature.append(example({name: value[np.newaxis]}).features.feature[name])
    return message


def check_tif(path, planes, *, dtype="float32", nodata=None):
    """Check the bands of a GeoTIFF; `planes` maps descriptions to (y, x) arrays."""
    with rasterio.open(path) as file:
        assert file.descriptions == tuple(planes)
        assert set(file.dtypes) == {dtype}
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        if nodata is None and dtype.startswith("float"):
            nodata = np.nan
        np.testing.assert_equal(file.nodata, nodata)
        np.testing.assert_array_equal(file.read(), np.stack(list(planes.values())))


def check_zarr(path, arrays):
    """Check the variables of a Zarr store; `arrays` maps names to (dims, values)."""
    with xr.open_zarr(path, consolidated=False, decode_coords="all") as ds:
        assert set(ds) == set(arrays)
        assert ds.rio.crs.to_string() == "EPSG:32633"
        for name, (dims, values) in arrays.items():
            assert ds[name].dims == dims
            np.testing.assert_array_equal(ds[name].values, values)


def planes_of(arrays):
    """Convert (depth, y, x) arrays to bands of a GeoTIFF; a depth of 1 is a scalar band."""
    planes = {}
    for name, array in arrays.items():
        names = [name] if len(array) == 1 else [f"{name}_{step + 1}" for step in range(len(array))]
        planes.update(zip(names, array, strict=True))
    return planes


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("margin", [(0, 0), (2, 2), (3, 1)])
@pytest.mark.parametrize("compression", ["plain", "gzip", "written"])
def test_array_bands_written_by_tensorflow(tmp_path, margin, files, compression):
    mixer = make_mixer((16, 12), 4, 5)
    arrays = {"a": cube(mixer, 3), "b": cube(mixer, 1, seed=1), "c": cube(mixer, 5, seed=2)}
    patches = {name: cut(array, mixer, margin) for name, array in arrays.items()}
    records = [
        example({name: each[i] for name, each in patches.items()}).SerializeToString() for i in range(20)
    ]
    paths = []
    for i, part in enumerate(np.array_split(np.arange(20), files)):
        paths.append(tmp_path / f"prediction_{i}.tfrecord")
        write_records(paths[-1], [records[i] for i in part], compression)
    options = {"kernel_size": (2 * margin[0], 2 * margin[1])} if margin[0] != margin[1] else {}
    order = {"bands": ["a", "b", "c"], **options}
    check_tif(upload_image(paths, mixer, tmp_path / "map.tif", **order).path, planes_of(arrays))
    # Without a scalar band, an array band requires tensor_depths, as it may have a larger margin instead.
    deep = {"bands": ["c"], "tensor_depths": {"c": 5}, **options}
    found = upload_image(paths, mixer, tmp_path / "deep.tif", **deep)
    check_tif(found.path, planes_of({"c": arrays["c"]}))
    found = upload_image(paths, mixer, tmp_path / "map.zarr", **order)
    dims = {"a": ("depth_3", "y", "x"), "b": ("y", "x"), "c": ("depth_5", "y", "x")}
    values = {"a": arrays["a"], "b": arrays["b"][0], "c": arrays["c"]}
    check_zarr(found.path, {name: (dims[name], values[name]) for name in arrays})


@given(st.data())
@examples(25)
def test_pixel_records_written_by_tensorflow(tmp_path_factory, data):
    """Examples or SequenceExamples for each pixel, ragged or not, compared with numpy."""
    patch = data.draw(sizes(2, 6))
    mixer = make_mixer(patch.xy, data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    dtype = data.draw(st.sampled_from(["float32", "int64", "uint8"]))
    depth = data.draw(st.integers(2, 4))
    arrays = {"one": cube(mixer, 1, dtype), "deep": cube(mixer, depth, dtype, seed=1)}
    pixels = {name: pixels_of(cut(array, mixer)) for name, array in arrays.items()}
    count = len(pixels["one"])
    folder = tmp_path_factory.mktemp("pixels")
    if data.draw(st.booleans()):
        valid = np.random.default_rng(depth).random((count, depth)) < data.draw(st.sampled_from([0.6, 1]))
        valid[0] = True
        kept = [steps[mask] for steps, mask in zip(pixels["deep"], valid, strict=True)]
        messages = [sequence_example({"one": pixels["one"][i]}, {"deep": kept[i]}) for i in range(count)]
        first = [np.pad(steps, (0, depth - len(steps))) for steps in kept]
        height, width = patch.shape
        tiles = np.reshape(first, (mixer.rows, mixer.patches_per_row, height, width, depth))
        arrays["deep"] = tiles.transpose(4, 0, 2, 1, 3).reshape(arrays["deep"].shape)
    else:
        messages = [example({name: each[i] for name, each in pixels.items()}) for i in range(count)]
    compression = data.draw(st.sampled_from(["plain", "gzip", "members", "written"]))
    write_records(folder / "p", [message.SerializeToString() for message in messages], compression)
    found = upload_image(folder / "p", mixer, folder / "map.tif", bands=["one", "deep"])
    check_tif(found.path, planes_of(arrays), dtype=dtype)
    found = upload_image(folder / "p", mixer, folder / "map.zarr")
    expected = {"one": (("y", "x"), arrays["one"][0]), "deep": (("depth", "y", "x"), arrays["deep"])}
    check_zarr(found.path, expected)


def test_empty_first_series(tmp_path):
    """The number of steps must be given by tensor_depths."""
    mixer = make_mixer((2, 1), 1, 1)
    series = [np.empty(0, "f4"), np.float32([1, 2])]
    messages = [sequence_example({}, {"a": steps}).SerializeToString() for steps in series]
    write_records(tmp_path / "p", messages, "plain")
    with pytest.raises(RecordError, match=r"/p: record 0: Band 'a' has no steps in the first record"):
        upload_image(tmp_path / "p", mixer, tmp_path / "map.tif")
    found = upload_image(tmp_path / "p", mixer, tmp_path / "map.tif", tensor_depths={"a": 3})
    check_tif(found.path, {"a_1": [[0, 1]], "a_2": [[0, 2]], "a_3": [[0, 0]]})


def test_predicted_pixels_of_a_sequence_export(tmp_path):
    """Export series, apply a function as the model, and convert its predictions to a map."""
    mixer = make_mixer((8, 8), 3, 4)
    ds = raster({"class": np.zeros((32, 24), "float32")})
    ds["ndvi"] = (("time", "y", "x"), cube(mixer, 5))
    export = ds.tfexport(tmp_path / "scene", patch_dimensions=8, sequence_data=True)
    spec = {"ndvi": tf.io.FixedLenSequenceFeature([], tf.float32)}
    series = tf.data.TFRecordDataset([file.path for file in export.files], "GZIP")
    series = series.map(lambda record: tf.io.parse_single_sequence_example(record, {}, spec)[1]["ndvi"])
    with PredictionWriter(tmp_path / "predicted.tfrecord.gz", export.mixer) as writer:
        for batch in series.batch(50).as_numpy_iterator():
            writer.write({"mean": batch.mean(axis=1, keepdims=True), "twice": 2 * batch})
    assert writer.written == 32 * 24
    found = upload_image(tmp_path / "predicted.tfrecord.gz", export.mixer, tmp_path / "map.tif")
    values = ds.ndvi.values
    means = values.astype("f4").mean(axis=0, keepdims=True)
    check_tif(found.path, planes_of({"mean": means, "twice": 2 * values}))


def test_bands_are_named_after_coordinates(tmp_path):
    dates = np.array(["2020-05-01", "2020-06-01T12:30", "2021-01-01"], "datetime64[ns]")
    cubes = np.random.default_rng(0).normal(size=(3, 2, 20, 30)).astype("f4")
    ds = raster({"slope": cubes[0, 0]})
    ds["ndvi"] = (("time", "orbit", "y", "x"), cubes, {})
    ds = ds.assign_coords(time=dates, orbit=["up", "down"])
    for name, options in {"patches": {"kernel_size": 4}, "pixels": {"sequence_data": True}}.items():
        export = ds.tfexport(tmp_path / name, patch_dimensions=10, **options)
        order = {"bands": ["slope", "ndvi"]}
        found = upload_image(None, export.mixer, tmp_path / f"{name}.tif", **order)
        days = ("2020-05-01", "2020-06-01", "2021-01-01")
        names = [f"ndvi_{day}_{orbit}" for day in days for orbit in ("up", "down")]
        check_tif(
            found.path, {"slope": cubes[0, 0], **dict(zip(names, cubes.reshape(6, 20, 30), strict=True))}
        )
        found = upload_image(None, export.mixer, tmp_path / f"{name}.zarr", **order)
        dims = ("time", "orbit", "y", "x")
        check_zarr(found.path, {"slope": (("y", "x"), cubes[0, 0]), "ndvi": (dims, cubes)})
        with xr.open_zarr(found.path, consolidated=False) as opened:
            np.testing.assert_array_equal(opened.time, dates)
            assert opened.orbit.values.tolist() == ["up", "down"]


@pytest.mark.parametrize("name", ["map.tif", "map.zarr"])
def test_dtype_and_nodata_of_array_bands(tmp_path, name):
    mixer = make_mixer((3, 1), 1, 2)
    values = np.array([[[[0.4, np.nan], [254.6, 3], [1, 2]]], [[[5, 6], [7, np.nan], [9, 10]]]])
    with PredictionWriter(tmp_path / "p", mixer) as writer:
        writer.write({"a": values})
    options = {"dtype": "uint8", "tensor_depths": {"a": 2}}
    with pytest.raises(RecordError, match="'a' contains NaN, which uint8 cannot represent: pass nodata="):
        upload_image(tmp_path / "p", mixer, tmp_path / name, **options)
    found = upload_image(tmp_path / "p", mixer, tmp_path / name, nodata=99, **options)
    if name == "map.tif":
        expected = {"a_1": [[0, 255, 1], [5, 7, 9]], "a_2": [[99, 3, 2], [6, 99, 10]]}
        check_tif(found.path, expected, dtype="uint8", nodata=99)
    else:
        raw = xr.open_zarr(found.path, consolidated=False, mask_and_scale=False)
        assert raw.a.values.tolist() == [[[0, 255, 1], [5, 7, 9]], [[99, 3, 2], [6, 99, 10]]]
        assert (raw.a.attrs["_FillValue"], raw.a.dtype) == (99, np.uint8)


@pytest.mark.parametrize("name", ["map.tif", "map.zarr"])
def test_memory_of_array_bands(tmp_path, name):
    """12 steps of 2048 x 2048 pixels, 200 MB."""
    mixer = make_mixer((256, 256), 8, 8)
    plane = np.arange(2048, dtype="float32")[:, np.newaxis] * 2048 + np.arange(2048, dtype="float32")
    with PredictionWriter(tmp_path / "p.gz", mixer) as writer:
        for row in range(8):
            patches = plane[row * 256 : (row + 1) * 256].reshape(256, 8, 256).transpose(1, 0, 2)
            writer.write({"a": patches[..., np.newaxis] + np.arange(12, dtype="float32")})
    tracemalloc.start()
    result = upload_image(tmp_path / "p.gz", mixer, tmp_path / name, tensor_depths={"a": 12})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * plane.nbytes / 2, f"{peak / plane.nbytes / 12:.2f} of the raster"
    if name == "map.tif":
        with rasterio.open(result.path) as file:
            for step in (0, 11):
                np.testing.assert_array_equal(file.read(step + 1), plane + np.float32(step))
    else:
        with xr.open_zarr(result.path, consolidated=False) as ds:
            for step in (0, 11):
                np.testing.assert_array_equal(ds.a[step], plane + np.float32(step))


# -- Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["map.tif", "map.zarr"])
@pytest.mark.parametrize("kind", ["patches", "pixels", "series"])
def test_error_names_a_record_of_another_shape(tmp_path, name, kind):
    mixer = make_mixer((4, 3), 2, 2)
    arrays = {"a": cube(mixer, 3), "b": cube(mixer, 1)}
    patches = {band: cut(array, mixer) for band, array in arrays.items()}
    pixels = {band: pixels_of(each) for band, each in patches.items()}
    if kind == "patches":
        records = [example({band: each[i] for band, each in patches.items()}) for i in range(4)]
        records[2] = example({"a": patches["a"][2, :2], "b": patches["b"][2]})
    elif kind == "pixels":
        records = [example({band: each[i] for band, each in pixels.items()}) for i in range(48)]
        records[2] = example({"a": pixels["a"][2, :2], "b": pixels["b"][2]})
    else:
        records = [sequence_example({"b": pixels["b"][i]}, {"a": pixels["a"][i]}) for i in range(48)]
        records[2] = sequence_example({"b": pixels["b"][2]}, {"a": np.arange(4, dtype="f4")})
    write_records(tmp_path / "p", [record.SerializeToString() for record in records], "gzip")
    with pytest.raises(RecordError, match=r"/p: record 2\b.*'a'"):
        upload_image(tmp_path / "p", mixer, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (47, r"Expected 48 records \(4 patches x 12 pixels\).*/p contains 47\."),
        (49, r"Expected 48 records \(4 patches x 12 pixels\).*/p contains 49\."),
        (4, "'a' has 1 value per record, which matches no kernel for patches of 4 x 3 pixels"),
    ],
)
def test_number_of_pixel_records(tmp_path, held, message):
    record = example({"a": np.ones(1, "f4")}).SerializeToString()
    write_records(tmp_path / "p", [record] * held, "plain")
    with pytest.raises(RecordError, match=message):
        upload_image(tmp_path / "p", make_mixer((4, 3), 2, 2), tmp_path / "map.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize(
    ("depths", "message"),
    [
        ({"b": 3}, "'b', which is not a band"),
        ({"a": 0}, "must be a whole number from 1 to"),
        ({"a": 5}, "matches no margin for patches of 6 x 4 pixels and 5 steps"),
    ],
)
def test_invalid_tensor_depths(tmp_path, depths, message):
    with PredictionWriter(tmp_path / "p", make_mixer()) as writer:
        writer.write({"a": np.zeros((6, 4, 6, 3))})
    with pytest.raises((OptionError, RecordError), match=message):
        upload_image(tmp_path / "p", make_mixer(), tmp_path / "map.tif", tensor_depths=depths)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_maximum_number_of_bands_in_a_geotiff(tmp_path):
    mixer = make_mixer((1, 1), 1, 1)
    with PredictionWriter(tmp_path / "p", mixer) as writer:
        writer.write({"a": np.zeros((1, 1, 1, 65536))})
    depths = {"tensor_depths": {"a": 65536}}
    with pytest.raises(OptionError, match="at most 65535 bands; got 65536"):
        upload_image(tmp_path / "p", mixer, tmp_path / "folder" / "map.tif", **depths)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("steps", [np.array([b"dry", b"r\xc3\xa9d"]), np.array(["dry", "réd"])])
def test_string_and_bytes_coordinates_in_zarr(tmp_path, steps):
    values = random_band((2, 8, 8))
    ds = raster({"template": values[0]}).drop_vars("template")
    ds = ds.assign(a=(("season", "y", "x"), values)).assign_coords(season=steps)
    result = ds.tfexport(tmp_path / "scene", patch_dimensions=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = upload_image(None, result.mixer, tmp_path / "map.zarr")
    with xr.open_zarr(store.path, consolidated=False) as found:
        assert found.season.values.tolist() == ["dry", "réd"]
        np.testing.assert_array_equal(found.a, values)
