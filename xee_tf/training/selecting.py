"""Find the records of selected patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import OptionError, shorten
from xee_tf.georef import crs_option, same_crs
from xee_tf.reading import OpenedExport
from xee_tf.sampling import PatchSelection

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
        If the selection is one of another grid, or there are no records.
    """
    [export, *others] = exports
    if others or not export.described or export.content.unit is None:
        raise OptionError(
            f"patches selects patches of a grid, and requires one export of an image; got "
            f"{'several exports' if others else f'{export}, without a mixer or manifest'}. Create a dataset "
            "for each export, or omit patches."
        )
    _check_grid(export, selection)
    patches, each = selection.patches, export.records_per_patch
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


def _check_grid(export: OpenedExport, selection: PatchSelection) -> None:
    """Raise an error if the patches of a selection are not those of an export."""
    grid, expected = selection.grid, export.grid
    facts: dict[str, tuple[Any, Any]] = {
        "the size of patches": (grid.patch.xy, expected.patch.xy),
        "the number of columns": (grid.patches_per_row, expected.patches_per_row),
        "the number of patches": (len(grid), len(expected)),
        "the transform": (list(grid.affine)[:6], list(expected.affine)[:6]),
        "the CRS": (shorten(str(grid.crs)), shorten(str(expected.crs))),
    }
    if export.content.unit == "patch":
        facts["the margin"] = grid.margin.xy, expected.margin.xy
    for fact, (found, right) in facts.items():
        if fact == "the transform":
            equal = np.allclose(found, right, rtol=1e-12, atol=0)
        elif fact == "the CRS":
            equal = grid.crs is not None and same_crs(*map(crs_option, (grid.crs, expected.crs)))
        else:
            equal = found == right
        if not equal:
            raise OptionError(
                f"patches selects patches of another grid than that of {export}: {fact} is {found}, but "
                f"{right} in the export. Select patches of this export."
            )
