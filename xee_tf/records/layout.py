"""The layout of a record, and the bytes of it that are the same whatever its values are.

An Example is ``Example{1: Features}``, a SequenceExample ``SequenceExample{1: Features, 2: FeatureLists}``.
An Example has the bytes of a SequenceExample without feature lists, and one layout describes both.

All messages are nested, so that all bytes but the values follow from the names, kinds and sizes of features
and from the number of bytes that the values take. Records whose values have a fixed size are the rows of a
matrix: its constant bytes come from a `Template`, and the values of a feature are one strided view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError
from xee_tf.records.feature import STRINGS, Feature, Kind
from xee_tf.records.framing import FOOTER, HEADER, frame_header
from xee_tf.wire import encode_field, field_head

__all__ = [
    "LISTS",
    "RecordLayout",
    "Slot",
    "Template",
    "context_head",
    "context_template",
    "list_head",
    "record_template",
    "step_head",
]

LISTS: dict[Kind, int] = {"bytes": 1, "float": 2, "int64": 3}
"""The fields of a Feature that hold its lists."""

_CLOSE = 512  # bytes from one constant piece to the next, up to which whole rows are copied and compared


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """Names, kinds and lengths of a record's features, in the order in which they are written.

    Parameters
    ----------
    context : tuple of Feature
        Features of an Example, or those of the whole record of a SequenceExample, of ``size`` values each.
    sequences : tuple of Feature, optional
        Feature lists of a SequenceExample, of ``size`` values a step. The arrays decide how many steps there
        are; lists may differ. Default: the record is an Example.

    Notes
    -----
    Earth Engine's guide says what is context and what a sequence, and no more; no file of its own is known.
    That a step is a list of one value, and that uint8 is a blob of one byte where `kind_of` makes it bytes,
    is our choice: the one with which ``FixedLenSequenceFeature([], ...)`` reads a band.

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
            raise OptionError("A record needs at least one band.")
        for features in (self.context, self.sequences or ()):
            names = [feature.name for feature in features]
            for feature in features:
                if names.count(feature.name) > 1:
                    raise OptionError(f"The band {feature.name!r} is there twice: rename one of the two.")
                if feature.size < 1 and self.sequences is not None:
                    raise OptionError(f"The band {feature.name!r} has {feature.size} values; expected some.")

    @property
    def features(self) -> tuple[Feature, ...]:
        """All features, those of the context first."""
        return (*self.context, *(self.sequences or ()))

    @property
    def exact(self) -> bool:
        """Whether every record (of so many steps) has the same number of bytes."""
        return all(feature.exact for feature in self.features)

    def framed_size(self, steps: int | Sequence[int] = 0) -> int:
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
        wanted = len(self.sequences or ())
        counts = (steps,) * wanted if isinstance(steps, int) else tuple(steps)
        if len(counts) != wanted or min(counts, default=0) < 0:
            raise OptionError(f"steps={steps!r} must be one number >= 0 for each of {wanted} bands.")
        return record_template(self.context, self.sequences or (), counts).size


