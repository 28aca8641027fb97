"""The client with ``mlflow models serve``, which has its own parser for TensorFlow Serving's JSON.

These tests are deselected by default, and need a separate environment with MLflow:

    python -m venv ../mlflow
    ../mlflow/bin/pip install mlflow tensorflow
    XEE_TF_MLFLOW=../mlflow/bin/python pytest -m mlflow
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("requests")

import numpy as np
import requests
import xarray as xr

import xee_tf
from tests.connector_conformance import (
    ConnectorConformance,
    assert_same,
    batch_of,
    in_keras,
    in_numpy,
    in_tensorflow,
)
from xee_tf.connector import Connector, Signature, TensorInfo, connected
from xee_tf.errors import PredictionError
from xee_tf.remote.connector import Fetch, Flow, RemoteConnector
from xee_tf.remote.payloads.json_arrays import encode_elements
from xee_tf.remote.payloads.json_formats import NdArrays, RawJson
from xee_tf.serving.server import serve

pytestmark = [
    pytest.mark.mlflow,
    # Raised when numpy copies variables of Keras.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

START_SECONDS = 120.0
NUMBERS = RawJson(numbers_as_strings=False)
STRINGS = RawJson()
DTYPES = {"box": "float32", "count": "int32"}

SAVE = """
import sys
import keras, mlflow.tensorflow, numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

