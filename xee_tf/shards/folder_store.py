"""Stores that stage shards as files in a hidden folder."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from typing import Any

from crc32c import crc32c

from xee_tf.errors import DestinationError, DestinationExistsError
from xee_tf.records import combine_crcs
from xee_tf.shards.members import MEMBER_HEADER, index_header_size
from xee_tf.shards.runs import Part, Run, WrittenShard, shard_header
from xee_tf.shards.store import Packed, Replaced, ShardNames
from xee_tf.sidecars import ShardInfo
from xee_tf.storage import Location

__all__ = ["AppendingStore", "PartStore"]

#: Deflate stream and trailer of an empty gzip member.
_EMPTY_TAIL = b"\x03\x00" + bytes(8)
_COPY_BYTES = 1 << 20
_OPEN_PARTS = 100
_NOTHING = Replaced()


class _FolderStore:
    """Base class of stores that stage shards as files in a hidden folder."""

    folder: Location
    names: ShardNames

    def _shard(self, number: int) -> Location:
        return self.folder.child(f"{number:05d}.shard")

    def commit(
        self,
        shards: Sequence[WrittenShard],
        sidecars: Sequence[tuple[Location, bytes]] = (),
        *,
        replaced: Replaced = _NOTHING,
    ) -> tuple[ShardInfo, ...]:
        """Move the shards into place; see `ShardStore.commit`."""
        targets = [self.names.shard(shard.number) for shard in shards]
        if replaced.error_message is None:
            for stale in replaced.files:
                if stale not in targets:
                    stale.remove()
        elif replaced.files and all(self._shard(shard.number).exists() for shard in shards):
            # If this task runs again because a worker died with its result, the shards were already moved,
            # and the existing files are its own.
            self._remove()
            raise DestinationExistsError(replaced.error_message)
        for shard, target in zip(shards, targets, strict=True):
            source = self._shard(shard.number)
            if source.exists():
                source.move(target)
            elif not (target.exists() and target.size() == shard.file.bytes):
                raise DestinationError(
                    f"Shard {shard.number} is missing from {self.folder}. Run the export again."
                )
        for location, data in sidecars:
            location.write_bytes(data)
        self._remove()
        return tuple(shard.file for shard in shards)

    def _written(self, number: int, size: int, crc: int, runs: tuple[Run, ...]) -> WrittenShard:
        records = sum(chain.from_iterable(run.records for run in runs))
        return WrittenShard(number, ShardInfo(self.names.shard(number).url, records, size, crc), runs)

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            self.folder.remove(recursive=True)


@dataclass(frozen=True)
class PartStore(_FolderStore):
    """A store beside the destination on any filesystem; parts are files, which are copied into shards.

    Small and picklable. Parts stay on disk, not in memory, until their shard is complete.

    Parameters
    ----------
    folder : Location
        The hidden folder.
    names : ShardNames
        The names of the shards.

    Examples
    --------
    >>> from xee_tf.shards.store import OneFile
    >>> store = PartStore.begin(OneFile(Location("memory://part-store/s.tfrecord"), compressed=False))
    >>> part = store.put(0, "0", [(Run(0, (1,), (6,), (0,)), [b"record"])])
    >>> shard = store.join(0, 0, [[part]])
    >>> [info] = store.commit([shard])
    >>> info.path, info.records, info.bytes
    ('memory://part-store/s.tfrecord', 1, 6)
    """

    folder: Location
    names: ShardNames

    @classmethod
    def begin(cls, names: ShardNames) -> PartStore:
        """Create the store of a new run; nothing is written yet."""
        return cls(_folder_beside(names.prefix), names)

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Write the runs of a block to a separate file."""
        name = f"{shard:05d}-{block}.part"
        found = []
        with self.folder.child(name).open("wb") as file:
            for run, pieces in runs:
                for piece in pieces:
                    file.write(piece)
                found.append(run)
        return Part(shard, name, tuple(found))

    def join(self, shard: int, first_record: int, blocks: Iterable[Sequence[Part]]) -> WrittenShard:
        """Copy the parts of a shard into one file, and remove them.

        A receipt is written beside the shard. If the task runs again because a worker died with its result,
        the result is read from the receipt.
        """
        receipt = self.folder.child(f"{shard:05d}.json")
        if receipt.exists():
            return _read_receipt(receipt.read_bytes())
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
        with _Joined(self._shard(shard)) as joined, ExitStack() as stack:
            skip = 0
            if self.names.compressed:
                joined.write(shard_header(runs, first_record))
                skip = len(MEMBER_HEADER)  # replaced by the header with the index
            open_parts: dict[str, Any] = {}
            for run, name, start in ordered:
                if not run.size:
                    continue
                if name not in open_parts:
                    if len(open_parts) == _OPEN_PARTS:
                        stack.pop_all().close()
                        open_parts.clear()
                    open_parts[name] = stack.enter_context(self.folder.child(name).open())
                joined.copy(open_parts[name], start + skip, run.size - skip)
                skip = 0
            if self.names.compressed and not any(run.size for run in runs):
                joined.write(_EMPTY_TAIL)
        written = self._written(shard, joined.size, joined.crc, runs)
        receipt.write_bytes(json.dumps(asdict(written)).encode())
        for part in parts:
            self.folder.child(part.name).remove()
        return written

    def abort(self) -> None:
        """Remove the folder, even if running tasks still write to it."""
        self.folder.clear()


