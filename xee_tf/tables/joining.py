"""Join the row groups of a table to one file: the tasks of each kind of store."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dask.system import CPU_COUNT

from xee_tf.graph import Ref, TaskRef, Tasks, add_task, add_wait
from xee_tf.shards import (
    Appended,
    FileStore,
    OneFile,
    Part,
    SequentialStore,
    UploadStore,
    WrittenShard,
    place_runs,
    run_sizes,
    shard_header,
)
from xee_tf.sidecars import TableColumn
from xee_tf.storage import Earlier, Staging, upload_service

__all__ = ["TablePart", "TableStore", "append_parts", "join_parts", "table_store"]

_WAITING = 2 * CPU_COUNT  # parts that may wait in memory until they are uploaded

TableStore = FileStore | SequentialStore | UploadStore


@dataclass(frozen=True)
class TablePart:
    """The encoded part of one row group."""

    part: Part
    records: int
    columns: tuple[TableColumn, ...]
    rounded: tuple[str, ...]
    dropped: int

    @property
    def without_bytes(self) -> TablePart:
        """The facts about the part."""
        return replace(self, part=self.part.without_bytes)


def table_store(staging: Staging, names: OneFile, earlier: Earlier) -> TableStore:
    """Return the store for a table: the one in which each byte is written the fewest times."""
    if names.prefix.is_local:
        return FileStore(staging, names, earlier, spill=True)
    if upload_service(names.prefix) is not None:
        return UploadStore(staging, names, earlier)
    return SequentialStore(staging, names, earlier)


def append_parts(
    tasks: Tasks, token: str, store: TableStore, groups: Sequence[Ref], parts: list[TaskRef], *, waits: bool
) -> list[TaskRef] | None:
    """Add tasks that upload the parts in turn, if the store can do that; return references to their results.

    The references to the parts are replaced by references to parts without their bytes. If `waits` is true, a
    row group waits until an earlier part is uploaded, so that few parts are in memory.
    """
    if not isinstance(store, UploadStore):
        return None
    uploads = add_task(tasks, f"table-create-{token}", store.create_uploads, [0])
    states: list[TaskRef] = []
    for number, (group, part) in enumerate(zip(groups, parts, strict=True)):
        if waits and number >= _WAITING:
            # If several tasks load a row group, other groups may need them.
            add_wait(tasks, group if isinstance(group, TaskRef) else part, states[number - _WAITING])
        before = states[-1] if states else None
        states.append(
            add_task(tasks, (f"table-append-{token}", number), _append, store, uploads, before, part)
        )
        parts[number] = add_task(
            tasks, (f"table-facts-{token}", number), operator.attrgetter("without_bytes"), part
        )
    return [uploads, *states[-1:]]


def _append(
    store: UploadStore, uploads: Mapping[int, str], before: Appended | None, part: TablePart
) -> Appended:
    return store.append(uploads, 0, before, [[part.part]])


def join_parts(store: TableStore, parts: Sequence[Part], appended: Sequence[Any] | None) -> WrittenShard:
    """Join the parts to one file; `appended` are the results of `append_parts`."""
    if isinstance(store, UploadStore):
        uploads, state = appended or ({}, Appended())
        return store.finish(uploads, 0, 0, None, state)
    if isinstance(store, SequentialStore):
        return store.finish(0, 0, None, [parts])
    header = len(shard_header([run for part in parts for run in part.runs], 0))
    placed = store.place(parts, place_runs({0: header}, [run_sizes(parts)]))
    return store.finish(0, 0, header, [placed])
