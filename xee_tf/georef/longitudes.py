"""Longitudes: the range in which they are given is free, and 180 degrees is no edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

__all__ = ["BESIDE", "cut_apart", "edges_of_projection", "full_turn", "unwrap_rings", "wrap_longitude"]

BESIDE = 1e-9
"""How many degrees beside the edge of a projection a geometry is cut: on it, a point has two places."""

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
    plain = projected.source_crs if projected.is_bound and projected.source_crs else projected
    parameters = plain.coordinate_operation.params if plain.coordinate_operation else []
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
