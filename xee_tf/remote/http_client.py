"""Requests over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping

from xee_tf.extras import extra
from xee_tf.remote.client import Client
from xee_tf.remote.credentials import GoogleCredentials
from xee_tf.remote.numbers import content_length
from xee_tf.remote.responses import WRONG_PROTOCOL, Response, http_response
from xee_tf.remote.sessions import DirectSession
from xee_tf.storage import NO_TLS, USE_HTTP

with extra("hosted", "A hosted model"):
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter

__all__ = ["HttpClient"]

_CONNECT_SECONDS = 10.0
_CHUNK_BYTES = 1 << 20
_HTTP2 = "BadStatusLine: \0\0"  # the length of the first frame


class HttpClient(Client):
    """Client with persistent HTTP connections.

    TLS certificates are verified. Redirects are not followed, so that credentials are never sent to another
    host, and credentials are not sent through proxies without TLS; passwords in ``~/.netrc`` are not sent.
    Responses larger than `max_response_bytes` are rejected before they are read.
    """

    def __init__(
        self, credentials: GoogleCredentials | None, connections: int, max_response_bytes: int
    ) -> None:
        super().__init__(credentials)
        self._max_bytes = max_response_bytes
        self._session = requests.Session() if credentials is None else DirectSession()
        self._session.auth = lambda request: request  # otherwise requests reads passwords from ~/.netrc
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections, max_retries=0))

    def _send(
        self, address: str, body: bytes | None, timeout: float, content_type: str, headers: Mapping[str, str]
    ) -> Response:
        try:
            return self._exchange(address, body, timeout, {"Content-Type": content_type, **headers})
        except requests.exceptions.SSLError as error:
            cause = _root_cause(error)
            hint = f" The server does not use TLS. {USE_HTTP}" if NO_TLS.search(cause) else ""
            return Response(0, "no response", message=f"TLS: {cause}{hint}")
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            transient = not isinstance(error, ValueError)  # requests raises these for invalid requests
            cause = _root_cause(error)
            if cause.startswith(_HTTP2):
                return Response(
                    WRONG_PROTOCOL, "no response", message="The server answers over gRPC, not over HTTP"
                )
            return Response(0, "no response", message=cause, transient=transient)

    def _exchange(self, url: str, body: bytes | None, timeout: float, headers: dict[str, str]) -> Response:
        end = time.monotonic() + timeout
        with self._session.request(
            "GET" if body is None else "POST",
            url,
            data=body,
            headers=headers,
            timeout=(min(timeout, _CONNECT_SECONDS), timeout),
            stream=True,
            allow_redirects=False,
        ) as reply:
            data = self._read(reply, end)
            response = http_response(reply.status_code, reply.headers, data or b"")
        if data is None:
            message = f"The response is larger than max_response_bytes={self._max_bytes:,}."
            return Response(0, response.status, message=message)
        return response

    def _read(self, reply: requests.Response, end: float) -> bytes | None:
        """Read the whole body; return None if it is too large."""
        if content_length(reply.headers.get("Content-Length", "")) > self._max_bytes:
            return None
        chunks, total = [], 0
        while chunk := reply.raw.read1(_CHUNK_BYTES, decode_content=True):
            total += len(chunk)
            if total > self._max_bytes:
                return None
            if time.monotonic() > end:
                raise TimeoutError("The response was not received in time.")
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _root_cause(error: BaseException) -> str:
    """Describe the first error of a chain; the outer ones only add layers of libraries."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
