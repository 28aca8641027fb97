"""Small SavedModels for tests of the server, and their outputs when called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import xee_tf
from tests.optional import optional
from xee_tf.serving.server import Server

tf = optional("tensorflow")


class Scaled(tf.Module):
    """One input, one output and two signatures; versions have different factors."""

    def __init__(self, factor: float) -> None:
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2], tf.float32, "x")])
    def scaled(self, x):
        return {"y": self.factor * x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "n")])
    def less(self, n):
        return {"less": n - 1, "n": n}


class Types(tf.Module):
    """Inputs of several dtypes, and string outputs with and without the suffix ``_bytes``."""

    columns = (
        tf.TensorSpec([None], tf.string, "name"),
        tf.TensorSpec([None], tf.bool, "flag"),
        tf.TensorSpec([None, 2], tf.uint8, "pair"),
        tf.TensorSpec([None], tf.float64, "level"),
    )

    @tf.function(input_signature=columns)
    def __call__(self, name, flag, pair, level):
        return {
            "upper": tf.strings.upper(name),
            "name_bytes": name,
            "not": ~flag,
            "pair": pair,
            "level": level,
        }


class Total(tf.Module):
    """A scalar output."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def __call__(self, x):
        return {"total": tf.reduce_sum(x)}


class Slow(tf.Module):
    """Sleep for a number of seconds, which must not be negative."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "seconds")])
    def __call__(self, seconds):
        tf.debugging.assert_non_negative(seconds, "seconds must not be negative")
        start = tf.timestamp()
        longest = tf.cast(tf.reduce_max(tf.concat([seconds, [0.0]], 0)), tf.float64)
        tf.while_loop(lambda now: now < start + longest, lambda now: [tf.timestamp()], [start])
        return {"slept": tf.identity(seconds)}


class Convolution(tf.Module):
    """A convolution of tiles of any size."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2], tf.float32, "x")])
    def __call__(self, x):
        return {"y": tf.nn.conv2d(x, tf.ones([3, 3, 2, 1]), 1, "SAME")}


def save_scaled(folder: Path, factor: float) -> None:
    module = Scaled(factor)
    tf.saved_model.save(module, folder, {"serving_default": module.scaled, "less": module.less})


def save_models(folder: Path) -> Path:
    """Save a model with two versions, a prepared model, and models without versions."""
    save_scaled(folder / "scaled" / "1", 1.0)
    save_scaled(folder / "scaled" / "2", 2.0)
    xee_tf.prepare_model(folder / "scaled" / "2", folder / "prepared")
    models = {"types": Types(), "total": Total(), "slow": Slow(), "convolution": Convolution()}
    for name, module in models.items():
        tf.saved_model.save(module, folder / name, module.__call__)
    return folder


def call_directly(
    folder: Path, inputs: dict[str, Any], signature: str = "serving_default"
) -> dict[str, np.ndarray]:
    """Return the outputs of a SavedModel that is called in this process."""
    loaded = tf.saved_model.load(str(folder))
    tensors = {name: tf.constant(values) for name, values in inputs.items()}
    return {name: tensor.numpy() for name, tensor in loaded.signatures[signature](**tensors).items()}


def tiles(count: int, seed: int = 0) -> np.ndarray:
    """Create tiles, some of whose values are not finite."""
    values = np.random.default_rng(seed).normal(size=(count, 4, 3, 2)).astype("float32")
    values[0, 0, 0] = np.nan, -np.inf
    return values


def api_url(server: Server, path: str) -> str:
    return f"{server}/v1/{path}"
