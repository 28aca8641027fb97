"""Represent a shard of an export, and read some of its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records import frame_offsets
from xee_tf.shards.inflate import CACHE, SEGMENT, read_segment
from xee_tf.shards.members import inflate_member
from xee_tf.storage import Location

__all__ = ["THREADS", "Shard", "read_records", "shard_spans"]

THREADS = 16
"""Number of shards to open concurrently; the threads mostly wait for an object store."""

_READ = 4 << 20  # approximate bytes of records per buffer
_JOINED = 256 << 10  # small buffers are joined up to this size in bytes, because each costs the caller a call

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
    identity : str
        Token of the content, which changes if the file is replaced.
    access : {"plain", "members", "stream"}
        Not compressed; compressed with a member index of this package; or compressed by another program.
    first : int
        Number of the first record, counted over the export.
    records : int
        Number of records.
    record_size : int or None
        Size of each record with its framing in bytes; None if it varies.
    starts, offsets : ndarray of int64, optional
        For "members", the first record and the first byte of each group of members, and the ends. Otherwise,
        if the size of records varies, `offsets` has the first byte of each record before compression, and the
        end.
    announced : int or None
        Expected value of `first`, from the member index.
    run_starts : ndarray of int64, optional
        First record of each run of the manifest, and the end.
    run_crcs : ndarray of uint32, optional
        Checksums of the runs; see `run_crc`.
    """

    location: Location
    size: int
    identity: str
    access: Access
    first: int = 0
    records: int = 0
    record_size: int | None = None
    starts: npt.NDArray[np.int64] | None = None
    offsets: npt.NDArray[np.int64] | None = None
    announced: int | None = None
    run_starts: npt.NDArray[np.int64] | None = None
    run_crcs: npt.NDArray[np.uint32] | None = None

    @property
    def same_features(self) -> bool:
        """Whether all records are known to have the same features, as in files with a member index."""
        return self.access == "members"

    def __dask_tokenize__(self) -> tuple[str, str]:
        return self.location.url, self.identity

    def __str__(self) -> str:
        return str(self.location)


def shard_spans(shards: Iterable[Shard], start: int, stop: int) -> Iterator[tuple[Shard, int, int]]:
    """Yield the shards with the records ``start..stop`` of an export, with the range inside each shard.

    Examples
    --------
    >>> shards = [Shard(Location("a"), 0, "", "plain", 0, 4), Shard(Location("b"), 0, "", "plain", 4, 2)]
    >>> [(str(shard), begin, end) for shard, begin, end in shard_spans(shards, 3, 9)]
    [('a', 3, 4), ('b', 0, 2)]
    """
    for shard in shards:
        begin, end = max(start - shard.first, 0), min(stop - shard.first, shard.records)
        if begin < end:
            yield shard, begin, end


