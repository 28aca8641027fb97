"""Connectors of local models."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster

from tests.connector_conformance import (
    ConnectorConformance,
    assert_same,
    batch_of,
    in_keras,
    in_numpy,
)
from tests.onnx_models import known
from tests.optional import RECORD_IMPORTS
from xee_tf.connector import Connector, connected
from xee_tf.errors import MissingModelError, ModelError, PredictionError
from xee_tf.models.function import FunctionConnector
from xee_tf.models.keras import ExportedKerasConnector, KerasConnector, keras_connector
from xee_tf.models.onnx import OnnxBytesConnector, OnnxConnector
from xee_tf.models.saved_model import SavedModelConnector

# Keras converts its variables to numpy arrays in a way that numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def keras_model() -> Any:
    return in_keras()


@pytest.fixture(scope="module")
def keras_file(keras_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "known.keras"
    keras_model.save(path)
    return path


@pytest.fixture(scope="module")
def exported(keras_model: Any) -> ExportedKerasConnector:
    return ExportedKerasConnector.of(keras_model)


class TestSavedModel(ConnectorConformance):
    @pytest.fixture
    def connector(self, known_model: Path) -> Connector:
        return SavedModelConnector.of(known_model)

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Connector:
        return SavedModelConnector.of(tmp_path / "nowhere")


class TestKerasFile(ConnectorConformance):
    @pytest.fixture
    def connector(self, keras_file: Path) -> Connector:
        return KerasConnector.of(keras_file)

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Connector:
        return KerasConnector.of(tmp_path / "nowhere.keras")


class TestLiveKeras(ConnectorConformance):
    @pytest.fixture
    def connector(self, exported: ExportedKerasConnector) -> Connector:
        return exported

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Connector:
        return KerasConnector.of(tmp_path / "nowhere.keras")


class TestOnnxFile(ConnectorConformance):
    """Channels last."""

    @pytest.fixture
    def connector(self, tmp_path: Path) -> Connector:
        pytest.importorskip("onnxruntime")
        (tmp_path / "known.onnx").write_bytes(known("last"))
        return OnnxConnector.of(tmp_path / "known.onnx")

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Connector:
        return OnnxConnector.of(tmp_path / "nowhere.onnx")


class TestOnnxInMemory(ConnectorConformance):
    """Channels first."""

    @pytest.fixture
    def connector(self) -> Connector:
        pytest.importorskip("onnxruntime")
        return OnnxBytesConnector.of(known("first"))

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Connector:
        return OnnxConnector.of(tmp_path / "nowhere.onnx")


def checked(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if unknown := set(batch) - {"a", "b"}:
        raise ValueError(f"unknown: {unknown}")
    if batch["a"].shape[3] != 1:
        raise ValueError(f"a has {batch['a'].shape[3]} channels")
    return in_numpy(batch)


def broken(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    raise OSError("the file of the model does not exist")


class TestFunction(ConnectorConformance):
    @pytest.fixture
    def connector(self) -> Connector:
        return FunctionConnector.of(checked, named=True)

    @pytest.fixture
    def missing(self) -> Connector:
        return FunctionConnector.of(broken, named=True)


# -- Tests of single connectors ------------------------------------------------------------------------


def test_selection_of_a_signature(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    module = tf.Module()
    spec = tf.TensorSpec((None, 2), tf.float32, "x")
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[spec])
    module.halve = tf.function(lambda x: {"y": x / 2}, input_signature=[spec])
    tf.saved_model.save(module, tmp_path, signatures={"double": module.double, "halve": module.halve})
    x = np.ones((3, 2), "float32")
    found = SavedModelConnector.of(tmp_path, "halve").open().predict({"x": x})
    np.testing.assert_array_equal(found["y"], x / 2)
    connector = SavedModelConnector.of(tmp_path)
    for attempt in (connector.open, connector.signature):
        with pytest.raises(ModelError, match=r"no signature 'serving_default'; .*: 'double', 'halve'"):
            attempt()
    with pytest.raises(ModelError, match="'gpu'"):
        SavedModelConnector.of(tmp_path, "halve", "gpu").signature()


def test_module_without_signatures(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    tf.saved_model.save(tf.Module(), tmp_path)
    with pytest.raises(ModelError, match=r"has no signatures.*model\.export"):
        SavedModelConnector.of(tmp_path).open()


def test_keras_model_saved_by_tensorflow(keras_model: Any, tmp_path: Path) -> None:
    """Earth Engine's own tool converts it to a model that fails."""
    tf = pytest.importorskip("tensorflow")

    tf.saved_model.save(keras_model, tmp_path)
    connection = SavedModelConnector.of(tmp_path).open()
    renamed = dict(zip(connection.signature.inputs or (), batch_of(2).values(), strict=True))
    assert_same(connection.predict(renamed), in_numpy(batch_of(2)))


