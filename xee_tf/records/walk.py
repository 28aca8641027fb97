"""Decode many messages in parallel: each has a cursor, and all cursors move together, field by field.

Records with the same features in the same order may differ in numbers of steps, in lengths of varints and
strings, and in features that some of them lack. No field has a fixed offset then, but the next field is
known. Records that turn out to be different are reported as invalid, for the caller to decode.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.records.feature import Feature
from xee_tf.records.frames import Frames
from xee_tf.records.framing import FOOTER, HEADER
from xee_tf.records.layout import LIST_FIELDS, Slot, context_head, step_head
from xee_tf.records.ragged import Ragged, gather, join
from xee_tf.varints import varint_ends, varint_values
from xee_tf.wire import MAX_VARINT, encode_field

__all__ = ["FeatureValues", "Order", "Selection", "by_name", "walk"]

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_STEP_VARINTS = 6  # varints before the integers of a step: three tags, each with a length
_LONG_LIST = 4096  # integers from which lists are decoded one by one; temporary arrays stay in the cache
_MAX_LENGTH_SHIFT = 28  # maximum number of bits before the last seven bits of a length


@dataclass(frozen=True)
class Order:
    """The order of the features in a message; a record may lack some of them.

    Parameters
    ----------
    context : tuple of Feature
        The features of the context.
    sequences : tuple of Feature
        The feature lists; empty for Examples.
    """

    context: tuple[Feature, ...]
    sequences: tuple[Feature, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The features whose values are decoded.

    Parameters
    ----------
    context, sequences : collection of str, optional
        The names of the features. Default: all.
    ignore_others : bool, default False
        Whether other features may have any kind and size.
    """

    context: Collection[str] | None = None
    sequences: Collection[str] | None = None
    ignore_others: bool = False


@dataclass(frozen=True, eq=False)
class FeatureValues:
    """The values of one feature in the records that have it.

    Parameters
    ----------
    feature : Feature
        The feature.
    index : int
        The index of the feature in the record.
    records : ndarray of int64, shape (n,)
        The indices of the records, ascending.
    values : ndarray or Ragged, optional
        Numbers and blobs: shape ``(n, size)``; in sequences ``(all steps, size)``, record by record, or
        ``(n, steps, size)``. Single byte strings: Ragged. Several byte strings: shape ``(n,)`` with lists of
        bytes. None if the feature is not selected.
    steps : ndarray of int64, shape (n,), optional
        For sequences: the number of steps of each record.
    """

    feature: Feature
    index: int
    records: Integers
    values: npt.NDArray[Any] | Ragged | None
    steps: Integers | None = None

    def select(self, chosen: Mask) -> FeatureValues:
        """Return the feature in some of its records."""
        if chosen.all():
            return self
        values = self.values
        if values is not None:
            rows = chosen if self.steps is None else np.repeat(chosen, self.steps)
            values = values[np.flatnonzero(rows)]
        steps = None if self.steps is None else self.steps[chosen]
        return replace(self, records=self.records[chosen], values=values, steps=steps)


def by_name(parts: Iterable[FeatureValues]) -> dict[str, list[FeatureValues]]:
    """Group features by their name."""
    named: dict[str, list[FeatureValues]] = {}
    for part in parts:
        named.setdefault(part.feature.name, []).append(part)
    return named


def walk(
    frames: Frames, records: Integers, order: Order, selection: Selection
) -> tuple[Mask, list[FeatureValues]]:
    """Decode the records whose features all appear in `order`, in that order.

    Return which of the records are valid in this sense, and their features. Values may be views of the
    buffer.
    """
    begins, ends = frames.offsets[records] + HEADER, frames.offsets[records + 1] - FOOTER
    cursor = _Cursor(frames.raw, begins, ends, np.ones(len(records), bool))
    found: list[FeatureValues] = []
    for number, features, names in (
        (1, order.context, selection.context),
        (2, order.sequences, selection.sequences),
    ):
        if not features:
            continue
        close = cursor.open(number)
        present: dict[str, Mask] = {}
        for index, feature in enumerate(features):
            selected = names is None or feature.name in names
            inside = replace(
                cursor, position=cursor.position.copy(), valid=cursor.valid & (cursor.position < close)
            )
            decode = _decode_context if number == 1 else _decode_sequence
            skipped = selection.ignore_others and not selected
            values, steps = decode(inside, feature, skip=skipped)
            has = inside.valid
            if feature.name in present:  # the last feature of a name counts: only the parser handles this
                cursor.valid &= ~(has & present[feature.name])
                has = has | present[feature.name]
            present[feature.name] = has
            if inside.valid.all():
                cursor.position = inside.position
            else:
                cursor.position = np.where(inside.valid, inside.position, cursor.position)
            if inside.valid.any() and not skipped:
                found.append(
                    FeatureValues(
                        feature, index, np.flatnonzero(inside.valid), values if selected else None, steps
                    )
                )
        cursor.valid &= cursor.position == close
    valid = cursor.valid & (cursor.position == ends)
    parts = [part.select(valid[part.records]) for part in found]
    return valid, [replace(part, records=records[part.records]) for part in parts if len(part.records)]


