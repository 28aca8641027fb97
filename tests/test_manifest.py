"""Tests of the manifest of an export, and of reading with it."""

from __future__ import annotations

import contextlib
import datetime
import functools
import gzip
import http.server
import json
import re
import shutil
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.foreign import frame
from tests.optional import optional
from tests.oracle import cut_patches
from tests.rasters import random_band, raster
from tests.strategies import examples
from xee_tf.records.framing import frame_footers, run_crc
from xee_tf.sidecars import TableManifest, read_document, read_manifest
from xee_tf.sidecars import manifest_of as parse_document
from xee_tf.sidecars.coordinates import coordinate_document, read_coordinate
from xee_tf.sidecars.find import find_export
from xee_tf.sidecars.packing import render
from xee_tf.storage import Location

cftime = optional("cftime")


def parse_manifest(text: str) -> Any:
    """Read a manifest from text, which may have been modified."""
    location = Location.of("memory://manifests/scene-image.tfexport")
    location.write_bytes(text.encode())
    return parse_document(read_document(location), str(location))


def scene(height=48, width=64, seed=0):
    bands = {
        "B4": random_band((height, width), seed=seed),
        "class": random_band((height, width), "uint8", seed=seed + 1),
        "dem": random_band((height, width), "int16", seed=seed + 2) - 60,
    }
    return raster(bands)


def cube(labels, dim="pol"):
    ds = raster({"slope": random_band((16, 16))})
    ds["sar"] = xr.DataArray(random_band((len(labels), 16, 16)), dims=(dim, "y", "x"), coords={dim: labels})
    return ds


def manifest_of(result):
    return read_manifest(result.manifest)


# -- Content -----------------------------------------------------------------------------------


def test_every_image_has_a_manifest_and_the_mixer_is_the_only_json_file(tmp_path):
    pytest.importorskip("geopandas")
    names = ("sequence_data", "collapse_bands", "index")
    for number, options in enumerate([{}, {"masked_threshold": 0.3}, *({name: True} for name in names)]):
        folder = tmp_path / str(number)
        result = cube(["a", "b"]).tfexport(folder / "s", patch_dimensions=8, **options)
        assert Path(str(result.manifest)).name == "s-image.tfexport"
        assert len(list(folder.glob("*.json"))) == (result.mixer is not None)
        manifest = manifest_of(result)
        assert manifest.options["patch_dimensions"] == [8, 8]
        assert manifest.version == xee_tf.__version__
        assert manifest.grid == result.grid
        for file, shard in zip(result.files, manifest.shards, strict=True):
            assert replace(file, path=Path(file.path).name) == shard.file
            assert shard.run_records.sum() == file.records


def test_descriptions_of_bands(tmp_path):
    ds = scene()
    ds["B4"].attrs["units"] = "K"
    ds["dem"].attrs["_FillValue"] = np.int16(-32768)
    with pytest.warns(UserWarning, match=r"default_value=-300.5 .* 0 in 'class' \(uint8\), -300 in 'dem'"):
        result = ds.tfexport(tmp_path / "s", patch_dimensions=16, default_value=-300.5, feature_types="band")
    bands = {band.name: band for band in manifest_of(result).bands}
    assert [(b.dtype, b.kind, b.default, b.nodata, b.units) for b in bands.values()] == [
        ("float32", "float", -300.5, (), "K"),
        ("uint8", "bytes", 0, (), None),
        ("int16", "int64", -300, (-32768,), None),
    ]
    assert xee_tf.open_image(result)["B4"].attrs["units"] == "K"
    assert manifest_of(result).default_value == -300.5


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(["float", "band"]),
    st.booleans(),
)
@examples(10)
def test_round_trip_of_kernels(tmp_path_factory, patch, kernel, feature_types, compressed):
    ds = scene(20, 24)
    prefix = tmp_path_factory.mktemp("kernel") / "s"
    ds.tfexport(
        prefix,
        patch_dimensions=patch,
        kernel_size=kernel,
        feature_types=feature_types,
        compressed=compressed,
        max_file_size=20_000,
    )
    opened = xee_tf.open_image(prefix)
    for name in ds:
        rows, columns = opened[name].shape
        np.testing.assert_array_equal(opened[name], ds[name][:rows, :columns])
    kept = xee_tf.open_image(prefix, margins="keep")["B4"].values
    np.testing.assert_array_equal(kept, cut_patches(ds.B4.values, patch=patch, kernel=kernel, default=0)[0])


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (3, 6)},
        {"kernel_size": (1, 5), "collapse_bands": True},
        {"kernel_size": (9, 3), "tensor_depths": {"sar": 5}},
        {"sequence_data": True},
        {"sequence_data": True, "collapse_bands": True},
    ],
)
def test_round_trip_of_array_bands(tmp_path, options):
    ds = cube(np.array(["VV", "VH", "HH"]))
    result = ds.tfexport(tmp_path / "s", patch_dimensions=8, **options)
    opened = xee_tf.open_image(result)
    np.testing.assert_array_equal(opened.sar[:3], ds.sar)
    np.testing.assert_array_equal(opened.slope, ds.slope)
    if "tensor_depths" not in options:
        assert opened.pol.values.tolist() == ["VV", "VH", "HH"]


