"""The exceptions of xee_tf, and its warnings.

Each one is ours *and* the builtin that a caller would expect, so ``except ValueError`` and
``except xee_tf.XeeTFError`` both work.
"""

import sys
import warnings
from itertools import count
from threading import Lock

__all__ = [
    "WARNING_FILTERS",
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
    "XeeTFError",
    "shorten",
    "warn",
]

WARNING_FILTERS = Lock()
"""Held where rasterio changes the filters of warnings, which are those of the whole process."""

_PASSED_THROUGH = ("xee_tf", "xarray")  # xarray opens files with our engine, and its accessors are ours


class XeeTFError(Exception):
    """Base class of every error that xee_tf raises on purpose."""


class OptionError(XeeTFError, ValueError):
    """An option is unknown, or has a value that cannot be used."""


class GeoreferenceError(XeeTFError, ValueError):
    """A raster has no usable CRS, affine or x/y dimensions."""


class GridMismatchError(GeoreferenceError):
    """Two rasters that must share one grid do not."""


class MixerError(XeeTFError, ValueError):
    """A mixer sidecar is not valid."""


class ManifestError(MixerError):
    """The manifest of an export is not valid, or does not describe the files beside it."""


class RecordError(XeeTFError, ValueError):
    """A TFRecord file or one of its records is corrupt, truncated or not what was expected."""


class MissingShardError(RecordError, FileNotFoundError):
    """A shard that the mixer or the numbering of its neighbours calls for is not there."""


class MissingExtraError(XeeTFError, ModuleNotFoundError):
    """A package that xee_tf does not always bring is needed and not installed."""


class DestinationError(XeeTFError, OSError):
    """A destination cannot be written."""


class DestinationExistsError(DestinationError, FileExistsError):
    """A destination holds files already."""


class ModelError(XeeTFError, ValueError):
    """A model cannot be opened, or is not what was said of it."""


class MissingModelError(ModelError, FileNotFoundError):
    """There is no model where one was said to be."""


class PredictionError(XeeTFError, RuntimeError):
    """A model refused what it was sent, or answered with something other than what was declared.

    Parameters
    ----------
    message : str
    instances : range, optional
        The tiles or rows of the batch that it is about, where that is known.
    """

    def __init__(self, message: str = "", *, instances: range | None = None) -> None:
        super().__init__(message)
        self.instances = instances


def shorten(text: str, length: int = 80) -> str:
    """A text for a message, cut if it is long.

    Examples
    --------
    >>> shorten("abcdefgh", 6)
    'abc...'
    """
    return text if len(text) <= length else text[: length - 3] + "..."


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn about the line of the user that led here, however many of our functions lie between.

    ``warnings.warn(skip_file_prefixes=...)`` does this from Python 3.12 on.
    """
    for level in count(1):
        try:
            frame = sys._getframe(level)
        except ValueError:  # a thread of ours: there is no line of the user
            break
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _PASSED_THROUGH:
            break
    warnings.warn(message, category, stacklevel=level + 1)
