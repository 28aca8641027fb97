"""TensorProto to and from numpy arrays: no protobuf objects, no TensorFlow.

A TensorProto is ``dtype (1), tensor_shape (2), tensor_content (4)``: the raw little-endian values in
C order, which are never copied but once into their place. Or its values are listed one by one, in a
field of their own for each group of types; there the last value stands for all that are missing.
Strings are always listed.
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
from xee_tf.varints import listed_varints
from xee_tf.wire import (
    encode_field,
    field_head,
    field_size,
    integer,
    integer_field,
    read_fields,
    read_varint,
)

__all__ = [
    "decode_tensor",
    "encode_tensor",
    "encode_tensors",
    "is_tensor",
    "tensor_pieces",
    "tensor_size",
    "value_sizes",
]

_DTYPE_TAG = integer_field(1, 1)[:1]
_CONTENT = 4  # the field of the raw values
_BITS = 13  # that of the bits of half floats


def encode_tensor(array: npt.ArrayLike) -> bytes:
    """One serialised TensorProto, as ``tf.io.serialize_tensor`` gives it.

    Of numbers, booleans, or strings (bytes, or str, which is encoded as UTF-8); any shape.

    Examples
    --------
    >>> encode_tensor(np.float32([1, 2])).hex(" ")
    '08 01 12 04 12 02 08 02 22 08 00 00 80 3f 00 00 00 40'
    >>> decode_tensor(encode_tensor([["sea", "land"]])).tolist()
    [[b'sea', b'land']]
    """
    values = np.asarray(array)
    if values.dtype.kind in "SU" and not isinstance(array, np.ndarray):
        values = np.asarray(array, object)  # numpy's own strings lose zeros at their end
    return b"".join(tensor_pieces(values))


def encode_tensors(batch: npt.NDArray[Any]) -> list[bytes]:
    """A serialised TensorProto for each element of the first dimension.

    Examples
    --------
    >>> tiles = np.zeros((3, 4, 4, 1), "uint8")
    >>> [len(tensor) for tensor in encode_tensors(tiles)]
    [34, 34, 34]
    """
    kind = tensor_type(batch.dtype)
    if kind is STRING:
        # Not by iterating: an element without dimensions would be no array any more.
        elements = (batch[i : i + 1].reshape(batch.shape[1:]) for i in range(len(batch)))
        return [encode_tensor(element) for element in elements]
    batch = np.ascontiguousarray(batch, kind.dtype)
    head = _head(kind, batch.shape[1:], batch[:1].nbytes)
    return [head + element.tobytes() for element in batch]


def tensor_pieces(array: npt.NDArray[Any]) -> list[bytes | memoryview]:
    """What a serialised TensorProto is joined from; the values of numbers are not copied.

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
    """Bytes of a serialised TensorProto.

    Parameters
    ----------
    dtype : dtype
        Of the values.
    shape : sequence of int
        Of the tensor.
    payload : int, optional
        Bytes that the values take; see `value_sizes`. Default: those of numbers, or of empty strings.

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
    """Bytes that the values of each element of the first dimension take in a TensorProto.

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
    """Whether bytes are a serialised TensorProto rather than base64 of one.

    Every TensorProto begins with the tag of its dtype, which no text does.
    """
    return data.startswith(_DTYPE_TAG)


