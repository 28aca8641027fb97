"""A set of patches of a grid, as training, samples and splits select them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xee_tf.display import SidesPicture, Summarized, Summary, by, counted, percent, plot_sides
from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import PatchGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PatchSelection", "place_of"]


@dataclass(frozen=True, repr=False, eq=False)
class PatchSelection(Summarized):
    """Some patches of a grid.

    Parameters
    ----------
    grid : PatchGrid
        All patches.
    patches : array-like of int
        The numbers of the selected patches in `grid`, in row-major order from 0. They are sorted, without
        repetitions, and read-only.

    Raises
    ------
    OptionError
        If `patches` are not integers in one dimension, or `grid` does not have a patch.

    Examples
    --------
    >>> import xee_tf
    >>> grid = xee_tf.PatchGrid(xee_tf.Size(x=489, y=443), xee_tf.Size(x=128, y=128))
    >>> selection = xee_tf.PatchSelection(grid, [4, 0, 5])
    >>> selection
    <xee_tf.PatchSelection 3 of 9 patches (33.3 %)>
      grid  3 rows × 3 columns of 128 × 128 px
    >>> selection.mask
    array([[ True, False, False],
           [False,  True,  True],
           [False, False, False]])
    """

    grid: PatchGrid
    patches: NDArray[np.int64]

    def __post_init__(self) -> None:
        given = np.asarray(self.patches)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise OptionError(
                "patches must be the numbers of patches, such as [0, 4, 5]; got "
                f"{shorten(repr(self.patches))}. Convert a mask with PatchSelection.from_mask(grid, mask)."
            )
        wrong = given[(given < 0) | (given >= len(self.grid))]
        if wrong.size:
            raise OptionError(
                f"There is no patch {wrong[0]}: the grid has {counted(len(self.grid), 'patch', 'patches')}, "
                "which are numbered from 0. Select patches of the same grid."
            )
        patches = np.unique(given.astype(np.int64))
        patches.setflags(write=False)
        object.__setattr__(self, "patches", patches)

    @classmethod
    def from_mask(cls, grid: PatchGrid, mask: ArrayLike) -> PatchSelection:
        """Select the patches at which a mask is true.

        Parameters
        ----------
        grid : PatchGrid
            All patches.
        mask : array-like of bool
            One value for each patch, of shape (rows, columns).

        Returns
        -------
        PatchSelection
            The selected patches.

        Raises
        ------
        OptionError
            If the mask has another shape or dtype.

        Examples
        --------
        >>> import xee_tf
        >>> grid = xee_tf.PatchGrid(xee_tf.Size(x=489, y=256), xee_tf.Size(x=128, y=128))
        >>> xee_tf.PatchSelection.from_mask(grid, [[True, False, True], [False, True, False]]).patches
        array([0, 2, 4])
        """
        values = np.asarray(mask)
        shape = (grid.rows, grid.patches_per_row)
        if values.shape != shape or values.dtype != bool:
            raise OptionError(
                f"The mask must be boolean with one value for each patch, of shape {shape}; got "
                f"{values.dtype} of shape {values.shape}."
            )
        return cls(grid, np.flatnonzero(values))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Whether each patch is selected: an array of shape (rows, columns)."""
        mask = np.zeros(len(self.grid), bool)
        mask[self.patches] = True
        return mask.reshape(self.grid.rows, self.grid.patches_per_row)

    @property
    def share(self) -> float:
        """The selected proportion of the patches."""
        return len(self) / len(self.grid)

    def contains(self, first: int, stop: int) -> NDArray[np.bool_]:
        """Return whether each of the consecutive patches ``first..stop`` is selected.

        Parameters
        ----------
        first, stop : int
            Number of the first patch, and of the patch after the last one.

        Returns
        -------
        ndarray of bool
            One value for each patch.

        Examples
        --------
        >>> import xee_tf
        >>> grid = xee_tf.PatchGrid(xee_tf.Size(x=489, y=443), xee_tf.Size(x=128, y=128))
        >>> xee_tf.PatchSelection(grid, [4, 0, 5]).contains(3, 6)
        array([False,  True,  True])
        """
        begin, end = np.searchsorted(self.patches, [first, stop])
        found = np.zeros(stop - first, bool)
        found[self.patches[begin:end] - first] = True
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the selected patches over the raster, with their proportion in the legend.

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
        >>> grid = xee_tf.PatchGrid(xee_tf.Size(x=489, y=443), xee_tf.Size(x=128, y=128))
        >>> ax = xee_tf.PatchSelection(grid, [4, 0, 5]).plot()
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['selected: 3 (33.3 %)']
        """
        return plot_sides({"selected": self.mask}, None, *place_of(self.grid), "Selected patches", ax)

    def __iter__(self) -> Iterator[int]:
        return iter(self.patches.tolist())

    def __len__(self) -> int:
        return len(self.patches)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PatchSelection):
            return NotImplemented
        return self.grid == other.grid and np.array_equal(self.patches, other.patches)

    def __hash__(self) -> int:
        return hash((self.grid, self.patches.tobytes()))

    def _summary(self) -> Summary:
        grid = self.grid
        whole = counted(len(grid), "patch", "patches")
        rows, columns = counted(grid.rows, "row"), counted(grid.patches_per_row, "column")
        text = f"{rows} × {columns} of {by(*grid.patch.xy)} px"
        if grid.stored != grid.patch:
            text += f", with margins {by(*grid.stored.xy)}"
        detail = f"{len(self):,} of {whole} ({percent(self.share)})"
        picture = SidesPicture({"selected": self.mask}, grid.patch.xy)
        return Summary("PatchSelection", detail, [("grid", text)], picture=picture)


def place_of(grid: PatchGrid) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return the size of a patch, the first pixel, and the size in pixels that a drawing of a grid needs."""
    return grid.patch.xy, grid.origin.xy, grid.shape.xy
