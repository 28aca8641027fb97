"""The command ``xee-tf``: a thin shell over the public functions."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import rioxarray
import xarray as xr

import xee_tf
from xee_tf.display.text import image_text, record_text
from xee_tf.errors import OptionError, RecordError, XeeTFError
from xee_tf.reading.reader import open_reader
from xee_tf.reading.shards import first_record, open_shards
from xee_tf.records.decoding import read_layout
from xee_tf.storage import Location

__all__ = ["main"]

# Arguments that are options of export_image under the same names.
_EXPORT_OPTIONS = (
    "patch_dimensions",
    "kernel_size",
    "compressed",
    "max_file_size",
    "default_value",
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
        message = str(error).replace("if_exists='overwrite'", "--overwrite")
        print(f"xee-tf {arguments.command}: {message}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xee-tf",
        description="Earth Engine's TensorFlow bridge for any raster: TFRecord out, predictions back.",
    )
    parser.add_argument("--version", action="version", version=f"xee-tf {xee_tf.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_export(commands.add_parser("export", help="rasters to TFRecord patches and their mixer"))
    _add_upload(commands.add_parser("upload", help="prediction TFRecords and a mixer to a GeoTIFF or Zarr"))
    _add_inspect(commands.add_parser("inspect", help="what a mixer and its TFRecords hold"))
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
    options["if_exists"] = "overwrite" if arguments.overwrite else "error"
    if arguments.plan:
        print(image.tfexport.plan(arguments.prefix, **options))
    else:
        print(image.tfexport(arguments.prefix, progress=sys.stderr.isatty(), **options))


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
    parser.description = "Put predictions in their place on the ground, as `earthengine upload image` does."
    parser.add_argument("records", nargs="+", metavar="TFRECORD", help="predictions, in the mixer's order")
    parser.add_argument("mixer", help="the mixer of the export that was predicted from")
    parser.add_argument("destination", help="a file ending with .tif or a folder ending with .zarr")
    parser.add_argument("--bands", nargs="+", metavar="BAND", help="default: all")
    parser.add_argument("--nodata", type=float, metavar="VALUE")
    parser.add_argument("--dtype", help="of the raster, such as uint8. Default: that of the records")
    _size(parser, "--kernel-size", None, "if it cannot be told from the records")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.set_defaults(run=_upload)


def _upload(arguments: argparse.Namespace) -> None:
    written = xee_tf.upload_image(
        arguments.records,
        arguments.mixer,
        arguments.destination,
        bands=arguments.bands,
        nodata=arguments.nodata,
        dtype=arguments.dtype,
        kernel_size=arguments.kernel_size,
        progress=sys.stderr.isatty(),
        if_exists="overwrite" if arguments.overwrite else "error",
    )
    print(f"Wrote {written}")


# -- inspect -----------------------------------------------------------------------------------------


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show patches, place, bands and shards of an export, and check that it is whole."
    parser.add_argument("path", help="a mixer, or a single TFRecord file")
    _size(parser, "--kernel-size", None, "if it cannot be told from the records")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    if arguments.path.endswith(".json"):
        print(image_text(open_reader(arguments.path, kernel_size=arguments.kernel_size)))
        return
    [shard] = open_shards([Location.of(arguments.path)])
    data = first_record(shard)
    if data is None:
        raise RecordError(f"{shard} holds no record.")
    print(record_text(str(shard), read_layout(data)))


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


if __name__ == "__main__":
    sys.exit(main())
