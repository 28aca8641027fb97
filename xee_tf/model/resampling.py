"""Rasters taken to the projection of a model, and predictions taken back; lazily."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import pyproj
import xarray as xr
from affine import Affine

from xee_tf.errors import GeoreferenceError
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, write_georef
from xee_tf.georef.conventions import raster_variables
from xee_tf.georef.crs import describe_crs, read_crs
from xee_tf.model.projection import Projection

__all__ = ["Resampling", "from_projection", "to_projection"]

Resampling = Literal["nearest", "bilinear"]

_MANY = 4  # times as many pixels as the image has: worth a warning
_EDGE = 21  # points along each edge of the image that are projected


def to_projection(
    image: xr.Dataset, georef: GeoRef, projection: Projection, resampling: Resampling
) -> tuple[xr.Dataset, GeoRef]:
    """An image in another projection, on that projection's grid; just so much of it as the image covers.

    Integer bands without nodata become floats, so that pixels outside the image can be masked.

    Returns
    -------
    image : Dataset
    georef : GeoRef
    """
    target = _grid(georef, projection)
    ratio = target.shape.pixels / georef.shape.pixels
    if ratio > _MANY:
        warnings.warn(
            f"The image has {georef.shape.x} x {georef.shape.y} pixels, and in the model's projection they "
            f"become {target.shape.x} x {target.shape.y}: {ratio:.0f} times as many are predicted as the "
            "result shows. Predict a part of the image, or take a model of a coarser scale.",
            UserWarning,
            stacklevel=4,
        )
    placed = write_georef(image, georef, georef.x_dim, georef.y_dim)
    variables = {}
    for name, variable in raster_variables(placed, georef.x_dim, georef.y_dim):
        if variable.dtype.kind in "iub" and variable.rio.nodata is None:
            wide = variable.dtype.kind in "iu" and variable.dtype.itemsize > 2
            variable = variable.astype(np.float64 if wide else np.float32)
        variables[name] = variable
    resampled = _reproject(xr.Dataset(variables, placed.coords), georef, target, resampling)
    return resampled, target


def from_projection(
    predicted: xr.Dataset, place: GeoRef, georef: GeoRef, resampling: Resampling
) -> xr.Dataset:
    """Predictions at `place` on the grid of an image; integer bands always by the nearest pixel."""
    floats = [name for name, band in predicted.data_vars.items() if band.dtype.kind == "f"]
    others = [name for name in predicted.data_vars if name not in floats]
    bands: dict[Hashable, xr.DataArray] = {}
    for names, method in ((floats, resampling), (others, "nearest")):
        if names:
            bands |= _reproject(predicted[names], place, georef, method).data_vars
    return xr.Dataset({name: bands[name] for name in predicted.data_vars})


def _reproject(image: xr.Dataset, source: GeoRef, target: GeoRef, resampling: str) -> xr.Dataset:
    """Bands at `source` resampled to `target`, with the names and the order of their dimensions."""
    import odc.geo.xr  # takes its time, and most predictions need none of it
    from odc.geo.geobox import GeoBox

    dims = {name: band.dims for name, band in image.data_vars.items()}
    # odc-geo finds places and dimensions by rules of its own, and takes y and x next to each other only.
    plain = image.drop_vars([name for name in (source.x_dim, source.y_dim) if name in image.coords])
    plain = plain.rename({old: new for old, new in ((source.y_dim, "y"), (source.x_dim, "x")) if old != new})
    plain = write_georef(plain.transpose(..., "y", "x"), replace(source, x_dim="x", y_dim="y"))
    box = GeoBox(target.shape.shape, target.affine, target.crs.to_wkt())
    result: xr.Dataset = odc.geo.xr.xr_reproject(plain, box, resampling=resampling)
    y, x = result.odc.spatial_dims
    result = result.drop_vars(["spatial_ref", y, x], errors="ignore").rename(
        {y: target.y_dim, x: target.x_dim}
    )
    ordered = {name: result[name].transpose(*dims[name]) for name in result.data_vars}
    return write_georef(xr.Dataset(ordered), target, target.x_dim, target.y_dim)


def _grid(georef: GeoRef, projection: Projection) -> GeoRef:
    """The pixels of a projection's grid that an image meets.

    Raises
    ------
    GeoreferenceError
        If part of the image lies outside the projection, or the image crosses the projection's edge.
    """
    crs = read_crs(projection.crs)
    transformer = pyproj.Transformer.from_crs(georef.crs, crs, always_xy=True)
    image, inverse = cast(Any, georef.affine), cast(Any, ~projection.affine)
    width, height = georef.shape.xy
    outline = _outline(width, height)
    x, y = transformer.transform(*image @ outline)
    _require_finite(georef, crs, outline, np.isfinite(x) & np.isfinite(y))
    if (turn := _full_turn(crs)) is not None:
        x = np.unwrap(x, period=turn)  # across 180 degrees on the short side
        if abs(x[-1] - x[0]) > turn / 2:  # around a pole
            y = np.append(y, math.copysign(turn / 4, y.mean()))
            x = np.linspace(-turn / 2, turn / 2, y.size)
    columns, rows = inverse @ (x, y)
    left, top = math.floor(columns.min() + 1e-6), math.floor(rows.min() + 1e-6)
    right, bottom = math.ceil(columns.max() - 1e-6), math.ceil(rows.max() - 1e-6)
    shape = Size(x=max(1, right - left), y=max(1, bottom - top))
    ratio = shape.pixels / georef.shape.pixels

    def project(at: Any) -> Any:
        return transformer.transform(*image @ at)

    # A raster of the whole globe is torn as well, but covers what lies between.
    if (
        ratio > _MANY
        and turn is None
        and _is_torn(outline, project)
        and ratio > 3 * _pixels_of_a_pixel(georef.shape, lambda at: inverse @ project(at))
    ):
        raise GeoreferenceError(
            f"The image has {width:,} x {height:,} pixels, and in the model's projection, "
            f"{describe_crs(crs)}, it spans {shape.x:,} x {shape.y:,} pixels, {ratio:,.0f} times as many: it "
            "crosses the edge of that projection, usually at 180 degrees. Predict the parts on either side of "
            "it separately, or use a projection that has no edge there."
        )
    affine = projection.affine @ Affine.translation(left, top)
    return GeoRef(crs, affine, shape, georef.x_dim, georef.y_dim)


def _is_torn(outline: tuple[Any, Any], project: Callable[[Any], Any]) -> bool:
    """Whether neighbouring points of an outline lie far apart however close together they are."""
    points = np.column_stack(outline)
    placed = np.column_stack(project(outline))
    lengths = np.hypot(*np.diff(placed, axis=0).T)
    at = int(np.argmax(lengths))
    ends, longest = [points[at], points[at + 1]], lengths[at]
    for _ in range(20):
        three = np.array([ends[0], (ends[0] + ends[1]) / 2, ends[1]])
        halves = np.hypot(*np.diff(np.column_stack(project(tuple(three.T))), axis=0).T)
        half = int(np.argmax(halves))
        ends = [three[half], three[half + 1]]
    return bool(halves[half] > longest / 2)


def _pixels_of_a_pixel(shape: Size, to_pixels: Callable[[Any], Any]) -> float:
    """How many pixels of the projection's grid a pixel of the image covers, as a median."""
    columns, rows = np.meshgrid((np.arange(9) + 0.5) * shape.x / 9, (np.arange(9) + 0.5) * shape.y / 9)
    steps = ((0, 0), (1, 0), (0, 1))
    placed = (to_pixels((columns.ravel() + across, rows.ravel() + down)) for across, down in steps)
    (x, y), (x_right, y_right), (x_below, y_below) = placed
    areas = (x_right - x) * (y_below - y) - (x_below - x) * (y_right - y)
    return float(np.median(np.abs(areas)))


