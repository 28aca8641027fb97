"""The patches that functions accept: a grid, some of its patches, or an object that has a grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import PatchGrid, Size
from xee_tf.sampling.selection import PatchSelection
from xee_tf.sidecars import Mixer

__all__ = ["candidates"]


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


def _all(grid: PatchGrid) -> PatchSelection:
    return PatchSelection(grid, np.arange(len(grid)))
