"""Values in the JSON of a manifest: written, and read with checks.

Values that cannot be used raise a TypeError or ValueError; the caller adds the name of the file.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from crc32c import crc32c

from xee_tf.errors import shorten
from xee_tf.geometry import Size

__all__ = [
    "MOST",
    "is_unchanged",
    "matrix_of",
    "pack",
    "read_count",
    "read_number",
    "read_size",
    "read_text",
    "render",
    "unpack",
    "write_number",
]

MOST = 1 << 62
"""The most of any count."""

_CHECKSUM = "crc32c"
"""The key with the CRC-32C of all others, whatever blanks are between them."""
_UNCHECKED = (_CHECKSUM, "key")  # the latter differs where inputs have other chunks but the same pixels


def render(document: Mapping[str, Any]) -> str:
    """JSON with a line for each key, and for each item of a list of objects; the last is a checksum."""
    lines = []
    for key, value in {**document, _CHECKSUM: _checksum(document)}.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n".join(f"    {_json(item)}" for item in value)
            lines.append(f"  {_json(key)}: [\n{items}\n  ]")
        else:
            lines.append(f"  {_json(key)}: {_json(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def is_unchanged(document: dict[str, Any]) -> bool:
    """Whether a document has the content that was rendered; True where it has no checksum.

    Examples
    --------
    >>> document = json.loads(render({"rows": 4}))
    >>> is_unchanged(document), is_unchanged({**document, "rows": 5})
    (True, False)
    """
    try:
        return _CHECKSUM not in document or bool(document[_CHECKSUM] == _checksum(document))
    except ValueError:  # NaN, which is not JSON
        return False


def _checksum(document: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key not in _UNCHECKED}
    return f"{crc32c(_json(content).encode()):08x}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_number(value: Any) -> Any:
    """A number as JSON can hold it: a text where it is not finite.

    Examples
    --------
    >>> write_number(float("nan")), write_number(-1.5)
    ('NaN', -1.5)
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def matrix_of(affine: Affine) -> list[float]:
    """The six numbers of an affine, row by row.

    Examples
    --------
    >>> matrix_of(Affine(30, 0, 500000, 0, -30, 60))
    [30.0, 0.0, 500000.0, 0.0, -30.0, 60.0]
    """
    return [float(value) for value in tuple(affine)[:6]]


def read_number(value: Any) -> Any:
    """The number that `write_number` was given."""
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return value


def read_size(value: Any, what: str, least: int = 1) -> Size:
    """The two numbers (x, y) of a document as a size; `what` names them in the error."""
    x, y = value
    return Size(x=read_count(x, what, least), y=read_count(y, what, least))


def read_text(value: Any, what: str) -> str:
    """A text of a document that is not empty."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{what} must be a text; got {shorten(repr(value))}")
    return value


def read_count(value: Any, what: str, least: int = 0) -> int:
    """A whole number of a document."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
        raise TypeError(f"{what} must be a whole number of at least {least}; got {shorten(repr(value))}")
    return value


def pack(values: Sequence[int] | npt.NDArray[Any], dtype: str) -> str:
    """Many numbers as base64.

    Examples
    --------
    >>> unpack(pack([1, 2**31], "<u4"), "<u4").tolist()
    [1, 2147483648]
    """
    return base64.b64encode(np.asarray(values, dtype).tobytes()).decode()


def unpack(text: Any, dtype: str) -> npt.NDArray[Any]:
    """The numbers of `pack`."""
    if not isinstance(text, str):
        raise TypeError(f"a list of numbers must be base64; got {shorten(repr(text))}")
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype)
    except ValueError as error:  # base64's errors are ValueErrors, too
        raise ValueError(f"a list of numbers is not base64: {error}") from None