def test_options_override_the_manifest(tmp_path):
    result = scene(32, 32).tfexport(tmp_path / "s", patch_dimensions=(16, 8), kernel_size=(8, 8))
    assert xee_tf.open_image(result, kernel_size=(9, 8)).sizes["x"] == 32
    with pytest.raises(xee_tf.RecordError, match="kernel_size="):
        xee_tf.open_image(result, kernel_size=(2, 2))
    with pytest.raises(xee_tf.RecordError, match="tensor_depths"):
        xee_tf.open_image(result, tensor_depths={"B4": 7})
    deep = xee_tf.open_image(result, tensor_depths={"B4": 1})
    assert deep.B4.shape == (1, 32, 32)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint32", "int64"])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 3}, {"masked_threshold": 0.9}])
def test_integer_dtypes_are_restored(tmp_path, dtype, options):
    band = random_band((16, 16), dtype)
    limits = np.iinfo(dtype)
    band[0, :2] = limits.min, limits.max
    band[8:, 8:] = 7
    ds = raster({"b": band, "f": random_band((16, 16))})
    ds.b.attrs["_FillValue"] = band.dtype.type(7)
    result = ds.tfexport(tmp_path / "s", patch_dimensions=8, feature_types="band", default_value=7, **options)
    expected = {"b": np.dtype(dtype), "f": np.dtype("float32")}
    for chunks in ({}, None):
        opened = xee_tf.open_image(result, chunks=chunks)
        assert {name: variable.dtype for name, variable in opened.items()} == expected
        np.testing.assert_array_equal(opened.b, ds.b)
        assert opened.b.values.dtype == dtype
    masked = xee_tf.open_image(result, default_value=7).b
    assert masked.dtype == np.result_type(dtype, "float32")
    if dtype != "int64":
        np.testing.assert_array_equal(masked, ds.b.where(ds.b != 7))
    # Records that are passed separately may be predictions with other values.
    assert xee_tf.open_image(result, result.files).b.dtype == "int64"
    Path(result.manifest.path).unlink()
    if result.mixer is not None:
        assert xee_tf.open_image(result.mixer).b.dtype == "int64"


def test_missing_steps_are_in_the_range_of_the_restored_dtype(tmp_path):
    ds = raster({"f": random_band((4, 4))})
    ds["b"] = (("time", "y", "x"), random_band((3, 4, 4), "uint16") % 100 + 1)
    ds["b"][1, :2] = 9
    ds.b.attrs["_FillValue"] = np.uint16(9)
    with pytest.warns(UserWarning, match="default_value=-1 cannot be represented"):
        result = ds.tfexport(
            tmp_path / "s",
            patch_dimensions=2,
            sequence_data=True,
            drop_masked_steps=True,
            feature_types="band",
            default_value=-1,
        )
    opened = xee_tf.open_image(result)
    assert opened.b.dtype == "uint16"
    assert int(opened.b.max()) <= 100
    assert int(opened.b.min()) == 0


# -- Coordinates -------------------------------------------------------------------------------------


def arrow_text() -> Any:
    pytest.importorskip("pyarrow")
    return pd.array(["VV", "VH"], dtype="string[pyarrow]")


COORDINATES = {
    "text": np.array(["VV", "VH"]),
    "object": np.array(["VV", "VH"], object),
    "StringDType": np.array(["VV", "日本"], np.dtypes.StringDType()),
    "pandas": pd.array(["VV", "VH"], dtype="string"),
    "arrow": arrow_text,
    "categories": pd.Categorical(["b", "a"]),
    "bytes": np.array([b"VV", b"\xff"]),
    "days": np.array(["2020-05-01", "1969-01-31"], "datetime64[s]"),
    "nanoseconds": np.array(["2020-05-01T00:00:00.123456789", "NaT"], "datetime64[ns]"),
    "timedelta": np.array([90, -1], "timedelta64[s]"),
    "boolean": np.array([True, False]),
    "float32": np.array([0.1, np.nan], "float32"),
    "infinite": np.array([-np.inf, np.inf]),
    "int64": np.array([2**60 + 1, -5]),
    "big-endian": np.array([1, 300], ">i2"),
    "360_day": np.array([cftime.Datetime360Day(2020, 2, 30), cftime.Datetime360Day(1850, 1, 1)], object),
    "noleap": np.array(
        [cftime.DatetimeNoLeap(2001, 2, 28, 6, 0, 0, 1), cftime.DatetimeNoLeap(1, 3, 1)], object
    ),
}


@pytest.mark.parametrize("kind", list(COORDINATES))
def test_round_trip_of_coordinates(tmp_path, kind):
    given_values = COORDINATES[kind]
    if callable(given_values):
        given_values = given_values()
    ds = cube(given_values)
    prefix = tmp_path / "s"
    ds.tfexport(prefix, patch_dimensions=8)
    found = xee_tf.open_image(prefix).pol.values
    np.testing.assert_array_equal(found, np.asarray(given_values))
    expected = np.asarray(given_values).dtype
    if isinstance(found[0], cftime.datetime):
        assert [value.calendar for value in found] == [kind, kind]
    else:
        assert found.dtype.kind == ("U" if expected.kind in "OT" else expected.kind)


