"""Read the signatures of a model from the metadata of TensorFlow Serving."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from xee_tf.connector import DEFAULT_SIGNATURE, Signature, TensorInfo
from xee_tf.display import quoted
from xee_tf.errors import ModelError, RecordError
from xee_tf.remote.payloads import ServedModel
from xee_tf.tensors import TensorType, type_of_number
from xee_tf.wire import bodies, integer, map_entries, text_field

__all__ = [
    "GET_METADATA",
    "SIGNATURES",
    "decode_signature",
    "metadata_request",
    "signature_of_json",
    "signature_of_message",
]

GET_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
"""The gRPC method that returns the metadata of a model."""

SIGNATURES = "signature_def"
"""The only metadata field that TensorFlow Serving supports."""

_MAX_TYPES = 64
_OTHER_NAMES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}


def signature_of_json(data: bytes, name: str, model: str) -> Signature:
    """Read a signature from the response to ``GET /v1/models/NAME/metadata``.

    Parameters
    ----------
    data : bytes
        Body of the response.
    name : str
        Name of the signature. Empty: the default signature.
    model : str
        Description of the model in error messages.

    Raises
    ------
    RecordError
        If `data` is not such a response.
    ModelError
        If the model does not have the signature.

    Examples
    --------
    >>> response = b'''{"metadata": {"signature_def": {"signature_def": {"serving_default": {"inputs": {"x": {
    ...     "dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}}}}}}}}'''
    >>> str(signature_of_json(response, "", "the model").inputs["x"])
    'float32 (?, 3)'
    """
    try:
        found = json.loads(data)["metadata"][SIGNATURES][SIGNATURES]
        signature = found[_choose(name, list(found), model)]
        return Signature(
            {key: _info_of_json(value) for key, value in sorted(signature.get("inputs", {}).items())},
            {key: _info_of_json(value) for key, value in sorted(signature.get("outputs", {}).items())},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise RecordError(f"The metadata of the server is not valid: {data[:100]!r}.") from None


def metadata_request(spec: ServedModel) -> bytes:
    """Encode a ``GetModelMetadataRequest{model_spec = 1, metadata_field = 2}``."""
    return spec.field(1) + text_field(2, SIGNATURES)


def signature_of_message(data: bytes, name: str, model: str) -> Signature:
    """Read a signature from a GetModelMetadataResponse; see `signature_of_json`."""
    signatures: dict[str, memoryview] = {}
    for _, packed in map_entries(data, 2):  # map<string, Any> metadata = 2
        for signature_map in bodies(packed, 2):  # Any.value: SignatureDefMap
            signatures |= dict(map_entries(signature_map, 1))
    return decode_signature(signatures[_choose(name, list(signatures), model)])


def decode_signature(message: memoryview) -> Signature:
    """Decode a ``SignatureDef{inputs = 1, outputs = 2}``, maps of text to TensorInfo."""
    inputs, outputs = (
        {key: _info_of_message(value) for key, value in sorted(dict(map_entries(message, field)).items())}
        for field in (1, 2)
    )
    return Signature(inputs, outputs)


def _choose(name: str, available: list[str], model: str) -> str:
    """Return the name of the signature, or raise an error that lists the available ones."""
    name = name or DEFAULT_SIGNATURE
    if name not in available:
        shown = quoted(sorted(each for each in available if not each.startswith("__")))
        raise ModelError(f"{model} has no signature {name!r}; available: {shown}.")
    return name


def _info_of_json(tensor: Mapping[str, Any]) -> TensorInfo:
    shape = tensor.get("tensor_shape", {})
    sides = [int(side.get("size", 0)) for side in shape.get("dim", [])]
    kind = _TYPES.get(str(tensor.get("dtype", "")).removesuffix("_REF"))
    return _info(kind, None if shape.get("unknown_rank", False) else sides)


def _info_of_message(data: memoryview) -> TensorInfo:
    """Decode ``TensorInfo{dtype = 2, tensor_shape = 3}``, where the shape is
    ``TensorShapeProto{dim = 2, unknown_rank = 3}``.
    """
    shapes = list(bodies(data, 3))
    sides = [integer(dim, 1) for shape in shapes for dim in bodies(shape, 2)]
    rank_is_unknown = any(integer(shape, 3) for shape in shapes)
    return _info(_type_or_none(integer(data, 2)), None if rank_is_unknown else sides)


def _info(kind: TensorType | None, sides: list[int] | None) -> TensorInfo:
    # Native byte order, as in the signatures of local SavedModels.
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
