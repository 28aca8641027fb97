"""What the behavior of a function depends on: its instructions, the globals that it reads, and its imports.

Comments, docstrings, type hints, blank lines, and the names of files have no effect.
"""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
import types
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, pairwise
from typing import Any

__all__ = [
    "assigned_cells",
    "changed_names",
    "code_objects",
    "compiled_module",
    "flags_of",
    "globals_of",
    "imports_of",
    "instructions_of",
    "is_library",
    "library_version",
    "names_in",
]

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_IGNORED_OPERATIONS = frozenset({"CACHE", "EXTENDED_ARG", "RESUME", "NOP"})
_JOINED = re.compile("_(?=LOAD_|STORE_)")  # between the names of two instructions
# What class bodies and modules store without effect on behavior.
_IGNORED_NAMES = frozenset(
    {"__doc__", "__firstlineno__", "__static_attributes__", "__annotations__", "__qualname__", "__module__"}
)
_DOCSTRING_FLAG = 0x4000000  # Python 3.13 and newer
# Methods of containers that add to a cache, a counter or a log.
_ADDING = frozenset({"add", "append", "appendleft", "extend", "insert", "put", "setdefault", "update"})


def instructions_of(code: types.CodeType) -> Iterator[tuple[str, Any]]:
    """Yield the name and argument of each instruction, without those that only store a docstring or a line.

    Arguments are constants, names, or the positions of jumps, counted in instructions. Where the handler of
    exceptions changes, as at the start and end of the body of ``try``, its position is yielded.
    """
    steps = _steps(code)
    offsets = [step.offset for step in steps]
    skipped = {
        number
        for number, (load, store) in enumerate(pairwise(steps))
        if store.opname == "STORE_NAME" and store.argval in _IGNORED_NAMES and load.opname.startswith("LOAD")
    }

    def position(offset: int) -> int:
        number = bisect_left(offsets, offset)  # the instruction there may be one that is ignored
        return number - sum(2 for each in skipped if each < number)

    handlers: list[tuple[int, ...] | None] = [None] * len(steps)  # of exceptions, by instruction
    for start, end, target, state in _exception_table(code):
        first, last = bisect_left(offsets, start), bisect_left(offsets, end)
        handlers[first:last] = [(position(target), state)] * (last - first)
    handler = None
    for number, step in enumerate(steps):
        if number in skipped or number - 1 in skipped:
            continue
        if handlers[number] != handler:
            handler = handlers[number]
            yield "HANDLER", handler
        if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            yield step.opname, position(step.argval)
        elif step.opcode in dis.hasconst and step.arg is not None:
            # Python 3.11 has no `argval` for the names of keywords.
            yield step.opname, code.co_consts[step.arg]
        else:
            yield step.opname, step.argval


def _steps(code: types.CodeType) -> list[dis.Instruction]:
    """Return the instructions that have an effect.

    Python 3.13 joins instructions of two variables to one if they are in the same line: they are split, so
    that the layout has no effect.
    """
    found = [each for each in dis.get_instructions(code) if each.opname not in _IGNORED_OPERATIONS]
    steps = list[dis.Instruction]()
    for step, following in zip(found, chain(found[1:], found[-1:]), strict=True):
        names = _JOINED.split(step.opname) if isinstance(step.argval, tuple) else ()
        if len(names) == 2:
            steps.append(step._replace(opname=names[0], argval=step.argval[0]))
            # The position of the second is not stored; an attribute of its variable starts where it starts.
            there = following.positions
            steps.append(step._replace(opname=names[1], argval=step.argval[1], positions=there))
        else:
            steps.append(step)
    return steps


def _exception_table(code: types.CodeType) -> Iterator[tuple[int, int, int, int]]:
    """Yield the start and end of each range of instructions with a handler, the handler, and its state.

    These are offsets in bytes, except the state, which is the depth of the stack and a flag.
    """
    numbers, number = list[int](), 0
    for byte in code.co_exceptiontable:  # six bits of a number per byte, the highest ones first
        number = number << 6 | byte & 0x3F
        if not byte & 0x40:  # the last byte of a number
            numbers.append(number)
            number = 0
    for start, length, target, state in zip(*[iter(numbers)] * 4, strict=True):
        yield 2 * start, 2 * (start + length), 2 * target, state


def flags_of(code: types.CodeType) -> int:
    """Return the flags of a code object, such as that of generators, without that of docstrings."""
    return code.co_flags & ~_DOCSTRING_FLAG


