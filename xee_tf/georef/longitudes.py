"""Handle longitudes in any range, and geometries that cross 180 degrees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from xee_tf.georef.coordinates import Points, apply_affine
from xee_tf.georef.crs import PointTransform, point_transformer, unbound
from xee_tf.georef.reference import GeoRef
from xee_tf.georef.units import full_turn

__all__ = [
    "EDGE_DISTANCE",
    "edges_of_projection",
    "longitude_shifts",
    "nearest_turn",
    "outlines_on_raster",
    "pixels_of_points",
    "polygons_in",
    "single_parts",
    "split_at_longitudes",
    "turn_along_x",
    "unwrap_outline",
    "unwrap_rings",
    "wrap_longitude",
]

EDGE_DISTANCE = 1e-9
"""Distance from the edge of a projection at which geometries are cut, in degrees.

A point on the edge itself has two projected locations.
"""

_SLACK = 1e-6  # pixels; an outline that ends on an edge of the raster counts as inside


@lru_cache(maxsize=64)
def turn_along_x(crs: pyproj.CRS) -> float | None:
    """Return the length of one turn around the globe along x, in units of the CRS.

    This applies to geographic CRSs and cylindrical projections. For other projections, in which x is not a
    longitude, return None.

    Examples
    --------
    >>> turn_along_x(pyproj.CRS("EPSG:4326")), turn_along_x(pyproj.CRS("EPSG:32633"))
    (360.0, None)
    >>> round(turn_along_x(pyproj.CRS("EPSG:3857")))
    40075017
    """
    geographic = unbound(crs).geodetic_crs
    own = None if geographic is None else full_turn(geographic)
    if crs.is_geographic or own is None or not crs.is_projected:
        return full_turn(crs)
    transformer = pyproj.Transformer.from_crs(geographic, unbound(crs), always_xy=True)
    # Sample an eighth and a quarter of a turn on either side of the origin.
    steps, latitudes = np.meshgrid(np.array([-2, -1, 0, 1, 2]) * own / 8, np.linspace(-2, 2, 9) * own / 9)
    for origin in _origins(crs):
        x, y = transformer.transform(origin + steps, latitudes)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            continue
        turn = 2 * float(x[0, -1] - x[0, 0])
        even = np.abs(np.diff(x) - turn / 8).max() <= 1e-6 * abs(turn)
        if turn and even and np.ptp(y, axis=1).max() <= 1e-6 * abs(turn) and np.ptp(y) > 0:
            return abs(turn)
    return None


def _origins(projected: pyproj.CRS) -> set[float]:
    operation = unbound(projected).coordinate_operation
    parameters = operation.params if operation else []
    return {0.0, *(float(p.value) for p in parameters if p.name.lower().startswith("longitude"))}


def wrap_longitude(degrees: Any) -> NDArray[np.float64]:
    """Wrap longitudes to -180..180; values in that range are unchanged.

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
    """Return the shift, in whole longitude_shifts of the globe, that moves longitudes nearest to `middle`.

    Examples
    --------
    >>> nearest_turn(np.array([-170.0, 190.0, 5000.0]), 540.0, 360.0)
    array([  720.,   360., -4320.])
    """
    return -turn * np.floor((x - middle) / turn + 0.5)


def longitude_shifts(x: Any, middle: float, turn: float | None) -> tuple[Any, ...]:
    """Return shifts of longitudes to try for a raster or a geometry around `middle`.

    The first shift is zero, the next one is to the nearest turn of the globe, then to its neighbors. `turn`
    is None if x is not a longitude.

    Examples
    --------
    >>> [float(shift) for shift in longitude_shifts(-170.0, 540.0, 360.0)]
    [0.0, 720.0, 1080.0, 360.0]
    """
    if turn is None:
        return (0.0,)
    nearest = nearest_turn(x, middle, turn)
    return 0.0, nearest, nearest + turn, nearest - turn


