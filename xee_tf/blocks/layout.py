"""Which block makes which patches, and which chunks it needs for that.

A *block* is a rectangle of whole chunks, at least one patch wide. Everything here is integers; the
Dask layer (`graph`) and the numpy work (`assemble`) both read it, so they cannot disagree.

The patches of a gzip member, neighbours in one row, stay together. They belong to the block that
holds the **last** pixel of their halo. Then all that a block needs from elsewhere lies above it or
to its left: a chunk is used up as soon as it is there, and only the thin *strips* along its bottom
and right edges wait for the blocks that come later. Were the block of the first pixel to own them,
whole chunks would have to wait for those below them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.geometry import PatchAxis, Window

__all__ = ["Block", "BlockAxis", "BlockLayout", "Chunk", "ChunkGrid", "Piece", "Pieces", "chunk_edges"]

Block = tuple[int, int]
"""Row and column of a block."""

Chunk = tuple[int, int, int]
"""A chunk of a plane: (plane, iy, ix)."""


@dataclass(frozen=True)
class ChunkGrid:
    """The chunk edges of one plane, in pixels of the raster.

    A plane is what one chunk holds of a band: all of a scalar band, some steps of an array band.

    Parameters
    ----------
    y, x : tuple of int
        Edges from 0 to the raster's height (width), both ends included.
    itemsize : int
        Bytes a pixel, all steps of the plane together.
    """

    y: tuple[int, ...]
    x: tuple[int, ...]
    itemsize: int

    @classmethod
    def of(cls, chunks: Sequence[Sequence[int]], itemsize: int) -> list[ChunkGrid]:
        """The planes of an array (y, x) or (step, y, x), from Dask's ``array.chunks``."""
        y, x = map(chunk_edges, chunks[-2:])
        steps = chunks[0] if len(chunks) == 3 else (1,)
        return [cls(y, x, itemsize * count) for count in steps]

    def window(self, iy: int, ix: int) -> Window:
        """The pixels of chunk (iy, ix)."""
        return Window(self.y[iy], self.y[iy + 1], self.x[ix], self.x[ix + 1])


@dataclass(frozen=True)
class BlockAxis:
    """Blocks along one axis.

    Parameters
    ----------
    edges : tuple of int
        Block edges in pixels of the raster.
    length : int
        Pixels of the raster along this axis; a halo is clipped to it.
    patches : PatchAxis
        The patches along this axis.
    patches_per_member : int
        Neighbours along this axis that are in one gzip member; 1 along y.
    """

    edges: tuple[int, ...]
    length: int
    patches: PatchAxis
    patches_per_member: int = 1

    def __len__(self) -> int:
        return len(self.edges) - 1

    @cached_property
    def _first_patches(self) -> list[int]:
        """The first patch of every block, and the number of patches behind them."""
        firsts = np.arange(0, self.patches.count, self.patches_per_member)
        stops = np.minimum(firsts + self.patches_per_member, self.patches.count)
        ends = self.patches.start + stops * self.patches.patch + self.patches.margin
        owner = np.searchsorted(self.edges, np.minimum(ends, self.length) - 1, side="right") - 1
        members = np.searchsorted(owner, np.arange(len(self) + 1))
        first: list[int] = np.minimum(members * self.patches_per_member, self.patches.count).tolist()
        return first

    def owned(self, block: int) -> range:
        """Numbers of the patches that `block` makes; may be empty."""
        return range(*self._first_patches[block : block + 2])

    def owners(self, first: int, last: int) -> range:
        """The blocks that own patches `first` to `last`, and those between them that own none."""
        begin, end = (bisect_right(self._first_patches, patch) - 1 for patch in (first, last))
        return range(begin, end + 1)

    def window(self, block: int) -> tuple[int, int]:
        """Pixels under the halos of the owned patches; may reach outside the raster."""
        owned = self.owned(block)
        return self.patches.halo(owned[0], owned[-1]) if owned else (0, 0)

    def clipped(self, block: int) -> tuple[int, int]:
        """`window` without what lies outside the raster."""
        return self._clip(*self.window(block))

    @property
    def needed(self) -> tuple[int, int]:
        """Pixels of the raster under the halos of all patches."""
        return self._clip(*self.patches.halo(0, self.patches.count - 1))

    def _clip(self, begin: int, end: int) -> tuple[int, int]:
        return max(0, begin), min(self.length, end)

    @cached_property
    def _tails(self) -> list[int]:
        following = self._first_patches[1:]
        return [
            self.length if patch >= self.patches.count else max(0, self.patches.halo(patch)[0])
            for patch in following
        ]

    def tail(self, block: int) -> int:
        """First pixel that a later block will ask for; the end of the raster if none will."""
        return self._tails[block]

    def home(self, pixel: int) -> int:
        """The block that holds a pixel, the first or last block if it lies before or after all."""
        return min(max(bisect_right(self.edges, pixel) - 1, 0), len(self) - 1)


