"""The columns of a table: the union of what its records hold, and their values put together.

Records need not be alike. Earth Engine writes no feature for a property that is null, and programs that
write tables part by part may write other lists in each. `xee_tf.open_table` has the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from xee_tf.dtypes import beyond_float64
from xee_tf.errors import OptionError, RecordError
from xee_tf.records import Feature, FeatureValues, Kind, Ragged
from xee_tf.tables.arrow import arrow

__all__ = ["FoundColumn", "Tally", "describe_list", "fill_column", "tally", "unite"]

Describe = Callable[[int], str]
"""From the number of a row to words for its record in an error."""


@dataclass(frozen=True)
class FoundColumn:
    """What all records of a table hold in one column.

    It is of a "mixed" kind if some lists are float, others int64. `sizes` are the different lengths of its
    lists, ascending, with 0 only if all lists are empty; `gaps` is whether some records lack it.
    """

    name: str
    kind: Kind | Literal["mixed"]
    sizes: tuple[int, ...]
    gaps: bool

    def check_shape(self, shape: Sequence[int]) -> None:
        """Check a shape that a user gives to the arrays of the column."""
        if self.sizes != (math.prod(shape),):
            sizes = " or ".join(map(str, self.sizes))
            raise OptionError(
                f"Column {self.name!r} has {sizes} values per row, which are not an array of shape "
                f"{tuple(shape)}."
            )

    def accepts(self, feature: Feature) -> bool:
        """Whether the column was made with such lists in mind."""
        if not feature.size and self.sizes != (0,):
            return self.gaps
        return feature.size in self.sizes and (
            feature.kind == self.kind or (self.kind == "mixed" and feature.kind != "bytes")
        )


def describe_list(feature: Feature) -> str:
    """Words for the list that a record holds.

    Examples
    --------
    >>> describe_list(Feature.strings("site")), describe_list(Feature.stored("profile", "float", 12))
    ('1 byte string value(s)', '12 float value(s)')
    """
    return f"{feature.size} {'byte string' if feature.kind == 'bytes' else feature.kind} value(s)"


@dataclass(frozen=True)
class Tally:
    """Where a feature first appears, and in how many records."""

    feature: Feature
    first: int
    place: int
    count: int


def tally(parts: Iterable[FeatureValues]) -> list[Tally]:
    """The features of some parts, each kind and length once."""
    found: dict[Feature, tuple[int, int, int]] = {}
    for part in parts:
        first, place, count = found.get(part.feature, (int(part.records[0]), part.index, 0))
        first, place = min((first, place), (int(part.records[0]), part.index))
        found[part.feature] = first, place, count + len(part.records)
    return [Tally(feature, *item) for feature, item in found.items()]


def unite(
    found: Iterable[Tally], total: int, describe: Describe, wanted: Collection[str] | None = None
) -> tuple[FoundColumn, ...]:
    """The columns of a table of `total` records, in the order in which they first appear.

    A feature may come more than once, with records of its own each time. Of the columns that are `wanted`
    (all by default) all lists must be numbers, or all byte strings.

    Examples
    --------
    >>> tree, height = Feature.strings("tree"), Feature.stored("height", "float", 1)
    >>> [a, b] = unite([Tally(height, 4, 0, 1), Tally(tree, 0, 0, 5)], 5, "record {}".format)
    >>> a.name, a.gaps, b.name, b.gaps
    ('tree', False, 'height', True)
    """
    held: dict[str, list[Tally]] = {}
    for item in sorted(found, key=lambda item: (item.first, item.place)):
        held.setdefault(item.feature.name, []).append(item)
    if not held:
        raise RecordError(f"{describe(0)} holds no feature, nor does any other record of the table.")
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


def _require_one_kind(name: str, items: Sequence[Tally], describe: Describe) -> None:
    before = items[0].feature
    for item in items:
        if (item.feature.kind == "bytes") != (before.kind == "bytes"):
            raise RecordError(
                f"{describe(item.first)}: feature {name!r} holds {describe_list(item.feature)}; in the "
                f"records before it {describe_list(before)}. A column holds either numbers or byte strings: "
                "leave it out with columns=, or write the records anew."
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
    """The values of a column in the rows of a frame, by whose numbers the records of `parts` go."""
    if column.sizes != (0,):
        parts = [part for part in parts if part.feature.size]
    if column.kind == "bytes":
        if column.sizes == (1,):
            return _texts(column.name, _in_order(parts, total), column.gaps, describe, encoding)
        return _objects(parts, total, None)
    if column.kind == "mixed":
        parts = [replace(part, values=_as_float64(part, describe)) for part in parts]
    if column.sizes == (1,) and tuple(shape or (1,)) == (1,):
        return _numbers(column, parts, total)
    return _objects(parts, total, shape)


def _as_float64(part: FeatureValues, describe: Describe) -> npt.NDArray[np.float64]:
    values = part.values
    assert isinstance(values, np.ndarray)
    if part.feature.kind == "int64":
        large = np.flatnonzero(beyond_float64(values).any(axis=1))
        if large.size:
            row = int(large[0])
            raise RecordError(
                f"{describe(int(part.records[row]))}: feature {part.feature.name!r} holds the integer "
                f"{int(max(values[row], key=abs))}, and other records hold floats: float64 has no room for "
                "both. Write one kind in all records, or leave the column out with columns=."
            )
    return values.astype(np.float64)


def _numbers(column: FoundColumn, parts: Sequence[FeatureValues], total: int) -> Any:
    """One number in each row."""
    dtype = {"float": np.float32, "int64": np.int64}.get(column.kind, np.float64)
    fill = 0 if column.kind == "int64" else np.nan
    found = np.full(total, fill, dtype) if column.gaps else np.empty(total, dtype)
    absent = np.ones(total, bool)
    for part in parts:
        assert isinstance(part.values, np.ndarray)
        rows = _index(part.records)
        found[rows] = part.values[:, 0]
        absent[rows] = False
    return pd.arrays.IntegerArray(found, absent) if column.gaps and column.kind == "int64" else found


def _objects(parts: Sequence[FeatureValues], total: int, shape: Sequence[int] | None) -> Any:
    """An array, or a list of byte strings, in each row; None where there is none."""
    found = np.empty(total, object)
    for part in parts:
        lists: Any = part.values
        if isinstance(lists, Ragged):
            lists = [[string] for string in _arrow(lists).to_pylist()]
        elif shape is not None:
            lists = lists.reshape(len(lists), *shape)
        found[_index(part.records)] = np.fromiter(lists, object, len(part.records))
    return found


def _index(rows: npt.NDArray[np.int64]) -> Any:
    """Ascending rows, as a slice where that is possible: numpy copies to it in one go."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _arrow(strings: Ragged) -> Any:
    pa = arrow()
    offsets = np.append(strings.starts, len(strings.data))  # one follows the other
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(strings.data)]
    return pa.Array.from_buffers(pa.large_binary(), len(strings), buffers)


