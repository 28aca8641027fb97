"""Many requests at once: batches, limits; and the end of a server, from Python and by a signal."""

from __future__ import annotations

import gc
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
from tests.serving_models import address
from xee_tf.connector import Signature, TensorInfo
from xee_tf.errors import PredictionError
from xee_tf.remote.payloads.predict_messages import (
    ServedModel,
    decode_predict_response,
    encode_predict_request,
)
from xee_tf.serving import bodies
from xee_tf.serving.batching import Batcher
from xee_tf.serving.server import stop_signal
from xee_tf_cli import main


def sleep(server, seconds, path="models/slow:predict"):
    return requests.post(address(server, path), json={"instances": [seconds]}, timeout=30)


def sleep_by_grpc(server, seconds):
    with grpc.insecure_channel(server.grpc) as channel:
        request = encode_predict_request({"seconds": np.float32([seconds])}, ServedModel("slow"))
        answer = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(request, timeout=30)
        return str(decode_predict_response(answer)["slept"].tolist())


def until(found):
    """Ask until the answer is there, but not forever."""
    end = time.monotonic() + 10
    while (answer := found()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return answer


def taken(server, seconds):
    """The answer to a request that is sent until there is a place for it."""

    def ask():
        answer = sleep(server, seconds)
        return answer if answer.status_code != 429 else None

    return until(ask)


def taken_by_grpc(server, seconds):
    def ask():
        try:
            return sleep_by_grpc(server, seconds)
        except grpc.RpcError as error:
            return error if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED else None

    return until(ask)


def is_full(server):
    """The refusal of a server that has no place left."""
    answer = sleep(server, 0)
    return answer if answer.status_code == 429 else None


# -- Batches -----------------------------------------------------------------------------------------


class Numbers:
    """A model that doubles numbers, waits for `go`, refuses NaN, and remembers what it was asked."""

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


def asked_together(model, batches, max_batch_size=8):
    """The answers to one batch, and to further ones that come while it is under way."""
    batcher = Batcher(model, max_batch_size, 1)
    with ThreadPoolExecutor(len(batches)) as pool:
        first = pool.submit(batcher.predict, {"x": batches[0]})
        assert model.waiting.wait(30)
        others = [pool.submit(batcher.predict, {"x": batch}) for batch in batches[1:]]
        queued = batcher._queues  # that they wait cannot be seen from outside
        until(lambda: sum(map(len, queued.copy().values())) == len(others) or None)
        model.go.set()
        return [first, *others]


def test_requests_that_wait_run_together():
    model = Numbers()
    batches = [np.arange(3.0) + 10 * place for place in range(6)]
    answers = asked_together(model, batches)
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(answer.result()["y"], 2 * batch)
    assert model.sizes == [3, 6, 6, 3]  # at most 8


def test_other_shapes_and_dtypes_run_apart():
    model = Numbers()
    batches = [np.ones(1), np.ones((1, 2)), np.ones((1, 3)), np.ones((1, 2)), np.ones((1, 2), "f4")]
    answers = asked_together(model, batches)
    assert [answer.result()["y"].shape for answer in answers] == [batch.shape for batch in batches]
    assert sorted(model.sizes) == [1, 1, 1, 2]


def test_nobody_suffers_for_the_request_of_another():
    model = Numbers()
    answers = asked_together(model, [np.zeros(1), np.array([1.0]), np.array([np.nan]), np.array([3.0])])
    assert answers[1].result()["y"].tolist() == [2]
    assert answers[3].result()["y"].tolist() == [6]
    with pytest.raises(PredictionError, match="NaN"):
        answers[2].result()
    assert model.sizes == [1, 3, 1, 1, 1]


def test_models_of_a_fixed_number_of_rows_and_large_requests_run_alone():
    for model, batch in [(Numbers(rows=2), np.ones(2)), (Numbers(), np.ones(1 << 17))]:
        batcher = Batcher(model, 1 << 20, 1)
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(batcher.predict, {"x": batch}) for _ in range(3)]
            model.go.set()
            for answer in answers:
                np.testing.assert_array_equal(answer.result()["y"], 2 * batch)
        assert model.sizes == [len(batch)] * 3


@pytest.mark.parametrize("max_batch_size", [0, 32])
def test_everybody_gets_their_own_answer(served_models, max_batch_size):
    with (
        xee_tf.serve(served_models / "scaled", max_batch_size=max_batch_size) as server,
        ThreadPoolExecutor(8) as pool,
    ):

        def ask(number):
            rows = np.full((1 + number % 3, 1, 1 + number % 2, 2), number).tolist()
            found = requests.post(
                address(server, "models/scaled:predict"), json={"instances": rows}, timeout=30
            )
            return found.json()["predictions"] == (2.0 * np.array(rows)).tolist()

        assert all(pool.map(ask, range(64)))


# -- Limits ------------------------------------------------------------------------------------------