@dataclass(slots=True)
class _Cursor:
    """A position in each message; `valid` becomes False when a message is not as expected."""

    raw: Bytes
    position: Integers
    ends: Integers
    valid: Mask

    def expect(self, data: bytes) -> None:
        """Advance past constant bytes."""
        equal = _start_with(self.take(len(data)), data)
        if len(equal) == len(self.valid):
            self.valid &= equal
        else:
            self.valid[self.valid] = equal

    def take(self, size: int) -> Bytes:
        """Advance past `size` bytes; return them for the valid messages, shape (n, size).

        Only these are copied: all together could take many times the memory of the messages.
        """
        start = self.position
        self.valid &= start + size <= self.ends
        self.position = start + size
        return gather(self.raw, start if self.valid.all() else start[self.valid], size)

    def open(self, number: int) -> Integers:
        """Advance past the tag and the length of a field; return the end of the field."""
        self.expect(bytes((number << 3 | 2,)))
        byte = self.raw.take(self.position, mode="clip")
        size = (byte & 0x7F).astype(np.int64)
        self.position += 1
        more = np.flatnonzero(byte >= 0x80)
        for shift in range(7, _MAX_LENGTH_SHIFT + 1, 7):
            if not len(more):
                break
            byte = self.raw.take(self.position[more], mode="clip")
            size[more] |= (byte & np.int64(0x7F)) << shift
            self.position[more] += 1
            more = more[byte >= 0x80]
        self.valid[more] = False
        close = self.position + size
        self.valid &= close <= self.ends
        return close

    def open_last(self, number: int, close: Integers) -> None:
        """Advance past the tag and the length of the last field of a message, which ends at `close`."""
        self.valid &= self.open(number) == close

    def take_until(self, close: Integers) -> Ragged:
        """Advance to `close` and return the bytes before it; invalid messages have empty strings."""
        self.valid &= close >= self.position
        sizes = np.where(self.valid, close - self.position, 0)
        starts = np.where(self.valid, self.position, 0)
        self.position = close.copy()
        return Ragged(self.raw, starts, sizes)


_Values = tuple[npt.NDArray[Any] | Ragged | None, Integers | None]


def _decode_context(cursor: _Cursor, feature: Feature, *, skip: bool) -> _Values:
    """Decode a feature of the context; only the messages that have it stay valid."""
    if feature.fixed_size and not skip:
        cursor.expect(context_head(feature, feature.max_bytes))
        return cursor.take(feature.max_bytes).view(feature.dtype), None
    close = cursor.open(1)
    cursor.expect(encode_field(1, feature.name.encode()))
    if skip:
        cursor.take_until(close)
        return None, None
    if not cursor.valid.any():
        return None, None
    cursor.open_last(2, close)
    cursor.open_last(LIST_FIELDS[feature.kind], close)
    if not feature.size:
        cursor.valid &= cursor.position == close
        count = int(cursor.valid.sum())
        if feature.kind == "bytes":
            return np.fromiter(([] for _ in range(count)), object, count), None
        return np.empty((count, 0), feature.dtype), None
    cursor.open_last(1, close)
    payload = cursor.take_until(close)
    if feature.kind == "int64" and feature.size >= _LONG_LIST:
        return _decode_long_lists(cursor, payload, feature.size), None
    if feature.holds_strings:
        return payload[np.flatnonzero(cursor.valid)], None
    values, counts = _decode_integers(cursor, payload, 0, feature.size)
    cursor.valid &= counts == 1
    return (values if cursor.valid.all() else values[np.repeat(cursor.valid, counts)]), None


