"""``xee-tf predict``."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

from cyclopts import Parameter

import xee_tf
from xee_tf.cli.loading import model_at
from xee_tf.cli.options import Crs, Flag, Names, Number, Size, if_exists, inherit_descriptions, parse_names
from xee_tf.cli.rasters import open_rasters
from xee_tf.errors import OptionError
from xee_tf.models import ModelUnit
from xee_tf.options import parse
from xee_tf.predict import Blend, PredictOptions, Written, write_cog, write_zarr
from xee_tf.storage import Location
from xee_tf.upload import Resampling, raster_format, require_no_overviews

__all__ = ["predict"]


@inherit_descriptions(xee_tf.Model, xee_tf.Model.predict_image)
def predict(
    model: str,
    rasters: list[str],
    destination: str,
    /,
    *,
    plan: Flag = False,
    band_names: Names = None,
    bands: Names = None,
    array_dims: Annotated[Names, Parameter(negative="--no-array-dims")] = None,
    unit: ModelUnit = "tile",
    input_tile_size: Size = None,
    input_overlap_size: Size = None,
    output_tile_size: Size = None,
    output_bands: Annotated[Names, Parameter(metavar="NAME[=TYPE][,NAME...]")] = None,
    class_map: Annotated[Names, Parameter(metavar="NAME[=COLOR][,NAME...]")] = None,
    batch_size: Annotated[int | None, Number] = None,
    blend: Blend = "crop",
    augment: Literal["d4"] | None = None,
    nodata: Annotated[int | float | None, Parameter(metavar="VALUE")] = None,
    overview_resampling: Resampling = "nearest",
    crs: Crs = None,
    chunk: Annotated[int, Parameter(metavar="PIXELS")] = 1024,
    overwrite: Flag = False,
    resume: Flag = False,
) -> None:
    """Predict every pixel of rasters on one grid with a model on disk or in a bucket.

    A Zarr store is resumed after an interruption; so is a .tif that was begun with --resume.

    Parameters
    ----------
    model
        Folder of a SavedModel, a .keras, .h5 or .onnx file, or the .json file of a STAC item with the Machine
        Learning Model extension: a path or a URL, such as s3://bucket/model.keras.
    rasters
        Files that GDAL can open, Zarr stores or NetCDF files. A file with one band gives its name to the
        band: B4 for B4.tif. Several bands of one file keep the names that the file contains, or are named B1,
        B2, ...; if several files are given, scene_1, scene_2, ... after their file. Bands of Zarr stores and
        NetCDF files keep their names.
    destination
        Output: a .tif file (a cloud-optimized GeoTIFF) or a .zarr folder.
    plan
        Show the plan of the prediction, and predict and write nothing.
    band_names
        Other names for all bands, in the order of the files and of their bands.
    array_dims
        Dimensions, such as time, that the model takes as a whole, in the order of its input. Each step of any
        other dimension is predicted separately. With --no-array-dims this holds for all dimensions. Default:
        the dimensions of the model's input.
    unit
        What the model takes: tiles, or single pixels, for a model without spatial context, such as a dense or
        recurrent network. Masked pixels are not sent then, and there are no sizes of tiles.
    input_overlap_size
        Pixels added along each edge of a tile, as in Earth Engine's reference and code samples: the model
        takes the tile size plus twice the overlap. The overlap may be larger than the tile: a classifier of
        3 x 3 neighborhoods has a tile of 1 and an overlap of 1.
    output_bands
        Names of the outputs, with types that differ from the model's own: forest=uint8,water. Default: the
        outputs of the model.
    class_map
        Write a band "class" of the most probable class of each pixel, instead of the probabilities, which
        are the channels of the model's only output. Names of the classes in their order, with colors or
        without: "forest=#2f7d4f,water=#2e7ebf".
    nodata
        Value of masked pixels of a .tif, the same for all bands. Default: a value that no band can have.
    overview_resampling
        How the overviews of a .tif are computed from pixels that are not missing: mean for measurements, mode
        for classes.
    crs
        CRS of rasters that have none.
    chunk
        Width and height, in pixels, of the chunks that are read from disk.
    overwrite
        Replace an existing destination.
    resume
        Keep finished predictions for a .tif in a hidden folder beside it until it is complete, and continue
        an interrupted run with them. The folder needs up to the size of all bands without compression. Each
        call with this option can be continued, also without it; a Zarr store always can. Only --overwrite
        deletes what is kept.
    """
    location = Location.of(destination)
    output_format = raster_format(location)
    if output_format != "tif":
        require_no_overviews(overview_resampling)
        if nodata is not None:
            raise OptionError("nodata is for a .tif; a Zarr store has a value for each band. Omit it.")
    image = open_rasters(rasters, chunk, crs, parse_names(band_names))
    options: dict[str, Any] = {
        "bands": parse_names(bands, image.data_vars),
        "array_dims": parse_names(array_dims, image.dims),
        "unit": unit,
        "input_tile_size": input_tile_size,
        "input_overlap_size": input_overlap_size,
        "output_tile_size": output_tile_size,
    }
    if outputs := parse_names(output_bands):
        types = {name: kind or None for name, _, kind in (output.partition("=") for output in outputs)}
        options["output_bands"] = {name: {"type": kind} for name, kind in types.items()}
    if classes := parse_names(class_map):
        if outputs:
            raise OptionError("output_bands and class_map exclude each other: pass one of them.")
        options["output_bands"] = {"class": _declare_classes(classes)}
    opened = model_at(model, **options)
    how: dict[str, Any] = {"batch_size": batch_size, "blend": blend, "augment": augment, "crs": crs}
    if plan:
        print(opened.plan(image, **how))
        return
    of_file: dict[str, Any] = {"nodata": nodata, "overview_resampling": overview_resampling}
    to: dict[str, Any] = {"if_exists": if_exists(overwrite, resume), "progress": sys.stderr.isatty()}
    choices = parse(PredictOptions, how)
    if output_format == "tif":
        print(_describe(write_cog(opened, image, location, choices, **of_file, **to)))
    elif (store := write_zarr(opened, image, location, choices, **to)).finished == store.chunks:
        print(f"{location} was already complete: nothing was predicted.")
    else:
        print(_describe(store))


def _declare_classes(texts: list[str]) -> dict[str, Any]:
    """Return the declaration of a map of classes, of which all have colors or none."""
    parts = [text.partition("=") for text in texts]
    names, colors = [name for name, _, _ in parts], [color for _, sign, color in parts if sign]
    if colors and len(colors) < len(names):
        without = next(name for name, sign, _ in parts if not sign)
        raise OptionError(f"class_map has no color for {without!r}: give each class one, or none of them.")
    return {"argmax": names, "colors": colors or None}


def _describe(written: Written) -> str:
    """Say what was written, and what an earlier run had finished."""
    if not written.finished:
        return f"Wrote {written.location}"
    finished = f"{written.finished:,} of {written.chunks:,} chunks were already finished"
    return f"Wrote {written.location}. Continued: {finished}."
