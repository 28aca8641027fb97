"""Choose block sizes: few blocks for the scheduler, small blocks for memory, aligned with chunks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from xee_tf.blocks.assembling import BandRule
from xee_tf.blocks.layout import BlockAxis, BlockLayout, ChunkGrid, main_edges
from xee_tf.geometry import PatchGrid, Size

__all__ = ["lay_out_blocks", "merge_edges", "pixel_bytes"]

#: Minimum and maximum size of the bands of a block, in bytes.
_BLOCK_BYTES = (1 << 20, 16 << 20)


def pixel_bytes(rules: Sequence[BandRule]) -> int:
    """Return the bytes of one pixel in all assembled bands."""
    return sum(np.dtype(rule.dtype).itemsize * rule.depth for rule in rules)


def lay_out_blocks(
    grid: PatchGrid,
    raster: Size,
    planes: Sequence[ChunkGrid],
    pixel_size: int,
    patches_per_member: int,
    *,
    centered: tuple[bool, bool],
) -> BlockLayout:
    """Choose the blocks of an export or a prediction.

    Block edges are edges of the chunking with the most bytes. Blocks grow, first along x, to about 1/64 of
    the raster and at most 16 MiB, so that small chunks do not lead to small tasks.

    Parameters
    ----------
    grid : PatchGrid
        The patches.
    raster : Size
        Size of the source in pixels.
    planes : sequence of ChunkGrid
        The chunk edges of all planes.
    pixel_size : int
        Bytes of one pixel in all assembled bands.
    patches_per_member : int
        Consecutive patches along x in one gzip member.
    centered : tuple of bool
        For y and x; see `BlockAxis`.
    """
    edges_y, edges_x = main_edges(planes)
    y, x = grid.axis_y, grid.axis_x
    span_y, span_x = (
        (max(0, begin), min(length, end))
        for length, (begin, end) in ((raster.y, y.halo(0, y.count - 1)), (raster.x, x.halo(0, x.count - 1)))
    )
    # The three tasks of a block pay off only if the block has at least two chunks.
    alone = sum((plane.y, plane.x) == (edges_y, edges_x) for plane in planes) == 1
    target = int(np.clip(grid.shape.pixels * pixel_size / 64, *_BLOCK_BYTES)) // pixel_size
    rows = merge_edges(edges_y, *span_y, pixels=y.patch)
    height = int(np.diff(rows).max())
    columns = merge_edges(
        edges_x, *span_x, pixels=max(x.patch * patches_per_member, target // height), chunks=2 if alone else 1
    )
    if len(columns) == 2:
        width = columns[1] - columns[0]
        many = alone and columns == merge_edges(edges_x, *span_x, pixels=1)
        rows = merge_edges(edges_y, *span_y, pixels=max(y.patch, target // width), chunks=2 if many else 1)
    return BlockLayout(
        y=BlockAxis(rows, raster.y, y, centered=centered[0]),
        x=BlockAxis(columns, raster.x, x, patches_per_member, centered[1]),
        planes=tuple(planes),
    )


def merge_edges(
    edges: Sequence[int], begin: int, end: int, *, pixels: int, chunks: int = 1
) -> tuple[int, ...]:
    """Merge the chunks around ``begin..end`` into blocks of at least `pixels` pixels and `chunks` chunks.

    Returns the edges of the blocks.

    Examples
    --------
    >>> merge_edges([0, 100, 200, 300, 400, 450], 120, 450, pixels=150)
    (100, 300, 450)
    """
    first = max(0, bisect_right(edges, begin) - 1)
    last = bisect_left(edges, end)
    merged = [first]
    for chunk in range(first + 1, last + 1):
        if chunk - merged[-1] >= chunks and edges[chunk] - edges[merged[-1]] >= pixels:
            merged.append(chunk)
    if merged[-1] != last:  # the remainder is too small for a separate block
        merged[1:] = [*merged[1:-1], last]
    return tuple(edges[chunk] for chunk in merged)
