"""The package dask-array in place of `dask.array`, in a process of its own, because it stays registered."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("dask_array")

SCRIPT = """
import sys
import numpy as np, xarray as xr, dask_array
import dask_array.xarray
dask_array.xarray.register()
import xee_tf
from tests.rasters import random_band, raster

folder = sys.argv[1]
bands = {"a": random_band((96, 80), seed=1), "b": random_band((96, 80), seed=2)}
ds = raster(bands).chunk(y=32, x=40)
assert isinstance(ds.a.data, dask_array.Array)
options = {"patch_dimensions": 16, "kernel_size": 4}
ds.tfexport(f"{folder}/lazy", **options)
raster(bands).tfexport(f"{folder}/loaded", **options)
model = xee_tf.Model.from_function(
    lambda image: image[..., 0] - image[..., 1], input_tile_size=16, input_overlap_size=2, output_bands=["d"]
)
predicted = model.predict_image(ds)  # with the bands of the image
assert all(isinstance(band.data, dask_array.Array) for band in predicted.data_vars.values())
np.testing.assert_array_equal(predicted.compute().d, bands["a"] - bands["b"])
opened = xee_tf.open_image(f"{folder}/lazy-mixer.json")
difference = opened.assign_coords(ds.coords).a - ds.a
assert isinstance(difference.data, dask_array.Array)
assert float(abs(difference).max()) == 0
xee_tf.predict_to_zarr(model, ds, f"{folder}/d.zarr")
np.testing.assert_array_equal(xr.open_zarr(f"{folder}/d.zarr").d, bands["a"] - bands["b"])
xee_tf.to_cog(predicted[["d"]], f"{folder}/d.tif")
for probabilities in (ds, ds.chunk(x=16).to_dataarray("band").chunk(band=1)):
    classes = xee_tf.class_map(probabilities, confidence=True)
    assert all(isinstance(band.data, dask_array.Array) for band in classes.data_vars.values())
    np.testing.assert_array_equal(classes["class"], np.argmax([bands["a"], bands["b"]], axis=0))
    np.testing.assert_array_equal(classes["confidence"], np.maximum(bands["a"], bands["b"]))
xee_tf.to_cog(classes["class"], f"{folder}/classes.tif")
"""


def test_dask_array(tmp_path):
    subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], cwd=ROOT, check=True)
    shards = {name: (tmp_path / f"{name}-00000.tfrecord.gz").read_bytes() for name in ("lazy", "loaded")}
    assert shards["lazy"] == shards["loaded"]
