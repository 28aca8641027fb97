"""Decode records and copy their pixels to the arrays of a window, or of single patches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import beyond_float64, coerce
from xee_tf.errors import RecordError
from xee_tf.geometry import PatchGrid, Window
from xee_tf.reading.content import choose_features, fit_fill_value
from xee_tf.reading.opened import OpenedExport
from xee_tf.records import RecordLayout, decode_records
from xee_tf.shards import Shard, read_records, shard_spans
from xee_tf.sidecars import BandSpec

__all__ = ["Target", "fill_patches", "fill_window", "patches_in_window"]


@dataclass(frozen=True)
class Target:
    """The output array of some steps of a band.

    Parameters
    ----------
    feature : str
        The feature that stores the band.
    steps : slice or ndarray
        Indices of the steps in the feature.
    array : ndarray
        Output array of shape (step, y, x) for a window, or (patch, step, y, x).
    masked : number, optional
        The value to replace by NaN.
    """

    feature: str
    steps: slice | npt.NDArray[np.intp]
    array: npt.NDArray[Any]
    masked: float | None = None

    @classmethod
    def from_band(
        cls,
        band: BandSpec,
        ranges: Sequence[tuple[int, int]],
        array: npt.NDArray[Any],
        axis: int,
        masked: float | None = None,
    ) -> Target:
        """Create a target for ranges of a band's extra dimensions, which start at an axis of the array."""
        slices = tuple(slice(begin, end) for begin, end in ranges)
        steps = band.first + np.arange(band.depth).reshape(band.shape)[slices].ravel()
        shape = (*array.shape[:axis], len(steps), *array.shape[-2:])
        first, last = int(steps[0]), int(steps[-1])
        contiguous = last - first == len(steps) - 1
        chosen = slice(first, last + 1) if contiguous else steps
        return cls(band.feature, chosen, array.reshape(shape), masked)

    def values(self, feature: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the steps of a feature (patch, step, y, x) in the dtype of the array, with NaN if masked."""
        steps = feature[:, self.steps]
        if self.masked is None:
            return coerce(steps, self.array.dtype)
        masked = steps == steps.dtype.type(self.masked)
        if steps.dtype.kind == "i" and beyond_float64(steps).any():
            self._check_exact(steps[~masked])
        steps = steps.astype(self.array.dtype)
        steps[masked] = np.nan
        return steps

    def _check_exact(self, values: npt.NDArray[Any]) -> None:
        """Raise an error if the float dtype of the array cannot represent some integers exactly."""
        largest = 2.0**63  # out of range for int64; the largest integers are rounded to it
        floats = values.astype(self.array.dtype)
        wrong = floats == largest
        wrong |= np.where(wrong, 0, floats).astype(values.dtype) != values
        if wrong.any():
            raise RecordError(
                f"Band {self.feature!r} contains {values[wrong][0]}, which {self.array.dtype} cannot "
                "represent: default_value= converts integers to floats. Omit it, or exclude the band with "
                "bands=[...]."
            )


def patches_in_window(grid: PatchGrid, window: Window) -> list[tuple[int, int]]:
    """Return half-open ranges of the patches that overlap a window."""
    if 0 in window.shape:
        return []
    rows = range(window.top // grid.patch.y, -(-window.bottom // grid.patch.y))
    columns = range(window.left // grid.patch.x, -(-window.right // grid.patch.x))
    if len(columns) == grid.patches_per_row:
        return [(rows.start * grid.patches_per_row, rows.stop * grid.patches_per_row)]
    return [
        (row * grid.patches_per_row + columns.start, row * grid.patches_per_row + columns.stop)
        for row in rows
    ]


def fill_window(
    export: OpenedExport, targets: Sequence[Target], window: Window, start: int, stop: int
) -> None:
    """Copy the pixels of patches ``start`` to ``stop - 1`` to the arrays of a window."""
    grid = export.grid
    for first, features in _patches(export, targets, start, stop):
        count = len(next(iter(features.values())))
        done = 0
        while done < count:
            row, column = divmod(first + done, grid.patches_per_row)
            run = min(count - done, grid.patches_per_row - column)
            for target in targets:
                patches = target.values(features[target.feature][done : done + run])
                _copy_patches(patches, target.array, grid, window, row, column)
            done += run


def fill_patches(
    export: OpenedExport, targets: Sequence[Target], window: Window, origin: int, start: int, stop: int
) -> None:
    """Copy a window of patches ``start`` to ``stop - 1`` to arrays whose first patch is `origin`."""
    for first, features in _patches(export, targets, start, stop):
        for target in targets:
            patches = target.values(features[target.feature][(..., *window.slices)])
            target.array[first - origin : first - origin + len(patches)] = patches


def _copy_patches(
    patches: npt.NDArray[Any], out: npt.NDArray[Any], grid: PatchGrid, window: Window, row: int, column: int
) -> None:
    """Copy adjacent patches (n, step, y, x) of one row to the array (step, y, x) of a window."""
    height, width = grid.patch.shape
    top = row * height
    begin, end = max(top, window.top), min(top + height, window.bottom)
    target = out[:, begin - window.top : end - window.top]
    patches = patches[:, :, begin - top + grid.margin.y : end - top + grid.margin.y]
    patches = patches[..., grid.margin.x : grid.margin.x + width]
    first, last = column, column + len(patches)
    if first * width < window.left:  # the window begins inside this patch
        stop = min((first + 1) * width, window.right)
        begin = first * width
        target[..., : stop - window.left] = patches[0, ..., window.left - begin : stop - begin]
        first += 1
    if last * width > window.right and first < last:  # the window ends inside this patch
        last -= 1
        left = last * width - window.left
        target[..., left:] = patches[last - column, ..., : window.right - last * width]
    if first < last:
        inner = target[..., first * width - window.left : last * width - window.left]
        np.copyto(
            inner.reshape(*inner.shape[:2], last - first, width),  # a view; only the last axis is split
            patches[first - column : last - column].transpose(1, 2, 0, 3),
        )


def _patches(
    export: OpenedExport, targets: Sequence[Target], start: int, stop: int
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
    """Yield runs of consecutive patches: the index of the first, and each feature as (patch, step, y, x).

    Dropped patches are omitted.
    """
    if export.patches is None:
        yield from _stored_patches(export, targets, start, stop)
        return
    low, high = np.searchsorted(export.patches, [start, stop]).tolist()
    if low == high:
        return
    for first, features in _stored_patches(export, targets, low, high):
        count = len(next(iter(features.values())))
        numbers = export.patches[first : first + count]
        edges = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), count]
        for begin, end in pairwise(edges):
            yield int(numbers[begin]), {name: each[begin:end] for name, each in features.items()}


def _stored_patches(
    export: OpenedExport, targets: Sequence[Target], start: int, stop: int
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
    """Yield runs of patches as `_patches` does, with indices that count stored patches only."""
    layout = choose_features(export.layout, list(dict.fromkeys(target.feature for target in targets)))
    shape = export.grid.stored.shape
    if export.records_per_patch == 1:
        for first, values in _runs(export, layout, start, stop):
            yield first, {name: each.reshape(len(each), -1, *shape) for name, each in values.items()}
        return
    whole: dict[str, npt.NDArray[Any]] = {}
    begin, end = start * export.records_per_patch, stop * export.records_per_patch
    for first, values in _runs(export, layout, begin, end):
        for name, each in values.items():
            if name not in whole:
                whole[name] = np.empty((end - begin, each.shape[1]), each.dtype)
            whole[name][first - begin : first - begin + len(each)] = each
    yield (
        start,
        {name: np.moveaxis(each.reshape(stop - start, *shape, -1), -1, 1) for name, each in whole.items()},
    )


def _runs(
    export: OpenedExport, layout: RecordLayout, start: int, stop: int
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
    """Yield runs of records ``start`` to ``stop - 1``: the index of the first record, and the values."""
    for shard, begin, end in shard_spans(export.shards, start, stop):
        expected, end = shard.first + begin, shard.first + end
        stop = end - shard.first
        for first, buffer in read_records(shard, begin, stop, share=export.share, verify=export.verify):
            count, values = _decode(export, layout, buffer, shard, first)
            if expected + count > end:
                raise RecordError(f"{shard} is corrupt: it contains more records than were counted.")
            yield expected, values
            expected += count
        if expected < end:
            raise RecordError(f"{shard} is corrupt: it contains fewer records than were counted.")


def _decode(
    export: OpenedExport, layout: RecordLayout, buffer: memoryview, shard: Shard, first: int
) -> tuple[int, dict[str, npt.NDArray[Any]]]:
    """Decode a buffer: the number of records, and the values of each feature as (record, value)."""
    content, sequences = export.content, layout.sequences or ()
    found = decode_records(
        buffer,
        layout,
        orders=(content.layout,),
        steps={feature.name: content.depths[feature.name] // feature.size for feature in sequences},
        fill={feature.name: fit_fill_value(content.fill, feature) for feature in sequences},
        source=str(shard),
        first=first,
        verify=export.verify,
    )
    series = {name: each.reshape(found.count, -1) for name, each in found.sequences.items()}
    return found.count, {**found.context, **series}
