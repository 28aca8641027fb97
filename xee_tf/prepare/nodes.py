"""Selection of inputs and outputs of a SavedModel: arguments of signatures or nodes of the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xee_tf.connector import DEFAULT_SIGNATURE
from xee_tf.errors import ModelError, OptionError

__all__ = ["NodesLike", "Selection", "describe_signatures", "read_nodes", "select_nodes"]

Nodes = Mapping[str, str]
"""Inputs or outputs of a model, and their new names."""

NodesLike = str | Sequence[str] | Mapping[str, str] | None


@dataclass(frozen=True)
class Selection:
    """Selected inputs and outputs of a model.

    Parameters
    ----------
    signature : str or None
        Signature of the inputs and outputs. None: nodes of the graph of a TensorFlow 1 model.
    inputs, outputs : mapping of str to str
        Maps arguments or outputs of the signature, or nodes, to new names.
    """

    signature: str | None
    inputs: Nodes
    outputs: Nodes


def read_nodes(value: NodesLike, name: str) -> Nodes | None:
    """Parse the option ``input`` or ``output`` to names and new names; return None if it is not given.

    A string is a JSON mapping or a comma-separated list of names, as in ``earthengine model prepare``. A
    trailing ``:0`` is stripped from new names, as in Earth Engine.

    Raises
    ------
    OptionError
        If the option does not map names to unique names.

    Examples
    --------
    >>> read_nodes("B4, conv2d_input:0", "input")
    {'B4': 'B4', 'conv2d_input:0': 'conv2d_input'}
    >>> read_nodes('{"conv2d_input:0": "B4"}', "input")
    {'conv2d_input:0': 'B4'}
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [part.strip() for part in str(value).split(",")]
        else:
            if not isinstance(value, dict):
                raise OptionError(f"{name} must be a JSON object of names; got {value!r}.")
    if not isinstance(value, Mapping):
        value = {part: part for part in value}
    parts: list[Any] = [part for pair in value.items() for part in pair]
    if not parts or not all(isinstance(part, str) and part for part in parts):
        raise OptionError(
            f"{name} must map names to names, such as {{'serving_default_array:0': 'array'}}; "
            f"got {dict(value)!r}."
        )
    nodes = {node: new.rpartition(":")[0] or new for node, new in value.items()}
    duplicates = sorted(new for new in set(nodes.values()) if list(nodes.values()).count(new) > 1)
    if duplicates:
        raise OptionError(
            f"{name} maps more than one node to the name {duplicates[0]!r}; names must be unique."
        )
    return nodes


def select_nodes(graph: Any, inputs: Nodes | None, outputs: Nodes | None) -> Selection:
    """Select inputs and outputs in a MetaGraph.

    Names are arguments and outputs of a signature (``array``) or their tensors (``serving_default_array:0``;
    ``:0`` may be omitted). The first signature that has all of them is selected; ``serving_default`` comes
    first. None selects all inputs or outputs of the signature. In TensorFlow 1 models, names may also be
    other nodes of the graph.

    Raises
    ------
    OptionError
        If no signature has all names, or the inputs of the signature are incomplete; the message lists the
        signatures.
    ModelError
        If the model has no signature, or several without a default.
    """
    signatures = _signatures(graph)
    if inputs is None and outputs is None and DEFAULT_SIGNATURE not in signatures and len(signatures) != 1:
        raise ModelError(
            f"The model has no signature {DEFAULT_SIGNATURE!r}; available: {describe_signatures(graph)}. "
            "Pass input= and output=, or save the model with signatures."
        )
    lacking = ""
    for name, signature in signatures.items():
        found_inputs = _match(signature.inputs, inputs)
        found_outputs = _match(signature.outputs, outputs)
        if found_inputs is None or found_outputs is None:
            continue
        if missing := sorted(set(signature.inputs) - set(found_inputs)):
            lacking = f" {name!r} also requires the input {missing[0]!r}."
            continue
        return Selection(name, found_inputs, found_outputs)
    if inputs and outputs and not graph.HasField("object_graph_def"):
        return Selection(None, inputs, outputs)
    requested = [
        f"the {what} {', '.join(map(repr, nodes))}"
        for what, nodes in (("inputs", inputs), ("outputs", outputs))
        if nodes
    ]
    raise OptionError(
        f"No signature of the model has {' and '.join(requested)}.{lacking} Available: "
        f"{describe_signatures(graph)}."
    )


def describe_signatures(graph: Any) -> str:
    """Describe all signatures of a MetaGraph in one line, with the tensors of their inputs and outputs."""
    lines = []
    for name, signature in _signatures(graph).items():
        sides = (
            ", ".join(f"{key} ({info.name})" for key, info in sorted(side.items()))
            for side in (signature.inputs, signature.outputs)
        )
        lines.append(f"{name}: {' -> '.join(sides)}")
    return "; ".join(lines) or "none"


def _signatures(graph: Any) -> dict[str, Any]:
    """Return the signatures that can be called, the default one first."""
    found = {name: signature for name, signature in graph.signature_def.items() if signature.outputs}
    return {
        name: found[name]
        for name in sorted(found, key=lambda name: (name != DEFAULT_SIGNATURE, name))
        if not name.startswith("__saved_model")
    }


def _match(infos: Mapping[str, Any], nodes: Nodes | None) -> dict[str, str] | None:
    """Map names of a signature to the new names of nodes; return None if a node is not found."""
    if nodes is None:
        return {key: key for key in sorted(infos)}
    tensors = {info.name: key for key, info in infos.items()}
    found = {}
    for node, new in nodes.items():
        key = node if node in infos else tensors.get(node, tensors.get(f"{node}:0"))
        if key is None:
            return None
        found[key] = new
    return found
