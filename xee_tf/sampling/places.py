"""Convert points and polygons to pixels of the blocks of a raster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from affine import Affine

from xee_tf.blocks import Block, BlockLayout, points_by_block
from xee_tf.display import counted
from xee_tf.errors import WARNING_FILTERS, GeoreferenceError, OptionError, warn
from xee_tf.geometry import Window
from xee_tf.georef import (
    GeoRef,
    describe_crs,
    pixels_of_points,
    point_transformer,
    polygons_in_pixels,
    read_crs,
)

__all__ = ["FindPixels", "Indices", "SamplePixels", "find_sample_pixels"]

Indices = npt.NDArray[np.int64]

Pixels = tuple[Indices, Indices, Indices]
"""Index of the feature, row and column of each pixel."""


FindPixels = Callable[[Any, Window], Pixels]


def _pixels_of_points(points: Pixels, window: Window) -> Pixels:
    return points


@dataclass(frozen=True)
class SamplePixels:
    """Pixels to sample.

    Parameters
    ----------
    by_block : mapping
        What to sample in each block, which only its task needs; blocks without samples are omitted.
    find : callable
        ``find(places, window)`` returns the pixels to sample in a block, from the value of `by_block` and the
        window of the block in the raster.
    """

    by_block: Mapping[Block, Any]
    find: FindPixels = _pixels_of_points


@dataclass(frozen=True)
class PolygonPixels:
    """Find all pixels in polygons, from the indices of those that intersect a block.

    The shapes are shared, because a large polygon intersects many blocks.

    Parameters
    ----------
    shapes : mapping of int to geometry
        The polygons in pixel coordinates of the raster.
    all_touched : bool
        Whether to include all pixels that a polygon touches, or only those whose center is inside.
    """

    shapes: Mapping[int, Any]
    all_touched: bool

    def __call__(self, polygons: Iterable[int], window: Window) -> Pixels:
        """Return the pixels in a block, which is a window of the raster."""
        from rasterio.features import rasterize

        found = []
        for number in polygons:
            shape = self.shapes[number]
            left, top, right, bottom = shape.bounds
            around = Window(math.floor(top), math.ceil(bottom), math.floor(left), math.ceil(right))
            around = around.intersection(window)
            if around.is_empty:
                continue
            with WARNING_FILTERS:
                burnt = rasterize(
                    [(shape, 1)],
                    out_shape=around.shape,
                    transform=Affine.translation(around.left, around.top),
                    all_touched=self.all_touched,
                    dtype="uint8",
                )
            rows, columns = np.nonzero(burnt)
            found.append((np.full(len(rows), number), rows + around.top, columns + around.left))
        if not found:
            none = np.empty(0, np.int64)
            return none, none, none
        numbers, rows, columns = (np.concatenate(each) for each in zip(*found, strict=True))
        return numbers, rows, columns


def find_sample_pixels(
    features: pd.Series[Any], crs: Any, georef: GeoRef, layout: BlockLayout, *, all_touched: bool
) -> SamplePixels:
    """Find the pixels of a Series of points or polygons in a CRS, by blocks of the raster.

    Longitudes may be in any range, regardless of the range of the raster. Polygons are planar in their own
    CRS; `unwrap_rings` describes which of them cross 180 degrees.

    Raises
    ------
    OptionError
        If a feature has no geometry, or is neither a point nor a polygon; if no point is inside the raster,
        or no pixel is inside a polygon.
    GeoreferenceError
        If the features have no CRS.
    """
    import shapely

    if not len(features):
        raise OptionError("There are no points or polygons to sample: the features are empty.")
    labels = features.index
    geometries = features.to_numpy(object)
    missing = np.flatnonzero(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    if missing.size:
        raise OptionError(
            f"{_row(labels, missing[0], 'Row')} has no geometry ({counted(missing.size, 'such row')}): drop "
            "rows without geometry, for example with "
            "features[~(features.geometry.isna() | features.geometry.is_empty)]."
        )
    kinds = shapely.get_type_id(geometries)
    points = bool((kinds == shapely.GeometryType.POINT).all())
    invalid = np.flatnonzero(
        ~np.isin(kinds, [shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON])
    )
    if not points and invalid.size:
        raise OptionError(
            "The features must be all points or all polygons; "
            f"{_row(labels, invalid[0])} is a {geometries[invalid[0]].geom_type}. Sample points and polygons "
            "separately."
        )
    coordinates, row_of = shapely.get_coordinates(geometries, return_index=True)
    invalid = row_of[~np.isfinite(coordinates).all(axis=1)]
    if invalid.size:
        raise OptionError(
            f"{_row(labels, invalid[0], 'Row')} has a coordinate that is not a finite number: drop or "
            "correct it."
        )
    if crs is None:
        raise GeoreferenceError(
            "The points or polygons have no CRS: set the CRS of their coordinates, for example "
            "features.set_crs('EPSG:4326')."
        )
    own = read_crs(crs, "the points or polygons", "Set another one with features.set_crs().")
    place = f"the raster covers {georef.bounds} in {describe_crs(georef.crs)} (left, bottom, right, top)"
    if points:

        def locate(coordinates: Any) -> Any:
            return pixels_of_points(point_transformer(own, georef.crs)(coordinates), georef)

        return _points(coordinates, locate, georef, layout, labels, place)
    shapes = polygons_in_pixels(geometries, own, georef)
    return _polygons(shapes, geometries, georef, layout, labels, place, all_touched)


def _row(labels: pd.Index[Any], row: int, word: str = "row") -> str:
    label = labels[row]
    named = "" if isinstance(label, int | np.integer) and label == row else f" (index {label!r})"
    return f"{word} {row}{named}"


def _points(
    coordinates: Any,
    locate: Callable[[Any], Any],
    georef: GeoRef,
    layout: BlockLayout,
    labels: pd.Index[Any],
    place: str,
) -> SamplePixels:
    """Find the pixels of points; `locate` returns the places of coordinates in pixels of the raster."""

    def is_inside(at: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return ((at >= 0) & (at < georef.shape.xy)).all(axis=1)

    at = locate(coordinates)
    inside = is_inside(at)
    outside = np.flatnonzero(~inside)
    if outside.size:
        first = int(outside[0])
        given = tuple(float(f"{number:.10g}") for number in coordinates[first])
        if outside.size == len(at):
            subject = "The point is" if len(at) == 1 else f"All {len(at)} points are"
            which = "it" if len(at) == 1 else _row(labels, first)
            swapped = is_inside(locate(coordinates[:, ::-1])).any()
            hint = " Are x and y swapped? x, or the longitude, is first." if swapped else ""
            raise OptionError(f"{subject} outside the raster: {which} is at {given}, {place}.{hint}")
        verb = "is" if outside.size == 1 else "are"
        warn(
            f"{outside.size} of {len(at)} points {verb} outside the raster and {verb} omitted; the first one "
            f"is {_row(labels, first)}, at {given}: {place}."
        )
    numbers = np.flatnonzero(inside)
    columns, rows = np.floor(at[inside]).astype(np.int64).T
    by_block = {
        block: (numbers[part], rows[part], columns[part])
        for block, part in points_by_block(layout, rows, columns).items()
    }
    return SamplePixels(by_block)


def _polygons(
    shapes: Any,
    geometries: Any,
    georef: GeoRef,
    layout: BlockLayout,
    labels: Any,
    place: str,
    all_touched: bool,
) -> SamplePixels:
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
            subject = "The polygon is" if len(shapes) == 1 else f"All {len(shapes)} polygons are"
            which = "it" if len(shapes) == 1 else _row(labels, first)
            raise OptionError(f"{subject} outside the raster: {which} covers {covers}, {place}.")
        verb = "is" if outside.size == 1 else "are"
        warn(
            f"{outside.size} of {len(shapes)} polygons {verb} outside the raster and {verb} omitted; the "
            f"first one is {_row(labels, first)}, which covers {covers}: {place}."
        )
    # Without all_touched only pixel centers matter: a block is not needed if a polygon only touches its edge.
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
    places = PolygonPixels({int(number): shapes[number] for number in inside}, all_touched)
    empty = _without_pixels(places, by_block, georef, layout)
    if not empty:
        return SamplePixels(by_block, places)
    nothing = "no pixel" if all_touched else "no pixel center"
    hint = "" if all_touched else " To include all pixels that a polygon touches, pass all_touched=True."
    if len(empty) == inside.size:
        subject = "the polygon covers" if len(shapes) == 1 else f"all {len(shapes)} polygons cover"
        if outside.size:
            verb = "overlaps the raster covers" if inside.size == 1 else "overlap the raster cover"
            subject = f"the {inside.size} of {len(shapes)} polygons that {verb}"
        size = f"{abs(georef.affine.a):.10g} x {abs(georef.affine.e):.10g}"
        raise OptionError(
            f"There is no pixel to sample: {subject} {nothing}. Pixels are {size} in "
            f"{describe_crs(georef.crs)}.{hint}"
        )
    verb, be = ("covers", "is") if len(empty) == 1 else ("cover", "are")
    warn(
        f"{len(empty)} of {len(shapes)} polygons {verb} {nothing} and {be} omitted; the first one is "
        f"{_row(labels, min(empty))}.{hint}"
    )
    kept = {block: [n for n in numbers if n not in empty] for block, numbers in by_block.items()}
    return SamplePixels({block: numbers for block, numbers in kept.items() if numbers}, places)


def _without_pixels(
    places: PolygonPixels, by_block: Mapping[Block, Sequence[int]], georef: GeoRef, layout: BlockLayout
) -> set[int]:
    """Return the indices of the polygons that contain no pixel."""
    import shapely

    # Shortcut: most polygons contain the center of the pixel at their representative point.
    width, height = georef.shape.xy
    numbers, shapes = np.array(list(places.shapes)), np.array(list(places.shapes.values()))
    inner = np.floor(shapely.get_coordinates(shapely.point_on_surface(shapes))) + 0.5
    inside = (inner > 0).all(axis=1) & (inner[:, 0] < width) & (inner[:, 1] < height)
    inside &= shapely.contains_xy(shapes, inner[:, 0], inner[:, 1])
    left = set(numbers[~inside].tolist())
    for block, members in by_block.items():
        if touching := [number for number in members if number in left]:
            left -= set(places(touching, layout.window(*block))[0].tolist())
    return left