def compiled_module(module: types.ModuleType) -> types.CodeType | None:
    """Compile the source of a module; None if it has none, such as an extension module."""
    spec = getattr(module, "__spec__", None)
    loader: Any = getattr(spec, "loader", None) or getattr(module, "__loader__", None)
    with suppress(Exception):  # from any loader, or a syntax error in an edited file
        source = loader.get_source(module.__name__)
        if source is not None:
            return compile(source, "<module>", "exec", dont_inherit=True)
    return None


def imports_of(code: types.CodeType, package: str) -> Iterator[types.ModuleType]:
    """Import and yield the user's own modules that code of a package imports."""
    for name, level, members in sorted(_imported(code), key=repr):
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
        steps = _steps(part)
        for number, each in enumerate(steps):
            if each.opname == "IMPORT_NAME":
                level, members = (step.argval for step in steps[number - 2 : number])
                found.add((str(each.argval), int(level), tuple(members or ())))
    return found


def globals_of(code: types.CodeType) -> set[str]:
    """Return the global names that a function and its nested functions read and do not assign."""
    read, assigned = set[str](), set[str]()
    for instruction in chain.from_iterable(map(dis.get_instructions, code_objects(code))):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(str(instruction.argval))
        elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            assigned.add(str(instruction.argval))
    return read - assigned


def assigned_cells(code: types.CodeType) -> set[str]:
    """Return the variables of enclosing functions that a function or its nested functions assign."""
    instructions = chain.from_iterable(map(dis.get_instructions, code_objects(code)))
    assigned = {str(each.argval) for each in instructions if each.opname == "STORE_DEREF"}
    return assigned.intersection(code.co_freevars)


def changed_names(code: types.CodeType) -> set[str]:
    """Return the names of containers and counters that a function or its nested functions change.

    These are variables, as in ``count["calls"] += 1`` and ``seen.append(1)``, and attributes of arguments,
    as in ``self.calls += 1``, which are returned as ``.calls``.
    """
    changed = set(_changed(code))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):  # without the local variables of this function
            changed |= changed_names(constant).difference(
                {*constant.co_freevars}.intersection(code.co_cellvars)
            )
    return changed


def _changed(code: types.CodeType) -> Iterator[str]:
    steps = _steps(code)
    arguments = code.co_varnames[: code.co_argcount]
    members = {step.argval for step in steps if step.opname == "STORE_NAME"}  # of the body of a class
    local = members.union(code.co_varnames, code.co_cellvars)
    # Names by position: an assignment to `self.count["calls"]` starts where `self` and `self.count` start.
    chains: dict[Any, list[str]] = {}
    for step in steps:
        if step.opname.startswith("LOAD_") and isinstance(step.argval, str) and step.positions:
            names = chains.setdefault(step.positions[::2], [])
            names += [step.argval] if step.argval not in names else []
    for step in steps:
        names = list(chains.get(step.positions[::2], ())) if step.positions else []
        if (
            step.opname in ("LOAD_METHOD", "LOAD_ATTR")
            and step.argval in _ADDING
            and names[-1] == step.argval
        ):
            names.pop()
        elif step.opname == "STORE_ATTR" and step.argval in names[1:]:  # only `+=`
            pass
        elif step.opname not in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            continue
        if len(names) == 1 and names[0] not in local:
            yield names[0]
        elif len(names) == 2 and names[0] in arguments:
            yield f".{names[1]}"


def names_in(code: types.CodeType) -> set[str]:
    """Return the names and texts in a function and its nested functions: attributes that it may use."""
    parts = list(code_objects(code))
    texts = {each for part in parts for each in part.co_consts if isinstance(each, str)}
    return texts.union(*(part.co_names for part in parts))


def code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code objects of a function and its nested functions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from code_objects(constant)


@functools.cache
def library_version(name: str) -> str:
    """Return the version of the package that a module of a library belongs to."""
    root = name.partition(".")[0]
    if root in sys.builtin_module_names or root in sys.stdlib_module_names:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    version = getattr(sys.modules.get(root), "__version__", None)
    if not isinstance(version, str):
        try:
            version = importlib.metadata.version(root)
        except importlib.metadata.PackageNotFoundError:
            version = ""
    return version


@functools.cache
def is_library(name: str | None) -> bool:
    """Return whether a module belongs to Python, an installed package or this package.

    The name and version of such a module identify its content.
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
