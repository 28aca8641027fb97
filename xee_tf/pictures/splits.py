"""Draw the sides of a split over the raster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xee_tf.display import plot_sides
from xee_tf.errors import OptionError, shorten
from xee_tf.reading import ReadOptions, open_export
from xee_tf.sampling import PatchSelection, PatchSplit, on_grid
from xee_tf.sidecars import Exported

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["show_split"]


def show_split(
    sides: PatchSplit | Mapping[str, PatchSelection | Exported],
    *,
    ax: Axes | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Axes:
    """Draw which patches of a raster are in which side of a split, with their proportions in the legend.

    Parameters
    ----------
    sides : PatchSplit, or mapping of str to PatchSelection, ExportResult or path
        The sides: the result of `xee_tf.split_patches`; what ``tfexport(..., split=...)`` returned; or the
        export of each side, as for `xee_tf.open_image`. Of exports, only the manifests and one record are
        read.
    ax : matplotlib.axes.Axes, optional
        The axes to draw to. Default: those of a new figure.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, in pixels of the raster, with the first row at the top. Patches in no side are gray: those
        that were left out because they have pixels of two sides and, of exports, also those that were not
        used or were omitted because they are masked.

    Raises
    ------
    OptionError
        If `sides` is not one of these.
    GridMismatchError
        If the sides have different patches.
    MissingShardError
        If an export was not found.
    MissingExtraError
        If Matplotlib is not installed (extra ``plot``).

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.ones((160, 160), "float32"))}, attrs={"crs": "EPSG:32633"},
    ...                 coords={"y": 5e6 - 30 * np.arange(160.0), "x": 7e5 + 30 * np.arange(160.0)})
    >>> results = ds.tfexport(f"{tempfile.mkdtemp()}/scene", patch_dimensions=8,
    ...                       split={"train": 0.75, "test": 0.25})
    >>> ax = xee_tf.show_split(results)
    >>> [text.get_text().split(":")[0] for text in ax.get_legend().get_texts()]
    ['train', 'test']
    """
    if isinstance(sides, PatchSplit):
        return sides.plot(ax)
    given: Any = sides
    if not isinstance(given, Mapping) or not given:
        raise OptionError(
            "sides must be the result of xee_tf.split_patches, or a mapping of names to exports or "
            f"selections, such as {{'train': 'out/scene-train'}}; got {shorten(repr(sides))}."
        )
    found = {str(name): _selection(each, storage_options) for name, each in sides.items()}
    first = next(iter(found.values()))
    found = {name: on_grid(each, first.grid, f"sides[{name!r}]") for name, each in found.items()}
    taken = np.zeros_like(first.mask)
    for each in found.values():
        taken |= each.mask
    grid = first.grid
    return plot_sides(
        {name: each.mask for name, each in found.items()},
        ~taken,
        grid.patch.xy,
        grid.origin.xy,
        grid.shape.xy,
        "Sides of the split",
        ax,
        lost_label="in no side",
    )


def _selection(side: Any, storage_options: Mapping[str, Any] | None) -> PatchSelection:
    if isinstance(side, PatchSelection):
        return side
    export = open_export(side, ReadOptions(storage_options=storage_options))
    count = len(export.grid)
    return PatchSelection(export.grid, np.arange(count) if export.patches is None else export.patches)
