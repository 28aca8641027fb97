"""The seam between predictions and models: named arrays in, named arrays out.

A `Connector` says where a model is; it is small and picklable and travels in task graphs. A
`Connection` is the loaded model, or the client of a remote one; it stays in its process, and
`connected` makes one for each connector and process.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xee_tf.errors import ModelError
from xee_tf.identity import content_hash

__all__ = [
    "DEFAULT_SIGNATURE",
    "Arrays",
    "Connection",
    "Connector",
    "Items",
    "Signature",
    "TensorInfo",
    "connected",
    "join_batches",
]

DEFAULT_SIGNATURE = "serving_default"
"""The name of the signature that TensorFlow calls by default."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""Named arrays of one batch; the first axis of each counts its instances."""

Items = Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]]
"""Dtype and shape of what one instance has under each name."""


@dataclass(frozen=True)
class TensorInfo:
    """What a model says of one of its inputs or outputs.

    Parameters
    ----------
    dtype : numpy.dtype or None
        Object for strings. None: it does not say.
    shape : tuple of (int or None), or None
        The batch axis in front; None for an axis of any length. None as a whole: any shape.
    """

    dtype: np.dtype[Any] | None = None
    shape: tuple[int | None, ...] | None = None

    def __str__(self) -> str:
        dtype = "any dtype" if self.dtype is None else "string" if self.dtype == object else str(self.dtype)
        if self.shape is None:
            return dtype
        return f"{dtype} ({', '.join('?' if side is None else str(side) for side in self.shape)})"


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, as far as it tells.

    Parameters
    ----------
    inputs, outputs : mapping from str to TensorInfo, or None
        None: the model does not tell.
    """

    inputs: Mapping[str, TensorInfo] | None = None
    outputs: Mapping[str, TensorInfo] | None = None

    @property
    def fixed_batch(self) -> int | None:
        """The only number of instances that the model takes; None: it takes any number."""
        sizes = [info.shape[0] for info in (self.inputs or {}).values() if info.shape]
        return next((size for size in sizes if size is not None), None)

    def check_inputs(self, batch: Arrays, model: str) -> None:
        """Raise `ModelError` if a batch lacks inputs or has others, as far as they are known."""
        if self.inputs is not None and set(batch) != set(self.inputs):
            raise ModelError(f"{model} has the inputs {sorted(self.inputs)}; it was sent {sorted(batch)}.")


def join_batches(parts: Sequence[Arrays]) -> dict[str, npt.NDArray[Any]]:
    """The instances of several batches behind each other, under the names of the first batch.

    A single batch is not copied.

    Raises
    ------
    ValueError
        If the instances of the batches differ in shape.

    Examples
    --------
    >>> join_batches([{"p": np.zeros((2, 3))}, {"p": np.ones((1, 3))}])["p"].shape
    (3, 3)
    """
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Connection(Protocol):
    """A model that is ready in this process. All methods may be called by several threads at once."""

    @property
    def signature(self) -> Signature:
        """What the model says of itself."""

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Run the model.

        Parameters
        ----------
        batch : mapping from str to ndarray
            An array ``(n, ...)`` for each input of the model, in the dtype that it wants.

        Returns
        -------
        dict from str to ndarray
            An array ``(n, ...)`` for each output; they may be read-only.

        Raises
        ------
        ModelError
            If inputs are missing or unknown; it names them.
        PredictionError
            If the model refuses the batch; it says in which words. The connection stays usable.
        """

    def close(self) -> None:
        """Let go of what the connection holds."""


class Connector(Protocol):
    """Where a model is: frozen, hashable, picklable, without credentials or anything alive in it.

    Implementations inherit from this class for its defaults.
    """

    def open(self) -> Connection:
        """Load the model, or make the client.

        Raises
        ------
        ModelError, MissingModelError
            If there is no such model.
        """

    def signature(self) -> Signature:
        """What the model says of itself, by the cheapest way. Default: of the open connection."""
        return connected(self).signature

    def version(self) -> Hashable:
        """Changes when the model behind an unchanged description was replaced. Default: never."""
        return None

    def content(self) -> str | None:
        """A hash of the model, the same in every process; None if it cannot be determined.

        Interrupted predictions are continued only with a model of the same content. Default: of the
        connector's fields and its `version`.
        """
        return content_hash((self, self.version()))

    def refusal(self, items: Items, count: int = 1) -> str:
        """Why so many instances can never be sent at a time, told without their values.

        Parameters
        ----------
        items : mapping
            Dtype and shape of what one instance has for each input of the model.
        count : int, optional

        Returns
        -------
        str
            A part of a sentence, with the figures. Empty, which is the default: they can be sent.
        """
        return ""

    def __hash__(self) -> int:
        return object.__hash__(self)


_lock = Lock()
_locks: dict[Connector, Lock] = {}
_connections: dict[Connector, tuple[Hashable, Connection]] = {}


def connected(connector: Connector) -> Connection:
    """The connection of this process: made on the first call, and again when the model was replaced.

    Raises
    ------
    ModelError, MissingModelError
        As the connector's ``open``; the next call tries again.

    Examples
    --------
    >>> from xee_tf.models import FunctionConnector
    >>> double = FunctionConnector.of(lambda pixels: 2 * pixels)
    >>> connected(double) is connected(double)
    True
    """
    version = connector.version()
    found = _connections.get(connector)
    if found is not None and found[0] == version:
        return found[1]
    with _lock:
        lock = _locks.setdefault(connector, Lock())
    # One thread opens, those that want the same model wait; other models are not held up.
    with lock:
        found = _connections.get(connector)
        if found is None or found[0] != version:
            # The replaced one is not closed: other threads may be using it. It goes with the last of them.
            found = (version, connector.open())
            _connections[connector] = found
        return found[1]


def _forget() -> None:
    """Start afresh in a forked process: neither sockets nor TensorFlow survive there."""
    global _lock
    _lock = Lock()
    _locks.clear()
    _connections.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