@dataclass(frozen=True, slots=True)
class Slot:
    """Where in a record the values of one feature are.

    Parameters
    ----------
    feature : Feature
    offset : int
        Of the first value.
    steps : int or None
        How many steps there are; None in the context.
    stride : int
        Bytes from one step's values to the next one's.
    """

    feature: Feature
    offset: int
    steps: int | None = None
    stride: int = 0

    def view(self, block: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The values in all rows of a matrix of records, as an (unaligned) view of `shape`."""
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
    """Bytes that are the same in all records of a layout, and where the values go.

    Parameters
    ----------
    size : int
        Bytes of a row.
    slots : tuple of Slot
        Of the context, then of the sequences.
    pieces : tuple of (int, bytes)
        The constant bytes, and where they start. Nothing else is between the values.
    varying : tuple of (int, int)
        Where values begin and end in a record's data, its framing left out.
    row : tuple of (ndarray of uint8, ndarray of uint8) or None
        Where few values are between the constant bytes: a row, zero where it varies, and a mask of 255 where
        it does not.
    """

    size: int
    slots: tuple[Slot, ...]
    pieces: tuple[tuple[int, bytes], ...]
    varying: tuple[tuple[int, int], ...]
    row: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None

    @classmethod
    def of(cls, pieces: Sequence[bytes | int], slots: Sequence[Slot], footer: int = 0) -> Template:
        """From constant bytes and numbers of bytes of values, as they follow one another."""
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
        if size <= _CLOSE * len(constant):
            row = whole, mask = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
            for start, data in constant:
                whole[start : start + len(data)] = np.frombuffer(data, np.uint8)
                mask[start : start + len(data)] = 0xFF
        return cls(size, tuple(slots), tuple(constant), tuple(varying), row)

    def fill(self, block: npt.NDArray[np.uint8], arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Write the constant bytes and the values, one array for each slot, into the rows of a matrix."""
        if self.row is not None:
            block[:] = self.row[0]
        else:
            for start, data in self.pieces:
                block[:, start : start + len(data)] = np.frombuffer(data, np.uint8)
        with np.errstate(over="ignore"):  # beyond float32's range numbers become infinite
            for slot, array in zip(self.slots, arrays, strict=True):
                np.copyto(slot.view(block, array.shape), array, casting="same_kind")

    def matches(self, block: npt.NDArray[np.uint8]) -> bool:
        """Whether all rows of a matrix have the constant bytes."""
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
    """A framed record that has so many steps of each sequence, integers as long as their dtype allows."""
    entries, places, inside = _context(context)
    lists: list[bytes | int] = []
    later, behind = [], 0
    for feature, count in zip(sequences, steps, strict=True):
        head = step_head(feature, feature.max_bytes)
        stride = len(head) + feature.max_bytes
        front = list_head(feature, stride * count)
        lists += (front, *(head, feature.max_bytes) * count)
        later.append(Slot(feature, behind + len(front) + len(head), count, stride))
        behind += len(front) + stride * count
    front = field_head(1, inside) if context else b""
    middle = field_head(2, behind) if sequences else b""
    front = frame_header(len(front) + inside + len(middle) + behind) + front
    moved = len(front) + inside + len(middle)
    slots = [Slot(slot.feature, slot.offset + len(front)) for slot in places]
    slots += [Slot(slot.feature, slot.offset + moved, slot.steps, slot.stride) for slot in later]
    return Template.of([front, *entries, middle, *lists], slots, FOOTER)


@lru_cache(maxsize=64)
def context_template(features: tuple[Feature, ...]) -> Template:
    """Neighbouring entries of the context, without anything around them."""
    pieces, slots, _ = _context(features)
    return Template.of(pieces, slots)


def _context(features: Sequence[Feature]) -> tuple[list[bytes | int], list[Slot], int]:
    """Constant and varying bytes of entries of the context, their slots, and how many bytes they have."""
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
    """The bytes in front of `payload` bytes of values, from the entry of the map on.

    Examples
    --------
    >>> context_head(Feature.of("B4", "f4", 1), 4).hex()
    '0a0e0a024234120812060a04'
    """
    return _entry(feature.name, _feature(feature, payload), payload)


@lru_cache(maxsize=4096)
def step_head(feature: Feature, payload: int) -> bytes:
    """The bytes in front of a step's `payload` bytes of values, from the feature's tag on.

    Examples
    --------
    >>> step_head(Feature.of("B4", "f4", 1), 4).hex()
    '0a0812060a04'
    """
    return _wrap(1, _feature(feature, payload), payload)


@lru_cache(maxsize=4096)
def list_head(feature: Feature, payload: int) -> bytes:
    """The bytes in front of the steps of a feature list, from the entry of the map on."""
    return _entry(feature.name, b"", payload)


def _feature(feature: Feature, payload: int) -> bytes:
    # A list without numbers, or the blob of none, has no bytes at all, not even a tag: so do protobuf's own
    # serialisers. An empty string has a tag. Of several strings each brings its own.
    single = feature.size == 1 if feature.dtype == STRINGS else payload > 0
    return _wrap(LISTS[feature.kind], _wrap(1, b"", payload) if single else b"", payload)


def _entry(name: str, head: bytes, payload: int) -> bytes:
    return _wrap(1, encode_field(1, name.encode()) + _wrap(2, head, payload), payload)


def _wrap(number: int, head: bytes, payload: int) -> bytes:
    """Make a message (`head`, then `payload` bytes) a field of another."""
    return field_head(number, len(head) + payload) + head
