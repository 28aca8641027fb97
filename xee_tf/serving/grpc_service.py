"""The gRPC services of TensorFlow Serving and Vertex AI, without stubs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import BoundedSemaphore

from xee_tf.errors import OptionError, RecordError
from xee_tf.extras import extra
from xee_tf.remote import DIRECT_RAW_PREDICT, GET_METADATA
from xee_tf.remote.payloads import PREDICT, decode_predict_request
from xee_tf.serving.access import log_call, logs_requests
from xee_tf.serving.failures import as_request_error, no_slot
from xee_tf.serving.held import HeldBytes
from xee_tf.serving.metadata import decode_metadata_request, encode_metadata_response
from xee_tf.serving.models import Models
from xee_tf.serving.predictions import predict_message
from xee_tf.serving.waiting import WaitingCalls
from xee_tf.wire import delimited_fields, encode_field, text

with extra("serve", "A model server"):
    import grpc

__all__ = ["grpc_server"]

_MAX_BYTES = (1 << 31) - 1  # limit of gRPC
_CONNECTIONS = 4096
_NEW_CALLS = 32  # calls that have begun, or been ended, and are not counted yet


@contextmanager
def grpc_server(
    models: Models, address: str, held: HeldBytes, *, max_request_bytes: int, max_concurrency: int
) -> Iterator[tuple[grpc.Server, int, WaitingCalls]]:
    """Create a server; yield it before it is started, its port, and the calls that wait for their message.

    It must be stopped afterwards.

    Messages are counted in `held`. The size of responses is not limited. A call takes one of
    `max_concurrency` slots only when its message has arrived, so that calls without one do not keep others
    out; if there is no slot, it fails with RESOURCE_EXHAUSTED.

    Raises
    ------
    OptionError
        If the server cannot listen on the address.
    """
    waiting = WaitingCalls(max_concurrency)
    calls = waiting.limit + max_concurrency + _NEW_CALLS
    service = _Service(models, max_request_bytes, max_concurrency, waiting, held)
    with ThreadPoolExecutor(calls, "xee-tf-serve-grpc") as pool, waiting.watched():
        server = grpc.server(
            pool,
            handlers=service.handlers(),
            options=[
                ("grpc.max_receive_message_length", min(max_request_bytes, _MAX_BYTES)),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # otherwise a second server silently shares the port
                ("grpc.server_handshake_timeout_ms", 5_000),
                ("grpc.max_connection_idle_ms", 10_000),
                ("grpc.max_allowed_incoming_connections", _connection_limit()),
                ("grpc.keepalive_time_ms", 60_000),  # clients that have disappeared
                ("grpc.keepalive_timeout_ms", 20_000),
            ],
            maximum_concurrent_rpcs=calls,
        )
        try:
            port = server.add_insecure_port(address)
        except RuntimeError:
            raise OptionError(
                f"gRPC cannot listen on {address}: the port is in use, or the host is not an address of this "
                "machine."
            ) from None
        yield server, port, waiting


def _connection_limit() -> int:
    """Return half the number of files that the process may open; the others are for HTTP."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(_CONNECTIONS, files // 2))


class _Service:
    """The methods of the services, on serialized messages."""

    def __init__(
        self,
        models: Models,
        max_request_bytes: int,
        max_concurrency: int,
        waiting: WaitingCalls,
        held: HeldBytes,
    ) -> None:
        self._models, self._max_bytes = models, max_request_bytes
        self._slots = BoundedSemaphore(max_concurrency)
        self._waiting, self._held = waiting, held

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        methods: dict[str, Callable[[bytes], bytes]] = {
            PREDICT: self._predict,
            GET_METADATA: self._metadata,
            DIRECT_RAW_PREDICT: self._direct_raw_predict,
        }
        handlers = []
        for path, method in methods.items():
            _, service, name = path.split("/")
            # The handler of a call with a single message would not be called before it arrives.
            call = self._handler(method)
            if logs_requests():
                call = log_call(name, call)
            handler = grpc.stream_unary_rpc_method_handler(call)
            handlers.append(grpc.method_handlers_generic_handler(service, {name: handler}))
        return handlers

    def _handler(self, method: Callable[[bytes], bytes]) -> Callable[..., bytes]:
        """Return a function that receives the message; errors of `method` become the status of the call."""

        def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            try:
                data = self._waiting.receive(messages, context)
                with self._admitted(len(data)):
                    return method(data)
            except grpc.RpcError:  # the call was cancelled
                raise
            except Exception as error:
                failure = as_request_error(error)
            context.abort(grpc.StatusCode[failure.code.name], failure.message)
            raise AssertionError("abort raises")

        return call

    @contextmanager
    def _admitted(self, size: int) -> Iterator[None]:
        """Take a slot, and memory for a message; raise a `RequestError` if there is none."""
        if not self._slots.acquire(blocking=False):
            raise no_slot()
        with ExitStack() as stack:
            stack.callback(self._slots.release)
            self._held.add(size)
            stack.callback(self._held.remove, size)
            yield

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
