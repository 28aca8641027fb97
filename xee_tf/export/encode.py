"""Process one block: cut its patches, encode and compress them, and put them into a store."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.blocks import BandRule, Block, BlockAxis, BlockLayout, Pieces, assemble, cut_row, tiles
from xee_tf.export.patches import PatchRecords, PatchShards
from xee_tf.export.tallies import BlockTallies, TalliedBand
from xee_tf.geometry import PatchAxis, PatchGrid, Window
from xee_tf.records import Encoded
from xee_tf.shards import Part, Run, ShardStore, pack_run

__all__ = ["BlockEncoder"]

_KEPT_BYTES = 1 << 23  # largest memory that a thread keeps for further blocks
_kept = threading.local()


@dataclass(frozen=True)
class BlockEncoder:
    """Callable that converts the pieces of a block to parts; small and picklable, as all tasks share it.

    Parameters
    ----------
    grid : PatchGrid
        The patches.
    record : PatchRecords
        The records of a patch.
    rules : tuple of BandRule
        One rule for each band.
    has_mask : bool
        Whether the user's mask follows the planes of the bands.
    shards : PatchShards
        The assignment of patches to shards.
    masked_threshold : float
        Patches with a larger proportion of masked pixels are omitted.
    count_masked : bool
        Whether the proportion of masked pixels is needed.
    store : ShardStore
        The store for the records.
    finished : collection of int
        Shards that are complete, whose records are not needed.
    tallied : tuple of TalliedBand
        The bands of which statistics are taken.
    """

    grid: PatchGrid
    record: PatchRecords
    rules: tuple[BandRule, ...]
    has_mask: bool
    shards: PatchShards
    masked_threshold: float
    count_masked: bool
    store: ShardStore
    finished: Collection[int] = ()
    tallied: tuple[TalliedBand, ...] = ()

    def __call__(self, layout: BlockLayout, block: Block, pieces: Pieces) -> list[Part]:
        """Store the records of one block; return one part for each of their shards."""
        name = f"{block[0]}-{block[1]}"
        return [
            self.store.put(shard, name, (run for _, run in runs))
            for shard, runs in groupby(self._runs(layout, block, pieces), key=itemgetter(0))
        ]

    def _runs(
        self, layout: BlockLayout, block: Block, pieces: Pieces
    ) -> Iterator[tuple[int, tuple[Run, list[Any]]]]:
        """Yield the runs of a block, each with the number of its shard."""
        y, x = layout.y.patches, layout.x.patches
        found = self._selected(tiles(layout, block, self.record.patch_bytes))
        memory = None
        if self.record.layout.fixed_size and (self.store.names.compressed or not self.store.keeps_runs):
            memory = _memory(max(len(tile) for _, tile in found) * self.record.patch_bytes)
        tallies = BlockTallies(self.tallied)
        last = self._last_runs(found)
        for rows, columns in found:
            window = Window(*y.halo(rows[0], rows[-1]), *x.halo(columns[0], columns[-1]))
            bands, masks = assemble(
                window,
                pieces,
                self.rules,
                has_mask=self.has_mask,
                want_masks=bool(self.tallied) or self.count_masked or self.record.drop_masked_steps,
            )
            axes = window, y, x
            shard = self._only_shard(rows, columns)
            if shard is not None:
                tallies.add(shard, bands, masks, axes, rows, columns)
            for row in rows:
                cut = partial(_cut, window=window, y=y, x=x, row=row, columns=columns)
                keep = share = None
                if self.count_masked and masks is not None:
                    # A pixel is masked if any band is masked there; an array band, if all of its steps are.
                    masked = np.logical_or.reduce([mask.all(axis=1) for mask in cut(masks)])
                    share = masked.mean(axis=(1, 2))
                    keep = share <= self.masked_threshold
                first = row * self.grid.patches_per_row + columns[0]
                if self.shards.selection is not None:
                    selected = self.shards.selection.contains(first, first + len(columns))
                    keep = selected if keep is None else selected & keep
                parts = self._unfinished(first, first + len(columns))
                if parts:
                    cut_masks = None if masks is None else cut(masks)
                    encoded = self.record.encode(cut(bands), cut_masks, keep, memory)
                for part, begin, end in parts:
                    own = slice(begin - first, end - first)
                    if shard is None:
                        kept = None if keep is None else keep[own]
                        tallies.add(part, bands, masks, axes, range(row, row + 1), columns[own], kept)
                    edges = np.array(self._member_edges(layout.x, row, begin, end)) - first
                    run, data = self._pack(encoded, edges, first, keep, share)
                    if begin == last[part]:
                        run = replace(run, moments=tallies.moments(part))
                    yield part, (run, data)

    def _last_runs(self, found: Sequence[tuple[range, range]]) -> dict[int, int]:
        """Return the first patch of the last run of each shard in the tiles of a block."""
        width = self.grid.patches_per_row
        return {
            shard: begin
            for rows, columns in found
            for row in rows
            for shard, begin, _ in self._unfinished(row * width + columns[0], row * width + columns[-1] + 1)
        }

    def _only_shard(self, rows: range, columns: range) -> int | None:
        """Return the shard of all patches of a tile, if they have the same one and all are written."""
        if self.count_masked or self.shards.selection is not None:
            return None
        width = self.grid.patches_per_row
        parts = self._unfinished(rows[0] * width + columns[0], rows[-1] * width + columns[-1] + 1)
        [(shard, begin, end)] = parts if len(parts) == 1 else [(None, 0, 0)]
        return shard if end - begin == (len(rows) - 1) * width + len(columns) else None

    def _selected(self, found: Iterable[tuple[range, range]]) -> list[tuple[range, range]]:
        """Return the rows and columns of tiles, without rows at their edges that have no selected patches."""
        if self.shards.selection is None:
            return list(found)
        kept = []
        for rows, columns in found:
            firsts = [row * self.grid.patches_per_row + columns[0] for row in rows]
            place = self.shards.place
            needed = [
                row
                for row, first in zip(rows, firsts, strict=True)
                if place(first) < place(first + len(columns))
            ]
            if needed:
                kept.append((range(needed[0], needed[-1] + 1), columns))
        return kept

    def _unfinished(self, begin: int, end: int) -> list[tuple[int, int, int]]:
        """Split patches by shard, without those of finished shards."""
        return [part for part in self.shards.split(begin, end) if part[0] not in self.finished]

    def _pack(
        self,
        encoded: Encoded,
        edges: NDArray[np.int64],
        first: int,
        keep: NDArray[np.bool_] | None,
        share: NDArray[np.float64] | None,
    ) -> tuple[Run, list[Any]]:
        """Pack the patches between the first and the last edge, of patches from number `first` on."""
        compressed, per_patch, begin = self.store.names.compressed, self.record.per_patch, int(edges[0])
        place = self.shards.place(first + begin)
        if keep is None:
            return pack_run(encoded, (edges * per_patch).tolist(), compressed=compressed, first=place)
        before = np.concatenate([[0], np.cumsum(keep)])
        numbers = np.flatnonzero(keep[begin : edges[-1]]) + begin
        return pack_run(
            encoded,
            (np.unique(before[edges]) * per_patch).tolist(),
            compressed=compressed,
            first=place,
            patches=(numbers + first).tolist(),
            masked=() if share is None else share[numbers].tolist(),
        )

    def _member_edges(self, axis: BlockAxis, row: int, begin: int, end: int) -> list[int]:
        """Return the patch numbers at which gzip members begin, and the end."""
        # Members are aligned to the patch row, and their length depends only on the record size: the bytes of
        # an export must not depend on the chunks of its source.
        start, step = row * self.grid.patches_per_row, axis.patches_per_member
        inner = range(start + ((begin - start) // step + 1) * step, end, step)
        return [begin, *inner, end]


def _memory(size: int) -> NDArray[np.uint8]:
    """Return memory for the records of a tile.

    A thread uses the same memory for all tiles, because the operating system has to clear new memory first.
    """
    memory: NDArray[np.uint8] | None = getattr(_kept, "memory", None)
    if memory is None or len(memory) < size:
        memory = np.empty(size, np.uint8)
        if size <= _KEPT_BYTES:
            _kept.memory = memory
    return memory


def _cut(
    arrays: Sequence[NDArray[Any]], window: Window, y: PatchAxis, x: PatchAxis, row: int, columns: range
) -> list[Any]:
    """Cut the patches of a row from assembled arrays; see `cut_row`."""
    return [cut_row(array, window, y, x, row, columns) for array in arrays]
