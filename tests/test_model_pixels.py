"""Models of single pixels: what they are sent, compared with numpy, Keras and scikit-learn."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
import rioxarray
import xarray as xr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

import xee_tf
from tests import onnx_models
from tests.rasters import random_band, raster
from tests.test_model_calling import FREE, fake_connector, tensors
from tests.test_model_image import build, cases
from tests.test_series import SENTINEL, forest, r_squared
from xee_tf import DestinationExistsError, Model, ModelError, OptionError, PredictionError, predict_to_zarr

SENT: list[npt.NDArray[Any]] = []


@pytest.fixture(autouse=True)
def nothing_sent() -> Iterator[None]:
    SENT.clear()
    with dask.config.set(scheduler="sync"):
        yield


def weighted(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a weighted sum for each pixel, and record what was sent."""
    SENT.append(np.array(pixels))
    weights = np.arange(1, 1 + np.prod(pixels.shape[1:])).reshape(pixels.shape[1:])
    return (np.asarray(pixels, "f8") * weights).reshape(len(pixels), -1).sum(axis=1)


def pixel_model(function: Any = weighted, **options: Any) -> Model:
    return Model.from_function(function, unit="pixel", **{"output_bands": {"p": "float64"}, **options})


def scene(height: int = 30, width: int = 40) -> xr.Dataset:
    """The top left of three bands with two masked areas: 4 x 6 pixels of a, and one of b."""
    ds = raster({name: random_band((30, 40), seed=i) for i, name in enumerate("abc")})
    ds["a"][3:7, 10:16] = np.nan
    ds["b"][20, 20] = np.nan
    return ds.isel(y=slice(height), x=slice(width))


def stack(ds: xr.Dataset, *dims: str) -> npt.NDArray[Any]:
    """Return all pixels, (y * x, *dims, band)."""
    array = ds.to_dataarray("_band").transpose("y", "x", *dims, "_band").values
    return array.reshape(-1, *array.shape[2:])


# -- What is sent ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=25)
@given(cases(), st.booleans(), st.sampled_from([None, 1, 7]), st.randoms(use_true_random=False))
def test_any_image_equals_numpy(case: Any, whole: bool, batch_size: int | None, random: Any) -> None:
    """Every pixel without masked values is sent once, and no other; whatever the chunks and dimensions."""
    shape, _, _, bands, seed = case
    ds, values, masks = build(shape, bands, seed)
    steps = max(len(each) for each in values.values())
    whole = whole and steps > 1
    stacked = np.stack([np.broadcast_to(v, (steps, *shape.shape)) for v in values.values()], -1)
    masked = np.logical_or.reduce([np.broadcast_to(m, (steps, *shape.shape)) for m in masks.values()])
    if whole:  # (y, x, time, band)
        stacked, masked = np.moveaxis(stacked, 0, 2), masked.any(axis=0)
    weights = np.arange(1, 1 + np.prod(stacked.shape[masked.ndim :])).reshape(stacked.shape[masked.ndim :])
    wanted = (stacked * weights.astype("f8")).sum(axis=tuple(range(masked.ndim, stacked.ndim)))
    if len(ds.dims) == 3:
        dims = list(ds.dims)
        random.shuffle(dims)
        ds = ds.transpose(*dims, missing_dims="ignore")
    SENT.clear()
    result = pixel_model(array_dims="time" if whole else ()).predict_image(ds, batch_size=batch_size)
    assert list(result) == [*ds, "p"]
    found = result.p.transpose(..., "y", "x").values
    if not whole and found.ndim == 2:
        wanted, masked, stacked = wanted[0], masked[0], stacked[0]
    np.testing.assert_array_equal(found, np.where(masked, np.nan, wanted))
    sent = np.concatenate(SENT) if SENT else np.zeros((0, *weights.shape))
    assert all(0 < len(each) <= (batch_size or 10**6) for each in SENT)
    valid = stacked[~masked]
    assert sent.shape == valid.shape
    assert sorted(map(np.ndarray.tobytes, sent.astype("f8"))) == sorted(
        map(np.ndarray.tobytes, valid.astype("f8"))
    )


