"""Speed of exports, compared with common code, a minimal loop, and chunks that are not aligned."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks.measure import Measurement, best_times
from benchmarks.pixels import raster, tiled
from xee_tf import plan_export
from xee_tf.records import RecordLayout, encode_records
from xee_tf.shards.members import compress_member

PATCH = 256


def run(small: bool) -> Iterator[Measurement]:
    side = 1024 if small else 12_288
    bands = tiled(side, side)
    ds = raster(bands, 1024)
    unaligned = raster(bands, 1000)
    folder = Path(tempfile.mkdtemp())
    layout = plan_export(ds, patch_dimensions=PATCH).record.layout
    kernel = {"patch_dimensions": PATCH, "kernel_size": 64}
    part = ds.isel(y=slice(0, 1024), x=slice(0, 1024))
    stored = {
        "aligned": plan_export(ds, patch_dimensions=PATCH).total_bytes,
        "unaligned": plan_export(unaligned, **kernel).total_bytes,
        "tensorflow": plan_export(part, patch_dimensions=PATCH).total_bytes,
    }
    stored["minimal"] = stored["aligned"]

    def export(dataset: xr.Dataset, **options: Any) -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            dataset.tfexport(folder / uuid4().hex, **options)

    # Every run writes new files, so that the removal of files is not timed.
    times = best_times(
        {
            "aligned": lambda: export(ds, patch_dimensions=PATCH),
            "minimal": lambda: run_minimal_loop(bands, layout),
            "unaligned": lambda: export(unaligned, **kernel),
        },
        repeat=1 if small else 5,
    )
    times |= best_times(
        {"tensorflow": lambda: export_with_tensorflow(part.compute(), folder / "tensorflow.tfrecord.gz")}, 1
    )
    shutil.rmtree(folder)
    speed = {name: stored[name] / times[name] / 1e6 for name in times}
    note = "{} and {} MB/s".format
    yield Measurement(
        "export, 256 x 256 patches, 3 float bands, gzip",
        "xbatcher + tf.train.Example + TFRecordWriter",
        speed["aligned"] / speed["tensorflow"],
        "times",
        40,
        True,
        note(round(speed["aligned"]), round(speed["tensorflow"], 1)),
    )
    yield Measurement(
        "the same export",
        "minimal loop in two threads over arrays in memory",
        speed["aligned"] / speed["minimal"],
        "times",
        0.85,
        True,
        note(round(speed["aligned"]), round(speed["minimal"])),
    )
    yield Measurement(
        "export with kernel 64, chunks 1000 x 1000",
        "the aligned export, per stored byte",
        speed["unaligned"] / speed["aligned"],
        "times",
        0.7,
        True,
        note(round(speed["unaligned"]), round(speed["aligned"])),
    )


def run_minimal_loop(bands: dict[str, NDArray[np.float32]], layout: RecordLayout) -> None:
    """Slice, encode and compress the same bytes, without a graph and files."""
    height, width = next(iter(bands.values())).shape
    columns = width // PATCH

    def patches(band: NDArray[np.float32], row: int, first: int) -> NDArray[np.float32]:
        part = band[row * PATCH : (row + 1) * PATCH, first * PATCH : (first + 4) * PATCH]
        return part.reshape(PATCH, -1, PATCH).swapaxes(0, 1)

    def encode(job: tuple[int, int]) -> int:
        encoded = encode_records(layout, [patches(band, *job) for band in bands.values()])
        return sum(len(compress_member(encoded.buffer[a:b])) for a, b in pairwise(encoded.offsets.tolist()))

    jobs = [(row, first) for row in range(height // PATCH) for first in range(0, columns, 4)]
    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(encode, jobs)) > 0


def export_with_tensorflow(ds: xr.Dataset, path: Path) -> None:
    """Export as a user would without xee_tf."""
    import tensorflow as tf
    import xbatcher

    patches = xbatcher.BatchGenerator(ds, {"y": PATCH, "x": PATCH})
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for patch in patches:
            feature = {
                str(name): tf.train.Feature(float_list=tf.train.FloatList(value=band.values.ravel()))
                for name, band in patch.data_vars.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
