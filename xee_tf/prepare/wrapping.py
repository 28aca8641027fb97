"""Wrapper for a SavedModel whose inputs and outputs are URL-safe base64 of serialized tensors.

The wrapper uses TensorFlow 2: the model is loaded, called from a function that decodes and encodes tensors,
and saved together with this function. TensorFlow 2 finds the variables however they were saved. Editing the
TensorFlow 1 graph, as Earth Engine's command does, can produce models that do not run.
"""

from __future__ import annotations

import keyword
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xee_tf.connector import DEFAULT_SIGNATURE
from xee_tf.errors import ModelError, OptionError, RecordError, XeeTFError
from xee_tf.extras import extra
from xee_tf.models import tensorflow_message
from xee_tf.prepare.nodes import Selection, describe_signatures
from xee_tf.tensors import TensorType, type_of_number

with extra("tensorflow", "prepare_model"):
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

__all__ = ["Loaded", "Node", "load", "save_wrapped", "tensorflow_silenced"]


@dataclass(frozen=True)
class Node:
    """An input or output of a model: new name, element type, and shape as in `TensorInfo`."""

    name: str
    kind: TensorType
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        shape = "any shape"
        if self.shape is not None:
            shape = " × ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({self.kind.name}, {shape})"


@dataclass(frozen=True)
class Loaded:
    """A loaded model: the object loaded by TensorFlow (`root`) and a function that calls it.

    The keys of `inputs`, `outputs`, and the tensors that `call` takes and returns, are the original names.
    """

    root: Any
    inputs: Mapping[str, Node]
    outputs: Mapping[str, Node]
    call: Callable[[dict[str, Any]], dict[str, Any]]


@contextmanager
def tensorflow_silenced() -> Iterator[None]:
    """Silence TensorFlow's messages about saved files and deprecated functions."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def load(folder: str, graph: Any, selection: Selection, tag: str) -> Loaded:
    """Load a local SavedModel with the selected inputs and outputs.

    Raises
    ------
    ModelError
        If TensorFlow cannot load the model, or an input or output has no batch dimension or cannot be
        serialized.
    OptionError
        If a node is not found in the graph.
    """
    find = _nodes_of_graph if selection.signature is None else _nodes_of_signature
    try:
        tensors, inputs, outputs = find(graph, selection)
        if not graph.HasField("object_graph_def"):
            return Loaded(None, inputs, outputs, _freeze(folder, tag, tensors, list(inputs), list(outputs)))
        root = tf.saved_model.load(folder, tags=[tag])
    except XeeTFError:
        raise
    except Exception as error:  # TensorFlow raises many types for invalid files
        raise ModelError(f"TensorFlow cannot load the model: {tensorflow_message(error)}") from error
    signature = root.signatures[selection.signature]
    return Loaded(root, inputs, outputs, lambda tensors: dict(signature(**tensors)))


def save_wrapped(model: Loaded, folder: str) -> None:
    """Save a wrapped model with one signature, ``serving_default``, of vectors of strings."""
    arguments = {
        key: _argument_name(node.name, place) for place, (key, node) in enumerate(model.inputs.items())
    }

    def wrapped(**encoded: Any) -> dict[str, Any]:
        decoded = {key: _decode_batch(encoded[arguments[key]], node) for key, node in model.inputs.items()}
        outputs = model.call(decoded)
        return {node.name: _encode_batch(outputs[key]) for key, node in model.outputs.items()}

    specs = {name: tf.TensorSpec([None], tf.string, name=name) for name in arguments.values()}
    module = tf.Module()
    module.model = model.root  # saved with the module
    signature = tf.function(wrapped, autograph=False).get_concrete_function(**specs)
    tf.saved_model.save(module, folder, signatures={DEFAULT_SIGNATURE: signature})
    renamed = {arguments[key]: node.name for key, node in model.inputs.items() if arguments[key] != node.name}
    if renamed:
        _rename_inputs(Path(folder, "saved_model.pb"), renamed)


# -- The graph ---------------------------------------------------------------------------------------


def _decode_batch(encoded: Any, node: Node) -> Any:
    """Decode the strings of a batch to tensors."""
    dtype = tf.as_dtype(node.kind.number)
    inner = None if node.shape is None else node.shape[1:]
    tensors = tf.map_fn(
        lambda string: tf.ensure_shape(tf.io.parse_tensor(string, dtype), inner),
        tf.io.decode_base64(encoded),
        fn_output_signature=tf.TensorSpec(inner, dtype),
    )
    return tf.ensure_shape(tensors, node.shape)


def _encode_batch(tensors: Any) -> Any:
    """Encode each tensor of a batch as a string."""
    strings = tf.map_fn(tf.io.serialize_tensor, tensors, fn_output_signature=tf.TensorSpec([], tf.string))
    return tf.io.encode_base64(strings)


def _freeze(
    folder: str, tag: str, tensors: Mapping[str, str], inputs: list[str], outputs: list[str]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Convert a TensorFlow 1 model to a function, with its variables as constants.

    TensorFlow 2 can load the variables of such a graph, but cannot save them.
    """
    v1 = tf.compat.v1
    fetched = [tensors[key] for key in outputs]
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.saved_model.load(session, [tag], folder)
        operations = [name.rpartition(":")[0] for name in fetched]
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), operations)
    imported = v1.wrap_function(lambda: tf.graph_util.import_graph_def(frozen, name=""), [])
    elements = imported.graph.as_graph_element
    function = imported.prune([elements(tensors[key]) for key in inputs], list(map(elements, fetched)))
    return lambda values: dict(zip(outputs, function(*(values[key] for key in inputs)), strict=True))


