"""Clients that make one attempt at a request, limited in time and size; they never raise errors."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

from xee_tf.remote.credentials import CredentialsError, GoogleCredentials
from xee_tf.remote.masking import Secrets
from xee_tf.remote.responses import Response

__all__ = ["Client"]


class Client(ABC):
    """Send requests, with the headers of `credentials`; may be used by several threads at once."""

    def __init__(self, credentials: GoogleCredentials | None) -> None:
        self._credentials = credentials
        self._sent = Secrets()

    def send(
        self, address: str, body: bytes | None, timeout: float, content_type: str = "application/json"
    ) -> Response:
        """Send a request once.

        Parameters
        ----------
        address : str
            A URL, or a gRPC method such as ``/tensorflow.serving.PredictionService/Predict``.
        body : bytes, optional
            Body of the request. None sends a GET request over HTTP, and an empty message over gRPC.
        timeout : float
            Maximum duration of the request in seconds.
        content_type : str, optional
            Content type of the body over HTTP.
        """
        start = time.perf_counter()
        headers: dict[str, str] = {}
        try:
            if self._credentials is not None:
                headers = self._credentials.headers(self.credentials_url(address))
                self._sent.add(headers)
            response = self._send(address, body, timeout, content_type, headers)
        except CredentialsError as error:
            response = Response(0, "no credentials", message=str(error), transient=error.transient)
        message = self.masked(response.message)
        return replace(response, message=message, seconds=time.perf_counter() - start)

    def masked(self, text: str) -> str:
        """Return a text of the server without the credentials that were sent to it."""
        return self._sent.masked(text)

    def credentials_url(self, address: str) -> str:
        """Return the URL for which credentials are requested. Default: the address."""
        return address

    @abstractmethod
    def _send(
        self, address: str, body: bytes | None, timeout: float, content_type: str, headers: Mapping[str, str]
    ) -> Response:
        """Send a request once, with the headers of the credentials; see `send`."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""
