"""Longitudes: the range in which they are given is free, and 180 degrees is no edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from xee_tf.georef.crs import unbound
from xee_tf.georef.reference import GeoRef

__all__ = [
    "BESIDE",
    "cut_apart",
    "edges_of_projection",
    "full_turn",
    "nearest_turn",
    "pixels_of_points",
    "turns",
    "turns_on_raster",
    "unwrap_rings",
    "wrap_longitude",
]

BESIDE = 1e-9
"""How many degrees beside the edge of a projection a geometry is cut: on it, a point has two places."""

_SLACK = 1e-6  # pixels: an outline that ends on an edge of the raster lies within it

Points = NDArray[np.float64]


def full_turn(crs: pyproj.CRS) -> float | None:
    """360 degrees in the unit of a geographic CRS; None for other CRSs.

    Examples
    --------
    >>> full_turn(pyproj.CRS("EPSG:4326")), full_turn(pyproj.CRS("EPSG:32633"))
    (360.0, None)
    """
    if not crs.is_geographic or not crs.axis_info:
        return None
    # Rounded, because the size of a degree in radians is.
    return round(2 * math.pi / float(crs.axis_info[0].unit_conversion_factor), 9)


def wrap_longitude(degrees: Any) -> NDArray[np.float64]:
    """Longitudes in -180..180; those within that range keep their exact numbers.

    Examples
    --------
    >>> wrap_longitude([244.5, -115.5, 180.0, 360.0, -190.0])
    array([-115.5, -115.5,  180. ,    0. ,  170. ])
    """
    degrees = np.asarray(degrees, np.float64)
    outside = (degrees < -180) | (degrees > 180)
    wrapped: NDArray[np.float64] = np.where(outside, (degrees + 180) % 360 - 180, degrees)
    return wrapped


def nearest_turn(x: Any, middle: float, turn: float) -> Any:
    """By how much longitudes are moved, in whole turns of the globe, to lie nearest to `middle`.

    Examples
    --------
    >>> nearest_turn(np.array([-170.0, 190.0, 5000.0]), 540.0, 360.0)
    array([  720.,   360., -4320.])
    """
    return -turn * np.floor((x - middle) / turn + 0.5)


def turns(x: Any, middle: float, turn: float | None) -> tuple[Any, ...]:
    """By how much longitudes may be moved to be those of a raster or a geometry around `middle`.

    First not at all; then to the nearest turn of the globe, and to its neighbours. `turn` is None where x is
    not a longitude.

    Examples
    --------
    >>> [float(shift) for shift in turns(-170.0, 540.0, 360.0)]
    [0.0, 720.0, 1080.0, 360.0]
    """
    if turn is None:
        return (0.0,)
    nearest = nearest_turn(x, middle, turn)
    return 0.0, nearest, nearest + turn, nearest - turn


def turns_on_raster(points: Points, georef: GeoRef) -> list[float]:
    """By how much an outline is moved, in whole turns of the globe, to lie on a raster.

    Parameters
    ----------
    points : array of shape (points, 2)
        In the CRS of the raster.
    georef : GeoRef

    Returns
    -------
    list of float
        One, where the outline then lies wholly between the sides of the raster; otherwise all that take a
        part of it there. Empty where there are none.
    """
    inverse: Any = ~georef.affine
    width, height = georef.shape.xy
    middle = (float(points[:, 0].min()) + float(points[:, 0].max())) / 2
    meeting = []
    for shift in dict.fromkeys(map(float, turns(middle, _middle(georef), full_turn(georef.crs)))):
        columns, rows = inverse @ (points[:, 0] + shift, points[:, 1])
        left, right = columns.min(), columns.max()
        if left < width and right >= -_SLACK and rows.min() < height and rows.max() >= -_SLACK:
            if left >= -_SLACK and right <= width + _SLACK:
                return [shift]
            meeting.append(shift)
    return meeting


def pixels_of_points(points: Points, georef: GeoRef) -> Points:
    """The pixels of points, each by itself at the turn of the globe at which it lies on a raster.

    Parameters
    ----------
    points : array of shape (points, 2)
        In the CRS of the raster.
    georef : GeoRef

    Returns
    -------
    array of shape (points, 2)
        Columns and rows; beside the raster for points that do not lie on it.
    """
    inverse: Any = ~georef.affine
    shape = georef.shape.xy
    with np.errstate(invalid="ignore"):  # of points that lie nowhere
        at: Points = np.column_stack(inverse @ (points[:, 0], points[:, 1]))
        beside = np.flatnonzero(~((at >= 0) & (at < shape)).all(axis=1))
    if beside.size:
        x, y = points[beside].T
        for shift in turns(x, _middle(georef), full_turn(georef.crs))[1:]:
            with np.errstate(invalid="ignore"):
                moved = np.column_stack(inverse @ (x + shift, y))
                inside = ((moved >= 0) & (moved < shape)).all(axis=1)
            at[beside[inside]] = moved[inside]
    return at


def _middle(georef: GeoRef) -> float:
    left, _, right, _ = georef.bounds
    return (left + right) / 2


def unwrap_rings(geometry: Any, turn: float) -> Any:
    """Lines and polygons whose edges go the short way around the globe.

    An edge that spans more than half a turn crosses 180 degrees, as spherical geometry and STAC have
    it [1]_. One of a full turn, from -180 to 180, is a side of the whole globe and stays.

    Parameters
    ----------
    geometry : shapely geometry
        In longitude and latitude.
    turn : float
        360 degrees in the unit of the coordinates.

    Returns
    -------
    shapely geometry
        With longitudes beyond 180 where an edge crosses it. Rings around a pole stay as they are.

    References
    ----------
    .. [1] https://datatracker.ietf.org/doc/html/rfc7946#section-3.1.9

    Examples
    --------
    >>> import shapely
    >>> unwrap_rings(shapely.Polygon([(170, 0), (-170, 0), (-170, 5), (170, 5)]), 360.0).bounds
    (170.0, 0.0, 190.0, 5.0)
    """
    import shapely

    left, _, right, _ = geometry.bounds
    if not right - left > turn / 2:
        return geometry
    if hasattr(geometry, "geoms"):
        return type(geometry)([unwrap_rings(part, turn) for part in geometry.geoms])
    if geometry.geom_type == "Polygon":
        shell = _unwrap(shapely.get_coordinates(geometry.exterior), turn)
        holes = [_unwrap(shapely.get_coordinates(ring), turn) for ring in geometry.interiors]
        # Holes lie in the shell.
        middle = (shell[:, 0].min() + shell[:, 0].max()) / 2
        for hole in holes:
            hole[:, 0] += turn * round((middle - hole[:, 0].mean()) / turn)
        return shapely.Polygon(shell, holes)
    if geometry.geom_type in ("LineString", "LinearRing"):
        return type(geometry)(_unwrap(shapely.get_coordinates(geometry), turn))
    return geometry


def _unwrap(points: Points, turn: float) -> Points:
    steps = np.diff(points[:, 0])
    crossing = (np.abs(steps) > turn / 2) & (np.abs(steps) < turn * (1 - 1e-9))
    shifts = np.cumsum(np.where(crossing, -np.sign(steps) * turn, 0.0))
    if (points[0] == points[-1]).all() and abs(shifts[-1]) > turn / 2:
        return points
    unwrapped: Points = points + np.column_stack([[0.0, *shifts], np.zeros(len(points))])
    return unwrapped


def edges_of_projection(geographic: pyproj.CRS, projected: pyproj.CRS) -> list[float]:
    """Longitudes in a geographic CRS along which a projection may cut the globe open.

    Empty if `geographic` is not geographic, or if `projected` is.

    Examples
    --------
    >>> edges_of_projection(pyproj.CRS("EPSG:4326"), pyproj.CRS("EPSG:3857"))
    [-540.0, -180.0, 180.0, 540.0]
    """
    turn = full_turn(geographic)
    if turn is None or projected.is_geographic:
        return []
    operation = unbound(projected).coordinate_operation
    parameters = operation.params if operation else []
    origins = {float(p.value) for p in parameters if p.name.lower().startswith("longitude")}
    opposite = {(origin + turn / 2) % turn for origin in {0.0, *origins}}
    return sorted(edge + turn * times for edge in opposite for times in (-2, -1, 0, 1))


def cut_apart(geometry: Any, edges: Sequence[float]) -> Any:
    """A geometry without a thin strip along some longitudes, in parts that do not cross them.

    Examples
    --------
    >>> import shapely
    >>> [part.bounds for part in cut_apart(shapely.box(170, 0, 190, 5), [180.0]).geoms]
    [(170.0, 0.0, 179.999999999, 5.0), (180.000000001, 0.0, 190.0, 5.0)]
    """
    from shapely import GeometryCollection, MultiPolygon, clip_by_rect

    left, bottom, right, top = geometry.bounds
    inner = [edge for edge in edges if left < edge < right]
    if not inner:
        return geometry
    parts = [
        clip_by_rect(geometry, first + BESIDE, bottom - 1, last - BESIDE, top + 1)
        for first, last in pairwise([left - 1, *inner, right + 1])
    ]
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return MultiPolygon(
            [part for cut in parts for part in getattr(cut, "geoms", [cut]) if part.geom_type == "Polygon"]
        )
    return GeometryCollection(parts)
