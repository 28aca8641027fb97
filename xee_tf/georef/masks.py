"""Which values of a band mean "masked", however its source writes them.

The first of these places that has a value decides, as in rioxarray:

1. the attributes ``_FillValue`` and ``missing_value`` (CF, rioxarray, Xee, and what xarray opens with
   ``mask_and_scale=False``). Where both have values, all of them mask (CF conventions, section 2.5.1);
2. the same names in the encoding, for integer bands that are not scaled (``rio.write_nodata`` with
   ``encoded=True``). The encoding of floats describes the file: xarray has masked and scaled them;
3. the attributes ``fill_value``, then ``nodata`` (odc-stac, odc-geo, STAC), then ``nodatavals`` (xarray's
   former rasterio reader, one value for each band). They describe the file too: xarray leaves them where
   it masks and scales, and then they do not count.

Upper case and underscores within names make no difference. NaN always masks. CF's ``valid_min``,
``valid_max`` and ``valid_range`` do not mask, as in xarray and rioxarray; a comparison does, for example
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

from xee_tf.dtypes import held_as
from xee_tf.errors import OptionError, shorten

__all__ = [
    "Nodata",
    "band_nodata",
    "can_mask",
    "nodata_of_band",
    "with_own_nodata",
    "with_set_nodata",
]

Nodata = tuple[int | float, ...]
"""Values that mean "masked", as the dtype of their band holds them."""

_CF = ("_fillvalue", "missingvalue")
_OTHERS = ("fillvalue", "nodata", "nodatavals")  # "_FillValue" is not "fill_value"
_NAMES = (*_CF, *_OTHERS)
_SPELLINGS = {"nodatavalue": "nodata", "nodatavalues": "nodatavals", "nodataval": "nodata"}
_ONE_A_BAND = ("_fillvalue", "fillvalue", "nodata", "nodatavals")
_NO_VALUE = ("", "none", "null", "na", "n/a", "<na>")
_SCALES = ("scale_factor", "add_offset")


def band_nodata(variable: xr.DataArray, name: str) -> Nodata:
    """The values of a band that mean "masked", beside NaN.

    Parameters
    ----------
    variable : DataArray
    name : str
        The band, for errors.

    Returns
    -------
    tuple of int or float
        As the band holds them: -9999.9 is -9999.900390625 in float32, and -1.797e308 is -inf. Empty where
        nothing but NaN masks: also where an integer type does not have the value (-99999 or NaN in uint8),
        and for booleans, which have no value to spare; a comparison of bands keeps their attributes.

    Raises
    ------
    OptionError
        If a value is not a number, or it is unclear which of several belongs to the band.

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
    held = [held_as(number, dtype, wraps=wraps) for number in written]
    if dtype.kind == "f":  # pixels with a value beyond the range became infinite, as in a cast to float32
        held = [
            (math.inf if number > 0 else -math.inf) if value is None else value
            for number, value in zip(written, held, strict=True)
        ]
    return tuple(dict.fromkeys(number for number in held if number is not None and not math.isnan(number)))


def can_mask(dtype: np.dtype[Any], nodata: Nodata) -> bool:
    """Whether a pixel of a band can be masked at all."""
    return dtype.kind == "f" or bool(nodata)


def nodata_of_band(attrs: Mapping[Any, Any], number: int, count: int, label: Any = None) -> dict[Any, Any]:
    """The attributes of band `number` of `count` in a DataArray; of nodata for each band, its own value.

    Bands of a file have numbers from 1 on as their labels, and keep them in a selection.

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
    """A Dataset whose own nodata is in its bands, but for those that have nodata or scales already.

    Its attributes may describe anything: what is not a number stays where it is.

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
    """Whether a band says what masks, or was decoded."""
    notes = [value for key, value in (*band.attrs.items(), *band.encoding.items()) if _key(key) in _NAMES]
    return any(value is not None for value in (*notes, *map(band.encoding.get, _SCALES)))


def with_set_nodata(variable: xr.DataArray) -> xr.DataArray:
    """A DataArray with the value of ``rio.set_nodata``, which is in no attribute, in one."""
    if any(_key(key) in _NAMES for key in (*variable.attrs, *variable.encoding)):
        return variable
    nodata = getattr(variable.rio, "_nodata", None)  # rio.nodata opens the file of a lazy raster for it
    return variable if nodata in (None, False) else variable.assign_attrs(_FillValue=nodata)


def _written(variable: xr.DataArray, name: str) -> list[int | float]:
    """The numbers that are written for a band, from the first place that has one."""
    attrs, encoding = variable.attrs, variable.encoding
    places: list[list[tuple[str, Hashable, Any]]] = [_entries("attrs", attrs, _CF)]
    scaled = any(encoding.get(key) is not None for key in _SCALES)
    masked = any(encoding.get(key) is not None for key in ("_FillValue", "missing_value"))
    if variable.dtype.kind in "iu" and not scaled:
        places.append(_entries("encoding", encoding, _CF))
    # What xarray opens has the dtype of the file in its encoding; odc-geo sets attributes and encoding alike.
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
                    f"Band {name!r} has {where}[{key!r}] = {_short(value)}, and it is unclear which of these "
                    f"values is that of the band. Fix: ds[{name!r}].{where}[{key!r}] = {found[0]!r}."
                )
            numbers += found
        if numbers:
            return numbers
    return []


def _entries(
    where: str, mapping: Mapping[Any, Any], wanted: tuple[str, ...]
) -> list[tuple[str, Hashable, Any]]:
    return [(where, key, value) for key, value in mapping.items() if _key(key) in wanted]


def _key(key: Any) -> str:
    """A name without upper case and underscores but the first."""
    text = str(key).lower()
    plain = text[:1] + text[1:].replace("_", "")
    return _SPELLINGS.get(plain, plain)


def _flat(value: Any) -> list[Any]:
    """A scalar, a list, a tuple or an array of any kind as a list of Python's objects."""
    if isinstance(value, str | bytes):
        return [value]
    if isinstance(value, np.ma.MaskedArray):
        value = value.compressed()
    array = np.asarray(value) if isinstance(value, np.ndarray | np.generic | xr.DataArray) else None
    if array is not None and array.dtype.kind not in "mM":  # of dates, tolist() makes integers
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
                f"Band {name!r} has {where}[{key!r}] = {_short(value)}, which is not a number. Fix: "
                f"ds[{name!r}].{where}[{key!r}] = -9999, with the value that marks masked pixels; or "
                f"del ds[{name!r}].{where}[{key!r}]."
            ) from None
        if number is not None:
            yield number


def _number(value: Any) -> int | float | None:
    """A number as Python has it; None for what stands for no value."""
    if value is None or value is pd.NA or value is pd.NaT or isinstance(value, bool | np.bool_):
        return None  # rioxarray and Zarr write False where there is no value
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
    """Of values for all bands of a file, that of a band which still has its number there."""
    values = _flat(value)
    at = _position(variable.coords["band"].values, len(values)) if "band" in variable.coords else None
    return value if at is None else values[at]


def _position(label: Any, count: int) -> int | None:
    """Where the value of a band is among those of all bands of its file, by its number there."""
    found = np.asarray(label)
    if found.ndim or found.dtype.kind not in "iu" or not 1 <= int(found) <= count:
        return None
    return int(found) - 1


def _short(value: Any) -> str:
    return shorten(repr(value))
