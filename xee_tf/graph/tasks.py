"""Tasks by their keys, made of plain functions and of references to what other tasks give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dask
from dask.delayed import Delayed
from dask.highlevelgraph import Layer, MaterializedLayer
from dask.task_spec import DataNode, GraphNode, List, Task, TaskRef

__all__ = ["Delayed", "Key", "Ref", "Tasks", "add_task", "add_value", "by_key", "first_of", "layer_of"]

Key = Any
Tasks = dict[Key, GraphNode]
Ref = Any
"""Stands for what a task gives, or for a list of what several give, as an argument of another task."""


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


def layer_of(
    tasks: Mapping[Key, Any],
    annotations: Mapping[str, Mapping[Key, Any]],
    own: Mapping[str, Mapping[Key, Any]] | None = None,
) -> Layer:
    """A layer of a HighLevelGraph, with annotations by name and key.

    Those of an enclosing ``dask.annotate`` take precedence over `annotations`, and `own` over both.
    """
    everywhere = {name: by_key(tasks, value) for name, value in dask.get_annotations().items()}
    merged: dict[str, dict[Key, Any]] = {}
    for each in (annotations, everywhere, own or {}):
        for name, values in each.items():
            merged.setdefault(name, {}).update(values)
    # The scheduler ignores the None of tasks that have none.
    return MaterializedLayer(tasks, annotations={name: values.get for name, values in merged.items()})


def by_key(keys: Iterable[Key], value: Any) -> dict[Key, Any]:
    """An annotation of a layer by key: Dask has one value, or a function of the key."""
    return {key: value(key) if callable(value) else value for key in keys}


def _is_list(arg: Any) -> bool:
    return type(arg) is list and any(isinstance(each, GraphNode | TaskRef) for each in arg)
