"""Stores of zarr and obstore: as the source of a raster, and what errors say where a path is expected."""

from __future__ import annotations

import http.server
import threading

import numpy as np
import pytest
import xarray as xr
import zarr

import xee_tf
from tests.optional import optional
from tests.rasters import random_band, raster
from xee_tf import DestinationError, DestinationExistsError, MissingShardError, Model, OptionError
from xee_tf.sidecars.missing import missing_error
from xee_tf.storage import Location, bucket_url, storage_errors

stores = optional("obstore.store")

DOUBLE = Model.from_function(lambda b: 2 * b[..., 0], input_tile_size=8, bands=["B4"], output_bands=["p"])
SECRET = "c2VjcmV0LWtleQ=="


def scene():
    return raster({"B4": random_band((24, 16))}).rio.write_crs(32633).chunk(y=8, x=8)


def written(store):
    """Return a raster that was written to a store, opened from it."""
    scene().to_zarr(store, consolidated=False)
    return xr.open_zarr(store, consolidated=False, decode_coords="all")


def objects(kind, folder):
    if kind == "memory":
        return zarr.storage.ObjectStore(stores.MemoryStore())
    return zarr.storage.ObjectStore(stores.LocalStore(folder / "source.zarr", mkdir=True))


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_rasters_in_stores_of_obstore_are_exported_and_resumed(kind, tmp_path):
    store = objects(kind, tmp_path)
    opened = written(store)
    export = opened.tfexport(tmp_path / "scene", patch_dimensions=8, if_exists="resume")
    np.testing.assert_array_equal(xee_tf.open_image(export).B4, scene().B4)
    again = opened.tfexport(tmp_path / "scene", patch_dimensions=8, if_exists="resume")
    assert (export.resumed, again.resumed) == (0, 1)
    xee_tf.predict_to_zarr(DOUBLE, opened, tmp_path / "p.zarr")
    xee_tf.predict_to_zarr(DOUBLE, opened, tmp_path / "p.zarr")  # the same is found complete
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "p.zarr").p, 2 * scene().B4)
    # Other pixels in the same place are noticed.
    zarr.open_group(store)["B4"][0, 0] += 1
    opened = xr.open_zarr(store, consolidated=False, decode_coords="all")
    with pytest.raises(DestinationExistsError, match="the input 'B4' is not the same as before"):
        xee_tf.predict_to_zarr(DOUBLE, opened, tmp_path / "p.zarr")


def test_stores_that_cannot_be_listed_need_an_identity(tmp_path):
    (tmp_path / "web").mkdir()
    scene().to_zarr(tmp_path / "web" / "s.zarr", zarr_format=2, consolidated=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "web")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            web = stores.HTTPStore(
                f"http://127.0.0.1:{server.server_port}/s.zarr",
                client_options={"allow_http": True},
                retry_config={"max_retries": 0},
            )
            opened = xr.open_zarr(zarr.storage.ObjectStore(web), consolidated=True, decode_coords="all")
            xee_tf.predict_to_zarr(DOUBLE, opened, tmp_path / "p.zarr")
            with pytest.raises(DestinationExistsError, match=r"cannot be listed: .*identity='2024-05'"):
                xee_tf.predict_to_zarr(DOUBLE, opened, tmp_path / "p.zarr")
        finally:
            server.shutdown()
            thread.join()
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "p.zarr").p, 2 * scene().B4)


