"""Graphs made Delayed and run: where Dask would compute, and with a bar if one is wanted."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from dask.base import get_scheduler
from dask.delayed import Delayed
from dask.diagnostics import ProgressBar
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import TaskRef
from numpy.typing import NDArray

from xee_tf.errors import OptionError
from xee_tf.graph.order import priorities
from xee_tf.graph.sources import Sources, futures_in
from xee_tf.graph.tasks import Ref, Tasks, add_task, first_of, layer_of

__all__ = ["each_chunk", "on_cluster", "run_graph", "to_delayed"]


def to_delayed(
    name: str, tasks: Tasks, result: Ref, sources: Sources, blocks: Iterable[Ref] | None = None
) -> Delayed:
    """A Delayed of what one of some tasks gives.

    Parameters
    ----------
    name : str
    tasks : dict
    result : Ref
    sources : Sources
        What `tasks` depend on.
    blocks : iterable of Ref, optional
        What a cluster makes first, in this order.
    """
    order = {}
    if blocks is not None:
        order["priority"] = priorities({**sources.graph, **tasks}, blocks)
    below = f"{name}-sources"  # where graphs are merged, layers of one name would replace each other
    layers = {below: sources.layer(**order), name: layer_of(tasks, order)}
    graph = HighLevelGraph(layers, {below: set(), name: {below}})
    return Delayed(result.key, graph, layer=name)


def each_chunk(
    work: Callable[[tuple[int, ...], Sequence[NDArray[Any]]], None],
    arrays: Sequence[Any],
    indices: Sequence[tuple[int, ...]],
    name: str,
) -> Delayed:
    """A Delayed that calls ``work(index, chunks)`` for some chunks of several arrays together.

    Parameters
    ----------
    work : callable
        Must be picklable.
    arrays : sequence of Dask arrays
        Of one chunking along the axes that count; further ones in front of the last two are one chunk.
    indices : sequence of tuple of int
        Chunks by their numbers along the axes that count.
    name : str
        Of the tasks.
    """
    name = f"{name}-{uuid.uuid4().hex}"
    tasks: Tasks = {}
    done = []
    for index in indices:
        inner = ((0,) * (array.ndim - len(index)) for array in arrays)
        chunks = [
            TaskRef((array.name, *index[:-2], *zeros, *index[-2:]))
            for array, zeros in zip(arrays, inner, strict=True)
        ]
        done.append(add_task(tasks, (name, *index), work, index, chunks))
    result = add_task(tasks, f"all-{name}", first_of, done)
    return Delayed(result.key, HighLevelGraph.from_collections(name, tasks, dependencies=arrays), layer=name)


def on_cluster() -> bool:
    """Whether Dask would compute on a distributed cluster."""
    return _client() is not None


def run_graph(delayed: Delayed, progress: bool) -> Any:
    """The result of a Delayed, with Dask's own bar if one is wanted.

    Raises
    ------
    OptionError
        If it needs data that is persisted elsewhere than where it would be computed.
    """
    _require_reachable(delayed.__dask_graph__())
    if progress and on_cluster():
        from distributed import get_client
        from distributed import progress as show_progress

        future = get_client().compute(delayed)
        show_progress(future)
        return future.result()
    with ProgressBar() if progress else nullcontext():
        return delayed.compute()


def _client() -> Any:
    """The client that Dask would compute with, if there is one."""
    owner = getattr(get_scheduler(), "__self__", None)
    return owner if owner.__class__.__module__.startswith("distributed") else None


def _require_reachable(graph: Mapping[Any, Any]) -> None:
    """Raise an error if Futures of the graph belong to another cluster, or to one that is not in use."""
    futures = futures_in(graph)
    if not futures:
        return
    client, key = _client(), futures[0].key
    if client is None:
        raise OptionError(
            f"The data is persisted on a Dask cluster (for example {key!r}), and Dask would now compute "
            "without it. Make its client the current one (with client.as_current(): ...; no scheduler= in "
            "dask.config), or bring the data into memory first, with ds.compute() on the cluster."
        )
    here = _address(client)
    elsewhere = {_address(getattr(future, "client", client)) for future in futures} - {here}
    if elsewhere:
        raise OptionError(
            f"The data is persisted on the Dask cluster at {sorted(elsewhere)[0]} (for example {key!r}), and "
            f"Dask would now compute at {here}. Persist it there, or make the first cluster's client the "
            "current one (with client.as_current(): ...)."
        )


def _address(client: Any) -> str:
    return str(getattr(getattr(client, "scheduler", None), "address", "an address that is unknown"))
