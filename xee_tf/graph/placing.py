"""Place the tasks of blocks on the workers of a cluster, so that little data moves between them.

Dask's scheduler may give a task to any worker that has one of its inputs, even a small one, if that worker
has less to do. Whole chunks would then follow the strips of neighboring blocks to other workers: for patches
of 256 pixels and a kernel of 32, all of the raster moved between four workers. Each worker therefore gets a
band of columns of blocks; only the strips between the bands move. All workers process the same rows, so that
shards are completed in order.

Placements are preferences: other workers take over if a worker is lost or has too much to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import dask
from dask.base import get_scheduler

from xee_tf.blocks import Block, BlockLayout
from xee_tf.graph.tasks import Annotations, Key

__all__ = ["centered_axes", "cluster_client", "on_cluster", "place_tasks", "workers_by_block"]

#: Rows of blocks after which another worker takes its turn on a column. A smaller number balances the work
#: sooner; with a larger one, fewer strips move.
_ROWS_PER_TURN = 2


def cluster_client() -> Any:
    """Return the distributed client that Dask would compute with, or None."""
    try:
        owner = getattr(get_scheduler(), "__self__", None)
    except RuntimeError:  # an asynchronous client
        from distributed import default_client

        return default_client()
    classes = type(owner).__mro__  # users may have a subclass
    return owner if any(each.__module__.startswith("distributed.") for each in classes) else None


def on_cluster() -> bool:
    """Return whether Dask would compute on a cluster."""
    return cluster_client() is not None


def centered_axes(*, placed: bool) -> tuple[bool, bool]:
    """Return along which axes, y and x, patches belong to the block of their center; see `BlockAxis`.

    Parameters
    ----------
    placed : bool
        Whether the tasks are placed on workers: Dask forgets this when it optimizes a lazy array.
    """
    if not on_cluster():
        return False, False
    return not (placed and _threads_by_worker()), True


def workers_by_block(layout: BlockLayout) -> dict[Block, str]:
    """Return the address of the worker for each block.

    The result is empty without a cluster; if the cluster is adaptive, because its workers are not known yet;
    if the client is asynchronous, which cannot ask for the workers here; if the user has placed the tasks
    with `dask.annotate`; and if workers have different resources, which the scheduler ignores when it gives a
    task to a worker other than the preferred one.
    """
    threads = _threads_by_worker()
    return _divide(layout, threads) if threads else {}


def place_tasks(workers: Mapping[Block, str], block_of: Mapping[Key, Block]) -> Annotations:
    """Return annotations that place tasks on workers.

    Parameters
    ----------
    workers : mapping
        The result of `workers_by_block`.
    block_of : mapping
        The block of each task.
    """
    found = {key: [workers[block]] for key, block in block_of.items() if block in workers}
    return {"workers": found, "allow_other_workers": dict.fromkeys(found, True)} if found else {}


def _threads_by_worker() -> dict[str, int]:
    """Return the number of threads of each worker by its address, or nothing if tasks cannot be placed."""
    client = cluster_client()
    adaptive = getattr(getattr(client, "cluster", None), "_adaptive", None) is not None
    if client is None or client.asynchronous or adaptive or "workers" in dask.get_annotations():
        return {}
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if len({tuple(sorted(worker["resources"].items())) for worker in workers.values()}) > 1:
        return {}
    return {address: worker["nthreads"] for address, worker in sorted(workers.items())}


def _divide(layout: BlockLayout, threads: Mapping[str, int]) -> dict[Block, str]:
    """Divide the columns of blocks between workers, in proportion to their threads.

    If there are more workers than columns, each column is also divided by its rows. Where the columns cannot
    be divided equally, neighboring workers take turns on a column.
    """
    blocks = list(layout.blocks())
    rows, columns = (sorted({block[axis] for block in blocks}) for axis in (0, 1))
    unit = math.gcd(*threads.values())
    slots = [address for address, count in threads.items() for _ in range(count // unit)]
    bands = -(-len(threads) // len(columns))  # of rows
    ends = [len(slots) * band // bands for band in range(bands + 1)]
    placed = {}
    for begin, end in pairwise(ends):
        own = slots[begin:end]
        turns = len(own) // math.gcd(len(own), len(columns))
        # A band has rows in proportion to its slots.
        for i, row in enumerate(rows[len(rows) * begin // len(slots) : len(rows) * end // len(slots)]):
            turn = i // _ROWS_PER_TURN % turns
            for k, column in enumerate(columns):
                center = 2 * (k * turns + turn) + 1  # of a part of the column, in half parts
                placed[row, column] = own[center * len(own) // (2 * turns * len(columns))]
    return placed
