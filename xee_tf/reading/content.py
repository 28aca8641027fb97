"""What the records of an export hold: features, bands with their depths, margins, patches or pixels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import clamp
from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import Size
from xee_tf.options import read_depths
from xee_tf.records import (
    FRAMING,
    Feature,
    RecordLayout,
    decode_sequence_example,
    read_layout,
    read_sequence_layout,
)
from xee_tf.shards import Shard, first_record
from xee_tf.sidecars import BandSpec, ImageManifest, dim_lengths, distinct_dims

__all__ = [
    "NO_MARGIN",
    "PIXEL",
    "Content",
    "FirstRecord",
    "Unit",
    "band_names",
    "check_depths",
    "choose_bands",
    "choose_features",
    "feature_depths",
    "fitting_fill",
    "read_order",
    "with_depths",
]

PIXEL = Size(x=1, y=1)
NO_MARGIN = Size(x=0, y=0)

Unit = Literal["patch", "pixel"]
"""What a record, or a training example, is."""


@dataclass(frozen=True, eq=False)
class Content:
    """What each record of an export holds.

    Parameters
    ----------
    layout : RecordLayout
        The features of a record, in its order.
    bands : tuple of BandSpec
        The bands in these features.
    margin : Size
        Pixels on every side of a stored patch that are not its own.
    unit : {"patch", "pixel"}, optional
        What a record is. "pixel" includes rows of a table. None: pixels of a patch of unknown shape.
    coords : mapping from dimension to ndarray
        Coordinates of the bands' further dimensions.
    fill : float
        The value of the steps that a SequenceExample lacks.
    labels : mapping from feature to int
        Features beside patches that hold so many values of the whole record: labels, coordinates, texts.
    absent : frozenset of str
        Features that some of the records lack, as far as records were looked at.
    ragged : frozenset of str
        Features whose lists differ in length, as far as records were looked at.
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
        """Values per pixel of each feature."""
        return feature_depths(self.bands)


def feature_depths(bands: Sequence[BandSpec]) -> dict[str, int]:
    """Values per pixel of the features that hold some bands."""
    depths: dict[str, int] = {}
    for band in bands:
        depths[band.feature] = max(depths.get(band.feature, 0), band.first + band.depth)
    return depths


@dataclass(frozen=True, eq=False)
class FirstRecord:
    """The first record of some shards: its shard, and its message; None if no shard holds a record."""

    shard: Shard
    data: bytes | None

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> Self:
        """The first record of the first shard that holds one."""
        for shard in shards:
            data = first_record(shard)
            if data is not None:
                return cls(shard, data)
        return cls(shards[0], None)

    @property
    def size(self) -> int | None:
        """Bytes of the record and its framing."""
        return None if self.data is None else len(self.data) + FRAMING

    @contextmanager
    def named(self) -> Iterator[None]:
        """A context in which errors about records name this one."""
        try:
            yield
        except RecordError as error:
            raise RecordError(f"{self.shard}: record 0: {error}") from None


def read_order(data: bytes) -> tuple[RecordLayout, dict[str, int]]:
    """All features of a record, and the steps of its series."""
    _, series = decode_sequence_example(data)
    if not series:
        return read_layout(data), {}
    return read_sequence_layout([data]), {name: len(steps) for name, steps in series.items()}


def fitting_fill(value: float, feature: Feature) -> float:
    """The value of absent steps in a type that may not hold it: clamped, as in an export."""
    return value if feature.kind == "float" else clamp(value, np.dtype(feature.dtype))


def choose_features(layout: RecordLayout, names: Sequence[str]) -> RecordLayout:
    """The named features of a record, in that order."""
    parts = (layout.context, layout.sequences or ())
    known = [{feature.name: feature for feature in part} for part in parts]
    context, sequences = (tuple(part[name] for name in names if name in part) for part in known)
    return RecordLayout(context, None if layout.sequences is None else sequences)


def band_names(option: str, names: str | Sequence[str]) -> list[str]:
    """The names that an option lists; a single name is a list of one."""
    if not isinstance(names, Iterable):
        raise OptionError(f"{option} must be names of bands, such as ['B4', 'B3']; got {names!r}.")
    return [names] if isinstance(names, str) else list(names)


def choose_bands(known: Sequence[str], wanted: str | Sequence[str] | None) -> list[str]:
    """The names of the bands that are wanted, all by default."""
    if wanted is None:
        return list(known)
    names = band_names("bands", wanted)
    listed = ", ".join(map(repr, known))
    for name in names:
        if name not in known:
            raise OptionError(f"There is no band {name!r}; there are {listed}.")
        if names.count(name) > 1:
            raise OptionError(f"The band {name!r} is there twice in bands.")
    if not names:
        raise OptionError(f"bands is empty; there are {listed}.")
    return names


def check_depths(given: Any, names: Collection[str]) -> dict[str, int]:
    """The depths of bands that a user gives."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OptionError(f"tensor_depths must be a mapping such as {{'ndvi': 3}}; got {given!r}.")
    for name in given:
        if name not in names:
            raise OptionError(
                f"tensor_depths has {name!r}, which is not a band that is read; those are {list(names)}."
            )
    return read_depths(given)


def with_depths(manifest: ImageManifest, given: Mapping[str, int]) -> ImageManifest:
    """A manifest in which the depths that a user gives replace those of their bands.

    A band whose depth is that of the manifest keeps its dimensions; so do all other bands.
    """
    features = [band.feature for band in manifest.bands]
    bands = []
    for band in manifest.bands:
        depth = given.get(band.name, band.depth)
        collapsed = features.count(band.feature) > 1
        if collapsed and depth != band.depth:
            raise OptionError(
                f"Band {band.name!r} has {band.depth} values per pixel, not {depth} (tensor_depths), "
                "and is one of several bands that were collapsed. Leave it out."
            )
        new = band.name in given and not collapsed and (depth != band.depth or not band.dims)
        bands.append(replace(band, dims=("depth",), shape=(depth,)) if new else band)
    bands = list(distinct_dims(bands))
    lengths = dim_lengths(bands)
    coords = {dim: values for dim, values in manifest.coords.items() if lengths.get(dim) == len(values)}
    return replace(manifest, bands=tuple(bands), coords=coords)
