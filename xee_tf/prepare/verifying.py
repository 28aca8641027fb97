"""Whether a prepared model answers as the model that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import DEFAULT_SIGNATURE, Arrays
from xee_tf.errors import ModelError
from xee_tf.extras import extra
from xee_tf.models import tensorflow_message
from xee_tf.prepare.wrapping import Loaded, Node
from xee_tf.remote.payloads import parse_strings, serialise_tensors
from xee_tf.tensors import STRING

with extra("tensorflow", "prepare_model"):
    import tensorflow as tf

__all__ = ["verify"]

_BATCH = 2  # instances sent, where the model leaves it open
_SIDES = (32, 256, 8, 1)  # lengths tried for open dimensions: most networks take a multiple of 32
_RTOL = 1e-4  # TensorFlow may fold and order operations differently in the two graphs


def verify(model: Loaded, folder: str) -> None:
    """Run a model and its prepared copy on the same random input.

    The copy runs in a session of its own, as model servers run it (other than TensorFlow 2 they take
    nothing but what the graph itself restores), and in TensorFlow 2.

    Raises
    ------
    ModelError
        If the model takes none of the inputs that were tried, or the answers differ.
    """
    inputs, expected = _answers(model)
    encoded = {
        node.name: np.array(serialise_tensors(inputs[key]), object) for key, node in model.inputs.items()
    }
    runs: dict[str, Callable[[str, Arrays], Mapping[str, Any]]] = {
        "as a model server runs it": _in_session,
        "in TensorFlow 2": _in_tensorflow_2,
    }
    for where, run in runs.items():
        try:
            answers = run(folder, encoded)
        except Exception as error:  # whatever TensorFlow raises
            raise ModelError(
                f"The prepared model does not run {where}; nothing was written. "
                f"TensorFlow says: {tensorflow_message(error)}"
            ) from error
        decoded = parse_strings(answers)
        for key, node in model.outputs.items():
            _compare(node, expected[key], decoded[node.name], where)


def _answers(model: Loaded) -> tuple[Arrays, Arrays]:
    """Random input that the model takes, and what it answers."""
    refused = ""
    for shapes in _shapes(list(model.inputs.values())):
        generator = np.random.default_rng(0)
        inputs = {
            key: _random(generator, node, shape)
            for (key, node), shape in zip(model.inputs.items(), shapes, strict=True)
        }
        try:
            tensors = {key: tf.constant(array) for key, array in inputs.items()}
            answers = {key: np.asarray(answer) for key, answer in model.call(tensors).items()}
        except (tf.errors.OpError, ValueError, TypeError) as error:
            refused = refused or f"shape {', '.join(map(str, shapes))}: {tensorflow_message(error)}"
            continue
        for key, node in model.outputs.items():
            if answers[key].ndim == 0 or len(answers[key]) != shapes[0][0]:
                raise ModelError(
                    f"The output {node.name!r} has the shape {answers[key].shape} for a batch of "
                    f"{shapes[0][0]}: a prepared model needs one element for each instance."
                )
        return inputs, answers
    raise ModelError(
        "The model cannot be verified, because it takes no random input of the shapes that were tried; "
        f"verify=False prepares it nevertheless. It refused {refused}"
    )


def _shapes(nodes: list[Node]) -> Iterator[list[tuple[int, ...]]]:
    """Shapes to try, one for each input."""
    batch = next((node.shape[0] for node in nodes if node.shape and node.shape[0]), _BATCH)
    seen = set()
    for side in _SIDES:
        for any_shape in ((), (side,), (side, side, 1)):  # where not even the number of dimensions is known
            shapes = [
                (batch, *(any_shape if node.shape is None else (size or side for size in node.shape[1:])))
                for node in nodes
            ]
            if str(shapes) not in seen:
                seen.add(str(shapes))
                yield shapes


def _random(generator: np.random.Generator, node: Node, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if node.kind is STRING:
        return generator.integers(0, 10, shape).astype("S1").astype(object)
    dtype = node.kind.dtype
    if dtype.kind in "iub":
        return generator.integers(0, 2 if dtype.kind == "b" else 10, shape).astype(dtype)
    return generator.random(shape).astype(dtype)


def _in_session(folder: str, encoded: Arrays) -> Mapping[str, Any]:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        graph = v1.saved_model.load(session, ["serve"], folder)
        signature = graph.signature_def[DEFAULT_SIGNATURE]
        feeds = {signature.inputs[name].name: strings for name, strings in encoded.items()}
        answers: Mapping[str, Any] = session.run(
            {name: info.name for name, info in signature.outputs.items()}, feeds
        )
        return answers


def _in_tensorflow_2(folder: str, encoded: Arrays) -> Mapping[str, Any]:
    root = tf.saved_model.load(folder)  # variables live as long as it does
    answers = root.signatures[DEFAULT_SIGNATURE](
        **{name: tf.constant(strings) for name, strings in encoded.items()}
    )
    return {name: answer.numpy() for name, answer in answers.items()}


def _compare(node: Node, expected: npt.NDArray[Any], answer: npt.NDArray[Any], where: str) -> None:
    same = answer.shape == expected.shape and answer.dtype == expected.dtype
    if same and expected.dtype.kind in "OSUb":
        same = bool((answer == expected).all())
    elif same:
        wide = "complex128" if expected.dtype.kind == "c" else "float64"
        known, found = expected.astype(wide), answer.astype(wide)
        scale = np.abs(known, where=np.isfinite(known), out=np.zeros(known.shape)).max(initial=0)
        same = np.allclose(found, known, rtol=_RTOL, atol=_RTOL * scale, equal_nan=True)
    if not same:
        raise ModelError(
            f"The prepared model does not answer as the original {where}: output {node.name!r} differs "
            f"({answer.dtype} {answer.shape}, expected {expected.dtype} {expected.shape}); "
            "nothing was written. A model that draws random numbers can be prepared with verify=False."
        )
