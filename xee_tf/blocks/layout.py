"""Assign patches and chunks to blocks.

A *block* is a rectangle of whole chunks, at least one patch wide. This module uses integers only; both the
Dask layer (`graph`) and the numpy code (`assemble`) use it, which keeps them consistent.

The patches of a gzip member, consecutive patches in one row, stay together. By default, they belong to the
block that contains the **last** pixel of their halo. Everything that a block needs from other blocks is then
above it or to its left: a chunk can be freed soon after it is loaded, and only *strips* along its bottom and
right edges are kept for later blocks. If patches belonged to the block of their first pixel, whole chunks
would be kept until the chunks below them are loaded.

On a cluster, where strips move between workers, patches belong to the block that contains their **center**.
Strips along all edges are then needed, but they are only as wide as half of the kernel if patches and chunks
are aligned. Exports use this rule along x only, because the blocks of a column run on the same worker (see
`xee_tf.graph.placing`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.geometry import PatchAxis, Window

__all__ = [
    "Block",
    "BlockAxis",
    "BlockLayout",
    "Chunk",
    "ChunkGrid",
    "Pieces",
    "chunk_edges",
    "main_edges",
    "overlapping",
]

Block = tuple[int, int]
"""Row and column of a block."""

Chunk = tuple[int, int, int]
"""A chunk of a plane: (plane, iy, ix)."""


@dataclass(frozen=True)
class ChunkGrid:
    """The chunk edges of one plane, in pixels of the raster.

    A plane is a scalar band, or the steps of an array band that are in the same chunks.

    Parameters
    ----------
    y, x : tuple of int
        Edges from 0 to the raster's height (width), both included.
    itemsize : int
        Bytes per pixel, for all steps of the plane.
    """

    y: tuple[int, ...]
    x: tuple[int, ...]
    itemsize: int

    @classmethod
    def of(cls, chunks: Sequence[Sequence[int]], itemsize: int) -> list[ChunkGrid]:
        """Return the planes of an array (y, x) or (step, y, x), from Dask's ``array.chunks``."""
        y, x = map(chunk_edges, chunks[-2:])
        steps = chunks[0] if len(chunks) == 3 else (1,)
        return [cls(y, x, itemsize * count) for count in steps]

    def window(self, iy: int, ix: int) -> Window:
        """Return the window of chunk (iy, ix)."""
        return Window(self.y[iy], self.y[iy + 1], self.x[ix], self.x[ix + 1])


