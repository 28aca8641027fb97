"""Conversion of bands to the common dtype and nodata value of a GeoTIFF, without changes of values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from xee_tf.display import quoted
from xee_tf.dtypes import FLOAT64_EXACT, convert_number, nodata_candidates
from xee_tf.errors import OptionError, RecordError, shorten
from xee_tf.options import is_number

__all__ = [
    "Nodata",
    "cast",
    "common_dtype",
    "common_nodata",
    "dtype_with_nodata",
    "is_representable",
    "one_nodata",
    "read_nodata",
    "restore",
]

Nodata = float | Mapping[str, float]
"""A value that marks missing pixels of all bands, or one for each of some bands."""

_REMEDY = (
    "choose another dtype=. If this value marks missing pixels, pass it as nodata= with a dtype= that can "
    "represent it, or write NaN instead of it."
)


def common_dtype(dtypes: Iterable[npt.DTypeLike]) -> np.dtype[Any]:
    """Return the smallest common dtype for a GeoTIFF; bool becomes uint8 and float16 becomes float32.

    The common dtype of int64 and uint64 is float64, which cannot represent all their values; `cast` raises
    an error for such values.

    Examples
    --------
    >>> common_dtype(["uint8", "int8"]), common_dtype(["float32", "int32"]), common_dtype(["bool"])
    (dtype('int16'), dtype('float64'), dtype('uint8'))
    """
    found = np.result_type(*("uint8" if np.dtype(dtype).kind == "b" else dtype for dtype in dtypes))
    return np.dtype(np.float32) if found == np.float16 else found


def common_nodata(
    dtypes: Mapping[str, np.dtype[Any]], fills: Mapping[str, float | None], remedy: str
) -> tuple[np.dtype[Any], Any]:
    """Find a dtype for multiple bands, and a nodata value that is not a valid value of any band.

    `fills` are the values that mark missing pixels in each band, or None for bands without missing pixels.
    If no band has missing pixels, the nodata value is None, or NaN for floats.

    Raises
    ------
    OptionError
        If all values can be valid in a band; the message ends with `remedy`.

    Examples
    --------
    >>> common_nodata({"a": np.dtype("uint8"), "b": np.dtype("uint8")}, {"a": 255, "b": None}, "")
    (dtype('uint16'), np.uint16(65535))
    """
    dtype = common_dtype(dtypes.values())
    if dtype.kind == "f":
        return dtype, dtype.type(np.nan)
    marked = [int(fill) for fill in fills.values() if fill is not None]
    if not marked:
        return dtype, None
    valid = {name: np.iinfo(common_dtype([own])) for name, own in dtypes.items()}
    while True:
        for value in (*marked, *nodata_candidates(dtype)):
            if abs(value) <= FLOAT64_EXACT and all(
                value == fills.get(name) or not own.min <= value <= own.max for name, own in valid.items()
            ):
                return dtype, dtype.type(value)
        if dtype.itemsize == 8:
            raise OptionError(
                "A GeoTIFF has one float64 nodata value for all bands, but every value of both "
                f"{dtype} and float64 can be valid in one of the bands {quoted(dtypes)}: {remedy}"
            )
        dtype = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")


def read_nodata(nodata: Any) -> int | float:
    """Convert a nodata value to a Python number.

    Examples
    --------
    >>> read_nodata(np.float32(-1)), read_nodata("none")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: nodata must be a number, such as -9999; got 'none'.
    """
    if not is_number(nodata):
        raise OptionError(f"nodata must be a number, such as -9999; got {shorten(repr(nodata))}.")
    return int(nodata) if isinstance(nodata, Integral) else float(nodata)


def is_representable(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype can represent a value, with the precision of float32."""
    converted = convert_number(nodata, dtype)
    return converted is not None and (math.isnan(converted) or math.isclose(converted, nodata, rel_tol=1e-7))


