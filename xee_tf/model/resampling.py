"""Rasters taken to the projection of a model, and predictions taken back; lazily."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import pyproj
import xarray as xr
from affine import Affine

from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, write_georef
from xee_tf.georef.conventions import raster_variables
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
        variables[name] = variable.transpose(..., georef.y_dim, georef.x_dim)  # as it is resampled
    resampled = _reproject(xr.Dataset(variables, placed.coords), target, resampling)
    return resampled, target


def from_projection(predicted: xr.Dataset, georef: GeoRef, resampling: Resampling) -> xr.Dataset:
    """Predictions on the grid of an image; integer bands always by the nearest pixel."""
    floats = [name for name, band in predicted.data_vars.items() if band.dtype.kind == "f"]
    others = [name for name in predicted.data_vars if name not in floats]
    parts = [
        _reproject(predicted[names], georef, method)
        for names, method in ((floats, resampling), (others, "nearest"))
        if names
    ]
    return xr.merge(parts)[list(predicted.data_vars)]


def _reproject(image: xr.Dataset, target: GeoRef, resampling: str) -> xr.Dataset:
    import odc.geo.xr  # takes its time, and most predictions need none of it
    from odc.geo.geobox import GeoBox

    box = GeoBox(target.shape.shape, target.affine, target.crs.to_wkt())
    result: xr.Dataset = odc.geo.xr.xr_reproject(image, box, resampling=resampling)
    y, x = result.odc.spatial_dims
    result = result.drop_vars(["spatial_ref", y, x], errors="ignore").rename(
        {y: target.y_dim, x: target.x_dim}
    )
    return write_georef(result, target, target.x_dim, target.y_dim)


def _grid(georef: GeoRef, projection: Projection) -> GeoRef:
    """The pixels of a projection's grid that an image meets."""
    crs = pyproj.CRS.from_user_input(projection.crs)
    width, height = georef.shape.xy
    across, down = np.linspace(0, width, _EDGE), np.linspace(0, height, _EDGE)
    columns = np.concatenate([across, across, np.zeros(_EDGE), np.full(_EDGE, width)])
    rows = np.concatenate([np.zeros(_EDGE), np.full(_EDGE, height), down, down])
    a, b, c, d, e, f = tuple(georef.affine)[:6]
    transform = pyproj.Transformer.from_crs(georef.crs, crs, always_xy=True)
    x, y = transform.transform(a * columns + b * rows + c, d * columns + e * rows + f)
    a, b, c, d, e, f = tuple(~projection.affine)[:6]
    columns, rows = a * x + b * y + c, d * x + e * y + f
    left, top = math.floor(columns.min() + 1e-6), math.floor(rows.min() + 1e-6)
    right, bottom = math.ceil(columns.max() - 1e-6), math.ceil(rows.max() - 1e-6)
    affine = projection.affine @ Affine.translation(left, top)
    return GeoRef(
        crs, affine, Size(x=max(1, right - left), y=max(1, bottom - top)), georef.x_dim, georef.y_dim
    )
