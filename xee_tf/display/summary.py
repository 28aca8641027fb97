"""Summaries of objects as plain text, and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from xee_tf.display.sides import SidesPicture, sides_svg
from xee_tf.display.svg import DROPPED, MARGIN, PATCH, GridPicture, grid_svg, patches_per_cell
from xee_tf.display.text import Facts, aligned, counted, truncate

__all__ = ["Listing", "Summarized", "Summary"]

# Inline styles and inherited colors only: notebooks strip style sheets or share them between outputs.
_CELL = "text-align:left;vertical-align:top;padding:2px 10px 2px 0;border:none;background:none"
_BOX = "display:flex;flex-wrap:wrap;gap:12px 32px;align-items:flex-start;margin:6px 0"
_LISTED = 8


@dataclass(frozen=True)
class Listing:
    """A list of items, truncated for display.

    Parameters
    ----------
    title : str
        Plural noun for the items, with an s at its end.
    rows : sequence of sequence of str
        Cells of each item; the first cell is its name.
    most : int
        Maximum number of items in the text.
    noun : str, optional
        Singular noun for the items in HTML. Default: the title without its s.
    is_whole : bool
        Whether HTML has all items, folded if they are many, instead of the first ones.
    """

    title: str
    rows: Sequence[Sequence[str]]
    most: int
    noun: str = ""
    is_whole: bool = False

    def text_rows(self) -> Facts:
        """Return the first items as rows of text."""
        shown, more = truncate(self.rows, self.most)
        width = max((len(name) for name, *_ in shown), default=0)
        lines = ["  ".join([f"{name:{width}}", *cells]) for name, *cells in shown]
        if more:
            lines.append(f"... and {more:,} more")
        return [("" if number else self.title, line) for number, line in enumerate(lines)]

    def html(self) -> str:
        """Return the items as a collapsible HTML section, with their total number as its title."""
        shown, more = truncate(self.rows, _LISTED)
        is_open = not more or not self.is_whole
        body = self.rows if self.is_whole else [*shown, *([(f"... and {more:,} more",)] if more else [])]
        total = counted(len(self.rows), self.noun or self.title.removesuffix("s"))
        opened = ' open=""' if is_open else ""
        return f'<details{opened} style="margin-top:6px"><summary>{total}</summary>{_table(body)}</details>'


@dataclass(frozen=True)
class Summary:
    """The summary of an object: `text` for its repr, `html` for notebooks.

    Parameters
    ----------
    name : str
        Public name of the class.
    detail : str
        Text that identifies the object.
    rows : list of (str, str)
        Labels and values.
    warnings : sequence of str
        Warnings to show below the rows.
    listings : sequence of Listing
        Items of the object.
    picture : GridPicture or SidesPicture, optional
        Drawing of the patch grid, or of the sides of a split.

    Examples
    --------
    >>> summary = Summary("ExportPlan", "out/scene", [("records", "18"), ("bytes", "1.58 MiB")])
    >>> print(summary.text())
    <xee_tf.ExportPlan out/scene>
      records  18
      bytes    1.58 MiB
    """

    name: str
    detail: str
    rows: Facts
    warnings: Sequence[str] = ()
    listings: Sequence[Listing] = ()
    picture: GridPicture | SidesPicture | None = field(default=None, repr=False)

    def text(self) -> str:
        """Return the summary as plain text."""
        rows = [*self.rows, *(("warning", text) for text in self.warnings)]
        for listing in self.listings:
            rows += listing.text_rows()
        head = f"<xee_tf.{self.name} {self.detail}".rstrip() + ">"
        return f"{head}\n{aligned(rows)}" if rows else head

    def html(self) -> str:
        """Return the summary as HTML, without scripts or style sheets."""
        body = (
            f'<div style="margin-bottom:4px"><span style="opacity:.6">xee_tf.</span>'
            f"<b>{escape(self.name)}</b> "
            f'<span style="opacity:.8">{escape(self.detail)}</span></div>{_table(self.rows)}'
        )
        for text in self.warnings:
            body += (
                f'<p style="margin:6px 0;padding:4px 10px;max-width:34em;border-left:3px solid {DROPPED}">'
                f"{escape(text)}</p>"
            )
        body += "".join(listing.html() for listing in self.listings if listing.rows)
        if self.picture is None:
            return f'<div style="margin:6px 0">{body}</div>'
        if isinstance(self.picture, SidesPicture):
            svg, colors = sides_svg(self.picture)
            drawn = _with_legend(svg, [_swatch(color, escape(name)) for color, name in colors])
        else:
            drawn = _picture_html(self.picture)
        return f'<div style="{_BOX}"><div>{body}</div><div>{drawn}</div></div>'


class Summarized:
    """Mixin that uses a `Summary` as text repr and HTML repr; dataclasses must set ``repr=False``."""

    def _summary(self) -> Summary:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._summary().text()

    def _repr_html_(self) -> str:
        return self._summary().html()


def _table(rows: Iterable[Sequence[str]]) -> str:
    """Return cells as an HTML table; the first cell of each row is its label."""
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


def _picture_html(picture: GridPicture) -> str:
    """Return the drawing of a patch grid and its legend as HTML."""
    across, down = patches_per_cell(picture)
    one, many = picture.names
    legend = [_swatch(PATCH, f"{down} × {across} {many}" if across * down > 1 else one)]
    if picture.stored != picture.patch:
        legend.append(_swatch(MARGIN, f"one {one} with its margin"))
    if any(picture.dropped):
        legend.append(_swatch(DROPPED, "dropped"))
    if len(picture.block_rows) > 2 or len(picture.block_columns) > 2:
        legend.append('<span style="white-space:nowrap;margin-right:12px">┄ block of a task</span>')
    return _with_legend(grid_svg(picture), legend)


def _with_legend(svg: str, legend: Sequence[str]) -> str:
    return svg + f'<div style="font-size:85%;opacity:.85;margin-top:4px">{"".join(legend)}</div>'


def _swatch(colour: str, label: str) -> str:
    square = f"display:inline-block;width:.8em;height:.8em;margin-right:.4em;background:{colour}"
    return f'<span style="white-space:nowrap;margin-right:12px"><span style="{square}"></span>{label}</span>'
