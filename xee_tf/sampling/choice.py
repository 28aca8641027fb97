"""Sampled pixels, and the choice of some of them: a number of each class, at random, the same every time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from xee_tf.errors import OptionError
from xee_tf.options import whole
from xee_tf.sampling.places import Indices
from xee_tf.sidecars import TableColumn

__all__ = ["Choice", "Sample", "first_plane"]


@dataclass(frozen=True)
class Sample:
    """Sampled pixels: feature, row and column of each, and its values in every plane.

    `dropped` counts those that were left out because they are masked.
    """

    numbers: Indices
    rows: Indices
    columns: Indices
    values: npt.NDArray[np.float64]
    dropped: int = 0

    def __getitem__(self, chosen: Any) -> Sample:
        parts = (self.numbers[chosen], self.rows[chosen], self.columns[chosen], self.values[chosen])
        return Sample(*parts, self.dropped)


@dataclass(frozen=True)
class Choice:
    """Which pixels are taken of all that could be: the `n` of each class with the smallest random numbers.

    The number of a pixel is made of its place and the seed, so that each block can choose by itself.
    """

    quota: int | dict[Any, int]
    band: str | None
    classes: npt.NDArray[Any] | None
    seed: int

    @classmethod
    def of(
        cls, n: Any, class_band: str | None, seed: int, bands: list[str], table: pd.DataFrame
    ) -> Choice | None:
        """From what a user gave; None where all pixels are taken.

        Parameters
        ----------
        n, class_band, seed
            As for `xee_tf.sample_table`.
        bands : list of str
            Bands of single values: those that can hold a class.
        table : DataFrame
            Properties of the features.

        Raises
        ------
        OptionError
            That names the option and what was expected.
        """
        seed = whole()(seed, "seed")
        if n is None:
            if class_band is not None:
                raise OptionError(f"class_band={class_band!r} needs n=, the pixels to take of each class.")
            return None
        quota: int | dict[Any, int] = (
            {key: whole(0)(count, f"n[{key!r}]") for key, count in n.items()}
            if isinstance(n, Mapping)
            else whole(0)(n, "n")
        )
        classes = None
        if class_band is None:
            if isinstance(quota, dict):
                raise OptionError("n names classes: say which band or property holds them with class_band=.")
        elif class_band in table.columns:
            classes = table[class_band].to_numpy(object)
            if isinstance(quota, dict) and not set(quota) & set(classes.tolist()):
                raise OptionError(f"None of the classes {list(quota)} occurs in property {class_band!r}.")
        elif class_band not in bands:
            raise OptionError(
                f"class_band={class_band!r} is neither a band {bands} nor a property {list(table.columns)}."
            )
        band = class_band if classes is None else None
        return cls(quota, band, classes, seed)

    def __call__(self, sample: Sample, columns: Sequence[TableColumn]) -> Sample:
        """The chosen pixels of a sample; choosing from what others chose comes to the same."""
        kinds: npt.NDArray[Any] = np.zeros(len(sample.numbers))
        if self.classes is not None:
            kinds = self.classes[sample.numbers]
        elif self.band is not None:
            kinds = sample.values[:, first_plane(columns, self.band)]
        codes, uniques = pd.factorize(kinds)
        # A missing class (code -1) is none.
        quotas = [self.quota.get(u, 0) if isinstance(self.quota, dict) else self.quota for u in uniques]
        limits = np.array([*quotas, 0], np.int64)[codes]
        order = np.lexsort((sample.columns, sample.rows, sample.numbers, self._random(sample), codes))
        starts = np.flatnonzero(np.diff(codes[order], prepend=-2))
        ranks = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        return sample[np.sort(order[ranks < limits[order]])]

    def _random(self, sample: Sample) -> npt.NDArray[np.uint64]:
        state = np.full(len(sample.rows), self.seed & 0xFFFFFFFFFFFFFFFF, np.uint64)
        for part in (sample.numbers, sample.rows, sample.columns):  # splitmix64 over all that tells a pixel
            state += part.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
        return state


def first_plane(columns: Sequence[TableColumn], name: str) -> int:
    """The first plane of a band: columns have a plane for each of their values."""
    names = [column.name for column in columns]
    return sum(math.prod(column.shape) for column in columns[: names.index(name)])
