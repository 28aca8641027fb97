"""A store on any filesystem, in which each shard is written once, from its beginning to its end.

The runs of a shard wait in memory until all of them are known, because its header comes first and contains
their sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from xee_tf.shards.members import MEMBER_HEADER
from xee_tf.shards.runs import Part, WrittenShard, begin_shard, pairs_in_order
from xee_tf.shards.staged import StagedStore, write_receipt
from xee_tf.shards.store import Packed

__all__ = ["SequentialStore"]


class SequentialStore(StagedStore):
    """A store beside the destination on any filesystem; see `StagedStore`.

    Examples
    --------
    >>> from xee_tf.shards.runs import Run
    >>> from xee_tf.shards.store import OneFile
    >>> from xee_tf.storage import Earlier, Location, Staging
    >>> file = Location("memory://sequential-store/s.tfrecord")
    >>> store = SequentialStore(Staging.begin(file), OneFile(file, compressed=False), Earlier(list, {}))
    >>> part = store.put(0, "0", [(Run(0, (1,), (6,), (0,)), [b"record"])])
    >>> [info] = store.commit([store.finish(0, 0, 0, [[part]])])
    >>> info.path, info.records, info.bytes
    ('memory://sequential-store/s.tfrecord', 1, 6)
    """

    def put(self, shard: int, block: str, runs: Packed) -> Part:
        """Keep the runs of a block in memory."""
        self.start()  # also notes what exists, before the first shard is complete
        return Part.in_memory(shard, runs)

    def finish(
        self,
        shard: int,
        first_record: int,
        header: int | None,
        blocks: Iterable[Sequence[Part]],
        order: Any = None,
    ) -> WrittenShard:
        """Write a shard.

        Parameters
        ----------
        shard, first_record : int
            Number of the shard, and number of its first record.
        header : int or None
            Size of the header in bytes; 0 if the shard is not compressed. None: the size that is needed.
        blocks : iterable of sequence of Part
            The parts of each task that has records of the shard; parts of other shards are ignored.
        order : object
            Not used: results that let Dask process the blocks in order.
        """
        self.start()
        pairs = pairs_in_order(blocks, shard)
        runs = tuple(run for run, _ in pairs)
        head, crc, size = begin_shard(runs, first_record, header)
        written = self.written(shard, size, crc, runs)
        if (before := self.finished(written)) is not None:
            return before
        pieces = chain.from_iterable(pieces for _, pieces in pairs)
        with self.staged(shard).open("wb") as file:
            file.write(head)
            for piece in _without(len(MEMBER_HEADER) if head else 0, pieces):
                file.write(piece)
        write_receipt(self.receipt(shard), written)
        return written


def _without(skip: int, pieces: Iterable[Any]) -> Iterator[memoryview]:
    """Yield pieces without their first bytes, which are in the first piece that is not empty."""
    for piece in pieces:
        view = memoryview(piece).cast("B")
        if len(view):
            yield view[skip:]
            skip = 0
