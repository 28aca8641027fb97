"""Join the runs of blocks to shards: the tasks of each kind of store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, product
from typing import Any

from xee_tf.blocks import Block
from xee_tf.export.plan import ExportPlan
from xee_tf.graph import Graph, TaskRef, add_task
from xee_tf.shards import FileStore, Part, SequentialStore, ShardStore, UploadStore, WrittenShard, place_runs
from xee_tf.storage import Earlier, Staging, upload_service

__all__ = ["ShardTasks", "blocks_to_do", "rows_before", "store_of", "task_name"]

_HELD_BYTES = 128 << 20  # bytes of a row of blocks before compression that may wait in memory


def store_of(plan: ExportPlan, staging: Staging, earlier: Earlier) -> ShardStore:
    """Return the store for an export: the one in which each byte is written the fewest times."""
    names = plan.names
    patch_bytes = plan.record_bytes * plan.record.per_patch
    if upload_service(names.prefix) is not None:
        return UploadStore(staging, names, earlier, patch_bytes * plan.patches_per_shard)
    if not names.prefix.is_local:
        return SequentialStore(staging, names, earlier)
    if plan.places_known:
        return FileStore(staging, names, earlier, patch_bytes, plan.patches_per_shard)
    return FileStore(staging, names, earlier, spill=plan.row_bytes > _HELD_BYTES)


def blocks_of_shard(plan: ExportPlan, shard: int) -> list[Block]:
    """Return the blocks that have patches of a shard."""
    grid, layout, patches = plan.grid, plan.block_layout, plan.patch_shards.patches_of(shard)
    (top, left), (bottom, right) = grid.locate(patches[0]), grid.locate(patches[-1])
    if bottom > top:
        left, right = 0, grid.patches_per_row - 1
    return list(product(layout.y.owners(top, bottom), layout.x.owners(left, right)))


def blocks_to_do(plan: ExportPlan, finished: Collection[int]) -> set[Block]:
    """Return the blocks that have patches of shards that are not finished; if all are, none is computed."""
    if not finished:
        return set(plan.block_layout.blocks())
    return {
        block
        for shard in range(plan.shards)
        if shard not in finished
        for block in blocks_of_shard(plan, shard)
    }


def task_name(name: str, token: str) -> str:
    """Return the name of tasks of an export, which its token distinguishes from those of others."""
    return f"tfrecord-{name}-{token}"


def rows_before(blocks: Iterable[Block], token: str, lag: int) -> dict[int, list[TaskRef]]:
    """Return a reference to the task that waits for the row of blocks `lag` rows before each row."""
    rows = sorted({row for row, _ in blocks})
    return {row: [_written(token, before)] for row, before in zip(rows[lag:], rows, strict=False)}


def _written(token: str, row: int) -> TaskRef:
    return TaskRef((task_name("written", token), row))


def wait_for(*results: object) -> None:
    """Return nothing: the function of a task that others wait for, without a copy of its arguments."""


def parts_of_row(blocks: Sequence[Sequence[Part]], before: object = None) -> list[Part]:
    """Return the parts of a row of blocks; `before`, the parts of the row above, only makes it wait."""
    return list(chain.from_iterable(blocks))


@dataclass(frozen=True)
class ShardTasks:
    """The tasks that join the runs of blocks to shards.

    Parameters
    ----------
    graph : Graph
        The tasks of the blocks; modified in place.
    plan : ExportPlan
        The plan of the export.
    store : ShardStore
        The store.
    token : str
        See `task_name`.
    blocks : mapping
        References to the parts of each block.
    finished : mapping of int to WrittenShard
        Shards that an interrupted write has completed.
    """

    graph: Graph
    plan: ExportPlan
    store: ShardStore
    token: str
    blocks: Mapping[Block, TaskRef]
    finished: Mapping[int, WrittenShard]

    def join(self, ordered: Mapping[Block, TaskRef]) -> list[TaskRef | WrittenShard]:
        """Add the tasks of all shards; return references to these.

        Parameters
        ----------
        ordered : mapping
            References to the parts of each block or, if these are in memory, to the sizes of their runs, in
            a chain of tasks.
        """
        if isinstance(self.store, FileStore):
            parts = self._place(self.store, ordered) if self.in_memory else ordered
            added = {
                shard: self._finish(shard, *self._first(shard), self._blocks_of(shard, parts))
                for shard in self._missing()
            }
        else:
            added = self._write_rows(ordered)
        return [self.finished.get(number) or added[number] for number in range(self.plan.shards)]

    @property
    def in_memory(self) -> bool:
        """Whether the runs of a block wait in memory for those of others."""
        return not isinstance(self.store, FileStore) or self.store.group_bytes is None

    def _key(self, name: str, *numbers: int) -> tuple[Any, ...]:
        return (task_name(name, self.token), *numbers)

    def _first(self, shard: int) -> tuple[int, int, int]:
        """Return the number of a shard, of its first record, and the size of its header."""
        first = self.plan.patch_shards.patches_of(shard)[0] * self.plan.record.per_patch
        return shard, first, self.plan.header_size(shard)

    def _finish(self, shard: int, *values: Any) -> TaskRef:
        """Add the task that completes a shard."""
        store: Any = self.store
        return add_task(self.graph.tasks, self._key("shard", shard), store.finish, *values)

    def _blocks_of(self, shard: int, found: Mapping[Block, TaskRef]) -> list[TaskRef]:
        """Return references to the results of the blocks that have records of a shard, or of their rows."""
        refs = [found[block] for block in blocks_of_shard(self.plan, shard) if block in found]
        return list(dict.fromkeys(refs))

    def _rows(self) -> list[tuple[int, list[Block]]]:
        return [(row, list(blocks)) for row, blocks in groupby(self.blocks, key=lambda block: block[0])]

    def _place(self, store: FileStore, sizes: Mapping[Block, TaskRef]) -> dict[Block, TaskRef]:
        """Add tasks that write runs to their places, as soon as the sizes of all runs before are known.

        Return for each block a reference to the parts of its row. Rows are in a chain: if shards depended on
        blocks, Dask would load the last blocks of a shard first.
        """
        placed: dict[Block, TaskRef] = {}
        offsets: TaskRef | None = None
        before: TaskRef | None = None
        for row, blocks in self._rows():
            headers = {shard: self.plan.header_size(shard) for shard in self._shards_of(row)}
            known = [sizes[block] for block in blocks]
            offsets = add_task(
                self.graph.tasks, self._key("offsets", row), place_runs, headers, known, offsets
            )
            written = [
                self.graph.add_beside(
                    self.blocks[block], self._key("write", *block), store.place, self.blocks[block], offsets
                )
                for block in blocks
            ]
            before = add_task(self.graph.tasks, self._key("row", row), parts_of_row, written, before)
            placed |= dict.fromkeys(blocks, before)
        return placed

    def _shards_of(self, row: int) -> list[int]:
        return [shard for shard in self.plan.shards_of(row) if shard not in self.finished]

    def _write_rows(self, sizes: Mapping[Block, TaskRef]) -> dict[int, TaskRef]:
        """Add tasks that write the rows of blocks in turn; return those that complete the shards."""
        states: dict[int, TaskRef] = {}
        complete: dict[int, TaskRef] = {}
        store, rows = self.store, self._rows()
        if isinstance(store, UploadStore):
            uploads = add_task(self.graph.tasks, self._key("create"), store.create_uploads, self._missing())
        for number, (row, blocks) in enumerate(rows):
            parts, turns = [self.blocks[block] for block in blocks], [sizes[block] for block in blocks]
            shards = self._shards_of(row)
            following = self._shards_of(rows[number + 1][0]) if number + 1 < len(rows) else []
            for shard in shards:
                if isinstance(store, UploadStore):
                    key = self._key("append", row, shard)
                    states[shard] = add_task(
                        self.graph.tasks, key, store.append, uploads, shard, states.get(shard), parts, turns
                    )
                    if shard not in following:
                        complete[shard] = self._finish(shard, uploads, *self._first(shard), states[shard])
                elif shard not in following:
                    needed = self._blocks_of(shard, self.blocks)
                    complete[shard] = self._finish(shard, *self._first(shard), needed, turns)
            done = [(complete if shard in complete else states).get(shard) for shard in shards]
            add_task(self.graph.tasks, _written(self.token, row).key, wait_for, *filter(None, done))
        return complete

    def _missing(self) -> list[int]:
        return [shard for shard in range(self.plan.shards) if shard not in self.finished]
