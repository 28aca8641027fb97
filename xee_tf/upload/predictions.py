"""Conversion of predictions, whole patches or single pixels, to an array for each band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.display import counted, quoted
from xee_tf.dtypes import FLOAT32_EXACT, coerce
from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import Size
from xee_tf.reading import Unit
from xee_tf.records import Feature, FeatureTypes, RecordLayout

__all__ = ["UNITS", "PredictionFormat", "Predictions", "arrays_by_band"]

Predictions = npt.ArrayLike | Mapping[str, npt.ArrayLike]

UNITS: Mapping[Unit, str] = {"patch": "patches", "pixel": "pixels"}
"""Plurals of the units."""

BandArrays = dict[str, npt.NDArray[Any]]
"""For each band an array (patches, height, width, depth), or (pixels, depth)."""

_SHAPES = (
    "(patches, height, width) or (patches, height, width, channels), or for pixels (pixels,) or "
    "(pixels, channels)"
)


def arrays_by_band(predictions: Predictions, bands: Sequence[str] | None, patch: Size) -> BandArrays:
    """Convert predictions to an array for each band, in the order of `bands` if given.

    Raises
    ------
    OptionError
        If names or shapes do not fit.

    Examples
    --------
    >>> arrays = arrays_by_band(np.zeros((5, 2)), None, Size(x=4, y=4))
    >>> {name: array.shape for name, array in arrays.items()}
    {'prediction_0': (5, 1), 'prediction_1': (5, 1)}
    >>> arrays_by_band({"ndvi": np.zeros((2, 4, 4, 12))}, None, Size(x=4, y=4))["ndvi"].shape
    (2, 4, 4, 12)
    """
    if not isinstance(predictions, Mapping):
        return _channels(_array(predictions, "Predictions"), bands, patch)
    given = {name: _array(values, f"The predictions of {name!r}") for name, values in predictions.items()}
    if not given:
        expected = "each band" if bands is None else f"each of the bands {quoted(bands)}"
        raise OptionError(f"Predictions are an empty mapping; expected an array for {expected}.")
    names = list(given) if bands is None else list(bands)
    if set(given) != set(names):
        raise OptionError(f"Predictions must be a mapping of the bands {quoted(names)}; got {quoted(given)}.")
    if bands is None:
        for array in given.values():
            _check_first_axis(array, patch)
    arrays = {
        name: given[name][..., np.newaxis] if given[name].ndim in (1, 3) else given[name] for name in names
    }
    first = arrays[names[0]]
    if first.ndim not in (2, 4) or any(array.shape[:-1] != first.shape[:-1] for array in arrays.values()):
        shapes = {name: array.shape for name, array in given.items()}
        raise OptionError(
            "All bands must have the same shape, (patches, height, width) or (pixels,), followed by the "
            f"depth for array bands; got {shapes}."
        )
    return arrays


def _array(values: Any, what: str) -> npt.NDArray[Any]:
    """Convert predictions to an array of numbers; `what` is the subject of the error."""
    try:
        array = np.asarray(values)
    except Exception:  # of any array library; numpy raises ValueError for rows of different lengths
        array = np.empty((), object)
    if array.dtype.kind not in "biufc":  # complex numbers have an error of their own
        got = f"an array of {array.dtype}" if hasattr(values, "dtype") else shorten(repr(values))
        raise OptionError(f"{what} must be an array of numbers; got {got}.")
    return array


def _channels(whole: npt.NDArray[Any], bands: Sequence[str] | None, patch: Size) -> BandArrays:
    """Split the channels of an array into bands."""
    if bands is None:
        _check_first_axis(whole, patch)
    if whole.ndim in (1, 3):
        whole = whole[..., np.newaxis]
    if whole.ndim not in (2, 4):
        raise OptionError(f"Predictions must have the shape {_SHAPES}; got {whole.shape}.")
    channels = whole.shape[-1]
    if bands is None:
        bands = ["prediction"] if channels == 1 else [f"prediction_{i}" for i in range(channels)]
    if channels != len(bands) or not channels:
        hint = (
            f" For an array band, pass a mapping: {{{bands[0]!r}: predictions}}." if len(bands) == 1 else ""
        )
        raise OptionError(
            f"Predictions have {counted(channels, 'channel')}; expected {len(bands)}, one for each of the "
            f"bands {quoted(bands)}.{hint}"
        )
    return {name: whole[..., i : i + 1] for i, name in enumerate(bands)}


def _check_first_axis(array: npt.NDArray[Any], patch: Size) -> None:
    """Raise an error for a 2-D array of the shape of a patch, which is more likely a patch than pixels."""
    if array.shape == patch.shape and patch.x > 1:
        raise OptionError(
            f"Predictions must have the shape {_SHAPES}; got {array.shape}. For a single patch, pass "
            "patch[np.newaxis]. For pixels, pass another number of them first, or pass bands=[...]."
        )


@dataclass(frozen=True)
class PredictionFormat:
    """The format of a prediction file, which the first predictions determine.

    Parameters
    ----------
    unit : {"patch", "pixel"}
        Unit of the predictions. Each record is a patch in both cases.
    stored : Size
        Size of the patch in a record, in pixels.
    layout : RecordLayout
        Features of a record.
    """

    unit: Unit
    stored: Size
    layout: RecordLayout

    @classmethod
    def of(cls, arrays: BandArrays, patch: Size, feature_types: FeatureTypes) -> PredictionFormat:
        """Determine the format from the first predictions.

        Raises
        ------
        OptionError
            If the predictions do not have the size of the patches, or cannot be written.
        """
        first = next(iter(arrays.values()))
        stored = Size(x=first.shape[2], y=first.shape[1]) if first.ndim == 4 else patch
        margins = (stored.x - patch.x, stored.y - patch.y)
        if any(pixels < 0 or pixels % 2 for pixels in margins):
            deep = next((array for array in arrays.values() if array.shape[-1] > 1), None)
            hint = ""
            if deep is not None and deep.shape[2:] == patch.shape:
                hint = " Channels must be last, as in Keras: np.moveaxis(values, 1, -1)."
            raise OptionError(
                f"Predictions are {stored.x} pixels wide and {stored.y} high; expected the size of the "
                f"patches, {patch.x} x {patch.y}, or that size with equal margins on both sides.{hint}"
            )
        features = []
        for name, array in arrays.items():
            if not array.shape[-1]:
                raise OptionError(f"Band {name!r} has no values; got an array of shape {array.shape}.")
            size = stored.pixels * array.shape[-1]
            features.append(Feature.of(name, array.dtype, size, feature_types))
        return cls(_unit(first), stored, RecordLayout(tuple(features)))

    def fit(self, arrays: BandArrays) -> list[npt.NDArray[Any]]:
        """Convert predictions to the dtypes of the file.

        Raises
        ------
        OptionError
            If the shapes differ from the first predictions, or a feature cannot represent the values.
        """
        first = next(iter(arrays.values()))
        unit = _unit(first)
        if unit != self.unit:
            raise OptionError(
                f"The first predictions were {UNITS[self.unit]}; got {UNITS[unit]}. A file must be written "
                "entirely in patches or entirely in pixels."
            )
        if unit == "patch" and first.shape[1:3] != self.stored.shape:
            raise OptionError(
                f"The first predictions had the shape {self.stored.shape} (height, width); got "
                f"{first.shape[1:3]}."
            )
        for feature in self.layout.features:
            depth, found = feature.size // self.stored.pixels, arrays[feature.name].shape[-1]
            if depth != found:
                raise OptionError(
                    f"Band {feature.name!r} had {counted(depth, 'value')} per pixel in the first "
                    f"predictions; got {found}."
                )
        return [_convert(feature, arrays[feature.name]) for feature in self.layout.features]


def _unit(array: npt.NDArray[Any]) -> Unit:
    """Return whether an array holds patches or pixels."""
    return "patch" if array.ndim == 4 else "pixel"


def _convert(feature: Feature, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert values to the dtype of a feature; raise an error if it cannot represent them."""
    kind = array.dtype.kind
    if feature.kind == "float":
        if kind in "iu" and array.dtype.itemsize > 2 and array.size:
            largest = max(abs(int(array.min())), abs(int(array.max())))
            if largest > FLOAT32_EXACT:
                raise OptionError(
                    f"Band {feature.name!r} contains {largest}, which float32 cannot represent exactly: "
                    "write it as integers with feature_types='band'."
                )
        fits = kind in "biuf"
    elif feature.kind == "bytes":
        fits = array.dtype in (np.dtype(bool), np.dtype(np.uint8))
    else:
        fits = kind in "iu"
    if not fits:
        raise OptionError(
            f"Band {feature.name!r} is written as {feature.kind}, which cannot represent {array.dtype}: "
            "convert the predictions to the dtype of the first ones."
        )
    if feature.kind == "int64" and array.dtype == np.uint64:
        if array.size and array.max() > np.iinfo(np.int64).max:
            largest = array.max()
            raise OptionError(f"Band {feature.name!r} contains {largest}, which int64 cannot represent.")
        return array.astype(np.int64)  # concatenated with other integers it would become float64
    if feature.kind == "float":
        return coerce(array, np.dtype(np.float32), named=f"Band {feature.name!r}")
    return array
