"""Pack runs of consecutive records into gzip members, and describe parts and shards.

A *run* is a sequence of consecutive records from one task. A *part* is the runs of one task for one shard, as
staged in a store. A shard consists of the runs of its parts, in the order of their records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain, pairwise
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from xee_tf.moments import Moments, merge_moments
from xee_tf.records import Encoded, combine_crcs, frame_footers, frames_crc, run_crc
from xee_tf.shards.members import EMPTY_TAIL, MEMBER_HEADER, MemberIndex, compress_member, indexed_header
from xee_tf.sidecars import ManifestShard, ShardInfo

__all__ = ["Part", "Run", "WrittenShard", "begin_shard", "pack_run", "pairs_in_order", "shard_header"]


_ARRAYS: dict[str, Any] = {
    "records": np.uint32,
    "sizes": np.int64,
    "crcs": np.uint32,
    "patches": np.int64,
    "masked": np.float64,
}
"""The attributes of runs that shards keep, and their dtypes."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive records in a part.

    Parameters
    ----------
    first : int
        Sort key of the runs in a shard: for an image, the number of the first patch; for a table, the number
        of the row group.
    records : tuple of int
        Number of records in each gzip member; if not compressed, in each group of the same size.
    sizes : tuple of int
        Size of each item of `records` in bytes, compressed or not.
    crcs : tuple of int
        CRC-32C of the footers of the records, for each item of `records`; see `run_crc`.
    patches, masked : tuple
        Numbers of the patches that were kept and their proportions of masked pixels; empty if masked pixels
        were not counted.
    crc : int
        CRC-32C of the bytes of the run.
    moments : tuple of Moments
        What is known of the pixels of each band, in the last run of a block: of all its runs in the shard.
    """

    first: int
    records: tuple[int, ...]
    sizes: tuple[int, ...]
    crcs: tuple[int, ...]
    patches: tuple[int, ...] = ()
    masked: tuple[float, ...] = ()
    crc: int = 0
    moments: tuple[Moments, ...] = ()

    @property
    def size(self) -> int:
        """Size of the run in bytes."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Part:
    """The runs of one task for one shard.

    Parameters
    ----------
    shard : int
        Number of the shard.
    name : str
        Name of the file with the runs, in the staging folder of the store; "" if there is none.
    runs : tuple of Run
        The runs in the order of their bytes.
    pieces : tuple
        The bytes of each run, as a sequence of bytes-like objects, if they are in memory.
    inode : int
        Inode number of the staged file to which the runs were written; 0 if they were not.
    """

    shard: int
    name: str
    runs: tuple[Run, ...]
    pieces: tuple[Sequence[Any], ...] = ()
    inode: int = 0

    def __sizeof__(self) -> int:
        """Size in bytes, by which Dask decides where tasks run and when a worker has too much in memory."""
        return object.__sizeof__(self) + sum(len(piece) for pieces in self.pieces for piece in pieces)

    @classmethod
    def in_memory(cls, shard: int, runs: Iterable[tuple[Run, Sequence[Any]]]) -> Part:
        """Create a part whose bytes stay in memory."""
        packed = list(runs)
        return cls(shard, "", tuple(run for run, _ in packed), tuple(pieces for _, pieces in packed))

    @property
    def without_bytes(self) -> Part:
        """The part without its bytes."""
        return replace(self, pieces=())


