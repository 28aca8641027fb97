"""What a table's columns are in a record, and their values as plain arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xee_tf.dtypes import FLOAT32_EXACT
from xee_tf.errors import OptionError
from xee_tf.names import check_key
from xee_tf.records import Encoded, Feature, Ragged, RecordLayout, encode_records
from xee_tf.sidecars import TableColumn

__all__ = ["Column", "Rows", "Values", "byte_strings", "encode_rows", "select_columns"]


@dataclass(frozen=True)
class Column(TableColumn):
    """What one column is in a record that we write.

    Parameters
    ----------
    name : str
    kind : {"float", "bytes"}
    shape : tuple of int
        Of an array-valued column; records hold it flattened. Empty for single values.
    """

    kind: Literal["float", "bytes"] = "float"

    @property
    def size(self) -> int:
        """Values a row."""
        return math.prod(self.shape)

    @property
    def feature(self) -> Feature:
        """What a record holds of the column."""
        if self.kind == "bytes":
            return Feature.strings(self.name)
        return Feature.stored(self.name, "float", self.size)

    def __str__(self) -> str:
        if self.kind == "bytes":
            return "strings"
        return f"arrays of shape {self.shape}" if self.shape else "numbers"


def byte_strings(values: Any) -> Ragged:
    """Texts or bytes as byte strings; missing ones are empty.

    Examples
    --------
    >>> byte_strings(["oak", None, "fir"]).sizes.tolist()
    [3, 0, 3]
    """
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    binary = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    # What is missing may have bytes of its own in Arrow's buffer.
    array = array.cast(pa.large_binary() if binary else pa.large_string())
    array = array.fill_null(b"" if binary else "")
    _, offsets, data = array.buffers()
    edges = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    whole = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return Ragged(whole, edges[:-1], np.diff(edges))


Values = npt.NDArray[Any] | Ragged


@dataclass(frozen=True)
class Rows:
    """Some rows of a table: the values of each column.

    Parameters
    ----------
    columns : tuple of Column
    values : tuple of ndarray or Ragged
        Arrays of shape ``(rows, *column.shape)`` and any real dtype; byte strings for kind "bytes".
    dropped : int
        Rows that were left out when these were sampled, because they are masked.
    """

    columns: tuple[Column, ...]
    values: tuple[Values, ...]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.values[0])

    def __getitem__(self, part: slice) -> Rows:
        return Rows(self.columns, tuple(values[part] for values in self.values))

    @property
    def nbytes(self) -> int:
        """About what the records of these rows take."""
        total = 0
        for column, values in zip(self.columns, self.values, strict=True):
            held = 4 * column.size * len(self)
            if isinstance(values, Ragged):
                held = int(values.sizes.sum())
            total += held + (len(column.name) + 16) * len(self)
        return total

    @property
    def rounded(self) -> tuple[str, ...]:
        """Columns with whole numbers that float32 cannot hold exactly."""
        return tuple(
            column.name
            for column, values in zip(self.columns, self.values, strict=True)
            if isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.dtype.itemsize >= 4
            if values.size and (int(values.max()) > FLOAT32_EXACT or int(values.min()) < -FLOAT32_EXACT)
            if (values.astype(np.float32).astype(np.float64) != values).any()
        )


def encode_rows(rows: Rows) -> Encoded:
    """Frame the rows of a table, an Example each.

    Examples
    --------
    >>> from xee_tf.records import decode_example, iter_frames
    >>> rows = Rows((Column("B4"), Column("name", "bytes")), (np.array([0.5]), byte_strings(["oak"])))
    >>> [decode_example(data) for data in iter_frames(encode_rows(rows).buffer.data)]
    [{'B4': array([0.5], dtype=float32), 'name': [b'oak']}]
    """
    return encode_records(RecordLayout(tuple(column.feature for column in rows.columns)), rows.values)


def select_columns(available: Sequence[Any], selectors: Sequence[str] | str | None) -> list[str]:
    """The names of the columns to write, in order.

    Examples
    --------
    >>> select_columns(["B4", "B3", "landcover"], ["landcover", "B4"])
    ['landcover', 'B4']
    """
    known = list(available)
    if selectors is None:
        chosen = known
    else:
        chosen = [selectors] if isinstance(selectors, str) else list(selectors)
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise OptionError(
                f"The selectors {unknown} are no columns of the table. Selectors: {chosen}. Columns: {known}."
            )
    for name in chosen:
        check_key(name, "column")
        if chosen.count(name) > 1 or known.count(name) > 1:
            raise OptionError(f"There are two columns named {name!r}: rename one, or leave it out.")
    if not chosen:
        raise OptionError("The table has no columns to export.")
    return chosen
