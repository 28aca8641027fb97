"""Failures of servers and networks: predictions are correct, or fail with a clear error."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc")

import dask
import grpc
import numpy as np
import xarray as xr

import xee_tf
from tests.connector_conformance import assert_same, batch_of, in_numpy
from tests.faults import (
    DUPLICATE,
    RESET,
    RESET_AFTER,
    RESPOND_TWICE,
    TRUNCATE,
    TRUNCATE_SILENTLY,
    Delay,
    FaultProxy,
    Status,
    grpc_faults,
    tcp_resets,
)
from tests.waiting import wait_until
from xee_tf.connector import Connection, connected
from xee_tf.errors import ModelError, PredictionError, RecordError
from xee_tf.remote.retrying import retry_until
from xee_tf.serving.server import Server, serve


@pytest.fixture(scope="module")
def server(known_model: Path) -> Iterator[Server]:
    with serve(known_model) as server:
        yield server


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pauses between attempts a hundred times shorter."""
    monkeypatch.setattr("xee_tf.remote.retrying._FIRST_PAUSE", 0.0025)


def serving_rest(url: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_tf_serving(url, "known", **options)


def serving_grpc(address: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_tf_serving(address, "known", transport="grpc", **options)


def predict(model: xee_tf.Model, size: int = 5, seed: int = 0) -> None:
    batch = batch_of(size, seed)
    assert_same(connected(model.connector).predict(batch), in_numpy(batch))


# -- Retries -----------------------------------------------------------------------------------------------

TRANSIENT = [RESET, RESET_AFTER, TRUNCATE, *(Status(code) for code in (408, 429, 502, 503, 504))]


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
def test_transient_failures_are_retried(server: Server, fault: Any) -> None:
    with FaultProxy(server.url, (fault, fault)) as proxy:
        model = serving_rest(proxy.url)
        predict(model)
        stats = model.stats()
        assert (stats.requests, stats.retries, stats.answered, stats.failures) == (3, 2, 1, 0)
        assert stats.throttled == (2 if isinstance(fault, Status) and fault.code == 429 else 0)
        assert len(proxy.bodies) == 3
        assert len(set(proxy.bodies)) == 1
        assert stats.bytes_sent == 3 * len(proxy.bodies[0])


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 413, 500, 501])
def test_permanent_failures_are_not_retried(server: Server, code: int) -> None:
    with FaultProxy(server.url, (Status(code, b'{"error": "no way"}'),)) as proxy:
        model = serving_rest(proxy.url)
        with pytest.raises(PredictionError, match=f"HTTP {code}.*: no way") as caught:
            predict(model)
        assert proxy.url in str(caught.value)
        assert "'known'" in str(caught.value)
        assert caught.value.instances == range(0, 5)
        assert len(proxy.bodies) == 1
        assert model.stats().failures == 1
        predict(model)  # it remains usable


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, "restarting"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "busy"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "slow"),
    ],
)
def test_transient_grpc_failures_are_retried(server: Server, code: grpc.StatusCode, message: str) -> None:
    with grpc_faults(server.grpc, ((code, message),) * 2) as (address, handler):
        model = serving_grpc(address)
        predict(model)
        assert len(handler.bodies) == 3
        assert model.stats().throttled == (2 if message == "busy" else 0)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "nonsense"),
        (grpc.StatusCode.PERMISSION_DENIED, "no access"),
        (grpc.StatusCode.UNAUTHENTICATED, "no token"),
        (grpc.StatusCode.INTERNAL, "broken"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 3)"),
    ],
)
def test_permanent_grpc_failures_are_not_retried(server: Server, code: grpc.StatusCode, message: str) -> None:
    with grpc_faults(server.grpc, ((code, message),)) as (address, handler):
        model = serving_grpc(address)
        with pytest.raises(PredictionError) as caught:
            predict(model)
        assert f"{code.name}: {message}" in str(caught.value)
        assert ("max_payload_bytes" in str(caught.value)) == ("larger" in message)
        assert len(handler.bodies) == 1
        predict(model)


def test_interrupted_grpc_connections(server: Server) -> None:
    sizes = (0, 100, 400, 900)
    with tcp_resets(server.grpc, sizes) as address:
        model = serving_grpc(address)
        # The first cuts affect the signature, the others the predictions.
        predict(model, 20)


def test_many_faults_in_threads(server: Server) -> None:
    faults = [*TRANSIENT, DUPLICATE, RESPOND_TWICE, Delay(0.05)] * 3
    np.random.default_rng(3).shuffle(faults)  # type: ignore[arg-type]
    with FaultProxy(server.url, tuple(faults)) as proxy:
        model = serving_rest(proxy.url, max_payload_bytes=2500)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda seed: predict(model, 12, seed), range(8)))
        assert not proxy.faults
        assert model.stats().instances == 96


