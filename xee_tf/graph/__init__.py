"""Dask graphs: the only room that builds tasks, and where they are run."""

from xee_tf.graph.run import on_cluster, progress_bar, run_graph
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import (
    Tasks,
    block_tasks,
    chunk_grids,
    each_chunk,
    gather,
    in_order,
    stitched_array,
    to_delayed,
    turns,
)

__all__ = [
    "Sources",
    "Tasks",
    "block_tasks",
    "chunk_grids",
    "each_chunk",
    "gather",
    "in_order",
    "on_cluster",
    "progress_bar",
    "run_graph",
    "stitched_array",
    "to_delayed",
    "turns",
]