def test_invalid_dates_raise():
    document = coordinate_document(COORDINATES["noleap"])
    for damage in ({"values": ["tomorrow"]}, {"calendar": "lunar"}):
        with pytest.raises(ValueError, match="calendar"):
            read_coordinate({**document, **damage})


def test_round_trip_of_text_from_a_zarr_store(tmp_path):
    cube(["VV", "VH"]).assign_coords(pol=np.array(["VV", "VH"], object)).to_zarr(
        tmp_path / "a.zarr", consolidated=False
    )
    opened = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    opened.tfexport(tmp_path / "s", patch_dimensions=8)
    assert xee_tf.open_image(tmp_path / "s").pol.values.tolist() == ["VV", "VH"]
    xee_tf.upload_image(None, tmp_path / "s", tmp_path / "s.tif")
    with rasterio.open(tmp_path / "s.tif") as file:
        assert set(file.descriptions) == {"slope", "sar_VV", "sar_VH"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([datetime.date(2020, 5, 1)], np.array(["2020-05-01"], "datetime64[D]")),
        ([pd.Timestamp("2020-05-01T02", tz="Europe/Berlin")], np.array(["2020-05-01T00"], "datetime64[s]")),
        (["a", None], np.array(["a", None], object)),
        ([1, None], np.array([1.0, np.nan])),
        ([pd.Period("2020-05", "M")], np.array(["2020-05"])),
        ([3, 4], np.array([3, 4])),
        ([b"a", b"bc"], np.array([b"a", b"bc"])),
        ([], np.array([], "float64")),
    ],
)
def test_coordinates_of_objects(values, expected):
    array = np.array([*values, None], object)[:-1] if values else np.array([], float)
    found = read_coordinate(json.loads(json.dumps(coordinate_document(array))))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("value", ["2020-01-01T00:00Z", "2020-01-01T00+01", "2020-01-01 00:00-0500", "now"])
def test_times_that_depend_on_the_place_or_the_moment_are_refused(value):
    with pytest.raises(ValueError, match="not a time in ISO 8601"):
        read_coordinate({"dtype": "<M8[s]", "values": ["2020-01-01", value]})


@pytest.mark.parametrize("unit", ["Y", "W", "h", "s", "as"])
def test_extreme_times_survive(unit):
    times = np.array([-(10**6), 0, 10**6], f"<M8[{unit}]")
    np.testing.assert_array_equal(read_coordinate(coordinate_document(times)), times)


@pytest.mark.parametrize("values", [[(1, 2)], ["a", 1], [{}], [object()]])
def test_unsupported_coordinates_are_omitted(values):
    array = np.empty(len(values), object)
    array[:] = values
    assert coordinate_document(array) is None


# -- Sources ------------------------------------------------------------------------------


def test_sources_of_an_image(tmp_path):
    tf = pytest.importorskip("tensorflow")

    ds = scene(32, 32)
    result = ds.tfexport(tmp_path / "s", patch_dimensions=16, kernel_size=(3, 5))
    for source in (
        result,
        tmp_path,
        f"{tmp_path}/",
        tmp_path / "s",
        tmp_path / "s-mixer.json",
        tmp_path / "s-image.tfexport",
        result.mixer,
        result.manifest,
    ):
        np.testing.assert_array_equal(xee_tf.open_image(source).dem, ds.dem)
        assert xee_tf.feature_spec(source)["dem"] == tf.io.FixedLenFeature([20, 18], tf.float32)
        first = next(iter(xee_tf.tf_dataset(source, inputs="B4", margins="trim", batch_size=4)))
        np.testing.assert_array_equal(first[0, ..., 0], ds.B4[:16, :16])
        with xee_tf.PredictionWriter(tmp_path / "p.tfrecord", source, if_exists="overwrite") as writer:
            writer.write({"p": np.ones((4, 16, 16), "float32")})
        assert xee_tf.open_image(source, tmp_path / "p.tfrecord").sizes == {"y": 32, "x": 32}
        (tmp_path / "p.tfrecord").unlink()
    xee_tf.upload_image(None, result, tmp_path / "s.tif")
    with xr.open_dataset(result, engine="tfrecord") as opened:
        assert opened.encoding["source"] == str(result.mixer)


def test_sources_of_a_table(tmp_path):
    pytest.importorskip("geopandas")
    frame = pd.DataFrame({"a": [1.0, 2.0], "lon": [13.0, 14.0], "lat": [45.0, 46.0]})
    frame["patch"] = [np.arange(6.0).reshape(2, 3)] * 2
    result = xee_tf.export_table(frame, tmp_path / "t")
    for source in (
        result,
        tmp_path,
        tmp_path / "t",
        result.path,
        tmp_path / "t-table.tfexport",
        [result],
    ):
        found = xee_tf.open_table(source)
        assert list(found) == list(frame)
        np.testing.assert_array_equal(found.patch[1], frame.patch[1])
    flat = xee_tf.open_table(result, shapes={"patch": (6,)})
    assert flat.patch[0].shape == (6,)
    assert list(xee_tf.open_table(result, ["lat", "a"])) == ["lat", "a"]
    raster_file = xee_tf.upload_table(
        result, tmp_path / "t.parquet", x_column="lon", y_column="lat", columns=["a"]
    )
    assert raster_file.exists()
    batch = next(iter(xee_tf.tf_dataset(result, inputs=["a"], batch_size=2)))
    assert batch.numpy().tolist() == [[1.0], [2.0]]


