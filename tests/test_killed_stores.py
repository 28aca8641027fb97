"""Zarr stores, GeoTIFFs and tables whose writer is killed, fails, or is not the only one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from numcodecs import Zstd

import xee_tf
from tests.buckets import Bucket, request_points
from tests.conftest import ROOT, every_bucket, needs_posix
from tests.kill_points import kill_points
from tests.rasters import random_band, raster
from xee_tf.storage import Location

pytestmark = [needs_posix]


def image(seed: int = 0) -> xr.Dataset:
    values = random_band((32, 32), seed=seed).astype("f4")
    values[:16, :16] = np.nan  # a chunk that is not written
    return raster({"B4": values}).chunk(y=16, x=16)


def model() -> xee_tf.Model:
    return xee_tf.Model.from_function(lambda b: b[..., 0] + 1, input_tile_size=16, output_bands=["p"])


def predict(folder: Path, seed: int, if_exists: Any = "error", zarr_format: int = 3) -> None:
    from unittest import mock

    with (
        zarr.config.set(default_zarr_format=zarr_format),
        mock.patch("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1)),
    ):
        xee_tf.predict_to_zarr(model(), image(seed), folder / "p.zarr", if_exists=if_exists)


def upload(folder: Path, seed: int, if_exists: Any = "error", zarr_format: int = 3) -> None:
    with zarr.config.set(default_zarr_format=zarr_format):
        source = folder.parent / f"source-{seed}"
        xee_tf.upload_image(None, source / "s-mixer.json", folder / "p.zarr", if_exists=if_exists)


def export(folder: Path) -> None:
    for seed in (1, 2):
        image(seed).tfexport(folder / f"source-{seed}" / "s", patch_dimensions=16)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def decoded(files: dict[str, bytes]) -> dict[str, Any]:
    """Decode files whose bytes may differ between runs: Zstandard, and consolidated metadata."""

    def decode(name: str, data: bytes) -> Any:
        if Path(name).name in ("zarr.json", ".zmetadata"):
            return json.loads(data)
        return bytes(Zstd().decode(data)) if data.startswith(bytes.fromhex("28b52ffd")) else data

    return {name: decode(name, data) for name, data in files.items()}


def opened(path: Path) -> xr.Dataset | None:
    """Open a store as a user would; None if that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return xr.open_zarr(path).load()
        except (FileNotFoundError, xee_tf.XeeTFError):
            return None


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("write", [predict, upload])
def test_killed_before_every_change(
    write: Callable[..., None], old: bool, zarr_format: int, step: int, tmp_path: Path
) -> None:
    """The store is the old one, the new one, or cannot be opened; the next run completes it."""
    export(tmp_path)
    work, expected = tmp_path / "work", tmp_path / "expected"
    for folder, seed in ((expected, 2), (work, 1)):
        folder.mkdir()
        write(folder, seed, zarr_format=zarr_format)
    if not old:
        shutil.rmtree(work / "p.zarr")
    whole = tree(expected)
    old_values, new_values = opened(work / "p.zarr"), opened(expected / "p.zarr")
    assert new_values is not None
    if_exists = "overwrite" if old else "error"
    points = 0
    for point in kill_points(lambda: write(work, 2, if_exists, zarr_format), work, step=step):
        points += 1
        found = opened(work / "p.zarr")
        assert found is None or found.identical(new_values) or found.identical(old_values), point.what
        if old and found is None:
            assert any(path.name == "p.zarr" for path in work.rglob("p.zarr")), point.what
        if found is not None and found.identical(new_values) and not old:
            if_exists_again = "error" if write is predict else "resume"
        else:
            if_exists_again = if_exists
        write(work, 2, if_exists_again, zarr_format)
        assert decoded(tree(work)) == decoded(whole), (point.what, point.changes[-3:])
        assert os.listdir(work) == ["p.zarr"], point.what
    assert points > 60 / step


