"""Blocks in numpy: strips cut from chunks, bands put together from pieces, patches cut from bands.

No Dask here: what a task computes can be called and tested by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from xee_tf.blocks.layout import BlockLayout, Chunk, Pieces
from xee_tf.geometry import PatchAxis, Window

__all__ = ["BandRule", "PlaneRule", "assemble", "cut_row", "cut_strips", "stitch"]


@dataclass(frozen=True)
class PlaneRule:
    """What becomes of the pixels of one plane: a scalar band, or neighbouring steps of an array band.

    Parameters
    ----------
    first : int
        The step of the assembled band at which it starts.
    default : int or float
        Written into masked pixels; representable in the band's dtype.
    nodata : tuple of int or float
        Values that mean "masked", as the dtype of the source holds them. NaN always does.
    """

    first: int
    default: float
    nodata: tuple[float, ...] = ()

    def masked(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Where `values` are masked; None where a look at the dtype shows that nothing can be."""
        masked: NDArray[np.bool_] | None = np.isnan(values) if values.dtype.kind == "f" else None
        for number in self.nodata:
            equal = values == number  # Python's numbers take the dtype of `values`, and lose nothing in it
            masked = equal if masked is None else np.logical_or(masked, equal, out=masked)
        return masked


@dataclass(frozen=True)
class BandRule:
    """How one band is put together from the planes of a `BlockLayout`.

    Parameters
    ----------
    dtype : str
        numpy dtype of the assembled band.
    depth : int
        Steps; 1 for a scalar band.
    planes : tuple of PlaneRule
        What it is made of, in the order of the layout, whose first planes are those of the first band, and
        so on. Steps that no plane fills are masked.
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
        nodata: tuple[float, ...] = (),
        depth: int | None = None,
    ) -> BandRule:
        """The rule of a band that is one array (y, x) or (step, y, x).

        Parameters
        ----------
        chunks : sequence of sequence of int
            Dask's ``array.chunks``.
        dtype, default, nodata
            As for the class and `PlaneRule`.
        depth : int, optional
            Default: the steps of the array.
        """
        steps = chunks[0] if len(chunks) == 3 else (1,)
        planes = tuple(PlaneRule(first, default, nodata) for first in accumulate(steps[:-1], initial=0))
        return cls(dtype, sum(steps) if depth is None else depth, planes)


BandPieces = list[tuple[PlaneRule, Window, NDArray[Any]]]
"""The pieces of one band, each (step, y, x) with its window."""


def cut_strips(
    layout: BlockLayout, chunks: Sequence[tuple[Chunk, NDArray[Any]]]
) -> dict[Chunk, dict[str, NDArray[Any]]]:
    """Copy out what later blocks need of the chunks of one block, so that the chunks may go.

    Parameters
    ----------
    layout : BlockLayout
        The blocks.
    chunks : sequence of ((plane, iy, ix), array)
        The chunks that start in the block.

    Returns
    -------
    dict
        By chunk and by the names of `BlockLayout.strips`.
    """
    kept = {}
    for key, values in chunks:
        plane, iy, ix = key
        whole = layout.planes[plane].window(iy, ix)
        kept[key] = {
            part: values if part == "chunk" else values[_within(window, whole)].copy()
            for part, window in layout.strips(*key).items()
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
    """Put the bands of one block together.

    Parameters
    ----------
    window : Window
        The raster pixels wanted; those outside the raster come out masked.
    pieces : sequence of (Piece, array)
        All that `BlockLayout.pieces` named, with their pixels.
    rules : sequence of BandRule
        One for each band.
    has_mask : bool, optional
        Whether the plane behind those of the bands is boolean and masks all of them where it is true.
    want_masks : bool, optional
        Also say what is masked.

    Returns
    -------
    bands : list of ndarray
        (depth, height, width) each, masked pixels already replaced by the default.
    masks : list of ndarray of bool, or None
        Of the same shapes, true where masked; views of a single False where nothing is. None unless wanted.
    """
    firsts = list(accumulate((len(rule.planes) for rule in rules), initial=0))
    mask = None
    if has_mask:
        rule = BandRule("|b1", 1, (PlaneRule(0, False),))
        mask, _ = _place(window, _parts(pieces, firsts[-1], rule), rule, False)
    bands: list[NDArray[Any]] = []
    masks: list[NDArray[np.bool_]] = []
    for first, rule in zip(firsts, rules, strict=False):
        parts = _parts(pieces, first, rule)
        band = _whole(window, parts, rule) if mask is None else None
        if band is not None:
            masks.append(np.broadcast_to(np.False_, band.shape))
        else:
            band, masked = _place(window, parts, rule, want_masks)
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
    """The stored patches of one patch row as a view (n, depth, height, width) of an assembled band.

    Neighbours overlap where there is a margin; nothing is copied.
    """
    top, bottom = y.halo(row)
    left, right = x.halo(columns[0])
    first = band[:, top - window.top :, left - window.left :]
    return as_strided(  # a third of the time that sliding_window_view takes, for every row of patches
        first,
        shape=(len(columns), len(band), bottom - top, right - left),
        strides=(x.patch * band.strides[2], *band.strides),
        writeable=False,
    )


def stitch(target: Window, parts: Sequence[tuple[Window, NDArray[Any]]]) -> NDArray[Any]:
    """One array (..., y, x) from parts of it, which lie anywhere; where they overlap they are added.

    Parameters
    ----------
    target : Window
        What is wanted; the parts cover all of it.
    parts : sequence of (Window, ndarray)

    Examples
    --------
    >>> one = Window(0, 1, 0, 2), np.array([[1, 2]])
    >>> two = Window(0, 1, 1, 4), np.array([[10, 20, 30]])
    >>> stitch(Window(0, 1, 0, 3), [one, two]).tolist()
    [[1, 12, 20]]
    """
    if len(parts) == 1:
        window, values = parts[0]
        return values[_within(target, window)]
    first = parts[0][1]
    out = np.zeros((*first.shape[:-2], *target.shape), first.dtype)
    for window, values in parts:
        common = window.intersection(target)
        out[_within(common, target)] += values[_within(common, window)]
    return out


def _parts(pieces: Pieces, first: int, rule: BandRule) -> BandPieces:
    """The pieces of a band whose planes begin with number `first`."""
    return [
        (rule.planes[piece.plane - first], piece.window, values if values.ndim == 3 else values[None])
        for piece, values in pieces
        if first <= piece.plane < first + len(rule.planes)
    ]


def _whole(window: Window, parts: BandPieces, rule: BandRule) -> NDArray[Any] | None:
    """The band without a copy, where one piece is all of it and needs no change."""
    if len(parts) != 1:
        return None
    plane, there, values = parts[0]
    inside = there.intersection(window) == window
    if not inside or values.dtype != np.dtype(rule.dtype) or len(values) != rule.depth:
        return None
    view = values[_within(window, there)]
    masked = plane.masked(view)
    return view if masked is None or not masked.any() else None


def _place(
    window: Window, parts: BandPieces, rule: BandRule, want_mask: bool
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """A band put together from its pieces, and where it is masked."""
    band = np.empty((rule.depth, *window.shape), rule.dtype)
    covered = sum(there.intersection(window).size.pixels * len(values) for _, there, values in parts)
    masked = np.zeros(band.shape, bool) if want_mask else None
    if covered < band.size:
        for plane in rule.planes:  # bands that were made one may differ in their defaults
            band[plane.first :] = plane.default
        if masked is not None:
            masked.fill(True)
    for plane, there, values in parts:
        common = there.intersection(window)
        source = values[_within(common, there)]
        steps = slice(plane.first, plane.first + len(source))
        target = band[steps][_within(common, window)]
        # A float64 beyond float32's range becomes infinite, as it would anywhere else in numpy.
        with np.errstate(over="ignore"):
            np.copyto(target, source, casting="unsafe")
        absent = plane.masked(source)
        if absent is not None and absent.any():
            target[absent] = plane.default
        if masked is not None:
            masked[steps][_within(common, window)] = False if absent is None else absent
    return band, masked


def _within(window: Window, frame: Window) -> tuple[Any, slice, slice]:
    """Index of `window` in an array (..., y, x) that holds `frame`."""
    return (
        ...,
        slice(window.top - frame.top, window.bottom - frame.top),
        slice(window.left - frame.left, window.right - frame.left),
    )
