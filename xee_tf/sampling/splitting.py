"""Divide patches into parts that have no pixel in common, such as for training and testing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.display import SidesPicture, Summarized, Summary, by, counted, percent, plot_sides, quoted
from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import PatchGrid, Size
from xee_tf.options import check_flags, integer, is_number
from xee_tf.sampling.grids import candidates
from xee_tf.sampling.patch_blocks import PatchBlock, block_numbers, block_size, reach
from xee_tf.sampling.patch_classes import count_classes
from xee_tf.sampling.patch_polygons import PatchPolygons, is_geometry
from xee_tf.sampling.randomness import random_numbers
from xee_tf.sampling.selection import PatchSelection, place_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PatchSplit", "check_shares", "check_side_names", "require_no_common_pixel", "split_patches"]

_COMPARED = 3  # sides, of which all orders are compared
_NO_SIDE = -1
_BORDER = -2


@dataclass(frozen=True, repr=False, eq=False)
class PatchSplit(Summarized, Mapping[str, PatchSelection]):
    """Patches that are divided into sides without a common pixel: a mapping from side to `PatchSelection`.

    Parameters
    ----------
    grid : PatchGrid
        All patches.
    sides : mapping of str to PatchSelection
        The patches of each side.
    lost : PatchSelection
        The patches that were left out, because they have pixels of another side.
    block : Size, optional
        Size of the blocks in patches; None if the sides are polygons.

    Examples
    --------
    >>> import xee_tf
    >>> grid = xee_tf.PatchGrid(xee_tf.Size(x=640, y=640), xee_tf.Size(x=16, y=16), xee_tf.Size(x=4, y=4))
    >>> split = xee_tf.split_patches(grid, {"train": 0.8, "test": 0.2})
    >>> list(split), split.lost_share < 0.2
    (['train', 'test'], True)
    """

    grid: PatchGrid
    sides: Mapping[str, PatchSelection]
    lost: PatchSelection
    block: Size | None = None

    def __getitem__(self, side: str) -> PatchSelection:
        return self.sides[side]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sides)

    def __len__(self) -> int:
        return len(self.sides)

    @property
    def lost_share(self) -> float:
        """The proportion of the patches that were left out, of those that a side would have had."""
        kept = sum(map(len, self.sides.values()))
        return len(self.lost) / max(1, kept + len(self.lost))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the sides over the raster, and in gray the patches that were left out at their borders.

        The legend has the number and the proportion of the patches of each side. Patches that were not
        candidates, or are not used, have no color. To draw the sides of exports, use `xee_tf.show_split`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The axes to draw to. Default: those of a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, in pixels of the raster, with the first row at the top.

        Raises
        ------
        MissingExtraError
            If Matplotlib is not installed (extra ``plot``).

        Examples
        --------
        >>> import xee_tf
        >>> grid = xee_tf.PatchGrid(xee_tf.Size(x=640, y=640), xee_tf.Size(x=16, y=16), xee_tf.Size(x=4, y=4))
        >>> ax = xee_tf.split_patches(grid, {"train": 0.8, "test": 0.2}, block=8).plot()
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['train: 1,161 (78.4 %)', 'test: 320 (21.6 %)', 'left out: 119 of 1,600']
        """
        return plot_sides(self._masks(), self.lost.mask, *place_of(self.grid), "Sides of the split", ax)

    def _masks(self) -> dict[str, NDArray[np.bool_]]:
        return {side: chosen.mask for side, chosen in self.sides.items()}

    def _summary(self) -> Summary:
        kept = sum(map(len, self.sides.values()))
        rows = [
            (side, f"{counted(len(chosen), 'patch', 'patches')} ({percent(len(chosen) / max(1, kept))})")
            for side, chosen in self.sides.items()
        ]
        of = counted(kept + len(self.lost), "patch", "patches")
        rows.append(("left out", f"{len(self.lost):,} of {of}, at borders"))
        if self.block is not None:
            rows.append(("blocks", f"{by(*self.block.xy)} patches"))
        whole = counted(len(self.grid), "patch", "patches")
        picture = SidesPicture(self._masks(), self.grid.patch.xy, self.lost.mask)
        return Summary("PatchSplit", f"of {whole}", rows, picture=picture)


