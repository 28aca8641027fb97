"""Models in ONNX files: the order of their axes, their files, and what they predict."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import psutil
import pytest
import xarray as xr

pytest.importorskip("onnxruntime")

import xee_tf
from tests.conftest import ROOT
from tests.onnx_models import convolution, identity, known, model, node
from tests.rasters import random_band, raster
from xee_tf import MissingModelError, Model, ModelError, OptionError, PredictionError
from xee_tf.connector import _connections, connected, opened
from xee_tf.models.axis_orders import choose_order, from_last, read_channels, to_last
from xee_tf.models.onnx import OnnxBytesConnector, OnnxConnector

GOLDEN = ROOT / "tests" / "golden" / "onnx"
WEIGHTS = np.random.default_rng(1).integers(-3, 4, (2, 3, 3, 3)).astype("float32")
SCENE = raster({name: random_band((21, 17), seed=seed) for seed, name in enumerate(("B4", "B3", "B2"))})


@pytest.fixture
def expected() -> Any:
    return np.load(GOLDEN / "expected.npz")


@pytest.fixture
def memory() -> Iterator[str]:
    """Return the URL of an empty folder in memory."""
    folder = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    yield f"memory:/{folder}"
    if fs.exists(folder):
        fs.rm(folder, recursive=True)


def convolved(bands: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Convolve (band, y, x) with (output, band, 3, 3) in numpy, with zeros around."""
    padded = np.pad(bands, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return np.einsum("byxij,obij->oyx", windows.astype("f8"), weights)


def channels_last(shape: list[int | str]) -> bytes:
    """The model of `convolution` for (n, height, width, 3), as converted from TensorFlow."""
    nodes = [
        node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        node("Conv", ["first", "w"], ["found"], pads=[1, 1, 1, 1]),
        node("Transpose", ["found"], ["out"], perm=[0, 2, 3, 1]),
    ]
    return model(nodes, {"x": ("float32", shape)}, {"out": ("float32", [*shape[:3], 2])}, {"w": WEIGHTS})


# -- Images --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "tile"),
    [
        (convolution(WEIGHTS), 8),
        (convolution(WEIGHTS, (1, 3, 10, 10)), None),
        (convolution(WEIGHTS, ("n", 3, 10, 8)), None),
        (convolution(WEIGHTS, (4, 3, "h", "w")), 5),
        (channels_last(["n", "h", "w", 3]), 8),
        (channels_last([1, 10, 10, 3]), None),
    ],
    ids=["first", "first, one tile", "first, tile", "first, four", "last", "last, one tile"],
)
@pytest.mark.parametrize("chunk", [None, 9])
def test_convolutions_are_those_of_numpy(encoded: bytes, tile: int | None, chunk: int | None) -> None:
    image = SCENE if chunk is None else SCENE.chunk(y=chunk, x=chunk)
    network = Model.from_onnx(
        encoded,
        bands=["B4", "B3", "B2"],
        input_tile_size=tile,
        input_overlap_size=1,
        output_bands=["forest", "water"],
    )
    found = network.predict_image(image, merge=False)
    bands = np.stack([SCENE[name].values for name in ("B4", "B3", "B2")])
    np.testing.assert_array_equal([found["forest"].values, found["water"].values], convolved(bands, WEIGHTS))


