"""The memory of the chunks, strips and windows of blocks, from integers only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from xee_tf.blocks.layout import BlockAxis, BlockLayout
from xee_tf.geometry import Size

__all__ = ["chunk_bytes", "largest_window", "strip_bytes"]


def chunk_bytes(layout: BlockLayout) -> int:
    """Return the size of the chunks that start in one block, at most."""
    return sum(_extent(layout.y, p.y) * _extent(layout.x, p.x) * p.itemsize for p in layout.planes)


def strip_bytes(layout: BlockLayout) -> int:
    """Return the size of the strips of one row of blocks, which are kept for the next row, at most."""
    rows = np.zeros(len(layout.y), np.int64)
    for plane, grid in enumerate(layout.planes):
        for iy, ix in layout.chunks(plane):
            size = sum(window.size.pixels for window in layout.strips(plane, iy, ix).values())
            rows[layout.home(plane, iy, ix)[0]] += size * grid.itemsize
    return int(rows.max())


def largest_window(layout: BlockLayout) -> Size:
    """Return the size of the window of a block along each axis, at most.

    Examples
    --------
    >>> from xee_tf.geometry import PatchAxis
    >>> y, x = (BlockAxis((0, 64, 100), 100, PatchAxis(0, 32, margin, 3)) for margin in (0, 8))
    >>> largest_window(BlockLayout(y, x, ()))
    Size(x=80, y=64)
    """
    height, width = (
        max(end - begin for begin, end in map(axis.window, range(len(axis)))) for axis in (layout.y, layout.x)
    )
    return Size(x=width, y=height)


def _extent(axis: BlockAxis, edges: Sequence[int]) -> int:
    """Return the maximum length in pixels of the chunks that start in one block, along one axis."""
    sizes = np.zeros(len(axis), np.int64)
    for begin, end in pairwise(edges):
        if begin < axis.edges[-1] and end > axis.edges[0]:
            sizes[axis.home(begin)] += end - begin
    return int(sizes.max())