def test_images_and_tables_share_a_prefix(tmp_path):
    image = scene(32, 32).tfexport(tmp_path / "s", patch_dimensions=16)
    table = xee_tf.export_table(pd.DataFrame({"a": [1.0]}), tmp_path / "s")
    assert {str(image.manifest), str(table.manifest)} == {
        f"{tmp_path}/s-image.tfexport",
        f"{tmp_path}/s-table.tfexport",
    }
    assert isinstance(manifest_of(table), TableManifest)
    assert "B4" in xee_tf.open_image(tmp_path / "s")
    assert list(xee_tf.open_table(tmp_path / "s")) == ["a"]


def test_sources_that_are_not_an_exported_image_raise(tmp_path):
    scene(32, 32).tfexport(tmp_path / "a", patch_dimensions=16)
    scene(32, 32).tfexport(tmp_path / "b", patch_dimensions=16)
    table = xee_tf.export_table(pd.DataFrame({"a": [1.0]}), tmp_path / "tables" / "t")
    (tmp_path / "empty").mkdir()
    for source, error, message in (
        (tmp_path, xee_tf.OptionError, r"2 exports: a-mixer.json, b-mixer.json"),
        (tmp_path / "tables", xee_tf.OptionError, "contains a table, t.tfrecord.gz, .*open_table"),
        (tmp_path / "tables" / "t", xee_tf.OptionError, "tables/t is a table: .*open_table"),
        (table.path, xee_tf.OptionError, "t.tfrecord.gz is a table: .*open_table"),
        (tmp_path / "empty", xee_tf.MissingShardError, "does not contain an export"),
        (tmp_path / "scene.TIF", xee_tf.OptionError, "scene.TIF is a raster file.*rioxarray.open_rasterio"),
        (tmp_path / "scene.zarr", xee_tf.OptionError, "scene.zarr is a raster file.*xarray.open_zarr"),
        (tmp_path / "p.tfrecord", xee_tf.MixerError, "not a mixer. For an image.*records=.*open_table"),
        ([tmp_path / "a-00000.tfrecord.gz"], xee_tf.OptionError, "first argument, and shards as records="),
        (tmp_path / "c", xee_tf.MissingShardError, "The export .*/c was not found: expected a mixer"),
        (tmp_path / "c-mixer.json", FileNotFoundError, "c-mixer.json"),
        (tmp_path / "c-image.tfexport", xee_tf.ManifestError, "c-image.tfexport does not exist"),
        (
            tmp_path / "a-00000.tfrecord.gz",
            xee_tf.MixerError,
            "is a shard.*a-mixer.json, as the first argument",
        ),
        (table, xee_tf.OptionError, "open_table"),
        (table.manifest, xee_tf.OptionError, "open_table"),
        ({"a": 1, "b": 2}, xee_tf.OptionError, r"pass one of 'a', 'b'"),
    ):
        with pytest.raises(error, match=message):
            xee_tf.open_image(source)
    xee_tf.export_table(pd.DataFrame({"a": [1.0]}), tmp_path / "tables" / "u")
    with pytest.raises(xee_tf.OptionError, match=r"2 tables: t.tfrecord.gz, u.tfrecord.gz"):
        xee_tf.open_table(tmp_path / "tables")


def test_cloud_names_and_object_stores_have_a_manifest(tmp_path):
    folder = Location.of("memory://manifest-names")
    result = scene(32, 32).tfexport(str(folder.child("s")), patch_dimensions=16, kernel_size=(1, 3))
    assert find_export(folder) == result.mixer
    np.testing.assert_array_equal(xee_tf.open_image(folder).B4, scene(32, 32).B4)
    here = scene(32, 32).tfexport(tmp_path / "s", patch_dimensions=16, kernel_size=(1, 3))
    for path in [here.mixer, here.manifest, *(Location.of(file.path) for file in here.files)]:
        shutil.move(path.path, tmp_path / path.name.replace("s-", "s"))
    np.testing.assert_array_equal(xee_tf.open_image(tmp_path / "s").B4, scene(32, 32).B4)


# -- Files that do not match -------------------------------------------------------------------


def small(folder, seed=0, **options):
    return scene(32, 32, seed).tfexport(
        folder / "s", patch_dimensions=8, **{"max_file_size": 6000, "compressed": False, **options}
    )


@pytest.mark.parametrize("options", [{}, {"kernel_size": (4, 7)}, {"sequence_data": True}])
@pytest.mark.filterwarnings("ignore:sequence_data=True, but there are no array bands")
def test_swapped_shards_raise(tmp_path, options):
    result = small(tmp_path, **options)
    first, second = (Path(file.path) for file in result.files[:2])
    assert first.stat().st_size == second.stat().st_size
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    opened = xee_tf.open_image(result)
    with pytest.raises(xee_tf.RecordError, match=r"s-00000.tfrecord: records 0 to .* another export"):
        opened.load()
    assert xee_tf.open_image(result, verify=False).load().sizes["x"] == 32
    assert not xee_tf.verify(result).ok