@dataclass(frozen=True)
class BlockAxis:
    """Blocks along one axis.

    Parameters
    ----------
    edges : tuple of int
        Block edges in pixels of the raster.
    length : int
        Length of the raster along this axis in pixels; halos are clipped to it.
    patches : PatchAxis
        The patches along this axis.
    patches_per_member : int
        Consecutive patches along this axis in one gzip member; 1 along y.
    centered : bool
        Whether the patches of a member belong to the block that contains their center, and not to that of the
        last pixel of their halo.
    """

    edges: tuple[int, ...]
    length: int
    patches: PatchAxis
    patches_per_member: int = 1
    centered: bool = False

    def __len__(self) -> int:
        return len(self.edges) - 1

    @cached_property
    def _first_patches(self) -> list[int]:
        """The first patch of every block, followed by the total number of patches."""
        firsts = np.arange(0, self.patches.count, self.patches_per_member)
        stops = np.minimum(firsts + self.patches_per_member, self.patches.count)
        if self.centered:
            places = self.patches.start + (firsts + stops) * self.patches.patch // 2
        else:
            places = self.patches.start + stops * self.patches.patch + self.patches.margin - 1
        owner = np.searchsorted(self.edges, np.clip(places, 0, self.length - 1), side="right") - 1
        members = np.searchsorted(owner, np.arange(len(self) + 1))
        first: list[int] = np.minimum(members * self.patches_per_member, self.patches.count).tolist()
        return first

    def owned(self, block: int) -> range:
        """Return the indices of the patches that belong to `block`; may be empty."""
        return range(*self._first_patches[block : block + 2])

    def owners(self, first: int, last: int) -> range:
        """Return the range of the blocks that own patches `first` to `last`; some may own none."""
        begin, end = (bisect_right(self._first_patches, patch) - 1 for patch in (first, last))
        return range(begin, end + 1)

    def window(self, block: int) -> tuple[int, int]:
        """Return the pixel range of the halos of the block's patches; may extend beyond the raster."""
        owned = self.owned(block)
        return self.patches.halo(owned[0], owned[-1]) if owned else (0, 0)

    def clipped(self, block: int) -> tuple[int, int]:
        """Return `window` clipped to the raster."""
        return self._clip(*self.window(block))

    @property
    def needed(self) -> tuple[int, int]:
        """Pixel range of the halos of all patches, clipped to the raster."""
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
        """Return the first pixel that later blocks need, or the end of the raster if they need none."""
        return self._tails[block]

    @cached_property
    def _heads(self) -> list[int]:
        return [self.patches.halo(patch - 1)[1] if patch else 0 for patch in self._first_patches[:-1]]

    def head(self, block: int) -> int:
        """Return the pixel after the last one that earlier blocks need, or 0 if there are none."""
        return self._heads[block]

    def home(self, pixel: int) -> int:
        """Return the block that contains a pixel; for pixels outside all blocks, the first or last block."""
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
    part : {"chunk", "top", "bottom", "left", "right"}
        The source: the chunk itself, or one of the strips that its home block kept.
    window : Window
        The raster pixels of `part`.
    """

    plane: int
    iy: int
    ix: int
    home: Block
    part: str
    window: Window


Pieces = Sequence[tuple[Piece, NDArray[Any]]]
"""Pieces with their pixels, of shape (y, x) or (step, y, x)."""


@dataclass(frozen=True)
class BlockLayout:
    """Blocks over a raster: rows and columns of blocks, and the chunks of every plane."""

    y: BlockAxis
    x: BlockAxis
    planes: tuple[ChunkGrid, ...]

    def blocks(self) -> Iterator[Block]:
        """Return the blocks that have patches, in row-major order."""
        rows = [row for row in range(len(self.y)) if self.y.owned(row)]
        columns = [column for column in range(len(self.x)) if self.x.owned(column)]
        return product(rows, columns)

    def window(self, row: int, column: int) -> Window:
        """Return the window of the halos of a block's patches; may extend beyond the raster."""
        return Window(*self.y.window(row), *self.x.window(column))

    def chunks(self, plane: int) -> Iterator[tuple[int, int]]:
        """Return the chunks of a plane that any block needs."""
        grid = self.planes[plane]
        return product(overlapping(grid.y, *self.y.needed), overlapping(grid.x, *self.x.needed))

    def chunk_count(self) -> int:
        """Return the number of chunks to load, over all planes."""
        return sum(
            len(overlapping(grid.y, *self.y.needed)) * len(overlapping(grid.x, *self.x.needed))
            for grid in self.planes
        )

    def chunks_by_home(self, blocks: Collection[Block] | None = None) -> dict[Block, list[Chunk]]:
        """Return the chunks (plane, iy, ix) by the block in which they start.

        Parameters
        ----------
        blocks : collection of (int, int), optional
            The blocks that need the chunks. Default: all.
        """
        chunks: Iterable[Chunk]
        if blocks is None:
            chunks = ((plane, *place) for plane in range(len(self.planes)) for place in self.chunks(plane))
        else:
            pieces = (piece for block in blocks for piece in self.pieces(*block))
            chunks = sorted({(piece.plane, piece.iy, piece.ix) for piece in pieces})
        found: dict[Block, list[Chunk]] = {}
        for chunk in chunks:
            found.setdefault(self.home(*chunk), []).append(chunk)
        return found

    def home(self, plane: int, iy: int, ix: int) -> Block:
        """Return the block in which a chunk starts."""
        grid = self.planes[plane]
        return self.y.home(grid.y[iy]), self.x.home(grid.x[ix])

    def strips(self, plane: int, iy: int, ix: int) -> dict[str, Window]:
        """Return the parts of a chunk that blocks other than its home block need.

        Returns
        -------
        dict
            Empty, or windows of strips along the "top", "bottom", "left" and "right" edges, or of the whole
            "chunk" if copying strips would save too little memory. Blocks in the column of the chunk need
            those along the top and the bottom, and blocks in other columns those along the sides.
        """
        grid = self.planes[plane]
        window = grid.window(iy, ix)
        row, column = self.home(plane, iy, ix)
        top, bottom, left, right = window.top, window.bottom, window.left, window.right
        above, below = min(self.y.head(row), bottom), max(self.y.tail(row), top)
        before, after = min(self.x.head(column), right), max(self.x.tail(column), left)
        strips = {}
        if above > top:
            strips["top"] = Window(top, above, left, right)
        if below < bottom:
            strips["bottom"] = Window(below, bottom, left, right)
        if before > left:
            strips["left"] = Window(top, bottom, left, before)
        if after < right:
            strips["right"] = Window(top, bottom, after, right)
        rows = max(0, above - top) + max(0, bottom - below)
        columns = max(0, before - left) + max(0, right - after)
        height, width = bottom - top, right - left
        return strips if rows * width + columns * height <= 0.75 * height * width else {"chunk": window}

    @property
    def separate_strips(self) -> bool:
        """Whether the strips along each edge are kept by a separate task.

        On a cluster, deep strips should not move to workers that need only those along the sides.
        """
        return self.x.centered

    def pieces(self, row: int, column: int) -> list[Piece]:
        """Return the pieces from which one block is assembled, in a fixed order."""
        top, bottom = self.y.clipped(row)
        left, right = self.x.clipped(column)
        return [
            self._piece((row, column), plane, iy, ix)
            for plane, grid in enumerate(self.planes)
            for iy, ix in product(overlapping(grid.y, top, bottom), overlapping(grid.x, left, right))
        ]

    def _piece(self, block: Block, plane: int, iy: int, ix: int) -> Piece:
        """Return the piece of a chunk that a block needs."""
        home = self.home(plane, iy, ix)
        if home == block:
            return Piece(plane, iy, ix, home, "chunk", self.planes[plane].window(iy, ix))
        strips = self.strips(plane, iy, ix)
        if home[1] == block[1]:
            side = "top" if home[0] > block[0] else "bottom"
        else:
            side = "left" if home[1] > block[1] else "right"
        part = "chunk" if "chunk" in strips else side
        return Piece(plane, iy, ix, home, part, strips[part])


def chunk_edges(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the edges of consecutive chunks: where each one begins, and where the last one ends.

    Examples
    --------
    >>> chunk_edges((256, 256, 100))
    (0, 256, 512, 612)
    """
    return (0, *np.cumsum(sizes).tolist())


def main_edges(planes: Sequence[ChunkGrid]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the edges along y and x of the chunking with the most bytes."""
    sizes: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for plane in planes:
        sizes[plane.y, plane.x] += plane.itemsize
    return sizes.most_common(1)[0][0]


def overlapping(edges: Sequence[int], begin: int, end: int) -> range:
    """Return the indices of the chunks that overlap the half-open range ``begin..end``."""
    if begin >= end:
        return range(0)
    return range(bisect_right(edges, begin) - 1, bisect_left(edges, end))
