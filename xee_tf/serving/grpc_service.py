"""The gRPC services of TensorFlow Serving and Vertex AI, without stubs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread

from xee_tf.errors import OptionError, RecordError
from xee_tf.extras import extra
from xee_tf.remote import DIRECT_RAW_PREDICT, GET_METADATA, Code
from xee_tf.remote.payloads import PREDICT, decode_predict_request
from xee_tf.serving.failures import RequestError, as_request_error
from xee_tf.serving.held import HeldBytes
from xee_tf.serving.metadata import decode_metadata_request, encode_metadata_response
from xee_tf.serving.models import Models
from xee_tf.serving.predictions import predict_message
from xee_tf.wire import delimited_fields, encode_field, text

with extra("serve", "A model server"):
    import grpc

__all__ = ["WaitingCalls", "grpc_server"]

MESSAGE_SECONDS = 60.0
"""Maximum time in seconds until the message of a call has arrived; then the call is cancelled."""

_MAX_BYTES = (1 << 31) - 1  # limit of gRPC


class WaitingCalls:
    """The calls whose message has not arrived. gRPC waits for it without limit, in a thread of the pool."""

    def __init__(self) -> None:
        self._since: dict[grpc.ServicerContext, float] = {}

    def receive(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Return the message of a call; raise an error of gRPC if the call is cancelled."""
        self._since[context] = time.monotonic()
        try:
            for message in messages:
                return message
        finally:
            del self._since[context]
        raise RequestError(Code.INVALID_ARGUMENT, "The call has no message.")

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Cancel calls that wait too long, in another thread."""
        stopped = Event()

        def cancel_late() -> None:
            while not stopped.wait(MESSAGE_SECONDS / 10):
                late = time.monotonic() - MESSAGE_SECONDS
                for context, begin in self._since.copy().items():
                    if begin < late:
                        context.cancel()

        thread = Thread(target=cancel_late, name="xee-tf-serve-waiting", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()


def grpc_server(
    models: Models,
    pool: ThreadPoolExecutor,
    address: str,
    waiting: WaitingCalls,
    held: HeldBytes,
    *,
    max_request_bytes: int,
    max_concurrency: int,
) -> tuple[grpc.Server, int]:
    """Create a server that runs predictions in `pool`; return it before it is started, and its port.

    Calls are in `waiting` until their message arrives, which is then counted in `held`. The size of responses
    is not limited. Calls beyond `max_concurrency` fail with RESOURCE_EXHAUSTED.

    Raises
    ------
    OptionError
        If the server cannot listen on the address.
    """
    server = grpc.server(
        pool,
        handlers=_Service(models, max_request_bytes, waiting, held).handlers(),
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

    def __init__(
        self, models: Models, max_request_bytes: int, waiting: WaitingCalls, held: HeldBytes
    ) -> None:
        self._models, self._max_bytes = models, max_request_bytes
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
            handler = grpc.stream_unary_rpc_method_handler(self._handler(method))
            handlers.append(grpc.method_handlers_generic_handler(service, {name: handler}))
        return handlers

    def _handler(self, method: Callable[[bytes], bytes]) -> Callable[..., bytes]:
        """Return a function that receives the message; errors of `method` become the status of the call."""

        def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            size = 0
            try:
                data = self._waiting.receive(messages, context)
                self._held.add(len(data))
                size = len(data)
                return method(data)
            except grpc.RpcError:  # the call was cancelled
                raise
            except Exception as error:
                failure = as_request_error(error)
            finally:
                self._held.remove(size)
            context.abort(grpc.StatusCode[failure.code.name], failure.message)
            raise AssertionError("abort raises")

        return call

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
