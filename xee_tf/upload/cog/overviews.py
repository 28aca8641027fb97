"""Overviews: halve pixels level by level, as Earth Engine's pyramiding policies do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from xee_tf.display import quoted
from xee_tf.errors import OptionError
from xee_tf.options import one_of

__all__ = [
    "POLICIES",
    "OverviewResampling",
    "Resampling",
    "check_resampling",
    "halve",
    "methods_of",
    "require_no_overviews",
]

Resampling = Literal["nearest", "mean", "mode"]
"""How four pixels become one."""

OverviewResampling = Resampling | Mapping[str, Resampling]
"""One way for all bands, or one for each of some bands; the others have "nearest"."""

POLICIES = {"pyramidingPolicy": "overview_resampling"}
"""Earth Engine's name of the option."""

_DEFAULT, _SAMPLE = ".default", "sample"  # of Earth Engine


def methods_of(given: OverviewResampling, bands: Iterable[str]) -> tuple[Resampling, ...]:
    """Return how the overviews of each band are computed.

    Earth Engine's policies are also accepted: "sample" is "nearest", and the key ".default" is for bands that
    are not named.

    Raises
    ------
    OptionError
        If a value is not a valid choice, or there is no such band.

    Examples
    --------
    >>> methods_of({"class": "mode"}, ["class", "share"])
    ('mode', 'nearest')
    """
    names = list(bands)
    check_resampling(given, names)
    if not isinstance(given, Mapping):
        return (_method(given),) * len(names)
    default = given.get(_DEFAULT, "nearest")
    return tuple(_method(given.get(name, default)) for name in names)


def check_resampling(given: OverviewResampling, bands: Iterable[str] | None) -> None:
    """Raise an error if a value is not a valid choice, or a name is none of `bands`, if these are known."""
    if not isinstance(given, Mapping):
        _check_method("overview_resampling", given)
        return
    names = None if bands is None else list(bands)
    for name, own in given.items():
        if names is not None and name not in (*names, _DEFAULT):
            raise OptionError(
                f"overview_resampling names the band {name!r}, which is not written. The bands are "
                f"{quoted(names)}."
            )
        _check_method(f"overview_resampling of band {name!r}", own)


def require_no_overviews(given: OverviewResampling) -> None:
    """Raise an error if overviews are requested for a Zarr store."""
    if given != "nearest":
        raise OptionError(
            f"overview_resampling={given!r} is for GeoTIFFs; a Zarr store has no overviews. Omit it, or "
            "write a .tif."
        )


def _method(given: str) -> Resampling:
    return "nearest" if given == _SAMPLE else cast(Resampling, given)


def _check_method(named: str, given: Any) -> None:
    if not (isinstance(given, str) and given == _SAMPLE):
        one_of(named, given, get_args(Resampling))


