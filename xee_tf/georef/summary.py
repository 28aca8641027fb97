"""Text and drawing of a patch grid, for the reprs of plans, results and opened exports."""

from __future__ import annotations

from collections.abc import Sequence

from xee_tf.display import Facts, GridPicture, abbreviated, by, counted, percent
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef.crs import crs_name

__all__ = ["bands_text", "grid_picture", "grid_rows", "per_pixel", "selected_rows"]


def grid_rows(grid: PatchGrid, many: str = "patches", stored: str = "stored with margins") -> Facts:
    """Return rows that describe the patches, the raster, and the incomplete patches.

    `many` is the plural of what the grid consists of, and `stored` what happens to it with its margins.
    """
    rows, columns = counted(grid.rows, "row"), counted(grid.patches_per_row, "column")
    patches = f"{len(grid):,} = {rows} × {columns} of {by(*grid.patch.xy)} px"
    if grid.stored != grid.patch:
        patches += f", {stored} as {by(*grid.stored.xy)}"
    raster = f"{by(*grid.shape.xy)} px"
    if grid.origin != Size(x=0, y=0):
        raster += f" from pixel x {grid.origin.x:,}, y {grid.origin.y:,}"
    if grid.crs:
        raster += f"; {crs_name(grid.crs)}"
    return [(many, patches), ("raster", raster), _edges(grid, many)]


def selected_rows(selected: int | None, left_out: int, grid: PatchGrid) -> Facts:
    """Describe how many patches are selected, and how many are in no side of a split; nothing for None."""
    if selected is None:
        return []
    share = percent(selected / len(grid))
    rest = f"; {left_out:,} are in no side, because they have pixels of two" if left_out else ""
    return [("selected", f"{counted(selected, 'patch', 'patches')}, {share}{rest}")]


def grid_picture(
    grid: PatchGrid,
    block_columns: Sequence[int] = (),
    block_rows: Sequence[int] = (),
    names: tuple[str, str] = ("patch", "patches"),
) -> GridPicture:
    """Return the input for drawing a grid; block edges are in pixels of the source raster."""
    return GridPicture(
        grid.shape.xy,
        grid.patch.xy,
        grid.margin.xy,
        patches=(grid.patches_per_row, grid.rows),
        block_columns=[edge - grid.origin.x for edge in block_columns],
        block_rows=[edge - grid.origin.y for edge in block_rows],
        names=names,
    )


def bands_text(names: Sequence[str], kinds: Sequence[str]) -> str:
    """Describe the bands and the kinds of lists that store them.

    Examples
    --------
    >>> bands_text(["B4", "B3"], ["float", "float"])
    '2 as float: B4, B3'
    """
    return f"{len(names):,} as {', '.join(dict.fromkeys(kinds))}: {abbreviated(names)}"


def per_pixel(records: int) -> str:
    """Describe the number of records per patch, if there is more than one."""
    return f", one per pixel, {records:,} per patch" if records > 1 else ""


def _edges(grid: PatchGrid, many: str) -> tuple[str, str]:
    """Describe the pixels at the right and bottom edges that are dropped or padded."""
    if grid.edge == "pad":
        padding = Size(x=grid.covered.x - grid.shape.x, y=grid.covered.y - grid.shape.y)
        return "padded", _sides(padding) or f"nothing: the {many} fit exactly"
    if not (sides := _sides(grid.dropped)):
        return "dropped", f"nothing: the {many} fit exactly"
    share = 1 - grid.covered.pixels / grid.shape.pixels
    return "dropped", f"{sides}: {percent(share)} of the pixels"


def _sides(size: Size) -> str:
    columns = [f"{counted(size.x, 'column')} at the right"] if size.x else []
    rows = [f"{counted(size.y, 'row')} at the bottom"] if size.y else []
    return ", ".join(columns + rows)
