"""Zarr stores in the conventions proj and spatial: what is written beside CF, and what is read without it."""

from __future__ import annotations

import json

import dask
import numpy as np
import pyproj
import pytest
import xarray as xr
from affine import Affine

import xee_tf
from tests.onnx_models import identity
from tests.rasters import random_band, raster
from xee_tf import DestinationExistsError, GeoreferenceError, Model, OptionError, PredictionError
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef, add_conventions, read_georef, write_georef
from xee_tf_cli import main

NORTH_UP = Affine(30, 0, 700_000, 0, -30, 5_000_000)
SHEARED = Affine(30, 5, 700_000, 4, -30, 5_000_000)
MODIS = "SR-ORG:6974"
UUIDS = {"proj": "f17cb550-5864-4468-aeb7-f3180cfb622f", "spatial": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"}


def scene(crs="EPSG:32633"):
    bands = {"red": random_band((12, 20)), "nir": random_band((12, 20), seed=1)}
    return raster(bands, crs=crs).chunk(y=8, x=8)


def double(calls=lambda: None):
    def predict(tiles):
        calls()
        return 2 * tiles[..., 0]

    return Model.from_function(predict, input_tile_size=4, bands=["red", "nir"], output_bands=["p"])


def predicted(folder, image, **options):
    return xee_tf.predict_to_zarr(double(), image, folder / "p.zarr", **options)


def uploaded(folder, image, **options):
    export = image.tfexport(folder / "export", patch_dimensions=4)
    return xee_tf.upload_image(None, export, folder / "u.zarr", **options)


def metadata(store, *names):
    """Return the attributes of the group and of arrays, without xarray or zarr."""
    files = [json.loads((store / name / "zarr.json").read_text()) for name in ("", *names)]
    return [file["attributes"] for file in files]


def declared(attrs):
    return {each["uuid"]: each for each in attrs["zarr_conventions"]}


def read_as_specified(store, band):
    """Read the CRS and the pixel centers of an array as the conventions define them, from JSON only."""
    [attrs] = metadata(store, band)[1:]
    dims = json.loads((store / band / "zarr.json").read_text())["dimension_names"]
    assert set(UUIDS.values()) <= set(declared(attrs))
    [given] = [key for key in ("proj:code", "proj:wkt2", "proj:projjson") if key in attrs]
    y_dim, x_dim = attrs["spatial:dimensions"]
    assert {y_dim, x_dim} <= set(dims)
    assert attrs["spatial:registration"] == "pixel"
    height, width = attrs["spatial:shape"]
    a, b, c, d, e, f = attrs["spatial:transform"]
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return pyproj.CRS(attrs[given]), a * columns + b * rows + c, d * columns + e * rows + f


# -- Writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [predicted, uploaded])
def test_stores_have_both_conventions(write, tmp_path):
    store = write(tmp_path, scene(), conventions="cf+zarr")
    found = xr.open_zarr(store, decode_coords="all")
    assert found.rio.crs == "EPSG:32633"
    assert found.rio.transform() == NORTH_UP
    group, *arrays = metadata(tmp_path / store.name, *found.data_vars)
    for attrs in (group, *arrays):
        assert attrs["proj:code"] == "EPSG:32633"
        assert attrs["spatial:dimensions"] == ["y", "x"]
        assert attrs["spatial:transform"] == [30, 0, 700_000, 0, -30, 5_000_000]
        assert attrs["spatial:shape"] == [12, 20]
        for name, uuid in UUIDS.items():
            repository = f"zarr-conventions/{name}"
            assert declared(attrs)[uuid] == {
                "uuid": uuid,
                "name": name,
                "schema_url": f"https://raw.githubusercontent.com/{repository}/refs/tags/v0.1/schema.json",
                "spec_url": f"https://github.com/{repository}/blob/v0.1/README.md",
                "description": {
                    "proj": "Coordinate reference system information for geospatial data",
                    "spatial": "Spatial coordinate information",
                }[name],
            }
    assert group["spatial:bbox"] == [700_000, 5_000_000 - 12 * 30, 700_000 + 20 * 30, 5_000_000]
    for band in found.data_vars:
        crs, x, y = read_as_specified(tmp_path / store.name, band)
        assert crs.equals(pyproj.CRS(found.rio.crs))
        np.testing.assert_array_equal(x, np.broadcast_to(found.x, (12, 20)))
        np.testing.assert_array_equal(y, np.broadcast_to(found.y.values[:, None], (12, 20)))


@pytest.mark.parametrize("write", [predicted, uploaded])
def test_stores_have_only_cf_by_default(write, tmp_path):
    store = write(tmp_path, scene())
    names = list(xr.open_zarr(store, decode_coords="all").data_vars)
    for attrs in metadata(tmp_path / store.name, *names):
        assert not [key for key in attrs if key.startswith(("proj:", "spatial:", "zarr_conventions"))]


@pytest.mark.parametrize("affine", [NORTH_UP, SHEARED, Affine(0.5, 0, 170, 0, 0.25, -10)])
@pytest.mark.parametrize(
    ("crs", "key"),
    [
        ("EPSG:4326", "proj:code"),
        ("ESRI:54009", "proj:code"),
        ("OGC:CRS84", "proj:code"),
        (MODIS, "proj:wkt2"),  # a code that PROJ does not have
        ("+proj=laea +lat_0=10 +lon_0=20 +type=crs", "proj:wkt2"),
    ],
)
def test_any_georeference_is_read_as_it_was_written(affine, crs, key):
    image = xr.Dataset({"band": (("northing", "easting"), np.zeros((3, 5), "f4"))}, attrs={"title": "a"})
    grid = GeoRef(read_georef(scene(crs)).crs, affine, Size(x=5, y=3), "easting", "northing")
    found = add_conventions(write_georef(image, grid, "easting", "northing"), grid, "cf+zarr")
    assert key in found.attrs
    assert key in found.band.attrs
    corners = [affine @ corner for corner in ((0, 0), (5, 0), (0, 3), (5, 3))]
    x, y = zip(*corners, strict=True)
    assert found.attrs["spatial:bbox"] == pytest.approx([min(x), min(y), max(x), max(y)])
    # What has only these attributes has the same georeference, as a Dataset and as a band.
    alone = found.drop_vars(["spatial_ref", "easting", "northing"])
    alone.band.encoding = {}
    for each in (alone, alone.band):
        again = read_georef(xr.decode_cf(each) if isinstance(each, xr.Dataset) else each)
        assert again.crs.equals(grid.crs)
        assert (again.affine, again.shape) == (affine, grid.shape)
        assert (again.x_dim, again.y_dim) == ("easting", "northing")
    # They are replaced with the georeference, as are those of an older version; others are kept.
    other = {"uuid": "d35379db-88df-4056-af3a-620245f8e347", "name": "multiscales"}
    older = [other, {"uuid": UUIDS["proj"], "name": "proj:"}]
    twice = add_conventions(found.assign_attrs(zarr_conventions=older), grid, "cf+zarr")
    assert [each["name"] for each in twice.attrs["zarr_conventions"]] == ["multiscales", "proj", "spatial"]
    moved = GeoRef(pyproj.CRS("EPSG:32633"), NORTH_UP, grid.shape)
    moved = write_georef(twice.rename(easting="x", northing="y"), moved)
    assert moved.attrs == {"title": "a", "zarr_conventions": [other]}
    assert moved.band.attrs == {}


def test_results_of_a_source_in_these_conventions_have_one_georeference(tmp_path):
    georef = read_georef(scene())
    source = add_conventions(write_georef(scene(), georef), georef, "cf+zarr")
    source.drop_vars(["spatial_ref", "x", "y"]).to_zarr(tmp_path / "source.zarr", consolidated=False)
    opened = xr.open_zarr(tmp_path / "source.zarr", consolidated=False)
    assert set(opened.variables) == {"red", "nir"}
    exported = opened.tfexport(tmp_path / "scene", patch_dimensions=4)
    assert xee_tf.Mixer.read(exported.mixer).affine == NORTH_UP
    np.testing.assert_array_equal(xee_tf.open_image(exported).red, scene().red)
    merged = double().predict_image(opened.isel(y=slice(12)))
    assert not [key for key in (*merged.attrs, *merged.red.attrs) if key.startswith(("proj:", "spatial:"))]
    assert "zarr_conventions" not in merged.attrs
    assert merged.rio.transform() == NORTH_UP


@pytest.mark.usefixtures("small_blocks")
def test_interrupted_prediction_is_continued_only_with_the_same_conventions(tmp_path):
    count = 0

    def fail():
        nonlocal count
        count += 1
        if count == 4:
            raise RuntimeError("interrupted")

    store = tmp_path / "p.zarr"
    with dask.config.set(scheduler="sync"), pytest.raises(PredictionError, match="interrupted"):
        xee_tf.predict_to_zarr(double(fail), scene(), store, conventions="cf+zarr", identity="1")
    assert not (store / "zarr.json").exists()
    message = r"the option conventions was cf\+zarr and is now cf\."
    with pytest.raises(DestinationExistsError, match=message):
        xee_tf.predict_to_zarr(double(fail), scene(), store, identity="1")
    xee_tf.predict_to_zarr(double(fail), scene(), store, conventions="cf+zarr", identity="1")
    assert metadata(store)[0]["proj:code"] == "EPSG:32633"
    np.testing.assert_array_equal(xr.open_zarr(store).p, 2 * scene().red)
    again = xee_tf.predict_to_zarr(double(fail), scene(), store, conventions="cf+zarr", identity="1")
    assert again.path == str(store)
    with pytest.raises(DestinationExistsError, match=message):
        xee_tf.predict_to_zarr(double(fail), scene(), store, identity="1")


def test_complete_upload_is_kept_only_with_the_same_conventions(tmp_path):
    store = uploaded(tmp_path, scene())
    options = {"if_exists": "resume", "conventions": "cf"}
    xee_tf.upload_image(None, tmp_path / "export-mixer.json", store, **options)
    with pytest.raises(DestinationExistsError, match=r"conventions would be cf\+zarr instead of cf"):
        xee_tf.upload_image(
            None, tmp_path / "export-mixer.json", store, if_exists="resume", conventions="cf+zarr"
        )
    xee_tf.upload_image(
        None, tmp_path / "export-mixer.json", store, if_exists="overwrite", conventions="cf+zarr"
    )
    assert "proj:code" in metadata(tmp_path / "u.zarr")[0]


def test_conventions_are_checked_before_anything_is_written(tmp_path):
    export = scene().tfexport(tmp_path / "export", patch_dimensions=4)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OptionError, match=r"conventions must be 'cf' or 'cf\+zarr'; got 'zarr'"):
        xee_tf.upload_image(None, export, tmp_path / "u.zarr", conventions="zarr")
    with pytest.raises(OptionError, match=r"conventions must be 'cf' or 'cf\+zarr'; got 'CF'"):
        xee_tf.predict_to_zarr(double(), scene(), tmp_path / "p.zarr", conventions="CF")
    with pytest.raises(OptionError, match=r"is for Zarr stores; a GeoTIFF has tags of its own\. Omit it"):
        xee_tf.upload_image(None, export, tmp_path / "u.tif", conventions="cf+zarr")
    assert sorted(tmp_path.iterdir()) == before