@pytest.mark.parametrize("write", [predict, upload])
def test_full_disk(write: Callable[..., None], tmp_path: Path) -> None:
    """The error names a path and the reason, the old store is kept, and the next run writes the new one."""
    export(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    write(work, 1)
    old = opened(work / "p.zarr")
    for point in kill_points(lambda: write(work, 2, "overwrite"), work, error=errno.ENOSPC, first=2, step=37):
        if point.error is None:  # only files that are removed are left to do
            break
        assert point.error.startswith("DestinationError: "), point.error
        assert str(work) in point.error
        assert "disk is full" in point.error or "No space left" in point.error
        found = opened(work / "p.zarr")
        assert found is not None
        assert found.identical(old), point.what
        write(work, 2, "overwrite")
        assert os.listdir(work) == ["p.zarr"], point.what


@pytest.mark.parametrize("write", [predict, upload])
def test_two_at_once(write: Callable[..., None], tmp_path: Path) -> None:
    """While one run writes, another one is refused; the first one is not disturbed."""
    export(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    write(work, 1)
    for point in kill_points(lambda: write(work, 2, "overwrite"), work, action="stop", first=5, step=23):
        if not point.disturbed:
            break
        with pytest.raises(xee_tf.DestinationExistsError, match=r"Another run writes .*p\.zarr"):
            write(work, 1, "overwrite")
        assert point.resume().error is None
        assert os.listdir(work) == ["p.zarr"]
        found = opened(work / "p.zarr")
        assert found is not None
        expected = image(2)["B4"] + 1 if write is predict else image(2)["B4"].fillna(0)
        np.testing.assert_array_equal(found["p" if write is predict else "B4"], expected)


def test_upload_is_resumed(tmp_path: Path) -> None:
    """A complete store of the same records is returned; another one is refused, with the difference."""
    export(tmp_path)
    mixer, store = tmp_path / "source-1" / "s-mixer.json", tmp_path / "u.zarr"
    xee_tf.upload_image(None, mixer, store, if_exists="resume")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    xee_tf.upload_image(None, mixer, store, if_exists="resume")
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")}.items() <= before.items()
    with pytest.raises(xee_tf.DestinationExistsError, match="its nodata would be -9 instead of None"):
        xee_tf.upload_image(None, mixer, store, nodata=-9, if_exists="resume")
    with pytest.raises(xee_tf.DestinationExistsError, match="other records"):
        xee_tf.upload_image(None, tmp_path / "source-2" / "s-mixer.json", store, if_exists="resume")
    shutil.rmtree(store / "B4")
    with pytest.raises(xee_tf.DestinationExistsError, match="its array 'B4' is not"):
        xee_tf.upload_image(None, mixer, store, if_exists="resume")
    predict(tmp_path, 1)
    with pytest.raises(xee_tf.DestinationExistsError, match=r"not written by xee_tf\.upload_image"):
        xee_tf.upload_image(None, mixer, tmp_path / "p.zarr", if_exists="resume")
    with pytest.raises(xee_tf.OptionError, match="contradicts resume=False"):
        xee_tf.predict_to_zarr(model(), image(), tmp_path / "q.zarr", if_exists="resume", resume=False)


def test_files_are_not_resumed(tmp_path: Path) -> None:
    """A GeoTIFF does not tell what it was written from."""
    for _ in range(2):
        if (tmp_path / "m.tif").exists():
            with pytest.raises(xee_tf.DestinationExistsError, match="do not tell what they"):
                xee_tf.to_cog(image(), tmp_path / "m.tif", if_exists="resume")
        else:
            xee_tf.to_cog(image(), tmp_path / "m.tif", if_exists="resume")


# -- Buckets -------------------------------------------------------------------------------------------


def opened_in(bucket: Bucket) -> xr.Dataset | None:
    """Open a store in a bucket as a user would; None if that fails."""
    Location.of(bucket.url, bucket.options).fs.invalidate_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return xr.open_zarr(f"{bucket.url}/p.zarr", storage_options=bucket.options).load()
        except FileNotFoundError:
            return None


def write_in(kind: str, url: str, options: dict[str, Any], folder: Path, seed: int, if_exists: Any) -> None:
    store = Location.of(f"{url}/p.zarr", options)
    if kind == "predict":
        from unittest import mock

        with mock.patch("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1)):
            xee_tf.predict_to_zarr(model(), image(seed), store, if_exists=if_exists)
    else:
        xee_tf.upload_image(None, folder / f"source-{seed}" / "s-mixer.json", store, if_exists=if_exists)


@every_bucket
@pytest.mark.parametrize(
    ("kind", "old", "step"),
    [
        ("predict", True, 40),
        ("upload", True, 40),
        *(
            pytest.param(kind, old, 3, marks=pytest.mark.long)
            for kind in ("predict", "upload")
            for old in (False, True)
        ),
    ],
)
def test_killed_before_every_request(kind: str, old: bool, step: int, bucket: Bucket, tmp_path: Path) -> None:
    export(tmp_path)
    url, options = bucket.url, bucket.options

    def write(seed: int, if_exists: str) -> None:
        write_in(kind, url, options, tmp_path, seed, if_exists)

    write(2, "error")
    new, whole = opened_in(bucket), bucket.read()
    assert new is not None
    bucket.restore({})
    before = None
    if old:
        write(1, "error")
        before = opened_in(bucket)
    if_exists = "overwrite" if old else "error"
    points = 0
    for point in request_points(lambda: write(2, if_exists), bucket, step=step):
        points += 1
        found = opened_in(bucket)
        assert found is None or found.identical(new) or found.identical(before), point.what
        is_done = found is not None and found.identical(new)
        write(2, "resume" if is_done else if_exists)
        assert decoded(bucket.read()) == decoded(whole), point.what
    assert points > 12 / step


@every_bucket
def test_requests_for_each_chunk(bucket: Bucket) -> None:
    """Beside the chunks of its bands, a chunk is a single object that records that it is finished."""
    requests = []
    for size in (64, 128):
        ds = raster({"B4": random_band((size, size))}).chunk(y=16, x=16)
        bucket.proxy.reset()
        store = Location.of(f"{bucket.url}/{size}.zarr", bucket.options)
        with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="sync"):
            patch.setattr("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1))
            predicted = model().predict_image(ds, merge=False)
            xee_tf.predict_to_zarr(model(), ds, store)
        requests.append((predicted["p"].data.npartitions, bucket.proxy.totals()))
    (few, first), (many, second) = requests
    assert many >= 4 * few
    # S3 deletes the records together; gcsfs does that too, but not in an emulator.
    each = 2 if bucket.scheme == "s3" else 3
    assert second.requests - first.requests == each * (many - few)
    assert (first.copied, second.copied) == (0, 0)


@pytest.mark.parametrize("kind", ["upload", pytest.param("predict", marks=pytest.mark.long)])
def test_objects_are_deleted_together(kind: str, bucket: Bucket, tmp_path: Path) -> None:
    """The number of requests that delete objects does not depend on the number of chunks."""
    export(tmp_path)
    store = Location.of(f"{bucket.url}/p.zarr", bucket.options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1))
        ds = raster({"B4": random_band((128, 128))}).chunk(y=16, x=16)
        xee_tf.predict_to_zarr(model(), ds, store)
    assert len(bucket.etags()) > 32
    bucket.proxy.reset()
    write_in(kind, bucket.url, bucket.options, tmp_path, 1, "overwrite")
    assert bucket.proxy.totals().kinds["delete"] <= 7
    assert len(bucket.etags()) < 20


@every_bucket
def test_geotiff_in_a_bucket_is_uploaded_once(bucket: Bucket) -> None:
    file = Location.of(f"{bucket.url}/m.tif", bucket.options)
    for seed in (1, 2):
        bucket.proxy.reset()
        xee_tf.to_cog(image(seed), file, if_exists="overwrite")
        size = len(bucket.read()["m.tif"])
        totals = bucket.proxy.totals()
        assert (totals.copied, size <= totals.up < size + 1000) == (0, True)
    assert list(bucket.read()) == ["m.tif"]


# -- Files with side files -----------------------------------------------------------------------------

SIDES = ["m.tfw", "m.tif.aux.xml", "m.tif.ovr", "m_RPC.TXT"]
OTHERS = ["m.prj", "m.txt", "m2.tfw", "n.tif.aux.xml"]


def with_side_files(folder: Path) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    for name in (*SIDES, *OTHERS, "m.tif"):
        (folder / name).write_text(f"the old {name}")
    return tree(folder)


def cog(folder: Path) -> None:
    xee_tf.to_cog(image(2), folder / "m.tif", if_exists="overwrite")


def cog_with_names(folder: Path) -> None:
    """Write a GeoTIFF and a new ``.aux.xml``."""
    named = image(2)
    named["B4"].attrs = {"flag_values": [0, 1], "flag_meanings": "dry wet"}
    xee_tf.to_cog(named, folder / "m.tif", if_exists="overwrite")


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(("error", "write"), [(None, cog), (5, cog_with_names)])
def test_geotiff_and_its_side_files_are_replaced_together(
    error: int | None, write: Callable[[Path], None], step: int, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    old = with_side_files(work)
    write(tmp_path / "other")
    new = {name: old[name] for name in OTHERS} | tree(tmp_path / "other")
    for point in kill_points(lambda: write(work), work, error=error, step=step):
        found = {name: data for name, data in tree(work).items() if not name.startswith(".")}
        if "m.tif" in found:
            assert found in (old, new), point.what
        if error is not None and point.disturbed:
            assert found in (old, new), point.what
            assert point.error is None or point.error.startswith("DestinationError: Cannot "), point.error
            if point.error is not None:
                assert found == (new if "All files are in place" in point.error else old), point.what
        write(work)
        assert tree(work) == new, point.what


@pytest.mark.parametrize("other", ["m.tiff", "m.jp2", "m.NTF"])
def test_side_files_of_another_raster_are_kept(other: str, tmp_path: Path) -> None:
    """World files and RPCs are for all rasters of the same name; names of metadata distinguish case."""
    kept = [other, "m.tfw", "m.rpb", "m_RPC.TXT", "m.TIF.aux.xml", f"{other}.aux.xml"]
    for name in (*kept, "m.tif", "m.tif.AUX.XML", "m.tif.ovr"):
        (tmp_path / name).write_text(name)
    cog(tmp_path)
    found = tree(tmp_path)
    assert found.pop("m.tif")[:4] == b"II*\0"
    assert found == {name: name.encode() for name in kept}


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.long)])
def test_links_and_folders_with_names_of_side_files(step: int, tmp_path: Path) -> None:
    """A link is removed, but not what it points to; a folder is no side file."""
    work = tmp_path / "work"
    (work / "m.tif.ovr").mkdir(parents=True)
    (work / "m.tif.ovr" / "thesis.txt").write_text("kept")
    (tmp_path / "shared.xml").write_text("kept")
    (tmp_path / "real.tif").write_text("old")
    (work / "m.tif.aux.xml").symlink_to("../shared.xml")
    (work / "m.tif").symlink_to("../real.tif")
    points = 0
    for point in kill_points(lambda: cog(work), tmp_path, error=5, first=3, step=step):
        points += 1
        if point.disturbed and point.error is not None and "All files are in place" not in point.error:
            assert (work / "m.tif").read_text() == "old", point.what
            assert os.readlink(work / "m.tif.aux.xml") == "../shared.xml", point.what
        cog(work)
        assert sorted(os.listdir(work)) == ["m.tif", "m.tif.ovr"], point.what
        assert os.readlink(work / "m.tif") == "../real.tif"
        assert (tmp_path / "real.tif").stat().st_size > 100
        assert (tmp_path / "shared.xml").read_text() == "kept"
        assert (work / "m.tif.ovr" / "thesis.txt").read_text() == "kept"
    assert points > 12 / step