def test_pixels_are_sent_in_batches_and_not_by_tile_or_chunk() -> None:
    ds = scene().chunk(y=4, x=8)
    expected = stack(ds) @ np.array([1.0, 2, 3])
    result = pixel_model().predict_image(ds, batch_size=400).p
    np.testing.assert_array_equal(result.values.ravel(), expected)
    assert [len(each) for each in SENT] == [400, 400, 30 * 40 - 25 - 800]
    assert {each.dtype for each in SENT} == {np.dtype("float32")}
    assert not any(np.isnan(each).any() for each in SENT)


@pytest.mark.parametrize(("steps", "batches"), [(1, [65536, 24464]), (64, [32768, 32768, 24464])])
def test_default_size_of_batches(steps: int, batches: list[int]) -> None:
    """At most 65,536 pixels, and 8 MiB of them."""
    ds = raster({"a": np.ones((300, 300), "float32")}).expand_dims(time=steps).chunk(y=300, x=300)
    pixel_model(array_dims="time").predict_image(ds, merge=False).p.compute()
    assert [len(each) for each in SENT] == batches


@pytest.mark.usefixtures("small_blocks")
def test_blocks_without_valid_pixels_call_nothing() -> None:
    ds = scene(20, 20).chunk(y=10, x=10)
    ds["c"] = ds.c.where(ds.x < ds.x[10])
    np.testing.assert_array_equal(
        pixel_model().predict_image(ds).p.values.ravel(), stack(ds) @ np.array([1.0, 2, 3])
    )
    assert [len(each) for each in SENT] == [100, 100]


@pytest.mark.parametrize("order", list(itertools.permutations(("y", "x", "time"))))
def test_order_of_dimensions(order: tuple[str, ...]) -> None:
    """Steps and bands come from the names of dimensions; a band without time is repeated."""
    ds = scene(6, 7)[["a"]].expand_dims(time=4) * xr.DataArray(np.arange(1.0, 5), dims="time")
    ds["s"] = scene(6, 7).b
    ds.attrs = scene(6, 7).attrs  # some versions of xarray drop them in arithmetic
    ds = ds.transpose(*order, missing_dims="ignore").chunk(time=3, x=4)
    found = pixel_model(array_dims="time").predict_image(ds, merge=False).p.compute()
    assert found.dims == ("y", "x")
    assert {each.shape[1:] for each in SENT} == {(4, 2)}
    repeated = ds.assign(s=ds.s.expand_dims(time=4))
    expected = (stack(repeated, "time") * np.arange(1, 9).reshape(4, 2)).sum((1, 2))
    np.testing.assert_array_equal(found.values.ravel(), expected)


def test_batches_of_models_with_a_fixed_size() -> None:
    """The last batch is padded with a valid pixel."""
    connector = fake_connector(
        tensors(x=(50, 3)), tensors(p=(50,)), lambda batch: {"p": batch["x"].sum(axis=1)}
    )
    ds = scene()
    found = Model.from_connector(connector, unit="pixel").predict_image(ds).p
    np.testing.assert_array_equal(found.values.ravel(), stack(ds).sum(1))
    assert {each["x"].shape for each in connector.sent} == {(50, 3)}
    assert len(connector.sent) == 24


def test_inputs_by_name_properties_types_and_scales() -> None:
    def named(inputs: Any) -> Any:
        assert inputs["a"].shape == inputs["c"].shape == (len(inputs["a"]), 1)
        assert inputs["gain"].shape == (len(inputs["a"]),)
        return {"total": inputs["a"][:, 0] * inputs["gain"] + inputs["c"][:, 0]}

    ds = scene().assign_attrs(gain=3, **scene().attrs)
    model = Model.from_function(
        named,
        named=True,
        unit="pixel",
        bands=["a", "c"],
        input_properties=["gain"],
        input_type_override={"c": "uint8"},
        normalize={"a": (2, 4), "c": (0, 1), "gain": (1, 2)},
        output_bands={"total": "float64"},
    )
    found = model.predict_image(ds, merge=False).total
    np.testing.assert_allclose(found, (ds.a - 2) / 4 + ds.c)


def test_another_projection() -> None:
    """The same pixels as tiles of any size."""
    ds = scene().chunk(x=16, y=16)
    options = {"proj": ("EPSG:32634", 40), "fix_input_proj": True, "output_bands": ["p"]}
    pixels = Model.from_function(lambda p: p.sum(-1), unit="pixel", **options)
    tiles = Model.from_function(lambda p: p.sum(-1), input_tile_size=8, **options)
    for grid in ("image", "model"):
        found, expected = (each.predict_image(ds, merge=False, output_grid=grid) for each in (pixels, tiles))
        xr.testing.assert_identical(found.compute(), expected.compute())


