"""Draw the tiles of a layer in Web Mercator, from the pixels that they need."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from xee_tf.errors import GeoreferenceError, XeeTFError
from xee_tf.exploring.chunk_cache import ChunkCache, NotWantedError, Planes
from xee_tf.exploring.colors import BandColors, ClassColors, png
from xee_tf.exploring.layers import Layer, robust_limits
from xee_tf.exploring.levels import TILE, Level, finite_points, read_levels, tile_grid
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

__all__ = ["TileError", "Tiles"]

_LON_LAT = pyproj.CRS("EPSG:4326")
_NORTH = 85.0511  # degrees; the world is a square in Web Mercator
_AROUND = 361.0  # degrees; the outline of a wider raster cannot be drawn
_SAMPLE = 1 << 20  # pixels of the chunks from which the values of colors are estimated
_PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), (0.25, 0.75), (0.75, 0.25))
_STRIDED = 1 << 18  # pixels of these chunks that are used
_UNEVEN = 4  # how many times as many pixels as most tiles may a tile have elsewhere
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
        found = self._level_for(zoom, target)
        if found is None:
            return _EMPTY
        level, window, warp = found
        return png(self._paint(level.read(window, is_wanted), warp, is_wanted))

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
