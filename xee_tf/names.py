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
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt
import pandas as pd

from xee_tf.errors import OptionError

if TYPE_CHECKING:
    from xee_tf.storage import Location

__all__ = [
    "RASTER_NAMES",
    "ZARR_METADATA",
    "check_columns",
    "check_geotiff",
    "check_key",
    "check_variables",
    "check_zarr",
    "file_labels",
    "label_steps",
]

RASTER_NAMES = frozenset({"x", "y", "spatial_ref"})
"""Dimensions and coordinates of every raster that xee_tf reads back."""

ZARR_METADATA = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Files that Zarr, of formats 3 and 2, keeps its metadata in."""

_NAME_BYTES = 255  # of a file or folder, on every file system in use
_LABEL_BYTES = 120  # of it for a label; the prefix and the endings of an export need the rest
_WINDOWS_CHARACTERS = re.compile(r'[<>:"|?*\x00-\x1f]')
_WINDOWS_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?")


def check_key(name: object, what: str = "band") -> str:
    """A name that can be the key of a feature in a record.

    Parameters
    ----------
    name : object
    what : str
        What it names, for the error.

    Raises
    ------
    OptionError
        If it is not a string, empty, or cannot be encoded as UTF-8.

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
    if not _is_utf8(name):
        raise OptionError(f"The {what} name {name!r} cannot be encoded as UTF-8: rename the {what}.")
    return name


def check_variables(
    bands: Mapping[str, Sequence[Hashable]], taken: Collection[Hashable], remedy: str, what: str = "band"
) -> None:
    """Check that bands and their dimensions can be variables of one Dataset.

    Parameters
    ----------
    bands : mapping from str to sequence
        The name of each band, and the dimensions that it brings along.
    taken : collection
        Names of the dimensions and coordinates that the Dataset has in any case.
    remedy : str
        What to do about it: the end of the error.
    what : str
        What a band is called in the error.

    Raises
    ------
    OptionError
        That names the first band which would replace, or be replaced by, something else.

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
    """Check that the variables of a Dataset can be arrays of one Zarr group.

    Parameters
    ----------
    names : iterable
        Of bands and coordinates.
    destination : Location
        Where the store will be. Local file systems limit names further.
    remedy : str
        What to do about it: the end of the error.

    Raises
    ------
    OptionError
        That names the first variable which cannot be stored, and says why.

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
        if why:
            raise OptionError(f"The name {name!r} cannot be stored in Zarr: {why}. {remedy}")


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
    if not _is_utf8(name):
        return "it cannot be encoded as UTF-8"
    return "it holds a null character" if "\0" in name else ""


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
    return _folded(name) if sys.platform in ("darwin", "win32") else name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def check_geotiff(names: Iterable[str], remedy: str) -> None:
    """Check that names can be the descriptions of the bands of a GeoTIFF.

    Parameters
    ----------
    names : iterable of str
    remedy : str
        What to do about it: the end of the error.

    Raises
    ------
    OptionError
        That names the first one which GDAL would change.

    Examples
    --------
    >>> check_geotiff(["ndvi_2020-05-01", "a/b", "<B4>"], "")
    >>> check_geotiff([" B4"], "Rename it.")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: The name ' B4' cannot describe a band of a GeoTIFF: it begins with a blank, ...
    """
    for name in names:
        why = ""
        if not name:
            why = "it is empty"
        elif name[0] in " \t\r\n":
            why = "it begins with a blank, which is lost"
        elif found := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", name):
            why = f"XML has no character {found[0]!r}"
        elif not _is_utf8(name):
            why = "it cannot be encoded as UTF-8"
        if why:
            raise OptionError(f"The name {name!r} cannot describe a band of a GeoTIFF: {why}. {remedy}")


