"""What goes over the wire to a model and back: the six payload formats, without TensorFlow."""

from xee_tf.remote.payloads.formats import PayloadFormat, payload_format, payload_of
from xee_tf.remote.payloads.json_arrays import (
    UNNAMED,
    array_of,
    columns_of,
    columns_of_rows,
    json_rows,
    json_texts,
    parse_object,
)
from xee_tf.remote.payloads.payload import Payload, Request
from xee_tf.remote.payloads.predict_messages import (
    ANY_MODEL,
    PREDICT,
    PredictRequest,
    ServedModel,
    decode_predict_request,
    encode_predict_response,
)
from xee_tf.remote.payloads.strings import parse_strings, serialise_tensors

__all__ = [
    "ANY_MODEL",
    "PREDICT",
    "UNNAMED",
    "Payload",
    "PayloadFormat",
    "PredictRequest",
    "Request",
    "ServedModel",
    "array_of",
    "columns_of",
    "columns_of_rows",
    "decode_predict_request",
    "encode_predict_response",
    "json_rows",
    "json_texts",
    "parse_object",
    "parse_strings",
    "payload_format",
    "payload_of",
    "serialise_tensors",
]
