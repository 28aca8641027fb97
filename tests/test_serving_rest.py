"""The TensorFlow Serving API of the server over HTTP, with requests and the json module."""

from __future__ import annotations

import base64
import gzip
import json
import re

import pytest

pytest.importorskip("requests")
pytest.importorskip("tensorflow")

import numpy as np
import requests
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import xee_tf
from tests.serving_models import api_url, call_directly, tiles
from xee_tf.serving import rest
from xee_tf.tensors import decode_tensor, encode_tensors


@pytest.fixture(scope="module")
def server(served_models):
    with xee_tf.serve(served_models, labels={"stable": 1}, max_request_bytes=1 << 20) as server:
        yield server


def post(server, path, message):
    return requests.post(api_url(server, path), data=json.dumps(message), timeout=30)


def predict(server, path, message):
    response = post(server, path, message)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.content)


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("models/scaled:predict", 2),
        ("models/scaled/versions/1:predict", 1),
        ("models/scaled/versions/2:predict", 2),
        ("models/scaled/labels/stable:predict", 1),
    ],
)
def test_rows_and_columns_of_each_version(server, served_models, path, version):
    x = tiles(3)
    expected = call_directly(served_models / "scaled" / str(version), {"x": x})["y"]
    for message, key in [
        ({"instances": x.tolist()}, "predictions"),
        ({"instances": [{"x": tile.tolist()} for tile in x]}, "predictions"),
        ({"inputs": x.tolist()}, "outputs"),
        ({"inputs": {"x": x.tolist()}, "signature_name": "serving_default"}, "outputs"),
    ]:
        found = predict(server, path, message)
        assert list(found) == [key]
        np.testing.assert_array_equal(np.float32(found[key]), expected)


@given(
    arrays(
        "float32",
        array_shapes(min_dims=3, max_dims=3, max_side=4).map(lambda shape: (*shape, 2)),
        elements=st.floats(width=32, allow_subnormal=False),  # TensorFlow flushes subnormal numbers to zero
    )
)
def test_floats_are_exact(server, x):
    path = "models/scaled/versions/1:predict"
    found = np.float32(predict(server, path, {"instances": x.tolist()})["predictions"])
    np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(np.signbit(found[~np.isnan(x)]), np.signbit(x[~np.isnan(x)]))


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1))
def test_other_signature_and_integers(server, numbers):
    message = {"signature_name": "less", "instances": numbers}
    rows = predict(server, "models/scaled:predict", message)["predictions"]
    assert rows == [{"less": number - 1, "n": number} for number in numbers]
    message = {"signature_name": "less", "inputs": numbers}
    columns = predict(server, "models/scaled:predict", message)["outputs"]
    assert columns == {"less": [number - 1 for number in numbers], "n": numbers}


def test_dtypes(server):
    blob = bytes(range(256))
    rows = [
        {"name": "élan", "flag": True, "pair": [0, 255], "level": 1e300},
        {
            "name": {"b64": base64.b64encode(blob).decode()},
            "flag": False,
            "pair": [1, 2],
            "level": float("nan"),
        },
    ]
    found = predict(server, "models/types:predict", {"instances": rows})["predictions"]
    assert [row["pair"] for row in found] == [[0, 255], [1, 2]]
    assert [row["not"] for row in found] == [False, True]
    assert found[0]["level"] == 1e300
    assert np.isnan(found[1]["level"])
    assert found[0]["upper"] == "éLAN"
    # Outputs whose names end with _bytes are always in base64.
    assert base64.b64decode(found[0]["name_bytes"]["b64"]) == "élan".encode()
    assert base64.b64decode(found[1]["name_bytes"]["b64"]) == blob
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    by_columns = predict(server, "models/types:predict", {"inputs": columns})["outputs"]
    assert by_columns["name_bytes"] == [row["name_bytes"] for row in found]
    assert by_columns["not"] == [False, True]


