"""What a training pipeline reads: the shards of one or more exports, and what their records hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xee_tf.errors import MissingShardError, OptionError, RecordError
from xee_tf.geometry import Size
from xee_tf.reading.margins import infer_margin
from xee_tf.reading.reader import open_reader
from xee_tf.reading.shards import Shard, first_record, open_shards
from xee_tf.records.decoding import read_layout
from xee_tf.records.example import Feature
from xee_tf.storage import Location, PathLike

__all__ = ["Source", "Sources", "open_sources"]

Sources = PathLike | Location | Sequence[PathLike | Location]


@dataclass(frozen=True)
class Source:
    """The shards of one export, in order, and what their records hold.

    Parameters
    ----------
    shards : tuple of Shard
    features : tuple of Feature
        The bands that are wanted.
    stored : Size
        Pixels of a patch with its margins; where nothing tells, one long row of them.
    margin : Size
        Pixels on every side that are not the patch's own.
    shaped : bool
        Whether something tells the shape.
    records : int or None
        How many there are, where a mixer tells.
    record_bytes : int
        Bytes of a record, other bands included.
    """

    shards: tuple[Shard, ...]
    features: tuple[Feature, ...]
    stored: Size
    margin: Size
    shaped: bool
    records: int | None
    record_bytes: int

    def __str__(self) -> str:
        return self.shards[0].location.name

    @property
    def core(self) -> Size:
        """Pixels of a patch without its margins."""
        return Size(x=self.stored.x - 2 * self.margin.x, y=self.stored.y - 2 * self.margin.y)

    @property
    def content(self) -> str:
        """What a record holds, in words; sources that are read together must have the same."""
        bands = ", ".join(f"{feature.name} ({feature.kind})" for feature in self.features)
        return f"patches of {self.core.x} x {self.core.y} pixels and margins of {self.margin.xy} in {bands}"


def open_sources(
    sources: Sources,
    *,
    records: Sequence[PathLike] | None = None,
    bands: Sequence[str] | None = None,
    patch_dimensions: int | Sequence[int] | None = None,
    kernel_size: int | Sequence[int] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Source]:
    """Open what a user named: mixers, files, patterns; files that follow one another are one source.

    Parameters
    ----------
    bands : sequence of str, optional
        The bands that are wanted. Default: all.

    Others are those of `xee_tf.tf_dataset`.

    Raises
    ------
    OptionError
        If nothing is named, a band is not there, or options do not fit one another.
    MissingShardError, MixerError, RecordError
        If the files are not whole.
    """
    items = [sources] if isinstance(sources, (str, os.PathLike, Location)) else list(sources)
    if records is not None and len(items) != 1:
        raise OptionError(f"records go with a single mixer; got {len(items)} sources.")
    locations = [Location.of(item, storage_options) for item in items]
    opened: list[Source] = []
    files: list[Location] = []
    for location in locations:
        if records is None and not location.name.endswith("mixer.json"):
            files += _matching(location)
            continue
        if files:
            opened.append(_open_files(files, bands, patch_dimensions, kernel_size))
            files = []
        if patch_dimensions is not None:
            raise OptionError("patch_dimensions are for files without a mixer: the mixer has its own.")
        reader = open_reader(
            location, records, kernel_size=kernel_size, bands=bands, storage_options=storage_options
        )
        opened.append(
            Source(
                shards=reader.shards,
                features=reader.layout.features,
                stored=reader.grid.stored,
                margin=reader.grid.margin,
                shaped=True,
                records=len(reader.grid),
                record_bytes=reader.order.framed_size,
            )
        )
    if files:
        opened.append(_open_files(files, bands, patch_dimensions, kernel_size))
    if not opened:
        raise OptionError("There is nothing to read: name a mixer, TFRecord files, or a pattern of files.")
    return opened


def _matching(location: Location) -> list[Location]:
    if not any(sign in location.url for sign in "*?["):
        return [location]
    fs = location.fs
    paths = sorted(fs.glob(location.path))
    if not paths:
        raise MissingShardError(f"No file matches {location}.")
    return [Location(fs.unstrip_protocol(path), location.storage_options) for path in paths]


def _open_files(
    files: Sequence[Location],
    bands: Sequence[str] | None,
    patch_dimensions: int | Sequence[int] | None,
    kernel_size: int | Sequence[int] | None,
) -> Source:
    """Files without a mixer: their first record tells the bands, the user tells the shape."""
    shards = open_shards(files)
    data = next((record for record in map(first_record, shards) if record is not None), None)
    if data is None:
        raise RecordError(f"{shards[0]} holds no record.")
    layout = read_layout(data)
    features = {feature.name: feature for feature in layout.features}
    for band in bands or ():
        if band not in features:
            raise OptionError(f"There is no band {band!r}; there are {', '.join(map(repr, features))}.")
    chosen = tuple(features[band] for band in (features if bands is None else bands))
    size = chosen[0].size
    if bands and any(feature.size != size for feature in chosen):
        lengths = ", ".join(f"{feature.name!r} {feature.size}" for feature in chosen)
        raise OptionError(f"The bands differ in values a record, {lengths}: they cannot be stacked.")
    stored, margin = Size(x=size, y=1), Size(x=0, y=0)
    if patch_dimensions is not None:
        core = Size.from_xy(patch_dimensions, "patch_dimensions")
        kernel = None if kernel_size is None else Size.from_xy(kernel_size, "kernel_size")
        margin = infer_margin(core, size, kernel=kernel, band=chosen[0].name)
        stored = Size(x=core.x + 2 * margin.x, y=core.y + 2 * margin.y)
    elif kernel_size is not None:
        raise OptionError("kernel_size alone does not tell the shape of patches: give patch_dimensions too.")
    return Source(
        tuple(shards), chosen, stored, margin, patch_dimensions is not None, None, layout.framed_size
    )
