"""Protocol-buffer varints: single numbers in Python, arrays of them in numpy.

A varint carries seven bits a byte, lowest first; the top bit of a byte says that more follow.
Negative numbers travel as their 64-bit two's complement and always take ten bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError

__all__ = [
    "MAX_VARINT",
    "decode_varints",
    "encode_varint",
    "encode_varints",
    "read_varint",
    "varint_bound",
    "varint_size",
]

MAX_VARINT = 10
"""Bytes of the longest varint."""

_MASK = (1 << 64) - 1


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
    values = values.reshape(-1)
    if values.dtype == np.uint64 and values.size and int(values.max()) >> 63:
        raise RecordError(f"{int(values.max())} does not fit into the signed 64 bits of an int64_list.")
    sizes = np.ones(values.size, np.uint8)
    if not values.size:
        return np.empty(0, np.uint8), sizes
    # Sign extension happens in astype(int64); the view then gives the two's complement.
    unsigned = values.astype(np.int64).view(np.uint64)
    width = varint_size(int(unsigned.max()))
    if width == 1:
        return unsigned.astype(np.uint8), sizes
    columns = np.empty((values.size, width), np.uint8)
    for place in range(width):
        np.copyto(columns[:, place], unsigned, casting="unsafe")
        if place + 1 < width:
            unsigned >>= np.uint64(7)
            more = unsigned != 0
            sizes += more
            columns[:, place] &= 0x7F
            columns[:, place] |= more.view(np.uint8) << 7
    if int(sizes.min()) == width:
        return columns.reshape(-1), sizes
    return columns[np.arange(width, dtype=np.uint8) < sizes[:, None]], sizes


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
    last = np.flatnonzero(raw < 0x80)
    if last.size == raw.size:
        return raw.astype(np.int64)
    first = np.empty_like(last)
    first[0] = 0
    first[1:] = last[:-1] + 1
    extra = last - first  # bytes of each varint, less one
    longest = int(extra.max())
    if longest >= MAX_VARINT:
        raise RecordError("A varint is longer than ten bytes.")
    low = raw & 0x7F
    out = low[first].astype(np.uint64)
    for place in range(1, longest + 1):
        longer = extra >= place
        shift = np.uint64(7 * place)
        if 4 * np.count_nonzero(longer) < longer.size:
            chosen = np.flatnonzero(longer)
            out[chosen] |= low[first[chosen] + place].astype(np.uint64) << shift
        else:  # taking all of them along costs less than picking
            piece = low[np.minimum(first + place, last)].astype(np.uint64)
            piece *= longer
            out |= piece << shift
    return out.view(np.int64)
