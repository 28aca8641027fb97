"""Predict one block of a raster pixel by pixel: send the pixels that are not masked, place the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from xee_tf.blocks import BandRule, Block, BlockLayout, Pieces, assemble
from xee_tf.dtypes import coerce
from xee_tf.errors import OptionError, PredictionError
from xee_tf.geometry import Window
from xee_tf.predict.calling import Caller, predict_rows
from xee_tf.predict.options import PredictOptions
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

__all__ = ["PixelPredictor", "require_tiles"]


def require_tiles(options: PredictOptions) -> None:
    """Raise an error for options of a prediction that only tiles have."""
    given = {
        "blend='hann'": options.blend == "hann",
        f"augment={options.augment!r}": options.augment is not None,
        "skip_masked=False": not options.skip_masked,
    }
    if names := [name for name, is_given in given.items() if is_given]:
        raise OptionError(
            f"{' and '.join(names)} cannot be used with unit='pixel': single pixels neither overlap nor "
            "rotate, and masked pixels are never sent. Omit it or, for a model of tiles, unit."
        )


@dataclass(frozen=True)
class PixelPredictor:
    """Predict one block. Small and picklable.

    Parameters
    ----------
    caller : Caller
        The model with its inputs and outputs.
    affine : Affine
        Maps pixels of the raster to coordinates, for errors.
    bands : tuple of BandSpec
        Bands that the model takes.
    rules : tuple of BandRule
        How each of these bands is assembled from chunks.
    outputs : tuple of OutputBand
        Outputs of the model.
    derived : tuple of DerivedBand
        Bands that replace outputs or are made from them.
    mapped : tuple of str
        Dimensions of the image along which every step is predicted separately.
    """

    caller: Caller
    affine: Affine
    bands: tuple[BandSpec, ...]
    rules: tuple[BandRule, ...]
    outputs: tuple[OutputBand, ...]
    derived: tuple[DerivedBand, ...]
    mapped: tuple[str, ...] = ()

    def window(self, layout: BlockLayout, block: Block) -> Window:
        """Return the pixels of a block."""
        rows, columns = layout.y.owned(block[0]), layout.x.owned(block[1])
        return Window(rows.start, rows.stop, columns.start, columns.stop)

    def batches(self, rows: int, columns: int) -> Counter[int]:
        """Count the batches of a block of so many pixels by their size, if no pixel is masked."""
        return Counter(self.caller.batches(rows * columns))

    def __call__(self, layout: BlockLayout, block: Block, pieces: Pieces) -> dict[str, npt.NDArray[Any]]:
        """Return the values of each output in `window`, (*shape, y, x)."""
        window = self.window(layout, block)
        maskable = any(band.fill is not None for band in self.outputs)
        arrays, masks = assemble(window, pieces, self.rules, want_masks=maskable)
        masked = any_masked(masks)
        # The places of the pixels that are sent in the flat block; None if all are.
        places = None if masked is None else np.flatnonzero(~masked)
        count = window.size.pixels if places is None else len(places)
        out = {
            band.name: np.full((*band.shape, *window.shape), 0 if masked is None else band.fill, band.dtype)
            for band in self.outputs
        }
        if not count:
            return with_derived(out, self.derived)
        values = {
            band.name: _Pixels(array.reshape(len(array), -1), band.shape, places)
            for band, array in zip(self.bands, arrays, strict=True)
        }
        try:
            self._predict(values, count, places, out)
        except PredictionError as error:
            raise self._add_location(error, places, window) from error
        for band in self.outputs:
            if (invalid := invalid_fill(out[band.name], masked, band)) is not None:
                at = np.flatnonzero(invalid.reshape(-1, window.size.pixels).any(axis=0))
                raise self._add_location(fill_error(band, count_pixels(invalid)), at, window, hint="")
        return with_derived(out, self.derived)

    def _predict(
        self,
        values: Mapping[str, _Pixels],
        count: int,
        places: npt.NDArray[np.intp] | None,
        out: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Predict all pixels of a block and write the results to `out`."""
        caller = self.caller
        for rows, found in predict_rows(
            caller.connector,
            caller.feeds,
            caller.outputs,
            values,
            caller.properties,
            count,
            caller.batch_size,
            fixed=caller.fixed,
            keep_nan=True,
        ):
            at = rows if places is None else places[rows]
            for output in caller.outputs:
                array, band = found[output.name], out[output.name]
                if array.dtype.kind == "f" and band.dtype.kind != "f":  # integers with NaN
                    nan = np.isnan(array).reshape(len(array), -1).any(axis=1)
                    if nan.any():
                        first = rows.start + int(nan.argmax())
                        error = output.nan_error(caller.connector, f", in {count_unmasked(int(nan.sum()))}")
                        raise PredictionError(str(error), instances=range(first, first + 1))
                    array = coerce(array, band.dtype)
                if output.limits is not None:
                    array = np.clip(array, *output.limits)
                band.reshape(*output.shape, -1)[..., at] = np.moveaxis(array, 0, -1)

    def _add_location(
        self,
        error: PredictionError,
        places: npt.NDArray[np.intp] | None,
        window: Window,
        hint: str | None = None,
    ) -> PredictionError:
        """Return an error with the row, column and coordinates of the first affected pixel and a hint."""
        if places is None:
            places = np.arange(window.size.pixels)
        affected = places if error.instances is None else places[error.instances.start : error.instances.stop]
        if not len(affected):
            return error
        row, column = divmod(int(affected[0]), window.size.x)
        row, column = window.top + row, window.left + column
        x, y = self.affine @ (column + 0.5, row + 0.5)
        which = "pixel" if len(affected) == 1 else f"first of {len(affected)} pixels"
        return PredictionError(
            f"{error} -- the {which} is at row {row} and column {column}, coordinates (x, y) {x:.10g}, "
            f"{y:.10g}.{mapped_hint(self.mapped) if hint is None else hint}",
            instances=error.instances,
        )


@dataclass(frozen=True)
class _Pixels:
    """Some pixels of a band, which are copied when they are sliced: (n, *shape)."""

    flat: npt.NDArray[Any]  # (depth, y * x)
    shape: tuple[int, ...]
    places: npt.NDArray[np.intp] | None

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        chosen = self.flat[:, rows] if self.places is None else self.flat.take(self.places[rows], axis=1)
        return np.moveaxis(chosen.reshape(*self.shape, -1), -1, 0)
