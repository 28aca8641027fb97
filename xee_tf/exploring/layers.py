"""Read what a map shows: the bands of each raster, where they are, and how they become colors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.classes import find_labels
from xee_tf.display import quoted
from xee_tf.errors import OptionError, shorten
from xee_tf.exploring.colors import BandColors, ClassColors, Limits, color_table
from xee_tf.georef import (
    GeoRef,
    Raster,
    band_nodata,
    plane_array,
    raster_variables,
    read_georef,
    whole_image,
)
from xee_tf.graph import ChunkedArray
from xee_tf.options import did_you_mean, is_number, number, one_of, read_names

__all__ = ["CHUNK", "Layer", "read_layers", "robust_limits"]

CHUNK = (256, 256)
"""Least sides of the chunks of arrays without chunks."""

_RGB = ("red", "green", "blue")
_NAME = "raster"  # of a layer whose raster has no name


@dataclass(frozen=True)
class Layer:
    """A layer of a map.

    Parameters
    ----------
    name : str
        Its name on the map.
    bands : tuple of str
        Names of its bands: one, or three for red, green and blue.
    arrays : tuple of ChunkedArray
        Their pixels, (y, x), in the same chunks.
    nodata : tuple of tuple
        For each band, the values of masked pixels.
    georef : GeoRef
        Their place.
    colors : ClassColors or BandColors
        How values become colors.
    limits : tuple of (float or None, float or None)
        For each band, the values of the first and the last color; what is None is estimated from a sample.
    opacity : float
        From 0 to 1.
    is_stored : bool
        Whether all bands may be read from files; the values need not be those of the files.
    """

    name: str
    bands: tuple[str, ...]
    arrays: tuple[ChunkedArray, ...]
    nodata: tuple[tuple[float, ...], ...]
    georef: GeoRef
    colors: ClassColors | BandColors
    limits: tuple[tuple[float | None, float | None], ...]
    opacity: float
    is_stored: bool

    @property
    def needs_limits(self) -> bool:
        """Whether values of colors must be estimated."""
        return any(end is None for ends in self.limits for end in ends)

    def with_limits(self, limits: Sequence[Limits]) -> BandColors | ClassColors:
        """Return the colors of bands whose values are known."""
        if isinstance(self.colors, ClassColors):
            return self.colors
        return replace(self.colors, limits=tuple(limits))


@dataclass(frozen=True)
class _Options:
    """The options of one layer; each may be given for all layers, or as a mapping of names to values."""

    given: Mapping[str, Any]
    names: Sequence[str]
    layer: str

    def get(self, option: str) -> Any:
        value = self.given[option]
        if not isinstance(value, Mapping):
            return value
        if wrong := [name for name in value if name not in self.names]:
            raise OptionError(
                f"{option} names the layer {shorten(repr(wrong[0]))}, but the map has the layers "
                f"{quoted(self.names)}."
            )
        return value.get(self.layer)

    def label(self, option: str) -> str:
        return f"{option}[{self.layer!r}]" if isinstance(self.given[option], Mapping) else option


def read_layers(
    image: Raster | Mapping[str, Raster], crs: Any, transform: Any, options: Mapping[str, Any]
) -> list[Layer]:
    """Return the layers of a map; no pixel is read.

    Parameters
    ----------
    image : Dataset, DataArray or mapping of str to raster
        The raster of each layer, or one raster.
    crs, transform
        See `read_georef`.
    options : mapping
        The options "rgb", "band", "cmap", "vmin", "vmax", "opacity" and "resampling" of `explore`.

    Raises
    ------
    OptionError
        If an option is not valid, or a raster has no such bands.
    GeoreferenceError
        If a raster has no georeference.
    """
    if isinstance(image, Mapping) and not isinstance(image, xr.Dataset):
        if not image:
            raise OptionError("There is nothing to explore: the mapping of names to rasters is empty.")
        names: list[Any] = list(image)
        if wrong := [name for name in names if not isinstance(name, str) or not name]:
            raise OptionError(f"The name of a layer must be a string; got {shorten(repr(wrong[0]))}.")
        rasters = dict(image)
    else:
        rasters = {_raster_name(image): image}
    names = list(rasters)
    return [
        _read_layer(name, raster, crs, transform, _Options(options, names, name))
        for name, raster in rasters.items()
    ]


def _raster_name(image: Any) -> str:
    return str(image.name) if isinstance(image, xr.DataArray) and image.name is not None else _NAME


def _read_layer(name: str, raster: Raster, crs: Any, transform: Any, options: _Options) -> Layer:
    dataset = whole_image(raster, "explore")
    georef = read_georef(dataset, crs, transform)
    variables = {str(key): band for key, band in raster_variables(dataset, georef.x_dim, georef.y_dim)}
    if not variables:
        raise OptionError(
            f"There is nothing to explore in {name!r}: no variable has the dimensions {georef.y_dim!r} and "
            f"{georef.x_dim!r}."
        )
    bands = _bands(variables, options)
    chosen = [_checked(variables[band], band, georef) for band in bands]
    arrays = [plane_array(band, (), georef.y_dim, georef.x_dim, sides=CHUNK) for band in chosen]
    arrays = [
        array if array.chunks == arrays[0].chunks else array.rechunk(arrays[0].chunks) for array in arrays
    ]
    opacity = options.get("opacity")
    return Layer(
        name,
        bands,
        tuple(arrays),
        tuple(band_nodata(variable, band) for variable, band in zip(chosen, bands, strict=True)),
        georef,
        _colors(chosen, bands, options),
        _limits(chosen, options),
        1.0 if opacity is None else number(0, 1)(opacity, options.label("opacity")),
        all("source" in variable.encoding for variable in chosen),
    )


def _bands(variables: Mapping[str, xr.DataArray], options: _Options) -> tuple[str, ...]:
    """Return the names of the bands to show."""
    rgb, band = options.get("rgb"), options.get("band")
    if rgb is not None and band is not None:
        raise OptionError(
            f"Pass rgb= or band=, not both; got {shorten(repr(rgb))} and {shorten(repr(band))}."
        )
    option = options.label("rgb" if rgb is not None else "band")
    if rgb is not None:
        chosen = read_names(rgb, option, ("B4", "B3", "B2"))
        if len(chosen) != 3:
            raise OptionError(
                f"{option} must be three names of bands, for red, green and blue; got {quoted(chosen)}. For "
                "one band, pass band=."
            )
    elif band is not None:
        if not isinstance(band, str):
            raise OptionError(f"{option} must be the name of a band; got {shorten(repr(band))}.")
        chosen = (band,)
    else:
        chosen = _RGB if set(_RGB) <= set(variables) else (next(iter(variables)),)
    if missing := [each for each in chosen if each not in variables]:
        hint = did_you_mean(missing[0], variables)
        if len(options.names) > 1 and not isinstance(options.given[option.partition("[")[0]], Mapping):
            hint += f" For one layer of several, pass {option}={{{options.names[0]!r}: ...}}."
        raise OptionError(
            f"{option} names {missing[0]!r}, which is no band of {options.layer!r}; its bands are "
            f"{quoted(variables)}.{hint}"
        )
    return chosen


def _checked(variable: xr.DataArray, band: str, georef: GeoRef) -> xr.DataArray:
    """Check that a map can show a band."""
    if variable.dtype.kind not in "biuf":
        raise OptionError(
            f"Band {band!r} has dtype {variable.dtype}, which has no colors: convert it to numbers, or show "
            "another band."
        )
    spatial = (georef.y_dim, georef.x_dim)
    if further := {str(dim): size for dim, size in variable.sizes.items() if dim not in spatial and size > 1}:
        dim, size = next(iter(further.items()))
        raise OptionError(
            f"Band {band!r} has {size} steps along {dim!r}, but a map shows one. Select it, for example "
            f"ds.isel({dim}=0)."
        )
    return variable


def _colors(
    chosen: Sequence[xr.DataArray], bands: Sequence[str], options: _Options
) -> ClassColors | BandColors:
    resampling, cmap = options.get("resampling"), options.get("cmap")
    one_of(options.label("resampling"), resampling, ("nearest", "bilinear", None))
    table = None if cmap is None else color_table(cmap, options.label("cmap"))
    [first, *others] = chosen
    if others:
        return BandColors((), resampling=resampling or "bilinear")
    labels = find_labels(first.attrs)
    if labels is not None and labels.names:
        return ClassColors.of(labels)
    if table is None:
        table = color_table("viridis", "cmap")
    usual = "nearest" if first.dtype.kind == "b" else "bilinear"
    return BandColors((), table, bands[0], resampling or usual)


def _limits(
    chosen: Sequence[xr.DataArray], options: _Options
) -> tuple[tuple[float | None, float | None], ...]:
    """Return the values of the first and the last color of each band, as far as they are given or known."""
    low, high = (_ends(options.get(name), len(chosen), options.label(name)) for name in ("vmin", "vmax"))
    found: list[tuple[float | None, float | None]] = []
    for variable, first, last in zip(chosen, low, high, strict=True):
        if first is not None and last is not None and not first < last:
            raise OptionError(f"vmin must be less than vmax; got {first} and {last}.")
        if variable.dtype.kind == "b":
            first, last = (0.0 if first is None else first), (1.0 if last is None else last)
        found.append((first, last))
    return tuple(found)


def _ends(value: Any, count: int, option: str) -> list[float | None]:
    """Return a number for each band, from one for all or a list."""
    check: Callable[[Any, str], float] = number()
    if value is None:
        return [None] * count
    if is_number(value):
        return [check(value, option)] * count
    is_list = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)
    if not is_list or len(value) != count:
        kind = "a number" if count == 1 else f"a number, or {count} numbers"
        raise OptionError(f"{option} must be {kind}; got {shorten(repr(value))}.")
    return [check(each, option) for each in value]


def robust_limits(planes: Sequence[NDArray[Any]]) -> list[Limits]:
    """Return the percentiles 2 and 98 of each band; 0 and 1 if all pixels are masked."""
    found = []
    for plane in planes:
        valid = plane[np.isfinite(plane)]
        low, high = np.percentile(valid, (2, 98)).tolist() if valid.size else (0.0, 1.0)
        found.append((low, high if high > low else low + 1.0))
    return found
