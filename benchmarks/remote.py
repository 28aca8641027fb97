"""Predicting a raster with a model on a server of this machine, beside a bare loop of the same client."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Measurement, best_times
from benchmarks.pixels import raster, tiled
from benchmarks.predicting import CHANNELS, CLASSES, TILE, make_model, tiles_of
from xee_tf import Model, prepare_model
from xee_tf.connector import connected

BATCH = 5
ENDPOINT = "projects/p/locations/us-central1/endpoints/"

_SERVE = """
import sys
from xee_tf.serving.server import serve
with serve(sys.argv[1]) as server:
    print(server.url, server.grpc, flush=True)
    sys.stdin.read()
"""


def run(small: bool) -> Iterator[Measurement]:
    folder = Path(tempfile.mkdtemp())
    make_model(folder / "models" / "plain")
    prepare_model(folder / "models" / "plain", folder / "models" / "prepared")
    rates = {}
    with serving(folder / "models") as (url, grpc):
        for name, model in models(url, grpc).items():
            # Base64 takes its time; and of few chunks the last ones leave a thread without work.
            side = 1024 if small else 4096 if "base64" in name else 8192
            image, tiles = pixels(side)
            ours, bare, found = both(model, image, tiles)
            times = best_times({"ours": ours, "bare": bare}, 1 if small else 3)
            rows = side // TILE
            whole = found["bare"].reshape(rows, rows, TILE, TILE, CLASSES).transpose(4, 0, 2, 1, 3)
            np.testing.assert_allclose(found["ours"], whole.reshape(CLASSES, side, side), rtol=1e-5)
            rates[name] = tiles.nbytes / 1e6 / times["bare"]
            size = tiles.nbytes / 1e6
            yield Measurement(
                f"predict_image through {name}, {side} x {side} x {CHANNELS}",
                "the same client in two threads, the same tiles already stacked in memory",
                times["bare"] / times["ours"],
                "of its speed",
                0.9,
                True,
                f"{size / times['ours']:.0f} against {size / times['bare']:.0f} MB a second",
            )
    yield Measurement(
        "a server over gRPC",
        "over REST, tensors in base64",
        rates["gRPC"] / rates["REST, base64"],
        "times",
        4.0,
        True,
        f"{rates['gRPC']:.0f} against {rates['REST, base64']:.0f} MB a second",
    )
    shutil.rmtree(folder)


@lru_cache(1)
def pixels(side: int) -> tuple[Any, NDArray[np.float32]]:
    """A raster, and its tiles."""
    three = list(tiled(side, side).values())
    bands = {f"B{i}": np.ascontiguousarray(three[i % 3]) for i in range(CHANNELS)}
    return raster(bands, 1024), tiles_of(bands)


def models(url: str, grpc: str) -> dict[str, Model]:
    """The ways to the server; each takes several tiles at a time."""
    options: dict[str, Any] = {
        "max_payload_bytes": 20_000_000,
        "input_tile_size": TILE,
        "output_bands": {"output_0": {"type": "float32", "dimensions": 1, "shape": [CLASSES]}},
    }
    raw: dict[str, Any] = {"base_url": url, "credentials": None, "input_name": "pixels"}
    return {
        "REST, base64": Model.from_tf_serving(
            url, "prepared", payload_format="SERIALIZED_TF_TENSORS", **options
        ),
        "gRPC": Model.from_tf_serving(grpc, "plain", transport="grpc", **options),
        "rawPredict": Model.from_vertex_ai(
            ENDPOINT + "plain", payload_format="GRPC_TF_TENSORS", route="rawPredict", **raw, **options
        ),
    }


def both(
    model: Model, image: Any, tiles: NDArray[np.float32]
) -> tuple[Any, Any, dict[str, NDArray[np.float32]]]:
    """The whole path and the bare loop, and where their results go."""
    found: dict[str, NDArray[np.float32]] = {}
    connection = connected(model.connector)
    [name] = connection.signature.inputs or [model.input_name]

    def ours() -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            found["ours"] = model.predict_image(image, merge=False).output_0.values

    def bare() -> None:
        def call(start: int) -> NDArray[np.float32]:
            [answer] = connection.predict({name: tiles[start : start + BATCH]}).values()
            return answer

        with ThreadPoolExecutor(2) as pool:
            found["bare"] = np.concatenate(list(pool.map(call, range(0, len(tiles), BATCH))))

    return ours, bare, found


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """A server in a process of its own: its addresses over HTTP and gRPC."""
    command = [sys.executable, "-c", _SERVE, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, grpc = process.stdout.readline().split()
        yield url, grpc
        process.communicate()  # its input ends, and so does it
