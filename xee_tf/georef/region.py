"""Part of a raster: boxes, geometries and pixel slices to a window of pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pyproj

from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import Window
from xee_tf.georef.crs import describe_crs, read_crs, same_crs
from xee_tf.georef.longitudes import unwrap_rings
from xee_tf.georef.outlines import covered_window
from xee_tf.georef.reference import GeoRef
from xee_tf.georef.units import full_turn

__all__ = ["region_window"]

_MEND = "Give one that pyproj understands, for example region_crs='EPSG:4326'."

_KINDS = (
    "a box (left, bottom, right, top), a GeoJSON-like geometry, an odc.geo or shapely geometry, or slices of "
    "pixels {'y': slice(0, 512), 'x': slice(0, 512)}"
)


def region_window(region: Any, georef: GeoRef, region_crs: Any = None) -> Window:
    """The pixels of a raster that a region touches.

    Parameters
    ----------
    region : box, geometry or slices
        * ``(left, bottom, right, top)`` in the CRS of the raster, or in `region_crs`. In degrees, left may
          be greater than right: such a box crosses 180 degrees.
        * A box, geometry or geobox of odc.geo, or whatever else carries a ``crs`` of its own.
        * A GeoJSON-like mapping (geometry, Feature, FeatureCollection, any with ``__geo_interface__``): in
          EPSG:4326, in `region_crs`, or in the CRS of a "crs" member. Geometries are planar, as they are
          given. Across 180 degrees they have longitudes beyond it, or are split there, or have all
          longitudes within 90 degrees of it and run counterclockwise if read across it, from 170 to
          -170 along the lower edge; with ``"geodesic": False``, as Earth Engine has it, they never are.
        * Pixels of the raster: ``(slice_y, slice_x)`` or ``{"y": slice, "x": slice}``, counted from the
          end if negative.
    georef : GeoRef
        The raster's place.
    region_crs : optional
        The CRS of the numbers in `region`: anything that pyproj understands.

    Returns
    -------
    Window
        The bounding box of the region in pixels, rounded outward and clipped to the raster.
        Outlines are finely cut and reprojected point by point, so that edges may bend. Longitudes may be
        in -180..180, in 0..360 or in any other range, whichever the raster has.

    Raises
    ------
    OptionError
        If the region is none of these, empty, or outside the raster; if the raster's first and last
        columns are neighbours on the globe and the region has parts at both.

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
        region, exact = region.extent, True  # a geobox, perhaps a turned one
    else:
        exact = False  # whether edges are as long as they look
    interface = getattr(region, "__geo_interface__", region)
    default = pyproj.CRS("EPSG:4326") if isinstance(interface, Mapping) else georef.crs
    own = _geojson_crs(region) if isinstance(region, Mapping) else getattr(region, "crs", None)
    crs = default if own is None else read_crs(own, "the region", _MEND)
    if region_crs is not None:
        given = read_crs(region_crs, "region_crs", _MEND)
        if own is not None and not same_crs(given, crs):
            raise OptionError(
                f"region_crs is {describe_crs(given)}, but the region itself is in {describe_crs(crs)}. "
                "Leave region_crs out."
            )
        crs = given
    turn = full_turn(crs)
    return covered_window(_shape(interface, region, turn, exact), crs, georef)


def _slices(region: Any, georef: GeoRef) -> tuple[slice, slice] | None:
    """(rows, columns) if the region is given in pixels."""
    if isinstance(region, Mapping):
        if not any(isinstance(value, slice) for value in region.values()):
            return None
        names = {"y": "y", "x": "x", georef.y_dim: "y", georef.x_dim: "x"}
        unknown = [key for key in region if key not in names]
        if unknown:
            raise OptionError(
                f"region names the dimensions {unknown}; known are {georef.y_dim!r} and {georef.x_dim!r}."
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
            raise OptionError(f"The slice {part} along {name} must hold whole numbers ({error}).") from None
        if step != 1:
            raise OptionError(f"A region keeps every pixel: the slice {part} along {name} must have no step.")
        if stop <= start:
            raise OptionError(f"The slice {part} holds none of the raster's {length} pixels along {name}.")
        edges += [start, stop]
    return Window(*edges)


def _shape(interface: Any, region: Any, turn: float | None, exact: bool) -> Any:
    """A shapely geometry; `turn` is 360 degrees, where the region is in degrees."""
    from shapely import GeometryCollection, box, get_coordinates

    if isinstance(interface, Mapping):
        shape = GeometryCollection(list(_geojson_parts(interface, None if exact else turn)))
        if shape.is_empty:
            raise OptionError(f"The region is empty: {shorten(repr(interface))}.")
        if not np.isfinite(get_coordinates(shape)).all():
            raise OptionError(f"The region has coordinates that are no numbers: {shorten(repr(interface))}.")
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


def _geojson_parts(region: Mapping[str, Any], turn: float | None) -> Iterator[Any]:
    """The geometries in GeoJSON; across 180 degrees where they are written so, unless `turn` is None."""
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
        except Exception as error:  # shapely lets all kinds of them through
            raise OptionError(f"The {kind} cannot be read ({error}): {shorten(repr(region))}.") from None
        yield geometry if turn is None or region.get("geodesic") is False else unwrap_rings(geometry, turn)


def _geojson_crs(region: Mapping[str, Any]) -> Any:
    """The "crs" member that GeoJSON had before 2016, and Earth Engine still writes."""
    member = region.get("crs")
    if not isinstance(member, Mapping):
        return member
    name = (member.get("properties") or {}).get("name")
    if name is None:
        raise OptionError(f'The region\'s "crs" member has no properties.name: {shorten(repr(member))}.')
    return name
