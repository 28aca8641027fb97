"""Byte strings of unequal length, many at a time: found, laid side by side, copied; no loop over them.

Strings of one length are moved together: numpy sees the bytes as overlapping windows of that length,
and one fancy index copies as many windows as there are strings. Distinct lengths are few, strings many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Ragged", "gather", "groups", "join", "windows"]

_SPAN = 1 << 16  # spans of lengths that are counted rather than sorted


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
    def looked_up(cls, make: Callable[[int], bytes], numbers: npt.NDArray[np.int64]) -> Ragged:
        """The string that `make` gives for each number; it is called once for each distinct one.

        Examples
        --------
        >>> bytes(join([Ragged.looked_up(lambda n: b"-" * n, np.array([2, 0, 1, 2]))]).data)
        b'-----'
        """
        values, which = _distinct(numbers)
        strings = [make(int(value)) for value in values]
        sizes = np.array([len(string) for string in strings], np.int64)
        starts = np.cumsum(sizes) - sizes
        return cls(np.frombuffer(b"".join(strings), np.uint8), starts[which], sizes[which])

    def __len__(self) -> int:
        return len(self.sizes)


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


def groups(sizes: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.intp] | slice]]:
    """Each distinct size, and an index of the strings that have it.

    Examples
    --------
    >>> [(size, rows.tolist()) for size, rows in groups(np.array([3, 5, 3]))]
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


def join(columns: Sequence[Ragged]) -> Ragged:
    """Strings put together row by row: the first of every column, then the second of every column, ...

    Parameters
    ----------
    columns : sequence of Ragged
        At least one; all of one length.

    Returns
    -------
    Ragged
        Strings that follow one another, from the first byte of `data` to its last.

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
        for size, rows in groups(column.sizes):
            if size:
                windows(out, size)[places[rows]] = windows(column.data, size)[column.starts[rows]]
        places += column.sizes
    return joined


def _distinct(numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Distinct numbers in ascending order, and which of them each number is: a fast `np.unique`."""
    if not len(numbers):
        return numbers, np.empty(0, np.uint16)
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
