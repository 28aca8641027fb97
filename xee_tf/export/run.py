"""Running a graph that writes files, and clearing up after one that failed."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from typing import Any

from dask.base import get_scheduler
from dask.delayed import Delayed
from dask.diagnostics import ProgressBar

from xee_tf.storage import Location

__all__ = ["clear", "compute_export", "on_cluster"]


def on_cluster() -> bool:
    """Whether Dask would compute on a distributed cluster."""
    return getattr(get_scheduler(), "__self__", None).__class__.__module__.startswith("distributed")


def clear(folder: Location) -> None:
    """Remove what a failed export has put aside, while tasks that had begun may still add to it."""
    deadline = time.monotonic() + 10
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:
        with suppress(Exception):  # the error that made the export fail is the one to show
            quiet += 1
            if folder.exists():
                quiet = 0
                folder.remove(recursive=True)
        time.sleep(0.05)


def compute_export(delayed: Delayed, progress: bool) -> Any:
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
