"""Parse, name and describe coordinate reference systems, without guessing."""

from __future__ import annotations

import json
import operator
import re
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
from pyproj.exceptions import ProjError

from xee_tf.errors import GeoreferenceError, excerpt, shorten
from xee_tf.georef.coordinates import Points
from xee_tf.georef.crs_files import require_no_files

__all__ = [
    "FIX_CRS",
    "PointTransform",
    "crs_name",
    "crs_of_cf",
    "crs_option",
    "crs_text",
    "describe_crs",
    "point_transformer",
    "read_crs",
    "same_crs",
    "unbound",
]

PointTransform = Callable[[Points], Points]
"""A function that transforms points from one CRS to another."""

FIX_CRS = "Write one, for example ds.rio.write_crs('EPSG:32633'), or pass crs=."

# The grid of MODIS and VIIRS: sinusoidal, on a sphere (MODIS Land). PROJ does not support SR-ORG codes.
_MODIS_RADIUS = 6371007.181
_MODIS = f"+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R={_MODIS_RADIUS} +units=m +no_defs +type=crs"
_KNOWN = {
    "SR-ORG:6974": ("MODIS Sinusoidal", _MODIS),  # Earth Engine's MODIS assets
    "SR-ORG:6842": ("MODIS Sinusoidal", _MODIS),  # an earlier entry of spatialreference.org
    "SR-ORG:6965": ("MODIS Sinusoidal", _MODIS),  # another entry of spatialreference.org
    "SR-ORG:6627": ("Google Maps Mercator", "EPSG:3857"),  # Earth Engine's guide to video exports
    "SR-ORG:6864": ("Web Mercator", "EPSG:3857"),  # an entry of spatialreference.org
    "CRS84": ("", "OGC:CRS84"),  # the name in WMS and GeoJSON
    "CRS:84": ("", "OGC:CRS84"),
}
# Earth Engine's WKT of SR-ORG:6974 has the ellipsoid of WGS 84, and the sphere as two parameters that PROJ
# ignores, which causes errors of up to 19 km. No other CRS is written in this way.
_MODIS_IN_WKT = re.compile(r'PARAMETER\[\s*"semi_major"\s*,\s*6371007\.181', re.IGNORECASE)
_SR_ORG = re.compile(r"(?:urn:ogc:def:crs:)?sr-org:(?:[^:]*:)?(\d+)", re.IGNORECASE)
# The form of xarray's former rasterio reader and of geopandas; the axis order does not matter here.
_INIT = re.compile(r"\+?init=(\w+):(\w+)(?:\s+\+(?:no_defs|type=crs))*", re.IGNORECASE)
_GML = re.compile(r"https?://www\.opengis\.net/gml/srs/epsg\.xml#(\d+)", re.IGNORECASE)
_EPSG = re.compile(r"(?:epsg:|urn:ogc:def:crs:epsg:[^:]*:)\s*(\d+)", re.IGNORECASE)
_FIRST_OF_ESRI = 37000
_LONGEST = 1 << 20  # characters; the longest of EPSG has 50,000, and PROJ takes 100 times as much memory

_PARSE_ERRORS = (pyproj.exceptions.CRSError, TypeError, ValueError, RecursionError)


def crs_text(crs: pyproj.CRS) -> str:
    """Return the CRS as text for a mixer: an authority code if it is exact, else WKT2.

    A CRS that merely resembles EPSG:32119 (with an unknown datum, for example) is written as WKT.

    Examples
    --------
    >>> crs_text(pyproj.CRS(pyproj.CRS("EPSG:32119").to_wkt("WKT1_GDAL")))
    'EPSG:32119'
    >>> crs_text(pyproj.CRS("+proj=utm +zone=32 +ellps=GRS80"))[:16]
    'PROJCRS["unknown'
    """
    return _exact_code(crs) or str(crs.to_wkt())


@lru_cache(maxsize=256)  # a lookup takes up to 0.2 s
def _exact_code(crs: pyproj.CRS) -> str | None:
    named = crs.to_json_dict().get("id", {})
    name = f"{named.get('authority')}:{named.get('code')}"
    if name in _KNOWN and same_crs(_crs_of_text(name), crs):
        return name
    candidates = [
        (str(named.get("authority")), str(named.get("code"))) if named else None,
        crs.to_authority("EPSG", min_confidence=100),
        crs.to_authority(min_confidence=100),
    ]
    for found in filter(None, candidates):
        # A file may contain a code with a different definition.
        with suppress(pyproj.exceptions.CRSError):
            if same_crs(pyproj.CRS.from_authority(*found), crs):
                return ":".join(found)
    return None


