"""Columns of a table as the union of the features of its records, and their values.

Records may differ: Earth Engine omits the feature of a property that is null, and other programs may write
different lists in different parts of a table. `xee_tf.open_table` documents the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from xee_tf.display import counted
from xee_tf.dtypes import beyond_float64
from xee_tf.errors import OptionError, RecordError
from xee_tf.records import Feature, FeatureValues, Kind, Ragged
from xee_tf.tables.arrow import import_pyarrow

__all__ = ["FeatureCount", "FoundColumn", "count_features", "describe_list", "fill_column", "merge_columns"]

Describe = Callable[[int], str]
"""Describes the record of a row in an error message."""


@dataclass(frozen=True)
class FoundColumn:
    """A column of a table: the kind and lengths of its lists in all records.

    Parameters
    ----------
    name : str
        Name of the feature.
    kind : {"float", "int64", "bytes", "mixed"}
        "mixed" if some lists are float and others int64.
    sizes : tuple of int
        The different lengths of the lists, ascending. Contains 0 only if all lists are empty.
    gaps : bool
        Whether some records lack the feature.
    """

    name: str
    kind: Kind | Literal["mixed"]
    sizes: tuple[int, ...]
    gaps: bool

    def check_shape(self, shape: Sequence[int]) -> None:
        """Check that a shape given by the user fits the arrays of the column."""
        if self.sizes != (math.prod(shape),):
            *others, last = self.sizes
            sizes = "".join(f"{size} or " for size in others) + counted(last, "value")
            raise OptionError(
                f"Column {self.name!r} has {sizes} per row, which cannot be reshaped to {tuple(shape)}."
            )

    def accepts(self, feature: Feature) -> bool:
        """Return whether a list fits the column."""
        if not feature.size and self.sizes != (0,):
            return self.gaps
        return feature.size in self.sizes and (
            feature.kind == self.kind or (self.kind == "mixed" and feature.kind != "bytes")
        )


def describe_list(feature: Feature) -> str:
    """Describe a list of a record in an error message.

    Examples
    --------
    >>> describe_list(Feature.strings("site")), describe_list(Feature.stored("profile", "float", 12))
    ('1 byte string', '12 float values')
    """
    return counted(feature.size, "byte string" if feature.kind == "bytes" else f"{feature.kind} value")


@dataclass(frozen=True)
class FeatureCount:
    """First occurrence of a feature (record, and place in the record), and the number of its records."""

    feature: Feature
    first: int
    place: int
    count: int


def count_features(parts: Iterable[FeatureValues]) -> list[FeatureCount]:
    """Count the records of each feature, separately for each kind and length."""
    found: dict[Feature, tuple[int, int, int]] = {}
    for part in parts:
        first, place, count = found.get(part.feature, (int(part.records[0]), part.index, 0))
        first, place = min((first, place), (int(part.records[0]), part.index))
        found[part.feature] = first, place, count + len(part.records)
    return [FeatureCount(feature, *item) for feature, item in found.items()]


def merge_columns(
    found: Iterable[FeatureCount], total: int, describe: Describe, wanted: Collection[str] | None = None
) -> tuple[FoundColumn, ...]:
    """Merge feature counts into the columns of a table of `total` records, in order of first appearance.

    A feature may appear several times in `found`, for different records. In each column in `wanted` (all by
    default), either all lists must be numbers or all must be byte strings.

    Raises
    ------
    RecordError
        If no record holds a feature, or a column holds both numbers and byte strings.

    Examples
    --------
    >>> tree, height = Feature.strings("tree"), Feature.stored("height", "float", 1)
    >>> counts = [FeatureCount(height, 4, 0, 1), FeatureCount(tree, 0, 0, 5)]
    >>> [a, b] = merge_columns(counts, 5, "record {}".format)
    >>> a.name, a.gaps, b.name, b.gaps
    ('tree', False, 'height', True)
    """
    held: dict[str, list[FeatureCount]] = {}
    for item in sorted(found, key=lambda item: (item.first, item.place)):
        held.setdefault(item.feature.name, []).append(item)
    if not held:
        raise RecordError(f"{describe(0)} and all other records of the table hold no features.")
    columns = []
    for name, items in held.items():
        items = [item for item in items if item.feature.size] or items
        if wanted is None or name in wanted:
            _require_one_kind(name, items, describe)
        kinds = {item.feature.kind for item in items}
        sizes = tuple(sorted({item.feature.size for item in items}))
        gaps = sum(item.count for item in items) < total
        columns.append(FoundColumn(name, "mixed" if len(kinds) > 1 else kinds.pop(), sizes, gaps))
    return tuple(columns)


def _require_one_kind(name: str, items: Sequence[FeatureCount], describe: Describe) -> None:
    before = items[0].feature
    for item in items:
        if (item.feature.kind == "bytes") != (before.kind == "bytes"):
            raise RecordError(
                f"{describe(item.first)}: feature {name!r} holds {describe_list(item.feature)}, but the "
                f"records before it hold {describe_list(before)}. A column holds either numbers or byte "
                "strings: select other columns with columns=[...], or write the records again."
            )


def fill_column(
    column: FoundColumn,
    parts: Sequence[FeatureValues],
    total: int,
    describe: Describe,
    *,
    shape: Sequence[int] | None = None,
    encoding: str | None = "utf-8",
) -> Any:
    """Return the values of a column of a frame; the records in `parts` are numbered as its rows."""
    if column.sizes != (0,):
        parts = [part for part in parts if part.feature.size]
    if column.kind == "bytes":
        if column.sizes == (1,):
            return _decode_strings(
                column.name, _strings_in_row_order(parts, total), column.gaps, describe, encoding
            )
        return _object_values(parts, total, None)
    if column.kind == "mixed":
        parts = [replace(part, values=_as_float64(part, describe)) for part in parts]
    if column.sizes == (1,) and tuple(shape or (1,)) == (1,):
        return _scalar_values(column, parts, total)
    return _object_values(parts, total, shape)


def _as_float64(part: FeatureValues, describe: Describe) -> npt.NDArray[np.float64]:
    values = part.values
    assert isinstance(values, np.ndarray)
    if part.feature.kind == "int64":
        large = np.flatnonzero(beyond_float64(values).any(axis=1))
        if large.size:
            row = int(large[0])
            raise RecordError(
                f"{describe(int(part.records[row]))}: feature {part.feature.name!r} holds the integer "
                f"{int(max(values[row], key=abs))}, and other records hold floats: float64 cannot represent "
                "both. Write one kind in all records, or select other columns with columns=[...]."
            )
    return values.astype(np.float64)


def _scalar_values(column: FoundColumn, parts: Sequence[FeatureValues], total: int) -> Any:
    """Return a column with one number in each row."""
    dtype = {"float": np.float32, "int64": np.int64}.get(column.kind, np.float64)
    fill = 0 if column.kind == "int64" else np.nan
    found = np.full(total, fill, dtype) if column.gaps else np.empty(total, dtype)
    absent = np.ones(total, bool)
    for part in parts:
        assert isinstance(part.values, np.ndarray)
        rows = _as_slice(part.records)
        found[rows] = part.values[:, 0]
        absent[rows] = False
    return pd.arrays.IntegerArray(found, absent) if column.gaps and column.kind == "int64" else found


def _object_values(parts: Sequence[FeatureValues], total: int, shape: Sequence[int] | None) -> Any:
    """Return a column with an array or a list of byte strings in each row, or None if a record lacks it."""
    found = np.empty(total, object)
    for part in parts:
        lists: Any = part.values
        if isinstance(lists, Ragged):
            lists = [[string] for string in _arrow_array(lists).to_pylist()]
        elif shape is not None:
            lists = lists.reshape(len(lists), *shape)
        found[_as_slice(part.records)] = np.fromiter(lists, object, len(part.records))
    return found


def _as_slice(rows: npt.NDArray[np.int64]) -> Any:
    """Return ascending row numbers as a slice if they are contiguous, because numpy copies to it faster."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _arrow_array(strings: Ragged) -> Any:
    pa = import_pyarrow()
    offsets = np.append(strings.starts, len(strings.data))  # the strings are contiguous
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(strings.data)]
    return pa.Array.from_buffers(pa.large_binary(), len(strings), buffers)


