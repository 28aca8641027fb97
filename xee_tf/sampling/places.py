"""Where a raster is sampled: points and polygons as pixels of its blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
from affine import Affine

from xee_tf.blocks.layout import BlockLayout
from xee_tf.errors import GeoreferenceError, OptionError, warn
from xee_tf.geometry import Window
from xee_tf.georef import GeoRef
from xee_tf.georef.crs import describe_crs, read_crs, same_crs
from xee_tf.georef.locks import WARNING_FILTERS
from xee_tf.georef.longitudes import (
    cut_apart,
    edges_of_projection,
    pixels_of_points,
    turn_along_x,
    turns,
    turns_on_raster,
    unwrap_rings,
)
from xee_tf.georef.units import full_turn

__all__ = ["Places", "PointPlaces", "PolygonPlaces", "find_places"]

Indices = npt.NDArray[np.int64]
Block = tuple[int, int]

_BEND = 0.01  # pixels that an edge may lie beside its course
_PIECES = 1024  # of the longest edge of a polygon, at most


class Places(Protocol):
    """Pixels to sample."""

    @property
    def blocks(self) -> list[Block]:
        """The blocks that hold any."""

    def pixels(self, block: Block, window: Window) -> tuple[Indices, Indices, Indices]:
        """Number of the feature, row and column of each pixel in a block."""


@dataclass(frozen=True)
class PointPlaces:
    """The pixel under each point.

    Parameters
    ----------
    by_block : mapping
        For each block the numbers of its points, and their rows and columns in the raster.
    """

    by_block: Mapping[Block, tuple[Indices, Indices, Indices]]

    @property
    def blocks(self) -> list[Block]:
        """The blocks that hold any."""
        return list(self.by_block)

    def pixels(self, block: Block, window: Window) -> tuple[Indices, Indices, Indices]:
        """As `Places` has it."""
        return self.by_block[block]


@dataclass(frozen=True)
class PolygonPlaces:
    """Every pixel in each polygon.

    Parameters
    ----------
    by_block : mapping
        For each block the numbers of the polygons that touch it.
    shapes : mapping of int to geometry
        The polygons in pixels of the raster.
    all_touched : bool
        Whether a pixel counts that is touched, or one whose centre is inside.
    """

    by_block: Mapping[Block, list[int]]
    shapes: Mapping[int, Any]
    all_touched: bool

    @property
    def blocks(self) -> list[Block]:
        """The blocks that hold any."""
        return list(self.by_block)

    def pixels(self, block: Block, window: Window) -> tuple[Indices, Indices, Indices]:
        """As `Places` has it."""
        from rasterio.features import rasterize

        found = []
        for number in self.by_block[block]:
            shape = self.shapes[number]
            left, top, right, bottom = shape.bounds
            top, left = max(window.top, int(np.floor(top))), max(window.left, int(np.floor(left)))
            bottom, right = min(window.bottom, int(np.ceil(bottom))), min(window.right, int(np.ceil(right)))
            if bottom <= top or right <= left:
                continue
            with WARNING_FILTERS:
                burnt = rasterize(
                    [(shape, 1)],
                    out_shape=(bottom - top, right - left),
                    transform=Affine.translation(left, top),
                    all_touched=self.all_touched,
                    dtype="uint8",
                )
            rows, columns = np.nonzero(burnt)
            found.append((np.full(len(rows), number), rows + top, columns + left))
        if not found:
            none = np.empty(0, np.int64)
            return none, none, none
        numbers, rows, columns = (np.concatenate(each) for each in zip(*found, strict=True))
        return numbers, rows, columns


def find_places(
    features: Any, georef: GeoRef, layout: BlockLayout, *, all_touched: bool
) -> PointPlaces | PolygonPlaces:
    """The pixels of points or polygons, by blocks of the raster.

    Longitudes may be in any range, whichever the raster has. Polygons are planar in their own CRS, as they
    are given; `unwrap_rings` tells which of them are written across 180 degrees.

    Parameters
    ----------
    features : GeoSeries
        Points, or polygons.
    georef : GeoRef
        Of the raster.
    layout : BlockLayout
    all_touched : bool
        As for `PolygonPlaces`.

    Raises
    ------
    OptionError
        If a feature has no geometry, or is neither a point nor a polygon; if no point is on the raster, or no
        pixel in a polygon.
    GeoreferenceError
        If the features have no CRS.
    """
    import shapely

    if not len(features):
        raise OptionError("There are no points or polygons to sample at.")
    labels = features.index
    missing = np.flatnonzero(np.asarray(features.isna() | features.is_empty))
    if missing.size:
        raise OptionError(
            f"{_row(labels, missing[0])} has no geometry ({missing.size} such rows): drop them, for example "
            "features[~(features.geometry.isna() | features.geometry.is_empty)]."
        )
    kinds = features.geom_type.to_numpy()
    points = bool((kinds == "Point").all())
    odd = np.flatnonzero(~np.isin(kinds, ["Polygon", "MultiPolygon"]))
    if not points and odd.size:
        raise OptionError(
            f"A raster is sampled at points or in polygons: {_row(labels, odd[0])} is a {kinds[odd[0]]}"
            + (" among polygons." if odd.size < len(kinds) else ".")
        )
    points_of, row_of = shapely.get_coordinates(features.to_numpy(), return_index=True)
    odd = row_of[~np.isfinite(points_of).all(axis=1)]
    if odd.size:
        raise OptionError(f"{_row(labels, odd[0])} has a coordinate that is no finite number.")
    if features.crs is None:
        raise GeoreferenceError(
            "The points or polygons have no CRS: say what their coordinates are, for example "
            "features.set_crs('EPSG:4326')."
        )
    own = read_crs(features.crs, "the points or polygons", "Set another one with features.set_crs().")
    place = f"the raster covers {georef.bounds} in {describe_crs(georef.crs)} (left, bottom, right, top)"
    geometries = features.to_numpy()
    if points:
        at = _move(shapely.get_coordinates(geometries), own, georef.crs)
        return _points(pixels_of_points(at, georef), georef, layout, place)
    shapes = _in_pixels(geometries, own, georef)
    return _polygons(shapes, geometries, georef, layout, labels, place, all_touched)


def _move(points: Any, own: pyproj.CRS, crs: pyproj.CRS) -> Any:
    """Points of shape (n, 2) in another CRS; infinite where they lie outside of it."""
    if same_crs(own, crs):
        return points
    transformer = pyproj.Transformer.from_crs(own, crs, always_xy=True)
    return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))


def _in_pixels(geometries: Any, own: pyproj.CRS, georef: GeoRef) -> Any:
    """Polygons in pixels of the raster; what crosses 180 degrees in parts, if the raster has it so."""
    import shapely

    own_turn, turn = full_turn(own), turn_along_x(georef.crs)
    inverse: Any = ~georef.affine

    def to_pixels(points: Any, shift: float = 0.0) -> Any:
        return np.column_stack(inverse @ (points[:, 0] + shift, points[:, 1]))

    moved = geometries if own_turn is None else _unwrapped(geometries, own_turn)
    if not same_crs(own, georef.crs):
        for edge in edges_of_projection(own, georef.crs) if turn is None else ():
            left, _, right, _ = shapely.bounds(moved).T
            for number in np.flatnonzero((left < edge) & (edge < right)):
                moved[number] = cut_apart(moved[number], [edge])
        transformer = pyproj.Transformer.from_crs(own, georef.crs, always_xy=True)

        def move(points: Any) -> Any:
            return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

        dense = _with_bends(moved, lambda points: to_pixels(move(points)), turn is not None)
        moved = shapely.transform(dense, move)
        # What has a point nowhere, or edges that are long: broken apart between one turn and the next.
        left, bottom, right, top = shapely.bounds(moved).T
        with np.errstate(invalid="ignore"):
            odd = ~(np.isfinite(left + bottom + right + top))
            odd |= False if turn is None else right - left > turn / 2
        for number in np.flatnonzero(odd):
            moved[number] = _connected(moved[number], turn)
        bent = np.flatnonzero(shapely.get_num_coordinates(moved) > shapely.get_num_coordinates(geometries))
        for number in bent[~shapely.is_valid(moved[bent])]:  # edges that meet, at a pole for example
            moved[number] = _polygons_of(shapely.make_valid(moved[number]))
    pixels = shapely.transform(moved, to_pixels)
    if turn is not None:
        left, _, right, _ = shapely.bounds(pixels).T
        for number in np.flatnonzero((left < 0) | (right > georef.shape.x)):
            pixels[number] = _on_raster(moved[number], to_pixels, georef)
    return pixels


def _unwrapped(geometries: Any, turn: float) -> Any:
    """Polygons in which 180 degrees is no edge, in an array of their own."""
    import shapely

    found = geometries.copy()
    left, _, right, _ = shapely.bounds(geometries).T
    for number in np.flatnonzero(right - left > turn / 2):
        found[number] = unwrap_rings(geometries[number], turn)
    return found


def _with_bends(geometries: Any, to_pixels: Callable[..., Any], keeps_turns: bool) -> Any:
    """Polygons with as many points as their edges need, which may bend in the raster."""
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
    np.fmax.at(needed, of_edge, np.minimum(pieces, _PIECES))
    np.fmax.at(longest, of_edge, lengths)
    dense = geometries.copy()
    bends = np.flatnonzero((needed > 1) & (longest > 0))
    dense[bends] = shapely.segmentize(geometries[bends], longest[bends] / needed[bends])
    return dense


def _connected(geometry: Any, turn: float | None) -> Any:
    """A moved polygon without the points that lie nowhere, and with rings unbroken around the globe."""
    import shapely

    parts: list[Any] = []
    for part in getattr(geometry, "geoms", [geometry]):
        if part.geom_type != "Polygon":
            continue
        shell, *holes = (_ring(ring, turn) for ring in (part.exterior, *part.interiors))
        if shell is None:
            continue
        left, _, right, _ = shell.bounds
        for hole in holes:
            if hole is not None:
                shifts = turns(hole.centroid.x, (left + right) / 2, turn)[-3:]
                for shift in shifts:
                    shell = shell.difference(
                        shapely.transform(hole, lambda at, by=shift: at + np.array([by, 0]))
                    )
        parts += getattr(shell, "geoms", [shell])
    return shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon"])


def _ring(ring: Any, turn: float | None) -> Any:
    """What a ring encloses; around a pole, all up to the pole. None if it encloses nothing."""
    import shapely

    points = shapely.get_coordinates(ring)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 3:
        return None
    if turn is not None:
        if (points[0] != points[-1]).any():
            points = np.concatenate([points, points[:1]])
        points[:, 0] = np.unwrap(points[:, 0], period=turn)
        if abs(points[-1, 0] - points[0, 0]) > turn / 2:
            pole = np.copysign(turn / 4, points[:, 1].mean())
            points = np.concatenate([points, [[points[-1, 0], pole], [points[0, 0], pole]]])
    return _polygons_of(shapely.make_valid(shapely.Polygon(points)))


def _polygons_of(geometry: Any) -> Any:
    """Of what `shapely.make_valid` found, the polygons."""
    import shapely

    parts = [part for part in shapely.get_parts(geometry) if part.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if len(parts) > 1 else parts[0] if parts else geometry


def _on_raster(geometry: Any, to_pixels: Callable[..., Any], georef: GeoRef) -> Any:
    """A polygon in pixels; parts of it that a raster has at another turn of the globe are there."""
    import shapely

    parts = [
        shapely.transform(part, lambda points, shift=shift: to_pixels(points, shift))
        for part in getattr(geometry, "geoms", [geometry])
        for shift in turns_on_raster(shapely.get_coordinates(part), georef)
    ]
    if not parts:
        return shapely.transform(geometry, to_pixels)
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _row(labels: pd.Index[Any], row: int) -> str:
    label = labels[row]
    named = "" if isinstance(label, int | np.integer) and label == row else f" (index {label!r})"
    return f"Row {row}{named}"


def _points(at: Any, georef: GeoRef, layout: BlockLayout, place: str) -> PointPlaces:
    with np.errstate(invalid="ignore"):
        inside = ((at >= 0) & (at < georef.shape.xy)).all(axis=1)
    outside = int((~inside).sum())
    if outside == len(at):
        raise OptionError(f"All {outside} points are outside the raster: {place}.")
    if outside:
        warn(f"{outside} of {len(at)} points are outside the raster and left out: {place}.")
    numbers = np.flatnonzero(inside)
    columns, rows = np.floor(at[inside]).astype(np.int64).T
    down, across = (
        np.searchsorted(axis.edges, pixels, side="right") - 1
        for axis, pixels in ((layout.y, rows), (layout.x, columns))
    )
    flat = down * len(layout.x) + across
    order = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    by_block = {}
    for part in np.split(order, starts[1:]):
        block = int(down[part[0]]), int(across[part[0]])
        by_block[block] = numbers[part], rows[part], columns[part]
    return PointPlaces(by_block)


def _polygons(
    shapes: Any,
    geometries: Any,
    georef: GeoRef,
    layout: BlockLayout,
    labels: Any,
    place: str,
    all_touched: bool,
) -> PolygonPlaces:
    import shapely

    width, height = georef.shape.xy
    bounds = shapely.bounds(shapes)
    with np.errstate(invalid="ignore"):
        meets = (bounds[:, 0] < width) & (bounds[:, 1] < height) & (bounds[:, 2] > 0) & (bounds[:, 3] > 0)
    outside = np.flatnonzero(~meets)
    if outside.size:
        first = int(outside[0])
        covers = tuple(float(f"{number:.10g}") for number in geometries[first].bounds)
        if outside.size == len(shapes):
            who = "The polygon is" if len(shapes) == 1 else f"All {len(shapes)} polygons are"
            which = "it" if len(shapes) == 1 else _row(labels, first)
            raise OptionError(f"{who} outside the raster: {which} covers {covers}, {place}.")
        warn(
            f"{outside.size} of {len(shapes)} polygons are outside the raster and left out; the first one is "
            f"{_row(labels, first)}, which covers {covers}: {place}."
        )
    # Of a block only the centres of its pixels count: a polygon that just touches its edge does not need it.
    inner = 1e-6 if all_touched else 0.499
    y, x = np.array(layout.y.edges), np.array(layout.x.edges)
    left, top = np.meshgrid(x[:-1] + inner, y[:-1] + inner)
    right, bottom = np.meshgrid(x[1:] - inner, y[1:] - inner)
    boxes = shapely.box(left, top, right, bottom).ravel()
    by_block: dict[Block, list[int]] = {}
    inside = np.flatnonzero(meets)
    pairs = shapely.STRtree(shapes[inside]).query(boxes, predicate="intersects")
    for flat, number in pairs[:, np.lexsort(pairs[::-1])].T.tolist():
        by_block.setdefault(divmod(flat, len(layout.x)), []).append(int(inside[number]))
    places = PolygonPlaces(by_block, {int(number): shapes[number] for number in inside}, all_touched)
    empty = _without_pixels(places, georef, layout)
    if not empty:
        return places
    lack = "no pixel" if all_touched else "no centre of a pixel"
    hint = "" if all_touched else " Pixels that a polygon just touches are taken with all_touched=True."
    if len(empty) == inside.size:
        who = "the polygon covers" if len(shapes) == 1 else f"all {len(shapes)} polygons cover"
        if outside.size:
            who = f"the {inside.size} of {len(shapes)} polygons that meet the raster cover"
        size = f"{abs(georef.affine.a):.10g} x {abs(georef.affine.e):.10g}"
        raise OptionError(
            f"There is no pixel to sample: {who} {lack}. Pixels are {size} in "
            f"{describe_crs(georef.crs)}.{hint}"
        )
    warn(
        f"{len(empty)} of {len(shapes)} polygons cover {lack} and give no row; the first one is "
        f"{_row(labels, min(empty))}.{hint}"
    )
    kept = {block: [n for n in numbers if n not in empty] for block, numbers in by_block.items()}
    return PolygonPlaces(
        {block: numbers for block, numbers in kept.items() if numbers}, places.shapes, all_touched
    )


def _without_pixels(places: PolygonPlaces, georef: GeoRef, layout: BlockLayout) -> set[int]:
    """The polygons in which no pixel lies."""
    import shapely

    # Most polygons cover the centre of the pixel that one of their inner points is in.
    width, height = georef.shape.xy
    numbers, shapes = np.array(list(places.shapes)), np.array(list(places.shapes.values()))
    inner = np.floor(shapely.get_coordinates(shapely.point_on_surface(shapes))) + 0.5
    inside = (inner > 0).all(axis=1) & (inner[:, 0] < width) & (inner[:, 1] < height)
    inside &= shapely.contains_xy(shapes, inner[:, 0], inner[:, 1])
    left = set(numbers[~inside].tolist())
    for block, members in places.by_block.items():
        if touching := [number for number in members if number in left]:
            few = PolygonPlaces({block: touching}, places.shapes, places.all_touched)
            left -= set(few.pixels(block, layout.window(*block))[0].tolist())
    return left