def _read_receipt(data: bytes) -> WrittenShard:
    found = json.loads(data, object_hook=_with_tuples)
    runs = tuple(Run(**run) for run in found["runs"])
    return WrittenShard(found["number"], ShardInfo(**found["file"]), runs)


def _with_tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}


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


class AppendingStore(_FolderStore):
    """A store of one shard to which one process appends records in order; each byte is written once.

    The store is on a local disk: beside the destination, or in the folder for temporary files.

    Parameters
    ----------
    folder : Location
        The hidden folder.
    names : ShardNames
        The name of the shard.
    """

    def __init__(self, folder: Location, names: ShardNames) -> None:
        self.folder, self.names = folder, names
        self._header_size = 0  # reserved for the header, because its index is complete only at the end
        self._crc = 0  # of the bytes after the header
        self._file = self._shard(0).open("wb")

    @classmethod
    def begin(cls, names: ShardNames) -> AppendingStore:
        """Create the store of a new run."""
        prefix = names.prefix
        beside = prefix if prefix.is_local else Location(tempfile.gettempdir()).child(prefix.name)
        return cls(_folder_beside(beside), names)

    def reserve(self, members: int) -> None:
        """Reserve space for an index of `members` gzip members; must be called before `put`.

        This is not part of `begin`, because the number of members depends on the size of the records, and the
        store is created before the first record is known, in order to detect an unwritable destination early.
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

    def join(self, shard: int, first_record: int, blocks: Iterable[Sequence[Part]]) -> WrittenShard:
        """Complete the file by writing its index."""
        runs = tuple(run for part in chain.from_iterable(blocks) for run in part.runs)
        if self.names.compressed and not runs:
            self._file.write(MEMBER_HEADER + _EMPTY_TAIL)
        size, crc = self._file.tell(), self._crc
        if self._header_size:
            header = shard_header(runs, first_record, length=self._header_size)
            self._file.seek(0)
            self._file.write(header)
            crc = combine_crcs(crc32c(header), crc, size - len(header))
        self._file.close()
        return self._written(shard, size, crc, runs)

    def abort(self) -> None:
        """Remove the file."""
        self._file.close()
        self._remove()


def _folder_beside(prefix: Location) -> Location:
    return prefix.parent.child(f".{prefix.name}-{uuid.uuid4().hex[:12]}.parts")