def test_side_files_in_a_bucket(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    folder = Location.of("memory://sides-of-maps")
    for name in (*SIDES, *OTHERS, "m.tif"):
        folder.child(name).write_bytes(b"old")
    xee_tf.to_cog(image(), folder.child("m.tif"), if_exists="overwrite")
    assert sorted(folder.entries()) == sorted([*OTHERS, "m.tif"])
    assert folder.child("m.tif").size() > 100


def table(folder: Path) -> None:
    xee_tf.upload_table(folder.parent / "t.tfrecord.gz", folder / "t.gpkg", if_exists="overwrite")


def test_table_is_replaced_with_its_side_files(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    import pandas as pd

    xee_tf.export_table(pd.DataFrame({"longitude": [1.0, 2.0], "latitude": [3.0, 4.0]}), tmp_path / "t")
    work = tmp_path / "work"
    work.mkdir()
    for name in ("t.gpkg", "t.gpkg-wal", "t.gpkg-shm", "t.qml"):
        (work / name).write_text("old")
    old = tree(work)
    for point in kill_points(lambda: table(work), work):
        found = {name: data for name, data in tree(work).items() if not name.startswith(".")}
        if found.get("t.gpkg") == old["t.gpkg"]:
            assert found == old, point.what
        elif "t.gpkg" in found:
            assert set(found) == {"t.gpkg", "t.qml"}
        table(work)
        assert sorted(os.listdir(work)) == ["t.gpkg", "t.qml"], point.what
        assert len(geopandas.read_file(work / "t.gpkg")) == 2


def test_geotiff_written_by_two_runs(tmp_path: Path) -> None:
    """Both stage their file; the one that commits last is refused."""
    for point in kill_points(
        lambda: xee_tf.to_cog(image(2), tmp_path / "m.tif"), tmp_path, action="stop", first=2, step=3
    ):
        if not point.disturbed:
            break
        if "link .m.tif.commit" in point.changes[:-1]:  # the last one has not happened yet
            with pytest.raises(xee_tf.DestinationExistsError):
                xee_tf.to_cog(image(1), tmp_path / "m.tif")
            assert point.resume().error is None
        else:
            xee_tf.to_cog(image(1), tmp_path / "m.tif")
            error = point.resume().error
            assert error is not None
            assert error.startswith("DestinationExistsError"), error
        assert os.listdir(tmp_path) == ["m.tif"]


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.long)])
def test_geotiff_that_may_not_be_replaced(step: int, tmp_path: Path) -> None:
    """A commit that was interrupted is undone or finished before existing files are refused."""
    for point in kill_points(lambda: xee_tf.to_cog(image(), tmp_path / "m.tif"), tmp_path, step=step):
        if (tmp_path / "m.tif").exists():
            with pytest.raises(xee_tf.DestinationExistsError, match="already exists"):
                xee_tf.to_cog(image(), tmp_path / "m.tif")
        else:
            xee_tf.to_cog(image(), tmp_path / "m.tif")
        assert os.listdir(tmp_path) == ["m.tif"], point.what


