"""Bytes that move between the workers of a cluster, counted by the workers, beside Dask's `map_overlap`."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.measure import Measurement

_CHUNK, _KERNEL = 1024, 32
_WORKERS = (2, 4)


def run(small: bool) -> Iterator[Measurement]:
    # A process of its own, because workers import the main module.
    command = [sys.executable, "-m", "benchmarks.moving", "3" if small else "8"]
    process = subprocess.run(command, capture_output=True, check=True, text=True)
    moved: dict[str, list[float]] = json.loads(process.stdout)
    halo = ((_CHUNK + _KERNEL) ** 2 - _CHUNK**2) / _CHUNK**2
    for name, shares in moved.items():
        if name == "map_overlap":
            continue
        goal = halo if "kernel" in name or "predict" in name else 0.02
        note = ", ".join(f"{100 * share:.2f} %" for share in shares) + f" with {_WORKERS} workers"
        if "predict" in name:
            note += "; map_overlap " + ", ".join(f"{100 * share:.1f} %" for share in moved["map_overlap"])
        yield Measurement(
            f"bytes moved between workers, {name}",
            "size of the raster",
            max(shares),
            "times",
            goal,
            False,
            note,
        )


def main(chunks: int) -> None:
    import dask.array as da
    import fsspec
    import moto.server
    import xarray as xr
    from distributed import Client, LocalCluster

    import xee_tf
    from benchmarks.pixels import georeference

    for name in ("distributed", "werkzeug"):
        logging.getLogger(name).setLevel(logging.ERROR)
    side = chunks * _CHUNK
    folder = tempfile.TemporaryDirectory()
    values = np.random.default_rng(0).integers(0, 255, (side, side)).astype("float32")
    stored = {}
    for band in "abc":
        path = f"{folder.name}/{band}.zarr"
        da.from_array(values, chunks=_CHUNK).to_zarr(path)
        stored[band] = (("y", "x"), da.from_zarr(path))
    ds = georeference(xr.Dataset(stored))
    model = xee_tf.Model.from_function(
        _difference, input_tile_size=256, input_overlap_size=_KERNEL // 2, output_bands=["d"]
    )
    patches: dict[str, Any] = {"patch_dimensions": 256}
    server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    s3 = {"endpoint_url": f"http://{host}:{port}", "key": "benchmark", "secret": "benchmark"}
    fsspec.filesystem("s3", **s3).mkdir("benchmark")
    # The records of a row of patches have more than 5 MiB on each worker, enough for a part of an upload.
    upload = {"patch_dimensions": 512, "compressed": False, "storage_options": s3}
    jobs: dict[str, Callable[[str], Any]] = {
        "export": lambda path: ds.tfexport(path, **patches),
        "export to S3": lambda path: ds.tfexport(f"s3://benchmark{path}", **upload),
        f"export, kernel {_KERNEL}": lambda path: ds.tfexport(path, **patches, kernel_size=_KERNEL),
        f"predict_to_zarr, overlap {_KERNEL // 2}": lambda path: xee_tf.predict_to_zarr(
            model, ds, f"{path}.zarr"
        ),
        "map_overlap": lambda path: da.map_overlap(
            lambda a, b, c: a - b,
            *(ds[band].data for band in "abc"),
            depth=_KERNEL // 2,
            dtype="float32",
        ).to_zarr(f"{path}.zarr"),
    }
    moved: dict[str, list[float]] = {name: [] for name in jobs}
    for workers in _WORKERS:
        for number, (name, job) in enumerate(jobs.items()):
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
            with cluster, Client(cluster) as client:
                job(f"{folder.name}/{workers}-{number}")
                received = client.run(_received).values()
            moved[name].append(sum(received) / (3 * values.nbytes))
    server.stop()
    folder.cleanup()
    print(json.dumps(moved))


def _difference(bands: Any) -> Any:
    return bands[..., 0] - bands[..., 1]


def _received(dask_worker: Any) -> int:
    return sum(transfer["total"] for transfer in dask_worker.transfer_incoming_log)


if __name__ == "__main__":
    main(int(sys.argv[1]))
