"""Conversion of columns of any dtype to plain arrays, as they are stored in records.

====================================  ==========================================================
column                                feature
====================================  ==========================================================
bool, integer, float                  float list of one value; NaN if missing
string, categorical of strings        bytes list of one value, UTF-8; empty if missing
bytes                                 bytes list of one value
lists, tuples, numpy arrays           float list, flattened in C order; all rows of one shape
dates, durations, complex numbers     not supported: float32 cannot represent them
====================================  ==========================================================

Numbers are floats as in Earth Engine's guide and in the table exports of Earth Engine. Missing strings are
written as empty strings so that a parser finds the feature in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from xee_tf.dtypes import is_missing
from xee_tf.errors import OptionError, shorten
from xee_tf.records import Ragged
from xee_tf.sidecars import TableColumn
from xee_tf.tables.arrow import import_pyarrow
from xee_tf.tables.rows import Values

__all__ = ["byte_strings", "column_values"]


def column_values(
    values: Any, name: str, describe_row: Callable[[int], str] = "row {}".format
) -> tuple[TableColumn, Values]:
    """Convert the values of a column to arrays, and describe the column in a record.

    Parameters
    ----------
    values : Series or ndarray
        An ndarray of shape ``(rows, ...)``, or a Series of any dtype.
    name : str
        Name of the column.
    describe_row : callable
        Describes the row with a given number in an error message.

    Returns
    -------
    column : TableColumn
        Name, kind and shape of the column in a record.
    values : ndarray or Ragged
        The values, of any real dtype, or byte strings.

    Raises
    ------
    OptionError
        If the dtype cannot be written, or rows differ in kind or shape; the message names the first such row.

    Examples
    --------
    >>> column, values = column_values(pd.Series([[1, 2], [3, 4]]), "profile")
    >>> column.shape, values.tolist()
    ((2,), [[1, 2], [3, 4]])
    """
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return TableColumn(name, "float", values.shape[1:]), _require_real(values, name)
    series = pd.Series(values, copy=False) if isinstance(values, np.ndarray) else values
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return column_values(series.astype(dtype.categories.dtype), name, describe_row)
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return TableColumn(name), series.to_numpy()
    arrow_type = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else None
    if isinstance(dtype, pd.StringDtype) or (arrow_type is not None and _holds_strings(arrow_type)):
        return TableColumn(name, "bytes"), _strings(series, name, describe_row)
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        plain = None if series.isna().any() else series.to_numpy()
        if plain is None or plain.dtype.kind not in "biuf":
            plain = series.to_numpy(np.float64, na_value=np.nan)
        return TableColumn(name), plain
    if arrow_type is not None and import_pyarrow().types.is_nested(arrow_type):
        series = series.astype(object)
    elif not (isinstance(dtype, np.dtype) and dtype.kind == "O"):
        raise _unsupported_error(name, str(dtype))
    return _object_values(series, name, describe_row)


def _holds_strings(arrow_type: Any) -> bool:
    pa = import_pyarrow()
    return arrow_type in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())


def _object_values(series: Any, name: str, describe_row: Callable[[int], str]) -> tuple[TableColumn, Values]:
    """Convert a column of Python objects, all of the kind of the first one."""
    objects = series.to_numpy()
    first = next((value for value in objects if not is_missing(value)), None)
    if first is None:
        if not len(objects):
            return TableColumn(name), np.empty(0)
        raise OptionError(
            f"Column {name!r} holds only missing values, so its dtype is unknown: set it, for example with "
            f"table[{name!r}].astype('float32'), or omit the column."
        )
    if isinstance(first, str | bytes):
        return TableColumn(name, "bytes"), _strings(series, name, describe_row, type(first))
    if isinstance(first, Real | np.bool_):
        _require_all(objects, lambda v: isinstance(v, Real | np.bool_), "a number", name, describe_row)
        return TableColumn(name), np.array([np.nan if is_missing(v) else v for v in objects], np.float64)
    if isinstance(first, list | tuple | np.ndarray):
        shape = _shape(first)
        try:
            stacked = np.stack(objects.tolist())
        except (ValueError, TypeError):
            stacked = None
        if shape is None or stacked is None or stacked.shape[1:] != shape or stacked.dtype.kind == "O":
            _require_shape(objects, name, describe_row)
            raise _unsupported_error(name, "ragged arrays")
        return TableColumn(name, "float", stacked.shape[1:]), _require_real(stacked, name)
    raise _unsupported_error(name, type(first).__name__)


def byte_strings(values: Any) -> Ragged:
    """Convert strings or bytes to byte strings; missing values become empty strings.

    Examples
    --------
    >>> byte_strings(["oak", None, "fir"]).sizes.tolist()
    [3, 0, 3]
    """
    pa = import_pyarrow()
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    binary = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    # A missing value may have bytes in Arrow's buffer.
    array = array.cast(pa.large_binary() if binary else pa.large_string())
    array = array.fill_null(b"" if binary else "")
    _, offsets, data = array.buffers()
    edges = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    whole = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return Ragged(whole, edges[:-1], np.diff(edges))


def _strings(
    series: Any, name: str, describe_row: Callable[[int], str], kind: type[str] | type[bytes] = str
) -> Ragged:
    pa = import_pyarrow()
    try:
        return byte_strings(pa.array(series, from_pandas=True, type=None if kind is str else pa.binary()))
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, pa.ArrowNotImplementedError):
        expected = "a string" if kind is str else "bytes"
        _require_all(
            series.to_numpy(), lambda v: isinstance(v, kind) and _is_utf8(v), expected, name, describe_row
        )
        raise


def _require_all(
    objects: Iterable[Any],
    fits: Callable[[Any], bool],
    expected: str,
    name: str,
    describe_row: Callable[[int], str],
) -> None:
    for number, value in enumerate(objects):
        if not (is_missing(value) or fits(value)):
            raise OptionError(
                f"Column {name!r}: {describe_row(number)} holds {_describe_value(value)}; expected "
                f"{expected}, as in the rows before it. Convert all values to one kind, or omit the column."
            )


def _require_shape(objects: Iterable[Any], name: str, describe_row: Callable[[int], str]) -> None:
    expected = None
    for number, value in enumerate(objects):
        shape = _shape(value)
        if number == 0:
            expected = shape
        if shape is None or shape != expected:
            found = f"an array of shape {shape}" if shape else _describe_value(value)
            before = f", but the rows before it hold arrays of shape {expected}" if number else ""
            drop = f" Drop such rows: table.dropna(subset=[{name!r}])." if is_missing(value) else ""
            raise OptionError(
                f"Column {name!r}: {describe_row(number)} holds {found}{before}. All rows of a column must "
                f"have the same shape, because records do not store shapes.{drop}"
            )


def _shape(value: Any) -> tuple[int, ...] | None:
    """Return the shape of an array, or None for other values and ragged arrays."""
    if not isinstance(value, list | tuple | np.ndarray):
        return None
    try:
        array = np.asarray(value)
        array = np.stack(array.tolist()) if array.dtype.kind == "O" and array.size else array
    except (ValueError, TypeError):
        return None
    return array.shape


def _require_real(values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if values.dtype.kind not in "biuf":
        raise _unsupported_error(name, f"arrays of {values.dtype}")
    return values


def _unsupported_error(name: str, found: str) -> OptionError:
    hint = f"table.drop(columns={name!r})"
    if "date" in found or "time" in found or "Timestamp" in found or "period" in found:
        days = f"(table[{name!r}] - start).dt.days"
        hint = f"table[{name!r}].astype(str) for strings, {days} for numbers, or {hint}"
    elif "geometry" in found:
        hint = "table.set_geometry(...) to write points as longitude and latitude, or " + hint
    return OptionError(
        f"Column {name!r} holds {found}; expected numbers, strings, or numeric arrays of one shape. Convert "
        f"it or omit it: {hint}."
    )


def _is_utf8(value: str | bytes) -> bool:
    try:
        return isinstance(value, bytes) or bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _describe_value(value: Any) -> str:
    return shorten(f"{type(value).__name__} {value!r}")
