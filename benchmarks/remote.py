"""Prediction of a raster with a local server, compared with a minimal loop with the same client."""

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
from benchmarks.predicting import CHANNELS, CLASSES, TILE, save_model, stack_tiles
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
    save_model(folder / "models" / "plain")
    prepare_model(folder / "models" / "plain", folder / "models" / "prepared")
    rates = {}
    with run_server(folder / "models") as (url, grpc):
        for name, model in make_models(url, grpc).items():
            # Base64 is slow; with few chunks, a thread is idle at the end.
            side = 1024 if small else 4096 if "base64" in name else 8192
            image, tiles = make_image(side)
            predict_image, call_client, outputs = make_functions(model, image, tiles)
            times = best_times({"xee_tf": predict_image, "client": call_client}, 1 if small else 3)
            rows = side // TILE
            expected = outputs["client"].reshape(rows, rows, TILE, TILE, CLASSES).transpose(4, 0, 2, 1, 3)
            np.testing.assert_allclose(outputs["xee_tf"], expected.reshape(CLASSES, side, side), rtol=1e-5)
            rates[name] = tiles.nbytes / 1e6 / times["client"]
            size = tiles.nbytes / 1e6
            yield Measurement(
                f"predict_image through {name}, {side} x {side} x {CHANNELS}",
                "the same client in two threads, with the same tiles stacked in memory",
                times["client"] / times["xee_tf"],
                "times",
                0.9,
                True,
                f"{size / times['xee_tf']:.0f} and {size / times['client']:.0f} MB/s",
            )
    yield Measurement(
        "local server with gRPC",
        "with REST and base64 tensors",
        rates["gRPC"] / rates["REST, base64"],
        "times",
        4.0,
        True,
        f"{rates['gRPC']:.0f} and {rates['REST, base64']:.0f} MB/s",
    )
    shutil.rmtree(folder)


@lru_cache(1)
def make_image(side: int) -> tuple[Any, NDArray[np.float32]]:
    """Return a raster and its tiles."""
    source = list(tiled(side, side).values())
    bands = {f"B{i}": np.ascontiguousarray(source[i % 3]) for i in range(CHANNELS)}
    return raster(bands, 1024), stack_tiles(bands)


def make_models(url: str, grpc: str) -> dict[str, Model]:
    """Return models for the protocols of the server, with several tiles per request."""
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


def make_functions(
    model: Model, image: Any, tiles: NDArray[np.float32]
) -> tuple[Any, Any, dict[str, NDArray[np.float32]]]:
    """Return `predict_image` and the minimal loop as functions, and the dict that they write to."""
    outputs: dict[str, NDArray[np.float32]] = {}
    connection = connected(model.connector)
    [name] = connection.signature.inputs or [model.input_name]

    def predict_image() -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            outputs["xee_tf"] = model.predict_image(image, merge=False).output_0.values

    def call_client() -> None:
        def call(start: int) -> NDArray[np.float32]:
            [output] = connection.predict({name: tiles[start : start + BATCH]}).values()
            return output

        with ThreadPoolExecutor(2) as pool:
            outputs["client"] = np.concatenate(list(pool.map(call, range(0, len(tiles), BATCH))))

    return predict_image, call_client, outputs


@contextmanager
def run_server(folder: Path) -> Iterator[tuple[str, str]]:
    """Run a server in a separate process, and yield its HTTP and gRPC addresses."""
    command = [sys.executable, "-c", _SERVE, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, grpc = process.stdout.readline().split()
        yield url, grpc
        process.communicate()  # closes its standard input, which stops the server
