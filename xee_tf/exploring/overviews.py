"""Find the overviews of a raster that is read from a file with GDAL, and read them instead of the raster."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import rioxarray
from affine import Affine

from xee_tf.geometry import Size, Window
from xee_tf.georef import GeoRef, plane_array
from xee_tf.graph import ChunkedArray, StoredPart, chunk_grids, stored_parts

__all__ = ["find_overviews"]

# Private classes, by name: in versions in which these differ, maps have no overviews.
_LAZY = frozenset(
    {"CopyOnWriteArray", "ImplicitToExplicitIndexingAdapter", "LazilyIndexedArray", "MemoryCachedArray"}
)
_FILE = "RasterioArrayWrapper"


@dataclass(frozen=True)
class _Place:
    """Where the pixels of an array are in a file: the number of the band, and the first row and column."""

    file: Any
    band: int
    top: int
    left: int

    @property
    def size(self) -> Size:
        """The size of the file in pixels."""
        _, height, width = self.file.shape
        return Size(x=width, y=height)

    @property
    def origin(self) -> tuple[int, int, Size]:
        """What bands of one raster have in common."""
        return self.top, self.left, self.size

    @cached_property
    def factors(self) -> tuple[int, ...]:
        """How many times as large as those of the file the pixels of each overview are."""
        with self.file.manager.acquire_context() as file:
            return tuple(file.overviews(_number(self, file) + 1))


def find_overviews(
    arrays: Sequence[ChunkedArray], georef: GeoRef, sides: tuple[int, int]
) -> Iterator[tuple[list[ChunkedArray], GeoRef]]:
    """Yield the overviews of bands, the finest first, and where they are; no pixel is read.

    Nothing is yielded unless chunks are parts of files, whose values nothing has changed.

    Parameters
    ----------
    arrays : sequence of ChunkedArray
        The pixels of each band, (y, x).
    georef : GeoRef
        Their place.
    sides : (height, width)
        See `plane_array`.
    """
    places = _places(arrays)
    known = [place for place in places if place is not None]
    if len(known) < len(places) or len({(*each.origin, each.factors) for each in known}) != 1:
        return
    first, dtypes = known[0], [array.dtype for array in arrays]
    for level, factor in enumerate(first.factors):
        bands = [_open(place, level) for place in known]
        size = Size(x=bands[0].sizes["x"], y=bands[0].sizes["y"])
        across, down = first.size.x / size.x, first.size.y / size.y
        planes = [
            _scaled(place, plane_array(band, (), "y", "x", sides=sides))
            for place, band in zip(known, bands, strict=True)
        ]
        # The file was itself opened as an overview, for example.
        if round(across) != factor or [plane.dtype for plane in planes] != dtypes:
            return
        part = Window(
            *(math.floor(first.top / down), math.ceil((first.top + georef.shape.y) / down)),
            *(math.floor(first.left / across), math.ceil((first.left + georef.shape.x) / across)),
        ).intersection(size.window)
        affine = (
            georef.affine
            @ Affine.translation(-first.left, -first.top)
            @ Affine.scale(across, down)
            @ Affine.translation(part.left, part.top)
        )
        yield (
            [plane[part.top : part.bottom, part.left : part.right] for plane in planes],
            GeoRef(georef.crs, affine, part.size, georef.x_dim, georef.y_dim),
        )


def _places(arrays: Sequence[ChunkedArray]) -> list[_Place | None]:
    """Return where the pixels of arrays are; None if three chunks are not all parts of a file."""
    grid = chunk_grids(arrays[:1])[0]
    last_y, last_x = len(grid.y) - 2, len(grid.x) - 2
    chunks = list({(0, 0), (last_y // 2, last_x // 2), (last_y, last_x)})
    found = [
        {_place_of_chunk(part, grid.window(*at)) for part, at in zip(parts, chunks, strict=True)}
        for parts in stored_parts(arrays, chunks, _stored)
    ]
    return [each.pop() if len(each) == 1 else None for each in found]


def _place_of_chunk(part: StoredPart | None, chunk: Window) -> _Place | None:
    if part is None:
        return None
    band, rows, columns = part.axes
    if not isinstance(band, int) or isinstance(rows, int) or isinstance(columns, int):
        return None
    top, left = int(rows[0]) - chunk.top, int(columns[0]) - chunk.left
    expected = np.arange(chunk.top, chunk.bottom) + top, np.arange(chunk.left, chunk.right) + left
    if not all(map(np.array_equal, (rows, columns), expected)):  # every second row, or from south to north
        return None
    return _Place(part.source, band, top, left)


def _stored(value: Any) -> StoredPart | None:
    """Return the part of a file that a lazy array of xarray is."""
    keys = []
    while type(value).__name__ in _LAZY:
        if hasattr(value, "key"):
            keys.append(value.key.tuple)
        value = value.array
    if type(value).__name__ != _FILE or value.vrt_params is not None:
        return None
    part = StoredPart.whole(value, value.shape)
    for key in reversed(keys):
        part = part[key]
    return part


def _open(place: _Place, level: int) -> Any:
    """Return an overview of a band, which is masked if the band is."""
    with place.file.manager.acquire_context() as file, warnings.catch_warnings(action="ignore"):
        found: Any = rioxarray.open_rasterio(
            file.name,
            overview_level=level,
            masked=place.file.masked,
            parse_coordinates=False,
            cache=False,
            lock=False,
        )
        number = _number(place, file)
    band_dim, *_ = found.dims
    return found.isel({band_dim: number}).drop_vars(list(found.coords))


def _number(place: _Place, file: Any) -> int:
    """Return the number of a band in its file, of which rioxarray may show only this band."""
    return int(getattr(file, "_bidx", place.band))


def _scaled(place: _Place, values: Any) -> Any:
    """Scale an overview like the band: GDAL does not tell the scale of overviews."""
    if not place.file.mask_and_scale:
        return values
    with place.file.manager.acquire_context() as file:
        return values * file.scales[place.band] + file.offsets[place.band]
