"""Join the runs of blocks to shards: the tasks of each kind of store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, product
from typing import Any

from xee_tf.blocks import Block
from xee_tf.export.plan import ExportPlan
from xee_tf.graph import Graph, TaskRef, add_task
from xee_tf.shards import (
    FileStore,
    Part,
    Segment,
    SequentialStore,
    ShardStore,
    UploadStore,
    WrittenShard,
    place_runs,
)
from xee_tf.storage import Earlier, Staging, upload_service

__all__ = ["ShardTasks", "blocks_to_do", "rows_before", "store_of", "task_name"]

_RATIO = 2  # of compression: records with this multiple of the bytes of a part are uploaded by their worker

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
    """Return the blocks that have patches of a shard, and with a selection those between them."""
    grid, layout, shards = plan.grid, plan.block_layout, plan.patch_shards
    places = shards.places_of(shard)
    (top, left), (bottom, right) = (grid.locate(shards.number(place)) for place in (places[0], places[-1]))
    if bottom > top:
        left, right = 0, grid.patches_per_row - 1
    return list(product(layout.y.owners(top, bottom), layout.x.owners(left, right)))


def blocks_to_do(plan: ExportPlan, finished: Collection[int]) -> set[Block]:
    """Return the blocks that have patches of shards that are not finished; if all are, none is computed."""
    if not finished:
        return set(plan.needed_blocks)
    return {
        block
        for shard in range(plan.shards)
        if shard not in finished
        for block in blocks_of_shard(plan, shard)
        if block in plan.needed_blocks
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
        elif isinstance(self.store, UploadStore):
            added = self._upload(self.store, ordered)
        else:
            added = self._collect(ordered)
        return [self.finished.get(number) or added[number] for number in range(self.plan.shards)]

    @property
    def in_memory(self) -> bool:
        """Whether the runs of a block wait in memory for those of others."""
        return not isinstance(self.store, FileStore) or self.store.group_bytes is None

    def _key(self, name: str, *numbers: int) -> tuple[Any, ...]:
        return (task_name(name, self.token), *numbers)

    def _first(self, shard: int) -> tuple[int, int, int]:
        """Return the number of a shard, of its first record, and the size of its header."""
        first = self.plan.patch_shards.places_of(shard)[0] * self.plan.record.per_patch
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

    def _collect(self, sizes: Mapping[Block, TaskRef]) -> dict[int, TaskRef]:
        """Add tasks that write each shard when its last row of blocks is encoded; return them."""
        complete: dict[int, TaskRef] = {}
        for row, blocks, ending in self._rows_with_ending_shards():
            turns = [sizes[block] for block in blocks]
            for shard in ending:
                needed = self._blocks_of(shard, self.blocks)
                complete[shard] = self._finish(shard, *self._first(shard), needed, turns)
            self._end_row(row, [complete[shard] for shard in ending])
        return complete

    def _upload(self, store: UploadStore, sizes: Mapping[Block, TaskRef]) -> dict[int, TaskRef]:
        """Add tasks that upload the segments of the rows of blocks; return those that complete the shards."""
        uploads = add_task(self.graph.tasks, self._key("create"), store.create_uploads, self._missing())
        pushed: dict[int, list[TaskRef]] = {shard: [] for shard in self._missing()}
        carries: dict[int, TaskRef] = {}
        complete: dict[int, TaskRef] = {}
        for row, blocks, ending in self._rows_with_ending_shards():
            done = []
            for number, (segment, own, beside) in enumerate(self._segments(store, row, blocks)):
                shard, parts = segment.shard, [self.blocks[block] for block in own]
                values = segment, carries.get(shard), parts, [sizes[block] for block in own]
                key = self._key("push", row, number)
                done.append(self.graph.add_beside(beside, key, store.push, uploads, *values))
                pushed[shard].append(done[-1])
                key = self._key("carry", row, number)
                carries[shard] = self.graph.add_beside(beside, key, store.carry, *values)
            for shard in ending:
                first, last = self._first(shard), carries.get(shard)
                complete[shard] = self._finish(shard, uploads, *first, pushed[shard], last)
                done.append(complete[shard])
            self._end_row(row, done)
        return complete

    def _segments(
        self, store: UploadStore, row: int, blocks: Sequence[Block]
    ) -> Iterator[tuple[Segment, Sequence[Block], TaskRef]]:
        """Yield the segments of a row of blocks, each with its blocks and one whose worker uploads it.

        On a cluster, a segment is a part of a row of patches: the blocks of one worker or, if their records
        are too small for a part of an upload, of several neighbors.
        """
        if len({self._worker(block) for block in blocks}) == 1:
            for shard in self._shards_of(row):
                yield Segment(shard), blocks, self.blocks[blocks[0]]
            return
        layout, width = self.plan.block_layout, self.plan.grid.patches_per_row
        place = self.plan.patch_shards.place
        groups = [
            (self._columns(group), group, self.blocks[self._widest(group)])
            for group in self._groups(blocks, store.least_bytes())
        ]
        for shard, patch_row in product(self._shards_of(row), layout.y.owned(row)):
            places = self.plan.patch_shards.places_of(shard)
            for columns, group, beside in groups:
                runs = range(
                    max(place(patch_row * width + columns.start), places.start),
                    min(place(patch_row * width + columns.stop), places.stop),
                )
                if runs:
                    yield Segment(shard, runs), group, beside

    def _groups(self, blocks: Sequence[Block], part: int) -> list[list[Block]]:
        """Divide a row of blocks by worker, and join neighbors that are too small for a part of an upload."""
        needed = part * (_RATIO if self.plan.compressed else 1)
        least = needed / (self.plan.record_bytes * self.plan.record.per_patch)
        groups: list[list[Block]] = [[]]
        for _, own in groupby(blocks, self._worker):
            if len(self._columns(groups[-1])) >= least:
                groups.append([])
            groups[-1].extend(own)
        if len(groups) > 1 and len(self._columns(groups[-1])) < least:
            groups[-2:] = [groups[-2] + groups[-1]]
        return groups

    def _widest(self, blocks: Sequence[Block]) -> Block:
        """Return a block of the worker with the most patches; of several workers, another for each row."""
        by_worker = [list(own) for _, own in groupby(blocks, self._worker)]
        widths = [len(self._columns(own)) for own in by_worker]
        widest = [own[0] for own, width in zip(by_worker, widths, strict=True) if width == max(widths)]
        return widest[blocks[0][0] % len(widest)]

    def _worker(self, block: Block) -> str | None:
        return self.graph.worker_of(self.blocks[block])

    def _columns(self, blocks: Sequence[Block]) -> range:
        """Return the columns of the patches of neighboring blocks."""
        owned = [self.plan.block_layout.x.owned(column) for _, column in blocks]
        return range(owned[0].start, owned[-1].stop) if owned else range(0)

    def _rows_with_ending_shards(self) -> Iterator[tuple[int, list[Block], list[int]]]:
        """Yield the rows of blocks, each with the shards that have no patches in the rows after it."""
        rows = self._rows()
        following = [self._shards_of(row) for row, _ in rows[1:]] + [[]]
        for (row, blocks), later in zip(rows, following, strict=True):
            yield row, blocks, [shard for shard in self._shards_of(row) if shard not in later]

    def _end_row(self, row: int, written: Sequence[TaskRef]) -> None:
        """Add the task that waits until a row of blocks is written; see `rows_before`."""
        add_task(self.graph.tasks, _written(self.token, row).key, wait_for, *written)

    def _missing(self) -> list[int]:
        return [shard for shard in range(self.plan.shards) if shard not in self.finished]
