"""Exports whose files were swapped, replaced, edited or damaged: readers raise or return right values."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xee_tf
from tests.counting_proxy import Error
from tests.rasters import raster
from xee_tf.shards.members import read_index
from xee_tf.sidecars.packing import render
from xee_tf.storage import Location, write_note
from xee_tf.storage.processes import process_token

tf = pytest.importorskip("tensorflow")  # one of the readers

PATCHES = {"patch_dimensions": 8, "max_file_size": 5000}
KINDS = {
    "gzip": {},
    "plain": {"compressed": False},
    "int64": {"compressed": False, "feature_types": "band"},
    "series": {"sequence_data": True, "max_file_size": 20_000},
    "dropped": {"masked_threshold": 0.9, "compressed": False},
    "table": {},
}


def scene(seed):
    rng = np.random.default_rng(seed)
    ds = raster({"B4": rng.random((32, 32), dtype="f4"), "q": rng.integers(0, 300, (32, 32)).astype("i2")})
    ds["ndvi"] = (("time", "y", "x"), rng.random((2, 32, 32), dtype="f4"))
    ds["B4"][8:16, :8] = np.nan
    return ds


def export(kind, folder, seed):
    if kind == "table":
        rng = np.random.default_rng(seed)
        rows = {"a": rng.random(900, dtype="f4"), "k": rng.integers(0, 300, 900)}
        return xee_tf.export_table(pd.DataFrame(rows), folder / "s")
    return scene(seed).tfexport(folder / "s", **{**PATCHES, **KINDS[kind]})


def values(dataset):
    return np.concatenate([np.ravel(batch) for batch in dataset.as_numpy_iterator()])


def readers(kind, folder, result):
    """Return functions that read an export; what is opened before the files change is read after."""
    if kind == "table":
        table = xee_tf.open_table(folder / "s", chunks=100) if folder.exists() else None
        return {
            "open_table": lambda: xee_tf.open_table(folder / "s").to_numpy(),
            "partition": lambda: (
                xee_tf.open_table(folder / "s", chunks=100).partitions[2].compute().to_numpy()
            ),
            "opened before": lambda: table.partitions[5].compute().to_numpy(),
            "tf_dataset": lambda: values(xee_tf.tf_dataset(result, inputs="a")),
            "files": lambda: values(xee_tf.tf_dataset([result.path], inputs="a")),
        }
    source = result.mixer or result.manifest
    files = [file.path for file in result.files]
    depths = {"tensor_depths": {"ndvi": 2}}
    if not KINDS[kind].get("sequence_data"):
        depths["patch_dimensions"] = 8
    opened, lazy = xee_tf.open_image(source), xee_tf.open_image(source, chunks=None)
    dataset = xee_tf.tf_dataset(source, inputs="B4")
    pattern = files[0].replace("00000", "*")
    return {
        "load": lambda: xee_tf.open_image(source)["ndvi"].values,
        "place": lambda: np.append(
            xee_tf.open_image(source).rio.bounds(), xee_tf.open_image(source).rio.crs.to_epsg()
        ),
        "engine": lambda: xr.open_dataset(str(source), engine="tfrecord")["q"].values,
        "window": lambda: xee_tf.open_image(source)["q"][9:11, 21:26].values,
        "opened before": lambda: opened["B4"].values,
        "window opened before": lambda: lazy["ndvi"][1, 14:18, 3:5].values,
        "mixer": lambda: values(xee_tf.tf_dataset(source, inputs=["B4", "q"])),
        "dataset made before": lambda: values(dataset),
        "pattern": lambda: values(xee_tf.tf_dataset(pattern, inputs="ndvi", **depths)),
        "files": lambda: values(xee_tf.tf_dataset(files, inputs="ndvi", **depths)),
    }


def runs(path):
    """Return the byte ranges of the gzip members of a shard, without its header, or of its records."""
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        index = read_index(data)
        edges = np.cumsum([0, *index.sizes]).tolist()
        edges[0] = 12 + int.from_bytes(data[10:12], "little")
    else:
        edges = [0]
        while edges[-1] < len(data):
            edges.append(edges[-1] + int.from_bytes(data[edges[-1] : edges[-1] + 8], "little") + 16)
    return list(pairwise(edges))


def swap_runs(path, rng, source=None):
    """Replace a run by another one of the same size, or by one of the file `source`."""
    data = bytearray(path.read_bytes())
    by_size = defaultdict(list)
    for run in runs(path):
        by_size[run[1] - run[0]].append(run)
    if source is None:
        pairs = [rng.sample(same, 2) for same in by_size.values() if len(same) > 1]
        other = bytes(data)
    else:
        other = source.read_bytes()
        pairs = [(a, b) for b in runs(source) for a in by_size[b[1] - b[0]]]
    if not pairs:
        return False
    (a, b), (c, d) = rng.choice(pairs)
    if source is None:
        data[c:d] = other[a:b]
    data[a:b] = other[c:d]
    path.write_bytes(data)
    return True


def edit(path, rng, changes):
    document = json.loads(path.read_text())
    rng.choice(changes)(document)
    path.write_text(json.dumps(document))


def move(document):
    document["projection"]["affine"]["doubleMatrix"][2] += 30


MIXER = [
    move,
    lambda m: m["projection"].update(crs="EPSG:32634"),
    lambda m: m.update(patchesPerRow=2),
    lambda m: m.update(patchDimensions=[4, 16]),
    lambda m: m.update(totalPatches=12),
]
MANIFEST = [
    lambda m: m["shards"].reverse() if len(m["shards"]) > 1 else m.update(version="3"),
    lambda m: m["shards"][0].update(crc32c="00000000"),
    lambda m: m["shards"][0].update(runCrcs=m["shards"][-1]["runCrcs"], bytes=3),
    lambda m: m.update(defaultValue=9.0, columns=[], bands=[]),
]


def corrupt(how, folder, other, rng):
    """Change the files of an export; return the names that an error may contain, or None if impossible."""
    shards = sorted(path for path in folder.iterdir() if ".tfrecord" in path.name)
    shard = rng.choice(shards)
    data = shard.read_bytes()
    foreign = (other / shard.name).read_bytes()
    names = {path.name for path in shards}
    if how == "swap" and len(shards) > 1:
        second = rng.choice([path for path in shards if path != shard])
        shard.write_bytes(second.read_bytes())
        second.write_bytes(data)
    elif how == "duplicate" and len(shards) > 1:
        shard.write_bytes(rng.choice([path for path in shards if path != shard]).read_bytes())
    elif how == "foreign":
        shard.write_bytes(foreign)
    elif how == "foreign, recompressed" and shard.name.endswith(".gz"):
        shard.write_bytes(gzip.compress(gzip.decompress(foreign)))
    elif how == "runs":
        return names if swap_runs(shard, rng) else None
    elif how == "foreign run":
        return names if swap_runs(shard, rng, other / shard.name) else None
    elif how == "truncate":
        shard.write_bytes(data[: rng.randrange(len(data))])
    elif how == "append":
        shard.write_bytes(data + rng.choice([b"x", data, bytes(40)]))
    elif how == "flip":
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        shard.write_bytes(changed)
    elif how == "delete":
        shard.unlink()
        return names | {f"Shard {shards.index(shard)} ", "Expected", "not found"}
    elif how == "mixer" and (folder / "s-mixer.json").exists():
        edit(folder / "s-mixer.json", rng, MIXER)
        return {"s-mixer.json"}
    elif how == "manifest":
        [path] = folder.glob("*.tfexport")
        edit(path, rng, MANIFEST)
        return {path.name, *names}
    elif how == "foreign manifest":
        [path] = folder.glob("*.tfexport")
        shutil.copyfile(other / path.name, path)
        return {path.name, *names}
    else:
        return None
    return names


HOW = ["swap", "duplicate", "foreign", "foreign, recompressed", "runs", "foreign run", "truncate", "append"]
HOW += ["flip", "delete", "mixer", "manifest", "foreign manifest"]


@pytest.fixture(scope="module", params=list(KINDS))
def exported(request, tmp_path_factory):
    """Return an export, the values that readers must return, and the folder of another export."""
    folder = tmp_path_factory.mktemp(request.param)
    result = export(request.param, folder / "d", 1)
    export(request.param, folder / "other", 2)
    shutil.copytree(folder / "d", folder / "kept")
    right = {name: read() for name, read in readers(request.param, folder / "d", result).items()}
    return request.param, folder, result, right


@pytest.mark.parametrize("how", HOW)
def test_readers_raise_or_return_the_right_values(exported, how):
    kind, folder, result, right = exported
    rng = random.Random(f"{kind} {how}")
    shutil.rmtree(folder / "d")
    shutil.copytree(folder / "kept", folder / "d")
    found = readers(kind, folder / "d", result)
    names = corrupt(how, folder / "d", folder / "other", rng)
    if names is None:
        return
    for name, read in found.items():
        try:
            value = read()
        except (xee_tf.XeeTFError, tf.errors.OpError) as error:
            if not any(each in str(error) for each in names):
                raise AssertionError(f"{name}: the error does not name the file") from error
        else:
            np.testing.assert_array_equal(value, right[name], name)
    report = xee_tf.verify(result)
    if how != "append":  # zeros at the end of a gzip file are allowed
        assert not report.ok


def test_a_file_without_a_manifest_that_is_replaced(tmp_path):
    result = scene(1).tfexport(tmp_path / "s", **PATCHES, compressed=False)
    other = scene(2).tfexport(tmp_path / "other", **PATCHES, compressed=False)
    Path(result.manifest.path).unlink()
    opened = xee_tf.open_image(result)
    dataset = xee_tf.tf_dataset(result, inputs="B4")
    shutil.copyfile(other.files[1].path, result.files[1].path)
    with pytest.raises(xee_tf.RecordError, match=r"s-00001.tfrecord was replaced or modified after it was"):
        opened.load()
    with pytest.raises(tf.errors.OpError, match=r"s-00001.tfrecord was replaced"):
        values(dataset)
    xee_tf.open_image(result).load()


def test_every_epoch_notices_a_file_that_is_replaced(tmp_path):
    result = scene(1).tfexport(tmp_path / "s", **PATCHES, compressed=False)
    other = scene(2).tfexport(tmp_path / "other", **PATCHES, compressed=False)
    dataset = xee_tf.tf_dataset(result, inputs="B4")
    np.testing.assert_array_equal(values(dataset), values(dataset))
    shutil.copyfile(other.files[1].path, result.files[1].path)
    with pytest.raises(tf.errors.OpError, match=r"s-00001.tfrecord was replaced or modified after"):
        values(dataset)


@pytest.mark.parametrize("options", [{}, {"masked_threshold": 0.9}])
def test_an_interrupted_export_is_recognised(tmp_path, options):
    result = scene(1).tfexport(tmp_path / "s", **PATCHES, **options)
    for mark in (result.mixer, result.manifest):
        if mark is not None:
            Path(mark.path).unlink()
    machine, _, _ = process_token().split("-")
    dead = f"{machine}-{os.getpid():x}-00000000"  # a process that had the id of this one before
    journal = {"process": dead, "token": "t", "new": [], "old": {}, "sidecars": {}}
    write_note(Location.of(tmp_path / ".s.commit"), journal)
    sources = [tmp_path / "s", tmp_path / "s-mixer.json", tmp_path / "s-image.tfexport", tmp_path]
    for source in sources:
        with pytest.raises(xee_tf.MissingShardError, match=r"s is not complete\. A run was interrupted"):
            xee_tf.open_image(source)
    for source in (tmp_path / "s", str(tmp_path / "s-*.tfrecord.gz"), [result.files[0].path]):
        with pytest.raises(xee_tf.MissingShardError, match="s is not complete"):
            xee_tf.tf_dataset(source, inputs="B4", patch_dimensions=8)


def test_records_of_the_export_itself_are_compared(tmp_path):
    result = scene(1).tfexport(tmp_path / "s", **PATCHES, compressed=False)
    files = [Location.of(file.path) for file in result.files]
    second = files[1].read_bytes()
    Path(files[1].path).write_bytes(files[0].read_bytes())
    with pytest.raises(xee_tf.RecordError, match=r"s-00001.tfrecord: records .* do not match"):
        xee_tf.open_image(result.mixer, records=[file.path for file in files]).load()
    Path(files[1].path).write_bytes(second)


@pytest.mark.parametrize(
    "options", [{}, {"compressed": False}, {"compressed": False, "feature_types": "band"}]
)
def test_manifests_without_sizes_of_runs(tmp_path, options):
    """The first manifests did not have them; shards are opened by their index, or scanned."""
    result = scene(1).tfexport(tmp_path / "s", **PATCHES, **options)
    path = Path(result.manifest.path)
    document = json.loads(path.read_text())
    del document["crc32c"]
    for shard in document["shards"]:
        del shard["runSizes"]
    path.write_text(render(document))
    for opened in (xee_tf.open_image(result), xee_tf.open_image(result, chunks=None)):
        np.testing.assert_array_equal(opened["q"][9:20, 13:14], scene(1)["q"][9:20, 13:14])
        np.testing.assert_array_equal(opened["ndvi"], scene(1)["ndvi"])
    assert values(xee_tf.tf_dataset(result, inputs="B4")).size == 32 * 32
    assert xee_tf.verify(result).ok
    if swap_runs(Path(result.files[0].path), random.Random(1)):
        with pytest.raises(xee_tf.RecordError, match=r"s-00000.tfrecord.*: records .* do not match"):
            xee_tf.open_image(result).load()


def test_an_object_without_a_manifest_that_is_replaced(bucket):
    def write(seed):
        options = {"if_exists": "overwrite", "storage_options": bucket.options}
        scene(seed).tfexport(f"{bucket.url}/s", **PATCHES, **options)
        bucket.client.delete_object(Bucket=bucket.name, Key="s-image.tfexport")

    write(1)
    opened = xee_tf.open_image(f"{bucket.url}/s", storage_options=bucket.options)
    write(2)
    with pytest.raises(xee_tf.RecordError, match=r"s-0000.* was replaced or modified after it was opened"):
        opened.load()
    opened = xee_tf.open_image(f"{bucket.url}/s", storage_options=bucket.options)
    np.testing.assert_array_equal(opened["B4"], scene(2)["B4"].fillna(0))


def test_a_manifest_that_cannot_be_read_is_not_ignored(bucket, monkeypatch):
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    options = bucket.options
    scene(1).tfexport(f"{bucket.url}/s", **PATCHES, storage_options=options)
    denied = Error(403, "AccessDenied")
    bucket.proxy.disturb(1, denied, lasting=True, matching=lambda each: each.key.endswith("image.tfexport"))
    for read in (xee_tf.open_image, xee_tf.verify):
        with pytest.raises(xee_tf.StorageError, match=r"Cannot read .*s-image\.tfexport: permission denied"):
            read(f"{bucket.url}/s", storage_options=options)
