"""What TensorFlow Serving tells of a model: its signatures, as JSON and as messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import numpy as np

from xee_tf.connector import Signature, TensorInfo
from xee_tf.errors import ModelError, RecordError
from xee_tf.records.tensor_types import TensorType, type_of_number
from xee_tf.records.wire import encode_varint, read_fields, read_varint
from xee_tf.remote.payloads.predict_messages import ModelSpec

__all__ = ["DEFAULT_SIGNATURE", "metadata_request", "signature_of_json", "signature_of_message"]

DEFAULT_SIGNATURE = "serving_default"

_FIELD = b"signature_def"
_MAX_TYPES = 64
_OTHER_NAMES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}

Tensors = dict[str, TensorInfo]


def signature_of_json(data: bytes, name: str, model: str) -> Signature:
    """A signature from the answer to ``GET /v1/models/NAME/metadata``.

    Parameters
    ----------
    data : bytes
    name : str
        Of the signature; empty for the default one.
    model : str
        For errors.

    Raises
    ------
    RecordError
        If it is no such answer.
    ModelError
        If the model has no such signature; those that it has are named.

    Examples
    --------
    >>> answer = b'''{"metadata": {"signature_def": {"signature_def": {"serving_default": {"inputs": {"x": {
    ...     "dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}}}}}}}}'''
    >>> str(signature_of_json(answer, "", "the model").inputs["x"])
    'float32 (?, 3)'
    """
    try:
        found = json.loads(data)["metadata"]["signature_def"]["signature_def"]
        signature = found[_choose(name, list(found), model)]
        return Signature(
            {key: _info_of_json(value) for key, value in sorted(signature.get("inputs", {}).items())},
            {key: _info_of_json(value) for key, value in sorted(signature.get("outputs", {}).items())},
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise RecordError(f"The server's metadata cannot be read: {data[:100]!r}.") from None


def metadata_request(spec: ModelSpec) -> bytes:
    """``GetModelMetadataRequest{model_spec = 1, metadata_field = 2}``."""
    return _message(1, spec.encode()) + _message(2, _FIELD)


def signature_of_message(data: bytes, name: str, model: str) -> Signature:
    """A signature from a GetModelMetadataResponse.

    Parameters
    ----------
    data, name, model
        As in `signature_of_json`.

    Raises
    ------
    RecordError, ModelError
        As `signature_of_json`.
    """
    signatures: dict[str, memoryview] = {}
    for entry in _messages(memoryview(data), 2):  # map<string, Any> metadata = 2
        for packed in _messages(entry, 2):
            for type_and_value in _messages(packed, 2):  # Any.value: SignatureDefMap
                signatures |= dict(_entries(type_and_value, 1))
    chosen = signatures[_choose(name, list(signatures), model)]
    inputs, outputs = (
        {key: _info_of_message(value) for key, value in sorted(_entries(chosen, field), key=itemgetter(0))}
        for field in (1, 2)
    )
    return Signature(inputs, outputs)


def _choose(name: str, known: list[str], model: str) -> str:
    wanted = name or DEFAULT_SIGNATURE
    if wanted not in known:
        shown = sorted(found for found in known if not found.startswith("__"))
        raise ModelError(f"{model} has no signature {wanted!r}; it has {shown}.")
    return wanted


def _info_of_json(tensor: Mapping[str, Any]) -> TensorInfo:
    shape = tensor.get("tensor_shape", {})
    sides = [int(side.get("size", 0)) for side in shape.get("dim", [])]
    kind = _TYPES.get(str(tensor.get("dtype", "")).removesuffix("_REF"))
    return _info(kind, None if shape.get("unknown_rank", False) else sides)


def _info_of_message(data: memoryview) -> TensorInfo:
    """``TensorInfo{dtype = 2, tensor_shape = 3}``."""
    kind, sides = None, []
    rank_is_known = True
    for number, wire, body in read_fields(data):
        if number == 2 and wire == 0:
            kind = _type_or_none(read_varint(body, 0)[0])
        elif number == 3 and wire == 2:
            for inner, inner_wire, part in read_fields(body):
                if inner == 2 and inner_wire == 2:
                    sides.append(_side(part))
                elif inner == 3 and inner_wire == 0:
                    rank_is_known = read_varint(part, 0)[0] == 0
    return _info(kind, sides if rank_is_known else None)


def _side(data: memoryview) -> int:
    """``Dim{size = 1}``; -1 is written as a number of 64 bits."""
    size = 0
    for number, wire, body in read_fields(data):
        if number == 1 and wire == 0:
            size = read_varint(body, 0)[0]
    return size - (1 << 64) if size >> 63 else size


def _info(kind: TensorType | None, sides: list[int] | None) -> TensorInfo:
    # Native byte order, as SavedModel files tell it.
    dtype: np.dtype[Any] | None = None if kind is None else kind.dtype.newbyteorder("=")
    return TensorInfo(dtype, None if sides is None else tuple(side if side >= 0 else None for side in sides))


def _type_or_none(number: int) -> TensorType | None:
    try:
        return type_of_number(number)
    except RecordError:
        return None


_TYPES = {
    f"DT_{_OTHER_NAMES.get(kind.name, kind.name.upper())}": kind
    for kind in map(_type_or_none, range(_MAX_TYPES))
    if kind is not None
}


def _messages(data: memoryview, field: int) -> Iterator[memoryview]:
    return (body for number, wire, body in read_fields(data) if number == field and wire == 2)


def _entries(data: memoryview, field: int) -> Iterator[tuple[str, memoryview]]:
    """Keys and values of a map from names to messages."""
    for entry in _messages(data, field):
        key, value = "", memoryview(b"")
        for number, wire, body in read_fields(entry):
            if number == 1 and wire == 2:
                key = str(body, "utf-8", "replace")
            elif number == 2 and wire == 2:
                value = body
        yield key, value


def _message(number: int, body: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + encode_varint(len(body)) + body
