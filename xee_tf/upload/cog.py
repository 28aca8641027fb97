"""Write lazy rasters as cloud-optimized GeoTIFFs, without loading them into memory as a whole."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.shutil
import xarray as xr
from crc32c import crc32c
from rasterio._err import CPLE_BaseError
from rasterio.windows import Window

from xee_tf.dtypes import FLOAT64_EXACT
from xee_tf.errors import DestinationError, OptionError
from xee_tf.georef import GridLike, image_dataset, raster_variables, read_crs, read_georef
from xee_tf.graph import store_chunks
from xee_tf.names import check_geotiff
from xee_tf.options import IfExists, Spelling, check_flags, spelled
from xee_tf.sidecars import BandSpec, step_names
from xee_tf.signals import interruptible
from xee_tf.storage import Location, PathLike, require_free, require_writable
from xee_tf.upload.casting import cast, common_nodata
from xee_tf.upload.destination import require_format
from xee_tf.upload.files import geotiff_files, staged_file

__all__ = ["to_cog", "write_cog", "write_raster"]

_SPELLING = Spelling("GeoTIFF options")

_BLOCK = 512  # side of a GeoTIFF tile in pixels
_BLOCK_BYTES = 16 << 20  # a tile of all bands, which are adjacent in a cloud-optimized GeoTIFF
_MAX_BANDS = 65535
_GDAL_CACHE = 128 << 20  # bytes; GDAL's default is 5 % of the memory of the machine


@spelled(_SPELLING)
@interruptible()
def to_cog(
    raster: xr.Dataset | xr.DataArray,
    destination: PathLike | Location,
    *,
    if_exists: IfExists = "error",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Write a lazy raster as a cloud-optimized GeoTIFF, without loading it into memory as a whole.

    A GeoTIFF has one dtype and one nodata value for all bands. The dtype is the smallest one that can
    represent the values of all bands, and the nodata value is not a valid value of any band. Values do not
    change.

    Parameters
    ----------
    raster : Dataset or DataArray
        Georeferenced raster. NaN and the value of the attribute ``_FillValue`` of a band mark missing pixels.
        Each step of additional dimensions becomes a band, which is named after its coordinate. A ``band``
        dimension of a DataArray is split into bands as in `xee_tf.export_image`.
    destination : str or path-like
        The ``.tif`` or ``.tiff`` file: a local path or an fsspec URL. It appears when it is complete.
    if_exists : {"error", "overwrite", "resume"}, default "error"
        What to do if the destination or one of its side files (``.aux.xml``, ``.ovr``, ``.msk``, world files,
        RPCs) exists. "overwrite" replaces them when the new file is complete. "resume" writes it if it is
        missing; an existing GeoTIFF does not tell what it was written from, so that it is an error.
    progress : bool, default False
        Whether to show a progress bar.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    Location
        The destination, which is path-like: `os.fspath` returns its local path or URL.

    Raises
    ------
    DestinationExistsError, DestinationError
        If the destination exists or cannot be written.
    GeoreferenceError
        If the raster has no CRS or no regular coordinates.
    OptionError
        If `raster` is not an xarray object, there is no unused value for missing pixels, or the name of a
        band cannot be stored.
    RecordError
        If the common dtype cannot represent a value.

    Examples
    --------
    >>> import numpy as np, rasterio, rioxarray, tempfile, xee_tf
    >>> classes = xr.DataArray(np.array([[1, 2]], "uint8"), {"y": [15.0], "x": [15.0, 45.0]})
    >>> scene = xr.Dataset({"class": classes, "share": classes / 4}).rio.write_crs("EPSG:32633")
    >>> file = xee_tf.to_cog(scene.rio.write_transform(), tempfile.mkdtemp() + "/map.tif")
    >>> with rasterio.open(file.path) as opened:
    ...     opened.descriptions, opened.dtypes, opened.read(2).tolist()
    (('class', 'share'), ('float64', 'float64'), [[0.25, 0.5]])
    """
    check_flags(progress=progress)
    location = Location.of(destination, storage_options)
    require_format(location, "tif")
    dataset = image_dataset(raster, split=isinstance(raster, xr.DataArray))
    require_free(location, if_exists)
    require_writable(location)
    remedy = "cast it first, for example with astype('int32'), or write a Zarr store."
    write_raster(dataset, location, if_exists=if_exists, progress=progress, remedy=remedy)
    return location


