"""Format labels and values as plain text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from xee_tf.errors import excerpt

__all__ = ["Facts", "abbreviated", "aligned", "by", "counted", "percent", "quoted", "truncate"]

Facts = list[tuple[str, str]]
"""Labels and values. A row with an empty label continues the row above it."""

T = TypeVar("T")

_WIDTH = 100


def aligned(rows: Sequence[tuple[str, str]], *, wrap: bool = True) -> str:
    """Format labels and values in two columns; wrap long values unless `wrap` is false.

    Examples
    --------
    >>> print(aligned([("records", "18"), ("bytes", "1.58 MiB")]))
      records  18
      bytes    1.58 MiB
    """
    width = max(len(label) for label, _ in rows) + 2
    heads = [f"  {label:{width}}" for label, _ in rows]
    if not wrap:
        return "\n".join(head + value for head, (_, value) in zip(heads, rows, strict=True))
    wrapper = textwrap.TextWrapper(
        _WIDTH, subsequent_indent=" " * (width + 2), break_long_words=False, break_on_hyphens=False
    )
    lines = []
    for head, (_, value) in zip(heads, rows, strict=True):
        wrapper.initial_indent = head
        lines += wrapper.wrap(value) or [""]
    return "\n".join(lines)


def truncate(items: Sequence[T], most: int) -> tuple[Sequence[T], int]:
    """Return the first `most` items and the number of the others; all items if only one would be omitted."""
    return (items, 0) if len(items) <= most + 1 else (items[:most], len(items) - most)


def abbreviated(items: Iterable[Any], most: int = 12, show: Callable[[Any], str] = str) -> str:
    """Join items with commas, truncated to about `most` items; `show` formats those that are shown.

    Examples
    --------
    >>> abbreviated(["B2", "B3", "B4"]), abbreviated([f"B{number}" for number in range(1, 6)], most=2)
    ('B2, B3, B4', 'B1, B2 and 3 more')
    """
    shown, more = truncate(list(items), most)
    return ", ".join(map(show, shown)) + (f" and {more:,} more" if more else "")


def quoted(names: Iterable[Any], most: int = 12) -> str:
    """Join names in quotes for an error message, truncated to about `most` names; "none" without names.

    Examples
    --------
    >>> quoted(["B2", "B3"]), quoted([])
    ("'B2', 'B3'", 'none')
    """
    return abbreviated(names, most, excerpt) or "none"


def counted(number: int, one: str, many: str = "") -> str:
    """Format a number with its noun in the singular or plural.

    Examples
    --------
    >>> counted(1, "row"), counted(2000, "row"), counted(2, "patch", "patches")
    ('1 row', '2,000 rows', '2 patches')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def by(width: int, height: int) -> str:
    """Format a width and a height.

    Examples
    --------
    >>> by(1024, 64)
    '1,024 × 64'
    """
    return f"{width:,} × {height:,}"


def percent(share: float) -> str:
    """Format a proportion.

    Examples
    --------
    >>> percent(0.03417), percent(1), percent(0.0002), percent(0)
    ('3.4 %', '100 %', 'less than 0.1 %', '0 %')
    """
    return "less than 0.1 %" if 0 < share < 0.001 else f"{math.floor(share * 1000 + 0.5) / 10:.3g} %"
