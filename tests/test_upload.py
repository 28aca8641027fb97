"""Predictions written to TFRecord, and conversion of records to rasters."""

from __future__ import annotations

import gzip
import tracemalloc

import fsspec
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.foreign import example, write_export, write_records
from tests.optional import optional
from tests.oracle import cut_patches
from tests.rasters import random_band
from tests.strategies import affines, examples, sizes
from xee_tf import (
    DestinationError,
    DestinationExistsError,
    MissingShardError,
    Mixer,
    OptionError,
    RecordError,
    Size,
)
from xee_tf.reading.image import open_image
from xee_tf.storage import Location
from xee_tf.upload.image import upload_image
from xee_tf.upload.writer import PredictionWriter

tf = optional("tensorflow")

NORTH_UP = Affine(30, 0, 700_000, 0, -30, 5_000_000)


def make_mixer(patch=(6, 4), columns=3, rows=2, affine=NORTH_UP, crs="EPSG:32633"):
    return Mixer(crs, affine, Size.from_xy(patch, "patch"), columns, columns * rows)


def patches_of(raster, mixer, kernel=(1, 1)):
    return np.stack(cut_patches(raster, patch=mixer.patch.xy, kernel=kernel, default=0)[0])


def raster_for(mixer, dtype="float32", seed=0):
    shape = (mixer.rows * mixer.patch.y, mixer.patches_per_row * mixer.patch.x)
    return random_band(shape, dtype, seed=seed)


def read_with_tensorflow(path, compressed):
    dataset = tf.data.TFRecordDataset(str(path), "GZIP" if compressed else "")
    return [tf.train.Example.FromString(record.numpy()) for record in dataset]


# -- PredictionWriter ---------------------------------------------------------------------------------