def test_commands(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(identity((None, 4, 4, 2)))
    scene().to_netcdf(tmp_path / "scene.nc")
    command = ["predict", str(tmp_path / "model.onnx"), str(tmp_path / "scene.nc")]
    options = ["--input-tile-size", "4", "--output-bands", "a,b", "--conventions", "cf+zarr"]
    assert main([*command, str(tmp_path / "p.zarr"), *options]) == 0
    assert "spatial:bbox" in metadata(tmp_path / "p.zarr")[0]
    assert main([*command, str(tmp_path / "p.tif"), *options]) == 1
    scene().tfexport(tmp_path / "export", patch_dimensions=4)
    upload = ["upload", "image", str(tmp_path / "export"), str(tmp_path / "export-mixer.json")]
    assert main([*upload, str(tmp_path / "u.zarr"), "--conventions", "cf+zarr"]) == 0
    assert "spatial:bbox" in metadata(tmp_path / "u.zarr")[0]
    capsys.readouterr()
    assert main([*upload, str(tmp_path / "u.tif"), "--conventions", "cf+zarr"]) == 1
    assert "--conventions" in capsys.readouterr().err


# -- Reading ----------------------------------------------------------------------------------------


def only_zarr(dims=("y", "x"), **attrs):
    """Return a raster without coordinates and grid mapping, as a store in these conventions may have it."""
    given = {
        "proj:code": "EPSG:32633",
        "spatial:dimensions": list(dims),
        "spatial:transform": list(NORTH_UP)[:6],
        "spatial:shape": [12, 20],
    }
    band = (("time", *dims), np.zeros((2, 12, 20), "f4"))
    return xr.Dataset({"band": band}, attrs={**given, **attrs})


def test_names_of_dimensions_are_read():
    found = read_georef(only_zarr(("row", "column")))
    assert (found.y_dim, found.x_dim, found.affine) == ("row", "column", NORTH_UP)
    # On the arrays, in any order of dimensions, and with names that the array does not have.
    image = only_zarr(("row", "column"))
    band = image.band.assign_attrs(image.attrs).transpose("column", "time", "row")
    assert read_georef(xr.Dataset({"band": band})).y_dim == "row"
    with pytest.raises(GeoreferenceError, match=r"No x and y .*rename\({'column': 'x', 'row': 'y'}\)"):
        read_georef(only_zarr(("row", "column"), **{"spatial:dimensions": ["line", "column"]}))


def test_crs_in_each_form_is_read():
    crs = pyproj.CRS("EPSG:3035")
    for key, value in (("code", "EPSG:3035"), ("wkt2", crs.to_wkt()), ("projjson", crs.to_json_dict())):
        image = only_zarr()
        del image.attrs["proj:code"]
        assert read_georef(image.assign_attrs({f"proj:{key}": value})).crs_text == "EPSG:3035"


def test_nodes_are_centers_of_pixels():
    found = read_georef(only_zarr(**{"spatial:registration": "node"}))
    assert found.affine == NORTH_UP @ Affine.translation(-0.5, -0.5)
    assert found.affine @ (0.5, 0.5) == (NORTH_UP.c, NORTH_UP.f)
    # Coordinates have precedence, and are centers in any case.
    y, x = NORTH_UP.f - 30.0 * np.arange(12), NORTH_UP.c + 30.0 * np.arange(20)
    for registration in ("node", "pixel"):
        image = only_zarr(**{"spatial:registration": registration}).assign_coords(y=y, x=x)
        assert read_georef(image).affine.almost_equals(found.affine)


def test_transforms_of_other_types_are_not_taken_for_affines():
    with pytest.raises(GeoreferenceError, match="neither x and y coordinates nor a GeoTransform"):
        read_georef(only_zarr(**{"spatial:transform_type": "rpc"}))


@pytest.mark.parametrize(
    ("selection", "message"),
    [({"y": slice(6)}, "whose y has length 12, and this one has 6"), ({"x": slice(2, 12)}, "20, .* has 10")],
)
def test_selected_pixels_without_coordinates_are_refused(selection, message):
    image = only_zarr()
    with pytest.raises(GeoreferenceError, match=message):
        read_georef(image.isel(selection))
    assert read_georef(image.isel(selection), transform=NORTH_UP).affine == NORTH_UP
    centers = {"y": NORTH_UP.f - 30 * (np.arange(12) + 0.5), "x": NORTH_UP.c + 30 * (np.arange(20) + 0.5)}
    cropped = image.assign_coords(centers).isel(selection)
    rows, columns = selection.get("y", slice(0)).start or 0, selection.get("x", slice(0)).start or 0
    assert read_georef(cropped).affine == NORTH_UP @ Affine.translation(columns, rows)


@pytest.mark.parametrize(
    "transform", [[1, 2, 3], "no", [0, 0, 0, 0, 0, 0], None, [1, 0, 0, 0, float("nan"), 0]]
)
def test_invalid_transforms_are_refused(transform):
    with pytest.raises(GeoreferenceError, match="The attribute 'spatial:transform' must be"):
        read_georef(only_zarr(**{"spatial:transform": transform}))
