"""Facts, lists and pictures as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from xee_tf.display.svg import DROPPED, MARGIN, PATCH, GridPicture, grid_svg, patches_per_cell
from xee_tf.display.text import head_of

__all__ = ["heading", "list_html", "page", "picture_html", "rows_html", "warning_html"]

# Everything is styled inline and takes the page's own colours: notebooks strip or share style sheets.
_CELL = "text-align:left;vertical-align:top;padding:2px 10px 2px 0;border:none;background:none"
_BOX = "display:flex;flex-wrap:wrap;gap:12px 32px;align-items:flex-start;margin:6px 0"
_LISTED = 8


def heading(name: str, detail: str) -> str:
    """The name of a class, and which of its objects is shown."""
    return (
        f'<div style="margin-bottom:4px"><span style="opacity:.6">xee_tf.</span><b>{escape(name)}</b> '
        f'<span style="opacity:.8">{escape(detail)}</span></div>'
    )


def rows_html(rows: Iterable[Sequence[str]]) -> str:
    """Cells as a table; the first cell of each row is its label."""
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


def list_html(title: str, rows: Sequence[Sequence[str]]) -> str:
    """The first of some rows, under their number; readers can fold them."""
    shown, more = head_of(rows, _LISTED)
    body = [*shown, *([(f"... and {more:,} more",)] if more else [])]
    return (
        f'<details open="" style="margin-top:6px"><summary>{len(rows):,} {title}</summary>'
        f"{rows_html(body)}</details>"
    )


def warning_html(text: str) -> str:
    """A paragraph that stands out."""
    return (
        f'<p style="margin:6px 0;padding:4px 10px;max-width:34em;border-left:3px solid {DROPPED}">'
        f"{escape(text)}</p>"
    )


def picture_html(picture: GridPicture) -> str:
    """The picture of a patch grid and its legend."""
    across, down = patches_per_cell(picture)
    legend = [_swatch(PATCH, f"{down} × {across} patches" if across * down > 1 else "patch")]
    if picture.stored != picture.patch:
        legend.append(_swatch(MARGIN, "one patch with its margin"))
    if any(picture.dropped):
        legend.append(_swatch(DROPPED, "dropped"))
    if len(picture.block_rows) > 2 or len(picture.block_columns) > 2:
        legend.append('<span style="white-space:nowrap;margin-right:12px">┄ block of a task</span>')
    return (
        grid_svg(picture) + f'<div style="font-size:85%;opacity:.85;margin-top:4px">{"".join(legend)}</div>'
    )


def page(body: str, picture: str = "") -> str:
    """The whole: text, and a picture beside it where there is room."""
    if not picture:
        return f'<div style="margin:6px 0">{body}</div>'
    return f'<div style="{_BOX}"><div>{body}</div><div>{picture}</div></div>'


def _swatch(colour: str, label: str) -> str:
    square = f"display:inline-block;width:.8em;height:.8em;margin-right:.4em;background:{colour}"
    return f'<span style="white-space:nowrap;margin-right:12px"><span style="{square}"></span>{label}</span>'
