"""What makes Dask take blocks from the top left on, so that few chunks are alive.

Left to itself, Dask wanders over a graph of neighbours: where one task gathers the blocks, it takes those
along the edges last, and keeps chunks of many rows alive. A chain of empty tasks behind the blocks leads it
from each one to the next and holds none of them up; but the last block cannot be had without all others.
Where parts of a result can be computed, there are empty tasks in front of the blocks instead; these reach
less far. On a cluster priorities do it, which only the distributed scheduler has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dask.task_spec import GraphNode, Task, TaskRef

from xee_tf.graph.tasks import Key, Ref, Tasks, add_task, first_of

__all__ = ["in_order", "priorities", "turns"]

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


def priorities(tasks: Mapping[Key, Any], blocks: Iterable[Ref]) -> dict[Key, int]:
    """For the distributed scheduler: the earlier the block, the higher the priority of all it needs."""
    found: dict[Key, int] = {}
    for number, block in enumerate(blocks):
        below = [block.key]
        while below:
            key = below.pop()
            node = tasks.get(key)
            if isinstance(node, GraphNode) and key not in found:  # and not a Future
                found[key] = -number
                below.extend(node.dependencies)
    return found


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