@dataclass(frozen=True)
class Piece:
    """A part of one chunk that one block needs.

    Parameters
    ----------
    plane, iy, ix : int
        The plane and its chunk.
    home : tuple of int
        The block (row, column) in which the chunk starts.
    part : {"chunk", "bottom", "right"}
        What is read: the chunk itself, or one of the strips that its home block kept of it.
    window : Window
        The raster pixels that `part` holds.
    """

    plane: int
    iy: int
    ix: int
    home: Block
    part: str
    window: Window


Pieces = Sequence[tuple[Piece, NDArray[Any]]]
"""Pieces with their pixels: (y, x) or (step, y, x)."""


@dataclass(frozen=True)
class BlockLayout:
    """Blocks over a raster: rows and columns of blocks, and the chunks of every plane."""

    y: BlockAxis
    x: BlockAxis
    planes: tuple[ChunkGrid, ...]

    def blocks(self) -> Iterator[Block]:
        """The blocks that own patches, row-major."""
        rows = [row for row in range(len(self.y)) if self.y.owned(row)]
        columns = [column for column in range(len(self.x)) if self.x.owned(column)]
        return product(rows, columns)

    def window(self, row: int, column: int) -> Window:
        """Pixels under the halos of a block's patches; may reach outside the raster."""
        return Window(*self.y.window(row), *self.x.window(column))

    def chunks(self, plane: int) -> Iterator[tuple[int, int]]:
        """The chunks of a plane that any block needs."""
        grid = self.planes[plane]
        return product(_meeting(grid.y, *self.y.needed), _meeting(grid.x, *self.x.needed))

    def chunk_count(self) -> int:
        """How many chunks will be loaded, planes counted apart."""
        return sum(
            len(_meeting(grid.y, *self.y.needed)) * len(_meeting(grid.x, *self.x.needed))
            for grid in self.planes
        )

    def chunks_by_home(self) -> dict[Block, list[Chunk]]:
        """The chunks (plane, iy, ix) that any block needs, by the block in which they start."""
        found: dict[Block, list[Chunk]] = {}
        for plane in range(len(self.planes)):
            for iy, ix in self.chunks(plane):
                found.setdefault(self.home(plane, iy, ix), []).append((plane, iy, ix))
        return found

    def home(self, plane: int, iy: int, ix: int) -> Block:
        """The block in which a chunk starts."""
        grid = self.planes[plane]
        return self.y.home(grid.y[iy]), self.x.home(grid.x[ix])

    def strips(self, plane: int, iy: int, ix: int) -> dict[str, Window]:
        """What blocks other than its home need of a chunk.

        Returns
        -------
        dict
            Nothing; or a "bottom" and a "right" strip; or the whole "chunk", where strips would
            save too little to be worth a copy.
        """
        grid = self.planes[plane]
        window = grid.window(iy, ix)
        row, column = self.home(plane, iy, ix)
        top, left = max(self.y.tail(row), window.top), max(self.x.tail(column), window.left)
        height, width = window.bottom - window.top, window.right - window.left
        strips: dict[str, Window] = {}
        pixels = 0
        if top < window.bottom:
            strips["bottom"] = Window(top, window.bottom, window.left, window.right)
            pixels += (window.bottom - top) * width
        if left < window.right:
            strips["right"] = Window(window.top, window.bottom, left, window.right)
            pixels += (window.right - left) * height
        return strips if pixels <= 0.75 * height * width else {"chunk": window}

    def pieces(self, row: int, column: int) -> list[Piece]:
        """All that one block is assembled from, in a fixed order."""
        top, bottom = self.y.clipped(row)
        left, right = self.x.clipped(column)
        found = []
        for plane, grid in enumerate(self.planes):
            for iy, ix in product(_meeting(grid.y, top, bottom), _meeting(grid.x, left, right)):
                home = self.home(plane, iy, ix)
                if home == (row, column):
                    part, window = "chunk", grid.window(iy, ix)
                else:
                    strips = self.strips(plane, iy, ix)
                    part = "chunk" if "chunk" in strips else "bottom" if home[0] < row else "right"
                    window = strips[part]
                found.append(Piece(plane, iy, ix, home, part, window))
        return found


def chunk_edges(sizes: Sequence[int]) -> tuple[int, ...]:
    """Where chunks of some sizes begin, and where the last one ends.

    Examples
    --------
    >>> chunk_edges((256, 256, 100))
    (0, 256, 512, 612)
    """
    return (0, *np.cumsum(sizes).tolist())


def _meeting(edges: Sequence[int], begin: int, end: int) -> range:
    """Chunks that share a pixel with the half-open range ``begin..end``."""
    if begin >= end:
        return range(0)
    return range(bisect_right(edges, begin) - 1, bisect_left(edges, end))
