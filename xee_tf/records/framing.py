"""TFRecord framing: length, masked CRC of the length, data, masked CRC of the data.

This is the format of TensorFlow: the length as a little-endian uint64, its CRC, the data, and the CRC of the
data. Each CRC is a CRC-32C, masked: rotated right by 15 bits, plus a constant.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from xee_tf.errors import RecordError
from xee_tf.records.crc import combine_crcs, range_crcs, row_crcs
from xee_tf.records.ragged import gather

__all__ = [
    "FOOTER",
    "FRAMING",
    "HEADER",
    "check_frames",
    "corrupt_record",
    "count_valid",
    "frame_footers",
    "frame_header",
    "frame_offsets",
    "frames_crc",
    "iter_frames",
    "mask_crcs",
    "read_length",
    "run_crc",
    "truncated_record",
]

HEADER = 12
"""Bytes before the data of a record."""

FOOTER = 4
"""Bytes after the data of a record."""

FRAMING = HEADER + FOOTER
"""Bytes that framing adds to a record."""

_DELTA = 0xA282EAD8
_LONG = 1 << 18  # mean length in bytes from which combining checksums is faster than computing them


def _mask_crc(crc: int) -> int:
    """Mask a CRC-32C as TensorFlow does.

    Examples
    --------
    >>> hex(_mask_crc(0))
    '0xa282ead8'
    """
    return ((crc >> 15 | crc << 17) + _DELTA) & 0xFFFFFFFF


def frame_header(length: int) -> bytes:
    """Encode the header of a frame with `length` bytes of data.

    Examples
    --------
    >>> len(frame_header(5))
    12
    """
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", _mask_crc(crc32c(packed)))


def read_length(buffer: memoryview, position: int, record: int, source: str) -> int:
    """Return the length of the data of the frame at `position`; check the CRC of the length."""
    if len(buffer) - position < HEADER:
        raise RecordError(
            f"{source}: record {record} is truncated: expected a header of {HEADER} bytes; got "
            f"{len(buffer) - position}. The file is incomplete, or is not a TFRecord file."
        )
    length, crc = struct.unpack_from("<QI", buffer, position)
    if _mask_crc(crc32c(buffer[position : position + 8])) != crc:
        raise RecordError(
            f"{source}: record {record} is corrupt: the checksum of its length does not match. "
            "The file is damaged, or is not a TFRecord file."
        )
    return int(length)


def mask_crcs(crcs: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Mask an array of CRC-32Cs as TensorFlow does.

    Examples
    --------
    >>> [hex(crc) for crc in mask_crcs(np.zeros(1, np.uint32))]
    ['0xa282ead8']
    """
    rotated = crcs >> np.uint32(15) | crcs << np.uint32(17)
    return rotated + np.uint32(_DELTA)  # arrays wrap around, as intended


def _read_data(
    buffer: memoryview, position: int, length: int, record: int, source: str, *, verify: bool = True
) -> memoryview:
    """Return the data of the frame at `position`; check the CRC of the data unless `verify` is False."""
    begin = position + HEADER
    end = begin + length
    if len(buffer) < end + FOOTER:
        raise truncated_record(record, source, length + FRAMING, len(buffer) - position)
    data = buffer[begin:end]
    if verify and _mask_crc(crc32c(data)) != int.from_bytes(buffer[end : end + FOOTER], "little"):
        raise corrupt_record(record, source)
    return data


def truncated_record(record: int, source: str, expected: int, found: int) -> RecordError:
    """Return the error for a record whose frame has `found` instead of `expected` bytes."""
    return RecordError(f"{source}: record {record} is truncated: expected {expected} bytes; got {found}.")


def corrupt_record(record: int, source: str) -> RecordError:
    """Return the error for a record whose data do not match the CRC in its frame."""
    return RecordError(f"{source}: record {record} is corrupt: the checksum of its data does not match.")


def run_crc(footers: npt.NDArray[np.uint8], crc: int = 0) -> int:
    """Return a checksum of the content of consecutive records: the CRC-32C of their footers.

    It is cheap to compute and does not depend on compression. To continue a run, pass the checksum of the
    preceding records as `crc`.

    Examples
    --------
    >>> footers = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8)
    >>> run_crc(footers) == run_crc(footers[1:], run_crc(footers[:1]))
    True
    """
    return int(crc32c(footers.data, crc))


def frames_crc(
    frames: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], footers: npt.NDArray[np.uint8]
) -> int:
    """Return the CRC-32C of consecutive frames, from the checksums in their footers if they are long.

    Parameters
    ----------
    frames : ndarray of uint8, shape (bytes,)
        Valid frames.
    offsets : ndarray of int64, shape (records + 1,)
        The offset of each frame, and of the end of the last one.
    footers : ndarray of uint8, shape (records, 4)
        See `frame_footers`.

    Examples
    --------
    >>> frames = np.frombuffer(bytes.fromhex("000000000000000029039807d8ea82a2") * 2, np.uint8)
    >>> offsets = np.array([0, 16, 32])
    >>> frames_crc(frames, offsets, frame_footers(frames, offsets[1:])) == crc32c(frames)
    True
    """
    if len(frames) < len(footers) * _LONG:
        return int(crc32c(frames.data))
    rotated = np.ascontiguousarray(footers).view("<u4")[:, 0] - np.uint32(_DELTA)
    crcs = rotated >> np.uint32(17) | rotated << np.uint32(15)  # of the data, not masked
    crc = 0
    for (begin, end), data_crc in zip(pairwise(offsets.tolist()), crcs.tolist(), strict=True):
        crc = crc32c(frames[begin : begin + HEADER].data, crc)
        crc = combine_crcs(crc, data_crc, end - begin - FRAMING)
        crc = crc32c(frames[end - FOOTER : end].data, crc)
    return crc


