"""The layout of a record, and the bytes of a record that do not depend on its values.

An Example is ``Example{1: Features}``, a SequenceExample ``SequenceExample{1: Features, 2: FeatureLists}``.
An Example has the same bytes as a SequenceExample without feature lists, so one class describes both layouts.

The messages are nested: all bytes except the values follow from the names, kinds and sizes of the features
and from the length of the values in bytes. Records whose values have a fixed length are the rows of a matrix:
a `Template` holds its constant bytes, and the values of each feature are one strided view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import copy_in_range
from xee_tf.errors import OptionError
from xee_tf.records.feature import Feature, Kind
from xee_tf.records.framing import FOOTER, HEADER, frame_header
from xee_tf.wire import encode_field, field_head

__all__ = [
    "LIST_FIELDS",
    "MOST_RECORD_BYTES",
    "RecordLayout",
    "Slot",
    "Template",
    "context_head",
    "context_template",
    "list_head",
    "record_template",
    "step_head",
]

LIST_FIELDS: dict[Kind, int] = {"bytes": 1, "float": 2, "int64": 3}
"""The field number of each kind of list in a Feature message."""

MOST_RECORD_BYTES = (1 << 31) - 1
"""Parsers of protobuf, such as TensorFlow's, do not take longer messages."""

_MAX_SPACING = 512  # average bytes per constant piece up to which whole rows are copied and compared


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """The features of a record, in the order in which they are written.

    Parameters
    ----------
    context : tuple of Feature
        The features of an Example, or the context of a SequenceExample, with ``size`` values each.
    sequences : tuple of Feature, optional
        The feature lists of a SequenceExample, with ``size`` values per step. The number of steps is given by
        the arrays and may differ between lists. Default: the record is an Example.

    Notes
    -----
    Earth Engine's guide specifies only which bands are context features and which are sequences; no file
    written by Earth Engine is available. It does not specify that a step is a list of one value and that
    uint8 is a blob of one byte if `kind_of` stores it as bytes. ``FixedLenSequenceFeature([], ...)`` reads
    such bands.

    Examples
    --------
    >>> RecordLayout((Feature.of("B4", "float32", 4),)).framed_size()
    46
    >>> series = RecordLayout((Feature.of("slope", "f4", 1),), (Feature.of("ndvi", "f4", 1),))
    >>> series.framed_size(12), series.framed_size(3)
    (171, 79)
    """

    context: tuple[Feature, ...]
    sequences: tuple[Feature, ...] | None = None

    def __post_init__(self) -> None:
        if not self.features:
            raise OptionError("A record requires at least one band.")
        for features in (self.context, self.sequences or ()):
            names = [feature.name for feature in features]
            for feature in features:
                if names.count(feature.name) > 1:
                    raise OptionError(f"The band {feature.name!r} appears twice: rename one of the two.")
                if feature.size < 1 and self.sequences is not None:
                    raise OptionError(
                        f"The band {feature.name!r} has {feature.size} values per step; expected at least 1."
                    )

    @property
    def features(self) -> tuple[Feature, ...]:
        """All features: the context, then the sequences."""
        return (*self.context, *(self.sequences or ()))

    @property
    def fixed_size(self) -> bool:
        """Whether all records (with the same numbers of steps) have the same length in bytes."""
        return all(feature.fixed_size for feature in self.features)

    def framed_size(self, steps: int | Sequence[int] = 0) -> int:
        """Return the length in bytes of a record with its framing.

        If the layout does not have a `fixed_size`, or if steps are omitted, this is the maximum.

        Parameters
        ----------
        steps : int or sequence of int, default 0
            The number of steps: one for all sequences, or one for each.

        Returns
        -------
        int
            The length in bytes.

        Raises
        ------
        OptionError
            If the number of items differs from the number of sequences, or an item is negative.
        """
        lists = len(self.sequences or ())
        counts = (steps,) * lists if isinstance(steps, int) else tuple(steps)
        if len(counts) != lists or min(counts, default=0) < 0:
            raise OptionError(
                f"steps={steps!r} is invalid; expected one number >= 0 for each of {lists} bands."
            )
        return record_template(self.context, self.sequences or (), counts).size


