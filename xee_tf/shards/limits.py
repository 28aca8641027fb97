"""Limits for what is decompressed into memory: a small gzip file can contain a thousand times its size."""

from __future__ import annotations

import os

from xee_tf.errors import OptionError, RecordError

__all__ = ["check_inflated", "inflation_error", "inflation_limit"]

_VARIABLE = "XEE_TF_MAX_INFLATED_BYTES"
_DEFAULT = 512 << 20
_RATIO = 100


def inflation_limit(compressed: int) -> int:
    """Return how many bytes may be decompressed into memory at a time, from `compressed` bytes.

    It is 100 times their size, and at least 512 MiB, or the environment variable
    ``XEE_TF_MAX_INFLATED_BYTES``.

    Examples
    --------
    >>> inflation_limit(1000), inflation_limit(1 << 30) == 100 << 30
    (536870912, True)
    """
    text = os.environ.get(_VARIABLE, "")
    if text and not text.isdecimal():
        raise OptionError(f"The environment variable {_VARIABLE} must be a number of bytes; got {text!r}.")
    return max(int(text or _DEFAULT), _RATIO * compressed)


def check_inflated(what: str, size: int, compressed: int) -> None:
    """Raise an error if `size` bytes, the content of `compressed` bytes, are too many for the memory."""
    limit = inflation_limit(compressed)
    if size > limit:
        raise inflation_error(what, limit)


def inflation_error(what: str, limit: int) -> RecordError:
    """Return the error for something that takes more than `limit` bytes when it is decompressed."""
    return RecordError(
        f"{what} takes more than {limit:,} bytes in memory, which is far more than the size of the file and "
        "may be intended to fill the memory. If you trust the file, set the environment variable "
        f"{_VARIABLE} to a larger number of bytes."
    )
