"""The work of one block: cut its patches, encode them, compress them, put them aside as parts.

A *part* is what one block has for one shard: the bytes of its runs. A *run* is consecutive records
of one patch row. Parts wait on disk, not in memory, until their shard is complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.blocks.assemble import BandRule, assemble, cut_row
from xee_tf.blocks.layout import BlockLayout, Piece
from xee_tf.export.patches import PatchRecords
from xee_tf.geometry import PatchGrid
from xee_tf.records.framing import footers, run_crc
from xee_tf.shards.members import compress_member
from xee_tf.storage import Location

__all__ = ["BlockEncoder", "Part", "Run"]


@dataclass(frozen=True)
class Run:
    """Consecutive records of one patch row, as they stand in a part.

    Parameters
    ----------
    first : int
        Number of the first patch; the order of runs in a shard.
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
    patches: tuple[int, ...]
    masked: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """What one block has for one shard."""

    shard: int
    location: Location
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class BlockEncoder:
    """Turns the pieces of a block into parts; small and picklable, it travels in every task.

    Parameters
    ----------
    grid : PatchGrid
    record : PatchRecords
        What a patch becomes.
    rules : tuple of BandRule
        One for each band.
    mask_plane : int or None
        The number of the user's mask among the planes.
    compressed : bool
    group : int
        Patches in a gzip member. It depends on the record size alone, so that the bytes of an
        export do not depend on how its source is chunked.
    patches_per_shard : int
    masked_threshold : float
    count_masked : bool
        Whether the proportion of masked pixels is needed.
    folder : Location
        Where parts wait.
    """

    grid: PatchGrid
    record: PatchRecords
    rules: tuple[BandRule, ...]
    mask_plane: int | None
    compressed: bool
    group: int
    patches_per_shard: int
    masked_threshold: float
    count_masked: bool
    folder: Location

    def __call__(
        self, layout: BlockLayout, block: tuple[int, int], pieces: Sequence[tuple[Piece, NDArray[Any]]]
    ) -> list[Part]:
        """Write the parts of one block and say what is in them."""
        parts = []
        for shard, runs in groupby(self._runs(layout, block, pieces), key=lambda item: item[0]):
            location = self.folder.child(f"{shard:05d}-{block[0]}-{block[1]}.part")
            found = []
            with location.open("wb") as file:
                for _, run, members in runs:
                    for member in members:
                        file.write(member)
                    found.append(run)
            parts.append(Part(shard, location, tuple(found)))
        return parts

    def _runs(
        self, layout: BlockLayout, block: tuple[int, int], pieces: Sequence[tuple[Piece, NDArray[Any]]]
    ) -> Iterator[tuple[int, Run, list[Any]]]:
        window = layout.window(*block)
        bands, masks = assemble(
            window,
            pieces,
            self.rules,
            mask_plane=self.mask_plane,
            want_masks=self.count_masked or self.record.drop_masked_steps,
        )
        # A pixel counts as masked if a band of it is: a scalar, or all steps of an array.
        masked = (
            np.logical_or.reduce([mask.all(axis=0) for mask in masks or []]) if self.count_masked else None
        )
        columns = layout.x.owned(block[1])
        for row in layout.y.owned(block[0]):

            def cut(arrays: Sequence[NDArray[Any]], row: int = row) -> list[Any]:
                y, x = layout.y.patches, layout.x.patches
                return [cut_row(array, window, y, x, row, columns) for array in arrays]

            share = keep = None
            if masked is not None:
                share = cut([masked[None]])[0].mean(axis=(1, 2, 3))
                keep = share <= self.masked_threshold
            first = row * self.grid.columns + columns[0]
            encoded = self.record.encode(cut(bands), None if masks is None else cut(masks), keep)
            per_patch = self.record.per_patch
            offsets = encoded.offsets[::per_patch]
            ends = footers(encoded.buffer, encoded.offsets[1:])
            kept = np.ones(len(columns), bool) if keep is None else keep
            before = np.concatenate([[0], np.cumsum(kept)])
            for begin, end in self._shard_spans(first, first + len(columns)):
                edges = before[np.array(self._member_edges(row, begin, end)) - first]
                spans = [(a, b) for a, b in pairwise(edges.tolist()) if b > a]
                if self.compressed:
                    members: list[Any] = [
                        compress_member(encoded.buffer[offsets[a] : offsets[b]]) for a, b in spans
                    ]
                else:
                    members = [encoded.buffer[offsets[a] : offsets[b]] for a, b in [(edges[0], edges[-1])]]
                numbers = np.flatnonzero(kept[begin - first : end - first])
                run = Run(
                    first=begin,
                    records=tuple((b - a) * per_patch for a, b in spans),
                    sizes=tuple(len(member) for member in members),
                    crcs=tuple(run_crc(ends[a * per_patch : b * per_patch]) for a, b in spans),
                    patches=() if share is None else tuple((numbers + begin).tolist()),
                    masked=() if share is None else tuple(share[numbers + begin - first].tolist()),
                )
                yield begin // self.patches_per_shard, run, members

    def _shard_spans(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        while begin < end:
            stop = min(end, (begin // self.patches_per_shard + 1) * self.patches_per_shard)
            yield begin, stop
            begin = stop

    def _member_edges(self, row: int, begin: int, end: int) -> list[int]:
        """Patch numbers at which gzip members begin, in whole groups of the patch row."""
        start = row * self.grid.columns
        inner = range(start + ((begin - start) // self.group + 1) * self.group, end, self.group)
        return [begin, *inner, end]