# -- Invalid responses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (TRUNCATE_SILENTLY, "not valid JSON"),
        (Status(200, b"<html><body>Please log in</body></html>"), "not valid JSON.*log in"),
        (Status(200, b'{"predictions": []}'), "list that is not empty"),
        (Status(200, b'{"predictions": [[1.0], [2.0]]}'), "expected 5 instances"),
        (Status(200, b'{"error": "but 200"}'), "but 200"),
        (Status(200, b""), "not valid JSON"),
        (Status(204, b""), "HTTP 204"),
        (Status(307, b"", {"Location": "http://elsewhere.test/v1"}), "redirects to elsewhere.test"),
        (Status(500, b"<html><title>Oops</title><p>Try &amp; see</p></html>"), ": Oops Try & see"),
        (Status(413, b"Request payload size exceeds the limit: 1572864 bytes."), "lower max_payload_bytes"),
        (
            Status(400, b'{"error": {"code": 400, "message": "Response size too large. Received 3 bytes"}}'),
            "Response size too large.*Raise output_multiplier",
        ),
    ],
    ids=str,
)
def test_invalid_responses(server: Server, fault: Any, message: str) -> None:
    with FaultProxy(server.url, (fault,)) as proxy:
        model = serving_rest(proxy.url)
        with pytest.raises(PredictionError, match=message) as caught:
            predict(model)
        assert len(str(caught.value)) < 1000
        assert len(proxy.bodies) == 1
        assert (model.stats().failures, model.stats().answered) == (1, 0)
        predict(model)


def test_different_outputs_in_one_batch(server: Server) -> None:
    other = Status(200, b'{"predictions": [{"boxes": [[[1.0]]], "count": [[[1]]]}]}')
    with FaultProxy(server.url, (other,)) as proxy:
        model = serving_rest(proxy.url, max_payload_bytes=900, max_concurrency=1)
        with pytest.raises(PredictionError, match="one batch: 'boxes', 'count' and 'box', 'count'"):
            predict(model, 2)


def test_servers_return_outputs_in_any_order(server: Server) -> None:
    first = {name: values[:1] for name, values in in_numpy(batch_of(2)).items()}
    for names in (["box", "count"], ["count", "box"]):
        answer = json.dumps({"predictions": [{name: first[name][0].tolist() for name in names}]}).encode()
        with FaultProxy(server.url, (Status(200, answer),)) as proxy:
            predict(serving_rest(proxy.url, max_payload_bytes=900, max_concurrency=1), 2)
            assert len(proxy.bodies) == 2


def test_errors_with_long_names_are_masked_quickly(server: Server) -> None:
    known = connected(serving_rest(server.url).connector)
    with pytest.raises(PredictionError) as caught, known._masked_errors():
        raise PredictionError("x y" * 10**6, instances=range(2))
    assert len(caught.value.args[0]) <= 2000
    assert caught.value.instances == range(2)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_max_response_bytes(server: Server, transport: Any) -> None:
    address = server.url if transport == "rest" else server.grpc
    model = serving_rest(address, transport=transport, max_response_bytes=3000)
    predict(model, 1)
    with pytest.raises(
        PredictionError, match=r"larger than max.*max_response_bytes|max_response_bytes=3,000"
    ):
        predict(model, 50)
    assert model.stats().retries == 0


def test_decompression_bomb_is_rejected(server: Server) -> None:
    import gzip

    bomb = gzip.compress(b" " * (64 << 20))
    with (
        FaultProxy(server.url, (Status(200, bomb, {"Content-Encoding": "gzip"}),)) as proxy,
        pytest.raises(PredictionError, match="max_response_bytes=1,000,000"),
    ):
        predict(serving_rest(proxy.url, max_response_bytes=1_000_000))


# -- Time ------------------------------------------------------------------------------------------------


def test_slow_response_is_retried(server: Server) -> None:
    with FaultProxy(server.url, (Delay(1.0),)) as proxy:
        model = serving_rest(proxy.url, timeout=0.3)
        predict(model)
        assert model.stats().retries == 1


