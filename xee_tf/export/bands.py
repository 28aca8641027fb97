"""From an xarray object to the arrays of an export and what becomes of their pixels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.blocks import BandRule
from xee_tf.dtypes import FLOAT32_EXACT, clamp
from xee_tf.errors import GeoreferenceError, GridMismatchError, OptionError, warn
from xee_tf.export.options import ExportOptions
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, band_nodata, is_grid_mapping, plane_array
from xee_tf.names import check_key
from xee_tf.options import read_depths
from xee_tf.records import LIST_DTYPES, FeatureTypes, Kind, kind_of, written_dtype
from xee_tf.sidecars import BandSpec, distinct_dims

__all__ = ["BandPlan", "read_bands"]


@dataclass(frozen=True)
class BandPlan:
    """How the bands of an image are written.

    Parameters
    ----------
    bands : tuple of BandSpec
        The bands as they are in the records: features, steps, what the source had. Dimensions of one name
        have one length.
    coords : mapping from dimension to ndarray
        Coordinates of the further dimensions of `bands`.
    rules : tuple of BandRule
        One for each band; one for all of them where they are collapsed.
    has_mask : bool
        Whether the user's mask is behind the arrays of the bands.
    notes : tuple of str
        Warnings for the user.
    """

    bands: tuple[BandSpec, ...]
    coords: Mapping[str, NDArray[Any]] = field(compare=False)  # arrays have no truth value
    rules: tuple[BandRule, ...]
    has_mask: bool
    notes: tuple[str, ...] = ()


def read_bands(
    dataset: xr.Dataset, georef: GeoRef, options: ExportOptions, mask: str | xr.DataArray | None
) -> tuple[BandPlan, list[Any]]:
    """Check every band and say how it is written.

    Parameters
    ----------
    dataset, georef, options
        A variable for each band, and their spatial dimensions.
    mask : str or DataArray, optional
        A boolean variable of the Dataset, or an array of its own; true means masked.

    Returns
    -------
    plan : BandPlan
    arrays : list of chunked arrays (y, x) or (step, y, x)
        One for each band, and the user's mask behind them if there is one.

    Raises
    ------
    OptionError
        If a band has a dtype, a name or dimensions that cannot be written, or depths do not fit.
    """
    if isinstance(mask, str):
        if mask not in dataset:
            raise OptionError(f"mask={mask!r} is not a variable of the image; it has {list(dataset)}.")
        dataset, mask = dataset.drop_vars(mask), dataset[mask]
    variables = {
        check_key(name): variable
        for name, variable in dataset.data_vars.items()
        if variable.ndim or not is_grid_mapping(variable)
    }
    if not variables:
        raise OptionError("The image has no bands to export.")
    further = {name: _further_dims(name, variable, georef) for name, variable in variables.items()}
    depths = _depths(options.tensor_depths, further)
    bands, arrays, rules, defaults = [], [], [], {}
    for name, variable in variables.items():
        _check_dtype(name, variable.dtype, options.feature_types)
        depth, nodata = depths.get(name), band_nodata(variable, name)
        stored = written_dtype(variable.dtype, options.feature_types)
        defaults[name] = default = _default(options.default_value, variable.dtype, np.dtype(stored))
        arrays.append(_array(variable, georef, options.patch_dimensions, depth))
        rules.append(
            BandRule.of(arrays[-1].chunks, dtype=stored, default=default, nodata=nodata, depth=depth or 1)
        )
        with np.errstate(over="ignore"):  # as the values themselves: beyond float32's range is infinite
            written = np.asarray(default).astype(stored).item()
        units = variable.attrs.get("units")
        bands.append(
            BandSpec(
                name,
                *_stored_dims(further[name], depth, options.drop_masked_steps),
                dtype=np.dtype(variable.dtype).name,
                kind=kind_of(variable.dtype, options.feature_types),
                default=written,
                nodata=nodata,
                units=units if isinstance(units, str) and units else None,
            )
        )
    if options.collapse_bands:
        rules = [_collapsed(rules, {band.kind for band in bands})]
        bands = [replace(band, kind=kind_of(rules[0].dtype, "band")) for band in bands]
    if mask is not None:
        arrays.append(_array(_check_mask(mask, dataset), georef, options.patch_dimensions, None))
    plan = BandPlan(
        *_in_records(bands, dataset, options),
        rules=tuple(rules),
        has_mask=mask is not None,
        notes=_default_notes(options.default_value, defaults, variables),
    )
    return plan, arrays


def _further_dims(name: str, variable: xr.DataArray, georef: GeoRef) -> dict[str, int]:
    """Dimensions that make an array band of a variable."""
    missing = {georef.y_dim, georef.x_dim} - set(variable.dims)
    if missing:
        raise GeoreferenceError(
            f"{name!r} has the dimensions {variable.dims}, without {sorted(map(str, missing))}. "
            "Leave it out by selecting the bands, for example ds[['B4', 'B3', 'B2']]."
        )
    return {
        check_key(str(dim), "dimension"): size
        for dim, size in variable.sizes.items()
        if dim not in (georef.y_dim, georef.x_dim)
    }


def _depths(
    given: Mapping[str, int] | Sequence[int] | None, further: Mapping[str, Mapping[str, int]]
) -> dict[str, int]:
    """The depth of every array band: one with more than one value a pixel, or that was given a depth."""
    own = {name: int(np.prod(list(dims.values()))) for name, dims in further.items() if dims}
    arrays = [name for name, depth in own.items() if depth > 1]
    if given is None:
        return {name: own[name] for name in arrays}
    if not isinstance(given, Mapping):
        if len(given) != len(arrays):
            raise OptionError(
                f"tensor_depths={given!r} must have one depth for each of the array bands {arrays}; "
                "a mapping {band: depth} says it better."
            )
        given = dict(zip(arrays, given, strict=True))
    unknown = [name for name in given if name not in own]
    if unknown:
        what = "is a scalar band" if unknown[0] in further else f"is not a band; there are {list(further)}"
        raise OptionError(
            f"tensor_depths has {unknown[0]!r}, which {what}. Array bands, with a dimension beside y and x, "
            f"are {list(own)}."
        )
    lacking = [name for name in arrays if name not in given]
    if lacking:
        raise OptionError(
            f"tensor_depths has no depth for the array band {lacking[0]!r}, which has {own[lacking[0]]} "
            "values per pixel. Add it, or leave tensor_depths out to write every band as it is."
        )
    return read_depths(given)


def _stored_dims(
    dims: Mapping[str, int], depth: int | None, ragged: bool
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The further dimensions of a band as they are in the records, and their lengths."""
    if depth is None:
        return (), ()
    if depth == int(np.prod(list(dims.values()))) and not ragged:
        return tuple(dims), tuple(dims.values())
    # The steps of a pixel no longer are those of its neighbour, or several dimensions were cut as one.
    one = len(dims) == 1 and not ragged
    return (next(iter(dims)) if one else "step",), (depth,)


