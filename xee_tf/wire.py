"""Read and write protocol buffer messages field by field.

A message is a sequence of fields. Each field consists of a tag, which encodes the field number and the wire
type, and its payload. The payload of wire type 2 (strings, messages, packed lists) is preceded by its length.
A varint stores seven bits per byte, lowest first; the top bit of a byte is set if more bytes follow. Negative
numbers are encoded as their 64-bit two's complement and always take ten bytes. For packed lists of varints
see `xee_tf.varints`.
"""

from __future__ import annotations

from collections.abc import Iterator

from xee_tf.errors import RecordError

__all__ = [
    "MAX_VARINT",
    "Merged",
    "bodies",
    "delimited_fields",
    "encode_field",
    "encode_varint",
    "field_head",
    "field_size",
    "integer",
    "integer_field",
    "map_entries",
    "merge",
    "read_fields",
    "read_varint",
    "text",
    "text_field",
    "varint_size",
]

MAX_VARINT = 10
"""Maximum length of a varint in bytes."""

Merged = memoryview | bytearray
"""The bytes of a message: a view of its only part, or a copy of several parts; see `merge`."""

_MASK = (1 << 64) - 1
_MAX_TAG = 5  # bytes, as in protobuf
_MAX_DEPTH = 100  # of nested groups: protobuf's own limit
_VARINT, _DELIMITED = 0, 2  # wire types

# -- Writing -----------------------------------------------------------------------------------------


def encode_varint(value: int) -> bytes:
    """Encode an integer as a varint.

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
    """Return the length of a varint in bytes.

    Examples
    --------
    >>> varint_size(127), varint_size(128)
    (1, 2)
    """
    return max(1, -(-(value & _MASK).bit_length() // 7))


def field_head(number: int, size: int) -> bytes:
    """Encode the tag and the length of a field whose payload has `size` bytes.

    Examples
    --------
    >>> field_head(1, 300).hex()
    '0aac02'
    """
    return encode_varint(number << 3 | 2) + encode_varint(size)


def encode_field(number: int, body: bytes) -> bytes:
    """Encode a field that holds a string or a message.

    Examples
    --------
    >>> encode_field(2, b"B4").hex()
    '12024234'
    """
    return field_head(number, len(body)) + body


def field_size(size: int) -> int:
    """Return the length in bytes of a field whose payload has `size` bytes, for field numbers up to 15.

    Examples
    --------
    >>> field_size(2) == len(encode_field(2, b"B4"))
    True
    """
    return 1 + varint_size(size) + size


def text_field(number: int, value: str) -> bytes:
    """Encode a text field. Empty text is the default and is omitted.

    Examples
    --------
    >>> text_field(1, "oak").hex(), text_field(1, "")
    ('0a036f616b', b'')
    """
    return encode_field(number, value.encode()) if value else b""


def integer_field(number: int, value: int) -> bytes:
    """Encode an integer field. Zero is the default and is omitted.

    Examples
    --------
    >>> integer_field(1, 300).hex(), integer_field(1, 0)
    ('08ac02', b'')
    """
    return encode_varint(number << 3 | _VARINT) + encode_varint(value) if value else b""


# -- Reading -----------------------------------------------------------------------------------------


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return the unsigned varint at `position`, and the position after it.

    Examples
    --------
    >>> read_varint(memoryview(bytes.fromhex("ac02")), 0)
    (300, 2)
    """
    if position < len(data) and data[position] < 0x80:  # the common case
        return data[position], position + 1
    value = 0
    for shift in range(0, 7 * MAX_VARINT, 7):
        if position >= len(data):
            raise RecordError("The data ends inside a varint.")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, position
    raise RecordError("A varint is longer than ten bytes.")


def read_fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield the number, wire type and payload of each field of a message; groups are skipped."""
    position = 0
    while position < len(data):
        number, wire, begin = _tag(data, position)
        if wire == 2:
            length, begin = read_varint(data, begin)
            position = begin + length
        else:
            position = _skip(data, begin, number, wire, 0)
        if position > len(data):
            raise RecordError("A field extends beyond the end of its message.")
        if wire != 3:
            yield number, wire, data[begin:position]


def _tag(data: memoryview, position: int) -> tuple[int, int, int]:
    """Return the field number, the wire type, and the position of the payload."""
    tag, end = read_varint(data, position)
    if tag >> 3 == 0 or tag >> 32:
        raise RecordError(f"A field has the invalid number {tag >> 3}.")
    if end - position > _MAX_TAG:
        raise RecordError(f"The tag of field {tag >> 3} is longer than {_MAX_TAG} bytes.")
    return tag >> 3, tag & 7, end


def _skip(data: memoryview, position: int, number: int, wire: int, depth: int) -> int:
    """Return the end of the field whose payload starts at `position`."""
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
    """Yield the number and payload of each field of wire type 2: messages, bytes and text.

    Examples
    --------
    >>> [(number, bytes(body)) for number, body in delimited_fields(text_field(2, "oak"))]
    [(2, b'oak')]
    """
    for number, wire, body in read_fields(memoryview(data)):
        if wire == _DELIMITED:
            yield number, body


def bodies(data: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """Yield the payloads of the fields with a given number; see `delimited_fields`."""
    return (body for found, body in delimited_fields(data) if found == number)


def integer(data: bytes | memoryview, number: int) -> int:
    """Return the last signed integer in the fields with a given number, or 0 if there is none.

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
    """Decode a text field; `what` describes it in the error message if it is not UTF-8."""
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError:
        raise RecordError(f"{what} is not valid UTF-8: {bytes(body[:80])!r}.") from None


def map_entries(
    data: bytes | memoryview, number: int, what: str = "A name"
) -> Iterator[tuple[str, memoryview]]:
    """Yield the keys and values of field `number`, a map from text to messages.

    `what` describes a key in the error message if it is not UTF-8.

    Examples
    --------
    >>> entry = text_field(1, "oak") + encode_field(2, b"")
    >>> [(key, bytes(value)) for key, value in map_entries(encode_field(4, entry), 4)]
    [('oak', b'')]
    """
    for entry in bodies(data, number):
        key = ""
        value: Merged = memoryview(b"")
        for part, body in delimited_fields(entry):
            if part == 1:
                key = text(body, what)
            elif part == 2:
                value = merge(value, body)
        yield key, memoryview(value)


def merge(value: Merged, part: memoryview) -> Merged:
    """Append a part to a message: protobuf concatenates its parts.

    The first part is not copied, and each of the others only once.

    Examples
    --------
    >>> bytes(merge(merge(memoryview(b"a"), memoryview(b"b")), memoryview(b"c")))
    b'abc'
    """
    if not len(value):
        return part
    if isinstance(value, memoryview):
        value = bytearray(value)
    value += part
    return value
