"""Graphs are run: where Dask would compute, and with a bar if one is wanted."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dask.base import get_scheduler
from dask.delayed import Delayed
from dask.diagnostics import ProgressBar
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import TaskRef
from numpy.typing import NDArray

from xee_tf.errors import OptionError
from xee_tf.graph.sources import futures_in
from xee_tf.graph.tasks import Tasks, add_task, first_of

__all__ = ["each_chunk", "progress_bar", "run_graph"]


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


def run_graph(delayed: Delayed, progress: bool) -> Any:
    """The result of a Delayed, with Dask's own bar if one is wanted.

    Raises
    ------
    OptionError
        If it needs data that is persisted elsewhere than where it would be computed.
    """
    _require_reachable(delayed.__dask_graph__())
    if progress and (client := _client()):
        from distributed import progress as show_progress

        future = client.compute(delayed)
        show_progress(future)
        return future.result()
    with progress_bar(progress):
        return delayed.compute()


def progress_bar(progress: bool) -> AbstractContextManager[Any]:
    """Dask's own bar, if one is wanted."""
    return ProgressBar() if progress else nullcontext()


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
