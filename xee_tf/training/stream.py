"""Read the serialized records of shards as a `tf.data.Dataset` of byte strings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from xee_tf.extras import extra
from xee_tf.records import FOOTER, HEADER
from xee_tf.shards import Shard, check_file, checked_rows, file_stamp

with extra("tensorflow", "A tf.data.Dataset"):
    import tensorflow as tf

__all__ = ["serialized_records"]

_OPEN_FILES = 16  # number of shards that are interleaved if records are shuffled
_READ_BYTES = 8 << 20


def serialized_records(
    shards: Sequence[Shard],
    order: Literal["order", "interleave", "shuffle"],
    seed: int | None,
    parallel: int | None,
    *,
    caches: Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Read serialized records: in order, or interleaved from several shards, which may be shuffled.

    `caches` are files in which the records of each shard are kept.
    """
    numbers = tf.data.Dataset.range(len(shards))
    read = _shard_reader(shards, caches)
    if caches is not None:
        paths = tf.constant(caches)
        read_shard = read

        def read(number: Any) -> tf.data.Dataset:
            return read_shard(number).cache(paths[number])

    if order == "order":
        return numbers.flat_map(read)
    if order == "shuffle":
        numbers = numbers.shuffle(len(shards), seed=seed)
    return numbers.interleave(
        read,
        cycle_length=min(len(shards), parallel or _OPEN_FILES),
        num_parallel_calls=parallel or tf.data.AUTOTUNE,
        deterministic=seed is not None,
    )


def _shard_reader(shards: Sequence[Shard], caches: Sequence[str] | None) -> Callable[[Any], tf.data.Dataset]:
    """Return a function from the index of a shard to its records."""
    if not all(shard.location.is_local for shard in shards):
        return lambda number: tf.data.Dataset.from_generator(
            lambda index: _stream(shards[index]),
            args=(number,),
            output_signature=tf.TensorSpec((), tf.string),
        )
    paths = tf.constant([shard.location.path for shard in shards])
    kinds = tf.constant(["" if shard.access == "plain" else "GZIP" for shard in shards])
    check = _checker(shards, caches)

    def read(number: Any) -> tf.data.Dataset:
        with tf.control_dependencies([tf.numpy_function(check, [number], [])]):
            path = tf.identity(paths[number])
        return tf.data.TFRecordDataset(path, kinds[number], buffer_size=_READ_BYTES)

    return read


def _checker(shards: Sequence[Shard], caches: Sequence[str] | None) -> Callable[[Any], None]:
    """Return a function that checks a file by its number, and again only if it has changed since.

    A file that is in the cache is not read, and not checked.
    """
    checked: dict[int, tuple[str, ...]] = {}

    def check(number: Any) -> None:
        if caches is not None and os.path.exists(f"{caches[number]}.index"):
            return
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
