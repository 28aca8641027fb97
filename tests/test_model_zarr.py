"""Write predictions to Zarr stores and other files, and continue interrupted runs."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray
import xarray as xr
import zarr
from affine import Affine

from tests.rasters import random_band, raster
from xee_tf import (
    DestinationError,
    DestinationExistsError,
    Model,
    OptionError,
    PredictionError,
    XeeTFError,
    predict_to_cog,
    predict_to_zarr,
)
from xee_tf.connector import Signature, TensorInfo
from xee_tf.graph import run_graph
from xee_tf.predict import PredictOptions, write_zarr
from xee_tf.storage.processes import temporary_name

TIMES = np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]")


CALLS = 16  # one call for two tiles of each of two dates

pytestmark = pytest.mark.usefixtures("small_blocks")


def scene():
    """Two dates of sixteen chunks of 16 x 16 pixels."""
    values = random_band((2, 64, 64)).astype("f4")
    values[:, 5, 7] = np.nan
    ds = raster({"template": values[0]}).drop_vars("template")
    return ds.assign(a=(("time", "y", "x"), values)).assign_coords(time=TIMES).chunk(y=16, x=16, time=1)


class Fragile:
    """Double pixels, record each call in a folder, and fail at the call number in a file next to it."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, pixels):
        number = len(list(self.folder.iterdir()))
        limit = self.folder.with_suffix(".limit")
        if limit.exists() and number >= int(limit.read_text()):
            if self.folder.with_suffix(".die").exists():
                os._exit(9)
            raise RuntimeError("interrupted")
        (self.folder / f"{number}-{pixels[0, 0, 0, 0]}").touch()
        return {"twice": pixels[..., 0] * 2, "pair": np.stack([pixels[..., 0]] * 2, -1)}


def model_of(folder, limit=None, die=False):
    """A model that fails at call number `limit`, which is not part of the model's content."""
    for suffix, value in ((".limit", limit), (".die", die or None)):
        file = Path(folder).with_suffix(suffix)
        file.unlink(missing_ok=True)
        if value is not None:
            file.write_text(str(value))
    return Model.from_function(
        Fragile(folder),
        input_tile_size=16,
        output_bands={"twice": "float32", "pair": {"type": "float", "dimensions": 1, "shape": [2]}},
    )


def check(store):
    found = xr.open_zarr(store, decode_coords="all")
    ds = scene()
    np.testing.assert_array_equal(found.twice, ds.a * 2)
    np.testing.assert_array_equal(found.pair[:, 1], ds.a)
    assert found.rio.crs == "EPSG:32633"
    np.testing.assert_array_equal(found.time, TIMES)
    return found


