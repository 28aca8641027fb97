"""Hash Dask collections by what their tasks compute, independent of the keys of the tasks.

Dask's own names are not sufficient: they stay the same if a file of a Zarr store or an imported function is
edited. They are not necessary either: the names of some functions depend on their line numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

# Converts graphs of tuples to graphs of task objects; Dask has no public function for this.
from dask._task_spec import _execute_subgraph, convert_legacy_graph
from dask.array.core import getter, getter_inline, getter_nofancy
from dask.blockwise import Blockwise
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import Alias, DataNode, GraphNode, Task, TaskRef

from xee_tf.identity.content import PLAIN, Hasher, hash_bytes, plain_text
from xee_tf.identity.files import UnknownContentError

__all__ = ["input_hash", "input_hasher"]

_Each = TypeVar("_Each", bound=Hashable)

Unit = tuple[str, Any]
"""What is hashed at once: ("task", key), ("blockwise", layer) or ("array", name), all keys with that name."""

# The keys of calls of functions that are not declared as pure end with a UUID.
_IMPURE = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_PERSISTED = "it is persisted on a Dask cluster, so that its graph does not contain how it is computed"
_GETTERS = (getter, getter_inline, getter_nofancy)


def input_hasher() -> Hasher:
    """Return a hasher of Dask collections, and of objects that contain some."""
    hasher = Hasher(lambda collection: _GraphHasher(hasher).digest(collection), files=True)
    return hasher


def input_hash(value: Any, hasher: Hasher) -> str:
    """Return a hash of a Dask collection or of an object, the same in every process.

    Files, and stores that Zarr opens, are hashed by path, size and times or tags.

    Raises
    ------
    UnknownContentError
        If it cannot be determined whether the values are the same in another process.

    Examples
    --------
    >>> import dask.array as da
    >>> one, two = (input_hash(da.ones(4, chunks=2) * factor, input_hasher()) for factor in (2, 3))
    >>> one == input_hash(da.ones(4, chunks=2) * 2, input_hasher()) != two
    True
    """
    try:
        return hasher.digest(value).hex()
    except UnknownContentError:
        raise
    except Exception as error:  # from the __reduce__ methods of objects in tasks, or a RecursionError
        raise UnknownContentError(f"an object in its tasks cannot be compared: {error}") from error


class _GraphHasher:
    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._layers: dict[str, Blockwise] = {}  # not converted to tasks
        self._tasks: Mapping[Any, GraphNode] = {}
        self._names: dict[Any, list[Any]] = {}
        self._known: dict[Unit, bytes] = {}

    def digest(self, collection: Any) -> bytes:
        """Return the hash of all keys of a collection."""
        graph = collection.__dask_graph__()
        layers = graph.layers if isinstance(graph, HighLevelGraph) else {"": graph}
        tasks: dict[Any, Any] = {}
        for layer in layers.values():
            if type(layer) is Blockwise:
                self._layers[layer.output] = layer
            else:
                tasks.update(layer)
        self._tasks = convert_legacy_graph(tasks, _Keys(tasks, self._layers))
        for key in self._tasks:
            self._names.setdefault(key[0] if isinstance(key, tuple) else key, []).append(key)
        keys = list(flatten(collection.__dask_keys__()))
        for unit in _in_order((self._unit(key) for key in keys), self._dependencies):
            self._known[unit] = self._digest(unit)
        shape: list[bytes] = []
        described = [getattr(collection, "chunks", None), str(getattr(collection, "dtype", ""))]
        self._encode(described, shape, self._of_key)
        return hash_bytes([*shape, *map(self._of_key, keys)])

    def _unit(self, key: Any) -> Unit:
        if key not in self._tasks and isinstance(key, tuple) and key[0] in self._layers:
            return "blockwise", key[0]
        if key not in self._tasks:
            raise UnknownContentError(_PERSISTED)
        return "task", key

    def _of_key(self, key: Any) -> bytes:
        """Return the hash of a key whose unit is known."""
        unit = self._unit(key)
        if unit[0] == "task":
            return self._known[unit]
        return hash_bytes([self._known[unit], repr(key[1:]).encode()])

    def _dependencies(self, unit: Unit) -> Iterator[Unit]:
        kind, name = unit
        if kind == "task":
            yield from map(self._unit, self._tasks[name].dependencies)
        elif kind == "array":
            yield from (("task", key) for key in self._names[name])
        else:
            for source, indices in self._layers[name].indices:
                if isinstance(source, TaskRef):
                    yield self._unit(source.key)
                elif isinstance(source, GraphNode):
                    yield from map(self._unit, source.dependencies)
                elif indices is not None and source not in self._layers[name].io_deps:
                    yield self._array(source)

    def _array(self, name: str) -> Unit:
        if name in self._layers:
            return "blockwise", name
        if name not in self._names:
            raise UnknownContentError(_PERSISTED)
        return "array", name

    def _digest(self, unit: Unit) -> bytes:
        kind, name = unit
        if kind == "task":
            return self._task(name)
        if kind == "array":
            keys = sorted(self._names[name], key=str)
            positions = [key[1:] if isinstance(key, tuple) else () for key in keys]
            return hash_bytes([repr(positions).encode(), *(self._known["task", key] for key in keys)])
        return self._blockwise(self._layers[name])

    def _blockwise(self, layer: Blockwise) -> bytes:
        """Return the hash of all tasks of a layer, which have the function and the arrays in common."""
        out: list[bytes] = []
        self._encode(layer.task, out, lambda key: repr(key).encode())  # references are placeholders
        for source, indices in layer.indices:
            out.append(repr(indices).encode())
            if isinstance(source, str) and source in layer.io_deps:
                self._encode(layer.io_deps[source], out, self._of_key)
            elif indices is not None:
                self._encode(tuple(layer.numblocks[source]), out, self._of_key)
                out.append(self._known[self._array(source)])
            else:
                self._encode(source, out, self._of_key)
        options = (layer.output_indices, layer.concatenate, sorted(layer.new_axes.items()))
        return hash_bytes([*out, repr(options).encode()])

    def _task(self, key: Any) -> bytes:
        node = self._tasks[key]
        name = key[0] if isinstance(key, tuple) else key
        if type(node) is Task and node.func not in _GETTERS and _IMPURE.search(str(name)):
            raise UnknownContentError(
                f"it is computed by dask.delayed (task {name!r}), which does not tell when its result changed"
            )
        out: list[bytes] = []
        self._encode(node, out, self._of_key)
        return hash_bytes(out)

    def _encode(self, value: Any, out: list[bytes], of_key: Callable[[Any], bytes]) -> None:
        """Append the parts of an argument to `out`; references are replaced by `of_key`."""
        kind = type(value)
        if kind in PLAIN:
            out.append(repr(value).encode())
        elif kind is str:
            out.append(self._hasher.digest_text(value))
        elif kind is tuple or kind is list:
            if (text := plain_text(value)) is not None:
                out.append(text)
                return
            out.append(b"%s %d" % (kind.__name__.encode(), len(value)))
            for each in value:
                self._encode(each, out, of_key)
        elif kind is slice:
            out.append(b"slice")
            self._encode((value.start, value.stop, value.step), out, of_key)
        elif kind is dict:
            out.append(b"dict %d" % len(value))
            for name, each in value.items():
                self._encode(name, out, of_key)
                self._encode(each, out, of_key)
        elif kind is TaskRef:
            out.append(of_key(value.key))
        elif kind is Alias:
            out.append(of_key(value.target))
        elif kind is DataNode:
            self._encode(value.value, out, of_key)
        elif isinstance(value, TaskRef) or getattr(kind, "__dask_future__", False) is True:
            raise UnknownContentError(_PERSISTED)
        elif isinstance(value, Task):
            if value.func is _execute_subgraph:
                out.append(self._fused(value, of_key))
                return
            out += [kind.__name__.encode(), self._hasher.digest(value.func), b"%d" % len(value.args)]
            for each in value.args:
                self._encode(each, out, of_key)
            self._encode(dict(value.kwargs), out, of_key)
        else:
            out.append(self._hasher.digest(value))

    def _fused(self, task: Task, of_key: Callable[[Any], bytes]) -> bytes:
        """Return the hash of several tasks that Dask fused into one."""
        inner, target, outer_keys, *outer = task.args
        known: dict[Any, bytes] = {}
        for key, source in zip(outer_keys, outer, strict=True):
            out: list[bytes] = []
            self._encode(source, out, of_key)
            known[key] = hash_bytes(out)
        for key in _in_order([target], lambda key: inner[key].dependencies - known.keys()):
            out = []
            self._encode(inner[key], out, known.__getitem__)
            known[key] = hash_bytes(out)
        return known[target]


class _Keys:
    """All keys of a graph, without a list of those of Blockwise layers."""

    def __init__(self, tasks: Mapping[Any, Any], layers: Mapping[str, Any]) -> None:
        self._tasks, self._layers = tasks, layers

    def __contains__(self, key: object) -> bool:
        is_block = isinstance(key, tuple) and bool(key) and isinstance(key[0], str) and key[0] in self._layers
        return is_block or key in self._tasks


def _in_order(starts: Iterable[_Each], dependencies: Callable[[_Each], Iterable[_Each]]) -> Iterator[_Each]:
    """Yield everything that can be reached, each after its dependencies."""
    done: set[_Each] = set()
    for start in starts:
        waiting = [(start, iter(dependencies(start)))] if start not in done else []
        done.add(start)
        while waiting:
            current, rest = waiting[-1]
            following = next((each for each in rest if each not in done), None)
            if following is None:
                waiting.pop()
                yield current
            else:
                done.add(following)
                waiting.append((following, iter(dependencies(following))))
