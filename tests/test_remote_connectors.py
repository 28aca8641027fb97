"""Models on servers: connector conformance for every protocol and format, whole predictions, and options."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xee_tf
from tests.connector_conformance import ConnectorConformance, assert_same, batch_of, in_numpy
from xee_tf.connector import Connector, connected
from xee_tf.errors import MissingModelError, ModelError, OptionError, PredictionError
from xee_tf.models.hosted import HOSTED_SPELLING
from xee_tf.serving.server import Server, serve

ENDPOINT = "projects/forest/locations/europe-west4/endpoints/"


@pytest.fixture(scope="module")
def server(known_models: Path) -> Iterator[Server]:
    with serve(known_models) as server:
        yield server


# -- Conformance ---------------------------------------------------------------------------------------


class Remote(ConnectorConformance):
    """Base class for connectors to the local server; ``name`` is the name of the model on it."""

    name = "known"

    def make(self, server: Server, name: str) -> xee_tf.Model:
        raise NotImplementedError

    @pytest.fixture
    def connector(self, server: Server) -> Connector:
        return self.make(server, self.name).connector

    @pytest.fixture
    def missing(self, server: Server) -> Connector:
        return self.make(server, "nowhere").connector


class TestServingRest(Remote):
    def make(self, server: Server, name: str) -> xee_tf.Model:
        return xee_tf.Model.from_tf_serving(server.url, name)


class TestServingRestPrepared(Remote):
    name = "prepared"

    def make(self, server: Server, name: str) -> xee_tf.Model:
        return xee_tf.Model.from_tf_serving(server.url, name, payload_format="SERIALIZED_TF_TENSORS")


class TestServingGrpc(Remote):
    def make(self, server: Server, name: str) -> xee_tf.Model:
        return xee_tf.Model.from_tf_serving(server.grpc, name, transport="grpc")


class TestServingGrpcPrepared(Remote):
    name = "prepared"

    def make(self, server: Server, name: str) -> xee_tf.Model:
        return xee_tf.Model.from_tf_serving(
            server.grpc, name, transport="grpc", payload_format="GRPC_SERIALIZED_TF_TENSORS"
        )


class TestVertexPredict(Remote):
    name = "prepared"

    def make(self, server: Server, name: str) -> xee_tf.Model:
        return xee_tf.Model.from_vertex_ai(ENDPOINT + name, base_url=server.url, credentials=None)


class TestVertexRawPredict(Remote):
    def make(self, server: Server, name: str) -> xee_tf.Model:
        return xee_tf.Model.from_vertex_ai(
            ENDPOINT + name,
            base_url=server.url,
            credentials=None,
            payload_format="GRPC_TF_TENSORS",
            route="rawPredict",
        )


class TestVertexGrpc(Remote):
    def make(self, server: Server, name: str) -> xee_tf.Model:
        return xee_tf.Model.from_vertex_ai(
            ENDPOINT + name,
            base_url=f"http://{server.grpc}",
            credentials=None,
            payload_format="GRPC_TF_TENSORS",
        )


class TestVertexGrpcPrepared(Remote):
    name = "prepared"

    def make(self, server: Server, name: str) -> xee_tf.Model:
        return xee_tf.Model.from_vertex_ai(
            ENDPOINT + name,
            base_url=f"http://{server.grpc}",
            credentials=None,
            payload_format="GRPC_SERIALIZED_TF_TENSORS",
        )


class TestAIPlatform(Remote):
    name = "prepared"

    def make(self, server: Server, name: str) -> xee_tf.Model:
        return xee_tf.Model.from_ai_platform_predictor("forest", name, base_url=server.url)


# -- Whole predictions ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene() -> xr.Dataset:
    rng = np.random.default_rng(5)
    grid = {"y": 5e6 - 30 * np.arange(70.0), "x": 4e5 + 30 * np.arange(90.0)}
    bands = {
        name: (("y", "x"), rng.integers(-9, 9, (70, 90)).astype("float32")) for name in ("a", "b1", "b2")
    }
    bands["a"][1][10:20, 30:40] = np.nan
    return xr.Dataset(bands, grid).rio.write_crs("EPSG:32633").chunk(y=40, x=50)


OPTIONS: dict[str, Any] = {
    "inputs": {"a": "a", "b1": "b", "b2": "b"},
    "inputTileSize": [16, 16],
    "inputOverlapSize": [1, 1],
    "outputBands": {"box": {"type": "float"}, "count": {"type": "int32"}},
}


def test_predict_image_equals_local_model(server: Server, known_models: Path, scene: xr.Dataset) -> None:
    expected = xee_tf.Model.from_saved_model(known_models / "known", **OPTIONS).predict_image(scene).compute()
    vertex = {"endpoint": ENDPOINT + "prepared", "base_url": server.url, "credentials": None}
    plain = vertex | {"endpoint": ENDPOINT + "known"}
    found = {
        "rest": xee_tf.Model.from_tf_serving(server.url, "known", **OPTIONS),
        "grpc": xee_tf.Model.from_tf_serving(server.grpc, "known", transport="grpc", **OPTIONS),
        "vertex": xee_tf.Model.fromVertexAi(**vertex, maxPayloadBytes=20_000, **OPTIONS),
        "json": xee_tf.Model.from_vertex_ai(
            **plain, payload_format="RAW_JSON", numbers_as_strings=False, **OPTIONS
        ),
        "signature": xee_tf.Model.from_vertex_ai(
            **plain,
            payload_format="RAW_JSON",
            numbers_as_strings=False,
            signature_name="serving_default",
            **OPTIONS,
        ),
        "legacy": xee_tf.Model.fromAiPlatformPredictor(
            projectId="forest", modelName="prepared", version="v1", base_url=server.url, **OPTIONS
        ),
    }
    for name, model in found.items():
        before = model.stats().instances
        predicted = model.predict_image(scene).compute()
        xr.testing.assert_identical(predicted, expected)
        assert model.stats().instances - before == 30, name


def test_b64_sends_tensor_protos(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    module = tf.Module()
    spec = tf.TensorSpec((None,), tf.string, "x")

    def double(x: Any) -> Any:
        values = tf.map_fn(lambda one: tf.io.parse_tensor(one, tf.float32), x, fn_output_signature=tf.float32)
        return {"twice": tf.map_fn(tf.io.serialize_tensor, 2 * values, fn_output_signature=tf.string)}

    module.call = tf.function(double, input_signature=[spec])
    tf.saved_model.save(module, tmp_path / "protos", signatures=module.call)
    x = np.arange(6, dtype="float32").reshape(2, 3)
    with serve(tmp_path / "protos") as server:
        model = xee_tf.Model.from_tf_serving(
            server.grpc, "protos", transport="grpc", payload_format="GRPC_SERIALIZED_TF_TENSORS", b64=True
        )
        np.testing.assert_array_equal(connected(model.connector).predict({"x": x})["twice"], 2 * x)


EARTH_ENGINE = """
import argparse, sys
from ee.cli.commands import PrepareModelCommand
parser = argparse.ArgumentParser()
command = PrepareModelCommand(parser)
command.run(parser.parse_args(sys.argv[1:]), None)
"""


def test_model_prepared_by_earth_engine(known_models: Path, tmp_path: Path, scene: xr.Dataset) -> None:
    """Earth Engine's own command, in a separate process because it disables TensorFlow 2."""
    arguments = [
        f"--source_dir={known_models / 'known'}",
        f"--dest_dir={tmp_path / 'theirs'}",
        '--input={"serving_default_a:0": "a", "serving_default_b:0": "b"}',
        '--output={"StatefulPartitionedCall:0": "box", "StatefulPartitionedCall:1": "count"}',
    ]
    run = subprocess.run(
        [sys.executable, "-c", EARTH_ENGINE, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    expected = xee_tf.Model.from_saved_model(known_models / "known", **OPTIONS).predict_image(scene).compute()
    with serve(tmp_path / "theirs") as server:
        for url, payload_format in (
            (server.url, "SERIALIZED_TF_TENSORS"),
            (f"http://{server.grpc}", "GRPC_SERIALIZED_TF_TENSORS"),
        ):
            model = xee_tf.Model.fromVertexAi(
                ENDPOINT + "theirs", base_url=url, credentials=None, payloadFormat=payload_format, **OPTIONS
            )
            xr.testing.assert_identical(model.predict_image(scene).compute(), expected)


def test_nd_arrays_send_bands_first(tmp_path: Path, scene: xr.Dataset) -> None:
    tf = pytest.importorskip("tensorflow")

    module = tf.Module()
    spec = tf.TensorSpec((None, 3, None, None), tf.float32, "bands")
    module.call = tf.function(lambda bands: {"d": bands[:, 0] - 2 * bands[:, 2]}, input_signature=[spec])
    tf.saved_model.save(module, tmp_path / "torchlike", signatures=module.call)
    with serve(tmp_path / "torchlike") as server:
        model = xee_tf.Model.fromVertexAi(
            ENDPOINT + "torchlike",
            base_url=server.url,
            credentials=None,
            payloadFormat="ND_ARRAYS",
            inputTileSize=[16, 16],
            outputBands={"d": {"type": "float", "dimensions": 0}},
        )
        found = model.predict_image(scene, merge=False)["d"].compute()
    np.testing.assert_array_equal(found, scene.a - 2 * scene.b2)


def test_predict_properties_with_examples(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    module = tf.Module()
    features = {name: tf.io.FixedLenFeature((), tf.float32) for name in ("red", "nir")}

    def ndvi(examples: Any) -> Any:
        found = tf.io.parse_example(examples, features)
        return {"ndvi": (found["nir"] - found["red"]) / (found["nir"] + found["red"])}

    spec = tf.TensorSpec((None,), tf.string, "input")
    module.call = tf.function(ndvi, input_signature=[spec])
    tf.saved_model.save(module, tmp_path / "examples", signatures=module.call)
    table = pd.DataFrame({"red": [0.1, 0.2, 0.3], "nir": [0.4, 0.4, 0.5]})
    with serve(tmp_path / "examples") as server:
        model = xee_tf.Model.from_vertex_ai(
            ENDPOINT + "examples",
            base_url=f"http://{server.grpc}",
            credentials=None,
            payloadFormat="GRPC_SERIALIZED_TF_EXAMPLES",
            outputProperties={"ndvi": {"type": "float"}},
        )
        found = model.predict_properties(table)
    np.testing.assert_allclose(found.ndvi, (table.nir - table.red) / (table.nir + table.red), rtol=1e-6)


def test_versions_labels_and_signatures(known_models: Path, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    for version in (1, 2):
        module = tf.Module()
        spec = tf.TensorSpec((None,), tf.float32, "x")
        module.scale = tf.function(lambda x, by=float(version): {"y": by * x}, input_signature=[spec])
        module.shift = tf.function(lambda x, by=float(version): {"y": by + x}, input_signature=[spec])
        signatures = {"serving_default": module.scale, "shift": module.shift}
        tf.saved_model.save(module, tmp_path / "m" / str(version), signatures=signatures)
    x = np.array([10.0, 20.0], "float32")
    with serve(tmp_path / "m", name="m", labels={"stable": 1}) as server:

        def predict(**options: Any) -> list[float]:
            found = [
                connected(xee_tf.Model.from_tf_serving(url, "m", transport=transport, **options).connector)
                for url, transport in ((server.url, "rest"), (server.grpc, "grpc"))
            ]
            rest, grpc = (connection.predict({"x": x})["y"].tolist() for connection in found)
            assert rest == grpc
            return rest

        assert predict() == [20, 40]
        assert predict(version=1) == [10, 20]
        assert predict(label="stable") == [10, 20]
        assert predict(version=1, signature_name="shift") == [11, 21]
        for url, transport in ((server.url, "rest"), (server.grpc, "grpc")):
            unknown = SERVING(url, "m", signature_name="turn", transport=transport)
            with pytest.raises(ModelError, match=r"'turn'; available: 'serving_default', 'shift'\."):
                unknown.connector.signature()
            for wrong in ({"version": 7}, {"label": "canary"}):
                model = xee_tf.Model.from_tf_serving(url, "m", transport=transport, **wrong)
                with pytest.raises(ModelError, match="'m'") as caught:
                    model.connector.signature()
                assert isinstance(caught.value, MissingModelError) == ("version" in wrong)


def test_unprepared_model_is_an_error(server: Server) -> None:
    for url, transport, prefix in ((server.url, "rest", ""), (server.grpc, "grpc", "GRPC_")):
        model = xee_tf.Model.from_tf_serving(
            url, "known", transport=transport, payload_format=prefix + "SERIALIZED_TF_TENSORS"
        )
        with pytest.raises(ModelError, match=r"a: float32.*prepare_model.*payload_format="):
            model.connector.signature()


def test_unreachable_server_fails_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("requests")
    monkeypatch.setattr("xee_tf.remote.connector._SIGNATURE_SECONDS", 0.5)
    for url, transport in (("http://127.0.0.1:1", "rest"), ("127.0.0.1:1", "grpc")):
        model = xee_tf.Model.from_tf_serving(url, "known", transport=transport)
        with pytest.raises(ModelError, match=r"127\.0\.0\.1:1.*refused"):
            model.connector.signature()


def test_fixed_batch_size(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    module = tf.Module()
    spec = tf.TensorSpec((4, 8, 8, 1), tf.float32, "a")
    module.call = tf.function(lambda a: {"b": a + 1}, input_signature=[spec])
    tf.saved_model.save(module, tmp_path / "four", signatures=module.call)
    image = xr.Dataset(
        {"a": (("y", "x"), np.arange(40 * 24, dtype="float32").reshape(40, 24))},
        {"y": -np.arange(40.0), "x": np.arange(24.0)},
    ).rio.write_crs("EPSG:32633")
    with serve(tmp_path / "four") as server:
        model = xee_tf.Model.from_tf_serving(server.grpc, "four", transport="grpc", max_payload_bytes=1200)
        plan = model.plan(image, skip_masked=False)
        np.testing.assert_array_equal(model.predict_image(image, skip_masked=False).b, image.a + 1)
        stats = model.stats()
        assert plan.exact
        assert (plan.batches, plan.requests, plan.sent) == (stats.requests, stats.requests, stats.bytes_sent)
        assert 4 * plan.requests == stats.instances > plan.tiles
        small = xee_tf.Model.from_tf_serving(server.grpc, "four", transport="grpc", max_payload_bytes=1000)
        with pytest.raises(OptionError, match=r"a request with 4 instances takes 1,\d+ bytes"):
            small.predict_image(image)


# -- Options -------------------------------------------------------------------------------------------


def test_earth_engine_names_are_accepted() -> None:
    ee = pytest.importorskip("ee")

    for theirs, ours in (
        (ee.Model.fromVertexAi, xee_tf.Model.fromVertexAi),
        (ee.Model.fromAiPlatformPredictor, xee_tf.Model.fromAiPlatformPredictor),
    ):
        known = inspect.signature(ours).parameters
        for name in inspect.signature(theirs).parameters:
            snake = re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name)
            assert HOSTED_SPELLING.aliases.get(name, snake) in known


def test_earth_engine_calls() -> None:
    pytest.importorskip("grpc")
    pytest.importorskip("requests")
    pytest.importorskip("google.auth")
    model = xee_tf.Model.fromVertexAi(
        endpoint=ENDPOINT + "123",
        inputTileSize=[8, 8],
        inputOverlapSize=[2, 2],
        proj={"type": "Projection", "crs": "EPSG:4326", "transform": [1, 0, 0, 0, -1, 0]},
        fixInputProj=True,
        outputBands={"p": {"type": "float", "dimensions": 1}},
        outputMultiplier=2,
        maxPayloadBytes=5242880,
        payloadFormat="GRPC_SERIALIZED_TF_EXAMPLES",
    )
    assert model.connector.flow.request_bytes == 2621440
    assert model.connector.payload.format == "GRPC_TF_EXAMPLES"
    assert model.connector.address == "/google.cloud.aiplatform.v1.PredictionService/DirectRawPredict"
    assert "europe-west4-aiplatform.googleapis.com" in model.connector.base_url
    assert pickle.loads(pickle.dumps(model)) == model
    assert ENDPOINT + "123" in repr(model)
    legacy = xee_tf.Model.fromAiPlatformPredictor(
        projectName="forest", modelName="m", version="v2", region="europe-west4", base_url="https://ml.test"
    )
    assert legacy.connector.address == "https://ml.test/v1/projects/forest/models/m/versions/v2:predict"
    default = xee_tf.Model.from_vertex_ai(ENDPOINT + "123").connector
    assert default.payload.format == "SERIALIZED_TF_TENSORS"
    assert default.flow.max_payload_bytes == 1_500_000
    assert default.credentials == "google"


SERVING, VERTEX = xee_tf.Model.from_tf_serving, xee_tf.Model.from_vertex_ai
LEGACY = xee_tf.Model.from_ai_platform_predictor


@pytest.mark.parametrize(
    ("make", "arguments", "options", "message"),
    [
        (SERVING, ("localhost:8501", "m"), {}, r"REST.*transport='grpc'; .*'http://localhost:8501'\."),
        (SERVING, ("models:8501/a?key=hunter2", "m"), {}, "query"),
        (SERVING, ("grpc://models", "m"), {}, "transport='grpc'"),
        (SERVING, ("ftp://models", "m"), {}, "'ftp'.*https, http"),
        (SERVING, ("http://", "m"), {}, "address"),
        (SERVING, ("http://models:x", "m"), {}, "port"),
        (SERVING, ("http://models/?key=3", "m"), {}, "query"),
        (SERVING, ("http://mod els", "m"), {}, "address"),
        (SERVING, ("models/path", "m"), {"transport": "grpc"}, "cannot have a path"),
        (SERVING, ("http://models", ""), {}, "model must be the name"),
        (SERVING, ("http://models", "m"), {"transport": "soap"}, "soap"),
        (SERVING, ("http://models", "m"), {"version": 1, "label": "x"}, "cannot be combined"),
        (SERVING, ("http://models", "m"), {"version": "newest"}, "label="),
        (SERVING, ("http://models", "m"), {"payload_format": "GRPC_TF_TENSORS"}, "GRPC_TF_TENSORS"),
        (SERVING, ("http://models", "m"), {"payload_format": "XML"}, "RAW_JSON"),
        (SERVING, ("http://models", "m"), {"max_payload_bytes": 0}, "max_payload_bytes.*at least 1"),
        (SERVING, ("http://models", "m"), {"max_concurrency": 1.5}, "max_concurrency"),
        (SERVING, ("http://models", "m"), {"deadline": -1}, "deadline.*above 0"),
        (SERVING, ("http://models", "m"), {"b64": "yes"}, "b64.*True or False"),
        (SERVING, ("http://models", "m"), {"numbers_as_strings": 1}, "numbers_as_strings.*True or False"),
        (SERVING, ("http://models", "m"), {"credentials": "google"}, "without TLS"),
        (SERVING, ("http://models", "m"), {"inputTileSise": 3}, "inputTileSise"),
        (SERVING, ("http://models", "m"), {"max_retries": 3}, "max_retries: .*deadline="),
        (SERVING, ("http://models", "m"), {"maxRetries": 3}, "maxRetries: .*deadline="),
        (SERVING, ("http://models", "m"), {"project_id": "x"}, "project_id"),
        (VERTEX, ("123",), {}, "projects/PROJECT/locations/REGION/endpoints/ID"),
        (VERTEX, ("projects/p/locations/evil.test#/endpoints/1",), {}, "full name"),
        (VERTEX, (ENDPOINT + "1",), {"base_url": "http://dedicated.test"}, "without TLS"),
        (VERTEX, (ENDPOINT + "1",), {"base_url": "x.test"}, "start with http:// or https://; got"),
        (VERTEX, (ENDPOINT + "1",), {"route": "grpc"}, "SERIALIZED_TF_TENSORS.*route='grpc'"),
        (VERTEX, (ENDPOINT + "1",), {"route": "predict", "signature_name": "x"}, "rawPredict"),
        (VERTEX, (ENDPOINT + "1",), {"maxPayloadBytes": 9, "max_payload_bytes": 9}, "twice"),
        (LEGACY, ("p", "m"), {}, r"discontinued on January 31, 2025.*from_vertex_ai.*base_url"),
        (LEGACY, ("p", "m"), {"region": "global", "base_url": "https://x.test"}, "deployed to.*global"),
        (LEGACY, ("p", "m/../n"), {"base_url": "https://x.test"}, "model_name"),
        (
            LEGACY,
            ("p", "m"),
            {"base_url": "https://x.test", "payload_format": "GRPC_TF_TENSORS"},
            "only supports JSON",
        ),
    ],
)
def test_invalid_options(make: Any, arguments: tuple[Any, ...], options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make(*arguments, **options)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_errors_do_not_repeat_secrets(transport: Any) -> None:
    for url in ("http://user:hunter2@models", "http://hunter2@models", "http://[hunter2", "http:hunter2@x"):
        with pytest.raises(OptionError) as caught:
            SERVING(url, "m", transport=transport)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(OptionError) as caught:
        VERTEX(ENDPOINT + "1", credentials="ya29.hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def test_stats_of_local_model_is_an_error() -> None:
    with pytest.raises(OptionError, match="function"):
        xee_tf.Model.from_function(np.sum).stats()


def test_clients_are_imported_lazily() -> None:
    for package in ("grpc", "requests", "google.auth"):
        pytest.importorskip(package)
    code = """
        import sys
        import xee_tf
        model = xee_tf.Model.from_tf_serving("models:8500", "m", transport="grpc")
        repr(model), model.stats()
        vertex = xee_tf.Model.from_vertex_ai("projects/p/locations/l/endpoints/1")
        assert not {"tensorflow", "grpc", "requests", "google.auth"} & set(sys.modules), sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)


def test_errors_have_the_failed_instances(server: Server) -> None:
    """The instances of the request that failed, also after pickling."""
    connector = SERVING(server.grpc, "known", transport="grpc", max_payload_bytes=1000).connector
    batch = batch_of(6) | {"b": batch_of(6, height=8)["b"]}
    with pytest.raises(PredictionError, match=r"INVALID_ARGUMENT.*assertion") as caught:
        connected(connector).predict(batch)
    assert caught.value.instances == range(0, 2)
    assert pickle.loads(pickle.dumps(caught.value)).instances == range(0, 2)
    assert_same(connected(connector).predict(batch_of(6)), in_numpy(batch_of(6)))