def _in_records(
    bands: Sequence[BandSpec], dataset: xr.Dataset, options: ExportOptions
) -> tuple[tuple[BandSpec, ...], dict[str, NDArray[Any]]]:
    """The bands as they are in the records, and the coordinates of their further dimensions."""
    if options.collapse_bands and options.drop_masked_steps and len(bands) > 1:
        # Nothing tells whose step is whose.
        total = sum(band.depth for band in bands)
        bands = [replace(bands[0], dims=("step",), shape=(total,))]
    named = distinct_dims(bands)
    coords = {}
    for band, new in zip(bands, named, strict=True):
        for dim, name, size in zip(band.dims, new.dims, band.shape, strict=True):
            known = dim in dataset[band.name].dims and dim in dataset.coords
            if known and dataset.sizes[dim] >= size:
                coords[name] = dataset.coords[dim].values[:size]
    if options.collapse_bands:
        firsts = accumulate((band.depth for band in named), initial=0)
        one = named[0].name
        named = tuple(replace(band, feature=one, first=n) for band, n in zip(named, firsts, strict=False))
    return named, coords


def _array(variable: xr.DataArray, georef: GeoRef, patch: Size, depth: int | None) -> Any:
    y, x = georef.y_dim, georef.x_dim
    further = [] if depth is None else [dim for dim in variable.dims if dim not in (y, x)]
    return plane_array(variable, further, y, x, sides=patch.shape, depth=depth)


def _collapsed(rules: Sequence[BandRule], kinds: Collection[Kind | None]) -> BandRule:
    """One rule for all bands: byte, then int64, then float, whichever holds them all (the guide)."""
    dtype = LIST_DTYPES["float" if "float" in kinds else "int64" if "int64" in kinds else "bytes"]
    planes = []
    depth = 0
    for rule in rules:
        planes += [replace(plane, first=plane.first + depth) for plane in rule.planes]
        depth += rule.depth
    return BandRule(dtype, depth, tuple(planes))


def _check_dtype(name: str, dtype: np.dtype[Any], feature_types: FeatureTypes) -> None:
    if dtype.kind not in "fiub":
        raise OptionError(
            f"Band {name!r} has dtype {dtype}: a record holds integers and floating-point numbers. "
            f"Convert it, for example ds[{name!r}].astype('float32')."
        )
    if feature_types == "float" and dtype.kind in "iu" and dtype.itemsize >= 4:
        warn(
            f"Band {name!r} is {dtype} and is written as float32, which holds whole numbers exactly only up "
            f"to {FLOAT32_EXACT:,}. Should it have larger ones, use feature_types='band'; should it not, "
            f"astype('int16') or astype('float32') says so."
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
    if any(
        size != 1 for dim, size in mask.sizes.items() if dim not in dataset.dims or dim not in mask.dims[-2:]
    ):
        raise OptionError(f"mask must have the dimensions y and x alone; it has {dict(mask.sizes)}.")
    return mask


def _default(value: float, dtype: np.dtype[Any], stored: np.dtype[Any]) -> float:
    """The value of masked pixels of a band: within the range of its type."""
    if dtype.kind == "f":
        largest = float(np.finfo(stored).max)
        return min(max(float(value), -largest), largest)
    return clamp(value, dtype)


def _default_notes(
    value: float, defaults: Mapping[str, float], variables: Mapping[str, xr.DataArray]
) -> tuple[str, ...]:
    """A warning about bands that cannot hold the default value; that floats round it is none."""
    others = [
        f"{default:.15g} in {name!r} ({variables[name].dtype})"
        for name, default in defaults.items()
        if default != value
    ]
    if not others:
        return ()
    return (
        f"default_value={value} cannot be represented in every band: masked pixels are written as "
        f"{', '.join(others)}. Choose a value that the bands can hold, or convert them, for example "
        "ds.astype('float32').",
    )
