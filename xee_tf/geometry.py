"""Patch geometry: a regular grid of patches, each with a margin, over a raster.

Integer and affine arithmetic only; no xarray, no Dask, no TensorFlow. Export, reading and prediction all use
this module to compute which pixels belong to a patch and where the patch is located.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, get_args

from affine import Affine

from xee_tf.errors import OptionError, shorten
from xee_tf.options import one_of

__all__ = ["Edge", "PatchAxis", "PatchGrid", "Size", "Window"]

Edge = Literal["drop", "pad"]

_IDENTITY = Affine.identity()


_LONGEST = 2**31 - 1  # the longest side of a raster in GDAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A width and a height in pixels, with unambiguous axis order.

    Earth Engine uses the order (x, y); numpy and xarray use (y, x). `from_xy` converts options once; all
    other code uses ``.x``, ``.y`` or ``.shape``.

    Parameters
    ----------
    x, y : int
        Pixels along x (width) and along y (height).

    Examples
    --------
    >>> size = Size(x=489, y=443)
    >>> size.shape
    (443, 489)
    """

    x: int
    y: int

    @classmethod
    def from_xy(
        cls, value: SupportsIndex | Sequence[SupportsIndex] | Size, name: str, *, least: Literal[0, 1] = 1
    ) -> Size:
        """Parse an option in Earth Engine's order (width, height).

        Parameters
        ----------
        value : int, sequence of int or Size
            ``(width, height)``; a single number means a square, as in Earth Engine.
        name : str
            Name of the option, for the error message.
        least : {0, 1}, default 1
            Minimum length of each side, in pixels.

        Returns
        -------
        Size

        Raises
        ------
        OptionError
            If `value` is not one or two integers, or a side is shorter than `least` or longer than in any
            raster.

        Examples
        --------
        >>> Size.from_xy((256, 128), "patch_dimensions")
        Size(x=256, y=128)
        >>> Size.from_xy(64, "kernel_size")
        Size(x=64, y=64)
        """
        try:
            if isinstance(value, Size):
                given: list[Any] = [*value.xy]
            elif isinstance(value, SupportsIndex) and not isinstance(value, Sequence):
                given = [value]
            else:
                given = list(value)
            if len(given) not in (1, 2) or bool in map(type, given):
                raise TypeError
            sides = [operator.index(side) for side in given]
        except TypeError:
            side = 32 if "kernel" in name or "overlap" in name else 256
            raise OptionError(
                f"{name} must be an integer or a pair of integers (width, height), for example "
                f"({side}, {side}); got {shorten(repr(value))}."
            ) from None
        size = cls(x=sides[0], y=sides[-1])
        if min(sides) < least:
            rule = "must be at least 1 pixel on each side" if least else "cannot be negative"
            raise OptionError(f"{name} {rule}; got {size.xy}.")
        if max(sides) > _LONGEST:
            raise OptionError(
                f"{name} must be at most {_LONGEST:,} pixels on each side; got {shorten(repr(value))}."
            )
        return size

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x): the shape of a numpy array of this size."""
        return (self.y, self.x)

    @property
    def xy(self) -> tuple[int, int]:
        """(x, y): Earth Engine's order."""
        return (self.x, self.y)

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.x * self.y

    def with_margin(self, margin: Size) -> Size:
        """Return the size with `margin` added on every side.

        Parameters
        ----------
        margin : Size
            Margin in pixels.

        Returns
        -------
        Size
            Size of the patch with its margin.

        Examples
        --------
        >>> Size(x=128, y=64).with_margin(Size(x=16, y=2))
        Size(x=160, y=68)
        """
        return Size(x=self.x + 2 * margin.x, y=self.y + 2 * margin.y)

    @property
    def window(self) -> Window:
        """All pixels of a raster of this size."""
        return Window(0, self.y, 0, self.x)


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open rectangle of pixels; it may extend beyond the raster.

    Parameters
    ----------
    top, bottom, left, right : int
        Rows ``top <= y < bottom`` and columns ``left <= x < right``.

    Examples
    --------
    >>> Window(-2, 6, 254, 264).shape
    (8, 10)
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(x=self.right - self.left, y=self.bottom - self.top)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return (self.bottom - self.top, self.right - self.left)

    @property
    def slices(self) -> tuple[slice, slice]:
        """(y, x) slices; valid only if the window lies inside the array."""
        return (slice(self.top, self.bottom), slice(self.left, self.right))

    @property
    def is_empty(self) -> bool:
        """Whether the window has no pixels."""
        return self.bottom <= self.top or self.right <= self.left

    def intersection(self, other: Window) -> Window:
        """Return the intersection with another window; an empty window if they do not overlap.

        Parameters
        ----------
        other : Window
            The other window, in the same pixels.

        Returns
        -------
        Window
            The common pixels.

        Examples
        --------
        >>> Window(-2, 6, 254, 264).intersection(Size(x=256, y=256).window)
        Window(top=0, bottom=6, left=254, right=256)
        """
        return Window(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )


