"""Open the rasters of a command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import rioxarray
import xarray as xr

import xee_tf
from xee_tf.errors import OptionError

__all__ = ["open_rasters"]


def open_rasters(paths: Sequence[str], chunk: int, crs: str | None) -> xr.Dataset:
    """Open rasters as one image.

    Parameters
    ----------
    paths : sequence of str
        Files that GDAL can open, Zarr stores or NetCDF files. If there are several, the band of a single-band
        file is named after the file.
    chunk : int
        Width and height, in pixels, of the chunks that are read from disk.
    crs : str or None
        CRS of rasters that have none.
    """
    images = [_open_raster(path, chunk, alone=len(paths) == 1) for path in paths]
    return xee_tf.add_bands(*images, crs=crs)


def _open_raster(source: str, chunk: int, *, alone: bool) -> Any:
    path = PurePosixPath(source.rstrip("/"))
    if path.suffix in (".zarr", ".nc", ".nc4", ".h5"):
        engine = {"engine": "zarr"} if path.suffix == ".zarr" else {}
        try:
            return xr.open_dataset(source, decode_coords="all", chunks={}, **engine)  # type: ignore[arg-type]
        except ValueError as error:  # no reader is installed, or the file is not NetCDF
            raise OptionError(
                f"{source} could not be opened: {str(error).splitlines()[0]} NetCDF files need h5netcdf or "
                "netCDF4: pip install h5netcdf."
            ) from error
    raster: Any = rioxarray.open_rasterio(source, chunks={"x": chunk, "y": chunk})
    if alone:
        return raster
    if raster.sizes["band"] == 1:
        return raster.squeeze("band", drop=True).rename(path.stem)
    return raster.assign_coords(band=[f"{path.stem}_{number}" for number in raster.band.values])
