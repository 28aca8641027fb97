"""What the payload formats share: a batch becomes requests of limited size, an answer becomes arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy.typing as npt

from xee_tf.connector import Arrays, Items, Signature
from xee_tf.errors import OptionError, RecordError
from xee_tf.remote.payloads.predict_messages import ANY_MODEL, ServedModel

__all__ = ["Dtypes", "EncodedBatch", "Payload", "Request"]

Dtypes = Mapping[str, npt.DTypeLike]
"""Dtypes of outputs by name."""


@dataclass(frozen=True)
class Request:
    """The body of a request for `count` instances of a batch, from the number `first` on."""

    first: int
    count: int
    body: bytes


@dataclass(frozen=True)
class EncodedBatch:
    """A batch of which the instances from one number up to another make a request."""

    size: Callable[[int, int], int]
    """Bytes of that request, known before it is made."""

    body: Callable[[int, int], bytes]


@dataclass(frozen=True)
class Payload(ABC):
    """A payload format: how batches are encoded and answers decoded.

    Parameters
    ----------
    served_model : ServedModel
        The model and signature that are meant. JSON holds only the signature; the address has the rest.
    """

    served_model: ServedModel = ANY_MODEL

    format: ClassVar[str]
    """Earth Engine's name of the format."""

    is_grpc: ClassVar[bool]
    """Whether bodies are PredictRequests rather than JSON."""

    content_type: ClassVar[str]
    """Of requests over HTTP."""

    one_input: ClassVar[bool] = False
    """Whether the only input of the model takes all arrays of a batch."""

    @abstractmethod
    def _encode_batch(self, arrays: Arrays) -> EncodedBatch:
        """The batch in this format, or an OptionError if it cannot be sent in it."""

    @abstractmethod
    def _decode(self, data: bytes, name: str, dtypes: Dtypes) -> dict[str, npt.NDArray[Any]]:
        """The outputs of an answer, whatever their shapes; see `decode`."""

    @abstractmethod
    def least_size(self, items: Items, count: int = 1) -> int:
        """Bytes that a request takes at least, known without its values.

        It takes exactly as many unless numbers are written as text or there are strings.

        Parameters
        ----------
        items : mapping
            Dtype and shape of what an instance has under each name.
        count : int, optional
            Instances.
        """

    def batch_signature(self, signature: Signature, model: str) -> Signature:
        """The signature of the batches, from that of the model's own tensors; errors name the `model`.

        Raises
        ------
        ModelError
            If the model takes other tensors than this format sends.
        """
        return Signature(None, signature.outputs) if self.one_input else signature

    def encode(self, arrays: Arrays) -> bytes:
        """One request for a whole batch; see `requests`."""
        count = _count(arrays)
        return self._encode_batch(arrays).body(0, count)

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
            the first request is given.
        """
        count = _count(arrays)
        batch = self._encode_batch(arrays)
        runs, first = [], 0
        while first < count:  # all runs first: what can never fit is refused before anything is sent
            stops = range(first + 1, count + 1)
            fitting = bisect_right(stops, limit, key=partial(batch.size, first))
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

    def decode(
        self,
        data: bytes,
        *,
        count: int | None = None,
        name: str = "output",
        dtypes: Dtypes | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """The outputs of an answer.

        Parameters
        ----------
        data : bytes
            Of a server. Its JSON may be by rows or by columns, with or without names; its tensors may be
            in either form.
        count : int, optional
            Instances that were sent: as many must come back.
        name : str, optional
            What the only output is called if the answer does not name it.
        dtypes : mapping from str to dtype, optional
            Of outputs that come as JSON numbers, which have none of their own.

        Returns
        -------
        dict from str to ndarray, shape (n, ...)
            They may be read-only.

        Raises
        ------
        RecordError
            If it is not such an answer; the message names the instance and the output.
        """
        outputs = self._decode(data, name, dtypes or {})
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
