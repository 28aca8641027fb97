"""Interpret the responses of servers over HTTP and gRPC: success, permanent or transient failure."""

from __future__ import annotations

import email.utils
import html
import http.client
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from xee_tf.errors import shorten

__all__ = ["WRONG_PROTOCOL", "Code", "Response", "grpc_response", "http_response"]


class Code(Enum):
    """Codes of google.rpc: their numbers, and the HTTP statuses that TensorFlow Serving uses for them."""

    CANCELLED = 1, 499
    UNKNOWN = 2, 500
    INVALID_ARGUMENT = 3, 400
    DEADLINE_EXCEEDED = 4, 504
    NOT_FOUND = 5, 404
    ALREADY_EXISTS = 6, 409
    PERMISSION_DENIED = 7, 403
    RESOURCE_EXHAUSTED = 8, 429
    FAILED_PRECONDITION = 9, 400
    ABORTED = 10, 409
    OUT_OF_RANGE = 11, 400
    UNIMPLEMENTED = 12, 501
    INTERNAL = 13, 500
    UNAVAILABLE = 14, 503
    DATA_LOSS = 15, 500
    UNAUTHENTICATED = 16, 401

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[1]


_RETRIED = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True)
class Response:
    """Response of a server, or the reason why there is none.

    Parameters
    ----------
    code : int
        The HTTP status; for gRPC, the status that TensorFlow Serving uses for the code. 0 if there was no
        response.
    status : str
        The status as text: ``HTTP 503``, ``UNAVAILABLE``, ``no response``.
    body : bytes
        Body of a successful response.
    message : str
        Error message of the server or of the client library.
    transient : bool
        Whether the request may succeed later although there was no response.
    retry_after : float, optional
        Seconds to wait before the next attempt, as requested by the server.
    seconds : float
        Time from sending the request to the last byte of the response; with several attempts, the total
        including the pauses between them.
    attempts : int
        Number of attempts.
    """

    code: int
    status: str
    body: bytes = b""
    message: str = ""
    transient: bool = False
    retry_after: float | None = None
    seconds: float = 0.0
    attempts: int = 1

    def __str__(self) -> str:
        text = f"{self.status}: {self.message}" if self.message else self.status
        if self.attempts > 1:
            text += f" ({self.attempts} attempts in {self.seconds:.1f} s)"
        return text if text.endswith(".") else f"{text}."

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.code == 200

    @property
    def throttled(self) -> bool:
        """Whether the server is too busy (429)."""
        return self.code == 429

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later.

        Examples
        --------
        >>> Response(503, "HTTP 503").retryable, Response(400, "HTTP 400").retryable
        (True, False)
        """
        return self.transient or self.code in _RETRIED


WRONG_PROTOCOL = 505
"""The code of a response in another protocol, HTTP 505; not transient."""

# gRPC's words for a server that refuses its first request; 503 may be that of a proxy while a server starts.
_REFUSED_HTTP2 = re.compile(r"http1\.x server \(HTTP status 4\d\d\)")


def http_response(code: int, headers: Mapping[str, str], body: bytes) -> Response:
    """Create a response from the status, headers and body of an HTTP response.

    The headers must be case-insensitive, as those of `requests` are.

    Examples
    --------
    >>> response = http_response(503, {"Retry-After": "7"}, b'{"error": "starting"}')
    >>> response.status, response.message, response.retry_after, response.retryable
    ('HTTP 503 Service Unavailable', 'starting', 7.0, True)
    """
    status = f"HTTP {code} {http.client.responses.get(code, '')}".rstrip()
    if code == 200:
        return Response(code, status, body)
    if 300 <= code < 400:
        try:
            host = urlsplit(headers.get("Location", "")).hostname
        except ValueError:
            host = None
        message = f"The server redirects to {host or 'the same host'}; redirects are not followed."
        return Response(code, status, message=message)
    return Response(
        code, status, message=_error_text(body), retry_after=_retry_after_seconds(headers.get("Retry-After"))
    )


def grpc_response(name: str, details: str, metadata: Mapping[str, str]) -> Response:
    """Create a response from a failed gRPC call: name and details of its status, and trailing metadata.

    Examples
    --------
    >>> grpc_response("UNAVAILABLE", "starting", {}).retryable
    True
    """
    message = _error_text(details.encode())
    code = Code[name].status if name in Code.__members__ else 500
    if name == "RESOURCE_EXHAUSTED" and "larger than max" in message:  # retrying cannot help
        if "CLIENT: " in message:
            return Response(0, name, message=f"{message} Raise max_response_bytes.")
        code = 413
    if name == "UNAVAILABLE" and ("certificate" in message.lower() or "handshake" in message.lower()):
        code = 495  # nginx's status for certificate errors; not transient
    if name == "UNAVAILABLE" and _REFUSED_HTTP2.search(message):
        code, message = WRONG_PROTOCOL, "The server answers over HTTP, not over gRPC"
    return Response(
        code, name, message=message, retry_after=_retry_after_seconds(metadata.get("retry-after"))
    )


def _retry_after_seconds(value: str | None) -> float | None:
    """Parse the header Retry-After, which holds seconds or a date.

    Examples
    --------
    >>> _retry_after_seconds("7"), _retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT")
    (7.0, 0.0)
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):  # a year or zone of many digits
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _error_text(body: bytes) -> str:
    """Extract the error message from a body: JSON of TensorFlow Serving or Google, HTML or plain text.

    Examples
    --------
    >>> _error_text(b'{"error": "Servable not found"}')
    'Servable not found'
    >>> _error_text(b'{"error": {"code": 404, "message": "No such endpoint.", "status": "NOT_FOUND"}}')
    'No such endpoint.'
    >>> _error_text(b"<html><head><title>502 Bad Gateway</title></head><body><p>nginx</p></body></html>")
    '502 Bad Gateway nginx'
    """
    text = body[:65536].decode(errors="replace").strip()
    try:
        text = _json_message(json.loads(text)) or text
    except (ValueError, RecursionError):
        if text[:1] == "<":
            text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>", " ", text)
            text = html.unescape(re.sub(r"<[^>]*>", " ", text))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return shorten(text, 500)


def _json_message(message: Any) -> str:
    """Return the first error message in parsed JSON; empty if there is none."""
    if isinstance(message, list) and message:
        return _json_message(message[0])
    if isinstance(message, dict):
        for key in ("error", "message", "detail"):
            if found := _json_message(message.get(key)):
                return found
    return message if isinstance(message, str) else ""
