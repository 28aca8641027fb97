"""Plans and results as plain text; the same facts, in the same words, serve the HTML."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from dask.utils import format_bytes

from xee_tf.errors import GeoreferenceError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef.crs import read_crs, unbound
from xee_tf.names import label_steps
from xee_tf.records import Feature, RecordLayout

if TYPE_CHECKING:
    from xee_tf.export.plan import ExportPlan
    from xee_tf.export.result import ExportResult
    from xee_tf.reading.opened import OpenedExport
    from xee_tf.shards.runs import ShardInfo
    from xee_tf.tables.export import TableResult
    from xee_tf.tables.schema import Column

__all__ = [
    "Rows",
    "aligned",
    "column_cells",
    "crs_name",
    "grid_rows",
    "head_of",
    "image_text",
    "plan_rows",
    "plan_text",
    "record_text",
    "result_rows",
    "result_text",
    "shard_cells",
    "table_rows",
    "table_text",
]

Rows = list[tuple[str, str]]
T = TypeVar("T")

_WIDTH = 100


def plan_text(plan: ExportPlan) -> str:
    """What an export would write, at a glance; the repr of an `ExportPlan`."""
    warnings = [("warning", text) for text in plan.warnings]
    head = f"<xee_tf.ExportPlan {plan.prefix}".rstrip()
    return f"{head}>\n{aligned([*plan_rows(plan), *warnings])}"


def result_text(result: ExportResult) -> str:
    """What an export wrote, at a glance; the repr of an `ExportResult`."""
    shown, more = head_of(result.files, 5)
    files = [("files" if not number else "", "  ".join(shard_cells(s))) for number, s in enumerate(shown)]
    if more:
        files.append(("", f"... and {more:,} more"))
    return f"<xee_tf.ExportResult>\n{aligned([*result_rows(result), *files])}"


def table_text(result: TableResult) -> str:
    """What a table export wrote, at a glance; the repr of a `TableResult`."""
    shown, more = head_of(result.columns, 12)
    cells = [column_cells(column) for column in shown]
    width = max(len(name) for name, _ in cells)
    columns = [f"{name:{width}}  {kind}" for name, kind in cells]
    if more:
        columns.append(f"... and {more:,} more")
    listed = [("" if number else "columns", line) for number, line in enumerate(columns)]
    return f"<xee_tf.TableResult {result.path}>\n{aligned([*table_rows(result), *listed])}"


def image_text(reader: OpenedExport) -> str:
    """What an opened export holds, and where it lies; what ``xee-tf inspect`` prints."""
    grid = reader.grid
    corners = [
        grid.affine @ corner for corner in ((0, 0), (grid.shape.x, 0), (0, grid.shape.y), grid.shape.xy)
    ]
    xs, ys = zip(*corners, strict=True)
    patches, raster, _ = grid_rows(grid)
    size = format_bytes(sum(shard.size for shard in reader.shards))
    rows = [
        patches,
        raster,
        ("x", f"{min(xs)!r} to {max(xs)!r}, steps of {grid.affine.a!r}"),
        ("y", f"{min(ys)!r} to {max(ys)!r}, steps of {grid.affine.e!r}"),
        ("bands", _bands(reader)),
        *_steps(reader),
        ("records", f"{_records(reader)}; {_count(len(reader.shards), 'shard')}, {size}"),
    ]
    shown, more = head_of(reader.shards, 5)
    for number, shard in enumerate(shown):
        text = f"{shard.location.name}  {_count(shard.records, 'record')}  {format_bytes(shard.size)}"
        rows.append(("" if number else "shards", text))
    if more:
        rows.append(("", f"... and {more:,} more"))
    return aligned(rows)


def record_text(name: str, layout: RecordLayout, steps: Mapping[str, int]) -> str:
    """What the first record of a file holds; what ``xee-tf inspect`` prints without a mixer."""
    values = []
    for feature in layout.features:
        held = _count(feature.size, "value")
        if feature.name in steps:
            held = _count(steps[feature.name], "step") + (f" of {held}" if feature.size > 1 else "")
        values.append((feature.name, f"{feature.kind}, {held}"))
    kind = "an Example" if layout.sequences is None else "a SequenceExample"
    return f"The first record of {name}, {kind}, holds\n{aligned(values)}"


def plan_rows(plan: ExportPlan) -> Rows:
    """The facts of a plan as (name, value)."""
    at_most = "at most " if plan.masked_threshold < 1 else ""
    room = f"{_count(plan.records_per_shard, 'record')} {'each' if plan.shards > 1 else 'would fit in one'}"
    zipped = " before compression" if plan.compressed else ""
    whole = format_bytes(plan.peak_memory)
    blocks = f"{_count(plan.blocks[0], 'row')} × {_count(plan.blocks[1], 'column')} of blocks"
    several = f"{plan.exports:,}, one for each step; each of them as follows"
    return [
        *([("exports", several)] if plan.exports > 1 else []),
        *grid_rows(plan.grid),
        ("bands", _features(plan.record.features)),
        ("records", f"{at_most}{plan.records:,} of {format_bytes(plan.record_bytes)}"),
        ("shards", f"{at_most}{plan.shards:,}; {room}"),
        ("files", _files(plan)),
        ("bytes", f"{at_most}{format_bytes(plan.total_bytes)}{zipped}"),
        ("tasks", f"{plan.tasks:,} for {_count(plan.source_chunks, 'source chunk')}, in {blocks}"),
        ("memory", f"{format_bytes(plan.task_memory)} a task, {whole} for the whole process"),
    ]


def _features(features: Sequence[Feature]) -> str:
    return _named([feature.name for feature in features], [feature.kind for feature in features])


def _bands(reader: OpenedExport) -> str:
    """Names of the bands, with their further dimensions."""
    names = [f"{band.name} ({', '.join(band.dims)})" if band.dims else band.name for band in reader.bands]
    text = _named(names, [feature.kind for feature in reader.layout.features])
    collapsed = {band.feature for band in reader.bands if band.feature != band.name}
    return text + "".join(f"; collapsed into the feature {feature}" for feature in collapsed)


def _named(names: Sequence[str], kinds: Sequence[str]) -> str:
    shown, more = head_of(names, 12)
    listed = ", ".join([*shown, *([f"{more:,} more"] if more else [])])
    return f"{len(names):,} as {', '.join(dict.fromkeys(kinds))}: {listed}"


def _steps(reader: OpenedExport) -> Rows:
    """The further dimensions: how many steps, and from where to where."""
    lengths = {
        dim: length for band in reader.bands for dim, length in zip(band.dims, band.shape, strict=True)
    }
    rows = []
    for dim, length in lengths.items():
        text = _count(length, "step")
        if dim in reader.coords:
            labels = label_steps(reader.coords[dim])
            text += f", {labels[0]}" + (f" to {labels[-1]}" if length > 1 else "")
        rows.append((dim, text))
    return rows


def _records(reader: OpenedExport) -> str:
    kind = "Example" if reader.content.layout.sequences is None else "SequenceExample"
    count = len(reader.grid) * reader.per_patch
    return _count(count, kind) + _per_pixel(reader.per_patch)


def _per_pixel(records: int) -> str:
    return f", one for each pixel, {records:,} a patch" if records > 1 else ""


def _files(plan: ExportPlan) -> str:
    if not plan.named:
        return "not said where"
    names = [plan.names.shard(0).name]
    if plan.shards > 1:
        names[0] += f" to {plan.names.shard(plan.shards - 1).name}"
    if plan.mixer:
        names.append(plan.names.mixer.name)
    names.append(plan.names.manifest.name)
    if plan.options.index:
        names.append(plan.names.index.name)
    without = "" if plan.mixer else "; no mixer, since masked_threshold may leave patches out"
    return ", ".join(names) + without


def result_rows(result: ExportResult) -> Rows:
    """The facts of a result as (name, value)."""
    left_out = f", {_count(result.dropped, 'patch', 'patches')} left out as masked" if result.dropped else ""
    rows = [
        *grid_rows(result.grid),
        ("records", f"{result.records:,}{_per_pixel(result.records_per_patch)}{left_out}"),
        ("bytes", f"{format_bytes(result.bytes)} in {_count(len(result.files), 'shard')}"),
    ]
    if result.mixer is not None:
        rows.append(("mixer", str(result.mixer)))
    rows.append(("sidecar", str(result.manifest)))
    if result.index is not None:
        rows.append(("index", str(result.index)))
    return rows


def table_rows(result: TableResult) -> Rows:
    """The facts of a table as (name, value)."""
    rows = [
        ("rows", f"{result.records:,} of {_count(len(result.columns), 'column')}"),
        ("bytes", f"{format_bytes(result.bytes)}, crc32c {result.file.crc32c:08x}"),
    ]
    if result.rounded:
        rows.append(("rounded", f"{', '.join(result.rounded)}: whole numbers that float32 cannot hold"))
    if result.dropped:
        rows.append(("dropped", f"{_count(result.dropped, 'masked pixel')}"))
    return rows


def column_cells(column: Column) -> tuple[str, str]:
    """Name of a column of a table, and what a record holds of it."""
    if not column.shape:
        return column.name, column.kind
    shape = f" as {' × '.join(map(str, column.shape))}" if len(column.shape) > 1 else ""
    return column.name, f"{column.kind}, {_count(column.size, 'value')}{shape}"


def grid_rows(grid: PatchGrid) -> Rows:
    """The facts of a patch grid as (name, value)."""
    rows, columns = _count(grid.rows, "row"), _count(grid.columns, "column")
    patches = f"{len(grid):,} = {rows} × {columns} of {_size(grid.patch)} px"
    if grid.stored != grid.patch:
        patches += f", stored with margins as {_size(grid.stored)}"
    raster = f"{_size(grid.shape)} px"
    if grid.origin != Size(x=0, y=0):
        raster += f" from pixel x {grid.origin.x:,}, y {grid.origin.y:,}"
    if grid.crs:
        raster += f"; {crs_name(grid.crs)}"
    return [("patches", patches), ("raster", raster), _edges(grid)]


def shard_cells(shard: ShardInfo) -> tuple[str, str, str, str]:
    """Name, records, bytes and checksum of one file."""
    return (
        shard.path.rsplit("/", 1)[-1],
        _count(shard.records, "record"),
        format_bytes(shard.bytes),
        f"crc32c {shard.crc32c:08x}",
    )


def head_of(items: Sequence[T], count: int) -> tuple[Sequence[T], int]:
    """The first `count` items and how many are left out; all, where the rest is a single one."""
    return (items, 0) if len(items) <= count + 1 else (items[:count], len(items) - count)


def _edges(grid: PatchGrid) -> tuple[str, str]:
    """What becomes of the pixels at the right and bottom edges."""
    if grid.edge == "pad":
        padding = Size(x=grid.covered.x - grid.shape.x, y=grid.covered.y - grid.shape.y)
        return "padded", _sides(padding) or "nothing: the patches fit exactly"
    if not (sides := _sides(grid.dropped)):
        return "dropped", "nothing: the patches fit exactly"
    share = 1 - grid.covered.pixels / grid.shape.pixels
    return "dropped", f"{sides}: {_percent(share)} of the pixels"


def _sides(size: Size) -> str:
    sides = []
    if size.x:
        sides.append(f"{_count(size.x, 'column')} at the right")
    if size.y:
        sides.append(f"{_count(size.y, 'row')} at the bottom")
    return ", ".join(sides)


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{math.floor(share * 1000 + 0.5) / 10:.3g} %"


def crs_name(text: str) -> str:
    """A code as it is; of a WKT its name, or that of its projection."""
    if len(text) <= 20:
        return text
    try:
        crs = read_crs(text)
    except GeoreferenceError:
        return textwrap.shorten(text, 40, placeholder="...")
    if crs.name.lower() not in ("unnamed", "unknown", "undefined"):
        return str(crs.name)
    operation = unbound(crs).coordinate_operation
    method = operation.method_name if operation else "geographic"
    return f"an unnamed CRS, {method}"


def _size(size: Size) -> str:
    return f"{size.x:,} × {size.y:,}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def aligned(rows: Rows) -> str:
    """Names and what is said of them, in two columns."""
    width = max(len(name) for name, _ in rows) + 2
    indent = " " * (width + 2)
    return "\n".join(
        "\n".join(
            textwrap.wrap(
                value,
                _WIDTH,
                initial_indent=f"  {name:{width}}",
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
        for name, value in rows
    )
