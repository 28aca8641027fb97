"""From parts to shards to a finished export; every step can be done again after a worker died.

Shards are put together under temporary names. Only the commit, when all of them are complete,
moves them into place and writes the mixer last: who finds a mixer finds the whole export.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, chain
from typing import Any

import numpy as np
from crc32c import crc32c

from xee_tf.errors import DestinationError, DestinationExistsError
from xee_tf.export.encode import Part, Run
from xee_tf.export.result import ExportNames, ExportResult, ShardInfo
from xee_tf.geometry import PatchGrid
from xee_tf.shards.members import MEMBER_HEADER, MemberIndex, indexed_header
from xee_tf.sidecars import ImageManifest, ManifestShard, Mixer
from xee_tf.storage import Location

__all__ = ["Commit", "WrittenShard", "write_shard"]

#: A gzip member's deflate stream and trailer where there is nothing in it.
_EMPTY_TAIL = b"\x03\x00" + bytes(8)
_COPY_BYTES = 1 << 20
_OPEN_PARTS = 100


@dataclass(frozen=True)
class WrittenShard:
    """A complete shard that still has its temporary name."""

    number: int
    records: int
    bytes: int
    crc32c: int
    run_records: tuple[int, ...]
    run_crcs: tuple[int, ...]
    patches: tuple[int, ...]
    masked: tuple[float, ...]

    def in_manifest(self, name: str, *, patches: bool) -> ManifestShard:
        """The same facts, for a file that has its final name."""
        return ManifestShard(
            name,
            self.records,
            self.bytes,
            self.crc32c,
            np.array(self.run_records, np.uint32),
            np.array(self.run_crcs, np.uint32),
            np.array(self.patches, np.int64) if patches else None,
        )


def write_shard(
    folder: Location, number: int, first_record: int, compressed: bool, blocks: Sequence[Sequence[Part]]
) -> WrittenShard:
    """Join the parts of one shard in the order of their records.

    Parameters
    ----------
    folder : Location
        Where parts wait and the shard is put.
    number, first_record : int
        Number of the shard, and of its first record.
    compressed : bool
    blocks : sequence
        What the `BlockEncoder` gave back for every block that has a part in this shard.

    Notes
    -----
    A receipt is left beside the shard, and the parts go. If the task is run again because its
    result was lost with a worker, the receipt answers.
    """
    receipt = folder.child(f"{number:05d}.json")
    if receipt.exists():
        found: dict[str, Any] = json.loads(receipt.read_bytes())
        facts: Any = {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()}
        return WrittenShard(**facts)
    parts = [part for part in chain.from_iterable(blocks) if part.shard == number]
    ordered = sorted(
        (
            (run, part, end - sum(run.sizes))
            for part in parts
            for run, end in zip(part.runs, accumulate(sum(r.sizes) for r in part.runs), strict=True)
        ),
        key=lambda item: item[0].first,
    )
    runs = [run for run, _, _ in ordered]
    with _Sink(folder.child(f"{number:05d}.shard")) as sink, ExitStack() as stack:
        skip = 0
        if compressed:
            sink.write(_header(runs, first_record))
            skip = len(MEMBER_HEADER)  # the header with the index stands in its place
        open_parts: dict[str, Any] = {}
        for run, part, start in ordered:
            length = sum(run.sizes)
            if not length:
                continue
            if part.location.url not in open_parts:
                if len(open_parts) == _OPEN_PARTS:
                    stack.pop_all().close()
                    open_parts.clear()
                open_parts[part.location.url] = stack.enter_context(part.location.open())
            sink.copy(open_parts[part.location.url], start + skip, length - skip)
            skip = 0
        if compressed and not any(run.sizes for run in runs):
            sink.write(_EMPTY_TAIL)
    written = WrittenShard(
        number=number,
        records=sum(sum(run.records) for run in runs),
        bytes=sink.size,
        crc32c=sink.crc,
        run_records=tuple(chain.from_iterable(run.records for run in runs)),
        run_crcs=tuple(chain.from_iterable(run.crcs for run in runs)),
        patches=tuple(chain.from_iterable(run.patches for run in runs)),
        masked=tuple(chain.from_iterable(run.masked for run in runs)),
    )
    receipt.write_bytes(json.dumps(asdict(written)).encode())
    for part in parts:
        part.location.remove()
    return written


class _Sink:
    """A file that is written in one go and knows its size and checksum."""

    def __init__(self, location: Location) -> None:
        self._file = location.open("wb")
        self._buffer = memoryview(bytearray(_COPY_BYTES))
        self.size = self.crc = 0

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.size += len(data)
        self.crc = crc32c(data, self.crc)

    def copy(self, source: Any, start: int, length: int) -> None:
        source.seek(start)
        while length:
            got = source.readinto(self._buffer[: min(length, _COPY_BYTES)])
            if not got:
                raise DestinationError("A part of this export is shorter than it was when it was written.")
            self.write(self._buffer[:got])
            length -= got


def _header(runs: Sequence[Run], first_record: int) -> bytes:
    records = tuple(chain.from_iterable(run.records for run in runs))
    sizes = tuple(chain.from_iterable(run.sizes for run in runs))
    if not records:
        return MEMBER_HEADER
    return indexed_header(MemberIndex(first_record, records, sizes))


@dataclass(frozen=True)
class Commit:
    """The last step of an export.

    Parameters
    ----------
    names : ExportNames
    grid : PatchGrid
    records_per_patch : int
    folder : Location
        Where the finished shards are.
    manifest : ImageManifest
        Still without its shards.
    mixer, index : bool
        Whether these are written.
    overwrite : bool
        Whether files of an earlier export are replaced.
    """

    names: ExportNames
    grid: PatchGrid
    records_per_patch: int
    folder: Location
    manifest: ImageManifest
    mixer: bool
    index: bool
    overwrite: bool

    def __call__(self, shards: Sequence[WrittenShard]) -> ExportResult:
        """Move the shards into place, then write the index, the manifest, and last the mixer."""
        targets = [self.names.shard(shard.number) for shard in shards]
        if self.overwrite:
            # The mixer marks a whole export: it goes before the first of its shards is replaced.
            for stale in sorted(self.names.existing(), key=lambda file: file.url != self.names.mixer.url):
                if stale not in targets:
                    stale.remove()
        else:
            self._require_free(shards)
        for shard, target in zip(shards, targets, strict=True):
            source = self.folder.child(f"{shard.number:05d}.shard")
            if source.exists():
                source.move(target)
            elif not (target.exists() and target.size() == shard.bytes):
                raise DestinationError(f"Shard {shard.number} has gone from {self.folder}; export again.")
        if self.index:
            self.names.index.write_bytes(self._index(shards))
        dropping = not self.mixer  # records then do not tell which patches they are
        described = tuple(
            shard.in_manifest(target.name, patches=dropping)
            for shard, target in zip(shards, targets, strict=True)
        )
        self.names.manifest.write_bytes(replace(self.manifest, shards=described).text().encode())
        if self.mixer:
            Mixer.from_grid(self.grid).write(self.names.mixer)
        with suppress(FileNotFoundError):
            self.folder.remove(recursive=True)
        return ExportResult(
            files=tuple(
                ShardInfo(target.url, shard.records, shard.bytes, shard.crc32c)
                for shard, target in zip(shards, targets, strict=True)
            ),
            mixer=self.names.mixer if self.mixer else None,
            index=self.names.index if self.index else None,
            manifest=self.names.manifest,
            grid=self.grid,
            records_per_patch=self.records_per_patch,
        )

    def _require_free(self, shards: Sequence[WrittenShard]) -> None:
        """Check again that nothing is replaced: another export may have come first since the graph was made.

        If this task is run again because its result was lost with a worker, shards have left the folder
        already, and what exists is its own work.
        """
        existing = self.names.existing()
        if existing and all(self.folder.child(f"{shard.number:05d}.shard").exists() for shard in shards):
            self.folder.remove(recursive=True)
            raise DestinationExistsError(
                f"{existing[0]} exists: an export with this prefix was written after this one was planned "
                f"({len(existing)} files). It is left as it is. Choose another prefix, or replace it with "
                "if_exists='overwrite'."
            )

    def _index(self, shards: Sequence[WrittenShard]) -> bytes:
        import geopandas as gpd
        import shapely

        patches = np.concatenate([np.asarray(shard.patches, np.int64) for shard in shards])
        counts = [len(shard.patches) for shard in shards]
        rows, columns = np.divmod(patches, self.grid.columns)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
        pixels = (np.stack([columns, rows], axis=1)[:, None, :] + corners) * self.grid.patch.xy
        affine: Any = self.grid.affine
        x = affine.a * pixels[..., 0] + affine.b * pixels[..., 1] + affine.c
        y = affine.d * pixels[..., 0] + affine.e * pixels[..., 1] + affine.f
        frame = gpd.GeoDataFrame(
            {
                "file": np.repeat([self.names.shard(shard.number).name for shard in shards], counts),
                "record": np.concatenate([np.arange(count) * self.records_per_patch for count in counts]),
                "patch": patches,
                "row": rows,
                "column": columns,
                "masked": np.concatenate([np.asarray(shard.masked, float) for shard in shards]),
            },
            geometry=shapely.polygons(np.stack([x, y], axis=-1)),
            crs=self.grid.crs,
        )
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        return buffer.getvalue()
