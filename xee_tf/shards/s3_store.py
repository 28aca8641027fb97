"""A store in S3, in which each byte is uploaded once, as a part of a multipart upload.

An object does not exist until its upload is completed, so the uploads are the staged shards. The number of a
part decides its place in the object. All parts but the last must have at least 5 MiB: the runs of a row of
blocks are appended to what is left from the row before, and what remains is left for the next row. The
beginning of a shard waits for the index in its header, and is uploaded last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from typing import Any

from crc32c import crc32c

from xee_tf.errors import DestinationError, DestinationExistsError
from xee_tf.records import combine_crcs
from xee_tf.shards.members import EMPTY_TAIL, MEMBER_HEADER
from xee_tf.shards.runs import Part, Run, WrittenShard, shard_header
from xee_tf.shards.staged import StagedStore, write_receipt
from xee_tf.shards.store import Packed, ShardNames
from xee_tf.sidecars import ShardInfo
from xee_tf.storage import UPLOADS, Earlier, Location, Staging, call_s3, commit, known_uploads

__all__ = ["Appended", "S3Store"]

_SMALLEST = 5 << 20  # S3's minimum for all parts but the last
_PART = 8 << 20
_MOST_PARTS = 9000  # S3 allows 10,000
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
    etags : mapping of int to str
        The ETags of the uploaded parts by their numbers.
    """

    runs: tuple[Run, ...] = ()
    head: bytes = b""
    rest: bytes = b""
    etags: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class S3Store(StagedStore):
    """A store in S3; small and picklable.

    Parameters
    ----------
    staging : Staging
        The staging folder of the run, with the ids of its uploads and the receipts of complete shards.
    names : ShardNames
        The names of the shards.
    earlier : Earlier
        The files of an earlier result.
    shard_bytes : int
        Maximum size of a shard in bytes.
    """

    staging: Staging
    names: ShardNames
    earlier: Earlier
    shard_bytes: int = 0

    @property
    def part_bytes(self) -> int:
        """Size of a part in bytes."""
        return max(_PART, self.shard_bytes // _MOST_PARTS)

    @property
    def keeps_runs(self) -> bool:
        """True: runs wait until they are uploaded."""
        return True

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Keep the runs of a block in memory, until `append` uploads them."""
        packed = list(runs)
        return Part(shard, "", tuple(run for run, _ in packed), tuple(pieces for _, pieces in packed))

    def begin(self, shards: Sequence[int]) -> dict[int, str]:
        """Create the uploads of shards; return their ids."""
        self.start()
        file = self.staging.folder.child(UPLOADS)
        known = known_uploads(file)  # if this task runs again, because a worker died with its result
        missing = [shard for shard in shards if shard not in known or not self._exists(shard, known[shard])]
        if missing:
            known |= dict(zip(missing, _uploaders(os.getpid()).map(self._create, missing), strict=True))
            file.write_bytes(json.dumps(known).encode())
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
            The result of `begin`.
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
        parts = [part for part in chain.from_iterable(blocks) if part.shard == shard]
        packed = sorted(
            (pair for part in parts for pair in zip(part.runs, part.pieces, strict=True)),
            key=lambda pair: pair[0].first,
        )
        runs = (*state.runs, *(run for run, _ in packed))
        pieces = chain([state.rest], chain.from_iterable(pieces for _, pieces in packed))
        sizes = chain([] if state.head else [_SMALLEST], iter(lambda: self.part_bytes, None))
        *bodies, rest = _join(pieces, sizes)
        head = state.head or (bodies.pop(0) if bodies else b"")
        numbered = dict(enumerate(bodies, _HEAD + 1 + len(state.etags)))
        etags = {**state.etags, **self._upload(shard, uploads[shard], numbered)}
        return Appended(runs, head, rest, etags)

    def finish(
        self, uploads: Mapping[int, str], shard: int, first_record: int, header: int, state: Appended
    ) -> WrittenShard:
        """Upload the rest of a shard, and its head.

        Parameters
        ----------
        uploads : mapping of int to str
            The result of `begin`.
        shard, first_record : int
            Number of the shard, and number of its first record.
        header : int
            Size of the header in bytes; 0 if the shard is not compressed.
        state : Appended
            The state after the last row of blocks.
        """
        if (before := self.finished(shard)) is not None:
            return before
        head, rest = (state.head, state.rest) if state.head else (state.rest, b"")
        crc, size = 0, 0
        for run in state.runs:
            crc, size = combine_crcs(crc, run.crc, run.size), size + run.size
        if header and not size:
            head = MEMBER_HEADER + EMPTY_TAIL
            crc, size = crc32c(head), len(head)
        elif header:
            skip = len(MEMBER_HEADER)  # the header replaces that of the first member
            index = shard_header(state.runs, first_record, length=header)
            crc = combine_crcs(crc32c(head[:skip]), crc, size - skip)
            crc = combine_crcs(crc32c(index), crc, size - skip)
            head, size = index + head[skip:], len(index) + size - skip
        bodies = {_HEAD: head} | ({_HEAD + 1 + len(state.etags): rest} if rest else {})
        etags = {**state.etags, **self._upload(shard, uploads[shard], bodies)}
        written = replace(
            self.written(shard, size, crc, state.runs),
            upload=uploads[shard],
            etags=tuple(etag for _, etag in sorted(etags.items())),
        )
        write_receipt(self.receipt(shard), written)
        return written

    def commit(
        self,
        shards: Sequence[WrittenShard],
        sidecars: Sequence[tuple[Location, bytes]] = (),
    ) -> tuple[ShardInfo, ...]:
        """Complete the uploads; see `ShardStore.commit`."""
        uploads = [_Upload(self.names.shard(each.number), each.upload, each.etags) for each in shards]
        try:
            commit(self.staging, [], sidecars, uploads=uploads, earlier=self.earlier)
        except DestinationExistsError:
            if not self.is_resumable:
                self._abort_uploads({shard.number: shard.upload for shard in shards})
            raise
        return tuple(shard.file for shard in shards)

    def is_complete(self, shard: WrittenShard) -> bool:
        """Return whether the upload of a shard still exists: a failed commit, or its expiry, ends it."""
        return self._exists(shard.number, shard.upload)

    def _exists(self, shard: int, upload: str) -> bool:
        try:
            call_s3(self.names.shard(shard), "list_parts", UploadId=upload, MaxParts=1)
        except DestinationError:
            return False
        return True

    def abort(self) -> None:
        """Abort the uploads, and remove the folder; keep them if the run can be resumed."""
        if not self.is_resumable:
            self._abort_uploads(known_uploads(self.staging.folder.child(UPLOADS)))
        super().abort()

    def _abort_uploads(self, uploads: Mapping[int, str]) -> None:
        for shard, upload in uploads.items():
            with suppress(DestinationError):  # it was completed or aborted
                call_s3(self.names.shard(shard), "abort_multipart_upload", UploadId=upload)

    def _create(self, shard: int) -> str:
        return str(call_s3(self.names.shard(shard), "create_multipart_upload")["UploadId"])

    def _upload(self, shard: int, upload: str, bodies: Mapping[int, bytes]) -> dict[int, str]:
        """Upload parts, and return their ETags."""
        target = self.names.shard(shard)

        def one(number: int) -> str:
            found = call_s3(target, "upload_part", UploadId=upload, PartNumber=number, Body=bodies[number])
            return str(found["ETag"])

        return dict(zip(bodies, _uploaders(os.getpid()).map(one, bodies), strict=True))


@dataclass(frozen=True)
class _Upload:
    """A multipart upload, all of whose parts are uploaded."""

    target: Location
    upload: str
    etags: Sequence[str]

    def complete(self) -> None:
        """Make the object appear."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self.etags, _HEAD)]
        call_s3(
            self.target,
            "complete_multipart_upload",
            UploadId=self.upload,
            MultipartUpload={"Parts": parts},
        )


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
