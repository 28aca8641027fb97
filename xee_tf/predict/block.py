"""Predict one block of a raster in numpy: split it into tiles, call the model and merge its outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from xee_tf.blocks import BandRule, Block, BlockLayout, Pieces, assemble
from xee_tf.dtypes import coerce
from xee_tf.errors import PredictionError
from xee_tf.geometry import PatchGrid, Size, Window
from xee_tf.names import SPREAD
from xee_tf.predict.averaging import Blend, average_symmetries, blend_weights
from xee_tf.predict.calling import TileCaller
from xee_tf.predict.output_bands import (
    DerivedBand,
    OutputBand,
    any_masked,
    count_pixels,
    count_unmasked,
    fill_error,
    invalid_fill,
    mapped_hint,
    with_derived,
)
from xee_tf.sidecars import BandSpec

__all__ = ["BlockPredictor"]

TileIndex = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Rows and columns of tiles in a block."""

_SMALL = 64 * 64  # pixels; smaller tiles from several rows are sent in one call


@dataclass(frozen=True)
class BlockPredictor:
    """Predict one block. Small and picklable.

    Parameters
    ----------
    caller : TileCaller
        The model with its inputs and outputs.
    grid : PatchGrid
        The tiles as patches that cover all pixels; their margin is the overlap.
    bands : tuple of BandSpec
        Bands that the model takes.
    rules : tuple of BandRule
        How each of these bands is assembled from chunks.
    outputs : tuple of OutputBand
        Outputs of the model, and what is computed from their averages.
    derived : tuple of DerivedBand
        Bands that replace their outputs in each block. If blocks are added up, this must be done afterwards.
    blend : {"crop", "hann"}
        Whether overlapping outputs are cropped, or averaged with weights that decrease towards the edges.
    skip_masked : bool
        Do not send tiles in which all pixels are masked.
    augment : bool
        Average over the eight symmetries of a square.
    mapped : tuple of str
        Dimensions of the image along which every step is predicted separately.
    """

    caller: TileCaller
    grid: PatchGrid
    bands: tuple[BandSpec, ...]
    rules: tuple[BandRule, ...]
    outputs: tuple[OutputBand, ...]
    derived: tuple[DerivedBand, ...]
    blend: Blend
    skip_masked: bool
    augment: bool
    mapped: tuple[str, ...] = ()

    @property
    def overlap(self) -> Size:
        """Pixels along each edge of a tile's output that are averaged with those of its neighbors."""
        overlap = self.caller.tiles.output_overlap
        return overlap if self.blend == "hann" and overlap is not None else Size(x=0, y=0)

    def window(self, layout: BlockLayout, block: Block) -> Window:
        """Return the pixels of the result that a block contributes to; they may lie outside the raster."""
        height, width = self.caller.tiles.output.shape
        rows, columns = layout.y.owned(block[0]), layout.x.owned(block[1])
        return Window(
            rows.start * height - self.overlap.y,
            rows.stop * height + self.overlap.y,
            columns.start * width - self.overlap.x,
            columns.stop * width + self.overlap.x,
        )

    def __call__(self, layout: BlockLayout, block: Block, pieces: Pieces) -> dict[str, npt.NDArray[Any]]:
        """Return the values of each output in `window`, (*shape, y, x); blended blocks must be added up."""
        rows, columns = layout.y.owned(block[0]), layout.x.owned(block[1])
        maskable = any(band.fill is not None for band in self.outputs)
        arrays, masks = assemble(layout.window(*block), pieces, self.rules, want_masks=maskable)
        masked = any_masked(masks)
        views = {
            band.name: self._tiles(array, band.shape) for band, array in zip(self.bands, arrays, strict=True)
        }
        window = self.window(layout, block)
        out = {band.name: np.zeros((*band.shape, *window.shape), band.dtype) for band in self.outputs}
        sent = np.ones((len(rows), len(columns)), bool)
        if masked is not None and self.skip_masked:
            sent = self._unmasked_tiles(masked)
        call = average_symmetries(self.caller.call, self._spreads) if self.augment else self.caller.call
        merge: Callable[..., None] = self._place_tiles
        if self.blend == "hann":
            weights = blend_weights(self.grid, self.caller.tiles.output, self.overlap, rows, columns)
            merge = partial(self._add_weighted_tiles, weights)
        nan_pixels: dict[str, npt.NDArray[np.bool_]] = {}
        for index, tiles in self._batches(views, sent):
            try:
                predicted = call(tiles)
            except PredictionError as error:
                positions = [(rows[row], columns[column]) for row, column in zip(*index, strict=True)]
                raise self._add_location(error, positions, mapped_hint(self.mapped)) from error
            for name, values in predicted.items():
                if values.dtype.kind == "f" and out[name].dtype.kind != "f":  # integers with NaN
                    nan = np.isnan(values)
                    merge(nan_pixels.setdefault(name, np.zeros(out[name].shape, bool)), index, nan)
                    values = coerce(np.where(nan, 0, values), out[name].dtype)
                merge(out[name], index, values)
        output_mask = None if masked is None else self._output_mask(masked)
        for name, nan in nan_pixels.items():
            self._check_nan(name, nan, output_mask, rows, columns, window)
        for output in self.caller.outputs:
            if output.limits is not None:
                np.clip(out[output.name], *output.limits, out=out[output.name])
        for band in self.outputs:
            self._check_fill(out[band.name], output_mask, band, rows, columns)
            if output_mask is not None:
                out[band.name][..., output_mask] = band.fill
        return with_derived(out, self.derived)

    @property
    def _spreads(self) -> list[str]:
        """The outputs of which the standard deviation over symmetries is a band."""
        names = {band.name for band in self.outputs}
        return [name for name in names if name + SPREAD in names]

    def _check_nan(
        self,
        name: str,
        nan: npt.NDArray[np.bool_],
        mask: npt.NDArray[np.bool_] | None,
        rows: range,
        columns: range,
        window: Window,
    ) -> None:
        """Raise an error if an integer output is NaN in a pixel inside the raster that is not masked.

        The model gets 0 for all other pixels, for which a ratio of bands is NaN.
        """
        if mask is not None:
            nan &= ~mask
        bottom, right = self.caller.tiles.scaled(self.grid.shape).shape
        nan[..., max(bottom - window.top, 0) :, :] = False
        nan[..., max(right - window.left, 0) :] = False
        if count := count_pixels(nan):
            [output] = [output for output in self.caller.outputs if output.name == name]
            where = f", in {count_unmasked(count)}"
            error = output.nan_error(self.caller.connector, where)
            raise self._add_location(error, self._tiles_of(nan, rows, columns))

    def _tiles_of(self, pixels: npt.NDArray[np.bool_], rows: range, columns: range) -> list[tuple[int, int]]:
        """Return the rows and columns of the tiles in which any pixel is true."""
        height, width = self.caller.tiles.output.shape
        tiles = pixels.reshape(-1, len(rows), height, len(columns), width).any(axis=(0, 2, 4))
        return [(rows[row], columns[column]) for row, column in np.argwhere(tiles)]

    def _check_fill(
        self,
        values: npt.NDArray[Any],
        mask: npt.NDArray[np.bool_] | None,
        band: OutputBand,
        rows: range,
        columns: range,
    ) -> None:
        """Raise an error if a pixel that is not masked has the value of masked pixels."""
        if (invalid := invalid_fill(values, mask, band)) is not None:
            error = fill_error(band, count_pixels(invalid))
            raise self._add_location(error, self._tiles_of(invalid, rows, columns))

    def _add_location(
        self, error: PredictionError, tiles: Sequence[tuple[int, int]], hint: str = ""
    ) -> PredictionError:
        """Return an error with the row, column and bounds of the first affected tile and a hint."""
        affected = tiles if error.instances is None else tiles[error.instances.start : error.instances.stop]
        if not affected:
            return error
        row, column = affected[0]
        corners = self.grid.corners(row * self.grid.patches_per_row + column)
        (left, right), (bottom, top) = ((min(side), max(side)) for side in zip(*corners, strict=True))
        which = "tile" if len(affected) == 1 else f"first of {len(affected)} tiles"
        return PredictionError(
            f"{error} -- the {which} is at row {row} and column {column}, bounds (left, bottom, right, "
            f"top) {left:.10g}, {bottom:.10g}, {right:.10g}, {top:.10g}.{hint}",
            instances=error.instances,
        )

    def _tiles(self, array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return an assembled band (depth, y, x) as a view (row, column, height, width, *shape)."""
        windows = sliding_window_view(array, self.grid.stored.shape, axis=(1, 2))
        view = np.moveaxis(windows[:, :: self.grid.patch.y, :: self.grid.patch.x], 0, -1)
        return view.reshape(*view.shape[:4], *shape) if len(shape) != 1 else view

    def _unmasked_tiles(self, masked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which tiles have a pixel that is not masked; cropped pixels are ignored."""
        tiles = self._tiles(masked[None], ())
        if self.blend == "crop":
            (height, width), margin = self.grid.patch.shape, self.grid.margin
            tiles = tiles[:, :, margin.y : margin.y + height, margin.x : margin.x + width]
        return np.logical_not(tiles.all(axis=(2, 3)))

    def rows_together(self, rows: int, columns: int) -> int:
        """Return how many rows of tiles of a block are sent together."""
        if self.grid.stored.pixels >= _SMALL:
            return 1
        return max(1, min(rows, self.caller.batch_size // columns))

    def batches(self, rows: int, columns: int) -> Counter[int]:
        """Count the batches of a block of so many tiles by their size, if no tile is skipped."""
        together = self.rows_together(rows, columns)
        times = 8 if self.augment else 1
        found: Counter[int] = Counter()
        for first in range(0, rows, together):
            found.update(self.caller.batches(min(together, rows - first) * columns) * times)
        return found

    def _batches(
        self, views: Mapping[str, npt.NDArray[Any]], sent: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[TileIndex, dict[str, npt.NDArray[Any]]]]:
        """Yield the tiles of each call with their rows and columns."""
        rows, columns = sent.shape
        together = self.rows_together(rows, columns)
        for first in range(0, rows, together):
            selected = sent[first : first + together]
            index = np.nonzero(selected)
            if not len(index[0]):
                continue
            index = (index[0] + first, index[1])
            if together == 1 and selected.all():  # no copy
                yield index, {name: view[first] for name, view in views.items()}
            else:
                yield index, {name: view[index] for name, view in views.items()}

    def _place_tiles(self, out: npt.NDArray[Any], index: TileIndex, values: npt.NDArray[Any]) -> None:
        """Write tiles (n, height, width, *shape) without their overlap to their positions."""
        tiles = self.caller.tiles
        height, width = tiles.output.shape
        size = values.shape[1:3]
        values = np.moveaxis(values, (1, 2), (-2, -1))
        if size != (height, width):
            margin = tiles.output_overlap
            assert margin is not None  # outputs with fractions of pixels are not accepted
            values = values[..., margin.y : margin.y + height, margin.x : margin.x + width]
        lead = out.shape[:-2]
        view = out.reshape(*lead, out.shape[-2] // height, height, out.shape[-1] // width, width)
        # Rows and columns of tiles first, then shape, height and width, in the order of `values`.
        view = np.moveaxis(view, (-4, -2), (0, 1))
        view[index] = values

    def _add_weighted_tiles(
        self,
        weights: tuple[npt.NDArray[Any], npt.NDArray[Any]],
        out: npt.NDArray[Any],
        index: TileIndex,
        values: npt.NDArray[Any],
    ) -> None:
        """Add tiles (n, height, width, *shape) with their overlap, multiplied by their weights."""
        tiles = self.caller.tiles
        height, width = values.shape[1:3]
        if tiles.padded is None or (height, width) != tiles.padded.shape:
            raise PredictionError(
                f"The model returned tiles of {width} x {height} pixels without their overlap, so that they "
                "cannot be blended. Use blend='crop'."
            )
        tops, lefts = index[0] * tiles.output.y, index[1] * tiles.output.x
        if len(values) > height * width:  # for many small tiles, loop over pixels rather than tiles
            for y, x in np.ndindex(height, width):
                weight = weights[0][index[0], y] * weights[1][index[1], x]
                out[..., tops + y, lefts + x] += np.moveaxis(values[:, y, x], 0, -1) * weight
            return
        for tile, row, column, top, left in zip(
            np.moveaxis(values, (1, 2), (-2, -1)), *index, tops, lefts, strict=True
        ):
            part = out[..., top : top + height, left : left + width]
            part += tile * (weights[0][row][:, None] * weights[1][column])

    def _output_mask(self, masked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return the mask of a block's window; a coarser pixel is masked if all pixels that it covers are."""
        tiles, margin = self.caller.tiles, self.grid.margin
        mask = masked
        if self.blend == "crop":
            height, width = masked.shape
            mask = masked[margin.y : height - margin.y, margin.x : width - margin.x]
        for axis, output, core in ((0, tiles.output.y, tiles.core.y), (1, tiles.output.x, tiles.core.x)):
            if output != core:
                starts = np.arange(mask.shape[axis] * output // core) * core // output
                mask = np.logical_and.reduceat(mask, starts, axis=axis)
        return mask
