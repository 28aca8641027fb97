"""``xee-tf export``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import Parameter

import xee_tf
from xee_tf.cli.options import (
    Crs,
    Depths,
    Flag,
    Name,
    Names,
    Size,
    if_exists,
    inherit_descriptions,
    parse_names,
)
from xee_tf.cli.rasters import open_rasters
from xee_tf.errors import OptionError
from xee_tf.geometry import Edge
from xee_tf.options import did_you_mean
from xee_tf.records import FeatureTypes

__all__ = ["export"]


@inherit_descriptions(xee_tf.export_image)
def export(
    rasters: list[str],
    prefix: str,
    /,
    *,
    plan: Flag = False,
    band_names: Names = None,
    bands: Names = None,
    patch_dimensions: Size = (256, 256),
    kernel_size: Size = (1, 1),
    region: Annotated[
        tuple[float, float, float, float] | None, Parameter(metavar="LEFT BOTTOM RIGHT TOP")
    ] = None,
    region_crs: Crs = None,
    compressed: Annotated[bool, Parameter(name="--compress")] = True,
    max_file_size: Annotated[int, Parameter(metavar="BYTES")] = 2**30,
    default_value: Annotated[float, Parameter(metavar="VALUE")] = 0,
    tensor_depths: Depths = None,
    sequence_data: Flag = False,
    collapse_bands: Flag = False,
    drop_masked_steps: Flag = False,
    split_dim: Annotated[str | None, Name] = None,
    masked_threshold: Annotated[float, Parameter(metavar="PROPORTION")] = 1.0,
    index: Flag = False,
    statistics: Annotated[bool, Parameter(name="--statistics")] = True,
    edge: Edge = "drop",
    feature_types: FeatureTypes = "float",
    crs: Crs = None,
    chunk: Annotated[int, Parameter(metavar="PIXELS")] = 1024,
    overwrite: Flag = False,
    resume: Flag = False,
) -> None:
    """Export rasters on one grid as TFRecord patches with a mixer.

    The files are those that Earth Engine's Export.image(fileFormat='TFRecord') writes. Patches are in
    row-major order, and overlap if `kernel_size` is larger than 1.

    Parameters
    ----------
    rasters
        Files that GDAL can open, Zarr stores or NetCDF files. A file with one band gives its name to the
        band: B4 for B4.tif. Several bands of one file keep the names that the file contains, or are named B1,
        B2, ...; if several files are given, scene_1, scene_2, ... after their file. Bands of Zarr stores and
        NetCDF files keep their names.
    prefix
        Prefix of the output files: PREFIX-00000.tfrecord.gz, ..., PREFIX-mixer.json.
    plan
        Show the plan of the export, and write nothing.
    band_names
        Other names for all bands, in the order of the files and of their bands.
    bands
        Bands to export, in this order. Default: all.
    region
        Part of the raster to export, in the CRS of the raster or in `region_crs`. Margins contain the real
        pixels around it.
    region_crs
        CRS of `region`, such as EPSG:4326.
    default_value
        Value for pixels of a band that are masked (NaN, _FillValue or nodata) or outside the raster. For
        integer bands, the value is truncated to an integer and clamped to the range of the dtype; a warning
        lists the bands that cannot hold it.
    tensor_depths
        Depths of array bands (bands with additional dimensions, such as time). Bands are truncated, or padded
        with `default_value`, to their depth. Default: the length of each band.
    split_dim
        Dimension, such as time, whose steps are exported one by one. The date or coordinate of a step is
        appended to the prefix.
    index
        Write PREFIX-index.parquet (GeoParquet) with the file, record, patch, row, column, proportion of
        masked pixels and outline of every patch.
    statistics
        Take the statistics of every band and store them in the manifest, which takes some CPU time.
    crs
        CRS of rasters that have none.
    chunk
        Width and height, in pixels, of the chunks that are read from disk.
    overwrite
        Replace an existing export.
    resume
        Continue an interrupted export that was also run with this option: its complete shards are kept.
    """
    image = open_rasters(rasters, chunk, crs, parse_names(band_names))
    if chosen := parse_names(bands, image.data_vars):
        unknown = [band for band in chosen if band not in image]
        if unknown:
            available = ", ".join(map(repr, image))
            hint = did_you_mean(unknown[0], [str(name) for name in image])
            raise OptionError(f"Band {unknown[0]!r} not found; available: {available}.{hint}")
        image = image[chosen]
    options: dict[str, Any] = {
        "patch_dimensions": patch_dimensions,
        "kernel_size": kernel_size,
        "region": region,
        "region_crs": region_crs,
        "compressed": compressed,
        "max_file_size": max_file_size,
        "default_value": default_value,
        "tensor_depths": tensor_depths,
        "sequence_data": sequence_data,
        "collapse_bands": collapse_bands,
        "drop_masked_steps": drop_masked_steps,
        "split_dim": split_dim,
        "masked_threshold": masked_threshold,
        "index": index,
        "statistics": statistics,
        "edge": edge,
        "feature_types": feature_types,
        "crs": crs,
        "if_exists": if_exists(overwrite, resume),
    }
    if plan:
        print(xee_tf.plan_export(image, prefix, **options))
        return
    written: Any = xee_tf.export_image(image, prefix, progress=sys.stderr.isatty(), **options)
    results = list(written.values()) if isinstance(written, dict) else [written]
    for result in results:
        print(result)
    if resume and not any(result.resumed for result in results):
        print("There was nothing to continue: the export was written from the beginning.")
