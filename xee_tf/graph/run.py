"""Running graphs: where Dask would compute, and with a bar if one is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dask.base import get_scheduler
from dask.delayed import Delayed
from dask.diagnostics import ProgressBar

from xee_tf.errors import OptionError
from xee_tf.graph.sources import futures_in

__all__ = ["on_cluster", "progress_bar", "run_graph"]


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
