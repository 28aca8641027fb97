"""Build the tasks of blocks: one loads the chunks of a block, one keeps their strips, one does its work.

`dask.array.overlap` is not used, because it needs an order of magnitude more tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dask.task_spec import TaskRef
from numpy.typing import NDArray

from xee_tf.blocks import Block, BlockLayout, Chunk, ChunkGrid, cut_strips
from xee_tf.gdal_cache import limit_in_worker
from xee_tf.graph.declared import DeclaredPlane, declared_planes
from xee_tf.graph.order import in_order
from xee_tf.graph.placing import place_tasks, workers_by_block
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import (
    Annotations,
    ChunkedArray,
    Graph,
    Key,
    Ref,
    Tasks,
    add_task,
    add_value,
    first_of,
)

__all__ = [
    "BlockJob",
    "BlockWork",
    "Work",
    "block_tasks",
    "chunk_grids",
    "chunks_by_plane",
    "keys_by_home",
    "order_blocks",
    "work_on_blocks",
]

Work = Callable[..., Any]
"""A function ``work(layout, block, pieces)`` with block = (row, column) and pieces as for `assemble`.

If blocks have values (`BlockJob.values`), that of the block is the last argument.
"""


@dataclass(frozen=True)
class BlockJob:
    """The work for every block of some arrays.

    Parameters
    ----------
    name : str
        Name of the tasks; Dask's dashboard groups tasks by name, without a hexadecimal suffix.
    arrays : sequence of ChunkedArray
        Arrays of shape (y, x) or (step, y, x).
    bands : sequence of str
        The name of the band of each array, for error messages.
    layout : BlockLayout
        The blocks; its planes are the planes of the arrays.
    work : callable
        See `Work`; must be picklable.
    blocks : collection of (int, int), optional
        The blocks to work on. Default: all that have patches.
    after : mapping of int to list of TaskRef
        References to results that must exist before the chunks of a row of blocks are loaded.
    values : mapping of (int, int) to object, optional
        A value for each of `blocks`, which only its task holds: an additional argument of the work.
    """

    name: str
    arrays: Sequence[ChunkedArray]
    bands: Sequence[str]
    layout: BlockLayout
    work: Work
    blocks: Collection[Block] | None = None
    after: Mapping[int, Sequence[TaskRef]] = field(default_factory=dict)
    values: Mapping[Block, Any] | None = None


def chunk_grids(arrays: Sequence[ChunkedArray]) -> tuple[ChunkGrid, ...]:
    """Return the planes of arrays (y, x) and (step, y, x), in order."""
    return tuple(grid for array in arrays for grid in ChunkGrid.of(array.chunks, array.dtype.itemsize))


def work_on_blocks(jobs: Sequence[BlockJob]) -> tuple[Graph, list[dict[Block, TaskRef]]]:
    """Build the tasks of several jobs, so that a chunk that several jobs need is loaded once.

    Parameters
    ----------
    jobs : sequence of BlockJob
        The jobs.

    Returns
    -------
    graph : Graph
        The tasks, to which further tasks can be added.
    blocks : list of dict
        For each job, references to the results of its blocks.
    """
    homes = [job.layout.chunks_by_home(job.blocks) for job in jobs]
    sources = Sources.of_planes(
        [array for job in jobs for array in job.arrays],
        [
            plane
            for job, found in zip(jobs, homes, strict=True)
            for plane in chunks_by_plane(found, len(job.layout.planes))
        ],
        fused=True,
    )
    keys = iter(sources.keys)
    groups: dict[Key, list[Key]] = {}
    after: dict[Key, Sequence[TaskRef]] = {}
    for number, job in enumerate(jobs):
        own = keys_by_home(homes[number], [next(keys) for _ in job.layout.planes])
        groups |= {(number, block): chunks for block, chunks in own.items()}
        after |= {(number, block): job.after[block[0]] for block in own if block[0] in job.after}
    graph, loaded_groups = sources.loads(groups, after)
    loaded: list[dict[Block, Ref]] = [{} for _ in jobs]
    for (number, block), loaded_chunks in loaded_groups.items():
        loaded[number][block] = loaded_chunks
    blocks = []
    places: list[Annotations] = []
    for job, chunks_at, own_chunks in zip(jobs, homes, loaded, strict=True):
        planes = declared_planes(job.arrays, job.bands)
        work = add_value(graph.tasks, f"work-{job.name}", BlockWork(job.layout, planes, job.work))
        done, block_of = block_tasks(
            graph.tasks, job.layout, chunks_at, own_chunks, work, job.name, job.blocks, job.values
        )
        blocks.append(done)
        places.append(place_tasks(workers_by_block(job.layout), block_of))
    return graph.annotated(*places), blocks


def order_blocks(
    graph: Graph,
    jobs: Sequence[Mapping[Block, TaskRef]],
    name: str,
    function: Callable[..., Any] = first_of,
    before: Sequence[Mapping[int, Sequence[TaskRef]]] = (),
) -> list[dict[Block, TaskRef]]:
    """Let Dask process blocks row by row, so that few chunks are in memory; see `xee_tf.graph.order`.

    Blocks of different jobs at the same place follow each other, so that they use a chunk while it is in
    memory.

    Parameters
    ----------
    graph : Graph
        The tasks of the blocks; modified in place.
    jobs : sequence of mapping
        For each job, references to the results of its blocks.
    name : str
        Name of the tasks.
    function : callable
        See `in_order`.
    before : sequence of mapping of int to list of TaskRef
        For each job, references to what Dask should compute before it continues with a row of blocks.

    Returns
    -------
    list of dict
        References to the results of `function`.
    """
    order = sorted(((number, block) for number, job in enumerate(jobs) for block in job), key=_block_first)
    refs = [jobs[number][block] for number, block in order]
    waits: list[Sequence[TaskRef]] = [()] * len(order)
    seen = set()
    for step, (number, (row, _)) in enumerate(order):
        if before and (number, row) not in seen:
            seen.add((number, row))
            waits[step] = before[number].get(row, ())
    done = in_order(graph, refs, name, function, waits)
    found: list[dict[Block, TaskRef]] = [{} for _ in jobs]
    for (number, block), last in zip(order, done, strict=True):
        found[number][block] = last
    return found


def _block_first(each: tuple[int, Block]) -> tuple[Block, int]:
    number, block = each
    return block, number


def chunks_by_plane(homes: Mapping[Block, Sequence[Chunk]], planes: int) -> list[list[tuple[int, int]]]:
    """Return the rows and columns of the chunks of each plane, from the chunks by their blocks."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(planes)]
    for chunks in homes.values():
        for plane, iy, ix in chunks:
            found[plane].append((iy, ix))
    return found


