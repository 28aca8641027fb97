"""Read the serialized records of shards as a `tf.data.Dataset` of byte strings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xee_tf.extras import extra
from xee_tf.records import FOOTER, HEADER
from xee_tf.shards import Shard, check_file, checked_rows, file_stamp
from xee_tf.training.pieces import Pieces

with extra("tensorflow", "A tf.data.Dataset"):
    import tensorflow as tf

__all__ = ["ReadingOrder", "piece_numbers", "serialized_records"]

Reader = Callable[[Any], "tf.data.Dataset"]
"""A function from the number of a shard to its records."""

ReadingOrder = Literal["order", "interleave", "shuffle"]

_OPEN_FILES = 16  # number of shards that are interleaved if records are shuffled
_READ_BYTES = 8 << 20


def serialized_records(
    shards: Sequence[Shard],
    order: ReadingOrder,
    seed: int | None,
    parallel: int | None,
    *,
    pieces: Pieces | None = None,
    caches: Sequence[str] | None = None,
    chosen: Sequence[NDArray[np.int64]] | None = None,
) -> tf.data.Dataset:
    """Read serialized records: in order, or interleaved from several shards, which may be shuffled.

    Parameters
    ----------
    shards : sequence of Shard
        The files.
    order : {"order", "interleave", "shuffle"}
        In order; from several shards in turn; or from several places in random order.
    seed : int, optional
        The random seed.
    parallel : int, optional
        The number of shards or pieces to read at a time.
    pieces : Pieces, optional
        Parts of the shards that can be read separately.
    caches : sequence of str, optional
        Files in which the records of each shard are kept.
    chosen : sequence of ndarray of int, optional
        The records of each shard to keep, in order. Default: all.
    """
    calls = parallel or tf.data.AUTOTUNE
    exact = order != "shuffle" or seed is not None
    if pieces is not None and caches is None:
        numbers = piece_numbers(pieces, order, seed)
        return _read_pieces(numbers, pieces, num_parallel_calls=calls, deterministic=exact)
    numbers = tf.data.Dataset.range(len(shards))
    read = _shard_reader(shards, caches) if pieces is None else _pieces_of_shard(pieces)
    if chosen is not None and pieces is None:
        read = _filtered(read, shards, chosen)
    read = read if caches is None else _cached(read, caches)
    if order == "order":
        return numbers.flat_map(read)
    if order == "shuffle":
        numbers = numbers.shuffle(len(shards), seed=seed)
    return numbers.interleave(
        read,
        cycle_length=min(len(shards), parallel or _OPEN_FILES),
        num_parallel_calls=calls,
        deterministic=exact,
    )


def piece_numbers(pieces: Pieces, order: ReadingOrder, seed: int | None) -> tf.data.Dataset:
    """Return the numbers of pieces, in the order in which they are read; see `serialized_records`."""
    numbers = tf.data.Dataset.range(len(pieces))
    return numbers.shuffle(len(pieces), seed=seed) if order == "shuffle" else numbers


def _read_pieces(numbers: tf.data.Dataset, pieces: Pieces, **options: Any) -> tf.data.Dataset:
    """Read the records of pieces by their numbers; the options are those of `tf.data.Dataset.map`."""

    def read(number: Any) -> Any:
        found = tf.ensure_shape(tf.numpy_function(pieces.read, [number], tf.string), (None,))
        return tf.reshape(found, ()) if pieces.single else found

    data = numbers.map(read, **options)
    return data if pieces.single else data.unbatch()  # which copies each record


def _pieces_of_shard(pieces: Pieces) -> Reader:
    edges = tf.constant(pieces.edges)
    return lambda number: _read_pieces(tf.data.Dataset.range(edges[number], edges[number + 1]), pieces)


def _filtered(read: Reader, shards: Sequence[Shard], chosen: Sequence[NDArray[np.int64]]) -> Reader:
    """Keep some of the records of shards that can only be read from the start."""
    edges = np.cumsum([0, *(shard.records for shard in shards)])
    flags = np.zeros(edges[-1], bool)
    flags[np.concatenate([first + numbers for first, numbers in zip(edges, chosen, strict=False)])] = True
    kept, starts = tf.constant(flags), tf.constant(edges)

    def filtered(number: Any) -> tf.data.Dataset:
        start = starts[number]
        numbered = read(number).enumerate()
        return numbered.filter(lambda at, _: kept[start + at]).map(lambda _, record: record)

    return filtered


def _cached(read: Reader, caches: Sequence[str]) -> Reader:
    paths = tf.constant(caches)
    return lambda number: read(number).cache(paths[number])


def _shard_reader(shards: Sequence[Shard], caches: Sequence[str] | None) -> Reader:
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
