"""Statistics of the bands of a raster, in one pass over its chunks."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from dask.core import flatten
from numpy.typing import NDArray

from xee_tf.blocks import PlaneRule
from xee_tf.chunks import checked_chunk
from xee_tf.errors import OptionError
from xee_tf.georef import Raster, band_nodata, plane_array, raster_variables, spatial_dims, whole_image
from xee_tf.graph import Sources, TaskRef, add_task, run_graph
from xee_tf.options import check_flags
from xee_tf.statistics import BandStatistics, statistics_dataset

__all__ = ["BandStatistics", "band_statistics", "statistics_dataset"]

_CHUNK = (256, 256)  # least sides of the chunks of arrays without chunks
_GROUP = 64  # partial results that are merged in one task
_PIECE = 1 << 15  # values that are processed at a time, while they are in the cache of the processor


@dataclass(frozen=True)
class _Moments:
    """Statistics of some pixels of a band.

    Parameters
    ----------
    count, masked : int
        Number of valid and of masked pixels.
    least, greatest : float
        The extremes of the valid pixels; infinite, with the opposite sign, if there are none.
    mean, rest : float
        Their mean is the sum of both numbers, so that its rounding error is not squared.
    squares : float
        The sum of the squares of their differences from the mean.
    """

    count: int = 0
    masked: int = 0
    least: float = np.inf
    greatest: float = -np.inf
    mean: float = 0.0
    rest: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: NDArray[Any], rule: PlaneRule) -> _Moments:
        """Return the statistics of a few pixels."""
        masked = rule.masked(values)
        valid = values if masked is None or not masked.any() else values[~masked]
        if not valid.size:
            return cls(masked=values.size)
        exact = valid.astype("float64")
        with np.errstate(invalid="ignore", over="ignore"):  # infinite values have no variance
            mean = float(exact.mean())
            exact -= mean
            rest = float(exact.mean())
            squares = max(float(np.square(exact, out=exact).sum()) - valid.size * rest * rest, 0.0)
        ends = float(valid.min()), float(valid.max())
        return cls(valid.size, values.size - valid.size, *ends, mean, rest, squares)

    def merge(self, other: _Moments) -> _Moments:
        """Return the statistics of both sets of pixels, as described by Chan, Golub and LeVeque (1979)."""
        count = self.count + other.count
        masked = self.masked + other.masked
        if not (self.count and other.count):
            return replace(self if self.count else other, masked=masked)
        difference = (other.mean - self.mean) + (other.rest - self.rest)
        share = other.count / count
        change = self.rest + difference * share
        mean = self.mean + change
        kept = mean - change
        return _Moments(
            count,
            masked,
            min(self.least, other.least),
            max(self.greatest, other.greatest),
            mean,
            (self.mean - kept) + (change - (mean - kept)),
            self.squares + other.squares + difference * difference * self.count * share,
        )


def band_statistics(image: Raster | Sequence[Raster], *, progress: bool = False) -> xr.Dataset:
    """Compute the statistics of every band in one pass over the raster, for example to normalize inputs.

    Pixels are masked as in `xee_tf.export_image`: by NaN, or by nodata in any common form.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        The raster, or several on the same grid. A ``band`` dimension is split into bands; a band with other
        dimensions, such as time, has one statistic for all steps. A CRS is not needed.
    progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    Dataset
        In memory, with the coordinate ``band`` (names) and these variables along it:

        ========  =======  =====================================================================
        variable  dtype    contents
        ========  =======  =====================================================================
        count     int64    number of valid pixels
        masked    int64    number of masked pixels
        min       float64  smallest valid value
        max       float64  largest valid value
        mean      float64  mean of the valid pixels
        std       float64  standard deviation of the valid pixels, with the divisor ``count``, as
                           in numpy
        ========  =======  =====================================================================

        The last four are NaN if all pixels are masked.

    Raises
    ------
    OptionError
        If the raster has no bands, or a band does not contain numbers.
    GeoreferenceError
        If the raster has no x and y dimensions.
    ChunkError
        If a chunk is not what its array declares.

    Notes
    -----
    Each chunk is loaded once. The mean and the standard deviation are computed in float64 without
    cancellation, also for values with a large offset. They depend on the chunks only by rounding: the
    relative difference is below 1e-12 of the largest absolute value.

    Examples
    --------
    >>> import xee_tf
    >>> red = xr.DataArray([[1.0, 2.0], [3.0, np.nan]], dims=("y", "x"))
    >>> landcover = xr.DataArray(np.array([[1, 2], [2, 0]], "uint8"), dims=("y", "x"), attrs={"nodata": 0})
    >>> found = xee_tf.band_statistics(xr.Dataset({"red": red, "landcover": landcover}))
    >>> found["count"].values.tolist(), found["masked"].values.tolist()
    ([3, 3], [1, 1])
    >>> found["mean"].values.round(3).tolist(), found["std"].values.round(3).tolist()
    ([2.0, 1.667], [0.816, 0.471])

    A Keras layer that normalizes inputs with these numbers::

        keras.layers.Normalization(mean=found["mean"].values, variance=found["std"].values ** 2)
    """
    check_flags(progress=progress)
    dataset = whole_image(image, "compute")
    x_dim, y_dim = spatial_dims(dataset)
    names, arrays, rules = [], [], []
    for label, band in raster_variables(dataset, x_dim, y_dim):
        name = str(label)
        if band.dtype.kind not in "biuf":
            raise OptionError(
                f"Band {name!r} has dtype {band.dtype}, which has no statistics: convert it to numbers, or "
                "select other bands."
            )
        others = [dim for dim in band.dims if dim not in (y_dim, x_dim)]
        names.append(name)
        arrays.append(plane_array(band, others, y_dim, x_dim, sides=_CHUNK))
        rules.append(PlaneRule(0, 0, band_nodata(band, name)))
    return _as_dataset(names, run_graph(_graph(names, arrays, rules), progress))


def _graph(names: Sequence[str], arrays: Sequence[Any], rules: Sequence[PlaneRule]) -> Any:
    """Return a Delayed of the moments of all bands."""
    sources = Sources.of(arrays)
    graph = sources.to_graph()
    run = uuid.uuid4().hex
    results = []
    for number, (name, array, rule, keys) in enumerate(zip(names, arrays, rules, sources.keys, strict=True)):
        found = []
        for index, key in zip(np.ndindex(*array.numblocks), flatten(keys), strict=True):
            shape = tuple(lengths[at] for lengths, at in zip(array.chunks, index, strict=True))
            named = f"Band {name!r}: chunk {tuple(map(int, index))}"
            task = (f"statistics-{run}", number, *map(int, index))
            args = TaskRef(key), named, shape, array.dtype, rule
            found.append(add_task(graph.tasks, task, _moments_of_chunk, *args))
        stage = 0
        while len(found) > 1:
            found = [
                add_task(
                    graph.tasks,
                    (f"statistics-merged-{run}", number, stage, start),
                    _merged,
                    found[start : start + _GROUP],
                )
                for start in range(0, len(found), _GROUP)
            ]
            stage += 1
        results += found
    return graph.delayed(
        f"statistics-all-{run}", add_task(graph.tasks, f"statistics-list-{run}", list, results)
    )


def _moments_of_chunk(
    chunk: Any, named: str, shape: tuple[int, ...], dtype: np.dtype[Any], rule: PlaneRule
) -> _Moments:
    values = checked_chunk(named, chunk, shape, dtype).reshape(-1)
    return _merged([_Moments.of(values[at : at + _PIECE], rule) for at in range(0, values.size, _PIECE)])


def _merged(moments: Sequence[_Moments]) -> _Moments:
    """Merge neighbors first, so that rounding errors do not add up."""
    while len(moments) > 1:
        moments = [
            first.merge(*second) if second else first
            for first, *second in (moments[at : at + 2] for at in range(0, len(moments), 2))
        ]
    return moments[0] if moments else _Moments()


def _as_dataset(names: Sequence[str], moments: Sequence[_Moments]) -> xr.Dataset:
    rows = {
        name: (
            each.count,
            each.masked,
            each.least,
            each.greatest,
            each.mean,
            (each.squares / each.count) ** 0.5,
        )
        if each.count
        else (0, each.masked, np.nan, np.nan, np.nan, np.nan)
        for name, each in zip(names, moments, strict=True)
    }
    columns = list(zip(*rows.values(), strict=True))
    variables = {
        label: ("band", np.array(column, "int64" if label in ("count", "masked") else "float64"))
        for label, column in zip(("count", "masked", "min", "max", "mean", "std"), columns, strict=True)
    }
    return xr.Dataset(variables, coords={"band": list(rows)})
