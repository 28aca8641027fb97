"""Encode the tiles of a raster and its overviews block by block, and stage them until all sizes are known."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import DestinationError
from xee_tf.storage import Location, Staging, storage_errors
from xee_tf.upload.cog.encoding import encode_tile, framed
from xee_tf.upload.cog.header import Level
from xee_tf.upload.cog.overviews import Resampling, halve

__all__ = ["Part", "TileWork", "copy_tiles", "sizes_of"]


@dataclass(frozen=True)
class Part:
    """The encoded tiles of a block, in a staged file.

    Parameters
    ----------
    name : str
        The name of the file.
    tiles : ndarray
        For each tile its level, row, column and size without its frame.
    rows : tuple of tuple of int
        For each row of tiles, which are adjacent: its level, row and first column, and where its bytes begin
        and end in the file.
    """

    name: str
    tiles: NDArray[np.int64]
    rows: tuple[tuple[int, int, int, int, int], ...]


@dataclass(frozen=True)
class _Result:
    """The parts of a block and of the blocks below it, and the pixels of the next level of each band."""

    parts: tuple[Part, ...]
    pixels: tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class TileWork:
    """The work of `xee_tf.graph.reduce_blocks`.

    A block encodes the tiles of several levels that are inside it. The pixels of the next level, of which a
    tile is larger than the block, become blocks of the next stage.

    Parameters
    ----------
    staging : Staging
        Where tiles are staged: on a disk or in a bucket that all workers reach.
    levels : tuple of Level
        The raster and its overviews.
    tile : int
        The size of tiles in pixels.
    depth : int
        Number of levels of a stage; blocks have ``tile << (depth - 1)`` pixels along y and x.
    methods : tuple of str
        How the overviews of each array are computed.
    nodata : float or None
        The value of missing pixels, besides NaN.
    """

    staging: Staging
    levels: tuple[Level, ...]
    tile: int
    depth: int
    methods: tuple[Resampling, ...]
    nodata: float | None

    @property
    def stages(self) -> int:
        """Number of stages."""
        return -(-len(self.levels) // self.depth)

    def block(self, index: tuple[int, int], planes: Sequence[NDArray[Any]]) -> _Result:
        """Encode the tiles of a block."""
        return self._encoded(0, index, planes, ())

    def group(self, stage: int, index: tuple[int, int], columns: int, parts: Sequence[_Result]) -> _Result:
        """Encode the tiles of a block of a further stage."""
        rows = [parts[start : start + columns] for start in range(0, len(parts), columns)]
        planes = [
            np.concatenate(
                [np.concatenate([part.pixels[number] for part in row], axis=2) for row in rows], axis=1
            )
            for number in range(len(self.methods))
        ]
        return self._encoded(stage, index, planes, tuple(chain.from_iterable(part.parts for part in parts)))

    def _encoded(
        self,
        stage: int,
        index: tuple[int, int],
        planes: Sequence[NDArray[Any]],
        below: tuple[Part, ...],
    ) -> _Result:
        self.staging.sign()
        first = stage * self.depth
        data, tiles, rows = bytearray(), [], []
        for level in range(first, min(first + self.depth, len(self.levels))):
            across = 1 << (self.depth - 1 - level + first)  # tiles of a whole block
            for y in range(0, planes[0].shape[-2], self.tile):
                row, column, begin = index[0] * across + y // self.tile, index[1] * across, len(data)
                for number, own in enumerate(_row_of_tiles(planes, y, self.tile)):
                    encoded = encode_tile(own, self.tile)
                    tiles.append((level, row, column + number, len(encoded)))
                    data += framed(encoded)
                rows.append((level, row, column, begin, len(data)))
            if level + 1 < len(self.levels):
                planes = [
                    halve(each, method, self.nodata)
                    for each, method in zip(planes, self.methods, strict=True)
                ]
        name = f"tiles-{stage}-{index[0]}-{index[1]}-{uuid.uuid4().hex}"  # a task may run again
        with storage_errors("write", self.staging.destination.url, left="Nothing was changed."):
            self.staging.folder.child(name).write_bytes(bytes(data))
        part = Part(name, np.array(tiles, np.int64), tuple(rows))
        return _Result((*below, part), tuple(planes) if stage + 1 < self.stages else ())


def _row_of_tiles(planes: Sequence[NDArray[Any]], y: int, side: int) -> Iterator[list[NDArray[Any]]]:
    """Yield the bands of each tile of a row."""
    for x in range(0, planes[0].shape[-1], side):
        yield [plane[y : y + side, x : x + side] for each in planes for plane in each]


def sizes_of(parts: Sequence[Part], levels: Sequence[Level]) -> list[NDArray[np.int64]]:
    """Return the number of bytes of each tile of each level, row by row."""
    sizes = [np.zeros(level.tiles, np.int64) for level in levels]
    for part in parts:
        for level, row, column, size in part.tiles.tolist():
            sizes[level][row, column] = size
    return [each.ravel() for each in sizes]


def copy_tiles(parts: Sequence[Part], levels: Sequence[Level], staging: Staging, file: BinaryIO) -> None:
    """Append all tiles to a file, those of the smallest level first; on a disk, delete staged tiles early.

    Raises
    ------
    DestinationError
        If staged tiles are missing or incomplete, for example because workers do not share the disk.
    """
    places: list[dict[int, list[tuple[int, int, int, Part]]]] = [defaultdict(list) for _ in levels]
    last: dict[tuple[int, int], list[Part]] = defaultdict(list)  # by the last level and row that need them
    for part in parts:
        for level, row, column, begin, end in part.rows:
            places[level][row].append((column, begin, end, part))
        lowest = part.rows[0][0]  # levels and rows are in order
        last[lowest, max(row for level, row, *_ in part.rows if level == lowest)].append(part)
    for level in reversed(range(len(levels))):
        for row in range(levels[level].tiles[0]):
            for _, begin, end, part in sorted(places[level][row], key=lambda each: each[0]):
                staged = staging.folder.child(part.name)
                data = _read(staged, begin, end)
                if len(data) != end - begin:
                    raise DestinationError(
                        f"Cannot write {staging.destination}: its temporary file {staged} is missing or "
                        "incomplete. On a cluster, workers must share the disk of a local destination. "
                        "Nothing was changed."
                    )
                file.write(data)
            if staging.folder.is_local:
                for part in last.pop((level, row), ()):
                    staging.folder.child(part.name).remove()


def _read(staged: Location, begin: int, end: int) -> bytes:
    """Return bytes of a staged file; nothing if it does not exist."""
    with suppress(FileNotFoundError):
        if not staged.is_local:
            return staged.read_bytes(begin, end)
        with open(staged.path, "rb") as file:
            file.seek(begin)
            return file.read(end - begin)
    return b""
