"""Runs of consecutive records: packed into gzip members, joined into shards.

A *run* is what one task makes of consecutive records; a *part* is what it puts into a store of them for
one shard; a shard is the runs of its parts, in the order of their records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import numpy as np

from xee_tf.records import Encoded, frame_footers, run_crc
from xee_tf.shards.members import MEMBER_HEADER, MemberIndex, compress_member, indexed_header
from xee_tf.sidecars import ManifestShard, ShardInfo

__all__ = ["Part", "Run", "WrittenShard", "pack_run", "shard_header"]


@dataclass(frozen=True)
class Run:
    """Consecutive records, as they stand in a part.

    Parameters
    ----------
    first : int
        The order of runs in a shard: in an image the number of the first patch, in a table that of the
        row group.
    records : tuple of int
        Records of each gzip member, or of what would be one if records were compressed.
    sizes : tuple of int
        Bytes of each gzip member; uncompressed, of the whole run.
    crcs : tuple of int
        For each item of `records` the CRC-32C over the footers of its records; see `run_crc`.
    patches, masked : tuple
        Numbers of the patches that were kept and their proportions of masked pixels; empty unless
        masked pixels were counted.
    """

    first: int
    records: tuple[int, ...]
    sizes: tuple[int, ...]
    crcs: tuple[int, ...]
    patches: tuple[int, ...] = ()
    masked: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the run."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Part:
    """What one task has put into a store for one shard.

    Parameters
    ----------
    shard : int
    name : str
        What the store calls it.
    runs : tuple of Run
        In the order of their bytes.
    """

    shard: int
    name: str
    runs: tuple[Run, ...]


def pack_run(
    encoded: Encoded,
    edges: Sequence[int],
    *,
    compressed: bool,
    first: int,
    patches: Sequence[int] = (),
    masked: Sequence[float] = (),
) -> tuple[Run, list[Any]]:
    """One run of records, and its gzip members; uncompressed, the records as they are.

    A member holds the records of `encoded` between two neighbouring `edges`, which ascend; the run has those
    from the first edge to the last. For what else it has see `Run`.

    Examples
    --------
    >>> from xee_tf.records import Feature, RecordLayout, encode_records
    >>> layout = RecordLayout((Feature.of("B4", "f4", 2),))
    >>> encoded = encode_records(layout, [np.zeros((5, 2), "f4")])
    >>> run, pieces = pack_run(encoded, [0, 2, 5], compressed=False, first=0)
    >>> run.records, run.sizes == (len(encoded.buffer),), len(pieces)
    ((2, 3), True, 1)
    """
    offsets = encoded.offsets[edges[0] : edges[-1] + 1]
    buffer = encoded.buffer[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    ends = frame_footers(buffer, offsets[1:])
    spans = list(pairwise(edge - edges[0] for edge in edges))
    if compressed:
        pieces: list[Any] = [compress_member(buffer[offsets[a] : offsets[b]]) for a, b in spans]
    else:
        pieces = [buffer]
    run = Run(
        first=first,
        records=tuple(b - a for a, b in spans),
        sizes=tuple(len(piece) for piece in pieces),
        crcs=tuple(run_crc(ends[a:b]) for a, b in spans),
        patches=tuple(patches),
        masked=tuple(masked),
    )
    return run, pieces


def shard_header(runs: Sequence[Run], first_record: int, *, length: int | None = None) -> bytes:
    """The first gzip header of a shard, with an index of its members; see `indexed_header`."""
    records = tuple(chain.from_iterable(run.records for run in runs))
    if not records:
        return MEMBER_HEADER
    sizes = tuple(chain.from_iterable(run.sizes for run in runs))
    return indexed_header(MemberIndex(first_record, records, sizes), length=length)


@dataclass(frozen=True)
class WrittenShard:
    """A whole shard in a store, which does not have its final name yet.

    Parameters
    ----------
    number : int
    file : ShardInfo
        What it will be in its place.
    runs : tuple of Run
        In the order of their records.
    """

    number: int
    file: ShardInfo
    runs: tuple[Run, ...]

    def of_runs(self, name: str) -> list[Any]:
        """One attribute of all runs, such as "patches", in one list."""
        return list(chain.from_iterable(getattr(run, name) for run in self.runs))

    def in_manifest(self, name: str, *, patches: bool) -> ManifestShard:
        """The same facts in a manifest, which names the file without its folder."""
        return ManifestShard(
            replace(self.file, path=name),
            np.array(self.of_runs("records"), np.uint32),
            np.array(self.of_runs("crcs"), np.uint32),
            np.array(self.of_runs("patches"), np.int64) if patches else None,
        )
