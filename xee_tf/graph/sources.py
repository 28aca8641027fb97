"""The tasks that load chunks: the graphs of collections simplified together, their keys left alone.

Collections are met through the Dask protocol alone (graph, keys, chunks), so that any chunked array that
follows it will do: persisted ones, whose graphs hold Futures, those that are optimised already, and those
of other packages. A key of a collection always stands for the collection's own task: on a cluster other
computations may use the same key at the same time. A task that must be changed gets a new key.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import dask

# Graphs of version 1 (plain tuples) and of version 2 in one: Dask has no public name for this.
from dask._task_spec import convert_legacy_graph
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from dask.task_spec import Alias, DataNode, GraphNode, Task, TaskRef
from dask.utils import ensure_dict

from xee_tf.errors import OptionError

__all__ = ["Key", "Sources", "annotated_layer", "first_of", "futures_in"]

Key = Any


@dataclass(frozen=True)
class Sources:
    """The chunks of several collections: one graph, and the key of every chunk.

    Parameters
    ----------
    graph : mapping
        All tasks that load chunks. Where a collection is persisted on a cluster, the Futures of its chunks:
        the cluster keeps the data only as long as they exist.
    keys : list
        The keys of every collection's chunks, as nested lists. Those of arrays are arranged by plane:
        for each plane [row][column].
    chained : bool
        Whether a chain of empty tasks keeps the blocks in order; see `of_planes`.
    annotations : mapping
        Annotations of the collections' own tasks, such as ``resources``: by name, then by key.
    """

    graph: Mapping[Key, Any]
    keys: list[Any]
    chained: bool = False
    annotations: Mapping[str, Mapping[Key, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, collections: Sequence[Any], *, fused: bool = True) -> Sources:
        """Simplify the graphs of collections together; what they share stays shared.

        `dask.optimize` would treat each one apart from the others: a chunk that holds several
        bands would then be loaded once for each of them.

        Parameters
        ----------
        collections : sequence
        fused : bool
            Whether tasks that only wait for each other become one. False where the graph will be that of a
            Dask collection, which Dask fuses when it computes it: a key that is fused twice stands for
            another task than one that is fused once.

        Raises
        ------
        OptionError
            If a collection is persisted, and its data is no longer on the cluster.
        """
        if len(collections) == 1 and hasattr(collections[0], "optimize"):
            # An expression, such as a Dask frame. Several of them would share less if each were optimised.
            collections = [collections[0].optimize()]
        tasks: dict[Key, Any] = {}
        annotations: dict[str, dict[Key, Any]] = {}
        given: list[HighLevelGraph] = []
        for optimize, members in _by_optimizer(collections):
            graph = HighLevelGraph.from_collections(f"sources-{uuid.uuid4().hex}", {}, dependencies=members)
            given.append(graph)
            if optimize is not None:
                # Dask drops annotations where it fuses task by task.
                annotated = any(layer.annotations for layer in graph.layers.values())
                apart = annotated or not fused
                with dask.config.set({"optimization.fuse.active": False}) if apart else nullcontext():
                    graph = optimize(graph, list(flatten([each.__dask_keys__() for each in members])))
            for layer in graph.layers.values() if isinstance(graph, HighLevelGraph) else ():
                for name, value in (layer.annotations or {}).items():
                    annotations.setdefault(name, {}).update(_by_key(layer, value))
            tasks |= convert_legacy_graph(ensure_dict(graph))
        keys = [_resolve(each.__dask_keys__(), tasks) for each in collections]
        needed = _needed(keys, tasks)
        held = _held(needed - tasks.keys(), given, tasks)
        kept = {key: node for key, node in tasks.items() if key in needed}
        return cls(kept | held, keys, annotations=annotations)

    @classmethod
    def of_planes(cls, arrays: Sequence[Any], *, chained: bool = False, fused: bool = True) -> Sources:
        """The planes of arrays (y, x) and (step, y, x), in order.

        Parameters
        ----------
        arrays : sequence
        chained : bool
            Prepare the graph for a chain of empty tasks that keeps the blocks in order (see
            `xee_tf.graph.in_order`). Left to itself, Dask wanders over a graph of neighbours and keeps
            chunks of many rows alive; the chain makes it take blocks in order and holds none of them up.
            On a cluster it would tie the whole export to the life of every worker: there, priorities do
            the same, which only the distributed scheduler knows.
        fused : bool
            As for `of`.

        Notes
        -----
        Dask notes for every task which tasks without dependencies it goes back to. Along a chain that
        would grow with the square of the chunks, were it not one and the same for all: with `chained`,
        all tasks go back to one empty task, and have keys of their own for that.
        """
        sources = cls.of(arrays, fused=fused)
        keys = [
            plane
            for array, found in zip(arrays, sources.keys, strict=True)
            for plane in (found if array.ndim == 3 else [found])
        ]
        graph, annotations = sources.graph, sources.annotations
        if chained:
            run = uuid.uuid4().hex[:12]
            new = {key: (f"load-{run}", key) for key, node in graph.items() if _is_task(node)}
            graph = _behind_root(graph, new, f"start-{run}")
            keys = _renamed(keys, new)
            annotations = {
                name: {new.get(key, key): value for key, value in values.items()}
                for name, values in annotations.items()
            }
        return cls(graph, keys, chained, annotations)

    def layer(self, tasks: Mapping[Key, Any] | None = None, **annotations: Mapping[Key, Any]) -> Layer:
        """The graph as a layer of a HighLevelGraph, with the annotations of the collections.

        Parameters
        ----------
        tasks : mapping, optional
            Further tasks of this layer.
        **annotations
            Further annotations, by key, for tasks that have none of that name.
        """
        return annotated_layer({**self.graph, **(tasks or {})}, annotations, self.annotations)


def annotated_layer(
    graph: Mapping[Key, Any],
    annotations: Mapping[str, Mapping[Key, Any]],
    own: Mapping[str, Mapping[Key, Any]] | None = None,
) -> Layer:
    """A layer with annotations by name and key.

    Those of an enclosing ``dask.annotate`` take precedence over `annotations`, and `own` over both.
    """
    everywhere = {name: _by_key(graph, value) for name, value in dask.get_annotations().items()}
    merged: dict[str, dict[Key, Any]] = {}
    for each in (annotations, everywhere, own or {}):
        for name, values in each.items():
            merged.setdefault(name, {}).update(values)
    # The scheduler ignores the None of tasks that have none.
    return MaterializedLayer(graph, annotations={name: values.get for name, values in merged.items()})


def _by_key(keys: Iterable[Key], value: Any) -> dict[Key, Any]:
    """An annotation of a layer: one value, or a function of the key."""
    return {key: value(key) if callable(value) else value for key in keys}


def futures_in(graph: Mapping[Key, Any]) -> list[Any]:
    """The Futures that stand for data of a graph: chunks that are persisted on a cluster."""
    return [node for node in graph.values() if _is_future(node)]


def first_of(result: Any, *others: Any) -> Any:
    """The work of a task that only has to come after others."""
    return result


def _by_optimizer(collections: Sequence[Any]) -> Iterable[tuple[Any, list[Any]]]:
    """Collections that can be optimised together: Dask's own arrays, and each other kind."""
    groups: dict[Any, list[Any]] = {}
    for each in collections:
        groups.setdefault(getattr(each, "__dask_optimize__", None), []).append(each)
    return groups.items()


