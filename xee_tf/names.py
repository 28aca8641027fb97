"""Names, checked against the store that will hold them before anything is computed, written or deleted.

=============  ==================================================================================
store          what it cannot hold
=============  ==================================================================================
records        empty names, and text that has no UTF-8 form (protocol buffers)
xarray         two variables of one name; a variable named like a dimension of another variable
Zarr           names that are not one segment of a path, or that Zarr keeps for itself (Zarr v3
               specification, "Node names"); what the file system refuses, where files are local
GeoTIFF        leading blanks, control characters: the descriptions of bands are text in XML
GeoPackage     ``fid`` and ``geom``; two columns that differ in case only (SQLite)
GeoParquet     a second column ``geometry``
=============  ==================================================================================

The checks raise an `OptionError` that names the first name which cannot be held, says why, and ends with the
``remedy`` of the caller.
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
    "check_columns",
    "check_geotiff",
    "check_key",
    "check_variables",
    "check_zarr",
    "folded",
    "is_utf8",
]

RASTER_NAMES = frozenset({"x", "y", "spatial_ref"})
"""Dimensions and coordinates of every raster that xee_tf reads back."""

_NAME_BYTES = 255  # of a file or folder, on every file system in use
_WINDOWS_CHARACTERS = re.compile(r'[<>:"|?*\x00-\x1f]')
_WINDOWS_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?")


def check_key(name: object, what: str = "band") -> str:
    """A name, if it can be the key of a feature in a record; the error says `what` it names.

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
        raise OptionError(f"There is an empty name (''): rename the {what}.")
    if not is_utf8(name):
        raise OptionError(f"The {what} name {name!r} cannot be encoded as UTF-8: rename the {what}.")
    return name


def check_variables(
    bands: Mapping[str, Sequence[Hashable]], taken: Collection[Hashable], remedy: str, what: str = "band"
) -> None:
    """Check that bands and the dimensions that they bring along can be variables of one Dataset.

    The error names the first band (or `what` else it is) that would replace, or be replaced by, something
    else. Names that are `taken` are those of the dimensions and coordinates that the Dataset has in any case.

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
    """Check that the variables of a Dataset can be arrays of one Zarr group; local disks limit names further.

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
        why = _not_in_zarr(name) or (_not_in_files(str(name)) if local else "")
        if local and not why and (first := seen.setdefault(_file_key(str(name)), name)) != name:
            why = f"the file system here does not distinguish it from {first!r}"
        _refuse(f"The name {name!r} cannot be stored in Zarr", why, remedy)


def _not_in_zarr(name: Hashable) -> str:
    """Why a name cannot be that of an array; empty if it can."""
    if not isinstance(name, str):
        return "it is not a string"
    if not name:
        return "it is empty"
    if not name.strip("."):
        return "names of dots alone are paths"
    for separator in "/\\":
        if separator in name:
            return f"{separator!r} separates groups"
    if name.startswith("__"):
        return "names that begin with '__' are reserved"
    if name in ZARR_METADATA:
        return "Zarr keeps its metadata under that name"
    return _not_utf8(name) or ("it holds a null character" if "\0" in name else "")


def _not_in_files(name: str) -> str:
    """Why a name cannot be that of a folder on this machine; empty if it can."""
    if len(name.encode()) > _NAME_BYTES:
        return f"file systems hold names of at most {_NAME_BYTES} bytes"
    if sys.platform == "win32" and (
        _WINDOWS_CHARACTERS.search(name) or _WINDOWS_DEVICES.fullmatch(name) or name[-1] in ". "
    ):
        return "Windows does not allow it as the name of a folder"
    return ""


def _file_key(name: str) -> str:
    """What the file system of this machine compares names by."""
    return folded(name) if sys.platform in ("darwin", "win32") else name


def check_geotiff(names: Iterable[str], remedy: str) -> None:
    """Check that names can be the descriptions of the bands of a GeoTIFF, which GDAL would not change.

    Examples
    --------
    >>> check_geotiff(["ndvi_2020-05-01", "a/b", "<B4>"], "")
    >>> check_geotiff([" B4"], "Rename it.")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: The name ' B4' cannot describe a band of a GeoTIFF: it begins with a blank, ...
    """
    for name in names:
        why = _not_utf8(name)
        if not name:
            why = "it is empty"
        elif name[0] in " \t\r\n":
            why = "it begins with a blank, which is lost"
        elif found := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", name):
            why = f"XML has no character {found[0]!r}"
        _refuse(f"The name {name!r} cannot describe a band of a GeoTIFF", why, remedy)


def check_columns(names: Sequence[str], store: Literal["GeoPackage", "GeoParquet"], remedy: str) -> None:
    """Check that names can be columns beside the points of a file that a GIS opens.

    Examples
    --------
    >>> check_columns(["a", "A", "fid"], "GeoParquet", "")
    >>> check_columns(["a", "A"], "GeoPackage", "Leave one out.")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: The column 'A' cannot be stored in a GeoPackage: it differs from 'a' in ...
    """
    seen: dict[str, str] = {}
    for name in names:
        why = _not_utf8(name)
        if name == "geometry":
            why = "the points have that name"
        elif store == "GeoPackage" and not why:
            # SQLite folds the letters of ASCII only.
            key = re.sub("[A-Z]+", lambda letters: letters[0].lower(), name)
            first = seen.setdefault(key, name)
            if key in ("fid", "geom"):
                why = f"it keeps its {'keys' if key == 'fid' else 'geometries'} under that name"
            elif first != name:
                why = f"it differs from {first!r} in case only"
            elif "\0" in name:
                why = "it holds a null character"
        _refuse(f"The column {name!r} cannot be stored in a {store}", why, remedy)


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded: strings of Python may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def folded(name: str) -> str:
    """What file systems that do not distinguish case compare names by."""
    return unicodedata.normalize("NFC", name).casefold()


def _not_utf8(name: str) -> str:
    """Why a name is not text in a file; empty if it is."""
    return "" if is_utf8(name) else "it cannot be encoded as UTF-8"


def _refuse(what: str, why: str, remedy: str) -> None:
    """Raise an error if there is a reason."""
    if why:
        raise OptionError(f"{what}: {why}. {remedy}")
