"""Reading framed Examples and SequenceExamples into numpy arrays, all of a buffer at a time.

Records that are all built like the first one are not parsed (`xee_tf.records.alike`): their constant bytes
are compared with a template's, and their values are strided views of the buffer. Others
(`xee_tf.records.varied`) are read side by side (`xee_tf.records.walk`), and those that cannot be because of
unknown fields or lists that are not packed, one by one (`xee_tf.records.parse`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.alike import find_alike, views
from xee_tf.records.feature import STORED, STRINGS, Feature
from xee_tf.records.frames import Frames
from xee_tf.records.layout import RecordLayout
from xee_tf.records.parse import Parsed, check_values, decode_example, decode_sequence_example
from xee_tf.records.ragged import Ragged, join
from xee_tf.records.varied import read_varied
from xee_tf.records.walk import FeatureValues, Order, Wanted

__all__ = ["FeatureValues", "Order", "Records", "decode_features", "decode_records"]


@dataclass(frozen=True, slots=True)
class Records:
    """The values of consecutive records.

    Parameters
    ----------
    count : int
        Number of records.
    context : dict of str to ndarray, shape (count, size)
        float32, int64 or uint8; read-only views wherever possible, as are the next ones.
    sequences : dict of str to ndarray, shape (count, steps, size)
        Padded behind the last step of each record.
    lengths : dict of str to ndarray of int64, shape (count,)
        Steps that each record has.
    """

    count: int
    context: dict[str, npt.NDArray[Any]]
    sequences: dict[str, npt.NDArray[Any]]
    lengths: dict[str, npt.NDArray[np.int64]]


def decode_records(
    buffer: bytes | memoryview,
    layout: RecordLayout,
    *,
    orders: Sequence[RecordLayout] = (),
    steps: Mapping[str, int] | None = None,
    fill: Mapping[str, float] | None = None,
    source: str = "TFRecord",
    first: int = 0,
    verify: bool = True,
) -> Records:
    """The values of framed records that hold the features of `layout`.

    Parameters
    ----------
    buffer : bytes-like
        Whole framed records.
    layout : RecordLayout
        Features that every record must have, in any order and among others.
    orders : sequence of RecordLayout, optional
        Layouts, all features included, that records are likely to have: it spares looking.
    steps : mapping of str to int, optional
        Steps that the array of a sequence gets. Default: the most of any record.
    fill : mapping of str to float, optional
        What stands behind the last step of a record that has fewer; it must fit their dtype. Default: 0.
    source : str, optional
        Name of the file, for errors.
    first : int, optional
        Number of the first record in its file, for errors.
    verify : bool, optional
        Whether the CRC of every record's data is checked (those of lengths always are).

    Raises
    ------
    RecordError
        If a record is truncated or corrupt, lacks a feature, has one of another kind or size, or more
        steps than `steps`.

    Examples
    --------
    >>> from xee_tf.records import encode_records
    >>> layout = RecordLayout((Feature.of("x", "f4", 1),), (Feature.of("t", "f4", 1),))
    >>> arrays = [np.array([1, 2], "f4"), np.array([[3, 4, 5], [6, 7, 8]], "f4")]
    >>> valid = np.array([[True, True, True], [False, True, False]])
    >>> found = decode_records(encode_records(layout, arrays, keep_steps=[valid]).buffer.data, layout)
    >>> found.sequences["t"][:, :, 0].tolist(), found.lengths["t"].tolist()
    ([[3.0, 4.0, 5.0], [7.0, 0.0, 0.0]], [3, 1])
    """
    one = partial(_parse, sequences=layout.sequences is not None)
    frames = Frames.of(buffer, source, first, one, blobs=True)
    known = list(dict.fromkeys(_order(each) for each in (*orders, layout)))
    sequences = layout.sequences or ()
    wanted = Wanted(_names(layout.context), _names(sequences), pass_others=True)
    parts = _read(frames, known, wanted, verify, exact=layout.exact)
    held = [_held(parts, feature, in_sequence=False) for feature in layout.context]
    lists = [_held(parts, feature, in_sequence=True) for feature in sequences]
    _check_all(frames, layout, [*held, *lists])
    context = {
        feature.name: _gathered(feature, mine, frames.count)
        for feature, mine in zip(layout.context, held, strict=True)
    }
    lengths = {
        feature.name: _lengths(mine, frames.count) for feature, mine in zip(sequences, lists, strict=True)
    }
    room = _room(lengths, steps or {}, frames)
    fills = fill or {}
    series = {
        feature.name: _spread(feature, mine, frames.count, room[feature.name], fills.get(feature.name, 0))
        for feature, mine in zip(sequences, lists, strict=True)
    }
    return Records(frames.count, context, series, lengths)


def decode_features(
    buffer: bytes | memoryview,
    orders: list[Order],
    wanted: Collection[str] | None = None,
    *,
    source: str = "TFRecord",
    first: int = 0,
    verify: bool = True,
) -> list[FeatureValues]:
    """The features that framed Examples hold, whichever they are; for the options see `decode_records`.

    Records may lack some features of `orders`, those that are known from other buffers of the file; what is
    learned here is added. Values are copies, of `wanted` features only. A single byte string is read as a
    string. Records are numbered from `first` on. SequenceExamples are refused.

    Examples
    --------
    >>> from xee_tf.records import encode_records
    >>> layout = RecordLayout((Feature.of("B4", "f4", 1),))
    >>> encoded = encode_records(layout, [np.array([0.25, 0.5], "f4")])
    >>> [part] = decode_features(encoded.buffer.data, [])
    >>> part.feature.name, part.records.tolist(), part.values.tolist()
    ('B4', [0, 1], [[0.25], [0.5]])
    """
    frames = Frames.of(buffer, source, first, _parse_row, blobs=False)
    parts = _read(frames, orders, Wanted(wanted), verify)
    return [
        FeatureValues(
            part.feature, part.place, part.records + first, _own(part.values, part.feature.name, wanted)
        )
        for part in parts
    ]


def _read(
    frames: Frames, orders: list[Order], wanted: Wanted, verify: bool, *, exact: bool = True
) -> list[FeatureValues]:
    """The features of records; where they are not `exact`, records are not built alike."""
    template = find_alike(frames, orders) if exact else None
    if verify:
        frames.verify(None if template is None else template.varying)
    return read_varied(frames, orders, wanted) if template is None else views(frames, template)


def _own(values: Any, name: str, wanted: Collection[str] | None) -> Any:
    """A copy: views would keep all of the buffer."""
    if values is None or (wanted is not None and name not in wanted):
        return None
    return join([values]) if isinstance(values, Ragged) else values.copy()


# -- One record at a time ----------------------------------------------------------------------------


def _parse(data: memoryview, where: str, *, sequences: bool = False) -> Parsed:
    try:
        return decode_sequence_example(data) if sequences else (decode_example(data), {})
    except RecordError as error:
        raise RecordError(f"{where}: {error}") from None


def _parse_row(data: memoryview, where: str) -> Parsed:
    """An Example; a record whose series would be left out without a word is refused."""
    try:
        context, series = decode_sequence_example(data)
    except RecordError:  # field 2, which an Example does not have, may hold anything
        context, series = _parse(data, where)
    if series:
        raise RecordError(
            f"{where} is a SequenceExample with the series {list(series)}, and a table has only Examples. "
            "Open the export's mixer or manifest with xee_tf.open_image, or the file with xee_tf.tf_dataset."
        )
    return context, {}


# -- The features of a layout ------------------------------------------------------------------------


def _names(features: Sequence[Feature]) -> frozenset[str]:
    return frozenset(feature.name for feature in features)


@lru_cache(maxsize=64)
def _order(layout: RecordLayout) -> Order:
    """The order of features of records of a layout."""
    context, sequences = (
        tuple(Feature.stored(feature.name, feature.kind, feature.size) for feature in part)
        for part in (layout.context, layout.sequences or ())
    )
    return Order(context, sequences)


def _same(found: Feature, expected: Feature) -> bool:
    """Whether a feature has the kind and the size that it must have."""
    return (found.kind, found.size) == (expected.kind, expected.size) and found.dtype != STRINGS


def _held(parts: Sequence[FeatureValues], feature: Feature, *, in_sequence: bool) -> list[FeatureValues]:
    """The parts that hold a feature as it must be."""
    return [
        part
        for part in parts
        if part.feature.name == feature.name and (part.steps is not None) == in_sequence
        if _same(part.feature, feature) or (part.steps is not None and not part.steps.any())
    ]


def _is_whole(parts: Sequence[FeatureValues], count: int) -> bool:
    """Whether one part has all records."""
    return len(parts) == 1 and len(parts[0].records) == count


def _check_all(frames: Frames, layout: RecordLayout, held: Sequence[Sequence[FeatureValues]]) -> None:
    """Refuse the first record that lacks a feature, or has one of another kind or size."""
    if all(_is_whole(parts, frames.count) for parts in held):
        return
    wrong = np.zeros(frames.count, bool)
    for parts in held:
        lacking = np.ones(frames.count, bool)
        for part in parts:
            lacking[part.records] = False
        wrong |= lacking
    if not wrong.any():
        return
    record = int(wrong.argmax())
    scalars, lists = frames.parse(record)
    try:
        for feature in layout.context:
            if feature.name not in scalars and layout.sequences is None:
                known = ", ".join(map(repr, scalars))
                raise RecordError(f"there is no feature {feature.name!r}, only {known}.")
            if feature.name not in scalars:
                raise RecordError(f"there is no context {feature.name!r}, only {list(scalars)}.")
            word = "feature" if layout.sequences is None else "context"
            check_values(feature, scalars[feature.name], f"{word} {feature.name!r}")
        for feature in layout.sequences or ():
            if feature.name not in lists:
                raise RecordError(f"there is no feature list {feature.name!r}, only {list(lists)}.")
            for number, values in enumerate(lists[feature.name]):
                check_values(feature, values, f"step {number} of feature {feature.name!r}")
    except RecordError as error:
        raise RecordError(f"{frames.name(record)}: {error}") from None
    raise AssertionError(f"{frames.name(record)} was not read")  # what is parsed alone is always read


def _gathered(feature: Feature, parts: Sequence[FeatureValues], count: int) -> npt.NDArray[Any]:
    """The values of all records, shape (count, size)."""
    if len(parts) == 1:
        only: npt.NDArray[Any] = np.asarray(parts[0].values)
        return only
    out = np.empty((count, feature.size), STORED[feature.kind])
    for part in parts:
        out[part.records] = part.values
    return out


def _lengths(parts: Sequence[FeatureValues], count: int) -> npt.NDArray[np.int64]:
    """Steps that each record has."""
    if _is_whole(parts, count) and parts[0].steps is not None:
        return parts[0].steps
    lengths = np.zeros(count, np.int64)
    for part in parts:
        lengths[part.records] = 0 if part.steps is None else part.steps
    return lengths


def _room(
    lengths: Mapping[str, npt.NDArray[np.int64]], steps: Mapping[str, int], frames: Frames
) -> dict[str, int]:
    """Steps that the array of each sequence gets."""
    room = {}
    for name, counts in lengths.items():
        most = int(counts.max(initial=0))
        limit = steps.get(name, most)
        if most > limit:
            raise RecordError(
                f"{frames.name(int((counts > limit).argmax()))}: feature {name!r} has more than "
                f"the {limit} steps expected: say how many there are at most, with "
                f"tensor_depths={{{name!r}: steps}}."
            )
        room[name] = limit
    return room


def _spread(
    feature: Feature, parts: Sequence[FeatureValues], count: int, room: int, fill: float
) -> npt.NDArray[Any]:
    """An array of shape (count, room, size) of all steps."""
    if len(parts) == 1:
        whole: npt.NDArray[Any] = np.asarray(parts[0].values)
        if whole.size == count * room * feature.size:
            return whole.reshape(count, room, feature.size).astype(STORED[feature.kind], copy=False)
    wide = np.full((count, room, feature.size), fill, STORED[feature.kind])
    for part in parts:
        values: Any = part.values
        if part.steps is None or not part.steps.any():
            continue
        if values.ndim == 3:
            wide[:, : values.shape[1]] = values
        else:
            rows, columns = np.nonzero(np.arange(room) < part.steps[:, None])
            wide[part.records[rows], columns] = values
    return wide
