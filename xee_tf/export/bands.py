"""From an xarray object to the (y, x) arrays of an export and what becomes of their pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xee_tf.blocks.assemble import BandRule
from xee_tf.errors import GeoreferenceError, GridMismatchError, OptionError
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef
from xee_tf.records.example import Feature, FeatureTypes, check_name, kind_of

__all__ = ["Bands", "read_bands"]

_CHUNK_SIDE = 1024
_FLOAT32_EXACT = 2**24


@dataclass(frozen=True)
class Bands:
    """The bands of an image, ready to be cut.

    Parameters
    ----------
    names : tuple of str
    arrays : list of chunked (y, x) arrays
        One for each band, and the user's mask behind them if there is one.
    features : tuple of Feature
        One for each band, sized for the stored patch.
    rules : tuple of BandRule
    mask_band : int or None
        The number of the mask in `arrays`.
    """

    names: tuple[str, ...]
    arrays: list[Any]
    features: tuple[Feature, ...]
    rules: tuple[BandRule, ...]
    mask_band: int | None


def read_bands(
    dataset: xr.Dataset,
    georef: GeoRef,
    *,
    mask: str | xr.DataArray | None,
    patch: Size,
    stored: Size,
    feature_types: FeatureTypes,
    default_value: float,
) -> Bands:
    """Check every band and say how it is written.

    Parameters
    ----------
    dataset : Dataset
        One variable for each band.
    georef : GeoRef
        Names the spatial dimensions.
    mask : str or DataArray, optional
        A boolean variable of the Dataset, or an array of its own; true means masked.
    patch, stored : Size
        Pixels of a patch without and with its margins.
    feature_types, default_value
        As in `xee_tf.export_image`.

    Raises
    ------
    OptionError
        If a band has a dtype, a name or dimensions that cannot be written.
    """
    if isinstance(mask, str):
        if mask not in dataset:
            raise OptionError(f"mask={mask!r} is not a variable of the image; it has {list(dataset)}.")
        dataset, mask = dataset.drop_vars(mask), dataset[mask]
    variables = {
        check_name(name): variable
        for name, variable in dataset.data_vars.items()
        if variable.ndim or not _is_grid_mapping(variable)
    }
    if not variables:
        raise OptionError("The image has no bands to export.")
    arrays, features, rules = [], [], []
    for name, variable in variables.items():
        _check_dtype(name, variable.dtype, feature_types)
        kind = kind_of(variable.dtype, feature_types)
        dtype = {"float": "<f4", "bytes": "|u1"}.get(kind, variable.dtype.newbyteorder("=").str)
        features.append(Feature(name, kind, stored.pixels, dtype))
        nodata = variable.rio.nodata
        default = _default(default_value, variable.dtype)
        rules.append(BandRule(dtype, default, None if nodata is None else np.asarray(nodata).item()))
        arrays.append(_plane(name, variable, georef, patch))
    mask_band = None
    if mask is not None:
        mask_band = len(arrays)
        arrays.append(_plane("mask", _check_mask(mask, dataset), georef, patch))
    return Bands(tuple(variables), arrays, tuple(features), tuple(rules), mask_band)


def _plane(name: str, variable: xr.DataArray, georef: GeoRef, patch: Size) -> Any:
    """The chunked (y, x) array of one band."""
    y, x = georef.y_dim, georef.x_dim
    missing = {y, x} - set(variable.dims)
    if missing:
        raise GeoreferenceError(
            f"{name!r} has the dimensions {variable.dims}, without {sorted(map(str, missing))}. "
            "Leave it out by selecting the bands, for example ds[['B4', 'B3', 'B2']]."
        )
    extra = {dim: size for dim, size in variable.sizes.items() if dim not in (y, x)}
    long = {dim: size for dim, size in extra.items() if size != 1}
    if long:
        raise OptionError(
            f"Band {name!r} is an array band: it has {long} beside {y} and {x}, and array bands are not "
            f"written by this version of xee_tf. Select one step, for example "
            f"ds.isel({next(iter(long))}=0), or make each step a band of its own."
        )
    plane = variable.isel(dict.fromkeys(extra, 0)).transpose(y, x)
    if plane.chunks is None:
        plane = plane.chunk({y: _chunk_side(patch.y), x: _chunk_side(patch.x)})
    return plane.data


def _chunk_side(patch: int) -> int:
    return patch * max(1, _CHUNK_SIDE // patch)


def _check_dtype(name: str, dtype: np.dtype[Any], feature_types: FeatureTypes) -> None:
    if dtype.kind not in "fiub":
        raise OptionError(
            f"Band {name!r} has dtype {dtype}: a record holds integers and floating-point numbers. "
            f"Convert it, for example ds[{name!r}].astype('float32')."
        )
    if feature_types == "float" and dtype.kind in "iu" and dtype.itemsize >= 4:
        warnings.warn(
            f"Band {name!r} is {dtype} and is written as float32, which holds whole numbers exactly only up "
            f"to {_FLOAT32_EXACT:,}. Should it have larger ones, use feature_types='band'; should it not, "
            f"astype('int16') or astype('float32') says so.",
            UserWarning,
            stacklevel=5,
        )


def _check_mask(mask: Any, dataset: xr.Dataset) -> xr.DataArray:
    if not isinstance(mask, xr.DataArray) or mask.dtype != bool:
        found = getattr(mask, "dtype", type(mask).__name__)
        raise OptionError(
            f"mask must be a boolean DataArray on the image's grid, true where pixels are masked; "
            f"got {found}. A comparison makes one, for example mask=ds['SCL'] == 3."
        )
    try:
        xr.align(mask, dataset, join="exact", copy=False)
    except ValueError as error:
        raise GridMismatchError(f"mask and the image have different coordinates: {error}") from error
    return mask


def _default(value: float, dtype: np.dtype[Any]) -> float:
    """Earth Engine's rule for integer bands: fraction dropped, clamped to the type's range."""
    if dtype.kind == "f":
        return float(value)
    if dtype.kind == "b":
        return min(max(int(value), 0), 1)
    limits = np.iinfo(dtype)
    return min(max(int(value), int(limits.min)), int(limits.max))


def _is_grid_mapping(variable: xr.DataArray) -> bool:
    return bool({"crs_wkt", "spatial_ref", "grid_mapping_name"} & set(variable.attrs))
