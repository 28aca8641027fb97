"""Tests of opening array bands and records per pixel, with and without a manifest, and of invalid records."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.foreign import floats, write_export
from tests.optional import optional
from tests.rasters import random_band, raster
from tests.strategies import examples
from xee_tf.sidecars import Mixer

tf = optional("tensorflow")

TIME = np.array(["2020-05-01", "2020-06-11T12:30", "2020-07-01", "2020-08-01"], "datetime64[ns]")


def cube(side=24, dtype="float32"):
    ds = raster({"slope": random_band((side, side), seed=1)})
    ndvi = random_band((4, side, side), dtype, seed=2)
    return ds.assign(ndvi=(("time", "y", "x"), ndvi)).assign_coords(time=TIME)


def write_records(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record.SerializeToString())


def series(values):
    return tf.train.FeatureList(feature=[floats([value]) for value in values])


def mixer_of(ds, patch):
    """Return a mixer of square patches, and the pixel indices of each patch as (patch, y, x)."""
    rows, columns = (ds.sizes[dim] // patch for dim in ("y", "x"))
    mixer = Mixer("EPSG:32633", ds.rio.transform(), xee_tf.Size(x=patch, y=patch), columns, rows * columns)
    pixels = np.arange(ds.sizes["y"] * ds.sizes["x"]).reshape(ds.sizes["y"], ds.sizes["x"])
    tiles = pixels.reshape(rows, patch, columns, patch).swapaxes(1, 2).reshape(-1, patch, patch)
    return mixer, tiles


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 4},
        {"collapse_bands": True},
        {"sequence_data": True},
        {"sequence_data": True, "collapse_bands": True},
    ],
)
@pytest.mark.parametrize("engine", [True, False])
def test_dimensions_and_coordinates_are_restored(tmp_path, options, engine):
    ds = cube()
    mixer = ds.tfexport(tmp_path / "scene", patch_dimensions=8, **options).mixer
    opened = xr.open_dataset(mixer.path, engine="tfrecord") if engine else xee_tf.open_image(mixer)
    xr.testing.assert_equal(opened.drop_vars("spatial_ref"), ds)
    assert opened.rio.crs == ds.rio.crs
    one = xee_tf.open_image(mixer, bands="ndvi").ndvi.sel(time="2020-07-01")
    np.testing.assert_array_equal(one, ds.ndvi.sel(time="2020-07-01"))


def test_several_extra_dimensions(tmp_path):
    values = random_band((3, 2, 12, 12))
    ds = raster({"a": values[0, 0]}).assign(a=(("time", "wave", "y", "x"), values))
    ds = ds.assign_coords(wave=["red", "nir"])
    opened = xee_tf.open_image(ds.tfexport(tmp_path / "scene", patch_dimensions=6).mixer)
    assert opened.a.dims == ("time", "wave", "y", "x")
    np.testing.assert_array_equal(opened.a.sel(wave="nir", drop=True), values[:, 1])
    np.testing.assert_array_equal(opened.a[[2, 0], :, 3:9, [1, 7]], values[[2, 0]][:, :, 3:9, [1, 7]])


def test_bands_of_different_depths_of_one_dimension(tmp_path):
    ds = cube()
    ds["evi"] = ds.ndvi + 1
    result = ds.tfexport(
        tmp_path / "scene", patch_dimensions=8, tensor_depths={"ndvi": 3, "evi": 5}, default_value=-1
    )
    opened = xee_tf.open_image(result.mixer)
    assert opened.ndvi.dims == ("time_3", "y", "x")
    np.testing.assert_array_equal(opened.time_3, TIME[:3])
    np.testing.assert_array_equal(opened.ndvi, ds.ndvi[:3])
    np.testing.assert_array_equal(opened.evi[:4], ds.evi)
    assert (opened.evi[4] == -1).all()
    assert "time_5" not in opened.coords


def test_extra_dimensions_can_be_chunked(tmp_path):
    ds = cube()
    mixer = ds.tfexport(tmp_path / "scene", patch_dimensions=8).mixer
    opened = xee_tf.open_image(mixer, chunks={"time": 2, "y": 12})
    assert opened.ndvi.chunks == ((2, 2), (12, 12), (24,))
    np.testing.assert_array_equal(opened.ndvi, ds.ndvi)
    with pytest.warns(UserWarning, match="separate the stored chunks"):  # records contain all steps
        lazy = xr.open_dataset(mixer.path, engine="tfrecord", chunks={"time": 1})
    np.testing.assert_array_equal(lazy.ndvi[2], ds.ndvi[2])


def test_only_the_selected_steps_use_memory(tmp_path):
    import tracemalloc

    steps, side = 60, 256
    values = np.zeros((steps, side, side), "f4")
    ds = raster({"a": values[0]}).assign(a=(("time", "y", "x"), values))
    mixer = ds.tfexport(tmp_path / "scene", patch_dimensions=64).mixer
    opened = xee_tf.open_image(mixer)
    tracemalloc.start()
    opened.a.isel(time=3).compute(scheduler="sync")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 2


# -- Without a manifest -----------------------------------------------------------------------------------


def test_depths_are_inferred_from_the_lengths_of_lists(tmp_path):
    export = write_export(tmp_path, {"slope": random_band((20, 20))}, patch=(10, 10), kernel=(4, 4))
    [values] = [np.stack(patches) for patches in export.patches.values()]
    stack = np.stack([values, values + 1, values + 2], axis=1)
    records = [
        tf.train.Example(features=tf.train.Features(feature={"slope": floats(one), "ndvi": floats(many)}))
        for one, many in zip(values, stack, strict=True)
    ]
    write_records(tmp_path / "array.tfrecord", records)
    opened = xee_tf.open_image(export.mixer, tmp_path / "array.tfrecord")
    assert opened.ndvi.dims == ("depth", "y", "x")
    np.testing.assert_array_equal(opened.ndvi, np.stack([opened.slope + step for step in range(3)]))
    np.testing.assert_array_equal(opened.slope, export.raster["slope"])
    for depths in (None, {"ndvi": 3}):
        alone = xee_tf.open_image(
            export.mixer, tmp_path / "array.tfrecord", bands=["ndvi"], tensor_depths=depths
        )
        np.testing.assert_array_equal(alone.ndvi, opened.ndvi)
    with pytest.raises(
        xee_tf.RecordError,
        match=r"'ndvi' has 588 values .* matches no margin for patches of 10 x 10 pixels and 5 steps",
    ):
        xee_tf.open_image(export.mixer, tmp_path / "array.tfrecord", tensor_depths={"ndvi": 5})
    with pytest.raises(xee_tf.OptionError, match="'evi', which is not a band"):
        xee_tf.open_image(export.mixer, tmp_path / "array.tfrecord", tensor_depths={"evi": 5})


@examples(25)
@given(
    patch=st.integers(1, 4),
    depths=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    sequences=st.booleans(),
    dropped=st.booleans(),
    seed=st.integers(0, 9),
)
def test_records_per_pixel_from_tensorflow(tmp_path_factory, patch, depths, sequences, dropped, seed):
    """One Example or SequenceExample per pixel; depth 0 means a scalar band."""
    folder = tmp_path_factory.mktemp("pixels")
    ds = raster({"template": np.zeros((2 * patch, 3 * patch))})
    mixer, tiles = mixer_of(ds, patch)
    rng = np.random.default_rng(seed)
    bands = {f"B{n}": random_band((max(depth, 1), tiles.size), seed=n) for n, depth in enumerate(depths)}
    kept = {
        name: rng.integers(0 if dropped and sequences else depth, depth + 1, tiles.size)
        for (name, _), depth in zip(bands.items(), depths, strict=True)
    }
    records, expected = [], {name: values.copy() for name, values in bands.items()}
    for pixel in tiles.ravel():
        context = {
            n: floats(v[:, pixel])
            for (n, v), d in zip(bands.items(), depths, strict=True)
            if not (d and sequences)
        }
        lists = {
            n: series(v[: kept[n][pixel], pixel])
            for (n, v), d in zip(bands.items(), depths, strict=True)
            if d and sequences
        }
        for name in lists:
            expected[name][kept[name][pixel] :, pixel] = 0
        features = tf.train.Features(feature=context)
        records.append(
            tf.train.SequenceExample(
                context=features, feature_lists=tf.train.FeatureLists(feature_list=lists)
            )
            if sequences
            else tf.train.Example(features=features)
        )
    write_records(folder / "pixels.tfrecord", records)
    given = {name: depth for name, depth in zip(bands, depths, strict=True) if depth}
    opened = xee_tf.open_image(mixer, folder / "pixels.tfrecord", tensor_depths=given)
    for name, depth in zip(bands, depths, strict=True):
        wanted = expected[name].reshape(-1, *ds["template"].shape)
        np.testing.assert_array_equal(opened[name], wanted if depth else wanted[0])


@pytest.mark.parametrize("depth", [4, 5, 8, 16])
def test_the_number_of_records_distinguishes_pixels_from_patches(tmp_path, depth):
    """The lists of a pixel may be as long as a patch, or longer."""
    mixer, tiles = mixer_of(raster({"template": np.zeros((4, 6))}), 2)
    band = random_band((depth, 4 * 6))

    def write(name, values):
        features = [tf.train.Features(feature={"a": floats(each)}) for each in values]
        write_records(tmp_path / name, [tf.train.Example(features=each) for each in features])
        return tmp_path / name

    pixels = write("pixels.tfrecord", [band[:, pixel] for pixel in tiles.ravel()])
    np.testing.assert_array_equal(xee_tf.open_image(mixer, pixels).a, band.reshape(depth, 4, 6))
    patches = write("patches.tfrecord", [band[:, tile] for tile in tiles])
    opened = xee_tf.open_image(mixer, patches, tensor_depths={"a": depth})
    np.testing.assert_array_equal(opened.a, band.reshape(depth, 4, 6))


# -- Errors ---------------------------------------------------------------------------------------


def test_a_record_of_a_different_shape_raises(tmp_path):
    ds = raster({"template": np.zeros((4, 4))})
    mixer, _ = mixer_of(ds, 2)

    def example(depth):
        return tf.train.Example(features=tf.train.Features(feature={"a": floats(np.zeros((depth, 2, 2)))}))

    write_records(tmp_path / "a.tfrecord", [example(3), example(3), example(2), example(3)])
    with pytest.raises(xee_tf.RecordError, match=r"a\.tfrecord: record 2: feature 'a' .*8 .*12"):
        xee_tf.open_image(mixer, tmp_path / "a.tfrecord", tensor_depths={"a": 3}).compute()

    def pixel(steps, size=1):
        lists = {"a": tf.train.FeatureList(feature=[floats(np.zeros(size))] * steps)}
        return tf.train.SequenceExample(feature_lists=tf.train.FeatureLists(feature_list=lists))

    write_records(tmp_path / "b.tfrecord", [pixel(2)] * 7 + [pixel(3)] + [pixel(2)] * 8)
    with pytest.raises(
        xee_tf.RecordError, match=r"b\.tfrecord: record 7: feature 'a' has 3 steps; expected at most 2"
    ):
        xee_tf.open_image(mixer, tmp_path / "b.tfrecord").compute()
    write_records(tmp_path / "c.tfrecord", [pixel(2)] * 7 + [pixel(2, size=2)] + [pixel(2)] * 8)
    with pytest.raises(xee_tf.RecordError, match=r"c\.tfrecord: record 7: step 0 of feature 'a' .*2 .*1"):
        xee_tf.open_image(mixer, tmp_path / "c.tfrecord").compute()
    write_records(tmp_path / "d.tfrecord", [pixel(2)] * 15)
    with pytest.raises(
        xee_tf.RecordError, match=r"Expected 16 records \(4 patches x 4 pixels\).* contains 15"
    ):
        xee_tf.open_image(mixer, tmp_path / "d.tfrecord")
    write_records(tmp_path / "e.tfrecord", [pixel(0)] * 16)
    with pytest.raises(xee_tf.RecordError, match="'a' has no steps in the first record"):
        xee_tf.open_image(mixer, tmp_path / "e.tfrecord")


def test_shards_that_do_not_match_the_manifest(tmp_path):
    ds = cube()
    mixer = ds.tfexport(tmp_path / "scene", patch_dimensions=8).mixer
    other = ds[["slope"]].tfexport(tmp_path / "other", patch_dimensions=8)
    opened = xee_tf.open_image(mixer, [file.path for file in other.files])
    np.testing.assert_array_equal(opened.slope, ds.slope)
    (tmp_path / "scene-00000.tfrecord.gz").write_bytes((tmp_path / "other-00000.tfrecord.gz").read_bytes())
    with pytest.raises(xee_tf.RecordError, match=r"features 'slope' do not match scene-image"):
        xee_tf.open_image(mixer)
