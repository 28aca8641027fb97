"""Earth Engine's six payload formats by name.

===========================  ============================================================================
SERIALIZED_TF_TENSORS        JSON rows; each value the base64 of a TensorProto (the default)
RAW_JSON                     JSON rows; nested lists of numbers, as strings
ND_ARRAYS                    JSON rows without names; nested lists of numbers, bands first
GRPC_TF_TENSORS              a PredictRequest with a tensor for each name
GRPC_SERIALIZED_TF_TENSORS   a PredictRequest with vectors of strings: the base64 of TensorProtos
GRPC_TF_EXAMPLES             a PredictRequest with one vector of strings, ``input``: an Example a row
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

__all__ = ["FORMATS", "PayloadFormat", "payload_format", "payload_of"]

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

# The guide's name of the format that the reference calls GRPC_TF_EXAMPLES, and its slip in the same place.
_OTHER_NAMES = {
    "GRPC_SERIALIZED_TF_EXAMPLES": "GRPC_TF_EXAMPLES",
    "GRPC_SERAILZED_TF_EXAMPLES": "GRPC_TF_EXAMPLES",
}


def payload_format(value: object) -> PayloadFormat:
    """One of Earth Engine's payload formats, by any of its names.

    Examples
    --------
    >>> payload_format("grpc_serialized_tf_examples")
    'GRPC_TF_EXAMPLES'
    """
    given = str(value).upper()
    for name in FORMATS:
        if name == _OTHER_NAMES.get(given, given):
            return name
    raise OptionError(f"payload_format must be one of {', '.join(FORMATS)}; got {value!r}.")


def payload_of(
    name: str,
    *,
    served_model: ServedModel = ANY_MODEL,
    model_decodes: bool = True,
    numbers_as_strings: bool = True,
) -> Payload:
    """The payload format of a name; one that does not have a flag ignores it.

    Examples
    --------
    >>> payload_of("RAW_JSON", numbers_as_strings=False) == RawJson(numbers_as_strings=False)
    True
    """
    kind = FORMATS[payload_format(name)]
    flags: dict[str, Any] = {"model_decodes": model_decodes, "numbers_as_strings": numbers_as_strings}
    own = {each.name: flags[each.name] for each in fields(kind) if each.name in flags}
    return kind(served_model=served_model, **own)
