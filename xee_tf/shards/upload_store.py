"""A store in S3, Azure or Google Cloud, in which each byte is uploaded once, as a part of an object.

An object does not appear until its upload is completed, so the uploads are the staged shards. The number of a
part decides its place in the object. The runs of a row of blocks are appended to what is left from the row
before, divided into parts of at least 8 MiB, and what remains is left for the next row. The beginning of a
shard waits for the index in its header, and is uploaded last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain, repeat
from typing import Any

from xee_tf.errors import DestinationExistsError
from xee_tf.shards.members import MEMBER_HEADER
from xee_tf.shards.runs import Part, Run, WrittenShard, begin_shard, pairs_in_order
from xee_tf.shards.staged import StagedStore, write_receipt
from xee_tf.shards.store import Packed
from xee_tf.sidecars import ShardInfo
from xee_tf.storage import (
    Location,
    UploadService,
    commit,
    read_uploads,
    upload_service,
    write_uploads,
)

__all__ = ["Appended", "UploadStore"]

_PART = 8 << 20
_THREADS = 4  # concurrent uploads of a process: each needs several times the memory of a part
_HEAD = 1  # number of the first part


@cache
def _uploaders(pid: int) -> ThreadPoolExecutor:
    """Return the threads that upload parts, which all tasks of a process share."""
    return ThreadPoolExecutor(_THREADS)


@dataclass(frozen=True)
class Appended:
    """The state of a shard after some of its runs were appended.

    Parameters
    ----------
    runs : tuple of Run
        The runs.
    head : bytes
        The beginning of the shard without its header, which is uploaded last; empty if there are too few
        bytes for a part.
    rest : bytes
        The end of the shard, which is too small for a part.
    tags : mapping of int to str
        The tags of the uploaded parts by their numbers.
    """

    runs: tuple[Run, ...] = ()
    head: bytes = b""
    rest: bytes = b""
    tags: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UploadStore(StagedStore):
    """A store whose service can upload an object in parts; see `StagedStore`.

    The staging folder holds the ids of the uploads and the receipts of complete shards.

    Parameters
    ----------
    shard_bytes : int
        Maximum size of a shard in bytes.
    """

    shard_bytes: int = 0

    @property
    def service(self) -> UploadService:
        """How objects are uploaded."""
        found = upload_service(self.names.prefix)
        if found is None:
            raise TypeError(f"{self.names.prefix} cannot be uploaded in parts")
        return found

    @property
    def part_bytes(self) -> int:
        """Size of a part in bytes."""
        return max(_PART, self.shard_bytes // self.service.MOST_PARTS)

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Keep the runs of a block in memory, until `append` uploads them."""
        return Part.in_memory(shard, runs)

    def create_uploads(self, shards: Sequence[int]) -> dict[int, str]:
        """Create the uploads of shards; return their ids."""
        self.start()
        folder = self.staging.folder
        known = read_uploads(folder) or {}  # if this task runs again, because a worker died with its result
        there = _uploaders(os.getpid()).map(
            lambda shard: shard in known and self._exists(shard, known[shard]), shards
        )
        missing = [shard for shard, found in zip(shards, there, strict=True) if not found]
        if missing:
            known |= dict(zip(missing, _uploaders(os.getpid()).map(self._create, missing), strict=True))
            write_uploads(folder, known)
        return known

    def append(
        self,
        uploads: Mapping[int, str],
        shard: int,
        before: Appended | None,
        blocks: Iterable[Sequence[Part]],
        order: Any = None,
    ) -> Appended:
        """Append the runs of a row of blocks to a shard.

        Parameters
        ----------
        uploads : mapping of int to str
            The result of `create_uploads`.
        shard : int
            Number of the shard.
        before : Appended or None
            The state after the row of blocks before.
        blocks : iterable of sequence of Part
            The parts of each block of the row; parts of other shards are ignored.
        order : object
            Not used: results that let Dask process the blocks in order.
        """
        self.start()
        state = before or Appended()
        packed = pairs_in_order(blocks, shard)
        runs = (*state.runs, *(run for run, _ in packed))
        pieces = chain([state.rest], chain.from_iterable(pieces for _, pieces in packed))
        # Later parts are larger, because the size of a table is not known in advance.
        grown = self.part_bytes << len(state.tags) // (self.service.MOST_PARTS // 5)
        sizes = chain([] if state.head else [self.service.SMALLEST_PART], repeat(grown))
        *bodies, rest = _join(pieces, sizes)
        head = state.head or (bodies.pop(0) if bodies else b"")
        numbered = dict(enumerate(bodies, _HEAD + 1 + len(state.tags)))
        tags = {**state.tags, **self._upload(shard, uploads[shard], numbered)}
        return Appended(runs, head, rest, tags)

    def finish(
        self, uploads: Mapping[int, str], shard: int, first_record: int, header: int | None, state: Appended
    ) -> WrittenShard:
        """Upload the rest of a shard, and its head.

        Parameters
        ----------
        uploads : mapping of int to str
            The result of `create_uploads`.
        shard, first_record : int
            Number of the shard, and number of its first record.
        header : int or None
            Size of the header in bytes; 0 if the shard is not compressed. None: the size that is needed.
        state : Appended
            The state after the last row of blocks.
        """
        self.start()
        begin, crc, size = begin_shard(state.runs, first_record, header)
        written = self.written(shard, size, crc, state.runs)
        if (before := self.finished(written)) is not None:
            return before
        head, rest = (state.head, state.rest) if state.head else (state.rest, b"")
        head = begin + head[len(MEMBER_HEADER) if begin else 0 :]
        bodies = {_HEAD: head} | ({_HEAD + 1 + len(state.tags): rest} if rest else {})
        tags = {**state.tags, **self._upload(shard, uploads[shard], bodies)}
        ordered = tuple(tag for _, tag in sorted(tags.items()))
        written = replace(written, upload=uploads[shard], tags=ordered)
        write_receipt(self.receipt(shard), written)
        return written

    def commit(
        self,
        shards: Sequence[WrittenShard],
        sidecars: Sequence[tuple[Location, bytes]] = (),
    ) -> tuple[ShardInfo, ...]:
        """Complete the uploads; see `ShardStore.commit`."""
        service = self.service
        uploads = [_Upload(self.names.shard(each.number), each.upload, each.tags, service) for each in shards]
        try:
            commit(self.staging, [], sidecars, uploads=uploads, earlier=self.earlier)
        except DestinationExistsError:
            # If the staging folder exists, another thread completes these uploads.
            if not self.is_resumable and not self.staging.folder.exists():
                self._abort({shard.number: shard.upload for shard in shards})
            raise
        return tuple(shard.file for shard in shards)

    def is_complete(self, shard: WrittenShard) -> bool:
        """Return whether the parts of a shard still exist: a failed commit, or their expiry, deletes them."""
        return self._exists(shard.number, shard.upload, shard.tags)

    def abort_uploads(self) -> None:
        """Abort the uploads of this write."""
        self._abort(read_uploads(self.staging.folder) or {})

    def _abort(self, uploads: Mapping[int, str]) -> None:
        def one(shard: int) -> None:
            self.service.abort(self.names.shard(shard), uploads[shard])

        list(_uploaders(os.getpid()).map(one, uploads))

    def _create(self, shard: int) -> str:
        return self.service.create(self.staging, self.names.shard(shard))

    def _exists(self, shard: int, upload: str, tags: Sequence[str] = ()) -> bool:
        return self.service.exists(self.names.shard(shard), upload, tags)

    def _upload(self, shard: int, upload: str, bodies: Mapping[int, bytes]) -> dict[int, str]:
        """Upload parts, and return their tags."""
        service, target = self.service, self.names.shard(shard)

        def one(number: int) -> str:
            return service.put(target, upload, number, bodies[number])

        return dict(zip(bodies, _uploaders(os.getpid()).map(one, bodies), strict=True))


@dataclass(frozen=True)
class _Upload:
    """An upload, all of whose parts are uploaded."""

    target: Location
    upload: str
    tags: Sequence[str]
    service: UploadService

    def complete(self) -> None:
        """Make the object appear."""
        self.service.complete(self.target, self.upload, self.tags)


def _join(pieces: Iterable[Any], sizes: Iterator[int]) -> Iterator[bytes]:
    """Join pieces to bodies of at least the given sizes; the last body is smaller, or empty."""
    waiting: list[Any] = []
    total, size = 0, next(sizes)
    for piece in pieces:
        waiting.append(piece)
        total += len(piece)
        if total >= size:
            yield b"".join(waiting)
            waiting, total, size = [], 0, next(sizes)
    yield b"".join(waiting)
