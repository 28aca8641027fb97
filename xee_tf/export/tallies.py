"""Statistics of the pixels in the records, taken while a block is encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from xee_tf.export.bands import BandPlan
from xee_tf.geometry import PatchAxis, Window
from xee_tf.moments import Moments, Tally, merge_moments
from xee_tf.shards import WrittenShard
from xee_tf.statistics import BandStatistics

__all__ = ["BlockTallies", "TalliedBand", "statistics_of_shards", "tallied_bands"]


@dataclass(frozen=True)
class TalliedBand:
    """Where a band is in the assembled arrays, and the dtype of its source."""

    array: int
    first: int
    depth: int
    dtype: str


def tallied_bands(bands: BandPlan) -> tuple[TalliedBand, ...]:
    """Return where each band of an export is in the assembled arrays."""
    collapsed = len(bands.rules) == 1
    # If steps were omitted from collapsed bands, there is one band for all of them, of no single dtype.
    mixed = len(bands.bands) < len(bands.sources) - bands.has_mask
    found = []
    for number, band in enumerate(bands.bands):
        rule = bands.rules[0 if collapsed else number]
        found.append(
            TalliedBand(
                0 if collapsed else number,
                band.first,
                band.depth,
                rule.dtype if mixed or band.dtype is None else band.dtype,
            )
        )
    return tuple(found)


class BlockTallies:
    """The statistics of the patches of one block, by shard.

    Each patch counts once, without its margin, and only if it is written. Of the margins, only the values of
    integer bands are noted, so that all classes in the records are known.
    """

    def __init__(self, bands: Sequence[TalliedBand]) -> None:
        self._bands = bands
        self._shards: dict[int, list[Tally]] = {}

    def add(
        self,
        shard: int,
        bands: Sequence[NDArray[Any]],
        masks: Sequence[NDArray[np.bool_]] | None,
        axes: tuple[Window, PatchAxis, PatchAxis],
        rows: range,
        columns: range,
        keep: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add patches of assembled bands.

        Parameters
        ----------
        shard : int
            The shard of the patches.
        bands, masks : sequence of ndarray
            The bands and where they are masked, as returned by `assemble`.
        axes : (Window, PatchAxis, PatchAxis)
            The window of the bands, and the patches along y and x.
        rows, columns : range
            The rows and columns of the patches.
        keep : ndarray of bool, optional
            Whether the patches, of one row, are written. Default: all.
        """
        if keep is not None and keep.all():
            keep = None
        tallies = self._shards.get(shard)
        if tallies is None:
            tallies = self._shards[shard] = [Tally(np.dtype(band.dtype)) for band in self._bands]
        margins = _margins(axes, rows, columns, keep)
        for band, tally in zip(self._bands, tallies, strict=True):
            steps = slice(band.first, band.first + band.depth)
            units = _cores(bands[band.array][steps], axes, rows, columns)
            mask = None if masks is None else masks[band.array]
            masked = None
            if mask is not None and any(mask.strides):  # else no pixel is masked
                masked = _cores(mask[steps], axes, rows, columns)
            if keep is not None:
                units, masked = units[keep], None if masked is None else masked[keep]
            tally.add(units, masked)
            if margins and np.dtype(band.dtype).kind in "biu":
                array = bands[band.array][steps]
                absent = None if masked is None or mask is None else mask[steps]
                for part in margins:
                    tally.add_around(array[part], None if absent is None else absent[part])

    def moments(self, shard: int) -> tuple[Moments, ...]:
        """Return what is known of the pixels of each band in a shard."""
        return tuple(tally.moments() for tally in self._shards.pop(shard))


def statistics_of_shards(
    names: Sequence[str], shards: Sequence[WrittenShard]
) -> Mapping[str, BandStatistics] | None:
    """Return the statistics of all bands; None if those of a shard are not known.

    An older version may have written a shard that a later one takes up.
    """
    if any(len(shard.moments) != len(names) for shard in shards):
        return None
    return {
        name: merge_moments([shard.moments[number] for shard in shards]).statistics()
        for number, name in enumerate(names)
    }


def _margins(
    axes: tuple[Window, PatchAxis, PatchAxis], rows: range, columns: range, keep: NDArray[np.bool_] | None
) -> list[Any]:
    """Return indices of assembled bands that together cover the margins of patches, and few other pixels."""
    window, y, x = axes
    if not (y.margin or x.margin) or not (keep is None or keep.any()):
        return []
    top, bottom = (edge - window.top for edge in y.halo(rows[0], rows[-1]))
    left, right = (edge - window.left for edge in x.halo(columns[0], columns[-1]))
    if keep is not None:  # the patches of one row, some of which are neighbors
        inside = np.zeros(right - left, bool)
        for number in np.flatnonzero(keep).tolist():
            inside[number * x.patch : (number + 1) * x.patch + 2 * x.margin] = True
        return [np.s_[:, top:bottom, np.flatnonzero(inside) + left]]
    inner_top, inner_bottom = top + y.margin, bottom - y.margin
    return [
        np.s_[:, top:inner_top, left:right],
        np.s_[:, inner_bottom:bottom, left:right],
        np.s_[:, inner_top:inner_bottom, left : left + x.margin],
        np.s_[:, inner_top:inner_bottom, right - x.margin : right],
    ]


def _cores(
    band: NDArray[Any], axes: tuple[Window, PatchAxis, PatchAxis], rows: range, columns: range
) -> NDArray[Any]:
    """Return patches (n, depth, height, width) of an assembled band, without their margins."""
    window, y, x = axes
    top, left = y.core(rows[0])[0] - window.top, x.core(columns[0])[0] - window.left
    shape, strides = band.shape, band.strides
    first = band[:, top:, left:]
    patches = as_strided(
        first,
        shape=(len(rows), len(columns), shape[0], y.patch, x.patch),
        strides=(y.patch * strides[1], x.patch * strides[2], *strides),
        writeable=False,
    )
    return patches[0] if len(rows) == 1 else patches.reshape(-1, *patches.shape[2:])