model = keras.models.load_model(sys.argv[1])
specs = [
    TensorSpec(np.dtype(x.dtype), tuple(-1 if size is None else size for size in x.shape), x.name)
    for x in model.inputs
]
mlflow.tensorflow.save_model(
    model, sys.argv[2], signature=ModelSignature(inputs=Schema(specs)), pip_requirements=[]
)
"""


@dataclass(frozen=True, kw_only=True, repr=False)
class MLflowConnector(RemoteConnector):
    """A connector to MLflow, which has another URL than TensorFlow Serving and no metadata."""

    url: str

    def __str__(self) -> str:
        return f"MLflow {self.url}"

    @property
    def address(self) -> str:
        return f"{self.url}/invocations"

    def fetch_signature(self, fetch: Fetch) -> Signature:
        if self.payload.format == "ND_ARRAYS":
            return Signature(None, {"d": TensorInfo(np.dtype("float32"))})
        return Signature(
            {"a": TensorInfo(), "b": TensorInfo()},
            {name: TensorInfo(np.dtype(dtype)) for name, dtype in DTYPES.items()},
        )


def difference_model() -> Any:
    """A Keras model that subtracts twice the third band from the first, with bands first."""
    keras = pytest.importorskip("keras")

    bands = keras.Input((3, None, None), name="bands")
    weighted = keras.layers.Conv2D(1, 1, use_bias=False, name="d")
    model = keras.Model(bands, weighted(keras.layers.Permute((2, 3, 1))(bands)))
    weighted.set_weights([np.array([1, 0, -2], "float32").reshape(1, 1, 3, 1)])
    return model


@pytest.fixture(scope="module")
def python() -> Path:
    """Path of the Python interpreter with MLflow."""
    name = os.environ.get("XEE_TF_MLFLOW", "")
    if not Path(name).is_file():
        pytest.fail(f"XEE_TF_MLFLOW must be the path of a Python with mlflow and tensorflow; got {name!r}.")
    return Path(name).absolute()


@contextmanager
def mlflow_serving(python: Path, model: Any, folder: Path) -> Iterator[str]:
    """Serve a Keras model with ``mlflow models serve``, and kill all its processes at the end."""
    model.save(folder / "model.keras")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "CUDA_VISIBLE_DEVICES": "-1"}
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    options: dict[str, Any] = {"env": os.environ | quiet | {"PATH": path}, "cwd": folder}
    saving = [python, "-c", SAVE, "model.keras", "served"]
    saved = subprocess.run(saving, capture_output=True, text=True, check=False, **options)
    assert saved.returncode == 0, saved.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        python,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "served",
        "-p",
        str(port),
        "--env-manager",
        "local",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/ping", process, folder / "log")
            yield url
        finally:
            with suppress(ProcessLookupError):  # it has already exited
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    pytest.fail(f"MLflow did not start.\n{log.read_text()}")


@pytest.fixture(scope="module")
def known(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_serving(python, in_keras(), tmp_path_factory.mktemp("known")) as url:
        yield url


class TestMLflow(ConnectorConformance):
    @pytest.fixture
    def connector(self, known: str) -> Connector:
        return MLflowConnector(payload=NUMBERS, url=known)

    @pytest.fixture
    def missing(self, known: str) -> Connector:
        return MLflowConnector(payload=NUMBERS, url=f"{known}/nowhere")


def encode_columns(batch: dict[str, np.ndarray]) -> bytes:
    """Encode a batch as columns, which the client decodes but never sends."""
    columns = {name: encode_elements(array[None])[0].decode() for name, array in batch.items()}
    return '{{"inputs":{{"a":{a},"b":{b}}}}}'.format(**columns).encode()


@pytest.mark.parametrize(
    "body", [NUMBERS.encode, STRINGS.encode, encode_columns], ids=["rows", "strings", "columns"]
)
def test_mlflow_accepts_requests(known: str, body: Any) -> None:
    batch = batch_of(3)
    batch["a"][1, 2, 3] = np.nan
    batch["a"][2, 0, 0] = -np.inf
    response = requests.post(
        f"{known}/invocations", body(batch), headers={"Content-Type": "application/json"}, timeout=60
    )
    assert response.ok, response.text
    assert_same(NUMBERS.decode(response.content, count=3, dtypes=DTYPES), in_numpy(batch))


@pytest.mark.parametrize("body", [NUMBERS.encode, encode_columns], ids=["rows", "columns"])
def test_local_server_equals_mlflow(known: str, tmp_path: Path, body: Any) -> None:
    batch = batch_of(2, seed=1)
    with serve(in_tensorflow(tmp_path / "known")) as server:
        responses = [
            requests.post(url, body(batch), headers={"Content-Type": "application/json"}, timeout=60)
            for url in (f"{known}/invocations", f"{server.url}/v1/models/known:predict")
        ]
    theirs, ours = (NUMBERS.decode(response.content, dtypes=DTYPES) for response in responses)
    assert_same(ours, theirs)


def test_predict_image(known: str) -> None:
    rng = np.random.default_rng(5)
    bands = {name: (("y", "x"), rng.integers(-9, 9, (70, 90)).astype("float32")) for name in ("a", "b", "c")}
    grid = {"y": 5e6 - 30 * np.arange(70.0), "x": 4e5 + 30 * np.arange(90.0)}
    scene = xr.Dataset(bands, grid).rio.write_crs("EPSG:32633").chunk(y=40, x=50)
    options: dict[str, Any] = {
        "inputs": {"a": "a", "b": "b", "c": "b"},
        "inputTileSize": [16, 16],
        "inputOverlapSize": [1, 1],
        "outputBands": {"box": {"type": "float"}, "count": {"type": "int32"}},
    }
    connector = MLflowConnector(payload=NUMBERS, url=known, flow=Flow(max_payload_bytes=20_000))
    model = xee_tf.Model.from_connector(connector, **options)
    expected = xee_tf.Model.from_keras(in_keras(), **options).predict_image(scene).compute()
    xr.testing.assert_identical(model.predict_image(scene).compute(), expected)
    assert model.stats().instances == 30
    assert model.stats().requests > 5


def test_error_message(known: str) -> None:
    connector = MLflowConnector(payload=NUMBERS, url=known)
    batch = batch_of(1, height=1, width=1)
    with pytest.raises(PredictionError, match=r"HTTP 400 Bad Request.*does not match expected shape"):
        connected(connector).predict(batch | {"a": batch["b"]})


def test_nd_arrays(python: Path, tmp_path: Path) -> None:
    model = difference_model()
    rng = np.random.default_rng(3)
    batch = {name: rng.integers(-9, 9, (4, 5, 6, 1)).astype("float32") for name in ("B2", "B3", "B4")}
    with mlflow_serving(python, model, tmp_path) as url:
        connector = MLflowConnector(payload=NdArrays(), url=url)
        found = connected(connector).predict(batch)
    expected = batch["B2"] - 2 * batch["B4"]
    np.testing.assert_array_equal(model(np.stack([band[..., 0] for band in batch.values()], 1)), expected)
    assert_same(found, {"d": expected})
