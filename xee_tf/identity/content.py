"""Hash Python objects by content, with the same result in every session that runs the same script."""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import io
import itertools
import os
import re
import sys
import types
import weakref
from array import array
from collections.abc import Callable, Iterator, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import crc32c
import numpy as np
from dask.base import is_dask_collection
from isal import isal_zlib

from xee_tf.identity.code import (
    assigned_cells,
    changed_names,
    compiled_module,
    flags_of,
    globals_of,
    imports_of,
    instructions_of,
    is_library,
    library_version,
    names_in,
)
from xee_tf.identity.files import (
    UnknownContentError,
    array_state,
    file_state,
    folder_state,
    raster_state,
    url_state,
)

__all__ = ["PLAIN", "Hasher", "content_hash", "hash_bytes", "plain_text"]

PLAIN = frozenset({int, float, bool, type(None)})
"""Types whose repr identifies a value."""

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
_BUILTIN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
# A function that changes an array, such as a table of weights, still depends on its values.
_CONTAINERS = (MutableSequence, MutableMapping, MutableSet)
# Modules of objects whose state says nothing about results: locks and caches.
_STATELESS_MODULES = frozenset({"_thread", "threading", "multiprocessing.synchronize", "weakref"})
_ADDRESS = re.compile(" at 0x[0-9a-f]+")
_LARGE = 1 << 20  # size in bytes of arrays that are hashed by faster checksums


