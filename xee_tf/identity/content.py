"""Hash Python objects by content, with the same result in every session that runs the same script."""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from xee_tf.identity.code import code_objects, globals_of, imports_of, is_library

__all__ = ["content_hash"]

_TENSORS = frozenset({"torch", "tensorflow", "jax", "jaxlib"})
# Attributes that Python adds to a class.
_IMPLICIT_CLASS_ATTRIBUTES = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__module__",
        "__doc__",
        "__annotations__",
        "__annotate_func__",
        "__annotations_cache__",
        "__firstlineno__",
        "__static_attributes__",
        "__slotnames__",
        "__abstractmethods__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "_abc_impl",
    }
)
_BY_NAME = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, np.ufunc)


def content_hash(value: Any) -> str | None:
    """Return a hash of an object's content, the same in every process.

    Functions are hashed by their bytecode, constants, defaults, closures and the globals that they read,
    without file names and line numbers. Functions and classes from installed packages are hashed by name,
    other objects by their pickled state. Global variables that a function assigns are treated as caches and
    ignored. An object whose class has ``__dask_tokenize__`` is hashed by the result of that method.

    Returns
    -------
    str or None
        None if the content cannot be determined.

    Examples
    --------
    >>> def times(factor):
    ...     return lambda pixels: factor * pixels
    >>> content_hash(times(2)) == content_hash(times(2)), content_hash(times(2)) == content_hash(times(3))
    (True, False)
    """
    try:
        return _Hasher().digest(value).hex()
    except Exception:  # from third-party __reduce__ methods, or a RecursionError
        return None


class _Hasher:
    """Hash objects recursively; keep a reference to each object with its hash."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._open: list[int] = []

    def digest(self, value: Any) -> bytes:
        if (leaf := _leaf(value)) is not None:
            return _hash(leaf)
        number = id(value)
        if number in self._known:
            return self._known[number][1]
        if number in self._open:  # a cycle: hash the distance to the enclosing object
            return _hash([b"above", str(len(self._open) - self._open.index(number)).encode()])
        self._open.append(number)
        try:
            found = _hash(
                [part if isinstance(part, bytes) else self.digest(*part) for part in _parts(self, value)]
            )
        finally:
            self._open.pop()
        self._known[number] = (value, found)
        return found

    def unordered(self, values: Any) -> bytes:
        return _hash(sorted(self.digest(value) for value in values))


_HashPart = bytes | tuple[Any]
"""Bytes, or an object in a one-element tuple, which is replaced by its hash."""


def _hash(parts: Sequence[bytes | memoryview]) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()


def _leaf(value: Any) -> list[bytes | memoryview] | None:
    """Return the parts of a value that is hashed directly, or None for other objects."""
    kind = type(value).__name__.encode()
    if value is None or value is Ellipsis or value is NotImplemented or isinstance(value, bool):
        return [repr(value).encode()]
    if type(value) in (int, complex):
        return [kind, repr(value).encode()]
    if type(value) is float:
        return [kind, value.hex().encode()]
    if type(value) is str:
        return [kind, value.encode("utf-8", "surrogatepass")]
    if type(value) in (bytes, bytearray):
        return [kind, bytes(value)]
    if isinstance(value, np.dtype):
        return [b"dtype", repr(value).encode()]
    if isinstance(value, np.generic) and value.dtype.kind != "O":
        return [b"scalar", value.dtype.str.encode(), value.tobytes()]
    if type(value) is np.ndarray and not value.dtype.hasobject:
        pixels = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return [b"array", repr(value.dtype).encode(), repr(value.shape).encode(), pixels.data]
    return None


def _parts(hasher: _Hasher, value: Any) -> Iterator[_HashPart]:
    """Yield the components of an object."""
    if isinstance(value, types.ModuleType):
        yield from (b"module", value.__name__.encode())
        if not is_library(value.__name__) and (file := getattr(value, "__file__", None)):
            yield Path(file).read_bytes()  # any part of the module may be used
    elif isinstance(value, _BY_NAME):
        yield from (b"builtin", _name(value).encode())
        if not isinstance(owner := getattr(value, "__self__", None), types.ModuleType | None):
            yield (owner,)
    elif isinstance(value, functools._lru_cache_wrapper):
        yield from (b"cache", (value.__wrapped__,))
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, types.CodeType):
        yield from _code_parts(value)
    elif isinstance(value, types.MethodType):
        yield from (b"method", (value.__func__,), (value.__self__,))
    elif isinstance(value, types.CellType):
        try:
            yield from (b"cell", (value.cell_contents,))
        except ValueError:
            yield b"empty cell"
    elif isinstance(value, classmethod | staticmethod):
        yield from (type(value).__name__.encode(), (value.__func__,))
    elif isinstance(value, property):
        yield from (b"property", (value.fget,), (value.fset,), (value.fdel,))
    elif isinstance(value, type):
        yield from _class_parts(value)
    elif isinstance(value, enum.Enum):
        yield from (b"enum", (type(value),), value.name.encode())
    elif callable(tokenize := getattr(type(value), "__dask_tokenize__", None)):
        yield from (b"token", _name(type(value)).encode(), (tokenize(value),))
    elif type(value) in (list, tuple):
        yield type(value).__name__.encode()
        yield from ((each,) for each in value)
    elif type(value) is dict:
        yield b"dict"
        for key, each in value.items():
            yield from ((key,), (each,))
    elif type(value) in (set, frozenset):
        yield from (type(value).__name__.encode(), hasher.unordered(value))
    elif type(value) is np.ndarray:
        yield from (b"objects", repr(value.shape).encode(), (value.tolist(),))
    elif type(value).__module__.partition(".")[0] in _TENSORS and hasattr(value, "__array__"):
        array = value.detach().cpu() if hasattr(value, "detach") else value
        yield from (b"tensor", _name(type(value)).encode(), (np.asarray(array),))
    elif (keras := sys.modules.get("keras")) is not None and isinstance(value, keras.Model):
        yield from (b"keras", (keras.saving.serialize_keras_object(value),), (value.get_weights(),))
        yield from ((type(layer),) for layer in (value, *value._flatten_layers()))
    else:
        yield from _reduced_parts(value)


def _function_parts(function: types.FunctionType) -> Iterator[_HashPart]:
    if is_library(function.__module__) and _is_importable(function):
        yield from (b"function", _name(function).encode())
        return
    code = function.__code__
    yield from (b"code", (code,), (function.__defaults__,), (function.__kwdefaults__,))
    yield from ((cell,) for cell in function.__closure__ or ())
    wrapped = {name: each for name, each in vars(function).items() if name != "__wrapped__"}
    yield (dict(sorted(wrapped.items())),)
    read, assigned = globals_of(code)
    found = {name: function.__globals__[name] for name in read - assigned if name in function.__globals__}
    for name in sorted(found):
        module = isinstance(found[name], types.ModuleType)
        yield from (name.encode(), found[name].__name__.encode() if module else (found[name],))
    # The members of the user's own modules that the function may use.
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
    reached = [*found.values(), *cells, *(function.__defaults__ or ())]
    reached += (function.__kwdefaults__ or {}).values()
    modules = [each for each in reached if isinstance(each, types.ModuleType)]
    yield from _used_parts(
        [*modules, *imports_of(function)], {name for part in code_objects(code) for name in part.co_names}
    )


def _used_parts(modules: list[types.ModuleType], names: set[str]) -> Iterator[_HashPart]:
    """Yield the members of the user's own modules, nested ones included, that appear in `names`."""
    seen, waiting = set[str](), sorted(modules, key=lambda module: module.__name__)
    while waiting:
        module = waiting.pop(0)
        if module.__name__ in seen or is_library(module.__name__):
            continue
        seen.add(module.__name__)
        yield module.__name__.encode()
        for name in sorted(names & set(vars(module))):
            found = getattr(module, name)
            if isinstance(found, types.ModuleType):
                waiting.append(found)
            else:
                yield from (name.encode(), (found,))


