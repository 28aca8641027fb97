"""Results have the georeference of their image, in whatever form the image has it."""

import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.optional import optional
from tests.strategies import examples, georefs
from xee_tf import Model
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, read_georef, write_georef
from xee_tf.georef.bands import image_dataset
from xee_tf.georef.coordinates import corner_distance
from xee_tf.georef.crs import read_crs, same_crs

optional("odc.geo.xr")  # registers .odc
odc = optional("odc")
GeoBox = optional("odc.geo.geobox", "GeoBox")

# Some cases intentionally pass a crs= that differs from that of the image.
pytestmark = pytest.mark.filterwarnings("ignore:crs= is :UserWarning")

SHAPE = (12, 18)
AFFINE = Affine(250, 0, 400_000, 0, -250, 5_200_000)
SHEARED = Affine(250, 40, 400_000, 30, -250, 5_200_000)
MEAN = Model.from_function(lambda pixels: pixels.mean(-1), input_tile_size=8, bands=["b"], output_bands=["p"])


def bare(affine=AFFINE, dims=("y", "x"), shape=SHAPE, coords=True):
    """A raster with or without coordinates of pixel centres, and nothing else."""
    y = affine.f + affine.e * (np.arange(shape[0]) + 0.5)
    x = affine.c + affine.a * (np.arange(shape[1]) + 0.5)
    values = np.random.default_rng(1).random(shape, "float32")
    return xr.Dataset({"b": (dims, values)}, {dims[0]: y, dims[1]: x} if coords else {})


def sheared(crop=False):
    grid = GeoRef(pyproj.CRS("EPSG:32631"), SHEARED, Size(x=18, y=12))
    image = write_georef(bare(coords=False), grid)
    return image.isel(y=slice(2, 11), x=slice(3, 15)) if crop else image


def with_centres_of_a_sheared_grid():
    """Return a crop of a sheared raster from rioxarray: its xc and yc are right, its GeoTransform is not."""
    columns, rows = np.meshgrid(np.arange(18) + 0.5, np.arange(12) + 0.5)
    x, y = SHEARED @ (columns, rows)
    image = sheared().assign_coords(xc=(("y", "x"), x), yc=(("y", "x"), y))
    return image.isel(y=slice(2, 11), x=slice(3, 15))


def numbered():
    box = GeoBox(SHAPE, SHEARED, "EPSG:32631")
    array = odc.geo.xr.wrap_xr(np.random.default_rng(1).random(SHAPE, "float32"), box)
    return array.rename("b").to_dataset().isel(y=slice(1, 9), x=slice(2, 16))


def in_kilometres():
    image = bare().rio.write_crs("EPSG:32631")
    axes = {name: (name, image[name].values / 1000, {"units": "km"}) for name in "yx"}
    return image.assign_coords(axes).rio.write_transform(AFFINE)


def noisy():
    """Exact numbers in the GeoTransform, single precision in the coordinates."""
    third = Affine(1 / 3, 0, 100 / 7, 0, -1 / 3, 200 / 7)
    image = bare(third, dims=("lat", "lon")).rio.write_crs(4326).rio.write_transform(third)
    return image.assign_coords(lat=image.lat.astype("f4"), lon=image.lon.astype("f4"))