def content_hash(value: Any) -> str | None:
    """Return a hash of an object's content, the same in every process.

    Functions are hashed by their instructions, constants, defaults, closures and the globals that they read,
    without comments, docstrings, file names and line numbers. Functions and classes of the user's own modules
    are hashed in the same way, those of installed packages by name and version, and other objects by their
    pickled state. Variables and containers that a function changes, except numpy arrays, are treated as
    caches or counters and ignored. An object whose class has ``__dask_tokenize__`` is hashed by the result of
    that method.

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
        return Hasher().digest(value).hex()
    except Exception:  # from third-party __reduce__ methods, or a RecursionError
        return None


class Hasher:
    """Hash objects recursively; keep a reference to each object with its hash.

    Parameters
    ----------
    collection : callable, optional
        Hashes Dask collections. Default: their content cannot be determined.
    files : bool, default False
        Whether texts that are paths of local files stand for the files, and not only outside of functions.
    """

    def __init__(self, collection: Callable[[Any], bytes] | None = None, *, files: bool = False) -> None:
        self._known: dict[int, tuple[Any, bytes, bool]] = {}
        self._open: list[int] = []
        self._collection, self.files = collection, files
        self._texts: dict[str, tuple[bytes, bool]] = {}
        self.found_files = False  # whether the objects hashed since this was reset depend on files

    def digest(self, value: Any) -> bytes:
        """Return the hash of an object.

        Raises
        ------
        UnknownContentError
            If its content cannot be determined. Other exceptions may come from the methods of objects.
        """
        if type(value) is str:
            return self.digest_text(value)
        if (leaf := _leaf(value)) is not None:
            return hash_bytes(leaf)
        number = id(value)
        if number in self._known:
            _, found, found_files = self._known[number]
            self.found_files |= found_files
            return found
        if number in self._open:  # a cycle: hash the distance to the enclosing object
            return hash_bytes([b"above", str(len(self._open) - self._open.index(number)).encode()])
        self._open.append(number)
        outer, self.found_files = self.found_files, False
        try:
            found = hash_bytes(
                [part if isinstance(part, bytes) else self.digest(*part) for part in _parts(self, value)]
            )
        finally:
            self._open.pop()
            inner, self.found_files = self.found_files, outer | self.found_files
        self._known[number] = (value, found, inner)
        return found

    def digest_text(self, text: str) -> bytes:
        """Return the hash of a text and, if it is the path of a local file, of its state."""
        if not self.files:
            return hash_bytes([b"str", text.encode("utf-8", "surrogatepass")])
        if (known := self._texts.get(text)) is None:
            state = self._text_state(text)
            # xarray stores the repr of an open file, with its address in memory.
            plain = _ADDRESS.sub("", text).encode("utf-8", "surrogatepass")
            found = hash_bytes([b"str", plain, *([state] if state else ())])
            self._texts[text] = known = found, state is not None
        found, is_file = known
        self.found_files |= is_file
        return found

    def collection(self, value: Any) -> bytes:
        """Return the hash of a Dask collection."""
        if self._collection is None:
            raise UnknownContentError(f"an object contains a lazy {type(value).__name__}")
        return self._collection(value)

    def unordered(self, values: Any) -> bytes:
        """Return a hash of values in any order."""
        return hash_bytes(sorted(self.digest(value) for value in values))

    def state(self, found: Any) -> bytes:
        """Return the hash of the state of files."""
        self.found_files = True
        return hash_bytes([repr(each).encode("utf-8", "surrogatepass") for each in found])

    def _text_state(self, text: str) -> bytes | None:
        """Return the hash of the state of a local file or Zarr store, if a text is its path."""
        if not ("/" in text or os.sep in text or "." in text) or len(text) > 4096 or "\0" in text:
            return None
        if os.path.isfile(text):
            return self.state(file_state(text))
        if any(os.path.isfile(f"{text}/{name}") for name in ("zarr.json", ".zgroup", ".zarray")):
            return self.state(folder_state(text))
        return None


_HashPart = bytes | tuple[Any]
"""Bytes, or an object in a one-element tuple, which is replaced by its hash."""


def hash_bytes(parts: Sequence[bytes | memoryview]) -> bytes:
    """Return a hash of several parts, which depends on the boundaries between them."""
    found = hashlib.sha256(array("Q", map(len, parts)).tobytes())
    for part in parts:
        found.update(part)
    return found.digest()


def _leaf(value: Any) -> list[bytes | memoryview] | None:
    """Return the parts of a value that is hashed directly, or None for other objects."""
    kind = type(value)
    if kind in (int, complex):
        return [kind.__name__.encode(), repr(value).encode()]
    if kind is float:
        return [b"float", value.hex().encode()]
    if kind in (tuple, list) and (text := plain_text(value)) is not None:
        return [kind.__name__.encode(), text]
    if kind in (bytes, bytearray):
        return [kind.__name__.encode(), bytes(value)]
    if kind in (np.ndarray, np.memmap) and not value.dtype.hasobject and value.dtype.names is None:
        described: list[bytes | memoryview] = [b"array", _dtype_text(value.dtype), repr(value.shape).encode()]
        if not value.nbytes:
            return described
        pixels = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        return [*described, pixels if len(pixels) < _LARGE else _checksums(pixels)]
    if value is None or value is Ellipsis or value is NotImplemented or kind is bool:
        return [repr(value).encode()]
    if kind is np.random.SeedSequence:
        return [b"seed", repr((value.entropy, value.spawn_key, value.pool_size)).encode()]
    if isinstance(value, np.dtype):
        return [b"dtype", _dtype_text(value)]
    if isinstance(value, np.generic) and value.dtype.kind not in "OV":
        return [b"scalar", value.dtype.str.encode(), value.tobytes()]
    return None


def plain_text(value: Any) -> bytes | None:
    """Return a text that identifies a list or tuple of plain values; None for others.

    The sizes of chunks are numbers of Python or of numpy, which depends on what Dask has cached.
    """
    kinds = set(map(type, value))
    if np.int64 in kinds and kinds <= {int, np.int64}:
        value = type(value)(map(int, value))
    elif not kinds <= PLAIN:
        return None
    return repr(value).encode()


def _dtype_text(dtype: np.dtype[Any]) -> bytes:
    """Return the name of a dtype without its metadata, which equal dtypes may lack."""
    return (dtype.str if dtype.names is None else repr(dtype.descr)).encode()


def _checksums(pixels: memoryview) -> bytes:
    """Return two independent checksums: 64 bits, ten times as fast as a cryptographic hash."""
    return crc32c.crc32c(pixels).to_bytes(4, "little") + isal_zlib.crc32(pixels).to_bytes(4, "little")


def _parts(hasher: Hasher, value: Any) -> Iterator[_HashPart]:
    """Yield the components of an object."""
    if type(value) in (list, tuple):
        yield type(value).__name__.encode()
        yield from ((each,) for each in value)
    elif type(value) is dict:
        yield b"dict"
        for key, each in value.items():
            yield from ((key,), (each,))
    elif isinstance(value, types.ModuleType):
        yield from _module_parts(value)
    elif isinstance(value, _BUILTIN):
        yield from (b"builtin", _name(value).encode())
        if not is_library(module := _module_name(value)) and module in sys.modules:
            yield (sys.modules[module],)
        if not isinstance(owner := getattr(value, "__self__", None), types.ModuleType | None):
            yield (owner,)
    elif isinstance(value, np.ufunc):
        yield _ufunc_name(value).encode()
    elif isinstance(value, functools._lru_cache_wrapper):
        yield from (b"cache", (value.__wrapped__,))
    elif isinstance(value, types.FunctionType):
        outer, hasher.files = hasher.files, False
        try:
            yield hash_bytes(
                [each if isinstance(each, bytes) else hasher.digest(*each) for each in _function_parts(value)]
            )
        finally:
            hasher.files = outer
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
    elif isinstance(value, functools.cached_property):
        yield from (b"property", (value.func,))
    elif isinstance(value, type):
        yield from _class_parts(value)
    elif isinstance(value, enum.Enum):
        yield from (b"enum", (type(value),), value.name.encode())
    elif isinstance(value, weakref.ref):
        yield from (b"reference", (value(),))
    elif isinstance(value, types.MappingProxyType):
        yield from (b"mapping", (dict(value),))
    elif _is_stateless(value):
        yield from (b"stateless", type(value).__name__.encode())
    elif is_dask_collection(value) and not _is_xarray(value):
        yield from (b"collection", hasher.collection(value))
    elif _is_xarray(value):
        yield from _xarray_parts(value)
    elif (state := _external_state(hasher, value)) is not None:
        yield from state
    elif callable(tokenize := getattr(type(value), "__dask_tokenize__", None)):
        yield from (b"token", _name(type(value)).encode(), (tokenize(value),))
    elif type(value) in (set, frozenset):
        yield from (type(value).__name__.encode(), hasher.unordered(value))
    elif type(value) is np.ndarray and value.dtype.names is not None:  # without the bytes between fields
        yield from (b"records", _dtype_text(value.dtype), repr(value.shape).encode())
        yield from ((np.asarray(value[name]),) for name in value.dtype.names)
    elif type(value) is np.ndarray:
        yield from (b"objects", repr(value.shape).encode(), (value.tolist(),))
    elif type(value).__module__.partition(".")[0] in _TENSORS and hasattr(value, "__array__"):
        tensor = value.detach().cpu() if hasattr(value, "detach") else value
        yield from (b"tensor", _name(type(value)).encode(), (np.asarray(tensor),))
    elif type(value).__module__.startswith("tensorflow.") and hasattr(value, "python_function"):
        yield from (b"tensorflow", (value.python_function,), repr(value.input_signature).encode())
    elif (keras := sys.modules.get("keras")) is not None and isinstance(value, keras.Model):
        yield from _keras_parts(keras, value)
    else:
        yield from _reduced_parts(value)


def _is_stateless(value: Any) -> bool:
    """Return whether an object is a lock, a cache or a counter, whose state does not affect results."""
    kind = type(value)
    if kind.__module__ in _STATELESS_MODULES or kind is itertools.count:
        return True
    return kind.__name__.endswith("Lock") and hasattr(value, "acquire") and is_library(kind.__module__)


def _module_parts(module: types.ModuleType) -> Iterator[_HashPart]:
    """Yield the code of one of the user's own modules, any part of which may be used, and of its imports."""
    yield from (b"module", module.__name__.encode())
    if is_library(module.__name__):
        yield library_version(module.__name__).encode()
    elif (code := compiled_module(module)) is not None:
        yield (code,)
        package = getattr(module, "__package__", None) or ""
        yield from ((each,) for each in imports_of(code, package) if each is not module)
    elif file := getattr(module, "__file__", None):
        yield Path(file).read_bytes()


