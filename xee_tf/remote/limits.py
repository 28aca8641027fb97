"""Limits on the number of concurrent requests, in one process and on all workers of a Dask cluster.

In a process, the limit is a semaphore that halves itself when the server is busy (429), and grows by one with
each round of successful responses. On a Dask cluster, requests also acquire a `distributed.Semaphore` of the
same size. The scheduler keeps its leases, and releases those of a worker that was killed after
``distributed.scheduler.locks.lease-timeout`` (30 seconds). The limit therefore stays the same when workers
join or leave, unlike a fixed share for each worker. A lease costs about a millisecond.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import Condition, Lock
from typing import Any

from xee_tf.remote.responses import Response

__all__ = ["AdaptiveLimit", "ClusterLimit"]


class AdaptiveLimit:
    """Limit on the concurrent requests of this process, which is reduced while the server is busy.

    Examples
    --------
    >>> limit = AdaptiveLimit(8)
    >>> throttled = limit.run(lambda: Response(429, "HTTP 429"))
    >>> limit.current
    1
    >>> responses = [limit.run(lambda: Response(200, "HTTP 200")) for _ in range(3)]
    >>> limit.current
    2
    """

    def __init__(self, maximum: int) -> None:
        self._maximum, self._limit, self._active, self._reductions = maximum, float(maximum), 0, 0
        self._changed = Condition()

    @property
    def current(self) -> int:
        """The number of concurrent requests that is allowed now."""
        return int(self._limit)

    def run(self, send: Callable[[], Response]) -> Response:
        """Call `send` as soon as the limit allows it, and return the response."""
        with self._changed:
            self._changed.wait_for(lambda: self._active < self.current)
            self._active += 1
            reductions = self._reductions
        response = None
        try:
            response = send()
            return response
        finally:
            with self._changed:
                if response is not None and response.throttled:
                    # Requests that are sent together are throttled together: reduce the limit only once.
                    if reductions == self._reductions:
                        self._limit = max(1.0, min(self._limit, self._active) / 2)
                        self._reductions += 1
                elif response is not None and response.ok:
                    self._limit = min(float(self._maximum), self._limit + 1 / self._limit)
                self._active -= 1
                self._changed.notify_all()


class ClusterLimit:
    """Limit on the concurrent requests of all workers of a Dask cluster, which share it by its `name`."""

    def __init__(self, name: str, maximum: int) -> None:
        self._name, self._maximum = name, maximum
        self._lock = Lock()
        self._semaphores: dict[str, Any] = {}

    def semaphore(self) -> AbstractContextManager[Any]:
        """Return the semaphore to hold during a request; outside a worker's task, it does nothing."""
        if "distributed" not in sys.modules:
            return nullcontext()
        from distributed import Semaphore, get_worker

        try:
            worker = get_worker()
        except ValueError:
            return nullcontext()
        with self._lock:
            if worker.id not in self._semaphores:
                self._semaphores[worker.id] = Semaphore(self._maximum, name=self._name)
            found: AbstractContextManager[Any] = self._semaphores[worker.id]
        return found
