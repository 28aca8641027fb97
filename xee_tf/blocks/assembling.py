"""Cut strips from chunks, assemble bands from pieces, and cut patches from bands.

This module uses numpy only, so that the work of a task can be tested without Dask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from xee_tf.blocks.layout import BlockLayout, Chunk, Pieces
from xee_tf.dtypes import copy_in_range
from xee_tf.geometry import PatchAxis, Window

__all__ = ["BandRule", "PlaneRule", "assemble", "cut_row", "cut_strips", "index_in", "stitch"]


@dataclass(frozen=True)
class PlaneRule:
    """How to copy one plane: a scalar band, or consecutive steps of an array band.

    Parameters
    ----------
    first : int
        Index of the plane's first step in the assembled band.
    default : int or float
        Value for masked pixels; representable in the dtype of the band.
    nodata : tuple of int or float
        Values that mean "masked", as stored in the source dtype. NaN is always masked.
    name : str
        Name of the band, for error messages.
    """

    first: int
    default: float
    nodata: tuple[float, ...] = ()
    name: str = field(default="", repr=False, compare=False)

    def masked(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return where `values` are masked, or None if no value of the dtype can be masked."""
        masked: NDArray[np.bool_] | None = np.isnan(values) if values.dtype.kind == "f" else None
        for number in self.nodata:
            equal = values == number  # exact: a Python number is compared in the dtype of `values`
            masked = equal if masked is None else np.logical_or(masked, equal, out=masked)
        return masked

    def any_masked(self, values: NDArray[Any]) -> bool:
        """Return whether any value is masked."""
        if values.dtype.kind == "f" and values.size and not self.nodata:
            return bool(np.isnan(values.max()))  # NaN if any value is; faster than to test each value
        masked = self.masked(values)
        return masked is not None and bool(masked.any())


@dataclass(frozen=True)
class BandRule:
    """How to assemble one band from the planes of a `BlockLayout`.

    Parameters
    ----------
    dtype : str
        numpy dtype of the assembled band.
    depth : int
        Number of steps; 1 for a scalar band.
    planes : tuple of PlaneRule
        The planes of the band, in the order of the layout, which lists the planes of all bands one band after
        the other. Steps that no plane fills are masked.
    """

    dtype: str
    depth: int
    planes: tuple[PlaneRule, ...]

    @classmethod
    def of(
        cls,
        chunks: Sequence[Sequence[int]],
        *,
        dtype: str,
        default: float,
        name: str,
        nodata: tuple[float, ...] = (),
        depth: int | None = None,
    ) -> BandRule:
        """Return the rule for a band that is a single array (y, x) or (step, y, x).

        Parameters
        ----------
        chunks : sequence of sequence of int
            Dask's ``array.chunks``.
        dtype, default, name, nodata
            See the class and `PlaneRule`.
        depth : int, optional
            Number of steps. Default: the steps of the array.
        """
        steps = chunks[0] if len(chunks) == 3 else (1,)
        planes = tuple(PlaneRule(first, default, nodata, name) for first in accumulate(steps[:-1], initial=0))
        return cls(dtype, sum(steps) if depth is None else depth, planes)


BandPieces = list[tuple[PlaneRule, Window, NDArray[Any]]]
"""The pieces of one band: rule, window, and array (step, y, x)."""


def cut_strips(
    layout: BlockLayout, chunks: Sequence[tuple[Chunk, NDArray[Any]]], chosen: str | None = None
) -> dict[Chunk, dict[str, NDArray[Any]]]:
    """Copy the strips that other blocks need from the chunks of one block, so that the chunks can be freed.

    Parameters
    ----------
    layout : BlockLayout
        The block layout.
    chunks : sequence of ((plane, iy, ix), array)
        The chunks that start in the block.
    chosen : str, optional
        One of the keys of `BlockLayout.strips`. Default: all.

    Returns
    -------
    dict
        For each chunk, arrays by the keys of `BlockLayout.strips`.
    """
    kept = {}
    for key, values in chunks:
        plane, iy, ix = key
        whole = layout.planes[plane].window(iy, ix)
        kept[key] = {
            part: values if part == "chunk" else values[index_in(window, whole)].copy()
            for part, window in layout.strips(*key).items()
            if chosen in (part, None)
        }
    return kept


def assemble(
    window: Window,
    pieces: Pieces,
    rules: Sequence[BandRule],
    *,
    has_mask: bool = False,
    want_masks: bool = False,
) -> tuple[list[NDArray[Any]], list[NDArray[np.bool_]] | None]:
    """Assemble the bands of one block.

    Parameters
    ----------
    window : Window
        The requested raster pixels; pixels outside the raster are masked.
    pieces : sequence of (Piece, array)
        The pieces that `BlockLayout.pieces` lists, with their pixels.
    rules : sequence of BandRule
        One for each band.
    has_mask : bool, optional
        Whether the plane after those of the bands is a boolean mask that applies to all bands (true where
        masked).
    want_masks : bool, optional
        Whether to return masks.

    Returns
    -------
    bands : list of ndarray
        Arrays of shape (depth, height, width) in which masked pixels have the default value.
    masks : list of ndarray of bool, or None
        Arrays of the same shapes, true where masked; a view of a single False if no pixel is masked. None
        unless `want_masks` is true.
    """
    firsts = list(accumulate((len(rule.planes) for rule in rules), initial=0))
    found = _parts_by_plane(window, pieces)
    mask = None
    if has_mask:
        rule = BandRule("|b1", 1, (PlaneRule(0, False),))
        mask, _ = _assemble_band(window, _parts(found, firsts[-1], rule), rule, False, None)
    bands: list[NDArray[Any]] = []
    masks: list[NDArray[np.bool_]] = []
    for first, rule in zip(firsts, rules, strict=False):
        parts = _parts(found, first, rule)
        band = _as_view(window, parts, rule) if mask is None else None
        if band is not None:
            if want_masks:
                masks.append(np.broadcast_to(np.False_, band.shape))
        else:
            band, masked = _assemble_band(window, parts, rule, want_masks, mask)
            if mask is not None:
                for plane in rule.planes:
                    np.copyto(band[plane.first :], plane.default, where=mask, casting="unsafe")
                if masked is not None:
                    masked |= mask
            if masked is not None:
                masks.append(masked)
        bands.append(band)
    return bands, masks if want_masks else None


