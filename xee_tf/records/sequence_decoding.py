"""Reading `tf.train.SequenceExample` records into numpy arrays, all of a buffer at a time.

Three ways, the fastest that fits: records whose constant bytes all equal a template's are not parsed,
their values are views of the buffer; others are walked through side by side, see
`xee_tf.records.sequence_walk`; what neither takes (unknown fields, lists that are not packed) is
parsed alone by `decode_sequence_example`, as a protobuf parser would.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.crc import record_crcs
from xee_tf.records.framing import FOOTER, FRAMING, HEADER, frame_offsets, mask_crcs
from xee_tf.records.ragged import gather, groups
from xee_tf.records.sequence import SequenceLayout
from xee_tf.records.sequence_template import Template, make_template
from xee_tf.records.sequence_walk import STORED, Found, Order, walk
from xee_tf.records.sequence_wire import decode_sequence_example, read_sequence_layout
from xee_tf.records.wire import conform

__all__ = ["Sequences", "decode_sequences"]

_MAX_ORDERS = 32  # orders of features that are looked for: protobuf maps have none of their own
_BATCH_BYTES = 1 << 21  # of records looked at at a time: their scratch arrays stay in cache


@dataclass(frozen=True, slots=True)
class Sequences:
    """The values of consecutive SequenceExamples.

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


def decode_sequences(
    buffer: bytes | memoryview,
    layout: SequenceLayout,
    *,
    steps: int | Mapping[str, int] | None = None,
    fill: float | Mapping[str, float] = 0,
    source: str = "TFRecord",
    first: int = 0,
    verify: bool = True,
) -> Sequences:
    """The values of framed records that hold the features of `layout`.

    Parameters
    ----------
    buffer : bytes-like
        Whole framed records.
    layout : SequenceLayout
        Features that every record must have, in any order and among others.
    steps : int or mapping of str to int, optional
        Steps that the arrays of sequences get, of all or by name. Default: the most of any record.
    fill : float or mapping of str to float, optional
        What stands behind the last step of a record that has fewer, of all or by name; it must fit the
        values' dtypes.
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
    >>> from xee_tf.records import Feature
    >>> layout = SequenceLayout((Feature.of("x", "f4", 1),), (Feature.of("t", "f4", 1),))
    >>> x, t = np.array([1, 2], "f4"), np.array([[3, 4, 5], [6, 7, 8]], "f4")
    >>> valid = np.array([[True, True, True], [False, True, False]])
    >>> found = decode_sequences(layout.encode([x], [t], keep_steps=valid).buffer.data, layout)
    >>> found.sequences["t"][:, :, 0].tolist(), found.lengths["t"].tolist()
    ([[3.0, 4.0, 5.0], [7.0, 0.0, 0.0]], [3, 1])
    """
    view = memoryview(buffer).cast("B")
    raw = np.frombuffer(view, np.uint8)
    offsets = _offsets(view, raw, source, first)
    count = len(offsets) - 1
    fills = fill if isinstance(fill, Mapping) else {feature.name: fill for feature in layout.sequences}
    fixed = _fixed(raw, offsets, layout)
    if verify:
        _verify(raw, offsets, source, first, fixed.template.varying if fixed else None)
    if fixed:
        lengths = {name: np.full(count, array.shape[1]) for name, array in fixed.sequences.items()}
        room = _room(lengths, steps, source, first)
        arrays = {name: _widened(array, room[name], fills[name]) for name, array in fixed.sequences.items()}
        return Sequences(count, fixed.context, arrays, lengths)
    found = _merged(list(_find(raw, offsets, layout, source, first)), layout)
    lengths = {name: counts for name, (_, counts) in found.sequences.items()}
    room = _room(lengths, steps, source, first)
    arrays = {
        name: _spread(values, counts, room[name], fills[name])
        for name, (values, counts) in found.sequences.items()
    }
    return Sequences(count, found.context, arrays, lengths)


def _room(
    lengths: dict[str, npt.NDArray[np.int64]], steps: int | Mapping[str, int] | None, source: str, first: int
) -> dict[str, int]:
    """Steps that the array of each sequence gets."""
    room = {}
    for name, counts in lengths.items():
        most = int(counts.max(initial=0))
        limit = steps.get(name) if isinstance(steps, Mapping) else steps
        if limit is not None and most > limit:
            raise RecordError(
                f"{source}: record {first + int((counts > limit).argmax())}: feature {name!r} has more than "
                f"the {limit} steps expected: say how many there are at most, with "
                f"tensor_depths={{{name!r}: steps}}."
            )
        room[name] = most if limit is None else limit
    return room


