"""Tests of the tool that kills processes before each change of a folder."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import needs_posix
from tests.kill_points import kill_points, run_in_child
from tests.rasters import random_band, raster

pytestmark = needs_posix


def test_each_change_is_a_point(tmp_path):
    (tmp_path / "old").write_bytes(b"old")

    def work():
        with open(tmp_path / "new", "wb") as file:
            file.write(b"0123456789")
        os.replace(tmp_path / "new", tmp_path / "old")

    states = {}
    for point in kill_points(work, tmp_path):
        states[point.what, point.disturbed] = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert states == {
        ("create new", True): {"old": b"old"},
        ("write new", True): {"old": b"old", "new": b"01234"},
        ("rename old", True): {"old": b"old", "new": b"0123456789"},
        ("nothing", False): {"old": b"0123456789"},
    }


def test_kinds_of_changes(tmp_path):
    (tmp_path / "there").write_bytes(b"x")

    def work():
        (tmp_path / "a" / "b").mkdir(parents=True)
        descriptor = os.open(tmp_path / "a" / "file", os.O_CREAT | os.O_WRONLY)
        os.pwrite(descriptor, b"xy", 5)
        os.fsync(descriptor)
        os.ftruncate(descriptor, 3)
        os.close(descriptor)
        os.link(tmp_path / "a" / "file", tmp_path / "a" / "link")
        with open(tmp_path / "there", "r+b") as file:
            file.write(b"z")
            file.truncate(1)
        (tmp_path / "text").write_text("é")
        (tmp_path / "there").read_bytes()
        Path(os.devnull).write_text("elsewhere")
        shutil.rmtree(tmp_path / "a")

    point = run_in_child(work, tmp_path)
    assert point.error is None
    assert point.changes[:11] == [
        "mkdir a/b",  # fails, because the parent is missing
        "mkdir a",
        "mkdir a/b",
        "create a/file",
        "write a/file",
        "sync a/file",
        "truncate a/file",
        "link a/link",
        "open there",
        "write there",
        "truncate there",
    ]
    assert point.changes[11:13] == ["create text", "write text"]
    assert sorted(point.changes[13:]) == ["remove a/file", "remove a/link", "rmdir a", "rmdir a/b"]


def test_one_change_fails(tmp_path):
    def work():
        try:
            (tmp_path / "a").write_text("a")
        except OSError:
            (tmp_path / "a").write_text("again")

    points = list(kill_points(work, tmp_path, error=errno.EIO))
    assert [point.what for point in points] == ["create a", "write a", "nothing"]
    assert not any(point.error for point in points)


def test_full_disk_stays_full(tmp_path):
    def work():
        (tmp_path / "a").write_text("a")
        try:
            (tmp_path / "b").write_text("b")
        finally:
            (tmp_path / "a").rename(tmp_path / "c")
            (tmp_path / "d").touch()

    errors = [point.error for point in kill_points(work, tmp_path, error=errno.ENOSPC)]
    assert all("No space left on device" in error for error in errors[:-1])
    assert [error.rpartition("/")[2] for error in errors[2:-1]] == ["d'"] * 4
    assert errors[-1] is None


def test_stopped_process_goes_on(tmp_path):
    def work():
        (tmp_path / "a").touch()
        (tmp_path / "b").touch()
        (tmp_path / "c").write_text(str(sorted(os.listdir(tmp_path))))

    for point in kill_points(work, tmp_path, action="stop", first=2):
        assert point.what == "create b"
        assert os.listdir(tmp_path) == ["a"]
        (tmp_path / "other").touch()
        assert point.resume().error is None
        break
    assert (tmp_path / "c").read_text() == "['a', 'b', 'other']"


def test_failure_of_the_work_is_reported(tmp_path):
    def work():
        (tmp_path / "a").touch()
        raise ValueError("on purpose")

    assert [point.error for point in kill_points(work, tmp_path)] == [None, "ValueError: on purpose"]


def test_points_of_an_export(tmp_path):
    ds = raster({"B4": random_band((32, 32))})

    def work():
        ds.tfexport(tmp_path / "s", patch_dimensions=16)

    last = run_in_child(work, tmp_path)
    assert last.error is None
    assert any(change.endswith("s-mixer.json") for change in last.changes)


@pytest.mark.parametrize("error", [None, errno.EIO])
def test_folder_is_restored(error, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "old").write_text("old")
    (tmp_path / "link").symlink_to("sub/old")

    def work():
        shutil.rmtree(tmp_path / "sub")
        (tmp_path / "link").unlink()

    points = [point.what for point in kill_points(work, tmp_path, error=error)]
    assert points[:3] == ["remove sub/old", "rmdir sub", "remove link"]
