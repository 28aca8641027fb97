"""Encode Examples and SequenceExamples directly from numpy arrays, without protobuf objects or TensorFlow.

* Records whose values all have a fixed length (floats and blobs, if no steps are omitted) are the rows of a
  matrix, which is filled from a template and then with one strided copy per feature.
* Integers, byte strings and omitted steps make lengths vary. Such records are joined from byte strings of
  different lengths; see `xee_tf.records.ragged`. All lengths are computed first; the bytes that precede the
  values are encoded once per distinct length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import copy_in_range
from xee_tf.errors import RecordError
from xee_tf.records.crc import range_crcs, row_crcs
from xee_tf.records.feature import Feature
from xee_tf.records.framing import FOOTER, HEADER, frame_header, mask_crcs
from xee_tf.records.layout import (
    RecordLayout,
    Slot,
    context_head,
    context_template,
    list_head,
    record_template,
    step_head,
)
from xee_tf.records.ragged import Piece, Prefixed, Ragged, join
from xee_tf.varints import encode_varints, varint_rows
from xee_tf.wire import field_head

__all__ = ["Encoded", "encode_records"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_BATCH_BYTES = 1 << 20  # bytes encoded at a time, so that records are still in the cache for their checksums
_VARIED_BYTES = 1 << 22  # the same for records of different lengths: an upper limit
_BATCH_INTEGERS = 1 << 16  # integers of a feature encoded at a time; temporary arrays stay in the cache


@dataclass(frozen=True, slots=True)
class Encoded:
    """Consecutive framed records.

    Parameters
    ----------
    buffer : ndarray of uint8, shape (bytes,)
        The content of an uncompressed TFRecord file, contiguous.
    offsets : ndarray of int64, shape (records + 1,)
        The offset of each record, and of the end of the last one.
    """

    buffer: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1


def encode_records(
    layout: RecordLayout,
    arrays: Sequence[Array | Ragged],
    keep: Mask | None = None,
    *,
    keep_steps: Sequence[Mask | None] | None = None,
    out: npt.NDArray[np.uint8] | None = None,
) -> Encoded:
    """Encode and frame records as TensorFlow's TFRecordWriter does.

    Parameters
    ----------
    layout : RecordLayout
        The features of a record.
    arrays : sequence of ndarray or Ragged
        One array per feature: the context, then the sequences. The shape is ``(records, ...)`` with ``size``
        values per record in the context, and ``(records, steps, ...)`` with ``size`` values per step in
        sequences. Any strides are supported, also overlapping views. Byte strings are Ragged, with ``size``
        strings per record, record by record.
    keep : ndarray of bool, shape (records,), optional
        Records to write; records with False are omitted. Default: all.
    keep_steps : sequence of (ndarray of bool or None), optional
        For each sequence the steps to write, shape (records, steps); steps with False are omitted. For the
        first ``lengths[i]`` steps of each record, pass ``np.arange(steps) < lengths[:, None]``. Default: all.
    out : ndarray of uint8, shape (bytes,), optional
        Memory for the records, which is used if all have the same length and it is large enough. The result
        is then valid until the memory is used again.

    Returns
    -------
    Encoded
        The framed records.

    Raises
    ------
    RecordError
        If the shape or dtype of an array does not match its feature, or a number does not fit into int64.

    Examples
    --------
    >>> layout = RecordLayout((Feature.of("slope", "f4", 1),), (Feature.of("ndvi", "f4", 1),))
    >>> arrays = [np.zeros(5, "f4"), np.zeros((5, 12), "f4")]
    >>> valid = np.arange(12) < np.array([[12], [3], [0], [1], [12]])
    >>> np.diff(encode_records(layout, arrays, keep_steps=[valid]).offsets).tolist()
    [171, 79, 49, 59, 171]
    """
    sequences = layout.sequences or ()
    masks = [None] * len(sequences) if keep_steps is None else list(keep_steps)
    if len(masks) != len(sequences):
        raise RecordError(f"Expected {len(sequences)} masks of steps, one per sequence; got {len(masks)}.")
    count = _check(layout, arrays, masks, keep)
    columns: list[Any] = list(arrays)
    if keep is not None and not keep.all():
        chosen = np.flatnonzero(keep)
        columns = [
            _rows(feature, array, chosen) for feature, array in zip(layout.features, columns, strict=True)
        ]
        masks = [None if mask is None else mask[chosen] for mask in masks]
        count = len(chosen)
    if not count:
        return Encoded(np.empty(0, np.uint8), np.zeros(1, np.int64))
    masks = [None if mask is None or mask.all() else mask for mask in masks]
    steps = tuple(array.shape[1] for array in columns[len(layout.context) :])
    template = record_template(layout.context, sequences, steps)
    if layout.fixed_size and all(mask is None for mask in masks):
        batch = max(4, _BATCH_BYTES // template.size)
        size = count * template.size
        memory = np.empty(size, np.uint8) if out is None or len(out) < size else out[:size]
        buffer = memory.reshape(count, template.size)
        for start in range(0, count, batch):
            block = buffer[start : start + batch]
            template.fill(block, [array[start : start + batch] for array in columns])
            crcs = mask_crcs(row_crcs(block[:, HEADER:-FOOTER], template.varying))
            block[:, -FOOTER:] = crcs.astype("<u4").view(np.uint8).reshape(-1, FOOTER)
        return Encoded(buffer.reshape(-1), np.arange(count + 1, dtype=np.int64) * template.size)
    largest = max([slot.feature.size * (slot.steps or 1) for slot in template.slots])
    batch = max(1, min(_VARIED_BYTES // template.size, _BATCH_INTEGERS // max(1, largest)))
    parts = [
        _encode_varied(
            layout,
            [_rows(feature, array, rows) for feature, array in zip(layout.features, columns, strict=True)],
            [None if mask is None else mask[rows] for mask in masks],
            rows.stop - rows.start,
        )
        for rows in (slice(start, min(start + batch, count)) for start in range(0, count, batch))
    ]
    sizes = np.concatenate([part.sizes for part in parts])
    return Encoded(np.concatenate([part.data for part in parts]), np.concatenate([[0], np.cumsum(sizes)]))


def _check(
    layout: RecordLayout, arrays: Sequence[Array | Ragged], masks: Sequence[Mask | None], keep: Mask | None
) -> int:
    """Check the arrays and return the number of records."""
    if len(arrays) != len(layout.features):
        raise RecordError(f"Expected {len(layout.features)} arrays, one per feature; got {len(arrays)}.")
    count = len(keep) if keep is not None else _count(layout, arrays)
    pairs = list(zip(layout.features, arrays, strict=True))
    for feature, array in pairs[: len(layout.context)]:
        if isinstance(array, Ragged):
            shape: tuple[int, ...] = (len(array),)
            fits = feature.holds_strings and len(array) == count * feature.size
        else:
            shape = array.shape
            fits = not feature.holds_strings and len(array) == count and array.size == count * feature.size
        if not fits:
            raise RecordError(
                f"Band {feature.name!r} has shape {shape}; expected {count} records of {feature.size} values "
                "each."
            )
    for (feature, array), mask in zip(pairs[len(layout.context) :], masks, strict=True):
        assert not isinstance(array, Ragged), "sequences of byte strings are not supported"
        if array.ndim < 2 or len(array) != count or array.size != count * array.shape[1] * feature.size:
            raise RecordError(
                f"Band {feature.name!r} has shape {array.shape}; expected ({count}, steps, ...) with "
                f"{feature.size} values per step."
            )
        if mask is not None and (mask.shape != array.shape[:2] or mask.dtype != bool):
            raise RecordError(
                f"The mask of the steps of band {feature.name!r} has dtype {mask.dtype} and shape "
                f"{mask.shape}; expected bool and {array.shape[:2]}."
            )
    for feature, array in pairs:
        if not isinstance(array, Ragged) and not _can_store(feature, array.dtype):
            raise RecordError(
                f"Band {feature.name!r} has dtype {array.dtype}, which a feature of dtype {feature.dtype} "
                "cannot store: convert the band first."
            )
    return count


def _count(layout: RecordLayout, arrays: Sequence[Array | Ragged]) -> int:
    """Return the number of records, from the first array that determines it."""
    for feature, array in zip(layout.features, arrays, strict=True):
        if not isinstance(array, Ragged):
            return len(array)
        if feature.size:
            return len(array) // feature.size
    return 0


def _can_store(feature: Feature, dtype: np.dtype[Any]) -> bool:
    if feature.kind == "int64":
        return dtype.kind in "biu"
    return np.can_cast(dtype, feature.dtype, "same_kind" if feature.kind == "float" else "safe")


def _rows(feature: Feature, array: Any, rows: slice | npt.NDArray[np.intp]) -> Any:
    """Select the values of some records."""
    if not isinstance(array, Ragged) or feature.size == 1:
        return array[rows]
    if isinstance(rows, slice):
        return array[feature.size * rows.start : feature.size * rows.stop]
    return array[(feature.size * rows[:, None] + np.arange(feature.size)).reshape(-1)]


def _encode_varied(
    layout: RecordLayout, columns: Sequence[Any], masks: Sequence[Mask | None], count: int
) -> Ragged:
    """Encode and frame records of different lengths."""
    inner = len(layout.context)
    pairs = zip(layout.context, columns[:inner], strict=True)
    context: list[Piece] = []
    for fixed_size, group in groupby(pairs, key=lambda pair: pair[0].fixed_size):
        if fixed_size:
            features, arrays = zip(*group, strict=True)
            context.append(_matrix(features, arrays))
        else:
            context += [
                Prefixed.of(_values(feature, array, count), partial(context_head, feature))
                for feature, array in group
            ]
    lists: list[Piece] = [
        Prefixed.of(_steps(feature, array, mask), partial(list_head, feature))
        for feature, array, mask in zip(layout.sequences or (), columns[inner:], masks, strict=True)
    ]
    record: list[Piece] = []
    for number, part in ((1, context), (2, lists)):
        if part:
            record += [Ragged.from_numbers(partial(field_head, number), _total(part)), *part]
    total = _total(record)
    footer = Ragged(np.zeros(FOOTER, np.uint8), np.zeros_like(total), np.full_like(total, FOOTER))
    framed = join([Ragged.from_numbers(frame_header, total), *record, footer])
    ends = framed.starts + framed.sizes - FOOTER
    crcs = mask_crcs(range_crcs(framed.data, framed.starts + HEADER, ends))
    framed.data[ends[:, None] + np.arange(FOOTER)] = crcs.astype("<u4").view(np.uint8).reshape(-1, FOOTER)
    return framed


def _total(pieces: Sequence[Piece]) -> npt.NDArray[np.int64]:
    """Return the total length in bytes of each record's pieces."""
    total = pieces[0].sizes.copy()
    for piece in pieces[1:]:
        total += piece.sizes
    return total


