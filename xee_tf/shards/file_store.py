"""A store on a local disk, in which runs are written to their places in the shard.

If records are not compressed, all have the same size and none are omitted, the place of a run follows from
the plan, and each task writes its runs at once. Otherwise, the runs wait until the sizes of all runs before
them are known: in memory, or in a temporary file if a row of blocks is large.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any

from xee_tf.errors import DestinationError
from xee_tf.shards.members import MEMBER_HEADER
from xee_tf.shards.runs import Part, WrittenShard, begin_shard
from xee_tf.shards.staged import StagedStore, read_receipt, write_receipt
from xee_tf.shards.store import Packed
from xee_tf.storage import storage_errors

__all__ = ["FileStore", "Offsets", "RunSizes", "place_runs", "run_sizes"]


_LEFT = "The files that exist were not changed."
_WRITE_BYTES = 1 << 20  # bytes of a call; Linux prepares memory for larger ones much more slowly
_BINARY = getattr(os, "O_BINARY", 0)  # on Windows

RunSizes = Sequence[tuple[int, int, int]]
"""The shard, the number of the first record and the size of runs."""


@dataclass(frozen=True)
class Offsets:
    """The places of runs in their shards.

    Parameters
    ----------
    starts : mapping of (int, int) to int
        The first byte of a run, by shard and first record.
    ends : mapping of int to int
        The end of the last run of each shard.
    headers : mapping of int to int
        The size of the header of each shard. The bytes of runs that it replaces are not written.
    """

    starts: Mapping[tuple[int, int], int]
    ends: Mapping[int, int]
    headers: Mapping[int, int]


def run_sizes(parts: Sequence[Part], *before: object) -> RunSizes:
    """Return the sizes of the runs of parts; `before` is not used (see `order_blocks`)."""
    return [(part.shard, run.first, run.size) for part in parts for run in part.runs]


def place_runs(
    headers: Mapping[int, int], sizes: Iterable[RunSizes], before: Offsets | None = None
) -> Offsets:
    """Place runs one after the other.

    Parameters
    ----------
    headers : mapping of int to int
        The size of the header of each shard, in which the header of its first member is replaced.
    sizes : iterable of RunSizes
        The runs, in any order. All of them follow those of `before`.
    before : Offsets, optional
        The places of earlier runs.

    Examples
    --------
    >>> first = place_runs({0: 30}, [[(0, 4, 100)], [(0, 0, 50)]])
    >>> first.starts, first.ends
    ({(0, 0): 20, (0, 4): 70}, {0: 170})
    >>> place_runs({0: 30}, [[(0, 8, 10)]], first).starts
    {(0, 8): 170}
    """
    ends = dict(before.ends) if before else {}
    starts = {}
    for shard, first, size in sorted(chain.from_iterable(sizes)):
        start = ends.get(shard)
        if start is None:
            start = headers[shard] - (len(MEMBER_HEADER) if headers[shard] else 0)
        starts[shard, first] = start
        ends[shard] = start + size
    return Offsets(starts, ends, {**(before.headers if before else {}), **headers})


@dataclass(frozen=True)
class FileStore(StagedStore):
    """A store beside the destination on a local disk; see `StagedStore`.

    Parameters
    ----------
    group_bytes : int or None
        Size of each group of records that has a number, if it is fixed: runs are then written at once.
    groups_per_shard : int
        Number of groups in a full shard.
    spill : bool
        Whether runs wait in temporary files instead of memory.
    """

    group_bytes: int | None = None
    groups_per_shard: int = 0
    spill: bool = False

    @property
    def keeps_runs(self) -> bool:
        """Whether runs wait in memory until their places are known."""
        return self.group_bytes is None and not self.spill

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Write the runs of a block to their places if these are known, or keep them."""
        self.start()
        if self.group_bytes is not None:
            base = shard * self.groups_per_shard
            with self._opened(shard) as file:
                found = []
                for run, pieces in runs:
                    _write(file, pieces, (run.first - base) * self.group_bytes)
                    found.append(run)
                return Part(shard, "", tuple(found), inode=os.fstat(file).st_ino)
        if not self.spill:
            return Part.in_memory(shard, runs)
        name = f"{shard:05d}-{block}.part"
        found = []
        with self._writing(), open(self.staging.folder.child(name).path, "wb") as part:
            for run, pieces in runs:
                part.writelines(pieces)
                found.append(run)
        return Part(shard, name, tuple(found))

    def place(self, parts: Sequence[Part], offsets: Offsets) -> list[Part]:
        """Write the runs of parts to their places; return the parts without their bytes."""
        self.start()
        placed = []
        for part in parts:
            places = [offsets.starts[part.shard, run.first] for run in part.runs]
            header = offsets.headers[part.shard]
            with self._opened(part.shard) as file:
                if part.name:
                    self._copy(file, part, places, header)
                else:
                    for pieces, place in zip(part.pieces, places, strict=True):
                        _write(file, pieces, place, header)
                placed.append(replace(part, pieces=(), inode=os.fstat(file).st_ino))
        return placed

    def _copy(self, file: int, part: Part, places: Sequence[int], header: int) -> None:
        """Copy the runs of a temporary file to their places, and remove it."""
        path = self.staging.folder.child(part.name).path
        if not os.path.exists(path) and read_receipt(self.receipt(part.shard)):
            return  # this task runs again, because a worker died with its result
        starts = accumulate((run.size for run in part.runs), initial=0)
        with open(path, "rb") as source:
            for run, place, start in zip(part.runs, places, starts, strict=False):
                source.seek(start)
                data = source.read(run.size)
                if len(data) < run.size:
                    raise DestinationError(
                        f"The temporary file {path} was truncated after it was written. Run the export again."
                    )
                _write(file, [data], place, header)

    def finish(
        self, shard: int, first_record: int, header: int, blocks: Iterable[Sequence[Part]]
    ) -> WrittenShard:
        """Complete a shard, all of whose runs are in place.

        Parameters
        ----------
        shard, first_record : int
            Number of the shard, and number of its first record.
        header : int
            Size of the header in bytes; 0 if the shard is not compressed.
        blocks : iterable of sequence of Part
            The parts of each task that has records of the shard.
        """
        parts = [part for part in chain.from_iterable(blocks) if part.shard == shard]
        runs = tuple(sorted(chain.from_iterable(part.runs for part in parts), key=lambda run: run.first))
        head, crc, size = begin_shard(runs, first_record, header)
        written = self.written(shard, size, crc, runs)
        if (before := self.finished(written)) is not None:
            return before
        with self._opened(shard) as file:
            _write(file, [head], 0)
            found = os.fstat(file)
            if found.st_size != size:
                os.ftruncate(file, size)
        # On some filesystems, the inode number of a file changes when it is closed.
        if any(part.inode != found.st_ino for part in parts) and not self.is_complete(written):
            raise self.staging.removed_error()
        write_receipt(self.receipt(shard), written)
        for part in parts:
            if part.name:
                with suppress(FileNotFoundError):
                    self.staging.folder.child(part.name).remove()
        return written

    @contextmanager
    def _opened(self, shard: int) -> Iterator[int]:
        """Open the staged file of a shard for writing."""
        with self._writing():
            try:
                file = os.open(self.staged(shard).path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
            except FileNotFoundError:  # the folder existed when the task started
                raise self.staging.removed_error() from None
            try:
                yield file
            finally:
                os.close(file)

    def _writing(self) -> AbstractContextManager[None]:
        """Convert errors of the disk to errors that name the export."""
        return storage_errors("write", self.names.prefix.url, local=True, left=_LEFT)


def _write(file: int, pieces: Sequence[Any], offset: int, begin: int = 0) -> None:
    """Write pieces of bytes one after the other, without those before the offset `begin`."""
    offset, skip = max(offset, begin), max(begin - offset, 0)
    end = os.lseek(file, offset, os.SEEK_SET)
    for piece in pieces:
        view = memoryview(piece).cast("B")
        view, skip = view[skip:], max(skip - len(view), 0)
        while view:
            written = os.write(file, view[:_WRITE_BYTES])
            view, end = view[written:], end + written
    # Linux then begins to write to the disk, and the commit, which waits for the disk, has little left to do.
    # For small runs, the call takes longer than writing.
    if end - offset >= _WRITE_BYTES and hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # a file system that does not support it
            os.posix_fadvise(file, offset, end - offset, os.POSIX_FADV_DONTNEED)
