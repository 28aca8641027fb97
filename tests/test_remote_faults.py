"""Servers and networks that fail: a prediction ends right, or with a clear error, and is never wrong."""

from __future__ import annotations

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
    ANSWER_TWICE,
    DUPLICATE,
    RESET,
    RESET_AFTER,
    TRUNCATE,
    TRUNCATE_SILENTLY,
    Delay,
    FaultProxy,
    Status,
    grpc_faults,
    tcp_cuts,
    until,
)
from xee_tf.connector import Connection, connected
from xee_tf.errors import PredictionError
from xee_tf.remote.retrying import retry_until
from xee_tf.serving.server import Server, serve


@pytest.fixture(scope="module")
def server(known_model: Path) -> Iterator[Server]:
    with serve(known_model) as server:
        yield server


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pauses, a hundred times shorter."""
    monkeypatch.setattr("xee_tf.remote.retrying._FIRST_PAUSE", 0.0025)


def rest(url: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_tf_serving(url, "known", **options)


def over_grpc(address: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_tf_serving(address, "known", transport="grpc", **options)


def predict(model: xee_tf.Model, size: int = 5, seed: int = 0) -> None:
    batch = batch_of(size, seed)
    assert_same(connected(model.connector).predict(batch), in_numpy(batch))


# -- What is repeated --------------------------------------------------------------------------------------

PASSING = [RESET, RESET_AFTER, TRUNCATE, *(Status(code) for code in (408, 429, 502, 503, 504))]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_what_passes_is_repeated(server: Server, fault: Any) -> None:
    with FaultProxy(server.url, (fault, fault)) as proxy:
        model = rest(proxy.url)
        predict(model)
        stats = model.stats()
        assert (stats.requests, stats.retries, stats.answered, stats.failures) == (3, 2, 1, 0)
        assert stats.throttled == (2 if isinstance(fault, Status) and fault.code == 429 else 0)
        assert len(proxy.bodies) == 3
        assert len(set(proxy.bodies)) == 1
        assert stats.bytes_sent == 3 * len(proxy.bodies[0])


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 413, 500, 501])
def test_what_does_not_pass_is_not_repeated(server: Server, code: int) -> None:
    with FaultProxy(server.url, (Status(code, b'{"error": "no way"}'),)) as proxy:
        model = rest(proxy.url)
        with pytest.raises(PredictionError, match=f"HTTP {code}.*It said: no way") as caught:
            predict(model)
        assert proxy.url in str(caught.value)
        assert "'known'" in str(caught.value)
        assert caught.value.instances == range(0, 5)
        assert len(proxy.bodies) == 1
        assert model.stats().failures == 1
        predict(model)  # it stays usable


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.UNAVAILABLE, "restarting"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "busy"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "slow"),
    ],
)
def test_what_passes_is_repeated_over_grpc(server: Server, code: grpc.StatusCode, words: str) -> None:
    with grpc_faults(server.grpc, ((code, words),) * 2) as (address, handler):
        model = over_grpc(address)
        predict(model)
        assert len(handler.bodies) == 3
        assert model.stats().throttled == (2 if words == "busy" else 0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "nonsense"),
        (grpc.StatusCode.PERMISSION_DENIED, "not you"),
        (grpc.StatusCode.UNAUTHENTICATED, "who are you"),
        (grpc.StatusCode.INTERNAL, "broken"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 3)"),
    ],
)
def test_what_does_not_pass_is_not_repeated_over_grpc(
    server: Server, code: grpc.StatusCode, words: str
) -> None:
    with grpc_faults(server.grpc, ((code, words),)) as (address, handler):
        model = over_grpc(address)
        with pytest.raises(PredictionError) as caught:
            predict(model)
        assert f"{code.name}. It said: {words}" in str(caught.value)
        assert ("max_payload_bytes" in str(caught.value)) == ("larger" in words)
        assert len(handler.bodies) == 1
        predict(model)


def test_connections_cut_in_the_middle_of_grpc(server: Server) -> None:
    sizes = (0, 100, 400, 900)
    with tcp_cuts(server.grpc, sizes) as address:
        model = over_grpc(address)
        # The signature takes the first cuts; predictions the rest.
        predict(model, 20)


def test_everything_at_once(server: Server) -> None:
    faults = [*PASSING, DUPLICATE, ANSWER_TWICE, Delay(0.05)] * 3
    np.random.default_rng(3).shuffle(faults)  # type: ignore[arg-type]
    with FaultProxy(server.url, tuple(faults)) as proxy:
        model = rest(proxy.url, max_payload_bytes=2500)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda seed: predict(model, 12, seed), range(8)))
        assert not proxy.faults
        assert model.stats().instances == 96


# -- Answers that are none ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (TRUNCATE_SILENTLY, "not JSON"),
        (Status(200, b"<html><body>Please log in</body></html>"), "not JSON.*log in"),
        (Status(200, b'{"predictions": []}'), "at least one"),
        (Status(200, b'{"predictions": [[1.0], [2.0]]}'), "for 5 instances"),
        (Status(200, b'{"error": "but 200"}'), "but 200"),
        (Status(200, b""), "not JSON"),
        (Status(204, b""), "HTTP 204"),
        (Status(307, b"", {"Location": "http://elsewhere.test/v1"}), "redirects to elsewhere.test"),
        (Status(500, b"<html><title>Oops</title><p>Try &amp; see</p></html>"), "It said: Oops Try & see"),
        (Status(413, b"Request payload size exceeds the limit: 1572864 bytes."), "lower max_payload_bytes"),
        (
            Status(400, b'{"error": {"code": 400, "message": "Response size too large. Received 3 bytes"}}'),
            "Response size too large.*Raise output_multiplier",
        ),
    ],
    ids=str,
)
def test_answers_that_are_none(server: Server, fault: Any, words: str) -> None:
    with FaultProxy(server.url, (fault,)) as proxy:
        model = rest(proxy.url)
        with pytest.raises(PredictionError, match=words) as caught:
            predict(model)
        assert len(str(caught.value)) < 1000
        assert len(proxy.bodies) == 1
        assert (model.stats().failures, model.stats().answered) == (1, 0)
        predict(model)


def test_other_outputs_each_time(server: Server) -> None:
    other = Status(200, b'{"predictions": [{"boxes": [[[1.0]]], "count": [[[1]]]}]}')
    with FaultProxy(server.url, (other,)) as proxy:
        model = rest(proxy.url, max_payload_bytes=900, max_concurrency=1)
        with pytest.raises(PredictionError, match="other outputs"):
            predict(model, 2)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_answers_have_a_largest_size(server: Server, transport: Any) -> None:
    address = server.url if transport == "rest" else server.grpc
    model = rest(address, transport=transport, max_response_bytes=3000)
    predict(model, 1)
    with pytest.raises(
        PredictionError, match=r"larger than max.*max_response_bytes|max_response_bytes=3,000"
    ):
        predict(model, 50)
    assert model.stats().retries == 0


def test_a_bomb_is_not_inflated(server: Server) -> None:
    import gzip

    bomb = gzip.compress(b" " * (64 << 20))
    with (
        FaultProxy(server.url, (Status(200, bomb, {"Content-Encoding": "gzip"}),)) as proxy,
        pytest.raises(PredictionError, match="max_response_bytes=1,000,000"),
    ):
        predict(rest(proxy.url, max_response_bytes=1_000_000))


# -- Time ------------------------------------------------------------------------------------------------


def test_a_server_that_is_slow(server: Server) -> None:
    with FaultProxy(server.url, (Delay(1.0),)) as proxy:
        model = rest(proxy.url, timeout=0.3)
        predict(model)
        assert model.stats().retries == 1


def test_an_answer_that_drips() -> None:
    """Each byte comes in time, their sum does not."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=dripping, args=(connection,), daemon=True).start()

    def dripping(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)

    threading.Thread(target=drip, daemon=True).start()
    model = xee_tf.Model.from_vertex_ai(
        "projects/p/locations/l/endpoints/1",
        base_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
        credentials=None,
        timeout=0.3,
        deadline=0.8,
    )
    start = time.monotonic()
    with pytest.raises(PredictionError, match=r"did not end in time.*attempts in 0\.\d s"):
        predict(model)
    assert time.monotonic() - start < 3
    listener.close()


