"""``xee-tf predict``."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import Annotated, Any, Literal

from cyclopts import Parameter

import xee_tf
from xee_tf.cli.options import Crs, Flag, Names, Size, described_by, if_exists, names
from xee_tf.cli.rasters import open_rasters
from xee_tf.predict import Blend
from xee_tf.storage import Location
from xee_tf.upload import raster_format

__all__ = ["predict"]


@described_by(xee_tf.Model, xee_tf.Model.predict_image)
def predict(
    model: str,
    rasters: list[str],
    destination: str,
    /,
    *,
    bands: Names = None,
    array_dims: Annotated[Names, Parameter(negative="--no-array-dims")] = None,
    input_tile_size: Size = None,
    input_overlap_size: Size = None,
    output_tile_size: Size = None,
    output_bands: Annotated[Names, Parameter(metavar="NAME[=TYPE][,NAME...]")] = None,
    batch_size: int | None = None,
    blend: Blend = "crop",
    augment: Literal["d4"] | None = None,
    crs: Crs = None,
    chunk: Annotated[int, Parameter(metavar="PIXELS")] = 1024,
    overwrite: Flag = False,
) -> None:
    """Predict every pixel of rasters on one grid with a model on disk.

    A Zarr store is continued where an interrupted run has left it.

    Parameters
    ----------
    model
        The folder of a SavedModel, or a .keras or .h5 file.
    rasters
        Anything that GDAL, Zarr or NetCDF opens. Several are put together; each band is named after its file.
    destination
        A file ending with .tif (a cloud-optimised GeoTIFF) or a folder ending with .zarr.
    array_dims
        Dimensions, such as time, that the model takes as a whole, in its order. All others are mapped over:
        each step is predicted by itself. --no-array-dims maps over every dimension. Default: what the model
        takes.
    output_bands
        What the model gives, with types where they are not the model's own: forest=uint8,water. Default: as
        the model tells.
    crs
        CRS of rasters that have none.
    chunk
        Side of a chunk that is read from disk.
    overwrite
        Replace the destination.
    """
    location = Location.of(destination)
    written = raster_format(location)
    image = open_rasters(rasters, chunk, crs)
    chosen: dict[str, Any] = {
        "bands": names(bands, image.data_vars),
        "array_dims": names(array_dims, image.dims),
        "input_tile_size": input_tile_size,
        "input_overlap_size": input_overlap_size,
        "output_tile_size": output_tile_size,
    }
    if outputs := names(output_bands):
        types = {name: kind or None for name, _, kind in (output.partition("=") for output in outputs)}
        chosen["output_bands"] = {name: {"type": kind} for name, kind in types.items()}
    is_file = PurePath(model).suffix in (".keras", ".h5")
    make = xee_tf.Model.from_keras if is_file else xee_tf.Model.from_saved_model
    write = xee_tf.predict_to_cog if written == "tif" else xee_tf.predict_to_zarr
    write(
        make(model, **chosen),
        image,
        location,
        batch_size=batch_size,
        blend=blend,
        augment=augment,
        crs=crs,
        if_exists=if_exists(overwrite),
        progress=sys.stderr.isatty(),
    )
    print(f"Wrote {location}")
