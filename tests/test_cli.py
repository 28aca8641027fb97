"""The command line: thin, so that options, messages and exit codes are what is tested."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import rioxarray

import xee_tf
from tests.rasters import random_band, raster
from xee_tf.cli import main

SHAPE = (60, 90)


@pytest.fixture
def scene():
    return raster({"red": random_band(SHAPE), "nir": random_band(SHAPE, "uint8", seed=1)})


@pytest.fixture
def files(scene, tmp_path):
    """Each band as a GeoTIFF of its own, named after it."""
    placed = scene.rio.write_crs(scene.attrs["crs"])
    paths = [tmp_path / f"{name}.tif" for name in scene]
    for name, path in zip(scene, paths, strict=True):
        placed[name].rio.to_raster(path)
    return [str(path) for path in paths]


def test_export_is_the_same_as_the_function(scene, files, tmp_path, capsys):
    options = ["--patch-dimensions", "20", "16", "--kernel-size", "6", "2", "--feature-types", "band"]
    assert main(["export", *files, str(tmp_path / "cli"), *options]) == 0
    assert "<xee_tf.ExportResult>" in capsys.readouterr().out
    scene.tfexport(tmp_path / "function", patch_dimensions=(20, 16), kernel_size=(6, 2), feature_types="band")
    for suffix in ("-00000.tfrecord.gz", "-mixer.json"):
        cli, function = (tmp_path / f"{name}{suffix}" for name in ("cli", "function"))
        assert cli.read_bytes() == function.read_bytes()


def test_plan_writes_nothing(files, tmp_path, capsys):
    prefix = tmp_path / "out" / "scene"
    assert main(["export", *files, str(prefix), "--plan", "--patch-dimensions", "20", "16"]) == 0
    assert "patches  12 = 3 rows × 4 columns of 20 × 16 px" in capsys.readouterr().out
    assert not prefix.parent.exists()


def test_bands_regions_and_other_files(scene, tmp_path, capsys):
    """A Zarr store, some of its bands, a region."""
    store = tmp_path / "scene.zarr"
    placed = scene.rio.write_crs(scene.attrs["crs"])
    placed.chunk(y=30, x=30).to_zarr(store, zarr_format=2)
    box = ["700300", "4998980", "701500", "4999700"]  # left, bottom, right, top
    options = ["--bands", "nir", "--patch-dimensions", "8", "8", "--region", *box, "--no-compress"]
    assert main(["export", str(store), str(tmp_path / "part"), *options]) == 0
    assert "patches  15 = 3 rows × 5 columns" in capsys.readouterr().out
    assert (tmp_path / "part-00000.tfrecord").exists()
    opened = xee_tf.open_image(tmp_path / "part-mixer.json")
    assert list(opened) == ["nir"]
    np.testing.assert_array_equal(opened.nir, scene.nir[10:34, 10:50])


def test_several_bands_of_several_files_are_told_apart(scene, files, tmp_path, capsys):
    both = tmp_path / "both.tif"
    scene.to_array("band").rio.write_crs(scene.attrs["crs"]).astype("float32").rio.to_raster(both)
    assert (
        main(["export", str(both), files[0], str(tmp_path / "x"), "--plan", "--patch-dimensions", "8", "8"])
        == 0
    )
    assert "3 as float: both_1, both_2, red" in capsys.readouterr().out


def test_upload_and_inspect(scene, tmp_path, capsys):
    export = scene.tfexport(tmp_path / "scene", patch_dimensions=(30, 20), kernel_size=4)
    with xee_tf.PredictionWriter(tmp_path / "predicted.tfrecord", export.mixer) as writer:
        writer.write({"class": np.arange(9 * 20 * 30, dtype="float32").reshape(9, 20, 30) % 7})
    records, mixer = str(tmp_path / "predicted.tfrecord"), str(export.mixer)
    target = tmp_path / "class.tif"
    assert main(["upload", records, mixer, str(target), "--dtype", "uint8", "--nodata", "0"]) == 0
    assert f"Wrote {target}" in capsys.readouterr().out
    tif = rioxarray.open_rasterio(target)
    assert tif.dtype == "uint8"
    np.testing.assert_array_equal(tif[0, :20, :30], np.arange(600).reshape(20, 30) % 7)
    assert main(["upload", records, mixer, str(target)]) == 1
    assert "--overwrite" in capsys.readouterr().err

    assert main(["inspect", mixer]) == 0
    out = capsys.readouterr().out
    assert "patches  9 = 3 rows × 3 columns of 30 × 20 px, stored with margins as 34 × 24" in out
    assert "bands    2 as float: red, nir" in out
    assert "x        700000.0 to 702700.0, steps of 30.0" in out
    assert main(["inspect", records]) == 0
    assert "class  float, 600 values" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "none-mixer.json"], "none-mixer.json"),
        (["inspect", "none.tfrecord"], "none.tfrecord does not exist"),
        (["export", "none.tif", "out/x"], "none.tif: No such file"),
        (["upload", "a.tfrecord", "none-mixer.json", "out.tif"], "none-mixer.json"),
    ],
)
def test_errors_are_one_line_and_exit_1(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"xee-tf {arguments[0]}: ")
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_unknown_band_names_the_known_ones(files, tmp_path, capsys):
    assert main(["export", *files, str(tmp_path / "x"), "--bands", "blue"]) == 1
    assert "There is no band 'blue'; there are 'red', 'nir'" in capsys.readouterr().err


def test_the_command_is_installed_and_says_its_version():
    run = subprocess.run(
        [sys.executable, "-m", "xee_tf.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == f"xee-tf {xee_tf.__version__}"
