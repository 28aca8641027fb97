"""A warning names the line of the user, whichever way it is reached."""

import warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

import xee_tf
from tests.rasters import CRS, raster
from xee_tf.errors import warn

SCENE = raster({"b": np.arange(64).reshape(8, 8).astype("uint8")})
X, Y = float(SCENE.x[2]), float(SCENE.y[3])
TALL = raster({"b": np.ones((8, 8), "int32")})


def places(*geometries):
    return gpd.GeoDataFrame(geometry=list(geometries), crs=CRS)


TWO_POINTS = places(shapely.Point(X, Y), shapely.Point(X - 1e5, Y))
TWO_POLYGONS = places(shapely.box(X - 40, Y - 40, X + 40, Y + 40), shapely.box(X + 2, Y + 2, X + 4, Y + 4))


def table_with_rounded_numbers():
    return pd.DataFrame({"number": [2**24 + 1, 3]})


def model(pixels):
    return xee_tf.Model.from_function(
        lambda tiles: tiles, input_tile_size=4, proj=("EPSG:3857", pixels), fix_input_proj=True
    )


WARNED = {
    "default": lambda path: xee_tf.export_image(SCENE, path, default_value=-1),
    "default, accessor": lambda path: SCENE.tfexport(path, default_value=-1),
    "default, Earth Engine's names": lambda path: SCENE.tfexport(path, formatOptions={"defaultValue": -1}),
    "default, DataArray": lambda path: SCENE.b.tfexport(path, default_value=-1),
    "float32": lambda path: xee_tf.export_image(TALL, path, feature_types="float"),
    "float32, plan": lambda path: xee_tf.plan_export(TALL, feature_types="float"),
    "float32, accessor": lambda path: TALL.tfexport.plan(feature_types="float"),
    "no series": lambda path: SCENE.tfexport(path, sequence_data=True),
    "points": lambda path: xee_tf.sample_table(SCENE, TWO_POINTS, path),
    "points, accessor": lambda path: SCENE.tfexport.table(TWO_POINTS, path),
    "polygons": lambda path: SCENE.tfexport.table(TWO_POLYGONS, path),
    "rounded": lambda path: xee_tf.export_table(table_with_rounded_numbers(), path),
    "many pixels": lambda path: model(0.5).predict_image(SCENE, bands=["b"]),
}


@pytest.mark.parametrize("name", WARNED)
def test_a_warning_names_the_line_of_the_user(tmp_path, name):
    with pytest.warns(UserWarning) as caught:
        WARNED[name](tmp_path / "out")
    assert {warning.filename for warning in caught} == {__file__}


def test_a_warning_while_a_file_is_opened_names_the_line_of_the_user(tmp_path):
    result = SCENE.tfexport(tmp_path / "scene", feature_types="band")
    for opened in (
        lambda: xee_tf.open_image(result, default_value=-1),
        lambda: xr.open_dataset(f"{tmp_path}/scene-mixer.json", engine="xee_tf", default_value=-1),
    ):
        with pytest.warns(UserWarning, match="masks nothing") as caught:
            opened()
        assert [warning.filename for warning in caught] == [__file__]


def test_a_warning_without_a_line_of_the_user():
    ours = {"__name__": "xee_tf.made_up", "warn": warn}
    exec("def inner():\n    warn('text')\n\ndef outer():\n    inner()", ours)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours["outer"]()
    assert [(str(each.message), each.filename) for each in caught] == [("text", __file__)]
