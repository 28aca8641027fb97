"""``xee-tf predict``."""

from __future__ import annotations

import argparse
import sys
from pathlib import PurePath
from typing import Any

import xee_tf
from xee_tf.cli.arguments import (
    NO_IF_EXISTS,
    add_crs_and_chunk,
    add_names,
    add_overwrite,
    add_size,
    add_sources,
    if_exists,
    names,
    open_image,
)
from xee_tf.cli.parser import Parser
from xee_tf.models import MODEL_SPELLING
from xee_tf.storage import Location, require_free, require_writable
from xee_tf.upload import raster_format, to_cog

__all__ = ["add_predict"]

_MODEL_OPTIONS = ("input_tile_size", "input_overlap_size", "output_tile_size")
_OPTIONS = ("batch_size", "blend", "augment", "crs")


def add_predict(parser: Parser) -> None:
    """The command that predicts."""
    parser.instead = {**MODEL_SPELLING.replaced, **NO_IF_EXISTS}
    parser.description = (
        "Predict every pixel of rasters on one grid with a model on disk. A Zarr goes on where an "
        "interrupted run has left it."
    )
    parser.add_argument("model", help="a SavedModel's folder, or a .keras or .h5 file")
    add_sources(parser, "several are put together")
    parser.add_argument("destination", help="a file ending with .tif or a folder ending with .zarr")
    add_names(parser, "--bands", "BAND", "those that the model sees, in its order: B4 B3, or B4,B3")
    add_names(
        parser,
        "--array-dims",
        "DIM",
        "dimensions that the model takes as a whole, in its order: time run, or time,run; none: each "
        "step is predicted by itself; default: what the model takes",
        nargs="*",
    )
    add_size(parser, "--input-tile-size", None, "pixels of a tile; default: what the model takes")
    add_size(parser, "--input-overlap-size", None, "pixels added along each edge of a tile")
    add_size(parser, "--output-tile-size", None, "pixels that come back for a tile, if the scale changes")
    add_names(
        parser,
        "--output-bands",
        "BAND[=TYPE]",
        "such as forest=uint8, or water,forest=uint8; default: as the model has them",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="tiles in a call of the model")
    parser.add_argument("--blend", choices=("crop", "hann"), default="crop", help="of overlapping answers")
    parser.add_argument(
        "--augment", choices=("d4",), help="mean and spread over eight positions of each tile"
    )
    add_crs_and_chunk(parser)
    add_overwrite(parser)
    parser.set_defaults(run=_predict)


def _output(text: str) -> tuple[str, str | None]:
    name, _, kind = text.partition("=")
    return name, kind or None


def _predict(arguments: argparse.Namespace) -> None:
    location = Location.of(arguments.destination)
    written = raster_format(location)
    if written == "tif":
        require_free(location, if_exists(arguments))
    require_writable(location)
    chosen: dict[str, Any] = {name: getattr(arguments, name) for name in _MODEL_OPTIONS}
    if arguments.output_bands:
        outputs = map(_output, names(arguments.output_bands) or [])
        chosen["output_bands"] = {name: {"type": kind} for name, kind in outputs}
    image = open_image(arguments)
    chosen["bands"] = names(arguments.bands, image.data_vars)
    chosen["array_dims"] = names(arguments.array_dims, image.dims)
    is_file = PurePath(arguments.model).suffix in (".keras", ".h5")
    make = xee_tf.Model.from_keras if is_file else xee_tf.Model.from_saved_model
    model = make(arguments.model, **chosen)
    options = {name: getattr(arguments, name) for name in _OPTIONS}
    files: dict[str, Any] = {"if_exists": if_exists(arguments), "progress": sys.stderr.isatty()}
    if written == "zarr":
        xee_tf.predict_to_zarr(model, image, location, **files, **options)
    else:
        predicted = model.predict_image(image, merge=False, **options)
        example = f"--output-bands {next(iter(predicted.data_vars))}=int32"
        remedy = f"declare smaller types, for example {example}, or write a .zarr"
        to_cog(predicted, location, remedy=remedy, **files)
    print(f"Wrote {location}")
