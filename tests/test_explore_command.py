"""``xee-tf explore``: the map of rasters, and of a prediction, from a shell."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import urllib.request

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.io import MemoryFile

from tests.conftest import needs_posix
from tests.onnx_models import model, node
from xee_tf_cli import main

pytestmark = needs_posix

HALF = 20037508.342789244  # half the width of the world in Web Mercator
ZOOM, COLUMN, ROW = 12, 2200, 1400
SIDE = 2 * HALF / 2**ZOOM
COLORS = ["#aa0000", "#00bb00", "#0000cc"]


@pytest.fixture
def pixels():
    values = np.random.default_rng(5).integers(1, 250, (3, 256, 256), "u1")
    values[:, 200:, 100:] = 0  # masked
    return values


@pytest.fixture
def source(pixels, tmp_path):
    """Return a GeoTIFF whose pixels are those of one tile of the map."""
    path = str(tmp_path / "rgb.tif")
    affine = Affine(SIDE / 256, 0, COLUMN * SIDE - HALF, 0, -SIDE / 256, HALF - ROW * SIDE)
    form = {"driver": "GTiff", "dtype": "uint8", "nodata": 0, "crs": "EPSG:3857", "transform": affine}
    with rasterio.open(path, "w", count=3, width=256, height=256, **form) as file:
        file.write(pixels)
        file.descriptions = ("B4", "B3", "B2")
    return path


class Screen(io.StringIO):
    """Standard output that knows when a line was printed."""

    def __init__(self):
        super().__init__()
        self.has_line = threading.Event()

    def write(self, text):
        super().write(text)
        if "\n" in self.getvalue():
            self.has_line.set()
        return len(text)


def fetch(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def explored(monkeypatch, arguments, address=lambda text: json.loads(text)["url"], signum=signal.SIGINT):
    """Run the command until it has answered; return its output, the page's layers and their tiles."""
    screen, found, ended = Screen(), {}, threading.Event()

    def look():
        while not screen.has_line.wait(0.1):
            if ended.is_set():
                return
        try:
            url = address(screen.getvalue())
            page = fetch(url).decode()
            found["layers"] = json.loads(page.partition('json">')[2].partition("</script>")[0])["layers"]
            found["tiles"] = [
                fetch(f"{url}tiles/{number}/{ZOOM}/{COLUMN}/{ROW}.png")
                for number in range(len(found["layers"]))
            ]
        finally:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(sys, "stdout", screen)
    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert main(["explore", *arguments]) == 0
    finally:
        ended.set()
        thread.join()
    return screen.getvalue(), found["layers"], [read_png(data) for data in found["tiles"]]


def read_png(data):
    with MemoryFile(data) as file, pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        return file.open().read()


def test_rasters_are_shown_until_ctrl_c(source, pixels, monkeypatch):
    options = ["--rgb", "B3,B4,B2", "--vmin", "0", "--vmax", "255", "--resampling", "nearest"]
    text, [layer], [tile] = explored(monkeypatch, [source, *options, "--json"])
    assert set(json.loads(text)) == {"url"}
    assert text.count("\n") == 1
    assert layer["bounds"]
    np.testing.assert_array_equal(tile[:3], pixels[[1, 0, 2]])
    np.testing.assert_array_equal(tile[3], np.where(pixels[0] == 0, 0, 255))


def test_prediction_is_shown_above_the_rasters(source, pixels, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    shape = ("float32", ["n", "h", "w", 3])
    (tmp_path / "m.onnx").write_bytes(model([node("Identity", ["x"], ["y"])], {"x": shape}, {"y": shape}))
    classes = ",".join(f"{name}={color}" for name, color in zip("abc", COLORS, strict=True))
    how = ["--model", str(tmp_path / "m.onnx"), "--input-tile-size", "64", "--class-map", classes]
    show = ["--rgb", "B4,B3,B2", "--vmin", "0", "--vmax", "255", "--resampling", "nearest"]
    text, layers, [below, above] = explored(
        monkeypatch,
        [source, *how, *show, "--opacity", "0.5"],
        address=lambda text: text.split()[1],
        signum=signal.SIGTERM,
    )
    assert text.startswith("Open http://127.0.0.1:")
    assert text.endswith("/ in a browser. Stop with Ctrl-C.\n")
    assert [layer["name"] for layer in layers] == ["image", "prediction"]
    assert [layer["opacity"] for layer in layers] == [1, 0.5]
    np.testing.assert_array_equal(below[:3], pixels)
    colors = np.array([[*bytes.fromhex(color[1:])] for color in COLORS], "u1")
    expected = np.where(pixels[0] == 0, 0, colors[pixels.argmax(axis=0)].transpose(2, 0, 1))
    np.testing.assert_array_equal(above[:3], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rgb", "B4,B3"], "--rgb must be three names of bands"),
        (["--band", "B9"], "'B9', which is no band of 'raster'; its bands are 'B4', 'B3', 'B2'."),
        (["--input-tile-size", "64"], "--input-tile-size is for a prediction: pass --model, too"),
        (["--blend", "hann"], "blend is for a prediction: pass --model, too, or omit it."),
        (["--opacity", "2", "--rgb", "B4,B3,B2"], "--opacity must be a number from 0 to 1; got 2"),
    ],
)
def test_wrong_options_end_before_there_is_a_map(options, message, source, capsys):
    assert main(["explore", source, *options]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
