"""Export an image: from an xarray object and options to a plan, and from a plan to a Dask graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import xarray as xr
from affine import Affine
from dask.utils import format_bytes

from xee_tf.blocks import lay_out_blocks, pixel_bytes
from xee_tf.display import quoted
from xee_tf.errors import OptionError, warn
from xee_tf.export.bands import read_bands
from xee_tf.export.choosing import PatchChoice
from xee_tf.export.graph import BLOCK_TASKS, complete_graph, export_graph
from xee_tf.export.job import ExportJob
from xee_tf.export.joining import store_of
from xee_tf.export.options import IMAGE_SPELLING, ExportKeywords, ExportOptions, ExportSource
from xee_tf.export.patches import plan_records
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportResult
from xee_tf.export.resuming import complete_export, identify_export
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import read_georef, region_window, spatial_dims, whole_image
from xee_tf.graph import Counted, Delayed, centered_axes, chunk_grids, on_cluster, run_graph
from xee_tf.identity import IdentityOptions
from xee_tf.labels import file_labels
from xee_tf.names import RASTER_NAMES, check_variables
from xee_tf.options import parse, spelled
from xee_tf.records import MOST_RECORD_BYTES
from xee_tf.sampling import PatchSelection, PatchSplit
from xee_tf.shards import IMAGE_MEMBER, ShardStore, aborted_on_failure, patches_per_member
from xee_tf.sidecars import ExportNames, export_prefix, image_files
from xee_tf.signals import interruptible
from xee_tf.storage import Location, PathLike, begin, require_free, require_reachable, require_writable

__all__ = ["Image", "export_image", "image_job", "plan_export"]

Image = xr.Dataset | xr.DataArray | Sequence[xr.Dataset | xr.DataArray]


@spelled(IMAGE_SPELLING, ExportOptions, ExportSource, IdentityOptions)
@interruptible()
def export_image(
    image: Image, destination: PathLike, **options: Unpack[ExportKeywords]
) -> ExportResult | dict[str, ExportResult] | Delayed:
    """Export a raster as TFRecord files of overlapping patches and a mixer, as Earth Engine does.

    Writes ``<destination>-00000.tfrecord.gz`` ... and ``<destination>-mixer.json``: one ``tf.train.Example``
    for each patch, in row-major order from the top left across all shards. An Example has one feature for
    each band, with the pixels in row-major order. The bytes do not depend on the chunks of the raster or on
    the Dask scheduler.

    Options are also accepted in Earth Engine's spelling, as in ``ee.batch.Export.image``:
    ``patchDimensions=[256, 256]``, ``tfrecordPatchDimensions=[256, 256]``, ``formatOptions``,
    ``fileFormat="TFRecord"``, and ``fileNamePrefix`` for `destination`. Unsupported options, such as
    ``scale``, raise an error that explains what to use instead.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        A raster with one variable for each band, or with a ``band`` dimension. Several images on the same
        grid are exported together as one image with all bands (see `xee_tf.add_bands`).
    destination : str or path-like
        Prefix of the files: a local path that is not a folder, or any URL that fsspec supports.
    **options
        See `ExportOptions` and `ExportSource`.

    Returns
    -------
    ExportResult, dict of str to ExportResult, or Delayed
        The written files; with `split_dim` or `split`, a result for each step or side, by the suffix of its
        prefix; if `compute` is False, a Delayed of these.

    Raises
    ------
    OptionError
        If the type of `image` or an option is not supported, a dimension is empty, or a band or an
        additional dimension is named ``x``, ``y`` or ``spatial_ref``, which `xee_tf.open_image` could not
        read. All errors are raised before anything is written.
    GeoreferenceError
        If the image has no usable georeference.
    GridMismatchError
        If images or `mask` are on different grids.
    DestinationError
        If `destination` cannot be written to.
    DestinationExistsError
        If an export with this prefix exists and `if_exists` is "error", or if `if_exists` is "resume" and the
        export that exists, or was interrupted, was written from something else.

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

    One export for each side of a split, without a common pixel:

    >>> split = {"train": 0.7, "test": 0.3}
    >>> sides = xee_tf.export_image(ds, f"{folder}/side", patch_dimensions=10, split=split)
    >>> {side: result.records for side, result in sides.items()}
    {'train': 625, 'test': 275}
    """
    source = parse(ExportSource, options)
    prefix = export_prefix(destination, source.storage_options)
    require_reachable(prefix)
    jobs = _jobs(image, prefix, parse(ExportOptions, options), source)
    for job in jobs:
        for folder in image_files(job.plan.names.prefix, folders=True):
            require_free(folder, "overwrite")
    require_writable(jobs[0].plan.names.prefix)
    jobs = _with_patches(jobs, source)
    for message in jobs[0].plan.warnings:
        warn(message)
    if jobs[0].plan.options.if_exists == "resume":
        identity = parse(IdentityOptions, options).identity
        jobs = [replace(job, identity=identify_export(job, identity)) for job in jobs]
    found = {job.label: complete_export(job.plan, job.identity, source.compute) for job in jobs}
    results = {label: result for label, result in found.items() if result is not None}
    todo = [job for job in jobs if job.label not in results]
    if not todo:
        if not source.compute:
            return complete_graph(jobs)
        return results if jobs[0].label else results[""]
    complete = {job.label: results[job.label] if source.compute else job for job in jobs if job not in todo}
    stores: list[ShardStore] = []
    with aborted_on_failure(stores if source.compute else []):
        for job in todo:
            names, if_exists = job.plan.names, job.plan.options.if_exists
            staging, earlier = begin(names.prefix, names.existing, if_exists, source.compute, job.identity)
            stores.append(store_of(job.plan, staging, earlier))
        in_this_process = source.compute and not on_cluster()
        delayed = export_graph(todo, stores, complete, list(found), in_this_process=in_this_process)
        if not source.compute:
            return delayed
        return run_graph(delayed, Counted(BLOCK_TASKS, "block", "exported") if source.progress else None)


@spelled(IMAGE_SPELLING, ExportOptions, ExportSource, IdentityOptions)
def plan_export(
    image: Image, destination: PathLike | None = None, **options: Unpack[ExportKeywords]
) -> ExportPlan:
    """Return what `export_image` would write, without reading pixels, except those of labels in `sample`.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        The raster, as for `export_image`.
    destination : str or path-like, optional
        Prefix of the files, as for `export_image`. Default: the plan has no file names.
    if_exists : {"error", "overwrite", "resume"}, default "error"
        No effect on a plan.
    identity : str, optional
        No effect on a plan.
    progress : bool, default False
        No effect on a plan.
    compute : bool, default True
        No effect on a plan.
    **options
        See `ExportOptions` and `ExportSource`.

    Returns
    -------
    ExportPlan
        The patches, dropped pixels, record size, shards, bytes, tasks and memory; shown with a picture in
        notebooks. With `split_dim` or `split`, the plan of the first step or side.

    Raises
    ------
    OptionError
        If the type of `image` or an option is not supported.
    GeoreferenceError
        If the image has no usable georeference.
    GridMismatchError
        If images or `mask` are on different grids.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.zeros((600, 500), "uint8"))},
    ...                 coords={"y": 5e6 - 30 * np.arange(600.0), "x": 7e5 + 30 * np.arange(500.0)},
    ...                 attrs={"crs": "EPSG:32633"})
    >>> plan = xee_tf.plan_export(ds, patch_dimensions=128, kernel_size=32)
    >>> plan.records, plan.shards
    (12, 1)
    """
    source = parse(ExportSource, options)
    location = None if destination is None else export_prefix(destination, source.storage_options)
    jobs = _jobs(image, location or Location(""), parse(ExportOptions, options), source)
    jobs = _with_patches(jobs, source)
    return replace(jobs[0].plan, named=location is not None, exports=len(jobs))


def _jobs(image: Image, prefix: Location, options: ExportOptions, source: ExportSource) -> list[ExportJob]:
    """Return the jobs of an export: one, or one for each step of `split_dim`."""
    split_dim, mask = source.split_dim, source.mask
    dataset = whole_image(
        image, "export", crs=source.crs, transform=source.transform, split=split_dim != "band"
    )
    if split_dim is None:
        return _by_side(_job(dataset, prefix, options, source))
    if split_dim not in dataset.dims:
        raise OptionError(f"split_dim={split_dim!r} is not a dimension; available: {quoted(dataset.dims)}.")
    if split_dim in spatial_dims(dataset):
        raise OptionError(
            f"split_dim={split_dim!r} is a spatial dimension, which cannot be split. Use region to export a "
            "part of the raster."
        )
    jobs = []
    values = dataset.coords[split_dim].values if split_dim in dataset.coords else None
    for step, label in enumerate(file_labels(values, dataset.sizes[split_dim])):
        own = source
        if isinstance(mask, xr.DataArray) and split_dim in mask.dims:
            own = replace(source, mask=mask.isel({split_dim: step}, drop=True))
        one = dataset.isel({split_dim: step}, drop=True)
        jobs += _by_side(_job(one, prefix.with_suffix(f"_{label}"), options, own, label))
    return jobs


def image_job(dataset: xr.Dataset, options: ExportOptions, source: ExportSource) -> ExportJob:
    """Return the plan and the arrays of an image whose patches are not written to files.

    Parameters
    ----------
    dataset : Dataset
        A variable for each band.
    options : ExportOptions
        Those of the patches; those of files have no effect.
    source : ExportSource
        Those of the raster; those of the run have no effect.
    """
    return _job(dataset, Location(""), options, source)


def _by_side(job: ExportJob) -> list[ExportJob]:
    """Return a job for each side of a split; the job itself if there is no split."""
    if job.choice is None or not job.choice.split:
        return [job]
    names = job.plan.names
    return [
        replace(
            job,
            plan=replace(job.plan, names=replace(names, prefix=names.prefix.with_suffix(f"-{side}"))),
            label="-".join(filter(None, (job.label, side))),
            side=side,
        )
        for side in job.choice.sides
    ]


def _with_patches(jobs: Sequence[ExportJob], source: ExportSource) -> list[ExportJob]:
    """Return the jobs with their patches; only this reads pixels before an export, and only of labels."""
    chosen: dict[int, Mapping[str, PatchSelection]] = {}
    found = []
    for job in jobs:
        if job.choice is not None:
            by_side = chosen.get(id(job.choice))
            if by_side is None:
                by_side = chosen[id(job.choice)] = job.choice(job.plan.grid, source.progress)
            lost = len(by_side.lost) if isinstance(by_side, PatchSplit) else 0
            job = replace(job, plan=replace(job.plan, selection=by_side[job.side], left_out=lost))
        found.append(job)
    return found


def _require_patch(region: Size, options: ExportOptions) -> None:
    """Raise an error if a patch is larger than the region; `PatchGrid` checks it for a whole raster."""
    for axis, side in (("x", "wide"), ("y", "high")):
        length, patch = getattr(region, axis), getattr(options.patch_dimensions, axis)
        if patch > length and options.edge == "drop":
            raise OptionError(
                f"A patch of {patch} pixels does not fit: the region is only {length} {side}. Use a smaller "
                "patch or a larger region, or keep incomplete patches with edge='pad'."
            )


def _job(
    dataset: xr.Dataset, prefix: Location, options: ExportOptions, source: ExportSource, label: str = ""
) -> ExportJob:
    """Return one export, planned without reading pixels."""
    georef = read_georef(dataset, crs=source.crs, transform=source.transform)
    for axis in ("x", "y"):
        length, kernel = getattr(georef.shape, axis), getattr(options.kernel_size, axis)
        if kernel > length:
            raise OptionError(
                f"A kernel of {kernel} pixels is larger than the raster: {length} pixels along {axis}."
            )
    window = georef.shape.window
    if source.region is not None:
        window = region_window(source.region, georef, source.region_crs)
        _require_patch(window.size, options)
    grid = PatchGrid(
        shape=window.size,
        patch=options.patch_dimensions,
        margin=PatchGrid.margin_of(options.kernel_size),
        affine=georef.affine @ Affine.translation(window.left, window.top),
        crs=georef.crs_text,
        edge=options.edge,
        origin=Size(x=window.left, y=window.top),
    )
    choice = PatchChoice.of(source, dataset, georef)
    bands, arrays = read_bands(dataset, georef, options, source.mask)
    check_variables(
        {band.name: band.dims for band in bands.bands},
        RASTER_NAMES,
        "xee_tf.open_image could not read it. Rename it, for example with ds.rename({'x': 'x_1'}).",
    )
    record = plan_records(bands, grid.stored, options)
    if record.framed_size > MOST_RECORD_BYTES:
        raise OptionError(
            f"patch_dimensions={options.patch_dimensions.xy} is too large: a patch would have "
            f"{format_bytes(record.framed_size)}, but a record can have {format_bytes(MOST_RECORD_BYTES)}. "
            "The size is in pixels: pass a smaller one, such as (256, 256), or export fewer bands."
        )
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
            centered=centered_axes(placed=True),
        ),
        options=options,
    )
    return ExportJob(plan, arrays, label, choice=choice)
