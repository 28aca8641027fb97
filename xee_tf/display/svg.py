"""A picture of a patch grid over its raster, in a bounded number of SVG elements."""

from __future__ import annotations

from collections.abc import Sequence

from xee_tf.geometry import PatchGrid, Size

__all__ = ["DROPPED", "MARGIN", "PATCH", "grid_svg", "patches_per_cell"]

# Middle tones with transparency: legible on white and on black. Text and frames take the page's own colour.
PATCH = "#2f81c7"
MARGIN = "#c0569e"
DROPPED = "#e08a1e"

_STORED = f"fill:{MARGIN};fill-opacity:.3;stroke:{MARGIN};stroke-width:1.2"
_GAP = 5.0  # closest distance, in drawn pixels, at which lines are still seen apart
_PAD = 22.0  # room for margins and for the numbers along the sides


def grid_svg(
    grid: PatchGrid,
    block_edges_y: Sequence[int] = (),
    block_edges_x: Sequence[int] = (),
    *,
    size: int = 240,
) -> str:
    """Draw a raster, its patches, its dropped edges, and one patch enlarged with its margin.

    The first row of the raster is at the top, whichever way its affine points. Where patches are too
    many to be seen apart, each drawn cell stands for several: the picture of a million patches is no
    larger than that of a thousand.

    Parameters
    ----------
    grid : PatchGrid
        What to draw.
    block_edges_y, block_edges_x : sequence of int, optional
        Edges of the blocks that a task works on, in pixels of the source raster; drawn dashed.
    size : int, optional
        Length of the picture's longer side, in CSS pixels.

    Returns
    -------
    str
        An ``<svg>`` element without ids or scripts, fit to be put into any page, light or dark.

    Examples
    --------
    >>> grid = PatchGrid(Size(x=489, y=443), Size(x=128, y=128), Size(x=16, y=16))
    >>> grid_svg(grid).startswith("<svg ")
    True
    """
    extent = _extent(grid)
    scale_x, scale_y = _scales(extent, size)
    width, height = extent.x * scale_x, extent.y * scale_y
    covered = (grid.covered.x * scale_x, grid.covered.y * scale_y)
    raster = (grid.shape.x * scale_x, grid.shape.y * scale_y)
    parts = [
        _rect(0, 0, *raster, "fill:currentColor;fill-opacity:.06;stroke:none"),
        _rect(0, 0, *covered, f"fill:{PATCH};fill-opacity:.22;stroke:none"),
        *_dropped(grid, covered, raster),
        _lines(grid, patches_per_cell(grid, size=size), scale_x, scale_y),
        _blocks(grid, block_edges_y, block_edges_x, scale_x, scale_y),
        *_sample(grid, scale_x, scale_y),
        _rect(0, 0, *raster, "fill:none;stroke:currentColor;stroke-width:1.2"),
        _text(raster[0] / 2, height + 16, f"{grid.shape.x:,} px"),
        _text(0, 0, f"{grid.shape.y:,} px", f"translate(-8 {_n(raster[1] / 2)}) rotate(-90)"),
    ]
    inset, inset_width, inset_height = _inset(grid, size)
    left = width + 2 * _PAD
    parts.append(f'<g transform="translate({_n(left)} 0)">{inset}</g>')
    full_width = left + inset_width + 2 * _PAD
    full_height = max(height, inset_height) + 1.5 * _PAD
    label = (
        f"{len(grid):,} patches in {grid.rows:,} rows and {grid.columns:,} columns "
        f"over a raster of {grid.shape.x:,} by {grid.shape.y:,} pixels"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'width="{_n(full_width)}" height="{_n(full_height)}" '
        f'viewBox="{_n(-_PAD)} {_n(-_PAD / 2)} {_n(full_width)} {_n(full_height)}" '
        'style="max-width:100%;height:auto;overflow:visible;color:inherit">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


def patches_per_cell(grid: PatchGrid, *, size: int = 240) -> Size:
    """How many patches one cell of the picture stands for, along either axis.

    Examples
    --------
    >>> patches_per_cell(PatchGrid(Size(x=256_000, y=256_000), Size(x=256, y=256)))
    Size(x=50, y=50)
    """
    scale_x, scale_y = _scales(_extent(grid), size)
    return Size(x=_step(grid.patch.x * scale_x), y=_step(grid.patch.y * scale_y))


def _extent(grid: PatchGrid) -> Size:
    """Pixels of the raster, and of the padding beyond it."""
    return Size(x=max(grid.shape.x, grid.covered.x), y=max(grid.shape.y, grid.covered.y))


def _scales(extent: Size, size: int) -> tuple[float, float]:
    """Drawn pixels per raster pixel; a very narrow raster is drawn wider than it is."""
    scale = size / max(extent.x, extent.y)
    least = size / 6
    return max(scale, least / extent.x), max(scale, least / extent.y)


def _dropped(grid: PatchGrid, covered: tuple[float, float], raster: tuple[float, float]) -> list[str]:
    style = f"fill:{DROPPED};fill-opacity:.45;stroke:none"
    parts = []
    if grid.dropped.x:
        title = f"{grid.dropped.x:,} columns dropped"
        parts.append(_rect(covered[0], 0, raster[0] - covered[0], raster[1], style, title))
    if grid.dropped.y:
        title = f"{grid.dropped.y:,} rows dropped"
        parts.append(_rect(0, covered[1], min(covered[0], raster[0]), raster[1] - covered[1], style, title))
    return parts


def _lines(grid: PatchGrid, cell: Size, scale_x: float, scale_y: float) -> str:
    """The edges of the patches, thinned to what the eye can tell apart."""
    width, height = grid.covered.x * scale_x, grid.covered.y * scale_y
    columns = [column * grid.patch.x * scale_x for column in range(0, grid.columns, cell.x)]
    rows = [row * grid.patch.y * scale_y for row in range(0, grid.rows, cell.y)]
    style = f"stroke:{PATCH};stroke-width:.7"
    return _mesh([*columns, width], [*rows, height], width, height, style)


def _step(drawn: float) -> int:
    """How many patches a drawn cell stands for: 1, 2, 5, 10, 20, 50, ..."""
    step = 1
    while step * drawn < _GAP:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _blocks(
    grid: PatchGrid, edges_y: Sequence[int], edges_x: Sequence[int], scale_x: float, scale_y: float
) -> str:
    width, height = grid.shape.x * scale_x, grid.shape.y * scale_y
    columns = _inner(edges_x, grid.origin.x, scale_x, width)
    rows = _inner(edges_y, grid.origin.y, scale_y, height)
    style = "stroke:currentColor;stroke-opacity:.65;stroke-width:1;stroke-dasharray:3 3"
    return _mesh(columns, rows, width, height, style)


def _inner(edges: Sequence[int], origin: int, scale: float, length: float) -> list[float]:
    """Drawn positions strictly inside the raster, none closer than `_GAP` to the one before."""
    drawn: list[float] = []
    for edge in edges:
        position = (edge - origin) * scale
        if 0 < position < length and (not drawn or position - drawn[-1] >= _GAP):
            drawn.append(position)
    return drawn


def _sample(grid: PatchGrid, scale_x: float, scale_y: float) -> list[str]:
    """One patch in its place; it has neighbours on all sides if any patch has."""
    row, column = min(1, grid.rows - 1), min(1, grid.columns - 1)
    index = row * grid.columns + column
    core, halo = grid.core(index), grid.halo(index)
    return [
        _rect(
            window.left * scale_x,
            window.top * scale_y,
            window.size.x * scale_x,
            window.size.y * scale_y,
            style,
            title,
        )
        for window, style, title in (
            (halo, _STORED, f"patch {index} with its margin"),
            (core, f"fill:{PATCH};stroke:none", f"patch {index}"),
        )
        if window is core or grid.stored != grid.patch
    ]


def _inset(grid: PatchGrid, size: int) -> tuple[str, float, float]:
    """The sample patch enlarged, with its measures; returns the markup, its width and its height."""
    scale_x, scale_y = _scales(grid.stored, size // 2)
    width, height = grid.stored.x * scale_x, grid.stored.y * scale_y
    margin_x, margin_y = grid.margin.x * scale_x, grid.margin.y * scale_y
    core_width, core_height = grid.patch.x * scale_x, grid.patch.y * scale_y
    parts = []
    if grid.stored != grid.patch:
        parts.append(_rect(0, 0, width, height, _STORED, "stored, margins included"))
    style = f"fill:{PATCH};fill-opacity:.75;stroke:{PATCH};stroke-width:1.2"
    parts.append(_rect(margin_x, margin_y, core_width, core_height, style, "patch"))
    parts.append(_text(width / 2, height / 2 + 4, f"{grid.patch.x:,} × {grid.patch.y:,}"))
    if grid.stored != grid.patch:
        parts.append(_text(width / 2, height + 16, f"{grid.stored.x:,} × {grid.stored.y:,} stored"))
    return "".join(parts), max(width, 90.0), height


def _rect(x: float, y: float, width: float, height: float, style: str, title: str = "") -> str:
    head = f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" style="{style}"'
    return f"{head}><title>{title}</title></rect>" if title else f"{head}/>"


def _mesh(columns: Sequence[float], rows: Sequence[float], width: float, height: float, style: str) -> str:
    """Lines from side to side as a single element."""
    down = "".join(f"M{_n(x)} 0V{_n(height)}" for x in columns)
    across = "".join(f"M0 {_n(y)}H{_n(width)}" for y in rows)
    return f'<path d="{down}{across}" style="{style}"/>' if columns or rows else ""


def _text(x: float, y: float, text: str, transform: str = "") -> str:
    place = f'transform="{transform}"' if transform else f'x="{_n(x)}" y="{_n(y)}"'
    return f'<text {place} style="font:11px sans-serif;fill:currentColor;text-anchor:middle">{text}</text>'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
