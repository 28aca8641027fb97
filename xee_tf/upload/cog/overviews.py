"""Overviews: halve pixels level by level, as Earth Engine's pyramiding policies do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import OptionError
from xee_tf.options import one_of

__all__ = ["POLICIES", "OverviewResampling", "Resampling", "halve", "methods_of", "require_no_overviews"]

Resampling = Literal["nearest", "mean", "mode"]
"""How four pixels become one."""

OverviewResampling = Resampling | Mapping[str, Resampling]
"""One way for all bands, or one for each of some bands; the others have "nearest"."""

POLICIES = {"pyramidingPolicy": "overview_resampling"}
"""Earth Engine's name of the option."""

_DEFAULT = ".default"  # of Earth Engine


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
    if not isinstance(given, Mapping):
        return (_method(given, "overview_resampling"),) * len(names)
    for name in given:
        if name not in (*names, _DEFAULT):
            raise OptionError(
                f"overview_resampling names the band {name!r}, which is not written. The bands are {names}."
            )
    methods = {name: _method(own, f"overview_resampling of band {name!r}") for name, own in given.items()}
    default = methods.get(_DEFAULT, "nearest")
    return tuple(methods.get(name, default) for name in names)


def require_no_overviews(given: OverviewResampling) -> None:
    """Raise an error if overviews are requested for a Zarr store."""
    if given != "nearest":
        raise OptionError(
            f"overview_resampling={given!r} is for GeoTIFFs; a Zarr store has no overviews. Omit it, or "
            "write a .tif."
        )


def _method(given: Any, named: str) -> Resampling:
    found = "nearest" if isinstance(given, str) and given == "sample" else given
    one_of(named, found, get_args(Resampling))
    return cast(Resampling, found)


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
    cells = _cells(pixels)
    valid = _valid(pixels, nodata)
    if method == "mean":
        return _mean(cells, valid, nodata)
    return _mode(cells, valid)


def _cells(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the four pixels of all cells; beyond odd edges, pixels are repeated."""
    odd = [(0, 0)] * (pixels.ndim - 2) + [(0, size % 2) for size in pixels.shape[-2:]]
    whole = np.pad(pixels, odd, mode="edge") if any(after for _, after in odd) else pixels
    return [whole[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]


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
        total = np.zeros(cells[0].shape)
        scale = 0.25 if dtype.itemsize == 8 else 1.0  # the sum of four large numbers would be infinite
        with np.errstate(invalid="ignore"):  # inf - inf
            for pixels, own in zip(cells, valid, strict=True):
                np.add(total, pixels * scale, out=total, where=own)
            total /= count
        if dtype.kind == "f":
            with np.errstate(over="ignore"):  # by rounding, beyond the largest pixel
                mean = (total / scale).astype(dtype)
            keep |= np.isnan(mean) | (np.isinf(mean) & np.isfinite(total))
        else:
            mean = np.rint(total).astype(dtype)
    if nodata is not None and not np.isnan(nodata):
        keep |= mean == nodata
    return np.where(keep, _first(cells, valid), mean)


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
