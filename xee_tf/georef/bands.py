"""Combine the bands of several rasters on the same grid into one image."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine

from xee_tf.chunks import check_chunks
from xee_tf.display import quoted
from xee_tf.errors import GeoreferenceError, GridMismatchError, OptionError
from xee_tf.georef.conventions import (
    Raster,
    drop_georeference,
    grid_mappings,
    name_dims,
    raster_variables,
    spatial_dims,
)
from xee_tf.georef.masks import nodata_of_band, with_own_nodata, with_set_nodata
from xee_tf.georef.reference import GeoRef, read_georef, same_grid, write_georef

__all__ = ["add_bands", "band_names", "image_dataset", "plane_array", "require_image", "whole_image"]

_BAND = "band"
_STEP = "_step"
_WHOLE = "_whole"  # temporary name of a DataArray with all its bands
_CHUNK_BYTES = 4 << 20


def add_bands(
    image: Raster, *others: Raster, crs: Any = None, transform: Affine | Sequence[float] | None = None
) -> xr.Dataset:
    """Combine the bands of several images, like Earth Engine's ``addBands``, but without any resampling.

    Parameters
    ----------
    image : Dataset or DataArray
        The first image; the result has its coordinates and CRS. A ``band`` dimension is split into one
        variable per band.
    *others : Dataset or DataArray
        Images on the same grid. Their dimension names and chunks may differ. Coordinates of extra dimensions
        (time, ...) are copied to the result.
    crs : optional
        CRS of images without georeference, in any form that pyproj accepts; it is also written to the result.
    transform : Affine or sequence of 6 numbers, optional
        Affine transform ``[a, b, c, d, e, f]`` of images without georeference, in units of the CRS; it is
        also written to the result.

    Returns
    -------
    Dataset
        The combined image; lazy images stay lazy.

    Raises
    ------
    GridMismatchError
        If the grids differ; the message describes the difference.
    OptionError
        If two bands have the same name.

    Examples
    --------
    >>> y, x = [45.0, 15.0], [500015.0, 500045.0]
    >>> scene = xr.Dataset({"B4": (("y", "x"), [[1, 2], [3, 4]])}, {"y": y, "x": x})
    >>> labels = xr.DataArray([[0, 1], [1, 0]], {"y": y, "x": x}, name="landcover")
    >>> list(add_bands(scene, labels, crs="EPSG:32633"))
    ['B4', 'landcover']
    """
    numbers = [""] if len(others) == 1 else [f" {number}" for number in range(1, len(others) + 1)]
    return _combine([image, *others], crs, transform, ["image", *(f"other{each}" for each in numbers)])


def _combine(images: Sequence[Raster], crs: Any, transform: Any, names: Sequence[str]) -> xr.Dataset:
    """Combine the bands of images, which have the given names in error messages; see `add_bands`."""
    image, *others = images
    result = image_dataset(image)
    if not others and crs is None and transform is None:
        return result
    georef = read_georef(result, crs, transform)
    added: dict[str, xr.Variable] = {}
    coords: dict[str, xr.Variable] = {}
    mapping = next(iter(grid_mappings(result, georef.x_dim, georef.y_dim)), None)
    for other, name_of_other in zip(others, names[1:], strict=False):
        dataset = image_dataset(other)
        place = read_georef(dataset, crs, transform)
        same_grid(georef, place, (names[0], name_of_other))
        for name, band in _bands(dataset, place):
            _require_free(name, {*result.coords, *result.dims}, {*result.data_vars, *added})
            added[name] = _adapt_band(band, place, georef, mapping)
            for dim in added[name].dims:
                if dim in band.coords and str(dim) not in (georef.x_dim, georef.y_dim):
                    _merge_coord(str(dim), band.coords[dim].variable, result, coords)
    result = result.assign(added).assign_coords(coords)
    if crs is None and transform is None:
        return name_dims(result, georef.x_dim, georef.y_dim)
    return write_georef(result, georef, georef.x_dim, georef.y_dim)


def image_dataset(image: Raster, *, split: bool = True) -> xr.Dataset:
    """Convert an image to a Dataset with one variable for each band.

    Each step of a ``band`` dimension, as returned by `rioxarray.open_rasterio` and
    ``xr.open_dataset(engine="rasterio")``, becomes a band. Band names are the coordinate of ``band`` if it
    contains strings, else the attribute ``long_name`` if it has one name for each band (as rioxarray reads
    GeoTIFF descriptions), else "B" and the number. A single band has the name of its variable, or "B1". If
    several variables of a Dataset have a ``band`` dimension, the name of the variable and "_" are prepended
    ("reflectance_red"). Dimensions with other names, such as channel or wavelength, are not split, because
    they may be a physical axis (of a spectrum, for example).

    Parameters
    ----------
    image : Dataset or DataArray
        The image. Without a ``band`` dimension it is returned unchanged, except that nodata in the
        attributes of a Dataset is copied to its bands.
    split : bool
        Whether to split the ``band`` dimension. If false, it is treated like any other dimension.

    Returns
    -------
    Dataset

    Raises
    ------
    OptionError
        If `image` is not an xarray object, has no variables or a ``band`` dimension without steps, or two
        bands have the same name.
    GeoreferenceError
        If the image has no x and y dimensions.

    Examples
    --------
    >>> scene = xr.DataArray([[[1]], [[2]]], dims=("band", "y", "x"), attrs={"long_name": ("red", "nir")})
    >>> list(image_dataset(scene))
    ['red', 'nir']
    >>> list(image_dataset(scene.assign_attrs(long_name="reflectance")))
    ['B1', 'B2']
    >>> list(image_dataset(scene.to_dataset(name="band_data")))
    ['red', 'nir']
    """
    if isinstance(image, xr.Dataset):
        if not image.data_vars:
            raise OptionError("The image has no bands: it is a Dataset without variables.")
        image = _with_checked_chunks(with_own_nodata(image))
        if not split or not any(_BAND in variable.dims for variable in image.data_vars.values()):
            return image
        x_dim, y_dim = spatial_dims(image)
        names = {
            name: band_names(variable)
            for name, variable in raster_variables(image, x_dim, y_dim)
            if _BAND in variable.dims
        }
        if len(names) > 1:
            names = {
                name: [f"{name}_{band}" for band in bands] if len(bands) > 1 else [str(name)]
                for name, bands in names.items()
            }
        return _split_bands(image, names, x_dim, y_dim)
    require_image(image)
    x_dim, y_dim = spatial_dims(image)
    image = with_set_nodata(image)
    named = "The image" if image.name is None else f"Band {str(image.name)!r}"
    image = check_chunks(image, named, axes=2)
    if not split or _BAND not in image.dims:
        name = "B1" if image.name is None else str(image.name)
        _require_free(name, {*image.coords, *image.dims}, ())
        return name_dims(image.to_dataset(name=name), x_dim, y_dim)
    return _split_bands(image.to_dataset(name=_WHOLE), {_WHOLE: band_names(image)}, x_dim, y_dim)


def _with_checked_chunks(dataset: xr.Dataset) -> xr.Dataset:
    """Let the chunks of bands with extra dimensions be checked before a step is selected.

    `xee_tf.graph.declared` checks bands of shape (y, x), from which nothing is selected before.
    """
    bands = {name: band.variable for name, band in dataset.data_vars.items()}
    checked = {name: check_chunks(band, f"Band {str(name)!r}", axes=2) for name, band in bands.items()}
    changed = {name: band for name, band in checked.items() if band is not bands[name]}
    if not changed:
        return dataset
    return name_dims(dataset.assign(changed), *spatial_dims(dataset))


def _split_bands(
    image: xr.Dataset, names: Mapping[Hashable, Sequence[str]], x_dim: str, y_dim: str
) -> xr.Dataset:
    """Replace variables with a band dimension by one variable for each band."""
    bands: dict[Hashable, xr.Variable] = {}
    others = [name for name in image.data_vars if name not in names]
    for name, array in image.data_vars.items():
        if name not in names:
            bands[name] = array.variable
            continue
        if not names[name]:
            which = "The image" if name == _WHOLE else f"The variable {name!r}"
            raise OptionError(f"{which} has no bands: its dimension 'band' is empty.")
        for number, band in enumerate(names[name]):
            _require_free(band, {*image.coords, *image.dims}, [*bands, *others])
            bands[band] = variable = _band(array, number)
            if "long_name" in variable.attrs:
                variable.attrs["long_name"] = band
    dataset = image.drop_vars(list(names)).assign(bands)
    if not any(_BAND in variable.dims for variable in bands.values()):
        dataset = dataset.drop_vars([name for name, coord in dataset.coords.items() if _BAND in coord.dims])
    return name_dims(dataset[list(bands)], x_dim, y_dim)


def plane_array(
    variable: xr.DataArray,
    dims: Sequence[Hashable],
    y_dim: str,
    x_dim: str,
    *,
    sides: tuple[int, int],
    depth: int | None = None,
) -> Any:
    """Return the chunked array of a band: (y, x), or (step, y, x) with all extra dimensions stacked.

    Parameters
    ----------
    variable : DataArray
        The band.
    dims : sequence
        Extra dimensions to keep, slowest first; all others must have length 1.
    y_dim, x_dim : str
        Names of the spatial dimensions.
    sides : (height, width)
        An array without chunks is split into chunks of about 4 MiB whose sides are multiples of these.
    depth : int, optional
        Number of steps to keep, starting with the first.
    """
    others = [dim for dim in variable.dims if dim not in (*dims, y_dim, x_dim)]
    plane = variable.drop_vars(list(variable.coords)).isel(dict.fromkeys(others, 0))
    plane = plane.transpose(*dims, y_dim, x_dim)
    if len(dims) > 1:
        plane = plane.stack({_STEP: dims}, create_index=False).transpose(_STEP, y_dim, x_dim)
    if dims and depth is not None:
        plane = plane.isel({plane.dims[0]: slice(depth)})
    if plane.chunks is None:
        steps = plane.shape[0] if dims else 1
        side = int((_CHUNK_BYTES // (plane.dtype.itemsize * max(steps, 1))) ** 0.5)
        plane = plane.chunk(
            {dim: least * max(1, side // least) for dim, least in zip((y_dim, x_dim), sides, strict=True)}
        )
    return plane.data


def whole_image(
    image: Raster | Sequence[Raster], verb: str, *, crs: Any = None, transform: Any = None, split: bool = True
) -> xr.Dataset:
    """Convert one image, or several on the same grid, to a Dataset with one variable for each band.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        The image or images.
    verb : str
        The action, for error messages: ``"export"``.
    crs, transform
        See `add_bands`.
    split : bool
        See `image_dataset`.

    Returns
    -------
    Dataset

    Raises
    ------
    OptionError
        If `image` has another type, there are no bands, or a dimension is empty.

    Examples
    --------
    >>> whole_image(xr.Dataset({"B4": (("time", "y", "x"), np.zeros((0, 2, 2)))}), "export")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: There is nothing to export: the dimension 'time' is empty. ...
    """
    images = _images(image)
    if not images or (isinstance(images[0], xr.Dataset) and not images[0].data_vars):
        raise OptionError(f"There is nothing to {verb}: the image has no bands.")
    if len(images) > 1 and not split:
        raise OptionError(
            "split_dim='band' cannot be used with several images. Omit split_dim, or pass a single image."
        )
    dataset = (
        image_dataset(images[0], split=split)
        if len(images) == 1
        else _combine(images, crs, transform, [f"images[{number}]" for number in range(len(images))])
    )
    dims = {dim for band in dataset.data_vars.values() for dim in band.dims}
    if empty := [str(dim) for dim, size in dataset.sizes.items() if dim in dims and not size]:
        raise OptionError(
            f"There is nothing to {verb}: the dimension {empty[0]!r} is empty. A selection such as "
            f"ds.sel({empty[0]}=slice(...)) may be outside the range of the coordinates."
        )
    return dataset


def _images(image: Any) -> list[Raster]:
    """Return one or several images as a list, and check their types."""
    images = [image]
    if isinstance(image, Iterable) and not isinstance(image, xr.Dataset | xr.DataArray | str | bytes):
        images = list(image)
    if wrong := [each for each in images if not isinstance(each, xr.Dataset | xr.DataArray)]:
        item = "" if wrong[0] is image else f" with an item of type {type(wrong[0]).__name__}"
        raise OptionError(
            "image must be a Dataset, a DataArray or a sequence of them; got "
            f"{type(image).__name__}{item}.{_open_hint(wrong[0])}"
        )
    return images


def require_image(image: Any) -> None:
    """Raise an error if `image` is not an xarray object.

    Examples
    --------
    >>> require_image("scene.zarr")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: An image must be an xarray Dataset or DataArray; got str. Open the file ...
    """
    if not isinstance(image, xr.Dataset | xr.DataArray):
        raise OptionError(
            f"An image must be an xarray Dataset or DataArray; got {type(image).__name__}.{_open_hint(image)}"
        )


def _open_hint(image: Any) -> str:
    """Return a sentence that tells how to open a file that was passed in place of an image."""
    if not isinstance(image, str | os.PathLike):
        return ""
    path = os.fsdecode(image)
    suffix = os.path.splitext(path.rstrip("/"))[1].lower()
    if suffix == ".zarr":
        call = f"xr.open_zarr({path!r}, decode_coords='all')"
    elif suffix in (".nc", ".nc4", ".h5", ".hdf5"):
        call = f"xr.open_dataset({path!r}, decode_coords='all', chunks={{}})"
    else:
        call = f"rioxarray.open_rasterio({path!r}, masked=True, chunks=1024)"
    return f" Open the file first: {call}."


def _require_free(name: str, coords: Collection[Hashable], bands: Collection[Hashable]) -> None:
    if name in coords or name in bands:
        owner = "another band" if name in bands else "a coordinate or dimension"
        raise OptionError(
            f"The name {name!r} is already used by {owner}. Rename one, for example "
            f"ds.rename({{{name!r}: {name + '_2'!r}}}) or da.assign_coords(band=['red', 'nir'])."
        )


def _band(image: xr.DataArray, number: int) -> xr.Variable:
    band = image.variable.isel({_BAND: number})
    label = image.coords[_BAND].values[number] if _BAND in image.coords else None
    band.attrs = nodata_of_band(image.attrs, number, image.sizes[_BAND], label)
    return band


def band_names(image: xr.DataArray) -> list[str]:
    """Return the names of the steps of the ``band`` dimension; see `image_dataset`."""
    count = image.sizes[_BAND]
    values = image.coords[_BAND].values if _BAND in image.coords else np.arange(1, count + 1)
    if all(isinstance(value, str) for value in values.tolist()):
        return [str(value) for value in values]
    described = image.attrs.get("long_name")
    if isinstance(described, tuple | list) and len(described) == count and all(described):
        return [str(name) for name in described]
    if count == 1 and image.name is not None:
        return [str(image.name)]
    return [f"B{value}" for value in values]


def _bands(dataset: xr.Dataset, georef: GeoRef) -> list[tuple[str, xr.DataArray]]:
    """Return the raster variables; raise an error if there are others, except grid mappings."""
    dims = georef.x_dim, georef.y_dim
    bands = [(str(name), band) for name, band in raster_variables(dataset, *dims)]
    known = {name for name, _ in bands} | set(grid_mappings(dataset, *dims))
    if left := set(map(str, dataset.data_vars)) - known:
        raise GeoreferenceError(
            f"The variables {quoted(sorted(left))} lack one of the dimensions {georef.x_dim} and "
            f"{georef.y_dim}. Drop them, for example ds.drop_vars({sorted(left)})."
        )
    return bands


def _adapt_band(band: xr.DataArray, place: GeoRef, georef: GeoRef, mapping: str | None) -> xr.Variable:
    """Return the band's variable with the dimension names and grid mapping of the image to add it to."""
    spatial = {place.x_dim: georef.x_dim, place.y_dim: georef.y_dim}
    single = [dim for dim, size in band.sizes.items() if size == 1 and dim not in spatial]
    bare = band.drop_vars(list(band.coords)).isel(dict.fromkeys(single, 0))
    variable = bare.rename({old: new for old, new in spatial.items() if old != new}).variable.copy(deep=False)
    variable.encoding = band.encoding
    drop_georeference(variable)
    if mapping is not None:
        variable.encoding["grid_mapping"] = mapping
    return variable


def _merge_coord(dim: str, coord: xr.Variable, image: xr.Dataset, coords: dict[str, xr.Variable]) -> None:
    existing = image.variables.get(dim, coords.get(dim))
    if existing is None:
        coords[dim] = coord
    elif existing.size != coord.size or (existing.values != coord.values).any():
        raise GridMismatchError(
            f"The images have different coordinates along {dim!r}: {existing.size} steps from "
            f"{existing.values[0]}, and {coord.size} steps from {coord.values[0]}. Select the same steps, or "
            "rename one of the dimensions."
        )
