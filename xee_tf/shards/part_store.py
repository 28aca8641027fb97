"""Stores that stage shards as files in a hidden folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from crc32c import crc32c

from xee_tf.errors import DestinationError
from xee_tf.records import combine_crcs
from xee_tf.shards.members import EMPTY_TAIL, MEMBER_HEADER, index_header_size
from xee_tf.shards.runs import Part, WrittenShard, shard_header
from xee_tf.shards.staged import StagedStore, write_receipt
from xee_tf.shards.store import Packed, ShardNames
from xee_tf.sidecars import ShardInfo
from xee_tf.storage import Earlier, Location, Staging, commit

__all__ = ["AppendingStore", "PartStore"]

_COPY_BYTES = 1 << 20
_OPEN_PARTS = 100


@dataclass(frozen=True)
class PartStore(StagedStore):
    """A store beside the destination on any filesystem; parts are files, which are copied into shards.

    Small and picklable. Parts stay on disk, not in memory, until their shard is complete.

    Parameters
    ----------
    staging : Staging
        The staging folder of the run.
    names : ShardNames
        The names of the shards.
    earlier : Earlier
        The files of an earlier result.

    Examples
    --------
    >>> from xee_tf.shards.runs import Run
    >>> from xee_tf.shards.store import OneFile
    >>> file = Location("memory://part-store/s.tfrecord")
    >>> store = PartStore(Staging.begin(file), OneFile(file, compressed=False), Earlier(list, {}))
    >>> part = store.put(0, "0", [(Run(0, (1,), (6,), (0,)), [b"record"])])
    >>> shard = store.finish(0, 0, None, [[part]])
    >>> [info] = store.commit([shard])
    >>> info.path, info.records, info.bytes
    ('memory://part-store/s.tfrecord', 1, 6)
    """

    staging: Staging
    names: ShardNames
    earlier: Earlier

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Write the runs of a block to a separate file."""
        self.start()
        name = f"{shard:05d}-{block}.part"
        found = []
        with self.staging.folder.child(name).open("wb") as file:
            for run, pieces in runs:
                for piece in pieces:
                    file.write(piece)
                found.append(run)
        return Part(shard, name, tuple(found))

    def finish(
        self, shard: int, first_record: int, header: int | None, blocks: Iterable[Sequence[Part]]
    ) -> WrittenShard:
        """Copy the parts of a shard into one file, and remove them.

        A receipt is written beside the shard. If the task runs again because a worker died with its result,
        the result is read from the receipt.

        Parameters
        ----------
        shard, first_record : int
            Number of the shard, and number of its first record.
        header : int or None
            Size of the header in bytes, if the shard is compressed. Default: the size that is needed.
        blocks : iterable of sequence of Part
            The parts of each task that has records of the shard; parts of other shards are ignored.
        """
        if (before := self.finished(shard)) is not None:
            return before
        parts = [part for part in chain.from_iterable(blocks) if part.shard == shard]
        ordered = sorted(
            (
                (run, part.name, end - run.size)
                for part in parts
                for run, end in zip(part.runs, accumulate(run.size for run in part.runs), strict=True)
            ),
            key=lambda item: item[0].first,
        )
        runs = tuple(run for run, _, _ in ordered)
        with _Joined(self.staged(shard)) as joined, ExitStack() as stack:
            skip = 0
            if self.names.compressed:
                joined.write(shard_header(runs, first_record, length=header))
                skip = len(MEMBER_HEADER)  # replaced by the header with the index
            open_parts: dict[str, Any] = {}
            for run, name, start in ordered:
                if not run.size:
                    continue
                if name not in open_parts:
                    if len(open_parts) == _OPEN_PARTS:
                        stack.pop_all().close()
                        open_parts.clear()
                    open_parts[name] = stack.enter_context(self.staging.folder.child(name).open())
                joined.copy(open_parts[name], start + skip, run.size - skip)
                skip = 0
            if self.names.compressed and not any(run.size for run in runs):
                joined.write(EMPTY_TAIL)
        written = self.written(shard, joined.size, joined.crc, runs)
        write_receipt(self.receipt(shard), written)
        for part in parts:
            self.staging.folder.child(part.name).remove()
        return written


