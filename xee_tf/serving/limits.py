"""Limits in time, number and size of what clients send, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import time

__all__ = ["PatientClock", "waiting_limit"]

SLOW_SECONDS = 2.0
"""Time in seconds after which a client is slow: what it sends makes way if there is too much of it."""

BYTES_PER_SECOND = 10_000
"""Minimum rate at which a client sends a body, and reads a response. Bytes that arrive faster do not
compensate for a later pause."""

HEADER_SECONDS = 30.0
"""Maximum time in seconds until the headers of a request are complete; then the connection is closed."""

HEADER_BYTES = 1 << 16
"""Maximum size of the headers of a request."""

KEEP_ALIVE_SECONDS = 75.0
"""Maximum time in seconds between requests. The longer it is, the less often a client sends the next one just
when the connection is closed."""

READ_SECONDS = 300.0
"""Time in seconds in which a client must read a part of a response, or all of it."""

BODY_SECONDS = 60.0
"""Maximum time in seconds by which a body may be late; then the request is rejected."""

MESSAGE_SECONDS = 60.0
"""Maximum time in seconds until the message of a gRPC call has arrived."""

WAITING = 256
"""Number of connections of a client, or of gRPC calls without a message; see `waiting_limit`."""

HELD_BYTES = 2 << 30
"""Size of all requests together, if each is small."""


def waiting_limit(max_concurrency: int) -> int:
    """Return how many connections a client can have, and how many gRPC calls can wait for their message."""
    return max(WAITING, 2 * max_concurrency)


def look_seconds(limit: float | None = None) -> float:
    """Return the time after which the server looks again whether something has taken longer than a limit."""
    return min(SLOW_SECONDS, SLOW_SECONDS if limit is None else limit) / 4


class PatientClock:
    """A clock that stands still while the server is late.

    After a pause of the server, clients that sent steadily must not seem slow, because what they have sent is
    not counted yet. So time passes only up to the moment when `tick` must be called next.
    """

    def __init__(self) -> None:
        self._lost, self._next = 0.0, time.monotonic() + look_seconds()
        self._runs = False

    def time(self) -> float:
        """Return the time in seconds."""
        return min(time.monotonic(), self._next) - self._lost

    def tick(self) -> float:
        """Continue; return the time in seconds until the next call."""
        now, seconds = time.monotonic(), look_seconds()
        self._lost += max(0.0, now - self._next)
        self._next = now + seconds
        return seconds

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tick while an event loop runs, unless it does already."""
        if not self._runs:
            self._runs = True
            self._tick_in(loop)

    def _tick_in(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(self.tick(), self._tick_in, loop)
