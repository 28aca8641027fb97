"""Find the window of pixels of a raster that a geometry touches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyproj

from xee_tf.errors import OptionError
from xee_tf.geometry import Size, Window
from xee_tf.georef.coordinates import Points, apply_affine, bounds, window_of
from xee_tf.georef.crs import describe_crs, point_transformer, same_crs
from xee_tf.georef.longitudes import (
    EDGE_DISTANCE,
    edges_of_projection,
    longitude_shifts,
    outlines_on_raster,
    single_parts,
    split_at_longitudes,
    turn_along_x,
    unwrap_outline,
)
from xee_tf.georef.reference import GeoRef
from xee_tf.georef.units import full_turn

__all__ = ["box_text", "covered_window"]

_SEGMENTS = 1024  # segments per extent of an outline, because straight lines bend in another CRS
_EDGE_FACTOR = 20  # a step longer than this many times the median step crosses the edge of a projection
_BORDER = 8192  # maximum number of points along a side of the raster
_LON_LAT = pyproj.CRS("EPSG:4326")


def covered_window(shape: Any, crs: pyproj.CRS, georef: GeoRef, hint: str = "") -> Window:
    """Return the window of the pixels that a geometry touches, rounded outward.

    Parameters
    ----------
    shape : geometry
        A shapely geometry.
    crs : pyproj.CRS
        The CRS of the geometry.
    georef : GeoRef
        The georeference of the raster.
    hint : str, optional
        Text to append to the error message if the geometry is outside the raster.

    Raises
    ------
    OptionError
        If the geometry is outside the raster, or crosses the edge of a global raster.
    """
    same = same_crs(crs, georef.crs)
    outlines = list(_outlines(shape, crs, georef, same))
    windows = [window_of(pixels) for points in outlines for pixels in outlines_on_raster(points, georef)]
    if not same:
        windows += _border_windows(shape, crs, georef)
    parts = [window.intersection(georef.shape.window) for window in windows]
    parts = [part for part in parts if not part.is_empty]
    if not parts:
        covers = f"{box_text(shape.bounds)} in {describe_crs(crs)}"
        if outlines and not same:
            points = np.concatenate(outlines)
            covers += f" ({box_text((*points.min(axis=0), *points.max(axis=0)))} in the raster's CRS)"
        if same and not crs.is_geographic and _may_be_degrees(shape.bounds):
            hint = " If the region is in degrees, pass region_crs='EPSG:4326'."
        raise OptionError(
            f"The region is outside the raster. The region covers {covers}; the raster covers "
            f"{box_text(georef.bounds)} in {describe_crs(georef.crs)} (left, bottom, right, top).{hint}"
        )
    window = Window(
        min(part.top for part in parts),
        max(part.bottom for part in parts),
        min(part.left for part in parts),
        max(part.right for part in parts),
    )
    _require_one_part(parts, window, shape, _crosses(shape, edges_of_projection(crs, georef.crs)), georef)
    return window


def _outlines(shape: Any, crs: pyproj.CRS, georef: GeoRef, same: bool) -> Iterator[Points]:
    """Yield unwrapped outlines of a region in the CRS of the raster; `same` if the region is in that CRS."""
    from shapely import get_coordinates, segmentize

    if same:
        for part in _simple_parts(shape):
            yield get_coordinates(part)
        return
    left, bottom, right, top = shape.bounds
    if crs.is_geographic and (max(abs(bottom), abs(top)) > 90 or max(abs(left), abs(right)) > 540):
        raise OptionError(
            f"The region's coordinates {box_text(shape.bounds)} cannot be degrees in {describe_crs(crs)}. "
            "Pass their CRS as region_crs=, for example region_crs=ds.rio.crs."
        )
    longest = max(right - left, top - bottom) / _SEGMENTS
    move, turn = point_transformer(crs, georef.crs), turn_along_x(georef.crs)
    for part in _simple_parts(
        shape if turn else split_at_longitudes(shape, edges_of_projection(crs, georef.crs))
    ):
        outline = get_coordinates(segmentize(part, longest) if longest else part)
        moved = move(outline)
        moved = moved[np.isfinite(moved).all(axis=1)]  # drop points without a projected location
        if not len(moved):
            continue
        if turn is None:
            yield from _split_at_edges(moved, georef)
            continue
        moved, around = unwrap_outline(moved, turn)
        if around and part.is_closed:
            moved = np.concatenate([moved, [[moved[0, 0] + turn, moved[0, 1]]]])
        yield moved


def _may_be_degrees(box: Sequence[float]) -> bool:
    left, bottom, right, top = box
    return max(abs(left), abs(right)) <= 360 and max(abs(bottom), abs(top)) <= 90


def _crosses(shape: Any, cuts: Sequence[float]) -> bool:
    """Return whether a shape has parts that end at both sides of one of the longitudes `cuts`."""
    bounds = [part.bounds for part in _simple_parts(split_at_longitudes(shape, cuts))]
    west, east = ([box[side] for box in bounds] for side in (2, 0))
    return any(
        any(abs(a - cut) < 2 * EDGE_DISTANCE for a in west)
        and any(abs((b - cut + 180) % 360 - 180) < 2 * EDGE_DISTANCE for b in east)
        for cut in cuts
    )


def _simple_parts(shape: Any) -> list[Any]:
    """Return points, lines, and the outer outlines of polygons."""
    return [part.exterior if part.geom_type == "Polygon" else part for part in single_parts(shape)]


def _split_at_edges(points: Points, georef: GeoRef) -> Iterator[Points]:
    """Yield the parts of an outline, split where it crosses the edge of a projection."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    if not steps.size:
        yield points
        return
    left, _, right, _ = georef.bounds
    far = max(_EDGE_FACTOR * float(np.median(steps)), (right - left) / 4)
    yield from np.split(points, np.flatnonzero(steps > far) + 1)