def split_patches(
    patches: Any,
    sides: Any,
    *,
    block: PatchBlock | None = None,
    column: str | None = None,
    class_band: xr.DataArray | None = None,
    seed: int = 0,
    kernel_size: Any = None,
    progress: bool = False,
) -> PatchSplit:
    """Divide patches into sides, such as for training, validation and testing, without a common pixel.

    Neighboring patches are similar, and with a kernel they have pixels in common: a random split of single
    patches makes scores too good. Here, whole blocks of patches are assigned to sides at random, or patches
    to the polygons in which they are. Patches whose window, margin included, overlaps that of a patch of
    another side are left out. They are taken from the side for which the proportions stay closest to those
    that were asked for (with more than three sides, not all orders are compared) or, with polygons, from the
    side with more patches.

    Parameters
    ----------
    patches : PatchGrid, PatchSelection, ExportPlan, ExportResult or Mixer
        The patches to divide; a selection divides only its patches.
    sides : mapping or GeoDataFrame
        * Proportions of the patches, ``{"train": 0.7, "val": 0.15, "test": 0.15}``. If their sum is below 1,
          the other patches are not used.
        * Polygons of each side, ``{"train": geometries, "test": geometries}``: GeoDataFrames, GeoSeries, or
          GeoJSON in EPSG:4326. A patch belongs to the side with its center, and is left out if its stored
          window intersects a polygon of another side.
        * A GeoDataFrame or a GeoJSON FeatureCollection of polygons, in which `column` names the sides.
    block : int or (width, height), optional
        Size of a block in patches. None in a pair means the whole width or height of the grid:
        ``(4, None)`` assigns stripes of 4 columns. Larger blocks lose fewer patches. Default: 8, or less if
        there would be fewer than about 30 blocks, but at least four times as far as margins reach if the grid
        is large enough.
    column : str, optional
        Column of the polygons that contains the names of the sides.
    class_band : DataArray, optional
        A band of labels on the raster of the patches. Blocks are then assigned so that each side has about
        its proportion of the pixels of each class. The band is read when the function is called.
    seed : int, default 0
        Seed of the assignment of blocks.
    kernel_size : int or (width, height), optional
        Kernel of the export that wrote a mixer, which does not contain it.
    progress : bool, default False
        Whether to show a progress bar while `class_band` is read.

    Returns
    -------
    PatchSplit
        A mapping from side to `PatchSelection`, which shows how many patches were left out.

    Raises
    ------
    OptionError
        If an option is not supported, or no patch is left for a side.
    GeoreferenceError
        If polygons or the grid have no CRS.
    GridMismatchError
        If `class_band` is on another grid.

    Examples
    --------
    >>> import xee_tf
    >>> grid = xee_tf.PatchGrid(xee_tf.Size(x=2560, y=2560), xee_tf.Size(x=64, y=64), xee_tf.Size(x=8, y=8))
    >>> split = xee_tf.split_patches(grid, {"train": 0.7, "val": 0.15, "test": 0.15}, seed=1)
    >>> split
    <xee_tf.PatchSplit of 1,600 patches>
      train     955 patches (68 %)
      val       231 patches (16.5 %)
      test      218 patches (15.5 %)
      left out  196 of 1,600 patches, at borders
      blocks    7 × 7 patches
    >>> split["test"].patches[:3]
    array([560, 561, 562])

    Stripes of 10 columns:

    >>> stripes = xee_tf.split_patches(grid, {"train": 0.75, "test": 0.25}, block=(10, None))
    >>> stripes["test"].mask[0].nonzero()[0]
    array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    check_flags(progress=progress)
    seed = integer()(seed, "seed")
    chosen = candidates(patches, kernel_size)
    grid = chosen.grid
    size, shares = None, None
    if isinstance(sides, Mapping) and sides and all(map(is_number, sides.values())):
        names, shares = _shares(sides)
        if column is not None:
            raise OptionError(f"column={column!r} is only for polygons: omit it for proportions of patches.")
        size = block_size(block, grid, len(chosen))
        of_patch = _by_block(chosen, size, shares, seed, class_band, progress)
    else:
        if block is not None or class_band is not None:
            raise OptionError(
                "block and class_band are only for proportions, such as {'train': 0.8, 'test': 0.2}: omit "
                "them for polygons."
            )
        names, polygons, of_polygon = _side_polygons(sides, column, grid)
        of_patch = _by_polygon(polygons, of_polygon)
    of_patch = np.where(chosen.mask, of_patch.reshape(chosen.mask.shape), _NO_SIDE)
    of_patch = _without_leaks(of_patch, len(names), reach(grid), shares)
    found = {name: PatchSelection.from_mask(grid, of_patch == number) for number, name in enumerate(names)}
    _require_patches(found, size, len(chosen))
    return PatchSplit(grid, found, PatchSelection.from_mask(grid, of_patch == _BORDER), size)


def check_shares(sides: Any, name: str) -> None:
    """Check that an option has the proportions of sides."""
    if not isinstance(sides, Mapping) or not sides or not all(map(is_number, sides.values())):
        raise OptionError(
            f"{name} must be a mapping of names to proportions, such as {{'train': 0.7, 'val': 0.15, "
            f"'test': 0.15}}; got {shorten(repr(sides))}."
        )
    _shares(sides, name)


def _shares(sides: Mapping[Any, Any], name: str = "sides") -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the names and the proportions of sides."""
    shares = np.array([float(share) for share in sides.values()])
    check_side_names(sides, name)
    if not (np.isfinite(shares) & (shares > 0)).all() or shares.sum() > 1 + 1e-9:
        raise OptionError(
            f"{name} must be proportions above 0 with a sum of at most 1, such as {{'train': 0.8, "
            f"'test': 0.2}}; got {shorten(repr(dict(sides)))}."
        )
    return tuple(sides), shares


