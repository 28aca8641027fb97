"""Select patches at random: a number, in polygons, of each class, or of each block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.display import abbreviated
from xee_tf.errors import OptionError, shorten, warn
from xee_tf.geometry import PatchGrid
from xee_tf.options import check_flags, integer, is_number
from xee_tf.sampling.grids import candidates
from xee_tf.sampling.patch_blocks import PatchBlock, block_numbers, block_size
from xee_tf.sampling.patch_classes import PatchClasses, count_classes
from xee_tf.sampling.patch_polygons import PatchPolygons
from xee_tf.sampling.randomness import random_numbers
from xee_tf.sampling.selection import PatchSelection

__all__ = ["sample_patches"]

Numbers = NDArray[np.int64]


def sample_patches(
    patches: Any,
    n: float | Mapping[Any, int] | None = None,
    *,
    polygons: Any = None,
    all_touched: bool = False,
    per_block: int | None = None,
    block: PatchBlock | None = None,
    class_band: xr.DataArray | None = None,
    seed: int = 0,
    kernel_size: Any = None,
    progress: bool = False,
) -> PatchSelection:
    """Select patches at random: a number, in polygons, of each class, or of each block.

    The options are applied in their order here, first `polygons`, then `per_block`, and `n` last. The same
    patches and seed give the same selection, whatever the chunks of the raster.

    Parameters
    ----------
    patches : PatchGrid, PatchSelection, ExportPlan, ExportResult or Mixer
        The patches to select from.
    n : int, float or mapping of class to int, optional
        An integer is the number of patches, all if there are fewer, with a warning; a float up to 1.0 is
        their proportion. With `class_band`, the number of patches that hold each class, or a mapping of some
        classes to their numbers. Default: all.
    polygons : GeoDataFrame, GeoSeries or GeoJSON-like, optional
        Select only patches whose center is in a polygon. GeoJSON is in EPSG:4326.
    all_touched : bool, default False
        Whether to select all patches that have pixels in a polygon, without their margins.
    per_block : int, optional
        Select at most this number of patches in each block of patches, so that they are spread evenly.
    block : int or (width, height), optional
        Size of a block in patches, as for `split_patches`.
    class_band : DataArray, optional
        A band of labels on the raster of the patches. A patch holds a class if any of its pixels, without the
        margin, has it. Rare classes are first, and patches that were selected for one class count for the
        others. The band is read when the function is called.
    seed : int, default 0
        Random seed.
    kernel_size : int or (width, height), optional
        Kernel of the export that wrote a mixer, which does not contain it.
    progress : bool, default False
        Whether to show a progress bar while `class_band` is read.

    Returns
    -------
    PatchSelection
        The selected patches.

    Raises
    ------
    OptionError
        If an option is not supported, or no patch is selected.
    GeoreferenceError
        If `polygons` or the grid have no CRS.
    GridMismatchError
        If `class_band` is on another grid.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xee_tf
    >>> grid = xee_tf.PatchGrid(xee_tf.Size(x=640, y=640), xee_tf.Size(x=64, y=64))
    >>> xee_tf.sample_patches(grid, 4, seed=1).patches
    array([ 9, 20, 47, 67])
    >>> len(xee_tf.sample_patches(grid, 0.25)), len(xee_tf.sample_patches(grid, per_block=1, block=5))
    (25, 4)

    Patches that hold each class:

    >>> cover = xr.DataArray(np.zeros((640, 640), "uint8"), dims=("y", "x"), name="cover",
    ...                      coords={"y": 5e6 - 30 * np.arange(640.0), "x": 7e5 + 30 * np.arange(640.0)})
    >>> cover[100, 200] = 1
    >>> plan = xee_tf.plan_export(cover, patch_dimensions=64, crs="EPSG:32633")
    >>> xee_tf.sample_patches(plan, {0: 2, 1: 1}, class_band=cover.rio.write_crs("EPSG:32633")).patches
    array([13, 48])
    """
    check_flags(all_touched=all_touched, progress=progress)
    seed = integer()(seed, "seed")
    chosen = candidates(patches, kernel_size)
    grid, numbers = chosen.grid, chosen.patches
    random = np.empty(len(grid), np.uint64)
    random[numbers] = random_numbers(seed, numbers)
    if polygons is not None:
        shapes = PatchPolygons.of(polygons, grid, "polygons")
        inside, _ = shapes.touched() if all_touched else shapes.centers()
        numbers = np.intersect1d(numbers, inside)
    elif all_touched:
        raise OptionError("all_touched=True is only for polygons: pass polygons=, or omit it.")
    if per_block is not None:
        numbers = _of_each_block(numbers, grid, block, integer(1)(per_block, "per_block"), random)
    elif block is not None:
        raise OptionError(f"block={block!r} is only for per_block: pass per_block=1, or omit block.")
    if class_band is not None:
        numbers = _of_each_class(numbers, count_classes(class_band, grid, progress=progress), n, random)
    elif n is not None:
        numbers = numbers[np.argsort(random[numbers], kind="stable")[: _count(n, len(numbers))]]
    if not len(numbers):
        where = " in the polygons" if polygons is not None else ""
        hint = " Use all_touched=True for patches that they touch." if where and not all_touched else ""
        raise OptionError(f"No patch is selected{where}, of {len(chosen):,} in all.{hint}")
    return PatchSelection(grid, numbers)


def _count(n: Any, available: int) -> int:
    """Return the number of patches that `n` means."""
    if isinstance(n, Mapping):
        raise OptionError(
            "n is given for each class: pass the band that holds the classes as class_band=, or a number."
        )
    if isinstance(n, float | np.floating) and 0 < n <= 1:
        return max(1, round(n * available))
    if is_number(n):
        number = integer(1)(n, "n")
        if number > available:
            warn(f"n={number:,} patches were asked for, but there are only {available:,}: all were selected.")
        return number
    raise OptionError(
        f"n must be a number of patches, such as 1000, or a proportion, such as 0.1; got {shorten(repr(n))}."
    )


def _of_each_block(
    numbers: Numbers, grid: PatchGrid, block: Any, most: int, random: NDArray[np.uint64]
) -> Numbers:
    """Select the patches with the smallest random numbers of each block."""
    blocks = block_numbers(grid, block_size(block, grid, len(numbers))).ravel()[numbers]
    order = np.lexsort((random[numbers], blocks))
    starts = np.flatnonzero(np.diff(blocks[order], prepend=-1))
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return numbers[np.sort(order[ranks < most])]


def _of_each_class(numbers: Numbers, found: PatchClasses, n: Any, random: NDArray[np.uint64]) -> Numbers:
    """Select patches until each class is in enough of them; the rarest class is first."""
    if n is None:
        raise OptionError("class_band= needs n=, the number of patches that hold each class, such as n=100.")
    known = np.isin(found.patches, numbers)
    patches, codes = found.patches[known], found.codes[known]
    frequency = np.bincount(codes, minlength=len(found.classes))
    classes = found.classes.tolist()
    if isinstance(n, Mapping):
        quota = {each: integer(0)(count, f"n[{each!r}]") for each, count in n.items()}
        missing = [each for each in quota if each not in classes or not frequency[classes.index(each)]]
        if missing:
            raise OptionError(
                f"n has the class {missing[0]!r}, which no patch holds; the classes are "
                f"{abbreviated(classes)}."
            )
    else:
        quota = dict.fromkeys(classes, integer(1)(n, "n"))
    short = [
        f"{each:.15g} ({found:,} of {quota[each]:,})"
        for each, found in zip(classes, frequency.tolist(), strict=True)
        if found < quota.get(each, 0)
    ]
    if short:
        warn(
            "Classes are in fewer patches than n asks for, so all of these were selected: "
            f"{abbreviated(short)}."
        )
    chosen = np.zeros(len(random), bool)
    for code in np.argsort(frequency, kind="stable").tolist():
        holders = patches[codes == code]
        left = quota.get(classes[code], 0) - int(chosen[holders].sum())
        others = holders[~chosen[holders]]
        chosen[others[np.argsort(random[others], kind="stable")[: max(0, left)]]] = True
    return np.flatnonzero(chosen)
