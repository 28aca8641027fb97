"""The tasks of blocks: one that loads a block's chunks, one that keeps their strips, one that does its work.

The graph is made by hand, since the ready-made overlap costs an order of magnitude more tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from numpy.typing import NDArray

from xee_tf.blocks import Block, BlockLayout, Chunk, ChunkGrid, Pieces, cut_strips
from xee_tf.graph.order import in_order
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import Graph, Key, Ref, Tasks, add_task, add_value

__all__ = [
    "BlockJob",
    "BlockWork",
    "Work",
    "block_tasks",
    "chunk_grids",
    "keys_by_home",
    "work_on_blocks",
]

Work = Callable[[BlockLayout, Block, Pieces], Any]
"""``work(layout, block, pieces)`` with block = (row, column) and pieces as `assemble` takes them."""


@dataclass(frozen=True)
class BlockJob:
    """The work that is to be done for every block of some arrays.

    Parameters
    ----------
    name : str
        Of the tasks; Dask's dashboard groups by what stands in front of a hexadecimal ending.
    arrays : sequence of Dask arrays
        (y, x) or (step, y, x).
    layout : BlockLayout
        The blocks; its planes are those of the arrays.
    work : callable
        See `Work`; must be picklable.
    """

    name: str
    arrays: Sequence[Any]
    layout: BlockLayout
    work: Work


def chunk_grids(arrays: Sequence[Any]) -> tuple[ChunkGrid, ...]:
    """The planes of arrays (y, x) and (step, y, x), in order."""
    return tuple(grid for array in arrays for grid in ChunkGrid.of(array.chunks, array.dtype.itemsize))


def work_on_blocks(
    jobs: Sequence[BlockJob], *, ordered: bool = False
) -> tuple[Graph, list[dict[Block, Ref]]]:
    """The tasks of several jobs, so that a chunk that several of them need is loaded once.

    Parameters
    ----------
    jobs : sequence of BlockJob
    ordered : bool
        Whether blocks are made row by row, so that few chunks are alive. Those of all jobs that have the same
        number follow one another: what a chunk holds for several jobs is used while it is there.

    Returns
    -------
    graph : Graph
        To which further tasks can be added.
    blocks : list of dict
        For each job what its blocks give.
    """
    sources = Sources.of_planes([array for job in jobs for array in job.arrays], fused=True)
    keys = iter(sources.keys)
    homes = [job.layout.chunks_by_home() for job in jobs]
    groups: dict[Key, list[Key]] = {}
    for number, job in enumerate(jobs):
        own = keys_by_home(homes[number], [next(keys) for _ in job.layout.planes])
        groups |= {(number, block): chunks for block, chunks in own.items()}
    graph, found = sources.loads(groups)
    loaded: list[dict[Block, Ref]] = [{} for _ in jobs]
    for (number, block), chunks in found.items():
        loaded[number][block] = chunks
    blocks = []
    for job, chunks_at, own_chunks in zip(jobs, homes, loaded, strict=True):
        work = add_value(graph.tasks, f"work-{job.name}", BlockWork(job.layout, job.work))
        blocks.append(block_tasks(graph.tasks, job.layout, chunks_at, own_chunks, work, job.name))
    if ordered:
        order = [(number, block) for row in zip_longest(*blocks) for number, block in enumerate(row) if block]
        refs = [blocks[number][block] for number, block in order]
        done = in_order(graph.tasks, refs, f"order-{jobs[0].name}")
        for (number, block), last in zip(order, done, strict=True):
            blocks[number][block] = last
    return graph, blocks


def keys_by_home(
    homes: Mapping[Block, Sequence[Chunk]], keys: Sequence[Sequence[Sequence[Key]]]
) -> dict[Block, list[Key]]:
    """The keys, given by plane, row and column, of the chunks that start in each block."""
    return {block: [keys[plane][iy][ix] for plane, iy, ix in chunks] for block, chunks in homes.items()}


def block_tasks(
    tasks: Tasks,
    layout: BlockLayout,
    homes: Mapping[Block, Sequence[Chunk]],
    loaded: Mapping[Block, Ref],
    work: Ref,
    name: str,
) -> dict[Block, Ref]:
    """Add tasks that do the work of every block that owns patches.

    Parameters
    ----------
    tasks : dict
    layout : BlockLayout
    homes : mapping
        As `BlockLayout.chunks_by_home` gives it.
    loaded : mapping
        The chunks that start in each block, in the order of `homes`. Each is loaded once, however many
        blocks need a part of it.
    work : Ref
        A `BlockWork`, by reference: a model may be in it, or all points of a sample.
    name : str
        As for `BlockJob`.

    Returns
    -------
    dict
        What the work gives, for each block.
    """
    strips = {
        block: add_task(tasks, (f"strips-{name}", *block), BlockWork.keep_strips, work, chunks, loaded[block])
        for block, chunks in homes.items()
        if any(layout.strips(*chunk) for chunk in chunks)
    }
    blocks = {}
    for block in layout.blocks():
        others = sorted({piece.home for piece in layout.pieces(*block)} - {block})
        kept = [strips[home] for home in others]
        chunks, own = homes.get(block, []), loaded.get(block, [])
        blocks[block] = add_task(tasks, (name, *block), BlockWork.do, work, block, chunks, own, kept)
    return blocks


@dataclass(frozen=True)
class BlockWork:
    """What the tasks of all blocks have in common."""

    layout: BlockLayout
    work: Work

    def keep_strips(self, chunks: Sequence[Chunk], loaded: Sequence[NDArray[Any]]) -> Any:
        """What later blocks need of the chunks of one block."""
        return cut_strips(self.layout, list(zip(chunks, loaded, strict=True)))

    def do(
        self,
        block: Block,
        chunks: Sequence[Chunk],
        loaded: Sequence[NDArray[Any]],
        strips: Sequence[Mapping[Chunk, Mapping[str, NDArray[Any]]]],
    ) -> Any:
        """The work of one block, from its own chunks and from strips of those above and beside them."""
        own = dict(zip(chunks, loaded, strict=True))
        kept = {chunk: parts for each in strips for chunk, parts in each.items()}
        pieces = []
        for piece in self.layout.pieces(*block):
            chunk = (piece.plane, piece.iy, piece.ix)
            pieces.append((piece, own[chunk] if piece.home == block else kept[chunk][piece.part]))
        return self.work(self.layout, block, pieces)
