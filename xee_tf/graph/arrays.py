"""Create several lazy arrays whose chunks are computed together: from blocks, or by reading boxes."""

from __future__ import annotations

import math
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
from xarray.namedarray.parallelcompat import list_chunkmanagers

from xee_tf.blocks import Block, BlockLayout, chunk_edges, stitch
from xee_tf.geometry import Window
from xee_tf.graph.blocks import BlockWork, Work, block_tasks, chunks_by_plane, keys_by_home
from xee_tf.graph.declared import declared_planes
from xee_tf.graph.order import most_paths, ordering_tasks
from xee_tf.graph.placing import place_tasks, workers_by_block
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import (
    ChunkedArray,
    Key,
    Ref,
    Tasks,
    add_task,
    add_value,
    layer_of,
    merge_annotations,
)

__all__ = ["ArraySpec", "arrays_of_blocks", "arrays_of_boxes", "for_xarray", "shared_array"]


_BLOCKS_OF_A_CHUNK = 4  # most chunks of a result overlap no more blocks


@dataclass(frozen=True)
class ArraySpec:
    """The name, dtype and additional axes of one of several arrays with the same chunks.

    Parameters
    ----------
    name : str
        Name of the array.
    dtype : numpy.dtype
        The dtype of the chunks (`BandSpec.dtype` is the dtype of the source of a band, if it is known).
    shape : tuple of int
        Lengths of the axes before y and x that have a single chunk.
    source : str, optional
        The name of the output of a `Work` that the chunks are made from. Default: `name`.
    finish : callable, optional
        Function that is applied to chunks when they are assembled. It must be part of `version`.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    source: str | None = None
    finish: Callable[[NDArray[Any]], NDArray[Any]] | None = None


def arrays_of_blocks(
    name: str,
    sources: Sequence[ChunkedArray],
    bands: Sequence[str],
    layout: BlockLayout,
    work: Work,
    outputs: Sequence[ArraySpec],
    windows: Mapping[Block, Window],
    *,
    steps: Mapping[Hashable, int],
    chunks: tuple[tuple[int, ...], tuple[int, ...]],
    version: Any,
) -> list[Array]:
    """Create lazy arrays whose chunks are assembled from the results of blocks.

    Parameters
    ----------
    name : str
        Name of the tasks, to which a token is appended.
    sources : sequence of ChunkedArray
        For each step, the arrays of the planes of `layout`.
    bands : sequence of str
        The name of the band of each array of a step, for error messages.
    layout : BlockLayout
        The blocks.
    work : callable
        ``work(layout, block, pieces)`` returns a mapping with an array ``(*shape, y, x)`` for each output.
        Where the windows of blocks overlap, the values are added.
    outputs : sequence of ArraySpec
        The arrays to create.
    windows : mapping of block to Window
        The pixels in the result of each block.
    steps : mapping of str to int
        Dimensions before the axes of the outputs, with their lengths. Each step has separate sources.
    chunks : tuple of tuple of int
        Chunk lengths along y and x.
    version : object
        Anything else that the values depend on, in addition to the keys of `sources`, `layout` and `work`.

    Returns
    -------
    list of dask.array.Array
        An array ``(*steps, *shape, y, x)`` for each output.
    """
    # Sources keep their keys: an image and its prediction that are computed together share loaded chunks.
    count, homes = len(layout.planes), layout.chunks_by_home()
    planes = Sources.of_planes(sources, chunks_by_plane(homes, count) * math.prod(steps.values()))
    # The token depends on keys, not on names of arrays, because persisting an array keeps its name.
    token = tokenize(repr(planes.keys), work, layout, version)
    tasks: Tasks = {}
    declared = declared_planes(sources[: len(bands)], bands)
    common = add_value(tasks, f"work-{name}-{token}", BlockWork(layout, declared, work))
    blocks = []
    block_of: dict[Key, Block] = {}
    for number, step in enumerate(np.ndindex(*steps.values())):
        own = planes.keys[number * count : (number + 1) * count]
        own_keys = keys_by_home(homes, own)
        loaded: dict[Block, Ref] = {block: list(map(TaskRef, keys)) for block, keys in own_keys.items()}
        step_name = "-".join([name, *map(str, step), token])
        done, found = block_tasks(tasks, layout, homes, loaded, common, step_name)
        blocks.append(done)
        block_of |= found | {key: block for block, keys in own_keys.items() for key in keys}
    results = (ref.key for done in blocks for ref in done.values())
    paths = _BLOCKS_OF_A_CHUNK * most_paths({**planes.graph, **tasks}, results)
    count = len(blocks) * len(chunks[0]) * len(chunks[1])
    # Persisted sources have the same keys, but fewer paths, and thus another order.
    ordered = f"{token}-{paths.bit_length()}"
    empty, order = ordering_tasks(f"{name}-turn-{ordered}", count, paths)
    workers = workers_by_block(layout)
    places = place_tasks(workers, block_of)
    layers = {
        f"sources-{token}": layer_of(planes.graph, merge_annotations(planes.annotations, places)),
        f"{name}-{ordered}": layer_of(tasks | empty, places),
    }
    return [
        _stitched(
            f"{name}-band-{output.name}-{ordered}",  # "-band-" prevents conflicts with names of layers
            output,
            layers,
            workers,
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
    """Create lazy arrays whose chunks are read together, by one task for each box.

    Parameters
    ----------
    name : str
        Name of the tasks and arrays; must be unique to the content that is read.
    source : object
        Passed to `read`; sent once to each worker, not with every task.
    read : callable
        ``read(source, box)`` with a box of ``(start, stop)`` along each axis of `chunks`; returns an array or
        sequence that is indexed as ``[number of the output, ..., y, x]``.
    outputs : sequence of ArraySpec
        The arrays to create.
    chunks : tuple of tuple of int
        Chunk lengths along the axes that all arrays have: y and x, preceded by others, which come before the
        axes of the outputs.
    order : callable, optional
        Sort key of the boxes, if they should be read in order.

    Returns
    -------
    list of dask.array.Array
        An array for each output.
    """
    edges = [chunk_edges(lengths) for lengths in chunks]
    boxes = {
        number: tuple((edge[i], edge[i + 1]) for edge, i in zip(edges, number, strict=True))
        for number in np.ndindex(*map(len, chunks))
    }
    opening, reading = f"open-{name}", f"read-{name}"
    layers: dict[str, Tasks] = {opening: {}, reading: {}}
    opened = add_value(layers[opening], opening, source)
    after: dict[tuple[int, ...], list[TaskRef]] = {number: [] for number in boxes}
    if order is not None:
        # By default, Dask runs identical tasks in reverse order.
        numbers = sorted(boxes, key=lambda number: order(boxes[number]))
        empty, waits = ordering_tasks(f"turn-{name}", len(numbers), paths=2)
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


def shared_array(name: str, value: Any) -> Any:
    """Return a lazy array of no dimensions whose chunk is a value that tasks share; see `add_value`.

    Functions that are applied to chunks get the value as the chunk of this array.
    """
    name = f"{name}-{tokenize(value)}"
    tasks: Tasks = {}
    add_value(tasks, (name,), value)
    return for_xarray(Array(HighLevelGraph({name: tasks}, {name: set()}), name, (), dtype=object))


def for_xarray(array: Array) -> Any:
    """Return an array of the type that xarray creates, with which it can be combined.

    This is `dask.array.Array`, unless the user has registered another implementation, such as the package
    dask-array.
    """
    manager = list_chunkmanagers().get("dask")
    if manager is None or isinstance(array, manager.array_cls):
        return array
    return manager.rechunk(array, array.chunks)


def _read(read: Callable[..., Any], source: Any, box: Any, *turn: None) -> Any:
    return read(source, box)


def _stacked(layers: Mapping[str, Any]) -> HighLevelGraph:
    """Return a graph of layers in which each layer depends on all layers before it."""
    names = list(layers)
    return HighLevelGraph(layers, {name: set(names[:number]) for number, name in enumerate(names)})


def _stitched(
    name: str,
    output: ArraySpec,
    layers: Mapping[str, Any],
    workers: Mapping[Block, str],
    windows: Mapping[Block, Window],
    blocks: Sequence[Mapping[Block, TaskRef]],
    order: Sequence[Sequence[TaskRef]],
    lead: tuple[int, ...],
    chunks: tuple[tuple[int, ...], tuple[int, ...]],
) -> Array:
    """Create the array of one output; its chunks are ordered row by row, with all steps of each together."""
    edges = [chunk_edges(sizes) for sizes in chunks]
    tasks: Tasks = {}
    zeros = (0,) * len(output.shape)
    rows = _overlapping(edges[0], {row: (window.top, window.bottom) for (row, _), window in windows.items()})
    columns = _overlapping(
        edges[1], {column: (window.left, window.right) for (_, column), window in windows.items()}
    )
    turn = iter(order)
    block_of: dict[Key, Block] = {}
    for row, column in np.ndindex(len(rows), len(columns)):
        target = Window(*edges[0][row : row + 2], *edges[1][column : column + 2])
        needed = list(product(rows[row], columns[column]))
        parts = [windows[block] for block in needed]
        for index, results in zip(np.ndindex(*lead), blocks, strict=True):
            key = (name, *index, *zeros, row, column)
            refs = [results[block] for block in needed]
            band, finish = output.source or output.name, output.finish
            add_task(tasks, key, _stitch, band, finish, len(lead), target, parts, refs, *next(turn))
            block_of[key] = needed[0]
    ones = tuple((1,) * length for length in lead)
    whole = tuple((length,) for length in output.shape)
    graph = _stacked({**layers, name: layer_of(tasks, place_tasks(workers, block_of))})
    return Array(graph, name, (*ones, *whole, *chunks), dtype=output.dtype)


def _overlapping(edges: Sequence[int], spans: Mapping[int, tuple[int, int]]) -> list[list[int]]:
    """Return the blocks that overlap each chunk along one axis."""
    return [
        [block for block, (begin, end) in spans.items() if begin < after and end > before]
        for before, after in pairwise(edges)
    ]


def _stitch(
    band: str,
    finish: Callable[[NDArray[Any]], NDArray[Any]] | None,
    lead: int,
    target: Window,
    windows: Sequence[Window],
    results: Sequence[Mapping[str, NDArray[Any]]],
    *turn: None,
) -> NDArray[Any]:
    stitched = stitch(target, [(window, each[band]) for window, each in zip(windows, results, strict=True)])
    if finish is not None:
        stitched = finish(stitched)
    return stitched.reshape((1,) * lead + stitched.shape)
