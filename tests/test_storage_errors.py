"""Tests that errors of disks and object stores name the file, what was being done, and what to do."""

import errno
import gc
import os
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import xee_tf
from tests.conftest import every_bucket, needs_posix
from tests.counting_proxy import DROP, Error
from tests.kill_points import kill_points
from tests.optional import optional
from tests.rasters import random_band, raster
from xee_tf import DestinationError, MissingShardError, OptionError, StorageError
from xee_tf.storage import Location, is_inaccessible, read_record, storage_errors
from xee_tf.storage.credentials import require_credentials

s3fs = optional("s3fs")
botocore_exceptions = optional("botocore.exceptions")

PATCHES = {"patch_dimensions": 16}


def image(seed=0):
    return raster({"B4": random_band((32, 32), seed=seed)})


class AzureError(Exception):
    """An error with the attributes of those of Azure."""

    def __init__(self, status_code, error_code):
        super().__init__(error_code)
        self.status_code, self.error_code = status_code, error_code


@pytest.fixture
def options(bucket, monkeypatch):
    """Return the storage options of the bucket, without retries, which take seconds."""
    if bucket.scheme != "s3":
        return {**bucket.options, "skip_instance_cache": True}
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    config = {"retries": {"max_attempts": 0}, "read_timeout": 5}
    return {**bucket.options, "config_kwargs": config}


# -- Local disks ---------------------------------------------------------------------------------------


@needs_posix
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, ["the disk is full", "MB are free", "Free some space"]),
        (errno.EDQUOT, ["quota", "Delete files"]),
        (errno.EACCES, ["permission denied", "Every process that writes needs access"]),
        (errno.EROFS, ["read-only"]),
        (errno.EIO, ["the disk failed"]),
    ],
)
def test_local_writes(number, words, tmp_path):
    file = Location.of(tmp_path / "sub" / "file")

    def work():
        file.write_bytes(b"content", durable=True)

    seen = set()
    for point in kill_points(work, tmp_path, error=number):
        if point.error:
            seen.add(point.what.split()[0])
            assert point.error.startswith(f"DestinationError: Cannot write {file}: "), point.what
            assert all(word in point.error for word in words), point.error
        hidden = [name for _, _, names in os.walk(tmp_path) for name in names if name.startswith(".")]
        assert hidden == []
    needing_space = {"mkdir", "create", "write"}
    assert seen == needing_space | (set() if number in (errno.ENOSPC, errno.EDQUOT) else {"rename", "sync"})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk():
    file = Location.of("/dev/full").open("wb")
    file.write(b"content")
    with pytest.raises(DestinationError, match=r"Cannot write /dev/full: the disk is full \(.*MB are free\)"):
        file.close()


@needs_posix
def test_local_reads(tmp_path):
    with pytest.raises(MissingShardError, match=f"Cannot read {tmp_path}/file: the file does not exist"):
        Location.of(tmp_path / "file").read_bytes()
    with pytest.raises(FileNotFoundError, match="file"):
        Location.of(tmp_path / "file").remove()
    with pytest.raises(IsADirectoryError):
        Location.of(tmp_path).read_bytes()


def test_local_file_is_created_only_once(tmp_path):
    file = Location.of(tmp_path / "file")
    file.write_bytes(b"first", exclusive=True, durable=True)
    with pytest.raises(FileExistsError):
        file.write_bytes(b"second", exclusive=True)
    assert file.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_disk_without_hard_links(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    test_local_file_is_created_only_once(tmp_path)


@needs_posix
def test_killed_write_leaves_all_or_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    file = Location.of(tmp_path / "file")

    def work():
        file.write_bytes(b"newer")

    found = []
    for _ in kill_points(work, tmp_path):
        found.append(file.read_bytes())
    assert found == [b"old"] * 3 + [b"newer"]


@needs_posix
def test_names_that_are_too_long(tmp_path):
    name = str(tmp_path / ("n" * 245))
    for call in (
        lambda: image().tfexport(name, **PATCHES),
        lambda: xee_tf.export_table(pd.DataFrame({"a": [1.0]}), name),
        lambda: xee_tf.predict_to_cog(None, image(), f"{name}.tif"),
    ):
        with pytest.raises(DestinationError, match=r"the name is too long: it has .* Choose a shorter name"):
            call()
    for call in (xee_tf.open_image, xee_tf.open_table, xee_tf.verify, xee_tf.inspect):
        with pytest.raises(StorageError, match=f"Cannot read {tmp_path}/n.*: the name is too long"):
            call(name)
    assert os.listdir(tmp_path) == []


@needs_posix
def test_a_folder_that_cannot_be_searched(tmp_path, monkeypatch):
    """Files in it are not said to be missing."""

    def stat(path, *, _stat=os.stat, **options):
        if str(path).startswith(f"{tmp_path}/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return _stat(path, **options)

    monkeypatch.setattr(os, "stat", stat)  # the tests may run as root, who may read everything
    with pytest.raises(StorageError, match=f"Cannot read {tmp_path}/s: permission denied"):
        Location.of(tmp_path / "s").exists()


@needs_posix
def test_libraries_that_do_not_say_that_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=4096, total=10**9))
    with (
        pytest.raises(DestinationError, match=r"Cannot write /m.tif: the disk is full \(0 of 1,000 MB "),
        storage_errors("write", "/m.tif"),
    ):
        raise OSError("Write failed. See previous exception for details.")


