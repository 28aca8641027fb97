"""Comparison of the outputs of a prepared model with those of the original model."""

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
from xee_tf.remote.payloads import parse_strings, serialize_tensors
from xee_tf.tensors import STRING

with extra("tensorflow", "prepare_model"):
    import tensorflow as tf

__all__ = ["verify"]

_BATCH = 2  # batch size, if the model accepts any
_SIDES = (32, 256, 8, 1)  # lengths to try for unknown dimensions: most networks accept a multiple of 32
_RTOL = 1e-4  # TensorFlow may fold and reorder operations differently in the two graphs


def verify(model: Loaded, folder: str) -> None:
    """Run a model and its prepared copy on the same random input, and compare their outputs.

    The copy runs in TensorFlow 2 and in a TensorFlow 1 session, as in model servers, which restore only the
    variables that the graph itself restores.

    Raises
    ------
    ModelError
        If the model accepts none of the random inputs, or the outputs differ.
    """
    inputs, expected = _run_original(model)
    encoded = {
        node.name: np.array(serialize_tensors(inputs[key]), object) for key, node in model.inputs.items()
    }
    runs: dict[str, Callable[[str, Arrays], Mapping[str, Any]]] = {
        "in a session, as in a model server": _run_in_session,
        "in TensorFlow 2": _run_in_tensorflow_2,
    }
    for where, run in runs.items():
        try:
            outputs = run(folder, encoded)
        except Exception as error:  # TensorFlow raises many types
            raise ModelError(
                f"The prepared model does not run {where}; no model was written. TensorFlow error: "
                f"{tensorflow_message(error)}"
            ) from error
        decoded = parse_strings(outputs)
        for key, node in model.outputs.items():
            _compare(node, expected[key], decoded[node.name], where)


def _run_original(model: Loaded) -> tuple[Arrays, Arrays]:
    """Return random inputs that the model accepts, and its outputs."""
    first_error = ""
    for shapes in _shapes(list(model.inputs.values())):
        generator = np.random.default_rng(0)
        inputs = {
            key: _random(generator, node, shape)
            for (key, node), shape in zip(model.inputs.items(), shapes, strict=True)
        }
        try:
            tensors = {key: tf.constant(array) for key, array in inputs.items()}
            outputs = {key: np.asarray(output) for key, output in model.call(tensors).items()}
        except (tf.errors.OpError, ValueError, TypeError) as error:
            shape = ", ".join(map(str, shapes))
            first_error = first_error or f"shape {shape}: {tensorflow_message(error)}"
            continue
        for key, node in model.outputs.items():
            if outputs[key].ndim == 0 or len(outputs[key]) != shapes[0][0]:
                raise ModelError(
                    f"The output {node.name!r} has the shape {outputs[key].shape} for a batch of "
                    f"{shapes[0][0]}; expected one element for each instance of the batch."
                )
        return inputs, outputs
    raise ModelError(
        "The model cannot be verified, because it accepts none of the random inputs that were tried. To "
        f"prepare it without verification, pass verify=False. The first error was for {first_error}"
    )


def _shapes(nodes: list[Node]) -> Iterator[list[tuple[int, ...]]]:
    """Yield shapes to try, one for each input."""
    batch = next((node.shape[0] for node in nodes if node.shape and node.shape[0]), _BATCH)
    seen = set()
    for side in _SIDES:
        for any_shape in ((), (side,), (side, side, 1)):  # for an unknown number of dimensions
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


def _run_in_session(folder: str, encoded: Arrays) -> Mapping[str, Any]:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        graph = v1.saved_model.load(session, ["serve"], folder)
        signature = graph.signature_def[DEFAULT_SIGNATURE]
        feeds = {signature.inputs[name].name: strings for name, strings in encoded.items()}
        outputs: Mapping[str, Any] = session.run(
            {name: info.name for name, info in signature.outputs.items()}, feeds
        )
        return outputs


def _run_in_tensorflow_2(folder: str, encoded: Arrays) -> Mapping[str, Any]:
    root = tf.saved_model.load(folder)  # the reference keeps the variables alive
    outputs = root.signatures[DEFAULT_SIGNATURE](
        **{name: tf.constant(strings) for name, strings in encoded.items()}
    )
    return {name: output.numpy() for name, output in outputs.items()}


def _compare(node: Node, expected: npt.NDArray[Any], found: npt.NDArray[Any], where: str) -> None:
    same = found.shape == expected.shape and found.dtype == expected.dtype
    if same and expected.dtype.kind in "OSUb":
        same = bool((found == expected).all())
    elif same:
        wide = "complex128" if expected.dtype.kind == "c" else "float64"
        original, prepared = expected.astype(wide), found.astype(wide)
        scale = np.abs(original, where=np.isfinite(original), out=np.zeros(original.shape)).max(initial=0)
        same = np.allclose(prepared, original, rtol=_RTOL, atol=_RTOL * scale, equal_nan=True)
    if not same:
        raise ModelError(
            f"The output {node.name!r} of the prepared model differs from the original {where} (got "
            f"{found.dtype} {found.shape}, expected {expected.dtype} {expected.shape}); no model was "
            "written. If the model uses random numbers, pass verify=False."
        )
