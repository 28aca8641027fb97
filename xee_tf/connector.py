"""The interface between predictions and models, which map named arrays to named arrays.

A `Connector` describes where a model is; it is small and picklable, and part of task graphs. A `Connection`
is the loaded model, or the client of a remote model; it stays in its process. `connected` opens one
connection for each connector and process.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xee_tf.display import quoted
from xee_tf.errors import ModelError, PredictionError
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
    "loaded_signature",
    "opened",
]

DEFAULT_SIGNATURE = "serving_default"
"""Name of TensorFlow's default signature."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""Named arrays of one batch; the first axis of each array is the instance."""

Items = Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]]
"""Dtype and shape of each named array of a single instance."""


@dataclass(frozen=True)
class TensorInfo:
    """Dtype and shape of an input or output of a model.

    Parameters
    ----------
    dtype : numpy.dtype, optional
        Dtype of the array; object for strings. Default: unknown.
    shape : tuple of int or None, optional
        Shape of the array, with the batch axis first; None for an axis of any length. Default: any shape.
    """

    dtype: np.dtype[Any] | None = None
    shape: tuple[int | None, ...] | None = None

    def __str__(self) -> str:
        dtype = "any dtype" if self.dtype is None else "string" if self.dtype == object else str(self.dtype)
        return dtype if self.shape is None else f"{dtype} {self.shape_text}"

    @property
    def shape_text(self) -> str:
        """The shape as text, with ``?`` for an axis of any length."""
        sides = ["?" if side is None else str(side) for side in self.shape or ()]
        return f"({', '.join(sides)}{',' if len(sides) == 1 else ''})"

    def allows(self, shape: Sequence[int]) -> bool:
        """Return whether an array may have this shape."""
        return self.shape is None or (
            len(shape) == len(self.shape)
            and all(known in (None, side) for known, side in zip(self.shape, shape, strict=True))
        )


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, as far as they are known.

    Parameters
    ----------
    inputs, outputs : mapping of str to TensorInfo, optional
        Inputs and outputs by name. Default: unknown.
    """

    inputs: Mapping[str, TensorInfo] | None = None
    outputs: Mapping[str, TensorInfo] | None = None

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the model requires; None if it accepts any."""
        sizes = [info.shape[0] for info in (self.inputs or {}).values() if info.shape]
        return next((size for size in sizes if size is not None), None)

    def check_inputs(self, batch: Arrays, model: str) -> None:
        """Raise an error if the inputs do not have the names and shapes of the signature, as far as known.

        TensorFlow aborts the process for some arrays with another number of axes, and some without elements.

        Raises
        ------
        ModelError
            If inputs are missing or unknown.
        PredictionError
            If an input has another shape, or an axis of an instance has no elements.

        Examples
        --------
        >>> signature = Signature({"x": TensorInfo(np.dtype("f4"), (None, None, 3))})
        >>> signature.check_inputs({"x": np.zeros((8, 3), "f4")}, "The model")
        Traceback (most recent call last):
        xee_tf.errors.PredictionError: The model has the input 'x' of shape (?, ?, 3); got the shape (8, 3).
        """
        if self.inputs is None:
            return
        if set(batch) != set(self.inputs):
            raise ModelError(
                f"{model} has the inputs {quoted(sorted(self.inputs))}; got {quoted(sorted(batch))}."
            )
        for name, info in self.inputs.items():
            shape = batch[name].shape
            if not info.allows(shape):
                raise PredictionError(
                    f"{model} has the input {name!r} of shape {info.shape_text}; got the shape {shape}."
                )
            if 0 in shape[1:]:
                raise PredictionError(f"The input {name!r} has the shape {shape}: an axis has no elements.")


