"""Lazy arrays whose chunks come together: of blocks that were worked on, or of boxes that are read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from dask.array.core import Array, getter
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import TaskRef
from dask.tokenize import tokenize
from numpy.typing import NDArray

from xee_tf.blocks import Block, BlockLayout, chunk_edges, stitch
from xee_tf.geometry import Window
from xee_tf.graph.blocks import BlockWork, Work, block_tasks, keys_by_home
from xee_tf.graph.order import turns
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import Ref, Tasks, add_task, add_value, layer_of

__all__ = ["ArraySpec", "arrays_of_blocks", "arrays_of_boxes"]


@dataclass(frozen=True)
class ArraySpec:
    """One of several arrays of the same chunks: what Dask must know of it, whatever it holds.

    Parameters
    ----------
    name : str
    dtype : numpy.dtype
        Of the chunks. `BandSpec.dtype` is that of the band's source, which need not be known.
    shape : tuple of int
        Lengths of the axes in front of y and x along which there is one chunk.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def arrays_of_blocks(
    name: str,
    sources: Sequence[Any],
    layout: BlockLayout,
    work: Work,
    outputs: Sequence[ArraySpec],
    windows: Mapping[Block, Window],
    *,
    steps: Mapping[Hashable, int],
    chunks: tuple[tuple[int, ...], tuple[int, ...]],
    version: Any,
) -> list[Array]:
    """Lazy arrays whose chunks are put together from what the work of blocks gives.

    Parameters
    ----------
    name : str
        Of the tasks, to which a token is added.
    sources : sequence of Dask arrays
        For each step the arrays of which `layout` has the planes.
    layout : BlockLayout
    work : callable
        ``work(layout, block, pieces)`` gives a mapping with ``(*shape, y, x)`` of each output. Where
        windows of blocks overlap, the values are added.
    outputs : sequence of ArraySpec
    windows : mapping
        The pixels that each block gives.
    steps : mapping from dimension to length
        Axes in front, of which every step has sources of its own.
    chunks : tuple
        Along y and x.
    version
        What the values depend on beside the keys of `sources`, `layout` and `work`.

    Returns
    -------
    list of dask.array.Array
        For each output ``(*steps, *shape, y, x)``.
    """
    # Under their own keys: an image and its prediction that are computed together share what is loaded.
    found = Sources.of_planes(sources)
    # Of the keys, and not of the arrays' names: a persisted array has the name that it had before.
    token = tokenize(repr(found.keys), work, layout, version)
    tasks: Tasks = {}
    common = add_value(tasks, f"work-{name}-{token}", BlockWork(layout, work))
    planes, homes = len(layout.planes), layout.chunks_by_home()
    blocks = []
    for number, step in enumerate(np.ndindex(*steps.values())):
        own = found.keys[number * planes : (number + 1) * planes]
        loaded = {block: list(map(TaskRef, keys)) for block, keys in keys_by_home(homes, own).items()}
        step_name = "-".join([name, *map(str, step), token])
        blocks.append(block_tasks(tasks, layout, homes, loaded, common, step_name))
    empty, order = turns(f"{name}-turn-{token}", len(blocks) * len(chunks[0]) * len(chunks[1]))
    layers = {f"sources-{token}": layer_of(found.graph, found.annotations), f"{name}-{token}": tasks | empty}
    return [
        _stitched(
            f"{name}-band-{output.name}-{token}",  # no layer is called like a band
            output,
            layers,
            windows,
            blocks,
            order,
            tuple(steps.values()),
            chunks,
        )
        for output in outputs
    ]


