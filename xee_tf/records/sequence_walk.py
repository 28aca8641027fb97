"""Reading many SequenceExamples side by side: a cursor in each, all moved field by field together.

Records that hold the same features in the same order differ in numbers of steps and in lengths of
varints, so that nothing in them has a fixed place; but what comes next is the same in all of them. Where
a record turns out to be different, it is left to others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.records.example import Feature, Kind
from xee_tf.records.ragged import Ragged, gather, join
from xee_tf.records.sequence import SequenceLayout
from xee_tf.records.sequence_template import Slot, context_head, step_head, wrap
from xee_tf.records.varint import MAX_VARINT

__all__ = ["STORED", "Found", "Order", "walk"]

Order = tuple[tuple[str, ...], tuple[str, ...]]
"""Names in the context and in the feature lists, as they come in a message."""

STORED: dict[Kind, np.dtype[Any]] = {
    "float": np.dtype("<f4"),
    "int64": np.dtype("<i8"),
    "bytes": np.dtype("|u1"),
}
"""What the values of each kind are read as."""

_STEP_VARINTS = 6  # in front of a step's integers: three tags, each with a length
_LONGEST_SIZE = 28  # bits that may be in front of the last seven of a length


@dataclass(frozen=True, slots=True)
class Found:
    """The values of some records.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
        Their numbers, ascending.
    context : dict of str to ndarray, shape (n, size)
    sequences : dict of str to (ndarray, shape (all their steps, size); ndarray of int64, shape (n,))
        The steps of all records, one record's after the other's, and how many each has.
    """

    rows: npt.NDArray[np.int64]
    context: dict[str, npt.NDArray[Any]]
    sequences: dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]


def walk(
    raw: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    order: Order,
    layout: SequenceLayout,
) -> tuple[npt.NDArray[np.bool_], Found]:
    """Which messages hold the features of `order` in that order and nothing else, and their values.

    Parameters
    ----------
    raw : ndarray of uint8, shape (bytes,)
        Contiguous.
    rows, begins, ends : ndarray of int64, shape (n,)
        Numbers of records, and where their messages begin and end in `raw`.
    order : Order
        Has all names of `layout`, and maybe others: those are stepped over.
    layout : SequenceLayout
        What to look for.

    Returns
    -------
    right : ndarray of bool, shape (n,)
    found : Found
        Of the records that are right.
    """
    cursor = _Cursor(raw, begins.copy(), ends, np.ones(len(rows), bool))
    wanted = {feature.name: feature for feature in layout.context}
    context = {}
    if order[0]:
        close = cursor.open(b"\x0a")
        for name in order[0]:
            values = _read_context(cursor, name, wanted.get(name))
            if values is not None:
                context[name] = values
        cursor.right &= cursor.at == close
    wanted = {feature.name: feature for feature in layout.sequences}
    sequences = {}
    if order[1]:
        close = cursor.open(b"\x12")
        for name in order[1]:
            steps = _read_steps(cursor, name, wanted.get(name))
            if steps is not None:
                sequences[name] = steps
        cursor.right &= cursor.at == close
    right = cursor.right & (cursor.at == ends)
    found = Found(rows, context, sequences)
    return right, found if right.all() else _only(found, right)


def _only(found: Found, right: npt.NDArray[np.bool_]) -> Found:
    return Found(
        found.rows[right],
        {name: values[right] for name, values in found.context.items()},
        {
            name: (values[np.repeat(right, counts)], counts[right])
            for name, (values, counts) in found.sequences.items()
        },
    )


@dataclass(slots=True)
class _Cursor:
    """A place in each message; `right` is False for good where a message is not what was expected."""

    raw: npt.NDArray[np.uint8]
    at: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]

    def expect(self, data: bytes) -> None:
        """Step over constant bytes."""
        self.right &= _begin_with(self._peek(len(data)), data)
        self.at += len(data)

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Step over `size` bytes and return them, shape (n, size)."""
        taken = self._peek(size)
        self.at += size
        return taken

    def _peek(self, size: int) -> npt.NDArray[np.uint8]:
        if len(self.raw) < size:
            self.right[:] = False
            return np.zeros((len(self.at), size), np.uint8)
        # A message that is not right may lead anywhere: its bytes do not matter any more.
        return gather(self.raw, np.minimum(self.at, len(self.raw) - size), size)

    def open(self, tag: bytes) -> npt.NDArray[np.int64]:
        """Step into a field; returns where it ends."""
        self.expect(tag)
        size = np.zeros(len(self.at), np.int64)
        more = np.arange(len(self.at))
        for shift in range(0, _LONGEST_SIZE + 1, 7):
            byte = self.raw.take(self.at[more], mode="clip")
            size[more] |= (byte & np.int64(0x7F)) << shift
            self.at[more] += 1
            more = more[byte >= 0x80]
            if not len(more):
                break
        self.right[more] = False
        close = self.at + size
        self.right &= close <= self.ends
        return close

    def open_inner(self, tag: bytes, close: npt.NDArray[np.int64]) -> None:
        """Step into the last field of a message that ends at `close`."""
        self.right &= self.open(tag) == close

    def rest(self, close: npt.NDArray[np.int64]) -> Ragged:
        """Step over the bytes before `close` and return them; nothing where a message is not right."""
        self.right &= close >= self.at
        sizes = np.where(self.right, close - self.at, 0)
        starts = np.where(self.right, self.at, 0)
        self.at = close.copy()
        return Ragged(self.raw, starts, sizes)


