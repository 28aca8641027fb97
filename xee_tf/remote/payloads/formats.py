"""Names of Earth Engine's six payload formats.

===========================  ============================================================================
SERIALIZED_TF_TENSORS        JSON rows; each value is a TensorProto in base64 (the default)
RAW_JSON                     JSON rows; nested lists of numbers, written as strings
ND_ARRAYS                    JSON rows without names; nested lists of numbers, bands first
GRPC_TF_TENSORS              PredictRequest with a tensor for each name
GRPC_SERIALIZED_TF_TENSORS   PredictRequest with a vector of strings for each name: TensorProtos in base64
GRPC_TF_EXAMPLES             PredictRequest with one vector of strings, ``input``: an Example for each row
===========================  ============================================================================
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from xee_tf.errors import OptionError
from xee_tf.remote.payloads.grpc_formats import GrpcExamples, GrpcSerializedTensors, GrpcTensors
from xee_tf.remote.payloads.json_formats import NdArrays, RawJson, SerializedTensors
from xee_tf.remote.payloads.payload import Payload
from xee_tf.remote.payloads.predict_messages import ANY_MODEL, ServedModel

__all__ = ["FORMATS", "PayloadFormat", "create_payload", "payload_format"]

PayloadFormat = Literal[
    "SERIALIZED_TF_TENSORS",
    "RAW_JSON",
    "ND_ARRAYS",
    "GRPC_TF_TENSORS",
    "GRPC_SERIALIZED_TF_TENSORS",
    "GRPC_TF_EXAMPLES",
]

FORMATS: dict[PayloadFormat, type[Payload]] = {
    "SERIALIZED_TF_TENSORS": SerializedTensors,
    "RAW_JSON": RawJson,
    "ND_ARRAYS": NdArrays,
    "GRPC_TF_TENSORS": GrpcTensors,
    "GRPC_SERIALIZED_TF_TENSORS": GrpcSerializedTensors,
    "GRPC_TF_EXAMPLES": GrpcExamples,
}

# Earth Engine's guide uses these names for the format that its reference calls GRPC_TF_EXAMPLES.
_OTHER_NAMES = {
    "GRPC_SERIALIZED_TF_EXAMPLES": "GRPC_TF_EXAMPLES",
    "GRPC_SERAILZED_TF_EXAMPLES": "GRPC_TF_EXAMPLES",
}


def payload_format(value: object) -> PayloadFormat:
    """Return the name of a payload format, from any of its names in upper or lower case.

    Examples
    --------
    >>> payload_format("grpc_serialized_tf_examples")
    'GRPC_TF_EXAMPLES'
    """
    upper = str(value).upper()
    for name in FORMATS:
        if name == _OTHER_NAMES.get(upper, upper):
            return name
    raise OptionError(f"payload_format must be one of {', '.join(FORMATS)}; got {value!r}.")


def create_payload(
    name: str,
    *,
    served_model: ServedModel = ANY_MODEL,
    model_decodes: bool = True,
    numbers_as_strings: bool = True,
) -> Payload:
    """Create a payload format by its name; flags that it does not have are ignored.

    Examples
    --------
    >>> create_payload("RAW_JSON", numbers_as_strings=False) == RawJson(numbers_as_strings=False)
    True
    """
    kind = FORMATS[payload_format(name)]
    flags: dict[str, Any] = {"model_decodes": model_decodes, "numbers_as_strings": numbers_as_strings}
    supported = {each.name: flags[each.name] for each in fields(kind) if each.name in flags}
    return kind(served_model=served_model, **supported)
