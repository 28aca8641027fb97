"""The tasks that load chunks: the graphs of collections simplified together, their keys left alone.

Collections are met through the Dask protocol alone (graph, keys, chunks), so that any chunked array that
follows it will do: persisted ones, whose graphs hold Futures, those that are optimised already, and those
of other packages. A key of a collection always stands for the collection's own task, because on a cluster
other computations may use the same key at the same time. Exports share nothing with other computations: they
load through tasks with keys of their own, one for each block.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import dask

# Graphs of version 1 (plain tuples) and of version 2 in one: Dask has no public name for this.
from dask._task_spec import convert_legacy_graph
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import Alias, DataNode, GraphNode, List, Task, TaskRef
from dask.utils import ensure_dict

from xee_tf.errors import OptionError
from xee_tf.graph.tasks import Annotations, Graph, Key, Ref, by_key, first_of

__all__ = ["Sources", "futures_in"]


@dataclass(frozen=True)
class Sources:
    """The chunks of several collections: one graph, and the key of every chunk.

    Parameters
    ----------
    graph : mapping
        All tasks that load chunks. Where a collection is persisted on a cluster, the Futures of its chunks:
        the cluster keeps the data only as long as they exist.
    keys : list
        The keys of every collection's chunks, as nested lists.
    annotations : mapping
        Annotations of the collections' own tasks, such as ``resources``: by name, then by key.
    """

    graph: Mapping[Key, Any]
    keys: list[Any]
    annotations: Annotations = field(default_factory=dict)

    @classmethod
    def of(cls, collections: Sequence[Any], *, fused: bool = False) -> Sources:
        """Simplify the graphs of collections together; what they share stays shared.

        `dask.optimize` would treat each one apart from the others: a chunk that holds several
        bands would then be loaded once for each of them.

        Parameters
        ----------
        collections : sequence
        fused : bool
            False: all tasks remain as they are, and are shared with whatever else is computed of the
            collections at the same time. True: tasks that only wait for each other become one, as Dask does
            it. A key may then stand for another task than elsewhere: only `loads` makes use of it.

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
                    annotations.setdefault(name, {}).update(by_key(layer, value))
            tasks |= convert_legacy_graph(ensure_dict(graph))
        keys = [_resolve(each.__dask_keys__(), tasks) for each in collections]
        needed = _needed(keys, tasks)
        held = _held(needed - tasks.keys(), given, tasks)
        kept = {key: node for key, node in tasks.items() if key in needed}
        return cls(kept | held, keys, annotations)

    @classmethod
    def of_planes(cls, arrays: Sequence[Any], *, fused: bool = False) -> Sources:
        """The planes of arrays (y, x) and (step, y, x), in order; keys are ``[plane][row][column]``.

        Parameters
        ----------
        arrays, fused
            As for `of`.
        """
        sources = cls.of(arrays, fused=fused)
        planes = [
            plane
            for array, found in zip(arrays, sources.keys, strict=True)
            for plane in (found if array.ndim == 3 else [found])
        ]
        return replace(sources, keys=planes)

    def by_number(self) -> dict[int, list[Key]]:
        """The chunks of all collections that have the same number, such as the columns of a row group."""
        return {number: list(keys) for number, keys in enumerate(zip(*map(flatten, self.keys), strict=True))}

    def loads(self, groups: Mapping[Key, Sequence[Key]]) -> tuple[Graph, dict[Key, Ref]]:
        """A graph with keys of its own, and one task that loads all chunks of a group.

        Tasks that several groups need remain as they are, and so do those that are annotated, and all of a
        group with more sources than chunks: one task would load one source after another, and hold all of
        them.

        All tasks come after one empty task. Dask notes for every task which tasks without dependencies it
        goes back to; along a chain of tasks (see `order`) that would grow with the square of the chunks.

        Parameters
        ----------
        groups : mapping
            The keys of chunks by what needs them together: the number of a block, or of a row group.

        Returns
        -------
        graph : Graph
        loaded : mapping
            For each group its chunks, in order.
        """
        run = uuid.uuid4().hex[:12]
        start = TaskRef(f"start-{run}")
        fused = self._own_tasks(groups)
        inside = {node.key for nodes in fused.values() for node in nodes}
        new = {
            key: (f"source-{run}", key)
            for key, node in self.graph.items()
            if _is_task(node) and key not in inside
        }
        tasks: dict[Key, Any] = {start.key: Task(start.key, first_of, None)}
        for key, node in self.graph.items():
            if key in new:
                first = [] if node.dependencies & new.keys() else [start]
                # A cluster starts no more of those that load than its threads can take.
                loads = node.data_producer
                tasks[new[key]] = Task(new[key], first_of, node.substitute(new), *first, _data_producer=loads)
            elif key not in inside:
                tasks[key] = node
        loaded: dict[Key, Ref] = {}
        for group, keys in groups.items():
            if group in fused:
                name = (f"load-{run}", group)
                chunks = Task(name, first_of, List(*map(TaskRef, keys)), start)
                tasks[name] = Task.fuse(*fused[group], chunks, key=name).substitute(new)
                loaded[group] = TaskRef(name)
            else:
                loaded[group] = [TaskRef(new.get(key, key)) for key in keys]
        annotations = {
            name: {new.get(key, key): value for key, value in values.items()}
            for name, values in self.annotations.items()
        }
        return Graph(tasks, annotations), loaded

    def _own_tasks(self, groups: Mapping[Key, Sequence[Key]]) -> dict[Key, list[Any]]:
        """For each group that one task can load: the tasks that no other group needs, none annotated."""
        owners: dict[Key, Any] = {}  # None of those that are left as they are
        annotated = [
            key for values in self.annotations.values() for key, value in values.items() if value is not None
        ]
        for group, keys in ((None, annotated), *groups.items()):
            below = list(keys)
            while below:
                key = below.pop()
                node = self.graph.get(key)
                if not _is_task(node) or (key in owners and owners[key] in (group, None)):
                    continue
                owners[key] = None if key in owners else group
                below.extend(node.dependencies)
        own: dict[Key, list[Any]] = {}
        for key, owner in owners.items():
            if owner is not None:
                own.setdefault(owner, []).append(self.graph[key])
        return {
            group: nodes
            for group, nodes in own.items()
            if sum(map(self._is_source, nodes)) <= len(groups[group])
        }

    def _is_source(self, node: GraphNode) -> bool:
        return not any(_is_task(self.graph.get(key)) for key in node.dependencies)


def futures_in(graph: Mapping[Key, Any]) -> list[Any]:
    """The Futures that stand for data of a graph: chunks that are persisted on a cluster."""
    return [node for node in graph.values() if _is_future(node)]


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


def _is_task(node: Any) -> TypeGuard[GraphNode]:
    return isinstance(node, GraphNode) and not isinstance(node, DataNode)
