"""What makes Dask take blocks from the top left on, so that few chunks are alive.

Left to itself, Dask wanders over a graph of neighbours: where one task gathers the blocks, it takes those
along the edges last, and keeps chunks of many rows alive. There are two means against it:

* A chain of empty tasks behind the blocks (`in_order`) leads it from each one to the next and holds none of
  them up. Of the 400 chunks of each of three bands 13 are alive at most on one thread, and 60 without it; of
  the 200 of a wide image 16, and 61 without it. On two workers of a cluster it is 27 to 40 beside 40 to 73
  (priorities, which only a cluster has, leave 20 to 100). But nobody can have the last block without all
  others.
* Where parts of a result can be computed, as of lazy arrays, there are empty tasks in front instead
  (`turns`). They reach less far, since what loads a block does not wait for its turn: of the 400 chunks of a
  prediction with overlap 38 to 60 are alive on two threads, and 60 to 82 without them; of the 160 of a wide
  one 40, and 80 without them. They also keep what is read from gzip streams in the order of the streams.
  Exports on threads that were made to take turns kept all chunks alive.
"""

from __future__ import annotations

from collections.abc import Sequence

from dask.task_spec import Task, TaskRef

from xee_tf.graph.tasks import Ref, Tasks, add_task, first_of

__all__ = ["in_order", "turns"]

_LEAST_BITS = 40  # more ways down than these powers of two no block will have


def in_order(tasks: Tasks, blocks: Sequence[Ref], name: str) -> list[Ref]:
    """Add a chain of empty tasks behind blocks; see `Sources` for what the blocks depend on.

    Returns
    -------
    list
        What stands for each block from now on.
    """
    done: list[Ref] = []
    for number, block in enumerate(blocks):
        done.append(add_task(tasks, (name, number), first_of, block, *done[-1:]))
    return done


def turns(name: str, count: int) -> tuple[Tasks, list[list[Ref]]]:
    """Empty tasks that make Dask compute `count` other tasks in their order, if these depend on them.

    Where all tasks go back to one root, `dask.order` begins with those that have the most tasks below
    them, every way down counted; where they have sources of their own, it does so among those that need
    the fewest further sources. So there are tasks with twice as many below them as those before, and each
    turn takes those that add up to its rank; the first ones stand for what a turn's own work may count. All
    wait for the last one too, or else those of a low rank would be ready first.

    Parameters
    ----------
    name : str
        Of the empty tasks; alone, it is that of the one root.
    count : int

    Returns
    -------
    tasks : dict
    keys : list of list
        What each turn has to depend on.
    """
    tasks: Tasks = {name: Task(name, first_of, None)}
    below = [TaskRef(name)]
    bits = _LEAST_BITS + count.bit_length()
    for bit in range(bits):
        twins = [(name, bit, twin) for twin in (0, 1)]
        for key in twins:
            tasks[key] = Task(key, first_of, None, *below)
        below = [TaskRef(key) for key in twins]
    weights = [TaskRef((name, bit, 0)) for bit in range(_LEAST_BITS, bits)]
    end = (name, bits)
    tasks[end] = Task(end, first_of, None, *below)
    return tasks, [
        [*(ref for bit, ref in enumerate(weights) if rank >> bit & 1), TaskRef(end)]
        for rank in range(count, 0, -1)
    ]
