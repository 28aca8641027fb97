"""TensorFlow Serving's PredictionService over gRPC, without stubs; and the way to it that Vertex AI has."""

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

_MOST_BYTES = (1 << 31) - 1  # what gRPC can count


def grpc_server(
    models: Models,
    pool: ThreadPoolExecutor,
    address: str,
    *,
    max_request_bytes: int,
    max_concurrency: int,
) -> tuple[grpc.Server, int]:
    """A server that is not started yet, whose predictions run in `pool`, and its port.

    Answers have no limit. Calls past `max_concurrency` are refused with RESOURCE_EXHAUSTED.

    Raises
    ------
    OptionError
        If the address cannot be had.
    """
    server = grpc.server(
        pool,
        handlers=_Service(models, max_request_bytes).handlers(),
        options=[
            ("grpc.max_receive_message_length", min(max_request_bytes, _MOST_BYTES)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a second server must not share the port silently
        ],
        maximum_concurrent_rpcs=max_concurrency,
    )
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError:
        raise OptionError(
            f"gRPC cannot listen at {address}: the port is taken, or the host is not this machine's."
        ) from None


class _Service:
    """The methods; messages stay bytes."""

    def __init__(self, models: Models, max_request_bytes: int) -> None:
        self._models, self._most_bytes = models, max_request_bytes

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        methods: dict[str, Callable[[bytes], bytes]] = {
            PREDICT: self._predict,
            GET_METADATA: self._metadata,
            DIRECT_RAW_PREDICT: self._direct_raw_predict,
        }
        found = []
        for name, method in methods.items():
            _, service, own_name = name.split("/")
            handler = grpc.unary_unary_rpc_method_handler(_answering(method))
            found.append(grpc.method_handlers_generic_handler(service, {own_name: handler}))
        return found

    def _predict(self, data: bytes) -> bytes:
        request = decode_predict_request(data)
        spec = request.served_model
        model = self._models.find(spec.name, spec.version, spec.label)
        return predict_message(request, model, self._most_bytes)

    def _metadata(self, data: bytes) -> bytes:
        spec = decode_metadata_request(data)
        return encode_metadata_response(self._models.find(spec.name, spec.version, spec.label))

    def _direct_raw_predict(self, data: bytes) -> bytes:
        """``DirectRawPredictRequest{endpoint = 1, method_name = 2, input = 3}`` to ``{output = 1}``."""
        fields = dict(delimited_fields(data))
        endpoint, method = (text(fields.get(number, memoryview(b""))) for number in (1, 2))
        if method.lstrip("/") != PREDICT.lstrip("/"):
            raise RecordError(f"method_name is {method!r}; this server has {PREDICT!r}.")
        model = self._models.at_endpoint(endpoint.rsplit("/", 1)[-1])
        request = decode_predict_request(fields.get(3, b""))
        return encode_field(1, predict_message(request, model, self._most_bytes))


def _answering(method: Callable[[bytes], bytes]) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return method(data)
        except Exception as error:
            failure = as_request_error(error)
        context.abort(grpc.StatusCode[failure.code.name], failure.message)
        raise AssertionError("abort raises")

    return answer
