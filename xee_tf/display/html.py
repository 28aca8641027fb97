"""Plans and results in a notebook: a table beside the picture of the patch grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from xee_tf.display.svg import DROPPED, MARGIN, PATCH, grid_svg, patches_per_cell
from xee_tf.display.text import column_cells, head_of, plan_rows, result_rows, shard_cells, table_rows
from xee_tf.geometry import PatchGrid

if TYPE_CHECKING:
    from xee_tf.export.plan import ExportPlan
    from xee_tf.export.result import ExportResult
    from xee_tf.tables.export import TableResult

__all__ = ["heading", "plan_html", "result_html", "rows_html", "table_html"]

# Everything is styled inline and takes the page's own colours: notebooks strip or share style sheets.
_CELL = "text-align:left;vertical-align:top;padding:2px 10px 2px 0;border:none;background:none"
_BOX = "display:flex;flex-wrap:wrap;gap:12px 32px;align-items:flex-start;margin:6px 0"


def plan_html(plan: ExportPlan) -> str:
    """A table of the plan's facts and a picture of its patches; ``_repr_html_`` of an `ExportPlan`."""
    warnings = "".join(
        f'<p style="margin:6px 0;padding:4px 10px;max-width:34em;border-left:3px solid {DROPPED}">'
        f"{escape(text)}</p>"
        for text in plan.warnings
    )
    table = heading("ExportPlan", str(plan.prefix)) + rows_html(plan_rows(plan)) + warnings
    return _page(table, _picture(plan.grid, plan.block_layout.y.edges, plan.block_layout.x.edges))


def result_html(result: ExportResult) -> str:
    """Tables of the files and a picture of the patches; ``_repr_html_`` of an `ExportResult`."""
    table = heading("ExportResult", "") + rows_html(result_rows(result))
    if result.files:
        table += _details("files", [shard_cells(shard) for shard in result.files])
    return _page(table, _picture(result.grid))


def table_html(result: TableResult) -> str:
    """Tables of the file and its columns; ``_repr_html_`` of a `TableResult`."""
    table = heading("TableResult", result.path) + rows_html(table_rows(result))
    columns = _details("columns", [column_cells(column) for column in result.columns])
    return f'<div style="margin:6px 0">{table}{columns}</div>'


def _details(what: str, rows: Sequence[Sequence[str]]) -> str:
    """The first of some rows, under their number."""
    shown, more = head_of(rows, 8)
    body = [*shown, *([(f"... and {more:,} more",)] if more else [])]
    return (
        f'<details open="" style="margin-top:6px"><summary>{len(rows):,} {what}</summary>'
        f"{rows_html(body)}</details>"
    )


def _page(table: str, picture: str) -> str:
    return f'<div style="{_BOX}"><div>{table}</div><div>{picture}</div></div>'


def heading(name: str, detail: str) -> str:
    """What is shown, and which one."""
    return (
        f'<div style="margin-bottom:4px"><span style="opacity:.6">xee_tf.</span><b>{name}</b> '
        f'<span style="opacity:.8">{escape(detail)}</span></div>'
    )


def rows_html(rows: Iterable[Sequence[str]]) -> str:
    """Cells as a table; the first of each row names it."""
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{_CELL}{";opacity:.65" if not number else ";max-width:34em"}">{escape(cell)}</td>'
            for number, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<table style="border-collapse:collapse;border:none;margin:0"><tbody>{body}</tbody></table>'


def _picture(grid: PatchGrid, edges_y: Sequence[int] = (), edges_x: Sequence[int] = ()) -> str:
    cell = patches_per_cell(grid)
    many = f"{cell.y} × {cell.x} patches" if cell.pixels > 1 else "patch"
    legend = [_swatch(PATCH, many)]
    if grid.stored != grid.patch:
        legend.append(_swatch(MARGIN, "one patch with its margin"))
    if grid.dropped.x or grid.dropped.y:
        legend.append(_swatch(DROPPED, "dropped"))
    if len(edges_y) > 2 or len(edges_x) > 2:
        legend.append('<span style="white-space:nowrap;margin-right:12px">┄ block of a task</span>')
    return (
        grid_svg(grid, edges_y, edges_x)
        + f'<div style="font-size:85%;opacity:.85;margin-top:4px">{"".join(legend)}</div>'
    )


def _swatch(colour: str, label: str) -> str:
    square = f"display:inline-block;width:.8em;height:.8em;margin-right:.4em;background:{colour}"
    return f'<span style="white-space:nowrap;margin-right:12px"><span style="{square}"></span>{label}</span>'
