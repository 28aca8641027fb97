"""Convert polygons to pixel coordinates of a raster."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyproj

from xee_tf.georef.coordinates import apply_affine
from xee_tf.georef.crs import PointTransform, point_transformer, same_crs
from xee_tf.georef.longitudes import (
    edges_of_projection,
    longitude_shifts,
    outlines_on_raster,
    polygons_in,
    split_at_longitudes,
    turn_along_x,
    unwrap_outline,
    unwrap_rings,
)
from xee_tf.georef.reference import GeoRef
from xee_tf.georef.units import full_turn

__all__ = ["polygons_in_pixels"]

_BEND = 0.01  # maximum deviation of an edge from its exact course, in pixels
_SEGMENTS = 1024  # maximum number of segments of the longest edge of a polygon


def polygons_in_pixels(geometries: Any, own: pyproj.CRS, georef: GeoRef) -> Any:
    """Convert polygons, planar in their own CRS, to pixels of a raster; split them at its edge if necessary.

    Examples
    --------
    >>> import shapely
    >>> from affine import Affine
    >>> from xee_tf.geometry import Size
    >>> georef = GeoRef(pyproj.CRS("EPSG:32633"), Affine(30, 0, 500000, 0, -30, 6000), Size(x=100, y=200))
    >>> boxes = np.array([shapely.box(500300, 5400, 500600, 6000)])
    >>> polygons_in_pixels(boxes, georef.crs, georef)[0].bounds
    (10.0, 0.0, 20.0, 20.0)
    """
    import shapely

    own_turn, turn = full_turn(own), turn_along_x(georef.crs)
    to_pixels = partial(apply_affine, ~georef.affine)
    moved = geometries.copy()
    if own_turn is not None:
        left, _, right, _ = shapely.bounds(geometries).T
        for number in np.flatnonzero(right - left > own_turn / 2):
            moved[number] = unwrap_rings(geometries[number], own_turn)
    if not same_crs(own, georef.crs):
        for edge in edges_of_projection(own, georef.crs) if turn is None else ():
            left, _, right, _ = shapely.bounds(moved).T
            for number in np.flatnonzero((left < edge) & (edge < right)):
                moved[number] = split_at_longitudes(moved[number], [edge])
        move = point_transformer(own, georef.crs)
        moved = shapely.transform(_add_bends(moved, lambda points: to_pixels(move(points))), move)
        # Repair polygons with points without a location, or with edges that jump between turns of the globe.
        left, bottom, right, top = shapely.bounds(moved).T
        with np.errstate(invalid="ignore"):
            broken = ~(np.isfinite(left + bottom + right + top))
            broken |= False if turn is None else right - left > turn / 2
        for number in np.flatnonzero(broken):
            moved[number] = _repair_polygon(moved[number], turn)
        bent = np.flatnonzero(shapely.get_num_coordinates(moved) > shapely.get_num_coordinates(geometries))
        for number in bent[~shapely.is_valid(moved[bent])]:  # edges may intersect, for example at a pole
            moved[number] = _polygons_of(shapely.make_valid(moved[number]))
    pixels = shapely.transform(moved, to_pixels)
    if turn is not None:
        left, _, right, _ = shapely.bounds(pixels).T
        for number in np.flatnonzero((left < 0) | (right > georef.shape.x)):
            parts = [
                shapely.set_coordinates(part, outline)
                for part in shapely.get_parts(moved[number])
                for outline in outlines_on_raster(shapely.get_coordinates(part), georef)
            ]
            if parts:
                pixels[number] = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return pixels


def _add_bends(geometries: Any, to_pixels: PointTransform) -> Any:
    """Add points to polygons, so that their edges can bend in the raster."""
    import shapely

    rings, numbers = shapely.get_rings(geometries, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    edges = np.flatnonzero(ring[:-1] == ring[1:])
    first, last = points[edges], points[edges + 1]
    ends = to_pixels(points)
    pieces = np.ones(len(edges))
    with np.errstate(invalid="ignore"):
        for part in (0.5, 0.25):
            straight = ends[edges] * (1 - part) + ends[edges + 1] * part
            off = np.hypot(*(to_pixels(first * (1 - part) + last * part) - straight).T)
            off = np.where(np.isfinite(off), off, np.inf)
            pieces = np.fmax(pieces, np.ceil(np.sqrt(off / _BEND)))
    lengths = np.hypot(*(last - first).T)
    needed = np.ones(len(geometries))
    longest = np.zeros(len(geometries))
    of_edge = numbers[ring[edges]]
    np.fmax.at(needed, of_edge, np.minimum(pieces, _SEGMENTS))
    np.fmax.at(longest, of_edge, lengths)
    dense = geometries.copy()
    bends = np.flatnonzero((needed > 1) & (longest > 0))
    dense[bends] = shapely.segmentize(geometries[bends], longest[bends] / needed[bends])
    return dense


def _repair_polygon(geometry: Any, turn: float | None) -> Any:
    """Rebuild a projected polygon without infinite points, and with rings unwrapped around the globe."""
    import shapely

    parts: list[Any] = []
    for part in polygons_in(geometry):
        shell, *holes = (_ring(ring, turn) for ring in (part.exterior, *part.interiors))
        if shell is None:
            continue
        left, _, right, _ = shell.bounds
        for hole in holes:
            if hole is not None:
                shifts = longitude_shifts(hole.centroid.x, (left + right) / 2, turn)[-3:]
                for shift in shifts:
                    shell = shell.difference(
                        shapely.transform(hole, lambda at, by=shift: at + np.array([by, 0]))
                    )
        parts += polygons_in(shell)
    return shapely.MultiPolygon(parts)


def _ring(ring: Any, turn: float | None) -> Any:
    """Return the area that a ring encloses, up to the pole if it goes around it; None if it is empty."""
    import shapely

    points = shapely.get_coordinates(ring)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 3:
        return None
    if turn is not None:
        if (points[0] != points[-1]).any():
            points = np.concatenate([points, points[:1]])
        points, around = unwrap_outline(points, turn)
        if around:
            pole = np.copysign(turn / 4, points[:, 1].mean())
            points = np.concatenate([points, [[points[-1, 0], pole], [points[0, 0], pole]]])
    return _polygons_of(shapely.make_valid(shapely.Polygon(points)))


def _polygons_of(geometry: Any) -> Any:
    """Return the polygons in a result of `shapely.make_valid`."""
    import shapely

    parts = polygons_in(geometry)
    return shapely.union_all(parts) if len(parts) > 1 else parts[0] if parts else geometry
