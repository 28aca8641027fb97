"""From a mixer and its shards to an opened image: what there is, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import MissingShardError, MixerError, OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.reading.access import Shard, read_records
from xee_tf.reading.content import (
    RecordOrder,
    choose_bands,
    choose_features,
    content_of,
    infer_content,
    read_order,
)
from xee_tf.reading.find import check_order, find_records
from xee_tf.reading.shards import first_record, number_shards, open_shards
from xee_tf.records.example import Kind, RecordLayout
from xee_tf.records.framing import FRAMING, iter_frames
from xee_tf.records.sequence import SequenceLayout
from xee_tf.records.sequence_wire import read_sequence_layout
from xee_tf.sidecars import BandDimensions, Dimensions, Mixer
from xee_tf.storage import Location, PathLike

__all__ = ["ImageReader", "Records", "open_reader"]

Records = PathLike | Location | Sequence[PathLike | Location]

_DTYPES: dict[Kind, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "int64": np.dtype(np.int64),
    "bytes": np.dtype(np.uint8),
}


@dataclass(frozen=True, eq=False)
class ImageReader:
    """An opened image: small and picklable, reads nothing by itself.

    Parameters
    ----------
    grid : PatchGrid
        The patches, with the margin that their records have.
    shards : tuple of Shard
    bands : tuple of BandDimensions
        The bands that are read.
    layout : RecordLayout or SequenceLayout
        The features that hold them.
    order : RecordLayout or SequenceLayout
        All features of the first record, in its order.
    record_bytes : int
        Bytes of a record, about.
    verify : bool
        Whether checksums of records are checked.
    per_patch : int
        Records for a patch: 1, or as many as it has pixels.
    coords : mapping from dimension to ndarray
        Coordinates of the bands' further dimensions.
    fill : float
        What stands for the steps that a SequenceExample lacks.
    depths : mapping from feature to int
        Values a pixel.
    share : bool
        Whether bands are read one by one, so that inflated bytes are worth keeping.
    """

    grid: PatchGrid
    shards: tuple[Shard, ...]
    bands: tuple[BandDimensions, ...]
    layout: RecordOrder
    order: RecordOrder
    record_bytes: int
    verify: bool
    per_patch: int = 1
    coords: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    fill: float = 0
    depths: Mapping[str, int] = field(default_factory=dict)
    share: bool = True

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Each band's dtype: float32, int64 or uint8."""
        kinds = {feature.name: feature.kind for feature in self.layout.features}
        return {band.name: _DTYPES[kinds[band.feature]] for band in self.bands}

    @property
    def sequential(self) -> bool:
        """Whether records can be reached only through those in front of them."""
        return any(shard.access == "stream" for shard in self.shards)

    def band(self, name: str) -> BandDimensions:
        """The band of a name."""
        return next(band for band in self.bands if band.name == name)


