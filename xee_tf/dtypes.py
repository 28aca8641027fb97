"""Ranges of dtypes, conversion of numbers to a dtype, and missing values."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from xee_tf.errors import OptionError

__all__ = [
    "DTYPE_ERRORS",
    "FLOAT32_EXACT",
    "FLOAT64_EXACT",
    "beyond_float64",
    "clamp",
    "coerce",
    "convert_number",
    "copy_in_range",
    "is_missing",
    "is_storable",
    "nodata_candidates",
    "parse_dtype",
]

FLOAT32_EXACT = 2**24
"""float32 represents every integer up to this value."""

FLOAT64_EXACT = 2**53 - 1
"""The largest integer that float64 distinguishes from all others. GDAL stores nodata as float64."""


DTYPE_ERRORS = (TypeError, ValueError, SyntaxError, OverflowError, RecursionError, MemoryError)
"""What `numpy.dtype` raises for values that describe no dtype; it evaluates some texts as code."""


def parse_dtype(value: Any) -> np.dtype[Any] | None:
    """Return the dtype that a value of a user describes; None if it does not describe one.

    None itself does not describe one, although numpy takes it for float64.

    Examples
    --------
    >>> parse_dtype("uint8"), parse_dtype("9" * 5000), parse_dtype(None)
    (dtype('uint8'), None, None)
    """
    try:
        found: np.dtype[Any] | None = None if value is None else np.dtype(value)
    except DTYPE_ERRORS:
        return None
    return found


def is_storable(dtype: np.dtype[Any]) -> bool:
    """Return whether GeoTIFFs and Zarr stores can have bands of a dtype: real numbers of at most 64 bits.

    Examples
    --------
    >>> [is_storable(np.dtype(name)) for name in ("bool", "float64", "longdouble", "complex64")]
    [True, True, False, False]
    """
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def beyond_float64(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which integers are outside the range in which float64 represents every integer.

    Examples
    --------
    >>> beyond_float64(np.array([2**53, 2**53 + 1, -(2**53) - 1])).tolist()
    [False, True, True]
    """
    beyond: npt.NDArray[np.bool_] = (values > FLOAT64_EXACT + 1) | (values < -FLOAT64_EXACT - 1)
    return beyond


def convert_number(number: Any, dtype: np.dtype[Any], *, wraps: bool = False) -> int | float | None:
    """Return a number as an integer or float dtype stores it, or None if the dtype cannot represent it.

    Parameters
    ----------
    number : int or float
        A Python or numpy number. A float dtype rounds it; an integer dtype must represent it exactly.
    dtype : dtype
        Integer or float dtype.
    wraps : bool, default False
        Whether to accept an out-of-range number as the integer with the same bits in the other signedness.

    Examples
    --------
    >>> convert_number(-9999.9, np.dtype("float32")), convert_number(1e39, np.dtype("float32"))
    (-9999.900390625, None)
    >>> convert_number(255.0, np.dtype("uint8")), convert_number(-1, np.dtype("uint8"))
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
        # float64 represents neither the largest int64 nor the largest uint64; it rounds them up.
        number = high if limits.bits == 64 and number == float(high) else number
    number = int(number)
    if wraps and not low <= number <= high:
        number += -(1 << limits.bits) if number > high else 1 << limits.bits
    return number if low <= number <= high else None


def nodata_candidates(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Return candidates for the nodata value of an integer dtype, the most common first.

    These are the maximum of unsigned dtypes and the minimum of signed dtypes, followed by the opposite limit.
    For 64-bit dtypes, limits that float64 represents exactly come first.

    Examples
    --------
    >>> nodata_candidates(np.dtype("int8")), nodata_candidates(np.dtype("uint64"))
    ((-128, 127), (9007199254740991, 0, 18446744073709551615))
    """
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    pairs = [(max(low, -FLOAT64_EXACT), min(high, FLOAT64_EXACT)), (low, high)]
    ends = [end for pair in pairs for end in (pair if dtype.kind == "i" else pair[::-1])]
    return tuple(dict.fromkeys(ends))


