"""Requests over gRPC."""

from __future__ import annotations

from collections.abc import Mapping

from xee_tf.extras import extra
from xee_tf.remote.addresses import GrpcTarget
from xee_tf.remote.client import Client
from xee_tf.remote.credentials import GoogleCredentials
from xee_tf.remote.responses import Response, grpc_response

with extra("hosted", "A hosted model"):
    import grpc

__all__ = ["GrpcClient"]


class GrpcClient(Client):
    """Client with one gRPC channel; responses larger than `max_response_bytes` are rejected."""

    def __init__(
        self, target: GrpcTarget, credentials: GoogleCredentials | None, max_response_bytes: int
    ) -> None:
        super().__init__(credentials)
        self._target = target
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", max_response_bytes),
            # Servers close idle connections, which gRPC would log.
            ("grpc.client_idle_timeout_ms", 5000),
            ("grpc.enable_retries", 0),  # RemoteConnection retries, and honors Retry-After
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if target.secure:
            self._channel = grpc.secure_channel(target.address, grpc.ssl_channel_credentials(), options)
        else:
            if credentials is not None:  # a proxy could read them
                options.append(("grpc.enable_http_proxy", 0))
            self._channel = grpc.insecure_channel(target.address, options)

    def credentials_url(self, address: str) -> str:
        """See `Client`."""
        return f"http{'s' if self._target.secure else ''}://{self._target.address}/"

    def _send(
        self, address: str, body: bytes | None, timeout: float, content_type: str, headers: Mapping[str, str]
    ) -> Response:
        metadata = [*self._target.headers, *((name.lower(), value) for name, value in headers.items())]
        try:
            reply = self._channel.unary_unary(address)(body or b"", timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            trailing = {key.lower(): value for key, value in error.trailing_metadata() or ()}
            return grpc_response(error.code().name, error.details() or "", trailing)
        except ValueError as error:  # the channel was closed
            return Response(0, "no response", message=str(error))
        return Response(200, "OK", reply)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
