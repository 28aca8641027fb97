"""The six payload formats of requests to models on servers, without TensorFlow."""

from xee_tf.remote.payloads.formats import PayloadFormat, create_payload, payload_format
from xee_tf.remote.payloads.json_arrays import (
    UNNAMED,
    decode_array,
    encode_elements,
    encode_rows,
    parse_columns,
    parse_object,
    parse_rows,
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
from xee_tf.remote.payloads.strings import parse_strings, serialize_tensors

__all__ = [
    "ANY_MODEL",
    "PREDICT",
    "UNNAMED",
    "Payload",
    "PayloadFormat",
    "PredictRequest",
    "Request",
    "ServedModel",
    "create_payload",
    "decode_array",
    "decode_predict_request",
    "encode_elements",
    "encode_predict_response",
    "encode_rows",
    "parse_columns",
    "parse_object",
    "parse_rows",
    "parse_strings",
    "payload_format",
    "serialize_tensors",
]
