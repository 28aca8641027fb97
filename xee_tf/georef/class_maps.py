"""Maps of classes from rasters of their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, cast, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from xee_tf.classes import CONFIDENCE, Classes, Color, highest
from xee_tf.display import quoted
from xee_tf.errors import GeoreferenceError, OptionError
from xee_tf.georef.bands import band_names, image_dataset
from xee_tf.georef.conventions import (
    Raster,
    name_dims,
    raster_variables,
    spatial_dims,
)
from xee_tf.georef.masks import NodataValues, band_nodata
from xee_tf.georef.reference import read_georef, write_georef
from xee_tf.names import SPREAD, check_key
from xee_tf.options import check_flags, read_names

__all__ = ["class_map"]

_SCALING = ("scale_factor", "add_offset")
_DIMS = ("band", "class")


@overload
def class_map(
    probabilities: Raster,
    *,
    bands: Sequence[str] | None = None,
    dim: str | None = None,
    class_names: Sequence[str] | None = None,
    values: Sequence[int] | Mapping[str, int] | None = None,
    colors: Sequence[Color] | Mapping[str, Color] | None = None,
    nodata: int | None = None,
    name: str = "class",
    confidence: Literal[False] = False,
) -> xr.DataArray: ...


@overload
def class_map(
    probabilities: Raster,
    *,
    bands: Sequence[str] | None = None,
    dim: str | None = None,
    class_names: Sequence[str] | None = None,
    values: Sequence[int] | Mapping[str, int] | None = None,
    colors: Sequence[Color] | Mapping[str, Color] | None = None,
    nodata: int | None = None,
    name: str = "class",
    confidence: Literal[True],
) -> xr.Dataset: ...


def class_map(
    probabilities: Raster,
    *,
    bands: Sequence[str] | None = None,
    dim: str | None = None,
    class_names: Sequence[str] | None = None,
    values: Sequence[int] | Mapping[str, int] | None = None,
    colors: Sequence[Color] | Mapping[str, Color] | None = None,
    nodata: int | None = None,
    name: str = "class",
    confidence: bool = False,
) -> xr.DataArray | xr.Dataset:
    """Make a map of the most probable class of each pixel, lazily, from the probabilities of all classes.

    A pixel that is masked in any band is masked. If several probabilities are equal, the first one counts.

    Parameters
    ----------
    probabilities : Dataset or DataArray
        Raster with a band for each class, in the order of the classes: variables, or steps of a dimension.
        They need not be probabilities: any scores of which the highest wins.
    bands : sequence of str, optional
        Bands to use, in this order. Default: all, in their own order, which for a Zarr store is not the order
        in which they were written. `xee_tf.Model.predict_image` also returns the bands of the image, unless
        ``merge=False``.
    dim : str, optional
        The dimension of the classes. Default: "band" or "class", if there is one.
    class_names : sequence of str, optional
        Names of the classes. Default: those of the bands.
    values : sequence of int or mapping of str to int, optional
        The number of each class in the map, from 0 to 65535, in the order of the classes or by name. Default:
        0, 1, 2, ...
    colors : sequence of colors or mapping of str to color, optional
        The color of each class, in the order of the classes or by name: ``"#2f7d4f"`` or ``(47, 125, 79)``.
    nodata : int, optional
        The number of masked pixels, which no class has. Default: 255, or 65535 if a class has a number over
        255; if that is a class, the smallest number that is none.
    name : str, default "class"
        Name of the map.
    confidence : bool, default False
        Whether to return the probability of the class, too, as a second band, "confidence".

    Returns
    -------
    DataArray or Dataset
        The map, uint8, or uint16 if a number is over 255. With `confidence`, a Dataset of the map and a
        float32 band, which is NaN in masked pixels.

    Raises
    ------
    OptionError
        If an option is invalid, or there are fewer than two classes.
    GeoreferenceError
        If there are no x and y dimensions.

    See Also
    --------
    Model : A model with ``output_bands={"class": {"argmax": ["forest", "water"]}}`` predicts such a map.

    Notes
    -----
    The attributes of the map are ``_FillValue``, those of CF, ``flag_values`` and ``flag_meanings`` (names
    with underscores instead of blanks; other characters stay, although CF allows only letters, digits and
    ``_-.+@``), ``class_names`` and, with `colors`, ``flag_colors`` as in the land-cover maps of ESA and
    Copernicus. `xee_tf.to_cog` and `xee_tf.predict_to_cog` write names as categories and colors as the color
    table of the GeoTIFF. In Zarr and netCDF, they stay attributes; open the map with ``mask_and_scale=False``
    to get integers and not floats with NaN.

    Examples
    --------
    >>> water = xr.DataArray([[0.75, 0.25, np.nan]], {"y": [15.0], "x": [15.0, 45.0, 75.0]})
    >>> shares = xr.Dataset({"forest": 1 - water, "water": water})
    >>> classes = class_map(shares, colors=["#2f7d4f", "#2e7ebf"])
    >>> classes.values, classes.attrs["flag_meanings"]
    (array([[  1,   0, 255]], dtype=uint8), 'forest water')
    >>> class_map(shares, values=[1, 2], nodata=0, confidence=True).confidence.values
    array([[0.75, 0.75,  nan]], dtype=float32)
    """
    check_flags(confidence=confidence)
    check_key(name, "map")
    if confidence and name == CONFIDENCE:
        raise OptionError(
            f"The map cannot be named {name!r}, the name of the second band. Pass another name=."
        )
    image, names, arrays, fills, axis = _planes(probabilities, bands, dim)
    classes = Classes.of(names if class_names is None else class_names, values, colors, nodata)
    if len(classes.names) != len(names):
        raise OptionError(
            f"class_names has {len(classes.names)} names, but there are {len(names)} classes: "
            f"{quoted(names)}."
        )
    made = _assign(classes, arrays, fills, axis, confidence)
    x_dim, y_dim = spatial_dims(image)
    georef = None
    with suppress(GeoreferenceError):  # the map has no CRS either
        georef = read_georef(image)
    result = image.drop_vars(list(image.data_vars)).drop_attrs(deep=False)
    if axis is not None:
        result = result.drop_dims(axis, errors="ignore")
    if name in {*result.coords, x_dim, y_dim}:
        raise OptionError(
            f"The map cannot be named {name!r}: a coordinate has that name. Pass another name=."
        )
    result = result.assign(dict(zip((name, CONFIDENCE), made, strict=False)))
    result = name_dims(result, x_dim, y_dim) if georef is None else write_georef(result, georef, x_dim, y_dim)
    return result if confidence else name_dims(result[name], x_dim, y_dim)


def _planes(
    probabilities: Raster, bands: Sequence[str] | None, dim: str | None
) -> tuple[xr.Dataset, list[str], list[xr.Variable], list[NodataValues], str | None]:
    """Return the image, the names of its classes, their bands or one array of all, nodata, and its axis."""
    stacked = _stacked(probabilities, dim)
    image = image_dataset(probabilities, split=stacked is None)
    found = dict(raster_variables(image, *spatial_dims(image)))
    for key, band in found.items():
        if band.dtype.kind not in "biuf":
            raise OptionError(f"Band {str(key)!r} has dtype {band.dtype}; expected numbers.")
    if stacked is not None:
        [(key, band)] = found.items()
        names = _step_names(band, stacked)
        chosen = _chosen(names, bands)
        array = (
            band.variable if chosen == names else band.variable.isel({stacked: [*map(names.index, chosen)]})
        )
        return image, chosen, [array], [band_nodata(band, str(key))] * len(chosen), stacked
    chosen = _chosen([str(key) for key in found], bands)
    if bands is None:
        _require_only_classes({str(key): band.dtype for key, band in found.items()})
    scales = {name: tuple(found[name].attrs.get(key) for key in _SCALING) for name in chosen}
    if len(set(scales.values())) > 1:
        raise OptionError(
            f"The bands have different {' and '.join(_SCALING)}: {scales}. Their numbers cannot be compared: "
            "decode them first, for example with xr.decode_cf(ds)."
        )
    own = {str(key): band for key, band in found.items()}
    fills = [band_nodata(own[key], key) for key in chosen]
    return image, chosen, [own[key].variable for key in chosen], fills, None


def _stacked(probabilities: Raster, dim: str | None) -> str | None:
    """Return the dimension of the classes, or None if they are variables."""
    arrays: list[xr.DataArray] = []
    if isinstance(probabilities, xr.DataArray):
        arrays = [probabilities]
    elif getattr(probabilities, "data_vars", ()):  # anything else is an error of image_dataset
        arrays = [band for _, band in raster_variables(probabilities, *spatial_dims(probabilities))]
    if len(arrays) != 1:
        for array in arrays:
            if vector := _vector_dim(array):
                raise OptionError(
                    f"The variable {array.name!r} has the values of several classes along {vector!r}. Pass "
                    f"it alone: class_map(ds[{array.name!r}], dim={vector!r})."
                )
        if dim is not None:
            raise OptionError(
                f"dim={dim!r} is for a single array with all classes; got {len(arrays)} variables, which are "
                "the classes. Omit dim, or select one variable."
            )
        return None
    [array] = arrays
    dims = tuple(map(str, array.dims))
    found = next((each for each in _DIMS if each in dims), None) if dim is None else dim
    if found not in dims:
        others = [each for each in dims if each not in spatial_dims(array)]
        likely = _vector_dim(array) or (others[0] if len(others) == 1 else "")
        raise OptionError(
            f"probabilities has the dimensions {quoted(dims)}"
            + (f", and none is {dim!r}." if dim is not None else ", and none of them is 'band' or 'class'.")
            + f" Pass the dimension of the classes as dim={likely and repr(likely)}, or a Dataset with a "
            "variable for each class."
        )
    if found in spatial_dims(array):
        raise OptionError(f"dim={dim!r} is a dimension of the pixels; pass that of the classes.")
    return found


def _vector_dim(array: xr.DataArray) -> str | None:
    """Return the dimension that `predict_image` gives to an output with several values in each pixel."""
    name = f"{array.name}_0"
    return name if name in array.dims else None


def _step_names(band: xr.DataArray, dim: str) -> list[str]:
    if dim == "band":
        return band_names(band)
    labels = band.coords[dim].values if dim in band.coords else range(band.sizes[dim])
    return [str(label) for label in labels]


def _require_only_classes(dtypes: Mapping[str, np.dtype[Any]]) -> None:
    """Raise an error for bands that can hardly be probabilities of classes, beside others."""
    spreads = [name for name in dtypes if name.endswith(SPREAD) and name.removesuffix(SPREAD) in dtypes]
    floats = [name for name, dtype in dtypes.items() if dtype.kind == "f" and name not in spreads]
    others = [*spreads, *(name for name, dtype in dtypes.items() if dtype.kind != "f")]
    if floats and others:
        raise OptionError(
            f"{quoted(others)} would become classes beside {quoted(floats)}. Pass the bands of the "
            f"classes, as in bands={floats}, or omit the others: merge=False in predict_image."
        )


def _chosen(names: list[str], bands: Sequence[str] | None) -> list[str]:
    if bands is None:
        return names
    chosen = list(read_names(bands, "bands"))
    if unknown := [name for name in chosen if name not in names]:
        raise OptionError(f"bands names {unknown[0]!r}, which does not exist. The bands are {quoted(names)}.")
    return chosen


def _assign(
    classes: Classes,
    arrays: Sequence[xr.Variable],
    fills: list[NodataValues],
    dim: str | None,
    confidence: bool,
) -> list[xr.Variable]:
    """Return the lazy map and, if requested, the probabilities: a task for each chunk of either."""
    bands = []
    for array in arrays:
        sizes: dict[Hashable, Any] = {} if array.chunks is not None else dict.fromkeys(array.dims, "auto")
        bands.append(xr.DataArray(array.chunk(sizes if dim is None else {**sizes, dim: -1})))
    bands = [cast(xr.DataArray, band) for band in xr.unify_chunks(*xr.broadcast(*bands))]
    axis = None if dim is None else bands[0].dims.index(dim)
    dims = [each for each in bands[0].dims if each != dim]
    first, *others = [band.data for band in bands]

    def variable(function: Callable[..., Any], dtype: np.dtype[Any]) -> xr.Variable:
        meta = np.empty((0,) * len(dims), dtype)
        work = partial(_assign_classes, function=function, fills=fills, axis=axis)
        return xr.Variable(dims, first.map_blocks(work, *others, dtype=dtype, drop_axis=axis, meta=meta))

    made = [variable(classes.assign, classes.dtype)]
    made[0].attrs = classes.attrs()
    if confidence:
        made.append(variable(highest, np.dtype(np.float32)))
        made[1].encoding["_FillValue"] = np.float32(np.nan)
    return made


def _assign_classes(
    *planes: npt.NDArray[Any],
    function: Callable[..., npt.NDArray[Any]],
    fills: Sequence[NodataValues],
    axis: int | None,
) -> npt.NDArray[Any]:
    """Apply a function to the probabilities in a chunk."""
    own = planes if axis is None else np.moveaxis(planes[0], axis, 0)
    return function(own, fills)
