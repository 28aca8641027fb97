"""A store of a single file, to which one process appends records in order; each byte is written once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from crc32c import crc32c

from xee_tf.records import combine_crcs
from xee_tf.shards.members import EMPTY_TAIL, MEMBER_HEADER, index_header_size
from xee_tf.shards.runs import Part, WrittenShard, shard_header
from xee_tf.shards.staged import StagedStore
from xee_tf.shards.store import Packed, ShardNames
from xee_tf.sidecars import ShardInfo
from xee_tf.storage import Earlier, Location, Staging, commit, stage_local_file

__all__ = ["AppendingStore"]


class AppendingStore(StagedStore):
    """A store of one shard to which one process appends records.

    The file is on a local disk: beside the destination, or in the folder for temporary files. See
    `StagedStore` for the parameters.
    """

    def __init__(self, staging: Staging, names: ShardNames, earlier: Earlier) -> None:
        super().__init__(staging.on_disk(), names, earlier)
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
        destination = Staging(self.names.prefix, self.staging.token)
        try:
            staged, uploads = stage_local_file(destination, self.names.shard(0), self.staged(0).path)
            commit(destination, staged, sidecars, uploads=uploads, earlier=self.earlier)
        except BaseException:
            destination.remove()
            raise
        self.staging.remove()
        return tuple(shard.file for shard in shards)

    def abort(self) -> None:
        """Remove the file."""
        self._file.discard()  # if the disk is full, close would fail again
        super().abort()
