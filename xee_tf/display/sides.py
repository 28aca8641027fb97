"""Draw which patches are in which side as a small map in SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = ["Colored", "SidesPicture", "colored_sides", "sides_svg"]

# Midtones, legible on white and on black.
_SIDES = ("#2f81c7", "#e08a1e", "#2f9e6e", "#c0569e", "#8a63d2", "#b8860b", "#3aa7b0", "#d1495b")
_LOST = "#8c8c8c"
_CELLS = 48  # maximum number of cells along an axis
_SIZE = 200  # length of the longer side, in CSS pixels

Colored = tuple[str, str, NDArray[np.bool_]]
"""Name, color and patches of a side."""


@dataclass(frozen=True)
class SidesPicture:
    """The patches of each side.

    Parameters
    ----------
    sides : mapping of str to ndarray of bool
        Whether each patch, (rows, columns), is in a side.
    patch : (x, y)
        Size of a patch.
    lost : ndarray of bool, optional
        Whether each patch was left out.
    """

    sides: Mapping[str, NDArray[np.bool_]]
    patch: tuple[int, int]
    lost: NDArray[np.bool_] | None = None


def colored_sides(
    sides: Mapping[str, NDArray[np.bool_]], lost: NDArray[np.bool_] | None, lost_label: str = "left out"
) -> list[Colored]:
    """Return the sides with their colors, followed by the patches that were left out, if there are any."""
    colored = [(name, _SIDES[at % len(_SIDES)], mask) for at, (name, mask) in enumerate(sides.items())]
    if lost is not None and lost.any():
        colored.append((lost_label, _LOST, lost))
    return colored


def sides_svg(picture: SidesPicture) -> tuple[str, Sequence[tuple[str, str]]]:
    """Draw the sides; return an ``<svg>`` element, and the color and the name of each.

    A cell that stands for several patches has the color of the side with most of them.

    Examples
    --------
    >>> sides_svg(SidesPicture({"a": np.array([[True, False, True]])}, (1, 1)))[0].count("M")
    2
    """
    colored = colored_sides(picture.sides, picture.lost)
    rows, columns = colored[0][2].shape
    down, across = (np.arange(0, count, -(-count // _CELLS)) for count in (rows, columns))
    counts = np.stack(
        [
            np.add.reduceat(np.add.reduceat(mask, down, axis=0, dtype=np.int32), across, axis=1)
            for *_, mask in colored
        ]
    )
    most = np.where(counts.any(0), counts.argmax(0), -1)
    width, height = columns * picture.patch[0], rows * picture.patch[1]
    scale = _SIZE / max(width, height)
    size = (max(width * scale, _SIZE / 6), max(height * scale, _SIZE / 6))
    edges_y, edges_x = np.append(down, rows), np.append(across, columns)
    paths = "".join(
        f'<path d="{_runs(most == number, edges_y, edges_x)}" style="fill:{color};stroke:none"/>'
        for number, (_, color, _) in enumerate(colored)
    )
    label = escape(", ".join(name for name, *_ in colored), quote=True)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" width="{size[0]:.0f}" '
        f'height="{size[1]:.0f}" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" '
        f'shape-rendering="crispEdges" style="max-width:100%;height:auto"><title>{label}</title>'
        f'<rect width="{columns}" height="{rows}" style="fill:currentColor;fill-opacity:.08"/>{paths}</svg>'
    )
    return svg, [(color, name) for name, color, _ in colored]


def _runs(cells: NDArray[np.bool_], edges_y: NDArray[np.int64], edges_x: NDArray[np.int64]) -> str:
    """Return a path of rectangles, one for each run of cells in a row."""
    padded = np.zeros((cells.shape[0], cells.shape[1] + 2), np.int8)
    padded[:, 1:-1] = cells
    change = np.diff(padded, axis=1)
    row, begin = np.nonzero(change == 1)
    end = np.nonzero(change == -1)[1]
    return "".join(
        f"M{left} {top}h{right - left}v{bottom - top}h{left - right}z"
        for top, bottom, left, right in zip(
            edges_y[row].tolist(),
            edges_y[row + 1].tolist(),
            edges_x[begin].tolist(),
            edges_x[end].tolist(),
            strict=True,
        )
    )
