"""What an object shows of itself, for both kinds of repr."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xee_tf.display.html import heading, list_html, page, picture_html, rows_html, warning_html
from xee_tf.display.svg import GridPicture
from xee_tf.display.text import Facts, aligned, head_of

__all__ = ["Listing", "Summary"]


@dataclass(frozen=True)
class Listing:
    """Many things of one kind, of which the first ones are shown.

    Parameters
    ----------
    title : str
        Their plural.
    rows : sequence of sequence of str
        The cells of each of them, its name first.
    most : int
        How many are shown in text.
    """

    title: str
    rows: Sequence[Sequence[str]]
    most: int

    def text_rows(self) -> Facts:
        """The first ones as rows of text."""
        shown, more = head_of(self.rows, self.most)
        width = max((len(name) for name, *_ in shown), default=0)
        lines = ["  ".join([f"{name:{width}}", *cells]) for name, *cells in shown]
        if more:
            lines.append(f"... and {more:,} more")
        return [("" if number else self.title, line) for number, line in enumerate(lines)]


@dataclass(frozen=True)
class Summary:
    """The facts of an object: `text` is its repr, `html` what a notebook shows.

    Parameters
    ----------
    name : str
        The public name of its class.
    detail : str
        Which object it is.
    rows : list of (str, str)
        Labels and values.
    warnings : sequence of str
    listing : Listing, optional
        What the object consists of.
    picture : GridPicture, optional

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
    listing: Listing | None = None
    picture: GridPicture | None = field(default=None, repr=False)

    def text(self) -> str:
        """Plain text."""
        rows = [*self.rows, *(("warning", text) for text in self.warnings)]
        if self.listing is not None:
            rows += self.listing.text_rows()
        head = f"<xee_tf.{self.name} {self.detail}".rstrip() + ">"
        return f"{head}\n{aligned(rows)}" if rows else head

    def html(self) -> str:
        """HTML without scripts and style sheets."""
        body = (
            heading(self.name, self.detail) + rows_html(self.rows) + "".join(map(warning_html, self.warnings))
        )
        if self.listing is not None and self.listing.rows:
            body += list_html(self.listing.title, self.listing.rows)
        return page(body, "" if self.picture is None else picture_html(self.picture))