def halve(pixels: NDArray[Any], method: Resampling, nodata: float | None) -> NDArray[Any]:
    """Return the next level of an overview: each pixel represents a cell of 2 x 2 pixels.

    Cells at the bottom and on the right of rasters of odd size have fewer pixels. Missing pixels, which are
    NaN or `nodata`, do not count; a cell without another pixel is missing.

    Parameters
    ----------
    pixels : ndarray
        Bands (..., y, x).
    method : {"nearest", "mean", "mode"}
        "nearest" selects the first pixel of a cell, missing or not. "mean" is rounded to the nearest integer
        (halves to the even one) for integers; if it happens to be `nodata`, a pixel of the cell is selected
        instead. "mode" selects the most frequent value; of several, the one that comes first, row by row.
    nodata : float or None
        The value of missing pixels, besides NaN.

    Examples
    --------
    >>> classes = np.array([[1, 2, 7], [2, 0, 0]], "uint8")
    >>> halve(classes, "mode", None), halve(classes, "nearest", None)
    (array([[2, 7]], dtype=uint8), array([[1, 7]], dtype=uint8))
    >>> halve(classes, "mean", 0)
    array([[2, 7]], dtype=uint8)
    """
    if method == "nearest":
        return np.ascontiguousarray(pixels[..., ::2, ::2])  # a view would keep all pixels in memory
    valid = _valid(pixels, nodata)
    odd = [(0, 0)] * (pixels.ndim - 2) + [(0, size % 2) for size in pixels.shape[-2:]]
    if any(after for _, after in odd):
        pixels = np.pad(pixels, odd, mode="edge")
    cells = [pixels[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    if method == "mode":
        return _mode(cells, valid)
    mean = _mean(cells, valid, nodata)
    return mean if pixels.dtype != np.float64 else _in_range(mean, pixels, nodata)


def _valid(pixels: NDArray[Any], nodata: float | None) -> list[NDArray[np.bool_]]:
    """Return which of the four pixels of all cells exist and are not missing."""
    rows, columns = pixels.shape[-2:]
    valid = np.ones((*pixels.shape[:-2], rows + rows % 2, columns + columns % 2), bool)
    valid[..., rows:, :] = False
    valid[..., columns:] = False
    own = valid[..., :rows, :columns]
    if pixels.dtype.kind == "f":
        own &= ~np.isnan(pixels)
    if nodata is not None and not np.isnan(nodata):
        own &= pixels != nodata
    return [valid[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]


def _mean(cells: list[NDArray[Any]], valid: list[NDArray[np.bool_]], nodata: float | None) -> NDArray[Any]:
    dtype = cells[0].dtype
    count: NDArray[Any] = np.sum(valid, axis=0, dtype="int64")
    keep = count == 0
    count[keep] = 1
    if dtype.kind != "f" and dtype.itemsize == 8:
        mean = _mean_of_integers(cells, valid, count.astype(dtype))
    else:
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf; sums of large float64 pixels
            exact = _sum(cells, valid, 1) / count
            overflown = ~np.isfinite(exact)
            if dtype == np.float64 and overflown.any():
                np.copyto(exact, _sum(cells, valid, 0.25) / count * 4, where=overflown)
        if dtype.kind == "f":
            mean = exact.astype(dtype, copy=False)
            keep |= np.isnan(mean)
        else:
            mean = np.rint(exact).astype(dtype)
    if nodata is not None and not np.isnan(nodata):
        keep |= mean == nodata
    return np.where(keep, _first(cells, valid), mean)


def _sum(cells: list[NDArray[Any]], valid: list[NDArray[np.bool_]], scale: float) -> NDArray[np.float64]:
    total = np.zeros(cells[0].shape)
    for pixels, own in zip(cells, valid, strict=True):
        np.add(total, pixels if scale == 1 else pixels * scale, out=total, where=own)
    return total


def _in_range(means: NDArray[Any], pixels: NDArray[Any], nodata: float | None) -> NDArray[Any]:
    """Return means that are not outside the range of their cells because their sums were rounded.

    For other dtypes than float64, the sums have enough bits.
    """
    known = pixels if nodata is None or np.isnan(nodata) else np.where(pixels == nodata, np.nan, pixels)
    for within, end in ((np.fmax, np.fmin), (np.fmin, np.fmax)):  # which ignore NaN
        rows = end(known[..., ::2, :], known[..., 1::2, :])
        within(means, end(rows[..., ::2], rows[..., 1::2]), out=means)
    return means


def _mean_of_integers(
    cells: list[NDArray[Any]], valid: list[NDArray[np.bool_]], count: NDArray[Any]
) -> NDArray[Any]:
    """Return means of 64-bit integers, whose sum may have more bits, rounded as by `numpy.rint`."""
    whole, rest = np.zeros_like(cells[0]), np.zeros_like(cells[0])
    for pixels, own in zip(cells, valid, strict=True):
        np.add(whole, pixels // count, out=whole, where=own)
        np.add(rest, pixels % count, out=rest, where=own)
    whole += rest // count
    rest %= count
    whole += (2 * rest > count) | ((2 * rest == count) & (whole % 2 == 1))
    return whole


def _first(cells: list[NDArray[Any]], valid: list[NDArray[np.bool_]]) -> NDArray[Any]:
    """Return the first valid pixel of each cell; of cells without one, the first."""
    found = cells[0].copy()
    missing = ~valid[0]
    for pixels, own in zip(cells[1:], valid[1:], strict=True):
        np.copyto(found, pixels, where=missing & own)
        missing &= ~own
    return found


def _mode(cells: list[NDArray[Any]], valid: list[NDArray[np.bool_]]) -> NDArray[Any]:
    found = _first(cells, valid)
    best = np.zeros(found.shape, np.uint8)
    for pixels, own in zip(cells, valid, strict=True):
        count = np.zeros(found.shape, np.uint8)
        for others, theirs in zip(cells, valid, strict=True):
            count += (pixels == others) & theirs
        better = own & (count > best)
        np.copyto(found, pixels, where=better)
        np.copyto(best, count, where=better)
    return found
