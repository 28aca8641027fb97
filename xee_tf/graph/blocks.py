"""The tasks of blocks: one that loads a block's chunks, one that keeps their strips, one that does its work.

The graph is made by hand, since the ready-made overlap costs an order of magnitude more tasks.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from numpy.typing import NDArray

from xee_tf.blocks.assemble import cut_strips
from xee_tf.blocks.layout import BlockLayout, ChunkGrid, Piece
from xee_tf.graph.order import in_order
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import Key, Ref, Tasks, add_task, add_value

__all__ = [
    "BlockJob",
    "BlockWork",
    "Work",
    "block_tasks",
    "chunk_grids",
    "chunks_of_blocks",
    "work_on_blocks",
]

Block = tuple[int, int]
Chunk = tuple[int, int, int]
Work = Callable[[BlockLayout, Block, Sequence[tuple[Piece, NDArray[Any]]]], Any]
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
    jobs: Sequence[BlockJob], *, chained: bool = False
) -> tuple[Tasks, Sources, list[dict[Block, Ref]]]:
    """The tasks of several jobs, so that a chunk that several of them need is loaded once.

    Parameters
    ----------
    jobs : sequence of BlockJob
    chained : bool
        Whether a chain of empty tasks keeps the blocks in order: see `in_order`. On a cluster it would tie
        the whole work to the life of every worker; there, priorities do the same.

    Returns
    -------
    tasks : dict
    sources : Sources
        The tasks that load chunks.
    blocks : list of dict
        For each job what its blocks give. Row by row, blocks of all jobs that have the same number follow
        one another: what a chunk holds for several jobs is used while it is there.
    """
    run = uuid.uuid4().hex[:12]
    sources = Sources.of_planes([array for job in jobs for array in job.arrays], renamed=True)
    groups: dict[Key, list[Key]] = {}
    planes = 0
    for number, job in enumerate(jobs):
        keys = sources.keys[planes : planes + len(job.layout.planes)]
        groups |= {(number, *block): found for block, found in chunks_of_blocks(job.layout, keys).items()}
        planes += len(job.layout.planes)
    sources, loaded = sources.loads(groups, f"load-{run}")
    tasks: Tasks = {}
    blocks = [
        block_tasks(
            tasks,
            job.layout,
            {(row, column): ref for (owner, row, column), ref in loaded.items() if owner == number},
            add_value(tasks, f"work-{job.name}", BlockWork(job.layout, job.work)),
            job.name,
        )
        for number, job in enumerate(jobs)
    ]
    if chained:
        order = [(number, block) for row in zip_longest(*blocks) for number, block in enumerate(row) if block]
        done = in_order(tasks, [blocks[number][block] for number, block in order], f"order-{run}")
        blocks = [{} for _ in jobs]
        for (number, block), ref in zip(order, done, strict=True):
            blocks[number][block] = ref
    return tasks, sources, blocks


def chunks_of_blocks(layout: BlockLayout, keys: Sequence[Sequence[Sequence[Key]]]) -> dict[Block, list[Key]]:
    """The keys, by plane, row and column, of the chunks that start in each block."""
    return {
        block: [keys[plane][iy][ix] for plane, iy, ix in chunks]
        for block, chunks in layout.chunks_by_home().items()
    }


def block_tasks(
    tasks: Tasks, layout: BlockLayout, loaded: Mapping[Block, Ref], work: Ref, name: str
) -> dict[Block, Ref]:
    """Add tasks that do the work of every block that owns patches.

    Parameters
    ----------
    tasks : dict
    layout : BlockLayout
    loaded : mapping
        The chunks that start in each block, in the order of `BlockLayout.chunks_by_home`. Each is loaded
        once, however many blocks need a part of it.
    work : Ref
        A `BlockWork`, by reference: a model may be in it, or all points of a sample.
    name : str
        As for `BlockJob`.

    Returns
    -------
    dict
        What the work gives, for each block.
    """
    homes = layout.chunks_by_home()
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
