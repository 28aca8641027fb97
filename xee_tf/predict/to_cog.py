"""A prediction written to a cloud-optimised GeoTIFF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import xarray as xr

from xee_tf.models import ModelSpec
from xee_tf.options import IfExists, parse, spelled
from xee_tf.predict.image import predict_image
from xee_tf.predict.options import PREDICT_SPELLING, PredictKeywords, PredictOptions
from xee_tf.storage import Location, PathLike, require_free, require_writable
from xee_tf.upload import write_raster

__all__ = ["predict_to_cog"]

_SPELLING = replace(
    PREDICT_SPELLING,
    replaced={**PREDICT_SPELLING.replaced, "merge": "the file holds predictions alone; leave it out"},
)


@spelled(_SPELLING, PredictOptions)
def predict_to_cog(
    model: ModelSpec,
    image: xr.Dataset | xr.DataArray,
    destination: PathLike | Location,
    *,
    if_exists: IfExists = "error",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    **options: Unpack[PredictKeywords],
) -> Location:
    """Predict a raster into a cloud-optimised GeoTIFF; it is never in memory as a whole.

    A GeoTIFF has one dtype for all bands and one value for missing pixels, as `xee_tf.to_cog` describes.
    `xee_tf.predict_to_zarr` keeps the dtype of each band, and continues after an interruption.

    Parameters
    ----------
    model : Model
    image : Dataset or DataArray
    destination : str or path-like
        Local, or any URL that fsspec knows. The file appears when it is complete.
    if_exists : {"error", "overwrite"}, optional
        What to do where the destination exists.
    progress : bool, optional
        Show a bar.
    storage_options : mapping, optional
        Handed to fsspec.
    **options
        As for `xee_tf.Model.predict_image`; ``merge`` is not among them: the file holds predictions alone.

    Returns
    -------
    Location
        The destination.

    Raises
    ------
    DestinationExistsError, DestinationError
        If the destination exists or cannot be written.
    OptionError, GeoreferenceError, ModelError, PredictionError
        As predicting does, and as `xee_tf.to_cog` does.
    RecordError
        If the common dtype does not hold a value.

    Examples
    --------
    >>> import numpy as np, rasterio, tempfile, xee_tf
    >>> scene = xr.Dataset({"B4": (("y", "x"), np.arange(16.0).reshape(4, 4))},
    ...     {"y": [105.0, 75.0, 45.0, 15.0], "x": [15.0, 45.0, 75.0, 105.0]}).rio.write_crs("EPSG:32633")
    >>> model = xee_tf.Model.from_function(lambda b: 2 * b[..., 0], input_tile_size=2, output_bands=["twice"])
    >>> file = predict_to_cog(model, scene, tempfile.mkdtemp() + "/twice.tif")
    >>> with rasterio.open(file.path) as opened:
    ...     opened.descriptions, float(opened.read(1)[3, 3])
    (('twice',), 30.0)
    """
    location = Location.of(destination, storage_options)
    require_free(location, if_exists)
    require_writable(location)
    predicted = predict_image(model, image, parse(PredictOptions, options), merge=False).dataset
    smaller = f"output_bands={{{next(iter(predicted.data_vars))!r}: 'int32'}}"
    remedy = f"declare smaller types, for example {smaller}, or write a .zarr"
    write_raster(predicted, location, progress=progress, remedy=remedy)
    return location
