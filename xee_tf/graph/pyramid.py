"""Process rasters block by block, then what is left of several blocks together, up to the whole raster."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
from dask.core import flatten
from dask.delayed import Delayed
from dask.task_spec import TaskRef
from numpy.typing import NDArray

from xee_tf.blocks import ChunkGrid, index_in, overlapping
from xee_tf.chunks import chunk_at
from xee_tf.gdal_cache import limit_in_worker
from xee_tf.geometry import Window
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import add_task, add_value

__all__ = ["BLOCK_TASKS", "PyramidWork", "reduce_blocks"]

BLOCK_TASKS = "pyramid-block-"
"""How the names of the tasks of blocks begin."""


class PyramidWork(Protocol):
    """The work of `reduce_blocks`; must be picklable."""

    def block(self, index: tuple[int, int], planes: Sequence[NDArray[Any]]) -> Any:
        """Process the pixels of a block: one array (band, y, x) for each source."""
        raise NotImplementedError

    def group(self, stage: int, index: tuple[int, int], columns: int, parts: Sequence[Any]) -> Any:
        """Process the results of adjacent blocks or groups, row by row."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Array:
    """What Dask declares of an array (..., y, x), whose other axes are in one chunk."""

    name: str
    dtype: np.dtype[Any]
    others: tuple[int, ...]

    def checked(self, window: Window, chunk: Any) -> NDArray[Any]:
        """Return a chunk as an array (band, y, x)."""
        place = (*(slice(0, length) for length in self.others), *window.slices)
        return chunk_at(place, chunk, self.name, self.dtype).reshape(-1, *window.shape)


@dataclass(frozen=True)
class _Box:
    """The window of a block, and those of the chunks of each array that overlap it."""

    window: Window
    chunks: tuple[tuple[Window, ...], ...]


def reduce_blocks(
    names: Sequence[str],
    arrays: Sequence[Any],
    work: PyramidWork,
    block: int,
    group: int,
    stages: int,
) -> Delayed:
    """Return a Delayed of the result of the only block of the last stage.

    Every chunk is loaded once, and may belong to several blocks. The graph has one task for each block, and
    about a third as many for the groups, or less; as many, if the blocks are in a single row or column.

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
        Number of stages, at least 1; the first one processes the blocks, and the last one has one block.
    """
    run = uuid.uuid4().hex
    sources = Sources.of(list(arrays))
    graph = sources.to_graph()
    tasks = graph.tasks
    shared = add_value(tasks, f"pyramid-work-{run}", work)
    declared = add_value(
        tasks,
        f"pyramid-arrays-{run}",
        [_Array(name, array.dtype, array.shape[:-2]) for name, array in zip(names, arrays, strict=True)],
    )
    keys = [list(flatten(own)) for own in sources.keys]
    grids = [ChunkGrid.of(array.chunks[-2:], array.dtype.itemsize)[0] for array in arrays]
    height, width = arrays[0].shape[-2:]
    rows, columns = -(-height // block), -(-width // block)
    grid: dict[tuple[int, int], TaskRef] = {}
    for row, column in product(range(rows), range(columns)):
        top, left = row * block, column * block
        window = Window(top, min(top + block, height), left, min(left + block, width))
        windows, chunks = [], []
        for own, edges in zip(keys, grids, strict=True):
            inside = list(
                product(
                    overlapping(edges.y, window.top, window.bottom),
                    overlapping(edges.x, window.left, window.right),
                )
            )
            windows.append(tuple(edges.window(iy, ix) for iy, ix in inside))
            chunks += [TaskRef(own[iy * (len(edges.x) - 1) + ix]) for iy, ix in inside]
        own_key = (f"{BLOCK_TASKS}{run}", row, column)
        box = _Box(window, tuple(windows))
        args = shared, (row, column), declared, box, chunks
        grid[row, column] = add_task(tasks, own_key, _work_on_block, *args)
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
    [result] = grid.values()
    return graph.delayed(f"pyramid-{run}", result)


def _work_on_block(
    work: PyramidWork,
    index: tuple[int, int],
    declared: Sequence[_Array],
    box: _Box,
    chunks: Sequence[Any],
) -> Any:
    limit_in_worker()
    remaining = iter(chunks)
    planes = []
    for array, windows in zip(declared, box.chunks, strict=True):
        found = [(window, array.checked(window, next(remaining))) for window in windows]
        planes.append(_joined(box.window, found))
    return work.block(index, planes)


def _joined(target: Window, chunks: Sequence[tuple[Window, NDArray[Any]]]) -> NDArray[Any]:
    """Return the pixels of a window; those of a single chunk are not copied."""
    window, first = chunks[0]
    if len(chunks) == 1:
        return first[index_in(target, window)]
    out = np.empty((len(first), *target.shape), first.dtype)
    for window, chunk in chunks:
        common = window.intersection(target)
        out[index_in(common, target)] = chunk[index_in(common, window)]
    return out


def _work_on_group(
    work: PyramidWork, stage: int, index: tuple[int, int], columns: int, parts: Sequence[Any]
) -> Any:
    return work.group(stage, index, columns, parts)
