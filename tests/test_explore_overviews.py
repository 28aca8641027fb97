"""Maps of files with overviews: which pixels are shown when one zooms out, and what is read for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from rasterio.enums import Resampling
from rioxarray._io import RasterioArrayWrapper

import xee_tf
from tests.rasters import raster
from tests.test_explore import place_of, read_json, smooth, status_of, tile, tiles_at, warped

WIDTH, HEIGHT = 1000, 790
CLASSES = {"flag_values": [1, 2, 5], "flag_meanings": "a b c", "flag_colors": "#ff0000 #00ff00 #0000ff"}
COLORS = {1: (255, 0, 0, 255), 2: (0, 255, 0, 255), 5: (0, 0, 255, 255), 0: (0, 0, 0, 0)}
LIMIT = 128 * 128  # pixels in a tile
FACTORS = (2, 4, 8)


def write(
    path: Path, values: np.ndarray, nodata: int, resampling: Resampling, scale: float = 1, names: Any = None
) -> Path:
    """Write a GeoTIFF with overviews of rasterio."""
    count, height, width = values.shape
    image = raster({"a": values[0]}).rio.write_crs("EPSG:32633")
    profile = {"driver": "GTiff", "width": width, "height": height, "count": count, "nodata": nodata}
    profile |= {"crs": image.rio.crs, "transform": image.rio.transform(), "dtype": values.dtype}
    with rasterio.open(path, "w", **profile, tiled=True, blockxsize=128, blockysize=128) as file:
        file.write(values)
        file.descriptions = names or [None] * count
        file.scales, file.offsets = (scale,) * count, (1.0 if scale != 1 else 0.0,) * count
        file.build_overviews(FACTORS, resampling)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write two maps of classes."""
    numbers = np.array([0, 1, 2, 5], "u1")[np.random.default_rng(1).integers(0, 4, (2, HEIGHT, WIDTH))]
    return write(tmp_path / "map.tif", numbers, 0, Resampling.nearest)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the width of the file or overview, and the number of pixels, of each read."""
    found: list[tuple[int, int]] = []
    original = RasterioArrayWrapper._getitem

    def getitem(self: RasterioArrayWrapper, key: Any) -> np.ndarray:
        values = original(self, key)
        found.append((self.shape[2], values.size))
        return values

    monkeypatch.setattr(RasterioArrayWrapper, "_getitem", getitem)
    return found


def classes_of(path: Path, **options: Any) -> xr.DataArray:
    image: Any = rioxarray.open_rasterio(path, **options)
    return image.isel(band=1).assign_attrs(CLASSES)


def painted(numbers: np.ndarray) -> np.ndarray:
    found = np.zeros((*numbers.shape, 4), "u1")
    for number, color in COLORS.items():
        found[numbers == number] = color
    return found


def overview(path: Path, level: int, at: tuple[int, int, int], band: int = 2) -> np.ndarray:
    """Warp an overview as rasterio reads it."""
    with rasterio.open(path, overview_level=level) as file:
        return warped(file.read(band), file.crs, file.transform, at, "nearest", 0)


@pytest.mark.parametrize("zoom", [13, 12, 5])
def test_small_zooms_show_the_overviews_of_the_file(path: Path, reads: list[Any], zoom: int) -> None:
    """A tile has about 115 x 115 pixels of 30 m at zoom 13, and half as many for each overview."""
    image = classes_of(path, chunks=128)
    at = (zoom, *tiles_at(zoom, *place_of(image)))
    with xee_tf.explore(image, max_pixels=LIMIT) as shown:
        assert reads == []
        found = tile(shown, *at)
        assert read_json(shown, "legends/0")["classes"][0]["name"] == "a"
    level = {13: 0, 12: 1}.get(zoom, 2)
    expected = painted(overview(path, level, at))
    assert (found != expected).any(axis=-1).mean() < 0.002
    assert expected.any()
    widths = {width for width, _ in reads}
    assert widths == {-(-WIDTH // FACTORS[level])}
    assert sum(count for _, count in reads) <= 4 * 2**14 + 4 * 256**2


def test_the_raster_itself_is_read_where_tiles_have_few_enough_pixels(path: Path, reads: list[Any]) -> None:
    image = classes_of(path, chunks=128)
    at = (15, *tiles_at(15, *place_of(image)))
    with xee_tf.explore(image, max_pixels=LIMIT) as shown:
        found = tile(shown, *at)
    with rasterio.open(path) as file:
        expected = painted(warped(file.read(2), file.crs, file.transform, at, "nearest", 0))
    assert (found != expected).any(axis=-1).mean() < 0.002
    assert {width for width, _ in reads} == {WIDTH}


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """Write three scaled bands with masked pixels."""
    values = (100 * smooth(HEIGHT, WIDTH)).round().astype("i2")
    values[200:300, 300:500] = -999
    bands = np.stack([values, values[::-1], values[:, ::-1]])
    return write(tmp_path / "scene.tif", bands, -999, Resampling.average, 0.01, ("red", "green", "blue"))


WAYS = {
    "chunks": lambda path: rioxarray.open_rasterio(path, chunks=256, mask_and_scale=True),
    "no chunks": lambda path: rioxarray.open_rasterio(path, mask_and_scale=True),
    "rechunked": lambda path: rioxarray.open_rasterio(path, chunks=128, mask_and_scale=True).chunk(
        x=300, y=200
    ),
    "variables": lambda path: rioxarray.open_rasterio(
        path, chunks=256, mask_and_scale=True, band_as_variable=True
    ).rename(band_1="red", band_2="green", band_3="blue"),
    "engine": lambda path: xr.open_dataset(path, engine="rasterio", chunks={}),
    "added": lambda path: xee_tf.add_bands(
        *(
            rioxarray.open_rasterio(path, chunks=256, mask_and_scale=True).isel(band=number).rename(name)
            for number, name in enumerate(("red", "green", "blue"))
        )
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_open_a_file(scaled: Path, reads: list[Any], way: str) -> None:
    """The values are masked and scaled like those of the raster, and each band has its own."""
    image = WAYS[way](scaled)
    with xee_tf.explore(image, rgb=["red", "green", "blue"], vmin=-1, vmax=3, max_pixels=LIMIT) as shown:
        at = (11, *tiles_at(11, *place_of(image)))
        found = tile(shown, *at)
    assert {width for width, _ in reads} == {125}
    with rasterio.open(scaled, overview_level=2) as file:
        stored = file.read()
        masked_in_any = (stored == -999).any(axis=0)
        planes = np.where(masked_in_any, np.nan, stored * 0.01 + 1)
        expected = np.stack(
            [warped(plane, file.crs, file.transform, at, "bilinear", np.nan) for plane in planes]
        )
    masked = np.isnan(expected).any(axis=0)
    np.testing.assert_array_equal(found[..., 3], np.where(masked, 0, 255))
    levels = np.clip((expected + 1) / 4, 0, 1)[:, ~masked] * 255
    assert np.abs(found[~masked][:, :3].T - levels).max() <= 1
    assert levels.std() > 20


def test_a_part_of_a_file(path: Path) -> None:
    image = classes_of(path, chunks=128).isel(x=slice(301, 900), y=slice(100, 677))
    at = (9, *tiles_at(9, *place_of(image)))
    with xee_tf.explore(image, max_pixels=LIMIT) as shown:
        found = tile(shown, *at)
    whole = painted(overview(path, 2, at))
    inside = found[..., 3] > 0
    assert 0.02 < inside.mean() < 0.6 * (whole[..., 3] > 0).mean()
    assert (found != whole)[inside].any(axis=-1).mean() < 0.01


def changed(path: Path) -> dict[str, Any]:
    image = classes_of(path, chunks=128)
    return {
        "changed": image.copy(data=image.data.map_blocks(lambda block: block // 2, dtype="u1")),
        "masked": image.where(image > 1, 0).assign_attrs(CLASSES),
        "coarser": image.isel(x=slice(None, None, 2), y=slice(None, None, 2)),
        "upside down": image.copy(data=image.data[::-1]),
        "in memory": image.compute(),
    }


@pytest.mark.parametrize("how", ["changed", "masked", "coarser", "upside down", "in memory"])
def test_values_that_are_not_those_of_the_file_have_no_overviews(
    path: Path, reads: list[Any], how: str
) -> None:
    image = changed(path)[how]
    reads.clear()
    with xee_tf.explore(image, max_pixels=LIMIT) as shown:
        x, y = tiles_at(10, *place_of(image))
        assert status_of(f"{shown.url}tiles/0/10/{x}/{y}.png") == 404
    assert reads == []


def test_a_file_without_overviews_and_one_that_is_an_overview(path: Path, tmp_path: Path) -> None:
    classes_of(path).compute().rio.to_raster(tmp_path / "bare.tif")
    for found in (
        rioxarray.open_rasterio(tmp_path / "bare.tif", chunks=128),
        rioxarray.open_rasterio(path, chunks=128, overview_level=0),
    ):
        image = found.isel(band=-1).assign_attrs(CLASSES)
        x, y = tiles_at(10, *place_of(image))
        with xee_tf.explore(image, max_pixels=LIMIT) as shown:
            assert status_of(f"{shown.url}tiles/0/10/{x}/{y}.png") == 404


def test_colors_of_a_file_with_overviews_come_from_the_coarsest(scaled: Path, reads: list[Any]) -> None:
    pytest.importorskip("matplotlib")
    image = rioxarray.open_rasterio(scaled, chunks=128).isel(band=0)
    with xee_tf.explore(image, max_pixels=LIMIT) as shown:
        ends = [float(end) for end in read_json(shown, "legends/0")["ends"]]
    with rasterio.open(scaled, overview_level=2) as file:
        values = file.read(1, masked=True).compressed()
    assert ends == pytest.approx(np.percentile(values, (2, 98)).tolist(), rel=1e-3)
    assert {width for width, _ in reads} == {125}


def test_a_prediction_that_was_written_has_overviews(path: Path, tmp_path: Path, reads: list[Any]) -> None:
    image = classes_of(path, chunks=128)
    xee_tf.to_cog(image, tmp_path / "cog.tif", overview_resampling="mode")
    written = rioxarray.open_rasterio(tmp_path / "cog.tif", chunks=128).assign_attrs(CLASSES)
    at = (11, *tiles_at(11, *place_of(image)))
    reads.clear()
    with xee_tf.explore(written, max_pixels=500 * 400) as shown:
        found = tile(shown, *at)
    assert (found != painted(overview(tmp_path / "cog.tif", 0, at, band=1))).any(axis=-1).mean() < 0.002
    assert {width for width, _ in reads} == {500}
