"""Read and decompress the bodies of HTTP requests, limited in size and time."""

from __future__ import annotations

import asyncio
import zlib

from xee_tf.extras import extra
from xee_tf.remote import Code, content_length
from xee_tf.serving import limits
from xee_tf.serving.failures import RequestError
from xee_tf.serving.held import HeldBytes
from xee_tf.serving.limits import PatientClock

with extra("serve", "A model server"):
    from starlette.requests import Request

__all__ = ["Body"]

_SCARCE_SECONDS = 600.0
"""Time in which the bytes that a body has would arrive at the minimum rate while memory is scarce."""


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
    clock : PatientClock
        Tells whether the body is late.
    """

    def __init__(self, request: Request, limit: int, held: HeldBytes, clock: PatientClock) -> None:
        self._request, self._limit, self._held, self._clock = request, limit, held, clock
        self._loop = asyncio.get_running_loop()
        self._size = self._counted = 0
        # When the bytes that have arrived were due at the minimum rates, but not later than they arrived.
        self._due = self._due_if_scarce = clock.time()

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
            async with asyncio.timeout(None) as timeout:
                return await self._receive(timeout)
        except TimeoutError:
            message = f"The body arrived too slowly, or not at all for up to {limits.BODY_SECONDS:g} seconds."
            raise RequestError(Code.DEADLINE_EXCEEDED, message, status=408) from None

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
        chunks: list[bytes] = []
        self._reject_if_late(timeout)
        try:
            async for chunk in self._request.stream():
                chunks.append(chunk)
                self._size += len(chunk)
                if self._size > self._limit:
                    raise _too_large(self._limit)
                self._count(len(chunk))
                now = self._clock.time()
                rate_if_scarce = max(limits.BYTES_PER_SECOND, self._size / _SCARCE_SECONDS)
                self._due = min(now, self._due + len(chunk) / limits.BYTES_PER_SECOND)
                self._due_if_scarce = min(now, self._due_if_scarce + len(chunk) / rate_if_scarce)
            return b"".join(chunks)
        finally:
            self._timer.cancel()
            chunks.clear()  # the traceback of an error would keep them

    def _reject_if_late(self, timeout: asyncio.Timeout) -> None:
        """Let the timeout expire now if the body is late; otherwise look again soon."""
        now = self._clock.time()
        is_slow = self._held.is_scarce and now > self._due_if_scarce + limits.SLOW_SECONDS
        if is_slow or now > self._due + limits.BODY_SECONDS:
            timeout.reschedule(self._loop.time())
        else:
            seconds = limits.look_seconds(limits.BODY_SECONDS)
            self._timer = self._loop.call_later(seconds, self._reject_if_late, timeout)


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
