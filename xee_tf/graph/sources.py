"""Find the tasks that load chunks: optimize the graphs of collections together without changing their keys.

Only the Dask protocol is used (graph, keys, chunks), so that any collection that implements it is supported:
persisted ones, whose graphs contain Futures, optimized ones, and those of other packages. A key of a
collection always refers to the collection's own task, because other computations may use the same key on a
cluster at the same time. Exports do not share tasks with other computations: they load chunks through tasks
with separate keys, one for each block.
"""

from __future__ import annotations

import operator
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain, islice
from typing import Any, TypeGuard

import dask

# Converts graphs of tuples to graphs of task objects; Dask has no public function for this.
from dask._task_spec import convert_legacy_graph
from dask.array.core import Array
from dask.blockwise import Blockwise
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import Alias, DataNode, GraphNode, List, Task, TaskRef
from dask.utils import ensure_dict

from xee_tf.chunks import checks_chunks
from xee_tf.display import counted
from xee_tf.errors import OptionError
from xee_tf.graph.tasks import Annotations, ChunkedArray, Graph, Key, Ref, by_key, first_of

__all__ = ["Sources", "futures_in"]


@dataclass(frozen=True)
class Sources:
    """The chunks of several collections: one graph, and the key of every chunk.

    Parameters
    ----------
    graph : mapping
        All tasks that load chunks. For collections that are persisted on a cluster, the Futures of the
        chunks: the cluster keeps the data only as long as the Futures exist.
    keys : list
        The keys of the chunks of each collection: nested lists or, of planes, a dict by row and column.
    annotations : mapping
        Annotations of the tasks, such as ``resources``, by name, then by key.
    """

    graph: Mapping[Key, Any]
    keys: list[Any]
    annotations: Annotations = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        collections: Sequence[Any],
        chosen: Sequence[Sequence[tuple[int, ...]]] | None = None,
        *,
        fused: bool = False,
    ) -> Sources:
        """Optimize the graphs of collections together, so that they share common tasks.

        `dask.optimize` optimizes each collection separately: a chunk that contains several bands would be
        loaded once for each band.

        Parameters
        ----------
        collections : sequence of Dask collections
            Arrays, or a single expression such as a Dask DataFrame.
        chosen : sequence of sequence of tuple of int, optional
            The indices of the chunks of each collection that are needed, and whose keys are returned in a
            list. Default: all chunks, in nested lists.
        fused : bool
            If False, all tasks are kept, and are shared with other computations of the collections that run
            at the same time. If True, chains of tasks are fused, as Dask does; a key may then refer to
            another task than in the collection, which only `loads` supports.

        Raises
        ------
        OptionError
            If a collection is persisted, and the cluster no longer has its data.
        """
        if len(collections) == 1 and hasattr(collections[0], "optimize"):
            # An expression, such as a Dask DataFrame. Optimizing several separately would lose shared tasks.
            collections = [collections[0].optimize()]
        keys = (
            [each.__dask_keys__() for each in collections]
            if chosen is None
            else [_chunk_keys(each, indices) for each, indices in zip(collections, chosen, strict=True)]
        )
        tasks: dict[Key, Any] = {}
        annotations: dict[str, dict[Key, Any]] = {}
        original: list[HighLevelGraph] = []
        for optimize, numbers in _by_optimizer(collections):
            members = [collections[number] for number in numbers]
            graph = HighLevelGraph.from_collections(f"sources-{uuid.uuid4().hex}", {}, dependencies=members)
            original.append(graph)
            if optimize is not None:
                # Dask loses annotations when it fuses tasks.
                annotated = any(layer.annotations for layer in graph.layers.values())
                unfused = annotated or not fused
                wanted = list(flatten([keys[number] for number in numbers]))
                if unfused:
                    # Chunks are shared with other computations under the keys of the user's own arrays.
                    wanted += _sources_of_checked(graph)
                with dask.config.set({"optimization.fuse.active": False}) if unfused else nullcontext():
                    graph = optimize(graph, wanted)
            for layer in graph.layers.values() if isinstance(graph, HighLevelGraph) else ():
                for name, value in (layer.annotations or {}).items():
                    annotations.setdefault(name, {}).update(by_key(layer, value))
            tasks |= convert_legacy_graph(ensure_dict(graph))
        keys = [_resolve(each, tasks) for each in keys]
        needed = _needed(keys, tasks)
        futures = _futures(needed - tasks.keys(), original, tasks)
        kept = {key: node for key, node in tasks.items() if key in needed}
        return cls(kept | futures, keys, annotations)

    @classmethod
    def of_planes(
        cls,
        arrays: Sequence[ChunkedArray],
        chunks: Sequence[Sequence[tuple[int, int]]],
        *,
        fused: bool = False,
    ) -> Sources:
        """Return the planes of arrays (y, x) and (step, y, x), in order; keys are ``[plane][row, column]``.

        Parameters
        ----------
        arrays : sequence of ChunkedArray
            The arrays.
        chunks : sequence of sequence of (int, int)
            The rows and columns of the chunks of each plane that are needed. Time and memory do not depend on
            the others.
        fused : bool
            See `of`.
        """
        planes = iter(chunks)
        chosen: list[list[tuple[int, ...]]] = [
            [(step, *at) for step in range(len(array.chunks[0])) for at in next(planes)]
            if array.ndim == 3
            else list(next(planes))
            for array in arrays
        ]
        sources = cls.of(arrays, chosen, fused=fused)
        keys = chain.from_iterable(sources.keys)
        by_place = [dict(zip(plane, islice(keys, len(plane)), strict=True)) for plane in chunks]
        return replace(sources, keys=by_place)

    def with_results(self, results: Mapping[Key, Any]) -> Sources:
        """Return the sources of planes with the results of some tasks, without tasks that only these need."""
        tasks = dict(self.graph) | {
            key: DataNode(key, results[key]) for key in self.graph.keys() & results.keys()
        }
        needed = _needed(list(chain.from_iterable(plane.values() for plane in self.keys)), tasks)
        return replace(self, graph={key: node for key, node in tasks.items() if key in needed})

    def to_graph(self) -> Graph:
        """Return a graph of the tasks that load chunks, to which further tasks can be added."""
        return Graph(dict(self.graph), {name: dict(own) for name, own in self.annotations.items()})

    def by_number(self) -> dict[int, list[Key]]:
        """Group the chunks of all collections by number, such as the columns of a row group."""
        return {number: list(keys) for number, keys in enumerate(zip(*map(flatten, self.keys), strict=True))}

    def loads(
        self, groups: Mapping[Key, Sequence[Key]], after: Mapping[Key, Sequence[TaskRef]] | None = None
    ) -> tuple[Graph, dict[Key, Ref]]:
        """Build a graph with separate keys, in which one task loads all chunks of a group.

        Some tasks are kept: tasks that several groups need, annotated tasks, and all tasks of a group with
        more sources than chunks, which a single task would load one after another and keep in memory
        together.

        All tasks depend on one empty task. Dask tracks, for every task, the root tasks that it depends on;
        along a chain of tasks (see `xee_tf.graph.order`), this would be quadratic in the number of chunks.

        Parameters
        ----------
        groups : mapping
            The keys of the chunks that are needed together, by group: a block, or the number of a row group.
        after : mapping, optional
            References to results that must exist before a group is loaded by a single task.

        Returns
        -------
        graph : Graph
            The tasks.
        loaded : dict
            For each group, a reference to its chunks, in order.
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
                # A cluster does not start more data producers than it has threads.
                producer = node.data_producer
                tasks[new[key]] = Task(
                    new[key], first_of, node.substitute(new), *first, _data_producer=producer
                )
            elif key not in inside:
                tasks[key] = node
        loaded: dict[Key, Ref] = {}
        for group, keys in groups.items():
            if group in fused:
                name = (f"load-{run}", group)
                waits = (after or {}).get(group, ())
                chunks = Task(name, first_of, List(*map(TaskRef, keys)), start, *waits)
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
        """Return the tasks to fuse for each group: unannotated tasks that no other group needs."""
        owners: dict[Key, Any] = {}  # the group of each task; None for tasks that are kept
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
    """Return the Futures in a graph: chunks that are persisted on a cluster."""
    return [node for node in graph.values() if _is_future(node)]


def _sources_of_checked(graph: HighLevelGraph) -> list[Key]:
    """Return the key of one chunk of each array whose chunks are checked: Dask then keeps all its tasks."""
    return [
        (source, *(0 for _ in layer.output_indices))
        for name, layer in graph.layers.items()
        if checks_chunks(name) and isinstance(layer, Blockwise)
        for source in graph.dependencies[name]
    ]


def _chunk_keys(array: Any, indices: Sequence[tuple[int, ...]]) -> list[Key]:
    """Return the keys of some chunks of an array."""
    if isinstance(array, Array):  # the keys of all chunks of a large array take seconds
        return [(array.name, *index) for index in indices]
    keys = array.__dask_keys__()
    return [reduce(operator.getitem, index, keys) for index in indices]


def _by_optimizer(collections: Sequence[Any]) -> Iterable[tuple[Any, list[int]]]:
    """Group the numbers of collections by their optimizer: those of a group can be optimized together."""
    groups: dict[Any, list[int]] = {}
    for number, each in enumerate(collections):
        groups.setdefault(getattr(each, "__dask_optimize__", None), []).append(number)
    return groups.items()


def _resolve(keys: Any, tasks: Mapping[Key, Any]) -> Any:
    """Replace keys of aliases by the keys of their targets."""
    if isinstance(keys, list):
        return [_resolve(key, tasks) for key in keys]
    while isinstance(node := tasks.get(keys), Alias):
        keys = node.target
    return keys


def _needed(keys: list[Any], tasks: Mapping[Key, GraphNode]) -> set[Key]:
    """Return the keys and all their dependencies."""
    needed: set[Key] = set()
    below = list(flatten(keys))
    while below:
        key = below.pop()
        if key not in needed:
            needed.add(key)
            if key in tasks:
                below.extend(tasks[key].dependencies)
    return needed


def _futures(
    missing: set[Key], original: Sequence[HighLevelGraph], tasks: Mapping[Key, GraphNode]
) -> dict[Key, Any]:
    """Return the Futures of keys that have no task."""
    if not missing:
        return {}
    values = (
        value
        for graph in original
        for layer in graph.layers.values()
        if layer.is_materialized()
        for value in layer.values()
    )
    futures = {future.key: future for future in _find_futures([*values, *tasks.values()])}
    lost = [key for key in missing if getattr(futures.get(key), "status", None) == "cancelled"]
    if lost:
        raise OptionError(
            "The data was persisted on a Dask cluster, which no longer has it: closing or restarting the "
            f"client released {counted(len(lost), 'chunk')} (for example {lost[0]!r}). Open the data again, "
            "and persist it with the current client."
        )
    return {key: futures[key] for key in missing if key in futures}


def _find_futures(value: Any) -> Iterator[Any]:
    """Yield all Futures in tasks (of both of Dask's formats) and in their arguments."""
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
    # Futures of distributed are subclasses of TaskRef; those of other schedulers have the attribute.
    if isinstance(value, TaskRef):
        return type(value) is not TaskRef
    return getattr(type(value), "__dask_future__", False) is True


def _is_task(node: Any) -> TypeGuard[GraphNode]:
    return isinstance(node, GraphNode) and not isinstance(node, DataNode)
