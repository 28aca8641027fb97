"""Duration and memory of the plan and the graph of a million patches."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.measure import Measurement, peak_memory


def run(small: bool) -> Iterator[Measurement]:
    chunks = 20 if small else 100
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.planning", str(chunks)], capture_output=True, check=True, text=True
    )
    result = json.loads(process.stdout)
    name = f"plan and graph of {result['patches']:,} patches, {result['chunks']:,} chunks, kernel 32"
    note = f"plan {result['plan']:.1f} s, graph {result['graph']:.1f} s, {result['tasks']:,} tasks"
    yield Measurement(name, "seconds", result["plan"] + result["graph"], "s", 5, False, note)
    yield Measurement(
        name, "memory of the process", result["memory"] / 1e9, "GB", 1, False, "peak, including imports"
    )
    limit = 3 * result["chunks"] + 2 * result["shards"]
    yield Measurement(
        name,
        "3 tasks per chunk + 2 per shard",
        result["tasks"] / limit,
        "times",
        1,
        False,
        f"{limit:,} tasks",
    )


def main(side: int) -> None:
    import dask.array as da
    import xarray as xr

    from benchmarks.pixels import georeference
    from xee_tf import export_image, plan_export

    pixels = side * 1000
    lazy = {
        f"B{n}": (("y", "x"), da.zeros((pixels, pixels), chunks=1000, dtype="float32") + n) for n in range(4)
    }
    ds = georeference(xr.Dataset(lazy))
    options = {"patch_dimensions": 100, "kernel_size": 32}
    start = time.perf_counter()
    plan = plan_export(ds, **options)
    repr(plan)
    planned = time.perf_counter()
    delayed = export_image(ds, "nowhere/scene", compute=False, **options)
    done = time.perf_counter()
    result = {
        "patches": plan.records,
        "chunks": plan.source_chunks,
        "shards": plan.shards,
        "plan": planned - start,
        "graph": done - planned,
        "tasks": len(delayed.__dask_graph__()),
        "memory": peak_memory(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]))