def keys_by_home(
    homes: Mapping[Block, Sequence[Chunk]], keys: Sequence[Mapping[tuple[int, int], Key]]
) -> dict[Block, list[Key]]:
    """Return the keys of the chunks that start in each block, from keys by plane, then by row and column."""
    return {block: [keys[plane][iy, ix] for plane, iy, ix in chunks] for block, chunks in homes.items()}


def block_tasks(
    tasks: Tasks,
    layout: BlockLayout,
    homes: Mapping[Block, Sequence[Chunk]],
    loaded: Mapping[Block, Ref],
    work: TaskRef,
    name: str,
    chosen: Collection[Block] | None = None,
    values: Mapping[Block, Any] | None = None,
) -> tuple[dict[Block, TaskRef], dict[Key, Block]]:
    """Add tasks that do the work of every block that owns patches.

    One task keeps the strips of a block; see also `BlockLayout.separate_strips`.

    Parameters
    ----------
    tasks : dict
        The tasks by their keys; modified in place.
    layout : BlockLayout
        The blocks.
    homes : mapping
        The result of `BlockLayout.chunks_by_home`.
    loaded : mapping
        References to the chunks that start in each block, in the order of `homes`. Each chunk is loaded once,
        even if several blocks need a part of it.
    work : TaskRef
        A `BlockWork`; by reference, because it may be large (a model, or the polygons of a sample).
    name : str
        See `BlockJob`.
    chosen : collection of (int, int), optional
        See `BlockJob.blocks`.
    values : mapping of (int, int) to object, optional
        See `BlockJob.values`.

    Returns
    -------
    blocks : dict
        References to the results of the blocks.
    block_of : dict
        The block of each task, including those that load chunks.
    """
    strips: dict[tuple[Block, str | None], TaskRef] = {}
    blocks = {}
    block_of: dict[Key, Block] = {ref.key: home for home, ref in loaded.items() if isinstance(ref, TaskRef)}
    for block in layout.blocks() if chosen is None else sorted(chosen):
        pieces = [piece for piece in layout.pieces(*block) if piece.home != block]
        needed = sorted({(piece.home, piece.part if layout.separate_strips else None) for piece in pieces})
        for home, part in needed:
            if (home, part) not in strips:
                key = ("-".join(filter(None, ("strips", part, name))), *home)
                args = work, homes[home], loaded[home], part
                strips[home, part] = add_task(tasks, key, BlockWork.keep_strips, *args)
                block_of[key] = home
        kept = [strips[each] for each in needed]
        chunks, own = homes.get(block, []), loaded.get(block, [])
        value = () if values is None else (values[block],)
        blocks[block] = add_task(tasks, (name, *block), BlockWork.do, work, block, chunks, own, kept, *value)
        block_of[name, *block] = block
    return blocks, block_of


@dataclass(frozen=True)
class BlockWork:
    """The layout, what is declared of its planes, and the work: what the tasks of all blocks share."""

    layout: BlockLayout
    planes: Sequence[DeclaredPlane]
    work: Work

    def keep_strips(
        self, chunks: Sequence[Chunk], loaded: Sequence[NDArray[Any]], part: str | None
    ) -> dict[Chunk, dict[str, NDArray[Any]]]:
        """Return the strips of the chunks of one block that other blocks need; see `cut_strips`."""
        limit_in_worker()
        return cut_strips(self.layout, self._checked(chunks, loaded), part)

    def do(
        self,
        block: Block,
        chunks: Sequence[Chunk],
        loaded: Sequence[NDArray[Any]],
        strips: Sequence[Mapping[Chunk, Mapping[str, NDArray[Any]]]],
        *value: Any,
    ) -> Any:
        """Do the work of one block, with its own chunks and value and the strips of other blocks."""
        limit_in_worker()
        own = dict(self._checked(chunks, loaded))
        kept = {
            (chunk, part): strip
            for each in strips
            for chunk, parts in each.items()
            for part, strip in parts.items()
        }
        pieces = []
        for piece in self.layout.pieces(*block):
            chunk = (piece.plane, piece.iy, piece.ix)
            pieces.append((piece, own[chunk] if piece.home == block else kept[chunk, piece.part]))
        return self.work(self.layout, block, pieces, *value)

    def _checked(self, chunks: Sequence[Chunk], loaded: Sequence[Any]) -> list[tuple[Chunk, NDArray[Any]]]:
        return [
            ((plane, iy, ix), self.planes[plane].checked(self.layout.planes[plane], iy, ix, values))
            for (plane, iy, ix), values in zip(chunks, loaded, strict=True)
        ]
