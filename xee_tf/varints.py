"""Convert between packed lists of varints and numpy arrays; for the format see `xee_tf.wire`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.wire import MAX_VARINT, Merged, merge, varint_size

__all__ = [
    "decode_varint_parts",
    "decode_varints",
    "encode_varints",
    "varint_bound",
    "varint_ends",
    "varint_rows",
    "varint_values",
]


def varint_bound(dtype: npt.DTypeLike) -> int:
    """Return the maximum length in bytes of the varints of an integer dtype.

    Examples
    --------
    >>> varint_bound("uint16"), varint_bound("int16")
    (3, 10)
    """
    info = np.iinfo(dtype)
    return max(varint_size(int(info.min)), varint_size(int(info.max)))


def encode_varints(
    values: npt.NDArray[np.integer[Any]],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Encode numbers, in C order, as consecutive varints; return the data and the length of each varint.

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
    """Encode each number as a varint at the start of its own row; return the rows and the varint lengths.

    Rows are as wide as the longest varint; the bytes after a shorter one are undefined.

    Examples
    --------
    >>> rows, sizes = varint_rows(np.array([1, 300]))
    >>> rows.shape, rows[1].tobytes().hex(), sizes.tolist()
    ((2, 2), 'ac02', [1, 2])
    """
    if values.dtype == np.uint64 and values.size and int(values.max()) >> 63:
        raise RecordError(f"{int(values.max())} does not fit into the signed 64 bits of an int64_list.")
    sizes = np.ones(values.size, np.uint8)
    # astype(int64) extends the sign; the view then gives the two's complement.
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
    """Decode a packed list of varints to int64; raise an error if one is truncated or longer than ten bytes.

    Examples
    --------
    >>> decode_varints(bytes.fromhex("01ac02")).tolist()
    [1, 300]
    """
    raw = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    if not raw.size:
        return np.empty(0, np.int64)
    if raw[-1] & 0x80:
        raise RecordError("The data ends inside a varint.")
    first, last = varint_ends(raw)
    if int((last - first).max()) >= MAX_VARINT:
        raise RecordError("A varint is longer than ten bytes.")
    return varint_values(raw, first, last)


def decode_varint_parts(parts: Iterable[memoryview]) -> npt.NDArray[np.int64]:
    """Decode a list that is split into parts: packed lists and single varints, in order.

    Examples
    --------
    >>> decode_varint_parts([memoryview(bytes.fromhex(part)) for part in ("01ac02", "07")]).tolist()
    [1, 300, 7]
    """
    data: Merged = memoryview(b"")
    for part in parts:
        if len(part) and part[-1] & 0x80:
            raise RecordError("The data ends inside a varint.")
        data = merge(data, part)
    return decode_varints(memoryview(data))


def varint_ends(raw: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the positions of the first and the last byte of each varint in a packed list.

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
    """Decode the varints at the given byte positions, into the array `into` if given.

    The values of varints longer than ten bytes are undefined.

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
        else:  # updating all of them is faster than selecting
            piece = low[np.minimum(first + place, last)].astype(np.uint64)
            piece *= longer
            out |= piece << shift
    return numbers
