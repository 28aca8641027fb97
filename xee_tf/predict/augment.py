"""Predictions averaged over the eight symmetries of a square, and how much these disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SPREAD", "augmented"]

SPREAD = "_spread"
"""Ends the names of bands that say how much the symmetries disagree."""

Call = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]


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

    def average(tiles: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
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
