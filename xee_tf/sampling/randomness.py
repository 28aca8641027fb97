"""Reproducible random numbers that depend only on a seed and on what they are for, never on chunks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["random_numbers"]


def random_numbers(seed: int, *parts: ArrayLike) -> NDArray[np.uint64]:
    """Return a random number for each item, which is identified by one or more integers.

    Parameters
    ----------
    seed : int
        The seed; of larger integers, the lowest 64 bits are used.
    *parts : array-like of int
        Arrays of the same length: the row and the column of a pixel, or the number of a patch.

    Examples
    --------
    >>> first, second = random_numbers(0, [3, 5]), random_numbers(0, [5])
    >>> first[1] == second[0], first[0] == random_numbers(1, [3])[0]
    (np.True_, np.False_)
    """
    state = np.full(len(np.asarray(parts[0])), seed & 0xFFFFFFFFFFFFFFFF, np.uint64)
    for part in parts:  # splitmix64
        state += np.asarray(part).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state
