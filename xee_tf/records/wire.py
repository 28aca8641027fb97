"""The wire format of protocol buffers: varints and fields, one at a time in Python, arrays of them in numpy.

A message is a run of fields: a tag, which holds the number of the field and its wire type, and the field's
bytes. Fields of wire type 2 (strings, messages, packed lists) have their length in front of them. A varint
carries seven bits a byte, lowest first; the top bit of a byte is set when more bytes follow. Negative
numbers travel as their 64-bit two's complement and always take ten bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError

__all__ = [
    "MAX_VARINT",
    "decode_varints",
    "encode_field",
    "encode_varint",
    "encode_varints",
    "field_head",
    "field_size",
    "read_fields",
    "read_varint",
    "varint_bound",
    "varint_ends",
    "varint_rows",
    "varint_size",
    "varint_values",
]

MAX_VARINT = 10
"""Bytes of the longest varint."""

_MASK = (1 << 64) - 1
_MAX_DEPTH = 100  # of nested groups: protobuf's own limit

# -- One at a time -----------------------------------------------------------------------------------


def encode_varint(value: int) -> bytes:
    """One varint.

    Examples
    --------
    >>> encode_varint(300).hex()
    'ac02'
    >>> len(encode_varint(-1))
    10
    """
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_size(value: int) -> int:
    """Bytes of one varint.

    Examples
    --------
    >>> varint_size(127), varint_size(128)
    (1, 2)
    """
    return max(1, -(-(value & _MASK).bit_length() // 7))


def varint_bound(dtype: npt.DTypeLike) -> int:
    """Bytes of the longest varint that an integer dtype can give.

    Examples
    --------
    >>> varint_bound("uint16"), varint_bound("int16")
    (3, 10)
    """
    info = np.iinfo(dtype)
    return max(varint_size(int(info.min)), varint_size(int(info.max)))


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """The unsigned varint at `position`, and the position behind it.

    Raises
    ------
    RecordError
        If the bytes end inside the varint, or it is longer than ten bytes.

    Examples
    --------
    >>> read_varint(memoryview(bytes.fromhex("ac02")), 0)
    (300, 2)
    """
    value = 0
    for shift in range(0, 7 * MAX_VARINT, 7):
        if position >= len(data):
            raise RecordError("The bytes end inside a varint.")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, position
    raise RecordError("A varint is longer than ten bytes.")


def field_head(number: int, size: int) -> bytes:
    """The tag and the length in front of a field of `size` bytes.

    Examples
    --------
    >>> field_head(1, 300).hex()
    '0aac02'
    """
    return encode_varint(number << 3 | 2) + encode_varint(size)


def encode_field(number: int, body: bytes) -> bytes:
    """A field that holds a string or a message.

    Examples
    --------
    >>> encode_field(2, b"B4").hex()
    '12024234'
    """
    return field_head(number, len(body)) + body


def field_size(size: int) -> int:
    """Bytes of a field whose body has `size` bytes, for field numbers up to 15.

    Examples
    --------
    >>> field_size(2) == len(encode_field(2, b"B4"))
    True
    """
    return 1 + varint_size(size) + size


def read_fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and bytes of each field of a message; groups are skipped."""
    position = 0
    while position < len(data):
        number, wire, begin = _tag(data, position)
        if wire == 2:
            length, begin = read_varint(data, begin)
            position = begin + length
        else:
            position = _skip(data, begin, number, wire, 0)
        if position > len(data):
            raise RecordError("A field is longer than the message that holds it.")
        if wire != 3:
            yield number, wire, data[begin:position]


def _tag(data: memoryview, position: int) -> tuple[int, int, int]:
    """Field number, wire type, and where the field's bytes start."""
    tag, position = read_varint(data, position)
    if tag >> 3 == 0 or tag >> 32:
        raise RecordError(f"A field has the impossible number {tag >> 3}.")
    return tag >> 3, tag & 7, position


def _skip(data: memoryview, position: int, number: int, wire: int, depth: int) -> int:
    """Where a field ends whose bytes start at `position`."""
    if wire == 0:
        return read_varint(data, position)[1]
    if wire in (1, 5):
        return position + (8 if wire == 1 else 4)
    if wire == 2:
        length, position = read_varint(data, position)
        return position + length
    if wire == 3 and depth < _MAX_DEPTH:
        while True:
            inner, inner_wire, position = _tag(data, position)
            if inner_wire == 4 and inner == number:
                return position
            position = _skip(data, position, inner, inner_wire, depth + 1)
    raise RecordError(f"Field {number} is malformed (wire type {wire}).")


# -- Many at a time -----------------------------------------------------------------------------------


