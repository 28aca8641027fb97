"""Find the nodata values of a band from its attributes and encoding.

The first of these sources that has a value is used, as in rioxarray:

1. the attributes ``_FillValue`` and ``missing_value`` (CF, rioxarray, Xee, and data that xarray opens with
   ``mask_and_scale=False``). If both have values, all of them are nodata (CF conventions, section 2.5.1);
2. the same names in the encoding, for integer bands that are not scaled (``rio.write_nodata`` with
   ``encoded=True``). The encoding of float bands describes the file, which xarray has masked and scaled;
3. the attributes ``fill_value``, then ``nodata`` (odc-stac, odc-geo, STAC), then ``nodatavals`` (xarray's
   former rasterio reader, one value for each band). They also describe the file: xarray keeps them when it
   masks and scales, and in that case they are ignored.

Case and underscores within names are ignored. NaN is always masked. The CF attributes ``valid_min``,
``valid_max`` and ``valid_range`` do not mask, as in xarray and rioxarray; to mask by range, use for example
``band.where(band <= 10_000)``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xee_tf.dtypes import convert_number
from xee_tf.errors import OptionError, excerpt

__all__ = [
    "NodataValues",
    "band_nodata",
    "can_mask",
    "nodata_of_band",
    "with_own_nodata",
    "with_set_nodata",
]

NodataValues = tuple[int | float, ...]
"""Values that mean "masked", as stored in the dtype of their band."""

_CF = ("_fillvalue", "missingvalue")
_OTHERS = ("fillvalue", "nodata", "nodatavals")  # "_FillValue" is not "fill_value"
_NAMES = (*_CF, *_OTHERS)
_SPELLINGS = {"nodatavalue": "nodata", "nodatavalues": "nodatavals", "nodataval": "nodata"}
_ONE_A_BAND = ("_fillvalue", "fillvalue", "nodata", "nodatavals")
_NO_VALUE = ("", "none", "null", "na", "n/a", "<na>")
_SCALES = ("scale_factor", "add_offset")


def band_nodata(variable: xr.DataArray, name: str) -> NodataValues:
    """Return the values of a band that mean "masked", in addition to NaN.

    Parameters
    ----------
    variable : DataArray
        The band.
    name : str
        Name of the band, for error messages.

    Returns
    -------
    tuple of int or float
        The values as stored in the dtype of the band: in float32, -9999.9 becomes -9999.900390625, and
        -1.797e308 becomes -inf. Empty if only NaN is masked, if an integer dtype cannot represent the value
        (-99999 or NaN in uint8), and for booleans (a comparison of bands keeps their attributes).

    Raises
    ------
    OptionError
        If a value is not a number, or it is ambiguous which of several values belongs to the band.

    Examples
    --------
    >>> band = xr.DataArray(np.zeros((2, 2), "int16"), dims=("y", "x"), attrs={"nodata": "-9999"})
    >>> band_nodata(band, "B4")
    (-9999,)
    >>> band_nodata(band.astype("uint8"), "B4")
    ()
    """
    dtype = variable.dtype
    if dtype.kind not in "iuf":
        return ()
    unsigned = variable.attrs.get("_Unsigned", variable.encoding.get("_Unsigned"))
    wraps = dtype.kind in "iu" and str(unsigned).lower() in ("true", "false")
    written = _written(variable, name)
    held = [convert_number(number, dtype, wraps=wraps) for number in written]
    if dtype.kind == "f":  # a cast to float32 made pixels with values beyond the range infinite
        held = [
            (math.inf if number > 0 else -math.inf) if value is None else value
            for number, value in zip(written, held, strict=True)
        ]
    return tuple(dict.fromkeys(number for number in held if number is not None and not math.isnan(number)))


def can_mask(dtype: np.dtype[Any], nodata: NodataValues) -> bool:
    """Return whether pixels of a band can be masked."""
    return dtype.kind == "f" or bool(nodata)


def nodata_of_band(attrs: Mapping[Any, Any], number: int, count: int, label: Any = None) -> dict[Any, Any]:
    """Return the attributes of band `number` of `count`, with its own value of per-band nodata.

    The labels of the bands in a file are numbers starting at 1, which a selection keeps.

    Examples
    --------
    >>> nodata_of_band({"nodatavals": (0, 255), "units": "1"}, 1, 2)
    {'nodatavals': 255, 'units': '1'}
    """
    found = dict(attrs)
    for key, value in attrs.items():
        if _key(key) in _ONE_A_BAND:
            values = _flat(value)
            at = _position(label, len(values))
            if at is None and len(values) == count:
                at = number
            if at is not None and len(values) > 1:
                found[key] = values[at]
    return found


def with_own_nodata(image: xr.Dataset) -> xr.Dataset:
    """Move nodata from the attributes of a Dataset to its bands, unless they have their own nodata or scale.

    Attributes that are not numbers are not moved, because they may have another meaning.

    Examples
    --------
    >>> raster = xr.DataArray(np.zeros((2, 1, 1), "int16"), dims=("band", "y", "x"), attrs={"_FillValue": -1})
    >>> with_own_nodata(raster.assign_coords(band=["B4", "B3"]).to_dataset("band")).B3.attrs
    {'_FillValue': -1}
    """
    shared = {key: value for key, value in image.attrs.items() if _key(key) in _NAMES and _is_nodata(value)}
    if not shared:
        return image
    names = [name for name, variable in image.data_vars.items() if variable.ndim > 1]
    bands = {}
    for number, name in enumerate(names):
        band = image[name].variable
        if not _has_own(band):
            bands[name] = band.copy(deep=False)
            own = shared if "band" in band.dims else nodata_of_band(shared, number, len(names), name)
            bands[name].attrs = {**band.attrs, **own}
    found = image.assign(bands)
    found.attrs = {key: value for key, value in image.attrs.items() if key not in shared}
    return found


def _is_nodata(value: Any) -> bool:
    try:
        return bool(list(_numbers(value, "", "", "")))
    except OptionError:
        return False


def _has_own(band: xr.Variable) -> bool:
    """Return whether a band has nodata values, or was decoded."""
    notes = [value for key, value in (*band.attrs.items(), *band.encoding.items()) if _key(key) in _NAMES]
    return any(value is not None for value in (*notes, *map(band.encoding.get, _SCALES)))


def with_set_nodata(variable: xr.DataArray) -> xr.DataArray:
    """Copy the value of ``rio.set_nodata``, which is not an attribute, to the attribute ``_FillValue``."""
    if any(_key(key) in _NAMES for key in (*variable.attrs, *variable.encoding)):
        return variable
    nodata = getattr(variable.rio, "_nodata", None)  # rio.nodata would open the file of a lazy raster
    return variable if nodata in (None, False) else variable.assign_attrs(_FillValue=nodata)


def _written(variable: xr.DataArray, name: str) -> list[int | float]:
    """Return the nodata values of a band from the first source that has any."""
    attrs, encoding = variable.attrs, variable.encoding
    places: list[list[tuple[str, Hashable, Any]]] = [_entries("attrs", attrs, _CF)]
    scaled = any(encoding.get(key) is not None for key in _SCALES)
    masked = any(encoding.get(key) is not None for key in ("_FillValue", "missing_value"))
    if variable.dtype.kind in "iu" and not scaled:
        places.append(_entries("encoding", encoding, _CF))
    # xarray puts the dtype of the file in the encoding; odc-geo sets both attributes and encoding.
    if not (scaled or (masked and "dtype" in encoding and variable.dtype.kind == "f")):
        places += [_entries("attrs", attrs, (key,)) for key in _OTHERS]
    for entries in places:
        numbers: list[int | float] = []
        for where, key, value in entries:
            if _key(key) not in _CF:
                value = _own(value, variable)
            found = list(_numbers(value, name, where, key))
            if _key(key) not in _CF and len(set(map(repr, found))) > 1:
                raise OptionError(
                    f"Band {name!r} has {where}[{key!r}] = {excerpt(value)}, and it is ambiguous which of "
                    f"these values applies to the band. Fix: ds[{name!r}].{where}[{key!r}] = {found[0]!r}."
                )
            numbers += found
        if numbers:
            return numbers
    return []


def _entries(
    where: str, mapping: Mapping[Any, Any], keys: tuple[str, ...]
) -> list[tuple[str, Hashable, Any]]:
    return [(where, key, value) for key, value in mapping.items() if _key(key) in keys]


def _key(key: Any) -> str:
    """Normalize a name: lower case, without underscores except a leading one."""
    text = str(key).lower()
    plain = text[:1] + text[1:].replace("_", "")
    return _SPELLINGS.get(plain, plain)


def _flat(value: Any) -> list[Any]:
    """Convert a scalar, list, tuple or array of any kind to a flat list of Python objects."""
    if isinstance(value, str | bytes):
        return [value]
    if isinstance(value, np.ma.MaskedArray):
        value = value.compressed()
    array = np.asarray(value) if isinstance(value, np.ndarray | np.generic | xr.DataArray) else None
    if array is not None and array.dtype.kind not in "mM":  # tolist() converts dates to integers
        return list(array.reshape(-1).tolist())
    if isinstance(value, list | tuple):
        return [scalar for item in value for scalar in _flat(item)]
    return [value]


def _numbers(value: Any, name: str, where: str, key: Hashable) -> Iterator[int | float]:
    for scalar in _flat(value):
        try:
            number = _number(scalar)
        except (TypeError, ValueError):
            raise OptionError(
                f"Band {name!r} has {where}[{key!r}] = {excerpt(value)}, which is not a number. Set it to "
                f"the value of masked pixels, for example ds[{name!r}].{where}[{key!r}] = -9999, or remove "
                f"it: del ds[{name!r}].{where}[{key!r}]."
            ) from None
        if number is not None:
            yield number


def _number(value: Any) -> int | float | None:
    """Convert a value to a Python number; return None if it represents a missing value."""
    if value is None or value is pd.NA or value is pd.NaT or isinstance(value, bool | np.bool_):
        return None  # rioxarray and Zarr write False for a missing value
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        text = value.strip("\0 \t\r\n")
        if text.lower() in _NO_VALUE:
            return None
        try:
            return int(text)
        except ValueError:
            return float(text)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        return float(value)
    raise TypeError


def _own(value: Any, variable: xr.DataArray) -> Any:
    """Select the value of a band from the per-band values of a file, if the band still has its number."""
    values = _flat(value)
    at = _position(variable.coords["band"].values, len(values)) if "band" in variable.coords else None
    return value if at is None else values[at]


def _position(label: Any, count: int) -> int | None:
    """Return the index of a band among all bands of its file, by its number; None if it has no number."""
    found = np.asarray(label)
    if found.ndim or found.dtype.kind not in "iu" or not 1 <= int(found) <= count:
        return None
    return int(found) - 1
