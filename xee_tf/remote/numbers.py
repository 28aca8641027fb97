"""Numbers in texts from other computers: URLs and headers."""

from __future__ import annotations

import math

__all__ = ["content_length", "parse_int64"]

_DIGITS = 19


def parse_int64(text: str) -> int | None:
    """Return the number that ASCII digits denote; None for other texts, and numbers that int64 does not hold.

    `int` raises an error for more than 4,300 digits, and accepts signs, spaces and digits of other scripts.

    Examples
    --------
    >>> parse_int64("12"), parse_int64("9223372036854775808"), parse_int64("-1")
    (12, None, None)
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS:
        return None
    number = int(text)
    return number if number < 1 << 63 else None


def content_length(header: str) -> float:
    """Return the number of bytes of a header Content-Length: infinite beyond int64, 0 if it is no number.

    Examples
    --------
    >>> content_length("1024"), content_length("9" * 5000), content_length("")
    (1024, inf, 0)
    """
    if not (header.isascii() and header.isdecimal()):
        return 0
    number = parse_int64(header)
    return math.inf if number is None else number
