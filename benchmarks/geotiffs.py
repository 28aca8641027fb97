"""Writing a raster as a cloud-optimized GeoTIFF, compared with writing it as Zarr."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import rasterio
import xarray as xr

import xee_tf
from benchmarks.measure import Measurement, best_times
from benchmarks.pixels import georeference

_CHUNK = 2048
_BANDS = 4


def run(small: bool) -> Iterator[Measurement]:
    side = 1024 if small else 16384
    chunk = min(side, _CHUNK)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:chunk, :chunk]
    waves = np.sin(y / 50) * np.cos(x / 70) * 2000 + 3000
    reflectance = (np.rint(waves + rng.normal(0, 20, waves.shape)) / 10000).astype("float32")
    tiled = da.tile(da.from_array(reflectance, chunks=chunk), (side // chunk,) * 2)
    bands = {f"B{n}": (("y", "x"), tiled * np.float32(1 + n / 5)) for n in range(_BANDS)}
    source = georeference(xr.Dataset(bands))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source.to_zarr(folder / "source.zarr")
        opened = xr.open_zarr(folder / "source.zarr")
        for band in opened.variables.values():
            band.encoding.clear()

        def to_cog() -> None:
            xee_tf.to_cog(opened, folder / "map.tif", if_exists="overwrite")

        with dask.config.set(scheduler="threads", num_workers=2):
            times = best_times(
                {"zarr": lambda: opened.to_zarr(folder / "map.zarr", mode="w"), "cog": to_cog},
                1 if small else 2,
            )
        with rasterio.open(folder / "map.tif") as file:
            np.testing.assert_array_equal(file.read(2)[-chunk:, -chunk:], reflectance * np.float32(1.2))
        size = sum(file.stat().st_size for file in (folder / "map.zarr").rglob("*") if file.is_file())
        yield Measurement(
            f"to_cog with overviews, {side} x {side} x {_BANDS} float32",
            "Dataset.to_zarr, without overviews",
            times["cog"] / times["zarr"],
            "times",
            2,
            False,
            f"{times['cog']:.1f} and {times['zarr']:.1f} s; {(folder / 'map.tif').stat().st_size / 1e9:.2f} "
            f"and {size / 1e9:.2f} GB",
        )
