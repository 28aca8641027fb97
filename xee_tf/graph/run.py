"""Run graphs with the scheduler that Dask would use, and show their progress."""

from __future__ import annotations

import multiprocessing.pool
import time
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import dask
import numpy as np
from dask import threaded
from dask.base import get_scheduler
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.local import MultiprocessingPoolExecutor
from dask.system import CPU_COUNT
from dask.task_spec import TaskRef
from numpy.typing import NDArray

from xee_tf.blocks import chunk_edges
from xee_tf.chunks import chunk_at
from xee_tf.errors import OptionError
from xee_tf.graph.placing import cluster_client
from xee_tf.graph.progress import Counted, Progress, ProgressCallback, show_cluster_progress
from xee_tf.graph.sources import Sources, futures_in
from xee_tf.graph.tasks import Tasks, add_task, first_of, layer_of
from xee_tf.signals import announce_stop

__all__ = ["each_chunk", "run_graph", "store_chunks"]

_WAIT = 20.0  # seconds to wait for running tasks


def each_chunk(
    work: Callable[[tuple[int, ...], Sequence[NDArray[Any]]], None],
    arrays: Sequence[Any],
    indices: Sequence[tuple[int, ...]],
    name: str,
) -> Delayed:
    """Return a Delayed that calls ``work(index, chunks)`` for selected chunks of several arrays.

    Parameters
    ----------
    work : callable
        Must be picklable.
    arrays : sequence of Dask arrays
        Arrays with the same chunks along the axes of `indices`. Additional axes before the last two must be
        single chunks.
    indices : sequence of tuple of int
        Indices of chunks along the axes that all arrays have; the last two are y and x.
    name : str
        Name of the tasks.
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


def store_chunks(arrays: Mapping[str, Any], targets: Sequence[Any], progress: bool) -> None:
    """Write the chunks of arrays with ``target[slices] = chunk``; see `run_graph`.

    Parameters
    ----------
    arrays : mapping of str to Dask array
        The arrays by the names of their bands.
    targets : sequence
        A target for each array. Chunks are written concurrently.
    progress : bool
        Whether to show a progress bar.
    """
    name = f"xee-tf-store-{uuid.uuid4().hex}"
    tasks: Tasks = {}
    done = []
    sources = Sources.of(list(arrays.values()))
    for number, (band, target, keys) in enumerate(zip(arrays, targets, sources.keys, strict=True)):
        array = arrays[band]
        edges = list(map(chunk_edges, array.chunks))
        for index, chunk in zip(np.ndindex(*array.numblocks), flatten(keys), strict=True):
            place = tuple(slice(*edge[i : i + 2]) for edge, i in zip(edges, index, strict=True))
            key = (name, number, *index)
            done.append(add_task(tasks, key, _store_chunk, target, place, TaskRef(chunk), band, array.dtype))
    result = add_task(tasks, f"all-{name}", first_of, done)
    layers = {f"sources-{name}": layer_of(sources.graph, sources.annotations), name: tasks}
    graph = HighLevelGraph(layers, {f"sources-{name}": set(), name: {f"sources-{name}"}})
    delayed = Delayed(result.key, graph, layer=name)
    run_graph(delayed, Counted(name, "chunk", "written") if progress else None)


def _store_chunk(target: Any, place: tuple[slice, ...], chunk: Any, band: str, dtype: np.dtype[Any]) -> None:
    target[place] = chunk_at(place, chunk, band, dtype)


def run_graph(delayed: Delayed, counted: Counted | None = None) -> Any:
    """Compute a Delayed; show the progress of what is `counted`, if anything is.

    All computations that write are run by this function.

    If this is interrupted by Ctrl-C or SIGTERM, or fails, tasks that are running are first completed, at most
    for some seconds, so that they do not write anything later.

    Raises
    ------
    OptionError
        If it needs data that is persisted on another cluster than the one that would compute it, or if the
        client of the cluster is asynchronous.
    """
    graph = delayed.__dask_graph__()
    _require_reachable(graph)
    progress = None if counted is None else Progress.of(graph, counted)
    if client := cluster_client():
        if client.asynchronous:
            raise OptionError(
                "The current Dask client is asynchronous, so that this call cannot wait for the result. Pass "
                "compute=False and await client.compute(...), or use a synchronous client."
            )
        return _run_on_cluster(client, delayed, progress)
    scheduler, pool = dask.config.get("scheduler", None), dask.config.get("pool", None)
    if isinstance(scheduler, Executor):
        return _run_in_pool(scheduler, delayed, progress)
    if get_scheduler(collections=[delayed]) is not threaded.get:
        with _progress_bar(progress):
            return delayed.compute()
    if isinstance(pool, multiprocessing.pool.Pool):
        pool = MultiprocessingPoolExecutor(pool)
    if pool is not None:
        return _run_in_pool(pool, delayed, progress)
    threads = ThreadPoolExecutor(dask.config.get("num_workers", None) or CPU_COUNT)
    try:
        return _run_in_pool(threads, delayed, progress)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _run_on_cluster(client: Any, delayed: Delayed, progress: Progress | None) -> Any:
    future = None
    try:
        if progress is None:
            return delayed.compute()
        future = client.compute(delayed)
        show_cluster_progress(client, future, progress)
        return future.result()
    except BaseException as error:
        announce_stop(error)
        with suppress(Exception):  # such as a closed cluster; the caller is about to clean up
            if future is not None:
                future.cancel()  # `compute` does this itself
            _wait_for_tasks(client, set(delayed.__dask_graph__()))
        raise


def _wait_for_tasks(client: Any, keys: Container[Any]) -> None:
    """Wait until workers no longer run tasks of a graph, because nothing stops a running task."""

    def running(dask_worker: Any) -> list[Any]:
        return [task.key for task in dask_worker.state.all_running_tasks]

    end = time.monotonic() + _WAIT
    while time.monotonic() < end:
        found = client.run(running, on_error="ignore")
        if not any(key in keys for each in found.values() for key in each):
            return
        time.sleep(0.1)


def _run_in_pool(pool: Any, delayed: Delayed, progress: Progress | None) -> Any:
    """Compute in a pool; if this is interrupted or fails, wait until no thread works on it any more."""
    observed = _ObservedPool(pool)
    try:
        with _progress_bar(progress):
            return delayed.compute(scheduler=observed)
    except KeyboardInterrupt as error:
        if observed.unfinished:
            announce_stop(error)
        raise
    finally:
        # These are few tasks: Dask submits only as many at a time as there are threads.
        wait(observed.unfinished.copy(), timeout=_WAIT)


class _ObservedPool(Executor):
    """A pool that knows which of its tasks have not finished."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._max_workers = getattr(pool, "_max_workers", None) or CPU_COUNT
        self.unfinished: set[Future[Any]] = set()

    def submit(self, *call: Any, **options: Any) -> Future[Any]:
        """Submit a task."""
        future: Future[Any] = self._pool.submit(*call, **options)
        self.unfinished.add(future)
        future.add_done_callback(self.unfinished.discard)
        return future