def open_reader(
    mixer: PathLike | Location | Mixer,
    records: Records | None = None,
    *,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
    bands: Sequence[str] | None = None,
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> ImageReader:
    """Open the shards of an export and check that they are whole; see `xee_tf.open_image`.

    Raises
    ------
    MissingShardError, MixerError, OptionError, RecordError
        As `xee_tf.open_image` says.
    """
    kernel = None if kernel_size is None else Size.from_xy(kernel_size, "kernel_size")
    sidecar: Location | None = None
    if isinstance(mixer, Mixer):
        if records is None:
            raise OptionError(
                "A Mixer does not know where its shards are: give them as records=[...], in order."
            )
        name, described = "the mixer", mixer
    else:
        location = Location.of(mixer, storage_options)
        name, described = str(location), _read_mixer(location)
        if location.name.endswith("mixer.json"):
            sidecar = Location(
                location.url.removesuffix("mixer.json") + "dimensions.json", location.storage_options
            )
    if records is None:
        locations = find_records(location)
    else:
        listed = (
            [records] if isinstance(records, (str, Location)) or hasattr(records, "__fspath__") else records
        )
        locations = [Location.of(record, storage_options) for record in listed]
        check_order(locations)
    dimensions = None
    if sidecar is not None and tensor_depths is None and sidecar.exists():
        dimensions = Dimensions.parse(sidecar.read_bytes().decode(), str(sidecar))
    shards = open_shards(locations)
    source, data = _first_record(shards, name, described)
    patch, total = described.patch, described.total_patches
    try:
        order, steps = read_order(data)
        content = None if dimensions is None else content_of(order, dimensions, patch, kernel)
        told = content is not None
        names = [feature.name for feature in order.features]
        if content is None:
            if dimensions is not None and records is None:
                raise RecordError(
                    f"it holds {names}, which does not go with {sidecar}. The shards may be of another "
                    "export; if not, remove that file, or say how deep bands are with "
                    "tensor_depths={band: depth}."
                )
            names = choose_bands(names, bands)
            infer = partial(infer_content, order, patch, names=names, kernel=kernel, depths=tensor_depths)
            content = infer(steps=steps)
    except RecordError as error:
        raise RecordError(f"{source}: record 0: {error}") from None
    record_size = len(data) + FRAMING if order.exact else None
    if isinstance(order, SequenceLayout) and not (told and dimensions and not dimensions.ragged):
        record_size = None  # others may have fewer steps
    counted = number_shards(shards, record_size, total * content.per_patch)
    if not told and isinstance(order, RecordLayout) and patch.pixels > 1:
        # Lists shorter than a patch are taken for pixels; what counts in the end is how many there are.
        pixels = content.per_patch == 1
        if sum(shard.records for shard in counted) == total * (patch.pixels if pixels else 1):
            try:
                content = infer(pixels=pixels)
            except RecordError as error:
                raise RecordError(f"{source}: record 0: {error}") from None
    announced = f"{name} announces {total} records"
    if content.per_patch > 1:
        announced = f"{name} announces {total} patches of {patch.pixels} pixels, a record each"
    _check_counts(counted, total * content.per_patch, announced, record_size is not None, records is None)
    if isinstance(order, SequenceLayout) and 0 in steps.values():
        order = read_sequence_layout(_records(counted))  # a series says of what kind it is when it has a step
    known = {band.name: band for band in content.bands}
    chosen = tuple(known[each] for each in choose_bands(list(known), bands))
    return ImageReader(
        grid=described.grid(content.margin),
        shards=tuple(counted),
        bands=chosen,
        layout=choose_features(order, list(dict.fromkeys(band.feature for band in chosen))),
        order=order,
        record_bytes=len(data) + FRAMING,
        verify=verify,
        per_patch=content.per_patch,
        coords={dim: content.coords[dim] for band in chosen for dim in band.dims if dim in content.coords},
        fill=content.fill,
        depths=content.depths,
    )


def _first_record(shards: Sequence[Shard], mixer: str, described: Mixer) -> tuple[Shard, bytes]:
    for shard in shards:
        data = first_record(shard)
        if data is not None:
            return shard, data
    raise MissingShardError(f"{mixer} announces {described.total_patches} patches; the shards hold none.")


def _records(shards: Sequence[Shard]) -> Iterator[memoryview]:
    """All records, from the first one on."""
    for shard in shards:
        for first, buffer in read_records(shard, 0, shard.records):
            yield from iter_frames(buffer, source=str(shard), first=first)


def _read_mixer(location: Location) -> Mixer:
    if location.name.endswith((".tfrecord", ".tfrecord.gz")):
        raise MixerError(
            f"{location} is a shard, not a mixer: give the path of the file that ends with mixer.json, "
            "and the shards as records= if they are elsewhere."
        )
    return Mixer.read(location)


def _check_counts(shards: Sequence[Shard], total: int, announced: str, exact: bool, named: bool) -> None:
    """Refuse shards that do not hold just the records that the mixer announces, in order.

    `exact`: their records are all of one size; `named`: they were found by their names, and so are
    full, each but the last.
    """
    counts = [shard.records for shard in shards]
    if named and 0 in counts:
        raise RecordError(
            f"{shards[counts.index(0)]} holds no record: it is truncated, or was not fetched whole."
        )
    for shard in shards:
        if shard.announced not in (None, shard.first):
            raise RecordError(
                f"{shard} starts with record {shard.announced} of its export, but {shard.first} records come "
                "before it: shards are out of order, one is missing or truncated, or exports are mixed up."
            )
    full = counts[0]
    if named and exact:
        for i, shard in enumerate(shards):
            if shard.records > full or (shard.records < full and i < len(shards) - 1):
                raise RecordError(
                    f"{shard} holds {shard.records} records, but {shards[0]} holds {full} and only the last "
                    "shard may hold fewer: it is truncated, or shards are out of order. If they are right "
                    "all the same, give them as records=[...]."
                )
    if sum(counts) == total:
        return
    held = f"{shards[0]} holds {full}."
    if len(shards) > 1:
        each = ", ".join(map(str, counts[:20])) + (", ..." if len(counts) > 20 else "")
        held = f"the {len(shards)} shards {shards[0]} to {shards[-1]} hold {sum(counts)} ({each})."
    message = f"{announced}; {held}"
    if sum(counts) > total:
        raise RecordError(f"{message} The mixer or the shards are of another export.")
    if named and exact and counts[-1] == full:
        raise MissingShardError(f"{message} Shards after {shards[-1]} are missing.")
    raise RecordError(f"{message} A shard is truncated, or shards are missing at the end.")