def test_verify_reports_a_shard_that_cannot_be_read(bucket):
    image().tfexport(f"{bucket.url}/s", storage_options=bucket.options, max_file_size=1500, **PATCHES)
    denied = Error(403, "AccessDenied")
    bucket.proxy.disturb(1, denied, lasting=True, matching=lambda each: "-00001." in each.key)
    checked = xee_tf.verify(f"{bucket.url}/s", storage_options=bucket.options)
    [problem] = checked.problems
    assert problem.startswith(f"Cannot read {bucket.url}/s-00001.tfrecord.gz: permission denied")


# -- Buckets -------------------------------------------------------------------------------------------

FAILURES = [
    (Error(403, "AccessDenied"), "permission denied"),
    (Error(400, "ExpiredToken"), "the credentials have expired"),
    (Error(403, "InvalidAccessKeyId"), "the credentials are not valid"),
    (Error(503, "SlowDown"), "too many requests"),
    (Error(500, "InternalError"), "the store failed"),
    (DROP, "the store cannot be reached"),
]


@pytest.mark.parametrize(("failure", "words"), FAILURES)
def test_store_writes(failure, words, bucket, options):
    file = Location.of(f"{bucket.url}/run/file", options)
    file.write_bytes(b"old")
    bucket.proxy.disturb(1, failure, lasting=True)

    def write():
        with file.open("wb") as opened:
            opened.write(b"new")

    other = file.with_suffix("-2")
    writes = [
        (file, lambda: file.write_bytes(b"new")),
        (other, lambda: other.write_bytes(b"new", exclusive=True)),
        (file, write),
        (other, lambda: file.move(other)),
    ]
    for target, call in writes:
        with pytest.raises(DestinationError, match=f"Cannot (write|create) {target}: .*{words}"):
            call()
    with pytest.raises(DestinationError, match=f"Cannot delete {file}: .*{words}"):
        file.remove()
    bucket.proxy.reset()
    assert bucket.read() == {"run/file": b"old"}


def test_refused_deletions_are_given_up(bucket, options):
    """The user waits for the error of the run."""
    folder = Location.of(f"{bucket.url}/run/.s-0", options)
    folder.child("part").write_bytes(b"content")
    bucket.proxy.reset()
    bucket.proxy.disturb(1, Error(403, "AccessDenied"), lasting=True)
    folder.clear()
    assert bucket.proxy.totals().kinds["delete"] == 3
    assert bucket.read() == {"run/.s-0/part": b"content"}


def test_folders_are_deleted_once_no_files_are_added(tmp_path, monkeypatch):
    folder, left = tmp_path / "folder", list(range(5))
    folder.mkdir()
    remove = Location.remove

    def refuse(self, **options):
        if left:
            raise OSError(errno.ENOTEMPTY, f"Directory not empty: {left.pop()}")
        remove(self, **options)

    monkeypatch.setattr(Location, "remove", refuse)
    Location.of(folder).clear()
    assert not folder.exists()


@pytest.mark.parametrize(("failure", "words"), FAILURES)
def test_store_reads(failure, words, bucket, options):
    file = Location.of(f"{bucket.url}/run/file", options)
    file.write_bytes(b"content")
    bucket.proxy.disturb(1, failure, lasting=True, matching=lambda request: not request.is_change)
    with pytest.raises(StorageError, match=f"Cannot read {file}: .*{words}"):
        file.read_bytes(0, 3)
    with pytest.raises(StorageError, match=f"Cannot list {file.parent}: "):
        file.parent.entries()
    if failure != DROP and failure.status != 500:
        short = "the store refused the request" if failure.status == 400 else "permission denied|.*too many"
        with pytest.raises(StorageError, match=f"Cannot read {file}: ({short})"):
            file.exists()
    if failure == DROP or failure.status not in (400, 403):
        with pytest.raises(StorageError, match=f"Cannot list {file.parent}: .*{words}"):
            file.siblings()


@every_bucket
def test_missing_objects_are_named(bucket, options):
    file = Location.of(f"{bucket.url}/run/file", options)
    with pytest.raises(MissingShardError, match=rf"Cannot read {file}: no such object \(.+\)"):
        file.read_bytes()
    with pytest.raises(MissingShardError, match=f"Cannot read {file}: no such object"):
        file.size()
    assert not file.exists()
    assert file.siblings() == []


