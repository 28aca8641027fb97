"""Scan a file record by record, if there is no index of the records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from xee_tf.shards.inflate import GZIP, SEGMENT, inflate_file, inflate_stream
from xee_tf.shards.limits import check_inflated, inflation_limit
from xee_tf.shards.shard import Shard
from xee_tf.storage import Location

__all__ = ["inflated", "read_pieces", "record_offsets", "scan_file", "scan_records", "whole_frames"]

_FIRST_STEP = 64  # records whose sizes are compared first
_LONGEST = (1 << 31) - 1  # bytes of a record that TensorFlow can parse


def read_pieces(location: Location, step: int) -> Iterator[bytes]:
    """Yield the bytes of a file, `step` at a time."""
    with location.open() as file:
        while data := file.read(step):
            yield data


def inflated(pieces: Iterator[bytes], source: str, step: int) -> Iterator[bytes]:
    """Yield the content of a file from its pieces, decompressed if it is a gzip file."""
    first = next(pieces, b"")
    pieces = chain([first], pieces)
    return inflate_stream(pieces, source, step) if first.startswith(GZIP) else pieces


def scan_file(
    pieces: Iterator[bytes], source: str, step: int, file_size: Callable[[], int]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the framed records of a file from its pieces, as `scan_records`; gzip files are decompressed."""
    first = next(pieces, b"")
    content = inflated(chain([first], pieces), source, step)
    return scan_records(content, source, file_size if first.startswith(GZIP) else None)


def scan_records(
    pieces: Iterator[bytes], source: str, file_size: Callable[[], int] | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the framed records of a file, after checking their checksums.

    Parameters
    ----------
    pieces : iterator of bytes
        The content of the file, decompressed (see `inflated`).
    source : str
        Name of the file, for error messages.
    file_size : callable, optional
        Returns the size of a compressed file in bytes, which limits the size of its records.

    Yields
    ------
    ndarray of uint8
        Consecutive records of the same size, one in each row.

    Raises
    ------
    RecordError
        If a record is corrupt or truncated; all records before it are yielded first.

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
                    f"{source}: record {record} has a length of {length} bytes, but TensorFlow supports at "
                    f"most {_LONGEST}."
                )
            size = length + FRAMING
            if file_size is not None and size > inflation_limit(0):
                check_inflated(f"{source}: record {record}", size, file_size())
            if len(buffer) - position < size:
                needed = size
                break
            rows = _same_size(buffer, position, size)
            valid = count_valid(rows)
            if valid:
                yield rows[:valid]
            if valid < len(rows):
                raise corrupt_record(record + valid, source)
            record += len(rows)
            position += len(rows) * size
        waiting = [bytes(buffer[position:])]
        held = len(waiting[0])
    if held:
        raise truncated_record(record, source, needed, held)


def _same_size(buffer: memoryview, position: int, size: int) -> npt.NDArray[np.uint8]:
    """Return the consecutive whole frames with the same header, starting at a position, one in each row."""
    count = (len(buffer) - position) // size
    if buffer[position + size : position + size + HEADER] != buffer[position : position + HEADER]:
        count = 1  # the usual case if the size of records varies
    data: npt.NDArray[np.uint8] = np.frombuffer(buffer, np.uint8, count * size, position)
    rows = data.reshape(count, size)
    same, step = 1, _FIRST_STEP
    while same < count:  # in growing steps, so that the time depends on the rows that are returned
        differs = np.flatnonzero((rows[same : same + step, :HEADER] != rows[0, :HEADER]).any(axis=1))
        if differs.size:
            return rows[: same + int(differs[0])]
        same, step = same + step, 2 * step
    return rows


def whole_frames(view: memoryview, first: int, source: str, most: int | None) -> tuple[int, int] | None:
    """Return the number of whole frames in a buffer, up to `most`, and their end; None if there are none."""
    end = count = 0
    while len(view) - end >= HEADER and count != most:
        after = end + read_length(view, end, first + count, source) + FRAMING
        if after > len(view):
            break
        end, count = after, count + 1
    return (count, end) if count else None


def record_offsets(shard: Shard) -> Iterator[int]:
    """Yield the first byte of each record before compression, and the end, for a shard without an index.

    Only headers are decoded; only these are read from an uncompressed file.
    """
    return _scan_file(shard) if shard.access == "plain" else _scan_stream(shard)


def _scan_file(shard: Shard) -> Iterator[int]:
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
        size = length + FRAMING
        raise truncated_record(record - 1, str(shard), size, size - (begin - shard.size))


def _scan_stream(shard: Shard) -> Iterator[int]:
    begin = record = length = 0  # begin: the first byte of the next record
    seen = 0  # bytes of the stream so far
    buffer = b""  # the rest of a piece, which may end within a header
    yield 0
    for piece in inflate_file(shard.location, shard.size, SEGMENT):
        buffer += piece
        seen += len(piece)
        base = seen - len(buffer)
        while begin + HEADER <= seen:
            length = read_length(memoryview(buffer)[begin - base :], 0, record, str(shard))
            check_inflated(f"{shard}: record {record}", length, shard.size)
            begin += length + FRAMING
            yield begin
            record += 1
        buffer = buffer[max(0, begin - base) :]
    if begin > seen:
        size = length + FRAMING
        raise truncated_record(record - 1, str(shard), size, size - (begin - seen))
    if begin < seen:
        read_length(memoryview(buffer), 0, record, str(shard))  # raises, because the header is truncated