def frame_footers(
    buffer: bytes | memoryview | npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Return the footers of the frames that end at the offsets `ends`; shape (records, 4)."""
    data: npt.NDArray[np.uint8] = np.frombuffer(buffer, np.uint8)
    count, size = len(ends), int(ends[0]) if len(ends) else 0
    if count and size * count == ends[-1] and (np.diff(ends) == size).all():  # five times as fast
        return np.ascontiguousarray(data[: size * count].reshape(count, size)[:, -FOOTER:])
    found: npt.NDArray[np.uint8] = data[ends[:, None] + np.arange(-FOOTER, 0)]
    return found


def iter_frames(
    buffer: bytes | memoryview, *, source: str = "TFRecord", first: int = 0
) -> Iterator[memoryview]:
    """Yield the data of each record of a buffer of complete frames; both CRCs are checked.

    `source` (the name of the file) and `first` (the index of the first record in the file) are used in error
    messages.

    Examples
    --------
    >>> frame = bytes.fromhex("000000000000000029039807d8ea82a2")  # without data
    >>> [bytes(data) for data in iter_frames(frame + frame)]
    [b'', b'']
    """
    view = memoryview(buffer).cast("B")
    position, record = 0, first
    while position < len(view):
        length = read_length(view, position, record, source)
        yield _read_data(view, position, length, record, source)
        position += length + FRAMING
        record += 1


def frame_offsets(
    buffer: bytes | memoryview, *, source: str = "TFRecord", first: int = 0
) -> npt.NDArray[np.int64]:
    """Return the offset of each frame of a buffer of complete frames, and of the end of the last one.

    Only headers are checked; to check the data, call `check_frames`. For the parameters see `iter_frames`.

    Examples
    --------
    >>> frame = bytes.fromhex("000000000000000029039807d8ea82a2")  # without data
    >>> frame_offsets(frame + frame).tolist()
    [0, 16, 32]
    """
    view = memoryview(buffer).cast("B")
    raw = np.frombuffer(view, np.uint8)
    size = int.from_bytes(view[:8], "little") + FRAMING
    if len(view) >= FRAMING and len(view) % size == 0:
        headers = raw.reshape(-1, size)[:, :HEADER]
        if len(headers) == 1 or (headers == headers[0]).all():
            read_length(view, 0, first, source)
            return np.arange(0, len(view) + 1, size, dtype=np.int64)
    # The offset of a frame depends on the length of the previous frame, which requires a loop; it does
    # nothing else.
    starts, position, end, read = [], 0, len(view) - FRAMING, struct.Struct("<Q").unpack_from
    while position <= end:
        starts.append(position)
        position += read(view, position)[0] + FRAMING
    if position == len(view):
        offsets = np.array([*starts, position], np.int64)
        if _lengths_valid(gather(raw, offsets[:-1], HEADER)):
            return offsets
    position, record = 0, first  # one by one, up to the invalid record
    while True:
        length = read_length(view, position, record, source)
        _read_data(view, position, length, record, source, verify=False)
        position, record = position + length + FRAMING, record + 1


def _lengths_valid(headers: npt.NDArray[np.uint8]) -> bool:
    """Return whether the lengths in the headers of frames, shape (n, 12), match their CRCs."""
    stored = np.ascontiguousarray(headers[:, 8:]).view("<u4")[:, 0]
    return bool((mask_crcs(row_crcs(headers[:, :8])) == stored).all())


def check_frames(
    buffer: bytes | memoryview,
    offsets: npt.NDArray[np.int64],
    varying: Sequence[tuple[int, int]] | None = None,
    *,
    source: str = "TFRecord",
    first: int = 0,
) -> None:
    """Check the CRCs of the data of all records; for `source` and `first` see `iter_frames`.

    `varying` gives the ranges in which records of equal length differ; see `xee_tf.records.crc.row_crcs`.
    """
    raw = np.frombuffer(buffer, np.uint8)
    count = len(offsets) - 1
    if count and (np.diff(offsets) == offsets[1]).all():
        valid = count_valid(raw.reshape(count, -1), varying)
    else:
        ends = offsets[1:] - FOOTER
        crcs = mask_crcs(range_crcs(raw, offsets[:-1] + HEADER, ends))
        invalid = np.flatnonzero(crcs != gather(raw, ends, FOOTER).view("<u4")[:, 0])
        valid = int(invalid[0]) if invalid.size else count
    if valid < count:
        raise corrupt_record(first + valid, source)


def count_valid(frames: npt.NDArray[np.uint8], varying: Sequence[tuple[int, int]] | None = None) -> int:
    """Return the number of records before the first one whose data do not match their CRC.

    The frames are the rows of a matrix; for `varying` see `check_frames`.
    """
    size = frames.shape[1]
    crcs = mask_crcs(row_crcs(frames[:, HEADER : size - FOOTER], varying))
    invalid = np.flatnonzero(crcs != np.ascontiguousarray(frames[:, size - FOOTER :]).view("<u4")[:, 0])
    return int(invalid[0]) if invalid.size else len(frames)
