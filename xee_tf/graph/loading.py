"""Load chunks into the memory of this process."""

from __future__ import annotations

import uuid
from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
from dask.task_spec import Task
from numpy.typing import NDArray

from xee_tf.blocks import Chunk, ChunkGrid
from xee_tf.graph.blocks import BlockWork
from xee_tf.graph.declared import declared_planes
from xee_tf.graph.placing import on_cluster
from xee_tf.graph.run import run_graph
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import ChunkedArray, Key, TaskRef, add_task

__all__ = ["load_chunks"]


def load_chunks(
    arrays: Sequence[ChunkedArray],
    bands: Sequence[str],
    planes: Sequence[ChunkGrid],
    chunks: Sequence[Chunk],
    results: MutableMapping[Key, Any] | None = None,
) -> dict[Chunk, NDArray[np.generic]]:
    """Load some chunks of several arrays with Dask's current scheduler.

    A task of a source that several of the chunks need, such as a chunk with several bands, runs once.

    Parameters
    ----------
    arrays : sequence of ChunkedArray
        Arrays of shape (y, x) or (step, y, x).
    bands : sequence of str
        The name of the band of each array, for error messages.
    planes : sequence of ChunkGrid
        The planes of the arrays.
    chunks : sequence of (plane, iy, ix)
        The chunks. Time and memory do not depend on the others.
    results : mutable mapping, optional
        The results of blocks that earlier calls computed, such as the predictions of tiles; those of this
        call are added. The tiles at the edge of a chunk may belong to the block of its neighbor, and would
        otherwise be predicted again with it. Not used on a cluster, where each chunk has a block of its own,
        and where another computation may use the same keys at the same time.

    Returns
    -------
    dict
        Arrays of shape (y, x) or (step, y, x) by chunk.
    """
    places: list[list[tuple[int, int]]] = [[] for _ in planes]
    for plane, iy, ix in chunks:
        places[plane].append((iy, ix))
    keeps = results is not None and not on_cluster()
    sources = Sources.of_planes(arrays, places, fused=not keeps)
    if results is not None and keeps:
        sources = sources.with_results(results)
    new = [key for key, node in sources.graph.items() if keeps and _is_block(node)]
    run = uuid.uuid4().hex
    # `loads` gives tasks keys of their own: fused ones may not have those of the user's arrays.
    groups: dict[Key, list[Key]] = {
        number: [sources.keys[plane][iy, ix]] for number, (plane, iy, ix) in enumerate(chunks)
    }
    graph, loaded = sources.loads(groups | {len(chunks) + number: [key] for number, key in enumerate(new)})
    refs: list[TaskRef] = [
        add_task(graph.tasks, (f"chunk-{run}", number), list, loaded[number])
        if isinstance(loaded[number], list)
        else loaded[number]
        for number in range(len(chunks) + len(new))
    ]
    delayed = graph.delayed(f"chunks-{run}", add_task(graph.tasks, f"list-{run}", list, refs))
    found = [value for [value] in run_graph(delayed)]
    if results is not None:
        results.update(zip(new, found[len(chunks) :], strict=True))
    declared = declared_planes(arrays, bands)
    return {
        (plane, iy, ix): declared[plane].checked(planes[plane], iy, ix, values)
        for (plane, iy, ix), values in zip(chunks, found, strict=False)
    }


def _is_block(node: Any) -> bool:
    """Return whether a task does the work of a block."""
    return isinstance(node, Task) and node.func == BlockWork.do
