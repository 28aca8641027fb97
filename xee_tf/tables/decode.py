"""Framed records of a table to columns of values.

Tables of numbers alone have records of one length, which are read as a matrix. Where strings make the
length vary, the records of a buffer are taken apart together, feature by feature, as long as they
have the features of the first one in the same order; those that have not are parsed one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.decoding import decode_example, decode_frames
from xee_tf.records.example import Feature, RecordLayout
from xee_tf.records.framing import FOOTER, HEADER, check_data, frame_offsets
from xee_tf.records.varint import encode_varint
from xee_tf.tables.schema import Strings, Values

__all__ = ["Field", "decode_rows", "read_fields"]

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Field:
    """A feature that all records of a table have.

    Parameters
    ----------
    name : str
    kind : {"bytes", "float", "int64"}
    size : int
        Values a record.
    """

    name: str
    kind: Literal["bytes", "float", "int64"]
    size: int

    def __str__(self) -> str:
        return f"{self.size} {'byte string' if self.kind == 'bytes' else self.kind} value(s)"


def read_fields(data: bytes | memoryview, source: str) -> tuple[Field, ...]:
    """The features of one record, in the order of the message.

    Raises
    ------
    RecordError
        If it is no valid Example, or holds no feature.
    """
    try:
        features = decode_example(data)
    except RecordError as error:
        raise RecordError(f"{source}: record 0: {error}") from None
    if not features:
        raise RecordError(f"{source}: record 0 holds no feature.")
    return tuple(_field(name, values) for name, values in features.items())


def _field(name: str, values: Any) -> Field:
    if isinstance(values, list):
        return Field(name, "bytes", len(values))
    return Field(name, "float" if values.dtype == np.float32 else "int64", len(values))


def decode_rows(
    buffer: bytes | memoryview,
    order: Sequence[Field],
    wanted: Sequence[Field],
    *,
    source: str = "TFRecord",
    first: int = 0,
    verify: bool = True,
) -> list[Values]:
    """The values of each wanted feature in a buffer of whole frames.

    Parameters
    ----------
    buffer : bytes-like
        Framed records.
    order : sequence of Field
        All features, in the order in which most records have them.
    wanted : sequence of Field
        Those to read. Byte features of one value give `Strings`, others arrays ``(records, size)``.
    source, first, verify
        As for `xee_tf.records.decode_frames`.

    Raises
    ------
    RecordError
        If a record is corrupt, or of another shape than `wanted`: the file and its number are named.
    """
    view = memoryview(buffer).cast("B")
    if all(field.kind == "float" for field in order):
        layout, whole = (
            RecordLayout(tuple(Feature(field.name, "float", field.size, "<f4") for field in fields))
            for fields in (wanted, order)
        )
        batches = decode_frames(view, layout, orders=[whole], source=source, first=first, verify=verify)
        found = [batch.values for batch in batches]
        return [
            np.concatenate([np.empty((0, field.size), np.float32), *(values[field.name] for values in found)])
            for field in wanted
        ]
    offsets = frame_offsets(view, source=source, first=first)
    if verify:
        for record, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            check_data(view, begin, end - begin - HEADER - FOOTER, first + record, source)
    raw = np.frombuffer(view, np.uint8)
    spans, fits = _take_apart(raw, offsets, order)
    odd = {
        int(record): _decode_one(view, offsets, int(record), wanted, source, first)
        for record in np.flatnonzero(~fits)
    }
    return [_gather(raw, field, *spans[field.name], odd) for field in wanted]


def _decode_one(
    view: memoryview, offsets: Places, record: int, wanted: Sequence[Field], source: str, first: int
) -> dict[str, Any]:
    begin, end = int(offsets[record]) + HEADER, int(offsets[record + 1]) - FOOTER
    where = f"{source}: record {first + record}"
    try:
        features = decode_example(view[begin:end])
    except RecordError as error:
        raise RecordError(f"{where}: {error}") from None
    for field in wanted:
        if field.name not in features:
            raise RecordError(f"{where} has no feature {field.name!r}, which the records before it have.")
        found = _field(field.name, features[field.name])
        if found != field:
            raise RecordError(
                f"{where}: feature {field.name!r} holds {found}; in the records before it {field}."
            )
    return features


def _take_apart(
    raw: npt.NDArray[np.uint8], offsets: Places, order: Sequence[Field]
) -> tuple[dict[str, tuple[Places, Places]], npt.NDArray[np.bool_]]:
    """Where the values of each feature start and end in records that have just this order, and which do."""
    # Records that do not fit run on into nonsense: they are kept inside the buffer, and left aside.
    raw = np.concatenate([raw, np.zeros(1024, np.uint8)])
    ends = offsets[1:] - FOOTER
    at = offsets[:-1] + HEADER
    fits = np.ones(len(at), bool)
    spans: dict[str, tuple[Places, Places]] = {}

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

    expect(b"\x0a")
    np.logical_and(fits, number() + at == ends, out=fits)
    for field in order:
        key = field.name.encode()
        expect(b"\x0a")
        entry = number() + at
        expect(b"\x0a" + encode_varint(len(key)) + key + b"\x12")
        np.logical_and(fits, number() + at == entry, out=fits)
        expect({"bytes": b"\x0a", "float": b"\x12", "int64": b"\x1a"}[field.kind])
        np.logical_and(fits, number() + at == entry, out=fits)
        if field.kind == "int64" or (field.kind == "bytes" and field.size != 1):
            fits[:] = False  # other programs' tables: rare, and read one by one
        elif field.kind == "bytes" or field.size:
            expect(b"\x0a")
            size = number()
            np.logical_and(fits, size + at == entry, out=fits)
            if field.kind == "float":
                np.logical_and(fits, size == 4 * field.size, out=fits)
        spans[field.name] = at, entry
        at = entry
    np.logical_and(fits, at == ends, out=fits)
    return spans, fits


def _gather(
    raw: npt.NDArray[np.uint8], field: Field, starts: Places, ends: Places, odd: dict[int, dict[str, Any]]
) -> Values:
    count = len(starts)
    if field.kind == "bytes" and field.size == 1:
        lengths = ends - starts
        for record, features in odd.items():
            lengths[record] = len(features[field.name][0])
        edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        usual = np.ones(count, bool)
        usual[list(odd)] = False
        shift = np.repeat(np.where(usual, starts - edges[:-1], 0), lengths)
        places = np.arange(edges[-1]) + shift
        data = raw[np.minimum(places, len(raw) - 1)]
        for record, features in odd.items():
            data[edges[record] : edges[record + 1]] = np.frombuffer(features[field.name][0], np.uint8)
        return Strings(data, edges)
    if field.kind == "bytes":
        lists = np.empty(count, object)
        for record, features in odd.items():
            lists[record] = features[field.name]
        return lists[:, None]
    out = np.empty((count, field.size), np.float32 if field.kind == "float" else np.int64)
    if field.kind == "float" and len(odd) < count:
        places = np.minimum(starts, len(raw) - 4 * field.size)[:, None] + np.arange(4 * field.size)
        out[:] = raw[places].view("<f4")
    for record, features in odd.items():
        out[record] = features[field.name]
    return out
