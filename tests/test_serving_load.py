"""Concurrent requests to the server: joined batches and limits; and stopping it, also by a signal."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

pytest.importorskip("grpc")
pytest.importorskip("requests")

import grpc
import numpy as np
import requests

import xee_tf
from tests.conftest import needs_posix
from tests.serving_models import api_url
from xee_tf.connector import Signature, TensorInfo
from xee_tf.errors import PredictionError
from xee_tf.remote.payloads.predict_messages import (
    ServedModel,
    decode_predict_response,
    encode_predict_request,
)
from xee_tf.serving import limits
from xee_tf.serving.batching import Batcher
from xee_tf.serving.models import Models
from xee_tf.serving.server import stop_signal
from xee_tf_cli import main


def sleep(server, seconds, path="models/slow:predict"):
    return requests.post(api_url(server, path), json={"instances": [seconds]}, timeout=30)


def sleep_by_grpc(server, seconds):
    with grpc.insecure_channel(server.grpc) as channel:
        request = encode_predict_request({"seconds": np.float32([seconds])}, ServedModel("slow"))
        response = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(request, timeout=30)
        return str(decode_predict_response(response)["slept"].tolist())


def wait_for(poll):
    """Call `poll` until it returns a result."""
    end = time.monotonic() + 10
    while (result := poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return result


def sleep_with_retries(server, seconds):
    """Send a request until a slot is free, and return its response."""

    def send():
        response = sleep(server, seconds)
        return response if response.status_code != 429 else None

    return wait_for(send)


def sleep_by_grpc_with_retries(server, seconds):
    def send():
        try:
            return sleep_by_grpc(server, seconds)
        except grpc.RpcError as error:
            return error if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED else None

    return wait_for(send)


def rejection(server):
    """Return the response of a server without a free slot, or None."""
    response = sleep(server, 0)
    return response if response.status_code == 429 else None


# -- Batches -----------------------------------------------------------------------------------------


class Numbers:
    """A model that waits for `go`, doubles numbers, fails on NaN, and records the batch sizes."""

    def __init__(self, rows=None):
        self.signature = Signature({"x": TensorInfo(np.dtype("f8"), (rows,))}, {"y": TensorInfo()})
        self.sizes, self.go, self.waiting = [], Event(), Event()

    def predict(self, batch):
        self.waiting.set()
        assert self.go.wait(30)
        self.sizes.append(len(batch["x"]))
        if np.isnan(batch["x"]).any():
            raise PredictionError("NaN")
        return {"y": 2 * batch["x"]}

    def close(self):
        pass


def predict_concurrently(model, batches, max_batch_size=8):
    """Predict one batch, and the others while it is in progress; return the futures."""
    batcher = Batcher(model, max_batch_size, 1)
    with ThreadPoolExecutor(len(batches)) as pool:
        first = pool.submit(batcher.predict, {"x": batches[0]})
        assert model.waiting.wait(30)
        others = [pool.submit(batcher.predict, {"x": batch}) for batch in batches[1:]]
        queued = batcher._queues  # no public attribute shows whether they are queued
        wait_for(lambda: sum(map(len, queued.copy().values())) == len(others) or None)
        model.go.set()
        return [first, *others]


def test_queued_requests_are_joined():
    model = Numbers()
    batches = [np.arange(3.0) + 10 * index for index in range(6)]
    futures = predict_concurrently(model, batches)
    for batch, response in zip(batches, futures, strict=True):
        np.testing.assert_array_equal(response.result()["y"], 2 * batch)
    assert model.sizes == [3, 6, 6, 3]  # at most 8


def test_other_shapes_and_dtypes_are_not_joined():
    model = Numbers()
    batches = [np.ones(1), np.ones((1, 2)), np.ones((1, 3)), np.ones((1, 2)), np.ones((1, 2), "f4")]
    futures = predict_concurrently(model, batches)
    assert [response.result()["y"].shape for response in futures] == [batch.shape for batch in batches]
    assert sorted(model.sizes) == [1, 1, 1, 2]


def test_invalid_request_affects_only_itself():
    model = Numbers()
    futures = predict_concurrently(model, [np.zeros(1), np.array([1.0]), np.array([np.nan]), np.array([3.0])])
    assert futures[1].result()["y"].tolist() == [2]
    assert futures[3].result()["y"].tolist() == [6]
    with pytest.raises(PredictionError, match="NaN"):
        futures[2].result()
    assert model.sizes == [1, 3, 1, 1, 1]


def test_fixed_batch_sizes_and_large_requests_are_not_joined():
    for model, batch in [(Numbers(rows=2), np.ones(2)), (Numbers(), np.ones(1 << 17))]:
        batcher = Batcher(model, 1 << 20, 1)
        with ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(batcher.predict, {"x": batch}) for _ in range(3)]
            model.go.set()
            for response in futures:
                np.testing.assert_array_equal(response.result()["y"], 2 * batch)
        assert model.sizes == [len(batch)] * 3


@pytest.mark.parametrize("max_batch_size", [0, 32])
def test_concurrent_requests_get_their_own_predictions(served_models, max_batch_size):
    with (
        xee_tf.serve(served_models / "scaled", max_batch_size=max_batch_size) as server,
        ThreadPoolExecutor(8) as pool,
    ):

        def predict(number):
            rows = np.full((1 + number % 3, 1, 1 + number % 2, 2), number).tolist()
            found = requests.post(
                api_url(server, "models/scaled:predict"), json={"instances": rows}, timeout=30
            )
            return found.json()["predictions"] == (2.0 * np.array(rows)).tolist()

        assert all(pool.map(predict, range(64)))


# -- Limits ------------------------------------------------------------------------------------------


def test_max_concurrency(served_models):
    with xee_tf.serve(served_models, max_concurrency=2) as server, ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(sleep_with_retries, server, 1.0) for _ in range(2)]
        rejected = wait_for(lambda: rejection(server))
        assert rejected.headers["Retry-After"] == "1"
        assert "try again" in rejected.json()["error"]
        vertex = sleep(server, 0, "projects/p/locations/l/endpoints/slow:predict")
        assert vertex.headers["Retry-After"] == "1"
        assert vertex.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
        assert requests.get(f"{server}/health", timeout=30).status_code == 200
        assert [each.result().status_code for each in slow] == [200, 200]
        assert sleep(server, 0).status_code == 200


def test_max_concurrency_of_grpc(served_models):
    with xee_tf.serve(served_models, max_concurrency=1) as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(sleep_by_grpc_with_retries, server, 1.0)

        def rejected():
            try:
                sleep_by_grpc(server, 0)
            except grpc.RpcError as error:
                return error
            return None

        assert wait_for(rejected).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert slow.result() == "[1.0]"
        assert sleep_by_grpc_with_retries(server, 0) == "[0.0]"


def test_disconnected_and_idle_clients_release_their_slot(served_models, monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.3)
    head = b"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    with xee_tf.serve(served_models, max_concurrency=1) as server:
        host_and_port = server.url.removeprefix("http://").split(":")
        with socket.create_connection(host_and_port) as disconnected:
            disconnected.sendall(head)
        assert sleep_with_retries(server, 0).status_code == 200
        with socket.create_connection(host_and_port) as idle:
            idle.sendall(head)
            assert idle.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert sleep(server, 0).status_code == 200


# -- Stopping ----------------------------------------------------------------------------------------


def test_requests_in_progress_are_completed(served_models):
    threads, threshold = set(threading.enumerate()), gc.get_threshold()
    with ThreadPoolExecutor(2) as pool:
        with xee_tf.serve(served_models, max_concurrency=1) as server:
            slow = [
                pool.submit(send, server, 0.5) for send in (sleep_with_retries, sleep_by_grpc_with_retries)
            ]
            wait_for(lambda: rejection(server))
        assert slow[0].result().json() == {"predictions": [0.5]}
        assert slow[1].result() == "[0.5]"
    with pytest.raises(requests.ConnectionError):
        sleep(server, 0)
    with pytest.raises(grpc.RpcError) as caught:
        sleep_by_grpc(server, 0)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not {thread for thread in threading.enumerate() if "xee-tf" in thread.name} - threads
    assert gc.get_threshold() == threshold
    server.close()  # closing twice is allowed


def test_garbage_collected_server_is_closed(served_models):
    server = xee_tf.serve(served_models / "scaled")
    health = f"{server}/health"
    assert requests.get(health, timeout=30).status_code == 200
    del server
    with pytest.raises(requests.ConnectionError):
        requests.get(health, timeout=30)


def test_process_exits_with_a_running_server(served_models):
    code = f"import xee_tf; server = xee_tf.serve({str(served_models / 'scaled')!r}); print(server.models)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "('scaled',)\n"
    assert "Traceback" not in done.stderr


def test_port_can_be_reused(served_models):
    with xee_tf.serve(served_models / "scaled") as server:
        port, grpc_port = (int(url.rpartition(":")[2]) for url in (server.url, server.grpc))
        assert requests.get(f"{server}/health", timeout=30).status_code == 200
    with xee_tf.serve(served_models / "scaled", port=port, grpc_port=grpc_port) as server:
        assert server.url.endswith(f":{port}")
        assert requests.get(f"{server}/health", timeout=30).status_code == 200


@pytest.fixture
def interruptible():
    """Install the default handler of SIGINT, which shells disable for background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_second_signal_interrupts(interruptible):
    with stop_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@needs_posix