def test_a_model_of_pytorch(expected: Any) -> None:
    connector = OnnxConnector.of(GOLDEN / "convolution.onnx")
    signature = connector.signature()
    assert [info.shape for info in signature.inputs.values()] == [(2, 6, 6, 3)]
    tiles = np.moveaxis(expected["convolution_input"], 1, -1)
    (found,) = connected(connector).predict({"0": tiles}).values()
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected["convolution_output"], atol=1e-6)
    # Tiles of 6 x 6 pixels, two at once, become 3 x 3: the first is in the upper left corner of the image.
    bands = {
        name: np.tile(tile, (3, 2))
        for name, tile in zip("abc", expected["convolution_input"][0], strict=True)
    }
    image = raster(bands)
    network = Model.from_onnx(GOLDEN / "convolution.onnx", bands=["a", "b", "c"], output_bands=list("pqrs"))
    predicted = network.predict_image(image.chunk(y=6), merge=False)
    assert predicted.sizes == {"y": 9, "x": 6}
    corner = [predicted[name].values[:3, :3] for name in "pqrs"]
    np.testing.assert_allclose(corner, expected["convolution_output"][0], atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32", "float64", "float16"])
def test_dtypes(dtype: str) -> None:
    image = raster({"a": random_band((6, 6), dtype)})
    network = Model.from_onnx(identity(["n", 1, "h", "w"], dtype), input_tile_size=4)
    found = network.predict_image(image, merge=False)["out"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image["a"])
    with pytest.raises(OptionError, match="input_type_override"):
        network.predict_image(image.astype("float64" if dtype[0] != "f" else "object"))


def test_inputs_and_outputs_by_name() -> None:
    """Two images, a property, and two outputs; the arrays without an axis of channels stay as they are."""
    shape = ["n", 1, "h", "w"]
    nodes = [
        node("Add", ["red", "nir"], ["sum"]),
        node("Reshape", ["gain", "four"], ["factor"]),
        node("Mul", ["sum", "factor"], ["scaled"]),
        node("ArgMax", ["sum"], ["class"], axis=1, keepdims=0),
    ]
    encoded = model(
        nodes,
        {"red": ("float32", shape), "nir": ("float32", shape), "gain": ("float32", ["n", 1])},
        {"scaled": ("float32", shape), "class": ("int64", ["n", "h", "w"])},
        {"four": np.array([-1, 1, 1, 1])},
    )
    image = SCENE.assign_attrs(gain=3.0)
    network = Model.from_onnx(
        encoded,
        inputs={"B4": "nir", "B3": "red"},
        input_properties=["gain"],
        input_type_override={"gain": "float32"},
        input_tile_size=8,
    )
    found = network.predict_image(image, merge=False)
    np.testing.assert_array_equal(found["scaled"], 3 * (SCENE["B4"] + SCENE["B3"]))
    assert found["class"].dtype == "int64"
    assert not found["class"].any()


@pytest.mark.parametrize(
    ("order", "shape"),
    [("NTCHW", (1, 4, 3, "h", "w")), ("NCTHW", (1, 3, 4, "h", "w")), ("NTHWC", (1, 4, "h", "w", 3))],
)
def test_time_series(order: str, shape: tuple[Any, ...]) -> None:
    """The sum of each band over time, for every order of axes."""
    step, kept = order.index("T"), order.replace("T", "")
    encoded = model(
        [node("ReduceSum", ["x", "axis"], ["out"], keepdims=0)],
        {"x": ("float32", shape)},
        {"out": ("float32", [side for axis, side in zip(order, shape, strict=True) if axis != "T"])},
        {"axis": np.array([step])},
    )
    cube = SCENE.expand_dims(time=4) * np.arange(1, 5, dtype="float32")[:, None, None]
    cube = cube.assign_attrs(SCENE.attrs)
    options: dict[str, Any] = {"input_tile_size": 8, "output_bands": ["B4", "B3", "B2"]}
    network = Model.from_onnx(encoded, channels=order, **options)
    inputs = network.connector.signature().inputs or {}
    assert inputs["x"].shape == (1, None, None, 4, 3)
    found = network.predict_image(cube, merge=False)
    for name in SCENE.data_vars:
        np.testing.assert_array_equal(found[name], 10 * SCENE[name])
    if kept == "NCHW":
        with pytest.raises(ModelError, match=r"'x' .*\(1, . ?, ., \?, \?\), whose axes .* channels='NTCHW'"):
            Model.from_onnx(encoded, **options).predict_image(cube)


# -- Tables --------------------------------------------------------------------------------------------


def test_models_of_scikit_learn(expected: Any) -> None:
    rows = pd.DataFrame(expected["rows"], columns=["a", "b", "c"]).assign(site="x")
    options: dict[str, Any] = {"input_properties": ["a", "b", "c"]}
    found = Model.from_onnx(GOLDEN / "forest.onnx", **options).predict_properties(rows)
    np.testing.assert_array_equal(found["label"], expected["classes"])
    assert found["label"].dtype == "int64"
    np.testing.assert_allclose(np.stack(found["probabilities"]), expected["probabilities"], atol=1e-6)
    found = Model.from_onnx(GOLDEN / "names.onnx", **options).predict_properties(rows, batch_size=3)
    assert found["label"].tolist() == expected["names"].tolist()
    one = Model.from_onnx(GOLDEN / "boosted.onnx", output_properties=["height"], **options)
    np.testing.assert_allclose(one.predict_properties(rows)["height"], expected["boosted"], atol=1e-6)
    with pytest.raises(ModelError, match=r"'output_probability' of type seq\(map.*options={'zipmap': False}"):
        Model.from_onnx(GOLDEN / "zipmap.onnx", **options).predict_properties(rows)


def test_strings() -> None:
    connection = OnnxBytesConnector.of(identity(["n"], "object")).open()
    assert connection.predict({"x": np.array(["oak", b"fir"], object)})["out"].tolist() == ["oak", "fir"]


# -- Pixels --------------------------------------------------------------------------------------------


def test_pixels(expected: Any) -> None:
    """A classifier of rows takes the pixels of an image that are not masked."""
    image = raster(dict(zip("abc", expected["rows"].T.reshape(3, 4, 5).copy(), strict=True)))
    image["b"][1, 2] = np.nan
    network = Model.from_onnx(GOLDEN / "forest.onnx", unit="pixel", bands=["a", "b", "c"])
    found = network.predict_image(image.chunk(y=3), merge=False)
    valid = np.arange(20) != 7
    np.testing.assert_array_equal(found["label"].values.ravel()[valid], expected["classes"][valid])
    probabilities = found["probabilities"].values.reshape(3, 20)
    np.testing.assert_allclose(probabilities[:, valid].T, expected["probabilities"][valid], atol=1e-6)
    assert np.isnan(probabilities[:, 7]).all()


def test_series_of_pixels() -> None:
    """PyTorch's Conv1d takes (n, band, time)."""
    encoded = model(
        [node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0)],
        {"x": ("float32", ["n", 3, 4])},
        {"sum": ("float32", ["n", 3])},
        {"axis": np.array([2])},
    )
    cube = SCENE.expand_dims(time=4).copy().assign_attrs(SCENE.attrs)
    network = Model.from_onnx(encoded, channels="NCT", unit="pixel", output_bands=["B4", "B3", "B2"])
    found = network.predict_image(cube, merge=False)
    np.testing.assert_array_equal(found["B3"], 4 * SCENE["B3"])


