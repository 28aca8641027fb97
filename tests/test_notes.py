"""Damaged, foreign and old files at the names that xee_tf uses: one clear error, or treated as absent."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xee_tf
from tests.conftest import needs_posix
from tests.rasters import random_band, raster
from tests.test_resume import Source, export
from xee_tf import DestinationError, DestinationExistsError, XeeTFError
from xee_tf.identity import run_identity
from xee_tf.shards.staged import read_receipt
from xee_tf.storage import DamagedNoteError, Location, read_note, read_record, write_note
from xee_tf.storage.processes import process_token

PATCHES = {"patch_dimensions": 16}


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def image(seed=0):
    return raster({"B4": random_band((32, 32), seed=seed)})


def damaged(data):
    """Yield other contents of a JSON file: truncated, other types, missing and additional keys."""
    document = json.loads(data)
    yield b""
    yield data[: len(data) // 2]
    yield b"\xff\xfe" + data
    others = (None, 5, "text", [], {}, [document], {"format": 5}, {"parts": 1, "format": 5})
    for other in others:
        yield json.dumps(other).encode()
    yield b"[" * 100_000
    for key, value in document.items():
        yield json.dumps({name: found for name, found in document.items() if name != key}).encode()
        for other in (None, 5, "text", [1], {"a": 1}):
            if other != value:
                yield json.dumps(document | {key: other}).encode()


def test_notes(tmp_path):
    note = Location.of(tmp_path / "note.json")
    assert read_note(note) is None
    content = {"text": "ä", "numbers": [1, 0.1, -1e300], "nothing": None}
    write_note(note, content)
    assert read_note(note) == content
    data = note.read_bytes()
    for other in damaged(data):
        note.write_bytes(other)
        with pytest.raises(
            DamagedNoteError, match="is damaged, or was not written by this version of xee_tf"
        ):
            read_note(note)
    with pytest.raises(DamagedNoteError, match="is a folder"):
        read_note(Location.of(tmp_path))


@pytest.fixture
def interrupted(tmp_path, small_blocks):
    """Return the folder of an export that was interrupted, and the folder with its staged files."""
    with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="interrupted"):
        export(Source(fail_at=6), tmp_path / "scene")
    [staged] = tmp_path.glob(".scene-*.parts")
    return tmp_path, staged


def test_damaged_receipts_are_absent(interrupted):
    _, staged = interrupted
    receipt = Location.of(staged / "00000.json")
    data = receipt.read_bytes()
    assert read_receipt(receipt).number == 0
    for other in damaged(data):
        receipt.write_bytes(other)
        assert read_receipt(receipt) is None


@pytest.mark.parametrize("name", ["identity.json", "00000.json"])
def test_damaged_files_of_an_interrupted_export_are_written_again(interrupted, name):
    folder, staged = interrupted
    (staged / name).write_text('{"format": 5}')
    source = Source()
    export(source, folder / "scene")
    assert source.loads == 8
    np.testing.assert_array_equal(xee_tf.open_image(folder / "scene")["B4"], source.values)
    assert [name for name in os.listdir(folder) if name[0] == "."] == []


@pytest.mark.parametrize("stored", [{}, {"parts": [1]}, {"parts": {"a": 1}}])
def test_damaged_identities(interrupted, stored):
    folder, staged = interrupted
    version = {"format": run_identity({}, {}).to_json()["format"]}
    write_note(Location.of(staged / "identity.json"), version | stored)
    with pytest.raises(DestinationExistsError, match="cannot be resumed: the description of what it was"):
        export(Source(), folder / "scene")


def test_uploads_that_are_not_known(bucket, monkeypatch, small_blocks):
    monkeypatch.setattr("xee_tf.export.plan._BLOCKS_PER_THREAD", 0)  # upload a row before the next one
    prefix, options = f"{bucket.url}/scene", {"storage_options": bucket.options}
    with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="interrupted"):
        export(Source(fail_at=8), prefix, **options)
    [uploads] = [key for key in bucket.read() if key.endswith("uploads.json")]
    bucket.client.put_object(Bucket=bucket.name, Key=uploads, Body=b'["text"]')
    source = Source()
    export(source, prefix, **options)
    np.testing.assert_array_equal(xee_tf.open_image(prefix, **options)["B4"], source.values)
    assert all(key[0] != "." for key in bucket.read())


# Journals, locks and claims --------------------------------------------------------------------------

WRITERS = {
    ".s.commit": lambda folder, how: image(1).tfexport(folder / "s", if_exists=how, **PATCHES),
    ".t.tfrecord.gz.commit": lambda folder, how: xee_tf.export_table(
        pd.DataFrame({"a": [2.0]}), folder / "t", if_exists=how
    ),
    ".m.tif.commit": lambda folder, how: xee_tf.upload_image(
        None, folder / "s-mixer.json", folder / "m.tif", if_exists=how
    ),
    ".m.zarr.commit": lambda folder, how: xee_tf.upload_image(
        None, folder / "s-mixer.json", folder / "m.zarr", if_exists=how
    ),
    ".p.zarr.commit": lambda folder, how: xee_tf.predict_to_zarr(
        model(), image(), folder / "p.zarr", if_exists=how
    ),
    ".p.zarr.writer": lambda folder, how: xee_tf.predict_to_zarr(
        model(), image(), folder / "p.zarr", if_exists=how
    ),
}


def model():
    return xee_tf.Model.from_function(lambda b: b[..., 0], input_tile_size=16, output_bands=["p"])


@needs_posix
@pytest.mark.parametrize("how", ["error", "overwrite", "resume"])
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("content", ["folder", "text"])
def test_files_of_the_user_with_the_names_of_journals(tmp_path, name, content, how):
    if name not in (".s.commit", ".t.tfrecord.gz.commit"):
        image(0).tfexport(tmp_path / "s", **PATCHES)
    if how == "overwrite" and name == ".s.commit":
        image(0).tfexport(tmp_path / "s", **PATCHES)
    if content == "folder":
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("A thesis")
    else:
        (tmp_path / name).write_text("A thesis")
    before = snapshot(tmp_path)
    with pytest.raises(DestinationError, match=re.escape(str(tmp_path / name))):
        WRITERS[name](tmp_path, how)
    assert snapshot(tmp_path) == before


def test_readers_with_a_foreign_journal(tmp_path):
    image().tfexport(tmp_path / "s", **PATCHES)
    (tmp_path / ".s.commit").mkdir()
    xee_tf.open_image(tmp_path / "s").load()
    assert xee_tf.verify(tmp_path / "s").ok
    (tmp_path / "s-mixer.json").unlink()
    xee_tf.open_image(tmp_path / "s-image.tfexport").load()
    (tmp_path / "s-image.tfexport").unlink()
    with pytest.raises(XeeTFError, match=r"\.s\.commit is not a journal of xee_tf, because it is a folder"):
        xee_tf.open_image(tmp_path / "s")


def test_a_lock_of_an_unknown_process(tmp_path):
    """A lock of another version counts as that of a process on another machine, and expires."""
    image().tfexport(tmp_path / "s", **PATCHES)
    machine, _, _ = process_token().split("-")
    dead = f"{machine}-{os.getpid():x}-00000000"
    journal = {"process": dead, "token": f"{dead}-00000000", "new": [], "old": {}, "sidecars": {}}
    write_note(Location.of(tmp_path / ".s.commit"), journal)
    lock = tmp_path / ".s.commit.undo"
    lock.write_bytes(b"\xff another version")
    for _ in range(2):
        with pytest.raises(DestinationExistsError, match="Another run is restoring"):
            image().tfexport(tmp_path / "s", if_exists="overwrite", **PATCHES)
    os.utime(lock, (0, 0))
    image().tfexport(tmp_path / "s", if_exists="overwrite", **PATCHES)


# Records of Zarr stores and manifests ----------------------------------------------------------------


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
def test_damaged_records_of_stores(tmp_path, step):
    store = Location.of(tmp_path / "p.zarr")
    xee_tf.predict_to_zarr(model(), image(), store.path)
    file = store.child(".xee_tf").child("zarr.json")
    data = file.read_bytes()
    document = json.loads(data)
    records = list(damaged(data))
    records += [
        json.dumps(document | {"attributes": json.loads(other)}).encode()
        for other in damaged(json.dumps(document["attributes"]).encode())
        if other[:1] == b"{" and other[-1:] == b"}"
    ]
    for other in records[::step]:
        file.write_bytes(other)
        read_record(store)
        for how in ("error", "resume", "overwrite"):
            with suppress(DestinationExistsError):
                xee_tf.predict_to_zarr(model(), image(), store.path, if_exists=how)
                file.write_bytes(other)
        xr.open_zarr(store.path).load()  # neither deleted nor damaged
    file.write_bytes(data)
    xee_tf.predict_to_zarr(model(), image(), store.path)


def test_damaged_manifests(tmp_path):
    result = image().tfexport(tmp_path / "s", **PATCHES)
    path = Path(result.manifest.path)
    document = json.loads(path.read_text())
    del document["key"]  # informative, and not part of the checksum
    for other in damaged(json.dumps(document).encode()):
        path.write_bytes(other)
        for read in (xee_tf.open_image, xee_tf.inspect):
            with pytest.raises(xee_tf.ManifestError, match=r"s-image\.tfexport"):
                read(tmp_path / "s")
        assert not xee_tf.verify(tmp_path / "s").ok
