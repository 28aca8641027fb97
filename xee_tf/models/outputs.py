"""What a model gives: the outputs that were declared, found in its answers and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Connector, TensorInfo
from xee_tf.dtypes import coerce
from xee_tf.errors import OptionError, PredictionError
from xee_tf.models.feeds import Shape, fits
from xee_tf.models.types import STRING, PixelType, Range, type_name

__all__ = ["Output", "plan_outputs"]

_DTYPE = np.dtype("float32")  # where nobody tells


@dataclass(frozen=True)
class Output:
    """A band or property that a model gives.

    Parameters
    ----------
    name : str
    dtype : numpy.dtype
        Object for strings.
    shape : tuple of int
        In each pixel or row; empty for a single value.
    source : str or None
        The model's output that it is found in. None: the model does not tell its names.
    channel : int or None
        Its place on the last axis of `source`, if that holds several.
    channels : int
        How many are there.
    limits : (int, int) or None
        The declared range of an integer.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape = ()
    source: str | None = None
    channel: int | None = None
    channels: int = 1
    limits: Range | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of the result along `shape`."""
        return tuple(f"{self.name}_{axis}" for axis in range(len(self.shape)))

    def take(
        self, answer: Arrays, lead: Sequence[Shape], connector: Connector, *, keep_nan: bool = False
    ) -> npt.NDArray[Any]:
        """Find, check and convert this output in an answer.

        Parameters
        ----------
        answer : mapping from str to ndarray
        lead : sequence of tuples
            What may stand before `shape`: ``(n, height, width)`` with and without overlap, or ``(n,)``.
        connector : Connector
            Who answered, for errors.
        keep_nan : bool, default False
            NaN where `dtype` is an integer is no error; the whole numbers come as float64 then.

        Returns
        -------
        ndarray
            ``(*lead, *shape)`` of type `dtype`.

        Raises
        ------
        PredictionError
            If it is not there, or not of this shape, or NaN where `dtype` is an integer.
        """
        name, values, channel = self._found(answer, connector)
        shape = (self.channels,) if channel is not None else self.shape
        count = math.prod(shape)
        for front in lead:
            ends = [shape, ()] if count == 1 else [shape]
            # A scalar may come with a last axis of 1; a tile that became one pixel, without its axes.
            fronts = [front, front[:1]] if len(front) == 3 and front[1:] == (1, 1) else [front]
            if any(values.shape in (f + e, f + e + (1,) * (not e)) for f in fronts for e in ends):
                values = values.reshape(front + shape)
                break
        else:
            allowed = " or ".join(str(front + shape) for front in lead)
            raise PredictionError(
                f"{connector} answered {name!r} of shape {values.shape}, and {self.name!r} is declared so "
                f"that it should be {allowed}. Mend output_bands, output_properties or output_tile_size, or "
                "the model."
            )
        if channel is not None:
            values = values[..., channel]
        return self._typed(values, connector, keep_nan)

    def _found(self, answer: Arrays, connector: Connector) -> tuple[str, npt.NDArray[Any], int | None]:
        for name in (self.source, self.name):
            if name is not None and name in answer:
                # A single output is declared as several channels; but a name of its own goes before that.
                single = self.source is None and name == self.name
                return name, answer[name], None if single else self.channel
        if self.source is None and len(answer) == 1:
            ((name, values),) = answer.items()
            return name, values, self.channel
        raise PredictionError(
            f"{connector} answered {sorted(answer)}, and {self.source or self.name!r} is declared as its "
            "output."
        )

    def _typed(self, values: npt.NDArray[Any], connector: Connector, keep_nan: bool) -> npt.NDArray[Any]:
        if values.dtype.kind == "c":
            raise PredictionError(
                f"{connector} returned {values.dtype} for {self.name!r}; expected booleans, integers, floats "
                "or strings. Return the real and imaginary parts as two outputs, or the magnitude."
            )
        if (self.dtype == STRING) != (values.dtype.kind in "OSU"):
            raise PredictionError(
                f"{connector} answered {values.dtype} for {self.name!r}, which is declared as "
                f"{type_name(self.dtype)}."
            )
        if self.dtype == STRING:
            return values.astype(STRING, copy=False)
        if self.dtype.kind in "iub" and values.dtype.kind == "f" and (nan := np.isnan(values)).any():
            if not keep_nan:
                raise self.refuse_nan(connector)
            # What is made of floats is exact in float64, and the limits are found again.
            return np.where(nan, np.nan, coerce(np.where(nan, 0, values), self.dtype).astype(np.float64))
        return coerce(values, self.dtype)

    def refuse_nan(self, connector: Connector, where: str = "") -> PredictionError:
        """The error for NaN where the type is an integer."""
        return PredictionError(
            f"{connector} answered NaN for {self.name!r}, which is declared as {self.dtype}{where}: no "
            "integer is NaN. Declare a float type, or look for what makes the model give NaN."
        )


def plan_outputs(
    declared: Mapping[str, PixelType] | None,
    given: Mapping[str, TensorInfo] | None,
    option: str,
    connector: Connector,
    *,
    lead: int,
) -> tuple[Output, ...]:
    """The outputs of a model: as declared, and as it tells.

    Parameters
    ----------
    declared : mapping from str to PixelType, or None
        None: all that the model tells of.
    given : mapping or None
        What it tells.
    option : str
        ``output_bands`` or ``output_properties``, for errors.
    connector : Connector
        The model, for errors.
    lead : int
        Axes before the value: 3 for tiles, 1 for rows.

    Raises
    ------
    OptionError
        If what is declared and what the model tells do not go together, or neither suffices.
    """
    if declared is None:
        if given is None:
            raise OptionError(
                f"{connector} does not tell what it gives: say {option}={{'name': {{'type': 'float32', "
                "'dimensions': 0}}."
            )
        declared = dict.fromkeys(given, PixelType())
    if given is None:
        if len(declared) > 1 and not any(kind.dimensions for kind in declared.values()):
            return _channels(declared, None, None)
        found: dict[str, tuple[str | None, TensorInfo]] = {name: (None, TensorInfo()) for name in declared}
    elif len(given) == 1:
        ((only, info),) = given.items()
        if len(declared) > 1:
            _require_channels(declared, only, info, option, connector, lead)
            return _channels(declared, only, info.dtype)
        found = dict.fromkeys(declared, (only, info))
    else:
        if unknown := [name for name in declared if name not in given]:
            told = "; ".join(f"{name}: {info}" for name, info in given.items())
            raise OptionError(
                f"{option} names {unknown}, which {connector} does not give. Its outputs: {told}."
            )
        found = {name: (name, given[name]) for name in declared}
    return tuple(
        Output(
            name,
            kind.dtype or found[name][1].dtype or _DTYPE,
            _shape(name, kind, *found[name], option, connector, lead),
            found[name][0],
            limits=kind.limits,
        )
        for name, kind in declared.items()
    )


def _shape(
    name: str,
    declared: PixelType,
    source: str | None,
    info: TensorInfo,
    option: str,
    connector: Connector,
    lead: int,
) -> Shape:
    """The shape of an output in each pixel or row: as declared, or as the model tells it."""
    told = _told(info, lead)
    if declared.dimensions == 0:
        shape: Shape = ()
        fitting = told is None or all(side in (None, 1) for side in told)
    elif declared.shape is not None:
        shape = declared.shape
        fitting = told is None or _fits(told, shape)
    elif told is None or (None in told and declared.dimensions is not None):
        if declared.dimensions:
            raise OptionError(
                f"{option} declares {name!r} with {declared.dimensions} dimensions, and {connector} does not "
                f"tell how large they are: say it, {option}={{{name!r}: {{'type': ..., 'shape': [...]}}}}."
            )
        return ()
    else:
        known = tuple(side for side in told if side is not None)
        if len(known) != len(told):
            raise OptionError(
                f"{connector} tells of its output {source!r} only that it is {info}: say its shape in each "
                f"pixel or row, {option}={{{name!r}: {{'shape': [...]}}}}."
            )
        shape = () if declared.dimensions is None and known == (1,) else known
        fitting = declared.dimensions in (None, len(shape))
    if not fitting:
        said = f"dimensions {declared.dimensions}" + (
            f" and shape {list(shape)}" if declared.shape is not None else ""
        )
        channels = f", or name the {told[-1]} bands that its channels are" if told and told[-1] else ""
        raise OptionError(
            f"{option} declares {name!r} with {said}, and the output {source!r} of {connector} is "
            f"{info}. Declare {'dimensions 0' if not told else f'dimensions {len(told)}'}{channels}."
        )
    return shape


def _channels(
    declared: Mapping[str, PixelType], source: str | None, dtype: np.dtype[Any] | None
) -> tuple[Output, ...]:
    """Several scalar outputs that are the channels of one."""
    return tuple(
        Output(name, kind.dtype or dtype or _DTYPE, (), source, number, len(declared), kind.limits)
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
    told, names = _told(info, lead), list(declared)
    if any(kind.dimensions for kind in declared.values()) or (told is not None and len(told) != 1):
        raise OptionError(
            f"{connector} has one output, {source!r}: {info}. {option} names {names}: either one name, or "
            "scalars that are its channels."
        )
    if told is not None and told[0] not in (None, len(names)):
        raise OptionError(
            f"{option} names {len(names)} outputs, {names}, and the only output of {connector}, "
            f"{source!r}, has {told[0]} channels ({info})."
        )


def _told(info: TensorInfo, lead: int) -> tuple[int | None, ...] | None:
    """The shape in each pixel or row, as the model tells it."""
    if info.shape is None:
        return None
    # (n, classes) of a tile: one pixel for all of it.
    return info.shape[lead if len(info.shape) >= lead else 1 :]


def _fits(told: tuple[int | None, ...], shape: Shape) -> bool:
    if len(told) == len(shape):
        return fits(told, shape)
    return math.prod(shape) == 1 and all(side in (None, 1) for side in told)