def is_missing(value: Any) -> bool:
    """Return whether a Python object is a missing value: None, NaN, ``pandas.NA`` or ``pandas.NaT``.

    Examples
    --------
    >>> is_missing(float("nan")), is_missing(pd.NaT), is_missing("")
    (True, True, False)
    """
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def clamp(value: float, dtype: np.dtype[Any]) -> int:
    """Convert a number to an integer or boolean dtype as Earth Engine does: truncate, then clamp.

    Examples
    --------
    >>> clamp(-3.7, np.dtype("int8")), clamp(300, np.dtype("uint8")), clamp(7, np.dtype(bool))
    (-3, 255, 1)
    """
    if dtype.kind == "b":
        return min(max(int(value), 0), 1)
    limits = np.iinfo(dtype)
    return min(max(int(value), int(limits.min)), int(limits.max))


def copy_in_range(
    out: npt.NDArray[Any],
    values: npt.NDArray[Any],
    named: str,
    *masks: npt.NDArray[np.bool_] | None,
) -> None:
    """Copy numbers to an array of another dtype, unless a finite one would become infinite.

    Every conversion to the float32 of records and models uses this function. The check costs nothing as long
    as all numbers are in the range.

    Parameters
    ----------
    out : ndarray
        Where the numbers are written.
    values : ndarray
        The numbers, which can be broadcast to the shape of `out`.
    named : str
        What contains them, such as "Band 'B4'".
    *masks : ndarray of bool or None
        Where numbers do not matter, because they are replaced later.

    Raises
    ------
    OptionError
        If a finite number is beyond the range of the dtype of `out`.

    Examples
    --------
    >>> out = np.empty(2, "float32")
    >>> copy_in_range(out, np.array([0.5, np.inf]), "Band 'B4'")
    >>> out.tolist()
    [0.5, inf]
    """
    try:
        with np.errstate(over="raise"):
            np.copyto(out, values, casting="unsafe")
        return
    except FloatingPointError:
        with np.errstate(over="ignore"):
            np.copyto(out, values, casting="unsafe")
    given = np.broadcast_to(values, out.shape)
    beyond = np.isinf(out) & np.isfinite(given)
    for mask in masks:
        if mask is not None:
            beyond &= ~mask
    if beyond.any():
        largest = float(np.finfo(out.dtype).max)
        raise OptionError(
            f"{named} contains {float(given[beyond][0]):.6g}, which {out.dtype.name} cannot represent: its "
            f"largest number is {largest:.6g}. Mask such values, for example with "
            f"band.where(abs(band) <= {largest:.6g}), declare them as nodata, or rescale the values."
        )


def coerce(
    values: npt.NDArray[Any],
    dtype: np.dtype[Any],
    out: npt.NDArray[Any] | None = None,
    named: str | None = None,
) -> npt.NDArray[Any]:
    """Convert values to another dtype: truncate, then clamp to the range (Earth Engine's rule for integers).

    Parameters
    ----------
    values : ndarray
        Must not contain NaN if `dtype` is an integer dtype.
    dtype : numpy.dtype
        Target dtype.
    out : ndarray, optional
        Output array of dtype `dtype`.
    named : str, optional
        What contains the values, if those beyond the range of a float dtype raise an error; see
        `copy_in_range`. Default: they become infinite.

    Returns
    -------
    ndarray
        `out` or a new array; `values` itself if it already has the dtype and `out` is not given.

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
    if named is not None:
        copy_in_range(out, values, named)
    else:
        with np.errstate(over="ignore"):
            np.copyto(out, values, casting="unsafe")
    if above is not None:  # the float dtype cannot represent the integer limit itself
        out[above] = np.iinfo(dtype).max
    return out


def _limits(source: np.dtype[Any], target: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the range of `target` in numbers that `source` represents exactly."""
    limits = np.iinfo(target)
    if source.kind in "iu":
        own = np.iinfo(source)
        return source.type(max(limits.min, own.min)), source.type(min(limits.max, own.max))
    source = np.promote_types(source, "float32")  # the range of float16 is too small
    high = source.type(limits.max)
    if int(high) > limits.max:
        high = np.nextafter(high, source.type(0))
    return source.type(limits.min), high
