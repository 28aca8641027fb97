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
from xee_tf.records.tensor_types import STRING, TensorType, tensor_type, type_of_number
from xee_tf.records.wire import (
    decode_varints,
    encode_field,
    encode_varint,
    encode_varints,
    field_head,
    read_fields,
    read_varint,
    varint_bound,
    varint_size,
)

__all__ = [
    "decode_tensor",
    "encode_tensor",
    "encode_tensors",
    "tensor_bound",
    "tensor_pieces",
    "tensor_size",
    "value_sizes",
]

# Numbers of fields: the raw values; the bits of half floats.
_CONTENT = 4
_BITS = 13


def encode_tensor(array: npt.ArrayLike, *, typed: bool = False) -> bytes:
    """One serialised TensorProto.

    Parameters
    ----------
    array : array_like
        Numbers, booleans, or strings (bytes, or str, which is encoded as UTF-8); any shape.
    typed : bool, optional
        Whether the values are listed in their typed field (``float_val``, ``int_val``, ...) rather than
        held by ``tensor_content``. What reads one reads the other; numbers are larger and slower so.

    Returns
    -------
    bytes
        As ``tf.io.serialize_tensor`` gives them.

    Raises
    ------
    OptionError
        If TensorFlow has no such dtype.

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
    return b"".join(tensor_pieces(values, typed=typed))


def encode_tensors(batch: npt.NDArray[Any], *, typed: bool = False) -> list[bytes]:
    """A serialised TensorProto for each element of the first dimension.

    Examples
    --------
    >>> tiles = np.zeros((3, 4, 4, 1), "uint8")
    >>> [len(tensor) for tensor in encode_tensors(tiles)]
    [34, 34, 34]
    """
    kind = tensor_type(batch.dtype)
    if typed or kind is STRING:
        # Not by iterating: an element without dimensions would be no array any more.
        elements = (batch[i : i + 1].reshape(batch.shape[1:]) for i in range(len(batch)))
        return [encode_tensor(element, typed=typed) for element in elements]
    batch = np.ascontiguousarray(batch, kind.dtype)
    head = _head(kind, batch.shape[1:], _CONTENT, batch[:1].nbytes)
    return [head + element.tobytes() for element in batch]


def tensor_pieces(array: npt.NDArray[Any], *, typed: bool = False) -> list[bytes | memoryview]:
    """What a serialised TensorProto is joined from; the values of numbers are not copied.

    Examples
    --------
    >>> [len(piece) for piece in tensor_pieces(np.zeros((256, 256), "float32"))]
    [18, 262144]
    """
    kind = tensor_type(array.dtype)
    if kind is STRING:
        return [_head(kind, array.shape), *_string_pieces(array.reshape(-1).tolist())]
    field = kind.field if typed else _CONTENT
    values = _listed(array, kind) if typed else np.ascontiguousarray(array, kind.dtype).reshape(-1)
    return [_head(kind, array.shape, field, values.nbytes), values.view(np.uint8).data]


def tensor_size(dtype: npt.DTypeLike, shape: Sequence[int], payload: int, *, typed: bool = False) -> int:
    """Bytes of a serialised TensorProto whose values take `payload` bytes; see `value_sizes`.

    Examples
    --------
    >>> tensor_size("float32", (2, 3), 24) == len(encode_tensor(np.zeros((2, 3), "float32")))
    True
    """
    kind = tensor_type(np.dtype(dtype))
    field = 0 if kind is STRING else kind.field if typed else _CONTENT
    return len(_head(kind, tuple(shape), field, payload)) + payload


def value_sizes(batch: npt.NDArray[Any], *, typed: bool = False) -> npt.NDArray[np.int64]:
    """Bytes that the values of each element of the first dimension take in a TensorProto.

    Examples
    --------
    >>> value_sizes(np.array([[1, 300], [5, 5]], "uint16"), typed=True)
    array([3, 2])
    """
    kind = tensor_type(batch.dtype)
    count = math.prod(batch.shape[1:])
    if kind is STRING:
        rows = batch.reshape(len(batch), count).tolist()
        sizes = [sum(map(len, _string_pieces(row))) for row in rows]
        return np.array(sizes, np.int64)
    if typed and kind.wire == "varint":
        widths = encode_varints(_as_varints(batch, kind))[1].reshape(len(batch), count)
        return np.asarray(widths.sum(axis=1, dtype=np.int64))
    return np.full(len(batch), count * batch.dtype.itemsize, np.int64)


def tensor_bound(
    dtype: npt.DTypeLike, shape: Sequence[int], *, typed: bool = False, string_size: int = 0
) -> int:
    """Bytes that a serialised TensorProto takes at most, told without its values.

    Parameters
    ----------
    dtype : dtype
        Of the values.
    shape : sequence of int
        Of the tensor.
    typed : bool, optional
        As in `encode_tensor`. Without it the figure is exact for everything but strings.
    string_size : int, optional
        Bytes of the longest string.

    Examples
    --------
    >>> tensor_bound("float32", (256, 256, 1)) == len(encode_tensor(np.zeros((256, 256, 1), "float32")))
    True
    """
    dtype = np.dtype(dtype)
    kind, width = tensor_type(dtype), dtype.itemsize
    if kind is STRING:
        width = 1 + varint_size(string_size) + string_size
    elif typed and kind.wire == "varint":
        width = _varint_bound(kind)
    return tensor_size(dtype, shape, width * math.prod(shape), typed=typed)


def decode_tensor(data: bytes | memoryview) -> npt.NDArray[Any]:
    """The array of a serialised TensorProto, in whichever form.

    Returns
    -------
    ndarray
        Little endian; may be a read-only view of `data`, and of one value that stands for all.
        Strings are an array of objects (bytes).

    Raises
    ------
    RecordError
        If the bytes are not a valid TensorProto, have no complete shape, another number of values
        than it says, or a type that numpy cannot hold.

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
def _head(kind: TensorType, shape: tuple[int, ...], number: int = 0, payload: int = 0) -> bytes:
    """Everything in front of the values, the tag and length of their field included."""
    # Zero is the default: it is left out.
    dims = b"".join(encode_field(2, b"\x08" + encode_varint(size) if size else b"") for size in shape)
    head = b"\x08" + encode_varint(kind.number) + encode_field(2, dims)
    return head + field_head(number, payload) if number and payload else head


