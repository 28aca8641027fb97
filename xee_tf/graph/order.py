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
  without); of the 160 of a wide image, 35 to 60 (80 without). They also keep reads from gzip streams in the
  order of the streams. Exports do not use them: on threads, all chunks stayed in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dask.task_spec import Task, TaskRef

from xee_tf.graph.tasks import Graph, Key, Tasks, add_task, first_of

__all__ = ["in_order", "most_paths", "ordering_tasks"]

_LEVELS, _MAX_LEVEL_BITS = 3, 6  # levels of empty tasks; at most 64 tasks in each, if need be of more levels
_SPARE_BITS = 2  # for what users compute from the other tasks
_MOST_RESERVED_BITS = 40  # images of many steps have more paths; levels for all of them would delay blocks


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


def ordering_tasks(name: str, count: int, paths: int) -> tuple[Tasks, list[list[TaskRef]]]:
    """Return empty tasks that make Dask compute `count` other tasks in order, if these depend on them.

    If all tasks have one root, `dask.order` starts with the tasks that have the most dependencies, counted
    over all paths to the root; if they have separate sources, it does so among the tasks that need the fewest
    further sources. The empty tasks therefore have powers of two as numbers of dependencies, and each turn
    depends on those that add up to its rank; the smallest ones are reserved for the dependencies of the other
    tasks themselves. All turns also depend on the last empty task, because turns of a low rank would
    otherwise be ready first.

    The levels of empty tasks are computed one after the other. On a cluster, each level waits for a free
    thread, and the results of all blocks wait for the last one. There are therefore few levels of many tasks.

    Parameters
    ----------
    name : str
        Name of the empty tasks, and key of their root.
    count : int
        Number of tasks to order.
    paths : int
        The largest number of dependencies of one of these tasks, counted over all paths; see `most_paths`.

    Returns
    -------
    tasks : dict
        The empty tasks by their keys.
    dependencies : list of list of TaskRef
        The references that each of the other tasks must depend on.
    """
    reserved = min(paths.bit_length() + _SPARE_BITS, _MOST_RESERVED_BITS)
    bits = reserved + count.bit_length()
    level_bits = min(-(-bits // _LEVELS), _MAX_LEVEL_BITS)
    tasks: Tasks = {name: Task(name, first_of, None)}
    below = [TaskRef(name)]
    weights: list[TaskRef] = []
    for first in range(0, bits, level_bits):
        end_bit = min(first + level_bits, bits)
        # Each task of a level has about 2**first dependencies; the last level only has weights above it.
        width = range(1 << (end_bit - first if end_bit < bits else bits - 1 - first))
        below = [add_task(tasks, (name, first, number), first_of, None, *below) for number in width]
        for bit in range(max(first, reserved), end_bit):
            weights.append(add_task(tasks, (name, "weight", bit), first_of, None, *below[: 1 << bit - first]))
    end = add_task(tasks, (name, "end"), first_of, None, *weights)
    return tasks, [
        [*(ref for bit, ref in enumerate(weights) if rank >> bit & 1), end] for rank in range(count, 0, -1)
    ]


def most_paths(tasks: Mapping[Key, Any], keys: Iterable[Key]) -> int:
    """Return the largest number of dependencies of the tasks with these keys, as `dask.order` counts them.

    Examples
    --------
    >>> tasks = {"a": Task("a", int), "b": Task("b", int, TaskRef("a")), "c": Task("c", int, TaskRef("a"))}
    >>> most_paths({**tasks, "d": Task("d", max, TaskRef("b"), TaskRef("c"))}, ["d"])
    5
    """
    counts: dict[Key, int] = {}
    wanted = list(keys)
    below = list(wanted)
    while below:
        needed = getattr(tasks.get(below[-1]), "dependencies", ())
        if missing := [key for key in needed if key not in counts]:
            below.extend(missing)
        else:
            counts[below.pop()] = 1 + sum(counts[key] for key in needed)
    return max((counts[key] for key in wanted), default=1)