def read_records(
    shard: Shard, start: int, stop: int, *, share: bool = True
) -> Iterator[tuple[int, memoryview]]:
    """Read the records ``start..stop`` of a shard as buffers of whole frames.

    Parameters
    ----------
    shard : Shard
        The shard.
    start, stop : int
        Range of records inside the shard.
    share : bool
        Whether to cache decompressed bytes for other readers.

    Yields
    ------
    first : int
        Number of the first record of the buffer.
    buffer : memoryview
        Consecutive records with their framing.
    """
    if shard.access == "members":
        yield from _joined(_read_members(shard, start, stop, share))
        return
    edge = _byte_of(shard, start)
    while start < stop:
        if shard.offsets is None:
            end = min(stop, start + max(1, _READ // (shard.record_size or 1)))
        else:
            fitting = int(np.searchsorted(shard.offsets, shard.offsets[start] + _READ, "right")) - 1
            end = min(stop, max(start + 1, fitting))
        span = _byte_of(shard, start), _byte_of(shard, end)
        if shard.access == "plain":
            yield start, _read_plain(shard, *span)
        else:
            yield start, _read_stream(shard, *span, edge, share)
        start = end


def _byte_of(shard: Shard, record: int) -> int:
    """Return the first byte of a record, before compression."""
    return int(shard.offsets[record]) if shard.offsets is not None else record * (shard.record_size or 0)


def _read_plain(shard: Shard, begin: int, end: int) -> memoryview:
    data = memoryview(shard.location.read_bytes(begin, end))
    if len(data) < end - begin:
        raise RecordError(f"{shard} has become shorter since it was opened.")
    return data


def _read_stream(shard: Shard, begin: int, end: int, edge: int, share: bool) -> memoryview:
    parts = []
    for number in range(begin // SEGMENT, -(-end // SEGMENT)):
        base = number * SEGMENT
        # The next read needs the end of the last segment, another reader the bytes before the first record.
        keep = share or base + SEGMENT > end or base < edge
        segment = read_segment(shard.location, shard.size, shard.identity, number, keep=keep)
        parts.append(memoryview(segment)[max(0, begin - base) : end - base])
    data = _whole(parts)
    if len(data) < end - begin:
        raise RecordError(f"{shard} is truncated: its stream ends {end - begin - len(data)} bytes early.")
    return data


def _read_members(shard: Shard, start: int, stop: int, share: bool) -> Iterator[tuple[int, memoryview]]:
    starts, offsets = shard.starts, shard.offsets
    assert starts is not None
    assert offsets is not None
    group = int(np.searchsorted(starts, start, "right")) - 1
    last = int(np.searchsorted(starts, stop, "left"))

    def kept(group: int) -> bool:
        return share or starts[group] < start or starts[group + 1] > stop

    while group < last:
        until = group + 1
        while until < last and kept(until) == kept(group) and offsets[until + 1] - offsets[group] < _READ:
            until += 1
        groups = range(group, until)
        load = partial(_inflate_groups, shard, groups)
        if kept(group):
            loaded: Iterable[bytes] = CACHE.get([(shard.identity, i) for i in groups], load)
        else:
            loaded = load(list(range(len(groups))))  # lazily: only one is in memory at a time
        for i, data in zip(groups, loaded, strict=True):
            first, end = int(starts[i]), int(starts[i + 1])
            begin, finish = max(start, first), min(stop, end)
            view = memoryview(data)
            if (begin, finish) != (first, end):
                view = _part(shard, view, range(first, end), range(begin, finish))
            yield begin, view
        group = until


def _joined(buffers: Iterable[tuple[int, memoryview]]) -> Iterator[tuple[int, memoryview]]:
    """Join small consecutive buffers; large ones are not copied."""
    first, size = 0, 0
    parts: list[memoryview] = []
    for record, view in buffers:
        if parts and size + len(view) > _JOINED:
            yield first, _whole(parts)
            size, parts = 0, []
        if not parts:
            first = record
        parts.append(view)
        size += len(view)
        if size >= _JOINED:
            yield first, _whole(parts)
            size, parts = 0, []
    if parts:
        yield first, _whole(parts)


def _whole(parts: Sequence[memoryview]) -> memoryview:
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _part(shard: Shard, view: memoryview, held: range, wanted: range) -> memoryview:
    """Return the frames of the records `wanted`, from a buffer that has the records `held`."""
    begin, end = wanted.start - held.start, wanted.stop - held.start
    if shard.record_size:
        return view[begin * shard.record_size : end * shard.record_size]
    edges = frame_offsets(view, source=str(shard), first=held.start)
    if len(edges) != len(held) + 1:
        raise _index_error(shard, held.start)
    return view[edges[begin] : edges[end]]


def _inflate_groups(shard: Shard, groups: range, wanted: list[int]) -> Iterator[bytes]:
    """Read and decompress the groups at the positions `wanted`, consecutive ones in one request."""
    starts, offsets = shard.starts, shard.offsets
    assert starts is not None
    assert offsets is not None
    while wanted:
        run = next((i for i in range(1, len(wanted)) if wanted[i] != wanted[i - 1] + 1), len(wanted))
        chosen, wanted = [groups[i] for i in wanted[:run]], wanted[run:]
        base = int(offsets[chosen[0]])
        data = _read_plain(shard, base, int(offsets[chosen[-1] + 1]))
        for group in chosen:
            count = int(starts[group + 1] - starts[group])
            expected = count * shard.record_size if shard.record_size else None
            view = data[int(offsets[group]) - base : int(offsets[group + 1]) - base]
            parts = []
            try:
                while view:
                    part, used = inflate_member(view, expected)
                    parts.append(part)
                    view = view[used:]
            except RecordError as error:
                raise RecordError(f"{shard}: from record {int(starts[group])} on: {error}") from None
            whole = parts[0] if len(parts) == 1 else b"".join(parts)
            if expected is not None and len(whole) != expected:
                raise _index_error(shard, int(starts[group]))
            yield whole


def _index_error(shard: Shard, record: int) -> RecordError:
    return RecordError(f"{shard} is corrupt: from record {record} on, the records do not match its index.")
