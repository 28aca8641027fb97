"""Google's credentials: found where they are used, kept in that process, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any, Literal

from xee_tf.errors import ModelError, OptionError, shorten
from xee_tf.extras import extra
from xee_tf.remote.addresses import may_carry_credentials

__all__ = [
    "Credentials",
    "CredentialsError",
    "GoogleCredentials",
    "check_credentials",
    "without_secrets",
]

Credentials = Literal["google"] | None
"""Which credentials are looked for; None: the server asks for none."""

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_WHERE = (
    "On every machine that predicts, run `gcloud auth application-default login`, or set "
    "GOOGLE_APPLICATION_CREDENTIALS, or use its service account; for a server that wants none, say "
    "credentials=None."
)


class CredentialsError(ModelError):
    """Credentials are not there, or their issuer does not renew them; `transient` if it may later."""

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


def check_credentials(credentials: Credentials, url: str) -> Credentials:
    """The credentials that may be sent to an address.

    Raises
    ------
    OptionError
        If they are unknown, or would be sent in plain text.

    Examples
    --------
    >>> check_credentials("google", "http://models.example.org")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: Credentials are not sent to http://models.example.org, which has no TLS: ...
    """
    if credentials not in ("google", None):
        # Never repeated: it may be a token.
        raise OptionError(
            "credentials must be 'google' (application default credentials) or None; a token or a key has no "
            "place in it."
        )
    if credentials is not None and not may_carry_credentials(url):
        raise OptionError(
            f"Credentials are not sent to {url}, which has no TLS: use https, or credentials=None if the "
            "server wants none."
        )
    return credentials


class GoogleCredentials:
    """Application default credentials, renewed when they expire; for any number of threads.

    Raises
    ------
    CredentialsError
        If there are none in this process.
    """

    def __init__(self) -> None:
        with extra("hosted", "A hosted model"):
            import google.auth
            import google.auth.exceptions
            from google.auth.transport.requests import Request

        try:
            found, _ = google.auth.default(scopes=[_SCOPE])
        except google.auth.exceptions.GoogleAuthError as error:
            raise CredentialsError(
                f"There are no Google credentials here: {_first(error)} {_WHERE}"
            ) from None
        self._found: Any = found
        self._request: Any = Request()
        self._lock = Lock()

    def headers(self, url: str) -> dict[str, str]:
        """What proves to the server at `url` who asks.

        Raises
        ------
        CredentialsError
            If they expired and are not renewed.
        """
        with extra("hosted", "A hosted model"):
            import google.auth.exceptions

        headers: dict[str, str] = {}
        try:
            with self._lock:
                self._found.before_request(self._request, "POST", url, headers)
        except google.auth.exceptions.GoogleAuthError as error:
            transient = bool(error.retryable) or isinstance(error, google.auth.exceptions.TransportError)
            raise CredentialsError(
                f"The Google credentials here are not renewed: {_first(error)} {_WHERE}", transient
            ) from None
        return headers

    def __repr__(self) -> str:
        return "GoogleCredentials()"

    def __reduce__(self) -> Any:
        raise TypeError("Credentials stay in their process.")


def without_secrets(message: str, headers: Mapping[str, str]) -> str:
    """The words of a server, which may show what it was sent.

    Examples
    --------
    >>> without_secrets("Bearer abc is not known.", {"authorization": "Bearer abc"})
    '... is not known.'
    """
    for value in headers.values():
        message = message.replace(value, "...").replace(value.rpartition(" ")[2], "...")
    return message


def _first(error: Exception) -> str:
    """The words of an error of google-auth; behind them it keeps the issuer's whole answer."""
    text = str(error.args[0]) if error.args else type(error).__name__
    text = shorten(text, 200)
    return text if text.endswith(".") else text + "."
