"""Tests of sources and files: they are found and read, or raise an error that names them."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import stat
import tempfile
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xee_tf
from tests.conftest import needs_posix
from tests.optional import optional
from tests.rasters import random_band, raster
from xee_tf import OptionError, RecordError, XeeTFError, open_image, open_table, tf_dataset, verify
from xee_tf.storage import Location
from xee_tf.upload.files import geotiff_files, staged_file
from xee_tf_cli import main

tf = optional("tensorflow")

PATCHES = {"patch_dimensions": 8}


def image(seed=0, size=16):
    return raster({"B": random_band((size, size), seed=seed), "C": random_band((size, size), seed=seed + 1)})


def table(rows=20):
    return pd.DataFrame({"a": np.arange(float(rows)), "name": ["oak"] * rows})


def cube():
    steps = np.arange(3, dtype="float32"), np.arange(10, 19, dtype="float32")
    ds = raster({"B": random_band((16, 16))}).drop_vars("B")
    for name, dim, values in (("C", "time", steps[0]), ("D", "pol", steps[1])):
        ds[name] = ((dim, "y", "x"), np.broadcast_to(values[:, None, None], (len(values), 16, 16)))
    return ds.assign_coords(time=[3, 5, 7])


def edit(path, change):
    document = json.loads(Path(str(path)).read_text())
    change(document)
    Path(str(path)).write_text(json.dumps(document))


def recompress(path):
    Path(path).write_bytes(gzip.compress(gzip.decompress(Path(path).read_bytes()), 9))


# -- The option tensor_depths --------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"collapse_bands": True}, {}, {"sequence_data": True}])
@pytest.mark.parametrize("depths", [{"C": 3}, {"D": 9.0}, {}, {"C": 3, "D": 9}])
def test_depths_that_match_the_manifest_change_nothing(tmp_path, options, depths):
    pytest.importorskip("tensorflow")
    ds = cube()
    result = ds.tfexport(tmp_path / "p", **PATCHES, **options)
    opened = open_image(result, tensor_depths=depths)
    for name in ds:
        np.testing.assert_array_equal(opened[name], ds[name])
    np.testing.assert_array_equal(opened.time, [3, 5, 7])
    shapes = [batch.shape[1] for batch in tf_dataset(result, inputs="C", tensor_depths=depths)]
    assert set(shapes) == {3}


def test_a_depth_overrides_only_its_band(tmp_path):
    ds = raster({"B": random_band((4, 4))}).drop_vars("B")
    ds["C"] = (("time", "y", "x"), random_band((9, 4, 4)))
    ds["D"] = (("pol", "y", "x"), random_band((4, 4, 4)))
    result = ds.assign_coords(pol=list("abcd")).tfexport(tmp_path / "p", patch_dimensions=1)
    opened = open_image(result, tensor_depths={"C": 9})
    assert opened.C.dims == ("time", "y", "x")
    ragged = ds.tfexport(
        tmp_path / "s", **{"patch_dimensions": 2}, sequence_data=True, drop_masked_steps=True
    )
    deeper = open_image(ragged, tensor_depths={"C": 11})
    assert deeper.C.shape == (11, 4, 4)
    np.testing.assert_array_equal(deeper.C[:9], ds.C)
    np.testing.assert_array_equal(deeper.D, ds.D)


@pytest.mark.parametrize("options", [{"collapse_bands": True}, {}, {"sequence_data": True}])
@pytest.mark.parametrize("depths", [{"C": 2}, {"D": 10}])
def test_depths_that_do_not_match_raise(tmp_path, options, depths):
    result = cube().tfexport(tmp_path / "p", **PATCHES, **options)
    with pytest.raises((OptionError, RecordError), match="tensor_depths"):
        open_image(result, tensor_depths=depths).compute()


@pytest.mark.parametrize("depths", [{"C": "x"}, {"C": None}, {"C": True}, {"C": 2.5}, {"E": 1}, "C", 3, [3]])
def test_invalid_depths_raise(tmp_path, depths):
    pytest.importorskip("tensorflow")
    result = cube().tfexport(tmp_path / "p", **PATCHES)
    for read in (open_image, partial(tf_dataset, inputs="C")):
        with pytest.raises(OptionError, match=r"tensor_depths|tensor depth"):
            read(result, tensor_depths=depths)


# -- Verification ------------------------------------------------------------------------------------


def test_a_table_without_its_file_is_a_problem(tmp_path):
    pytest.importorskip("pyarrow")
    xee_tf.export_table(table(), tmp_path / "alone" / "q")
    image().tfexport(tmp_path / "p", **PATCHES)
    xee_tf.export_table(table(), tmp_path / "p")
    for prefix in (tmp_path / "p", tmp_path / "alone" / "q"):
        prefix.with_name(f"{prefix.name}.tfrecord.gz").unlink()
        for source in (prefix, prefix.parent, f"{prefix}-table.tfexport"):
            [problem] = verify(source).problems
            assert problem.endswith(f"{prefix.name}.tfrecord.gz was not found.")
        with pytest.raises(xee_tf.MissingShardError, match="does not exist"):
            open_table(prefix)


def test_an_image_of_one_shard_is_checked_once(tmp_path, capsys):
    result = image().tfexport(tmp_path / "p", **PATCHES)
    report = verify(tmp_path)
    assert (report.ok, report.described, report.records, report.files) == (True, True, 4, 1)
    assert main(["verify", str(tmp_path)]) == 0
    assert "4 records in 1 file" in capsys.readouterr().out
    for source in (tmp_path, result, result.mixer, result.manifest):
        with pytest.raises(OptionError, match="open_image"):
            open_table(source)


CHANGES = {
    "kind": lambda d: d["bands"][0].update(kind="int64"),
    "first": lambda d: d["bands"][0].update(first=1),
    "ragged": lambda d: d.update(ragged=not d["ragged"]),
    "kernel": lambda d: d.update(kernel=[3, 1]),
    "columns": lambda d: d["grid"].update(columns=1),
    "rows": lambda d: d["grid"].update(rows=3),
    "shape": lambda d: d["grid"].update(shape=[17, 16]),
    "edge": lambda d: d["grid"].update(edge="pad"),
    "origin": lambda d: d["grid"].update(origin=[1, 0]),
    "bands": lambda d: d["bands"].pop(),
    "units": lambda d: d["bands"][0].update(units="km"),
    "default": lambda d: d.update(defaultValue=7.0),
}


@pytest.mark.parametrize("options", [{}, {"sequence_data": True}])
@pytest.mark.parametrize("change", list(CHANGES))
def test_an_edited_manifest_is_a_problem(tmp_path, change, options):
    ds = cube()
    ds["B"] = (("y", "x"), random_band((16, 16)))
    result = ds.tfexport(tmp_path / "p", **PATCHES, **options)
    assert verify(result).ok
    edit(result.manifest, CHANGES[change])
    assert not verify(result).ok
    if change in ("kind", "first", "bands"):
        with pytest.raises((xee_tf.MixerError, RecordError)):
            open_image(result)


def test_an_edited_table_manifest_is_a_problem(tmp_path):
    result = xee_tf.export_table(pd.DataFrame({"p": [np.zeros((2, 3))] * 4, "a": range(4)}), tmp_path / "t")
    text = Path(result.manifest.path).read_text()
    edit(result.manifest, lambda document: None)  # whitespace does not matter
    assert verify(result).ok
    for key, value in (("name", "q"), ("kind", "bytes"), ("shape", [3, 2])):
        Path(result.manifest.path).write_text(text)
        edit(
            result.manifest,
            lambda document, key=key, value=value: document["columns"][0].update({key: value}),
        )
        assert any("was modified: its checksum" in problem for problem in verify(result).problems)


def test_a_manifest_without_bands_raises(tmp_path):
    pytest.importorskip("tensorflow")
    result = image().tfexport(tmp_path / "p", **PATCHES)
    edit(result.manifest, lambda document: document.update(bands=[]))
    for read in (open_image, partial(tf_dataset, inputs="B"), lambda each: verify(each).raise_for_problems()):
        with pytest.raises((xee_tf.MixerError, RecordError), match="it has no bands"):
            read(result)


def test_several_exports_are_checked_together(tmp_path):
    pytest.importorskip("pyarrow")
    first, second = (image().tfexport(tmp_path / name, **PATCHES) for name in "pq")
    kept = xee_tf.export_table(table(), tmp_path / "t")
    assert len(verify({"a": first, "b": second}).names) == 2
    assert verify([first, kept, str(tmp_path / "q")]).records == 28
    for source in ([], {}, None, 3):
        with pytest.raises(OptionError):
            verify(source)
    with pytest.raises(OptionError, match="got a list of 1"):
        open_image([tmp_path / "p"])


# -- Exports without patches -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"compressed": False}, {"sequence_data": True}, {"collapse_bands": True}, {"feature_types": "band"}],
)
def test_an_export_without_patches_is_a_masked_raster(tmp_path, options):
    pytest.importorskip("tensorflow")
    ds = cube()
    ds["B"] = (("y", "x"), random_band((16, 16)))
    result = ds.where(False).tfexport(tmp_path / "p", **PATCHES, masked_threshold=0.5, **options)
    assert (result.records, verify(result).problems) == (0, ())
    opened = open_image(result).compute()
    assert all(band.isnull().all() for band in opened.values())
    assert (opened.C.dims, opened.B.shape) == (("time", "y", "x"), (16, 16))
    for keep in ("B", "D"):
        dataset = tf_dataset(result, inputs=keep, shuffle=True)
        assert list(dataset) == []
    assert xee_tf.feature_spec(result, bands=["B"])


def test_one_cloudy_date_of_many(tmp_path):
    pytest.importorskip("tensorflow")
    ds = cube()[["C"]].astype("float32")
    ds["C"] = ds.C.where(ds.time != 5)
    parts = ds.tfexport(tmp_path / "p", **PATCHES, split_dim="time", masked_threshold=0.5)
    assert [len(list(tf_dataset(part, inputs="C"))) for part in parts.values()] == [1, 0, 1]
    assert verify(parts).ok


def test_predictions_for_kept_patches(tmp_path):
    ds = image()[["B"]]
    ds["B"][:8] = np.nan
    result = ds.tfexport(tmp_path / "p", **PATCHES, masked_threshold=0.5)
    with xee_tf.PredictionWriter(tmp_path / "out.tfrecord.gz", result) as writer:
        assert writer.total == 2
        writer.write(np.arange(2.0)[:, None, None] * np.ones((2, 8, 8)))
    found = open_image(result, tmp_path / "out.tfrecord.gz").prediction
    np.testing.assert_array_equal(found[::8, ::8], [[np.nan, np.nan], [0, 1]])
    with pytest.raises(RecordError, match="the manifest specifies 2 patches"):
        xee_tf.PredictionWriter(tmp_path / "short", result).close()


def test_predictions_for_kept_patches_in_incomplete_rows(tmp_path):
    ds = image()[["B"]]
    ds["B"][:8, :8] = np.nan
    result = ds.tfexport(tmp_path / "p", **PATCHES, masked_threshold=0.5)
    with xee_tf.PredictionWriter(tmp_path / "out.tfrecord.gz", result) as writer:
        for number in range(3):
            writer.write(np.full((1, 8, 8), float(number)))
    found = open_image(result, tmp_path / "out.tfrecord.gz").prediction
    np.testing.assert_array_equal(found[::8, ::8], [[np.nan, 0], [1, 2]])


# -- Text and series in records ---------------------------------------------------------------------


@pytest.fixture
def series(tmp_path):
    """Write a file of SequenceExamples with 1, 3 and 2 steps, and with text in their context."""
    path = str(tmp_path / "series.tfrecord")
    floats = [tf.train.Feature(float_list=tf.train.FloatList(value=[float(value)])) for value in range(3)]
    text = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"o"]))
    with tf.io.TFRecordWriter(path) as writer:
        for steps in (1, 3, 2):
            lists = {"ndvi": tf.train.FeatureList(feature=floats[:steps])}
            record = tf.train.SequenceExample(
                context=tf.train.Features(feature={"cls": text}),
                feature_lists=tf.train.FeatureLists(feature_list=lists),
            )
            writer.write(record.SerializeToString())
    return path


def test_text_next_to_series_cannot_be_stacked(series):
    with pytest.raises(OptionError, match="'cls' contains strings"):
        tf_dataset(series, inputs="ndvi", targets="cls", tensor_depths={"ndvi": 3})


def test_series_are_not_a_table(series, tmp_path):
    own = cube().tfexport(tmp_path / "own", **PATCHES, sequence_data=True)
    for source in (series, own.files[0].path):
        for chunks in (None, 2):
            with pytest.raises(RecordError, match="SequenceExample"):
                open_table(source, chunks=chunks)


def test_ragged_series_without_a_manifest_require_tensor_depths(tmp_path, series):
    document = {
        "projection": {"crs": "EPSG:32633", "affine": {"doubleMatrix": [30, 0, 0, 0, -30, 0]}},
        "patchDimensions": [3, 1],
        "patchesPerRow": 1,
        "totalPatches": 1,
    }
    (tmp_path / "m.json").write_text(json.dumps(document))
    options = {"records": [series], "bands": ["ndvi"]}
    with pytest.raises(RecordError, match=r"has 3 steps; .* tensor_depths=\{'ndvi': 3\}"):
        open_image(tmp_path / "m.json", **options).compute()
    found = open_image(tmp_path / "m.json", **options, tensor_depths={"ndvi": 3}).ndvi
    np.testing.assert_array_equal(found[:, 0], [[0, 0, 0], [0, 1, 1], [0, 2, 0]])


def test_integers_that_float64_cannot_represent_raise(tmp_path):
    values = np.full((16, 16), 7)
    values[3, 4] = -(2**53) - 1
    result = raster({"i": values, "j": np.full((16, 16), 2**62), "k": np.full((16, 16), 2**63 - 1)})
    result = result.tfexport(tmp_path / "p", **PATCHES, feature_types="band")
    opened = open_image(result, default_value=7)
    with pytest.raises(RecordError, match="'i' contains -9007199254740993, which float64 cannot represent"):
        opened.i.compute()
    with pytest.raises(RecordError, match="'k' contains"):
        open_image(result, default_value=7, bands=["k"]).compute()
    assert open_image(result, default_value=7, bands=["i"]).i[8:].isnull().all()
    assert (open_image(result, default_value=7, bands=["j"]).j == 2.0**62).all()
    np.testing.assert_array_equal(open_image(result).i, values)


# -- Names -------------------------------------------------------------------------------------------


def test_files_in_an_archive(tmp_path):
    pytest.importorskip("pyarrow")
    image().tfexport(tmp_path / "s", **PATCHES)
    xee_tf.export_table(table(), tmp_path / "t")
    names = list(tmp_path.iterdir())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in names:
            archive.write(path, path.name)
            archive.write(path, f"deep/{path.name}")
    for folder in ("", "deep/"):
        inside = lambda name, folder=folder: f"zip://{folder}{name}::{tmp_path / 'a.zip'}"  # noqa: E731
        for name in ("s-mixer.json", "s", "s-image.tfexport"):
            xr.testing.assert_equal(open_image(inside(name)), open_image(tmp_path / "s"))
            assert verify(inside(name)).records == 4
        shards = [inside("s-00000.tfrecord.gz")]
        opened = xr.open_dataset(inside("s-mixer.json"), engine="tfrecord", records=shards)
        xr.testing.assert_equal(opened, open_image(tmp_path / "s"))
        for source, options in ((inside("s"), {}), (inside("s-mixer.json"), {"records": shards})):
            assert [batch.shape for batch in tf_dataset(source, inputs="B", **options)] == [(4, 8, 8, 1)]
        pd.testing.assert_frame_equal(open_table(inside("t")), open_table(tmp_path / "t"))
        assert len(open_table(inside("t*.gz"))) == 20
        assert verify(inside("t")).described
        assert verify(inside("")).records == 24


@pytest.mark.parametrize(
    ("url", "name", "parent", "child"),
    [
        ("zip://s.json::/a/b.zip", "s.json", "zip://::/a/b.zip", "zip://s.json/k::/a/b.zip"),
        ("zip://::s3://b/c.zip", "", "zip://::s3://b/c.zip", "zip://k::s3://b/c.zip"),
        ("simplecache::s3://b/x/y", "y", "simplecache::s3://b/x", "simplecache::s3://b/x/y/k"),
        ("memory://scene", "scene", "memory://", "memory://scene/k"),
        ("/a/b", "b", "/a", "/a/b/k"),
    ],
)
def test_parts_of_paths(url, name, parent, child):
    location = Location(url)
    assert (location.name, location.parent.url, location.child("k").url) == (name, parent, child)
    assert location.with_suffix("-x").without_suffix("-y", "-x") == location


def test_names_with_characters_of_patterns(tmp_path):
    pytest.importorskip("tensorflow")
    for prefix in ("my export [1]", "what? [a-z]", "s*"):
        image().tfexport(tmp_path / prefix, **PATCHES)
        assert len(list(tf_dataset(tmp_path / prefix, inputs="B"))) == 1
        assert open_image(tmp_path / prefix).sizes["x"] == 16
        shard = tmp_path / f"{prefix}-00000.tfrecord.gz"
        assert len(list(tf_dataset(shard, inputs="B", **PATCHES))) == 1
        xee_tf.export_table(table(), tmp_path / "tables" / prefix)
        assert len(open_table(tmp_path / "tables" / prefix)) == 20
        assert len(list(tf_dataset(tmp_path / "tables" / prefix, inputs="a"))) == 1


def test_the_folder_of_a_table(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    result = xee_tf.export_table(table(), tmp_path / "sites")
    assert [batch.shape for batch in tf_dataset(tmp_path, inputs="a")] == [(20, 1)]
    assert set(xee_tf.feature_spec(tmp_path)) == {"a", "name"}
    assert main(["inspect", str(tmp_path)]) == 0
    assert "sites.tfrecord.gz" in capsys.readouterr().out
    Path(result.manifest.path).unlink()
    assert len(list(tf_dataset(tmp_path, inputs="a"))) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(xee_tf.MissingShardError, match="does not contain an export"):
        tf_dataset(tmp_path / "empty", inputs="a")


def test_tables_by_a_pattern(tmp_path):
    pytest.importorskip("pyarrow")
    for number in range(3):
        xee_tf.export_table(table(), tmp_path / f"sites-{number}")
    pattern = str(tmp_path / "sites-*.tfrecord.gz")
    assert len(open_table(pattern)) == len(open_table([pattern], chunks=7)) == 60
    assert len(open_table(str(tmp_path / "sites-[01].*"))) == 40
    for nothing in (str(tmp_path / "x*.gz"), "memory://no-bucket/x*.gz"):
        for read in (open_table, partial(tf_dataset, inputs="a")):
            with pytest.raises(xee_tf.MissingShardError, match="No files match"):
                read(nothing)


def test_mixers_by_a_pattern(tmp_path):
    pytest.importorskip("tensorflow")
    for name in ("one", "two"):
        image().tfexport(tmp_path / name, **PATCHES)
    assert [batch.shape[0] for batch in tf_dataset(f"{tmp_path}/*-mixer.json", inputs="B")] == [8]
    with pytest.raises(OptionError, match="both TFRecord files and 2 exports"):
        tf_dataset(f"{tmp_path}/*", inputs="B")


def test_recompressed_tables_and_images(tmp_path):
    pytest.importorskip("pyarrow")
    result = xee_tf.export_table(table(2000), tmp_path / "tab")
    scene = image(size=32).tfexport(tmp_path / "s", **PATCHES)
    recompress(result.path)
    recompress(scene.files[0].path)
    for source in (tmp_path / "tab", result):
        pd.testing.assert_frame_equal(open_table(source), table(2000).astype({"a": "float32"}))
        assert verify(source).problems == ()
    np.testing.assert_array_equal(open_image(scene).B, image(size=32).B)
    assert verify(scene).problems == ()
    Path(result.path).with_name("tab.tfrecord").write_bytes(gzip.decompress(Path(result.path).read_bytes()))
    Path(result.path).unlink()
    for source in (tmp_path / "tab", result.manifest, tmp_path / "tab.tfrecord"):
        assert len(open_table(source)) == 2000
        assert (verify(source).problems, verify(source).described) == ((), True)
    assert len(list(tf_dataset(tmp_path / "tab", inputs="a", batch_size=2000))) == 1
    other = xee_tf.export_table(table(1999), tmp_path / "other" / "tab")
    recompress(other.path)
    Path(result.path).write_bytes(Path(other.path).read_bytes())
    Path(result.path).with_name("tab.tfrecord").unlink()
    with pytest.raises(RecordError, match="1,999 records"):
        open_table(tmp_path / "tab")
    assert not verify(tmp_path / "tab").ok


def test_training_with_a_shard_of_another_export_raises(tmp_path):
    pytest.importorskip("tensorflow")
    first, second = (
        image(seed).tfexport(tmp_path / str(seed) / "s", **PATCHES, compressed=False) for seed in (0, 5)
    )
    Path(first.files[0].path).write_bytes(Path(second.files[0].path).read_bytes())
    with pytest.raises(RecordError, match="another export"):
        tf_dataset(first, inputs="B")


def test_missing_shards_are_named(tmp_path):
    result = image(size=32).tfexport(tmp_path / "s", **PATCHES, max_file_size=4000)
    Path(result.files[1].path).unlink()
    last = Path(result.files[-1].path).name
    with pytest.raises(
        xee_tf.MissingShardError, match=f"Shard 1 of .*s-mixer.json is missing, but {last} exists"
    ):
        open_image(result)


@pytest.mark.parametrize("status", [403, 500])
def test_servers_without_listings(tmp_path, status):
    pytest.importorskip("pyarrow")
    result = image().tfexport(tmp_path / "s", **PATCHES)
    xee_tf.export_table(table(), tmp_path / "t")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def send_error(self, code, *args, **options):
            super().send_error(status if code == 404 else code)

        def list_directory(self, path):
            self.send_error(404)

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert verify(f"{url}/t").ok
        assert len(open_table(f"{url}/t")) == 20
        shards = [f"{url}/{Path(file.path).name}" for file in result.files]
        assert open_image(f"{url}/s-mixer.json", shards).B.shape == (16, 16)
        for source in (f"{url}/s", f"{url}/s-image.tfexport"):
            np.testing.assert_array_equal(
                open_image(source).B, image().B
            )  # the shards are listed in the manifest
            assert verify(source).records == 4
        Path(result.manifest.path).unlink()
        for source in (f"{url}/", url, f"{url}/none", f"{url}/s"):
            with pytest.raises(xee_tf.MissingShardError):
                open_image(source)
        for source in (url, f"{url}/none"):
            with pytest.raises(xee_tf.MissingShardError):
                verify(source)
        server.shutdown()


# -- Invalid sources and options -----------------------------------------------------


def test_export_results_as_records(tmp_path):
    pytest.importorskip("tensorflow")
    pytest.importorskip("pyarrow")
    result = image().tfexport(tmp_path / "s", **PATCHES)
    mixer = result.mixer.path
    for records in (result, result.files, [file.path for file in result.files], result.files[0].path):
        xr.testing.assert_equal(open_image(mixer, records), open_image(mixer))
        assert xr.open_dataset(mixer, engine="tfrecord", records=records).sizes["x"] == 16
    assert len(list(tf_dataset(mixer, inputs="B", records=result))) == 1
    assert xee_tf.upload_image(result, mixer, tmp_path / "map.tif").exists()
    for records in (3, [None], [], xee_tf.export_table(table(), tmp_path / "t")):
        with pytest.raises(OptionError):
            open_image(mixer, records)


def test_sources_that_are_not_a_path_raise(tmp_path):
    pytest.importorskip("tensorflow")
    result = image().tfexport(tmp_path / "s", **PATCHES)
    mixer = xee_tf.Mixer.read(result.mixer)
    for read in (
        open_table,
        partial(tf_dataset, inputs="a"),
        xee_tf.feature_spec,
        partial(xee_tf.upload_table, destination=tmp_path / "p.parquet"),
    ):
        for source in (None, 3, mixer, [None]):
            with pytest.raises(OptionError):
                read(source)
    for read in (open_table, partial(xee_tf.upload_table, destination=tmp_path / "p.parquet")):
        with pytest.raises(OptionError, match="open_image"):
            read(result)
    with pytest.raises(OptionError, match="open_table"):
        open_image(xee_tf.export_table(table(), tmp_path / "t"))


@pytest.mark.parametrize("chunks", ["auto", {}, 2.5, 0, True, "3"])
def test_chunks_of_tables(tmp_path, chunks):
    pytest.importorskip("pyarrow")
    result = xee_tf.export_table(table(), tmp_path / "t")
    with pytest.raises(OptionError, match="chunks must be a whole number of at least 1"):
        open_table(result, chunks=chunks)


def test_shapes_of_columns(tmp_path):
    result = xee_tf.export_table(pd.DataFrame({"p": [np.arange(6.0)] * 3}), tmp_path / "t")
    assert open_table(result, shapes={"p": 6}).p[0].shape == (6,)
    assert open_table(result, shapes={"p": np.array([3, 2])}).p[0].shape == (3, 2)
    for shapes in ({"p": None}, {"p": [2, 3.0]}, {"p": "x"}, {"p": 6.0}, [6], "p", {"p": [5]}, {"q": 6}):
        with pytest.raises(OptionError):
            open_table(result, shapes=shapes)


@pytest.mark.parametrize(
    "option",
    [
        {"target_dtype": "foo"},
        {"target_dtype": None},
        {"target_dtype": str},
        {"target_dtype": {}},
        {"batch_size": "2"},
        {"batch_size": 2.5},
        {"batch_size": None},
        {"batch_size": True},
        {"shuffle": "yes"},
        {"shuffle": None},
        {"repeat": "x"},
        {"repeat": 1.5},
        {"inputs": 3},
        {"targets": 3},
        {"num_parallel_reads": "x"},
        {"seed": "x"},
        {"drop_remainder": "x"},
    ],
)
def test_invalid_options_of_training_raise_immediately(tmp_path, option):
    pytest.importorskip("tensorflow")
    result = image().tfexport(tmp_path / "s", **PATCHES)
    with pytest.raises(OptionError, match=next(iter(option))):
        tf_dataset(result, **{"inputs": "B", "targets": "C", **option})


def test_types_of_targets(tmp_path):
    result = image().tfexport(tmp_path / "s", **PATCHES)
    for dtype in ("int32", np.uint8, np.dtype("float64"), tf.float16, float):
        [(_, target)] = tf_dataset(result, inputs="B", targets="C", target_dtype=dtype, shuffle=np.int64(2))
        assert target.dtype == tf.as_dtype(dtype)


# -- Temporary files ---------------------------------------------------------------------------------


@needs_posix
def test_temporary_files_are_private(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = os.umask(0)
    try:
        with staged_file(Location.of("memory://private/a.tif"), "error", geotiff_files) as path:
            path.write_bytes(b"pixels")
            [folder] = tmp_path.iterdir()
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert not list(tmp_path.iterdir())


@needs_posix
def test_temporary_files_replace_nothing(tmp_path, monkeypatch):
    """Not even if someone guesses the name."""
    (tmp_path / "thesis.txt").write_text("mine")
    monkeypatch.setattr("xee_tf.storage.local.temporary_name", lambda name: ".guessed.tmp")
    (tmp_path / ".guessed.tmp").symlink_to("thesis.txt")
    with pytest.raises(XeeTFError):
        Location.of(tmp_path / "a.json").write_bytes(b"{}")
    assert (tmp_path / "thesis.txt").read_text() == "mine"
