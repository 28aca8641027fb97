"""Which inputs and outputs of a SavedModel are meant: signature arguments, or nodes of its graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xee_tf.connector import DEFAULT_SIGNATURE
from xee_tf.errors import ModelError, OptionError

__all__ = ["Nodes", "NodesLike", "Selection", "read_nodes", "select", "signatures_text"]

Nodes = Mapping[str, str]
"""Inputs or outputs of a model, and what they are to be called."""

NodesLike = str | Sequence[str] | Mapping[str, str] | None


@dataclass(frozen=True)
class Selection:
    """Inputs and outputs of a model that were found.

    Parameters
    ----------
    signature : str or None
        The signature that they belong to. None: nodes of the graph of a TensorFlow 1 model.
    inputs, outputs : mapping from str to str
        Argument or output of the signature (or the node) -> its name from now on.
    """

    signature: str | None
    inputs: Nodes
    outputs: Nodes


def read_nodes(value: NodesLike, name: str) -> Nodes | None:
    """The names and new names that the option ``input`` or ``output`` gives; None if it is not given.

    A string is JSON of such a mapping, or names separated by commas (as ``earthengine model prepare`` takes
    them). A trailing ``:0`` is stripped from new names, as Earth Engine does.

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
                raise OptionError(f"{name} as JSON must be an object of names; got {value!r}.")
    if not isinstance(value, Mapping):
        value = {part: part for part in value}
    parts: list[Any] = [part for pair in value.items() for part in pair]
    if not parts or not all(isinstance(part, str) and part for part in parts):
        raise OptionError(
            f"{name} must map names to names, such as {{'serving_default_array:0': 'array'}}; "
            f"got {dict(value)!r}."
        )
    nodes = {node: new.rpartition(":")[0] or new for node, new in value.items()}
    double = sorted(new for new in set(nodes.values()) if list(nodes.values()).count(new) > 1)
    if double:
        raise OptionError(f"{name} gives the name {double[0]!r} to two nodes; each needs one of its own.")
    return nodes


def select(graph: Any, inputs: Nodes | None, outputs: Nodes | None) -> Selection:
    """Find inputs and outputs in a MetaGraph.

    Names are arguments and outputs of a signature (``array``) or the tensors behind them
    (``serving_default_array:0``; ``:0`` may be left out). The first signature that has all of them is
    taken, ``serving_default`` before the others. What is None stands for all of that signature.
    Only graphs of TensorFlow 1 have nodes that are worth naming beside those; they are taken as given.

    Raises
    ------
    OptionError
        If no signature has them all, or one has inputs that are not named; it lists the signatures.
    ModelError
        If the model has no signature, or several of which none is the default.
    """
    signatures = _signatures(graph)
    if inputs is None and outputs is None and DEFAULT_SIGNATURE not in signatures and len(signatures) != 1:
        found = signatures_text(graph) if signatures else "it has none"
        raise ModelError(
            f"The model has no signature {DEFAULT_SIGNATURE!r}: {found}. Name its inputs and outputs, "
            "or save it with signatures."
        )
    lacking = ""
    for name, signature in signatures.items():
        found_inputs = _match(signature.inputs, inputs)
        found_outputs = _match(signature.outputs, outputs)
        if found_inputs is None or found_outputs is None:
            continue
        if missing := sorted(set(signature.inputs) - set(found_inputs)):
            lacking = f" {name!r} also needs the input {missing[0]!r}."
            continue
        return Selection(name, found_inputs, found_outputs)
    if inputs and outputs and not graph.HasField("object_graph_def"):
        return Selection(None, inputs, outputs)
    asked = [
        f"the {what} {', '.join(map(repr, nodes))}"
        for what, nodes in (("inputs", inputs), ("outputs", outputs))
        if nodes
    ]
    raise OptionError(
        f"No signature of the model has {' and '.join(asked)}.{lacking} Signatures: {signatures_text(graph)}."
    )


def signatures_text(graph: Any) -> str:
    """All signatures of a MetaGraph in one line, with the tensors behind their names."""
    lines = []
    for name, signature in _signatures(graph).items():
        sides = (
            ", ".join(f"{key} ({info.name})" for key, info in sorted(side.items()))
            for side in (signature.inputs, signature.outputs)
        )
        lines.append(f"{name}: {' -> '.join(sides)}")
    return "; ".join(lines) or "none"


def _signatures(graph: Any) -> dict[str, Any]:
    """The signatures that can be called, the default one first."""
    found = {name: signature for name, signature in graph.signature_def.items() if signature.outputs}
    return {
        name: found[name]
        for name in sorted(found, key=lambda name: (name != DEFAULT_SIGNATURE, name))
        if not name.startswith("__saved_model")
    }


def _match(infos: Mapping[str, Any], nodes: Nodes | None) -> dict[str, str] | None:
    """The names of a signature that nodes stand for, and their new ones; None if one is not there."""
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
