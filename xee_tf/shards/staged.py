"""What stores have in common: the staged files of shards, their receipts, and their commit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

from crc32c import crc32c

from xee_tf.errors import XeeTFError
from xee_tf.shards.runs import Run, WrittenShard
from xee_tf.shards.store import ShardNames
from xee_tf.sidecars import ShardInfo
from xee_tf.storage import (
    DamagedNoteError,
    Earlier,
    Location,
    Staging,
    commit,
    discard,
    read_note,
    write_note,
)

__all__ = ["StagedStore", "read_receipt", "write_receipt"]

_READ = 1 << 20
_THREADS = 8  # that check the shards of an interrupted write


@dataclass(frozen=True)
class StagedStore:
    """Base class of stores that stage shards in the staging folder of a write; small and picklable.

    Parameters
    ----------
    staging : Staging
        The staging folder of the write.
    names : ShardNames
        The names of the shards.
    earlier : Earlier
        The files of an earlier result.
    """

    staging: Staging
    names: ShardNames
    earlier: Earlier

    @property
    def keeps_runs(self) -> bool:
        """Whether `put` keeps the bytes of runs in memory; else, their memory can be used again."""
        return True

    def start(self) -> None:
        """Show that this process works for the write; every task that stages something calls it."""
        self.staging.sign()
        self.earlier.start(self.staging)

    def staged(self, number: int) -> Location:
        """Return where a shard is staged."""
        return self.staging.staged(self.names.shard(number))

    def receipt(self, number: int) -> Location:
        """Return the file that describes a complete shard."""
        return self.staging.folder.child(f"{number:05d}.json")

    def written(self, number: int, size: int, crc: int, runs: Sequence[Run]) -> WrittenShard:
        """Describe a complete shard."""
        records = sum(chain.from_iterable(run.records for run in runs))
        return WrittenShard.of_runs(number, ShardInfo(self.names.shard(number).url, records, size, crc), runs)

    def finished(self, shard: WrittenShard) -> WrittenShard | None:
        """Return a shard that is complete already, because a worker died with the result of the same task.

        A receipt is not sufficient: a power failure may have damaged the shard that it describes.
        """
        found = read_receipt(self.receipt(shard.number))
        if found is None or found.file != shard.file or not self.is_complete(found):
            return None
        return found

    def commit(
        self,
        shards: Sequence[WrittenShard],
        sidecars: Sequence[tuple[Location, bytes]] = (),
    ) -> tuple[ShardInfo, ...]:
        """Move the shards into place; see `ShardStore.commit`."""
        targets = [self.names.shard(shard.number) for shard in shards]
        commit(self.staging, targets, sidecars, earlier=self.earlier)
        return tuple(shard.file for shard in shards)

    def finished_shards(self) -> dict[int, WrittenShard]:
        """Return the complete shards that an interrupted write has staged; nothing is changed."""

        def complete(receipt: Location) -> WrittenShard | None:
            shard = read_receipt(receipt)
            return shard if shard is not None and self.is_complete(shard) else None

        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(complete, self._receipts())
            return {shard.number: shard for shard in found if shard is not None}

    def has_finished_shards(self) -> bool:
        """Return whether a later write can continue with complete shards."""
        return bool(self._receipts())

    def _receipts(self) -> list[Location]:
        """Return the receipts of complete shards with which a later write can continue."""
        if not self.is_resumable:
            return []
        folder = self.staging.folder
        try:
            return [folder.child(name) for name in folder.entries() if re.fullmatch(r"\d{5,}\.json", name)]
        except FileNotFoundError:
            return []

    def is_complete(self, shard: WrittenShard) -> bool:
        """Return whether the file of a shard is as described: a power failure may have damaged it."""
        try:
            with self.staged(shard.number).open() as file:
                crc = size = 0
                while data := file.read(_READ):
                    crc, size = crc32c(data, crc), size + len(data)
        except FileNotFoundError:
            return False
        return (size, crc) == (shard.file.bytes, shard.file.crc32c)

    @property
    def is_resumable(self) -> bool:
        """Whether a later write can continue with what is staged."""
        return self.earlier.identity is not None

    def abort(self) -> None:
        """Remove all that is staged, or keep it if a later write can continue with complete shards."""
        try:
            kept = self.has_finished_shards()
        except XeeTFError:  # the store cannot be listed
            kept = self.is_resumable
        if kept:
            self.staging.release()
            return
        self.staging.end()  # tasks that still run stage nothing more
        try:
            self.abort_uploads()
        finally:
            self.staging.abort()

    def discard(self) -> None:
        """Remove all that is staged, even if a later write can continue."""
        self.abort_uploads()
        discard(self.staging)

    def abort_uploads(self) -> None:
        """Abort the uploads that a store has created besides its files."""


def write_receipt(location: Location, shard: WrittenShard) -> None:
    """Write the description of a complete shard, from which a later write takes it up."""
    write_note(location, shard.to_json())


def read_receipt(location: Location) -> WrittenShard | None:
    """Read the description of a complete shard; return None if there is none, or it is damaged."""
    try:
        found = read_note(location)
    except DamagedNoteError:
        return None
    return None if found is None else WrittenShard.from_json(found)
