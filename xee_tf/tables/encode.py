"""Rows to framed records: columns are put in place, never rows one by one.

Rows of numbers alone all have one length, and are a matrix that is filled column by column. A string
makes the length of a row vary: then rows whose strings are equally long are treated together, one
column at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from xee_tf.records.crc import record_crcs
from xee_tf.records.example import Encoded, RecordLayout
from xee_tf.records.framing import FOOTER, FRAMING, HEADER, frame_header, mask_crcs
from xee_tf.records.ragged import gather, groups, windows
from xee_tf.records.varint import encode_varint, varint_size
from xee_tf.tables.schema import Column, Rows

__all__ = ["encode_rows"]

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

_BLOCK_BYTES = 1 << 20  # of a matrix filled at a time, so that its checksums find it in the cache


def encode_rows(rows: Rows) -> Encoded:
    """Frame the rows of a table, an Example each, as TensorFlow's TFRecordWriter does.

    Examples
    --------
    >>> from xee_tf.records import decode_example, iter_frames
    >>> from xee_tf.tables.schema import Strings
    >>> rows = Rows((Column("B4"), Column("name", "bytes")), (np.array([0.5]), Strings.of(["oak"])))
    >>> [decode_example(data) for data in iter_frames(encode_rows(rows).buffer.data)]
    [{'B4': array([0.5], dtype=float32), 'name': [b'oak']}]
    """
    count = len(rows)
    if not count:
        return Encoded(np.empty(0, np.uint8), np.zeros(1, np.int64))
    if all(column.kind == "float" for column in rows.columns):
        return _encode_fixed(rows)
    return _encode_varied(rows)


@dataclass(frozen=True)
class _Numbers:
    """Neighbouring columns of numbers: their bytes in a record, and where in them the values go."""

    template: Bytes
    names: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    def fill(self, rows: Rows, target: Bytes) -> None:
        """Write the bytes of these columns into the rows of `target`, shape (rows, bytes)."""
        target[:] = self.template
        for name, (start, stop) in zip(self.names, self.places, strict=True):
            values = rows.numbers(name)
            # Unaligned on purpose: the values go straight to their place.
            place: npt.NDArray[np.float32] = target[:, start:stop].view("<f4")
            with np.errstate(over="ignore"):  # beyond float32's range numbers become infinite
                np.copyto(place, values.reshape(place.shape), casting="unsafe")


@lru_cache(maxsize=64)
def _numbers(columns: tuple[Column, ...], *, framed: bool) -> _Numbers:
    layout = RecordLayout(tuple(column.feature for column in columns))
    template = np.zeros(layout.framed_size, np.uint8)
    for segment in layout.segments:
        template[segment.offset : segment.end] = np.frombuffer(segment.data, np.uint8)
    cut = 0
    if not framed:
        # A record is: length and checksum, tag and size of the map of features, its entries, checksum.
        size = layout.framed_size - FRAMING - 1
        cut = HEADER + 1 + next(w for w in range(1, 11) if varint_size(size - w) == w)
        template = template[cut:-FOOTER]
    places = tuple(
        (segment.end - cut, segment.end - cut + 4 * column.size)
        for segment, column in zip(layout.segments, columns, strict=True)
    )
    return _Numbers(template, tuple(column.name for column in columns), places)


def _encode_fixed(rows: Rows) -> Encoded:
    numbers = _numbers(rows.columns, framed=True)
    size, count = len(numbers.template), len(rows)
    varying = tuple((start - HEADER, stop - HEADER) for start, stop in numbers.places if stop > start)
    buffer = np.empty((count, size), np.uint8)
    step = max(1, _BLOCK_BYTES // size)
    for start in range(0, count, step):
        block = buffer[start : start + step]
        numbers.fill(rows[start : start + step], block)
        crcs = mask_crcs(record_crcs(block[:, HEADER:-FOOTER], varying))
        block[:, -FOOTER:] = crcs.astype("<u4").view(np.uint8).reshape(-1, FOOTER)
    return Encoded(buffer.reshape(-1), np.arange(count + 1, dtype=np.int64) * size)


def _encode_varied(rows: Rows) -> Encoded:
    count = len(rows)
    pieces = [
        tuple(columns)
        for _, columns in groupby(
            rows.columns, key=lambda column: column.name if column.kind == "bytes" else None
        )
    ]
    totals = np.zeros(count, np.int64)  # bytes of the map of features
    for columns in pieces:
        if columns[0].kind == "float":
            totals += len(_numbers(columns, framed=False).template)
        else:
            name = columns[0].name
            for length, chosen in groups(rows.strings(name).lengths):
                totals[chosen] += len(_string_head(name, length)) + length
    prefixes = [(chosen, total, _prefix(total)) for total, chosen in groups(totals)]
    sizes = totals + FOOTER
    for chosen, _, prefix in prefixes:
        sizes[chosen] += len(prefix)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    out = np.empty(int(offsets[-1]), np.uint8)

    cursor = offsets[:-1].copy()
    for chosen, _, prefix in prefixes:
        _put(out, cursor[chosen], np.frombuffer(prefix, np.uint8)[None])
        cursor[chosen] += len(prefix)
    for columns in pieces:
        if columns[0].kind == "float":
            numbers = _numbers(columns, framed=False)
            matrix = np.empty((count, len(numbers.template)), np.uint8)
            numbers.fill(rows, matrix)
            _put(out, cursor, matrix)
            cursor += matrix.shape[1]
        else:
            name = columns[0].name
            strings = rows.strings(name)
            for length, chosen in groups(strings.lengths):
                head = _string_head(name, length)
                _put(out, cursor[chosen], np.frombuffer(head, np.uint8)[None])
                cursor[chosen] += len(head)
                if length:
                    _put(out, cursor[chosen], gather(strings.data, strings.offsets[:-1][chosen], length))
                    cursor[chosen] += length
    # Records of many lengths: a call each is the fastest way (0.2 microseconds) to their checksums.
    view, edges = out.data, offsets.tolist()
    begins = range(count)
    crcs = np.fromiter(
        (crc32c(view[edges[i] + HEADER : edges[i + 1] - FOOTER]) for i in begins), np.uint32, count
    )
    _put(out, cursor, mask_crcs(crcs).astype("<u4").view(np.uint8).reshape(-1, FOOTER))
    return Encoded(out, offsets)


def _put(out: Bytes, places: Places, source: Bytes) -> None:
    """Copy rows of `source` (or its only row) to places of their own."""
    size = source.shape[1]
    if size:
        windows(out, size)[places] = np.ascontiguousarray(source).view(f"V{size}")[:, 0]


@lru_cache(maxsize=4096)
def _string_head(name: str, length: int) -> bytes:
    """The bytes in front of a string of so many bytes: entry, key, feature, list, value."""
    key = name.encode()
    head = b"\x0a" + encode_varint(length)
    for tag in (0x0A, 0x12):
        head = bytes((tag,)) + encode_varint(len(head) + length) + head
    head = b"\x0a" + encode_varint(len(key)) + key + head
    return b"\x0a" + encode_varint(len(head) + length) + head


def _prefix(total: int) -> bytes:
    """The bytes in front of the entries of a map of features that has `total` bytes."""
    head = b"\x0a" + encode_varint(total)
    return frame_header(len(head) + total) + head
