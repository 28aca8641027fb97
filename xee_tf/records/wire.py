"""The wire format of `tf.train.Example`: from bytes to the lists of its features.

An Example is a message in a message in a map: ``Example{1: Features{1: entry{1: key, 2: Feature}}}``, and a
Feature holds one list: bytes (field 1), float (2) or int64 (3). Everything that a protobuf parser must
take is taken: any order of fields, unknown ones, packed and unpacked lists, parts to be merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.example import Feature, Kind
from xee_tf.records.varint import decode_varints, encode_varint, read_varint, varint_size

__all__ = [
    "Values",
    "conform",
    "encode_varint",
    "field",
    "field_head",
    "field_size",
    "list_values",
    "parse_features",
    "read_entry",
    "read_fields",
    "read_varint",
]

Values = npt.NDArray[np.float32] | npt.NDArray[np.int64] | list[bytes]
"""What a feature holds: float32 or int64 numbers, or byte strings."""

_KINDS: dict[int, Kind] = {1: "bytes", 2: "float", 3: "int64"}
_MAX_DEPTH = 100  # of nested groups: protobuf's own limit


def parse_features(data: memoryview) -> dict[str, tuple[Kind, memoryview]]:
    """Kind and undecoded list of each feature of an Example, in the order of the message.

    Raises
    ------
    RecordError
        If the bytes are not a valid message.
    """
    features: dict[str, tuple[Kind, memoryview]] = {}
    for example_field, wire, body in read_fields(data):
        if example_field != 1 or wire != 2:
            continue
        for field, wire, entry in read_fields(body):
            if field == 1 and wire == 2:
                name, kind, values = read_entry(entry)
                if replaced := features.pop(name, None):
                    list_values(*replaced)
                if kind is not None:
                    features[name] = (kind, values)
    return features


def read_entry(data: memoryview) -> tuple[str, Kind | None, memoryview]:
    """Key, kind and undecoded list of one entry of the map of features."""
    key = ""
    kind: Kind | None = None
    values = memoryview(b"")
    for number, wire, body in read_fields(data):
        if number == 1 and wire == 2:
            try:
                key = str(body, "utf-8")
            except UnicodeDecodeError:
                raise RecordError(f"The name of a feature is not valid UTF-8: {bytes(body)!r}.") from None
        elif number == 2 and wire == 2:
            for field, wire, part in read_fields(body):
                if wire != 2 or field not in _KINDS:
                    continue
                if kind is not None:
                    list_values(kind, values)  # what is merged or replaced must be valid too
                if kind == _KINDS[field]:
                    list_values(kind, part)
                    part = memoryview(bytes(values) + bytes(part))
                kind, values = _KINDS[field], part
    return key, kind, values


def list_values(kind: Kind, data: memoryview) -> Values:
    """The values of a list message, packed or not.

    Raises
    ------
    RecordError
        If the bytes are not a valid message.
    """
    raw = np.frombuffer(data, np.uint8)
    if kind == "float":
        # Lists that are not packed have a tag in front of each value; those of one form are common.
        if raw.size and raw.size % 5 == 0 and (raw[::5] == 0x0D).all():
            return np.ascontiguousarray(raw.reshape(-1, 5)[:, 1:]).view("<f4")[:, 0]
        floats = [np.frombuffer(part, "<f4") for part in _parts(data, scalar=5, width=4)]
        return floats[0] if len(floats) == 1 else np.concatenate([np.empty(0, np.float32), *floats])
    if kind == "int64":
        if raw.size and raw[0] == 0x08 and raw[-1] < 0x80:
            numbers = decode_varints(raw)
            if numbers.size % 2 == 0 and (numbers[::2] == 8).all():
                return numbers[1::2]
        integers = [decode_varints(part) for part in _parts(data, scalar=0, width=1)]
        return integers[0] if len(integers) == 1 else np.concatenate([np.empty(0, np.int64), *integers])
    return [bytes(part) for part in _parts(data, scalar=-1, width=1)]


def _parts(data: memoryview, scalar: int, width: int) -> Iterator[memoryview]:
    """The values of a list's only field, as they come: packed runs, or single ones of wire type `scalar`."""
    for number, wire, part in read_fields(data):
        if number == 1 and wire in (2, scalar):
            if len(part) % width:
                raise RecordError(f"A packed list of {len(part)} bytes does not hold whole numbers.")
            yield part


def field_head(number: int, size: int) -> bytes:
    """The tag and the length in front of a field of `size` bytes.

    Examples
    --------
    >>> field_head(1, 300).hex()
    '0aac02'
    """
    return encode_varint(number << 3 | 2) + encode_varint(size)


def field(number: int, body: bytes) -> bytes:
    """A field that holds a string or a message.

    Examples
    --------
    >>> field(2, b"B4").hex()
    '12024234'
    """
    return field_head(number, len(body)) + body


def field_size(size: int) -> int:
    """Bytes of a field whose body has `size` bytes, for field numbers up to 15.

    Examples
    --------
    >>> field_size(2) == len(field(2, b"B4"))
    True
    """
    return 1 + varint_size(size) + size


def read_fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and bytes of each field of a message; groups are skipped."""
    position = 0
    while position < len(data):
        number, wire, begin = _tag(data, position)
        if wire == 2:
            length, begin = read_varint(data, begin)
            position = begin + length
        else:
            position = _skip(data, begin, number, wire, 0)
        if position > len(data):
            raise RecordError("A field is longer than the message that holds it.")
        if wire != 3:
            yield number, wire, data[begin:position]


def _tag(data: memoryview, position: int) -> tuple[int, int, int]:
    """Field number, wire type, and where the field's bytes start."""
    tag, position = read_varint(data, position)
    if tag >> 3 == 0 or tag >> 32:
        raise RecordError(f"A field has the impossible number {tag >> 3}.")
    return tag >> 3, tag & 7, position


def _skip(data: memoryview, position: int, number: int, wire: int, depth: int) -> int:
    """Where a field ends whose bytes start at `position`."""
    if wire == 0:
        return read_varint(data, position)[1]
    if wire in (1, 5):
        return position + (8 if wire == 1 else 4)
    if wire == 2:
        length, position = read_varint(data, position)
        return position + length
    if wire == 3 and depth < _MAX_DEPTH:
        while True:
            inner, inner_wire, position = _tag(data, position)
            if inner_wire == 4 and inner == number:
                return position
            position = _skip(data, position, inner, inner_wire, depth + 1)
    raise RecordError(f"Field {number} is malformed (wire type {wire}).")


def conform(feature: Feature, found: Values | None, where: str) -> npt.NDArray[Any]:
    """The values of a list, shape (1, size), if they are what they must be.

    Raises
    ------
    RecordError
        If they are of another kind or number; `where` says whose they are.
    """
    if found is None:
        raise RecordError(f"{where} holds no list.")
    kind: Kind = "bytes"
    if isinstance(found, np.ndarray):
        kind = "float" if found.dtype == np.float32 else "int64"
    if kind != feature.kind:
        raise RecordError(f"{where} is a {kind} list; expected {feature.kind}.")
    values: npt.NDArray[Any]
    if isinstance(found, list):
        if len(found) != 1:
            raise RecordError(f"{where} holds {len(found)} byte strings; expected one.")
        values = np.frombuffer(found[0], np.uint8)
    else:
        values = found
    if values.size != feature.size:
        raise RecordError(f"{where} holds {values.size} values; expected {feature.size}.")
    return values.reshape(1, -1)