def test_interrupted_run_is_continued_without_repeated_predictions(tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()
    store = tmp_path / "out.zarr"
    with dask.config.set(scheduler="sync"), pytest.raises(PredictionError, match="interrupted"):
        predict_to_zarr(model_of(calls, limit=6), scene(), store)
    assert len(list(calls.iterdir())) == 6
    continued = write_zarr(model_of(calls), scene(), store, PredictOptions())
    assert 0 < continued.finished < continued.chunks
    assert len(list(calls.iterdir())) == CALLS
    check(store)
    assert {path.name for path in (store / ".xee_tf").iterdir()} == {"zarr.json"}
    complete = write_zarr(model_of(calls), scene(), store, PredictOptions())
    assert complete.finished == complete.chunks == continued.chunks
    assert len(list(calls.iterdir())) == CALLS


@pytest.mark.parametrize(
    "change", [None, {"codecs": [{"name": 3}]}, {"chunk_grid": {}}, {"zarr_format": "x"}]
)
def test_damaged_metadata_of_an_unfinished_store(change, tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()
    store = tmp_path / "out.zarr"
    with dask.config.set(scheduler="sync"), pytest.raises(PredictionError, match="interrupted"):
        predict_to_zarr(model_of(calls, limit=6), scene(), store)
    metadata = store / "twice" / "zarr.json"
    found = json.loads(metadata.read_bytes())
    metadata.write_text("{" if change is None else json.dumps(found | change))
    with pytest.raises(XeeTFError, match=r"out.zarr"):
        predict_to_zarr(model_of(calls), scene(), store)


def test_interruption_says_whether_chunks_are_kept(tmp_path):
    calls = []

    def function(pixels):
        calls.append(1)
        if len(calls) in (1, 5):
            raise KeyboardInterrupt
        return pixels[..., 0]

    model = Model.from_function(function, input_tile_size=16, output_bands=["p"])
    for advice in (
        r"No chunk was finished\. Run it again\.$",
        r"3 of 8 chunks are kept in .*p\.zarr: run it",
    ):
        with dask.config.set(scheduler="sync"), pytest.raises(KeyboardInterrupt) as caught:
            predict_to_zarr(model, scene().isel(time=0), tmp_path / "p.zarr", identity="1")
        [note] = caught.value.__notes__
        assert re.match(advice, note)


def test_errors_say_whether_chunks_are_kept(tmp_path):
    for limit, kept in ((0, ""), (5, "5 of 16 chunks are kept in ")):
        (calls := tmp_path / f"calls-{limit}").mkdir()
        store = tmp_path / f"{limit}.zarr"
        with dask.config.set(scheduler="sync"), pytest.raises(PredictionError, match="interrupted") as caught:
            predict_to_zarr(model_of(calls, limit=limit), scene(), store)
        notes = [f"{kept}{store}: run it again to continue."] if kept else []
        assert getattr(caught.value, "__notes__", []) == notes


def test_markers_that_a_killed_process_did_not_finish_do_not_count(tmp_path):
    """The file of a marker gets its name last; before, a run of another prediction replaces the store."""
    (calls := tmp_path / "calls").mkdir()
    store = tmp_path / "p.zarr"
    with dask.config.set(scheduler="sync"), pytest.raises(PredictionError):
        predict_to_zarr(model_of(calls, limit=0), scene(), store)
    (markers := store / ".xee_tf" / "finished").mkdir()
    (markers / temporary_name("0-1-0")).touch()
    predict_to_zarr(model_of(calls), scene(), store, identity="another")
    check(store)


def test_run_is_continued_after_its_process_was_killed(tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from unittest import mock\n"
        "import dask\n"
        "import xee_tf\n"
        "from tests.test_model_zarr import model_of, scene\n"
        "with mock.patch('xee_tf.blocks.sizing._BLOCK_BYTES', (1, 1)), dask.config.set(scheduler='sync'):\n"
        "    model = model_of(sys.argv[2], limit=5, die=True)\n"
        "    xee_tf.predict_to_zarr(model, scene(), sys.argv[3])\n"
    )
    root = Path(__file__).parents[1]
    store = tmp_path / "out.zarr"
    done = subprocess.run([sys.executable, "-c", code, root, calls, store], capture_output=True, cwd=tmp_path)
    assert done.returncode == 9, done.stderr.decode()
    finished = len(list((store / ".xee_tf" / "finished").iterdir()))
    assert finished
    before = len(list(calls.iterdir()))
    predict_to_zarr(model_of(calls), scene(), store)
    assert len(list(calls.iterdir())) == before + CALLS - finished
    check(store)


def test_store_with_another_prediction_is_an_error(tmp_path):
    (tmp_path / "calls").mkdir()
    model = model_of(tmp_path / "calls")
    store = predict_to_zarr(model, scene(), tmp_path / "out.zarr")
    with pytest.raises(DestinationExistsError, match=r"the output 'twice' were time: 2, .* are now time: 1,"):
        predict_to_zarr(model, scene().isel(time=[0]), store)
    with pytest.raises(DestinationExistsError, match="resume is False"):
        predict_to_zarr(model, scene(), store, resume=False)
    predict_to_zarr(model, scene().isel(time=[0]), store, if_exists="overwrite")
    assert xr.open_zarr(store.path).sizes["time"] == 1
    (tmp_path / "other.zarr").mkdir()
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    with pytest.raises(DestinationExistsError, match="does not contain a prediction"):
        predict_to_zarr(model, scene(), tmp_path / "other.zarr")


def test_object_store(tmp_path):
    (tmp_path / "calls").mkdir()
    store = predict_to_zarr(model_of(tmp_path / "calls"), scene(), "memory://predictions/out.zarr")
    check(store.url)


def test_predictions_are_written_by_xarray_and_rioxarray(tmp_path):
    ds = scene().isel(time=0, drop=True)
    model = Model.from_function(
        lambda pixels: {"kind": (pixels[..., 0] > 60).astype("uint8"), "twice": pixels[..., 0] * 2},
        input_tile_size=16,
        output_bands={"kind": "uint8", "twice": "float32"},
    )
    result = model.predict_image(ds, merge=False)
    result.to_zarr(tmp_path / "plain.zarr", consolidated=False)
    found = xr.open_zarr(tmp_path / "plain.zarr", decode_coords="all", consolidated=False)
    np.testing.assert_array_equal(found.twice, ds.a * 2)
    assert np.isnan(found.kind[5, 7])  # masked: xarray decodes the fill value
    result.kind.rio.to_raster(tmp_path / "kind.tif", driver="COG")
    with rasterio.open(tmp_path / "kind.tif") as file:
        assert file.nodata == 255
        assert file.crs.to_string() == "EPSG:32633"
        assert file.transform == ds.rio.transform()
        np.testing.assert_array_equal(file.read(1), result.kind)


@pytest.mark.parametrize("function", [predict_to_zarr, predict_to_cog])
def test_docstrings_describe_every_option_in_order(function):
    described = re.findall(r"^(\w+) : ", inspect.getdoc(function).partition("Returns\n---")[0], re.MULTILINE)
    assert described == list(inspect.signature(function).parameters)


# -- Same and different predictions -----------------------------------------------------------------


def image(seed=0, **attrs):
    values = random_band((32, 32), seed=seed)
    return raster({"B": values, "A": values[::-1].copy()}).assign_attrs(attrs)


def index(function=lambda b: b[..., 0] - b[..., 1], **options):
    given = {"input_tile_size": 16, "output_bands": ["p"], **options}
    return Model.from_function(function, **given)


DIFFERENT = {
    "its code": (
        {"model": index(lambda b: b[..., 0] + b[..., 1])},
        "the code, data or weights of the function <lambda> differ",
    ),
    "its name": (
        {"model": index(np.sum)},
        "the model was the function <lambda> and is now the function sum",
    ),
    "bands": ({"model": index(bands=["A", "B"])}, "the model's option bands was None"),
    "overlap": (
        {"model": index(input_overlap_size=2)},
        "option input_overlap_size was 0 x 0 and is now 2 x 2",
    ),
    "output": (
        {"model": index(output_bands={"p": "float64"})},
        "the model's option output_bands was p and is now p: dtype float64",
    ),
    "augment": ({"augment": "d4"}, "the option augment was None and is now d4"),
    "pixels": ({"image": image(1)}, "the input 'B' is not the same as before"),
    "one band": ({"image": image().assign(A=image(1).A)}, "the input 'A' is not the same as before"),
    "names": (
        {"image": image().rename(A="C")},
        "the bands were B, A and are now B, C",
    ),
    "order": ({"image": image()[["A", "B"]]}, "the bands were B, A and are now A, B"),
    "place": ({"image": image().assign_coords(x=image().x + 30)}, "the grid of the result was"),
    "crs": ({"crs": "EPSG:32634"}, "the grid of the result was .*EPSG:32633.* and is now .*EPSG:32634"),
    "size": (
        {"image": image().isel(y=slice(16))},
        "sizes of the output 'p' were y: 32, x: 32 and are now y: 16, x: 32",
    ),
    "chunks": (
        {"image": image().chunk(x=16)},
        "chunks of the output 'p' were|chunks of the input 'B' were y: 16, x: 32 and",
    ),
    "nodata": (
        {"image": image().assign(B=image().B.assign_attrs(_FillValue=0.0))},
        "nodata of the input 'B' was none and is now 0.0",
    ),
    "nodata by another name": (
        {"image": image().assign(A=image().A.assign_attrs(noDataValue="17"))},
        "nodata of the input 'A' was none and is now 17.0",
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
@pytest.mark.filterwarnings("ignore:crs= is :UserWarning")
def test_different_prediction_is_an_error(what, tmp_path):
    changed, message = DIFFERENT[what]
    given = {"model": index(), "image": image(), **changed}
    predict_to_zarr(index(), image(), tmp_path / "p.zarr")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DestinationExistsError, match=message) as raised:
        predict_to_zarr(given.pop("model"), given.pop("image"), tmp_path / "p.zarr", **given)
    assert "if_exists='overwrite'" in str(raised.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 1},
        {"skip_masked": False},
        {"model": index(output_multiplier=2.0)},
        {"model": index(lambda b: b[..., 0] - b[..., 1])},
        {"image": image(seed=0, transform=Affine.identity(), title="another")},
        {"image": image().assign_coords(area=(("y", "x"), da.ones((32, 32))))},
        {
            "image": image().map(
                lambda band: band.assign_attrs(valid_max=40, valid_range=[0, 40]), keep_attrs=True
            )
        },
        {"image": image().assign(unseen=("z", [1.0]))},
    ],
    ids=range(8),
)
def test_same_prediction_is_not_repeated(changed, tmp_path, monkeypatch):
    given = {"model": index(), "image": image(), **changed}
    predict_to_zarr(index(), image(), tmp_path / "p.zarr")
    monkeypatch.setattr("xee_tf.predict.to_zarr.run_graph", None)
    predict_to_zarr(given.pop("model"), given.pop("image"), tmp_path / "p.zarr", **given)


@pytest.mark.parametrize("key", ["fill_value", "nodata", "FillValue", "nodata_value", "missing_value"])
def test_other_nodata_is_a_different_prediction(key, tmp_path):
    def filled(value):
        ds = image().astype("int16")
        return ds.assign(A=ds.A.assign_attrs({key: value}))

    model = index(output_bands={"p": "int32"})
    predict_to_zarr(model, filled(11), tmp_path / "p.zarr")
    predict_to_zarr(model, filled([11.0]), tmp_path / "p.zarr")
    with pytest.raises(DestinationExistsError, match="'A' was 11 and is now 12"):
        predict_to_zarr(model, filled(12), tmp_path / "p.zarr")


@pytest.mark.parametrize("array_dims", [["band"], ["band", "time"], ["time", "band"]])
def test_band_dimension_that_the_model_takes_is_compared(array_dims, tmp_path):
    def spectrum(seed):
        values = random_band((3, 2, 32, 32), seed=seed)
        return image().assign(spectrum=(("band", "time", "y", "x"), values))[["spectrum"]]

    model = index(lambda b: b.sum(tuple(range(3, b.ndim))), bands=["spectrum"], array_dims=array_dims)
    predict_to_zarr(model, spectrum(3), tmp_path / "p.zarr")
    predict_to_zarr(model, spectrum(3), tmp_path / "p.zarr")
    with pytest.raises(DestinationExistsError, match="the input 'spectrum' is not the same as before"):
        predict_to_zarr(model, spectrum(4), tmp_path / "p.zarr")


@pytest.mark.parametrize("output_grid", ["model", "image"])
def test_georeferences_of_image_and_result_are_compared(output_grid, tmp_path):
    model = index(proj=("EPSG:32633", 60), fix_input_proj=True)
    place = {"transform": [30, 0, 600015, 0, -30, 5000025], "crs": "EPSG:32633", "output_grid": output_grid}
    bare = image().drop_vars(["x", "y", "spatial_ref"], errors="ignore").drop_attrs()
    predict_to_zarr(model, bare, tmp_path / "p.zarr", **place)
    predict_to_zarr(model, bare, tmp_path / "p.zarr", **place)
    moved = {**place, "transform": [30, 0, 600020, 0, -30, 5000020]}
    what = "the grid of the image was" if output_grid == "model" else "the grid of the result was"
    with pytest.raises(DestinationExistsError, match=what):
        predict_to_zarr(model, bare, tmp_path / "p.zarr", **moved)


def test_signature_of_the_model_is_compared(tmp_path, monkeypatch):
    """A model on a server is identified by its address, but its inputs may change."""
    model = index(lambda b: {"p": b[..., :1]}, output_bands=None)
    served = {"dtype": "float32"}

    def signature(self):
        pixels = TensorInfo(np.dtype(served["dtype"]), (None, 16, 16, 2))
        return Signature({"pixels": pixels}, {"p": TensorInfo(np.dtype("float32"), (None, 16, 16, 1))})

    monkeypatch.setattr(type(model.connector), "signature", signature)
    predict_to_zarr(model, image().astype("int32"), tmp_path / "p.zarr")
    served["dtype"] = "float64"
    with pytest.raises(
        DestinationExistsError, match="dtype of the model's input 'pixels' was float32 and is now float64"
    ):
        predict_to_zarr(model, image().astype("int32"), tmp_path / "p.zarr")


def test_only_properties_that_are_sent_are_compared(tmp_path):
    model = Model.from_function(
        lambda b: {"p": b["B"][..., 0] * b["gain"][:, None, None]},
        named=True,
        bands=["B"],
        input_properties=["gain"],
        input_tile_size=16,
        output_bands=["p"],
    )
    predict_to_zarr(model, image(gain=2.0, title="a"), tmp_path / "p.zarr")
    predict_to_zarr(model, image(gain=np.float64(2), title="b"), tmp_path / "p.zarr")
    predict_to_zarr(model, image(), tmp_path / "p.zarr", properties={"gain": 2.0})
    with pytest.raises(DestinationExistsError, match="the property 'gain'"):
        predict_to_zarr(model, image(gain=3.0), tmp_path / "p.zarr")


class Unpickled:
    """A callable whose pickle is different every time."""

    def __call__(self, pixels):
        return pixels[..., 0]

    def __reduce__(self):
        return Unpickled, (), {"stamp": os.urandom(8)}


class Unknown(Unpickled):
    def __reduce__(self):
        if sys._getframe(1).f_code.co_name == "_reduced_parts":
            raise TypeError("no")
        return Unknown, ()


@pytest.mark.parametrize(("kind", "message"), [(Unpickled, "differ"), (Unknown, "__dask_tokenize__")])
def test_model_that_cannot_be_identified_is_not_continued(kind, message, tmp_path):
    model = index(kind())
    predict_to_zarr(model, image(), tmp_path / "p.zarr")
    with pytest.raises(DestinationExistsError, match=message):
        predict_to_zarr(model if kind is Unknown else index(kind()), image(), tmp_path / "p.zarr")


def test_inputs_that_cannot_be_compared_need_an_identity(tmp_path):
    def delayed():
        values = da.from_delayed(dask.delayed(np.ones)((32, 32)), (32, 32), dtype=float)
        return image().assign(B=(("y", "x"), values))

    predict_to_zarr(index(), delayed(), tmp_path / "p.zarr")
    with pytest.raises(DestinationExistsError, match=r"whether the input 'B' is the same .*dask\.delayed"):
        predict_to_zarr(index(), delayed(), tmp_path / "p.zarr")
    with pytest.raises(DestinationExistsError, match="the option identity was None and is now '7'"):
        predict_to_zarr(index(), delayed(), tmp_path / "p.zarr", identity="7")
    store = predict_to_zarr(index(), delayed(), tmp_path / "named.zarr", identity="7")
    predict_to_zarr(index(), delayed(), store, identity="7")
    with pytest.raises(DestinationExistsError, match="the option identity was '7' and is now '8'"):
        predict_to_zarr(index(), delayed(), store, identity="8")
    with pytest.raises(DestinationExistsError, match="the model was the function <lambda> and is now"):
        predict_to_zarr(index(lambda b: b[..., 1]), delayed(), store, identity="7")
    with pytest.raises(OptionError, match=r"identity must be a text .*; got 7"):
        predict_to_zarr(index(), delayed(), store, identity=7)


@pytest.mark.parametrize("chunks", [None, {"x": 16}])
def test_geotiff_is_compared(chunks, tmp_path):
    def write(values):
        image().B.copy(data=values).rio.write_crs(32633).rio.to_raster(tmp_path / "b.tif")

    def predict():
        predict_to_zarr(
            index(lambda b: b[..., 0]),
            rioxarray.open_rasterio(tmp_path / "b.tif", chunks=chunks),
            tmp_path / "p.zarr",
        )

    write(random_band((32, 32), seed=1))
    predict()
    predict()
    write(random_band((32, 32), seed=2))
    with pytest.raises(DestinationExistsError, match=r"the input .* is not the same as before"):
        predict()


def test_run_is_continued_by_a_second_run_of_the_script(tmp_path):
    """The second session defines the function, its helper and its data again.

    Bands are passed by name: without consolidated metadata, xarray does not keep their order.
    """
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, dask, numpy as np, xarray as xr, xee_tf\n"
        "W = {'gain': np.arange(2.0)}\n"
        "def helper(b): return b[..., 0] * W['gain'][1] + b[..., 1]\n"
        "def function(b):\n"
        "    with open('calls', 'a') as file: file.write('x')\n"
        "    if len(open('calls').read()) == 3: raise RuntimeError('interrupted')\n"
        "    return helper(b)\n"
        "import xee_tf.blocks.sizing\n"
        "xee_tf.blocks.sizing._BLOCK_BYTES = (1, 1)\n"
        "image = xr.open_zarr('image.zarr', consolidated=False, decode_coords='all')\n"
        "options = {'bands': ['B', 'A'], 'input_tile_size': 16, 'output_bands': ['p']}\n"
        "model = xee_tf.Model.from_function(function, **options)\n"
        "with dask.config.set(scheduler='sync'):\n"
        "    xee_tf.predict_to_zarr(model, image, 'p.zarr', batch_size=1)\n"
    )
    ds = image().rio.write_crs(32633).chunk(x=16, y=16)
    ds.to_zarr(tmp_path / "image.zarr", consolidated=False)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    codes = []
    for seed in "12":
        env["PYTHONHASHSEED"] = seed
        done = subprocess.run(
            [sys.executable, script], capture_output=True, cwd=tmp_path, env=env, timeout=100
        )
        codes.append(done.returncode)
    assert codes == [1, 0], done.stderr.decode()
    assert len((tmp_path / "calls").read_text()) == 5  # four tiles, one of which was repeated
    found = xr.open_zarr(tmp_path / "p.zarr")
    np.testing.assert_array_equal(found.p, image().B + image().A)


