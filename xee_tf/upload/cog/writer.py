"""Write lazy rasters as cloud-optimized GeoTIFFs, without loading them into memory as a whole."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import rasterio
import rasterio.errors
import xarray as xr
from rasterio._err import CPLE_BaseError

from xee_tf.classes import Labels, find_labels
from xee_tf.dtypes import FLOAT64_EXACT, is_storable
from xee_tf.errors import DestinationError, OptionError
from xee_tf.georef import GridLike, image_dataset, raster_variables, read_crs, read_georef
from xee_tf.graph import BLOCK_TASKS, Counted, on_cluster, reduce_blocks, run_graph
from xee_tf.names import check_geotiff
from xee_tf.options import IfExists, Spelling, check_flags, spelled
from xee_tf.sidecars import BandSpec, step_names
from xee_tf.signals import interruptible
from xee_tf.storage import Location, PathLike, require_free, require_writable, storage_errors
from xee_tf.upload.casting import Nodata, cast, common_nodata, dtype_with_nodata, one_nodata, restore
from xee_tf.upload.cog.categories import (
    add_category_names,
    color_table,
    encoded_classes,
    require_no_means,
    warn_of_lost_colors,
)
from xee_tf.upload.cog.encoding import predictor_of
from xee_tf.upload.cog.header import Tag, layout, levels_of, read_tags
from xee_tf.upload.cog.origin import origin_note
from xee_tf.upload.cog.overviews import POLICIES, OverviewResampling, Resampling, methods_of
from xee_tf.upload.cog.tiles import TileWork, copy_tiles, sizes_of
from xee_tf.upload.destination import require_format
from xee_tf.upload.files import geotiff_files, staged_run

__all__ = ["to_cog", "write_arrays", "write_raster"]

_SPELLING = Spelling("GeoTIFF options", aliases=POLICIES)

_BLOCK = 512  # side of a GeoTIFF tile in pixels
_BLOCK_BYTES = 16 << 20  # a tile of all bands, which are adjacent in a cloud-optimized GeoTIFF
_MAX_BANDS = 65535
_WORK_BYTES = 64 << 20  # pixels of a block


@spelled(_SPELLING)
@interruptible()
def to_cog(
    raster: xr.Dataset | xr.DataArray,
    destination: PathLike | Location,
    *,
    nodata: Nodata | None = None,
    overview_resampling: OverviewResampling = "nearest",
    if_exists: IfExists = "error",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Write a lazy raster as a cloud-optimized GeoTIFF, without loading it into memory as a whole.

    A GeoTIFF has one dtype and one nodata value for all bands. The dtype is the smallest one that can
    represent the values of all bands, and the nodata value is not a valid value of any band. Values do not
    change. A map of classes (`xee_tf.class_map`) keeps its colors and names, also if xarray decoded it to
    floats with NaN, as `xarray.open_zarr` does.

    Parameters
    ----------
    raster : Dataset or DataArray
        Georeferenced raster. NaN and the value of the attribute ``_FillValue`` of a band mark missing pixels.
        Each step of additional dimensions becomes a band, which is named after its coordinate. A ``band``
        dimension of a DataArray is split into bands as in `xee_tf.export_image`.
    destination : str or path-like
        The ``.tif`` or ``.tiff`` file: a local path or an fsspec URL. It appears when it is complete.
    nodata : float or mapping of str to float, optional
        Value that marks missing pixels in the file. Pixels of the raster that have it count as missing,
        unless ``_FillValue``, an attribute or in the encoding, marks others as missing: then they are an
        error. A mapping by band must have the same value for all bands, because a GeoTIFF has only one. By
        default, a value that is not a valid value of any band: NaN for floats.
    overview_resampling : {"nearest", "mean", "mode"} or mapping of str to these, default "nearest"
        How each pixel of an overview is computed from the 2 x 2 pixels of the level before it: its first
        pixel, also if that is missing ("sample" of Earth Engine's ``pyramidingPolicy``); the mean, or the
        most frequent value, of those that are not missing. "mean" suits measurements, and "mode" classes;
        "mean" of classes (bands with the attribute ``flag_values``) is an error.
        A mapping chooses by band; other bands have "nearest", which never invents a value, or what the key
        ".default" says.
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
        If `raster` is not an xarray object, there is no unused value for missing pixels, `nodata` cannot be
        represented or differs between bands, or the name of a band cannot be stored.
    RecordError
        If the common dtype cannot represent a value, or a valid pixel has the value `nodata`.

    Notes
    -----
    The attributes ``flag_values``, ``flag_meanings`` and ``flag_colors`` of a band (see `xee_tf.class_map`)
    become GDAL's category names, in the file ``.aux.xml`` beside the GeoTIFF, and its color table. Only a
    file of one band of uint8 or uint16 can have a color table: write the confidence to another file. Other
    files have no colors, and a warning says so.

    The tiles are encoded where Dask computes the chunks, also on a cluster, and staged in a hidden folder
    beside the destination. All workers must have access to this disk. The calling process then joins the
    tiles. The disk needs about 1.4 times the size of the new file, and that of an old one, which is replaced
    last. For a bucket, the file is joined in the folder for temporary files; on a cluster, tiles are staged
    in the bucket until then.

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
    write_raster(
        dataset,
        location,
        overview_resampling,
        nodata=nodata,
        if_exists=if_exists,
        progress=progress,
        remedy=remedy,
    )
    return location


def write_raster(
    raster: xr.Dataset,
    location: Location,
    overview_resampling: OverviewResampling,
    *,
    nodata: Nodata | None,
    if_exists: IfExists,
    progress: bool,
    remedy: str,
    computed: Callable[[], Mapping[str, da.Array]] | None = None,
    all_declared: bool = False,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write a raster as `to_cog` does.

    Parameters
    ----------
    raster, location, overview_resampling, nodata, if_exists, progress
        See `to_cog`.
    remedy : str
        End of the error for values that the file cannot represent.
    computed : callable, optional
        Called after the checks of the bands; returns arrays with the same values, which are written instead.
    all_declared : bool
        Whether bands without ``_FillValue`` have no missing pixels but NaN, as predictions, so that a pixel
        with the value `nodata` is an error.
    origin : mapping, optional
        What the raster is computed from; see `origin_note`.
    """
    georef = read_georef(raster)
    bands = {
        str(name): band.transpose(..., georef.y_dim, georef.x_dim)
        for name, band in raster_variables(raster, georef.x_dim, georef.y_dim)
    }
    for name, band in bands.items():
        if not is_storable(band.dtype):
            raise OptionError(
                f"Band {name!r} has dtype {band.dtype}, which a GeoTIFF cannot store here: convert it with "
                f"ds[{name!r}].astype('float64'), or select other bands."
            )
    fills = {name: band.attrs.get("_FillValue") for name, band in bands.items()}
    dtypes = {name: band.dtype for name, band in bands.items()}
    encoded = {name: each for name, band in bands.items() if (each := encoded_classes(band)) is not None}
    for name, (own, fill) in encoded.items():
        dtypes[name], fills[name] = own, fill
    chosen = one_nodata(nodata, dtypes)
    if chosen is None:
        dtype, stored = common_nodata(dtypes, fills, remedy)
    else:
        dtype, stored = dtype_with_nodata(dtypes, chosen)
        for name, band in bands.items():
            decoded = band.encoding.get("_FillValue") is not None  # by xarray: only NaN is missing
            if fills[name] is None and (all_declared or decoded):
                fills[name] = math.nan
    names = {}
    for name, band in bands.items():
        dims = tuple(map(str, band.dims[:-2]))
        coords = {dim: band.coords[dim].values for dim in dims if dim in band.coords}
        names[name] = step_names(BandSpec(name, dims, band.shape[:-2]), coords)
    found = {name: find_labels(band.attrs) for name, band in bands.items()}
    labels = {name: each for name, each in found.items() if each is not None}
    _check_bands(names, overview_resampling, labels)
    for name, own_labels in labels.items():
        if chosen is not None and chosen in own_labels.names and fills[name] != chosen:
            raise OptionError(
                f"nodata={nodata!r} is the class {own_labels.names[int(chosen)]!r} of {name!r}. "
                "Choose a number that no class has, or omit nodata."
            )
    warn_of_lost_colors(labels, _of_bands(names, labels), dtype)
    data = {name: band.chunk().data for name, band in bands.items()} if computed is None else computed()
    arrays = {}
    for name in bands:
        array = restore(name, data[name], *encoded[name]) if name in encoded else data[name]
        converted = cast(name, array, dtype, stored, fill=fills[name], remedy=remedy)
        arrays[name] = converted.rechunk(dict.fromkeys(range(converted.ndim - 2), -1))
    write_arrays(
        location,
        arrays,
        names,
        georef,
        stored,
        overview_resampling,
        if_exists,
        progress,
        labels=labels,
        origin=origin,
    )


