"""Requests over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping

from xee_tf.extras import extra
from xee_tf.remote.client import Client
from xee_tf.remote.credentials import GoogleCredentials
from xee_tf.remote.responses import Response, http_response

with extra("hosted", "A hosted model"):
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter

__all__ = ["HttpClient"]

_CONNECT_SECONDS = 10.0
_PIECE = 1 << 20


class HttpClient(Client):
    """Keeps connections alive; for any number of threads.

    TLS certificates are verified. Redirects are not followed, so that no credentials leave for another host;
    passwords of ``~/.netrc`` are not sent. Answers of more than `max_response_bytes` are refused before they
    are read.
    """

    def __init__(
        self, credentials: GoogleCredentials | None, connections: int, max_response_bytes: int
    ) -> None:
        super().__init__(credentials)
        self._most = max_response_bytes
        self._session = requests.Session()
        self._session.auth = lambda request: request  # else requests takes passwords from ~/.netrc
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections, max_retries=0))

    def attempt(
        self, address: str, body: bytes | None, timeout: float, content_type: str, secrets: Mapping[str, str]
    ) -> Response:
        """See `Client`."""
        try:
            return self._attempt(address, body, timeout, {"Content-Type": content_type, **secrets})
        except requests.exceptions.SSLError as error:
            return Response(0, "no answer", message=f"TLS: {_innermost(error)}")
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            transient = not isinstance(error, ValueError)  # of requests: what is asked is wrong in itself
            return Response(0, "no answer", message=_innermost(error), transient=transient)

    def _attempt(self, url: str, body: bytes | None, timeout: float, headers: dict[str, str]) -> Response:
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
            message = f"The answer is larger than max_response_bytes={self._most:,}."
            return Response(0, response.status, message=message)
        return response

    def _read(self, reply: requests.Response, end: float) -> bytes | None:
        """All of an answer; None if it is too large."""
        length = reply.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > self._most:
            return None
        pieces, total = [], 0
        while piece := reply.raw.read1(_PIECE, decode_content=True):
            total += len(piece)
            if total > self._most:
                return None
            if time.monotonic() > end:
                raise TimeoutError("The answer did not end in time.")
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _innermost(error: BaseException) -> str:
    """What happened, without the layers of libraries around it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