def test_replaced_models_are_reopened(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    def save(factor: float) -> None:
        module = tf.Module()
        module.factor = tf.Variable(factor)
        spec = tf.TensorSpec((None,), tf.float32, "x")
        module.call = tf.function(lambda x: {"y": module.factor * x}, input_signature=[spec])
        tf.saved_model.save(module, tmp_path, signatures=module.call)

    connector = SavedModelConnector.of(tmp_path)
    for factor in (2.0, 3.0):
        save(factor)
        for _ in range(2):
            outputs = connected(connector).predict({"x": np.ones(1, "float32")})
            assert outputs["y"].tolist() == [factor]
            assert connected(connector) is connected(connector)


def test_strings_and_scalars(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    module = tf.Module()
    specs = [tf.TensorSpec((None,), tf.string, "name"), tf.TensorSpec((None,), tf.bool, "loud")]
    module.call = tf.function(
        lambda name, loud: {"greeting": tf.where(loud, tf.strings.upper(name), name)}, input_signature=specs
    )
    tf.saved_model.save(module, tmp_path, signatures=module.call)
    connection = SavedModelConnector.of(tmp_path).open()
    assert connection.signature.inputs is not None
    assert connection.signature.inputs["name"].dtype == object
    found = connection.predict({"name": np.array(["oak", "fir"], object), "loud": np.array([True, False])})
    assert found["greeting"].tolist() == [b"OAK", b"fir"]


def test_saved_model_on_another_filesystem(known_model: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(f"{known_model}/", "/models/known", recursive=True)
    try:
        connector = SavedModelConnector.of("memory://models/known")
        assert connector.signature() == SavedModelConnector.of(known_model).signature()
        assert_same(connected(connector).predict(batch_of(2)), in_numpy(batch_of(2)))
    finally:
        fs.rm("/models", recursive=True)


def test_paths_without_a_model(tmp_path: Path, keras_model: Any) -> None:
    file = tmp_path / "known.keras"
    keras_model.save(file)
    keras_model.export(tmp_path / "versions" / "1", verbose=False)
    cases = {
        "nowhere": "not exist",
        "known.keras": "Keras file",
        "versions": "version 1",
        "versions/1/saved_model.pb": "folder",
    }
    for name, message in cases.items():
        with pytest.raises(ModelError, match=message) as caught:
            SavedModelConnector.of(tmp_path / name).signature()
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(MissingModelError, match=r"Keras file at .*nowhere\.h5: the path does not exist"):
        keras_connector(tmp_path / "nowhere.h5").open()
    with pytest.raises(ModelError, match="from_saved_model"):
        keras_connector(tmp_path / "versions" / "1").open()
    (tmp_path / "text.keras").write_text("not a model")
    with pytest.raises(ModelError, match=r"text\.keras"):
        keras_connector(tmp_path / "text.keras").open()
    with pytest.raises(ModelError, match="from_function"):
        keras_connector(np.sum)


def test_keras_h5(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")

    box = keras.layers.Conv2D(1, 3, padding="same", use_bias=False, kernel_initializer="ones")
    keras.Sequential([keras.Input((None, None, 1), name="a"), box]).save(tmp_path / "box.h5")
    connection = KerasConnector.of(tmp_path / "box.h5").open()
    ((_, found),) = connection.predict({"a": batch_of(2)["a"]}).items()
    np.testing.assert_array_equal(found, in_numpy(batch_of(2))["box"])


def test_errors_of_the_graph(known_model: Path) -> None:
    connection = connected(SavedModelConnector.of(known_model))
    with pytest.raises(PredictionError, match=r"assertion|[Cc]ondition") as caught:
        connection.predict(batch_of(2) | {"b": batch_of(2, height=9)["b"]})
    assert len(str(caught.value)) < 700
    assert_same(connection.predict(batch_of(2)), in_numpy(batch_of(2)))


def test_subclassed_keras_model() -> None:
    keras = pytest.importorskip("keras")

    class Sum(keras.Model):
        def call(self, x: Any) -> Any:
            return keras.ops.sum(x, -1, keepdims=True)

    with pytest.raises(ModelError, match="Build it first"):
        keras_connector(Sum())
    model = Sum()
    x = np.ones((2, 3, 3, 4), "float32")
    model(x)
    connection = keras_connector(model).open()
    (name,) = connection.signature.inputs or {}
    ((_, found),) = connection.predict({name: x}).items()
    np.testing.assert_array_equal(found, x.sum(-1, keepdims=True))


def test_retrained_keras_model(keras_model: Any) -> None:
    keras = pytest.importorskip("keras")

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    first = ExportedKerasConnector.of(model)
    model.set_weights([np.full((1, 1), 5.0), np.zeros(1)])
    second = ExportedKerasConnector.of(model)
    assert first != second
    values = []
    for connector in (first, second):
        (name,) = connector.signature().inputs or {}
        ((_, found),) = connected(connector).predict({name: np.ones((1, 1), "float32")}).items()
        values.append(found.item())
    assert values == [1, 5]


class Stateful:
    """A function with a state that is created by its first call and not pickled."""

    def __init__(self) -> None:
        self.state: list[int] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"state": []}

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        if not self.state:
            self.state.append(1)
        return np.full(pixels.shape[:-1], len(self.state))


def test_function_keeps_its_state() -> None:
    connector = FunctionConnector.of(Stateful())
    for _ in range(3):
        outputs = connected(connector).predict({"pixels": np.zeros((1, 2, 2, 3))})
        assert outputs["output"].max() == 1


def test_functions_that_cannot_be_pickled_or_called(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file, pytest.raises(ModelError, match=r"cannot be pickled.*lazily"):
        FunctionConnector.of(lambda pixels: file.write("x"))
    with pytest.raises(ModelError, match="must be callable; got 3"):
        FunctionConnector.of(3)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="named=True"):
        FunctionConnector.of(np.sum).open().predict({"B4": np.zeros(1)})


EXPECTED = r"expected an array .*\(n, y, x\) or \(n, y, x, channel\).*Return such an array or.*mapping"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None; "),
        ("forest", r"returned 'forest' \(str\); "),
        (3.5, r"returned 3\.5 \(float\); "),
        ((np.zeros((1, 2, 2)), np.zeros((1, 2, 2))), "returned a tuple of ndarray, ndarray; "),
        ((), "returned a tuple of no elements; "),
        ([[1.0], [1.0, 2.0]], r"returned \[\[1\.0\], \[1\.0, 2\.0\]\] \(list\) \(ValueError: .*\); "),
        ({"p": None}, "returned None for the output 'p'; "),
        ({"p": "forest"}, r"returned 'forest' \(str\) for the output 'p'; "),
    ],
)
def test_functions_that_do_not_return_arrays(returned: Any, message: str) -> None:
    def function(tiles: np.ndarray) -> Any:
        return returned

    connection = FunctionConnector.of(function).open()
    with pytest.raises(PredictionError, match=f"The function .*function {message}{EXPECTED}"):
        connection.predict({"pixels": np.zeros((1, 2, 2, 3))})


def test_functions_may_return_nested_lists() -> None:
    connection = FunctionConnector.of(lambda rows: rows.tolist()).open()
    assert connection.predict({"pixels": np.ones((2, 1))})["output"].tolist() == [[1], [1]]


def test_memory_does_not_grow(known_model: Path) -> None:
    connection = connected(SavedModelConnector.of(known_model))
    process = psutil.Process()
    batch = batch_of(4, height=64, width=64)

    def run(times: int) -> int:
        for _ in range(times):
            connection.predict(batch)
        return int(process.memory_info().rss)

    before = run(100)
    # A leak would keep 94 MB of inputs and 31 MB of outputs of the 2,000 tiles.
    assert run(500) - before < 8 << 20


def _predict(connector: Connector, seed: int, height: int = 7) -> dict[str, np.ndarray]:
    batch = batch_of(2, seed)
    return connected(connector).predict(batch | {"b": batch_of(2, seed, height)["b"]})


def _connection_id(connector: Connector) -> int:
    return id(connected(connector))


def test_loaded_once_in_each_process_of_a_cluster(known_model: Path) -> None:
    connector = SavedModelConnector.of(known_model)
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        opened = client.run(_connection_id, connector)
        seeds = range(16)
        workers = list(client.scheduler_info()["workers"])
        found = client.gather(
            [client.submit(_predict, connector, seed, workers=[workers[seed % 2]]) for seed in seeds]
        )
        for seed, outputs in zip(seeds, found, strict=True):
            assert_same(outputs, in_numpy(batch_of(2, seed)))
        failed = client.submit(_predict, connector, 0, 9)
        with pytest.raises(PredictionError):
            failed.result()
        assert client.run(_connection_id, connector) == opened


def test_tensorflow_is_not_imported_before_it_is_needed(known_model: Path) -> None:
    code = """
        import numpy as np
        import xee_tf
        model = xee_tf.Model.from_saved_model("somewhere", inputTileSize=[64, 64])
        repr(model), model._repr_html_()
        repr(xee_tf.Model.from_onnx("somewhere.onnx"))
        total = xee_tf.Model.from_function(np.sum, output_bands=["sum"])
        known = xee_tf.Model.from_saved_model(sys.argv[1])
        assert "a: float32 (?, ?, ?, 1)" in repr(known) and "a: float32" in known._repr_html_()
        assert "xarray" in Recorder.names and not {"tensorflow", "keras", "onnxruntime"} & Recorder.names
        assert known.connector.signature() == known.connector.known_signature()
        assert not {"tensorflow", "keras"} & set(sys.modules)
    """
    code = RECORD_IMPORTS + textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", code, str(known_model)], check=True, timeout=120)