# -- Replacing stores --------------------------------------------------------------------------------


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_options_are_checked_before_anything_is_written(tmp_path):
    predict_to_zarr(index(), image(), tmp_path / "p.zarr")
    before = tree(tmp_path)
    for options in (
        {"if_exists": "Overwrite"},
        {"if_exists": "overwrite", "blend": "han"},
        {"if_exists": "overwrite", "augment": "d8"},
        {"if_exists": "overwrite", "batch_size": 0},
        {"if_exists": "overwrite", "merge": True},
        {"if_exists": "overwrite", "output_grid": "none"},
    ):
        with pytest.raises(OptionError):
            predict_to_zarr(index(), image(1), tmp_path / "p.zarr", resume=False, **options)
        assert tree(tmp_path) == before


# Where a file of the user is in a store, and what the message names.
INSIDE = {
    "inside": "p/thesis.txt",
    "chunks": "p/c/0/thesis.txt",
    "coordinate": "x/c/notes",
    "record": ".xee_tf/notes.txt",
    "markers": ".xee_tf/finished/notes",
}


@pytest.mark.parametrize("kind", ["folder", "zarr", "file", "mixed", "array", "group", *INSIDE])
def test_other_files_and_stores_are_not_replaced(kind, tmp_path):
    store = tmp_path / "p.zarr"
    if kind == "file":
        store.write_text("kept")
    elif kind == "zarr":
        image().to_zarr(store, consolidated=False)
    elif kind == "folder":
        (store / "docs").mkdir(parents=True)
        (store / "docs" / "thesis.txt").write_text("kept")
    else:
        predict_to_zarr(index(), image(), store)
        if kind == "array":
            image()[["A"]].drop_attrs().to_zarr(store, mode="a", consolidated=False)
        elif kind == "group":
            image().to_zarr(store, group="years", mode="a", consolidated=False)
        else:
            file = store / ("docs/thesis.txt" if kind == "mixed" else INSIDE[kind])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("kept")
    before = tree(tmp_path)
    messages = {
        "folder": "'docs'",
        "mixed": "'docs'",
        "array": "it contains 'A'",
        "group": "it contains 'years'",
        **{where: f"it contains '{file}'" for where, file in INSIDE.items()},
        "zarr": "without '.xee_tf'",
        "file": "a file",
    }
    for resume in (True, False):
        with pytest.raises(DestinationExistsError, match=messages[kind]):
            predict_to_zarr(index(), image(1), store, if_exists="overwrite", resume=resume)
        assert tree(tmp_path) == before


