"""Divide the patches of a grid into blocks: rectangles or stripes of patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import PatchGrid, Size
from xee_tf.options import integer

__all__ = ["PatchBlock", "block_numbers", "block_size", "reach", "read_block"]

PatchBlock = int | tuple[int | None, int | None]
"""Width and height of a block in patches; None for the whole width or height of the grid."""

_LARGEST = 8  # default side of a block
_LEAST_BLOCKS = 30  # that the default aims at


def reach(grid: PatchGrid) -> Size:
    """Return how many patches away a patch can be that has a pixel of the same stored window.

    Examples
    --------
    >>> grid = PatchGrid(Size(x=640, y=640), Size(x=64, y=64), Size(x=16, y=40))
    >>> reach(grid)
    Size(x=1, y=2)
    """
    return Size(
        x=math.ceil(2 * grid.margin.x / grid.patch.x),
        y=math.ceil(2 * grid.margin.y / grid.patch.y),
    )


def read_block(given: Any, name: str) -> tuple[int | None, int | None]:
    """Check the width and height of a block; see `PatchBlock`."""
    sides = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given, given]
    if len(sides) != 2 or sides == [None, None]:
        raise OptionError(
            f"{name} must be a number of patches, such as 8, or (width, height), in which None is the whole "
            "width or height of the grid, such as (4, None) for stripes of 4 columns; got "
            f"{shorten(repr(given))}."
        )
    x, y = (None if side is None else integer(1)(side, name) for side in sides)
    return x, y


def block_size(given: Any, grid: PatchGrid, patches: int) -> Size:
    """Return the size of a block in patches.

    Parameters
    ----------
    given : int, (width, height) or None
        See `PatchBlock`. None: the default.
    grid : PatchGrid
        The patches.
    patches : int
        Number of patches to divide.
    """
    near = reach(grid)
    if given is None:
        side = min(_LARGEST, math.isqrt(max(1, patches // _LEAST_BLOCKS)))
        # In smaller blocks, most patches would be at a border; a third of the grid leaves at least 9 blocks.
        x, y = min(4 * near.x, grid.patches_per_row // 3), min(4 * near.y, grid.rows // 3)
        return Size(x=max(side, x, 1), y=max(side, y, 1))
    width, height = read_block(given, "block")
    return Size(x=width or grid.patches_per_row, y=height or grid.rows)


def block_numbers(grid: PatchGrid, block: Size) -> NDArray[np.int64]:
    """Return the number of the block of each patch, in row-major order: an array (rows, columns)."""
    rows = np.arange(grid.rows) // block.y
    columns = np.arange(grid.patches_per_row) // block.x
    return rows[:, None] * (-(-grid.patches_per_row // block.x)) + columns
