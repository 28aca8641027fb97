"""Sessions of onnxruntime: their options, and conversion of arrays to the order of a model's axes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Signature, TensorInfo
from xee_tf.display import quoted
from xee_tf.errors import ModelError, OptionError, PredictionError, shorten
from xee_tf.extras import extra
from xee_tf.models.axis_orders import check_order, choose_order, from_last, read_channels, to_last
from xee_tf.models.kinds import ModelKind, model_kind
from xee_tf.options import did_you_mean, integer

__all__ = ["OnnxConnection", "OnnxRuntime", "open_onnx"]

_CPU = "CPUExecutionProvider"
_DTYPES = {
    "bool": np.dtype("bool"),
    "string": np.dtype(object),
    "float16": np.dtype("float16"),
    "float": np.dtype("float32"),
    "double": np.dtype("float64"),
} | {f"{kind}{bits}": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
# Files of other kinds of models, and what to do with them.
_OTHERS: dict[ModelKind, str] = {
    "pytorch": "a PyTorch file: load the model and export it with torch.onnx.export",
    "pickle": "a pickled model: load it and convert it with skl2onnx.to_onnx",
    "keras": "a Keras file: use Model.from_keras",
    "mlm": "a JSON file: if it is a STAC item that describes a model, use Model.from_mlm",
}

_DAMAGED = ("protobuf parsing failed", "no graph was found", "does not have a graph")  # in messages

Provider = tuple[str, tuple[tuple[str, Any], ...]]
"""The name of an execution provider and its options."""


@dataclass(frozen=True)
class OnnxRuntime:
    """How a model is run.

    Parameters
    ----------
    order : str, optional
        The order of the axes of the model's tensors; see `xee_tf.models.axis_orders`. Default: found by their
        shapes.
    threads : int, default 1
        Number of threads that compute one batch.
    providers : tuple of Provider
        The execution providers in order of preference.
    pixels : bool, default False
        The model takes single pixels, whose axes have other orders.
    """

    order: str | None = None
    threads: int = 1
    providers: tuple[Provider, ...] = ((_CPU, ()),)
    pixels: bool = False

    @classmethod
    def of(
        cls,
        channels: str | None = None,
        threads: int = 1,
        providers: str | Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        pixels: bool = False,
    ) -> OnnxRuntime:
        """Parse the options of users.

        Raises
        ------
        OptionError
            If an option is not valid.
        """
        order = read_channels(channels, pixels=pixels)
        return cls(order, integer(1)(threads, "threads"), _read_providers(providers), pixels)

    @property
    def axes(self) -> tuple[str | None, bool]:
        """What determines the order of axes, apart from the model."""
        return self.order, self.pixels

    def for_signature(self) -> OnnxRuntime:
        """Return how the signature is read, also on a computer without the devices of the workers."""
        if all(provider == _CPU for provider, _ in self.providers):
            return self
        return replace(self, threads=1, providers=((_CPU, ()),))


class OnnxConnection:
    """A session of onnxruntime, which several threads may use at once.

    The arrays that it takes and returns have their channels last, whatever the order of the model.

    By default, a batch is computed by the thread that calls `predict`. Dask's threads call it for several
    blocks at once; with more threads, all of them compete for the same cores. Two threads for each batch took
    12 to 32 % more CPU time, and 32 to 57 % if idle threads wait in a loop, as is onnxruntime's default. They
    were not faster, with one or two threads of Dask (measured with convolutions on two busy cores).
    """

    def __init__(self, session: Any, name: str, runtime: OnnxRuntime) -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        known = {tensor.name: _info(tensor, name) for tensor in (*inputs, *outputs)}
        self._session, self._name = session, name
        shapes = {each.name: known[each.name].shape or () for each in inputs}
        if (order := runtime.order) is None:
            order = choose_order(shapes, name, pixels=runtime.pixels)
        else:
            check_order(order, shapes, name)
        self.order = order
        self.signature = Signature(
            {each.name: _channels_last(known[each.name], order) for each in inputs},
            {each.name: _channels_last(known[each.name], order) for each in outputs},
        )

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Run the model; see `xee_tf.connector.Connection.predict`."""
        self.signature.check_inputs(batch, self._name)
        order = self.order
        sent = {
            name: _transposed(_texts(values), from_last(order, values.ndim)) for name, values in batch.items()
        }
        try:
            returned = self._session.run(None, sent)
        except Exception as error:  # the exceptions of onnxruntime have no common class
            raise PredictionError(_message(error)) from None
        return {
            name: _transposed(values, to_last(order, values.ndim))
            for name, values in zip(self.signature.outputs or (), returned, strict=True)
        }

    def close(self) -> None:
        """Do nothing: onnxruntime frees a model with the last reference to it."""