def test_empty_folder_is_replaced(tmp_path):
    (tmp_path / "p.zarr").mkdir()
    with pytest.raises(DestinationExistsError):
        predict_to_zarr(index(), image(), tmp_path / "p.zarr")
    predict_to_zarr(index(), image(), tmp_path / "p.zarr", if_exists="overwrite")
    assert {path.name for path in tmp_path.iterdir()} == {"p.zarr"}
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "p.zarr").p, image().B - image().A)


def test_old_store_is_kept_until_the_new_store_is_complete(tmp_path):
    calls, store = tmp_path / "calls", tmp_path / "out.zarr"
    calls.mkdir()
    predict_to_zarr(model_of(calls), scene(), store)
    before = tree(store)
    other = scene().assign(a=scene().a + 1)
    for file in calls.iterdir():
        file.unlink()
    with dask.config.set(scheduler="sync"), pytest.raises(PredictionError, match="interrupted"):
        predict_to_zarr(model_of(calls, limit=6), other, store, if_exists="overwrite")
    assert tree(store) == before
    predict_to_zarr(model_of(calls), scene(), store)  # the old store is still complete
    predict_to_zarr(model_of(calls), other, store, if_exists="overwrite")
    assert len(list(calls.iterdir())) == CALLS  # no tile was predicted twice
    np.testing.assert_array_equal(xr.open_zarr(store).twice, other.a * 2)
    assert {path.name for path in tmp_path.iterdir()} == {"calls", "out.zarr"}