def outlines_on_raster(points: Points, georef: GeoRef) -> list[Points]:
    """Convert an outline from the CRS of a raster to its pixels, at each turn of the globe that overlaps it.

    If the outline fits between the sides of the raster at one turn, only that turn is returned; otherwise
    every turn at which a part of it overlaps the raster, possibly none.
    """
    width, height = georef.shape.xy
    middle = (float(points[:, 0].min()) + float(points[:, 0].max())) / 2
    meeting = []
    for shift in dict.fromkeys(map(float, longitude_shifts(middle, georef.middle, turn_along_x(georef.crs)))):
        pixels = apply_affine(~georef.affine, points + np.array([shift, 0.0]))
        (left, top), (right, bottom) = pixels.min(axis=0), pixels.max(axis=0)
        if left < width and right >= -_SLACK and top < height and bottom >= -_SLACK:
            if left >= -_SLACK and right <= width + _SLACK:
                return [pixels]
            meeting.append(pixels)
    return meeting


def pixels_of_points(points: Points, georef: GeoRef) -> Points:
    """Convert points from the CRS of a raster to columns and rows.

    Each point is moved to the turn of the globe at which it is inside the raster. Points outside the raster
    have columns and rows outside it.
    """
    inverse, shape = ~georef.affine, georef.shape.xy
    with np.errstate(invalid="ignore"):  # points without a projected location
        at = apply_affine(inverse, points)
        beside = np.flatnonzero(~((at >= 0) & (at < shape)).all(axis=1))
    if beside.size:
        x, y = points[beside].T
        for shift in longitude_shifts(x, georef.middle, turn_along_x(georef.crs))[1:]:
            with np.errstate(invalid="ignore"):
                moved = apply_affine(inverse, np.column_stack((x + shift, y)))
                inside = ((moved >= 0) & (moved < shape)).all(axis=1)
            at[beside[inside]] = moved[inside]
    return at


def unwrap_outline(points: Points, turn: float) -> tuple[Points, bool]:
    """Unwrap the longitudes of an outline; return it and whether it goes around a pole.

    Examples
    --------
    >>> points, around = unwrap_outline(np.array([[170.0, 0.0], [-170.0, 0.0], [-170.0, 5.0]]), 360.0)
    >>> points[:, 0], around
    (array([170., 190., 190.]), False)
    """
    x = np.unwrap(points[:, 0], period=turn)
    return np.column_stack((x, points[:, 1])), bool(abs(x[-1] - x[0]) > turn / 2)


def unwrap_rings(geometry: Any, turn: float) -> Any:
    """Unwrap lines and polygons in degrees that cross 180 degrees, to longitudes beyond 180.

    Geometries are planar: a polygon from -170 to 170 is 340 degrees wide. A polygon crosses 180 degrees if
    all its longitudes are within 90 degrees of it, on both sides, and its outline is then counterclockwise,
    as in GeoJSON [1]_: from 170 to -170 along its lower edge. (As a planar outline it is clockwise.) For
    lines, only the first condition applies. Other geometries that cross 180 degrees must be split there or
    have longitudes beyond 180.

    `turn` is 360 degrees in the unit of the coordinates.

    References
    ----------
    .. [1] https://datatracker.ietf.org/doc/html/rfc7946#section-3.1.6

    Examples
    --------
    >>> import shapely
    >>> unwrap_rings(shapely.Polygon([(170, 0), (-170, 0), (-170, 5), (170, 5)]), 360.0).bounds
    (170.0, 0.0, 190.0, 5.0)
    >>> unwrap_rings(shapely.box(-170, 0, 170, 5), 360.0).bounds
    (-170.0, 0.0, 170.0, 5.0)
    """
    import shapely

    left, _, right, _ = geometry.bounds
    if not right - left > turn / 2:
        return geometry
    if hasattr(geometry, "geoms"):
        return type(geometry)([unwrap_rings(part, turn) for part in geometry.geoms])
    is_polygon = geometry.geom_type == "Polygon"
    points = shapely.get_coordinates(geometry.exterior if is_polygon else geometry)
    if not _is_beside_180(points, turn) or (is_polygon and not _is_clockwise(points)):
        return geometry
    return shapely.transform(geometry, lambda at: at + np.where(at < 0, turn, 0.0) * (1, 0))


