"""Read some of the records of a shard, and compare them with the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from xee_tf.errors import MissingShardError, RecordError
from xee_tf.records import frame_offsets
from xee_tf.shards.inflate import CACHE, SEGMENT, read_segment
from xee_tf.shards.limits import inflation_error, inflation_limit
from xee_tf.shards.matching import check_runs
from xee_tf.shards.members import inflate_member
from xee_tf.shards.shard import Shard, check_stamp

__all__ = ["read_records"]

_READ = 4 << 20  # approximate bytes of records per buffer
_LEAST_FEED = 4 << 10  # compressed bytes of a member that are decompressed first
_JOINED = 256 << 10  # small buffers are joined up to this size in bytes, because each costs the caller a call


def read_records(
    shard: Shard, start: int, stop: int, *, share: bool = True, verify: bool = True
) -> Iterator[tuple[int, memoryview]]:
    """Read the records ``start..stop`` of a shard as buffers of whole frames.

    The runs of the manifest that contain these records are read as a whole and compared with their checksums.
    A buffer is checked after the caller has processed it, so that an error about a corrupt record comes
    first. Without a manifest, an error is raised if the file has been replaced since it was opened.

    Parameters
    ----------
    shard : Shard
        The shard.
    start, stop : int
        Range of records inside the shard.
    share : bool
        Whether to cache decompressed bytes for other readers.
    verify : bool
        Whether to compare the runs with the manifest.

    Yields
    ------
    first : int
        Number of the first record of the buffer.
    buffer : memoryview
        Consecutive records with their framing.

    Raises
    ------
    RecordError
        If the file cannot be decompressed, or does not match the manifest.
    """
    if start >= stop:
        return
    checked = verify and shard.run_starts is not None
    if not checked and (verify or shard.location.is_local):
        check_stamp(shard)
    try:
        buffers = _read_buffers(shard, start, stop, share, whole_runs=checked)
        for held, buffer in check_runs(shard, buffers) if checked else buffers:
            wanted = range(max(start, held.start), min(stop, held.stop))
            if wanted:
                yield wanted.start, buffer if wanted == held else _part(shard, buffer, held, wanted)
    except FileNotFoundError:
        raise MissingShardError(f"{shard} does not exist: it was removed after it was opened.") from None
    except RecordError:
        check_stamp(shard)  # a file that was replaced seems corrupt
        raise


def _read_buffers(
    shard: Shard, start: int, stop: int, share: bool, *, whole_runs: bool
) -> Iterator[tuple[range, memoryview]]:
    """Yield buffers and the numbers of their records, which may begin before `start` and end after `stop`.

    With `whole_runs`, they contain whole runs of the manifest.
    """
    if shard.access == "members":
        yield from _joined(_read_members(shard, start, stop, share))
        return
    begin, end = start, stop
    if whole_runs and shard.run_starts is not None:
        begin, end = _surround(shard.run_starts, start, stop)
    if shard.starts is not None and not shard.record_size:
        yield from _read_groups(shard, *_surround(shard.starts, begin, end))
        return
    edge = _byte_of(shard, begin)
    while begin < end:
        if shard.offsets is None or shard.record_size:
            until = min(end, begin + max(1, _READ // (shard.record_size or 1)))
        else:
            fitting = int(np.searchsorted(shard.offsets, shard.offsets[begin] + _READ, "right")) - 1
            until = min(end, max(begin + 1, fitting))
        span = _byte_of(shard, begin), _byte_of(shard, until)
        if shard.access == "plain":
            yield range(begin, until), _read_plain(shard, *span)
        else:
            yield range(begin, until), _read_stream(shard, *span, edge, share)
        begin = until


def _surround(starts: npt.NDArray[np.int64], start: int, stop: int) -> tuple[int, int]:
    """Extend a range of records to whole groups."""
    first = int(np.searchsorted(starts, start, "right")) - 1
    last = int(np.searchsorted(starts, stop, "left"))
    return int(starts[first]), int(starts[last])


def _read_groups(shard: Shard, start: int, stop: int) -> Iterator[tuple[range, memoryview]]:
    """Yield whole groups of an uncompressed file whose records vary in size."""
    starts, offsets = shard.starts, shard.offsets
    assert starts is not None
    assert offsets is not None
    group, last = np.searchsorted(starts, [start, stop]).tolist()
    while group < last:
        until = min(last, max(group + 1, int(np.searchsorted(offsets, offsets[group] + _READ, "right")) - 1))
        data = _read_plain(shard, int(offsets[group]), int(offsets[until]))
        yield range(int(starts[group]), int(starts[until])), data
        group = until


def _byte_of(shard: Shard, record: int) -> int:
    """Return the first byte of a record, before compression."""
    if shard.record_size or shard.offsets is None:
        return record * (shard.record_size or 0)
    return int(shard.offsets[record])


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


def _read_members(shard: Shard, start: int, stop: int, share: bool) -> Iterator[tuple[range, memoryview]]:
    """Yield the decompressed groups that contain the records, as a whole."""
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
            yield range(int(starts[i]), int(starts[i + 1])), memoryview(data)
        group = until


def _joined(buffers: Iterable[tuple[range, memoryview]]) -> Iterator[tuple[range, memoryview]]:
    """Join small consecutive buffers; large ones are not copied."""
    held = range(0)
    size = 0
    parts: list[memoryview] = []
    for records, view in buffers:
        if parts and size + len(view) > _JOINED:
            yield held, _whole(parts)
            size, parts = 0, []
        held = range(held.start if parts else records.start, records.stop)
        parts.append(view)
        size += len(view)
        if size >= _JOINED:
            yield held, _whole(parts)
            size, parts = 0, []
    if parts:
        yield held, _whole(parts)


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
            try:
                whole = _inflate(view, expected)
            except RecordError as error:
                raise RecordError(f"{shard}: from record {int(starts[group])} on: {error}") from None
            if expected is not None and len(whole) != expected:
                raise _index_error(shard, int(starts[group]))
            yield whole


def _inflate(view: memoryview, expected: int | None) -> bytes:
    """Decompress consecutive gzip members, whose content may have `expected` bytes; usually there is one."""
    limit = inflation_limit(len(view))
    if expected is not None and expected > limit:
        raise inflation_error("A group of records", limit)
    parts, held, feed = [], 0, len(view)
    while view:
        size = None if expected is None else expected - held
        part, used = inflate_member(view, size, limit=limit, held=held, feed=feed)
        held += len(part)
        parts.append(part)
        view, feed = view[used:], max(_LEAST_FEED, 2 * used)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _index_error(shard: Shard, record: int) -> RecordError:
    return RecordError(f"{shard} is corrupt: from record {record} on, the records do not match its index.")
