"""Tests of the number of requests that readers make to a bucket."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import xee_tf
from tests.conftest import every_bucket
from tests.rasters import random_band, raster
from xee_tf.sidecars import find_shards
from xee_tf.storage import Location

OPTIONS = {"patch_dimensions": 16, "max_file_size": 9000}


def image(seed=0):
    return raster({name: random_band((96, 96), seed=seed + number) for number, name in enumerate("abc")})


def kinds(bucket):
    return dict(bucket.proxy.totals().kinds)


@every_bucket
@pytest.mark.parametrize("options", [{}, {"compressed": False}, {"feature_types": "band"}])
@pytest.mark.parametrize("source", ["scene-mixer.json", "scene"])
def test_opening_and_one_window(bucket, options, source):
    result = image().tfexport(f"{bucket.url}/run/scene", storage_options=bucket.options, **OPTIONS, **options)
    assert len(result.files) >= 3
    bucket.proxy.reset()
    opened = xee_tf.open_image(f"{bucket.url}/run/{source}", storage_options=bucket.options)
    listings = 1 + (source == "scene")
    expected = {"list": listings, "get": 3}  # the mixer, the manifest and a record
    # Before each listing, adlfs asks whether the folder is an object.
    assert kinds(bucket) == (expected | {"head": listings} if bucket.scheme == "az" else expected)
    bucket.proxy.reset()
    window = opened.b[20:23, 40:45].values
    np.testing.assert_array_equal(window, image().b[20:23, 40:45])
    assert kinds(bucket) == {"get": 1}


def test_each_path_of_records_needs_one_request_to_be_found(bucket):
    result = image().tfexport(f"{bucket.url}/run/scene", storage_options=bucket.options, **OPTIONS)
    paths = [f"{bucket.url}/predicted/{number}" for number in range(len(result.files))]  # no known endings
    locations = [Location.of(path, bucket.options) for path in paths]
    for file, location in zip(result.files, locations, strict=True):
        location.write_bytes(Location.of(file.path, bucket.options).read_bytes())
    bucket.proxy.reset()
    for location in locations:
        assert list(find_shards(location)) == [location]
    assert kinds(bucket) == {"head": len(paths)}
    with pytest.raises(xee_tf.OptionError, match="predicted is a folder: pass the TFRecord files in it"):
        find_shards(locations[0].parent)
    bucket.proxy.reset()
    opened = xee_tf.open_image(result.mixer, paths, storage_options=bucket.options)
    assert kinds(bucket)["head"] == len(paths)
    np.testing.assert_array_equal(opened.b, image().b)


@pytest.mark.parametrize("records", ["copy", "copy-*.gz"])
def test_files_that_a_listing_shows_are_not_asked_for(bucket, records):
    result = image(seed=3).tfexport(f"{bucket.url}/run/scene", storage_options=bucket.options, **OPTIONS)
    for number, file in enumerate(result.files):
        copy = Location.of(f"{bucket.url}/copies/copy-{number:05d}.tfrecord.gz", bucket.options)
        copy.write_bytes(Location.of(file.path, bucket.options).read_bytes())
    bucket.proxy.reset()
    opened = xee_tf.open_image(result.mixer, f"{bucket.url}/copies/{records}", storage_options=bucket.options)
    asked = [request.key for request in bucket.proxy.log if request.kind == "head"]
    assert [key for key in asked if key.endswith(".gz") and "*" not in key] == []
    np.testing.assert_array_equal(opened.b, image(seed=3).b)


@every_bucket
@pytest.mark.parametrize("kind", ["image", "table"])
def test_each_byte_is_uploaded_once(bucket, kind, monkeypatch):
    monkeypatch.setattr("xee_tf.shards.upload_store._PART", 3000)
    url, options = f"{bucket.url}/run/scene", {"storage_options": bucket.options}
    for if_exists in ("error", "overwrite"):
        bucket.proxy.reset()
        if kind == "image":
            files = image().chunk(y=32, x=32).tfexport(url, if_exists=if_exists, **options, **OPTIONS).files
        else:
            rows = pd.DataFrame({"a": np.random.default_rng(0).random(3000)})
            files = [xee_tf.export_table(rows, url, if_exists=if_exists, **options).file]
        shards = {f"{bucket.name}/run/{file.path.rpartition('/')[2]}" for file in files}
        log = bucket.proxy.log
        assert sum(request.up for request in log if request.kind == "part") == sum(f.bytes for f in files)
        assert sum(request.kind == "complete" for request in log) == len(files)
        found = {request.kind for request in log if request.key in shards}
        assert found <= {"head", "begin", "part", "complete"}
        assert bucket.proxy.totals().copied == 0


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("compressed", [False, True])
def test_workers_upload_their_own_records(bucket, tmp_path, small_blocks, workers, compressed):
    values = random_band((1536, 2048))
    lazy = da.map_blocks(_gradient, chunks=((512,) * 3, (512,) * 4), dtype="f4", meta=np.empty((0, 0), "f4"))
    ds = raster(dict.fromkeys("abc", values)).assign(dict.fromkeys("abc", (("y", "x"), lazy)))
    options = {"patch_dimensions": 512, "compressed": compressed, "max_file_size": 20_000_000}
    ds.tfexport(tmp_path / "scene", **options)
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=":0")
    with cluster, Client(cluster):
        files = ds.tfexport(f"{bucket.url}/run/scene", storage_options=bucket.options, **options).files
    shards = [Location.of(file.path, bucket.options).read_bytes() for file in files]
    assert shards == [path.read_bytes() for path in sorted(tmp_path.glob("*.tfrecord*"))]
    parts = [request.up for request in bucket.proxy.log if request.kind == "part"]
    assert sum(parts) == sum(map(len, shards))
    # Two workers have 6 MiB each of a row of patches; on four workers, or compressed, less is joined.
    assert len(parts) == (4 if compressed or workers == 1 else 6)
    assert min(parts) > 5 << 20


def _gradient(block_info=None):
    (rows, columns) = block_info[None]["array-location"]
    return (np.arange(*rows)[:, None] * 7 ^ np.arange(*columns) * 13).astype("f4")


@every_bucket
def test_objects_that_are_replaced_or_removed_after_opening(bucket):
    url = f"{bucket.url}/run/scene"
    result = image().tfexport(url, storage_options=bucket.options, **OPTIONS, compressed=False)
    opened = xee_tf.open_image(result, storage_options=bucket.options)
    objects = bucket.read()
    first, second = (key for key in list(objects)[:2])
    bucket.restore({**objects, second: objects[first]})
    with pytest.raises(xee_tf.RecordError, match=r"scene-00001.tfrecord was replaced or modified after"):
        opened.load()
    bucket.restore({key: data for key, data in objects.items() if key != second})
    with pytest.raises(xee_tf.MissingShardError, match=rf"{url}-00001.tfrecord does not exist"):
        opened.load()
    with pytest.raises(xee_tf.MissingShardError, match=rf"Shard 1 of {url}-mixer.json is missing"):
        xee_tf.open_image(result, storage_options=bucket.options)
    bucket.restore(objects)
    np.testing.assert_array_equal(opened.b, image().b)
