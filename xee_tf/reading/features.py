"""The features of records that no mixer describes, and which of them are patches.

Records of a table need not be alike: Earth Engine writes no feature for a property that is null. The first
record is enough where it has all that is asked for; otherwise more of them are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.reading.margins import infer_margin
from xee_tf.records.example import Feature, RecordLayout
from xee_tf.records.framing import FRAMING, HEADER, frame_offsets, read_length
from xee_tf.shards.access import Shard, read_records
from xee_tf.shards.inflate import inflate_file
from xee_tf.tables.decode import Field, Piece, decode_rows
from xee_tf.tables.schema import Strings

__all__ = ["Features", "find_features", "find_margin", "is_patch"]

_PIECE = 1 << 20  # bytes of a file that are looked at at a time
_ENOUGH = 16 << 20  # bytes that are looked at where no feature is asked for by name
_MOST = 1 << 30  # bytes that are looked at for a feature that is asked for


@dataclass(frozen=True)
class Features:
    """The features of the records that were looked at.

    Parameters
    ----------
    layout : RecordLayout
        Each feature once, in the order in which they first appear. Those of several byte strings are left
        out. Of byte strings the length is that of the first one.
    absent : frozenset of str
        Those that some records lack.
    ragged : frozenset of str
        Those whose lists differ in length.
    """

    layout: RecordLayout
    absent: frozenset[str] = frozenset()
    ragged: frozenset[str] = frozenset()


def find_features(shards: Sequence[Shard], names: Collection[str] | None) -> Features:
    """The features of records without a mixer.

    Parameters
    ----------
    shards : sequence of Shard
    names : collection of str, optional
        Features that are wanted: records are looked at until each was found, up to 1 GiB of them. Default:
        all features of the first 16 MiB.

    Raises
    ------
    RecordError
        If no record holds a feature, or a wanted one is a float list in some records and an int64 or bytes
        list in others.
    OptionError
        If a wanted feature holds several byte strings.
    """
    found: dict[str, Feature] = {}
    fields: dict[str, set[Field]] = {}
    counts: dict[str, int] = {}
    strings: set[str] = set()
    total = seen = 0
    source = ""
    for shard, first, buffer in _buffers(shards):
        source = source or str(shard)
        pieces = decode_rows(buffer, [], source=str(shard), first=first)
        for piece in sorted(pieces, key=lambda piece: (piece.records[0], piece.place)):
            field = piece.field
            fields.setdefault(field.name, set()).add(field)
            if not field.size:
                continue
            counts[field.name] = counts.get(field.name, 0) + len(piece.records)
            if field.kind == "bytes" and field.size > 1:
                strings.add(field.name)
            found.setdefault(field.name, _feature(piece))
        total += len(frame_offsets(buffer, source=str(shard), first=first)) - 1
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
        kinds = sorted({field.kind for field in fields.get(name, ())})
        if len(kinds) > 1:
            raise RecordError(
                f"{source}: feature {name!r} is a {kinds[0]} list in some records and a {kinds[1]} list in "
                "others. TensorFlow reads one kind of a feature: write the records anew, or use open_table."
            )
    chosen = [feature for name, feature in found.items() if name not in strings]
    if not chosen:
        raise RecordError(f"{source} holds only features of several byte strings, none with numbers.")
    return Features(
        RecordLayout(tuple(chosen)),
        frozenset(name for name, count in counts.items() if count < total),
        frozenset(name for name, held in fields.items() if len({field.size for field in held}) > 1),
    )


def _feature(piece: Piece) -> Feature:
    field = piece.field
    if field.kind != "bytes":
        return Feature(field.name, field.kind, field.size, "<f4" if field.kind == "float" else "<i8")
    size = int(piece.values.lengths[0]) if isinstance(piece.values, Strings) else 0
    return Feature(field.name, "bytes", size, "|u1")


def _buffers(shards: Sequence[Shard]) -> Iterator[tuple[Shard, int, memoryview]]:
    """Whole frames from the start of each shard on, without counting the records first.

    All records of a file with our index are alike: of those the first one is given.
    """
    for shard in shards:
        if shard.access == "members":
            for first, buffer in read_records(shard, 0, min(1, shard.records), share=False):
                yield shard, first, buffer
            continue
        data, first = b"", 0
        for piece in _pieces(shard):
            data += piece
            # The first record by itself: it is often enough.
            while end := _whole_frames(memoryview(data), first, str(shard), 1 if first == 0 else None):
                whole = memoryview(data)[:end]
                yield shard, first, whole
                first += len(frame_offsets(whole, source=str(shard), first=first)) - 1
                data = data[end:]


def _whole_frames(view: memoryview, first: int, source: str, most: int | None) -> int:
    """Where the last whole frame of a buffer ends, or that of the first `most` ones."""
    end = count = 0
    while len(view) - end >= HEADER and count != most:
        after = end + read_length(view, end, first + count, source) + FRAMING
        if after > len(view):
            break
        end, count = after, count + 1
    return end


def _pieces(shard: Shard) -> Iterator[bytes]:
    if shard.access == "stream":
        yield from inflate_file(shard.location, shard.size, _PIECE)
        return
    for begin in range(0, shard.size, _PIECE):
        yield shard.location.read_bytes(begin, min(begin + _PIECE, shard.size))


def is_patch(feature: Feature, stored: Size, depths: Mapping[str, int]) -> bool:
    """Whether a feature holds whole patches; otherwise its values are those of the record, such as a label.

    Parameters
    ----------
    feature : Feature
    stored : Size
        Pixels of a patch, margins included.
    depths : mapping of str to int
        Values per pixel, as the user gives them. As many as the feature has values: it is not a patch.
    """
    depth = depths.get(feature.name)
    if depth is not None:
        return feature.size == depth * stored.pixels
    return feature.size >= stored.pixels and feature.size % stored.pixels == 0


def find_margin(
    layout: RecordLayout,
    names: Collection[str],
    patch: Size,
    kernel: Size | None,
    depths: Mapping[str, int],
) -> Size:
    """The margin of patches that may have labels and texts beside them.

    A kernel that the user gives is taken as it is. Otherwise features that are shorter than a patch are left
    aside, and the shortest other one for which a margin fits decides.

    Parameters
    ----------
    layout : RecordLayout
        All features.
    names : collection of str
        Those that are wanted.
    patch : Size
        Pixels of a patch without its margin.
    kernel : Size, optional
    depths : mapping of str to int
        Values per pixel, as the user gives them.

    Raises
    ------
    RecordError
        If no feature that is wanted holds patches of that size, or one holds patches without the margin.
    OptionError
        If several margins fit.

    Examples
    --------
    >>> layout = RecordLayout((Feature.of("label", "f4", 1), Feature.of("B2", "f4", 400)))
    >>> find_margin(layout, ["B2", "label"], Size(x=20, y=20), None, {})
    Size(x=0, y=0)
    """
    wanted = [feature for feature in layout.features if feature.name in names]
    others = [feature for feature in layout.features if feature not in wanted and feature.kind != "bytes"]
    margin = (
        _infer([*wanted, *others], wanted, patch, depths) if kernel is None else PatchGrid.margin_of(kernel)
    )
    stored = PatchGrid(patch, patch, margin).stored
    if not any(is_patch(feature, stored, depths) for feature in wanted):
        largest = max(wanted, key=lambda feature: feature.size)
        margins = "" if kernel is None else f" with kernel_size={kernel.xy}"
        raise RecordError(
            f"Band {largest.name!r} has {largest.size} values per record, but patches of {patch.x} x "
            f"{patch.y} pixels{margins} have {stored.pixels}, or a multiple of it. Correct patch_dimensions "
            "and kernel_size, or leave them out if each record is a pixel or the row of a table."
        )
    for feature in wanted:
        depth = depths.get(feature.name)
        if is_patch(feature, stored, depths) or depth == feature.size or feature.kind == "bytes":
            continue
        if depth is not None:
            raise RecordError(
                f"Band {feature.name!r} has {feature.size} values per record, which are not {depth} values "
                f"per pixel in patches of {stored.x} x {stored.y} pixels, as tensor_depths gives them."
            )
        if feature.size % patch.pixels == 0:
            raise RecordError(
                f"Band {feature.name!r} has {feature.size} values per record, patches of {patch.x} x "
                f"{patch.y} pixels without the margin of others, which are stored as {stored.x} x {stored.y} "
                "pixels. Export all with one kernel_size. If they are values of the whole record, use "
                f"tensor_depths={{{feature.name!r}: {feature.size}}}."
            )
    return margin


def _infer(
    everything: Sequence[Feature], wanted: Sequence[Feature], patch: Size, depths: Mapping[str, int]
) -> Size:
    """The margin that lists tell: all of them, or the wanted ones where others do not go with them."""
    margin = Size(x=0, y=0)
    for features in (everything, wanted):
        try:
            margin = _shortest(features, patch, depths)
        except OptionError:
            if features is wanted:
                raise
            continue
        stored = PatchGrid(patch, patch, margin).stored
        if all(is_patch(each, stored, depths) or each.size < patch.pixels for each in wanted):
            break
    return margin


def _shortest(features: Sequence[Feature], patch: Size, depths: Mapping[str, int]) -> Size:
    """The margin of the shortest feature that holds patches; none if there is no such feature."""
    # Where the user gives a depth, it decides. Texts come last: they are as long as they happen to be.
    for feature in sorted(
        features, key=lambda each: (each.name not in depths, each.kind == "bytes", each.size)
    ):
        depth = depths.get(feature.name, 1)
        values, rest = divmod(feature.size, depth)
        if rest or values < patch.pixels or (depth > 1 and depth == feature.size):
            continue
        try:
            return infer_margin(patch, values, band=feature.name)
        except RecordError:
            if values % patch.pixels == 0:
                break  # an array band without a margin
    return Size(x=0, y=0)
