"""The gRPC API of the server, with the stubs of TensorFlow Serving and Google's client of Vertex AI."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc")
pytest.importorskip("tensorflow")
pytest.importorskip("google.auth")
pytest.importorskip("google.cloud.aiplatform_v1")
pytest.importorskip("tensorflow_serving")

import grpc
import numpy as np
import tensorflow as tf
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcTransport
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

import xee_tf
from tests.serving_models import call_directly, tiles

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def server(served_models):
    with xee_tf.serve(served_models, labels={"stable": 1}, max_request_bytes=9 << 20) as server:
        yield server


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc, options=UNLIMITED) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request_for(model, inputs, **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.version_label = spec.pop("label", "")
    if not request.model_spec.version_label:
        request.model_spec.ClearField("version_label")
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    request.model_spec.signature_name = spec.get("signature_name", "")
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def output_arrays(response):
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


@pytest.mark.parametrize(("spec", "version"), [({}, 2), ({"version": 1}, 1), ({"label": "stable"}, 1)])
def test_predict(stub, served_models, spec, version):
    x = tiles(3)
    response = stub.Predict(request_for("scaled", {"x": x}, **spec), timeout=30)
    expected = call_directly(served_models / "scaled" / str(version), {"x": x})
    np.testing.assert_array_equal(output_arrays(response)["y"], expected["y"])
    assert response.model_spec.name == "scaled"
    assert response.model_spec.version.value == version
    assert response.model_spec.signature_name == "serving_default"


def test_dtypes(stub, served_models):
    inputs = {
        "name": np.array([b"oak", b"\xff\x00"], object),
        "flag": np.array([True, False]),
        "pair": np.array([[0, 255], [3, 4]], "uint8"),
        "level": np.array([np.nan, -np.inf]),
    }
    found = output_arrays(stub.Predict(request_for("types", inputs), timeout=30))
    expected = call_directly(served_models / "types", inputs)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_listed_values(stub):
    request = request_for("scaled", {})
    request.inputs["x"].dtype = tf.float32.as_datatype_enum
    request.inputs["x"].tensor_shape.CopyFrom(tf.TensorShape([1, 2, 2, 2]).as_proto())
    request.inputs["x"].float_val.extend([1, 2, 3])  # the last value is repeated
    [[[a, b], [c, d]]] = output_arrays(stub.Predict(request, timeout=30))["y"]
    np.testing.assert_array_equal([a, b, c, d], [[2, 4], [6, 6], [6, 6], [6, 6]])


def test_repeated_values_are_limited(stub):
    request = request_for("scaled", {})
    request.inputs["x"].dtype = tf.float32.as_datatype_enum
    request.inputs["x"].tensor_shape.CopyFrom(tf.TensorShape([1, 30_000, 30_000, 2]).as_proto())
    request.inputs["x"].float_val.append(1)
    with pytest.raises(grpc.RpcError, match="takes more than 67,108,864 bytes") as caught:
        stub.Predict(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_other_signature_and_output_filter(stub):
    request = request_for("scaled", {"n": np.array([7, 8])}, signature_name="less")
    assert set(stub.Predict(request, timeout=30).outputs) == {"less", "n"}
    request.output_filter.append("less")
    found = output_arrays(stub.Predict(request, timeout=30))
    assert {name: values.tolist() for name, values in found.items()} == {"less": [6, 7]}


def test_large_messages(stub):
    x = np.ones((1, 1000, 1000, 2), "float32")
    found = output_arrays(stub.Predict(request_for("scaled", {"x": x}), timeout=30))
    np.testing.assert_array_equal(found["y"], 2 * x)


@pytest.mark.parametrize(
    ("model", "inputs", "spec", "code", "details"),
    [
        ("none", {}, {}, "NOT_FOUND", "Servable not found for request: Latest(none)"),
        ("scaled", {}, {"version": 7}, "NOT_FOUND", "Specific(scaled, 7)"),
        ("scaled", {}, {"label": "beta"}, "INVALID_ARGUMENT", "beta"),
        ("scaled", {}, {"signature_name": "x"}, "INVALID_ARGUMENT", '"x" not found in signature def'),
        ("scaled", {"z": np.ones(1)}, {}, "INVALID_ARGUMENT", "'x'"),
        ("scaled", {"x": np.ones((1, 1, 1, 2), "float64")}, {}, "INVALID_ARGUMENT", "double"),
        ("slow", {"seconds": np.float32([-1])}, {}, "INVALID_ARGUMENT", "seconds must not be negative"),
        ("", {}, {}, "INVALID_ARGUMENT", "Missing model name"),
        (
            "scaled",
            {"x": np.ones((1, 2000, 1000, 2), "float32")},
            {},
            "RESOURCE_EXHAUSTED",
            "larger than max",
        ),
    ],
)
def test_errors(stub, model, inputs, spec, code, details):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request_for(model, inputs, **spec), timeout=30)
    assert caught.value.code().name == code
    assert details in caught.value.details()


def test_invalid_messages_and_methods(server):
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\x0a\xff", timeout=30)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/tensorflow.serving.PredictionService/Classify")(b"", timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_metadata(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "scaled"
    response = stub.GetModelMetadata(request, timeout=30)
    assert response.model_spec.version.value == 2
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    x = found.signature_def["serving_default"].inputs["x"]
    assert x.dtype == tf.float32.as_datatype_enum
    assert [dim.size for dim in x.tensor_shape.dim] == [-1, -1, -1, 2]
    for fields, details in ([], "at least one metadata_field"), (["weights"], "weights is not supported"):
        wrong = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=request.model_spec, metadata_field=fields
        )
        with pytest.raises(grpc.RpcError, match=details) as caught:
            stub.GetModelMetadata(wrong, timeout=30)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_vertex_ai_client(server):
    x = tiles(2)
    with grpc.insecure_channel(server.grpc) as channel:
        transport = PredictionServiceGrpcTransport(channel=channel, credentials=AnonymousCredentials())
        client = aiplatform_v1.PredictionServiceClient(transport=transport)
        request = aiplatform_v1.DirectRawPredictRequest(
            endpoint="projects/p/locations/l/endpoints/scaled",
            method_name="/tensorflow.serving.PredictionService/Predict",
            input=request_for("", {"x": x}).SerializeToString(),
        )
        response = client.direct_raw_predict(request, timeout=30)
        found = output_arrays(predict_pb2.PredictResponse.FromString(response.output))
        np.testing.assert_array_equal(found["y"], 2 * x)
        request.method_name = "/other/Method"
        with pytest.raises(Exception, match="/other/Method"):
            client.direct_raw_predict(request, timeout=30)


def test_addresses_of_the_other_protocol(server):
    """Errors say at once what to change, and the changed address works."""
    port = server.grpc.rpartition(":")[2]
    for url, transport, fix in (
        (server.url, "grpc", f"Pass transport='rest' and '{server.url}'"),
        (f"http://127.0.0.1:{port}", "rest", f"Pass transport='grpc' and 'grpc://127.0.0.1:{port}'"),
    ):
        options = {"transport": transport, "deadline": 60}
        with pytest.raises(xee_tf.ModelError, match=r"The server answers over \w+, not") as caught:
            xee_tf.Model.from_tf_serving(url, "scaled", **options).connector.signature()
        assert fix in str(caught.value)
        assert "attempts" not in str(caught.value)
    fixed = xee_tf.Model.from_tf_serving(f"grpc://127.0.0.1:{port}", "scaled", transport="grpc")
    assert fixed.connector.signature().inputs
