"""Predictions as a georeferenced raster: what ``earthengine upload image`` does, to files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import convert_number
from xee_tf.errors import OptionError, shorten
from xee_tf.graph import progress_bar
from xee_tf.names import check_zarr
from xee_tf.options import READ_SPELLING, IfExists, check_flags, is_number, spelled
from xee_tf.reading import (
    OpenedExport,
    ReadOptions,
    RecordFiles,
    check_crs,
    dask_arrays,
    lazy_dataset,
    open_export,
)
from xee_tf.sidecars import Exported, Mixer, step_names
from xee_tf.storage import (
    Location,
    PathLike,
    beside,
    create_store,
    replace_store,
    require_free,
    require_own_store,
    require_writable,
    to_storable,
)
from xee_tf.upload.casting import cast, common_dtype
from xee_tf.upload.cog import write_cog

__all__ = ["raster_format", "upload_image"]


@spelled(READ_SPELLING)
def upload_image(
    records: RecordFiles | None,
    mixer: Exported | Mixer,
    destination: PathLike | Location,
    *,
    bands: Sequence[str] | None = None,
    nodata: float | None = None,
    dtype: npt.DTypeLike | None = None,
    crs: Any = None,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
    if_exists: IfExists = "error",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Turn prediction records and the mixer of their patches into a GeoTIFF or Zarr.

    Goes through the raster chunk by chunk; it is never in memory as a whole.

    Parameters
    ----------
    records : str, path-like or sequence of them, or None
        TFRecord files with one Example for each patch, in the order of the patches; as many files as you
        like, gzipped or not. Patches may have the margin of the export, which is cut off, or not. Or with
        an Example or a SequenceExample for each pixel, row-major in its patch. None: the shards beside
        the mixer.
    mixer : str, path-like, ExportResult or Mixer
        The mixer of the exported patches, or what else names an export for `xee_tf.open_image`.
    destination : str or path-like
        ``.tif`` or ``.tiff``: a cloud-optimised GeoTIFF with overviews; an array band becomes one of its
        bands for each step, called ``ndvi_1``, ``ndvi_2``, or by the coordinate where it is known:
        ``ndvi_2020-05-01``. ``.zarr``: Zarr with CF coordinates and ``spatial_ref`` (open it with
        ``decode_coords="all"``); array bands keep their dimensions. Local, or any URL that fsspec knows.
    bands : sequence of str, optional
        The bands to write, in this order. Default: all, in the order of the first record.
    nodata : number, optional
        The value that marks missing pixels; it is noted in the file. NaN is replaced by it. Default: NaN,
        in bands of floats.
    dtype : dtype, optional
        Type of all bands. Default: float32, int64 or uint8, as the records have it; a GeoTIFF, which has one
        dtype for all bands, takes the smallest that holds them all, and float32 in place of float16.
        Fractions are rounded where it is an integer type; a value out of its range, or one that is rounded
        to `nodata`, is an error.
    crs : optional
        The CRS, in place of that of the mixer; anything that pyproj understands.
    kernel_size : int or (width, height), optional
        Kernel of the export, where there is no manifest and it cannot be inferred from the length of the
        records.
    tensor_depths : mapping from band to int, optional
        Values a pixel of array bands, where they cannot be told from the length of the records; see
        `xee_tf.open_image`.
    if_exists : {"error", "overwrite"}, optional
        What to do where the destination exists. "overwrite" replaces files, and of folders only Zarr stores
        that this package wrote; the old one stays until the new one is complete.
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
    OptionError
        If an option cannot be used.
    RecordError, MissingShardError, MixerError
        As `xee_tf.open_image`; nothing is left at the destination.

    Examples
    --------
    >>> import rasterio, tempfile
    >>> from affine import Affine
    >>> from xee_tf.geometry import Size
    >>> from xee_tf.upload.writer import PredictionWriter
    >>> folder = tempfile.mkdtemp()
    >>> mixer = Mixer("EPSG:32633", Affine(30, 0, 7e5, 0, -30, 5e6), Size(x=4, y=4), 2, 4)
    >>> with PredictionWriter(f"{folder}/prediction.tfrecord", mixer) as writer:
    ...     writer.write(np.arange(4)[:, None, None] * np.ones((4, 4)))
    >>> raster = upload_image(f"{folder}/prediction.tfrecord", mixer, f"{folder}/map.tif", dtype="uint8")
    >>> with rasterio.open(raster.path) as file:
    ...     file.read(1)[::3, ::3].tolist(), file.crs.to_string(), file.descriptions
    ([[0, 0, 1], [0, 0, 1], [2, 2, 3]], 'EPSG:32633', ('prediction',))
    """
    check_flags(progress=progress)
    nodata = None if nodata is None else _number(nodata)
    stored = None if dtype is None else _dtype(dtype)
    location = Location.of(destination, storage_options)
    written = raster_format(location)
    require_free(location, if_exists, folder=written == "zarr")
    if written == "zarr" and location.exists():
        require_own_store(location)
    options = ReadOptions(
        records=records,
        crs=crs,
        kernel_size=kernel_size,
        tensor_depths=tensor_depths,
        bands=bands,
        storage_options=storage_options,
    )
    reader = open_export(mixer, options)
    check_crs(reader)
    arrays = _convert(reader, stored, nodata, one=written == "tif")
    if written == "zarr":
        names = [*reader.dtypes, *lazy_dataset(reader, "trim", None).coords]
        check_zarr(names, location, "Choose other bands with bands=[...], or write a .tif.")
    require_writable(location)
    with progress_bar(progress):
        if written == "zarr":
            _write_zarr(reader, arrays, location, nodata)
        else:  # steps of array bands are bands of their own
            steps = {band.name: step_names(band, reader.coords) for band in reader.bands}
            write_cog(location, arrays, steps, reader.grid, nodata)
    return location


