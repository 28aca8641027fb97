"""Show rasters on a map whose tiles are computed when they are looked at."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from html import escape
from types import TracebackType
from typing import Any, Literal

from affine import Affine

from xee_tf.display import abbreviated
from xee_tf.errors import OptionError, shorten, warn
from xee_tf.exploring.chunk_cache import ChunkCache
from xee_tf.exploring.layers import read_layers
from xee_tf.exploring.levels import DEEPEST
from xee_tf.exploring.saving import SAVED_SIZE, read_extent, saved_page
from xee_tf.exploring.server import MapServer
from xee_tf.exploring.tiles import Tiles
from xee_tf.georef import Raster
from xee_tf.options import integer, one_of
from xee_tf.signals import interruptible
from xee_tf.storage import Location, PathLike, require_free

__all__ = ["Explorer", "explore"]

_SHOWN: set[Explorer] = set()
"""Maps that a notebook shows: nothing else may refer to them."""

_OSM = {
    "url": "https://tile.openstreetmap.org/{z}/{x}/{y}.png",
    "options": {
        "maxNativeZoom": 19,
        "attribution": '&copy; <a href="https://www.openstreetmap.org/copyright">OpenStreetMap</a>',
    },
}


def explore(
    image: Raster | Mapping[str, Raster],
    *,
    rgb: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    band: str | Mapping[str, str] | None = None,
    cmap: str | Mapping[str, str] | None = None,
    vmin: float | Sequence[float] | Mapping[str, Any] | None = None,
    vmax: float | Sequence[float] | Mapping[str, Any] | None = None,
    opacity: float | Mapping[str, float] | None = None,
    resampling: Literal["nearest", "bilinear"] | Mapping[str, Any] | None = None,
    basemap: Any = None,
    max_pixels: int = 1 << 18,
    cache_bytes: int = 1 << 28,
    height: int = 500,
    port: int = 0,
    url: str | None = None,
    crs: Any = None,
    transform: Affine | Sequence[float] | None = None,
) -> Explorer:
    """Show rasters on a map whose tiles are computed when they are looked at.

    A prediction is computed only where the map shows it, and once as long as it stays in the cache. Requests
    for tiles are computed together, with Dask's scheduler: threads, or a cluster. Nothing is computed before
    the map is shown, and nothing is written.

    Parameters
    ----------
    image : Dataset, DataArray or mapping of str to raster
        The raster, lazy or in memory, in any CRS; or several layers by name, the last one on top.
    rgb : sequence of str, optional
        Three bands to show as red, green and blue. Default: the bands named "red", "green" and "blue", if
        there are such. This option and the next six may also be mappings, from names of layers to values.
    band : str, optional
        The band to show. Default: the first one. If its attributes describe classes (``flag_values``,
        ``flag_meanings``, ``flag_colors``), as those of `class_map` do, it is shown in their colors, with
        their names in the legend.
    cmap : str, optional
        The color map of a band without classes: a name of matplotlib. Default: "viridis".
    vmin, vmax : float or sequence of float, optional
        The values of the first and the last color; for `rgb`, also one for each band. Default: the
        percentiles 2 and 98 of a sample: a few chunks in and around the middle, or of an overview.
    opacity : float, optional
        From 0 to 1. Default: 1. The map has a slider for it.
    resampling : {"nearest", "bilinear"}, optional
        How pixels are drawn. Default: "nearest" for classes and booleans, else "bilinear".
    basemap : str or xyzservices.TileProvider, optional
        What is below: "osm" (OpenStreetMap), an address such as ``"https://tiles.test/{z}/{x}/{y}.png"``, or
        a provider of xyzservices. Default: none; then nothing is fetched from the internet.
    max_pixels : int, default 262144
        Maximum number of pixels of a raster in one tile of 256 x 256 pixels of the screen. A view has about
        30 tiles. Where it is zoomed out further, the map shows the overviews of a raster that is read from a
        GeoTIFF with overviews; of other rasters, it shows only the outline, and asks to zoom in. Tiles need
        whole chunks: if these are large, more is computed.
    cache_bytes : int, default 268435456
        Maximum size of the chunks that are kept in memory, including the results of a model of which they are
        assembled.
    height : int, default 500
        Height of the map in a notebook, in pixels.
    port : int, default 0
        The port of the server of the map, on this machine's loopback address. 0 selects a free port.
    url : str, optional
        How the browser reaches the server, if it runs on another machine: "/proxy/{port}" with
        jupyter-server-proxy, or "/user/NAME/proxy/{port}" on a JupyterHub. Default: ``"http://127.0.0.1:{port}"``.
    crs, transform : optional
        The georeference of rasters without one; see `open_image` and `add_bands`.

    Returns
    -------
    Explorer
        The map, which notebooks show. In a script, open its `url` in a browser.

    Raises
    ------
    OptionError
        If an option is not valid, a raster has no such bands, or its pixels are too small for the map.
    GeoreferenceError
        If a raster has no georeference, or is outside the latitudes of the map.
    MissingExtraError
        If a color map is needed and matplotlib is not installed (extra ``map``).

    Examples
    --------
    >>> import numpy as np, xarray as xr, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.ones((300, 300), "float32"))},
    ...                 coords={"y": 5e6 - 30 * np.arange(300.0), "x": 7e5 + 30 * np.arange(300.0)},
    ...                 attrs={"crs": "EPSG:32633"}).chunk(100)
    >>> model = xee_tf.Model.from_function(
    ...     lambda tiles: np.concatenate([tiles, 1 - tiles], axis=-1), input_tile_size=100,
    ...     output_bands={"class": {"argmax": ["forest", "open"], "colors": ["#2f7d4f", "#d9cbb2"]}})
    >>> classes = model.predict_image(ds, merge=False)
    >>> with xee_tf.explore({"scene": ds, "classes": classes}, vmin={"scene": 0}) as shown:
    ...     shown
    <xee_tf.Explorer scene, classes at http://127.0.0.1:.../>
    """
    limit = integer(1)(max_pixels, "max_pixels")
    kept = integer(0)(cache_bytes, "cache_bytes")
    cache = ChunkCache(kept)
    height, port = integer(100, 10_000)(height, "height"), integer(0, 65535)(port, "port")
    background = _basemap(basemap)
    address = _address(url)
    options = {
        "rgb": rgb,
        "band": band,
        "cmap": cmap,
        "vmin": vmin,
        "vmax": vmax,
        "opacity": opacity,
        "resampling": resampling,
    }
    tiles = [Tiles(layer, cache, limit) for layer in read_layers(image, crs, transform, options)]
    for each in tiles:
        if each.chunk_bytes > kept:
            warn(
                f"A chunk of {each.layer.name!r} has {each.chunk_bytes:,} bytes, more than cache_bytes="
                f"{kept:,}. It is computed again for every tile. Use smaller chunks, or raise cache_bytes."
            )
    config = {"basemap": background, "deepest": DEEPEST}
    server = MapServer(tiles, config, port)
    stack = ExitStack()
    stack.callback(cache.clear)
    stack.callback(server.close)
    names = tuple(each.layer.name for each in tiles)
    page = f"{address.format(port=server.port)}/{server.secret}/"
    return Explorer(names, page, height, server.problems, stack, partial(saved_page, tiles, config))


def _basemap(value: Any) -> dict[str, Any] | None:
    """Return the address of the tiles of the base map, and the options of Leaflet for it."""
    if value is None:
        return None
    if value == "osm":
        return _OSM
    if isinstance(value, str):
        if all(part in value for part in ("{z}", "{x}", "{y}")) and value.startswith(("https://", "http://")):
            return {"url": value, "options": {}}
    elif callable(build := getattr(value, "build_url", None)):  # of xyzservices
        options = {"attribution": value.get("html_attribution", value.get("attribution", ""))}
        if "max_zoom" in value:
            options["maxNativeZoom"] = value["max_zoom"]
        return {"url": build(), "options": options}
    raise OptionError(
        "basemap must be 'osm', an address such as 'https://tiles.test/{z}/{x}/{y}.png' or a provider of "
        f"xyzservices; got {shorten(repr(value))}."
    )


def _address(url: Any) -> str:
    """Return how the browser reaches the server, without a trailing slash; "{port}" is its port."""
    if url is None:
        return "http://127.0.0.1:{port}"
    try:
        is_address = isinstance(url, str) and bool(url.format(port=0))
    except (KeyError, IndexError, ValueError):
        is_address = False
    if not is_address:
        raise OptionError(f"url must be an address such as '/proxy/{{port}}'; got {shorten(repr(url))}.")
    return str(url).rstrip("/")


class Explorer(AbstractContextManager["Explorer"]):
    """A map of rasters, which notebooks show; see `explore`.

    It works until it is closed, or is garbage-collected without having been shown in a notebook.

    Parameters
    ----------
    layers : tuple of str
        Names of the layers.
    url : str
        The address of the map, with a secret.
    height : int
        Height in a notebook, in pixels.
    problems : mapping of str to str
        The last error of each layer that had one.
    stack : contextlib.ExitStack
        Resources to release when the map is closed.
    page : callable, optional
        Returns the page that `save` writes, from an extent and a size.

    Examples
    --------
    >>> Explorer(("scene", "classes"), "http://127.0.0.1:8600/secret/", 500, {}, ExitStack())
    <xee_tf.Explorer scene, classes at http://127.0.0.1:8600/secret/>
    """

    def __init__(
        self,
        layers: tuple[str, ...],
        url: str,
        height: int,
        problems: Mapping[str, str],
        stack: ExitStack,
        page: Callable[[tuple[float, float, float, float] | None, int | None], str] | None = None,
    ) -> None:
        self.layers, self.url, self.problems = layers, url, problems
        self._height, self._page = height, page
        # Also closes a map that is garbage-collected, or is still open when the process ends.
        self._close = weakref.finalize(self, stack.close)

    def __repr__(self) -> str:
        state = f"at {self.url}" if self._close.alive else "(closed)"
        lines = [f"<xee_tf.Explorer {abbreviated(self.layers)} {state}>"]
        return "\n".join([*lines, *(f"  {name}: {text}" for name, text in self.problems.items())])

    def _repr_html_(self) -> str:
        if not self._close.alive:
            return f"<p>{escape(repr(self))}</p>"
        _SHOWN.add(self)
        return (
            f'<iframe src="{escape(self.url)}" title="Map of {escape(abbreviated(self.layers))}" '
            f'style="width:100%;height:{self._height}px;border:1px solid #8888;box-sizing:border-box" '
            'allowfullscreen=""></iframe>'
        )

    @interruptible()
    def save(
        self,
        path: PathLike,
        *,
        bounds: Sequence[float] | None = None,
        size: int | None = None,
        if_exists: Literal["error", "overwrite"] = "error",
        storage_options: Mapping[str, Any] | None = None,
    ) -> Location:
        """Write the map to one HTML file, which opens without a server.

        The page has a picture of each layer, with the legends, the switches and the opacities of the map.
        Rasters, and the results of models, are computed for the pictures. Nothing is fetched from the
        internet unless the map has a base map.

        Parameters
        ----------
        path : str or path-like
            A local path or an fsspec URL that ends with ``.html``. The file appears when it is complete.
        bounds : sequence of float, optional
            West, south, east and north of what is saved, in degrees. Default: all of each layer.
        size : int, optional
            The longer side of the pictures in pixels, from 64 to 8192. Default: 2048, or less for small
            rasters: twice their size.
        if_exists : {"error", "overwrite"}, default "error"
            Whether an existing file may be replaced.
        storage_options : mapping of str to object, optional
            Options for fsspec.

        Returns
        -------
        Location
            The file.

        Raises
        ------
        OptionError
            If a layer has more pixels than `max_pixels` of `explore` allows for a picture: choose a smaller
            extent or a larger size. If an option is not valid, or the map is closed.
        DestinationExistsError
            If the file exists and ``if_exists="error"``.

        Examples
        --------
        >>> import numpy as np, tempfile, xarray as xr, xee_tf
        >>> attrs = {"flag_values": [1, 2], "flag_meanings": "forest open", "crs": "EPSG:32633"}
        >>> coords = {"y": 5e6 - 30 * np.arange(300.0), "x": 7e5 + 30 * np.arange(300.0)}
        >>> classes = xr.DataArray(np.ones((300, 300), "uint8"), coords, ("y", "x"), attrs=attrs)
        >>> with xee_tf.explore(classes) as shown:
        ...     shown.save(tempfile.mkdtemp() + "/map.html", size=512).name
        'map.html'
        """
        location = Location.of(path, storage_options)
        if not location.name.lower().endswith((".html", ".htm")):
            raise OptionError(f"path must be the name of an HTML file, such as map.html; got {location}.")
        one_of("if_exists", if_exists, ("error", "overwrite"))
        extent, pixels = read_extent(bounds), None if size is None else integer(*SAVED_SIZE)(size, "size")
        if self._page is None or not self._close.alive:
            raise OptionError("The map is closed: save it before close(), or make it again with explore.")
        require_free(location, if_exists)
        location.write_bytes(self._page(extent, pixels).encode())
        return location

    def close(self) -> None:
        """Stop the server of the map, and free its memory.

        Examples
        --------
        >>> shown = Explorer(("scene",), "http://127.0.0.1:8600/secret/", 500, {}, ExitStack())
        >>> shown.close()
        >>> shown
        <xee_tf.Explorer scene (closed)>
        """
        self._close()
        _SHOWN.discard(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