def test_a_shard_of_another_export_raises_when_it_is_read(tmp_path):
    result, other = small(tmp_path / "a", 1), small(tmp_path / "b", 2)
    shutil.copy(other.files[2].path, result.files[2].path)
    opened = xee_tf.open_image(result, chunks=None)
    patches = result.files[0].records
    rows_of_first = patches // result.grid.patches_per_row * 8
    if rows_of_first:
        opened["B4"][:rows_of_first].load()
    with pytest.raises(xee_tf.RecordError, match=r"s-00002.tfrecord: records .* do not match"):
        opened["B4"].load()


def test_compressed_shards_of_another_export_raise(tmp_path):
    result, other = small(tmp_path / "a", 1, compressed=True), small(tmp_path / "b", 2, compressed=True)
    shutil.copy(other.files[1].path, result.files[1].path)
    with pytest.raises(xee_tf.RecordError, match=r"s-00001.tfrecord.gz.*another export"):
        xee_tf.open_image(result).load()


def test_shards_may_be_decompressed_and_renamed(tmp_path):
    result = small(tmp_path, compressed=True)
    for file in result.files:
        path = Path(file.path)
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    np.testing.assert_array_equal(xee_tf.open_image(result).B4, scene(32, 32).B4)
    assert xee_tf.verify(result).ok
    for path in tmp_path.iterdir():
        path.rename(tmp_path / path.name.replace("s-", "other-"))
    assert xee_tf.open_image(tmp_path / "other").B4.shape == (32, 32)


def test_additional_and_missing_shards_raise(tmp_path):
    result = small(tmp_path)
    last = Path(result.files[-1].path)
    extra = tmp_path / f"s-{len(result.files):05d}.tfrecord"
    shutil.copy(last, extra)
    with pytest.raises(xee_tf.RecordError, match=r"another export|only the last shard may contain fewer"):
        xee_tf.open_image(result)
    extra.unlink()
    last.unlink()
    with pytest.raises(xee_tf.MissingShardError, match="missing"):
        xee_tf.open_image(result)


@pytest.mark.parametrize(
    ("key", "value"),
    [("patchesPerRow", 2), ("patchDimensions", [4, 16]), ("totalPatches", 20), ("patchesPerRow", 16)],
)
def test_an_edited_mixer_raises(tmp_path, key, value):
    pytest.importorskip("tensorflow")
    result = small(tmp_path)
    document = {**json.loads(Path(result.mixer.path).read_text()), key: value}
    Path(result.mixer.path).write_text(json.dumps(document))
    with pytest.raises(xee_tf.MixerError, match=f"{key} is .* in s-image.tfexport"):
        xee_tf.open_image(result)
    with pytest.raises(xee_tf.MixerError, match=key):
        xee_tf.tf_dataset(result, inputs="B4")
    [problem] = xee_tf.verify(result).problems
    assert key in problem


def test_a_mixer_with_another_origin_raises(tmp_path):
    result = small(tmp_path)
    document = json.loads(Path(result.mixer.path).read_text())
    document["projection"]["affine"]["doubleMatrix"][2] += 30
    Path(result.mixer.path).write_text(json.dumps(document))
    with pytest.raises(xee_tf.MixerError, match="doubleMatrix is"):
        xee_tf.open_image(result)
    Path(result.manifest.path).unlink()
    assert xee_tf.open_image(result).x.values[0] == 700_045


def test_a_modified_table_raises(tmp_path):
    result = xee_tf.export_table(pd.DataFrame({"a": np.arange(9.0)}), tmp_path / "t")
    other = xee_tf.export_table(pd.DataFrame({"a": np.arange(8.0)}), tmp_path / "other")
    Path(result.path).write_bytes(gzip.compress(gzip.decompress(Path(other.path).read_bytes())))
    with pytest.raises(xee_tf.RecordError, match=r"t-table.tfexport describes .* remove the manifest"):
        xee_tf.open_table(result)
    Path(result.manifest.path).unlink()
    assert len(xee_tf.open_table(tmp_path / "t")) == 8


def test_overwriting_a_table_replaces_its_manifest(tmp_path):
    xee_tf.export_table(pd.DataFrame({"a": [1.0]}), tmp_path / "t")
    result = xee_tf.export_table(pd.DataFrame({"b": [1.0, 2.0]}), tmp_path / "t", if_exists="overwrite")
    assert [column.name for column in manifest_of(result).columns] == ["b"]
    assert xee_tf.verify(result).ok


