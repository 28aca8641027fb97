"""Augment patches, normalize inputs, and encode and weight classes, in batches of a `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xee_tf.extras import extra

with extra("tensorflow", "A tf.data.Dataset"):
    import tensorflow as tf

__all__ = [
    "all_bands",
    "class_weights",
    "map_with_seeds",
    "one_hot",
    "product",
    "scaled",
    "with_d4",
    "without_nan",
]


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

    return map_with_seeds(turned, data, seed)


def map_with_seeds(
    function: Callable[[Any, Any], Any], data: tf.data.Dataset, seed: int | None
) -> tf.data.Dataset:
    """Call a function with each element and a pair of random seeds, which differ in each epoch."""
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
    pairs = tf.data.Dataset.zip(data, seeds)
    return pairs.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


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


def scaled(scaling: NDArray[np.float32]) -> Callable[[Any], Any]:
    """Return a function that subtracts the offsets of bands and divides by their scales."""
    return lambda tensor: (tensor - scaling[0]) / scaling[1]


def one_hot(classes: int, dtype: Any) -> Callable[[Any], Any]:
    """Return a function from class numbers on an axis of length 1 to a last axis of zeros and ones."""
    return lambda tensor: tf.one_hot(tf.cast(tensor[..., 0], tf.int64), classes, dtype=dtype)


def all_bands(tensor: Any) -> Any:
    """Return the product of all bands, on an axis of length 1."""
    return tf.reduce_prod(tensor, axis=-1, keepdims=True)


def without_nan(tensor: Any) -> Any:
    """Replace NaN by 0."""
    return tf.where(tf.math.is_nan(tensor), tf.zeros((), tensor.dtype), tensor)


def class_weights(weights: Mapping[float, float]) -> Callable[[Any], Any]:
    """Return a function from class numbers in float64 to their weights; those of other classes are 1."""
    keys = sorted(weights)
    known = np.array(keys, "float64")
    values = np.array([weights[key] for key in keys], "float32")

    def weighted(tensor: Any) -> Any:
        flat = tf.reshape(tensor, (-1,))
        at = tf.minimum(tf.searchsorted(known, flat), len(keys) - 1)
        found = tf.where(tf.equal(tf.gather(known, at), flat), tf.gather(values, at), 1)
        return tf.reshape(found, tf.shape(tensor))

    return weighted


def product(factors: Sequence[Any], like: Any) -> Any:
    """Multiply factors, and repeat the product to the shape of the targets `like`, with a last axis of 1."""
    result = tf.ones((), tf.float32)
    rank = len(like.shape)
    for factor in factors:
        # A factor of whole records is repeated at each pixel, one of scalar bands at each step.
        missing = rank - len(factor.shape)
        lead = tf.shape(factor)[:1]
        rest = tf.shape(factor)[1:]
        result = result * tf.reshape(factor, tf.concat([lead, tf.ones(missing, tf.int32), rest], 0))
    shape = tf.concat([tf.shape(like)[:-1], [1]], 0)
    return tf.ensure_shape(tf.broadcast_to(result, shape), [*like.shape[:-1], 1])
