"""Earth Engine's six payload formats: batches of named arrays to requests, responses to named arrays.

What an array is in each of them:

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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError, RecordError
from xee_tf.records import FeatureTypes
from xee_tf.records.tensor_types import tensor_type
from xee_tf.remote.payloads.arrays import Arrays
from xee_tf.remote.payloads.batches import how_many_fit
from xee_tf.remote.payloads.json_messages import decode_json_response, encode_json_response
from xee_tf.remote.payloads.predict_messages import (
    ANY_MODEL,
    ModelSpec,
    decode_predict_response,
    encode_predict_response,
)
from xee_tf.remote.payloads.requests import encoded_batch, parse_strings, read_request, strings_of
from xee_tf.remote.payloads.sizes import Items, request_bounds

__all__ = ["Payload", "PayloadFormat", "Request", "payload_format"]

PayloadFormat = Literal[
    "SERIALIZED_TF_TENSORS",
    "RAW_JSON",
    "ND_ARRAYS",
    "GRPC_TF_TENSORS",
    "GRPC_SERIALIZED_TF_TENSORS",
    "GRPC_TF_EXAMPLES",
]

# The guide's name of the format that the reference calls GRPC_TF_EXAMPLES, and its slip in the same place.
_OTHER_NAMES = {
    "GRPC_SERIALIZED_TF_EXAMPLES": "GRPC_TF_EXAMPLES",
    "GRPC_SERAILZED_TF_EXAMPLES": "GRPC_TF_EXAMPLES",
}


def payload_format(value: str) -> PayloadFormat:
    """One of Earth Engine's payload formats.

    Raises
    ------
    OptionError
        If it is none.

    Examples
    --------
    >>> payload_format("grpc_serialized_tf_examples")
    'GRPC_TF_EXAMPLES'
    """
    name = str(value).upper()
    name = _OTHER_NAMES.get(name, name)
    for known in get_args(PayloadFormat):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise OptionError(f"payload_format must be one of {', '.join(get_args(PayloadFormat))}; got {value!r}.")


@dataclass(frozen=True)
class Request:
    """A request that is ready to be sent.

    Parameters
    ----------
    first, count : int
        The instances of the batch that it holds.
    body : bytes
        JSON, or a serialised PredictRequest.
    """

    first: int
    count: int
    body: bytes


@dataclass(frozen=True)
class Payload:
    """How batches are encoded, and answers decoded.

    Parameters
    ----------
    format : str
        One of Earth Engine's formats; see `payload_format`.
    typed : bool
        Whether tensors list their values one by one rather than hold raw bytes; larger and slower, for
        servers that read nothing else.
    model_decodes : bool
        Of serialised tensors: the model itself decodes base64, as `prepare_model` makes it, so that strings
        are URL-safe base64. If not, the model gets TensorProtos: over HTTP as ``{"b64": ...}``, which the
        server decodes.
    numbers_as_strings : bool
        Of RAW_JSON: Earth Engine writes ``"12.5"``. TensorFlow Serving wants 12.5.
    feature_types : {"float", "band"}
        Of Examples: whether all numbers are float_list, as in exports.
    model_spec : ModelSpec
        The model and signature that are meant. JSON has only the signature; the address says the rest.

    Examples
    --------
    >>> raw = Payload("RAW_JSON")
    >>> raw.encode({"B4": np.array([0.5, 2])})
    b'{"instances":[{"B4":"0.5"},{"B4":"2.0"}]}'
    >>> raw.decode_response(b'{"predictions": [{"p": 1}, {"p": 0}]}')
    {'p': array([1, 0])}
    """

    format: PayloadFormat = "SERIALIZED_TF_TENSORS"
    typed: bool = False
    model_decodes: bool = True
    numbers_as_strings: bool = True
    feature_types: FeatureTypes = "float"
    model_spec: ModelSpec = ANY_MODEL

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", payload_format(self.format))

    @property
    def is_grpc(self) -> bool:
        """Whether bodies are PredictRequests rather than JSON."""
        return self.format.startswith("GRPC")

    @property
    def is_serialised(self) -> bool:
        """Whether arrays travel as strings of serialised tensors, both ways."""
        return self.format in ("SERIALIZED_TF_TENSORS", "GRPC_SERIALIZED_TF_TENSORS")

    # -- Requests --

    def encode(self, arrays: Arrays) -> bytes:
        """One request for a whole batch.

        Parameters
        ----------
        arrays : mapping from str to ndarray, shape (n, ...)
            At least one, and one instance.

        Raises
        ------
        OptionError
            If an array cannot be sent in this format.
        """
        count = _count(arrays)
        return encoded_batch(self, arrays).body(0, count)

    def requests(self, arrays: Arrays, limit: int) -> Iterator[Request]:
        """Requests of at most `limit` bytes, each with as many instances as fit.

        Parameters
        ----------
        arrays : mapping from str to ndarray, shape (n, ...)
            At least one, and one instance.
        limit : int
            Bytes of a body.

        Raises
        ------
        OptionError
            If an array cannot be sent in this format, or one instance alone is larger than `limit`; before
            the first request comes.
        """
        count = _count(arrays)
        batch = encoded_batch(self, arrays)
        runs, first = [], 0
        while first < count:  # all of them first: what can never fit is refused before anything is sent
            fitting = how_many_fit(batch, first, count, limit)
            if not fitting:
                raise OptionError(
                    f"Instance {first} of the batch takes {batch.size(first, first + 1):,} bytes as "
                    f"{self.format}, and a request may have {limit:,}: send smaller tiles, or raise "
                    "max_payload_bytes if the endpoint takes more."
                )
            runs.append((first, fitting))
            first += fitting
        for first, fitting in runs:
            yield Request(first, fitting, batch.body(first, first + fitting))

    def bounds(self, items: Items, count: int = 1, *, string_size: int = 0) -> tuple[int, int]:
        """Bytes that a request takes at least and at most, told without its values.

        They are equal unless numbers are written as text or `typed` integers, or there are strings.

        Parameters
        ----------
        items : mapping
            Dtype and shape of what an instance has under each name.
        count : int, optional
            Instances.
        string_size : int, optional
            Bytes of the longest string.

        Examples
        --------
        >>> bands = {"B4": ("float32", (256, 256, 1)), "B5": ("float32", (256, 256, 1))}
        >>> Payload().bounds(bands), Payload("GRPC_TF_TENSORS").bounds(bands)
        ((699145, 699145), (524364, 524364))
        """
        return request_bounds(self, items, count, string_size)

    def decode_request(self, data: bytes, items: Items) -> dict[str, npt.NDArray[Any]]:
        """The batch of a request, for a server.

        Parameters
        ----------
        data : bytes
            As `encode` gives it, or another client.
        items : mapping
            Dtype and shape of what an instance has under each name.

        Raises
        ------
        RecordError
            If it is no request, or its names, dtypes or shapes are others.
        """
        arrays = read_request(self, data, items)
        if set(arrays) != set(items):
            raise RecordError(f"The model has the inputs {sorted(items)}; the request has {sorted(arrays)}.")
        for name, (dtype, shape) in items.items():
            array, wanted = arrays[name], tensor_type(np.dtype(dtype))
            if tensor_type(array.dtype) != wanted or array.shape[1:] != tuple(shape):
                raise RecordError(
                    f"{name!r} is {tensor_type(array.dtype).name} {array.shape[1:]}; "
                    f"expected {wanted.name} {tuple(shape)}."
                )
        return {name: arrays[name] for name in items}

    # -- Responses --

    def encode_response(self, outputs: Arrays) -> bytes:
        """A response in this format, for a server.

        Parameters
        ----------
        outputs : mapping from str to ndarray, shape (n, ...)
        """
        if self.is_serialised:
            outputs = {name: np.array(strings_of(self, array), object) for name, array in outputs.items()}
        if self.is_grpc:
            return encode_predict_response(outputs, self.model_spec, typed=self.typed)
        return encode_json_response(outputs)

    def decode_response(
        self,
        data: bytes,
        *,
        count: int | None = None,
        name: str = "output",
        dtypes: Mapping[str, npt.DTypeLike] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """The outputs of a response.

        Parameters
        ----------
        data : bytes
            Of a server. Its JSON may be by rows or by columns, with or without names; its tensors in
            either form.
        count : int, optional
            Instances that were sent: as many must come back.
        name : str, optional
            What the only output is called where the response does not say.
        dtypes : mapping from str to dtype, optional
            Of outputs that come as JSON numbers, which have none of their own.

        Returns
        -------
        dict from str to ndarray, shape (n, ...)
            They may be read-only.

        Raises
        ------
        RecordError
            If it is no such response; the message says in which instance of which output.
        """
        if self.is_grpc:
            outputs = dict(decode_predict_response(data).outputs)
        else:
            outputs = decode_json_response(data, name=name, dtypes=None if self.is_serialised else dtypes)
        if self.is_serialised:
            outputs = {key: parse_strings(array, key) for key, array in outputs.items()}
        for key, array in outputs.items():
            if count is not None and array.shape[:1] != (count,):
                raise RecordError(f"The output {key!r} has the shape {array.shape} for {count} instances.")
        return outputs


def _count(arrays: Arrays) -> int:
    """The number of instances of a batch."""
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise OptionError(
            "A batch needs at least one array, and the same number of instances in each; got "
            f"{ {name: array.shape for name, array in arrays.items()} }."
        )
    return counts.pop()
