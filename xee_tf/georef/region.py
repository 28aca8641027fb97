"""Part of a raster: boxes, geometries and pixel slices to a window of pixels."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import Window
from xee_tf.georef.crs import describe_crs, read_crs, same_crs
from xee_tf.georef.reference import GeoRef

__all__ = ["region_window"]

_SLACK = 1e-6  # pixels: a box that ends on a pixel's edge does not reach into the next one
_PIECES = 1024  # an outline is cut into pieces of this part of its extent: straight lines bend elsewhere
_BORDER = 8192  # points along a side of the raster, at most

_MEND = "Give one that pyproj understands, for example region_crs='EPSG:4326'."

_KINDS = (
    "a box (left, bottom, right, top), a GeoJSON-like geometry, an odc.geo or shapely geometry, or slices of "
    "pixels {'y': slice(0, 512), 'x': slice(0, 512)}"
)

Points = NDArray[np.float64]


def region_window(region: Any, georef: GeoRef, region_crs: Any = None) -> Window:
    """The pixels of a raster that a region touches.

    Parameters
    ----------
    region : box, geometry or slices
        * ``(left, bottom, right, top)`` in the CRS of the raster, unless `region_crs` says otherwise.
        * A box, geometry or geobox of odc.geo, or whatever else carries a ``crs`` of its own.
        * A GeoJSON-like mapping (geometry, Feature, FeatureCollection, any with ``__geo_interface__``): in
          EPSG:4326, unless `region_crs` or a "crs" member says otherwise.
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
        Outlines are finely cut and reprojected point by point, so that edges may bend.

    Raises
    ------
    OptionError
        If the region is none of these, empty, or outside the raster.

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
    shape, default = _shape(region, georef)
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
    return _window(_points(shape, crs, georef), shape, crs, georef)


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


def _shape(region: Any, georef: GeoRef) -> tuple[Any, pyproj.CRS]:
    """A shapely geometry, and the CRS it has if nothing says so."""
    from shapely import GeometryCollection, box, get_coordinates

    if hasattr(region, "boundingbox") and hasattr(region, "extent"):
        region = region.extent  # a geobox, perhaps a turned one
    interface = getattr(region, "__geo_interface__", region)
    if isinstance(interface, Mapping):
        shape = GeometryCollection(list(_geojson_parts(interface)))
        if shape.is_empty:
            raise OptionError(f"The region is empty: {shorten(repr(interface))}.")
        if not np.isfinite(get_coordinates(shape)).all():
            raise OptionError(f"The region has coordinates that are no numbers: {shorten(repr(interface))}.")
        return shape, pyproj.CRS("EPSG:4326")
    try:
        left, bottom, right, top = map(float, interface)
    except (TypeError, ValueError):
        raise OptionError(f"region must be {_KINDS}; got {shorten(repr(region))}.") from None
    if not (left < right and bottom < top and all(map(math.isfinite, (left, bottom, right, top)))):
        raise OptionError(
            f"A box must be (left, bottom, right, top) with left < right and bottom < top; got "
            f"{(left, bottom, right, top)}."
        )
    return box(left, bottom, right, top), georef.crs


def _geojson_parts(region: Mapping[str, Any]) -> Iterator[Any]:
    from shapely.geometry import shape

    kind = region.get("type")
    if kind == "FeatureCollection":
        for feature in region.get("features") or ():
            yield from _geojson_parts(feature)
    elif kind == "Feature":
        if region.get("geometry"):
            yield from _geojson_parts(region["geometry"])
    elif kind is None:
        raise OptionError(f"region must be {_KINDS}; got {shorten(repr(region))}.")
    else:
        try:
            yield shape(region)
        except Exception as error:  # shapely lets all kinds of them through
            raise OptionError(f"The {kind} cannot be read ({error}): {shorten(repr(region))}.") from None


def _geojson_crs(region: Mapping[str, Any]) -> Any:
    """The "crs" member that GeoJSON had before 2016, and Earth Engine still writes."""
    member = region.get("crs")
    if not isinstance(member, Mapping):
        return member
    name = (member.get("properties") or {}).get("name")
    if name is None:
        raise OptionError(f'The region\'s "crs" member has no properties.name: {shorten(repr(member))}.')
    return re.sub(r"^urn:ogc:def:crs:(\w+):[^:]*:(\w+)$", r"\1:\2", str(name))


def _points(shape: Any, crs: pyproj.CRS, georef: GeoRef) -> Points:
    """Points in the CRS of the raster that no window may leave out, of shape (points, 2)."""
    from shapely import contains_xy, get_coordinates, segmentize

    if same_crs(crs, georef.crs):
        return get_coordinates(shape)  # type: ignore[no-any-return]
    left, bottom, right, top = shape.bounds
    if crs.is_geographic and (max(abs(bottom), abs(top)) > 90 or max(abs(left), abs(right)) > 540):
        raise OptionError(
            f"The region's coordinates {_numbers(shape.bounds)} cannot be degrees of {describe_crs(crs)}. "
            "Say what they are with region_crs=, for example region_crs=ds.rio.crs."
        )
    longest = max(right - left, top - bottom) / _PIECES
    outline = get_coordinates(segmentize(shape, longest) if longest else shape)
    transformer = pyproj.Transformer.from_crs(crs, georef.crs, always_xy=True)
    moved = np.column_stack(transformer.transform(outline[:, 0], outline[:, 1]))
    # Around a pole or the whole globe an outline does not enclose in one CRS what it encloses in the other:
    # so the border of the raster is looked up in the region, too. What lies nowhere is infinite: left out.
    border = _border(georef)
    x, y = transformer.transform(border[:, 0], border[:, 1], direction="INVERSE")
    turns = (-360.0, 0.0, 360.0) if crs.is_geographic else (0.0,)
    inside = np.any([contains_xy(shape, x + turn, y) for turn in turns], axis=0)
    moved = np.concatenate([moved, border[inside]])
    lying: Points = moved[np.isfinite(moved).all(axis=1)]
    return lying


def _border(georef: GeoRef) -> Points:
    """The corners of the pixels along the four sides of the raster."""
    width, height = georef.shape.xy
    columns = np.linspace(0, width, min(width, _BORDER) + 1)
    rows = np.linspace(0, height, min(height, _BORDER) + 1)
    sides: list[tuple[Any, Any]] = [(columns, 0), (columns, height), (0, rows), (width, rows)]
    return np.concatenate([np.column_stack(np.broadcast_arrays(*georef.affine @ side)) for side in sides])


def _window(points: Points, shape: Any, crs: pyproj.CRS, georef: GeoRef) -> Window:
    columns, rows = ~georef.affine @ (points[:, 0], points[:, 1])
    edges: list[int] = []
    for along, length in ((rows, georef.shape.y), (columns, georef.shape.x)):
        start = math.floor(min(along, default=length) + _SLACK)
        stop = max(math.ceil(max(along, default=0) - _SLACK), start + 1)  # a point is one pixel
        edges += [max(start, 0), min(stop, length)]
    top, bottom, left, right = edges
    if bottom <= top or right <= left:
        covers = f"{_numbers(shape.bounds)} in {describe_crs(crs)}"
        if len(points) and not same_crs(crs, georef.crs):
            covers += f", that is {_numbers((*points.min(axis=0), *points.max(axis=0)))} in the raster's CRS"
        raise OptionError(
            f"The region lies outside the raster. The region covers {covers}; the raster covers "
            f"{_numbers(georef.bounds)} in {describe_crs(georef.crs)} (left, bottom, right, top)."
        )
    return Window(top, bottom, left, right)


def _numbers(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{float(number):.10g}" for number in box) + ")"
