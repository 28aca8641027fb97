"""Find files and URLs in the text of a CRS, which PROJ and GDAL would open or fetch.

PROJ opens the files of ``+init=`` while it parses a CRS, and grids when it transforms coordinates: in PROJ
strings (``+nadgrids=``), in WKT (``PARAMETERFILE``, the extensions ``PROJ4`` and ``PROJ4_GRIDS``, methods and
remarks that contain a PROJ string) and in PROJJSON. If the network of PROJ is enabled, it fetches URLs. The
text may come from an untrusted file, so only names of grids are accepted, which PROJ looks up in its own
folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from xee_tf.errors import shorten

__all__ = ["require_no_files"]

_WKT = re.compile(r"\s*\w+\s*[\[(]", re.ASCII)
_STRING = re.compile('"((?:[^"]|"")*)"')
_TYPOGRAPHIC = str.maketrans("\u201c\u201d", '""')  # PROJ also accepts these quotation marks
_QUOTES = dict.fromkeys(map(ord, '"\u201c\u201d'))
# Every PROJ string in WKT or PROJJSON contains "proj=" or "init=", or follows "PROJ ", perhaps with other
# characters that PROJ omits.
_PROJ = re.compile("(proj|init)[^a-z]", re.IGNORECASE)
_URL = re.compile(r"\s*https?:", re.IGNORECASE)  # such as http://www.opengis.net/def/crs/EPSG/0/4326
_RATIO = re.compile(r"(?<=[\d)])/(?=[\d.])", re.ASCII)  # in remarks: R_m = (a+b+c)/3
_IN_NAME = re.compile(r"(?<=[\w)]) / (?=[\w(])")  # "Sphere / Ocentric / Equirectangular, clon = 0"
# Options of transformations, which are not part of a CRS.
_FILES = re.compile(r"(?<![a-z])(grids|file|model|catalog)\s*=", re.IGNORECASE)
_PARAMETER_FILE = re.compile(r"PARAMETERFILE\s*[\[(]\s*$", re.ASCII | re.IGNORECASE)
_GRIDS = re.compile(r"(@?[\w.+-]+(\s*,\s*@?[\w.+-]+)*)?", re.ASCII)


def require_no_files(crs: Any) -> None:
    """Check that a CRS does not contain the path of a file or a URL.

    Parameters
    ----------
    crs : str or mapping
        WKT, a PROJ string, a code, or PROJJSON or the parameters of a PROJ string as a mapping.

    Raises
    ------
    ValueError
        If it does.

    Examples
    --------
    >>> require_no_files("+proj=longlat +nadgrids=@conus,ntv2_0.gsb")
    >>> require_no_files("+proj=longlat +nadgrids=http://example.org/grid.tif")
    Traceback (most recent call last):
    ValueError: it refers to a file or URL, which is never opened: '+proj=longlat +nadgrids=http://...
    """
    if isinstance(crs, str):
        if _WKT.match(crs):
            _check_wkt(crs)
            _check_wkt(crs.translate(_TYPOGRAPHIC))
        elif "=" in crs and not _URL.match(crs):
            _check_proj(crs)
    elif "proj" in crs or "init" in crs:
        _check_proj(" ".join(f"+{key}={value}" for key, value in crs.items()))
    else:
        _check_json(crs)


def _check_proj(text: str) -> None:
    rest = _RATIO.sub("", text if '"' in text else _IN_NAME.sub(" ", text))
    if "/" in rest or "\\" in rest or _FILES.search(rest):
        raise _refused(text)


def _may_have_proj(text: str) -> bool:
    return "=" in text and _PROJ.search(text.translate(_QUOTES)) is not None


def _check_wkt(text: str) -> None:
    has_proj = _may_have_proj(text)  # not of a part, because quotation marks may be ambiguous
    parts = _STRING.split(text)  # every other part is a quoted string
    for number, part in enumerate(parts):
        if has_proj and "=" in part:
            _check_proj(part)
        elif part.strip().upper() == "PROJ4_GRIDS":
            _check_grids(parts[number + 2 : number + 3])
        elif _PARAMETER_FILE.search(part):
            _check_grids(parts[number + 3 : number + 4])


def _check_grids(names: Iterable[str]) -> None:
    for name in names:
        if not _GRIDS.fullmatch(name.strip()):
            raise _refused(name)


def _check_json(value: Any, key: str = "") -> None:
    if isinstance(value, Mapping):
        for name, each in value.items():
            _check_json(each, name)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_json(each, key)
    elif isinstance(value, str):
        if key == "value":  # of a parameter
            _check_grids([value])
        if _may_have_proj(value):
            _check_proj(value)


def _refused(text: str) -> ValueError:
    return ValueError(f"it refers to a file or URL, which is never opened: {shorten(repr(text), 60)}")
