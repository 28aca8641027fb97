"""Tests of option names from the previous version, which give a DeprecationWarning."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from packaging.version import Version

import xee_tf
from xee_tf import Model
from xee_tf.options import spelling


def test_removal_is_after_this_version() -> None:
    assert Version(xee_tf.__version__).release < Version(spelling._REMOVAL).release


@pytest.fixture
def scene() -> xr.Dataset:
    values = np.arange(64, dtype="float32").reshape(8, 8)
    coords = {"y": 75.0 - 10 * np.arange(8), "x": 5.0 + 10 * np.arange(8)}
    return xr.Dataset({"B4": (("y", "x"), values)}, coords, {"crs": "EPSG:32633"})


def warns_deprecated(old: str, new: str):
    return pytest.warns(
        DeprecationWarning, match=f"'{old}' is deprecated and will be removed in .*; use '{new}'"
    )


def test_path_of_export(scene: xr.Dataset, tmp_path: Path) -> None:
    with warns_deprecated("path", "destination") as caught:
        result = xee_tf.export_image(scene, path=tmp_path / "scene", patch_dimensions=4)
    assert caught[0].filename == __file__
    with warns_deprecated("path", "destination"):
        plan = scene.tfexport.plan(path=tmp_path / "scene", patch_dimensions=4)
    assert plan.prefix == str(tmp_path / "scene")
    with (
        warns_deprecated("path", "destination"),
        xee_tf.PredictionWriter(path=tmp_path / "p.tfrecord", mixer=result) as writer,
    ):
        writer.write(np.zeros((4, 4, 4)))
    assert (tmp_path / "p.tfrecord").exists()


def test_path_of_table(tmp_path: Path) -> None:
    table = xr.Dataset({"a": ("row", [1.0, 2.0]), "b": ("row", [3.0, 4.0])})
    with warns_deprecated("path", "destination"):
        result = xee_tf.export_table(table, path=tmp_path / "sites", columns=["b"])
    assert [column.name for column in result.columns] == ["b"]


def test_store_of_prediction(scene: xr.Dataset, tmp_path: Path) -> None:
    model = Model.from_function(lambda bands: bands[..., 0], input_tile_size=4, output_bands=["same"])
    with warns_deprecated("store", "destination"):
        xee_tf.predict_to_zarr(model, scene, store=tmp_path / "same.zarr")
    found = xr.open_zarr(tmp_path / "same.zarr", consolidated=False)
    np.testing.assert_array_equal(found.same, scene.B4)


def test_old_and_new_name_together(scene: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(xee_tf.OptionError, match="'path'"):
        xee_tf.export_image(scene, tmp_path / "a", path=tmp_path / "b")
    assert not list(tmp_path.iterdir())