def _function_parts(function: types.FunctionType) -> Iterator[_HashPart]:
    if is_library(function.__module__) and _is_importable(function):
        yield from (b"function", _name(function).encode())
        return
    code = function.__code__
    changed, assigned = changed_names(code), assigned_cells(code)
    yield from (b"code", (code,), (function.__defaults__,), (function.__kwdefaults__,))
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    values = {name: cell for name, cell in cells.items() if cell != types.CellType() and name not in assigned}
    contents = {name: cell.cell_contents for name, cell in values.items()}
    for name, each in contents.items():
        if not (name in changed and isinstance(each, _CONTAINERS)):
            yield from (name.encode(), (each,))
    attributes = {name: each for name, each in vars(function).items() if name != "__wrapped__"}
    yield (dict(sorted(attributes.items())),)
    found = {name: function.__globals__[name] for name in globals_of(code) if name in function.__globals__}
    for name in sorted(found):
        if isinstance(found[name], types.ModuleType):
            yield from (name.encode(), _module_name(found[name]).encode())
            if is_library(found[name].__name__):
                yield library_version(found[name].__name__).encode()
        elif not (name in changed and isinstance(found[name], _CONTAINERS)):
            yield from (name.encode(), (found[name],))
    # The members of the user's own modules that the function may use.
    reached = [*found.values(), *contents.values(), *(function.__defaults__ or ())]
    reached += (function.__kwdefaults__ or {}).values()
    modules = [each for each in reached if isinstance(each, types.ModuleType)]
    package = function.__globals__.get("__package__") or ""
    yield from _used_parts([*modules, *imports_of(code, package)], names_in(code))


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
    yield from (b"instructions", flags_of(code).to_bytes(4, "little"))
    yield ((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_varnames),)
    for operation, argument in instructions_of(code):
        yield from (operation.encode(), (argument,))