class _Joined:
    """A file that is written sequentially, while its size and checksum are computed."""

    def __init__(self, location: Location) -> None:
        self._file = location.open("wb")
        self._buffer = memoryview(bytearray(_COPY_BYTES))
        self.size = self.crc = 0

    def __enter__(self) -> _Joined:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.size += len(data)
        self.crc = crc32c(data, self.crc)

    def copy(self, source: Any, start: int, length: int) -> None:
        source.seek(start)
        while length:
            count = source.readinto(self._buffer[: min(length, _COPY_BYTES)])
            if not count:
                raise DestinationError(
                    "A temporary file of the export was truncated after it was written. Run the export again."
                )
            self.write(self._buffer[:count])
            length -= count


class AppendingStore(StagedStore):
    """A store of one shard to which one process appends records in order; each byte is written once.

    The file is on a local disk: beside the destination, or in the folder for temporary files.

    Parameters
    ----------
    staging : Staging
        The staging folder of the run.
    names : ShardNames
        The name of the shard.
    earlier : Earlier
        The file of an earlier result.
    """

    def __init__(self, staging: Staging, names: ShardNames, earlier: Earlier) -> None:
        self.staging, self.names, self.earlier = staging.on_disk(), names, earlier
        self._header_size = 0  # reserved for the header, because its index is complete only at the end
        self._crc = 0  # of the bytes after the header
        self.start()
        self._file = self.staged(0).open("wb")

    def reserve(self, members: int) -> None:
        """Reserve space for an index of `members` gzip members; must be called before `put`.

        This is not done at the start, because the number of members depends on the size of the records, and
        the store is created before the first record is known, in order to detect an unwritable destination
        early.
        """
        if self.names.compressed:
            self._header_size = index_header_size(members)
            self._file.write(bytes(self._header_size))

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Append runs to the file."""
        found = []
        for run, pieces in runs:
            for piece in pieces:
                # The header with the index replaces the header of the first member.
                first = self._header_size and self._file.tell() == self._header_size
                data = memoryview(piece)[len(MEMBER_HEADER) if first else 0 :]
                self._file.write(data)
                self._crc = crc32c(data, self._crc)
            found.append(run)
        return Part(shard, block, tuple(found))

    def finish(self, first_record: int, blocks: Iterable[Sequence[Part]]) -> WrittenShard:
        """Complete the file by writing its index."""
        runs = tuple(run for part in chain.from_iterable(blocks) for run in part.runs)
        if self.names.compressed and not runs:
            self._file.write(MEMBER_HEADER + EMPTY_TAIL)
        size, crc = self._file.tell(), self._crc
        if self._header_size:
            header = shard_header(runs, first_record, length=self._header_size)
            self._file.seek(0)
            self._file.write(header)
            crc = combine_crcs(crc32c(header), crc, size - len(header))
        self._file.close()
        return self.written(0, size, crc, runs)

    def commit(
        self,
        shards: Sequence[WrittenShard],
        sidecars: Sequence[tuple[Location, bytes]] = (),
    ) -> tuple[ShardInfo, ...]:
        """Move the file into place, or upload it; see `ShardStore.commit`."""
        if self.names.prefix.is_local:
            return super().commit(shards, sidecars)
        uploads = [_Copy(self.staged(0).path, self.names.shard(0))]
        destination = Staging(self.names.prefix, self.staging.token)
        commit(destination, [], sidecars, uploads=uploads, earlier=self.earlier)
        self.staging.remove()
        return tuple(shard.file for shard in shards)

    def abort(self) -> None:
        """Remove the file."""
        self._file.discard()  # if the disk is full, close would fail again
        super().abort()


@dataclass(frozen=True)
class _Copy:
    """A local file to upload."""

    path: str
    target: Location

    def complete(self) -> None:
        """Upload the file."""
        self.target.put_file(self.path)
