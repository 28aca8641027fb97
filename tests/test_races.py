"""Readers of an export while another process overwrites it, and writers of one export at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

import xee_tf
from tests.rasters import raster
from tests.test_claims import dead_process
from xee_tf.errors import DestinationError, DestinationExistsError
from xee_tf.identity import run_identity
from xee_tf.shards import OneFile, UploadStore
from xee_tf.storage import Earlier, Location, Staging, begin, commit, recover, write_note
from xee_tf.storage.journal import committed_here

OPTIONS = {"patch_dimensions": 16, "max_file_size": 3000, "if_exists": "overwrite"}
BANDS = ("B2", "B4")


def image(number):
    """Return an image whose pixels all are the number of its version, and noise that determines sizes."""
    noise = np.random.default_rng(number).random((64, 64), dtype="f4")
    return raster({"B2": np.full((64, 64), number, "f4"), "B4": noise}).chunk(y=32)


def write(prefix, options, count):
    for number in range(1, count + 1):
        image(number).tfexport(prefix, **OPTIONS, storage_options=options)


def whole(prefix, options):
    with_bands = xee_tf.open_image(prefix, storage_options=options).load()
    return with_bands["B2"].values, with_bands["B4"].values


def window(prefix, options):
    opened = xee_tf.open_image(prefix, storage_options=options, chunks=None)
    part = opened[list(BANDS)].isel(y=slice(40, 50), x=slice(3, 60)).load()
    return part["B2"].values, part["B4"].values


def verified(prefix, options):
    checked = xee_tf.verify(prefix, storage_options=options)
    if checked.problems:
        raise xee_tf.RecordError("; ".join(checked.problems))


def inspected(prefix, options):
    xee_tf.inspect(prefix, storage_options=options)


def trained(prefix, options):
    tf = pytest.importorskip("tensorflow")
    dataset = xee_tf.tf_dataset(prefix, inputs=list(BANDS), batch_size=64, storage_options=options)
    try:
        [batch] = list(dataset.as_numpy_iterator())
    except tf.errors.OpError as error:  # TensorFlow does not raise errors of Python
        raise xee_tf.RecordError(str(error)) from error
    return batch[..., 0], batch[..., 1]


def check(found):
    """Raise an error unless the pixels are those of one version."""
    if found is None:
        return
    numbers, noise = found
    assert len(np.unique(numbers)) == 1, np.unique(numbers)
    expected = image(int(numbers.flat[0]))["B4"].values
    assert np.isin(noise, expected).all()


READERS = [whole, window, verified, inspected, trained]


def race(readers, prefix, options, writer):
    """Read until the writer has ended; return how often each reader succeeded, and its errors."""
    counts, foreign = Counter(), []

    def read(reader):
        while writer.poll() is None:
            try:
                check(reader(prefix, options))
                counts[reader.__name__] += 1
            except xee_tf.XeeTFError as error:
                counts[f"{reader.__name__}: {type(error).__name__}"] += 1
                messages.add(f"{reader.__name__}: {type(error).__name__}: {error}")
            except Exception as error:
                foreign.append(f"{reader.__name__}: {type(error).__name__}: {error}")

    messages = set()
    threads = [threading.Thread(target=read, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts, messages, foreign


def run(prefix, options, count):
    code = f"from tests.test_races import write; write({prefix!r}, {options!r}, {count})"
    write(prefix, options, 1)
    with subprocess.Popen([sys.executable, "-c", code]) as writer:
        counts, messages, foreign = race(READERS, prefix, options, writer)
    assert writer.returncode == 0
    assert foreign == []
    assert all(counts[reader.__name__] for reader in READERS), counts
    for reader in READERS:
        check(reader(prefix, options))
    return counts, messages


@pytest.mark.long
def test_readers_and_a_writer_on_a_disk(tmp_path):
    run(str(tmp_path / "s"), {}, 50)


@pytest.mark.long
def test_readers_and_a_writer_in_s3(bucket):
    run(f"{bucket.url}/s", bucket.options, 50)


def in_threads(work, count=2):
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_that_write_one_file(tmp_path):
    """Neither takes the commit of the other for that of a dead process."""
    target, errors = Location.of(tmp_path / "file"), []

    def write():
        for _ in range(100):
            staging = None
            try:
                staging, earlier = begin(target, lambda: [target] if target.exists() else [], "overwrite")
                earlier.start(staging)
                staging.staged(target).write_bytes(b"content")
                commit(staging, [target], earlier=earlier)
            except DestinationExistsError:
                staging.remove()
            except Exception as error:
                errors.append(error)

    in_threads(write)
    assert not errors
    assert os.listdir(tmp_path) == ["file"]


def test_threads_that_delete_one_folder(tmp_path):
    staging = Staging.begin(Location.of(tmp_path / "file"))
    for number in range(1000):
        staging.folder.child(str(number)).make_parent()
        open(staging.folder.child(str(number)).path, "wb").close()
    in_threads(staging.remove, 4)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.usefixtures("small_blocks")
def test_threads_that_compute_one_delayed(tmp_path, compressed):
    """One of them may be refused, but what is written is whole."""
    write(str(tmp_path / "s"), {}, 1)
    options = OPTIONS | {"compressed": compressed, "compute": False}
    errors = []

    def compute():
        try:
            delayed.compute(scheduler="threads")
        except xee_tf.XeeTFError as error:
            errors.append(error)

    for number in (2, 3, 4):
        delayed = image(number).tfexport(tmp_path / "s", **options)
        in_threads(compute)
        assert len(errors) < number, errors
        assert not xee_tf.verify(tmp_path / "s").problems
        assert (whole(tmp_path / "s", {})[0] == number).all()


IDENTITY = run_identity({}, {}, "the same")


def resume(destination, files=list):
    return begin(destination, files, "resume", identity=IDENTITY)[0]


@pytest.fixture(params=["local", "memory"])
def interrupted(request, tmp_path):
    """A destination for which a process that was killed has staged something."""
    folder = tmp_path if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    destination = Location.of(folder).child("s")
    staging = Staging(destination, f"{dead_process()}-00000000")
    write_note(staging.folder.child("identity.json"), IDENTITY.to_json())
    return destination


def test_what_a_run_has_taken_up_is_not_deleted(interrupted):
    """It may not have begun to work."""
    first = resume(interrupted)
    assert resume(interrupted).token != first.token
    begin(interrupted, list, "overwrite")
    assert "identity.json" in first.folder.entries()


@pytest.mark.parametrize("error", [KeyboardInterrupt, DestinationError])
def test_what_a_run_has_taken_up_is_released_if_it_fails(interrupted, error):
    def look():
        raise error

    with pytest.raises(error):
        resume(interrupted, look)
    assert "identity.json" in resume(interrupted).folder.entries()


def test_a_refused_commit_keeps_what_another_thread_commits():
    file = Location.of(f"memory://{uuid.uuid4().hex}/s")
    staging, earlier = Staging.begin(file), Earlier(list, {}, IDENTITY.to_json())
    staging.staged(file).write_bytes(b"content")

    @dataclass
    class OtherThread:
        target: Location

        def complete(self):
            with pytest.raises(DestinationExistsError):
                commit(staging, [], uploads=[self], earlier=earlier)
            assert not staging.folder.child("released").exists()
            self.target.write_bytes(b"uploaded")

    commit(staging, [file], uploads=[OtherThread(file.with_suffix(".upload"))], earlier=earlier)
    assert sorted(file.parent.entries()) == ["s", "s.upload"]


def test_a_refused_commit_keeps_the_uploads_of_another_thread(bucket):
    file = Location(f"{bucket.url}/s", bucket.options)
    store = UploadStore(Staging.begin(file), OneFile(file, compressed=False), Earlier(list, {}))
    store.staging.folder.child("seen.json").write_bytes(b"")
    shard = store.finish(store.create_uploads([0]), 0, 0, 0, [], None)
    with committed_here(store.staging), pytest.raises(DestinationExistsError):
        store.commit([shard])
    assert store.is_complete(shard)
    store.commit([shard])
    assert bucket.uploads() == []


def test_a_commit_that_a_dead_process_was_undoing(tmp_path):
    destination, process = Location.of(tmp_path / "s"), dead_process()
    journal = {"process": process, "token": f"{process}-00000000", "new": [], "old": {}, "sidecars": {}}
    write_note(Staging(destination, "").journal, journal)
    Staging(destination, "").journal.with_suffix(".undo").write_bytes(process.encode())
    assert not recover(destination)
    assert os.listdir(tmp_path) == []
