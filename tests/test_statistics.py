"""Statistics of bands, compared with numpy."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xee_tf import OptionError, add_bands, band_statistics

DTYPES = [
    "bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
]  # fmt: skip


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    steps=st.integers(0, 3),
    chunk=st.integers(1, 17),
    offset=st.sampled_from([0.0, 3e4, 1e9]),
    missing=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 1000),
)
def test_statistics_are_those_of_numpy(dtype, shape, steps, chunk, offset, missing, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 50, (steps, *shape) if steps else shape)
    dims = ("time", "y", "x") if steps else ("y", "x")
    attrs = {}
    where = rng.random(values.shape) < missing
    if np.dtype(dtype).kind == "f":
        values = (values + offset).astype(dtype)
        values[where] = np.nan
        valid = values[~where]
    elif dtype == "bool":
        values = valid = values > 0
    else:
        info = np.iinfo(dtype)
        values = np.clip(values + offset, info.min, info.max - 1).astype(dtype)
        values[where] = info.max
        valid = values[~where]
        attrs = {"nodata": str(info.max)}
    band = xr.DataArray(da.from_array(values, chunks=chunk), dims=dims, attrs=attrs)
    with dask.config.set(scheduler="sync"):
        found = band_statistics(xr.Dataset({"b": band})).sel(band="b")
    assert int(found["count"]) == valid.size
    assert int(found["masked"]) == values.size - valid.size
    if not valid.size:
        assert all(np.isnan(found[name]) for name in ("min", "max", "mean", "std"))
        return
    exact = valid.astype("longdouble")
    assert float(found["min"]) == valid.min()
    assert float(found["max"]) == valid.max()
    largest = float(abs(exact).max())
    np.testing.assert_allclose(float(found["mean"]), float(exact.mean()), rtol=0, atol=1e-12 * largest)
    np.testing.assert_allclose(float(found["std"]), float(exact.std()), rtol=1e-9, atol=1e-12 * largest)


def test_large_offsets_do_not_cancel():
    """The variance of 1e9 + noise, in many pieces and chunks."""
    noise = np.random.default_rng(1).normal(0, 1e-3, (700, 900))
    band = xr.DataArray(da.from_array(noise + 1e9, chunks=(130, 97)), dims=("y", "x"))
    found = band_statistics(band.rename("b"))
    assert float(found["std"][0]) == pytest.approx((noise + 1e9).astype("longdouble").std(), rel=1e-9)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 123456.789, -1e100])
def test_constant_bands(value):
    band = xr.DataArray(da.full((301, 299), value, chunks=100), dims=("y", "x"), name="b")
    found = band_statistics(band)
    assert found["mean"].item() == found["min"].item() == found["max"].item() == value
    assert found["std"].item() <= 1e-15 * abs(value)


def test_each_chunk_is_loaded_once():
    loads = []

    def load(block_info=None):
        loads.append(block_info[None]["chunk-location"])
        return np.ones((2, 4, 4), "float32")

    cube = da.map_blocks(
        load, chunks=((2,), (4,) * 5, (4,) * 3), dtype="float32", meta=np.empty((0,) * 3, "f4")
    )
    raster = xr.DataArray(cube, dims=("band", "y", "x"), coords={"band": ["red", "nir"]})
    found = band_statistics(raster)
    assert found.band.values.tolist() == ["red", "nir"]
    assert found["count"].values.tolist() == [240, 240]
    assert sorted(loads) == sorted(np.ndindex(1, 5, 3))


def test_rasters_on_one_grid_and_without_chunks():
    scene = xr.DataArray(np.arange(6.0).reshape(2, 3), dims=("y", "x"), name="a")
    scene = scene.assign_coords(y=[15.0, -15.0], x=[0.0, 30.0, 60.0])
    both = add_bands(scene, (scene + 1).rename("b"), crs="EPSG:32633")
    found = band_statistics([both, (scene * 2).rename("c").to_dataset().assign_attrs(crs="EPSG:32633")])
    assert found["mean"].sel(band=["a", "b", "c"]).values.tolist() == [2.5, 3.5, 5]
    assert found["std"].sel(band="a") == np.arange(6.0).std()


def test_infinite_values():
    band = xr.DataArray(np.array([[np.inf, 1.0]], "float32"), dims=("y", "x"), name="b")
    found = band_statistics(band)
    assert (found["max"].item(), found["mean"].item(), found["count"].item()) == (np.inf, np.inf, 2)
    assert np.isnan(found["std"].item())


@pytest.mark.parametrize(
    ("infinite", "mean"), [([np.inf], np.inf), ([-np.inf], -np.inf), ([-np.inf, np.inf], np.nan)]
)
def test_infinite_values_in_any_chunk(infinite, mean):
    values = np.arange(12.0).reshape(3, 4)
    values.flat[: 7 * len(infinite) : 7] = infinite
    for chunks in (4, 2, 1):
        found = band_statistics(xr.DataArray(da.from_array(values, chunks=chunks), dims=("y", "x"), name="b"))
        np.testing.assert_array_equal(found["mean"], [mean])
        assert np.isnan(found["std"].item())


def test_whole_numbers_do_not_depend_on_chunks():
    values = np.random.default_rng(0).integers(-(2**15), 2**15, (90, 70)).astype("int16")
    values[40:] = 7
    lazy = [da.from_array(values, chunks=chunks) for chunks in (100, 33, (1, 70), 9)]
    found = [band_statistics(xr.DataArray(each, dims=("y", "x"), name="b")) for each in lazy]
    for each in found[1:]:
        xr.testing.assert_identical(each, found[0])
    assert found[0]["mean"].item() == values.sum(dtype="int64") / values.size


def test_counts_of_classes():
    values = np.array([[2, 5, 5], [0, 2, 2]])
    bands = {
        "a": values.astype("uint8"),
        "b": values - 3,
        "c": values * 1.0,
        "d": values * 100,
        "e": values > 2,
    }
    raster = xr.Dataset({name: (("y", "x"), each) for name, each in bands.items()})
    found = band_statistics(raster)["class_count"]
    assert found["class"].values.tolist() == [-3, -1, 0, 1, 2, 5]
    assert found.sel(band="a").values.tolist() == [0, 0, 1, 0, 3, 2]
    assert found.sel(band="b").values.tolist() == [1, 3, 0, 0, 2, 0]
    assert found.sel(band=["c", "d"]).sum() == 0
    assert found.sel({"band": "e", "class": [0, 1]}).values.tolist() == [4, 2]


def test_errors():
    dates = xr.DataArray(np.zeros((2, 2), "datetime64[ns]"), dims=("y", "x"), name="day")
    with pytest.raises(OptionError, match=r"'day' has dtype datetime64\[ns\].*select other bands"):
        band_statistics(dates)
    with pytest.raises(OptionError, match="nothing to compute"):
        band_statistics(xr.Dataset())
