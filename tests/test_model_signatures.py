"""The signature of a model itself: what its repr shows without loading it, and what the command shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xee_tf
from tests.conftest import ROOT
from xee_tf import Model, ModelError
from xee_tf.connector import Signature, TensorInfo
from xee_tf.models import saved_model
from xee_tf.models.saved_model_files import read_signatures
from xee_tf_cli import main

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TAKES = "  model inputs   a: float32 (?, ?, ?, 1), b: float32 (?, ?, ?, 2)"
RETURNS = "  model outputs  box: float32 (?, ?, ?, 1), count: int32 (?, ?, ?, 1)"
UNLOADED = "  signature   unknown until the model is loaded"
UNASKED = "  signature   unknown until the server is asked"


def test_signature_of_a_saved_model_is_shown(known_model: Path) -> None:
    model = Model.from_saved_model(known_model)
    assert {TAKES, RETURNS} <= set(repr(model).splitlines())
    assert "a: float32 (?, ?, ?, 1)" in model._repr_html_()


def test_signatures_are_those_of_tensorflow(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    from tests.serving_models import Types

    module = Types()
    specs = [tf.TensorSpec([2, None], tf.bfloat16, "half"), tf.TensorSpec(None, tf.int64, "free")]
    more = tf.function(lambda half, free: {"half": half, "free": free}, input_signature=specs)
    module.more = more
    tf.saved_model.save(module, tmp_path, {"serving_default": module.__call__, "more": more})
    loaded = saved_model.load_signatures(str(tmp_path), "model")
    found = read_signatures(str(tmp_path))
    assert found == {name: connection.signature for name, connection in loaded.items()}
    assert (found["more"].inputs or {})["free"] == TensorInfo(np.dtype("int64"), None)


def test_keras_model_in_memory_is_known_and_a_file_after_it_was_loaded(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    network = keras.Sequential([keras.Input((None, None, 4), name="x"), keras.layers.Conv2D(2, 1)])
    text = repr(Model.from_keras(network))
    assert "model inputs   x: float32 (?, ?, ?, 4)" in text
    assert "model outputs  output_0: float32 (?, ?, ?, 2)" in text
    network.save(tmp_path / "model.keras")
    model = Model.from_keras(tmp_path / "model.keras")
    assert UNLOADED in repr(model).splitlines()
    model.connector.signature()
    assert "model inputs   x: float32 (?, ?, ?, 4)" in repr(model)


def test_onnx_file_is_known_after_it_was_loaded() -> None:
    pytest.importorskip("onnxruntime")
    model = Model.from_onnx(ROOT / "tests" / "golden" / "onnx" / "convolution.onnx")
    assert UNLOADED in repr(model).splitlines()
    signature = model.connector.signature()
    assert signature.inputs
    for name, info in signature.inputs.items():
        assert f"{name}: {info}" in repr(model)


def test_damaged_and_large_files_are_unknown(
    known_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert UNLOADED in repr(Model.from_saved_model(tmp_path / "nothing")).splitlines()
    (tmp_path / "saved_model.pb").write_bytes(b"\x12\xff")
    assert UNLOADED in repr(Model.from_saved_model(tmp_path)).splitlines()
    with pytest.raises(ModelError, match="damaged: it is not a SavedModel message"):
        Model.from_saved_model(tmp_path).connector.signature()
    (tmp_path / "saved_model.pb").write_bytes((known_model / "saved_model.pb").read_bytes())
    model = Model.from_saved_model(tmp_path)
    assert TAKES in repr(model).splitlines()
    monkeypatch.setattr(saved_model, "_QUICKLY_READ", 100)
    assert UNLOADED in repr(model).splitlines()
    assert UNLOADED in repr(Model.from_saved_model(tmp_path, signature="other")).splitlines()


def test_functions_and_custom_connectors() -> None:
    assert "signature" not in repr(Model.from_function(len))

    class Half(xee_tf.Connector):
        signature_of: Any = None

        def open(self) -> Any:
            raise NotImplementedError

        def known_signature(self) -> Signature | None:
            return self.signature_of

    half = Half()
    assert UNLOADED in repr(Model.from_connector(half)).splitlines()
    half.signature_of = Signature(None, {"p": TensorInfo()})
    text = repr(Model.from_connector(half))
    assert "model inputs   unknown\n" in text
    assert "model outputs  p: any dtype\n" in text


# -- Servers -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(known_models: Path) -> Iterator[xee_tf.Server]:
    pytest.importorskip("grpc")
    with xee_tf.serve(known_models) as server:
        yield server


def test_repr_does_not_contact_a_server(server: xee_tf.Server) -> None:
    model = Model.from_tf_serving(server.url, "known", timeout=3)
    assert UNASKED in repr(model).splitlines()
    assert UNASKED in repr(Model.from_tf_serving("http://127.0.0.1:1", "known")).splitlines()
    model.connector.signature()
    assert {TAKES, RETURNS} <= set(repr(model).splitlines())
    vertex = Model.from_vertex_ai("projects/p/locations/l/endpoints/1", credentials=None)
    assert "  signature   unknown: the model does not declare it" in repr(vertex).splitlines()


def test_command_inspects_models(
    server: xee_tf.Server, known_model: Path, tmp_path: Path, capsys: Any
) -> None:
    commands = [
        [str(known_model)],
        [str(known_model), "--signature", "serving_default"],
        [server.url, "--name", "known"],
        [server.grpc, "--name", "known"],
    ]
    for arguments in commands:
        assert main(["model", "inspect", *arguments]) == 0
        assert {TAKES, RETURNS} <= set(capsys.readouterr().out.splitlines())
    assert main(["model", "inspect", str(tmp_path / "nothing")]) == 1
    assert "There is no SavedModel at" in capsys.readouterr().err
    assert main(["model", "inspect", server.url, "--name", "unknown"]) == 1
    assert "unknown" in capsys.readouterr().err
    assert main(["model", "inspect", str(known_model), "--signature", "other"]) == 1
    assert "no signature 'other'; available: 'serving_default'" in capsys.readouterr().err
