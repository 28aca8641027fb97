"""Reading of exports: a whole raster and a window."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import dask
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Measurement, best_times
from benchmarks.pixels import raster, tiled
from xee_tf import export_image, open_image
from xee_tf.shards.members import inflate_member

PATCH = 256


def run(small: bool) -> Iterator[Measurement]:
    side = 1024 if small else 9216
    bands = tiled(side, side)
    folder = Path(tempfile.mkdtemp())
    export_image(raster(bands, 1024), folder / "scene", patch_dimensions=PATCH, max_file_size=2**28)
    mixer = folder / "scene-mixer.json"
    rebuilt: dict[str, dict[str, NDArray[np.float32]]] = {}

    def read_with_xee_tf() -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            loaded = open_image(mixer).load()
        rebuilt["xee_tf"] = {name: loaded[name].values for name in bands}

    def read_with_tensorflow() -> None:
        rebuilt["tensorflow"] = parse_and_place(folder, list(bands))

    times = best_times({"xee_tf": read_with_xee_tf, "tensorflow": read_with_tensorflow}, 1 if small else 3)
    for name, band in bands.items():
        for bands_read in rebuilt.values():
            np.testing.assert_array_equal(bands_read[name], band)
    size = sum(band.nbytes for band in bands.values())
    yield Measurement(
        "whole raster rebuilt from gzipped TFRecords, 3 bands",
        "tf.data to read and parse, numpy to place patches",
        times["tensorflow"] / times["xee_tf"],
        "times",
        1.5,
        True,
        f"{size / times['xee_tf'] / 1e6:.0f} and {size / times['tensorflow'] / 1e6:.0f} MB/s",
    )

    window = {"y": slice(side // 2 + 100, side // 2 + 356), "x": slice(side // 3, side // 3 + 256)}
    inflated = []

    def inflate_and_count(data: memoryview, size: int | None = None, **options: int) -> tuple[bytes, int]:
        result = inflate_member(data, size, **options)
        inflated.append(len(result[0]))
        return result

    with mock.patch("xee_tf.shards.access.inflate_member", inflate_and_count):
        part = open_image(mixer).isel(window).load()
    for name, band in bands.items():
        np.testing.assert_array_equal(part[name], band[window["y"], window["x"]])
    yield Measurement(
        f"one 256 x 256 window (3 bands) of a {size / 1e9:.1f} GB gzipped export",
        "decompressed bytes / all bytes",
        sum(inflated) / size,
        "times",
        1 if small else 0.02,
        False,
        f"{sum(inflated) / 1e6:.1f} MB",
    )
    shutil.rmtree(folder)


def parse_and_place(folder: Path, names: list[str]) -> dict[str, NDArray[np.float32]]:
    """Rebuild the raster as a user would without xee_tf."""
    import tensorflow as tf

    mixer = json.loads((folder / "scene-mixer.json").read_text())
    width, height = mixer["patchDimensions"]
    columns = mixer["patchesPerRow"]
    rows = mixer["totalPatches"] // columns
    spec = {name: tf.io.FixedLenFeature([height, width], tf.float32) for name in names}
    files = sorted(str(path) for path in folder.glob("*.tfrecord.gz"))
    dataset = (
        tf.data.TFRecordDataset(files, "GZIP", num_parallel_reads=None)
        .batch(16)
        .map(lambda batch: tf.io.parse_example(batch, spec), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    rasters = {name: np.empty((rows * height, columns * width), np.float32) for name in names}
    first = 0
    for batch in dataset.as_numpy_iterator():
        for i in range(len(batch[names[0]])):
            y, x = divmod(first + i, columns)
            for name in names:
                rasters[name][y * height : (y + 1) * height, x * width : (x + 1) * width] = batch[name][i]
        first += i + 1
    return rasters
