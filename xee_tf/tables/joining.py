"""Join the row groups of a table to one file: the tasks of each kind of store."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dask.system import CPU_COUNT

from xee_tf.graph import Ref, TaskRef, Tasks, add_task, add_wait
from xee_tf.shards import (
    Carry,
    FileStore,
    OneFile,
    Part,
    Pushed,
    Segment,
    SequentialStore,
    UploadStore,
    WrittenShard,
    place_runs,
    run_sizes,
    shard_header,
)
from xee_tf.sidecars import SampleCounts, TableColumn
from xee_tf.storage import Earlier, Staging, upload_service

__all__ = ["TablePart", "TableStore", "Uploaded", "join_parts", "table_store", "upload_parts"]

_WAITING = 2 * CPU_COUNT  # parts that may wait in memory until they are uploaded

TableStore = FileStore | SequentialStore | UploadStore


@dataclass(frozen=True)
class TablePart:
    """The encoded part of one row group."""

    part: Part
    records: int
    columns: tuple[TableColumn, ...]
    rounded: tuple[str, ...]
    counts: SampleCounts

    def __sizeof__(self) -> int:
        """Size in bytes; see `Part`."""
        return object.__sizeof__(self) + self.part.__sizeof__()

    @property
    def without_bytes(self) -> TablePart:
        """The facts about the part."""
        return replace(self, part=self.part.without_bytes)


@dataclass(frozen=True)
class Uploaded:
    """The uploads of a table, what was uploaded of its parts, and what is left; see `UploadStore`."""

    uploads: Mapping[int, str]
    segments: Sequence[Pushed]
    carry: Carry | None


def table_store(staging: Staging, names: OneFile, earlier: Earlier) -> TableStore:
    """Return the store for a table: the one in which each byte is written the fewest times."""
    if names.prefix.is_local:
        return FileStore(staging, names, earlier, spill=True)
    if upload_service(names.prefix) is not None:
        return UploadStore(staging, names, earlier)
    return SequentialStore(staging, names, earlier)


def upload_parts(
    tasks: Tasks, token: str, store: TableStore, groups: Sequence[Ref], parts: list[TaskRef], *, waits: bool
) -> TaskRef | None:
    """Add tasks that upload the parts, if the store can do that; return a reference to an `Uploaded`.

    The references to the parts are replaced by references to parts without their bytes. If `waits` is true, a
    row group waits until an earlier part is uploaded, so that few parts are in memory.
    """
    if not isinstance(store, UploadStore):
        return None
    uploads = add_task(tasks, f"table-create-{token}", store.create_uploads, [0])
    pushed: list[TaskRef] = []
    carry: TaskRef | None = None
    for number, (group, part) in enumerate(zip(groups, parts, strict=True)):
        if waits and number >= _WAITING:
            # If several tasks load a row group, other groups may need them.
            add_wait(tasks, group if isinstance(group, TaskRef) else part, pushed[number - _WAITING])
        push = (f"table-push-{token}", number)
        pushed.append(add_task(tasks, push, _push, store, uploads, carry, part))
        carry = add_task(tasks, (f"table-carry-{token}", number), _carry, store, carry, part)
        parts[number] = add_task(
            tasks, (f"table-facts-{token}", number), operator.attrgetter("without_bytes"), part
        )
    return add_task(tasks, f"table-uploaded-{token}", Uploaded, uploads, pushed, carry)


def _push(store: UploadStore, uploads: Mapping[int, str], before: Carry | None, part: TablePart) -> Pushed:
    return store.push(uploads, Segment(0), before, [[part.part]])


def _carry(store: UploadStore, before: Carry | None, part: TablePart) -> Carry:
    return store.carry(Segment(0), before, [[part.part]])


def join_parts(store: TableStore, parts: Sequence[Part], uploaded: Uploaded | None) -> WrittenShard:
    """Join the parts to one file; `uploaded` is the result of the tasks of `upload_parts`."""
    if isinstance(store, UploadStore):
        done = uploaded or Uploaded({}, [], None)
        return store.finish(done.uploads, 0, 0, None, done.segments, done.carry)
    if isinstance(store, SequentialStore):
        return store.finish(0, 0, None, [parts])
    header = len(shard_header([run for part in parts for run in part.runs], 0))
    placed = store.place(parts, place_runs({0: header}, [run_sizes(parts)]))
    return store.finish(0, 0, header, [placed])
