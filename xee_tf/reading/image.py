"""Open exported patches as a lazy georeferenced raster."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pyproj
import xarray as xr
from xarray.core import indexing

from xee_tf.errors import MixerError
from xee_tf.georef import GRID_MAPPING, apply_affine, grid_mapping, read_crs, write_georef
from xee_tf.graph import for_xarray
from xee_tf.names import RASTER_NAMES, check_variables
from xee_tf.options import READ_SPELLING, check_flags, one_of, spelled
from xee_tf.reading.lazy import BandArray, band_dims, dask_arrays, preferred_chunks
from xee_tf.reading.opened import Margins, OpenedExport
from xee_tf.reading.opening import open_export
from xee_tf.reading.options import ReadOptions, RecordFiles
from xee_tf.sidecars import Exported, Mixer, differing_crs, dim_lengths

__all__ = ["check_crs", "lazy_dataset", "open_image"]

_PATCH_NAMES = frozenset({"patch", "row", "column", "left", "top"})  # variables added by margins="keep"


@spelled(READ_SPELLING)
def open_image(
    mixer: Exported | Mixer,
    records: RecordFiles | None = None,
    *,
    crs: Any = None,
    default_value: float | None = None,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
    margins: Margins = "trim",
    bands: Sequence[str] | None = None,
    chunks: int | str | Mapping[Hashable, Any] | tuple[Any, ...] | None = {},
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open exported patches, or predictions for them, as a lazy georeferenced raster.

    Files may be from `xee_tf.export_image`, Earth Engine or TensorFlow: compressed or not, in one gzip member
    or several, with float, int64 or bytes lists, with scalar and array bands, with one Example per patch, or
    with one SequenceExample or Example per pixel. Only file sizes and one record are read on opening, and
    indices if there is no manifest. Computing reads the necessary records, and decompresses only the gzip
    members that contain them if xee_tf compressed the shards.

    Parameters
    ----------
    mixer : str, path-like, ExportResult or Mixer
        The mixer (``scene-mixer.json``), as a local path or an fsspec URL. Alternatively the prefix of an
        export (``out/scene``), a folder with one export, the manifest (``scene-image.tfexport``), or the
        result of `xee_tf.export_image`.
    records : str, path-like, ExportResult or sequence of them, optional
        The shards in order: paths, glob patterns or the prefix of numbered files (``out/prediction``); or the
        result of the export that wrote them. Default: the shards next to the mixer, in either naming scheme
        of Earth Engine.
    crs : optional
        The CRS, in any form that pyproj accepts; it overrides the CRS in the mixer.
    default_value : float, optional
        The default value of the export. Pixels with this value become NaN, and integer bands become float32
        or float64 (integers that float64 cannot represent raise an error). Bands whose dtype cannot represent
        it are unchanged, with a warning, because their masked pixels cannot be distinguished from valid ones.
        Default: stored values are not masked.
    kernel_size : int or (int, int), optional
        The kernel size ``(width, height)`` of the export in pixels, which the mixer does not contain.
        Default: the one in the manifest; without a manifest, it is inferred from the length of the records,
        and is square if several kernels fit.
    tensor_depths : mapping of str to int, optional
        Number of values per pixel of array bands. Default: the depths in the manifest, with the names of
        dimensions and their coordinates. Without a manifest, depths are inferred from the length of the
        records: the shortest band is scalar, unless no margin fits its number of values, and the number of
        steps of a series is that of the first record. Pass the depths if several answers fit.
    margins : {"trim", "keep"}, default "trim"
        "trim" returns the raster with dimensions (..., y, x); extra dimensions of array bands come first.
        "keep" returns patches as they are stored, with their margins and dimensions (patch, ..., y, x), and
        coordinates of each patch: its ``row`` and ``column``, and ``left`` and ``top`` of its outer corner.
    bands : sequence of str, optional
        Names of the bands to read, in this order. Default: all bands, in the order of the first record.
    chunks : int, str, tuple, mapping or None, default {}
        The same as in `xarray.open_dataset`. ``{}`` means Dask chunks of whole patches, 1024 to 2048 pixels
        per side (as wide as the raster if another program compressed the records); one task reads all bands
        of a chunk. None means lazy arrays without Dask, which read the records of a window when indexed, once
        for each band: use Dask to load many bands.
    verify : bool, default True
        Whether to verify the CRC-32C of every record that is read and, with a manifest, whether the records
        are those of the export: the runs of records that contain them are compared with its checksums.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    Dataset
        A variable for each band, pixel-center coordinates, and the CRS in CF form (``spatial_ref``). Bands
        are float32, int64 or uint8, as they are stored; with a manifest, integers that were exported with
        ``feature_types="band"`` have the dtype of the source. Steps that a series lacks have the default
        value of the export. Dropped patches (``masked_threshold``) are NaN, or the default value in integer
        bands.

    Raises
    ------
    MissingShardError
        If shards are missing, according to their numbers or to the number of records in the mixer.
    MixerError
        If the mixer or the manifest is not valid or was modified, or they describe different patches.
    GeoreferenceError
        If the CRS in the mixer cannot be parsed; pass the right one as `crs`.
    OptionError
        If an option is not valid, the path is not that of an exported image, or the kernel or depths cannot
        be inferred.
    RecordError
        If a shard is truncated, corrupt, out of order, from another export, or was replaced after it was
        opened. Errors in records are raised when they are computed.

    See Also
    --------
    open_table : Open an exported table.
    verify : Check every byte of an export.

    Examples
    --------
    >>> import tempfile, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.arange(9.0).reshape(3, 3).astype("float32"))},
    ...                 coords={"y": [30.0, 20.0, 10.0], "x": [5.0, 15.0, 25.0]}, attrs={"crs": "EPSG:32633"})
    >>> result = xee_tf.export_image(ds, f"{tempfile.mkdtemp()}/scene", patch_dimensions=1, kernel_size=2)
    >>> opened = open_image(result.mixer)
    >>> opened.B4.values.tolist()
    [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]
    >>> opened.rio.crs.to_string(), opened.x.values.tolist()
    ('EPSG:32633', [5.0, 15.0, 25.0])
    """
    one_of("margins", margins, get_args(Margins))
    check_flags(verify=verify)
    options = ReadOptions(
        records=records,
        crs=crs,
        default_value=default_value,
        kernel_size=kernel_size,
        tensor_depths=tensor_depths,
        bands=bands,
        verify=verify,
        storage_options=storage_options,
    )
    return lazy_dataset(open_export(mixer, options), margins, chunks)


