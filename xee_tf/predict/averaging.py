"""Averages of predictions: over tiles that overlap, and over the eight symmetries of a square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays
from xee_tf.geometry import PatchGrid, Size

__all__ = ["SPREAD", "Blend", "augmented", "blend_weights"]

SPREAD = "_spread"
"""Suffix of the bands that hold the standard deviation over the symmetries."""

Blend = Literal["crop", "hann"]
Call = Callable[[Arrays], Arrays]


def blend_weights(
    grid: PatchGrid, output: Size, overlap: Size, rows: range, columns: range
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weights of the outputs of tiles along y and along x; those of all tiles add up to 1 in every pixel.

    They rise as a squared sine over the pixels that neighbours share. (Our choice; where a tile overlaps
    more than its neighbours, all of them are weighed against each other.)

    Returns
    -------
    tuple of ndarray
        For the rows and for the columns of tiles, (tiles, pixels of a tile with its overlap).

    Examples
    --------
    >>> grid = PatchGrid(Size(x=8, y=4), Size(x=4, y=4), Size(x=1, y=1))
    >>> blend_weights(grid, grid.patch, grid.margin, range(1), range(2))[1].round(2)
    array([[1.  , 1.  , 1.  , 1.  , 0.85, 0.15],
           [0.15, 0.85, 1.  , 1.  , 1.  , 1.  ]], dtype=float32)
    """
    return (
        _weights(output.y, overlap.y, grid.rows, rows),
        _weights(output.x, overlap.x, grid.patches_per_row, columns),
    )


def _weights(side: int, overlap: int, tiles: int, wanted: range) -> npt.NDArray[np.float32]:
    if not overlap:
        return np.ones((len(wanted), side), np.float32)
    length = side + 2 * overlap
    rise = np.minimum((np.arange(length) + 0.5) / (2 * overlap), 1)
    weight = np.sin(rise * np.pi / 2) ** 2
    weight = weight * weight[::-1]
    # Pixel p of a tile is pixel p - shift * side of the tile that many further on, if there is one.
    numbers = np.array(wanted)
    total = np.zeros((len(wanted), length))
    for shift in range(-((length - 1) // side), (length - 1) // side + 1):
        begin, end = max(0, shift * side), min(length, length + shift * side)
        there = (numbers + shift >= 0) & (numbers + shift < tiles)
        total[there, begin:end] += weight[begin - shift * side : end - shift * side]
    return np.asarray(weight / total, np.float32).reshape(len(wanted), length)


def augmented(call: Call) -> Call:
    """Call with tiles turned and mirrored, turn the answers back, and average them.

    Parameters
    ----------
    call : callable
        From and to arrays ``(n, height, width, ...)`` of square tiles.

    Returns
    -------
    callable
        Answers each band with the mean over the symmetries, and beside it, under its name and "_spread",
        their standard deviation.

    Examples
    --------
    >>> tile = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    >>> answer = augmented(lambda tiles: {"b": tiles["b"][:, :, :1].repeat(2, 2)})({"b": tile})
    >>> answer["b"].tolist()
    [[[1.75, 2.25], [2.75, 3.25]]]
    """

    def average(tiles: Arrays) -> dict[str, npt.NDArray[Any]]:
        mean: dict[str, npt.NDArray[Any]] = {}
        squares: dict[str, npt.NDArray[Any]] = {}
        for number in range(8):
            turned = call({name: _turn(values, number) for name, values in tiles.items()})
            for name, values in turned.items():
                back = _turn_back(values, number)
                if name not in mean:
                    mean[name], squares[name] = back.copy(), np.zeros_like(back)
                    continue
                away = back - mean[name]
                mean[name] += away / (number + 1)
                squares[name] += away * (back - mean[name])
        return mean | {name + SPREAD: np.sqrt(values / 8) for name, values in squares.items()}

    return average


def _turn(values: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
    turned = np.rot90(values, number % 4, axes=(1, 2))
    return turned[:, :, ::-1] if number >= 4 else turned


def _turn_back(values: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
    return np.rot90(values[:, :, ::-1] if number >= 4 else values, -(number % 4), axes=(1, 2))