def scene_of_rows(expected: Any) -> xr.Dataset:
    return raster(dict(zip("abc", expected["rows"].T.reshape(3, 4, 5).copy(), strict=True)))


def test_the_channels_of_a_classifier_have_names(expected: Any) -> None:
    """Names that are not those of outputs are channels of the only output that has as many."""
    image, wanted = scene_of_rows(expected), expected["probabilities"].T.reshape(3, 4, 5)
    for file in ("forest", "names"):
        options: dict[str, Any] = {"unit": "pixel", "bands": list("abc")}
        network = Model.from_onnx(GOLDEN / f"{file}.onnx", output_bands=["oak", "fir", "elm"], **options)
        found = network.predict_image(image, merge=False)
        argmax = {"cover": {"argmax": ["oak", "fir", "elm"], "values": [5, 6, 9]}}
        mapped = Model.from_onnx(GOLDEN / f"{file}.onnx", output_bands=argmax, **options)
        stacked = found.to_dataarray().values
        cover = mapped.predict_image(image, merge=False)["cover"]
        np.testing.assert_array_equal(cover, np.array([5, 6, 9])[stacked.argmax(0)])
        if file == "forest":
            np.testing.assert_allclose(stacked, wanted, atol=1e-6)
    table = pd.DataFrame(expected["rows"], columns=["a", "b", "c"])
    rows = Model.from_onnx(
        GOLDEN / "forest.onnx", input_properties=["a", "b", "c"], output_properties=["oak", "fir", "elm"]
    )
    fir = rows.predict_properties(table)["fir"]
    np.testing.assert_allclose(fir, expected["probabilities"][:, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (
            ["oak", "fir"],
            r"the 3 channels of 'probabilities', .*output_bands={'class': {'argmax': \[\.\.\.\]}}",
        ),
        ({"cover": {"argmax": ["oak", "fir"]}}, r"'argmax': \[\.\.\.\]}} with 3 names"),
        ({"oak": "float32"}, r"not found in the outputs"),
        (["oak", "fir", "probabilitis"], r"Did you mean 'probabilities'\?"),
        (["oak", "fir", "label"], r"contains 'oak', 'fir', not found"),
        (
            None,
            r"'label' has dtype string; .* Name the others in output_bands: 'probabilities'\. To use the 3 ",
        ),
        (
            ["label"],
            r"becomes a band\. To use the 3 channels of 'probabilities', .*'argmax': .* with 3 names",
        ),
    ],
)
def test_outputs_of_a_classifier_that_do_not_fit(expected: Any, bands: Any, message: str) -> None:
    network = Model.from_onnx(GOLDEN / "names.onnx", unit="pixel", output_bands=bands)
    with pytest.raises(OptionError, match=message):
        network.predict_image(scene_of_rows(expected), merge=False)


