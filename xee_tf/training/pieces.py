"""Read a few consecutive records at a time, from any place of the shards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.records import LIST_DTYPES, RecordLayout, decode_records, iter_frames
from xee_tf.shards import Shard, read_records

__all__ = ["Pieces", "cut_pieces"]

_LOCAL_BYTES = 1 << 20  # size of a piece
_REMOTE_BYTES = 4 << 20  # each piece costs a request
_ALIGNMENT = 64  # TensorFlow copies arrays whose first byte is at another multiple
_LEAST_RECORD = 4 << 10  # TensorFlow reads smaller records faster, because Python creates each one

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Runs of consecutive records, each inside one shard.

    Parameters
    ----------
    shards : sequence of Shard
        The files, whose records can be reached directly.
    edges : ndarray of int64
        The first piece of each shard, and the number of all pieces.
    starts, stops : ndarray of int64
        The records of each piece, counted in its shard.
    chosen : sequence of ndarray of int64, optional
        The records of each shard to keep, in order. Default: all.
    """

    shards: Sequence[Shard]
    edges: Numbers
    starts: Numbers
    stops: Numbers
    chosen: Sequence[Numbers] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def single(self) -> bool:
        """Whether each piece is a record."""
        return len(self) == self.records

    @property
    def records(self) -> int:
        """The number of records of all pieces."""
        if self.chosen is not None:
            return sum(map(len, self.chosen))
        return int((self.stops - self.starts).sum())

    def read(self, number: int) -> npt.NDArray[np.object_]:
        """Return the records of a piece; their checksums are compared with the frames and the manifest."""
        shard, wanted = self._records(number)
        kept = wanted if isinstance(wanted, range) else set(wanted)
        found = [
            bytes(data)
            for first, buffer in read_records(shard, wanted[0], wanted[-1] + 1, share=False)
            for record, data in enumerate(iter_frames(buffer, source=str(shard), first=first), first)
            if record in kept
        ]
        return np.array(found, object)

    def decode(
        self, numbers: Numbers, layout: RecordLayout, orders: Sequence[RecordLayout]
    ) -> list[npt.NDArray[Any]]:
        """Return the features of pieces that are single records, as arrays of shape (pieces, size).

        Checksums are compared as in `read`. For the layouts see `decode_records`.
        """
        arrays = [
            _aligned((len(numbers), feature.size), LIST_DTYPES[feature.kind]) for feature in layout.features
        ]
        for row, number in enumerate(numbers):
            shard, [record] = self._records(number)
            for first, buffer in read_records(shard, record, record + 1, share=False):
                found = decode_records(buffer, layout, orders=orders, source=str(shard), first=first)
                for feature, array in zip(layout.features, arrays, strict=True):
                    array[row] = found.context[feature.name][0]
        return arrays

    def _records(self, number: int) -> tuple[Shard, Sequence[int]]:
        """Return the shard of a piece, and the records of the piece in it."""
        at = int(np.searchsorted(self.edges, number, "right")) - 1
        start, stop = int(self.starts[number]), int(self.stops[number])
        if self.chosen is None:
            return self.shards[at], range(start, stop)
        numbers = self.chosen[at]
        return self.shards[at], numbers[slice(*np.searchsorted(numbers, [start, stop]))].tolist()


def cut_pieces(
    shards: Sequence[Shard], record_bytes: int, chosen: Sequence[Numbers] | None = None
) -> Pieces | None:
    """Divide the records of shards into pieces; None if TensorFlow should read the files from the start.

    Parameters
    ----------
    shards : sequence of Shard
        The files.
    record_bytes : int
        The approximate size of a record.
    chosen : sequence of ndarray of int64, optional
        The records of each shard to keep, in order. Pieces without any are omitted.
    """
    direct = all(shard.access != "stream" and shard.records for shard in shards)
    if not direct or (chosen is None and record_bytes < _LEAST_RECORD):
        return None
    counts, starts, stops = [0], [], []
    for number, shard in enumerate(shards):
        size = _LOCAL_BYTES if shard.location.is_local else _REMOTE_BYTES
        found = _cut(shard, max(1, size // record_bytes), None if chosen is None else chosen[number])
        starts.append(found[0])
        stops.append(found[1])
        counts.append(len(found[0]))
    return Pieces(shards, np.cumsum(counts), np.concatenate(starts), np.concatenate(stops), chosen)


def _cut(shard: Shard, count: int, chosen: Numbers | None) -> tuple[Numbers, Numbers]:
    """Return the starts and stops of pieces of about `count` records, which consist of whole groups.

    A group is read as a whole in any case: a run of the manifest, or a gzip member.
    """
    groups = shard.run_starts if shard.run_starts is not None else shard.starts
    if groups is None:
        groups = np.arange(shard.records + 1)
    if chosen is not None:
        counts = np.diff(np.searchsorted(chosen, groups))
        kept = np.flatnonzero(counts)
    else:
        kept = np.arange(len(groups) - 1)
    if not len(kept):
        return kept, kept
    # A piece ends where groups are left out, and where it has enough records.
    gaps = np.flatnonzero(np.diff(kept) > 1) + 1
    block = np.repeat(np.arange(len(gaps) + 1), np.diff([0, *gaps, len(kept)]))
    part = (groups[kept] - groups[kept[np.concatenate([[0], gaps])]][block]) // count
    new = np.flatnonzero((np.diff(block) > 0) | (np.diff(part) > 0)) + 1
    firsts, lasts = kept[np.concatenate([[0], new])], kept[np.concatenate([new - 1, [len(kept) - 1]])]
    return groups[firsts].astype("int64"), groups[lasts + 1].astype("int64")


def _aligned(shape: tuple[int, int], dtype: str) -> npt.NDArray[Any]:
    """Return an uninitialized array that TensorFlow uses without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    skipped = -memory.ctypes.data % _ALIGNMENT
    return memory[skipped : skipped + size].view(dtype).reshape(shape)
