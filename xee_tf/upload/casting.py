"""Bands of several dtypes as one dtype with one nodata value, as a GeoTIFF has them; no value changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import FLOAT64_EXACT, nodata_candidates
from xee_tf.errors import OptionError, RecordError

__all__ = ["cast", "common_dtype", "common_nodata"]

_DTYPE = "choose another dtype"


def common_dtype(dtypes: Iterable[npt.DTypeLike]) -> np.dtype[Any]:
    """The smallest dtype for several in a GeoTIFF; truths are bytes, and half floats become float32.

    Of int64 and uint64 it is float64, which does not hold all their values: `cast` refuses those.

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
    """A dtype for several bands, and a value in it that is valid in none of them.

    `fills` are the values that mark missing pixels in each band, None where there are none. If no band has
    missing pixels, the value is None, or NaN for floats.

    Raises
    ------
    OptionError
        If every value can be valid in a band; `remedy` is the end of the error.

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
                "A GeoTIFF has one nodata value for all bands, which is a float64, and every value of both "
                f"{dtype} and float64 can be valid in one of {list(dtypes)}: {remedy}."
            )
        dtype = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")


def cast(
    name: str,
    array: da.Array,
    dtype: np.dtype[Any],
    nodata: float | None,
    *,
    fill: float | None = None,
    remedy: str = _DTYPE,
) -> da.Array:
    """A lazy band in another dtype, of integers or floats. Fractions are rounded where it is an integer type.

    Parameters
    ----------
    name, remedy : str
        For errors: of the band, and what to do about a value that `dtype` does not hold.
    array : dask array
    dtype : numpy.dtype
    nodata : number or None
        A value of `dtype` that marks missing pixels in the result.
    fill : number, optional
        What marks them in `array`, as NaN always does.

    Raises
    ------
    RecordError
        When it is computed, for a value that would change, or that would become `nodata`.

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


@dataclass(frozen=True)
class _Cast:
    """Changes a dtype without ever changing a value, but for the rounding of fractions."""

    name: str
    dtype: np.dtype[Any]
    nodata: float | None
    fill: float | None
    remedy: str

    def __call__(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        missing = np.isnan(block) if block.dtype.kind == "f" else np.zeros(block.shape, bool)
        if self.fill is not None:
            missing |= block == self.fill
        if missing.any() and (self.nodata is not None or self.dtype.kind != "f"):
            if self.nodata is None:
                raise RecordError(f"Band {self.name!r} holds NaN, which {self.dtype} cannot: name a nodata=.")
            block = np.where(missing, block.dtype.type(0), block)
        out = self._rounded(block)
        if self.nodata is None:
            return out
        if (wrong := (out == self.nodata) & (block != self.nodata)).any():
            raise RecordError(
                f"Band {self.name!r} holds {block[wrong][0]}, which {self.dtype} rounds to {self.nodata}, "
                "the value that marks missing pixels. Choose another nodata= or dtype=."
            )
        out[missing] = self.nodata
        return out

    def _rounded(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if block.dtype.kind == "b":
            return block.astype(self.dtype)
        if self.dtype.kind != "f":
            whole = np.rint(block.astype(np.float64)) if block.dtype.kind == "f" else block
            self._refuse_outside(whole, np.iinfo(self.dtype), whole)
            return whole.astype(self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            out = block.astype(self.dtype)
            if block.dtype.kind == "f":
                wrong = np.isinf(out) & np.isfinite(block)
            else:
                self._refuse_outside(out, np.iinfo(block.dtype), block)
                wrong = out.astype(block.dtype) != block
        self._refuse(wrong, block)
        return out

    def _refuse_outside(self, values: npt.NDArray[Any], info: np.iinfo[Any], block: npt.NDArray[Any]) -> None:
        # Compared as floats, the largest int64 and uint64 would be rounded up: hence one beyond.
        beyond = values >= float(info.max) + 1 if values.dtype.kind == "f" else values > info.max
        self._refuse((values < info.min) | beyond, block)

    def _refuse(self, wrong: npt.NDArray[np.bool_], block: npt.NDArray[Any]) -> None:
        if wrong.any():
            raise RecordError(
                f"Band {self.name!r} holds {block[wrong][0]}, which {self.dtype} cannot: {self.remedy}."
            )
