"""Encode coordinates of extra dimensions as JSON, and decode them: numbers, text, bytes and dates."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.dtypes import is_missing
from xee_tf.errors import excerpt
from xee_tf.sidecars.packing import read_number, write_number

__all__ = ["coordinate_document", "read_coordinate"]

_NUMBERS = "iufb"
_TIMES = "Mm"
_DTYPE = re.compile(r"[<>|=]?[biufMm]\d{1,2}(\[\d{0,9}[a-zA-Z]{1,2}\])?")
_LARGEST_TABLE = 64 << 20  # maximum bytes of a fixed-width string array; longer ones use objects
_DATE = re.compile(r"(-?\d{1,9})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?")
_TIME = re.compile(r"NaT|[+-]?\d{4,}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?)?)?", re.ASCII)
_CFTIME = {
    "360_day": "Datetime360Day",
    "365_day": "DatetimeNoLeap",
    "366_day": "DatetimeAllLeap",
    "all_leap": "DatetimeAllLeap",
    "gregorian": "DatetimeGregorian",
    "julian": "DatetimeJulian",
    "noleap": "DatetimeNoLeap",
    "proleptic_gregorian": "DatetimeProlepticGregorian",
    "standard": "DatetimeGregorian",
}


def coordinate_document(values: Any) -> dict[str, Any] | None:
    """Encode a coordinate for JSON; return None for values that cannot be encoded (tuples, geometries).

    Supported are one-dimensional arrays of numbers, booleans, text (fixed-width, ``StringDType``, objects,
    pandas and Arrow arrays), bytes, datetime64 and timedelta64 in any unit, and ``cftime`` dates in any
    calendar.

    Examples
    --------
    >>> coordinate_document(np.array(["VV", "VH"], object))
    {'dtype': 'text', 'values': ['VV', 'VH']}
    >>> coordinate_document(np.array([1, 2], "timedelta64[D]"))
    {'dtype': '<m8[D]', 'values': [1, 2]}
    """
    array = np.asarray(values)
    if array.ndim != 1:
        return None
    kind = array.dtype.kind
    if kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if kind in _NUMBERS:
        listed = [write_number(value) for value in array.tolist()]
        return {"dtype": array.dtype.newbyteorder("<").str, "values": listed}
    if kind in _TIMES:
        if np.datetime_data(array.dtype)[0] == "generic":
            return None
        missing = np.isnat(array)
        plain = np.datetime_as_string(array) if kind == "M" else array.astype(np.int64)
        listed = [None if absent else value for absent, value in zip(missing, plain.tolist(), strict=True)]
        return {"dtype": array.dtype.newbyteorder("<").str, "values": listed}
    if kind == "S":
        return {"dtype": "bytes", "values": [value.decode("latin-1") for value in array.tolist()]}
    if kind in "UT":
        return _objects([str(value) if isinstance(value, str) else None for value in array.tolist()])
    return _objects(array.tolist()) if kind == "O" else None


def read_coordinate(document: Any) -> NDArray[Any]:
    """Decode the values of a `coordinate_document`.

    Notes
    -----
    Dates in non-standard calendars require the package ``cftime``; without it they are returned as text.

    Examples
    --------
    >>> read_coordinate({"dtype": "<M8[D]", "values": ["2020-05-01", None]})
    array(['2020-05-01',        'NaT'], dtype='datetime64[D]')
    """
    dtype, values = document["dtype"], document["values"]
    if not isinstance(values, list) or not isinstance(dtype, str):
        raise TypeError("a coordinate must have a dtype and a list of values")
    if dtype == "text":
        return _texts(values)
    if dtype == "bytes":
        return _compact([value.encode("latin-1") for value in values], np.bytes_)
    if dtype == "cftime":
        return _calendar_dates(values, document["calendar"])
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"the dtype {excerpt(dtype)} is not supported for coordinates")
    known = np.dtype(dtype)
    if known.kind not in _NUMBERS + _TIMES or known.itemsize > 8:
        raise ValueError(f"the dtype {dtype!r} is not supported for coordinates")
    if known.kind in _TIMES:
        times = ["NaT" if value is None else value for value in values]
        for value in times:  # numpy also reads "now", and warns of time zones
            if not isinstance(value, int) and not (isinstance(value, str) and _TIME.fullmatch(value)):
                raise ValueError(f"a coordinate contains {excerpt(value)}, which is not a time in ISO 8601")
        return np.array(times, known)
    return np.array([read_number(value) for value in values], known)


def _objects(values: Sequence[Any]) -> dict[str, Any] | None:
    """Encode Python objects of one type, with or without missing values."""
    missing = [is_missing(value) for value in values]
    present = [value for value, absent in zip(values, missing, strict=True) if not absent]
    if not present:
        return {"dtype": "text", "values": [None] * len(values)}
    if all(isinstance(value, str) for value in present):
        texts = iter(present)
        return {"dtype": "text", "values": [None if absent else str(next(texts)) for absent in missing]}
    if any(missing) and all(isinstance(value, int | float) for value in present):
        return coordinate_document(
            np.array([math.nan if absent else v for v, absent in zip(values, missing, strict=True)], float)
        )
    if all(hasattr(value, "calendar") and hasattr(value, "isoformat") for value in present):
        if any(missing) or len({value.calendar for value in present}) > 1:
            return None
        return {
            "dtype": "cftime",
            "calendar": str(present[0].calendar),
            "values": [value.isoformat() for value in present],
        }
    if all(isinstance(value, datetime.date) for value in present):
        return _plain_dates(values, missing)
    if all(type(value).__name__ in ("Period", "Interval") for value in present) and not any(missing):
        return {"dtype": "text", "values": [str(value) for value in present]}
    if any(missing) or not all(
        isinstance(value, bool | int | float | bytes | np.generic) for value in present
    ):
        return None
    again = np.array(present)
    return None if again.dtype.kind == "O" else coordinate_document(again)


def _plain_dates(values: Sequence[Any], missing: Sequence[bool]) -> dict[str, Any] | None:
    """Encode dates from Python or pandas; dates with a time zone are converted to UTC."""
    plain = []
    for value, absent in zip(values, missing, strict=True):
        zone = getattr(value, "tzinfo", None)
        if zone is not None:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        exact = getattr(value, "to_datetime64", None)  # keeps the nanoseconds of pandas
        plain.append(np.datetime64("NaT") if absent else exact() if exact else np.datetime64(value))
    return coordinate_document(np.array(plain))


def _texts(values: Sequence[Any]) -> NDArray[Any]:
    if any(value is not None and not isinstance(value, str) for value in values):
        raise TypeError("a text coordinate contains values that are not text")
    if None in values:
        return np.array([*values, None], object)[:-1]
    return _compact(values, np.str_)


def _compact(values: Sequence[Any], dtype: Any) -> NDArray[Any]:
    """Return a fixed-width array, or an object array if a single long value would make it very large."""
    longest = max(map(len, values), default=0)
    if longest * len(values) * 4 <= _LARGEST_TABLE:
        return np.array(values, dtype)
    return np.array([*values, None], object)[:-1]


def _calendar_dates(values: Sequence[str], calendar: str) -> NDArray[Any]:
    parts = [_DATE.fullmatch(value) for value in values]
    if None in parts or calendar not in _CFTIME:
        raise ValueError(f"a coordinate contains values that are not dates in the calendar {calendar!r}")
    try:
        import cftime  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ModuleNotFoundError:
        return _texts(values)
    make = getattr(cftime, _CFTIME[calendar])
    dates = []
    for part in parts:
        assert part is not None
        fraction = (part[7] or "").ljust(6, "0")
        dates.append(make(*(int(part[i] or 0) for i in range(1, 7)), int(fraction)))
    return np.array([*dates, None], object)[:-1]
