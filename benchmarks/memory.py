"""Peak memory of exporting rasters of different heights, each in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Measurement, peak_memory


def run(small: bool) -> Iterator[Measurement]:
    heights = [2048, 4096] if small else [16_384, 65_536, 262_144]
    width = 8192 if small else 32_768
    results = [_run_process(height, width) for height in heights]
    peaks = [each["peak"] for each in results]
    sizes = ", ".join(f"{height * width * 4 / 1e9:.1f}" for height in heights)
    name = f"peak memory of exporting {sizes} GB, kernel 32, 2 threads"
    note = ", ".join(f"{peak / 1e6:.0f}" for peak in peaks) + " MB"
    yield Measurement(
        name, "largest peak / smallest peak", max(peaks) / min(peaks), "times", 1.1, False, note
    )
    yield Measurement(name, "the whole process", max(peaks) / 1e9, "GB", 1.5, False, note)
    error = max(abs(each["estimate"] / each["peak"] - 1) for each in results)
    note = ", ".join(f"{each['estimate'] / 1e6:.0f}" for each in results) + " MB estimated"
    yield Measurement(name, "the estimate of the plan", error, "error", 0.3, False, note)


def _run_process(height: int, width: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", str(height), str(width)]
    process = subprocess.run(command, capture_output=True, check=True, text=True)
    result: dict[str, float] = json.loads(process.stdout)
    return result


class GeneratedRaster:
    """An array whose pixels are computed when they are read, in place of a file."""

    dtype, ndim = np.dtype("float32"), 2

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.float32]:
        rows, columns = np.ogrid[key]
        return ((rows * 7 ^ columns * 13) & 255).astype("float32")


def main(height: int, width: int) -> None:
    import dask
    import dask.array as da
    import xarray as xr

    from benchmarks.pixels import georeference
    from xee_tf import export_image, plan_export

    array = da.from_array(GeneratedRaster((height, width)), chunks=1024, meta=np.empty((0, 0), "float32"))
    ds = georeference(xr.Dataset({"a": (("y", "x"), array)}))
    options = {"patch_dimensions": 256, "kernel_size": 32}
    estimate = plan_export(ds, **options).peak_memory
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(scheduler="threads", num_workers=2),
    ):
        export_image(ds, f"{folder}/scene", **options)
    print(json.dumps({"peak": peak_memory(), "estimate": estimate}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
