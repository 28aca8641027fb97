"""Exported patches as a lazy, georeferenced raster."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pyproj
import xarray as xr
from xarray.core import indexing

from xee_tf.georef import GRID_MAPPING, apply_affine, grid_mapping, read_crs, write_georef
from xee_tf.names import RASTER_NAMES, check_variables
from xee_tf.options import READ_SPELLING, check_flags, one_of, spelled
from xee_tf.reading.lazy import BandArray, band_dims, dask_arrays, preferred_chunks
from xee_tf.reading.opened import Margins, OpenedExport
from xee_tf.reading.opening import open_export
from xee_tf.reading.options import ReadOptions, RecordFiles
from xee_tf.sidecars import Exported, Mixer, dim_lengths

__all__ = ["check_crs", "lazy_dataset", "open_image"]

_PATCH_NAMES = frozenset({"patch", "row", "column", "left", "top"})  # what margins="keep" adds


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
    """Open exported patches, or predictions made from them, as a lazy georeferenced raster.

    Reads what `xee_tf.export_image`, Earth Engine or TensorFlow wrote: compressed or not, in one
    gzip member or many, with float, int64 or byte lists, scalar and array bands, an Example for each
    patch, or a SequenceExample or Example for each pixel. Nothing but sizes, indices and one record
    is read until pixels are asked for; then only the records that hold them, and of shards that xee_tf
    compressed only the gzip members that hold those.

    Parameters
    ----------
    mixer : str, path-like, ExportResult or Mixer
        The mixer (``scene-mixer.json``): a local path or any URL that fsspec knows. Or the prefix of an
        export (``out/scene``), a folder with one export, its manifest (``scene-image.tfexport``), or what
        `xee_tf.export_image` returned.
    records : str, path-like, ExportResult or sequence of them, optional
        The shards in order, or the export that wrote them. Default: those beside the mixer, in either of
        Earth Engine's namings.
    crs : optional
        The CRS, in place of that of the mixer; anything that pyproj understands.
    default_value : number, optional
        The default value of the export: pixels that are equal to it become NaN, and bands of integers
        become float32 or float64 (integers that float64 cannot hold are an error). Bands whose type cannot
        hold it are left as they are, with a warning: their masked pixels look like valid ones. Default:
        values stay as they are stored.
    kernel_size : int or (width, height), optional
        The kernel of the export, which the mixer does not hold. Default: that of the manifest beside the
        mixer; without one, inferred from the length of the records, a square one where several fit.
    tensor_depths : mapping from band to int, optional
        Values a pixel of array bands. Default: those of the manifest, with the names of dimensions and
        their coordinates. Without a manifest they are inferred from the length of the records: the shortest
        band is a scalar one, unless it has too many values even for a margin; a series has the steps of
        the first record. Where several answers fit, give the depths.
    margins : {"trim", "keep"}, optional
        "trim": the raster, dimensions (y, x), further ones of array bands in front of them. "keep":
        patches as they are stored, with their margins, dimensions (patch, ..., y, x), and coordinates
        ``row`` and ``column`` (which patch it is) and ``left`` and ``top`` (where the corner of its margin
        lies).
    bands : sequence of str, optional
        Bands to read, in this order. Default: all, in the order of the first record.
    chunks : int, str, tuple, mapping or None, optional
        As in `xarray.open_dataset`. Default, ``{}``: Dask chunks of whole patches, 1024 to 2048 pixels
        a side (as wide as the raster where another program compressed the records); all bands of a
        chunk are read by one task. None: no Dask, read when indexed, just the records of a window.
    verify : bool, optional
        Check the CRC-32C of every record that is read, and with a manifest that records are those of
        this export. Default: True.
    storage_options : mapping, optional
        Handed to fsspec.

    Returns
    -------
    Dataset
        A variable for each band: float32, int64 or uint8. Pixel-centre coordinates, and the CRS as CF
        has it (``spatial_ref``). Steps that a series lacks have the export's default value. Patches that
        were dropped (``masked_threshold``) are NaN, or the default value in bands of integers.

    Raises
    ------
    MissingShardError
        If shards are missing, by their numbers or by the records that the mixer announces.
    MixerError
        If the mixer or the manifest is not valid, or they do not describe the same patches.
    GeoreferenceError
        If the CRS cannot be understood; give the right one as `crs`.
    OptionError
        If an option cannot be used, or the kernel cannot be told.
    RecordError
        If a shard is truncated, corrupt or out of place. What only reading can show is raised by
        computing.

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
    """The CRS of an opened export, if it can be understood."""
    mend = "Give the right one with crs=, for example crs='EPSG:32633'."
    return read_crs(export.grid.crs, export.source or "the mixer", mend)


def lazy_dataset(
    export: OpenedExport,
    margins: Margins,
    chunks: int | str | Mapping[Hashable, Any] | tuple[Any, ...] | None,
) -> xr.Dataset:
    """The Dataset of an opened export, with its place; reads nothing."""
    crs = check_crs(export)
    keep = margins == "keep"
    check_variables(
        {band.name: band.dims for band in export.bands},
        RASTER_NAMES | _PATCH_NAMES if keep else RASTER_NAMES,
        "Choose other bands with bands=[...]" + (", or read with margins='trim'." if keep else "."),
    )
    arrays: Mapping[str, Any]
    if chunks is None:
        arrays = {
            name: indexing.LazilyIndexedArray(BandArray(export, name, margins)) for name in export.dtypes
        }
    else:
        arrays = dask_arrays(export, margins, chunks)
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
    """Add the place of each stored patch as coordinates."""
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