@given(st.data())
@examples(40)
def test_predictions_do_not_depend_on_batches(tmp_path_factory, data):
    patch, columns, rows = data.draw(sizes(1, 6)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    mixer = make_mixer(patch.xy, columns, rows)
    total = columns * rows
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    bands = {
        "prob": rng.normal(size=(total, *patch.shape)).astype(data.draw(st.sampled_from(["f4", "f8"]))),
        "class": rng.integers(0, 9, (total, *patch.shape)).astype("u1"),
        "count": rng.integers(-400, 400, (total, *patch.shape)).astype("i4"),
    }
    kinds = data.draw(st.sampled_from(["float", "band"]))
    compressed = data.draw(st.booleans())
    folder = tmp_path_factory.mktemp("predictions")
    written = []
    for name in ("a", "b"):
        path = folder / (name + (".tfrecord.gz" if compressed else ".tfrecord"))
        cuts = sorted(data.draw(st.sets(st.integers(0, total), max_size=4)))
        with PredictionWriter(path, mixer, feature_types=kinds) as writer:
            for start, stop in zip([0, *cuts], [*cuts, total], strict=True):
                writer.write({band: values[start:stop] for band, values in bands.items()}, first=start)
        assert writer.written == writer.total == total
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert sorted(path.name[0] for path in folder.iterdir()) == ["a", "b"]
    records = read_with_tensorflow(path, compressed)
    if kinds == "band":
        expected = [example({band: values[i] for band, values in bands.items()}) for i in range(total)]
    else:
        expected = [
            example({band: values[i].astype("f4") for band, values in bands.items()}) for i in range(total)
        ]
    assert records == expected
    opened = open_image(mixer, path)
    for band, values in bands.items():
        found = opened[band].values.reshape(rows, patch.y, columns, patch.x).transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(found.reshape(values.shape), values.astype(found.dtype))


def test_file_with_many_gzip_members(tmp_path):
    mixer = make_mixer((256, 256), 4, 3)
    band = raster_for(mixer)
    patches = patches_of(band, mixer)
    for i, step in enumerate((1, 5, 12)):
        with PredictionWriter(tmp_path / f"{i}.gz", mixer, bands="p") as writer:
            for start in range(0, 12, step):
                writer.write(patches[start : start + step])
    contents = [(tmp_path / f"{i}.gz").read_bytes() for i in range(3)]
    assert contents[0] == contents[1] == contents[2]
    assert len(gzip.decompress(contents[0])) > 12 * 256 * 256 * 4
    np.testing.assert_array_equal(open_image(mixer, tmp_path / "0.gz").p.values, band)


@pytest.mark.parametrize(
    ("shape", "bands", "names"),
    [
        ((6, 4, 6), None, ["prediction"]),
        ((6, 4, 6, 1), None, ["prediction"]),
        ((6, 4, 6, 3), None, ["prediction_0", "prediction_1", "prediction_2"]),
        ((6, 4, 6, 2), ["a", "b"], ["a", "b"]),
        ((6, 8, 8, 2), ["a", "b"], ["a", "b"]),
    ],
)
def test_band_names_of_arrays(tmp_path, shape, bands, names):
    values = np.random.default_rng(0).normal(size=shape).astype("f4")
    with PredictionWriter(tmp_path / "p", make_mixer(), bands=bands) as writer:
        writer.write(tf.constant(values))
    records = read_with_tensorflow(tmp_path / "p", False)
    for i, name in enumerate(names):
        expected = values.reshape(6, shape[1], shape[2], -1)[..., i]
        found = [np.array(record.features.feature[name].float_list.value, "f4") for record in records]
        np.testing.assert_array_equal(found, expected.reshape(6, -1))
    assert all(sorted(record.features.feature) == names for record in records)


def test_order_of_bands_in_a_mapping(tmp_path):
    mixer = make_mixer()
    one, two = np.zeros((6, 4, 6)), np.ones((6, 4, 6, 1))
    with PredictionWriter(tmp_path / "p", mixer, bands=["b", "a"], compressed=True) as writer:
        writer.write({"a": one, "b": two})
    assert list(open_image(mixer, tmp_path / "p")) == ["b", "a"]
    assert (tmp_path / "p").read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    ("patches", "options", "message"),
    [
        (np.zeros((4, 6)), {}, r"got \(4, 6\). For a single patch, pass patch\[np.newaxis\]"),
        (np.zeros((2, 6, 4)), {}, "4 pixels wide and 6 high; expected the size of the patches, 6 x 4"),
        (np.zeros((2, 5, 7)), {}, "with equal margins on both sides"),
        (np.zeros((2, 2, 4)), {}, "4 pixels wide and 2 high"),
        (np.zeros((2, 4, 6, 3)), {"bands": ["a", "b"]}, r"3 channels; expected 2, .* bands 'a', 'b'"),
        ({"a": np.zeros((2, 4, 6))}, {"bands": ["b"]}, r"mapping of the bands 'b'; got 'a'"),
        ({}, {}, "an empty mapping; expected an array for each band"),
        ({}, {"bands": ["u", "v"]}, r"expected an array for each of the bands 'u', 'v'"),
        (None, {}, "Predictions must be an array of numbers; got None"),
        ({"a": [[1], [2, 3]]}, {}, "predictions of 'a' must be an array of numbers; got"),
        ({"a": np.zeros((2, 4, 6)), "b": np.zeros((3, 4, 6))}, {}, "must have the same shape"),
        ({"": np.zeros((2, 4, 6))}, {}, "name cannot be empty"),
        (np.zeros((2, 4, 6), complex), {}, "complex128 cannot be stored"),
        (np.full((2, 4, 6), 2**24 + 1), {}, "'prediction' contains 16777217, which float32 cannot represent"),
        (np.full((2, 4, 6), -(2**40)), {}, "contains 1099511627776"),
    ],
)
def test_invalid_predictions(tmp_path, patches, options, message):
    writer = PredictionWriter(tmp_path / "p", make_mixer(), **options)
    with pytest.raises(OptionError, match=message):
        writer.write(patches)
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_later_predictions_must_match_the_first(tmp_path):
    with PredictionWriter(tmp_path / "p", make_mixer(), feature_types="band") as writer:
        writer.write({"a": np.zeros((2, 4, 6), "u1"), "b": np.zeros((2, 4, 6), "i2")})
        with pytest.raises(OptionError, match="'a' is written as bytes, which cannot represent float64"):
            writer.write({"a": np.zeros((2, 4, 6)), "b": np.zeros((2, 4, 6), "i2")})
        with pytest.raises(OptionError, match="'b' is written as int64, which cannot represent float64"):
            writer.write({"a": np.zeros((2, 4, 6), bool), "b": np.zeros((2, 4, 6))})
        with pytest.raises(OptionError, match=r"had the shape \(4, 6\) .*; got \(6, 8\)"):
            writer.write({"a": np.zeros((2, 6, 8), "u1"), "b": np.zeros((2, 6, 8), "i2")})
        writer.write({"b": np.full((4, 4, 6), 2**40), "a": np.ones((4, 4, 6), bool)})
    opened = open_image(make_mixer(), tmp_path / "p")
    assert (opened.a.dtype, opened.b.dtype) == (np.uint8, np.int64)
    assert (int(opened.a.sum()), int(opened.b.max())) == (4 * 24, 2**40)