_NOT_IN_NAMES = frozenset('/\\:*?[]"<>|')  # in names of files on some systems, and in patterns of files


def check_side_names(names: Collection[Any], name: str) -> None:
    """Check names of sides, which are part of file names."""
    for each in names:
        if not isinstance(each, str) or not each.isprintable() or not each or set(each) & _NOT_IN_NAMES:
            raise OptionError(
                f"{name} must have names that can be part of a file name, such as 'train'; got {each!r}."
            )
    first_of: dict[str, str] = {}
    for each in names:
        other = first_of.setdefault(each.casefold(), each)
        if other != each:
            raise OptionError(
                f"{name} has the names {other!r} and {each!r}, which differ only in case: their files would "
                "be the same on some disks. Use different names."
            )


def _by_block(
    chosen: PatchSelection,
    size: Size,
    shares: NDArray[np.float64],
    seed: int,
    class_band: xr.DataArray | None,
    progress: bool,
) -> NDArray[np.int64]:
    """Assign the blocks of patches to sides at random; return the side of each patch."""
    blocks = block_numbers(chosen.grid, size).ravel()
    sizes = np.bincount(blocks[chosen.patches], minlength=blocks.max() + 1)
    used = np.flatnonzero(sizes)
    order = used[np.argsort(random_numbers(seed, used), kind="stable")]
    side_of = np.full(len(sizes), _NO_SIDE)
    if class_band is None:
        # The middle of a block, on a line of all blocks, is in the part of its side.
        middles = (np.cumsum(sizes[order]) - sizes[order] / 2) / sizes.sum()
        side_of[order] = np.searchsorted(np.cumsum(shares), middles, side="right")
    else:
        found = count_classes(class_band, chosen.grid, progress=progress)
        weights = np.zeros((len(sizes), 1 + len(found.classes)))
        weights[:, 0] = sizes
        kept = chosen.mask.ravel()[found.patches]
        np.add.at(weights, (blocks[found.patches[kept]], 1 + found.codes[kept]), found.counts[kept])
        side_of[order] = _stratified(weights[order], shares)
    side_of[side_of >= len(shares)] = _NO_SIDE
    return side_of[blocks]