def one_nodata(given: Nodata | None, bands: Iterable[str] | None) -> int | float | None:
    """Return the nodata value of all bands of a GeoTIFF, which has no place for one for each band.

    Raises
    ------
    OptionError
        If a value is not a number, a name is none of `bands`, if these are known, or the values of two bands
        differ.

    Examples
    --------
    >>> one_nodata({"class": 255, "share": 255}, ["class", "share"])
    255
    """
    if given is None or not isinstance(given, Mapping):
        return None if given is None else read_nodata(given)
    names = None if bands is None else list(bands)
    found = {name: read_nodata(value) for name, value in given.items()}
    for name in found:
        if names is not None and name not in names:
            raise OptionError(
                f"nodata names the band {name!r}, which is not written. The bands are {quoted(names)}."
            )
    if len({repr(float(value)) for value in found.values()}) > 1:
        shown = ", ".join(f"{value!r} for {name!r}" for name, value in found.items())
        raise OptionError(
            f"A GeoTIFF has one nodata value for all bands, but nodata has {shorten(shown, 200)}. Pass one "
            "value that no valid pixel of any band has; omit nodata, so that such a value is found; or write "
            "a Zarr store, which has one for each band."
        )
    return next(iter(found.values()), None)


def dtype_with_nodata(dtypes: Mapping[str, npt.DTypeLike], nodata: float) -> tuple[np.dtype[Any], Any]:
    """Return the common dtype of bands, and a nodata value that was chosen for all of them in this dtype.

    Raises
    ------
    OptionError
        If the dtype cannot represent the value.

    Examples
    --------
    >>> dtype_with_nodata({"a": np.dtype("uint8"), "b": np.dtype("int16")}, -9999)
    (dtype('int16'), np.int16(-9999))
    """
    dtype = common_dtype(dtypes.values())
    if not is_representable(nodata, dtype):
        raise OptionError(
            f"nodata={nodata!r} cannot be represented as {dtype}, the common dtype of the bands "
            f"{quoted(dtypes)}. Choose another value, or a larger dtype for one of them, such as 'float32'."
        )
    return dtype, dtype.type(nodata)


def cast(
    name: str,
    array: da.Array,
    dtype: np.dtype[Any],
    nodata: float | None,
    *,
    fill: float | None = None,
    remedy: str = _REMEDY,
) -> da.Array:
    """Convert a lazy band to another integer or float dtype; an integer dtype rounds fractions.

    Parameters
    ----------
    name : str
        Name of the band in error messages.
    array : dask array
        The band.
    dtype : numpy.dtype
        Dtype of the result.
    nodata : float or None
        Value of `dtype` that marks missing pixels in the result.
    fill : float, optional
        Value that marks missing pixels in `array`, in addition to NaN. None: those with `nodata` are missing;
        NaN: no others are.
    remedy : str
        End of the error message for a value that `dtype` cannot represent: one or more sentences.

    Returns
    -------
    dask array
        The converted band.

    Raises
    ------
    RecordError
        When the result is computed, if a value would change or become `nodata`.

    Examples
    --------
    >>> counts = da.from_array(np.array([3, 255], "uint8"))
    >>> cast("counts", counts, np.dtype("float32"), np.nan, fill=255).compute()
    array([ 3., nan], dtype=float32)
    """
    marked = fill is None or fill == nodata
    if array.dtype == dtype and marked and (dtype.kind != "f" or nodata is None or np.isnan(nodata)):
        return array
    meta = np.empty((0,) * array.ndim, dtype)
    return array.map_blocks(_Cast(name, dtype, nodata, fill, remedy), dtype=dtype, meta=meta)


def restore(name: str, array: da.Array, dtype: np.dtype[Any], fill: int) -> da.Array:
    """Return the integers of classes that were decoded to floats; NaN becomes `fill`.

    Raises
    ------
    RecordError
        When the result is computed, if a value is not an integer of `dtype`, or `fill`.

    Examples
    --------
    >>> restore("class", da.from_array(np.array([3, np.nan])), np.dtype("uint8"), 255).compute()
    array([  3, 255], dtype=uint8)
    """
    meta = np.empty((0,) * array.ndim, dtype)
    return array.map_blocks(_Restore(name, dtype, fill), dtype=dtype, meta=meta)


