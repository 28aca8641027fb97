"""Cut a patch around every sampled pixel, and write the patches in the order of the pixels.

The pixels are known before the graph is built, so that it only has tasks for blocks with pixels. Their
patches are rows of float32 values, after a header: the number of the row in its group, and whether integers
of each wide band, such as one of int32, were rounded. Those of a small table stay in memory until they are
encoded; those of a large one are written to a temporary file, in which the rows of a row group, which is
encoded as a whole, are together. On a cluster that writes to an object store there is no such file: the
workers exchange the rows.
"""

from __future__ import annotations

import math
import operator
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.blocks import (
    BandRule,
    Block,
    BlockLayout,
    Pieces,
    PointLayout,
    assemble,
    chunk_blocks,
    first_pixels,
    points_by_block,
)
from xee_tf.dtypes import copy_in_range
from xee_tf.geometry import Size, Window
from xee_tf.georef import GeoRef
from xee_tf.graph import (
    BlockJob,
    Graph,
    TaskRef,
    add_task,
    add_value,
    chunk_grids,
    on_cluster,
    order_blocks,
    work_on_blocks,
)
from xee_tf.sampling import Sample
from xee_tf.sidecars import SampleCounts, TableColumn, TablePatches
from xee_tf.storage import RowFile, Staging
from xee_tf.tables.joining import TableStore
from xee_tf.tables.pixels import SourceBands
from xee_tf.tables.rows import Rows, Values, are_rounded_integers
from xee_tf.tables.sources import LONLAT, LazyTable, lonlat_of_pixels

__all__ = ["PatchTable"]

_GROUP_BYTES = 16 << 20  # patches of a row group
_HELD_BYTES = 64 << 20  # patches that may wait in memory until they are encoded
_EXCHANGED = 32  # row groups, and blocks whose rows are joined, if workers exchange rows

