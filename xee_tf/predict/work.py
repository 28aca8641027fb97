"""The work of one block of a prediction, in numpy: its tiles through the model, and side by side again."""

from __future__ import annotations

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
from xee_tf.predict.averaging import Blend, augmented, blend_weights
from xee_tf.predict.calling import TileCaller
from xee_tf.sidecars import BandSpec

__all__ = ["TileWork"]

TileIndex = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Rows and columns of tiles in a block."""

_SMALL = 64 * 64  # pixels of a tile; smaller ones of several rows are sent together


@dataclass(frozen=True)
class TileWork:
    """Predicts one block; small and picklable.

    Parameters
    ----------
    caller : TileCaller
    grid : PatchGrid
        The tiles as patches: the overlap is their margin, all pixels are covered.
    bands : tuple of BandSpec
        What the model sees.
    rules : tuple of BandRule
        How each of these is put together.
    outputs : tuple of BandSpec
        The bands of the result.
    blend : {"crop", "hann"}
        What becomes of overlapping outputs: cut off, or averaged by weights that fade out.
    skip_masked : bool
        Do not send tiles that are masked everywhere.
    augment : bool
        Average over the eight symmetries of a square.
    mapped : tuple of str
        Dimensions of the image of which each step is predicted by itself.
    """

    caller: TileCaller
    grid: PatchGrid
    bands: tuple[BandSpec, ...]
    rules: tuple[BandRule, ...]
    outputs: tuple[BandSpec, ...]
    blend: Blend
    skip_masked: bool
    augment: bool
    mapped: tuple[str, ...] = ()

    @property
    def overlap(self) -> Size:
        """Pixels of a tile's output that are averaged with its neighbours' along each edge."""
        overlap = self.caller.tiles.output_overlap
        return overlap if self.blend == "hann" and overlap is not None else Size(x=0, y=0)

    def window(self, layout: BlockLayout, block: Block) -> Window:
        """The pixels of the result that a block contributes to; they may lie outside."""
        height, width = self.caller.tiles.output.shape
        rows, columns = layout.y.owned(block[0]), layout.x.owned(block[1])
        return Window(
            rows.start * height - self.overlap.y,
            rows.stop * height + self.overlap.y,
            columns.start * width - self.overlap.x,
            columns.stop * width + self.overlap.x,
        )

    def __call__(self, layout: BlockLayout, block: Block, pieces: Pieces) -> dict[str, npt.NDArray[Any]]:
        """What `window` says of each output, (*shape, y, x); contributions to be added where blended."""
        rows, columns = layout.y.owned(block[0]), layout.x.owned(block[1])
        maskable = any(band.default is not None for band in self.outputs)
        arrays, masks = assemble(layout.window(*block), pieces, self.rules, want_masks=maskable)
        # A view of a single False says that nothing is masked.
        found = [mask[0] if len(mask) == 1 else mask.any(axis=0) for mask in masks or () if any(mask.strides)]
        masked = np.logical_or.reduce(found) if found else None
        views = {
            band.name: self._tiles(array, band.shape) for band, array in zip(self.bands, arrays, strict=True)
        }
        window = self.window(layout, block)
        out = {band.name: np.zeros((*band.shape, *window.shape), band.dtype) for band in self.outputs}
        sent = np.ones((len(rows), len(columns)), bool)
        if masked is not None and self.skip_masked:
            sent = self._wanted(masked)
        call = augmented(self.caller.call) if self.augment else self.caller.call
        put: Callable[..., None] = self._put
        if self.blend == "hann":
            weights = blend_weights(self.grid, self.caller.tiles.output, self.overlap, rows, columns)
            put = partial(self._add, weights)
        nowhere: dict[str, npt.NDArray[np.bool_]] = {}
        for at, tiles in self._batches(views, sent):
            try:
                answers = call(tiles)
            except PredictionError as error:
                places = [(rows[row], columns[column]) for row, column in zip(*at, strict=True)]
                raise self._located(error, places, self._hint) from error
            for name, values in answers.items():
                if values.dtype.kind == "f" and out[name].dtype.kind != "f":  # some are NaN
                    nan = np.isnan(values)
                    put(nowhere.setdefault(name, np.zeros(out[name].shape, bool)), at, nan)
                    values = coerce(np.where(nan, 0, values), out[name].dtype)
                put(out[name], at, values)
        absent = None if masked is None else self._rescaled(masked)
        for name, nan in nowhere.items():
            self._refuse_nan(name, nan, absent, rows, columns, window)
        for output in self.caller.outputs:
            if output.limits is not None:
                np.clip(out[output.name], *output.limits, out=out[output.name])
        for band in self.outputs:
            self._require_free_fill(out[band.name], absent, band, rows, columns)
            if absent is not None:
                out[band.name][..., absent] = band.default
        return out

    def _refuse_nan(
        self,
        name: str,
        nan: npt.NDArray[np.bool_],
        absent: npt.NDArray[np.bool_] | None,
        rows: range,
        columns: range,
        window: Window,
    ) -> None:
        """Refuse NaN in an integer output, but for pixels that are masked or outside the raster.

        Models get 0 there, of which a ratio of bands is NaN.
        """
        if absent is not None:
            nan &= ~absent
        bottom, right = self.caller.tiles.scaled(self.grid.shape).shape
        nan[..., max(bottom - window.top, 0) :, :] = False
        nan[..., max(right - window.left, 0) :] = False
        if count := int(nan.sum()):
            [output] = [output for output in self.caller.outputs if output.name == name]
            where = f", in {count} pixels that are not masked"
            error = output.refuse_nan(self.caller.connector, where)
            raise self._located(error, self._tiles_of(nan, rows, columns))

    def _tiles_of(self, found: npt.NDArray[np.bool_], rows: range, columns: range) -> list[tuple[int, int]]:
        """Rows and columns of the tiles in which a pixel is true."""
        height, width = self.caller.tiles.output.shape
        tiles = found.reshape(-1, len(rows), height, len(columns), width).any(axis=(0, 2, 4))
        return [(rows[row], columns[column]) for row, column in np.argwhere(tiles)]

    def _require_free_fill(
        self,
        values: npt.NDArray[Any],
        absent: npt.NDArray[np.bool_] | None,
        band: BandSpec,
        rows: range,
        columns: range,
    ) -> None:
        """Refuse pixels that are not masked and have the value that marks masked ones.

        Whether the block has a masked pixel makes no difference: ``_FillValue`` is that of the whole band.
        """
        if band.default is None or values.dtype.kind == "f":
            return
        found = values == band.default
        if absent is not None:
            found &= ~absent
        if not found.any():
            return
        limits, bits = np.iinfo(values.dtype), 8 * values.dtype.itemsize
        wider = "int32" if bits < 32 else "int64" if bits < 64 else "float64"
        ranged = f"{{'type': {{'precision': 'int', 'min': {limits.min}, 'max': {limits.max}}}}}"
        fixes = [f"declare a wider type, output_bands={{{band.name!r}: {wider!r}}}"]
        if bits < 64:
            fixes.insert(0, f"declare the range of the output, output_bands={{{band.name!r}: {ranged}}}")
        error = PredictionError(
            f"The model gives {band.default} for {band.name!r} in {int(found.sum())} pixels that are not "
            f"masked, and this value marks masked pixels of {values.dtype} bands. Fix: {', or '.join(fixes)}."
        )
        raise self._located(error, self._tiles_of(found, rows, columns))

    @property
    def _hint(self) -> str:
        """What may be the reason why a model refuses tiles."""
        if not self.mapped:
            return ""
        return (
            f" Each step of {' and '.join(map(repr, self.mapped))} is predicted by itself; a model that "
            f"takes all of them together needs array_dims={self.mapped!r}."
        )

    def _located(
        self, error: PredictionError, tiles: Sequence[tuple[int, int]], hint: str = ""
    ) -> PredictionError:
        """An error that also says which tiles it is about (their rows, columns and bounds), and a hint."""
        about = tiles if error.instances is None else tiles[error.instances.start : error.instances.stop]
        if not about:
            return error
        row, column = about[0]
        corners = self.grid.corners(row * self.grid.patches_per_row + column)
        (left, right), (bottom, top) = ((min(side), max(side)) for side in zip(*corners, strict=True))
        which = "tile" if len(about) == 1 else f"first of {len(about)} tiles"
        return PredictionError(
            f"{error} -- the {which} is that of row {row} and column {column}, bounds (left, bottom, right, "
            f"top) {left:.10g}, {bottom:.10g}, {right:.10g}, {top:.10g}.{hint}",
            instances=error.instances,
        )

    def _tiles(self, array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """A view (row, column, height, width, *shape) of an assembled band (depth, y, x)."""
        every = sliding_window_view(array, self.grid.stored.shape, axis=(1, 2))
        view = np.moveaxis(every[:, :: self.grid.patch.y, :: self.grid.patch.x], 0, -1)
        return view.reshape(*view.shape[:4], *shape) if len(shape) != 1 else view

    def _wanted(self, masked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Tiles with a pixel that is not masked where their output counts."""
        tiles = self._tiles(masked[None], ())
        if self.blend == "crop":
            (height, width), margin = self.grid.patch.shape, self.grid.margin
            tiles = tiles[:, :, margin.y : margin.y + height, margin.x : margin.x + width]
        return np.logical_not(tiles.all(axis=(2, 3)))

    def _batches(
        self, views: Mapping[str, npt.NDArray[Any]], sent: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[TileIndex, dict[str, npt.NDArray[Any]]]]:
        """Tiles to be sent together, and their rows and columns."""
        rows, columns = sent.shape
        together = 1
        if self.grid.stored.pixels < _SMALL:
            together = max(1, min(rows, self.caller.batch_size // columns))
        for first in range(0, rows, together):
            chosen = sent[first : first + together]
            at = np.nonzero(chosen)
            if not len(at[0]):
                continue
            at = (at[0] + first, at[1])
            if together == 1 and chosen.all():  # no copy
                yield at, {name: view[first] for name, view in views.items()}
            else:
                yield at, {name: view[at] for name, view in views.items()}

    def _put(self, out: npt.NDArray[Any], at: TileIndex, values: npt.NDArray[Any]) -> None:
        """Put tiles (n, height, width, *shape) where they belong, without their overlap."""
        tiles = self.caller.tiles
        height, width = tiles.output.shape
        given = values.shape[1:3]
        values = np.moveaxis(values, (1, 2), (-2, -1))
        if given != (height, width):
            margin = tiles.output_overlap
            assert margin is not None  # sizes with half pixels are not accepted as answers
            values = values[..., margin.y : margin.y + height, margin.x : margin.x + width]
        lead = out.shape[:-2]
        places = out.reshape(*lead, out.shape[-2] // height, height, out.shape[-1] // width, width)
        # Rows and columns of tiles in front, then shape, height and width: as the values are.
        places = np.moveaxis(places, (-4, -2), (0, 1))
        places[at] = values

    def _add(
        self,
        weights: tuple[npt.NDArray[Any], npt.NDArray[Any]],
        out: npt.NDArray[Any],
        at: TileIndex,
        values: npt.NDArray[Any],
    ) -> None:
        """Add tiles (n, height, width, *shape) with their overlap, weighted."""
        tiles = self.caller.tiles
        height, width = values.shape[1:3]
        if tiles.padded is None or (height, width) != tiles.padded.shape:
            raise PredictionError(
                f"The model gives tiles of {width} x {height} pixels without their overlap: there "
                "is nothing to blend, use blend='crop'."
            )
        tops, lefts = at[0] * tiles.output.y, at[1] * tiles.output.x
        if len(values) > height * width:  # of many small tiles, a pixel of all of them at a time
            for y, x in np.ndindex(height, width):
                weight = weights[0][at[0], y] * weights[1][at[1], x]
                out[..., tops + y, lefts + x] += np.moveaxis(values[:, y, x], 0, -1) * weight
            return
        for tile, row, column, top, left in zip(
            np.moveaxis(values, (1, 2), (-2, -1)), *at, tops, lefts, strict=True
        ):
            part = out[..., top : top + height, left : left + width]
            part += tile * (weights[0][row][:, None] * weights[1][column])

    def _rescaled(self, masked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """What is masked in a block's window; where pixels are larger, all that they cover."""
        tiles, margin = self.caller.tiles, self.grid.margin
        absent = masked
        if self.blend == "crop":
            height, width = masked.shape
            absent = masked[margin.y : height - margin.y, margin.x : width - margin.x]
        for axis, output, core in ((0, tiles.output.y, tiles.core.y), (1, tiles.output.x, tiles.core.x)):
            if output != core:
                starts = np.arange(absent.shape[axis] * output // core) * core // output
                absent = np.logical_and.reduceat(absent, starts, axis=axis)
        return absent