def test_order_and_number_of_predictions_are_checked(tmp_path):
    path = tmp_path / "p.gz"
    patch = np.zeros((1, 4, 6))
    with pytest.raises(RecordError, match="the mixer specifies 6 patches; got 7"):
        write_batches(path, make_mixer(), [patch] * 7)
    with pytest.raises(RecordError, match="missing: the mixer specifies 6 patches; got 5"):
        write_batches(path, make_mixer(), [patch] * 5)
    with pytest.raises(RecordError, match="missing: the mixer specifies 6 patches; got 0"):
        write_batches(path, make_mixer(), [])
    with PredictionWriter(path, make_mixer()) as writer:
        writer.write(patch, first=0)
        with pytest.raises(RecordError, match="in order: expected patch 1; got 2"):
            writer.write(patch, first=2)
        writer.abort()
    with pytest.raises(RecordError, match="is closed; written: 1 patch"):
        writer.write(patch)
    with pytest.raises(ZeroDivisionError):
        write_batches(path, make_mixer(), (1 / (2 - i) * patch for i in range(3)))
    assert list(tmp_path.iterdir()) == []


def write_batches(path, mixer, batches):
    with PredictionWriter(path, mixer) as writer:
        for batch in batches:
            writer.write(batch)


def test_existing_files(tmp_path):
    path, mixer = tmp_path / "deep" / "p", make_mixer()
    write_batches(path, mixer, [np.zeros((6, 4, 6))])
    before = path.read_bytes()
    with pytest.raises(DestinationExistsError, match="if_exists='overwrite'"):
        PredictionWriter(path, mixer)
    with pytest.raises(OptionError, match="'error', 'overwrite' or 'resume'; got 'append'"):
        PredictionWriter(path, mixer, if_exists="append")
    with PredictionWriter(path, mixer, if_exists="overwrite") as writer:
        writer.write(np.ones((6, 4, 6)))
        assert path.read_bytes() == before
    assert path.read_bytes() != before
    with pytest.raises(DestinationError, match="is a file, not a folder"):
        PredictionWriter(path / "below", mixer)


def test_remote_filesystems(tmp_path):
    mixer = make_mixer()
    mixer.write("memory://up/scene-mixer.json")
    for name in ("p.tfrecord.gz", "p.tfrecord"):
        with PredictionWriter(f"memory://up/{name}", "memory://up/scene-mixer.json") as writer:
            writer.write(np.arange(6)[:, None, None] * np.ones((4, 6)))
        opened = open_image("memory://up/scene-mixer.json", f"memory://up/{name}")
        assert opened.prediction.values[::4, ::6].tolist() == [[0, 1, 2], [3, 4, 5]]
    for name in ("map.tif", "map.zarr"):
        result = upload_image("memory://up/p.tfrecord", mixer, f"memory://up/{name}")
        assert result == Location(f"memory://up/{name}")
        upload_image("memory://up/p.tfrecord", mixer, f"memory://up/{name}", if_exists="overwrite")
    with fsspec.open("memory://up/map.tif", "rb") as file:
        (tmp_path / "map.tif").write_bytes(file.read())
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), opened.prediction.values)
    zarr = xr.open_zarr("memory://up/map.zarr", consolidated=False, decode_coords="all")
    np.testing.assert_array_equal(zarr.prediction.values, opened.prediction.values)
    fsspec.filesystem("memory").rm("/up", recursive=True)


