"""Encode and decode the messages of TensorFlow Serving's Predict, without protobuf objects or stubs.

``PredictRequest{model_spec = 1, map inputs = 2, output_filter = 3}`` and ``PredictResponse{map outputs
= 1, model_spec = 2}`` belong to the package tensorflow.serving; their tensors are TensorProtos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from xee_tf.connector import Arrays
from xee_tf.errors import RecordError, excerpt
from xee_tf.tensors import decode_tensor, decoded_limit, tensor_pieces
from xee_tf.wire import (
    bodies,
    delimited_fields,
    encode_field,
    field_head,
    field_size,
    integer,
    integer_field,
    map_entries,
    text,
    text_field,
)

__all__ = [
    "ANY_MODEL",
    "PREDICT",
    "PredictRequest",
    "ServedModel",
    "decode_predict_request",
    "decode_predict_response",
    "encode_predict_request",
    "encode_predict_response",
    "predict_request_size",
]

PREDICT = "/tensorflow.serving.PredictionService/Predict"
"""The gRPC method that returns predictions."""


@dataclass(frozen=True)
class ServedModel:
    """The model of a server, and its signature.

    Parameters
    ----------
    name : str
        Name of the model.
    version : int, optional
        Number of the version. Default: the latest version.
    label : str, optional
        Label of the version, instead of its number.
    signature_name : str
        Name of the signature. Empty: the default signature.
    """

    name: str = ""
    version: int | None = None
    label: str | None = None
    signature_name: str = ""

    def encode(self) -> bytes:
        """Encode as a message ModelSpec."""
        parts = [text_field(1, self.name)]
        if self.version is not None:
            parts.append(encode_field(2, integer_field(1, self.version)))  # Int64Value
        parts.append(text_field(3, self.signature_name))
        if self.label is not None:
            parts.append(encode_field(4, self.label.encode()))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: memoryview) -> ServedModel:
        """Decode a message ModelSpec."""
        texts = {1: "", 3: ""}
        version: int | None = None
        label: str | None = None
        for number, body in delimited_fields(data):
            if number in texts:
                texts[number] = text(body)
            elif number == 2:  # version and label exclude each other: the last one applies
                version, label = integer(body, 1), None
            elif number == 4:
                version, label = None, text(body)
        return cls(texts[1], version, label, texts[3])

    def field(self, number: int) -> bytes:
        """Encode as a field of another message; an empty one is omitted."""
        body = self.encode()
        return encode_field(number, body) if body else b""

    @classmethod
    def from_field(cls, data: bytes | memoryview, number: int) -> ServedModel:
        """Decode the last occurrence of a field of a message; without any, return an empty one."""
        spec = cls()
        for body in bodies(data, number):
            spec = cls.decode(body)
        return spec


ANY_MODEL = ServedModel()
"""The default signature of the only model, or of the model in the URL."""


@dataclass(frozen=True)
class PredictRequest:
    """A request for predictions; an empty `output_filter` selects all outputs."""

    served_model: ServedModel
    inputs: Arrays
    output_filter: tuple[str, ...] = ()


def encode_predict_request(inputs: Arrays, served_model: ServedModel = ANY_MODEL) -> bytes:
    """Serialize a PredictRequest, with inputs by the names of the signature.

    Examples
    --------
    >>> import numpy as np
    >>> data = encode_predict_request({"B4": np.zeros((2, 3), "float32")}, ServedModel("landcover"))
    >>> request = decode_predict_request(data)
    >>> request.served_model.name, request.inputs["B4"].shape
    ('landcover', (2, 3))
    """
    return b"".join([served_model.field(1), *_map_pieces(2, inputs)])


def predict_request_size(inputs: Mapping[str, int], served_model: ServedModel = ANY_MODEL) -> int:
    """Return the size of a serialized PredictRequest in bytes, given those of its serialized tensors.

    Examples
    --------
    >>> predict_request_size({"B4": 500})
    510
    """
    total = len(served_model.field(1))
    for name, size in inputs.items():
        total += field_size(len(text_field(1, name)) + field_size(size))
    return total


def decode_predict_request(data: bytes | memoryview) -> PredictRequest:
    """Decode a serialized PredictRequest.

    Raises
    ------
    RecordError
        If `data` is not a valid message.
    """
    filters = tuple(map(text, bodies(data, 3)))
    return PredictRequest(ServedModel.from_field(data, 1), _decode_map(data, 2), filters)


def encode_predict_response(outputs: Arrays, served_model: ServedModel = ANY_MODEL) -> bytes:
    """Serialize a PredictResponse.

    Examples
    --------
    >>> import numpy as np
    >>> decode_predict_response(encode_predict_response({"p": np.array([1, 5])}))
    {'p': array([1, 5])}
    """
    return b"".join([*_map_pieces(1, outputs), served_model.field(2)])


def decode_predict_response(data: bytes | memoryview) -> dict[str, npt.NDArray[Any]]:
    """Decode the outputs of a serialized PredictResponse.

    Raises
    ------
    RecordError
        If `data` is not a valid message.
    """
    return _decode_map(data, 1)


def _map_pieces(number: int, arrays: Arrays) -> Iterable[bytes | memoryview]:
    """Yield the parts of a serialized map of tensors; numeric values are not copied."""
    for name, array in arrays.items():
        pieces = tensor_pieces(array)
        size = sum(map(len, pieces))
        head = text_field(1, name) + field_head(2, size)
        yield field_head(number, len(head) + size) + head
        yield from pieces


def _decode_map(data: bytes | memoryview, number: int) -> dict[str, npt.NDArray[Any]]:
    """Decode a map of tensors."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    limit = decoded_limit(len(data))
    for name, tensor in map_entries(data, number):
        try:
            arrays[name] = decode_tensor(tensor, limit)
            limit -= arrays[name].nbytes
        except RecordError as error:
            raise RecordError(f"{excerpt(name)}: {error}") from None
    return arrays
