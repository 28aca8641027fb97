"""The header of a cloud-optimized GeoTIFF: GDAL writes its tags, for a raster of one pixel."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.upload.cog.encoding import LEADER, TRAILER

__all__ = ["Level", "Tag", "layout", "levels_of", "read_tags"]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_SHORT, _LONG, _LONG8 = 3, 4, 16
_SUBFILE, _WIDTH, _LENGTH = 254, 256, 257
_TILE_WIDTH, _TILE_LENGTH, _OFFSETS, _COUNTS = 322, 323, 324, 325
# Tags of the raster as a whole, which its overviews do not repeat: the georeference, and names of bands.
_WHOLE = {33550, 33922, 34264, 34735, 34736, 34737, 42112}
_BIG = 1 << 32

_FACTS = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
# What GDAL writes behind the first bytes of a file, which tells its readers that they need fewer requests.
_GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_FACTS) + _FACTS


@dataclass(frozen=True)
class Tag:
    """The value of a TIFF tag: TIFF's number of its type, how many, and the bytes."""

    kind: int
    count: int
    data: bytes


@dataclass(frozen=True)
class Level:
    """A raster or one of its overviews: its size and number of tiles along y and x."""

    shape: tuple[int, int]
    tiles: tuple[int, int]


def levels_of(shape: tuple[int, int], tile: int) -> list[Level]:
    """Return the raster and its overviews, of which the last one fits in one tile.

    Examples
    --------
    >>> [level.shape for level in levels_of((1025, 600), 512)]
    [(1025, 600), (513, 300), (257, 150)]
    """
    levels = []
    while True:
        rows, columns = shape
        levels.append(Level(shape, (-(-rows // tile), -(-columns // tile))))
        if max(shape) <= tile:
            return levels
        shape = (-(-rows // 2), -(-columns // 2))


def read_tags(data: bytes) -> dict[int, Tag]:
    """Return the tags of the first image of a small little-endian TIFF file.

    Raises
    ------
    ValueError, struct.error
        If the file is incomplete.
    """
    if data[:4] != b"II*\0":
        raise ValueError("The file has no header.")
    start: int = struct.unpack_from("<I", data, 4)[0]
    tags = {}
    for number in range(struct.unpack_from("<H", data, start)[0]):
        entry = start + 2 + 12 * number
        tag, kind, count = struct.unpack_from("<HHI", data, entry)
        size = _SIZES[kind] * count
        at: int = entry + 8 if size <= 4 else struct.unpack_from("<I", data, entry + 8)[0]
        if at + size > len(data):
            raise ValueError(f"Tag {tag} is incomplete.")
        tags[tag] = Tag(kind, count, data[at : at + size])
    return tags


def layout(
    tags: Mapping[int, Tag], levels: Sequence[Level], tile: int, sizes: Sequence[NDArray[Any]]
) -> tuple[bytes, list[NDArray[Any]]]:
    """Return the bytes before the first tile, and the offsets of the tiles of each level.

    The tiles follow row by row, those of the smallest overview first; each is framed.

    Parameters
    ----------
    tags : mapping
        The tags of the raster, of which those that depend on its size are replaced.
    levels : sequence of Level
        The raster and its overviews.
    tile : int
        The size of tiles in pixels.
    sizes : sequence of ndarray
        The number of bytes of each tile of each level, row by row.
    """
    total = sum(int(own.sum()) + own.size * (LEADER + TRAILER) for own in sizes)
    none = [np.zeros(own.size, np.uint64) for own in sizes]
    start, big = len(_header(tags, levels, tile, sizes, none, False)), False
    if start + total >= _BIG:
        start, big = len(_header(tags, levels, tile, sizes, none, True)), True
    offsets = list(none)
    for level in reversed(range(len(levels))):
        framed = sizes[level].astype(np.uint64) + np.uint64(LEADER + TRAILER)
        ends = np.cumsum(framed) + np.uint64(start)
        offsets[level] = ends - framed + np.uint64(LEADER)
        start = int(ends[-1])
    return _header(tags, levels, tile, sizes, offsets, big), offsets


def _header(
    tags: Mapping[int, Tag],
    levels: Sequence[Level],
    tile: int,
    sizes: Sequence[NDArray[Any]],
    offsets: Sequence[NDArray[Any]],
    big: bool,
) -> bytes:
    first = 16 if big else 8
    start = first + len(_GHOST)
    start += start % 2
    out = bytearray(
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, start) if big else struct.pack("<2sHI", b"II", 42, start)
    )
    out += _GHOST.ljust(start - first, b"\0")
    for number, level in enumerate(levels):
        own = dict(tags) if number == 0 else {tag: each for tag, each in tags.items() if tag not in _WHOLE}
        if number:
            own[_SUBFILE] = _numbers([1], _LONG)
        own[_LENGTH], own[_WIDTH] = (_numbers([size], _LONG) for size in level.shape)
        own[_TILE_LENGTH] = own[_TILE_WIDTH] = _numbers([tile], _SHORT)
        own[_OFFSETS] = _numbers(offsets[number], _LONG8 if big else _LONG)
        own[_COUNTS] = _numbers(sizes[number], _LONG)
        out += _directory(own, len(out), big, last=number == len(levels) - 1)
    return bytes(out)


def _numbers(values: Any, kind: int) -> Tag:
    found = np.asarray(values).astype(f"<u{_SIZES[kind]}")
    return Tag(kind, found.size, found.tobytes())


def _directory(tags: Mapping[int, Tag], start: int, big: bool, last: bool) -> bytes:
    """Return a directory of tags, and the values that do not fit in it, at a position of the file."""
    count, entry, pointer, inline = ("<Q", "<HHQ", "<Q", 8) if big else ("<H", "<HHI", "<I", 4)
    size = struct.calcsize(count) + len(tags) * (struct.calcsize(entry) + inline) + inline
    out, values = bytearray(struct.pack(count, len(tags))), bytearray()
    for number in sorted(tags):
        tag = tags[number]
        out += struct.pack(entry, number, tag.kind, tag.count)
        if len(tag.data) <= inline:
            out += tag.data.ljust(inline, b"\0")
        else:
            values += bytes(-(start + size + len(values)) % 8)
            out += struct.pack(pointer, start + size + len(values))
            values += tag.data
    values += bytes(-(start + size + len(values)) % 8)
    out += struct.pack(pointer, 0 if last else start + size + len(values))
    return bytes(out + values)
