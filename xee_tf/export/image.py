"""Exporting an image: from an xarray object and options to a plan, from a plan to a Dask graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import xarray as xr
from affine import Affine

from xee_tf.blocks import lay_out_blocks, pixel_bytes
from xee_tf.errors import DestinationExistsError, OptionError, warn
from xee_tf.export.bands import read_bands
from xee_tf.export.graph import ExportJob, export_graph
from xee_tf.export.options import IMAGE_SPELLING, ExportKeywords, ExportOptions, ExportSource
from xee_tf.export.patches import records_of
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportResult
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import read_georef, region_window, spatial_dims, whole_image
from xee_tf.graph import Delayed, chunk_grids, run_graph
from xee_tf.labels import file_labels
from xee_tf.names import RASTER_NAMES, check_variables
from xee_tf.options import parse, spelled
from xee_tf.shards import IMAGE_MEMBER, PartStore, aborted_on_failure, patches_per_member
from xee_tf.sidecars import ExportNames, export_prefix, image_files
from xee_tf.storage import Location, PathLike, require_free, require_reachable, require_writable

__all__ = ["Image", "export_image", "plan_export"]

Image = xr.Dataset | xr.DataArray | Sequence[xr.Dataset | xr.DataArray]


@spelled(IMAGE_SPELLING, ExportOptions, ExportSource)
def export_image(
    image: Image, destination: PathLike, **options: Unpack[ExportKeywords]
) -> ExportResult | dict[str, ExportResult] | Delayed:
    """Export a raster as overlapping patches in TFRecord with a mixer, as Earth Engine does.

    Writes ``<destination>-00000.tfrecord.gz`` ... and ``<destination>-mixer.json``: one ``tf.train.Example``
    for each patch, row-major from the top left across all shards; one feature for each band, pixels
    row-major. The bytes do not depend on how the raster is chunked or which scheduler runs.

    All options are known in Earth Engine's spelling too, as in ``ee.batch.Export.image``:
    ``patchDimensions=[256, 256]``, ``tfrecordPatchDimensions=[256, 256]``, ``formatOptions``,
    ``fileFormat="TFRecord"``, and ``fileNamePrefix`` for `destination`. Those that do not exist here, such as
    ``scale``, are refused with what takes their place.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        A variable for each band, or a ``band`` dimension. Several images on one grid are exported
        as one, with the bands of all (see `xee_tf.add_bands`).
    destination : str or path-like
        Prefix of the files: a local path or any URL that fsspec knows.
    patch_dimensions : int or (width, height)
        Pixels of a patch without its margin; Earth Engine's ``patchDimensions``. Default: 256 x 256.
    kernel_size : int or (width, height)
        A stored patch has half of it as a margin on every side, filled with the real pixels around:
        ``patch + 2 * (kernel // 2)``. Default: 1, no margin.
    compressed : bool
        Gzip the shards (default, as Earth Engine's guide says).
    max_file_size : int
        A shard is full when one more record would make it larger, in bytes before compression.
        Default: 1 GiB.
    default_value : number
        Written where a band is masked: NaN, ``_FillValue``/nodata, `mask`, or outside the raster. For
        integer bands the fraction is dropped and the number clamped to the type's range; a warning names
        the bands that cannot hold it. Default: 0.
    tensor_depths : mapping from band to int, optional
        Depth of every array band (a variable with further dimensions, such as time): it is truncated to
        that, or filled up with `default_value`, and written channel, height, width. A sequence has one
        depth for each array band. Default: the length that each has.
    sequence_data : bool
        Write a ``SequenceExample`` for each pixel, row-major in its patch: scalar bands as context, array
        bands as feature lists, a list of one value for each step. Pixels have no margins.
    collapse_bands : bool
        All bands, array bands included, as one tensor (with `sequence_data`: one series) under the
        first band's name, promoted to byte, int64 or float, whichever holds them all.
    split_dim : str, optional
        A dimension, such as "time", of which each step becomes an export of its own: the prefix is
        followed by ``_<date>`` (or the coordinate as text), and the result is a dictionary.
    drop_masked_steps : bool
        With `sequence_data`: write only the steps that are not masked, so that series are ragged.
    masked_threshold : float
        Patches with a larger proportion of masked pixels (masked in any band, margins included) are
        left out. Below 1 no mixer is written, as in Earth Engine; `index` keeps the georeference.
    format_options : mapping
        The same options in Earth Engine's spelling, ``{"patchDimensions": [256, 256]}``.
    region : optional
        Export a part: ``(left, bottom, right, top)``, a GeoJSON-like geometry (its bounding box is
        exported), or ``(slice_y, slice_x)`` in pixels. Margins show the real pixels around it.
    region_crs : optional
        CRS of `region`. Default: the raster's for a bounding box, EPSG:4326 for GeoJSON.
    mask : DataArray or str
        Boolean, true where pixels are masked in all bands; or the name of such a variable, which is
        then not a band.
    edge : {"drop", "pad"}
        Patches that do not fit at the right and bottom edges are dropped, as in Earth Engine, or
        kept and filled up with `default_value`.
    feature_types : {"float", "band"}
        "float": all bands as float lists (Earth Engine's guide). "band": as Earth Engine's writer
        does, uint8 as bytes, other integers as int64 lists, floats as float lists.
    index : bool
        Also write ``<destination>-index.parquet`` (GeoParquet): file, record, patch, row, column,
        proportion of masked pixels and outline of every record.
    if_exists : {"error", "overwrite"}
        What to do where an export with this prefix exists.
    crs, transform : optional
        CRS and affine, where the image has none or a wrong one.
    progress : bool
        Show a bar.
    compute : bool
        If false, return a Delayed and touch nothing. It checks `if_exists` again when it is computed.
    storage_options : mapping
        Handed to fsspec.

    Returns
    -------
    ExportResult or Delayed
        With `split_dim` a dictionary of ExportResults, by the ending of their prefixes.

    Raises
    ------
    OptionError, GeoreferenceError, GridMismatchError
        Before anything is written. Among others if a dimension has no steps, or if a band or a further
        dimension is named ``x``, ``y`` or ``spatial_ref``, so that `xee_tf.open_image` could not read it.
    DestinationExistsError
        If there is an export of this name and `if_exists` is "error".

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.ones((300, 300), "float32"))},
    ...                 coords={"y": 5e6 - 30 * np.arange(300.0), "x": 7e5 + 30 * np.arange(300.0)},
    ...                 attrs={"crs": "EPSG:32633"})
    >>> folder = tempfile.mkdtemp()
    >>> result = xee_tf.export_image(ds, f"{folder}/scene", patch_dimensions=128, kernel_size=32)
    >>> result.records, [file.path.rsplit("/")[-1] for file in result.files]
    (4, ['scene-00000.tfrecord.gz'])
    """
    source = parse(ExportSource, options)
    prefix = export_prefix(destination, source.storage_options)
    require_reachable(prefix)
    jobs = _jobs(image, prefix, parse(ExportOptions, options), source)
    for message in jobs[0].plan.warnings:
        warn(message)
    for job in jobs:
        existing = job.plan.names.existing()
        if existing and job.plan.options.if_exists == "error":
            raise DestinationExistsError(
                f"{existing[0]} exists ({len(existing)} files of that export): choose another prefix, or "
                "replace it with if_exists='overwrite'."
            )
        for folder in image_files(job.plan.names.prefix, folders=True):
            require_free(folder, "overwrite")
    require_writable(jobs[0].plan.names.prefix)
    stores = [PartStore.begin(job.plan.names) for job in jobs]
    delayed = export_graph(jobs, stores)
    if not source.compute:
        return delayed
    with aborted_on_failure(stores):
        return run_graph(delayed, source.progress)


@spelled(IMAGE_SPELLING, ExportOptions, ExportSource)
def plan_export(
    image: Image, destination: PathLike | None = None, **options: Unpack[ExportKeywords]
) -> ExportPlan:
    """What `export_image` would write, without reading a pixel.

    Parameters
    ----------
    image, destination, **options
        As for `export_image`; `destination` may be omitted.

    Returns
    -------
    ExportPlan
        Patches, dropped pixels, record size, shards, bytes, tasks and memory, with a picture in a
        notebook.

    Raises
    ------
    OptionError, GeoreferenceError, GridMismatchError
        As `export_image` does.
    """
    source = parse(ExportSource, options)
    location = None if destination is None else export_prefix(destination, source.storage_options)
    jobs = _jobs(image, location or Location(""), parse(ExportOptions, options), source)
    return replace(jobs[0].plan, named=location is not None, exports=len(jobs))


def _jobs(image: Image, prefix: Location, options: ExportOptions, source: ExportSource) -> list[ExportJob]:
    """The exports that are asked for: one, or one for each step of a dimension."""
    split_dim, mask = source.split_dim, source.mask
    dataset = whole_image(
        image, "export", crs=source.crs, transform=source.transform, split=split_dim != "band"
    )
    if split_dim is None:
        return [_job(dataset, prefix, options, source)]
    if split_dim not in dataset.dims:
        raise OptionError(f"split_dim={split_dim!r} is not a dimension; there are {list(dataset.dims)}.")
    if split_dim in spatial_dims(dataset):
        raise OptionError(
            f"split_dim={split_dim!r} is a dimension of the raster's grid: an export needs both of these."
        )
    jobs = []
    values = dataset.coords[split_dim].values if split_dim in dataset.coords else None
    for step, label in enumerate(file_labels(values, dataset.sizes[split_dim])):
        own = source
        if isinstance(mask, xr.DataArray) and split_dim in mask.dims:
            own = replace(source, mask=mask.isel({split_dim: step}, drop=True))
        one = dataset.isel({split_dim: step}, drop=True)
        jobs.append(_job(one, prefix.with_suffix(f"_{label}"), options, own, label))
    return jobs


def _job(
    dataset: xr.Dataset, prefix: Location, options: ExportOptions, source: ExportSource, label: str = ""
) -> ExportJob:
    """Everything about one export that can be known without reading a pixel."""
    georef = read_georef(dataset, crs=source.crs, transform=source.transform)
    for axis in ("x", "y"):
        length, kernel = getattr(georef.shape, axis), getattr(options.kernel_size, axis)
        if kernel > length:
            raise OptionError(
                f"A kernel of {kernel} pixels is larger than the raster: {length} along {axis}."
            )
    window = georef.shape.window
    if source.region is not None:
        window = region_window(source.region, georef, source.region_crs)
    grid = PatchGrid(
        shape=window.size,
        patch=options.patch_dimensions,
        margin=PatchGrid.margin_of(options.kernel_size),
        affine=georef.affine @ Affine.translation(window.left, window.top),
        crs=georef.crs_text,
        edge=options.edge,
        origin=Size(x=window.left, y=window.top),
    )
    bands, arrays = read_bands(dataset, georef, options, source.mask)
    check_variables(
        {band.name: band.dims for band in bands.bands},
        RASTER_NAMES,
        "It could not be read again. Rename it, for example ds.rename({'x': 'x_1'}).",
    )
    record = records_of(bands, grid.stored, options)
    plan = ExportPlan(
        names=ExportNames(prefix, options.compressed),
        grid=grid,
        band_plan=bands,
        record=record,
        block_layout=lay_out_blocks(
            grid,
            georef.shape,
            chunk_grids(arrays),
            pixel_bytes(bands.rules),
            patches_per_member(record.framed_size * record.per_patch, grid.patches_per_row, IMAGE_MEMBER),
        ),
        options=options,
    )
    return ExportJob(plan, arrays, label)
