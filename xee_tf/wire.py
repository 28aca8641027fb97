"""The wire format of protocol buffers: messages written and read field by field.

A message is a run of fields: a tag, which holds the number of the field and its wire type, and the field's
bytes. Fields of wire type 2 (strings, messages, packed lists) have their length in front of them. A varint
carries seven bits a byte, lowest first; the top bit of a byte is set when more bytes follow. Negative
numbers travel as their 64-bit two's complement and always take ten bytes. For packed lists of varints see
`xee_tf.varints`.
"""

from __future__ import annotations

from collections.abc import Iterator

from xee_tf.errors import RecordError

__all__ = [
    "MAX_VARINT",
    "bodies",
    "delimited_fields",
    "encode_field",
    "encode_varint",
    "field_head",
    "field_size",
    "integer",
    "integer_field",
    "map_entries",
    "read_fields",
    "read_varint",
    "text",
    "text_field",
    "varint_size",
]

MAX_VARINT = 10
"""Bytes of the longest varint."""

_MASK = (1 << 64) - 1
_MAX_DEPTH = 100  # of nested groups: protobuf's own limit
_VARINT, _DELIMITED = 0, 2  # wire types

# -- Writing -----------------------------------------------------------------------------------------


def encode_varint(value: int) -> bytes:
    """One varint.

    Examples
    --------
    >>> encode_varint(300).hex()
    'ac02'
    >>> len(encode_varint(-1))
    10
    """
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_size(value: int) -> int:
    """Bytes of one varint.

    Examples
    --------
    >>> varint_size(127), varint_size(128)
    (1, 2)
    """
    return max(1, -(-(value & _MASK).bit_length() // 7))


def field_head(number: int, size: int) -> bytes:
    """The tag and the length in front of a field of `size` bytes.

    Examples
    --------
    >>> field_head(1, 300).hex()
    '0aac02'
    """
    return encode_varint(number << 3 | 2) + encode_varint(size)


def encode_field(number: int, body: bytes) -> bytes:
    """A field that holds a string or a message.

    Examples
    --------
    >>> encode_field(2, b"B4").hex()
    '12024234'
    """
    return field_head(number, len(body)) + body


def field_size(size: int) -> int:
    """Bytes of a field whose body has `size` bytes, for field numbers up to 15.

    Examples
    --------
    >>> field_size(2) == len(encode_field(2, b"B4"))
    True
    """
    return 1 + varint_size(size) + size


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


# -- Reading -----------------------------------------------------------------------------------------


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """The unsigned varint at `position`, and the position behind it.

    Examples
    --------
    >>> read_varint(memoryview(bytes.fromhex("ac02")), 0)
    (300, 2)
    """
    if position < len(data) and data[position] < 0x80:  # by far the most
        return data[position], position + 1
    value = 0
    for shift in range(0, 7 * MAX_VARINT, 7):
        if position >= len(data):
            raise RecordError("The bytes end inside a varint.")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, position
    raise RecordError("A varint is longer than ten bytes.")


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


def delimited_fields(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and body of each field of a message that holds a message, bytes or text.

    Examples
    --------
    >>> [(number, bytes(body)) for number, body in delimited_fields(text_field(2, "oak"))]
    [(2, b'oak')]
    """
    for number, wire, body in read_fields(memoryview(data)):
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
    for found, wire, body in read_fields(memoryview(data)):
        if found == number and wire == _VARINT:
            value = read_varint(body, 0)[0]
    return value - (1 << 64) if value >> 63 else value


def text(body: memoryview, what: str = "A name") -> str:
    """The text of a field; `what` names it in the error if it is not UTF-8."""
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError:
        raise RecordError(f"{what} is not valid UTF-8: {bytes(body[:80])!r}.") from None


def map_entries(
    data: bytes | memoryview, number: int, what: str = "A name"
) -> Iterator[tuple[str, memoryview]]:
    """Keys and values of the field `number`, a map from text to messages; see `text`.

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
                key = text(body, what)
            elif part == 2:  # a message that comes in pieces is that of their bytes together
                value = memoryview(bytes(value) + bytes(body)) if value else body
        yield key, value
