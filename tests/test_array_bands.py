"""Tests of array bands, collapsed bands and SequenceExamples, against TensorFlow's protobuf classes."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.optional import optional
from tests.oracle import cut_patches
from tests.rasters import random_band, raster, raw_records
from tests.strategies import chunkings, examples, indices, sizes

tf = optional("tensorflow")

ARRAYS = ["uint8", "int16", "float32"]

pytestmark = pytest.mark.usefixtures("small_blocks")


def numbers(feature):
    """Return the values of a protobuf Feature."""
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        return np.frombuffer(b"".join(feature.bytes_list.value), np.uint8)
    return np.array(getattr(feature, kind).value)


@st.composite
def cases(draw):
    shape = draw(sizes(2, 18))
    patch = (draw(st.integers(1, min(7, shape.x))), draw(st.integers(1, min(7, shape.y))))
    bands = {}
    for number in range(draw(st.integers(1, 3))):
        steps = draw(st.integers(1, 4)) if draw(st.booleans()) or not number else 0
        chunks = (chunkings(steps) if steps else st.just(()), chunkings(shape.y), chunkings(shape.x))
        depth = draw(st.integers(1, 5)) if steps else 1
        bands[f"B{number}"] = (draw(st.sampled_from(ARRAYS)), steps, depth, *(draw(c) for c in chunks))
    options = {
        "patch_dimensions": patch,
        "default_value": draw(st.sampled_from([0, -3, 300])),
        "feature_types": draw(st.sampled_from(["float", "band"])),
        "collapse_bands": draw(st.booleans()),
        "compressed": draw(st.booleans()),
        "max_file_size": draw(st.sampled_from([3000, 2**30])),
    }
    if draw(st.booleans()):
        options["sequence_data"] = True
        options["drop_masked_steps"] = draw(st.booleans())
    else:
        options["kernel_size"] = draw(st.sampled_from([(1, 1), (2, 2)]))
    return shape, bands, options, draw(st.integers(0, 9))


def build(shape, bands, seed):
    """Return a Dataset, and the values and masks of each band as numpy arrays (step, y, x)."""
    rng = np.random.default_rng(seed)
    ds = raster({"template": np.zeros(shape.shape)}).drop_vars("template")
    arrays, absent = {}, {}
    for number, (name, (dtype, steps, _, *chunks)) in enumerate(bands.items()):
        array = random_band((max(steps, 1), *shape.shape), dtype, seed + number)
        masked = rng.random(array.shape) < 0.2 if dtype == "float32" else array == 5
        if dtype == "float32":
            array[masked] = np.nan
        arrays[name], absent[name] = np.nan_to_num(array), masked
        attrs = {} if dtype == "float32" else {"_FillValue": 5}
        dims = (f"time{number}", "y", "x") if steps else ("y", "x")
        data = da.from_array(
            array if steps else array[0], chunks=tuple(chunks) if steps else tuple(chunks[1:])
        )
        ds[name] = (dims, data, attrs)
    return ds, arrays, absent


def export_case(case, folder):
    """Export a case; return the result, (values, masks) by band (patch, depth, height, width), and depths."""
    shape, bands, options, seed = case
    ds, arrays, absent = build(shape, bands, seed)
    depths = {name: depth for name, (_, steps, depth, *_) in bands.items() if steps}
    with dask.config.set(scheduler="sync"):
        result = ds.tfexport(folder / "scene", tensor_depths=depths, **options)
    cut = {"patch": options["patch_dimensions"], "kernel": options.get("kernel_size", (1, 1))}
    expected = {}
    for name, (dtype, steps, depth, *_) in bands.items():
        default = options["default_value"]
        if dtype != "float32":
            default = np.clip(default, np.iinfo(dtype).min, np.iinfo(dtype).max)
        planes = []
        for step in range(depth if steps else 1):
            values = np.full(shape.shape, default, "f8")
            masked = np.ones(shape.shape, bool)
            if step < len(arrays[name]):
                values, masked = arrays[name][step].astype("f8"), absent[name][step]
            patches, _ = cut_patches(values, **cut, default=default, masked=masked)
            where, _ = cut_patches(masked.astype("f8"), **cut, default=1, masked=masked)
            planes.append((np.stack(patches), np.stack(where) > 0))
        expected[name] = tuple(np.stack(parts, axis=1) for parts in zip(*planes, strict=True))
    return result, expected, depths


@pytest.mark.filterwarnings("ignore:default_value")  # tested in test_masks.py
@examples(80)
@given(cases())
def test_array_bands_export(tmp_path_factory, case):
    _, bands, options, _ = case
    result, expected, depths = export_case(case, tmp_path_factory.mktemp("arrays"))
    expected = list(expected.values())
    names = list(bands)
    series = [name in depths for name in bands]
    if options["collapse_bands"]:
        expected = [tuple(np.concatenate(parts, axis=1) for parts in zip(*expected, strict=True))]
        names, series = names[:1], [expected[0][0].shape[1] > 1 or series[0]]

    found = raw_records(result)
    if not options.get("sequence_data"):
        assert len(found) == len(result.grid)
        for number, data in enumerate(found):
            example = tf.train.Example.FromString(data)
            assert set(example.features.feature) == set(names)
            for name, (values, _) in zip(names, expected, strict=True):
                np.testing.assert_array_equal(numbers(example.features.feature[name]), values[number].ravel())
        return
    pixels = options["patch_dimensions"][0] * options["patch_dimensions"][1]
    assert len(found) == len(result.grid) * pixels == result.records
    for number, data in enumerate(found):
        example = tf.train.SequenceExample.FromString(data)
        patch, pixel = divmod(number, pixels)
        context = {name for name, one in zip(names, series, strict=True) if not one}
        assert set(example.context.feature) == context
        for name, one, (values, masked) in zip(names, series, expected, strict=True):
            steps = values[patch].reshape(len(values[patch]), -1)[:, pixel]
            if not one:
                np.testing.assert_array_equal(numbers(example.context.feature[name]), steps)
                continue
            if options["drop_masked_steps"]:
                steps = steps[~masked[patch].reshape(len(steps), -1)[:, pixel]]
            lists = example.feature_lists.feature_list[name].feature
            assert [numbers(each).tolist() for each in lists] == [[step] for step in steps]


def unpatch(patches, columns):
    """Join patches (n, ..., height, width) to a raster."""
    rows = [np.concatenate(patches[i : i + columns], axis=-1) for i in range(0, len(patches), columns)]
    return np.concatenate(rows, axis=-2)


@pytest.mark.filterwarnings("ignore:default_value")  # tested in test_masks.py
@examples(50)
@given(cases(), st.sampled_from([None, {}, {"y": 3, "x": 5}, 2]), st.data())
def test_array_bands_round_trip(tmp_path_factory, case, chunks, data):
    _, bands, options, _ = case
    result, expected, depths = export_case(case, tmp_path_factory.mktemp("arrays"))
    ragged = options.get("drop_masked_steps", False)
    if ragged and options["collapse_bands"]:  # steps cannot be assigned to bands
        values, masked = (np.concatenate(parts, axis=1) for parts in zip(*expected.values(), strict=True))
        expected = {next(iter(bands)): (values, masked)}
        depths = dict.fromkeys(expected, values.shape[1])
    my, mx = result.grid.margin.shape
    for margins in ("trim", "keep"):
        with dask.config.set(scheduler="sync"):
            opened = xee_tf.open_image(result.mixer, margins=margins, chunks=chunks)
            assert list(opened.data_vars) == list(expected)
            for name, (values, masked) in expected.items():
                wanted = values if name in depths else values[:, 0]
                if margins == "trim":
                    inner = wanted[..., my : wanted.shape[-2] - my, mx : wanted.shape[-1] - mx]
                    wanted = unpatch(inner, result.grid.patches_per_row)
                found = opened[name]
                assert found.shape == wanted.shape
                index = tuple(data.draw(indices(length)) for length in found.shape)
                if not ragged:
                    np.testing.assert_array_equal(found, wanted)
                    np.testing.assert_array_equal(found[index], wanted[index])
                    continue
                # The steps that were written come first, in order.
                axis = 1 if margins == "keep" else 0
                if name in depths:
                    where = masked if margins == "keep" else unpatch(masked, result.grid.patches_per_row)
                    order = np.argsort(where, axis=axis, kind="stable")
                    moved = np.take_along_axis(wanted, order, axis)
                    there = ~np.take_along_axis(where, order, axis)
                    np.testing.assert_array_equal(found.values[there], moved[there])
                    default = options["default_value"]
                    if found.dtype == np.uint8:
                        default = min(max(default, 0), 255)
                    assert (found.values[~there] == default).all()
                else:
                    np.testing.assert_array_equal(found, wanted)


def test_each_chunk_of_a_series_is_loaded_once(tmp_path):
    loads = []

    def load(block, block_info=None):
        loads.append(tuple(block_info[0]["chunk-location"]))
        return block

    cube = random_band((6, 40, 40))
    lazy = da.from_array(cube, chunks=(2, 16, 16)).map_blocks(load, meta=np.empty((0, 0, 0), "f4"))
    ds = raster({"a": cube[0]}).assign(a=(("time", "y", "x"), lazy))
    result = ds.tfexport(tmp_path / "scene", patch_dimensions=10, kernel_size=4)
    assert len(loads) == len(set(loads)) == 3 * 9
    patches = [np.stack(cut_patches(step, patch=(10, 10), kernel=(4, 4), default=0)[0]) for step in cube]
    for number, data in enumerate(raw_records(result)):
        found = numbers(tf.train.Example.FromString(data).features.feature["a"])
        np.testing.assert_array_equal(found.reshape(6, 14, 14), np.stack([step[number] for step in patches]))


def test_several_additional_dimensions_are_flattened_in_order(tmp_path):
    cube = random_band((2, 3, 10, 10))
    ds = raster({"a": cube[0, 0]}).assign(a=(("y", "time", "wave", "x"), cube.transpose(2, 0, 1, 3)))
    result = ds.tfexport(tmp_path / "scene", patch_dimensions=10)
    (data,) = raw_records(result)
    found = numbers(tf.train.Example.FromString(data).features.feature["a"])
    np.testing.assert_array_equal(found.reshape(cube.shape), cube)


def test_manifest_of_array_bands(tmp_path):
    from xee_tf.sidecars import read_manifest
    from xee_tf.storage import Location

    time = np.array(["2020-05-01", "2020-06-11T12:30"], "datetime64[ns]")
    ds = raster({"slope": random_band((8, 8))})
    ds["ndvi"] = xr.DataArray(random_band((2, 8, 8)), dims=("time", "y", "x"), coords={"time": time})
    result = ds.tfexport(tmp_path / "scene", patch_dimensions=8, default_value=-1)
    found = read_manifest(Location.of(tmp_path / "scene-image.tfexport"))
    assert str(result.manifest).endswith("scene-image.tfexport")
    assert [(band.name, band.dims, band.shape) for band in found.bands] == [
        ("slope", (), ()),
        ("ndvi", ("time",), (2,)),
    ]
    np.testing.assert_array_equal(found.coords["time"], time)
    assert found.default_value == -1


def test_sequence_data_without_array_bands_warns(tmp_path):
    with pytest.warns(UserWarning, match="no array bands"):
        result = raster({"a": random_band((4, 4))}).tfexport(
            tmp_path / "scene", patch_dimensions=2, sequence_data=True
        )
    example = tf.train.SequenceExample.FromString(raw_records(result)[0])
    assert not example.feature_lists.feature_list


def test_tensorflow_parses_sequence_examples(tmp_path):
    cube = random_band((5, 8, 8))
    ds = raster({"slope": random_band((8, 8))}).assign(ndvi=(("time", "y", "x"), cube))
    result = ds.tfexport(tmp_path / "scene", patch_dimensions=8, sequence_data=True)
    context, series = tf.io.parse_single_sequence_example(
        raw_records(result)[11],
        {"slope": tf.io.FixedLenFeature([], tf.float32)},
        {"ndvi": tf.io.FixedLenSequenceFeature([], tf.float32)},
    )
    assert context["slope"].numpy() == ds.slope.values[1, 3]
    np.testing.assert_array_equal(series["ndvi"], cube[:, 1, 3])


def test_tensor_depths_as_sequence(tmp_path):
    ds = raster({"a": random_band((8, 8))}).expand_dims(time=4)
    plan = xee_tf.plan_export(ds, patch_dimensions=8, format_options={"tensorDepths": [3]})
    assert plan.bands[0].shape == (3,)


def test_split_dim_exports_each_step_and_loads_chunks_once(tmp_path):
    loads = []

    def load(block, block_info=None):
        loads.append(tuple(block_info[0]["chunk-location"]))
        return block

    cube = random_band((3, 40, 40))
    lazy = da.from_array(cube, chunks=(2, 16, 16)).map_blocks(load, meta=np.empty((0, 0, 0), "f4"))
    time = np.array(["2020-05-01", "2020-06-11", "2021-01-05"], "datetime64[ns]")
    ds = raster({"slope": random_band((40, 40), seed=9)}).assign(a=(("time", "y", "x"), lazy), time=time)
    options = {"patch_dimensions": 10, "kernel_size": 4, "split_dim": "time"}
    assert "exports  3" in repr(ds.tfexport.plan(tmp_path / "scene", **options))
    results = ds.tfexport(tmp_path / "scene", **options)
    assert list(results) == ["20200501", "20200611", "20210105"]
    assert len(loads) == len(set(loads)) == 2 * 9
    assert (tmp_path / "scene_20200611-mixer.json").exists()
    for step, result in enumerate(results.values()):
        patches, _ = cut_patches(cube[step], patch=(10, 10), kernel=(4, 4), default=0)
        found = [tf.train.Example.FromString(data) for data in raw_records(result)]
        assert set(found[0].features.feature) == {"a", "slope"}
        for example, patch in zip(found, patches, strict=True):
            np.testing.assert_array_equal(numbers(example.features.feature["a"]), patch.ravel())
    with pytest.raises(
        xee_tf.OptionError, match=r"split_dim='date' is not a dimension; available: 'y', 'x', 'time'"
    ):
        ds.tfexport(tmp_path / "scene", split_dim="date")


@pytest.mark.parametrize(
    ("coordinate", "labels"),
    [
        (
            np.array(["2020-05-01T10", "2020-05-01T12"], "datetime64[ns]"),
            ["20200501T100000", "20200501T120000"],
        ),
        (["wet season", "dry"], ["wet-season", "dry"]),
        ([1, 2], ["1", "2"]),
        (None, ["00000", "00001"]),
    ],
)
def test_split_dim_labels(tmp_path, coordinate, labels):
    ds = raster({"a": random_band((8, 8))}).expand_dims(time=2)
    if coordinate is not None:
        ds = ds.assign_coords(time=coordinate)
    assert list(ds.tfexport(tmp_path / "scene", patch_dimensions=8, split_dim="time")) == labels
