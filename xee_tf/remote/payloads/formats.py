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

from dataclasses import fields, replace
from typing import Any

from xee_tf.errors import OptionError
from xee_tf.remote.payloads.grpc_formats import GrpcExamples, GrpcSerializedTensors, GrpcTensors
from xee_tf.remote.payloads.json_formats import NdArrays, RawJson, SerializedTensors
from xee_tf.remote.payloads.payload import Payload
from xee_tf.remote.payloads.predict_messages import ANY_MODEL, ModelSpec

__all__ = ["FORMATS", "payload_of"]

FORMATS: dict[str, type[Payload]] = {
    kind.format: kind
    for kind in (SerializedTensors, RawJson, NdArrays, GrpcTensors, GrpcSerializedTensors, GrpcExamples)
}

# The guide's name of the format that the reference calls GRPC_TF_EXAMPLES, and its slip in the same place.
_OTHER_NAMES = {
    "GRPC_SERIALIZED_TF_EXAMPLES": "GRPC_TF_EXAMPLES",
    "GRPC_SERAILZED_TF_EXAMPLES": "GRPC_TF_EXAMPLES",
}


def payload_of(
    name: str,
    *,
    model_spec: ModelSpec = ANY_MODEL,
    model_decodes: bool = True,
    numbers_as_strings: bool = True,
) -> Payload:
    """A payload format by its name.

    Parameters
    ----------
    name : str
        One of Earth Engine's, in any case.
    model_spec : ModelSpec, optional
        See `Payload`.
    model_decodes : bool, optional
        See `SerializedTensors`. The formats of other values ignore it.
    numbers_as_strings : bool, optional
        See `RawJson`. Other formats ignore it.

    Raises
    ------
    OptionError
        If there is no such format.

    Examples
    --------
    >>> payload_of("grpc_serialized_tf_examples").format
    'GRPC_TF_EXAMPLES'
    """
    known = str(name).upper()
    kind = FORMATS.get(_OTHER_NAMES.get(known, known))
    if kind is None:
        raise OptionError(f"payload_format must be one of {', '.join(FORMATS)}; got {name!r}.")
    options: dict[str, Any] = {"model_decodes": model_decodes, "numbers_as_strings": numbers_as_strings}
    own = {each.name: options[each.name] for each in fields(kind) if each.name in options}
    return replace(kind(model_spec), **own)