def test_the_deadline_ends_it(server: Server) -> None:
    with FaultProxy(server.url, (Status(503, b"starting"),) * 500) as proxy:
        model = rest(proxy.url, deadline=0.5)
        start = time.monotonic()
        with pytest.raises(PredictionError, match=r"HTTP 503.*starting \(\d+ attempts in 0\.\d s\)"):
            predict(model)
        assert time.monotonic() - start < 3
        assert 3 < len(proxy.bodies) < 500


def test_what_the_server_asks_to_wait_is_waited(server: Server) -> None:
    with FaultProxy(server.url, (Status(503, headers={"Retry-After": "1"}),)) as proxy:
        start = time.monotonic()
        predict(rest(proxy.url))
        assert 1 <= time.monotonic() - start < 4
    with FaultProxy(server.url, (Status(429, headers={"Retry-After": "3600"}),)) as proxy:
        start = time.monotonic()
        with pytest.raises(PredictionError, match="HTTP 429"):
            predict(rest(proxy.url))
        assert time.monotonic() - start < 2  # there is no use in waiting for what comes too late


def test_pauses_grow_and_vary() -> None:
    from xee_tf.remote.responses import Response

    pauses: list[list[float]] = []
    for _ in range(200):
        taken: list[float] = []
        answers = iter([Response(503, "HTTP 503")] * 7 + [Response(200, "HTTP 200")])
        retry_until(lambda timeout, before, answers=answers: next(answers), 1, 1e6, taken.append)
        pauses.append(taken)
    found = np.array(pauses)
    bounds = 0.0025 * 2.0 ** np.arange(7)
    assert (found <= bounds).all()
    np.testing.assert_allclose(found.mean(axis=0) / bounds, 0.5, atol=0.12)  # five standard deviations
    assert len(np.unique(found)) == found.size


