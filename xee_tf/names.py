"""Checks of names against the rules of the output format, before anything is computed, written or deleted.

=============  ==================================================================================
format         names that are not allowed
=============  ==================================================================================
records        empty names, and text that cannot be encoded as UTF-8 (protocol buffers)
xarray         two variables with the same name; a variable named like a dimension of another one
Zarr           names that are not a single path segment, or that are reserved (Zarr v3
               specification, "Node names"); for local files, names that the file system rejects
GeoTIFF        leading whitespace, control characters: band descriptions are stored as XML text
GeoPackage     ``fid`` and ``geom``; two columns that differ only in case (SQLite)
GeoParquet     a second column ``geometry``
=============  ==================================================================================

The checks raise an `OptionError` with the first invalid name, the reason, and the ``remedy`` that the caller
passes.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Literal

from xee_tf.errors import OptionError
from xee_tf.storage import ZARR_METADATA, Location

__all__ = [
    "RASTER_NAMES",
    "SPREAD",
    "check_columns",
    "check_geotiff",
    "check_key",
    "check_variables",
    "check_zarr",
    "fold_case",
    "is_utf8",
]

SPREAD = "_spread"
"""Suffix of the bands with the standard deviation of a prediction over the symmetries of a square."""

RASTER_NAMES = frozenset({"x", "y", "spatial_ref"})
"""Dimensions and coordinates of every raster that xee_tf reads."""

_NAME_BYTES = 255  # maximum length of a file name on common file systems
_WINDOWS_CHARACTERS = re.compile(r'[<>:"|?*\x00-\x1f]')
_WINDOWS_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?")


def check_key(name: object, what: str = "band") -> str:
    """Return `name` if it is a valid feature key in a record; `what` describes it in the error message.

    Examples
    --------
    >>> check_key("B4")
    'B4'
    """
    if not isinstance(name, str):
        article = "An" if what[0] in "aeiou" else "A"
        raise OptionError(
            f"{article} {what} name must be a string; got {name!r}. Rename it, for example to {str(name)!r}."
        )
    if not name:
        raise OptionError(f"A {what} name cannot be empty (''): rename the {what}.")
    if not is_utf8(name):
        raise OptionError(f"The {what} name {name!r} cannot be encoded as UTF-8: rename the {what}.")
    return name


def check_variables(
    bands: Mapping[str, Sequence[Hashable]], taken: Collection[Hashable], remedy: str, what: str = "band"
) -> None:
    """Check that bands and their extra dimensions can be variables of one Dataset.

    The error names the first band (or `what`) whose name conflicts with another variable. `taken` contains
    the names of the dimensions and coordinates that the Dataset always has.

    Examples
    --------
    >>> check_variables({"ndvi": ["time"], "slope": []}, RASTER_NAMES, "Rename it.")
    >>> check_variables({"ndvi": ["time"], "time": []}, RASTER_NAMES, "Rename it.")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: The band 'time' cannot be a variable: 'ndvi' has a dimension of that name. ...
    """
    owners = {dim: name for name, dims in bands.items() for dim in dims}
    for name, dims in bands.items():
        if name in taken:
            raise OptionError(
                f"The {what} {name!r} cannot be a variable: a dimension or coordinate has that name. {remedy}"
            )
        if name in owners:
            raise OptionError(
                f"The {what} {name!r} cannot be a variable: {owners[name]!r} has a dimension of that name. "
                f"{remedy}"
            )
        for dim, count in Counter(dims).items():
            if dim in taken or count > 1:
                raise OptionError(
                    f"The {what} {name!r} has a dimension {dim!r}, a name that the raster's own dimensions "
                    f"already use. {remedy}"
                )


def check_zarr(names: Iterable[Hashable], destination: Location, remedy: str) -> None:
    """Check that names are valid array names in a Zarr group, and valid folder names on local file systems.

    Examples
    --------
    >>> from xee_tf.storage import Location
    >>> check_zarr(["a b", "ndvi.mean"], Location("out.zarr"), "")
    >>> check_zarr(["a/b"], Location("out.zarr"), "Rename it.")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: The name 'a/b' cannot be stored in Zarr: '/' separates groups. Rename it.
    """
    local = destination.is_local
    seen: dict[str, Hashable] = {}
    for name in names:
        why = _zarr_problem(name) or (_file_problem(str(name)) if local else "")
        if local and not why and (first := seen.setdefault(_file_key(str(name)), name)) != name:
            why = f"the local file system does not distinguish it from {first!r}"
        _raise_problem(f"The name {name!r} cannot be stored in Zarr", why, remedy)


def _zarr_problem(name: Hashable) -> str:
    """Return why Zarr does not allow an array name, or "" if it does."""
    if not isinstance(name, str):
        return "it is not a string"
    if not name:
        return "it is empty"
    if not name.strip("."):
        return "names that consist only of dots are paths"
    for separator in "/\\":
        if separator in name:
            return f"{separator!r} separates groups"
    if name.startswith("__"):
        return "names that begin with '__' are reserved"
    if name in ZARR_METADATA:
        return "Zarr reserves that name for its metadata"
    return _utf8_problem(name) or ("it contains a null character" if "\0" in name else "")


def _file_problem(name: str) -> str:
    """Return why the local file system does not allow a folder name, or "" if it does."""
    if len(name.encode()) > _NAME_BYTES:
        return f"file systems limit names to {_NAME_BYTES} bytes"
    if sys.platform == "win32" and (
        _WINDOWS_CHARACTERS.search(name) or _WINDOWS_DEVICES.fullmatch(name) or name[-1] in ". "
    ):
        return "Windows does not allow it as a folder name"
    return ""


def _file_key(name: str) -> str:
    """Return the form in which the local file system compares names."""
    return fold_case(name) if sys.platform in ("darwin", "win32") else name


def check_geotiff(names: Iterable[str], remedy: str) -> None:
    """Check that GDAL stores names unchanged as band descriptions of a GeoTIFF.

    Examples
    --------
    >>> check_geotiff(["ndvi_2020-05-01", "a/b", "<B4>"], "")
    >>> check_geotiff([" B4"], "Rename it.")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: The name ' B4' cannot describe a band of a GeoTIFF: GDAL strips leading ...
    """
    for name in names:
        why = _utf8_problem(name)
        if not name:
            why = "it is empty"
        elif name[0] in " \t\r\n":
            why = "GDAL strips leading whitespace"
        elif found := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", name):
            why = f"XML does not allow the character {found[0]!r}"
        _raise_problem(f"The name {name!r} cannot describe a band of a GeoTIFF", why, remedy)


def check_columns(names: Sequence[str], store: Literal["GeoPackage", "GeoParquet"], remedy: str) -> None:
    """Check that names are valid columns, next to the geometry column, in a GeoPackage or GeoParquet file.

    Examples
    --------
    >>> check_columns(["a", "A", "fid"], "GeoParquet", "")
    >>> check_columns(["a", "A"], "GeoPackage", "Leave one out.")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: The column 'A' cannot be stored in a GeoPackage: it differs from 'a' only ...
    """
    seen: dict[str, str] = {}
    for name in names:
        why = _utf8_problem(name)
        if name == "geometry":
            why = "it is the name of the geometry column"
        elif store == "GeoPackage" and not why:
            # SQLite ignores case for ASCII letters only.
            key = re.sub("[A-Z]+", lambda letters: letters[0].lower(), name)
            first = seen.setdefault(key, name)
            if key in ("fid", "geom"):
                why = f"the name is reserved for its {'primary key' if key == 'fid' else 'geometry column'}"
            elif first != name:
                why = f"it differs from {first!r} only in case"
            elif "\0" in name:
                why = "it contains a null character"
        _raise_problem(f"The column {name!r} cannot be stored in a {store}", why, remedy)


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8; Python strings may contain lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fold_case(name: str) -> str:
    """Return the form in which case-insensitive file systems compare names."""
    return unicodedata.normalize("NFC", name).casefold()


def _utf8_problem(name: str) -> str:
    """Return why a name cannot be stored as text, or "" if it can."""
    return "" if is_utf8(name) else "it cannot be encoded as UTF-8"


def _raise_problem(what: str, why: str, remedy: str) -> None:
    """Raise an error unless `why` is empty."""
    if why:
        raise OptionError(f"{what}: {why}. {remedy}")
