"""Exports on one and on two worker processes, compared with bare processes that do the same without Dask."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from benchmarks.measure import Measurement

_CHUNK, _PATCH = 1024, 256
_BANDS = ("blue", "green", "red")
_NAMES = {1: ("1 worker", "1 process"), 2: ("2 workers", "2 processes")}


def run(small: bool) -> Iterator[Measurement]:
    # A process of its own, because workers import the main module.
    command = [sys.executable, "-m", "benchmarks.workers", "2" if small else "10", "1" if small else "5"]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    times: dict[str, float] = json.loads(process.stdout)
    note = "; ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items())
    yield Measurement(
        "export by one worker process, gzip, from Zarr",
        "a plain loop in one process that reads the same chunks and writes the same records",
        times["1 worker"] / times["1 process"],
        "times",
        1.15,
        False,
        note,
    )
    yield Measurement(
        "gain of a second worker",
        "the gain of a second process with the plain loop",
        (times["1 worker"] / times["2 workers"]) / (times["1 process"] / times["2 processes"]),
        "times",
        0.95,
        True,
        note,
    )


def main(chunks: int, repeat: int) -> None:
    import logging

    import xarray as xr
    from distributed import Client, LocalCluster

    import xee_tf
    from benchmarks.measure import best_times
    from benchmarks.pixels import georeference, raster, tiled

    logging.getLogger("distributed").setLevel(logging.ERROR)
    side = chunks * _CHUNK
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/raster.zarr"
        raster(tiled(side, side), _CHUNK).to_zarr(store, zarr_format=2)
        ds = georeference(xr.open_zarr(store))
        times: dict[str, float] = {}
        context = multiprocessing.get_context("spawn")
        for count in _NAMES:
            cluster = LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None)
            with cluster, Client(cluster), context.Pool(count) as pool:
                jobs = [(store, f"{folder}/{n}", range(n, chunks, count)) for n in range(count)]
                worker, process = _NAMES[count]
                times |= best_times(
                    {
                        worker: lambda: xee_tf.export_image(
                            ds, f"{folder}/{uuid4().hex}", patch_dimensions=_PATCH
                        ),
                        process: lambda pool=pool, jobs=jobs: pool.starmap(_strips, jobs),
                    },
                    repeat,
                )
    print(json.dumps(times))


def _strips(store: str, prefix: str, strips: range) -> None:
    """Read rows of chunks, and write their patches."""
    import zarr

    from benchmarks.plain_loop import write_plain

    group = zarr.open_group(store, mode="r")
    for strip in strips:
        rows = slice(strip * _CHUNK, (strip + 1) * _CHUNK)
        bands = {name: group[name][rows] for name in _BANDS}
        write_plain(bands, Path(f"{prefix}-{uuid4().hex}"), _PATCH, compressed=True, sync=True, threads=1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