# -- Predictions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [(0, 0), (2, 1)])
@pytest.mark.parametrize("band", ["B4", "p"])
def test_predictions_with_and_without_margins(tmp_path, band, margin):
    result = scene(32, 32).tfexport(tmp_path / "s", patch_dimensions=(16, 8), kernel_size=(4, 3))
    pad = ((0, 0), (margin[1], margin[1]), (margin[0], margin[0]))
    values = np.arange(8.0)[:, None, None] * np.ones((8, 8, 16))
    with xee_tf.PredictionWriter(tmp_path / "p.tfrecord.gz", result) as writer:
        writer.write({band: np.pad(values, pad, constant_values=-1)})
    found = xee_tf.open_image(result, tmp_path / "p.tfrecord.gz")[band]
    np.testing.assert_array_equal(found[::8, ::16].values.ravel(), np.arange(8))
    assert float(found.min()) == 0


# -- Masks and CRS -----------------------------------------------------------------------------------


def masked_scene():
    ds = scene()
    ds.B4.values[3:9, 5:17] = np.nan
    ds.dem.attrs["_FillValue"] = np.int16(-60)
    return ds


@pytest.mark.parametrize("feature_types", ["float", "band"])
@pytest.mark.parametrize("options", [{}, {"kernel_size": (3, 5)}, {"sequence_data": True}])
def test_masks_survive_reading(tmp_path, feature_types, options):
    ds = masked_scene()[["B4", "dem"]].isel(y=slice(32), x=slice(32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "sequence_data=True, but there are no array bands")
        result = ds.tfexport(
            tmp_path / "s", patch_dimensions=16, default_value=-9999, feature_types=feature_types, **options
        )
    expected = {"B4": np.isnan(ds.B4.values), "dem": ds.dem.values == -60}
    for chunks in ({}, None):
        opened = xee_tf.open_image(result, default_value=-9999, chunks=chunks)
        for name, mask in expected.items():
            assert opened[name].dtype.kind == "f"
            np.testing.assert_array_equal(np.isnan(opened[name].values), mask)
            np.testing.assert_array_equal(opened[name].values[~mask], ds[name].values[~mask])
    with xr.open_dataset(result, engine="tfrecord", default_value=-9999, mask_and_scale=False) as plain:
        assert (plain.B4.values == -9999).sum() == expected["B4"].sum()


@pytest.mark.parametrize("feature_types", ["float", "band"])
def test_bands_that_cannot_represent_the_default_value(tmp_path, feature_types):
    ds = masked_scene()
    ds["class"].attrs["_FillValue"] = np.uint8(7)
    with pytest.warns(UserWarning, match=r"default_value=-9999 cannot .* 0 in 'class' \(uint8\)"):
        result = ds.tfexport(
            tmp_path / "s", patch_dimensions=16, default_value=-9999, feature_types=feature_types
        )
    with pytest.warns(UserWarning, match=r"masks no pixels of 'class' \(uint8, 0 instead\)"):
        opened = xee_tf.open_image(result, default_value=-9999)
    values = ds["class"].values
    np.testing.assert_array_equal(opened["class"], np.where(values == 7, 0, values))
    assert int(np.isnan(opened.B4.values).sum()) == 72


def test_masking_a_value_other_than_the_default_value(tmp_path):
    result = scene().tfexport(tmp_path / "s", patch_dimensions=16, feature_types="band")
    opened = xee_tf.open_image(result, default_value=5)
    for name, band in scene().items():
        assert opened[name].dtype == "float32"
        np.testing.assert_array_equal(np.isnan(opened[name].values), band.values == 5)
    for wrong in ("5", True, [5], b"5"):
        with pytest.raises(xee_tf.OptionError, match="default_value must be a number"):
            xee_tf.open_image(result, default_value=wrong)


@pytest.mark.parametrize(
    "options", [{}, {"kernel_size": (5, 3)}, {"compressed": False, "max_file_size": 9000}]
)
def test_dropped_patches_are_missing_pixels(tmp_path, options):
    pytest.importorskip("tensorflow")
    ds = scene()[["B4", "dem"]]
    ds.B4.values[:16, 16:48] = np.nan
    result = ds.tfexport(
        tmp_path / "s", patch_dimensions=16, masked_threshold=0.7, feature_types="band", **options
    )
    assert result.mixer is None
    assert result.dropped == 2
    expected = ds.dem.values.copy()
    expected[:16, 16:48] = 0
    for chunks in ({}, None, {"y": 16, "x": 16}):
        opened = xee_tf.open_image(result, chunks=chunks)
        np.testing.assert_array_equal(opened.B4, ds.B4)
        np.testing.assert_array_equal(opened.dem, expected)
    kept = xee_tf.open_image(tmp_path / "s", margins="keep")
    assert np.isnan(kept.B4[1:3].values).all()
    assert np.isnan(kept.B4[2, 1:4, 2:5].values).all()
    assert xee_tf.verify(result).ok
    assert len(list(xee_tf.tf_dataset(result, inputs="B4", batch_size=1))) == 10


def test_overriding_an_invalid_crs(tmp_path):
    pytest.importorskip("tensorflow")
    result = scene(32, 32).tfexport(tmp_path / "s", patch_dimensions=16)
    path = Path(result.mixer.path)
    path.write_text(path.read_text().replace("EPSG:32633", "LOCAL:7"))
    for margins in ("trim", "keep"):
        with pytest.raises(xee_tf.GeoreferenceError, match=r"LOCAL:7.*s-mixer.json.*crs='EPSG"):
            xee_tf.open_image(result, margins=margins)
        opened = xee_tf.open_image(result, crs="EPSG:32610", margins=margins)
        assert opened.spatial_ref.attrs["crs_wkt"].count("32610") == 1
    with xr.open_dataset(path, engine="tfrecord", crs=32610) as opened:
        assert opened.rio.crs.to_epsg() == 32610
    with pytest.raises(xee_tf.GeoreferenceError, match="crs="):
        xee_tf.upload_image(None, result, tmp_path / "s.tif")
    xee_tf.upload_image(None, result, tmp_path / "s.tif", crs=32610)
    with rasterio.open(tmp_path / "s.tif") as file:
        assert file.crs.to_epsg() == 32610
    with xee_tf.PredictionWriter(tmp_path / "p.tfrecord", result) as writer:
        writer.write(np.ones((4, 16, 16)))
    assert set(xee_tf.feature_spec(result)) == {"B4", "class", "dem"}


# -- The engine, and servers -------------------------------------------------------------------------


def test_the_engine_accepts_the_options_of_xarray(tmp_path):
    result = scene(32, 32).tfexport(tmp_path / "s", patch_dimensions=16)
    decoders = {
        "mask_and_scale": [True, False, {"B4": True}],
        "decode_times": [True, False],
        "concat_characters": [True, False],
        "decode_coords": ["all", "coordinates", True, False],
        "use_cftime": [None],
        "decode_timedelta": [True, False],
        "decode_cf": [True, False],
        "drop_variables": ["dem"],
    }
    for name, values in decoders.items():
        for value in values:
            with xr.open_dataset(result.mixer.path, engine="tfrecord", **{name: value}) as opened:
                assert opened.rio.crs.to_epsg() == 32633
                np.testing.assert_array_equal(opened.B4, scene(32, 32).B4)
    with pytest.raises(
        xee_tf.OptionError, match=r"Unknown options .*'kernel'; available: .*Did you mean 'kernel_size'"
    ):
        xr.open_dataset(result.mixer.path, engine="tfrecord", kernel=3)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.mark.parametrize(
    "options", [{}, {"compressed": False, "feature_types": "band"}, {"masked_threshold": 0.5}]
)
def test_web_servers_without_byte_ranges(tmp_path, options):
    pytest.importorskip("aiohttp")
    scene().tfexport(tmp_path / "s", patch_dimensions=16, max_file_size=20_000, **options)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        opened = xee_tf.open_image(f"http://127.0.0.1:{server.server_port}/s", chunks=None)
        np.testing.assert_array_equal(opened.dem[17:40, 3:9], scene().dem[17:40, 3:9])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_large_files_on_servers_without_byte_ranges_raise(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    from xee_tf.storage import objects

    (tmp_path / "s").write_bytes(bytes(100))
    monkeypatch.setattr(objects, "_WHOLE_FILE", 50)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(xee_tf.RecordError, match="does not support byte ranges: it sent all 100 bytes"):
            Location.of(f"http://127.0.0.1:{server.server_port}/s").read_bytes(10, 20)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# -- The file itself ---------------------------------------------------------------------------------


def test_files_of_version_0_1_0_are_read_and_replaced(tmp_path):
    ds = cube(["VV", "VH"])
    result = ds.tfexport(tmp_path / "s", patch_dimensions=8, kernel_size=4)
    Path(result.manifest.path).unlink()
    old = {
        "record": "Example",
        "fill": -5,
        "ragged": False,
        "bands": [
            {"name": "slope", "feature": "slope", "first": 0, "dims": [], "shape": []},
            {"name": "sar", "feature": "sar", "first": 0, "dims": ["pol"], "shape": [2]},
        ],
        "coords": {"pol": {"dtype": "<U2", "values": ["VV", "VH"]}},
    }
    (tmp_path / "s-dimensions.json").write_text(json.dumps(old))
    opened = xee_tf.open_image(result)
    assert opened.pol.values.tolist() == ["VV", "VH"]
    np.testing.assert_array_equal(opened.sar, ds.sar)
    ds.tfexport(tmp_path / "s", patch_dimensions=8, if_exists="overwrite")
    assert not (tmp_path / "s-dimensions.json").exists()
    assert (tmp_path / "s-image.tfexport").exists()
    for text in ("{}", "[", '{"record": 1, "fill": 0, "bands": [{}], "coords": {}}'):
        (tmp_path / "s-image.tfexport").unlink(missing_ok=True)
        (tmp_path / "s-dimensions.json").write_text(text)
        with pytest.raises(xee_tf.ManifestError, match=r"s-dimensions.json is not a valid description"):
            xee_tf.open_image(tmp_path / "s")


def test_later_format_versions(tmp_path):
    result = scene(32, 32).tfexport(tmp_path / "s", patch_dimensions=16, kernel_size=(3, 1))
    path = Path(result.manifest.path)
    document = json.loads(path.read_text())
    document["formatVersion"] = "1.7"
    document["statistics"] = {"B4": {"mean": 3}}
    document["bands"][0]["colour"] = "red"
    document["shards"][0]["etag"] = "x"
    del document["crc32c"]
    path.write_text(render(document))
    assert xee_tf.open_image(result).sizes == {"y": 32, "x": 32}
    path.write_text(render({**document, "formatVersion": "2.0"}))
    with pytest.raises(xee_tf.ManifestError, match=r"s-image.tfexport has format version 2.0.* newer"):
        xee_tf.open_image(result)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
@examples(60)
def test_arbitrary_json_raises_only_manifest_errors(hostile, data):
    document = json.loads(hostile)
    at, key = document, None
    while isinstance(at, dict | list) and at:
        parent = at
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
        at = at[key]
        if data.draw(st.booleans()):
            break
    if data.draw(st.booleans()) and isinstance(parent, dict):
        del parent[key]
    else:
        parent[key] = data.draw(JSON)
    text = json.dumps(document)
    with contextlib.suppress(xee_tf.ManifestError):
        found = parse_manifest(text)
        assert parse_manifest(found.text()).text() == found.text()


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("NaN", r"is not JSON \(NaN is not a valid number in JSON\)"),
        ("Infinity", "is not JSON"),
        ("-Infinity", "is not JSON"),
        ("1e999", "is not valid: 1e999 is out of range"),
    ],
)
def test_numbers_outside_json_or_float64_raise(hostile, number, why):
    text = hostile.replace('"defaultValue": 0.0', f'"defaultValue": {number}')
    assert text != hostile
    with pytest.raises(xee_tf.ManifestError, match=why):
        parse_manifest(text)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    labels = np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]")
    return manifest_of(cube(labels).tfexport(folder / "s", patch_dimensions=8, kernel_size=3)).text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "[]",
        "{}",
        '{"format": ["xee_tf image"]}',
        '{"format": "xee_tf image"}',
        '{"format": "xee_tf image", "formatVersion": "1.0"}',
    ],
)
def test_files_that_are_not_a_manifest(text):
    with pytest.raises(xee_tf.ManifestError, match=r"scene-image\.tfexport (is not|has format version)"):
        parse_manifest(text)


