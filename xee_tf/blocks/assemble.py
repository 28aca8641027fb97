"""Blocks in numpy: strips cut from chunks, bands put together from pieces, patches cut from bands.

No Dask here: what a task computes can be called and tested by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from xee_tf.blocks.layout import BlockLayout, Piece
from xee_tf.geometry import PatchAxis, Window

__all__ = ["BandRule", "assemble", "cut_row", "cut_strips"]


@dataclass(frozen=True)
class BandRule:
    """What becomes of one band's pixels.

    Parameters
    ----------
    dtype : str
        numpy dtype of the assembled band.
    default : int or float
        Written into masked pixels; representable in `dtype`.
    nodata : int or float, optional
        A value that means "masked". NaN always does.
    """

    dtype: str
    default: float
    nodata: float | None = None

    def masked(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Where `values` are masked; None where a look at the dtype shows that nothing can be."""
        nan = np.isnan(values) if values.dtype.kind == "f" else None
        if self.nodata is None or np.isnan(self.nodata):
            return nan
        if values.dtype.kind in "iu":
            limits = np.iinfo(values.dtype)
            if not limits.min <= self.nodata <= limits.max or self.nodata != int(self.nodata):
                return nan
        equal: NDArray[np.bool_] = values == values.dtype.type(self.nodata)
        return equal if nan is None else np.logical_or(nan, equal, out=nan)


def cut_strips(
    layout: BlockLayout, chunks: Sequence[tuple[tuple[int, int, int], NDArray[Any]]]
) -> dict[tuple[int, int, int], dict[str, NDArray[Any]]]:
    """Copy out what later blocks need of the chunks of one block, so that the chunks may go.

    Parameters
    ----------
    layout : BlockLayout
        The blocks.
    chunks : sequence of ((band, iy, ix), array)
        The chunks that start in the block.

    Returns
    -------
    dict
        By chunk and by the names of `BlockLayout.strips`.
    """
    kept = {}
    for key, values in chunks:
        band, iy, ix = key
        whole = layout.bands[band].window(iy, ix)
        kept[key] = {
            part: values if part == "chunk" else values[_within(window, whole)].copy()
            for part, window in layout.strips(*key).items()
        }
    return kept


def assemble(
    window: Window,
    pieces: Sequence[tuple[Piece, NDArray[Any]]],
    rules: Sequence[BandRule],
    *,
    mask_band: int | None = None,
    want_mask: bool = False,
) -> tuple[list[NDArray[Any]], NDArray[np.bool_] | None]:
    """Put the bands of one block together.

    Parameters
    ----------
    window : Window
        The raster pixels wanted; those outside the raster come out masked.
    pieces : sequence of (Piece, array)
        All that `BlockLayout.pieces` named, with their pixels.
    rules : sequence of BandRule
        One for each band.
    mask_band : int, optional
        The number of a boolean band that masks all others where it is true.
    want_mask : bool, optional
        Also say which pixels are masked in any band.

    Returns
    -------
    bands : list of ndarray
        (height, width) each, masked pixels already replaced by the band's default.
    masked : ndarray of bool or None
        (height, width); None unless wanted.
    """
    mask = _mask_band(window, [item for item in pieces if item[0].band == mask_band])
    masked = np.zeros(window.shape, bool) if want_mask else None
    if masked is not None and mask is not None:
        masked |= mask
    bands = []
    for number, rule in enumerate(rules):
        own = [(piece, values) for piece, values in pieces if piece.band == number]
        band = _whole(window, own, rule) if mask is None and masked is None else None
        if band is None:
            band = _place(window, own, rule, masked)
            if mask is not None:
                band[mask] = rule.default
        bands.append(band)
    return bands, masked


def cut_row(band: NDArray[Any], window: Window, y: PatchAxis, x: PatchAxis, row: int, columns: range) -> Any:
    """The stored patches of one patch row as a view (n, height, width) of an assembled band.

    Neighbours overlap where there is a margin; nothing is copied.
    """
    top, bottom = y.halo(row)
    left, right = x.halo(columns[0])
    first = band[top - window.top :, left - window.left :]
    return as_strided(
        first,
        shape=(len(columns), bottom - top, right - left),
        strides=(x.patch * band.strides[1], *band.strides),
        writeable=False,
    )


def _whole(
    window: Window, pieces: Sequence[tuple[Piece, NDArray[Any]]], rule: BandRule
) -> NDArray[Any] | None:
    """The band without a copy, where one piece is all of it and needs no change."""
    if len(pieces) != 1:
        return None
    piece, values = pieces[0]
    part = piece.window
    inside = part.top <= window.top and window.bottom <= part.bottom
    inside = inside and part.left <= window.left and window.right <= part.right
    if not inside or values.dtype != np.dtype(rule.dtype):
        return None
    view = values[_within(window, part)]
    masked = rule.masked(view)
    return view if masked is None or not masked.any() else None


def _place(
    window: Window,
    pieces: Sequence[tuple[Piece, NDArray[Any]]],
    rule: BandRule,
    masked: NDArray[np.bool_] | None,
) -> NDArray[Any]:
    band = np.empty(window.shape, rule.dtype)
    covered = sum(_overlap(piece.window, window).size.pixels for piece, _ in pieces)
    if covered < band.size:
        band.fill(rule.default)
        inside = np.zeros(window.shape, bool) if masked is not None else None
    else:
        inside = None
    for piece, values in pieces:
        common = _overlap(piece.window, window)
        source, target = values[_within(common, piece.window)], _within(common, window)
        # A float64 beyond float32's range becomes infinite, as it would anywhere else in numpy.
        with np.errstate(over="ignore"):
            np.copyto(band[target], source, casting="unsafe")
        absent = rule.masked(source)
        if absent is not None and absent.any():
            band[target][absent] = rule.default
            if masked is not None:
                masked[target] |= absent
        if inside is not None:
            inside[target] = True
    if masked is not None and inside is not None:
        masked |= ~inside
    return band


def _mask_band(window: Window, pieces: Sequence[tuple[Piece, NDArray[Any]]]) -> NDArray[np.bool_] | None:
    if not pieces:
        return None
    return _place(window, pieces, BandRule("|b1", False), None)


def _overlap(one: Window, other: Window) -> Window:
    return Window(
        max(one.top, other.top),
        min(one.bottom, other.bottom),
        max(one.left, other.left),
        min(one.right, other.right),
    )


def _within(window: Window, frame: Window) -> tuple[slice, slice]:
    """Slices of `window` in an array that holds `frame`."""
    return (
        slice(window.top - frame.top, window.bottom - frame.top),
        slice(window.left - frame.left, window.right - frame.left),
    )
