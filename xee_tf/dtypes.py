"""Which numbers a dtype holds."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FLOAT32_EXACT", "FLOAT64_EXACT", "beyond_float64", "held_as", "spare_values"]

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
