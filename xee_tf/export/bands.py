"""Convert the variables of a Dataset to the arrays of an export, with rules for their pixels."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.blocks import BandRule
from xee_tf.display import quoted
from xee_tf.dtypes import FLOAT32_EXACT, clamp
from xee_tf.errors import GeoreferenceError, GridMismatchError, OptionError, shorten, warn
from xee_tf.export.options import ExportOptions
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, band_nodata, is_grid_mapping, plane_array
from xee_tf.graph import ChunkedArray
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
        The bands as stored in the records: features, steps, and properties of the source. Dimensions with
        the same name have the same length.
    coords : mapping of str to ndarray
        Coordinates of the additional dimensions of `bands`.
    rules : tuple of BandRule
        One rule for each band, or a single rule for all bands if they are collapsed.
    sources : tuple of str
        The name of the variable of each array, and that of the mask.
    has_mask : bool
        Whether the user's mask follows the arrays of the bands.
    notes : tuple of str
        Warnings for the user.
    """

    bands: tuple[BandSpec, ...]
    coords: Mapping[str, NDArray[Any]] = field(compare=False)  # arrays have no truth value
    rules: tuple[BandRule, ...]
    sources: tuple[str, ...]
    has_mask: bool
    notes: tuple[str, ...] = ()


def read_bands(
    dataset: xr.Dataset, georef: GeoRef, options: ExportOptions, mask: str | xr.DataArray | None
) -> tuple[BandPlan, list[ChunkedArray]]:
    """Check every band and determine how it is written.

    Parameters
    ----------
    dataset : Dataset
        A variable for each band.
    georef : GeoRef
        The georeference, which has the names of the spatial dimensions.
    options : ExportOptions
        The options of the export.
    mask : str or DataArray, optional
        The name of a boolean variable of the Dataset, or a separate array; true where masked.

    Returns
    -------
    plan : BandPlan
        How the bands are written.
    arrays : list of ChunkedArray
        Arrays of shape (y, x) or (step, y, x): one for each band, followed by the user's mask if there is
        one.

    Raises
    ------
    OptionError
        If the dtype, name or dimensions of a band are not supported, or `tensor_depths` does not match the
        bands.
    """
    if isinstance(mask, str):
        if mask not in dataset:
            raise OptionError(f"mask={mask!r} is not a variable of the image; available: {quoted(dataset)}.")
        dataset, mask = dataset.drop_vars(mask), dataset[mask]
    variables = {
        check_key(name): variable
        for name, variable in dataset.data_vars.items()
        if variable.ndim or not is_grid_mapping(variable)
    }
    if not variables:
        raise OptionError("The image has no bands to export.")
    band_dims = {name: _band_dims(name, variable, georef) for name, variable in variables.items()}
    depths = _depths(options.tensor_depths, band_dims)
    bands, arrays, rules, defaults = [], [], [], {}
    for name, variable in variables.items():
        _check_dtype(name, variable.dtype, options.feature_types)
        depth, nodata = depths.get(name), band_nodata(variable, name)
        stored = written_dtype(variable.dtype, options.feature_types)
        defaults[name] = default = _default(options.default_value, variable.dtype, np.dtype(stored))
        arrays.append(_array(variable, georef, options.patch_dimensions, depth))
        rules.append(
            BandRule.of(
                arrays[-1].chunks,
                dtype=stored,
                default=default,
                nodata=nodata,
                depth=depth or 1,
                name=name,
            )
        )
        with np.errstate(over="ignore"):  # as for pixels: values beyond the range of float32 become infinite
            written = np.asarray(default).astype(stored).item()
        units = variable.attrs.get("units")
        bands.append(
            BandSpec(
                name,
                *_stored_dims(band_dims[name], depth, options.drop_masked_steps),
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
    sources = list(variables)
    if mask is not None:
        sources.append("mask" if "mask" not in variables else "mask=")
        arrays.append(_array(_check_mask(mask, dataset), georef, options.patch_dimensions, None))
    plan = BandPlan(
        *_in_records(bands, dataset, options),
        rules=tuple(rules),
        sources=tuple(sources),
        has_mask=mask is not None,
        notes=_default_notes(options.default_value, defaults, variables),
    )
    return plan, arrays


def _band_dims(name: str, variable: xr.DataArray, georef: GeoRef) -> dict[str, int]:
    """Return the dimensions of a variable other than y and x, with their lengths."""
    missing = {georef.y_dim, georef.x_dim} - set(variable.dims)
    if missing:
        raise GeoreferenceError(
            f"{name!r} has the dimensions {variable.dims}, but not {quoted(sorted(map(str, missing)))}. "
            "Select the bands without it, for example ds[['B4', 'B3', 'B2']]."
        )
    return {
        check_key(str(dim), "dimension"): size
        for dim, size in variable.sizes.items()
        if dim not in (georef.y_dim, georef.x_dim)
    }


def _depths(
    given: Mapping[str, int] | Sequence[int] | None, band_dims: Mapping[str, Mapping[str, int]]
) -> dict[str, int]:
    """Return the depth of every array band: bands with several values per pixel, or with a given depth."""
    own = {name: int(np.prod(list(dims.values()))) for name, dims in band_dims.items() if dims}
    arrays = [name for name, depth in own.items() if depth > 1]
    if given is None:
        return {name: own[name] for name in arrays}
    if not isinstance(given, Mapping):
        if given and not arrays:
            raise OptionError(
                f"tensor_depths={shorten(repr(given))} cannot be used: the image has no array bands, which "
                "are bands with a dimension other than y and x. Omit it."
            )
        if len(given) != len(arrays):
            raise OptionError(
                f"tensor_depths={given!r} must have one depth for each of the array bands {quoted(arrays)}. "
                "Pass one depth for each, or a mapping {band: depth}."
            )
        given = dict(zip(arrays, given, strict=True))
    unknown = [name for name in given if name not in own]
    if unknown:
        reason = "is a scalar band" if unknown[0] in band_dims else "is not a band"
        available = f"available array bands: {quoted(own)}" if own else "the image has no array bands"
        raise OptionError(
            f"tensor_depths contains {unknown[0]!r}, which {reason}; {available} (with a dimension other "
            f"than y and x), all bands: {quoted(band_dims)}."
        )
    missing = [name for name in arrays if name not in given]
    if missing:
        raise OptionError(
            f"tensor_depths has no depth for the array band {missing[0]!r}, which has {own[missing[0]]} "
            "values per pixel. Add it, or omit tensor_depths to write every band with its own depth."
        )
    return read_depths(given)


def _stored_dims(
    dims: Mapping[str, int], depth: int | None, ragged: bool
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the dimensions of a band in the records other than y and x, and their lengths."""
    if depth is None:
        return (), ()
    if depth == int(np.prod(list(dims.values()))) and not ragged:
        return tuple(dims), tuple(dims.values())
    # The steps differ from pixel to pixel, or several dimensions were truncated as one.
    keeps_name = len(dims) == 1 and not ragged
    return (next(iter(dims)) if keeps_name else "step",), (depth,)


def _in_records(
    bands: Sequence[BandSpec], dataset: xr.Dataset, options: ExportOptions
) -> tuple[tuple[BandSpec, ...], dict[str, NDArray[Any]]]:
    """Return the bands as stored in the records, and the coordinates of their additional dimensions."""
    if options.collapse_bands and options.drop_masked_steps and len(bands) > 1:
        # Steps can no longer be assigned to bands.
        total = sum(band.depth for band in bands)
        bands = [replace(bands[0], dims=("step",), shape=(total,))]
    named = distinct_dims(bands)
    coords = {}
    for band, new in zip(bands, named, strict=True):
        for dim, name, size in zip(band.dims, new.dims, band.shape, strict=True):
            has_coord = dim in dataset[band.name].dims and dim in dataset.coords
            if has_coord and dataset.sizes[dim] >= size:
                coords[name] = dataset.coords[dim].values[:size]
    if options.collapse_bands:
        firsts = accumulate((band.depth for band in named), initial=0)
        feature = named[0].name
        named = tuple(replace(band, feature=feature, first=n) for band, n in zip(named, firsts, strict=False))
    return named, coords


def _array(variable: xr.DataArray, georef: GeoRef, patch: Size, depth: int | None) -> ChunkedArray:
    y, x = georef.y_dim, georef.x_dim
    dims = [] if depth is None else [dim for dim in variable.dims if dim not in (y, x)]
    array: ChunkedArray = plane_array(variable, dims, y, x, sides=patch.shape, depth=depth)
    return array


def _collapsed(rules: Sequence[BandRule], kinds: Collection[Kind | None]) -> BandRule:
    """Return one rule for all bands, with the first of byte, int64 and float that holds all (the guide)."""
    dtype = LIST_DTYPES["float" if "float" in kinds else "int64" if "int64" in kinds else "bytes"]
    planes = []
    depth = 0
    for rule in rules:
        planes += [replace(plane, first=plane.first + depth) for plane in rule.planes]
        depth += rule.depth
    return BandRule(dtype, depth, tuple(planes))


def _check_dtype(name: str, dtype: np.dtype[Any], feature_types: FeatureTypes) -> None:
    if dtype.kind not in "fiub":
        fix = f"Convert it, for example with ds[{name!r}].astype('float32')."
        if dtype.kind in "OSUT":  # strings, which float() cannot parse in general
            fix = f"Replace its strings by numbers, or omit it with ds.drop_vars({name!r})."
        raise OptionError(
            f"Band {name!r} has dtype {dtype}, but records can store only integers and floating-point "
            f"numbers. {fix}"
        )
    if feature_types == "float" and dtype.kind in "iu" and dtype.itemsize >= 4:
        warn(
            f"Band {name!r} is {dtype} and is written as float32, which holds whole numbers exactly only up "
            f"to {FLOAT32_EXACT:,}. For larger values, use feature_types='band'; if there are none, silence "
            "this warning with astype('float32')."
        )


def _check_mask(mask: Any, dataset: xr.Dataset) -> xr.DataArray:
    if not isinstance(mask, xr.DataArray) or mask.dtype != bool:
        found = getattr(mask, "dtype", type(mask).__name__)
        raise OptionError(
            f"mask must be a boolean DataArray on the grid of the image, true where pixels are masked; "
            f"got {found}. Use a comparison, for example mask=ds['SCL'] == 3."
        )
    try:
        xr.align(mask, dataset, join="exact", copy=False)
    except ValueError as error:
        shared = [dim for dim in mask.dims if dim in dataset.dims]
        differ = [dim for dim in shared if not _same_labels(mask, dataset, dim)]
        raise GridMismatchError(
            f"mask is not on the grid of the image: their {' and '.join(map(repr, differ or shared))} "
            f"coordinates differ; the mask has the shape {[*mask.sizes.values()]}, the image "
            f"{[dataset.sizes[dim] for dim in shared]}. Compute the mask from the image, for example "
            "mask=ds['SCL'] == 3, or reproject its source to the grid of the image first."
        ) from error
    if any(
        size != 1 for dim, size in mask.sizes.items() if dim not in dataset.dims or dim not in mask.dims[-2:]
    ):
        raise OptionError(f"mask must have the dimensions y and x only; got {dict(mask.sizes)}.")
    return mask


def _same_labels(mask: xr.DataArray, dataset: xr.Dataset, dim: Hashable) -> bool:
    if dim in mask.indexes and dim in dataset.indexes:
        return bool(mask.indexes[dim].equals(dataset.indexes[dim]))
    return mask.sizes[dim] == dataset.sizes[dim]


def _default(value: float, dtype: np.dtype[Any], stored: np.dtype[Any]) -> float:
    """Return the value for masked pixels of a band, clamped to the range of its dtype."""
    if dtype.kind == "f":
        largest = float(np.finfo(stored).max)
        return min(max(float(value), -largest), largest)
    return clamp(value, dtype)


def _default_notes(
    value: float, defaults: Mapping[str, float], variables: Mapping[str, xr.DataArray]
) -> tuple[str, ...]:
    """Return a warning if bands cannot hold the default value; rounding in float bands does not count."""
    clamped = [
        f"{default:.15g} in {name!r} ({variables[name].dtype})"
        for name, default in defaults.items()
        if default != value
    ]
    if not clamped:
        return ()
    return (
        f"default_value={value} cannot be represented in every band: masked pixels are written as "
        f"{', '.join(clamped)}. Choose a value that all bands can represent, or convert them, for example "
        "with ds.astype('float32').",
    )
