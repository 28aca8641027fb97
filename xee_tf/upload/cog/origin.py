"""What a GeoTIFF was written from: a note behind its last tile, where readers of GeoTIFFs do not look.

Programs that change a GeoTIFF write new directories and tiles to its end, and those that convert it write
another file, without the note. The note also has the size of what is before it and a checksum of the header,
which contains the place and size of each tile, so that it is not taken for that of another file.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xee_tf.storage import Location

__all__ = ["Origin", "origin_note", "read_origin"]

_MAGIC = b"xee_tf origin 1\n"
_END = struct.Struct("<QQIQI16s")  # bytes before the note; length and CRC-32 of header and note; magic
_TAIL = 1 << 16  # bytes that are read first


@dataclass(frozen=True)
class Origin:
    """What a file tells.

    Parameters
    ----------
    identity : mapping
        What it was written from, in JSON's types.
    side_files : sequence of str
        The names of the side files that were written with it.
    """

    identity: Mapping[str, Any]
    side_files: Sequence[str]


def origin_note(identity: Mapping[str, Any], side_files: Sequence[str], header: bytes, size: int) -> bytes:
    """Return the note to append to a file.

    Parameters
    ----------
    identity, side_files
        See `Origin`.
    header : bytes
        The bytes before the first tile.
    size : int
        The size of the file without the note.
    """
    origin = {"identity": dict(identity), "side_files": list(side_files)}
    text = json.dumps(origin, sort_keys=True).encode()
    end = _END.pack(size, len(header), zlib.crc32(header), len(text), zlib.crc32(text), _MAGIC)
    return text + end


def read_origin(file: Location) -> Origin | None:
    """Return what a file was written from; None if it does not tell, or was changed since."""
    total = file.size()
    start = max(0, total - _TAIL)
    tail = file.read_bytes(start, total)
    if len(tail) < _END.size or not tail.endswith(_MAGIC):
        return None
    size, length, crc, text_length, text_crc, _ = _END.unpack(tail[-_END.size :])
    if size + text_length + _END.size != total or length > size:
        return None
    text = tail[size - start : -_END.size] if size >= start else file.read_bytes(size, size + text_length)
    if zlib.crc32(text) != text_crc or zlib.crc32(file.read_bytes(0, length)) != crc:
        return None
    return Origin(**json.loads(text))
