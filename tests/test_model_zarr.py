"""Predictions in stores: written by the usual calls, and continued after an interruption."""

import os
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr

from tests.rasters import random_band, raster
from xee_tf import DestinationExistsError, Model, PredictionError, predict_to_zarr

TIMES = np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]")


CALLS = 16  # a call for two tiles of each of two dates


def scene():
    """Sixteen chunks of 16 x 16 pixels, of two dates."""
    values = random_band((2, 64, 64)).astype("f4")
    values[:, 5, 7] = np.nan
    ds = raster({"template": values[0]}).drop_vars("template")
    return ds.assign(a=(("time", "y", "x"), values)).assign_coords(time=TIMES).chunk(y=16, x=16, time=1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1))


class Fragile:
    """Doubles pixels, notes each call in a folder, and breaks at the call that a file beside it names."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, pixels):
        number = len(list(self.folder.iterdir()))
        limit = self.folder.with_suffix(".limit")
        if limit.exists() and number >= int(limit.read_text()):
            if self.folder.with_suffix(".die").exists():
                os._exit(9)
            raise RuntimeError("the plug was pulled")
        (self.folder / f"{number}-{pixels[0, 0, 0, 0]}").touch()
        return {"twice": pixels[..., 0] * 2, "pair": np.stack([pixels[..., 0]] * 2, -1)}


def model_of(folder, limit=None, die=False):
    """A model that breaks at the `limit`-th call; what makes it break is no part of it."""
    for suffix, value in ((".limit", limit), (".die", die or None)):
        file = Path(folder).with_suffix(suffix)
        file.unlink(missing_ok=True)
        if value is not None:
            file.write_text(str(value))
    return Model.from_function(
        Fragile(folder),
        input_tile_size=16,
        output_bands={"twice": "float32", "pair": {"type": "float", "dimensions": 1, "shape": [2]}},
    )


def check(store):
    found = xr.open_zarr(store, decode_coords="all", consolidated=False)
    ds = scene()
    np.testing.assert_array_equal(found.twice, ds.a * 2)
    np.testing.assert_array_equal(found.pair[:, 1], ds.a)
    assert found.rio.crs == "EPSG:32633"
    np.testing.assert_array_equal(found.time, TIMES)
    return found


def test_an_interrupted_run_is_continued_and_nothing_predicted_twice(tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()
    store = tmp_path / "out.zarr"
    with dask.config.set(scheduler="sync"), pytest.raises(PredictionError, match="the plug was pulled"):
        predict_to_zarr(model_of(calls, limit=6), scene(), store)
    assert len(list(calls.iterdir())) == 6
    predict_to_zarr(model_of(calls), scene(), store)
    assert len(list(calls.iterdir())) == CALLS
    check(store)
    assert not Path(f"{store}.progress").exists()
    predict_to_zarr(model_of(calls), scene(), store)
    assert len(list(calls.iterdir())) == CALLS


def test_a_killed_process_is_followed_by_another(tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from unittest import mock\n"
        "import dask\n"
        "import xee_tf\n"
        "from tests.test_model_zarr import model_of, scene\n"
        "with mock.patch('xee_tf.blocks.sizing._BLOCK_BYTES', (1, 1)), dask.config.set(scheduler='sync'):\n"
        "    model = model_of(sys.argv[2], limit=5, die=True)\n"
        "    xee_tf.predict_to_zarr(model, scene(), sys.argv[3])\n"
    )
    root = Path(__file__).parents[1]
    store = tmp_path / "out.zarr"
    done = subprocess.run([sys.executable, "-c", code, root, calls, store], capture_output=True, cwd=tmp_path)
    assert done.returncode == 9, done.stderr.decode()
    noted = len({path.name for path in Path(f"{store}.progress").iterdir()} - {"begun", "prepared"})
    assert noted
    before = len(list(calls.iterdir()))
    predict_to_zarr(model_of(calls), scene(), store)
    assert len(list(calls.iterdir())) == before + CALLS - noted
    check(store)


def test_other_predictions_are_not_mixed_in(tmp_path):
    (tmp_path / "calls").mkdir()
    model = model_of(tmp_path / "calls")
    store = predict_to_zarr(model, scene(), tmp_path / "out.zarr")
    with pytest.raises(DestinationExistsError, match=r"its band 'twice' is .* and would be"):
        predict_to_zarr(model, scene().isel(time=[0]), store)
    with pytest.raises(DestinationExistsError, match="resume is False"):
        predict_to_zarr(model, scene(), store, resume=False)
    predict_to_zarr(model, scene().isel(time=[0]), store, if_exists="overwrite")
    assert xr.open_zarr(store.path, consolidated=False).sizes["time"] == 1
    (tmp_path / "other.zarr").mkdir()
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    with pytest.raises(DestinationExistsError, match="no prediction that was begun"):
        predict_to_zarr(model, scene(), tmp_path / "other.zarr")


def test_object_stores(tmp_path):
    (tmp_path / "calls").mkdir()
    store = predict_to_zarr(model_of(tmp_path / "calls"), scene(), "memory://predictions/out.zarr")
    check(store.url)


def test_the_usual_calls_write_predictions(tmp_path):
    ds = scene().isel(time=0, drop=True)
    model = Model.from_function(
        lambda pixels: {"kind": (pixels[..., 0] > 60).astype("uint8"), "twice": pixels[..., 0] * 2},
        input_tile_size=16,
        output_bands={"kind": "uint8", "twice": "float32"},
    )
    result = model.predict_image(ds, merge=False)
    result.to_zarr(tmp_path / "plain.zarr", consolidated=False)
    found = xr.open_zarr(tmp_path / "plain.zarr", decode_coords="all", consolidated=False)
    np.testing.assert_array_equal(found.twice, ds.a * 2)
    assert np.isnan(found.kind[5, 7])  # masked: xarray decodes the fill value
    result.kind.rio.to_raster(tmp_path / "kind.tif", driver="COG")
    with rasterio.open(tmp_path / "kind.tif") as file:
        assert file.nodata == 255
        assert file.crs.to_string() == "EPSG:32633"
        assert file.transform == ds.rio.transform()
        np.testing.assert_array_equal(file.read(1), result.kind)