@pytest.mark.parametrize("in_b64", [False, True])
def test_prepared_model(server, served_models, in_b64):
    x = tiles(3)
    texts = [base64.urlsafe_b64encode(tensor) for tensor in encode_tensors(x)]
    values = [{"b64": base64.b64encode(text).decode()} if in_b64 else text.decode() for text in texts]
    metadata = json.loads(requests.get(api_url(server, "models/prepared/metadata"), timeout=30).content)
    [name] = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    found = predict(server, "models/prepared:predict", {"instances": [{name: value} for value in values]})
    tensors = [base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in found["predictions"]]
    y = np.stack([tf.io.parse_tensor(tensor, tf.float32).numpy() for tensor in tensors])
    np.testing.assert_array_equal(y, call_directly(served_models / "scaled" / "2", {"x": x})["y"])
    np.testing.assert_array_equal(y[1], decode_tensor(tensors[1]))


def test_scalar_output_requires_columns(server):
    assert predict(server, "models/total:predict", {"inputs": [1, 2.5]}) == {"outputs": 3.5}
    rejected = post(server, "models/total:predict", {"instances": [1, 2.5]})
    assert rejected.status_code == 400
    assert "inconsistent batch sizes" in rejected.json()["error"]


def test_gzip(server):
    x = tiles(2)
    body = gzip.compress(json.dumps({"instances": x.tolist()}).encode())
    url = api_url(server, "models/scaled:predict")
    headers = {"Content-Encoding": "gzip"}
    found = requests.post(url, data=body, headers=headers, timeout=30)
    np.testing.assert_array_equal(np.float32(json.loads(found.content)["predictions"]), 2 * x)
    for damaged in (body[:-9], b"no gzip"):
        rejected = requests.post(url, data=damaged, headers=headers, timeout=30)
        assert rejected.status_code == 400
        assert "gzip" in rejected.json()["error"]
    bomb = requests.post(url, data=gzip.compress(bytes(1 << 24)), headers=headers, timeout=30)
    assert bomb.status_code == 413
    other = requests.post(url, data=body, headers={"Content-Encoding": "br"}, timeout=30)
    assert other.status_code == 415


def test_status_and_metadata(server):
    def state(path):
        response = requests.get(api_url(server, path), timeout=30)
        assert response.status_code == 200
        return response.json()

    ready = {"error_code": "OK", "error_message": ""}
    one, two = ({"version": v, "state": "AVAILABLE", "status": ready} for v in ("1", "2"))
    assert state("models/scaled") == {"model_version_status": [one, two]}
    assert state("models/scaled/versions/2") == {"model_version_status": [two]}
    assert state("models/scaled/labels/stable") == {"model_version_status": [one]}
    metadata = state("models/scaled/versions/1/metadata")
    assert metadata["model_spec"] == {"name": "scaled", "signature_name": "", "version": "1"}
    found = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "less"} <= set(found)
    x = found["serving_default"]["inputs"]["x"]
    sizes = [{"size": size, "name": ""} for size in ("-1", "-1", "-1", "2")]
    assert x["dtype"] == "DT_FLOAT"
    assert x["tensor_shape"] == {"dim": sizes, "unknown_rank": False}
    assert x["name"] == "serving_default_x:0"
    assert found["serving_default"]["method_name"] == "tensorflow/serving/predict"


def test_health(server):
    found = requests.get(f"{server}/health", timeout=30)
    assert found.status_code == 200
    models = ["convolution", "prepared", "scaled", "slow", "total", "types"]
    assert found.json() == {"status": "ok", "models": models}


@pytest.mark.parametrize(
    ("path", "message", "status", "error"),
    [
        ("models/none:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(none)"),
        ("models/scaled/versions/3:predict", {}, 404, "Specific(scaled, 3); available: 1, 2"),
        ("models/scaled/labels/beta:predict", {}, 400, "Unrecognized servable version label: beta"),
        ("models/scaled:predict", {"instances": [1], "signature_name": "x"}, 400, '"x" not found'),
        ("models/scaled:predict", {"instances": []}, 400, "'instances' must be a list that is not empty"),
        ("models/scaled:predict", {"instances": [1], "inputs": [1]}, 400, "either 'instances' (rows) or"),
        ("models/scaled:predict", {"instances": [[[["a"]]]]}, 400, "'x' contains"),
        ("models/scaled:predict", {"instances": [[1], [2, 3]]}, 400, "unequal lengths"),
        ("models/scaled:predict", {"instances": [{"z": 1}]}, 400, "has the inputs 'x'"),
        ("models/slow:predict", {"instances": [-1.0]}, 400, "seconds must not be negative"),
        ("models/types:predict", {"instances": [1]}, 400, "has the inputs"),
        ("models/scaled:regress", {}, 400, "Malformed request: POST /v1/models/scaled:regress"),
        ("models/scaled/versions/one:predict", {}, 400, "Malformed request"),
    ],
)
def test_errors_like_tensorflow_serving(server, path, message, status, error):
    response = post(server, path, message)
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    assert error in response.json()["error"]
    assert response.status_code == status