# -- What is returned --------------------------------------------------------------------------------


def test_outputs() -> None:
    """Channels as bands, vectors and mappings, in the declared types."""
    ds = scene()
    values = stack(ds)
    pair = pixel_model(lambda p: p[:, :2], output_bands=["first", "second"]).predict_image(ds, merge=False)
    masked = np.isnan(values).any(1)
    for name, channel in (("first", 0), ("second", 1)):
        assert pair[name].dtype == np.float32
        np.testing.assert_array_equal(pair[name].values.ravel(), np.where(masked, np.nan, values[:, channel]))
    vector = pixel_model(
        lambda p: {"v": p[:, :, None] * np.ones(2), "n": p[:, :1] > 50},
        output_bands={"v": {"type": "float64", "shape": [3, 2]}, "n": "bool"},
    ).predict_image(ds, merge=False)
    assert vector.v.dims == ("v_0", "v_1", "y", "x")
    np.testing.assert_array_equal(
        vector.v.values.reshape(3, 2, -1),
        np.where(masked, np.nan, values.T[:, None] * np.ones((2, 1))),
    )
    fill = vector.n.attrs["_FillValue"]
    np.testing.assert_array_equal(vector.n.values.ravel(), np.where(masked, fill, values[:, 0] > 50))


def test_integers_get_a_value_for_masked_pixels() -> None:
    ds = scene()
    masked = np.isnan(stack(ds)).any(1)
    for declared, fill in (("int16", -32768), ({"precision": "int", "min": 0, "max": 9}, 255)):
        found = pixel_model(
            lambda p: p[:, 0].astype("int64") // 10, output_bands={"p": {"type": declared}}
        ).predict_image(ds, merge=False)
        assert found.p.attrs["_FillValue"] == fill
        expected = np.where(masked, fill, np.clip(stack(ds)[:, 0] // 10, 0, 9 if fill == 255 else None))
        np.testing.assert_array_equal(found.p.values.ravel(), expected)
    # No band can be masked: there is no such value
    whole = random_band((5, 6), "uint8")
    found = pixel_model(output_bands={"p": "uint8"}).predict_image(raster({"a": whole}), merge=False)
    assert "_FillValue" not in found.p.attrs
    np.testing.assert_array_equal(found.p, whole)


WHERE = r" -- the first of 1175 pixels is at row 0 and column 0, coordinates \(x, y\) 700015, 4999985"


@pytest.mark.parametrize(
    ("function", "output", "message"),
    [
        (lambda p: p[:-1, 0], "float32", r"shape \(1174,\); expected \(1175,\) for 'p'.*" + WHERE),
        (lambda p: p[:, :2], "float32", r"shape \(1175, 2\); expected \(1175,\) for 'p'.*" + WHERE),
        (lambda p: p.sum(), "float32", r"expected an array with one element per tile, pixel or row"),
        (lambda p: p[:, 0] / 0 if 1 // (len(p) - 1175) else p, "float32", "ZeroDivisionError.*" + WHERE),
        (
            lambda p: np.where(p[:, 1] == p[55, 1], np.nan, 1),
            "uint8",
            r"returned NaN for 'p', which is declared as uint8.*the pixel is at row 1 and column 15",
        ),
        (
            lambda p: np.where(np.arange(len(p)) == 135, 255, 1),
            "uint8",
            r"is 255 in 1 pixel that is not masked.*the pixel is at row 3 and column 21",
        ),
        (
            lambda p: np.where(p[:, 0] > 9, "oak", "lake"),
            "float32",
            r"Bands cannot be strings.*predict_proba.*output_bands={'class': {'argmax': \[\.\.\.\]}}",
        ),
    ],
)
def test_errors_name_what_was_expected_and_where(function: Any, output: str, message: str) -> None:
    ds = scene()
    ds["b"][:2] = np.arange(80.0).reshape(2, 40)
    with pytest.raises(PredictionError, match=message):
        pixel_model(function, output_bands={"p": output}).predict_image(ds).p.compute()


@pytest.mark.parametrize("unit", ["tile", "pixel"])
@pytest.mark.parametrize(("value", "problem"), [(255, "is 255"), (np.nan, "NaN for 'p'")])
def test_errors_count_pixels_and_not_their_values(unit: Any, value: float, problem: str) -> None:
    band = random_band((6, 8))
    band[1:4, 2:7] = np.nan
    ds = raster({"a": band})

    def function(pixels: Any) -> Any:
        return np.full((*pixels.shape[:-1], 3), value)

    outputs: Any = {"p": {"type": "uint8", "dimensions": 1, "shape": [3]}}
    size = {} if unit == "pixel" else {"input_tile_size": 4}
    model = Model.from_function(function, unit=unit, output_bands=outputs, **size)
    with pytest.raises(PredictionError, match=rf"{problem}.* in 33 pixels that are not masked"):
        model.predict_image(ds, merge=False).p.compute()


def test_errors_suggest_array_dims_for_mapped_dimensions() -> None:
    ds = scene()[["a"]].expand_dims(time=3)
    with pytest.raises(PredictionError, match=r"step of 'time' is.*requires array_dims=\('time',\)"):
        pixel_model(lambda p: p[:, 2, 0]).predict_image(ds, merge=False).p.compute()


# -- Options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"input_tile_size": 4},
        {"inputOverlapSize": [1, 0]},
        {"output_tile_size": 1},
        {"input_tile_size": 4, "input_overlap_size": 2, "output_tile_size": 4},
    ],
)
def test_tiles_are_refused(options: Any) -> None:
    with pytest.raises(OptionError, match=r"unit='pixel' sends single pixels.* no tiles; got") as caught:
        pixel_model(**options)
    assert str(caught.value).count("_size=") == len(options)
    tiles = Model.from_function(weighted, **{"input_tile_size": 4, **options})
    with pytest.raises(OptionError, match="no tiles"):
        replace(tiles, unit="pixel")
    same = replace(pixel_model(), unit="tile", input_tile_size=4)
    assert (same.unit, same.input_tile_size.xy) == ("tile", (4, 4))


def test_other_options_of_tiles_are_refused() -> None:
    for options in ({"blend": "hann"}, {"augment": "d4"}, {"skip_masked": False}):
        (name,) = options
        with pytest.raises(OptionError, match=f"{name}=.*cannot be used with unit='pixel'"):
            pixel_model().predict_image(scene(), **options)
    with pytest.raises(OptionError, match=r"unit must be 'tile' or 'pixel'; got 'patch'"):
        Model.from_function(weighted, unit="patch")
    assert Model.from_function(weighted, unit=None).unit == "tile"
    assert "unit        pixel" in repr(pixel_model())


@pytest.mark.parametrize(
    ("shape", "options", "sent"),
    [
        ((None, 2), {}, (2,)),
        ((None, 3, 2), {}, (3, 2)),
        ((None, None, 2), {}, (3, 2)),
        ((None, None, None), {"array_dims": "time"}, (3, 2)),
        ((None, 2), {"bands": ["a", "b"]}, (2,)),
        ((None, 3), {"bands": ["a"]}, (3,)),
        ((None, 3, 1), {"bands": ["a"]}, (3, 1)),
        ((None, 1), {"bands": ["a"]}, (1,)),
        ((None,), {"bands": ["a"]}, ()),
        ((None, 6), {"input_shapes": {"a": [3], "b": [3]}}, (6,)),
    ],
)
def test_shapes_of_a_signature_decide_the_dimensions(shape: Any, options: Any, sent: Any) -> None:
    connector = fake_connector(
        tensors(x=shape), tensors(p=(None, 1)), lambda batch: {"p": np.zeros(len(batch["x"]))}
    )
    ds = scene()[["a", "b"]].expand_dims(time=3)
    model = Model.from_connector(connector, unit="pixel", **options)
    model.predict_image(ds, merge=False).compute()
    assert {each["x"].shape[1:] for each in connector.sent} == {sent}


@pytest.mark.parametrize(
    ("shape", "dims", "message"),
    [
        ((None, 5), {}, r"takes 5 channels, but 'a', 'b' have 2"),
        ((None, 5), {"time": 3}, r"\[5\] in each pixel.*nor these bands preceded by.*'time' \(3 steps\)"),
        ((*FREE, 2), {}, r"in each pixel.*takes tiles, \(n, height, width, ...\), omit unit='pixel'"),
        ((*FREE, 2), {"time": 3}, r"omit unit='pixel'"),
        ((None, None, None), {"time": 2, "run": 3}, "could take in several ways"),
    ],
)
def test_images_that_do_not_fit(shape: Any, dims: Any, message: str) -> None:
    ds = scene()[["a", "b"]].expand_dims(dims)
    connector = fake_connector(tensors(x=shape), tensors(p=(None, 1)))
    with pytest.raises(OptionError, match=message):
        Model.from_connector(connector, unit="pixel").predict_image(ds)


def test_models_of_pixels_that_are_used_with_tiles() -> None:
    connector = fake_connector(tensors(x=(None, 3)), tensors(p=(None, 1)))
    with pytest.raises(ModelError, match=r"without axes for the height and width.*unit='pixel'"):
        Model.from_connector(connector, input_tile_size=4).predict_image(scene())


def test_pixels_that_are_too_large_for_a_request() -> None:
    connector = fake_connector(tensors(x=(None, 3)), tensors(p=(None, 1)))
    connector.size_problem = lambda items, count=1: f"{count} of {items['x'][1]} is too large"  # type: ignore[method-assign]
    with pytest.raises(OptionError, match=r"Not even a single pixel can be sent.*1 of \(3,\) is too large"):
        Model.from_connector(connector, unit="pixel").predict_image(scene())


# -- Where it is written, and where it runs ----------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
def test_stores_are_resumed_for_the_same_unit(tmp_path: Path) -> None:
    ds, store, calls = scene().chunk(x=20, y=10), tmp_path / "p.zarr", tmp_path / "calls"
    calls.mkdir()
    calls.with_suffix(".limit").write_text("3")
    with pytest.raises(PredictionError, match="interrupted"):
        predict_to_zarr(pixel_model(_Limited(calls)), ds, store)
    calls.with_suffix(".limit").write_text("1000")
    predict_to_zarr(pixel_model(_Limited(calls)), ds, store)
    assert sum(int(path.suffix[1:]) for path in calls.iterdir()) == 30 * 40 - 25
    found = xr.open_zarr(store, decode_coords="all")
    np.testing.assert_array_equal(found.p.values.ravel(), stack(ds).sum(1))
    tiles = Model.from_function(_Limited(calls), input_tile_size=1, output_bands={"p": "float64"})
    with pytest.raises(DestinationExistsError, match="option unit"):
        predict_to_zarr(tiles, ds, store)


def test_geotiffs(tmp_path: Path) -> None:
    ds = scene().chunk(x=20, y=10)
    model = pixel_model(lambda p: p[:, 0] > 60, output_bands={"p": "uint8"})
    with rasterio.open(xee_tf.predict_to_cog(model, ds, tmp_path / "p.tif").path) as opened:
        found, mask = opened.read(1), opened.dataset_mask() == 0
    np.testing.assert_array_equal(mask.ravel(), np.isnan(stack(ds)).any(1))
    np.testing.assert_array_equal(found[~mask], (ds.a.values > 60)[~mask])


class _Limited:
    """The sum of bands; writes the number of pixels of each call to a folder, and fails after some calls."""

    def __init__(self, calls: Path) -> None:
        self.calls = calls

    def __call__(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        number = len(list(self.calls.iterdir()))
        if number == int(self.calls.with_suffix(".limit").read_text()):
            raise RuntimeError("interrupted")
        (self.calls / f"{number}.{len(pixels)}").touch()
        return np.asarray(pixels.sum(axis=-1))


class _Large:
    """A function with a megabyte of data, such as a large forest."""

    def __init__(self) -> None:
        self.weights = np.random.default_rng(0).random(100_000)

    def __call__(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return pixels[:, 0] + self.weights[0]


@pytest.mark.usefixtures("small_blocks")
def test_a_graph_holds_the_model_once_and_grows_with_chunks_only() -> None:
    large = _Large()
    ds = scene(40, 40).chunk(x=10, y=10)
    predicted = pixel_model(large).predict_image(ds, merge=False)
    graph = dict(predicted.__dask_graph__())
    larger = scene(80, 40).chunk(x=10, y=10)
    more = len(pixel_model(large).predict_image(larger, merge=False).__dask_graph__()) - len(graph)
    assert more < 16 * 10  # for 16 more chunks of each band
    sizes = [len(pickle.dumps(task)) for task in graph.values()]
    assert sum(size > 100_000 for size in sizes) == 1
    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        found = client.compute(predicted.p).result()
    masked = np.isnan(stack(ds)).any(axis=1)
    expected = np.where(masked, np.nan, stack(ds)[:, 0] + large.weights[0])
    np.testing.assert_allclose(found.values.ravel(), expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keras = pytest.importorskip("keras")
    from xee_tf_cli import main

    ds = scene().rio.write_crs("EPSG:32633")
    ds["a"] = ds.a.fillna(0)
    ds["b"] = ds.b.fillna(0)
    ds.to_zarr(tmp_path / "scene.zarr", consolidated=False)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    network.save(tmp_path / "dense.keras")
    arguments = [str(tmp_path / name) for name in ("dense.keras", "scene.zarr", "p.zarr")]
    assert main(["predict", *arguments, "--unit", "pixel", "--bands", "a,b,c", "--output-bands", "p,q"]) == 0
    found = xr.open_zarr(tmp_path / "p.zarr")
    expected = network(stack(ds)).numpy()
    np.testing.assert_allclose(found.q.values.ravel(), expected[:, 1], rtol=1e-4, atol=1e-4)
    assert main(["predict", *arguments, "--unit", "pixel", "--input-tile-size", "4"]) != 0
    assert "have no tiles" in capsys.readouterr().err


# -- Real models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "gru", "conv1d"])
def test_keras_models(kind: str) -> None:
    """Networks of single pixels, as they are, for an image in any order."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    ds = scene() / 120
    inner = {
        "dense": [keras.Input((3,)), layers.Dense(5, "relu")],
        "gru": [keras.Input((None, 3)), layers.GRU(4)],
        "conv1d": [keras.Input((6, 3)), layers.Conv1D(4, 3, activation="relu"), layers.Flatten()],
    }[kind]
    network = keras.Sequential([*inner, layers.Dense(2, "softmax")])
    if kind != "dense":
        ds = ds * xr.DataArray(np.linspace(0.5, 1, 6), dims="time")
        ds = ds.transpose("x", "time", "y").chunk(time=4, x=15)
    values = stack(ds, *(() if kind == "dense" else ("time",))).astype("float32")
    masked = np.isnan(values).reshape(len(values), -1).any(1)
    expected = np.full((len(values), 2), np.nan)
    expected[~masked] = network(values[~masked])
    outputs = {"output_bands": ["yes", "no"], "output_properties": ["yes", "no"]}
    model = Model.from_keras(network, unit="pixel", **outputs)
    found = model.predict_image(ds.astype("float32"), merge=False)
    for channel, name in enumerate(found):
        assert found[name].dims == ("y", "x")
        np.testing.assert_allclose(found[name].values.ravel(), expected[:, channel], atol=1e-5)
    if kind == "dense":  # the rows of a table are predicted as the pixels of an image
        rows = model.predict_properties(pd.DataFrame(values[~masked], columns=list("abc")))
        np.testing.assert_array_equal(rows["no"], found["no"].values.ravel()[~masked])


def test_onnx_models() -> None:
    """Rows, as from scikit-learn, and series with the bands first, as from PyTorch."""
    pytest.importorskip("onnxruntime")
    ds = scene()
    weights = np.arange(6.0, dtype="float32").reshape(3, 2)
    rows = onnx_models.model(
        [onnx_models.node("MatMul", ["x", "w"], ["p"])],
        {"x": ("float32", ["n", 3])},
        {"p": ("float32", ["n", 2])},
        {"w": weights},
    )
    found = Model.from_onnx(rows, unit="pixel", output_bands=["yes", "no"]).predict_image(ds, merge=False)
    np.testing.assert_array_equal(stack(found), stack(ds) @ weights)
    cube = ds * xr.DataArray(np.arange(1, 5, dtype="float32"), dims="time")
    series = onnx_models.model(
        [onnx_models.node("ReduceSum", ["x", "axis"], ["p"], keepdims=0)],
        {"x": ("float32", ["n", 3, "t"])},
        {"p": ("float32", ["n", 3])},
        {"axis": np.array([2])},
    )
    model = Model.from_onnx(series, unit="pixel", channels="NCT", output_bands=["p", "q", "r"])
    found = model.predict_image(cube.transpose("y", "time", "x").chunk(time=3), merge=False)
    np.testing.assert_array_equal(
        stack(found), np.where(np.isnan(stack(ds)).any(1)[:, None], np.nan, 10 * stack(ds))
    )


def test_a_served_model(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("starlette")
    pytest.importorskip("requests")
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    network.export(tmp_path / "dense", verbose=False)
    ds = scene(12, 12)
    expected = network(np.nan_to_num(stack(ds))).numpy()[:, 0]
    expected[np.isnan(stack(ds)).any(1)] = np.nan
    with xee_tf.serve(tmp_path / "dense", port=0, grpc_port=0) as server:
        for url, transport in ((server.url, "rest"), (server.grpc, "grpc")):
            model = Model.from_tf_serving(url, "dense", transport=transport, unit="pixel", output_bands=["p"])
            found = model.predict_image(ds, merge=False).p
            np.testing.assert_allclose(found.values.ravel(), expected, rtol=1e-5)


def test_a_forest_on_the_landsat_scene(landsat: xr.Dataset, landsat_dir: Path, tmp_path: Path) -> None:
    """Classes, and probabilities in a store that is not predicted again, as scikit-learn predicts them."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    scene = landsat.astype("float32")
    pixels = stack(scene)
    masked = np.isnan(pixels).any(1)
    labels = rioxarray.open_rasterio(landsat_dir / "landsat96_labelled_pixels.tif").values.ravel()
    labelled = (labels > 0) & ~masked
    train = labelled & (np.arange(len(labels)) % 2 == 0)
    trees = ensemble.RandomForestClassifier(12, max_depth=12, random_state=0)
    with pytest.raises(ModelError, match=r"got RandomForestClassifier.*\(model.predict_proba, unit"):
        Model.from_function(trees)
    trees.fit(pixels[train], labels[train].astype(int))

    options = {"unit": "pixel", "bands": list(scene)}
    classes = Model.from_function(trees.predict, **options, output_bands={"class": "uint8"})
    found = classes.predict_image(scene).compute(scheduler="threads")
    assert list(found) == [*scene, "class"]
    assert found.rio.transform() == scene.rio.transform()
    expected = np.full(len(pixels), 255)
    expected[~masked] = trees.predict(pixels[~masked])
    np.testing.assert_array_equal(found["class"].values.ravel(), expected)
    tested = labelled & ~train
    accuracy = (found["class"].values.ravel()[tested] == labels[tested]).mean()
    assert accuracy == trees.score(pixels[tested], labels[tested])
    assert accuracy > 0.7

    names = {f"p{label}": "float64" for label in trees.classes_}
    part = scene.isel(x=slice(200), y=slice(200))
    for _ in range(2):  # the second call finds a complete store of the same model
        model = Model.from_function(trees.predict_proba, **options, output_bands=names)
        store = predict_to_zarr(model, part, tmp_path / "p.zarr")
    written = xr.open_zarr(store, decode_coords="all")
    probabilities = np.full((200 * 200, len(names)), np.nan)
    inside = ~np.isnan(stack(part)).any(1)
    probabilities[inside] = trees.predict_proba(stack(part)[inside])
    np.testing.assert_array_equal(stack(written), probabilities)


def test_a_regression_on_the_sentinel_series(data_dir: Path) -> None:
    """Tree cover from five years of Sentinel-2, trained on every other square."""
    pytest.importorskip("h5netcdf")
    ensemble = pytest.importorskip("sklearn.ensemble")
    ds = forest(data_dir).load()
    cube = ds[SENTINEL].fillna(0).astype("float32").chunk(time=35, y=20, x=30)

    def medians(series: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(np.nanmedian(np.where(series > 0, series, np.nan), axis=1))

    inputs, train = medians(stack(cube, "time")), ds.train.values.ravel() == 1
    trees = ensemble.GradientBoostingRegressor(n_estimators=40, random_state=0)  # of one thread
    trees.fit(inputs[train], ds.density.values.ravel()[train])
    model = Model.from_function(
        lambda series: trees.predict(medians(series)),
        unit="pixel",
        array_dims="time",
        output_bands={"cover": "float64"},
    )
    found = model.predict_image(cube, merge=False).cover.values.ravel()
    np.testing.assert_array_equal(found, trees.predict(inputs))
    assert r_squared(found[~train], ds.density.values.ravel()[~train]) > 0.7