@every_bucket
def test_missing_shard_is_named(bucket):
    image().tfexport(f"{bucket.url}/s", storage_options=bucket.options, max_file_size=1500, **PATCHES)
    opened = xee_tf.open_image(f"{bucket.url}/s", storage_options=bucket.options)
    shards = [key for key in bucket.etags() if key.endswith(".gz")]
    bucket.delete(shards[0])
    for read in (
        opened.load,
        lambda: xee_tf.open_image(f"{bucket.url}/s", storage_options=bucket.options).load(),
    ):
        with pytest.raises(xee_tf.XeeTFError, match=r"s-00000|Shard 0 of"):
            read()


def test_lost_credentials(monkeypatch, tmp_path):
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    options = {"endpoint_url": "http://127.0.0.1:9", "skip_instance_cache": True, "anon": False}
    file = Location.of("s3://bucket/file", options)
    with pytest.raises(StorageError, match=f"Cannot read {file}: no credentials were found"):
        file.read_bytes()


@every_bucket
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # by adlfs and gcsfs
def test_failed_block_publishes_nothing(bucket, options):
    file = Location.of(f"{bucket.url}/file", options)

    def write(size):
        with file.open("wb") as opened:
            opened.write(bytes(size))
            raise ZeroDivisionError

    sizes = [10, 60 << 20]  # in one request, and in parts, which the emulator of Google Cloud cannot discard
    for size in sizes[: 1 if bucket.scheme == "gs" else 2]:
        with pytest.raises(ZeroDivisionError):
            write(size)
    gc.collect()
    assert bucket.read() == {}
    assert bucket.uploads() == []