@dataclass(frozen=True, slots=True)
class Slot:
    """The position of the values of one feature in a record.

    Parameters
    ----------
    feature : Feature
        The feature.
    offset : int
        The offset of the first value in bytes.
    steps : int, optional
        The number of steps of a sequence. Default: the feature belongs to the context.
    stride : int, default 0
        The distance in bytes between the values of consecutive steps.
    """

    feature: Feature
    offset: int
    steps: int | None = None
    stride: int = 0

    def view(self, block: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return the values in all rows of a matrix of records, as an (unaligned) view of `shape`."""
        if 0 in shape:
            return np.empty(shape, self.feature.dtype)
        outer = (block.strides[0],) if self.steps is None else (block.strides[0], self.stride)
        inner = shape[len(outer) :]
        size, sizes = np.dtype(self.feature.dtype).itemsize, []
        for length in reversed(inner):
            sizes.append(size)
            size *= length
        return np.ndarray(shape, self.feature.dtype, block, self.offset, (*outer, *reversed(sizes)))


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """The constant bytes of all records of a layout, and the positions of the values.

    Parameters
    ----------
    size : int
        The length of a row in bytes.
    slots : tuple of Slot
        The positions of the values: of the context, then of the sequences.
    pieces : tuple of (int, bytes)
        The offset and the content of each run of constant bytes. All other bytes are values.
    varying : tuple of (int, int)
        The ranges of the values in the data of a record, without its framing.
    row : tuple of (ndarray of uint8, ndarray of uint8) or None
        If there are few value bytes between the constant bytes: a row with zeros in place of the values, and
        a mask that is 255 for constant bytes and 0 for values.
    """

    size: int
    slots: tuple[Slot, ...]
    pieces: tuple[tuple[int, bytes], ...]
    varying: tuple[tuple[int, int], ...]
    row: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None

    @classmethod
    def of(cls, pieces: Sequence[bytes | int], slots: Sequence[Slot], footer: int = 0) -> Template:
        """Create a template from consecutive pieces: constant bytes, or the length of values in bytes."""
        size, constant, varying = 0, [], []
        for piece in pieces:
            start = size
            size += piece if isinstance(piece, int) else len(piece)
            if not isinstance(piece, int):
                constant.append((start, piece))
            elif piece:
                varying.append((start - HEADER, size - HEADER))
        size += footer
        row = None
        if size <= _MAX_SPACING * len(constant):
            row = whole, mask = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
            for start, data in constant:
                whole[start : start + len(data)] = np.frombuffer(data, np.uint8)
                mask[start : start + len(data)] = 0xFF
        return cls(size, tuple(slots), tuple(constant), tuple(varying), row)

    def fill(self, block: npt.NDArray[np.uint8], arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Fill the rows of a matrix with the constant bytes and the values, one array per slot."""
        if self.row is not None:
            block[:] = self.row[0]
        else:
            for start, data in self.pieces:
                block[:, start : start + len(data)] = np.frombuffer(data, np.uint8)
        for slot, array in zip(self.slots, arrays, strict=True):
            copy_in_range(slot.view(block, array.shape), array, f"Band {slot.feature.name!r}")

    def matches(self, block: npt.NDArray[np.uint8]) -> bool:
        """Return whether all rows of a matrix contain the constant bytes."""
        if self.row is not None:
            whole, mask = self.row
            return not ((block ^ whole) & mask).any()
        return all(
            (block[:, start : start + len(data)] == np.frombuffer(data, np.uint8)).all()
            for start, data in self.pieces
        )


@lru_cache(maxsize=64)
def record_template(
    context: tuple[Feature, ...], sequences: tuple[Feature, ...] = (), steps: tuple[int, ...] = ()
) -> Template:
    """Return the template of a framed record with the given steps; integers have their maximum length."""
    entries, context_slots, context_size = _context(context)
    lists: list[bytes | int] = []
    list_slots, lists_size = [], 0
    for feature, count in zip(sequences, steps, strict=True):
        head = step_head(feature, feature.max_bytes)
        stride = len(head) + feature.max_bytes
        front = list_head(feature, stride * count)
        lists += (front, *(head, feature.max_bytes) * count)
        list_slots.append(Slot(feature, lists_size + len(front) + len(head), count, stride))
        lists_size += len(front) + stride * count
    front = field_head(1, context_size) if context else b""
    middle = field_head(2, lists_size) if sequences else b""
    front = frame_header(len(front) + context_size + len(middle) + lists_size) + front
    lists_offset = len(front) + context_size + len(middle)
    slots = [Slot(slot.feature, slot.offset + len(front)) for slot in context_slots]
    slots += [Slot(slot.feature, slot.offset + lists_offset, slot.steps, slot.stride) for slot in list_slots]
    return Template.of([front, *entries, middle, *lists], slots, FOOTER)


@lru_cache(maxsize=64)
def context_template(features: tuple[Feature, ...]) -> Template:
    """Return the template of adjacent context entries, without framing or enclosing messages."""
    pieces, slots, _ = _context(features)
    return Template.of(pieces, slots)


def _context(features: Sequence[Feature]) -> tuple[list[bytes | int], list[Slot], int]:
    """Return the pieces of context entries (see `Template.of`), their slots, and their length in bytes."""
    pieces: list[bytes | int] = []
    slots, size = [], 0
    for feature in features:
        head = context_head(feature, feature.max_bytes)
        pieces += (head, feature.max_bytes)
        slots.append(Slot(feature, size + len(head)))
        size += len(head) + feature.max_bytes
    return pieces, slots, size


@lru_cache(maxsize=4096)
def context_head(feature: Feature, payload: int) -> bytes:
    """Encode the bytes of a context entry that precede `payload` bytes of values.

    Examples
    --------
    >>> context_head(Feature.of("B4", "f4", 1), 4).hex()
    '0a0e0a024234120812060a04'
    """
    return _entry(feature.name, _feature(feature, payload), payload)


@lru_cache(maxsize=4096)
def step_head(feature: Feature, payload: int) -> bytes:
    """Encode the bytes of a step of a feature list that precede `payload` bytes of values.

    Examples
    --------
    >>> step_head(Feature.of("B4", "f4", 1), 4).hex()
    '0a0812060a04'
    """
    return _wrap(1, _feature(feature, payload), payload)


@lru_cache(maxsize=4096)
def list_head(feature: Feature, payload: int) -> bytes:
    """Encode the bytes of a feature list that precede `payload` bytes of steps."""
    return _entry(feature.name, b"", payload)


def _feature(feature: Feature, payload: int) -> bytes:
    # As in protobuf's own serializers, an empty list of numbers or an empty blob has no bytes and no tag. A
    # single byte string has a tag even if it is empty; several strings are encoded with a tag each.
    single = feature.size == 1 if feature.holds_strings else payload > 0
    return _wrap(LIST_FIELDS[feature.kind], _wrap(1, b"", payload) if single else b"", payload)


def _entry(name: str, head: bytes, payload: int) -> bytes:
    return _wrap(1, encode_field(1, name.encode()) + _wrap(2, head, payload), payload)


def _wrap(number: int, head: bytes, payload: int) -> bytes:
    """Encode the tag and length of a field for a message (`head`, then `payload` bytes), then `head`."""
    return field_head(number, len(head) + payload) + head