Indices = npt.NDArray[np.int64]
Patches = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PatchTable:
    """A table of patches around pixels.

    Parameters
    ----------
    bands : SourceBands
        The bands.
    properties : mapping of str to (TableColumn, Values)
        The properties of all features.
    georef : GeoRef
        The georeference of the raster.
    names : sequence of str
        The columns to write: bands, properties, ``longitude`` and ``latitude``.
    size : Size
        The size of the patches.
    default : float
        The value of pixels that are masked or outside the raster.
    drop_nulls : bool
        Whether to omit rows whose pixel is masked in any band.
    """

    bands: SourceBands
    properties: Mapping[str, tuple[TableColumn, Values]]
    georef: GeoRef
    names: Sequence[str]
    size: Size
    default: float
    drop_nulls: bool

    def graph(self, sample: Sample, store: TableStore, *, compute: bool) -> LazyTable:
        """Build the tasks of the row groups of the table.

        Parameters
        ----------
        sample : Sample
            The pixels, in the order of the rows.
        store : ShardStore
            The store of the table.
        compute : bool
            Whether the tasks run at once.
        """
        cut = tuple(column.name in self.names for column in self.bands.columns)
        columns = tuple(
            TableColumn(column.name, "float", (*column.shape, *self.size.shape))
            for column, wanted in zip(self.bands.columns, cut, strict=True)
            if wanted
        )
        wide = _wide(self.bands.rules, cut)
        width = 1 + sum(wide) + sum(column.size for column in columns)
        count = len(sample.numbers)
        small = 4 * width * count <= _HELD_BYTES
        in_file = not small and (store.names.prefix.is_local or (compute and not on_cluster()))
        step = max(1, _GROUP_BYTES // (4 * width))
        if not (small or in_file):
            step = max(step, -(-count // _EXCHANGED))
        edges = [*range(0, count, step), count]
        run = uuid.uuid4().hex[:12]
        local: Staging | None = None
        file: RowFile | None = None
        if in_file:
            staging = store.staging.on_disk()
            local = None if staging == store.staging else staging
            file = RowFile(staging, store.earlier if local is None else None, f"patches-{run}", width)
        graph, done = self._blocks(run, sample, cut, width, step, file)
        parts: list[list[TaskRef]]
        if file is not None:
            parts = [[done[-1]] for _ in edges[1:]]  # the last one of the chain waits for all others
        elif small:
            parts = [done for _ in edges[1:]]
        else:
            parts = _exchange(graph, run, done, len(edges) - 1, step)
        groups = []
        for number, (start, stop) in enumerate(pairwise(edges)):
            known = self._group(sample, start, stop, columns)
            value = add_value(graph.tasks, (f"patch-rows-{run}", number), known)
            groups.append([value, *parts[number]])
        patches = TablePatches(self.size, float(np.float32(self.default)))
        read = _ReadGroup(tuple(self.names), wide, file)
        return LazyTable(groups, graph, read, local, patches, sample.counts)

    def _blocks(
        self, run: str, sample: Sample, cut: tuple[bool, ...], width: int, step: int, file: RowFile | None
    ) -> tuple[Graph, list[TaskRef]]:
        """Add the tasks of the blocks; return references to their patches, in a chain."""
        rows, columns = sample.rows, sample.columns
        plain = chunk_blocks(chunk_grids(self.bands.arrays), self.size)
        by_block = points_by_block(plain, rows, columns)
        places = _places(by_block, len(rows), step)
        values = {
            block: (places[points], points % step, rows[points], columns[points])
            for block, points in by_block.items()
        }
        cutter = _Cutter(self.bands.rules, cut, self.size, self.default, self.drop_nulls, width, file)
        layout = PointLayout.of(plain, self.size, rows, columns, by_block)
        job = BlockJob(
            f"patches-{run}",
            self.bands.arrays,
            self.bands.names,
            layout,
            cutter,
            blocks=by_block,
            values=values,
        )
        graph, blocks = work_on_blocks([job])
        [done] = order_blocks(graph, blocks, f"order-patches-{run}")
        return graph, list(done.values())

    def _group(self, sample: Sample, start: int, stop: int, columns: tuple[TableColumn, ...]) -> _Group:
        """Return what is known of the rows of a group."""
        numbers = sample.numbers[start:stop]
        found: dict[str, tuple[TableColumn, Values]] = {
            name: (column, values[numbers])
            for name, (column, values) in self.properties.items()
            if name in self.names
        }
        if set(LONLAT) & set(self.names):
            pixels = sample.rows[start:stop], sample.columns[start:stop]
            lonlat = lonlat_of_pixels(self.georef, *pixels)
            found |= {name: (TableColumn(name), v) for name, v in zip(LONLAT, lonlat, strict=True)}
        return _Group(start, stop, columns, found)


def _wide(rules: Sequence[BandRule], cut: Sequence[bool]) -> tuple[bool, ...]:
    """Return which of the bands that are cut may hold integers that float32 cannot represent."""
    return tuple(
        np.dtype(rule.dtype) != np.float32 for rule, wanted in zip(rules, cut, strict=True) if wanted
    )


def _places(by_block: Mapping[Block, Indices], count: int, step: int) -> Indices:
    """Return the place of each row: in its group, the rows of a block are together."""
    by_row = np.concatenate(list(by_block.values()))
    order = by_row[np.argsort(by_row // step, kind="stable")]
    places = np.empty(count, np.int64)
    places[order] = np.arange(count)
    return places


@dataclass(frozen=True)
class _Cutter:
    """The task of one block: cut the patches around its pixels.

    Each row starts with one plus its number in its group, so that rows of zeros are those that were dropped.
    A number for each wide band follows: 1 if some of its integers were rounded.
    """

    rules: tuple[BandRule, ...]
    cut: tuple[bool, ...]
    size: Size
    default: float
    drop_nulls: bool
    width: int
    file: RowFile | None

    def __call__(
        self,
        layout: BlockLayout,
        block: Block,
        pieces: Pieces,
        points: tuple[Indices, Indices, Indices, Indices],
    ) -> tuple[Indices, Patches] | None:
        """Return the places of the rows and the rows, or write them to the file."""
        places, numbers, rows, columns = points
        tops, lefts = first_pixels(rows, self.size.y), first_pixels(columns, self.size.x)
        window = Window(
            int(tops.min()),
            int(tops.max()) + self.size.y,
            int(lefts.min()),
            int(lefts.max()) + self.size.x,
        )
        bands, _ = assemble(window, pieces, self.rules)
        if self.drop_nulls:
            down, across = rows - window.top, columns - window.left
            kept = ~np.any([np.isnan(band[:, down, across]).any(axis=0) for band in bands], axis=0)
            places, numbers, tops, lefts = places[kept], numbers[kept], tops[kept], lefts[kept]
        windows = [
            np.lib.stride_tricks.sliding_window_view(band, self.size.shape, axis=(1, 2)).transpose(
                1, 2, 0, 3, 4
            )
            for band, wanted in zip(bands, self.cut, strict=True)
            if wanted
        ]
        step = len(places) if self.file is None else max(1, _GROUP_BYTES // (4 * self.width))
        patches = np.empty((0, self.width), np.float32)
        for start in range(0, max(1, len(places)), max(1, step)):  # the file exists even if all are dropped
            part = slice(start, start + step)
            patches = self._cut(windows, numbers[part], tops[part] - window.top, lefts[part] - window.left)
            if self.file is not None:
                self.file.write(places[part], patches)
        return (places, patches) if self.file is None else None

    def _cut(
        self, windows: Sequence[npt.NDArray[Any]], numbers: Indices, tops: Indices, lefts: Indices
    ) -> Patches:
        patches = np.empty((len(numbers), self.width), np.float32)
        patches[:, 0] = numbers + 1
        rules = [rule for rule, wanted in zip(self.rules, self.cut, strict=True) if wanted]
        wide = _wide(self.rules, self.cut)
        flag, first = 1, 1 + sum(wide)
        for each, rule, is_wide in zip(windows, rules, wide, strict=True):
            shape = each.shape[2:]
            values = patches[:, first : first + math.prod(shape)].reshape(len(numbers), *shape)
            found = each[tops, lefts]
            copy_in_range(values, found, f"Band {rule.planes[0].name!r}")
            if is_wide:
                patches[:, flag] = are_rounded_integers(found)
                flag += 1
            np.copyto(values, self.default, where=np.isnan(values))
            first += math.prod(shape)
        return patches


@dataclass(frozen=True)
class _Group:
    """The rows of a row group, some of which may be dropped, and the values that are known of them."""

    start: int
    stop: int
    patches: tuple[TableColumn, ...]
    known: Mapping[str, tuple[TableColumn, Values]]


@dataclass(frozen=True)
class _ReadGroup:
    """Convert a row group to rows: join its patches with the values that are known of its rows."""

    names: tuple[str, ...]
    wide: tuple[bool, ...]
    file: RowFile | None

    def __call__(self, group: Any, number: int) -> Rows:
        rows, *parts = group
        if self.file is not None:
            patches = self.file.read(rows.start, rows.stop)
            patches = patches[patches[:, 0] > 0]
        else:
            found = [_between(part, rows.start, rows.stop) for part in parts]
            patches = np.concatenate([patch for _, patch in found])
        numbers = patches[:, 0].astype(np.int64) - 1
        order = np.argsort(numbers)
        numbers = numbers[order]
        values: dict[str, tuple[TableColumn, Values]] = {
            name: (column, each[numbers]) for name, (column, each) in rows.known.items()
        }
        flag, first = 1, 1 + sum(self.wide)
        rounded = set()
        for column, is_wide in zip(rows.patches, self.wide, strict=True):
            if is_wide:
                if patches[:, flag].any():
                    rounded.add(column.name)
                flag += 1
            own = patches[order, first : first + column.size]
            values[column.name] = column, own.reshape(-1, *column.shape)
            first += column.size
        dropped = rows.stop - rows.start - len(numbers)
        return Rows.of(
            (values[name] for name in self.names), SampleCounts(dropped=dropped), frozenset(rounded)
        )


def _between(part: tuple[Indices, Patches], start: int, stop: int) -> tuple[Indices, Patches]:
    """Return the rows whose places are in a range, from rows in the order of their places."""
    places, patches = part
    own = slice(*np.searchsorted(places, [start, stop]))
    return places[own], patches[own]


def _exchange(
    graph: Graph, run: str, blocks: Sequence[TaskRef], groups: int, step: int
) -> list[list[TaskRef]]:
    """Add tasks that divide the rows of blocks by row group; return the references for each group."""
    found: list[list[TaskRef]] = [[] for _ in range(groups)]
    for number, first in enumerate(range(0, len(blocks), _EXCHANGED)):
        some = list(blocks[first : first + _EXCHANGED])
        divided = add_task(graph.tasks, (f"divide-patches-{run}", number), _divide, some, groups, step)
        for group in range(groups):
            key = (f"patches-of-group-{run}", number, group)
            found[group].append(add_task(graph.tasks, key, operator.itemgetter(group), divided))
    return found


def _divide(
    parts: Sequence[tuple[Indices, Patches]], groups: int, step: int
) -> list[tuple[Indices, Patches]]:
    divided = []
    for group in range(groups):
        own = [_between(part, group * step, (group + 1) * step) for part in parts]
        places, patches = map(np.concatenate, zip(*own, strict=True))
        order = np.argsort(places)
        divided.append((places[order], patches[order]))
    return divided