@every_bucket
def test_object_is_created_only_once(bucket, options):
    file = Location.of(f"{bucket.url}/file", options)
    file.write_bytes(b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        file.write_bytes(b"second", exclusive=True)
    assert bucket.read() == {"file": b"first"}


def test_a_store_whose_record_cannot_be_read(bucket, options):
    store = Location.of(f"{bucket.url}/s.zarr", options)
    assert read_record(store) == {}
    bucket.proxy.disturb(1, DROP, lasting=True, matching=lambda request: True)
    with pytest.raises(StorageError, match="the store cannot be reached"):
        read_record(store)


@pytest.mark.parametrize(
    ("error", "forbidden"),
    [
        (OSError("Forbidden: https://storage.googleapis.com/bucket\nNo access"), True),  # gcsfs
        (AzureError(403, "AuthorizationPermissionMismatch"), True),  # Azure
        (AzureError(403, "AuthenticationFailed"), False),
        (AzureError(503, "ServerBusy"), False),
    ],
)
def test_forbidden_files(error, forbidden):
    assert is_inaccessible(error) == forbidden
    if forbidden:
        with (
            pytest.raises(StorageError, match=r"permission denied .* The credentials must permit it"),
            storage_errors("read", "gs://bucket/file"),
        ):
            raise error


class NoToken:
    """Credentials of Azure of a user who is not logged in."""

    async def get_token(self, *scopes, **options):
        from azure.core.exceptions import ClientAuthenticationError

        raise ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token.")

    async def close(self):
        pass


def test_no_credentials_of_azure():
    """The client of Azure repeats a request without a token for a minute."""
    pytest.importorskip("adlfs")
    options = {"account_name": "nobody", "credential": NoToken()}
    began = time.monotonic()
    for action in (image().tfexport, xee_tf.open_image):
        with pytest.raises(StorageError, match=r"no credentials were found .* log in with az login"):
            action("az://container/scene", storage_options=options)
    assert time.monotonic() - began < 10


class SynchronousToken:
    """Credentials of the module `azure.identity`."""

    def get_token(self, *scopes, **options):
        return None


def test_synchronous_credentials_of_azure():
    """The client accepts them too."""
    adlfs = pytest.importorskip("adlfs")
    fs = adlfs.AzureBlobFileSystem("nobody", credential=SynchronousToken())
    require_credentials(fs, "az://container/scene")


def test_wrong_key_of_azure(monkeypatch, tmp_path):
    """Azure responds with 403 to a wrong key, as it does for a single file that may not be read."""
    image().tfexport(tmp_path / "s", **PATCHES)

    def isdir(self, path):
        raise AzureError(403, "AuthenticationFailed")

    monkeypatch.setattr(MemoryFileSystem, "isdir", isdir)
    for end in (".tif", ".zarr"):
        with pytest.raises((StorageError, DestinationError), match=r"the credentials are not valid"):
            xee_tf.upload_image(None, tmp_path / "s", f"memory://key/u{end}", if_exists="overwrite")


@every_bucket
def test_buckets_are_never_created(bucket, options, tmp_path):
    missing = f"{bucket.name}-missing"
    for url in (f"{bucket.scheme}://{missing}/a/b", f"simplecache::{bucket.scheme}://{missing}/a/b"):
        given = {bucket.scheme: options} if "::" in url else options
        file = Location.of(url, given)
        assert file.bucket == missing

        def opened(file=file):
            with file.open("wb") as opened:
                opened.write(b"x")

        (tmp_path / "file").touch()
        for write in (
            lambda file=file: file.write_bytes(b"x"),
            lambda file=file: file.put_file(tmp_path / "file"),
            opened,
        ):
            with pytest.raises(
                DestinationError, match=rf"Cannot write {file}: .* bucket (or object|does not exist) \("
            ):
                write()
    assert missing not in bucket.buckets()


@every_bucket
def test_listings_are_by_prefix(bucket, options):
    for number in range(30):
        bucket.put(f"run/other-{number}", b"")
        bucket.put(f"run/scene.zarr/{number}", b"")
    bucket.put("run/scene-mixer.json", b"{}")
    prefix = Location.of(f"{bucket.url}/run/scene", options)
    bucket.proxy.reset()
    assert [file.name for file in prefix.siblings()] == ["scene-mixer.json"]
    assert [file.name for file in prefix.siblings(folders=True)] == ["scene.zarr"]
    assert prefix.listed()["scene-mixer.json"]["size"] == 2
    assert bucket.proxy.totals().kinds["list"] == 3
    assert all("prefix=run/scene" in request.query for request in bucket.proxy.log if request.kind == "list")


@every_bucket
def test_existence_is_not_cached(bucket, options):
    file = Location.of(f"{bucket.url}/run/file", options)
    file.with_suffix("-2").write_bytes(b"x")
    file.parent.entries()
    assert not file.exists()
    bucket.put("run/file", b"12")
    assert file.exists()
    file.parent.entries()
    bucket.put("run/file", b"123")
    assert file.size() == 3
    file.parent.entries()
    bucket.delete("run/file")
    assert not file.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disks_of_copies(number):
    """The disk to which an object is copied is full, and not the store."""
    with (
        pytest.raises(StorageError, match=r"Cannot read s3://b/m: the disk .* on .*choose another disk"),
        storage_errors("read", "s3://b/m"),
    ):
        raise OSError(number, os.strerror(number))


def test_addresses_that_are_no_urls(monkeypatch):
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9")
    file = Location.of("s3://bucket/file", {"anon": True, "skip_instance_cache": True})
    for act in (file.read_bytes, file.exists, file.info):
        with pytest.raises(
            StorageError, match=r"not a URL \(Invalid endpoint: localhost:9\).*AWS_ENDPOINT_URL"
        ):
            act()
    with pytest.raises(DestinationError, match=r"not a URL \(Invalid endpoint: localhost:9\)"):
        image().tfexport("s3://bucket/scene", storage_options=file.storage_options, **PATCHES)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("keey", {"keey": "a"}),
        ("region", {"client_kwargs": {"region": "x"}}),
        ("retry", {"config_kwargs": {"retry": 1}}),
    ],
)
def test_unknown_storage_options(bucket, name, options):
    image = raster({"a": np.ones((32, 32), "f4")})
    with pytest.raises(OptionError, match=f"contain '{name}', which its filesystem does not have"):
        image.tfexport(f"{bucket.url}/x", patch_dimensions=16, storage_options={**bucket.options, **options})


def export_resumable(path, ds, **more):
    return ds.tfexport(path, patch_dimensions=8, if_exists="resume", **more)


FIRST = xee_tf.Model.from_function(lambda tiles: tiles[..., 0], input_tile_size=8, output_bands=["p"])


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda path, ds, **more: ds.tfexport(path, patch_dimensions=8, **more), "scene"),
        (export_resumable, "resumable"),
        (lambda path, ds, **more: xee_tf.predict_to_zarr(FIRST, ds, path, **more), "p.zarr"),
        (lambda path, ds, **more: xee_tf.to_cog(ds, path, **more), "a.tif"),
    ],
)
def test_invalid_credentials_name_the_destination(bucket, options, write, name):
    """Not the hidden objects that a run creates first."""
    ds = raster({"B4": random_band((16, 16))}).chunk(y=8, x=8)
    invalid = Error(403, "InvalidAccessKeyId")
    bucket.proxy.disturb(1, invalid, lasting=True, matching=lambda request: request.is_change)
    with pytest.raises(xee_tf.XeeTFError, match="credentials are not valid") as caught:
        write(f"{bucket.url}/run/{name}", ds, storage_options=options)
    assert f" {bucket.url}/run/{name}" in str(caught.value)
    assert "/." not in str(caught.value)
