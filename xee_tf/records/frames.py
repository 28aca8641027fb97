"""A buffer of framed records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xee_tf.records.framing import FOOTER, HEADER, check_frames, frame_offsets
from xee_tf.records.parse import Parsed

__all__ = ["Frames"]

_BATCH_BYTES = 1 << 21  # bytes of records processed at a time

ParseRecord = Callable[[memoryview, str], Parsed]
"""A function that parses the bytes of a message; the text describes the record in error messages."""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A buffer of complete frames.

    Parameters
    ----------
    view : memoryview
        The buffer.
    raw : ndarray of uint8, shape (bytes,)
        The same bytes as an array.
    offsets : ndarray of int64, shape (count + 1,)
        The offset of each frame, and of the end of the last one.
    source : str
        The name of the file, for error messages.
    first : int
        The index of the first record in its file, for error messages.
    parse_record : callable
        Parses a single record.
    blobs : bool
        Whether a single byte string is a blob of values.
    """

    view: memoryview
    raw: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    source: str
    first: int
    parse_record: ParseRecord
    blobs: bool

    @classmethod
    def of(
        cls, buffer: bytes | memoryview, source: str, first: int, parse_record: ParseRecord, *, blobs: bool
    ) -> Frames:
        """Find the frames in a buffer and check the CRCs of their lengths."""
        view = memoryview(buffer).cast("B")
        offsets = frame_offsets(view, source=source, first=first)
        return cls(view, np.frombuffer(view, np.uint8), offsets, source, first, parse_record, blobs)

    @property
    def count(self) -> int:
        """The number of records."""
        return len(self.offsets) - 1

    @property
    def batch_size(self) -> int:
        """The number of records to process at a time, so that temporary arrays stay in the cache."""
        return max(1, _BATCH_BYTES * self.count // max(1, len(self.raw)))

    def verify(self, varying: Sequence[tuple[int, int]] | None) -> None:
        """Check the CRCs of the data; for `varying` see `check_frames`."""
        check_frames(self.view, self.offsets, varying, source=self.source, first=self.first)

    def describe(self, record: int) -> str:
        """Return a description of a record for error messages."""
        return f"{self.source}: record {self.first + record}"

    def parse(self, record: int) -> Parsed:
        """Parse a single record."""
        begin, end = int(self.offsets[record]) + HEADER, int(self.offsets[record + 1]) - FOOTER
        return self.parse_record(self.view[begin:end], self.describe(record))
