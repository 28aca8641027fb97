"""Divide a block into tiles, whose patches are encoded while their pixels are in the cache of the processor.

A tile is a part of a row of patches or, if patches are small, several rows. Where possible, it lies in a
single chunk of each band: its pixels are then not copied before they are encoded.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from xee_tf.blocks.layout import Block, BlockLayout, main_edges

__all__ = ["tiles"]

#: Size of the records of a tile in bytes: smaller ones cost more for the calls than copies cost, and larger
#: ones do not stay in the cache.
_TILE_BYTES = (1 << 19, 1 << 22)


def tiles(layout: BlockLayout, block: Block, patch_bytes: int) -> Iterator[tuple[range, range]]:
    """Yield the rows and columns of patches of each tile of a block, in row-major order.

    Parameters
    ----------
    layout : BlockLayout
        The block layout.
    block : tuple of int
        Row and column of the block.
    patch_bytes : int
        Size of the records of a patch in bytes.
    """
    rows, columns = layout.y.owned(block[0]), layout.x.owned(block[1])
    count = max(1, _TILE_BYTES[0] // (patch_bytes * len(columns)))
    parts = _parts(layout, columns, patch_bytes) if count == 1 else [columns]
    for first in range(rows.start, rows.stop, count):
        for part in parts:
            yield range(first, min(first + count, rows.stop)), part


def _parts(layout: BlockLayout, columns: range, patch_bytes: int) -> list[range]:
    """Divide a row of patches between gzip members, where possible at the edges of chunks."""
    _, edges = main_edges(layout.planes)

    def chunks(column: int) -> tuple[int, int]:
        begin, end = layout.x.patches.halo(column, min(column + step, columns.stop) - 1)
        return bisect_right(edges, begin), bisect_left(edges, end)

    step = layout.x.patches_per_member
    cuts = [columns.start]
    for column in columns[step::step]:
        size = (column - cuts[-1]) * patch_bytes
        at_edge = chunks(column) != chunks(column - step)
        if size + step * patch_bytes > _TILE_BYTES[1] or (at_edge and size >= _TILE_BYTES[0]):
            cuts.append(column)
    return [range(begin, end) for begin, end in zip(cuts, [*cuts[1:], columns.stop], strict=True)]