def weighted_steps(shape: list[Any], band: int) -> bytes:
    """The sum of the steps of a pixel, with weights, for each of its bands, which are the axis `band`."""
    steps = [axis for axis in range(1, len(shape)) if axis != band]
    weights = np.arange(1, 1 + np.prod([shape[axis] for axis in steps])).astype("float32")
    sides = [shape[axis] if axis in steps else 1 for axis in range(len(shape))]
    return model(
        [node("Mul", ["x", "w"], ["y"]), node("ReduceSum", ["y", "axis"], ["sum"], keepdims=0)],
        {"x": ("float32", shape)},
        {"sum": ("float32", ["n", shape[band]])},
        {"axis": np.array(steps), "w": weights.reshape(sides)},
    )


def cube(**steps: int) -> xr.Dataset:
    """A series of SCENE, each step with other values."""
    found = SCENE
    for number, (dim, size) in enumerate(steps.items(), 2):
        factors = xr.DataArray(np.arange(1, size + 1, dtype="float32") ** number, dims=dim)
        found = found * factors
    return found.assign_attrs(SCENE.attrs)


@pytest.mark.parametrize(
    ("shape", "band", "channels", "steps"),
    [
        (["n", 3, 5], 1, "first", {"time": 5}),
        (["n", 3, 3], 1, "first", {"time": 3}),
        (["n", 3, 3], 2, "last", {"time": 3}),
        (["n", 5, 3], 2, None, {"time": 5}),
        (["n", 2, 4, 3], 3, None, {"time": 2, "lag": 4}),
        (["n", 2, 2, 3], 3, None, {"time": 2, "lag": 2}),
        (["n", 3, 2, 4], 1, "first", {"time": 2, "lag": 4}),
        (["n", 3, 3, 3], 1, "first", {"time": 3, "lag": 3}),
        (["n", 3, 3, 3], 3, "last", {"time": 3, "lag": 3}),
    ],
)
def test_axes_of_series_of_pixels(
    shape: list[Any], band: int, channels: str | None, steps: dict[str, int]
) -> None:
    image = cube(**steps)
    network = Model.from_onnx(
        weighted_steps(shape, band),
        unit="pixel",
        channels=channels,
        array_dims=list(steps),
        output_bands=list("pqr"),
    )
    found = network.predict_image(image, merge=False)
    weights = np.arange(1, 1 + np.prod(list(steps.values()))).reshape(list(steps.values()))
    for name, source in zip("pqr", SCENE.data_vars, strict=True):
        values = image[source].transpose(*steps, "y", "x").values
        np.testing.assert_array_equal(found[name], np.tensordot(weights, values, weights.ndim))


@pytest.mark.parametrize("shape", [["n", 3, 3], ["n", 3, "t"], ["n", "b", "t"], ["n", 4, 6, "c"]])
def test_ambiguous_series_of_pixels(shape: list[Any]) -> None:
    network = Model.from_onnx(identity(shape), unit="pixel", array_dims="time")
    with pytest.raises(ModelError, match=r"'x' .*several orders\. Pass channels='last' .*channels='first'"):
        network.predict_image(cube(time=3))


