"""Check that the chunks of the planes of blocks are what Dask declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.blocks import ChunkGrid
from xee_tf.chunks import checked_chunk
from xee_tf.graph.tasks import ChunkedArray

__all__ = ["DeclaredPlane", "declared_planes"]


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
            See `xee_tf.chunks.checked_chunk`.

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
