"""A path, or a model, in place of a raster: every function says so, and how to open the file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rioxarray
import xarray as xr

import xee_tf
from tests.rasters import CRS, raster

MODEL = xee_tf.Model.from_function(lambda pixels: pixels[:, 0], unit="pixel", output_bands=["a"])
CALLS = {
    "export_image": lambda image, out: xee_tf.export_image(image, out / "scene"),
    "plan_export": lambda image, out: xee_tf.plan_export(image),
    "sample_table": lambda image, out: xee_tf.sample_table(image, None, out / "points", n=1),
    "band_statistics": lambda image, out: xee_tf.band_statistics(image),
    "open_patches": lambda image, out: xee_tf.open_patches(image, patch_dimensions=2),
    "add_bands": lambda image, out: xee_tf.add_bands(image, raster({"a": np.zeros((4, 4))})),
    "class_map": lambda image, out: xee_tf.class_map(image),
    "to_cog": lambda image, out: xee_tf.to_cog(image, out / "map.tif"),
    "explore": lambda image, out: xee_tf.explore(image),
    "predict_image": lambda image, out: MODEL.predict_image(image),
    "plan": lambda image, out: MODEL.plan(image),
    "predict_to_cog": lambda image, out: xee_tf.predict_to_cog(MODEL, image, out / "map.tif"),
    "predict_to_zarr": lambda image, out: xee_tf.predict_to_zarr(MODEL, image, out / "map.zarr"),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_tell_how_to_open_a_file(name, tmp_path):
    with pytest.raises(xee_tf.OptionError) as error:
        CALLS[name]("scene.tif", tmp_path)
    assert "got str. Open the file first: rioxarray.open_rasterio('scene.tif'," in str(error.value)
    with pytest.raises(xee_tf.OptionError, match=r"got Model\.$"):
        CALLS[name](MODEL, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("https://host/scene.tiff", "rioxarray.open_rasterio('https://host/scene.tiff', masked=True"),
        ("s3://bucket/cube.zarr/", "xr.open_zarr('s3://bucket/cube.zarr/', decode_coords='all')"),
        (Path("cube.NC"), "xr.open_dataset('cube.NC', decode_coords='all', chunks={})"),
        ("scene", "rioxarray.open_rasterio('scene', masked=True"),
    ],
)
def test_file_formats(path, call):
    with pytest.raises(xee_tf.OptionError, match=re.escape(f"Open the file first: {call}")):
        xee_tf.plan_export(path)


def test_the_call_that_a_message_names_opens_the_file(tmp_path):
    image = raster({"a": np.arange(16.0).reshape(4, 4)}).rio.write_crs(CRS)
    image["a"].rio.to_raster(tmp_path / "scene.tif")
    image.drop_attrs(deep=False).to_zarr(tmp_path / "scene.zarr", zarr_format=2)
    for name in ("scene.tif", "scene.zarr"):
        with pytest.raises(xee_tf.OptionError) as error:
            xee_tf.plan_export(tmp_path / name)
        call = str(error.value).partition("Open the file first: ")[2].removesuffix(".")
        opened = eval(call, {"rioxarray": rioxarray, "xr": xr})
        assert len(xee_tf.plan_export(opened, patch_dimensions=2).grid) == 4
