"""Draw patch grids and parts of them with Matplotlib, with a bounded number of lines and pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.display.sides import Colored, colored_sides
from xee_tf.display.svg import DROPPED, MARGIN, PATCH, GridPicture
from xee_tf.display.text import by, percent
from xee_tf.extras import extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SourcePicture", "plot_grid", "plot_sides"]

_LINES = 50  # maximum number of lines along an axis
_CELLS = 1024  # maximum number of cells along an axis

Pair = tuple[int, int]


@dataclass(frozen=True)
class SourcePicture:
    """Where a grid lies in the raster that it was made for, in pixels of this raster.

    Parameters
    ----------
    origin : (x, y)
        The first pixel of the grid.
    chunk_columns, chunk_rows : sequence of int
        Edges of the chunks of the raster, from 0 to its width and height.
    selected : ndarray of bool, optional
        Whether each patch is selected, of shape (rows, columns). Default: all.
    """

    origin: Pair
    chunk_columns: Sequence[int]
    chunk_rows: Sequence[int]
    selected: NDArray[np.bool_] | None = None

    @property
    def size(self) -> Pair:
        """Width and height of the raster."""
        return self.chunk_columns[-1], self.chunk_rows[-1]


def _new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the given axes, or those of a new figure of a size in inches."""
    with extra("plot", "A plot"):
        import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def plot_grid(picture: GridPicture, source: SourcePicture, title: str, ax: Axes | None = None) -> Axes:
    """Draw a raster with its chunks and its patches, and a patch enlarged.

    Lines that would be too close are merged, so that grids of any size take the same time.

    Parameters
    ----------
    picture : GridPicture
        The grid.
    source : SourcePicture
        The raster around it.
    title : str
        Title of the axes.
    ax : matplotlib.axes.Axes, optional
        Axes to draw to. Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, in pixels of the raster, with the first row at the top.
    """
    ax = _new_axes(ax, (9, 5))
    from matplotlib.patches import Patch

    one, many = picture.names
    (left, top), (width, height) = source.origin, source.size
    covered = picture.covered
    chosen = PATCH if source.selected is None else "none"
    handles = [_frame(ax, (0, 0), source.size, "raster", facecolor="none", edgecolor=_text_color(), lw=1.2)]
    if picture.raster != source.size:
        style: dict[str, Any] = {
            "facecolor": "none",
            "edgecolor": _text_color(),
            "lw": 1.6,
            "ls": ":",
        }
        handles.append(_frame(ax, source.origin, picture.raster, "region", **style))
    _frame(ax, source.origin, covered, "", facecolor=chosen, alpha=0.22, lw=0)
    steps = [_step(count) for count in picture.patches]  # patches between two lines
    cell = f"{steps[1]:,} × {steps[0]:,} {many}" if max(steps) > 1 else one
    if source.selected is not None:
        _show(ax, source.origin, picture.patch, [("selected", PATCH, source.selected)])
        handles.append(Patch(facecolor=PATCH, label=f"selected: {percent(source.selected.mean())}"))
    handles.append(Patch(facecolor=PATCH, alpha=0.4, edgecolor=PATCH, label=cell))
    handles += _plot_dropped(ax, picture, source)
    for axis, step in zip((0, 1), steps, strict=True):
        edges = source.origin[axis] + picture.patch[axis] * np.arange(0, picture.patches[axis] + 1, step)
        edges = np.append(edges, source.origin[axis] + covered[axis])
        span = (source.origin[1 - axis], source.origin[1 - axis] + covered[1 - axis])
        _lines(ax, axis, np.unique(edges), span, colors=PATCH, linewidths=0.7)
    handles += _plot_chunks(ax, source)
    pad = [0.02 * max(width, height) + margin for margin in picture.margin]
    right = max(width, left + covered[0])
    bottom = max(height, top + covered[1])
    ax.set(
        xlim=(-pad[0], right + pad[0]),
        ylim=(bottom + pad[1], -pad[1]),
        xlabel="x (pixels)",
        ylabel="y (pixels)",
        title=title,
    )
    # Very narrow rasters are stretched.
    ax.set_aspect("equal" if 1 / 6 <= right / bottom <= 6 else "auto")
    handles += _plot_inset(ax, picture, source)
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, frameon=False)
    return ax


