"""Writing Examples and SequenceExamples straight from numpy arrays: no protobuf objects, no TensorFlow.

* Records whose values all take a fixed number of bytes (floats, blobs, every step written) are the rows of
  a matrix, filled with one template and then with one strided copy a feature.
* Where integers, byte strings or steps that are left out make sizes vary, records are put together from
  pieces of unequal length, see `xee_tf.records.ragged`: all sizes first, the bytes in front of values looked
  up by size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.crc import crcs_between, record_crcs
from xee_tf.records.feature import STRINGS, Feature
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
from xee_tf.records.ragged import Headed, Piece, Ragged, join
from xee_tf.varints import encode_varints, varint_rows
from xee_tf.wire import field_head

__all__ = ["Encoded", "encode_records"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_BATCH_BYTES = 1 << 20  # of records made at a time, so that their checksums find them in the cache
_VARIED_BYTES = 1 << 22  # the same of records of unequal sizes, at most
_BATCH_INTEGERS = 1 << 16  # of a feature that are made varints at a time: their scratch arrays stay in cache


@dataclass(frozen=True, slots=True)
class Encoded:
    """Framed records, one after the other.

    Parameters
    ----------
    buffer : ndarray of uint8, shape (bytes,)
        Contiguous; what a plain TFRecord file holds.
    offsets : ndarray of int64, shape (records + 1,)
        Where each record starts, and where the last one ends.
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
) -> Encoded:
    """Frame records as TensorFlow's TFRecordWriter does.

    Parameters
    ----------
    layout : RecordLayout
    arrays : sequence of ndarray or Ragged
        One for each feature, those of the context first; any strides, overlapping views too. In the context
        of shape ``(records, ...)`` with ``size`` values per record, in sequences ``(records, steps, ...)``
        with ``size`` values a step. Byte strings are Ragged, ``size`` of them for each record in turn.
    keep : ndarray of bool, shape (records,), optional
        False leaves a record out.
    keep_steps : sequence of (ndarray of bool or None), optional
        For each sequence, of shape (records, steps): False leaves a step out of its record.
        The first ``lengths[i]`` steps of each record are ``np.arange(steps) < lengths[:, None]``.

    Raises
    ------
    RecordError
        If an array does not fit its feature, or a number does not fit into int64.

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
        raise RecordError(f"{len(masks)} masks of steps were given for {len(sequences)} sequences.")
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
    if layout.exact and all(mask is None for mask in masks):
        batch = max(4, _BATCH_BYTES // template.size)
        buffer = np.empty((count, template.size), np.uint8)
        for start in range(0, count, batch):
            block = buffer[start : start + batch]
            template.fill(block, [array[start : start + batch] for array in columns])
            crcs = mask_crcs(record_crcs(block[:, HEADER:-FOOTER], template.varying))
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
    """Check the arrays; how many records there are."""
    if len(arrays) != len(layout.features):
        raise RecordError(f"{len(arrays)} arrays were given for {len(layout.features)} features.")
    count = len(keep) if keep is not None else _count(layout, arrays)
    pairs = list(zip(layout.features, arrays, strict=True))
    for feature, array in pairs[: len(layout.context)]:
        if isinstance(array, Ragged):
            shape: tuple[int, ...] = (len(array),)
            fits = feature.dtype == STRINGS and len(array) == count * feature.size
        else:
            shape = array.shape
            fits = feature.dtype != STRINGS and len(array) == count and array.size == count * feature.size
        if not fits:
            raise RecordError(
                f"Band {feature.name!r} has shape {shape}; expected {count} records of {feature.size} values."
            )
    for (feature, array), mask in zip(pairs[len(layout.context) :], masks, strict=True):
        assert not isinstance(array, Ragged), "steps of strings are not written"
        if array.ndim < 2 or len(array) != count or array.size != count * array.shape[1] * feature.size:
            raise RecordError(
                f"Band {feature.name!r} has shape {array.shape}; expected {count} records of some steps "
                f"of {feature.size} values."
            )
        if mask is not None and (mask.shape != array.shape[:2] or mask.dtype != bool):
            raise RecordError(
                f"The mask of the steps of band {feature.name!r} is {mask.dtype} of shape {mask.shape}; "
                f"expected bool of shape {array.shape[:2]}."
            )
    for feature, array in pairs:
        if not isinstance(array, Ragged) and not _holds(feature, array.dtype):
            raise RecordError(
                f"Band {feature.name!r} has dtype {array.dtype}, which a feature of {feature.dtype} "
                "cannot hold."
            )
    return count


def _count(layout: RecordLayout, arrays: Sequence[Array | Ragged]) -> int:
    """How many records the first array has that tells."""
    for feature, array in zip(layout.features, arrays, strict=True):
        if not isinstance(array, Ragged):
            return len(array)
        if feature.size:
            return len(array) // feature.size
    return 0


def _holds(feature: Feature, dtype: np.dtype[Any]) -> bool:
    if feature.kind == "int64":
        return dtype.kind in "biu"
    return np.can_cast(dtype, feature.dtype, "same_kind" if feature.kind == "float" else "safe")


def _rows(feature: Feature, array: Any, rows: slice | npt.NDArray[np.intp]) -> Any:
    """The values of some records."""
    if not isinstance(array, Ragged) or feature.size == 1:
        return array[rows]
    if isinstance(rows, slice):
        return array[feature.size * rows.start : feature.size * rows.stop]
    return array[(feature.size * rows[:, None] + np.arange(feature.size)).reshape(-1)]


def _encode_varied(
    layout: RecordLayout, columns: Sequence[Any], masks: Sequence[Mask | None], count: int
) -> Ragged:
    """Framed records of unequal sizes."""
    inner = len(layout.context)
    pairs = zip(layout.context, columns[:inner], strict=True)
    context: list[Piece] = []
    for exact, group in groupby(pairs, key=lambda pair: pair[0].exact):
        if exact:
            features, arrays = zip(*group, strict=True)
            context.append(_matrix(features, arrays))
        else:
            context += [
                Headed.of(_values(feature, array, count), partial(context_head, feature))
                for feature, array in group
            ]
    lists: list[Piece] = [
        Headed.of(_steps(feature, array, mask), partial(list_head, feature))
        for feature, array, mask in zip(layout.sequences or (), columns[inner:], masks, strict=True)
    ]
    record: list[Piece] = []
    for number, part in ((1, context), (2, lists)):
        if part:
            record += [Ragged.looked_up(partial(field_head, number), _total(part)), *part]
    total = _total(record)
    footer = Ragged(np.zeros(FOOTER, np.uint8), np.zeros_like(total), np.full_like(total, FOOTER))
    framed = join([Ragged.looked_up(frame_header, total), *record, footer])
    ends = framed.starts + framed.sizes - FOOTER
    crcs = mask_crcs(crcs_between(framed.data, framed.starts + HEADER, ends))
    framed.data[ends[:, None] + np.arange(FOOTER)] = crcs.astype("<u4").view(np.uint8).reshape(-1, FOOTER)
    return framed


def _total(pieces: Sequence[Piece]) -> npt.NDArray[np.int64]:
    total = pieces[0].sizes.copy()
    for piece in pieces[1:]:
        total += piece.sizes
    return total


def _matrix(features: tuple[Feature, ...], arrays: Sequence[Array]) -> Ragged:
    """Neighbouring entries of the context whose values have a fixed size."""
    template = context_template(features)
    matrix = np.empty((len(arrays[0]), template.size), np.uint8)
    template.fill(matrix, arrays)
    return Ragged.packed(matrix.reshape(-1), np.full(len(matrix), template.size))


def _values(feature: Feature, array: Any, count: int) -> Ragged:
    """The bytes of a feature's integers or strings, for each record."""
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
    joined = join([Headed.of(array, partial(field_head, 1))])
    return Ragged.packed(joined.data, joined.sizes.reshape(count, feature.size).sum(axis=1))


def _steps(feature: Feature, array: Array, mask: Mask | None) -> Ragged:
    """The bytes of the steps of each record, heads included."""
    kept = array.reshape(-1, feature.size) if mask is None else array[mask].reshape(-1, feature.size)
    counts = np.full(len(array), array.shape[1]) if mask is None else mask.sum(axis=1, dtype=np.int64)
    if feature.exact:
        head = np.frombuffer(step_head(feature, feature.max_bytes), np.uint8)
        stride = len(head) + feature.max_bytes
        steps = np.empty((len(kept), stride), np.uint8)
        steps[:, : len(head)] = head
        np.copyto(Slot(feature, len(head)).view(steps, kept.shape), kept, casting="same_kind")
        return Ragged.packed(steps.reshape(-1), counts * stride)
    joined = join([Headed.of(_values(feature, kept, len(kept)), partial(step_head, feature))])
    ends = np.concatenate([[0], np.cumsum(joined.sizes)])
    return Ragged.packed(joined.data, np.diff(ends[np.concatenate([[0], np.cumsum(counts)])]))
