"""Maps whose tiles are computed when they are looked at: tiles, chunks that are loaded, server, errors."""

from __future__ import annotations

import gc
import json
import math
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import from_bounds
from rasterio.warp import reproject, transform

import xee_tf
from tests.conftest import ROOT
from tests.rasters import raster
from xee_tf.exploring.chunk_cache import ChunkCache, NotWantedError
from xee_tf.exploring.colors import ClassColors

HALF = 20037508.342789244  # half the width of the world in Web Mercator
RNG = np.random.default_rng(3)
COLORS = {"forest": "#2f7d4f", "water": "#2e7ebf", "sand": "#d9cbb2"}


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def status_of(url: str) -> int:
    try:
        fetch(url)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def read_json(shown: xee_tf.Explorer, path: str) -> Any:
    return json.loads(fetch(shown.url + path))


def address(shown: xee_tf.Explorer, zoom: int, x: int, y: int, layer: int = 0) -> str:
    return f"{shown.url}tiles/{layer}/{zoom}/{x}/{y}.png"


def tile(shown: xee_tf.Explorer, zoom: int, x: int, y: int, layer: int = 0) -> np.ndarray:
    """Return the pixels of a tile as (y, x, 4)."""
    data = fetch(address(shown, zoom, x, y, layer))
    with MemoryFile(data) as file, pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        return file.open().read().transpose(1, 2, 0)


def tiles_at(zoom: int, lon: float, lat: float) -> tuple[int, int]:
    """Return the column and row of the tile at a place."""
    [x], [y] = transform("EPSG:4326", "EPSG:3857", [lon], [lat])
    side = 2 * HALF / 2**zoom
    return math.floor((x + HALF) / side), math.floor((HALF - y) / side)


def warped(
    values: np.ndarray, crs: Any, affine: Affine, at: tuple[int, int, int], method: str, nodata: float
) -> np.ndarray:
    """Warp a whole raster to a tile with rasterio."""
    zoom, x, y = at
    side = 2 * HALF / 2**zoom
    bounds = (x * side - HALF, HALF - (y + 1) * side, (x + 1) * side - HALF, HALF - y * side)
    result = np.full((256, 256), nodata, values.dtype)
    reproject(
        values,
        result,
        src_transform=affine,
        src_crs=crs,
        src_nodata=nodata,
        dst_transform=from_bounds(*bounds, 256, 256),
        dst_crs="EPSG:3857",
        dst_nodata=nodata,
        resampling=Resampling[method],
    )
    return result


def place_of(ds: xr.Dataset | xr.DataArray) -> tuple[float, float]:
    """Return the longitude and latitude of the middle."""
    left, bottom, right, top = ds.rio.bounds()
    lon, lat = transform(ds.rio.crs, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2])
    return lon[0], lat[0]


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (np.sin(x / 40) + np.cos(y / 25)).astype("f4")


def classes(height: int, width: int, chunk: int = 50) -> xr.DataArray:
    """Return a map of classes 1, 2 and 5 with some masked pixels, as `class_map` makes it."""
    numbers = np.array([1, 2, 5])[(smooth(height, width) * 1.4 + 1.5).clip(0, 2).astype(int)].astype("u1")
    found = raster({"class": numbers})["class"].rio.write_crs("EPSG:32633")
    names = dict(zip(COLORS, (1, 2, 5), strict=True))
    attrs = xee_tf.class_map(xr.Dataset(dict.fromkeys(names, found * 1.0)), values=names, colors=COLORS).attrs
    found[30:60, 20:50] = attrs["_FillValue"]
    return found.assign_attrs(attrs).chunk(chunk)


# -- Tiles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zoom", [9, 12, 15])
def test_tiles_of_classes_are_those_of_a_warp(zoom: int) -> None:
    image = classes(200, 300)
    x, y = tiles_at(zoom, *place_of(image))
    with xee_tf.explore(image) as shown:
        found = tile(shown, zoom, x, y)
    numbers = warped(image.values, image.rio.crs, image.rio.transform(), (zoom, x, y), "nearest", 255)
    expected = np.zeros((256, 256, 4), "u1")
    for color, number in zip(COLORS.values(), (1, 2, 5), strict=True):
        expected[numbers == number] = (*bytes.fromhex(color[1:]), 255)
    # At equal distances GDAL prefers pixels that are not masked, depending on the window.
    assert (found != expected).any(axis=-1).mean() < 0.002
    assert set(np.unique(found[..., 3])) <= {0, 255}
    if zoom == 12:
        assert {1, 2, 5, 255} == set(np.unique(numbers))


