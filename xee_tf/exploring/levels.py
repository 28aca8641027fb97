"""The resolutions of a layer: its raster, and the overviews of the file that it is read from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pyproj
from affine import Affine

from xee_tf.blocks import ChunkGrid, overlapping
from xee_tf.errors import OptionError
from xee_tf.exploring.chunk_cache import ChunkCache, Planes, Results
from xee_tf.exploring.layers import CHUNK, Layer
from xee_tf.exploring.overviews import find_overviews
from xee_tf.geometry import Size, Window
from xee_tf.georef import (
    BlockWarp,
    GeoRef,
    Points,
    apply_affine,
    block_warp,
    pixels_between,
    point_transformer,
)
from xee_tf.graph import ChunkedArray, chunk_grids, load_chunks

__all__ = ["DEEPEST", "HALF", "TILE", "WEB_MERCATOR", "Level", "finite_points", "read_levels", "tile_grid"]

TILE = 256
"""Side of a tile in pixels of the screen."""

DEEPEST = 22
"""The largest zoom."""

WEB_MERCATOR = pyproj.CRS("EPSG:3857")
HALF = math.pi * 6_378_137.0
"""Half the width of the world in Web Mercator."""

_POINTS = 5  # points along each axis of a raster at which the sizes of tiles are compared


def tile_grid(zoom: int, x: int, y: int) -> GeoRef:
    """Return the pixels of a tile of the usual scheme (XYZ, row 0 in the north).

    Examples
    --------
    >>> [round(end) for end in tile_grid(1, 1, 0).bounds]
    [0, 0, 20037508, 20037508]
    """
    side = 2 * HALF / (1 << zoom)
    affine = Affine(side / TILE, 0, x * side - HALF, 0, -side / TILE, HALF - y * side)
    return GeoRef(WEB_MERCATOR, affine, Size(x=TILE, y=TILE))


class Level:
    """One resolution of a layer.

    Parameters
    ----------
    layer : Layer
        The layer.
    arrays : sequence of ChunkedArray
        The pixels of each band, (y, x), in the same chunks.
    georef : GeoRef
        Their place.
    cache : ChunkCache
        The chunks of all layers of the map.
    max_pixels : int
        Maximum number of pixels of the raster in a tile.

    Raises
    ------
    OptionError
        If tiles have more pixels at every zoom.
    """

    def __init__(
        self, layer: Layer, arrays: Sequence[ChunkedArray], georef: GeoRef, cache: ChunkCache, max_pixels: int
    ) -> None:
        self.georef = georef
        self._layer, self._arrays, self._cache = layer, arrays, cache
        self._grid: ChunkGrid = chunk_grids(arrays[:1])[0]
        self._move = point_transformer(WEB_MERCATOR, georef.crs)
        self.least_zoom = self._least_zoom(max_pixels)

    @property
    def chunk_bytes(self) -> int:
        """Size of the largest chunk, with all bands."""
        sides = (max(end - start for start, end in pairwise(edges)) for edges in (self._grid.y, self._grid.x))
        return math.prod(sides) * sum(array.dtype.itemsize for array in self._arrays)

    def warp(self, target: GeoRef, block: Window) -> tuple[Window, BlockWarp] | None:
        """Return the pixels that a block of a grid in Web Mercator needs; see `block_warp`."""
        colors = self._layer.colors
        return block_warp(
            self.georef, target, block, self._move, resampling=colors.resampling, fill=colors.fill
        )

    def pixels_in(self, target: GeoRef, block: Window) -> int:
        """Return the number of pixels that a block of a grid in Web Mercator needs."""
        found = self.warp(target, block)
        return 0 if found is None else found[0].size.pixels

    def read(self, window: Window, is_wanted: Callable[[], bool]) -> Planes:
        """Return the pixels of a window of each band."""
        rows = overlapping(self._grid.y, window.top, window.bottom)
        columns = overlapping(self._grid.x, window.left, window.right)
        chunks = self._load(list(product(rows, columns)), is_wanted)
        planes = [np.empty(window.shape, array.dtype) for array in self._arrays]
        for (iy, ix), values in chunks.items():
            chunk = self._grid.window(iy, ix)
            part = chunk.intersection(window)
            for plane, loaded in zip(planes, values, strict=True):
                plane[_within(part, window)] = loaded[_within(part, chunk)]
        return planes

    def chunk_at(self, y: int, x: int) -> Window:
        """Return the chunk that has a pixel."""
        return self._grid.window(
            overlapping(self._grid.y, y, y + 1)[0], overlapping(self._grid.x, x, x + 1)[0]
        )

    def _load(
        self, places: list[tuple[int, int]], is_wanted: Callable[[], bool]
    ) -> dict[tuple[int, int], Planes]:
        keys = [(id(self), *place) for place in places]
        found = self._cache.get(keys, self._load_chunks, is_wanted)
        return {(iy, ix): planes for (_, iy, ix), planes in found.items()}

    def _load_chunks(self, keys: Sequence[Any], results: Results) -> dict[Any, Planes]:
        """Load chunks of all bands together: a model predicts them with one call."""
        arrays = self._arrays
        planes = range(len(arrays))
        chunks = [(plane, iy, ix) for plane in planes for _, iy, ix in keys]
        loaded = load_chunks(arrays, self._layer.bands, chunk_grids(arrays), chunks, results)
        return {(own, iy, ix): [loaded[plane, iy, ix] for plane in planes] for own, iy, ix in keys}

    def _least_zoom(self, max_pixels: int) -> int:
        """Return the smallest zoom at which tiles have few enough pixels, in most of the raster."""
        georef = self.georef
        if georef.shape.pixels <= max_pixels:
            return 0
        inside = 0.1 * np.array(georef.shape.xy) + 0.8 * pixels_between(georef.shape.window, _POINTS)
        points = apply_affine(georef.affine, inside)
        places = finite_points(point_transformer(georef.crs, WEB_MERCATOR)(points))
        places = places[(np.abs(places[:, 1]) < HALF)]
        whole = Size(x=TILE, y=TILE).window
        for zoom in range(DEEPEST, -1, -1):
            side = 2 * HALF / (1 << zoom)
            tiles = np.floor((places * (1, -1) + HALF) / side).astype(int).tolist()
            sizes = [self.pixels_in(tile_grid(zoom, x, y), whole) for x, y in tiles]
            # Not the largest: a tile across the sides of a global raster needs whole rows.
            pixels = int(np.quantile(sizes, 0.75)) if sizes else 0
            if pixels > max_pixels:
                if zoom == DEEPEST:
                    raise OptionError(
                        f"{self._layer.name!r} cannot be shown at any zoom: a tile of zoom {DEEPEST}, the "
                        f"deepest, has {pixels:,} of its pixels, and max_pixels is {max_pixels:,}. "
                        "Coarsen it, for example with ds.coarsen(x=8, y=8, boundary='trim').mean(), or raise "
                        "max_pixels."
                    )
                return zoom + 1
        return 0


def read_levels(layer: Layer, cache: ChunkCache, max_pixels: int) -> list[Level]:
    """Return the resolutions of a layer, the finest first; see `Level`.

    Overviews are added as long as tiles at the smallest zooms have too many pixels.
    """
    levels = [Level(layer, layer.arrays, layer.georef, cache, max_pixels)]
    if levels[0].least_zoom and layer.is_stored:
        for arrays, georef in find_overviews(layer.arrays, layer.georef, CHUNK):
            levels.append(Level(layer, arrays, georef, cache, max_pixels))
            if not levels[-1].least_zoom:
                break
    return levels


def finite_points(points: Points) -> Points:
    """Return the points that could be transformed."""
    kept: Points = points[np.isfinite(points).all(axis=1)]
    return kept


def _within(part: Window, whole: Window) -> tuple[slice, slice]:
    return (
        slice(part.top - whole.top, part.bottom - whole.top),
        slice(part.left - whole.left, part.right - whole.left),
    )
