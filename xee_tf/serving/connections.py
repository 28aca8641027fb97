"""HTTP connections that are limited in time, in number for each client, and in the size of headers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar

from xee_tf.extras import extra

with extra("serve", "A model server"):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["LimitedProtocol", "limited"]

HEADER_SECONDS = 30.0
"""Maximum time in seconds until the headers of a request are complete; then the connection is closed."""

KEEP_ALIVE_SECONDS = 75.0
"""Maximum time in seconds between requests. The longer it is, the less often a client sends the next one just
when the connection is closed."""

SLOW_SECONDS = 2.0
"""Time in seconds after which a connection that waits for a request makes way for another one."""

READ_SECONDS = 300.0
"""Time in seconds in which a client must read a part of a response, or all of it."""

_BYTES_PER_SECOND = 10_000  # minimum rate at which it reads, and sends

_HEADER_BYTES = 1 << 16
_CONNECTIONS = 256


class LimitedProtocol(HttpToolsProtocol):
    """A connection of a client that has a limited number of them.

    If it has too many, responses ask it to close the connection, and those that have waited long for a
    request, or for its body, are closed; first those that never had one.
    """

    max_connections = _CONNECTIONS
    counts: ClassVar[Counter[str]] = Counter()  # by client

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._client = (self.client or ("",))[0]
        self._headers_begun, self._header_bytes = False, 0
        self._has_requested = False
        self._timer: asyncio.TimerHandle | None = None
        self._wait()
        self.counts[self._client] += 1
        if self._is_crowded:
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
        late = self.loop.time() - SLOW_SECONDS

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

        If the client has not read the last response, it has more time.
        """
        self._stop_waiting()
        unread = self.transport.get_write_buffer_size()
        is_idle = self._has_requested and not self._headers_begun
        seconds = READ_SECONDS if unread else KEEP_ALIVE_SECONDS if is_idle else HEADER_SECONDS
        self._since = self.loop.time()
        self._timer = self.loop.call_later(seconds, self._give_up, unread)

    def _give_up(self, unread: int) -> None:
        read = unread - self.transport.get_write_buffer_size()
        if unread and read >= min(unread, READ_SECONDS * _BYTES_PER_SECOND):
            self._wait()
        else:
            self.transport.abort()

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

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self._headers_begun:
            self._header_bytes += len(data)
            if self._header_bytes > _HEADER_BYTES:
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
        self._stop_waiting()
        self._since = self.loop.time()
        super().on_headers_complete()
        self.cycle.keep_alive &= not self._is_crowded

    def on_body(self, body: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        super().on_body(body)
        self._since = min(self.loop.time(), self._since + len(body) / _BYTES_PER_SECOND)

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has arrived already."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._wait()


def limited(max_concurrency: int) -> type[LimitedProtocol]:
    """Return the protocol of a server, for that number of concurrent predictions."""
    limit = max(_CONNECTIONS, 2 * max_concurrency)
    return type("LimitedProtocol", (LimitedProtocol,), {"max_connections": limit, "counts": Counter()})
