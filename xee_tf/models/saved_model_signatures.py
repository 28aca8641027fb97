"""Read the signatures in the file of a SavedModel, without TensorFlow."""

from __future__ import annotations

from xee_tf.connector import Signature
from xee_tf.remote import decode_signature
from xee_tf.wire import bodies, map_entries, text

__all__ = ["graphs_of_saved_model", "signatures_of_graph"]


def graphs_of_saved_model(data: bytes) -> list[tuple[list[str], memoryview]]:
    """Return the tags and the MetaGraphDef of each graph in a ``saved_model.pb``; the graphs are not decoded.

    These are ``SavedModel{meta_graphs = 2}`` and ``MetaGraphDef{meta_info_def = 1 {tags = 4}}``.

    Raises
    ------
    RecordError
        If `data` is not a valid message.
    """
    return [
        ([text(tag) for info in bodies(graph, 1) for tag in bodies(info, 4)], graph)
        for graph in bodies(data, 2)
    ]


def signatures_of_graph(graph: memoryview) -> dict[str, Signature]:
    """Return the signatures of a ``MetaGraphDef{signature_def = 5}``, except those that TensorFlow adds."""
    return {
        name: decode_signature(message)
        for name, message in sorted(dict(map_entries(graph, 5)).items())
        if not name.startswith("__")
    }
