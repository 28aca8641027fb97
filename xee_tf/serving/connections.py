"""HTTP connections that are limited in time, in number for each client, and in the size of headers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar

from xee_tf.extras import extra
from xee_tf.serving import limits
from xee_tf.serving.limits import PatientClock

with extra("serve", "A model server"):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["LimitedProtocol", "limited_protocol"]


class LimitedProtocol(HttpToolsProtocol):
    """A connection of a client that has a limited number of them.

    If it has too many, responses ask it to close the connection, and those that have waited long for a
    request, or for its body, are closed; first those that never had one.
    """

    max_connections: ClassVar[int]
    counts: ClassVar[Counter[str]]  # by client
    clock: ClassVar[PatientClock]
    is_stopping: ClassVar[bool] = False
    """Whether the server is being closed. uvicorn does not close connections that are made after that."""

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.clock.run(self.loop)
        self._client = (self.client or ("",))[0]
        self._headers_begun, self._header_bytes = False, 0
        self._has_requested = False
        self._timer: asyncio.TimerHandle | None = None
        self._wait()
        self.counts[self._client] += 1
        if self.is_stopping:
            transport.close()
        elif self._is_crowded:
            self._make_way()

    @property
    def _is_crowded(self) -> bool:
        return self.counts[self._client] > self.max_connections

    @property
    def _is_waiting(self) -> bool:
        """Whether it waits for a request, or for the rest of one."""
        return self._timer is not None or self.cycle.more_body

    def _make_way(self) -> None:
        """Close connections that have waited long, and others beyond twice the limit."""
        every: list[Any] = list(self.connections)
        own = [each for each in every if each._client == self._client and not each.transport.is_closing()]
        waiting = [each for each in own if each._is_waiting and each is not self]
        late = self.clock.time() - limits.SLOW_SECONDS

        def order(each: Any) -> tuple[bool, bool, float]:
            is_late = each._since < late
            return not is_late, is_late and each._has_requested, each._since

        count = len(own)
        for each in [*sorted(waiting, key=order), self]:
            if count <= self.max_connections:
                break
            if each._since < late or count > 2 * self.max_connections:
                each.transport.abort()
                count -= 1

    def _wait(self) -> None:
        """Close the connection unless the headers of the next request arrive in time.

        The time begins when the client has read the last response, which also takes a limited time.
        """
        self._stop_waiting()
        self._since = self.clock.time()
        if unread := self.transport.get_write_buffer_size():
            self._wait_for_reader(unread, self.loop.time() + limits.READ_SECONDS)
        else:
            is_idle = self._has_requested and not self._headers_begun
            seconds = limits.KEEP_ALIVE_SECONDS if is_idle else limits.HEADER_SECONDS
            self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _wait_for_reader(self, unread: int, end: float) -> None:
        """Close the connection unless the client reads all that was unread, or enough of it, by the end."""
        left = self.transport.get_write_buffer_size()
        is_over = self.loop.time() >= end
        if not left and not self.cycle.response_complete:
            self._stop_waiting()
        elif not left or (is_over and unread - left >= limits.READ_SECONDS * limits.BYTES_PER_SECOND):
            self._wait()
        elif is_over:
            self.transport.abort()
        else:
            seconds = limits.look_seconds(limits.READ_SECONDS)
            self._timer = self.loop.call_later(seconds, self._wait_for_reader, unread, end)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_waiting()
        self.counts[self._client] -= 1
        if not self.counts[self._client]:
            del self.counts[self._client]
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection when its response is complete, or if the rest of its request is slow."""
        super().shutdown()
        self._end_if_slow()

    def _end_if_slow(self) -> None:
        if self.transport.is_closing() or not self.cycle.more_body:
            return
        if self._since < self.clock.time() - limits.SLOW_SECONDS:
            self.transport.abort()
        else:
            self.loop.call_later(limits.look_seconds(), self._end_if_slow)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        # Headers that begin in this data, maybe behind a body, are counted from the next data on.
        self._header_bytes += len(data)
        super().data_received(data)
        if self._headers_begun and self._header_bytes > limits.HEADER_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._headers_begun, self._header_bytes = True, 0
        if self._timer is not None:  # not idle any more
            self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._headers_begun, self._has_requested = False, True
        if not self.transport.get_write_buffer_size():  # otherwise the next response also waits for it
            self._stop_waiting()
        self._since = self.clock.time()
        super().on_headers_complete()
        self.cycle.keep_alive &= not self._is_crowded

    def on_body(self, body: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        super().on_body(body)
        self._since = min(self.clock.time(), self._since + len(body) / limits.BYTES_PER_SECOND)

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has arrived already."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._wait()


def limited_protocol(max_concurrency: int, clock: PatientClock) -> type[LimitedProtocol]:
    """Return the protocol of a server, for that number of concurrent predictions."""
    attributes = {
        "max_connections": limits.waiting_limit(max_concurrency),
        "counts": Counter(),
        "clock": clock,
    }
    return type("LimitedProtocol", (LimitedProtocol,), attributes)
