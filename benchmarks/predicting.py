"""Predicting a raster with a SavedModel, beside the bare signature over the same tiles."""

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
    three = tiled(side, side)
    bands = {f"B{i}": np.ascontiguousarray(list(three.values())[i % 3]) for i in range(CHANNELS)}
    folder = Path(tempfile.mkdtemp())
    make_model(folder / "model")
    model = Model.from_saved_model(folder / "model", input_tile_size=TILE)
    image = raster(bands, 1024)
    signature = tf.saved_model.load(str(folder / "model")).signatures["serving_default"]
    batch = 5
    tiles = tiles_of(bands)
    found: dict[str, NDArray[np.float32]] = {}

    def ours() -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            found["ours"] = model.predict_image(image, merge=False).output_0.values

    def bare() -> None:
        def call(start: int) -> NDArray[np.float32]:
            [answer] = signature(tf.constant(tiles[start : start + batch])).values()
            return answer.numpy()

        with ThreadPoolExecutor(2) as pool:
            found["bare"] = np.concatenate(list(pool.map(call, range(0, len(tiles), batch))))

    times = best_times({"ours": ours, "bare": bare}, 1 if small else 3)
    rows = side // TILE
    whole = found["bare"].reshape(rows, rows, TILE, TILE, CLASSES).transpose(4, 0, 2, 1, 3)
    np.testing.assert_allclose(found["ours"], whole.reshape(CLASSES, side, side), rtol=1e-5, atol=1e-6)
    pixels = side * side / 1e6
    yield Measurement(
        f"predict_image, {side} x {side} x {CHANNELS}, a small convolutional network",
        "the bare signature in two threads, the same tiles already stacked in memory",
        times["ours"] / times["bare"],
        "of its time",
        1.10,
        False,
        f"{pixels / times['ours']:.1f} against {pixels / times['bare']:.1f} million pixels a second",
    )
    shutil.rmtree(folder)


def make_model(path: Path) -> None:
    """Convolution 3 x 3 to 8 channels, and 1 x 1 to classes."""
    import tensorflow as tf

    model = tf.keras.Sequential(
        [
            tf.keras.Input((None, None, CHANNELS), name="pixels"),
            tf.keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            tf.keras.layers.Conv2D(CLASSES, 1, activation="softmax"),
        ]
    )
    model.export(path, verbose=False)


def tiles_of(bands: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """All tiles, channels last."""
    stacked = np.stack(list(bands.values()), axis=-1)
    rows, columns = (length // TILE for length in stacked.shape[:2])
    tiles = stacked.reshape(rows, TILE, columns, TILE, CHANNELS).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, TILE, TILE, CHANNELS))