def plot_sides(
    sides: Mapping[str, NDArray[np.bool_]],
    lost: NDArray[np.bool_] | None,
    patch: Pair,
    origin: Pair,
    size: Pair,
    title: str,
    ax: Axes | None = None,
    lost_label: str = "left out",
) -> Axes:
    """Draw which patches of a raster are in which side, with their proportions in the legend.

    Parameters
    ----------
    sides : mapping of str to ndarray of bool
        Whether each patch, (rows, columns), is in a side.
    lost : ndarray of bool, optional
        Whether each patch was left out.
    patch, origin, size : (x, y)
        Size of a patch, first pixel of the grid, and size of the raster, in pixels.
    title : str
        Title of the axes.
    ax : matplotlib.axes.Axes, optional
        Axes to draw to. Default: those of a new figure.
    lost_label : str
        What `lost` is called.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, in pixels of the raster.
    """
    ax = _new_axes(ax, (8, 5))
    from matplotlib.patches import Patch

    colored = colored_sides(sides, lost, lost_label)
    _show(ax, origin, patch, colored)
    _frame(ax, origin, size, "", facecolor="none", edgecolor=_text_color(), lw=1)
    handles = [
        Patch(facecolor=color, label=label)
        for (_, color, _), label in zip(colored, side_labels(sides, colored), strict=True)
    ]
    pad = 0.02 * max(size)
    right, bottom = (origin[axis] + size[axis] + pad for axis in (0, 1))
    ax.set(
        xlim=(origin[0] - pad, right),
        ylim=(bottom, origin[1] - pad),
        xlabel="x (pixels)",
        ylabel="y (pixels)",
    )
    ax.set_title(title)
    ax.set_aspect("equal" if 1 / 6 <= size[0] / size[1] <= 6 else "auto")
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, frameon=False)
    return ax


def side_labels(sides: Mapping[str, NDArray[np.bool_]], colored: Sequence[Colored]) -> list[str]:
    """Return the name and the number of patches of each side, and its proportion of the patches in sides.

    A single side is a part of all patches. Patches that are in no side have no proportion, so that those of
    the sides add up to 100 %.

    Examples
    --------
    >>> sides = {"train": np.array([[True, True, False]]), "test": np.array([[False, False, False]])}
    >>> side_labels(sides, colored_sides(sides, np.array([[False, False, True]])))
    ['train: 2 (100 %)', 'test: 0 (0 %)', 'left out: 1 of 3']
    """
    counts = [int(mask.sum()) for *_, mask in colored]
    whole = colored[0][2].size if len(sides) == 1 else max(1, sum(counts[: len(sides)]))
    return [
        f"{name}: {count:,} ({percent(count / whole)})"
        if at < len(sides)
        else f"{name}: {count:,} of {sum(counts):,}"
        for at, ((name, *_), count) in enumerate(zip(colored, counts, strict=True))
    ]


