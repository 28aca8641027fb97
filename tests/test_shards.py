"""Tests of the stores that stage shards: repeated tasks, in any order, give the same files or an error."""

from __future__ import annotations

import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from crc32c import crc32c
from dask.tokenize import tokenize
from hypothesis import given
from hypothesis import strategies as st

from xee_tf.errors import DestinationError, DestinationExistsError, StorageError
from xee_tf.records import Feature, RecordLayout, encode_records
from xee_tf.records.crc import combine_crcs
from xee_tf.shards.appending_store import AppendingStore
from xee_tf.shards.file_store import FileStore, place_runs, run_sizes
from xee_tf.shards.members import HEAD_BYTES, read_index
from xee_tf.shards.runs import pack_run
from xee_tf.shards.sequential_store import SequentialStore
from xee_tf.shards.shard import Shard
from xee_tf.shards.store import OneFile, commit_once
from xee_tf.storage import Earlier, Location, Staging, look

LAYOUT = RecordLayout((Feature.of("B4", "float32", 3),))


def new_store(kind, target, compressed, files=()):
    """Create a store of one file; `files` are those of an earlier result."""
    earlier = Earlier(lambda: [file for file in files if file.exists()], look(target, files))
    return kind(Staging.begin(target), OneFile(target, compressed), earlier)


def records(count, seed=0):
    return encode_records(LAYOUT, [np.random.default_rng(seed).random((count, 3), "f4")])


def put_all(store, encoded, edges=(0, 2, 5, 6, 9)):
    """Put one block for each pair of edges, in reverse order."""
    parts = []
    for number, (begin, end) in reversed(list(enumerate(pairwise(edges)))):
        run = pack_run(encoded, [begin, end], compressed=store.names.compressed, first=begin)
        parts.append([store.put(0, str(number), [run])])
    return parts


def finish(store, blocks, first_record=0):
    """Complete the shard, with a header of 200 bytes if it is compressed."""
    header = 200 if store.names.compressed else 0
    if isinstance(store, FileStore):
        offsets = place_runs({0: header}, [run_sizes(parts) for parts in blocks])
        blocks = [store.place(parts, offsets) for parts in blocks]
    return store.finish(0, first_record, header, blocks)


def spilling(*values):
    return FileStore(*values, spill=True)


WRITES = [FileStore, spilling, SequentialStore]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("kind", "where"), [*((kind, "disk") for kind in WRITES), (SequentialStore, "memory")]
)
def test_parts_are_joined_in_order_of_records(tmp_path, compressed, kind, where):
    folder = Location.of(tmp_path if where == "disk" else f"memory://{tmp_path.name}-{compressed}")
    store = new_store(kind, folder.child("s-0"), compressed)
    encoded = records(9)
    shard = finish(store, put_all(store, encoded), first_record=100)
    target = folder.child("s-0")
    [info] = store.commit([shard], [(folder.child("s-mark"), b"whole")])
    data = target.read_bytes()
    assert (info.records, info.bytes, info.crc32c) == (9, len(data), crc32c(data))
    assert (gzip.decompress(data) if compressed else data) == encoded.buffer.tobytes()
    if compressed:
        index = read_index(data[:HEAD_BYTES])
        assert (index.first_record, index.records, sum(index.sizes)) == (100, (2, 3, 1, 3), len(data))
    assert sorted(folder.entries()) == ["s-0", "s-mark"]


@pytest.mark.parametrize("kind", WRITES)
def test_repeated_tasks_give_same_result(tmp_path, kind):
    store = new_store(kind, Location.of(tmp_path / "s-0"), True)
    encoded = records(9)
    blocks = put_all(store, encoded)
    assert put_all(store, encoded) == blocks
    shard = finish(store, blocks)
    assert finish(store, blocks).to_json() == shard.to_json()  # its parts no longer exist
    mark = (Location.of(tmp_path / "s-mark"), b"whole")
    assert store.commit([shard], [mark]) == store.commit([shard], [mark])  # the store itself wrote it
    assert crc32c((tmp_path / "s-0").read_bytes()) == shard.file.crc32c
    mark[0].write_bytes(b"another")
    with pytest.raises(DestinationError, match=r"its temporary file in .* is missing"):
        store.commit([shard], [mark])


def test_existing_files_are_kept_unless_replaceable(tmp_path):
    target, stale = tmp_path / "s-0", tmp_path / "s-1"
    for path in (target, stale):
        path.write_bytes(b"old")
    files = [Location.of(path) for path in (stale, target)]
    store = new_store(FileStore, files[1], False, files)
    shard = finish(store, put_all(store, records(9)))
    target.write_bytes(b"by another program")
    with pytest.raises(DestinationExistsError, match="s-0 was written after this run was planned"):
        store.commit([shard], [(Location.of(tmp_path / "mark"), b"")])
    assert (target.read_bytes(), stale.read_bytes()) == (b"by another program", b"old")
    store.abort()
    assert sorted(os.listdir(tmp_path)) == ["s-0", "s-1"]
    store = new_store(FileStore, files[1], False, files)
    shard = finish(store, put_all(store, records(9)))
    store.commit([shard])
    assert os.listdir(tmp_path) == ["s-0"]
    assert target.stat().st_size == shard.file.bytes


