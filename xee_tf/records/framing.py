"""TFRecord framing: length, masked CRC of the length, data, masked CRC of the data.

The layout is TensorFlow's: a little-endian uint64 length, its CRC, the bytes, and their CRC, each
CRC being CRC-32C rotated right by 15 bits plus a constant.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from xee_tf.errors import RecordError
from xee_tf.records.crc import crcs_between, record_crcs
from xee_tf.records.ragged import gather

__all__ = [
    "FOOTER",
    "FRAMING",
    "HEADER",
    "check_data",
    "check_frames",
    "corrupt",
    "count_right",
    "footers",
    "frame",
    "frame_header",
    "frame_offsets",
    "iter_frames",
    "mask_crc",
    "mask_crcs",
    "read_length",
    "run_crc",
]

HEADER = 12
"""Bytes in front of a record's data."""

FOOTER = 4
"""Bytes behind a record's data."""

FRAMING = HEADER + FOOTER
"""Bytes that framing adds to a record."""

_DELTA = 0xA282EAD8


def mask_crc(crc: int) -> int:
    """TensorFlow's mask of a CRC-32C.

    Examples
    --------
    >>> hex(mask_crc(0))
    '0xa282ead8'
    """
    return ((crc >> 15 | crc << 17) + _DELTA) & 0xFFFFFFFF


def frame_header(length: int) -> bytes:
    """The twelve bytes in front of `length` bytes of data.

    Examples
    --------
    >>> len(frame_header(5))
    12
    """
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", mask_crc(crc32c(packed)))


def frame(data: bytes | bytearray | memoryview) -> bytes:
    """One record's data with its framing.

    Examples
    --------
    >>> frame(b"").hex()
    '000000000000000029039807d8ea82a2'
    """
    return b"".join((frame_header(len(data)), data, struct.pack("<I", mask_crc(crc32c(data)))))


def read_length(buffer: memoryview, position: int, record: int, source: str) -> int:
    """The data length that the frame at `position` announces, its CRC checked."""
    if len(buffer) - position < HEADER:
        raise RecordError(
            f"{source}: record {record} is truncated: {len(buffer) - position} bytes of a header of {HEADER}."
        )
    length, crc = struct.unpack_from("<QI", buffer, position)
    if mask_crc(crc32c(buffer[position : position + 8])) != crc:
        raise RecordError(
            f"{source}: record {record} is corrupt: the checksum of its length does not match. "
            "The file is damaged, or it is no TFRecord file."
        )
    return int(length)


