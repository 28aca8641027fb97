"""Open the shards of an export, and count the records of each.

As little as possible is read: the size of an uncompressed file, the index in the header of a file compressed
by this package, and the length in the last four bytes of another gzip file. Files are scanned only if these
do not match the number of records in the mixer, or the size of records varies.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from dask.tokenize import tokenize

from xee_tf.errors import MissingShardError, RecordError
from xee_tf.records import FRAMING, HEADER, iter_frames, read_length
from xee_tf.shards.access import THREADS, Shard, read_records
from xee_tf.shards.inflate import GZIP, inflate_file
from xee_tf.shards.members import HEAD_BYTES, read_index
from xee_tf.shards.scan import record_offsets, scan_records
from xee_tf.storage import Location

__all__ = ["first_record", "number_shards", "open_shards"]


def open_shards(locations: Sequence[Location]) -> list[Shard]:
    """Determine the size, the compression and the member index, if any, of each file.

    Raises
    ------
    MissingShardError
        If a file does not exist.
    RecordError
        If a file is a folder, or shorter than its index.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_probe, locations))


def _probe(location: Location) -> Shard:
    try:
        info = location.fs.info(location.path)
    except FileNotFoundError:
        raise MissingShardError(f"{location} does not exist.") from None
    if info["type"] != "file":
        raise RecordError(f"{location} is a folder, not a TFRecord file.")
    size = int(info["size"])
    shard = Shard(location, size, tokenize(location.url, sorted(info.items(), key=str)), "plain")
    # A file named .gz usually has an index: read it with the first request.
    head = location.read_bytes(0, min(size, HEAD_BYTES if location.name.endswith(".gz") else 2))
    if not head.startswith(GZIP):
        return shard
    if len(head) < min(size, HEAD_BYTES):
        head = location.read_bytes(0, min(size, HEAD_BYTES))
    try:
        index = read_index(head)
    except RecordError as error:
        raise RecordError(f"{location}: {error}") from None
    if index is None or sum(index.sizes) < size:  # no index, or data was appended later
        return replace(shard, access="stream")
    if sum(index.sizes) > size:
        raise RecordError(
            f"{location} is truncated: expected {sum(index.sizes)} bytes from its index, got {size}."
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
        data = next(read_records(shard, 0, 1, share=False))[1]
    elif shard.access == "plain" and shard.size:
        head = shard.location.read_bytes(0, min(shard.size, HEADER))
        data = shard.location.read_bytes(0, read_length(memoryview(head), 0, 0, source) + FRAMING)
    elif shard.access == "stream":
        rows = next(scan_records(inflate_file(shard.location, shard.size, 1 << 16), source), None)
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
