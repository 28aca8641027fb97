"""Interrupted, failing and concurrent writers: old, new or an error, never a mixture."""

from __future__ import annotations

import errno
import os
import uuid
from importlib.util import find_spec

import dask
import numpy as np
import pandas as pd
import pytest
import rasterio
from dask.task_spec import DataNode
from fsspec.implementations.memory import MemoryFileSystem

import xee_tf
from tests.buckets import request_points
from tests.conftest import every_bucket
from tests.kill_points import kill_points
from tests.rasters import raster
from xee_tf.errors import DestinationExistsError, XeeTFError
from xee_tf.storage import Location

OPTIONS = {"patch_dimensions": 8, "max_file_size": 3000}
# Some changes in the ordinary run, each of them in `make test-full`.
steps = pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.long)])

KINDS = {
    "gzip": {},
    "plain": {"compressed": False},
    "dropped": {"masked_threshold": 0.5, "compressed": False},
}


def image(seed, size=32):
    values = np.random.default_rng(seed).random((size, size), dtype="f4")
    return raster({"B4": values}).chunk(y=16, x=16)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def hidden(folder):
    return [name for name in os.listdir(folder) if name.startswith(".")]


def pixels(folder):
    """Read the export with any of its entry points; None if this raises an error of the package."""
    found = []
    for name in ("scene", "scene-mixer.json", "scene-image.tfexport"):
        try:
            found.append(xee_tf.open_image(folder / name)["B4"].load().values)
        except XeeTFError:
            continue
    for each in found[1:]:
        np.testing.assert_array_equal(each, found[0])
    return found[0] if found else None


def export(folder, seed, kind, if_exists="overwrite"):
    return image(seed).tfexport(folder / "scene", if_exists=if_exists, **OPTIONS, **KINDS[kind])


@steps
@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_exports(tmp_path, kind, earlier, step):
    folder, other = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    other.mkdir()
    if_exists = "overwrite" if earlier else "error"
    export(other, 2, kind)
    new = files(other)
    if earlier:
        # The old export has more shards, and other sidecars.
        image(1, 40).tfexport(folder / "scene", index=find_spec("geopandas") is not None, **OPTIONS)
    old = pixels(folder)
    seen = set()
    for point in kill_points(lambda: export(folder, 2, kind, if_exists), folder, step=step):
        found = pixels(folder)
        states = {"old": old, "new": image(2)["B4"].values}
        state = next(
            (
                name
                for name, each in states.items()
                if found is not None and each is not None and np.array_equal(found, each)
            ),
            "error",
        )
        assert found is None or state != "error", point.what
        seen.add(state)
        complete = state == "new" and (kind == "dropped" or (folder / "scene-mixer.json").exists())
        if complete and not earlier:
            with pytest.raises(DestinationExistsError):
                export(folder, 2, kind, "error")
        export(folder, 2, kind, "overwrite" if complete else if_exists)
        assert files(folder) == new, point.what
    if step == 1:
        assert seen == ({"old", "new", "error"} if earlier else {"new", "error"})


@steps
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("kind", KINDS)
def test_failing_exports(tmp_path, kind, error, step):
    export(tmp_path, 2, kind)
    new = files(tmp_path)
    export(tmp_path, 1, kind)
    old = files(tmp_path)
    for point in kill_points(lambda: export(tmp_path, 2, kind), tmp_path, error=error, step=step):
        left = files_only(tmp_path)
        visible = {name: data for name, data in left.items() if name[0] != "."}
        if point.error is None:  # after the commit, or the error could be ignored
            assert visible == new
        elif left == old:
            assert point.error.startswith("DestinationError"), (point.what, point.error)
            assert os.fspath(tmp_path) in point.error
        else:
            assert visible == new, point.what
            assert "All files are in place" in point.error
    export(tmp_path, 2, kind)
    assert files(tmp_path) == new


def rows(seed):
    return pd.DataFrame({"a": np.random.default_rng(seed).random(50)})


def table(folder, seed, if_exists="overwrite"):
    return xee_tf.export_table(rows(seed), folder / "rows", if_exists=if_exists)


@steps
def test_killed_tables(tmp_path, step):
    table(tmp_path, 2)
    new = files(tmp_path)
    table(tmp_path, 1)
    old = xee_tf.open_table(tmp_path / "rows")["a"].to_numpy()
    for point in kill_points(lambda: table(tmp_path, 2), tmp_path, step=step):
        try:
            found = xee_tf.open_table(tmp_path / "rows")["a"].to_numpy()
        except XeeTFError:
            found = None
        expected = (old, np.random.default_rng(2).random(50).astype("f4"))
        assert found is None or any(np.array_equal(found, each) for each in expected), point.what
        table(tmp_path, 2)
        assert files(tmp_path) == new, point.what


