"""Convert between TensorProto messages and numpy arrays, without protobuf objects or TensorFlow.

A TensorProto is ``dtype (1), tensor_shape (2), tensor_content (4)``. The content holds the raw little-endian
values in C order and is copied once at most. Alternatively the values are listed one by one, in a separate
field for each group of dtypes; the last listed value is repeated for all that are missing. Strings are always
listed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError, RecordError
from xee_tf.tensors.types import STRING, TensorType, tensor_type, type_of_number
from xee_tf.varints import decode_varint_parts
from xee_tf.wire import (
    Merged,
    encode_field,
    field_head,
    field_size,
    integer,
    integer_field,
    merge,
    read_fields,
    read_varint,
)

__all__ = [
    "decode_tensor",
    "decoded_limit",
    "encode_tensor",
    "encode_tensors",
    "is_tensor",
    "tensor_pieces",
    "tensor_size",
    "value_sizes",
]

_DTYPE_TAG = integer_field(1, 1)[:1]
_CONTENT = 4  # field of the raw values
_LEAST_LIMIT = 64 << 20
_RATIO = 100
_MOST_AXES = 64  # of numpy
_BITS = 13  # field of the bit patterns of float16 and bfloat16


def encode_tensor(array: npt.ArrayLike) -> bytes:
    """Serialize an array as a TensorProto, like ``tf.io.serialize_tensor``.

    The array may have any shape and hold numbers, booleans or strings (bytes, or str encoded as UTF-8).

    Examples
    --------
    >>> encode_tensor(np.float32([1, 2])).hex(" ")
    '08 01 12 04 12 02 08 02 22 08 00 00 80 3f 00 00 00 40'
    >>> decode_tensor(encode_tensor([["sea", "land"]])).tolist()
    [[b'sea', b'land']]
    """
    values = np.asarray(array)
    if values.dtype.kind in "SU" and not isinstance(array, np.ndarray):
        values = np.asarray(array, object)  # numpy's string dtypes strip trailing null bytes
    return b"".join(tensor_pieces(values))


def encode_tensors(batch: npt.NDArray[Any]) -> list[bytes]:
    """Serialize each element of the first dimension as a TensorProto.

    Examples
    --------
    >>> tiles = np.zeros((3, 4, 4, 1), "uint8")
    >>> [len(tensor) for tensor in encode_tensors(tiles)]
    [34, 34, 34]
    """
    kind = tensor_type(batch.dtype)
    if kind is STRING:
        # Slices, because iteration over a 1-d array returns scalars, not arrays.
        elements = (batch[i : i + 1].reshape(batch.shape[1:]) for i in range(len(batch)))
        return [encode_tensor(element) for element in elements]
    batch = np.ascontiguousarray(batch, kind.dtype)
    head = _head(kind, batch.shape[1:], batch[:1].nbytes)
    return [head + element.tobytes() for element in batch]


def tensor_pieces(array: npt.NDArray[Any]) -> list[bytes | memoryview]:
    """Return the consecutive parts of a serialized TensorProto; numeric values are not copied.

    Examples
    --------
    >>> [len(piece) for piece in tensor_pieces(np.zeros((256, 256), "float32"))]
    [18, 262144]
    """
    kind = tensor_type(array.dtype)
    if kind is STRING:
        return [_head(kind, array.shape), *_string_pieces(array.reshape(-1).tolist())]
    values = np.ascontiguousarray(array, kind.dtype).reshape(-1)
    return [_head(kind, array.shape, values.nbytes), values.view(np.uint8).data]


def tensor_size(dtype: npt.DTypeLike, shape: Sequence[int], payload: int | None = None) -> int:
    """Return the size of a serialized TensorProto in bytes.

    Parameters
    ----------
    dtype : dtype
        Dtype of the values.
    shape : sequence of int
        Shape of the tensor.
    payload : int, optional
        Size of the values in bytes; see `value_sizes`. Default: the size of numbers or of empty strings.

    Examples
    --------
    >>> tensor_size("float32", (2, 3)) == len(encode_tensor(np.zeros((2, 3), "float32")))
    True
    """
    dtype = np.dtype(dtype)
    kind = tensor_type(dtype)
    if payload is None:
        payload = (field_size(0) if kind is STRING else dtype.itemsize) * math.prod(shape)
    return len(_head(kind, tuple(shape), payload)) + payload


def value_sizes(batch: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the size in bytes that the values of each element of the first dimension take in a TensorProto.

    Examples
    --------
    >>> value_sizes(np.array([["sea", "land"], ["oak", ""]], object))
    array([11,  7])
    """
    count = math.prod(batch.shape[1:])
    if tensor_type(batch.dtype) is STRING:
        rows = batch.reshape(len(batch), count).tolist()
        sizes = [sum(map(len, _string_pieces(row))) for row in rows]
        return np.array(sizes, np.int64)
    return np.full(len(batch), count * batch.dtype.itemsize, np.int64)


def is_tensor(data: bytes) -> bool:
    """Return whether data is a serialized TensorProto, as opposed to its base64 encoding.

    Every TensorProto begins with the tag of its dtype, a byte that base64 text does not contain.
    """
    return data.startswith(_DTYPE_TAG)


