"""The order in which patches are read: by windows of blocks that are in memory together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from xee_tf.blocks import Block, BlockLayout

__all__ = ["BlockSizes", "PatchOrder", "in_given_order", "shuffled", "sweeps_of"]

#: A sweep over the blocks loads the chunks above its first blocks a second time. This many rows of blocks for
#: each sweep keep these at 10 %.
_ROWS_PER_SWEEP = 10


@dataclass(frozen=True)
class PatchOrder:
    """The order of the patches of one epoch.

    Parameters
    ----------
    positions : ndarray
        The positions of the patches in the selection.
    windows : list of list of (int, int)
        The blocks that are in memory together.
    starts : ndarray
        For each window, the place in `positions` of its first patch.
    """

    positions: NDArray[np.int64]
    windows: list[list[Block]]
    starts: NDArray[np.int64]

    def windows_of(self, begin: int, end: int) -> range:
        """Return the numbers of the windows with the patches ``begin..end`` of `positions`."""
        first, last = np.searchsorted(self.starts, [begin, end - 1], side="right") - 1
        return range(int(first), int(last) + 1)


@dataclass(frozen=True)
class BlockSizes:
    """The sizes of blocks and of their strips in bytes.

    Parameters
    ----------
    blocks, strips : dict
        The sizes by row and column of the block.
    """

    blocks: dict[Block, int]
    strips: dict[Block, int]

    @classmethod
    def of(cls, layout: BlockLayout, pixel_size: int) -> BlockSizes:
        """Return the sizes of the blocks of a layout, of which a pixel has `pixel_size` bytes."""
        strips: dict[Block, int] = {}
        for plane, grid in enumerate(layout.planes):
            for iy, ix in layout.chunks(plane):
                pixels = sum(window.size.pixels for window in layout.strips(plane, iy, ix).values())
                home = layout.home(plane, iy, ix)
                strips[home] = strips.get(home, 0) + pixels * grid.itemsize
        blocks = {block: layout.window(*block).size.pixels * pixel_size for block in layout.blocks()}
        return cls(blocks, strips)

    @property
    def strips_of_sweep(self) -> int:
        """The size of the strips that one sweep keeps: those of a row, and of three blocks."""
        rows: dict[int, int] = {}
        for (row, _), size in self.strips.items():
            rows[row] = rows.get(row, 0) + size
        return max(rows.values(), default=0) + 3 * max(self.strips.values(), default=0)


def in_given_order(
    blocks: Sequence[Block], of_patch: NDArray[np.int64], sizes: BlockSizes, limit: int
) -> PatchOrder:
    """Return the order in which patches were given.

    Parameters
    ----------
    blocks : sequence of (int, int)
        The blocks that have patches.
    of_patch : ndarray
        The block of each patch, as its number in `blocks`.
    sizes : BlockSizes
        The sizes of the blocks.
    limit : int
        The size of a window in bytes.
    """
    changes = np.flatnonzero(np.diff(of_patch, prepend=-1))
    windows: list[dict[Block, None]] = []
    starts, size = [], 0
    for start, number in zip(changes.tolist(), of_patch[changes].tolist(), strict=True):
        block = blocks[number]
        if windows and block in windows[-1]:
            continue
        if not windows or size + sizes.blocks[block] > limit:
            windows.append({})
            starts.append(start)
            size = 0
        windows[-1][block] = None
        size += sizes.blocks[block]
    return PatchOrder(np.arange(len(of_patch)), [sorted(window) for window in windows], np.array(starts))


def shuffled(
    blocks: Sequence[Block],
    of_patch: NDArray[np.int64],
    sizes: BlockSizes,
    limit: int,
    sweeps: int,
    random: np.random.Generator,
) -> PatchOrder:
    """Return a random order, in which the patches of a window are mixed; see `in_given_order`.

    If no block needs pixels of another one, the order of the blocks is random. Otherwise several sweeps over
    parts of the raster, from the top to the bottom, take turns, so that each chunk is loaded about once.
    """
    if not any(sizes.strips.values()):
        order = random.permutation(len(blocks))
    elif sweeps:
        turned = np.roll(np.arange(len(blocks)), -int(random.integers(len(blocks))))
        turns = zip_longest(*np.array_split(turned, sweeps))
        order = np.array([block for turn in turns for block in turn if block is not None])
    else:
        order = np.arange(len(blocks))
    windows: list[list[Block]] = []
    window_of = np.empty(len(blocks), np.int64)
    size = int(random.integers(limit))  # the windows differ in each epoch
    if sum(sizes.blocks[block] for block in blocks) <= limit:
        size = 0
    for number in order.tolist():
        block = blocks[number]
        if not windows or size + sizes.blocks[block] > limit:
            windows.append([])
            size = 0 if len(windows) > 1 else size
        windows[-1].append(block)
        size += sizes.blocks[block]
        window_of[number] = len(windows) - 1
    of_window = window_of[of_patch]
    positions = np.lexsort((random.random(len(of_patch)), of_window))
    starts = np.searchsorted(of_window[positions], np.arange(len(windows)))
    return PatchOrder(positions, windows, starts)


def sweeps_of(blocks: Sequence[Block], sizes: BlockSizes, memory: int) -> int:
    """Return the number of sweeps that load few chunks twice and whose strips fit in memory."""
    columns = len({column for _, column in blocks})
    most = memory // max(1, sizes.strips_of_sweep)
    return min(len(blocks) // (_ROWS_PER_SWEEP * (columns + 1)), max(1, most))