def test_past_the_limit_requests_are_told_to_come_again(served_models):
    with xee_tf.serve(served_models, max_concurrency=2) as server, ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(taken, server, 1.0) for _ in range(2)]
        refused = until(lambda: is_full(server))
        assert refused.headers["Retry-After"] == "1"
        assert "try again" in refused.json()["error"]
        by_google = sleep(server, 0, "projects/p/locations/l/endpoints/slow:predict")
        assert by_google.headers["Retry-After"] == "1"
        assert by_google.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
        assert requests.get(f"{server}/health", timeout=30).status_code == 200
        assert [each.result().status_code for each in slow] == [200, 200]
        assert sleep(server, 0).status_code == 200


def test_grpc_has_the_same_limit(served_models):
    with xee_tf.serve(served_models, max_concurrency=1) as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(taken_by_grpc, server, 1.0)

        def refused():
            try:
                sleep_by_grpc(server, 0)
            except grpc.RpcError as error:
                return error
            return None

        assert until(refused).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert slow.result() == "[1.0]"
        assert taken_by_grpc(server, 0) == "[0.0]"


def test_clients_that_go_or_stay_silent_hold_no_place(served_models, monkeypatch):
    monkeypatch.setattr(bodies, "IDLE", 0.3)
    head = b"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    with xee_tf.serve(served_models, max_concurrency=1) as server:
        place = server.url.removeprefix("http://").split(":")
        with socket.create_connection(place) as gone:
            gone.sendall(head)
        assert taken(server, 0).status_code == 200
        with socket.create_connection(place) as silent:
            silent.sendall(head)
            assert silent.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert sleep(server, 0).status_code == 200


# -- The end -----------------------------------------------------------------------------------------


def test_requests_under_way_are_answered_before_the_end(served_models):
    threads, frozen = set(threading.enumerate()), gc.get_threshold()
    with ThreadPoolExecutor(2) as pool:
        with xee_tf.serve(served_models, max_concurrency=1) as server:
            slow = [pool.submit(ask, server, 0.5) for ask in (taken, taken_by_grpc)]
            until(lambda: is_full(server))
        assert slow[0].result().json() == {"predictions": [0.5]}
        assert slow[1].result() == "[0.5]"
    with pytest.raises(requests.ConnectionError):
        sleep(server, 0)
    with pytest.raises(grpc.RpcError) as caught:
        sleep_by_grpc(server, 0)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not {thread for thread in threading.enumerate() if "xee-tf" in thread.name} - threads
    assert gc.get_threshold() == frozen
    server.close()  # once more does no harm


def test_a_forgotten_server_ends(served_models):
    server = xee_tf.serve(served_models / "scaled")
    health = f"{server}/health"
    assert requests.get(health, timeout=30).status_code == 200
    del server
    with pytest.raises(requests.ConnectionError):
        requests.get(health, timeout=30)


def test_a_process_ends_although_its_server_runs(served_models):
    code = f"import xee_tf; server = xee_tf.serve({str(served_models / 'scaled')!r}); print(server.models)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "('scaled',)\n"
    assert "Traceback" not in done.stderr


def test_the_port_is_free_at_once(served_models):
    with xee_tf.serve(served_models / "scaled") as server:
        port, grpc_port = (int(place.rpartition(":")[2]) for place in (server.url, server.grpc))
        assert requests.get(f"{server}/health", timeout=30).status_code == 200
    with xee_tf.serve(served_models / "scaled", port=port, grpc_port=grpc_port) as server:
        assert server.url.endswith(f":{port}")
        assert requests.get(f"{server}/health", timeout=30).status_code == 200


@pytest.fixture
def interruptible():
    """The handler of a foreground process: a shell makes background jobs ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_two_signals_end_the_process_at_once(interruptible):
    with stop_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class Process:
    """What the command said, in the form of a server."""

    def __init__(self, line):
        _, _, places = line.partition(" at ")
        self.url, self.grpc = places.split()[0], places.split()[-1]

    def __str__(self):
        return self.url


@needs_posix
def test_the_command_serves_until_it_is_told_to_end(served_models):
    command = [sys.executable, "-m", "xee_tf", "model", "serve", str(served_models), "--port", "0"]
    command += ["--grpc-port", "0", "--labels", "stable=1", "--max-concurrency", "1"]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            server = Process(process.stdout.readline())
            stable = address(server, "models/scaled/labels/stable:predict")
            x = [[[[1.0, 2.0]]]]
            assert requests.post(stable, json={"instances": x}, timeout=30).json() == {"predictions": x}
            with ThreadPoolExecutor(2) as pool:
                slow = [pool.submit(ask, server, 0.5) for ask in (taken, taken_by_grpc)]
                until(lambda: is_full(server))
                process.send_signal(signal.SIGTERM)
                assert slow[0].result().status_code == 200
                assert slow[1].result() == "[0.5]"
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["model", "serve", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("xee-tf model serve: There is no SavedModel at")
    assert main(["model", "serve", str(tmp_path), "--labels", "stable"]) == 2
    assert "LABEL=VERSION" in capsys.readouterr().err
