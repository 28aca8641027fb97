"""Rules for components that the import contracts in pyproject.toml cannot express."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

DASK_TASKS = ("dask.task_spec", "dask._task_spec", "dask.highlevelgraph", "dask.delayed")

Find = Callable[[ast.AST], Iterator[str]]


def imported(node: ast.AST) -> list[str]:
    """Return the full names that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def imports_of(*packages: str) -> Find:
    """Find imports of packages or their members."""

    def find(node: ast.AST) -> Iterator[str]:
        for name in imported(node):
            if any(f"{name}.".startswith(f"{package}.") for package in packages):
                yield name

    return find


def opens_for_writing(node: ast.AST) -> Iterator[str]:
    """Find calls of ``open`` (of Python, pathlib, fsspec or rasterio) with a mode for writing."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func).rsplit(".", 1)[-1] != "open":
        return
    texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
    named = {word.arg: word.value for word in node.keywords}
    if isinstance(mode := named.get("mode"), ast.Constant):
        texts.append(mode.value)
    in_memory = "fileobj" in named or any(ast.unparse(arg) == "os.devnull" for arg in node.args)
    if not in_memory and any(isinstance(text, str) and set("wax+") & set(text[:3]) for text in texts):
        yield ast.unparse(node)


def test_only_storage_shards_and_cog_open_files_for_writing() -> None:
    allowed = ("storage", "shards", "upload.cog")
    assert violations(opens_for_writing, allowed) == []


def test_only_storage_imports_zarr() -> None:
    assert violations(imports_of("zarr"), ("storage.zarr",)) == []


def test_only_graph_and_identities_import_dask_tasks() -> None:
    assert violations(imports_of(*DASK_TASKS), ("graph", "identity.graphs")) == []


def computes(node: ast.AST) -> Iterator[str]:
    """Find calls that compute Dask collections."""
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called.rsplit(".", 1)[-1] in ("compute", "persist") or called in ("da.store", "dask.array.store"):
            yield ast.unparse(node)


def test_only_graph_computes() -> None:
    """`run_graph` waits for running threads when it is interrupted; the demo writes nothing lazily."""
    assert violations(computes, ("graph", "demo")) == []


def test_every_folder_is_a_package() -> None:
    """Import contracts ignore folders without ``__init__.py``."""
    folders = {path.parent for path in python_files()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_modules_are_private_to_their_package() -> None:
    """Other packages import names from the ``__init__`` of the package."""
    outside = [
        f"{module_name(path)}:{node.lineno} {name}"
        for path in python_files()
        for node in nodes_of(path)
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
def test_opens_for_writing(code: str, writes: bool) -> None:
    assert any(True for node in ast.walk(ast.parse(code)) for _ in opens_for_writing(node)) is writes


def violations(find: Find, allowed: tuple[str, ...]) -> list[str]:
    """List the results of `find` outside the allowed modules or components."""
    return [
        f"{module}:{getattr(node, 'lineno', '')} {result}"
        for path in python_files()
        if not f"{(module := module_name(path))}.".startswith(tuple(f"{name}." for name in allowed))
        for node in nodes_of(path)
        for result in find(node)
    ]


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def module_of(name: str) -> Path | None:
    """Return the file of the xee_tf module that an imported name is or is defined in; None for packages."""
    path = ROOT / name.replace(".", "/")
    return next((file for at in (path, path.parent) if (file := at.with_suffix(".py")).exists()), None)


def python_files() -> list[Path]:
    return sorted((ROOT / "xee_tf").rglob("*.py"))


def module_name(path: Path) -> str:
    """Return the name of a module without that of the package."""
    return ".".join(path.relative_to(ROOT / "xee_tf").with_suffix("").parts).removesuffix(".__init__")