def open_onnx(model: str | bytes, name: str, runtime: OnnxRuntime) -> OnnxConnection:
    """Load a model from a local file or its bytes; `name` is its name in errors.

    Raises
    ------
    ModelError
        If it cannot be loaded, or not used.
    """
    with extra("onnx", "An ONNX model"):
        import onnxruntime

    wanted = [provider for provider, _ in runtime.providers]
    available = onnxruntime.get_available_providers()
    if missing := [provider for provider in wanted if provider not in available]:
        raise ModelError(
            f"{name} is to be run by {quoted(missing)}, which the installed onnxruntime does not have; "
            f"available: {quoted(available)}. Correct providers=, or install a package such as "
            "onnxruntime-gpu instead of onnxruntime."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    # Idle threads would otherwise wait for work in a loop, which takes the cores of others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=[(provider, dict(given)) for provider, given in runtime.providers]
        )
    except Exception as error:  # the exceptions of onnxruntime have no common class
        raise ModelError(_explain(model, name, error)) from None
    if unused := [provider for provider in wanted if provider not in session.get_providers()]:
        raise ModelError(
            f"{name} is to be run by {quoted(unused)}, which could not be started: check its drivers and "
            "libraries, or omit providers=."
        )
    return OnnxConnection(session, name, runtime)


def _explain(model: str | bytes, name: str, error: Exception) -> str:
    """Return why a model cannot be loaded."""
    kind = model_kind(model) if isinstance(model, str) else None
    if kind in _OTHERS:
        return f"{name} is not an ONNX file, but {_OTHERS[kind]}."
    if any(text in str(error).lower() for text in _DAMAGED):
        return f"{name} is damaged, or is not an ONNX file: export or copy it again."
    return f"onnxruntime cannot load {name}: {_message(error)}"


def _message(error: Exception) -> str:
    """Return the message of an error of onnxruntime in one line, without its code."""
    text = re.sub(r"^\s*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    return shorten(" ".join(text.split()), 600)


def _info(tensor: Any, model: str) -> TensorInfo:
    """Return the dtype and shape of an input or output, in the order of the model."""
    kind = re.fullmatch(r"tensor\((\w+)\)", tensor.type)
    if kind is None:
        zipmap = ""
        if "map(" in tensor.type:
            zipmap = (
                ": a mapping of classes to probabilities for each row. Convert the model so that it returns "
                "an array: skl2onnx.to_onnx(..., options={'zipmap': False})"
            )
        raise ModelError(
            f"{model} has {tensor.name!r} of type {tensor.type}{zipmap}. Only tensors can be used."
        )
    if kind[1] not in _DTYPES:
        raise ModelError(
            f"{model} has {tensor.name!r} of type {kind[1]}, which numpy does not have: export the model "
            "with inputs and outputs of float32."
        )
    # Names of axes are of any length. An output without a shape looks like a scalar.
    shape = tuple(side if isinstance(side, int) and side > 0 else None for side in tensor.shape)
    return TensorInfo(_DTYPES[kind[1]], shape or None)


def _channels_last(info: TensorInfo, order: str) -> TensorInfo:
    """Return the dtype and shape of a tensor as it is passed to `predict`."""
    shape = info.shape or ()
    axes = to_last(order, len(shape))
    return info if axes is None else replace(info, shape=tuple(shape[axis] for axis in axes))


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Decode strings, because onnxruntime would send the repr of bytes."""
    if values.dtype != object:
        return values
    texts = [value.decode() if isinstance(value, bytes) else value for value in values.flat]
    return np.array(texts, object).reshape(values.shape)


def _transposed(values: npt.NDArray[Any], axes: tuple[int, ...] | None) -> npt.NDArray[Any]:
    return values if axes is None else values.transpose(axes)


def _read_providers(value: Any) -> tuple[Provider, ...]:
    """Parse execution providers: names, or pairs of a name and its options."""
    if value is None:
        return OnnxRuntime.providers
    given = [value] if isinstance(value, str) else value
    found = []
    for each in given if isinstance(given, Sequence) else ():
        name, options = each if isinstance(each, tuple) and len(each) == 2 else (each, {})
        if not isinstance(name, str) or not isinstance(options, Mapping):
            break
        found.append((name, tuple(sorted((str(key), str(item)) for key, item in options.items()))))
    if not found or len(found) != len(given):
        raise OptionError(
            "providers must be names of execution providers of onnxruntime, each optionally with its "
            "options, such as ['CUDAExecutionProvider'] or [('CUDAExecutionProvider', {'device_id': 0})]; "
            f"got {shorten(repr(value))}."
        )
    _check_known([name for name, _ in found])
    return tuple(found)


def _check_known(names: Sequence[str]) -> None:
    """Raise an error for execution providers that no build of onnxruntime has; workers may have others."""
    if find_spec("onnxruntime") is None:  # it is needed later, and its absence an error then
        return
    with extra("onnx", "An ONNX model"):
        import onnxruntime

    available = onnxruntime.get_available_providers()
    known = [*available, *onnxruntime.get_all_providers()]
    for name in names:
        if name not in known:
            raise OptionError(
                f"providers contains {name!r}, which onnxruntime does not have.{did_you_mean(name, known)} "
                f"This computer has {quoted(available)}."
            )
