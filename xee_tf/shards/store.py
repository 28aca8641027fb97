"""The interface of stores, in which shards are staged before they are moved into place.

A write puts the records of each task into a store, joins them into shards, and commits: files have their
final names only then. If it fails, the store is aborted. Tasks may be executed in any order, in any process,
and again after a worker died.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from xee_tf.errors import DestinationError, XeeTFError
from xee_tf.shards.runs import Part, Run, WrittenShard
from xee_tf.sidecars import ShardInfo
from xee_tf.signals import NOTHING_CHANGED, explain_interruption, if_interrupted
from xee_tf.storage import Location, Staging

__all__ = ["OneFile", "Packed", "ShardNames", "ShardStore", "aborted_on_failure", "commit_once"]

Found = TypeVar("Found")
Committed = TypeVar("Committed")

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


class ShardStore(Protocol):
    """A store in which the shards of one write are staged.

    A store is part of the tasks, unless a single process puts all records.

    Notes
    -----
    There are three ways in which the runs of all tasks become shards:

    * `FileStore` writes each run to its place in the shard, on a local disk.
    * `UploadStore` uploads the runs as parts of an object, in order, to S3, Azure or Google Cloud Storage.
    * `SequentialStore` keeps the runs of a shard in memory, and writes them to a file. It works on any
      filesystem.
    """

    @property
    def staging(self) -> Staging:
        """The staging folder of the write."""

    @property
    def names(self) -> ShardNames:
        """The final names of the shards."""

    @property
    def keeps_runs(self) -> bool:
        """Whether `put` keeps the bytes of runs in memory; else, their memory can be used again."""

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Stage the runs of one task for a shard. Putting the same block again gives the same result."""

    def commit(
        self,
        shards: Sequence[WrittenShard],
        sidecars: Sequence[tuple[Location, bytes]] = (),
    ) -> tuple[ShardInfo, ...]:
        """Move all shards into place, write the sidecars in order, and remove the staged files.

        Parameters
        ----------
        shards : sequence of WrittenShard
            The complete shards.
        sidecars : sequence of (Location, bytes)
            Files that describe the shards. The last one marks the result as complete.

        Raises
        ------
        DestinationExistsError
            If there are other files of an earlier result than when the write was planned; nothing is
            changed in this case.
        DestinationError
            If a shard is not in the store, or cannot be moved.
        """

    def finished_shards(self) -> dict[int, WrittenShard]:
        """Return the complete shards that an interrupted write has staged."""

    def has_finished_shards(self) -> bool:
        """Return whether a later write can continue with complete shards."""

    @property
    def is_resumable(self) -> bool:
        """Whether a later write can continue with what is staged."""

    def abort(self) -> None:
        """Remove all that is staged, unless a later write can continue with complete shards."""

    def discard(self) -> None:
        """Remove all that is staged, even if a later write can continue."""


def commit_once(
    store: ShardStore, find: Callable[[], Found | None], commit: Callable[[], Committed]
) -> Found | Committed:
    """Commit a write, unless the same one was committed before; return what `find` or `commit` returns.

    A Delayed may be computed twice, and another process may resume the same write.

    Parameters
    ----------
    store : ShardStore
        The store of the write, from which all is removed if a result is found.
    find : callable
        Returns a complete result of the same write; None if there is none.
    commit : callable
        Commits the write.
    """
    found = find()
    if found is None:
        try:
            return commit()
        except DestinationError:  # also if another thread has moved the staged files
            found = find()
            if found is None:
                raise
    with suppress(XeeTFError):  # the result is complete, and a later run removes what is left
        store.discard()
    return found


_KEPT = "Complete shards are kept: run it again with if_exists='resume' to continue."
_NONE_KEPT = "No shard was complete, and nothing was changed. Run it again."


@contextmanager
def aborted_on_failure(stores: Sequence[ShardStore]) -> Iterator[None]:
    """Abort stores if the body of the with statement fails or is interrupted."""

    def outlook() -> str:
        return _KEPT if any(store.is_resumable for store in stores) else ""

    try:
        with if_interrupted(outlook):
            yield
    except BaseException as error:
        for store in stores:
            with suppress(XeeTFError):  # the error that is raised is more important
                store.abort()
        if isinstance(error, KeyboardInterrupt):
            explain_interruption(error, _advice(stores))
        raise


def _advice(stores: Sequence[ShardStore]) -> str:
    """Say how to go on after an interruption."""
    if not stores:
        return "Nothing was changed. Run it again."
    if not any(store.is_resumable for store in stores):
        return NOTHING_CHANGED
    with suppress(XeeTFError):
        if any(store.has_finished_shards() for store in stores):
            return _KEPT
    return _NONE_KEPT
