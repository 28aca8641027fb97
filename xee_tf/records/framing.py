"""TFRecord framing: length, masked CRC of the length, data, masked CRC of the data.

The layout is TensorFlow's: a little-endian uint64 length, its CRC, the bytes, and their CRC, each
CRC being CRC-32C rotated right by 15 bits plus a constant.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from xee_tf.errors import RecordError

__all__ = [
    "FOOTER",
    "FRAMING",
    "HEADER",
    "check_data",
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
    """The data length that the frame at `position` announces, its CRC checked.

    Parameters
    ----------
    buffer : memoryview of bytes
        Bytes of a shard.
    position : int
        Where the frame starts.
    record : int
        Number of the record in its shard, for the error.
    source : str
        Name of the shard, for the error.

    Raises
    ------
    RecordError
        If the header is cut off, or its CRC does not match.
    """
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
    """The data of the frame at `position`, its CRC checked unless `verify` is False.

    Raises
    ------
    RecordError
        If the data are cut off, or their CRC does not match.
    """
    begin = position + HEADER
    end = begin + length
    if len(buffer) < end + FOOTER:
        raise RecordError(
            f"{source}: record {record} is truncated: it needs {length + FRAMING} bytes, "
            f"{len(buffer) - position} are there."
        )
    data = buffer[begin:end]
    if verify and mask_crc(crc32c(data)) != int.from_bytes(buffer[end : end + FOOTER], "little"):
        raise RecordError(f"{source}: record {record} is corrupt: the checksum of its data does not match.")
    return data


def run_crc(footers: npt.NDArray[np.uint8], crc: int = 0) -> int:
    """What stands for the content of a run of records: the CRC-32C over their footers.

    It costs next to nothing, and does not depend on compression.

    Parameters
    ----------
    footers : ndarray of uint8, shape (records, 4)
        As `footers` gives them.
    crc : int
        That of the records in front of them.

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
    """The data of each record of a buffer that holds whole frames.

    Parameters
    ----------
    buffer : bytes-like
        Frames, one after the other.
    source : str, optional
        Name of the file, for errors.
    first : int, optional
        Number of the first record, for errors.

    Raises
    ------
    RecordError
        If a frame is cut off or a CRC does not match.

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


def frame_offsets(buffer: memoryview, *, source: str, first: int = 0) -> npt.NDArray[np.int64]:
    """Where each frame of a buffer of whole frames starts, and where the last one ends.

    Only headers are looked at; data are checked by who reads them.

    Raises
    ------
    RecordError
        If a header's CRC does not match or the last frame is cut off.
    """
    offsets = [0]
    while offsets[-1] < len(buffer):
        record = first + len(offsets) - 1
        length = read_length(buffer, offsets[-1], record, source)
        end = offsets[-1] + length + FRAMING
        if end > len(buffer):
            raise RecordError(
                f"{source}: record {record} is truncated: it needs {length + FRAMING} bytes, "
                f"{len(buffer) - offsets[-1]} are there."
            )
        offsets.append(end)
    return np.array(offsets, np.int64)
