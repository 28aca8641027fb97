"""Join the row groups of a table to one file: the tasks of each kind of store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xee_tf.graph import TaskRef, Tasks, add_task
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


def append_parts(tasks: Tasks, run: str, store: TableStore, parts: list[TaskRef]) -> TaskRef | None:
    """Add tasks that upload the parts in turn, if the store can do that; return their result.

    The references to the parts are replaced by references to parts without their bytes.
    """
    if not isinstance(store, UploadStore):
        return None
    uploads = add_task(tasks, f"table-create-{run}", store.create_uploads, [0])
    state: TaskRef | None = None
    for number, part in enumerate(parts):
        state = add_task(tasks, (f"table-append-{run}", number), _append, store, uploads, state, part)
        parts[number] = add_task(tasks, (f"table-facts-{run}", number), _without_bytes, part)
    return add_task(tasks, f"table-appended-{run}", _pair, uploads, state)


def _append(
    store: UploadStore, uploads: Mapping[int, str], before: Appended | None, part: TablePart
) -> Appended:
    return store.append(uploads, 0, before, [[part.part]])


def _without_bytes(part: TablePart) -> TablePart:
    return part.without_bytes


def _pair(uploads: Mapping[int, str], state: Appended | None) -> tuple[Mapping[int, str], Appended]:
    return uploads, state or Appended()


def join_parts(
    store: TableStore, parts: Sequence[Part], appended: tuple[Mapping[int, str], Appended] | None
) -> WrittenShard:
    """Join the parts to one file; `appended` is the result of `append_parts`."""
    if isinstance(store, UploadStore):
        uploads, state = appended or ({}, Appended())
        return store.finish(uploads, 0, 0, None, state)
    if isinstance(store, SequentialStore):
        return store.finish(0, 0, None, [parts])
    header = len(shard_header([run for part in parts for run in part.runs], 0))
    placed = store.place(parts, place_runs({0: header}, [run_sizes(parts)]))
    return store.finish(0, 0, header, [placed])
