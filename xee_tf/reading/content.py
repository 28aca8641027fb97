"""Description of the records of an export: features, bands, margins, and what a record represents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import clamp
from xee_tf.geometry import Size
from xee_tf.records import Feature, RecordLayout
from xee_tf.sidecars import BandSpec

__all__ = ["NO_MARGIN", "PIXEL", "Content", "Unit", "choose_features", "feature_depths", "fit_fill_value"]

PIXEL = Size(x=1, y=1)
NO_MARGIN = Size(x=0, y=0)

Unit = Literal["patch", "pixel"]
"""What a record, or a training example, represents."""


@dataclass(frozen=True, eq=False)
class Content:
    """The content of each record of an export.

    Parameters
    ----------
    layout : RecordLayout
        The features of a record, in the order of the record.
    bands : tuple of BandSpec
        The bands in these features.
    margin : Size
        Margin of a stored patch on every side, in pixels.
    unit : {"patch", "pixel"}, optional
        What a record represents. "pixel" includes rows of a table. None means the pixels of a patch of
        unknown shape.
    coords : mapping from dimension to ndarray
        Coordinates of the extra dimensions of the bands.
    fill : float
        The value of steps that a SequenceExample lacks.
    labels : mapping from feature to int
        Number of values of features that belong to the whole record rather than to pixels of its patch:
        labels, coordinates, text.
    absent : frozenset of str
        Features that some of the inspected records lack.
    ragged : frozenset of str
        Features whose lists differ in length among the inspected records.
    """

    layout: RecordLayout
    bands: tuple[BandSpec, ...]
    margin: Size = NO_MARGIN
    unit: Unit | None = "patch"
    coords: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    fill: float = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    ragged: frozenset[str] = frozenset()

    @cached_property
    def depths(self) -> dict[str, int]:
        """Number of values per pixel of each feature."""
        return feature_depths(self.bands)


def feature_depths(bands: Sequence[BandSpec]) -> dict[str, int]:
    """Return the number of values per pixel of the features that store the given bands."""
    depths: dict[str, int] = {}
    for band in bands:
        depths[band.feature] = max(depths.get(band.feature, 0), band.first + band.depth)
    return depths


def choose_features(layout: RecordLayout, names: Sequence[str]) -> RecordLayout:
    """Return the layout with only the named features, in that order."""
    parts = (layout.context, layout.sequences or ())
    known = [{feature.name: feature for feature in part} for part in parts]
    context, sequences = (tuple(part[name] for name in names if name in part) for part in known)
    return RecordLayout(context, None if layout.sequences is None else sequences)


def fit_fill_value(value: float, feature: Feature) -> float:
    """Return the value of missing steps in the dtype of a feature, clamped to its range as in an export."""
    return value if feature.kind == "float" else clamp(value, np.dtype(feature.dtype))
