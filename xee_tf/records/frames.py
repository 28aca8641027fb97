"""A buffer of framed records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xee_tf.records.framing import FOOTER, HEADER, check_frames, frame_offsets
from xee_tf.records.parse import Parsed

__all__ = ["Frames", "ParseOne"]

_BATCH_BYTES = 1 << 21  # of records looked at at a time

ParseOne = Callable[[memoryview, str], Parsed]
"""From the bytes of a message, and words for its record in an error, to what it holds."""


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
    blobs : bool
        Whether a single byte string is a blob of values.
    """

    view: memoryview
    raw: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    source: str
    first: int
    parse_one: ParseOne
    blobs: bool

    @classmethod
    def of(
        cls, buffer: bytes | memoryview, source: str, first: int, parse_one: ParseOne, *, blobs: bool
    ) -> Frames:
        """Find the frames of a buffer; the CRCs of their lengths are checked."""
        view = memoryview(buffer).cast("B")
        offsets = frame_offsets(view, source=source, first=first)
        return cls(view, np.frombuffer(view, np.uint8), offsets, source, first, parse_one, blobs)

    @property
    def count(self) -> int:
        """Number of records."""
        return len(self.offsets) - 1

    @property
    def batch(self) -> int:
        """Records to look at at a time, so that scratch arrays stay in the cache."""
        return max(1, _BATCH_BYTES * self.count // max(1, len(self.raw)))

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
