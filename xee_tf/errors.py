"""Exceptions and warnings.

Each exception derives from `XeeTFError` *and* from the matching builtin exception, so both
``except ValueError`` and ``except xee_tf.XeeTFError`` work.
"""

import sys
import warnings
from collections.abc import Iterator
from itertools import count
from threading import Lock
from typing import Any

__all__ = [
    "LONGEST_TEXT",
    "WARNING_FILTERS",
    "ChunkError",
    "DestinationError",
    "DestinationExistsError",
    "GeoreferenceError",
    "GridMismatchError",
    "ManifestError",
    "MissingExtraError",
    "MissingModelError",
    "MissingShardError",
    "MixerError",
    "ModelError",
    "OptionError",
    "PredictionError",
    "RecordError",
    "StorageError",
    "XeeTFError",
    "excerpt",
    "shorten",
    "warn",
]

WARNING_FILTERS = Lock()
"""Lock held while rasterio changes the warning filters, which are global to the process."""

LONGEST_TEXT = 2000
"""Maximum number of characters of an error."""

_LONGEST_INTEGER = 1024  # bits of an integer that is formatted
_DEEPEST = 8  # levels of nested values that are formatted
_HEAD, _TAIL = 1500, 480  # characters at the beginning and the end of a longer text that are kept

# xarray calls the backend and accessors of this package, and contextlib its decorated functions.
_INTERNAL_PACKAGES = ("xee_tf", "xarray", "contextlib")


class XeeTFError(Exception):
    """Base class of all errors that xee_tf defines.

    The text of an error has at most 2,000 characters and is valid Unicode, even if it contains names from a
    damaged file.
    """

    def __str__(self) -> str:
        text = super().__str__().encode("utf-8", "backslashreplace").decode("utf-8")
        return text if len(text) <= LONGEST_TEXT else f"{text[:_HEAD]} ... {text[-_TAIL:]}"


class OptionError(XeeTFError, ValueError):
    """An option is unknown, or has a value that cannot be used."""


class GeoreferenceError(XeeTFError, ValueError):
    """A raster has no usable CRS, affine or x/y dimensions."""


class GridMismatchError(GeoreferenceError):
    """Two rasters that must be on the same grid are not."""


class MixerError(XeeTFError, ValueError):
    """A mixer sidecar is not valid."""


class ManifestError(MixerError):
    """The manifest of an export is not valid, or does not match the files next to it."""


class RecordError(XeeTFError, ValueError):
    """A TFRecord file or one of its records is corrupt, truncated or not what was expected."""


class MissingShardError(RecordError, FileNotFoundError):
    """A file of an export was not found: its mixer, a shard, or the file of a table."""


class MissingExtraError(XeeTFError, ModuleNotFoundError):
    """An optional dependency that is required for an operation is not installed."""


class StorageError(XeeTFError, OSError):
    """A file or object cannot be read, or a folder cannot be listed."""


class DestinationError(XeeTFError, OSError):
    """A destination cannot be written to."""


class DestinationExistsError(DestinationError, FileExistsError):
    """A destination already contains files."""


class ModelError(XeeTFError, ValueError):
    """A model cannot be opened, or does not match its declaration."""


class MissingModelError(ModelError, FileNotFoundError):
    """A model was not found at the given location."""


class ChunkError(XeeTFError, ValueError):
    """A chunk of a Dask array does not have the shape or dtype that the array declares.

    Only the arrays that xee_tf gets are checked. If such a chunk is combined with other arrays before, numpy
    may broadcast it to the right shape, and nothing shows that its values are wrong.
    """


class PredictionError(XeeTFError, RuntimeError):
    """A model failed on its input, or returned something other than what was declared.

    Parameters
    ----------
    message : str
        The error message.
    instances : range, optional
        Indices of the affected tiles or rows in the batch, if known.
    """

    def __init__(self, message: str = "", *, instances: range | None = None) -> None:
        super().__init__(message)
        self.instances = instances


def shorten(text: str, length: int = 80) -> str:
    """Truncate a text to `length` characters, in one line, for use in a message.

    Examples
    --------
    >>> shorten("abcdefgh", 6)
    'abc...'
    """
    if "\n" in text:
        text = " ".join(line.strip() for line in text.splitlines())
    return text if len(text) <= length else text[: length - 3] + "..."


def excerpt(value: object, length: int = 80) -> str:
    """Return the beginning of ``repr(value)`` for a message; only this part is formatted.

    Use it for values from files and requests, which may be large or deeply nested.

    Examples
    --------
    >>> excerpt({"B4": list(range(10**6))}, 24), excerpt("ab")
    ("{'B4': [0, 1, 2, 3, 4...", "'ab'")
    >>> excerpt((1,)), excerpt([1])
    ('(1,)', '[1]')
    """
    text = ""
    for piece in _pieces(value, length, _DEEPEST):
        text += piece
        if len(text) > length:
            break
    return shorten(text, length)


def _pieces(value: Any, length: int, depth: int) -> Iterator[str]:
    """Yield the parts of ``repr(value)``."""
    kind: Any = type(value)
    if kind in (str, bytes):
        yield repr(value[: length + 1])
    elif kind is int and value.bit_length() > _LONGEST_INTEGER:
        yield f"an integer of {value.bit_length():,} bits"
    elif kind not in (dict, list, tuple):
        yield repr(value)
    elif not depth:
        yield "..."
    else:
        yield {dict: "{", list: "["}.get(kind, "(")
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(item, length, depth - 1)
            if kind is dict:
                yield ": "
                yield from _pieces(value[item], length, depth - 1)
        yield {dict: "}", list: "]"}.get(kind, ",)" if len(value) == 1 else ")")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning that points to the user's line of code.

    ``warnings.warn(skip_file_prefixes=...)`` does the same in Python 3.12 and later.
    """
    for level in count(1):
        try:
            frame = sys._getframe(level)
        except ValueError:  # an internal thread: no user code on the stack
            break
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _INTERNAL_PACKAGES:
            break
    warnings.warn(message, category, stacklevel=level + 1)
