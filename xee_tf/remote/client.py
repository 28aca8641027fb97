"""Clients: one attempt at a request, limited in time and size. They raise nothing."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

from xee_tf.remote.credentials import CredentialsError, GoogleCredentials, without_secrets
from xee_tf.remote.responses import Response

__all__ = ["Client"]


class Client(ABC):
    """Sends one request at a time for each thread that asks; the headers of `credentials` go with each."""

    def __init__(self, credentials: GoogleCredentials | None) -> None:
        self._credentials = credentials

    def ask(
        self, address: str, body: bytes | None, timeout: float, content_type: str = "application/json"
    ) -> Response:
        """One attempt.

        Parameters
        ----------
        address : str
            A URL, or a method of gRPC such as ``/tensorflow.serving.PredictionService/Predict``.
        body : bytes, optional
            None: only what is there is asked for.
        timeout : float
            Seconds for the whole of it.
        content_type : str, optional
            Of the body, over HTTP.
        """
        start = time.perf_counter()
        secrets: dict[str, str] = {}
        try:
            if self._credentials is not None:
                secrets = self._credentials.headers(self.url_of(address))
            response = self.attempt(address, body, timeout, content_type, secrets)
        except CredentialsError as error:
            response = Response(0, "no credentials", message=str(error), transient=error.transient)
        message = without_secrets(response.message, secrets)
        return replace(response, message=message, seconds=time.perf_counter() - start)

    def url_of(self, address: str) -> str:
        """The URL that credentials are for. Default: the address."""
        return address

    @abstractmethod
    def attempt(
        self, address: str, body: bytes | None, timeout: float, content_type: str, secrets: Mapping[str, str]
    ) -> Response:
        """What `ask` does; `secrets` are headers that the answer must not show."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""