def _class_parts(kind: type) -> Iterator[_HashPart]:
    yield from (b"class", kind.__qualname__.encode())
    if is_library(kind.__module__) and _is_importable(kind):
        yield _name(kind).encode()
        return
    yield from ((base,) for base in (type(kind), *kind.__bases__))
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
        named = _name(value) if hasattr(value, "__qualname__") else type(value).__module__
        yield from (b"global", named.encode(), reduced.encode())
        return
    function, arguments, *more = reduced
    yield from (b"object", (type(value),), (function,), (arguments,))
    for number, part in enumerate(more[:3]):
        iterated = number and part is not None
        if not number and type(part) is dict and not is_library(type(value).__module__):
            part = _without_counters(type(value), part)
        yield ([list(each) if isinstance(each, tuple) else each for each in part] if iterated else part,)


def _without_counters(kind: type, state: dict[str, Any]) -> dict[str, Any]:
    """Remove the numbers that methods of a class count up, and what ``__call__`` collects in containers."""
    functions = {
        name: each
        for base in reversed(kind.__mro__)
        for name, each in vars(base).items()
        if isinstance(each, types.FunctionType) and not is_library(base.__module__)
    }
    changed = {name: changed_names(each.__code__) for name, each in functions.items()}
    counted = set[str]().union(*changed.values())
    collected = changed.get("__call__", set())
    return {
        name: each
        for name, each in state.items()
        if not (f".{name}" in counted and type(each) is int)
        and not (f".{name}" in collected and isinstance(each, _CONTAINERS))
    }


def _ufunc_name(function: np.ufunc) -> str:
    """Return the name of a ufunc with the version of its package."""
    modules = [name for name in ("numpy", "scipy.special", *sorted(sys.modules)) if is_library(name)]
    for name in modules:
        if vars(sys.modules.get(name, types)).get(function.__name__) is function:
            return f"{name}.{function.__name__} {library_version(name)}"
    raise UnknownContentError(f"the function of the ufunc {function.__name__!r} is unknown")


def _is_xarray(value: Any) -> bool:
    return (
        type(value).__module__.startswith("xarray.") and hasattr(value, "_replace") and hasattr(value, "dims")
    )


def _xarray_parts(value: Any) -> Iterator[_HashPart]:
    """Yield the components of a Dataset, DataArray or Variable, without attributes."""
    yield from (b"xarray", _name(type(value)).encode())
    if hasattr(value, "data_vars"):
        for name in sorted(value.variables, key=str):
            yield from ((name,), (value.variables[name],))
    elif hasattr(value, "coords"):
        yield from ((value.name,), (value.variable,))
        for name in sorted(value.coords, key=str):
            yield from ((name,), (value.coords[name].variable,))
    else:
        yield from ((list(value.dims),), (value.data if is_dask_collection(value) else value.values,))


