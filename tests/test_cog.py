"""Writing of GeoTIFFs: errors do not leave files or crash the process; dtypes and nodata."""

import os
import subprocess
import sys
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.conftest import ROOT, needs_posix
from tests.rasters import random_band, raster
from xee_tf import Model, OptionError, PredictionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.storage import Location
from xee_tf.upload.casting import cast, common_nodata
from xee_tf.upload.cog import to_cog, write_arrays

SIDE, CHUNK = 96, 32
GRID = PatchGrid(
    Size(x=SIDE, y=SIDE), Size(x=32, y=32), Size(x=0, y=0), Affine(30, 0, 7e5, 0, -30, 5e6), "EPSG:32633"
)


def export(folder):
    """Write an uncompressed export of several shards with a flipped bit in one of them."""
    ds = raster({"B4": random_band((512, 512))}).chunk(y=64, x=64)
    result = ds.tfexport(folder / "s", patch_dimensions=32, compressed=False, max_file_size=60_000)
    path = Path(result.files[len(result.files) // 2].path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return folder / "s-mixer.json"


def run(code, *arguments):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
    )


@pytest.mark.parametrize("times", [6, pytest.param(500, marks=pytest.mark.long)])
def test_corrupt_record_raises_an_error_every_time(tmp_path, times):
    """In a separate process, because a bug here crashes the process."""
    code = (
        "import sys, xee_tf\n"
        f"for _ in range({times}):\n"
        "    try:\n"
        "        xee_tf.upload_image(None, sys.argv[1], sys.argv[2], if_exists='overwrite')\n"
        "    except xee_tf.RecordError:\n"
        "        print('error')\n"
    )
    done = run(code, export(tmp_path), tmp_path / "u.tif")
    assert (done.returncode, done.stdout.split()) == (0, ["error"] * times), done.stderr
    assert not list(tmp_path.glob("*u.tif*"))
    assert not list(tmp_path.glob(".*"))


def test_old_file_remains_after_an_error(tmp_path):
    (tmp_path / "u.tif").write_text("the old one")
    with pytest.raises(RecordError):
        xee_tf.upload_image(None, export(tmp_path), tmp_path / "u.tif", if_exists="overwrite")
    assert (tmp_path / "u.tif").read_text() == "the old one"
    assert not list(tmp_path.glob(".*"))


def write(band, path, grid=GRID):
    write_arrays(Location.of(path), {"B": band}, {"B": ["B"]}, grid, None, "nearest", "error", False)


class Failing:
    """Raise an error for one chunk, while other chunks are still computed."""

    def __init__(self, number, error):
        self.number, self.error = number, error

    def __call__(self, block, block_info=None):
        row, column = block_info[0]["chunk-location"]
        if row * (SIDE // CHUNK) + column == self.number:
            raise self.error
        time.sleep(0.01)
        return block


ERRORS = [RecordError("corrupt"), rasterio.errors.RasterioIOError("a tile of the image"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS)
def test_error_in_any_chunk_leaves_no_files(error, tmp_path):
    band = da.from_array(random_band((SIDE, SIDE)), chunks=CHUNK)
    for number in range((SIDE // CHUNK) ** 2):
        failing = band.map_blocks(Failing(number, error), dtype=band.dtype, meta=np.empty((0, 0), band.dtype))
        with pytest.raises(type(error)):
            write(failing, tmp_path / "u.tif")
        assert not list(tmp_path.iterdir())
    time.sleep(0.05)  # wait for chunks that are still computed
    write(band, tmp_path / "u.tif")
    with rasterio.open(tmp_path / "u.tif") as file:
        np.testing.assert_array_equal(file.read(1), band)


@needs_posix
def test_full_disk_raises_an_error(tmp_path):
    """Simulated by a limit on the file size, reached in the staged tiles or in the final file."""
    values = np.random.default_rng(0).random((512, 512), dtype="f4")
    raster({"B4": values}).tfexport(tmp_path / "s", patch_dimensions=64)
    whole = xee_tf.upload_image(None, tmp_path / "s-mixer.json", tmp_path / "whole.tif").size()
    code = (
        "import resource, signal, sys, xee_tf\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for limit in map(int, sys.argv[3:]):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        xee_tf.upload_image(None, sys.argv[1], sys.argv[2])\n"
        "        print('written')\n"
        "    except xee_tf.DestinationError as error:\n"
        "        print('u.tif' in str(error))\n"
    )
    limits = [0, 300, 100_000, values.nbytes // 2, whole - 100_000, whole - 1_000]
    done = run(code, tmp_path / "s-mixer.json", tmp_path / "u.tif", *limits)
    assert done.stdout.split() == ["True"] * len(limits), done.stderr
    assert not list(tmp_path.glob("*u.tif*"))
    assert not list(tmp_path.glob(".*"))


def test_model_error_leaves_no_files(tmp_path):
    def fails(pixels):
        if pixels.max() > 110:
            raise RuntimeError("too bright")
        return pixels[..., 0]

    ds = raster({"B4": random_band((128, 128))}).chunk(x=32, y=32)
    model = Model.from_function(fails, input_tile_size=16, output_bands=["p"])
    for _ in range(5):
        with pytest.raises(PredictionError, match="too bright"):
            to_cog(model.predict_image(ds, merge=False), tmp_path / "p.tif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "crs", ["http://127.0.0.1:9/crs", "/etc/hostname", "file:///etc/hostname", "crs.prj"]
)
def test_crs_is_not_read_from_urls_or_files(crs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crs.prj").write_text(rasterio.crs.CRS.from_epsg(32633).to_wkt())
    band = da.zeros((SIDE, SIDE), chunks=CHUNK, dtype="u1")
    grid = PatchGrid(GRID.shape, GRID.patch, GRID.margin, GRID.affine, crs)
    with pytest.raises(xee_tf.GeoreferenceError, match="cannot be parsed"):
        write(band, tmp_path / "u.tif", grid)
    assert [path.name for path in tmp_path.iterdir()] == ["crs.prj"]


# -- Common dtype and nodata --------------------------------------------------------------------------

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


@given(st.data())
def test_bands_of_different_dtypes_preserve_values(data):
    """All values and missing pixels are preserved, or an error names the band."""
    dtypes, fills, values = {}, {}, {}
    for name in data.draw(st.sampled_from(["a", "ab", "abc"])):
        dtypes[name] = dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
        ends = [] if dtype.kind == "f" else [np.iinfo(dtype).min, np.iinfo(dtype).max]
        some = st.sampled_from([*ends, 0, 1, 100]) | st.integers(0, 127)
        values[name] = np.array(data.draw(st.lists(some, min_size=1, max_size=6)), dtype)
        fills[name] = data.draw(st.sampled_from([None, *ends, 7])) if ends else None
    try:
        dtype, nodata = common_nodata(dtypes, fills, "widen it")
    except OptionError:
        widest = max(dtype.itemsize for dtype in dtypes.values())
        if widest < 8:
            raise
        return
    for name, own in values.items():
        missing = np.full(own.shape, False) if fills[name] is None else own == fills[name]
        lazy = cast(name, da.from_array(own), dtype, nodata, fill=fills[name], remedy="widen it")
        exact = [int(dtype.type(value)) == int(value) for value in own[~missing]]
        if not all(exact):
            with pytest.raises(RecordError, match=f"Band '{name}' contains .*: widen it"):
                lazy.compute()
            continue
        found = lazy.compute()
        assert found.dtype == dtype
        assert [int(value) for value in found[~missing]] == [int(value) for value in own[~missing]]
        is_nodata = np.isnan(found) if dtype.kind == "f" else found == nodata
        np.testing.assert_array_equal(is_nodata, missing)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.float64(1e39), "float32"),
        (np.int64(2**63 - 1), "float64"),
        (np.uint64(2**64 - 1), "float32"),
        (np.int64(-(2**24) - 1), "float32"),
        (np.float32(2**31), "int32"),
        (np.uint16(300), "uint8"),
        (np.int32(70_000), "float16"),
    ],
)
def test_value_that_a_dtype_cannot_represent(value, dtype):
    with pytest.raises(RecordError, match=f"Band 'B' contains .*, which {dtype} cannot represent: choose"):
        cast("B", da.full(2, value), np.dtype(dtype), None).compute()


def test_bool_becomes_uint8():
    bands = {"wet": np.dtype("bool"), "class": np.dtype("int8")}
    dtype, nodata = common_nodata(bands, {"wet": None, "class": -128}, "")
    assert (dtype, nodata) == (np.int16, -128)
    wet = cast("wet", da.from_array(np.array([True, False])), dtype, nodata)
    assert wet.compute().tolist() == [1, 0]


def test_to_cog_of_a_lazy_raster(tmp_path):
    """Bands of different dtypes, with dimensions in any order, and a mask in one of them."""
    scene = raster({"B4": random_band((40, 48)), "mask": np.zeros((40, 48), "uint8")}).chunk(y=16, x=16)
    scene["mask"].attrs["_FillValue"] = 0
    series = np.arange(2 * 40 * 48, dtype="int16").reshape(40, 48, 2)
    scene["ndvi"] = (("y", "x", "time"), series)
    scene = scene.assign_coords(time=np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]"))
    found = to_cog(scene, tmp_path / "scene.tif")
    with rasterio.open(found.path) as file:
        assert file.descriptions == ("B4", "mask", "ndvi_2020-05-01", "ndvi_2020-06-01")
        assert set(file.dtypes) == {"float32"}
        assert file.crs.to_epsg() == 32633
        np.testing.assert_array_equal(file.read(1), scene.B4)
        assert np.isnan(file.read(2)).all()
        np.testing.assert_array_equal(file.read([3, 4]), np.moveaxis(series, -1, 0))
    with pytest.raises(xee_tf.DestinationExistsError):
        to_cog(scene, tmp_path / "scene.tif")
    assert to_cog(scene[["mask"]], tmp_path / "scene.tif", if_exists="overwrite") == found
    with rasterio.open(found.path) as file:
        assert (file.dtypes, file.nodata) == (("uint8",), 0)


def test_to_cog_of_data_arrays(tmp_path):
    ds = raster({"red": random_band((8, 8)), "nir": random_band((8, 8))}).rio.write_crs("EPSG:32633")
    for array, names in (
        (ds.nir, ("nir",)),
        (ds.nir.rename(None), ("B1",)),
        (ds.to_dataarray("band"), ("red", "nir")),
        (ds.to_dataarray("band").assign_coords(band=[1, 2]), ("B1", "B2")),
    ):
        with rasterio.open(to_cog(array, tmp_path / "a.tif", if_exists="overwrite")) as file:
            assert file.descriptions == names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("scene.tif", "must be an xarray Dataset or DataArray; got str"),
        (np.zeros((4, 4)), "must be an xarray Dataset or DataArray; got ndarray"),
        (xr.Dataset(), "has no bands"),
        (raster({"B2": np.full((4, 4), "water")}), "Band 'B2' has dtype <U5"),
        *(
            [(raster({"B2": np.zeros((4, 4), np.longdouble)}), "Band 'B2' has dtype float(128|96).*astype")]
            if np.longdouble(0).itemsize > 8
            else []
        ),
    ],
)
def test_to_cog_of_other_objects(tmp_path, given, message):
    with pytest.raises(OptionError, match=message):
        to_cog(given, tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.jp2", "a", "a.zarr", "a.tif.gz"])
def test_to_cog_with_other_extensions(tmp_path, name):
    with pytest.raises(OptionError, match=f"destination must end with .tif or .tiff; got '{name}'"):
        to_cog(raster({"B2": random_band((4, 4))}), tmp_path / name)


@pytest.mark.parametrize("name", ["scene.tif", "scene.zarr"])
def test_prediction_does_not_replace_its_input(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene = raster({"B4": random_band((32, 32))}).rio.write_crs(32633)
    model = xee_tf.Model.from_function(lambda b: b[..., 0], input_tile_size=16, output_bands=["p"])
    if name.endswith(".tif"):
        scene.B4.rio.to_raster(name)
        opened, predict = rioxarray.open_rasterio(tmp_path / name, chunks=16), xee_tf.predict_to_cog
    else:
        scene.to_zarr(name, consolidated=False)
        opened, predict = xr.open_zarr(name, consolidated=False), xee_tf.predict_to_zarr
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    with pytest.raises(xee_tf.DestinationExistsError, match="is also the input"):
        predict(model, opened, name, if_exists="overwrite")
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == before
    copied = tmp_path / f"copy{name[5:]}"
    predict(model, opened, copied)
    assert copied.exists()


def test_what_several_bands_share_is_computed_once(tmp_path):
    loaded = []

    def load(block_info=None):
        loaded.append(block_info[None]["chunk-location"])
        return np.ones((2, 16, 16), "f4")

    both = da.map_blocks(
        load, chunks=((2,), (16,) * 2, (16,) * 3), dtype="f4", meta=np.empty((0, 0, 0), "f4")
    )
    image = raster({"a": np.zeros((32, 48), "f4")}).assign(a=(("y", "x"), both[0]), b=(("y", "x"), both[1]))
    xee_tf.to_cog(image, tmp_path / "both.tif")
    assert len(loaded) == len(set(loaded)) == 6
