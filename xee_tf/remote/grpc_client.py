"""Requests over gRPC: one attempt each, limited in time and size; nothing is raised."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import grpc

from xee_tf.remote.addresses import GrpcTarget
from xee_tf.remote.answers import Answer, words_of
from xee_tf.remote.credentials import CredentialsError, GoogleCredentials, without_secrets
from xee_tf.remote.http_client import retry_after_seconds

__all__ = ["GrpcClient"]

# As TensorFlow Serving maps them; what is not here is 500.
_CODES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class GrpcClient:
    """One channel; for any number of threads.

    Parameters
    ----------
    target : GrpcTarget
    credentials : GoogleCredentials or None
    max_response_bytes : int
        Larger answers are refused.
    headers : tuple of (str, str)
        Sent with each request.
    """

    def __init__(
        self,
        target: GrpcTarget,
        credentials: GoogleCredentials | None,
        max_response_bytes: int,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", max_response_bytes),
            ("grpc.enable_retries", 0),  # ours know more: Retry-After, what is too large
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        self._url = f"http{'s' if target.secure else ''}://{target.address}/"
        self._credentials, self._headers = credentials, headers
        if target.secure:
            self._channel = grpc.secure_channel(target.address, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.insecure_channel(target.address, options)

    def ask(
        self, address: str, body: bytes | None, timeout: float, content_type: str = "application/grpc"
    ) -> Answer:
        """Send `body` to a method such as ``/tensorflow.serving.PredictionService/Predict``."""
        start = time.perf_counter()
        secrets: dict[str, str] = {}
        try:
            if self._credentials is not None:
                secrets = self._credentials.headers(self._url)
            metadata = [*self._headers, *((name.lower(), value) for name, value in secrets.items())]
            reply = self._channel.unary_unary(address)(body or b"", timeout=timeout, metadata=metadata)
            answer = Answer(200, "OK", reply)
        except CredentialsError as error:
            answer = Answer(0, "no credentials", words=str(error), passing=error.passing)
        except grpc.RpcError as error:
            answer = _failure(error)
        except ValueError as error:  # the channel was closed
            answer = Answer(0, "no answer", words=str(error))
        return replace(
            answer,
            words=without_secrets(answer.words, secrets),
            seconds=time.perf_counter() - start,
        )

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _failure(error: Any) -> Answer:
    name, words = error.code().name, words_of((error.details() or "").encode())
    code = _CODES.get(name, 500)
    if name == "RESOURCE_EXHAUSTED" and "larger than max" in words:  # of a message: it will not shrink
        if "CLIENT: " in words:
            return Answer(0, name, words=f"{words} That is max_response_bytes.")
        code = 413
    if name == "UNAVAILABLE" and ("certificate" in words.lower() or "handshake" in words.lower()):
        code = 495  # nginx's number for it: not a matter of time
    told = {key.lower(): value for key, value in error.trailing_metadata() or ()}
    return Answer(code, name, words=words, retry_after=retry_after_seconds(told.get("retry-after")))