def test_tiles_of_three_bands_are_those_of_a_warp() -> None:
    bands = {name: smooth(120, 150) * factor for name, factor in (("B4", 1), ("B3", 2), ("B2", -1))}
    bands["B3"][40:70, 60:90] = np.nan  # masked in one band is masked in all
    ds = raster(bands).rio.write_crs("EPSG:32633")
    zoom = 13
    x, y = tiles_at(zoom, *place_of(ds))
    low = [-1, -2, -1.5]
    with xee_tf.explore(ds.chunk(64), rgb=["B4", "B3", "B2"], vmin=low, vmax=1.75) as shown:
        found = tile(shown, zoom, x, y)
    planes = [np.where(np.isnan(bands["B3"]), np.nan, bands[name]) for name in ("B4", "B3", "B2")]
    expected = [
        warped(plane, ds.rio.crs, ds.rio.transform(), (zoom, x, y), "bilinear", np.nan) for plane in planes
    ]
    masked = np.isnan(expected).any(axis=0)
    assert masked.any()
    assert not masked.all()
    np.testing.assert_array_equal(found[..., 3], np.where(masked, 0, 255))
    assert not found[masked].any()
    for number, (plane, least) in enumerate(zip(expected, low, strict=True)):
        level = np.clip((plane - least) / (1.75 - least), 0, 1)[~masked] * 255
        assert np.abs(found[~masked][:, number] - level).max() <= 1


PLACES = {
    "longitudes": ("EPSG:4326", Affine(0.01, 0, 10, 0, -0.01, 50)),
    "ascending": ("EPSG:4326", Affine(0.01, 0, 10, 0, 0.01, 50)),
    "0-360": ("EPSG:4326", Affine(0.01, 0, 244, 0, -0.01, 50)),
    "across-180": ("EPSG:4326", Affine(0.01, 0, 179.2, 0, -0.01, 10)),
    "mercator": ("EPSG:3857", Affine(800, 0, 1e6, 0, -800, 6e6)),
    "sheared": ("EPSG:32633", Affine(700, 200, 5e5, 100, -700, 5e6)),
    "southern": ("EPSG:32733", Affine(700, 0, 5e5, 0, -700, 8e6)),
}


@pytest.mark.parametrize("name", PLACES)
def test_every_place(name: str) -> None:
    """The middle of the raster, a class of one block of pixels, is drawn at its longitude and latitude."""
    crs, affine = PLACES[name]
    values = np.zeros((120, 160), "u1")
    values[50:70, 70:90] = 1
    image = xr.DataArray(values, dims=("y", "x"), attrs={"flag_values": [1], "flag_meanings": "middle"})
    [lon], [lat] = transform(crs, "EPSG:4326", *([each] for each in affine @ (80, 60)))
    lon = (lon + 180) % 360 - 180
    zoom = 8
    x, y = tiles_at(zoom, lon, lat)
    with xee_tf.explore(image.chunk(50), crs=crs, transform=affine) as shown:
        page = fetch(shown.url).decode()
        found = tile(shown, zoom, x, y)
    [mx], [my] = transform("EPSG:4326", "EPSG:3857", [lon], [lat])
    side = 2 * HALF / 2**zoom
    column, row = ((mx + HALF) / side - x) * 256, ((HALF - my) / side - y) * 256
    assert found[int(row), int(column), 3] == 255
    assert 0.002 < (found[..., 3] > 0).mean() < 0.5
    config = json.loads(page.partition('type="application/json">')[2].partition("</script>")[0])
    [[south, west], [north, east]] = config["layers"][0]["bounds"]
    assert south < lat < north
    assert any(west < lon + turn < east for turn in (0, 360))
    assert east - west < 5


SIDE = 6371007.181 * math.pi  # of the sphere of MODIS
SINUSOIDAL = Affine(SIDE / 300, 0, -SIDE, 0, -SIDE / 300, SIDE / 2)


