"""Write GeoTIFFs in processes that are disturbed at random moments; print what went wrong, and counts.

Run as ``python -m tests.geotiff_runs FOLDER COUNT SEED``. This process imports the package once and is copied
(forked) for each run, so that a run takes a fraction of a second. Each run writes one GeoTIFF, or several in
threads, while a signal arrives, files may not grow beyond a random size, or a chunk fails or is not what was
declared.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import MappingProxyType

import dask
import dask.array as da
import numpy as np
import rasterio
import xarray as xr

import xee_tf

SIDE, CHUNK = 384, 96
VALUES = np.random.default_rng(0).random((SIDE, SIDE), dtype="f4")
MODEL = xee_tf.Model.from_function(lambda batch: batch[..., 0], input_tile_size=32, output_bands=["B4"])
WRITERS = ("upload", "to_cog", "predict", "command")
SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
CHUNKS = {
    "error": lambda chunk: 1 / 0,
    "interrupt": lambda chunk: os.kill(os.getpid(), signal.SIGINT),
    "row": lambda chunk: chunk[:1],
    "larger": lambda chunk: np.zeros((600, 600), "f4"),
    "object": lambda chunk: chunk.astype(object),
    "none": lambda chunk: None,
}
EXPECTED = {  # how a run may end: exit status, or a signal
    "nothing": {0},
    "interrupt": {0, 1, 130, -signal.SIGINT},
    "terminate": {0, 143, -signal.SIGTERM},
    "size": {0, 1},
    "chunk": {1, -signal.SIGINT},
}


class _Wrong:
    """Disturb one chunk."""

    def __init__(self, number, kind):
        self.number, self.kind = number, kind

    def __call__(self, chunk, block_info=None):
        if not block_info:
            return chunk
        row, column = block_info[0]["chunk-location"]
        time.sleep(0.002)
        return CHUNKS[self.kind](chunk) if row * (SIDE // CHUNK) + column == self.number else chunk


def image(case=MappingProxyType({})):
    data = da.from_array(VALUES, chunks=CHUNK)
    if case.get("fault") == "chunk":
        wrong = _Wrong(case["number"], case["kind"])
        data = data.map_blocks(wrong, dtype="f4", meta=np.empty((0, 0), "f4"))
    coords = {"y": 5e6 - 30 * np.arange(float(SIDE)), "x": 7e5 + 30 * np.arange(float(SIDE))}
    return xr.Dataset({"B4": (("y", "x"), data)}, coords, {"crs": "EPSG:32633"})


def write(case, file, mixer):
    if case["writer"] == "predict":
        xee_tf.predict_to_cog(MODEL, image(case), file, if_exists=case["if_exists"])
    elif case["writer"] == "to_cog" or case["fault"] == "chunk":
        xee_tf.to_cog(image(case), file, if_exists=case["if_exists"])
    elif case["writer"] == "upload":
        xee_tf.upload_image(None, mixer, file, if_exists=case["if_exists"])
    else:
        from xee_tf_cli import main

        records = str(mixer).replace("-mixer.json", "-00000.tfrecord.gz")
        arguments = ["upload", "image", records, str(mixer), str(file)]
        arguments += ["--overwrite"] if case["if_exists"] == "overwrite" else []
        if status := main(arguments):
            sys.exit(status)


def run(case, files, mixer, log):
    """Write the files of a run, in the copied process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
    if case["fault"] == "size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (case["limit"], resource.RLIM_INFINITY))
    dask.config.set(scheduler=case["scheduler"], num_workers=case["workers"])
    if len(files) == 1:
        write(case, files[0], mixer)
        return
    errors = []

    def attempt(file):
        try:
            write(case, file, mixer)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=attempt, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def choose(chance):
    fault = chance.choice(list(EXPECTED))
    return {
        "fault": fault,
        "writer": chance.choice(WRITERS),
        "if_exists": chance.choice(["error", "overwrite"]),
        "scheduler": chance.choice(["threads", "synchronous"]),
        "workers": chance.choice([1, 2, 8]),
        "files": 3 if fault in ("nothing", "size") and chance.random() < 0.3 else 1,
        "number": chance.randrange((SIDE // CHUNK) ** 2),
        "kind": chance.choice(list(CHUNKS)),
        "limit": chance.choice([0, chance.randrange(1_200_000)]),
        "delay": chance.random() * 0.4,
    }


def status_of(case, files, mixer, log):
    """Run a case in a copy of this process; return how it ended."""
    sys.stdout.flush()
    if not (process := os.fork()):
        run(case, files, mixer, log)
        sys.exit(0)
    if case["fault"] in SIGNALS:
        time.sleep(case["delay"])
        with suppress(ProcessLookupError):
            os.kill(process, SIGNALS[case["fault"]])
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def content(file):
    if not file.exists():
        return "missing"
    if file.read_bytes() == b"old":
        return "old"
    with suppress(rasterio.errors.RasterioError), rasterio.open(file) as opened:
        if np.array_equal(opened.read(1), VALUES):
            return "new"
    return "damaged"


def problems(case, status, folder, files):
    if status < 0 and status not in EXPECTED[case["fault"]]:
        yield "death"
    elif status not in EXPECTED[case["fault"]]:
        yield "status"
    untouched = "old" if case["if_exists"] == "overwrite" else "missing"
    for file in files:
        allowed = {"new"} if status == 0 else {"new", untouched}
        if content(file) not in allowed:
            yield f"{content(file)} file"
    if set(folder.iterdir()) - set(files):
        yield "leftover"


def main(root, count, seed):
    chance, counts = random.Random(seed), Counter()
    if not os.fork():  # threads of GDAL and Dask would not exist in the copies of this process
        image().tfexport(root / "s", patch_dimensions=32)
        os._exit(0)
    os.wait()
    for _ in range(count):
        case, folder = choose(chance), root / "run"
        folder.mkdir()
        files = [folder / f"{number}.tif" for number in range(case["files"])]
        if case["if_exists"] == "overwrite":
            for file in files:
                file.write_bytes(b"old")
        status = status_of(case, files, root / "s-mixer.json", root / "log")
        counts.update(["runs", f"{case['fault']}: {status}"])
        for problem in problems(case, status, folder, files):
            counts[problem] += 1
            print(problem, status, case, sorted(os.listdir(folder)), (root / "log").read_text()[-2000:])
        shutil.rmtree(folder)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
