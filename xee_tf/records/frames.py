"""A buffer of framed records, and whether all of them are built alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.framing import FOOTER, HEADER, check_frames, frame_offsets
from xee_tf.records.layout import Template, record_template
from xee_tf.records.parts import Parsed, order_of
from xee_tf.records.walk import Order, Wanted, walk

__all__ = ["Alike", "Frames", "find_alike"]

_BATCH_BYTES = 1 << 21  # of records compared with a template at a time


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A buffer of whole frames.

    Parameters
    ----------
    view : memoryview
    raw : ndarray of uint8, shape (bytes,)
        The same bytes.
    offsets : ndarray of int64, shape (count + 1,)
        Where each frame starts, and where the last one ends.
    source : str
        Name of the file, for errors.
    first : int
        Number of the first record in its file, for errors.
    parse_one : callable
        From the bytes of a message, and words for its record in an error, to what it holds.
    """

    view: memoryview
    raw: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    source: str
    first: int
    parse_one: Callable[[memoryview, str], Parsed]

    @classmethod
    def of(
        cls,
        buffer: bytes | memoryview,
        source: str,
        first: int,
        parse_one: Callable[[memoryview, str], Parsed],
    ) -> Frames:
        """Find the frames of a buffer; the CRCs of their lengths are checked."""
        view = memoryview(buffer).cast("B")
        offsets = frame_offsets(view, source=source, first=first)
        return cls(view, np.frombuffer(view, np.uint8), offsets, source, first, parse_one)

    @property
    def count(self) -> int:
        """Number of records."""
        return len(self.offsets) - 1

    def verify(self, varying: Sequence[tuple[int, int]] | None) -> None:
        """Check the CRCs of the data."""
        check_frames(self.view, self.offsets, varying, source=self.source, first=self.first)

    def name(self, record: int) -> str:
        """Words for a record in an error."""
        return f"{self.source}: record {self.first + record}"

    def parse(self, record: int) -> Parsed:
        """What one record holds."""
        begin, end = int(self.offsets[record]) + HEADER, int(self.offsets[record + 1]) - FOOTER
        return self.parse_one(self.view[begin:end], self.name(record))


@dataclass(frozen=True, slots=True, eq=False)
class Alike:
    """Records, the rows of a matrix, that differ from a template in nothing but values."""

    template: Template
    block: npt.NDArray[np.uint8]


def find_alike(frames: Frames, orders: Sequence[Order], *, blobs: bool) -> Alike | None:
    """The records and their template if all are built like the first; their CRCs are not looked at."""
    count = frames.count
    if not count or not (np.diff(frames.offsets) == frames.offsets[1]).all():
        return None
    block = frames.raw.reshape(count, -1)
    rows = max(1, _BATCH_BYTES // block.shape[1])
    for order in _candidates(frames, orders, blobs):
        template = _template(block[0], order)
        if template is not None and all(
            template.matches(block[start : start + rows]) for start in range(0, count, rows)
        ):
            return Alike(template, block)
    return None


def _candidates(frames: Frames, orders: Sequence[Order], blobs: bool) -> Iterator[Order]:
    """The orders that are known, then that of the first record."""
    yield from orders
    try:
        order = order_of(frames.parse(0), blobs=blobs)
    except RecordError:
        return  # it is parsed again, and then the error says what is wrong
    if order not in orders:
        yield order


def _template(record: npt.NDArray[np.uint8], order: Order) -> Template | None:
    """The template of a record that has all features of an order; None if it cannot have them."""
    if not all(feature.exact for feature in (*order.context, *order.sequences)):
        return None
    steps: tuple[int, ...] = ()
    if order.sequences:
        place = np.zeros(1, np.int64), np.array([HEADER]), np.array([len(record) - FOOTER])
        _, parts = walk(record, *place, order, Wanted((), ()))
        steps = tuple(int(part.steps[0]) for part in parts if part.steps is not None)
        if len(parts) != len(order.context) + len(order.sequences):
            return None
    template = record_template(order.context, order.sequences, steps)
    return template if template.size == len(record) else None