def _read_context(cursor: _Cursor, name: str, feature: Feature | None) -> npt.NDArray[Any] | None:
    """The values of one feature, shape (n, size); None if it is not asked for."""
    if feature and feature.kind != "int64":
        cursor.expect(context_head(feature, feature.max_bytes))
        return cursor.take(feature.max_bytes).view(STORED[feature.kind])
    close = cursor.open(b"\x0a")
    cursor.expect(wrap(0x0A, name.encode(), 0))
    if not feature:
        cursor.rest(close)
        return None
    for tag in (b"\x12", b"\x1a", b"\x0a"):
        cursor.open_inner(tag, close)
    integers, counts = _integers(cursor, cursor.rest(close), 0, feature.size)
    cursor.right &= counts == 1
    # Where there are none, or too many, something must stand in their place for now.
    values = np.zeros((len(counts), feature.size), np.int64)
    values[counts == 1] = integers[np.repeat(counts == 1, counts)]
    return values


def _read_steps(
    cursor: _Cursor, name: str, feature: Feature | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]] | None:
    """The values of all steps of one feature and how many each record has; None if not asked for."""
    close = cursor.open(b"\x0a")
    cursor.expect(wrap(0x0A, name.encode(), 0))
    if not feature:
        cursor.rest(close)
        return None
    cursor.open_inner(b"\x12", close)
    payload = cursor.rest(close)
    if feature.kind == "int64":
        return _integers(cursor, payload, _STEP_VARINTS, feature.size)
    head = step_head(feature.kind, feature.max_bytes)
    stride = len(head) + feature.max_bytes
    whole = payload.sizes % stride == 0
    cursor.right &= whole
    counts = np.where(whole, payload.sizes, 0) // stride
    steps = join([Ragged(payload.data, payload.starts, counts * stride)]).data.reshape(-1, stride)
    _mark(cursor, _begin_with(steps, head), counts)
    place = Slot(feature, len(head)).place(steps, (len(steps), feature.size))
    return place.astype(STORED[feature.kind]), counts


def _integers(
    cursor: _Cursor, payload: Ragged, lead: int, size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Groups of `size` integers, each behind `lead` varints of tags and lengths.

    Every byte of them belongs to some varint, and a varint ends where a byte's top bit is not set.

    Returns
    -------
    values : ndarray of int64, shape (all groups, size)
    counts : ndarray of int64, shape (n,)
        Groups of each record.
    """
    group = lead + size
    for _ in range(2):
        packed = join([payload])
        data, ends = packed.data, packed.starts + packed.sizes
        last = np.flatnonzero(data < 0x80)
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
    first = np.empty_like(last)
    first[:1] = 0
    first[1:] = last[:-1] + 1
    begins, stops = first.reshape(-1, group), last.reshape(-1, group)
    right: npt.NDArray[np.bool_] = np.all(stops - begins < MAX_VARINT, axis=1)
    for place, tag in zip(range(0, lead, 2), (0x0A, 0x1A, 0x0A), strict=False):
        right &= (begins[:, place] == stops[:, place]) & (data[begins[:, place]] == tag)
        # Contained in one another, the three messages all end where the last integer does.
        sizes = _numbers(data, begins[:, place + 1], stops[:, place + 1])
        right &= sizes == stops[:, -1] - stops[:, place + 1]
    _mark(cursor, right, counts)
    return _numbers(data, begins[:, lead:], stops[:, lead:]), counts


def _numbers(
    data: npt.NDArray[np.uint8], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The numbers of the varints between first and last bytes, of any shape."""
    extra = np.minimum(last - first, MAX_VARINT - 1)
    out = (data[first] & 0x7F).astype(np.uint64)
    for place in range(1, int(extra.max(initial=0)) + 1):
        chosen = np.nonzero(extra >= place)
        out[chosen] |= (data[first[chosen] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return out.view(np.int64)


def _mark(cursor: _Cursor, right: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64]) -> None:
    """Note which records have a step that is not right."""
    if not right.all():
        cursor.right[np.repeat(np.arange(len(counts)), counts)[~right]] = False


def _begin_with(rows: npt.NDArray[np.uint8], data: bytes) -> npt.NDArray[np.bool_]:
    """Whether each row of a matrix begins with some bytes; several are compared at a time."""
    right = np.ones(len(rows), bool)
    place = 0
    while place < len(data) and len(rows):
        width = next(width for width in (8, 4, 2, 1) if place + width <= len(data))
        pieces: npt.NDArray[Any] = np.ndarray((len(rows),), f"<u{width}", rows, place, rows.strides[:1])
        right &= pieces == np.frombuffer(data, f"<u{width}", 1, place)
        place += width
    return right