def _stratified(weights: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Assign blocks to sides, so that each side has about its share of each column of `weights`.

    The block with the largest part of any column is next, and the side that lacks its contents most gets it.
    """
    rest = 1 - shares.sum()
    wanted = shares if rest < 1e-9 else np.append(shares, rest)
    totals = weights.sum(axis=0)
    parts = weights[:, totals > 0] / totals[totals > 0]
    filled = np.zeros((len(wanted), parts.shape[1]))
    found = np.zeros(len(weights), np.int64)
    for block in np.argsort(-parts.max(axis=1), kind="stable"):
        lacking = (1 - filled / wanted[:, None]) @ parts[block]
        side = int(np.lexsort((-wanted, -lacking))[0])
        filled[side] += parts[block]
        found[block] = side
    return found


def _side_polygons(
    sides: Any, column: str | None, grid: PatchGrid
) -> tuple[tuple[str, ...], PatchPolygons, NDArray[np.int64]]:
    """Return the names of the sides, all polygons, and the number of the side of each polygon."""
    if column is not None:
        polygons = PatchPolygons.of(sides, grid, "sides", column)
        names = tuple(dict.fromkeys(polygons.values.tolist()))
        check_side_names(names, f"The column {column!r}")
        return names, polygons, np.array([names.index(value) for value in polygons.values], np.int64)
    if not isinstance(sides, Mapping) or not sides or is_geometry(sides):
        fix = " Pass column=, the column that names the side of each polygon." if is_geometry(sides) else ""
        raise OptionError(
            "sides must be a mapping of names to proportions or to polygons, such as {'train': 0.8, 'test': "
            f"0.2}}; got {shorten(repr(sides))}.{fix}"
        )
    check_side_names(sides, "sides")
    parts = [PatchPolygons.of(given, grid, f"sides[{name!r}]") for name, given in sides.items()]
    merged = PatchPolygons(
        grid, np.concatenate([part.shapes for part in parts]), np.concatenate([part.values for part in parts])
    )
    return tuple(sides), merged, np.repeat(np.arange(len(parts)), [len(part.shapes) for part in parts])


def _by_polygon(polygons: PatchPolygons, of_polygon: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the side of each patch: that of the polygon with its center, if it meets no other side."""
    found = np.full(len(polygons.grid), _NO_SIDE)
    patches, shapes = polygons.centers()
    found[patches] = of_polygon[shapes]
    patches, shapes = polygons.touched(halo=True)
    other = patches[(found[patches] != _NO_SIDE) & (found[patches] != of_polygon[shapes])]
    found[other] = _BORDER
    return found


def _without_leaks(
    of_patch: NDArray[np.int64], sides: int, near: Size, shares: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """Leave out the patches that have pixels of another side.

    The sides keep their patches in turn. All orders of a few sides are compared; otherwise the side with the
    fewest patches is first.
    """
    counts = [int((of_patch == side).sum()) for side in range(sides)]
    orders = [sorted(range(sides), key=lambda side: (counts[side], -side))]
    if shares is not None and sides <= _COMPARED and near != Size(x=0, y=0):
        orders += [list(order) for order in permutations(range(sides)) if list(order) != orders[0]]
    found = [_keep_in_turn(of_patch, order, near) for order in orders]
    if shares is None or len(found) == 1:
        return found[0]
    return min(found, key=lambda one: _distance(one, shares))


def _keep_in_turn(of_patch: NDArray[np.int64], order: Sequence[int], near: Size) -> NDArray[np.int64]:
    found = of_patch.copy()
    taken = np.zeros(of_patch.shape, bool)
    for side in order:
        own = of_patch == side
        lost = own & _widened(taken, near)
        found[lost] = _BORDER
        taken |= own & ~lost
    return found


def require_no_common_pixel(sides: Mapping[str, PatchSelection], name: str) -> None:
    """Raise an error if a patch of one side, with its margin, has a pixel of a patch of another side."""
    earlier: list[tuple[str, NDArray[np.bool_]]] = []
    for side, chosen in sides.items():
        mask = chosen.mask
        for other, near in earlier:
            common = np.flatnonzero(mask & near)
            if common.size:
                raise OptionError(
                    f"{name}[{other!r}] and {name}[{side!r}] have common pixels: patch {common[0]} of the "
                    "second is also in the first, or overlaps a patch of it, margins included. Use "
                    "split_patches, which leaves out such patches, or other selections."
                )
        earlier.append((side, _widened(mask, reach(chosen.grid))))


def _distance(of_patch: NDArray[np.int64], shares: NDArray[np.float64]) -> float:
    """Return how far the proportions of the sides are from `shares`: 0 if they are equal."""
    counts = np.array([(of_patch == side).sum() for side in range(len(shares))])
    if not counts.all():
        return np.inf
    return float(np.abs(np.log(counts / counts.sum() * shares.sum() / shares)).max())


def _widened(mask: NDArray[np.bool_], near: Size) -> NDArray[np.bool_]:
    """Return where a rectangle around each place, `near` patches to every side, has a true value."""
    for axis, far in enumerate(near.shape):
        if far:
            sums = np.cumsum(mask, axis=axis)
            length = mask.shape[axis]
            places = np.arange(length)
            last = np.take(sums, np.minimum(places + far, length - 1), axis=axis)
            before = np.take(sums, np.maximum(places - far - 1, 0), axis=axis)
            first = np.expand_dims(places - far - 1 < 0, 1 - axis)
            mask = last - np.where(first, 0, before) > 0
    return mask


def _require_patches(found: Mapping[str, PatchSelection], block: Size | None, patches: int) -> None:
    empty = [name for name, chosen in found.items() if not len(chosen)]
    if not empty:
        return
    if block is None:
        fix = "Check the CRS and the place of its polygons, which must contain centers of patches."
    else:
        fix = (
            "Use smaller or more patches, or a smaller kernel"
            f"{'' if block.pixels == 1 else f', or blocks of fewer than {by(*block.xy)} patches'}."
        )
    raise OptionError(
        f"No patch is left for {quoted(empty)}, of {counted(patches, 'patch', 'patches')} in all. {fix}"
    )
