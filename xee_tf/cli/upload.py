"""``xee-tf upload``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

import xee_tf
from xee_tf.cli.command import command
from xee_tf.cli.options import Crs, Depths, FilePath, Flag, Name, Names, Size, Value, if_exists, parse_names
from xee_tf.cli.outcome import Outcome
from xee_tf.georef import Conventions
from xee_tf.upload import Resampling

__all__ = ["upload_image", "upload_table"]


@command(xee_tf.upload_image, cluster=True)
def upload_image(
    records: list[FilePath],
    mixer: FilePath,
    destination: FilePath,
    /,
    *,
    bands: Names = None,
    nodata: Annotated[int | float | None, Value] = None,
    dtype: Annotated[str | None, Parameter(metavar="TYPE")] = None,
    crs: Crs = None,
    kernel_size: Size = None,
    tensor_depths: Depths = None,
    overview_resampling: Resampling = "nearest",
    conventions: Conventions = "cf",
    overwrite: Flag = False,
    progress: bool = True,
) -> Outcome:
    """Convert predictions in TFRecords to a georeferenced GeoTIFF or Zarr store.

    This works like "earthengine upload image", but writes files.

    Example: xee-tf upload image predicted.tfrecord out/scene-mixer.json map.tif --dtype uint8

    Parameters
    ----------
    records
        TFRecord files of predictions, or the prefix of numbered files, in the order of the mixer's patches:
        Examples with one patch each, or Examples or SequenceExamples with one pixel each. With the prefix of
        the export itself, its bands are converted.
    mixer
        Mixer, manifest, prefix or folder of the export that the predictions were made from.
    destination
        Output: a .tif file (a cloud-optimized GeoTIFF) or a .zarr folder.
    tensor_depths
        Number of values per pixel of array bands, if it cannot be inferred from the length of the records.
    overview_resampling
        How the overviews of a GeoTIFF are computed from pixels that are not missing: mean for measurements,
        mode for classes.
    conventions
        Conventions of the georeference of a Zarr store: cf+zarr adds the attributes of the Zarr conventions
        proj and spatial to those of CF.
    overwrite
        Replace an existing destination.
    """
    written = xee_tf.upload_image(
        records,
        mixer,
        destination,
        bands=parse_names(bands),
        nodata=nodata,
        dtype=dtype,
        crs=crs,
        kernel_size=kernel_size,
        tensor_depths=tensor_depths,
        overview_resampling=overview_resampling,
        conventions=conventions,
        if_exists=if_exists(overwrite),
        progress=progress,
    )
    return Outcome(f"Wrote {written}", {"destination": written})


@command(xee_tf.upload_table)
def upload_table(
    records: list[FilePath],
    destination: FilePath,
    /,
    *,
    crs: Crs = "EPSG:4326",
    x_column: Annotated[str | None, Name] = None,
    y_column: Annotated[str | None, Name] = None,
    columns: Names = None,
    encoding: Annotated[str, Parameter(name="--charset", metavar="NAME")] = "utf-8",
    overwrite: Flag = False,
) -> Outcome:
    """Convert a table in TFRecords to a GeoParquet or GeoPackage file of points.

    This works like "earthengine upload table", but writes files.

    Example: xee-tf upload table sites.tfrecord.gz sites.gpkg

    Parameters
    ----------
    records
        TFRecord files with one Example per row.
    destination
        Output: a .parquet (GeoParquet) or .gpkg (GeoPackage) file.
    columns
        Columns to write. The coordinates are always written. Default: all.
    encoding
        Encoding of strings.
    overwrite
        Replace an existing destination.
    """
    written = xee_tf.upload_table(
        records,
        destination,
        crs=crs,
        x_column=x_column,
        y_column=y_column,
        columns=parse_names(columns),
        encoding=encoding,
        if_exists=if_exists(overwrite),
    )
    return Outcome(f"Wrote {written}", {"destination": written})
