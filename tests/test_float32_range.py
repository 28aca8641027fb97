"""Numbers beyond the range of float32 raise an error that names the band, wherever they are converted."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.optional import optional
from tests.rasters import CRS, raster
from xee_tf.dtypes import coerce, copy_in_range
from xee_tf.errors import OptionError
from xee_tf.export import export_image
from xee_tf.model import Model
from xee_tf.reading import open_image
from xee_tf.tables import export_table, sample_table
from xee_tf.training import open_patches
from xee_tf.upload import PredictionWriter

gpd = optional("geopandas")

MESSAGE = r"'far' contains -?1\.5e\+200, which float32 cannot represent: its largest number is 3\.40282e\+38"


def scene(value=1.5e200, **attrs):
    values = np.arange(64.0).reshape(8, 8)
    values[5, 6] = value
    ds = raster({"near": np.ones((8, 8), "f4"), "far": values})
    ds["far"].attrs.update(attrs)
    return ds.chunk(y=4, x=8)


@pytest.mark.parametrize("options", [{}, {"collapse_bands": True}, {"kernel_size": 4}])
def test_exports_refuse_them(tmp_path, options):
    with pytest.raises(OptionError, match=f"Band {MESSAGE}.*Mask such values"):
        export_image(scene(-1.5e200), tmp_path / "t", patch_dimensions=4, **options)
    assert not list(tmp_path.iterdir())


def test_patches_of_a_raster_refuse_them():
    with pytest.raises(OptionError, match=f"Band {MESSAGE}"):
        open_patches(scene(), patch_dimensions=4)[3]


@pytest.mark.parametrize("masked", ["nodata", "mask", "infinite"])
def test_masked_and_infinite_numbers_are_accepted(tmp_path, masked):
    ds = scene(
        np.inf if masked == "infinite" else 1.5e200, **({"nodata": 1.5e200} if masked == "nodata" else {})
    )
    mask = xr.zeros_like(ds["near"], bool)
    mask[5, 6] = masked == "mask"
    export_image(ds, tmp_path / "t", patch_dimensions=4, default_value=-3, mask=mask)
    expected = np.arange(64.0).reshape(8, 8)
    expected[5, 6] = np.inf if masked == "infinite" else -3
    np.testing.assert_array_equal(open_image(tmp_path / "t")["far"], expected)


@pytest.mark.parametrize("size", [None, 1, 3])
def test_tables_refuse_them_in_what_is_written(tmp_path, size):
    def sample(rows, columns):
        xy = 7e5 + 30 * (np.array(columns) + 0.5), 5e6 - 30 * (np.array(rows) + 0.5)
        where = gpd.GeoDataFrame(geometry=gpd.points_from_xy(*xy), crs=CRS)
        return sample_table(scene(), where, tmp_path / "t", patch_dimensions=size, if_exists="overwrite")

    with pytest.raises(OptionError, match=MESSAGE):
        sample([1, 5], [1, 6])
    assert not list(tmp_path.iterdir())
    assert sample([1, 5], [1, 3]).records == 2


def test_frames_and_predictions_refuse_them(tmp_path):
    with pytest.raises(OptionError, match=MESSAGE):
        export_table(pd.DataFrame({"near": [1.0, 2.0], "far": [np.nan, 1.5e200]}), tmp_path / "t")
    export_image(scene(3), tmp_path / "scene", patch_dimensions=4)
    with (
        pytest.raises(OptionError, match=f"Band {MESSAGE}"),
        PredictionWriter(tmp_path / "p.tfrecord.gz", tmp_path / "scene-mixer.json") as writer,
    ):
        writer.write({"far": np.full((4, 4, 4), 1.5e200)})


@pytest.mark.parametrize(
    "options", [{"normalize": {"near": (0, 1), "far": (1, 2)}}, {"input_type_override": {"far": "float"}}]
)
@pytest.mark.parametrize("unit", ["tile", "pixel"])
def test_models_do_not_get_infinity_instead(options, unit):
    size = {} if unit == "pixel" else {"input_tile_size": 4}
    model = Model.from_function(
        lambda batch: batch[..., 0] * 2, unit=unit, output_bands=["twice"], **size, **options
    )
    with pytest.raises(OptionError, match=f"Band {MESSAGE}"):
        model.predict_image(scene(), merge=False)["twice"].load()
    masked = model.predict_image(scene(nodata=1.5e200), merge=False)["twice"].load()
    assert np.isnan(masked[5, 6])
    assert np.isfinite(masked).sum() == 63


def test_numbers_that_are_copied():
    out = np.empty((2, 3), "f2")
    with pytest.raises(OptionError, match=r"'a' contains 70000, which float16 .* 65504"):
        copy_in_range(out, np.array([1.0, -np.inf, 7e4]), "'a'")
    copy_in_range(out, np.array([1.0, np.nan, 7e4]), "'a'", None, np.array([[False, False, True]] * 2))
    np.testing.assert_array_equal(out, [[1, np.nan, np.inf]] * 2)
    assert coerce(np.array([1e300]), np.dtype("f4")).tolist() == [np.inf]  # predictions that are declared so
