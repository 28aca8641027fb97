"""The Vertex AI and AI Platform APIs of the server, with Google's clients."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("requests")
pytest.importorskip("tensorflow")
pytest.importorskip("google.api_core")
pytest.importorskip("google.auth")
pytest.importorskip("google.cloud.aiplatform_v1")
pytest.importorskip("google.protobuf")
pytest.importorskip("googleapiclient")
pytest.importorskip("tensorflow_serving")

import numpy as np
import requests
import tensorflow as tf
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceRestTransport
from google.protobuf import json_format, struct_pb2
from googleapiclient import discovery_cache
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError
from tensorflow_serving.apis import predict_pb2

import xee_tf
from tests.serving_models import api_url, save_models, save_scaled

ENDPOINT = "projects/p/locations/europe-west4/endpoints"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with xee_tf.serve(save_models(tmp_path_factory.mktemp("models")), labels={"stable": 1}) as server:
        yield server


@pytest.fixture(scope="module")
def vertex(server):
    transport = PredictionServiceRestTransport(
        host=server.url.removeprefix("http://"), url_scheme="http", credentials=AnonymousCredentials()
    )
    return aiplatform_v1.PredictionServiceClient(transport=transport)


@pytest.fixture(scope="module")
def platform(server):
    document = json.loads(discovery_cache.get_static_doc("ml", "v1"))
    document["rootUrl"] = f"{server}/"
    with build_from_document(document, credentials=AnonymousCredentials()) as service:
        yield service


X = np.arange(24, dtype="float32").reshape(2, 2, 3, 2)


def test_vertex_predict(vertex):
    instances = [json_format.ParseDict(tile.tolist(), struct_pb2.Value()) for tile in X]
    response = vertex.predict(endpoint=f"{ENDPOINT}/scaled", instances=instances, timeout=30)
    np.testing.assert_array_equal(
        np.float32(json_format.MessageToDict(type(response).pb(response))["predictions"]), 2 * X
    )
    assert response.deployed_model_id == "2"
    assert response.model_version_id == "2"
    assert response.model_display_name == "scaled"
    assert response.model == "projects/p/locations/europe-west4/models/scaled"


@pytest.mark.parametrize(
    ("endpoint", "instance", "code", "message_part"),
    [("77", 1.0, 404, "Endpoint '77' was not found"), ("types", 1.0, 400, "has the inputs")],
)
def test_vertex_errors(vertex, endpoint, instance, code, message_part):
    with pytest.raises(GoogleAPICallError, match=message_part) as caught:
        vertex.predict(
            endpoint=f"{ENDPOINT}/{endpoint}",
            instances=[struct_pb2.Value(number_value=instance)],
            timeout=30,
        )
    assert caught.value.code == code


def test_vertex_accepts_only_rows_for_the_default_signature(server):
    url = api_url(server, f"{ENDPOINT}/scaled:predict")
    for message in ({"inputs": X.tolist()}, {"instances": X.tolist(), "signature_name": "serving_default"}):
        rejected = requests.post(url, json=message, timeout=30)
        assert rejected.status_code == 400
        error = rejected.json()["error"]
        assert error["status"] == "INVALID_ARGUMENT"
        assert error["code"] == 400
        assert "Unknown name" in error["message"]


def test_any_endpoint_of_a_single_model(tmp_path):
    save_scaled(tmp_path / "single", 3.0)
    with xee_tf.serve(tmp_path / "single") as server:
        found = requests.post(
            api_url(server, f"{ENDPOINT}/123:predict"), json={"instances": X.tolist()}, timeout=30
        )
    np.testing.assert_array_equal(np.float32(found.json()["predictions"]), 3 * X)


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/x-protobuf"])
def test_raw_predict_with_predict_request(server, kind):
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(X))
    url = api_url(server, f"{ENDPOINT}/scaled:rawPredict")
    found = requests.post(url, data=request.SerializeToString(), headers={"Content-Type": kind}, timeout=30)
    assert found.headers["content-type"] == kind
    assert found.headers["X-Vertex-AI-Endpoint-Id"] == "scaled"
    assert found.headers["X-Vertex-AI-Deployed-Model-Id"] == "2"
    outputs = predict_pb2.PredictResponse.FromString(found.content).outputs
    np.testing.assert_array_equal(tf.make_ndarray(outputs["y"]), 2 * X)
    rejected = requests.post(url, data=b"\x0a\xff", headers={"Content-Type": kind}, timeout=30)
    assert rejected.status_code == 400
    assert rejected.json()["error"]["status"] == "INVALID_ARGUMENT"


def test_raw_predict_with_tensorflow_serving_json(server):
    url = api_url(server, f"{ENDPOINT}/scaled:rawPredict")
    found = requests.post(url, json={"inputs": [7], "signature_name": "less"}, timeout=30)
    assert found.json() == {"outputs": {"less": [6], "n": [7]}}
    wrong = requests.post(url, json={"inputs": [7], "signature_name": "more"}, timeout=30)
    assert wrong.json()["error"]["code"] == wrong.status_code == 400


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("projects/p/models/scaled", 2),
        ("projects/p/models/scaled/versions/1", 1),
        ("projects/p/models/scaled/versions/v1", 1),
        ("projects/p/models/scaled/versions/stable", 1),
    ],
)
def test_ai_platform(platform, name, factor):
    response = platform.projects().predict(name=name, body={"instances": X.tolist()}).execute()
    assert list(response) == ["predictions"]
    np.testing.assert_array_equal(np.float32(response["predictions"]), factor * X)


@pytest.mark.parametrize(
    ("name", "status", "message_part"),
    [
        ("projects/p/models/none", 404, "Latest(none)"),
        ("projects/p/models/scaled/versions/v9", 404, "Specific(scaled, 9)"),
        ("projects/p/models/types", 400, "has the inputs"),
    ],
)
def test_ai_platform_errors(platform, name, status, message_part):
    with pytest.raises(HttpError) as caught:
        platform.projects().predict(name=name, body={"instances": X.tolist()}).execute()
    assert caught.value.resp.status == status
    assert message_part in caught.value.reason


def test_unknown_url(server):
    missing = requests.get(api_url(server, "projects/p/locations/l/endpoints/scaled"), timeout=30)
    assert missing.status_code == 404
    assert missing.json()["error"]["status"] == "NOT_FOUND"
