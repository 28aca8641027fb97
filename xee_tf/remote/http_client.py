"""Requests over HTTP: one attempt each, limited in time and size; nothing is raised."""

from __future__ import annotations

import email.utils
import time
from dataclasses import replace
from http.client import responses

import requests
import urllib3
from requests.adapters import HTTPAdapter

from xee_tf.remote.answers import Answer, words_of
from xee_tf.remote.credentials import CredentialsError, GoogleCredentials, without_secrets

__all__ = ["HttpClient", "retry_after_seconds"]

_CONNECT_SECONDS = 10.0
_PIECE = 1 << 20


class HttpClient:
    """Keeps connections alive; for any number of threads.

    TLS certificates are verified. Redirects are not followed, so that no credentials leave for another host;
    passwords of ``~/.netrc`` are not sent.

    Parameters
    ----------
    credentials : GoogleCredentials or None
    connections : int
        How many are kept.
    max_response_bytes : int
        Larger answers are refused before they are read.
    """

    def __init__(
        self, credentials: GoogleCredentials | None, connections: int, max_response_bytes: int
    ) -> None:
        self._credentials, self._most = credentials, max_response_bytes
        self._session = requests.Session()
        self._session.auth = _as_it_is  # else requests takes passwords from ~/.netrc
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections, max_retries=0))

    def ask(
        self, address: str, body: bytes | None, timeout: float, content_type: str = "application/json"
    ) -> Answer:
        """Send `body` to a URL; None: only ask for what is there.

        Parameters
        ----------
        address : str
            The URL.
        body : bytes, optional
        timeout : float
            Seconds for the whole of it.
        content_type : str, optional
            Of the body.
        """
        start = time.perf_counter()
        secrets: dict[str, str] = {}
        try:
            if self._credentials is not None:
                secrets = self._credentials.headers(address)
            answer = self._attempt(address, body, timeout, {"Content-Type": content_type, **secrets})
        except CredentialsError as error:
            answer = Answer(0, "no credentials", words=str(error), passing=error.passing)
        except requests.exceptions.SSLError as error:
            answer = Answer(0, "no answer", words=f"TLS: {_innermost(error)}")
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            passing = not isinstance(error, ValueError)  # of requests: what is asked is wrong in itself
            answer = Answer(0, "no answer", words=_innermost(error), passing=passing)
        return replace(
            answer,
            words=without_secrets(answer.words, secrets),
            seconds=time.perf_counter() - start,
        )

    def _attempt(self, url: str, body: bytes | None, timeout: float, headers: dict[str, str]) -> Answer:
        end = time.monotonic() + timeout
        with self._session.request(
            "GET" if body is None else "POST",
            url,
            data=body,
            headers=headers,
            timeout=(min(timeout, _CONNECT_SECONDS), timeout),
            stream=True,
            allow_redirects=False,
        ) as response:
            code = response.status_code
            status = f"HTTP {code} {responses.get(code, '')}".rstrip()
            data = self._read(response, end)
            if data is None:
                said = f"The answer is larger than max_response_bytes={self._most:,}."
                return Answer(0, status, words=said)
            if code == 200:
                return Answer(code, status, data)
            if 300 <= code < 400:
                host = urllib3.util.parse_url(response.headers.get("Location", "")).host or "the same host"
                return Answer(code, status, words=f"It redirects to {host}, which is not followed.")
            wait = retry_after_seconds(response.headers.get("Retry-After"))
            return Answer(code, status, words=words_of(data), retry_after=wait)

    def _read(self, response: requests.Response, end: float) -> bytes | None:
        """All of an answer; None if it is too large."""
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > self._most:
            return None
        pieces, total = [], 0
        while piece := response.raw.read1(_PIECE, decode_content=True):
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


def retry_after_seconds(value: str | None) -> float | None:
    """The header Retry-After, in seconds or as a date.

    Examples
    --------
    >>> retry_after_seconds("7"), retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT")
    (7.0, 0.0)
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _innermost(error: BaseException) -> str:
    """What happened, without the layers of libraries around it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