def _progress_bar(progress: Progress | None) -> AbstractContextManager[Any]:
    """Return a callback that shows the progress, or a null context if there is nothing to show."""
    return nullcontext() if progress is None else ProgressCallback(progress)


def _require_reachable(graph: Mapping[Any, Any]) -> None:
    """Raise an OptionError if Futures of the graph belong to a cluster that would not compute it."""
    futures = futures_in(graph)
    if not futures:
        return
    client, key = cluster_client(), futures[0].key
    if client is None:
        raise OptionError(
            f"The data is persisted on a Dask cluster (for example {key!r}), but Dask would compute without "
            "this cluster. Make its client the current one (with client.as_current(): ...) and do not set "
            "scheduler= in dask.config, or load the data into memory first, with ds.compute() on the cluster."
        )
    here = _address(client)
    elsewhere = {_address(getattr(future, "client", client)) for future in futures} - {here}
    if elsewhere:
        raise OptionError(
            f"The data is persisted on the Dask cluster at {sorted(elsewhere)[0]} (for example {key!r}), but "
            f"Dask would compute at {here}. Persist it there, or make the client of the first cluster "
            "current (with client.as_current(): ...)."
        )


def _address(client: Any) -> str:
    return str(getattr(getattr(client, "scheduler", None), "address", "an unknown address"))
