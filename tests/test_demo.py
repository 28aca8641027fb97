"""The demo and the notebook, with few epochs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

import nbformat
import numpy as np
import rasterio
import rioxarray
import xarray as xr
from nbclient import NotebookClient
from PIL import Image

from xee_tf import demo
from xee_tf.errors import XeeTFError
from xee_tf_cli import main

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "main_job.ipynb"


@pytest.fixture(scope="module")
def output(tmp_path_factory, data_dir):
    """Run ``xee-tf demo`` and return its output folder."""
    return run(tmp_path_factory.mktemp("demo"), data_dir, epochs=3)


def run(folder, data_dir, epochs):
    arguments = ["--output", str(folder), "--data", str(data_dir), "--epochs", str(epochs)]
    assert main(["demo", *arguments]) == 0
    return folder


def test_raster_is_aligned(output, landsat_dir):
    """Everything is computed again from the files."""
    predicted = rioxarray.open_rasterio(output / "landcover.tif")
    assert predicted.dtype == "uint8"
    assert predicted.rio.nodata == 0
    assert predicted.shape == (1, 432, 480)
    assert predicted.rio.crs.to_epsg() == 32119
    assert tuple(predicted.rio.transform())[:6] == (28.5, 0, 630534, 0, -28.5, 228114)
    np.testing.assert_array_equal(predicted.to_numpy()[0] > 0, valid_pixels(landsat_dir))


def valid_pixels(landsat_dir):
    band = rioxarray.open_rasterio(landsat_dir / "lsat7_2000_10.tif", masked=True)
    return band.notnull().to_numpy()[0, :432, :480]


@pytest.mark.long
def test_raster_is_accurate_on_held_out_columns(data_dir, landsat_dir, tmp_path):
    predicted = rioxarray.open_rasterio(run(tmp_path, data_dir, epochs=18) / "landcover.tif")
    labels = rioxarray.open_rasterio(landsat_dir / "strata.tif")
    valid = valid_pixels(landsat_dir)
    held_out = np.s_[:, 160:304]
    classes, truth = predicted.to_numpy()[0][held_out], labels.to_numpy()[0, :432, :480][held_out]
    correct = classes == truth
    baseline = np.bincount(truth[valid[held_out]].astype(int)).max() / valid[held_out].sum()
    assert correct[valid[held_out]].mean() > baseline + 0.1
    assert (classes[truth == 4] == 4).mean() > 0.05, "shrubland is not found"


def test_geotiff_has_the_most_probable_classes_of_the_zarr_store(output):
    store = xr.open_zarr(output / "landcover.zarr", decode_coords="all", consolidated=False)
    tif = rioxarray.open_rasterio(output / "landcover.tif").squeeze("band", drop=True)
    probabilities = np.stack([store[name].to_numpy() for name, _ in demo.CLASSES.values()])
    valid = tif.to_numpy() > 0
    np.testing.assert_array_equal(~np.isnan(probabilities).any(axis=0), valid)
    np.testing.assert_array_equal(probabilities[:, valid].argmax(axis=0) + 1, tif.to_numpy()[valid])
    np.testing.assert_allclose(probabilities[:, valid].sum(axis=0), 1, rtol=1e-5)
    assert store.rio.crs == tif.rio.crs


def test_geotiff_has_the_colors_of_the_classes(output):
    with rasterio.open(output / "landcover.tif") as file:
        found = {value: file.colormap(1)[value][:3] for value in demo.CLASSES}
    assert found == {value: tuple(bytes.fromhex(code[1:])) for value, (_, code) in demo.CLASSES.items()}


def test_figure_shows_the_predicted_classes(output):
    pixels = np.asarray(Image.open(output / "landcover.png").convert("RGB")).reshape(-1, 3)
    colors = {tuple(color) for color in np.unique(pixels, axis=0)}
    for name in ("developed", "herbaceous", "forest", "water"):
        code = dict(demo.CLASSES.values())[name]
        assert tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) in colors


def test_margins_of_training_patches_end_at_the_held_out_columns():
    assert demo.HELD_OUT.start - demo.WEST.stop == demo.MARGIN
    assert demo.EAST.start - demo.HELD_OUT.stop == demo.MARGIN
    assert (demo.WEST.stop - demo.WEST.start) % demo.PATCH == 0


def test_weights_of_classes(output, data_dir):
    scene = demo.open_scene(demo.find_data(data_dir))
    sides = [
        scene.tfexport(output / f"weights-{n}", region=(slice(None), span), patch_dimensions=48)
        for n, span in enumerate((demo.WEST, demo.EAST))
    ]
    labels = [scene.label.to_numpy()[:432, span] for span in (demo.WEST, slice(320, 464))]  # whole patches
    expected = sum(np.bincount(label.ravel(), minlength=8) for label in labels)[1:]
    counts = demo.count_classes(sides)
    assert list(counts.values()) == expected.tolist()
    weights = demo.class_weights(counts)
    assert sorted(counts, key=counts.get) == sorted(weights, key=weights.get, reverse=True)
    ratio = weights[2] / weights[5]
    assert 1 < ratio < counts[5] / counts[2]


def test_recalls_are_those_of_the_held_out_columns(data_dir):
    scene = demo.open_scene(demo.find_data(data_dir))
    found = scene.label[:432, :480].compute()
    assert set(demo.recalls(scene, found).values()) == {1.0}
    assert "sediment" not in demo.recalls(scene, found)  # the held-out columns have none
    found[:216] = 4
    truth = scene.label.to_numpy()[:432, demo.HELD_OUT]
    recalls = demo.recalls(scene, found)
    assert recalls["shrubland"] == 1
    assert recalls["forest"] == (truth[216:] == 5).sum() / (truth == 5).sum()


def test_check_alignment_detects_a_shift(output, data_dir):
    scene = demo.open_scene(demo.find_data(data_dir))
    options = {"patch_dimensions": (96, 72), "kernel_size": 32, "if_exists": "overwrite"}
    mixer = str(scene[demo.BANDS].tfexport(output / "again", **options).mixer)
    tif = rioxarray.open_rasterio(output / "landcover.tif").squeeze("band", drop=True)
    patches = tif.to_numpy().reshape(6, 72, 5, 96).swapaxes(1, 2).reshape(30, 72, 96)
    store = output / "landcover.zarr"
    demo.check_alignment(scene, mixer, patches, tif, store)
    with pytest.raises(XeeTFError, match="pixel centers"):
        demo.check_alignment(scene, mixer, patches, tif.assign_coords(x=tif.x + 28.5), store)
    with pytest.raises(XeeTFError, match="GeoTIFF pixels, Zarr pixels"):
        demo.check_alignment(scene, mixer, patches[::-1], tif, store)


def test_missing_scene_is_an_error(tmp_path, capsys):
    assert main(["demo", "--data", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert re.search(r"scene of the demo was not found in .*pip install", captured.err)
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["tensorflow", "matplotlib"])
def test_missing_extra_is_an_error_before_anything_is_written(
    package, tmp_path, data_dir, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["demo", "--data", str(data_dir), "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert f'needs {package}, which is not installed: pip install "xee-tf[demo]"' in captured.err
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_demo_trains_at_least_one_epoch(tmp_path, data_dir, capsys):
    assert main(["demo", "--data", str(data_dir), "--output", str(tmp_path / "out"), "--epochs", "-3"]) == 1
    assert "--epochs must be a whole number of at least 1; got -3." in capsys.readouterr().err


@pytest.mark.long  # the quickstart runs always: tests/test_notebooks.py
def test_notebook_runs(data_dir, tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert re.match(r"EPOCHS = \d+", parameters.source)
    parameters.source = "EPOCHS = 1"
    monkeypatch.setenv("XEE_TF_DATA", str(data_dir))
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    plan = next(
        o.data["text/html"] for o in outputs if "ExportPlan" in o.get("data", {}).get("text/html", "")
    )
    assert "<svg" in plan
