"""Drawings of the concepts, made from the geometry of the package itself.

Each function returns an ``<svg>`` element for the HTML of a page. Texts and frames have the color of the
page, so that drawings are legible on light and dark pages. ``python docs/drawings.py FOLDER`` writes files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from affine import Affine

from xee_tf import Mixer, PatchGrid, Size, Window, split_patches
from xee_tf.blocks.layout import BlockAxis
from xee_tf.display.svg import DROPPED, MARGIN, PATCH
from xee_tf.predict.averaging import blend_weights

__all__ = ["DRAWINGS", "draw"]

SIDES = {"train": PATCH, "val": "#3a9d5d", "test": "#c0569e"}
SHARDS = (PATCH, "#3a9d5d", DROPPED)

_SHOWN = 720
"""Width of a drawing on a page, in CSS pixels. Sizes of texts are given in these pixels."""

DRAWINGS: dict[str, Callable[[], str]] = {}


def draw(function: Callable[[], str]) -> Callable[[], str]:
    """Register a drawing under the name of its function."""
    DRAWINGS[function.__name__] = function
    return function


# The raster of the examples in the reference: 489 x 443 pixels, patches of 128, kernel 32.
RASTER = Size(x=489, y=443)
GRID = PatchGrid(RASTER, Size(x=128, y=128), Size(x=16, y=16))


@draw
def patches() -> str:
    """Numbers of patches, and the edges that no patch covers."""
    parts = []
    for edge, left in (("drop", 0), ("pad", 560)):
        grid = PatchGrid(RASTER, GRID.patch, edge=edge)  # type: ignore[arg-type]
        title = f'edge="{edge}": {len(grid)} patches'
        parts.append(
            f'<g transform="translate({left} 0)">{_numbered(grid)}{_text(RASTER.x / 2, -16, title)}</g>'
        )
    return _svg(parts, Window(-48, 545, -10, 1080), "Patches in row-major order, dropped and padded edges")


@draw
def halo() -> str:
    """A patch in the middle and one in a corner, with their margins."""
    parts = [_rect(RASTER.window, "fill:currentColor;fill-opacity:.05;stroke:currentColor;stroke-width:1.5")]
    for index in range(len(GRID)):
        parts.append(_rect(GRID.core(index), f"fill:{PATCH};fill-opacity:.12;stroke:{PATCH}"))
    for index in (0, 4):
        core, stored = GRID.core(index), GRID.halo(index)
        parts.append(
            _rect(
                stored, f"fill:{MARGIN};fill-opacity:.25;stroke:{MARGIN};stroke-width:2;stroke-dasharray:6 4"
            )
        )
        parts.append(_rect(core, f"fill:{PATCH};fill-opacity:.6;stroke:{PATCH}"))
        middle = _middle(core)
        parts.append(_text(*middle, f"patch {index}", weight=600))
        parts.append(_text(middle[0], middle[1] + 20, f"{core.size.x} × {core.size.y}", size=12))
    outside = GRID.halo(0)
    parts.append(_line(outside.left, -6, -60, -60, DROPPED))
    parts.append(_text(-64, -66, "outside the raster: default_value", anchor="start", color=DROPPED))
    middle = GRID.halo(4)
    parts.append(_line(middle.right, middle.top + 8, 560, 90, MARGIN))
    stored = GRID.stored
    for number, line in enumerate(
        [
            f"stored: {stored.x} × {stored.y}",
            "= patch + 2 · (kernel // 2)",
            f"= {GRID.patch.x} + 2 · {GRID.margin.x}",
            "real pixels of the neighbors",
        ]
    ):
        parts.append(_text(566, 78 + 22 * number, line, anchor="start", color=MARGIN if not number else None))
    return _svg(parts, Window(-92, 460, -70, 860), "A patch, its margin, and a margin outside the raster")


@draw
def mixer() -> str:
    """Records in shards, their places in the grid, and the text of the mixer."""
    size, per_shard = Size(x=80, y=80), 5
    grid = PatchGrid(Size(x=320, y=240), size, affine=Affine(30, 0, 6e5, 0, -30, 4e6), crs="EPSG:32617")
    styles = [f"fill:{color};fill-opacity:.3;stroke:{color};stroke-width:1.5" for color in SHARDS]
    parts = []
    for index in range(len(grid)):
        shard, place = divmod(index, per_shard)
        box = Window(84 * shard, 84 * shard + 40, 384 + 56 * place, 384 + 56 * place + 50)
        for window in (grid.core(index), box):
            parts.append(_rect(window, styles[shard]))
            parts.append(_text(*_middle(window), str(index), size=15))
        if not place:
            parts.append(_text(384, box.top - 8, f"scene-{shard:05}.tfrecord.gz", anchor="start"))
    parts.append(_text(160, -8, "the raster"))
    parts.append(_text(0, 280, "scene-mixer.json", anchor="start", weight=600))
    for number, line in enumerate(Mixer.from_grid(grid).text().splitlines()):
        parts.append(_text(0, 304 + 18 * number, line, anchor="start", size=13, mono=True))
    return _svg(parts, Window(-28, 490, -10, 700), "Records in shards, and their places in the raster")


@draw
def tiles() -> str:
    """Two neighboring tiles: what is sent, what is returned, and what is kept."""
    grid = PatchGrid(Size(x=384, y=128), Size(x=128, y=128), Size(x=24, y=24))
    parts = [
        _rect(grid.shape.window, "fill:currentColor;fill-opacity:.05;stroke:currentColor;stroke-width:1.5")
    ]
    for index in range(3):
        parts.append(_rect(grid.core(index), f"fill:none;stroke:{PATCH};stroke-width:1"))
    for index, color in ((0, MARGIN), (1, "#3a9d5d")):
        sent = grid.halo(index)
        parts.append(
            _rect(sent, f"fill:{color};fill-opacity:.16;stroke:{color};stroke-width:2;stroke-dasharray:6 4")
        )
        parts.append(_rect(grid.core(index), f"fill:{color};fill-opacity:.3;stroke:none"))
        parts.append(_text(*_middle(grid.core(index)), f"tile {index}", weight=600))
    sent = grid.stored
    parts.append(_text(192, 178, f"sent: {sent.x} × {sent.y} px each"))
    parts.append(_arrow(420, 64, 486, 64))
    parts.append(_text(452, 50, "model", size=14))
    for index, color in ((0, MARGIN), (1, "#3a9d5d")):
        core = grid.core(index)
        box = Window(core.top, core.bottom, core.left + 500, core.right + 500)
        parts.append(_rect(box, f"fill:{color};fill-opacity:.3;stroke:{color};stroke-width:1.5"))
    parts.append(_text(628, 178, f"kept: {grid.patch.x} × {grid.patch.y} px each"))
    return _svg(parts, Window(-40, 196, -36, 790), "Tiles with overlap are sent to a model and cropped")


@draw
def blending() -> str:
    """The weights of four tiles along x, as the package computes them, and their sum."""
    overlap, side = 24, 96
    grid = PatchGrid(Size(x=4 * side, y=side), Size(x=side, y=side), Size(x=overlap, y=overlap))
    weights = blend_weights(grid, grid.patch, grid.margin, range(1), range(4))[1]
    height, scale = 130, 2
    colors = (PATCH, MARGIN, "#3a9d5d", DROPPED)
    parts = []
    for column in range(5):
        x = column * side * scale
        parts.append(_line(x, 0, x, height, "currentColor", "stroke-opacity:.35;stroke-dasharray:3 3"))
    total = np.zeros(4 * side)
    for index, (weight, color) in enumerate(zip(weights, colors, strict=True)):
        pixels = index * side - overlap + np.arange(len(weight))
        inside = (pixels >= 0) & (pixels < 4 * side)
        total[pixels[inside]] += weight[inside]
        points = [
            ((x + 0.5) * scale, height * (1 - w)) for x, w in zip(pixels[inside], weight[inside], strict=True)
        ]
        parts.append(_path(points, f"fill:none;stroke:{color};stroke-width:2.5"))
        parts.append(_text((index + 0.5) * side * scale, height / 2, f"tile {index}", color=color))
    points = [((x + 0.5) * scale, height * (1 - w)) for x, w in enumerate(total)]
    parts.append(_path(points, "fill:none;stroke:currentColor;stroke-width:1;stroke-dasharray:2 4"))
    parts.append(_line(0, height, 4 * side * scale, height, "currentColor"))
    parts.append(_text(-10, 4, "1", anchor="end"))
    parts.append(_text(-10, height + 4, "0", anchor="end"))
    parts.append(_text(4 * side * scale + 12, 5, "sum", anchor="start"))
    parts.append(
        _text(2 * side * scale, height + 24, 'blend="hann": the weight of each tile along x', size=15)
    )
    return _svg(
        parts,
        Window(-20, height + 40, -40, 4 * side * scale + 60),
        "Weights of overlapping tiles add up to 1",
    )


@draw
def blocks() -> str:
    """Chunks of the source, and the patches that the task of each chunk writes."""
    grid = PatchGrid(Size(x=600, y=400), Size(x=64, y=64), Size(x=8, y=8))
    y = BlockAxis((0, 200, 400), 400, grid.axis_y)
    x = BlockAxis((0, 200, 400, 600), 600, grid.axis_x)
    colors = (PATCH, "#3a9d5d", DROPPED, MARGIN, "#7a6fd0", "#a1865a")
    parts = []
    for row in range(len(y)):
        for column in range(len(x)):
            color = colors[row * len(x) + column]
            owned = [r * grid.patches_per_row + c for r in y.owned(row) for c in x.owned(column)]
            for index in owned:
                parts.append(
                    _rect(grid.core(index), f"fill:{color};fill-opacity:.35;stroke:{color};stroke-width:.8")
                )
    for edge in (0, 200, 400):
        parts.append(_line(0, edge, 600, edge, "currentColor", "stroke-width:2.5"))
    for edge in (0, 200, 400, 600):
        parts.append(_line(edge, 0, edge, 400, "currentColor", "stroke-width:2.5"))
    margin = grid.margin
    example = grid.halo(3)
    parts.append(_rect(example, "fill:none;stroke:currentColor;stroke-width:2;stroke-dasharray:5 4"))
    for number, text in enumerate(
        [
            "thick: chunks of 200 × 200",
            f"patches: {grid.patch.x} × {grid.patch.y}",
            f"dashed: one, with margin {margin.x}",
            "one color: one task",
        ]
    ):
        parts.append(_text(622, 60 + 30 * number, text, anchor="start"))
    return _svg(parts, Window(-12, 412, -12, 880), "Chunks, and the patches of each task")


@draw
def split() -> str:
    """The patches of each side of a split, and those that are left out at the borders."""
    grid = PatchGrid(Size(x=1024, y=512), Size(x=32, y=32), Size(x=8, y=8))
    sides = split_patches(grid, {"train": 0.7, "val": 0.15, "test": 0.15}, block=4, seed=3)
    parts = [_rect(grid.shape.window, "fill:currentColor;fill-opacity:.08;stroke:currentColor")]
    for side, selection in sides.items():
        parts += [
            _rect(
                grid.core(int(index)),
                f"fill:{SIDES[side]};fill-opacity:.75;stroke:none;shape-rendering:crispEdges",
            )
            for index in selection.patches
        ]
    legend: list[tuple[str, str]] = [
        (SIDES[side], f"{side}: {len(selection)} patches") for side, selection in sides.items()
    ]
    lost = len(grid) - sum(map(len, sides.values()))
    legend.append(("currentColor", f"left out: {lost}"))
    for number, (color, text) in enumerate(legend):
        opacity = 0.2 if color == "currentColor" else 0.75
        box = Window(60 + 44 * number, 84 + 44 * number, 1060, 1084)
        parts.append(_rect(box, f"fill:{color};fill-opacity:{opacity};stroke:none"))
        parts.append(_text(1098, 80 + 44 * number, text, anchor="start"))
    return _svg(parts, Window(-10, 522, -10, 1380), "Patches of a split, and those left out")


def _numbered(grid: PatchGrid) -> str:
    """Draw the patches with their numbers, and what is dropped or padded."""
    raster = grid.shape.window
    parts = []
    if grid.edge == "drop":
        covered = grid.covered
        orange = f"fill:{DROPPED};fill-opacity:.3;stroke:none"
        parts.append(_rect(Window(0, raster.bottom, covered.x, raster.right), orange))
        parts.append(_rect(Window(covered.y, raster.bottom, 0, covered.x), orange))
        middle = (covered.x + raster.right) / 2
        parts.append(_text(middle, raster.bottom / 2, f"{grid.dropped.x} px"))
        parts.append(_text(middle, raster.bottom / 2 + 24, "dropped"))
        parts.append(
            _text(covered.x / 2, (covered.y + raster.bottom) / 2 + 7, f"{grid.dropped.y} px dropped")
        )
    for index in range(len(grid)):
        core = grid.core(index)
        parts.append(_rect(core, f"fill:{PATCH};fill-opacity:.22;stroke:{PATCH};stroke-width:1.2"))
        x, y = _middle(core.intersection(raster))
        parts.append(_text(x, y + 2, str(index), size=16))
    parts.append(_rect(raster, "fill:none;stroke:currentColor;stroke-width:2.5"))
    if grid.edge == "pad":
        parts.append(_text(grid.covered.x / 2, grid.covered.y + 28, "filled with masked pixels"))
    return "".join(parts)


def _svg(parts: Iterable[str], view: Window, label: str) -> str:
    width, height = view.size.xy
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" '
        f'viewBox="{view.left} {view.top} {width} {height}" '
        f'style="width:100%;height:auto;color:inherit;font-family:inherit;font-size:{width / _SHOWN:.3f}px">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )


def _middle(window: Window) -> tuple[float, float]:
    return (window.left + window.right) / 2, (window.top + window.bottom) / 2 + 5


def _rect(window: Window, style: str) -> str:
    return (
        f'<rect x="{window.left}" y="{window.top}" width="{window.size.x}" height="{window.size.y}" '
        f'style="{style}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, color: str, style: str = "stroke-width:1.5") -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" style="stroke:{color};{style}"/>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    head = _path(
        [(x2 - 9, y2 - 6), (x2, y2), (x2 - 9, y2 + 6)], "fill:none;stroke:currentColor;stroke-width:2"
    )
    return _line(x1, y1, x2, y2, "currentColor", "stroke-width:2") + head


def _path(points: Sequence[tuple[float, float]], style: str) -> str:
    return f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}" style="{style}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "middle",
    size: int = 14,
    color: str | None = None,
    weight: int = 400,
    mono: bool = False,
) -> str:
    family = "font-family:monospace;white-space:pre;" if mono else ""
    return (
        f'<text x="{x:g}" y="{y:g}" style="{family}font-size:{size}em;font-weight:{weight};'
        f'fill:{color or "currentColor"};text-anchor:{anchor}">{escape(text)}</text>'
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, function in DRAWINGS.items():
        (folder / f"{name}.svg").write_text(function())