def test_manifests_do_not_allocate_huge_arrays(hostile):
    document = json.loads(hostile)
    for dtype in ("<U1000000000", "V1000000000", "O", "<f16", "nonsense"):
        document["coords"] = {"pol": {"dtype": dtype, "values": [1, 2]}}
        with pytest.raises(xee_tf.ManifestError):
            parse_manifest(json.dumps(document))
    document["coords"] = {"pol": {"dtype": "text", "values": ["a", "b" * 50_000_000]}}
    assert parse_manifest(json.dumps(document)).coords["pol"].dtype == object


def test_manifests_do_not_depend_on_chunks(tmp_path):
    texts = set()
    for number, chunks in enumerate(({"y": 48, "x": 64}, {"y": 7, "x": 13})):
        result = (
            scene().chunk(chunks).tfexport(tmp_path / str(number) / "s", patch_dimensions=8, kernel_size=3)
        )
        text = Path(result.manifest.path).read_text()
        texts.add(re.sub(r'"key": "\w+"', "", text))
    assert len(texts) == 1


def test_the_key_depends_on_inputs_and_options(tmp_path):
    def key(ds, **options):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return manifest_of(ds.tfexport(folder / "s", **{"patch_dimensions": 8, **options})).key

    assert key(scene()) == key(scene())
    others = [key(scene(seed=1)), key(scene(), patch_dimensions=16), key(scene(), default_value=1)]
    assert len({key(scene()), *others}) == 4


