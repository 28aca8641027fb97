"""Tests of the stores that stage shards: repeated tasks, in any order, give the same files or an error."""

from __future__ import annotations

import gzip
import os
from itertools import pairwise

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from xee_tf.errors import DestinationError, DestinationExistsError
from xee_tf.records import Feature, RecordLayout, encode_records
from xee_tf.records.crc import combine_crcs
from xee_tf.shards.members import HEAD_BYTES, read_index
from xee_tf.shards.part_store import AppendingStore, PartStore
from xee_tf.shards.runs import pack_run
from xee_tf.shards.store import OneFile, Replaced
from xee_tf.storage import Location

LAYOUT = RecordLayout((Feature.of("B4", "float32", 3),))


def records(count, seed=0):
    return encode_records(LAYOUT, [np.random.default_rng(seed).random((count, 3), "f4")])


def put_all(store, encoded, edges=(0, 2, 5, 6, 9)):
    """Put one block for each pair of edges, in reverse order."""
    parts = []
    for number, (begin, end) in reversed(list(enumerate(pairwise(edges)))):
        run = pack_run(encoded, [begin, end], compressed=store.names.compressed, first=begin)
        parts.append([store.put(0, str(number), [run])])
    return parts


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_parts_are_joined_in_order_of_records(tmp_path, compressed, where):
    folder = Location.of(tmp_path if where == "disk" else f"memory://{tmp_path.name}-{compressed}")
    store = PartStore.begin(OneFile(folder.child("s-0"), compressed))
    encoded = records(9)
    shard = store.join(0, 100, put_all(store, encoded))
    target = folder.child("s-0")
    [info] = store.commit([shard], [(folder.child("s-mark"), b"whole")])
    data = target.read_bytes()
    assert (info.records, info.bytes, info.crc32c) == (9, len(data), crc32c(data))
    assert (gzip.decompress(data) if compressed else data) == encoded.buffer.tobytes()
    if compressed:
        index = read_index(data[:HEAD_BYTES])
        assert (index.first_record, index.records, sum(index.sizes)) == (100, (2, 3, 1, 3), len(data))
    assert sorted(folder.entries()) == ["s-0", "s-mark"]


def test_repeated_tasks_give_same_result(tmp_path):
    store = PartStore.begin(OneFile(Location.of(tmp_path / "s-0"), compressed=True))
    encoded = records(9)
    blocks = put_all(store, encoded)
    assert put_all(store, encoded) == blocks
    shard = store.join(0, 0, blocks)
    assert store.join(0, 0, blocks) == shard  # its parts no longer exist
    targets = [Location.of(tmp_path / "s-0")]
    assert store.commit([shard]) == store.commit([shard])
    replaced = Replaced(targets, "s-0 exists")  # the store itself wrote it
    assert store.commit([shard], replaced=replaced)[0].bytes == shard.file.bytes
    targets[0].write_bytes(b"another")
    with pytest.raises(DestinationError, match="Shard 0 is missing from"):
        store.commit([shard])


def test_existing_files_are_kept_unless_replaceable(tmp_path):
    target, stale = tmp_path / "s-0", tmp_path / "s-1"
    for path in (target, stale):
        path.write_bytes(b"old")
    files = [Location.of(path) for path in (stale, target)]
    for error_message in ("s-0 exists", None):
        store = PartStore.begin(OneFile(Location.of(tmp_path / "s-0"), compressed=False))
        shard = store.join(0, 0, put_all(store, records(9)))
        replaced = Replaced(files, error_message)
        if error_message:
            with pytest.raises(DestinationExistsError, match="s-0 exists"):
                store.commit([shard], [(Location.of(tmp_path / "mark"), b"")], replaced=replaced)
            assert target.read_bytes() == stale.read_bytes() == b"old"
            assert sorted(os.listdir(tmp_path)) == ["s-0", "s-1"]
    store.commit([shard], replaced=replaced)
    assert os.listdir(tmp_path) == ["s-0"]
    assert target.stat().st_size == shard.file.bytes


def test_truncated_part(tmp_path):
    store = PartStore.begin(OneFile(Location.of(tmp_path / "s-0"), compressed=False))
    [[part], *_] = blocks = put_all(store, records(9))
    path = store.folder.child(part.name).path
    os.truncate(path, os.path.getsize(path) - 1)
    with pytest.raises(DestinationError, match="was truncated"):
        store.join(0, 0, blocks)
    store.abort()
    assert not os.listdir(tmp_path)


def test_empty_shard(tmp_path):
    store = PartStore.begin(OneFile(Location.of(tmp_path / "s-0"), compressed=True))
    run = pack_run(records(0), [0], compressed=True, first=0)
    shard = store.join(0, 0, [[store.put(0, "0", [run])]])
    store.commit([shard])
    assert gzip.decompress((tmp_path / "s-0").read_bytes()) == b""


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_appending_store(tmp_path, compressed, where):
    folder = Location.of(tmp_path if where == "disk" else f"memory://{tmp_path.name}-{compressed}")
    target = folder.child("s.tfrecord.gz")
    store = AppendingStore.begin(OneFile(target, compressed))
    store.reserve(4)
    encoded, edges = records(9), [0, 2, 5, 6, 9]
    parts = [
        store.put(0, str(begin), [pack_run(encoded, [begin, end], compressed=compressed, first=begin)])
        for begin, end in pairwise(edges)
    ]
    [info] = store.commit([store.join(0, 0, [parts])])
    data = target.read_bytes()
    assert (info.records, info.bytes, info.crc32c) == (9, len(data), crc32c(data))
    assert (gzip.decompress(data) if compressed else data) == encoded.buffer.tobytes()
    if compressed:
        assert read_index(data).records == (2, 3, 1, 3)
    assert sorted(folder.entries()) == ["s.tfrecord.gz"]
    assert not store.folder.exists()


@pytest.mark.parametrize("compressed", [True, False])
def test_empty_appending_store(tmp_path, compressed):
    target = Location.of(tmp_path / "s")
    store = AppendingStore.begin(OneFile(target, compressed))
    store.commit([store.join(0, 0, [])])
    data = target.read_bytes()
    assert (gzip.decompress(data) if compressed else data) == b""
    AppendingStore.begin(OneFile(target, compressed)).abort()
    assert os.listdir(tmp_path) == ["s"]


@given(st.binary(max_size=50), st.binary(max_size=500))
def test_combine_crcs(first, second):
    assert combine_crcs(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)
