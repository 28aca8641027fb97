"""The local server in each payload format, beside the bare signature in this process."""

from __future__ import annotations

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
from benchmarks.predicting import CHANNELS, TILE, make_model
from xee_tf import prepare_model
from xee_tf.remote.payloads import ServedModel, create_payload

BATCH = 4
THREADS = 2
# What is wanted: the share of the bare signature's rate. JSON of numbers is slow wherever it is used.
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

        def bare() -> None:
            [name] = signatures["plain"].structured_input_signature[1]
            [answer] = signatures["plain"](**{name: tf.constant(pixels)}).values()
            answer.numpy()

        with _server(folder) as (url, channel):
            cases: dict[str, Callable[[], Any]] = {"bare": bare}
            for kind in GOALS:
                cases[kind] = _sending(kind, pixels, signatures, url, channel)
            times = {}
            with ThreadPoolExecutor(THREADS) as pool:
                for kind, case in cases.items():
                    rounds = 1 if small else 3 if kind in ("ND_ARRAYS", "RAW_JSON") else 20
                    case()
                    many = {kind: lambda case=case, n=rounds: _all(pool, case, n * THREADS)}
                    times[kind] = best_times(many, 1 if small else 3)[kind] / rounds / THREADS
    size = pixels.nbytes / 1e6
    for kind, goal in GOALS.items():
        yield Measurement(
            f"model serve, {kind}, {BATCH} tiles of {TILE} x {TILE} x {CHANNELS} a request",
            "the bare signature in two threads of this process",
            times["bare"] / times[kind],
            "of its rate",
            goal,
            True,
            f"{size / times[kind]:.1f} against {size / times['bare']:.1f} MB of pixels a second",
        )


def _all(pool: ThreadPoolExecutor, case: Callable[[], Any], count: int) -> None:
    for future in [pool.submit(case) for _ in range(count)]:
        future.result()


def _make_models(folder: Path, tf: Any) -> None:
    """The same network as it is, prepared for Earth Engine, and fed with Examples."""
    make_model(folder / "plain")
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
    """The command in a process of its own: base URL and gRPC channel."""
    command = [sys.executable, "-m", "xee_tf", "model", "serve", folder, "--port", "0"]
    process = subprocess.Popen([*command, "--grpc-port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        places = process.stdout.readline().partition(" at ")[2].split()
        sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(places[-1], options=sizes) as channel:
            yield places[0], channel
    finally:
        process.terminate()
        process.communicate()


def _sending(
    kind: str, pixels: Any, signatures: dict[str, Any], url: str, channel: Any
) -> Callable[[], bytes]:
    """What sends the same request again; it is encoded once, and answers are not decoded."""
    name = "examples" if "EXAMPLES" in kind else "prepared" if "SERIALIZED" in kind else "plain"
    payload = create_payload(
        "GRPC_TF_TENSORS" if kind == "rawPredict" else kind,
        numbers_as_strings=False,
        served_model=ServedModel(name if kind.startswith("GRPC") else ""),
    )
    [wanted] = signatures[name].structured_input_signature[1]
    body = payload.encode({"pixels" if name == "examples" else wanted: pixels})
    if kind.startswith("GRPC"):
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        return lambda: call(body)
    address = f"{url}/v1/models/{name}:predict"
    headers = {"Content-Type": "application/json"}
    if kind == "rawPredict":
        address = f"{url}/v1/projects/p/locations/l/endpoints/{name}:rawPredict"
        headers = {"Content-Type": "application/octet-stream"}
    sessions = local()  # one for each thread

    def post() -> bytes:
        if not hasattr(sessions, "session"):
            sessions.session = requests.Session()
        answer = sessions.session.post(address, data=body, headers=headers)
        answer.raise_for_status()
        return answer.content

    return post