def raster_format(location: Location) -> Literal["tif", "zarr"]:
    """The format that a destination's name asks for.

    Raises
    ------
    OptionError
        If it is neither a GeoTIFF nor a Zarr.

    Examples
    --------
    >>> raster_format(Location("out/map.TIFF")), raster_format(Location("out/map.zarr"))
    ('tif', 'zarr')
    """
    name = location.name.lower()
    if name.endswith((".tif", ".tiff")):
        return "tif"
    if name.endswith(".zarr"):
        return "zarr"
    raise OptionError(f"{location.name!r} says no format that can be written: end it with .tif or .zarr.")


def _convert(
    reader: OpenedExport, dtype: np.dtype[Any] | None, nodata: float | None, one: bool
) -> dict[str, da.Array]:
    """The lazy bands, in their final dtype."""
    dtypes = reader.dtypes
    if dtype is not None:
        dtypes = dict.fromkeys(dtypes, dtype)
    if one:
        dtypes = dict.fromkeys(dtypes, common_dtype(dtypes.values()))
    for name, target in dtypes.items():
        if nodata is not None and not _is_held(nodata, target):
            raise OptionError(f"nodata={nodata!r} is no value of {target}, the dtype of band {name!r}.")
    arrays = dask_arrays(reader, "trim", {})
    return {name: cast(name, array, dtypes[name], nodata) for name, array in arrays.items()}


def _dtype(dtype: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError):
        found = np.dtype(object)
    if found.kind not in "iuf":
        raise OptionError(f"dtype must be an integer or float type, such as 'uint8'; got {dtype!r}.")
    return found


def _number(nodata: Any) -> int | float:
    """Nodata as a number of Python."""
    if not is_number(nodata):
        raise OptionError(f"nodata must be a number, such as -9999; got {shorten(repr(nodata))}.")
    return int(nodata) if isinstance(nodata, Integral) else float(nodata)


def _is_held(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Whether a dtype has a value, or one that differs by no more than the rounding of float32."""
    held = convert_number(nodata, dtype)
    return held is not None and (math.isnan(held) or math.isclose(held, nodata, rel_tol=1e-7))


def _write_zarr(
    reader: OpenedExport, arrays: Mapping[str, da.Array], location: Location, nodata: float | None
) -> None:
    """Zarr with CF coordinates, chunked as the bands are."""
    dataset = lazy_dataset(reader, "trim", {})
    for name, array in arrays.items():
        dataset[name].data = array
    if nodata is not None:
        for name in arrays:
            dataset[name].encoding["_FillValue"] = dataset[name].dtype.type(nodata)
    target = beside(location).temporary()
    if not location.is_local and not location.exists():
        target = location  # nothing to keep, and objects are not renamed but copied
    try:
        create_store(to_storable(dataset), target, compute=True)
    except BaseException:
        target.clear()
        raise
    if target != location:
        replace_store(target, location)
