"""Which numbers a dtype holds, numbers made to fit one, and what stands for no value."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = [
    "FLOAT32_EXACT",
    "FLOAT64_EXACT",
    "beyond_float64",
    "clamp",
    "coerce",
    "held_as",
    "is_missing",
    "spare_values",
]

FLOAT32_EXACT = 2**24
"""float32 has every whole number up to here."""

FLOAT64_EXACT = 2**53 - 1
"""The largest integer that float64 tells from all others. GDAL's and rasterio's nodata is a float64."""


def beyond_float64(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which integers are so large that float64 does not have all of their size.

    Examples
    --------
    >>> beyond_float64(np.array([2**53, 2**53 + 1, -(2**53) - 1])).tolist()
    [False, True, True]
    """
    beyond: npt.NDArray[np.bool_] = (values > FLOAT64_EXACT + 1) | (values < -FLOAT64_EXACT - 1)
    return beyond


def held_as(number: Any, dtype: np.dtype[Any], *, wraps: bool = False) -> int | float | None:
    """A number as a dtype of integers or floats holds it; None if it cannot.

    Parameters
    ----------
    number : int or float
        Of Python or numpy. Floats round it; integers must have it exactly.
    dtype : dtype
    wraps : bool, default False
        Whether the number may stand for the integer with the same bits, read with or without a sign.

    Examples
    --------
    >>> held_as(-9999.9, np.dtype("float32")), held_as(1e39, np.dtype("float32"))
    (-9999.900390625, None)
    >>> held_as(255.0, np.dtype("uint8")), held_as(-1, np.dtype("uint8"))
    (255, None)
    """
    if dtype.kind == "f":
        try:
            exact = float(number)
        except OverflowError:
            return None
        with np.errstate(over="ignore"):
            held = float(dtype.type(exact))
        return None if math.isinf(held) and not math.isinf(exact) else held
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if not isinstance(number, Integral):
        number = float(number)
        if not number.is_integer():
            return None
        # float64 has neither the largest int64 nor the largest uint64, and rounds them up.
        number = high if limits.bits == 64 and number == float(high) else number
    number = int(number)
    if wraps and not low <= number <= high:
        number += -(1 << limits.bits) if number > high else 1 << limits.bits
    return number if low <= number <= high else None


def spare_values(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Values for nodata in a type of integers, the usual ones first.

    Those are the largest of unsigned types and the smallest of signed ones, then the other end; of 64 bits,
    ends that float64 holds exactly come first.

    Examples
    --------
    >>> spare_values(np.dtype("int8")), spare_values(np.dtype("uint64"))
    ((-128, 127), (9007199254740991, 0, 18446744073709551615))
    """
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    pairs = [(max(low, -FLOAT64_EXACT), min(high, FLOAT64_EXACT)), (low, high)]
    ends = [end for pair in pairs for end in (pair if dtype.kind == "i" else pair[::-1])]
    return tuple(dict.fromkeys(ends))


def is_missing(value: Any) -> bool:
    """Whether a Python object stands for a missing value: None, NaN, or what pandas has in its place.

    Examples
    --------
    >>> is_missing(float("nan")), is_missing(pd.NaT), is_missing("")
    (True, True, False)
    """
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def clamp(value: float, dtype: np.dtype[Any]) -> int:
    """A number in a type of integers or booleans by Earth Engine's rule: fraction dropped, range clamped.

    Examples
    --------
    >>> clamp(-3.7, np.dtype("int8")), clamp(300, np.dtype("uint8")), clamp(7, np.dtype(bool))
    (-3, 255, 1)
    """
    if dtype.kind == "b":
        return min(max(int(value), 0), 1)
    limits = np.iinfo(dtype)
    return min(max(int(value), int(limits.min)), int(limits.max))


def coerce(
    values: npt.NDArray[Any], dtype: np.dtype[Any], out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Values in another type: fractions dropped, the range clamped (Earth Engine's guide, of integers).

    Parameters
    ----------
    values : ndarray
        Without NaN where `dtype` is an integer.
    dtype : numpy.dtype
    out : ndarray, optional
        Where to put them; of type `dtype`.

    Returns
    -------
    ndarray
        `out`, or a new array; `values` themselves where nothing is to be done.

    Examples
    --------
    >>> coerce(np.array([-3.7, 1.9, 300.0]), np.dtype("uint8")).tolist()
    [0, 1, 255]
    """
    if out is None and values.dtype == dtype:
        return values
    above = None
    if dtype.kind in "iu" and not np.can_cast(values.dtype, dtype, "safe") and values.dtype.kind != "b":
        low, high = _limits(values.dtype, dtype)
        if int(high) < np.iinfo(dtype).max and values.dtype.kind == "f":
            above = values > high
        values = np.clip(values, low, high)
    if out is None:
        out = np.empty(values.shape, dtype)
    with np.errstate(over="ignore"):  # what a float cannot hold is infinite
        np.copyto(out, values, casting="unsafe")
    if above is not None:  # a float holds no number between its largest one in range and the limit
        out[above] = np.iinfo(dtype).max
    return out


def _limits(source: np.dtype[Any], target: np.dtype[Any]) -> tuple[Any, Any]:
    """The range of `target`, in numbers that `source` holds exactly."""
    limits = np.iinfo(target)
    if source.kind in "iu":
        there = np.iinfo(source)
        return source.type(max(limits.min, there.min)), source.type(min(limits.max, there.max))
    source = np.promote_types(source, "float32")  # a half float holds hardly any range
    high = source.type(limits.max)
    if int(high) > limits.max:
        high = np.nextafter(high, source.type(0))
    return source.type(limits.min), high
