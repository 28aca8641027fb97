"""The files of the project are consistent."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("rattler")

import yaml
from packaging.requirements import Requirement
from rattler import MatchSpec

import xee_tf
from tests.conftest import ROOT

# Packages whose names on conda-forge and PyPI differ.
CONDA_NAMES = {"isal": "python-isal", "matplotlib": "matplotlib-base", "docstring-parser": "docstring_parser"}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements(project: dict[str, Any], extra: str | None) -> list[Requirement]:
    """Return the requirements of the package, or of an extra including nested extras."""
    texts = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    result = []
    for requirement in map(Requirement, texts):
        if requirement.name == project["name"]:
            result += [each for name in requirement.extras for each in requirements(project, name)]
        else:
            result.append(requirement)
    return result


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "packaging" / "conda-forge" / "recipe.yaml").read_text())


def by_conda_name(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Return the versions of requirements by their names on conda-forge."""
    versions = {}
    for requirement in requirements:
        name = requirement.name.lower()
        versions[CONDA_NAMES.get(name, name)] = str(requirement.specifier)
    return versions


def by_spec_name(texts: Iterable[str]) -> dict[str, str]:
    """Return the versions of conda's match specifications by name."""
    return {spec.name.normalized: str(spec.version or "") for spec in map(MatchSpec, texts)}


@pytest.mark.parametrize(("file", "extra"), [("environment.yml", "all"), ("environment-dev.yml", "dev")])
def test_environments_have_the_requirements_of_the_package(
    pyproject: dict[str, Any], file: str, extra: str
) -> None:
    environment = yaml.safe_load((ROOT / file).read_text())
    project = pyproject["project"]
    expected = {"python": project["requires-python"]}
    expected |= by_conda_name(requirements(project, None) + requirements(project, extra))
    found = by_spec_name(text for text in environment["dependencies"] if isinstance(text, str))
    assert found.pop("pip") == ""
    [editable, *by_pip] = environment["dependencies"][-1]["pip"]
    assert editable == "--editable ."
    found |= {requirement.name: str(requirement.specifier) for requirement in map(Requirement, by_pip)}
    assert found == expected
    assert environment["channels"] == ["conda-forge", "nodefaults"]


def test_recipe_has_the_requirements_of_the_package(
    pyproject: dict[str, Any], recipe: dict[str, Any]
) -> None:
    project, sections = pyproject["project"], recipe["requirements"]
    core = by_conda_name(requirements(project, None))
    extras = by_conda_name(requirements(project, "all"))
    assert by_spec_name(text for text in sections["run"] if "python_min" not in text) == core
    constraints = by_spec_name(sections["run_constraints"])
    assert constraints == {name: extras[name] for name in extras if name not in core}
    assert by_spec_name(text for text in sections["host"] if "hatchling" in text) == by_conda_name(
        map(Requirement, pyproject["build-system"]["requires"])
    )
    [script] = recipe["build"]["python"]["entry_points"]
    assert dict([script.split(" = ")]) == project["scripts"]


def test_recipe_and_citation_have_the_released_version(recipe: dict[str, Any]) -> None:
    versions = re.findall(r"^## \[(\d.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert recipe["context"]["version"] == versions[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == versions[0]


def test_urls_are_the_same(pyproject: dict[str, Any], recipe: dict[str, Any]) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    homepage = pyproject["project"]["urls"]["Homepage"]
    about = recipe["about"]
    assert {about["homepage"], about["repository"], citation["repository-code"]} == {homepage}
    assert all(url.startswith(homepage) for url in pyproject["project"]["urls"].values())


def test_workflow_tests_every_supported_python(pyproject: dict[str, Any]) -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    pythons = workflow["jobs"]["posix"]["strategy"]["matrix"]["python"]
    classifiers = pyproject["project"]["classifiers"]
    assert [f"Programming Language :: Python :: {version}" for version in pythons] == [
        text for text in classifiers if re.search(r":: 3\.\d+$", text)
    ]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_forms_and_workflows_are_valid_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_version_is_defined_once(pyproject: dict[str, Any]) -> None:
    assert "version" not in pyproject["project"]
    source = ROOT / pyproject["tool"]["hatch"]["version"]["path"]
    assert re.findall(r'^__version__ = "(.+)"$', source.read_text(), re.MULTILINE) == [xee_tf.__version__]


def test_classifiers_list_every_supported_python(pyproject: dict[str, Any]) -> None:
    classifiers = pyproject["project"]["classifiers"]
    minors = [c.rsplit(" ", 1)[-1] for c in classifiers if re.search(r":: 3\.\d+$", c)]
    assert minors == ["3.11", "3.12", "3.13"]
    assert pyproject["project"]["requires-python"] == f">={minors[0]}"


def test_changelog_has_the_version_or_unreleased_changes() -> None:
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


# -- CONTRIBUTING.md -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contributing() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text()


def test_contributing_lists_every_component(pyproject: dict[str, Any], contributing: str) -> None:
    [layers] = [
        contract["layers"]
        for contract in pyproject["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]
    level = {room: number for number, layer in enumerate(layers) for room in re.findall(r"\w+", layer)}
    rows = [line for line in contributing.splitlines() if re.match(r"\| `\w+`.*\|.*\|$", line)]
    listed = [level.get(room, room) for row in rows for room in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert listed == sorted(level.values())


def test_files_in_contributing_exist(contributing: str) -> None:
    names = re.findall(r"`((?:xee_tf|tests|packaging|\.github)/[\w./-]+)`", contributing)
    assert len(names) > 20
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_classes_and_functions_in_contributing_exist(contributing: str) -> None:
    recipes = contributing[contributing.index("## How to add") : contributing.index("## Deprecations")]
    names = {name.rsplit(".", 1)[-1] for name in re.findall(r"`(\w+(?:\.\w+)?)`", recipes)}
    assert len(names) > 40
    paths = (path for folder in ("xee_tf", "tests") for path in (ROOT / folder).rglob("*.py"))
    identifiers = set(re.findall(r"\w+", "\n".join(path.read_text() for path in paths)))
    assert sorted(names - identifiers) == []