def _strings_in_row_order(parts: Sequence[FeatureValues], total: int) -> Any:
    """Join strings in row order, with null for rows without a string."""
    pa = import_pyarrow()
    arrays = []
    source = np.full(total, -1, np.int64)
    begin = 0
    for part in parts:
        assert isinstance(part.values, Ragged)
        arrays.append(_arrow_array(part.values))
        source[_as_slice(part.records)] = np.arange(begin, begin + len(part.records))
        begin += len(part.records)
    whole = pa.chunked_array(arrays, pa.large_binary())
    if begin == total and (np.diff(source) == 1).all():
        return whole
    return pa.chunked_array([whole.combine_chunks().take(pa.array(source, mask=source < 0))])


def _decode_strings(name: str, strings: Any, gaps: bool, describe: Describe, encoding: str | None) -> Any:
    """Return a column with one string in each row."""
    if encoding is None:
        return np.fromiter(strings.to_pylist(), object, len(strings))
    if encoding.lower().replace("-", "") == "utf8":
        pa = import_pyarrow()
        try:
            texts = strings.cast(pa.large_string())
            return texts.to_numpy() if gaps else texts.to_pandas()._values
        except pa.ArrowInvalid:
            pass  # the loop below finds the invalid string
    decoded: list[str | None] = []
    for value in strings.to_pylist():
        try:
            decoded.append(None if value is None else value.decode(encoding))
        except UnicodeDecodeError:
            raise RecordError(
                f"{describe(len(decoded))}: feature {name!r} holds bytes that are not {encoding} text: "
                f"{value[:40]!r}. Pass another encoding=, or encoding=None to read bytes."
            ) from None
    return np.array(decoded, object) if gaps else pd.Series(decoded, dtype="str")._values
