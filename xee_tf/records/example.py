"""Writing `tf.train.Example` records straight from numpy arrays: no protobuf objects, no TensorFlow.

The wire format of a record is fixed once the names, kinds and lengths of its features are known, so
that all bytes but the values are made once a layout, and the values of many records are put in
place by one strided copy a feature.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from xee_tf.errors import OptionError, RecordError
from xee_tf.names import check_key
from xee_tf.options import one_of
from xee_tf.records.crc import record_crcs
from xee_tf.records.framing import FOOTER, HEADER, frame_header, mask_crc, mask_crcs
from xee_tf.records.varint import encode_varint, encode_varints, varint_bound, varint_size

__all__ = [
    "Encoded",
    "Feature",
    "FeatureTypes",
    "Kind",
    "RecordLayout",
    "Segment",
    "kind_of",
]

Kind = Literal["bytes", "float", "int64"]
"""The three lists that a feature of an Example may hold."""

FeatureTypes = Literal["float", "band"]

_TAGS: dict[Kind, int] = {"bytes": 0x0A, "float": 0x12, "int64": 0x1A}
_BATCH_VALUES = 1 << 16  # integers turned into varints at a time: their scratch arrays stay in cache


def kind_of(dtype: npt.DTypeLike, feature_types: FeatureTypes = "float") -> Kind:
    """The kind of list that carries a band of some dtype.

    ==================  =========  =========
    dtype               "float"    "band"
    ==================  =========  =========
    bool, uint8         float      bytes (one blob of raw values)
    other integers      float      int64
    floats              float      float
    ==================  =========  =========

    "float" is what Earth Engine's guide says ("all numbers are coerced to float"), "band" what its
    writer really does with images (real files; bool is taken for a byte, our choice).

    Raises
    ------
    OptionError
        If `feature_types` is unknown, or no list can carry the dtype.

    Examples
    --------
    >>> kind_of("uint8"), kind_of("uint8", "band"), kind_of("int16", "band")
    ('float', 'bytes', 'int64')
    """
    one_of("feature_types", feature_types, get_args(FeatureTypes))
    dtype = np.dtype(dtype)
    if dtype.kind not in "biuf":
        raise OptionError(
            f"Values of dtype {dtype} cannot be stored in a TFRecord: convert them to a real number type."
        )
    if feature_types == "float" or dtype.kind == "f":
        return "float"
    return "bytes" if dtype in (np.dtype(bool), np.dtype(np.uint8)) else "int64"


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a record.

    Parameters
    ----------
    name : str
        Its key: the band's name.
    kind : {"bytes", "float", "int64"}
        The list that holds its values.
    size : int
        Values a record; for bytes, the bytes of its one blob.
    dtype : str
        numpy dtype of the values that `RecordLayout.encode` is given: "<f4" for float, "|u1" for
        bytes, any integer for int64.
    """

    name: str
    kind: Kind
    size: int
    dtype: str

    @classmethod
    def of(cls, name: str, dtype: npt.DTypeLike, size: int, feature_types: FeatureTypes = "float") -> Feature:
        """The feature that holds a band of some dtype; see `kind_of`.

        Examples
        --------
        >>> Feature.of("landcover", "int16", 65536, "band")
        Feature(name='landcover', kind='int64', size=65536, dtype='<i2')
        """
        kind = kind_of(dtype, feature_types)
        stored = {"float": "<f4", "bytes": "|u1", "int64": np.dtype(dtype).str}[kind]
        return cls(check_key(name), kind, size, stored)

    @property
    def max_bytes(self) -> int:
        """Bytes of the values; for int64 the most that the dtype can need."""
        width = {"bytes": 1, "float": 4}.get(self.kind) or varint_bound(self.dtype)
        return width * self.size


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


