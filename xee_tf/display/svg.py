"""Draw a patch grid over its raster with a bounded number of SVG elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xee_tf.display.text import by

__all__ = ["DROPPED", "MARGIN", "PATCH", "GridPicture", "grid_svg", "patches_per_cell"]

# Midtones with transparency, legible on white and on black. Text and frames inherit the color of the page.
PATCH = "#2f81c7"
MARGIN = "#c0569e"
DROPPED = "#e08a1e"

_STORED = f"fill:{MARGIN};fill-opacity:.3;stroke:{MARGIN};stroke-width:1.2"
_GAP = 5.0  # minimum distance between lines, in CSS pixels
_PAD = 22.0  # space for margins and for the labels along the sides, in CSS pixels
_SIZE = 240  # length of the longer side, in CSS pixels

Pair = tuple[int, int]


@dataclass(frozen=True)
class GridPicture:
    """A raster and its patches, in pixels of the raster.

    Parameters
    ----------
    raster, patch, margin : (x, y)
        Sizes of the raster, of a patch, and of its margin on each side.
    patches : (columns, rows)
        Number of patches along each axis.
    block_columns, block_rows : sequence of int
        Edges of the blocks that each task processes; drawn as dashed lines.
    names : (str, str)
        Singular and plural of what is drawn.
    """

    raster: Pair
    patch: Pair
    margin: Pair
    patches: Pair
    block_columns: Sequence[int] = ()
    block_rows: Sequence[int] = ()
    names: tuple[str, str] = ("patch", "patches")

    @property
    def stored(self) -> Pair:
        """Size of a patch with its margins."""
        return self.patch[0] + 2 * self.margin[0], self.patch[1] + 2 * self.margin[1]

    @property
    def covered(self) -> Pair:
        """Size of the area that all patches cover, padding included."""
        return self.patch[0] * self.patches[0], self.patch[1] * self.patches[1]

    @property
    def dropped(self) -> Pair:
        """Number of columns at the right and rows at the bottom that no patch covers."""
        return max(self.raster[0] - self.covered[0], 0), max(self.raster[1] - self.covered[1], 0)

    @property
    def extent(self) -> Pair:
        """Size of the raster with padding."""
        return max(self.raster[0], self.covered[0]), max(self.raster[1], self.covered[1])


def grid_svg(picture: GridPicture, *, size: int = _SIZE) -> str:
    """Draw a raster, its patches, its dropped edges, and an enlarged patch with its margin.

    The first row of the raster is at the top, regardless of the orientation of its affine. If the patches are
    too small to distinguish, each drawn cell represents several patches, so that the size of the output is
    bounded.

    Parameters
    ----------
    picture : GridPicture
        The grid to draw.
    size : int, optional
        Length of the longer side, in CSS pixels.

    Returns
    -------
    str
        An ``<svg>`` element without ids or scripts, suitable for light and dark pages.

    Examples
    --------
    >>> grid_svg(GridPicture((489, 443), (128, 128), (16, 16), patches=(3, 3))).startswith("<svg ")
    True
    """
    scale_x, scale_y = _scales(picture.extent, size)
    width, height = picture.extent[0] * scale_x, picture.extent[1] * scale_y
    covered = (picture.covered[0] * scale_x, picture.covered[1] * scale_y)
    raster = (picture.raster[0] * scale_x, picture.raster[1] * scale_y)
    parts = [
        _rect(0, 0, *raster, "fill:currentColor;fill-opacity:.06;stroke:none"),
        _rect(0, 0, *covered, f"fill:{PATCH};fill-opacity:.22;stroke:none"),
        *_dropped(picture, covered, raster),
        _lines(picture, patches_per_cell(picture, size=size), scale_x, scale_y),
        _blocks(picture, scale_x, scale_y),
        *_sample(picture, scale_x, scale_y),
        _rect(0, 0, *raster, "fill:none;stroke:currentColor;stroke-width:1.2"),
        _text(raster[0] / 2, height + 16, f"{picture.raster[0]:,} px"),
        _text(0, 0, f"{picture.raster[1]:,} px", f"translate(-8 {_n(raster[1] / 2)}) rotate(-90)"),
    ]
    inset, inset_width, inset_height = _inset(picture, size)
    left = width + 2 * _PAD
    parts.append(f'<g transform="translate({_n(left)} 0)">{inset}</g>')
    full_width = left + inset_width + 2 * _PAD
    full_height = max(height, inset_height) + 1.5 * _PAD
    columns, rows = picture.patches
    label = (
        f"{columns * rows:,} {picture.names[1]} in {rows:,} rows and {columns:,} columns "
        f"over a raster of {picture.raster[0]:,} by {picture.raster[1]:,} pixels"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'width="{_n(full_width)}" height="{_n(full_height)}" '
        f'viewBox="{_n(-_PAD)} {_n(-_PAD / 2)} {_n(full_width)} {_n(full_height)}" '
        'style="max-width:100%;height:auto;overflow:visible;color:inherit">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


def patches_per_cell(picture: GridPicture, *, size: int = _SIZE) -> Pair:
    """Return the number of patches that one drawn cell represents, along x and along y.

    Examples
    --------
    >>> patches_per_cell(GridPicture((256_000, 256_000), (256, 256), (0, 0), patches=(1000, 1000)))
    (50, 50)
    """
    scale_x, scale_y = _scales(picture.extent, size)
    return _step(picture.patch[0] * scale_x), _step(picture.patch[1] * scale_y)


def _scales(extent: Pair, size: int) -> tuple[float, float]:
    """Return CSS pixels per raster pixel along x and y; very narrow rasters are stretched."""
    scale = size / max(extent)
    least = size / 6
    return max(scale, least / extent[0]), max(scale, least / extent[1])


def _dropped(picture: GridPicture, covered: tuple[float, float], raster: tuple[float, float]) -> list[str]:
    style = f"fill:{DROPPED};fill-opacity:.45;stroke:none"
    columns, rows = picture.dropped
    parts = []
    if columns:
        title = f"{columns:,} columns dropped"
        parts.append(_rect(covered[0], 0, raster[0] - covered[0], raster[1], style, title))
    if rows:
        title = f"{rows:,} rows dropped"
        parts.append(_rect(0, covered[1], min(covered[0], raster[0]), raster[1] - covered[1], style, title))
    return parts


def _lines(picture: GridPicture, cell: Pair, scale_x: float, scale_y: float) -> str:
    """Draw the edges of the cells."""
    width, height = picture.covered[0] * scale_x, picture.covered[1] * scale_y
    columns = [column * picture.patch[0] * scale_x for column in range(0, picture.patches[0], cell[0])]
    rows = [row * picture.patch[1] * scale_y for row in range(0, picture.patches[1], cell[1])]
    style = f"stroke:{PATCH};stroke-width:.7"
    return _mesh([*columns, width], [*rows, height], width, height, style)


def _step(drawn: float) -> int:
    """Return the number of patches that a drawn cell represents: 1, 2, 5, 10, 20, 50, ..."""
    step = 1
    while step * drawn < _GAP:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _blocks(picture: GridPicture, scale_x: float, scale_y: float) -> str:
    width, height = picture.raster[0] * scale_x, picture.raster[1] * scale_y
    columns = _inner(picture.block_columns, scale_x, width)
    rows = _inner(picture.block_rows, scale_y, height)
    style = "stroke:currentColor;stroke-opacity:.65;stroke-width:1;stroke-dasharray:3 3"
    return _mesh(columns, rows, width, height, style)


def _inner(edges: Sequence[int], scale: float, length: float) -> list[float]:
    """Return drawn positions strictly inside the raster, at least `_GAP` apart."""
    drawn: list[float] = []
    for edge in edges:
        position = edge * scale
        if 0 < position < length and (not drawn or position - drawn[-1] >= _GAP):
            drawn.append(position)
    return drawn


def _sample(picture: GridPicture, scale_x: float, scale_y: float) -> list[str]:
    """Draw a sample patch in its place, with neighbors on all sides if possible."""
    column, row = (min(1, count - 1) for count in picture.patches)
    index = row * picture.patches[0] + column
    left, top = column * picture.patch[0], row * picture.patch[1]
    (width, height), (margin_x, margin_y) = picture.patch, picture.margin
    style = f"fill:{PATCH};stroke:none"
    name = f"{picture.names[0]} {index}"
    core = _rect(left * scale_x, top * scale_y, width * scale_x, height * scale_y, style, name)
    if picture.stored == picture.patch:
        return [core]
    halo = _rect(
        (left - margin_x) * scale_x,
        (top - margin_y) * scale_y,
        (width + 2 * margin_x) * scale_x,
        (height + 2 * margin_y) * scale_y,
        _STORED,
        f"{name} with its margin",
    )
    return [halo, core]


def _inset(picture: GridPicture, size: int) -> tuple[str, float, float]:
    """Draw the sample patch enlarged, with its dimensions; return the markup, its width and its height."""
    scale_x, scale_y = _scales(picture.stored, size // 2)
    width, height = picture.stored[0] * scale_x, picture.stored[1] * scale_y
    margin_x, margin_y = picture.margin[0] * scale_x, picture.margin[1] * scale_y
    core_width, core_height = picture.patch[0] * scale_x, picture.patch[1] * scale_y
    parts = []
    if picture.stored != picture.patch:
        parts.append(_rect(0, 0, width, height, _STORED, "stored, margins included"))
    style = f"fill:{PATCH};fill-opacity:.75;stroke:{PATCH};stroke-width:1.2"
    parts.append(_rect(margin_x, margin_y, core_width, core_height, style, picture.names[0]))
    parts.append(_text(width / 2, height / 2 + 4, by(*picture.patch)))
    if picture.stored != picture.patch:
        parts.append(_text(width / 2, height + 16, f"{by(*picture.stored)} stored"))
    return "".join(parts), max(width, 90.0), height


def _rect(x: float, y: float, width: float, height: float, style: str, title: str = "") -> str:
    head = f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" style="{style}"'
    return f"{head}><title>{title}</title></rect>" if title else f"{head}/>"


def _mesh(columns: Sequence[float], rows: Sequence[float], width: float, height: float, style: str) -> str:
    """Draw vertical and horizontal lines as a single path element."""
    down = "".join(f"M{_n(x)} 0V{_n(height)}" for x in columns)
    across = "".join(f"M0 {_n(y)}H{_n(width)}" for y in rows)
    return f'<path d="{down}{across}" style="{style}"/>' if columns or rows else ""


def _text(x: float, y: float, text: str, transform: str = "") -> str:
    place = f'transform="{transform}"' if transform else f'x="{_n(x)}" y="{_n(y)}"'
    return f'<text {place} style="font:11px sans-serif;fill:currentColor;text-anchor:middle">{text}</text>'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
