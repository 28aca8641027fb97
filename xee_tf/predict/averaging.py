"""Average predictions over overlapping tiles and over the eight symmetries of a square."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays
from xee_tf.geometry import PatchGrid, Size
from xee_tf.names import SPREAD

__all__ = ["Blend", "average_symmetries", "blend_weights"]

Blend = Literal["crop", "hann"]
Call = Callable[[Arrays], Arrays]


def blend_weights(
    grid: PatchGrid, output: Size, overlap: Size, rows: range, columns: range
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the weights of tiles along y and x; the weights of all tiles add up to 1 in every pixel.

    Weights follow a squared sine over the pixels that neighboring tiles share. (Not defined by Earth Engine.
    If a tile overlaps more tiles than its direct neighbors, the weights of all of them are normalized.)

    Parameters
    ----------
    grid : PatchGrid
        All tiles.
    output, overlap : Size
        Size of a tile in the output and its overlap along each edge, in pixels.
    rows, columns : range
        Rows and columns of the tiles.

    Returns
    -------
    tuple of ndarray
        Arrays for the rows and the columns of tiles, of shape (tiles, pixels of a tile with its overlap).

    Examples
    --------
    >>> grid = PatchGrid(Size(x=8, y=4), Size(x=4, y=4), Size(x=1, y=1))
    >>> blend_weights(grid, grid.patch, grid.margin, range(1), range(2))[1].round(2)
    array([[1.  , 1.  , 1.  , 1.  , 0.85, 0.15],
           [0.15, 0.85, 1.  , 1.  , 1.  , 1.  ]], dtype=float32)
    """
    return (
        _axis_weights(output.y, overlap.y, grid.rows, rows),
        _axis_weights(output.x, overlap.x, grid.patches_per_row, columns),
    )


def _axis_weights(side: int, overlap: int, tiles: int, indices: range) -> npt.NDArray[np.float32]:
    if not overlap:
        return np.ones((len(indices), side), np.float32)
    length = side + 2 * overlap
    rise = np.minimum((np.arange(length) + 0.5) / (2 * overlap), 1)
    weight = np.sin(rise * np.pi / 2) ** 2
    weight = weight * weight[::-1]
    # Pixel p of tile i is pixel p - shift * side of tile i + shift, if that tile exists.
    index = np.array(indices)
    total = np.zeros((len(indices), length))
    for shift in range(-((length - 1) // side), (length - 1) // side + 1):
        begin, end = max(0, shift * side), min(length, length + shift * side)
        exists = (index + shift >= 0) & (index + shift < tiles)
        total[exists, begin:end] += weight[begin - shift * side : end - shift * side]
    return np.asarray(weight / total, np.float32).reshape(len(indices), length)


def average_symmetries(call: Call, spreads: Collection[str] | None = None) -> Call:
    """Wrap a call to predict rotated and mirrored tiles and average the predictions.

    Parameters
    ----------
    call : callable
        Takes and returns arrays ``(n, height, width, ...)`` of square tiles.
    spreads : collection of str, optional
        The bands of which the standard deviation is returned. Default: all.

    Returns
    -------
    callable
        Returns the mean of each band over the eight symmetries and the standard deviation in a second band
        with the suffix "_spread".

    Examples
    --------
    >>> tile = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    >>> average = average_symmetries(lambda tiles: {"b": tiles["b"][:, :, :1].repeat(2, 2)})
    >>> average({"b": tile})["b"].tolist()
    [[[1.75, 2.25], [2.75, 3.25]]]
    """

    def average(tiles: Arrays) -> dict[str, npt.NDArray[Any]]:
        mean: dict[str, npt.NDArray[Any]] = {}
        squares: dict[str, npt.NDArray[Any]] = {}
        for number in range(8):
            predicted = call({name: _transform(values, number) for name, values in tiles.items()})
            for name, transformed in predicted.items():
                values = _invert(transformed, number)
                if name not in mean:
                    mean[name] = values.copy()
                    if spreads is None or name in spreads:
                        squares[name] = np.zeros_like(values)
                    continue
                difference = values - mean[name]
                mean[name] += difference / (number + 1)
                if name in squares:
                    squares[name] += difference * (values - mean[name])
        return mean | {name + SPREAD: np.sqrt(values / 8) for name, values in squares.items()}

    return average


def _transform(values: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
    rotated = np.rot90(values, number % 4, axes=(1, 2))
    return rotated[:, :, ::-1] if number >= 4 else rotated


def _invert(values: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
    return np.rot90(values[:, :, ::-1] if number >= 4 else values, -(number % 4), axes=(1, 2))