@pytest.mark.parametrize("compressed", [True, False])
def test_staged_file_that_was_put_in_place_meanwhile(tmp_path, compressed):
    """Another thread computes the same Delayed."""
    store = new_store(FileStore, Location.of(tmp_path / "s-0"), compressed)
    first, *rest = put_all(store, records(9))
    sizes = [run_sizes(parts) for parts in (first, *rest)]
    offsets = place_runs({0: 100 if compressed else 0}, sizes)
    placed = [store.place(first, offsets)]
    store.staged(0).move(store.names.prefix)
    placed += [store.place(parts, offsets) for parts in rest]
    with pytest.raises(DestinationError, match=r"were removed\. Call the function again"):
        store.finish(0, 0, 100 if compressed else 0, placed)


@pytest.mark.parametrize("found", [["result"], [None, "result"]])
def test_a_complete_result_is_returned_if_cleaning_up_fails(tmp_path, found):
    class Undeletable(FileStore):
        def discard(self):
            raise DestinationError("cannot be deleted")

    def commit():
        raise DestinationError("another thread has moved the staged files")

    store = new_store(Undeletable, Location.of(tmp_path / "s-0"), True)
    assert commit_once(store, iter(found).__next__, commit) == "result"


def test_a_write_is_released_if_its_folder_cannot_be_listed(tmp_path, monkeypatch):
    def entries(self):
        raise StorageError("cannot be listed")

    target = Location.of(tmp_path / "s-0")
    store = FileStore(Staging.begin(target), OneFile(target, True), Earlier(list, {}, {}))
    finish(store, put_all(store, records(9)))
    monkeypatch.setattr(Location, "entries", entries)
    store.abort()
    assert store.receipt(0).exists()
    assert store.staging.folder.child("released").exists()


def test_staging_folder_that_was_removed_meanwhile(tmp_path):
    store = new_store(FileStore, Location.of(tmp_path / "s-0"), True)
    blocks = put_all(store, records(9))
    store.staging.remove()
    with pytest.raises(DestinationError, match=r"were removed\. Call the function again"):
        store.finish(0, 0, 100, blocks)


def test_truncated_part(tmp_path):
    store = new_store(spilling, Location.of(tmp_path / "s-0"), False)
    [[part], *_] = blocks = put_all(store, records(9))
    path = store.staging.folder.child(part.name).path
    os.truncate(path, os.path.getsize(path) - 1)
    with pytest.raises(DestinationError, match="was truncated"):
        finish(store, blocks)
    store.abort()
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("kind", WRITES)
def test_empty_shard(tmp_path, kind):
    store = new_store(kind, Location.of(tmp_path / "s-0"), True)
    run = pack_run(records(0), [0], compressed=True, first=0)
    shard = finish(store, [[store.put(0, "0", [run])]])
    store.commit([shard])
    assert gzip.decompress((tmp_path / "s-0").read_bytes()) == b""


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_appending_store(tmp_path, compressed, where):
    folder = Location.of(tmp_path if where == "disk" else f"memory://{tmp_path.name}-{compressed}")
    target = folder.child("s.tfrecord.gz")
    store = new_store(AppendingStore, target, compressed)
    store.reserve(4)
    encoded, edges = records(9), [0, 2, 5, 6, 9]
    parts = [
        store.put(0, str(begin), [pack_run(encoded, [begin, end], compressed=compressed, first=begin)])
        for begin, end in pairwise(edges)
    ]
    [info] = store.commit([store.finish(0, [parts])])
    data = target.read_bytes()
    assert (info.records, info.bytes, info.crc32c) == (9, len(data), crc32c(data))
    assert (gzip.decompress(data) if compressed else data) == encoded.buffer.tobytes()
    if compressed:
        assert read_index(data).records == (2, 3, 1, 3)
    assert sorted(folder.entries()) == ["s.tfrecord.gz"]
    assert not store.staging.folder.exists()


@pytest.mark.parametrize("compressed", [True, False])
def test_empty_appending_store(tmp_path, compressed):
    target = Location.of(tmp_path / "s")
    store = new_store(AppendingStore, target, compressed)
    store.commit([store.finish(0, [])])
    data = target.read_bytes()
    assert (gzip.decompress(data) if compressed else data) == b""
    new_store(AppendingStore, target, compressed).abort()
    assert os.listdir(tmp_path) == ["s"]


@given(st.binary(max_size=50), st.binary(max_size=500))
def test_combine_crcs(first, second):
    assert combine_crcs(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


def test_opening_a_shard_does_not_wait_for_tokens():
    first, second = (Shard(Location(f"s{number}"), 0, "plain", stamp=("1",)) for number in (0, 1))
    pool = ThreadPoolExecutor(1)

    class Waiting:
        def __dask_tokenize__(self):  # Dask holds its lock here
            return pool.submit(lambda: first.identity).result(timeout=9)

    with pool:
        assert tokenize(Waiting()) == tokenize(Waiting())
    assert first.identity != second.identity != replace(second, stamp=("2",)).identity
