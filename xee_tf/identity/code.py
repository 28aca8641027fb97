"""Dependencies of a function: the globals that its bytecode refers to and the modules that it imports."""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.util
import sys
import sysconfig
import types
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

__all__ = ["code_objects", "globals_of", "imports_of", "is_library"]

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def imports_of(function: types.FunctionType) -> Iterator[types.ModuleType]:
    """Import and yield the user's own modules that a function imports when it is called."""
    package = function.__globals__.get("__package__") or ""
    for name, level, members in sorted(_imported(function.__code__), key=repr):
        absolute = f"{'.' * level}{name}"
        with suppress(Exception):  # a failing import also fails in the call, or is optional there
            if level:
                absolute = importlib.util.resolve_name(absolute, package)
            if is_library(absolute):
                continue
            module = importlib.import_module(absolute)
            # Without members, the import statement binds the top-level package.
            yield from {sys.modules[absolute.partition(".")[0]], module} if not members else {module}
            for member in members:
                if not hasattr(module, member):
                    with suppress(ImportError):
                        importlib.import_module(f"{absolute}.{member}")


def _imported(code: types.CodeType) -> set[tuple[str, int, tuple[str, ...]]]:
    """Return the imports of a function and its nested functions: module, level (leading dots) and members."""
    found = set()
    for part in code_objects(code):
        steps = [each for each in dis.get_instructions(part) if each.opname not in ("EXTENDED_ARG", "CACHE")]
        for number, each in enumerate(steps):
            if each.opname == "IMPORT_NAME":
                level, members = (step.argval for step in steps[number - 2 : number])
                found.add((str(each.argval), int(level), tuple(members or ())))
    return found


def globals_of(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Return the global names that a function and its nested functions read, and those that they assign."""
    read, assigned = set[str](), set[str]()
    for instruction in chain.from_iterable(map(dis.get_instructions, code_objects(code))):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(str(instruction.argval))
        elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            assigned.add(str(instruction.argval))
    return read, assigned


def code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code objects of a function and its nested functions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from code_objects(constant)


@functools.cache
def is_library(name: str | None) -> bool:
    """Return whether a module belongs to Python, an installed package or this package.

    The name of such a module identifies its content.
    """
    if name is None or name == "__main__":
        return False
    root = name.partition(".")[0]
    if root == "xee_tf":
        return True
    if root in sys.modules:
        module: Any = sys.modules[root]
        file, folders = getattr(module, "__file__", None), getattr(module, "__path__", ())
    else:  # look up the path without importing the module
        try:
            spec = importlib.util.find_spec(root)
        except (ImportError, ValueError):
            spec = None
        file = spec.origin if spec is not None and spec.has_location else None
        folders = (spec.submodule_search_locations if spec is not None else None) or ()
    file = file or next(iter(folders), None)
    if file is None:
        return root in sys.builtin_module_names or root in sys.stdlib_module_names
    parts = file.replace("\\", "/").split("/")
    return "site-packages" in parts or "dist-packages" in parts or file.startswith(_LIBRARIES)
