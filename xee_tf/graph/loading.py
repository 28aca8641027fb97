"""Load chunks into the memory of this process."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xee_tf.blocks import Chunk, ChunkGrid
from xee_tf.graph.declared import declared_planes
from xee_tf.graph.run import run_graph
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import ChunkedArray, TaskRef, add_task

__all__ = ["load_chunks"]


def load_chunks(
    arrays: Sequence[ChunkedArray], bands: Sequence[str], planes: Sequence[ChunkGrid], chunks: Sequence[Chunk]
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

    Returns
    -------
    dict
        Arrays of shape (y, x) or (step, y, x) by chunk.
    """
    places: list[list[tuple[int, int]]] = [[] for _ in planes]
    for plane, iy, ix in chunks:
        places[plane].append((iy, ix))
    sources = Sources.of_planes(arrays, places, fused=True)
    run = uuid.uuid4().hex
    # `loads` gives tasks keys of their own: fused ones may not have those of the user's arrays.
    graph, loaded = sources.loads(
        {number: [sources.keys[plane][iy, ix]] for number, (plane, iy, ix) in enumerate(chunks)}
    )
    refs: list[TaskRef] = [
        add_task(graph.tasks, (f"chunk-{run}", number), list, loaded[number])
        if isinstance(loaded[number], list)
        else loaded[number]
        for number in range(len(chunks))
    ]
    delayed = graph.delayed(f"chunks-{run}", add_task(graph.tasks, f"list-{run}", list, refs))
    declared = declared_planes(arrays, bands)
    return {
        (plane, iy, ix): declared[plane].checked(planes[plane], iy, ix, values)
        for (plane, iy, ix), [values] in zip(chunks, run_graph(delayed), strict=True)
    }
