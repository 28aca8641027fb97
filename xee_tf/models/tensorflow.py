"""A TensorFlow function as a connection: called on whole batches, by any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Signature, TensorInfo
from xee_tf.errors import ModelError, PredictionError, shorten

__all__ = ["TensorFlowConnection", "tensor_info"]


def tensor_info(dtype: Any, shape: Any) -> TensorInfo:
    """What TensorFlow says of a tensor: its ``DType`` and ``TensorShape``."""
    numpy_dtype = np.dtype(dtype.as_numpy_dtype)
    return TensorInfo(numpy_dtype, None if shape.rank is None else tuple(shape.as_list()))


class TensorFlowConnection:
    """Calls a concrete function with tensors by name; TensorFlow lets several threads do so.

    TensorFlow's own threads are left as they are: two workers of two threads each are then no slower on two
    cores than one of one. Giving TensorFlow only as many as Dask gave a worker made a worker of one thread
    take 1.7 times as long, and gained nothing elsewhere (measured with convolutions).

    Parameters
    ----------
    function : callable
        Takes tensors by keyword and returns them by name.
    signature : Signature
    name : str
        The model, for errors.
    keep : object
        What the function needs and does not hold itself: the variables of a loaded model.
    """

    def __init__(
        self, function: Callable[..., Mapping[str, Any]], signature: Signature, name: str, keep: Any
    ) -> None:
        self._function, self.signature, self._name, self._keep = function, signature, name, keep

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See `xee_tf.connector.Connection`."""
        import tensorflow as tf

        wanted = set(self.signature.inputs or ())
        if set(batch) != wanted:
            raise ModelError(f"{self._name} has the inputs {sorted(wanted)}; it was sent {sorted(batch)}.")
        try:
            answer = self._function(**{name: tf.constant(values) for name, values in batch.items()})
            return {name: _array(tensor) for name, tensor in answer.items()}
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise PredictionError(_short(getattr(error, "message", None) or str(error))) from None

    def close(self) -> None:
        """TensorFlow frees a model with the last reference to it."""


def _array(tensor: Any) -> npt.NDArray[Any]:
    """A tensor's values; numbers that numpy has itself are not copied, and read-only."""
    plain = np.dtype(tensor.dtype.as_numpy_dtype).kind in "biuf"
    return np.asarray(memoryview(tensor)) if plain else tensor.numpy()


def _short(message: str) -> str:
    """The words of an error without the graph that TensorFlow prints after them."""
    lines = [line for line in message.splitlines() if line.strip()]
    return shorten(" ".join(lines[:6]), 600)
