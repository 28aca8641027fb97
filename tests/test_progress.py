"""The progress of computations: what is counted, and how it is shown in terminals, notebooks and logs."""

from __future__ import annotations

import io
import math
import re
import sys
import types
from typing import Any
from unittest import mock

import dask
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from dask.callbacks import Callback
from distributed import Client, LocalCluster

import xee_tf
from tests.rasters import random_band, raster
from tests.waiting import wait_until
from xee_tf.display import counted
from xee_tf.graph import Counted
from xee_tf.graph.progress import Meter

CHUNK, SIDE = 32, 288
CHUNKS, BLOCKS = 27, 9  # of the result of a prediction, and of the raster of an export


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def states(self) -> list[str]:
        """What was shown, one after the other."""
        return [state.strip() for state in re.split(r"[\r\n]", self.getvalue()) if state.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a terminal in place of standard error, wide enough for the bar."""
    shown = Terminal()
    streams = types.SimpleNamespace(stderr=shown, stdout=sys.stdout, modules={})
    monkeypatch.setattr("xee_tf.graph.progress.sys", streams)  # pytest replaces sys.stderr itself
    monkeypatch.setenv("COLUMNS", "140")
    return shown


@pytest.fixture(autouse=True)
def one_chunk_per_tile() -> Any:
    """Predict each chunk of the image separately."""
    with mock.patch("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1)):
        yield


def image() -> xr.Dataset:
    return raster({"B4": random_band((SIDE, SIDE))}).chunk(y=CHUNK, x=CHUNK)


def model(function: Any = lambda pixels: pixels[..., 0]) -> xee_tf.Model:
    return xee_tf.Model.from_function(function, input_tile_size=CHUNK, output_bands=["p"])


# -- How it is shown -----------------------------------------------------------------------------------


def shown(stream: io.StringIO, seconds: float, total: int = 100, before: int = 0) -> str:
    """Return what is shown if one unit is done in each of some seconds."""
    now = 0.0
    meter = Meter(Counted("write-", "chunk", "predicted", before), total, stream, lambda: now)
    for done in range(before, total + 1):
        now = (done - before) * seconds / (total - before)
        meter.show(done)
    meter.close(total)
    return stream.getvalue()


def test_log_has_a_line_for_every_tenth() -> None:
    lines = shown(io.StringIO(), 100).splitlines()
    assert len(lines) == 10
    assert lines[0] == "10 of 100 chunks predicted (10 %), 1 per second, about 1:30 left"
    assert lines[-1] == "100 of 100 chunks predicted (100 %), 1 per second, in 1:40"
    assert shown(io.StringIO(), 1) == ""
    assert len(shown(io.StringIO(), 8).splitlines()) <= 4
    slow = shown(io.StringIO(), 7200, 20).splitlines()
    assert len(slow) == 20
    assert slow[0] == "1 of 20 chunks predicted (5 %), 10 per hour, about 1:54:00 left"


def test_rate_and_time_do_not_count_what_an_earlier_run_did() -> None:
    lines = shown(io.StringIO(), 20, before=90).splitlines()
    assert lines[0] == "100 of 100 chunks predicted (100 %), 30 per minute, in 0:20"
    states = shown(terminal := Terminal(), 20, before=90), terminal.states
    assert states[1][0].endswith("90 of 100 chunks predicted (90 %)")
    assert "95 of 100 chunks predicted (95 %), 30 per minute, about 0:10 left" in states[0]


@pytest.mark.parametrize(
    ("columns", "width"), [(140, 30), (80, 12), (60, 0), (50, 0), (40, 0), (20, 0), (9, 0)]
)
def test_terminal_has_one_line_that_fits(columns: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = shown(terminal := Terminal(), 100)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert max(map(len, text.split("\r"))) <= columns
    words = ["100 of 100 chunks predicted (100 %)", "1 per second", "in 1:40"]
    shorter = {50: [words[0], words[2]], 40: words[:1], 20: ["100 of 100 (100 %)"], 9: ["100 of 1"]}
    bar = f"[{'#' * width}] " if width else ""
    assert terminal.states[-1] == bar + ", ".join(shorter.get(columns, words))
    if width == 30:
        assert "[###".ljust(31) + "] 10 of 100 chunks predicted (10 %), 1 per second" in text


def test_notebook_has_a_bar_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    image().tfexport("memory://progress/notebook", patch_dimensions=16, progress=True)
    captured = capsys.readouterr()
    assert re.search(r"^\r\[#+\] 9 of 9 blocks exported \(100 %\).*\n$", captured.out)
    assert captured.err == ""


# -- What is counted -----------------------------------------------------------------------------------


def last_state(terminal: Terminal) -> str:
    """Return the units in the last state, and forget what was shown."""
    [found] = re.findall(r"\] ([\d,]+ of .*? \(\d+ %\))", terminal.states[-1])
    terminal.seek(0)
    terminal.truncate()
    return str(found)


def test_units_are_those_of_the_user(terminal: Terminal, tmp_path: Any) -> None:
    ds = image()
    ds.tfexport(tmp_path / "s", patch_dimensions=16, progress=True)
    assert last_state(terminal) == f"{BLOCKS} of {BLOCKS} blocks exported (100 %)"
    ds.tfexport(tmp_path / "p", patch_dimensions=16, split={"a": 0.5, "b": 0.5}, progress=True)
    assert last_state(terminal).endswith("blocks exported (100 %)")
    xee_tf.predict_to_zarr(model(), ds, tmp_path / "p.zarr", progress=True)
    assert last_state(terminal) == f"{CHUNKS} of {CHUNKS} chunks predicted (100 %)"
    xee_tf.predict_to_cog(model(), ds, tmp_path / "p.tif", if_exists="resume", progress=True)
    states = "\n".join(terminal.states)
    assert f"{CHUNKS} of {CHUNKS} chunks predicted (100 %)" in states
    assert last_state(terminal) == "1 of 1 block encoded (100 %)"
    big = raster({"B4": random_band((600, 1100), "uint8")}).chunk(y=300, x=1100)
    xee_tf.to_cog(big, tmp_path / "big.tif", progress=True)
    assert last_state(terminal) == "6 of 6 blocks encoded (100 %)"  # of 512 pixels
    xee_tf.upload_image(None, tmp_path / "s-mixer.json", tmp_path / "u.zarr", progress=True)
    stored = xr.open_zarr(tmp_path / "u.zarr").B4
    count = math.prod(-(-SIDE // size) for size in stored.encoding["chunks"])
    assert last_state(terminal) == f"{count} of {counted(count, 'chunk')} written (100 %)"
    xee_tf.band_statistics(ds, progress=True)
    assert last_state(terminal) == "81 of 81 chunks read (100 %)"


def test_table_counts_its_parts(terminal: Terminal, tmp_path: Any) -> None:
    pd = pytest.importorskip("pandas")
    xee_tf.export_table(pd.DataFrame({"a": np.arange(9.0)}), tmp_path / "t", progress=True)
    assert last_state(terminal) == "1 of 1 part written (100 %)"


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_continued_prediction_begins_with_what_is_finished(
    scheduler: str, terminal: Terminal, tmp_path: Any
) -> None:
    (calls := tmp_path / "calls").mkdir()

    def failing(pixels: Any) -> Any:
        number = len(list(calls.iterdir()))
        (calls / str(number)).touch()
        if number == 40:
            raise RuntimeError("interrupted")
        return pixels[..., 0]

    with dask.config.set(scheduler=scheduler, num_workers=1):
        with pytest.raises(xee_tf.PredictionError):
            xee_tf.predict_to_zarr(model(failing), image(), tmp_path / "p.zarr", batch_size=1)
        finished = len(list((tmp_path / "p.zarr/.xee_tf/finished").iterdir()))
        assert 0 < finished < CHUNKS
        with mock.patch("xee_tf.graph.progress._TICK", 0.001):
            xee_tf.predict_to_zarr(model(failing), image(), tmp_path / "p.zarr", progress=True)
    numbers = [int(n) for n in re.findall(r"(\d+) of 27 chunks predicted", terminal.getvalue())]
    assert numbers[0] >= finished
    assert numbers == sorted(numbers)
    assert last_state(terminal) == f"{CHUNKS} of {CHUNKS} chunks predicted (100 %)"


def test_failed_run_shows_how_far_it_came(terminal: Terminal, tmp_path: Any) -> None:
    def failing(pixels: Any) -> Any:
        raise RuntimeError("no")

    with dask.config.set(scheduler="sync"), pytest.raises(xee_tf.PredictionError):
        xee_tf.predict_to_zarr(model(failing), image(), tmp_path / "p.zarr", progress=True)
    assert last_state(terminal) == f"0 of {CHUNKS} chunks predicted (0 %)"


def test_progress_adds_no_task(terminal: Terminal, tmp_path: Any) -> None:
    counts = []
    for progress in (False, True):
        tasks: list[Any] = []
        with Callback(posttask=lambda key, *_, tasks=tasks: tasks.append(key)):
            image().tfexport(tmp_path / f"s{progress}", patch_dimensions=16, progress=progress)
        counts.append(len(tasks))
    assert counts[0] == counts[1] > BLOCKS


def test_cluster_without_workers_is_waited_for(terminal: Terminal, tmp_path: Any) -> None:
    write = terminal.write

    def watched(text: str) -> int:
        if "waiting for workers" in text and not cluster.workers:
            cluster.scale(1)
        return write(text)

    with (
        mock.patch.object(terminal, "write", watched),
        mock.patch("xee_tf.graph.progress._CLUSTER_TICK", 0.05),
        LocalCluster(n_workers=0, processes=False, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        image().tfexport(tmp_path / "s", patch_dimensions=16, progress=True)
    states = [state for state in terminal.states if "waiting" in state]
    assert states[-1].endswith(f"0 of {BLOCKS} blocks exported (0 %), waiting for workers")
    assert last_state(terminal) == f"{BLOCKS} of {BLOCKS} blocks exported (100 %)"


def test_cluster_counts_the_same_units(terminal: Terminal, tmp_path: Any) -> None:
    """Half of the chunks wait until the others are shown."""
    seen = tmp_path / "seen"
    (calls := tmp_path / "calls").mkdir()

    def waiting(pixels: Any) -> Any:
        number = len(list(calls.iterdir()))
        (calls / str(number)).touch()
        if number > 40:
            wait_until(seen.exists, 20)
        return pixels[..., 0]

    write = terminal.write

    def watched(text: str) -> int:
        if re.search(r"\b(?!0 |27 )\d+ of 27 ", text):
            seen.touch()
        return write(text)

    with (
        mock.patch.object(terminal, "write", watched),
        mock.patch("xee_tf.graph.progress._CLUSTER_TICK", 0.05),
        LocalCluster(n_workers=1, processes=False, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        xee_tf.predict_to_zarr(model(waiting), image(), tmp_path / "p.zarr", batch_size=1, progress=True)
    assert seen.exists()
    assert last_state(terminal) == f"{CHUNKS} of {CHUNKS} chunks predicted (100 %)"
