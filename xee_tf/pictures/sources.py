"""Read the patches of a sheet: from an export, a raster, a dataset of patches, or arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from xee_tf.display import quoted
from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import PatchGrid
from xee_tf.options import did_you_mean, read_names
from xee_tf.reading import ReadOptions, lazy_dataset, open_export
from xee_tf.training import Patches, PatchSequence, patches_of

__all__ = ["Batch", "Shown", "Wanted", "read_patches"]

Batch = ArrayLike | Mapping[str, ArrayLike] | Sequence[ArrayLike | Mapping[str, ArrayLike]]
"""Patches in memory: an array (patch, y, x) or (patch, y, x, band), a mapping of band to array, or a batch
``(inputs, targets)`` of `xee_tf.PatchSequence` and `xee_tf.tf_dataset`."""

_COLORS = (("red", "green", "blue"), ("b4", "b3", "b2"), ("b04", "b03", "b02"), ("nir", "red", "green"))
"""Names of bands, in lower case, that are red, green and blue if all are there."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks for.

    Parameters
    ----------
    n : int
        Maximum number of patches.
    seed : int or None
        Seed of a random choice; None for the first patches.
    rgb : tuple of str
        Names of three bands, or of one; empty for a choice by their names.
    labels : str or array-like, optional
        The band of labels, or its values.
    step : int
        Step of bands with other dimensions.
    storage_options : mapping, optional
        Options for fsspec.
    """

    n: int
    seed: int | None
    rgb: tuple[str, ...]
    labels: Any
    step: int
    storage_options: Mapping[str, Any] | None = None

    def places(self, count: int) -> NDArray[np.int64]:
        """Return the places of the patches to show, in ascending order."""
        n = min(self.n, count)
        if self.seed is None:
            return np.arange(n)
        return np.sort(np.random.default_rng(self.seed).choice(count, n, replace=False))

    def bands(self, available: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
        """Return the bands of the image, and the band of labels."""
        label = self.labels if isinstance(self.labels, str) else None
        for option, names in (("labels", () if label is None else (label,)), ("rgb", self.rgb)):
            for name in names:
                if name not in available:
                    raise OptionError(
                        f"{option} has {name!r}, which is no band; available: {quoted(available)}."
                        f"{did_you_mean(name, available)}"
                    )
        if self.rgb:
            return self.rgb, label
        others = [name for name in available if name != label]
        by_name = {name.lower(): name for name in others}
        for names in _COLORS:
            if all(name in by_name for name in names):
                return tuple(by_name[name] for name in names), label
        return tuple(others[:3] if len(others) >= 3 else others[:1]), label


@dataclass(frozen=True)
class Shown:
    """The patches of a sheet.

    Parameters
    ----------
    bands : mapping of str to ndarray
        The bands of the image, (patch, y, x).
    masks : mapping of str to ndarray of bool
        Which of their pixels are masked.
    labels : ndarray, optional
        Labels, (patch, y, x).
    labels_mask : ndarray of bool, optional
        Which of them are masked.
    names : sequence of str
        A title for each patch.
    margin : (x, y)
        The margin of the patches in pixels.
    attrs : mapping
        Attributes of the labels.
    """

    bands: Mapping[str, NDArray[Any]]
    masks: Mapping[str, NDArray[np.bool_]]
    labels: NDArray[Any] | None
    labels_mask: NDArray[np.bool_] | None
    names: Sequence[str]
    margin: tuple[int, int] = (0, 0)
    attrs: Mapping[Any, Any] = field(default_factory=dict)


def read_patches(source: Any, wanted: Wanted) -> Shown:
    """Read the patches to show, and no others."""
    if isinstance(source, Patches | PatchSequence):
        return _from_raster(patches_of(source), wanted)
    if isinstance(source, xr.Dataset):
        return _from_dataset(source, wanted)
    if isinstance(source, tuple | list | Mapping) or (hasattr(source, "shape") and hasattr(source, "dtype")):
        return _from_arrays(source, wanted)
    if isinstance(source, PatchGrid) or not source:
        raise _source_error(source)
    return _from_export(source, wanted)


def _source_error(source: Any) -> OptionError:
    return OptionError(
        "source must be an export (its path or result), the result of xee_tf.open_patches, an "
        "xee_tf.PatchSequence, a batch, an array (patch, y, x, band), or a Dataset with the dimension patch, "
        f"as xee_tf.open_image(..., margins='keep') returns it; got {shorten(repr(source))}."
    )


def _from_export(source: Any, wanted: Wanted) -> Shown:
    _require_name(wanted.labels)
    export = open_export(source, ReadOptions(storage_options=wanted.storage_options))
    names, label = wanted.bands([band.name for band in export.bands])
    count = len(export.grid) if export.patches is None else len(export.patches)
    numbers = wanted.places(count) if export.patches is None else export.patches[wanted.places(count)]
    dataset = lazy_dataset(export, "keep", None)
    used = list(dict.fromkeys((*names, *([] if label is None else [label]))))
    found = {
        name: np.concatenate(
            [dataset[name].variable[int(number) : int(number) + 1].to_numpy() for number in numbers]
        )
        for name in used
    }
    default = {name: export.band(name).default for name in used}
    statistics = export.statistics or {}
    for name in used:
        if name in statistics and not statistics[name].masked and export.grid.margin.xy == (0, 0):
            default[name] = None  # no pixel is masked
    return _shown(found, default, names, label, numbers, export.grid.margin.xy, wanted)


def _from_raster(patches: Patches, wanted: Wanted) -> Shown:
    _require_name(wanted.labels)
    names, label = wanted.bands(patches.bands)
    places = wanted.places(len(patches))
    found = patches[places.tolist()]
    default = patches.default_values
    margin = patches.grid.margin.xy
    return _shown(found, default, names, label, patches.numbers[places], margin, wanted)


def _from_dataset(dataset: xr.Dataset, wanted: Wanted) -> Shown:
    _require_name(wanted.labels)
    bands = [str(name) for name, each in dataset.data_vars.items() if "patch" in each.dims and each.ndim >= 3]
    if not bands:
        raise _source_error(dataset)
    names, label = wanted.bands(bands)
    numbers = wanted.places(dataset.sizes["patch"])
    used = dataset[list(dict.fromkeys((*names, *([] if label is None else [label]))))].isel(patch=numbers)
    found = {str(name): used[name].transpose("patch", ..., "y", "x").to_numpy() for name in used.data_vars}
    attrs = {} if label is None else dataset[label].attrs
    return _shown(found, {}, names, label, numbers, (0, 0), wanted, attrs)


def _from_arrays(source: Any, wanted: Wanted) -> Shown:
    targets: Any = None
    if isinstance(source, tuple | list) and source and len(source) <= 3 and not np.isscalar(source[0]):
        source, targets = source[0], source[1] if len(source) > 1 else None
    stacked = source if isinstance(source, Mapping) else {"": source}
    bands: dict[str, NDArray[Any]] = {}
    for key, value in stacked.items():
        array = np.asarray(value)
        if not 3 <= array.ndim <= 5:
            raise _source_error(source)
        if array.ndim == 5:  # with steps
            array = array[:, _step_of(wanted.step, array.shape[1])]
        if array.ndim == 3:
            array = array[..., None]
        several = array.shape[-1] > 1
        for at in range(array.shape[-1]):
            bands[f"{key}{at}" if several and not key else f"{key}[{at}]" if several else str(key)] = array[
                ..., at
            ]
    wanted_labels = wanted.labels if wanted.labels is not None else targets
    if isinstance(wanted_labels, Mapping):
        wanted_labels = next(iter(wanted_labels.values()), None)
    names, label = wanted.bands(list(bands))
    count = len(next(iter(bands.values())))
    places = wanted.places(count)
    if label is None and wanted_labels is not None:
        label = "labels"
        bands[label] = _label_array(wanted_labels, count, wanted.step)
    found = {name: bands[name][places] for name in {*names, *([] if label is None else [label])}}
    return _shown(found, {}, names, label, places, (0, 0), wanted)


def _label_array(labels: Any, count: int, step: int) -> NDArray[Any]:
    """Return labels as (patch, y, x); one-hot labels become numbers."""
    array = np.asarray(labels)
    if array.ndim == 5:
        array = array[:, _step_of(step, array.shape[1])]
    if array.ndim == 4:
        array = array[..., 0] if array.shape[-1] == 1 else array.argmax(-1)
    if array.ndim != 3 or len(array) != count:
        raise OptionError(
            f"labels must be the name of a band, or an array of shape (patch, y, x) for {count} patches; got "
            f"an array of shape {array.shape}."
        )
    return array


def _require_name(labels: Any) -> None:
    if labels is not None:
        read_names(labels, "labels", ("landcover",))
        if not isinstance(labels, str):
            raise OptionError(
                f"labels must be the name of one band, such as 'landcover'; got {shorten(repr(labels))}."
            )


def _step_of(step: int, length: int) -> int:
    if not 0 <= step < length:
        raise OptionError(f"step must be from 0 to {length - 1}, the steps of the bands; got {step}.")
    return step


def _shown(
    found: Mapping[str, NDArray[Any]],
    default: Mapping[str, float | None],
    names: Sequence[str],
    label: str | None,
    numbers: NDArray[np.int64],
    margin: tuple[int, int],
    wanted: Wanted,
    attrs: Mapping[Any, Any] | None = None,
) -> Shown:
    bands, masks = {}, {}
    for name, values in found.items():
        if values.ndim > 3:
            values = values.reshape(len(values), -1, *values.shape[-2:])
            values = values[:, _step_of(wanted.step, values.shape[1])]
        bands[name] = values
        value = default.get(name)
        masked = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        masks[name] = masked if value is None else masked | (values == values.dtype.type(value))
    return Shown(
        {name: bands[name] for name in names},
        {name: masks[name] for name in names},
        None if label is None else bands[label],
        None if label is None else masks[label],
        [f"{number:,}" for number in numbers.tolist()],
        margin,
        attrs or {},
    )
