"""Compare opened shards with the manifest: sizes, records, and checksums of runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from xee_tf.display import counted
from xee_tf.errors import RecordError
from xee_tf.records import frame_footers, frame_offsets, run_crc
from xee_tf.shards.access import THREADS, Shard, read_records
from xee_tf.sidecars import ManifestShard

__all__ = ["check_first_runs", "check_runs", "check_shard", "match_shards"]

_LONG = 1024  # average bytes of a record above which reading each header takes little time


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
    found = []
    for shard, known in zip(shards, described, strict=True):
        check_shard(shard, known, "the manifest")
        starts = np.concatenate([[0], np.cumsum(known.run_records, dtype=np.int64)])
        has_runs = len(known.run_crcs) > 0
        found.append(replace(shard, run_starts=starts, run_crcs=known.run_crcs) if has_runs else shard)
    return found


def check_shard(shard: Shard, known: ManifestShard, manifest: str) -> None:
    """Check the number of records and the size of a file against a manifest.

    The size is not compared if another program compressed or decompressed the file.

    Raises
    ------
    RecordError
        If they differ.
    """
    unchanged = known.same_kind(shard.location) and shard.access != "stream"
    if shard.records != known.file.records or (unchanged and shard.size != known.file.bytes):
        raise RecordError(
            f"{shard} has {counted(shard.records, 'record')} in {counted(shard.size, 'byte')}, but "
            f"{manifest} describes {known.file.records:,} in {known.file.bytes:,}: the file belongs to "
            "another export or was modified. If it is correct, remove the manifest."
        )


def check_runs(shard: Shard, buffers: Iterable[tuple[int, memoryview]]) -> Iterator[tuple[int, memoryview]]:
    """Yield buffers of `read_records`, and compare the checksums of complete runs with the manifest.

    A buffer is checked after the caller has processed it, so that an error about a corrupt record comes
    first. Short records of varying length are not checked, because finding their ends would take longer than
    reading them.

    Raises
    ------
    RecordError
        If a run does not match the manifest.
    """
    starts, crcs = shard.run_starts, shard.run_crcs
    if starts is None or crcs is None or not (shard.record_size or shard.size > shard.records * _LONG):
        yield from buffers
        return
    crc = 0
    reached = -1  # the end of the part of the current run that `crc` covers
    for first, buffer in buffers:
        yield first, buffer
        if shard.record_size:
            ends = np.arange(shard.record_size, len(buffer) + 1, shard.record_size)
        else:
            ends = frame_offsets(buffer, source=str(shard), first=first)[1:]
        found = frame_footers(buffer, ends)
        last = first + len(found)
        run = int(np.searchsorted(starts, first, "right")) - 1
        edges = starts[run : int(np.searchsorted(starts, last, "left")) + 1].tolist()
        for begin, end, expected in zip(
            edges, edges[1:], crcs[run : run + len(edges)].tolist(), strict=False
        ):
            start, stop = max(begin, first), min(end, last)
            if start == begin:
                crc, reached = 0, begin
            if reached != start:
                continue
            crc, reached = run_crc(found[start - first : stop - first], crc), stop
            if stop == end and crc != expected:
                raise RecordError(
                    f"{shard}: records {begin} to {end - 1} do not match the manifest: the shard belongs to "
                    "another export, or shards were swapped. If the records are correct, remove the manifest."
                )


def check_first_runs(shards: Sequence[Shard]) -> None:
    """Compare the first run of each shard with the manifest.

    Shards with a member index are skipped, because their sizes are compared already.

    Raises
    ------
    RecordError
        If a run does not match the manifest.
    """

    def check(shard: Shard) -> None:
        if shard.run_starts is not None and len(shard.run_starts) > 1 and shard.access != "members":
            for _ in check_runs(shard, read_records(shard, 0, int(shard.run_starts[1]), share=False)):
                pass

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(check, shards))
