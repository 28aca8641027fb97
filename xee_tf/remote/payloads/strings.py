"""Arrays as strings, one for each instance: serialised tensors, or base64 of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Signature, TensorInfo
from xee_tf.errors import ModelError, RecordError
from xee_tf.tensors import decode_tensor, encode_tensors, is_tensor, tensor_size

__all__ = [
    "as_bytes",
    "base64_size",
    "decode_base64",
    "least_string_size",
    "parse_strings",
    "serialise_tensors",
    "strings_signature",
]

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def serialise_tensors(batch: npt.NDArray[Any], *, in_base64: bool = True) -> list[bytes]:
    """A TensorProto for each instance of a batch, or its URL-safe base64, padded.

    The latter is what a model decodes that was prepared for Earth Engine.

    Examples
    --------
    >>> serialise_tensors(np.array([1, 2], "uint8"))
    [b'CAQSACIBAQ==', b'CAQSACIBAg==']
    """
    tensors = encode_tensors(batch)
    return [base64.urlsafe_b64encode(tensor) for tensor in tensors] if in_base64 else tensors


def least_string_size(dtype: npt.DTypeLike, shape: Sequence[int], *, in_base64: bool = True) -> int:
    """Bytes of a string of `serialise_tensors`: exact, unless the tensor holds strings itself.

    Examples
    --------
    >>> least_string_size("uint8", ()) == len(serialise_tensors(np.array([1], "uint8"))[0])
    True
    """
    size = tensor_size(dtype, shape)
    return base64_size(size) if in_base64 else size


def base64_size(size: int) -> int:
    """Characters of the base64 of so many bytes, padded."""
    return -(-size // 3) * 4


def parse_strings(outputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The batches that vectors of strings hold, as TensorProtos or base64 of them.

    The first byte shows which it is, as every TensorProto begins with its dtype.

    Raises
    ------
    RecordError
        If an output is not a vector of strings, a string is not a tensor, or dtypes or shapes differ.

    Examples
    --------
    >>> parse_strings({"p": np.array(["CAQSACIBAQ", b"CAQSACIBAg=="], object)})
    {'p': array([1, 2], dtype=uint8)}
    """
    found = {}
    for name, strings in outputs.items():
        if strings.dtype != object or strings.ndim != 1:
            raise RecordError(
                f"{name!r} is {strings.dtype} of shape {strings.shape}; expected a serialised tensor for "
                "each instance. Is the model prepared (xee_tf.prepare_model)?"
            )
        try:
            found[name] = _parse_tensors(strings.tolist())
        except RecordError as error:
            raise RecordError(f"{name!r}: {error}") from None
    return found


def strings_signature(signature: Signature, model: str, format: str, otherwise: str) -> Signature:
    """The signature of arrays that go to a model, and come back, as strings: names only.

    Raises
    ------
    ModelError
        If the model takes other tensors than strings; it names the format `otherwise` for those.
    """
    inputs = signature.inputs or {}
    if any(info.dtype != np.dtype(object) for info in inputs.values()):
        said = "; ".join(f"{name}: {info}" for name, info in inputs.items())
        raise ModelError(
            f"{model} takes {said}, and {format} would send strings of serialised tensors: "
            f"prepare it (xee_tf.prepare_model), or say payload_format={otherwise!r}."
        )
    return Signature(_names_only(inputs), _names_only(signature.outputs))


def decode_base64(text: bytes) -> bytes:
    r"""Bytes from base64: the URL-safe or the standard alphabet, padded or not.

    Examples
    --------
    >>> decode_base64(b"_-8")
    b'\xff\xef'
    """
    standard = text.translate(_TO_STANDARD).rstrip(b"=")
    try:
        return binascii.a2b_base64(standard + b"=" * (-len(standard) % 4), strict_mode=True)
    except binascii.Error as error:
        raise RecordError(f"{text[:40]!r} is not base64: {error}.") from None


def as_bytes(string: object) -> bytes:
    """A string as it is sent: text as UTF-8. RecordError if it is something else."""
    if isinstance(string, str):
        return string.encode()
    if not isinstance(string, bytes):
        raise RecordError(f"Expected a string, got {string!r}.")
    return string


def _parse_tensors(strings: Sequence[object]) -> npt.NDArray[Any]:
    """The batch that strings of serialised tensors hold."""
    arrays: list[npt.NDArray[Any]] = []
    for string in strings:
        try:
            data = as_bytes(string)
            arrays.append(decode_tensor(data if is_tensor(data) else decode_base64(data)))
        except RecordError as error:
            raise RecordError(f"Instance {len(arrays)}: {error}") from None
    if not arrays:
        raise RecordError("There is no instance, so that neither dtype nor shape is known.")
    for place, array in enumerate(arrays):
        if array.dtype != arrays[0].dtype or array.shape != arrays[0].shape:
            raise RecordError(
                f"Instance {place} is {array.dtype} of shape {array.shape}, instance 0 {arrays[0].dtype} of "
                f"shape {arrays[0].shape}: a batch needs one of both."
            )
    return np.stack(arrays)


def _names_only(tensors: Iterable[str] | None) -> dict[str, TensorInfo] | None:
    """Neither dtype nor shape is known of what travels inside of strings."""
    return None if tensors is None else {name: TensorInfo() for name in tensors}
