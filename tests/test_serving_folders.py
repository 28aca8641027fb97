"""Models in folders, their names and versions, and options of the server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

pytest.importorskip("requests")
pytest.importorskip("tensorflow")

import requests
import tensorflow as tf

import xee_tf
from tests.serving_models import api_url, save_scaled
from xee_tf.errors import MissingModelError, ModelError, OptionError
from xee_tf.serving.folders import find_models


def touch(folder: Path, *paths: str) -> Path:
    """Create folders with an empty saved_model.pb; the content is not read."""
    for path in paths:
        (folder / path).mkdir(parents=True)
        (folder / path / "saved_model.pb").touch()
    return folder


@pytest.mark.parametrize(
    ("paths", "served", "found"),
    [
        (["crops"], "crops", {"crops": {1: "crops"}}),
        (["crops/1", "crops/12"], "crops", {"crops": {1: "crops/1", 12: "crops/12"}}),
        (["crops/12"], "crops/12", {"crops": {12: "crops/12"}}),
        (["crops/1", "water/2", "water/3"], ".", {"crops": [1], "water": [2, 3]}),
        (["crops", "water/7"], ".", {"crops": [1], "water": [7]}),
        (["crops/1", "crops/old"], "crops", {"crops": [1]}),
        (
            ["crops/1", f"crops/{2**63 - 1}", f"crops/{2**63}", "crops/\u0663"],
            "crops",
            {"crops": [1, 2**63 - 1]},
        ),
        ([f"crops/{'9' * 200}"], f"crops/{'9' * 200}", {"9" * 200: [1]}),
    ],
)
def test_layouts(tmp_path, paths, served, found):
    folder = touch(tmp_path, *paths)
    models = find_models(folder / served)
    assert {name: sorted(versions) for name, versions in models.items()} == {
        name: sorted(versions) for name, versions in found.items()
    }
    for name, versions in found.items():
        if isinstance(versions, dict):
            assert models[name] == {version: folder / path for version, path in versions.items()}


def test_name(tmp_path):
    assert list(find_models(touch(tmp_path, "1", "2"), "crops")) == ["crops"]
    with pytest.raises(OptionError, match=r"requires a single model, but .* contains a, b"):
        find_models(touch(tmp_path / "more", "a", "b"), "crops")
    with pytest.raises(OptionError, match="'a/b' cannot be part of a URL"):
        find_models(tmp_path, "a/b")


def test_missing_and_invalid_models(tmp_path):
    with pytest.raises(MissingModelError, match="does not exist"):
        xee_tf.serve(tmp_path / "none")
    with pytest.raises(ModelError, match="is empty"):
        xee_tf.serve(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        xee_tf.serve(touch(tmp_path, "damaged"))
    tf.saved_model.save(tf.Module(), tmp_path / "silent")
    with pytest.raises(ModelError, match="has no signatures"):
        xee_tf.serve(tmp_path / "silent")


@pytest.mark.parametrize("kind", ["port", "grpc_port"])
def test_ports_in_use(tmp_path, kind):
    save_scaled(tmp_path / "m", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(OptionError, match=f"{taken}"):
            xee_tf.serve(tmp_path / "m", **{kind: taken})
    with pytest.raises(OptionError, match=f"{kind} must be a whole number from 0 to 65535; got 65536"):
        xee_tf.serve(tmp_path / "m", **{kind: 65536})


def test_invalid_options(tmp_path):
    save_scaled(tmp_path / "m", 1.0)
    with pytest.raises(OptionError, match="'stable' refers to version 2, which was not found; available: 1"):
        xee_tf.serve(tmp_path / "m", labels={"stable": 2})
    with pytest.raises(OptionError, match="max_concurrency must be a whole number of at least 1; got 0"):
        xee_tf.serve(tmp_path / "m", max_concurrency=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": None}, "path must be a string or path-like.*got None"),
        ({"path": 3.5}, "path must be a string or path-like.*got 3.5"),
        ({"name": ["m"]}, r"name must be a string.*got \['m'\]"),
        ({"labels": ["stable"]}, r"labels must be a mapping.*got \['stable'\]"),
        ({"host": 8501}, "host must be a string.*got 8501"),
    ],
)
def test_options_of_other_types(options, message):
    with pytest.raises(OptionError, match=message):
        xee_tf.serve(**{"path": "none", **options})


def test_max_request_bytes_beyond_the_limit_of_grpc(tmp_path):
    save_scaled(tmp_path / "m", 1.0)
    with xee_tf.serve(tmp_path / "m", max_request_bytes=1 << 40) as server:
        assert server.models == ("m",)


def test_host(tmp_path):
    save_scaled(tmp_path / "m", 1.0)
    with xee_tf.serve(tmp_path / "m") as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.grpc.startswith("127.0.0.1:")
        assert str(server) == server.url
        assert server.models == ("m",)
    with xee_tf.serve(tmp_path / "m", host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert requests.get(api_url(server, "models/m"), timeout=30).status_code == 200