def test_a_server_that_dies_and_comes_back(known_model: Path) -> None:
    with serve(known_model) as first:
        http_port, grpc_port = (int(url.rpartition(":")[2]) for url in (first.url, first.grpc))
        models = [rest(first.url, max_payload_bytes=3000), over_grpc(first.grpc, max_payload_bytes=3000)]
        for model in models:
            predict(model)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(predict, model, 20, seed) for seed in range(2) for model in models]
        until(lambda: all(model.stats().retries >= 2 for model in models))
        assert not any(future.done() for future in futures)
        with serve(known_model, port=http_port, grpc_port=grpc_port):
            for future in futures:
                future.result(60)


def test_a_connection_survives_an_error(server: Server) -> None:
    connection: Connection = connected(rest(server.url).connector)
    with pytest.raises(PredictionError):
        connection.predict(batch_of(2) | {"b": batch_of(2, height=9)["b"]})
    assert_same(connection.predict(batch_of(2)), in_numpy(batch_of(2)))


@pytest.mark.parametrize(
    "fault", [Status(400, b'{"error": "no way"}'), Status(200, b"<p>log in</p>")], ids=str
)
def test_an_error_names_the_tile(server: Server, fault: Status) -> None:
    """The endpoint, the row, the column and the bounds of the tile, the status, the server's words."""
    grid = {"y": 5e6 - 10 * np.arange(32.0), "x": 4e5 + 10 * np.arange(24.0)}
    bands = {name: (("y", "x"), np.ones((32, 24), "float32")) for name in ("a", "b1", "b2")}
    image = xr.Dataset(bands, grid).rio.write_crs("EPSG:32633")
    with FaultProxy(server.url, (None,) * 7 + (fault,)) as proxy:
        model = rest(
            proxy.url,
            inputs={"a": "a", "b1": "b", "b2": "b"},
            input_tile_size=8,
            max_payload_bytes=1500,
            max_concurrency=1,
        )
        with dask.config.set(scheduler="synchronous"), pytest.raises(PredictionError) as caught:
            model.predict_image(image, batch_size=2).compute()
    # Twelve tiles, three in a row, one in a request: the eighth.
    assert len(proxy.bodies) == 8
    words = str(caught.value)
    for part in (
        f"TensorFlow Serving {proxy.url}, model 'known'",
        "row 2 and column 1",
        "400075, 4999765, 400155, 4999845",
        "HTTP 400 Bad Request. It said: no way" if fault.code == 400 else "log in",
    ):
        assert part in words
