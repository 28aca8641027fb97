"""Read a few consecutive records at a time, from any place of the shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xee_tf.records import iter_frames
from xee_tf.shards import Shard, read_records

__all__ = ["Pieces", "cut_pieces"]

_LOCAL_BYTES = 1 << 20  # size of a piece
_REMOTE_BYTES = 4 << 20  # each piece costs a request
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
    def records(self) -> int:
        """The number of records of all pieces."""
        if self.chosen is not None:
            return sum(map(len, self.chosen))
        return int((self.stops - self.starts).sum())

    def read(self, number: int) -> npt.NDArray[np.object_]:
        """Return the records of a piece; their checksums are compared with the frames and the manifest."""
        at = int(np.searchsorted(self.edges, number, "right")) - 1
        shard, start, stop = self.shards[at], int(self.starts[number]), int(self.stops[number])
        wanted = None
        if self.chosen is not None:
            numbers = self.chosen[at]
            wanted = set(numbers[slice(*np.searchsorted(numbers, [start, stop]))].tolist())
            start, stop = min(wanted), max(wanted) + 1
        found = [
            bytes(data)
            for first, buffer in read_records(shard, start, stop, share=False)
            for record, data in enumerate(iter_frames(buffer, source=str(shard), first=first), first)
            if wanted is None or record in wanted
        ]
        return np.array(found, object)


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
