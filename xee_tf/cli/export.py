"""``xee-tf export`` and ``xee-tf split``, and their plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import xarray as xr
from cyclopts import Parameter
from dask.utils import format_bytes

import xee_tf
from xee_tf.cli.command import command, planned
from xee_tf.cli.groups import ExistingOptions, PatchOptions, RasterOptions
from xee_tf.cli.options import (
    Depths,
    FilePath,
    Flag,
    Name,
    Number,
    Shares,
    Size,
    Value,
    parse_shares,
    select_bands,
)
from xee_tf.cli.outcome import Outcome, attributes, grid_values
from xee_tf.cli.vectors import read_vectors
from xee_tf.display import aligned, counted
from xee_tf.geometry import Edge

__all__ = ["export", "plan_export", "plan_split", "split"]


@command(xee_tf.export_image, cluster=True)
def export(
    rasters: list[FilePath],
    prefix: FilePath,
    /,
    *,
    source: RasterOptions,
    patches: PatchOptions,
    tensor_depths: Depths = None,
    sequence_data: Flag = False,
    collapse_bands: Flag = False,
    drop_masked_steps: Flag = False,
    split_dim: Annotated[str | None, Name] = None,
    edge: Edge = "drop",
    sample: Annotated[int | float | None, Value] = None,
    split: Shares = None,
    split_block: Size = None,
    seed: Annotated[int, Number] = 0,
    existing: ExistingOptions,
    progress: bool = True,
    plan: bool = False,
) -> Outcome:
    """Export rasters on one grid as TFRecord patches with a mixer.

    The files are those that Earth Engine's Export.image(fileFormat='TFRecord') writes. Patches are in
    row-major order, and overlap if `kernel_size` is larger than 1.

    Example: xee-tf export B4.tif B3.tif out/scene --patch-dimensions 256 --kernel-size 64

    Parameters
    ----------
    rasters
        Files that GDAL can open, Zarr stores or NetCDF files. A file with one band gives its name to the
        band: B4 for B4.tif. Several bands of one file keep the names that the file contains, or are named B1,
        B2, ...; if several files are given, scene_1, scene_2, ... after their file. Bands of Zarr stores and
        NetCDF files keep their names.
    prefix
        Prefix of the output files: PREFIX-00000.tfrecord.gz, ..., PREFIX-mixer.json.
    tensor_depths
        Depths of array bands (bands with additional dimensions, such as time). Bands are truncated, or padded
        with `default_value`, to their depth. Default: the length of each band.
    split_dim
        Dimension, such as time, whose steps are exported one by one. The date or coordinate of a step is
        appended to the prefix.
    index
        Write PREFIX-index.parquet (GeoParquet) with the file, record, patch, row, column, proportion of
        masked pixels and outline of every patch.
    sample
        Write only some patches, chosen at random: a number, such as 1000, or a proportion, such as 0.1. No
        mixer is written; the manifest has the number of the patch of each record.
    split
        Write an export for each side, PREFIX-train and PREFIX-test for train=0.8,test=0.2. No pixel of one
        side, margins included, is in another. "xee-tf split" has more options.
    split_block
        Size in patches of the blocks that belong to one side.
    """
    image = select_bands(source.open(rasters), patches.bands)
    options: dict[str, Any] = {
        **patches.keywords(),
        "tensor_depths": tensor_depths,
        "sequence_data": sequence_data,
        "collapse_bands": collapse_bands,
        "drop_masked_steps": drop_masked_steps,
        "split_dim": split_dim,
        "edge": edge,
        "sample": sample,
        "split": split,
        "split_block": split_block,
        "seed": seed,
        "crs": source.crs,
        "if_exists": existing.if_exists,
    }
    return _plan(image, prefix, options) if plan else _export(image, prefix, options, progress)


plan_export = planned(
    export,
    """Show what "xee-tf export" would do with the same options.

    The patches, files, bytes, tasks and memory of the export are shown. No pixel is read, and nothing is
    written.

    Example: xee-tf plan export B4.tif B3.tif out/scene --patch-dimensions 256
    """,
)


@command(xee_tf.export_image, xee_tf.split_patches, cluster=True)
def split(
    rasters: list[FilePath],
    prefix: FilePath,
    /,
    *,
    sides: Annotated[str, Parameter(metavar="NAME=SHARE[,NAME=SHARE...]")] = "train=0.7,val=0.15,test=0.15",
    block: Size = None,
    column: Annotated[str | None, Name] = None,
    class_band: Annotated[str | None, Name] = None,
    seed: Annotated[int, Number] = 0,
    source: RasterOptions,
    patches: PatchOptions,
    existing: ExistingOptions,
    progress: bool = True,
    plan: bool = False,
) -> Outcome:
    """Export rasters in parts without a common pixel, such as for training, validation and testing.

    Each side is an export of its own: PREFIX-train, PREFIX-val and PREFIX-test. Patches that have pixels of
    two sides are left out.

    Example: xee-tf split scene.tif out/scene --sides train=0.8,test=0.2 --patch-dimensions 64

    Parameters
    ----------
    rasters
        Files that GDAL can open, Zarr stores or NetCDF files, as for "xee-tf export".
    prefix
        Prefix of the output files: PREFIX-train-00000.tfrecord.gz, ...
    sides
        The sides and their proportions of the patches; or, with `column`, a file of polygons.
    block
        Size in patches of the blocks that belong to one side. Larger blocks lose fewer patches. Default: 8,
        or less if there would be fewer than about 30 blocks.
    class_band
        A band of labels. Each side then has about its proportion of the pixels of each class.
    seed
        Random seed.
    index
        Write a GeoParquet file of the patches of each side.
    overwrite
        Replace existing exports.
    """
    image = source.open(rasters)
    labels = None
    if class_band is not None:
        labels = select_bands(image, [class_band])[class_band]
    image = select_bands(image, patches.bands)
    options = {**patches.keywords(), "crs": source.crs, "if_exists": existing.if_exists}
    chosen = xee_tf.split_patches(
        xee_tf.plan_export(image, prefix, **options),
        parse_shares([sides]) if column is None else read_vectors(sides, "sides"),
        block=block,
        column=column,
        class_band=labels,
        seed=seed,
        progress=progress,
    )
    options["split"] = chosen
    outcome = _plan(image, prefix, options) if plan else _export(image, prefix, options, progress)
    parts = {name: len(selected) for name, selected in chosen.items()}
    values = {**outcome.values, "sides": parts, "left_out": len(chosen.lost)}
    return Outcome(f"{chosen}\n{outcome.text}", values)


plan_split = planned(
    split,
    """Show what "xee-tf split" would do with the same options.

    The sides are shown, and the patches, files, bytes, tasks and memory of the export of the first one.
    Nothing is written, and no pixel is read, except those of the band of labels.

    Example: xee-tf plan split scene.tif out/scene --sides train=0.8,test=0.2
    """,
)


def _plan(image: xr.Dataset, prefix: str, options: Mapping[str, Any]) -> Outcome:
    found: Any = xee_tf.plan_export(image, prefix, **options)
    names = ("prefix", "exports", "patches", "left_out", "records", "record_bytes", "shards", "total_bytes")
    values = {
        **attributes(found, *names),
        **grid_values(found.grid, "patch_dimensions"),
        "bands": [band.name for band in found.bands],
        **attributes(found, "mixer", "tasks", "source_chunks", "task_memory", "peak_memory", "warnings"),
    }
    return Outcome(str(found), values)


def _export(image: xr.Dataset, prefix: str, options: Mapping[str, Any], progress: bool) -> Outcome:
    written: Any = xee_tf.export_image(image, prefix, progress=progress, **options)
    results = written if isinstance(written, dict) else {"": written}
    lines = [_summary(results) if isinstance(written, dict) else str(written)]
    if options["if_exists"] == "resume" and not any(result.resumed for result in results.values()):
        lines.append("There was nothing to continue: the export was written from the beginning.")
    return Outcome(
        "\n".join(lines), {"exports": [_values(label, result) for label, result in results.items()]}
    )


def _summary(results: Mapping[str, xee_tf.ExportResult]) -> str:
    """Describe several exports, each in one line."""
    rows = []
    for label, result in results.items():
        said = f"{counted(result.records, 'record')}, {format_bytes(result.bytes)}"
        if result.dropped:
            said += f", {counted(result.dropped, 'masked patch', 'masked patches')} omitted"
        if result.resumed:
            said += f", {result.resumed:,} of {counted(len(result.files), 'shard')} were already complete"
        rows.append((label, f"{said}: {result.mixer or result.manifest}"))
    shards = counted(sum(len(result.files) for result in results.values()), "shard")
    size = format_bytes(sum(result.bytes for result in results.values()))
    return f"{counted(len(results), 'export')}, {size} in {shards}\n{aligned(rows, wrap=False)}"


def _values(label: str, result: xee_tf.ExportResult) -> dict[str, Any]:
    numbers = ("count", "masked", "min", "max", "mean", "std")
    found = result.statistics
    statistics = None
    if found is not None:
        bands = found["band"].values.tolist()
        statistics = {band: {name: found[name].sel(band=band).item() for name in numbers} for band in bands}
    return {
        "label": label or None,
        **attributes(result, "mixer", "manifest", "index"),
        "files": result.files,
        **attributes(result, "records", "records_per_patch", "bytes", "dropped", "left_out", "resumed"),
        **grid_values(result.grid, "patch_dimensions"),
        "statistics": statistics,
    }
