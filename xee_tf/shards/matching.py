"""Compare opened shards with the manifest: sizes, records, and checksums of runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from xee_tf.display import counted
from xee_tf.errors import RecordError
from xee_tf.records import frame_footers, frame_offsets, run_crc
from xee_tf.shards.shard import Shard
from xee_tf.sidecars import ManifestShard

__all__ = ["check_runs", "differing_run", "foreign_run", "match_shard", "match_shards", "other_file"]


def match_shards(shards: Sequence[Shard], described: Sequence[ManifestShard]) -> list[Shard]:
    """Add the runs of the manifest to opened shards, and check that the shards match the manifest.

    Shards may have been compressed or decompressed since the manifest was written, if they have the same
    records.

    Raises
    ------
    RecordError
        If the shards do not match the manifest.
    """
    if not described:
        return list(shards)
    if len(shards) != len(described):
        raise RecordError(
            f"The manifest lists {counted(len(described), 'shard')}, but got {len(shards):,} ({shards[0]} to "
            f"{shards[-1]}): they belong to another export. If the shards are correct, remove the manifest."
        )
    for shard, known in zip(shards, described, strict=True):
        if shard.records != known.file.records:
            raise other_file(shard, known, "the manifest")
    return [match_shard(shard, known, "the manifest") for shard, known in zip(shards, described, strict=True)]


def match_shard(shard: Shard, known: ManifestShard, manifest: str) -> Shard:
    """Add the runs of a manifest to an opened file, after a check of its size.

    The size is not compared if another program compressed or decompressed the file. The number of records is
    compared only if it is known.

    Raises
    ------
    RecordError
        If they differ.
    """
    unchanged = known.same_kind(shard.location) and shard.access != "stream"
    if shard.records not in (0, known.file.records) or (unchanged and shard.size != known.file.bytes):
        raise other_file(shard, known, manifest)
    if not len(known.run_crcs):
        return shard
    crc = known.file.crc32c if known.is_same_file(shard.location, shard.size) else None
    return replace(shard, run_starts=known.run_starts, run_crcs=known.run_crcs, crc32c=crc)


def other_file(shard: Shard, known: ManifestShard, manifest: str) -> RecordError:
    """Return the error for a file that has another size or number of records than in its manifest."""
    held = f"{counted(shard.records, 'record')} in " if shard.records else ""
    return RecordError(
        f"{shard} has {held}{counted(shard.size, 'byte')}, but {manifest} describes "
        f"{known.file.records:,} records in {known.file.bytes:,}: the file belongs to another export or was "
        "modified. If it is correct, remove the manifest."
    )


def check_runs(
    shard: Shard, buffers: Iterable[tuple[range, memoryview]]
) -> Iterator[tuple[range, memoryview]]:
    """Yield buffers and the numbers of their records, and compare each run with the manifest afterwards.

    Raises
    ------
    RecordError
        If a run does not match the manifest.
    """
    starts, crcs = shard.run_starts, shard.run_crcs
    assert starts is not None
    assert crcs is not None
    crc = 0  # of the part of the current run that previous buffers contain
    for records, buffer in buffers:
        yield records, buffer
        footers = _footers(shard, records, buffer)
        run = int(np.searchsorted(starts, records.start, "right")) - 1
        begin = records.start
        while begin < records.stop:
            end = min(int(starts[run + 1]), records.stop)
            if begin == starts[run]:
                crc = 0
            crc = run_crc(footers[begin - records.start : end - records.start], crc)
            if end == starts[run + 1] and crc != crcs[run]:
                raise foreign_run(shard, int(starts[run]), end)
            begin, run = end, run + 1


def differing_run(
    footers: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], crcs: npt.NDArray[np.uint32]
) -> tuple[int, int] | None:
    """Return the first run whose checksum is not that of the footers of all records, as (start, stop)."""
    for start, stop, expected in zip(starts[:-1].tolist(), starts[1:].tolist(), crcs.tolist(), strict=True):
        if run_crc(footers[start:stop]) != expected:
            return start, stop
    return None


def foreign_run(shard: Shard, start: int, stop: int) -> RecordError:
    """Return the error for a run that does not match the manifest."""
    return RecordError(
        f"{shard}: records {start} to {stop - 1} do not match the manifest: the shard belongs to another "
        "export, shards were swapped, or the file was replaced after it was opened. If the records are "
        "correct, remove the manifest."
    )


def _footers(shard: Shard, records: range, buffer: memoryview) -> npt.NDArray[np.uint8]:
    """Return the footers of the records of a buffer."""
    size = shard.record_size
    if size and len(buffer) == size * len(records):
        return frame_footers(buffer, np.arange(size, len(buffer) + 1, size))
    offsets = frame_offsets(buffer, source=str(shard), first=records.start)
    if len(offsets) != len(records) + 1:
        raise RecordError(
            f"{shard} is corrupt: from record {records.start} on, the records do not match its index."
        )
    return frame_footers(buffer, offsets[1:])
