"""``xee-tf export``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import Parameter

import xee_tf
from xee_tf.cli.options import Crs, Depths, Flag, Names, Size, described_by, if_exists, names
from xee_tf.cli.rasters import open_rasters
from xee_tf.errors import OptionError
from xee_tf.geometry import Edge
from xee_tf.records import FeatureTypes

__all__ = ["export"]


@described_by(xee_tf.export_image)
def export(
    rasters: list[str],
    prefix: str,
    /,
    *,
    plan: Flag = False,
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
    split_dim: str | None = None,
    masked_threshold: float = 1.0,
    index: Flag = False,
    edge: Edge = "drop",
    feature_types: FeatureTypes = "float",
    crs: Crs = None,
    chunk: Annotated[int, Parameter(metavar="PIXELS")] = 1024,
    overwrite: Flag = False,
) -> None:
    """Export rasters on one grid as TFRecord patches with a mixer.

    Patches overlap if you ask for a kernel, and go row by row, as Earth Engine's
    Export.image(fileFormat='TFRecord') writes them.

    Parameters
    ----------
    rasters
        Anything that GDAL, Zarr or NetCDF opens. Of several files each band is named after its own.
    prefix
        Where to write: PREFIX-00000.tfrecord.gz, ..., PREFIX-mixer.json.
    plan
        Only show what would be written.
    bands
        Bands to export, in this order. Default: all.
    region
        Export this part, in the CRS of the raster or in `region_crs`. Margins show the real pixels around it.
    region_crs
        CRS of `region`, such as EPSG:4326.
    tensor_depths
        Depth of array bands (those with further dimensions, such as time): they are truncated to that, or
        filled up with `default_value`. Default: the length that each has.
    split_dim
        A dimension, such as time, of which each step becomes an export of its own; its date or coordinate is
        added to the prefix.
    crs
        CRS of rasters that have none.
    chunk
        Side of a chunk that is read from disk.
    overwrite
        Replace an earlier export.
    """
    image = open_rasters(rasters, chunk, crs)
    if chosen := names(bands, image.data_vars):
        unknown = [band for band in chosen if band not in image]
        if unknown:
            raise OptionError(f"There is no band {unknown[0]!r}; there are {', '.join(map(repr, image))}.")
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
        "edge": edge,
        "feature_types": feature_types,
        "crs": crs,
        "if_exists": if_exists(overwrite),
    }
    if plan:
        print(xee_tf.plan_export(image, prefix, **options))
        return
    written = xee_tf.export_image(image, prefix, progress=sys.stderr.isatty(), **options)
    for result in written.values() if isinstance(written, dict) else [written]:
        print(result)
