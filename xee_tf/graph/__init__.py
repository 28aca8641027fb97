"""Build and run Dask graphs; no other subpackage creates tasks."""

from xee_tf.graph.arrays import ArraySpec, arrays_of_blocks, arrays_of_boxes, for_xarray, shared_array
from xee_tf.graph.blocks import BlockJob, chunk_grids, order_blocks, work_on_blocks
from xee_tf.graph.loading import load_chunks
from xee_tf.graph.memory import memory_warning
from xee_tf.graph.parts import StoredPart, stored_parts
from xee_tf.graph.placing import centered_axes, cluster_client, on_cluster
from xee_tf.graph.progress import Counted
from xee_tf.graph.pyramid import BLOCK_TASKS, PyramidWork, reduce_blocks
from xee_tf.graph.run import each_chunk, run_graph, store_chunks
from xee_tf.graph.sources import Sources
from xee_tf.graph.tasks import (
    ChunkedArray,
    Delayed,
    Graph,
    Key,
    Ref,
    TaskRef,
    Tasks,
    add_task,
    add_value,
    add_wait,
    first_of,
    peak_memory,
    shared_value,
)

__all__ = [
    "BLOCK_TASKS",
    "ArraySpec",
    "BlockJob",
    "ChunkedArray",
    "Counted",
    "Delayed",
    "Graph",
    "Key",
    "PyramidWork",
    "Ref",
    "Sources",
    "StoredPart",
    "TaskRef",
    "Tasks",
    "add_task",
    "add_value",
    "add_wait",
    "arrays_of_blocks",
    "arrays_of_boxes",
    "centered_axes",
    "chunk_grids",
    "cluster_client",
    "each_chunk",
    "first_of",
    "for_xarray",
    "load_chunks",
    "memory_warning",
    "on_cluster",
    "order_blocks",
    "peak_memory",
    "reduce_blocks",
    "run_graph",
    "shared_array",
    "shared_value",
    "store_chunks",
    "stored_parts",
    "work_on_blocks",
]
