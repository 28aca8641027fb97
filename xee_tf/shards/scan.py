"""Going through a file from record to record, where no index says where they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records import (
    FRAMING,
    HEADER,
    corrupt_record,
    count_valid,
    read_length,
    truncated_record,
)
from xee_tf.shards.access import Shard
from xee_tf.shards.inflate import GZIP, SEGMENT, inflate_file, inflate_stream
from xee_tf.storage import Location

__all__ = ["inflated", "read_pieces", "record_offsets", "scan_records", "whole_frames"]

_LONGEST = (1 << 31) - 1  # bytes of a record that TensorFlow can parse


def read_pieces(location: Location, step: int) -> Iterator[bytes]:
    """The bytes of a file, `step` at a time."""
    with location.open() as file:
        while data := file.read(step):
            yield data


def inflated(pieces: Iterator[bytes], source: str, step: int) -> Iterator[bytes]:
    """The bytes of the records in pieces of a file: inflated, if it is a gzip file."""
    first = next(pieces, b"")
    pieces = chain([first], pieces)
    return inflate_stream(pieces, source, step) if first.startswith(GZIP) else pieces


def scan_records(pieces: Iterator[bytes], source: str) -> Iterator[npt.NDArray[np.uint8]]:
    """The framed records in pieces of a file that is not compressed, or `inflated`; checksums are checked.

    Each array has the frames of records of one size that follow one another, one a row. An error names the
    first record that is corrupt or truncated, behind all records in front of it.

    Examples
    --------
    >>> from xee_tf.records import Feature, RecordLayout, encode_records
    >>> layout = RecordLayout((Feature.of("B4", "f4", 1),))
    >>> data = encode_records(layout, [np.zeros(3, "f4")]).buffer.tobytes()
    >>> [rows.shape for rows in scan_records(iter([data[:40], data[40:]]), "s")]
    [(1, 34), (2, 34)]
    """
    waiting: list[bytes] = []
    held, needed, record = 0, HEADER, 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held < needed:
            continue
        buffer = memoryview(b"".join(waiting) if len(waiting) > 1 else piece)
        position, needed = 0, HEADER
        while len(buffer) - position >= HEADER:
            length = read_length(buffer, position, record, source)
            if length > _LONGEST:
                raise RecordError(
                    f"{source}: record {record} announces {length} bytes: TensorFlow reads fewer."
                )
            size = length + FRAMING
            if len(buffer) - position < size:
                needed = size
                break
            rows = _alike(buffer, position, size)
            right = count_valid(rows)
            if right:
                yield rows[:right]
            if right < len(rows):
                raise corrupt_record(record + right, source)
            record += len(rows)
            position += len(rows) * size
        waiting = [bytes(buffer[position:])]
        held = len(waiting[0])
    if held:
        raise truncated_record(record, source, needed, held)


def _alike(buffer: memoryview, position: int, size: int) -> npt.NDArray[np.uint8]:
    """The whole frames from a position on that have the same header as the first one, one a row."""
    count = (len(buffer) - position) // size
    if buffer[position + size : position + size + HEADER] != buffer[position : position + HEADER]:
        count = 1  # the usual case where records vary
    data: npt.NDArray[np.uint8] = np.frombuffer(buffer, np.uint8, count * size, position)
    rows = data.reshape(count, size)
    differs = np.flatnonzero((rows[:, :HEADER] != rows[0, :HEADER]).any(axis=1))
    return rows[: int(differs[0])] if differs.size else rows


def whole_frames(view: memoryview, first: int, source: str, most: int | None) -> tuple[int, int] | None:
    """How many whole frames a buffer has, at most some, and where they end; None if it has none."""
    end = count = 0
    while len(view) - end >= HEADER and count != most:
        after = end + read_length(view, end, first + count, source) + FRAMING
        if after > len(view):
            break
        end, count = after, count + 1
    return (count, end) if count else None


def record_offsets(shard: Shard) -> Iterator[int]:
    """Where each record of a shard without our index starts, before compression, and where the last one ends.

    Only headers are looked at; of a file that is not compressed, nothing else is read.
    """
    return _hop_file(shard) if shard.access == "plain" else _hop_stream(shard)


def _hop_file(shard: Shard) -> Iterator[int]:
    begin = record = length = 0
    yield 0
    with shard.location.open("rb") as file:
        while begin < shard.size:
            file.seek(begin)
            length = read_length(memoryview(file.read(HEADER)), 0, record, str(shard))
            begin += length + FRAMING
            yield begin
            record += 1
    if begin > shard.size:
        raise _cut_off(shard, record - 1, length, begin - shard.size)


def _hop_stream(shard: Shard) -> Iterator[int]:
    begin = record = length = 0  # where the next record starts
    seen = 0  # how much of the stream has gone by
    buffer = b""  # what is left of a header that lies on the edge of two pieces
    yield 0
    for piece in inflate_file(shard.location, shard.size, SEGMENT):
        buffer += piece
        seen += len(piece)
        base = seen - len(buffer)
        while begin + HEADER <= seen:
            length = read_length(memoryview(buffer)[begin - base :], 0, record, str(shard))
            begin += length + FRAMING
            yield begin
            record += 1
        buffer = buffer[max(0, begin - base) :]
    if begin > seen:
        raise _cut_off(shard, record - 1, length, begin - seen)
    if begin < seen:
        read_length(memoryview(buffer), 0, record, str(shard))  # raises: the header is cut off


def _cut_off(shard: Shard, record: int, length: int, missing: int) -> RecordError:
    needed = length + FRAMING
    return truncated_record(record, str(shard), needed, needed - missing)