def _is_beside_180(points: Points, turn: float) -> bool:
    """Return whether all longitudes are closer to 180 than to 0, on both sides, and not all exactly on it."""
    x = points[:, 0]
    size = np.abs(x)
    near = (size > turn / 4).all() and (size <= turn / 2).all() and (size < turn / 2).any()
    return bool(near and x.min() < 0 < x.max())


def _is_clockwise(ring: Points) -> bool:
    x, y = (ring - ring[0]).T
    return bool(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) < 0)


def edges_of_projection(geographic: pyproj.CRS, projected: pyproj.CRS) -> list[float]:
    """Return the longitudes in a geographic CRS at which a projection is discontinuous.

    The list is empty if `geographic` is not geographic, or if `projected` is.

    Examples
    --------
    >>> edges_of_projection(pyproj.CRS("EPSG:4326"), pyproj.CRS("EPSG:3857"))
    [-540.0, -180.0, 180.0, 540.0]
    """
    turn = full_turn(geographic)
    if turn is None or projected.is_geographic:
        return []
    opposite = sorted({(origin + turn / 2) % turn for origin in _origins(projected)})
    move = point_transformer(geographic, projected)
    latitudes = np.linspace(-0.24, 0.24, 9) * turn
    with np.errstate(invalid="ignore"):  # points without a projected location
        near, far = (_gaps(move, opposite, latitudes, turn * times) for times in (1e-9, 1e-6))
        whole = np.all(near <= far / 10, axis=1)  # without an edge, gaps shrink with the step
    opposite = np.array(opposite)[~whole].tolist()
    return sorted(edge + turn * times for edge in opposite for times in (-2, -1, 0, 1))


def _gaps(move: PointTransform, longitudes: Sequence[float], latitudes: Points, step: float) -> Points:
    """Return distances between points on both sides of longitudes, of shape (longitudes, latitudes)."""
    at = np.stack(np.meshgrid(longitudes, latitudes, indexing="ij"), axis=-1).reshape(-1, 2)
    side = np.array([step, 0.0])
    gaps = np.hypot(*(move(at + side) - move(at - side)).T)
    return np.asarray(gaps).reshape(len(longitudes), len(latitudes))


def split_at_longitudes(geometry: Any, edges: Sequence[float]) -> Any:
    """Split a geometry at longitudes, leaving out a thin strip along each of them.

    Examples
    --------
    >>> import shapely
    >>> [part.bounds for part in split_at_longitudes(shapely.box(170, 0, 190, 5), [180.0]).geoms]
    [(170.0, 0.0, 179.999999999, 5.0), (180.000000001, 0.0, 190.0, 5.0)]
    """
    from shapely import GeometryCollection, MultiPolygon, box, make_valid

    left, bottom, right, top = geometry.bounds
    inner = [edge for edge in edges if left < edge < right]
    if not inner:
        return geometry
    whole = geometry if geometry.is_valid else make_valid(geometry)
    parts = [
        whole.intersection(box(first + EDGE_DISTANCE, bottom - 1, last - EDGE_DISTANCE, top + 1))
        for first, last in pairwise([left - 1, *inner, right + 1])
    ]
    cut = GeometryCollection(parts)
    is_flat = not (polygons := polygons_in(cut))
    return cut if is_flat or geometry.geom_type not in ("Polygon", "MultiPolygon") else MultiPolygon(polygons)


def single_parts(geometry: Any) -> list[Any]:
    """Return the non-empty points, lines and polygons in a geometry or a collection."""
    if hasattr(geometry, "geoms"):
        return [part for whole in geometry.geoms for part in single_parts(whole)]
    return [] if geometry.is_empty else [geometry]


def polygons_in(geometry: Any) -> list[Any]:
    """Return the polygons among the `single_parts` of a geometry."""
    return [part for part in single_parts(geometry) if part.geom_type == "Polygon"]
