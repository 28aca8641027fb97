"""The payload formats of PredictRequests: tensors, serialised tensors, and Examples."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Items, Signature
from xee_tf.records.tensors import tensor_size, value_sizes
from xee_tf.records.wire import field_size
from xee_tf.remote.payloads.examples import EXAMPLES_INPUT, least_example_size, serialise_examples
from xee_tf.remote.payloads.payload import Dtypes, EncodedBatch, Payload
from xee_tf.remote.payloads.predict_messages import (
    decode_predict_response,
    encode_predict_request,
    predict_request_size,
)
from xee_tf.remote.payloads.strings import (
    least_string_size,
    parse_strings,
    serialise_tensors,
    strings_signature,
)

__all__ = ["GrpcExamples", "GrpcSerializedTensors", "GrpcTensors"]


class _GrpcPayload(Payload):
    """A format of PredictRequests."""

    is_grpc = True
    content_type = "application/x-protobuf"

    @abstractmethod
    def _tensors(self, arrays: Arrays) -> Arrays:
        """The tensors of the request for a batch."""

    @abstractmethod
    def _least_tensor_sizes(self, items: Items, count: int) -> dict[str, int]:
        """Bytes that each tensor of a request takes at least."""

    def _encode_batch(self, arrays: Arrays) -> EncodedBatch:
        tensors = self._tensors(arrays)
        # Where the values of each instance begin among those of all.
        edges = {name: [0, *np.cumsum(value_sizes(tensor)).tolist()] for name, tensor in tensors.items()}

        def size(first: int, stop: int) -> int:
            sizes = {}
            for name, tensor in tensors.items():
                values = edges[name][stop] - edges[name][first]
                sizes[name] = tensor_size(tensor.dtype, (stop - first, *tensor.shape[1:]), values)
            return predict_request_size(sizes, self.model_spec)

        def body(first: int, stop: int) -> bytes:
            part = {name: tensor[first:stop] for name, tensor in tensors.items()}
            return encode_predict_request(part, self.model_spec)

        return EncodedBatch(size, body)

    def least_size(self, items: Items, count: int = 1) -> int:
        """See `Payload`."""
        return predict_request_size(self._least_tensor_sizes(items, count), self.model_spec)

    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        return decode_predict_response(data)


@dataclass(frozen=True)
class GrpcTensors(_GrpcPayload):
    """A tensor for each array.

    Examples
    --------
    >>> bands = {"B4": ("float32", (256, 256, 1)), "B5": ("float32", (256, 256, 1))}
    >>> GrpcTensors().least_size(bands)
    524364
    """

    format = "GRPC_TF_TENSORS"

    def _tensors(self, arrays: Arrays) -> Arrays:
        return arrays

    def _least_tensor_sizes(self, items: Items, count: int) -> dict[str, int]:
        return {name: tensor_size(dtype, (count, *shape)) for name, (dtype, shape) in items.items()}


@dataclass(frozen=True)
class GrpcSerializedTensors(_GrpcPayload):
    """A vector of strings for each array: a TensorProto for each instance.

    Parameters
    ----------
    model_spec : ModelSpec
        See `Payload`.
    model_decodes : bool
        Whether the model decodes URL-safe base64, as `prepare_model` makes it; if not, it takes TensorProtos.
    """

    model_decodes: bool = True

    format = "GRPC_SERIALIZED_TF_TENSORS"

    def _tensors(self, arrays: Arrays) -> Arrays:
        return {
            name: np.array(serialise_tensors(array, in_base64=self.model_decodes), object)
            for name, array in arrays.items()
        }

    def _least_tensor_sizes(self, items: Items, count: int) -> dict[str, int]:
        return {
            name: _vector_size(count, least_string_size(dtype, shape, in_base64=self.model_decodes))
            for name, (dtype, shape) in items.items()
        }

    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        return parse_strings(decode_predict_response(data))

    def batch_signature(self, signature: Signature, model: str) -> Signature:
        """See `Payload`."""
        return strings_signature(signature, model, self.format, otherwise=GrpcTensors.format)


@dataclass(frozen=True)
class GrpcExamples(_GrpcPayload):
    """One vector of strings, ``input``: a `tf.train.Example` for each instance."""

    format = "GRPC_TF_EXAMPLES"

    def _tensors(self, arrays: Arrays) -> Arrays:
        return {EXAMPLES_INPUT: np.array(serialise_examples(arrays), object)}

    def _least_tensor_sizes(self, items: Items, count: int) -> dict[str, int]:
        return {EXAMPLES_INPUT: _vector_size(count, least_example_size(items))}

    def batch_signature(self, signature: Signature, model: str) -> Signature:
        """See `Payload`. The only input of the model holds all arrays of a batch."""
        return Signature(None, signature.outputs)


def _vector_size(count: int, size: int) -> int:
    """Bytes of a vector of `count` strings of `size` bytes each."""
    return tensor_size(object, (count,), count * field_size(size))
