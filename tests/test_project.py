"""The project's own papers agree with one another."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("rattler")

import yaml
from packaging.requirements import Requirement
from rattler import MatchSpec

import xee_tf

ROOT = Path(__file__).parents[1]

# Where conda-forge uses another name than PyPI; extras are left out by both sides.
CONDA_NAMES = {"isal": "python-isal", "matplotlib": "matplotlib-base"}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements(project: dict[str, Any], extra: str | None) -> list[Requirement]:
    """Those of the package, or of an extra and of the extras that it names."""
    texts = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, texts):
        if requirement.name == project["name"]:
            found += [each for name in requirement.extras for each in requirements(project, name)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize(("file", "extra"), [("environment.yml", "all"), ("environment-dev.yml", "dev")])
def test_environment_has_the_requirements_of_the_package(
    pyproject: dict[str, Any], file: str, extra: str
) -> None:
    environment = yaml.safe_load((ROOT / file).read_text())
    project = pyproject["project"]
    wanted = {"python": project["requires-python"]}
    for requirement in requirements(project, None) + requirements(project, extra):
        name = requirement.name.lower()
        wanted[CONDA_NAMES.get(name, name)] = str(requirement.specifier)
    specs = [MatchSpec(text) for text in environment["dependencies"] if isinstance(text, str)]
    found = {spec.name.normalized: str(spec.version or "") for spec in specs}
    assert found.pop("pip") == ""
    [editable, *by_pip] = environment["dependencies"][-1]["pip"]
    assert editable == "--editable ."
    found |= {requirement.name: str(requirement.specifier) for requirement in map(Requirement, by_pip)}
    assert found == wanted
    assert environment["channels"] == ["conda-forge", "nodefaults"]


def test_version_has_one_source(pyproject: dict[str, Any]) -> None:
    assert "version" not in pyproject["project"]
    source = ROOT / pyproject["tool"]["hatch"]["version"]["path"]
    assert re.findall(r'^__version__ = "(.+)"$', source.read_text(), re.MULTILINE) == [xee_tf.__version__]


def test_every_supported_python_is_named(pyproject: dict[str, Any]) -> None:
    classifiers = pyproject["project"]["classifiers"]
    minors = [c.rsplit(" ", 1)[-1] for c in classifiers if re.search(r":: 3\.\d+$", c)]
    assert minors == ["3.11", "3.12", "3.13"]
    assert pyproject["project"]["requires-python"] == f">={minors[0]}"


def test_changelog_speaks_of_this_version_or_of_what_comes() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert xee_tf.__version__ in headings or ".dev" in xee_tf.__version__


def test_data_packages_are_pinned_by_hash() -> None:
    lines = [
        line
        for line in (ROOT / "data-requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines
    assert all(re.fullmatch(r"[\w-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
