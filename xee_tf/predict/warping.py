"""Chunked arrays warped from one grid to another, chunk by chunk.

odc-geo warps Dask arrays too, but finds the chunks that belong together in longitudes of -180..180: for
rasters of 0..360, and across 180 degrees, it finds none, and the result is empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import dask.array as da
import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine
from dask.array.core import normalize_chunks

from xee_tf.dtypes import FLOAT32_EXACT
from xee_tf.geometry import Size, Window
from xee_tf.georef import GeoRef
from xee_tf.georef.locks import WARNING_FILTERS
from xee_tf.georef.longitudes import nearest_turn
from xee_tf.georef.units import full_turn

__all__ = ["warp"]

_FLOATS = {"f2": "f4", "f4": "f4"}  # what others than float64 are interpolated as
_POINTS = 17  # along each side of a chunk, and in between, that are looked up in the source
_SIDES = np.pad(np.zeros((_POINTS - 2, _POINTS - 2), bool), 1, constant_values=True).ravel()
_SLACK = 3  # pixels more of the source, and as many again for each pixel of it that one of the target spans


def warp(array: Any, source: GeoRef, target: GeoRef, *, resampling: str, fill: float) -> Any:
    """A chunked array (..., y, x) on another grid; nothing is computed.

    Parameters
    ----------
    array : dask array
        Its last dimensions are those of `source`.
    source, target : GeoRef
        From which grid, and to which.
    resampling : {"nearest", "bilinear"}
    fill : number
        What marks masked pixels of `array`, and pixels of the result that lie outside of it.

    Returns
    -------
    dask array
        Of the same dtype, in chunks as large as those of `array`.
    """
    chunks = normalize_chunks(array.chunksize[-2:], shape=target.shape.shape)
    to_source = _to_source(source, target)
    rows = []
    for y, height in zip(np.cumsum((0, *chunks[0])).tolist(), chunks[0], strict=False):
        row = []
        for x, width in zip(np.cumsum((0, *chunks[1])).tolist(), chunks[1], strict=False):
            block = Window(y, y + height, x, x + width)
            needed, whole = to_source(block)
            row.append(_block(array, source, target, block, needed, whole, resampling, fill))
        rows.append(row)
    return da.block(rows)


def _block(
    array: Any,
    source: GeoRef,
    target: GeoRef,
    block: Window,
    needed: Window | None,
    whole: bool,
    resampling: str,
    fill: float,
) -> Any:
    if needed is None:
        shape = (*array.shape[:-2], *block.shape)
        return da.full(shape, fill, dtype=array.dtype, chunks=(*array.chunks[:-2], *block.shape))
    piece = array[(..., *needed.slices)].rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
    warping = _Warp(
        _moved(needed, source, target, block),
        source.crs.to_wkt(),
        target.affine @ Affine.translation(block.left, block.top),
        target.crs.to_wkt(),
        block.size,
        resampling,
        fill,
        whole,
    )
    return piece.map_blocks(
        warping,
        dtype=array.dtype,
        chunks=(*piece.chunks[:-2], (block.size.y,), (block.size.x,)),
        meta=np.empty((0,) * array.ndim, array.dtype),
    )


def _to_source(source: GeoRef, target: GeoRef) -> Any:
    """A function from a block of the target to the pixels of the source that it may show.

    And to whether its sides do not tell them: a projection is cut open inside of it.
    """
    transformer = pyproj.Transformer.from_crs(target.crs, source.crs, always_xy=True)
    turn = full_turn(source.crs)
    image, inverse = cast(Any, target.affine), cast(Any, ~source.affine)
    middle = (source.bounds[0] + source.bounds[2]) / 2

    def to_source(block: Window) -> tuple[Window | None, bool]:
        columns, rows = np.meshgrid(
            np.linspace(block.left, block.right, _POINTS), np.linspace(block.top, block.bottom, _POINTS)
        )
        x, y = transformer.transform(*image @ (columns.ravel(), rows.ravel()))
        found = np.isfinite(x) & np.isfinite(y)
        if not found.any():
            return None, False
        x, y = x[found], y[found]
        if turn is not None:
            x = x + nearest_turn(x, middle, turn)
        columns, rows = inverse @ (x, y)
        edges, whole = [], False
        for along, side, length in (
            (rows, block.size.y, source.shape.y),
            (columns, block.size.x, source.shape.x),
        ):
            span = float(along.max() - along.min())
            # Edges bend between the points, and end between them where some lie nowhere.
            slack = _SLACK * (1 + span / side) + span / _POINTS
            if found.all():
                steps = (np.diff(along.reshape(_POINTS, _POINTS), axis=axis) for axis in (0, 1))
                whole |= max(float(np.abs(step).max()) for step in steps) > span / 3
            whole |= bool(np.ptp(along[_SIDES[found]]) < span - slack) if _SIDES[found].any() else True
            edges += [
                max(math.floor(along.min() - slack), 0),
                min(math.ceil(along.max() + slack), length),
            ]
        window = Window(*edges)
        meets = window.bottom > window.top and window.right > window.left
        return (window if meets else None), whole

    return to_source


def _moved(needed: Window, source: GeoRef, target: GeoRef, block: Window) -> Affine:
    """The affine of a part of the source, at the turn of the globe where GDAL looks for it."""
    affine = source.affine @ Affine.translation(needed.left, needed.top)
    turn = full_turn(source.crs)
    if turn is None:
        return affine
    x, _ = affine @ (needed.size.x / 2, needed.size.y / 2)
    # From a projection longitudes come in -180..180; between geographic CRSs they may stay as they are.
    wanted = 0.0
    if target.crs.is_geographic:
        transformer = pyproj.Transformer.from_crs(target.crs, source.crs, always_xy=True)
        middle = target.affine @ (block.left + block.size.x / 2, block.top + block.size.y / 2)
        wanted = float(transformer.transform(*middle)[0])
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