def test_other_numbers_of_bands_name_the_order() -> None:
    network = Model.from_onnx(weighted_steps(["n", 3, 5], 1), unit="pixel", array_dims="time")
    with pytest.raises(OptionError, match=r"\(n, band, time\), pass channels='first'"):
        network.predict_image(cube(time=5))
    with pytest.raises(OptionError, match=r"channels='NCTHW' has axes for the height .*unit='pixel'"):
        Model.from_onnx(identity(["n", 3]), unit="pixel", channels="NCTHW")


# -- The order of axes ---------------------------------------------------------------------------------

FIRST, LAST = (0, 3, 1, 2), None


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((None, 3, None, None), FIRST),
        ((None, 1, None, None), FIRST),
        ((1, 3, 64, 64), FIRST),
        ((1, 64, 32, 32), FIRST),
        ((1, 3, 64, 96), FIRST),
        ((None, None, 64, 64), FIRST),
        ((None, 3, 64, None), FIRST),
        ((None, 5, 3, 3), FIRST),
        ((None, None, None, 3), LAST),
        ((1, 64, 64, 3), LAST),
        ((1, 64, 96, 3), LAST),
        ((None, 3, 3, 5), LAST),
        ((None, 3, None, None, None), (0, 4, 3, 1, 2)),
        ((None, None, 3, None, None), (0, 3, 4, 1, 2)),
        ((None, None, None, 7, 3), LAST),
        ((None, 7, None, None, 3), (0, 3, 1, 2, 4)),
    ],
)
def test_order_by_the_shape(shape: tuple[int | None, ...], axes: tuple[int, ...] | None) -> None:
    order = choose_order({"x": shape, "elevation": (None, 1)}, "The model")
    assert from_last(order, len(shape)) == axes
    values = np.zeros([2] * len(shape))
    if axes is not None:
        assert values.transpose(axes).transpose(to_last(order, len(shape))).strides == values.strides


