"""Convert between pixel-center coordinates and affine transforms; numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from xee_tf.errors import GeoreferenceError
from xee_tf.geometry import Size, Window

__all__ = [
    "TOLERANCE",
    "Axis",
    "Points",
    "affine_of_centres",
    "apply_affine",
    "bounds",
    "corner_distance",
    "fit_axis",
    "pixel_centres",
    "pixels_between",
    "window_of",
]

Points = NDArray[np.float64]
"""Array of shape (points, 2): columns and rows, or x and y."""

TOLERANCE = 1e-3
"""Maximum distance of coordinates from an even grid, in pixels."""

_COARSEST = 0.1  # maximum tolerance in pixels, for coordinates of low precision
_SLACK = 1e-6  # pixels; a span that ends on the edge of a pixel does not include the next one


@dataclass(frozen=True, slots=True)
class Axis:
    """A regular axis.

    Parameters
    ----------
    step : float
        Signed distance from one pixel to the next, in units of the CRS.
    edge : float
        Outer edge of the first pixel, in units of the CRS.
    tolerance : float
        Precision of the coordinates, in pixels.
    """

    step: float
    edge: float
    tolerance: float = field(default=TOLERANCE, repr=False)

    def scaled(self, factor: float) -> Axis:
        """Convert the axis to another unit by multiplying with `factor`.

        Examples
        --------
        >>> Axis(step=12.5, edge=-3.1).scaled(1000)
        Axis(step=12500.0, edge=-3100.0)
        """
        if factor == 1:
            return self
        step, edge = self.step * factor, self.edge * factor
        rounding = 4 * float(np.spacing(max(abs(step), abs(edge))))
        return Axis(
            _shortest(step, 4 * float(np.spacing(abs(step)))), _shortest(edge, rounding), self.tolerance
        )


def fit_axis(values: Any, name: str, step: float | None = None) -> Axis:
    """Fit a regular axis to the coordinates of pixel centers.

    Coordinates are rounded numbers. The step and edge are the shortest decimal numbers that agree with them
    to their precision (so that 28.5 does not become 28.499999999999996).

    Parameters
    ----------
    values : array_like, shape (n,)
        Coordinates of pixel centers, ascending or descending, of any real dtype.
    name : str
        Name of the axis, for error messages.
    step : float, optional
        The pixel size to use if there is only one coordinate.

    Returns
    -------
    Axis

    Raises
    ------
    GeoreferenceError
        If the coordinates are not finite numbers, or not evenly spaced to within a thousandth of a pixel
        (and the rounding of their dtype); the message contains the position.

    Examples
    --------
    >>> fit_axis(np.linspace(630548.25, 644456.25, 489), "x")
    Axis(step=28.5, edge=630534.0)
    >>> fit_axis([0, 1, 2, 4, 5], "y")
    Traceback (most recent call last):
    ...
    xee_tf.errors.GeoreferenceError: The y coordinates are not evenly spaced: the step is 1.0, but from \
y[2] = 2.0 to y[3] = 4.0 it is 2.0 (1 px more). ...
    """
    given = np.asarray(values)
    try:
        centres = given.astype(np.float64)
    except (TypeError, ValueError):
        centres = np.full(given.shape, np.nan)
    valid = np.abs(centres) < 1e100  # False for NaN, and for numbers that could overflow
    if not (np.issubdtype(given.dtype, np.number) and valid.all()):
        at = int(np.argmin(valid))
        raise GeoreferenceError(
            f"The {name} coordinates must be finite numbers; {name}[{at}] is {given[at]!r}."
        )
    precision = given.dtype if np.issubdtype(given.dtype, np.floating) else np.dtype(np.float64)
    ulp = float(np.spacing(np.abs(given).max().astype(precision)))
    count = centres.size
    if count == 1:
        if step is None:
            raise GeoreferenceError(
                f"The pixel size along {name} cannot be inferred from a single {name} coordinate. "
                f"Write it with .rio.write_transform(...), or pass transform=."
            )
        return Axis(step, float(centres[0]) - step / 2)
    mean = float(centres[-1] - centres[0]) / (count - 1)
    tolerance = min(TOLERANCE + 4 * ulp / abs(mean), _COARSEST) if mean else TOLERANCE
    _require_even(centres, mean, tolerance, name)
    raw = Axis(mean, float(centres[0]) - mean / 2, tolerance)
    short_step = _shortest(mean, 2 * ulp / (count - 1))
    short = Axis(short_step, _shortest(float(centres[0]) - short_step / 2, ulp), tolerance)
    return short if _residual(short, centres) <= max(_residual(raw, centres), 2 * ulp) else raw


def _require_even(centres: NDArray[np.float64], mean: float, tolerance: float, name: str) -> None:
    steps = np.diff(centres)
    step = float(np.median(steps))
    fix = (
        "Resample to an even grid first (for example ds.interp(...) or ds.rio.reproject(...)), "
        "or pass transform= if the coordinates are only labels."
    )
    if step == 0 or not np.isfinite(step):
        raise GeoreferenceError(
            f"The {name} coordinates must be increasing or decreasing; the step is {step}. {fix}"
        )
    jump = int(np.argmax(np.abs(steps - step)))
    off = (float(steps[jump]) - step) / step
    if abs(off) > 2 * tolerance:
        raise GeoreferenceError(
            f"The {name} coordinates are not evenly spaced: the step is {step}, but from "
            f"{name}[{jump}] = {centres[jump]} to {name}[{jump + 1}] = {centres[jump + 1]} it is "
            f"{steps[jump]} ({abs(off):.4g} px {'more' if off > 0 else 'less'}). {fix}"
        )
    drift = np.abs(centres - (centres[0] + mean * np.arange(centres.size))) / abs(mean)
    at = int(np.argmax(drift))
    if drift[at] > tolerance:
        raise GeoreferenceError(
            f"The {name} coordinates are not evenly spaced: {name}[{at}] = {centres[at]} is "
            f"{drift[at]:.4g} px off an even grid from {centres[0]} to {centres[-1]}. {fix}"
        )


def _shortest(value: float, tolerance: float) -> float:
    """Return the number with the fewest digits within `tolerance` of `value`."""
    if abs(value) <= tolerance:
        return 0.0
    for digits in range(1, 17):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= tolerance:
            return short
    return value


def _residual(axis: Axis, centres: NDArray[np.float64]) -> float:
    return float(np.abs(axis.edge + axis.step * (np.arange(centres.size) + 0.5) - centres).max())


def pixel_centres(affine: Affine, shape: Size) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the x coordinates of the columns and the y coordinates of the rows; the affine has no shear.

    Examples
    --------
    >>> x, y = pixel_centres(Affine(10, 0, 500, 0, -10, 800), Size(x=3, y=2))
    >>> x, y
    (array([505., 515., 525.]), array([795., 785.]))
    """
    columns, rows = (np.arange(n, dtype=np.float64) + 0.5 for n in shape.xy)
    return affine.c + affine.a * columns, affine.f + affine.e * rows