def pack_run(
    encoded: Encoded,
    edges: Sequence[int],
    *,
    compressed: bool,
    first: int,
    patches: Sequence[int] = (),
    masked: Sequence[float] = (),
) -> tuple[Run, list[Any]]:
    """Pack records into one run.

    Parameters
    ----------
    encoded : Encoded
        The records.
    edges : sequence of int
        Ascending record numbers at which members begin, and the end; the run has the records from the first
        edge to the last.
    compressed : bool
        Whether to compress the members.
    first, patches, masked
        See `Run`.

    Returns
    -------
    run : Run
        The description of the run.
    pieces : list of bytes-like
        The gzip members, each in up to three pieces; if not compressed, a single piece with all records.

    Examples
    --------
    >>> from xee_tf.records import Feature, RecordLayout, encode_records
    >>> layout = RecordLayout((Feature.of("B4", "f4", 2),))
    >>> encoded = encode_records(layout, [np.zeros((5, 2), "f4")])
    >>> run, pieces = pack_run(encoded, [0, 2, 5], compressed=False, first=0)
    >>> run.records, run.size == len(encoded.buffer), len(pieces)
    ((2, 3), True, 1)
    """
    offsets = encoded.offsets[edges[0] : edges[-1] + 1]
    buffer = encoded.buffer[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    ends = frame_footers(buffer, offsets[1:])
    spans = list(pairwise(edge - edges[0] for edge in edges))
    if compressed:
        members = [compress_member(buffer[offsets[a] : offsets[b]]) for a, b in spans]
        sizes = [sum(map(len, member)) for member in members]
        pieces: list[Any] = list(chain.from_iterable(members))
        crc = reduce(lambda crc, piece: crc32c(piece, crc), pieces, 0)
    else:
        pieces = [buffer]
        sizes = [int(offsets[b] - offsets[a]) for a, b in spans]
        crc = frames_crc(buffer, offsets, ends)
    run = Run(
        first=first,
        records=tuple(b - a for a, b in spans),
        sizes=tuple(sizes),
        crcs=tuple(run_crc(ends[a:b]) for a, b in spans),
        patches=tuple(patches),
        masked=tuple(masked),
        crc=crc,
    )
    return run, pieces


def shard_header(runs: Sequence[Run], first_record: int, *, length: int | None = None) -> bytes:
    """Return the first gzip header of a shard, with an index of its members; see `indexed_header`."""
    records = tuple(chain.from_iterable(run.records for run in runs))
    if not records:
        return MEMBER_HEADER
    sizes = tuple(chain.from_iterable(run.sizes for run in runs))
    return indexed_header(MemberIndex(first_record, records, sizes), length=length)


def begin_shard(runs: Sequence[Run], first_record: int, header: int | None) -> tuple[bytes, int, int]:
    """Return the header of a shard, and the CRC-32C and the size of the whole shard.

    The header replaces that of the first gzip member.

    Parameters
    ----------
    runs : sequence of Run
        The runs of the shard, in order.
    first_record : int
        Number of the first record.
    header : int or None
        Size of the header in bytes; 0 if the shard is not compressed. None: the size that is needed.
    """
    crc = size = 0
    for run in runs:
        crc, size = combine_crcs(crc, run.crc, run.size), size + run.size
    if header == 0:
        return b"", crc, size
    if not size:
        head = MEMBER_HEADER + EMPTY_TAIL
        return head, crc32c(head), len(head)
    rest = size - len(MEMBER_HEADER)
    crc = combine_crcs(crc32c(MEMBER_HEADER), crc, rest)  # without the header of the first member
    head = shard_header(runs, first_record, length=header)
    return head, combine_crcs(crc32c(head), crc, rest), len(head) + rest


def pairs_in_order(blocks: Iterable[Sequence[Part]], shard: int) -> list[tuple[Run, Sequence[Any]]]:
    """Return the runs of a shard that are in memory, each with its bytes, in the order of their records."""
    parts = (part for part in chain.from_iterable(blocks) if part.shard == shard)
    pairs = (pair for part in parts for pair in zip(part.runs, part.pieces, strict=True))
    return sorted(pairs, key=lambda pair: pair[0].first)


@dataclass(frozen=True, eq=False)
class WrittenShard:
    """A complete shard in a store, before it is moved to its destination.

    Parameters
    ----------
    number : int
        Number of the shard.
    file : ShardInfo
        The file after it is moved.
    records, sizes, crcs, patches, masked : ndarray
        The attributes of all runs, in the order of their records; see `Run`. The objects of the runs would
        need ten times the memory until all shards are complete.
    upload : str
        The id of the upload that holds the shard; "" if it is a file.
    tags : tuple of str
        The tags of the parts of the upload, in order.
    moments : tuple of Moments
        What is known of the pixels of each band; empty for tables.
    """

    number: int
    file: ShardInfo
    records: NDArray[np.uint32]
    sizes: NDArray[np.int64]
    crcs: NDArray[np.uint32]
    patches: NDArray[np.int64]
    masked: NDArray[np.float64]
    upload: str = ""
    tags: tuple[str, ...] = ()
    moments: tuple[Moments, ...] = ()

    def __sizeof__(self) -> int:
        """Size in bytes; see `Part`."""
        arrays: list[NDArray[Any]] = [getattr(self, name) for name in _ARRAYS]
        return object.__sizeof__(self) + sum(array.nbytes for array in arrays)

    @classmethod
    def of_runs(cls, number: int, file: ShardInfo, runs: Sequence[Run]) -> WrittenShard:
        """Describe a shard that consists of the given runs."""
        arrays: dict[str, Any] = {
            name: np.array([value for run in runs for value in getattr(run, name)], dtype)
            for name, dtype in _ARRAYS.items()
        }
        bands = zip(*(run.moments for run in runs if run.moments), strict=True)
        return cls(number, file, **arrays, moments=tuple(map(merge_moments, bands)))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WrittenShard:
        """Create a shard from the result of `to_json`."""
        arrays = {name: np.array(document[name], dtype) for name, dtype in _ARRAYS.items()}
        file, tags = ShardInfo(**document["file"]), tuple(document.get("tags", ()))
        moments = tuple(map(Moments.from_json, document.get("moments", ())))
        return cls(**{**document, **arrays, "file": file, "tags": tags, "moments": moments})

    def to_json(self) -> dict[str, Any]:
        """Return the shard as values of JSON."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        moments = [each.to_json() for each in self.moments]
        return vars(self) | arrays | {"file": vars(self.file), "moments": moments}

    def in_manifest(self, name: str, *, patches: bool) -> ManifestShard:
        """Return the description for a manifest, in which `name` is the file without its folder."""
        sizes = self.sizes.copy()
        # The header with the index is longer than the one it replaces.
        sizes[np.flatnonzero(sizes)[:1]] += self.file.bytes - sizes.sum()
        file = replace(self.file, path=name)
        return ManifestShard(file, self.records, self.crcs, self.patches if patches else None, sizes)
