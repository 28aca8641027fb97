"""Warp a block of pixels from one grid to another, with numpy and GDAL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from xee_tf.dtypes import FLOAT32_EXACT
from xee_tf.errors import WARNING_FILTERS
from xee_tf.geometry import Size, Window
from xee_tf.georef.coordinates import apply_affine, pixels_between
from xee_tf.georef.crs import PointTransform
from xee_tf.georef.longitudes import nearest_turn
from xee_tf.georef.reference import GeoRef
from xee_tf.georef.units import full_turn

__all__ = ["BlockWarp", "block_warp"]

_FLOATS = {"f2": "f4", "f4": "f4"}  # dtypes that are interpolated as float32; all others as float64
_POINTS = 17  # points along each axis of a regular grid in a block that are located in the source
_SIDES = np.pad(np.zeros((_POINTS - 2, _POINTS - 2), bool), 1, constant_values=True).ravel()
_SLACK = 3  # extra pixels of the source, and as many again per pixel of the source that a target pixel spans


def block_warp(
    source: GeoRef, target: GeoRef, block: Window, move: PointTransform, *, resampling: str, fill: float
) -> tuple[Window, BlockWarp] | None:
    """Return the pixels of the source that a block of the target needs, and the function that warps them.

    Parameters
    ----------
    source, target : GeoRef
        The grids.
    block : Window
        Pixels of the target.
    move : callable
        Transforms points from the CRS of the target to that of the source; see `point_transformer`.
    resampling : str
        "nearest" or "bilinear".
    fill : float
        The value of masked pixels.

    Returns
    -------
    tuple of Window and BlockWarp, or None
        None if the block does not overlap the source.
    """
    window, whole = _source_window(source, target, block, move)
    if window is None:
        return None
    return window, BlockWarp(
        _shifted_affine(window, source, target, block, move),
        source.crs.to_wkt(),
        target.affine @ Affine.translation(block.left, block.top),
        target.crs.to_wkt(),
        block.size,
        resampling,
        fill,
        whole,
    )


def _source_window(
    source: GeoRef, target: GeoRef, block: Window, move: PointTransform
) -> tuple[Window | None, bool]:
    """Return the pixels of the source for a block of the target, and whether GDAL must use all of them.

    It must if the projection is torn inside the block, because the sides of the block do not enclose the
    pixels then.
    """
    points = move(apply_affine(target.affine, pixels_between(block, _POINTS)))
    finite = np.isfinite(points).all(axis=1)
    if not finite.any():
        return None, False
    x, y = points[finite].T
    if (turn := full_turn(source.crs)) is not None:
        x = x + nearest_turn(x, source.middle, turn)
    columns, rows = apply_affine(~source.affine, np.column_stack((x, y))).T
    edges, whole = [], False
    for along, side in ((rows, block.size.y), (columns, block.size.x)):
        span = float(along.max() - along.min())
        # Edges are curved between the points, and end between points if some cannot be projected.
        slack = _SLACK * (1 + span / side) + span / _POINTS
        if finite.all():
            steps = (np.diff(along.reshape(_POINTS, _POINTS), axis=axis) for axis in (0, 1))
            whole |= max(float(np.abs(step).max()) for step in steps) > span / 3
        whole |= bool(np.ptp(along[_SIDES[finite]]) < span - slack) if _SIDES[finite].any() else True
        edges += [math.floor(along.min() - slack), math.ceil(along.max() + slack)]
    window = Window(*edges).intersection(source.shape.window)
    return (None if window.is_empty else window), whole


def _shifted_affine(
    window: Window, source: GeoRef, target: GeoRef, block: Window, move: PointTransform
) -> Affine:
    """Return the affine of a window of the source, shifted to the longitudes in which GDAL looks for it."""
    affine = source.affine @ Affine.translation(window.left, window.top)
    turn = full_turn(source.crs)
    if turn is None:
        return affine
    x, _ = affine @ (window.size.x / 2, window.size.y / 2)
    # GDAL transforms a projection to longitudes from -180 to 180 but may keep those of a geographic CRS.
    center = 0.0
    if target.crs.is_geographic:
        middle = target.affine @ (block.left + block.size.x / 2, block.top + block.size.y / 2)
        center = float(move(np.array([middle]))[0, 0])
    shift = nearest_turn(x, center, turn)
    return Affine.translation(shift, 0) @ affine


@dataclass(frozen=True)
class BlockWarp:
    """Warp the pixels of a window of the source, an array (..., y, x). Small and picklable."""

    source: Affine
    source_crs: str
    target: Affine
    target_crs: str
    size: Size
    resampling: str
    fill: float
    whole: bool
    """Whether GDAL must use all pixels. By default it derives them from the sides of the block, which is not
    enough if a projection is torn inside the block. Using all pixels is several times slower."""

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the pixels of the block; pixels outside the source are masked."""
        from rasterio.crs import CRS
        from rasterio.enums import Resampling
        from rasterio.warp import reproject

        def warped(values: npt.NDArray[Any], fill: float) -> npt.NDArray[Any]:
            result = np.full(self.size.shape, fill, values.dtype)
            with WARNING_FILTERS:
                reproject(
                    np.ascontiguousarray(values),
                    result,
                    src_transform=self.source,
                    src_crs=CRS.from_wkt(self.source_crs),
                    src_nodata=fill,
                    dst_transform=self.target,
                    dst_crs=CRS.from_wkt(self.target_crs),
                    dst_nodata=fill,
                    resampling=Resampling[self.resampling],
                    **({"SOURCE_EXTRA": max(values.shape[-2:])} if self.whole else {}),
                )
            return result

        fill = values.dtype.type(self.fill)
        lead, shape = values.shape[:-2], values.shape[-2:]
        result = np.empty((*lead, *self.size.shape), values.dtype)
        if self.resampling == "nearest":
            # Warp the indices of pixels so that values of any dtype stay exact.
            count = math.prod(shape)
            counter = np.float32 if count <= FLOAT32_EXACT else np.float64
            indices = np.arange(count, dtype=counter).reshape(shape)
            unmasked_index = None
            for step in np.ndindex(*lead):
                plane = values[step]
                masked = (plane == fill) | (plane != plane)
                if masked.any():  # between two equally near pixels, GDAL prefers one that is not masked
                    index = warped(np.where(masked, -1, indices), -1).astype(np.intp)
                else:
                    if unmasked_index is None:
                        unmasked_index = warped(indices, -1).astype(np.intp)
                    index = unmasked_index
                result[step] = np.where(index < 0, fill, plane.reshape(-1)[index])
            return result
        dtype = np.dtype(_FLOATS.get(values.dtype.str[1:], "f8"))
        for step in np.ndindex(*lead):
            # GDAL masks values that equal nodata within the precision of float32; this does not apply to NaN.
            plain = np.where(values[step] == fill, math.nan, values[step].astype(dtype))
            interpolated = warped(plain.astype(dtype, copy=False), math.nan)
            if values.dtype.kind != "f":
                interpolated = np.rint(interpolated)
            result[step] = np.where(np.isnan(interpolated), fill, interpolated)
        return result
