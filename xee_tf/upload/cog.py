"""Lazy bands as a cloud-optimised GeoTIFF, never in memory as a whole."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import dask
import dask.array as da
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from xee_tf.errors import OptionError
from xee_tf.georef.reference import GridLike
from xee_tf.names import check_geotiff
from xee_tf.storage import Location

__all__ = ["write_cog"]

_BLOCK = 512  # pixels of a GeoTIFF tile's side
_BLOCK_BYTES = 16 << 20  # of a tile of all bands, which a cloud-optimised GeoTIFF keeps together
_MAX_BANDS = 65535
_GDAL_CACHE = 128 << 20  # bytes; GDAL would take a twentieth of the machine's memory


def write_cog(
    location: Location,
    arrays: Mapping[str, da.Array],
    names: Mapping[str, Sequence[str]],
    grid: GridLike,
    nodata: float | None,
) -> None:
    """Write a tiled GeoTIFF first, window by window, and from it the cloud-optimised one.

    Parameters
    ----------
    location : Location
        It appears when it is complete.
    arrays : mapping
        Bands (..., y, x) of one dtype; further dimensions in one chunk.
    names : mapping
        What the steps of each band are called, which a GeoTIFF has as bands.
    grid : GridLike
        Where they lie.
    nodata : number or None

    Raises
    ------
    OptionError
        If there are more bands than a GeoTIFF holds, or a name cannot describe one.
    """
    count = sum(map(len, names.values()))
    if count > _MAX_BANDS:
        raise OptionError(
            f"A GeoTIFF holds {_MAX_BANDS} bands, and these are {count}: choose some with bands=[...], or "
            "write a .zarr."
        )
    check_geotiff(
        chain.from_iterable(names.values()), "Rename it, choose others with bands=[...], or write a .zarr."
    )
    local = location.is_local
    folder = Path(location.path).parent if local else Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    stem = f".{location.name}.{uuid.uuid4().hex[:8]}"
    plain, cog = folder / f"{stem}.plain.tif", folder / f"{stem}.tif"
    [dtype] = {array.dtype for array in arrays.values()}
    height, width = next(iter(arrays.values())).shape[-2:]
    block = _BLOCK
    while block > 128 and block * block * count * dtype.itemsize > _BLOCK_BYTES:
        block //= 2
    profile = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": count,
        "dtype": dtype,
        "crs": rasterio.crs.CRS.from_user_input(grid.crs),
        "transform": grid.affine,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "interleave": "band",
        "bigtiff": "if_safer",
        "photometric": "minisblack",  # bands are no colours, and the fourth is no mask
        "alpha": "no",
    }
    try:
        with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE):
            with rasterio.open(plain, "w", **profile) as file:
                file.descriptions = tuple(chain.from_iterable(names.values()))
                ends = accumulate(map(len, names.values()), initial=0)
                targets = [_BandTarget(file, range(a + 1, b + 1)) for a, b in pairwise(ends)]
                # Threads whatever the scheduler: an open file does not travel.
                with dask.config.set(scheduler="threads"):
                    da.store(list(arrays.values()), targets, lock=Lock())
            rasterio.shutil.copy(
                plain,
                cog,
                driver="COG",
                blocksize=block,
                compress="deflate",
                predictor="yes",
                bigtiff="if_safer",
                overview_resampling="nearest",
                num_threads="all_cpus",
            )
        if local:
            Location(str(cog)).move(location)
        else:
            location.fs.put_file(str(cog), location.path)
    finally:
        for leftover in (plain, cog):
            leftover.unlink(missing_ok=True)


@dataclass(frozen=True)
class _BandTarget:
    """The steps of one band in an open GeoTIFF, as a target of `dask.array.store`."""

    file: Any
    bands: range

    def __setitem__(self, key: tuple[slice, ...], values: npt.NDArray[Any]) -> None:
        # Further dimensions come whole.
        window = Window.from_slices(*key[-2:])
        self.file.write(values.reshape(-1, *values.shape[-2:]), list(self.bands), window=window)
