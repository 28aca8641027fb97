"""Check that chunks are what Dask declares.

A chunk of another shape or dtype would be broadcast, cropped or wrapped silently. Dask does not compare what
a function returns with the ``dtype`` and ``chunks`` that `dask.array.map_blocks` was given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from dask.tokenize import tokenize
from numpy.typing import NDArray

from xee_tf.errors import ChunkError

__all__ = ["check_chunks", "checked_chunk", "checks_chunks", "chunk_at"]

Array = TypeVar("Array", xr.Variable, xr.DataArray)

_PREFIX = "xee-tf-checked-"


def checked_chunk(named: str, values: Any, shape: Sequence[float], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a chunk in the declared dtype.

    Parameters
    ----------
    named : str
        The band and the chunk, for error messages.
    values : object
        The chunk.
    shape : sequence of float
        The declared shape; NaN where Dask does not know a length.
    dtype : numpy.dtype
        The declared dtype. Strings and objects may have any width.

    Raises
    ------
    ChunkError
        If it is no numpy array, or has another shape, or a dtype whose values the declared dtype may not be
        able to hold.

    Examples
    --------
    >>> checked_chunk("Band 'B4': chunk (0, 0)", np.ones((2, 2), "u1"), (2, 2), np.dtype("f4")).dtype
    dtype('float32')
    """
    if not isinstance(values, np.ndarray) or isinstance(values, np.ma.MaskedArray):
        raise ChunkError(
            f"{named} is a {type(values).__name__} instead of a numpy array. Convert what the function "
            "returns: masked arrays with .filled(...), others with numpy.asarray."
        )
    if len(values.shape) != len(shape) or any(
        length != declared and not math.isnan(declared)
        for length, declared in zip(values.shape, shape, strict=True)
    ):
        raise ChunkError(
            f"{named} has the shape {values.shape} instead of {tuple(shape)}, which its array declares. "
            "Declare the chunks that the function returns: `chunks` of dask.array.map_blocks."
        )
    plain: NDArray[Any] = np.asarray(values)  # a numpy.matrix has other rules of indexing
    if dtype.kind not in "biufcmM" or plain.dtype == dtype:
        return plain
    if not np.can_cast(plain.dtype, dtype, "safe"):
        raise ChunkError(
            f"{named} has the dtype {plain.dtype} instead of {dtype}, which its array declares. Declare the "
            "dtype that the function returns (`dtype` of dask.array.map_blocks, `output_dtypes` of "
            "xarray.apply_ufunc), or convert its result with astype."
        )
    return plain.astype(dtype)


def chunk_at(place: Sequence[slice], values: Any, band: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the chunk of a band at a place of its array; see `checked_chunk`.

    Examples
    --------
    >>> chunk_at((slice(0, 2), slice(4, 6)), np.ones((2, 2), "u1"), "B4", np.dtype("f4")).dtype
    dtype('float32')
    """
    named = f"Band {band!r}: the chunk at {tuple(each.start for each in place)}"
    return checked_chunk(named, values, tuple(each.stop - each.start for each in place), dtype)


def check_chunks(variable: Array, named: str, *, axes: int) -> Array:
    """Return a variable whose chunks are checked when they are loaded, before anything is selected from them.

    An index would silently select from a chunk that is longer than declared, and raise an error of numpy for
    one with fewer axes.

    Parameters
    ----------
    variable : Variable or DataArray
        Returned unchanged, and not loaded, if it has no chunks.
    named : str
        What it is, for error messages: ``"Band 'B4'"``.
    axes : int
        A variable with this number of axes or fewer is also returned unchanged: nothing is selected from it.

    Examples
    --------
    >>> import dask.array as da
    >>> wrong = da.zeros((2, 4, 4), chunks=2).map_blocks(lambda chunk: chunk[0], dtype="f8")
    >>> checked = check_chunks(xr.Variable(("time", "y", "x"), wrong), "Band 'B4'", axes=2)
    >>> checked.isel(time=0).values
    Traceback (most recent call last):
    xee_tf.errors.ChunkError: Band 'B4': chunk (...), with time 0 to 1, y ... to ... and x ... to ..., has ...
    """
    if variable.chunks is None or variable.ndim <= axes:
        return variable
    array = variable.data
    if checks_chunks(array.name):
        return variable
    dims = tuple(map(str, variable.dims))
    check = _Check(named, dims, tuple(map(_repetitions, array.chunks)), array.dtype)
    name = f"{_PREFIX}{tokenize(named, dims, array.name)}"
    meta = np.empty((0,) * array.ndim, array.dtype)
    return variable.copy(deep=False, data=array.map_blocks(check, dtype=array.dtype, meta=meta, name=name))


def checks_chunks(name: str) -> bool:
    """Return whether this is the name of an array of `check_chunks`."""
    return name.startswith(_PREFIX)


Repetitions = tuple[tuple[float, int], ...]
"""Chunk lengths, each with the number of times that it is repeated, so that tasks stay small."""


@dataclass(frozen=True)
class _Check:
    named: str
    dims: tuple[str, ...]
    chunks: tuple[Repetitions, ...]
    dtype: np.dtype[Any]

    def __call__(self, values: Any, block_id: tuple[int, ...]) -> NDArray[Any]:
        ranges = [_range(lengths, number) for lengths, number in zip(self.chunks, block_id, strict=True)]
        *others, last = (
            f"{dim} {start} to {stop - 1}" for dim, (start, stop) in zip(self.dims, ranges, strict=True)
        )
        where = f"{', '.join(others)} and {last}" if others else last
        named = f"{self.named}: chunk {block_id}, with {where},"
        return checked_chunk(named, values, tuple(stop - start for start, stop in ranges), self.dtype)


def _repetitions(lengths: Sequence[float]) -> Repetitions:
    return tuple((length, len(list(same))) for length, same in groupby(lengths))


def _range(lengths: Repetitions, number: int) -> tuple[float, float]:
    """Return the start and the stop of a chunk along an axis."""
    start: float = 0
    for length, count in lengths:
        if number < count:
            break
        start, number = start + length * count, number - count
    start += length * number
    return start, start + length
