"""Write a map to one HTML file, with a picture of each layer instead of tiles."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pyproj
from affine import Affine

from xee_tf.display import by
from xee_tf.errors import OptionError, shorten
from xee_tf.exploring.colors import png
from xee_tf.exploring.levels import HALF, WEB_MERCATOR
from xee_tf.exploring.tiles import NORTH, Tiles
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, point_transformer
from xee_tf.options import is_number

__all__ = ["SAVED_SIZE", "page_html", "picture_grid", "read_extent", "saved_page"]

SAVED_SIZE = (64, 8192)
"""Least and largest size of the longer side of a picture, in pixels."""

_SIZE, _FINER = 2048, 2  # by default: the longer side, and pixels for each pixel of the raster along a side

Extent = tuple[float, float, float, float]
"""West, south, east and north, in degrees."""

_LON_LAT = pyproj.CRS("EPSG:4326")
_DIGITS = 6  # of degrees in errors: 0.1 m
_LINK, _SCRIPT = '<link rel="stylesheet" href="{}">', '<script src="{}"></script>'


def page_html(config: Mapping[str, Any]) -> str:
    """Return the page of a map.

    Parameters
    ----------
    config : mapping
        What the page must know, for JSON.
    """
    text = json.dumps(config).replace("<", "\\u003c")  # which could end the script
    page = (files("xee_tf.exploring") / "page" / "page.html").read_text("utf-8")
    return page.replace("CONFIG", text)


def saved_page(
    layers: Sequence[Tiles], config: Mapping[str, Any], extent: Extent | None, size: int | None
) -> str:
    """Return a page that needs no server: it contains Leaflet, and a picture of each layer.

    Parameters
    ----------
    layers : sequence of Tiles
        The layers.
    config : mapping
        What the page must know, in addition to the layers.
    extent : Extent, optional
        Where; by default, all of each layer.
    size : int, optional
        The longer side of the pictures, in pixels; by default, see `_grid`.

    Raises
    ------
    OptionError
        If no layer is there, or one has too many pixels for a picture.
    """
    grids = {layer: _grid(layer, shown, size) for layer in layers if (shown := _shared(layer.extent, extent))}
    if not grids:
        held = "; ".join(f"{layer.layer.name!r} is in {_text(layer.extent)}" for layer in layers)
        raise OptionError(
            f"bounds={_text(extent)} has no part of a layer: {held} (west, south, east, north)."
        )
    for layer, grid in grids.items():  # before anything is computed
        _check(layer, grid)
    described = [
        {**layer.describe(), **_picture(layer, grid), "least_zoom": 0, "legend": layer.legend()}
        for layer, grid in grids.items()
    ]
    page = page_html({**config, "layers": described})
    folder = files("xee_tf.exploring")
    text = {
        name: (folder / name).read_text("utf-8") for name in ("leaflet/leaflet.css", "leaflet/LICENSE.txt")
    }
    page = page.replace(_LINK.format("leaflet.css"), f"<style>{text['leaflet/leaflet.css']}</style>")
    for name in ("leaflet/leaflet.js", "page/map.js"):
        script = (folder / name).read_text("utf-8")
        page = page.replace(_SCRIPT.format(name.partition("/")[2]), f"<script>{script}</script>")
    return f"{page}<!-- Leaflet:\n{text['leaflet/LICENSE.txt']}-->\n"


def read_extent(bounds: Any) -> Extent | None:
    """Check the option `bounds`.

    Raises
    ------
    OptionError
        If it is no extent.
    """
    if bounds is None:
        return None
    given = list(bounds) if isinstance(bounds, Sequence | np.ndarray) and not isinstance(bounds, str) else []
    if len(given) == 4 and all(is_number(each) and math.isfinite(each) for each in given):
        west, south, east, north = map(float, given)
        if west < east <= west + 360 and -90 <= south < north <= 90:
            return west, max(south, -NORTH), east, min(north, NORTH)
    raise OptionError(
        "bounds must be west, south, east and north in degrees, such as (8.5, 47.2, 9.1, 47.6); got "
        f"{shorten(repr(bounds))}."
    )


def picture_grid(extent: Extent, size: int) -> GeoRef:
    """Return the pixels of a picture, whose longer side has `size` pixels.

    Examples
    --------
    >>> picture_grid((-180, 0, 180, 66.51326), 512).shape
    Size(x=512, y=128)
    """
    west, south, east, north = extent
    # Not with pyproj, which changes longitudes beyond 180.
    left, right = (lon / 180 * HALF for lon in (west, east))
    [_, bottom], [_, top] = point_transformer(_LON_LAT, WEB_MERCATOR)(
        np.array([(0, south), (0, north)], float)
    )
    side = max(right - left, top - bottom) / size
    shape = Size(x=max(1, round((right - left) / side)), y=max(1, round((top - bottom) / side)))
    return GeoRef(WEB_MERCATOR, Affine(side, 0, left, 0, -side, top), shape)


def _grid(layer: Tiles, extent: Extent, size: int | None) -> GeoRef:
    """Return the pixels of the picture of a layer: by default, not many more than the layer has."""
    grid = picture_grid(extent, _SIZE if size is None else size)
    if size is not None:
        return grid
    share = _FINER * math.sqrt(layer.pixels_in(grid)[0] / grid.shape.pixels)
    return picture_grid(extent, min(_SIZE, max(SAVED_SIZE[0], math.ceil(share * _SIZE))))


def _extent(grid: GeoRef) -> Extent:
    left, bottom, right, top = grid.bounds
    [_, south], [_, north] = point_transformer(WEB_MERCATOR, _LON_LAT)(
        np.array([(0, bottom), (0, top)], float)
    )
    return left / HALF * 180, float(south), right / HALF * 180, float(north)


def _shared(layer: Extent, extent: Extent | None) -> Extent | None:
    """Return the part of an extent that a layer has, in the longitudes of the layer."""
    if extent is None:
        return layer
    for turn in (0, 360, -360):
        west, east = max(layer[0], extent[0] + turn), min(layer[2], extent[2] + turn)
        south, north = max(layer[1], extent[1]), min(layer[3], extent[3])
        if west < east and south < north:
            return west, south, east, north
    return None


def _picture(layer: Tiles, grid: GeoRef) -> dict[str, Any]:
    west, south, east, north = _extent(grid)
    data = base64.b64encode(png(layer.picture(grid))).decode()
    return {"image": f"data:image/png;base64,{data}", "bounds": [[south, west], [north, east]]}


def _check(layer: Tiles, grid: GeoRef) -> None:
    """Check that a layer has few enough pixels for a picture, like tiles that are zoomed out."""
    pixels, limit = layer.pixels_in(grid)
    if pixels <= limit:
        return
    size, share = max(grid.shape.xy), math.sqrt(limit / pixels)
    choices = ["raise max_pixels"]
    for _ in range(8 if limit else 0):
        share *= 0.9
        smaller = _part(grid, share)
        fewer, enough = layer.pixels_in(picture_grid(smaller, size))
        if fewer <= enough:
            choices.insert(0, f"choose a smaller extent, such as bounds={_text(smaller)}")
            break
    if limit and (larger := math.ceil(size / share)) <= SAVED_SIZE[1]:
        choices.insert(1, f"pass size={larger}")
    advice = ", or ".join(choices)
    raise OptionError(
        f"{layer.layer.name!r} has {pixels:,} pixels in {_text(_part(grid, 1))}, and a picture of "
        f"{by(*grid.shape.xy)} pixels shows at most {limit:,}: max_pixels of explore for each 256 × 256. "
        f"{advice[0].upper()}{advice[1:]}."
    )


def _part(grid: GeoRef, share: float) -> Extent:
    """Return the middle of a grid, with a share of each side, as an error shows it."""
    columns, rows = grid.shape.xy
    middle = Affine.translation(columns * (1 - share) / 2, rows * (1 - share) / 2) @ Affine.scale(share)
    west, south, east, north = _extent(replace(grid, affine=grid.affine @ middle))
    return round(west, _DIGITS), round(south, _DIGITS), round(east, _DIGITS), round(north, _DIGITS)


def _text(extent: Extent | None) -> str:
    return f"({', '.join(f'{each:.10g}' for each in extent or ())})"
