"""Google credentials, which are found in the process that uses them and never leave it."""

from __future__ import annotations

from threading import Lock
from typing import Any, Literal

from xee_tf.errors import ModelError, OptionError, shorten
from xee_tf.extras import extra
from xee_tf.remote.addresses import allows_credentials
from xee_tf.remote.masking import mask

__all__ = [
    "Credentials",
    "CredentialsError",
    "GoogleCredentials",
    "check_credentials",
]

Credentials = Literal["google"] | None
"""The kind of credentials to send with requests; None sends none."""

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_HOW_TO_FIX = (
    "On every machine that predicts, run `gcloud auth application-default login`, set "
    "GOOGLE_APPLICATION_CREDENTIALS, or use a service account; if the server does not require credentials, "
    "pass credentials=None."
)
_SECRETS = ("token", "id_token", "refresh_token", "client_secret")  # attributes of google-auth's credentials


class CredentialsError(ModelError):
    """Credentials were not found or could not be refreshed; `transient` if a later attempt may succeed."""

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


def check_credentials(credentials: Credentials, url: str) -> Credentials:
    """Return `credentials` if they are valid and may be sent to a URL.

    Raises
    ------
    OptionError
        If the value is not valid, or the credentials would be sent without encryption.

    Examples
    --------
    >>> check_credentials("google", "http://models.example.org")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: Credentials cannot be sent to http://models.example.org without TLS: ...
    """
    if credentials not in ("google", None):
        # The message must not show the value, which may be a token.
        raise OptionError(
            "credentials must be 'google' (application default credentials) or None, not a token or a key."
        )
    if credentials is not None and not allows_credentials(url):
        raise OptionError(
            f"Credentials cannot be sent to {url} without TLS: use https, or pass credentials=None if the "
            "server does not require credentials."
        )
    return credentials


class GoogleCredentials:
    """Application default credentials, refreshed when they expire; may be used by several threads at once.

    Raises
    ------
    CredentialsError
        If no credentials are found in this process.
    """

    def __init__(self) -> None:
        with extra("hosted", "A hosted model"):
            import google.auth
            import google.auth.exceptions
            from google.auth.transport.requests import Request

            from xee_tf.remote.sessions import DirectSession

        try:
            found, _ = google.auth.default(scopes=[_SCOPE])
        except google.auth.exceptions.GoogleAuthError as error:
            raise CredentialsError(f"Google credentials not found: {_summary(error)} {_HOW_TO_FIX}") from None
        self._credentials: Any = found
        self._request: Any = Request(DirectSession())
        self._lock = Lock()

    def headers(self, url: str) -> dict[str, str]:
        """Return the headers that authenticate a request to a URL.

        Raises
        ------
        CredentialsError
            If the credentials expired and could not be refreshed.
        """
        with extra("hosted", "A hosted model"):
            import google.auth.exceptions

        headers: dict[str, str] = {}
        try:
            with self._lock:
                self._credentials.before_request(self._request, "POST", url, headers)
        except google.auth.exceptions.GoogleAuthError as error:
            transient = bool(error.retryable) or isinstance(error, google.auth.exceptions.TransportError)
            secrets = (getattr(self._credentials, name, None) for name in _SECRETS)
            summary = mask(_summary(error), [secret for secret in secrets if isinstance(secret, str)])
            raise CredentialsError(
                f"Google credentials could not be refreshed: {summary} {_HOW_TO_FIX}", transient
            ) from None
        return headers

    def __repr__(self) -> str:
        return "GoogleCredentials()"

    def __reduce__(self) -> Any:
        raise TypeError("Credentials cannot be pickled: they must not leave their process.")


def _summary(error: Exception) -> str:
    """Return the first argument of an error from google-auth; the others hold the issuer's whole response."""
    text = str(error.args[0]) if error.args else type(error).__name__
    text = shorten(text, 200)
    return text if text.endswith(".") else text + "."