WAYS = {
    "rioxarray": lambda: (bare().rio.write_crs(32631), {}),
    "odc-geo": lambda: (odc.geo.xr.assign_crs(bare(), 32631), {}),
    "a data variable": lambda: (bare().rio.write_crs(32631).reset_coords("spatial_ref"), {}),
    "a mapping of another name": lambda: (
        bare().rio.write_crs(32631, grid_mapping_name="utm").reset_coords("utm"),
        {},
    ),
    "attributes": lambda: (bare().assign_attrs(crs="EPSG:32631", transform=[1, 0, 0, 0, 1, 0]), {}),
    "attributes of bands": lambda: (
        bare().assign(b=bare().b.assign_attrs(crs="+init=epsg:32631")),
        {},
    ),
    "the Zarr convention": lambda: (
        bare(coords=False).assign_attrs({"proj:code": "EPSG:3035", "spatial:transform": list(AFFINE)[:6]}),
        {},
    ),
    "crs=": lambda: (bare(), {"crs": "EPSG:32631"}),
    "crs= that overrules": lambda: (bare().rio.write_crs(4326), {"crs": "EPSG:32631"}),
    "crs= and transform=": lambda: (bare(coords=False), {"crs": 3413, "transform": AFFINE}),
    "transform= that overrules": lambda: (
        bare().rio.write_crs(32631).rio.write_transform(AFFINE),
        {"transform": AFFINE @ Affine.scale(2) @ Affine.translation(5, 7)},
    ),
    "a sheared transform=": lambda: (bare().rio.write_crs(32631), {"transform": SHEARED}),
    "sheared": lambda: (sheared(), {}),
    "sheared, a data variable": lambda: (sheared().reset_coords("spatial_ref"), {}),
    "sheared and cropped": lambda: (with_centres_of_a_sheared_grid(), {}),
    "odc-geo's numbered pixels": lambda: (numbered(), {}),
    "kilometres": lambda: (in_kilometres(), {}),
    "single precision": lambda: (noisy(), {}),
    "x before y": lambda: (bare().rio.write_crs(32631).transpose("x", "y"), {}),
    "south up": lambda: (bare().rio.write_crs(32631).isel(y=slice(None, None, -1)), {}),
    "steps of time": lambda: (
        bare().rio.write_crs(32631).expand_dims(time=np.array(["2020-01-01", "2020-02-01"], "M8[ns]")),
        {},
    ),
    "longitude and latitude": lambda: (
        bare(Affine(0.5, 0, 170, 0, -0.5, 60), ("latitude", "longitude")).rio.write_crs(4326),
        {},
    ),
    "lon and lat": lambda: (bare(Affine(0.5, 0, 170, 0, -0.5, 60), ("lat", "lon")), {"crs": 4326}),
    "dimensions that the user named": lambda: (
        bare(dims=("northing", "easting")).rio.write_crs(32631).rio.set_spatial_dims("easting", "northing"),
        {},
    ),
    "an array": lambda: (bare().b.rio.write_crs(32631), {}),
    "a US survey foot": lambda: (bare().rio.write_crs(2263).rio.write_coordinate_system(), {}),
    "grads": lambda: (bare(Affine(0.5, 0, 1, 0, -0.5, 60)).rio.write_crs(4807), {}),
    "Earth Engine's name": lambda: (bare(), {"crs": "SR-ORG:6974"}),
}


def check(result, georef):
    """`read_georef`, rioxarray and the coordinates agree with the place that was used."""
    assert read_georef(result) == georef
    for found in (result, result["p"]):
        if found is result or not (georef.affine.b or georef.affine.d) or georef.x_dim == "x":
            assert pyproj.CRS(found.rio.crs.to_wkt()).equals(georef.crs, ignore_axis_order=True)
            assert (found.rio.x_dim, found.rio.y_dim) == (georef.x_dim, georef.y_dim)
            assert corner_distance(georef.affine, found.rio.transform(), georef.shape) < 1e-3
    assert "spatial_ref" in result.coords
    for name in (georef.x_dim, georef.y_dim):
        if name in result.coords and result[name].dtype.kind == "f":
            sheared = bool(georef.affine.b or georef.affine.d)
            assert (result[name].attrs.get("units") == "pixel") == sheared
            assert result[name].attrs.get("units") != "km"
    part = read_georef(result.isel({georef.y_dim: slice(1, 2), georef.x_dim: slice(2, None)}))
    assert corner_distance(georef.affine @ Affine.translation(2, 1), part.affine, part.shape) < 1e-3


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_predictions_have_the_georeference_of_the_image(way, merge):
    image, place = WAYS[way]()
    georef = read_georef(image_dataset(image), **place)
    result = MEAN.predict_image(image, merge=merge, **place)
    check(result, georef)
    assert result.p.dims[-2:] == (georef.y_dim, georef.x_dim)
    expected = image_dataset(image).b.transpose(..., georef.y_dim, georef.x_dim).values
    np.testing.assert_allclose(result.p.values, expected, rtol=1e-6)
    if "transform" not in place and way not in ("kilometres", "odc-geo's numbered pixels"):
        for name in (georef.x_dim, georef.y_dim):  # so that the two align
            if name in image.coords and image[name].attrs.get("units") != "pixel":
                np.testing.assert_array_equal(result[name], image[name])
    if not merge:
        assert list(result.data_vars) == ["p"]
        assert not result.attrs