def _widened(array: npt.NDArray[Any], room: int, fill: float) -> npt.NDArray[Any]:
    """Arrays of shape (records, steps, size) with more steps; as they are where none are missing."""
    count, steps, size = array.shape
    if steps == room:
        return array
    wide = np.full((count, room, size), fill, array.dtype)
    wide[:, :steps] = array
    return wide


def _spread(
    values: npt.NDArray[Any], counts: npt.NDArray[np.int64], room: int, fill: float
) -> npt.NDArray[Any]:
    """An array of shape (records, room, size) from all steps, shape (all steps, size)."""
    count, size = len(counts), values.shape[1]
    if len(values) == count * room:
        return values.reshape(count, room, size)
    wide = np.full((count, room, size), fill, values.dtype)
    wide[np.arange(room) < counts[:, None]] = values
    return wide


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Records that differ from a template in nothing but values; these are views of them."""

    template: Template
    context: dict[str, npt.NDArray[Any]]
    sequences: dict[str, npt.NDArray[Any]]


def _fixed(
    raw: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], layout: SequenceLayout
) -> _Fixed | None:
    """The values of the records if all are built like the first; their CRCs are not looked at."""
    count = len(offsets) - 1
    if not count or not layout.exact or len(raw) != count * int(offsets[1]):
        return None
    block = raw.reshape(count, -1)
    size = block.shape[1]
    place = np.zeros(1, np.int64), np.array([HEADER]), np.array([size - FOOTER])
    order = layout
    right, found = walk(raw, *place, _names(order), order)
    if not right[0]:
        try:
            order = read_sequence_layout([raw[HEADER : size - FOOTER].data])
        except RecordError:
            return None  # it is parsed again, and then said what is wrong
        right, found = walk(raw, *place, _names(order), order)
    if not right[0] or not order.exact:
        return None
    counts = tuple(int(found.sequences[feature.name][1][0]) for feature in order.sequences)
    template = make_template(order.context, order.sequences, counts)
    if len(template.data) != size or not _built_alike(block, template):
        return None
    slots = {(slot.steps is None, slot.feature.name): slot for slot in template.slots}
    context, sequences = {}, {}
    for feature in layout.context:
        slot = slots.get((True, feature.name))
        if not slot or (slot.feature.kind, slot.feature.size) != (feature.kind, feature.size):
            return None
        context[feature.name] = slot.place(block, (count, feature.size))
    for feature in layout.sequences:
        slot = slots.get((False, feature.name))
        if not slot or slot.steps is None:
            return None
        if not slot.steps:  # nothing to be told about its kind
            sequences[feature.name] = np.empty((count, 0, feature.size), STORED[feature.kind])
        elif (slot.feature.kind, slot.feature.size) != (feature.kind, feature.size):
            return None
        else:
            sequences[feature.name] = slot.place(block, (count, slot.steps, feature.size))
    return _Fixed(template, context, sequences)


def _built_alike(block: npt.NDArray[np.uint8], template: Template) -> bool:
    """Whether the constant bytes of records that are the rows of a matrix are those of a template."""
    rows = max(1, _BATCH_BYTES // block.shape[1])
    batches = (block[start : start + rows] for start in range(0, len(block), rows))
    return not any(((batch ^ template.data) & template.constant).any() for batch in batches)


def _find(
    raw: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    layout: SequenceLayout,
    source: str,
    first: int,
) -> Iterator[Found]:
    """The values of all records, in parts: those that have their features in one order, some at a time."""
    count = len(offsets) - 1
    begins, ends = offsets[:-1] + HEADER, offsets[1:] - FOOTER
    orders = [_names(layout)]
    batch = max(1, _BATCH_BYTES * count // max(1, len(raw)))
    for start in range(0, count, batch):
        rows = np.arange(start, min(start + batch, count))
        for order in tuple(orders):
            right, found = walk(raw, rows, begins[rows], ends[rows], order, layout)
            if right.any():
                yield found
            else:
                orders.remove(order)
            rows = rows[~right]
        while len(rows):
            row = rows[:1]
            try:
                order, alone = _alone(raw[begins[row[0]] : ends[row[0]]].data, row, layout)
            except RecordError as error:
                raise RecordError(f"{source}: record {first + int(row[0])}: {error}") from None
            if len(orders) < _MAX_ORDERS and order not in orders:
                right, found = walk(raw, rows, begins[rows], ends[rows], order, layout)
                if right[0]:
                    orders.append(order)
                    yield found
                    rows = rows[~right]
                    continue
            yield alone
            rows = rows[1:]


def _alone(data: memoryview, row: npt.NDArray[np.int64], layout: SequenceLayout) -> tuple[Order, Found]:
    """The order of the features of one record, and their values if they are what they must be."""
    scalars, lists = decode_sequence_example(data)
    context, sequences = {}, {}
    for feature in layout.context:
        if feature.name not in scalars:
            raise RecordError(f"there is no context {feature.name!r}, only {list(scalars)}.")
        context[feature.name] = conform(feature, scalars[feature.name], f"context {feature.name!r}")
    for feature in layout.sequences:
        if feature.name not in lists:
            raise RecordError(f"there is no feature list {feature.name!r}, only {list(lists)}.")
        steps = [
            conform(feature, values, f"step {number} of feature {feature.name!r}")
            for number, values in enumerate(lists[feature.name])
        ]
        nothing = np.empty((0, feature.size), STORED[feature.kind])
        sequences[feature.name] = (np.concatenate([nothing, *steps]), np.array([len(steps)]))
    return (tuple(scalars), tuple(lists)), Found(row, context, sequences)


def _names(layout: SequenceLayout) -> Order:
    return (tuple(f.name for f in layout.context), tuple(f.name for f in layout.sequences))


def _merged(parts: list[Found], layout: SequenceLayout) -> Found:
    """The values of all records in their order."""
    rows = np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)])
    ascending = bool((np.diff(rows) > 0).all())
    order = slice(None) if ascending else np.argsort(rows, kind="stable")
    context, sequences = {}, {}
    for feature in layout.context:
        nothing = np.empty((0, feature.size), STORED[feature.kind])
        values = np.concatenate([nothing, *(part.context[feature.name] for part in parts)])
        context[feature.name] = values[order]
    for feature in layout.sequences:
        nothing = np.empty((0, feature.size), STORED[feature.kind])
        pairs = [part.sequences[feature.name] for part in parts]
        values = np.concatenate([nothing, *(values for values, _ in pairs)])
        counts = np.concatenate([np.empty(0, np.int64), *(counts for _, counts in pairs)])
        # Steps go where their records go.
        steps = slice(None) if ascending else np.argsort(np.repeat(rows, counts), kind="stable")
        sequences[feature.name] = (values[steps], counts[order])
    return Found(rows[order], context, sequences)


def _offsets(view: memoryview, raw: npt.NDArray[np.uint8], source: str, first: int) -> npt.NDArray[np.int64]:
    """Where each frame starts, and where the last one ends; the lengths' CRCs are checked."""
    size = int.from_bytes(view[:8], "little") + FRAMING
    if len(view) >= FRAMING and len(view) % size == 0:
        heads = raw.reshape(-1, size)[:, :HEADER]
        offsets = np.arange(len(heads) + 1, dtype=np.int64) * size
        if (heads == heads[0]).all() and _lengths_are_right(heads[:1]):
            return offsets
    # Where a frame starts is known only when the one before has been looked at: all that can be done is
    # to do nothing else in this loop.
    starts, position, end, read = [], 0, len(view) - FRAMING, struct.Struct("<Q").unpack_from
    while position <= end:
        starts.append(position)
        position += read(view, position)[0] + FRAMING
    offsets = np.array([*starts, position], np.int64) if position == len(view) else np.empty(0, np.int64)
    if not len(offsets) or not _lengths_are_right(gather(raw, offsets[:-1], HEADER)):
        return frame_offsets(view, source=source, first=first)  # it says what is wrong
    return offsets


def _lengths_are_right(heads: npt.NDArray[np.uint8]) -> bool:
    """Whether the CRCs in the headers of frames, shape (n, 12), are those of the lengths."""
    stored = np.ascontiguousarray(heads[:, 8:]).view("<u4")[:, 0]
    return bool((mask_crcs(record_crcs(heads[:, :8])) == stored).all())


def _verify(
    raw: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    source: str,
    first: int,
    varying: tuple[tuple[int, int], ...] | None = None,
) -> None:
    """Check the CRCs of the data of all records."""
    wrong = np.zeros(len(offsets) - 1, bool)
    for size, rows in groups(np.diff(offsets)):
        alike = isinstance(rows, slice)
        frames = raw.reshape(-1, size) if alike else gather(raw, offsets[:-1][rows], size)
        stored = np.ascontiguousarray(frames[:, size - FOOTER :]).view("<u4")[:, 0]
        wrong[rows] = mask_crcs(record_crcs(frames[:, HEADER : size - FOOTER], varying)) != stored
    if wrong.any():
        raise RecordError(
            f"{source}: record {first + int(wrong.argmax())} is corrupt: the checksum of its data does not "
            "match."
        )
