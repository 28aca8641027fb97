"""The interface of stores, in which the shards of an export are staged before they are moved into place.

An export begins a store, puts the records of each task into it, joins them into shards, and commits: files
have their final names only then. If the export fails, the store is aborted. Tasks may run in any order, in
any process, and again after a worker died.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from xee_tf.shards.runs import Part, Run, WrittenShard
from xee_tf.sidecars import ShardInfo
from xee_tf.storage import Location

__all__ = ["OneFile", "Packed", "Replaced", "ShardNames", "ShardStore", "aborted_on_failure"]

Packed = Iterable[tuple[Run, Sequence[Any]]]
"""Runs and their bytes, as returned by `pack_run`."""


class ShardNames(Protocol):
    """The final names of shards; small and picklable, because it is part of a store."""

    @property
    def prefix(self) -> Location:
        """The common prefix of all names."""

    @property
    def compressed(self) -> bool:
        """Whether shards are compressed with gzip."""

    def shard(self, number: int) -> Location:
        """Return the location of a shard."""


@dataclass(frozen=True)
class OneFile:
    """The names of an export with a single shard.

    Parameters
    ----------
    file : Location
        The location of the shard.
    compressed : bool
        Whether the shard is compressed with gzip.
    """

    file: Location
    compressed: bool

    @property
    def prefix(self) -> Location:
        """The location of the shard."""
        return self.file

    def shard(self, number: int) -> Location:
        """Return the location of the shard."""
        return self.file


@dataclass(frozen=True)
class Replaced:
    """The files of an earlier export at the same destination.

    Parameters
    ----------
    files : sequence of Location
        The existing files. Files that mark an export as complete come first, to be deleted before its shards.
    error_message : str or None
        The error message if they must not be replaced; None if they may.
    """

    files: Sequence[Location] = ()
    error_message: str | None = None


class ShardStore(Protocol):
    """A store in which the shards of one export are staged.

    A store is part of the tasks, unless a single process puts all records.

    Notes
    -----
    `PartStore` stages several files beside the destination, `AppendingStore` a single file. The interface is
    also suitable for multipart uploads: `put` would upload parts, `join` list them, `commit` complete the
    uploads.
    """

    @property
    def names(self) -> ShardNames:
        """The final names of the shards."""

    @classmethod
    def begin(cls, names: ShardNames) -> ShardStore:
        """Create the store of a new run; files of interrupted runs are never reused."""

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Stage the runs of one task for a shard. Putting the same block again gives the same result."""

    def join(self, shard: int, first_record: int, blocks: Iterable[Sequence[Part]]) -> WrittenShard:
        """Complete a shard from its parts; parts of other shards are ignored.

        Parameters
        ----------
        shard, first_record : int
            Number of the shard, and number of its first record.
        blocks : iterable of sequence of Part
            The parts of each task that has records of the shard.
        """

    def commit(
        self,
        shards: Sequence[WrittenShard],
        sidecars: Sequence[tuple[Location, bytes]] = (),
        *,
        replaced: Replaced = ...,
    ) -> tuple[ShardInfo, ...]:
        """Move all shards into place, write the sidecars in order, and remove the staged files.

        Parameters
        ----------
        shards : sequence of WrittenShard
            The complete shards.
        sidecars : sequence of (Location, bytes)
            Files that describe the shards. The last one marks the export as complete.
        replaced : Replaced
            The files of an earlier export.

        Raises
        ------
        DestinationExistsError
            If files of an earlier export must not be replaced; nothing is changed in this case.
        DestinationError
            If a shard is not in the store, or cannot be moved.
        """

    def abort(self) -> None:
        """Remove all staged files."""


@contextmanager
def aborted_on_failure(stores: Sequence[ShardStore]) -> Iterator[None]:
    """Abort stores if the body of the with statement fails or is interrupted."""
    try:
        yield
    except BaseException:
        for store in stores:
            store.abort()
        raise