def decode_tensor(data: bytes | memoryview) -> npt.NDArray[Any]:
    """The array of a serialised TensorProto, in whichever form; an error if it is not valid and complete.

    It is little endian, and may be a read-only view of `data`, or of one value that stands for all. Strings
    are an array of objects (bytes).

    Examples
    --------
    Of values that are listed the last one is repeated:

    >>> decode_tensor(bytes.fromhex("0803 12041202 0804 3a020102")).tolist()
    [1, 2, 2, 2]
    """
    number = 0
    shape: list[int] = []
    content = memoryview(b"")
    listed: dict[int, list[tuple[int, memoryview]]] = {}
    for field, wire, body in read_fields(memoryview(data).cast("B")):
        if field == 1 and wire == 0:
            number = read_varint(body, 0)[0]
        elif field == 2 and wire == 2:
            shape += _sizes(body)
        elif field == _CONTENT and wire == 2:
            content = body
        else:
            listed.setdefault(field, []).append((wire, body))
    kind = type_of_number(number)
    if len(content) and kind is not STRING:
        dtype = kind.dtype
        size = math.prod(shape) * dtype.itemsize
        if len(content) != size:
            raise RecordError(
                f"A tensor of {kind.name} and shape {shape} holds {len(content)} bytes; expected {size}."
            )
        values = np.frombuffer(content, dtype)
    else:
        values = _repeated(_listed_values(listed.get(kind.field, []), kind), shape)
    try:
        return values.reshape(shape)
    except ValueError:
        raise RecordError(f"A tensor has the shape {shape}, which numpy cannot hold.") from None


# -- Writing -----------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _head(kind: TensorType, shape: tuple[int, ...], payload: int = 0) -> bytes:
    """Everything in front of the values: of numbers the tag and length of their field, too."""
    dims = b"".join(encode_field(2, integer_field(1, size)) for size in shape)
    head = integer_field(1, kind.number) + encode_field(2, dims)
    return head + field_head(_CONTENT, payload) if payload and kind is not STRING else head


def _string_pieces(strings: Iterable[object]) -> list[bytes | memoryview]:
    pieces: list[bytes | memoryview] = []
    for string in strings:
        if isinstance(string, str):
            string = string.encode()
        elif not isinstance(string, bytes):
            raise OptionError(f"An array of strings holds {string!r}; expected str or bytes only.")
        pieces += (field_head(STRING.field, len(string)), string)
    return pieces


# -- Reading -----------------------------------------------------------------------------------------


def _sizes(data: memoryview) -> list[int]:
    """The lengths of the dimensions of a TensorShapeProto."""
    sizes = []
    for field, wire, body in read_fields(data):
        if field == 3 and wire == 0 and read_varint(body, 0)[0]:
            raise RecordError("A tensor has no shape: its rank is said to be unknown.")
        if field == 2 and wire == 2:
            sizes.append(integer(body, 1))
            if sizes[-1] < 0:
                raise RecordError(f"A tensor has a dimension of length {sizes[-1]}.")
    return sizes


def _listed_values(parts: Sequence[tuple[int, memoryview]], kind: TensorType) -> npt.NDArray[Any]:
    """The values of a typed field, as they come: packed runs and single ones."""
    dtype = kind.dtype
    if kind is STRING:
        strings = np.empty(len(parts), dtype)
        strings[:] = [bytes(part) for wire, part in parts if wire == 2]
        return strings
    if kind.wire == "varint":
        numbers = listed_varints(part for wire, part in parts if wire in (0, 2))
        if kind.field == _BITS:
            return numbers.astype("<u2").view(dtype)
        return numbers != 0 if kind.name == "bool" else numbers.astype(dtype, copy=False)
    single = 5 if kind.name in ("float32", "complex64") else 1
    found = [part for wire, part in parts if wire in (2, single)]
    data = found[0] if len(found) == 1 else b"".join(found)
    if len(data) % dtype.itemsize:
        raise RecordError(f"A list of {len(data)} bytes does not hold whole {kind.name} numbers.")
    return np.frombuffer(data, dtype)


def _repeated(values: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """As many values as the shape wants: the last one stands for all that are missing, zero for none."""
    count = math.prod(shape)
    if values.size > count:
        raise RecordError(f"A tensor of shape {list(shape)} lists {values.size} values.")
    if values.size == count:
        return values
    if not values.size:
        values = np.array([b"" if values.dtype == object else 0]).astype(values.dtype)
    try:
        if values.size == 1:  # a view, whatever the shape: a few bytes cannot fill the memory
            return np.broadcast_to(values, count)
        return np.concatenate([values, np.broadcast_to(values[-1:], count - values.size)])
    except (ValueError, MemoryError):
        raise RecordError(
            f"A tensor of shape {list(shape)} lists {values.size} values; "
            "what is missing does not fit into memory."
        ) from None
