"""Encoded batches: how large a request of any of their instances is, and its bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt

from xee_tf.records.tensors import tensor_size, value_sizes
from xee_tf.remote.payloads.arrays import Arrays
from xee_tf.remote.payloads.json_messages import join_rows
from xee_tf.remote.payloads.predict_messages import ModelSpec, encode_predict_request, predict_request_size

__all__ = ["EncodedBatch", "JsonRows", "Tensors", "how_many_fit"]


class EncodedBatch(Protocol):
    """A batch of which any run of instances makes a request."""

    def size(self, first: int, stop: int) -> int:
        """Bytes of the request for the instances `first` to `stop`."""

    def body(self, first: int, stop: int) -> bytes:
        """The request for the instances `first` to `stop`."""


def how_many_fit(batch: EncodedBatch, first: int, count: int, limit: int) -> int:
    """How many of the instances from `first` to `count` fit into a request of at most `limit` bytes.

    Examples
    --------
    >>> rows = JsonRows([b"100", b"200", b"3"])
    >>> how_many_fit(rows, 0, 3, 23), len(rows.body(0, 2))
    (2, 23)
    """
    numbers = range(1, count - first + 1)
    return bisect_right(numbers, limit, key=lambda number: batch.size(first, first + number))


@dataclass(frozen=True)
class JsonRows:
    """JSON texts of instances.

    Parameters
    ----------
    rows : sequence of bytes
        One for each instance.
    signature_name : str
        Empty: none is named.
    """

    rows: Sequence[bytes]
    signature_name: str = ""

    @cached_property
    def _edges(self) -> list[int]:
        return [0, *accumulate(len(row) + 1 for row in self.rows)]

    def size(self, first: int, stop: int) -> int:
        """See `EncodedBatch`."""
        envelope = len(join_rows([], self.signature_name))
        return envelope + self._edges[stop] - self._edges[first] - 1  # a comma less than rows

    def body(self, first: int, stop: int) -> bytes:
        """See `EncodedBatch`."""
        return join_rows(self.rows[first:stop], self.signature_name)


@dataclass(frozen=True)
class Tensors:
    """Arrays that a PredictRequest carries; they are encoded with the request.

    Parameters
    ----------
    arrays : mapping from str to ndarray, shape (n, ...)
    model_spec : ModelSpec
    typed : bool
        See `xee_tf.records.encode_tensor`.
    """

    arrays: Arrays
    model_spec: ModelSpec
    typed: bool = False

    @cached_property
    def _edges(self) -> Mapping[str, npt.NDArray[np.int64]]:
        """Where the values of each instance begin among those of all."""
        return {
            name: np.concatenate([[0], np.cumsum(value_sizes(array, typed=self.typed))])
            for name, array in self.arrays.items()
        }

    def size(self, first: int, stop: int) -> int:
        """See `EncodedBatch`."""
        sizes = {}
        for name, array in self.arrays.items():
            payload = int(self._edges[name][stop] - self._edges[name][first])
            shape = (stop - first, *array.shape[1:])
            sizes[name] = tensor_size(array.dtype, shape, payload, typed=self.typed)
        return predict_request_size(sizes, self.model_spec)

    def body(self, first: int, stop: int) -> bytes:
        """See `EncodedBatch`."""
        arrays = {name: array[first:stop] for name, array in self.arrays.items()}
        return encode_predict_request(arrays, self.model_spec, typed=self.typed)
