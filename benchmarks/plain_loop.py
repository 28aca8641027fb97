"""Write the patches of an export in a plain loop, without xee_tf and without Dask.

The records and their order are those of an export, and each is one gzip member, as in an export of large
records. Compressed files differ in the index in the first gzip header and in the beginnings of members.
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from crc32c import crc32c
from isal import igzip_lib
from numpy.typing import NDArray

__all__ = ["write_plain"]


def write_plain(
    bands: dict[str, NDArray[np.float32]],
    path: Path,
    patch: int,
    *,
    compressed: bool,
    sync: bool,
    threads: int = 2,
) -> list[int]:
    """Cut, encode, checksum and write all patches in row-major order; return a CRC-32C for each row.

    Each record is compressed as one gzip member, as in an export whose records exceed 64 KiB.
    """
    height, width = next(iter(bands.values())).shape
    rows = height // patch
    record = Record(list(bands), patch)
    buffers = threading.local()
    checksums = [0] * rows
    turn, end = threading.Condition(), [0, 0]  # the row whose place is found next, and the place
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

    def patches(row: int) -> Iterator[memoryview]:
        """Encode the patches of a row, one after the other in the same memory."""
        if not hasattr(buffers, "record"):
            buffers.record = record.new()
        planes = [band[row * patch : (row + 1) * patch] for band in bands.values()]
        for left in range(0, width // patch * patch, patch):
            yield record.fill(buffers.record, [plane[:, left : left + patch] for plane in planes])

    def write_row(row: int) -> None:
        offset = row * (width // patch) * record.size
        for data in patches(row):
            checksums[row] = crc32c(data, checksums[row])
            offset += os.pwrite(file, data, offset)

    def compress_row(row: int) -> None:
        members = [igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP) for data in patches(row)]
        for data in members:
            checksums[row] = crc32c(data, checksums[row])
        with turn:
            turn.wait_for(lambda: end[0] == row)
            offset = end[1]
            end[:] = row + 1, offset + sum(map(len, members))
            turn.notify_all()
        for data in members:
            offset += os.pwrite(file, data, offset)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(compress_row if compressed else write_row, range(rows)):
            pass
    if sync:
        os.fsync(file)
    os.close(file)
    return checksums


class Record:
    """A TFRecord with an Example that has a list of floats for each band, in the order of the bands."""

    def __init__(self, names: Sequence[str], patch: int) -> None:
        self.patch, values = patch, 4 * patch * patch
        self.data, self.starts = bytearray(), []
        entries = []
        for name in names:
            floats = tag(1, values)
            feature = tag(2, len(floats) + values) + floats
            key = tag(1, len(name)) + name.encode()
            entry = key + tag(2, len(feature) + values) + feature
            entries.append(tag(1, len(entry) + values) + entry)
        total = sum(len(entry) + values for entry in entries)
        front = tag(1, total)
        length = struct.pack("<Q", len(front) + total)
        self.data += length + struct.pack("<I", mask(crc32c(length))) + front
        for entry in entries:
            self.data += entry
            self.starts.append(len(self.data))
            self.data += bytes(values)
        self.data += bytes(4)
        self.size = len(self.data)

    def new(self) -> NDArray[np.uint8]:
        """Return memory for a record that has all bytes but the values and their checksum."""
        return np.frombuffer(self.data, np.uint8).copy()

    def fill(self, buffer: NDArray[np.uint8], planes: Sequence[NDArray[np.float32]]) -> memoryview:
        """Copy values into a record and add the checksum."""
        for start, plane in zip(self.starts, planes, strict=True):
            np.ndarray((self.patch, self.patch), "<f4", buffer, start)[:] = plane
        data = buffer.data
        struct.pack_into("<I", data, self.size - 4, mask(crc32c(data[12:-4])))
        return data


def tag(number: int, length: int) -> bytes:
    """Return the tag and the length of a field of a message."""
    digits = [length >> shift & 0x7F for shift in itertools.takewhile(lambda s: length >> s, range(0, 63, 7))]
    return bytes([number << 3 | 2, *(digit | 0x80 for digit in digits[:-1]), digits[-1]])


def mask(crc: int) -> int:
    """Mask a CRC-32C as TFRecord files do."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
