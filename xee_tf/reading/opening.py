"""Opening an export: from the names that a user gives to its records and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from xee_tf.errors import MissingShardError, OptionError, RecordError
from xee_tf.georef import crs_text, read_crs
from xee_tf.reading.content import FirstRecord, choose_bands, read_order
from xee_tf.reading.infer import Inference, described_layout
from xee_tf.reading.opened import OpenedExport
from xee_tf.reading.options import ReadOptions
from xee_tf.records import FRAMING, RecordLayout, iter_frames, read_sequence_layout
from xee_tf.shards import Shard, match_shards, number_shards, open_shards, read_records
from xee_tf.sidecars import (
    Exported,
    ExportedImage,
    ImageManifest,
    Mixer,
    ShardInfo,
    check_order,
    describe_export,
    find_records,
    listed_shards,
    manifest_name,
    prefix_of,
)
from xee_tf.storage import Location

__all__ = ["open_export"]

_DEFAULTS = ReadOptions()


def open_export(mixer: Exported | Mixer, options: ReadOptions = _DEFAULTS) -> OpenedExport:
    """Open the shards of an image and check that they are whole; see `xee_tf.open_image`.

    What the user gives comes first, then the manifest, if it describes these records, and then what can be
    inferred from the first record.
    """
    kernel, bands = options.kernel, options.bands
    beside = options.records is None  # the shards are found beside the manifest: it must describe them
    name, described, manifest, location = describe_export(mixer, not beside, options.storage_options)
    if options.crs is not None:
        described = replace(described, crs=crs_text(read_crs(options.crs)))
    pixels = described.patch.pixels
    patches = manifest.patches if manifest is not None and beside else None
    total = described.total_patches if patches is None else len(patches)

    found = open_shards(_locate_shards(options, location, manifest))
    first = FirstRecord.of(found)
    layout, steps = _order(first, None if total else manifest)
    if layout is None:
        raise MissingShardError(f"{name} announces {described.total_patches} patches; the shards hold none.")
    inference = Inference(layout, described.patch, steps, kernel, options.tensor_depths)
    content = None
    if manifest is not None:
        with first.named():
            content = inference.described(manifest, manifest_name(location) if beside else None)
    inferred = content is None
    by_pixel = inference.by_pixel if content is None else content.unit == "pixel"

    if patches is not None:  # the index of a file counts the patches that were dropped, too
        found = [replace(shard, announced=None) for shard in found]
    ragged = layout.sequences is not None and (inferred or manifest is None or manifest.ragged)
    record_size = first.size if layout.fixed_size and not ragged else None
    shards = number_shards(found, record_size, total * (pixels if by_pixel else 1))
    held = sum(shard.records for shard in shards)
    if manifest is not None and manifest.patches is not None and patches is None:
        kept = len(manifest.patches)
        if held in (kept, kept * pixels) and held not in (total, total * pixels):
            patches, total = manifest.patches, kept  # predictions of the patches that were written
    if content is None:
        # The number of records, where it fits, decides what they are, and not the lengths of their lists.
        fits = total and pixels > 1 and held in (total, total * pixels)
        names = choose_bands([feature.name for feature in layout.features], bands)
        hint = None if manifest is None else manifest.kernel
        with first.named():
            content = inference.inferred(names, held > total if fits else None, hint)

    per_patch = pixels if content.unit == "pixel" else 1
    announced = f"{total} patches of {pixels} pixels, a record each" if per_patch > 1 else f"{total} records"
    named = beside and patches is None
    _check_counts(shards, total * per_patch, f"{name} announces {announced}", record_size is not None, named)
    if manifest is not None and beside:
        shards = match_shards(shards, manifest.shards)
    if 0 in steps.values():  # the kind of a series is that of its first step
        content = replace(content, layout=read_sequence_layout(_records(shards)))
    known = {band.name: band for band in content.bands}
    export = OpenedExport(
        content,
        tuple(known[each] for each in choose_bands(list(known), bands)),
        described.grid(content.margin),
        tuple(shards),
        first.size or FRAMING,
        patches=patches,
        verify=options.verify,
        source=None if location is None else str(location),
    )
    if options.default_value is None:
        return export
    written = None if manifest is None or inferred else manifest.default_value
    return export.masking(options.default_value, written)


def _locate_shards(
    options: ReadOptions, mixer: Location | None, manifest: ImageManifest | None
) -> list[Location]:
    """The shards: those that the user names, or those beside the mixer."""
    records, storage_options = options.records, options.storage_options
    if records is not None:
        listed: Any = records
        if isinstance(records, ExportedImage):
            listed, storage_options = records.files, records.manifest.storage_options
        elif isinstance(records, str) or not isinstance(records, Iterable):
            listed = [records]
        paths = [each.path if isinstance(each, ShardInfo) else each for each in listed]
        locations = [Location.of(path, storage_options) for path in paths]
        if not locations:
            raise OptionError("records is empty: name the shards in order, or leave it out.")
        check_order(locations)
        return locations
    if mixer is None:
        raise OptionError("A Mixer does not know where its shards are: give them as records=[...], in order.")
    try:
        return find_records(mixer)
    except MissingShardError:
        if manifest is None or not manifest.shards or prefix_of(mixer).siblings():
            raise
        return listed_shards(mixer, manifest.shards)  # a server that lists nothing, not even the mixer


def _order(first: FirstRecord, empty: ImageManifest | None) -> tuple[RecordLayout | None, Mapping[str, int]]:
    """The features of the first record, and the steps of its series; of no record, those in a manifest."""
    if first.data is not None:
        with first.named():
            return read_order(first.data)
    return None if empty is None else described_layout(empty), {}


def _records(shards: Sequence[Shard]) -> Iterator[memoryview]:
    """All records, from the first one on."""
    for shard in shards:
        for first, buffer in read_records(shard, 0, shard.records):
            yield from iter_frames(buffer, source=str(shard), first=first)


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