def _external_state(hasher: Hasher, value: Any) -> list[_HashPart] | None:
    """Return the components of an object that reads files: their state. None for other objects."""
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    if module == "zarr" and hasattr(value, "store_path") and hasattr(value, "metadata"):
        place = value.store_path
        return [b"zarr", str(place).encode(), hasher.state(array_state(value))]
    if all(hasattr(value, name) for name in ("_opener", "_args", "_mode", "_kwargs")):  # of xarray, rioxarray
        return [b"file", (value._opener,), (value._kwargs,), _opened_state(hasher, value)]
    if module == "h5py" and hasattr(value, "file"):
        return [b"hdf5", value.name.encode(), hasher.state(file_state(value.file.filename))]
    if hasattr(value, "fs") and hasattr(value, "path") and hasattr(value, "read"):  # an open file of fsspec
        return [b"file", hasher.state(url_state(value.fs, value.path))]
    if isinstance(value, io.BytesIO):
        return [b"file", bytes(value.getbuffer())]
    if isinstance(value, io.BufferedReader | io.FileIO) and isinstance(value.name, str):
        return [b"file", hasher.state(file_state(value.name))]
    if module == "xee_tf" and kind.__name__ == "Location":
        return [b"file", hasher.state(url_state(value.fs, value.path))] if hasher.files else None
    if hasattr(value, "_strip_protocol") and hasattr(value, "storage_options"):
        # Without options, which contain credentials.
        return [b"filesystem", repr(value.protocol).encode()]
    if any(each.__name__ == "BackendArray" and each.__module__.startswith("xarray") for each in kind.__mro__):
        outer, hasher.found_files = hasher.found_files, False
        parts = [each if isinstance(each, bytes) else hasher.digest(*each) for each in _reduced_parts(value)]
        if not hasher.found_files:
            raise UnknownContentError(f"{kind.__name__} does not tell when its data changed")
        hasher.found_files |= outer
        return list(parts)
    return None


def _opened_state(hasher: Hasher, manager: Any) -> bytes:
    """Return the state of the file that a file manager of xarray or rioxarray opens."""
    [given, *more] = manager._args
    opened = getattr(manager._opener, "__module__", "").partition(".")[0]
    if opened == "rasterio":
        with manager.acquire_context() as dataset:
            return hasher.state([*more, *raster_state(dataset)])
    if not isinstance(given, str | os.PathLike):
        return hash_bytes([hasher.digest(given), hasher.digest(more)])
    path = os.fspath(given)
    if "://" in path:
        import fsspec

        return hasher.state([*more, *url_state(*fsspec.core.url_to_fs(path))])
    return hasher.state([*more, *file_state(path)])


def _keras_parts(keras: Any, model: Any) -> Iterator[_HashPart]:
    """Yield the configuration and weights of a Keras model, and the code of its own classes and functions."""
    layers = [model, *(each for each in model._flatten_layers() if each is not model)]
    # Keras numbers layers and operations without a name in the order of their creation in the session.
    operations = [operation for layer in layers for operation in getattr(layer, "operations", ())]
    created = dict.fromkeys(each.name for each in (*layers, *operations))
    names = {name: f"{re.sub('_[0-9]+$', '', name)} {number}" for number, name in enumerate(created)}
    try:
        config = _comparable_config(keras.saving.serialize_keras_object(model), names)
    except Exception:  # of a class without get_config, whose code and attributes are sufficient
        if is_library(type(model).__module__):
            raise
        config = None
    yield from (b"keras", (config,), (model.get_weights(),))
    for layer in layers:
        yield (type(layer),)
        own = not is_library(type(layer).__module__)
        for name, each in sorted(vars(layer).items()):
            # Keras wraps methods of layers, such as `build`, in functions of instances.
            is_function = isinstance(each, types.FunctionType) and not hasattr(type(layer), name)
            if is_function:
                yield from (name.encode(), (each,))
            elif own and not name.startswith("_") and _is_plain(each):
                # Keras tracks lists in classes of its own.
                yield from (name.encode(), (_comparable_config(each, names),))


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str | np.ndarray | type(None)) or (
        isinstance(value, tuple | list) and all(map(_is_plain, value))
    )


def _comparable_config(config: Any, names: Mapping[str, str]) -> Any:
    """Remove memory addresses, settings of training and the pickled code of functions; rename layers."""
    if isinstance(config, dict):
        if config.get("class_name") == "__lambda__":
            return "lambda"
        ignored = ("shared_object_id", "compile_config")
        return {key: _comparable_config(each, names) for key, each in config.items() if key not in ignored}
    if isinstance(config, list | tuple):
        return [_comparable_config(each, names) for each in config]
    return names.get(config, config) if isinstance(config, str) else config


def _name(value: Any) -> str:
    """Return the qualified name of a function or class and, if it is of a library, its version."""
    module = _module_name(value)
    version = library_version(module) if module and is_library(module) else ""
    return f"{module}.{getattr(value, '__qualname__', None) or value.__name__} {version}"


def _module_name(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return value.__name__
    owner = getattr(value, "__objclass__", None)
    return str(getattr(value, "__module__", None) or getattr(owner, "__module__", None) or "builtins")


def _is_importable(value: Any) -> bool:
    """Return whether a function or class can be imported by its qualified name, as pickle requires."""
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value or getattr(found, "__func__", None) is value
