"""Dimensions of an image and a model, which are matched by name and size, whatever their order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.rasters import random_band, raster
from tests.strategies import examples
from tests.test_model_calling import FREE, fake_connector, tensors
from xee_tf import Model, ModelError, OptionError, PredictionError, predict_to_zarr
from xee_tf.georef.bands import image_dataset

STEPS = {"time": 3, "run": 2}
SHAPES: list[tuple[int, ...]] = []


def weighted(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a weighted sum for each pixel, with a different weight for each step of each band."""
    weights = np.arange(1, 1 + np.prod(values.shape[3:])).reshape(values.shape[3:])
    return (np.asarray(values, "f8") * weights).sum(axis=tuple(range(3, values.ndim)))


def recorded(tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `weighted` values and record the shape of the input."""
    SHAPES.append(tiles.shape[1:])
    return weighted(tiles)


def scene(bands: dict[str, tuple[str, ...]], seed: int = 0, sizes: dict[str, int] = STEPS) -> xr.Dataset:
    """Return bands with other dimensions before y and x."""
    ds = raster({"template": np.zeros((5, 6))}).drop_vars("template")
    for number, (name, dims) in enumerate(bands.items()):
        values = random_band((*(sizes[dim] for dim in dims), 5, 6), seed=seed + number)
        ds[name] = ((*dims, "y", "x"), values)
    return ds


def predict(ds: Any, connector: Any = None, /, **options: Any) -> xr.DataArray:
    options = {"input_tile_size": 4, "output_bands": {"p": "float64"}, **options}
    if connector is None:
        model = Model.from_function(recorded, **options)
    else:
        model = Model(connector=connector, **options)
    SHAPES.clear()
    return model.predict_image(ds, merge=False)["p"].compute(scheduler="sync")


def expected(ds: xr.Dataset, array_dims: tuple[str, ...]) -> xr.DataArray:
    """Return the result for the whole image, computed with xarray."""
    bands = xr.broadcast(*ds.data_vars.values())
    stacked = xr.concat(bands, "band", coords="minimal", compat="override").transpose(
        ..., "y", "x", *array_dims, "band"
    )
    inner = (*array_dims, "band")
    weights = np.arange(1, 1 + np.prod([stacked.sizes[dim] for dim in inner]))
    weighting = xr.DataArray(weights.reshape([stacked.sizes[dim] for dim in inner]), dims=inner)
    return (stacked.astype("f8") * weighting).sum(inner)


@st.composite
def images(draw: st.DrawFn) -> tuple[xr.Dataset, tuple[str, ...]]:
    """Draw an image with dimensions in any order and any chunks, and dimensions that go to the model."""
    bands = draw(
        st.dictionaries(
            st.sampled_from(["B4", "B3", "B2"]),
            st.sampled_from([(), ("time",), ("run",), ("time", "run")]),
            min_size=1,
        )
    )
    ds = scene(bands, draw(st.integers(0, 9)))
    for name in bands:
        order = draw(st.permutations(list(ds[name].dims)))
        ds[name] = ds[name].transpose(*order)
        if draw(st.booleans()):
            ds[name] = ds[name].chunk({dim: draw(st.integers(1, ds.sizes[dim])) for dim in order})
    there = list(dict.fromkeys(dim for dims in bands.values() for dim in dims))
    count = draw(st.integers(0, len(there)))
    return ds, tuple(draw(st.permutations(there))[:count])


@examples(15)
@given(images())
def test_the_order_of_dimensions_does_not_matter(case: tuple[xr.Dataset, tuple[str, ...]]) -> None:
    ds, array_dims = case
    found = predict(ds, array_dims=array_dims)
    wanted = expected(ds, array_dims)
    assert set(found.dims) == set(wanted.dims)
    np.testing.assert_array_equal(found.transpose(*wanted.dims), wanted)
    lengths = tuple(STEPS[dim] for dim in array_dims)
    assert set(SHAPES) == {(4, 4, *lengths, len(ds))}
    # The input shape of a model implies the same dimensions without the option.
    model = fake_connector(
        tensors(x=(*FREE, *lengths, len(ds))),
        tensors(p=("float64", (*FREE, 1))),
        lambda batch: {"p": weighted(batch["x"])[..., None]},
    )
    if lengths or len(ds) > 1:  # otherwise the channel could also be time
        np.testing.assert_array_equal(predict(ds, model).transpose(*wanted.dims), wanted)


TIMED = {"a": ("time",), "b": ("time",), "s": ()}


@pytest.mark.parametrize(
    ("bands", "options", "shape", "array_dims"),
    [
        # Functions have no signature.
        ("abs", {}, (4, 4, 3), ()),
        ("abs", {"array_dims": "time"}, (4, 4, 3, 3), ("time",)),
        ("abs", {"array_dims": ()}, (4, 4, 3), ()),
        ("a", {"array_dims": ["time"]}, (4, 4, 3, 1), ("time",)),
        ("a", {"input_shapes": {"a": [3]}}, (4, 4, 3), ("time",)),
        ("a", {"inputShapes": {"a": [3]}}, (4, 4, 3), ("time",)),
        ("abs", {"input_shapes": {"a": [3], "b": [3]}}, (4, 4, 3, 3), ("time",)),
        ("abs", {"bands": ["s"]}, (4, 4, 1), ()),  # only bands that the model does not take have time
        ("s", {"input_shapes": {"s": [1]}}, (4, 4, 1), ()),
    ],
)
@pytest.mark.parametrize("behind", [False, True])
def test_functions(bands: str, options: Any, shape: Any, array_dims: Any, behind: bool) -> None:
    ds = scene({name: TIMED[name] for name in bands})
    found = predict(ds.transpose("y", "x", ...) if behind else ds, **options)
    assert set(SHAPES) == {shape}
    wanted = expected(ds[options.get("bands", list(bands))], array_dims)
    assert found.dims == wanted.dims
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("bands", "shape", "sent", "dims"),
    [
        ("ab", (*FREE, 2), (2,), ("time", "y", "x")),
        ("ab", (*FREE, None), (2,), ("time", "y", "x")),
        ("ab", (*FREE, 3, 2), (3, 2), ("y", "x")),
        ("ab", (*FREE, None, None), (3, 2), ("y", "x")),
        ("abs", (*FREE, 3, 3), (3, 3), ("y", "x")),
        ("a", (*FREE, 3), (3,), ("y", "x")),
        ("a", (*FREE, 3, 1), (3, 1), ("y", "x")),
        ("a", (*FREE, 1), (1,), ("time", "y", "x")),
        ("a", FREE, (), ("time", "y", "x")),
        ("s", (*FREE, None), (1,), ("y", "x")),
    ],
)
def test_models_with_known_shapes(bands: str, shape: Any, sent: Any, dims: Any) -> None:
    model = fake_connector(
        tensors(x=shape), tensors(p=(*FREE, 1)), lambda batch: {"p": np.zeros((*batch["x"].shape[:3], 1))}
    )
    for order in (("time", "y", "x"), ("y", "time", "x"), ("x", "y", "time")):
        ds = scene({name: TIMED[name] for name in bands}).transpose(*order, missing_dims="ignore")
        assert predict(ds, model).dims == dims
        assert {batch["x"].shape[1:] for batch in model.sent} == {(4, 4, *sent)}
        model.sent.clear()


def test_a_declared_shape_of_one_step() -> None:
    """A single step of a band with a declared shape goes to the model."""
    assert predict(scene({"a": ("time",)}, sizes={"time": 1}), input_shapes={"a": [1]}).dims == ("y", "x")
    assert predict(scene({"a": ("time",)}), input_shapes={"a": [1]}).dims == ("time", "y", "x")


def test_separate_inputs() -> None:
    """A time series and a scalar band by name, for functions and for models with known shapes."""
    ds = scene({"series": ("time",), "slope": ()}).transpose("y", "time", "x")
    wanted = weighted(ds.series.transpose("y", "x", "time").values[None])[0] + ds.slope

    def add(bands: Any) -> Any:
        assert bands["slope"].shape[3:] == (1,)
        count = len(bands["slope"])
        return {"p": weighted(bands["series"].reshape(count, 4, 4, 3)) + bands["slope"][..., 0]}

    for options in ({"array_dims": "time"}, {"input_shapes": {"series": [3]}}):
        model = Model.from_function(
            add, named=True, input_tile_size=4, output_bands={"p": "float64"}, **options
        )
        np.testing.assert_array_equal(model.predict_image(ds, merge=False).p, wanted)
    for inner in ((3,), (3, 1), (None, None)):
        model = fake_connector(tensors(series=(*FREE, *inner), slope=(*FREE, 1)), tensors(p=FREE), add)
        np.testing.assert_array_equal(predict(ds, model), wanted)


def test_dimensions_are_distinguished_by_their_sizes() -> None:
    ds = scene({"a": ("time", "run"), "b": ("run", "time")}).transpose("x", "run", "y", "time")
    model = fake_connector(
        tensors(x=(*FREE, 2, 2)), tensors(p=("float64", FREE)), lambda batch: {"p": weighted(batch["x"])}
    )
    np.testing.assert_array_equal(
        predict(ds, model).transpose("time", "y", "x"), expected(ds, ("run",)).transpose("time", "y", "x")
    )
    for shape in ([2, 3], [3, 2], [3], [2]):
        dims = tuple({3: "time", 2: "run"}[side] for side in shape)
        found = predict(ds[["a"]], input_shapes={"a": shape})
        assert set(SHAPES) == {(4, 4, *shape)}
        np.testing.assert_array_equal(*xr.broadcast(found, expected(ds[["a"]], dims)))


@pytest.mark.parametrize(
    ("bands", "sizes", "shape", "options", "message"),
    [
        # Ambiguous shapes; the message contains all choices.
        (
            "a",
            {},
            (*FREE, None),
            {},
            r"'time' \(3 steps\).*array_dims=\(\) predicts each.*; array_dims=\('time',\) sends",
        ),
        ("t", {"run": 3}, (*FREE, 3), {}, r"array_dims=\('time',\) sends.*; array_dims=\('run',\) sends"),
        ("tu", {}, (*FREE, None, 2), {}, r"array_dims=\('time',\) sends.*; array_dims=\('run',\) sends"),
        (
            "tu",
            {},
            (*FREE, None, None, 2),
            {},
            r"\('time', 'run'\) sends.*array_dims=\('run', 'time'\) sends",
        ),
        (
            "t",
            {"run": 3},
            None,
            {"input_shapes": {"t": [3]}},
            r"\('time',\) sends.*array_dims=\('run',\) sends",
        ),
        # No match.
        ("ab", {"time": 5}, (*FREE, 7, 2), {}, r"\[7, 2\] in each pixel.*'a', 'b'.*'time' \(5 steps\)"),
        ("ab", {}, (*FREE, 6), {}, r"\[6\] in each pixel.*neither \[2\].*array_dims"),
        ("a", {}, None, {"input_shapes": {"a": [4]}}, r"\[4\] for 'a'.*'time' \(3 steps\)"),
        ("s", {}, None, {"input_shapes": {"s": [4]}}, r"\[4\] for 's'"),
        ("a", {}, None, {"array_dims": "month"}, r"'month', but.*'a'.*'time' \(3 steps\)"),
        ("s", {}, None, {"array_dims": "time"}, "'time', but.*'s', have no dimensions"),
        ("as", {}, None, {"array_dims": "time", "bands": ["s"]}, "'time', but.*'s', have no dimensions"),
        ("a", {}, None, {"array_dims": ("y", "time")}, "'y', but.*other than y and x"),
        ("a", {"time": 0}, None, {"array_dims": "time"}, "'time', which has no steps"),
        ("ab", {"time": 0}, (*FREE, 7, 2), {}, r"'time' \(0 steps\)"),
        ("ab", {}, (*FREE, 4, 2), {"array_dims": "time"}, r"\(3, 2\) in each pixel"),
    ],
)
def test_dimensions_that_do_not_fit(bands: str, sizes: Any, shape: Any, options: Any, message: str) -> None:
    dims = {**TIMED, "t": ("time", "run"), "u": ("run", "time")}
    ds = scene({name: dims[name] for name in bands}, sizes=STEPS | sizes)
    model = None if shape is None else fake_connector(tensors(x=shape), tensors(p=FREE))
    with pytest.raises(OptionError, match=message):
        predict(ds, model, **options)


def test_models_with_steps_before_height_and_width() -> None:
    ds = scene({"a": ("time",), "b": ("time",)})
    for shape in ((None, 3, None, None, 2), (None, 3, 4, 4, 2), (None, 3, None, None, None)):
        with pytest.raises(OptionError, match=r"steps before height and width.*moveaxis.*array_dims"):
            predict(ds, fake_connector(tensors(x=shape), tensors(p=FREE)))


@pytest.mark.parametrize("shape", [(None, 3, 2), (None, None, 2), (None, 2), (None, 6)])
def test_models_of_single_pixels(shape: Any) -> None:
    model = fake_connector(tensors(x=shape), tensors(p=(None, 1)))
    for options in ({}, {"array_dims": "time"}):
        with pytest.raises(ModelError, match=r"without axes for the height and width.*unit='pixel'"):
            predict(scene({"a": ("time",), "b": ("time",)}), model, **options)
    with pytest.raises(ModelError, match="without axes for the height and width"):
        predict(scene({"a": ("time",)}), fake_connector(tensors(x=(None, 3, 1)), tensors(p=(None, 1))))


def test_errors_suggest_array_dims_for_mapped_dimensions() -> None:
    def series(tiles: Any) -> Any:
        return tiles[:, :, :, 2, 1]

    ds = scene({"a": ("time",), "b": ("time",)})
    with pytest.raises(xee_tf.PredictionError, match=r"step of 'time' is.*requires array_dims=\('time',\)"):
        Model.from_function(series, input_tile_size=4, output_bands=["p"]).predict_image(ds).p.compute()
    model = Model.from_function(series, input_tile_size=4, output_bands=["p"], array_dims="time")
    np.testing.assert_array_equal(model.predict_image(ds).p, ds.b[2])


def test_a_keras_model_of_series() -> None:
    """A Keras model of tiles, and a function that reshapes tiles to pixels."""
    keras = pytest.importorskip("keras")

    tile = keras.Input((None, None, 3, 2))
    keras_model = keras.Model(tile, keras.ops.sum(tile * np.arange(6.0).reshape(3, 2), (-2, -1)))
    ds = scene({"a": ("time",), "b": ("time",)})
    wanted = expected(ds, ("time",)) - xr.concat(ds.data_vars.values(), "band").sum(("time", "band"))
    for dims in permutations(("time", "y", "x")):
        model = Model.from_keras(keras_model, input_tile_size=4)
        (found,) = model.predict_image(ds.transpose(*dims), merge=False).data_vars.values()
        np.testing.assert_array_equal(found, wanted)

    def pixels(tiles: Any) -> Any:
        flat = tiles.reshape(-1, 3, 2)
        return (flat * np.arange(6.0).reshape(3, 2)).sum((1, 2)).reshape(tiles.shape[:3])

    np.testing.assert_array_equal(
        Model.from_function(pixels, array_dims="time", input_tile_size=4, output_bands={"p": "float64"})
        .predict_image(ds)
        .p,
        wanted,
    )


def test_a_dimension_of_one_step_is_mapped_over() -> None:
    """The input of the model is the same in either case."""
    ds = scene({"a": ("time",)}, sizes={"time": 1})
    for inner in ((None,), (1,)):
        model = fake_connector(
            tensors(x=(*FREE, *inner)), tensors(p=FREE), lambda batch: {"p": batch["x"][..., 0]}
        )
        assert predict(ds, model).dims == ("time", "y", "x")


def test_bands_with_some_of_the_dimensions_are_repeated() -> None:
    ds = scene({"a": ("time", "run"), "b": ("run",), "s": ()})
    found = predict(ds, array_dims=("run", "time"))
    np.testing.assert_array_equal(found, expected(ds, ("run", "time")))


def test_masks_of_array_dimensions() -> None:
    """A pixel is masked if it is masked in any step."""
    ds = scene({"a": ("time",), "s": ()}).transpose("y", "x", "time")
    ds["a"][2, 3, 1] = np.nan
    found = predict(ds, array_dims="time")
    assert np.argwhere(np.isnan(found.values)).tolist() == [[2, 3]]
    mapped = predict(ds)
    assert np.argwhere(np.isnan(mapped.values)).tolist() == [[1, 2, 3]]


def test_columns_of_time_series() -> None:
    """Columns of arrays are stacked like bands if the model takes steps and columns."""
    frame = pd.DataFrame(
        {"a": [np.arange(3.0), np.ones(3)], "b": [np.zeros(3), np.arange(3.0)], "s": [5.0, 6]}
    )
    model = Model(
        fake_connector(tensors(x=(None, 3, 3)), tensors(p=(None, 3, 3)), lambda batch: {"p": batch["x"]}),
        input_properties=["a", "b", "s"],
    )
    found = model.predict_properties(frame).p[1]
    np.testing.assert_array_equal(found, [[1, 0, 6], [1, 1, 6], [1, 2, 6]])
    flat = Model.from_function(
        lambda rows: rows, input_properties=["a", "s"], output_properties={"p": {"shape": [4]}}
    )
    np.testing.assert_array_equal(flat.predict_properties(frame).p[0], [0, 1, 2, 5])


def test_the_command_line(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")

    from xee_tf_cli import main

    tile = keras.Input((None, None, None))
    keras.Model(tile, keras.ops.max(tile, -1, keepdims=True), name="largest").save(tmp_path / "m.keras")
    ds = scene({"a": ("time",)})
    ds.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    options = ["predict", f"{tmp_path}/m.keras", f"{tmp_path}/a.nc"]
    sizes = ["--input-tile-size", "4", "4", "--output-bands", "p"]
    assert main([*options, f"{tmp_path}/no.zarr", *sizes]) != 0
    for number, (flags, wanted) in enumerate(
        [(["--array-dims", "time"], ds.a.max("time")), (["--no-array-dims"], ds.a)]
    ):
        assert main([*options, f"{tmp_path}/{number}.zarr", *sizes, *flags]) == 0
        found = xr.open_zarr(tmp_path / f"{number}.zarr", consolidated=False).p
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("array_dims", [(), ("time",)])
def test_other_projections(array_dims: tuple[str, ...]) -> None:
    ds = scene({"a": ("time",)})
    found = [
        predict(
            ds.transpose(*dims), array_dims=array_dims, proj=("EPSG:3035", 30), fix_input_proj=True
        ).transpose("time", "y", "x", missing_dims="ignore")
        for dims in permutations(("time", "y", "x"))
    ]
    assert np.isfinite(found[0]).any()
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("dims", [("time", "y", "x"), ("y", "x", "time")])
@pytest.mark.parametrize("array_dims", [(), ("time",)])
def test_stores_of_predictions(tmp_path: Path, dims: Any, array_dims: Any) -> None:
    ds = scene({"a": ("time",), "s": ()}).transpose(*dims, missing_dims="ignore").chunk(y=3)
    model = Model.from_function(
        lambda t: np.stack([weighted(t), -weighted(t)], -1),
        input_tile_size=2,
        array_dims=array_dims,
        output_bands={"p": {"type": "float64", "shape": [2]}},
    )
    store = predict_to_zarr(model, ds, tmp_path / "p.zarr")
    found = xr.open_zarr(store.path, consolidated=False, decode_coords="all").p
    wanted = expected(ds, array_dims)
    assert found.dims == (*wanted.dims[:-2], "p_0", "y", "x")
    np.testing.assert_array_equal(found.isel(p_0=1), -wanted)


# -- Empty images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [("time", "y", "x"), ("y", "x", "time")])
def test_no_steps_of_a_mapped_dimension(tmp_path: Path, dims: Any) -> None:
    ds = scene({"a": ("time",), "s": ()}).assign_coords(time=[3, 5, 8]).transpose(*dims)
    ds = ds.isel(time=slice(0, 0))
    model = Model.from_function(weighted, input_tile_size=4, output_bands={"p": "float64", "q": "int16"})
    result = model.predict_image(ds)
    assert result.p.dims == ("time", "y", "x")
    assert result.p.load().shape == (0, 5, 6)
    assert (result.q.dtype, result.rio.crs) == (np.int16, "EPSG:32633")
    store = predict_to_zarr(model, ds, tmp_path / "p.zarr")
    assert xr.open_zarr(store.path, consolidated=False).p.shape == (0, 5, 6)


def test_images_without_bands_or_pixels() -> None:
    with pytest.raises(OptionError, match="no bands: it is a Dataset without variables"):
        predict(scene({}))
    with pytest.raises(OptionError, match="no bands: no variable has the dimensions 'y' and 'x'"):
        predict(scene({}).rio.write_crs(32633).assign(count=3))
    for part in ({"y": slice(0, 0)}, {"x": slice(0, 0)}):
        with pytest.raises(xee_tf.XeeTFError, match=r"no pixels|empty|0 "):
            predict(scene({"a": ()}).isel(part))
    with pytest.raises(OptionError, match="'band' is empty"):
        predict(scene({"a": ("band",)}, sizes={"band": 0}))


# -- The dimension "band" -----------------------------------------------------------------------------------


@pytest.fixture
def geotiff(tmp_path: Path) -> Path:
    ds = scene({"red": (), "nir": ()}).rio.write_crs(32633)
    path = tmp_path / "scene.tif"
    ds.rio.to_raster(path)
    return path


OPENINGS: dict[str, Callable[[Path], Any]] = {
    "dataset": lambda path: xr.open_dataset(path, engine="rasterio"),
    "lazy": lambda path: xr.open_dataset(path, engine="rasterio", chunks={"band": 1}),
    "array": lambda path: rioxarray.open_rasterio(path),
    "behind": lambda path: xr.open_dataset(path, engine="rasterio").transpose("y", "x", "band"),
    "named": lambda path: rioxarray.open_rasterio(path).to_dataset(name="reflectance"),
    "variables": lambda path: rioxarray.open_rasterio(path, band_as_variable=True).rename(
        band_1="red", band_2="nir"
    ),
}


@pytest.mark.parametrize("kind", list(OPENINGS))
def test_geotiffs_opened_in_any_way_have_bands(geotiff: Path, tmp_path: Path, kind: str) -> None:
    image = OPENINGS[kind](geotiff)
    ds = scene({"red": (), "nir": ()})
    assert image_dataset(image).rio.crs == "EPSG:32633"
    assert list(image_dataset(image)) == ["red", "nir"]
    np.testing.assert_array_equal(predict(image), expected(ds, ()))
    np.testing.assert_array_equal(predict(image, bands=["nir"]), ds.nir)
    model = fake_connector(tensors(x=(*FREE, 2)), tensors(p=FREE), lambda batch: {"p": weighted(batch["x"])})
    np.testing.assert_array_equal(predict(image, model), expected(ds, ()))
    assert [band.name for band in image.tfexport.plan(patch_dimensions=4).bands] == ["red", "nir"]
    image.tfexport(tmp_path / "s", patch_dimensions=(3, 5))
    found = xee_tf.open_image(tmp_path / "s-mixer.json")
    np.testing.assert_array_equal(found.nir, ds.nir)
    table = xee_tf.sample_table(image, None, tmp_path / "t")
    assert {"red", "nir"} <= set(xee_tf.open_table(table.path))


def test_bands_of_several_variables() -> None:
    sizes = {"band": 2, "time": 3}
    ds = scene({"refl": ("band",), "error": ("band",), "cloud": (), "ndvi": ("time",)}, sizes=sizes)
    ds = ds.assign_coords(band=["red", "nir"], wavelength=("band", [0.6, 0.8]), time=[1, 2, 3])
    found = image_dataset(ds)
    assert list(found) == ["refl_red", "refl_nir", "error_red", "error_nir", "cloud", "ndvi"]
    assert set(found.coords) == {"y", "x", "time"}
    np.testing.assert_array_equal(found.error_nir, ds.error[1])
    single = image_dataset(ds[["refl", "ndvi"]])
    assert list(single) == ["red", "nir", "ndvi"]
    # Variables of one band each, as from several files, keep their names.
    ones = ds[["refl", "error"]].isel(band=[0]).drop_vars(["band", "wavelength"])
    assert list(image_dataset(ones)) == ["refl", "error"]
    with pytest.raises(OptionError, match="'red' is already used by another band"):
        image_dataset(ds[["refl"]].assign(red=ds.ndvi))
    with pytest.raises(OptionError, match="'x' is already used by a coordinate"):
        image_dataset(ds[["refl"]].assign_coords(band=["x", "nir"]))


def test_other_variables_keep_the_band_dimension() -> None:
    ds = scene({"refl": ("band",)}, sizes={"band": 2}).assign(gain=("band", [2.0, 3.0]))
    found = image_dataset(ds.assign_coords(band=["red", "nir"]))
    assert list(found) == ["red", "nir", "gain"]
    assert found.band.values.tolist() == ["red", "nir"]
    plain = scene({"a": ("time",)})
    assert image_dataset(plain) is plain


def test_band_is_an_array_dimension_only_by_name() -> None:
    ds = scene({"refl": ("time", "band")}, sizes={"time": 3, "band": 2})
    found = predict(ds)
    assert found.dims == ("time", "y", "x")
    assert set(SHAPES) == {(4, 4, 2)}
    together = predict(ds, array_dims=("band", "time"))
    assert set(SHAPES) == {(4, 4, 2, 3, 1)}
    assert together.dims == ("y", "x")
    assert predict(ds.refl.assign_attrs(ds.attrs), array_dims=("time",)).dims == ("y", "x")
    assert set(SHAPES) == {(4, 4, 3, 2)}
    # Names that may be those of other axes are ordinary dimensions.
    for name in ("channel", "wavelength", "variable", "bands"):
        assert predict(ds.rename(band=name)).dims == ("time", name, "y", "x")


def test_one_export_for_each_band(tmp_path: Path) -> None:
    ds = scene({"refl": ("band",)}, sizes={"band": 2}).assign_coords(band=["red", "nir"])
    with pytest.raises(OptionError, match="cannot be used with several images"):
        xee_tf.export_image([ds, ds.rename(refl="other")], tmp_path / "s", split_dim="band")
    ds.tfexport(tmp_path / "s", patch_dimensions=(3, 5), split_dim="band")
    found = xee_tf.open_image(tmp_path / "s_nir-mixer.json")
    np.testing.assert_array_equal(found.refl, ds.refl.sel(band="nir"))


def test_lazy_bands_stay_lazy() -> None:
    def fail(block: Any) -> Any:
        raise AssertionError("loaded")

    values = da.zeros((2, 8, 8), chunks=4).map_blocks(fail, meta=np.empty((0, 0, 0)))
    ds = raster({"a": np.zeros((8, 8))}).assign(a=(("band", "y", "x"), values))
    assert list(Model.from_function(recorded, input_tile_size=4, output_bands=["p"]).predict_image(ds)) == [
        "B1",
        "B2",
        "p",
    ]


@pytest.mark.parametrize("fails", [True, False])
def test_array_dims_are_only_suggested_if_the_model_fails(fails: bool) -> None:
    ds = scene({"a": ("run",)}).astype("int16")
    ds["a"].attrs["nodata"] = -1

    def least(tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if fails:
            raise ValueError("expected another rank")
        return np.full(tiles.shape[:3], 255)

    with pytest.raises(PredictionError, match="another rank" if fails else "marks masked") as raised:
        Model.from_function(least, input_tile_size=4, output_bands={"p": "uint8"}).predict_image(ds).compute(
            scheduler="sync"
        )
    assert ("array_dims=" in str(raised.value)) == fails
    assert "row 0 and column 0" in str(raised.value)