@pytest.mark.parametrize(
    ("crs", "affine", "shape", "bounds", "empty"),
    [
        ("EPSG:4326", Affine(0.5, 0, -0.25, 0, -0.5, 90), (360, 720), [[-85.1, -0.3], [85.1, 359.8]], None),
        ("EPSG:4326", Affine(0.5, 0, -180, 0, -0.5, 90), (360, 720), [[-85.1, -180], [85.1, 180]], None),
        ("SR-ORG:6974", SINUSOIDAL, (300, 600), [[-85.1, -180], [85.1, 180]], None),
        ("EPSG:3413", Affine(2e4, 0, -4e6, 0, -2e4, 4e6), (400, 400), [[40.9, -180], [85.1, 180]], 3),
        ("EPSG:3031", Affine(2e4, 0, -4e6, 0, -2e4, 4e6), (400, 400), [[-85.1, -180], [-41.0, 180]], 0),
    ],
)
def test_rasters_around_the_globe(
    crs: str, affine: Affine, shape: tuple[int, int], bounds: Any, empty: int | None
) -> None:
    """Every tile of a zoom is complete; those of another hemisphere are empty."""
    image = xr.DataArray(
        np.ones(shape, "u1"), dims=("y", "x"), attrs={"flag_values": [1], "flag_meanings": "a"}
    )
    with xee_tf.explore(image.chunk(100), crs=crs, transform=affine) as shown:
        config = json.loads(fetch(shown.url).decode().partition('json">')[2].partition("</script>")[0])
        np.testing.assert_allclose(config["layers"][0]["bounds"], bounds, atol=0.06)
        for x in range(4):
            drawn = [tile(shown, 2, x, y)[..., 3].mean() / 255 for y in range(4)]
            full = 3 - empty if empty is not None else None
            assert drawn[1] == drawn[2] == 1 if full is None else drawn[full] == 1
            assert empty is None or drawn[empty] == 0


def test_a_map_of_classes_that_was_decoded_to_floats() -> None:
    image = classes(80, 80)
    decoded = image.where(image != 255).assign_attrs(image.attrs)
    del decoded.attrs["_FillValue"]
    at = (12, *tiles_at(12, *place_of(image)))
    with xee_tf.explore({"numbers": image, "floats": decoded}) as shown:
        np.testing.assert_array_equal(tile(shown, *at), tile(shown, *at, layer=1))
        assert read_json(shown, "legends/0") == read_json(shown, "legends/1")


def test_classes_without_colors_get_different_ones() -> None:
    image = classes(60, 60)
    del image.attrs["flag_colors"]
    with xee_tf.explore(image) as shown:
        legend = read_json(shown, "legends/0")["classes"]
    assert [each["name"] for each in legend] == list(COLORS)
    assert len({each["color"] for each in legend}) == 3


def test_values_that_are_no_class_are_transparent() -> None:
    colors = ClassColors(np.array([3, 9]), ("a", "b"), np.array([[1, 2, 3], [4, 5, 6]], "u1"))
    for values in (np.array([[3, 9, 4, 0, 255]]), np.array([[3.0, 9, np.nan, -np.inf, 1e30]])):
        painted = colors.paint(colors.prepare([values], [(255,)]))
        assert painted.tolist() == [[[1, 2, 3, 255], [4, 5, 6, 255], *[[0, 0, 0, 0]] * 3]]


def test_default_values_of_colors_come_from_a_sample() -> None:
    pytest.importorskip("matplotlib")
    loads, array = counted(smooth(800, 800), 100)
    ds = raster({"a": np.zeros((800, 800), "f4")}).rio.write_crs("EPSG:32633")
    ds["a"] = ("y", "x"), array
    with xee_tf.explore({"b": ds, "<given>": ds}, vmax={"<given>": 100}, cmap="magma") as shown:
        legend = read_json(shown, "legends/0")
        assert len(loads) == 5  # of 64 chunks
        given = read_json(shown, "legends/1")
    corners = ((400, 400), (200, 200), (600, 600), (200, 600), (600, 200))
    sample = np.array([smooth(800, 800)[y : y + 100, x : x + 100] for y, x in corners])
    low, high = np.percentile(sample, (2, 98))
    assert legend["band"] == "a"
    assert [float(end) for end in legend["ends"]] == pytest.approx([low, high], rel=1e-3)
    assert legend["ramp"][0] in ("#000003", "#000004")  # matplotlib truncates
    assert given["ends"] == [legend["ends"][0], "100"]


