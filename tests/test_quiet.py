"""Nothing is printed that nobody asked for, and no warning by what opens our files with its defaults."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr

import xee_tf
from tests.rasters import random_band, raster
from xee_tf.tensorflow_log import importing_tensorflow

SCRIPT = """
import os, sys
import numpy as np
import xarray as xr
import xee_tf

axes = {"y": 5e6 - 30 * np.arange(8.0), "x": 7e5 + 30 * np.arange(8.0)}
scene = xr.Dataset({"B4": (("y", "x"), np.eye(8, dtype="f4"))}, axes).rio.write_crs("EPSG:32633")
scene.tfexport("s", patch_dimensions=4)
for batch in xee_tf.tf_dataset("s-mixer.json", inputs=["B4"], batch_size=2):
    pass
import keras
network = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1)])
network.save("m.keras")
size = {"input_tile_size": 4}
for model in (xee_tf.Model.from_keras(network, **size), xee_tf.Model.from_keras("m.keras", **size)):
    xee_tf.predict_to_zarr(model, scene, "p.zarr", if_exists="overwrite")
assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
from xee_tf_cli import main
network.export("m", verbose=False)
sys.exit(main(["model", "prepare", "--source-dir", "m", "--dest-dir", "n"]))
"""


@pytest.mark.long
def test_tensorflow_prints_nothing(tmp_path):
    pytest.importorskip("tensorflow")
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.startswith("Wrote ")


def test_only_messages_of_tensorflow_are_dropped(monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    lines = [
        b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        b"I0000 00:00:1795818591.695978    2123 port.cc:153] oneDNN custom operations are on.",
        b"mine",
        b"2026-11-27 22:00:01.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations",
        b"F0000 00:00:1795818591.695978    2123 port.cc:153] fatal",
        b"Error: I0000",
    ]

    def fail():
        with importing_tensorflow():
            assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
            os.write(2, b"\n".join(lines) + b"\n")
            print("also mine", file=sys.stderr)
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    kept = [line.decode() for line in lines if line.startswith((b"mine", b"F", b"Error"))]
    assert [line for line in capfd.readouterr().err.splitlines() if line != "also mine"] == kept
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with importing_tensorflow():
        os.write(2, lines[1])
    assert capfd.readouterr().err == lines[1].decode()


@pytest.fixture
def scene():
    """Return a raster with masked pixels, a series and an integer band."""
    red = random_band((40, 50))
    red[3, 4] = np.nan
    image = raster({"red": red, "nir": random_band((40, 50), "uint8", seed=1)})
    return image.rio.write_crs(image.attrs["crs"]).chunk(y=20, x=25)


def write_all(scene, folder):
    """Write each kind of store and file; return their paths."""
    export = scene.tfexport(folder / "s", patch_dimensions=10)
    model = xee_tf.Model.from_function(
        lambda pixels: pixels[..., :2], input_tile_size=20, output_bands=["p", "q"]
    )
    xee_tf.upload_image(folder / "s", export.mixer, folder / "upload.zarr")
    xee_tf.upload_image(folder / "s", export.mixer, folder / "upload.tif")
    xee_tf.predict_to_zarr(model, scene, folder / "predict.zarr")
    xee_tf.predict_to_cog(model, scene, folder / "predict.tif")
    xee_tf.to_cog(scene["nir"], folder / "cog.tif")
    xee_tf.class_map(model.predict_image(scene, merge=False)).to_zarr(folder / "classes.zarr", zarr_format=2)
    predicted = model.predict_image(scene, merge=False)
    predicted["p"].rio.to_raster(folder / "own.tif")
    return sorted(path for path in folder.iterdir() if path.suffix in (".zarr", ".tif"))


def test_what_is_written_opens_without_warnings(scene, tmp_path):
    """With the defaults of xarray and rasterio."""
    with warnings.catch_warnings(action="error"):
        # rioxarray and rasterio multiply affine transforms with `*`.
        warnings.filterwarnings("ignore", "Use `@` matmul", PendingDeprecationWarning)
        for path in write_all(scene, tmp_path):
            if path.suffix == ".zarr":
                with xr.open_zarr(path) as found:
                    found.load()
                with xr.open_dataset(path, engine="zarr", decode_coords="all") as found:
                    assert found.rio.crs.to_epsg() == 32633
            else:
                with rasterio.open(path) as file:
                    file.read()
                rioxarray.open_rasterio(path).load().close()
        with xr.open_dataset(tmp_path / "s-mixer.json", engine="tfrecord") as found:
            found.load()
