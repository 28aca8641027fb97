"""The Dask layer: one task that keeps a block's strips, one that does its work.

The graph is made by hand, since the ready-made overlap costs an order of magnitude more tasks.
Arrays are met through the Dask protocol alone (keys, graph, chunks), so that any chunked array
that follows it will do.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.task_spec import Alias, DataNode, List, Task, TaskRef
from numpy.typing import NDArray

from xee_tf.blocks.assemble import cut_strips
from xee_tf.blocks.layout import BlockLayout, ChunkGrid, Piece

__all__ = ["Sources", "Tasks", "block_tasks", "chunk_grids", "gather", "in_order", "to_delayed"]

Key = Any
Tasks = dict[Any, Task]
Work = Callable[[BlockLayout, tuple[int, int], Sequence[tuple[Piece, NDArray[Any]]]], Any]


def chunk_grids(arrays: Sequence[Any]) -> tuple[ChunkGrid, ...]:
    """The planes of arrays (y, x) and (step, y, x), in order."""
    return tuple(grid for array in arrays for grid in ChunkGrid.of(array.chunks, array.dtype.itemsize))


@dataclass(frozen=True)
class Sources:
    """The chunks of several arrays: one graph, and the key of every chunk.

    Parameters
    ----------
    graph : mapping
        All tasks that load chunks.
    keys : list
        For each plane its chunks' keys, as nested lists [row][column].
    chained : bool
        Whether a chain of empty tasks is to keep the blocks in order. Left to itself, Dask wanders
        over a graph of neighbours and keeps chunks of many rows alive; the chain makes it take
        blocks in order and holds none of them up. On a cluster it would tie the whole export to the
        life of every worker: there, priorities do the same, which only the distributed scheduler knows.
    """

    graph: Mapping[Key, Any]
    keys: list[list[list[Key]]]
    chained: bool

    @classmethod
    def of(cls, arrays: Sequence[Any], *, chained: bool) -> Sources:
        """Simplify the graphs of arrays (y, x) and (step, y, x) together; what they share stays shared.

        `dask.optimize` would treat each array apart from the others: a chunk that holds several
        bands would then be loaded once for each of them.
        """
        graph: Any = HighLevelGraph.from_collections("sources", {}, dependencies=arrays)
        keys = [
            plane
            for array in arrays
            for plane in (array.__dask_keys__() if array.ndim == 3 else [array.__dask_keys__()])
        ]
        optimizers = {array.__dask_optimize__ for array in arrays}
        if len(optimizers) == 1:
            graph = optimizers.pop()(graph, list(flatten(keys)))
        tasks = dict(graph)
        if chained:
            # Dask notes for every task which tasks it goes back to; along a chain that would grow
            # with the square of the chunks, were it not one and the same for all.
            start = f"start-{uuid.uuid4().hex}"
            data = {key for key, node in tasks.items() if isinstance(node, DataNode)}
            for key, node in tasks.items():
                if key not in data and node.dependencies <= data:
                    tasks[key] = Task(key, _after, node, TaskRef(start))
            tasks[start] = Task(start, _after, None)

        def target(key: Key) -> Key:
            while isinstance(tasks[key], Alias):
                key = tasks[key].target
            return key

        return cls(tasks, [[[target(key) for key in row] for row in rows] for rows in keys], chained)


def block_tasks(
    layout: BlockLayout, sources: Sources, work: Work, name: str
) -> tuple[Tasks, dict[tuple[int, int], Key]]:
    """Tasks that call `work` once for every block that owns patches.

    Parameters
    ----------
    layout : BlockLayout
        The blocks; its planes are those of the arrays.
    sources : Sources
        Each chunk is loaded once, however many blocks need a part of it.
    work : callable
        ``work(layout, block, pieces)`` with block = (row, column) and pieces as `assemble` takes
        them; must be picklable.
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
    """Add a chain of empty tasks behind others; see `Sources`.

    Returns
    -------
    dict
        For every key the one that stands for it from now on.
    """
    renamed: dict[Key, Key] = {}
    before: list[Any] = []
    for number, done in enumerate(keys):
        key = (name, number)
        tasks[key] = Task(key, _after, TaskRef(done), *before)
        before = [TaskRef(key)]
        renamed[done] = key
    return renamed


def gather(tasks: Tasks, key: Key, function: Callable[..., Any], keys: Sequence[Key], *args: Any) -> Key:
    """Add a task ``function(*args, [results of keys])`` and give its key back."""
    tasks[key] = Task(key, function, *args, List(*(TaskRef(each) for each in keys)))
    return key


def to_delayed(tasks: Tasks, name: str, key: Key, sources: Sources, blocks: Iterable[Key]) -> Delayed:
    """A Delayed that computes `key`, block by block from the top left."""
    annotations = None if sources.chained else {"priority": _priorities(tasks, sources, blocks).get}
    layers = {
        "sources": MaterializedLayer(sources.graph, annotations=annotations),
        name: MaterializedLayer(tasks, annotations=annotations),
    }
    graph = HighLevelGraph(layers, {"sources": set(), name: {"sources"}})
    return Delayed(key, graph, layer=name)


def _priorities(tasks: Tasks, sources: Sources, blocks: Iterable[Key]) -> dict[Key, int]:
    """For the distributed scheduler: the earlier the block, the higher the priority of all it needs."""
    priorities: dict[Key, int] = {}
    for number, key in enumerate(blocks):
        below = [key]
        while below:
            each = below.pop()
            node = tasks.get(each) or sources.graph.get(each)
            if node is not None and each not in priorities:
                priorities[each] = -number
                below.extend(node.dependencies)
    return priorities


def _keep_strips(
    layout: BlockLayout, chunks: Sequence[tuple[int, int, int]], loaded: Sequence[NDArray[Any]]
) -> Any:
    return cut_strips(layout, list(zip(chunks, loaded, strict=True)))


def _after(result: Any, *before: Any) -> Any:
    return result


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
