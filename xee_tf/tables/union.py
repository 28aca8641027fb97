"""The columns of a table: the union of what its records hold, and their values put together.

Records need not be alike. Earth Engine writes no feature for a property that is null, and programs that
write tables part by part may write other lists in each. The rules:

===============================================  ======================================================
lists of a column                                values of the column
===============================================  ======================================================
a float list of one value                        float32; absent: NaN
an int64 list of one value                       int64, or pandas' Int64 where some are absent
both                                             float64; integers that it cannot hold are refused
a list of one byte string                        str, or objects where some are absent: None
lists of several numbers, of any length          an array in each row; absent: None
lists of several byte strings                    a list in each row; absent: None
byte strings and numbers                         refused
===============================================  ======================================================

A list without values counts as absent, unless all lists of the column are empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from xee_tf.errors import OptionError, RecordError
from xee_tf.tables.decode import Field, Structure
from xee_tf.tables.schema import Strings, Values

__all__ = ["Piece", "TableColumn", "assemble", "unite"]

_EXACT = 2**53

Piece = tuple[Field, npt.NDArray[np.int64], Values]
"""Lists of one kind and length: the rows of the frame, ascending, that have them, and their values."""

Describe = Callable[[int], str]
"""From the number of a row to words for its record in an error."""


@dataclass(frozen=True)
class TableColumn:
    """What all records of a table hold in one column.

    Parameters
    ----------
    name : str
    kind : {"bytes", "float", "int64", "mixed"}
        "mixed": some lists are float, others int64.
    sizes : tuple of int
        The different lengths of its lists, ascending; 0 only if all lists are empty.
    gaps : bool
        Whether some records lack it.
    """

    name: str
    kind: Literal["bytes", "float", "int64", "mixed"]
    sizes: tuple[int, ...]
    gaps: bool

    def check_shape(self, shape: Sequence[int]) -> None:
        """Check a shape that a user gives to the arrays of the column.

        Raises
        ------
        OptionError
            If the lists have another number of values, or several.
        """
        if self.sizes != (math.prod(shape),):
            sizes = " or ".join(map(str, self.sizes))
            raise OptionError(
                f"Column {self.name!r} has {sizes} values a row: no array of shape {tuple(shape)}."
            )

    def accepts(self, field: Field) -> bool:
        """Whether the column was made with such lists in mind."""
        known = field.size in self.sizes or (field.size == 0 and self.gaps)
        return known and (field.kind == self.kind or (self.kind == "mixed" and field.kind != "bytes"))


def unite(found: Mapping[Structure, tuple[int, int]], describe: Describe) -> tuple[TableColumn, ...]:
    """The columns of records of several structures, in the order in which they first appear.

    Parameters
    ----------
    found : mapping of Structure to (int, int)
        The first record of each structure, and how many there are.
    describe : callable
        Words for a record in an error.

    Raises
    ------
    RecordError
        If a column holds byte strings in some records and numbers in others, or there are no columns.

    Examples
    --------
    >>> tree, height = Field("tree", "bytes", 1), Field("height", "float", 1)
    >>> [a, b] = unite({(tree,): (0, 2), (height, tree): (2, 1)}, "record {}".format)
    >>> a.name, a.gaps, b.name, b.gaps
    ('tree', False, 'height', True)
    """
    total = sum(count for _, count in found.values())
    lists: dict[str, list[tuple[Field, int, int]]] = {}
    for structure, (first, count) in sorted(found.items(), key=lambda item: item[1]):
        for field in structure:
            lists.setdefault(field.name, []).append((field, first, count))
    if not lists:
        raise RecordError(f"{describe(0)} holds no feature, nor does any other record of the table.")
    return tuple(_unite(name, held, total, describe) for name, held in lists.items())


def _unite(name: str, held: Sequence[tuple[Field, int, int]], total: int, describe: Describe) -> TableColumn:
    full = [item for item in held if item[0].size] or list(held)
    before = full[0][0]
    for field, first, _ in full:
        if (field.kind == "bytes") != (before.kind == "bytes"):
            raise RecordError(
                f"{describe(first)}: feature {name!r} holds {field}; in the records before it {before}. A "
                "column holds either numbers or byte strings: leave it out with columns=, or write it anew."
            )
    kinds = {field.kind for field, _, _ in full}
    sizes = tuple(sorted({field.size for field, _, _ in full}))
    gaps = sum(count for _, _, count in full) < total
    return TableColumn(name, "mixed" if len(kinds) > 1 else before.kind, sizes, gaps)


def assemble(
    column: TableColumn,
    pieces: Sequence[Piece],
    total: int,
    describe: Describe,
    *,
    shape: Sequence[int] | None = None,
    encoding: str | None = "utf-8",
) -> Any:
    """The values of a column of a frame.

    Parameters
    ----------
    column : TableColumn
    pieces : sequence of Piece
        Where the column is present.
    total : int
        Rows of the frame.
    describe : callable
        Words for the record of a row in an error.
    shape : sequence of int, optional
        Of array-valued columns. Default: flat.
    encoding : str or None
        Of the strings. None: bytes.

    Raises
    ------
    RecordError
        If a string has another encoding, or float64 cannot hold an integer of a column that also holds
        floats.
    """
    if column.sizes != (0,):
        pieces = [piece for piece in pieces if piece[0].size]
    if column.kind == "bytes":
        if column.sizes == (1,):
            return _texts(column.name, _in_order(pieces, total), column.gaps, describe, encoding)
        return _objects(pieces, total, None)
    if column.kind == "mixed":
        pieces = [(field, rows, _as_float64(field, rows, values, describe)) for field, rows, values in pieces]
    if column.sizes == (1,) and tuple(shape or (1,)) == (1,):
        return _numbers(column, pieces, total)
    return _objects(pieces, total, shape)


def _as_float64(
    field: Field, rows: npt.NDArray[np.int64], values: Values, describe: Describe
) -> npt.NDArray[np.float64]:
    assert isinstance(values, np.ndarray)
    if field.kind == "int64":
        large = np.flatnonzero(((values > _EXACT) | (values < -_EXACT)).any(axis=1))
        if large.size:
            row = int(large[0])
            raise RecordError(
                f"{describe(int(rows[row]))}: feature {field.name!r} holds the integer "
                f"{int(max(values[row], key=abs))}, and other records hold floats: float64 has no room for "
                "both. Write one kind in all records, or leave the column out with columns=."
            )
    return values.astype(np.float64)


def _numbers(column: TableColumn, pieces: Sequence[Piece], total: int) -> Any:
    """One number in each row."""
    dtype = {"float": np.float32, "int64": np.int64}.get(column.kind, np.float64)
    fill = 0 if column.kind == "int64" else np.nan
    found = np.full(total, fill, dtype) if column.gaps else np.empty(total, dtype)
    absent = np.ones(total, bool)
    for _, rows, values in pieces:
        assert isinstance(values, np.ndarray)
        found[_index(rows)] = values[:, 0]
        absent[_index(rows)] = False
    return pd.arrays.IntegerArray(found, absent) if column.gaps and column.kind == "int64" else found


def _objects(pieces: Sequence[Piece], total: int, shape: Sequence[int] | None) -> Any:
    """An array, or a list of byte strings, in each row; None where there is none."""
    found = np.empty(total, object)
    for _, rows, values in pieces:
        lists: Any = values
        if isinstance(values, Strings):
            lists = [[string] for string in _arrow(values).to_pylist()]
        elif shape is not None:
            lists = values.reshape(len(values), *shape)
        found[_index(rows)] = np.fromiter(lists, object, len(rows))
    return found


def _index(rows: npt.NDArray[np.int64]) -> Any:
    """The same rows, as a slice where that is possible: numpy copies to it in one go."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _arrow(strings: Strings) -> Any:
    buffers = [None, pa.py_buffer(strings.offsets), pa.py_buffer(strings.data)]
    return pa.Array.from_buffers(pa.large_binary(), len(strings), buffers)


def _in_order(pieces: Sequence[Piece], total: int) -> Any:
    """Strings in the order of the rows, null where there is none."""
    arrays = []
    source = np.full(total, -1, np.int64)
    begin = 0
    for _, rows, values in pieces:
        assert isinstance(values, Strings)
        arrays.append(_arrow(values))
        source[_index(rows)] = np.arange(begin, begin + len(rows))
        begin += len(rows)
    whole = pa.chunked_array(arrays, pa.large_binary())
    if begin == total and (np.diff(source) == 1).all():
        return whole
    return pa.chunked_array([whole.combine_chunks().take(pa.array(source, mask=source < 0))])


def _texts(name: str, strings: Any, gaps: bool, describe: Describe, encoding: str | None) -> Any:
    """One string in each row."""
    if encoding is None:
        return np.fromiter(strings.to_pylist(), object, len(strings))
    if encoding.lower().replace("-", "") == "utf8":
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
                f"{describe(len(decoded))}: feature {name!r} holds bytes that are no {encoding} text: "
                f"{value[:40]!r}. Read it with another encoding, or encoding=None."
            ) from None
    return np.array(decoded, object) if gaps else pd.Series(decoded, dtype="str")._values