def _listed(array: npt.NDArray[Any], kind: TensorType) -> npt.NDArray[Any]:
    """The bytes of the values in their typed field."""
    if kind.wire == "varint":
        return encode_varints(_as_varints(array, kind))[0]
    return np.ascontiguousarray(array, kind.dtype).reshape(-1)


def _as_varints(array: npt.NDArray[Any], kind: TensorType) -> npt.NDArray[Any]:
    """The integers that stand for the values of a type whose field holds varints."""
    values = np.ascontiguousarray(array, kind.dtype).reshape(-1)
    if kind.field == _BITS:
        return values.view("<u2")
    if kind.name == "uint64":
        return values.view("<i8")  # the same 64 bits: varints know no sign
    return values.view(np.uint8) if kind.name == "bool" else values


def _varint_bound(kind: TensorType) -> int:
    if kind.field == _BITS:
        return varint_bound("uint16")
    return 1 if kind.name == "bool" else varint_bound(kind.dtype)


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
        if field != 2 or wire != 2:
            continue
        size = 0
        for inner, inner_wire, value in read_fields(body):
            if inner == 1 and inner_wire == 0:
                size = read_varint(value, 0)[0]
        if size >> 63:
            raise RecordError(f"A tensor has a dimension of length {size - (1 << 64)}.")
        sizes.append(size)
    return sizes


def _listed_values(parts: Sequence[tuple[int, memoryview]], kind: TensorType) -> npt.NDArray[Any]:
    """The values of a typed field, as they come: packed runs and single ones."""
    dtype = kind.dtype
    if kind is STRING:
        strings = np.empty(len(parts), dtype)
        strings[:] = [bytes(part) for wire, part in parts if wire == 2]
        return strings
    if kind.wire == "varint":
        runs = [decode_varints(part) for wire, part in parts if wire in (0, 2)]
        numbers = runs[0] if len(runs) == 1 else np.concatenate([np.empty(0, np.int64), *runs])
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
