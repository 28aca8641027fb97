"""The nodata value of a GeoTIFF, which is the same for all bands."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

import xee_tf
from tests.rasters import raster

SHARE = np.array([[0.5, np.nan], [1.5, 2.5]], "float32")
KIND = np.array([[1, 2], [255, 3]], "uint8")


def scene(**fills: float) -> xr.Dataset:
    found = raster({"share": SHARE, "kind": KIND})
    for name, fill in fills.items():
        found[name].attrs["_FillValue"] = fill
    return found


def read(file: Any) -> tuple[np.ndarray[Any, Any], float | None, str]:
    with rasterio.open(file) as opened:
        return opened.read(), opened.nodata, opened.dtypes[0]


@pytest.mark.parametrize("nodata", [-9999, {"share": -9999.0}, {"kind": -9999, "share": np.float32(-9999)}])
def test_missing_pixels_of_all_bands_get_the_same_value(nodata: Any, tmp_path: Path) -> None:
    values, found, dtype = read(xee_tf.to_cog(scene(kind=255), tmp_path / "a.tif", nodata=nodata))
    assert (found, dtype) == (-9999, "float32")
    np.testing.assert_array_equal(values[0], np.nan_to_num(SHARE, nan=-9999))
    np.testing.assert_array_equal(values[1], np.where(KIND == 255, -9999, KIND.astype("f4")))


def test_values_of_bands_become_one_by_default(tmp_path: Path) -> None:
    """None of them may be a valid value of another band."""
    both = raster({"a": np.array([[0, 7]] * 2, "uint8"), "b": np.array([[7, 0]] * 2, "uint8")})
    both.a.attrs["_FillValue"], both.b.attrs["_FillValue"] = 0, 7
    values, found, dtype = read(xee_tf.to_cog(both, tmp_path / "a.tif"))
    assert found is not None
    assert dtype == "uint16"
    assert found > 255
    np.testing.assert_array_equal(values, [[[found, 7]] * 2, [[found, 0]] * 2])


def test_overviews_ignore_the_chosen_value(tmp_path: Path) -> None:
    values = np.full((1024, 8), 4, "float32")
    values[::2] = np.nan
    file = xee_tf.to_cog(raster({"a": values}), tmp_path / "a.tif", nodata=-1, overview_resampling="mean")
    with rasterio.open(file, overview_level=0) as opened:
        np.testing.assert_array_equal(opened.read(1), 4)


@pytest.mark.parametrize(
    ("nodata", "message"),
    [
        (
            {"share": -9999, "kind": 255},
            "one nodata value for all bands, .* -9999 for 'share', 255 for 'kind'",
        ),
        ({"other": 1}, "nodata names the band 'other', which is not written. The bands are 'share', 'kind'"),
        ("none", "nodata must be a number, such as -9999; got 'none'"),
        (True, "nodata must be a number"),
        (1e39, "nodata=1e\\+39 cannot be represented as float32, the common dtype of the bands"),
    ],
)
@pytest.mark.parametrize("write", ["to_cog", "predict", "resume"])
def test_values_are_checked_before_anything_is_computed(
    write: str, nodata: Any, message: str, tmp_path: Path
) -> None:
    def fail(_: Any) -> Any:
        raise AssertionError("predicted")

    outputs = {"share": "float32", "kind": "uint8"}
    model = xee_tf.Model.from_function(fail, input_tile_size=2, output_bands=outputs)
    how: dict[str, Any] = {"nodata": nodata}
    if write == "resume":
        how["if_exists"] = "resume"
    call = xee_tf.to_cog if write == "to_cog" else partial(xee_tf.predict_to_cog, model)
    with pytest.raises(xee_tf.OptionError, match=message):
        call(scene(), tmp_path / "a.tif", **how)
    assert list(tmp_path.iterdir()) == []


def test_valid_pixels_do_not_become_missing(tmp_path: Path) -> None:
    with pytest.raises(
        xee_tf.RecordError, match=r"Band 'kind' contains 3 as a valid value, .* have 255: choose"
    ):
        xee_tf.to_cog(scene(kind=255)[["kind"]], tmp_path / "a.tif", nodata=3)
    values, found, _ = read(xee_tf.to_cog(scene()[["kind"]], tmp_path / "a.tif", nodata=3))  # it is declared
    assert found == 3
    np.testing.assert_array_equal(values[0], KIND)


def test_predictions(tmp_path: Path) -> None:
    model = xee_tf.Model.from_function(lambda b: b[..., 0] * 2, input_tile_size=2, output_bands=["p"])
    ds = scene()[["share"]]
    values, found, _ = read(xee_tf.predict_to_cog(model, ds, tmp_path / "a.tif", nodata=-9999))
    assert found == -9999
    np.testing.assert_array_equal(values[0], [[1, -9999], [3, 5]])
    with pytest.raises(xee_tf.RecordError, match=r"Band 'p' contains 3\.0 as a valid value"):
        xee_tf.predict_to_cog(model, ds, tmp_path / "b.tif", nodata=3)


@pytest.mark.parametrize("if_exists", ["error", "resume"])
def test_predictions_without_masks_have_no_missing_pixels(if_exists: Any, tmp_path: Path) -> None:
    ds = raster({"level": np.array([[7, 40], [41, 42]], "uint8")})
    outputs: Any = {"same": "uint8", "half": "float32"}
    model = xee_tf.Model.from_function(
        lambda b: {"same": b[..., 0], "half": b[..., 0] / 2}, input_tile_size=2, output_bands=outputs
    )
    whole = xee_tf.Model.from_function(lambda b: b[..., 0], input_tile_size=2, output_bands={"same": "uint8"})
    with pytest.raises(
        xee_tf.RecordError, match="Band 'same' contains 41 as a valid value, because no pixel of it"
    ):
        xee_tf.predict_to_cog(whole, ds, tmp_path / "a.tif", nodata=41, if_exists=if_exists)
    with pytest.raises(xee_tf.RecordError, match=r"Band 'half' contains 20\.5 as a valid value"):
        xee_tf.predict_to_cog(model, ds, tmp_path / "b.tif", nodata=20.5, if_exists=if_exists)
    values, found, dtype = read(
        xee_tf.predict_to_cog(whole, ds, tmp_path / "c.tif", nodata=43, if_exists=if_exists)
    )
    assert (found, dtype) == (43, "uint8")
    np.testing.assert_array_equal(values[0], ds.level)
