"""Statistics of the valid pixels of a band: their form in results and in manifests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

__all__ = ["BandStatistics", "statistics_cells", "statistics_dataset"]

_COUNTS = ("count", "masked")
_NUMBERS = ("min", "max", "mean", "std")


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of a band.

    Parameters
    ----------
    count, masked : int
        Number of valid and of masked pixels; of a band with other dimensions, such as time, of all steps.
    min, max : int or float
        The extremes of the valid pixels: whole numbers if the band has an integer dtype. Like the mean and
        the standard deviation, they are NaN if no pixel is valid.
    mean, std : float
        The mean and the population standard deviation.
    classes : mapping from int to int, optional
        For bands with an integer dtype or of booleans whose values differ by less than 256: the number of
        pixels of each value, in ascending order of the values; in exports 0 for values that only occur in
        margins.

    Examples
    --------
    >>> BandStatistics(3, 1, min=1, max=2, mean=5 / 3, std=0.4714, classes={1: 1, 2: 2}).count
    3
    """

    count: int
    masked: int
    min: float
    max: float
    mean: float
    std: float
    classes: Mapping[int, int] | None = None

    @classmethod
    def empty(cls, masked: int) -> BandStatistics:
        """Return the statistics of a band of which no pixel is valid."""
        return cls(0, masked, math.nan, math.nan, math.nan, math.nan)

    def __str__(self) -> str:
        if not self.count:
            return f"{self.masked:,} pixels, all masked"
        masked = f", {self.masked:,} masked" if self.masked else ""
        numbers = (f"{name} {_short(getattr(self, name))}" for name in ("mean", "std"))
        return f"{_short(self.min)} to {_short(self.max)}, {', '.join(numbers)}{masked}"


def statistics_dataset(statistics: Mapping[str, BandStatistics]) -> xr.Dataset:
    """Return the statistics of bands as a Dataset along ``band``.

    Examples
    --------
    >>> found = statistics_dataset({"B4": BandStatistics(2, 0, 1.0, 3.0, 2.0, 1.0)})
    >>> found["mean"].sel(band="B4").item()
    2.0
    """
    each = list(statistics.values())
    variables: dict[str, tuple[object, ...]] = {
        name: ("band", np.array([getattr(one, name) for one in each], "int64" if name in _COUNTS else "f8"))
        for name in (*_COUNTS, *_NUMBERS)
    }
    coords: dict[str, object] = {"band": list(statistics)}
    values = sorted({value for one in each for value in one.classes or ()})
    if values:
        counts = [[(one.classes or {}).get(value, 0) for value in values] for one in each]
        variables["class_count"] = (("band", "class"), np.array(counts, "int64"))
        coords["class"] = np.array(values, "uint64" if values[-1] >= 1 << 63 else "int64")
    return xr.Dataset(variables, coords=coords)


def statistics_cells(statistics: Mapping[str, BandStatistics]) -> list[tuple[str, str]]:
    """Return the name and the statistics of each band as text.

    Examples
    --------
    >>> statistics_cells({"B4": BandStatistics(2000, 48, 1.0, 3.0, 2.0, 1 / 3)})
    [('B4', '1 to 3, mean 2, std 0.333333, 48 masked')]
    """
    return [(name, str(each)) for name, each in statistics.items()]


def _short(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.6g}"
