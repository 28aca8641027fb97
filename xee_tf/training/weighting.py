"""Weights of examples: from masks, from the numbers of pixels of classes, and from bands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xee_tf.errors import OptionError, excerpt, shorten
from xee_tf.options import is_number, read_names
from xee_tf.reading import OpenedExport

__all__ = [
    "ClassWeight",
    "SampleWeight",
    "Weighting",
    "balanced_weights",
    "class_counts",
    "read_class_weight",
]

SampleWeight = str | Sequence[str]
"""``"mask"``, or bands whose values are multiplied."""

ClassWeight = Literal["balanced"] | Mapping[int, float]
"""``"balanced"``, or the weight of each class."""


@dataclass(frozen=True)
class Weighting:
    """What the weights of examples are computed from.

    Parameters
    ----------
    mask : bool
        Whether masked targets have the weight 0.
    bands : tuple of str
        Bands whose values are weights.
    classes : mapping or "balanced", optional
        The weight of each class.
    """

    mask: bool = False
    bands: tuple[str, ...] = ()
    classes: Mapping[float, float] | Literal["balanced"] | None = None

    @classmethod
    def of(cls, sample_weight: SampleWeight | None, class_weight: ClassWeight | None) -> Weighting | None:
        """Parse the options `sample_weight` and `class_weight`; None if there are no weights.

        Examples
        --------
        >>> Weighting.of("mask", {0: 1, 3: 2.5})
        Weighting(mask=True, bands=(), classes={0.0: 1.0, 3.0: 2.5})
        >>> Weighting.of(["quality"], None).bands
        ('quality',)
        """
        if sample_weight is None and class_weight is None:
            return None
        mask = isinstance(sample_weight, str) and sample_weight == "mask"
        bands = (
            () if mask or sample_weight is None else read_names(sample_weight, "sample_weight", ["quality"])
        )
        return cls(mask, bands, None if class_weight is None else read_class_weight(class_weight))


def read_class_weight(value: Any) -> Mapping[float, float] | Literal["balanced"]:
    """Parse the option `class_weight`."""
    if isinstance(value, str) and value == "balanced":
        return "balanced"
    if not isinstance(value, Mapping) or not value or not all(map(is_number, value)):
        raise OptionError(
            "class_weight must be 'balanced', or a mapping from class numbers to weights such as "
            f"{{0: 1, 1: 5}}; got {excerpt(value)}."
        )
    for key, weight in value.items():
        if not (is_number(weight) and math.isfinite(weight) and weight >= 0):
            raise OptionError(
                f"class_weight[{key!r}] must be a finite number of at least 0; got {shorten(repr(weight))}."
            )
    return {float(key): float(weight) for key, weight in value.items()}


def balanced_weights(exports: Sequence[OpenedExport], name: str) -> dict[float, float]:
    """Return weights with which all classes of a band count equally, and whose mean over all pixels is 1."""
    counts = class_counts(exports, name, "class_weight='balanced'", "class_weight={0: 1, 1: 5}")
    total = sum(counts.values())
    return {float(value): total / (len(counts) * count) for value, count in sorted(counts.items())}


def class_counts(
    exports: Sequence[OpenedExport], name: str, option: str, instead: str, *, margins: bool = False
) -> dict[int, int]:
    """Return the number of pixels of each class of a band that occurs in the exports.

    With `margins`, also of classes that occur only in margins, whose pixels are not counted.

    Raises
    ------
    OptionError
        If the manifests have no numbers of pixels of the classes.
    """
    counts: dict[int, int] = {}
    for export in exports:
        known = (export.statistics or {}).get(name)
        if known is None or (known.classes is None and known.count):
            raise OptionError(
                f"{option} needs the class counts of {name!r} in the manifest, but {export} has none: they "
                f"are written for integer bands of images with few values. Convert the band before the "
                f"export, for example with astype('uint8'), or pass a value such as {instead}."
            )
        for value, count in (known.classes or {}).items():
            counts[value] = counts.get(value, 0) + count
    counts = {value: count for value, count in counts.items() if count or margins}
    if not any(counts.values()):
        raise OptionError(f"{option}: all pixels of {name!r} are masked. Pass a value such as {instead}.")
    return counts