def arrays_of_boxes(
    name: str,
    source: Any,
    read: Callable[..., Any],
    outputs: Sequence[ArraySpec],
    chunks: tuple[tuple[int, ...], ...],
    *,
    order: Callable[[Any], Any] | None = None,
) -> list[Array]:
    """Lazy arrays whose chunks are read together, a task for each box.

    Parameters
    ----------
    name : str
        Of the tasks and arrays; different wherever what is read is different.
    source
        Travels once to each worker, and not with each task.
    read : callable
        ``read(source, box)``, with (first, behind the last) along each axis of `chunks`, gives what is
        indexed ``[number of the output, ..., y, x]``.
    outputs : sequence of ArraySpec
    chunks : tuple
        Along the axes that all arrays have: y and x, and others in front of the outputs' own axes.
    order : callable, optional
        A key by which boxes are sorted that should be read in order.

    Returns
    -------
    list of dask.array.Array
    """
    edges = [chunk_edges(lengths) for lengths in chunks]
    boxes = {
        number: tuple((edge[i], edge[i + 1]) for edge, i in zip(edges, number, strict=True))
        for number in np.ndindex(*map(len, chunks))
    }
    opening, reading = f"open-{name}", f"read-{name}"
    layers: dict[str, Tasks] = {opening: {}, reading: {}}
    opened = add_value(layers[opening], opening, source)
    after: dict[Any, list[Ref]] = {number: [] for number in boxes}
    if order is not None:
        # Left to itself, Dask runs tasks that are all alike backwards.
        numbers = sorted(boxes, key=lambda number: order(boxes[number]))
        empty, waits = turns(f"turn-{name}", len(numbers))
        layers[opening] |= empty
        after = dict(zip(numbers, waits, strict=True))
    read_boxes = {
        number: add_task(layers[reading], (reading, *number), _read, read, opened, box, *after[number])
        for number, box in boxes.items()
    }
    arrays = []
    front = len(chunks) - 2
    for i, output in enumerate(outputs):
        own, zeros = f"band-{output.name}-{name}", (0,) * len(output.shape)
        whole = (slice(None),) * (len(chunks) + len(zeros))
        tasks: Tasks = {}
        for number, box in read_boxes.items():
            add_task(tasks, (own, *number[:front], *zeros, *number[front:]), getter, box, (i, *whole))
        lengths = (*chunks[:front], *((length,) for length in output.shape), *chunks[front:])
        arrays.append(Array(_stacked({**layers, own: tasks}), own, lengths, dtype=output.dtype))
    return arrays


def _read(read: Callable[..., Any], source: Any, box: Any, *turn: None) -> Any:
    return read(source, box)


def _stacked(layers: Mapping[str, Any]) -> HighLevelGraph:
    """A graph of layers of which each stands on those before."""
    names = list(layers)
    return HighLevelGraph(layers, {name: set(names[:number]) for number, name in enumerate(names)})


def _stitched(
    name: str,
    output: ArraySpec,
    layers: Mapping[str, Any],
    windows: Mapping[Block, Window],
    blocks: Sequence[Mapping[Block, Ref]],
    order: Sequence[Sequence[Ref]],
    lead: tuple[int, ...],
    chunks: tuple[tuple[int, ...], tuple[int, ...]],
) -> Array:
    """One output of all blocks: its chunks take their turns row by row, and steps one after another."""
    edges = [chunk_edges(sizes) for sizes in chunks]
    tasks: Tasks = {}
    zeros = (0,) * len(output.shape)
    rows = _meeting(edges[0], {row: (window.top, window.bottom) for (row, _), window in windows.items()})
    columns = _meeting(edges[1], {at: (window.left, window.right) for (_, at), window in windows.items()})
    turn = iter(order)
    for row, column in np.ndindex(len(rows), len(columns)):
        target = Window(*edges[0][row : row + 2], *edges[1][column : column + 2])
        met = list(product(rows[row], columns[column]))
        places = [windows[block] for block in met]
        for index, given in zip(np.ndindex(*lead), blocks, strict=True):
            key = (name, *index, *zeros, row, column)
            found = [given[block] for block in met]
            add_task(tasks, key, _stitch, output.name, len(lead), target, places, found, *next(turn))
    ones = tuple((1,) * length for length in lead)
    whole = tuple((length,) for length in output.shape)
    return Array(_stacked({**layers, name: tasks}), name, (*ones, *whole, *chunks), dtype=output.dtype)


def _meeting(edges: Sequence[int], spans: Mapping[int, tuple[int, int]]) -> list[list[int]]:
    """For each chunk along an axis the blocks that share pixels with it."""
    return [
        [block for block, (begin, end) in spans.items() if begin < after and end > before]
        for before, after in pairwise(edges)
    ]


def _stitch(
    band: str,
    lead: int,
    target: Window,
    windows: Sequence[Window],
    found: Sequence[Mapping[str, NDArray[Any]]],
    *turn: None,
) -> NDArray[Any]:
    stitched = stitch(target, [(window, each[band]) for window, each in zip(windows, found, strict=True)])
    return stitched.reshape((1,) * lead + stitched.shape)
