"""Coordinate reference systems as text: read, named and described, never guessed."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

import pyproj

from xee_tf.errors import GeoreferenceError

__all__ = ["MEND_CRS", "crs_text", "describe_crs", "read_crs", "same_crs"]

MEND_CRS = "Write one, for example ds.rio.write_crs('EPSG:32633'), or pass crs=."


def crs_text(crs: pyproj.CRS) -> str:
    """The CRS as a mixer holds it: an authority's code where it is exact, else WKT2.

    Never a guess: a CRS that merely resembles EPSG:32119 (an unknown datum, say) stays WKT.

    Examples
    --------
    >>> crs_text(pyproj.CRS(pyproj.CRS("EPSG:32119").to_wkt("WKT1_GDAL")))
    'EPSG:32119'
    >>> crs_text(pyproj.CRS("+proj=utm +zone=32 +ellps=GRS80"))[:16]
    'PROJCRS["unknown'
    """
    return _exact_code(crs) or str(crs.to_wkt())


@lru_cache(maxsize=256)  # a look-up takes up to 0.2 s
def _exact_code(crs: pyproj.CRS) -> str | None:
    named = crs.to_json_dict().get("id", {})
    candidates = [
        (str(named.get("authority")), str(named.get("code"))) if named else None,
        crs.to_authority("EPSG", min_confidence=100),
        crs.to_authority(min_confidence=100),
    ]
    for found in filter(None, candidates):
        # A file may name a code and then define something else.
        with suppress(pyproj.exceptions.CRSError):
            if same_crs(pyproj.CRS.from_authority(*found), crs):
                return ":".join(found)
    return None


def read_crs(value: Any, source: str = "crs", mend: str = MEND_CRS) -> pyproj.CRS:
    """A CRS from anything that pyproj, rasterio or odc-geo understands.

    Raises
    ------
    GeoreferenceError
        If it cannot be understood; `source` says where the value came from, `mend` what to do about it.

    Examples
    --------
    >>> read_crs(32119).name
    'NAD83 / North Carolina'
    """
    try:
        return pyproj.CRS.from_user_input(value)
    except (pyproj.exceptions.CRSError, TypeError, ValueError) as error:
        shown = repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "..."
        reason = str(error).splitlines()[0][:200]
        raise GeoreferenceError(
            f"The CRS {shown} of {source} cannot be understood ({reason}). {mend}"
        ) from None


def same_crs(first: pyproj.CRS, second: pyproj.CRS) -> bool:
    """Whether two CRSs give the same place to the same (x, y).

    The order in which an authority lists the axes does not matter: ours is x, y always.

    Examples
    --------
    >>> same_crs(pyproj.CRS("EPSG:4326"), pyproj.CRS("OGC:CRS84"))
    True
    >>> same_crs(pyproj.CRS("EPSG:32119"), pyproj.CRS("EPSG:3358"))
    False
    """
    if first.equals(second, ignore_axis_order=True):
        return True
    # PROJ ignores the order of geographic axes only. GDAL's WKT1 leaves out that of projected ones, too.
    try:
        first, second = (pyproj.CRS(crs.to_wkt("WKT1_GDAL")) for crs in (first, second))
    except pyproj.exceptions.CRSError:
        return False  # not every CRS can be said in WKT1
    return bool(first.equals(second, ignore_axis_order=True))


def describe_crs(crs: pyproj.CRS) -> str:
    """A few words on a CRS for an error; for one without an exact code also what it resembles.

    Examples
    --------
    >>> describe_crs(pyproj.CRS("EPSG:32119"))
    'EPSG:32119 (NAD83 / North Carolina)'
    """
    code = _exact_code(crs)
    if code:
        return f"{code} ({crs.name})"
    plain = crs.source_crs if crs.is_bound and crs.source_crs else crs
    like = plain.to_authority(min_confidence=25)
    datum = plain.datum.name if plain.datum else "unknown"
    resembles = f"; it resembles {':'.join(like)}" if like else ""
    return f"{crs.name!r} (datum {datum!r}, no exact code{resembles})"
