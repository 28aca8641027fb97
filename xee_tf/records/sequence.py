"""Writing `tf.train.SequenceExample` records straight from numpy arrays, one record a pixel.

``SequenceExample{1: context, 2: feature_lists}``: the context is what an Example holds, names with one
list each; a feature list is a name with a list for every step. Records are short and many, so that
everything is done for all of them together:

* Records whose values all have a fixed length (float, bytes, every step written) are the rows of a
  matrix, filled with one template and then with one strided copy a feature.
* Ragged ones, and those with integers, are put together from pieces of unequal length, see
  `xee_tf.records.ragged`: the pieces' sizes first, and the bytes in front of them looked up by size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError, RecordError
from xee_tf.records.crc import record_crcs
from xee_tf.records.example import Encoded, Feature
from xee_tf.records.framing import FOOTER, FRAMING, HEADER, frame_header, mask_crcs
from xee_tf.records.ragged import Ragged, gather, groups, join, windows
from xee_tf.records.sequence_template import (
    Slot,
    Template,
    context_head,
    list_head,
    make_template,
    step_head,
    wrap,
)
from xee_tf.records.varint import encode_varints

__all__ = ["KeepSteps", "SequenceLayout"]

KeepSteps = npt.NDArray[np.bool_] | Sequence[npt.NDArray[np.bool_] | None]
"""Which steps are written: one mask (records, steps) for all sequences, or one or None for each."""

_BATCH_BYTES = 1 << 22  # of records made at a time: their scratch arrays stay in cache


@dataclass(frozen=True, slots=True)
class SequenceLayout:
    """Names, kinds and lengths of a SequenceExample's features, in the order in which they are written.

    Parameters
    ----------
    context : tuple of Feature
        Features of the whole record (scalar bands), of ``size`` values each.
    sequences : tuple of Feature
        Features of every step (array bands), of ``size`` values a step. How many steps there are is
        up to the arrays, and may differ from sequence to sequence.

    Notes
    -----
    Earth Engine's guide says what goes where, and no more; no file of its own is known. That a step is a
    list of one value, and that uint8 is a blob of one byte where `kind_of` makes it bytes, is our choice:
    the one with which ``FixedLenSequenceFeature([], ...)`` reads a band.

    Examples
    --------
    >>> layout = SequenceLayout((Feature.of("slope", "f4", 1),), (Feature.of("ndvi", "f4", 1),))
    >>> slope, ndvi = np.zeros(5, "f4"), np.zeros((5, 12), "f4")
    >>> encoded = layout.encode([slope], [ndvi])
    >>> len(encoded), len(encoded.buffer) == 5 * layout.framed_size(12)
    (5, True)
    >>> valid = np.arange(12) < np.array([[12], [3], [0], [1], [12]])
    >>> np.diff(layout.encode([slope], [ndvi], keep_steps=valid).offsets).tolist()
    [171, 79, 49, 59, 171]
    """

    context: tuple[Feature, ...]
    sequences: tuple[Feature, ...]

    def __post_init__(self) -> None:
        if not self.context and not self.sequences:
            raise OptionError("A record needs at least one band.")
        for features in (self.context, self.sequences):
            names = [feature.name for feature in features]
            for feature in features:
                if names.count(feature.name) > 1:
                    raise OptionError(f"The band {feature.name!r} is there twice: rename one of the two.")
                if feature.size < 1:
                    raise OptionError(f"The band {feature.name!r} has {feature.size} values; expected some.")

    @property
    def features(self) -> tuple[Feature, ...]:
        """All features, those of the context first."""
        return (*self.context, *self.sequences)

    @property
    def exact(self) -> bool:
        """Whether every record of so many steps has the same number of bytes."""
        return all(feature.kind != "int64" for feature in self.features)

    def framed_size(self, steps: int | Sequence[int]) -> int:
        """Bytes of a record and its framing; the most possible where not `exact`, or steps are left out.

        Parameters
        ----------
        steps : int or sequence of int
            Steps of every sequence, or of each.

        Raises
        ------
        OptionError
            If there are not as many numbers as sequences, or one is negative.
        """
        counts = (steps,) * len(self.sequences) if isinstance(steps, int) else tuple(steps)
        if len(counts) != len(self.sequences) or min(counts, default=0) < 0:
            raise OptionError(
                f"steps={steps!r} must be one number >= 0 for each of {len(self.sequences)} bands."
            )
        return len(make_template(self.context, self.sequences, counts).data)

    def encode(
        self,
        context: Sequence[npt.NDArray[Any]],
        sequences: Sequence[npt.NDArray[Any]],
        *,
        keep_steps: KeepSteps | None = None,
        keep: npt.NDArray[np.bool_] | None = None,
    ) -> Encoded:
        """Frame records as TensorFlow's TFRecordWriter does.

        Parameters
        ----------
        context : sequence of ndarray, shape (records, ...)
            One for each feature, with ``size`` values per record; any strides.
        sequences : sequence of ndarray, shape (records, steps, ...)
            One for each feature, with ``size`` values a step; any strides.
        keep_steps : ndarray of bool or sequence of (ndarray of bool or None), optional
            False leaves a step out of its record: shape (records, steps), for all sequences or for each.
            The first ``lengths[i]`` steps of each record are ``np.arange(steps) < lengths[:, None]``.
        keep : ndarray of bool, shape (records,), optional
            False leaves a record out.

        Raises
        ------
        RecordError
            If an array does not fit its feature, or a number does not fit into int64.
        """
        masks = self._masks(sequences, keep_steps)
        count = self._check(context, sequences, masks, keep)
        if keep is not None and not keep.all():
            chosen = np.flatnonzero(keep)
            context = [array[chosen] for array in context]
            sequences = [array[chosen] for array in sequences]
            masks = [None if mask is None else mask[chosen] for mask in masks]
            count = len(chosen)
        if not count:
            return Encoded(np.empty(0, np.uint8), np.zeros(1, np.int64))
        masks = [None if mask is None or mask.all() else mask for mask in masks]
        template = make_template(self.context, self.sequences, tuple(array.shape[1] for array in sequences))
        batch = max(1, _BATCH_BYTES // len(template.data))
        if self.exact and all(mask is None for mask in masks):
            return _encode_fixed(template, [*context, *sequences], count, batch)
        parts = [
            self._encode_varied(
                [array[start : start + batch] for array in context],
                [array[start : start + batch] for array in sequences],
                [None if mask is None else mask[start : start + batch] for mask in masks],
            )
            for start in range(0, count, batch)
        ]
        sizes = np.concatenate([part.sizes for part in parts])
        return Encoded(np.concatenate([part.data for part in parts]), np.concatenate([[0], np.cumsum(sizes)]))

    def _masks(
        self, sequences: Sequence[npt.NDArray[Any]], keep_steps: KeepSteps | None
    ) -> list[npt.NDArray[np.bool_] | None]:
        if keep_steps is None or isinstance(keep_steps, np.ndarray):
            return [keep_steps] * len(sequences)
        if len(keep_steps) != len(sequences):
            raise RecordError(f"{len(keep_steps)} masks of steps were given for {len(sequences)} sequences.")
        return list(keep_steps)

    def _check(
        self,
        context: Sequence[npt.NDArray[Any]],
        sequences: Sequence[npt.NDArray[Any]],
        masks: Sequence[npt.NDArray[np.bool_] | None],
        keep: npt.NDArray[np.bool_] | None,
    ) -> int:
        if (len(context), len(sequences)) != (len(self.context), len(self.sequences)):
            raise RecordError(
                f"{len(context)} arrays of context and {len(sequences)} of sequences were given for "
                f"{len(self.context)} and {len(self.sequences)} features."
            )
        count = len([*context, *sequences][0]) if keep is None else len(keep)
        for feature, array in zip(self.context, context, strict=True):
            if len(array) != count or array.size != count * feature.size:
                raise RecordError(
                    f"Band {feature.name!r} has shape {array.shape}; expected {count} records of "
                    f"{feature.size} values."
                )
        for feature, array, mask in zip(self.sequences, sequences, masks, strict=True):
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
        features = (*self.context, *self.sequences)
        for feature, array in zip(features, [*context, *sequences], strict=True):
            if not np.can_cast(
                array.dtype, feature.dtype, "same_kind" if feature.kind == "float" else "safe"
            ):
                raise RecordError(
                    f"Band {feature.name!r} has dtype {array.dtype}, which a feature of {feature.dtype} "
                    "cannot hold."
                )
        return count

    def _encode_varied(
        self,
        context: Sequence[npt.NDArray[Any]],
        sequences: Sequence[npt.NDArray[Any]],
        masks: Sequence[npt.NDArray[np.bool_] | None],
    ) -> Ragged:
        """Framed records of unequal sizes."""
        columns = []
        for feature, array in zip(self.context, context, strict=True):
            values = _values(feature, array.reshape(len(array), -1))
            columns += [Ragged.looked_up(partial(context_head, feature), values.sizes), values]
        inner = len(columns)
        for feature, array, mask in zip(self.sequences, sequences, masks, strict=True):
            steps = _steps(feature, array, mask)
            columns += [Ragged.looked_up(partial(list_head, feature), steps.sizes), steps]
        count = len(columns[0])
        zero = np.zeros(count, np.int64)
        parts = [(0x0A, columns[:inner]), (0x12, columns[inner:])]
        record = []
        for tag, part in parts:
            if part:
                total = sum((column.sizes for column in part), zero)
                record += [Ragged.looked_up(partial(wrap, tag, b""), total), *part]
        total = sum((column.sizes for column in record), zero)
        footer = Ragged(np.zeros(FOOTER, np.uint8), zero, np.full(count, FOOTER))
        framed = join([Ragged.looked_up(frame_header, total), *record, footer])
        for size, rows in groups(framed.sizes):
            starts = framed.starts[rows]
            crcs = mask_crcs(record_crcs(gather(framed.data, starts + HEADER, size - FRAMING)))
            windows(framed.data, FOOTER)[starts + size - FOOTER] = crcs.astype("<u4").view(f"V{FOOTER}")
        return framed


def _encode_fixed(template: Template, arrays: Sequence[npt.NDArray[Any]], count: int, batch: int) -> Encoded:
    """Framed records that differ from the template in nothing but their values."""
    size = len(template.data)
    buffer = np.empty((count, size), np.uint8)
    for start in range(0, count, batch):
        block = buffer[start : start + batch]
        block[:] = template.data
        for slot, array in zip(template.slots, arrays, strict=True):
            values = array[start : start + batch]
            np.copyto(slot.place(block, values.shape), values, casting="same_kind")
        crcs = mask_crcs(record_crcs(block[:, HEADER:-FOOTER], template.varying))
        block[:, -FOOTER:] = crcs.astype("<u4").view(np.uint8).reshape(-1, FOOTER)
    return Encoded(buffer.reshape(-1), np.arange(count + 1, dtype=np.int64) * size)


def _values(feature: Feature, array: npt.NDArray[Any]) -> Ragged:
    """The bytes of the values of each row of a matrix."""
    if feature.kind != "int64":
        data = np.ascontiguousarray(array, feature.dtype).reshape(-1).view(np.uint8)
        return Ragged.packed(data, np.full(len(array), feature.max_bytes))
    data, sizes = encode_varints(np.ascontiguousarray(array))
    return Ragged.packed(data, sizes.reshape(array.shape).sum(axis=1, dtype=np.int64))


def _steps(feature: Feature, array: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None) -> Ragged:
    """The bytes of the steps of each record, heads included."""
    kept = array.reshape(-1, feature.size) if mask is None else array[mask].reshape(-1, feature.size)
    counts = np.full(len(array), array.shape[1]) if mask is None else mask.sum(axis=1, dtype=np.int64)
    if feature.kind != "int64":
        head = np.frombuffer(step_head(feature.kind, feature.max_bytes), np.uint8)
        stride = len(head) + feature.max_bytes
        steps = np.empty((len(kept), stride), np.uint8)
        steps[:, : len(head)] = head
        np.copyto(Slot(feature, len(head)).place(steps, kept.shape), kept, casting="same_kind")
        return Ragged.packed(steps.reshape(-1), counts * stride)
    values = _values(feature, kept)
    joined = join([Ragged.looked_up(partial(step_head, feature.kind), values.sizes), values])
    ends = np.concatenate([[0], np.cumsum(joined.sizes)])
    return Ragged.packed(joined.data, np.diff(ends[np.concatenate([[0], np.cumsum(counts)])]))
