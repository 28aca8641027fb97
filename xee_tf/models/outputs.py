"""The outputs of a model: planned from declarations and the signature, extracted from results and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.classes import Classes
from xee_tf.connector import Arrays, Connector, TensorInfo
from xee_tf.display import quoted
from xee_tf.dtypes import coerce
from xee_tf.errors import OptionError, PredictionError
from xee_tf.models.feeds import Shape, fits
from xee_tf.models.function import ONE_OUTPUT, FunctionConnector
from xee_tf.models.types import STRING, PixelType, Range, type_name
from xee_tf.options import did_you_mean

__all__ = ["Output", "channels_hint", "plan_outputs"]

_STRINGS = (
    "Bands cannot be strings: let the classifier return probabilities (predict_proba), of which "
    "output_bands={'class': {'argmax': [...]}} makes a map with the names of the classes. In tables, declare "
    "output_properties={'name': 'string'}."
)
_DTYPE = np.dtype("float32")  # if neither the declaration nor the signature has one


@dataclass(frozen=True)
class Output:
    """An output band or property of a model.

    Parameters
    ----------
    name : str
        The name of the band or property.
    dtype : numpy.dtype
        The dtype; object for strings.
    shape : tuple of int
        The shape in each pixel or row; empty for a scalar.
    source : str or None
        The output of the model that contains it. None: the signature does not have the names of outputs.
    channel : int or None
        The index on the last axis of `source`, if that contains several outputs.
    channels : int
        The length of that axis.
    limits : (int, int) or None
        The declared range of an integer.
    classes : Classes or None
        The classes of which `shape` holds the probabilities. The result is a map of the most probable ones.
    confidence : str or None
        The name of a second output, the highest probability.
    declared : tuple of str
        The names of all outputs that are found by their own names, for errors.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape = ()
    source: str | None = None
    channel: int | None = None
    channels: int = 1
    limits: Range | None = None
    classes: Classes | None = None
    confidence: str | None = None
    # Not part of the repr, which identifies an interrupted run.
    declared: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions of the result that belong to `shape`."""
        return tuple(f"{self.name}_{axis}" for axis in range(len(self.shape)))

    def take(
        self, returned: Arrays, lead: Sequence[Shape], connector: Connector, *, keep_nan: bool = False
    ) -> npt.NDArray[Any]:
        """Extract this output from the arrays that a model returned, check it and convert its dtype.

        Parameters
        ----------
        returned : mapping of str to ndarray
            The outputs of the model.
        lead : sequence of tuple of int
            Allowed sizes of the axes before `shape`: ``(n, height, width)`` with and without overlap, or
            ``(n,)``.
        connector : Connector
            The model, for errors.
        keep_nan : bool, default False
            Allow NaN for an integer `dtype`; the result is then float64 with whole numbers.

        Returns
        -------
        ndarray
            An array ``(*lead, *shape)`` with the dtype `dtype`.

        Raises
        ------
        PredictionError
            If the output is missing, has another shape, or contains NaN and `dtype` is an integer.
        """
        name, values, channel = self._find(returned, connector)
        shape = (self.channels,) if channel is not None else self.shape
        count = math.prod(shape)
        for front in lead:
            ends = [shape, ()] if count == 1 else [shape]
            # A scalar may have a last axis of 1; a tile reduced to one pixel may lack height and width.
            fronts = [front, front[:1]] if len(front) == 3 and front[1:] == (1, 1) else [front]
            if any(values.shape in (f + e, f + e + (1,) * (not e)) for f in fronts for e in ends):
                values = values.reshape(front + shape)
                break
        else:
            allowed = " or ".join(str(front + shape) for front in lead)
            channels = "" if channel is None else f", a channel for each of {self.channels} declared outputs"
            raise PredictionError(
                f"{connector} returned {name!r} with shape {values.shape}; expected {allowed} for "
                f"{self.name!r}{channels}. {_cropped(values.shape, lead)}Fix {_options(lead)}, or the model."
            )
        if channel is not None:
            values = values[..., channel]
        return self._typed(values, connector, keep_nan)

    def _find(self, returned: Arrays, connector: Connector) -> tuple[str, npt.NDArray[Any], int | None]:
        for name in (self.source, self.name):
            if name is not None and name in returned:
                # Declared outputs may be channels of one output, but one with the same name takes precedence.
                single = self.source is None and name == self.name
                return name, returned[name], None if single else self.channel
        # A server may name a single output as it likes; a function that returns a mapping has to match.
        named = isinstance(connector, FunctionConnector) and ONE_OUTPUT not in returned
        if self.source is None and len(returned) == 1 and not named:
            ((name, values),) = returned.items()
            return name, values, self.channel
        names = (self.source,) if self.source is not None else self.declared or (self.name,)
        hints = "".join(did_you_mean(name, returned) for name in names if name not in returned)
        expected = ", ".join(map(repr, names))
        raise PredictionError(
            f"{connector} returned the outputs {quoted(sorted(returned))}; expected {expected}.{hints} Fix "
            "the names in output_bands or output_properties, or those that the model returns."
        )

    def _typed(self, values: npt.NDArray[Any], connector: Connector, keep_nan: bool) -> npt.NDArray[Any]:
        if values.dtype.kind == "c":
            raise PredictionError(
                f"{connector} returned {values.dtype} for {self.name!r}; expected booleans, integers, floats "
                "or strings. Return the real and imaginary parts as two outputs, or the magnitude."
            )
        texts = self.dtype == STRING
        if texts != (values.dtype.kind in "OSU"):
            raise PredictionError(
                f"{connector} returned {values.dtype} for {self.name!r}, which is declared as "
                f"{type_name(self.dtype)}. "
                + ("Fix output_bands or output_properties, or the model." if texts else _STRINGS)
            )
        if self.dtype == STRING:
            return values.astype(STRING, copy=False)
        if self.dtype.kind in "iub" and values.dtype.kind == "f" and (nan := np.isnan(values)).any():
            if not keep_nan:
                raise self.nan_error(connector)
            # Integers converted from floats are exact in float64, and so are the limits of the dtype.
            return np.where(nan, np.nan, coerce(np.where(nan, 0, values), self.dtype).astype(np.float64))
        return coerce(values, self.dtype)

    def nan_error(self, connector: Connector, where: str = "") -> PredictionError:
        """Build the error for NaN in an output with an integer type."""
        return PredictionError(
            f"{connector} returned NaN for {self.name!r}, which is declared as {self.dtype}{where}. Integers "
            "cannot be NaN: declare a float type, or fix the model."
        )


def _cropped(shape: Shape, lead: Sequence[Shape]) -> str:
    """Return a sentence for a model that gets more pixels than it returns, as without padding; or nothing.

    Examples
    --------
    >>> _cropped((4, 112, 112, 5), [(4, 128, 128)])
    'If it needs 8 pixels around a tile, as a network without padding does, pass input_overlap_size=8. '
    >>> _cropped((4, 64, 64, 5), [(4, 128, 128)])  # half of the resolution
    ''
    """
    sent = max(lead)
    if len(sent) != 3 or len(shape) < 3:
        return ""
    (y, odd_y), (x, odd_x) = (divmod(a - b, 2) for a, b in zip(sent[1:], shape[1:3], strict=True))
    if y <= 0 or x <= 0 or odd_y or odd_x or not all(shape[1:3]) or 2 * y >= shape[1] or 2 * x >= shape[2]:
        return ""
    size = y if x == y else (x, y)
    around = f"{y}" if x == y else f"{x} x {y}"
    return (
        f"If it needs {around} pixels around a tile, as a network without padding does, pass "
        f"input_overlap_size={size}. "
    )


def _options(lead: Sequence[Shape]) -> str:
    """Return the options that declare the shape of an output with the axes `lead` before it."""
    tiled = any(len(front) > 1 for front in lead)
    return "output_bands or output_tile_size" if tiled else "output_bands or output_properties"


def plan_outputs(
    declared: Mapping[str, PixelType] | None,
    known: Mapping[str, TensorInfo] | None,
    option: str,
    connector: Connector,
    *,
    lead: int,
) -> tuple[Output, ...]:
    """Determine the outputs of a model from their declaration and the model's signature.

    Parameters
    ----------
    declared : mapping of str to PixelType, or None
        The declared outputs. None: all outputs in the signature.
    known : mapping of str to TensorInfo, or None
        The outputs in the signature, if it has them.
    option : str
        ``output_bands`` or ``output_properties``, for errors.
    connector : Connector
        The model, for errors.
    lead : int
        Number of axes before the value: 3 for tiles, 1 for rows.

    Returns
    -------
    tuple of Output
        The outputs, in the order of the declaration.

    Raises
    ------
    OptionError
        If the declaration contradicts the signature, or neither determines the outputs.
    """
    if declared is None:
        if known is None:
            raise OptionError(
                f"The outputs of {connector} are unknown. Declare them, for example "
                f"{option}={{'name': {{'type': 'float32', 'dimensions': 0}}}}."
            )
        declared = dict.fromkeys(known, PixelType())
    if known is None:
        if len(declared) > 1 and not any(kind.dimensions for kind in declared.values()):
            return _channels(declared, None, None)
        found: dict[str, tuple[str | None, TensorInfo]] = {name: (None, TensorInfo()) for name in declared}
    elif len(known := _only_vector(declared, known, lead)) == 1:
        ((only, info),) = known.items()
        if len(declared) > 1:
            _require_channels(declared, only, info, option, connector, lead)
            return _channels(declared, only, info.dtype)
        found = dict.fromkeys(declared, (only, info))
    else:
        if unknown := [name for name in declared if name not in known]:
            available = "; ".join(f"{name}: {info}" for name, info in known.items())
            raise OptionError(
                f"{option} contains {quoted(unknown)}, not found in the outputs of {connector}. Available: "
                f"{available}.{_similar_or_channels(unknown, known, option, lead)}"
            )
        found = {name: (name, known[name]) for name in declared}
    return tuple(
        Output(
            name,
            _type(kind, found[name][1].dtype),
            _shape(name, kind, *found[name], option, connector, lead),
            found[name][0],
            limits=kind.limits,
            classes=kind.classes,
            confidence=kind.confidence,
            declared=tuple(declared),
        )
        for name, kind in declared.items()
    )


def _only_vector(
    declared: Mapping[str, PixelType], known: Mapping[str, TensorInfo], lead: int
) -> Mapping[str, TensorInfo]:
    """Return the only output with channels, if the declaration names no output, but as many channels.

    Classifiers converted from scikit-learn return labels and probabilities.
    """
    vectors = _vectors(known, lead)
    named = [name for name in declared if name in known or did_you_mean(name, known)]
    if len(known) == 1 or len(vectors) != 1 or named:
        return known
    ((vector, channels),) = vectors.items()
    kinds = list(declared.values())
    if len(kinds) == 1:
        wanted = kinds[0].shape if kinds[0].classes is not None else None
    else:
        wanted = None if any(kind.dimensions for kind in kinds) else (len(kinds),)
    return {vector: known[vector]} if wanted is not None and fits([channels], wanted) else known


def _vectors(known: Mapping[str, TensorInfo], lead: int) -> dict[str, int | None]:
    """Return the outputs of numbers with several channels in each pixel or row, and how many these are."""
    inner = {name: _inner_shape(info, lead) for name, info in known.items() if info.dtype != STRING}
    return {name: shape[0] for name, shape in inner.items() if shape and len(shape) == 1 and shape[0] != 1}


def _similar_or_channels(
    unknown: Sequence[str], known: Mapping[str, TensorInfo], option: str, lead: int
) -> str:
    """Return similar names, or how the channels of an output are declared."""
    hints = "".join(dict.fromkeys(did_you_mean(name, known) for name in unknown))
    return hints or channels_hint(known, option, lead)


def channels_hint(known: Mapping[str, TensorInfo], option: str, lead: int) -> str:
    """Return how the channels of the only output that has several are declared; empty if there is none."""
    if len(vectors := _vectors(known, lead)) != 1:
        return ""
    ((vector, channels),) = vectors.items()
    count = "" if channels is None else f"{channels} "
    return (
        f" To use the {count}channels of {vector!r}, name one band for each of them, or declare a map of the "
        f"most probable class: {option}={{'class': {{'argmax': [...]}}}} with {count}names."
    )


def _type(declared: PixelType, known: np.dtype[Any] | None) -> np.dtype[Any]:
    """Return the dtype of an output; probabilities become floats, of which those of masked pixels are NaN."""
    found = declared.dtype or known or _DTYPE
    return found if declared.classes is None else np.result_type(found, np.float32)


def _shape(
    name: str,
    declared: PixelType,
    source: str | None,
    info: TensorInfo,
    option: str,
    connector: Connector,
    lead: int,
) -> Shape:
    """Return the shape of an output in each pixel or row, as declared or from the signature."""
    known = _inner_shape(info, lead)
    if declared.dimensions == 0:
        shape: Shape = ()
        fitting = known is None or all(side in (None, 1) for side in known)
    elif declared.shape is not None:
        shape = declared.shape
        fitting = known is None or _fits(known, shape)
    elif known is None or (None in known and declared.dimensions is not None):
        if declared.dimensions:
            raise OptionError(
                f"{option} declares {name!r} with dimensions {declared.dimensions}, but the signature of "
                f"{connector} does not contain their sizes. Declare them: "
                f"{option}={{{name!r}: {{'type': ..., 'shape': [...]}}}}."
            )
        return ()
    else:
        sizes = tuple(side for side in known if side is not None)
        if len(sizes) != len(known):
            raise OptionError(
                f"The output {source!r} of {connector} is {info}, of unknown size. Declare its shape in each "
                f"pixel or row: {option}={{{name!r}: {{'shape': [...]}}}}."
            )
        shape = () if declared.dimensions is None and sizes == (1,) else sizes
        fitting = declared.dimensions in (None, len(shape))
    if not fitting:
        declaration = f"dimensions {declared.dimensions}" + (
            f" and shape {list(shape)}" if declared.shape is not None else ""
        )
        if declared.classes is not None:
            declaration = f"the argmax of {shape[0]} classes, {quoted(declared.classes.names)}"
            raise OptionError(
                f"{option} declares {name!r} as {declaration}, but the output {source!r} of {connector} is "
                f"{info}. Name a class for each channel of the last axis."
            )
        channels = f", or one band for each of its {known[-1]} channels" if known and known[-1] else ""
        raise OptionError(
            f"{option} declares {name!r} with {declaration}, but the output {source!r} of {connector} is "
            f"{info}. Declare dimensions {len(known or ())}{channels}."
        )
    return shape


def _channels(
    declared: Mapping[str, PixelType], source: str | None, dtype: np.dtype[Any] | None
) -> tuple[Output, ...]:
    """Return several scalar outputs that are the channels of one output of the model."""
    return tuple(
        Output(
            name,
            kind.dtype or dtype or _DTYPE,
            (),
            source,
            number,
            len(declared),
            kind.limits,
            declared=tuple(declared),
        )
        for number, (name, kind) in enumerate(declared.items())
    )


def _require_channels(
    declared: Mapping[str, PixelType],
    source: str,
    info: TensorInfo,
    option: str,
    connector: Connector,
    lead: int,
) -> None:
    known, names = _inner_shape(info, lead), list(declared)
    if any(kind.dimensions for kind in declared.values()) or (known is not None and len(known) != 1):
        raise OptionError(
            f"{option} declares {quoted(names)}, but {connector} has one output, {source!r}: {info}. Declare "
            "one output, or one scalar for each of its channels."
        )
    if known is not None and known[0] not in (None, len(names)):
        raise OptionError(
            f"{option} declares {len(names)} outputs, {quoted(names)}, but the only output of {connector}, "
            f"{source!r}, has {known[0]} channels ({info})."
        )


def _inner_shape(info: TensorInfo, lead: int) -> tuple[int | None, ...] | None:
    """Return the shape in each pixel or row from the signature."""
    if info.shape is None:
        return None
    # A shape (n, classes) for tiles: the prediction is a single pixel.
    return info.shape[lead if len(info.shape) >= lead else 1 :]


def _fits(known: tuple[int | None, ...], shape: Shape) -> bool:
    if len(known) == len(shape):
        return fits(known, shape)
    return math.prod(shape) == 1 and all(side in (None, 1) for side in known)