def mixed_colors(colored: Sequence[Colored]) -> NDArray[np.float32]:
    """Return an RGBA image of patches: cells of several patches have the mean of their colors.

    Examples
    --------
    >>> mixed_colors([("a", "#ff0000", np.array([[True, False]]))])[0].tolist()
    [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    rows, columns = colored[0][2].shape
    down, across = (np.arange(0, count, max(1, -(-count // _CELLS))) for count in (rows, columns))
    cells = np.outer(np.diff(down, append=rows), np.diff(across, append=columns))
    shares = np.stack(
        [
            np.add.reduceat(np.add.reduceat(mask, down, axis=0, dtype=np.int32), across, axis=1) / cells
            for *_, mask in colored
        ]
    )
    total = shares.sum(0)
    rgb = np.array([[int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for _, color, _ in colored])
    image = np.zeros((*total.shape, 4), np.float32)
    image[..., :3] = np.einsum("nyx,nc->yxc", shares, rgb) / np.where(total > 0, total, 1)[..., None]
    image[..., 3] = np.where(total > 0, 0.4 + 0.6 * np.minimum(total, 1), 0)  # single patches stay visible
    return image


def _show(ax: Axes, origin: Pair, patch: Pair, colored: Sequence[Colored]) -> None:
    image = mixed_colors(colored)
    rows, columns = colored[0][2].shape
    extent = (origin[0], origin[0] + columns * patch[0], origin[1] + rows * patch[1], origin[1])
    # Merged cells at the right and the bottom may stand for fewer patches.
    down, across = (max(1, -(-count // _CELLS)) for count in (rows, columns))
    left, right, bottom, top = extent
    right, bottom = left + image.shape[1] * across * patch[0], top + image.shape[0] * down * patch[1]
    drawn = ax.imshow(image, extent=(left, right, bottom, top), interpolation="nearest", aspect="auto")
    drawn.set_clip_path(_clip(ax, extent))


def _clip(ax: Axes, extent: tuple[float, float, float, float]) -> Any:
    from matplotlib.patches import Rectangle

    left, right, bottom, top = extent
    return Rectangle((left, top), right - left, bottom - top, transform=ax.transData)


def _frame(ax: Axes, origin: Pair, size: Pair, label: str, **style: Any) -> Any:
    """Add a rectangle."""
    from matplotlib.patches import Rectangle

    label = label and (f"{label}, {by(*size)} px" if label in ("raster", "region") else label)
    return ax.add_patch(Rectangle(origin, *size, label=label or "_", **style))


def _lines(ax: Axes, axis: int, edges: NDArray[Any], span: Pair, **style: Any) -> None:
    """Add lines at places of an axis, as a single artist."""
    from matplotlib.collections import LineCollection

    ends = np.empty((len(edges), 2, 2))
    ends[:, :, axis] = edges[:, None]
    ends[:, :, 1 - axis] = span
    ax.add_collection(LineCollection(list(ends), **style), autolim=False)


def _plot_dropped(ax: Axes, picture: GridPicture, source: SourcePicture) -> list[Any]:
    (columns, rows), (left, top) = picture.dropped, source.origin
    width, height = picture.raster
    style: dict[str, Any] = {"facecolor": DROPPED, "alpha": 0.45, "lw": 0}
    parts = []
    if columns:
        parts.append(_frame(ax, (left + width - columns, top), (columns, height), "dropped", **style))
    if rows:
        size = (width - columns, rows)
        parts.append(_frame(ax, (left, top + height - rows), size, "" if columns else "dropped", **style))
    return parts[:1]


def _plot_chunks(ax: Axes, source: SourcePicture) -> list[Any]:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"colors": _text_color(), "linewidths": 0.9, "linestyles": "--", "alpha": 0.65}
    merged, counts = False, []
    for axis, edges in enumerate((source.chunk_columns, source.chunk_rows)):
        inner = np.asarray(edges[1:-1])
        counts.append(len(inner) + 1)
        step = _step(len(inner))
        merged |= step > 1
        _lines(ax, axis, inner[step - 1 :: step], (0, source.size[1 - axis]), **style)
    if counts == [1, 1]:
        return []
    label = f"{counts[1]:,} × {counts[0]:,} chunks" + (", not all are drawn" if merged else "")
    return [Line2D([], [], color=_text_color(), alpha=0.65, lw=0.9, ls="--", label=label)]


def _plot_inset(ax: Axes, picture: GridPicture, source: SourcePicture) -> list[Any]:
    """Draw a patch enlarged, with its margin and its neighbors, in place and in an inset."""
    from matplotlib.patches import Patch

    column, row = (min(1, count - 1) for count in picture.patches)
    if source.selected is not None and source.selected.any():
        row, column = divmod(int(source.selected.argmax()), picture.patches[0])
    place = (
        source.origin[0] + column * picture.patch[0],
        source.origin[1] + row * picture.patch[1],
    )
    outer = (place[0] - picture.margin[0], place[1] - picture.margin[1])
    has_margin = picture.stored != picture.patch
    inset = ax.inset_axes((1.04, 0.02, 0.42, 0.42))
    for each in (ax, inset):
        if has_margin:
            _frame(each, outer, picture.stored, "", facecolor=MARGIN, alpha=0.35, lw=0)
            _frame(each, outer, picture.stored, "", facecolor="none", edgecolor=MARGIN, lw=1.2)
        _frame(each, place, picture.patch, "", facecolor=PATCH, alpha=0.8, lw=0)
    around = [0.18 * side for side in picture.stored]
    limits = [
        (begin - pad, begin + side + pad)
        for begin, side, pad in zip(outer, picture.stored, around, strict=True)
    ]
    for axis in (0, 1):
        begin = place[axis] - 2 * picture.patch[axis] - picture.margin[axis]
        edges = place[axis] + picture.patch[axis] * np.arange(-2, 4)
        first = source.origin[axis]
        edges = edges[(edges >= max(begin, first)) & (edges <= first + picture.covered[axis])]
        other = source.origin[1 - axis]
        _lines(inset, axis, edges, (other, other + picture.covered[1 - axis]), colors=PATCH, linewidths=0.7)
    inset.set(xlim=limits[0], ylim=limits[1][::-1], xticks=[], yticks=[])
    ratio = picture.stored[0] / picture.stored[1]
    inset.set_aspect("equal" if 1 / 6 <= ratio <= 6 else "auto", anchor="W")
    index = row * picture.patches[0] + column
    text = f"{picture.names[0]} {index:,}: {by(*picture.patch)} px"
    if has_margin:
        text += f"\nwith its margin {by(*picture.stored)} px"
    inset.set_title(text, fontsize="small", loc="left")
    ax.indicate_inset_zoom(inset, edgecolor=_text_color(), alpha=0.4)
    if not has_margin:
        return []
    return [Patch(facecolor=MARGIN, alpha=0.5, label=f"margin of a {picture.names[0]}")]


def _step(count: int) -> int:
    """Return how many intervals a drawn one represents: 1, 2, 5, 10, 20, 50, ..."""
    step = 1
    while count > step * _LINES:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _text_color() -> str:
    import matplotlib as mpl

    return str(mpl.rcParams["text.color"])
