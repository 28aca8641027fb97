"""Keep loaded chunks in bounded memory, and load each one once although several tiles need it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

__all__ = ["ChunkCache", "NotWantedError", "Planes", "Results"]

Planes = Sequence[NDArray[Any]]
"""A chunk: the pixels of each band."""

Results = MutableMapping[Any, Any]
"""The results of blocks of which chunks are assembled, arrays by name."""

Load = Callable[[Sequence[Any], Results], dict[Any, Planes]]
"""Loads chunks, and uses and adds results of blocks."""


class NotWantedError(Exception):
    """Nobody waits for a result any more."""


@dataclass(eq=False)
class _Request:
    keys: Sequence[Any]
    load: Load
    is_wanted: Callable[[], bool]
    found: dict[Any, Planes] = field(default_factory=dict)

    @property
    def missing(self) -> list[Any]:
        return [key for key in self.keys if key not in self.found]


class ChunkCache:
    """Chunks that are loaded when they are needed; those not used for longest are removed.

    There is one load at a time, in which Dask computes in parallel. All requests that wait for it are served
    by the next one together: chunks that are assembled of the same blocks share them.

    Parameters
    ----------
    limit : int
        Maximum size of the chunks and of the results of blocks in bytes. The last one stays even if it is
        larger.

    Examples
    --------
    >>> import numpy as np
    >>> cache = ChunkCache(1 << 20)
    >>> sorted(cache.get(["a", "b"], lambda keys, results: {key: [np.ones(3)] for key in keys}))
    ['a', 'b']
    """

    def __init__(self, limit: int) -> None:
        self._kept = _Bounded(limit)
        self._turn = threading.Lock()
        self._waiting: list[_Request] = []

    def get(
        self, keys: Sequence[Any], load: Load, is_wanted: Callable[[], bool] = lambda: True
    ) -> dict[Any, Planes]:
        """Return chunks, and load those that are not kept.

        Parameters
        ----------
        keys : sequence
            The chunks.
        load : callable
            See `Load`. Requests with equal functions are served together.
        is_wanted : callable
            Whether somebody waits for the result. It is asked when it is the turn of a load, and may be asked
            by another thread.

        Raises
        ------
        NotWantedError
            If nobody does.
        """
        request = _Request(keys, load, is_wanted)
        if self._find(request):
            return request.found
        self._waiting.append(request)
        try:
            with self._turn:
                if not self._find(request):  # another thread may have loaded them
                    self._load(request)
        finally:
            self._waiting.remove(request)
        return request.found

    def _find(self, request: _Request) -> bool:
        """Take chunks that are kept; return whether these are all."""
        for key in request.missing:
            if (planes := self._kept.get(key)) is not None:
                request.found[key] = planes
        return not request.missing

    def _load(self, request: _Request) -> None:
        if not request.is_wanted():
            raise NotWantedError
        together = [request]
        for other in list(self._waiting):
            if other is not request and other.load == request.load and other.is_wanted():
                self._find(other)
                together.append(other)
        keys = list(dict.fromkeys(key for each in together for key in each.missing))
        try:
            loaded = request.load(keys, self._kept)
        except Exception:
            if keys == request.missing:
                raise
            loaded = request.load(request.missing, self._kept)  # what others need may have failed
        for key, planes in loaded.items():
            self._kept[key] = planes
        for each in together:
            each.found |= {key: loaded[key] for key in each.missing if key in loaded}

    @property
    def nbytes(self) -> int:
        """Size of what is kept."""
        return self._kept.nbytes

    def clear(self) -> None:
        """Remove everything."""
        self._kept.clear()


class _Bounded(Results):
    """A mapping to arrays that removes those not used for longest. Threads may use it."""

    def __init__(self, limit: int) -> None:
        self._limit, self.nbytes = limit, 0
        self._values: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.RLock()

    def __getitem__(self, key: Any) -> Any:
        with self._lock:
            self._values.move_to_end(key)
            return self._values[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        with self._lock:
            if key in self._values:
                del self[key]
            self._values[key] = value
            self.nbytes += _size(value)
            while self.nbytes > self._limit and len(self._values) > 1:
                del self[next(iter(self._values))]

    def __delitem__(self, key: Any) -> None:
        with self._lock:
            self.nbytes -= _size(self._values.pop(key))

    def __iter__(self) -> Iterator[Any]:
        with self._lock:
            return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)


def _size(value: Any) -> int:
    arrays = value.values() if isinstance(value, Mapping) else value
    return sum(int(array.nbytes) for array in arrays)
