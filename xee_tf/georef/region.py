"""Part of a raster: boxes, geometries and pixel slices to a window of pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyproj
from numpy.typing import NDArray

from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import Size, Window
from xee_tf.georef.crs import describe_crs, read_crs, same_crs
from xee_tf.georef.longitudes import (
    BESIDE,
    cut_apart,
    edges_of_projection,
    full_turn,
    turn_along_x,
    turns,
    turns_on_raster,
    unwrap_rings,
)
from xee_tf.georef.reference import GeoRef

__all__ = ["region_window"]

_SLACK = 1e-6  # pixels: a box that ends on a pixel's edge does not reach into the next one
_PIECES = 1024  # an outline is cut into pieces of this part of its extent: straight lines bend elsewhere
_TORN = 20  # times the usual distance of two points of an outline: between them is the edge of a projection
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
    return _window(_shape(interface, region, turn, exact), crs, georef)


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


@dataclass(frozen=True)
class _Span:
    """Columns and rows that a part of a region covers, rounded outward; perhaps outside the raster."""

    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def of(cls, columns: Any, rows: Any) -> _Span:
        edges = []
        for along in (columns, rows):
            start = math.floor(along.min() + _SLACK)
            edges += [start, max(math.ceil(along.max() - _SLACK), start + 1)]  # a point is one pixel
        return cls(*edges)

    def meets(self, shape: Size) -> bool:
        return self.right > 0 and self.left < shape.x and self.bottom > 0 and self.top < shape.y


def _spans(shape: Any, crs: pyproj.CRS, georef: GeoRef) -> tuple[list[_Span], list[Points]]:
    """Where the parts of a region lie in the raster, and their outlines in the CRS of the raster."""
    spans, outlines = [], []
    inverse: Any = ~georef.affine
    for points in _outlines(shape, crs, georef):
        outlines.append(points)
        for shift in turns_on_raster(points, georef):
            spans.append(_Span.of(*inverse @ (points[:, 0] + shift, points[:, 1])))
    return spans, outlines


def _outlines(shape: Any, crs: pyproj.CRS, georef: GeoRef) -> Iterator[Points]:
    """Unbroken outlines of a region's parts in the CRS of the raster, each of shape (points, 2)."""
    from shapely import get_coordinates, segmentize

    if same_crs(crs, georef.crs):
        for part in _simple_parts(shape):
            yield get_coordinates(part)
        return
    left, bottom, right, top = shape.bounds
    if crs.is_geographic and (max(abs(bottom), abs(top)) > 90 or max(abs(left), abs(right)) > 540):
        raise OptionError(
            f"The region's coordinates {_numbers(shape.bounds)} cannot be degrees of {describe_crs(crs)}. "
            "Say what they are with region_crs=, for example region_crs=ds.rio.crs."
        )
    longest = max(right - left, top - bottom) / _PIECES
    transformer = pyproj.Transformer.from_crs(crs, georef.crs, always_xy=True)
    turn = turn_along_x(georef.crs)
    for part in _simple_parts(shape if turn else cut_apart(shape, edges_of_projection(crs, georef.crs))):
        outline = get_coordinates(segmentize(part, longest) if longest else part)
        moved = np.column_stack(transformer.transform(outline[:, 0], outline[:, 1]))
        moved = moved[np.isfinite(moved).all(axis=1)]  # what lies nowhere is left out
        if not len(moved):
            continue
        if turn is None:
            yield from _torn_apart(moved, georef)
            continue
        moved[:, 0] = np.unwrap(moved[:, 0], period=turn)
        around = abs(moved[-1, 0] - moved[0, 0]) > turn / 2
        if around and part.is_closed:  # a pole
            moved = np.concatenate([moved, [[moved[0, 0] + turn, moved[0, 1]]]])
        yield moved


def _crosses(shape: Any, cuts: Sequence[float]) -> bool:
    """Whether a shape has parts that end at both sides of one of these longitudes."""
    bounds = [part.bounds for part in _simple_parts(cut_apart(shape, cuts))]
    west, east = ([box[side] for box in bounds] for side in (2, 0))
    return any(
        any(abs(a - cut) < 2 * BESIDE for a in west)
        and any(abs((b - cut + 180) % 360 - 180) < 2 * BESIDE for b in east)
        for cut in cuts
    )


def _simple_parts(shape: Any) -> list[Any]:
    """Points, and the outer outlines of lines and polygons."""
    if hasattr(shape, "geoms"):
        return [part for geometry in shape.geoms for part in _simple_parts(geometry)]
    if shape.is_empty:
        return []
    return [shape.exterior if shape.geom_type == "Polygon" else shape]


