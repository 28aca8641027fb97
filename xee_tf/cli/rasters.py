"""Open the rasters of a command line."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import psutil
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

import xee_tf
from xee_tf.display import abbreviated, counted
from xee_tf.errors import GridMismatchError, OptionError, StorageError, warn
from xee_tf.gdal_cache import limit_to
from xee_tf.georef import image_dataset, read_georef, same_grid
from xee_tf.options import integer
from xee_tf.sidecars import IMAGE_MANIFEST, MIXER, RECORDS, TABLE_MANIFEST, folder_exports
from xee_tf.storage import Location, storage_errors

__all__ = ["open_rasters"]

_XARRAY_SUFFIXES = (".zarr", ".nc", ".nc4", ".h5")
_MIN_CACHE = 64 << 20  # bytes of GDAL's cache

_EXPORT = (
    "{source} is {what} of an export, not a raster: convert the export first, with xee-tf upload image or "
    "xee-tf upload table."
)

_DAMAGED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
"""What zarr, xarray and the readers of NetCDF raise for metadata that are not as they expect."""


def open_rasters(
    paths: Sequence[str], chunk: int, crs: str | None, names: Sequence[str] | None = None
) -> xr.Dataset:
    """Open rasters as one image.

    Parameters
    ----------
    paths : sequence of str
        Files that GDAL can open, Zarr stores or NetCDF files. The band of a single-band file is named after
        the file.
    chunk : int
        Width and height, in pixels, of the chunks that are read from disk.
    crs : str or None
        CRS of rasters that have none.
    names : sequence of str, optional
        Names of all bands, in the order of the files and of their bands.

    Raises
    ------
    StorageError
        If a file cannot be opened.
    OptionError
        If two bands have the same name, or `names` has another number of names.
    GridMismatchError
        If the rasters are not on the same grid.
    """
    integer(1)(chunk, "chunk")
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)  # `_check_place` says more
    images = [_open_raster(path, chunk, alone=len(paths) == 1) for path in map(_from_anywhere, paths)]
    most = psutil.virtual_memory().total // 20  # the default
    limit_to(min(most, max(_MIN_CACHE, sum(_strip_bytes(path, chunk) for path in paths))))
    if names is not None:
        images = _rename(images, names)
    _check_names(paths, images)
    try:
        return xee_tf.add_bands(*images, crs=crs)
    except GridMismatchError as error:
        raise _with_paths(paths, images, crs) or error from error


def _rename(images: Sequence[Any], names: Sequence[str]) -> list[xr.Dataset]:
    """Return the images with other names of their bands."""
    datasets = [image_dataset(image) for image in images]
    bands = [str(name) for dataset in datasets for name in dataset.data_vars]
    if len(names) != len(bands) or len(set(names)) < len(names):
        raise OptionError(
            f"band_names must have a different name for each of the {counted(len(bands), 'band')} "
            f"({', '.join(bands)}); got {', '.join(names)}."
        )
    taken = {name for dataset in datasets for name in (*dataset.coords, *dataset.dims)}
    for name in names:
        if not name or name in taken:
            raise OptionError(
                f"band_names contains {name!r}, which is the name of a coordinate or empty: choose another."
            )
    new = iter(names)
    return [
        dataset.rename(dict(zip(dataset.data_vars, islice(new, len(dataset.data_vars)), strict=True)))
        for dataset in datasets
    ]


def _check_names(paths: Sequence[str], images: Sequence[Any]) -> None:
    """Check that the names of bands are unique."""
    owners: dict[Any, str] = {}
    for path, image in zip(paths, images, strict=True):
        for name in image_dataset(image).data_vars:
            if owners.get(name) == path:
                raise OptionError(f"{path} is given twice.")
            if name in owners:
                raise OptionError(
                    f"{owners[name]} and {path} both have a band {str(name)!r}. Bands of GeoTIFFs are named "
                    "after their files: name all bands with band_names=, or omit a file."
                )
            owners[name] = path


def _with_paths(paths: Sequence[str], images: Sequence[Any], crs: str | None) -> GridMismatchError | None:
    """Describe the first raster that is not on the grid of the first one."""
    first = read_georef(image_dataset(images[0]), crs)
    for path, image in zip(paths[1:], images[1:], strict=True):
        try:
            same_grid(first, read_georef(image_dataset(image), crs), (paths[0], path))
        except GridMismatchError as error:
            differences = str(error).partition(" Reproject one")[0]
            fix = f"rio warp {path} OUTPUT --like {paths[0]}"
            return GridMismatchError(f"{differences} Reproject one to the grid of the other: {fix}")
    return None


def _open_raster(source: str, chunk: int, *, alone: bool) -> Any:
    Location.of(source)  # raises an error if it looks like a URL with one slash
    _check_encoding(source)
    path = PurePosixPath(source.rstrip("/"))
    if _is_local(source) and not os.path.exists(source):
        if any(os.path.exists(f"{source}-{name}") for name in (MIXER, IMAGE_MANIFEST, TABLE_MANIFEST)):
            raise StorageError(_EXPORT.format(source=source, what="the prefix"))
        raise StorageError(f"{source}: No such file or folder.")
    if path.suffix in _XARRAY_SUFFIXES:
        engine = {"engine": "zarr"} if path.suffix == ".zarr" else {}
        try:
            with storage_errors("read", source), warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "Failed to open Zarr store with consolidated", RuntimeWarning
                )
                found = xr.open_dataset(source, decode_coords="all", chunks={}, **engine)  # type: ignore[arg-type]
                atexit.register(found.close)  # otherwise h5py prints an error when Python ends
                return found
        except FileNotFoundError as error:
            form = "a Zarr store" if engine else "a NetCDF file"
            raise StorageError(f"{source} does not exist, or is not {form}.") from error
        except _DAMAGED as error:
            if engine:
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                raise StorageError(f"{source} could not be opened as Zarr: {kind}{error}") from error
            fix = "It may be damaged." if _has_netcdf_reader() else "Install a reader: pip install h5netcdf."
            raise StorageError(f"{source} could not be opened as NetCDF. {fix}") from error
    try:
        _check_parts(source)
        _check_place(source)
        raster: Any = rioxarray.open_rasterio(source, chunks={"x": chunk, "y": chunk}, lock=False)
    except StorageError:
        raise
    except OSError as error:  # the messages of GDAL need not name the file
        raise StorageError(_explain(source, str(error))) from error
    if raster.sizes.get("band") == 1:
        raster = raster.squeeze("band", drop=True)
        return raster.rename(path.stem) if isinstance(raster, xr.DataArray) else raster
    if alone or isinstance(raster, xr.Dataset):
        return raster
    return raster.assign_coords(band=[f"{path.stem}_{number}" for number in raster.band.values])


def _check_encoding(source: str) -> None:
    """Raise an error if the libraries that read rasters cannot be given a name."""
    try:
        source.encode()
    except UnicodeEncodeError as error:
        raise StorageError(
            f"{source} cannot be opened as a raster: its name is no text in UTF-8. Rename it; or, if ls "
            "shows its name well, set the environment variable PYTHONUTF8=1."
        ) from error


def _check_parts(source: str) -> None:
    """Raise an error if a file contains several rasters that rioxarray cannot open as one image."""
    with warnings.catch_warnings(action="ignore"), rasterio.open(source) as file:
        parts = file.subdatasets
        grids: set[Any] = {None} if file.count and parts else set()  # the pages of a TIFF have no names
        for name in parts:
            with rasterio.open(name) as part:
                grids.add((part.shape, part.transform, str(part.crs), part.count))
    if len(grids) > 1:
        what = "pages" if None in grids else "rasters with different grids or numbers of bands"
        raise StorageError(
            f"{source} contains {len(parts)} {what}: pass GDAL's name of one of them, such as {parts[0]}."
        )


def _check_place(source: str) -> None:
    """Warn about a raster without a geotransform, which GDAL places at the origin."""
    with warnings.catch_warnings(action="ignore"), rasterio.open(source) as file:
        if not file.count or file.transform != Affine.identity():
            return
        points = bool(file.gcps[0] or file.rpcs)
    fix = f"rio warp {source} OUTPUT --dst-crs EPSG:32633" if points else "rio edit-info --transform"
    warn(
        f"{source} has no geotransform{', but control points' if points else ''}: its pixels are placed at "
        "the origin of the CRS, and are one unit large. If they have a place, set it first, for example with "
        f"{fix}."
    )


def _strip_bytes(source: str, chunk: int) -> int:
    """Return the bytes to cache so that strips, which are wider than chunks, are read only once."""
    if PurePosixPath(source.rstrip("/")).suffix in _XARRAY_SUFFIXES:
        return 0
    with warnings.catch_warnings(action="ignore"), rasterio.open(source) as file:
        if not file.count:  # several rasters
            return 0
        height, width = file.block_shapes[0]
        if width <= chunk:
            return 0
        rows = 2 * (chunk + height)  # chunks are read in order, but by several threads
        # Complex dtypes, which exports refuse, need not be dtypes of numpy.
        sizes = (np.dtype(dtype).itemsize for dtype in file.dtypes if not dtype.startswith("complex"))
        return int(rows * file.width * sum(sizes))


def _from_anywhere(source: str) -> str:
    """Return an absolute path if the source exists: workers of a cluster may run in other folders."""
    return os.path.abspath(source) if _is_local(source) and os.path.exists(source) else source


def _is_local(source: str) -> bool:
    """Return whether a name is a path, and not a URL or a name that only GDAL knows."""
    return ":" not in os.path.splitdrive(source)[1] and not source.startswith("/vsi")


def _explain(source: str, message: str) -> str:
    """Return why GDAL cannot open a raster, and what to do."""
    name = source.rpartition("/")[2]
    if name.endswith((*RECORDS, MIXER, IMAGE_MANIFEST, TABLE_MANIFEST)):
        return _EXPORT.format(source=source, what="a file")
    if os.path.isdir(source):
        return f"{source} cannot be opened as a raster: {_describe_folder(source)}."
    if _is_local(source):
        why = message.rstrip(".")
        if "not recognized" in message:
            why = "GDAL does not know its format, or it is damaged"
        elif "TIFFRead" in message:
            why = f"it is damaged or incomplete ({why.removeprefix(f'{source}: ')})"
        return f"{source} cannot be opened as a raster: {why}."
    why = "it does not exist, or access is denied" if "does not exist" in message else message.rstrip(".")
    return (
        f"{source} cannot be opened as a raster: {why}. GDAL, which opens it, takes credentials and "
        "addresses from its own environment variables, such as AWS_PROFILE and AWS_S3_ENDPOINT."
    )


def _describe_folder(folder: str) -> str:
    if any(os.path.exists(os.path.join(folder, name)) for name in (".zgroup", "zarr.json")):
        return "it is a Zarr store, whose name must end with .zarr"
    why = "it is a folder, but not a Zarr store"
    if exports := folder_exports(Location.of(folder)):
        names = abbreviated([export.name for export in exports], most=3)
        why += f"; it contains exports ({names}), which xee-tf upload image and xee-tf upload table convert"
    return why


def _has_netcdf_reader() -> bool:
    return any(find_spec(name) is not None for name in ("h5netcdf", "netCDF4"))
