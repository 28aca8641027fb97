"""Speed of exports, compared with common code, plain loops, and chunks that are not aligned."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import xarray as xr

from benchmarks.measure import Measurement, best_times
from benchmarks.pixels import raster, tiled
from benchmarks.plain_loop import write_plain
from xee_tf import plan_export

PATCH = 256


def run(small: bool) -> Iterator[Measurement]:
    side = 1024 if small else 9216
    bands = tiled(side, side)
    ds = raster(bands, 1024)
    unaligned = raster(bands, 1000)
    folder = Path(tempfile.mkdtemp())
    kernel = {"patch_dimensions": PATCH, "kernel_size": 64}
    part = ds.isel(y=slice(0, 1024), x=slice(0, 1024))
    stored = {
        "aligned": plan_export(ds, patch_dimensions=PATCH).total_bytes,
        "unaligned": plan_export(unaligned, **kernel).total_bytes,
        "tensorflow": plan_export(part, patch_dimensions=PATCH).total_bytes,
    }
    stored |= dict.fromkeys(("no statistics", "uncompressed", "loop", "uncompressed loop"), stored["aligned"])
    pixels: dict[str, Any] = {"patch_dimensions": PATCH, "statistics": False}

    def export(dataset: xr.Dataset, **options: Any) -> None:
        with dask.config.set(scheduler="threads", num_workers=2):
            dataset.tfexport(folder / uuid4().hex, **options)

    def loop(compressed: bool) -> None:
        write_plain(bands, folder / uuid4().hex, PATCH, compressed=compressed, sync=True)

    # Every run writes new files, so that the removal of files is not timed.
    times = best_times(
        {
            "aligned": lambda: export(ds, patch_dimensions=PATCH),
            "no statistics": lambda: export(ds, **pixels),
            "loop": lambda: loop(compressed=True),
            "uncompressed": lambda: export(ds, compressed=False, **pixels),
            "uncompressed loop": lambda: loop(compressed=False),
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
    for name, loop_name, prefix, goal in (
        ("no statistics", "loop", "the same export, without statistics", 0.92),
        ("uncompressed", "uncompressed loop", "the same export, uncompressed, without statistics", 0.8),
    ):
        yield Measurement(
            prefix,
            "plain loop in two threads that writes the same bytes to the disk",
            speed[name] / speed[loop_name],
            "times",
            goal,
            True,
            note(round(speed[name]), round(speed[loop_name])),
        )
    yield Measurement(
        "the same export, with statistics of the bands",
        "without statistics",
        speed["aligned"] / speed["no statistics"],
        "times",
        0.8,
        True,
        note(round(speed["aligned"]), round(speed["no statistics"])),
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
