"""Encode values for the JSON of a manifest, and decode them with checks.

Invalid values raise a TypeError or ValueError; the caller adds the file name.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from crc32c import crc32c

from xee_tf.errors import excerpt
from xee_tf.geometry import Size
from xee_tf.storage import Location

__all__ = [
    "is_unchanged",
    "matrix_of",
    "pack",
    "parse_json",
    "read_count",
    "read_number",
    "read_size",
    "read_text",
    "read_whole",
    "render",
    "unpack",
    "write_number",
]

_MOST = 1 << 62
"""Maximum value of any count."""

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_CHECKSUM = "crc32c"
"""The key with the CRC-32C of all other keys, independent of whitespace."""
_UNCHECKED = (_CHECKSUM, "key")  # "key" differs for inputs with the same pixels in different chunks


def render(document: Mapping[str, Any]) -> str:
    """Return JSON with one line per key and per item of a list of objects; the last key is a checksum."""
    lines = []
    for key, value in {**document, _CHECKSUM: _checksum(document)}.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n".join(f"    {_json(item)}" for item in value)
            lines.append(f"  {_json(key)}: [\n{items}\n  ]")
        else:
            lines.append(f"  {_json(key)}: {_json(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def is_unchanged(document: dict[str, Any]) -> bool:
    """Return whether a document matches its checksum.

    Examples
    --------
    >>> document = json.loads(render({"rows": 4}))
    >>> is_unchanged(document), is_unchanged({**document, "rows": 5})
    (True, False)
    """
    try:
        return bool(document.get(_CHECKSUM) == _checksum(document))
    except ValueError:  # NaN is not allowed in JSON
        return False


def _checksum(document: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key not in _UNCHECKED}
    return f"{crc32c(_json(content).encode()):08x}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def parse_json(text: str, **hooks: Any) -> Any:
    """Parse JSON; raise ValueError or RecursionError if it is not valid, or if its text is not valid Unicode.

    Examples
    --------
    >>> parse_json('["B4"]')
    ['B4']
    """
    document = json.loads(text, **hooks)
    if _ESCAPED_SURROGATE.search(text):
        json.dumps(document, ensure_ascii=False).encode()  # fails if there is half of a pair
    return document


def write_number(value: Any) -> Any:
    """Encode a number for JSON; numbers that are not finite become text.

    Examples
    --------
    >>> write_number(float("nan")), write_number(-1.5)
    ('NaN', -1.5)
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def matrix_of(affine: Affine) -> list[float]:
    """Return the six numbers of an affine, row by row.

    Examples
    --------
    >>> matrix_of(Affine(30, 0, 500000, 0, -30, 60))
    [30.0, 0.0, 500000.0, 0.0, -30.0, 60.0]
    """
    return [float(value) for value in tuple(affine)[:6]]


def read_number(value: Any) -> Any:
    """Decode a number from `write_number`."""
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return value


def read_size(value: Any, what: str, least: int = 1) -> Size:
    """Decode a pair (x, y) as a size; `what` describes it in the error message."""
    x, y = value
    return Size(x=read_count(x, what, least), y=read_count(y, what, least))


def read_text(value: Any, what: str) -> str:
    """Check that a value is a non-empty string; `what` describes it in the error message."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{what} must be a non-empty string; got {excerpt(value)}")
    return value


def read_count(value: Any, what: str, least: int = 0) -> int:
    """Check that a value is an integer of at least `least`; `what` describes it in the error message."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise TypeError(f"{what} must be an integer of at least {least}; got {excerpt(value)}")
    return value


def read_whole(location: Location, size: int | None) -> bytes:
    """Read a file, with a single request if its size is known."""
    return location.read_bytes(0, size) if size else location.read_bytes()


def pack(values: Sequence[int] | npt.NDArray[Any], dtype: str) -> str:
    """Encode numbers as base64.

    Examples
    --------
    >>> unpack(pack([1, 2**31], "<u4"), "<u4").tolist()
    [1, 2147483648]
    """
    return base64.b64encode(np.asarray(values, dtype).tobytes()).decode()


def unpack(text: Any, dtype: str) -> npt.NDArray[Any]:
    """Decode numbers from `pack`."""
    if not isinstance(text, str):
        raise TypeError(f"a list of numbers must be base64; got {excerpt(text)}")
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype)
    except ValueError as error:  # includes the errors of base64
        raise ValueError(f"a list of numbers is not valid base64: {error}") from None
