"""Prediction of a raster with a SavedModel, compared with calling its signature on the same tiles."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Measurement, best_times
from benchmarks.pixels import raster, tiled
from xee_tf import Model

TILE = 256
CHANNELS = 6
CLASSES = 3


def run(small: bool) -> Iterator[Measurement]:
    import tensorflow as tf

    side = 1024 if small else 8192
    source = list(tiled(side, side).values())
    bands = {f"B{i}": np.ascontiguousarray(source[i % 3]) for i in range(CHANNELS)}
    folder = Path(tempfile.mkdtemp())
    save_model(folder / "model")
    model = Model.from_saved_model(folder / "model", input_tile_size=TILE)
    image = raster(bands, 1024)
    signature = tf.saved_model.load(str(folder / "model")).signatures["serving_default"]
    batch = 5
    tiles = stack_tiles(bands)
    outputs: dict[str, NDArray[np.float32]] = {}

    def predict_image() -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            outputs["xee_tf"] = model.predict_image(image, merge=False).output_0.values

    def call_signature() -> None:
        def call(start: int) -> NDArray[np.float32]:
            [output] = signature(tf.constant(tiles[start : start + batch])).values()
            return output.numpy()

        with ThreadPoolExecutor(2) as pool:
            outputs["signature"] = np.concatenate(list(pool.map(call, range(0, len(tiles), batch))))

    times = best_times({"xee_tf": predict_image, "signature": call_signature}, 1 if small else 3)
    rows = side // TILE
    expected = outputs["signature"].reshape(rows, rows, TILE, TILE, CLASSES).transpose(4, 0, 2, 1, 3)
    np.testing.assert_allclose(outputs["xee_tf"], expected.reshape(CLASSES, side, side), rtol=1e-5, atol=1e-6)
    pixels = side * side / 1e6
    yield Measurement(
        f"predict_image, {side} x {side} x {CHANNELS}, a small convolutional network",
        "the signature in two threads, with the same tiles stacked in memory",
        times["xee_tf"] / times["signature"],
        "times",
        1.10,
        False,
        f"{pixels / times['xee_tf']:.1f} and {pixels / times['signature']:.1f} million pixels/s",
    )
    shutil.rmtree(folder)


def save_model(path: Path) -> None:
    """Save a model with a 3 x 3 convolution to 8 channels and a 1 x 1 convolution to classes."""
    import tensorflow as tf

    model = tf.keras.Sequential(
        [
            tf.keras.Input((None, None, CHANNELS), name="pixels"),
            tf.keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            tf.keras.layers.Conv2D(CLASSES, 1, activation="softmax"),
        ]
    )
    model.export(path, verbose=False)


def stack_tiles(bands: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return all tiles, channels last."""
    stacked = np.stack(list(bands.values()), axis=-1)
    rows, columns = (length // TILE for length in stacked.shape[:2])
    tiles = stacked.reshape(rows, TILE, columns, TILE, CHANNELS).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, TILE, TILE, CHANNELS))
