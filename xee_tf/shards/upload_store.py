"""A store in S3, Azure or Google Cloud, in which each byte is uploaded once, as a part of an object.

An object does not appear until its upload is completed, so the uploads are the staged shards. The number of a
part decides its place in the object.

The runs of a shard are divided into segments: consecutive runs that one worker has. Each segment is uploaded
by its worker in parts of at least 5 MiB; a smaller one is carried to the next segment. The sizes of the
segments before one decide the numbers of its parts, but not when they are uploaded. The beginning of a
compressed shard waits for the index in its header, and is uploaded last.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate, chain, pairwise
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

__all__ = ["Carry", "Pushed", "Segment", "UploadStore"]

_PART = 8 << 20
_LEAST = 5 / 8  # of the size of a part
_THREADS = 4  # concurrent uploads of a process: each needs several times the memory of a part
_HEAD = 1  # number of the first part


@cache
def _uploaders(pid: int) -> ThreadPoolExecutor:
    """Return the threads that upload parts, which all tasks of a process share."""
    return ThreadPoolExecutor(_THREADS)


@dataclass(frozen=True)
class Carry:
    """What a segment of a shard leaves for the next one.

    Parameters
    ----------
    number : int
        Number of the next part.
    rest : bytes
        The end of the segment, and of those before, if it is too small for a part.
    """

    number: int = _HEAD
    rest: bytes = b""

    def __sizeof__(self) -> int:
        """Size in bytes; see `Part`."""
        return object.__sizeof__(self) + len(self.rest)


@dataclass(frozen=True)
class Pushed:
    """What was uploaded of a segment.

    Parameters
    ----------
    runs : tuple of Run
        The runs of the segment.
    head : bytes
        The beginning of the shard, without its header, if it is in this segment.
    tags : mapping of int to str
        The tags of the uploaded parts by their numbers.
    """

    runs: tuple[Run, ...] = ()
    head: bytes = b""
    tags: Mapping[int, str] = field(default_factory=dict)

    def __sizeof__(self) -> int:
        """Size in bytes; see `Part`."""
        return object.__sizeof__(self) + len(self.head)


@dataclass(frozen=True)
class Segment:
    """Consecutive records of a shard.

    Parameters
    ----------
    shard : int
        Number of the shard.
    runs : range, optional
        The sort keys of the runs (`Run.first`). Default: all runs of the shard.
    """

    shard: int
    runs: range | None = None

    def of(self, blocks: Iterable[Sequence[Part]]) -> list[tuple[Run, Sequence[Any]]]:
        """Return the runs of the segment in these blocks, each with its bytes, in order."""
        pairs = pairs_in_order(blocks, self.shard)
        return pairs if self.runs is None else [pair for pair in pairs if pair[0].first in self.runs]


@dataclass(frozen=True)
class UploadStore(StagedStore):
    """A store whose service can upload an object in parts; see `StagedStore`.

    The staging folder holds the ids of the uploads and the receipts of complete shards.

    Parameters
    ----------
    shard_bytes : int
        Maximum size of a shard in bytes; 0 if it is not known.
    """

    shard_bytes: int = 0

    @property
    def service(self) -> UploadService:
        """How objects are uploaded."""
        found = upload_service(self.names.prefix)
        if found is None:
            raise TypeError(f"{self.names.prefix} cannot be uploaded in parts")
        return found

    def part_bytes(self, number: int = _HEAD) -> int:
        """Return the size of a part in bytes.

        Later parts of a table are larger, because its size is not known in advance.
        """
        most = self.service.MOST_PARTS
        if not self.shard_bytes:
            return _PART << number // (most // 5)
        return max(_PART, math.ceil(self.shard_bytes / (_LEAST * most)))

    def least_bytes(self, number: int = _HEAD) -> int:
        """Return the smallest number of bytes that are uploaded as a part, instead of carried to the next."""
        return max(self.service.SMALLEST_PART, int(_LEAST * self.part_bytes(number)))

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Keep the runs of a block in memory, until `push` uploads them."""
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

    def carry(
        self, segment: Segment, before: Carry | None, blocks: Iterable[Sequence[Part]], order: Any = None
    ) -> Carry:
        """Return what a segment leaves for the next one; nothing is uploaded.

        Parameters
        ----------
        segment : Segment
            The segment.
        before : Carry or None
            What the segment before leaves; None for the first one.
        blocks : iterable of sequence of Part
            The parts of each block with runs of the segment; others are ignored.
        order : object
            Not used: results that let Dask process the blocks in order.
        """
        before = before or Carry()
        pieces = _pieces(segment.of(blocks), before)
        ends = self._divide(pieces, before)
        return Carry(before.number + len(ends), b"".join(pieces[ends[-1] if ends else 0 :]))

    def push(
        self,
        uploads: Mapping[int, str],
        segment: Segment,
        before: Carry | None,
        blocks: Iterable[Sequence[Part]],
        order: Any = None,
    ) -> Pushed:
        """Upload a segment, with what is carried to it, except what `carry` leaves for the next one.

        `uploads` is the result of `create_uploads`; for the others, see `carry`.
        """
        self.start()
        before = before or Carry()
        runs = segment.of(blocks)
        pieces = _pieces(runs, before)
        edges = [0, *self._divide(pieces, before)]
        bodies = {
            number: b"".join(pieces[start:stop])
            for number, (start, stop) in enumerate(pairwise(edges), before.number)
        }
        head = bodies.pop(_HEAD, b"") if self._keeps_head(before) else b""
        tags = self._upload(segment.shard, uploads[segment.shard], bodies)
        return Pushed(tuple(run for run, _ in runs), head, tags)

    def finish(
        self,
        uploads: Mapping[int, str],
        shard: int,
        first_record: int,
        header: int | None,
        segments: Sequence[Pushed],
        last: Carry | None,
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
        segments : sequence of Pushed
            The results of `push`, in order.
        last : Carry or None
            What the last segment leaves; None if there are no segments.
        """
        self.start()
        runs = [run for each in segments for run in each.runs]
        begin, crc, size = begin_shard(runs, first_record, header)
        written = self.written(shard, size, crc, runs)
        if (before := self.finished(written)) is not None:
            return before
        carry = last or Carry()
        bodies = {carry.number: carry.rest} if carry.rest or carry.number == _HEAD else {}
        if begin:
            head = bodies.get(_HEAD, b"".join(each.head for each in segments))
            bodies[_HEAD] = begin + head[len(MEMBER_HEADER) :]
        tags = dict(chain.from_iterable(each.tags.items() for each in segments))
        tags |= self._upload(shard, uploads[shard], bodies)
        ordered = tuple(tag for _, tag in sorted(tags.items()))
        written = replace(written, upload=uploads[shard], tags=ordered)
        write_receipt(self.receipt(shard), written)
        return written

    def _divide(self, pieces: Sequence[Any], before: Carry) -> list[int]:
        """Return how many pieces are before the end of each part; those after the last part are left."""
        size, least = self.part_bytes(before.number), self.least_bytes(before.number)
        totals = list(accumulate(map(len, pieces), initial=0))
        ends = [0]
        if self._keeps_head(before) and totals[-1] >= self.service.SMALLEST_PART:
            ends.append(bisect_left(totals, self.service.SMALLEST_PART))
        elif self._keeps_head(before):
            return []
        while (left := totals[-1] - totals[ends[-1]]) >= least:
            equal = math.ceil(left / max(1, left // size))
            end = bisect_left(totals, totals[ends[-1]] + equal)
            ends.append(end if totals[-1] - totals[end] >= least else len(pieces))
        return ends[1:]

    def _keeps_head(self, before: Carry) -> bool:
        """Return whether the next part is the beginning of a shard, which waits for its index."""
        return self.names.compressed and before.number == _HEAD

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


def _pieces(runs: Iterable[tuple[Run, Sequence[Any]]], before: Carry) -> list[Any]:
    """Return the bytes of a segment, with what is carried to it."""
    return [before.rest, *chain.from_iterable(pieces for _, pieces in runs)]
