"""Rows of a table: columns and their values as plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.display import quoted
from xee_tf.dtypes import FLOAT32_EXACT
from xee_tf.errors import OptionError
from xee_tf.names import check_key
from xee_tf.options import read_names
from xee_tf.records import Encoded, Ragged, RecordLayout, encode_records
from xee_tf.sidecars import SampleCounts, TableColumn

__all__ = ["Rows", "Values", "are_rounded_integers", "select_columns"]

_FIRST = 256

Values = npt.NDArray[Any] | Ragged


@dataclass(frozen=True)
class Rows:
    """Rows of a table: the values of each column.

    Parameters
    ----------
    columns : tuple of TableColumn
        Name, kind and shape of each column.
    values : tuple of ndarray or Ragged
        Arrays of shape ``(rows, *column.shape)`` and any real dtype; byte strings for kind "bytes".
    counts : SampleCounts
        Numbers of the pixels from which the rows were sampled.
    converted : frozenset of str
        Columns with integers that float32 cannot represent exactly, and whose values are float32 already.

    Examples
    --------
    >>> from xee_tf.records import decode_sequence_example, iter_frames
    >>> from xee_tf.tables.values import byte_strings
    >>> name = TableColumn("name", "bytes"), byte_strings(["oak"])
    >>> rows = Rows.of([(TableColumn("B4"), np.array([0.5])), name])
    >>> [decode_sequence_example(data)[0] for data in iter_frames(rows.encode().buffer.data)]
    [{'B4': array([0.5], dtype=float32), 'name': [b'oak']}]
    """

    columns: tuple[TableColumn, ...]
    values: tuple[Values, ...]
    counts: SampleCounts = field(default_factory=SampleCounts)
    converted: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        found: Iterable[tuple[TableColumn, Values]],
        counts: SampleCounts | None = None,
        converted: frozenset[str] = frozenset(),
    ) -> Rows:
        """Create rows from pairs of columns and values."""
        columns, values = zip(*found, strict=True)
        return cls(columns, values, counts or SampleCounts(), converted)

    def __len__(self) -> int:
        return len(self.values[0])

    def __getitem__(self, part: slice) -> Rows:
        return Rows(self.columns, tuple(values[part] for values in self.values))

    def encode(self) -> Encoded:
        """Encode the rows as framed Example records."""
        return encode_records(RecordLayout(tuple(column.feature for column in self.columns)), self.values)

    @property
    def nbytes(self) -> int:
        """Approximate size of the encoded records in bytes."""
        total = 0
        for column, values in zip(self.columns, self.values, strict=True):
            size = 4 * column.size * len(self)
            if isinstance(values, Ragged):
                size = int(values.sizes.sum())
            total += size + (len(column.name) + 16) * len(self)
        return total

    @property
    def rounded(self) -> tuple[str, ...]:
        """Columns with integers that float32 cannot represent exactly."""
        return tuple(
            column.name
            for column, values in zip(self.columns, self.values, strict=True)
            if column.name in self.converted
            or (isinstance(values, np.ndarray) and are_rounded_integers(values))
        )


def are_rounded_integers(values: npt.NDArray[Any]) -> bool:
    """Return whether float32 cannot represent some of the integers, which may be float64 to hold NaN.

    Examples
    --------
    >>> are_rounded_integers(np.array([2.0**24 + 1, np.nan])), are_rounded_integers(np.array([2.0**24]))
    (True, False)
    >>> are_rounded_integers(np.array([2.0**24 + 1, 0.5]))  # not integers
    False
    """
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        values = values[np.isfinite(values)]
        first = values.flat[:_FIRST]  # most fractions show at once
        if (first != np.trunc(first)).any() or (values != np.trunc(values)).any():
            return False
    elif values.dtype.kind not in "iu" or values.dtype.itemsize < 4:
        return False
    if not values.size or -FLOAT32_EXACT <= int(values.min()) <= int(values.max()) <= FLOAT32_EXACT:
        return False
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float32).astype(np.float64) != values).any())


def select_columns(available: Sequence[Any], columns: Sequence[str] | str | None) -> list[str]:
    """Return the names of the columns to write, in order.

    Raises
    ------
    OptionError
        If `columns` is not a list of names, or a name is not found, not a valid feature name, or not unique.

    Examples
    --------
    >>> select_columns(["B4", "B3", "landcover"], ["landcover", "B4"])
    ['landcover', 'B4']
    """
    known = list(available)
    if columns is None:
        chosen = known
    else:
        chosen = list(read_names(columns, "columns"))
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise OptionError(f"Columns {quoted(unknown)} not found; available: {quoted(known)}.")
    for name in chosen:
        check_key(name, "column")
        if known.count(name) > 1:
            raise OptionError(f"More than one column is named {name!r}: rename one of them or omit it.")
    if not chosen:
        raise OptionError("The table has no columns to export.")
    return chosen
