"""Protobuf messages put together and taken apart field by field.

For small messages such as requests and metadata. Records and tensors have codecs of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from xee_tf.errors import RecordError
from xee_tf.records.wire import encode_field, encode_varint, read_fields, read_varint

__all__ = [
    "bodies",
    "delimited_fields",
    "integer",
    "integer_field",
    "map_entries",
    "text",
    "text_field",
]

_VARINT, _DELIMITED = 0, 2


def text_field(number: int, value: str) -> bytes:
    """A field of text. The empty text is the default and is left out.

    Examples
    --------
    >>> text_field(1, "oak").hex(), text_field(1, "")
    ('0a036f616b', b'')
    """
    return encode_field(number, value.encode()) if value else b""


def integer_field(number: int, value: int) -> bytes:
    """A field of an integer. Zero is the default and is left out.

    Examples
    --------
    >>> integer_field(1, 300).hex(), integer_field(1, 0)
    ('08ac02', b'')
    """
    return encode_varint(number << 3 | _VARINT) + encode_varint(value) if value else b""


def delimited_fields(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and body of each field of a message that holds a message, bytes or text.

    Raises
    ------
    RecordError
        If the bytes are not a valid message.

    Examples
    --------
    >>> [(number, bytes(body)) for number, body in delimited_fields(text_field(2, "oak"))]
    [(2, b'oak')]
    """
    for number, wire, body in read_fields(memoryview(data).cast("B")):
        if wire == _DELIMITED:
            yield number, body


def bodies(data: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """Bodies of the fields of one number; see `delimited_fields`."""
    return (body for found, body in delimited_fields(data) if found == number)


def integer(data: bytes | memoryview, number: int) -> int:
    """The signed integer of a field: the last one, or 0.

    Examples
    --------
    >>> integer(integer_field(1, 7) + integer_field(1, -1), 1), integer(b"", 1)
    (-1, 0)
    """
    value = 0
    for found, wire, body in read_fields(memoryview(data).cast("B")):
        if found == number and wire == _VARINT:
            value = read_varint(body, 0)[0]
    return value - (1 << 64) if value >> 63 else value


def text(body: memoryview) -> str:
    """The text of a field.

    Raises
    ------
    RecordError
        If it is not UTF-8.
    """
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError:
        raise RecordError(f"A name is not valid UTF-8: {bytes(body[:80])!r}.") from None


def map_entries(data: bytes | memoryview, number: int) -> Iterator[tuple[str, memoryview]]:
    """Keys and values of the field `number`, a map from text to messages.

    Raises
    ------
    RecordError
        If the bytes are not a valid message, or a key is not UTF-8.

    Examples
    --------
    >>> entry = text_field(1, "oak") + encode_field(2, b"")
    >>> [(key, bytes(value)) for key, value in map_entries(encode_field(4, entry), 4)]
    [('oak', b'')]
    """
    for entry in bodies(data, number):
        key, value = "", memoryview(b"")
        for part, body in delimited_fields(entry):
            if part == 1:
                key = text(body)
            elif part == 2:
                value = body
        yield key, value
