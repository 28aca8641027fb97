"""Tests that Ctrl-C and SIGTERM clean up, in scripts and in the command."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import dask
import numpy as np
import pytest

import xee_tf
from tests.conftest import ROOT, needs_posix
from tests.rasters import random_band, raster
from tests.waiting import wait_until
from xee_tf.signals import Terminated, interruptible, sigterm_raises

pytestmark = needs_posix

SCRIPT = """
import os, sys, time
import dask, numpy as np, xarray as xr
import rioxarray
import xee_tf

folder, writer, scheduler = sys.argv[1:4]

def slow(block, block_info=None):
    if block_info:
        open(os.path.join(folder, "..", "started"), "w").close()
        time.sleep(0.3)
    return block

def main():
    n = 512
    values = np.random.default_rng(0).random((n, n), dtype="f4")
    coords = {"y": 5e6 - 30 * np.arange(float(n)), "x": 7e5 + 30 * np.arange(float(n))}
    ds = xr.Dataset({"B4": (("y", "x"), values)}, coords=coords).rio.write_crs(32633).chunk(y=32, x=512)
    ds["B4"] = ds["B4"].copy(data=ds["B4"].data.map_blocks(slow, dtype="f4", meta=np.empty((0, 0), "f4")))
    if writer in ("overwrite", "resume"):
        options = {"if_exists": writer, "progress": "progress" in scheduler}
        ds.tfexport(folder + "/s", patch_dimensions=16, max_file_size=30000, **options)
    else:
        model = xee_tf.Model.from_function(lambda b: b[..., 0], input_tile_size=32, output_bands=["p"])
        xee_tf.predict_to_zarr(model, ds, folder + "/p.zarr")

if __name__ == "__main__":
    if "cluster" in scheduler:
        from distributed import Client, LocalCluster
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            with Client(cluster):
                main()
    else:
        with dask.config.set(scheduler=scheduler, num_workers=2):
            main()
"""


def start(arguments, cwd):
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A shell disables Ctrl-C for processes in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def interrupt(process, started, signum):
    """Send a signal as soon as a file exists; return the error output."""
    wait_until(lambda: started.exists() or process.poll() is not None, 100)
    time.sleep(0.5)
    assert process.poll() is None, process.communicate()
    process.send_signal(signum)
    return process.communicate(timeout=60)[1]


@pytest.mark.parametrize(
    ("scheduler", "signum"),
    [
        ("threads", signal.SIGTERM),
        ("cluster, progress", signal.SIGINT),
        pytest.param("threads", signal.SIGINT, marks=pytest.mark.long),
        pytest.param("cluster", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("cluster", signal.SIGINT, marks=pytest.mark.long),
        pytest.param("synchronous", signal.SIGINT, marks=pytest.mark.long),
        pytest.param("synchronous", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_export_is_cleaned_up(scheduler, signum, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    raster({"B4": random_band((32, 32))}).tfexport(folder / "s", patch_dimensions=16)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (tmp_path / "script.py").write_text(SCRIPT)
    process = start(["script.py", str(folder), "overwrite", scheduler], tmp_path)
    error = interrupt(process, tmp_path / "started", signum)
    time.sleep(0.5)  # for workers that outlive the process
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert process.returncode == (-signal.SIGTERM if signum == signal.SIGTERM else -signal.SIGINT), error
    assert "Temporary files were deleted, and nothing else was changed. Run it again." in error


BEGUN: list[float] = []


def slow(pixels):
    """Interrupt the process during the first call of the model."""
    BEGUN.append(time.monotonic())
    if len(BEGUN) == 1:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    time.sleep(1.2)
    return pixels[..., 0]


class Screen:
    """Standard error that knows when each line was printed."""

    def __init__(self):
        self.lines = []

    def write(self, text):
        if text.strip():
            self.lines.append((time.monotonic(), text.strip()))

    def flush(self):
        pass


@pytest.mark.parametrize("writer", ["predict_to_zarr", "predict_to_cog"])
def test_ctrl_c_is_answered_at_once(tmp_path, monkeypatch, writer):
    """The line is printed before the running call ends; the traceback has none of Dask's frames."""
    BEGUN.clear()
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    model = xee_tf.Model.from_function(slow, input_tile_size=32, output_bands=["p"])
    ds = raster({"B4": random_band((64, 64))}).chunk(y=32, x=32)
    suffix, option = (".tif", {"if_exists": "resume"}) if writer == "predict_to_cog" else (".zarr", {})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with dask.config.set(scheduler="threads"), pytest.raises(KeyboardInterrupt) as caught:
            getattr(xee_tf, writer)(model, ds, tmp_path / f"p{suffix}", **option)
    finally:
        signal.signal(signal.SIGINT, before)
    [(printed, line)] = screen.lines
    assert re.fullmatch(
        r"Interrupted: stopping as soon as the tasks that are running have ended\. Finished chunks .*are "
        rf"kept in {tmp_path}/\.?p\..*: run it again .*to continue\.",
        line,
    )
    assert printed - BEGUN[0] < 0.9
    assert time.monotonic() - BEGUN[0] > 1.1
    assert caught.value.__suppress_context__
    assert not [each for each in caught.traceback if "dask" in str(each.path).split(os.sep)]
    [note] = caught.value.__notes__
    kept = r"\d of 4 chunks .*are kept in .*p\..*: run it again .*to continue\."
    assert re.fullmatch(kept + r"|No chunk was finished\. Run it again\.", note)