@dataclass(frozen=True, slots=True)
class Segment:
    """The constant bytes in front of a feature's values, and where in a framed record they start."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """Where the values start."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """Names, kinds and lengths of a record's features, in the order in which they are written.

    Parameters
    ----------
    features : tuple of Feature
        Names must differ.

    Examples
    --------
    >>> layout = RecordLayout((Feature.of("B4", "float32", 4),))
    >>> patches = np.arange(8, dtype="float32").reshape(2, 2, 2)
    >>> encoded = layout.encode([patches])
    >>> len(encoded), len(encoded.buffer) == 2 * layout.framed_size
    (2, True)
    """

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                raise OptionError(f"The band {name!r} is there twice: rename one of the two.")
        if not names:
            raise OptionError("A record needs at least one band.")

    @property
    def exact(self) -> bool:
        """Whether every record has just `framed_size` bytes."""
        return all(feature.kind != "int64" for feature in self.features)

    @property
    def framed_size(self) -> int:
        """Bytes of one record with its 16 bytes of framing; the most possible where not `exact`."""
        last = self.segments[-1]
        return last.end + self.features[-1].max_bytes + FOOTER

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The constant bytes of a framed record, one piece in front of each feature's values."""
        return _segments(self.features, tuple(feature.max_bytes for feature in self.features))

    def encode(
        self, arrays: Sequence[npt.NDArray[Any]], keep: npt.NDArray[np.bool_] | None = None
    ) -> Encoded:
        """Frame records as TensorFlow's TFRecordWriter does.

        Parameters
        ----------
        arrays : sequence of ndarray
            One for each feature, of shape ``(records, ...)`` with ``size`` values per record, of the
            feature's dtype; any strides, overlapping views too.
        keep : ndarray of bool, shape (records,), optional
            False leaves a record out.

        Raises
        ------
        RecordError
            If an array does not fit its feature, or a number does not fit into int64.
        """
        count = self._check(arrays, keep)
        if keep is not None and not keep.all():
            chosen = np.flatnonzero(keep)
            arrays = [array[chosen] for array in arrays]
            count = len(chosen)
        if not count:
            return Encoded(np.empty(0, np.uint8), np.zeros(1, np.int64))
        return self._encode_fixed(arrays, count) if self.exact else self._encode_varied(arrays, count)

    def _check(self, arrays: Sequence[npt.NDArray[Any]], keep: npt.NDArray[np.bool_] | None) -> int:
        if len(arrays) != len(self.features):
            raise RecordError(f"{len(arrays)} arrays were given for {len(self.features)} features.")
        count = len(arrays[0]) if keep is None else len(keep)
        for feature, array in zip(self.features, arrays, strict=True):
            if len(array) != count or array.size != count * feature.size:
                raise RecordError(
                    f"Band {feature.name!r} has shape {array.shape}; expected {count} records of "
                    f"{feature.size} values."
                )
        return count

    def _encode_fixed(self, arrays: Sequence[npt.NDArray[Any]], count: int) -> Encoded:
        size = self.framed_size
        buffer = np.empty((count, size), np.uint8)
        for feature, segment, array in zip(self.features, self.segments, arrays, strict=True):
            buffer[:, segment.offset : segment.end] = np.frombuffer(segment.data, np.uint8)
            # Unaligned on purpose: the values go straight to their place, whatever their strides.
            inner = np.dtype(feature.dtype).itemsize * np.cumprod((1, *array.shape[:1:-1]))[::-1]
            place: npt.NDArray[Any] = np.ndarray(
                array.shape,
                feature.dtype,
                buffer,
                segment.end,
                (size, *(int(step) for step in inner[: array.ndim - 1])),
            )
            np.copyto(place, array, casting="same_kind")
        crcs = mask_crcs(record_crcs(buffer[:, HEADER : size - FOOTER]))
        buffer[:, size - FOOTER :] = crcs.astype("<u4").view(np.uint8).reshape(count, FOOTER)
        return Encoded(buffer.reshape(-1), np.arange(count + 1, dtype=np.int64) * size)

    def _encode_varied(self, arrays: Sequence[npt.NDArray[Any]], count: int) -> Encoded:
        pieces: list[bytes | memoryview] = []
        offsets = [0]
        batch = max(1, _BATCH_VALUES // max(1, *(feature.size for feature in self.features)))
        for start in range(0, count, batch):
            stop = min(start + batch, count)
            payloads = [
                _payloads(feature, array[start:stop])
                for feature, array in zip(self.features, arrays, strict=True)
            ]
            for values in zip(*payloads, strict=True):
                segments = _segments(self.features, tuple(len(value) for value in values))
                begin = len(pieces)
                for segment, value in zip(segments, values, strict=True):
                    pieces += (segment.data, value)
                # The first piece starts with the frame's header, which the data's CRC leaves out.
                crc = crc32c(segments[0].data[HEADER:])
                for piece in pieces[begin + 1 :]:
                    crc = crc32c(piece, crc)
                pieces.append(struct.pack("<I", mask_crc(crc)))
                offsets.append(offsets[-1] + segments[-1].end + len(values[-1]) + FOOTER)
        return Encoded(np.frombuffer(b"".join(pieces), np.uint8), np.array(offsets, np.int64))


def _payloads(feature: Feature, array: npt.NDArray[Any]) -> list[memoryview]:
    """The bytes of a feature's values, one piece for each record."""
    if feature.kind == "int64":
        data, sizes = encode_varints(np.ascontiguousarray(array))
        ends = np.cumsum(sizes.reshape(len(array), -1).sum(axis=1, dtype=np.int64)).tolist()
    else:
        data = np.ascontiguousarray(array, feature.dtype).reshape(-1).view(np.uint8)
        ends = [feature.max_bytes * (i + 1) for i in range(len(array))]
    view = data.data
    return [view[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


@lru_cache(maxsize=256)
def _segments(features: tuple[Feature, ...], payloads: tuple[int, ...]) -> tuple[Segment, ...]:
    """The constant bytes of a framed record whose values take `payloads` bytes."""
    entries: list[tuple[bytes, int]] = []
    total = 0
    for feature, payload in zip(features, payloads, strict=True):
        # An empty list has no bytes at all, not even a tag: so do protobuf's own serialisers.
        head = b"\x0a" + encode_varint(payload) if payload else b""
        head = _wrap(0x12, _wrap(_TAGS[feature.kind], head, payload), payload)
        key = feature.name.encode()
        head = _wrap(0x0A, b"\x0a" + encode_varint(len(key)) + key + head, payload)
        entries.append((head, payload))
        total += len(head) + payload
    start = frame_header(1 + varint_size(total) + total) + b"\x0a" + encode_varint(total)
    segments, offset = [], 0
    for head, payload in entries:
        data = start + head
        segments.append(Segment(offset, data))
        offset += len(data) + payload
        start = b""
    return tuple(segments)


def _wrap(tag: int, head: bytes, payload: int) -> bytes:
    """Make a message (`head`, then `payload` bytes of values) the field `tag` of another."""
    return bytes((tag,)) + encode_varint(len(head) + payload) + head
