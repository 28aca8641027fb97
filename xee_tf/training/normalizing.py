"""The offsets and scales of normalized inputs: one form for training, predictions and Keras layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.errors import OptionError, excerpt
from xee_tf.options import one_of
from xee_tf.sidecars import Exported, describe_export
from xee_tf.statistics import BandStatistics

__all__ = [
    "Normalize",
    "NormalizeMethod",
    "Scales",
    "normalization",
    "offsets_and_scales",
    "read_scales",
    "scales_of_exports",
]

NormalizeMethod = Literal["standard", "minmax"]
"""Subtract the mean and divide by the standard deviation, or map the range to 0 to 1."""

Scales = Mapping[str, tuple[float, float]]
"""The offset and the scale of each band: ``(value - offset) / scale``."""

Normalize = NormalizeMethod | xr.Dataset | Mapping[str, tuple[float, float] | Mapping[str, float]]
"""A method, the result of `xee_tf.band_statistics`, or the numbers of each band."""

_NUMBERS: dict[NormalizeMethod, tuple[str, str]] = {"standard": ("mean", "std"), "minmax": ("min", "max")}
_EXPECTED = (
    "the result of xee_tf.band_statistics or xee_tf.normalization, or a mapping of bands to (offset, scale)"
)


def normalization(
    statistics: xr.Dataset | Exported | Sequence[Exported], method: NormalizeMethod = "standard"
) -> dict[str, tuple[float, float]]:
    """Return the offset and the scale that normalize each band: ``(value - offset) / scale``.

    Pass the result as ``normalize=`` to `xee_tf.tf_dataset` and to the constructors of `xee_tf.Model`, so
    that training and predictions use the same numbers.

    Parameters
    ----------
    statistics : Dataset, str, path-like, ExportResult or sequence of exports
        The result of `xee_tf.band_statistics`, or an export whose manifest contains statistics. Those of
        several exports are the statistics of all their pixels.
    method : {"standard", "minmax"}, default "standard"
        "standard" subtracts the mean and divides by the standard deviation. "minmax" maps the smallest value
        to 0 and the largest to 1.

    Returns
    -------
    dict of str to (float, float)
        The offset and the scale of each band. The scale of a constant band is 1; the numbers of a band
        without valid pixels are NaN, which raises an error if the band is used.

    Raises
    ------
    OptionError
        If there are no statistics.

    See Also
    --------
    xee_tf.band_statistics : Compute the statistics of a raster.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xee_tf
    >>> red = xr.DataArray([[1.0, 2.0], [3.0, np.nan]], dims=("y", "x"), name="red")
    >>> statistics = xee_tf.band_statistics(red.to_dataset())
    >>> xee_tf.normalization(statistics, "minmax")
    {'red': (1.0, 2.0)}

    The same step as the first layer of a Keras model, instead of ``normalize=``::

        offsets, scales = map(list, zip(*(scales[name] for name in ["B4", "B3"])))
        keras.layers.Normalization(mean=offsets, variance=np.square(scales))
    """
    one_of("method", method, get_args(NormalizeMethod))
    if isinstance(statistics, xr.Dataset):
        return _of_dataset(statistics, method)
    exports: Sequence[Any] = statistics if isinstance(statistics, list | tuple) else [statistics]
    if not exports:
        raise OptionError("normalization needs at least one export; got an empty sequence.")
    described = [describe_export(export, None) for export in exports]
    known = [(each.name, each.manifest.statistics if each.manifest else None) for each in described]
    return scales_of_exports(known, method, f"normalization(..., {method!r})")


def read_scales(value: Any, name: str = "normalize") -> dict[str, tuple[float, float]]:
    """Parse the numbers of bands; see `Normalize`.

    Raises
    ------
    OptionError
        If the value has another form.

    Examples
    --------
    >>> read_scales({"B4": (0.5, 2), "B3": {"mean": 1, "std": 3}, "B2": {"min": 2, "max": 6}})
    {'B4': (0.5, 2.0), 'B3': (1.0, 3.0), 'B2': (2.0, 4.0)}
    """
    if isinstance(value, xr.Dataset):
        return _of_dataset(value, "standard", name)
    if not isinstance(value, Mapping) or not value:
        raise OptionError(f"{name} must be {_EXPECTED}, such as {{'B4': (0.2, 0.1)}}; got {excerpt(value)}.")
    try:
        return {str(band): _pair(numbers) for band, numbers in value.items()}
    except (KeyError, TypeError, ValueError, OverflowError):
        raise OptionError(
            f"{name} must have an offset and a scale for each band, as (offset, scale), "
            f"{{'mean': ..., 'std': ...}} or {{'min': ..., 'max': ...}}; got {excerpt(value)}."
        ) from None


def _pair(numbers: Any) -> tuple[float, float]:
    if not isinstance(numbers, Mapping):
        offset, scale = numbers
        return float(offset), float(scale)
    names = set(numbers)
    if names == {"offset", "scale"}:
        return float(numbers["offset"]), float(numbers["scale"])
    if {"mean", "std"} <= names:
        return _scaled("standard", numbers["mean"], numbers["std"])
    return _scaled("minmax", numbers["min"], numbers["max"])


def _scaled(method: NormalizeMethod, first: Any, second: Any) -> tuple[float, float]:
    """Return the offset and the scale; the scale of a constant band is 1, which keeps its values at 0."""
    if first is None or second is None:
        return math.nan, math.nan
    offset, scale = float(first), float(second)
    if method == "minmax":
        scale -= offset
    return offset, scale if scale != 0 else 1.0


def _of_dataset(
    statistics: xr.Dataset, method: NormalizeMethod, name: str = "statistics"
) -> dict[str, tuple[float, float]]:
    first, second = _NUMBERS[method]
    variables = set(map(str, statistics.variables))
    if not {first, second, "band"} <= variables:
        raise OptionError(
            f"{name} must be {_EXPECTED}; got a Dataset with {sorted(variables)}, without {first} and "
            f"{second} along band. Compute them with xee_tf.band_statistics."
        )
    bands = map(str, statistics["band"].values)
    rows = zip(bands, statistics[first].values, statistics[second].values, strict=True)
    return {band: _scaled(method, *numbers) for band, *numbers in rows}


def _of_statistics(
    statistics: Mapping[str, BandStatistics], method: NormalizeMethod
) -> dict[str, tuple[float, float]]:
    return {
        band: _scaled(method, *(getattr(found, number) for number in _NUMBERS[method]))
        for band, found in statistics.items()
    }


def scales_of_exports(
    exports: Iterable[tuple[str, Mapping[str, BandStatistics] | None]],
    method: NormalizeMethod,
    option: str | None = None,
) -> dict[str, tuple[float, float]]:
    """Return the numbers of all pixels of several exports, given as their names and statistics.

    `option` is what asked for them, in errors.

    Raises
    ------
    OptionError
        If an export has no statistics.
    """
    merged: dict[str, BandStatistics] = {}
    for name, statistics in exports:
        if statistics is None:
            raise _without_statistics(name, option or f"normalize={method!r}")
        for band, found in statistics.items():
            merged[band] = _merged(merged[band], found) if band in merged else found
    return _of_statistics(merged, method)


def _merged(one: BandStatistics, two: BandStatistics) -> BandStatistics:
    """Return the statistics of two sets of pixels, without counts of classes."""
    if not (one.count and two.count):
        return one if one.count else two
    count = one.count + two.count
    share, difference = two.count / count, two.mean - one.mean
    squares = (1 - share) * one.std**2 + share * two.std**2 + share * (1 - share) * difference**2
    return BandStatistics(
        count,
        one.masked + two.masked,
        min(one.min, two.min),
        max(one.max, two.max),
        one.mean + share * difference,
        math.sqrt(squares),
    )


def _without_statistics(export: str, option: str) -> OptionError:
    return OptionError(
        f"{option} needs statistics in the manifest, but {export} has none. Exports of images have "
        "them, unless they were written with statistics=False, by an older version or by another program. "
        "Pass the result of xee_tf.band_statistics instead."
    )


def offsets_and_scales(scales: Scales, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the offsets and the scales of bands, as an array (2, band).

    Raises
    ------
    OptionError
        If a band is missing, or its numbers are not finite in float32, or its scale is 0.

    Examples
    --------
    >>> offsets_and_scales({"B4": (0.5, 2), "B3": (0, 1)}, ["B3", "B4"]).tolist()
    [[0.0, 0.5], [1.0, 2.0]]
    """
    if missing := [name for name in dict.fromkeys(names) if name not in scales]:
        raise OptionError(f"normalize lacks the inputs {missing}; it has {list(scales)}. Add them.")
    exact = np.array([scales[name] for name in names], "float64").reshape(len(names), 2).T
    with np.errstate(over="ignore"):
        found = exact.astype("float32")
    for name, numbers, (offset, scale) in zip(names, found.T, exact.T, strict=True):
        if not (np.isfinite(numbers).all() and numbers[1]):
            raise OptionError(
                f"normalize has the offset {offset:g} and the scale {scale:g} for {name!r}: both must be "
                "finite in float32, and the scale not 0. A band that is masked everywhere has no statistics."
            )
    return found
