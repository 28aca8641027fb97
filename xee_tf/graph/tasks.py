"""Tasks by their keys, made of plain functions and of references to what other tasks give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dask
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from dask.task_spec import DataNode, GraphNode, List, Task, TaskRef

__all__ = [
    "Annotations",
    "Delayed",
    "Graph",
    "Key",
    "Ref",
    "Tasks",
    "add_task",
    "add_value",
    "by_key",
    "first_of",
    "layer_of",
]

Key = Any
Tasks = dict[Key, GraphNode]
Ref = Any
"""Stands for what a task gives, or for a list of what several give, as an argument of another task."""
Annotations = Mapping[str, Mapping[Key, Any]]
"""Dask's annotations by name, then by key."""


@dataclass(frozen=True)
class Graph:
    """Tasks to which others can be added.

    Parameters
    ----------
    tasks : dict, optional
    annotations : mapping, optional
    """

    tasks: Tasks = field(default_factory=dict)
    annotations: Annotations = field(default_factory=dict)

    def delayed(self, name: str, result: Ref) -> Delayed:
        """A Delayed of what one of the tasks gives."""
        layers = {name: layer_of(self.tasks, self.annotations)}
        return Delayed(result.key, HighLevelGraph(layers, {name: set()}), layer=name)


def add_task(tasks: Tasks, key: Key, function: Callable[..., Any], *args: Any) -> Ref:
    """Add the task ``function(*args)``, and give a reference to its result.

    Parameters
    ----------
    tasks : dict
    key
    function : callable
        Must be picklable, as all arguments.
    *args
        References, lists of references, or values.
    """
    tasks[key] = Task(key, function, *(List(*arg) if _is_list(arg) else arg for arg in args))
    return TaskRef(key)


def add_value(tasks: Tasks, key: Key, value: Any) -> Ref:
    """Add a value that tasks refer to, so that it travels once to each worker and not in every task."""
    tasks[key] = DataNode(key, value)
    return TaskRef(key)


def first_of(result: Any, *others: Any) -> Any:
    """The work of a task that only has to come after others."""
    return result


def layer_of(tasks: Mapping[Key, Any], annotations: Annotations) -> Layer:
    """A layer of a HighLevelGraph; `annotations` take precedence over those of an enclosing context."""
    found = {name: by_key(tasks, value) for name, value in dask.get_annotations().items()}
    for name, values in annotations.items():
        found[name] = found.get(name, {}) | dict(values)
    # The scheduler ignores the None of tasks that have none.
    return MaterializedLayer(tasks, annotations={name: values.get for name, values in found.items()})


def by_key(keys: Iterable[Key], value: Any) -> dict[Key, Any]:
    """An annotation of a layer by key: Dask has one value, or a function of the key."""
    return {key: value(key) if callable(value) else value for key in keys}


def _is_list(arg: Any) -> bool:
    return type(arg) is list and any(isinstance(each, GraphNode | TaskRef) for each in arg)
