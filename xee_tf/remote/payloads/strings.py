"""Arrays as strings, one for each instance: serialised tensors, or base64 of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.tensors import decode_tensor, encode_tensors

__all__ = ["as_bytes", "decode_base64", "parse_tensors", "serialise_tensors"]

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def serialise_tensors(batch: npt.NDArray[Any], *, in_base64: bool = True, typed: bool = False) -> list[bytes]:
    """A TensorProto for each instance of a batch.

    Parameters
    ----------
    batch : ndarray, shape (n, ...)
        Of any dtype that TensorFlow has.
    in_base64 : bool, optional
        Whether the strings are the URL-safe base64 of the TensorProtos, padded: what a model decodes that
        was prepared for Earth Engine.
    typed : bool, optional
        See `xee_tf.records.encode_tensor`.

    Examples
    --------
    >>> serialise_tensors(np.array([1, 2], "uint8"))
    [b'CAQSACIBAQ==', b'CAQSACIBAg==']
    """
    tensors = encode_tensors(batch, typed=typed)
    return [base64.urlsafe_b64encode(tensor) for tensor in tensors] if in_base64 else tensors


def parse_tensors(strings: Sequence[object]) -> npt.NDArray[Any]:
    """The batch that strings of serialised tensors hold.

    Parameters
    ----------
    strings : sequence of bytes or str
        TensorProtos, or base64 of them: URL-safe or not, padded or not. Which it is shows in the first
        byte, as every TensorProto begins with its dtype.

    Returns
    -------
    ndarray, shape (n, ...)

    Raises
    ------
    RecordError
        If a string is no tensor, or dtypes or shapes differ.

    Examples
    --------
    >>> parse_tensors(["CAQSACIBAQ", b"CAQSACIBAg=="])
    array([1, 2], dtype=uint8)
    """
    arrays = []
    for place, string in enumerate(strings):
        try:
            data = as_bytes(string)
            arrays.append(decode_tensor(data if data[:1] == b"\x08" else decode_base64(data)))
        except RecordError as error:
            raise RecordError(f"Instance {place}: {error}") from None
    if not arrays:
        raise RecordError("There is no instance, so that neither dtype nor shape is known.")
    for place, array in enumerate(arrays):
        if array.dtype != arrays[0].dtype or array.shape != arrays[0].shape:
            raise RecordError(
                f"Instance {place} is {array.dtype} of shape {array.shape}, instance 0 {arrays[0].dtype} of "
                f"shape {arrays[0].shape}: a batch needs one of both."
            )
    return np.stack(arrays)


def decode_base64(text: bytes) -> bytes:
    r"""Bytes from base64: the URL-safe or the standard alphabet, padded or not.

    Raises
    ------
    RecordError
        If it is not base64.

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
    """A string as it is sent: text as UTF-8.

    Raises
    ------
    RecordError
        If it is something else.
    """
    if isinstance(string, str):
        return string.encode()
    if not isinstance(string, bytes):
        raise RecordError(f"Expected a string, got {string!r}.")
    return string
