"""Framed records of a table to columns of values.

Records of the same numbers have one length, and are read as a matrix. Where strings or integers make the
length vary, or features are absent, all records are taken apart together, feature by feature. Records
that cannot be read so (lists that are not packed, or that hold several integers or byte strings) are
parsed one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.decoding import decode_example, longest_run, verify_block
from xee_tf.records.example import Feature, Kind, RecordLayout
from xee_tf.records.framing import FOOTER, HEADER, check_data, frame_offsets, read_length
from xee_tf.records.ragged import gather
from xee_tf.records.varint import MAX_VARINT, encode_varint
from xee_tf.tables.schema import Strings, Values

__all__ = ["Field", "Piece", "Structure", "decode_rows"]

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

_MAX_ORDERS = 16  # of features that are tried on a buffer: protobuf's maps have none of their own
_PAD = 1024  # bytes behind a buffer, into which records that do not fit may run


@dataclass(frozen=True)
class Field:
    """A feature of a record.

    Parameters
    ----------
    name : str
    kind : {"bytes", "float", "int64"}
    size : int
        Values in its list.
    """

    name: str
    kind: Kind
    size: int

    def __str__(self) -> str:
        return f"{self.size} {'byte string' if self.kind == 'bytes' else self.kind} value(s)"

    @property
    def is_plain(self) -> bool:
        """Whether the values of many records can be read together."""
        return (self.kind == "float" or self.size <= 1) and len(self.name) < _PAD // 5


Structure = tuple[Field, ...]
"""The features of a record, in the order of the message."""


@dataclass(frozen=True)
class Piece:
    """One feature of the records of a file that have it.

    Parameters
    ----------
    field : Field
    place : int
        Its place among the features of a record.
    records : ndarray of int64, shape (n,)
        The numbers of the records, ascending.
    values : ndarray, Strings or None
        `Strings` for lists of one byte string; float32 or int64 arrays of shape ``(n, size)``; arrays of
        shape ``(n,)`` with lists of bytes. None if the feature is not wanted.
    """

    field: Field
    place: int
    records: Places
    values: Values | None


def decode_rows(
    buffer: bytes | memoryview,
    orders: list[Structure],
    wanted: Collection[str] | None = None,
    *,
    source: str = "TFRecord",
    first: int = 0,
    verify: bool = True,
) -> list[Piece]:
    """The features in a buffer of whole frames.

    Parameters
    ----------
    buffer : bytes-like
        Framed records.
    orders : list of Structure
        Orders of features that are known from other buffers of the file. Records may lack some of them.
        What is learned here is added.
    wanted : collection of str, optional
        The features whose values are read. Default: all.
    source, first, verify
        As for `xee_tf.records.decode_frames`.

    Raises
    ------
    RecordError
        If a record is corrupt; the message names the file and the record.

    Examples
    --------
    >>> from xee_tf.tables.encode import encode_rows
    >>> from xee_tf.tables.schema import Column, Rows
    >>> encoded = encode_rows(Rows((Column("B4"),), (np.array([0.25, 0.5]),)))
    >>> [piece] = decode_rows(encoded.buffer.data, [])
    >>> piece.field, piece.records.tolist(), piece.values.tolist()
    (Field(name='B4', kind='float', size=1), [0, 1], [[0.25], [0.5]])
    """
    view = memoryview(buffer).cast("B")
    if not len(view):
        return []
    data = check_data(view, 0, read_length(view, 0, first, source), first, source, verify=verify)
    usual = _structure(_parse(data, source, first))
    pieces: list[Piece] = []
    count = position = 0
    if layout := _layout(usual):
        raw = np.frombuffer(view, np.uint8)
        _, count = longest_run(raw, [layout], len(raw))
        position = count * layout.framed_size
    if layout and count:
        block = raw[:position].reshape(count, -1)
        if verify:
            verify_block(block, first, source)
        records = np.arange(first, first + count)
        for place, (field, segment) in enumerate(zip(usual, layout.segments, strict=True)):
            values = None
            if wanted is None or field.name in wanted:
                # A copy: views would keep all of the buffer.
                values = block[:, segment.end : segment.end + 4 * field.size].view("<f4").copy()
            pieces.append(Piece(field, place, records, values))
    if position < len(view):
        pieces += _decode_varied(view[position:], orders, wanted, source, first + count, verify)
    return pieces


def _decode_varied(
    view: memoryview,
    orders: list[Structure],
    wanted: Collection[str] | None,
    source: str,
    first: int,
    verify: bool,
) -> list[Piece]:
    """As `decode_rows`, where lengths or features vary."""
    offsets = frame_offsets(view, source=source, first=first)
    if verify:
        for record, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            check_data(view, begin, end - begin - HEADER - FOOTER, first + record, source)
    raw = np.concatenate([np.frombuffer(view, np.uint8), np.zeros(_PAD, np.uint8)])
    left = np.arange(len(offsets) - 1)
    pieces: list[Piece] = []

    def take(order: Structure) -> None:
        """Read the records that have no other features than those of `order`, and have them in that order."""
        nonlocal left
        fits, spans = _match(raw, offsets[left], offsets[left + 1], order)
        for place, (field, (there, starts, ends)) in enumerate(zip(order, spans, strict=False)):
            there &= fits
            if there.any():
                chosen: Any = slice(None) if there.all() else there
                values = None
                if wanted is None or field.name in wanted:
                    values = _gather(raw, field, starts[chosen], ends[chosen])
                pieces.append(Piece(field, place, first + left[chosen], values))
        left = left[~fits]

    for order in orders:
        if left.size:
            take(order)
    single: dict[Structure, list[tuple[int, dict[str, Any]]]] = {}
    while left.size:
        record = int(left[0])
        data = view[int(offsets[record]) + HEADER : int(offsets[record + 1]) - FOOTER]
        features = _parse(data, source, first + record)
        structure = _structure(features)
        if learned := _learn(orders, structure):
            take(learned)
        if left.size and left[0] == record:
            single.setdefault(structure, []).append((first + record, features))
            left = left[1:]
    for structure, found in single.items():
        pieces += _stack(structure, found, wanted)
    return pieces


def _parse(data: memoryview, source: str, record: int) -> dict[str, Any]:
    try:
        return decode_example(data)
    except RecordError as error:
        raise RecordError(f"{source}: record {record}: {error}") from None


def _structure(features: dict[str, Any]) -> Structure:
    fields = []
    for name, values in features.items():
        if isinstance(values, list):
            fields.append(Field(name, "bytes", len(values)))
        else:
            fields.append(Field(name, "float" if values.dtype == np.float32 else "int64", len(values)))
    return tuple(fields)


def _learn(orders: list[Structure], structure: Structure) -> Structure | None:
    """Add the features of a record to an order that allows it, or add an order; None if nothing is new."""
    if not structure or not all(field.is_plain for field in structure):
        return None
    for number, order in enumerate(orders):
        merged = _merge(order, structure)
        if merged == order:
            return None  # it was tried: the record is written in another way
        if merged is not None:
            orders[number] = merged
            return merged
    if len(orders) == _MAX_ORDERS:
        return None
    orders.append(structure)
    return structure


def _merge(order: Structure, structure: Structure) -> Structure | None:
    """The shortest order that has both; None if they contradict one another.

    Examples
    --------
    >>> a, b, c = (Field(name, "float", 1) for name in "abc")
    >>> [field.name for field in _merge((a, c), (a, b))]
    ['a', 'b', 'c']
    >>> _merge((a, c), (c, a))
    """
    merged, last = list(order), -1
    for field in structure:
        place = merged.index(field) if field in merged else None
        if place is None:
            place = last + 1
            merged.insert(place, field)
        if place <= last:
            return None
        last = place
    return tuple(merged)


@lru_cache(maxsize=64)
def _layout(structure: Structure) -> RecordLayout | None:
    """The layout of records of numbers alone, which all have the same bytes around their values."""
    if not structure or any(field.kind != "float" for field in structure):
        return None
    return RecordLayout(tuple(Feature(field.name, "float", field.size, "<f4") for field in structure))


@dataclass
class _Cursor:
    """Places in many records, which move on together; `fits` tells where the bytes were as expected.

    Records that do not fit run on into nonsense: they are kept inside the buffer, and left aside.
    """

    raw: Bytes
    at: Places
    ends: Places
    fits: Mask

    def expect(self, data: bytes) -> None:
        """Move over bytes that must be these."""
        self.at = np.minimum(self.at, self.ends)
        for byte in data:
            self.fits &= self.raw[self.at] == byte
            self.at = self.at + 1

    def number(self) -> Places:
        """Move over a varint of at most 35 bits."""
        self.at = np.minimum(self.at, self.ends)
        value = np.zeros(len(self.at), np.int64)
        more = np.ones(len(self.at), bool)
        for shift in range(0, 35, 7):
            byte = self.raw[self.at]
            value += np.where(more, byte & 0x7F, 0).astype(np.int64) << shift
            self.at = self.at + more
            more &= byte > 0x7F
            if not more.any():
                break
        self.fits &= ~more
        return value

    def reach(self, end: Places) -> None:
        """Move over a length that must lead to `end`."""
        size = self.number()
        self.fits &= size + self.at == end


def _match(
    raw: Bytes, begins: Places, ends: Places, order: Structure
) -> tuple[Mask, list[tuple[Mask, Places, Places]]]:
    """Which frames have features of an order alone; which of them have each one, and where its values are."""
    ends = ends - FOOTER
    cursor = _Cursor(raw, begins + HEADER, ends, np.ones(len(ends), bool))
    cursor.expect(b"\x0a")
    cursor.reach(ends)
    at, fits = cursor.at, cursor.fits
    spans = []
    seen: dict[str, Mask] = {}
    for field in order:
        there, starts, stops = _match_field(_Cursor(raw, at, ends, fits & (at < ends)), field)
        spans.append((there, starts, stops))
        if field.name in seen:  # of a name that comes twice the last one counts: parsed apart
            fits &= ~(there & seen[field.name])
            seen[field.name] = seen[field.name] | there
        else:
            seen[field.name] = there
        at = stops if there.all() else np.where(there, stops, at)
    return fits & (at == ends), spans


def _match_field(cursor: _Cursor, field: Field) -> tuple[Mask, Places, Places]:
    """Which records have a feature at a place, and where its values start and end."""
    key = field.name.encode()
    cursor.expect(b"\x0a")
    entry = cursor.number() + cursor.at
    cursor.expect(b"\x0a" + encode_varint(len(key)) + key + b"\x12")
    if not cursor.fits.any():
        return cursor.fits, cursor.at, entry
    cursor.reach(entry)
    cursor.expect({"bytes": b"\x0a", "float": b"\x12", "int64": b"\x1a"}[field.kind])
    cursor.reach(entry)
    if field.size:
        cursor.expect(b"\x0a")
        cursor.reach(entry)
        size = entry - cursor.at
        if field.kind == "float":
            cursor.fits &= size == 4 * field.size
        elif field.kind == "int64":
            cursor.fits &= _is_varint(cursor.raw, cursor.at, size)
    else:
        cursor.fits &= cursor.at == entry
    return cursor.fits, cursor.at, entry


def _is_varint(raw: Bytes, starts: Places, sizes: Places) -> Mask:
    """Whether so many bytes are one varint: only the last byte has its top bit clear."""
    fits = (sizes > 0) & (sizes <= MAX_VARINT)
    for place in range(min(MAX_VARINT, int(sizes.max(initial=0)))):
        byte = raw[np.minimum(starts + place, len(raw) - 1)]
        fits &= (place >= sizes) | ((byte < 0x80) == (place == sizes - 1))
    return fits


def _gather(raw: Bytes, field: Field, starts: Places, ends: Places) -> Values:
    count = len(starts)
    if field.size == 0:
        if field.kind == "bytes":
            return np.fromiter(([] for _ in range(count)), object, count)
        return np.empty((count, 0), np.float32 if field.kind == "float" else np.int64)
    if field.kind == "bytes":
        lengths = ends - starts
        edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Strings(raw[np.arange(edges[-1]) + np.repeat(starts - edges[:-1], lengths)], edges)
    if field.kind == "float":
        return gather(raw, starts, 4 * field.size).view("<f4")
    values = np.zeros(count, np.uint64)
    for place in range(int((ends - starts).max(initial=0))):
        there = starts + place < ends
        byte = np.where(there, raw[np.minimum(starts + place, len(raw) - 1)] & 0x7F, 0)
        values |= byte.astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)[:, None]


def _stack(
    structure: Structure, found: Sequence[tuple[int, dict[str, Any]]], wanted: Collection[str] | None
) -> list[Piece]:
    """The features of records of one structure that were parsed one by one."""
    records = np.array([record for record, _ in found], np.int64)
    pieces = []
    for place, field in enumerate(structure):
        values: Values | None = None
        if wanted is None or field.name in wanted:
            lists = [features[field.name] for _, features in found]
            if field.kind != "bytes":
                values = np.stack(lists)
            elif field.size == 1:
                values = Strings.of([strings[0] for strings in lists])
            else:
                values = np.fromiter(lists, object, len(lists))
        pieces.append(Piece(field, place, records, values))
    return pieces