# -- GeoTIFF ------------------------------------------------------------------------------------------


def check_cog(path, bands, mixer, *, dtype, nodata=None):
    with rasterio.open(path) as file:
        assert file.driver == "GTiff"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.descriptions == tuple(bands)
        assert file.dtypes == (dtype,) * len(bands)
        assert file.crs == rasterio.CRS.from_user_input(mixer.crs)
        assert file.transform == mixer.affine
        if nodata is None and dtype.startswith("float"):
            nodata = np.nan
        np.testing.assert_equal(file.nodata, nodata)
        assert not {c.name for c in file.colorinterp} & {"red", "green", "blue", "alpha"}
        for i, band in enumerate(bands.values()):
            np.testing.assert_array_equal(file.read(i + 1), band)


@pytest.mark.parametrize("kernel", [(1, 1), (4, 2), (5, 5)])
@pytest.mark.parametrize("files", [1, 2, 5])
@pytest.mark.parametrize("compression", ["plain", "gzip", "written"])
def test_foreign_records_are_converted_to_cogs(tmp_path, kernel, files, compression):
    mixer = make_mixer((16, 12), 5, 4)
    bands = {name: raster_for(mixer, seed=i) for i, name in enumerate(["a", "b"])}
    cut = {name: patches_of(band, mixer, kernel) for name, band in bands.items()}
    records = [
        example({name: values[i] for name, values in cut.items()}).SerializeToString() for i in range(20)
    ]
    paths = []
    for i, part in enumerate(np.array_split(np.arange(20), files)):
        paths.append(tmp_path / f"prediction_{i}.tfrecord")
        write_records(paths[-1], [records[i] for i in part], compression)
    mixer.write(tmp_path / "scene-mixer.json")
    target = tmp_path / "out" / "map.tif"
    result = upload_image(paths, tmp_path / "scene-mixer.json", target, kernel_size=kernel, bands=["a", "b"])
    assert result == Location.of(target)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["map.tif"]
    check_cog(result.path, bands, mixer, dtype="float32")


def kinds_export(tmp_path, **options):
    """Write a foreign export with one band of each of the three kinds."""
    mixer = make_mixer((10, 10), 3, 3)
    bands = {name: raster_for(mixer, name, seed=i) for i, name in enumerate(["uint8", "int16", "float32"])}
    return write_export(tmp_path / "export", bands, patch=(10, 10), **options), mixer, bands


@pytest.mark.parametrize("on", ["disk", "memory"])
def test_records_as_a_prefix_or_a_pattern(tmp_path, on):
    folder = str(tmp_path) if on == "disk" else f"memory://{tmp_path.name}"
    mixer, other = make_mixer(), make_mixer(rows=1)
    raster = raster_for(mixer)
    patches = patches_of(raster, mixer)
    for number in range(2):
        name = f"{folder}/p-0000{number}.tfrecord"
        with PredictionWriter(name, other, bands=["b"]) as writer:
            writer.write(patches[3 * number : 3 * number + 3])
    Location.of(f"{folder}/p-mixer.json").write_bytes(mixer.text().encode())
    for records in (f"{folder}/p", f"{folder}/p-*.tfrecord", [f"{folder}/p-0000?.tfrecord"]):
        np.testing.assert_array_equal(open_image(mixer, records=records)["b"], raster)
    out = upload_image(f"{folder}/p", mixer, tmp_path / "u.tif")
    with rasterio.open(out.path) as file:
        np.testing.assert_array_equal(file.read(1), raster)
    wrong = {
        "q": (MissingShardError, rf"{folder}/q was not found: expected TFRecord files.* starts with 'q'"),
        "q*": (MissingShardError, r"No files match .*/q\*"),
        "q-00000.tfrecord": (MissingShardError, "q-00000.tfrecord does not exist.* starts with 'q'"),
        "p-00002.tfrecord": (MissingShardError, "similar names: p-00000.tfrecord, p-00001"),
        "p-mixer.json": (OptionError, rf"contains none: pass the TFRecord files, or .* such as {folder}/p\."),
        "": (
            OptionError,
            f"{folder}/? is a folder: pass the TFRecord files in it, .* such as {folder}/prediction",
        ),
    }
    for name, (error, message) in wrong.items():
        with pytest.raises(error, match=message):
            upload_image(f"{folder}/{name}", mixer, tmp_path / "v.tif")
    Location.of(f"{folder}/p-00000.tfrecord").remove()
    with pytest.raises(MissingShardError, match=f"Shard 0 of {folder}/p is missing, but p-00001"):
        upload_image(f"{folder}/p", mixer, tmp_path / "v.tif")


