"""Augment patches and encode classes, in batches of a `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xee_tf.errors import OptionError
from xee_tf.extras import extra
from xee_tf.geometry import Size

with extra("tensorflow", "A tf.data.Dataset"):
    import tensorflow as tf

__all__ = ["map_with_seeds", "one_hot_targets", "require_square", "with_d4"]


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


def one_hot_targets(tensor: Any, classes: int) -> Any:
    """Convert class numbers on an axis of length 1 to a last axis of `classes` zeros and ones."""
    return tf.one_hot(tf.cast(tensor[..., 0], tf.int64), classes, dtype=tensor.dtype)