def decoded_limit(size: int) -> int:
    """Return how many bytes the values of all tensors in `size` bytes of messages may take.

    A message can repeat a few values for a tensor of any shape. Without a limit it could fill the memory.

    Examples
    --------
    >>> decoded_limit(100) >> 20, decoded_limit(1 << 30) >> 30
    (64, 100)
    """
    return max(_LEAST_LIMIT, _RATIO * size)


def decode_tensor(data: bytes | memoryview, limit: int | None = None) -> npt.NDArray[Any]:
    """Decode a serialized TensorProto in any of its forms; raise an error if it is invalid or incomplete.

    The array is little endian. It may be a read-only view of `data`, or of a single repeated value. Strings
    are returned as an array of objects (bytes). The values may take `limit` bytes; default: `decoded_limit`.

    Examples
    --------
    The last listed value is repeated:

    >>> decode_tensor(bytes.fromhex("0803 12041202 0804 3a020102")).tolist()
    [1, 2, 2, 2]
    """
    view = memoryview(data).cast("B")
    number = 0
    shape: list[int] = []
    content = memoryview(b"")
    for field, wire, body in read_fields(view):
        if field == 1 and wire == 0:
            number = read_varint(body, 0)[0]
        elif field == 2 and wire == 2:
            _decode_shape(body, shape)
        elif field == _CONTENT and wire == 2:
            content = body
    kind = type_of_number(number)
    count = math.prod(shape)
    if len(content) and kind is not STRING:
        size = count * kind.dtype.itemsize
        if len(content) != size:
            raise RecordError(
                f"A {kind.name} tensor of shape {shape} has {len(content)} bytes; expected {size}."
            )
        values = np.frombuffer(content, kind.dtype)
    else:
        limit = decoded_limit(len(view)) if limit is None else limit
        if count * kind.dtype.itemsize > limit:
            raise RecordError(
                f"A {kind.name} tensor of shape {shape} takes more than {limit:,} bytes, which is far more "
                "than its message. Send its values as tensor_content."
            )
        listed = ((wire, body) for field, wire, body in read_fields(view) if field == kind.field)
        values = _fill_shape(_listed_values(listed, kind), shape)
    try:
        return values.reshape(shape)
    except ValueError:
        raise RecordError(f"A tensor has shape {shape}, which numpy does not support.") from None


# -- Writing -----------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _head(kind: TensorType, shape: tuple[int, ...], payload: int = 0) -> bytes:
    """Encode all fields before the values; for numbers, also the tag and length of the content field."""
    dims = b"".join(encode_field(2, integer_field(1, size)) for size in shape)
    head = integer_field(1, kind.number) + encode_field(2, dims)
    return head + field_head(_CONTENT, payload) if payload and kind is not STRING else head


def _string_pieces(strings: Iterable[object]) -> list[bytes | memoryview]:
    pieces: list[bytes | memoryview] = []
    for string in strings:
        if isinstance(string, str):
            string = string.encode()
        elif not isinstance(string, bytes):
            raise OptionError(f"An array of strings contains {string!r}; expected only str or bytes.")
        pieces += (field_head(STRING.field, len(string)), string)
    return pieces


# -- Reading -----------------------------------------------------------------------------------------


def _decode_shape(data: memoryview, shape: list[int]) -> None:
    """Append the lengths in a TensorShapeProto to a shape."""
    for field, wire, body in read_fields(data):
        if field == 3 and wire == 0 and read_varint(body, 0)[0]:
            raise RecordError("A tensor has no shape: its rank is declared as unknown.")
        if field == 2 and wire == 2:
            shape.append(integer(body, 1))
            if shape[-1] < 0:
                raise RecordError(f"A tensor has a dimension of length {shape[-1]}.")
            if len(shape) > _MOST_AXES:
                raise RecordError(f"A tensor has more than {_MOST_AXES} dimensions, the maximum of numpy.")


def _listed_values(parts: Iterable[tuple[int, memoryview]], kind: TensorType) -> npt.NDArray[Any]:
    """Decode the values of a typed field in order: packed lists and single values."""
    dtype = kind.dtype
    if kind is STRING:
        listed = [bytes(part) for wire, part in parts if wire == 2]
        strings = np.empty(len(listed), dtype)
        strings[:] = listed
        return strings
    if kind.wire == "varint":
        numbers = decode_varint_parts(part for wire, part in parts if wire in (0, 2))
        if kind.field == _BITS:
            return numbers.astype("<u2").view(dtype)
        return numbers != 0 if kind.name == "bool" else numbers.astype(dtype, copy=False)
    single = 5 if kind.name in ("float32", "complex64") else 1
    data: Merged = memoryview(b"")
    for wire, part in parts:
        if wire in (2, single):
            data = merge(data, part)
    if len(data) % dtype.itemsize:
        raise RecordError(
            f"A list of {kind.name} values has {len(data)} bytes; expected a multiple of {dtype.itemsize}."
        )
    return np.frombuffer(data, dtype)


def _fill_shape(values: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """Repeat the last value (zero if there is none) to fill the shape."""
    count = math.prod(shape)
    if values.size > count:
        raise RecordError(f"A tensor of shape {list(shape)} lists {values.size} values; expected {count}.")
    if values.size == count:
        return values
    if not values.size:
        values = np.array([b"" if values.dtype == object else 0]).astype(values.dtype)
    if values.size == 1:  # a view
        return np.broadcast_to(values, count)
    return np.concatenate([values, np.broadcast_to(values[-1:], count - values.size)])
