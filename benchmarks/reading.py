"""Reading exports back: the whole raster, and a window of it."""

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

    def with_xee_tf() -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            loaded = open_image(mixer).load()
        rebuilt["ours"] = {name: loaded[name].values for name in bands}

    def with_tensorflow() -> None:
        rebuilt["theirs"] = parse_and_place(folder, list(bands))

    times = best_times({"ours": with_xee_tf, "theirs": with_tensorflow}, 1 if small else 3)
    for name, band in bands.items():
        for found in rebuilt.values():
            np.testing.assert_array_equal(found[name], band)
    size = sum(band.nbytes for band in bands.values())
    yield Measurement(
        "whole raster rebuilt from gzipped TFRecords, 3 bands",
        "tf.data read + parse + numpy placing",
        times["theirs"] / times["ours"],
        "times",
        1.5,
        True,
        f"{size / times['ours'] / 1e6:.0f} against {size / times['theirs'] / 1e6:.0f} MB/s",
    )

    window = {"y": slice(side // 2 + 100, side // 2 + 356), "x": slice(side // 3, side // 3 + 256)}
    inflated = []

    def counted(data: memoryview, size: int | None = None) -> tuple[bytes, int]:
        found = inflate_member(data, size)
        inflated.append(len(found[0]))
        return found

    with mock.patch("xee_tf.shards.access.inflate_member", counted):
        part = open_image(mixer).isel(window).load()
    for name, band in bands.items():
        np.testing.assert_array_equal(part[name], band[window["y"], window["x"]])
    yield Measurement(
        f"one 256 x 256 window (3 bands) of a {size / 1e9:.1f} GB gzipped export",
        "bytes inflated of all",
        sum(inflated) / size,
        "of it",
        1 if small else 0.02,
        False,
        f"{sum(inflated) / 1e6:.1f} MB",
    )
    shutil.rmtree(folder)


def parse_and_place(folder: Path, names: list[str]) -> dict[str, NDArray[np.float32]]:
    """What a user writes without xee_tf."""
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
    number = 0
    for batch in dataset.as_numpy_iterator():
        for i in range(len(batch[names[0]])):
            y, x = divmod(number + i, columns)
            for name in names:
                rasters[name][y * height : (y + 1) * height, x * width : (x + 1) * width] = batch[name][i]
        number += i + 1
    return rasters
