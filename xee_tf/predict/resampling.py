"""Resample rasters to the projection of a model and predictions back, lazily."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr
from affine import Affine

from xee_tf.dtypes import beyond_float64, nodata_candidates
from xee_tf.errors import GeoreferenceError, PredictionError, warn
from xee_tf.geometry import Size
from xee_tf.georef import (
    GRID_MAPPING,
    GeoRef,
    Points,
    PointTransform,
    apply_affine,
    band_nodata,
    describe_crs,
    edges_of_projection,
    full_turn,
    pixels_between,
    point_transformer,
    raster_variables,
    read_crs,
    unwrap_outline,
    window_of,
    write_georef,
)
from xee_tf.models import Projection
from xee_tf.predict.warping import warp

__all__ = ["Resampling", "from_projection", "to_projection"]

Resampling = Literal["nearest", "bilinear"]

_MANY = 4  # warn if the resampled image has more than this many times the pixels of the image
_CHUNK = 1024  # side in pixels of the chunks of arrays that are not chunked
_INSIDE = 33  # points along each axis of a regular grid inside the image that are projected
_EDGE = 101  # points along each edge of the image that are projected


def to_projection(
    image: xr.Dataset, georef: GeoRef, projection: Projection, resampling: Resampling
) -> tuple[xr.Dataset, GeoRef]:
    """Resample an image to the part of a projection's grid that it covers, and return the grid.

    Masked pixels of float bands become NaN. Integer bands without nodata become floats so that pixels outside
    the image can be masked. Computing integers that float64 cannot represent raises an error.
    """
    target = _grid(georef, projection)
    ratio = target.shape.pixels / georef.shape.pixels
    if ratio > _MANY:
        warn(
            f"The image has {georef.shape.x} x {georef.shape.y} pixels, but {target.shape.x} x "
            f"{target.shape.y} pixels in the model's projection: the model predicts {ratio:.0f} times as "
            "many pixels as the result has. Predict a part of the image, or use a model with a coarser scale."
        )
    placed = write_georef(image, georef, georef.x_dim, georef.y_dim)
    variables = {}
    for name, variable in raster_variables(placed, georef.x_dim, georef.y_dim):
        variables[name] = _with_one_nodata(variable, str(name))
    resampled = _reproject(xr.Dataset(variables, placed.coords), georef, target, resampling)
    return resampled, target


def _with_one_nodata(variable: xr.DataArray, name: str) -> xr.DataArray:
    """Return a band in which masked pixels are NaN or have a single nodata value, given in its attributes."""
    nodata = band_nodata(variable, name)
    plain = variable.drop_attrs(deep=False)
    plain.encoding = {key: value for key, value in variable.encoding.items() if key == "grid_mapping"}
    dtype = variable.dtype
    if dtype.kind in "iu" and nodata:
        for number in nodata[1:]:
            plain = plain.where(plain != number, dtype.type(nodata[0]))
        return plain.assign_attrs(_FillValue=nodata[0])
    if dtype.kind in "iu" and dtype.itemsize == 8:
        return plain.copy(data=_map(plain.data, partial(_as_float, name=name)))
    if dtype.kind != "f":
        return plain.astype(np.float64 if dtype.itemsize > 2 else np.float32)
    for number in nodata:
        plain = plain.where(variable != number)
    return plain


def _map(array: Any, function: Callable[[Any], Any]) -> Any:
    return array.map_blocks(function, dtype=np.float64) if hasattr(array, "map_blocks") else function(array)


def _as_float(values: npt.NDArray[Any], *, name: str) -> npt.NDArray[np.float64]:
    """Convert 64-bit integers to float64; raise an error if it cannot represent them."""
    beyond = beyond_float64(values)
    if beyond.any():
        raise PredictionError(
            f"Band {name!r} contains {values[beyond][0]}, outside the range in which float64 represents all "
            f"integers. The band is converted from {values.dtype} to float64 because it has no nodata value "
            "to mask pixels outside the image. Fix: define a value that does not occur, "
            f"ds[{name!r}].attrs['_FillValue'] = {nodata_candidates(values.dtype)[0]}."
        )
    return values.astype(np.float64)


def from_projection(
    predicted: xr.Dataset, place: GeoRef, georef: GeoRef, resampling: Resampling
) -> xr.Dataset:
    """Resample predictions at `place` to the grid of an image; integer bands always use nearest."""
    floats = [name for name, band in predicted.data_vars.items() if band.dtype.kind == "f"]
    others = [name for name in predicted.data_vars if name not in floats]
    bands: dict[Hashable, xr.DataArray] = {}
    for names, method in ((floats, resampling), (others, "nearest")):
        if names:
            bands |= _reproject(predicted[names], place, georef, method).data_vars
    return xr.Dataset({name: bands[name] for name in predicted.data_vars})


def _reproject(image: xr.Dataset, source: GeoRef, target: GeoRef, resampling: str) -> xr.Dataset:
    """Resample bands from `source` to `target`; keep the names and the order of their dimensions."""
    spatial = (source.y_dim, source.x_dim)
    variables = {}
    for name, band in image.data_vars.items():
        plane = band.variable.transpose(..., *spatial)
        array = (plane if plane.chunks is not None else plane.chunk(dict.fromkeys(spatial, _CHUNK))).data
        fill = next(iter(band_nodata(band, str(name))), math.nan if band.dtype.kind == "f" else 0)
        warped = warp(array, source, target, resampling=resampling, fill=fill)
        encoding = {key: band.encoding[key] for key in ("_FillValue",) if key in band.encoding}
        variable = xr.Variable((*plane.dims[:-2], target.y_dim, target.x_dim), warped, band.attrs, encoding)
        names = dict(zip(spatial, (target.y_dim, target.x_dim), strict=True))
        variables[name] = variable.transpose(*(names.get(str(dim), dim) for dim in band.dims))
    coords = {
        name: coord.variable
        for name, coord in image.coords.items()
        if name != GRID_MAPPING and not {*spatial} & {*map(str, coord.dims)}
    }
    return write_georef(xr.Dataset(variables, coords), target, target.x_dim, target.y_dim)


def _grid(georef: GeoRef, projection: Projection) -> GeoRef:
    """Return the part of a projection's grid that an image covers.

    The image must lie inside the edges of the projection.
    """
    crs = read_crs(projection.crs)
    move = point_transformer(georef.crs, crs)

    def project(pixels: Points) -> Points:
        return move(apply_affine(georef.affine, pixels))

    outline = _outline(georef.shape)
    points = project(outline)
    _require_finite(georef, crs, outline, np.isfinite(points).all(axis=1))
    torn = outline[:0]
    if (turn := full_turn(crs)) is not None:
        points, around_pole = unwrap_outline(points, turn)  # the short way across 180 degrees
        if around_pole:
            y = np.append(points[:, 1], math.copysign(turn / 4, points[:, 1].mean()))
            points = np.column_stack((np.linspace(-turn / 2, turn / 2, y.size), y))
    else:
        torn = _torn_ends(outline, project)
        # These points lie on the edge of the projection, between two points of the outline.
        points = np.concatenate([points, project(torn), _inside(georef, crs, move)])
    window = window_of(apply_affine(~projection.affine, points))
    shape = window.size
    ratio = shape.pixels / georef.shape.pixels
    # A raster of the whole globe is torn, too, but covers the pixels in between.
    if (
        len(torn)
        and ratio > _MANY
        and ratio
        > 3 * _pixels_of_a_pixel(georef.shape, lambda at: apply_affine(~projection.affine, project(at)))
    ):
        raise GeoreferenceError(
            f"The image crosses the edge of the model's projection, {describe_crs(crs)}, usually at 180 "
            f"degrees: it has {georef.shape.x:,} x {georef.shape.y:,} pixels but spans {shape.x:,} x "
            f"{shape.y:,} pixels of that projection, {ratio:,.0f} times as many. Predict the parts on either "
            "side of the edge separately, or use a projection without an edge there."
        )
    affine = projection.affine @ Affine.translation(window.left, window.top)
    return GeoRef(crs, affine, shape, georef.x_dim, georef.y_dim)


def _inside(georef: GeoRef, crs: pyproj.CRS, move: PointTransform) -> Points:
    """Return projected points inside an image and on both sides of the edges of a projection.

    The outline of a global image may lie on the edges of the projection or far from them.
    """
    points = [apply_affine(georef.affine, pixels_between(georef.shape.window, _INSIDE))]
    left, bottom, right, top = georef.bounds
    turn = full_turn(georef.crs) or 0.0
    edges = [edge for edge in edges_of_projection(georef.crs, crs) if left <= edge <= right]
    down = np.linspace(bottom, top, _EDGE)
    for x in (edge + side for edge in edges for side in (-1e-9 * turn, 1e-9 * turn)):
        if left <= x <= right:
            points.append(np.column_stack((np.full(_EDGE, x), down)))
    projected = move(np.concatenate(points))
    return projected[np.isfinite(projected).all(axis=1)]


def _torn_ends(outline: Points, project: Callable[[Points], Points]) -> Points:
    """Return pairs of points of an outline that are arbitrarily close but far apart in the projection."""

    def distance(first: Points, last: Points) -> Any:
        return np.hypot(*(project(last) - project(first)).T)

    first, last = outline[:-1], outline[1:]
    lengths = distance(first, last)
    for _ in range(30):
        middle = (first + last) / 2
        is_first = (distance(first, middle) >= distance(middle, last))[:, np.newaxis]
        first, last = np.where(is_first, first, middle), np.where(is_first, middle, last)
    torn = (distance(first, last) > lengths / 2) & (lengths > 0)
    return np.concatenate([first[torn], last[torn]])


def _pixels_of_a_pixel(shape: Size, to_pixels: Callable[[Points], Points]) -> float:
    """Return the median number of pixels of the projection's grid that a pixel of the image covers."""
    columns, rows = np.meshgrid((np.arange(9) + 0.5) * shape.x / 9, (np.arange(9) + 0.5) * shape.y / 9)
    pixels = np.column_stack((columns.ravel(), rows.ravel()))
    corner, right, below = (to_pixels(pixels + np.array(step)) for step in ((0, 0), (1, 0), (0, 1)))
    with np.errstate(invalid="ignore"):
        (x_right, y_right), (x_below, y_below) = (right - corner).T, (below - corner).T
        areas = x_right * y_below - x_below * y_right
    return float(np.nanmedian(np.abs(areas)))


def _outline(shape: Size) -> Points:
    """Return columns and rows of points along the outline of an image; the last point is the first."""
    across, down = np.linspace(0, shape.x, _EDGE), np.linspace(0, shape.y, _EDGE)
    columns = np.concatenate([across, np.full(_EDGE, shape.x), across[::-1], np.zeros(_EDGE)])
    rows = np.concatenate([np.zeros(_EDGE), down, np.full(_EDGE, shape.y), down[::-1]])
    return np.column_stack((columns, rows))


def _require_finite(georef: GeoRef, crs: pyproj.CRS, outline: Points, finite: Any) -> None:
    if finite.all():
        return
    first = int(np.argmin(finite))
    x, y = georef.affine @ outline[first].tolist()
    raise GeoreferenceError(
        f"The image is partly outside the model's projection, {describe_crs(crs)}: "
        f"{int((~finite).sum())} of {finite.size} points along its edges cannot be projected. The first is "
        f"({x:.10g}, {y:.10g}) in {describe_crs(georef.crs)}. Predict the part of the image inside the "
        "projection, or use another projection."
    )
