"""Open the shards of an export, and count the records of each.

As little as possible is read: nothing of a file that has the size in its manifest; otherwise the size of an
uncompressed file, the index in the header of a file compressed by this package, and the length in the last
four bytes of another gzip file. Files are scanned only if these do not match the number of records in the
mixer, or the size of records varies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from xee_tf.errors import RecordError
from xee_tf.records import FRAMING, iter_frames, read_length
from xee_tf.shards.access import read_records
from xee_tf.shards.inflate import GZIP, inflate_file
from xee_tf.shards.matching import other_file
from xee_tf.shards.members import HEAD_BYTES, read_index
from xee_tf.shards.scan import record_offsets, scan_records
from xee_tf.shards.shard import THREADS, Shard, file_stamp
from xee_tf.sidecars import ManifestShard, missing_error
from xee_tf.storage import Location

__all__ = ["first_record", "number_shards", "open_shards"]

_HEAD = 64 << 10  # bytes to read of an uncompressed file, which usually contain the first record


def open_shards(
    locations: Sequence[Location],
    described: Sequence[ManifestShard | None] = (),
    infos: Sequence[Mapping[str, Any]] = (),
) -> list[Shard]:
    """Determine the size, the compression and the member index, if any, of each file.

    Parameters
    ----------
    locations : sequence of Location
        The files in order.
    described : sequence of ManifestShard or None
        The description of each file in the manifest. It is used if the file has the same size.
    infos : sequence of mapping
        What the store said about each file when it was found. Files without a size there are asked for.

    Raises
    ------
    MissingShardError
        If a file does not exist.
    RecordError
        If a file is a folder, or shorter than its index.
    """
    known = described if len(described) == len(locations) else [None] * len(locations)
    told = infos if len(infos) == len(locations) else [{}] * len(locations)
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_probe, locations, known, told))


def _probe(location: Location, known: ManifestShard | None, info: Mapping[str, Any]) -> Shard:
    try:
        if info.get("size") is None:
            info = location.info()
        stamp = file_stamp(location, info)
    except FileNotFoundError:
        raise missing_error(location, f"{location} does not exist.") from None
    if info["type"] != "file":
        raise RecordError(f"{location} is a folder, not a TFRecord file.")
    size = int(stamp[0])
    if known is None and location.is_s3 and info.get("ETag"):
        location = replace(location, etag=str(info["ETag"]))
    shard = Shard(location, size, "plain", stamp=stamp)
    compressed = location.name.endswith(".gz")
    if known is not None and known.run_sizes is not None and known.is_same_file(location, size):
        return replace(
            shard,
            access="members" if compressed else "plain",
            records=known.file.records,
            starts=known.run_starts,
            offsets=np.concatenate([[0], np.cumsum(known.run_sizes)]),
        )
    # A file named .gz usually has an index: read it with the first request.
    head = location.read_bytes(0, min(size, HEAD_BYTES if compressed else 2))
    if not head.startswith(GZIP):
        return shard
    if len(head) < min(size, HEAD_BYTES):
        head = location.read_bytes(0, min(size, HEAD_BYTES))
    try:
        index = read_index(head)
    except RecordError as error:
        raise RecordError(f"{location}: {error}") from None
    if index is not None and sum(index.sizes) < size and known is not None and known.same_kind(location):
        raise other_file(shard, known, "the manifest")
    if index is None or sum(index.sizes) < size:  # no index, or data was appended later
        return replace(shard, access="stream")
    if sum(index.sizes) > size:
        raise RecordError(
            f"{location} is truncated: expected {sum(index.sizes):,} bytes from its index, got {size:,}. "
            "Copy or download the file again."
        )
    return replace(
        shard,
        access="members",
        records=index.total,
        starts=np.cumsum([0, *index.records]),
        offsets=np.cumsum([0, *index.sizes]),
        announced=index.first_record,
    )


def first_record(shard: Shard) -> bytes | None:
    """Read the data of the first record of a shard and check its CRCs; None if the shard is empty."""
    source = str(shard)
    data: bytes | memoryview = b""
    if shard.access == "members" and shard.records:
        data = next(read_records(shard, 0, 1, share=False, verify=False))[1]
    elif shard.access == "plain" and shard.size:
        head = shard.location.read_bytes(0, min(shard.size, _HEAD))
        size = read_length(memoryview(head), 0, 0, source) + FRAMING
        data = head[:size] if size <= len(head) else shard.location.read_bytes(0, size)
    elif shard.access == "stream":
        pieces = inflate_file(shard.location, shard.size, 1 << 16)
        rows = next(scan_records(pieces, source, lambda: shard.size), None)
        data = b"" if rows is None else rows[0].data
    return bytes(next(iter_frames(data, source=source))) if data else None


def number_shards(shards: Sequence[Shard], record_size: int | None, total: int) -> list[Shard]:
    """Count the records of each shard, and number them over all shards.

    Parameters
    ----------
    shards : sequence of Shard
        The shards in order.
    record_size : int or None
        Size of each record with its framing in bytes; None if it varies.
    total : int
        Expected number of records, from the mixer. Counts from file sizes are used only if they add up to
        it.
    """

    def count(shard: Shard, quick: Shard | None) -> Shard:
        # The length at the end of a stream may be wrong, so streams are always scanned.
        return _count(shard, record_size) if quick is None or quick.access == "stream" else quick

    with ThreadPoolExecutor(THREADS) as pool:
        quick = list(pool.map(partial(_count_quickly, record_size=record_size), shards))
        counted = [shard for shard in quick if shard is not None]
        if len(counted) < len(quick) or sum(shard.records for shard in counted) != total:
            counted = list(pool.map(count, shards, quick))
    firsts = np.cumsum([0, *(shard.records for shard in counted)])
    return [replace(shard, first=int(first)) for shard, first in zip(counted, firsts[:-1], strict=True)]


def _count_quickly(shard: Shard, record_size: int | None) -> Shard | None:
    """Count records without reading them; return None if that is not possible."""
    if shard.access == "members":
        return replace(shard, record_size=record_size)
    if shard.starts is not None:
        exact = record_size is not None and record_size * shard.records == shard.size
        return replace(shard, record_size=record_size if exact else None)
    if record_size is None:
        return None
    length = shard.size
    if shard.access == "stream":
        if length < 18:  # less than the header and trailer of an empty member
            return None
        length = int.from_bytes(shard.location.read_bytes(shard.size - 4, shard.size), "little")
    if length % record_size:
        return None
    return replace(shard, records=length // record_size, record_size=record_size)


def _count(shard: Shard, record_size: int | None) -> Shard:
    """Count records by reading their headers."""
    offsets = np.fromiter(record_offsets(shard), np.int64)
    if record_size is not None and (np.diff(offsets) == record_size).all():
        return replace(shard, records=len(offsets) - 1, record_size=record_size)
    return replace(shard, records=len(offsets) - 1, offsets=offsets)
