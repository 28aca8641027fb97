"""Check that chunks are what Dask declares.

A chunk of another shape or dtype would be broadcast, cropped or wrapped silently. Dask does not compare what
a function returns with the ``dtype`` and ``chunks`` that `dask.array.map_blocks` was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.blocks import ChunkGrid
from xee_tf.errors import ChunkError
from xee_tf.graph.tasks import ChunkedArray

__all__ = ["DeclaredPlane", "checked_chunk", "declared_planes"]


@dataclass(frozen=True)
class DeclaredPlane:
    """What Dask declares of the chunks of a plane.

    Parameters
    ----------
    band : str
        Name of the band, for error messages.
    dtype : numpy.dtype
        The dtype of the chunks.
    steps : tuple of int
        Length of the axes before y and x: empty, or one number.
    """

    band: str
    dtype: np.dtype[Any]
    steps: tuple[int, ...] = ()

    def checked(self, grid: ChunkGrid, iy: int, ix: int, values: Any) -> NDArray[Any]:
        """Return a chunk in the declared dtype.

        Raises
        ------
        ChunkError
            If it is no numpy array, or has another shape, or a dtype whose values the declared dtype may not
            be able to hold.

        Examples
        --------
        >>> plane, grid = DeclaredPlane("B4", np.dtype("f4")), ChunkGrid((0, 2), (0, 2), 4)
        >>> plane.checked(grid, 0, 0, np.ones((2, 2), "u1")).dtype
        dtype('float32')
        """
        window = grid.window(iy, ix)
        where = (
            f"chunk ({iy}, {ix}), with the rows {window.top} to {window.bottom - 1} and the columns "
            f"{window.left} to {window.right - 1},"
        )
        shape = (*self.steps, *window.shape)
        return checked_chunk(f"Band {self.band!r}: {where}", values, shape, self.dtype)


def checked_chunk(named: str, values: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a chunk in the declared dtype; raise an error as `DeclaredPlane.checked` does.

    Strings and objects may have any width. `named` names the band and the chunk in the message.
    """
    if not isinstance(values, np.ndarray) or isinstance(values, np.ma.MaskedArray):
        raise ChunkError(
            f"{named} is a {type(values).__name__} instead of a numpy array. Convert what the function "
            "returns: masked arrays with .filled(...), others with numpy.asarray."
        )
    if values.shape != shape:
        raise ChunkError(
            f"{named} has the shape {values.shape} instead of {shape}, which its array declares. Declare the "
            "chunks that the function returns: `chunks` of dask.array.map_blocks."
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


def declared_planes(arrays: Sequence[ChunkedArray], bands: Sequence[str]) -> tuple[DeclaredPlane, ...]:
    """Return what arrays (y, x) and (step, y, x) declare of their planes; one band for each array."""
    return tuple(
        chain.from_iterable(
            (DeclaredPlane(band, array.dtype, (steps,)) for steps in array.chunks[0])
            if array.ndim == 3
            else repeat(DeclaredPlane(band, array.dtype), 1)
            for array, band in zip(arrays, bands, strict=True)
        )
    )
