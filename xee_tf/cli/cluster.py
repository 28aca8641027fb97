"""The Dask cluster that a command computes with."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import resource_tracker
from typing import Any

import psutil
from dask.system import CPU_COUNT

from xee_tf.display import counted
from xee_tf.errors import OptionError
from xee_tf.graph import cluster_client
from xee_tf.options import integer
from xee_tf.signals import print_line

__all__ = ["computing_on"]

_SECONDS = "5s"
"""Time to wait for a scheduler that does not answer."""


@contextmanager
def computing_on(
    scheduler: str | None = None, workers: int | None = None, *, quiet: bool = False
) -> Iterator[None]:
    """Compute with a Dask scheduler or with new worker processes in the body; with neither, with threads.

    Parameters
    ----------
    scheduler : str, optional
        The address of a scheduler, or the file in which it wrote its address.
    workers : int, optional
        Number of processes to start. They are stopped after the body.
    quiet : bool
        Whether to print nothing about the cluster.
    """
    if scheduler is not None and workers is not None:
        raise OptionError("--scheduler and --workers exclude each other: pass one of them.")
    if scheduler is not None:
        with _connected(scheduler) as client:
            if not quiet and not client.nthreads():
                print_line(f"The scheduler at {scheduler} has no workers yet: waiting for one.")
            yield
    elif workers is not None:
        with _started(integer(1)(workers, "--workers")) as client:
            if not quiet:
                link = client.dashboard_link if find_spec("bokeh") else ""
                print_line(
                    f"Started {counted(workers, 'worker')}" + (f"; dashboard: {link}" if link else ".")
                )
            yield
    else:
        yield


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    """Connect to a scheduler."""
    from distributed import Client

    is_file = scheduler.endswith(".json")
    before = cluster_client()
    try:
        if is_file:
            with open(scheduler):  # Client waits until there is one
                pass
        given = {"scheduler_file": scheduler} if is_file else {"address": scheduler}
        with warnings.catch_warnings():
            # The last attempt is abandoned.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            client = Client(**given, timeout=_SECONDS)
    except (OSError, ValueError, KeyError, TypeError) as error:  # a TimeoutError is an OSError
        failed = cluster_client()
        if failed is not None and failed is not before:
            failed.close()  # if an OSError was raised, it is closed already
        why = "" if isinstance(error, TimeoutError) or "Timed out" in str(error) else f": {error}"
        raise OptionError(
            f"--scheduler {scheduler} cannot be reached{why.rstrip('.')}. Pass the address that "
            "the scheduler prints, such as tcp://node7:8786, and check that it is running; or use --workers "
            "4 for processes on this computer."
        ) from error
    with client:
        yield client


@contextmanager
def _started(workers: int) -> Iterator[Any]:
    """Start worker processes, which share the processors."""
    from distributed import Client, LocalCluster

    with _holding_interrupts() as received, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)  # another is chosen
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, CPU_COUNT // workers),
            silence_logs=logging.ERROR,
        )
    with cluster, Client(cluster) as client:
        try:
            if received:
                raise KeyboardInterrupt
            yield client
        except KeyboardInterrupt:  # the tasks that were running have ended
            _kill_workers(cluster)
            raise


def _kill_workers(cluster: Any) -> None:
    """End the processes of workers at once: otherwise each first closes what nobody needs any more."""
    for nanny in cluster.workers.values():
        nanny.close_gracefully()  # or it would start another process
        if nanny.pid is not None:
            with suppress(psutil.Error):
                psutil.Process(nanny.pid).kill()


@contextmanager
def _holding_interrupts() -> Iterator[list[int]]:
    """Keep Ctrl-C from the body and, for good, from the processes that are started there.

    A terminal sends it to all of its processes. Workers would print tracebacks, and the command stops them
    anyway, when it has cleaned up.

    Yields
    ------
    received : list of int
        The signals that were received; complete after the body.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    mask = None
    if hasattr(signal, "pthread_sigmask"):  # new threads and processes inherit what is blocked
        resource_tracker.ensure_running()  # otherwise this is started in the body, and then unblocks signals
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield received
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
