"""Look up, slice and join many byte strings of different lengths without a Python loop over the strings.

Strings of equal length are copied together: numpy treats the data as overlapping windows of that length, and
a single fancy index copies all of them. There are many strings, but few distinct lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Piece", "Prefixed", "Ragged", "gather", "group_by_size", "join"]

_MAX_COUNTED_RANGE = 1 << 16  # ranges of numbers up to this are counted, larger ones sorted
_FEW_NUMBERS = 64  # numpy is not faster for fewer numbers
_LONG_STRING = 4096  # strings of at least this many bytes are copied one by one

RowIndex = npt.NDArray[np.intp] | slice


@dataclass(frozen=True, slots=True)
class Ragged:
    """Byte strings at any positions of a buffer.

    Parameters
    ----------
    data : ndarray of uint8, shape (bytes,)
        A contiguous buffer.
    starts, sizes : ndarray of int64, shape (strings,)
        The offset and the length in bytes of each string. Strings may overlap.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @classmethod
    def packed(cls, data: npt.NDArray[np.uint8], sizes: npt.NDArray[Any]) -> Ragged:
        """Create strings from their concatenated bytes and their lengths.

        Examples
        --------
        >>> Ragged.packed(np.frombuffer(b"onethree", np.uint8), np.array([3, 5])).starts.tolist()
        [0, 3]
        """
        sizes = sizes.astype(np.int64, copy=False)
        return cls(data, np.cumsum(sizes) - sizes, sizes)

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> Ragged:
        """Create strings from a list.

        Examples
        --------
        >>> Ragged.of([b"one", b"three"]).sizes.tolist()
        [3, 5]
        """
        sizes = np.array([len(string) for string in strings], np.int64)
        return cls.packed(np.frombuffer(b"".join(strings), np.uint8), sizes)

    @classmethod
    def from_numbers(cls, encode: Callable[[int], bytes], numbers: npt.NDArray[np.int64]) -> Ragged:
        """Encode each number; `encode` is called once for each distinct number.

        Examples
        --------
        >>> bytes(join([Ragged.from_numbers(lambda n: b"-" * n, np.array([2, 0, 1, 2]))]).data)
        b'-----'
        """
        values, inverse = _unique(numbers)
        return cls.of([encode(int(value)) for value in values])[inverse]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: RowIndex) -> Ragged:
        return Ragged(self.data, self.starts[rows], self.sizes[rows])

    def __reduce__(self) -> Any:
        # Rows of a large table are sent without the strings of the others.
        if not len(self):
            return Ragged, (self.data[:0], self.starts, self.sizes)
        first, end = int(self.starts.min()), int((self.starts + self.sizes).max())
        return Ragged, (self.data[first:end], self.starts - first, self.sizes)

    def copy_to(self, out: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        """Copy each string to its offset in a buffer."""
        for size, rows in group_by_size(self.sizes):
            _copy(self.data, self.starts[rows], out, offsets[rows], size)


@dataclass(frozen=True, slots=True, eq=False)
class Prefixed:
    """Byte strings, each preceded by a prefix that depends only on the length of the string.

    Parameters
    ----------
    strings : Ragged
        The strings without their prefixes.
    sizes : ndarray of int64, shape (strings,)
        The length in bytes of each string with its prefix.
    prefixes : tuple of (int, index, bytes)
        For each distinct length: the length, the index of the strings that have it, and their prefix.
    """

    strings: Ragged
    sizes: npt.NDArray[np.int64]
    prefixes: tuple[tuple[int, RowIndex, bytes], ...]

    @classmethod
    def of(cls, strings: Ragged, encode: Callable[[int], bytes]) -> Prefixed:
        """Add prefixes to strings; `encode` returns the prefix for a length in bytes.

        Examples
        --------
        >>> strings = Ragged.packed(np.frombuffer(b"onethree", np.uint8), np.array([3, 5]))
        >>> bytes(join([Prefixed.of(strings, lambda size: b"%d:" % size)]).data)
        b'3:one5:three'
        """
        prefixes = tuple((size, rows, encode(size)) for size, rows in group_by_size(strings.sizes))
        sizes = strings.sizes.copy()
        for _, rows, prefix in prefixes:
            sizes[rows] += len(prefix)
        return cls(strings, sizes, prefixes)

    def copy_to(self, out: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        """Copy each string with its prefix to its offset in a buffer."""
        for size, rows, prefix in self.prefixes:
            begins, starts = offsets[rows], self.strings.starts[rows]
            if size >= _LONG_STRING:
                _windows(out, len(prefix))[begins] = np.frombuffer(prefix, f"V{len(prefix)}")
                _copy(self.strings.data, starts, out, begins + len(prefix), size)
                continue
            whole = np.empty((len(begins), len(prefix) + size), np.uint8)
            whole[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
            whole[:, len(prefix) :] = gather(self.strings.data, starts, size)
            _windows(out, whole.shape[1])[begins] = whole.view(f"V{whole.shape[1]}")[:, 0]


Piece = Ragged | Prefixed


def _windows(data: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.void]:
    """Return a view of all overlapping windows of `size` bytes, for fancy indexing.

    Examples
    --------
    >>> _windows(np.frombuffer(b"abcd", np.uint8), 2)[[0, 2]].tobytes()
    b'abcd'
    """
    return np.ndarray((max(0, len(data) - size + 1),), f"V{size}", data, 0, (1,))


def gather(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.uint8]:
    """Copy the `size` bytes at each offset in `starts` into the rows of a matrix.

    Examples
    --------
    >>> gather(np.frombuffer(b"abcd", np.uint8), np.array([2, 0]), 2).tobytes()
    b'cdab'
    """
    if not size or not len(starts):
        return np.empty((len(starts), size), np.uint8)
    return _windows(data, size)[starts].view(np.uint8).reshape(len(starts), size)


def group_by_size(sizes: npt.NDArray[np.int64]) -> Iterator[tuple[int, RowIndex]]:
    """Yield each distinct size and an index of the strings that have it.

    Examples
    --------
    >>> [(size, rows.tolist()) for size, rows in group_by_size(np.array([3, 5, 3]))]
    [(3, [0, 2]), (5, [1])]
    """
    if not len(sizes):
        return
    values, inverse = _unique(sizes)
    if len(values) == 1:
        yield int(values[0]), slice(None)
        return
    order = np.argsort(inverse, kind="stable")
    begin = 0
    for value, count in zip(values.tolist(), np.bincount(inverse).tolist(), strict=True):
        yield value, order[begin : begin + count]
        begin += count


def join(columns: Sequence[Piece]) -> Ragged:
    """Join strings row by row: the first string of each column, then the second string of each column, ...

    Examples
    --------
    >>> keys = Ragged.packed(np.frombuffer(b"aab", np.uint8), np.array([1, 2]))
    >>> values = Ragged.packed(np.frombuffer(b"12345", np.uint8), np.array([2, 3]))
    >>> bytes(join([keys, values]).data)
    b'a12ab345'
    """
    total = columns[0].sizes.copy()
    for column in columns[1:]:
        total += column.sizes
    out = np.empty(int(total.sum()), np.uint8)
    joined = Ragged.packed(out, total)
    offsets = joined.starts.copy()
    for column in columns:
        column.copy_to(out, offsets)
        offsets += column.sizes
    return joined


def _copy(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    size: int,
) -> None:
    """Copy strings of one size to their offsets in another buffer."""
    if size >= _LONG_STRING:
        for start, offset in zip(starts.tolist(), offsets.tolist(), strict=True):
            out[offset : offset + size] = data[start : start + size]
    elif size:
        _windows(out, size)[offsets] = _windows(data, size)[starts]


def _unique(numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Return the sorted distinct numbers and the inverse index; faster than `np.unique`."""
    if not len(numbers):
        return numbers, np.empty(0, np.uint16)
    if len(numbers) < _FEW_NUMBERS:
        few = np.array(sorted(set(numbers.tolist())), np.int64)
        return few, np.searchsorted(few, numbers)
    low = int(numbers.min())
    span = int(numbers.max()) - low
    if span >= _MAX_COUNTED_RANGE:
        values, inverse = np.unique(numbers, return_inverse=True)
        return values, inverse
    shifted = (numbers - low).astype(np.uint16)
    present = np.flatnonzero(np.bincount(shifted))
    ranks = np.zeros(span + 1, np.uint16)
    ranks[present] = np.arange(len(present), dtype=np.uint16)
    return present + low, ranks[shifted]
