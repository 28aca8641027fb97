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
from xee_tf.records.example import Feature
from xee_tf.sidecars import TableColumn

__all__ = ["Column", "Rows", "Strings", "Values", "select_columns"]


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
        """The feature of a column of numbers."""
        return Feature(self.name, "float", self.size, "<f4")

    def __str__(self) -> str:
        if self.kind == "bytes":
            return "strings"
        return f"arrays of shape {self.shape}" if self.shape else "numbers"


@dataclass(frozen=True)
class Strings:
    """Many strings of bytes in one buffer, as Arrow has them.

    Parameters
    ----------
    data : ndarray of uint8
    offsets : ndarray of int64, shape (n + 1,)
        Where in `data` each string starts, and where the last one ends.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: Any) -> Strings:
        """From texts or bytes; missing ones are empty.

        Examples
        --------
        >>> Strings.of(["oak", None, "fir"]).lengths.tolist()
        [3, 0, 3]
        """
        array = (
            values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
        )
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        binary = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
        # What is missing may have bytes of its own in Arrow's buffer.
        array = array.cast(pa.large_binary() if binary else pa.large_string())
        array = array.fill_null(b"" if binary else "")
        _, offsets, data = array.buffers()
        edges = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        whole = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        return cls(whole, edges)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of each string."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, part: slice) -> Strings:
        start, stop, _ = part.indices(len(self))
        return Strings(self.data, self.offsets[start : max(start, stop) + 1])


Values = npt.NDArray[Any] | Strings


@dataclass(frozen=True)
class Rows:
    """Some rows of a table: the values of each column.

    Parameters
    ----------
    columns : tuple of Column
    values : tuple of ndarray or Strings
        Arrays of shape ``(rows, *column.shape)`` and any real dtype; `Strings` for kind "bytes".
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

    def _of(self, name: str) -> Values:
        return next(v for c, v in zip(self.columns, self.values, strict=True) if c.name == name)

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """The values of a column of numbers."""
        values = self._of(name)
        assert isinstance(values, np.ndarray)
        return values

    def strings(self, name: str) -> Strings:
        """The values of a column of strings."""
        values = self._of(name)
        assert isinstance(values, Strings)
        return values

    @property
    def nbytes(self) -> int:
        """About what the records of these rows take."""
        total = 0
        for column, values in zip(self.columns, self.values, strict=True):
            held = 4 * column.size * len(self)
            if isinstance(values, Strings):
                held = int(values.offsets[-1] - values.offsets[0])
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


def select_columns(available: Sequence[Any], selectors: Sequence[str] | str | None) -> list[str]:
    """The names of the columns to write, in order.

    Raises
    ------
    OptionError
        If a selector is unknown, or a name is no text, empty, or there twice.

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
