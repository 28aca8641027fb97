"""Decompress parts of gzip files: members through a cache, long streams with restart points.

Shards written by this package consist of members, which are decompressed one by one. A shard from Earth
Engine or TensorFlow is usually one long stream, which must be decompressed from the start. Sequential reads
use a decompressor that continues where it stopped; other reads use copies of the state of a decompressor,
which are saved at regular intervals.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Any

from isal import igzip_lib

from xee_tf.errors import RecordError
from xee_tf.shards.members import decompress
from xee_tf.storage import Location

__all__ = ["CACHE", "GZIP", "SEGMENT", "InflateCache", "inflate_file", "inflate_stream", "read_segment"]

SEGMENT = 4 << 20
"""Decompressed bytes of a stream between two restart points."""

GZIP = b"\x1f\x8b"
"""The first bytes of a gzip file."""

_CACHE_BYTES = 128 << 20
_READ = 2 << 20  # compressed bytes per request
_FEED = 32 << 10  # compressed bytes to decompress at a time: decompressors copy and keep what they do not use
_MOST_PARTS = 512
_MAX_POINTS = 1024  # restart points to keep over all streams, at most 45 + 32 MB
_MAX_RUNNING = 64  # streams that can be continued, 2 MB each


class InflateCache:
    """A cache of the most recently used decompressed bytes, shared by threads.

    The bands of an image need the same bytes, often at the same time; these are decompressed once.

    Parameters
    ----------
    limit : int
        Maximum size in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._lock = Lock()
        self._entries: OrderedDict[Hashable, Future[bytes]] = OrderedDict()

    def get(self, keys: Sequence[Hashable], load: Callable[[list[int]], Iterator[bytes]]) -> list[bytes]:
        """Return the bytes of `keys`; `load` yields the missing ones, given their positions in order."""
        mine: list[int] = []
        futures: list[Future[bytes]] = []
        with self._lock:
            for i, key in enumerate(keys):
                if key in self._entries:
                    self._entries.move_to_end(key)
                else:
                    self._entries[key] = Future()
                    mine.append(i)
                futures.append(self._entries[key])
        pending = list(mine)
        try:
            # Entries of this thread come first: no thread waits while others wait for its entries.
            for data in load(mine) if mine else ():
                i = pending.pop(0)
                self._settle(keys[i], futures[i], data)
        except BaseException as error:
            for i in pending:
                self._settle(keys[i], futures[i], error)
            raise
        return [future.result() for future in futures]

    def peek(self, key: Hashable) -> bytes | None:
        """Return the bytes of `key` if they are cached, else None."""
        with self._lock:
            future = self._entries.get(key)
        return future.result() if future and future.done() else None

    def put(self, key: Hashable, data: bytes) -> None:
        """Add an entry; threads that wait for it receive it."""
        with self._lock:
            future = self._entries.setdefault(key, Future())
        self._settle(key, future, data)

    def discard(self, key: Hashable) -> None:
        """Remove one entry, unless it is being loaded."""
        with self._lock:
            future = self._entries.get(key)
            if future and future.done():
                self._used -= len(self._entries.pop(key).result())

    def clear(self) -> None:
        """Remove all entries that are not being loaded."""
        with self._lock:
            self._shrink(0)

    def _settle(self, key: Hashable, future: Future[bytes], result: bytes | BaseException) -> None:
        with self._lock:
            if future.done():
                return
            if isinstance(result, BaseException):
                self._entries.pop(key, None)
                future.set_exception(result)
                return
            future.set_result(result)
            self._used += len(result)
            self._shrink(self.limit)

    def _shrink(self, limit: int) -> None:
        excess, oldest = self._used - limit, []
        for key, future in self._entries.items():
            if excess <= 0:
                break
            if future.done():
                excess -= len(future.result())
                oldest.append(key)
        for key in oldest:
            self._used -= len(self._entries.pop(key).result())


CACHE = InflateCache(_CACHE_BYTES)
"""The cache of this process."""


@dataclass(frozen=True)
class _Point:
    """A restart point in a gzip file: an offset and the state there, or None at the start of a member."""

    offset: int
    state: Any = None


class _Parts:
    """Bytes that are joined at the end; many small ones are joined earlier, because each takes memory."""

    def __init__(self) -> None:
        self._long: list[bytes] = []
        self._short: list[bytes] = []

    def add(self, data: bytes) -> None:
        """Add the next bytes."""
        self._short.append(data)
        if len(self._short) == _MOST_PARTS:
            self._long.append(b"".join(self._short))
            self._short.clear()

    def joined(self) -> bytes:
        """Return all bytes."""
        parts = [*self._long, *self._short]
        return parts[0] if len(parts) == 1 else b"".join(parts)


_registry = Lock()
_points: OrderedDict[tuple[Hashable, int], _Point] = OrderedDict()
_running: OrderedDict[Hashable, tuple[int, Iterator[bytes]]] = OrderedDict()
_locks: defaultdict[Hashable, Lock] = defaultdict(Lock)


