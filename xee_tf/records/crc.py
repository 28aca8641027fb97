"""CRC-32C: of many short records at a time, and of bytes that are put together.

Called in a loop, the processor's CRC instruction costs a quarter of a microsecond a record, nearly all
of it Python's. Two ways around that, whichever is faster (measured on 1 MB of records):

* Iterators that are written in C cut the rows and call it: 70 ns a record, and 10 GB/s. (Long records
  are worth a view each, at 28 GB/s.)
* CRC is linear over bits, so that the CRC of a record is that of its constant bytes, exclusive-or what
  each pair of varying bytes adds, one look-up a pair for all rows: 1 to 2 ns a varying byte.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import starmap
from typing import Any

import numpy as np
import numpy.typing as npt
from crc32c import crc32c
from numpy.lib.stride_tricks import as_strided

from xee_tf.records.ragged import gather, rows_by_size

__all__ = ["crcs_between", "join_crcs", "record_crcs"]

_MAX_VARYING = 48  # bytes of a record up to which look-ups are faster, whatever the values
_MIN_ROWS = 256  # fewer are not worth the tables
_MIN_ALIKE = 32  # records of one length from which on they are copied together
_MAX_COPIED = 4096  # bytes of a record up to which a copy costs less than a view of it

_POLYNOMIAL = 0x82F63B78  # of CRC-32C; the highest bit of a number is the coefficient of x**0
_ONE = 1 << 31

_Spans = tuple[tuple[int, int], ...]


def record_crcs(
    rows: npt.NDArray[np.uint8], varying: Sequence[tuple[int, int]] | None = None
) -> npt.NDArray[np.uint32]:
    """The CRC-32C of each row of a matrix.

    Parameters
    ----------
    rows : ndarray of uint8, shape (records, length)
        A record a row. Rows may lie apart, as in ``framed[:, HEADER:-FOOTER]``; other strides than
        those of a part of a C-contiguous matrix cost a copy.
    varying : sequence of (start, stop), optional
        Where rows differ from one another. All other bytes must be the same in all rows, which is
        not checked. Default: anywhere.

    Returns
    -------
    ndarray of uint32, shape (records,)
        Not masked: see `xee_tf.records.framing.mask_crcs`.

    Examples
    --------
    >>> rows = np.frombuffer(b"123456789;987654321;", np.uint8).reshape(2, 10)
    >>> [hex(crc) for crc in record_crcs(rows[:, :9])]
    ['0xe3069283', '0xe46bd790']
    """
    count, length = rows.shape
    spans = ((0, length),) if varying is None else tuple(varying)
    if count < _MIN_ROWS or sum(stop - start for start, stop in spans) > _MAX_VARYING:
        return _called(rows)
    constant = rows[0].copy()
    for start, stop in spans:
        constant[start:stop] = 0
    crcs = np.full(count, crc32c(constant), np.uint32)
    for start, stop, table in _tables(length, spans):
        crcs ^= table.take(np.ascontiguousarray(rows[:, start:stop]).view(f"<u{stop - start}")[:, 0])
    return crcs


def crcs_between(
    data: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint32]:
    """The CRC-32C of parts of a buffer, of any lengths.

    Examples
    --------
    >>> data = np.frombuffer(b"123456789;", np.uint8)
    >>> [hex(crc) for crc in crcs_between(data, np.array([0, 9]), np.array([9, 10]))]
    ['0xe3069283', '0xfb17b1db']
    """
    crcs = np.empty(len(begins), np.uint32)
    view = data.data
    for size, rows in rows_by_size(ends - begins):
        starts = begins[rows]
        if size <= _MAX_COPIED and len(starts) >= _MIN_ALIKE:
            crcs[rows] = record_crcs(gather(data, starts, size))
        else:
            parts = map(view.__getitem__, map(slice, starts.tolist(), ends[rows].tolist()))
            crcs[rows] = np.fromiter(map(crc32c, parts), np.uint32, len(starts))
    return crcs


def join_crcs(first: int, second: int, length: int) -> int:
    """The CRC-32C of two pieces, one after the other; the second one has `length` bytes.

    Examples
    --------
    >>> from crc32c import crc32c
    >>> join_crcs(crc32c(b"head"), crc32c(b"body"), 4) == crc32c(b"headbody")
    True
    """
    shift, power = _ONE, _ONE >> 8  # x**8: the first piece moves up by a byte
    while length:
        if length & 1:
            shift = _product(shift, power)
        power = _product(power, power)
        length >>= 1
    return _product(shift, first) ^ second


def _called(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """A call of `crc32c` for each row."""
    count, length = rows.shape
    if not count or not length:
        return np.zeros(count, np.uint32)
    if length > _MAX_COPIED or count == 1:
        return np.fromiter((crc32c(row.data) for row in rows), np.uint32, count)
    step = rows.strides[0]
    if rows.strides[1] != 1 or step < length:
        rows, step = np.ascontiguousarray(rows), length
    # Behind the last row there may be nothing to skip: it is a call of its own.
    others: Any = as_strided(rows, ((count - 1) * step,), (1,), writeable=False)
    cut: Any = struct.iter_unpack(f"{length}s{step - length}x", others)
    crcs = np.empty(count, np.uint32)
    crcs[:-1] = np.fromiter(starmap(crc32c, cut), np.uint32, count - 1)
    crcs[-1] = crc32c(rows[-1].data)
    return crcs


@lru_cache(maxsize=4)
def _tables(length: int, spans: _Spans) -> list[tuple[int, int, npt.NDArray[np.uint32]]]:
    """What each pair of varying bytes (or a last single one) adds to the CRC of `length` bytes."""
    empty = crc32c(b"\0")
    first = np.array([crc32c(bytes((byte,))) ^ empty for byte in range(256)], np.uint32)
    wanted = {place for span in spans for place in range(*span)}
    single: dict[int, npt.NDArray[np.uint32]] = {}
    table = first
    for place in range(length - 1, min(wanted, default=length) - 1, -1):
        if place in wanted:
            single[place] = table
        table = table >> np.uint32(8) ^ first[table & 0xFF]
    pairs = np.arange(1 << 16)
    return [
        (place, place + 2, single[place][pairs & 0xFF] ^ single[place + 1][pairs >> 8])
        if place + 1 < stop
        else (place, place + 1, single[place])
        for start, stop in spans
        for place in range(start, stop, 2)
    ]


def _product(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo that of CRC-32C."""
    product, bit = 0, _ONE
    while bit:
        if a & bit:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
        bit >>= 1
    return product
