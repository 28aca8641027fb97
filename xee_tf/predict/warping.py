"""Chunked arrays warped from one grid to another, chunk by chunk.

odc-geo warps Dask arrays too, but finds the chunks that belong together in longitudes of -180..180: for
rasters of 0..360, and across 180 degrees, it finds none, and the result is empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from affine import Affine
from dask.array.core import normalize_chunks

from xee_tf.blocks import chunk_edges
from xee_tf.dtypes import FLOAT32_EXACT
from xee_tf.errors import WARNING_FILTERS
from xee_tf.geometry import Size, Window
from xee_tf.georef import (
    GeoRef,
    PointTransform,
    apply_affine,
    full_turn,
    nearest_turn,
    pixels_between,
    point_transformer,
)

__all__ = ["warp"]

_FLOATS = {"f2": "f4", "f4": "f4"}  # what others than float64 are interpolated as
_POINTS = 17  # along each side of a chunk, and in between, that are looked up in the source
_SIDES = np.pad(np.zeros((_POINTS - 2, _POINTS - 2), bool), 1, constant_values=True).ravel()
_SLACK = 3  # pixels more of the source, and as many again for each pixel of it that one of the target spans


def warp(array: Any, source: GeoRef, target: GeoRef, *, resampling: str, fill: float) -> Any:
    """A Dask array (..., y, x) on another grid, of the same dtype, in chunks as large; nothing is computed.

    `resampling` is "nearest" or "bilinear". `fill` marks masked pixels of `array`, and pixels of the result
    that lie outside of it.
    """
    chunks = normalize_chunks(array.chunksize[-2:], shape=target.shape.shape)
    move = point_transformer(target.crs, source.crs)
    rows = []
    for top, bottom in pairwise(chunk_edges(chunks[0])):
        row = []
        for left, right in pairwise(chunk_edges(chunks[1])):
            block = Window(top, bottom, left, right)
            needed, whole = _needed(source, target, block, move)
            if needed is None:
                shape = (*array.shape[:-2], *block.shape)
                chunk = (*array.chunks[:-2], *block.shape)
                row.append(da.full(shape, fill, dtype=array.dtype, chunks=chunk))
                continue
            piece = array[(..., *needed.slices)].rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
            warping = _Warp(
                _moved(needed, source, target, block, move),
                source.crs.to_wkt(),
                target.affine @ Affine.translation(block.left, block.top),
                target.crs.to_wkt(),
                block.size,
                resampling,
                fill,
                whole,
            )
            row.append(
                piece.map_blocks(
                    warping,
                    dtype=array.dtype,
                    chunks=(*piece.chunks[:-2], (block.size.y,), (block.size.x,)),
                    meta=np.empty((0,) * array.ndim, array.dtype),
                )
            )
        rows.append(row)
    return da.block(rows)


def _needed(
    source: GeoRef, target: GeoRef, block: Window, move: PointTransform
) -> tuple[Window | None, bool]:
    """The pixels of the source that a block of the target may show.

    And whether its sides do not tell them: a projection is cut open inside of it.
    """
    points = move(apply_affine(target.affine, pixels_between(block, _POINTS)))
    found = np.isfinite(points).all(axis=1)
    if not found.any():
        return None, False
    x, y = points[found].T
    if (turn := full_turn(source.crs)) is not None:
        x = x + nearest_turn(x, source.middle, turn)
    columns, rows = apply_affine(~source.affine, np.column_stack((x, y))).T
    edges, whole = [], False
    for along, side in ((rows, block.size.y), (columns, block.size.x)):
        span = float(along.max() - along.min())
        # Edges bend between the points, and end between them where some lie nowhere.
        slack = _SLACK * (1 + span / side) + span / _POINTS
        if found.all():
            steps = (np.diff(along.reshape(_POINTS, _POINTS), axis=axis) for axis in (0, 1))
            whole |= max(float(np.abs(step).max()) for step in steps) > span / 3
        whole |= bool(np.ptp(along[_SIDES[found]]) < span - slack) if _SIDES[found].any() else True
        edges += [math.floor(along.min() - slack), math.ceil(along.max() + slack)]
    window = Window(*edges).intersection(source.shape.window)
    return (None if window.is_empty else window), whole


def _moved(needed: Window, source: GeoRef, target: GeoRef, block: Window, move: PointTransform) -> Affine:
    """The affine of a part of the source, at the turn of the globe where GDAL looks for it."""
    affine = source.affine @ Affine.translation(needed.left, needed.top)
    turn = full_turn(source.crs)
    if turn is None:
        return affine
    x, _ = affine @ (needed.size.x / 2, needed.size.y / 2)
    # From a projection longitudes come in -180..180; between geographic CRSs they may stay as they are.
    wanted = 0.0
    if target.crs.is_geographic:
        middle = target.affine @ (block.left + block.size.x / 2, block.top + block.size.y / 2)
        wanted = float(move(np.array([middle]))[0, 0])
    shift = nearest_turn(x, wanted, turn)
    return Affine.translation(shift, 0) @ affine


@dataclass(frozen=True)
class _Warp:
    """The work of one chunk; small and picklable."""

    source: Affine
    source_crs: str
    target: Affine
    target_crs: str
    size: Size
    resampling: str
    fill: float
    whole: bool
    """Whether all pixels are needed. GDAL looks along the sides of the chunk for what it needs, and finds too
    little where a projection is cut open inside of it; to take all is several times slower."""

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
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
            # The pixels' numbers are warped, so that values of any type stay exact.
            count = math.prod(shape)
            counter = np.float32 if count <= FLOAT32_EXACT else np.float64
            numbers = np.arange(count, dtype=counter).reshape(shape)
            everywhere = None
            for step in np.ndindex(*lead):
                plane = values[step]
                masked = (plane == fill) | (plane != plane)
                if masked.any():  # GDAL must know, because it prefers a pixel that is not masked by a hair
                    found = warped(np.where(masked, -1, numbers), -1).astype(np.intp)
                else:
                    everywhere = warped(numbers, -1).astype(np.intp) if everywhere is None else everywhere
                    found = everywhere
                result[step] = np.where(found < 0, fill, plane.reshape(-1)[found])
            return result
        dtype = np.dtype(_FLOATS.get(values.dtype.str[1:], "f8"))
        for step in np.ndindex(*lead):
            # GDAL takes what differs from nodata by the rounding of a float32 for nodata, but not for NaN.
            plain = np.where(values[step] == fill, math.nan, values[step].astype(dtype))
            mixed = warped(plain.astype(dtype, copy=False), math.nan)
            if values.dtype.kind != "f":
                mixed = np.rint(mixed)
            result[step] = np.where(np.isnan(mixed), fill, mixed)
        return result
