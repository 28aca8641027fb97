"""Convert between batches and strings, one for each instance: serialized tensors, optionally in base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Signature, TensorInfo
from xee_tf.errors import ModelError, RecordError, excerpt
from xee_tf.tensors import decode_tensor, decoded_limit, encode_tensors, is_tensor, tensor_size

__all__ = [
    "as_bytes",
    "base64_size",
    "decode_base64",
    "min_string_size",
    "parse_strings",
    "serialize_tensors",
    "strings_signature",
]

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def serialize_tensors(batch: npt.NDArray[Any], *, in_base64: bool = True) -> list[bytes]:
    """Serialize each instance of a batch as a TensorProto, or as its URL-safe base64 with padding.

    Models that are prepared for Earth Engine decode base64.

    Examples
    --------
    >>> serialize_tensors(np.array([1, 2], "uint8"))
    [b'CAQSACIBAQ==', b'CAQSACIBAg==']
    """
    tensors = encode_tensors(batch)
    return [base64.urlsafe_b64encode(tensor) for tensor in tensors] if in_base64 else tensors


def min_string_size(dtype: npt.DTypeLike, shape: Sequence[int], *, in_base64: bool = True) -> int:
    """Return the minimum size in bytes of a string from `serialize_tensors`; it is exact for numbers.

    Examples
    --------
    >>> min_string_size("uint8", ()) == len(serialize_tensors(np.array([1], "uint8"))[0])
    True
    """
    size = tensor_size(dtype, shape)
    return base64_size(size) if in_base64 else size


def base64_size(size: int) -> int:
    """Return the number of characters of `size` bytes in base64 with padding."""
    return -(-size // 3) * 4


def parse_strings(outputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Decode the batches in vectors of strings, which are TensorProtos or their base64.

    The first byte distinguishes them, because every TensorProto begins with its dtype.

    Raises
    ------
    RecordError
        If an output is not a vector of strings, a string is not a tensor, or their dtypes or shapes differ.

    Examples
    --------
    >>> parse_strings({"p": np.array(["CAQSACIBAQ", b"CAQSACIBAg=="], object)})
    {'p': array([1, 2], dtype=uint8)}
    """
    batches = {}
    for name, strings in outputs.items():
        if strings.dtype != object or strings.ndim != 1:
            raise RecordError(
                f"{name!r} has dtype {strings.dtype} and shape {strings.shape}; expected a serialized tensor "
                "for each instance. Prepare the model with xee_tf.prepare_model."
            )
        try:
            batches[name] = _parse_tensors(strings.tolist())
        except RecordError as error:
            raise RecordError(f"{name!r}: {error}") from None
    return batches


def strings_signature(signature: Signature, model: str, format: str, alternative: str) -> Signature:
    """Return the signature of batches that are sent and returned as strings: names without dtypes and shapes.

    Raises
    ------
    ModelError
        If the inputs of the model are not strings; the message suggests the format `alternative`.
    """
    inputs = signature.inputs or {}
    if any(info.dtype != np.dtype(object) for info in inputs.values()):
        expected = "; ".join(f"{name}: {info}" for name, info in inputs.items())
        raise ModelError(
            f"{model} expects {expected}, but {format} sends serialized tensors: prepare the model with "
            f"xee_tf.prepare_model, or pass payload_format={alternative!r}."
        )
    return Signature(_names_only(inputs), _names_only(signature.outputs))


def decode_base64(text: bytes) -> bytes:
    r"""Decode base64 in the URL-safe or the standard alphabet, with or without padding.

    Examples
    --------
    >>> decode_base64(b"_-8")
    b'\xff\xef'
    """
    standard = text.translate(_TO_STANDARD).rstrip(b"=")
    try:
        return binascii.a2b_base64(standard + b"=" * (-len(standard) % 4), strict_mode=True)
    except binascii.Error as error:
        raise RecordError(f"{text[:40]!r} is not valid base64: {error}.") from None


def as_bytes(string: object) -> bytes:
    """Encode a string as UTF-8; bytes are returned unchanged, other types raise a `RecordError`."""
    if isinstance(string, str):
        try:
            return string.encode()
        except UnicodeEncodeError:
            raise RecordError(f"A string is not valid Unicode: {excerpt(string)}.") from None
    if not isinstance(string, bytes):
        raise RecordError(f"Expected a string; got {excerpt(string)}.")
    return string


def _parse_tensors(strings: Sequence[object]) -> npt.NDArray[Any]:
    """Decode strings of serialized tensors, and stack them."""
    arrays: list[npt.NDArray[Any]] = []
    limit = decoded_limit(sum(len(string) for string in strings if isinstance(string, str | bytes)))
    for string in strings:
        try:
            data = as_bytes(string)
            arrays.append(decode_tensor(data if is_tensor(data) else decode_base64(data), limit))
            limit -= arrays[-1].nbytes
        except RecordError as error:
            raise RecordError(f"Instance {len(arrays)}: {error}") from None
    if not arrays:
        raise RecordError("The list of instances is empty: dtype and shape are unknown.")
    for index, array in enumerate(arrays):
        if array.dtype != arrays[0].dtype or array.shape != arrays[0].shape:
            raise RecordError(
                f"Instance {index} has dtype {array.dtype} and shape {array.shape}; expected "
                f"{arrays[0].dtype} and {arrays[0].shape}, like instance 0."
            )
    return np.stack(arrays)


def _names_only(tensors: Iterable[str] | None) -> dict[str, TensorInfo] | None:
    """Return the names of tensors without their dtypes and shapes, which strings do not declare."""
    return None if tensors is None else {name: TensorInfo() for name in tensors}
