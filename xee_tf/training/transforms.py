"""Normalize inputs, augment patches, and encode classes, in batches of a `tf.data.Dataset`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.errors import OptionError, excerpt
from xee_tf.extras import extra
from xee_tf.geometry import Size

with extra("tensorflow", "A tf.data.Dataset"):
    import tensorflow as tf

__all__ = ["Normalize", "offsets_and_scales", "one_hot_targets", "require_square", "with_d4"]

Normalize = xr.Dataset | Mapping[str, tuple[float, float]]
"""The result of `xee_tf.band_statistics`, or the offset and the scale of each band."""


def offsets_and_scales(normalize: Normalize, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the offsets and the scales of bands, as an array (2, band).

    Raises
    ------
    OptionError
        If a band is missing, or its numbers are not finite, or its scale is 0.

    Examples
    --------
    >>> offsets_and_scales({"B4": (0.5, 2), "B3": (0, 1)}, ["B3", "B4"]).tolist()
    [[0.0, 0.5], [1.0, 2.0]]
    """
    numbers: dict[Any, Any]
    if isinstance(normalize, xr.Dataset):
        variables = set(map(str, normalize.variables))
        if not {"mean", "std", "band"} <= variables:
            raise OptionError(
                "normalize must be the result of xee_tf.band_statistics, with mean and std along band, or a "
                f"mapping of bands to (offset, scale); got a Dataset with {sorted(variables)}."
            )
        rows = zip(normalize["mean"].values, normalize["std"].values, strict=True)
        numbers = dict(zip(map(str, normalize["band"].values), rows, strict=True))
        # The values of a constant band are all its mean; 1 keeps them at 0.
        numbers = {name: (mean, std if std != 0 else 1.0) for name, (mean, std) in numbers.items()}
    elif isinstance(normalize, Mapping):
        numbers = dict(normalize.items())
    else:
        raise OptionError(
            "normalize must be the result of xee_tf.band_statistics, or a mapping of bands to (offset, "
            f"scale), such as {{'B4': (0.2, 0.1)}}; got {excerpt(normalize)}."
        )
    if missing := [name for name in dict.fromkeys(names) if name not in numbers]:
        raise OptionError(f"normalize lacks the inputs {missing}; it has {list(numbers)}. Add them.")
    try:
        found = np.array([numbers[name] for name in names], "float64").reshape(len(names), 2).T
    except (TypeError, ValueError):
        raise OptionError(
            f"normalize must have an offset and a scale for each band; got {excerpt(normalize)}."
        ) from None
    for name, offset, scale in zip(names, *found, strict=True):
        if not (math.isfinite(offset) and math.isfinite(scale) and np.float32(scale)):
            raise OptionError(
                f"normalize has the offset {offset:g} and the scale {scale:g} for {name!r}: both must be "
                "finite, and the scale not 0. A band that is masked everywhere has no statistics."
            )
    return found.astype("float32")


def require_square(area: Size) -> None:
    """Raise an error if patches cannot be rotated by 90 degrees."""
    if area.x != area.y:
        raise OptionError(
            f"augment='d4' rotates patches, which must be square; these have {area.x} x {area.y} pixels. "
            "Omit augment, or export square patches with a square kernel."
        )


def with_d4(data: tf.data.Dataset, seed: int | None) -> tf.data.Dataset:
    """Apply one of the eight symmetries of the square to each patch at random: to all tensors the same one.

    Parameters
    ----------
    data : tf.data.Dataset
        Tuples of tensors (batch, ..., height, width, band); those of rank 2, which are labels, do not change.
    seed : int, optional
        The random seed. The symmetries differ in each epoch.
    """

    def turned(tensors: Any, seeds: Any) -> Any:
        count = tf.shape(tensors[0])[0]
        bits = tf.random.stateless_uniform((3, count), seeds, 0, 2, tf.int32) > 0
        return tuple(tensor if len(tensor.shape) == 2 else _turned(tensor, bits) for tensor in tensors)

    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
    return tf.data.Dataset.zip(data, seeds).map(
        turned, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def _turned(tensor: Any, bits: Any) -> Any:
    rank = len(tensor.shape)
    others = (1,) * (rank - 1)
    y, x = rank - 3, rank - 2
    transposed = [*range(y), x, y, rank - 1]
    changes: Sequence[Callable[[Any], Any]] = (
        lambda values: tf.reverse(values, [y]),
        lambda values: tf.reverse(values, [x]),
        lambda values: tf.transpose(values, transposed),
    )
    for number, change in enumerate(changes):
        tensor = tf.where(tf.reshape(bits[number], (-1, *others)), change(tensor), tensor)
    return tensor


def one_hot_targets(tensor: Any, classes: int) -> Any:
    """Convert class numbers on an axis of length 1 to a last axis of `classes` zeros and ones."""
    return tf.one_hot(tf.cast(tensor[..., 0], tf.int64), classes, dtype=tensor.dtype)
