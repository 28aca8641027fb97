"""What a user gives as predictions, made arrays a band: of whole patches, or pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.dtypes import FLOAT32_EXACT
from xee_tf.errors import OptionError
from xee_tf.geometry import Size
from xee_tf.reading import Unit
from xee_tf.records import Feature, FeatureTypes, RecordLayout

__all__ = ["UNITS", "PredictionFormat", "Predictions", "by_band"]

Predictions = npt.ArrayLike | Mapping[str, npt.ArrayLike]

UNITS: Mapping[Unit, str] = {"patch": "patches", "pixel": "pixels"}
"""Words for many of a unit."""

BandArrays = dict[str, npt.NDArray[Any]]
"""For each band an array (patches, height, width, depth), or (pixels, depth)."""

_SHAPES = (
    "(patches, height, width) or (patches, height, width, channels), or of pixels (pixels,) or "
    "(pixels, channels)"
)


def by_band(predictions: Predictions, bands: Sequence[str] | None, patch: Size) -> BandArrays:
    """The arrays of each band, in the order of `bands` where their names are known.

    Raises
    ------
    OptionError
        If names or shapes do not fit.

    Examples
    --------
    >>> arrays = by_band(np.zeros((5, 2)), None, Size(x=4, y=4))
    >>> {name: array.shape for name, array in arrays.items()}
    {'prediction_0': (5, 1), 'prediction_1': (5, 1)}
    >>> by_band({"ndvi": np.zeros((2, 4, 4, 12))}, None, Size(x=4, y=4))["ndvi"].shape
    (2, 4, 4, 12)
    """
    if not isinstance(predictions, Mapping):
        return _channels(np.asarray(predictions), bands, patch)
    given = {name: np.asarray(values) for name, values in predictions.items()}
    names = list(given) if bands is None else list(bands)
    if set(given) != set(names) or not given:
        raise OptionError(f"Bands must be {names}; got {list(given)}.")
    if bands is None:
        for array in given.values():
            _refuse_single_patch(array, patch)
    arrays = {
        name: given[name][..., np.newaxis] if given[name].ndim in (1, 3) else given[name] for name in names
    }
    first = arrays[names[0]]
    if first.ndim not in (2, 4) or any(array.shape[:-1] != first.shape[:-1] for array in arrays.values()):
        shapes = {name: array.shape for name, array in given.items()}
        raise OptionError(
            "All bands must have the same shape: (patches, height, width), or (pixels,), array bands with "
            f"their depth behind; got {shapes}."
        )
    return arrays


def _channels(whole: npt.NDArray[Any], bands: Sequence[str] | None, patch: Size) -> BandArrays:
    """The channels of one array as bands."""
    if bands is None:
        _refuse_single_patch(whole, patch)
    if whole.ndim in (1, 3):
        whole = whole[..., np.newaxis]
    if whole.ndim not in (2, 4):
        raise OptionError(f"Predictions must have the shape {_SHAPES}; got {whole.shape}.")
    channels = whole.shape[-1]
    if bands is None:
        bands = ["prediction"] if channels == 1 else [f"prediction_{i}" for i in range(channels)]
    if channels != len(bands) or not channels:
        hint = (
            f" An array band is given by its name: {{{bands[0]!r}: predictions}}." if len(bands) == 1 else ""
        )
        raise OptionError(f"There are {channels} channels for the {len(bands)} bands {list(bands)}.{hint}")
    return {name: whole[..., i : i + 1] for i, name in enumerate(bands)}


def _refuse_single_patch(array: npt.NDArray[Any], patch: Size) -> None:
    """One patch without its first axis is more likely than as many pixels as it has rows."""
    if array.shape == patch.shape and patch.x > 1:
        raise OptionError(
            f"Predictions must have the shape {_SHAPES}; got {array.shape}. A single patch is "
            "patch[np.newaxis]. If they are pixels indeed, begin with another number of them."
        )


@dataclass(frozen=True)
class PredictionFormat:
    """What the first predictions settle for all of a file.

    Parameters
    ----------
    unit : {"patch", "pixel"}
        What a user gives and counts; records are of patches in either case.
    stored : Size
        Pixels of the patch of a record.
    layout : RecordLayout
    """

    unit: Unit
    stored: Size
    layout: RecordLayout

    @classmethod
    def of(cls, arrays: BandArrays, patch: Size, feature_types: FeatureTypes) -> PredictionFormat:
        """From the first predictions.

        Raises
        ------
        OptionError
            If their size does not fit the patches, or they cannot be written.
        """
        first = next(iter(arrays.values()))
        stored = Size(x=first.shape[2], y=first.shape[1]) if first.ndim == 4 else patch
        extra = (stored.x - patch.x, stored.y - patch.y)
        if any(pixels < 0 or pixels % 2 for pixels in extra):
            deep = next((array for array in arrays.values() if array.shape[-1] > 1), None)
            hint = ""
            if deep is not None and deep.shape[2:] == patch.shape:
                hint = " Channels come last, as Keras gives them: np.moveaxis(values, 1, -1)."
            raise OptionError(
                f"Predictions are {stored.x} pixels wide and {stored.y} high; patches are {patch.x} wide and "
                f"{patch.y} high: expected that, or the same with a margin on both sides.{hint}"
            )
        features = []
        for name, array in arrays.items():
            if not array.shape[-1]:
                raise OptionError(f"Band {name!r} has no values: its shape is {array.shape}.")
            size = stored.pixels * array.shape[-1]
            features.append(Feature.of(name, array.dtype, size, feature_types))
        return cls(_unit(first), stored, RecordLayout(tuple(features)))

    def fit(self, arrays: BandArrays) -> list[npt.NDArray[Any]]:
        """The values as they are encoded, if they are like the first ones.

        Raises
        ------
        OptionError
            If shapes differ, or a list cannot carry the values.
        """
        first = next(iter(arrays.values()))
        unit = _unit(first)
        if unit != self.unit:
            raise OptionError(
                f"Predictions were {UNITS[self.unit]} before, now {UNITS[unit]}: one file takes one of "
                "the two."
            )
        if unit == "patch" and first.shape[1:3] != self.stored.shape:
            raise OptionError(
                f"Predictions were {self.stored.shape} pixels (height, width) before, now {first.shape[1:3]}."
            )
        for feature in self.layout.features:
            depth, found = feature.size // self.stored.pixels, arrays[feature.name].shape[-1]
            if depth != found:
                raise OptionError(f"Band {feature.name!r} had {depth} values per pixel before, now {found}.")
        return [_fit(feature, arrays[feature.name]) for feature in self.layout.features]


def _unit(array: npt.NDArray[Any]) -> Unit:
    """What an array of predictions is made of."""
    return "patch" if array.ndim == 4 else "pixel"


def _fit(feature: Feature, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Refuse values that a feature's list cannot carry."""
    kind = array.dtype.kind
    if feature.kind == "float":
        if kind in "iu" and array.dtype.itemsize > 2 and array.size:
            largest = max(abs(int(array.min())), abs(int(array.max())))
            if largest > FLOAT32_EXACT:
                raise OptionError(
                    f"Band {feature.name!r} holds {largest}, which float32 cannot carry exactly: write it as "
                    "integers with feature_types='band'."
                )
        fits = kind in "biuf"
    elif feature.kind == "bytes":
        fits = array.dtype in (np.dtype(bool), np.dtype(np.uint8))
    else:
        fits = kind in "iu"
    if not fits:
        raise OptionError(
            f"Band {feature.name!r} is written as {feature.kind}; {array.dtype} values do not fit in."
        )
    if feature.kind == "int64" and array.dtype == np.uint64:
        if array.size and array.max() > np.iinfo(np.int64).max:
            raise OptionError(f"Band {feature.name!r} holds {array.max()}, which int64 cannot carry.")
        return array.astype(np.int64)  # joined with other integers it would become float64
    return array.astype(np.float32) if feature.kind == "float" else array
