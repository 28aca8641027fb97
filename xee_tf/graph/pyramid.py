"""Process rasters block by block, then what is left of several blocks together, up to the whole raster."""

from __future__ import annotations

import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
from dask.core import flatten
from dask.delayed import Delayed
from dask.task_spec import TaskRef
from numpy.typing import NDArray

from xee_tf.blocks import chunk_edges
from xee_tf.chunks import checked_chunk
from xee_tf.gdal_cache import limit_in_worker
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import Graph, add_task, add_value

__all__ = ["PyramidWork", "reduce_blocks"]


class PyramidWork(Protocol):
    """The work of `reduce_blocks`; must be picklable."""

    def block(self, index: tuple[int, int], planes: Sequence[NDArray[Any]]) -> Any:
        """Process the pixels of a block: one array (band, y, x) for each source."""
        raise NotImplementedError

    def group(self, stage: int, index: tuple[int, int], columns: int, parts: Sequence[Any]) -> Any:
        """Process the results of adjacent blocks or groups, row by row."""
        raise NotImplementedError

    def whole(self, parts: Sequence[Any]) -> Any:
        """Return the result, from those of the last stage."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Place:
    """Where a chunk is in its array."""

    starts: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Box:
    """The chunks that a block consists of: where they are, and the rows and columns of the block."""

    y: tuple[int, int]
    x: tuple[int, int]
    places: tuple[tuple[_Place, ...], ...]


def reduce_blocks(
    names: Sequence[str],
    arrays: Sequence[Any],
    work: PyramidWork,
    block: int,
    group: int,
    stages: int,
) -> Delayed:
    """Return a Delayed of ``work.whole``.

    Every chunk is loaded once, and may belong to several blocks. The number of tasks is that of the blocks,
    plus a part of it for the groups.

    Parameters
    ----------
    names : sequence of str
        The names of the arrays, for error messages.
    arrays : sequence of Dask arrays
        Arrays (..., y, x) of one raster; other axes in one chunk.
    work : PyramidWork
        What the tasks do.
    block : int
        The size of blocks along y and x.
    group : int
        How many blocks, or groups of the previous stage, are grouped along y and x.
    stages : int
        Number of stages, at least 1, which is that of the blocks.
    """
    run = uuid.uuid4().hex
    sources = Sources.of(list(arrays))
    graph = Graph(dict(sources.graph), {name: dict(own) for name, own in sources.annotations.items()})
    tasks = graph.tasks
    shared = add_value(tasks, f"pyramid-work-{run}", work)
    facts = add_value(
        tasks,
        f"pyramid-arrays-{run}",
        [(name, array.dtype) for name, array in zip(names, arrays, strict=True)],
    )
    keys = [list(flatten(own)) for own in sources.keys]
    rows, columns = (-(-size // block) for size in arrays[0].shape[-2:])
    edges = [(chunk_edges(array.chunks[-2]), chunk_edges(array.chunks[-1])) for array in arrays]
    grid: dict[tuple[int, int], TaskRef] = {}
    for row, column in product(range(rows), range(columns)):
        y, x = (
            (at * block, min((at + 1) * block, size))
            for at, size in zip((row, column), arrays[0].shape[-2:], strict=True)
        )
        places, chunks = [], []
        for array, own, (y_edges, x_edges) in zip(arrays, keys, edges, strict=True):
            inside = list(product(_overlapping(y_edges, *y), _overlapping(x_edges, *x)))
            places.append(
                tuple(
                    _Place(
                        (*(0,) * (array.ndim - 2), y_edges[i], x_edges[j]),
                        (*array.shape[:-2], y_edges[i + 1] - y_edges[i], x_edges[j + 1] - x_edges[j]),
                    )
                    for i, j in inside
                )
            )
            chunks += [TaskRef(own[i * (len(x_edges) - 1) + j]) for i, j in inside]
        box = _Box(y, x, tuple(places))
        key = (f"pyramid-{run}", 0, row, column)
        grid[row, column] = add_task(tasks, key, _work_on_block, shared, (row, column), facts, box, chunks)
    for stage in range(1, stages):
        below = grid
        grid = {}
        groups = product(range(-(-rows // group)), range(-(-columns // group)))
        for row, column in groups:
            down = range(row * group, min((row + 1) * group, rows))
            along = range(column * group, min((column + 1) * group, columns))
            parts = [below[at] for at in product(down, along)]
            key = (f"pyramid-{run}", stage, row, column)
            at = (row, column)
            grid[at] = add_task(tasks, key, _work_on_group, shared, stage, at, len(along), parts)
        rows, columns = -(-rows // group), -(-columns // group)
    whole = add_task(tasks, f"pyramid-whole-{run}", _work_on_whole, shared, list(grid.values()))
    return graph.delayed(f"pyramid-{run}", whole)


def _overlapping(edges: Sequence[int], start: int, stop: int) -> range:
    """Return the numbers of the chunks that overlap a range; empty chunks may be among them."""
    return range(bisect_right(edges, start) - 1, bisect_left(edges, stop))


def _work_on_block(
    work: PyramidWork,
    index: tuple[int, int],
    facts: Sequence[tuple[str, np.dtype[Any]]],
    box: _Box,
    chunks: Sequence[Any],
) -> Any:
    limit_in_worker()
    remaining = iter(chunks)
    planes = []
    for (name, dtype), places in zip(facts, box.places, strict=True):
        found = []
        for place in places:
            named = f"Band {name!r}: the chunk at {place.starts}"
            chunk = checked_chunk(named, next(remaining), place.shape, dtype)
            found.append(chunk.reshape(-1, *place.shape[-2:]))
        planes.append(_joined(found, places, box, dtype))
    return work.block(index, planes)


def _joined(
    chunks: Sequence[NDArray[Any]], places: Sequence[_Place], box: _Box, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return the pixels of a block; a block inside a chunk is not copied."""
    if len(chunks) == 1:
        y, x = places[0].starts[-2:]
        return chunks[0][:, box.y[0] - y : box.y[1] - y, box.x[0] - x : box.x[1] - x]
    out = np.empty((len(chunks[0]), box.y[1] - box.y[0], box.x[1] - box.x[0]), dtype)
    for chunk, place in zip(chunks, places, strict=True):
        inside, target = [], []
        for start, size, (first, stop) in zip(
            place.starts[-2:], place.shape[-2:], (box.y, box.x), strict=True
        ):
            low, high = max(start, first), min(start + size, stop)
            inside.append(slice(low - start, high - start))
            target.append(slice(low - first, high - first))
        out[:, target[0], target[1]] = chunk[:, inside[0], inside[1]]
    return out


def _work_on_group(
    work: PyramidWork, stage: int, index: tuple[int, int], columns: int, parts: Sequence[Any]
) -> Any:
    return work.group(stage, index, columns, parts)


def _work_on_whole(work: PyramidWork, parts: Sequence[Any]) -> Any:
    return work.whole(parts)