def _decode_sequence(cursor: _Cursor, feature: Feature, *, skip: bool) -> _Values:
    """Decode a feature list, as `_decode_context` does; also return the number of steps of each message."""
    close = cursor.open(1)
    cursor.expect(encode_field(1, feature.name.encode()))
    if skip:
        cursor.take_until(close)
        return None, None
    cursor.open_last(2, close)
    payload = cursor.take_until(close)
    if feature.kind == "int64":
        values, counts = _decode_integers(cursor, payload, _STEP_VARINTS, feature.size)
    else:
        head = step_head(feature, feature.max_bytes)
        stride = len(head) + feature.max_bytes
        whole = payload.sizes % stride == 0
        cursor.valid &= whole
        counts = np.where(whole, payload.sizes, 0) // stride
        steps = join([Ragged(payload.data, payload.starts, counts * stride)]).data.reshape(-1, stride)
        _mark_invalid(cursor, _start_with(steps, head), counts)
        values = Slot(feature, len(head)).view(steps, (len(steps), feature.size)).astype(feature.dtype)
    if cursor.valid.all():
        return values, counts
    return values[np.repeat(cursor.valid, counts)], counts[cursor.valid]


def _decode_long_lists(cursor: _Cursor, payload: Ragged, size: int) -> npt.NDArray[np.int64]:
    """Decode long lists of integers one by one, shape (n, size)."""
    values = np.empty((len(payload), size), np.int64)
    for row in np.flatnonzero(cursor.valid).tolist():
        start = int(payload.starts[row])
        data = payload.data[start : start + int(payload.sizes[row])]
        first, last = varint_ends(data)
        if first.size == size and data[-1] < 0x80 and int((last - first).max()) < MAX_VARINT:
            varint_values(data, first, last, values[row])
        else:
            cursor.valid[row] = False
    return values if cursor.valid.all() else values[cursor.valid]


def _decode_integers(
    cursor: _Cursor, payload: Ragged, lead: int, size: int
) -> tuple[npt.NDArray[np.int64], Integers]:
    """Decode groups of `size` integers; each follows `lead` varints, which are tags and lengths.

    Return the integers and the number of groups per record. All bytes belong to varints; the last byte of a
    varint is the one whose top bit is not set.
    """
    group = lead + size
    for _ in range(2):
        packed = join([payload])
        data, ends = packed.data, packed.starts + packed.sizes
        first, last = varint_ends(data)
        varints = np.diff(np.searchsorted(last, ends), prepend=0)
        whole = varints % group == 0
        filled = packed.sizes > 0
        whole[filled] &= data[ends[filled] - 1] < 0x80
        if whole.all():
            break
        # Drop records without a whole number of groups: they would shift the groups of all following records.
        cursor.valid &= whole
        payload = Ragged(data, packed.starts, np.where(whole, packed.sizes, 0))
    counts = varints // group
    valid: Mask = np.all((last - first < MAX_VARINT).reshape(-1, group), axis=1)
    begins, stops = first.reshape(-1, group), last.reshape(-1, group)
    for column, tag in zip(range(0, lead, 2), (0x0A, 0x1A, 0x0A), strict=False):
        valid &= (begins[:, column] == stops[:, column]) & (data[begins[:, column]] == tag)
        # The three messages are nested, so all of them end with the last integer.
        sizes = varint_values(data, begins[:, column + 1], stops[:, column + 1])
        valid &= sizes == stops[:, -1] - stops[:, column + 1]
    _mark_invalid(cursor, valid, counts)
    if lead:
        first, last = begins[:, lead:].reshape(-1), stops[:, lead:].reshape(-1)
    return varint_values(data, first, last).reshape(len(begins), size), counts


def _mark_invalid(cursor: _Cursor, valid: Mask, counts: Integers) -> None:
    """Mark records as invalid that have an invalid step; `counts` are the steps of each record."""
    if not valid.all():
        cursor.valid[np.repeat(np.arange(len(counts)), counts)[~valid]] = False


def _start_with(rows: Bytes, data: bytes) -> Mask:
    """Return whether each row of a matrix starts with `data`; up to eight bytes are compared at a time."""
    equal = np.ones(len(rows), bool)
    offset = 0
    while offset < len(data) and len(rows):
        width = next(width for width in (8, 4, 2, 1) if offset + width <= len(data))
        words: npt.NDArray[Any] = np.ndarray((len(rows),), f"<u{width}", rows, offset, rows.strides[:1])
        equal &= words == np.frombuffer(data, f"<u{width}", 1, offset)
        offset += width
    return equal