def join_batches(parts: Sequence[Arrays]) -> dict[str, npt.NDArray[Any]]:
    """Concatenate batches along the instance axis, with the names of the first batch.

    A single batch is not copied.

    Raises
    ------
    ValueError
        If the instances of the batches have different shapes.

    Examples
    --------
    >>> join_batches([{"p": np.zeros((2, 3))}, {"p": np.ones((1, 3))}])["p"].shape
    (3, 3)
    """
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Connection(Protocol):
    """A model that is loaded in this process. All methods may be called by several threads at once."""

    @property
    def signature(self) -> Signature:
        """The signature of the model."""

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Run the model.

        Parameters
        ----------
        batch : mapping of str to ndarray
            An array of shape ``(n, ...)`` for each input of the model, in the dtype of the input.

        Returns
        -------
        dict of str to ndarray
            An array of shape ``(n, ...)`` for each output; the arrays may be read-only.

        Raises
        ------
        ModelError
            If inputs are missing or unknown; the message names them.
        PredictionError
            If the model fails on the batch; the message contains the model's own. The connection remains
            usable.
        """

    def close(self) -> None:
        """Release the resources of the connection."""


class Connector(Protocol):
    """Location of a model: immutable, hashable and picklable, without open resources.

    It is part of task graphs, so it should not hold credentials.

    Subclasses define `open` and inherit the defaults of the other methods.

    Examples
    --------
    A model that multiplies the column ``x``, with a connection that has no resources to release:

    >>> from dataclasses import dataclass
    >>> import pandas as pd, xee_tf
    >>> from xee_tf.typing import Signature, TensorInfo
    >>> class Product:
    ...     signature = Signature(inputs={"x": TensorInfo()}, outputs={"product": TensorInfo()})
    ...
    ...     def __init__(self, factor):
    ...         self.factor = factor
    ...
    ...     def predict(self, batch):
    ...         return {"product": self.factor * batch["x"]}
    ...
    ...     def close(self):
    ...         pass
    >>> @dataclass(frozen=True)
    ... class ProductConnector(xee_tf.Connector):
    ...     factor: float
    ...
    ...     def open(self):
    ...         return Product(self.factor)
    >>> model = xee_tf.Model.from_connector(ProductConnector(2), output_properties={"product": "float64"})
    >>> model.predict_properties(pd.DataFrame({"x": [1.5, 2.0]}))
         x  product
    0  1.5      3.0
    1  2.0      4.0
    """

    def open(self) -> Connection:
        """Load the model, or create the client.

        Returns
        -------
        Connection
            The open connection, which the process uses for all batches.

        Raises
        ------
        ModelError, MissingModelError
            If the model cannot be opened or is not found.
        """

    def signature(self) -> Signature:
        """Return the signature of the model.

        Returns
        -------
        Signature
            The inputs and outputs. Default: those of the open connection.
        """
        return connected(self).signature

    def known_signature(self) -> Signature | None:
        """Return the signature if it is known without loading the model or contacting a server.

        The repr of a model shows it.

        Returns
        -------
        Signature or None
            Default: None, unknown.
        """
        return None

    def version(self) -> Hashable:
        """Return a value that changes when the model is replaced.

        Returns
        -------
        hashable
            For example the time of the last change. Default: None, for a model that is never replaced.
        """
        return None

    def pinned(self) -> Connector:
        """Return a connector of the version of the model that exists now.

        A prediction uses this connector, so that all processes use the same version of the model.

        Returns
        -------
        Connector
            A connector whose `open` raises an error if there is another version. Default: the connector
            itself, for a model that is never replaced, or whose latest version is used.
        """
        return self

    def unpinned(self) -> Connector:
        """Return a connector of whatever version of the model is there, for a pinned one.

        A process keeps one version of the model loaded for all connectors with the same one.

        Returns
        -------
        Connector
            Default: the connector itself.
        """
        return self

    def content(self) -> str | None:
        """Return a hash of the model that is the same in every process.

        Interrupted predictions are resumed only if the model has the same hash.

        Returns
        -------
        str or None
            None if the hash cannot be determined. Default: a hash of the connector's fields and its
            `version`.
        """
        return content_hash((self, self.version()))

    def size_problem(self, items: Items, count: int = 1) -> str:
        """Return why `count` instances cannot be sent in one batch, whatever their values.

        Parameters
        ----------
        items : mapping of str to tuple
            Dtype and shape of each input of the model, for one instance.
        count : int, default 1
            Number of instances.

        Returns
        -------
        str
            Part of an error message, with the sizes. Empty (the default) if the instances can be sent.
        """
        return ""

    def __hash__(self) -> int:
        return object.__hash__(self)


_lock = Lock()
_locks: dict[Connector, Lock] = {}
_connections: dict[Connector, tuple[Hashable, Connection]] = {}


def connected(connector: Connector) -> Connection:
    """Return the connection of this process, which is opened by the first call and reopened when the model is
    replaced. Of the versions of a model, only the one that was opened last is kept.

    Raises
    ------
    ModelError, MissingModelError
        If the model cannot be opened; the next call tries again.

    Examples
    --------
    >>> from xee_tf.models import FunctionConnector
    >>> double = FunctionConnector.of(lambda pixels: 2 * pixels)
    >>> connected(double) is connected(double)
    True
    """
    version, key = connector.version(), connector.unpinned()
    found = _connections.get(key)
    if found is not None and found[0] == version:
        return found[1]
    with _lock:
        lock = _locks.setdefault(key, Lock())
    # Only threads that need the same model wait while it is opened.
    with lock:
        found = _connections.get(key)
        if found is None or found[0] != version:
            # The previous connection is not closed, because other threads may still use it.
            found = (version, connector.open())
            _connections[key] = found
        return found[1]


def opened(connector: Connector) -> Connection | None:
    """Return the connection of this process, if there is one; see `connected`."""
    found = _connections.get(connector.unpinned())
    return None if found is None else found[1]


def loaded_signature(connector: Connector) -> Signature | None:
    """Return the signature of a model that is loaded in this process, or None; not for models on servers."""
    connection = opened(connector)
    return None if connection is None else connection.signature


def _clear() -> None:
    """Discard all connections in a forked process, where neither sockets nor TensorFlow work."""
    global _lock
    _lock = Lock()
    _locks.clear()
    _connections.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_clear)
