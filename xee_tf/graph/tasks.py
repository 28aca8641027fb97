"""The Dask layer: one task that keeps a block's strips, one that does its work.

The graph is made by hand, since the ready-made overlap costs an order of magnitude more tasks.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from dask.array.core import Array
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import GraphNode, List, Task, TaskRef
from numpy.typing import NDArray

from xee_tf.blocks.assemble import cut_strips, stitch
from xee_tf.blocks.layout import BlockLayout, ChunkGrid, Piece
from xee_tf.geometry import Window
from xee_tf.graph.sources import Key, Sources, annotated_layer, first_of

__all__ = [
    "Tasks",
    "block_tasks",
    "chunk_grids",
    "each_chunk",
    "gather",
    "in_order",
    "stitched_array",
    "to_delayed",
    "turns",
]

Tasks = dict[Any, Task]
_LEAST_BITS = 40  # more ways down than these powers of two no block will have

Work = Callable[[BlockLayout, tuple[int, int], Sequence[tuple[Piece, NDArray[Any]]]], Any]


def chunk_grids(arrays: Sequence[Any]) -> tuple[ChunkGrid, ...]:
    """The planes of arrays (y, x) and (step, y, x), in order."""
    return tuple(grid for array in arrays for grid in ChunkGrid.of(array.chunks, array.dtype.itemsize))


def block_tasks(
    layout: BlockLayout, sources: Sources, work: Work | TaskRef, name: str
) -> tuple[Tasks, dict[tuple[int, int], Key]]:
    """Tasks that call `work` once for every block that owns patches.

    Parameters
    ----------
    layout : BlockLayout
        The blocks; its planes are those of the arrays.
    sources : Sources
        Of planes. Each chunk is loaded once, however many blocks need a part of it.
    work : callable
        ``work(layout, block, pieces)`` with block = (row, column) and pieces as `assemble` takes
        them; must be picklable. Or a reference to it, where it is too large to travel in every task.
    name : str
        Of the tasks; Dask's dashboard groups by what stands in front of a hexadecimal ending.

    Returns
    -------
    tasks : dict
    blocks : dict
        The key of each block's task.
    """
    keys = sources.keys
    strips_name = f"strips-{name}"
    tasks: Tasks = {}

    waiting: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for plane in range(len(keys)):
        for iy, ix in layout.chunks(plane):
            if layout.strips(plane, iy, ix):
                waiting.setdefault(layout.home(plane, iy, ix), []).append((plane, iy, ix))
    for block, chunks in waiting.items():
        key = (strips_name, *block)
        loaded = List(*(TaskRef(keys[plane][iy][ix]) for plane, iy, ix in chunks))
        tasks[key] = Task(key, _keep_strips, layout, chunks, loaded)

    blocks: dict[tuple[int, int], Key] = {}
    for block in layout.blocks():
        pieces = layout.pieces(*block)
        homes = sorted({piece.home for piece in pieces if piece.home != block})
        own = List(*(TaskRef(keys[p.plane][p.iy][p.ix]) for p in pieces if p.home == block))
        strips = List(*(TaskRef((strips_name, *home)) for home in homes))
        key = (name, *block)
        tasks[key] = Task(key, _do_block, work, layout, block, own, homes, strips)
        blocks[block] = key
    return tasks, blocks


def in_order(tasks: Tasks, keys: Sequence[Key], name: str) -> dict[Key, Key]:
    """Add a chain of empty tasks behind others; see `Sources.of_planes`.

    Returns
    -------
    dict
        For every key the one that stands for it from now on.
    """
    renamed: dict[Key, Key] = {}
    before: list[Any] = []
    for number, done in enumerate(keys):
        key = (name, number)
        tasks[key] = Task(key, first_of, TaskRef(done), *before)
        before = [TaskRef(key)]
        renamed[done] = key
    return renamed


def turns(name: str, count: int) -> tuple[Tasks, list[list[Key]]]:
    """Empty tasks that make Dask compute `count` other tasks in their order, if these depend on them.

    No task has to wait for the one before it, as with `in_order`: of a lazy array a part can be computed.
    Where all tasks go back to one root, `dask.order` begins with those that have the most tasks below
    them, every way down counted; where they have sources of their own, it does so among those that need
    the fewest further sources. So there are tasks with twice as many below them as those before, and each
    turn takes those that add up to its rank; the first ones stand for what a turn's own work may count. All
    wait for the last one too, or else those of a low rank would be ready first.

    Parameters
    ----------
    name : str
        Of the empty tasks; alone, it is that of the one root.
    count : int

    Returns
    -------
    tasks : dict
    keys : list of list
        What each turn has to depend on.
    """
    tasks: Tasks = {name: Task(name, first_of, None)}
    below = [TaskRef(name)]
    bits = _LEAST_BITS + count.bit_length()
    for bit in range(bits):
        twins = [(name, bit, twin) for twin in (0, 1)]
        for key in twins:
            tasks[key] = Task(key, first_of, None, *below)
        below = [TaskRef(key) for key in twins]
    weights = [(name, bit, 0) for bit in range(_LEAST_BITS, bits)]
    end = (name, bits)
    tasks[end] = Task(end, first_of, None, *below)
    return tasks, [
        [*(key for bit, key in enumerate(weights) if rank >> bit & 1), end] for rank in range(count, 0, -1)
    ]


def gather(tasks: Tasks, key: Key, function: Callable[..., Any], keys: Sequence[Key], *args: Any) -> Key:
    """Add a task ``function(*args, [results of keys])`` and give its key back."""
    tasks[key] = Task(key, function, *args, List(*(TaskRef(each) for each in keys)))
    return key


def to_delayed(tasks: Tasks, name: str, key: Key, sources: Sources, blocks: Iterable[Key]) -> Delayed:
    """A Delayed that computes `key`, block by block from the top left."""
    order = {} if sources.chained else {"priority": _priorities(tasks, sources, blocks)}
    below = f"{name}-sources"  # where graphs are merged, layers of one name would replace each other
    layers = {below: sources.layer(**order), name: annotated_layer(tasks, order)}
    graph = HighLevelGraph(layers, {below: set(), name: {below}})
    return Delayed(key, graph, layer=name)


def stitched_array(
    name: str,
    band: str,
    layers: Mapping[str, Mapping[Key, Any]],
    windows: Mapping[tuple[int, int], Window],
    blocks: Sequence[Mapping[tuple[int, int], Key]],
    order: Sequence[Sequence[Key]],
    *,
    lead: Sequence[int],
    shape: Sequence[int],
    chunks: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: np.dtype[Any],
) -> Array:
    """A lazy array whose chunks are put together from what blocks give.

    Parameters
    ----------
    name : str
        Of the array.
    band : str
        Which of the arrays that a block's task gives: ``(*shape, y, x)``. Where windows of blocks overlap,
        the values are added.
    layers : mapping
        Named tasks, those of blocks last, each layer standing on the ones before.
    windows : mapping
        The pixels that each block speaks of, by its row and column.
    blocks : sequence
        For each index of `lead` the keys of the blocks' tasks.
    order : sequence
        What each chunk depends on beside its blocks, for the sake of order: see `turns`. By row, column and
        index of `lead`.
    lead : sequence of int
        Lengths of axes in front, of which every step has blocks of its own.
    shape : sequence of int
        Lengths of axes of which blocks give all steps.
    chunks : tuple
        Along y and x.
    dtype : numpy.dtype

    Returns
    -------
    dask.array.Array
        ``(*lead, *shape, y, x)``.
    """
    edges = [np.cumsum([0, *sizes]).tolist() for sizes in chunks]
    tasks: Tasks = {}
    zeros = (0,) * len(shape)
    rows = _meeting(edges[0], {row: (window.top, window.bottom) for (row, _), window in windows.items()})
    columns = _meeting(edges[1], {at: (window.left, window.right) for (_, at), window in windows.items()})
    turn = iter(order)
    for row, column in np.ndindex(len(rows), len(columns)):
        target = Window(*edges[0][row : row + 2], *edges[1][column : column + 2])
        met = list(product(rows[row], columns[column]))
        places = [windows[block] for block in met]
        for index, keys in zip(np.ndindex(*lead), blocks, strict=True):
            key = (name, *index, *zeros, row, column)
            found = List(*(TaskRef(keys[block]) for block in met))
            tasks[key] = Task(key, _stitch, band, len(lead), target, places, found, *map(TaskRef, next(turn)))
    below, dependencies = set[str](), {}
    for layer in (*layers, name):
        dependencies[layer] = set(below)
        below.add(layer)
    ones, whole = tuple((1,) * length for length in lead), tuple((length,) for length in shape)
    graph = HighLevelGraph({**layers, name: tasks}, dependencies)
    return Array(graph, name, (*ones, *whole, *chunks), dtype=dtype)


def each_chunk(
    work: Callable[[tuple[int, ...], Sequence[NDArray[Any]]], None],
    arrays: Sequence[Any],
    indices: Sequence[tuple[int, ...]],
    name: str,
) -> Delayed:
    """A Delayed that calls ``work(index, chunks)`` for some chunks of several arrays together.

    Parameters
    ----------
    work : callable
        Must be picklable.
    arrays : sequence of Dask arrays
        Of one chunking along the axes that count; further ones in front of the last two are one chunk.
    indices : sequence of tuple of int
        Chunks by their numbers along the axes that count.
    name : str
        Of the tasks.
    """
    run = uuid.uuid4().hex
    tasks: Tasks = {}
    for index in indices:
        inner = ((0,) * (array.ndim - len(index)) for array in arrays)
        chunks = List(
            *(
                TaskRef((array.name, *index[:-2], *zeros, *index[-2:]))
                for array, zeros in zip(arrays, inner, strict=True)
            )
        )
        key = (f"{name}-{run}", *index)
        tasks[key] = Task(key, work, index, chunks)
    key = gather(tasks, f"{name}-all-{run}", first_of, list(tasks))
    layer = f"{name}-{run}"
    graph = HighLevelGraph.from_collections(layer, tasks, dependencies=arrays)
    return Delayed(key, graph, layer=layer)


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


def _priorities(tasks: Tasks, sources: Sources, blocks: Iterable[Key]) -> dict[Key, int]:
    """For the distributed scheduler: the earlier the block, the higher the priority of all it needs."""
    priorities: dict[Key, int] = {}
    for number, key in enumerate(blocks):
        below = [key]
        while below:
            each = below.pop()
            node = tasks.get(each, sources.graph.get(each))
            if isinstance(node, GraphNode) and each not in priorities:  # and not a Future
                priorities[each] = -number
                below.extend(node.dependencies)
    return priorities


def _keep_strips(
    layout: BlockLayout, chunks: Sequence[tuple[int, int, int]], loaded: Sequence[NDArray[Any]]
) -> Any:
    return cut_strips(layout, list(zip(chunks, loaded, strict=True)))


def _do_block(
    work: Work,
    layout: BlockLayout,
    block: tuple[int, int],
    own: Sequence[NDArray[Any]],
    homes: Sequence[tuple[int, int]],
    strips: Sequence[Mapping[tuple[int, int, int], Mapping[str, NDArray[Any]]]],
) -> Any:
    chunks = iter(own)
    kept = dict(zip(homes, strips, strict=True))
    pieces = [
        (
            piece,
            next(chunks)
            if piece.home == block
            else kept[piece.home][piece.plane, piece.iy, piece.ix][piece.part],
        )
        for piece in layout.pieces(*block)
    ]
    return work(layout, block, pieces)