def check_columns(names: Sequence[str], store: Literal["GeoPackage", "GeoParquet"], remedy: str) -> None:
    """Check that names can be columns beside the points of a file that a GIS opens.

    Parameters
    ----------
    names : sequence of str
    store : {"GeoPackage", "GeoParquet"}
    remedy : str
        What to do about it: the end of the error.

    Raises
    ------
    OptionError
        That names the first column which the file cannot hold, and says why.

    Examples
    --------
    >>> check_columns(["a", "A", "fid"], "GeoParquet", "")
    >>> check_columns(["a", "A"], "GeoPackage", "Leave one out.")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: The column 'A' cannot be stored in a GeoPackage: it differs from 'a' in ...
    """
    seen: dict[str, str] = {}
    for name in names:
        why = ""
        if name == "geometry":
            why = "the points have that name"
        elif not _is_utf8(name):
            why = "it cannot be encoded as UTF-8"
        elif store == "GeoPackage":
            # SQLite folds the letters of ASCII only.
            key = re.sub("[A-Z]+", lambda letters: letters[0].lower(), name)
            first = seen.setdefault(key, name)
            if key in ("fid", "geom"):
                why = f"it keeps its {'keys' if key == 'fid' else 'geometries'} under that name"
            elif first != name:
                why = f"it differs from {first!r} in case only"
            elif "\0" in name:
                why = "it holds a null character"
        if why:
            raise OptionError(f"The column {name!r} cannot be stored in a {store}: {why}. {remedy}")


def label_steps(values: npt.NDArray[Any]) -> list[str]:
    """A short text for each step of a dimension.

    Dates of every calendar are days where these tell the steps apart, else they have the time too. Bytes are
    decoded.

    Parameters
    ----------
    values : ndarray
        The coordinate.

    Examples
    --------
    >>> import numpy as np
    >>> label_steps(np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]"))
    ['2020-05-01', '2020-06-01']
    >>> label_steps(np.array([0.45, 0.9], "f4")), label_steps(np.array([b"VV", b"VH"]))
    (['0.45', '0.9'], ['VV', 'VH'])
    """
    forms = list(_forms(values))
    return next((labels for labels in forms if len(set(labels)) == len(labels)), forms[0])


def _forms(values: npt.NDArray[Any]) -> Iterator[list[str]]:
    """Texts for the values of a coordinate, the shortest first."""
    if values.dtype.kind == "M":
        for unit in ("D", "s"):
            yield [str(value) for value in values.astype(f"datetime64[{unit}]")]
    elif values.dtype.kind == "m":
        yield [str(value) for value in pd.to_timedelta(values.astype("timedelta64[ns]"))]
    elif _are_dates(values):
        for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"):
            yield [value.strftime(form).strip() for value in values]
    yield [_text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return "_".join(map(_text, value)) if isinstance(value, tuple) else str(value)


def _are_dates(values: npt.NDArray[Any]) -> bool:
    """Whether steps are points in time: of numpy, pandas, the standard library or cftime."""
    return values.dtype.kind == "M" or (
        values.dtype.kind == "O"
        and all(
            hasattr(value, "strftime") and hasattr(value, "year") and not isinstance(value, pd.Period)
            for value in values
        )
        and not pd.isna(values).any()
    )


def file_labels(values: npt.NDArray[Any] | None, count: int) -> list[str]:
    """What the steps of a dimension are called in the names of files.

    The labels of `label_steps`, with "-" for what is not a letter, a digit, "_", "." or "-"; dates are
    written ``20200501``. Steps are numbered where that does not tell them apart on every file system (twins
    in case included).

    Parameters
    ----------
    values : ndarray or None
        The coordinate, if there is one.
    count : int
        The number of steps.

    Examples
    --------
    >>> import numpy as np
    >>> file_labels(np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]"), 2)
    ['20200501', '20200601']
    >>> file_labels(np.array(["VV", "a/b"]), 2), file_labels(np.array(["VV", "vv"]), 2)
    (['VV', 'a-b'], ['00000', '00001'])
    """
    numbers = [f"{step:05d}" for step in range(count)]
    if values is None or len(values) != count:
        return numbers
    labels, dates = label_steps(values), _are_dates(values)
    if dates:
        labels = [re.sub("[-:]", "", label) for label in labels]
    labels = [re.sub(r"[^\w.-]+", "-", label) for label in labels]
    if _are_distinct(labels):
        return labels
    return [f"{label}_{number}" for label, number in zip(labels, numbers, strict=True)] if dates else numbers


def _are_distinct(labels: Sequence[str]) -> bool:
    """Whether labels can tell files apart, wherever these are copied to."""
    if len({_folded(label) for label in labels}) != len(labels):
        return False
    return all(label and _is_utf8(label) and len(label.encode()) <= _LABEL_BYTES for label in labels)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