def test_signal_in_another_thread():
    """The system chooses the thread. Python runs the handler in the main thread, which is not woken."""
    code = """if True:
        import signal, threading
        from xee_tf.serving import stop_signal
        send = lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        with stop_signal() as stop:
            threading.Timer(0.3, send).start()
            stop.wait()
            print(stop.is_set())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True\n")


def test_connection_that_is_made_while_the_server_stops(served_models, monkeypatch):
    with xee_tf.serve(served_models / "scaled", grace=20) as server, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(Models, "names", property(lambda models: time.sleep(1)))
        busy = pool.submit(requests.get, f"{server}/health", timeout=30)
        time.sleep(0.3)  # the event loop is busy, and accepts the connection only when it must stop
        with socket.create_connection(server.url.removeprefix("http://").split(":")) as connection:
            start = time.monotonic()
            server.close()
            assert time.monotonic() - start < 10
            assert connection.recv(1000) == b""
        assert busy.result().status_code == 200


class Process:
    """The addresses that the command prints, like a `Server`."""

    def __init__(self, line):
        found = json.loads(line)
        self.url, self.grpc = found["url"], found["grpc"]

    def __str__(self):
        return self.url


@needs_posix
def test_command_stops_on_a_signal(served_models):
    command = [sys.executable, "-m", "xee_tf", "model", "serve", str(served_models), "--json", "--port", "0"]
    command += ["--grpc-port", "0", "--labels", "stable=1", "--max-concurrency", "1"]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            server = Process(process.stdout.readline())
            stable = api_url(server, "models/scaled/labels/stable:predict")
            x = [[[[1.0, 2.0]]]]
            assert requests.post(stable, json={"instances": x}, timeout=30).json() == {"predictions": x}
            with ThreadPoolExecutor(2) as pool:
                slow = [
                    pool.submit(send, server, 0.5)
                    for send in (sleep_with_retries, sleep_by_grpc_with_retries)
                ]
                wait_for(lambda: rejection(server))
                process.send_signal(signal.SIGTERM)
                assert slow[0].result().status_code == 200
                assert slow[1].result() == "[0.5]"
            try:
                assert process.wait(30) == 0
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # prints the stack of each thread
                pytest.fail(process.communicate()[1])
        finally:
            process.kill()


def test_command_errors(tmp_path, capsys):
    assert main(["model", "serve", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("xee-tf model serve: There is no SavedModel at")
    assert main(["model", "serve", str(tmp_path), "--labels", "stable"]) == 2
    assert "LABEL=VERSION" in capsys.readouterr().err
