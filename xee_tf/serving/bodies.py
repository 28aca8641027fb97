"""Bodies of requests: as much as is allowed, gunzipped, from clients that are alive."""

from __future__ import annotations

import asyncio
import zlib

from xee_tf.extras import extra
from xee_tf.remote import Code
from xee_tf.serving.failures import RequestError

with extra("serve", "A model server"):
    from starlette.requests import Request

__all__ = ["read_body"]

IDLE = 60.0
"""Seconds that a client may stay silent in the middle of a body; then its place is given to others."""


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request; `limit` holds before and after decompression.

    Raises
    ------
    RequestError
        If it is longer (413), compressed otherwise (415) or damaged (400), or does not come (408).
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        message = f"The body has the Content-Encoding {encoding!r}; expected gzip or none."
        raise RequestError(Code.INVALID_ARGUMENT, message, status=415)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(IDLE) as patience:
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                patience.reschedule(clock() + IDLE)
    except TimeoutError:
        message = f"Nothing more of the body came within {IDLE:g} seconds."
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
        raise RequestError(Code.INVALID_ARGUMENT, "The body is not valid gzip: it ends too early.")
    return plain


def _too_large(limit: int) -> RequestError:
    return RequestError(
        Code.INVALID_ARGUMENT, f"Request payload size exceeds the limit: {limit} bytes.", status=413
    )
