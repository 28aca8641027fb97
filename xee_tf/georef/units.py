"""Convert units of coordinates to units of their CRS."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyproj

from xee_tf.errors import GeoreferenceError
from xee_tf.georef.crs import describe_crs, unbound

__all__ = ["axis_units", "crs_units", "full_turn", "is_lon_lat"]

_FOOT, _US_FOOT = 0.3048, 1200 / 3937
_DEGREE = math.pi / 180

# Spellings in lower case, without "_", "-", "." and a plural's "s": see _normal.
_LENGTHS = {
    1.0: "m metre meter",
    1000.0: "km kilometre kilometer",
    100.0: "hm hectometre hectometer",
    0.1: "dm decimetre decimeter",
    0.01: "cm centimetre centimeter",
    0.001: "mm millimetre millimeter",
    _FOOT: "foot feet ft internationalfoot internationalfeet intlfoot footinternational",
    _US_FOOT: "ussurveyfoot ussurveyfeet surveyfoot surveyfeet usfoot usfeet usft ftu sft footu footussurvey",
    0.9144: "yard yd",
    1609.344: "mile mi statutemile",
    1852.0: "nauticalmile nmi",
}
_ANGLES = {
    1.0: "rad radian",
    1e-3: "mrad milliradian",
    1e-6: "urad microradian μrad µrad",
    _DEGREE: "degree deg ° decimaldegree arcdegree",
    _DEGREE / 60: "arcminute arcmin minuteofarc",
    _DEGREE / 3600: "arcsecond arcsec secondofarc",
    math.pi / 200: "grad gon gradian grade",
}
_METRES = {name: size for size, names in _LENGTHS.items() for name in names.split()}
_RADIANS = {name: size for size, names in _ANGLES.items() for name in names.split()}
# Values of the attribute that mean that no units are given.
_NO_UNITS = frozenset({"", "1", "none", "unknown", "unitless", "dimensionless", "nan"})
# "degrees_east" and similar units of CF.
_DIRECTED = re.compile(r"(degrees?|deg)(east|north|true|[ent])")
_FACTOR = re.compile(r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?\d+)?)\*?([^0-9.].*)")
# Standard names that distinguish longitudes and latitudes from scan angles in degrees.
_LON_LAT = frozenset({"longitude", "latitude"})


def axis_units(name: str, attrs: Mapping[str, Any], crs: pyproj.CRS, values: Any = None) -> float:
    """Return the factor from the units of a coordinate (its attribute ``units``) to the units of the CRS.

    Parameters
    ----------
    name : str
        Name of the coordinate, for error messages.
    attrs : mapping
        Attributes of the coordinate. Without ``units`` the coordinate is in units of the CRS.
    crs : pyproj.CRS
        The CRS of the raster.
    values : array, optional
        Values of the coordinate. Values without units in a geostationary projection that are all smaller than
        1 are scan angles in radians: as meters they would be a fraction of one pixel.

    Returns
    -------
    float
        The factor; 1 if the units are equal.

    Raises
    ------
    GeoreferenceError
        If the units are unknown, or incompatible with the CRS.

    Notes
    -----
    Scan angles of geostationary satellites (in radians or degrees) are multiplied by the height of the
    satellite, as PROJ defines the coordinates of the projection [1]_. "foot" means the foot of the CRS if its
    unit is any kind of foot; "degrees" means the unit of a geographic CRS, even if that is another unit of
    angle, because CF has no other unit.

    References
    ----------
    .. [1] https://proj.org/en/stable/operations/projections/geos.html

    Examples
    --------
    >>> axis_units("x", {"units": "km"}, pyproj.CRS("EPSG:3413"))
    1000.0
    >>> axis_units("x", {"units": "degrees_east"}, pyproj.CRS("EPSG:4326"))
    1.0
    """
    units = attrs.get("units")
    text = _normal(units)
    if not crs.axis_info:
        return 1.0
    own, angular = float(crs.axis_info[0].unit_conversion_factor), crs.is_geographic
    if text in _NO_UNITS:
        height = None if values is None or angular else _satellite_height(crs)
        return 1.0 if height is None or not _are_scan_angles(values) else height / own
    length, angle = _size(text, _METRES), _size(text, _RADIANS)
    if angle is not None and angular:
        return 1.0 if math.isclose(angle, _DEGREE) or math.isclose(angle, own) else angle / own
    if length is not None and not angular:
        if math.isclose(length, _FOOT) and math.isclose(own, _FOOT, rel_tol=1e-5):
            return 1.0
        return 1.0 if math.isclose(length, own, rel_tol=1e-9) else length / own
    height = None if angle is None or is_lon_lat(attrs) else _satellite_height(crs)
    if angle is not None and height is not None:
        return angle * height / own
    if length is None and angle is None:
        problem = "which is not a known unit of length or angle"
    else:
        problem = f"but coordinates in {describe_crs(crs)} are in {crs_units(crs)}"
    raise GeoreferenceError(
        f"The {name} coordinates are in {str(units)!r}, {problem}. Correct the units with "
        f"ds[{name!r}].attrs['units'] = {crs_units(crs)!r}, pass the CRS of the coordinates as crs=, or pass "
        "transform= in units of the CRS."
    )


def crs_units(crs: pyproj.CRS) -> str:
    """Return the name of the unit of a CRS, in the spelling of CF and UDUNITS.

    Examples
    --------
    >>> crs_units(pyproj.CRS("EPSG:2263")), crs_units(pyproj.CRS("EPSG:4326"))
    ('US_survey_foot', 'degree')
    """
    return str(crs.axis_info[0].unit_name).replace(" ", "_") if crs.axis_info else ""


def full_turn(crs: pyproj.CRS) -> float | None:
    """Return 360 degrees in the unit of a geographic CRS; None for other CRSs.

    Examples
    --------
    >>> full_turn(pyproj.CRS("EPSG:4326")), full_turn(pyproj.CRS("EPSG:32633"))
    (360.0, None)
    """
    if not crs.is_geographic or not crs.axis_info:
        return None
    # Rounded, because the conversion factor is a rounded number.
    return round(2 * math.pi / float(crs.axis_info[0].unit_conversion_factor), 9)


def is_lon_lat(attrs: Mapping[str, Any]) -> bool:
    """Return whether a coordinate is a longitude or a latitude, by its attributes."""
    directed = _DIRECTED.fullmatch(_normal(attrs.get("units")))
    return bool(directed) or attrs.get("standard_name") in _LON_LAT


def _normal(units: Any) -> str:
    if units is None:
        return ""
    if isinstance(units, bytes):
        units = units.decode(errors="replace")
    text = re.sub(r"[\s_.\-()]+(?![0-9])", "", str(units).strip().lower())
    return text


def _size(text: str, table: Mapping[str, float]) -> float | None:
    """Return a unit in metres or radians; pyproj and UDUNITS write unnamed units as "0.3048 metre"."""
    if directed := _DIRECTED.fullmatch(text):
        text = directed[1]
    for spelling in (text, text.removesuffix("s"), text.removesuffix("es")):
        if spelling in table:
            return table[spelling]
    if multiple := _FACTOR.fullmatch(text):
        size = _size(multiple[2], table)
        return None if size is None else float(multiple[1]) * size
    return None


def _are_scan_angles(values: Any) -> bool:
    numbers = np.asarray(values)
    return bool(numbers.dtype.kind == "f" and numbers.size and np.abs(numbers).max() < 1)


def _satellite_height(crs: pyproj.CRS) -> float | None:
    """Return the satellite height of a geostationary projection in meters, or None for other projections."""
    operation = unbound(crs).coordinate_operation
    if operation is None or not operation.method_name.startswith("Geostationary"):
        return None
    return next((float(p.value) for p in operation.params if "height" in p.name.lower()), None)
