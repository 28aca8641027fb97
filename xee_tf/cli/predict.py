"""``xee-tf predict``."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import PurePath
from typing import Any

import xarray as xr
from dask.diagnostics.progress import ProgressBar

import xee_tf
from xee_tf.cli.arguments import NO_IF_EXISTS, names, open_raster, size
from xee_tf.cli.parser import Parser
from xee_tf.errors import OptionError
from xee_tf.georef import read_georef
from xee_tf.models.options import MODEL_SPELLING
from xee_tf.sidecars import BandDimensions, step_names
from xee_tf.storage import Location, require_free, require_writable
from xee_tf.upload.casting import cast, common_nodata
from xee_tf.upload.cog import write_cog

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
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="RASTER",
        help="what GDAL, Zarr or NetCDF open; several are put together",
    )
    parser.add_argument("destination", help="a file ending with .tif or a folder ending with .zarr")
    parser.add_argument(
        "--bands",
        nargs="+",
        action="extend",
        metavar="BAND",
        help="those that the model sees, in its order: B4 B3, or B4,B3",
    )
    parser.add_argument(
        "--array-dims",
        nargs="*",
        action="extend",
        metavar="DIM",
        help="dimensions that the model takes as a whole, in its order: time run, or time,run; none: each "
        "step is predicted by itself; default: what the model takes",
    )
    size(parser, "--input-tile-size", None, "pixels of a tile; default: what the model takes")
    size(parser, "--input-overlap-size", None, "pixels added along each edge of a tile")
    size(parser, "--output-tile-size", None, "pixels that come back for a tile, if the scale changes")
    parser.add_argument(
        "--output-bands",
        nargs="+",
        action="extend",
        metavar="BAND[=TYPE]",
        help="such as forest=uint8, or water,forest=uint8; default: as the model has them",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="tiles in a call of the model")
    parser.add_argument("--blend", choices=("crop", "hann"), default="crop", help="of overlapping answers")
    parser.add_argument(
        "--augment", choices=("d4",), help="mean and spread over eight positions of each tile"
    )
    parser.add_argument("--crs", help="CRS of rasters that have none")
    parser.add_argument(
        "--chunk", type=int, default=1024, metavar="PIXELS", help="side of a chunk read from disk"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.set_defaults(run=_predict)


def _output(text: str) -> tuple[str, str | None]:
    name, _, kind = text.partition("=")
    return name, kind or None


def _predict(arguments: argparse.Namespace) -> None:
    location = Location.of(arguments.destination)
    suffix = PurePath(location.name).suffix.lower()
    if suffix not in (".tif", ".tiff", ".zarr"):
        raise OptionError(f"{location.name!r} says no format that can be written: end it with .tif or .zarr.")
    if_exists: Any = "overwrite" if arguments.overwrite else "error"
    if suffix != ".zarr":
        require_free(location, if_exists)
    require_writable(location)
    chosen: dict[str, Any] = {name: getattr(arguments, name) for name in _MODEL_OPTIONS}
    if arguments.output_bands:
        outputs = map(_output, names(arguments.output_bands) or [])
        chosen["output_bands"] = {name: {"type": kind} for name, kind in outputs}
    alone = len(arguments.sources) == 1
    images = [open_raster(source, arguments.chunk, alone=alone) for source in arguments.sources]
    image = xee_tf.add_bands(*images, crs=arguments.crs)
    chosen["bands"] = names(arguments.bands, image.data_vars)
    chosen["array_dims"] = names(arguments.array_dims, image.dims)
    is_file = PurePath(arguments.model).suffix in (".keras", ".h5")
    make = xee_tf.Model.from_keras if is_file else xee_tf.Model.from_saved_model
    model = make(arguments.model, **chosen)
    options = {name: getattr(arguments, name) for name in _OPTIONS}
    progress = sys.stderr.isatty()
    if suffix == ".zarr":
        xee_tf.predict_to_zarr(model, image, location, if_exists=if_exists, progress=progress, **options)
    else:
        with ProgressBar() if progress else nullcontext():
            _write_tif(model.predict_image(image, merge=False, **options), location)
    print(f"Wrote {location}")


def _write_tif(predicted: xr.Dataset, location: Location) -> None:
    """All bands as one dtype, and one value for what is masked."""
    bands = {str(name): band for name, band in predicted.data_vars.items()}
    fills = {name: band.attrs.get("_FillValue") for name, band in bands.items()}
    remedy = f"declare smaller types, for example --output-bands {next(iter(bands))}=int32, or write a .zarr"
    dtype, nodata = common_nodata({name: band.dtype for name, band in bands.items()}, fills, remedy)
    arrays, names = {}, {}
    for name, band in bands.items():
        data = cast(name, band.data, dtype, nodata, fill=fills[name], remedy=remedy)
        arrays[name] = data.rechunk(dict.fromkeys(range(data.ndim - 2), -1))
        dims = tuple(map(str, band.dims[:-2]))
        coords = {dim: band.coords[dim].values for dim in dims if dim in band.coords}
        names[name] = step_names(BandDimensions(name, name, 0, dims, band.shape[:-2]), coords)
    write_cog(location, arrays, names, read_georef(predicted), nodata)
