"""Process one block: cut its patches, encode and compress them, and put them into a store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.blocks import BandRule, Block, BlockAxis, BlockLayout, Pieces, assemble, cut_row
from xee_tf.export.patches import PatchRecords, PatchShards
from xee_tf.geometry import PatchGrid
from xee_tf.shards import Part, Run, ShardStore, pack_run

__all__ = ["BlockEncoder"]


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
        window = layout.window(*block)
        bands, masks = assemble(
            window,
            pieces,
            self.rules,
            has_mask=self.has_mask,
            want_masks=self.count_masked or self.record.drop_masked_steps,
        )
        # A pixel is masked if any band is masked there; an array band, if all of its steps are.
        masked = (
            np.logical_or.reduce([mask.all(axis=0) for mask in masks or []]) if self.count_masked else None
        )
        columns = layout.x.owned(block[1])
        for row in layout.y.owned(block[0]):

            def cut(arrays: Sequence[NDArray[Any]], row: int = row) -> list[Any]:
                y, x = layout.y.patches, layout.x.patches
                return [cut_row(array, window, y, x, row, columns) for array in arrays]

            first = row * self.grid.patches_per_row + columns[0]
            parts = [
                part
                for part in self.shards.split(first, first + len(columns))
                if part[0] not in self.finished
            ]
            if not parts:
                continue
            share = keep = None
            if masked is not None:
                share = cut([masked[None]])[0].mean(axis=(1, 2, 3))
                keep = share <= self.masked_threshold
            encoded = self.record.encode(cut(bands), None if masks is None else cut(masks), keep)
            per_patch = self.record.per_patch
            kept = np.ones(len(columns), bool) if keep is None else keep
            before = np.concatenate([[0], np.cumsum(kept)])
            for shard, begin, end in parts:
                edges = before[np.array(self._member_edges(layout.x, row, begin, end)) - first]
                numbers = np.flatnonzero(kept[begin - first : end - first])
                run = pack_run(
                    encoded,
                    (np.unique(edges) * per_patch).tolist(),
                    compressed=self.store.names.compressed,
                    first=begin,
                    patches=() if share is None else (numbers + begin).tolist(),
                    masked=() if share is None else share[numbers + begin - first].tolist(),
                )
                yield shard, run

    def _member_edges(self, axis: BlockAxis, row: int, begin: int, end: int) -> list[int]:
        """Return the patch numbers at which gzip members begin, and the end."""
        # Members are aligned to the patch row, and their length depends only on the record size: the bytes of
        # an export must not depend on the chunks of its source.
        start, step = row * self.grid.patches_per_row, axis.patches_per_member
        inner = range(start + ((begin - start) // step + 1) * step, end, step)
        return [begin, *inner, end]
