"""``xee-tf export``."""

from __future__ import annotations

import argparse
import sys

import xee_tf
from xee_tf.cli.arguments import (
    NO_IF_EXISTS,
    add_crs_and_chunk,
    add_depths,
    add_names,
    add_overwrite,
    add_size,
    add_sources,
    if_exists,
    names,
    open_image,
    options_of,
)
from xee_tf.cli.parser import Parser
from xee_tf.errors import OptionError
from xee_tf.export import IMAGE_SPELLING

__all__ = ["add_export"]


def add_export(parser: Parser) -> None:
    """The command that exports."""
    parser.instead = {**IMAGE_SPELLING.replaced, **NO_IF_EXISTS}
    parser.description = (
        "Export rasters on one grid as overlapping patches, row by row, as Earth Engine's "
        "Export.image(fileFormat='TFRecord') does."
    )
    add_sources(parser, "of several files each band is named after its own")
    parser.add_argument("prefix", help="where to write: PREFIX-00000.tfrecord.gz, ..., PREFIX-mixer.json")
    add_size(parser, "--patch-dimensions", (256, 256), "pixels of a patch without its margin")
    add_size(parser, "--kernel-size", (1, 1), "half of it is the margin on every side")
    parser.add_argument("--plan", action="store_true", help="only show what would be written")
    add_names(parser, "--bands", "BAND", "bands to export, in this order: B4 B3, or B4,B3")
    parser.add_argument(
        "--region",
        nargs=4,
        type=float,
        metavar=("LEFT", "BOTTOM", "RIGHT", "TOP"),
        help="export this part; margins show the real pixels around it",
    )
    parser.add_argument("--region-crs", metavar="CRS", help="CRS of --region, such as EPSG:4326")
    parser.add_argument("--no-compress", dest="compressed", action="store_false", help="do not gzip")
    parser.add_argument("--max-file-size", type=int, default=2**30, metavar="BYTES", help="default: 1 GiB")
    parser.add_argument("--default-value", type=float, default=0, metavar="VALUE", help="of masked pixels")
    add_depths(parser, "of array bands, which are cut or filled up to it; default: the length that each has")
    parser.add_argument(
        "--sequence-data", action="store_true", help="a SequenceExample for each pixel, of its series"
    )
    parser.add_argument(
        "--collapse-bands", action="store_true", help="all bands in one tensor, under the first one's name"
    )
    parser.add_argument(
        "--drop-masked-steps", action="store_true", help="with --sequence-data: write only valid steps"
    )
    parser.add_argument(
        "--split-dim", metavar="DIM", help="an export for each step of a dimension, such as time"
    )
    parser.add_argument(
        "--masked-threshold",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="leave out patches with more masked pixels; below 1 no mixer is written",
    )
    parser.add_argument("--index", action="store_true", help="also write a GeoParquet index of the patches")
    parser.add_argument("--edge", choices=("drop", "pad"), default="drop", help="incomplete patches")
    parser.add_argument("--feature-types", choices=("float", "band"), default="float")
    add_crs_and_chunk(parser)
    add_overwrite(parser, "an earlier export")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    image = open_image(arguments)
    if bands := names(arguments.bands, image.data_vars):
        unknown = [band for band in bands if band not in image]
        if unknown:
            raise OptionError(f"There is no band {unknown[0]!r}; there are {', '.join(map(repr, image))}.")
        image = image[bands]
    options = options_of(
        xee_tf.export_image,
        arguments,
        tensor_depths=dict(arguments.tensor_depths) or None,
        if_exists=if_exists(arguments),
    )
    if arguments.plan:
        print(image.tfexport.plan(arguments.prefix, **options))
        return
    written = image.tfexport(arguments.prefix, progress=sys.stderr.isatty(), **options)
    for result in written.values() if isinstance(written, dict) else [written]:
        print(result)
