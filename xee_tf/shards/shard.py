"""A shard of an export, opened for reading."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xee_tf.errors import MissingShardError, RecordError
from xee_tf.storage import Location

__all__ = ["THREADS", "Shard", "check_stamp", "file_stamp", "shard_spans"]

THREADS = 16
"""Number of shards to open concurrently; the threads mostly wait for an object store."""

_TAGS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "created")
"""What filesystems tell about the version of a file, the most reliable first."""

Access = Literal["plain", "members", "stream"]


@dataclass(frozen=True, eq=False)
class Shard:
    """One TFRecord file; small and picklable.

    Parameters
    ----------
    location : Location
        The file.
    size : int
        Size of the file in bytes.
    access : {"plain", "members", "stream"}
        Not compressed; compressed with a member index of this package; or compressed by another program.
    first : int
        Number of the first record, counted over the export.
    records : int
        Number of records.
    record_size : int or None
        Size of each record with its framing in bytes; None if it varies.
    starts, offsets : ndarray of int64, optional
        The first record and the first byte of each group of records that is read as a whole, and the ends:
        gzip members, or the runs of an uncompressed file. Without `starts`, `offsets` has the first byte of
        each record before compression, and the end, if the size of records varies.
    announced : int or None
        Expected value of `first`, from the member index.
    stamp : tuple of str
        What the filesystem says about the version of the file; see `file_stamp`.
    run_starts : ndarray of int64, optional
        First record of each run of the manifest, and the end.
    run_crcs : ndarray of uint32, optional
        Checksums of the runs; see `run_crc`.
    crc32c : int or None
        Checksum of the whole file in the manifest; None if another program has compressed or decompressed the
        file since.
    """

    location: Location
    size: int
    access: Access
    first: int = 0
    records: int = 0
    record_size: int | None = None
    starts: npt.NDArray[np.int64] | None = None
    offsets: npt.NDArray[np.int64] | None = None
    announced: int | None = None
    stamp: tuple[str, ...] = ()
    run_starts: npt.NDArray[np.int64] | None = None
    run_crcs: npt.NDArray[np.uint32] | None = None
    crc32c: int | None = None

    @cached_property
    def identity(self) -> str:
        """Token of this version of the file."""
        # Not by Dask's tokenize, which takes a lock: until Python 3.11, cached_property has one for all
        # shards, and a thread in tokenize would wait for it in __dask_tokenize__.
        parts = (self.location.url, self.stamp)
        return hashlib.blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

    @property
    def same_features(self) -> bool:
        """Whether all records are known to have the same features, as in files from this package."""
        return self.starts is not None

    def __dask_tokenize__(self) -> tuple[str, str]:
        return self.location.url, self.identity

    def __str__(self) -> str:
        return str(self.location)


def shard_spans(shards: Iterable[Shard], start: int, stop: int) -> Iterator[tuple[Shard, int, int]]:
    """Yield the shards with the records ``start..stop`` of an export, with the range inside each shard.

    Examples
    --------
    >>> shards = [Shard(Location("a"), 0, "plain", 0, 4), Shard(Location("b"), 0, "plain", 4, 2)]
    >>> [(str(shard), begin, end) for shard, begin, end in shard_spans(shards, 3, 9)]
    [('a', 3, 4), ('b', 0, 2)]
    """
    for shard in shards:
        begin, end = max(start - shard.first, 0), min(stop - shard.first, shard.records)
        if begin < end:
            yield shard, begin, end


def file_stamp(location: Location, info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what changes if a file is replaced: its size, and the time of its change or its ETag."""
    if location.is_local:
        status = os.stat(location.path)
        return str(status.st_size), str(status.st_mtime_ns)
    tag = next((info[name] for name in _TAGS if info.get(name) is not None), "")
    return str(info["size"]), str(tag)


def check_stamp(shard: Shard) -> None:
    """Raise an error if a file has been replaced or modified since it was opened.

    Objects in S3 are compared when they are read, and files of web servers and other filesystems are not.
    """
    location = shard.location
    if not any(shard.stamp) or location.etag or not (location.is_local or location.bucket is not None):
        return
    try:
        stamp = file_stamp(location, {} if location.is_local else location.info())
    except FileNotFoundError:
        raise MissingShardError(f"{shard} does not exist: it was removed after it was opened.") from None
    if stamp != shard.stamp:
        raise RecordError(f"{shard} was replaced or modified after it was opened: open it again.")