def encode_varints(
    values: npt.NDArray[np.integer[Any]],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Varints of many numbers, one after the other.

    Parameters
    ----------
    values : ndarray of an integer dtype
        Any shape; taken in C order.

    Returns
    -------
    data : ndarray of uint8
        All bytes.
    sizes : ndarray of uint8, shape (values.size,)
        Bytes of each varint.

    Raises
    ------
    RecordError
        If an unsigned number does not fit into int64.

    Examples
    --------
    >>> data, sizes = encode_varints(np.array([1, 300]))
    >>> data.tobytes().hex(), sizes.tolist()
    ('01ac02', [1, 2])
    """
    rows, sizes = varint_rows(values.reshape(-1))
    width = rows.shape[1]
    if width == 1 or int(sizes.min()) == width:
        return rows.reshape(-1), sizes
    return rows[np.arange(width, dtype=np.uint8) < sizes[:, None]], sizes


def varint_rows(
    values: npt.NDArray[np.integer[Any] | np.bool_],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Varints of many numbers, each at the start of a row of its own.

    Parameters
    ----------
    values : ndarray of an integer dtype, shape (n,)

    Returns
    -------
    rows : ndarray of uint8, shape (n, width)
        As wide as the longest varint; what is behind a shorter one means nothing.
    sizes : ndarray of uint8, shape (n,)
        Bytes of each varint.

    Raises
    ------
    RecordError
        If an unsigned number does not fit into int64.

    Examples
    --------
    >>> rows, sizes = varint_rows(np.array([1, 300]))
    >>> rows.shape, rows[1].tobytes().hex(), sizes.tolist()
    ((2, 2), 'ac02', [1, 2])
    """
    if values.dtype == np.uint64 and values.size and int(values.max()) >> 63:
        raise RecordError(f"{int(values.max())} does not fit into the signed 64 bits of an int64_list.")
    sizes = np.ones(values.size, np.uint8)
    # Sign extension happens in astype(int64); the view then gives the two's complement.
    unsigned = values.astype(np.int64).view(np.uint64)
    width = varint_size(int(unsigned.max(initial=0)))
    if width == 1:
        return unsigned.astype(np.uint8)[:, None], sizes
    rows = np.empty((values.size, width), np.uint8)
    for place in range(width):
        np.copyto(rows[:, place], unsigned, casting="unsafe")
        if place + 1 < width:
            unsigned >>= np.uint64(7)
            more = unsigned != 0
            sizes += more
            rows[:, place] &= 0x7F
            rows[:, place] |= more.view(np.uint8) << 7
    return rows, sizes


def decode_varints(data: npt.NDArray[np.uint8] | memoryview | bytes) -> npt.NDArray[np.int64]:
    """The int64 numbers of a packed list of varints.

    Raises
    ------
    RecordError
        If the last varint is cut off, or one is longer than ten bytes.

    Examples
    --------
    >>> decode_varints(bytes.fromhex("01ac02")).tolist()
    [1, 300]
    """
    raw = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    if not raw.size:
        return np.empty(0, np.int64)
    if raw[-1] & 0x80:
        raise RecordError("The bytes end inside a varint.")
    first, last = varint_ends(raw)
    if int((last - first).max()) >= MAX_VARINT:
        raise RecordError("A varint is longer than ten bytes.")
    return varint_values(raw, first, last)


def varint_ends(raw: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Where each varint of a packed list has its first and its last byte.

    Examples
    --------
    >>> first, last = varint_ends(np.array([0x01, 0xAC, 0x02], np.uint8))
    >>> first.tolist(), last.tolist()
    ([0, 1], [0, 2])
    """
    last = np.flatnonzero(raw < 0x80)
    first = np.empty_like(last)
    first[:1] = 0
    first[1:] = last[:-1] + 1
    return first, last


def varint_values(
    raw: npt.NDArray[np.uint8],
    first: npt.NDArray[np.intp],
    last: npt.NDArray[np.intp],
    into: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """The numbers of the varints between first and last bytes; of longer ones than ten bytes, anything.

    Parameters
    ----------
    raw : ndarray of uint8
    first, last : ndarray of int, shape (n,)
    into : ndarray of int64, shape (n,), optional
        Where they go. Default: a new array.

    Examples
    --------
    >>> varint_values(np.array([0x01, 0xAC, 0x02], np.uint8), np.array([1]), np.array([2])).tolist()
    [300]
    """
    numbers = np.empty(first.size, np.int64) if into is None else into
    out = numbers.view(np.uint64)
    if first.size == raw.size:  # one byte each
        out[:] = raw
        return numbers
    extra = last - first
    low = raw & 0x7F
    out[:] = low[first]
    for place in range(1, min(int(extra.max(initial=0)), MAX_VARINT - 1) + 1):
        longer = extra >= place
        shift = np.uint64(7 * place)
        if 4 * np.count_nonzero(longer) < longer.size:
            chosen = np.flatnonzero(longer)
            out[chosen] |= low[first[chosen] + place].astype(np.uint64) << shift
        else:  # taking all of them along costs less than picking
            piece = low[np.minimum(first + place, last)].astype(np.uint64)
            piece *= longer
            out |= piece << shift
    return numbers
