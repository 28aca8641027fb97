"""Blocks around points: which chunks each block needs for the patches around the points in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from xee_tf.blocks.layout import Block, BlockAxis, BlockLayout, Chunk, ChunkGrid, Piece
from xee_tf.geometry import PatchAxis, Size

__all__ = ["PointLayout", "chunk_blocks", "first_pixels", "points_by_block"]

Indices = npt.NDArray[np.int64]


def chunk_blocks(grids: Sequence[ChunkGrid], size: Size | None = None) -> BlockLayout:
    """Return blocks that are the chunks of most planes, so that few chunks without points are loaded.

    Parameters
    ----------
    grids : sequence of ChunkGrid
        The planes.
    size : Size, optional
        Size of the patch around each pixel. Default: a single pixel.
    """
    y, x = Counter((grid.y, grid.x) for grid in grids).most_common(1)[0][0]
    margin_y, margin_x = (0, 0) if size is None else (size.y // 2, size.x // 2)
    centered = size is not None
    return BlockLayout(
        BlockAxis(y, y[-1], PatchAxis(start=0, patch=1, margin=margin_y, count=y[-1]), centered=centered),
        BlockAxis(x, x[-1], PatchAxis(start=0, patch=1, margin=margin_x, count=x[-1]), centered=centered),
        tuple(grids),
    )


def points_by_block(layout: BlockLayout, rows: Indices, columns: Indices) -> dict[Block, Indices]:
    """Return the indices of the pixels in each block, in ascending order; blocks without pixels are omitted.

    Examples
    --------
    >>> layout = chunk_blocks([ChunkGrid((0, 4, 8), (0, 8), 4)])
    >>> points_by_block(layout, np.array([5, 0, 7]), np.array([1, 1, 1]))
    {(0, 0): array([1]), (1, 0): array([0, 2])}
    """
    if not len(rows):
        return {}
    down, across = (
        np.searchsorted(axis.edges, pixels, side="right") - 1
        for axis, pixels in ((layout.y, rows), (layout.x, columns))
    )
    flat = down * len(layout.x) + across
    order = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    return {(int(down[part[0]]), int(across[part[0]])): part for part in np.split(order, starts[1:].tolist())}


@dataclass(frozen=True)
class PointLayout(BlockLayout):
    """Blocks that need only the chunks in which the patches around their points are.

    Parameters
    ----------
    needed : mapping
        For each block and each grid of chunks, the numbers of the chunks, in row-major order.
    """

    needed: Mapping[Block, Sequence[frozenset[int]]]

    @classmethod
    def of(
        cls,
        blocks: BlockLayout,
        size: Size,
        rows: Indices,
        columns: Indices,
        by_block: Mapping[Block, Indices],
    ) -> PointLayout:
        """Create the layout for patches around pixels.

        Parameters
        ----------
        blocks : BlockLayout
            The result of `chunk_blocks`.
        size : Size
            Size of a patch.
        rows, columns : ndarray of int64
            The pixels.
        by_block : mapping
            The result of `points_by_block`.
        """
        owner = np.empty(len(rows), np.int64)
        for number, points in enumerate(by_block.values()):
            owner[points] = number
        found: list[list[frozenset[int]]] = []
        for y, x in dict.fromkeys((grid.y, grid.x) for grid in blocks.planes):
            (first_y, last_y), (first_x, last_x) = (
                _chunks(edges, first_pixels(pixels, length), length)
                for edges, pixels, length in ((y, rows, size.y), (x, columns, size.x))
            )
            count = (len(y) - 1) * (len(x) - 1)
            pairs = [np.empty(0, np.int64)]
            for down in range(int((last_y - first_y).max()) + 1):
                for across in range(int((last_x - first_x).max()) + 1):
                    iy, ix = first_y + down, first_x + across
                    inside = (iy <= last_y) & (ix <= last_x)
                    chunks = owner[inside] * count + iy[inside] * (len(x) - 1) + ix[inside]
                    pairs.append(np.unique(chunks))
            owners, chunks = np.divmod(np.unique(np.concatenate(pairs)), count)
            starts = np.searchsorted(owners, np.arange(1, len(by_block)))
            found.append([frozenset(part.tolist()) for part in np.split(chunks, starts)])
        needed = dict(zip(by_block, zip(*found, strict=True), strict=True))
        return cls(blocks.y, blocks.x, blocks.planes, needed)

    @cached_property
    def _grids(self) -> list[int]:
        """The number of the grid of each plane."""
        numbers: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        return [numbers.setdefault((grid.y, grid.x), len(numbers)) for grid in self.planes]

    @property
    def separate_strips(self) -> bool:
        """Whether the strips along each edge are kept by a separate task: they are small here."""
        return False

    def chunks_by_home(self, blocks: Collection[Block] | None = None) -> dict[Block, list[Chunk]]:
        """Return the chunks that blocks need, by the block in which they start."""
        needed = {
            (number, chunk)
            for block in (self.needed if blocks is None else blocks)
            for number, chunks in enumerate(self.needed[block])
            for chunk in chunks
        }
        found: dict[Block, list[Chunk]] = {}
        for plane, number in enumerate(self._grids):
            for chunk in sorted(chunk for each, chunk in needed if each == number):
                iy, ix = divmod(chunk, len(self.planes[plane].x) - 1)
                found.setdefault(self.home(plane, iy, ix), []).append((plane, iy, ix))
        return found

    def pieces(self, row: int, column: int) -> list[Piece]:
        """Return the pieces that the patches around the points of a block need, in a fixed order."""
        of_grid: dict[int, list[Piece]] = {}
        found: list[Piece] = []
        for plane, number in enumerate(self._grids):
            if number in of_grid:  # the bands of a raster mostly have the same chunks
                found += [replace(piece, plane=plane) for piece in of_grid[number]]
                continue
            columns = len(self.planes[plane].x) - 1
            of_grid[number] = [
                self._piece((row, column), plane, *divmod(chunk, columns))
                for chunk in sorted(self.needed[row, column][number])
            ]
            found += of_grid[number]
        return found


def first_pixels(pixels: Indices, length: int) -> Indices:
    """Return the first pixel of the patch around each pixel, which has the index (length - 1) // 2 in it.

    This is how Earth Engine's neighborhoods of even size are placed.

    Examples
    --------
    >>> first_pixels(np.array([10]), 4), first_pixels(np.array([10]), 5)
    (array([9]), array([8]))
    """
    return pixels - (length - 1) // 2


def _chunks(edges: tuple[int, ...], begins: Indices, length: int) -> tuple[Indices, Indices]:
    """Return the first and the last chunk that each patch overlaps."""
    first = np.searchsorted(edges, np.maximum(begins, 0), side="right") - 1
    last = np.searchsorted(edges, np.minimum(begins + length, edges[-1]), side="left") - 1
    return first, last
