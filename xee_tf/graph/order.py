"""Make Dask process blocks in row-major order, so that few chunks are in memory at a time.

By default, Dask does not process blocks that share chunks in rows: if one task gathers all blocks, it leaves
those along the edges for last and keeps the chunks of many rows in memory. There are two ways to prevent
this:

* A chain of empty tasks after the blocks (`in_order`) leads Dask from each block to the next without delaying
  any of them. For 400 chunks of each of three bands, at most 13 are in memory on one thread (60 without the
  chain); for the 200 chunks of a wide image, 16 (61 without). On two workers of a cluster, it is 27 to 40
  (40 to 73 without; 20 to 100 with priorities, which only clusters support). The disadvantage is that the
  last block depends on all others.
* If parts of a result can be computed separately, as for lazy arrays, empty tasks before the blocks are used
  instead (`ordering_tasks`). They are less effective, because the tasks that load a block do not wait for its
  turn: of the 400 chunks of a prediction with overlap, 38 to 60 are in memory on two threads (60 to 82
  without); of the 160 of a wide image, 40 (80 without). They also keep reads from gzip streams in the order
  of the streams. Exports do not use them: on threads, all chunks stayed in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dask.task_spec import Task, TaskRef

from xee_tf.graph.tasks import Graph, Tasks, first_of

__all__ = ["in_order", "ordering_tasks"]

_MIN_BITS = 40  # no block has more paths to the root than this power of two


def in_order(
    graph: Graph,
    blocks: Sequence[TaskRef],
    name: str,
    function: Callable[..., Any] = first_of,
    before: Sequence[Sequence[TaskRef]] | None = None,
) -> list[TaskRef]:
    """Add a chain of tasks after blocks; see `Sources` for the tasks that the blocks depend on.

    Parameters
    ----------
    graph : Graph
        The tasks of the blocks; modified in place.
    blocks : sequence of TaskRef
        References to the results of the blocks.
    name : str
        Name of the tasks.
    function : callable
        Called with the result of a block and that of the task before in the chain, which it ignores. If the
        results of blocks are large, it should return a small part of them.
    before : sequence of sequences of TaskRef, optional
        For each task of the chain, references to further results that it depends on, and ignores.

    Returns
    -------
    list of TaskRef
        References to use in place of `blocks`.
    """
    done: list[TaskRef] = []
    for number, block in enumerate(blocks):
        others = before[number] if before else ()
        done.append(graph.add_beside(block, (name, number), function, block, *done[-1:], *others))
    return done


def ordering_tasks(name: str, count: int) -> tuple[Tasks, list[list[TaskRef]]]:
    """Return empty tasks that make Dask compute `count` other tasks in order, if these depend on them.

    If all tasks have one root, `dask.order` starts with the tasks that have the most dependencies, counted
    over all paths to the root; if they have separate sources, it does so among the tasks that need the fewest
    further sources. The empty tasks therefore have powers of two as numbers of dependencies, and each turn
    depends on those that add up to its rank; the smallest ones are reserved for the dependencies of the other
    tasks themselves. All turns also depend on the last empty task, because turns of a low rank would
    otherwise be ready first.

    Parameters
    ----------
    name : str
        Name of the empty tasks, and key of their root.
    count : int
        Number of tasks to order.

    Returns
    -------
    tasks : dict
        The empty tasks by their keys.
    dependencies : list of list of TaskRef
        The references that each of the other tasks must depend on.
    """
    tasks: Tasks = {name: Task(name, first_of, None)}
    below = [TaskRef(name)]
    bits = _MIN_BITS + count.bit_length()
    for bit in range(bits):
        twins = [(name, bit, twin) for twin in (0, 1)]
        for key in twins:
            tasks[key] = Task(key, first_of, None, *below)
        below = [TaskRef(key) for key in twins]
    weights = [TaskRef((name, bit, 0)) for bit in range(_MIN_BITS, bits)]
    end = (name, bits)
    tasks[end] = Task(end, first_of, None, *below)
    return tasks, [
        [*(ref for bit, ref in enumerate(weights) if rank >> bit & 1), TaskRef(end)]
        for rank in range(count, 0, -1)
    ]
