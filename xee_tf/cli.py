"""The command ``xee-tf``: a thin shell over the public functions."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import rioxarray
import xarray as xr

import xee_tf
from xee_tf.display.text import image_text, record_text
from xee_tf.errors import OptionError, RecordError, XeeTFError
from xee_tf.reading.content import read_order
from xee_tf.reading.reader import open_reader
from xee_tf.reading.shards import first_record, open_shards
from xee_tf.storage import Location

__all__ = ["main"]

# Arguments that are options of export_image under the same names.
_EXPORT_OPTIONS = (
    "patch_dimensions",
    "kernel_size",
    "compressed",
    "max_file_size",
    "default_value",
    "sequence_data",
    "collapse_bands",
    "drop_masked_steps",
    "split_dim",
    "masked_threshold",
    "index",
    "edge",
    "feature_types",
    "region",
    "region_crs",
    "crs",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments. Default: those of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error that was printed.

    Examples
    --------
    >>> main(["inspect", "no-such-mixer.json"])
    1
    """
    arguments = _parser().parse_args(argv)
    # TensorFlow, where it is needed at all, is not to talk in between.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        arguments.run(arguments)
    except (XeeTFError, OSError, ModuleNotFoundError) as error:
        print(f"xee-tf {arguments.command}: {_with_flags(str(error))}", file=sys.stderr)
        return 1
    return 0