def test_response_that_exceeds_the_timeout_in_parts() -> None:
    """Each byte arrives in time, but not all of them."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)

    threading.Thread(target=accept, daemon=True).start()
    model = xee_tf.Model.from_vertex_ai(
        "projects/p/locations/l/endpoints/1",
        base_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
        credentials=None,
        timeout=0.3,
        deadline=0.8,
    )
    start = time.monotonic()
    with pytest.raises(PredictionError, match=r"was not received in time.*attempts in 0\.\d s"):
        predict(model)
    assert time.monotonic() - start < 3
    listener.close()


def test_deadline(server: Server) -> None:
    with FaultProxy(server.url, (Status(503, b"starting"),) * 500) as proxy:
        model = serving_rest(proxy.url, deadline=0.5)
        start = time.monotonic()
        with pytest.raises(PredictionError, match=r"HTTP 503.*starting \(\d+ attempts in 0\.\d s\)"):
            predict(model)
        assert time.monotonic() - start < 3
        assert 3 < len(proxy.bodies) < 500


def test_retry_after(server: Server) -> None:
    with FaultProxy(server.url, (Status(503, headers={"Retry-After": "1"}),)) as proxy:
        start = time.monotonic()
        predict(serving_rest(proxy.url))
        assert 1 <= time.monotonic() - start < 4
    with FaultProxy(server.url, (Status(429, headers={"Retry-After": "3600"}),)) as proxy:
        start = time.monotonic()
        with pytest.raises(PredictionError, match="HTTP 429"):
            predict(serving_rest(proxy.url))
        assert time.monotonic() - start < 2  # it does not wait if the deadline would pass


@pytest.mark.parametrize(
    "value",
    [
        "9" * 5000,
        "1e999",
        "nan",
        "Mon, 01 Jan 0001 00:00:00 -0000",
        "Wed, 21 Oct 2015 07:28:00 +" + "9" * 12,
        f"Wed, {'9' * 12} Oct 2015 07:28:00 GMT",
        f"Wed, 21 Oct {'9' * 30} 07:28:00 GMT",
    ],
)
def test_retry_after_that_is_no_time(server: Server, value: str) -> None:
    with FaultProxy(server.url, (Status(503, headers={"Retry-After": value}),)) as proxy:
        predict(serving_rest(proxy.url))
        assert len(proxy.bodies) == 2


@pytest.mark.parametrize("length", ["-7", "\u0669", "x"])
def test_content_length_that_is_no_length(length: str) -> None:
    """The response is read until the server closes the connection."""
    with pytest.raises(RecordError, match="not valid: b'not JSON'"):
        respond_once(length)


@pytest.mark.parametrize("length", ["9" * 5000, "9" * 20, str(2**63)])
def test_content_length_of_many_digits(length: str) -> None:
    with pytest.raises(ModelError, match="larger than max_response_bytes"):
        respond_once(length)


def respond_once(length: str) -> None:
    """Connect to a server that sends this Content-Length and closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def respond() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode() + b"not JSON")

    thread = threading.Thread(target=respond)
    with listener:
        thread.start()
        try:
            predict(serving_rest(f"http://127.0.0.1:{listener.getsockname()[1]}", deadline=1.0))
        finally:
            thread.join()


def test_pauses_are_random_and_grow() -> None:
    from xee_tf.remote.responses import Response

    pauses: list[list[float]] = []
    for _ in range(200):
        taken: list[float] = []
        responses = iter([Response(503, "HTTP 503")] * 7 + [Response(200, "HTTP 200")])
        retry_until(lambda timeout, attempts, left=responses: next(left), 1, 1e6, taken.append)
        pauses.append(taken)
    found = np.array(pauses)
    bounds = 0.0025 * 2.0 ** np.arange(7)
    assert (found <= bounds).all()
    np.testing.assert_allclose(found.mean(axis=0) / bounds, 0.5, atol=0.12)  # five standard deviations
    assert len(np.unique(found)) == found.size


def test_server_restart(known_model: Path) -> None:
    with serve(known_model) as first:
        http_port, grpc_port = (int(url.rpartition(":")[2]) for url in (first.url, first.grpc))
        models = [
            serving_rest(first.url, max_payload_bytes=3000),
            serving_grpc(first.grpc, max_payload_bytes=3000),
        ]
        for model in models:
            predict(model)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(predict, model, 20, seed) for seed in range(2) for model in models]
        wait_until(lambda: all(model.stats().retries >= 2 for model in models))
        assert not any(future.done() for future in futures)
        with serve(known_model, port=http_port, grpc_port=grpc_port):
            for future in futures:
                future.result(60)


def test_connection_remains_usable_after_an_error(server: Server) -> None:
    connection: Connection = connected(serving_rest(server.url).connector)
    with pytest.raises(PredictionError):
        connection.predict(batch_of(2) | {"b": batch_of(2, height=9)["b"]})
    assert_same(connection.predict(batch_of(2)), in_numpy(batch_of(2)))


@pytest.mark.parametrize(
    "fault", [Status(400, b'{"error": "no way"}'), Status(200, b"<p>log in</p>")], ids=str
)
def test_error_names_the_tile(server: Server, fault: Status) -> None:
    """It has the endpoint, the row, column and bounds of the tile, the status and the server's message."""
    grid = {"y": 5e6 - 10 * np.arange(32.0), "x": 4e5 + 10 * np.arange(24.0)}
    bands = {name: (("y", "x"), np.ones((32, 24), "float32")) for name in ("a", "b1", "b2")}
    image = xr.Dataset(bands, grid).rio.write_crs("EPSG:32633")
    with FaultProxy(server.url, (None,) * 7 + (fault,)) as proxy:
        model = serving_rest(
            proxy.url,
            inputs={"a": "a", "b1": "b", "b2": "b"},
            input_tile_size=8,
            max_payload_bytes=1500,
            max_concurrency=1,
        )
        with dask.config.set(scheduler="synchronous"), pytest.raises(PredictionError) as caught:
            model.predict_image(image, batch_size=2).compute()
    # The eighth of twelve tiles, with three in each row and one in each request.
    assert len(proxy.bodies) == 8
    message = str(caught.value)
    for part in (
        f"TensorFlow Serving {proxy.url}, model 'known'",
        "row 2 and column 1",
        "400075, 4999765, 400155, 4999845",
        "HTTP 400 Bad Request: no way" if fault.code == 400 else "log in",
    ):
        assert part in message