def _resolve(keys: Any, tasks: Mapping[Key, Any]) -> Any:
    """Keys without the detour over aliases."""
    if isinstance(keys, list):
        return [_resolve(key, tasks) for key in keys]
    while isinstance(node := tasks.get(keys), Alias):
        keys = node.target
    return keys


def _renamed(keys: Any, new: Mapping[Key, Key]) -> Any:
    if isinstance(keys, list):
        return [_renamed(key, new) for key in keys]
    return new.get(keys, keys)


def _needed(keys: list[Any], tasks: Mapping[Key, GraphNode]) -> set[Key]:
    """Keys, and all that they depend on."""
    needed: set[Key] = set()
    below = list(flatten(keys))
    while below:
        key = below.pop()
        if key not in needed:
            needed.add(key)
            if key in tasks:
                below.extend(tasks[key].dependencies)
    return needed


def _held(
    missing: set[Key], given: Sequence[HighLevelGraph], tasks: Mapping[Key, GraphNode]
) -> dict[Key, Any]:
    """The Futures of keys that have no task."""
    if not missing:
        return {}
    values = (
        value
        for graph in given
        for layer in graph.layers.values()
        if layer.is_materialized()
        for value in layer.values()
    )
    held = {future.key: future for future in _find_futures([*values, *tasks.values()])}
    gone = [key for key in missing if getattr(held.get(key), "status", None) == "cancelled"]
    if gone:
        raise OptionError(
            f"The data was persisted on a Dask cluster and is no longer there: {len(gone)} chunks, for "
            f"example {gone[0]!r}, were released when their client was closed or restarted. Open the data "
            "again, and persist it with the client that is used now."
        )
    return {key: held[key] for key in missing if key in held}


def _find_futures(value: Any) -> Iterator[Any]:
    """All Futures in tasks, old and new, and in their arguments."""
    if _is_future(value):
        yield value
    elif isinstance(value, Task):
        yield from _find_futures([*value.args, *value.kwargs.values()])
    elif isinstance(value, dict):
        yield from _find_futures(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _find_futures(each)


def _is_future(value: Any) -> bool:
    # Futures of distributed are references to tasks; those of other schedulers have the attribute.
    if isinstance(value, TaskRef):
        return type(value) is not TaskRef
    return getattr(type(value), "__dask_future__", False) is True


def _is_task(node: Any) -> bool:
    return isinstance(node, GraphNode) and not isinstance(node, DataNode)


def _behind_root(graph: Mapping[Key, Any], new: Mapping[Key, Key], root: Key) -> dict[Key, Any]:
    """The same tasks under new keys, those that depend on no other task behind one empty task."""
    tasks: dict[Key, Any] = {root: Task(root, first_of, None)}
    for key, node in graph.items():
        if key in new:
            first = [] if node.dependencies & new.keys() else [TaskRef(root)]
            tasks[new[key]] = Task(new[key], first_of, node.substitute(new), *first)
        else:
            tasks[key] = node
    return tasks
