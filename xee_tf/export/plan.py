"""What an export would write and cost, known before a pixel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import psutil
from dask.system import CPU_COUNT
from dask.utils import format_bytes

from xee_tf.blocks import BlockAxis, BlockLayout, pixel_bytes
from xee_tf.display import Summarised, Summary, counted
from xee_tf.export.bands import BandPlan
from xee_tf.export.options import ExportOptions
from xee_tf.export.patches import PatchRecords, PatchShards
from xee_tf.geometry import PatchGrid
from xee_tf.georef import bands_text, grid_picture, grid_rows
from xee_tf.sidecars import BandSpec, ExportNames

__all__ = ["ExportPlan"]

#: What Dask's graph, ordering and scheduler keep for a task.
_TASK_BYTES = 5500


@dataclass(frozen=True, repr=False)
class ExportPlan(Summarised):
    """What an image export would write and cost. Made without reading a pixel.

    Parameters
    ----------
    names : ExportNames
        Where it would be written.
    grid : PatchGrid
        The patches.
    band_plan : BandPlan
        How the bands are written.
    record : PatchRecords
        What a patch becomes, and the bytes of a record.
    block_layout : BlockLayout
        Which block makes which patches; its last plane may be the user's mask.
    options : ExportOptions
    named : bool
        Whether a path was given.
    exports : int
        How many like this one there are: the steps of a split dimension.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.zeros((600, 500), "uint8"))},
    ...                 coords={"y": 5e6 - 30 * np.arange(600.0), "x": 7e5 + 30 * np.arange(500.0)},
    ...                 attrs={"crs": "EPSG:32633"})
    >>> plan = ds.tfexport.plan("out/scene", patch_dimensions=(128, 128), kernel_size=(32, 32))
    >>> plan.grid.patches_per_row, plan.grid.rows, plan.records, plan.shards
    (3, 4, 12, 1)
    """

    names: ExportNames
    grid: PatchGrid
    band_plan: BandPlan
    record: PatchRecords
    block_layout: BlockLayout
    options: ExportOptions
    named: bool = True
    exports: int = 1

    @property
    def bands(self) -> tuple[BandSpec, ...]:
        """Names and further dimensions of the bands."""
        return self.band_plan.bands

    @property
    def prefix(self) -> str:
        """Where it would be written; empty if that was not said."""
        return self.names.prefix.url if self.named else ""

    @property
    def compressed(self) -> bool:
        """Whether shards are gzipped."""
        return self.options.compressed

    @property
    def masked_threshold(self) -> float:
        """Patches with a larger proportion of masked pixels are left out."""
        return self.options.masked_threshold

    @property
    def mixer(self) -> bool:
        """Whether a mixer is written: Earth Engine writes none where patches may be left out."""
        return self.masked_threshold == 1

    @property
    def records(self) -> int:
        """Examples, or SequenceExamples; an upper bound where `masked_threshold` is below 1."""
        return len(self.grid) * self.record.per_patch

    @property
    def record_bytes(self) -> int:
        """Bytes of a record with its framing; the largest possible if it has int64 lists."""
        return self.record.framed_size

    @property
    def patch_shards(self) -> PatchShards:
        """Which patches are in which shard.

        A shard has as many as stay within `max_file_size` before compression, and at least one. Records of
        pixels are not counted one by one: a patch is never split (our choice).
        """
        size = self.record_bytes * self.record.per_patch
        return PatchShards(len(self.grid), max(1, self.options.max_file_size // size))

    @property
    def patches_per_shard(self) -> int:
        """Patches in a full shard."""
        return self.patch_shards.per_shard

    @property
    def records_per_shard(self) -> int:
        """Records in a full shard."""
        return self.patches_per_shard * self.record.per_patch

    @property
    def shards(self) -> int:
        """TFRecord files."""
        return len(self.patch_shards)

    @property
    def total_bytes(self) -> int:
        """Bytes of all records before compression."""
        return self.records * self.record_bytes

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns of blocks; a block is a rectangle of whole chunks, and one task."""
        return len(self.block_layout.y), len(self.block_layout.x)

    @property
    def source_chunks(self) -> int:
        """Chunks that are loaded, bands counted apart; each of them once."""
        return self.block_layout.chunk_count()

    @cached_property
    def tasks(self) -> int:
        """Dask tasks, with one for each block that loads its source chunks."""
        layout = self.block_layout
        homes = layout.chunks_by_home().values()
        strips = sum(any(layout.strips(*chunk) for chunk in chunks) for chunks in homes)
        blocks = sum(1 for _ in layout.blocks())
        return 1 + len(homes) + strips + 2 * blocks + self.shards + 1

    @property
    def task_memory(self) -> int:
        """Bytes that the largest block holds: its chunks, its bands, one row of its records."""
        return self._chunk_memory + self._work_memory

    @cached_property
    def _chunk_memory(self) -> int:
        y, x = self.block_layout.y, self.block_layout.x
        return sum(_extent(y, p.y) * _extent(x, p.x) * p.itemsize for p in self.block_layout.planes)

    @cached_property
    def _work_memory(self) -> int:
        y, x = self.block_layout.y, self.block_layout.x
        height, width = (
            max(end - begin for begin, end in map(axis.window, range(len(axis)))) for axis in (y, x)
        )
        columns = max(len(x.owned(column)) for column in range(len(x)))
        return height * width * pixel_bytes(self.band_plan.rules) + int(
            1.5 * columns * self.record_bytes * self.record.per_patch
        )

    @cached_property
    def waiting_memory(self) -> int:
        """Bytes of the strips of one row of blocks, which wait for the row below."""
        layout = self.block_layout
        rows = np.zeros(len(layout.y), np.int64)
        for plane, grid in enumerate(layout.planes):
            for iy, ix in layout.chunks(plane):
                size = sum(window.size.pixels for window in layout.strips(plane, iy, ix).values())
                rows[layout.home(plane, iy, ix)[0]] += size * grid.itemsize
        return int(rows.max())

    @cached_property
    def peak_memory(self) -> int:
        """Bytes of memory that this process will take at most, by Dask's default of a thread a core.

        What it takes now; the data held at once: a block a thread, the chunks of one more block
        loaded ahead, the strips that wait, a quarter on top for the allocator; and what Dask keeps
        for each task (both measured).
        """
        data = self.waiting_memory + self._chunk_memory + CPU_COUNT * self.task_memory
        graph = self.tasks * _TASK_BYTES
        return int(psutil.Process().memory_info().rss + 1.25 * data + graph)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know before this runs."""
        available = psutil.virtual_memory().total
        if self.peak_memory < 0.8 * available:
            return self.band_plan.notes
        planes = self.block_layout.planes
        height = max(max(np.diff(plane.y)) for plane in planes)
        width = max(max(np.diff(plane.x)) for plane in planes)
        return (
            *self.band_plan.notes,
            f"This will not fit in memory: one task holds {format_bytes(self.task_memory)}, and {CPU_COUNT} "
            f"at once need about {format_bytes(self.peak_memory)} of the {format_bytes(available)} here. "
            f"Chunks are up to {height} x {width} pixels (y, x), patches {self.grid.patch.y} x "
            f"{self.grid.patch.x}: open the raster with smaller chunks, for example "
            "chunks={'y': 1024, 'x': 1024}, make the patches smaller, or use fewer threads.",
        )

    def _summary(self) -> Summary:
        features = self.record.features
        at_most = "at most " if self.masked_threshold < 1 else ""
        room = "each" if self.shards > 1 else "would fit in one"
        whole = format_bytes(self.peak_memory)
        zipped = " before compression" if self.compressed else ""
        blocks = f"{counted(self.blocks[0], 'row')} × {counted(self.blocks[1], 'column')} of blocks"
        several = f"{self.exports:,}, one for each step; each of them as follows"
        rows = [
            *([("exports", several)] if self.exports > 1 else []),
            *grid_rows(self.grid),
            ("bands", bands_text([f.name for f in features], [f.kind for f in features])),
            ("records", f"{at_most}{self.records:,} of {format_bytes(self.record_bytes)}"),
            ("shards", f"{at_most}{self.shards:,}; {counted(self.records_per_shard, 'record')} {room}"),
            ("files", self._files()),
            ("bytes", f"{at_most}{format_bytes(self.total_bytes)}{zipped}"),
            ("tasks", f"{self.tasks:,} for {counted(self.source_chunks, 'source chunk')}, in {blocks}"),
            ("memory", f"{format_bytes(self.task_memory)} a task, {whole} for the whole process"),
        ]
        picture = grid_picture(self.grid, self.block_layout.x.edges, self.block_layout.y.edges)
        return Summary("ExportPlan", self.prefix, rows, self.warnings, picture=picture)

    def _files(self) -> str:
        if not self.named:
            return "not said where"
        names = [self.names.shard(0).name]
        if self.shards > 1:
            names[0] += f" to {self.names.shard(self.shards - 1).name}"
        if self.mixer:
            names.append(self.names.mixer.name)
        names.append(self.names.manifest.name)
        if self.options.index:
            names.append(self.names.index.name)
        without = "" if self.mixer else "; no mixer, since masked_threshold may leave patches out"
        return ", ".join(names) + without


def _extent(axis: BlockAxis, edges: Sequence[int]) -> int:
    """Most pixels along one axis in the chunks that start in one block."""
    sizes = np.zeros(len(axis), np.int64)
    for begin, end in pairwise(edges):
        if begin < axis.edges[-1] and end > axis.edges[0]:
            sizes[axis.home(begin)] += end - begin
    return int(sizes.max())