def test_file_that_is_added_while_the_new_store_is_written_is_kept(tmp_path, monkeypatch):
    store = tmp_path / "p.zarr"
    predict_to_zarr(index(), image(), store)

    def add_notes(delayed, counted):
        run_graph(delayed, counted)
        (store / "notes.txt").write_text("kept")

    with monkeypatch.context() as patch:
        patch.setattr("xee_tf.predict.to_zarr.run_graph", add_notes)
        with pytest.raises(DestinationExistsError, match=r"it contains 'notes\.txt'"):
            predict_to_zarr(index(), image(1), store, if_exists="overwrite")
    assert (store / "notes.txt").read_text() == "kept"
    (store / "notes.txt").unlink()
    monkeypatch.setattr("xee_tf.predict.to_zarr.run_graph", None)  # what was written is used
    predict_to_zarr(index(), image(1), store, if_exists="overwrite")
    np.testing.assert_array_equal(xr.open_zarr(store).p, image(1).B - image(1).A)
    assert os.listdir(tmp_path) == ["p.zarr"]


@pytest.mark.parametrize("kind", ["old", "recent", "complete", "foreign", "mixed"])
@pytest.mark.parametrize("zarr_format", [3, 2])
def test_replacements_of_old_versions(kind, zarr_format, tmp_path):
    """Versions before 0.3 left ``p.zarr.replacement`` when they were killed."""
    store, left = tmp_path / "p.zarr", tmp_path / "p.zarr.replacement"
    xr.Dataset({"p": ("x", np.arange(3))}).to_zarr(left, zarr_format=zarr_format, consolidated=False)
    array = json.loads((left / "p" / ("zarr.json" if zarr_format == 3 else ".zarray")).read_text())
    dtype = array["data_type" if zarr_format == 3 else "dtype"]
    state = "complete" if kind == "complete" else "prepared"
    record = {"prediction": {}, "state": state, "arrays": {"p": [[3], dtype]}}
    if kind != "foreign":
        zarr.open_group(left / ".xee_tf", mode="a", zarr_format=zarr_format, attributes=record)
    if kind == "mixed":
        (left / "notes.txt").write_text("kept")
    for path in (*left.rglob("*"), left):
        os.utime(path, (time.time() - (60 if kind == "recent" else 7200),) * 2)
    before = tree(left)
    predict_to_zarr(index(), image(), store)
    assert left.exists() == (kind != "old")
    if left.exists():
        assert tree(left) == before


