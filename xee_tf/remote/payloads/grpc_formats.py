"""Payload formats that are PredictRequests: tensors, serialized tensors, and Examples."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Items, Signature
from xee_tf.names import check_key
from xee_tf.records import (
    FOOTER,
    HEADER,
    Feature,
    Ragged,
    RecordLayout,
    context_head,
    encode_records,
)
from xee_tf.remote.payloads.payload import Dtypes, EncodedBatch, Payload
from xee_tf.remote.payloads.predict_messages import (
    decode_predict_response,
    encode_predict_request,
    predict_request_size,
)
from xee_tf.remote.payloads.strings import (
    as_bytes,
    min_string_size,
    parse_strings,
    serialize_tensors,
    strings_signature,
)
from xee_tf.tensors import STRING, tensor_size, tensor_type, value_sizes
from xee_tf.wire import field_size

__all__ = ["GrpcExamples", "GrpcSerializedTensors", "GrpcTensors"]

_EXAMPLES_INPUT = "input"  # the name in Earth Engine's guide


class _GrpcPayload(Payload):
    """A payload format that is a PredictRequest."""

    is_grpc = True
    content_type = "application/x-protobuf"

    @abstractmethod
    def _tensors(self, arrays: Arrays) -> Arrays:
        """Return the tensors of the request for a batch."""

    @abstractmethod
    def _min_tensor_sizes(self, items: Items, count: int) -> dict[str, int]:
        """Return the minimum size in bytes of each tensor of a request."""

    def _encode_batch(self, arrays: Arrays) -> EncodedBatch:
        tensors = self._tensors(arrays)
        # Offsets of the values of each instance among those of all instances.
        offsets = {name: [0, *np.cumsum(value_sizes(tensor)).tolist()] for name, tensor in tensors.items()}

        def size(first: int, stop: int) -> int:
            sizes = {}
            for name, tensor in tensors.items():
                values = offsets[name][stop] - offsets[name][first]
                sizes[name] = tensor_size(tensor.dtype, (stop - first, *tensor.shape[1:]), values)
            return predict_request_size(sizes, self.served_model)

        def body(first: int, stop: int) -> bytes:
            part = {name: tensor[first:stop] for name, tensor in tensors.items()}
            return encode_predict_request(part, self.served_model)

        return EncodedBatch(size, body)

    def min_size(self, items: Items, count: int = 1) -> int:
        """See `Payload`."""
        return predict_request_size(self._min_tensor_sizes(items, count), self.served_model)

    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        return decode_predict_response(data)


@dataclass(frozen=True)
class GrpcTensors(_GrpcPayload):
    """A payload format with a tensor for each array.

    Examples
    --------
    >>> bands = {"B4": ("float32", (256, 256, 1)), "B5": ("float32", (256, 256, 1))}
    >>> GrpcTensors().min_size(bands)
    524364
    """

    format = "GRPC_TF_TENSORS"

    def _tensors(self, arrays: Arrays) -> Arrays:
        return arrays

    def _min_tensor_sizes(self, items: Items, count: int) -> dict[str, int]:
        return {name: tensor_size(dtype, (count, *shape)) for name, (dtype, shape) in items.items()}


@dataclass(frozen=True)
class GrpcSerializedTensors(_GrpcPayload):
    """A payload format with a vector of serialized tensors for each array; see `SerializedTensors`."""

    model_decodes: bool = True

    format = "GRPC_SERIALIZED_TF_TENSORS"

    def _tensors(self, arrays: Arrays) -> Arrays:
        return {
            name: np.array(serialize_tensors(array, in_base64=self.model_decodes), object)
            for name, array in arrays.items()
        }

    def _min_tensor_sizes(self, items: Items, count: int) -> dict[str, int]:
        return {
            name: _vector_size(count, min_string_size(dtype, shape, in_base64=self.model_decodes))
            for name, (dtype, shape) in items.items()
        }

    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        return parse_strings(decode_predict_response(data))

    def batch_signature(self, signature: Signature, model: str) -> Signature:
        """See `Payload`."""
        return strings_signature(signature, model, self.format, alternative=GrpcTensors.format)


@dataclass(frozen=True)
class GrpcExamples(_GrpcPayload):
    """A payload format with one vector of strings, ``input``: a `tf.train.Example` for each instance.

    Each Example has a feature for each array, with the values in C order. Numbers of any dtype are stored as
    float_list.

    Examples
    --------
    >>> GrpcExamples().min_size({"B4": ("float32", (256, 256, 1))})
    262195
    """

    format = "GRPC_TF_EXAMPLES"
    single_input = True

    @property
    def answers(self) -> Payload:
        """See `Payload`: responses have a tensor for each output."""
        return GrpcTensors(self.served_model)

    def _tensors(self, arrays: Arrays) -> Arrays:
        return {_EXAMPLES_INPUT: np.array(_serialize_examples(arrays), object)}

    def _min_tensor_sizes(self, items: Items, count: int) -> dict[str, int]:
        entries = (_min_entry_size(_feature(name, dtype, shape)) for name, (dtype, shape) in items.items())
        return {_EXAMPLES_INPUT: _vector_size(count, field_size(sum(entries)))}


def _vector_size(count: int, size: int) -> int:
    """Return the size in bytes of a vector of `count` strings of `size` bytes each."""
    return tensor_size(object, (count,), count * field_size(size))


def _serialize_examples(arrays: Arrays) -> list[bytes]:
    """Encode an Example for each instance, without the framing of TFRecord.

    Examples
    --------
    >>> from xee_tf.records import decode_sequence_example
    >>> [example] = _serialize_examples({"B4": np.array([[0.5, 2]]), "class": np.array(["oak"])})
    >>> decode_sequence_example(example)[0]
    {'B4': array([0.5, 2. ], dtype=float32), 'class': [b'oak']}
    """
    strings = {name for name, array in arrays.items() if tensor_type(array.dtype) is STRING}
    # Numbers come first, then strings.
    ordered = sorted(arrays.items(), key=lambda item: item[0] in strings)
    layout = RecordLayout(tuple(_feature(name, array.dtype, array.shape[1:]) for name, array in ordered))
    columns = [_strings(array) if name in strings else array for name, array in ordered]
    # The mask gives the number of records, which features without strings do not.
    mask = np.ones(len(ordered[0][1]), bool)
    encoded = encode_records(layout, columns, mask)
    view, offsets = encoded.buffer.data, encoded.offsets.tolist()
    return [bytes(view[begin + HEADER : end - FOOTER]) for begin, end in pairwise(offsets)]


def _feature(name: str, dtype: npt.DTypeLike, shape: Sequence[int]) -> Feature:
    size = math.prod(shape)
    if tensor_type(np.dtype(dtype)) is STRING:
        return Feature.strings(check_key(name), size)
    return Feature.of(name, dtype, size)


def _strings(array: npt.NDArray[Any]) -> Ragged:
    return Ragged.of([as_bytes(value) for value in array.reshape(-1).tolist()])


def _min_entry_size(feature: Feature) -> int:
    """Return the minimum size in bytes of a feature in an Example; it is exact unless it holds strings."""
    values = feature.max_bytes
    if feature.holds_strings:  # empty strings; the head includes the tag and length of a single string
        values = 0 if feature.size == 1 else feature.size * field_size(0)
    return len(context_head(feature, values)) + values