def write_raster(
    raster: xr.Dataset, location: Location, *, if_exists: IfExists, progress: bool, remedy: str
) -> None:
    """Write a raster as `to_cog` does; `remedy` is the end of the error for unrepresentable values."""
    georef = read_georef(raster)
    bands = {
        str(name): band.transpose(..., georef.y_dim, georef.x_dim)
        for name, band in raster_variables(raster, georef.x_dim, georef.y_dim)
    }
    for name, band in bands.items():
        if band.dtype.kind not in "biuf":
            raise OptionError(
                f"Band {name!r} has dtype {band.dtype}, which a GeoTIFF cannot store here: convert it to "
                "numbers, or select other bands."
            )
    fills = {name: band.attrs.get("_FillValue") for name, band in bands.items()}
    dtype, nodata = common_nodata({name: band.dtype for name, band in bands.items()}, fills, remedy)
    arrays, names = {}, {}
    for name, band in bands.items():
        data = cast(name, band.chunk().data, dtype, nodata, fill=fills[name], remedy=remedy)
        arrays[name] = data.rechunk(dict.fromkeys(range(data.ndim - 2), -1))
        dims = tuple(map(str, band.dims[:-2]))
        coords = {dim: band.coords[dim].values for dim in dims if dim in band.coords}
        names[name] = step_names(BandSpec(name, dims, band.shape[:-2]), coords)
    write_cog(location, arrays, names, georef, nodata, if_exists, progress)


def write_cog(
    location: Location,
    arrays: Mapping[str, da.Array],
    names: Mapping[str, Sequence[str]],
    grid: GridLike,
    nodata: float | None,
    if_exists: IfExists,
    progress: bool,
) -> None:
    """Write a tiled GeoTIFF window by window, and convert it to a cloud-optimized GeoTIFF.

    Parameters
    ----------
    location : Location
        The file. It appears when it is complete, and replaces an old one with its side files. If GeoTIFF keys
        cannot describe the CRS, GDAL's ``.aux.xml`` file is written beside it.
    arrays : mapping
        Bands (..., y, x) of one dtype; additional dimensions in one chunk.
    names : mapping
        Names of the steps of each band, which are the bands of the GeoTIFF.
    grid : GridLike
        CRS and affine transform.
    nodata : float or None
        Nodata value. None: NaN for floats, no nodata value for integers.
    if_exists : {"error", "overwrite", "resume"}
        Whether existing files may be replaced.
    progress : bool
        Whether to show a progress bar.

    Raises
    ------
    OptionError
        If there are too many bands for a GeoTIFF, or it cannot store the name of a band or `nodata`.
    DestinationError
        If the file cannot be written, for example because the disk is full.
    """
    count = sum(map(len, names.values()))
    if count > _MAX_BANDS:
        raise OptionError(
            f"A GeoTIFF can have at most {_MAX_BANDS} bands; got {count}. Select bands with bands=[...], or "
            "write a .zarr."
        )
    check_geotiff(
        chain.from_iterable(names.values()),
        "Rename it, select other bands with bands=[...], or write a .zarr.",
    )
    profile = _profile(arrays, count, grid, nodata)
    with staged_file(location, if_exists, geotiff_files) as cog, rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE):
        plain = cog.with_name("plain.tif")
        with _open_raster(plain, profile, location) as raster:
            raster.file.descriptions = tuple(chain.from_iterable(names.values()))
            ends = accumulate(map(len, names.values()), initial=0)
            targets = [_BandTarget(raster, range(a + 1, b + 1)) for a, b in pairwise(ends)]
            # An open file cannot be sent to another process.
            store_chunks(arrays, targets, progress, in_this_process=True)
        with _gdal_errors(location):
            raster.verify(plain)
            _copy_as_cog(plain, cog, profile["blockxsize"])
            _require_tiles(cog, location)