def _full_turn(crs: pyproj.CRS) -> float | None:
    """360 degrees in the unit of a geographic CRS."""
    if not crs.is_geographic:
        return None
    return 2 * math.pi / float(crs.axis_info[0].unit_conversion_factor)


def _outline(width: int, height: int) -> tuple[Any, Any]:
    """Columns and rows of points around an image, from its first corner to the same again."""
    across, down = np.linspace(0, width, _EDGE), np.linspace(0, height, _EDGE)
    columns = np.concatenate([across, np.full(_EDGE, width), across[::-1], np.zeros(_EDGE)])
    rows = np.concatenate([np.zeros(_EDGE), down, np.full(_EDGE, height), down[::-1]])
    return columns, rows


def _require_finite(georef: GeoRef, crs: pyproj.CRS, outline: tuple[Any, Any], finite: Any) -> None:
    if finite.all():
        return
    first = int(np.argmin(finite))
    x, y = georef.affine @ (float(outline[0][first]), float(outline[1][first]))
    raise GeoreferenceError(
        f"{int((~finite).sum())} of {finite.size} points along the edges of the image have no coordinates in the "
        f"model's projection, {describe_crs(crs)}: the first is ({x:.10g}, {y:.10g}) in "
        f"{describe_crs(georef.crs)}. Predict the part of the image that lies inside the projection, or use "
        "another projection."
    )
