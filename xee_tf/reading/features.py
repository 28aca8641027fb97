"""TFRecord files without a mixer: the features of their records, and which of these are patches.

Records of a table need not be alike: Earth Engine writes no feature for a property that is null. The first
record is enough where it has all that is asked for; otherwise more of them are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.reading.content import (
    NO_MARGIN,
    PIXEL,
    Content,
    FirstRecord,
    Unit,
    band_names,
    check_depths,
    choose_bands,
    choose_features,
    read_order,
)
from xee_tf.reading.infer import Inference, inferred_bands
from xee_tf.reading.margins import is_patch, margin_beside_labels
from xee_tf.reading.opened import OpenedExport
from xee_tf.reading.options import ReadOptions
from xee_tf.records import (
    FRAMING,
    Feature,
    FeatureValues,
    Ragged,
    RecordLayout,
    decode_features,
    decode_sequence_example,
)
from xee_tf.shards import Shard, inflated, open_shards, read_pieces, read_records, whole_frames
from xee_tf.storage import Location

__all__ = ["open_files"]

_PIECE = 1 << 20  # bytes of a file that are looked at at a time
_ENOUGH = 16 << 20  # bytes that are looked at where no feature is asked for by name
_MOST = 1 << 30  # bytes that are looked at for a feature that is asked for


def open_files(files: Sequence[Location], options: ReadOptions) -> OpenedExport:
    """Open files without a mixer: their records hold the bands, the user gives the shape of patches."""
    if options.kernel_size is not None and options.patch_dimensions is None:
        raise OptionError("kernel_size alone does not tell the shape of patches: give patch_dimensions too.")
    shards = open_shards(files)
    wanted = None if options.bands is None else band_names("bands", options.bands)
    first = FirstRecord.of(shards)
    if (data := first.data) is None:
        raise RecordError(f"{first.shard} holds no record.")
    with first.named():
        series = decode_sequence_example(data)[1]
    if series:
        with first.named():
            layout, steps = read_order(data)
            names = choose_bands([feature.name for feature in layout.features], wanted)
            content = Inference(layout, PIXEL, steps, depths=options.tensor_depths).inferred(names)
        size = PIXEL
    else:
        features = _find_features(shards, wanted)
        names = choose_bands([feature.name for feature in features.layout.features], wanted)
        patch, kernel, depths = options.patch, options.kernel, options.tensor_depths
        with first.named():
            content, size = _content(features, names, patch, kernel, depths, every=wanted is None)
    known = {band.name: band for band in content.bands}
    return OpenedExport(
        content,
        tuple(known[name] for name in names),
        PatchGrid(size, size, content.margin),
        tuple(shards),
        len(data) + FRAMING,
        described=False,
    )


def _find_features(shards: Sequence[Shard], names: Collection[str] | None) -> Content:
    """The features of records, in the order in which they first appear: `names`, or all of the first 16 MiB.

    Records are looked at until each of `names` was found, up to 1 GiB of them. Features of several byte
    strings are left out.
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
        raise RecordError(f"{source or shards[0]} holds no record with a feature.")
    for name in names or ():
        if name in strings:
            raise OptionError(
                f"{name!r} holds several byte strings per record: it is neither a band nor a number."
            )
        kinds = sorted({feature.kind for feature in lists.get(name, ())})
        if len(kinds) > 1:
            raise RecordError(
                f"{source}: feature {name!r} is a {kinds[0]} list in some records and a {kinds[1]} list in "
                "others. TensorFlow reads one kind of a feature: write the records anew, or use open_table."
            )
    chosen = [feature for name, feature in found.items() if name not in strings]
    if not chosen:
        raise RecordError(f"{source} holds only features of several byte strings, none with numbers.")
    return Content(
        RecordLayout(tuple(chosen)),
        (),
        absent=frozenset(name for name, count in counts.items() if count < total),
        ragged=frozenset(name for name, held in lists.items() if len({each.size for each in held}) > 1),
    )


def _feature(part: FeatureValues) -> Feature:
    """The feature as a band; of byte strings the length is that of the first one."""
    if part.feature.kind != "bytes":
        return part.feature
    size = int(part.values.sizes[0]) if isinstance(part.values, Ragged) else 0
    return Feature.stored(part.feature.name, "bytes", size)


def _buffers(shards: Sequence[Shard]) -> Iterator[tuple[Shard, range, memoryview]]:
    """The records of each shard from its start on, and their numbers, without counting them first.

    Of records that are all alike only the first one is yielded.
    """
    for shard in shards:
        if shard.same_features:
            for first, buffer in read_records(shard, 0, min(1, shard.records), share=False):
                yield shard, range(first, first + 1), buffer
            continue
        source, data, first = str(shard), b"", 0
        for piece in inflated(read_pieces(shard.location, _PIECE), source, _PIECE):
            data += piece
            # The first record by itself: it is often enough.
            while found := whole_frames(memoryview(data), first, source, 1 if first == 0 else None):
                count, end = found
                yield shard, range(first, first + count), memoryview(data)[:end]
                first, data = first + count, data[end:]


def _content(
    features: Content,
    names: Sequence[str],
    patch: Size | None,
    kernel: Size | None,
    depths: Mapping[str, int] | None,
    *,
    every: bool,
) -> tuple[Content, Size]:
    """What records hold, and the pixels of a patch without its margin.

    Without a patch, records are pixels, or pixels of a patch of unknown shape: then they are one long row.
    `every` is whether all features are wanted because the user named none.
    """
    given = check_depths(depths, [feature.name for feature in features.layout.features])
    wanted = choose_features(features.layout, names).features
    labels: dict[str, int] = {}
    margin = NO_MARGIN
    unit: Unit | None = "patch"
    if patch is None:
        patch = _row(features.layout.features, wanted, given, every)
        unit = "pixel" if patch == PIXEL else None
    else:
        margin = margin_beside_labels(features.layout, names, patch, kernel, given)
        stored = patch.with_margin(margin)
        labels = {each.name: each.size for each in wanted if not is_patch(each, stored, given)}
    pixels = patch.with_margin(margin).pixels
    values = {each.name: 1 if each.name in labels else each.size // pixels for each in wanted}
    bands = inferred_bands(features.layout, values, given.keys() - labels.keys())
    return replace(features, bands=bands, margin=margin, unit=unit, labels=labels), patch


def _row(
    features: Sequence[Feature], wanted: Sequence[Feature], depths: Mapping[str, int], every: bool
) -> Size:
    """The pixels of a record of unknown shape, in a row: as many as all bands have values, or one.

    It is one in a table (some feature is a single number, and longer ones are array-valued), and where
    depths are given.
    """
    sizes = {feature.name: feature.size for feature in wanted}
    for name, depth in depths.items():
        if sizes.get(name, depth) != depth:
            raise OptionError(
                f"tensor_depths says {depth} of {name!r}, which has {sizes[name]} values per record: are "
                "they patches, give the mixer instead of its files, or patch_dimensions=(width, height) too."
            )
    if depths or any(feature.size == 1 and feature.kind != "bytes" for feature in features):
        return PIXEL
    if len(set(sizes.values())) == 1:
        return Size(x=max(sizes.values()), y=1)
    if every:
        return PIXEL
    listed = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
    raise OptionError(
        f"The bands differ in values per record, {listed}: are they array bands, give the mixer instead of "
        "its files, or patch_dimensions=(width, height)."
    )