@dataclass(frozen=True, slots=True)
class PatchAxis:
    """The patches along one axis, in pixels of the source raster.

    Parameters
    ----------
    start : int
        First pixel of the first patch.
    patch, margin, count : int
        Patch size in pixels, margin on either side in pixels, and number of patches.
    """

    start: int
    patch: int
    margin: int
    count: int

    def core(self, first: int, last: int | None = None) -> tuple[int, int]:
        """Return the half-open pixel range of patches `first` to `last` (inclusive), without margins."""
        last = first if last is None else last
        return self.start + first * self.patch, self.start + (last + 1) * self.patch

    def halo(self, first: int, last: int | None = None) -> tuple[int, int]:
        """Return the range of `core` extended by the margin on either side."""
        begin, end = self.core(first, last)
        return begin - self.margin, end + self.margin


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """A regular grid of patches over a raster.

    Patches are numbered in row-major order, ``index = row * columns + column``, with rows from top to bottom
    and columns from left to right (the order of Earth Engine's records). `core` is the window of a patch;
    `halo` is `core` with the margin around it.

    Parameters
    ----------
    shape : Size
        Size of the covered area in pixels: the raster, or the selected region of it.
    patch : Size
        Size of a patch in pixels, without its margin (Earth Engine's ``patchDimensions``).
    margin : Size, optional
        Pixels added on every side of a patch: half the kernel, see `margin_of`.
    affine : Affine, optional
        Maps pixel coordinates (column, row) of the grid to coordinates in `crs`. North-up, south-up and
        sheared grids are supported.
    crs : str, optional
        The coordinate reference system, as an authority string ("EPSG:32119") or WKT.
    edge : {"drop", "pad"}, optional
        How to handle incomplete patches at the right and bottom edges. "drop" omits them, as Earth Engine
        does; "pad" keeps them and fills them with masked pixels (not available in Earth Engine).
    origin : Size, optional
        Offset of the grid in the source raster, in pixels; nonzero for a region.

    Raises
    ------
    OptionError
        If a side is not positive, a margin is negative, or a patch is larger than the raster.

    Examples
    --------
    >>> grid = PatchGrid(Size(x=489, y=443), Size(x=128, y=128), Size(x=16, y=16))
    >>> len(grid), grid.patches_per_row, grid.rows
    (9, 3, 3)
    >>> grid.core(4)
    Window(top=128, bottom=256, left=128, right=256)
    >>> grid.halo(0)
    Window(top=-16, bottom=144, left=-16, right=144)
    >>> grid.stored.shape
    (160, 160)
    >>> grid.dropped
    Size(x=105, y=59)
    """

    shape: Size
    patch: Size
    margin: Size = Size(x=0, y=0)
    affine: Affine = _IDENTITY
    crs: str | None = None
    edge: Edge = "drop"
    origin: Size = Size(x=0, y=0)

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            length, patch, margin = (getattr(s, name) for s in (self.shape, self.patch, self.margin))
            side = "wide" if name == "x" else "high"
            if length < 1:
                raise OptionError(f"The raster has no pixels: it is {length} {side}.")
            if patch < 1:
                raise OptionError(f"A patch must be at least 1 pixel {side}; got {patch}.")
            if margin < 0:
                raise OptionError(f"A margin cannot be negative; got {margin} pixels along {name}.")
            if patch > length and self.edge == "drop":
                raise OptionError(
                    f"A patch of {patch} pixels does not fit: the raster is only {length} {side}. "
                    f"Use a smaller patch, or keep incomplete patches with edge='pad'."
                )
        one_of("edge", self.edge, get_args(Edge))

    @staticmethod
    def margin_of(kernel: Size) -> Size:
        """Return the margin for a kernel: half its size, rounded down, on every side.

        Earth Engine's guide gives the stored side as patch + kernel, and its default kernel of 1 stores
        exactly the patch: both agree with ``patch + 2 * (kernel // 2)``.

        Parameters
        ----------
        kernel : Size
            Size of the kernel in pixels.

        Returns
        -------
        Size
            Margin in pixels.

        Examples
        --------
        >>> PatchGrid.margin_of(Size(x=32, y=5))
        Size(x=16, y=2)
        """
        return Size(x=kernel.x // 2, y=kernel.y // 2)

    def __len__(self) -> int:
        return self.patches_per_row * self.rows

    @property
    def patches_per_row(self) -> int:
        """Number of patches in a row (``patchesPerRow`` in the mixer)."""
        return _count(self.shape.x, self.patch.x, self.edge)

    @property
    def rows(self) -> int:
        """Number of rows of patches."""
        return _count(self.shape.y, self.patch.y, self.edge)

    @property
    def stored(self) -> Size:
        """Size of a patch as stored, margins included, in pixels."""
        return self.patch.with_margin(self.margin)

    @property
    def covered(self) -> Size:
        """Size of the area that all patches cover, in pixels; larger than `shape` if padded."""
        return Size(x=self.patches_per_row * self.patch.x, y=self.rows * self.patch.y)

    @property
    def dropped(self) -> Size:
        """Number of columns at the right and rows at the bottom that no patch covers."""
        return Size(x=max(0, self.shape.x - self.covered.x), y=max(0, self.shape.y - self.covered.y))

    @property
    def axis_y(self) -> PatchAxis:
        """Patches along y, in pixels of the source raster."""
        return PatchAxis(self.origin.y, self.patch.y, self.margin.y, self.rows)

    @property
    def axis_x(self) -> PatchAxis:
        """Patches along x, in pixels of the source raster."""
        return PatchAxis(self.origin.x, self.patch.x, self.margin.x, self.patches_per_row)

    def locate(self, index: int) -> tuple[int, int]:
        """Return the row and column of a patch in the grid.

        Parameters
        ----------
        index : int
            Index of the patch.

        Returns
        -------
        row : int
            Row of the patch, from the top.
        column : int
            Column of the patch, from the left.

        Raises
        ------
        IndexError
            If the index is out of range.

        Examples
        --------
        >>> PatchGrid(Size(x=489, y=443), Size(x=128, y=128)).locate(4)
        (1, 1)
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Patch index {index} is out of range for a grid of {len(self)} patches.")
        return divmod(index, self.patches_per_row)

    def core(self, index: int) -> Window:
        """Return the window of a patch in the grid, without its margin.

        Parameters
        ----------
        index : int
            Index of the patch.

        Returns
        -------
        Window
            Pixels of the grid.

        Raises
        ------
        IndexError
            If the index is out of range.

        Examples
        --------
        >>> PatchGrid(Size(x=489, y=443), Size(x=128, y=128)).core(4)
        Window(top=128, bottom=256, left=128, right=256)
        """
        row, column = self.locate(index)
        top, left = row * self.patch.y, column * self.patch.x
        return Window(top, top + self.patch.y, left, left + self.patch.x)

    def halo(self, index: int) -> Window:
        """Return the window of a patch with its margin; it may extend beyond the raster.

        Parameters
        ----------
        index : int
            Index of the patch.

        Returns
        -------
        Window
            Pixels of the grid.

        Raises
        ------
        IndexError
            If the index is out of range.

        Examples
        --------
        >>> PatchGrid(Size(x=489, y=443), Size(x=128, y=128), Size(x=16, y=16)).halo(0)
        Window(top=-16, bottom=144, left=-16, right=144)
        """
        core = self.core(index)
        return Window(
            core.top - self.margin.y,
            core.bottom + self.margin.y,
            core.left - self.margin.x,
            core.right + self.margin.x,
        )

    def transform(self, index: int, *, halo: bool = False) -> Affine:
        """Return the affine transform of a patch.

        Parameters
        ----------
        index : int
            Index of the patch.
        halo : bool, default False
            Whether to include the margin.

        Returns
        -------
        Affine
            Maps pixel corners (column, row) of the patch to coordinates in `crs`.

        Raises
        ------
        IndexError
            If the index is out of range.

        Examples
        --------
        >>> grid = PatchGrid(Size(x=64, y=64), Size(x=32, y=32), affine=Affine(10, 0, 500, 0, -10, 800))
        >>> tuple(grid.transform(1))[:6]
        (10.0, 0.0, 820.0, 0.0, -10.0, 800.0)
        """
        window = self.halo(index) if halo else self.core(index)
        return self.affine @ Affine.translation(window.left, window.top)

    def corners(self, index: int) -> list[tuple[float, float]]:
        """Return the corners of a patch without its margin.

        Parameters
        ----------
        index : int
            Index of the patch.

        Returns
        -------
        list of (float, float)
            Coordinates (x, y) in `crs`, clockwise from the top left of the patch.

        Raises
        ------
        IndexError
            If the index is out of range.

        Examples
        --------
        >>> grid = PatchGrid(Size(x=64, y=64), Size(x=32, y=32), affine=Affine(10, 0, 500, 0, -10, 800))
        >>> grid.corners(0)
        [(500.0, 800.0), (820.0, 800.0), (820.0, 480.0), (500.0, 480.0)]
        """
        transform = self.transform(index)
        return [
            transform @ corner for corner in ((0, 0), (self.patch.x, 0), self.patch.xy, (0, self.patch.y))
        ]


def _count(length: int, patch: int, edge: Edge) -> int:
    return -(-length // patch) if edge == "pad" else length // patch
