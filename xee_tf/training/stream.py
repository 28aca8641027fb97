"""Read the serialized records of shards as a `tf.data.Dataset` of byte strings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from xee_tf.extras import extra
from xee_tf.records import FOOTER, HEADER
from xee_tf.shards import Shard, check_file, checked_rows, file_stamp

with extra("tensorflow", "A tf.data.Dataset"):
    import tensorflow as tf

__all__ = ["serialized_records"]

_OPEN_FILES = 16  # number of shards that are interleaved if records are shuffled
_READ_BYTES = 8 << 20


def serialized_records(
    shards: Sequence[Shard], shuffle: bool | int, seed: int | None, parallel: int | None
) -> tf.data.Dataset:
    """Read serialized records: in order, or interleaved from several shards if shuffled."""
    numbers = tf.data.Dataset.range(len(shards))
    if not shuffle:
        return numbers.flat_map(_shard_reader(shards))
    return numbers.shuffle(len(shards), seed=seed).interleave(
        _shard_reader(shards),
        cycle_length=min(len(shards), parallel or _OPEN_FILES),
        num_parallel_calls=parallel or tf.data.AUTOTUNE,
        deterministic=seed is not None,
    )


def _shard_reader(shards: Sequence[Shard]) -> Callable[[Any], tf.data.Dataset]:
    """Return a function from the index of a shard to its records."""
    if not all(shard.location.is_local for shard in shards):
        return lambda number: tf.data.Dataset.from_generator(
            lambda index: _stream(shards[index]),
            args=(number,),
            output_signature=tf.TensorSpec((), tf.string),
        )
    paths = tf.constant([shard.location.path for shard in shards])
    kinds = tf.constant(["" if shard.access == "plain" else "GZIP" for shard in shards])
    check = _checker(shards)

    def read(number: Any) -> tf.data.Dataset:
        with tf.control_dependencies([tf.numpy_function(check, [number], [])]):
            path = tf.identity(paths[number])
        return tf.data.TFRecordDataset(path, kinds[number], buffer_size=_READ_BYTES)

    return read


def _checker(shards: Sequence[Shard]) -> Callable[[Any], None]:
    """Return a function that checks a file by its number, and again only if it has changed since."""
    checked: dict[int, tuple[str, ...]] = {}

    def check(number: Any) -> None:
        shard = shards[number]
        stamp = file_stamp(shard.location, {})
        if checked.get(number) != stamp:
            check_file(shard)
            checked[number] = stamp

    return check


def _stream(shard: Shard) -> Iterator[bytes]:
    """Yield the records of a file one by one; they are compared with its manifest."""
    for rows in checked_rows(shard):
        for row in rows:
            yield row[HEADER:-FOOTER].tobytes()
