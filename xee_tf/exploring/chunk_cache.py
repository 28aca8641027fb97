"""Keep loaded chunks in bounded memory, and load each one once although several tiles need it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any

from numpy.typing import NDArray

__all__ = ["ChunkCache", "NotWantedError", "Planes"]

Planes = Sequence[NDArray[Any]]
"""A chunk: the pixels of each band."""

Load = Callable[[Sequence[Any]], dict[Any, Planes]]


class NotWantedError(Exception):
    """Nobody waits for a result any more."""


class ChunkCache:
    """Chunks that are loaded when they are needed; those not used for longest are removed.

    Parameters
    ----------
    limit : int
        Maximum size of the chunks in bytes. The last one stays even if it is larger.
    concurrency : int
        Maximum number of concurrent loads; Dask computes the chunks of each load in parallel.

    Examples
    --------
    >>> import numpy as np
    >>> cache = ChunkCache(1 << 20, 2)
    >>> sorted(cache.get(["a", "b"], lambda keys: {key: [np.ones(3)] for key in keys}))
    ['a', 'b']
    """

    def __init__(self, limit: int, concurrency: int) -> None:
        self._limit = limit
        self._turns = threading.Semaphore(concurrency)
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Planes] = OrderedDict()
        self._bytes = 0
        self._loading: dict[Hashable, Future[Planes]] = {}

    def get(
        self, keys: Sequence[Any], load: Load, is_wanted: Callable[[], bool] = lambda: True
    ) -> dict[Any, Planes]:
        """Return chunks; those that are not kept are loaded, or awaited if another thread loads them.

        Parameters
        ----------
        keys : sequence
            The chunks.
        load : callable
            Loads some of them.
        is_wanted : callable
            Whether somebody waits for the result. It is asked when it is the turn of a load.

        Raises
        ------
        NotWantedError
            If nobody does.
        """
        found: dict[Any, Planes] = {}
        while len(found) < len(keys):
            own: dict[Any, Future[Planes]] = {}
            awaited: dict[Any, Future[Planes]] = {}
            with self._lock:
                for key in keys:
                    if key in found:
                        continue
                    if key in self._kept:
                        self._kept.move_to_end(key)
                        found[key] = self._kept[key]
                    elif key in self._loading:
                        awaited[key] = self._loading[key]
                    else:
                        own[key] = self._loading[key] = Future()
            if own:
                found |= self._load(own, load, is_wanted)
            for key, future in awaited.items():
                try:
                    found[key] = future.result()
                except NotWantedError:  # by the other thread; the next round loads it here
                    if not is_wanted():
                        raise
        return found

    def _load(
        self, own: dict[Any, Future[Planes]], load: Load, is_wanted: Callable[[], bool]
    ) -> dict[Any, Planes]:
        try:
            with self._turns:
                if not is_wanted():
                    raise NotWantedError
                loaded = load(list(own))
        except BaseException as error:
            self._end(own)
            for future in own.values():
                future.set_exception(error)
            raise
        with self._lock:
            for key, planes in loaded.items():
                self._kept[key] = planes
                self._bytes += _size(planes)
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        self._end(own)
        for key, future in own.items():
            future.set_result(loaded[key])
        return loaded

    def _end(self, own: dict[Any, Future[Planes]]) -> None:
        with self._lock:
            for key in own:
                del self._loading[key]

    def clear(self) -> None:
        """Remove all chunks."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


def _size(planes: Planes) -> int:
    return sum(plane.nbytes for plane in planes)
