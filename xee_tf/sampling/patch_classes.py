"""Find the classes that each patch holds, in one pass over a band of labels."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import xarray as xr
from affine import Affine
from dask.core import flatten
from numpy.typing import NDArray

from xee_tf.blocks import PlaneRule, chunk_edges
from xee_tf.chunks import checked_chunk
from xee_tf.display import counted
from xee_tf.errors import GridMismatchError, OptionError
from xee_tf.geometry import PatchAxis, PatchGrid
from xee_tf.georef import (
    GeoRef,
    band_nodata,
    corner_distance,
    describe_crs,
    plane_array,
    read_georef,
    same_crs,
)
from xee_tf.graph import Counted, Sources, TaskRef, add_task, run_graph

__all__ = ["PatchClasses", "count_classes"]

_CHUNK = (256, 256)  # least sides of the chunks of arrays without chunks
_MOST = 1000  # classes; more are probably not labels
_SAME = 0.01  # maximum distance between equal grids, in pixels
_TASKS = "classes-chunk-"  # how the names of the tasks that are counted begin

Counts = tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]
"""The patch, class and number of pixels of each pair of a patch and a class that it holds."""


@dataclass(frozen=True, eq=False)
class PatchClasses:
    """The classes that patches hold, without their margins.

    Parameters
    ----------
    classes : ndarray
        The classes, in ascending order.
    patches, codes, counts : ndarray of int64
        The patch, the index of the class and the number of pixels of each pair of a patch and a class in it.
    """

    classes: NDArray[Any]
    patches: NDArray[np.int64]
    codes: NDArray[np.int64]
    counts: NDArray[np.int64]


def count_classes(labels: xr.DataArray, grid: PatchGrid, *, progress: bool = False) -> PatchClasses:
    """Count the pixels of each class in each patch, in one pass over a band.

    Parameters
    ----------
    labels : DataArray
        A band with the classes of pixels, on the raster of the grid. Masked pixels have no class.
    grid : PatchGrid
        The patches.
    progress : bool
        Whether to show a progress bar.

    Raises
    ------
    OptionError
        If the band has further dimensions, does not contain numbers, or has too many different values.
    GridMismatchError
        If the band is on another grid.
    """
    name = "class_band" if labels.name is None else str(labels.name)
    georef = read_georef(labels, crs=grid.crs)
    y_dim, x_dim = georef.y_dim, georef.x_dim
    others = [dim for dim in labels.dims if dim not in (y_dim, x_dim)]
    if any(labels.sizes[dim] > 1 for dim in others) or labels.dtype.kind not in "biuf":
        raise OptionError(
            f"class_band={name!r} must have one number for each pixel; it has the dtype {labels.dtype} and "
            f"the dimensions {dict(labels.sizes)}. Select one step, or pass another band."
        )
    _require_same(georef, grid, name)
    array = plane_array(labels, [], y_dim, x_dim, sides=_CHUNK)
    graph = _graph(name, array, PlaneRule(0, 0, band_nodata(labels, name)), grid)
    found = run_graph(graph, Counted(_TASKS, "chunk", "read") if progress else None)
    patches, values, counts = (np.concatenate(each) for each in zip(*found, strict=True))
    classes, codes = np.unique(values, return_inverse=True)
    if len(classes) > _MOST:
        raise _too_many(name, len(classes))
    pairs, places = np.unique(patches * max(1, len(classes)) + codes, return_inverse=True)
    patches, codes = np.divmod(pairs, max(1, len(classes)))
    return PatchClasses(classes, patches, codes, _sums(places, counts, len(pairs)))


def _sums(places: NDArray[Any], counts: NDArray[Any], length: int) -> NDArray[np.int64]:
    sums = np.zeros(length, np.int64)
    np.add.at(sums, places, counts)
    return sums


def _too_many(name: str, number: int) -> OptionError:
    return OptionError(
        f"class_band={name!r} has {counted(number, 'different value')}: it must hold at most {_MOST:,} "
        "classes. Pass a band of labels, or group its values, for example with np.digitize."
    )


def _require_same(georef: GeoRef, grid: PatchGrid, name: str) -> None:
    """Raise an error if the labels are not on the raster of the grid."""
    own = georef.affine @ Affine.translation(grid.origin.x, grid.origin.y)
    far = corner_distance(grid.affine, own, grid.shape)
    inside = grid.origin.x + grid.shape.x <= georef.shape.x and grid.origin.y + grid.shape.y <= georef.shape.y
    if far > _SAME or not inside or (grid.crs is not None and not same_crs(georef.crs, pyproj.CRS(grid.crs))):
        raise GridMismatchError(
            f"class_band={name!r} is not on the grid of the patches: it covers {georef.bounds} in "
            f"{describe_crs(georef.crs)} with {georef.shape.xy} pixels (width, height). Reproject it to the "
            "grid of the raster first, for example with labels.rio.reproject_match(raster)."
        )


def _graph(name: str, array: Any, rule: PlaneRule, grid: PatchGrid) -> Any:
    """Return a Delayed of the counts of each chunk that has pixels of patches."""
    y, x = grid.axis_y, grid.axis_x
    edges = [chunk_edges(lengths) for lengths in array.chunks]
    sources = Sources.of([array])
    graph = sources.to_graph()
    run = uuid.uuid4().hex
    found = []
    for index, key in zip(np.ndindex(*array.numblocks), flatten(sources.keys[0]), strict=True):
        iy, ix = map(int, index)
        shape = array.chunks[0][iy], array.chunks[1][ix]
        corner = edges[0][iy], edges[1][ix]
        if all(map(_meets, (y, x), corner, shape)):
            named = f"class_band={name!r}: chunk {(iy, ix)}"
            args = TaskRef(key), named, shape, array.dtype, rule, corner, y, x, name
            found.append(add_task(graph.tasks, (f"{_TASKS}{run}", iy, ix), _count_chunk, *args))
    return graph.delayed(f"classes-all-{run}", add_task(graph.tasks, f"classes-list-{run}", list, found))


def _meets(axis: PatchAxis, begin: int, length: int) -> bool:
    first, last = axis.core(0, axis.count - 1)
    return begin < last and begin + length > first


def _count_chunk(
    chunk: Any,
    named: str,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    rule: PlaneRule,
    corner: tuple[int, int],
    y: PatchAxis,
    x: PatchAxis,
    name: str,
) -> Counts:
    """Count the classes in the part of each patch that is in one chunk."""
    values = checked_chunk(named, chunk, shape, dtype)
    spans = []
    for axis, begin, length in zip((y, x), corner, shape, strict=True):
        first, last = axis.core(0, axis.count - 1)
        spans.append(np.arange(max(begin, first), min(begin + length, last)))
    inside = tuple(slice(span[0] - at, span[-1] + 1 - at) for span, at in zip(spans, corner, strict=True))
    values = values[inside]
    rows, columns = ((span - axis.start) // axis.patch for span, axis in zip(spans, (y, x), strict=True))
    of_pixel = np.broadcast_to(rows[:, None] * x.count + columns, values.shape)
    masked = rule.masked(values)
    valid = np.s_[:] if masked is None else ~masked
    kept, numbers = values[valid].ravel(), of_pixel[valid].ravel()
    classes, codes = np.unique(kept, return_inverse=True)
    if len(classes) > _MOST:
        raise _too_many(name, len(classes))
    pairs, counts = np.unique(numbers * max(1, len(classes)) + codes.ravel(), return_counts=True)
    numbers, codes = np.divmod(pairs, max(1, len(classes)))
    return numbers, classes[codes], counts
