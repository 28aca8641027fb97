"""The files of a SavedModel: checks, and the MetaGraph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from xee_tf.connector import DEFAULT_SIGNATURE, Signature
from xee_tf.errors import ModelError, RecordError
from xee_tf.extras import extra
from xee_tf.models.kinds import model_kind
from xee_tf.models.model_files import missing_error, model_errors
from xee_tf.models.saved_model_signatures import graphs_of_saved_model, signatures_of_graph
from xee_tf.storage import Location, PathLike
from xee_tf.tensors import STRING

__all__ = ["is_prepared", "read_meta_graph", "read_signatures", "require_saved_model"]

_EXPORT = (
    "Export a Keras model with model.export('folder'), and a .keras or .h5 file with "
    "keras.models.load_model('file').export('folder')."
)
_SHOWN = 8  # entries of a folder in a message


def require_saved_model(folder: Location) -> None:
    """Raise an error if `folder` is not a SavedModel, with a description of what it is instead.

    Raises
    ------
    MissingModelError
        If the folder does not exist.
    ModelError
        If it is not a SavedModel.

    Examples
    --------
    >>> require_saved_model(Location.of("memory://nothing"))
    Traceback (most recent call last):
        ...
    xee_tf.errors.MissingModelError: There is no SavedModel at memory://nothing: the path does not exist.
    """
    file = folder.child("saved_model.pb")
    if file.exists():
        return
    if folder.is_web:  # a server that cannot be reached has no files either
        with model_errors(file):
            file.read_bytes(0, 1)
    if not folder.exists():
        raise missing_error(folder, "SavedModel")
    raise ModelError(
        f"{folder} is not a SavedModel (a folder with a file saved_model.pb): {_describe(folder)}"
    )


def read_signatures(folder: PathLike | Location, tag: str = "serve") -> dict[str, Signature]:
    """Read the signatures of a SavedModel, without TensorFlow and without decoding its graphs.

    Raises
    ------
    ModelError
        If the file cannot be read, or does not contain a graph with this tag.
    """
    path, data = _read(folder)
    try:
        graphs = graphs_of_saved_model(data)
        _require_tag(folder, tag, [tags for tags, _ in graphs])
        return next(signatures_of_graph(graph) for tags, graph in graphs if set(tags) == {tag})
    except RecordError:
        raise _damaged(path) from None


def read_meta_graph(folder: PathLike | Location, tag: str = "serve") -> Any:
    """Read the MetaGraphDef of a SavedModel: its signatures and, in TensorFlow 2, the object graph.

    Raises
    ------
    ModelError
        If the file cannot be read, or does not contain a graph with this tag.
    """
    with extra("tensorflow", "A SavedModel"):
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path, data = _read(folder)
    try:
        graphs = SavedModel.FromString(data).meta_graphs
    except Exception:  # of protobuf, whose own class has no types
        raise _damaged(path) from None
    _require_tag(folder, tag, [list(graph.meta_info_def.tags) for graph in graphs])
    return next(graph for graph in graphs if set(graph.meta_info_def.tags) == {tag})


def _read(folder: PathLike | Location) -> tuple[Location, bytes]:
    path = Location.of(folder).child("saved_model.pb")
    with model_errors(path):
        return path, path.read_bytes()


def _damaged(path: Location) -> ModelError:
    return ModelError(f"{path} is damaged: it is not a SavedModel message. Export the model again.")


def _require_tag(folder: PathLike | Location, tag: str, known: Sequence[Sequence[str]]) -> None:
    """Raise an error if no graph has only the tag."""
    if not any(set(tags) == {tag} for tags in known):
        shown = ", ".join("+".join(tags) or "none" for tags in known) or "none"
        raise ModelError(f"{folder} has no graph with only the tag {tag!r}; available: {shown}.")


def is_prepared(graph: Any) -> bool:
    """Return whether a model takes base64 of serialized tensors, like those of ``earthengine model prepare``.

    Such a model has nodes that decode base64 and parse tensors, and takes vectors of strings.
    """
    functions = [function.node_def for function in graph.graph_def.library.function]
    operations = {node.op for nodes in (graph.graph_def.node, *functions) for node in nodes}
    signature = graph.signature_def.get(DEFAULT_SIGNATURE)
    return (
        signature is not None
        and {"DecodeBase64", "ParseTensor", "EncodeBase64", "SerializeTensor"} <= operations
        and all(info.dtype == STRING.number for info in signature.inputs.values())
    )


def _describe(folder: Location) -> str:
    """Describe a path that is not a SavedModel, and how to get one."""
    if folder.fs.isfile(folder.path):
        return _describe_file(folder.name)
    names = list(folder.entries())
    inner = [name for name in names if folder.child(name).child("saved_model.pb").exists()]
    if inner:
        what = "version" if all(re.fullmatch(r"\d+", name) for name in inner) else "SavedModel"
        what += "s" if len(inner) > 1 else ""
        return f"it contains the {what} {', '.join(inner)}; use one, such as {folder.child(inner[-1])}."
    if not names:
        return f"it is empty. {_EXPORT}"
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    if any(name.endswith(".index") or name == "checkpoint" for name in names):
        return (
            f"it contains a checkpoint ({shown}), variables without a graph. Load them into the model. "
            f"{_EXPORT}"
        )
    return f"it contains {shown}. {_EXPORT}"


def _describe_file(name: str) -> str:
    """Describe a file by its name."""
    kind, suffix = model_kind(name), name.rsplit(".", 1)[-1].lower()
    if kind == "keras":
        return f"it is a Keras file. Export it with keras.models.load_model({name!r}).export('folder')."
    if name in ("saved_model.pb", "saved_model.pbtxt"):
        return "it is a file of a SavedModel; use the folder that contains it."
    if kind == "onnx":
        return "it is an ONNX model. Use Model.from_onnx."
    known = {"pb": "a frozen graph", "tflite": "a TensorFlow Lite model"}
    return f"it is {known.get(suffix, 'a file')}. {_EXPORT}"
