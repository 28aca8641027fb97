"""Statistics of the bands of a raster, in one pass over its chunks."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from dask.core import flatten

from xee_tf.blocks import PlaneRule
from xee_tf.chunks import checked_chunk
from xee_tf.errors import OptionError
from xee_tf.georef import Raster, band_nodata, plane_array, raster_variables, spatial_dims, whole_image
from xee_tf.graph import Counted, Sources, TaskRef, add_task, run_graph
from xee_tf.moments import Moments, Tally, merge_moments
from xee_tf.options import check_flags
from xee_tf.statistics import BandStatistics, statistics_dataset

__all__ = ["BandStatistics", "band_statistics", "statistics_dataset"]

_CHUNK = (256, 256)  # least sides of the chunks of arrays without chunks
_GROUP = 64  # partial results that are merged in one task
_PIECE = 1 << 17  # values that are added at a time
_TASKS = "statistics-chunk-"  # how the names of the tasks that are counted begin


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

        The last four are NaN if all pixels are masked. If the values of an integer or boolean band differ by
        less than 256, there is also ``class_count`` (int64) along ``band`` and ``class``: the number of
        pixels of each value, 0 for values of other bands.

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
    Each chunk is loaded once. The mean and the standard deviation are computed without cancellation, also for
    values with a large offset. Of integers with up to 16 bits they are exact, apart from the last rounding.
    Otherwise they depend on the chunks only by rounding: the mean by less than 1e-12 of the largest absolute
    value. As in numpy, the mean of infinite values is infinite, or NaN if both signs occur, and their
    standard deviation is NaN. The minimum and maximum of 64-bit integers are rounded to float64.

    `xee_tf.export_image` takes the same statistics of what it writes: see ``ExportResult.statistics``.

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
    >>> found["class_count"].sel({"band": "landcover", "class": 2}).item()
    2

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
    found = run_graph(_graph(names, arrays, rules), Counted(_TASKS, "chunk", "read") if progress else None)
    return statistics_dataset({name: each.statistics() for name, each in zip(names, found, strict=True)})


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
            task = (f"{_TASKS}{run}", number, *map(int, index))
            args = TaskRef(key), named, shape, array.dtype, rule
            found.append(add_task(graph.tasks, task, _moments_of_chunk, *args))
        stage = 0
        while len(found) > 1:
            found = [
                add_task(
                    graph.tasks,
                    (f"statistics-merged-{run}", number, stage, start),
                    merge_moments,
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
) -> Moments:
    values = checked_chunk(named, chunk, shape, dtype).reshape(-1)
    tally = Tally(values.dtype)
    for start in range(0, values.size, _PIECE):
        piece = values[start : start + _PIECE].reshape(1, 1, -1, 1)
        tally.add(piece, rule.masked(piece))
    return tally.moments()
