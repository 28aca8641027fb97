"""How many requests may be on their way at one time: in this process, and on all workers of a cluster.

In a process it is a semaphore that halves itself when the server says that it has too much to do (429), and
comes back by one for each round of answers. On a Dask cluster there is a `distributed.Semaphore` of the
same size besides. Its leases are kept by the scheduler: those of a worker that was killed come back by
themselves after ``distributed.scheduler.locks.lease-timeout`` (30 seconds), so that the limit neither rises
nor shrinks for good when workers come and go; shares of the workers would do both. A lease costs about a
millisecond.
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
    """At most so many at one time in this process; fewer for a while when the server is busy.

    Examples
    --------
    >>> limit = AdaptiveLimit(8)
    >>> refused = limit.run(lambda: Response(429, "HTTP 429"))
    >>> limit.now
    1
    >>> responses = [limit.run(lambda: Response(200, "HTTP 200")) for _ in range(3)]
    >>> limit.now
    2
    """

    def __init__(self, most: int) -> None:
        self._most, self._limit, self._used, self._shrunk = most, float(most), 0, 0
        self._free = Condition()

    @property
    def now(self) -> int:
        """How many may be on their way now."""
        return int(self._limit)

    def run(self, send: Callable[[], Response]) -> Response:
        """The answer to a request that is sent when it is its turn."""
        with self._free:
            self._free.wait_for(lambda: self._used < self.now)
            self._used += 1
            began = self._shrunk
        response = None
        try:
            response = send()
            return response
        finally:
            with self._free:
                if response is not None and response.throttled:
                    # Those that were sent together are put off together: that counts once.
                    if began == self._shrunk:
                        self._limit = max(1.0, min(self._limit, self._used) / 2)
                        self._shrunk += 1
                elif response is not None and response.ok:
                    self._limit = min(float(self._most), self._limit + 1 / self._limit)
                self._used -= 1
                self._free.notify_all()


class ClusterLimit:
    """At most so many at one time on all workers of the cluster whose task asks; they share `name`."""

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self._lock = Lock()
        self._semaphores: dict[str, Any] = {}

    def here(self) -> AbstractContextManager[Any]:
        """What to hold while a request is on its way; nothing outside of a cluster's tasks."""
        if "distributed" not in sys.modules:
            return nullcontext()
        from distributed import Semaphore, get_worker

        try:
            worker = get_worker()
        except ValueError:
            return nullcontext()
        with self._lock:
            if worker.id not in self._semaphores:
                self._semaphores[worker.id] = Semaphore(self._most, name=self._name)
            found: AbstractContextManager[Any] = self._semaphores[worker.id]
        return found
