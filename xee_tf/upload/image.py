"""Convert predictions to a georeferenced raster file, as ``earthengine upload image`` does for assets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import dask.array as da
import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import is_storable, parse_dtype
from xee_tf.errors import OptionError, shorten
from xee_tf.georef import Conventions, add_conventions, check_conventions, read_georef
from xee_tf.graph import store_chunks
from xee_tf.names import check_zarr
from xee_tf.options import READ_SPELLING, IfExists, check_flags, one_of, spelled
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
from xee_tf.signals import NOTHING_CHANGED, explain_interruption, interruptible
from xee_tf.storage import (
    Location,
    PathLike,
    beside,
    claim,
    clear_store,
    earlier_store,
    explain_changes,
    finish_store,
    has_root,
    interruption,
    is_finished,
    look,
    prepare_store,
    read_record,
    recover,
    refuse_resuming,
    remove_other_runs,
    replace_store,
    require_free,
    require_own_store,
    require_reachable,
    require_writable,
    stored_bands,
    to_storable,
)
from xee_tf.upload.casting import cast, common_dtype, is_representable, read_nodata
from xee_tf.upload.cog import POLICIES, OverviewResampling, require_no_overviews, write_arrays
from xee_tf.upload.destination import raster_format

__all__ = ["upload_image"]

_SPELLING = replace(READ_SPELLING, what="upload options", aliases={**READ_SPELLING.aliases, **POLICIES})

_UPLOAD = "upload"  # the key of what a store was written from, in its record


@spelled(_SPELLING)
@interruptible()
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
    overview_resampling: OverviewResampling = "nearest",
    conventions: Conventions = "cf",
    if_exists: IfExists = "error",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Convert prediction records and the mixer of their patches to a GeoTIFF or Zarr.

    The raster is processed chunk by chunk, and never loaded into memory as a whole.

    Parameters
    ----------
    records : str, path-like, ExportResult or sequence of them, or None
        TFRecord files, gzipped or not, in order: paths, glob patterns, or the prefix of numbered files
        (``out/prediction`` for ``out/prediction-00000.tfrecord.gz`` and so on). They contain one Example per
        patch, in the order of the patches, which may include the margin of the export, which is trimmed; or
        an Example or a SequenceExample for each pixel, row-major within each patch. None: the shards next to
        the mixer, which converts the export itself.
    mixer : str, path-like, ExportResult or Mixer
        The mixer of the exported patches, or another reference to an export that `xee_tf.open_image` accepts.
    destination : str or path-like
        A local path or an fsspec URL. ``.tif`` or ``.tiff``: a cloud-optimized GeoTIFF with overviews, with a
        band for each step of an array band, named ``ndvi_1``, ``ndvi_2``, or after the coordinate if it is
        known: ``ndvi_2020-05-01``. ``.zarr``: a Zarr store with CF coordinates and ``spatial_ref`` (open it
        with ``decode_coords="all"``), in which array bands keep their dimensions.
    bands : sequence of str, optional
        Bands to write, in this order. By default all bands, in the order of the first record.
    nodata : float, optional
        Nodata value of the file, which also replaces NaN. By default NaN for float bands.
    dtype : dtype, optional
        Dtype of all bands. By default the dtype of the records: float32, int64 or uint8. All bands of a
        GeoTIFF have the same dtype: by default the smallest one that can represent them all, and float32
        instead of float16. An integer dtype rounds fractions; a value that is out of range, or that is
        rounded to `nodata`, raises an error.
    crs : object, optional
        CRS that overrides that of the mixer: anything that pyproj accepts.
    kernel_size : int or (width, height), optional
        Kernel size of the export in pixels, if there is no manifest and it cannot be inferred from the length
        of the records.
    tensor_depths : mapping of str to int, optional
        Number of values per pixel of array bands, if it cannot be inferred from the length of the records;
        see `xee_tf.open_image`.
    overview_resampling : {"nearest", "mean", "mode"} or mapping of str to these, default "nearest"
        How the overviews of a GeoTIFF are computed, for all bands or by band; see `xee_tf.to_cog`. A Zarr
        store has none.
    conventions : {"cf", "cf+zarr"}, default "cf"
        Conventions of the georeference of a Zarr store. "cf+zarr" adds the attributes of the Zarr conventions
        proj and spatial (``proj:code``, ``spatial:transform`` and so on) to those of CF.
    if_exists : {"error", "overwrite", "resume"}, default "error"
        What to do if the destination or one of the side files of a GeoTIFF (``.aux.xml``, ``.ovr``, ``.msk``,
        world files, RPCs) exists. "overwrite" replaces files, with their side files, and Zarr stores that
        this package wrote, but no other folders; the old data remains until the new data is complete.
        "resume" writes the destination if it is missing. A complete Zarr store is kept if it was written from
        the same records with the same options, which is otherwise an error, as is any existing GeoTIFF, which
        does not tell what it was written from.
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
    OptionError
        If an option is invalid.
    RecordError, MissingShardError, MixerError
        As for `xee_tf.open_image`. The destination is not written in this case.

    Notes
    -----
    A Zarr store cannot be opened before it is complete, because the metadata of its root are written last. In
    an object store, where objects cannot be renamed, the objects of a complete new store are copied over the
    old one: the old store is lost as soon as this begins, and neither can be opened until it has ended.

    "resume" compares the size and time (in object stores: the ETag) of record files, not their bytes.

    Examples
    --------
    >>> import numpy as np, rasterio, tempfile, xee_tf
    >>> from affine import Affine
    >>> folder = tempfile.mkdtemp()
    >>> affine = Affine(30, 0, 7e5, 0, -30, 5e6)
    >>> mixer = xee_tf.Mixer("EPSG:32633", affine, xee_tf.Size(x=4, y=4), 2, 4)
    >>> records = f"{folder}/prediction.tfrecord"
    >>> with xee_tf.PredictionWriter(records, mixer) as writer:
    ...     writer.write(np.arange(4)[:, None, None] * np.ones((4, 4)))
    >>> raster = xee_tf.upload_image(records, mixer, f"{folder}/map.tif", dtype="uint8")
    >>> with rasterio.open(raster.path) as file:
    ...     file.read(1)[::3, ::3].tolist(), file.crs.to_string(), file.descriptions
    ([[0, 0, 1], [0, 0, 1], [2, 2, 3]], 'EPSG:32633', ('prediction',))
    """
    check_flags(progress=progress)
    nodata = None if nodata is None else read_nodata(nodata)
    stored = None if dtype is None else _dtype(dtype)
    location = Location.of(destination, storage_options)
    written = raster_format(location)
    one_of("if_exists", if_exists, get_args(IfExists))
    check_conventions(conventions, zarr=written == "zarr")
    require_reachable(location, zarr=written == "zarr")
    if written == "tif":
        require_free(location, if_exists)
    elif not _unfinished(location) and not interruption(beside(location)):
        require_free(location, if_exists, folder=True)
        if if_exists == "overwrite" and location.exists():
            require_own_store(location)
    options = ReadOptions(
        records=records,
        crs=crs,
        kernel_size=kernel_size,
        tensor_depths=tensor_depths,
        bands=bands,
        storage_options=storage_options,
    )
    if written == "zarr":
        require_no_overviews(overview_resampling)
    reader = open_export(mixer, options)
    check_crs(reader)
    arrays = _convert(reader, stored, nodata, one=written == "tif")
    if written == "zarr":
        names = [*reader.dtypes, *lazy_dataset(reader, "trim", None).coords]
        check_zarr(names, location, "Select other bands with bands=[...], or write a .tif.")
    require_writable(location)
    if written == "zarr":
        _write_zarr(reader, arrays, location, nodata, conventions, if_exists, progress)
    else:  # each step of an array band becomes a band
        steps = {band.name: step_names(band, reader.coords) for band in reader.bands}
        write_arrays(location, arrays, steps, reader.grid, nodata, overview_resampling, if_exists, progress)
    return location


