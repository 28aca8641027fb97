"""Read and decompress the bodies of HTTP requests, limited in size and time."""

from __future__ import annotations

import asyncio
import zlib

from xee_tf.extras import extra
from xee_tf.remote import Code, content_length
from xee_tf.serving.failures import RequestError
from xee_tf.serving.held import HeldBytes

with extra("serve", "A model server"):
    from starlette.requests import Request

__all__ = ["Body"]

IDLE_SECONDS = 60.0
"""Maximum time in seconds between parts of a body; then the request is rejected and its slot released."""

_BYTES_PER_SECOND = 10_000
"""Minimum rate at which a body arrives, on average, after the first `IDLE_SECONDS`."""

SLOW_SECONDS = 2.0
"""Time in seconds by which a body may be late if other requests wait for its slot."""


class Body:
    """The body of a request, which is received by an event loop.

    Parameters
    ----------
    request : Request
        The request.
    limit : int
        Maximum size in bytes, before and after decompression.
    held : HeldBytes
        Counts the bytes until `close` is called.
    """

    def __init__(self, request: Request, limit: int, held: HeldBytes) -> None:
        self._request, self._limit, self._held = request, limit, held
        self._clock = asyncio.get_running_loop().time
        self._start, self._size, self._counted = self._clock(), 0, 0
        self._timeout: asyncio.Timeout | None = None
        self.dropped = False

    @property
    def late(self) -> float:
        """Seconds by which the body is late, compared with one that arrives at the minimum rate."""
        return self._clock() - self._start - self._size / _BYTES_PER_SECOND if self._timeout else 0.0

    def drop(self) -> None:
        """Reject the request, because it is slow and others wait for its slot."""
        self.dropped = True
        if self._timeout is not None:
            self._timeout.reschedule(self._clock())

    @property
    def _encoding(self) -> str:
        return self._request.headers.get("content-encoding", "identity").lower()

    async def receive(self) -> bytes:
        """Receive the body.

        Raises
        ------
        RequestError
            If it is too large (413), has an unsupported encoding (415), does not arrive in time (408), or
            does not fit into memory beside others (429).
        """
        limit = self._limit
        if self._encoding not in ("identity", "gzip"):
            message = f"Unsupported Content-Encoding {self._encoding!r}; expected gzip or none."
            raise RequestError(Code.INVALID_ARGUMENT, message, status=415)
        if content_length(self._request.headers.get("content-length", "")) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(IDLE_SECONDS) as self._timeout:
                return await self._receive(self._timeout)
        except TimeoutError:
            message = (
                f"No data of the body was received for {IDLE_SECONDS:g} seconds, or it arrived too slowly."
            )
            raise RequestError(Code.DEADLINE_EXCEEDED, message, status=408) from None
        finally:
            self._timeout = None

    def content(self, body: bytes) -> bytes:
        """Decompress what `receive` returned; raise a `RequestError` if it is too large or not valid gzip."""
        if self._encoding != "gzip":
            return body
        plain = _gunzip(body, self._limit)
        self._count(len(plain))
        return plain

    def close(self) -> None:
        """Stop counting the bytes."""
        self._held.remove(self._counted)
        self._counted = 0

    def _count(self, size: int) -> None:
        self._held.add(size)
        self._counted += size

    async def _receive(self, timeout: asyncio.Timeout) -> bytes:
        chunks = []
        async for chunk in self._request.stream():
            chunks.append(chunk)
            self._size += len(chunk)
            if self._size > self._limit:
                raise _too_large(self._limit)
            self._count(len(chunk))
            if not self.dropped:
                timeout.reschedule(self._clock() + IDLE_SECONDS + min(0.0, -self.late))
        return b"".join(chunks)


def _gunzip(body: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(Code.INVALID_ARGUMENT, f"The body is not valid gzip: {error}.") from None
    if len(plain) > limit:
        raise _too_large(limit)
    if not stream.eof:
        raise RequestError(Code.INVALID_ARGUMENT, "The body is not valid gzip: it is truncated.")
    return plain


def _too_large(limit: int) -> RequestError:
    return RequestError(
        Code.INVALID_ARGUMENT, f"Request payload size exceeds the limit: {limit} bytes.", status=413
    )
