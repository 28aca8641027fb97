"""Warp chunked arrays from one grid to another, chunk by chunk.

odc-geo warps Dask arrays, too, but matches chunks in longitudes from -180 to 180. For rasters from 0 to 360
and across 180 degrees it finds no matching chunks, and the result is empty.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
from dask.array.core import normalize_chunks

from xee_tf.blocks import chunk_edges
from xee_tf.geometry import Window
from xee_tf.georef import GeoRef, block_warp, point_transformer

__all__ = ["warp"]


def warp(array: Any, source: GeoRef, target: GeoRef, *, resampling: str, fill: float) -> Any:
    """Warp a Dask array (..., y, x) lazily to another grid, with the same dtype and chunk size.

    `resampling` is "nearest" or "bilinear". `fill` is the value of masked pixels in `array` and the result.
    Pixels of the result outside the source are masked.
    """
    chunks = normalize_chunks(array.chunksize[-2:], shape=target.shape.shape)
    move = point_transformer(target.crs, source.crs)
    rows = []
    for top, bottom in pairwise(chunk_edges(chunks[0])):
        row = []
        for left, right in pairwise(chunk_edges(chunks[1])):
            block = Window(top, bottom, left, right)
            found = block_warp(source, target, block, move, resampling=resampling, fill=fill)
            if found is None:
                shape = (*array.shape[:-2], *block.shape)
                chunk = (*array.chunks[:-2], *block.shape)
                row.append(da.full(shape, fill, dtype=array.dtype, chunks=chunk))
                continue
            window, warping = found
            piece = array[(..., *window.slices)].rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
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
