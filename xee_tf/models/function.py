"""A Python function as a model."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Connector, Signature, TensorInfo
from xee_tf.errors import ModelError, PredictionError
from xee_tf.identity import content_hash
from xee_tf.options import check_flags

__all__ = ["ONE_INPUT", "ONE_OUTPUT", "FunctionConnector"]

ONE_INPUT = "pixels"
ONE_OUTPUT = "output"


@dataclass(frozen=True)
class FunctionConnector(Connector):
    """A function that travels by value; two are equal if their pickles are.

    Parameters
    ----------
    pickle : bytes
        By cloudpickle, so that lambdas and functions of a notebook travel too.
    name : str
        For displays and errors.
    named : bool
        The function takes ``{name: array}`` rather than one array.

    Examples
    --------
    >>> connection = FunctionConnector.of(lambda pixels: pixels.max(-1)).open()
    >>> connection.predict({"pixels": np.array([[3, 5], [7, 2]])})
    {'output': array([5, 7])}
    """

    pickle: bytes = field(repr=False)
    name: str
    named: bool = False

    @classmethod
    def of(cls, function: Callable[..., Any], *, named: bool = False) -> FunctionConnector:
        """Pickle a function.

        Raises
        ------
        ModelError
            If it cannot be called or pickled.
        """
        check_flags(named=named)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        if not callable(function):
            raise ModelError(f"A function is called with arrays and returns arrays; got {function!r}.")
        try:
            pickled = cloudpickle.dumps(function)
        except Exception as error:
            raise ModelError(
                f"The function {name} cannot be pickled ({type(error).__name__}: {error}), and it travels to "
                "the processes that predict. Make what cannot travel (locks, open files, interpreters) "
                "lazily, on the first call, and leave it out in __getstate__."
            ) from error
        return cls(pickled, name, named)

    def __str__(self) -> str:
        return f"function {self.name}"

    def open(self) -> _FunctionConnection:
        """Unpickle the function: its own copy for this process."""
        return _FunctionConnection(_Copying(io.BytesIO(self.pickle)).load(), self.name, self.signature())

    def content(self) -> str | None:
        """The function's code and data; equal for functions that are made by the same script."""
        try:
            function = _Copying(io.BytesIO(self.pickle)).load()
        except Exception:  # of other people's __setstate__; opening the model reports it
            return None
        return content_hash((function, self.named))

    def signature(self) -> Signature:
        """One input of any kind, or nothing that is known."""
        return Signature() if self.named else Signature({ONE_INPUT: TensorInfo()})


class _Copying(pickle.Unpickler):
    """Unpickles classes of scripts and notebooks as copies of their own.

    cloudpickle itself looks for the class that it pickled, in the process that made it, and writes its
    content there: the user's own class would be called with the globals of the pickle from then on, and of
    two models of one class the later would replace the code of the earlier.
    """

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module.startswith("cloudpickle") and name in _SKELETONS:
            return partial(_untracked, found)
        return found


_SKELETONS = ("_make_skeleton_class", "_make_skeleton_enum")


def _untracked(make: Callable[..., type], *arguments: Any) -> type:
    """A class without the number by which cloudpickle finds one that is there."""
    *rest, _number, extra = arguments
    return make(*rest, None, extra)


class _FunctionConnection:
    def __init__(self, function: Callable[..., Any], name: str, signature: Signature) -> None:
        self._function, self._name, self.signature = function, name, signature

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        if self.signature.inputs is not None and set(batch) != set(self.signature.inputs):
            raise ModelError(
                f"The function {self._name} takes one array, {ONE_INPUT!r}; it was sent {sorted(batch)}. A "
                "function that takes arrays by name is made with named=True."
            )
        given = batch[ONE_INPUT] if self.signature.inputs is not None else dict(batch)
        try:
            answer = self._function(given)
        except Exception as error:
            raise PredictionError(
                f"The function {self._name} raised {type(error).__name__}: {error}"
            ) from error
        if isinstance(answer, Mapping):
            return {str(name): np.asarray(values) for name, values in answer.items()}
        return {ONE_OUTPUT: np.asarray(answer)}

    def close(self) -> None:
        """Nothing is held but the function."""