def mask_crcs(crcs: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """`mask_crc` of many.

    Examples
    --------
    >>> [hex(crc) for crc in mask_crcs(np.zeros(1, np.uint32))]
    ['0xa282ead8']
    """
    rotated = crcs >> np.uint32(15) | crcs << np.uint32(17)
    return rotated + np.uint32(_DELTA)  # arrays wrap around, as they should here


def check_data(
    buffer: memoryview, position: int, length: int, record: int, source: str, *, verify: bool = True
) -> memoryview:
    """The data of the frame at `position`, their CRC checked unless `verify` is False."""
    begin = position + HEADER
    end = begin + length
    if len(buffer) < end + FOOTER:
        raise RecordError(
            f"{source}: record {record} is truncated: it needs {length + FRAMING} bytes, "
            f"{len(buffer) - position} are there."
        )
    data = buffer[begin:end]
    if verify and mask_crc(crc32c(data)) != int.from_bytes(buffer[end : end + FOOTER], "little"):
        raise corrupt(record, source)
    return data


def corrupt(record: int, source: str) -> RecordError:
    """The error for a record whose data have another CRC than its frame holds."""
    return RecordError(f"{source}: record {record} is corrupt: the checksum of its data does not match.")


def run_crc(footers: npt.NDArray[np.uint8], crc: int = 0) -> int:
    """What stands for the content of a run of records: the CRC-32C over their `footers`.

    It costs next to nothing, and does not depend on compression. `crc` is that of the records in front.

    Examples
    --------
    >>> ends = footers(frame(b"one") + frame(b"two"), np.array([19, 38]))
    >>> run_crc(ends) == run_crc(ends[1:], run_crc(ends[:1]))
    True
    """
    return int(crc32c(footers.data, crc))


def footers(
    buffer: bytes | memoryview | npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """The footers of records, by where their frames end; shape (records, 4)."""
    data: npt.NDArray[np.uint8] = np.frombuffer(buffer, np.uint8)
    count, size = len(ends), int(ends[0]) if len(ends) else 0
    if count and size * count == ends[-1] and (np.diff(ends) == size).all():  # five times as fast
        return np.ascontiguousarray(data[: size * count].reshape(count, size)[:, -FOOTER:])
    found: npt.NDArray[np.uint8] = data[ends[:, None] + np.arange(-FOOTER, 0)]
    return found


def iter_frames(
    buffer: bytes | memoryview, *, source: str = "TFRecord", first: int = 0
) -> Iterator[memoryview]:
    """The data of each record of a buffer that holds whole frames, both CRCs checked.

    `source` is the name of the file, `first` the number of the first record in it, for errors.

    Examples
    --------
    >>> [bytes(data) for data in iter_frames(frame(b"one") + frame(b"two"))]
    [b'one', b'two']
    """
    view = memoryview(buffer).cast("B")
    position, record = 0, first
    while position < len(view):
        length = read_length(view, position, record, source)
        yield check_data(view, position, length, record, source)
        position += length + FRAMING
        record += 1


def frame_offsets(
    buffer: bytes | memoryview, *, source: str = "TFRecord", first: int = 0
) -> npt.NDArray[np.int64]:
    """Where each frame of a buffer of whole frames starts, and where the last one ends; see `iter_frames`.

    Only headers are looked at; for the data see `check_frames`.

    Examples
    --------
    >>> frame_offsets(frame(b"one") + frame(b"two")).tolist()
    [0, 19, 38]
    """
    view = memoryview(buffer).cast("B")
    raw = np.frombuffer(view, np.uint8)
    size = int.from_bytes(view[:8], "little") + FRAMING
    if len(view) >= FRAMING and len(view) % size == 0:
        heads = raw.reshape(-1, size)[:, :HEADER]
        if len(heads) == 1 or (heads == heads[0]).all():
            read_length(view, 0, first, source)
            return np.arange(0, len(view) + 1, size, dtype=np.int64)
    # Where a frame starts is known only when the one before has been looked at: all that can be done is
    # to do nothing else in this loop.
    starts, position, end, read = [], 0, len(view) - FRAMING, struct.Struct("<Q").unpack_from
    while position <= end:
        starts.append(position)
        position += read(view, position)[0] + FRAMING
    if position == len(view):
        offsets = np.array([*starts, position], np.int64)
        if _lengths_are_right(gather(raw, offsets[:-1], HEADER)):
            return offsets
    position, record = 0, first  # one by one, to the record that is wrong
    while True:
        length = read_length(view, position, record, source)
        check_data(view, position, length, record, source, verify=False)
        position, record = position + length + FRAMING, record + 1


def _lengths_are_right(heads: npt.NDArray[np.uint8]) -> bool:
    """Whether the CRCs in the headers of frames, shape (n, 12), are those of the lengths."""
    stored = np.ascontiguousarray(heads[:, 8:]).view("<u4")[:, 0]
    return bool((mask_crcs(record_crcs(heads[:, :8])) == stored).all())


def check_frames(
    buffer: bytes | memoryview,
    offsets: npt.NDArray[np.int64],
    varying: Sequence[tuple[int, int]] | None = None,
    *,
    source: str = "TFRecord",
    first: int = 0,
) -> None:
    """Check the CRCs of the data of all records; see `iter_frames`.

    `varying` is where records of one length differ from one another, as for `xee_tf.records.crc.record_crcs`.
    """
    raw = np.frombuffer(buffer, np.uint8)
    count = len(offsets) - 1
    if count and (np.diff(offsets) == offsets[1]).all():
        right = count_right(raw.reshape(count, -1), varying)
    else:
        ends = offsets[1:] - FOOTER
        crcs = mask_crcs(crcs_between(raw, offsets[:-1] + HEADER, ends))
        wrong = np.flatnonzero(crcs != gather(raw, ends, FOOTER).view("<u4")[:, 0])
        right = int(wrong[0]) if wrong.size else count
    if right < count:
        raise corrupt(first + right, source)


def count_right(block: npt.NDArray[np.uint8], varying: Sequence[tuple[int, int]] | None = None) -> int:
    """How many records, the rows of a matrix, come before the first one whose data have another CRC."""
    size = block.shape[1]
    crcs = mask_crcs(record_crcs(block[:, HEADER : size - FOOTER], varying))
    wrong = np.flatnonzero(crcs != np.ascontiguousarray(block[:, size - FOOTER :]).view("<u4")[:, 0])
    return int(wrong[0]) if wrong.size else len(block)
