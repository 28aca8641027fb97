"""The plan of an export: what it would write, and its memory and tasks, without reading pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from dask.system import CPU_COUNT
from dask.utils import format_bytes

from xee_tf.blocks import (
    Block,
    BlockLayout,
    chunk_bytes,
    largest_window,
    main_edges,
    pixel_bytes,
    strip_bytes,
)
from xee_tf.display import GridPicture, SourcePicture, Summarized, Summary, by, counted, plot_grid
from xee_tf.export.bands import BandPlan
from xee_tf.export.options import ExportOptions
from xee_tf.export.patches import PatchRecords, PatchShards
from xee_tf.geometry import PatchGrid
from xee_tf.georef import bands_text, grid_picture, grid_rows, selected_rows
from xee_tf.graph import memory_warning, peak_memory
from xee_tf.sampling import PatchSelection
from xee_tf.shards import index_header_size
from xee_tf.sidecars import BandSpec, ExportNames
from xee_tf.storage import upload_service

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ExportPlan"]

#: Memory of the parts that are being uploaded (measured).
_UPLOAD_MEMORY = 60 << 20
_BLOCKS_PER_THREAD = 2  # that may wait to be uploaded


@dataclass(frozen=True, repr=False)
class ExportPlan(Summarized):
    """What an image export would write, and the memory and tasks that it needs.

    Parameters
    ----------
    names : ExportNames
        The names of the files.
    grid : PatchGrid
        The patches.
    band_plan : BandPlan
        How the bands are written.
    record : PatchRecords
        The records of a patch.
    block_layout : BlockLayout
        The assignment of patches to blocks; the last plane may be the user's mask.
    options : ExportOptions
        The options of the export.
    named : bool
        Whether a destination was given.
    exports : int
        Number of exports, one for each step of `split_dim` and side of `split`; the plan is that of the first
        one.
    selection : PatchSelection, optional
        The patches to write, with `sample` or `split`. Default: all.
    left_out : int
        With `split`, the number of patches that are in no side, because they have pixels of two.

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
    selection: PatchSelection | None = None
    left_out: int = 0

    @property
    def bands(self) -> tuple[BandSpec, ...]:
        """The bands, with their dimensions other than y and x."""
        return self.band_plan.bands

    @property
    def prefix(self) -> str:
        """Prefix of the files; empty if no destination was given."""
        return self.names.prefix.url if self.named else ""

    @property
    def compressed(self) -> bool:
        """Whether shards are compressed with gzip."""
        return self.options.compressed

    @property
    def masked_threshold(self) -> float:
        """Maximum proportion of masked pixels; patches with more are omitted."""
        return self.options.masked_threshold

    @property
    def mixer(self) -> bool:
        """Whether a mixer is written; as in Earth Engine, not if patches may be omitted."""
        return self.masked_threshold == 1 and self.selection is None

    @property
    def patches(self) -> int:
        """Number of patches; an upper bound if `masked_threshold` is below 1."""
        return len(self.grid if self.selection is None else self.selection)

    @property
    def records(self) -> int:
        """Number of records; an upper bound if `masked_threshold` is below 1."""
        return self.patches * self.record.per_patch

    @property
    def record_bytes(self) -> int:
        """Size of a record with its framing in bytes; the maximum if it has int64 lists."""
        return self.record.framed_size

    @property
    def patch_shards(self) -> PatchShards:
        """The assignment of patches to shards.

        A shard has as many patches as `max_file_size` permits before compression, and at least one. With
        `sequence_data`, the pixels of a patch stay in one shard (a choice of this package).
        """
        size = self.record_bytes * self.record.per_patch
        return PatchShards(self.patches, max(1, self.options.max_file_size // size), self.selection)

    def header_size(self, shard: int) -> int:
        """Return the size of the first gzip header of a shard, which holds an index.

        Parameters
        ----------
        shard : int
            Number of the shard.

        Returns
        -------
        int
            Size in bytes; 0 if the shard is not compressed.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xee_tf
        >>> ds = xr.Dataset({"B4": (("y", "x"), np.zeros((600, 500), "uint8"))}, attrs={"crs": "EPSG:32633"},
        ...                 coords={"y": 5e6 - 30 * np.arange(600.0), "x": 7e5 + 30 * np.arange(500.0)})
        >>> xee_tf.plan_export(ds, patch_dimensions=128).header_size(0) > 50
        True
        """
        if not self.compressed:
            return 0
        places, columns = self.patch_shards.places_of(shard), self.grid.patches_per_row
        step = self.block_layout.x.patches_per_member
        in_row = -(-columns // step)
        if self.selection is None:
            (top, left), (bottom, right) = self.grid.locate(places[0]), self.grid.locate(places[-1])
            members = (bottom - top) * in_row - left // step + right // step + 1
        else:
            rows, inside = np.divmod(self.selection.patches[places.start : places.stop], columns)
            members = len(np.unique(rows * in_row + inside // step))
        records = step * self.record.per_patch
        return index_header_size(members, records=records, size=2 * records * self.record_bytes)

    @property
    def rows_in_flight(self) -> int:
        """Number of rows of blocks that may wait in memory until they are written to another store."""
        blocks: int = _BLOCKS_PER_THREAD * CPU_COUNT
        return 1 + math.ceil(blocks / self.blocks[1])

    @property
    def row_bytes(self) -> int:
        """Size of the records of the largest row of blocks before compression in bytes."""
        y, columns, place = self.block_layout.y, self.grid.patches_per_row, self.patch_shards.place
        owned = [y.owned(row) for row in range(len(y))]
        patches = max(place(rows.stop * columns) - place(rows.start * columns) for rows in owned)
        return patches * self.record.per_patch * self.record_bytes

    @property
    def patches_per_shard(self) -> int:
        """Number of patches in a full shard."""
        return self.patch_shards.per_shard

    @property
    def records_per_shard(self) -> int:
        """Number of records in a full shard."""
        return self.patches_per_shard * self.record.per_patch

    @property
    def shards(self) -> int:
        """Number of TFRecord files."""
        return len(self.patch_shards)

    @property
    def total_bytes(self) -> int:
        """Size of all records before compression in bytes."""
        return self.records * self.record_bytes

    @property
    def blocks(self) -> tuple[int, int]:
        """Number of rows and columns of blocks; a block is a rectangle of whole chunks and one task."""
        return len(self.block_layout.y), len(self.block_layout.x)

    @property
    def source_chunks(self) -> int:
        """Number of chunks to load, over all bands; each is loaded once."""
        if self.selection is None:
            return self.block_layout.chunk_count()
        return sum(map(len, self.block_layout.chunks_by_home(self.needed_blocks).values()))

    @cached_property
    def needed_blocks(self) -> frozenset[Block]:
        """The blocks that have patches to write."""
        layout = self.block_layout
        if self.selection is None:
            return frozenset(layout.blocks())
        rows, columns = np.divmod(self.selection.patches, self.grid.patches_per_row)
        down, across = (
            np.repeat(np.arange(len(axis)), [len(axis.owned(block)) for block in range(len(axis))])
            for axis in (layout.y, layout.x)
        )
        pairs = np.unique(down[rows] * len(layout.x) + across[columns])
        return frozenset(divmod(pair, len(layout.x)) for pair in pairs.tolist())

    @cached_property
    def tasks(self) -> int:
        """Number of Dask tasks in one process, if one task per block loads the source chunks."""
        layout = self.block_layout
        needed = self.needed_blocks
        homes = layout.chunks_by_home(None if self.selection is None else needed).values()
        if layout.separate_strips:
            strips = sum(len(set().union(*(layout.strips(*chunk) for chunk in chunks))) for chunks in homes)
        else:
            strips = sum(any(layout.strips(*chunk) for chunk in chunks) for chunks in homes)
        blocks, rows = len(needed), len({row for row, _ in needed})
        if upload_service(self.names.prefix) is not None:
            joining = rows + 2 * sum(len(self.shards_of(row)) for row in range(len(layout.y)))
        elif not self.names.prefix.is_local:
            joining = rows - 1  # nothing waits for the last row
        else:
            joining = 0 if self.places_known else 2 * rows + blocks
        return 1 + len(homes) + strips + 2 * blocks + joining + self.shards + 1

    @property
    def places_known(self) -> bool:
        """Whether the place of every record in its shard is known before pixels are read."""
        return self.record.exact and not self.compressed and self.masked_threshold == 1

    def shards_of(self, row: int) -> range:
        """Return the numbers of the shards with the patches of a row of blocks.

        Parameters
        ----------
        row : int
            Number of the row of blocks.

        Returns
        -------
        range
            The numbers; empty if the row has no patches.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xee_tf
        >>> ds = xr.Dataset({"B4": (("y", "x"), np.zeros((600, 500), "uint8"))}, attrs={"crs": "EPSG:32633"},
        ...                 coords={"y": 5e6 - 30 * np.arange(600.0), "x": 7e5 + 30 * np.arange(500.0)})
        >>> xee_tf.plan_export(ds, patch_dimensions=128).shards_of(0)
        range(0, 1)
        """
        patches, columns = self.block_layout.y.owned(row), self.grid.patches_per_row
        if not patches:
            return range(0)
        first, stop = (self.patch_shards.place(row * columns) for row in (patches.start, patches.stop))
        if first == stop:
            return range(0)
        return range(first // self.patches_per_shard, (stop - 1) // self.patches_per_shard + 1)

    @property
    def task_memory(self) -> int:
        """Memory of the largest block in bytes: its chunks, its bands and one row of its records."""
        return self._chunk_memory + self._work_memory

    @cached_property
    def _chunk_memory(self) -> int:
        return chunk_bytes(self.block_layout)

    @cached_property
    def _work_memory(self) -> int:
        x = self.block_layout.x
        columns = max(len(x.owned(column)) for column in range(len(x)))
        return largest_window(self.block_layout).pixels * pixel_bytes(self.band_plan.rules) + int(
            1.5 * columns * self.record_bytes * self.record.per_patch
        )

    @cached_property
    def waiting_memory(self) -> int:
        """Memory of the strips of one row of blocks in bytes, which are kept for the next row."""
        return strip_bytes(self.block_layout)

    @cached_property
    def peak_memory(self) -> int:
        """Estimated peak memory of this process in bytes, with Dask's default of one thread per core.

        The sum of its current memory; the data in memory at a time (one block per thread, the chunks of one
        more block, the strips, and a quarter more for the allocator); and Dask's memory per task. The last
        two are from measurements. Except on local disks, rows of blocks that wait to be written are added
        and, in other stores than S3, Azure and Google Cloud Storage, a whole shard.
        """
        data = self.waiting_memory + self._chunk_memory + CPU_COUNT * self.task_memory + self._held_memory
        files = self.total_bytes if "memory" in self.names.prefix.protocols else 0
        return peak_memory(data, self.tasks) + files

    @property
    def _held_memory(self) -> int:
        """Memory of the records that wait to be written to a store that is not a local disk."""
        if self.names.prefix.is_local:
            return 0
        rows = self.rows_in_flight * self.row_bytes
        if upload_service(self.names.prefix) is not None:
            return rows + _UPLOAD_MEMORY
        shard = self.records_per_shard * self.record_bytes
        return min(self.total_bytes, rows + max(shard, self.row_bytes))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the memory and the default value."""
        planes = self.block_layout.planes
        height = max(max(np.diff(plane.y)) for plane in planes)
        width = max(max(np.diff(plane.x)) for plane in planes)
        warning = memory_warning(
            "export",
            self.task_memory,
            self.peak_memory,
            "reduce the patch size",
            f"Chunks are up to {height} x {width} pixels (y, x), patches {self.grid.patch.y} x "
            f"{self.grid.patch.x}.",
        )
        return (*self.band_plan.notes, *([] if warning is None else [warning]))

    def _summary(self) -> Summary:
        features = self.record.features
        at_most = "at most " if self.masked_threshold < 1 else ""
        capacity = "each" if self.shards > 1 else "would fit in one"
        whole = format_bytes(self.peak_memory)
        zipped = " before compression" if self.compressed else ""
        blocks = f"{counted(self.blocks[0], 'row')} × {counted(self.blocks[1], 'column')} of blocks"
        several = f"{self.exports:,}, one for each step or side; the first one follows"
        rows = [
            *([("exports", several)] if self.exports > 1 else []),
            *grid_rows(self.grid),
            *selected_rows(None if self.selection is None else self.patches, self.left_out, self.grid),
            ("bands", bands_text([f.name for f in features], [f.kind for f in features])),
            ("records", f"{at_most}{self.records:,} of {format_bytes(self.record_bytes)}"),
            ("shards", f"{at_most}{self.shards:,}; {counted(self.records_per_shard, 'record')} {capacity}"),
            ("files", self._files()),
            ("bytes", f"{at_most}{format_bytes(self.total_bytes)}{zipped}"),
            ("tasks", f"{self.tasks:,} for {counted(self.source_chunks, 'source chunk')}, in {blocks}"),
            ("memory", f"{format_bytes(self.task_memory)} per task, {whole} for the whole process"),
        ]
        return Summary("ExportPlan", self.prefix, rows, self.warnings, picture=self._picture())

    def _picture(self) -> GridPicture:
        return grid_picture(self.grid, self.block_layout.x.edges, self.block_layout.y.edges)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the raster, its chunks and the patches, with one patch and its margin enlarged.

        Pixels at the right and bottom edges that are dropped, a region, and patches that are selected by
        `sample` or `split` are shown. No pixel is read. The time does not depend on the number of patches:
        lines that would be too close are left out.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The axes to draw to. Default: those of a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, in pixels of the raster, with the first row at the top.

        Raises
        ------
        MissingExtraError
            If Matplotlib is not installed (extra ``plot``).

        Examples
        --------
        >>> import numpy as np, xarray as xr, xee_tf
        >>> ds = xr.Dataset({"B4": (("y", "x"), np.zeros((600, 500), "uint8"))}, attrs={"crs": "EPSG:32633"},
        ...                 coords={"y": 5e6 - 30 * np.arange(600.0), "x": 7e5 + 30 * np.arange(500.0)})
        >>> ax = ds.chunk(y=256, x=256).tfexport.plan(patch_dimensions=128, kernel_size=32).plot()
        >>> ax.get_title()
        '12 patches of 128 × 128 px'
        """
        selected = None if self.selection is None else self.selection.mask
        title = f"{counted(self.patches, 'patch', 'patches')} of {by(*self.grid.patch.xy)} px"
        rows, columns = main_edges(self.block_layout.planes)
        source = SourcePicture(self.grid.origin.xy, columns, rows, selected)
        return plot_grid(self._picture(), source, title, ax)

    def _files(self) -> str:
        if not self.named:
            return "no destination given"
        names = [self.names.shard(0).name]
        if self.shards > 1:
            names[0] += f" to {self.names.shard(self.shards - 1).name}"
        if self.mixer:
            names.append(self.names.mixer.name)
        names.append(self.names.manifest.name)
        if self.options.index:
            names.append(self.names.index.name)
        if self.mixer:
            without = ""
        elif self.selection is None:
            without = "; no mixer, because masked_threshold may omit patches"
        else:
            without = "; no mixer, because not all patches are written"
        return ", ".join(names) + without