def _matrix(features: tuple[Feature, ...], arrays: Sequence[Array]) -> Ragged:
    """Encode adjacent context entries whose values have a fixed length."""
    template = context_template(features)
    matrix = np.empty((len(arrays[0]), template.size), np.uint8)
    template.fill(matrix, arrays)
    return Ragged.packed(matrix.reshape(-1), np.full(len(matrix), template.size))


def _values(feature: Feature, array: Any, count: int) -> Ragged:
    """Encode the integers or byte strings of a feature, for each record."""
    if feature.kind == "int64":
        rows = array.reshape(count, feature.size)
        if feature.size == 1:
            varints, lengths = varint_rows(rows[:, 0])
            starts = np.arange(len(rows)) * varints.shape[1]
            return Ragged(varints.reshape(-1), starts, lengths.astype(np.int64))
        data, sizes = encode_varints(np.ascontiguousarray(rows))
        return Ragged.packed(data, sizes.reshape(rows.shape).sum(axis=1, dtype=np.int64))
    if feature.size == 1:
        strings: Ragged = array
        return strings
    joined = join([Prefixed.of(array, partial(field_head, 1))])
    return Ragged.packed(joined.data, joined.sizes.reshape(count, feature.size).sum(axis=1))


def _steps(feature: Feature, array: Array, mask: Mask | None) -> Ragged:
    """Encode the steps of a sequence, for each record."""
    kept = array.reshape(-1, feature.size) if mask is None else array[mask].reshape(-1, feature.size)
    counts = np.full(len(array), array.shape[1]) if mask is None else mask.sum(axis=1, dtype=np.int64)
    if feature.fixed_size:
        head = np.frombuffer(step_head(feature, feature.max_bytes), np.uint8)
        stride = len(head) + feature.max_bytes
        steps = np.empty((len(kept), stride), np.uint8)
        steps[:, : len(head)] = head
        copy_in_range(Slot(feature, len(head)).view(steps, kept.shape), kept, f"Band {feature.name!r}")
        return Ragged.packed(steps.reshape(-1), counts * stride)
    joined = join([Prefixed.of(_values(feature, kept, len(kept)), partial(step_head, feature))])
    ends = np.concatenate([[0], np.cumsum(joined.sizes)])
    return Ragged.packed(joined.data, np.diff(ends[np.concatenate([[0], np.cumsum(counts)])]))
