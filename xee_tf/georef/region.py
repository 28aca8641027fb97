"""Convert a region (box, geometry or pixel slices) to a window of a raster."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pyproj

from xee_tf.display import quoted
from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import Window
from xee_tf.georef.crs import crs_option, describe_crs, read_crs, same_crs
from xee_tf.georef.longitudes import unwrap_rings
from xee_tf.georef.outlines import box_text, covered_window
from xee_tf.georef.reference import GeoRef
from xee_tf.georef.units import full_turn

__all__ = ["region_window"]

_FIX_CRS = "Pass a CRS that pyproj accepts, for example region_crs='EPSG:4326'."

_KINDS = (
    "a box (left, bottom, right, top), a GeoJSON-like geometry, an odc.geo or shapely geometry, or slices of "
    "pixels {'y': slice(0, 512), 'x': slice(0, 512)}"
)


def region_window(region: Any, georef: GeoRef, region_crs: Any = None) -> Window:
    """Return the window of the pixels that a region touches.

    Parameters
    ----------
    region : box, geometry or slices
        * ``(left, bottom, right, top)`` in the CRS of the raster, or in `region_crs`. In degrees, left may
          be greater than right for a box that crosses 180 degrees.
        * A bounding box, geometry or geobox from odc.geo, or another object with a ``crs`` attribute.
        * A GeoJSON-like mapping (geometry, Feature, FeatureCollection) or an object with
          ``__geo_interface__``: in EPSG:4326, in `region_crs`, or in the CRS of a "crs" member. Geometries
          are planar. A geometry that crosses 180 degrees must have longitudes beyond it, or be split there,
          or have all longitudes within 90 degrees of it and a counterclockwise outline across it, from 170 to
          -170 along the lower edge. The last rule does not apply to geometries with ``"geodesic": False``,
          as in Earth Engine.
        * Pixels of the raster: ``(slice_y, slice_x)`` or ``{"y": slice, "x": slice}``; negative numbers
          count from the end.
    georef : GeoRef
        The georeference of the raster.
    region_crs : optional
        The CRS of the coordinates in `region`, in any form that pyproj accepts.

    Returns
    -------
    Window
        The bounding box of the region in pixels, rounded outward and clipped to the raster.
        Outlines are split into short segments and reprojected point by point, so that edges can bend.
        Longitudes may be in -180..180, 0..360 or any other range, regardless of the range of the raster.

    Raises
    ------
    OptionError
        If the region has another form, is empty, or is outside the raster; or if the first and last columns
        of the raster are adjacent on the globe and the region has parts at both.

    Examples
    --------
    >>> from affine import Affine
    >>> from xee_tf.geometry import Size
    >>> georef = GeoRef(pyproj.CRS("EPSG:32633"), Affine(30, 0, 500000, 0, -30, 6000), Size(x=100, y=200))
    >>> region_window((500300, 5400, 500610, 6000), georef)
    Window(top=0, bottom=20, left=10, right=21)
    >>> region_window((slice(None, 50), slice(-10, None)), georef)
    Window(top=0, bottom=50, left=90, right=100)
    """
    slices = _slices(region, georef)
    if slices is not None:
        return _sliced(slices, georef)
    if isinstance(region, str):
        with suppress(ValueError):
            region = json.loads(region)
    if hasattr(region, "boundingbox") and hasattr(region, "extent"):
        region, exact = region.extent, True  # a geobox, which may be rotated
    else:
        exact = False  # whether the geometry is never unwrapped at 180 degrees
    interface = getattr(region, "__geo_interface__", region)
    default = pyproj.CRS("EPSG:4326") if isinstance(interface, Mapping) else georef.crs
    own = _geojson_crs(region) if isinstance(region, Mapping) else getattr(region, "crs", None)
    crs = default if own is None else read_crs(own, "the region", _FIX_CRS)
    if region_crs is not None:
        given = crs_option(region_crs, "region_crs")
        if own is not None and not same_crs(given, crs):
            raise OptionError(
                f"region_crs is {describe_crs(given)}, but the region itself is in {describe_crs(crs)}. "
                "Omit region_crs."
            )
        crs = given
    turn = full_turn(crs)
    return covered_window(_shape(interface, region, turn, exact), crs, georef, _box_hint(interface, turn))


def _slices(region: Any, georef: GeoRef) -> tuple[slice, slice] | None:
    """Return the slices (rows, columns) if the region is given in pixels, else None."""
    if isinstance(region, Mapping):
        if not any(isinstance(value, slice) for value in region.values()):
            return None
        names = {"y": "y", "x": "x", georef.y_dim: "y", georef.x_dim: "x"}
        unknown = [key for key in region if key not in names]
        if unknown:
            raise OptionError(
                f"Unknown dimensions {quoted(unknown)} in region; expected {georef.y_dim!r} and "
                f"{georef.x_dim!r}."
            )
        found = {names[key]: value for key, value in region.items()}
        rows, columns = found.get("y", slice(None)), found.get("x", slice(None))
    elif isinstance(region, tuple | list) and any(isinstance(value, slice) for value in region):
        if len(region) != 2:
            raise OptionError(f"A region in pixels must be (slice_y, slice_x); got {region!r}.")
        rows, columns = region
    else:
        return None
    if not (isinstance(rows, slice) and isinstance(columns, slice)):
        raise OptionError(f"A region in pixels must be slices along y and x; got {region!r}.")
    return rows, columns


def _sliced(slices: tuple[slice, slice], georef: GeoRef) -> Window:
    edges: list[int] = []
    for part, length, name in zip(slices, georef.shape.shape, "yx", strict=True):
        try:
            start, stop, step = part.indices(length)
        except (TypeError, ValueError) as error:
            raise OptionError(f"The slice {part} along {name} must contain integers ({error}).") from None
        if step != 1:
            raise OptionError(f"The slice {part} along {name} must not have a step.")
        if stop <= start:
            raise OptionError(f"The slice {part} along {name} is empty; the raster has {length} pixels.")
        edges += [start, stop]
    return Window(*edges)


def _shape(interface: Any, region: Any, turn: float | None, exact: bool) -> Any:
    """Convert a region to a shapely geometry; `turn` is 360 degrees for a geographic region, else None."""
    from shapely import GeometryCollection, box, get_coordinates

    if isinstance(interface, Mapping):
        shape = GeometryCollection(list(_geojson_parts(interface, None if exact else turn)))
        if shape.is_empty:
            raise OptionError(f"The region is empty: {shorten(repr(interface))}.")
        if not np.isfinite(get_coordinates(shape)).all():
            raise OptionError(
                f"The region has coordinates that are not finite numbers: {shorten(repr(interface))}."
            )
        return shape
    try:
        left, bottom, right, top = map(float, interface)
    except (TypeError, ValueError):
        raise OptionError(f"region must be {_KINDS}; got {shorten(repr(region))}.") from None
    numbers = (left, bottom, right, top)
    if turn is not None and right < left and max(abs(left), abs(right)) <= turn:
        right += turn  # across 180 degrees
    if not (left < right and bottom < top and all(map(math.isfinite, numbers))):
        raise OptionError(
            f"A box must be (left, bottom, right, top) with left < right and bottom < top; got {numbers}."
        )
    return GeometryCollection([box(left, bottom, right, top)])


def _box_hint(interface: Any, turn: float | None) -> str:
    """Return both readings of a box in degrees whose left is greater than its right, for an error message."""
    if turn is None or isinstance(interface, Mapping):
        return ""
    left, bottom, right, top = map(float, interface)
    if left < right:
        return ""
    return (
        " A box in degrees with left > right crosses 180 degrees: it was read as "
        f"{box_text((left, bottom, right + turn, top))}. If left and right are swapped, pass "
        f"{box_text((right, bottom, left, top))}."
    )


def _geojson_parts(region: Mapping[str, Any], turn: float | None) -> Iterator[Any]:
    """Yield the geometries in GeoJSON; those that cross 180 degrees are unwrapped unless `turn` is None."""
    from shapely.geometry import shape

    kind = region.get("type")
    if kind == "FeatureCollection":
        for feature in region.get("features") or ():
            yield from _geojson_parts(feature, turn)
    elif kind == "Feature":
        if region.get("geometry"):
            yield from _geojson_parts(region["geometry"], turn)
    elif kind is None:
        raise OptionError(f"region must be {_KINDS}; got {shorten(repr(region))}.")
    else:
        try:
            geometry = shape(region)
        except Exception as error:  # shapely raises many types of exceptions
            raise OptionError(
                f"The {kind} in region cannot be parsed ({error}): {shorten(repr(region))}."
            ) from None
        yield geometry if turn is None or region.get("geodesic") is False else unwrap_rings(geometry, turn)


def _geojson_crs(region: Mapping[str, Any]) -> Any:
    """Return the CRS from the "crs" member of GeoJSON before 2016, which Earth Engine still writes."""
    member = region.get("crs")
    if not isinstance(member, Mapping):
        return member
    name = (member.get("properties") or {}).get("name")
    if name is None:
        raise OptionError(f'The region\'s "crs" member has no properties.name: {shorten(repr(member))}.')
    return name
