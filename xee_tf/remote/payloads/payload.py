"""Base class of the payload formats: split a batch into requests of limited size, and decode responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Items, Signature
from xee_tf.errors import OptionError, RecordError
from xee_tf.remote.payloads.predict_messages import ANY_MODEL, ServedModel

__all__ = ["Dtypes", "EncodedBatch", "Payload", "Request"]

Dtypes = Mapping[str, npt.DTypeLike]
"""Dtypes of outputs by name."""


@dataclass(frozen=True)
class Request:
    """Body of a request with `count` instances of a batch, starting at the index `first`."""

    first: int
    count: int
    body: bytes


@dataclass(frozen=True)
class EncodedBatch:
    """An encoded batch, of which any slice of instances (first, stop) can be a request."""

    size: Callable[[int, int], int]
    """Function that returns the size of a request in bytes, without creating it."""

    body: Callable[[int, int], bytes]
    """Function that returns the body of a request."""


@dataclass(frozen=True)
class Payload(ABC):
    """A payload format, which encodes batches and decodes responses.

    Parameters
    ----------
    served_model : ServedModel
        Model and signature to call. JSON contains only the signature; the model is part of the URL.
    """

    served_model: ServedModel = ANY_MODEL

    format: ClassVar[str]
    """Name of the format in Earth Engine."""

    is_grpc: ClassVar[bool]
    """Whether bodies are PredictRequests rather than JSON."""

    content_type: ClassVar[str]
    """Content type of requests over HTTP."""

    single_input: ClassVar[bool] = False
    """Whether all arrays of a batch are passed to the single input of the model."""

    @abstractmethod
    def _encode_batch(self, arrays: Arrays) -> EncodedBatch:
        """Encode a batch; raise an `OptionError` if the format does not support it."""

    @abstractmethod
    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        """Decode a response without checking the shapes; see `decode`."""

    @abstractmethod
    def min_size(self, items: Items, count: int = 1) -> int:
        """Return the minimum size of a request in bytes, whatever its values.

        The size is exact unless numbers are written as text or the batch contains strings.

        Parameters
        ----------
        items : mapping of str to tuple
            Dtype and shape of each array, for one instance.
        count : int, default 1
            Number of instances.
        """

    @property
    def sizes_vary(self) -> bool:
        """Whether the size of a request depends on the numbers in it, which are then written as text."""
        return False

    @property
    def answers(self) -> Payload:
        """A format whose requests are as large as the responses of this one, about."""
        return self

    def largest_batch(self, items: Items, count: int) -> dict[str, npt.NDArray[Any]]:
        """Return a batch whose requests are as large as those of any other batch without strings.

        Parameters
        ----------
        items : mapping of str to tuple
            Dtype and shape of each array, for one instance.
        count : int
            Number of instances.
        """
        return {
            name: np.broadcast_to(np.zeros((), dtype), (count, *shape))
            for name, (dtype, shape) in items.items()
        }

    def batch_signature(self, signature: Signature, model: str) -> Signature:
        """Return the signature of batches, given that of the model; `model` describes it in error messages.

        Raises
        ------
        ModelError
            If the model expects other tensors than this format sends.
        """
        return Signature(None, signature.outputs) if self.single_input else signature

    def encode(self, arrays: Arrays) -> bytes:
        """Encode a whole batch as one request; see `requests`."""
        count = _count(arrays)
        return self._encode_batch(arrays).body(0, count)

    def requests(self, arrays: Arrays, limit: int) -> Iterator[Request]:
        """Split a batch into requests of at most `limit` bytes, each with as many instances as possible.

        Parameters
        ----------
        arrays : mapping of str to ndarray, shape (n, ...)
            At least one array, with at least one instance.
        limit : int
            Maximum size of a body in bytes.

        Raises
        ------
        OptionError
            If the format does not support an array, or a single instance is larger than `limit`; it is raised
            before the first request is yielded.
        """
        count = _count(arrays)
        batch = self._encode_batch(arrays)
        runs, first = [], 0
        while first < count:  # all runs are planned first, so that errors are raised before anything is sent
            stops = range(first + 1, count + 1)
            fitting = bisect_right(stops, limit, key=partial(batch.size, first))
            if not fitting:
                raise OptionError(
                    f"Instance {first} of the batch takes {batch.size(first, first + 1):,} bytes as "
                    f"{self.format}; the limit of a request is {limit:,} bytes. Use smaller tiles, or raise "
                    "max_payload_bytes if the endpoint accepts larger requests."
                )
            runs.append((first, fitting))
            first += fitting
        for first, fitting in runs:
            yield Request(first, fitting, batch.body(first, first + fitting))

    def decode(
        self,
        data: bytes,
        *,
        count: int | None = None,
        name: str = "output",
        dtypes: Dtypes | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Decode the outputs of a response.

        Parameters
        ----------
        data : bytes
            Body of the response. JSON may consist of rows or columns, with or without names; TensorProtos may
            have raw or listed values.
        count : int, optional
            Number of instances in the request, which the outputs must match.
        name : str, default "output"
            Name of a single output without a name.
        dtypes : mapping of str to dtype, optional
            Dtypes of outputs that are JSON numbers.

        Returns
        -------
        dict of str to ndarray, shape (n, ...)
            Outputs by name; the arrays may be read-only.

        Raises
        ------
        RecordError
            If the response is not valid; the message names the instance and the output.
        """
        outputs = self._decode(data, name, dtypes or {})
        for key, array in outputs.items():
            if count is not None and array.shape[:1] != (count,):
                raise RecordError(f"The output {key!r} has shape {array.shape}; expected {count} instances.")
        return outputs


def _count(arrays: Arrays) -> int:
    """Return the number of instances of a batch."""
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise OptionError(
            "A batch must have at least one array, and all arrays the same number of instances; got "
            f"{ {name: array.shape for name, array in arrays.items()} }."
        )
    return counts.pop()
