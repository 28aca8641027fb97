"""Open an export: find its shards, read the first record, and check the number of records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from xee_tf.display import abbreviated, counted
from xee_tf.errors import MissingShardError, MixerError, OptionError, RecordError
from xee_tf.georef import crs_option, crs_text
from xee_tf.reading.first_record import FirstRecord, parse_record
from xee_tf.reading.infer import Inference, layout_of_manifest
from xee_tf.reading.opened import OpenedExport
from xee_tf.reading.options import ReadOptions
from xee_tf.reading.selection import choose_bands
from xee_tf.records import FRAMING, RecordLayout, iter_frames, read_sequence_layout
from xee_tf.shards import Shard, match_shards, number_shards, open_shards, read_records
from xee_tf.sidecars import (
    Described,
    Exported,
    ExportedImage,
    ImageManifest,
    ManifestShard,
    Mixer,
    ShardInfo,
    check_order,
    describe_export,
    differing_keys,
    find_records,
    find_shards,
    image_manifests,
    listed_shards,
    manifest_name,
    prefix_of,
    require_same,
)
from xee_tf.storage import Location

__all__ = ["open_export"]

_DEFAULTS = ReadOptions()
_THREADS = 16  # paths to look for at the same time: each may need a request


def open_export(mixer: Exported | Mixer, options: ReadOptions = _DEFAULTS) -> OpenedExport:
    """Open the shards of an image and check that they are complete; see `xee_tf.open_image`.

    Options take precedence over the manifest (if it describes these records), and the manifest over what is
    inferred from the first record.
    """
    found = describe_export(mixer, options.storage_options)
    try:
        return _open(found, options)
    except (RecordError, MixerError):
        require_same(found)
        raise


def _open(source: Described, options: ReadOptions) -> OpenedExport:
    """Open the shards of an image that is described."""
    kernel, bands = options.kernel, options.bands
    beside = options.records is None  # shards next to the manifest must match it
    name, described, manifest, location, listed = source
    written = None if manifest is None or manifest.grid is None else manifest.grid.crs
    if options.crs is not None:
        described, written = replace(described, crs=crs_text(crs_option(options.crs))), None
    pixels = described.patch.pixels
    patches = manifest.patches if manifest is not None and beside else None
    total = described.total_patches if patches is None else len(patches)

    located = _locate_shards(options, location, manifest, listed)
    locations = [file for file, _ in located]
    if not beside:
        _require_same_patches(described, locations)
    known: Sequence[ManifestShard] = () if manifest is None else manifest.shards
    if known and location is not None and not beside and locations != listed_shards(location, known):
        known = ()  # predictions, for example
    found = open_shards(locations, known, [info for _, info in located])
    first = FirstRecord.from_shards(found)
    layout, steps = _read_layout(first, None if total else manifest)
    if layout is None:
        raise MissingShardError(
            f"The shards contain no records; expected {counted(described.total_patches, 'patch', 'patches')} "
            f"for {name}."
        )
    inference = Inference(layout, described.patch, steps, kernel, options.tensor_depths)
    content = None
    if manifest is not None:
        with first.error_context():
            content = inference.from_manifest(manifest, manifest_name(location) if beside else None)
    inferred = content is None
    by_pixel = inference.by_pixel if content is None else content.unit == "pixel"

    if patches is not None:  # the index of a file also counts dropped patches
        found = [replace(shard, announced=None) for shard in found]
    ragged = layout.sequences is not None and (inferred or manifest is None or manifest.ragged)
    record_size = first.size if layout.fixed_size and not ragged else None
    shards = number_shards(found, record_size, total * (pixels if by_pixel else 1))
    count = sum(shard.records for shard in shards)
    if manifest is not None and manifest.patches is not None and patches is None:
        kept = len(manifest.patches)
        if count in (kept, kept * pixels) and count not in (total, total * pixels):
            patches, total = manifest.patches, kept  # predictions of the exported patches only
    if content is None:
        # If the number of records matches one of the units, it takes precedence over the list lengths.
        fits = total and pixels > 1 and count in (total, total * pixels)
        names = choose_bands([feature.name for feature in layout.features], bands)
        hint = None if manifest is None else manifest.kernel
        with first.error_context():
            content = inference.from_lengths(names, count > total if fits else None, hint)

    per_patch = pixels if content.unit == "pixel" else 1
    expected = counted(total * per_patch, "record")
    if per_patch > 1:
        expected += f" ({counted(total, 'patch', 'patches')} x {pixels:,} pixels)"
    named = beside and patches is None
    exact = record_size is not None
    _check_order(shards, exact, named)
    if len(known) == len(shards):
        shards = match_shards(shards, known)
    _check_total(shards, total * per_patch, f"Expected {expected} for {name}", exact, named)
    if len(known) != len(shards):  # after the check of the total, which explains missing shards better
        shards = match_shards(shards, known)
    if 0 in steps.values():  # the kind of a series is the kind of its first step
        content = replace(content, layout=read_sequence_layout(_iter_records(shards)))
    found_bands = {band.name: band for band in content.bands}
    export = OpenedExport(
        content,
        tuple(found_bands[each] for each in choose_bands(list(found_bands), bands)),
        described.grid(content.margin),
        tuple(shards),
        first.size or FRAMING,
        patches=patches,
        verify=options.verify,
        source=None if location is None else str(location),
        restore_dtypes=beside and not inferred,
        written_crs=written,
        statistics=manifest.statistics if manifest is not None and beside and not inferred else None,
    )
    if options.default_value is None:
        return export
    default_value = None if manifest is None or inferred else manifest.default_value
    return export.mask_default_value(options.default_value, default_value)


def _locate_shards(
    options: ReadOptions,
    mixer: Location | None,
    manifest: ImageManifest | None,
    beside: Mapping[str, Mapping[str, Any]],
) -> list[tuple[Location, Mapping[str, Any]]]:
    """Return the shards in the option `records`, or else those next to the mixer.

    Each one is returned with what the store said about it when it was found; `beside` are the files next to
    the mixer, if they have been listed already.
    """
    records, storage_options = options.records, options.storage_options
    if records is not None:
        listed: Any = records
        if isinstance(records, ExportedImage):
            listed, storage_options = records.files, records.manifest.storage_options
        elif isinstance(records, str) or not isinstance(records, Iterable):
            listed = [records]
        paths = [each.path if isinstance(each, ShardInfo) else each for each in listed]
        if any(isinstance(path, str) and not path for path in paths):
            raise OptionError("records contains an empty path: pass the paths of the shards, in order.")
        given = [Location.of(path, storage_options) for path in paths]
        with ThreadPoolExecutor(_THREADS) as pool:
            located = [file for files in pool.map(find_shards, given) for file in files.items()]
        if not located:
            raise OptionError("records is empty: pass the shards in order, or omit it.")
        check_order([file for file, _ in located])
        return located
    if mixer is None:
        raise OptionError("A Mixer object has no path: pass the shards as records=[...], in order.")
    try:
        files = find_records(mixer, beside)
    except MissingShardError:
        if manifest is None or not manifest.shards or beside or prefix_of(mixer).siblings():
            raise
        files = listed_shards(mixer, manifest.shards)  # a server without folder listings
    return [(file, beside.get(file.name, {})) for file in files]


def _require_same_patches(mixer: Mixer, shards: Sequence[Location]) -> None:
    """Raise an error if shards belong to an export with other patches, according to its manifest."""
    for location, manifest in image_manifests(shards).items():
        wrong = [] if manifest.grid is None else differing_keys(mixer, manifest.grid)
        if wrong:
            raise RecordError(
                f"{prefix_of(location)}* are the shards of another export: {wrong[0]} in {location.name}. "
                "Open them with the mixer of that export."
            )


def _read_layout(
    first: FirstRecord, manifest: ImageManifest | None
) -> tuple[RecordLayout | None, Mapping[str, int]]:
    """Return the features of the first record and the steps of its series.

    If there are no records, return the features in the manifest.
    """
    if first.data is not None:
        with first.error_context():
            return parse_record(first.data)
    return None if manifest is None else layout_of_manifest(manifest), {}


def _iter_records(shards: Sequence[Shard]) -> Iterator[memoryview]:
    """Yield all records in order."""
    for shard in shards:
        for first, buffer in read_records(shard, 0, shard.records, verify=False):
            yield from iter_frames(buffer, source=str(shard), first=first)


def _check_order(shards: Sequence[Shard], exact: bool, named: bool) -> None:
    """Check that shards are in order, as far as their numbers of records tell.

    Parameters
    ----------
    shards : sequence of Shard
        The shards.
    exact : bool
        Whether all records have the same size.
    named : bool
        Whether the shards were found by their names. In that case all shards but the last are full.
    """
    counts = [shard.records for shard in shards]
    if named and 0 in counts:
        raise RecordError(
            f"{shards[counts.index(0)]} contains no records: it is truncated, or was not downloaded "
            "completely."
        )
    for shard in shards:
        if shard.announced not in (None, shard.first):
            raise RecordError(
                f"{shard} starts with record {shard.announced} of its export, but the shards before it "
                f"contain {counted(shard.first, 'record')}: shards are out of order, missing, truncated, or "
                "from different exports."
            )
    full = counts[0]
    if named and exact:
        for i, shard in enumerate(shards):
            if shard.records > full or (shard.records < full and i < len(shards) - 1):
                raise RecordError(
                    f"{shard} contains {counted(shard.records, 'record')}, but {shards[0]} contains {full}, "
                    "and only the last shard may contain fewer: a shard is truncated, or shards are out of "
                    "order. If they are correct, pass them as records=[...]."
                )


def _check_total(shards: Sequence[Shard], total: int, expected: str, exact: bool, named: bool) -> None:
    """Check that shards contain the expected number of records; `expected` begins the error message."""
    counts = [shard.records for shard in shards]
    full = counts[0]
    if sum(counts) == total:
        return
    message = f"{expected}; {shards[0]} contains {full}."
    if len(shards) > 1:
        message = (
            f"{expected}; the {len(shards)} shards {shards[0]} to {shards[-1]} contain {sum(counts)} "
            f"({abbreviated(counts, 20)})."
        )
    if sum(counts) > total:
        raise RecordError(f"{message} The mixer and the shards are from different exports.")
    if named and exact and counts[-1] == full:
        raise MissingShardError(f"{message} Shards after {shards[-1]} are missing.")
    raise RecordError(f"{message} A shard is truncated, or shards are missing at the end.")