def _convert(
    reader: OpenedExport, dtype: np.dtype[Any] | None, nodata: float | None, one: bool
) -> dict[str, da.Array]:
    """Return the lazy bands in their output dtype."""
    dtypes = reader.dtypes
    if dtype is not None:
        dtypes = dict.fromkeys(dtypes, dtype)
    if one:
        dtypes = dict.fromkeys(dtypes, common_dtype(dtypes.values()))
    for name, target in dtypes.items():
        if nodata is not None and not is_representable(nodata, target):
            raise OptionError(
                f"nodata={nodata!r} cannot be represented as {target}, the dtype of band {name!r}. Choose "
                "another nodata= or dtype=."
            )
    arrays = dask_arrays(reader, "trim", {})
    return {name: cast(name, array, dtypes[name], nodata) for name, array in arrays.items()}


def _dtype(dtype: Any) -> np.dtype[Any]:
    found = parse_dtype(dtype)
    if found is None or found.kind == "b" or not is_storable(found):
        raise OptionError(
            "dtype must be an integer or float type of at most 64 bits, such as 'uint8'; got "
            f"{shorten(repr(dtype))}."
        )
    return found


def _unfinished(store: Location) -> bool:
    """Return whether a store is the rest of an upload that was killed, which the next one replaces."""
    return store.exists() and _UPLOAD in read_record(store) and not has_root(store)


