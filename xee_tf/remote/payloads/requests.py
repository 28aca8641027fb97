"""What each payload format makes of a batch of named arrays, and back."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.remote.payloads.arrays import Arrays
from xee_tf.remote.payloads.batches import EncodedBatch, JsonRows, Tensors
from xee_tf.remote.payloads.examples import EXAMPLES_INPUT, parse_examples, serialise_examples
from xee_tf.remote.payloads.json_messages import decode_json_request, json_rows
from xee_tf.remote.payloads.json_text import json_texts
from xee_tf.remote.payloads.nd_arrays import bands_apart, bands_first, shaped
from xee_tf.remote.payloads.predict_messages import decode_predict_request
from xee_tf.remote.payloads.sizes import Items
from xee_tf.remote.payloads.strings import parse_tensors, serialise_tensors

if TYPE_CHECKING:
    from xee_tf.remote.payloads.formats import Payload

__all__ = ["encoded_batch", "parse_strings", "read_request", "strings_of"]


def encoded_batch(payload: Payload, arrays: Arrays) -> EncodedBatch:
    """A batch in the format of `payload`.

    Raises
    ------
    OptionError
        If an array cannot be sent in this format.
    """
    if payload.format == "GRPC_TF_TENSORS":
        return Tensors(arrays, payload.model_spec, payload.typed)
    if payload.is_grpc:
        if payload.format == "GRPC_TF_EXAMPLES":
            strings = {EXAMPLES_INPUT: serialise_examples(arrays, payload.feature_types)}
        else:
            strings = {name: strings_of(payload, array) for name, array in arrays.items()}
        vectors = {name: np.array(values, object) for name, values in strings.items()}
        return Tensors(vectors, payload.model_spec)
    if payload.format == "ND_ARRAYS":
        rows = json_texts(bands_first(arrays))
    elif payload.format == "RAW_JSON":
        quoted = payload.numbers_as_strings
        rows = json_rows({name: json_texts(array, quoted=quoted) for name, array in arrays.items()})
    else:
        rows = json_rows({name: _json_strings(payload, array) for name, array in arrays.items()})
    return JsonRows(rows, payload.model_spec.signature_name)


def strings_of(payload: Payload, array: npt.NDArray[Any]) -> list[bytes]:
    """A serialised tensor for each instance, in base64 if the model decodes that."""
    return serialise_tensors(array, in_base64=payload.model_decodes, typed=payload.typed)


def _json_strings(payload: Payload, array: npt.NDArray[Any]) -> list[bytes]:
    """Serialised tensors as JSON texts; base64 needs no escapes."""
    strings = strings_of(payload, array)
    if payload.model_decodes:
        return [b'"%s"' % string for string in strings]
    return [b'{"b64":"%s"}' % base64.b64encode(string) for string in strings]


def read_request(payload: Payload, data: bytes, items: Items) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a request in the format of `payload`, whatever they are.

    Raises
    ------
    RecordError
        If it is no request of this format.
    """
    if payload.format == "ND_ARRAYS":
        dtype = np.result_type(*(np.dtype(dtype) for dtype, _ in items.values()))
        return bands_apart(decode_json_request(data, {"": dtype}).inputs[""], items)
    if not payload.is_grpc:
        dtypes = {
            name: np.dtype(object) if payload.is_serialised else dtype for name, (dtype, _) in items.items()
        }
        found = dict(decode_json_request(data, dtypes).inputs)
    else:
        found = dict(decode_predict_request(data).inputs)
    if payload.is_serialised:
        return {name: parse_strings(array, name) for name, array in found.items()}
    if payload.format == "GRPC_TF_EXAMPLES":
        if set(found) != {EXAMPLES_INPUT} or found[EXAMPLES_INPUT].dtype != object:
            raise RecordError(f"The request has {sorted(found)}; expected strings, {EXAMPLES_INPUT!r}.")
        features = parse_examples(found[EXAMPLES_INPUT].reshape(-1).tolist())
        return {name: shaped(values, items[name]) for name, values in features.items() if name in items}
    return found


def parse_strings(strings: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """The tensors of a vector of strings."""
    if strings.dtype != object or strings.ndim != 1:
        raise RecordError(
            f"{name!r} is {strings.dtype} of shape {strings.shape}; expected a serialised tensor for each "
            "instance. Is the model prepared (xee_tf.prepare_model)?"
        )
    try:
        return parse_tensors(strings.tolist())
    except RecordError as error:
        raise RecordError(f"{name!r}: {error}") from None