def test_side_files_are_not_deleted_without_permission(tmp_path: Path) -> None:
    """Statistics or overviews of a GeoTIFF that was moved away would be applied to the new one."""
    (tmp_path / "m.tif.aux.xml").write_text("of another raster")
    with pytest.raises(xee_tf.DestinationExistsError, match=r"m\.tif\.aux\.xml already exists"):
        xee_tf.to_cog(image(), tmp_path / "m.tif")
    assert tree(tmp_path) == {"m.tif.aux.xml": b"of another raster"}


# -- Copies in the folder for temporary files ------------------------------------------------------------

KILLED = """
import os, signal, sys
import numpy as np, xee_tf
from tests.test_killed_stores import image

if sys.argv[1] == "writer":
    writer = xee_tf.PredictionWriter("memory://killed/p.tfrecord.gz", sys.argv[2])
    writer.write(np.zeros((1, 16, 16)))
    os.kill(os.getpid(), signal.SIGKILL)
from xee_tf.upload.cog import writer
writer.copy_tiles = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
xee_tf.to_cog(image(), "memory://killed/p.tif")
"""


@pytest.mark.parametrize("kind", ["writer", pytest.param("to_cog", marks=pytest.mark.long)])
def test_copies_of_killed_writers_are_removed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files for object stores are staged in the folder for temporary files."""
    export(tmp_path)
    mixer, temporary = tmp_path / "source-1" / "s-mixer.json", tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", KILLED, kind, str(mixer)]
    assert subprocess.run(command, env=environment, cwd=ROOT).returncode == -signal.SIGKILL
    [left] = [name for name in os.listdir(temporary) if name.startswith(".p.")]
    assert os.stat(temporary / left).st_mode & 0o077 == 0
    (temporary / left.replace(".p.", ".q.")).mkdir()  # of another destination
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    if kind == "writer":
        with xee_tf.PredictionWriter("memory://killed/p.tfrecord.gz", mixer) as writer:
            writer.write(np.zeros((writer.total, 16, 16)))
    else:
        xee_tf.to_cog(image(), "memory://killed/p.tif")
    assert [name for name in os.listdir(temporary) if name.startswith(".")] == [left.replace(".p.", ".q.")]
