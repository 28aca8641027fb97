"""What commands return: a text, and the same as values for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import bounds

__all__ = ["Outcome", "attributes", "grid_values"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command.

    Parameters
    ----------
    text : str
        What is shown in a terminal.
    values : mapping of str to object
        What is shown as JSON; see `json`.
    problem : Exception, optional
        Raised after the outcome was shown.

    Examples
    --------
    >>> Outcome("Wrote a.tif", {"destination": "a.tif", "size": Size(x=3, y=2)}).json()
    {'destination': 'a.tif', 'size': [3, 2]}
    """

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: Exception | None = None

    def json(self) -> dict[str, Any]:
        """Return the values as JSON has them: sizes are [width, height], and NaN is null."""
        return {name: _plain(value) for name, value in self.values.items()}


def attributes(result: Any, *names: str) -> dict[str, Any]:
    """Return attributes of an object by their names."""
    return {name: getattr(result, name) for name in names}


def grid_values(grid: PatchGrid, sized: str) -> dict[str, Any]:
    """Return the number of patches or tiles of a grid, their size under the name `sized`, and its place."""
    return {
        "rows": grid.rows,
        "columns": grid.patches_per_row,
        sized: grid.patch,
        "size_with_margin": grid.stored,
        "crs": grid.crs,
        "bounds": bounds(grid.affine, grid.shape.window),
    }


def _plain(value: Any) -> Any:
    """Return a value as numbers, texts, lists and mappings."""
    if isinstance(value, Size):
        return [value.x, value.y]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if is_dataclass(value) and type(value).__str__ is object.__str__:
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
