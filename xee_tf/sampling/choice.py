"""Sampled pixels, and reproducible random selection of a number of pixels per class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from xee_tf.errors import OptionError, shorten
from xee_tf.options import integer
from xee_tf.sampling.places import Indices
from xee_tf.sampling.randomness import random_numbers
from xee_tf.sidecars import SampleCounts, TableColumn

__all__ = ["Choice", "Sample", "first_plane"]

_SHOWN_CLASSES = 20  # in a message; per block in an error


@dataclass(frozen=True)
class Sample:
    """Sampled pixels: the feature, row and column of each pixel, and its values in every plane.

    `counts` are the numbers of pixels before some were omitted. `classes` are some of the classes that a
    `Choice` found in a band, for an error message.
    """

    numbers: Indices
    rows: Indices
    columns: Indices
    values: npt.NDArray[np.float64]
    counts: SampleCounts = field(default_factory=SampleCounts)
    classes: frozenset[float] = frozenset()

    def __getitem__(self, chosen: Any) -> Sample:
        parts = (self.numbers[chosen], self.rows[chosen], self.columns[chosen], self.values[chosen])
        return Sample(*parts, self.counts, self.classes)


@dataclass(frozen=True)
class Choice:
    """A selection of pixels: for each class the `n` pixels with the smallest random numbers.

    The random number of a pixel depends only on its position and the seed, so that blocks can be processed
    independently.
    """

    quota: int | dict[Any, int]
    band: str | None
    classes: npt.NDArray[Any] | None
    seed: int

    @classmethod
    def of(
        cls, n: Any, class_band: str | None, seed: int, bands: list[str], table: pd.DataFrame
    ) -> Choice | None:
        """Create a selection from user options; return None if all pixels are to be sampled.

        Parameters
        ----------
        n, class_band, seed
            As for `xee_tf.sample_table`.
        bands : list of str
            Scalar bands, which can be class bands.
        table : DataFrame
            Properties of the features.

        Raises
        ------
        OptionError
            If an option is invalid.
        """
        seed = integer()(seed, "seed")
        if not (class_band is None or isinstance(class_band, str)):
            raise OptionError(
                f"class_band must be the name of a band or property; got {shorten(repr(class_band))}."
            )
        if n is None:
            if class_band is not None:
                raise OptionError(
                    f"class_band={class_band!r} requires n=, the number of pixels to sample per class."
                )
            return None
        quota: int | dict[Any, int] = (
            {key: integer(0)(count, f"n[{key!r}]") for key, count in n.items()}
            if isinstance(n, Mapping)
            else integer(0)(n, "n")
        )
        if not any(quota.values() if isinstance(quota, dict) else [quota]):
            raise OptionError(f"n={shorten(repr(n))} selects no pixels: pass at least 1 for one class.")
        classes = None
        if class_band is None:
            if isinstance(quota, dict):
                raise OptionError(
                    "n is given per class: pass the band or property that holds the classes as class_band=."
                )
        elif class_band in table.columns:
            classes = table[class_band].to_numpy(object)
            if isinstance(quota, dict) and not set(quota) & set(classes.tolist()):
                raise OptionError(f"None of the classes {list(quota)} occurs in the property {class_band!r}.")
        elif class_band not in bands:
            raise OptionError(
                f"class_band={class_band!r} not found; available bands: {bands}, properties: "
                f"{list(table.columns)}."
            )
        band = class_band if classes is None else None
        return cls(quota, band, classes, seed)

    def __call__(self, sample: Sample, columns: Sequence[TableColumn]) -> Sample:
        """Select pixels from a sample; selecting again from merged selections gives the same result."""
        codes, uniques = pd.factorize(self._kinds(sample, columns))
        # A missing class (code -1) has the limit 0, the last one.
        quotas = [self.quota.get(u, 0) if isinstance(self.quota, dict) else self.quota for u in uniques]
        limits = np.array([*quotas, 0], np.int64)[codes]
        random = random_numbers(self.seed, sample.numbers, sample.rows, sample.columns)
        order = np.lexsort((sample.columns, sample.rows, sample.numbers, random, codes))
        starts = np.flatnonzero(np.diff(codes[order], prepend=-2))
        ranks = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        if self.band is not None:
            found = frozenset(np.sort(uniques)[:_SHOWN_CLASSES].tolist())
            sample = replace(sample, classes=sample.classes | found)
        return sample[np.sort(order[ranks < limits[order]])]

    def short(self, chosen: Sample, columns: Sequence[TableColumn]) -> SampleCounts:
        """Return the classes of which fewer pixels were selected than asked for: there are no others."""
        codes, uniques = pd.factorize(self._kinds(chosen, columns))
        counts = np.bincount(codes[codes >= 0], minlength=len(uniques)).tolist()
        found = dict(zip(uniques.tolist(), counts, strict=True))
        if isinstance(self.quota, dict):
            asked = self.quota
        else:
            # Features of a class may all be masked; which classes a band has is known from its pixels only.
            known = found if self.classes is None else pd.unique(self.classes[~pd.isna(self.classes)])
            asked = dict.fromkeys(known if self.has_classes else [0.0], self.quota)
        short = {kind: (n, found.get(kind, 0)) for kind, n in asked.items() if found.get(kind, 0) < n}
        names = (f"{kind:.15g}" if isinstance(kind, float) else str(kind) for kind in short)
        shown = [
            (name if self.has_classes else "", n, available)
            for name, (n, available) in zip(names, short.values(), strict=True)
        ]
        return SampleCounts(short=tuple(shown[:_SHOWN_CLASSES]), classes_short=len(short))

    @property
    def has_classes(self) -> bool:
        """Whether pixels have different classes."""
        return self.classes is not None or self.band is not None

    def _kinds(self, sample: Sample, columns: Sequence[TableColumn]) -> npt.NDArray[Any]:
        """Return the class of each pixel."""
        if self.classes is not None:
            kinds: npt.NDArray[Any] = self.classes[sample.numbers]
            return kinds
        if self.band is not None:
            return sample.values[:, first_plane(columns, self.band)]
        return np.zeros(len(sample.numbers))


def first_plane(columns: Sequence[TableColumn], name: str) -> int:
    """Return the index of a band's first plane; each column has one plane per value."""
    names = [column.name for column in columns]
    return sum(math.prod(column.shape) for column in columns[: names.index(name)])