def predictions(folder, mixer, seed, if_exists="overwrite"):
    values = np.random.default_rng(seed).random((16, 8, 8), dtype="f4")
    file = folder.child("p.tfrecord.gz") if isinstance(folder, Location) else folder / "p.tfrecord.gz"
    with xee_tf.PredictionWriter(file, mixer, if_exists=if_exists) as writer:
        writer.write(values[:7])
        writer.write(values[7:])


@steps
def test_killed_predictions(tmp_path, step):
    mixer = export(tmp_path, 1, "gzip").mixer
    folder = tmp_path / "p"
    folder.mkdir()
    contents = []
    for seed in (2, 1):
        predictions(folder, mixer, seed)
        contents.append(files(folder))
    for point in kill_points(lambda: predictions(folder, mixer, 2), folder, step=step):
        found = {name: data for name, data in files_only(folder).items() if name[0] != "."}
        assert found in [*contents, {}], point.what
        predictions(folder, mixer, 2)
        assert files(folder) == contents[0], point.what


def files_only(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@steps
@pytest.mark.parametrize("if_exists", ["error", "overwrite"])
def test_two_exports_at_once(tmp_path, if_exists, step):
    """One process stops before any change, another one writes the same export, the first one goes on."""
    if if_exists == "overwrite":
        export(tmp_path, 0, "gzip")
    outcomes = set()
    for point in kill_points(
        lambda: export(tmp_path, 1, "gzip", if_exists), tmp_path, action="stop", step=step
    ):
        if not point.disturbed:
            break
        try:
            export(tmp_path, 2, "gzip", if_exists)
            second = None
        except DestinationExistsError as error:
            second = error
        first = point.resume().error
        found = pixels(tmp_path)
        winner = next(seed for seed in (1, 2) if np.array_equal(found, image(seed)["B4"].values))
        # If the first one has committed already, the second one may replace it.
        one_after_the_other = if_exists == "overwrite" and winner == 2
        assert second is None if winner == 2 else first is None, point.what
        assert (first is None) != (second is None) or one_after_the_other, point.what
        assert first is None or "DestinationExistsError" in first
        assert hidden(tmp_path) == [], point.what
        assert xee_tf.verify(tmp_path / "scene")
        outcomes.add(winner)
    if step == 1:
        assert outcomes == {1, 2}


def bucket_export(bucket, seed, if_exists="overwrite", size=32):
    """Return a function, without the connections of a `Bucket`, that exports to it."""
    url, storage_options = f"{bucket.url}/scene", bucket.options

    def work():
        image(seed, size).tfexport(url, if_exists=if_exists, storage_options=storage_options, **OPTIONS)

    return work


def bucket_pixels(bucket):
    """Read the export; None if this raises an error of the package."""
    try:
        opened = xee_tf.open_image(f"{bucket.url}/scene-mixer.json", storage_options=bucket.options)
        return opened["B4"].load().values
    except XeeTFError:
        return None


@every_bucket
@pytest.mark.parametrize(
    ("earlier", "step"),
    [(True, 17), *(pytest.param(each, 1, marks=pytest.mark.long) for each in (True, False))],
)
def test_killed_exports_to_buckets(bucket, earlier, step):
    if_exists = "overwrite" if earlier else "error"
    bucket_export(bucket, 2)()
    new = bucket.read()
    bucket.restore({})
    if earlier:
        bucket_export(bucket, 1, size=40)()
    old = bucket_pixels(bucket)
    seen = set()
    for point in request_points(bucket_export(bucket, 2, if_exists), bucket, step=step):
        found = bucket_pixels(bucket)
        states = {"old": old, "new": image(2)["B4"].values, "error": None}
        state = next(
            name
            for name, each in states.items()
            if (each is None) == (found is None) and (found is None or np.array_equal(found, each))
        )
        seen.add("error" if found is None else state)
        complete = state == "new"
        bucket_export(bucket, 2, "overwrite" if complete else if_exists)()
        assert bucket.read() == new, point.what
        assert bucket.uploads() == [], point.what
    if step == 1:
        assert seen == ({"old", "new", "error"} if earlier else {"new", "error"})


@steps
@pytest.mark.parametrize("earlier", [True, False])
def test_killed_exports_to_another_store(tmp_path, earlier, step):
    """A folder that fsspec shows as a store that is no local disk: files are renamed, but not durable."""
    storage = {"storage_options": {"path": os.fspath(tmp_path), "target_protocol": "file"}}

    def work(seed, if_exists, size=32):
        image(seed, size).tfexport("dir://scene", if_exists=if_exists, **storage, **OPTIONS)

    def found():
        try:
            return xee_tf.open_image("dir://scene-mixer.json", **storage)["B4"].load().values
        except XeeTFError:
            return None

    if_exists = "overwrite" if earlier else "error"
    work(2, "error")
    new, values = files(tmp_path), found()
    for name in new:
        os.remove(tmp_path / name)
    if earlier:
        work(1, "error", size=40)
    old = found()
    for point in kill_points(lambda: work(2, if_exists), tmp_path, step=step):
        state = found()
        is_new = state is not None and np.array_equal(state, values)
        assert state is None or is_new or np.array_equal(state, old), point.what
        work(2, "overwrite" if is_new else if_exists)
        assert files(tmp_path) == new, point.what


def file_in_bucket(bucket, kind, mixer, seed):
    """Return a function, without the connections of a `Bucket`, that writes a file to it."""
    url, options = bucket.url, bucket.options

    def work():
        if kind == "table":
            xee_tf.export_table(rows(seed), f"{url}/rows", if_exists="overwrite", storage_options=options)
        elif kind == "predictions":
            predictions(Location.of(url, options), mixer, seed)
        else:
            xee_tf.to_cog(image(seed), Location.of(f"{url}/map.tif", options), if_exists="overwrite")

    return work


@pytest.mark.long
@every_bucket
@pytest.mark.parametrize("kind", ["table", "predictions", "map"])
def test_killed_files_in_buckets(bucket, kind, tmp_path):
    mixer = export(tmp_path, 1, "gzip").mixer
    contents = []
    for seed in (2, 1):
        file_in_bucket(bucket, kind, mixer, seed)()
        contents.append(bucket.read())
    expected = [rows(seed)["a"].to_numpy("f4") for seed in (1, 2)]
    for point in request_points(file_in_bucket(bucket, kind, mixer, 2), bucket):
        found = {key: data for key, data in bucket.read().items() if "/" not in key and key[0] != "."}
        if found not in contents and kind == "table":
            try:
                table = xee_tf.open_table(f"{bucket.url}/rows", storage_options=bucket.options)["a"]
                assert any(np.array_equal(table.to_numpy(), each) for each in expected), point.what
            except XeeTFError:
                pass
        else:
            assert found in [*contents, {}], point.what
        file_in_bucket(bucket, kind, mixer, 2)()
        assert bucket.read() == contents[0], point.what
        assert bucket.uploads() == [], point.what


@pytest.mark.parametrize("store", ["s3", "memory"])
def test_tasks_of_a_plan_for_other_stores(store, request, tmp_path, small_blocks):
    destination, storage = f"memory://{tmp_path.name}/scene", {}
    if store == "s3":
        bucket = request.getfixturevalue("bucket")
        destination, storage = f"{bucket.url}/scene", {"storage_options": bucket.options}
    lazy = image(1, 64) + 1  # chunks that tasks compute
    lazy.attrs = image(1).attrs
    plan = lazy.tfexport.plan(destination, **OPTIONS, **storage)
    delayed = lazy.tfexport(destination, compute=False, **OPTIONS, **storage)
    (optimized,) = dask.optimize(delayed)
    assert plan.tasks == sum(not isinstance(each, DataNode) for each in optimized.__dask_graph__().values())


@pytest.mark.parametrize("refuses", [True, False])
def test_stores_that_do_not_move_over_files(monkeypatch, refuses):
    """SFTP refuses to rename a file over another one, and WebHDFS ignores it."""
    move = MemoryFileSystem.mv

    def only_to_free_names(fs, source, target, **options):
        if not fs.exists(target):
            move(fs, source, target, **options)
        elif refuses:
            raise OSError(f"{target} exists")

    monkeypatch.setattr(MemoryFileSystem, "mv", only_to_free_names)
    url = f"memory://{uuid.uuid4().hex}/map.tif"
    for value in (1, 2):
        image = raster({"B4": np.full((8, 8), value, "u1")}).rio.write_crs(32633)
        xee_tf.to_cog(image, url, if_exists="overwrite")
        with Location.of(url).open() as file, rasterio.open(file) as opened:
            assert (opened.read(1) == value).all()
    assert len(Location.of(url).parent.entries()) == 1
