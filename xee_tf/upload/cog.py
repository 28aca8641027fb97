"""Lazy rasters as cloud-optimised GeoTIFFs, never in memory as a whole."""

from __future__ import annotations

import glob
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import dask
import dask.array as da
import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.shutil
import xarray as xr
from rasterio._err import CPLE_BaseError
from rasterio.windows import Window

from xee_tf.dtypes import FLOAT64_EXACT
from xee_tf.errors import DestinationError, OptionError
from xee_tf.georef import GridLike, read_crs, read_georef
from xee_tf.graph import progress_bar
from xee_tf.names import check_geotiff
from xee_tf.options import IfExists
from xee_tf.sidecars import BandSpec, step_names
from xee_tf.storage import Location, PathLike, require_free, require_writable
from xee_tf.upload.casting import cast, common_nodata

__all__ = ["to_cog", "write_cog", "write_raster"]

_BLOCK = 512  # pixels of a GeoTIFF tile's side
_BLOCK_BYTES = 16 << 20  # of a tile of all bands, which a cloud-optimised GeoTIFF keeps together
_MAX_BANDS = 65535
_GDAL_CACHE = 128 << 20  # bytes; GDAL would take a twentieth of the machine's memory


def to_cog(
    raster: xr.Dataset,
    destination: PathLike | Location,
    *,
    if_exists: IfExists = "error",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Write a lazy raster as a cloud-optimised GeoTIFF; it is never in memory as a whole.

    A GeoTIFF has one dtype for all bands and one value for missing pixels: the dtype is the smallest that
    holds the values of all bands, and the value is valid in none of them. Values are never changed.

    Parameters
    ----------
    raster : Dataset
        With a place, and bands whose attribute ``_FillValue``, where they have it, marks missing pixels, as
        NaN does. Each step of further dimensions becomes a band, which is named by its coordinate.
    destination : str or path-like
        Local, or any URL that fsspec knows. The file appears when it is complete.
    if_exists : {"error", "overwrite"}, optional
        What to do if the destination exists.
    progress : bool, optional
        Show a bar.
    storage_options : mapping, optional
        Handed to fsspec.

    Returns
    -------
    Location
        The destination.

    Raises
    ------
    DestinationExistsError, DestinationError
        If the destination exists or cannot be written.
    GeoreferenceError
        If the raster has no place.
    OptionError
        If there is no value left for missing pixels, or a band's name cannot be noted.
    RecordError
        If the common dtype does not hold a value.

    Examples
    --------
    >>> import numpy as np, rasterio, rioxarray, tempfile
    >>> classes = xr.DataArray(np.array([[1, 2]], "uint8"), {"y": [15.0], "x": [15.0, 45.0]})
    >>> scene = xr.Dataset({"class": classes, "share": classes / 4}).rio.write_crs("EPSG:32633")
    >>> file = to_cog(scene.rio.write_transform(), tempfile.mkdtemp() + "/map.tif")
    >>> with rasterio.open(file.path) as opened:
    ...     opened.descriptions, opened.dtypes, opened.read(2).tolist()
    (('class', 'share'), ('float64', 'float64'), [[0.25, 0.5]])
    """
    location = Location.of(destination, storage_options)
    require_free(location, if_exists)
    require_writable(location)
    remedy = "cast it first, for example with astype('int32'), or write a Zarr"
    write_raster(raster, location, progress=progress, remedy=remedy)
    return location


def write_raster(raster: xr.Dataset, location: Location, *, progress: bool, remedy: str) -> None:
    """Write a raster as `to_cog` does; `remedy` is the end of the error about a value that does not fit."""
    georef = read_georef(raster)
    bands = {
        str(name): band.transpose(..., georef.y_dim, georef.x_dim) for name, band in raster.data_vars.items()
    }
    fills = {name: band.attrs.get("_FillValue") for name, band in bands.items()}
    dtype, nodata = common_nodata({name: band.dtype for name, band in bands.items()}, fills, remedy)
    arrays, names = {}, {}
    for name, band in bands.items():
        data = cast(name, band.chunk().data, dtype, nodata, fill=fills[name], remedy=remedy)
        arrays[name] = data.rechunk(dict.fromkeys(range(data.ndim - 2), -1))
        dims = tuple(map(str, band.dims[:-2]))
        coords = {dim: band.coords[dim].values for dim in dims if dim in band.coords}
        names[name] = step_names(BandSpec(name, dims, band.shape[:-2]), coords)
    with progress_bar(progress):
        write_cog(location, arrays, names, georef, nodata)


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
        It appears when it is complete. Where GeoTIFF has no keys for the CRS, GDAL's ``.aux.xml`` appears
        beside it.
    arrays : mapping
        Bands (..., y, x) of one dtype; further dimensions in one chunk.
    names : mapping
        What the steps of each band are called, which a GeoTIFF has as bands.
    grid : GridLike
        Where they lie.
    nodata : number or None
        None: NaN of floats.

    Raises
    ------
    OptionError
        If there are more bands than a GeoTIFF holds, a name cannot describe one, or the file cannot note
        `nodata`.
    DestinationError
        If the file cannot be written, for example because the disk is full.
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
    profile = _profile(arrays, count, grid, nodata)
    local = location.is_local
    folder = Path(location.path).parent if local else Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    stem = Location(f".{location.name}").temporary("").name
    plain, cog = folder / f"{stem}.plain.tif", folder / f"{stem}.tif"
    try:
        with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE):
            with _open_raster(plain, profile, location) as raster:
                raster.file.descriptions = tuple(chain.from_iterable(names.values()))
                ends = accumulate(map(len, names.values()), initial=0)
                targets = [_BandTarget(raster, range(a + 1, b + 1)) for a, b in pairwise(ends)]
                # Threads whatever the scheduler: an open file does not travel.
                with dask.config.set(scheduler="threads"):
                    da.store(list(arrays.values()), targets, lock=False)
            with _writing(location):
                _copy_as_cog(plain, cog, profile["blockxsize"])
        _put_side_file(cog, location)
        location.put_file(cog)
    finally:
        for leftover in folder.glob(f"{glob.escape(stem)}.*"):  # side files too
            leftover.unlink(missing_ok=True)


def _profile(
    arrays: Mapping[str, da.Array], count: int, grid: GridLike, nodata: float | None
) -> dict[str, Any]:
    """How rasterio creates the tiled GeoTIFF."""
    [dtype] = {array.dtype for array in arrays.values()}
    if nodata is None and dtype.kind == "f":
        nodata = math.nan
    elif nodata is not None and dtype.kind != "f" and abs(int(nodata)) > FLOAT64_EXACT:
        raise OptionError(
            f"A GeoTIFF cannot note nodata={nodata}, because its readers take nodata as a float64, which "
            f"does not tell integers beyond {FLOAT64_EXACT} apart. Choose another one, or write a .zarr."
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
        # Only WKT: of other texts GDAL opens files and addresses.
        "crs": rasterio.crs.CRS.from_wkt(crs.to_wkt()),
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
    _require_whole(cog)


@contextmanager
def _writing(location: Location) -> Iterator[None]:
    """What GDAL cannot write is a `DestinationError`; what it cannot read of an image keeps its error."""
    try:
        yield
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise DestinationError(f"Cannot write {location}: {error}") from error


def _require_whole(cog: Path) -> None:
    """Read the last tile of a file: where the disk is full, GDAL reports only some of its failures."""
    with rasterio.open(cog) as file:
        rows, columns = file.block_shapes[0]
        top, left = (file.height - 1) // rows * rows, (file.width - 1) // columns * columns
        file.read(window=Window(left, top, file.width - left, file.height - top))


@dataclass(frozen=True)
class _Raster:
    """An open GeoTIFF that several threads write, one at a time.

    When a chunk fails, Dask raises while threads still compute others; they must not touch a dataset that is
    closed, which would end the process. So whoever closes it waits for the lock, and whoever comes later
    finds it closed.
    """

    file: Any
    location: Location
    lock: Lock = field(default_factory=Lock)

    def write(self, values: npt.NDArray[Any], bands: Sequence[int], window: Window) -> None:
        """Write a window, unless the file is closed: then that is an error."""
        with self.lock, _writing(self.location):
            if self.file.closed:
                raise DestinationError("Another chunk has failed; nothing more is written.")
            self.file.write(values, bands, window=window)

    def close(self) -> None:
        """Close the file when nobody writes."""
        with self.lock, _writing(self.location):
            self.file.close()


@contextmanager
def _open_raster(path: Path, profile: Mapping[str, Any], location: Location) -> Iterator[_Raster]:
    with _writing(location):
        raster = _Raster(rasterio.open(path, "w", **profile), location)
    try:
        yield raster
    finally:
        raster.close()


def _put_side_file(cog: Path, location: Location) -> None:
    """Put GDAL's ``.aux.xml`` beside the destination: a CRS for which GeoTIFF has no keys is only there.

    One of a file that is replaced goes, because its CRS would overrule that of the new file.
    """
    side = cog.with_name(f"{cog.name}.aux.xml")
    beside = location.with_suffix(".aux.xml")
    if side.exists():
        beside.put_file(side)
    elif beside.exists():
        beside.remove()


@dataclass(frozen=True)
class _BandTarget:
    """The steps of one band in an open GeoTIFF, as a target of `dask.array.store`."""

    raster: _Raster
    bands: range

    def __setitem__(self, key: tuple[slice, ...], values: npt.NDArray[Any]) -> None:
        # Further dimensions come whole.
        window = Window.from_slices(*key[-2:])
        self.raster.write(values.reshape(-1, *values.shape[-2:]), list(self.bands), window)