def test_complete_replacement_is_moved_into_place(tmp_path, monkeypatch):
    store = tmp_path / "p.zarr"
    predict_to_zarr(index(), image(), store)
    with monkeypatch.context() as patch:
        patch.setattr("xee_tf.predict.to_zarr.replace_store", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict_to_zarr(index(), image(1), store, if_exists="overwrite")
    shutil.rmtree(store)
    monkeypatch.setattr("xee_tf.predict.to_zarr.run_graph", None)
    predict_to_zarr(index(), image(1), store)
    np.testing.assert_array_equal(xr.open_zarr(store).p, image(1).B - image(1).A)
    assert os.listdir(tmp_path) == ["p.zarr"]


@pytest.mark.parametrize("copy", [shutil.move, shutil.copytree])
def test_moved_store_is_continued(copy, tmp_path):
    calls, first, store = tmp_path / "calls", tmp_path / "first.zarr", tmp_path / "out.zarr"
    calls.mkdir()
    with dask.config.set(scheduler="sync"), pytest.raises(PredictionError, match="interrupted"):
        predict_to_zarr(model_of(calls, limit=6), scene(), first)
    copy(first, store)
    predict_to_zarr(model_of(calls), scene(), store)
    check(store)
    assert len(list(calls.iterdir())) == CALLS


@pytest.mark.parametrize("lost", ["c/0/1", "c", "."])
def test_complete_store_with_missing_files_is_predicted_again(lost, tmp_path):
    store = tmp_path / "p.zarr"
    predict_to_zarr(index(), image().chunk(x=16, y=16), store)
    gone = store / "p" / lost
    if lost == ".":
        shutil.rmtree(gone)
        with pytest.raises(DestinationExistsError, match="its array 'p' is not the one that was written"):
            predict_to_zarr(index(), image().chunk(x=16, y=16), store)
        return
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    predict_to_zarr(index(), image().chunk(x=16, y=16), store)
    np.testing.assert_array_equal(xr.open_zarr(store).p, image().B - image().A)
    before = tree(tmp_path)
    predict_to_zarr(index(), image().chunk(x=16, y=16), store)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "derive",
    [
        lambda ours: xr.where(ours > 1, ours * 3, ours, keep_attrs=True),
        lambda ours: ours.isel(x=slice(16)),
        lambda ours: ours,
    ],
    ids=["values", "crop", "copy"],
)
def test_store_derived_from_a_prediction_is_not_replaced(derive, tmp_path):
    ours = predict_to_zarr(index(), image(), tmp_path / "p.zarr")
    opened = xr.open_zarr(ours.path, consolidated=False)
    derived = derive(opened).assign_attrs(opened.attrs)
    derived.to_zarr(tmp_path / "derived.zarr", consolidated=False)
    before = tree(tmp_path)
    for options, message in (
        ({}, "does not contain a prediction"),
        ({"if_exists": "overwrite"}, "without '.xee_tf'"),
    ):
        with pytest.raises(DestinationExistsError, match=message):
            predict_to_zarr(index(), image(), tmp_path / "derived.zarr", **options)
    assert tree(tmp_path) == before


