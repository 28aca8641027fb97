"""Framed records of a table to columns of values.

Records that have the same features in the same order are read together. Of numbers alone they have one
length, and are read as a matrix. Where strings or integers make the length vary, they are taken apart
feature by feature. Records that cannot be read so (lists that are not packed, or that hold several
integers or byte strings) are parsed one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.decoding import decode_example, longest_run, verify_block
from xee_tf.records.example import Feature, RecordLayout
from xee_tf.records.framing import FOOTER, HEADER, check_data, frame_offsets, read_length
from xee_tf.records.ragged import gather
from xee_tf.records.varint import MAX_VARINT, encode_varint
from xee_tf.tables.schema import Strings, Values

__all__ = ["Field", "Group", "Structure", "decode_rows"]

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]
Spans = dict[str, tuple[Places, Places]]

_MAX_STRUCTURES = 64  # that are tried on a buffer: properties may be null, and protobuf's maps have no order
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
    kind: Literal["bytes", "float", "int64"]
    size: int

    def __str__(self) -> str:
        return f"{self.size} {'byte string' if self.kind == 'bytes' else self.kind} value(s)"


Structure = tuple[Field, ...]
"""The features of a record, in the order of the message."""


@dataclass(frozen=True)
class Group:
    """Records of a file that have one structure.

    Parameters
    ----------
    structure : tuple of Field
    records : ndarray of int64, shape (n,)
        Their numbers in the file, ascending.
    values : dict of str to ndarray or Strings
        Of the wanted features: `Strings` for lists of one byte string, else float32 or int64 arrays of
        shape ``(n, size)``, or of shape ``(n,)`` and dtype object with lists of bytes.
    """

    structure: Structure
    records: Places
    values: dict[str, Values]


def decode_rows(
    buffer: bytes | memoryview,
    known: list[Structure],
    wanted: Collection[str] | None = None,
    *,
    source: str = "TFRecord",
    first: int = 0,
    verify: bool = True,
) -> list[Group]:
    """The values in a buffer of whole frames, grouped by the structure of the records.

    Parameters
    ----------
    buffer : bytes-like
        Framed records.
    known : list of Structure
        Structures that the records probably have, the most common one first. New ones are appended, so
        that the next buffer is read with them.
    wanted : collection of str, optional
        The features to read. Default: all. Structures always list all features.
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
    >>> [group] = decode_rows(encoded.buffer.data, [])
    >>> group.structure, group.records.tolist(), group.values["B4"].tolist()
    ((Field(name='B4', kind='float', size=1),), [0, 1], [[0.25], [0.5]])
    """
    view = memoryview(buffer).cast("B")
    raw = np.frombuffer(view, np.uint8)
    if not len(view):
        return []
    if not known:
        length = read_length(view, 0, first, source)
        data = check_data(view, 0, length, first, source, verify=verify)
        known.append(_structure(_parse(data, source, first)))
    groups = []
    count = position = 0
    if layout := _layout(known[0]):
        _, count = longest_run(raw, [layout], len(raw))
    if layout and count:
        position = count * layout.framed_size
        block = raw[:position].reshape(count, -1)
        if verify:
            verify_block(block, first, source)
        values: dict[str, Values] = {}
        for field, segment in zip(known[0], layout.segments, strict=True):
            if wanted is None or field.name in wanted:
                values[field.name] = block[:, segment.end : segment.end + 4 * field.size].view("<f4")
        groups.append(Group(known[0], np.arange(first, first + count), values))
    if position < len(view):
        groups += _decode_varied(view[position:], known, wanted, source, first + count, verify)
    return groups


def _decode_varied(
    view: memoryview,
    known: list[Structure],
    wanted: Collection[str] | None,
    source: str,
    first: int,
    verify: bool,
) -> list[Group]:
    """Groups of records whose lengths or structures vary."""
    offsets = frame_offsets(view, source=source, first=first)
    if verify:
        for record, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            check_data(view, begin, end - begin - HEADER - FOOTER, first + record, source)
    raw = np.concatenate([np.frombuffer(view, np.uint8), np.zeros(_PAD, np.uint8)])
    left = np.arange(len(offsets) - 1)
    groups: list[Group] = []

    def take(structure: Structure) -> None:
        nonlocal left
        fits, spans = _match(raw, offsets[left], offsets[left + 1], structure)
        if not fits.any():
            return
        chosen: Any = slice(None) if fits.all() else fits
        values = {
            field.name: _gather(raw, field, *(edge[chosen] for edge in spans[field.name]))
            for field in structure
            if wanted is None or field.name in wanted
        }
        groups.append(Group(structure, first + left[chosen], values))
        left = left[~fits]

    for structure in known[:_MAX_STRUCTURES]:
        if left.size:
            take(structure)
    single: dict[Structure, list[tuple[int, dict[str, Any]]]] = {}
    while left.size:
        record = int(left[0])
        data = view[int(offsets[record]) + HEADER : int(offsets[record + 1]) - FOOTER]
        features = _parse(data, source, first + record)
        structure = _structure(features)
        if structure not in known and len(known) < _MAX_STRUCTURES:
            known.append(structure)
            take(structure)
        if left.size and left[0] == record:
            single.setdefault(structure, []).append((first + record, features))
            left = left[1:]
    return groups + [_stack(structure, found, wanted) for structure, found in single.items()]


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


@lru_cache(maxsize=4 * _MAX_STRUCTURES)
def _layout(structure: Structure) -> RecordLayout | None:
    """The layout of records of numbers alone, which all have the same bytes around their values."""
    if not structure or any(field.kind != "float" for field in structure):
        return None
    return RecordLayout(tuple(Feature(field.name, "float", field.size, "<f4") for field in structure))


def _match(raw: Bytes, begins: Places, ends: Places, structure: Structure) -> tuple[Mask, Spans]:
    """Which of some frames have just this structure, and where the values of each feature start and end."""
    if layout := _layout(structure):
        return _match_fixed(raw, begins, ends, layout)
    # Frames that do not fit run on into nonsense: they are kept inside the buffer, and left aside.
    ends = ends - FOOTER
    at = begins + HEADER
    fits = np.ones(len(at), bool)
    spans: Spans = {}
    if any(field.kind != "float" and field.size > 1 for field in structure):
        return ~fits, spans  # written by other programs: rare, and parsed one by one

    def expect(data: bytes) -> None:
        nonlocal at
        at = np.minimum(at, ends)
        for byte in data:
            np.logical_and(fits, raw[at] == byte, out=fits)
            at = at + 1

    def number() -> Places:
        nonlocal at
        at = np.minimum(at, ends)
        value = np.zeros(len(at), np.int64)
        more = np.ones(len(at), bool)
        for shift in range(0, 35, 7):
            byte = raw[at]
            value += np.where(more, byte & 0x7F, 0).astype(np.int64) << shift
            at = at + more
            more &= byte > 0x7F
            if not more.any():
                break
        np.logical_and(fits, ~more, out=fits)
        return value

    if structure:
        expect(b"\x0a")
        np.logical_and(fits, number() + at == ends, out=fits)
    for field in structure:
        if not fits.any():
            return fits, spans
        key = field.name.encode()
        expect(b"\x0a")
        entry = number() + at
        expect(b"\x0a" + encode_varint(len(key)) + key + b"\x12")
        np.logical_and(fits, number() + at == entry, out=fits)
        expect({"bytes": b"\x0a", "float": b"\x12", "int64": b"\x1a"}[field.kind])
        np.logical_and(fits, number() + at == entry, out=fits)
        if field.size:
            expect(b"\x0a")
            size = number()
            np.logical_and(fits, size + at == entry, out=fits)
            if field.kind == "float":
                np.logical_and(fits, size == 4 * field.size, out=fits)
            elif field.kind == "int64":
                np.logical_and(fits, _is_varint(raw, at, size), out=fits)
        spans[field.name] = at, entry
        at = entry
    np.logical_and(fits, at == ends, out=fits)
    return fits, spans


def _match_fixed(raw: Bytes, begins: Places, ends: Places, layout: RecordLayout) -> tuple[Mask, Spans]:
    """As `_match`, of numbers alone."""
    fits = ends - begins == layout.framed_size
    chosen = np.flatnonzero(fits)
    frames = gather(raw, begins[chosen], layout.framed_size)
    equal = np.ones(len(chosen), bool)
    for segment in layout.segments:
        equal &= (frames[:, segment.offset : segment.end] == np.frombuffer(segment.data, np.uint8)).all(1)
    fits[chosen[~equal]] = False
    return fits, {
        feature.name: (begins + segment.end, begins + segment.end + feature.max_bytes)
        for feature, segment in zip(layout.features, layout.segments, strict=True)
    }


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
) -> Group:
    """A group of records that were parsed one by one."""
    values: dict[str, Values] = {}
    for field in structure:
        if wanted is not None and field.name not in wanted:
            continue
        lists = [features[field.name] for _, features in found]
        if field.kind != "bytes":
            values[field.name] = np.stack(lists)
        elif field.size == 1:
            values[field.name] = Strings.of([strings[0] for strings in lists])
        else:
            values[field.name] = np.fromiter(lists, object, len(lists))
    return Group(structure, np.array([record for record, _ in found], np.int64), values)