@pytest.mark.parametrize("way", WAYS)
def test_another_scale_of_the_output(way):
    image, place = WAYS[way]()
    georef = read_georef(image_dataset(image), **place)
    halved = Model.from_function(
        lambda pixels: pixels[:, ::2, ::2].mean(-1),
        input_tile_size=4,
        output_tile_size=2,
        bands=["b"],
        output_bands=["p"],
    )
    result = halved.predict_image(image, merge=False, **place)
    shape = Size(x=-(-georef.shape.x // 2), y=-(-georef.shape.y // 2))
    affine = georef.affine @ Affine.scale(2)
    check(result, GeoRef(georef.crs, affine, shape, georef.x_dim, georef.y_dim))


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("way", sorted(set(WAYS) - {"Earth Engine's name", "crs= and transform=", "grads"}))
def test_the_projection_of_a_model_and_back(way, merge):
    image, place = WAYS[way]()
    georef = read_georef(image_dataset(image), **place)
    scale = 2 * abs(georef.affine.a) * (111_000 if georef.crs.is_geographic else 1)
    model = Model.from_function(
        lambda pixels: pixels.mean(-1),
        input_tile_size=8,
        bands=["b"],
        output_bands=["p"],
        proj=("EPSG:3857", scale),
        fix_input_proj=True,
    )
    result = model.predict_image(image, merge=merge, **place)
    check(result, georef)
    assert result.p.dims[-2:] == (georef.y_dim, georef.x_dim)
    assert np.isfinite(result.p.values).mean() > 0.8
    there = model.predict_image(image, merge=False, output_grid="model", **place)
    assert there.rio.crs.to_epsg() == 3857
    assert there.p.dims[-2:] == (georef.y_dim, georef.x_dim)
    assert (there.rio.x_dim, there.rio.y_dim) == (georef.x_dim, georef.y_dim)


@examples(30)
@given(georefs(), st.booleans())
def test_any_georeference_is_preserved(place, merge):
    image = write_georef(
        xr.Dataset({"b": (("y", "x"), np.ones(place.shape.shape, "float32"))}), place
    ).reset_coords("spatial_ref")
    try:
        georef = read_georef(image)
    except ValueError:
        return  # doubles are too coarse for such pixels
    assert read_georef(MEAN.predict_image(image, merge=merge)) == georef


@pytest.mark.parametrize(
    "way", ["crs=", "crs= that overrules", "transform= that overrules", "crs= and transform="]
)
def test_add_bands_keeps_the_given_georeference(way):
    image, place = WAYS[way]()
    for others in ((), (image.rename(b="c"),)):
        added = xee_tf.add_bands(image, *others, **place)
        assert read_georef(added) == read_georef(image, **place)
    assert read_georef(added.c) == read_georef(added)


# -- GeoTIFF -----------------------------------------------------------------------------------------

PERSPECTIVE = "+proj=nsper +h=3000000 +lat_0=40 +lon_0=10"  # GeoTIFF has no keys for it


@pytest.mark.parametrize("pam", [True, False])
def test_crs_that_geotiff_cannot_store_is_written_to_aux_xml(tmp_path, pam):
    kept, moved = (
        bare(affine).tfexport(tmp_path / name, patch_dimensions=6, crs=crs).mixer
        for name, affine, crs in (
            ("kept", Affine(1000, 0, 0, 0, -1000, 0), PERSPECTIVE),
            ("moved", AFFINE, "EPSG:32631"),
        )
    )
    out = tmp_path / "out"
    for mixer, crs, files in (
        (kept, PERSPECTIVE, ["map.tif", "map.tif.aux.xml"]),
        (moved, "EPSG:32631", ["map.tif"]),
        (kept, PERSPECTIVE, ["map.tif", "map.tif.aux.xml"]),
    ):
        with rasterio.Env(GDAL_PAM_ENABLED=pam):
            xee_tf.upload_image(None, mixer, out / "map.tif", if_exists="overwrite")
        assert sorted(file.name for file in out.iterdir()) == files
        with rasterio.open(out / "map.tif") as file:
            assert same_crs(read_crs(file.crs), read_crs(crs))
            assert file.transform.a == (1000 if crs == PERSPECTIVE else 250)


@pytest.mark.parametrize("text", ["http://127.0.0.1:9/crs", "{folder}/crs.wkt", "file://{folder}/crs.wkt"])
def test_crs_text_is_never_opened_as_a_url_or_file(tmp_path, text):
    (tmp_path / "crs.wkt").write_text(pyproj.CRS(32631).to_wkt())
    mixer = bare().tfexport(tmp_path / "s", patch_dimensions=6, crs=32631).mixer
    path = tmp_path / "s-mixer.json"
    path.write_text(path.read_text().replace("EPSG:32631", text.format(folder=tmp_path)))
    with pytest.raises(xee_tf.XeeTFError, match="cannot be parsed"):
        xee_tf.upload_image(None, mixer, tmp_path / "map.tif")
    with pytest.raises(xee_tf.XeeTFError, match="cannot be parsed"):
        xee_tf.open_image(mixer)
    assert not list(tmp_path.glob("*.tif*"))
    assert not list(tmp_path.glob(".*"))
