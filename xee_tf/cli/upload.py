"""``xee-tf upload``."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

import xee_tf
from xee_tf.cli.options import Crs, Depths, Flag, Names, Size, described_by, if_exists, names

__all__ = ["upload_image", "upload_table"]


@described_by(xee_tf.upload_image)
def upload_image(
    records: list[str],
    mixer: str,
    destination: str,
    /,
    *,
    bands: Names = None,
    nodata: Annotated[int | float | None, Parameter(metavar="VALUE")] = None,
    dtype: str | None = None,
    crs: Crs = None,
    kernel_size: Size = None,
    tensor_depths: Depths = None,
    overwrite: Flag = False,
) -> None:
    """Put predictions in their place on the ground, as a GeoTIFF or Zarr.

    Does what "earthengine upload image" does, to files.

    Parameters
    ----------
    records
        TFRecord files of predictions, in the order of the mixer's patches: Examples of patches, or Examples
        or SequenceExamples of pixels.
    mixer
        The mixer of the export that was predicted from, or what else names it: its manifest, prefix or
        folder.
    destination
        A file ending with .tif (a cloud-optimised GeoTIFF) or a folder ending with .zarr.
    overwrite
        Replace the destination.
    """
    # An integer stays one: a float does not hold all of 64 bits.
    written = xee_tf.upload_image(
        records,
        mixer,
        destination,
        bands=names(bands),
        nodata=nodata,
        dtype=dtype,
        crs=crs,
        kernel_size=kernel_size,
        tensor_depths=tensor_depths,
        if_exists=if_exists(overwrite),
        progress=sys.stderr.isatty(),
    )
    print(f"Wrote {written}")


@described_by(xee_tf.upload_table)
def upload_table(
    records: list[str],
    destination: str,
    /,
    *,
    crs: Crs = "EPSG:4326",
    x_column: str | None = None,
    y_column: str | None = None,
    columns: Names = None,
    encoding: Annotated[str, Parameter(name="--charset")] = "utf-8",
    overwrite: Flag = False,
) -> None:
    """Make points of the rows of a table, as a GeoParquet or GeoPackage.

    Does what "earthengine upload table" does, to files.

    Parameters
    ----------
    records
        TFRecord files of Examples, one for each row.
    destination
        A file ending with .parquet (GeoParquet) or .gpkg (GeoPackage).
    columns
        Columns to write; the coordinates are written in any case. Default: all.
    encoding
        Encoding of the texts.
    overwrite
        Replace the destination.
    """
    written = xee_tf.upload_table(
        records,
        destination,
        crs=crs,
        x_column=x_column,
        y_column=y_column,
        columns=names(columns),
        encoding=encoding,
        if_exists=if_exists(overwrite),
    )
    print(f"Wrote {written}")
