"""Byte strings of unequal length, many at a time: looked up, cut, joined; no loop over them.

Strings of one length are moved together: numpy sees the bytes as overlapping windows of that length,
and one fancy index copies as many windows as there are strings. Distinct lengths are few, strings many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Headed", "Piece", "Ragged", "gather", "join", "rows_by_size", "windows"]

_SPAN = 1 << 16  # spans of lengths that are counted rather than sorted
_FEW = 64  # numbers that are not worth calls of numpy
_LONG = 4096  # bytes of a string from which on it is copied by itself

RowIndex = npt.NDArray[np.intp] | slice


@dataclass(frozen=True, slots=True)
class Ragged:
    """Byte strings that lie anywhere in a buffer.

    Parameters
    ----------
    data : ndarray of uint8, shape (bytes,)
        Contiguous.
    starts, sizes : ndarray of int64, shape (strings,)
        Where each string lies; strings may overlap.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @classmethod
    def packed(cls, data: npt.NDArray[np.uint8], sizes: npt.NDArray[Any]) -> Ragged:
        """Strings that follow one another.

        Examples
        --------
        >>> Ragged.packed(np.frombuffer(b"onethree", np.uint8), np.array([3, 5])).starts.tolist()
        [0, 3]
        """
        sizes = sizes.astype(np.int64, copy=False)
        return cls(data, np.cumsum(sizes) - sizes, sizes)

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> Ragged:
        """The strings of a list.

        Examples
        --------
        >>> Ragged.of([b"one", b"three"]).sizes.tolist()
        [3, 5]
        """
        sizes = np.array([len(string) for string in strings], np.int64)
        return cls.packed(np.frombuffer(b"".join(strings), np.uint8), sizes)

    @classmethod
    def looked_up(cls, make: Callable[[int], bytes], numbers: npt.NDArray[np.int64]) -> Ragged:
        """The string that `make` gives for each number; it is called once for each distinct one.

        Examples
        --------
        >>> bytes(join([Ragged.looked_up(lambda n: b"-" * n, np.array([2, 0, 1, 2]))]).data)
        b'-----'
        """
        values, which = _distinct(numbers)
        return cls.of([make(int(value)) for value in values])[which]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: RowIndex) -> Ragged:
        return Ragged(self.data, self.starts[rows], self.sizes[rows])

    def put(self, out: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> None:
        """Copy each string to its place in a buffer."""
        for size, rows in rows_by_size(self.sizes):
            _copy(self.data, self.starts[rows], out, places[rows], size)


@dataclass(frozen=True, slots=True, eq=False)
class Headed:
    """Byte strings with bytes in front of them that depend on nothing but their sizes.

    Parameters
    ----------
    strings : Ragged
    sizes : ndarray of int64, shape (strings,)
        Bytes of each string and its head.
    heads : tuple of (int, rows, bytes)
        Of the strings of one size: that size, an index of them, their head.
    """

    strings: Ragged
    sizes: npt.NDArray[np.int64]
    heads: tuple[tuple[int, RowIndex, bytes], ...]

    @classmethod
    def of(cls, strings: Ragged, make: Callable[[int], bytes]) -> Headed:
        """Strings and a function from their size to the bytes in front of them.

        Examples
        --------
        >>> strings = Ragged.packed(np.frombuffer(b"onethree", np.uint8), np.array([3, 5]))
        >>> bytes(join([Headed.of(strings, lambda size: b"%d:" % size)]).data)
        b'3:one5:three'
        """
        heads = tuple((size, rows, make(size)) for size, rows in rows_by_size(strings.sizes))
        sizes = strings.sizes.copy()
        for _, rows, head in heads:
            sizes[rows] += len(head)
        return cls(strings, sizes, heads)

    def put(self, out: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> None:
        """Copy each string and its head to its place in a buffer."""
        for size, rows, head in self.heads:
            begins, starts = places[rows], self.strings.starts[rows]
            if size >= _LONG:
                windows(out, len(head))[begins] = np.frombuffer(head, f"V{len(head)}")
                _copy(self.strings.data, starts, out, begins + len(head), size)
                continue
            whole = np.empty((len(begins), len(head) + size), np.uint8)
            whole[:, : len(head)] = np.frombuffer(head, np.uint8)
            whole[:, len(head) :] = gather(self.strings.data, starts, size)
            windows(out, whole.shape[1])[begins] = whole.view(f"V{whole.shape[1]}")[:, 0]


Piece = Ragged | Headed


def windows(data: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.void]:
    """Every run of `size` bytes as one item, to be read or written by fancy indexing.

    Examples
    --------
    >>> windows(np.frombuffer(b"abcd", np.uint8), 2)[[0, 2]].tobytes()
    b'abcd'
    """
    return np.ndarray((max(0, len(data) - size + 1),), f"V{size}", data, 0, (1,))


def gather(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.uint8]:
    """The strings of one size that begin at `starts`, copied into the rows of a matrix.

    Examples
    --------
    >>> gather(np.frombuffer(b"abcd", np.uint8), np.array([2, 0]), 2).tobytes()
    b'cdab'
    """
    if not size:
        return np.empty((len(starts), 0), np.uint8)
    return windows(data, size)[starts].view(np.uint8).reshape(len(starts), size)


def rows_by_size(sizes: npt.NDArray[np.int64]) -> Iterator[tuple[int, RowIndex]]:
    """Each distinct size, and an index of the strings that have it.

    Examples
    --------
    >>> [(size, rows.tolist()) for size, rows in rows_by_size(np.array([3, 5, 3]))]
    [(3, [0, 2]), (5, [1])]
    """
    if not len(sizes):
        return
    values, which = _distinct(sizes)
    if len(values) == 1:
        yield int(values[0]), slice(None)
        return
    order = np.argsort(which, kind="stable")
    begin = 0
    for value, count in zip(values.tolist(), np.bincount(which).tolist(), strict=True):
        yield value, order[begin : begin + count]
        begin += count


def join(columns: Sequence[Piece]) -> Ragged:
    """Strings put together row by row: the first of every column, then the second of every column, ...

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
    places = joined.starts.copy()
    for column in columns:
        column.put(out, places)
        places += column.sizes
    return joined


def _copy(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint8],
    places: npt.NDArray[np.int64],
    size: int,
) -> None:
    """Copy strings of one size from where they start to their places."""
    if size >= _LONG:
        for start, place in zip(starts.tolist(), places.tolist(), strict=True):
            out[place : place + size] = data[start : start + size]
    elif size:
        windows(out, size)[places] = windows(data, size)[starts]


def _distinct(numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Distinct numbers in ascending order, and which of them each number is: a fast `np.unique`."""
    if not len(numbers):
        return numbers, np.empty(0, np.uint16)
    if len(numbers) < _FEW:
        few = np.array(sorted(set(numbers.tolist())), np.int64)
        return few, np.searchsorted(few, numbers)
    low = int(numbers.min())
    span = int(numbers.max()) - low
    if span >= _SPAN:
        values, which = np.unique(numbers, return_inverse=True)
        return values, which
    shifted = (numbers - low).astype(np.uint16)
    present = np.flatnonzero(np.bincount(shifted))
    ranks = np.zeros(span + 1, np.uint16)
    ranks[present] = np.arange(len(present), dtype=np.uint16)
    return present + low, ranks[shifted]
