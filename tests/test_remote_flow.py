"""How much is sent at a time: packing, limits on many workers, what the server asks for, statistics."""

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
from tests.faults import Delay, FaultProxy, Status, grpc_faults, until
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


def rest(url: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_tf_serving(url, "known", **options)


def vertex(url: str, name: str, **options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_vertex_ai(ENDPOINT + name, base_url=url, credentials=None, **options)


# -- Packing -----------------------------------------------------------------------------------------------

FORMATS = {
    "SERIALIZED_TF_TENSORS": ("prepared", "predict"),
    "RAW_JSON": ("known", "predict"),
    "GRPC_TF_TENSORS": ("known", "rawPredict"),
    "GRPC_SERIALIZED_TF_TENSORS": ("prepared", "rawPredict"),
}


@pytest.mark.parametrize("multiplier", [1, 2.5])
@pytest.mark.parametrize("payload_format", FORMATS)
def test_requests_are_as_large_as_they_may_be(server: Server, payload_format: str, multiplier: float) -> None:
    name, route = FORMATS[payload_format]
    with FaultProxy(server.url) as proxy:
        model = vertex(
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
        answer = connected(model.connector).predict(batch)
        np.testing.assert_array_equal(answer["box"], in_numpy(batch)["box"])
        sizes = [len(body) for body in proxy.bodies]
        limit = 12_000 / multiplier
        whole = len(model.connector.payload.encode(batch))
        assert max(sizes) <= limit
        # One instance more would not have fitted into any but the last.
        assert min(sizes[:-1]) > limit - 1.1 * whole / 60
        assert len(sizes) == math.ceil(whole / limit) or len(sizes) > 3
        assert model.stats().bytes_sent == sum(sizes)


def test_the_envelope_of_grpc_counts(server: Server) -> None:
    with grpc_faults(server.grpc) as (address, handler):
        one = vertex(f"http://{address}", "known", payload_format="GRPC_TF_TENSORS")
        connected(one.connector).predict(batch_of(3))
        [body] = handler.bodies
        exact = vertex(
            f"http://{address}", "known", payload_format="GRPC_TF_TENSORS", max_payload_bytes=len(body) + 3
        )
        connected(exact.connector).predict(batch_of(3))
        assert handler.bodies[1:] == [body]
        less = vertex(
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
def test_a_tile_that_never_fits_is_refused_before_anything_is_sent(
    payload_format: str, side: int | None, overlap: int
) -> None:
    """As large as what is sent in Earth Engine's megabyte and a half."""

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
    words = str(caught.value)
    assert payload_format in words
    assert ENDPOINT + "1" in words
    best = int(re.search(r"input_tile_size=\((\d+), \1\)", words)[1])  # type: ignore[index]
    model(best).predict_image(image_of(32))
    with pytest.raises(OptionError, match=rf"input_tile_size=\({best}, {best}\)"):
        model(best + 1).predict_image(image_of(32))
    if side is not None:
        assert best + 2 * overlap == side


def test_not_even_a_pixel_fits() -> None:
    model = xee_tf.Model.from_vertex_ai(
        ENDPOINT + "1", max_payload_bytes=50, input_tile_size=8, output_bands={"p": "float32"}
    )
    with pytest.raises(OptionError, match="Not even a tile of one pixel"):
        model.predict_image(image_of(8))


def test_numbers_that_turn_out_too_long(server: Server) -> None:
    """Of text only the least size is known before; what is longer is refused when it is there."""
    batch = batch_of(3)
    batch["a"][1] = np.float32(-1.2345678e-30)
    with FaultProxy(server.url) as proxy:
        payload = rest(proxy.url).connector.payload
        limit = len(payload.encode({name: array[:1] for name, array in batch.items()})) + 5
        model = rest(proxy.url, max_payload_bytes=limit)
        assert not model.connector.size_problem({name: (a.dtype, a.shape[1:]) for name, a in batch.items()})
        with pytest.raises(PredictionError, match=rf"RAW_JSON.*{limit:,}.*max_payload_bytes") as caught:
            connected(model.connector).predict(batch)
        assert "Instance 1" in str(caught.value)
        assert caught.value.instances == range(3)
        assert not proxy.bodies


# -- At one time -------------------------------------------------------------------------------------------


def test_no_more_at_one_time_in_threads(server: Server) -> None:
    with FaultProxy(server.url, hold=0.02) as proxy:
        model = rest(proxy.url, max_payload_bytes=2500, max_concurrency=3)
        connection = connected(model.connector)

        def ask(seed: int) -> None:
            assert_same(connection.predict(batch_of(12, seed)), in_numpy(batch_of(12, seed)))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
        assert proxy.most == 3
    with FaultProxy(server.url, hold=0.05) as proxy:
        model = rest(proxy.url, max_payload_bytes=2500, max_concurrency=6)
        connected(model.connector).predict(batch_of(30))
        assert proxy.most == 6  # from one thread: the requests of a batch are sent together


def test_the_limit_halves_and_comes_back(server: Server) -> None:
    with FaultProxy(server.url, (Status(429),) * 8, hold=0.02) as proxy:
        model = rest(proxy.url, max_payload_bytes=900, max_concurrency=8)
        connection: Any = connected(model.connector)
        connection.predict(batch_of(8))
        assert model.stats().throttled == 8
        assert 1 <= connection._limit.now < 8
        proxy.most = 0
        connection.predict(batch_of(64))
        assert connection._limit.now == 8
        assert proxy.most == 8


@given(st.integers(1, 20), st.lists(st.sampled_from([200, 429, 503, 0]), max_size=60), st.randoms())
def test_the_limit_stays_within_its_bounds(most: int, codes: list[int], random: Any) -> None:
    limit = AdaptiveLimit(most)
    for code in codes:
        before = limit.now
        limit.run(lambda code=code: Response(code, str(code)))  # type: ignore[misc]
        assert 1 <= limit.now <= most
        if code == 429:
            assert limit.now <= max(1, before / 2)
        elif code != 200:
            assert limit.now == before
    for _ in range(most * most):
        limit.run(lambda: Response(200, "HTTP 200"))
    assert limit.now == most


def test_one_429_after_another_is_one_if_they_were_sent_together() -> None:
    limit = AdaptiveLimit(16)
    ready = threading.Barrier(16)

    def send() -> Response:
        ready.wait()
        return Response(429, "HTTP 429")

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(limit.run, send) for _ in range(16)]:
            future.result()
    assert limit.now == 8


# -- On a cluster ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    """Three workers; leases of lost ones come back after two seconds rather than thirty."""
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


def test_no_more_at_one_time_on_a_cluster(server: Server, cluster: Client) -> None:
    with FaultProxy(server.url, hold=0.03) as proxy:
        model = rest(proxy.url, max_payload_bytes=1500, max_concurrency=2)
        futures = [cluster.submit(_predict, model.connector, seed, pure=False) for seed in range(12)]
        for seed, answer in enumerate(cluster.gather(futures)):
            assert_same(answer, in_numpy(batch_of(6, seed)))
        assert proxy.most == 2
        stats = model.stats()
        assert stats.instances == 72
        assert stats.answered == len(proxy.bodies)
        assert stats.bytes_sent == sum(map(len, proxy.bodies))
        assert 0.02 < stats.latency(0.5) < 5


def _die(connector: Connector, marker: str) -> dict[str, np.ndarray]:
    """The first worker that comes here is killed while its request is on its way."""
    try:
        os.mkdir(marker)
    except FileExistsError:
        return _predict(connector, 1)
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return _predict(connector, 1)


@needs_posix
def test_a_worker_that_is_killed_gives_its_lease_back(
    server: Server, cluster: Client, tmp_path: Path
) -> None:
    with FaultProxy(server.url, (Delay(1.5),)) as proxy:
        model = rest(proxy.url, max_concurrency=1)
        answer = cluster.submit(_die, model.connector, str(tmp_path / "died"), pure=False).result(60)
        assert_same(answer, in_numpy(batch_of(6, 1)))
        for seed in range(3):
            assert_same(
                cluster.submit(_predict, model.connector, seed, pure=False).result(60),
                in_numpy(batch_of(6, seed)),
            )
        assert len(proxy.bodies) == 5


def test_an_image_on_a_cluster(server: Server, cluster: Client) -> None:
    rng = np.random.default_rng(1)
    scene = image_of(96, 3).chunk(y=48, x=48)
    for name in scene.data_vars:
        scene[name] = scene[name].copy(data=rng.integers(-9, 9, (96, 96)).astype("float32")).chunk(48)
    options: dict[str, Any] = {"inputs": {"B0": "a", "B1": "b", "B2": "b"}, "input_tile_size": 16}
    with FaultProxy(server.url, (Status(503),) * 3 + (Status(429),) * 2, hold=0.005) as proxy:
        model = rest(proxy.url, max_concurrency=2, max_payload_bytes=20_000, **options)
        found = model.predict_image(scene, merge=False).compute()
        assert proxy.most <= 2
        assert model.stats().retries == 5
    with dask.config.set(scheduler="threads"):
        expected = rest(server.url, **options).predict_image(scene, merge=False).compute()
    xr.testing.assert_identical(found, expected)


def _kill_once(block: np.ndarray, marker: str) -> np.ndarray:
    try:
        os.mkdir(marker)
    except FileExistsError:
        return block
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@needs_posix
def test_an_image_survives_a_worker(server: Server, cluster: Client, tmp_path: Path) -> None:
    scene = image_of(96, 3).chunk(y=32, x=32)
    options: dict[str, Any] = {"inputs": {"B0": "a", "B1": "b", "B2": "b"}, "input_tile_size": 16}
    model = rest(server.url, max_concurrency=2, **options)
    expected = model.predict_image(scene, merge=False).compute(scheduler="threads")
    marker = str(tmp_path / "killed")
    fatal = scene["B1"].data.map_blocks(_kill_once, marker, meta=np.empty((0, 0), "f4"))
    found = model.predict_image(scene.assign(B1=scene["B1"].copy(data=fatal)), merge=False).compute()
    assert os.path.exists(marker)
    xr.testing.assert_identical(found, expected)


# -- Statistics --------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_latencies_are_told_to_five_percent(seconds: list[float], share: float) -> None:
    recorders = [Recorder(), Recorder()]
    for place, value in enumerate(seconds):
        recorders[place % 2].sent(1, Response(200, "HTTP 200", seconds=value), again=False)
    total = recorders[0].stats() + recorders[1].stats()
    expected = float(np.quantile(seconds, share, method="inverted_cdf"))
    assert total.latency(share) == pytest.approx(expected, rel=0.06)
    assert total.requests == len(seconds)
    assert total.seconds == pytest.approx(sum(seconds))


def test_statistics_of_nothing() -> None:
    assert math.isnan(PredictionStats().latency(0.5))
    assert "0 instances in 0 requests, 0 retries, 0 failures" in repr(PredictionStats())


def test_statistics_while_it_runs(server: Server) -> None:
    with FaultProxy(server.url, hold=0.15) as proxy:
        model = rest(proxy.url, max_payload_bytes=900, max_concurrency=1)
        thread = threading.Thread(target=connected(model.connector).predict, args=(batch_of(60),))
        thread.start()
        until(lambda: 0 < model.stats().answered < 60)
        thread.join()
        assert model.stats().answered == model.stats().instances == 60
        assert model.stats().bytes_received > 0
