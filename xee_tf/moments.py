"""Exact sums of the values of a band, which do not depend on the order in which they are added.

The values are divided into units, such as the patches of an export. Sums of a unit are floating-point
numbers, which depend on nothing but the unit. They are then added without rounding, as integers, so that the
statistics of a band do not depend on the chunks of its source or on the order of tasks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.statistics import BandStatistics

__all__ = ["Moments", "Tally", "merge_moments"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

_MOST_CLASSES = 256
_UNIT = 1 << 15  # values of a band that are added at a time: their float64 fit into the cache
_ROW = 8192  # np.einsum divides longer rows of a matrix into buffers, not always in the same places
_POINT = 1126  # binary digits behind the point of exact sums: every float64 is a multiple of 2 ** -1126
_DOWN = 600  # units whose squares are too large are multiplied by 2 ** -600
_LARGE = 480  # binary digits of numbers whose products with two others are in the range of float64
_NEAR = 2.0**-12  # units of which the mean is 64 times the deviation, or more, are added again from there
_kept = threading.local()


@dataclass(frozen=True)
class Moments:
    """What is known of some pixels of a band, so that it can be merged without rounding.

    Parameters
    ----------
    count, masked : int
        Number of valid and of masked values.
    least, greatest : int or float
        The extremes of the valid values.
    total, squares : int
        The sums of the finite values and of their squares, times 2 ** 1126.
    classes : mapping from int to int, optional
        The number of each value, in ascending order; None for float bands and if there are too many values.
    around : frozenset of int, optional
        Values of pixels that are not counted, in the margins of patches; None if there are too many.

    Examples
    --------
    >>> tally = Tally(np.dtype("uint8"))
    >>> tally.add(np.array([[1, 2, 2, 5]], "uint8").reshape(1, 1, 2, 2), None)
    >>> tally.moments().statistics()
    BandStatistics(count=4, masked=0, min=1, max=5, mean=2.5, std=1.5, classes={1: 1, 2: 2, 5: 1})
    """

    count: int = 0
    masked: int = 0
    least: float = math.inf
    greatest: float = -math.inf
    total: int = 0
    squares: int = 0
    classes: Mapping[int, int] | None = None
    around: frozenset[int] | None = frozenset()

    def statistics(self) -> BandStatistics:
        """Return the statistics: the mean is rounded once."""
        count = self.count
        if not count:
            return BandStatistics.empty(self.masked)
        if math.isinf(self.least) or math.isinf(self.greatest):
            ends = [end for end in (self.least, self.greatest) if math.isinf(end)]
            mean, std = sum(ends), math.nan
        else:
            mean = _divide(self.total, count << _POINT)
            scatter = max((self.squares * count << _POINT) - self.total * self.total, 0)
            std = _root(scatter, count * count << 2 * _POINT)
        classes = None
        if self.classes is not None and self.around is not None:
            classes = dict(sorted((dict.fromkeys(self.around, 0) | dict(self.classes)).items()))
        return BandStatistics(count, self.masked, self.least, self.greatest, mean, std, classes)

    def to_json(self) -> list[Any]:
        """Return the moments as values of JSON."""
        ends = [end if isinstance(end, int) else end.hex() for end in (self.least, self.greatest)]
        classes = None if self.classes is None else [list(self.classes), list(self.classes.values())]
        around = None if self.around is None else sorted(self.around)
        return [self.count, self.masked, *ends, hex(self.total), hex(self.squares), classes, around]

    @classmethod
    def from_json(cls, document: list[Any]) -> Moments:
        """Create moments from the result of `to_json`.

        Examples
        --------
        >>> moments = Moments(2, 0, 0.1, math.inf, 7 << 1000, 9, {1: 2}, frozenset([-3, 5]))
        >>> Moments.from_json(moments.to_json()) == moments
        True
        """
        count, masked, least, greatest, total, squares, classes, *rest = document
        around = rest[0] if rest else []  # older versions did not write it
        least, greatest = (
            float.fromhex(end) if isinstance(end, str) else int(end) for end in (least, greatest)
        )
        named = None if classes is None else dict(zip(*classes, strict=True))
        values = None if around is None else frozenset(map(int, around))
        return cls(count, masked, least, greatest, int(total, 16), int(squares, 16), named, values)


def merge_moments(moments: Iterable[Moments]) -> Moments:
    """Return the moments of the pixels of all given ones, in any order."""
    every = list(moments)
    valid = [each for each in every if each.count]
    masked = sum(each.masked for each in every)
    around: frozenset[int] | None = None
    if all(each.around is not None for each in every):
        around = frozenset[int]().union(*(each.around or () for each in every))
        around = around if len(around) <= _MOST_CLASSES else None
    if not valid:
        return Moments(masked=masked, around=around)
    least, greatest = min(each.least for each in valid), max(each.greatest for each in valid)
    classes: dict[int, int] | None = None
    if greatest - least < _MOST_CLASSES and all(each.classes is not None for each in valid):
        found: dict[int, int] = {}
        for each in valid:
            for value, count in (each.classes or {}).items():
                found[value] = found.get(value, 0) + count
        classes = dict(sorted(found.items()))
    return Moments(
        sum(each.count for each in valid),
        masked,
        least,
        greatest,
        sum(each.total for each in valid),
        sum(each.squares for each in valid),
        classes,
        around,
    )


class Tally:
    """Adds up the values of a band, unit by unit.

    Parameters
    ----------
    source : dtype
        The dtype of the band in its source. If it is an integer dtype, the values are whole numbers, whatever
        the dtype of the arrays is.
    """

    def __init__(self, source: np.dtype[Any]) -> None:
        self._whole = source.kind in "biu"
        self._short = self._whole and source.itemsize <= 2
        self._counts = self._whole  # whether the number of values is still small enough for classes
        self._found: list[Moments] = []
        self._sums: list[_Sums] = []

    def add(self, units: Array, masked: NDArray[np.bool_] | None) -> None:
        """Add units: an array (unit, step, height, width), and where it is masked."""
        if masked is not None and not masked.any():
            masked = None
        valid = units if masked is None else units[~masked]
        absent = units.size - valid.size
        if not valid.size:
            self._found.append(Moments(masked=absent))
            return
        if units.dtype == bool:
            units, valid = units.view("uint8"), valid.view("uint8")
        least, greatest = valid.min(), valid.max()
        if self._whole:
            ends: tuple[float, float] = int(least), int(greatest)
        else:
            ends = float(least) + 0.0, float(greatest) + 0.0  # without a negative zero
        # Sums of values of 16 bits are exact in any case.
        exact = self._short and units[0].size <= 1 << 21
        classes = None
        total = squares = 0
        self._counts = self._counts and ends[1] - ends[0] < _MOST_CLASSES
        if self._counts:
            classes = _count_classes(valid, least, greatest)
            if exact:
                total = sum(value * count for value, count in classes.items()) << _POINT
                squares = sum(value * value * count for value, count in classes.items()) << _POINT
        self._found.append(Moments(valid.size, absent, *ends, total, squares, classes))
        if not (exact and classes is not None):
            height = units.shape[2]
            rows = max(1, _UNIT * height // units[0].size)
            for top in range(0, height, rows):  # high units are divided into several ones
                part = slice(top, top + rows)
                with np.errstate(over="ignore", invalid="ignore"):
                    self._sums += _sums_of(units[:, :, part], None if masked is None else masked[:, :, part])

    def add_around(self, values: Array, masked: NDArray[np.bool_] | None) -> None:
        """Note which values occur in pixels that are not counted."""
        if self._counts:
            found = np.unique(values if masked is None else values[~masked])
            around = frozenset(map(int, found.tolist())) if len(found) <= _MOST_CLASSES else None
            self._found.append(Moments(around=around))

    def moments(self) -> Moments:
        """Return the moments of all values so far."""
        found = merge_moments(self._found)
        for power in {sums.power for sums in self._sums}:
            total, squares = _exact([sums for sums in self._sums if sums.power == power])
            found = replace(
                found,
                total=found.total + (total << power),
                squares=found.squares + (squares << 2 * power),
            )
        self._found, self._sums = [found], []
        return found


@dataclass(frozen=True)
class _Sums:
    """Sums of units: of the differences from `center`, and of their squares.

    The values of the units are 2 ** `power` times as large.
    """

    count: Floats
    center: Floats | None
    total: Floats
    squares: Floats
    power: int = 0


def _sums_of(units: Array, masked: NDArray[np.bool_] | None) -> list[_Sums]:
    """Return the sums of units."""
    size = units[0].size
    count = np.full(len(units), float(size))
    if masked is not None:
        count -= np.count_nonzero(masked.reshape(len(units), size), axis=1)
    if units.dtype.kind in "iu" and units.dtype.itemsize == 8:
        # float64 cannot hold all integers, but their differences from one of them, which it can hold.
        largest = units.max()
        first = np.min(units, axis=(1, 2, 3), initial=largest, where=True if masked is None else ~masked)
        first = first >> 11 << 11
        total, squares = _add_up(units, masked, first, 0)
        return [_Sums(count, first.astype(np.float64), total, squares)]
    return _sums_of_floats(units, masked, count, 0)


def _sums_of_floats(units: Array, masked: NDArray[np.bool_] | None, count: Floats, power: int) -> list[_Sums]:
    """Return the sums of units whose values float64 can hold, divided by 2 ** `power`."""
    total, squares = _add_up(units, masked, None, power)
    scatter = squares - total * total / np.maximum(count, 1)
    again = np.flatnonzero(~(scatter >= squares * _NEAR))  # also if a sum is not finite
    if not len(again):
        return [_Sums(count, None, total, squares, power)]
    center = np.zeros(len(units))
    flat, mask = units[again], None if masked is None else masked[again]
    firsts = np.zeros(len(again), int) if mask is None else mask.reshape(len(again), -1).argmin(axis=1)
    start = flat.reshape(len(again), -1)[np.arange(len(again)), firsts].astype(np.float64)
    center[again] = np.ldexp(start, -power)
    total[again], squares[again] = _add_up(flat, mask, center[again], power)
    kept = np.isfinite(squares) & (abs(center) <= 2.0**_LARGE)
    if kept.all():
        return [_Sums(count, center, total, squares, power)]
    found = [_Sums(count[kept], center[kept], total[kept], squares[kept], power)]
    finite = np.isfinite(units) if masked is None else np.isfinite(units) | masked
    finite = ~kept & finite.all(axis=(1, 2, 3))  # infinite values show in the extremes
    if finite.any():
        mask = None if masked is None else masked[finite]
        found += _sums_of_floats(units[finite], mask, count[finite], power + _DOWN)
    return found


def _add_up(
    units: Array, masked: NDArray[np.bool_] | None, center: Array | None, power: int
) -> tuple[Floats, Floats]:
    """Return the sums of units and of their squares, after `center` was subtracted."""
    count, size = len(units), units[0].size
    total, squares = np.empty(count), np.empty(count)
    at_a_time = max(1, _UNIT // size)
    for first in range(0, count, at_a_time):
        own = slice(first, first + at_a_time)
        part = units[own]
        memory = _memory(part.size)
        values = memory.reshape(part.shape)
        if center is not None and center.dtype != np.float64:
            # Differences of integers are right although they overflow.
            np.copyto(values, (part - center[own, None, None, None]).view(np.uint64))
        else:
            np.copyto(values, part)
            if power:
                np.ldexp(values, -power, out=values)
            if center is not None:
                values -= center[own, None, None, None]
        if masked is not None:
            values[masked[own]] = 0
        _row_sums(memory.reshape(len(part), size), total[own], squares[own])
    return total, squares


def _row_sums(values: Floats, total: Floats, squares: Floats) -> None:
    """Add up the rows of a matrix and their squares; the sums only depend on the row."""
    if values.shape[1] <= _ROW:
        np.einsum("ij->i", values, out=total)
        np.einsum("ij,ij->i", values, values, out=squares)
        return
    for number, row in enumerate(values):
        total[number], squares[number] = np.einsum("i->", row), np.einsum("i,i->", row, row)


def _exact(sums: Iterable[_Sums]) -> tuple[int, int]:
    """Return the exact sums of values and of their squares, times 2 ** 1126."""
    totals, squares = [], []
    for each in sums:
        totals.append(each.total)
        squares.append(each.squares)
        if each.center is not None and each.center.any():
            totals += _product(each.count, each.center)
            squares += _product(2 * each.center, each.total)
            for part in _product(each.center, each.center):
                squares += _product(each.count, part)
    return _exact_sum(np.concatenate(totals)), _exact_sum(np.concatenate(squares))


def _product(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Return the products of numbers as exact sums of two numbers; see Dekker (1971)."""
    product = one * other
    (a, b), (c, d) = _halves(one), _halves(other)
    return product, ((a * c - product) + a * d + b * c) + b * d


