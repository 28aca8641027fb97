"""Find the records of selected patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import OptionError, shorten
from xee_tf.reading import OpenedExport
from xee_tf.sampling import PatchSelection, on_grid, require_margin

__all__ = ["read_selection", "selected_records"]


def read_selection(value: Any, name: str) -> PatchSelection:
    """Check the option `patches`."""
    if not isinstance(value, PatchSelection):
        raise OptionError(
            f"{name} must be an xee_tf.PatchSelection, such as a side of a split; got {shorten(repr(value))}."
        )
    return value


def selected_records(exports: Sequence[OpenedExport], selection: PatchSelection) -> list[NDArray[np.int64]]:
    """Return the records of selected patches in each shard, in order. Patches without records are omitted.

    Raises
    ------
    OptionError
        If the selection is one of smaller margins, or there are no records.
    GridMismatchError
        If the selection is one of another grid.
    """
    [export, *others] = exports
    if others or not export.described or export.content.unit is None:
        raise OptionError(
            f"patches selects patches of a grid, and requires one export of an image; got "
            f"{'several exports' if others else f'{export}, without a mixer or manifest'}. Create a dataset "
            "for each export, or omit patches."
        )
    patches, each = on_grid(selection, export.grid, "patches").patches, export.records_per_patch
    require_margin(selection.grid, export.grid, "patches")
    if export.patches is None:
        places = patches
    else:
        order = np.argsort(export.patches, kind="stable")
        held = export.patches[order]
        at = np.searchsorted(held, patches)
        found = at < len(held)
        found[found] = held[at[found]] == patches[found]
        places = np.sort(order[at[found]])
    records = (places[:, None] * each + np.arange(each)).ravel()
    if not len(records):
        raise OptionError(
            f"{export} has no records of the {len(patches)} selected patches. Select patches that it has."
        )
    edges = [shard.first for shard in export.shards]
    parts = np.split(records, np.searchsorted(records, edges[1:]))
    return [part - first for part, first in zip(parts, edges, strict=True)]
