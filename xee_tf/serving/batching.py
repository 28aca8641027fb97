"""Join small concurrent requests into one call of the model."""

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

_JOINED_BYTES = 1 << 20  # larger calls are not faster, but would be copied


class _PendingRequest:
    """A request that waits for its outputs."""

    def __init__(self, batch: Arrays) -> None:
        self.batch = batch
        self.count = len(next(iter(batch.values())))
        self.outputs: Future[dict[str, npt.NDArray[Any]]] = Future()
        self.taken = False


class Batcher:
    """Run a model for many threads, and join the requests that wait for a free slot into one call.

    A request that finds a free slot runs immediately, so that single requests are as fast as without
    batching. Which requests are joined depends on timing, and results may differ in the last bits with the
    batch size, as with any batching. A joined call has at most `max_batch_size` instances; 0 disables
    joining. At most `parallel` calls run at a time.
    """

    def __init__(self, connection: Connection, max_batch_size: int, parallel: int) -> None:
        self._connection, self._max_batch_size, self._parallel = connection, max_batch_size, parallel
        self.signature = signature = connection.signature
        tensors = [*(signature.inputs or {}).values(), *(signature.outputs or {}).values()]
        self._joinable = max_batch_size > 1 and all(map(_has_any_batch_size, tensors))
        self._queues: dict[Hashable, deque[_PendingRequest]] = {}
        self._running = 0
        self._changed = Condition()

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See `Connection.predict`."""
        if not self._joinable or not _is_small(batch):
            return self._connection.predict(batch)
        request = _PendingRequest(batch)
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

    def _next_group(self, request: _PendingRequest, key: Hashable) -> list[_PendingRequest]:
        """Wait for a free slot and return the next requests; empty if another thread completed `request`."""
        with self._changed:
            self._changed.wait_for(
                lambda: request.outputs.done() or (not request.taken and self._running < self._parallel)
            )
            if request.outputs.done():
                return []
            self._running += 1
            return self._take(key)

    def _take(self, key: Hashable) -> list[_PendingRequest]:
        """Remove the first requests of a queue, up to the limits of a call."""
        queue = self._queues[key]
        group = [queue.popleft()]
        count, size = group[0].count, _bytes(group[0].batch)
        while queue and count + queue[0].count <= self._max_batch_size:
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

    def _run(self, group: Sequence[_PendingRequest]) -> None:
        """Run the requests of a group, joined if possible."""
        if len(group) > 1 and self._run_joined(group):
            return
        for request in group:
            try:
                request.outputs.set_result(self._connection.predict(request.batch))
            except Exception as error:
                request.outputs.set_exception(error)

    def _run_joined(self, group: Sequence[_PendingRequest]) -> bool:
        """Run a group in one call; return False if it fails, because of any of its requests."""
        total = sum(each.count for each in group)
        try:
            joined = {name: np.concatenate([each.batch[name] for each in group]) for name in group[0].batch}
            outputs = self._connection.predict(joined)
        except Exception:
            return False
        if any(array.shape[:1] != (total,) for array in outputs.values()):
            return False
        start = 0
        for each in group:
            rows = slice(start, start + each.count)
            each.outputs.set_result({name: array[rows] for name, array in outputs.items()})
            start += each.count
        return True


def _has_any_batch_size(info: TensorInfo) -> bool:
    """Return whether the first axis of a tensor may have any length."""
    return info.shape is None or info.shape[:1] == (None,)


def _is_small(batch: Arrays) -> bool:
    """Return whether a batch can be joined with others."""
    counts = {array.shape[:1] for array in batch.values()}
    return len(counts) == 1 and counts != {()} and 2 * _bytes(batch) <= _JOINED_BYTES


def _bytes(batch: Arrays) -> int:
    """Return the size of the values in bytes."""
    return sum(
        sum(map(len, array.reshape(-1).tolist())) if array.dtype == object else array.nbytes
        for array in batch.values()
    )