def test_the_checksum_of_a_run():
    data = [b"one", b"three", b"", b"four", b"fives"]
    frames = [frame(each) for each in data]
    plain = np.frombuffer(b"".join(frames), np.uint8)
    ends = frame_footers(plain, np.cumsum([len(each) for each in frames]))
    assert run_crc(ends) == crc32c(b"".join(each[-4:] for each in frames))
    assert run_crc(ends[2:], run_crc(ends[:2])) == run_crc(ends) != run_crc(ends[::-1].copy())
    assert run_crc(ends[:0], 7) == 7


def test_a_table_manifest_instead_of_an_image_manifest(tmp_path):
    result = scene().tfexport(tmp_path / "s", patch_dimensions=16)
    result.manifest.write_bytes(TableManifest(()).text().encode())
    with pytest.raises(xee_tf.ManifestError, match=r"s-image\.tfexport is the manifest of a table"):
        xee_tf.open_image(result)


@pytest.mark.parametrize("damaged", ["", "{}", '{"projection": 3}', "\0\0", '{"projection"'])
def test_damaged_mixer_beside_a_manifest(tmp_path, damaged):
    """What the error suggests works."""
    ds = raster({"B4": random_band((64, 96))})
    result = ds.tfexport(tmp_path / "s", patch_dimensions=32)
    result.mixer.write_bytes(damaged.encode())
    with pytest.raises(
        xee_tf.MixerError, match=r"Restore it, or delete it: the manifest, s-image\.tfexport, desc"
    ):
        xee_tf.open_image(tmp_path / "s")
    result.mixer.remove()
    np.testing.assert_array_equal(xee_tf.open_image(tmp_path / "s").B4, ds.B4)
