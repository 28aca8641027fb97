"""Formats of the destinations of rasters."""

from __future__ import annotations

from typing import Literal

from xee_tf.errors import OptionError
from xee_tf.storage import Location

__all__ = ["RasterFormat", "raster_format", "require_format"]

RasterFormat = Literal["tif", "zarr"]

_EXTENSIONS: dict[RasterFormat, tuple[str, ...]] = {"tif": (".tif", ".tiff"), "zarr": (".zarr",)}


def raster_format(location: Location) -> RasterFormat:
    """Return the format of a destination by its extension.

    Raises
    ------
    OptionError
        If the extension is neither that of a GeoTIFF nor that of a Zarr store.

    Examples
    --------
    >>> raster_format(Location("out/map.TIFF")), raster_format(Location("out/map.zarr"))
    ('tif', 'zarr')
    """
    for written in _EXTENSIONS:
        if _has_extension(location, written):
            return written
    raise OptionError(f"Unknown output format of {location.name!r}: use the extension .tif, .tiff or .zarr.")


def require_format(location: Location, written: RasterFormat, hint: str = "") -> None:
    """Check that a destination has an extension of the format that is written.

    Raises
    ------
    OptionError
        If it has another extension or none; the message ends with `hint`.

    Examples
    --------
    >>> require_format(Location("out/map.jp2"), "tif", "Use to_zarr.")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: destination must end with .tif or .tiff; got 'map.jp2'. Use to_zarr.
    """
    if not _has_extension(location, written):
        allowed = " or ".join(_EXTENSIONS[written])
        raise OptionError(f"destination must end with {allowed}; got {location.name!r}. {hint}".rstrip())


def _has_extension(location: Location, written: RasterFormat) -> bool:
    return location.name.lower().endswith(_EXTENSIONS[written])
