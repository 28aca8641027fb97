"""Tests of paths, prefixes, folders and buckets, and of the checks before anything is written."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import rioxarray
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import xee_tf
from tests.conftest import needs_posix
from tests.optional import optional
from tests.rasters import random_band, raster
from tests.strict_store import StrictFileSystem
from xee_tf import DestinationError, DestinationExistsError, MissingShardError, OptionError
from xee_tf.sidecars.find import find_export, find_table, folder_exports
from xee_tf.sidecars.names import export_prefix
from xee_tf.storage import Location, Staging
from xee_tf.storage.zarr import finish_store, prepare_store, to_storable
from xee_tf.storage.zarr_record import RECORD, require_own_store

s3fs = optional("s3fs")
upath = optional("upath")

PATCHES = {"patch_dimensions": 16}


def image(seed=0):
    return raster({"B4": random_band((32, 32), seed=seed)})


def model():
    return xee_tf.Model.from_function(lambda b: b[..., 0] + 1, input_tile_size=16, output_bands=["p"])


@pytest.fixture(scope="module")
def server(s3_server):
    """Create a bucket of the local S3 server; return the storage options for it."""
    options = {"key": "id", "secret": "secret", "endpoint_url": s3_server}
    s3fs.S3FileSystem(**options).makedirs("bucket", exist_ok=True)
    return options


def separate_fs(options):
    """Return a filesystem without cached listings, like that of another process."""
    return s3fs.S3FileSystem(**options, skip_instance_cache=True, use_listings_cache=False)


# -- Paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("out/scene", "{cwd}/out/scene"),
        ("./out/../scene", "{cwd}/scene"),
        (Path("out") / "scene", "{cwd}/out/scene"),
        (upath.UPath("out/scene"), "{cwd}/out/scene"),
        ("scene.zarr/", "{cwd}/scene.zarr"),
        ("~/scene", "{home}/scene"),
        ("file:///data/scene", "/data/scene"),
        ("local:///data/scene/", "/data/scene"),
        ("/data/scene", "/data/scene"),
        ("memory://data/scene/", "memory://data/scene"),
        ("s3://bucket/run/scene", "s3://bucket/run/scene"),
        ("simplecache::s3://bucket/run/scene", "simplecache::s3://bucket/run/scene"),
        (upath.UPath("memory://data/scene"), "memory://data/scene"),
    ],
)
def test_location_of(path, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Location.of(path).url == expected.format(cwd=tmp_path, home=Path.home())


@pytest.mark.parametrize(
    ("path", "parent"),
    [("/data/scene", "/data"), ("/scene", "/"), ("D:/maps/scene", "D:/maps"), ("D:/scene", "D:/")],
)
def test_location_parent(path, parent):
    assert Location(path).parent.url == parent
    assert Location(parent).child("scene").url == path


@pytest.mark.parametrize("url", ["/data/scene.tif", "s3://bucket/p.zarr", "memory://data/p.zarr"])
def test_location_is_path_like(url):
    location = Location.of(url, {"key": "a"})
    assert os.fspath(location) == url
    assert hash(location) == hash(Location.of(url, {"key": "a"}))
    assert repr(location) == f"Location(url={url!r})"


def test_results_open_as_paths(tmp_path):
    tif = xee_tf.to_cog(image(), tmp_path / "scene.tif")
    store = xee_tf.predict_to_zarr(model(), image(), tmp_path / "p.zarr")
    with rioxarray.open_rasterio(tif) as opened:  # else it is closed during a later test
        np.testing.assert_array_equal(opened[0], image()["B4"])
    np.testing.assert_array_equal(xr.open_zarr(store)["p"], image()["B4"] + 1)


def test_relative_path_is_resolved_when_called(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    delayed = image().tfexport("out/s", compute=False, **PATCHES)
    predicted = model().predict_image(image(), merge=False)
    monkeypatch.chdir(there)
    result = delayed.compute()
    assert result.mixer.path == str(here / "out/s-mixer.json")
    assert not list(there.iterdir())
    np.testing.assert_array_equal(xee_tf.open_image(result.mixer)["B4"], image()["B4"])
    monkeypatch.chdir(here / "out")
    np.testing.assert_array_equal(xee_tf.open_image("s-mixer.json")["B4"], image()["B4"])
    np.testing.assert_array_equal(predicted["p"], image()["B4"] + 1)


def test_relative_path_of_table_and_upload(tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"longitude": [1.0, 2.0], "latitude": [3.0, 4.0], "class": [1, 2]})
    delayed = xee_tf.export_table(table, "t", compute=False)
    image().tfexport("s", **PATCHES)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert delayed.compute().path == str(tmp_path / "t.tfrecord.gz")
    written = xee_tf.upload_image(None, "../s-mixer.json", "../u.tif")
    assert written.path == str(tmp_path / "u.tif")
    assert not list((tmp_path / "other").iterdir())


def test_folder_with_glob_characters(tmp_path, monkeypatch):
    folder = tmp_path / "run [1]"
    folder.mkdir()
    monkeypatch.chdir(folder)
    result = image().tfexport("s", **PATCHES)
    dataset = xee_tf.tf_dataset(result.files[0].path, inputs=["B4"], patch_dimensions=16, batch_size=4)
    assert len(list(dataset)) == 1


def test_names_with_glob_characters():
    fs = fsspec.filesystem("memory")
    others = ["/globs/scene1-00000.tfrecord.gz", "/globs/b/x"]
    for other in others:
        fs.pipe_file(other, b"kept")
    for if_exists in ("error", "overwrite"):
        result = xee_tf.export_image(image(), "memory://globs/scene[1]", if_exists=if_exists, **PATCHES)
        assert xee_tf.verify(result.mixer).ok
    names = ["scene[1]-00000.tfrecord.gz", "scene[1]-image.tfexport", "scene[1]-mixer.json"]
    assert sorted(fs.find("/globs")) == sorted([*others, *(f"/globs/{name}" for name in names)])
    folder = Location.of("memory://globs/[a-z]")
    folder.child("c").child("?").write_bytes(b"")
    folder.remove(recursive=True)
    assert not folder.exists()
    assert fs.cat_file("/globs/b/x") == b"kept"


# -- Prefixes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "suggestion"),
    [
        ("out/", "out/scene"),
        ("out//", "out/scene"),
        (".", "./scene"),
        ("a/..", "a/../scene"),
        ("~", "~/scene"),
        ("s3://bucket/run/", "s3://bucket/run/scene"),
        ("a/x.tfrecord", "a/x"),
        ("a/x.TFRecord.gz", "a/x"),
        ("a/x-00003.tfrecord.gz", "a/x"),
        ("a/x-mixer.json", "a/x"),
        ("mixer.json", "scene"),
        ("a/x.json", "a/x"),
        ("a/x.tif", "a/x"),
        ("memory://a/x.tiff", "memory://a/x"),
        ("a/x-image.tfexport", "a/x"),
        ("a/.tfrecord", "a/scene"),
    ],
)
def test_invalid_prefix_error_suggests_a_prefix(prefix, suggestion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (image().tfexport, image().tfexport.plan):
        with pytest.raises(DestinationError) as raised:
            call(prefix, **PATCHES)
        assert repr(prefix) in str(raised.value)
        assert str(raised.value).endswith(f"Use {suggestion!r}.")
    assert not list(tmp_path.iterdir())


@given(st.from_regex(r"[a-z0-9_.-]{1,12}[a-z0-9_]", fullmatch=True))
def test_other_names_are_valid_prefixes(name):
    if not name.endswith((".json", ".tif", ".tiff", ".tfrecord", ".tfrecords", ".tfexport")):
        assert export_prefix(f"/data/{name}").url == f"/data/{name}"


def test_table_prefixes(tmp_path):
    import pandas as pd

    table = pd.DataFrame({"a": [1.0]})
    for name in ("t", "u.tfrecord.gz"):
        path = xee_tf.export_table(table, tmp_path / name).path
        assert path == str(tmp_path / name).removesuffix(".tfrecord.gz") + ".tfrecord.gz"
    for path, suggestion in (
        (f"{tmp_path}/", "table"),
        (f"{tmp_path}/t.tfrecord", "t"),
        (f"{tmp_path}/t.json", "t"),
    ):
        with pytest.raises(DestinationError, match=f"Use '{tmp_path}/{suggestion}'"):
            xee_tf.export_table(table, path)
    with pytest.raises(DestinationError, match=r"points'\.$"):
        image().tfexport.table(None, f"{tmp_path}/points-00000.tfrecord")


# -- Folders and files -------------------------------------------------------------------------------


def test_file_does_not_replace_folder(tmp_path):
    import pandas as pd

    image().tfexport(tmp_path / "s", **PATCHES)
    table = xee_tf.export_table(pd.DataFrame({"longitude": [1.0], "latitude": [2.0]}), tmp_path / "t")
    for name in ("u.tif", "u.gpkg", "u.parquet", "u.tfrecord.gz"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("kept")
    calls = {
        "u.tif": lambda path: xee_tf.upload_image(
            None, tmp_path / "s-mixer.json", path, if_exists="overwrite"
        ),
        "u.gpkg": lambda path: xee_tf.upload_table(table.path, path, if_exists="overwrite"),
        "u.parquet": lambda path: xee_tf.upload_table(table.path, path, if_exists="overwrite"),
        "u.tfrecord.gz": lambda path: xee_tf.PredictionWriter(
            path, tmp_path / "s-mixer.json", if_exists="overwrite"
        ),
    }
    with pytest.raises(DestinationError, match=r"out/prediction\.tfrecord\.gz"):
        xee_tf.PredictionWriter("out/", tmp_path / "s-mixer.json")
    for name, call in calls.items():
        with pytest.raises(DestinationExistsError, match=f"{name} is a folder"):
            call(tmp_path / name)
        assert (tmp_path / name / "notes.txt").read_text() == "kept"


def create_own_store(folder):
    store = Location.of(folder)
    prepare_store(to_storable(image()), store, Staging.begin(store))
    finish_store(store)
    return store


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_only_own_stores_and_empty_folders_are_deletable(tmp_path, zarr_format):
    import zarr

    with zarr.config.set(default_zarr_format=zarr_format):
        _check_own_stores(tmp_path)


def _check_own_stores(tmp_path):
    require_own_store(create_own_store(tmp_path / "ours"))
    (tmp_path / "empty").mkdir()
    require_own_store(Location.of(tmp_path / "empty"))
    image().to_zarr(tmp_path / "foreign.zarr", consolidated=False)
    with pytest.raises(DestinationExistsError, match=f"without '{RECORD}'"):
        require_own_store(Location.of(tmp_path / "foreign.zarr"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(DestinationExistsError, match="it is a file"):
        require_own_store(Location.of(tmp_path / "file"))
    for inside, is_folder in (("thesis.txt", False), ("photos", True)):
        mixed = create_own_store(tmp_path / f"with {inside}")
        (Path(mixed.path) / inside).mkdir() if is_folder else (Path(mixed.path) / inside).write_text("x")
        with pytest.raises(DestinationExistsError, match=f"it contains '{inside}'"):
            require_own_store(mixed)


def test_upload_replaces_own_stores_only(tmp_path):
    image().tfexport(tmp_path / "s", **PATCHES)
    thesis = tmp_path / "thesis.zarr"
    thesis.mkdir()
    (thesis / "thesis.txt").write_text("kept")
    with pytest.raises(DestinationExistsError, match=r"thesis\.txt"):
        xee_tf.upload_image(None, tmp_path / "s-mixer.json", thesis, if_exists="overwrite")
    assert (thesis / "thesis.txt").read_text() == "kept"
    for _ in range(2):
        xee_tf.upload_image(None, tmp_path / "s-mixer.json", tmp_path / "u.zarr", if_exists="overwrite")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"thesis.zarr", "u.zarr"}


@pytest.mark.parametrize("path", ["a\0b", "\ud800/scene", Path("x\0"), "s3://bucket/\0", "zip://a::\udbff"])
def test_characters_that_no_path_can_have(path):
    with pytest.raises(DestinationError, match="cannot be a path, because it contains a null character"):
        Location.of(path)
    assert Location.of(os.fsdecode(b"caf\xe9")).is_local  # not UTF-8, but the name of a file


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("s3:/b/scene", "pass s3://b/scene, or"),
        (Path("gs://b/scene"), "pass the string gs://b/scene, or"),
        ("simplecache::az:/b/scene", "pass az://b/scene, or"),
        ("file:/b/scene", "pass file:///b/scene, or"),
    ],
)
def test_url_with_one_slash_is_no_local_folder(path, advice):
    with pytest.raises(DestinationError, match=f"has one slash where a URL has two: {advice}"):
        Location.of(path)
    assert Location.of("./s3:/scene").is_local
    assert Location.of("c:/scene").is_local


def test_unknown_filesystem():
    with pytest.raises(
        DestinationError, match="nosuch://bucket/scene cannot be opened: fsspec does not know"
    ):
        image().tfexport("nosuch://bucket/scene", **PATCHES)


@pytest.mark.parametrize("name", ["scene", "folder/scene"])
def test_folder_of_a_store(tmp_path, name):
    options = PATCHES | {"if_exists": "resume"}
    prefix = f"dir://{name}::file://{tmp_path}"
    result = image().tfexport(prefix, **options)
    assert image().tfexport(prefix, **options) == result
    assert all(found.startswith("scene-") for found in os.listdir((tmp_path / name).parent))
    xr.testing.assert_equal(xee_tf.open_image(prefix).load(), xee_tf.open_image(tmp_path / name).load())


@pytest.mark.parametrize("action", [image().tfexport, xee_tf.open_image, xee_tf.verify])
def test_folders_of_a_store_need_a_path(tmp_path, action):
    example = f"dir://scene::file://{tmp_path}"
    with pytest.raises(DestinationError, match=f"'dir' needs a path in the folder .*, such as {example}"):
        action(f"dir::file://{tmp_path}/scene")


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DestinationError, match=r"Cannot write .*file/part: .*Every process that writes"):
        Location.of(tmp_path / "file" / "part").open("wb")
    with pytest.raises(DestinationError, match="Cannot write"):
        Location.of(tmp_path / "file" / "more" / "part").write_bytes(b"")


def test_a_folder_is_no_prefix(tmp_path):
    import pandas as pd

    folder = tmp_path / "out"
    folder.mkdir()
    table = pd.DataFrame({"a": [1.0]})
    for call, name in (
        (lambda path: image().tfexport(path, **PATCHES), "scene"),
        (lambda path: image().tfexport.plan(path, **PATCHES), "scene"),
        (lambda path: xee_tf.export_table(table, path), "table"),
    ):
        with pytest.raises(DestinationError, match=f"out' is a folder, .* Use '{folder}/{name}' to"):
            call(folder)
        call(folder / name)
    folder.rename(tmp_path / "moved")
    image().tfexport(folder, **PATCHES)
    folder.mkdir()
    image().tfexport(folder, if_exists="overwrite", **PATCHES)  # it is known what the user means


# -- Buckets -----------------------------------------------------------------------------------------


def test_missing_bucket_is_not_created(server, tmp_path):
    import pandas as pd

    image().tfexport(tmp_path / "s", **PATCHES)
    table = pd.DataFrame({"longitude": [1.0], "latitude": [2.0]})
    options = {"storage_options": server}
    calls = [
        lambda: image().tfexport("s3://bukcet/run/scene", **PATCHES, **options),
        lambda: xee_tf.export_table(table, "s3://bukcet/t", **options),
        lambda: xee_tf.predict_to_zarr(model(), image(), "s3://bukcet/p.zarr", **options),
        lambda: xee_tf.upload_image(
            [tmp_path / "s-00000.tfrecord.gz"],
            xee_tf.Mixer.read(tmp_path / "s-mixer.json"),
            Location.of("s3://bukcet/u.tif", server),
        ),
        lambda: xee_tf.PredictionWriter(
            "s3://bukcet/p.tfrecord", xee_tf.Mixer.read(tmp_path / "s-mixer.json"), **options
        ),
    ]
    for call in calls:
        with pytest.raises(DestinationError, match="the bucket 'bukcet' does not exist"):
            call()
    with pytest.raises(DestinationError, match="s3://bukcet/a/b"):
        Location.of("s3://bukcet/a/b", server).write_bytes(b"")
    assert separate_fs(server).ls("") == ["bucket"]


@pytest.mark.parametrize(
    "url",
    ["s3://bukcet", "s3://bukcet/a/scene", "s3://bukcet/a/scene-mixer.json", "s3://bukcet/a/*.tfrecord.gz"],
)
def test_readers_name_a_missing_bucket(server, url, tmp_path):
    calls = [xee_tf.inspect]
    if not url.endswith("json"):
        calls += [xee_tf.open_table, xee_tf.verify]
    if not url.endswith("gz"):
        upload = lambda path, **options: xee_tf.upload_image(None, path, tmp_path / "u.tif", **options)  # noqa: E731
        calls += [xee_tf.open_image, upload]
    for call in calls:
        with pytest.raises(
            MissingShardError, match=rf"{re.escape(url)}.* The bucket 'bukcet' does not exist"
        ):
            call(url, storage_options=server)


def test_readers_say_what_is_at_the_place(server, tmp_path):
    Location.of("s3://bucket/run/scene-00000.tfrecord.gz", server).write_bytes(b"")
    (tmp_path / "scene-00000.tfrecord.gz").touch()
    for folder, options in (("s3://bucket/run", server), (str(tmp_path), None)):
        for call in (xee_tf.open_image, xee_tf.inspect, xee_tf.verify, xee_tf.open_table):
            for name, words in (("scene", "similar names: scene-00000"), ("secne", "starts with 'secne'")):
                with pytest.raises(MissingShardError, match=f"{folder}/{name}.*{words}"):
                    call(f"{folder}/{name}", storage_options=options)
    for call in (xee_tf.open_image, xee_tf.inspect, xee_tf.verify, xee_tf.open_table):
        with pytest.raises(MissingShardError, match=f"The folder {tmp_path}/none does not exist"):
            call(tmp_path / "none" / "scene")


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/"])
def test_bucket_without_object_name(server, url):
    options = {"storage_options": server}
    with pytest.raises(DestinationError, match="s3://bucket/scene"):
        image().tfexport(url, **PATCHES, **options)
    with pytest.raises(DestinationError, match=r"s3://bucket\.zarr/"):
        xee_tf.predict_to_zarr(
            model(), image(), url.replace("bucket", "bucket.zarr"), if_exists="overwrite", **options
        )
    assert separate_fs(server).ls("") == ["bucket"]


def test_files_from_another_process_are_found(server):
    options = {"storage_options": server}
    ours = Location.of("s3://bucket/seen/scene", server)
    other = separate_fs(server)
    other.pipe("bucket/other", b"x")
    ours.fs.ls("bucket")
    assert not ours.parent.exists()
    other.pipe("bucket/seen/scene-mixer.json", b"{}")
    other.pipe("bucket/seen/scene-00000.tfrecord.gz", b"")
    with pytest.raises(DestinationExistsError, match="2 files of an earlier export"):
        image().tfexport("s3://bucket/seen/scene", **PATCHES, **options)
    other.pipe("bucket/seen/t.tfrecord.gz", b"")
    import pandas as pd

    with pytest.raises(DestinationExistsError):
        xee_tf.export_table(pd.DataFrame({"a": [1.0]}), "s3://bucket/seen/t", **options)
    other.rm("bucket/seen", recursive=True)
    assert not ours.with_suffix("-mixer.json").exists()
    assert ours.siblings() == []


def test_listings_are_not_cached(server):
    ours, other = Location.of("s3://bucket/late/run", server), separate_fs(server)
    other.pipe("bucket/late/other", b"x")
    other.pipe("bucket/more/a-00000.tfrecord", b"x")
    for folder in ("late", "more"):  # fsspec caches both listings
        ours.fs.ls(f"bucket/{folder}")
    for name in ("a-00001.tfrecord", "b-00000.tfrecord"):
        other.pipe(f"bucket/more/{name}", b"x")
    found = Location.of("s3://bucket/more/a-*.tfrecord", server).matching()
    assert [file.url for file in found] == [
        f"s3://bucket/more/a-0000{number}.tfrecord" for number in range(2)
    ]
    assert next(iter(found)).storage_options == server

    for name in ("sites.tfrecord.gz", "sites-table.tfexport", "scene-mixer.json"):
        other.pipe(f"bucket/late/run/{name}", b"")
    assert [each.name for each in folder_exports(ours)] == ["scene-mixer.json", "sites.tfrecord.gz"]
    for find, name in ((find_export, "scene-mixer.json"), (find_table, "sites.tfrecord.gz")):
        ours.fs.ls("bucket/late/run")
        assert find(ours).url == f"s3://bucket/late/run/{name}"
    other.rm("bucket/late/run", recursive=True)
    assert folder_exports(ours) == []


def test_stores_in_bucket_are_resumed_and_replaced(server):
    import xarray as xr

    options = {"storage_options": server}
    url = "s3://bucket/z/p.zarr"
    for seed, if_exists in ((1, "error"), (1, "error"), (2, "overwrite")):
        xee_tf.predict_to_zarr(model(), image(seed), url, if_exists=if_exists, **options)
        found = xr.open_zarr(url, storage_options=server)
        np.testing.assert_array_equal(found["p"], image(seed)["B4"] + 1)
    with pytest.raises(DestinationExistsError, match="the input 'B4' is not the same"):
        xee_tf.predict_to_zarr(model(), image(3), url, **options)
    separate_fs(server).pipe("bucket/z/docs.zarr/thesis.txt", b"x")
    with pytest.raises(DestinationExistsError, match=r"thesis\.txt"):
        xee_tf.predict_to_zarr(model(), image(), "s3://bucket/z/docs.zarr", if_exists="overwrite", **options)
    image(4).tfexport("s3://bucket/z/s", **PATCHES, **options)
    for _ in range(2):
        xee_tf.upload_image(
            None, "s3://bucket/z/s-mixer.json", "s3://bucket/z/u.zarr", if_exists="overwrite", **options
        )
        found = xr.open_zarr("s3://bucket/z/u.zarr", storage_options=server)
        np.testing.assert_array_equal(found["B4"], image(4)["B4"])
    names = {path.split("/")[2] for path in separate_fs(server).find("bucket/z")}
    assert names == {
        "p.zarr",
        "docs.zarr",
        "s-00000.tfrecord.gz",
        "s-mixer.json",
        "s-image.tfexport",
        "u.zarr",
    }


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_store_that_creates_no_folders(zarr_format, tmp_path):
    """As on SFTP servers."""
    url = f"{StrictFileSystem.protocol}://{tmp_path}/new/sub"
    image(4).tfexport(f"{url}/s", **PATCHES)
    with zarr.config.set(default_zarr_format=zarr_format):
        for seed, if_exists in ((1, "error"), (1, "error"), (2, "overwrite")):
            xee_tf.predict_to_zarr(model(), image(seed), f"{url}/p.zarr", if_exists=if_exists)
            np.testing.assert_array_equal(xr.open_zarr(f"{url}/p.zarr")["p"], image(seed)["B4"] + 1)
        for if_exists in ("error", "overwrite"):
            xee_tf.upload_image(None, f"{url}/s-mixer.json", f"{url}/u.zarr", if_exists=if_exists)
            np.testing.assert_array_equal(xr.open_zarr(f"{url}/u.zarr")["B4"], image(4)["B4"])
    hidden = [
        each for _, folders, names in os.walk(tmp_path) for each in (*folders, *names) if each[0] == "."
    ]
    assert set(hidden) <= {".xee_tf", ".zgroup", ".zattrs", ".zarray", ".zmetadata"}


def test_if_exists_is_checked_before_the_model(tmp_path):
    for value in ("eror", "Resume", None, True):
        with pytest.raises(OptionError, match="if_exists must be"):
            xee_tf.predict_to_zarr(None, None, tmp_path / "p.zarr", if_exists=value)


def test_workers_in_another_folder_write_to_folder_of_caller(tmp_path):
    """Threads share the current folder of their process; workers that were started before do not."""
    code = (
        "import os, sys, dask\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from tests.test_storage import image, PATCHES\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1)\n"
        "    pool.submit(os.getpid).result()\n"
        "    os.chdir(sys.argv[1])\n"
        "    with dask.config.set(scheduler='processes', pool=pool):\n"
        "        image().tfexport('out/s', **PATCHES)\n"
        "    pool.shutdown()\n"
    )
    (tmp_path / "start").mkdir()
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "here")],
        capture_output=True,
        cwd=tmp_path / "start",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "here" / "out" / "s-mixer.json").exists()
    assert not list((tmp_path / "start").iterdir())


@pytest.mark.parametrize("side_file", [False, True])
def test_put_file(server, tmp_path, side_file):
    for name in ("map.tif", "again.tif"):
        (tmp_path / name).write_bytes(b"a map")
    file = tmp_path / "map.tif"
    there = Location.of("s3://bucket/maps/of-2024/map.tif", server)
    there = there.with_suffix(".aux.xml") if side_file else there
    there.put_file(file)
    assert there.read_bytes() == b"a map"
    assert file.exists()
    with pytest.raises(DestinationError, match=r"Cannot write s3://no-such-bucket/map\.tif"):
        Location.of("s3://no-such-bucket/map.tif", server).put_file(file)
    Location.of(tmp_path / "deep" / "map.tif").put_file(file)
    assert (tmp_path / "deep" / "map.tif").read_bytes() == b"a map"
    (tmp_path / "file").touch()
    with pytest.raises(DestinationError, match=r"Cannot write .*file/map\.tif"):
        Location.of(tmp_path / "file" / "map.tif").put_file(tmp_path / "again.tif")


def test_renamed_mixer_needs_records(tmp_path):
    result = image().tfexport(tmp_path / "s", **PATCHES)
    renamed = tmp_path / "georeference.json"
    os.rename(result.mixer.path, renamed)
    for read in (xee_tf.open_image, lambda path: xee_tf.tf_dataset(path, inputs=["B4"])):
        with pytest.raises(OptionError, match="cannot be found, because its name"):
            read(renamed)
    shards = [file.path for file in result.files]
    dataset = xee_tf.tf_dataset(renamed, inputs=["B4"], records=shards)
    assert len(list(dataset.unbatch())) == 4


# -- Unwritable destinations -------------------------------------------------------------------------


def writers(tmp_path, path, **options):
    """Return all calls that write to a path."""
    import pandas as pd

    shards, mixer = [tmp_path / "s-00000.tfrecord.gz"], tmp_path / "s-mixer.json"
    if not mixer.exists():
        image().tfexport(tmp_path / "s", **PATCHES)
    table = pd.DataFrame({"longitude": [1.0], "latitude": [2.0]})

    def end(suffix):
        return f"{path}{suffix}" if isinstance(path, str) else path

    return {
        "tfexport": lambda: image().tfexport(path, **PATCHES, **options),
        "table": lambda: xee_tf.export_table(table, path, **options),
        "prediction": lambda: xee_tf.predict_to_zarr(model(), image(), end(".zarr"), **options),
        "geotiff": lambda: xee_tf.upload_image(shards, xee_tf.Mixer.read(mixer), end(".tif"), **options),
        "zarr": lambda: xee_tf.upload_image(shards, xee_tf.Mixer.read(mixer), end(".zarr"), **options),
        "records": lambda: xee_tf.PredictionWriter(end(".tfrecord"), xee_tf.Mixer.read(mixer), **options),
    }


@pytest.mark.parametrize("path", [None, b"s", 7, ["s"]])
def test_invalid_path_types(path, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    for write in writers(tmp_path, path).values():
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(OptionError, match="A path must be a string or path-like"):
            write()
        assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("server_of", ["web", "dead"])
def test_unwritable_servers(server_of, tmp_path, monkeypatch):
    url, options, message = "http://127.0.0.1:9/e/s", {}, "web servers are read-only"
    if server_of == "dead":
        url, message = "s3://bucket/e/s", "Could not connect|Cannot write s3://bucket"
        client = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1}}
        endpoint = {"key": "id", "secret": "secret", "endpoint_url": "http://127.0.0.1:9", **client}
        options = {"storage_options": endpoint}
        monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    for name, write in writers(tmp_path, url, **options).items():
        if server_of == "dead" and name in ("geotiff", "zarr"):
            continue  # their storage options also apply to the records
        with pytest.raises(DestinationError, match=message):
            write()


@pytest.mark.parametrize(
    ("url", "example"),
    [
        ("simplecache::memory://e/s", r", such as memory://e/s\S*\.$"),
        ("filecache::blockcache::memory://e/s", r", such as memory://e/s\S*\.$"),
        ("simplecache://e/s", r"\.$"),
    ],
)
def test_filesystems_on_top_of_a_store(url, example, tmp_path):
    for write in writers(tmp_path, url).values():
        with pytest.raises(DestinationError, match=f"Write to the store itself{example}"):
            write()


def test_zarr_in_a_folder_as_a_filesystem(tmp_path):
    options = {"storage_options": {"path": str(tmp_path), "target_protocol": "file"}}
    with pytest.raises(DestinationError, match=r"Cannot write dir://p\.zarr: .*Write to the store itself"):
        xee_tf.predict_to_zarr(model(), image(), "dir://p.zarr", **options)
    assert os.listdir(tmp_path) == []


def test_repeated_slashes_in_url(server):
    import xarray as xr

    options = {"storage_options": server}
    image().tfexport("s3://bucket//two///s", **PATCHES, **options)
    found = xee_tf.open_image("s3://bucket//two/s", **options)
    np.testing.assert_array_equal(found["B4"], image()["B4"])
    store = xee_tf.predict_to_zarr(model(), image(), "s3://bucket//two//p.zarr", **options)
    assert store.url == "s3://bucket/two/p.zarr"
    found = xr.open_zarr(store.url, storage_options=server)
    np.testing.assert_array_equal(found["p"], image()["B4"] + 1)
    assert Location.of("https://host/a//b/").url == "https://host/a//b"
    assert Location.of("memory:///a//b").url == "memory:///a/b"


def test_symbolic_link_is_followed(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "map.tif").write_text("old")
    (tmp_path / "deep" / "t.tfrecord").write_text("old")
    (tmp_path / "link.tif").symlink_to("deep/map.tif")
    (tmp_path / "link.tfrecord").symlink_to("deep/t.tfrecord")
    write = writers(tmp_path, str(tmp_path / "link"), if_exists="overwrite")
    write["geotiff"]()
    with write["records"]() as writer:
        writer.write(np.ones((4, 16, 16)))
    for name in ("link.tif", "link.tfrecord"):
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).stat().st_size > 100
    assert sorted(os.listdir(tmp_path / "deep")) == ["map.tif", "t.tfrecord"]


def test_symbolic_link_to_another_disk(tmp_path, monkeypatch):
    replace, target = os.replace, tmp_path / "other" / "a"
    target.parent.mkdir()
    target.write_text("old")
    (tmp_path / "link").symlink_to(target)

    def replace_on_same_disk(source, path):
        if os.path.dirname(source) != os.path.dirname(path):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, path)

    monkeypatch.setattr(os, "replace", replace_on_same_disk)
    Location.of(tmp_path / "link").write_bytes(b"new")
    assert target.read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["link", "other"]
    assert os.listdir(target.parent) == ["a"]


@pytest.mark.parametrize("if_exists", ["error", "overwrite"])
def test_broken_symbolic_link(if_exists, tmp_path):
    for suffix in ("", ".tif", ".zarr", ".tfrecord"):
        (tmp_path / f"link{suffix}").symlink_to(tmp_path / "nowhere")
    write = writers(tmp_path, str(tmp_path / "link"), if_exists=if_exists)
    for name in ("prediction", "geotiff", "zarr", "records"):
        with pytest.raises(DestinationError, match=r"symbolic link to .*nowhere, which does not"):
            write[name]()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "ending", ["-mixer.json", "-00000.tfrecord.gz", "-00007.tfrecord", "-image.tfexport"]
)
def test_folder_at_path_of_export_file(ending, tmp_path):
    (tmp_path / f"s{ending}").mkdir()
    with pytest.raises(DestinationExistsError, match=f"s{ending} is a folder"):
        image().tfexport(tmp_path / "s", **PATCHES, if_exists="overwrite")
    assert os.listdir(tmp_path) == [f"s{ending}"]


def test_folder_at_path_of_table_manifest(tmp_path):
    (tmp_path / "t-table.tfexport").mkdir()
    with pytest.raises(DestinationExistsError, match=r"t-table\.tfexport is a folder"):
        xee_tf.export_table({"a": np.ones(3)}, tmp_path / "t", if_exists="overwrite")
    assert os.listdir(tmp_path) == ["t-table.tfexport"]


@pytest.mark.skipif(os.sep != "/", reason="a backslash separates folders here")
def test_names_with_backslashes(tmp_path):
    for write in (writers(tmp_path, f"{tmp_path}/out\\s")[name] for name in ("tfexport", "table")):
        with pytest.raises(DestinationError, match="contains a backslash"):
            write()


def test_dimension_without_name(tmp_path):
    ds = image().assign(B5=(("", "y", "x"), np.ones((2, 32, 32))))
    with pytest.raises(OptionError, match="rename the dimension"):
        ds.tfexport(tmp_path / "s", **PATCHES)
    assert not os.listdir(tmp_path)


@needs_posix
def test_link_to_itself_is_a_missing_file(tmp_path):
    result = raster({"a": np.ones((32, 32), "f4")}).tfexport(tmp_path / "s", patch_dimensions=16)
    shard = Path(result.files[0].path)
    shard.unlink()
    shard.symlink_to(shard.name)
    with pytest.raises(MissingShardError, match=r"s-00000\.tfrecord"):
        xee_tf.open_image(tmp_path / "s-mixer.json").load()


@pytest.mark.parametrize("path", ["s3://", "gs:///"])
def test_urls_without_a_bucket(path):
    with pytest.raises(DestinationError, match=rf"Use '{path.partition(':')[0]}://bucket/scene'"):
        raster({"a": np.ones((32, 32), "f4")}).tfexport(path, patch_dimensions=16)