def test_bands_of_a_geotiff_have_a_common_dtype(tmp_path):
    export, mixer, bands = kinds_export(tmp_path)
    result = upload_image(None, export.mixer, tmp_path / "all.tif", bands=list(bands))
    check_cog(result.path, bands, mixer, dtype="float64")
    result = upload_image(None, export.mixer, tmp_path / "some.tiff", bands=["int16", "uint8"])
    check_cog(result.path, {name: bands[name] for name in ("int16", "uint8")}, mixer, dtype="int64")
    result = upload_image(None, export.mixer, tmp_path / "one.tif", bands="uint8", nodata=255)
    check_cog(result.path, {"uint8": bands["uint8"]}, mixer, dtype="uint8", nodata=255)
    result = upload_image(
        export.shards, export.mixer, tmp_path / "u2.tif", bands=list(bands), dtype="uint16", nodata=9
    )
    check_cog(result.path, bands, mixer, dtype="uint16", nodata=9)
    result = upload_image(
        export.shards, mixer, tmp_path / "nan.tif", bands=list(bands), dtype="f4", nodata=np.nan
    )
    check_cog(result.path, bands, mixer, dtype="float32", nodata=np.nan)


@given(affines(), st.sampled_from(["EPSG:32633", "EPSG:4326", "ESRI:54009"]))
@examples(15)
def test_affine_and_crs_are_preserved(tmp_path_factory, affine, crs):
    assume(abs(affine.a) != 1 or affine.c != 0)  # rasterio warns about an identity transform
    folder = tmp_path_factory.mktemp("affine")
    mixer = make_mixer(
        affine=affine, crs=rasterio.CRS.from_user_input(crs).to_wkt() if crs[0] == "E" else crs
    )
    band = raster_for(mixer)
    write_batches(folder / "p", mixer, [patches_of(band, mixer)])
    result = upload_image(folder / "p", mixer, folder / "map.tif")
    with rasterio.open(result.path) as file:
        assert file.crs == rasterio.CRS.from_user_input(crs)
        # A GeoTIFF stores the step and origin of an axis, whose last digit may change with a sign.
        assert tuple(file.transform) == pytest.approx(tuple(affine), rel=1e-14)
        np.testing.assert_array_equal(file.read(1), band)


def test_memory_and_overviews_of_large_rasters(tmp_path):
    mixer = make_mixer((512, 512), 8, 8)
    band = np.arange(4096 * 4096, dtype="float32").reshape(4096, 4096)
    with PredictionWriter(tmp_path / "p.gz", mixer) as writer:
        for row in range(8):
            rows = band[row * 512 : (row + 1) * 512]
            writer.write(rows.reshape(512, 8, 512).transpose(1, 0, 2))
    tracemalloc.start()
    result = upload_image(tmp_path / "p.gz", mixer, tmp_path / "map.tif")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < band.nbytes / 1.5, f"{peak / band.nbytes:.2f} of the raster"
    with rasterio.open(result.path) as file:
        assert file.overviews(1) == [2, 4, 8]
        np.testing.assert_array_equal(file.read(1, out_shape=(2048, 2048)), band[::2, ::2])
        np.testing.assert_array_equal(file.read(1), band)


