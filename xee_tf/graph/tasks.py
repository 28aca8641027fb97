"""Dask tasks by their keys, created from functions and from references to the results of other tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import dask
import numpy as np
import psutil
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from dask.task_spec import DataNode, GraphNode, List, Task, TaskRef
from dask.tokenize import tokenize

__all__ = [
    "Annotations",
    "ChunkedArray",
    "Delayed",
    "Graph",
    "Key",
    "Ref",
    "TaskRef",
    "Tasks",
    "add_task",
    "add_value",
    "add_wait",
    "by_key",
    "first_of",
    "layer_of",
    "merge_annotations",
    "peak_memory",
    "shared_value",
]

_TASK_BYTES = 5500  # memory per task of Dask's graph, ordering and scheduler (measured)
_ALLOCATOR = 1.25  # memory of the process per byte of its arrays (measured)

Key = Any
"""A Dask key: a string, a number, or a tuple of these."""

Tasks = dict[Key, GraphNode]

Ref = TaskRef | list[TaskRef]
"""A reference to the result of a task, or a list of them, as an argument of another task."""

Annotations = Mapping[str, Mapping[Key, Any]]
"""Dask annotations by name, then by key."""


class ChunkedArray(Protocol):
    """An array that implements the Dask protocol, of shape (y, x) or (step, y, x)."""

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """The chunk lengths along each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the chunks."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def __dask_graph__(self) -> Mapping[Any, Any]:
        """The tasks that compute the chunks."""

    def __dask_keys__(self) -> list[Any]:
        """The keys of the chunks, as nested lists."""


@dataclass(frozen=True)
class Graph:
    """Tasks to which further tasks can be added.

    Parameters
    ----------
    tasks : dict, optional
        The tasks by their keys.
    annotations : dict, optional
        Annotations of the tasks, by name, then by key.
    """

    tasks: Tasks = field(default_factory=dict)
    annotations: dict[str, dict[Key, Any]] = field(default_factory=dict)

    def annotated(self, *annotations: Annotations) -> Graph:
        """Return the graph with further annotations; see `merge_annotations`."""
        return Graph(self.tasks, merge_annotations(self.annotations, *annotations))

    def worker_of(self, task: TaskRef) -> str | None:
        """Return the address of the worker on which a task is placed; see `xee_tf.graph.placing`."""
        return next(iter(self.annotations.get("workers", {}).get(task.key, ())), None)

    def add_beside(self, other: TaskRef, key: Key, function: Callable[..., Any], *args: Any) -> TaskRef:
        """Add a task with the annotations of another one, so that it runs on the same worker."""
        for values in self.annotations.values():
            if other.key in values:
                values[key] = values[other.key]
        return add_task(self.tasks, key, function, *args)

    def delayed(self, name: str, result: TaskRef) -> Delayed:
        """Return a Delayed that computes the result of one task."""
        layers = {name: layer_of(self.tasks, self.annotations)}
        return Delayed(result.key, HighLevelGraph(layers, {name: set()}), layer=name)


def add_task(tasks: Tasks, key: Key, function: Callable[..., Any], *args: Any) -> TaskRef:
    """Add the task ``function(*args)``, and return a reference to its result.

    Parameters
    ----------
    tasks : dict
        The tasks by their keys; modified in place.
    key : str or tuple
        The key of the task.
    function : callable
        Must be picklable, like all arguments.
    *args
        References, lists of references, or values.
    """
    tasks[key] = Task(key, function, *(List(*arg) if _is_list(arg) else arg for arg in args))
    return TaskRef(key)


def add_value(tasks: Tasks, key: Key, value: Any) -> TaskRef:
    """Add a value that tasks share by reference: it is sent once to each worker, not with every task."""
    tasks[key] = DataNode(key, value)
    return TaskRef(key)


def shared_value(name: str, value: Any) -> Delayed:
    """Return a Delayed of a value that tasks share; see `add_value`. Its token is appended to the name."""
    graph, key = Graph(), f"{name}-{tokenize(value)}"
    return graph.delayed(key, add_value(graph.tasks, key, value))


def add_wait(tasks: Tasks, task: TaskRef, before: TaskRef) -> None:
    """Let a task wait for another one, whose result it ignores."""
    tasks[task.key] = Task(task.key, first_of, tasks[task.key], before)


def first_of(result: Any, *others: Any) -> Any:
    """Return the first argument: the function of a task that only waits for others."""
    return result


def layer_of(tasks: Mapping[Key, Any], annotations: Annotations) -> Layer:
    """Return a layer of a HighLevelGraph; `annotations` override those of an enclosing context."""
    found = {name: by_key(tasks, value) for name, value in dask.get_annotations().items()}
    for name, values in annotations.items():
        found[name] = found.get(name, {}) | dict(values)
    # The scheduler ignores None, the value of tasks without an annotation.
    return MaterializedLayer(tasks, annotations={name: values.get for name, values in found.items()})


def merge_annotations(*annotations: Annotations) -> dict[str, dict[Key, Any]]:
    """Return all annotations; if several have the same one for a task, the first."""
    merged: dict[str, dict[Key, Any]] = {}
    for each in reversed(annotations):
        for name, values in each.items():
            merged.setdefault(name, {}).update(values)
    return merged


def by_key(keys: Iterable[Key], value: Any) -> dict[Key, Any]:
    """Expand an annotation, which in Dask is a single value or a function of the key, to a dict by key."""
    return {key: value(key) if callable(value) else value for key in keys}


def _is_list(arg: Any) -> bool:
    return type(arg) is list and any(isinstance(each, GraphNode | TaskRef) for each in arg)


def peak_memory(data: int, tasks: int) -> int:
    """Estimate the peak memory of this process in bytes, from the bytes of arrays and the number of tasks."""
    return int(psutil.Process().memory_info().rss + _ALLOCATOR * data + tasks * _TASK_BYTES)
