"""Compare predictions from rasters with the same function applied to the whole raster in numpy."""

from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.rasters import random_band, raster
from tests.strategies import chunkings, examples, sizes
from tests.test_model_calling import FREE, fake_connector, tensors
from xee_tf import Model, OptionError, PredictionError

pytestmark = pytest.mark.usefixtures("small_blocks")


def box_sum(pixels, reach, axes=(1, 2)):
    """Sum over a square of side 2 * reach + 1, padded with zeros."""
    for axis in axes:
        pad = [(reach, reach) if at == axis else (0, 0) for at in range(pixels.ndim)]
        padded = np.pad(pixels, pad)
        length = pixels.shape[axis]
        pixels = sum(np.take(padded, range(k, k + length), axis) for k in range(2 * reach + 1))
    return pixels


class Local:
    """A model whose receptive field is within its overlap, with several forms of output."""

    def __init__(self, reach, cut=0, pool=1, vector=0):
        self.reach, self.cut, self.pool, self.vector = reach, cut, pool, vector

    def __call__(self, pixels):
        pixels = np.asarray(pixels, "f4")
        total = box_sum(pixels, self.reach).sum(axis=-1)
        if self.cut:
            total = total[:, self.cut : -self.cut, self.cut : -self.cut]
        n, height, width = total.shape
        k = self.pool
        total = total.reshape(n, height // k, k, width // k, k).sum(axis=(2, 4))
        return np.stack([total * (c + 1) for c in range(self.vector)], -1) if self.vector else total


SENT: list[np.ndarray] = []


def recording_box_sum(pixels):
    """Sums over squares; records the number of tiles."""
    SENT.append(len(pixels))
    return box_sum(np.asarray(pixels), 2)[..., 0]


@st.composite
def cases(draw):
    shape = draw(sizes(2, 20))
    reach = draw(st.integers(0, 2))
    tile = draw(sizes(1, 9))
    bands = {}
    for number in range(draw(st.integers(1, 3))):
        dtype = draw(st.sampled_from(["float32", "uint8", "int16"]))
        steps = draw(st.sampled_from([0, 0, 3]))
        mask = draw(st.sampled_from([0.0, 0.2, 0.97]))
        bands[f"B{number}"] = (dtype, steps, mask, draw(chunkings(shape.y)), draw(chunkings(shape.x)))
    return shape, reach, tile, bands, draw(st.integers(0, 9))


def build(shape, bands, seed):
    """Return the image, its values (step, y, x) with 0 for masked pixels, and its masks."""
    rng = np.random.default_rng(seed)
    ds = raster({"template": np.zeros(shape.shape)}).drop_vars("template")
    values, masks = {}, {}
    for number, (name, (dtype, steps, mask, *chunks)) in enumerate(bands.items()):
        array = random_band((max(1, steps), *shape.shape), dtype, seed + number)
        masked = rng.random(array.shape) < mask
        attrs = {}
        if dtype == "float32":
            array[masked] = np.nan
        elif mask:
            attrs = {"_FillValue": 119}
            array = np.where(masked, 119, np.minimum(array, 118)).astype(dtype)
        else:
            masked = np.zeros(array.shape, bool)
        values[name], masks[name] = np.where(masked, 0, array), masked
        lazy = da.from_array(array, chunks=((1,) * max(1, steps), *chunks))
        ds[name] = (("time", "y", "x"), lazy, attrs) if steps else (("y", "x"), lazy[0], attrs)
    return ds, values, masks


def predict_whole(values, masks, reach):
    """Return results and masks (step, y, x) for the whole raster at once."""
    steps = max(len(each) for each in values.values())
    stacked = np.stack([np.broadcast_to(v, (steps, *v.shape[1:])) for v in values.values()], -1)
    masked = np.logical_or.reduce([np.broadcast_to(m, (steps, *m.shape[1:])) for m in masks.values()])
    return box_sum(stacked.astype("f4"), reach).sum(-1), masked


@examples(120)
@given(cases(), st.booleans(), st.booleans(), st.sampled_from([None, 1, 3]), st.data())
def test_tiles_equal_the_whole_raster(case, cut, skip, batch_size, data):
    shape, reach, tile, bands, seed = case
    ds, values, masks = build(shape, bands, seed)
    expected, masked = predict_whole(values, masks, reach)
    model = Model.from_function(
        Local(reach, cut=reach if cut else 0),
        input_tile_size=tile.xy,
        input_overlap_size=reach,
        output_bands=["total"],
    )
    result = model.predict_image(ds, skip_masked=skip, batch_size=batch_size)
    assert list(result) == [*ds, "total"]
    timed = any(steps for _, steps, *_ in bands.values())
    wanted = np.where(masked, np.nan, expected)
    wanted = wanted if timed else wanted[0]
    with dask.config.set(scheduler="sync"):
        np.testing.assert_array_equal(result.total, wanted)
        part = tuple(slice(*sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in wanted.shape)
        np.testing.assert_array_equal(result.total[part], wanted[part])
    for chunks in result.total.chunks[-2:]:  # as Zarr requires
        assert len(set(chunks[:-1])) <= 1
        assert chunks[-1] <= chunks[0]


@examples(60)
@given(cases(), st.sampled_from([1, 2, 3]), st.integers(0, 2))
def test_outputs_with_another_scale(case, pool, vector):
    shape, _, tile, bands, seed = case
    bands = {name: (dtype, 0, *rest) for name, (dtype, _, *rest) in bands.items()}
    ds, values, masks = build(shape, bands, seed)
    total, masked = predict_whole(values, masks, 0)
    height, width = tile.y * pool, tile.x * pool
    model = Model.from_function(
        Local(0, pool=pool, vector=vector),
        input_tile_size=(width, height),
        output_tile_size=tile.xy,
        output_bands={
            "total": {"type": "float", "dimensions": int(vector > 0), "shape": [vector] * (vector > 0)}
        },
    )
    result = model.predict_image(ds, merge=False).compute(scheduler="sync")
    rows, columns = -(-shape.y // pool), -(-shape.x // pool)
    padded = np.zeros((rows * pool, columns * pool), "f4")
    padded[: shape.y, : shape.x] = total[0]
    absent = np.ones(padded.shape, bool)
    absent[: shape.y, : shape.x] = masked[0]
    blocks = (rows, pool, columns, pool)
    wanted = np.where(absent.reshape(blocks).all((1, 3)), np.nan, padded.reshape(blocks).sum((1, 3)))
    if vector:
        assert result.total.dims == ("total_0", "y", "x")
        wanted = np.stack([wanted * (c + 1) for c in range(vector)])
    np.testing.assert_array_equal(result.total, wanted)
    a, _, c, _, e, f = tuple(result.rio.transform())[:6]
    np.testing.assert_allclose((a, e), (30 * pool, -30 * pool))
    np.testing.assert_allclose((c, f), (700_000, 5_000_000))


@examples(40)
@given(cases(), st.integers(2, 6), st.integers(1, 3))
def test_blending_averages_overlapping_tiles(case, side, overlap):
    """The prediction of each tile is the mean of its pixels; it must be weighted as documented."""
    shape, _, _, bands, seed = case
    overlap = min(overlap, side - 1)
    bands = {name: (dtype, 0, *rest) for name, (dtype, _, *rest) in bands.items()}
    ds, values, masks = build(shape, bands, seed)
    stacked = np.stack([v[0] for v in values.values()], -1).astype("f4")
    masked = np.logical_or.reduce([m[0] for m in masks.values()])
    model = Model.from_function(
        _mean_of_tile, input_tile_size=side, input_overlap_size=overlap, output_bands=["mean"]
    )
    result = model.predict_image(ds, merge=False, blend="hann", skip_masked=False)
    length = side + 2 * overlap
    rise = np.sin(np.minimum((np.arange(length) + 0.5) / (2 * overlap), 1) * np.pi / 2) ** 2
    window = np.outer(rise * rise[::-1], rise * rise[::-1])
    rows, columns = -(-shape.y // side), -(-shape.x // side)
    total = np.zeros((rows * side + 2 * overlap, columns * side + 2 * overlap))
    weight = total.copy()
    padded = np.zeros((*total.shape, stacked.shape[-1]), "f4")
    padded[overlap : overlap + shape.y, overlap : overlap + shape.x] = stacked
    for row in range(rows):
        for column in range(columns):
            at = np.s_[row * side : row * side + length, column * side : column * side + length]
            total[at] += window * padded[at].mean()
            weight[at] += window
    inner = np.s_[overlap : overlap + shape.y, overlap : overlap + shape.x]
    wanted = np.where(masked, np.nan, (total[inner] / weight[inner]))
    found = result["mean"].compute(scheduler="sync")
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def _mean_of_tile(pixels):
    pixels = np.asarray(pixels, "f4")
    return np.broadcast_to(pixels.mean(axis=(1, 2, 3), keepdims=True)[..., 0], pixels.shape[:3])


def test_each_chunk_is_loaded_once_and_lazily(tmp_path):
    loads = []
    SENT.clear()

    def load(block, block_info=None):
        loads.append(tuple(block_info[0]["chunk-location"]))
        return block

    band = random_band((64, 64))
    lazy = da.from_array(band, chunks=16).map_blocks(load, meta=np.empty((0, 0), "f4"))
    ds = raster({"a": band}).assign(a=(("y", "x"), lazy))
    spec = Model.from_function(recording_box_sum, input_tile_size=8, input_overlap_size=2, output_bands=["b"])
    result = spec.predict_image(ds)
    assert not loads
    assert not SENT
    tasks = [key for key in result.b.data.__dask_graph__() if "turn" not in str(key)]
    assert len(tasks) <= 4 * 16
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(result.b, box_sum(band[None], 2)[0])
    assert len(loads) == len(set(loads)) == 16
    assert sum(SENT) == 64


def test_masked_tiles_are_not_sent():
    band = random_band((32, 32))
    band[:, 8:] = np.nan
    SENT.clear()
    spec = Model.from_function(recording_box_sum, input_tile_size=8, input_overlap_size=3, output_bands=["b"])
    result = spec.predict_image(raster({"a": band}), merge=False).compute(scheduler="sync")
    assert sum(SENT) == 4
    wanted = box_sum(np.nan_to_num(band)[None], 2)[0]
    np.testing.assert_array_equal(result.b, np.where(np.isnan(band), np.nan, wanted))


def test_masked_pixels_of_integer_outputs_have_the_fill_value():
    band = random_band((16, 16))
    band[3, 5] = np.nan

    def model(pixels):
        return {"kind": (pixels[..., 0] > 60).astype("uint8"), "height": pixels[..., 0].astype("int16")}

    spec = Model.from_function(model, input_tile_size=8, output_bands={"kind": "uint8", "height": "int16"})
    result = spec.predict_image(raster({"a": band}), merge=False).compute()
    assert (result.kind.rio.nodata, result.height.rio.nodata) == (255, -(2**15))
    assert (result.kind[3, 5], result.height[3, 5]) == (255, -(2**15))
    np.testing.assert_array_equal(result.kind.values[band == band], (band > 60)[band == band])

    bad = Model.from_function(
        lambda pixels: pixels[..., 0] * 0 + 255, input_tile_size=8, output_bands={"k": "uint8"}
    )
    with pytest.raises(xee_tf.PredictionError, match="'k' is 255 in 255 pixels that are not masked"):
        bad.predict_image(raster({"a": band}), merge=False).compute()


@pytest.mark.parametrize("declared", ["int16", "uint64", "bool"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("small", [False, True])
def test_nan_is_allowed_in_masked_pixels_and_padding(declared, dtype, small):
    """The model gets 0 in masked pixels and padding, so that a ratio is NaN there."""
    values = np.random.default_rng(0).integers(1, 90, (30, 21)).astype(dtype)
    scene = raster({"b": values})
    masked = np.zeros(values.shape, bool)
    if dtype == "float32":
        masked[[3, 17, 29], [4, 16, 20]] = True  # odd rows or columns, which `small` skips
        scene["b"].values[masked] = np.nan

    def ratio(tile):
        pixels = tile[:, ::2, ::2, 0] if small else tile[..., 0]
        with np.errstate(invalid="ignore"):
            return (pixels - pixels * 0.5) / pixels * 100

    model = Model.from_function(
        ratio, input_tile_size=16, output_tile_size=8 if small else 16, output_bands={"p": declared}
    )
    found = model.predict_image(scene, merge=False, batch_size=1).p.load(scheduler="sync")
    expected = np.full((15, 11) if small else values.shape, 1 if declared == "bool" else 50, found.dtype)
    if dtype == "float32" and not small:
        np.testing.assert_array_equal(found == found.attrs["_FillValue"], masked)
        expected[masked] = found.attrs["_FillValue"]
    np.testing.assert_array_equal(found, expected)


def test_nan_in_an_unmasked_pixel_is_an_error_with_its_tile():
    values = np.ones((30, 30), "float32")
    values[18, 2] = 0
    model = Model.from_function(
        lambda tile: np.where(tile[..., 0] > 0, 7, np.nan), input_tile_size=16, output_bands={"p": "int16"}
    )
    message = r"NaN for 'p', .* int16, in 1 pixel that is not masked.* row 1 and column 0"
    with pytest.raises(PredictionError, match=message):
        model.predict_image(raster({"b": values}), merge=False).p.load()


def test_array_bands_keep_their_dimensions(tmp_path):
    values = random_band((12, 14, 3, 2))
    ds = raster({"slope": random_band((12, 14))}).assign(cube=(("y", "x", "time", "wave"), values))

    def model(bands):
        assert bands["cube"].shape[1:] == (5, 5, 3, 2)
        return {"out": bands["cube"].sum((3, 4)) + bands["slope"].reshape(bands["cube"].shape[:3])}

    spec = Model.from_function(
        model, named=True, input_tile_size=5, output_bands=["out"], input_shapes={"cube": (3, 2)}
    )
    for image in (ds, ds.transpose("time", "wave", "y", "x"), ds.transpose("wave", "y", "time", "x")):
        np.testing.assert_array_equal(spec.predict_image(image).out, values.sum((2, 3)) + ds.slope)


def test_properties_are_sent_with_every_tile():
    ds = raster({"a": random_band((9, 9))}).assign_attrs(sun=30.0)

    def model(named):
        assert named["sun"].shape == (len(named["a"]),)
        return {"out": named["a"].reshape(named["a"].shape[:3]) * named["sun"][:, None, None]}

    spec = Model.from_function(
        model, named=True, input_tile_size=4, output_bands=["out"], input_properties=["sun"]
    )
    np.testing.assert_array_equal(spec.predict_image(ds).out, ds.a * 30)
    np.testing.assert_array_equal(spec.predict_image(ds, properties={"sun": 2.0}).out, ds.a * 2)


def test_average_over_symmetries():
    ds = raster({"a": random_band((11, 11))})

    def model(pixels):  # the left neighbour; the mean over all symmetries is that of the four neighbours
        return np.roll(np.asarray(pixels, "f4"), 1, axis=2)[..., 0]

    spec = Model.from_function(model, input_tile_size=4, input_overlap_size=1, output_bands=["b"])
    result = spec.predict_image(ds, merge=False, augment="d4")
    a = np.pad(ds.a.values, 1)
    four = np.stack([a[1:-1, :-2], a[1:-1, 2:], a[:-2, 1:-1], a[2:, 1:-1]])
    np.testing.assert_allclose(result.b, four.mean(0), rtol=1e-5)
    np.testing.assert_allclose(result.b_spread, four.std(0), rtol=1e-4, atol=1e-4)
    assert result.b.attrs == {}


def test_leading_dimensions_keep_their_coordinates():
    time = np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]")
    values = random_band((2, 3, 8, 8))
    ds = raster({"slope": random_band((8, 8), seed=3)})
    ds = ds.assign(a=(("time", "run", "y", "x"), values)).assign_coords(time=time, run=["x", "y", "z"])
    spec = Model.from_function(lambda pixels: pixels.sum(-1), input_tile_size=8, output_bands=["b"])
    result = spec.predict_image(ds, merge=False)
    assert result.b.dims == ("time", "run", "y", "x")
    np.testing.assert_array_equal(result.b.sel(time="2020-06-01", run="z"), values[1, 2] + ds.slope)
    np.testing.assert_array_equal(result.time, time)


def test_fixed_projection_is_resampled_and_back():
    y, x = np.mgrid[0:60, 0:60]
    smooth = np.sin(x / 9) + np.cos(y / 11)
    ds = raster({"a": smooth.astype("f4")})
    model = Model.from_function(
        lambda pixels: pixels[..., 0] * 2,
        input_tile_size=16,
        proj=("EPSG:3035", 30),
        fix_input_proj=True,
        output_bands=["b"],
    )
    result = model.predict_image(ds, resampling="bilinear")
    inner = np.s_[3:-3, 3:-3]
    np.testing.assert_allclose(result.b.values[inner], 2 * smooth[inner], atol=0.02)
    assert result.b.rio.crs == ds.rio.crs
    in_model_crs = model.predict_image(ds, merge=False, output_grid="model")
    assert in_model_crs.rio.crs == "EPSG:3035"
    assert np.isnan(in_model_crs.b.values).any()  # corners outside the image
    assert in_model_crs.rio.transform()[0] == 30
    # proj= is only used with fix_input_proj=True.
    same = Model.from_function(
        lambda pixels: pixels[..., 0], input_tile_size=16, proj=("EPSG:3035", 30), output_bands=["b"]
    )
    np.testing.assert_array_equal(same.predict_image(ds).b, ds.a)
    fine = Model.from_function(
        lambda pixels: pixels[..., 0],
        input_tile_size=64,
        proj=("EPSG:3035", 5),
        fix_input_proj=True,
        output_bands=["b"],
    )
    with pytest.warns(UserWarning, match="41 times as many"):
        fine.predict_image(ds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blend": "gauss"}, "blend must be 'crop' or 'hann'; got 'gauss'"),
        ({"augment": "d8"}, "augment must be None or 'd4'; got 'd8'"),
        ({"blend": "hann"}, r"blend='hann' averages predictions, but 'k' has dtype uint8"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"properties": [("year", 2021)]}, r"properties must be a mapping .*; got \[\('year', 2021\)\]"),
    ],
)
def test_invalid_options(options, message):
    model = Model.from_function(lambda pixels: pixels[..., 0], input_tile_size=4, output_bands={"k": "uint8"})
    with pytest.raises(OptionError, match=message):
        model.predict_image(raster({"a": random_band((8, 8))}), **options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("maps/forest", r"got 'maps/forest'. Use xee_tf.Model.from_saved_model\('maps/forest'\)"),
        (Path("forest.h5"), r"Use xee_tf.Model.from_keras\('forest.h5'\)"),
        (np.mean, "Use xee_tf.Model.from_function"),
        (fake_connector({}, {}), "Use xee_tf.Model.from_connector"),
        (xr.Dataset({"a": 1}), "got an object of type Dataset.$"),
        (0.5, "got 0.5.$"),
    ],
)
@pytest.mark.parametrize(
    ("write", "name"), [(xee_tf.predict_to_cog, "p.tif"), (xee_tf.predict_to_zarr, "p.zarr")]
)
def test_only_a_model_can_predict(tmp_path, model, message, write, name):
    with pytest.raises(OptionError, match=f"^model must be an xee_tf.Model; {'.*' + message}"):
        write(model, raster({"a": random_band((8, 8))}), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (xee_tf.predict_to_cog, "p.zarr", "end with .tif or .tiff; got 'p.zarr'. Use xee_tf.predict_to_zarr"),
        (xee_tf.predict_to_cog, "p.png", "end with .tif or .tiff; got 'p.png'"),
        (xee_tf.predict_to_zarr, "p.tiff", "end with .zarr; got 'p.tiff'. Use xee_tf.predict_to_cog"),
        (xee_tf.predict_to_zarr, "p", "end with .zarr; got 'p'"),
    ],
)
def test_destination_has_the_extension_of_its_format(tmp_path, write, name, message):
    model = Model.from_function(lambda pixels: pixels[..., 0], input_tile_size=4, output_bands=["k"])
    with pytest.raises(OptionError, match=message):
        write(model, raster({"a": random_band((8, 8))}), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_errors_about_names_list_all_of_them_and_suggest_one():
    ds = raster({"B8A": random_band((8, 8)), "B11": random_band((8, 8))})
    first = Model.from_function(
        lambda pixels: pixels[..., 0], bands=["b8a"], input_tile_size=4, output_bands="p"
    )
    with pytest.raises(OptionError, match=r"needs 'b8a', not found.*Did you mean 'B8A'"):
        first.predict_image(ds)
    named = Model.from_function(lambda b: {"x": b[..., 0]}, input_tile_size=4, output_bands=["u", "v", "w"])
    with pytest.raises(PredictionError, match=r"returned the outputs 'x'; expected 'u', 'v', 'w'"):
        named.predict_image(ds).compute()


def test_complex_output_in_the_signature_is_an_error():
    connector = fake_connector(tensors(x=(*FREE, 1)), tensors(p=("complex64", FREE)))
    model = Model(connector, input_tile_size=4)
    with pytest.raises(OptionError, match="'p' has dtype complex64; expected a boolean, integer or float"):
        model.predict_image(raster({"a": random_band((8, 8))}))


def test_blending_requires_overlap():
    model = Model.from_function(lambda pixels: pixels[..., 0], input_tile_size=4, output_bands=["k"])
    with pytest.raises(OptionError, match="Specify the model's input_overlap_size"):
        model.predict_image(raster({"a": random_band((8, 8))}), blend="hann")


def test_merging_requires_other_names_and_the_same_grid():
    ds = raster({"a": random_band((8, 8))})
    model = Model.from_function(lambda pixels: pixels[..., 0], input_tile_size=4, output_bands=["a"])
    with pytest.raises(OptionError, match=r"already has bands named 'a'"):
        model.predict_image(ds)
    np.testing.assert_array_equal(model.predict_image(ds, merge=False).a, ds.a)
    coarse = Model.from_function(Local(0, pool=4), input_tile_size=4, output_tile_size=1, output_bands=["b"])
    with pytest.raises(OptionError, match="a different grid than the image"):
        coarse.predict_image(ds)


def test_all_schedulers_give_the_same_result():
    shape = xee_tf.Size(x=40, y=33)
    bands = {"a": ("float32", 0, 0.2, (20, 13), (40,)), "b": ("int16", 3, 0.2, (33,), (15, 25))}
    ds, values, masks = build(shape, bands, 3)
    expected, masked = predict_whole(values, masks, 2)
    model = Model.from_function(
        Local(2), input_tile_size=(8, 7), input_overlap_size=2, output_bands=["total"]
    )
    result = model.predict_image(ds, merge=False)
    wanted = np.where(masked, np.nan, expected)
    for scheduler in ("sync", "threads", "processes"):
        np.testing.assert_array_equal(result.total.compute(scheduler=scheduler), wanted)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        np.testing.assert_array_equal(result.total, wanted)


@pytest.mark.parametrize("south_up", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_images_with_other_orientations_and_names(south_up, transposed):
    values = random_band((3, 20, 30))
    image = xr.DataArray(
        values,
        dims=("band", "latitude", "longitude"),
        coords={
            "band": ["red", "green", "nir"],
            "latitude": 10 - 0.5 * np.arange(20),
            "longitude": 0.5 * np.arange(30),
        },
    ).rio.write_crs(4326)
    image = image.isel(latitude=slice(None, None, -1)) if south_up else image
    model = Model.from_function(
        lambda pixels: pixels[..., 0] - pixels[..., 1],
        bands=["nir", "red"],
        input_tile_size=7,
        output_bands=["d"],
    )
    result = model.predict_image(image.transpose(..., "latitude") if transposed else image)
    assert list(result) == ["red", "green", "nir", "d"]
    assert result.rio.crs == image.rio.crs
    assert result.d.rio.transform() == image.rio.transform()
    wanted = image.sel(band="nir", drop=True) - image.sel(band="red", drop=True)
    np.testing.assert_array_equal(result.d.transpose("latitude", "longitude"), wanted)
    elsewhere = Model.from_function(
        lambda pixels: pixels[..., 0],
        bands=["nir"],
        input_tile_size=7,
        proj=("EPSG:3857", 30_000),
        fix_input_proj=True,
        output_bands=["d"],
    )
    back = elsewhere.predict_image(image, merge=False)
    assert back.d.rio.transform() == image.rio.transform()
    assert np.isfinite(back.d.values).mean() > 0.9


def fail_on_seven(pixels):
    if (pixels == 7).any():
        raise RuntimeError("got a seven")
    return pixels[..., 0]


def test_errors_name_the_tile():
    band = np.zeros((32, 32), "f4")
    band[17, 30] = 7
    model = Model.from_function(fail_on_seven, input_tile_size=8, output_bands=["b"])
    place = r"row 2 and column 3, bounds \(left, bottom, right, top\) 700720, 4999280, 700960, 4999520"
    for scheduler in ("sync", "processes"):
        result = model.predict_image(raster({"a": band}), merge=False, batch_size=1)
        with pytest.raises(xee_tf.PredictionError, match=f"got a seven.*{place}"):
            result.b.compute(scheduler=scheduler)