EARLY = """
import os, pathlib, signal, sys
from importlib.util import find_spec
import xee_tf

class Destination(type(pathlib.Path())):
    def __str__(self):
        signal.raise_signal(signal.SIGTERM)

path = Destination("p")
for write in (
    lambda: xee_tf.export_image(None, path),
    lambda: xee_tf.export_table(None, path),
    lambda: xee_tf.sample_table(None, None, path),
    lambda: xee_tf.upload_image(None, None, path),
    *([lambda: xee_tf.upload_table(None, path)] if find_spec("geopandas") else []),
    lambda: xee_tf.to_cog(None, path),
    lambda: xee_tf.predict_to_cog(None, None, path),
    lambda: xee_tf.predict_to_zarr(None, None, path),
):
    child = os.fork()
    if child == 0:
        write()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_signal_before_anything_is_staged(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", EARLY],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    count = 8 if find_spec("geopandas") else 7
    assert done.stdout.splitlines() == [str(-signal.SIGTERM)] * count, done.stderr
    assert done.stderr.splitlines() == ["Terminated. Run it again."] * count


def test_signal_while_the_command_is_imported(tmp_path):
    code = """
import os, signal, sys
import xee_tf_cli

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "rasterio":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder())
sys.exit(xee_tf_cli.main())
"""
    process = start(["-c", code, "export", "a.tif", "s"], tmp_path)
    assert process.communicate(timeout=60)[1] == "xee-tf: Interrupted. Run it again.\n"
    assert process.returncode == 143


def test_resumable_export_is_kept(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    process = start(["script.py", str(folder), "resume", "threads"], tmp_path)
    error = interrupt(process, tmp_path / "started", signal.SIGTERM)
    kept = any(folder.glob(".s-*/0*.json"))
    expected = "Complete shards are kept{}" if kept else "No shard was complete, and nothing was changed{}"
    assert has_last_line(error, expected, ": run it again with if_exists='resume' to continue.")
    assert all(name.startswith(".s-") for name in os.listdir(folder))
    again = start(["script.py", str(folder), "resume", "threads"], tmp_path)
    error = again.communicate(timeout=100)[1]
    assert again.returncode == 0, error
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def has_last_line(error, left, how):
    """Return whether the last line says what is left, and how to go on."""
    hows = "|".join(map(re.escape, (how, ". Run it again.")))
    return re.match(rf"Terminated\. {left.format(f'({hows})')}", error.strip().splitlines()[-1])


def kept_chunks(store):
    """Return a pattern of what an interrupted prediction says."""
    if finished := len(list((store / ".xee_tf" / "finished").glob("*"))):
        return rf"{finished} of \d+ chunks are kept in .*{store.name}{{}}"
    return r"No chunk was finished{}"


def test_prediction_says_how_to_go_on(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    process = start(["script.py", str(folder), "prediction", "threads"], tmp_path)
    error = interrupt(process, tmp_path / "started", signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM
    assert has_last_line(error, kept_chunks(folder / "p.zarr"), ": run it again to continue."), error
    finished = sum(len(names) for _, _, names in os.walk(folder))
    time.sleep(0.5)
    assert finished == sum(len(names) for _, _, names in os.walk(folder))


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_command(signum, status, tmp_path):
    import rasterio

    n = 6000
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        width=n,
        height=n,
        count=1,
        dtype="float32",
        crs="EPSG:32633",
        transform=rasterio.Affine(30, 0, 7e5, 0, -30, 5e6),
        tiled=True,
        blockxsize=512,
        blockysize=512,
    ) as file:
        file.write(np.random.default_rng(0).random((1, n, n), dtype="f4"))
    (tmp_path / "out").mkdir()
    command = "import sys, xee_tf_cli; sys.exit(xee_tf_cli.main())"
    arguments = ["a.tif", "out/s", "--patch-dimensions", "16", "16"]
    process = start(["-c", command, "export", *arguments], tmp_path)
    wait_until(lambda: any((tmp_path / "out").iterdir()) or process.poll() is not None, 100)
    assert process.poll() is None, process.communicate()
    process.send_signal(signum)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == status, error
    line = error.splitlines()[-1]
    expected = "Temporary files were deleted, and nothing else was changed. Run it again."
    assert line == f"xee-tf export: Interrupted. {expected}"
    assert "Traceback" not in error
    assert list((tmp_path / "out").iterdir()) == []


SLOW_COMMAND = """
import pathlib, sys, time
import xee_tf, xee_tf.cli.predict, xee_tf_cli

