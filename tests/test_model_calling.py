"""Calls of models with tiles: inputs, outputs and errors."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.connector_conformance import in_keras, in_tensorflow
from xee_tf.connector import Arrays, Connector, Signature, TensorInfo
from xee_tf.errors import ModelError, OptionError, PredictionError, XeeTFError
from xee_tf.geometry import Size
from xee_tf.model import Model
from xee_tf.predict import calling
from xee_tf.predict.calling import TileCaller
from xee_tf.sidecars import BandSpec

FLOAT = np.dtype("float32")
Bands = dict[str, tuple[str, tuple[int, ...]]]


class FakeConnector(Connector):
    """A model with the signature and function of a test, which records its inputs."""

    def __init__(self, signature: Signature, function: Any) -> None:
        self.known, self.function = signature, function
        self.sent: list[dict[str, npt.NDArray[Any]]] = []

    def __str__(self) -> str:
        return "the model"

    __hash__ = object.__hash__

    def signature(self) -> Signature:
        return self.known

    def open(self) -> FakeConnection:
        return FakeConnection(self)


class FakeConnection:
    def __init__(self, model: FakeConnector) -> None:
        self.model = model
        self.signature = model.known

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        self.model.sent.append({name: np.array(values) for name, values in batch.items()})
        outputs: dict[str, npt.NDArray[Any]] = self.model.function(batch)
        return outputs

    def close(self) -> None:
        pass


def tensors(**shapes: Any) -> dict[str, TensorInfo]:
    """Return TensorInfo: ``x=(None, 8, 8, 3)`` is float32, ``x=("int16", (None, 2))``, ``x=None`` unknown."""
    found = {}
    for name, shape in shapes.items():
        dtype: Any = "float32"
        if shape is not None and shape and isinstance(shape[0], str):
            dtype, shape = shape
        found[name] = TensorInfo(None if shape is None else np.dtype(dtype), shape)
    return found


FREE = (None, None, None)


def fake_connector(
    inputs: Mapping[str, TensorInfo] | None, outputs: Mapping[str, TensorInfo] | None, function: Any = None
) -> FakeConnector:
    return FakeConnector(Signature(inputs, outputs), function)


def tile_caller(model: Model, image: Bands, properties: Mapping[str, Any], **options: Any) -> TileCaller:
    bands = [
        BandSpec(name, tuple(f"dim_{axis}" for axis in range(len(shape))), shape, dtype=dtype)
        for name, (dtype, shape) in image.items()
    ]
    return calling.tile_caller(model, model.connector.signature(), bands, properties, **options)


def caller_of(connector: Connector, image: Bands, properties: Any = (), /, **options: Any) -> TileCaller:
    batch_size = options.pop("batch_size", None)
    options.setdefault("input_tile_size", 4)
    model = Model.from_connector(connector, **options)
    return tile_caller(model, image, dict(properties), batch_size=batch_size)


RGB: Bands = {"B4": ("float32", ()), "B3": ("float32", ()), "B2": ("float32", ())}


def tiles_of(bands: Bands, count: int, side: int = 4, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 100, (count, side, side, *shape)).astype(dtype)
        for name, (dtype, shape) in bands.items()
    }


# -- Inputs ---------------------------------------------------------------------------------------


def test_bands_by_name_have_a_last_axis_of_one() -> None:
    connector = fake_connector(None, None, lambda batch: {"p": batch["B4"]})
    bands: Bands = {"B4": ("uint16", ()), "series": ("float32", (12,)), "cube": ("int16", (2, 3))}
    caller = caller_of(connector, bands, output_bands={"p": "uint16"})
    tiles = tiles_of(bands, 3)
    np.testing.assert_array_equal(caller.call(tiles)["p"], tiles["B4"])
    (sent,) = connector.sent
    shapes = {name: (values.shape, values.dtype.name) for name, values in sent.items()}
    assert shapes == {
        "B4": ((3, 4, 4, 1), "uint16"),
        "series": ((3, 4, 4, 12), "float32"),
        "cube": ((3, 4, 4, 2, 3), "int16"),
    }


def test_only_inputs_of_the_model_are_sent() -> None:
    inputs = tensors(B3=(*FREE, 1), B4=(*FREE, 1))
    connector = fake_connector(inputs, tensors(p=(*FREE, 1)), lambda batch: {"p": batch["B4"] - batch["B3"]})
    caller = caller_of(connector, RGB)
    assert caller.bands == ("B3", "B4")
    tiles = tiles_of(RGB, 2)
    np.testing.assert_array_equal(caller.call(tiles)["p"], tiles["B4"] - tiles["B3"])
    assert set(connector.sent[0]) == {"B3", "B4"}


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, ["B4", "B3", "B2"]),
        ({"bands": ["B2", "B4", "B3"]}, ["B2", "B4", "B3"]),
        ({"bands": ["B2", "B4", "B3"], "input_name": "x"}, ["B2", "B4", "B3"]),
        ({"inputs": {"B3": "x", "B2": "x", "B4": "x"}}, ["B3", "B2", "B4"]),
    ],
)
def test_bands_stacked_in_one_tensor(options: dict[str, Any], order: list[str]) -> None:
    connector = fake_connector(tensors(x=(*FREE, 3)), tensors(p=(*FREE, 3)), lambda batch: {"p": batch["x"]})
    caller = caller_of(connector, RGB, **options)
    tiles = tiles_of(RGB, 2)
    np.testing.assert_array_equal(caller.call(tiles)["p"], np.stack([tiles[name] for name in order], -1))


def test_array_bands_are_stacked_with_their_channels() -> None:
    bands: Bands = {"B4": ("uint8", ()), "series": ("float32", (2,))}
    connector = fake_connector(tensors(x=(*FREE, 3)), tensors(p=(*FREE, 3)), lambda batch: {"p": batch["x"]})
    tiles = tiles_of(bands, 2)
    found = caller_of(connector, bands).call(tiles)["p"]
    np.testing.assert_array_equal(found[..., 0], tiles["B4"])
    np.testing.assert_array_equal(found[..., 1:], tiles["series"])


def test_models_without_a_channel_axis() -> None:
    connector = fake_connector(tensors(B4=FREE), tensors(p=FREE), lambda batch: {"p": batch["B4"]})
    caller = caller_of(connector, {"B4": ("float32", ())})
    assert caller.call(tiles_of({"B4": ("float32", ())}, 2))["p"].shape == (2, 4, 4)
    assert connector.sent[0]["B4"].shape == (2, 4, 4)


def test_properties_are_sent_with_each_tile() -> None:
    inputs = tensors(
        x=(*FREE, 1), day=(None, 1), place=("O", (None,)), wet=("bool", (None,)), angles=(None, 2)
    )
    connector = fake_connector(
        inputs, tensors(p=(*FREE, 1)), lambda batch: {"p": batch["x"] + batch["day"][:, :, None, None]}
    )
    properties = {"day": 7, "place": "Wake", "wet": True, "angles": [1.5, 2], "other": object()}
    names = ["day", "place", "wet", "angles"]
    bands: Bands = {"B4": ("float32", ())}
    caller = caller_of(connector, bands, properties, input_properties=names, batch_size=2)
    tiles = tiles_of(bands, 3)
    np.testing.assert_array_equal(caller.call(tiles)["p"], tiles["B4"] + 7)
    first, second = connector.sent
    assert first["day"].tolist() == [[7], [7]]
    assert first["day"].dtype == np.float32
    assert first["place"].tolist() == ["Wake", "Wake"]
    assert second["wet"].tolist() == [True]
    assert second["angles"].tolist() == [[1.5, 2]]
    copy = pickle.loads(pickle.dumps(caller.properties))
    assert set(copy) == set(names)


def test_inputs_have_the_dtype_of_the_signature_or_the_override() -> None:
    bands: Bands = {"B4": ("uint16", ()), "B3": ("float64", ())}
    connector = fake_connector(tensors(x=(*FREE, 2)), tensors(p=(*FREE, 2)), lambda batch: {"p": batch["x"]})
    tiles = {"B4": np.full((1, 4, 4), 999, "uint16"), "B3": np.full((1, 4, 4), -2.75)}
    caller = caller_of(connector, bands, input_type_override={"B4": "uint8", "B3": "int16"})
    assert caller.call(tiles)["p"][0, 0, 0].tolist() == [255, -2]
    assert connector.sent[0]["x"].dtype == np.float32
    ranges = {
        "B4": {"precision": "int", "min": 5, "max": 90},
        "B3": {"precision": "int", "min": -1, "max": 9},
    }
    caller = caller_of(connector, bands, input_type_override=ranges)
    assert caller.call(tiles)["p"][0, 0, 0].tolist() == [90, -1]
    assert caller.call({name: 0 * tile for name, tile in tiles.items()})["p"][0, 0, 0].tolist() == [5, 0]
    named = fake_connector(None, None, lambda batch: {"p": batch["B4"] + batch["B3"]})
    caller_of(named, bands, input_type_override={"B3": "float"}, output_bands=["p"]).call(tiles)
    assert {name: values.dtype.name for name, values in named.sent[0].items()} == {
        "B4": "uint16",
        "B3": "float32",
    }


@given(
    count=st.integers(0, 9),
    batch_size=st.integers(1, 4),
    fixed=st.booleans(),
    tile=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_predictions_keep_the_order_of_tiles(
    count: int, batch_size: int, fixed: bool, tile: tuple[int, int]
) -> None:
    """For any batch size, and for models with a fixed one."""
    first = batch_size if fixed else None
    connector = fake_connector(
        tensors(x=(first, None, None, 3)),
        tensors(p=(first, None, None, 3)),
        lambda batch: {"p": batch["x"] + 1},
    )
    caller = caller_of(
        connector,
        RGB,
        input_tile_size=tile,
        batch_size=None if fixed else batch_size,
        output_bands=list("abc"),
    )
    width, height = tile
    rng = np.random.default_rng(count)
    tiles = {name: rng.random((count, height, width), "float32") for name in RGB}
    found = caller.call(tiles)
    for name, band in zip("abc", RGB, strict=True):
        assert found[name].shape == (count, height, width)
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tiles[band] + 1)
    sizes = [len(batch["x"]) for batch in connector.sent]
    assert all(size == batch_size for size in (sizes if fixed else sizes[:-1]))
    assert len(sizes) == -(-count // batch_size)


def test_default_batch_size() -> None:
    connector = fake_connector(tensors(x=(*FREE, 3)), tensors(p=(*FREE, 1)))
    large = caller_of(connector, RGB, input_tile_size=256).batch_size
    assert 4 << 20 < large * 256 * 256 * 3 * 4 <= 8 << 20
    assert caller_of(connector, RGB, input_tile_size=4096).batch_size == 1
    assert 1000 < caller_of(connector, RGB, input_tile_size=1).batch_size < 100_000
    for wrong in (0, 1.5, "2"):
        with pytest.raises(OptionError, match="batch_size"):
            caller_of(connector, RGB, batch_size=wrong)
    fixed = fake_connector(tensors(x=(2, None, None, 3)), tensors(p=(2, None, None, 1)))
    assert caller_of(fixed, RGB).batch_size == 2
    with pytest.raises(OptionError, match="requires exactly 2 instances per call"):
        caller_of(fixed, RGB, batch_size=3)


# -- Sizes of tiles --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "sent", "core", "output"),
    [
        # From the options.
        ((None, None), (None, None), {"input_tile_size": 4}, 4, 4, 4),
        ((None, None), (None, None), {"input_tile_size": 4, "input_overlap_size": 1}, 6, 4, 4),
        # The two interpretations of input_overlap_size in Earth Engine's documentation.
        (
            (None, None),
            (None, None),
            {"input_tile_size": [144, 144], "input_overlap_size": [8, 8]},
            160,
            144,
            144,
        ),
        (
            (None, None),
            (None, None),
            {"input_tile_size": 192, "input_overlap_size": 64, "overlap_is_total": True},
            256,
            192,
            192,
        ),
        # From the signature.
        ((256, 256), (256, 256), {}, 256, 256, 256),
        ((256, 256), (256, 256), {"input_overlap_size": 64}, 256, 128, 128),
        ((256, 256), (128, 128), {"input_overlap_size": 64}, 256, 128, 128),
        ((256, 256), (32, 32), {}, 256, 256, 32),
        ((256, 256), (None, None), {"output_tile_size": 32}, 256, 256, 32),
        ((16, 16), None, {}, 16, 16, 1),
    ],
)
def test_tile_sizes(inputs: Any, outputs: Any, options: Any, sent: int, core: int, output: int) -> None:
    shape = (None, 5) if outputs is None else (None, *outputs, 1)
    connector = fake_connector(tensors(x=(None, *inputs, 3)), tensors(p=shape))
    caller = tile_caller(Model.from_connector(connector, **options), RGB, {})
    found = (caller.tiles.sent, caller.tiles.core, caller.tiles.output)
    assert found == tuple(Size(x=side, y=side) for side in (sent, core, output))


@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "message"),
    [
        ((None, None), (None, None), {}, "any size.*input_tile_size"),
        (
            (256, 256),
            (256, 256),
            {"input_tile_size": 144, "input_overlap_size": 8},
            "256 x 256.*160 x 160.*144",
        ),
        ((16, 8), (16, 8), {"input_tile_size": (16, 8)}, "8 x 16.*16 x 8"),
        ((16, 16), (16, 16), {"input_overlap_size": 8}, "16 x 16.*half a tile"),
        ((16, 16), (4, 4), {"input_overlap_size": 2}, "4 x 4.*output_tile_size"),
    ],
)
def test_contradictory_tile_sizes(inputs: Any, outputs: Any, options: Any, message: str) -> None:
    connector = fake_connector(tensors(x=(None, *inputs, 3)), tensors(p=(None, *outputs, 1)))
    with pytest.raises(OptionError, match=message):
        tile_caller(Model.from_connector(connector, **options), RGB, {})


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(("output", "margin"), [(8, 4), (4, 2), (2, 1), (1, None), (16, 8)])
def test_outputs_with_and_without_overlap(padded: bool, output: int, margin: int | None) -> None:
    side = output + 2 * (margin or 0) * padded
    returned = np.full((1, side, side, 1), 3.0)
    connector = fake_connector(None, None, lambda batch: {"p": np.repeat(returned, len(batch["B4"]), axis=0)})
    bands: Bands = {"B4": ("float32", ())}
    caller = caller_of(
        connector, bands, input_tile_size=8, input_overlap_size=4, output_tile_size=output, output_bands=["p"]
    )
    assert caller.tiles.output_overlap == (None if margin is None else Size(x=margin, y=margin))
    assert caller.call(tiles_of(bands, 2, 16))["p"].shape == (2, side, side)


# -- Outputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "declared", "expected"),
    [
        (tensors(p=(*FREE, 1)), None, [("p", "float32", (), "p", None)]),
        (tensors(p=FREE), None, [("p", "float32", (), "p", None)]),
        (tensors(p=(*FREE, 3)), None, [("p", "float32", (3,), "p", None)]),
        (tensors(p=("int64", (*FREE, 2, 3))), None, [("p", "int64", (2, 3), "p", None)]),
        (tensors(p=(*FREE, 3)), "fcover", [("fcover", "float32", (3,), "p", None)]),
        (tensors(p=(*FREE, 3)), {"q": {"type": "byte", "dimensions": 1}}, [("q", "uint8", (3,), "p", None)]),
        (tensors(p=(*FREE, 1)), {"q": {"type": "int8", "dimensions": 1}}, [("q", "int8", (1,), "p", None)]),
        (tensors(p=(*FREE, None)), {"q": {"shape": [4]}}, [("q", "float32", (4,), "p", None)]),
        (
            tensors(p=(*FREE, 2)),
            {"a": "float64", "b": "uint8"},
            [("a", "float64", (), "p", 0), ("b", "uint8", (), "p", 1)],
        ),
        (
            tensors(nd=(*FREE, 1), total=(*FREE, 1), other=(*FREE, 9)),
            ["total", "nd"],
            [("total", "float32", (), "total", None), ("nd", "float32", (), "nd", None)],
        ),
        (None, {"q": "int16"}, [("q", "int16", (), None, None)]),
        (None, ["a", "b"], [("a", "float32", (), None, 0), ("b", "float32", (), None, 1)]),
        (None, {"q": {"type": "float", "shape": (2, 2)}}, [("q", "float32", (2, 2), None, None)]),
    ],
)
def test_planned_outputs(outputs: Any, declared: Any, expected: Any) -> None:
    caller = caller_of(fake_connector(tensors(x=(*FREE, 3)), outputs), RGB, output_bands=declared)
    found = [(out.name, out.dtype.name, out.shape, out.source, out.channel) for out in caller.outputs]
    assert found == expected


@pytest.mark.parametrize(
    ("outputs", "declared", "message"),
    [
        (None, None, "outputs of the model are unknown.*output_bands"),
        (None, {"q": {"dimensions": 1}}, "shape"),
        (tensors(p=(*FREE, None)), None, "'shape'"),
        (tensors(p=(*FREE, 3)), {"q": {"dimensions": 0}}, r"dimensions 0.*3\).*dimensions 1.*3 channels"),
        (tensors(p=(*FREE, 3)), {"q": {"dimensions": 2}}, "dimensions 2"),
        (tensors(p=(*FREE, 3)), {"q": {"shape": [4]}}, r"shape \[4\]"),
        (tensors(p=(*FREE, 3)), ["a", "b"], r"2 outputs.*'a', 'b'.*3 channels"),
        (tensors(p=(*FREE, 2)), {"a": {"dimensions": 1}, "b": "int8"}, "one output"),
        (tensors(p=(*FREE, 1), q=(*FREE, 1)), ["p", "r"], r"'r'.*p: float32.*q: float32"),
    ],
)
def test_declarations_that_contradict_the_signature(outputs: Any, declared: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        caller_of(fake_connector(tensors(x=(*FREE, 3)), outputs), RGB, output_bands=declared)


@pytest.mark.parametrize(
    ("declared", "outputs", "message"),
    [
        (["p"], {"q": np.zeros((2, 4, 4)), "r": np.zeros((2, 4, 4))}, r"'q', 'r'.*'p'"),
        (["p"], {"p": np.zeros((2, 4, 4, 3))}, r"\(2, 4, 4, 3\).*expected \(2, 4, 4\)"),
        (["p"], {"p": np.zeros((1, 4, 4))}, r"\(1, 4, 4\)"),
        (["p"], {"p": np.zeros((2, 3, 4))}, r"\(2, 3, 4\)"),
        (["a", "b"], {"p": np.zeros((2, 4, 4, 3))}, r"\(2, 4, 4, 2\)"),
        ({"p": {"shape": [3]}}, {"p": np.zeros((2, 4, 4))}, r"\(2, 4, 4, 3\)"),
        (["p"], {"p": np.full((2, 4, 4), "oak", object)}, "object for 'p'.*float32"),
    ],
)
def test_outputs_that_contradict_the_declaration(declared: Any, outputs: Any, message: str) -> None:
    caller = caller_of(fake_connector(None, None, lambda _: outputs), RGB, output_bands=declared)
    with pytest.raises(PredictionError, match=f"the model returned.*{message}"):
        caller.call(tiles_of(RGB, 2))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda tiles: np.ma.masked_less(tiles, 1), r"whose mask would be lost: return values.filled"),
        (lambda tiles: tiles.astype("M8[s]"), r"of dtype datetime64\[s\], which is not a number"),
        (lambda tiles: tiles.astype("m8[h]"), r"of dtype timedelta64\[h\]"),
        (lambda tiles: np.zeros(tiles.shape, "f4,f4"), r"which is not a number"),
    ],
)
def test_functions_that_return_other_arrays(returned: Any, message: str) -> None:
    connection = Model.from_function(returned, input_tile_size=2).connector.open()
    with pytest.raises(PredictionError, match=message):
        connection.predict({"pixels": np.ones((1, 2, 2, 1), "f4")})


def test_outputs_are_converted_to_the_declared_dtype() -> None:
    values = np.array([-3.0, 0.9, 254.9, 999.0], "float32").repeat(4).reshape(1, 4, 4)
    caller = caller_of(
        fake_connector(None, None, lambda _: {"anything": values}), RGB, output_bands={"p": "uint8"}
    )
    found = caller.call(tiles_of(RGB, 1))["p"]
    assert found.dtype == np.uint8
    assert found[0, :, 0].tolist() == [0, 0, 254, 255]


@pytest.mark.parametrize(
    ("declared", "returned", "message"),
    [
        (
            ["ndvi"],
            ["ndwi"],
            r"function .* outputs 'ndwi'; expected 'ndvi'.*mean 'ndwi'.*Fix",
        ),
        (["p", "q"], ["probabilities"], r"'probabilities'; expected 'p', 'q'"),
        (["p", "q"], ["p"], r"'p'; expected 'p', 'q'"),
    ],
)
def test_names_that_a_function_returns_must_be_declared(declared: Any, returned: Any, message: str) -> None:
    model = Model.from_function(
        lambda tiles: dict.fromkeys(returned, tiles[..., 0]), input_tile_size=4, output_bands=declared
    )
    with pytest.raises(PredictionError, match=message):
        tile_caller(model, RGB, {}).call(tiles_of(RGB, 1))


def test_a_function_that_returns_an_array_may_have_any_output_name() -> None:
    model = Model.from_function(lambda tiles: tiles, input_tile_size=4, output_bands=["a", "b", "c"])
    tiles = tiles_of(RGB, 1)
    assert set(tile_caller(model, RGB, {}).call(tiles)) == {"a", "b", "c"}
    single = replace(model, bands=["B4"], output_bands="p")
    assert set(tile_caller(single, RGB, {}).call(tiles)) == {"p"}


def test_names_take_precedence_over_channels() -> None:
    outputs = {"a": np.full((1, 4, 4, 1), 1.0), "b": np.full((1, 4, 4), 2.0)}
    caller = caller_of(fake_connector(None, None, lambda _: outputs), RGB, output_bands=["b", "a"])
    found = caller.call(tiles_of(RGB, 1))
    assert {name: values.mean() for name, values in found.items()} == {"b": 2, "a": 1}


def test_predictions_of_whole_tiles_without_spatial_axes() -> None:
    """A classifier of patches."""
    classes = np.arange(6, dtype="float32").reshape(2, 3)
    connector = fake_connector(tensors(x=(None, 4, 4, 3)), tensors(p=(None, 3)), lambda _: {"p": classes})
    found = tile_caller(Model.from_connector(connector), RGB, {}).call(tiles_of(RGB, 2))
    assert found["p"].shape == (2, 1, 1, 3)
    np.testing.assert_array_equal(found["p"][:, 0, 0], classes)


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (tensors(B4=(*FREE, 1), B8=(*FREE, 1)), {}, "needs 'B8', not found in the image.*'B4', 'B3', 'B2'"),
        (tensors(x=(*FREE, 3)), {"bands": ["B4", "B9"]}, "'B9', not found.*'B4', 'B3', 'B2'"),
        (tensors(x=(*FREE, 3)), {"inputs": {"B9": "x"}}, "'B9', not found"),
        (tensors(x=(*FREE, 3)), {"input_properties": ["day"]}, "'day', not found"),
        (tensors(x=(*FREE, 3)), {"input_name": "y"}, "no input 'y'.*x: float32"),
        (tensors(x=(*FREE, 3)), {"inputs": {"B4": "y"}}, "no input 'y'"),
        (tensors(x=(*FREE, 2)), {}, r"2 channels.*'B4', 'B3', 'B2' have 3.*bands=\[\.\.\.\]"),
        (tensors(x=(*FREE, 2)), {"bands": ["B4"]}, "2 channels.*'B4' has 1"),
        (tensors(x=(*FREE, 1), y=(*FREE, 2)), {"bands": ["B4", "B3"]}, "input_name='x'"),
        (
            tensors(B4=(*FREE, 1), B3=(*FREE, 1)),
            {"bands": ["B4", "B3", "B2"]},
            "not match the inputs.*'B4', 'B3'",
        ),
        (tensors(B4=(*FREE, 1), B3=(*FREE, 1)), {"bands": ["B4"]}, "not match the inputs.*'B4', 'B3'"),
        ({}, {}, "no input for 'B4', 'B3', 'B2'"),
        (tensors(x=(*FREE, 1), y=(*FREE, 2)), {"inputs": {"B4": "x"}}, "'y', not found"),
        (tensors(x=("int32", (*FREE, 3))), {}, "'B4' as int32.*float32.*input_type_override={'B4': 'int32'}"),
        (tensors(x=("O", (*FREE, 3))), {}, "'B4' as string"),
        (tensors(x=(None, 3)), {}, "without axes for the height and width"),
        (tensors(x=(*FREE, 3)), {"input_shapes": {"B4": [2]}}, r"\[2\] for 'B4'.*\[\]"),
    ],
)
def test_images_that_do_not_fit_the_model(inputs: Any, options: Any, message: str) -> None:
    with pytest.raises(XeeTFError, match=message) as caught:
        caller_of(fake_connector(inputs, tensors(p=(*FREE, 1))), RGB, **options)
    assert isinstance(caught.value, OptionError | ModelError)


def test_properties_that_cannot_be_sent() -> None:
    connector = fake_connector(None, None)
    for properties, message in (
        ({"B4": 3}, "Rename one"),
        ({"day": np.datetime64("2024-01-01")}, "'day'.*datetime64"),
    ):
        with pytest.raises(OptionError, match=message):
            caller_of(connector, RGB, properties, input_properties=list(properties), output_bands=["p"])
    with pytest.raises(OptionError, match="No band"):
        caller_of(
            connector, RGB, {"day": 3}, input_properties=["day"], inputs={"day": "day"}, output_bands=["p"]
        )
    stacked = fake_connector(tensors(x=(*FREE, 4)), tensors(p=(*FREE, 1)))
    inputs = dict.fromkeys([*RGB, "day"], "x")
    with pytest.raises(OptionError, match="cannot be stacked"):
        caller_of(stacked, RGB, {"day": 3}, input_properties=["day"], inputs=inputs)


def test_error_of_a_failed_call_contains_the_input_and_the_cause(tmp_path: Any) -> None:
    """A U-Net with two poolings requires sizes that are multiples of four, and fails otherwise."""
    keras = pytest.importorskip("keras")

    image = keras.Input((None, None, 1), name="B4")
    down = keras.layers.MaxPooling2D(4)(image)
    up = keras.layers.UpSampling2D(4)(down)
    path = tmp_path / "unet"
    keras.Model(image, keras.layers.Concatenate()([image, up])).export(path, verbose=False)
    bands: Bands = {"B4": ("float32", ())}
    model = Model.from_saved_model(path, inputTileSize=[8, 8], inputOverlapSize=[1, 1])
    message = r"failed on its input .B4: float32 \(1, 10, 10, 1\).*[Dd]imension"
    with pytest.raises(PredictionError, match=message) as caught:
        tile_caller(model, bands, {}).call(tiles_of(bands, 1, 10))
    assert str(path) in str(caught.value)
    model = Model.from_saved_model(path, inputTileSize=[8, 8], inputOverlapSize=[2, 2])
    found = tile_caller(model, bands, {}).call(tiles_of(bands, 1, 12))
    (values,) = found.values()
    assert values.shape == (1, 12, 12, 2)


def test_models_in_three_formats(tmp_path: Any) -> None:
    """The same model in three formats returns the same outputs."""
    bands: Bands = {"a": ("int16", ()), "b": ("float64", (2,))}
    tiles = tiles_of(bands, 7, 6)

    def named(batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        from tests.connector_conformance import in_numpy

        return in_numpy(batch)

    options: dict[str, Any] = {"input_tile_size": 4, "input_overlap_size": 1}
    models = [
        Model.from_saved_model(in_tensorflow(tmp_path / "known"), **options),
        Model.from_keras(in_keras(), **options),
        Model.from_function(
            named,
            named=True,
            input_type_override={"a": "float32", "b": "float32"},
            output_bands={"box": "float32", "count": "int32"},
            **options,
        ),
    ]
    predictions = []
    for model in models:
        caller = tile_caller(model, bands, {}, batch_size=3)
        assert [(out.name, out.dtype.name) for out in caller.outputs] == [
            ("box", "float32"),
            ("count", "int32"),
        ]
        predictions.append(pickle.loads(pickle.dumps(caller)).call(tiles))
    for found in predictions[1:]:
        for name, values in predictions[0].items():
            np.testing.assert_array_equal(found[name], values)


SCRIPT = """
import enum
K = 3
class Kind(enum.Enum):
    FACTOR = 10
class Net:
    def __call__(self, b):
        return K * b[..., 0] + Kind.FACTOR.value + isinstance(self, Net)
    def changed(self):
        return K
"""


def test_models_do_not_change_classes_of_the_script(monkeypatch):
    """Two models of one class are created before and after a global changes."""
    script = types.ModuleType("script_of_the_user")
    exec(SCRIPT, script.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", script)  # cloudpickle pickles its classes by value
    script.Net.__module__ = script.Kind.__module__ = "__main__"
    call = script.Net.__call__
    pixels = {"pixels": np.full((1, 1, 1, 1), 7.0)}

    def connector():
        return Model.from_function(script.Net(), input_tile_size=8).connector

    before = connector()
    assert before.open().predict(pixels)["output"].item() == 3 * 7 + 11
    content = before.content()
    script.K = 5
    assert script.Net.__call__ is call
    assert script.Net()(pixels["pixels"]).item() == 5 * 7 + 11
    after = connector()
    assert after.open().predict(pixels)["output"].item() == 5 * 7 + 11
    assert before.open().predict(pixels)["output"].item() == 3 * 7 + 11
    assert before.content() == content != after.content()
    script.K = 3
    assert connector().content() == content
