"""What a training pipeline reads: the shards of one or more exports, and what their records hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.reading.content import (
    RecordOrder,
    check_depths,
    choose_bands,
    choose_features,
    infer_content,
    read_order,
)
from xee_tf.reading.features import find_features, find_margin, is_patch
from xee_tf.reading.reader import open_reader
from xee_tf.records.example import RecordLayout
from xee_tf.records.framing import FRAMING
from xee_tf.records.sequence import SequenceLayout
from xee_tf.records.sequence_wire import decode_sequence_example
from xee_tf.shards.access import Shard
from xee_tf.shards.matching import check_first_runs
from xee_tf.shards.opening import first_record, open_shards
from xee_tf.sidecars import BandDimensions, Mixer, distinct_dims
from xee_tf.sidecars.find import Exported, ExportedTable, find_export, find_sources
from xee_tf.sidecars.names import is_image
from xee_tf.storage import Location, PathLike

__all__ = ["Source", "Sources", "open_sources"]

_One = Exported | ExportedTable

Sources = _One | Sequence[_One] | Mapping[str, _One]

_PIXEL = Size(x=1, y=1)


@dataclass(frozen=True)
class Source:
    """The shards of one export, in order, and what their records hold.

    Parameters
    ----------
    shards : tuple of Shard
    layout : RecordLayout or SequenceLayout
        The features that hold the bands that are wanted.
    bands : tuple of BandDimensions
        Those bands.
    depths : mapping from feature to int
        Values per pixel.
    stored : Size
        Pixels of a record, a patch's margins included; where nothing tells, one long row of them.
    margin : Size
        Pixels on every side that are not the patch's own.
    shaped : bool
        Whether records are patches of a known shape.
    records : int or None
        How many there are, where a mixer tells.
    record_bytes : int
        Bytes of a record, other bands included.
    fill : float
        What stands for the steps that a SequenceExample lacks.
    described : bool
        Whether a mixer describes the records.
    labels : mapping from feature to int
        Features beside patches that hold so many values of the whole record: labels, coordinates, texts.
    absent, ragged : frozenset of str
        Features that some of the records lack, and those whose lists differ in length, as far as records
        were looked at.
    """

    shards: tuple[Shard, ...]
    layout: RecordOrder
    bands: tuple[BandDimensions, ...]
    depths: Mapping[str, int]
    stored: Size
    margin: Size
    shaped: bool
    records: int | None
    record_bytes: int
    fill: float = 0
    described: bool = True
    labels: Mapping[str, int] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    ragged: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.shards[0].location.name

    @property
    def complete(self) -> bool:
        """Whether all records surely have all features: those of images, and of tables that we wrote."""
        return self.described or all(shard.access == "members" for shard in self.shards)

    @property
    def core(self) -> Size:
        """Pixels of a patch without its margins."""
        return Size(x=self.stored.x - 2 * self.margin.x, y=self.stored.y - 2 * self.margin.y)

    @property
    def pixelwise(self) -> bool:
        """Whether each record is a pixel, or the row of a table."""
        return not self.shaped and self.stored == _PIXEL

    @property
    def content(self) -> str:
        """What a record holds, in words; sources that are read together must have the same."""
        kinds = {feature.name: feature.kind for feature in self.layout.features}
        bands = []
        for band in self.bands:
            if band.feature in self.labels:
                bands.append(f"{band.name} ({kinds[band.feature]}, {self.labels[band.feature]} per record)")
                continue
            depth = f", {band.depth} steps" if band.dims else ""
            whole = self.depths[band.feature]
            place = "" if whole == band.depth else f", from {band.first} of {whole} in {band.feature!r}"
            bands.append(f"{band.name} ({kinds[band.feature]}{depth}{place})")
        records = f"patches of {self.core.x} x {self.core.y} pixels and margins of {self.margin.xy}"
        if isinstance(self.layout, SequenceLayout):
            records = f"series of pixels, padded with {self.fill:g},"
        elif self.pixelwise:
            records = "single pixels"
        return f"{records} in {', '.join(bands)}"

    def band(self, name: str) -> BandDimensions:
        """The band of a name."""
        return next(band for band in self.bands if band.name == name)


def open_sources(
    sources: Sources,
    *,
    records: Sequence[PathLike] | None = None,
    bands: Sequence[str] | None = None,
    patch_dimensions: int | Sequence[int] | None = None,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
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
    items: list[Any]
    if isinstance(sources, Mapping):
        items = list(sources.values())
    elif isinstance(sources, Collection) and not isinstance(sources, str):
        items = list(sources)
    else:
        items = [sources]
    if records is None and any(isinstance(item, Mixer) for item in items):
        raise OptionError("A Mixer does not know where its shards are: name its file, or give records=[...].")
    if records is not None and len(items) != 1:
        raise OptionError(f"records go with a single mixer; got {len(items)} sources.")
    locations: list[Any]
    if records is None:
        locations = [found for item in items for found in find_sources(item, storage_options)]
    else:
        locations = [
            item if isinstance(item, Mixer) else find_export(item, storage_options) for item in items
        ]
    opened: list[Source] = []
    files: list[Location] = []
    for location in locations:
        if records is None and not isinstance(location, Mixer) and not is_image(location):
            files.append(location)
            continue
        if files:
            opened.append(_open_files(files, bands, patch_dimensions, kernel_size, tensor_depths))
            files = []
        if patch_dimensions is not None:
            raise OptionError("patch_dimensions are for files without a mixer: the mixer has its own.")
        reader = open_reader(
            location,
            records,
            kernel_size=kernel_size,
            tensor_depths=tensor_depths,
            bands=bands,
            storage_options=storage_options,
        )
        if records is None:
            check_first_runs(reader.shards)
        patches = reader.per_patch == 1 and isinstance(reader.layout, RecordLayout)
        opened.append(
            Source(
                shards=reader.shards,
                layout=reader.layout,
                bands=reader.bands,
                depths=reader.depths,
                stored=reader.grid.stored if patches else _PIXEL,
                margin=reader.grid.margin,
                shaped=patches,
                records=reader.records,
                record_bytes=reader.record_bytes,
                fill=reader.fill,
            )
        )
    if files:
        opened.append(_open_files(files, bands, patch_dimensions, kernel_size, tensor_depths))
    if not opened:
        raise OptionError("There is nothing to read: name a mixer, TFRecord files, or a pattern of files.")
    return opened


def _open_files(
    files: Sequence[Location],
    bands: Sequence[str] | None,
    patch_dimensions: int | Sequence[int] | None,
    kernel_size: int | Sequence[int] | None,
    depths: Mapping[str, int] | None,
) -> Source:
    """Files without a mixer: their records tell the bands, the user gives the shape of patches."""
    if kernel_size is not None and patch_dimensions is None:
        raise OptionError("kernel_size alone does not tell the shape of patches: give patch_dimensions too.")
    shards = tuple(open_shards(files))
    found = next(((shard, data) for shard in shards if (data := first_record(shard)) is not None), None)
    if found is None:
        raise RecordError(f"{shards[0]} holds no record.")
    shard, data = found
    try:
        if decode_sequence_example(data)[1]:
            return _open_series(shards, data, bands, depths)
    except RecordError as error:
        raise RecordError(f"{shard}: record 0: {error}") from None
    features = find_features(shards, bands)
    layout = features.layout
    names = choose_bands([feature.name for feature in layout.features], bands)
    wanted = choose_features(layout, names)
    depths = check_depths(depths, [feature.name for feature in layout.features])
    try:
        if patch_dimensions is not None:
            patch = Size.from_xy(patch_dimensions, "patch_dimensions")
            kernel = None if kernel_size is None else Size.from_xy(kernel_size, "kernel_size")
            margin = find_margin(layout, names, patch, kernel, depths)
        else:
            patch, margin = _row(layout, wanted, depths, bands is None), Size(x=0, y=0)
    except RecordError as error:
        raise RecordError(f"{shard}: record 0: {error}") from None
    stored = PatchGrid(patch, patch, margin).stored
    labels: dict[str, int] = {}
    if patch_dimensions is not None:
        labels = {each.name: each.size for each in wanted.features if not is_patch(each, stored, depths)}
    values = {each.name: labels.get(each.name, each.size // stored.pixels) for each in wanted.features}
    deep = {name for name, depth in values.items() if name not in labels and (depth > 1 or name in depths)}
    parts = [
        BandDimensions(name, name, 0, ("depth",), (values[name],))
        if name in deep
        else BandDimensions(name, name, 0, (), ())
        for name in names
    ]
    ours = all(shard.access == "members" for shard in shards)
    return Source(
        shards=shards,
        layout=wanted,
        bands=distinct_dims(parts),
        depths=values,
        stored=stored,
        margin=margin,
        shaped=patch_dimensions is not None,
        records=sum(shard.records for shard in shards) if ours else None,
        record_bytes=len(data) + FRAMING,
        described=False,
        labels=labels,
        absent=features.absent,
        ragged=features.ragged,
    )


def _open_series(
    shards: tuple[Shard, ...], data: bytes, bands: Sequence[str] | None, depths: Mapping[str, int] | None
) -> Source:
    """SequenceExamples, one for each pixel."""
    order, steps = read_order(data)
    names = choose_bands([feature.name for feature in order.features], bands)
    wanted = choose_features(order, names)
    content = infer_content(wanted, _PIXEL, steps=steps, kernel=_PIXEL, depths=depths)
    known = {band.name: band for band in content.bands}
    return Source(
        shards=shards,
        layout=wanted,
        bands=tuple(known[name] for name in names),
        depths=content.depths,
        stored=_PIXEL,
        margin=content.margin,
        shaped=False,
        records=None,
        record_bytes=len(data) + FRAMING,
        fill=content.fill,
        described=False,
    )


def _row(order: RecordOrder, wanted: RecordOrder, depths: Mapping[str, int], any_size: bool) -> Size:
    """The pixels of a record whose shape nothing tells: as many as all bands have values, or one.

    It is one in a table (some feature is a single number, and longer ones are array-valued), and where
    depths are given.
    """
    sizes = {feature.name: feature.size for feature in wanted.features}
    for name, depth in depths.items():
        if sizes.get(name, depth) != depth:
            raise OptionError(
                f"tensor_depths says {depth} of {name!r}, which has {sizes[name]} values per record: are "
                "they patches, give the mixer instead of its files, or patch_dimensions=(width, height) too."
            )
    if depths or any(feature.size == 1 and feature.kind != "bytes" for feature in order.features):
        return _PIXEL
    if len(set(sizes.values())) == 1:
        return Size(x=max(sizes.values()), y=1)
    if any_size:
        return _PIXEL
    listed = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
    raise OptionError(
        f"The bands differ in values per record, {listed}: are they array bands, give the mixer instead of "
        "its files, or patch_dimensions=(width, height)."
    )
