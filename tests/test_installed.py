"""What a report of a bug says of the environment."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
from importlib import metadata
from typing import Any

import pytest
from packaging.requirements import Requirement

import xee_tf
from tests.conftest import ROOT


def shown() -> dict[str, str]:
    """The lines that are printed, by the names of packages."""
    file = io.StringIO()
    xee_tf.show_versions(file)
    return dict(line.split(": ", 1) for line in file.getvalue().splitlines() if line)


def test_it_shows_what_xee_tf_asks_for() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = shown()
    assert lines["xee_tf"] == xee_tf.__version__
    assert lines["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    names = {Requirement(text).name.lower() for text in project["dependencies"]}
    assert names <= set(lines)
    assert lines["numpy"] == metadata.version("numpy")
    assert "ruff" not in lines


def test_what_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_rasterio(name: str) -> str:
        if name == "rasterio":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("xee_tf.installed.version", no_rasterio)
    assert shown()["rasterio"] == "not installed"
    assert shown()["numpy"] == "1.0"


def test_a_copy_that_is_not_installed_shows_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("xee_tf.installed.requires", nothing)
    assert "s3fs" in shown()


def test_it_imports_nothing() -> None:
    code = (
        "import sys, xee_tf; before = set(sys.modules); xee_tf.show_versions(); "
        "print(sorted({n.partition('.')[0] for n in set(sys.modules) - before} & set(sys.argv[1:])))"
    )
    packages = ["tensorflow", "keras", "geopandas", "grpc", "starlette", "s3fs", "google"]
    done = subprocess.run([sys.executable, "-c", code, *packages], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