def affine_of_centres(
    x: Any, y: Any, units: tuple[float, float] = (1.0, 1.0), stored: Affine | None = None
) -> Affine:
    """Return the affine, possibly with shear, for two-dimensional coordinates of pixel centers.

    Parameters
    ----------
    x, y : indexable, shape (height, width)
        Coordinates, of which only the corners are read.
    units : (float, float)
        Factors to multiply x and y with.
    stored : Affine, optional
        Affine with the pixel size along a side of one pixel; required if a side is shorter than 2.

    Returns
    -------
    Affine

    Raises
    ------
    GeoreferenceError
        If the corners do not form a parallelogram: a curvilinear grid has no affine.

    Examples
    --------
    >>> x, y = np.array([[15.5, 25.5], [16.5, 26.5]]), np.array([[5.0, 6.0], [-5.0, -4.0]])
    >>> tuple(affine_of_centres(x, y))[:6]
    (10.0, 1.0, 10.0, 1.0, -10.0, 9.5)
    """
    height, width = x.shape
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    points = np.array([[float(x[at]) * units[0], float(y[at]) * units[1]] for at in corners])
    origin = points[0]
    steps = [np.array(step) for step in ((stored.a, stored.d), (stored.b, stored.e))] if stored else []
    right = (points[1] - origin) / (width - 1) if width > 1 else steps[0]
    down = (points[2] - origin) / (height - 1) if height > 1 else steps[1]
    first = origin - (right + down) / 2
    affine = Affine(*map(float, (right[0], down[0], first[0], right[1], down[1], first[1])))
    if not affine.is_degenerate:
        column, row = ~affine @ (float(points[3, 0]), float(points[3, 1]))
        if max(abs(column - width + 0.5), abs(row - height + 0.5)) <= TOLERANCE:
            return affine
    raise GeoreferenceError(
        "The two-dimensional coordinates describe a curvilinear grid, which has no affine. "
        "Reproject to a regular grid first."
    )


def apply_affine(affine: Affine, points: NDArray[Any]) -> Points:
    """Transform points with an affine.

    Examples
    --------
    >>> apply_affine(Affine(10, 0, 500, 0, -10, 800), np.array([[0, 0], [3, 2]])).tolist()
    [[500.0, 800.0], [530.0, 780.0]]
    """
    vectors: Any = affine  # its annotations support only single points
    return np.column_stack(vectors @ (points[:, 0], points[:, 1]))


def pixels_between(window: Window, count: int) -> Points:
    """Return `count` x `count` evenly spaced positions (column, row) that span a window, row by row."""
    columns = np.linspace(window.left, window.right, count)
    rows = np.linspace(window.top, window.bottom, count)
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)


def window_of(pixels: Points) -> Window:
    """Return the window that positions (column, row) span, rounded outward; at least one pixel.

    Examples
    --------
    >>> window_of(np.array([[0.5, 1.0], [3.0, 1.2]]))
    Window(top=1, bottom=2, left=0, right=3)
    """
    edges = []
    for along in (pixels[:, 1], pixels[:, 0]):
        start = math.floor(along.min() + _SLACK)
        edges += [start, max(math.ceil(along.max() - _SLACK), start + 1)]
    return Window(*edges)


def bounds(affine: Affine, window: Window) -> tuple[float, float, float, float]:
    """Return the bounds (left, bottom, right, top) of a window, outer pixel edges included.

    Examples
    --------
    >>> bounds(Affine(10, 0, 500, 0, -10, 800), Window(top=0, bottom=2, left=0, right=3))
    (500.0, 780.0, 530.0, 800.0)
    """
    corners = [affine @ (x, y) for y in (window.top, window.bottom) for x in (window.left, window.right)]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def corner_distance(first: Affine, second: Affine, shape: Size) -> float:
    """Return the largest distance between the corners of two grids, in pixels of the first grid.

    Examples
    --------
    >>> corner_distance(Affine(10, 0, 0, 0, -10, 0), Affine(10, 0, 5, 0, -10, 0), Size(x=100, y=100))
    0.5
    """
    inverse = ~first
    worst = 0.0
    for corner in ((0, 0), (shape.x, 0), (0, shape.y), shape.xy):
        column, row = inverse @ (second @ corner)
        worst = max(worst, abs(column - corner[0]), abs(row - corner[1]))
    return worst