def _with_flags(message: str) -> str:
    """The options that a message names, as they are spelled here."""
    message = message.replace("if_exists='overwrite'", "--overwrite").replace("verify=False", "--no-verify")
    return re.sub(
        r"\b([a-z]+(?:_[a-z]+)*)=(?:True|\[\.\.\.\]|\{[^}]*\})?(?=[ .,:;)]|$)",
        lambda found: f"--{found[1].replace('_', '-')}",
        message,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xee-tf",
        description="Earth Engine's TensorFlow bridge for any raster: TFRecord out, predictions back.",
    )
    parser.add_argument("--version", action="version", version=f"xee-tf {xee_tf.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_export(commands.add_parser("export", help="rasters to TFRecord patches and their mixer"))
    _add_upload(commands.add_parser("upload", help="predictions to a GeoTIFF or Zarr, rows to a GeoPackage"))
    _add_inspect(commands.add_parser("inspect", help="what a mixer and its TFRecords hold"))
    _add_model(commands.add_parser("model", help="prepare a SavedModel for Earth Engine's payloads"))
    _add_demo(commands.add_parser("demo", help="the whole round on a real scene: export, train, predict"))
    return parser


# -- export ------------------------------------------------------------------------------------------


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Export rasters on one grid as overlapping patches, row by row, as Earth Engine's "
        "Export.image(fileFormat='TFRecord') does."
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="RASTER",
        help="what GDAL, Zarr or NetCDF open; of several files each band is named after its own",
    )
    parser.add_argument("prefix", help="where to write: PREFIX-00000.tfrecord.gz, ..., PREFIX-mixer.json")
    _size(parser, "--patch-dimensions", (256, 256), "pixels of a patch without its margin")
    _size(parser, "--kernel-size", (1, 1), "half of it is the margin on every side")
    parser.add_argument("--plan", action="store_true", help="only show what would be written")
    parser.add_argument("--bands", nargs="+", metavar="BAND", help="bands to export, in this order")
    parser.add_argument(
        "--region",
        nargs=4,
        type=float,
        metavar=("LEFT", "BOTTOM", "RIGHT", "TOP"),
        help="export this part; margins show the real pixels around it",
    )
    parser.add_argument("--region-crs", metavar="CRS", help="CRS of --region, such as EPSG:4326")
    parser.add_argument("--crs", help="CRS of rasters that have none")
    parser.add_argument("--no-compress", dest="compressed", action="store_false", help="do not gzip")
    parser.add_argument("--max-file-size", type=int, default=2**30, metavar="BYTES", help="default: 1 GiB")
    parser.add_argument("--default-value", type=float, default=0, metavar="VALUE", help="of masked pixels")
    _depths(parser, "of array bands, which are cut or filled up to it; default: the length that each has")
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
    parser.add_argument(
        "--chunk", type=int, default=1024, metavar="PIXELS", help="side of a chunk read from disk"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    alone = len(arguments.sources) == 1
    images = [_open_raster(source, arguments.chunk, alone=alone) for source in arguments.sources]
    image = xee_tf.add_bands(*images, crs=arguments.crs)
    if arguments.bands:
        unknown = [band for band in arguments.bands if band not in image]
        if unknown:
            raise OptionError(f"There is no band {unknown[0]!r}; there are {', '.join(map(repr, image))}.")
        image = image[arguments.bands]
    options = {name: getattr(arguments, name) for name in _EXPORT_OPTIONS}
    options["tensor_depths"] = dict(arguments.tensor_depths) or None
    options["if_exists"] = "overwrite" if arguments.overwrite else "error"
    if arguments.plan:
        print(image.tfexport.plan(arguments.prefix, **options))
        return
    written = image.tfexport(arguments.prefix, progress=sys.stderr.isatty(), **options)
    for result in written.values() if isinstance(written, dict) else [written]:
        print(result)


def _open_raster(source: str, chunk: int, *, alone: bool) -> Any:
    """A raster with its bands named; of several single-band files each after its file."""
    path = PurePosixPath(source.rstrip("/"))
    if path.suffix in (".zarr", ".nc", ".nc4", ".h5"):
        engine = {"engine": "zarr"} if path.suffix == ".zarr" else {}
        return xr.open_dataset(source, decode_coords="all", chunks={}, **engine)  # type: ignore[arg-type]
    raster: Any = rioxarray.open_rasterio(source, chunks={"x": chunk, "y": chunk})
    if alone:
        return raster
    if raster.sizes["band"] == 1:
        return raster.squeeze("band", drop=True).rename(path.stem)
    return raster.assign_coords(band=[f"{path.stem}_{number}" for number in raster.band.values])


# -- upload ------------------------------------------------------------------------------------------


def _add_upload(parser: argparse.ArgumentParser) -> None:
    parser.description = "Make files that a GIS opens of TFRecords, as `earthengine upload` makes assets."
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    _add_upload_image(kinds.add_parser("image", help="prediction TFRecords and a mixer to a GeoTIFF or Zarr"))
    _add_upload_table(kinds.add_parser("table", help="a TFRecord of rows to a GeoParquet or GeoPackage"))


def _add_upload_image(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Put predictions in their place on the ground, as `earthengine upload image` does. Records are "
        "Examples of patches, or Examples or SequenceExamples of pixels."
    )
    parser.add_argument("records", nargs="+", metavar="TFRECORD", help="predictions, in the mixer's order")
    parser.add_argument("mixer", help="the mixer of the export that was predicted from")
    parser.add_argument("destination", help="a file ending with .tif or a folder ending with .zarr")
    parser.add_argument("--bands", nargs="+", metavar="BAND", help="default: all")
    parser.add_argument("--nodata", type=float, metavar="VALUE", help="marks missing pixels")
    parser.add_argument("--dtype", help="of the raster, such as uint8. Default: that of the records")
    _size(parser, "--kernel-size", None, "if it cannot be told from the records")
    _depths(parser, "of array bands, if they cannot be told from the records")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.set_defaults(run=_upload_image, command="upload image")


def _upload_image(arguments: argparse.Namespace) -> None:
    written = xee_tf.upload_image(
        arguments.records,
        arguments.mixer,
        arguments.destination,
        bands=arguments.bands,
        nodata=arguments.nodata,
        dtype=arguments.dtype,
        kernel_size=arguments.kernel_size,
        tensor_depths=dict(arguments.tensor_depths) or None,
        progress=sys.stderr.isatty(),
        if_exists="overwrite" if arguments.overwrite else "error",
    )
    print(f"Wrote {written}")


def _add_upload_table(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--columns", nargs="+", metavar="COLUMN", help="default: all")
    parser.add_argument("--charset", default="utf-8", help="of the texts. Default: utf-8")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.set_defaults(run=_upload_table, command="upload table")


def _upload_table(arguments: argparse.Namespace) -> None:
    written = xee_tf.upload_table(
        arguments.records,
        arguments.destination,
        crs=arguments.crs,
        x_column=arguments.x_column,
        y_column=arguments.y_column,
        columns=arguments.columns,
        encoding=arguments.charset,
        if_exists="overwrite" if arguments.overwrite else "error",
    )
    print(f"Wrote {written}")


# -- inspect -----------------------------------------------------------------------------------------


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show patches, place, bands and shards of an export, and check that it is whole."
    parser.add_argument("path", help="a mixer, or a single TFRecord file")
    _size(parser, "--kernel-size", None, "if it cannot be told from the records")
    _depths(parser, "of array bands, if they cannot be told from the records")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    if arguments.path.endswith(".json"):
        depths = dict(arguments.tensor_depths) or None
        print(
            image_text(open_reader(arguments.path, kernel_size=arguments.kernel_size, tensor_depths=depths))
        )
        return
    [shard] = open_shards([Location.of(arguments.path)])
    data = first_record(shard)
    if data is None:
        raise RecordError(f"{shard} holds no record.")
    print(record_text(str(shard), *read_order(data)))


# -- model -------------------------------------------------------------------------------------------


def _add_model(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    prepare = actions.add_parser(
        "prepare", help="wrap a SavedModel so that it takes and returns base64 of serialised tensors"
    )
    prepare.description = (
        "Wrap a SavedModel so that Earth Engine's default payload fits it: URL-safe base64 of serialised "
        "TensorProtos in and out. Flags are those of `earthengine model prepare`."
    )
    names = (
        "names with commas between them, or a JSON object of names and new ones; a name is an argument of "
        "the signature (array) or a node (serving_default_array:0); default: all of serving_default"
    )
    prepare.add_argument("--source_dir", "--source-dir", required=True, help="folder of the SavedModel")
    prepare.add_argument("--dest_dir", "--dest-dir", required=True, help="folder to make")
    prepare.add_argument("--input", metavar="NAMES", help=names)
    prepare.add_argument("--output", metavar="NAMES", help="the same, of the outputs")
    prepare.add_argument("--tag", default="serve", help="of the graph in the SavedModel; default: serve")
    prepare.add_argument(
        "--variables",
        default="/variables/variables",
        metavar="PREFIX",
        help="of the files of variables in the source; default: /variables/variables",
    )
    prepare.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not run both models on random input first",
    )
    prepare.set_defaults(run=_prepare)


def _prepare(arguments: argparse.Namespace) -> None:
    options = ("source_dir", "dest_dir", "input", "output", "tag", "variables", "verify")
    prepared = xee_tf.prepare_model(**{name: getattr(arguments, name) for name in options})
    print(f"Wrote {prepared}")


# -- demo --------------------------------------------------------------------------------------------


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Export a Landsat scene and a land-cover map as TFRecord, train a small U-Net, predict, rebuild "
        "georeferenced rasters and draw them; about a minute on two cores."
    )
    parser.add_argument("--output", default="demo-output", metavar="FOLDER", help="default: demo-output")
    parser.add_argument("--data", metavar="FOLDER", help="default: $XEE_TF_DATA, else .data")
    parser.add_argument("--epochs", type=int, default=60, metavar="N", help="rounds of training; default: 60")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    from xee_tf import demo

    demo.run(arguments.output, data=arguments.data, epochs=arguments.epochs)


def _size(
    parser: argparse.ArgumentParser, name: str, default: tuple[int, int] | None, help_text: str
) -> None:
    shown = f"; default: {default[0]} {default[1]}" if default else ""
    parser.add_argument(
        name, nargs=2, type=int, default=default, metavar=("WIDTH", "HEIGHT"), help=help_text + shown
    )


def _depths(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument(
        "--tensor-depths",
        nargs="+",
        type=_depth,
        action="extend",
        default=[],
        metavar="BAND=DEPTH",
        help=f"steps {help_text}",
    )


def _depth(text: str) -> tuple[str, int]:
    band, _, depth = text.rpartition("=")
    if not band or not depth.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form band=depth, such as ndvi=12")
    return band, int(depth)


if __name__ == "__main__":
    sys.exit(main())
