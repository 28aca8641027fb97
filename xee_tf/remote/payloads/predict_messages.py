"""The messages of TensorFlow Serving's Predict, to and from arrays: no protobuf objects, no stubs.

``PredictRequest{model_spec = 1, map inputs = 2, output_filter = 3}`` and ``PredictResponse{map outputs
= 1, model_spec = 2}`` of the package tensorflow.serving; their tensors are TensorProtos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.tensors import decode_tensor, tensor_pieces
from xee_tf.records.wire import encode_varint, read_fields, read_varint, varint_size
from xee_tf.remote.payloads.arrays import Arrays

__all__ = [
    "ANY_MODEL",
    "ModelSpec",
    "PredictRequest",
    "PredictResponse",
    "decode_predict_request",
    "decode_predict_response",
    "encode_predict_request",
    "encode_predict_response",
    "predict_request_size",
]


@dataclass(frozen=True)
class ModelSpec:
    """Which model is meant, of those that a server has.

    Parameters
    ----------
    name : str
        Of the model.
    version : int, optional
        Default: the latest one.
    label : str, optional
        Of a version, instead of its number.
    signature_name : str
        Empty: the default signature.
    """

    name: str = ""
    version: int | None = None
    label: str | None = None
    signature_name: str = ""

    def encode(self) -> bytes:
        """The message ModelSpec."""
        parts = [_text(1, self.name)]
        if self.version is not None:
            # A message Int64Value; zero is its default and is left out.
            parts.append(_message(2, b"\x08" + encode_varint(self.version) if self.version else b""))
        parts.append(_text(3, self.signature_name))
        if self.label is not None:
            parts.append(_message(4, self.label.encode()))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: memoryview) -> ModelSpec:
        """From the message ModelSpec."""
        texts = {1: "", 3: ""}
        version: int | None = None
        label: str | None = None
        for number, wire, body in read_fields(data):
            if number in texts and wire == 2:
                texts[number] = _string(body)
            elif number == 2 and wire == 2:
                version, label = 0, None  # the version is one of the two: the last counts
                for inner, inner_wire, value in read_fields(body):
                    if inner == 1 and inner_wire == 0:
                        version = read_varint(value, 0)[0]
            elif number == 4 and wire == 2:
                version, label = None, _string(body)
        return cls(texts[1], version, label, texts[3])


ANY_MODEL = ModelSpec()
"""The default signature of the only model, or of the one that the address names."""


@dataclass(frozen=True)
class PredictRequest:
    """What a client asks.

    Parameters
    ----------
    model_spec : ModelSpec
    inputs : mapping from str to ndarray
    output_filter : tuple of str
        Outputs that are wanted; empty: all.
    """

    model_spec: ModelSpec
    inputs: Arrays
    output_filter: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictResponse:
    """What a server answers.

    Parameters
    ----------
    outputs : mapping from str to ndarray
    model_spec : ModelSpec
        The model that answered, if the server says it.
    """

    outputs: Arrays
    model_spec: ModelSpec = ANY_MODEL


def encode_predict_request(
    inputs: Arrays,
    model_spec: ModelSpec = ANY_MODEL,
    *,
    output_filter: Sequence[str] = (),
    typed: bool = False,
) -> bytes:
    """A serialised PredictRequest.

    Parameters
    ----------
    inputs : mapping from str to ndarray
        By the names of the signature.
    model_spec : ModelSpec, optional
        Which model.
    output_filter : sequence of str, optional
        Outputs that are wanted. Default: all.
    typed : bool, optional
        Whether values are listed one by one rather than sent as raw bytes; see
        `xee_tf.records.encode_tensor`.

    Raises
    ------
    OptionError
        If TensorFlow has no such dtype.

    Examples
    --------
    >>> import numpy as np
    >>> data = encode_predict_request({"B4": np.zeros((2, 3), "float32")}, ModelSpec("landcover"))
    >>> request = decode_predict_request(data)
    >>> request.model_spec.name, request.inputs["B4"].shape
    ('landcover', (2, 3))
    """
    spec = model_spec.encode()
    pieces: list[bytes | memoryview] = [_message(1, spec)] if spec else []
    pieces += _map_pieces(2, inputs, typed)
    pieces += [_message(3, name.encode()) for name in output_filter]
    return b"".join(pieces)


def predict_request_size(inputs: Mapping[str, int], model_spec: ModelSpec = ANY_MODEL) -> int:
    """Bytes of a serialised PredictRequest, from those of its serialised tensors.

    Examples
    --------
    >>> predict_request_size({"B4": 500})
    510
    """
    spec = model_spec.encode()
    total = len(_message(1, spec)) if spec else 0
    for name, size in inputs.items():
        entry = len(_text(1, name)) + 1 + varint_size(size) + size
        total += 1 + varint_size(entry) + entry
    return total


def decode_predict_request(data: bytes | memoryview) -> PredictRequest:
    """The parts of a serialised PredictRequest.

    Raises
    ------
    RecordError
        If the bytes are not a valid message, or one of its tensors is not.
    """
    spec, names = ANY_MODEL, []
    inputs: dict[str, npt.NDArray[Any]] = {}
    for number, wire, body in read_fields(memoryview(data).cast("B")):
        if number == 1 and wire == 2:
            spec = ModelSpec.decode(body)
        elif number == 2 and wire == 2:
            name, array = _entry(body)
            inputs[name] = array
        elif number == 3 and wire == 2:
            names.append(_string(body))
    return PredictRequest(spec, inputs, tuple(names))


def encode_predict_response(
    outputs: Arrays,
    model_spec: ModelSpec = ANY_MODEL,
    *,
    typed: bool = False,
) -> bytes:
    """A serialised PredictResponse.

    Parameters
    ----------
    outputs, model_spec, typed
        As in `encode_predict_request`. TensorFlow Serving answers with listed values, unless it was
        started with ``--enable_serialization_as_tensor_content``.

    Examples
    --------
    >>> import numpy as np
    >>> decode_predict_response(encode_predict_response({"p": np.array([1, 5])})).outputs
    {'p': array([1, 5])}
    """
    spec = model_spec.encode()
    return b"".join([*_map_pieces(1, outputs, typed), *([_message(2, spec)] if spec else [])])


def decode_predict_response(data: bytes | memoryview) -> PredictResponse:
    """The parts of a serialised PredictResponse.

    Raises
    ------
    RecordError
        If the bytes are not a valid message, or one of its tensors is not.
    """
    spec = ANY_MODEL
    outputs: dict[str, npt.NDArray[Any]] = {}
    for number, wire, body in read_fields(memoryview(data).cast("B")):
        if number == 1 and wire == 2:
            name, array = _entry(body)
            outputs[name] = array
        elif number == 2 and wire == 2:
            spec = ModelSpec.decode(body)
    return PredictResponse(outputs, spec)


def _map_pieces(number: int, arrays: Arrays, typed: bool) -> Iterable[bytes | memoryview]:
    """The entries of a map of tensors; values of numbers are not copied."""
    for name, array in arrays.items():
        pieces = tensor_pieces(array, typed=typed)
        size = sum(map(len, pieces))
        head = _text(1, name) + b"\x12" + encode_varint(size)
        yield bytes((number << 3 | 2,)) + encode_varint(len(head) + size) + head
        yield from pieces


def _entry(data: memoryview) -> tuple[str, npt.NDArray[Any]]:
    """Name and tensor of an entry of a map."""
    name, tensor = "", memoryview(b"")
    for number, wire, body in read_fields(data):
        if number == 1 and wire == 2:
            name = _string(body)
        elif number == 2 and wire == 2:
            tensor = body
    try:
        return name, decode_tensor(tensor)
    except RecordError as error:
        raise RecordError(f"{name!r}: {error}") from None


def _message(number: int, body: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + encode_varint(len(body)) + body


def _text(number: int, text: str) -> bytes:
    """A field of text; the empty text is its default and is left out."""
    return _message(number, text.encode()) if text else b""


def _string(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise RecordError(f"A name is not valid UTF-8: {bytes(data[:80])!r}.") from None
