"""A published network that predicts cover fractions from Landsat reflectance (package fractionalcover3).

The inputs are five reflectances from 0 to 1 (green, red, near infrared, two short-wave infrareds). The
outputs are the fractions of bare, green and non-green cover.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

BANDS = ("b2", "b3", "b4", "b5", "b7")
FRACTIONS = ("bare", "green", "non_green")

# Example for the network with three layers of 64 units, from its documentation.
REFLECTANCE = np.array([[0.0825, 0.1088, 0.2056, 0.2951, 0.2187]], "float32")
COVER = np.array([[0.1214, 0.2313, 0.6460]])


def network_path(data_dir: Path) -> Path:
    return data_dir / "fractionalcover3" / "pkgdata" / "fcModel_64x64x64.tflite"


def sites_path(data_dir: Path) -> Path:
    return data_dir / "fractionalcover3" / "pkgdata" / "training_data.json"


class TfliteNetwork:
    """The network run by TensorFlow Lite: a function of arrays of shape ``(..., 5)``.

    The interpreter is created by the first call, and is not pickled.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._lock, self._interpreter = Lock(), None

    def __getstate__(self) -> str:
        return self.path

    def __setstate__(self, path: str) -> None:
        self.__init__(Path(path))  # type: ignore[misc]

    def __call__(self, reflectance: npt.NDArray[Any]) -> npt.NDArray[Any]:
        pixels = reflectance.reshape(-1, len(BANDS)).astype("float32", copy=False)
        with self._lock:
            if self._interpreter is None:
                self._interpreter = interpreter_of(self.path)
            index = self._interpreter.get_input_details()[0]["index"]
            self._interpreter.resize_tensor_input(index, pixels.shape)
            self._interpreter.allocate_tensors()
            self._interpreter.set_tensor(index, pixels)
            self._interpreter.invoke()
            cover = self._interpreter.get_tensor(self._interpreter.get_output_details()[0]["index"])
        return cover.reshape(*reflectance.shape[:-1], len(FRACTIONS))


def interpreter_of(path: str | Path) -> Any:
    tf = pytest.importorskip("tensorflow")

    with warnings.catch_warnings():
        # it will be moved to a separate package
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        return tf.lite.Interpreter(str(path))


def as_saved_model(network: Path, path: Path, lead: tuple[int | None, ...] = (None,)) -> Path:
    """Save the network as a SavedModel that maps ``reflectance (*lead, 5)`` to ``cover (*lead, 3)``.

    Parameters
    ----------
    lead : tuple
        ``(None,)`` for rows, ``(None, None, None)`` for tiles.
    """
    tf = pytest.importorskip("tensorflow")

    interpreter = interpreter_of(network)
    interpreter.allocate_tensors()
    tensors = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    matrices = sorted(name for name in tensors if name.endswith("/transpose"))
    module = tf.Module()
    module.layers = [
        (
            tf.Variable(interpreter.get_tensor(tensors[name]).T),
            tf.Variable(interpreter.get_tensor(tensors[name.replace("/ReadVariableOp/transpose", "_bias")])),
        )
        for name in matrices
    ]

    @tf.function(input_signature=[tf.TensorSpec((*lead, len(BANDS)), tf.float32, "reflectance")])
    def predict(reflectance: Any) -> dict[str, Any]:
        values = reflectance
        for number, (matrix, bias) in enumerate(module.layers):
            values = tf.nn.relu(values) if number else values
            values = tf.linalg.matmul(values, matrix) + bias
        return {"cover": values}

    module.predict = predict
    tf.saved_model.save(module, path, signatures=predict)
    return path