def write_arrays(
    location: Location,
    arrays: Mapping[str, da.Array],
    names: Mapping[str, Sequence[str]],
    grid: GridLike,
    nodata: float | None,
    overview_resampling: OverviewResampling,
    if_exists: IfExists,
    progress: bool,
    *,
    labels: Mapping[str, Labels] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Encode a cloud-optimized GeoTIFF in Dask tasks, and join its tiles.

    Parameters
    ----------
    location : Location
        The file. It appears when it is complete, and replaces an old one with its side files. If GeoTIFF keys
        cannot describe the CRS, or values have names, GDAL's ``.aux.xml`` file is written beside it.
    arrays : mapping
        Bands (..., y, x) of one dtype; additional dimensions in one chunk.
    names : mapping
        Names of the steps of each band, which are the bands of the GeoTIFF.
    grid : GridLike
        CRS and affine transform.
    nodata : float or None
        Nodata value. None: NaN for floats, no nodata value for integers.
    overview_resampling : str or mapping
        See `to_cog`.
    if_exists : {"error", "overwrite", "resume"}
        Whether existing files may be replaced.
    progress : bool
        Whether to show a progress bar.
    labels : mapping, optional
        Names and colors of the values of bands that are class maps.
    origin : mapping, optional
        What the bands are computed from; see `origin_note`.

    Raises
    ------
    OptionError
        If there are too many bands for a GeoTIFF, or it cannot store the name of a band or `nodata`.
    DestinationError
        If the file cannot be written, for example because the disk is full.
    """
    labels = labels or {}
    methods = _check_bands(names, overview_resampling, labels)
    count = sum(map(len, names.values()))
    profile = _profile(arrays, count, grid, nodata)
    shape, tile = (profile["height"], profile["width"]), _tile_of(count, profile["dtype"])
    depth = _depth(arrays, tile, count)
    levels = tuple(levels_of(shape, tile))
    with staged_run(location, if_exists, geotiff_files) as (run, local):
        path = Path(local.staged(location).path)
        of_bands = _of_bands(names, labels)
        tags = _tags(path, profile, list(chain.from_iterable(names.values())), of_bands, location)
        with storage_errors("write", location.url, left="Nothing was changed."):
            add_category_names(path, of_bands)
        # Workers of a cluster may not share this computer's disk, but they share the bucket.
        staging = run if on_cluster() else local
        work = TileWork(staging, levels, tile, depth, methods, nodata)
        block, group = tile << (depth - 1), 1 << depth
        encoded = reduce_blocks(list(arrays), list(arrays.values()), work, block, group, work.stages)
        parts = run_graph(encoded, Counted(BLOCK_TASKS, "block", "encoded") if progress else None).parts
        with storage_errors("write", location.url, left="Nothing was changed."):
            sizes = sizes_of(parts, levels)
            header, _ = layout(tags, levels, tile, sizes)
            with open(path, "wb") as file:
                file.write(header)
                copy_tiles(parts, levels, staging, file)
                if origin is not None:
                    sides = [each.name for each in geotiff_files(local.staged(location))]
                    file.write(origin_note(origin, sides, header, file.tell()))


def _check_bands(
    names: Mapping[str, Sequence[str]],
    overview_resampling: OverviewResampling,
    labels: Mapping[str, Labels],
) -> tuple[Resampling, ...]:
    """Check the number and names of bands, and return how the overviews of each array are computed."""
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
    methods = methods_of(overview_resampling, names)
    require_no_means(dict(zip(names, methods, strict=True)), labels)
    return methods


def _of_bands(names: Mapping[str, Sequence[str]], labels: Mapping[str, Labels]) -> list[Labels | None]:
    """Return the labels of each band of the GeoTIFF."""
    return [labels.get(name) for name, steps in names.items() for _ in steps]


def _tile_of(count: int, dtype: np.dtype[Any]) -> int:
    """Return the size of tiles, whose bands are adjacent."""
    tile = _BLOCK
    while tile > 128 and tile * tile * count * dtype.itemsize > _BLOCK_BYTES:
        tile //= 2
    return tile


def _depth(arrays: Mapping[str, da.Array], tile: int, count: int) -> int:
    """Return how many levels a block encodes, so that blocks have about the size of chunks."""
    [dtype] = {array.dtype for array in arrays.values()}
    # Of long strips, blocks are as high as one, so that few of them are in memory.
    largest = min(max(max(array.chunks[axis]) for array in arrays.values()) for axis in (-2, -1))
    depth = 1
    while tile << (depth - 1) < largest and (tile << depth) ** 2 * count * dtype.itemsize <= _WORK_BYTES:
        depth += 1
    return depth


def _profile(
    arrays: Mapping[str, da.Array], count: int, grid: GridLike, nodata: float | None
) -> dict[str, Any]:
    """Return the rasterio profile of the GeoTIFF."""
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
        "interleave": "pixel",
        "compress": "deflate",
        "predictor": predictor_of(dtype),
        "photometric": "minisblack",  # bands are not colors, and the fourth is not a mask
        "alpha": "no",
    }


def _tags(
    path: Path,
    profile: Mapping[str, Any],
    names: Sequence[str],
    labels: Sequence[Labels | None],
    location: Location,
) -> dict[int, Tag]:
    """Return the tags of the GeoTIFF, which GDAL writes for a raster of one pixel and no data.

    If they cannot describe the CRS, GDAL also writes the ``.aux.xml`` file, even if the user disabled it.
    """
    colors = color_table(labels, profile["dtype"])
    small = {"width": 1, "height": 1, "blockxsize": 16, "blockysize": 16, "sparse_ok": True}
    try:
        with (
            rasterio.Env(GDAL_PAM_ENABLED=True),
            warnings.catch_warnings(action="ignore", category=rasterio.errors.NotGeoreferencedWarning),
            rasterio.open(path, "w", **{**profile, **small, "endianness": "little", "bigtiff": "no"}) as file,
        ):
            file.descriptions = tuple(names)
            if colors:
                file.write_colormap(1, colors)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise DestinationError(f"Cannot write {location}: {reason}. Nothing was changed.") from error
    try:
        return read_tags(path.read_bytes())
    except (ValueError, struct.error) as error:  # GDAL does not report that it could not write everything
        raise DestinationError(
            f"Cannot write {location}: its temporary file is incomplete. The disk may be full, or the size "
            "of files may be limited. Nothing was changed."
        ) from error
