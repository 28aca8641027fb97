"""Read and decompress the bodies of HTTP requests, limited in size and time."""

from __future__ import annotations

import asyncio
import zlib

from xee_tf.extras import extra
from xee_tf.remote import Code
from xee_tf.serving.failures import RequestError

with extra("serve", "A model server"):
    from starlette.requests import Request

__all__ = ["read_body"]

IDLE_SECONDS = 60.0
"""Maximum time in seconds between parts of a body; then the request is rejected and its slot released."""


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body of a request; `limit` applies before and after decompression.

    Raises
    ------
    RequestError
        If the body is too large (413), has an unsupported encoding (415), is not valid gzip (400) or does not
        arrive in time (408).
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        message = f"Unsupported Content-Encoding {encoding!r}; expected gzip or none."
        raise RequestError(Code.INVALID_ARGUMENT, message, status=415)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(IDLE_SECONDS) as timeout:
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                timeout.reschedule(clock() + IDLE_SECONDS)
    except TimeoutError:
        message = f"No data of the body was received for {IDLE_SECONDS:g} seconds."
        raise RequestError(Code.DEADLINE_EXCEEDED, message, status=408) from None
    body = b"".join(chunks)
    return _gunzip(body, limit) if encoding == "gzip" else body


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
