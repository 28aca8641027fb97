"""Tests of claims: which runs hold them, and when another run may take them over."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

import xee_tf.storage.claims
from tests.conftest import ROOT
from tests.waiting import wait_until
from xee_tf import DestinationError, DestinationExistsError
from xee_tf.storage import Location, Staging, claim
from xee_tf.storage.processes import LEASE, process_token

ELSEWHERE = "0123abcd-1f-00000001"  # a process of another machine


@cache
def dead_process() -> str:
    """Return the token of a process of this machine that has ended."""
    code = "from xee_tf.storage.processes import process_token; print(process_token())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.stdout.strip()


def claimed_by(process: str, folder: Path, age: float = 0) -> Staging:
    """Leave the claim of a process, with the staging folder of its run."""
    run = Staging(Location.of(folder / "p.zarr"), f"{process}-00000000")
    (folder / ".p.zarr.writer").write_text(run.token)
    os.makedirs(run.folder.path)
    (Path(run.folder.path) / "chunk").write_bytes(b"")
    for path in (Path(run.folder.path) / "chunk", run.folder.path, folder / ".p.zarr.writer"):
        os.utime(path, (time.time() - age,) * 2)
    return run


def is_free(folder: Path) -> bool:
    try:
        with claim(Location.of(folder / "p.zarr")):
            return True
    except DestinationExistsError:
        return False


def test_claim_of_a_dead_process_is_free_at_once(tmp_path: Path) -> None:
    claimed_by(dead_process(), tmp_path)
    assert is_free(tmp_path)
    assert not (tmp_path / ".p.zarr.writer").exists()


def test_claim_of_another_user_that_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with the sticky bit, such as ``/tmp``."""
    claimed_by(dead_process(), tmp_path)

    def rename(*paths: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", *paths[:1])

    monkeypatch.setattr("xee_tf.storage.claims.os.rename", rename)
    with pytest.raises(DestinationError, match=r"Cannot delete .*\.p\.zarr\.writer: "):
        is_free(tmp_path)


@pytest.mark.parametrize(("age", "free"), [(0, False), (0.9 * LEASE, False), (1.1 * LEASE, True)])
def test_claim_of_another_machine_expires(age: float, free: bool, tmp_path: Path) -> None:
    claimed_by(ELSEWHERE, tmp_path, age)
    assert is_free(tmp_path) == free


@pytest.mark.parametrize("sign", ["claim", "chunk", "worker"])
def test_every_sign_of_life_counts(sign: str, tmp_path: Path) -> None:
    """The claim itself is renewed while a model computes, and workers write chunks."""
    run = claimed_by(ELSEWHERE, tmp_path, 2 * LEASE)
    folder = Path(run.folder.path)
    files = {"claim": tmp_path / ".p.zarr.writer", "chunk": folder / "chunk", "worker": folder / "alive-x"}
    files[sign].touch()
    assert not is_free(tmp_path)


@pytest.mark.parametrize(("age", "free"), [(0, False), (1.1 * LEASE, True)])
def test_workers_outlive_the_run(age: float, free: bool, tmp_path: Path) -> None:
    """A worker of a cluster exists for longer than the run that it worked for."""
    run = claimed_by(dead_process(), tmp_path)
    folder = Path(run.folder.path)
    (folder / f"alive-{process_token()}").write_bytes(b"")
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - age,) * 2)
    assert is_free(tmp_path) == free


@pytest.mark.parametrize("store", ["local", "memory"])
def test_claim_is_renewed(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xee_tf.storage.claims, "_RENEWAL", 0.05)
    destination = Location.of(tmp_path / "p.zarr" if store == "local" else "memory://renewed/p.zarr")
    file = destination.parent.child(".p.zarr.writer")

    def written() -> object:
        return file.info()["mtime" if store == "local" else "created"]

    with claim(destination) as run:
        if store == "local":
            os.utime(file.path, (1e9, 1e9))
        first = written()
        wait_until(lambda: written() != first, 10)
        assert file.read_bytes() == run.token.encode()
    assert not file.exists()


def test_claim_that_was_taken_over_is_not_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xee_tf.storage.claims, "_RENEWAL", 0.05)
    file = tmp_path / ".p.zarr.writer"
    with claim(Location.of(tmp_path / "p.zarr")):
        file.write_text("another run")
        os.utime(file, (1e9, 1e9))
        time.sleep(0.3)
        assert file.stat().st_mtime == 1e9
    assert file.read_text() == "another run"
