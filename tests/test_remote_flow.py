"""Flow control: size of requests, limits on concurrent requests and on a cluster, statistics."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc")

import math
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.conftest import needs_posix
from tests.connector_conformance import assert_same, batch_of, in_numpy
from tests.faults import Delay, FaultProxy, Status, grpc_faults
from tests.waiting import wait_until
from xee_tf.connector import Connector, connected
from xee_tf.errors import OptionError, PredictionError
from xee_tf.remote.limits import AdaptiveLimit
from xee_tf.remote.responses import Response
from xee_tf.remote.statistics import PredictionStats, Recorder
from xee_tf.serving.server import Server, serve

ENDPOINT = "projects/p/locations/us-central1/endpoints/"


@pytest.fixture(scope="module")
def server(known_models: Path) -> Iterator[Server]:
    with serve(known_models) as server:
        yield server


def serving_rest(url: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_tf_serving(url, "known", **options)


def vertex_ai(url: str, name: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_vertex_ai(ENDPOINT + name, base_url=url, credentials=None, **options)


# -- Size of requests --------------------------------------------------------------------------------------

FORMATS = {
    "SERIALIZED_TF_TENSORS": ("prepared", "predict"),
    "RAW_JSON": ("known", "predict"),
    "GRPC_TF_TENSORS": ("known", "rawPredict"),
    "GRPC_SERIALIZED_TF_TENSORS": ("prepared", "rawPredict"),
}


@pytest.mark.parametrize("multiplier", [1, 2.5])
@pytest.mark.parametrize("payload_format", FORMATS)
def test_requests_are_as_large_as_allowed(server: Server, payload_format: str, multiplier: float) -> None:
    name, route = FORMATS[payload_format]
    with FaultProxy(server.url) as proxy:
        model = vertex_ai(
            proxy.url,
            name,
            payload_format=payload_format,
            numbers_as_strings=False,
            route=route,
            maxPayloadBytes=12_000,
            outputMultiplier=multiplier,
            max_concurrency=1,
        )
        batch = batch_of(60)
        outputs = connected(model.connector).predict(batch)
        np.testing.assert_array_equal(outputs["box"], in_numpy(batch)["box"])
        sizes = [len(body) for body in proxy.bodies]
        limit = 12_000 / multiplier
        whole = len(model.connector.payload.encode(batch))
        assert max(sizes) <= limit
        # Only the last request has room for another instance.
        assert min(sizes[:-1]) > limit - 1.1 * whole / 60
        assert len(sizes) == math.ceil(whole / limit) or len(sizes) > 3
        assert model.stats().bytes_sent == sum(sizes)


def test_size_includes_the_grpc_envelope(server: Server) -> None:
    with grpc_faults(server.grpc) as (address, handler):
        one = vertex_ai(f"http://{address}", "known", payload_format="GRPC_TF_TENSORS")
        connected(one.connector).predict(batch_of(3))
        [body] = handler.bodies
        exact = vertex_ai(
            f"http://{address}", "known", payload_format="GRPC_TF_TENSORS", max_payload_bytes=len(body) + 3
        )
        connected(exact.connector).predict(batch_of(3))
        assert handler.bodies[1:] == [body]
        less = vertex_ai(
            f"http://{address}",
            "known",
            payload_format="GRPC_TF_TENSORS",
            max_payload_bytes=len(body) - 1,
            max_concurrency=1,
        )
        connected(less.connector).predict(batch_of(3))
        assert [len(body) < len(handler.bodies[1]) for body in handler.bodies[2:]] == [True, True]


def image_of(side: int, bands: int = 6) -> xr.Dataset:
    grid = {"y": -30.0 * np.arange(side), "x": 30.0 * np.arange(side)}
    values = np.ones((side, side), "float32")
    return xr.Dataset({f"B{i}": (("y", "x"), values) for i in range(bands)}, grid).rio.write_crs("EPSG:32633")


@pytest.mark.parametrize("overlap", [0, 8])
@pytest.mark.parametrize(
    ("payload_format", "side"),
    [
        ("SERIALIZED_TF_TENSORS", 216),
        ("GRPC_TF_TENSORS", 249),
        ("GRPC_SERIALIZED_TF_TENSORS", 216),
        ("GRPC_TF_EXAMPLES", 249),
        ("ND_ARRAYS", None),
        ("RAW_JSON", None),
    ],
)
def test_tile_that_is_too_large_is_an_error(payload_format: str, side: int | None, overlap: int) -> None:
    """The largest tile is that of Earth Engine's limit of 1.5 MB."""

    def model(tile: int) -> xee_tf.Model:
        return xee_tf.Model.from_vertex_ai(
            ENDPOINT + "1",
            payload_format=payload_format,
            input_tile_size=tile,
            input_overlap_size=overlap,
            output_bands={"p": "float32"},
        )

    with pytest.raises(OptionError, match=r"1,500,000.*largest.*max_payload_bytes") as caught:
        model(1000).predict_image(image_of(32))
    message = str(caught.value)
    assert payload_format in message
    assert ENDPOINT + "1" in message
    best = int(re.search(r"input_tile_size=\((\d+), \1\)", message)[1])  # type: ignore[index]
    model(best).predict_image(image_of(32))
    with pytest.raises(OptionError, match=rf"input_tile_size=\({best}, {best}\)"):
        model(best + 1).predict_image(image_of(32))
    if side is not None:
        assert best + 2 * overlap == side


