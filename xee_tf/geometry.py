"""The one geometry: a regular grid of patches, each with a margin, over a raster.

Pure integers and affine maths; no xarray, no Dask, no TensorFlow. Export, reading and prediction
all ask this module which pixels a patch owns and where it lies.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, get_args

from affine import Affine

from xee_tf.errors import OptionError
from xee_tf.options import one_of

__all__ = ["Edge", "PatchAxis", "PatchGrid", "Size", "Window"]

Edge = Literal["drop", "pad"]

_IDENTITY = Affine.identity()


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A width and a height in pixels that cannot be confused with one another.

    Earth Engine speaks (x, y), numpy and xarray speak (y, x). Options are translated once, by
    `from_xy`; everything behind that edge reads ``.x``, ``.y`` or ``.shape``.

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
        """Read a user's option in Earth Engine's order.

        Parameters
        ----------
        value : int, sequence of int or Size
            ``(width, height)``; one number stands for a square, as in Earth Engine.
        name : str
            The option's name, for the error.
        least : {0, 1}
            Pixels that each side must have.

        Raises
        ------
        OptionError
            If `value` is not one or two whole numbers, or too small.

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
            raise OptionError(
                f"{name} must be one whole number or a pair (width, height), for example (256, 256); "
                f"got {value!r}."
            ) from None
        size = cls(x=sides[0], y=sides[-1])
        if min(sides) < least:
            wanted = "must be at least 1 pixel on each side" if least else "cannot be negative"
            raise OptionError(f"{name} {wanted}; got {size.xy}.")
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
        """The size with a margin on every side."""
        return Size(x=self.x + 2 * margin.x, y=self.y + 2 * margin.y)

    @property
    def window(self) -> Window:
        """All pixels of a raster of this size."""
        return Window(0, self.y, 0, self.x)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels, half open; it may reach outside the raster.

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
        """(y, x) slices; meaningful only where the window lies inside the array."""
        return (slice(self.top, self.bottom), slice(self.left, self.right))

    @property
    def is_empty(self) -> bool:
        """Whether it has no pixels."""
        return self.bottom <= self.top or self.right <= self.left

    def intersection(self, other: Window) -> Window:
        """The pixels that two windows share; an empty window if there are none.

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
        Pixels of a patch, pixels of the margin on either side, and number of patches.
    """

    start: int
    patch: int
    margin: int
    count: int

    def core(self, first: int, last: int | None = None) -> tuple[int, int]:
        """Half-open pixel range that patches `first` to `last` (inclusive) own."""
        last = first if last is None else last
        return self.start + first * self.patch, self.start + (last + 1) * self.patch

    def halo(self, first: int, last: int | None = None) -> tuple[int, int]:
        """`core` with the margin on either side."""
        begin, end = self.core(first, last)
        return begin - self.margin, end + self.margin


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """A regular grid of patches over a raster.

    Patch ``i`` is row-major: ``i = row * columns + column``; rows run top to bottom, columns left
    to right (the order of Earth Engine's records). `core` is what a patch owns, `halo` is `core`
    and the margin around it.

    Parameters
    ----------
    shape : Size
        Pixels that the grid covers: the raster, or the region of it that was asked for.
    patch : Size
        Pixels of a patch without its margin (Earth Engine's ``patchDimensions``).
    margin : Size, optional
        Pixels added on every side of a patch: half the kernel, see `margin_of`.
    affine : Affine, optional
        Maps (column, row) of the grid's top-left corner to coordinates of `crs`. North-up,
        south-up and sheared grids are all welcome.
    crs : str, optional
        The coordinate reference system, as an authority string ("EPSG:32119") or WKT.
    edge : {"drop", "pad"}, optional
        What becomes of patches that do not fit at the right and bottom edges. Earth Engine drops
        them; "pad" keeps them, filled up with masked pixels (our addition).
    origin : Size, optional
        The pixel of the source raster at which the grid starts; not zero for a region.

    Raises
    ------
    OptionError
        If a side is not positive, a margin is negative, or a patch is larger than the raster.

    Examples
    --------
    >>> grid = PatchGrid(Size(x=489, y=443), Size(x=128, y=128), Size(x=16, y=16))
    >>> len(grid), grid.columns, grid.rows
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
                    f"Make the patch smaller, or keep incomplete patches with edge='pad'."
                )
        one_of("edge", self.edge, get_args(Edge))

    @staticmethod
    def margin_of(kernel: Size) -> Size:
        """The margin that belongs to a kernel: half of it on every side, odd kernels included.

        Earth Engine's guide gives a stored side as patch + kernel, and its default kernel of 1
        stores exactly the patch: both hold with ``patch + 2 * (kernel // 2)``.

        Examples
        --------
        >>> PatchGrid.margin_of(Size(x=32, y=5))
        Size(x=16, y=2)
        """
        return Size(x=kernel.x // 2, y=kernel.y // 2)

    def __len__(self) -> int:
        return self.columns * self.rows

    @property
    def columns(self) -> int:
        """Patches in a row (the mixer's ``patchesPerRow``)."""
        return _count(self.shape.x, self.patch.x, self.edge)

    @property
    def rows(self) -> int:
        """Rows of patches."""
        return _count(self.shape.y, self.patch.y, self.edge)

    @property
    def stored(self) -> Size:
        """Pixels of a patch as it is stored, its margins included."""
        return self.patch.with_margin(self.margin)

    @property
    def covered(self) -> Size:
        """Pixels from the first patch's corner to the last's; larger than `shape` when padded."""
        return Size(x=self.columns * self.patch.x, y=self.rows * self.patch.y)

    @property
    def dropped(self) -> Size:
        """Columns at the right and rows at the bottom that no patch owns."""
        return Size(x=max(0, self.shape.x - self.covered.x), y=max(0, self.shape.y - self.covered.y))

    @property
    def axis_y(self) -> PatchAxis:
        """Rows of patches, in pixels of the source raster."""
        return PatchAxis(self.origin.y, self.patch.y, self.margin.y, self.rows)

    @property
    def axis_x(self) -> PatchAxis:
        """Columns of patches, in pixels of the source raster."""
        return PatchAxis(self.origin.x, self.patch.x, self.margin.x, self.columns)

    def locate(self, index: int) -> tuple[int, int]:
        """(row, column) of patch `index`; IndexError if there is no such patch."""
        if not 0 <= index < len(self):
            raise IndexError(f"Patch {index} is not among the {len(self)} patches of this grid.")
        return divmod(index, self.columns)

    def core(self, index: int) -> Window:
        """The pixels of the grid that patch `index` owns."""
        row, column = self.locate(index)
        top, left = row * self.patch.y, column * self.patch.x
        return Window(top, top + self.patch.y, left, left + self.patch.x)

    def halo(self, index: int) -> Window:
        """`core` and the margin around it; it may reach outside the raster."""
        core = self.core(index)
        return Window(
            core.top - self.margin.y,
            core.bottom + self.margin.y,
            core.left - self.margin.x,
            core.right + self.margin.x,
        )

    def transform(self, index: int, *, halo: bool = False) -> Affine:
        """Affine of patch `index`: of its core, or of the stored patch with its margin."""
        window = self.halo(index) if halo else self.core(index)
        return self.affine @ Affine.translation(window.left, window.top)

    def corners(self, index: int) -> list[tuple[float, float]]:
        """The four corners of the core of patch `index` as (x, y), clockwise from its top left."""
        transform = self.transform(index)
        return [
            transform @ corner for corner in ((0, 0), (self.patch.x, 0), self.patch.xy, (0, self.patch.y))
        ]


def _count(length: int, patch: int, edge: Edge) -> int:
    return -(-length // patch) if edge == "pad" else length // patch