@pytest.mark.parametrize(
    "shape", [(None, None, None, None), (1, 3, 3, 3), (1, 3, 64, 3), (None, 7, 10, None, None), (None,) * 5]
)
def test_ambiguous_shapes(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(ModelError, match=r"The input 'x' of M has .* several orders\. Pass .*channels="):
        choose_order({"x": shape}, "M")


def test_inputs_decide_together() -> None:
    free, first, last = (None,) * 4, (None, 3, None, None), (None, None, None, 3)
    assert to_last(choose_order({"a": free, "b": first}, "M"), 4) == (0, 2, 3, 1)
    assert to_last(choose_order({"a": last, "b": free}, "M"), 4) is None
    with pytest.raises(ModelError, match="several orders"):
        choose_order({"a": first, "b": last}, "M")
    assert (
        choose_order({"a": first, "b": (None, 7, 10, None, None), "c": (None, None, 10, None, None)}, "M")
        == "NTCHW"
    )


def test_ambiguous_models_need_the_option() -> None:
    encoded = identity(["n", 3, 3, 3])
    image = SCENE.isel(y=slice(3), x=slice(3))
    with pytest.raises(ModelError, match="channels='first'"):
        Model.from_onnx(encoded).predict_image(image)
    for channels in ("first", "last", "NCHW", "NHWC"):
        network = Model.from_onnx(encoded, channels=channels, output_bands=list("abc"))
        np.testing.assert_array_equal(network.predict_image(image)["c"], image["B2"])


def test_steps_of_single_pixels() -> None:
    """PyTorch's Conv1d takes (n, band, time)."""
    connection = OnnxBytesConnector.of(identity(["n", 2, 7]), channels="NCT").open()
    assert [info.shape for info in (connection.signature.inputs or {}).values()] == [(None, 7, 2)]
    values = np.arange(28.0, dtype="float32").reshape(2, 7, 2)
    np.testing.assert_array_equal(connection.predict({"x": values})["out"], values)


def test_order_is_part_of_the_content() -> None:
    def content(**options: Any) -> str | None:
        return OnnxBytesConnector.of(known("first"), **options).content()

    assert len({content(channels=each) for each in (None, "first", "last")}) == 3
    assert content() == content(threads=2)


@pytest.mark.parametrize("value", ["left", "", "NHW", "NCH", "NCHWC", "CHW", "nchw", 1, ["first"]])
def test_wrong_channels(value: Any) -> None:
    with pytest.raises(OptionError, match=r"channels must be 'first', 'last', or .*got"):
        read_channels(value)


@pytest.mark.parametrize(
    ("shape", "order", "message"),
    [
        (["n", 3, 8, 8], "NCT", r"channels='NCT' has 3 axes, .* 'x' has the 4 axes \(\?, 3, 8, 8\).*'NCHW'"),
        (["n", 7, 3, 8, 8], "NCHW", r"'NCHW' has 4 axes, .* 5 axes .* such as channels='NTCHW'"),
        (["n", 3], "NTHWC", r"'NTHWC' has 5 axes, .* 2 axes \(\?, 3\)\. .* such as channels='NC'"),
        (["n", 1, 1, 1, 1, 1, 1], "NCHW", r"'NCHW' has 4 axes, .* 7 axes .*\. Omit it\."),
    ],
)
def test_orders_that_no_input_has(shape: list[Any], order: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OnnxBytesConnector.of(identity(shape), channels=order).open()


def test_wrong_orders_are_a_possible_reason_of_wrong_tiles() -> None:
    encoded = identity(["n", 3, "h", "w"])
    network = Model.from_onnx(encoded, channels="last", input_tile_size=8, output_bands=["a", "b", "c"])
    with pytest.raises(OptionError, match=r"Its axes are read as channels last: .* such as channels='NTCHW'"):
        network.predict_image(SCENE)


# -- The runtime ---------------------------------------------------------------------------------------


def test_wrong_options() -> None:
    for options, message in (
        ({"threads": 0}, "threads must be a whole number of at least 1; got 0"),
        ({"providers": 5}, r"providers must be names .*device_id.*; got 5"),
        ({"providers": []}, r"providers must be names .*; got \[\]"),
        ({"providers": [("CPUExecutionProvider", 1)]}, "providers must be names"),
        (
            {"providers": "CUDA"},
            r"contains 'CUDA', which onnxruntime does not have\..* 'CPUEx",
        ),
        ({"providers": [("CpuExecutionProvider", {})]}, r"Did you mean 'CPUExecutionProvider'\?"),
        ({"storage_options": {"anon": True}}, "the model is in memory: omit them"),
    ):
        with pytest.raises(OptionError, match=message):
            Model.from_onnx(known("first"), **options)
    with pytest.raises(ModelError, match=r"Expected the path of an ONNX file, .*; got Dataset\. .*torch"):
        Model.from_onnx(SCENE)


def test_providers() -> None:
    """The signature is known where the devices of the workers are not."""
    cpu, gpu = "CPUExecutionProvider", "CUDAExecutionProvider"
    connector = OnnxBytesConnector.of(known("first"), providers=[gpu, cpu])
    assert connector.signature() == OnnxBytesConnector.of(known("first")).signature()
    with pytest.raises(ModelError, match=f"'{gpu}', which the installed onnxruntime does not have"):
        connector.open()
    OnnxBytesConnector.of(known("first"), providers=[(cpu, {"use_arena": 0})]).open()


def test_threads() -> None:
    """A model computes in the threads that call it, so that Dask's threads do not compete with others."""
    process = psutil.Process()
    OnnxBytesConnector.of(known("first")).open()  # the library is loaded
    before = process.num_threads()
    single = [OnnxBytesConnector.of(known("first")).open() for _ in range(3)]
    assert process.num_threads() == before
    several = OnnxBytesConnector.of(known("first"), threads=3).open()
    assert process.num_threads() == before + 2
    del single, several


def test_a_process_loads_a_model_once() -> None:
    """The weights are in memory once, whatever the options of the session."""
    for options in ({"threads": 3}, {"providers": [("CPUExecutionProvider", {"use_arena": 0})]}):
        connector = OnnxBytesConnector.of(identity(["n", 1, "h", 5]), **options)
        before = len(_connections)
        connector.signature()
        assert opened(connector) is connected(connector)
        assert len(_connections) == before + 1


def test_errors_of_the_model() -> None:
    shape = ["n", "h", "w", 1]
    encoded = model(
        [node("Add", ["a", "b"], ["sum"])],
        {"a": ("float32", shape), "b": ("float32", shape)},
        {"sum": ("float32", shape)},
    )
    connection = OnnxBytesConnector.of(encoded).open()
    batch = {name: np.zeros((1, side, 4, 1), "float32") for name, side in (("a", 2), ("b", 3))}
    with pytest.raises(PredictionError, match=r"^Non-zero status code .* 2 by 3$") as caught:
        connection.predict(batch)
    assert "\n" not in str(caught.value)


# -- Files ---------------------------------------------------------------------------------------------


def with_weights(folder: Path, factor: float) -> Path:
    """Save a model whose weights are in another file, as torch.onnx.export does by default."""
    folder.mkdir(exist_ok=True)
    path = folder / "m.onnx"
    path.write_bytes(
        model(
            [node("Mul", ["x", "w"], ["out"])],
            {"x": ("float32", ["n", "h", "w", 1])},
            {"out": ("float32", ["n", "h", "w", 1])},
            external={"w": ("m.onnx.data", [1])},
        )
    )
    (folder / "m.onnx.data").write_bytes(np.float32(factor).tobytes())
    return path


def factor_of(path: Any, **options: Any) -> float:
    """Return the factor of the model of `with_weights`."""
    network = Model.from_onnx(path, bands=["B4"], input_tile_size=8, **options)
    found = network.predict_image(SCENE, merge=False)["out"] / SCENE["B4"].where(SCENE["B4"] > 0)
    return float(np.unique(found.values[SCENE["B4"].values > 0]).item())


def test_weights_in_another_file(tmp_path: Path, memory: str) -> None:
    path = with_weights(tmp_path / "m", 2)
    contents = set()
    for factor in (2, 5):
        with_weights(tmp_path / "m", factor)
        for each in (path, path.parent):
            assert factor_of(each) == factor
            contents.add(OnnxConnector.of(each).content())
    assert len(contents) == 4  # the names in a folder are part of its content
    fs = fsspec.filesystem("memory")
    fs.put(str(path.parent), memory, recursive=True)
    folder = f"{memory}/m" if fs.exists(f"{memory}/m") else memory
    assert factor_of(folder) == 5
    with pytest.raises(ModelError, match=r"'m\.onnx\.data': pass the URL of the folder .*external_data="):
        factor_of(f"{folder}/m.onnx")


def test_names_of_weights_may_be_anything(tmp_path: Path) -> None:
    whole = with_weights(tmp_path, 2).read_bytes()
    path = tmp_path / "changed.onnx"
    changed = [
        whole.replace(b"m.onnx.data", name) for name in (b"m.onnx\0data", b"\xff.onnx.data", b"http://a::b")
    ]
    rng = np.random.default_rng(0)
    for _ in range(200):
        copy = bytearray(whole)
        copy[rng.integers(len(copy))] = rng.integers(256)
        changed.append(bytes(copy))
    for content in (*changed, *(whole[:size] for size in range(len(whole)))):
        path.write_bytes(content)
        connector = OnnxConnector.of(path)
        assert connector.version() is not None
        assert connector.content()


def test_urls(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    url = f"{memory}/m.onnx"

    def put(factor: int) -> None:
        weights = np.full((1, 1, 1, 1), factor)
        fs.pipe_file(url, convolution(weights, ("n", 1, "h", "w"), pad=0))

    put(2)
    network = Model.from_onnx(url, bands=["B4"], input_tile_size=8)
    first = network.predict_image(SCENE, merge=False)
    hashed = network.connector.content()
    put(3)
    assert factor_of(url) == 3
    assert network.connector.content() != hashed
    with pytest.raises(ModelError, match="was replaced"):
        first.compute()
    with pytest.raises(MissingModelError, match=r"no ONNX file at .*none\.onnx: the path does not exist"):
        Model.from_onnx(f"{memory}/none.onnx", input_tile_size=8).predict_image(SCENE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.onnx", r"no ONNX file at .*none\.onnx: the path does not exist"),
        ("text.onnx", "is damaged, or is not an ONNX file"),
        ("empty.onnx", "is damaged, or is not an ONNX file"),
        ("net.pt", r"is not an ONNX file, but a PyTorch file: .*torch\.onnx\.export"),
        ("net.joblib", r"a pickled model: .*skl2onnx"),
        ("net.keras", "a Keras file: use Model.from_keras"),
        ("saved", "is a SavedModel, not an ONNX model: use Model.from_saved_model"),
        ("two", r"several ONNX files, 'a\.onnx', 'b\.onnx'"),
        ("other", r"no ONNX file at .*other: it is a folder with 'readme'"),
        ("none", r"no ONNX file at .*none: the path does not exist"),
        ("operator.onnx", "onnxruntime cannot load .*operator.onnx: .*NoSuchOperator"),
        ("lost.onnx", r"onnxruntime cannot load .*lost\.onnx: .*lost\.data"),
    ],
)
def test_files_that_are_not_models(name: str, message: str, tmp_path: Path) -> None:
    info = ("float32", ["n", "h", "w", 1])
    contents = {
        "text.onnx": b"not a model",
        "empty.onnx": b"",
        "net.pt": b"PK",
        "net.joblib": b"\x80",
        "net.keras": b"PK",
        "saved/saved_model.pb": b"",
        "two/a.onnx": b"",
        "two/b.onnx": b"",
        "other/readme": b"",
        "operator.onnx": model([node("NoSuchOperator", ["x"], ["out"])], {"x": info}, {"out": info}),
        "lost.onnx": model(
            [node("Mul", ["x", "w"], ["out"])], {"x": info}, {"out": info}, external={"w": ("lost.data", [1])}
        ),
    }
    for each, content in contents.items():
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        Model.from_onnx(tmp_path / name, input_tile_size=8).predict_image(SCENE)


def test_other_constructors_name_this_one(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(known("first"))
    with pytest.raises(ModelError, match=r"it is an ONNX model\. Use Model\.from_onnx"):
        Model.from_saved_model(tmp_path / "m.onnx", input_tile_size=8).predict_image(SCENE)
    with pytest.raises(OptionError, match=r"Use xee_tf\.Model\.from_onnx\('m\.onnx'\)"):
        xee_tf.predict_to_zarr("m.onnx", SCENE, tmp_path / "p.zarr")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from xee_tf_cli import main

    (tmp_path / "m.onnx").write_bytes(convolution(WEIGHTS))
    SCENE.to_zarr(tmp_path / "scene.zarr", consolidated=False)
    options = ["--bands", "B4,B3,B2", "--input-tile-size", "8", "--input-overlap-size", "1"]
    options += ["--output-bands", "forest,water", "--crs", "EPSG:32633"]
    bands = np.stack([SCENE[name].values for name in ("B4", "B3", "B2")])
    network = Model.from_onnx(tmp_path / "m.onnx", bands=["B4", "B3", "B2"])
    (tmp_path / "item.json").write_text(json.dumps(network.to_mlm("m")))
    for name in ("m.onnx", "item.json"):
        arguments = [str(tmp_path / each) for each in (name, "scene.zarr", f"{name}.zarr")]
        monkeypatch.setattr(sys, "argv", ["xee-tf", "predict", *arguments, *options])
        main()
        assert "Wrote" in capsys.readouterr().out
        found = xr.open_zarr(tmp_path / f"{name}.zarr")
        np.testing.assert_array_equal(found["water"], convolved(bands, WEIGHTS)[1])


def test_resumed_predictions_compare_the_model(tmp_path: Path) -> None:
    options: dict[str, Any] = {"bands": ["B4"], "input_tile_size": 8}
    path = with_weights(tmp_path / "m", 2)
    for _ in range(2):
        xee_tf.predict_to_zarr(Model.from_onnx(path, **options), SCENE.chunk(y=8), tmp_path / "p.zarr")
    with_weights(tmp_path / "m", 3)
    with pytest.raises(xee_tf.DestinationExistsError, match=r"weights of the .* differ"):
        xee_tf.predict_to_zarr(Model.from_onnx(path, **options), SCENE.chunk(y=8), tmp_path / "p.zarr")


def test_memory_does_not_grow() -> None:
    connection = OnnxBytesConnector.of(known("first")).open()
    process = psutil.Process()

    def run(times: int) -> int:
        for count in range(times):
            side = 32 + 8 * (count % 5)
            connection.predict(
                {"a": np.ones((4, side, side, 1), "float32"), "b": np.ones((4, side, side, 2), "float32")}
            )
        return int(process.memory_info().rss)

    before = run(100)
    assert run(500) - before < 8 << 20