def slow(pixels):
    pathlib.Path("started").touch()
    time.sleep(0.5)
    return pixels[..., 0]

model = xee_tf.Model.from_function(slow, input_tile_size=32, output_bands=["p"])
xee_tf.cli.predict.model_at = lambda *_, **__: model
sys.exit(xee_tf_cli.main())
"""


@pytest.mark.parametrize(
    ("name", "flags", "signum", "outlook", "left"),
    [
        (
            "p.zarr",
            [],
            signal.SIGINT,
            r"Finished chunks are kept in .*out/p\.zarr: run it again to continue\.",
            r"(\d+ of \d+ chunks? (is|are) kept in .*out/p\.zarr: run it again to continue"
            r"|No chunk was finished\. Run it again)\.",
        ),
        (
            "p.tif",
            [],
            signal.SIGINT,
            r"Nothing is kept: run it again to begin anew\. To keep .*, run it again with --resume\.",
            r"Temporary files were deleted, and nothing else was changed\. Run it again\. To keep .*, run it "
            r"again with --resume\.",
        ),
        pytest.param(
            "p.tif",
            ["--resume"],
            signal.SIGTERM,
            r"Finished chunks of predictions are kept in .*out/\.p\.tif-.*: run it again with --resume .*\.",
            r"(\d+ of \d+ chunks? of predictions are kept in .*: run it again with --resume to continue"
            r"|No chunk was finished\. Run it again)\.",
            marks=pytest.mark.long,
        ),
    ],
)
def test_command_says_at_once_and_at_the_end_how_to_go_on(name, flags, signum, outlook, left, tmp_path):
    """It says so before the running tasks end, and then with what has become of the files."""
    band = raster({"B4": random_band((128, 128))}).B4.rio.write_crs(32633)
    band.rio.to_raster(tmp_path / "a.tif")
    (tmp_path / "out").mkdir()
    arguments = ["predict", "m", "a.tif", f"out/{name}", "--chunk", "32", *flags]
    process = start(["-c", SLOW_COMMAND, *arguments], tmp_path)
    wait_until(lambda: (tmp_path / "started").exists() or process.poll() is not None, 100)
    process.send_signal(signum)
    output, error = process.communicate(timeout=60)
    assert process.returncode == (130 if signum == signal.SIGINT else 143), error
    first, last = [line for line in error.splitlines() if "Interrupted" in line]
    said = "xee-tf predict: Interrupted: stopping as soon as the tasks that are running have ended"
    assert re.fullmatch(rf"{said}\. {outlook}", first), first
    assert re.fullmatch(rf"xee-tf predict: Interrupted\. {left}", last), last
    assert error.endswith(f"{last}\n")
    assert "Traceback" not in error
    assert output == ""
    if left.startswith("Temp"):
        assert os.listdir(tmp_path / "out") == []


# -- Handlers of signals -------------------------------------------------------------------------------


@pytest.fixture
def default_handler():
    """Install the default handler of SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_handler_is_restored(default_handler):
    with pytest.raises(Terminated), sigterm_raises():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handler_of_the_program_is_kept():
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append(1))
    try:
        with interruptible():
            signal.raise_signal(signal.SIGTERM)
        assert received == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_do_not_handle_signals(default_handler):
    def work():
        with interruptible():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL]


def test_signal_ends_the_process_after_the_cleanup():
    code = """
import signal
from xee_tf.signals import explain_interruption, interruptible
with interruptible():
    try:
        with interruptible():
            signal.raise_signal(signal.SIGTERM)
    except BaseException as error:
        print("cleaned up", flush=True)
        explain_interruption(error, "Run it again.")
        raise
print("not reached")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "cleaned up\n")
    assert re.fullmatch(r"Terminated\. Run it again\.\n", done.stderr)


@pytest.mark.parametrize(
    ("pause", "steps", "output"), [(0, 100, "cleaned up\n"), (0.2, 100, "cleaned up\n"), (2, 400, "")]
)
def test_second_signal_ends_the_process_unless_it_follows_at_once(pause, steps, output):
    code = f"""
import time
from xee_tf.signals import interruptible
with interruptible():
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        for _ in range({steps}):
            time.sleep(0.01)
        print("cleaned up", flush=True)
