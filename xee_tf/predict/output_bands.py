"""The bands of a prediction, and what tiles and pixels have in common when they are filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xee_tf.classes import Classes, highest
from xee_tf.errors import PredictionError

__all__ = [
    "DerivedBand",
    "OutputBand",
    "any_masked",
    "count_pixels",
    "count_unmasked",
    "derive_bands",
    "fill_error",
    "invalid_fill",
    "mapped_hint",
    "with_derived",
]


@dataclass(frozen=True)
class OutputBand:
    """A band of the result.

    Parameters
    ----------
    name : str
        Name of the band.
    dims : tuple of str
        Dimensions of the values of a pixel; empty for a scalar band.
    shape : tuple of int
        Lengths of `dims`.
    dtype : numpy.dtype
        Integer or float dtype.
    fill : number or None
        The value of masked pixels, ``_FillValue``. None if no pixel can be masked.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: float | None


@dataclass(frozen=True)
class DerivedBand(OutputBand):
    """A band of the result that is made from an output with the probabilities of classes.

    Parameters
    ----------
    source : str
        The name of the output.
    classes : Classes
        The classes.
    is_map : bool
        Whether this band is the map of classes, and not their highest probabilities.
    """

    _: KW_ONLY
    source: str
    classes: Classes
    is_map: bool

    def finish(self, planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the band of the probabilities (class, ..., y, x), which are NaN in masked pixels."""
        return self.classes.assign(planes) if self.is_map else highest(planes)


def with_derived(
    outputs: Mapping[str, npt.NDArray[Any]], derived: Sequence[DerivedBand]
) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs of a block, with the bands that replace them or are made from them."""
    return {**outputs, **{band.name: band.finish(outputs[band.source]) for band in derived}}


def derive_bands(
    predicted: Mapping[str, xr.Variable], outputs: Sequence[OutputBand]
) -> dict[str, xr.Variable]:
    """Return lazy bands of the result from those of the model, a task for each chunk and band."""
    found = {}
    for band in outputs:
        if not isinstance(band, DerivedBand):
            found[band.name] = predicted[band.name]
            continue
        source = predicted[band.source]
        axis = source.ndim - 3  # the classes are before y and x
        array = source.data.map_blocks(
            partial(_finish_chunk, band=band, axis=axis),
            dtype=band.dtype,
            drop_axis=axis,
            meta=np.empty((0,) * (source.ndim - 1), band.dtype),
        )
        found[band.name] = xr.Variable((*source.dims[:axis], *source.dims[-2:]), array)
    return found


def _finish_chunk(values: npt.NDArray[Any], *, band: DerivedBand, axis: int) -> npt.NDArray[Any]:
    return band.finish(np.moveaxis(values, axis, 0))


def any_masked(masks: Sequence[npt.NDArray[np.bool_]] | None) -> npt.NDArray[np.bool_] | None:
    """Return where any band, (depth, y, x), is masked; None if no pixel is."""
    # A mask without masked pixels is a view of a single False, whose strides are 0.
    planes = [mask[0] if len(mask) == 1 else mask.any(axis=0) for mask in masks or () if any(mask.strides)]
    return np.logical_or.reduce(planes) if planes else None


def invalid_fill(
    values: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None, band: OutputBand
) -> npt.NDArray[np.bool_] | None:
    """Return where pixels that are not masked have the value of masked pixels; None if no pixel has.

    This applies to blocks without masked pixels, too, because ``_FillValue`` applies to the whole band.
    """
    if band.fill is None or values.dtype.kind == "f":
        return None
    invalid = values == band.fill
    if mask is not None:
        invalid &= ~mask
    return invalid if invalid.any() else None


def fill_error(band: OutputBand, count: int) -> PredictionError:
    """Build the error for pixels that are not masked and have the value of masked pixels."""
    limits, bits = np.iinfo(band.dtype), 8 * band.dtype.itemsize
    wider = "int32" if bits < 32 else "int64" if bits < 64 else "float64"
    ranged = f"{{'type': {{'precision': 'int', 'min': {limits.min}, 'max': {limits.max}}}}}"
    fixes = [f"declare a wider type, output_bands={{{band.name!r}: {wider!r}}}"]
    if bits < 64:
        fixes.insert(0, f"declare the range of the output, output_bands={{{band.name!r}: {ranged}}}")
    return PredictionError(
        f"The output {band.name!r} is {band.fill} in {count_unmasked(count)}, but this value marks masked "
        f"pixels of {band.dtype} bands. Fix: {', or '.join(fixes)}."
    )


def count_pixels(flags: npt.NDArray[np.bool_]) -> int:
    """Count the pixels of a band (*shape, y, x) in which any value is true.

    Examples
    --------
    >>> count_pixels(np.array([[[True, False]], [[True, False]]]))
    1
    """
    return int(flags.any(axis=tuple(range(flags.ndim - 2))).sum())


def count_unmasked(count: int) -> str:
    """Format a number of pixels that are not masked."""
    return "1 pixel that is not masked" if count == 1 else f"{count} pixels that are not masked"


def mapped_hint(mapped: Sequence[str]) -> str:
    """Return a possible reason why a model failed on one step of the dimensions `mapped`."""
    if not mapped:
        return ""
    return (
        f" Each step of {' and '.join(map(repr, mapped))} is predicted separately; a model that takes all "
        f"steps together requires array_dims={mapped!r}."
    )
