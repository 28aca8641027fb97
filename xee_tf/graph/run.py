"""Run graphs with the scheduler that Dask would use, optionally with a progress bar."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import dask
from dask import threaded
from dask.base import get_scheduler
from dask.delayed import Delayed
from dask.diagnostics import ProgressBar
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT
from dask.task_spec import TaskRef
from numpy.typing import NDArray

from xee_tf.errors import OptionError
from xee_tf.graph.sources import futures_in
from xee_tf.graph.tasks import Tasks, add_task, first_of
from xee_tf.signals import explain_interruption, interruptible

__all__ = ["each_chunk", "on_cluster", "progress_bar", "run_graph"]

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


def run_graph(delayed: Delayed, progress: bool, advice: str = "") -> Any:
    """Compute a Delayed; with `progress`, show Dask's progress bar.

    If this is interrupted by Ctrl-C or SIGTERM, or fails, tasks that are running are first completed, at most
    for some seconds, so that they do not write anything later. The message of an interruption then contains
    `advice`.

    Raises
    ------
    OptionError
        If it needs data that is persisted on another cluster than the one that would compute it.
    """
    _require_reachable(delayed.__dask_graph__())
    with interruptible():
        try:
            return _run(delayed, progress)
        except KeyboardInterrupt as error:
            if advice:
                explain_interruption(error, advice)
            raise


def _run(delayed: Delayed, progress: bool) -> Any:
    if client := _client():
        return _run_on_cluster(client, delayed, progress)
    if get_scheduler(collections=[delayed]) is threaded.get and dask.config.get("pool", None) is None:
        return _run_in_threads(delayed, progress)
    with progress_bar(progress):
        return delayed.compute()


def _run_on_cluster(client: Any, delayed: Delayed, progress: bool) -> Any:
    try:
        if not progress:
            return delayed.compute()
        from distributed import progress as show_progress

        future = client.compute(delayed)
        show_progress(future)
        return future.result()
    except BaseException:
        with suppress(Exception):  # such as a closed cluster; the caller is about to clean up
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


def _run_in_threads(delayed: Delayed, progress: bool) -> Any:
    """Compute in threads; if this is interrupted or fails, wait until no thread works on it any more."""
    pool = _Pool(dask.config.get("num_workers", None) or CPU_COUNT)
    try:
        with progress_bar(progress):
            return delayed.compute(pool=pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        wait(pool.running.copy(), timeout=_WAIT)


class _Pool(ThreadPoolExecutor):
    """A pool of threads that knows which tasks have not finished."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.running: set[Future[Any]] = set()

    def submit(self, *call: Any, **options: Any) -> Future[Any]:
        """Submit a task."""
        future = super().submit(*call, **options)
        self.running.add(future)
        future.add_done_callback(self.running.discard)
        return future


def progress_bar(progress: bool) -> AbstractContextManager[Any]:
    """Return Dask's progress bar, or a null context if `progress` is false."""
    return ProgressBar() if progress else nullcontext()


def on_cluster() -> bool:
    """Return whether Dask would compute on a cluster."""
    return _client() is not None


def _client() -> Any:
    """Return the distributed client that Dask would compute with, or None."""
    owner = getattr(get_scheduler(), "__self__", None)
    return owner if owner.__class__.__module__.startswith("distributed") else None


def _require_reachable(graph: Mapping[Any, Any]) -> None:
    """Raise an OptionError if Futures of the graph belong to a cluster that would not compute it."""
    futures = futures_in(graph)
    if not futures:
        return
    client, key = _client(), futures[0].key
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