def _profile(
    arrays: Mapping[str, da.Array], count: int, grid: GridLike, nodata: float | None
) -> dict[str, Any]:
    """Return the rasterio profile of the tiled GeoTIFF."""
    [dtype] = {array.dtype for array in arrays.values()}
    if nodata is None and dtype.kind == "f":
        nodata = math.nan
    elif nodata is not None and dtype.kind != "f" and abs(int(nodata)) > FLOAT64_EXACT:
        raise OptionError(
            f"A GeoTIFF cannot store nodata={nodata}, because readers parse nodata as a float64, which "
            f"cannot represent all integers beyond {FLOAT64_EXACT}. Choose another value, or write a .zarr."
        )
    crs = read_crs(grid.crs, "the mixer", "Correct the mixer.")
    height, width = next(iter(arrays.values())).shape[-2:]
    block = _BLOCK
    while block > 128 and block * block * count * dtype.itemsize > _BLOCK_BYTES:
        block //= 2
    return {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": count,
        "dtype": dtype,
        # Only WKT: GDAL opens other strings as files or URLs.
        "crs": rasterio.crs.CRS.from_wkt(crs.to_wkt()),
        "transform": grid.affine,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "interleave": "band",
        "bigtiff": "if_safer",
        "photometric": "minisblack",  # bands are not colours, and the fourth is not a mask
        "alpha": "no",
    }


def _copy_as_cog(plain: Path, cog: Path, block: int) -> None:
    """Compress a GeoTIFF and add its overviews."""
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


@contextmanager
def _gdal_errors(location: Location) -> Iterator[None]:
    """Convert GDAL errors of a block that writes to `DestinationError`."""
    try:
        yield
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise DestinationError(f"Cannot write {location}: {reason}. Nothing was changed.") from error


def _require_tiles(cog: Path, location: Location) -> None:
    """Check that all tiles of a file were written: GDAL does not report errors when it closes a file."""
    size = os.path.getsize(cog)
    with rasterio.open(cog) as file:
        levels = len(file.overviews(1))
    for level in (None, *range(levels)):
        with rasterio.open(cog, **({} if level is None else {"overview_level": level})) as file:
            # All bands of a pixel are in the same tile.
            for (row, column), _ in file.block_windows(1):
                offset, count = (
                    file.get_tag_item(f"BLOCK_{fact}_{column}_{row}", "TIFF", bidx=1)
                    for fact in ("OFFSET", "SIZE")
                )
                if not int(offset or 0) or int(offset) + int(count) > size:
                    raise _incomplete(location)


def _incomplete(location: Location) -> DestinationError:
    return DestinationError(
        f"Cannot write {location}: a part of its temporary file is missing or damaged. The disk may be full, "
        "or the size of files may be limited. Nothing was changed."
    )


@dataclass(frozen=True)
class _Raster:
    """An open GeoTIFF that multiple threads write to, one at a time.

    If a chunk fails, Dask raises the error while other threads still compute chunks. Writing to a closed
    dataset would crash the process, so `close` waits for the lock and `write` checks whether it is closed.

    GDAL writes most tiles when it closes the file, and rasterio does not report the errors of that. `verify`
    therefore compares the closed file with the checksums of what was written.
    """

    file: Any
    location: Location
    lock: Lock = field(default_factory=Lock)
    checksums: list[tuple[list[int], Window, int]] = field(default_factory=list)

    def write(self, values: npt.NDArray[Any], bands: list[int], window: Window) -> None:
        """Write a window, or raise an error if the file is closed."""
        values = np.ascontiguousarray(values)
        checksum = crc32c(values.data)
        with self.lock, _gdal_errors(self.location):
            if self.file.closed:
                raise DestinationError("The file is closed because another chunk failed.")
            self.file.write(values, bands, window=window)
            self.checksums.append((bands, window, checksum))

    def verify(self, path: Path) -> None:
        """Check that the closed file contains what was written."""
        try:
            with rasterio.open(path) as file:
                same = all(
                    crc32c(file.read(bands, window=window)) == checksum
                    for bands, window, checksum in self.checksums
                )
        except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
            raise _incomplete(self.location) from error
        if not same:
            raise _incomplete(self.location)

    def close(self) -> None:
        """Close the file after the current write."""
        with self.lock, _gdal_errors(self.location):
            self.file.close()


@contextmanager
def _open_raster(path: Path, profile: Mapping[str, Any], location: Location) -> Iterator[_Raster]:
    with _gdal_errors(location):
        raster = _Raster(rasterio.open(path, "w", **profile), location)
    try:
        yield raster
    finally:
        raster.close()


@dataclass(frozen=True)
class _BandTarget:
    """Target for `dask.array.store`: the steps of one band in an open GeoTIFF."""

    raster: _Raster
    bands: range

    def __setitem__(self, key: tuple[slice, ...], values: npt.NDArray[Any]) -> None:
        # Additional dimensions are in one chunk.
        window = Window.from_slices(*key[-2:])
        self.raster.write(values.reshape(-1, *values.shape[-2:]), list(self.bands), window)
