"""Find which part of a stored array a chunk is, if tasks only read and select."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from dask.array.chunk import getitem
from dask.array.core import concatenate_shaped, getter, getter_inline, getter_nofancy
from dask.task_spec import Alias, DataNode, List, Task, TaskRef
from numpy.typing import NDArray

from xee_tf.chunks import checks_chunks
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import ChunkedArray, Key

__all__ = ["StoredPart", "stored_parts"]

_SELECT = (getitem, operator.getitem, getter, getter_inline, getter_nofancy)


@dataclass(frozen=True, eq=False)
class StoredPart:
    """Some elements of a stored array: one position, or several, along each of its axes.

    Parameters
    ----------
    source : object
        The stored array.
    axes : tuple of int or ndarray
        The positions along each axis of the source. The part has the axes with several.

    Examples
    --------
    >>> part = StoredPart.whole("file", (3, 100, 80))[1][10:20, 5:]
    >>> part.axes[0], part.axes[1].tolist() == list(range(10, 20)), part.axes[2][0].item()
    (1, True, 5)
    """

    source: Any
    axes: tuple[int | NDArray[np.intp], ...]

    @classmethod
    def whole(cls, source: Any, shape: Sequence[int]) -> StoredPart:
        """Return all elements."""
        return cls(source, tuple(np.arange(length) for length in shape))

    def __getitem__(self, index: Any) -> StoredPart:
        """Select along each axis separately, as numpy does with numbers and slices."""
        rest = iter(index if isinstance(index, tuple) else (index,))
        chosen = [
            axis if isinstance(axis, int) else _select(axis, next(rest, slice(None))) for axis in self.axes
        ]
        return replace(self, axes=tuple(chosen))


def _select(axis: NDArray[np.intp], index: Any) -> int | NDArray[np.intp]:
    found = axis[index]
    return found if found.ndim else int(found)


def stored_parts(
    arrays: Sequence[ChunkedArray],
    chunks: Sequence[tuple[int, int]],
    stored: Callable[[Any], StoredPart | None],
) -> list[list[StoredPart | None]]:
    """Return the parts of stored arrays that some chunks of arrays (y, x) are.

    Parameters
    ----------
    arrays : sequence of ChunkedArray
        The arrays.
    chunks : sequence of (iy, ix)
        The chunks of each array. Nothing is loaded.
    stored : callable
        Returns the part of a stored array that an object in the graph is, or None.

    Returns
    -------
    list
        For each array, the part of each chunk; None if tasks do anything else than read and select, such as
        to compute.
    """
    sources = Sources.of_planes(arrays, [chunks] * len(arrays))
    return [[_part(keys[at], sources.graph, stored) for at in chunks] for keys in sources.keys]


def _part(
    key: Key, graph: Mapping[Key, Any], stored: Callable[[Any], StoredPart | None]
) -> StoredPart | None:
    node = graph.get(key)
    if isinstance(node, DataNode):
        return stored(node.value)
    if isinstance(node, Alias):
        return _part(node.target, graph, stored)
    is_check = isinstance(key, tuple) and checks_chunks(str(key[0]))
    if not isinstance(node, Task) or not (
        is_check or node.func in _SELECT or node.func is concatenate_shaped
    ):
        return None
    refs = [each for arg in node.args for each in (arg.args if isinstance(arg, List) else [arg])]
    keys = [
        ref.key if isinstance(ref, TaskRef) else ref.target
        for ref in refs
        if isinstance(ref, TaskRef | Alias)
    ]
    found = [_part(each, graph, stored) for each in keys]
    parts = [part for part in found if part is not None]
    if not parts or len(parts) < len(found):
        return None
    if node.func is concatenate_shaped:
        return _joined(parts, node.args[1])
    if is_check:
        return parts[0]
    index = node.args[1]
    return parts[0][index.value if isinstance(index, DataNode) else index]


def _joined(parts: Sequence[StoredPart], shape: Sequence[int]) -> StoredPart | None:
    """Return parts in a grid as one part, if they are parts of one array, and side by side."""
    if len(parts) != math.prod(shape) or any(part.source is not parts[0].source for part in parts):
        return None
    first, grid = parts[0], np.arange(len(parts)).reshape(tuple(shape))
    axes, along = list[int | NDArray[np.intp]](), 0
    for number, axis in enumerate(first.axes):
        if isinstance(axis, int):
            axes.append(axis)
            continue
        line = np.moveaxis(grid, along, 0).reshape(shape[along], -1)
        pieces = [[parts[at].axes[number] for at in row] for row in line]
        if any(not np.array_equal(piece, row[0]) for row in pieces for piece in row):
            return None
        axes.append(np.concatenate([row[0] for row in pieces]))
        along += 1
    return replace(first, axes=tuple(axes))
