"""Comparing opened shards with the manifest: their sizes, their records, and the content of runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from xee_tf.errors import RecordError
from xee_tf.records import frame_footers, frame_offsets, run_crc
from xee_tf.shards.access import THREADS, Shard, read_records
from xee_tf.sidecars import ManifestShard

__all__ = ["check_first_runs", "check_runs", "check_shard", "match_shards"]

_LONG = 1024  # bytes of a record, on average, beyond which looking at each of them costs little


def match_shards(shards: Sequence[Shard], described: Sequence[ManifestShard]) -> list[Shard]:
    """The shards with what the manifest holds of them, if it fits.

    A shard that was compressed or inflated since has other bytes but the same records.
    """
    if not described:
        return list(shards)
    if len(shards) != len(described):
        raise RecordError(
            f"The manifest lists {len(described)} shards, but {shards[0]} to {shards[-1]} are "
            f"{len(shards)}: they are of another export. If they are right, remove the manifest."
        )
    found = []
    for shard, known in zip(shards, described, strict=True):
        check_shard(shard, known, "the manifest")
        starts = np.concatenate([[0], np.cumsum(known.run_records, dtype=np.int64)])
        has_runs = len(known.run_crcs) > 0
        found.append(replace(shard, run_starts=starts, run_crcs=known.run_crcs) if has_runs else shard)
    return found


def check_shard(shard: Shard, known: ManifestShard, manifest: str) -> None:
    """Refuse a file with other records than a manifest describes, or of another size.

    A file that another program compressed, or inflated, has a size of its own: its records are counted.
    """
    ours = known.same_kind(shard.location) and shard.access != "stream"
    if shard.records != known.file.records or (ours and shard.size != known.file.bytes):
        raise RecordError(
            f"{shard} holds {shard.records} records in {shard.size} bytes, but {manifest} describes "
            f"{known.file.records} in {known.file.bytes}: it is of another export, or was changed. If it is "
            "right, remove the manifest."
        )


def check_runs(shard: Shard, buffers: Iterable[tuple[int, memoryview]]) -> Iterator[tuple[int, memoryview]]:
    """The same buffers; of each run that they hold whole the content is compared with the manifest.

    A buffer is compared after it was used, so that a corrupt record is named first. Short records of
    different lengths are not compared: finding their ends would take longer than reading them.
    """
    starts, crcs = shard.run_starts, shard.run_crcs
    if starts is None or crcs is None or not (shard.record_size or shard.size > shard.records * _LONG):
        yield from buffers
        return
    crc = 0
    reached = -1  # up to where the current run was followed from its start
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
                    f"{shard}: records {begin} to {end - 1} are not those that the manifest describes: the "
                    "shard is of another export, or shards were exchanged. If they are right all the same, "
                    "remove the manifest."
                )


def check_first_runs(shards: Sequence[Shard]) -> None:
    """Compare the first run of each shard with the manifest.

    Those that we compressed are left out: their sizes tell them apart.
    """

    def check(shard: Shard) -> None:
        if shard.run_starts is not None and len(shard.run_starts) > 1 and shard.access != "members":
            for _ in check_runs(shard, read_records(shard, 0, int(shard.run_starts[1]), share=False)):
                pass

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(check, shards))
