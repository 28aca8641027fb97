"""The patches that functions accept: a grid, some of its patches, or an object that has a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj

from xee_tf.errors import GridMismatchError, OptionError, shorten
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import corner_distance, same_crs
from xee_tf.sampling.selection import PatchSelection
from xee_tf.sidecars import Mixer

__all__ = ["candidates", "on_grid", "require_margin"]

_SAME = 0.01  # maximum distance between equal grids, in pixels


def candidates(patches: Any, kernel_size: Any = None) -> PatchSelection:
    """Return the patches from which some are selected; only a mixer needs its kernel."""
    if isinstance(patches, PatchSelection):
        found = patches
    elif isinstance(patches, Mixer):
        if kernel_size is None:
            raise OptionError(
                "A mixer does not contain the kernel: pass the kernel_size of its export, such as "
                "kernel_size=(32, 32), or kernel_size=1 if patches have no margins."
            )
        margin = PatchGrid.margin_of(Size.from_xy(kernel_size, "kernel_size"))
        return _all(patches.grid(margin))
    else:
        grid = patches if isinstance(patches, PatchGrid) else getattr(patches, "grid", None)
        if not isinstance(grid, PatchGrid):
            raise OptionError(
                "patches must be a PatchGrid, a PatchSelection, a Mixer, or the plan or result of an export; "
                f"got {shorten(repr(patches))}."
            )
        chosen = getattr(patches, "selection", None)
        found = chosen if isinstance(chosen, PatchSelection) else _all(grid)
    if kernel_size is not None:
        raise OptionError(
            f"kernel_size={kernel_size!r} is only for mixers: a {type(patches).__name__} has its margin. "
            "Omit it."
        )
    return found


def on_grid(chosen: PatchSelection, grid: PatchGrid, name: str) -> PatchSelection:
    """Return a selection of the same patches of another `PatchGrid`, such as one that comes from a mixer.

    Parameters
    ----------
    chosen : PatchSelection
        The selection.
    grid : PatchGrid
        The expected grid.
    name : str
        The name of the selection, for error messages.

    Raises
    ------
    GridMismatchError
        If the grids have different patches.
    """
    own = chosen.grid
    same = (
        (own.patch, own.rows, own.patches_per_row) == (grid.patch, grid.rows, grid.patches_per_row)
        and corner_distance(own.affine, grid.affine, grid.covered) <= _SAME
        and (None in (own.crs, grid.crs) or same_crs(pyproj.CRS(own.crs), pyproj.CRS(grid.crs)))
    )
    if not same:
        raise GridMismatchError(
            f"{name} selects patches of another grid: {_text(own)}; expected {_text(grid)}. Select from the "
            "plan or the result of the same export, with the same patch_dimensions and region."
        )
    return PatchSelection(grid, chosen.patches)


def require_margin(own: PatchGrid, grid: PatchGrid, name: str) -> None:
    """Raise an error if patches were selected for smaller margins: sides would have common pixels.

    Parameters
    ----------
    own, grid : PatchGrid
        The grid of the selection, and the expected one.
    name : str
        The name of the selection, for the error message.
    """
    if own.margin.x < grid.margin.x or own.margin.y < grid.margin.y:
        raise OptionError(
            f"{name} was made for patches with a margin of {own.margin.xy} pixels, but these have "
            f"{grid.margin.xy}, so that the sides of a split would have common pixels. Make it from the plan "
            "of this export, as in xee_tf.split_patches(ds.tfexport.plan(kernel_size=...), ...)."
        )


def _text(grid: PatchGrid) -> str:
    size, start = "{} x {}".format(*grid.patch.xy), tuple(grid.affine @ (0, 0))
    return (
        f"{grid.rows} x {grid.patches_per_row} patches (rows x columns) of {size} pixels from {start} in "
        f"{shorten(str(grid.crs))}"
    )


def _all(grid: PatchGrid) -> PatchSelection:
    return PatchSelection(grid, np.arange(len(grid)))