def test_pixel_that_is_too_large_is_an_error() -> None:
    model = xee_tf.Model.from_vertex_ai(
        ENDPOINT + "1", max_payload_bytes=50, input_tile_size=8, output_bands={"p": "float32"}
    )
    with pytest.raises(OptionError, match="Not even a tile of one pixel"):
        model.predict_image(image_of(8))


def test_text_that_is_too_long_is_an_error(server: Server) -> None:
    """The size of numbers as text is known only after encoding."""
    batch = batch_of(3)
    batch["a"][1] = np.float32(-1.2345678e-30)
    with FaultProxy(server.url) as proxy:
        payload = serving_rest(proxy.url).connector.payload
        limit = len(payload.encode({name: array[:1] for name, array in batch.items()})) + 5
        model = serving_rest(proxy.url, max_payload_bytes=limit)
        assert not model.connector.size_problem({name: (a.dtype, a.shape[1:]) for name, a in batch.items()})
        with pytest.raises(PredictionError, match=rf"RAW_JSON.*{limit:,}.*max_payload_bytes") as caught:
            connected(model.connector).predict(batch)
        assert "Instance 1" in str(caught.value)
        assert caught.value.instances == range(3)
        assert not proxy.bodies


# -- Concurrent requests -----------------------------------------------------------------------------------


def test_max_concurrency_in_threads(server: Server) -> None:
    with FaultProxy(server.url, hold=0.02) as proxy:
        model = serving_rest(proxy.url, max_payload_bytes=2500, max_concurrency=3)
        connection = connected(model.connector)

        def predict(seed: int) -> None:
            assert_same(connection.predict(batch_of(12, seed)), in_numpy(batch_of(12, seed)))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(predict, range(8)))
        assert proxy.max_active == 3
    with FaultProxy(server.url, hold=0.05) as proxy:
        model = serving_rest(proxy.url, max_payload_bytes=2500, max_concurrency=6)
        connected(model.connector).predict(batch_of(30))
        assert proxy.max_active == 6  # from one thread, because the requests of a batch are sent concurrently


def test_limit_is_reduced_and_recovers(server: Server) -> None:
    with FaultProxy(server.url, (Status(429),) * 8, hold=0.02) as proxy:
        model = serving_rest(proxy.url, max_payload_bytes=900, max_concurrency=8)
        connection: Any = connected(model.connector)
        connection.predict(batch_of(8))
        assert model.stats().throttled == 8
        assert 1 <= connection._limit.current < 8
        proxy.max_active = 0
        connection.predict(batch_of(64))
        assert connection._limit.current == 8
        assert proxy.max_active == 8


@given(st.integers(1, 20), st.lists(st.sampled_from([200, 429, 503, 0]), max_size=60), st.randoms())
def test_limit_stays_within_bounds(maximum: int, codes: list[int], random: Any) -> None:
    limit = AdaptiveLimit(maximum)
    for code in codes:
        before = limit.current
        limit.run(lambda code=code: Response(code, str(code)))  # type: ignore[misc]
        assert 1 <= limit.current <= maximum
        if code == 429:
            assert limit.current <= max(1, before / 2)
        elif code != 200:
            assert limit.current == before
    for _ in range(maximum * maximum):
        limit.run(lambda: Response(200, "HTTP 200"))
    assert limit.current == maximum


def test_concurrent_429_reduce_the_limit_once() -> None:
    limit = AdaptiveLimit(16)
    ready = threading.Barrier(16)

    def send() -> Response:
        ready.wait()
        return Response(429, "HTTP 429")

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(limit.run, send) for _ in range(16)]:
            future.result()
    assert limit.current == 8