def test_files_next_to_a_store_are_kept(tmp_path):
    kept = tmp_path / "p.zarr.progress"
    kept.mkdir()
    for name in ("begun", "chunk-0-0", "notes.tmp"):
        (kept / name).write_text("mine")
    before = tree(tmp_path)
    for seed in (0, 0, 1):
        predict_to_zarr(index(), image(seed), tmp_path / "p.zarr", if_exists="overwrite")
    assert before.items() <= tree(tmp_path).items()
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "p.zarr").p, image(1).B - image(1).A)


def test_store_that_a_worker_cannot_access(tmp_path):
    from xee_tf.predict.to_zarr import _ChunkWriter
    from xee_tf.storage import Location, Staging, StoredBand

    store = Location.of(tmp_path / "absent.zarr")
    bands = (StoredBand(store, "p", 3, Staging.begin(store)),)
    writer = _ChunkWriter(bands, store.child("finished"), ((0, 1), (0, 1)))
    with pytest.raises(DestinationError, match=r"Cannot write .*absent\.zarr/p: .* needs access"):
        writer((0, 0), [np.ones((1, 1))])


# -- Attributes and coordinates ----------------------------------------------------------------------


class NotStorable:
    """An object that Zarr cannot store."""


def test_attributes_and_coordinates_that_zarr_cannot_store_are_omitted(tmp_path):
    attrs = {
        "transform": Affine.identity(),
        "when": datetime(2024, 5, 1),
        "nan": float("nan"),
        "object": NotStorable(),
        "nested": {"a": NotStorable()},
        7: "a key that is not a string",
        "title": "kept",
        "list": [1, 2.5, "x"],
        "array": np.arange(3),
        "number": np.float32(1.5),
        "mapping": {"a": [True, None]},
    }
    lazy = (("y", "x"), da.ones((32, 32), chunks=16))
    ds = image(**{}).assign_coords(
        lon=lazy,
        object=((), NotStorable()),
        sensor="S2",
        row=("y", np.arange(32)),
        area=(("y", "x"), np.ones((32, 32))),
    )
    ds.attrs.update(attrs)
    ds.coords["row"].attrs["owner"] = NotStorable()
    for _ in range(2):
        predict_to_zarr(index(), ds, tmp_path / "p.zarr")
    found = xr.open_zarr(tmp_path / "p.zarr", decode_coords="all")
    np.testing.assert_array_equal(found.p, ds.B - ds.A)
    assert found.rio.crs == "EPSG:32633"
    assert not found.attrs
    assert not {"lon", "object"} & set(found.coords)
    assert found.sensor.item() == "S2"
    np.testing.assert_array_equal(found.row, np.arange(32))
    assert "owner" not in found.row.attrs
    np.testing.assert_array_equal(found.area, np.ones((32, 32)))


