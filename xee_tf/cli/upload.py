"""``xee-tf upload``."""

from __future__ import annotations

import argparse
import sys

import xee_tf
from xee_tf.cli.arguments import (
    NO_IF_EXISTS,
    add_depths,
    add_names,
    add_overwrite,
    add_size,
    if_exists,
    names,
    options_of,
)
from xee_tf.cli.parser import Parser
from xee_tf.options import READ_SPELLING

__all__ = ["add_upload"]


def add_upload(parser: Parser) -> None:
    """The commands that make files of records."""
    parser.description = "Make files that a GIS opens of TFRecords, as `earthengine upload` makes assets."
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    _add_upload_image(kinds.add_parser("image", help="prediction TFRecords and a mixer to a GeoTIFF or Zarr"))
    _add_upload_table(kinds.add_parser("table", help="a TFRecord of rows to a GeoParquet or GeoPackage"))


def _add_upload_image(parser: Parser) -> None:
    parser.instead = {**READ_SPELLING.replaced, **NO_IF_EXISTS}
    parser.description = (
        "Put predictions in their place on the ground, as `earthengine upload image` does. Records are "
        "Examples of patches, or Examples or SequenceExamples of pixels."
    )
    parser.add_argument("records", nargs="+", metavar="TFRECORD", help="predictions, in the mixer's order")
    parser.add_argument("mixer", help="the mixer of the export that was predicted from")
    parser.add_argument("destination", help="a file ending with .tif or a folder ending with .zarr")
    add_names(parser, "--bands", "BAND", "B4 B3, or B4,B3; default: all")
    parser.add_argument("--nodata", type=_number, metavar="VALUE", help="marks missing pixels")
    parser.add_argument("--dtype", help="of the raster, such as uint8. Default: that of the records")
    parser.add_argument("--crs", help="in place of that of the mixer, such as EPSG:32633")
    add_size(parser, "--kernel-size", None, "if it cannot be told from the records")
    add_depths(parser, "of array bands, if they cannot be told from the records")
    add_overwrite(parser)
    parser.set_defaults(run=_upload_image, command="upload image")


def _number(text: str) -> int | float:
    """An integer as it is: a float does not hold all of 64 bits."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _upload_image(arguments: argparse.Namespace) -> None:
    options = options_of(
        xee_tf.upload_image,
        arguments,
        bands=names(arguments.bands),
        tensor_depths=dict(arguments.tensor_depths) or None,
        progress=sys.stderr.isatty(),
        if_exists=if_exists(arguments),
    )
    written = xee_tf.upload_image(**options)
    print(f"Wrote {written}")


def _add_upload_table(parser: Parser) -> None:
    parser.instead = {**READ_SPELLING.replaced, **NO_IF_EXISTS}
    parser.description = (
        "Make points of the rows of a table, as `earthengine upload table` does; its spelling of the options "
        "(--x_column) is taken too."
    )
    parser.add_argument("records", nargs="+", metavar="TFRECORD", help="Examples, one for each row")
    parser.add_argument("destination", help="a file ending with .parquet (GeoParquet) or .gpkg (GeoPackage)")
    parser.add_argument("--crs", default="EPSG:4326", help="of the coordinates. Default: EPSG:4326")
    for axis, default in (("x", "longitude"), ("y", "latitude")):
        parser.add_argument(
            f"--{axis}-column",
            f"--{axis}_column",
            metavar="COLUMN",
            help=f"holds the {axis} coordinate. Default: {default}, unless the CRS is projected",
        )
    add_names(parser, "--columns", "COLUMN", "a b, or a,b; default: all")
    parser.add_argument("--charset", default="utf-8", help="of the texts. Default: utf-8")
    add_overwrite(parser)
    parser.set_defaults(run=_upload_table, command="upload table")


def _upload_table(arguments: argparse.Namespace) -> None:
    options = options_of(
        xee_tf.upload_table,
        arguments,
        path=arguments.records,
        columns=names(arguments.columns),
        encoding=arguments.charset,
        if_exists=if_exists(arguments),
    )
    written = xee_tf.upload_table(**options)
    print(f"Wrote {written}")
