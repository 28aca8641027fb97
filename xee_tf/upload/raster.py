"""A georeferenced Dataset as a cloud-optimised GeoTIFF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import xarray as xr

from xee_tf.errors import OptionError
from xee_tf.georef import read_georef
from xee_tf.graph import progress_bar
from xee_tf.options import IfExists
from xee_tf.sidecars import BandSpec, step_names
from xee_tf.storage import Location, PathLike, require_free, require_writable
from xee_tf.upload.casting import cast, common_nodata
from xee_tf.upload.cog import write_cog

__all__ = ["raster_format", "to_cog", "write_raster"]


def raster_format(location: Location) -> Literal["tif", "zarr"]:
    """The format that a destination's name asks for.

    Raises
    ------
    OptionError
        If it is neither a GeoTIFF nor a Zarr.

    Examples
    --------
    >>> raster_format(Location("out/map.TIFF")), raster_format(Location("out/map.zarr"))
    ('tif', 'zarr')
    """
    name = location.name.lower()
    if name.endswith((".tif", ".tiff")):
        return "tif"
    if name.endswith(".zarr"):
        return "zarr"
    raise OptionError(f"{location.name!r} says no format that can be written: end it with .tif or .zarr.")


def to_cog(
    raster: xr.Dataset,
    destination: PathLike | Location,
    *,
    if_exists: IfExists = "error",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Write a lazy raster as a cloud-optimised GeoTIFF; it is never in memory as a whole.

    A GeoTIFF has one dtype for all bands and one value for missing pixels: the dtype is the smallest that
    holds the values of all bands, and the value is valid in none of them. Values are never changed.

    Parameters
    ----------
    raster : Dataset
        With a place, and bands whose attribute ``_FillValue``, where they have it, marks missing pixels, as
        NaN does. Each step of further dimensions becomes a band, which is named by its coordinate.
    destination : str or path-like
        Local, or any URL that fsspec knows. The file appears when it is complete.
    if_exists : {"error", "overwrite"}, optional
        What to do where the destination exists.
    progress : bool, optional
        Show a bar.
    storage_options : mapping, optional
        Handed to fsspec.

    Returns
    -------
    Location
        The destination.

    Raises
    ------
    DestinationExistsError, DestinationError
        If the destination exists or cannot be written.
    GeoreferenceError
        If the raster has no place.
    OptionError
        If there is no value left for missing pixels, or a band's name cannot be noted.
    RecordError
        If the common dtype does not hold a value.

    Examples
    --------
    >>> import numpy as np, rasterio, rioxarray, tempfile
    >>> classes = xr.DataArray(np.array([[1, 2]], "uint8"), {"y": [15.0], "x": [15.0, 45.0]})
    >>> scene = xr.Dataset({"class": classes, "share": classes / 4}).rio.write_crs("EPSG:32633")
    >>> file = to_cog(scene.rio.write_transform(), tempfile.mkdtemp() + "/map.tif")
    >>> with rasterio.open(file.path) as opened:
    ...     opened.descriptions, opened.dtypes, opened.read(2).tolist()
    (('class', 'share'), ('float64', 'float64'), [[0.25, 0.5]])
    """
    location = Location.of(destination, storage_options)
    require_free(location, if_exists)
    require_writable(location)
    remedy = "cast it first, for example with astype('int32'), or write a Zarr"
    write_raster(raster, location, progress=progress, remedy=remedy)
    return location


def write_raster(raster: xr.Dataset, location: Location, *, progress: bool, remedy: str) -> None:
    """Write a raster as `to_cog` does; `remedy` is the end of the error about a value that does not fit."""
    georef = read_georef(raster)
    bands = {
        str(name): band.transpose(..., georef.y_dim, georef.x_dim) for name, band in raster.data_vars.items()
    }
    fills = {name: band.attrs.get("_FillValue") for name, band in bands.items()}
    dtype, nodata = common_nodata({name: band.dtype for name, band in bands.items()}, fills, remedy)
    arrays, names = {}, {}
    for name, band in bands.items():
        data = cast(name, band.chunk().data, dtype, nodata, fill=fills[name], remedy=remedy)
        arrays[name] = data.rechunk(dict.fromkeys(range(data.ndim - 2), -1))
        dims = tuple(map(str, band.dims[:-2]))
        coords = {dim: band.coords[dim].values for dim in dims if dim in band.coords}
        names[name] = step_names(BandSpec(name, dims, band.shape[:-2]), coords)
    with progress_bar(progress):
        write_cog(location, arrays, names, georef, nodata)