# -- What is computed -----------------------------------------------------------------------------------


def counted(values: np.ndarray, chunk: int) -> tuple[list[tuple[int, int]], da.Array]:
    """Return a lazy array and the list of the chunks that it loads."""
    loads: list[tuple[int, int]] = []

    def load(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        place = tuple(start // chunk for start, _ in block_info[0]["array-location"])
        loads.append(place)
        return block

    return loads, da.from_array(values, chunks=chunk).map_blocks(load, dtype=values.dtype)


def counted_classes(size: int, chunk: int) -> tuple[list[tuple[int, int]], xr.DataArray]:
    image = classes(size, size)
    loads, array = counted(image.values, chunk)
    return loads, image.copy(data=array)


def test_only_what_the_view_needs_is_loaded_and_once() -> None:
    loads, image = counted_classes(1000, 100)
    zoom = 14
    x, y = tiles_at(zoom, *place_of(image))
    with xee_tf.explore(image) as shown:
        fetch(shown.url)
        read_json(shown, "legends/0")
        assert loads == []
        view = [(column, row) for column in range(x - 1, x + 2) for row in range(y - 1, y + 1)]
        threads = [threading.Thread(target=fetch, args=(address(shown, zoom, *at),)) for at in view]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = set(loads)
        assert len(loads) == len(seen)
        for at in view:  # again
            tile(shown, zoom, *at)
        tile(shown, zoom + 3, x * 8 + 3, y * 8 + 3)  # a part of the view
        assert len(loads) == len(seen)
    # A pixel has 9.5 m at this zoom and latitude is 45 degrees: a tile has about 57 pixels of 30 m.
    side = 2 * HALF / 2**zoom
    box = [(x - 1) * side - HALF, HALF - (y + 1) * side, (x + 2) * side - HALF, HALF - (y - 1) * side]
    left, bottom, right, top = rasterio.warp.transform_bounds("EPSG:3857", image.rio.crs, *box)
    columns, rows = (np.array([left, right]) - 7e5) / 3000, (5e6 - np.array([top, bottom])) / 3000
    margin = 0.1  # 10 pixels
    assert {row for row, _ in seen} <= set(range(int(rows[0] - margin), int(rows[1] + margin) + 1))
    assert {column for _, column in seen} <= set(
        range(int(columns[0] - margin), int(columns[1] + margin) + 1)
    )
    assert len(seen) >= 6


@pytest.mark.parametrize("overlap", [0, 8])
def test_a_prediction_calls_the_model_once_and_only_for_the_view(
    overlap: int, tmp_path: Any, small_blocks: None
) -> None:
    """All bands come from one call, and tiles whose margins reach into other chunks are predicted once."""
    log = tmp_path / "calls"  # functions of models are pickled

    def predict(tiles: np.ndarray) -> np.ndarray:
        with log.open("a") as file:
            file.writelines(f"{value}\n" for value in tiles[:, overlap, overlap, 0])
        return np.concatenate([tiles, 1 - tiles, tiles / 2], axis=-1)

    values = np.arange(512 * 512, dtype="f4").reshape(512, 512)
    ds = raster({"B4": values}).rio.write_crs("EPSG:32633").chunk(64)
    names = ["red", "green", "blue"]
    model = xee_tf.Model.from_function(
        predict, input_tile_size=32, input_overlap_size=overlap, output_bands=names
    )
    predicted = model.predict_image(ds, merge=False)
    x, y = tiles_at(15, *place_of(ds))
    with xee_tf.explore(predicted, vmin=-2, vmax=2) as shown:
        assert tile(shown, 15, x, y)[..., 3].all()
        sent = len(log.read_text().split())
        for column in (x, x - 3, x + 3):
            for row in (y, y - 2, y + 2):
                tile(shown, 15, column, row)
        again = log.read_text().split()
    assert 0 < sent <= 80  # of 256: four chunks of 2 x 4 tiles; with an overlap, also of the blocks around
    assert len(again) > sent
    assert len(again) == len(set(again))


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[ChunkCache]:
    """Return the caches of the maps that are made."""
    found: list[ChunkCache] = []

    class Cache(ChunkCache):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            found.append(self)

    monkeypatch.setattr("xee_tf.exploring.explorer.ChunkCache", Cache)
    return found


def test_memory_is_bounded(caches: list[ChunkCache]) -> None:
    loads, image = counted_classes(1000, 100)
    x, y = tiles_at(15, *place_of(image))
    with xee_tf.explore(image, cache_bytes=30_000) as shown:  # three chunks
        for column in (x - 8, x, x + 8, x - 8):
            tile(shown, 15, column, y)
            assert 0 < caches[0].nbytes <= 30_000
    assert len(loads) > len(set(loads))
    assert caches[0].nbytes == 0  # closed


def test_a_chunk_that_is_larger_than_the_cache_warns() -> None:
    with pytest.warns(UserWarning, match="A chunk of 'class' has 40,000 bytes, more than cache_bytes=30,000"):
        xee_tf.explore(classes(400, 400, 200), cache_bytes=30_000).close()


def test_zoomed_out_nothing_is_computed() -> None:
    loads, image = counted_classes(1000, 100)
    with xee_tf.explore(image, max_pixels=200 * 200) as shown:
        config = json.loads(fetch(shown.url).decode().partition('json">')[2].partition("</script>")[0])
        least = config["layers"][0]["least_zoom"]
        assert least == 13  # tiles of 256 x 13.5 m; at 12 they have about 230 x 230 pixels
        at = tiles_at(least - 1, *place_of(image))
        assert status_of(f"{shown.url}tiles/0/{least - 1}/{at[0]}/{at[1]}.png") == 404
        assert status_of(f"{shown.url}tiles/0/{least - 1}/0/0.png") == 200  # empty: no pixels there
        assert loads == []
        tile(shown, least, *tiles_at(least, *place_of(image)))
        assert 0 < len(loads) <= 9
    with xee_tf.explore(image, max_pixels=1000 * 1000) as shown:  # the whole raster
        tile(shown, 3, *tiles_at(3, *place_of(image)))
    assert len(loads) > 100


@contextmanager
def held_chunks(image: xr.DataArray) -> Iterator[tuple[xr.DataArray, threading.Event, list[int]]]:
    """Return a raster whose chunks wait until they may be loaded."""
    go, loads = threading.Event(), []

    def load(block: np.ndarray) -> np.ndarray:
        loads.append(1)
        go.wait(60)
        return block

    try:
        yield image.copy(data=image.data.map_blocks(load, meta=image.data._meta)), go, loads
    finally:
        go.set()


def test_tiles_that_are_not_awaited_any_more_are_not_computed(caches: list[ChunkCache]) -> None:
    with held_chunks(classes(400, 400, 400)) as (image, go, loads):
        at = tiles_at(14, *place_of(image))
        layers = {"a": image, "b": image, "c": image}
        with ExitStack() as stack, xee_tf.explore(layers) as shown:
            server, _, path = shown.url.removeprefix("http://").partition("/")
            host, port = server.split(":")
            clients = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(3)]
            for number, client in enumerate(clients):
                text = f"GET /{path}tiles/{number}/14/{at[0]}/{at[1]}.png HTTP/1.1\r\nHost: x\r\n\r\n"
                client.sendall(text.encode())
                wait_for(lambda number=number: len(caches[0]._waiting) == number + 1)
            assert loads == [1]
            clients[1].close()  # the browser shows another place
            go.set()
            assert clients[2].recv(12) == b"HTTP/1.1 200"
            assert clients[0].recv(12) == b"HTTP/1.1 200"
            assert loads == [1, 1]


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextmanager
def waiting_requests(cache: ChunkCache, load: Any, all_keys: list[list[str]]) -> Iterator[list[Any]]:
    """Hold the turn while threads request chunks; yield what they find, complete after the block."""
    found: list[Any] = [None] * len(all_keys)

    def request(number: int, keys: list[str]) -> None:
        try:
            found[number] = cache.get(keys, load)
        except RuntimeError as error:
            found[number] = str(error)

    threads = [threading.Thread(target=request, args=each) for each in enumerate(all_keys)]
    with cache._turn:
        for thread in threads:
            thread.start()
        wait_for(lambda: len(cache._waiting) == len(threads))
        yield found
    for thread in threads:
        thread.join(60)
    assert cache._waiting == []


def test_requests_that_wait_are_served_together() -> None:
    calls = []

    def load(keys: Any, _: Any) -> dict[str, list[np.ndarray]]:
        calls.append(sorted(keys))
        return {key: [np.full(2, ord(key))] for key in keys}

    cache = ChunkCache(1)  # which keeps only one
    with waiting_requests(cache, load, [["a", "b"], ["b", "c"], ["c"]]) as found:
        pass
    assert calls == [["a", "b", "c"]]
    assert [sorted(each) for each in found] == [["a", "b"], ["b", "c"], ["c"]]
    assert all(planes[0][0] == ord(key) for each in found for key, planes in each.items())


def test_a_chunk_that_fails_fails_only_the_tiles_that_need_it() -> None:
    def load(keys: Any, _: Any) -> dict[str, list[np.ndarray]]:
        if "x" in keys:
            raise RuntimeError("no x")
        return {key: [np.zeros(2)] for key in keys}

    with waiting_requests(ChunkCache(1000), load, [["a", "b"], ["x", "b"], ["c"]]) as found:
        pass
    assert [found[0].keys(), found[1], found[2].keys()] == [{"a", "b"}, "no x", {"c"}]


def test_a_load_that_nobody_wants() -> None:
    cache = ChunkCache(1000)
    with pytest.raises(NotWantedError):
        cache.get(["a"], lambda *_: {}, lambda: False)
    assert sorted(cache.get(["a"], lambda keys, _: {key: [] for key in keys})) == ["a"]


def test_errors_are_shown_and_tried_again() -> None:
    broken = [True]

    def load(block: np.ndarray) -> np.ndarray:
        if broken:
            raise RuntimeError("the model has no memory </script>")
        return block

    image = classes(100, 100)
    image = image.copy(data=image.data.map_blocks(load, dtype=image.dtype))
    at = tiles_at(12, *place_of(image))
    with xee_tf.explore(image) as shown:
        assert "RuntimeError" not in repr(shown)
        assert status_of(f"{shown.url}tiles/0/12/{at[0]}/{at[1]}.png") == 500
        assert read_json(shown, "problems") == {"class": "RuntimeError: the model has no memory </script>"}
        assert "class: RuntimeError: the model has no memory" in repr(shown)
        broken.clear()
        assert tile(shown, 12, *at).any()


# -- The server and the object --------------------------------------------------------------------------


def test_other_addresses_are_not_found() -> None:
    with xee_tf.explore(classes(60, 60)) as shown:
        root = shown.url.rsplit("/", 2)[0]
        assert status_of(shown.url) == 200
        paths = ["", "tiles/0/1/0/0.png", "x/tiles/0/1/0/0.png", shown.url.split("/")[-2]]
        assert [status_of(f"{root}/{path}") for path in paths] == [404] * 4
        for path in (
            *("tiles/1/1/0/0.png", "tiles/0/1/2/0.png", "tiles/0/1/0/0", "tiles/-1/1/0/0.png"),
            *("tiles/0/23/0/0.png", "tiles/0/1/0/0.png/1", "tiles/0/1/²/0.png", "legends/9", "legends/0/1"),
            *("page.html", "../explorer.py", "leaflet/leaflet.js", "LICENSE.txt"),
        ):
            assert status_of(shown.url + urllib.request.quote(path)) == 404, path
        assert b"Leaflet 1.9" in fetch(f"{shown.url}leaflet.js")
        for name in ("leaflet.css", "map.js", "problems"):
            assert fetch(shown.url + name)


def test_the_page_fetches_nothing_from_elsewhere_and_escapes_names() -> None:
    name = "</script><script>alert(1)</script>"
    with xee_tf.explore({name: classes(60, 60)}) as shown:
        page = fetch(shown.url).decode()
        assert "alert" in page
        assert page.count("</script>") == 3
        assert "http" not in page + fetch(f"{shown.url}map.js").decode()
        assert "<script>" not in shown._repr_html_()
    with xee_tf.explore(classes(60, 60), basemap="osm") as shown:
        assert "https://tile.openstreetmap.org/{z}/{x}/{y}.png" in fetch(shown.url).decode()


def test_a_provider_of_xyzservices() -> None:
    xyzservices = pytest.importorskip("xyzservices")
    with xee_tf.explore(classes(60, 60), basemap=xyzservices.providers.Esri.WorldImagery) as shown:
        page = fetch(shown.url).decode()
    assert "World_Imagery/MapServer/tile/{z}/{y}/{x}" in page
    assert "Esri" in page


def test_a_map_ends_when_it_is_closed_or_collected() -> None:
    with xee_tf.explore(classes(60, 60)) as shown:
        assert repr(shown) == f"<xee_tf.Explorer class at {shown.url}>"
        assert shown.url.startswith("http://127.0.0.1:")
    assert repr(shown) == "<xee_tf.Explorer class (closed)>"
    assert "iframe" not in shown._repr_html_()
    shown.close()
    with pytest.raises(urllib.error.URLError):
        fetch(shown.url)
    for is_shown in (False, True):
        found = xee_tf.explore(classes(60, 60))
        url = found.url
        if is_shown:  # display(xee_tf.explore(...)): nothing else refers to it
            assert f'<iframe src="{url}"' in found._repr_html_()
        del found
        gc.collect()
        if is_shown:
            assert status_of(url) == 200
        else:
            with pytest.raises(urllib.error.URLError):
                fetch(url)
    before = threading.active_count()
    xee_tf.explore(classes(60, 60)).close()
    assert threading.active_count() <= before


def test_address_behind_a_proxy() -> None:
    with xee_tf.explore(classes(60, 60), url="/user/me/proxy/{port}/", height=300) as shown:
        port = int(shown.url.split("/")[4])
        assert shown.url.startswith(f"/user/me/proxy/{port}/")
        path = shown.url.removeprefix(f"/user/me/proxy/{port}")
        assert status_of(f"http://127.0.0.1:{port}{path}") == 200
        assert "height:300px" in shown._repr_html_()
        with pytest.raises(xee_tf.OptionError, match=f"cannot listen on port {port}"):
            xee_tf.explore(classes(60, 60), port=port)


def test_options_of_layers() -> None:
    ds = raster({"B4": smooth(60, 60), "B3": smooth(60, 60), "B2": smooth(60, 60)}).chunk(30)
    layers = {"scene": ds, "one": ds, "classes": classes(60, 60)}
    options = {"rgb": {"scene": ["B4", "B3", "B2"]}, "band": {"one": "B3"}, "opacity": {"classes": 0.5}}
    pytest.importorskip("matplotlib")
    with xee_tf.explore(layers, **options, cmap={"one": "RdYlGn"}) as shown:
        config = json.loads(fetch(shown.url).decode().partition('json">')[2].partition("</script>")[0])
        found = [(layer["name"], layer["opacity"], layer["pixelated"]) for layer in config["layers"]]
        assert found == [("scene", 1, False), ("one", 1, False), ("classes", 0.5, True)]
        assert read_json(shown, "legends/0") == {}
        assert read_json(shown, "legends/1")["band"] == "B3"
        assert [each["name"] for each in read_json(shown, "legends/2")["classes"]] == list(COLORS)


SCENE = raster({"B4": smooth(40, 40), "B3": smooth(40, 40)}).chunk(20)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (
            SCENE,
            {"band": "b4"},
            r"band names 'b4', which is no band of 'raster'; .*'B4', 'B3'.*Did you mean 'B4'",
        ),
        (SCENE, {"rgb": ["B4", "B3", "B2"]}, "rgb names 'B2', which is no band"),
        (SCENE, {"rgb": ["B4", "B3"]}, "rgb must be three names of bands.*'B4', 'B3'.*pass band="),
        (SCENE, {"rgb": "B4"}, "rgb must be three names"),
        (SCENE, {"rgb": ["B4", "B3", "B4"], "band": "B4"}, "Pass rgb= or band=, not both"),
        (SCENE, {"band": 4}, "band must be the name of a band; got 4"),
        (
            SCENE,
            {"band": {"scene": "B4"}},
            "band names the layer 'scene', but the map has the layers 'raster'",
        ),
        (SCENE, {"resampling": "cubic"}, "resampling must be 'nearest', 'bilinear' or None; got 'cubic'"),
        (SCENE, {"max_pixels": 0}, "max_pixels must be a whole number of at least 1"),
        (SCENE, {"cache_bytes": -1}, "cache_bytes must be"),
        (SCENE, {"height": 1}, "height must be"),
        (SCENE, {"port": 65536}, "port must be"),
        (SCENE, {"url": "{host}"}, "url must be an address such as '/proxy/{port}'; got '{host}'"),
        (SCENE, {"url": 5}, "url must be an address"),
        (SCENE, {"basemap": "https://tiles.test"}, "basemap must be 'osm'.*got 'https://tiles.test'"),
        (SCENE, {"basemap": 5}, "basemap must be 'osm'"),
        ({}, {}, "There is nothing to explore: the mapping of names to rasters is empty"),
        ({5: SCENE}, {}, "The name of a layer must be a string; got 5"),
        ("scene.tif", {}, "image must be a Dataset, a DataArray"),
        (xr.Dataset(), {}, "There is nothing to explore: the image has no bands"),
        (SCENE.expand_dims(time=2), {"band": "B4"}, r"'B4' has 2 steps along 'time'.*ds.isel\(time=0\)"),
        (SCENE.astype("c8"), {}, "Band 'B4' has dtype complex64, which has no colors"),
        (SCENE.drop_attrs(), {}, "CRS"),
        (SCENE.isel(x=0), {}, "two spatial dimensions"),
    ],
)
def test_errors_of_options(image: Any, options: dict[str, Any], message: str) -> None:
    before = threading.active_count()
    with pytest.raises(xee_tf.XeeTFError, match=message):
        xee_tf.explore(image, **options)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opacity": 2}, "opacity must be a number from 0 to 1; got 2"),
        ({"opacity": {"raster": "x"}}, r"opacity\['raster'\] must be a number"),
        ({"vmin": 3, "vmax": 3}, "vmin must be less than vmax; got 3.0 and 3.0"),
        ({"vmin": [1, 2]}, r"vmin must be a number; got \[1, 2\]"),
        ({"vmax": "high"}, "vmax must be a number; got 'high'"),
        ({"vmax": math.nan}, "vmax must be a number"),
        ({"cmap": "virids"}, "cmap must be the name of a color map.*got 'virids'. Did you mean 'viridis'"),
        ({"cmap": 5}, "cmap must be the name of a color map of matplotlib, such as 'viridis'.*got 5"),
    ],
)
def test_errors_of_colors(options: dict[str, Any], message: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(xee_tf.OptionError, match=message):
        xee_tf.explore(SCENE, **options)


def test_an_option_of_one_layer_of_several() -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(xee_tf.OptionError, match=r"no band of 'b'.*pass band=\{'a': \.\.\.\}"):
        xee_tf.explore({"a": SCENE, "b": SCENE[["B3"]]}, band="B4")


def test_rasters_that_no_zoom_can_show() -> None:
    image = classes(400, 400)
    tiny = Affine(1e-4, 0, 5e5, 0, -1e-4, 5e6)
    bare = image.drop_vars(["x", "y", "spatial_ref"])
    with pytest.raises(
        xee_tf.OptionError, match=r"cannot be shown at any zoom: a tile of zoom 22.*max_pixels"
    ):
        xee_tf.explore(bare, crs="EPSG:32633", transform=tiny, max_pixels=10_000)
    polar = Affine(10, 0, -2000, 0, -10, 2000)  # the pole is in the middle
    with pytest.raises(xee_tf.GeoreferenceError, match="not within the latitudes of the map, -85 to 85"):
        xee_tf.explore(bare, crs="EPSG:3413", transform=polar)


def test_matplotlib_is_needed_only_for_color_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    xee_tf.explore(classes(60, 60)).close()
    with pytest.raises(xee_tf.MissingExtraError, match=r'needs matplotlib, .*pip install "xee-tf\[map\]"'):
        xee_tf.explore(SCENE)


def test_code_of_the_page_runs(data_dir: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XEE_TF_DATA", str(data_dir))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "maps.md").read_text(), flags=re.DOTALL)
    before, after = "\n".join(blocks).split("shown  #")
    namespace: dict[str, Any] = {}
    exec(compile(before, "maps.md", "exec"), namespace)
    shown = namespace["shown"]
    place = 12, *tiles_at(12, *place_of(namespace["scene"]))
    assert len(np.unique(tile(shown, *place, layer=1).reshape(-1, 4), axis=0)) == 4
    assert len(np.unique(tile(shown, *place))) > 100
    exec(compile("shown  #" + after, "maps.md", "exec"), namespace)
    assert "closed" in repr(shown)