@pytest.mark.parametrize("body", [b"", b"not JSON", b"[1]", b'{"instances": [1', b"\xff\xfe", b"[" * 100_000])
def test_invalid_bodies(server, body):
    response = requests.post(api_url(server, "models/scaled:predict"), data=body, timeout=30)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize(
    "rows", [[1.0], [[1.0, 2.0]], [[[1.0, 2.0]]], [[[[[1.0, 2.0]]]]], [[[]]], [[[[1.0]]]]]
)
def test_inputs_of_other_shapes(server, rows):
    """TensorFlow aborts the process for some of them."""
    response = post(server, "models/convolution:predict", {"instances": rows})
    assert response.status_code == 400
    assert re.search(r"\(\?, \?, \?, 2\); got the shape|no elements|ragged", response.json()["error"])


def test_unknown_urls_and_methods(server):
    wrong = requests.get(api_url(server, "models/scaled:predict"), timeout=30)
    assert wrong.status_code == 400
    assert wrong.json() == {"error": "Malformed request: GET /v1/models/scaled:predict"}
    unknown = requests.get(f"{server}/", timeout=30)
    assert unknown.status_code == 404
    assert unknown.json() == {"error": "Not found: GET /."}


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 20, "9" * 4301, "0" * 5000, str(2**63)])
def test_versions_of_many_digits_are_unknown(server, digits):
    paths = [
        f"models/scaled/versions/{digits}:predict",
        f"projects/p/models/scaled/versions/v{digits}:predict",
    ]
    for path in paths:
        response = post(server, path, {"instances": [1]})
        assert response.status_code == 404
        assert "Servable not found for request: Specific(scaled, " in response.text
    for path in (f"models/scaled/versions/{digits}/metadata", f"models/scaled/versions/{digits}"):
        assert requests.get(api_url(server, path), timeout=30).status_code == 404


@pytest.mark.parametrize("version", ["\u0661", "+1", "-1", "1_0", " 1", "1.0"])
def test_versions_that_are_no_numbers(server, version):
    assert post(server, f"models/scaled/versions/{version}:predict", {}).status_code == 400
    assert requests.get(api_url(server, f"models/scaled/versions/{version}"), timeout=30).status_code == 400


@pytest.mark.parametrize("place", ["status_json", "predict_json"])
def test_errors_of_the_server_are_logged_once(served_models, monkeypatch, caplog, place):
    def fail(*_):
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(rest, place, fail)
    with xee_tf.serve(served_models) as server:
        if place == "predict_json":
            response = post(server, "models/scaled:predict", {"instances": [1]})
        else:
            response = requests.get(api_url(server, "models/scaled"), timeout=30)
    assert response.status_code == 500
    assert response.json() == {"error": "The server failed: ZeroDivisionError: a mistake"}
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


def test_errors_do_not_contain_paths(server, served_models):
    for message in ({"inputs": "a"}, {"instances": [[1], [2, 3]]}, {"instances": [{"z": 1}]}):
        assert str(served_models) not in post(server, "models/scaled:predict", message).text


@pytest.mark.parametrize("known", [True, False])
def test_max_request_bytes(server, known):
    body = b'{"instances": [' + b" " * (1 << 20) + b"]}"
    data = body if known else (body[i : i + 4096] for i in range(0, len(body), 4096))
    response = requests.post(api_url(server, "models/scaled:predict"), data=data, timeout=30)
    assert response.status_code == 413
    assert response.json() == {"error": "Request payload size exceeds the limit: 1048576 bytes."}
    assert post(server, "models/scaled:predict", {"instances": tiles(1).tolist()}).status_code == 200
