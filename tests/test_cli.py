"""The command line: options, messages and exit codes."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from cyclopts import App
from distributed import KilledWorker
from distributed.client import FuturesCancelledError
from distributed.comm import CommClosedError
from hypothesis import given
from hypothesis import strategies as st
from rasterio.env import get_gdal_config, set_gdal_config

import xee_tf
import xee_tf_cli
from tests.optional import RECORD_IMPORTS, optional
from tests.rasters import random_band, raster
from tests.strategies import examples
from xee_tf import RecordError, StorageError, demo
from xee_tf.cli.errors import options_to_flags
from xee_tf.cli.options import parse_pairs
from xee_tf.cli.rasters import open_rasters
from xee_tf.shards import FileStore
from xee_tf_cli import app, main

gpd = optional("geopandas")

SHAPE = (60, 90)


@pytest.fixture
def scene():
    return raster({"red": random_band(SHAPE), "nir": random_band(SHAPE, "uint8", seed=1)})


@pytest.fixture
def files(scene, tmp_path):
    """Return one GeoTIFF per band, named after the band."""
    georeferenced = scene.rio.write_crs(scene.attrs["crs"])
    paths = [tmp_path / f"{name}.tif" for name in scene]
    for name, path in zip(scene, paths, strict=True):
        georeferenced[name].rio.to_raster(path)
    return [str(path) for path in paths]


def test_export_writes_the_same_files_as_the_function(scene, files, tmp_path, capsys):
    options = ["--patch-dimensions", "20", "16", "--kernel-size", "6", "2", "--feature-types", "band"]
    assert main(["export", *files, str(tmp_path / "cli"), *options]) == 0
    assert "<xee_tf.ExportResult>" in capsys.readouterr().out
    scene.tfexport(tmp_path / "function", patch_dimensions=(20, 16), kernel_size=(6, 2), feature_types="band")
    for suffix in ("-00000.tfrecord.gz", "-mixer.json"):
        cli, function = (tmp_path / f"{name}{suffix}" for name in ("cli", "function"))
        assert cli.read_bytes() == function.read_bytes()


def test_export_says_what_was_resumed(files, tmp_path, capsys, monkeypatch):
    def resumed():
        assert main([*command, "--resume"]) == 0
        return re.findall("(?i).*(?:complete|resumed|continue).*", capsys.readouterr().out)

    def interrupt(store, shard, *values):
        if shard == 2:
            raise KeyboardInterrupt
        return finish(store, shard, *values)

    options = ["--patch-dimensions", "20", "--max-file-size", "5000"]
    command = ["export", *files, str(tmp_path / "scene"), *options]  # 12 shards
    finish = FileStore.finish
    with monkeypatch.context() as patch, dask.config.set(scheduler="sync"):
        patch.setattr(FileStore, "finish", interrupt)
        assert main([*command, "--resume"]) == 130
    [row] = resumed()
    assert re.fullmatch(r"  resumed +([1-9]|1[01]) of 12 shards were already complete", row)
    [row] = resumed()
    assert re.fullmatch("  resumed +all shards were already complete", row)
    command = ["export", *files, str(tmp_path / "other"), *options]
    assert resumed() == ["There was nothing to continue: the export was written from the beginning."]
    command = ["export", *files, str(tmp_path / "third"), *options]
    with monkeypatch.context() as patch, dask.config.set(scheduler="sync"):
        patch.setattr(FileStore, "finish", interrupt)
        assert main([*command, "--resume"]) == 130
    with pytest.warns(UserWarning, match="had kept for .*third was deleted"):
        assert main(command) == 0


def test_plan_writes_nothing(files, tmp_path, capsys):
    prefix = tmp_path / "out" / "scene"
    assert main(["plan", "export", *files, str(prefix), "--patch-dimensions", "20", "16"]) == 0
    assert "patches  12 = 3 rows × 4 columns of 20 × 16 px" in capsys.readouterr().out
    assert not prefix.parent.exists()


def test_export_bands_and_a_region_of_a_zarr_store(scene, tmp_path, capsys):
    store = tmp_path / "scene.zarr"
    georeferenced = scene.rio.write_crs(scene.attrs["crs"])
    georeferenced.chunk(y=30, x=30).to_zarr(store, zarr_format=2)
    box = ["700300", "4998980", "701500", "4999700"]  # left, bottom, right, top
    options = ["--bands", "nir", "--patch-dimensions", "8", "8", "--region", *box, "--no-compress"]
    assert main(["export", str(store), str(tmp_path / "part"), *options]) == 0
    assert "patches   15 = 3 rows × 5 columns" in capsys.readouterr().out
    assert (tmp_path / "part-00000.tfrecord").exists()
    opened = xee_tf.open_image(tmp_path / "part-mixer.json")
    assert list(opened) == ["nir"]
    np.testing.assert_array_equal(opened.nir, scene.nir[10:34, 10:50])


def test_bands_of_multi_band_files_are_numbered(scene, files, tmp_path, capsys):
    both = tmp_path / "both.tif"
    scene.to_array("band").rio.write_crs(scene.attrs["crs"]).astype("float32").rio.to_raster(both)
    assert main(["plan", "export", str(both), files[0], str(tmp_path / "x"), "--patch-dimensions", "8"]) == 0
    assert "3 as float: both_1, both_2, red" in capsys.readouterr().out


def test_upload_and_inspect(scene, tmp_path, capsys):
    export = scene.tfexport(tmp_path / "scene", patch_dimensions=(30, 20), kernel_size=4)
    with xee_tf.PredictionWriter(tmp_path / "predicted.tfrecord", export.mixer) as writer:
        writer.write({"class": np.arange(9 * 20 * 30, dtype="float32").reshape(9, 20, 30) % 7})
    records, mixer = str(tmp_path / "predicted.tfrecord"), str(export.mixer)
    target = tmp_path / "class.tif"
    assert main(["upload", "image", records, mixer, str(target), "--dtype", "uint8", "--nodata", "0"]) == 0
    assert f"Wrote {target}" in capsys.readouterr().out
    tif = rioxarray.open_rasterio(target)
    assert tif.dtype == "uint8"
    np.testing.assert_array_equal(tif[0, :20, :30], np.arange(600).reshape(20, 30) % 7)
    assert main(["upload", "image", records, mixer, str(target)]) == 1
    assert "--overwrite" in capsys.readouterr().err

    assert main(["inspect", mixer]) == 0
    out = capsys.readouterr().out
    assert "patches  9 = 3 rows × 3 columns of 30 × 20 px, stored with margins as 34 × 24" in out
    assert "bands    2 as float: red, nir" in out
    assert "x        700000.0 to 702700.0, steps of 30.0" in out
    assert main(["inspect", records]) == 0
    assert "an Example\n  class         float, 600 values" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["mean", "mode"])
def test_overviews_are_those_of_to_cog(method, tmp_path, capsys):
    """The model adds one."""
    tf = pytest.importorskip("tensorflow")
    values = np.random.default_rng(4).integers(0, 3, (1024, 640)).astype("f4")
    image = raster({"B4": values}).chunk(x=512, y=512)
    export = image.tfexport(tmp_path / "s", patch_dimensions=64)
    xee_tf.to_cog(image, tmp_path / "B4.tif")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), tf.float32, "pixels")])
    def predict(pixels):
        return {"sum": pixels[..., 0] + 1}

    tf.saved_model.save(tf.Module(), tmp_path / "model", signatures=predict)
    how = ["--overview-resampling", method]
    uploaded, predicted = tmp_path / "u.tif", tmp_path / "p.tif"
    assert main(["upload", "image", str(tmp_path / "s"), str(export.mixer), str(uploaded), *how]) == 0
    rasters = [str(tmp_path / "B4.tif"), str(predicted)]
    assert main(["predict", str(tmp_path / "model"), *rasters, "--input-tile-size", "64", *how]) == 0
    expected = [xee_tf.to_cog(image, tmp_path / "a.tif", overview_resampling=method)]
    expected.append(
        xee_tf.to_cog((image + 1).rename(B4="sum"), tmp_path / "b.tif", overview_resampling=method)
    )
    for found, same in zip((uploaded, predicted), expected, strict=True):
        assert found.read_bytes() == same.read_bytes()
    command = ["upload", "image", str(tmp_path / "s"), str(export.mixer), str(tmp_path / "s.zarr"), *how]
    assert main(command) == 1
    assert "--overview-resampling" in capsys.readouterr().err


@pytest.fixture
def cube(tmp_path):
    """Return the path and the bands of a Zarr store with a scalar band and a band of three dates."""
    ds = raster({"slope": random_band(SHAPE)})
    values = random_band((3, *SHAPE), seed=1)
    values[1, 5] = np.nan
    ds["ndvi"] = (("time", "y", "x"), values)
    ds = ds.assign_coords(time=np.array(["2020-05-01", "2020-06-01", "2021-01-01"], "datetime64[ns]"))
    ds.rio.write_crs(ds.attrs["crs"]).to_zarr(tmp_path / "cube.zarr", zarr_format=2)
    return str(tmp_path / "cube.zarr"), ds[["ndvi", "slope"]]


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--tensor-depths", "ndvi=2"], {"tensor_depths": {"ndvi": 2}}),
        (["--collapse-bands", "--tensor-depths", "ndvi=4"], {"collapse_bands": True, "tensor_depths": [4]}),
        (["--sequence-data"], {"sequence_data": True}),
        (["--sequence-data", "--drop-masked-steps"], {"sequence_data": True, "drop_masked_steps": True}),
    ],
)
def test_export_of_array_bands_writes_the_same_files_as_the_function(cube, tmp_path, flags, options, capsys):
    store, ds = cube
    patch = ["--patch-dimensions", "30", "20", "--bands", "ndvi,slope"]
    assert main(["export", store, str(tmp_path / "cli"), *flags, *patch]) == 0
    ds.tfexport(tmp_path / "function", patch_dimensions=(30, 20), **options)
    for suffix in ("-00000.tfrecord.gz", "-mixer.json", "-image.tfexport"):
        cli, function = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("cli", "function"))
        # Manifests contain the names of shards, a checksum of themselves, and a key made from names in Dask.
        differ = rb'"key": "\w+"|^  "crc32c": "\w+"|(cli|function)-'
        cli, function = (re.sub(differ, b"", text, flags=re.MULTILINE) for text in (cli, function))
        assert cli == function


def test_export_split_by_date(cube, tmp_path, capsys):
    flags = ["--split-dim", "time", "--patch-dimensions", "30", "20"]
    arguments = ["export", cube[0], str(tmp_path / "date"), *flags]
    assert main(["plan", *arguments]) == 0
    assert "exports  3, one for each step" in capsys.readouterr().out
    assert main(arguments) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert re.fullmatch("3 exports, .* in 3 shards", first)
    assert [row.split()[0] for row in rows] == ["20200501", "20200601", "20210101"]
    assert rows[0].endswith("date_20200501-mixer.json")
    mixers = sorted(path.name for path in tmp_path.glob("date*mixer.json"))
    assert mixers == [f"date_{day}-mixer.json" for day in ("20200501", "20200601", "20210101")]


def test_upload_image_with_crs_and_64_bit_nodata(scene, tmp_path):
    result = scene.tfexport(tmp_path / "scene", patch_dimensions=8)
    mixer = tmp_path / "scene-mixer.json"
    files = [file.path for file in result.files]
    mixer.write_text(mixer.read_text().replace("EPSG:32633", "LOCAL:1"))
    path = tmp_path / "map.zarr"
    tokens = ["upload", "image", *files, str(mixer), str(path), "--dtype", "int64", "--crs", "EPSG:32755"]
    assert main([*tokens, "--nodata", "9007199254740993"]) == 0
    found = xr.open_zarr(path, consolidated=False, mask_and_scale=False, decode_coords="all")
    assert found.rio.crs.to_epsg() == 32755
    assert {int(band.attrs["_FillValue"]) for band in found.data_vars.values()} == {9007199254740993}


def test_inspect_and_upload_array_bands(cube, tmp_path, capsys):
    store, ds = cube
    patch = ["--patch-dimensions", "30", "20"]
    bands = ["--bands", "ndvi,slope"]
    for name, flags in {"patches": [], "pixels": ["--sequence-data"], "one": ["--collapse-bands"]}.items():
        assert main(["export", store, str(tmp_path / name), *patch, *bands, *flags]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "patches-mixer.json")]) == 0
    out = capsys.readouterr().out
    assert "bands    2 as float: ndvi (time), slope\n" in out
    assert "time     3 steps, 2020-05-01 to 2021-01-01\n" in out
    assert "records  9 Examples; 1 shard" in out
    assert main(["inspect", str(tmp_path / "pixels-mixer.json")]) == 0
    out = capsys.readouterr().out
    assert "bands    2 as float: ndvi (time), slope\n" in out
    assert "records  5,400 SequenceExamples, one per pixel, 600 per patch; 1 shard" in out
    assert main(["inspect", str(tmp_path / "one-mixer.json")]) == 0
    assert "ndvi (time), slope; collapsed into the feature ndvi\n" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "pixels-00000.tfrecord.gz")]) == 0
    assert (
        "a SequenceExample\n  slope         float, 1 value\n  ndvi          float, 3 steps"
        in capsys.readouterr().out
    )

    records, mixer = str(tmp_path / "patches-00000.tfrecord.gz"), str(tmp_path / "patches-mixer.json")
    target = str(tmp_path / "ndvi.tif")
    assert (
        main(["upload", "image", records, mixer, target, "--bands", "ndvi", "--tensor-depths", "ndvi=3"]) == 0
    )
    expected = ds.ndvi.fillna(0)
    np.testing.assert_array_equal(rioxarray.open_rasterio(target), expected)
    assert main(["inspect", mixer, "--tensor-depths", "slope=3"]) == 1
    assert "xee-tf inspect: " in capsys.readouterr().err


def test_upload_table(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    places = {"easting": [500_000.0, 500_030.0], "northing": [5e6, 5e6 + 30], "name": ["öak", "fir"]}
    xee_tf.export_table(pd.DataFrame(places), tmp_path / "sites")
    records, target = str(tmp_path / "sites.tfrecord.gz"), str(tmp_path / "sites.gpkg")
    assert main(["upload", "table", records, target, "--crs", "EPSG:32633"]) == 1
    message = "as --x-column and --y-column."
    assert message in capsys.readouterr().err
    columns = ["--x-column", "easting", "--y_column", "northing"]
    assert main(["upload", "table", records, target, "--crs", "EPSG:32633", *columns]) == 0
    assert f"Wrote {target}" in capsys.readouterr().out
    found = gpd.read_file(target)
    assert found.crs == "EPSG:32633"
    assert found.geometry.to_wkt().tolist() == ["POINT (500000 5000000)", "POINT (500030 5000030)"]
    assert found.name.tolist() == ["öak", "fir"]
    assert main(["upload", "table", records, target, "--crs", "EPSG:32633", *columns]) == 1
    assert "xee-tf upload table: " in capsys.readouterr().err
    again = [*columns, "--columns", "name", "--charset", "latin-1", "--overwrite"]
    assert main(["upload", "table", records, target, "--crs", "EPSG:32633", *again]) == 0
    assert gpd.read_file(target).name.tolist() == ["Ã¶ak", "fir"]


@pytest.mark.parametrize("depth", ["ndvi", "=3", "ndvi=", "ndvi=x", "ndvi=-1", "ndvi=3,", "ndvi=3,evi"])
def test_tensor_depths_are_pairs(cube, tmp_path, depth, capsys):
    assert main(["export", cube[0], str(tmp_path / "x"), "--tensor-depths", depth]) == 2
    message = f"Invalid value for --tensor-depths: expected BAND=DEPTH, such as ndvi=12; got {depth!r}."
    assert message in capsys.readouterr().err


def test_messages_contain_flags(cube, tmp_path, capsys):
    assert main(["export", cube[0], str(tmp_path / "x"), "--drop-masked-steps"]) == 1
    assert ": --drop-masked-steps requires --sequence-data, because" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "none-mixer.json"], "none-mixer.json"),
        (["inspect", "none.tfrecord"], "none.tfrecord"),
        (["export", "none.tif", "out/x"], "none.tif: No such file"),
        (["export", "none.zarr", "out/x"], "none.zarr: No such file"),
        (["upload", "image", "a.tfrecord", "none-mixer.json", "out.tif"], "none-mixer.json"),
    ],
)
def test_errors_are_one_line_and_exit_1(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    captured = capsys.readouterr()
    command = " ".join(arguments[: 2 if arguments[0] == "upload" else 1])
    assert captured.err.startswith(f"xee-tf {command}: ")
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s-mixer.json", "s-mixer.json is a file of an export, not a raster: convert the export first"),
        ("s-00000.tfrecord.gz", "s-00000.tfrecord.gz is a file of an export, not a raster"),
        ("s", "s is the prefix of an export, not a raster"),
        ("note.txt", "note.txt cannot be opened as a raster: GDAL does not know its format"),
        ("folder", "folder cannot be opened as a raster: it is a folder, but not a Zarr store."),
        (".", "it is a folder, but not a Zarr store; it contains exports (s-mixer.json)"),
        ("store", "it is a Zarr store, whose name must end with .zarr"),
        ("s.zarr", "s.zarr does not exist, or is not a Zarr store"),
    ],
)
def test_files_that_are_no_rasters(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "zarr.json").write_text("{}")
    (tmp_path / "note.txt").write_text("no raster")
    raster({"B4": random_band((32, 32))}).tfexport("s", patch_dimensions=16)
    assert main(["export", name, "out/x"]) == 1
    assert message in capsys.readouterr().err


def write_several(path, *sizes):
    """Write a file that GDAL opens as several rasters: their numbers of bands and heights."""
    driver = {".gpkg": "GPKG", ".tif": "GTiff"}[path.suffix]
    for number, (count, height) in enumerate(sizes):
        dtype = "float32" if count == 1 else "uint8"  # in a GeoPackage, uint8 always has 4 bands
        size = {"count": count, "height": height, "width": 40, "dtype": dtype}
        grid = {"crs": "EPSG:32633", "transform": Affine(30, 0, 7e5, 0, -30, 5e6)}
        options = {"APPEND_SUBDATASET": "YES"} if number else {}
        if driver == "GPKG":
            options["RASTER_TABLE"] = ("red", "nir")[number]
        with rasterio.open(path, "w", driver, **size, **grid, **options) as file:
            file.write(np.full((count, height, 40), number, dtype))
    return str(path)


@pytest.mark.parametrize(("bands", "names"), [(1, "red, nir"), (4, "red_B1, red_B2, red_B3, red_B4, nir_B1")])
@pytest.mark.filterwarnings("default::rasterio.errors.NotGeoreferencedWarning")  # rioxarray records it
def test_file_with_several_rasters_on_one_grid(bands, names, tmp_path, capsys):
    source = write_several(tmp_path / "several.gpkg", (bands, 40), (bands, 40))
    assert main(["plan", "export", source, str(tmp_path / "x"), "--patch-dimensions", "20"]) == 0
    assert f": {names}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "second", "what"),
    [
        ("s.gpkg", (1, 20), "2 rasters with different grids or numbers of bands"),
        ("s.gpkg", (4, 40), "2 rasters with different grids or numbers of bands"),
        ("s.tif", (1, 40), "2 pages"),
    ],
)
def test_file_with_rasters_that_are_not_one_image(name, second, what, tmp_path, capsys):
    source = write_several(tmp_path / name, (1, 40), second)
    command = [str(tmp_path / "x"), "--patch-dimensions", "20"]
    assert main(["plan", "export", source, *command]) == 1
    found = re.search(
        f"{what}: pass GDAL's name of one of them, such as (.*)\\.$", capsys.readouterr().err.strip()
    )
    assert main(["plan", "export", found[1], *command]) == 0


@pytest.mark.parametrize("size", [100, 500, 1000, 3000])
def test_damaged_rasters_are_named(size, files, tmp_path, capsys):
    os.truncate(files[1], size)
    assert main(["export", *files, str(tmp_path / "x"), "--patch-dimensions", "20"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "nir.tif" in error
    assert "damaged or incomplete" in error


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_raster_whose_name_is_no_text(files, tmp_path, capsys):
    name = str(tmp_path / "re\udcff.tif")
    os.rename(files[0], name)
    assert main(["export", name, str(tmp_path / "x"), "--patch-dimensions", "20"]) == 1
    assert "cannot be opened as a raster: its name is no text in UTF-8. Rename it" in capsys.readouterr().err


def test_names_of_bands(files, scene, tmp_path, capsys):
    def bands_of(*arguments):
        assert main(["plan", "export", *arguments, str(tmp_path / "x"), "--patch-dimensions", "20"]) == 0
        return re.search("bands +.*: (.*)", capsys.readouterr().out)[1]

    both = tmp_path / "both.tif"
    scene.rio.write_crs(scene.attrs["crs"]).astype("f4").rio.to_raster(both)
    assert bands_of(files[0]) == "red"
    assert bands_of(*files) == "red, nir"
    assert bands_of(str(both)) == "red, nir"
    assert bands_of(str(both), files[1]) == "both_1, both_2, nir"
    assert bands_of(files[0], "--band-names", "B4") == "B4"
    assert bands_of(str(both), files[1], "--band-names", "a,b,c") == "a, b, c"
    (tmp_path / "other").mkdir()
    again = Path(files[0]).rename(tmp_path / "other" / "nir.tif")
    assert bands_of(files[1], str(again), "--band-names", "a,b", "--bands", "b") == "b"
    assert main(["export", files[1], str(again), "x"]) == 1
    assert "name all bands with --band-names, or omit" in capsys.readouterr().err
    for names in ("a", "a,a", "a,b,c"):
        assert main(["export", files[1], str(again), "x", "--band-names", names]) == 1
        assert "--band-names must have a different name for each of the 2 bands" in capsys.readouterr().err
    for name in ("x", "y", "spatial_ref"):
        assert main(["export", str(both), "x", "--band-names", f"a,{name}"]) == 1
        expected = f"--band-names contains {name!r}, which is the name of a coordinate or empty"
        assert expected in capsys.readouterr().err


def test_raster_in_a_bucket_that_does_not_exist(s3_server, monkeypatch, capsys):
    monkeypatch.setenv("AWS_S3_ENDPOINT", s3_server.removeprefix("http://"))
    options = {"AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in (options | keys).items():
        monkeypatch.setenv(name, value)
    assert main(["export", "s3://missing/a.tif", "out/x"]) == 1
    error = capsys.readouterr().err
    assert "s3://missing/a.tif cannot be opened as a raster: it does not exist, or access is denied" in error
    assert "GDAL, which opens it, takes credentials and addresses from its own environment" in error


def test_url_with_one_slash(files, capsys):
    for tokens in (["s3:/bucket/a.tif", "out/s"], [*files, "s3:/bucket/s"]):
        assert main(["export", *tokens]) == 1
        assert "has one slash where a URL has two: pass s3://bucket/" in capsys.readouterr().err


def test_credentials_come_from_the_environment(monkeypatch, files, capsys):
    """Commands have no storage options."""
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    assert main(["export", *files, "s3://bucket/s"]) == 1
    error = capsys.readouterr().err
    assert "no credentials were found" in error
    assert (
        "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with aws configure."
        in error
    )


def test_unknown_band_lists_the_available_ones(files, tmp_path, capsys):
    assert main(["export", *files, str(tmp_path / "x"), "--bands", "blue"]) == 1
    assert "Band 'blue' not found; available: 'red', 'nir'" in capsys.readouterr().err
    assert main(["export", *files, str(tmp_path / "x"), "--bands", "red,NIR"]) == 1
    assert "Band 'NIR' not found; available: 'red', 'nir'. Did you mean 'nir'?" in capsys.readouterr().err


def test_module_prints_the_version():
    run = subprocess.run(
        [sys.executable, "-m", "xee_tf", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == f"xee-tf {xee_tf.__version__}"


def test_predict_to_geotiff_and_zarr(scene, files, tmp_path, capsys, monkeypatch):
    tf = pytest.importorskip("tensorflow")

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, len(files)), tf.float32, "pixels")])
    def predict(pixels):
        total = tf.reduce_sum(pixels, axis=-1)
        return {"total": total, "high": tf.cast(total > 100, tf.uint8)}

    tf.saved_model.save(module, tmp_path / "model", signatures=predict)
    flags = ["--input-tile-size", "16", "12", "--output-bands", "total,high=uint8"]
    names = [str(tmp_path / name) for name in ("out.tif", "out.zarr")]
    assert main(["plan", "predict", str(tmp_path / "model"), *files, names[0], *flags]) == 0
    assert "of 16 × 12 px\n" in capsys.readouterr().out
    assert not Path(names[0]).exists()
    for name in names:
        assert main(["predict", str(tmp_path / "model"), *files, name, *flags]) == 0
        assert f"Wrote {name}" in capsys.readouterr().out
    total = sum(scene[band].values.astype("f4") for band in scene)
    store = xr.open_zarr(names[1], decode_coords="all", consolidated=False)
    np.testing.assert_array_equal(store.total, total)
    with rasterio.open(names[0]) as file:
        assert file.descriptions == ("total", "high")
        assert file.transform == store.rio.transform()
        np.testing.assert_array_equal(file.read(1), total)
        np.testing.assert_array_equal(file.read(2), total > 100)
    assert main(["predict", str(tmp_path / "model"), *files, names[1], *flags]) == 0
    assert capsys.readouterr().out == f"{names[1]} was already complete: nothing was predicted.\n"
    assert main(["predict", str(tmp_path / "model"), *files, names[0], *flags]) == 1
    assert "--overwrite" in capsys.readouterr().err
    kept = str(tmp_path / "kept.tif")
    with monkeypatch.context() as patch:

        def fail(*_, computed, **__):
            computed()
            raise RecordError("No GeoTIFF was made.")

        patch.setattr("xee_tf.predict.to_cog.write_raster", fail)
        assert main(["predict", str(tmp_path / "model"), *files, kept, *flags, "--resume"]) == 1
    pattern = r"No GeoTIFF was made\. 1 of 1 chunk of predictions .*\.kept.*: run it again with --resume"
    assert re.search(pattern, capsys.readouterr().err)
    assert main(["predict", str(tmp_path / "model"), *files, kept, *flags, "--resume"]) == 0
    assert main(["predict", "no", *files, names[1], *flags, "--nodata", "9"]) == 1
    captured = capsys.readouterr()
    assert "nodata is for a .tif" in captured.err
    assert captured.out == f"Wrote {kept}. Continued: 1 of 1 chunks were already finished.\n"
    assert Path(kept).read_bytes().startswith(Path(names[0]).read_bytes())
    assert main(["predict", str(tmp_path / "model"), *files, kept, *flags, "--resume"]) == 0
    assert capsys.readouterr().out == f"{kept} was already complete: nothing was predicted.\n"
    assert main(["predict", str(tmp_path / "model"), *files, kept, *flags, "--resume", "--nodata", "-1"]) == 1
    assert "cannot be resumed: the option --nodata was None and is now -1" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "nothing"), *files, str(tmp_path / "x.tif"), *flags]) == 1
    assert "nothing" in capsys.readouterr().err


def test_predict_writes_maps_of_classes(scene, files, tmp_path, capsys):
    tf = pytest.importorskip("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, len(files)), tf.float32, "pixels")])
    def predict(pixels):
        return tf.stack([pixels[..., 0], pixels[..., 1]], axis=-1)

    tf.saved_model.save(tf.Module(), tmp_path / "model", signatures=predict)
    path = tmp_path / "o.tif"
    command = ["predict", str(tmp_path / "model"), *files, str(path), "--input-tile-size", "16"]
    assert main([*command, "--class-map", "red wins=#ff0000,nir=#000"]) == 0
    with rasterio.open(path) as file:
        assert (file.descriptions, file.dtypes) == (("class",), ("uint8",))
        assert (file.colormap(1)[0][:3], file.colormap(1)[1][:3]) == ((255, 0, 0), (0, 0, 0))
        np.testing.assert_array_equal(file.read(1), scene["nir"].values > scene["red"].values)
    assert "<Category>red wins</Category>" in Path(f"{path}.aux.xml").read_text()
    capsys.readouterr()
    for flags, message in (
        (["a,b", "--output-bands", "c"], "--output-bands and --class-map exclude each other"),
        (["a=#000,b"], "--class-map has no color for 'b'"),
        (["a=red,b=blue"], "must be a color such as '#2f7d4f'"),
        (["a,b,c"], "as the argmax of 3 classes, 'a', 'b', 'c', but the output"),
    ):
        assert main([*command, "--overwrite", "--class-map", *flags]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (-3, 7, ""),
        (5, 2**63 + 1, "9223372036854775809, which float64 cannot"),
        (2**53 + 1, 1, "9007199254740993"),
    ],
)
def test_integers_do_not_change_in_the_common_dtype_of_a_geotiff(
    low, high, message, scene, files, tmp_path, capsys
):
    tf = pytest.importorskip("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, len(files)), tf.float32, "pixels")])
    def predict(pixels):
        like = pixels[..., 0]
        return {
            "signed": tf.fill(tf.shape(like), tf.constant(low, tf.int64)),
            "unsigned": tf.fill(tf.shape(like), tf.constant(high, tf.uint64)),
        }

    tf.saved_model.save(tf.Module(), tmp_path / "model", signatures=predict)
    path = tmp_path / "o.tif"
    flags = ["--input-tile-size", "16", "--output-bands", "signed=int64,unsigned=uint64"]
    code = main(["predict", str(tmp_path / "model"), *files, str(path), *flags])
    error = capsys.readouterr().err
    assert code == bool(message)
    if message:
        assert message in error
        assert "--output-bands signed=int32, or write a .zarr" in error
        assert not path.exists()
    else:
        with rasterio.open(path) as file:
            assert (set(file.read(1).ravel()), set(file.read(2).ravel())) == ({low}, {high})


def test_float16_outputs_become_float32_in_a_geotiff(files, tmp_path):
    keras = pytest.importorskip("keras")

    pixels = keras.Input((None, None, len(files)))
    halves = keras.layers.Lambda(lambda values: keras.ops.cast(values[..., :1], "float16"))(pixels)
    keras.Model(pixels, halves).export(tmp_path / "model", verbose=False)
    path = tmp_path / "o.tif"
    flags = ["--input-tile-size", "16", "--output-bands", "half=float16"]
    assert main(["predict", str(tmp_path / "model"), *files, str(path), *flags]) == 0
    with rasterio.open(files[0]) as source, rasterio.open(path) as file:
        assert file.dtypes == ("float32",)
        np.testing.assert_array_equal(file.read(1), source.read(1))


# -- Options with several values, and paths in messages --------------------------------------------------


@pytest.fixture
def two_bands(scene, tmp_path):
    path = tmp_path / "scene.tif"
    both = scene.astype("float32").to_array("band").rio.write_crs(scene.attrs["crs"])
    both.attrs["long_name"] = ("red", "nir")
    both.rio.to_raster(path)
    return str(path)


@pytest.mark.parametrize(
    "order",
    [
        "--bands nir,red SCENE OUT",
        "--bands=nir,red SCENE OUT",
        "--bands nir --bands red SCENE OUT",
        "SCENE --bands nir,red OUT",
        "SCENE OUT --bands nir,red",
        "--bands nir,red --overwrite -- SCENE OUT",
        "SCENE OUT --bands nir --overwrite --bands red",
    ],
)
def test_bands_do_not_consume_the_destination(order, two_bands, tmp_path, capsys):
    tokens = order.replace("SCENE", two_bands).replace("OUT", str(tmp_path / "out")).split()
    assert main(["export", "--patch-dimensions", "20", *tokens]) == 0
    opened = xee_tf.open_image(tmp_path / "out-mixer.json")
    assert list(opened) == ["nir", "red"]
    assert "20 × 20 px" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        (["--patch-dimensions", "20"], (20, 20)),
        (["--patch-dimensions=20"], (20, 20)),
        (["--patch-dimensions", "20", "10"], (20, 10)),
        (["--patch-dimensions", "20", "10", "--kernel-size", "3"], (20, 10)),
    ],
)
def test_size_is_one_or_two_numbers(flags, size, two_bands, tmp_path, capsys):
    for tokens in (
        [*flags, two_bands, str(tmp_path / "a")],
        [two_bands, *flags, str(tmp_path / "a")],
        [two_bands, str(tmp_path / "a"), *flags],
    ):
        assert main(["plan", "export", *tokens]) == 0
        assert f"of {size[0]} × {size[1]} px" in capsys.readouterr().out


def test_size_of_three_numbers_is_an_error(two_bands, tmp_path, capsys):
    assert main(["export", two_bands, str(tmp_path / "a"), "--patch-dimensions", "1", "2", "3"]) == 1
    assert f"{tmp_path / 'a'}: No such file" in capsys.readouterr().err
    assert not (tmp_path / "3-mixer.json").exists()


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("SCENE OUT --bands nir red", "--bands nir,red"),
        ("SCENE OUT --bands=nir red", "--bands nir,red"),
        ("SCENE --bands nir red OUT", "--bands nir,red"),
        ("--bands nir red SCENE OUT", "--bands nir,red"),
        ("SCENE OUT --bands nir red --overwrite", "--bands nir,red"),
        ("SCENE OUT --tensor-depths nir=1 red=1", "--tensor-depths nir=1,red=1"),
        ("none.tif --bands nir OUT", ""),
        ("none.tif --bands nir -- red OUT", ""),
        ("SCENE --bands blue red", ""),
    ],
)
def test_values_separated_by_spaces_get_a_suggestion(line, suggestion, two_bands, monkeypatch, capsys):
    monkeypatch.chdir(Path(two_bands).parent)
    tokens = line.replace("SCENE", Path(two_bands).name).replace("OUT", "out").split()
    assert main(["export", "--patch-dimensions", "20", *tokens]) in (1, 2)
    message = capsys.readouterr().err
    assert (
        message.endswith(f"; did you mean {suggestion}?\n") if suggestion else "did you mean" not in message
    )


def test_suggested_commas_keep_the_destination(two_bands, tmp_path, capsys):
    tokens = ["predict", str(tmp_path / "model"), two_bands, str(tmp_path / "o.tif"), "--bands", "nir", "red"]
    assert main(tokens) == 1
    assert "'red'" in (message := capsys.readouterr().err)
    assert message.endswith("; did you mean --bands nir,red?\n")


def test_values_that_are_too_long_for_a_path(two_bands, tmp_path, capsys):
    tokens = [
        "predict",
        str(tmp_path / "model"),
        two_bands,
        str(tmp_path / "o.tif"),
        "--bands",
        "nir",
        "r" * 999,
    ]
    assert main(tokens) == 1
    assert capsys.readouterr().err.startswith("xee-tf predict: ")
    digits = "1" * 5000
    assert main(["inspect", str(tmp_path), "--tensor-depths", f"ndvi={digits}"]) == 2
    assert "expected BAND=DEPTH, such as ndvi=12; got 'ndvi=111" in (message := capsys.readouterr().err)
    assert digits not in message


def test_suggested_commas_of_columns(capsys):
    pytest.importorskip("geopandas")
    tokens = ["upload", "table", "sites.tfrecord", "sites.gpkg", "--columns", "id", "name"]
    assert main(tokens) == 1
    assert capsys.readouterr().err.endswith("; did you mean --columns id,name?\n")


def test_numbers_are_parsed_as_they_are_written():
    for text, expected in (("0.5", 0.5), ("1e3", 1000), (str(2**53 + 1), 2**53 + 1), ("-3", -3)):
        found = parse(["upload", "image", "r", "m", "o.tif", "--nodata", text])["nodata"]
        assert (found, type(found)) == (expected, int if text.lstrip("-").isdigit() else float)


def parse(tokens):
    """Return the arguments that a command is called with."""
    _, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    return bound.arguments


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "predict m --bands a,b --output-bands p,q=uint8 s.tif o.tif",
            (["s.tif"], ["a,b"], ["p,q=uint8"]),
        ),
        ("predict --output-bands p --bands a,b m s.tif t.tif o.zarr", (["s.tif", "t.tif"], ["a,b"], ["p"])),
        ("predict m s.tif t.tif --bands a o.tif", (["s.tif", "t.tif"], ["a"], None)),
        ("predict m s.tif o.tif --bands a/b --bands c", (["s.tif"], ["a/b", "c"], None)),
    ],
)
def test_parse_predict(line, expected):
    arguments = parse(line.split())
    assert (arguments["rasters"], arguments.get("bands"), arguments.get("output_bands")) == expected
    assert (arguments["model"], arguments["destination"][:2]) == ("m", "o.")


@pytest.mark.parametrize(
    ("line", "dims"),
    [
        ("predict m s.tif o.tif --array-dims time,run", ["time,run"]),
        ("predict m s.tif o.tif --no-array-dims", []),
        ("predict --no-array-dims m s.tif o.tif", []),
        ("predict m --no-array-dims s.tif --bands a o.tif", []),
        ("predict m s.tif --array-dims run --array-dims time o.tif", ["run", "time"]),
        ("predict m s.tif o.tif", None),
    ],
)
def test_parse_array_dims(line, dims):
    arguments = parse(line.split())
    assert (arguments["model"], arguments["rasters"], arguments["destination"][:2]) == ("m", ["s.tif"], "o.")
    assert arguments.get("array_dims") == dims


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predict m.keras --bands", "--bands takes NAME[,NAME...]; its value is missing."),
        ("predict m.keras", "RASTERS and DESTINATION are missing: the command takes MODEL RASTERS... DEST"),
        ("predict m.keras s.tif", "DESTINATION is missing: the command takes MODEL RASTERS... DESTINATION."),
        ("export s.tif --crs x", "PREFIX is missing: the command takes RASTERS... PREFIX."),
        ("upload table s.tfrecord", "DESTINATION is missing: the command takes RECORDS... DESTINATION."),
        (
            "upload table r --crs x s t.gpkg",
            "Unexpected argument 't.gpkg': give RECORDS... DESTINATION together",
        ),
        ("model serve a b", "Unexpected argument 'b': the command takes only PATH."),
        ("demo out", "Unexpected argument 'out': the command takes only options."),
        ("export s.tif o --kernel-size 3X5", "got '3X5'. Separate numbers by spaces: --kernel-size 3 5."),
        ("predict m s.tif o.tif --inputTileSize=9,7", "by spaces: --input-tile-size 9 7."),
        ("export s.tif o --patch-dimensions", "takes WIDTH [HEIGHT], whole numbers; its value is missing."),
        ("export --region -1.5,2,3,4 s.tif o", "Separate numbers by spaces: --region -1.5 2 3 4."),
        ("export s.tif o --region 1 2", "takes LEFT BOTTOM RIGHT TOP, numbers; got '1 2'."),
        ("upload image r m o.tif --nodata foo", "Invalid value for --nodata: expected a number; got 'foo'."),
        ("model serve m --port 1,2", "--port takes NUMBER, a whole number; got '1,2'."),
        ("inspect m --json=3", "--json takes no value; got '3'."),
        ("--kernelSize 3", "Unknown option --kernelSize. Available commands: "),
        ("model --port", "Unknown option --port. Available commands: inspect, prepare, serve."),
        ("export s.tif o --edge wrap", 'Invalid value "wrap" for --edge. Choose from: "drop", "pad"'),
        ("model prepare --source-dir m", "--dest-dir FOLDER is missing."),
        ("nothing", 'Unknown command "nothing"'),
        ("upload nothing", 'Unknown command "nothing"'),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(line, message, capsys):
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert re.match("xee-tf[: ]", captured.err)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("dims", ["time,run", "run,time"])
def test_array_dims_set_the_order_of_the_models_dimensions(dims, tmp_path, capsys):
    tf = pytest.importorskip("tensorflow")

    sizes = {"time": 3, "run": 2}
    order = dims.split(",")

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, *map(sizes.get, order), 1), tf.float32, "pixels")]
    )
    def predict(pixels):
        return {"last": pixels[..., -1, 0, 0]}

    tf.saved_model.save(tf.Module(), tmp_path / "model", signatures=predict)
    values = random_band(SHAPE).astype("f4") + np.arange(6, dtype="f4").reshape(3, 2, 1, 1)
    ds = raster({"B": values[0, 0]})
    ds["B"] = (("time", "run", "y", "x"), values)
    ds.rio.write_crs(ds.attrs["crs"]).to_netcdf(tmp_path / "s.nc")
    flags = ["--array-dims", dims, "--input-tile-size", "8", "--output-bands", "last"]
    assert (
        main(["predict", str(tmp_path / "model"), str(tmp_path / "s.nc"), str(tmp_path / "o.tif"), *flags])
        == 0
    )
    with rasterio.open(tmp_path / "o.tif") as file:
        np.testing.assert_array_equal(file.read(1), values[(-1, 0) if order[0] == "time" else (0, -1)])


@examples(30)
@given(
    st.permutations(
        [
            ["--bands", "a,b"],
            ["--patch-dimensions", "4"],
            ["--kernel-size", "3", "2"],
            ["--tensor-depths", "a=1,b=2"],
            ["--region", "-1", "-2.5", "3", "4"],
            ["--overwrite"],
            ["s.tif"],
            ["out/x"],
        ]
    )
)
def test_options_may_be_given_in_any_order(groups):
    arguments = parse(["export", *(token for group in groups for token in group)])
    first, last = [group[0] for group in groups if not group[0].startswith("-")]
    assert (arguments["rasters"], arguments["prefix"]) == ([first], last)
    sizes = (arguments["patch_dimensions"], arguments["kernel_size"])
    assert (arguments["bands"], sizes) == (["a,b"], (4, (3, 2)))
    assert (arguments["tensor_depths"], arguments["region"]) == ({"a": 1, "b": 2}, (-1, -2.5, 3, 4))
    assert arguments["overwrite"]


def test_names_of_bands_may_contain_commas(tmp_path, capsys):
    ds = raster({"a,b": random_band(SHAPE), "c": random_band(SHAPE, seed=1)})
    ds.rio.write_crs(ds.attrs["crs"]).to_zarr(tmp_path / "s.zarr", zarr_format=2)
    store, prefix = str(tmp_path / "s.zarr"), str(tmp_path / "out")
    assert main(["export", store, prefix, "--patch-dimensions", "8", "--bands", "a,b", "--bands", "c"]) == 0
    assert list(xee_tf.open_image(f"{prefix}-mixer.json")) == ["a,b", "c"]
    assert main(["export", store, prefix, "--patch-dimensions", "8", "--bands", "c,,"]) == 1
    assert "Empty name in 'c,,'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["run=, date=", "crs=", "bands=[...]", "kernel_size=, crs=", "verify=False"],
)
def test_paths_in_messages_do_not_change(name, two_bands, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for prefix in (name, f"{tmp_path}/a/{name}", f"b/{name}"):
        export = ["export", two_bands, prefix, "--patch-dimensions", "20"]
        assert main(export) == 0
        assert main(export) == 1
        message = capsys.readouterr().err
        assert f"{prefix}-" in message
        assert "replace it with --overwrite." in message


@pytest.mark.parametrize(
    "path",
    [
        "~/a b",
        "[1].tif",
        '{"a": 1}.tif',
        "none",
        "null",
        "C:\\data\\a.tif",
        "s3://bucket/run=, date=.zarr",
        "a\tb",
        " a ",
        "a,b",
        "$HOME/%d",
        "@a",
    ],
)
def test_paths_are_not_interpreted(path):
    for tokens in (["export", path, path], ["export", "--crs", path, "--", path, path]):
        arguments = parse(tokens)
        assert (arguments["rasters"], arguments["prefix"]) == ([path], path)
    assert arguments["crs"] == path
    assert parse(["inspect", path]) == {"path": path}
    assert parse(["inspect", "--", f"--{path}"]) == {"path": f"--{path}"}
    arguments = parse(["model", "prepare", f"--source-dir={path}", "--dest-dir", path, "--input", path])
    assert arguments == {"source_dir": path, "dest_dir": path, "input": path}


def test_errors_contain_flags(two_bands, tmp_path, capsys):
    assert main(["export", two_bands, str(tmp_path / "x"), "--patch-dimensions", "999"]) == 1
    assert "keep incomplete patches with --edge pad" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "no-mixer.json"), "--kernel-size", "3"]) == 1
    assert "xee-tf inspect: " in capsys.readouterr().err


def test_file_without_a_reader_is_an_error(tmp_path, capsys):
    (tmp_path / "cube.nc").write_text("not NetCDF")
    with pytest.raises(StorageError, match="could not be opened as NetCDF"):
        open_rasters([str(tmp_path / "cube.nc")], 512, None)
    assert main(["export", str(tmp_path / "cube.nc"), str(tmp_path / "s")]) == 1
    fix = "pip install h5netcdf" if find_spec("h5netcdf") is None else "may be damaged"
    assert re.search(rf"cube\.nc could not be opened as NetCDF\. .*{fix}\.\n$", capsys.readouterr().err)


def test_damaged_chunk_is_named(tmp_path, capsys):
    raster({"B4": random_band((32, 32))}).to_zarr(tmp_path / "cube.zarr", zarr_format=2, consolidated=False)
    chunk = tmp_path / "cube.zarr" / "B4" / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:-200] + bytes(200))
    assert main(["export", str(tmp_path / "cube.zarr"), str(tmp_path / "s"), "--patch-dimensions", "16"]) == 1
    error = capsys.readouterr().err
    assert re.search(r"cube\.zarr/B4 cannot be read: .*\. It may be damaged or incomplete", error)


@pytest.mark.skipif(find_spec("h5netcdf") is None, reason="needs a reader of NetCDF")
def test_netcdf_is_closed_before_python_ends(tmp_path):
    raster({"B4": random_band((32, 32))}).to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    script = "import sys; from xee_tf_cli import main; sys.exit(main())"  # as the script of pip
    command = [sys.executable, "-c", script, "export", "cube.nc", "s", "--patch-dimensions", "16"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=True)
    assert done.stderr == ""


def test_cache_of_gdal_has_two_rows_of_chunks_of_strips(tmp_path):
    """Otherwise, GDAL reads each strip once for each chunk along it."""
    values = np.zeros((2, 64, 60_000), "uint16")
    for name, options in (("strips", {"blockysize": 8}), ("tiles", {"tiled": True})):
        profile = {"driver": "GTiff", "count": 2, "height": 64, "width": 60_000, "dtype": "uint16"}
        profile |= {"crs": "EPSG:32633", "transform": Affine(30, 0, 7e5, 0, -30, 5e6)}
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile, **options) as file:
            file.write(values)
    before = get_gdal_config("GDAL_CACHEMAX")
    try:
        for name, size in (("strips", 2 * (512 + 8) * 60_000 * 2 * 2), ("tiles", 64 << 20)):
            open_rasters([str(tmp_path / f"{name}.tif")], 512, None)
            assert get_gdal_config("GDAL_CACHEMAX") == size
    finally:
        set_gdal_config("GDAL_CACHEMAX", before)


def test_rasters_that_do_not_fit_are_named(files, scene, tmp_path, capsys):
    wide, again = str(tmp_path / "wide.tif"), str(tmp_path / "again" / "red.tif")
    (tmp_path / "again").mkdir()
    georeferenced = scene.rio.write_crs(scene.attrs["crs"])
    georeferenced.nir[:, :80].rio.to_raster(wide)
    georeferenced.red.rio.to_raster(again)
    assert main(["export", *files, wide, str(tmp_path / "x")]) == 1
    message = capsys.readouterr().err
    assert f"{files[0]} and {wide} are not on the same grid. Shape: 90 x 60 and 80 x 60" in message
    assert message.endswith(f"rio warp {wide} OUTPUT --like {files[0]}\n")
    assert main(["export", *files, again, str(tmp_path / "x")]) == 1
    assert f"{files[0]} and {again} both have a band 'red'" in capsys.readouterr().err
    assert main(["export", *files, files[1], str(tmp_path / "x")]) == 1
    assert f"{files[1]} is given twice." in capsys.readouterr().err


def test_rasters_without_a_crs_need_a_flag(two_bands, tmp_path, monkeypatch, capsys):
    source = str(tmp_path / "nocrs_dtype.tif")  # contains the names of two options
    with rasterio.open(two_bands) as file:
        profile = file.profile | {"crs": None}
        with rasterio.open(source, "w", **profile) as copy:
            copy.write(file.read())
    assert main(["export", source, str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err.endswith(" Pass --crs EPSG:32633.\n")
    tokens = ["upload", "image", source, source, str(tmp_path / "x.tif"), "--dtype", "word"]
    assert main(tokens) == 1
    assert "xee-tf upload image: --dtype must be an integer or float type" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("chunk", "0"), ("chunk", "-7"), ("max-file-size", "-1"), ("kernel-size", "0")]
)
def test_options_below_one_are_errors(option, value, two_bands, tmp_path, capsys):
    tokens = ["export", two_bands, str(tmp_path / "x"), "--patch-dimensions", "8", f"--{option}", value]
    assert main(tokens) == 1
    assert re.search(rf"^xee-tf export: --{option} must be .*at least 1", capsys.readouterr().err)


def test_warnings_are_one_line(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        xee_tf,
        "inspect",
        lambda *_, **__: print(
            *(
                warnings.formatwarning(text, UserWarning, "file.py", 3)
                for text in ("a\n kernel_size=3: b", "c", "c")
            ),
            sep="",
        ),
    )
    with pytest.raises(AttributeError):  # no inspection
        main(["inspect", "x"])
    lines = ["xee-tf inspect: warning: a --kernel-size 3: b", "xee-tf inspect: warning: c", "", ""]
    assert capsys.readouterr().out.split("\n") == lines
    assert "file.py:3" in warnings.formatwarning("a", UserWarning, "file.py", 3, "line")

    store = str(tmp_path / "s.zarr")
    scene.rio.write_crs(scene.attrs["crs"]).to_zarr(store, zarr_format=2, consolidated=False)
    assert main(["plan", "export", store, str(tmp_path / "x"), "--patch-dimensions", "8"]) == 0
    assert capsys.readouterr().err == ""


# -- Earth Engine's spelling -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--scale", "30"], "Unknown option --scale: "),
        (["export", "--max-pixels=1e9"], "Unknown option --max-pixels: "),
        (["export", "--if-exists", "overwrite"], "use --overwrite"),
        (["predict", "--if-exists", "resume"], "or --resume to continue an interrupted prediction"),
        (["export", "--kernal-size", "3"], "Unknown option --kernal-size; did you mean --kernel-size?"),
        (["export", "--patch-dim", "16"], "Unknown option --patch-dim; did you mean --patch-dimensions?"),
        (
            ["export", "--patch-dimensions", "x"],
            "--patch-dimensions takes WIDTH [HEIGHT], whole numbers; got 'x'.",
        ),
        (
            ["upload", "image", "--no-data=3", "--scale", "3"],
            "Unknown option --no-data; did you mean --nodata?",
        ),
        (
            ["upload", "image", "--formatOptions", "x"],
            "Unknown option --formatOptions: pass the options directly, as in --kernel-size 32.",
        ),
        (["predict", "model", "--crs-transform", "1"], "Unknown option --crs-transform: "),
        (["predict", "model", "--ifExists", "overwrite"], "use --overwrite"),
        (["export", "--columns", "B5"], "Unknown option --columns: use --bands."),
        (["upload", "table", "--selectors=id"], "Unknown option --selectors: use --columns."),
        (["export", "--dimensions", "9"], "Unknown option --dimensions: rasters keep their pixel grid; "),
        (["export", "--noData", "9"], "Unknown option --noData: use --default-value, which is written"),
        (["export", "--skipEmptyTiles"], "use --masked-threshold 0.999 to omit"),
        (["export", "--outputPrefix=a"], "Unknown option --outputPrefix: give PREFIX without an option."),
        (["upload", "image", "--store", "a"], "Unknown option --store: give DESTINATION without an option."),
        (["predict", "--model", "m"], "Unknown option --model: give MODEL without an option."),
        (["predict", "m", "--progress"], "Unknown option --progress: progress is always shown"),
        (["split", "--plan"], "Unknown option --plan: use xee-tf plan split, with the other options."),
        (["plan", "export", "--fileNamePrefix=a"], "give PREFIX without an option."),
        (["plan", "export", "--noData", "9"], "Unknown option --noData: use --default-value, which"),
    ],
)
def test_unknown_options_have_an_explanation(arguments, message, capsys):
    assert main([*arguments, "a.tif", "out.zarr"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--patchDimensions", "--patch_dimensions", "--patch-dimensions"])
def test_spellings_of_an_option(flag, two_bands, tmp_path, capsys):
    for tokens in ([flag, "16", "8"], [f"{flag}=16"]):
        assert main(["plan", "export", two_bands, *tokens, "--kernelSize", "3", str(tmp_path / "s")]) == 0
        out = capsys.readouterr().out
        assert f"of 16 × {'8' if len(tokens) > 1 else '16'} px" in out


@pytest.mark.parametrize(
    ("command", "message", "expected"),
    [
        (
            "predict",
            "Pass input_tile_size=(256, 256), or input_overlap_size=3.",
            "Pass --input-tile-size 256 256, or --input-overlap-size 3.",
        ),
        (
            "predict",
            "declare output_bands={'a b': 'int32'}, or use blend='crop': 1",
            "declare --output-bands a b=int32, or use --blend crop: 1",
        ),
        ("predict", "array_dims=[...] takes them", "--array-dims takes them"),
        ("predict", "kernel_size=3 is another's", "kernel_size=3 is another's"),
        ("predict", "x exists: pass if_exists='overwrite'.", "x exists: pass --overwrite."),
        ("predict", "the file crs=3.tif or 'crs=' or a/crs=3", "the file crs=3.tif or 'crs=' or a/crs=3"),
        ("export", "compressed=False writes plain files", "--no-compress writes plain files"),
        ("export", "drop_masked_steps=True needs it", "--drop-masked-steps needs it"),
        ("upload table", "encoding='latin-1' reads it", "--charset latin-1 reads it"),
        (
            "inspect",
            "a.x is a table: open it with xee_tf.open_table.",
            "a.x is a table: convert it with xee-tf upload table.",
        ),
        (
            "export",
            "Select the bands without it, for example ds[['B4', 'B3']].",
            "Select the bands without it with --bands.",
        ),
        (
            "upload image",
            "pass the mixer, a.json, as the first argument, and the shards as records=[...] if they are.",
            "pass the mixer, a.json.",
        ),
        (
            "inspect",
            "If they have other names, pass them as records=[...], in order.",
            "If they have other names, give them to xee-tf upload image before the mixer, in order.",
        ),
        (
            "export",
            "was deleted. To continue such a run, call it with if_exists='resume'.",
            "was deleted. To continue such a run, run it again with --resume.",
        ),
        (
            "export",
            "cannot be resumed: the option compressed was True and is now False.",
            "cannot be resumed: the option --compress was True and is now False.",
        ),
        (
            "predict",
            "the model's option input_tile_size was 128 x 128 and is now 256 x 256",
            "the model's option --input-tile-size was 128 x 128 and is now 256 x 256",
        ),
        (
            "inspect",
            "was interrupted: run it again with if_exists='resume'.",
            "was interrupted: run it again with --resume.",
        ),
        (
            "predict",
            "chunks of the input 'B4' were y: 512, x: 512 and are now y: 256, x: 256.",
            "chunks of the input 'B4' (--chunk) were y: 512, x: 512 and are now y: 256, x: 256.",
        ),
        ("export", "Use max_file_size, not edge.", "Use --max-file-size, not edge."),
        ("predict", "output_bands['p'] is 3", "--output-bands['p'] is 3"),
        (
            "export",
            "the band 'kernel_size' or a/kernel_size.tif",
            "the band 'kernel_size' or a/kernel_size.tif",
        ),
    ],
)
def test_options_to_flags(command, message, expected):
    arguments = command_app(command).assemble_argument_collection()
    assert options_to_flags(message, arguments, [*command.split(), "a.tif", "--crs=3", "out"]) == expected
    if expected != message:  # unless the text could be a path
        assert options_to_flags(message, arguments, [message]) == message


def test_option_at_the_start_of_a_message_is_no_path():
    arguments = command_app("export").assemble_argument_collection()
    message = "edge must be 'drop' or 'pad'; got 3."
    assert options_to_flags(message, arguments, ["export", "edge.tif", "edge"]) == f"--{message}"


# -- Help, and the imports for it --------------------------------------------------------------------

COMMANDS = {
    "export": [xee_tf.export_image],
    "split": [xee_tf.export_image, xee_tf.split_patches],
    "sample": [xee_tf.sample_table],
    "plan export": [xee_tf.plan_export],
    "plan split": [xee_tf.plan_export, xee_tf.split_patches],
    "plan predict": [xee_tf.Model.from_saved_model, xee_tf.Model.plan],
    "inspect": [xee_tf.inspect],
    "verify": [xee_tf.verify],
    "upload image": [xee_tf.upload_image],
    "upload table": [xee_tf.upload_table],
    "predict": [xee_tf.Model.from_saved_model, xee_tf.predict_to_zarr, xee_tf.predict_to_cog],
    "model inspect": [],
    "model prepare": [xee_tf.prepare_model],
    "model serve": [xee_tf.serve],
    "completion": [],
    "explore": [xee_tf.explore, xee_tf.Model.from_saved_model],
    "demo": [demo.run],
}

OTHER_DEFAULTS = {
    ("model serve", "port"),
    ("model serve", "grpc_port"),
    ("explore", "input_overlap_size"),
    ("explore", "signature"),
    ("predict", "input_overlap_size"),
    ("predict", "resume"),
    ("predict", "signature"),
    ("plan predict", "input_overlap_size"),
    ("plan predict", "signature"),
    ("split", "sides"),
    ("split", "kernel_size"),
    ("plan split", "sides"),
    ("plan split", "kernel_size"),
    ("sample", "where"),
    ("sample", "geometry"),
}
"""Options whose defaults differ from those of the functions."""


def command_app(name):
    """Return the application of a command."""
    return app.parse_commands(name.split())[1][-1]


def test_all_commands_are_tested():
    groups = ("plan", "upload", "model")
    lists = {"": app} | {f"{name} ": app[name] for name in groups}
    found = {f"{prefix}{name}" for prefix, each in lists.items() for name in each if name[0] != "-"}
    assert found - {*groups} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_every_option(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    function = command_app(command).default_command
    assert f"Usage: xee-tf {command}" in text
    assert inspect.getdoc(function).partition("\n")[0] in " ".join(text.split())
    described = re.findall(r"^(\w+)\n    \S", inspect.getdoc(function), re.MULTILINE)
    assert described == list(inspect.signature(function).parameters)
    assert "`" not in text
    assert not re.search(r" (STR|INT|FLOAT)\b|By default|<destination>|xee_tf\.|\b(in|out)put_\w+_size", text)
    for each in command_app(command).assemble_argument_collection():
        assert (each.name if each.name.startswith("-") else each.name.upper()) in text


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"completion", "demo"}))
def test_example_in_the_help_is_a_command_line(command):
    [example] = re.findall(r"^Example: (.*)$", inspect.getdoc(command_app(command).default_command), re.M)
    assert example.startswith(f"xee-tf {command} ")
    app.parse_args(example.split()[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_match_the_functions(command):
    for function in COMMANDS[command]:
        parameters = inspect.signature(function).parameters
        for name, option in inspect.signature(command_app(command).default_command).parameters.items():
            if name in parameters and (command, name) not in OTHER_DEFAULTS:
                assert option.default == parameters[name].default, name


@pytest.mark.parametrize("tokens", [[], ["--help"], ["upload", "--help"], ["model", "--help"]])
def test_lists_of_commands_do_not_import_large_packages(tokens):
    code = (
        f"import sys, xee_tf_cli\nassert xee_tf_cli.main({tokens}) == 0\n"
        "large = {'xee_tf', 'xarray', 'dask', 'numpy', 'pandas', 'tensorflow'}\n"
        "print('imported', sorted(large.intersection(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("imported []\n")
    assert "Usage: xee-tf" in run.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_lists_describe_every_command(command, capsys):
    *groups, name = command.split()
    assert main([*groups, "--help"]) == 0
    assert re.search(rf"\b{name} +\w+ \w+", capsys.readouterr().out)


def test_help_does_not_import_tensorflow():
    code = "\n".join(
        [
            RECORD_IMPORTS,
            "import xee_tf_cli",
            *(f"assert xee_tf_cli.main({[*each.split(), '--help']}) == 0" for each in COMMANDS),
            "assert 'xarray' in Recorder.names and 'tensorflow' not in Recorder.names",
        ]
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_import_errors_of_commands_are_reported(monkeypatch, capsys):
    broken = App(name="xee-tf")
    broken.command("xee_tf.cli.nothing:nothing", name="nothing")
    monkeypatch.setattr(xee_tf_cli, "app", broken)
    assert main(["nothing"]) == 1
    assert capsys.readouterr().err == "xee-tf: No module named 'xee_tf.cli.nothing'\n"


def test_ctrl_c_exits_without_a_traceback(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(xee_tf, "inspect", interrupted)
    assert main(["inspect", "x"]) == 130
    assert capsys.readouterr().err == "xee-tf inspect: Interrupted. Run it again.\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FuturesCancelledError([]), "The connection to the scheduler was lost: .*run the command again"),
        (CommClosedError("closed"), "The connection to the scheduler was lost: "),
        (KilledWorker("task", SimpleNamespace(address="a"), 3), "Several workers ended .* smaller --chunk"),
    ],
)
def test_lost_clusters_have_a_message(error, message, monkeypatch, capsys):
    def lost(*_, **__):
        error.add_note("2 of 4 chunks are kept.")
        raise error

    monkeypatch.setattr(xee_tf, "inspect", lost)
    assert main(["inspect", "x"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert re.match(f"xee-tf inspect: {message}", line)
    assert line.endswith("2 of 4 chunks are kept.")


def test_bugs_have_a_traceback(monkeypatch):
    def wrong(*_, **__):
        raise AssertionError("wrong")

    monkeypatch.setattr(xee_tf, "inspect", wrong)
    with pytest.raises(AssertionError, match="wrong"):
        main(["inspect", "x"])


def test_pairs_of_names_and_numbers():
    largest = 2**63 - 1
    assert parse_pairs([f"a={largest},b=0007"], "FORM") == {"a": largest, "b": 7}
    for number in (largest + 1, "9" * 30, "\u0663", "-1", ""):
        with pytest.raises(ValueError, match="expected FORM; got"):
            parse_pairs([f"b=1,a={number}"], "FORM")


@pytest.mark.parametrize("points", [False, True])
def test_rasters_without_a_place_have_a_warning(points, tmp_path):
    source = str(tmp_path / "plain.tif")
    profile = {"driver": "GTiff", "width": 24, "height": 16, "count": 1, "dtype": "uint8"}
    if points:
        profile["gcps"] = [rasterio.control.GroundControlPoint(y, x, x, y) for x in (0, 9) for y in (0, 9)]
        profile["crs"] = "EPSG:32631"
    with warnings.catch_warnings(action="ignore"), rasterio.open(source, "w", **profile) as file:
        file.write(np.ones((1, 16, 24), "u1"))
    flags = ["--patch-dimensions", "8", "--crs", "EPSG:32631"]
    with pytest.warns(UserWarning, match="has no geotransform") as shown:
        assert main(["export", source, str(tmp_path / "s"), *flags]) == 0
    [text] = {str(each.message) for each in shown if issubclass(each.category, UserWarning)}
    assert text.startswith(f"{source} has no geotransform")
    assert ("rio warp" in text) == ("control points" in text) == points
