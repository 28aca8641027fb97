"""Compute the tiles of a layer in Web Mercator, from the chunks that they need."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray

from xee_tf.blocks import ChunkGrid, overlapping
from xee_tf.errors import GeoreferenceError, OptionError, XeeTFError
from xee_tf.exploring.chunk_cache import ChunkCache, NotWantedError, Planes, Results
from xee_tf.exploring.colors import BandColors, ClassColors, png
from xee_tf.exploring.layers import Layer, robust_limits
from xee_tf.geometry import Size, Window
from xee_tf.georef import (
    GeoRef,
    Points,
    apply_affine,
    block_warp,
    describe_crs,
    pixels_between,
    point_transformer,
    unwrap_outline,
)
from xee_tf.graph import chunk_grids, load_chunks

__all__ = ["DEEPEST", "TILE", "TileError", "Tiles", "tile_grid"]

TILE = 256
"""Side of a tile in pixels of the screen."""

DEEPEST = 22
"""The largest zoom."""

_WEB_MERCATOR, _LON_LAT = pyproj.CRS("EPSG:3857"), pyproj.CRS("EPSG:4326")
_HALF = math.pi * 6_378_137.0  # half the width of the world in Web Mercator
_NORTH = 85.0511  # degrees; the world is a square in Web Mercator
_AROUND = 361.0  # degrees; the outline of a wider raster cannot be drawn
_SAMPLE = 1 << 20  # pixels of the chunks from which the values of colors are estimated
_PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), (0.25, 0.75), (0.75, 0.25))
_STRIDED = 1 << 18  # pixels of these chunks that are used
_POINTS = 5  # points along each axis of a raster at which the sizes of tiles are compared
_UNEVEN = 4  # how many times as many pixels as these may a tile have elsewhere
_EMPTY = png(np.zeros((TILE, TILE, 4), np.uint8))


class TileError(XeeTFError):
    """A tile cannot be drawn at this zoom."""


def tile_grid(zoom: int, x: int, y: int) -> GeoRef:
    """Return the pixels of a tile of the usual scheme (XYZ, row 0 in the north).

    Examples
    --------
    >>> [round(end) for end in tile_grid(1, 1, 0).bounds]
    [0, 0, 20037508, 20037508]
    """
    side = 2 * _HALF / (1 << zoom)
    affine = Affine(side / TILE, 0, x * side - _HALF, 0, -side / TILE, _HALF - y * side)
    return GeoRef(_WEB_MERCATOR, affine, Size(x=TILE, y=TILE))


class Tiles:
    """The tiles of a layer.

    Parameters
    ----------
    layer : Layer
        The layer.
    cache : ChunkCache
        The chunks of all layers of the map.
    max_pixels : int
        Maximum number of pixels of the raster in a tile.

    Raises
    ------
    OptionError
        If tiles have more pixels at every zoom.
    GeoreferenceError
        If the raster is not within the latitudes of Web Mercator.
    """

    def __init__(self, layer: Layer, cache: ChunkCache, max_pixels: int) -> None:
        self.layer, self._cache, self._max_pixels = layer, cache, max_pixels
        self._move = point_transformer(_WEB_MERCATOR, layer.georef.crs)
        self._grid: ChunkGrid = chunk_grids(layer.arrays[:1])[0]
        self._outline = _outline(layer)
        self.least_zoom = self._least_zoom()
        self._colors: ClassColors | BandColors | None = None
        self._estimating = threading.Lock()

    @property
    def chunk_bytes(self) -> int:
        """Size of the largest chunk, with all bands."""
        sides = (max(end - start for start, end in pairwise(edges)) for edges in (self._grid.y, self._grid.x))
        return math.prod(sides) * sum(array.dtype.itemsize for array in self.layer.arrays)

    def describe(self) -> dict[str, Any]:
        """Return what the page must know before any pixel is read, for JSON."""
        west, south = self._outline.min(axis=0).tolist()
        east, north = self._outline.max(axis=0).tolist()
        return {
            "name": self.layer.name,
            "opacity": self.layer.opacity,
            "least_zoom": self.least_zoom,
            "bounds": [[south, west], [north, east]],
            "outline": self._outline[:, ::-1].tolist(),
            "pixelated": self.layer.colors.resampling == "nearest",
        }

    def legend(self) -> dict[str, Any]:
        """Return the legend, for JSON; it may need a sample of the pixels."""
        return self._with_limits(lambda: True).legend()

    def tile(self, zoom: int, x: int, y: int, is_wanted: Callable[[], bool] = lambda: True) -> bytes:
        """Return a tile as a PNG image.

        Parameters
        ----------
        zoom, x, y : int
            The tile.
        is_wanted : callable
            Whether somebody waits for it; see `ChunkCache.get`.

        Raises
        ------
        TileError
            If it has too many pixels of the raster.
        """
        target = tile_grid(zoom, x, y)
        layer, block = self.layer, target.shape.window
        prepared = layer.colors
        found = block_warp(
            layer.georef, target, block, self._move, resampling=prepared.resampling, fill=prepared.fill
        )
        if found is None:
            return _EMPTY
        window, warp = found
        if zoom < self.least_zoom or window.size.pixels > _UNEVEN * self._max_pixels:
            raise TileError(
                f"Zoom in to see {layer.name!r}: the tile has {window.size.pixels:,} of its pixels."
            )
        planes = self._read(window, is_wanted)
        warped = warp(prepared.prepare(planes, layer.nodata))
        return png(self._with_limits(is_wanted).paint(warped))

    def _read(self, window: Window, is_wanted: Callable[[], bool]) -> Planes:
        """Return the pixels of a window of each band."""
        rows = overlapping(self._grid.y, window.top, window.bottom)
        columns = overlapping(self._grid.x, window.left, window.right)
        chunks = self._load(list(product(rows, columns)), is_wanted)
        planes = [np.empty(window.shape, array.dtype) for array in self.layer.arrays]
        for (iy, ix), values in chunks.items():
            chunk = self._grid.window(iy, ix)
            part = chunk.intersection(window)
            for plane, loaded in zip(planes, values, strict=True):
                plane[_within(part, window)] = loaded[_within(part, chunk)]
        return planes

    def _load(
        self, places: list[tuple[int, int]], is_wanted: Callable[[], bool]
    ) -> dict[tuple[int, int], Planes]:
        keys = [(id(self), *place) for place in places]
        found = self._cache.get(keys, self._load_chunks, is_wanted)
        return {(iy, ix): planes for (_, iy, ix), planes in found.items()}

    def _load_chunks(self, keys: Sequence[Any], results: Results) -> dict[Any, Planes]:
        """Load chunks of all bands together: a model predicts them with one call."""
        arrays = self.layer.arrays
        planes = range(len(arrays))
        chunks = [(plane, iy, ix) for plane in planes for _, iy, ix in keys]
        loaded = load_chunks(arrays, self.layer.bands, chunk_grids(arrays), chunks, results)
        return {(own, iy, ix): [loaded[plane, iy, ix] for plane in planes] for own, iy, ix in keys}

    def _with_limits(self, is_wanted: Callable[[], bool]) -> ClassColors | BandColors:
        """Return the colors; the first call estimates what is not given."""
        layer = self.layer
        with self._estimating:
            if self._colors is None:
                estimated = [(0.0, 1.0)] * len(layer.bands)
                if layer.needs_limits and isinstance(layer.colors, BandColors):
                    sample = layer.colors.prepare(self._sample(is_wanted), layer.nodata)
                    estimated = robust_limits(list(sample))
                limits = []
                for (low, high), (first, last) in zip(layer.limits, estimated, strict=True):
                    least = first if low is None else low
                    most = last if high is None else high
                    if not least < most:  # one of them is given, and outside of the sample
                        least, most = (least, least + 1) if high is None else (most - 1, most)
                    limits.append((least, most))
                self._colors = layer.with_limits(limits)
            return self._colors

    def _sample(self, is_wanted: Callable[[], bool]) -> Planes:
        """Return pixels of the chunk in the middle and of a few around it; some may fail, but not all."""
        shape = self.layer.georef.shape
        found: dict[tuple[int, int], Planes] = {}
        problem: Exception | None = None
        pixels = 0
        for down, across in _PLACES:
            y, x = int(shape.y * down), int(shape.x * across)
            place = (overlapping(self._grid.y, y, y + 1)[0], overlapping(self._grid.x, x, x + 1)[0])
            size = self._grid.window(*place).size.pixels
            if place in found or (found and pixels + size > _SAMPLE):
                continue
            try:
                found |= self._load([place], is_wanted)
                pixels += size
            except NotWantedError:
                raise
            except Exception as error:
                problem = error
        if problem is not None and not found:
            raise problem
        step = max(1, math.isqrt(pixels // _STRIDED))
        return [
            np.concatenate([planes[number][::step, ::step].reshape(-1) for planes in found.values()])[
                np.newaxis
            ]
            for number in range(len(self.layer.arrays))
        ]

    def _least_zoom(self) -> int:
        """Return the smallest zoom at which tiles have few enough pixels, in most of the raster."""
        georef = self.layer.georef
        if georef.shape.pixels <= self._max_pixels:
            return 0
        inside = 0.1 * np.array(georef.shape.xy) + 0.8 * pixels_between(georef.shape.window, _POINTS)
        points = apply_affine(georef.affine, inside)
        places = _finite(point_transformer(georef.crs, _WEB_MERCATOR)(points))
        places = places[(np.abs(places[:, 1]) < _HALF)]
        for zoom in range(DEEPEST, -1, -1):
            side = 2 * _HALF / (1 << zoom)
            tiles = np.floor((places * (1, -1) + _HALF) / side).astype(int).tolist()
            sizes = [self._pixels_in(tile_grid(zoom, x, y)) for x, y in tiles]
            # Not the largest: a tile across the sides of a global raster needs whole rows.
            pixels = int(np.quantile(sizes, 0.75)) if sizes else 0
            if pixels > self._max_pixels:
                if zoom == DEEPEST:
                    raise OptionError(
                        f"{self.layer.name!r} cannot be shown at any zoom: a tile of zoom {DEEPEST}, the "
                        f"deepest, has {pixels:,} of its pixels, and max_pixels is {self._max_pixels:,}. "
                        "Coarsen it, for example with ds.coarsen(x=8, y=8, boundary='trim').mean(), or raise "
                        "max_pixels."
                    )
                return zoom + 1
        return 0

    def _pixels_in(self, target: GeoRef) -> int:
        found = block_warp(
            self.layer.georef, target, target.shape.window, self._move, resampling="nearest", fill=0
        )
        return 0 if found is None else found[0].size.pixels


def _outline(layer: Layer) -> Points:
    """Return the outline of a raster in degrees, unwrapped."""
    georef = layer.georef
    right, bottom = georef.shape.xy
    along = np.linspace(0, 1, 33)
    corners = np.array([(0, 0), (right, 0), (right, bottom), (0, bottom), (0, 0)])
    edges = [start + along[:, np.newaxis] * (end - start) for start, end in pairwise(corners)]
    points = _finite(
        point_transformer(georef.crs, _LON_LAT)(apply_affine(georef.affine, np.concatenate(edges)))
    )
    points, around = unwrap_outline(points, 360.0) if len(points) else (points, False)
    if not len(points) or points[:, 1].min() >= _NORTH or points[:, 1].max() <= -_NORTH:
        raise GeoreferenceError(
            f"{layer.name!r} is not within the latitudes of the map, {-_NORTH:.0f} to {_NORTH:.0f} degrees. "
            f"Its bounds are {georef.bounds} in {describe_crs(georef.crs)}; check its georeference."
        )
    if around or np.ptp(points[:, 0]) > _AROUND:
        south, north = points[:, 1].min(), points[:, 1].max()
        if around:  # the raster contains a pole
            south, north = (south, 90) if north > 0 else (-90, north)
        points = np.array([(-180, north), (180, north), (180, south), (-180, south), (-180, north)], float)
    points[:, 1] = np.clip(points[:, 1], -_NORTH, _NORTH)
    return points


def _finite(points: Points) -> Points:
    kept: NDArray[np.float64] = points[np.isfinite(points).all(axis=1)]
    return kept


def _within(part: Window, whole: Window) -> tuple[slice, slice]:
    return (
        slice(part.top - whole.top, part.bottom - whole.top),
        slice(part.left - whole.left, part.right - whole.left),
    )
