"""Export speed: beside what a user writes today, beside the bare work, and with nothing aligned."""

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
    awkward = raster(bands, 1000)
    folder = Path(tempfile.mkdtemp())
    layout = plan_export(ds, patch_dimensions=PATCH).record.layout
    kernel = {"patch_dimensions": PATCH, "kernel_size": 64}
    today = ds.isel(y=slice(0, 1024), x=slice(0, 1024))
    stored = {
        "aligned": plan_export(ds, patch_dimensions=PATCH).total_bytes,
        "awkward": plan_export(awkward, **kernel).total_bytes,
        "today": plan_export(today, patch_dimensions=PATCH).total_bytes,
    }
    stored["limit"] = stored["aligned"]

    def export(dataset: xr.Dataset, **options: Any) -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            dataset.tfexport(folder / uuid4().hex, **options)

    # Each run writes new files: removing old ones would be timed too.
    times = best_times(
        {
            "aligned": lambda: export(ds, patch_dimensions=PATCH),
            "limit": lambda: bare_loop(bands, layout),
            "awkward": lambda: export(awkward, **kernel),
        },
        repeat=1 if small else 5,
    )
    times |= best_times({"today": lambda: as_today(today.compute(), folder / "today.tfrecord.gz")}, 1)
    shutil.rmtree(folder)
    speed = {name: stored[name] / times[name] / 1e6 for name in times}
    note = "{} against {} MB/s".format
    yield Measurement(
        "export, 256 x 256 patches, 3 float bands, gzip",
        "xbatcher + tf.train.Example + TFRecordWriter",
        speed["aligned"] / speed["today"],
        "times",
        40,
        True,
        note(round(speed["aligned"]), round(speed["today"], 1)),
    )
    yield Measurement(
        "the same",
        "bare two-thread loop over arrays in memory",
        speed["aligned"] / speed["limit"],
        "times",
        0.85,
        True,
        note(round(speed["aligned"]), round(speed["limit"])),
    )
    yield Measurement(
        "export with kernel 64, chunks 1000 x 1000",
        "the aligned export, per stored byte",
        speed["awkward"] / speed["aligned"],
        "times",
        0.7,
        True,
        note(round(speed["awkward"]), round(speed["aligned"])),
    )


def bare_loop(bands: dict[str, NDArray[np.float32]], layout: RecordLayout) -> None:
    """The same bytes cut, encoded and compressed, and nothing else: no graph, no files."""
    height, width = next(iter(bands.values())).shape
    columns = width // PATCH

    def patches(band: NDArray[np.float32], row: int, first: int) -> NDArray[np.float32]:
        part = band[row * PATCH : (row + 1) * PATCH, first * PATCH : (first + 4) * PATCH]
        return part.reshape(PATCH, -1, PATCH).swapaxes(0, 1)

    def work(job: tuple[int, int]) -> int:
        encoded = encode_records(layout, [patches(band, *job) for band in bands.values()])
        return sum(len(compress_member(encoded.buffer[a:b])) for a, b in pairwise(encoded.offsets.tolist()))

    jobs = [(row, first) for row in range(height // PATCH) for first in range(0, columns, 4)]
    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(work, jobs)) > 0


def as_today(ds: xr.Dataset, path: Path) -> None:
    """What a user writes without xee_tf."""
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