# -- On a cluster ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    """A cluster of three workers; leases of lost workers are released after 2 instead of 30 seconds."""
    settings = {
        "distributed.scheduler.locks.lease-timeout": "2s",
        "distributed.scheduler.locks.lease-validation-interval": "200ms",
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=3, threads_per_worker=2, processes=True, dashboard_address=":0", host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _predict(connector: Connector, seed: int) -> dict[str, np.ndarray]:
    return connected(connector).predict(batch_of(6, seed))


def test_max_concurrency_on_a_cluster(server: Server, cluster: Client) -> None:
    with FaultProxy(server.url, hold=0.03) as proxy:
        model = serving_rest(proxy.url, max_payload_bytes=1500, max_concurrency=2)
        futures = [cluster.submit(_predict, model.connector, seed, pure=False) for seed in range(12)]
        for seed, outputs in enumerate(cluster.gather(futures)):
            assert_same(outputs, in_numpy(batch_of(6, seed)))
        assert proxy.max_active == 2
        stats = model.stats()
        assert stats.instances == 72
        assert stats.answered == len(proxy.bodies)
        assert stats.bytes_sent == sum(map(len, proxy.bodies))
        assert 0.02 < stats.latency(0.5) < 5


def _die(connector: Connector, marker: str) -> dict[str, np.ndarray]:
    """Kill the first worker that calls this function during its request."""
    try:
        os.mkdir(marker)
    except FileExistsError:
        return _predict(connector, 1)
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return _predict(connector, 1)


@needs_posix
def test_lease_of_a_killed_worker_is_released(server: Server, cluster: Client, tmp_path: Path) -> None:
    with FaultProxy(server.url, (Delay(1.5),)) as proxy:
        model = serving_rest(proxy.url, max_concurrency=1)
        outputs = cluster.submit(_die, model.connector, str(tmp_path / "died"), pure=False).result(60)
        assert_same(outputs, in_numpy(batch_of(6, 1)))
        for seed in range(3):
            assert_same(
                cluster.submit(_predict, model.connector, seed, pure=False).result(60),
                in_numpy(batch_of(6, seed)),
            )
        assert len(proxy.bodies) == 5


def test_predict_image_on_a_cluster(server: Server, cluster: Client) -> None:
    rng = np.random.default_rng(1)
    scene = image_of(96, 3).chunk(y=48, x=48)
    for name in scene.data_vars:
        scene[name] = scene[name].copy(data=rng.integers(-9, 9, (96, 96)).astype("float32")).chunk(48)
    options: dict[str, Any] = {"inputs": {"B0": "a", "B1": "b", "B2": "b"}, "input_tile_size": 16}
    with FaultProxy(server.url, (Status(503),) * 3 + (Status(429),) * 2, hold=0.005) as proxy:
        model = serving_rest(proxy.url, max_concurrency=2, max_payload_bytes=20_000, **options)
        found = model.predict_image(scene, merge=False).compute()
        assert proxy.max_active <= 2
        assert model.stats().retries == 5
    with dask.config.set(scheduler="threads"):
        expected = serving_rest(server.url, **options).predict_image(scene, merge=False).compute()
    xr.testing.assert_identical(found, expected)


def _kill_once(block: np.ndarray, marker: str) -> np.ndarray:
    try:
        os.mkdir(marker)
    except FileExistsError:
        return block
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@needs_posix
def test_predict_image_with_a_killed_worker(server: Server, cluster: Client, tmp_path: Path) -> None:
    scene = image_of(96, 3).chunk(y=32, x=32)
    options: dict[str, Any] = {"inputs": {"B0": "a", "B1": "b", "B2": "b"}, "input_tile_size": 16}
    model = serving_rest(server.url, max_concurrency=2, **options)
    expected = model.predict_image(scene, merge=False).compute(scheduler="threads")
    marker = str(tmp_path / "killed")
    fatal = scene["B1"].data.map_blocks(_kill_once, marker, meta=np.empty((0, 0), "f4"))
    found = model.predict_image(scene.assign(B1=scene["B1"].copy(data=fatal)), merge=False).compute()
    assert os.path.exists(marker)
    xr.testing.assert_identical(found, expected)


# -- Statistics --------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_latency_precision(seconds: list[float], quantile: float) -> None:
    recorders = [Recorder(), Recorder()]
    for index, value in enumerate(seconds):
        recorders[index % 2].add_attempt(1, Response(200, "HTTP 200", seconds=value), is_retry=False)
    total = recorders[0].stats() + recorders[1].stats()
    expected = float(np.quantile(seconds, quantile, method="inverted_cdf"))
    assert total.latency(quantile) == pytest.approx(expected, rel=0.06)
    assert total.requests == len(seconds)
    assert total.seconds == pytest.approx(sum(seconds))


def test_empty_statistics() -> None:
    assert math.isnan(PredictionStats().latency(0.5))
    assert "0 instances in 0 requests, 0 retries, 0 failures" in repr(PredictionStats())


def test_statistics_during_a_prediction(server: Server) -> None:
    with FaultProxy(server.url, hold=0.15) as proxy:
        model = serving_rest(proxy.url, max_payload_bytes=900, max_concurrency=1)
        thread = threading.Thread(target=connected(model.connector).predict, args=(batch_of(60),))
        thread.start()
        wait_until(lambda: 0 < model.stats().answered < 60)
        thread.join()
        assert model.stats().answered == model.stats().instances == 60
        assert model.stats().bytes_received > 0
