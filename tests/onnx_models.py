"""ONNX models for tests, encoded field by field, so that tests need no package but onnxruntime.

A model is described by its nodes and tensors: ``model([node("Conv", ["x", "w"], ["y"])], {"x": ("float32",
["n", 3, "h", "w"])}, {"y": ("float32", ["n", 1, "h", "w"])}, {"w": kernel})``. The numbers of fields are
those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xee_tf.wire import encode_field, encode_varint, integer_field, text_field

TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "object": 8,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "bfloat16": 16,
}
Shape = Sequence[Any]  # of numbers and of names of axes


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> bytes:
    """Encode a NodeProto; attributes are integers, lists of integers, or texts."""
    body = b"".join(_repeated(1, name) for name in inputs) + b"".join(_repeated(2, name) for name in outputs)
    domain = text_field(7, "ai.onnx.ml") if operator in ("ZipMap",) else b""
    encoded = (encode_field(5, _attribute(name, value)) for name, value in attributes.items())
    return body + text_field(4, operator) + b"".join(encoded) + domain


def model(
    nodes: Sequence[bytes],
    inputs: Mapping[str, tuple[str, Shape]],
    outputs: Mapping[str, tuple[str, Shape] | None],
    constants: Mapping[str, Any] | None = None,
    external: Mapping[str, tuple[str, Sequence[int]]] | None = None,
) -> bytes:
    """Encode a ModelProto.

    `inputs` and `outputs` have a dtype and a shape, `external` the file and the shape of float32 weights. An
    output None is of a type that onnxruntime infers.
    """
    graph = b"".join(encode_field(1, each) for each in nodes) + text_field(2, "graph")
    for name, values in (constants or {}).items():
        array = np.asarray(values)
        body = _sizes(array.shape) + integer_field(2, TYPES[str(array.dtype)]) + text_field(8, name)
        graph += encode_field(5, body + encode_field(9, array.tobytes()))
    for name, (file, shape) in (external or {}).items():
        entry = encode_field(13, text_field(1, "location") + text_field(2, file))
        graph += encode_field(
            5, _sizes(shape) + integer_field(2, 1) + text_field(8, name) + entry + integer_field(14, 1)
        )
    graph += b"".join(encode_field(11, _value(name, info)) for name, info in inputs.items())
    graph += b"".join(encode_field(12, _value(name, info)) for name, info in outputs.items())
    versions = encode_field(8, integer_field(2, 17)) + encode_field(
        8, text_field(1, "ai.onnx.ml") + integer_field(2, 3)
    )
    return integer_field(1, 8) + encode_field(7, graph) + versions


def known(channels: str) -> bytes:
    """The model of `tests.connector_conformance`, with its channels first or last."""
    box = [node("Conv", ["a", "ones"], ["box"], pads=[1, 1, 1, 1])]
    axis = 1
    if channels == "last":
        axis = 3
        box = [
            node("Transpose", ["a"], ["first"], perm=[0, 3, 1, 2]),
            node("Conv", ["first", "ones"], ["summed"], pads=[1, 1, 1, 1]),
            node("Transpose", ["summed"], ["box"], perm=[0, 2, 3, 1]),
        ]
    count = [
        node("Greater", ["b", "zero"], ["positive"]),
        node("Cast", ["positive"], ["counted"], to=TYPES["int32"]),
        node("ReduceSum", ["counted", "axis"], ["count"], keepdims=1),
    ]

    def shape(number: int) -> list[int | str]:
        return ["n", number, "h", "w"] if channels == "first" else ["n", "h", "w", number]

    constants = {
        "ones": np.ones((1, 1, 3, 3), "float32"),
        "zero": np.zeros((), "float32"),
        "axis": np.array([axis]),
    }
    inputs = {"a": ("float32", shape(1)), "b": ("float32", shape(2))}
    outputs = {"box": ("float32", shape(1)), "count": ("int32", shape(1))}
    return model([*box, *count], inputs, outputs, constants)


def convolution(
    weights: Any, shape: Shape = ("n", 3, "h", "w"), dtype: str = "float32", pad: int = 1
) -> bytes:
    """A model that convolves ``x``, channels first, with weights ``(out, in, kh, kw)`` to ``out``."""
    nodes = [node("Conv", ["x", "w"], ["out"], pads=[pad] * 4)]
    kernel = np.asarray(weights, dtype)
    height, width = (
        side if isinstance(side, str) else side + 2 * pad - kernel.shape[2] + 1 for side in shape[2:]
    )
    return model(
        nodes, {"x": (dtype, shape)}, {"out": (dtype, [shape[0], len(kernel), height, width])}, {"w": kernel}
    )


def identity(shape: Shape, dtype: str = "float32", name: str = "x") -> bytes:
    """A model that returns its input."""
    return model([node("Identity", [name], ["out"])], {name: (dtype, shape)}, {"out": (dtype, shape)})


def _repeated(number: int, value: str) -> bytes:
    return encode_field(number, value.encode())  # also if it is empty


def _sizes(shape: Sequence[int]) -> bytes:
    return b"".join(encode_varint(1 << 3) + encode_varint(side) for side in shape)


def _attribute(name: str, value: Any) -> bytes:
    head = text_field(1, name)
    if isinstance(value, int):
        return head + encode_varint(3 << 3) + encode_varint(value) + integer_field(20, 2)
    if isinstance(value, str):
        return head + text_field(4, value) + integer_field(20, 3)
    items = b"".join(encode_varint(8 << 3) + encode_varint(item) for item in value)
    return head + items + integer_field(20, 7)


def _value(name: str, info: tuple[str, Shape] | None) -> bytes:
    if info is None:
        return text_field(1, name)
    dtype, shape = info
    dims = b"".join(
        encode_field(1, text_field(2, side) if isinstance(side, str) else integer_field(1, side))
        for side in shape
    )
    tensor = integer_field(1, TYPES[dtype]) + encode_field(2, dims)
    return text_field(1, name) + encode_field(2, encode_field(1, tensor))