def crs_option(value: Any, name: str = "crs") -> pyproj.CRS:
    """Parse the CRS that a user gave as an option.

    Raises
    ------
    GeoreferenceError
        If the CRS cannot be parsed.

    Examples
    --------
    >>> crs_option("EPSG:32633").to_epsg()
    32633
    >>> crs_option("UTM", "region_crs")
    Traceback (most recent call last):
    xee_tf.errors.GeoreferenceError: region_crs='UTM' is not a CRS that pyproj accepts (...). Pass for \
example region_crs='EPSG:32633'.
    """
    try:
        return _known_crs(value)
    except _PARSE_ERRORS as error:
        raise GeoreferenceError(
            f"{name}={excerpt(value)} is not a CRS that pyproj accepts ({_reason(error)}). Pass for "
            f"example {name}='EPSG:32633'."
        ) from None


def read_crs(value: Any, source: str = "the grid", fix: str = FIX_CRS) -> pyproj.CRS:
    """Parse the CRS of a raster or file, in any form that pyproj, rasterio, odc-geo or Earth Engine uses.

    Earth Engine's codes "SR-ORG:6974" (the sinusoidal projection of MODIS) and "SR-ORG:6627" (Web Mercator)
    are supported, although PROJ lacks them. URLs are never fetched, and files are never opened: a CRS that
    refers to them is an error.

    Parameters
    ----------
    value : any
        The CRS.
    source : str
        Origin of the value, for error messages.
    fix : str
        How to fix the problem, for error messages.

    Returns
    -------
    pyproj.CRS

    Raises
    ------
    GeoreferenceError
        If the CRS cannot be parsed.

    Examples
    --------
    >>> read_crs(32119).name
    'NAD83 / North Carolina'
    >>> read_crs("SR-ORG:6974").ellipsoid.semi_major_metre
    6371007.181
    """
    try:
        return _known_crs(value)
    except _PARSE_ERRORS as error:
        raise GeoreferenceError(
            f"The CRS {excerpt(value)} of {source} cannot be parsed ({_reason(error)}). {fix}"
        ) from None


def _reason(error: Exception) -> str:
    """Return the first line of an error, without its period."""
    return (str(error).splitlines() or [""])[0][:200].rstrip(".")


def _known_crs(value: Any) -> pyproj.CRS:
    if isinstance(value, bytes):  # attributes of some netCDF and HDF files
        value = value.decode()
    if isinstance(value, dict) and isinstance(value.get("init"), str):
        value = "init=" + " ".join([value["init"], *(f"+{key}" for key in value if key != "init")])
    if isinstance(value, tuple | list) and len(value) == 2:
        value = f"{value[0]}:{value[1]}"  # an authority and a code
    if hasattr(value, "to_wkt") and not isinstance(value, pyproj.CRS):
        value = value.to_wkt()
    if isinstance(value, str):
        return _crs_of_text(_limited(str(value)).strip())
    if hasattr(value, "__index__") and not isinstance(value, bool):
        value = operator.index(value)  # a numpy integer
    if isinstance(value, Mapping):
        require_no_files(value)
    crs = _without_files(pyproj.CRS.from_user_input(value))
    return _crs_of_text("SR-ORG:6974") if _MODIS_IN_WKT.search(crs.to_wkt()) else crs


def crs_of_cf(attrs: Mapping[str, Any]) -> pyproj.CRS:
    """Parse the attributes of a CF grid mapping.

    Raises
    ------
    KeyError, TypeError, ValueError, pyproj.exceptions.CRSError
        If they cannot be parsed, or refer to files or URLs.

    Examples
    --------
    >>> crs_of_cf({"grid_mapping_name": "latitude_longitude", "earth_radius": 6370000.0}).is_geographic
    True
    """
    for key, value in attrs.items():  # pyproj does not parse other attributes, such as a comment
        if isinstance(value, str) and (key in ("crs_wkt", "spatial_ref") or key.endswith("_name")):
            require_no_files(_limited(value))
    return _without_files(pyproj.CRS.from_cf(dict(attrs)))


def _limited(text: str) -> str:
    if len(text) > _LONGEST:
        raise ValueError(f"it has {len(text):,} characters; at most {_LONGEST:,} are supported")
    if "\0" in text:  # where PROJ would end it
        raise ValueError("it contains a null character")
    return text


def _without_files(crs: pyproj.CRS) -> pyproj.CRS:
    require_no_files(str(crs.to_wkt()))
    return crs