"""
    process = start(["-c", code], ROOT)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(pause)
    process.send_signal(signal.SIGTERM)
    found, _ = process.communicate(timeout=60)
    assert (process.returncode, found) == (-signal.SIGTERM, output)


# -- Uploads, predictions and tables ---------------------------------------------------------------------

WRITERS = """
import os, sys, time
import numpy as np, xarray as xr
import rioxarray
import xee_tf

writer, folder, if_exists = sys.argv[1:4]
source = os.path.join(folder, "..", "source")

def wait():
    open(os.path.join(folder, "..", "started"), "w").close()
    time.sleep(0.3)

def slow(block, block_info=None):
    if block_info:
        wait()
    return block

def delayed(owner, name):
    function = getattr(owner, name)
    def call(*values, **options):
        wait()
        time.sleep(1)
        return function(*values, **options)
    setattr(owner, name, call)

ds = xee_tf.open_image(source + "/s-mixer.json").chunk(y=32, x=512)
ds["B4"] = ds["B4"].copy(data=ds["B4"].data.map_blocks(slow, dtype="f4", meta=np.empty((0, 0), "f4")))
model = xee_tf.Model.from_function(lambda b: b[..., 0], input_tile_size=32, output_bands=["p"])
if writer == "to_cog":
    xee_tf.to_cog(ds, folder + "/p.tif", if_exists=if_exists)
elif writer == "predict_to_cog":
    xee_tf.predict_to_cog(model, ds, folder + "/p.tif", if_exists=if_exists)
elif writer == "predict_to_zarr":
    xee_tf.predict_to_zarr(model, ds, folder + "/p.zarr", if_exists=if_exists)
elif writer == "upload_zarr":
    from xee_tf.storage import StoredBand
    delayed(StoredBand, "__setitem__")
    xee_tf.upload_image(None, source + "/s-mixer.json", folder + "/p.zarr", if_exists=if_exists)
elif writer == "upload_tif":
    from xee_tf.upload.cog.tiles import TileWork
    delayed(TileWork, "block")
    xee_tf.upload_image(None, source + "/s-mixer.json", folder + "/p.tif", if_exists=if_exists)
elif writer == "upload_table":
    import geopandas
    delayed(geopandas.GeoDataFrame, "to_file")
    xee_tf.upload_table(source + "/t.tfrecord.gz", folder + "/p.gpkg", if_exists=if_exists)
elif writer == "writer":
    file, mixer = folder + "/p.tfrecord.gz", source + "/s-mixer.json"
    with xee_tf.PredictionWriter(file, mixer, if_exists=if_exists) as w:
        for _ in range(1024):
            w.write(np.zeros((1, 16, 16)))
            wait()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    pd = pytest.importorskip("pandas")
    folder = tmp_path_factory.mktemp("writers") / "source"
    ds = raster({"B4": random_band((512, 512)).astype("f4")}).chunk(y=32, x=512)
    ds.tfexport(folder / "s", patch_dimensions=16)
    xee_tf.export_table(pd.DataFrame({"longitude": [1.0], "latitude": [2.0]}), folder / "t")
    return folder


@pytest.mark.parametrize(
    ("writer", "signum"),
    [
        ("to_cog", signal.SIGTERM),
        *(
            pytest.param(writer, signum, marks=pytest.mark.long)
            for writer in (
                "to_cog",
                "predict_to_cog",
                "predict_to_zarr",
                "upload_zarr",
                "upload_tif",
                "upload_table",
                "writer",
            )
            for signum in (signal.SIGINT, signal.SIGTERM)
            if (writer, signum) != ("to_cog", signal.SIGTERM)
        ),
    ],
)
def test_writers_are_cleaned_up(writer, signum, source, tmp_path):
    """The old file is kept, nothing hidden stays, and one line says how to go on."""
    if writer == "upload_table":
        pytest.importorskip("geopandas")
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "source").symlink_to(source)
    (tmp_path / "script.py").write_text(WRITERS)
    before = {}
    if "zarr" not in writer:
        name = {"upload_table": "p.gpkg", "writer": "p.tfrecord.gz"}.get(writer, "p.tif")
        (folder / name).write_bytes(b"old")
        before = {name: b"old"}
    process = start(["script.py", writer, str(folder), "overwrite"], tmp_path)
    error = interrupt(process, tmp_path / "started", signum)
    assert process.returncode == -signum, error
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    assert found == before
    assert [name for name in os.listdir(folder) if name.startswith(".")] == []
    expected = "Temporary files were deleted, and nothing else was changed{}"
    if writer == "predict_to_zarr":
        expected = kept_chunks(folder / "p.zarr")
    if writer == "predict_to_cog":
        assert "call it with if_exists='resume'." in error
    if signum == signal.SIGTERM:
        assert has_last_line(error, expected, ": run it again to continue."), error
    if writer == "upload_zarr":
        assert os.listdir(folder) == []