# -- Names -------------------------------------------------------------------------------------------

FoundNodes = tuple[dict[str, str], dict[str, Node], dict[str, Node]]
"""Tensor names by input or output name, the inputs and the outputs."""


def _nodes_of_signature(graph: Any, selection: Selection) -> FoundNodes:
    """Return the selected inputs and outputs of a signature."""
    signature = graph.signature_def[selection.signature]
    tensors: dict[str, str] = {}
    sides: list[dict[str, Node]] = []
    for infos, names in ((signature.inputs, selection.inputs), (signature.outputs, selection.outputs)):
        sides.append({})
        for key, new in names.items():
            info = infos[key]
            if info.WhichOneof("encoding") != "name":
                raise ModelError(
                    f"{key!r} is a sparse or ragged tensor: only dense tensors can be serialized."
                )
            tensors[key] = info.name
            sides[-1][key] = _node(new, tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape))
    return tensors, sides[0], sides[1]


def _nodes_of_graph(graph: Any, selection: Selection) -> FoundNodes:
    """Return the selected tensors of the graph of a TensorFlow 1 model."""
    tensors: dict[str, str] = {}
    sides: list[dict[str, Node]] = []
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph.graph_def, name="")
    for names in (selection.inputs, selection.outputs):
        sides.append({})
        for name, new in names.items():
            tensors[name] = name if ":" in name else f"{name}:0"
            try:
                tensor = imported.as_graph_element(tensors[name])
            except (KeyError, ValueError):
                raise OptionError(
                    f"Node {name!r} not found in the graph of the model. Available signatures: "
                    f"{describe_signatures(graph)}."
                ) from None
            sides[-1][name] = _node(new, tensor.dtype, tensor.shape)
    return tensors, sides[0], sides[1]


def _node(name: str, dtype: Any, shape: Any) -> Node:
    try:
        kind = type_of_number(dtype.as_datatype_enum)
    except RecordError as error:
        raise ModelError(f"{name!r} cannot be serialized: {error}") from None
    sizes = None if shape.rank is None else tuple(shape.as_list())
    if sizes == ():
        raise ModelError(
            f"{name!r} has no batch dimension: expected a batch as the first dimension of every input and "
            "output, so that each instance has its own tensor."
        )
    return Node(name, kind, sizes)


def _argument_name(name: str, place: int) -> str:
    """Return a valid name of a Python argument, as TensorFlow requires."""
    plain = name.isascii() and name.isidentifier() and name[0] != "_"
    return name if plain and not keyword.iskeyword(name) and name != "self" else f"xee_tf_input_{place}"


def _rename_inputs(path: Path, names: Mapping[str, str]) -> None:
    """Rename inputs of a saved signature to names that are invalid in Python, such as ``0_B4``."""
    model = SavedModel.FromString(path.read_bytes())
    [graph] = model.meta_graphs
    inputs = graph.signature_def[DEFAULT_SIGNATURE].inputs
    [function] = (
        node.bare_concrete_function
        for node in graph.object_graph_def.nodes
        if node.WhichOneof("kind") == "bare_concrete_function"
        and set(names) <= set(node.bare_concrete_function.argument_keywords)
    )
    concrete = graph.object_graph_def.concrete_functions[function.concrete_function_name]
    fields = concrete.canonicalized_input_signature.tuple_value.values[1].dict_value.fields
    for old, new in names.items():
        # TensorFlow 2 loads other invalid names, but not Python keywords; it finds these by position.
        for mapping in (inputs,) if keyword.iskeyword(new) else (inputs, fields):
            mapping[new].CopyFrom(mapping[old])
            del mapping[old]
        if new in fields:
            fields[new].tensor_spec_value.name = new
    function.argument_keywords[:] = [names.get(name, name) for name in function.argument_keywords]
    # The optional function_spec describes the Python function, whose arguments cannot have these names.
    function.ClearField("function_spec")
    path.write_bytes(model.SerializeToString())