@pytest.mark.parametrize(
    "steps",
    [
        np.array(["dry", "rainy season"]),
        np.array(["dry", "rainy"], object),
        pd.array(["dry", "rainy"], dtype="string"),
        np.array([b"dry", b"rainy"]),
        np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]"),
        np.array([1, 5], "timedelta64[D]").astype("timedelta64[ns]"),
        np.array([1.5, 2.5]),
        pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["one", "two"]),
        pd.IntervalIndex.from_breaks([0, 1, 2]),
    ],
    ids=range(9),
)
def test_coordinates_of_mapped_dimensions(steps, tmp_path):
    ds = xr.concat([image(), image(1)], "step").assign_coords(
        xr.Coordinates.from_pandas_multiindex(steps, "step")
        if isinstance(steps, pd.MultiIndex)
        else {"step": ("step", steps)}
    )
    for _ in range(2):
        predict_to_zarr(index(), ds, tmp_path / "p.zarr")
    found = xr.open_zarr(tmp_path / "p.zarr", decode_coords="all")
    np.testing.assert_array_equal(found.p, (ds.B - ds.A).transpose("step", "y", "x"))
    if isinstance(steps, pd.MultiIndex | pd.IntervalIndex):
        return
    if getattr(steps, "dtype", None) is not None and steps.dtype.kind == "S":
        steps = steps.astype(str)
    assert found.step.values.tolist() == np.asarray(steps).tolist()


def test_other_coordinates_are_a_different_prediction(tmp_path):
    ds = xr.concat([image(), image(1)], "step").assign_coords(step=["a", "b"])
    predict_to_zarr(index(), ds, tmp_path / "p.zarr")
    with pytest.raises(DestinationExistsError, match="the coordinate 'step' is not the same as before"):
        predict_to_zarr(index(), ds.assign_coords(step=["a", "c"]), tmp_path / "p.zarr")


def test_encodings_of_the_source_are_not_copied(tmp_path):
    ds = xr.concat([image(), image(1)], "time").assign_coords(time=TIMES)
    ds.time.encoding.update(units="hours since 2000-01-01", calendar="standard")
    ds.to_zarr(tmp_path / "v2.zarr", zarr_format=2, consolidated=True)
    source = xr.open_zarr(tmp_path / "v2.zarr", decode_coords="all")
    predict_to_zarr(index(bands=["B", "A"]), source, tmp_path / "p.zarr")
    found = xr.open_zarr(tmp_path / "p.zarr")
    np.testing.assert_array_equal(found.time, TIMES)
    np.testing.assert_array_equal(found.p, (source.B - source.A))


@pytest.mark.parametrize("names", [("easting", "northing"), ("column", "row")])
def test_custom_names_of_dimensions(names, tmp_path):
    x, y = names
    ds = image().rename(x=x, y=y).drop_attrs().rio.write_crs(32633).rio.set_spatial_dims(x, y)
    for _ in range(2):
        predict_to_zarr(index(), ds, tmp_path / "p.zarr")
    found = xr.open_zarr(tmp_path / "p.zarr", decode_coords="all")
    assert found.p.dims == (y, x)
    assert found.rio.crs == "EPSG:32633"
    np.testing.assert_array_equal(found.p, ds.B - ds.A)


@pytest.mark.parametrize("finished", [0, 3])
def test_unfinished_store_of_another_model_says_how_to_begin_again(tmp_path, finished):
    """The first run of a model with a bug leaves a store that the corrected model cannot continue.

    Without a finished chunk, nothing is lost, and it begins again.
    """
    ds = raster({"B4": random_band((48, 80))}).chunk(y=16, x=16)
    calls = []

    def broken(pixels):
        calls.append(len(pixels))
        if len(calls) > finished:
            raise ValueError("shapes do not match")
        return pixels[..., 0]

    def model(function):
        return Model.from_function(function, input_tile_size=16, output_bands=["p"])

    store = tmp_path / "p.zarr"
    with dask.config.set(scheduler="sync"), pytest.raises(PredictionError, match="shapes do not match"):
        predict_to_zarr(model(broken), ds, store)
    corrected = model(lambda pixels: pixels[..., 0])
    message = (
        f"is an unfinished prediction with {finished} finished chunks, which cannot be continued: the model "
        r".*\. Begin again with if_exists='overwrite', or choose another name\.$"
    )
    if finished:
        with pytest.raises(DestinationExistsError, match=message):
            predict_to_zarr(corrected, ds, store)
    predict_to_zarr(corrected, ds, store, if_exists="overwrite" if finished else "error")
    np.testing.assert_array_equal(xr.open_zarr(store, decode_coords="all").p, ds.B4)