# -- Zarr ---------------------------------------------------------------------------------------------


def test_zarr_preserves_dtypes_and_georeference(tmp_path):
    export, mixer, bands = kinds_export(tmp_path)
    result = upload_image(None, export.mixer, tmp_path / "map.zarr", bands=["float32", "uint8", "int16"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "map.zarr"]
    ds = xr.open_zarr(result.path, decode_coords="all", consolidated=False)
    assert set(ds) == set(bands)
    assert ds.rio.crs.to_string() == mixer.crs
    assert ds.rio.transform() == mixer.affine
    for name, band in bands.items():
        np.testing.assert_array_equal(ds[name].values, band)
    assert [ds[name].dtype for name in bands] == [np.uint8, np.int64, np.float32]


def test_nodata_in_zarr(tmp_path):
    export, _, bands = kinds_export(tmp_path)
    result = upload_image(None, export.mixer, tmp_path / "map.zarr", nodata=7, dtype="int32")
    raw = xr.open_zarr(result.path, consolidated=False, mask_and_scale=False)
    masked = xr.open_zarr(result.path, consolidated=False)
    for name, band in bands.items():
        assert raw[name].attrs["_FillValue"] == 7
        assert raw[name].dtype == np.int32
        np.testing.assert_array_equal(raw[name].values, band)
        np.testing.assert_array_equal(masked[name].values, np.where(band == 7, np.nan, band))


def test_sheared_raster_in_zarr(tmp_path):
    mixer = make_mixer(affine=Affine(30, 5, 700_000, 4, -30, 5_000_000))
    band = raster_for(mixer)
    write_batches(tmp_path / "p", mixer, [patches_of(band, mixer)])
    result = upload_image(tmp_path / "p", mixer, tmp_path / "map.zarr")
    ds = xr.open_zarr(result.path, decode_coords="all", consolidated=False)
    assert ds.rio.transform() == mixer.affine
    np.testing.assert_array_equal(ds.prediction.values, band)


# -- Dtypes, nodata and errors ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["map.tif", "map.zarr"])
@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (
            np.nan,
            {"dtype": "uint8"},
            "contains NaN, which uint8 cannot represent: pass nodata=, .* such as 255",
        ),
        (np.nan, {"dtype": "int16"}, "'prediction' contains NaN, which int16 .* such as -32768"),
        (
            -9999,
            {"dtype": "uint8"},
            "contains -9999.0, which uint8 .* If this value marks missing .* nodata=",
        ),
        (
            -9999,
            {"dtype": "uint8", "nodata": 255},
            "contains -9999.0, which uint8 .* marks missing .* nodata=",
        ),
        (256, {"dtype": "uint8"}, "contains 256.0, which uint8 cannot represent: choose another dtype"),
        (-1, {"dtype": "uint8"}, "contains -1.0, which uint8"),
        (255.6, {"dtype": "uint8"}, "contains 256.0, which uint8"),
        (np.inf, {"dtype": "int64"}, "contains inf, which int64"),
        (2.0**63, {"dtype": "int64"}, "contains 9.2233720368547.*e.18, which int64"),
    ],
)
def test_values_that_a_dtype_cannot_represent(tmp_path, name, value, options, message):
    mixer = make_mixer()
    patches = np.zeros((6, 4, 6), "f4")
    patches[5, 3, 5] = value
    write_batches(tmp_path / "p", mixer, [patches])
    with pytest.raises(RecordError, match=message):
        upload_image(tmp_path / "p", mixer, tmp_path / name, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_float16_in_zarr_and_geotiff(tmp_path):
    mixer = make_mixer((3, 1), 1, 1)
    write_batches(tmp_path / "p", mixer, [np.array([[[1.5, 65504, np.nan]]])])
    zarr = upload_image(tmp_path / "p", mixer, tmp_path / "map.zarr", dtype="float16", nodata=-999)
    found = xr.open_zarr(zarr.path, consolidated=False, mask_and_scale=False).prediction
    assert (found.dtype, found.values.tolist()) == ("float16", [[1.5, 65504, -999]])
    tif = upload_image(tmp_path / "p", mixer, tmp_path / "map.tif", dtype="float16")
    with rasterio.open(tif.path) as file:
        assert file.dtypes == ("float32",)
        assert file.read(1, masked=True).tolist() == [[1.5, 65504, None]]
    write_batches(tmp_path / "q", mixer, [np.array([[[1.5, 65520, np.inf]]])])
    with pytest.raises(RecordError, match=r"contains 65520\.0, which float16 cannot"):
        upload_image(tmp_path / "q", mixer, tmp_path / "q.zarr", dtype="float16")


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_nodata_of_float_bands_is_nan(tmp_path, kind):
    mixer = make_mixer((3, 1), 1, 1)
    write_batches(tmp_path / "p", mixer, [np.array([[[1, np.nan, 3]]])])
    result = upload_image(tmp_path / "p", mixer, tmp_path / "map.tif", dtype=kind)
    with rasterio.open(result.path) as file:
        assert np.isnan(file.nodata)
        assert file.read(1, masked=True).mask.tolist() == [[False, True, False]]


def test_64_bit_nodata(tmp_path):
    mixer = make_mixer((3, 1), 1, 1)
    write_batches(tmp_path / "p", mixer, [np.array([[[1, np.nan, 3]]])])
    for nodata in (2**53 - 1, 1 - 2**53):
        result = upload_image(tmp_path / "p", mixer, tmp_path / f"{nodata}.tif", dtype="int64", nodata=nodata)
        with rasterio.open(result.path) as file:
            assert file.read(1, masked=True).tolist() == [[1, None, 3]]
    result = upload_image(tmp_path / "p", mixer, tmp_path / "m.zarr", dtype="int64", nodata=-(2**63))
    found = xr.open_zarr(result.path, consolidated=False, mask_and_scale=False).prediction
    assert found.values.tolist() == [[1, -(2**63), 3]]


def test_integer_dtype_rounds_fractions(tmp_path):
    mixer = make_mixer((3, 1), 2, 1)
    write_batches(tmp_path / "p", mixer, [np.array([[[0.4, 254.6, np.nan]], [[-0.4, 1.5, 2.5]]])])
    result = upload_image(tmp_path / "p", mixer, tmp_path / "map.tif", dtype="uint8", nodata=9)
    with rasterio.open(result.path) as file:
        assert file.read(1).tolist() == [[0, 255, 9, 0, 2, 2]]


def test_integers_that_float32_cannot_represent(tmp_path):
    mixer = make_mixer((3, 1), 1, 1)
    with PredictionWriter(tmp_path / "p", mixer, feature_types="band") as writer:
        writer.write({"n": np.array([[[1, 2**24, 2**24 + 1]]])})
    with pytest.raises(RecordError, match="'n' contains 16777217, which float32 cannot"):
        upload_image(tmp_path / "p", mixer, tmp_path / "map.tif", dtype="float32")
    result = upload_image(tmp_path / "p", mixer, tmp_path / "map.tif", dtype="int32")
    with rasterio.open(result.path) as file:
        assert file.read(1).tolist() == [[1, 2**24, 2**24 + 1]]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("map.png", {}, "Unknown output format of 'map.png': use the extension .tif"),
        ("map.tif", {"dtype": "complex64"}, "dtype must be an integer or float type.*got 'complex64'"),
        (
            "map.tif",
            {"dtype": "uint8", "nodata": 256},
            "nodata=256 cannot be represented as uint8, .* 'prediction'",
        ),
        ("map.tif", {"dtype": "uint8", "nodata": 0.5}, "nodata=0.5 cannot be represented as uint8"),
        ("map.tif", {"dtype": "int16", "nodata": np.nan}, "nodata=nan cannot be represented as int16"),
        ("map.zarr", {"nodata": 1e300}, r"nodata=1e\+300 cannot be represented as float32"),
        ("map.zarr", {"nodata": -9999, "dtype": "float16"}, "nodata=-9999 cannot be represented as float16"),
        ("map.tif", {"nodata": "0"}, "nodata must be a number, such as -9999; got '0'"),
        ("map.zarr", {"nodata": [0]}, r"nodata must be a number, such as -9999; got \[0\]"),
        ("map.tif", {"nodata": True, "dtype": "uint8"}, "nodata must be a number"),
        ("map.tif", {"nodata": np.False_}, "nodata must be a number"),
        ("map.tif", {"nodata": -(2**63), "dtype": "int64"}, "store nodata=-9223372036854775808, .*zarr"),
        ("map.tif", {"nodata": 2**53, "dtype": "uint64"}, "GeoTIFF cannot store nodata=9007199254740992"),
        ("map.tif", {"dtype": "7" * 5000}, "dtype must be an integer or float type.*got '777"),
        ("map.tif", {"dtype": "bool"}, "dtype must be an integer or float type.*got 'bool'"),
        ("map.tif", {"dtype": "longdouble"}, "float type of at most 64 bits.*got 'longdouble'"),
        ("map.zarr", {"dtype": np.longdouble}, "float type of at most 64 bits.*got <class"),
        ("map.tif", {"if_exists": "append"}, "'error', 'overwrite' or 'resume'; got 'append'"),
        ("map.tif", {"bands": ["x"]}, "Band 'x' not found; available: 'prediction'"),
    ],
)
def test_invalid_options(tmp_path, name, options, message):
    mixer = make_mixer()
    write_batches(tmp_path / "p", mixer, [np.zeros((6, 4, 6))])
    with pytest.raises(OptionError, match=message):
        upload_image(tmp_path / "p", mixer, tmp_path / name, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("name", ["map.tif", "map.zarr"])
def test_uploads_are_atomic(tmp_path, name):
    mixer = make_mixer()
    write_batches(tmp_path / "p", mixer, [np.zeros((6, 4, 6))])
    first = upload_image(tmp_path / "p", mixer, tmp_path / name)
    with pytest.raises(DestinationExistsError, match="if_exists='overwrite'"):
        upload_image(tmp_path / "p", mixer, tmp_path / name)
    content = bytearray((tmp_path / "p").read_bytes())
    content[-50] ^= 1
    (tmp_path / "corrupt").write_bytes(bytes(content))
    (tmp_path / "short").write_bytes(bytes(content[: len(content) // 2]))
    for records, error in [("corrupt", RecordError), ("short", RecordError), ("none", MissingShardError)]:
        with pytest.raises(error, match=records):
            upload_image(tmp_path / records, mixer, tmp_path / name, if_exists="overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corrupt", name, "p", "short"]
    write_batches(tmp_path / "q", mixer, [np.ones((6, 4, 6))])
    upload_image(tmp_path / "q", mixer, first, if_exists="overwrite")
    options = {"engine": "rasterio"} if name == "map.tif" else {"engine": "zarr", "consolidated": False}
    opened = xr.open_dataset(first.path, **options)
    assert float(opened["band_data" if name == "map.tif" else "prediction"].min()) == 1
    opened.close()


@pytest.mark.parametrize("bands", [7, {"a": 1}, {"a", "b"}, b"ab", []])
def test_bands_of_a_writer_of_other_types(tmp_path, bands):
    with pytest.raises(OptionError, match=r"^bands (must be a list of names|is empty)"):
        PredictionWriter(tmp_path / "p", make_mixer(), bands=bands)
    assert not list(tmp_path.iterdir())


def test_repr_of_a_writer(tmp_path):
    with PredictionWriter(tmp_path / "p", make_mixer()) as writer:
        writer.write({"u": np.zeros((5, 4, 6)), "v": np.zeros((5, 4, 6))})
        lines = repr(writer).splitlines()
        assert lines[0] == f"<xee_tf.PredictionWriter {tmp_path / 'p'}>"
        assert [line.split(maxsplit=1) for line in lines[1:]] == [
            ["written", "5 of 6 patches"],
            ["bands", "u, v"],
        ]
        writer.write({"u": np.zeros((1, 4, 6)), "v": np.zeros((1, 4, 6))})
    assert "6 of 6 patches, closed" in repr(writer)
