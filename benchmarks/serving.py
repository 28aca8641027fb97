"""Throughput of the local server for each payload format, compared with calling the signature."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import local
from typing import Any

import grpc
import numpy as np
import requests

from benchmarks.measure import Measurement, best_times
from benchmarks.predicting import CHANNELS, TILE, save_model
from xee_tf import prepare_model
from xee_tf.remote.payloads import ServedModel, create_payload

BATCH = 4
THREADS = 2
# Fractions of the signature's throughput. JSON numbers are always slow.
GOALS = {
    "GRPC_TF_TENSORS": 0.4,
    "rawPredict": 0.3,
    "GRPC_TF_EXAMPLES": 0.25,
    "GRPC_SERIALIZED_TF_TENSORS": 0.25,
    "SERIALIZED_TF_TENSORS": 0.12,
    "ND_ARRAYS": 0.01,
    "RAW_JSON": 0.01,
}


def run(small: bool) -> Iterator[Measurement]:
    import tensorflow as tf

    rng = np.random.default_rng(1)
    pixels = rng.random((BATCH, TILE, TILE, CHANNELS), dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        _make_models(Path(folder), tf)
        signatures = {
            name: tf.saved_model.load(f"{folder}/{name}").signatures["serving_default"]
            for name in ("plain", "prepared", "examples")
        }

        def call_signature() -> None:
            [name] = signatures["plain"].structured_input_signature[1]
            [output] = signatures["plain"](**{name: tf.constant(pixels)}).values()
            output.numpy()

        with _server(folder) as (url, channel):
            cases: dict[str, Callable[[], Any]] = {"signature": call_signature}
            for kind in GOALS:
                cases[kind] = _make_request(kind, pixels, signatures, url, channel)
            times = {}
            with ThreadPoolExecutor(THREADS) as pool:
                for kind, case in cases.items():
                    rounds = 1 if small else 3 if kind in ("ND_ARRAYS", "RAW_JSON") else 20
                    case()
                    repeated = {kind: lambda case=case, n=rounds: _repeat(pool, case, n * THREADS)}
                    times[kind] = best_times(repeated, 1 if small else 3)[kind] / rounds / THREADS
    size = pixels.nbytes / 1e6
    for kind, goal in GOALS.items():
        yield Measurement(
            f"model serve, {kind}, {BATCH} tiles of {TILE} x {TILE} x {CHANNELS} per request",
            "the signature in two threads of this process",
            times["signature"] / times[kind],
            "times",
            goal,
            True,
            f"{size / times[kind]:.1f} and {size / times['signature']:.1f} MB of pixels per second",
        )


def _repeat(pool: ThreadPoolExecutor, case: Callable[[], Any], count: int) -> None:
    for future in [pool.submit(case) for _ in range(count)]:
        future.result()


def _make_models(folder: Path, tf: Any) -> None:
    """Save a network in three forms: plain, prepared for Earth Engine, and with Examples as input."""
    save_model(folder / "plain")
    prepare_model(folder / "plain", folder / "prepared")
    module = tf.Module()
    module.network = tf.saved_model.load(str(folder / "plain"))
    features = {"pixels": tf.io.FixedLenFeature((TILE, TILE, CHANNELS), tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "input")])
    def predict(examples: Any) -> Any:
        return {"output": module.network.serve(tf.io.parse_example(examples, features)["pixels"])}

    tf.saved_model.save(module, str(folder / "examples"), predict)


@contextmanager
def _server(folder: str) -> Iterator[tuple[str, grpc.Channel]]:
    """Run the server in a separate process, and yield its base URL and a gRPC channel."""
    command = [sys.executable, "-m", "xee_tf", "model", "serve", folder, "--json", "--port", "0"]
    process = subprocess.Popen([*command, "--grpc-port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(addresses["grpc"], options=options) as channel:
            yield addresses["url"], channel
    finally:
        process.terminate()
        process.communicate()


def _make_request(
    kind: str, pixels: Any, signatures: dict[str, Any], url: str, channel: Any
) -> Callable[[], bytes]:
    """Return a function that sends the same encoded request, and does not decode the response."""
    name = "examples" if "EXAMPLES" in kind else "prepared" if "SERIALIZED" in kind else "plain"
    payload = create_payload(
        "GRPC_TF_TENSORS" if kind == "rawPredict" else kind,
        numbers_as_strings=False,
        served_model=ServedModel(name if kind.startswith("GRPC") else ""),
    )
    [input_name] = signatures[name].structured_input_signature[1]
    body = payload.encode({"pixels" if name == "examples" else input_name: pixels})
    if kind.startswith("GRPC"):
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        return lambda: call(body)
    address = f"{url}/v1/models/{name}:predict"
    headers = {"Content-Type": "application/json"}
    if kind == "rawPredict":
        address = f"{url}/v1/projects/p/locations/l/endpoints/{name}:rawPredict"
        headers = {"Content-Type": "application/octet-stream"}
    sessions = local()  # one per thread

    def post() -> bytes:
        if not hasattr(sessions, "session"):
            sessions.session = requests.Session()
        response = sessions.session.post(address, data=body, headers=headers)
        response.raise_for_status()
        return response.content

    return post
