"""The interface of stores: where the shards of an export are staged, and from where they are put into place.

An export begins a store, puts the records of each task into it, joins them into shards, and commits: only
then do files have their final names. A failure aborts it. The tasks may run in any order, in any process,
and again after a worker died.
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
"""Runs and their bytes, as `pack_run` gives them."""


class ShardNames(Protocol):
    """The final names of shards; small and picklable, as it travels with its store."""

    @property
    def prefix(self) -> Location:
        """What all names of an export start with."""

    @property
    def compressed(self) -> bool:
        """Whether shards are gzipped."""

    def shard(self, number: int) -> Location:
        """Where a shard is put."""


@dataclass(frozen=True)
class OneFile:
    """The names of an export of a single shard.

    Parameters
    ----------
    file : Location
    compressed : bool
    """

    file: Location
    compressed: bool

    @property
    def prefix(self) -> Location:
        """The whole name: nothing follows it."""
        return self.file

    def shard(self, number: int) -> Location:
        """The file."""
        return self.file


@dataclass(frozen=True)
class Replaced:
    """The files of an earlier export in the place of a new one.

    Parameters
    ----------
    files : sequence of Location
        Those that are there now. Those that mark an export as whole come first: they go before its shards.
    refusal : str or None
        Why they may not be replaced; None if they may.
    """

    files: Sequence[Location] = ()
    refusal: str | None = None


class ShardStore(Protocol):
    """Where the shards of one export are staged.

    A store travels in tasks, unless one process puts all records.

    Notes
    -----
    `PartStore` stages files beside the destination, `AppendingStore` one file that grows. Stores with
    multipart uploads fit, too: `put` uploads parts, `join` lists them, `commit` completes the uploads.
    """

    @property
    def names(self) -> ShardNames:
        """Where the shards are put in the end."""

    @classmethod
    def begin(cls, names: ShardNames) -> ShardStore:
        """The store of a new run: what an interrupted run left is never taken for its own."""

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Stage the runs that one task has for a shard. Putting the same block again is harmless."""

    def join(self, shard: int, first_record: int, blocks: Iterable[Sequence[Part]]) -> WrittenShard:
        """Complete a shard of what was put for it; parts of other shards are ignored.

        Parameters
        ----------
        shard, first_record : int
            Number of the shard, and of its first record.
        blocks : iterable of sequences of Part
            The parts of each task that has records of the shard.
        """

    def commit(
        self,
        shards: Sequence[WrittenShard],
        sidecars: Sequence[tuple[Location, bytes]] = (),
        *,
        replaced: Replaced = ...,
    ) -> tuple[ShardInfo, ...]:
        """Put all shards into place, then write the sidecars in their order, and keep nothing staged.

        Parameters
        ----------
        shards : sequence of WrittenShard
        sidecars : sequence of (Location, bytes)
            Files that describe the shards. The last one marks a whole export.
        replaced : Replaced
            The files of an earlier export.

        Raises
        ------
        DestinationExistsError
            If those may not be replaced. Nothing is changed then.
        DestinationError
            If a shard is not in the store, or cannot be put into its place.
        """

    def abort(self) -> None:
        """Remove everything that is staged."""


@contextmanager
def aborted_on_failure(stores: Sequence[ShardStore]) -> Iterator[None]:
    """Abort stores where what is done with them fails or is interrupted."""
    try:
        yield
    except BaseException:
        for store in stores:
            store.abort()
        raise