def _torn_apart(points: Points, georef: GeoRef) -> Iterator[Points]:
    """An outline cut where it crosses the edge of a projection."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    if not steps.size:
        yield points
        return
    left, _, right, _ = georef.bounds
    far = max(_TORN * float(np.median(steps)), (right - left) / 4)
    yield from np.split(points, np.flatnonzero(steps > far) + 1)


def _border_spans(shape: Any, crs: pyproj.CRS, georef: GeoRef) -> Iterator[_Span]:
    """Runs of the raster's border that lie in the region.

    Around a pole or the whole globe an outline does not enclose in one CRS what it encloses in the other.
    """
    from shapely import contains_xy

    transformer = pyproj.Transformer.from_crs(georef.crs, crs, always_xy=True)
    left, _, right, _ = shape.bounds
    for columns, rows in _border(georef.shape):
        image: Any = georef.affine
        x, y = transformer.transform(*image @ (columns, rows))
        with np.errstate(invalid="ignore"):  # of places that the other CRS does not have
            shifts = turns(x, (left + right) / 2, full_turn(crs))
            inside = np.any([contains_xy(shape, x + shift, y) for shift in shifts], axis=0)
        runs = np.split(np.arange(inside.size), np.flatnonzero(np.diff(inside)) + 1)
        yield from (_Span.of(columns[run], rows[run]) for run in runs if inside[run[0]])


def _border(shape: Size) -> Iterator[tuple[Points, Points]]:
    """Columns and rows of the corners of the pixels along each side of the raster."""
    width, height = shape.xy
    columns = np.linspace(0, width, min(width, _BORDER) + 1)
    rows = np.linspace(0, height, min(height, _BORDER) + 1)
    for side in (0.0, float(height)):
        yield columns, np.full(columns.size, side)
    for side in (0.0, float(width)):
        yield np.full(rows.size, side), rows


def _window(shape: Any, crs: pyproj.CRS, georef: GeoRef) -> Window:
    spans, outlines = _spans(shape, crs, georef)
    if not same_crs(crs, georef.crs):
        spans += _border_spans(shape, crs, georef)
    height, width = georef.shape.shape
    spans = [span for span in spans if span.meets(georef.shape)]
    if not spans:
        covers = f"{_numbers(shape.bounds)} in {describe_crs(crs)}"
        if outlines and not same_crs(crs, georef.crs):
            points = np.concatenate(outlines)
            covers += f", that is {_numbers((*points.min(axis=0), *points.max(axis=0)))} in the raster's CRS"
        raise OptionError(
            f"The region lies outside the raster. The region covers {covers}; the raster covers "
            f"{_numbers(georef.bounds)} in {describe_crs(georef.crs)} (left, bottom, right, top)."
        )
    window = Window(
        max(min(span.top for span in spans), 0),
        min(max(span.bottom for span in spans), height),
        max(min(span.left for span in spans), 0),
        min(max(span.right for span in spans), width),
    )
    _require_one_part(spans, window, shape, _crosses(shape, edges_of_projection(crs, georef.crs)), georef)
    return window


def _require_one_part(
    spans: Sequence[_Span], window: Window, shape: Any, crosses: bool, georef: GeoRef
) -> None:
    """Refuse a region that crosses the edge of a raster of the whole globe: it has a part on each side."""
    sides = window.left, window.right
    if not (crosses or sides == (0, georef.shape.x)) or not _closes(georef):
        return
    covered = np.zeros(georef.shape.x, bool)
    for span in spans:
        covered[max(span.left, 0) : max(span.right, 0)] = True
    between = np.flatnonzero(~covered[slice(*sides)]) + window.left
    if not between.size:
        return
    boxes = []
    for first, last in ((window.left, int(between[0])), (int(between[-1]) + 1, window.right)):
        corners = [
            georef.affine @ (column, row) for column in (first, last) for row in (window.top, window.bottom)
        ]
        xs, ys = zip(*corners, strict=True)
        boxes.append(_numbers((min(xs), min(ys), max(xs), max(ys))))
    raise OptionError(
        f"The region {_numbers(shape.bounds)} crosses the edge of the raster, which covers "
        f"{_numbers(georef.bounds)} (left, bottom, right, top): it has a part on each side. Use each part "
        f"by itself, in the raster's CRS region={boxes[0]} and region={boxes[1]}{_other_edge(georef)}."
    )


def _other_edge(georef: GeoRef) -> str:
    turn, x = full_turn(georef.crs), georef.x_dim
    if turn is None:
        return ""
    moved = f"ds.{x} % {turn:g}"
    if georef.bounds[2] > 0.75 * turn:
        moved = f"(ds.{x} + {turn / 2:g}) % {turn:g} - {turn / 2:g}"
    return f", or move the edge, ds.assign_coords({x}={moved}).sortby({x!r})"


def _closes(georef: GeoRef) -> bool:
    """Whether the first column of a raster is the neighbour of the last one on the globe."""
    width, image = georef.shape.x, cast(Any, georef.affine)
    columns = np.linspace(0.5, width - 0.5, min(width, _BORDER))
    middle = np.full(columns.size, georef.shape.y / 2)
    if (turn := full_turn(georef.crs)) is None:
        turn = 360.0
        transformer = pyproj.Transformer.from_crs(georef.crs, "EPSG:4326", always_xy=True)
        x, _ = transformer.transform(*image @ (columns, middle))
        if not np.isfinite(x).all():
            return False
        x = np.unwrap(x, period=turn)
    else:
        x, _ = image @ (columns, middle)
    return bool(width > 2 and abs(x[-1] - x[0]) >= turn * (1 - 2.5 / width))


def _numbers(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{float(number):.10g}" for number in box) + ")"