@lru_cache(maxsize=256)
def _crs_of_text(text: str) -> pyproj.CRS:
    """Parse a CRS from text."""
    if code := _SR_ORG.fullmatch(text):
        text = f"SR-ORG:{code[1]}"
    elif code := _INIT.fullmatch(text):
        text = f"{code[1].upper()}:{code[2]}"
    elif code := _GML.fullmatch(text):
        text = f"EPSG:{code[1]}"
    elif _MODIS_IN_WKT.search(text):
        text = "SR-ORG:6974"
    if text.upper() in _KNOWN:
        name, meaning = _KNOWN[text.upper()]
        crs = pyproj.CRS.from_user_input(meaning)
        if not name:
            return crs
        # Keep the code in the CRS, so that a mixer that is read and written again has the same code.
        parts = crs.to_json_dict()
        authority, code_text = text.upper().split(":")
        return pyproj.CRS.from_json_dict(
            {**parts, "name": name, "id": {"authority": authority, "code": int(code_text)}}
        )
    require_no_files(json.loads(text, strict=False) if text.startswith("{") else text)
    try:
        return _without_files(pyproj.CRS.from_user_input(text))
    except pyproj.exceptions.CRSError:
        # Esri codes are often labeled as EPSG codes, also by GeoTools and GDAL.
        code = _EPSG.fullmatch(text)
        if code and int(code[1]) >= _FIRST_OF_ESRI:
            with suppress(pyproj.exceptions.CRSError):
                return pyproj.CRS.from_authority("ESRI", code[1])
        raise


def same_crs(first: pyproj.CRS, second: pyproj.CRS) -> bool:
    """Return whether two CRSs assign the same location to the same (x, y).

    The axis order of the authority does not matter: the order is always x, y here.

    Examples
    --------
    >>> same_crs(pyproj.CRS("EPSG:4326"), pyproj.CRS("OGC:CRS84"))
    True
    >>> same_crs(pyproj.CRS("EPSG:32119"), pyproj.CRS("EPSG:3358"))
    False
    """
    if first.equals(second, ignore_axis_order=True):
        return True
    # PROJ ignores only the order of geographic axes. GDAL's WKT1 also omits the order of projected axes.
    try:
        first, second = (pyproj.CRS(crs.to_wkt("WKT1_GDAL")) for crs in (first, second))
    except pyproj.exceptions.CRSError:
        return False  # not every CRS can be expressed in WKT1
    return bool(first.equals(second, ignore_axis_order=True))


def point_transformer(source: pyproj.CRS, target: pyproj.CRS) -> PointTransform:
    """Return a function that transforms points of shape (n, 2); points outside the target become infinite.

    Examples
    --------
    >>> point_transformer(pyproj.CRS("EPSG:4326"), pyproj.CRS("EPSG:32633"))(np.array([[15.0, 45.0]])).round()
    array([[ 500000., 4982950.]])
    """
    if same_crs(source, target):
        return lambda points: points
    try:
        transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        names = " to ".join(excerpt(each.name) for each in (source, target))
        why = shorten(str(error).partition(": (")[0])
        raise GeoreferenceError(
            f"Coordinates cannot be converted from {names}: {why} Check both CRSs."
        ) from error

    def transform(points: Points) -> Points:
        # pyproj converts an array of one point to a float, about which NumPy warns.
        x, y = points[0] if len(points) == 1 else points.T
        return np.column_stack(transformer.transform(x, y))

    return transform


def unbound(crs: pyproj.CRS) -> pyproj.CRS:
    """Return a CRS without its bound transformation to WGS 84 (``+towgs84`` in PROJ), if it has one.

    Examples
    --------
    >>> bound = pyproj.CRS("+proj=utm +zone=32 +ellps=intl +towgs84=-87,-98,-121 +type=crs")
    >>> bound.type_name, unbound(bound).type_name
    ('Bound CRS', 'Projected CRS')
    """
    return crs.source_crs if crs.is_bound and crs.source_crs else crs


def describe_crs(crs: pyproj.CRS) -> str:
    """Describe a CRS for an error message; without an exact code, include the most similar one.

    Examples
    --------
    >>> describe_crs(pyproj.CRS("EPSG:32119"))
    'EPSG:32119 (NAD83 / North Carolina)'
    """
    code = _exact_code(crs)
    if code:
        return f"{code} ({crs.name})"
    plain = unbound(crs)
    like = plain.to_authority(min_confidence=25)
    datum = plain.datum.name if plain.datum else "unknown"
    resembles = f"; it resembles {':'.join(like)}" if like else ""
    return f"{crs.name!r} (datum {datum!r}, no exact code{resembles})"


def crs_name(text: str) -> str:
    """Return a short name of a CRS in any form: its code, or the name in its WKT, or its projection.

    Examples
    --------
    >>> crs_name(pyproj.CRS("EPSG:32633").to_wkt()), crs_name("+proj=utm +zone=32 +ellps=GRS80 +type=crs")
    ('EPSG:32633', 'an unnamed CRS, Transverse Mercator')
    """
    try:
        crs = read_crs(text)
    except GeoreferenceError:
        return textwrap.shorten(text, 40, placeholder="...")
    if code := _exact_code(crs):
        return code
    if crs.name.lower() not in ("unnamed", "unknown", "undefined"):
        return str(crs.name)
    operation = unbound(crs).coordinate_operation
    method = operation.method_name if operation else "geographic"
    return f"an unnamed CRS, {method}"