def _describe(reader: OpenedExport, arrays: Mapping[str, da.Array], nodata: float | None) -> dict[str, str]:
    """Describe what the pixels of an upload depend on; files are described by their size and time."""
    files = [(shard.location.url, look(shard.location, [shard.location])) for shard in reader.shards]
    return {
        "files": hashlib.sha256(repr(files).encode()).hexdigest(),
        "grid": repr(reader.grid),
        "bands": repr([(name, str(array.dtype), array.chunks) for name, array in arrays.items()]),
        "nodata": repr(nodata),
        "coordinates": repr({name: values.tolist() for name, values in reader.coords.items()}),
    }


def _require_same(store: Location, description: Mapping[str, str]) -> None:
    """Raise an error if a store was not written from the same records with the same options.

    If the process was killed before its last change, which marks the store as complete, that is done.
    """
    record = read_record(store)
    was = record.get(_UPLOAD)
    if was is None:
        difference = "it was not written by xee_tf.upload_image"
    elif part := next((part for part in description if was.get(part) != description[part]), ""):
        before, now = (shorten(str(found.get(part)), 200) for found in (was, description))
        difference = (
            f"its {part} would be {now} instead of {before}"
            if part != "files"
            else ("it was written from other records, or from files that have changed since")
        )
    else:
        difference = explain_changes(store)
        if not difference and not is_finished(store):
            if "root" in record:
                finish_store(store)
            else:
                difference = "it is not complete"
    if difference:
        refuse_resuming(store, difference)


def _write_zarr(
    reader: OpenedExport,
    arrays: Mapping[str, da.Array],
    location: Location,
    nodata: float | None,
    conventions: Conventions,
    if_exists: IfExists,
    progress: bool,
) -> None:
    """Write a Zarr store with CF coordinates and the chunks of the bands."""
    description = {**_describe(reader, arrays, nodata), "conventions": conventions}
    dataset = lazy_dataset(reader, "trim", {})
    dataset = add_conventions(dataset, read_georef(dataset), conventions)
    for name, array in arrays.items():
        dataset[name].data = array
    if nodata is not None:
        for name in arrays:
            dataset[name].encoding["_FillValue"] = dataset[name].dtype.type(nodata)
    with claim(beside(location)) as run:
        recover(run.destination)
        remove_other_runs(run)
        store = run.destination
        if not _unfinished(store):
            if if_exists == "resume" and store.exists():
                _require_same(store, description)
                return
            require_free(store, "overwrite" if if_exists == "overwrite" else "error", folder=True)
            if store.exists():
                require_own_store(store)
        earlier = earlier_store(store)
        run.sign()
        # Objects cannot be renamed, so they are staged only if there is a complete store to keep.
        target = run.staged(store)
        if not store.is_local and not (store.exists() and has_root(store)):
            clear_store(store, run)
            target = store
        try:
            prepare_store(to_storable(dataset), target, run, **{_UPLOAD: description})
            store_chunks(arrays, stored_bands(target, arrays, run), progress)
            finish_store(target)
            if target != store:
                replace_store(run, earlier)
        except BaseException as error:
            run.abort()
            if target == store:
                target.clear()
            explain_interruption(error, NOTHING_CHANGED)
            raise
        run.remove()