def check_crs(export: OpenedExport) -> pyproj.CRS:
    """Return the CRS of an opened export.

    Raises
    ------
    GeoreferenceError
        If it cannot be parsed.
    MixerError
        If it is a code such as "EPSG:32633", and not the CRS in the manifest. Other names, such as Earth
        Engine's "SR-ORG:6974", replace the CRS in the manifest.
    """
    fix, name = "Pass the right one as crs=, for example crs='EPSG:32633'.", export.source or "the mixer"
    found, right = export.grid.crs, export.written_crs
    crs = read_crs(found, name, fix)
    is_code = (
        right not in (None, found) and ":".join(crs.to_authority() or ()) == found and not crs.is_deprecated
    )
    if is_code and crs != read_crs(right, "the manifest", fix):
        raise MixerError(
            f"{name} does not match the manifest of the export: {differing_crs(str(found), right)} in the "
            f"manifest. {fix}"
        )
    return crs


def lazy_dataset(
    export: OpenedExport,
    margins: Margins,
    chunks: int | str | Mapping[Hashable, Any] | tuple[Any, ...] | None,
) -> xr.Dataset:
    """Return an opened export as a lazy georeferenced Dataset."""
    crs = check_crs(export)
    keep = margins == "keep"
    check_variables(
        {band.name: band.dims for band in export.bands},
        RASTER_NAMES | _PATCH_NAMES if keep else RASTER_NAMES,
        "Choose other bands with bands=[...]" + (", or use margins='trim'." if keep else "."),
    )
    arrays: Mapping[str, Any]
    if chunks is None:
        arrays = {
            name: indexing.LazilyIndexedArray(BandArray(export, name, margins)) for name in export.dtypes
        }
    else:
        arrays = {name: for_xarray(array) for name, array in dask_arrays(export, margins, chunks).items()}
    preferred = preferred_chunks(export, margins)
    variables = {}
    for band in export.bands:
        encoding = {"preferred_chunks": {**preferred, **dim_lengths([band])}}
        attrs = {} if band.units is None else {"units": band.units}
        variables[band.name] = xr.Variable(band_dims(band, margins), arrays[band.name], attrs, encoding)
    dataset = xr.Dataset(variables, coords={dim: (dim, values) for dim, values in export.coords.items()})
    dataset = _locate_patches(dataset, export, crs) if keep else write_georef(dataset, export.grid)
    if export.source is not None:
        dataset.encoding["source"] = export.source
    return dataset


def _locate_patches(dataset: xr.Dataset, export: OpenedExport, crs: pyproj.CRS) -> xr.Dataset:
    """Add the position of each stored patch as coordinates."""
    grid = export.grid
    rows, columns = np.divmod(np.arange(len(grid)), grid.patches_per_row)
    x, y = columns * grid.patch.x - grid.margin.x, rows * grid.patch.y - grid.margin.y
    left, top = apply_affine(grid.affine, np.column_stack((x, y))).T
    corner = "of the outer corner of the first stored pixel"
    coords = {
        "row": ("patch", rows, {"long_name": "row of patches"}),
        "column": ("patch", columns, {"long_name": "column of patches"}),
        "left": ("patch", left, {"long_name": f"x {corner}"}),
        "top": ("patch", top, {"long_name": f"y {corner}"}),
        GRID_MAPPING: grid_mapping(crs),
    }
    return dataset.assign_coords(coords)
