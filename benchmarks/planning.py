"""What a plan and a graph of a million patches cost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.measure import Measurement, peak_memory


def run(small: bool) -> Iterator[Measurement]:
    chunks = 20 if small else 100
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.planning", str(chunks)], capture_output=True, check=True, text=True
    )
    found = json.loads(out.stdout)
    what = f"plan and graph of {found['patches']:,} patches, {found['chunks']:,} chunks, kernel 32"
    note = f"plan {found['plan']:.1f} s, graph {found['graph']:.1f} s, {found['tasks']:,} tasks"
    yield Measurement(what, "seconds", found["plan"] + found["graph"], "s", 5, False, note)
    yield Measurement(
        what, "memory of the process", found["memory"] / 1e9, "GB", 1, False, "peak, imports included"
    )
    most = 3 * found["chunks"] + 2 * found["shards"]
    yield Measurement(
        what, "3 tasks a chunk + 2 a shard", found["tasks"] / most, "of it", 1, False, f"{most:,} allowed"
    )


def main(side: int) -> None:
    import dask.array as da
    import xarray as xr

    from benchmarks.pixels import place
    from xee_tf import export_image, plan_export

    pixels = side * 1000
    lazy = {
        f"B{n}": (("y", "x"), da.zeros((pixels, pixels), chunks=1000, dtype="float32") + n) for n in range(4)
    }
    ds = place(xr.Dataset(lazy))
    options = {"patch_dimensions": 100, "kernel_size": 32}
    start = time.perf_counter()
    plan = plan_export(ds, **options)
    repr(plan)
    planned = time.perf_counter()
    delayed = export_image(ds, "nowhere/scene", compute=False, **options)
    done = time.perf_counter()
    found = {
        "patches": plan.records,
        "chunks": plan.source_chunks,
        "shards": plan.shards,
        "plan": planned - start,
        "graph": done - planned,
        "tasks": len(delayed.__dask_graph__()),
        "memory": peak_memory(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
