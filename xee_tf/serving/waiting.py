"""The gRPC calls whose message has not arrived, limited in number and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Any

from xee_tf.extras import extra
from xee_tf.remote import Code
from xee_tf.serving import limits
from xee_tf.serving.failures import RequestError
from xee_tf.serving.limits import PatientClock, waiting_limit

with extra("serve", "A model server"):
    import grpc

__all__ = ["WaitingCalls"]


class WaitingCalls:
    """The calls whose message has not arrived. gRPC waits for each without limit, in a thread of its own.

    If there are too many, the oldest one of the client with the most calls makes way. A client is an address
    without its port.

    Parameters
    ----------
    max_concurrency : int
        Maximum number of slow calls. In total, 256 calls can wait, or twice this number if that is more.
    """

    def __init__(self, max_concurrency: int) -> None:
        self._slow_limit, self.limit = max_concurrency, waiting_limit(max_concurrency)
        self._lock, self._clock = Lock(), PatientClock()
        self._calls: dict[grpc.ServicerContext, tuple[float, str]] = {}  # begin and client, oldest first
        self.is_stopping = False  # whether the server is being closed

    def receive(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Return the message of a call; raise an error of gRPC if the call is ended before it arrives."""
        with self._lock:
            self._calls[context] = self._clock.time(), context.peer().rpartition(":")[0]
            displaced = self._take(list(self._calls), self.limit)
        self._make_way(displaced)
        try:
            for message in messages:
                return message
        finally:
            with self._lock:
                self._calls.pop(context, None)
        raise RequestError(Code.INVALID_ARGUMENT, "The call has no message.")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End calls that are slow, in another thread."""
        stopped = Event()

        def watch() -> None:
            seconds = limits.look_seconds()
            while not stopped.wait(seconds):
                seconds = self._end_slow()

        thread = Thread(target=watch, name="xee-tf-serve-waiting", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def _end_slow(self) -> float:
        """End calls that are slow; return the time in seconds after which this must be called again."""
        with self._lock:
            seconds, now = self._clock.tick(), self._clock.time()
            most = limits.SLOW_SECONDS if self.is_stopping else limits.MESSAGE_SECONDS
            late = [each for each, (begin, _) in self._calls.items() if begin < now - most]
            for context in late:
                del self._calls[context]
            slow = [each for each, (begin, _) in self._calls.items() if begin < now - limits.SLOW_SECONDS]
            displaced = self._take(slow, self._slow_limit)
        for context in late:
            message = f"The message did not arrive within {most:g} seconds."
            _end(context, grpc.StatusCode.DEADLINE_EXCEEDED, message)
        self._make_way(displaced)
        return seconds

    def _take(self, calls: list[grpc.ServicerContext], limit: int) -> list[grpc.ServicerContext]:
        """Remove and return those of `calls`, oldest first, that are too many."""
        taken = []
        counts = Counter(self._calls[context][1] for context in calls)
        while len(calls) > limit:
            [(most, _)] = counts.most_common(1)
            oldest = next(context for context in calls if self._calls[context][1] == most)
            calls.remove(oldest)
            counts[most] -= 1
            del self._calls[oldest]
            taken.append(oldest)
        return taken

    @staticmethod
    def _make_way(displaced: list[grpc.ServicerContext]) -> None:
        for context in displaced:
            message = "The message arrives slowly, and other calls wait; try again later."
            _end(context, grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def _end(context: Any, code: grpc.StatusCode, message: str) -> None:
    """End a call from another thread than its own."""
    try:
        context._rpc_event.call.cancel(code.value[0], message)
    except (AttributeError, TypeError):  # only this attribute can send a status
        context.cancel()