def _border_windows(shape: Any, crs: pyproj.CRS, georef: GeoRef) -> Iterator[Window]:
    """Yield windows of the parts of the raster's border that are inside the region.

    An outline around a pole or the whole globe encloses different areas in different CRSs.
    """
    from shapely import contains_xy

    move = point_transformer(georef.crs, crs)
    left, _, right, _ = shape.bounds
    for pixels in _border(georef.shape):
        x, y = move(apply_affine(georef.affine, pixels)).T
        with np.errstate(invalid="ignore"):  # points without a location in the other CRS
            shifts = longitude_shifts(x, (left + right) / 2, full_turn(crs))
            inside = np.any([contains_xy(shape, x + shift, y) for shift in shifts], axis=0)
        runs = np.split(np.arange(inside.size), np.flatnonzero(np.diff(inside)) + 1)
        yield from (window_of(pixels[run]) for run in runs if inside[run[0]])


def _border(shape: Size) -> Iterator[Points]:
    """Yield positions (column, row) of pixel corners along each side of the raster."""
    width, height = shape.xy
    columns = np.linspace(0, width, min(width, _BORDER) + 1)
    rows = np.linspace(0, height, min(height, _BORDER) + 1)
    for side in (0.0, float(height)):
        yield np.column_stack((columns, np.full(columns.size, side)))
    for side in (0.0, float(width)):
        yield np.column_stack((np.full(rows.size, side), rows))


def _require_one_part(
    parts: Sequence[Window], window: Window, shape: Any, crosses: bool, georef: GeoRef
) -> None:
    """Raise an error if a region crosses the edge of a global raster, with a part on each side."""
    sides = window.left, window.right
    if not (crosses or sides == (0, georef.shape.x)) or not _closes(georef):
        return
    covered = np.zeros(georef.shape.x, bool)
    for part in parts:
        covered[part.left : part.right] = True
    between = np.flatnonzero(~covered[slice(*sides)]) + window.left
    if not between.size:
        return
    columns = (window.left, int(between[0])), (int(between[-1]) + 1, window.right)
    boxes = [box_text(bounds(georef.affine, Window(window.top, window.bottom, *sides))) for sides in columns]
    raise OptionError(
        f"The region {box_text(shape.bounds)} crosses the edge of the raster, which covers "
        f"{box_text(georef.bounds)} (left, bottom, right, top): it has a part on each side. Use each part "
        f"separately: in the raster's CRS, region={boxes[0]} and region={boxes[1]}{_other_edge(georef)}."
    )


def _other_edge(georef: GeoRef) -> str:
    turn, x = full_turn(georef.crs), georef.x_dim
    if turn is None:
        return ""
    moved = f"ds.{x} % {turn:g}"
    if georef.bounds[2] > 0.75 * turn:
        moved = f"(ds.{x} + {turn / 2:g}) % {turn:g} - {turn / 2:g}"
    return f"; or move the edge with ds.assign_coords({x}={moved}).sortby({x!r})"


def _closes(georef: GeoRef) -> bool:
    """Return whether the first and last columns of a raster are adjacent on the globe."""
    width = georef.shape.x
    columns = np.linspace(0.5, width - 0.5, min(width, _BORDER))
    middle = np.full(columns.size, georef.shape.y / 2)
    points = apply_affine(georef.affine, np.column_stack((columns, middle)))
    x = points[:, 0]
    if (turn := full_turn(georef.crs)) is None:
        turn = 360.0
        x = point_transformer(georef.crs, _LON_LAT)(points)[:, 0]
        if not np.isfinite(x).all():
            return False
        x = np.unwrap(x, period=turn)
    return bool(width > 2 and abs(x[-1] - x[0]) >= turn * (1 - 2.5 / width))


def box_text(box: Sequence[float]) -> str:
    """Format a box for an error message."""
    return "(" + ", ".join(f"{float(number):.10g}" for number in box) + ")"
