"""The constant bytes of a SequenceExample: those in front of values, and whole records of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.records.example import Feature, Kind
from xee_tf.records.framing import FOOTER, HEADER, frame_header
from xee_tf.records.varint import encode_varint

__all__ = ["Slot", "Template", "context_head", "list_head", "make_template", "step_head", "wrap"]

_TAGS: dict[Kind, int] = {"bytes": 0x0A, "float": 0x12, "int64": 0x1A}


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

    def place(self, block: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The values in all rows of a matrix of records, as an (unaligned) view of `shape`."""
        if 0 in shape:
            return np.empty(shape, self.feature.dtype)
        outer = (block.shape[1],) if self.steps is None else (block.shape[1], self.stride)
        inner = shape[len(outer) :]
        sizes = np.cumprod((np.dtype(self.feature.dtype).itemsize, *inner[:0:-1]))[::-1].tolist()
        strides = (*outer, *sizes[: len(inner)])
        return np.ndarray(shape, self.feature.dtype, block, self.offset, strides)


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A framed record all of whose values, and the CRC of its data, are zero.

    Parameters
    ----------
    data : ndarray of uint8, shape (bytes,)
    slots : tuple of Slot
        Of the context, then of the sequences.
    varying : tuple of (int, int)
        Where in a record's data, its framing left out, the values begin and end.
    constant : ndarray of uint8, shape (bytes,)
        0 where the values and the CRC of the data are, 255 elsewhere.
    """

    data: npt.NDArray[np.uint8]
    slots: tuple[Slot, ...]
    varying: tuple[tuple[int, int], ...]
    constant: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, data: bytes, slots: tuple[Slot, ...]) -> Template:
        """A record, and where its values are."""
        varying = []
        constant = np.full(len(data), 0xFF, np.uint8)
        constant[len(data) - FOOTER :] = 0
        for slot in slots:
            for step in range(1 if slot.steps is None else slot.steps):
                begin = slot.offset + slot.stride * step
                end = begin + slot.feature.max_bytes
                varying.append((begin - HEADER, end - HEADER))
                constant[begin:end] = 0
        return cls(np.frombuffer(data, np.uint8), slots, tuple(varying), constant)


@lru_cache(maxsize=64)
def make_template(
    context: tuple[Feature, ...], sequences: tuple[Feature, ...], steps: tuple[int, ...]
) -> Template:
    """The record that has so many steps of each sequence, integers as long as their dtype allows."""
    body, slots = bytearray(), []
    for feature in context:
        body += context_head(feature, feature.max_bytes)
        slots.append(Slot(feature, len(body)))
        body += bytes(feature.max_bytes)
    lists, later = bytearray(), []
    for feature, count in zip(sequences, steps, strict=True):
        head = step_head(feature.kind, feature.max_bytes)
        stride = len(head) + feature.max_bytes
        lists += list_head(feature, stride * count)
        later.append(Slot(feature, len(lists) + len(head), count, stride))
        lists += (head + bytes(feature.max_bytes)) * count
    front = wrap(0x0A, b"", len(body)) if body else b""
    middle = wrap(0x12, b"", len(lists)) if lists else b""
    front = frame_header(len(front) + len(body) + len(middle) + len(lists)) + front
    data = b"".join((front, body, middle, lists, bytes(FOOTER)))
    placed = tuple(
        replace(slot, offset=slot.offset + moved)
        for some, moved in ((slots, len(front)), (later, len(front) + len(body) + len(middle)))
        for slot in some
    )
    return Template.of(data, placed)


def context_head(feature: Feature, payload: int) -> bytes:
    """The bytes in front of `payload` bytes of values, from the entry of the map on.

    Examples
    --------
    >>> context_head(Feature.of("B4", "f4", 1), 4).hex()
    '0a0e0a024234120812060a04'
    """
    return _entry(feature.name, _feature(feature.kind, payload), payload)


def step_head(kind: Kind, payload: int) -> bytes:
    """The bytes in front of a step's `payload` bytes of values, from the feature's tag on.

    Examples
    --------
    >>> step_head("float", 4).hex()
    '0a0812060a04'
    """
    return wrap(0x0A, _feature(kind, payload), payload)


def list_head(feature: Feature, payload: int) -> bytes:
    """The bytes in front of the steps of a feature list, from the entry of the map on."""
    return _entry(feature.name, b"", payload)


def _feature(kind: Kind, payload: int) -> bytes:
    return wrap(_TAGS[kind], wrap(0x0A, b"", payload), payload)


def _entry(name: str, head: bytes, payload: int) -> bytes:
    return wrap(0x0A, wrap(0x0A, name.encode(), 0) + wrap(0x12, head, payload), payload)


def wrap(tag: int, head: bytes, payload: int) -> bytes:
    """Make a message (`head`, then `payload` bytes) the field `tag` of another."""
    return bytes((tag,)) + encode_varint(len(head) + payload) + head
