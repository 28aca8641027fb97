"""Running graphs: where Dask would compute, and with a bar if one is wanted."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from dask.base import get_scheduler
from dask.delayed import Delayed
from dask.diagnostics import ProgressBar

__all__ = ["on_cluster", "run_graph"]


def on_cluster() -> bool:
    """Whether Dask would compute on a distributed cluster."""
    return getattr(get_scheduler(), "__self__", None).__class__.__module__.startswith("distributed")


def run_graph(delayed: Delayed, progress: bool) -> Any:
    """The result of a Delayed, with Dask's own bar if one is wanted."""
    if progress and on_cluster():
        from distributed import get_client
        from distributed import progress as show_progress

        future = get_client().compute(delayed)
        show_progress(future)
        found = future.result()
    else:
        with ProgressBar() if progress else nullcontext():
            found = delayed.compute()
    return found