OBJECTS = {
    "zarr local": (lambda: zarr.storage.LocalStore("/data/maps.zarr"), "zarr", "pass /data/maps.zarr"),
    "zarr fsspec": (
        lambda: zarr.storage.FsspecStore.from_url("memory://maps/s.zarr"),
        "zarr",
        "pass memory:///maps/s.zarr",
    ),
    "zarr memory": (zarr.storage.MemoryStore, "zarr", "no URL leads to what it holds"),
    "S3": (
        lambda: stores.S3Store(
            "maps", prefix="2020/a", region="us-east-1", access_key_id=SECRET, secret_access_key=SECRET
        ),
        "obstore",
        "pass s3://maps/2020/a instead",
    ),
    "MinIO": (
        lambda: stores.S3Store("maps", endpoint="https://minio.example", skip_signature=True),
        "obstore",
        "pass s3://maps with storage_options={'endpoint_url': 'https://minio.example'} instead",
    ),
    "Azure": (
        lambda: stores.from_url(
            "https://forests.blob.core.windows.net/maps/a", config={"account_key": SECRET}
        ),
        "obstore",
        "pass az://maps/a with storage_options={'account_name': 'forests'} instead",
    ),
    "Google": (
        lambda: stores.GCSStore("maps", prefix="a", skip_signature=True),
        "obstore",
        "pass gs://maps/a",
    ),
    "web": (
        lambda: stores.HTTPStore("https://maps.example/a"),
        "obstore",
        "pass https://maps.example/a instead",
    ),
    "memory": (lambda: stores.MemoryStore(), "obstore", "no URL leads to what it holds"),
    "S3 in zarr": (
        lambda: zarr.storage.ObjectStore(stores.S3Store("maps", region="us-east-1")),
        "zarr",
        "pass s3://maps instead",
    ),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_store_objects_are_no_paths(kind, tmp_path):
    create, package, message = OBJECTS[kind]
    given = create()
    calls = [
        lambda: xee_tf.open_image(given),
        lambda: xee_tf.export_image(scene(), given, patch_dimensions=8),
        lambda: xee_tf.predict_to_zarr(DOUBLE, scene(), given),
        lambda: xee_tf.verify(given),
    ]
    for call in calls:
        with pytest.raises(OptionError, match="A path must be a string or path-like") as raised:
            call()
        text = str(raised.value)
        assert f"It is a store object of {package}: {message}" in text
        opened = "store" if package == "zarr" else "zarr.storage.ObjectStore(store)"
        assert text.endswith(f"xr.open_zarr({opened}) returns.")
        assert SECRET not in text


def test_other_objects_have_no_url():
    for given in (zarr.create_array({}, shape=(1,), dtype="u1"), 7):
        with pytest.raises(OptionError, match=r"got [^.]+\.$"):
            Location.of(given)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://f.blob.core.windows.net/c/a/b", "az://c/a/b with storage_options={'account_name': 'f'}"),
        ("https://f.dfs.core.windows.net/c/a", "az://c/a with storage_options={'account_name': 'f'}"),
        (
            "https://f.blob.core.windows.net/c/a?sig=secret",
            "az://c/a with storage_options={'account_name': 'f'}",
        ),
        ("https://b.s3.eu-west-1.amazonaws.com/a/b", "s3://b/a/b"),
        ("https://b.s3.amazonaws.com/a", "s3://b/a"),
        ("https://b.s3-us-west-2.amazonaws.com/a", "s3://b/a"),
        ("https://b.c.s3.dualstack.eu-west-1.amazonaws.com/a", "s3://b.c/a"),
        ("https://s3.eu-west-1.amazonaws.com/b/a", "s3://b/a"),
        ("https://s3.amazonaws.com/b/a", "s3://b/a"),
        ("https://s3.cn-north-1.amazonaws.com.cn/b/a", "s3://b/a"),
        (
            "https://x.r2.cloudflarestorage.com/b/a",
            "s3://b/a with storage_options={'endpoint_url': 'https://x.r2.cloudflarestorage.com'}",
        ),
        ("https://storage.googleapis.com/b/a", "gs://b/a"),
        ("https://b.storage.googleapis.com/a", "gs://b/a"),
        ("https://example.com/b.s3.amazonaws.com/a", ""),
        ("https://evil-storage.googleapis.com.example/b/a", ""),
        ("s3://bucket/a", ""),
        ("/data/scene", ""),
    ],
)
def test_web_addresses_of_buckets(address, expected):
    assert bucket_url(address) == expected


@pytest.mark.parametrize("address", ["https://b.s3.amazonaws.com/a", "https://example.com/a"])
def test_errors_name_the_bucket_of_a_web_address(address):
    pytest.importorskip("aiohttp")
    expected = bucket_url(address)
    with pytest.raises(DestinationError, match="web servers are read-only") as raised:
        scene().tfexport(address, patch_dimensions=8)
    assert str(raised.value).endswith(f"read-only. Pass {expected}." if expected else "s3://bucket/scene.")
    with pytest.raises(MissingShardError) as missing, storage_errors("read", address, local=False):
        raise FileNotFoundError(address)
    assert ("Private objects are read from " + expected in str(missing.value)) == bool(expected)


def test_protocols_of_obstore():
    with pytest.raises(DestinationError, match="by the name az: pass az://container/scene"):
        scene().tfexport("azure://maps/scene", patch_dimensions=8)
    export = scene().tfexport("memory:///obstore/scene", patch_dimensions=8)
    np.testing.assert_array_equal(xee_tf.open_image("memory://obstore/scene-mixer.json").B4, scene().B4)
    assert xee_tf.verify(export).ok


def test_missing_exports_in_web_addresses_of_buckets():
    pytest.importorskip("aiohttp")
    found = missing_error(Location.of("https://f.blob.core.windows.net/c/scene"), "No export was found.")
    assert str(found) == (
        "No export was found. Folders and private objects of buckets are read from az://c/scene with "
        "storage_options={'account_name': 'f'}."
    )
    assert str(missing_error(Location.of("https://example.com/scene"), "No export.")) == "No export."
