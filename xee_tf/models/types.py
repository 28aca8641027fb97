"""Types of pixels and properties: numpy dtypes and Earth Engine pixel types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xee_tf.classes import Classes
from xee_tf.display import quoted
from xee_tf.dtypes import is_storable, nodata_candidates, parse_dtype
from xee_tf.errors import OptionError, shorten
from xee_tf.models.earth_engine import function_call
from xee_tf.options import integer, is_number

__all__ = ["STRING", "PixelType", "Range", "fill_outside", "pixel_type", "type_name"]

STRING = np.dtype(object)
Range = tuple[int, int]
"""The minimum and maximum, both included."""

# Earth Engine's names take precedence over numpy's: byte is unsigned, float has 32 bits, long has 64.
_EE_TYPES = {
    "float": "float32",
    "double": "float64",
    "byte": "uint8",
    "short": "int16",
    "int": "int32",
    "long": "int64",
}
_INT: Range = (-(2**31), 2**31 - 1)
_BOUNDS = ("min", "minValue", "max", "maxValue")
_STRINGS = ("string", "str")
_FORMS = "'float32', a numpy dtype, or {'type': 'PixelType', 'precision': 'int', 'min': 0, 'max': 255}"


@dataclass(frozen=True)
class PixelType:
    """The declared type of an output or an input.

    Parameters
    ----------
    dtype : numpy.dtype or None
        A boolean, integer or float dtype; object for strings. None: the dtype of the model's output.
    dimensions : int or None
        0 for a scalar, 1 for a vector in each pixel, and so on.
    limits : (int, int) or None
        The range of an integer pixel type with ``min`` or ``max``, which values are clamped to. None without
        ``min`` and ``max``: the range of a dtype is not that of its values.
    shape : tuple of int or None
        The shape of an array in each pixel.
    classes : Classes or None
        The classes of which the model returns the probabilities, as an array of this `shape`. The output is
        a map of the most probable ones.
    confidence : str or None
        The name of a second output, the highest probability.
    """

    dtype: np.dtype[Any] | None = None
    dimensions: int | None = None
    limits: Range | None = None
    shape: tuple[int, ...] | None = None
    classes: Classes | None = None
    confidence: str | None = None


def pixel_type(value: Any, name: str) -> PixelType:
    """Parse a type as users or Earth Engine write it.

    Parameters
    ----------
    value : dtype-like, mapping, ee.PixelType or PixelType
        A numpy dtype or its name; Earth Engine's name (``"float"`` has 32 bits, ``"byte"`` is unsigned); or a
        pixel type as returned by ``getInfo``: ``precision`` ("int", "float" or "double"), ``min``, ``max``,
        ``dimensions``. Integers get the smallest type for their range, or 32 bits without a range.
    name : str
        The name of the option, band or property, for errors.

    Returns
    -------
    PixelType
        The type.

    Raises
    ------
    OptionError
        If `value` is not a type of real numbers or strings.

    Examples
    --------
    >>> pixel_type("float", "B4").dtype, pixel_type("byte", "B4").dtype
    (dtype('float32'), dtype('uint8'))
    >>> pixel_type({"precision": "int", "min": -1, "max": 90}, "B4").limits
    (-1, 90)
    """
    if isinstance(value, PixelType):
        return value
    if type(value).__module__ == "ee.pixeltype":
        value = _of_earth_engine(value, name)
    if isinstance(value, Mapping):
        return _of_mapping(value, name)
    if isinstance(value, str) and value.lower() in _STRINGS:
        return PixelType(STRING)
    dtype = parse_dtype(_EE_TYPES.get(value, value) if isinstance(value, str) else value)
    if dtype is None:
        raise OptionError(f"{name}: {shorten(repr(value))} is not a type. Use {_FORMS}.")
    if dtype.kind in "SUO":
        return PixelType(STRING)
    if not is_storable(dtype):
        raise OptionError(
            f"{name}: {value!r} is not a type of real numbers of at most 64 bits. Use {_FORMS}."
        )
    return PixelType(dtype.newbyteorder("="))


def fill_outside(dtype: np.dtype[Any], valid: Range | None) -> tuple[np.dtype[Any], int]:
    """Return a fill value for masked pixels of an integer type, and a type that can represent it.

    The fill value is the first of `nodata_candidates` that is outside the declared range. If the range
    includes every value of the type, the next larger type is used.

    Parameters
    ----------
    dtype : numpy.dtype
        An integer dtype.
    valid : (int, int) or None
        The declared range. None, or a range that includes every value of 64 bits: return the usual value of
        `dtype`, which may also be the value of a valid pixel.

    Returns
    -------
    tuple of (numpy.dtype, int)
        The dtype and the fill value.

    Examples
    --------
    >>> fill_outside(np.dtype("uint8"), (0, 9)), fill_outside(np.dtype("uint8"), (0, 255))
    ((dtype('uint8'), 255), (dtype('uint16'), 65535))
    """
    if valid is not None:
        for size in (1, 2, 4, 8):
            candidate = np.dtype(f"{dtype.kind}{max(size, dtype.itemsize)}")
            for value in nodata_candidates(candidate):
                if not valid[0] <= value <= valid[1]:
                    return candidate, value
    return dtype, nodata_candidates(dtype)[0]


def _bounds(value: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """Return the range of an integer pixel type; missing bounds are those of 32 bits."""
    low, high = value.get("min", value.get("minValue")), value.get("max", value.get("maxValue"))
    low, high = _INT[0] if low is None else low, _INT[1] if high is None else high
    for bound in (low, high):
        if not is_number(bound):
            raise OptionError(f"{name}: min and max must be numbers; got {bound!r}.")
    if not low <= high:
        raise OptionError(f"{name}: min must not be greater than max; got {low} and {high}.")
    return low, high


def _of_mapping(value: Mapping[str, Any], name: str) -> PixelType:
    known = {"type", "precision", "min", "max", "dimensions", "minValue", "maxValue"}
    if set(value) - known or value.get("type", "PixelType") != "PixelType":
        raise OptionError(
            f"{name}: {dict(value)!r} is not a pixel type; expected {quoted(sorted(known)[:4])} and 'type'."
        )
    precision = value.get("precision")
    if precision in ("float", "double"):
        return PixelType(np.dtype(_EE_TYPES[precision]), _dimensions(value.get("dimensions"), name))
    if precision != "int":
        raise OptionError(f"{name}: precision must be 'int', 'float' or 'double'; got {precision!r}.")
    low, high = _bounds(value, name)
    for bits in (8, 16, 32, 64):
        for kind in ("uint", "int"):
            limits = np.iinfo(f"{kind}{bits}")
            if limits.min <= low and high <= limits.max:
                ranged = any(value.get(bound) is not None for bound in _BOUNDS)
                return PixelType(
                    np.dtype(f"{kind}{bits}"),
                    _dimensions(value.get("dimensions"), name),
                    (math.ceil(low), math.floor(high)) if ranged else None,
                )
    raise OptionError(f"{name}: the range {low} to {high} exceeds 64 bits.")


def _dimensions(value: Any, name: str) -> int | None:
    if value is None:
        return None
    return integer(0)(value, f"{name}['dimensions']")


def _of_earth_engine(value: Any, name: str) -> Any:
    """Return the arguments of an ``ee.PixelType``."""
    found = function_call(value)
    while found is not None:
        function, arguments = found
        if function.startswith("PixelType."):
            return function.removeprefix("PixelType.")
        if function != "PixelType":
            break
        precision = arguments.get("precision")
        if isinstance(precision, str) and not any(isinstance(part, tuple) for part in arguments.values()):
            return arguments
        found = precision if isinstance(precision, tuple) else None  # a cast of a cast
    raise OptionError(f"{name}: only Earth Engine can evaluate this ee.PixelType: pass pixel_type.getInfo().")


def type_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype as users write it."""
    return "string" if dtype == STRING else str(dtype)
