"""HTTP connections that are limited in time, in number for each client, and in the size of headers."""

from __future__ import annotations

import asyncio
from typing import Any

from xee_tf.extras import extra

with extra("serve", "A model server"):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["LimitedProtocol", "limited"]

HEADER_SECONDS = 30.0
"""Maximum time in seconds until the headers of a request are complete; then the connection is closed."""

READ_SECONDS = 300.0
"""Time in seconds in which a client must read a part of a response, or all of it."""

_BYTES_PER_SECOND = 10_000  # minimum rate at which it reads

_HEADER_BYTES = 1 << 16
_CONNECTIONS = 256


class LimitedProtocol(HttpToolsProtocol):
    """A connection. If a client has too many, the one that waits longest for a request is closed."""

    max_connections = _CONNECTIONS

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._headers_begun, self._header_bytes = False, 0
        self._waits_until: asyncio.TimerHandle | None = None
        self._wait()
        own: list[Any] = [each for each in self.connections if self._is_of_same_client(each)]
        if len(own) > self.max_connections:
            waiting = [each for each in own if each._waits_until is not None and each is not self]
            oldest = min(waiting, key=lambda each: each._waits_until.when(), default=self)
            oldest.transport.abort()

    def _is_of_same_client(self, other: Any) -> bool:
        return (other.client or ("",))[0] == (self.client or ("",))[0] and not other.transport.is_closing()

    def _wait(self) -> None:
        """Close the connection unless the headers of the next request arrive in time.

        If the client has not read the last response, it has more time.
        """
        self._stop_waiting()
        unread = self.transport.get_write_buffer_size()
        seconds = READ_SECONDS if unread else HEADER_SECONDS
        self._waits_until = self.loop.call_later(seconds, self._give_up, unread)

    def _give_up(self, unread: int) -> None:
        read = unread - self.transport.get_write_buffer_size()
        if unread and read >= min(unread, READ_SECONDS * _BYTES_PER_SECOND):
            self._wait()
        else:
            self.transport.abort()

    def _stop_waiting(self) -> None:
        if self._waits_until is not None:
            self._waits_until.cancel()
            self._waits_until = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_waiting()
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
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._headers_begun = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has arrived already."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._wait()


def limited(max_concurrency: int) -> type[LimitedProtocol]:
    """Return the protocol of a server, for that number of concurrent predictions."""
    limit = max(_CONNECTIONS, 2 * max_concurrency)
    return type("LimitedProtocol", (LimitedProtocol,), {"max_connections": limit})
