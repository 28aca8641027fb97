"""What rooms may do, where import contracts cannot state it: those are in pyproject.toml."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

DASK_TASKS = ("dask.task_spec", "dask._task_spec", "dask.highlevelgraph", "dask.delayed")

Find = Callable[[ast.AST], Iterator[str]]


def imported(node: ast.AST) -> list[str]:
    """The full names that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def of_package(*packages: str) -> Find:
    """Imports of packages or what is in them."""

    def find(node: ast.AST) -> Iterator[str]:
        for name in imported(node):
            if any(f"{name}.".startswith(f"{package}.") for package in packages):
                yield name

    return find


def opens_for_writing(node: ast.AST) -> Iterator[str]:
    """Calls of something named ``open``, of Python, pathlib, fsspec or rasterio, with a mode that writes."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func).rsplit(".", 1)[-1] != "open":
        return
    texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
    named = {word.arg: word.value for word in node.keywords}
    if isinstance(mode := named.get("mode"), ast.Constant):
        texts.append(mode.value)
    in_memory = "fileobj" in named or any(ast.unparse(arg) == "os.devnull" for arg in node.args)
    if not in_memory and any(isinstance(text, str) and set("wax+") & set(text[:3]) for text in texts):
        yield ast.unparse(node)


def test_only_storage_and_the_writers_of_files_open_them_for_writing() -> None:
    allowed = ("storage", "shards", "upload.cog")
    assert found(opens_for_writing, allowed) == []


def test_only_storage_knows_zarr() -> None:
    assert found(of_package("zarr"), ("storage.zarr",)) == []


def test_only_graph_knows_the_tasks_of_dask() -> None:
    assert found(of_package(*DASK_TASKS), ("graph",)) == []


def test_every_folder_is_a_package() -> None:
    """Without ``__init__.py`` the contracts would not see it."""
    folders = {path.parent for path in python_files()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_modules_are_private_to_their_package() -> None:
    """From elsewhere their names are imported from the package, whose ``__init__`` gives them out."""
    outside = [
        f"{module_name(path)}:{node.lineno} {name}"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported(node)
        if (module := module_of(name)) and module.parent not in path.parents
    ]
    assert outside == []


@pytest.mark.parametrize(
    ("code", "writes"),
    [
        ("open(path, 'wb')", True),
        ("location.open(mode='r+b')", True),
        ("rasterio.open(path, 'w', **profile)", True),
        ("open(path)", False),
        ("location.open('rb')", False),
        ("tarfile.open(fileobj=buffer, mode='w')", False),
    ],
)
def test_writing_is_recognised(code: str, writes: bool) -> None:
    assert any(True for node in ast.walk(ast.parse(code)) for _ in opens_for_writing(node)) is writes


def found(find: Find, allowed: tuple[str, ...]) -> list[str]:
    """Where something is found outside of the modules or rooms that may have it."""
    return [
        f"{module}:{getattr(node, 'lineno', '')} {what}"
        for path in python_files()
        if not f"{(module := module_name(path))}.".startswith(tuple(f"{name}." for name in allowed))
        for node in ast.walk(ast.parse(path.read_text()))
        for what in find(node)
    ]


def module_of(name: str) -> Path | None:
    """The module of ours that an imported name is or stands in; None for what packages give out."""
    path = ROOT / name.replace(".", "/")
    return next((file for at in (path, path.parent) if (file := at.with_suffix(".py")).exists()), None)


def python_files() -> list[Path]:
    return sorted((ROOT / "xee_tf").rglob("*.py"))


def module_name(path: Path) -> str:
    """Without the name of the package."""
    return ".".join(path.relative_to(ROOT / "xee_tf").with_suffix("").parts).removesuffix(".__init__")