def cut_row(band: NDArray[Any], window: Window, y: PatchAxis, x: PatchAxis, row: int, columns: range) -> Any:
    """Return the stored patches of one patch row as a view (n, depth, height, width) of an assembled band.

    Adjacent patches overlap if they have a margin; no pixels are copied.
    """
    top, bottom = y.halo(row)
    left, right = x.halo(columns[0])
    first = band[:, top - window.top :, left - window.left :]
    return as_strided(  # three times as fast as sliding_window_view
        first,
        shape=(len(columns), len(band), bottom - top, right - left),
        strides=(x.patch * band.strides[2], *band.strides),
        writeable=False,
    )


def stitch(target: Window, parts: Sequence[tuple[Window, NDArray[Any]]]) -> NDArray[Any]:
    """Assemble one array (..., y, x) from its parts; overlapping values are added.

    Parameters
    ----------
    target : Window
        The window of the result, which the parts must cover.
    parts : sequence of (Window, ndarray)
        Windows and their pixels.

    Examples
    --------
    >>> one = Window(0, 1, 0, 2), np.array([[1, 2]])
    >>> two = Window(0, 1, 1, 4), np.array([[10, 20, 30]])
    >>> stitch(Window(0, 1, 0, 3), [one, two]).tolist()
    [[1, 12, 20]]
    """
    if len(parts) == 1:
        window, values = parts[0]
        return values[index_in(target, window)]
    first = parts[0][1]
    out = np.zeros((*first.shape[:-2], *target.shape), first.dtype)
    for window, values in parts:
        common = window.intersection(target)
        out[index_in(common, target)] += values[index_in(common, window)]
    return out


def _parts_by_plane(window: Window, pieces: Pieces) -> dict[int, list[tuple[Window, NDArray[Any]]]]:
    """Return the pieces that overlap a window, as arrays (step, y, x), by plane."""
    found: dict[int, list[tuple[Window, NDArray[Any]]]] = {}
    for piece, values in pieces:
        if not piece.window.intersection(window).is_empty:
            part = piece.window, values if values.ndim == 3 else values[None]
            found.setdefault(piece.plane, []).append(part)
    return found


def _parts(
    found: Mapping[int, Sequence[tuple[Window, NDArray[Any]]]], first: int, rule: BandRule
) -> BandPieces:
    """Return the pieces of the band whose first plane is `first`."""
    return [
        (plane, window, values)
        for number, plane in enumerate(rule.planes, first)
        for window, values in found.get(number, ())
    ]


def _as_view(window: Window, parts: BandPieces, rule: BandRule) -> NDArray[Any] | None:
    """Return the band as a view if a single piece covers it and no value must change, else None."""
    if len(parts) != 1:
        return None
    plane, area, values = parts[0]
    inside = area.intersection(window) == window
    if not inside or values.dtype != np.dtype(rule.dtype) or len(values) != rule.depth:
        return None
    view = values[index_in(window, area)]
    return None if plane.any_masked(view) else view


def _assemble_band(
    window: Window,
    parts: BandPieces,
    rule: BandRule,
    want_mask: bool,
    mask: NDArray[np.bool_] | None,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Assemble a band from its pieces; return it and, if `want_mask`, where it is masked.

    `mask` is that of the user, which the caller applies.
    """
    band = np.empty((rule.depth, *window.shape), rule.dtype)
    covered = sum(area.intersection(window).size.pixels * len(values) for _, area, values in parts)
    masked = np.zeros(band.shape, bool) if want_mask else None
    if covered < band.size:
        for plane in rule.planes:  # collapsed bands may have different defaults
            band[plane.first :] = plane.default
        if masked is not None:
            masked.fill(True)
    for plane, area, values in parts:
        common = area.intersection(window)
        source = values[index_in(common, area)]
        steps = slice(plane.first, plane.first + len(source))
        target = band[steps][index_in(common, window)]
        absent = plane.masked(source)
        unused = None if mask is None else mask[index_in(common, window)]
        copy_in_range(target, source, f"Band {plane.name!r}", absent, unused)
        if absent is not None and absent.any():
            target[absent] = plane.default
        if masked is not None:
            masked[steps][index_in(common, window)] = False if absent is None else absent
    return band, masked


def index_in(window: Window, frame: Window) -> tuple[Any, slice, slice]:
    """Return the index of `window` in an array (..., y, x) that covers `frame`."""
    return (
        ...,
        slice(window.top - frame.top, window.bottom - frame.top),
        slice(window.left - frame.left, window.right - frame.left),
    )
