"""Draw the tiles of a layer in Web Mercator, from the pixels that they need."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray

from xee_tf.errors import GeoreferenceError, XeeTFError
from xee_tf.exploring.chunk_cache import ChunkCache, NotWantedError, Planes
from xee_tf.exploring.colors import BandColors, ClassColors, png
from xee_tf.exploring.layers import Layer, robust_limits
from xee_tf.exploring.levels import HALF, TILE, Level, finite_points, read_levels, tile_grid
from xee_tf.geometry import Window
from xee_tf.georef import (
    BlockWarp,
    GeoRef,
    Points,
    apply_affine,
    describe_crs,
    point_transformer,
    unwrap_outline,
)

__all__ = ["NORTH", "TileError", "Tiles"]

_LON_LAT = pyproj.CRS("EPSG:4326")
NORTH = 85.0511
"""Northern end of the map in degrees: the world is a square in Web Mercator."""

_AROUND = 361.0  # degrees; the outline of a wider raster cannot be drawn
_SAMPLE = 1 << 20  # pixels of the chunks from which the values of colors are estimated
_PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), (0.25, 0.75), (0.75, 0.25))
_STRIDED = 1 << 18  # pixels of these chunks that are used
_UNEVEN = 4  # how many times as many pixels as most tiles may a tile have elsewhere
_BLOCK = 512  # side of the parts of a picture that are drawn one after another
_EMPTY = png(np.zeros((TILE, TILE, 4), np.uint8))


class TileError(XeeTFError):
    """A tile cannot be drawn at this zoom."""


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
        self.layer, self._max_pixels = layer, max_pixels
        self._outline = _outline(layer)
        self._levels = read_levels(layer, cache, max_pixels)
        self._colors: ClassColors | BandColors | None = None
        self._estimating = threading.Lock()

    @property
    def least_zoom(self) -> int:
        """The smallest zoom at which the layer can be drawn."""
        return min(level.least_zoom for level in self._levels)

    @property
    def chunk_bytes(self) -> int:
        """Size of the largest chunk of the raster, with all bands."""
        return self._levels[0].chunk_bytes

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """West, south, east and north of the layer, in degrees."""
        (west, south), (east, north) = self._outline.min(axis=0), self._outline.max(axis=0)
        return float(west), float(south), float(east), float(north)

    def describe(self) -> dict[str, Any]:
        """Return what the page must know before any pixel is read, for JSON."""
        west, south, east, north = self.extent
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
        found = self._level_for(zoom, target)
        if found is None:
            return _EMPTY
        level, window, warp = found
        return png(self._paint(level.read(window, is_wanted), warp, is_wanted))

    def picture(self, target: GeoRef) -> NDArray[np.uint8]:
        """Return a picture of any size, as pixels (y, x, 4); see `pixels_in`.

        Parameters
        ----------
        target : GeoRef
            The pixels in Web Mercator, which may be beyond 180 degrees.
        """
        level = self._picture_level(target)[0]
        found = np.zeros((*target.shape.shape, 4), np.uint8)
        for block, shifted in _blocks(target, _BLOCK):
            if (needed := level.warp(shifted, block)) is not None:
                window, warp = needed
                pixels = self._paint(level.read(window, lambda: True), warp, lambda: True)
                found[block.top : block.bottom, block.left : block.right] = pixels
        return found

    def pixels_in(self, target: GeoRef) -> tuple[int, int]:
        """Return how many pixels of the raster or of an overview a picture needs, and how many it may."""
        return self._picture_level(target)[1:]

    def _picture_level(self, target: GeoRef) -> tuple[Level, int, int]:
        limit = self._max_pixels * target.shape.pixels // TILE**2
        parts = list(_blocks(target, max(target.shape.xy)))
        for level in self._levels:
            pixels = sum(level.pixels_in(shifted, part) for part, shifted in parts)
            if pixels <= limit:
                break
        return level, pixels, limit

    def _level_for(self, zoom: int, target: GeoRef) -> tuple[Level, Window, BlockWarp] | None:
        """Return the finest resolution at which a tile has few enough pixels, and those that it needs."""
        for level in self._levels:
            found = level.warp(target, target.shape.window)
            if found is None:
                return None
            window, warp = found
            if zoom >= level.least_zoom and window.size.pixels <= _UNEVEN * self._max_pixels:
                return level, window, warp
        raise TileError(
            f"Zoom in to see {self.layer.name!r}: the tile has {window.size.pixels:,} of its pixels."
        )

    def _paint(self, planes: Planes, warp: BlockWarp, is_wanted: Callable[[], bool]) -> NDArray[np.uint8]:
        layer = self.layer
        warped = warp(layer.colors.prepare(planes, layer.nodata))
        return self._with_limits(is_wanted).paint(warped)

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
        """Return pixels of the chunk in the middle and of a few around it; some may fail, but not all.

        They are those of the coarsest overview, if there is one.
        """
        level = self._levels[-1]
        shape = level.georef.shape
        found: dict[Window, Planes] = {}
        problem: Exception | None = None
        pixels = 0
        for down, across in _PLACES:
            chunk = level.chunk_at(int(shape.y * down), int(shape.x * across))
            if chunk in found or (found and pixels + chunk.size.pixels > _SAMPLE):
                continue
            try:
                found[chunk] = level.read(chunk, is_wanted)
                pixels += chunk.size.pixels
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


def _outline(layer: Layer) -> Points:
    """Return the outline of a raster in degrees, unwrapped."""
    georef = layer.georef
    right, bottom = georef.shape.xy
    along = np.linspace(0, 1, 33)
    corners = np.array([(0, 0), (right, 0), (right, bottom), (0, bottom), (0, 0)])
    edges = [start + along[:, np.newaxis] * (end - start) for start, end in pairwise(corners)]
    points = finite_points(
        point_transformer(georef.crs, _LON_LAT)(apply_affine(georef.affine, np.concatenate(edges)))
    )
    points, around = unwrap_outline(points, 360.0) if len(points) else (points, False)
    if not len(points) or points[:, 1].min() >= NORTH or points[:, 1].max() <= -NORTH:
        raise GeoreferenceError(
            f"{layer.name!r} is not within the latitudes of the map, {-NORTH:.0f} to {NORTH:.0f} degrees. "
            f"Its bounds are {georef.bounds} in {describe_crs(georef.crs)}; check its georeference."
        )
    if around or np.ptp(points[:, 0]) > _AROUND:
        south, north = points[:, 1].min(), points[:, 1].max()
        if around:  # the raster contains a pole
            south, north = (south, 90) if north > 0 else (-90, north)
        points = np.array([(-180, north), (180, north), (180, south), (-180, south), (-180, north)], float)
    points[:, 1] = np.clip(points[:, 1], -NORTH, NORTH)
    return points


def _blocks(target: GeoRef, side: int) -> Iterator[tuple[Window, GeoRef]]:
    """Yield blocks of a grid in Web Mercator, and the grid where it is within 180 degrees for this block."""
    (left, _, right, _), (width, height) = target.bounds, target.shape.xy
    turns = range(math.ceil(left / HALF / 2 - 0.5), math.ceil(right / HALF / 2 + 0.5))
    ends = [round(((2 * turn + 1) * HALF - left) / target.affine.a) for turn in turns]
    columns = sorted({*range(0, width, side), *(end for end in ends if 0 < end < width), width})
    rows = [*range(0, height, side), height]
    for (first, last), (top, bottom) in product(pairwise(columns), pairwise(rows)):
        turn = round((left + (first + last) / 2 * target.affine.a) / HALF / 2)
        shift = Affine.translation(-2 * HALF * turn, 0)
        yield Window(top, bottom, first, last), replace(target, affine=shift @ target.affine)