def _halves(values: Floats) -> tuple[Floats, Floats]:
    large = values * 134217729.0  # 2 ** 27 + 1
    high = large - (large - values)
    return high, values - high


def _exact_sum(values: Floats) -> int:
    """Return the sum of finite numbers, times 2 ** 1126, without rounding.

    Examples
    --------
    >>> _exact_sum(np.array([1e300, 2.0, -1e300])) == 2 << _POINT
    True
    """
    fractions, exponents = np.frexp(values)
    digits = np.ldexp(fractions, 53).astype(np.int64)
    least = int(exponents.min(initial=0))
    bins = exponents - least
    total = 0
    for part, shift in ((digits >> 26, 26), (digits & ((1 << 26) - 1), 0)):
        sums = np.bincount(bins, part)  # exact for up to 2 ** 26 numbers
        for number in np.flatnonzero(sums).tolist():
            total += int(sums[number]) << (number + least + _POINT - 53 + shift)
    return total


def _count_classes(valid: Array, least: Any, greatest: Any) -> dict[int, int]:
    """Return the number of each value of integers that differ by less than 256."""
    # Small numbers are counted from 0, without a subtraction.
    first = 0 if least >= 0 and greatest < 4 * _MOST_CLASSES else int(least)
    counts = np.zeros(int(greatest) - first + 1, np.int64)
    for part in _parts(valid):
        flat = part.reshape(-1)
        if not first:
            flat = flat.astype(np.int64)
        elif flat.dtype.kind == "f":
            flat = (flat - least).astype(np.int64)
        else:  # differences of 64-bit integers are right although they overflow
            flat = flat.astype(np.int64) - np.asarray(least).astype(np.int64)
        counts += np.bincount(flat, minlength=len(counts))
    return {first + number: int(counts[number]) for number in np.flatnonzero(counts).tolist()}


def _parts(values: Array) -> Iterator[Array]:
    """Divide values so that they stay in the cache."""
    if values.size <= _UNIT:
        yield values
        return
    if len(values) == 1:
        yield from _parts(values[0])
        return
    step = max(1, _UNIT * len(values) // values.size)
    for first in range(0, len(values), step):
        yield from _parts(values[first : first + step]) if step == 1 else [values[first : first + step]]


def _divide(one: int, other: int) -> float:
    try:
        return one / other  # correctly rounded
    except OverflowError:
        return math.copysign(math.inf, one)


def _root(one: int, other: int) -> float:
    try:
        return math.sqrt(one / other)
    except OverflowError:
        return math.ldexp(math.sqrt(one / (other << 2 * _DOWN)), _DOWN)


def _memory(size: int) -> Floats:
    """Return memory of this thread for a few values."""
    memory: Floats | None = getattr(_kept, "memory", None)
    if memory is None or len(memory) < size:
        memory = np.empty(max(size, _UNIT), np.float64)
        if size <= 4 * _UNIT:
            _kept.memory = memory
    return memory[:size]
