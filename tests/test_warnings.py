"""Tests that warnings point to the user's line of code."""

import warnings

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

import xee_tf
from tests.optional import optional
from tests.rasters import CRS, raster
from xee_tf.errors import warn

gpd = optional("geopandas")

SCENE = raster({"b": np.arange(64).reshape(8, 8).astype("uint8")})
X, Y = float(SCENE.x[2]), float(SCENE.y[3])
TALL = raster({"b": np.ones((8, 8), "int32")})
PATCH = {"patch_dimensions": 4}


def places(*geometries):
    return gpd.GeoDataFrame(geometry=list(geometries), crs=CRS)


TWO_POINTS = places(shapely.Point(X, Y), shapely.Point(X - 1e5, Y))
TWO_POLYGONS = places(shapely.box(X - 40, Y - 40, X + 40, Y + 40), shapely.box(X + 2, Y + 2, X + 4, Y + 4))


def table_with_rounded_numbers():
    return pd.DataFrame({"number": [2**24 + 1, 3]})


def model(pixels):
    return xee_tf.Model.from_function(
        lambda tiles: tiles,
        input_tile_size=4,
        output_bands=["c"],
        proj=("EPSG:3857", pixels),
        fix_input_proj=True,
    )


WARNED = {
    "default": ("default_value", lambda path: xee_tf.export_image(SCENE, path, **PATCH, default_value=-1)),
    "default, accessor": ("default_value", lambda path: SCENE.tfexport(path, **PATCH, default_value=-1)),
    "default, Earth Engine's names": (
        "default_value",
        lambda path: SCENE.tfexport(path, formatOptions={"defaultValue": -1, "patchDimensions": 4}),
    ),
    "default, DataArray": (
        "default_value",
        lambda path: SCENE.b.assign_attrs(crs=CRS).tfexport(path, **PATCH, default_value=-1),
    ),
    "float32": ("float32", lambda path: xee_tf.export_image(TALL, path, **PATCH, feature_types="float")),
    "float32, plan": ("float32", lambda path: xee_tf.plan_export(TALL, **PATCH, feature_types="float")),
    "float32, accessor": ("float32", lambda path: TALL.tfexport.plan(**PATCH, feature_types="float")),
    "no series": ("no series", lambda path: SCENE.tfexport(path, **PATCH, sequence_data=True)),
    "points": ("1 of 2 points", lambda path: xee_tf.sample_table(SCENE, TWO_POINTS, path)),
    "points, accessor": ("1 of 2 points", lambda path: SCENE.tfexport.table(TWO_POINTS, path)),
    "polygons": ("1 of 2 polygons", lambda path: SCENE.tfexport.table(TWO_POLYGONS, path)),
    "rounded": (
        "integers that float32",
        lambda path: xee_tf.export_table(table_with_rounded_numbers(), path),
    ),
    "many pixels": ("times as many pixels", lambda path: model(10).predict_image(SCENE)),
}


@pytest.mark.parametrize("name", WARNED)
def test_a_warning_names_the_line_of_the_user(tmp_path, name):
    text, call = WARNED[name]
    with pytest.warns(UserWarning, match=text) as caught:
        call(tmp_path / "out")
    assert {warning.filename for warning in caught} == {__file__}


def test_a_warning_while_a_file_is_opened_names_the_line_of_the_user(tmp_path):
    result = SCENE.tfexport(tmp_path / "scene", **PATCH, feature_types="band")
    for opened in (
        lambda: xee_tf.open_image(result, default_value=-1),
        lambda: xr.open_dataset(f"{tmp_path}/scene-mixer.json", engine="tfrecord", default_value=-1),
    ):
        with pytest.warns(UserWarning, match="masks no pixels") as caught:
            opened()
        assert [warning.filename for warning in caught] == [__file__]


def test_a_deprecation_names_the_line_of_the_user():
    ours = {"__name__": "xee_tf.made_up", "warn": warn}
    exec("def old():\n    warn('old() is deprecated', FutureWarning)", ours)
    with pytest.warns(FutureWarning, match="deprecated") as caught:
        ours["old"]()
    assert [warning.filename for warning in caught] == [__file__]


def test_a_warning_without_a_line_of_the_user():
    ours = {"__name__": "xee_tf.made_up", "warn": warn}
    exec("def inner():\n    warn('text')\n\ndef outer():\n    inner()", ours)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours["outer"]()
    assert [(str(each.message), each.filename) for each in caught] == [("text", __file__)]
