"""Reading many messages side by side: a cursor in each, all moved field by field together.

Records that hold the same features in the same order differ in numbers of steps, in lengths of varints and
strings, and in features that some of them lack, so that nothing in them has a fixed place; but what comes
next is known. A record that turns out to be different is left to others.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.records.feature import STRINGS, Feature
from xee_tf.records.frames import Frames
from xee_tf.records.framing import FOOTER, HEADER
from xee_tf.records.layout import LISTS, Slot, context_head, step_head
from xee_tf.records.ragged import Ragged, gather, join
from xee_tf.varints import varint_ends, varint_values
from xee_tf.wire import MAX_VARINT, encode_field

__all__ = ["FeatureValues", "Order", "Wanted", "walk"]

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_STEP_VARINTS = 6  # in front of a step's integers: three tags, each with a length
_LONG_LIST = 4096  # integers of a list from which on each is read by itself: its scratch arrays stay in cache
_LONGEST_SIZE = 28  # bits that may be in front of the last seven of a length


@dataclass(frozen=True)
class Order:
    """Features as they come in a message; a record may lack some of them.

    Parameters
    ----------
    context : tuple of Feature
    sequences : tuple of Feature
        Empty for Examples.
    """

    context: tuple[Feature, ...]
    sequences: tuple[Feature, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """The features whose values are read.

    Parameters
    ----------
    context, sequences : collection of str or None
        Their names. None: all.
    pass_others : bool
        Whether other features may be of any kind and size.
    """

    context: Collection[str] | None = None
    sequences: Collection[str] | None = None
    pass_others: bool = False


@dataclass(frozen=True, eq=False)
class FeatureValues:
    """One feature of the records that have it.

    Parameters
    ----------
    feature : Feature
    place : int
        Its place among the features of a record.
    records : ndarray of int64, shape (n,)
        The numbers of the records, ascending.
    values : ndarray, Ragged or None
        Arrays of shape ``(n, size)``; of a sequence ``(all steps, size)``, one record's after the other's, or
        ``(n, steps, size)``. Ragged of single byte strings; arrays of shape ``(n,)`` with lists of bytes of
        several. None if not wanted.
    steps : ndarray of int64, shape (n,), or None
        Of a sequence: the steps of each record.
    """

    feature: Feature
    place: int
    records: Integers
    values: npt.NDArray[Any] | Ragged | None
    steps: Integers | None = None

    def of_records(self, chosen: Mask) -> FeatureValues:
        """The same of some of its records."""
        if chosen.all():
            return self
        values = self.values
        if values is not None:
            rows = chosen if self.steps is None else np.repeat(chosen, self.steps)
            values = values[np.flatnonzero(rows)]
        steps = None if self.steps is None else self.steps[chosen]
        return replace(self, records=self.records[chosen], values=values, steps=steps)


def walk(frames: Frames, records: Integers, order: Order, wanted: Wanted) -> tuple[Mask, list[FeatureValues]]:
    """Which records hold features of `order` in that order and nothing else, and the features of those.

    Values may be views of the buffer.
    """
    begins, ends = frames.offsets[records] + HEADER, frames.offsets[records + 1] - FOOTER
    cursor = _Cursor(frames.raw, begins, ends, np.ones(len(records), bool))
    found: list[FeatureValues] = []
    for number, features, names in (
        (1, order.context, wanted.context),
        (2, order.sequences, wanted.sequences),
    ):
        if not features:
            continue
        close = cursor.open(number)
        seen: dict[str, Mask] = {}
        for place, feature in enumerate(features):
            read = names is None or feature.name in names
            inside = replace(cursor, at=cursor.at.copy(), right=cursor.right & (cursor.at < close))
            read_one = _context if number == 1 else _sequence
            passed = wanted.pass_others and not read
            values, steps = read_one(inside, feature, passed=passed)
            there = inside.right
            if feature.name in seen:  # of a name that comes twice the last one counts: left to others
                cursor.right &= ~(there & seen[feature.name])
                there = there | seen[feature.name]
            seen[feature.name] = there
            if inside.right.all():
                cursor.at = inside.at
            else:
                cursor.at = np.where(inside.right, inside.at, cursor.at)
            if inside.right.any() and not passed:
                found.append(
                    FeatureValues(
                        feature, place, np.flatnonzero(inside.right), values if read else None, steps
                    )
                )
        cursor.right &= cursor.at == close
    right = cursor.right & (cursor.at == ends)
    parts = [part.of_records(right[part.records]) for part in found]
    return right, [replace(part, records=records[part.records]) for part in parts if len(part.records)]


@dataclass(slots=True)
class _Cursor:
    """A place in each message; `right` is False for good where a message is not what was expected."""

    raw: Bytes
    at: Integers
    ends: Integers
    right: Mask

    def expect(self, data: bytes) -> None:
        """Step over constant bytes."""
        self.right &= _begin_with(self._peek(len(data)), data)
        self.at += len(data)

    def take(self, size: int) -> Bytes:
        """Step over `size` bytes; those of the messages that are right, shape (n, size)."""
        self.right &= self.at + size <= self.ends
        taken = self._peek(size)
        self.at += size
        return taken if self.right.all() else taken[self.right]

    def _peek(self, size: int) -> Bytes:
        if len(self.raw) < size:
            self.right[:] = False
            return np.zeros((len(self.at), size), np.uint8)
        # A message that is not right may lead anywhere: its bytes do not matter any more.
        return gather(self.raw, np.minimum(self.at, len(self.raw) - size), size)

    def open(self, number: int) -> Integers:
        """Step into a field; returns where it ends."""
        self.expect(bytes((number << 3 | 2,)))
        byte = self.raw.take(self.at, mode="clip")
        size = (byte & 0x7F).astype(np.int64)
        self.at += 1
        more = np.flatnonzero(byte >= 0x80)
        for shift in range(7, _LONGEST_SIZE + 1, 7):
            if not len(more):
                break
            byte = self.raw.take(self.at[more], mode="clip")
            size[more] |= (byte & np.int64(0x7F)) << shift
            self.at[more] += 1
            more = more[byte >= 0x80]
        self.right[more] = False
        close = self.at + size
        self.right &= close <= self.ends
        return close

    def open_inner(self, number: int, close: Integers) -> None:
        """Step into the last field of a message that ends at `close`."""
        self.right &= self.open(number) == close

    def rest(self, close: Integers) -> Ragged:
        """Step over the bytes before `close` and return them; nothing where a message is not right."""
        self.right &= close >= self.at
        sizes = np.where(self.right, close - self.at, 0)
        starts = np.where(self.right, self.at, 0)
        self.at = close.copy()
        return Ragged(self.raw, starts, sizes)


_Values = tuple[npt.NDArray[Any] | Ragged | None, Integers | None]


def _context(cursor: _Cursor, feature: Feature, *, passed: bool) -> _Values:
    """The values of one feature of the messages that have it: all whose cursor stays right."""
    if feature.exact and not passed:
        cursor.expect(context_head(feature, feature.max_bytes))
        return cursor.take(feature.max_bytes).view(feature.dtype), None
    close = cursor.open(1)
    cursor.expect(encode_field(1, feature.name.encode()))
    if passed:
        cursor.rest(close)
        return None, None
    if not cursor.right.any():
        return None, None
    cursor.open_inner(2, close)
    cursor.open_inner(LISTS[feature.kind], close)
    if not feature.size:
        cursor.right &= cursor.at == close
        nothing = int(cursor.right.sum())
        if feature.kind == "bytes":
            return np.fromiter(([] for _ in range(nothing)), object, nothing), None
        return np.empty((nothing, 0), feature.dtype), None
    cursor.open_inner(1, close)
    payload = cursor.rest(close)
    if feature.kind == "int64" and feature.size >= _LONG_LIST:
        return _long_lists(cursor, payload, feature.size), None
    if feature.dtype == STRINGS:
        return payload[np.flatnonzero(cursor.right)], None
    values, counts = _integers(cursor, payload, 0, feature.size)
    cursor.right &= counts == 1
    return (values if cursor.right.all() else values[np.repeat(cursor.right, counts)]), None


def _sequence(cursor: _Cursor, feature: Feature, *, passed: bool) -> _Values:
    """The steps of one feature list, as `_context`, and how many each message has."""
    close = cursor.open(1)
    cursor.expect(encode_field(1, feature.name.encode()))
    if passed:
        cursor.rest(close)
        return None, None
    cursor.open_inner(2, close)
    payload = cursor.rest(close)
    if feature.kind == "int64":
        values, counts = _integers(cursor, payload, _STEP_VARINTS, feature.size)
    else:
        head = step_head(feature, feature.max_bytes)
        stride = len(head) + feature.max_bytes
        whole = payload.sizes % stride == 0
        cursor.right &= whole
        counts = np.where(whole, payload.sizes, 0) // stride
        steps = join([Ragged(payload.data, payload.starts, counts * stride)]).data.reshape(-1, stride)
        _mark(cursor, _begin_with(steps, head), counts)
        values = Slot(feature, len(head)).view(steps, (len(steps), feature.size)).astype(feature.dtype)
    if cursor.right.all():
        return values, counts
    return values[np.repeat(cursor.right, counts)], counts[cursor.right]


def _long_lists(cursor: _Cursor, payload: Ragged, size: int) -> npt.NDArray[np.int64]:
    """Long lists of integers of the messages that have them, shape (n, size)."""
    values = np.empty((len(payload), size), np.int64)
    for row in np.flatnonzero(cursor.right).tolist():
        start = int(payload.starts[row])
        data = payload.data[start : start + int(payload.sizes[row])]
        first, last = varint_ends(data)
        if first.size == size and data[-1] < 0x80 and int((last - first).max()) < MAX_VARINT:
            varint_values(data, first, last, values[row])
        else:
            cursor.right[row] = False
    return values if cursor.right.all() else values[cursor.right]


def _integers(
    cursor: _Cursor, payload: Ragged, lead: int, size: int
) -> tuple[npt.NDArray[np.int64], Integers]:
    """Groups of `size` integers, each behind `lead` varints of tags and lengths; and how many a record has.

    Every byte of them belongs to some varint, and a varint ends where a byte's top bit is not set.
    """
    group = lead + size
    for _ in range(2):
        packed = join([payload])
        data, ends = packed.data, packed.starts + packed.sizes
        first, last = varint_ends(data)
        many = np.diff(np.searchsorted(last, ends), prepend=0)
        whole = many % group == 0
        filled = packed.sizes > 0
        whole[filled] &= data[ends[filled] - 1] < 0x80
        if whole.all():
            break
        # Those that do not hold whole groups go; they would put all behind them out of step.
        cursor.right &= whole
        payload = Ragged(data, packed.starts, np.where(whole, packed.sizes, 0))
    counts = many // group
    right: Mask = np.all((last - first < MAX_VARINT).reshape(-1, group), axis=1)
    begins, stops = first.reshape(-1, group), last.reshape(-1, group)
    for place, tag in zip(range(0, lead, 2), (0x0A, 0x1A, 0x0A), strict=False):
        right &= (begins[:, place] == stops[:, place]) & (data[begins[:, place]] == tag)
        # Contained in one another, the three messages all end where the last integer does.
        sizes = varint_values(data, begins[:, place + 1], stops[:, place + 1])
        right &= sizes == stops[:, -1] - stops[:, place + 1]
    _mark(cursor, right, counts)
    if lead:
        first, last = begins[:, lead:].reshape(-1), stops[:, lead:].reshape(-1)
    return varint_values(data, first, last).reshape(-1, size), counts


def _mark(cursor: _Cursor, right: Mask, counts: Integers) -> None:
    """Note which records have a step that is not right."""
    if not right.all():
        cursor.right[np.repeat(np.arange(len(counts)), counts)[~right]] = False


def _begin_with(rows: Bytes, data: bytes) -> Mask:
    """Whether each row of a matrix begins with some bytes; several are compared at a time."""
    right = np.ones(len(rows), bool)
    place = 0
    while place < len(data) and len(rows):
        width = next(width for width in (8, 4, 2, 1) if place + width <= len(data))
        pieces: npt.NDArray[Any] = np.ndarray((len(rows),), f"<u{width}", rows, place, rows.strides[:1])
        right &= pieces == np.frombuffer(data, f"<u{width}", 1, place)
        place += width
    return right
