"""Small requests that arrive together, run together."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from threading import Condition
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Connection, TensorInfo

__all__ = ["Batcher"]

_JOINED_BYTES = 1 << 20  # larger requests gain nothing: they would only be copied


class _Waiting:
    """A request, and what becomes of it."""

    def __init__(self, batch: Arrays) -> None:
        self.batch = batch
        self.count = len(next(iter(batch.values())))
        self.outputs: Future[dict[str, npt.NDArray[Any]]] = Future()
        self.taken = False


class Batcher:
    """Runs a model for many threads; those that wait for their turn meanwhile share one call.

    Nobody waits for company: a request that finds a free place runs at once, so that a lonely one is as
    fast as without. Which requests meet is chance, and results may differ in the last bits with the size of a
    batch, as with any batching. A joined call has at most `max_batch_size` instances; with 0 every request is
    a call. At most `parallel` calls run at a time.
    """

    def __init__(self, connection: Connection, max_batch_size: int, parallel: int) -> None:
        self._connection, self._most, self._parallel = connection, max_batch_size, parallel
        self.signature = signature = connection.signature
        every = [*(signature.inputs or {}).values(), *(signature.outputs or {}).values()]
        self._joinable = max_batch_size > 1 and all(map(_any_number, every))
        self._queues: dict[Hashable, deque[_Waiting]] = {}
        self._running = 0
        self._changed = Condition()

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """As `Connection.predict`."""
        if not self._joinable or not _is_small(batch):
            return self._connection.predict(batch)
        request = _Waiting(batch)
        key = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(batch.items()))
        with self._changed:
            self._queues.setdefault(key, deque()).append(request)
        while group := self._next_group(request, key):
            try:
                self._run(group)
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()
        return request.outputs.result()

    def _next_group(self, request: _Waiting, key: Hashable) -> list[_Waiting]:
        """What is to run next, once there is a place; nothing when another thread has answered `request`."""
        with self._changed:
            self._changed.wait_for(
                lambda: request.outputs.done() or (not request.taken and self._running < self._parallel)
            )
            if request.outputs.done():
                return []
            self._running += 1
            return self._take(key)

    def _take(self, key: Hashable) -> list[_Waiting]:
        """The first requests of a kind, as many as a call may have."""
        queue = self._queues[key]
        group = [queue.popleft()]
        count, size = group[0].count, _bytes(group[0].batch)
        while queue and count + queue[0].count <= self._most:
            size += _bytes(queue[0].batch)
            if size > _JOINED_BYTES:
                break
            count += queue[0].count
            group.append(queue.popleft())
        if not queue:
            del self._queues[key]
        for request in group:
            request.taken = True
        return group

    def _run(self, group: Sequence[_Waiting]) -> None:
        if len(group) > 1 and self._run_joined(group):
            return
        for request in group:
            try:
                request.outputs.set_result(self._connection.predict(request.batch))
            except Exception as error:
                request.outputs.set_exception(error)

    def _run_joined(self, group: Sequence[_Waiting]) -> bool:
        """Whether one call could answer all: if not, the others must not suffer for one of them."""
        total = sum(each.count for each in group)
        try:
            joined = {name: np.concatenate([each.batch[name] for each in group]) for name in group[0].batch}
            outputs = self._connection.predict(joined)
        except Exception:
            return False
        if any(array.shape[:1] != (total,) for array in outputs.values()):
            return False
        first = 0
        for each in group:
            rows = slice(first, first + each.count)
            each.outputs.set_result({name: array[rows] for name, array in outputs.items()})
            first += each.count
        return True


def _any_number(info: TensorInfo) -> bool:
    """Whether a tensor's first axis counts instances, as many as one likes."""
    return info.shape is None or info.shape[:1] == (None,)


def _is_small(batch: Arrays) -> bool:
    counts = {array.shape[:1] for array in batch.values()}
    return len(counts) == 1 and counts != {()} and 2 * _bytes(batch) <= _JOINED_BYTES


def _bytes(batch: Arrays) -> int:
    return sum(
        sum(map(len, array.reshape(-1).tolist())) if array.dtype == object else array.nbytes
        for array in batch.values()
    )