@dataclass(frozen=True)
class _Restore:
    """Conversion of blocks of classes to integers."""

    name: str
    dtype: np.dtype[Any]
    fill: int

    def __call__(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        missing = np.isnan(block)
        with np.errstate(invalid="ignore"):
            out = np.where(missing, block.dtype.type(0), block).astype(self.dtype)
        if (wrong := ((out != block) | (out == self.fill)) & ~missing).any():
            raise RecordError(
                f"Band {self.name!r} contains {block[wrong][0]}, but its attribute flag_values and its "
                f"encoding say that its values are {self.dtype} and missing pixels are {self.fill}. If they "
                f"are no longer, remove both: ds[{self.name!r}].drop_attrs().drop_encoding()."
            )
        out[missing] = self.fill
        return out


@dataclass(frozen=True)
class _Cast:
    """Conversion of blocks to a dtype without changes of values, except the rounding of fractions."""

    name: str
    dtype: np.dtype[Any]
    nodata: float | None
    fill: float | None
    remedy: str

    def __call__(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        missing = np.isnan(block) if block.dtype.kind == "f" else np.zeros(block.shape, bool)
        if self.fill is not None:
            missing |= block == self.fill
            self._check_valid(block, missing)
        if missing.any() and (self.nodata is not None or self.dtype.kind != "f"):
            if self.nodata is None:
                info = np.iinfo(self.dtype)
                raise RecordError(
                    f"Band {self.name!r} contains NaN, which {self.dtype} cannot represent: pass nodata=, a "
                    f"value that no valid pixel has, such as {info.min or info.max}."
                )
            block = np.where(missing, block.dtype.type(0), block)
        out = self._rounded(block)
        if self.nodata is None:
            return out
        if (wrong := (out == self.nodata) & (block != self.nodata)).any():
            raise RecordError(
                f"Band {self.name!r} contains {block[wrong][0]}, which is rounded to the nodata value "
                f"{self.nodata} in {self.dtype}. Choose another nodata= or dtype=."
            )
        out[missing] = self.nodata
        return out

    def _check_valid(self, block: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> None:
        """Raise an error if a pixel that is not missing has the nodata value of the result."""
        if self.nodata is None or np.isnan(self.nodata) or self.fill == self.nodata:
            return
        if ((block == self.nodata) & ~missing).any():
            none = block.dtype.kind != "f" and self.fill is not None and np.isnan(self.fill)
            why = "no pixel of it is missing" if none else f"its missing pixels have {self.fill}"
            raise RecordError(
                f"Band {self.name!r} contains {self.nodata} as a valid value, because {why}: choose another "
                "nodata=, which no valid pixel has, or omit it."
            )

    def _rounded(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if block.dtype.kind == "b":
            return block.astype(self.dtype)
        if self.dtype.kind != "f":
            whole = np.rint(block.astype(np.float64)) if block.dtype.kind == "f" else block
            self._check_range(whole, np.iinfo(self.dtype), whole)
            return whole.astype(self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            out = block.astype(self.dtype)
            if block.dtype.kind == "f":
                wrong = np.isinf(out) & np.isfinite(block)
            else:
                self._check_range(out, np.iinfo(block.dtype), block)
                wrong = out.astype(block.dtype) != block
        self._require_none(wrong, block)
        return out

    def _check_range(self, values: npt.NDArray[Any], info: np.iinfo[Any], block: npt.NDArray[Any]) -> None:
        # As a float, the largest int64 or uint64 is rounded up to the next integer, hence + 1.
        beyond = values >= float(info.max) + 1 if values.dtype.kind == "f" else values > info.max
        self._require_none((values < info.min) | beyond, block)

    def _require_none(self, wrong: npt.NDArray[np.bool_], block: npt.NDArray[Any]) -> None:
        if wrong.any():
            raise RecordError(
                f"Band {self.name!r} contains {block[wrong][0]}, which {self.dtype} cannot represent: "
                f"{self.remedy}"
            )