def _in_order(parts: Sequence[FeatureValues], total: int) -> Any:
    """Ragged in the order of the rows, null where there is none."""
    pa = arrow()
    arrays = []
    source = np.full(total, -1, np.int64)
    begin = 0
    for part in parts:
        assert isinstance(part.values, Ragged)
        arrays.append(_arrow(part.values))
        source[_index(part.records)] = np.arange(begin, begin + len(part.records))
        begin += len(part.records)
    whole = pa.chunked_array(arrays, pa.large_binary())
    if begin == total and (np.diff(source) == 1).all():
        return whole
    return pa.chunked_array([whole.combine_chunks().take(pa.array(source, mask=source < 0))])


def _texts(name: str, strings: Any, gaps: bool, describe: Describe, encoding: str | None) -> Any:
    """One string in each row."""
    if encoding is None:
        return np.fromiter(strings.to_pylist(), object, len(strings))
    if encoding.lower().replace("-", "") == "utf8":
        pa = arrow()
        try:
            texts = strings.cast(pa.large_string())
            return texts.to_numpy() if gaps else texts.to_pandas()._values
        except pa.ArrowInvalid:
            pass  # which one it is is found below
    decoded: list[str | None] = []
    for value in strings.to_pylist():
        try:
            decoded.append(None if value is None else value.decode(encoding))
        except UnicodeDecodeError:
            raise RecordError(
                f"{describe(len(decoded))}: feature {name!r} holds bytes that are not {encoding} text: "
                f"{value[:40]!r}. Read it with another encoding, or encoding=None."
            ) from None
    return np.array(decoded, object) if gaps else pd.Series(decoded, dtype="str")._values