def _code_parts(code: types.CodeType) -> Iterator[_HashPart]:
    yield from (b"bytecode", code.co_code, code.co_exceptiontable, code.co_flags.to_bytes(4, "little"))
    yield (
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_names, code.co_varnames),
    )
    yield ((code.co_freevars, code.co_cellvars, code.co_consts),)


def _class_parts(kind: type) -> Iterator[_HashPart]:
    yield from (b"class", kind.__qualname__.encode())
    if is_library(kind.__module__):
        yield kind.__module__.encode()
        return
    yield from ((base,) for base in kind.__bases__)
    for name in sorted(set(vars(kind)) - _IMPLICIT_CLASS_ATTRIBUTES):
        member = vars(kind)[name]
        if not isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
            yield from (name.encode(), (member,))


def _reduced_parts(value: Any) -> Iterator[_HashPart]:
    """Yield the components of the pickled state of an object."""
    dispatch: Any = cloudpickle.CloudPickler.dispatch_table
    reduce: Callable[[Any], Any] | None = dispatch.get(type(value)) or copyreg.dispatch_table.get(type(value))
    reduced = reduce(value) if reduce is not None else value.__reduce_ex__(4)
    if isinstance(reduced, str):
        yield from (b"global", type(value).__module__.encode(), reduced.encode())
        return
    function, arguments, *more = reduced
    yield from (b"object", (type(value),), (function,), (arguments,))
    for number, part in enumerate(more[:3]):
        iterated = number and part is not None
        yield ([list(each) if isinstance(each, tuple) else each for each in part] if iterated else part,)


def _name(value: Any) -> str:
    owner = getattr(value, "__objclass__", None)
    module = getattr(value, "__module__", None) or getattr(owner, "__module__", "")
    return f"{module}.{getattr(value, '__qualname__', None) or value.__name__}"


def _is_importable(function: types.FunctionType) -> bool:
    """Return whether the function can be imported by its qualified name, as pickle requires."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function or getattr(found, "__func__", None) is function
