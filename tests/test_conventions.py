"""Results are rasters to rioxarray, odc-geo and hvPlot, and paths may be those of universal_pathlib."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xee_tf
from tests.optional import optional
from tests.rasters import random_band, raster

upath = optional("upath")


@pytest.fixture
def scene():
    return raster({"nir": random_band((44, 60)), "red": random_band((44, 60), seed=1)}).chunk(y=20, x=32)


@pytest.fixture(params=["opened", "predicted", "zarr", "class_map"])
def result(request, scene, tmp_path):
    """A raster of 40 x 60 pixels from each kind of result, with its place."""
    area = scene.isel(y=slice(40))
    model = xee_tf.Model.from_function(
        lambda tiles: tiles, input_tile_size=20, bands=["nir", "red"], output_bands=["nir", "red"]
    )
    if request.param == "opened":
        return xee_tf.open_image(area.tfexport(tmp_path / "scene", patch_dimensions=20)), area
    if request.param == "zarr":
        xee_tf.predict_to_zarr(model, area, tmp_path / "out.zarr")
        return xr.open_zarr(tmp_path / "out.zarr", decode_coords="all"), area
    predicted = model.predict_image(area, merge=False)
    return (predicted if request.param == "predicted" else xee_tf.class_map(predicted).to_dataset()), area


def test_results_work_with_rioxarray(result, tmp_path):
    found, area = result
    band = next(iter(found.data_vars))
    assert found.rio.crs == area.rio.crs
    assert found[band].rio.crs == area.rio.crs
    assert found.rio.transform().almost_equals(area.rio.transform())
    left, bottom, right, top = found.rio.bounds()
    clipped = found[band].rio.clip_box(left + 300, bottom + 300, right - 300, top - 300)
    assert clipped.shape == (20, 40)
    assert found[band].rio.reproject("EPSG:4326").rio.crs.to_epsg() == 4326
    found[band].rio.to_raster(tmp_path / "band.tif")
    with xr.open_dataarray(tmp_path / "band.tif", engine="rasterio", mask_and_scale=False) as again:
        np.testing.assert_array_equal(again[0], found[band])


def test_results_work_with_odc_geo(result):
    pytest.importorskip("odc.geo.xr")
    found, area = result
    band = next(iter(found.data_vars))
    for each in (found, found[band]):
        assert each.odc.geobox.crs.to_epsg() == area.rio.crs.to_epsg()
        assert each.odc.geobox.shape == (40, 60)
        assert each.odc.geobox.affine.almost_equals(area.rio.transform())
    half = found[band].odc.reproject(found.odc.geobox.zoom_out(2), resampling="nearest")
    assert half.shape == (20, 30)
    assert found[band].odc.output_geobox("EPSG:4326").crs.to_epsg() == 4326


@pytest.mark.long  # its import takes 8 s
@pytest.mark.filterwarnings("default")  # of HoloViews and Bokeh
def test_results_work_with_hvplot(result):
    pytest.importorskip("hvplot.xarray")
    found, _ = result
    band = next(iter(found.data_vars))
    image = found[band].hvplot.image(x="x", y="y", data_aspect=1)
    np.testing.assert_array_equal(image.dimension_values(band, flat=False)[::-1], found[band])


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_universal_pathlib(scene, tmp_path, kind):
    folder = upath.UPath(f"memory://pathlib-{tmp_path.name}" if kind == "memory" else tmp_path)
    exported = scene.tfexport(folder / "scene", patch_dimensions=20)
    assert xee_tf.Mixer.read(folder / "scene-mixer.json").total_patches == 6
    assert xee_tf.verify(folder / "scene").ok
    opened = xee_tf.open_image(folder / "scene-mixer.json")
    np.testing.assert_array_equal(opened.red, scene.red[:40])
    xee_tf.upload_image(exported, folder / "scene-mixer.json", folder / "scene.zarr")
    model = xee_tf.Model.from_function(
        lambda tiles: tiles, input_tile_size=20, bands=["nir"], output_bands=["nir"]
    )
    xee_tf.predict_to_zarr(model, scene, folder / "out.zarr")
    for name, expected in (("scene", scene.nir[:40]), ("out", scene.nir)):
        store = str(folder / f"{name}.zarr")
        np.testing.assert_array_equal(xr.open_zarr(store, decode_coords="all").nir, expected)