def read_segment(
    location: Location, size: int, identity: Hashable, number: int, *, keep: bool = True
) -> bytes:
    """Read one segment of a decompressed gzip file; the last segment is shorter.

    Parameters
    ----------
    location : Location
        The gzip file.
    size : int
        Size of the file in bytes.
    identity : hashable
        Token of the content of the file.
    number : int
        Number of the segment, which starts at byte ``number * SEGMENT``.
    keep : bool
        Whether the segment is likely to be read again.
    """

    def load(_: list[int]) -> Iterator[bytes]:
        with _locks[identity]:
            data = CACHE.peek((identity, number))  # another thread may have loaded it meanwhile
            point = _points.get((identity, number))
            if data is None and point is None:
                for i, data in _go_to(location, size, identity, number):
                    CACHE.put((identity, i), data)
        if data is None and point is not None:  # without the lock: threads can start from many points
            data = _advance_from(location, size, identity, number, point)
        yield data or b""

    [data] = CACHE.get([(identity, number)], load)
    if not keep:
        CACHE.discard((identity, number))
    return data


def _go_to(location: Location, size: int, identity: Hashable, number: int) -> Iterator[tuple[int, bytes]]:
    """Decompress up to a segment; also yield the segments before it, which other threads may need."""
    reached, segments = _running.pop(identity, (0, None))
    if number == 0:
        reached, segments = 0, inflate_file(location, size, SEGMENT)
    if segments is not None and reached <= number:
        # igzip is twice as fast as zlib, but its state cannot be copied: use it for sequential reads.
        for i in range(reached, number + 1):
            yield i, next(segments, b"")
        _running[identity] = number + 1, segments
        while len(_running) > _MAX_RUNNING:
            _running.popitem(last=False)
        return
    start = number
    while start and (identity, start) not in _points:
        start -= 1
    for i in range(start, number + 1):
        yield i, _advance_from(location, size, identity, i, _points.get((identity, i), _Point(0)))


def _advance_from(location: Location, size: int, identity: Hashable, number: int, point: _Point) -> bytes:
    """Decompress one segment from its restart point, and save the next restart point."""
    data, following = _advance(location, size, point, SEGMENT)
    with _registry:
        _points[identity, number + 1] = following
        while len(_points) > _MAX_POINTS:
            _points.popitem(last=False)
    return data


def inflate_file(location: Location, size: int, step: int) -> Iterator[bytes]:
    """Decompress a whole gzip file of `size` bytes; see `inflate_stream`."""
    edges = range(0, size, min(_READ, step))
    pieces = (location.read_bytes(begin, min(begin + edges.step, size)) for begin in edges)
    return inflate_stream(pieces, str(location), step)


def inflate_stream(pieces: Iterator[bytes], source: str, step: int) -> Iterator[bytes]:
    """Decompress a whole gzip file without caching.

    Parameters
    ----------
    pieces : iterator of bytes
        The content of the file. Pieces after the last member are not read.
    source : str
        Name of the file, for error messages.
    step : int
        Decompressed bytes to yield at a time.
    """
    inflater = None
    parts = _Parts()
    piece, position, want = b"", 0, step  # position: the first byte of `piece` that has not been passed on
    feed = _FEED
    while True:
        if position == len(piece) and (inflater is None or inflater.needs_input):
            piece, position = next(pieces, b""), 0
            if not piece and inflater is not None:
                raise RecordError(f"{source} is truncated: its gzip stream has no end.")
        if inflater is None:
            # The end may be padded with zeros, as on tapes.
            if not any(piece[position : position + 2]):
                break
            inflater, feed = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP), _FEED
        data = b""
        if inflater.needs_input:
            data = piece[position : position + feed]
            position, feed = position + len(data), 2 * feed  # less is fed to a member that may be short
        out = decompress(inflater, data, want, str(source))
        if inflater.eof:
            position -= len(inflater.unused_data)
            inflater = None
        parts.add(out)
        want -= len(out)
        if not want:
            yield parts.joined()
            parts, want = _Parts(), step
    if want < step:
        yield parts.joined()


def _advance(location: Location, size: int, point: _Point, want: int) -> tuple[bytes, _Point]:
    """Decompress `want` bytes from a restart point; fewer only at the end of the file."""
    offset = point.offset
    inflater = point.state.copy() if point.state else None
    parts = _Parts()
    while want:
        end = min(offset + min(_READ, want), size)
        data = location.read_bytes(offset, end) if offset < size else b""
        if not data and inflater:
            raise RecordError(f"{location} is truncated: its gzip stream has no end.")
        begin = 0
        while begin < len(data) and want:
            if inflater is None:
                if not any(data[begin : begin + 2]):  # padded with zeros after the end, as on tapes
                    begin = len(data)
                    offset = size
                    break
                inflater = zlib.decompressobj(31)
            fed = data[begin : begin + _FEED]
            try:
                out = inflater.decompress(fed, want)
            except zlib.error as error:
                raise RecordError(f"{location} is corrupt: {error}.") from None
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            used = len(fed) - len(rest)
            begin, offset = begin + used, offset + used
            want -= len(out)
            parts.add(out)
            if inflater.eof:
                inflater = None
        if offset >= size and inflater is None:
            break
    return parts.joined(), _Point(offset, inflater)
