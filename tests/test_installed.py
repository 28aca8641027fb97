"""show_versions."""

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


def printed_versions() -> dict[str, str]:
    """Return the printed versions by the names of packages."""
    file = io.StringIO()
    xee_tf.show_versions(file)
    return dict(line.split(": ", 1) for line in file.getvalue().splitlines() if line)


def test_dependencies_are_shown() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = printed_versions()
    assert versions["xee_tf"] == xee_tf.__version__
    assert versions["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    names = {Requirement(text).name.lower() for text in project["dependencies"]}
    assert names <= set(versions)
    assert versions["numpy"] == metadata.version("numpy")
    assert "ruff" not in versions


def test_missing_packages_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_rasterio(name: str) -> str:
        if name == "rasterio":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("xee_tf.installed.version", no_rasterio)
    assert printed_versions()["rasterio"] == "not installed"
    assert printed_versions()["numpy"] == "1.0"


def test_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_requirements(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("xee_tf.installed.requires", no_requirements)
    assert "s3fs" in printed_versions()


def test_no_package_is_imported() -> None:
    code = (
        "import sys, xee_tf; before = set(sys.modules); xee_tf.show_versions(); "
        "print(sorted({n.partition('.')[0] for n in set(sys.modules) - before} & set(sys.argv[1:])))"
    )
    packages = ["tensorflow", "keras", "geopandas", "grpc", "starlette", "s3fs", "google"]
    done = subprocess.run([sys.executable, "-c", code, *packages], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
