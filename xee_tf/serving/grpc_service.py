"""The gRPC services of TensorFlow Serving and Vertex AI, without stubs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from xee_tf.errors import OptionError, RecordError
from xee_tf.extras import extra
from xee_tf.remote import DIRECT_RAW_PREDICT, GET_METADATA
from xee_tf.remote.payloads import PREDICT, decode_predict_request
from xee_tf.serving.failures import as_request_error
from xee_tf.serving.metadata import decode_metadata_request, encode_metadata_response
from xee_tf.serving.models import Models
from xee_tf.serving.predictions import predict_message
from xee_tf.wire import delimited_fields, encode_field, text

with extra("serve", "A model server"):
    import grpc

__all__ = ["grpc_server"]

_MAX_BYTES = (1 << 31) - 1  # limit of gRPC


def grpc_server(
    models: Models,
    pool: ThreadPoolExecutor,
    address: str,
    *,
    max_request_bytes: int,
    max_concurrency: int,
) -> tuple[grpc.Server, int]:
    """Create a server that runs predictions in `pool`; return it before it is started, and its port.

    The size of responses is not limited. Calls beyond `max_concurrency` fail with RESOURCE_EXHAUSTED.

    Raises
    ------
    OptionError
        If the server cannot listen on the address.
    """
    server = grpc.server(
        pool,
        handlers=_Service(models, max_request_bytes).handlers(),
        options=[
            ("grpc.max_receive_message_length", min(max_request_bytes, _MAX_BYTES)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # otherwise a second server silently shares the port
            ("grpc.server_handshake_timeout_ms", 30_000),
            ("grpc.max_connection_idle_ms", 300_000),
            ("grpc.keepalive_time_ms", 60_000),  # clients that have disappeared
            ("grpc.keepalive_timeout_ms", 20_000),
        ],
        maximum_concurrent_rpcs=max_concurrency,
    )
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError:
        raise OptionError(
            f"gRPC cannot listen on {address}: the port is in use, or the host is not an address of this "
            "machine."
        ) from None


class _Service:
    """The methods of the services, on serialized messages."""

    def __init__(self, models: Models, max_request_bytes: int) -> None:
        self._models, self._max_bytes = models, max_request_bytes

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        methods: dict[str, Callable[[bytes], bytes]] = {
            PREDICT: self._predict,
            GET_METADATA: self._metadata,
            DIRECT_RAW_PREDICT: self._direct_raw_predict,
        }
        handlers = []
        for path, method in methods.items():
            _, service, name = path.split("/")
            handler = grpc.unary_unary_rpc_method_handler(_with_error_status(method))
            handlers.append(grpc.method_handlers_generic_handler(service, {name: handler}))
        return handlers

    def _predict(self, data: bytes) -> bytes:
        request = decode_predict_request(data)
        spec = request.served_model
        model = self._models.find(spec.name, spec.version, spec.label)
        return predict_message(request, model, self._max_bytes)

    def _metadata(self, data: bytes) -> bytes:
        spec = decode_metadata_request(data)
        return encode_metadata_response(self._models.find(spec.name, spec.version, spec.label))

    def _direct_raw_predict(self, data: bytes) -> bytes:
        """Map ``DirectRawPredictRequest{endpoint = 1, method_name = 2, input = 3}`` to ``{output = 1}``."""
        fields = dict(delimited_fields(data))
        endpoint, method = (text(fields.get(number, memoryview(b""))) for number in (1, 2))
        if method.lstrip("/") != PREDICT.lstrip("/"):
            raise RecordError(f"Unknown method_name {method!r}; expected {PREDICT!r}.")
        model = self._models.find_endpoint(endpoint.rsplit("/", 1)[-1])
        request = decode_predict_request(fields.get(3, b""))
        return encode_field(1, predict_message(request, model, self._max_bytes))


def _with_error_status(method: Callable[[bytes], bytes]) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """Wrap a method such that its errors become the status of the call."""

    def call(data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return method(data)
        except Exception as error:
            failure = as_request_error(error)
        context.abort(grpc.StatusCode[failure.code.name], failure.message)
        raise AssertionError("abort raises")

    return call
