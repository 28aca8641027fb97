"""Lazy arrays of the bands of an export, for Dask or for xarray's own lazy indexing."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.array.core import Array, normalize_chunks
from dask.tokenize import tokenize
from xarray.backends import BackendArray
from xarray.core import indexing

from xee_tf.display import quoted
from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import PatchGrid
from xee_tf.graph import ArraySpec, arrays_of_boxes
from xee_tf.options import is_number
from xee_tf.reading.chunk import BandChunk
from xee_tf.reading.opened import Margins, OpenedExport
from xee_tf.sidecars import BandSpec

__all__ = ["BandArray", "band_dims", "dask_arrays", "preferred_chunks"]

_SIDE = 1024  # side of a chunk in pixels, rounded up to whole patches
_PIXELS = 1 << 20  # pixels of a chunk whose width is fixed
_STREAMS = 8  # gzip streams to read in parallel


def raster_shape(export: OpenedExport, margins: Margins) -> dict[str, int]:
    """Return the dimensions and their lengths: (y, x), or (patch, y, x) if margins are kept."""
    if margins == "keep":
        height, width = export.grid.stored.shape
        return {"patch": len(export.grid), "y": height, "x": width}
    height, width = export.grid.covered.shape
    return {"y": height, "x": width}


def band_dims(band: BandSpec, margins: Margins) -> tuple[str, ...]:
    """Return the dimensions of a band in order; extra dimensions come before y and x."""
    return (*(("patch",) if margins == "keep" else ()), *band.dims, "y", "x")


def preferred_chunks(export: OpenedExport, margins: Margins) -> dict[str, int]:
    """Return the default chunk sizes: whole patches, 1024 to 2048 pixels per side, less for deep bands.

    If a record can only be reached by decompressing all records before it, chunks are as wide as the raster,
    because adjacent chunks would need to decompress the same bytes.
    """
    grid, shape = export.grid, raster_shape(export, margins)
    depth = max(band.depth for band in export.bands)
    pixels, side = _PIXELS // depth, math.isqrt(_SIDE**2 // depth)
    if margins == "keep":
        return {**shape, "patch": min(len(grid), max(1, pixels // grid.stored.pixels))}
    patch = grid.patch
    if export.sequential:
        rows = max(1, pixels // (patch.y * shape["x"]))
        return {"y": min(shape["y"], rows * patch.y), "x": shape["x"]}
    return {
        name: min(shape[name], max(1, -(-side // length)) * length)
        for name, length in (("y", patch.y), ("x", patch.x))
    }


class BandArray(BackendArray):
    """A band of an export that is read when it is indexed."""

    def __init__(self, export: OpenedExport, name: str, margins: Margins) -> None:
        band, lengths = export.band(name), tuple(raster_shape(export, margins).values())
        self.shape = (*lengths[:-2], *band.shape, *lengths[-2:])
        self.dtype = export.dtypes[name]
        self._number = export.bands.index(band)
        self._raster = BandChunk(export, tuple((0, length) for length in lengths), together=False)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> npt.NDArray[Any]:
        return self._raster[(self._number, *key)]


def dask_arrays(
    export: OpenedExport, margins: Margins, chunks: int | str | Mapping[Hashable, Any] | tuple[Any, ...]
) -> dict[str, Array]:
    """Return a Dask array for each band; one task reads all bands of a chunk.

    `chunks` is the same as in `xarray.open_dataset`; dimensions that it does not contain have the default
    chunks. Extra dimensions of array bands are read as a whole and rechunked afterwards if requested.
    """
    shape, preferred = raster_shape(export, margins), preferred_chunks(export, margins)
    largest = max(band.depth * export.dtypes[band.name].itemsize for band in export.bands)
    requested: Any = chunks
    _check_chunks(chunks, {*shape, *(dim for band in export.bands for dim in band.dims)})
    if isinstance(chunks, Mapping):
        requested = tuple(preferred[name] if chunks.get(name) is None else chunks[name] for name in shape)
    previous = tuple((preferred[name],) for name in shape)
    pixel = np.dtype((np.void, largest))  # determines the size of "auto" chunks
    with _chunk_errors(chunks):
        sizes = normalize_chunks(requested, tuple(shape.values()), dtype=pixel, previous_chunks=previous)
    token = tokenize(
        export.grid,
        export.shards,
        export.bands,
        export.layout,
        export.dtypes,
        export.verify,
        margins,
        sizes,
        export.masked,
    )
    order = None
    if export.sequential:  # seeking backwards in a gzip stream is expensive
        order = partial(_task_priority, export.grid, [shard.first for shard in export.shards])
    found = arrays_of_boxes(
        f"tfrecord-{token}",
        replace(export, share=False),
        BandChunk,
        [ArraySpec(band.name, export.dtypes[band.name], band.shape) for band in export.bands],
        sizes,
        order=order,
    )
    arrays = {}
    front = len(shape) - 2  # 1 for the patch axis if margins are kept, else 0
    for band, array in zip(export.bands, found, strict=True):
        sizes_of_dims = {
            front + axis: chunks if isinstance(chunks, int) else chunks[dim]
            for axis, dim in enumerate(band.dims)
            if isinstance(chunks, int) or (isinstance(chunks, Mapping) and chunks.get(dim) is not None)
        }
        with _chunk_errors(chunks):
            arrays[band.name] = array.rechunk(sizes_of_dims) if sizes_of_dims else array
    return arrays


def _check_chunks(chunks: Any, dims: Collection[str]) -> None:
    """Check the dimensions and numbers in the option; Dask checks the rest."""
    given: dict[Any, Any] = {None: chunks}
    if isinstance(chunks, Mapping):
        given = dict(chunks)
        if unknown := [name for name in chunks if name not in dims]:
            raise OptionError(
                f"chunks contains {unknown[0]!r}, which is not a dimension of these bands; available: "
                f"{quoted(sorted(dims))}."
            )
    for name, value in given.items():
        option = "chunks" if name is None else f"chunks[{name!r}]"
        for size in value if isinstance(value, tuple | list) else [value]:
            if isinstance(size, bool) or (is_number(size) and not (size >= 1 or size == -1)):
                raise OptionError(
                    f"{option} must be a number of pixels of at least 1, or -1 for one chunk; got "
                    f"{shorten(repr(value))}."
                )


@contextmanager
def _chunk_errors(chunks: Any) -> Iterator[None]:
    """Convert errors from Dask to errors that name the option."""
    try:
        yield
    except (TypeError, ValueError, ZeroDivisionError) as error:
        reason = str(error).rstrip(".")
        raise OptionError(f"chunks={shorten(repr(chunks))} is not valid: {reason}.") from error


def _task_priority(
    grid: PatchGrid, firsts: Sequence[int], box: Sequence[tuple[int, int]]
) -> tuple[int, int, int]:
    """Return the sort key of a chunk: groups of shards in order, and forward within each shard of a group."""
    start = box[0][0] if len(box) == 3 else box[0][0] // grid.patch.y * grid.patches_per_row
    shard = bisect_right(firsts, start) - 1
    return shard // _STREAMS, start - firsts[shard], shard
