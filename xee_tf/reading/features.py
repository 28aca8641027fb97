"""Open TFRecord files without a mixer: find the features of their records, and which of them are patches.

Records of a table may differ, because Earth Engine writes no feature for a null property. If the first record
has all requested features, only that record is read; otherwise more records are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from xee_tf.display import abbreviated, by, counted
from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.options import read_names
from xee_tf.reading.content import NO_MARGIN, PIXEL, Content, Unit, choose_features
from xee_tf.reading.first_record import FirstRecord, parse_record
from xee_tf.reading.infer import Inference, infer_bands
from xee_tf.reading.margins import is_patch, margin_beside_labels
from xee_tf.reading.opened import OpenedExport
from xee_tf.reading.options import ReadOptions
from xee_tf.reading.selection import check_depths, choose_bands
from xee_tf.records import (
    FRAMING,
    HEADER,
    Feature,
    FeatureValues,
    Ragged,
    RecordLayout,
    decode_features,
    decode_sequence_example,
    read_length,
    truncated_record,
)
from xee_tf.shards import (
    Shard,
    check_inflated,
    inflated,
    match_shard,
    open_shards,
    read_pieces,
    read_records,
    whole_frames,
)
from xee_tf.sidecars import DescribedFile, describe_files
from xee_tf.storage import Location

__all__ = ["open_files"]

_PIECE = 1 << 20  # bytes to read at a time
_ENOUGH = 16 << 20  # bytes to read if no features are requested by name
_MOST = 1 << 30  # maximum bytes to read in search of a requested feature


def open_files(files: Sequence[Location], options: ReadOptions) -> OpenedExport:
    """Open files without a mixer; the shape of patches is an option, or in the manifests of tables.

    Raises
    ------
    OptionError
        If an option is invalid, or a band was not found.
    RecordError
        If there are no records, or they do not match the options.
    """
    if options.kernel_size is not None and options.patch_dimensions is None:
        raise OptionError("kernel_size requires patch_dimensions: pass the size of a patch, too.")
    described = describe_files(files)
    opened = open_shards(files, [None if known is None else known.shard for known in described])
    shards = [
        shard if known is None else match_shard(shard, known.shard, known.manifest.name)
        for shard, known in zip(opened, described, strict=True)
    ]
    requested = None if options.bands is None else read_names(options.bands, "bands")
    first = FirstRecord.from_shards(shards)
    if (data := first.data) is None:
        raise RecordError(f"{first.shard} contains no records.")
    with first.error_context():
        series = decode_sequence_example(data)[1]
    if series:
        with first.error_context():
            layout, steps = parse_record(data)
            names = choose_bands([feature.name for feature in layout.features], requested)
            content = Inference(layout, PIXEL, steps, depths=options.tensor_depths).from_lengths(names)
        size = PIXEL
    else:
        features = _find_features(shards, requested)
        names = choose_bands([feature.name for feature in features.layout.features], requested)
        tables = _patches_of_tables(described, names)
        with first.error_context():
            if tables is None:
                content, size = _describe(features, names, options, every=requested is None)
            else:
                content, size = _describe_tables(features, names, options, tables)
    known = {band.name: band for band in content.bands}
    return OpenedExport(
        content,
        tuple(known[name] for name in names),
        PatchGrid(size, size, content.margin),
        tuple(shards),
        len(data) + FRAMING,
        described=False,
    )


class _TablePatches(NamedTuple):
    """What the manifests of tables say of their patches: the names of their columns, size and default."""

    columns: frozenset[str]
    size: Size
    default: float | None


def _patches_of_tables(
    described: Sequence[DescribedFile | None], names: Sequence[str]
) -> _TablePatches | None:
    """Return what the manifests of all tables say of their patches; None if no chosen column is a patch.

    Raises
    ------
    OptionError
        If tables have patches of different sizes.
    """
    tables = [known for known in described if known is not None and known.patches is not None]
    columns = frozenset[str]().union(*(known.patch_columns for known in tables))
    if not columns.intersection(names):
        return None
    patches = {known.manifest: known.patches for known in tables if known.patches is not None}
    manifests = {each.size: manifest for manifest, each in patches.items()}
    if len(manifests) > 1:
        sizes = " and ".join(f"{by(*size.xy)} pixels ({manifest})" for size, manifest in manifests.items())
        raise OptionError(f"The tables have patches of different sizes: {sizes}. Read them one by one.")
    if len(tables) < len(described):
        return None
    [size] = manifests
    defaults = {str(each.default): each.default for each in patches.values()}  # NaN is not equal to NaN
    return _TablePatches(columns, size, defaults.popitem()[1] if len(defaults) == 1 else None)


def _describe_tables(
    features: Content, names: Sequence[str], options: ReadOptions, tables: _TablePatches
) -> tuple[Content, Size]:
    """Return the content of tables of patches, and the size of a patch without its margin."""
    patch, kernel = options.patch or tables.size, options.kernel
    stored = tables.size
    margin = Size(x=max(0, stored.x - patch.x) // 2, y=max(0, stored.y - patch.y) // 2)
    if kernel is not None:
        margin = PatchGrid.margin_of(kernel)
    if patch.with_margin(margin) != stored:
        with_kernel = f" with kernel_size={options.kernel_size!r}" if kernel else ""
        raise OptionError(
            f"patch_dimensions={options.patch_dimensions!r}{with_kernel} is not the size of these patches, "
            f"which is {by(*stored.xy)} according to the manifest of the table. Omit it."
        )
    chosen = choose_features(features.layout, names).features
    labels = {each.name: each.size for each in chosen if each.name not in tables.columns}
    values = {each.name: 1 if each.name in labels else each.size // stored.pixels for each in chosen}
    given = check_depths(options.tensor_depths, [feature.name for feature in features.layout.features])
    bands = (
        band if band.feature in labels else replace(band, default=tables.default)
        for band in infer_bands(features.layout, values, given.keys() - labels.keys())
    )
    return replace(features, bands=tuple(bands), margin=margin, unit="patch", labels=labels), patch


def _find_features(shards: Sequence[Shard], names: Collection[str] | None) -> Content:
    """Return the features of records in the order of their first appearance, without any bands.

    Records are read until each of `names` is found, up to 1 GiB; without names, the first 16 MiB are read.
    Features with several byte strings are omitted.
    """
    found: dict[str, Feature] = {}
    lists: dict[str, set[Feature]] = {}
    counts: dict[str, int] = {}
    strings: set[str] = set()
    total = seen = 0
    source = ""
    for shard, numbers, buffer in _buffers(shards):
        source = source or str(shard)
        parts = decode_features(buffer, [], source=str(shard), first=numbers.start)
        for part in sorted(parts, key=lambda part: (part.records[0], part.index)):
            feature = part.feature
            lists.setdefault(feature.name, set()).add(feature)
            if not feature.size:
                continue
            counts[feature.name] = counts.get(feature.name, 0) + len(part.records)
            if feature.kind == "bytes" and feature.size > 1:
                strings.add(feature.name)
            found.setdefault(feature.name, _feature(part))
        total += len(numbers)
        seen += max(len(buffer), _PIECE)
        missing = set(names or ()) - found.keys()
        if seen >= (_MOST if missing else 0 if names is not None else _ENOUGH):
            break
    if not found:
        raise RecordError(f"{source or shards[0]} contains no records with features.")
    for name in names or ():
        if name in strings:
            raise OptionError(
                f"{name!r} has several byte strings per record, which can be neither a band nor a number."
            )
        kinds = sorted({feature.kind for feature in lists.get(name, ())})
        if len(kinds) > 1:
            raise RecordError(
                f"{source}: feature {name!r} has {kinds[0]} lists in some records and {kinds[1]} lists in "
                "others. TensorFlow supports only one kind per feature: rewrite the records, or use "
                "open_table."
            )
    chosen = [feature for name, feature in found.items() if name not in strings]
    if not chosen:
        raise RecordError(f"{source} contains only features with several byte strings.")
    return Content(
        RecordLayout(tuple(chosen)),
        (),
        absent=frozenset(name for name, count in counts.items() if count < total),
        ragged=frozenset(name for name, held in lists.items() if len({each.size for each in held}) > 1),
    )


def _feature(part: FeatureValues) -> Feature:
    """Return a feature as a band; the size of byte strings is the length of the first one."""
    if part.feature.kind != "bytes":
        return part.feature
    size = int(part.values.sizes[0]) if isinstance(part.values, Ragged) else 0
    return Feature.stored(part.feature.name, "bytes", size)


def _buffers(shards: Sequence[Shard]) -> Iterator[tuple[Shard, range, memoryview]]:
    """Yield records of each shard and their numbers, in order, without counting the records first.

    If all records of a shard have the same layout, only the first record is yielded.
    """
    for shard in shards:
        if shard.same_features:
            for first, buffer in read_records(shard, 0, min(1, shard.records), share=False):
                yield shard, range(first, first + 1), buffer
            continue
        source, first, passed = str(shard), 0, 0  # passed: bytes of the records so far
        waiting: list[bytes] = []
        held, needed = 0, HEADER
        for piece in inflated(read_pieces(shard.location, _PIECE), source, _PIECE):
            waiting.append(piece)
            held += len(piece)
            if held < needed:
                continue
            data = memoryview(b"".join(waiting))
            # Yield the first record alone, because it is often sufficient.
            while found := whole_frames(data, first, source, 1 if first == 0 else None):
                count, end = found
                yield shard, range(first, first + count), data[:end]
                first, passed, data = first + count, passed + end, data[end:]
            needed = HEADER
            if len(data) >= HEADER:
                needed = read_length(data, 0, first, source) + FRAMING
                if shard.access != "plain":
                    check_inflated(f"{source}: record {first}", needed, shard.size)
                elif needed > shard.size - passed:
                    raise truncated_record(first, source, needed, shard.size - passed)
            waiting = [bytes(data)]
            held = len(data)


def _describe(
    features: Content,
    names: Sequence[str],
    options: ReadOptions,
    *,
    every: bool,
) -> tuple[Content, Size]:
    """Return the content of records, and the size of a patch without its margin.

    Without `patch`, records are pixels, or pixels of a patch of unknown shape, which are read as one row.
    `every` is whether all features are chosen because the user named none.
    """
    patch, kernel = options.patch, options.kernel
    given = check_depths(options.tensor_depths, [feature.name for feature in features.layout.features])
    chosen = choose_features(features.layout, names).features
    labels: dict[str, int] = {}
    margin = NO_MARGIN
    unit: Unit | None = "patch"
    if patch is None:
        patch = _row_of_pixels(features.layout.features, chosen, given, every)
        unit = "pixel" if patch == PIXEL else None
    else:
        margin = margin_beside_labels(features.layout, names, patch, kernel, given)
        stored = patch.with_margin(margin)
        labels = {each.name: each.size for each in chosen if not is_patch(each, stored, given)}
    pixels = patch.with_margin(margin).pixels
    values = {each.name: 1 if each.name in labels else each.size // pixels for each in chosen}
    bands = infer_bands(features.layout, values, given.keys() - labels.keys())
    return replace(features, bands=bands, margin=margin, unit=unit, labels=labels), patch


def _row_of_pixels(
    features: Sequence[Feature], chosen: Sequence[Feature], depths: Mapping[str, int], every: bool
) -> Size:
    """Return the pixels of a record of unknown shape, as one row.

    Their number is the number of values of all bands. It is one for a table (a feature with a single number
    exists, and longer features are array-valued), and if depths are specified.
    """
    sizes = {feature.name: feature.size for feature in chosen}
    for name, depth in depths.items():
        if sizes.get(name, depth) != depth:
            raise OptionError(
                f"tensor_depths specifies {depth} for {name!r}, which has "
                f"{counted(sizes[name], 'value')} per record. If these are patches, pass the mixer instead "
                "of its files, or also patch_dimensions=(width, height)."
            )
    if depths or any(feature.size == 1 and feature.kind != "bytes" for feature in features):
        return PIXEL
    if len(set(sizes.values())) == 1:
        return Size(x=max(sizes.values()), y=1)
    if every:
        return PIXEL
    listed = abbreviated(f"{name!r} {size}" for name, size in sizes.items())
    raise OptionError(
        f"The bands have different numbers of values per record: {listed}. If these are array bands, pass "
        "the mixer instead of its files, or patch_dimensions=(width, height)."
    )
