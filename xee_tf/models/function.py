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
from xee_tf.display import quoted
from xee_tf.errors import ModelError, PredictionError, shorten
from xee_tf.identity import content_hash
from xee_tf.options import check_flags

__all__ = ["ONE_OUTPUT", "FunctionConnector"]

_INPUT = "pixels"
ONE_OUTPUT = "output"


@dataclass(frozen=True)
class FunctionConnector(Connector):
    """A function, pickled by value. Two connectors are equal if their pickles are equal.

    Parameters
    ----------
    pickle : bytes
        The function, pickled by cloudpickle, which also supports lambdas and functions of a notebook.
    name : str
        The name of the function in reprs and errors.
    named : bool, default False
        The function takes a mapping of names to arrays instead of one array.

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
            If `function` is not callable or cannot be pickled.
        """
        check_flags(named=named)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        if not callable(function):
            raise ModelError(f"function must be callable; got {shorten(repr(function))}.{_advice(function)}")
        try:
            pickled = cloudpickle.dumps(function)
        except Exception as error:
            raise ModelError(
                f"The function {name} cannot be pickled ({type(error).__name__}: {error}), which is required "
                "to send it to the processes that predict. Create objects that cannot be pickled (locks, "
                "open files, interpreters) lazily, on the first call, and exclude them in __getstate__."
            ) from error
        return cls(pickled, name, named)

    def __str__(self) -> str:
        return f"function {self.name}"

    def open(self) -> _FunctionConnection:
        """Unpickle the function: this process gets its own copy."""
        return _FunctionConnection(self._load(), self.name, self.signature())

    def content(self) -> str | None:
        """Return a hash of the function's code and data, which is the same in every run of a script."""
        try:
            function = self._load()
        except Exception:  # raised by a user's __setstate__; opening the model reports it
            return None
        return content_hash((function, self.named))

    def signature(self) -> Signature:
        """Return a single input of unknown dtype and shape, or with `named` an unknown signature."""
        return Signature() if self.named else Signature({_INPUT: TensorInfo()})

    def _load(self) -> Callable[..., Any]:
        function: Callable[..., Any] = _CopyingUnpickler(io.BytesIO(self.pickle)).load()
        return function


class _CopyingUnpickler(pickle.Unpickler):
    """Unpickle classes of scripts and notebooks as separate copies.

    In the process that pickled a class, cloudpickle itself finds that class again and overwrites its
    attributes: the user's own class would then use the globals of the pickle, and a second model of the same
    class would replace the code of the first.
    """

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module.startswith("cloudpickle") and name in _SKELETONS:
            return partial(_new_class, found)
        return found


_SKELETONS = ("_make_skeleton_class", "_make_skeleton_enum")


def _new_class(make_skeleton: Callable[..., type], *arguments: Any) -> type:
    """Create a class without the ID by which cloudpickle finds an existing one."""
    *rest, _class_id, extra = arguments
    return make_skeleton(*rest, None, extra)


class _FunctionConnection:
    def __init__(self, function: Callable[..., Any], name: str, signature: Signature) -> None:
        self._function, self._name, self.signature = function, name, signature

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        if self.signature.inputs is not None and set(batch) != set(self.signature.inputs):
            raise ModelError(
                f"The function {self._name} takes one array, {_INPUT!r}; got {quoted(sorted(batch))}. Use "
                "named=True for a function that takes a mapping of names to arrays."
            )
        argument = batch[_INPUT] if self.signature.inputs is not None else dict(batch)
        try:
            returned = self._function(argument)
        except Exception as error:
            hint = " For estimators of scikit-learn, pass unit='pixel'." if _takes_rows(error) else ""
            raise PredictionError(
                f"The function {self._name} raised {type(error).__name__}: {error}{hint}"
            ) from error
        if isinstance(returned, Mapping):
            return {
                str(name): self._array(values, f" for the output {name!r}")
                for name, values in returned.items()
            }
        return {ONE_OUTPUT: self._array(returned)}

    def _array(self, values: Any, output: str = "") -> npt.NDArray[Any]:
        problem = ""
        if not isinstance(values, tuple):  # of several outputs; numpy would stack them
            try:
                array = np.asarray(values)
            except Exception as error:  # of any array library
                problem = f" ({type(error).__name__}: {error})"
            else:
                if isinstance(values, np.ma.MaskedArray):
                    problem = ", whose mask would be lost: return values.filled(nodata), for example with NaN"
                elif array.ndim and array.dtype.kind not in "mMV":
                    return array
                elif array.ndim:
                    problem = f" of dtype {array.dtype}, which is not a number"
        raise PredictionError(
            f"The function {self._name} returned {_describe(values)}{output}{problem}; expected an array "
            "with one element per tile, pixel or row: of shape (n, y, x) or (n, y, x, channel) for tiles, "
            "(n,) or (n, channel) for pixels and rows. Return such an array or, for several outputs, a "
            "mapping of output names to arrays, such as {'a': a, 'b': b}."
        )

    def close(self) -> None:
        """Do nothing: a connection contains only the function."""


def _advice(model: object) -> str:
    """Return which method to pass instead of a model of scikit-learn or the like."""
    for method in ("predict_proba", "predict"):
        if hasattr(model, method):
            return f" Pass its method, as in Model.from_function(model.{method}, unit='pixel')."
    return ""


def _takes_rows(error: Exception) -> bool:
    """Return whether scikit-learn raised an error because it got tiles."""
    return isinstance(error, ValueError) and str(error).startswith("Found array with dim")


def _describe(value: Any) -> str:
    """Describe what a function returned."""
    if value is None:
        return "None"
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(each).__name__ for each in value) or 'no elements'}"
    return f"{shorten(repr(value))} ({type(value).__name__})"
