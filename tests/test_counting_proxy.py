"""Tests of the proxy that counts requests to a bucket and disturbs them."""

import pytest

from tests.buckets import request_points
from tests.conftest import needs_posix
from tests.counting_proxy import DROP, Call, Error
from tests.optional import optional

s3fs = optional("s3fs")
botocore_exceptions = optional("botocore.exceptions")

pytestmark = needs_posix


def filesystem(bucket):
    return s3fs.S3FileSystem(**bucket.options, skip_instance_cache=True, use_listings_cache=False)


def test_kinds_and_bytes(bucket):
    fs = filesystem(bucket)
    fs.pipe_file(f"{bucket.name}/a", b"0123456789")
    fs.cp_file(f"{bucket.name}/a", f"{bucket.name}/b")
    assert fs.cat_file(f"{bucket.name}/b", start=2, end=5) == b"234"
    upload = fs.call_s3("create_multipart_upload", Bucket=bucket.name, Key="c")
    names = {"Bucket": bucket.name, "Key": "c", "UploadId": upload["UploadId"]}
    assert bucket.uploads() == ["c"]
    part = fs.call_s3("upload_part", PartNumber=1, Body=b"abc", **names)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    fs.call_s3("complete_multipart_upload", MultipartUpload=parts, **names)
    fs.rm(f"{bucket.name}/a")
    assert fs.find(bucket.name) == [f"{bucket.name}/b", f"{bucket.name}/c"]
    totals = bucket.proxy.totals()
    counts = {"put": 1, "copy": 1, "get": 1, "begin": 1, "part": 1, "complete": 1, "delete": 1, "list": 1}
    assert {kind: totals.kinds[kind] for kind in counts} == counts
    assert (totals.up, totals.down, totals.copied) == (13, 3, 10)
    assert bucket.read() == {"b": b"0123456789", "c": b"abc"}


@pytest.mark.parametrize(
    ("disturbance", "error"),
    [
        (Error(403, "AccessDenied"), PermissionError),
        (Error(404, "NoSuchBucket"), FileNotFoundError),
        (Error(500, "InternalError"), OSError),
        (Error(503, "SlowDown"), OSError),
        (DROP, botocore_exceptions.EndpointConnectionError),
    ],
)
def test_errors(disturbance, error, bucket, monkeypatch):
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    client = {"config_kwargs": {"retries": {"max_attempts": 0}}}
    fs = s3fs.S3FileSystem(**bucket.options, **client, skip_instance_cache=True)
    fs.pipe_file(f"{bucket.name}/first", b"1")
    bucket.proxy.disturb(2, disturbance, lasting=True)
    fs.pipe_file(f"{bucket.name}/second", b"2")
    with pytest.raises(error):
        fs.pipe_file(f"{bucket.name}/third", b"3")
    assert bucket.proxy.was_disturbed
    bucket.proxy.reset()
    fs.pipe_file(f"{bucket.name}/fourth", b"4")
    assert list(bucket.etags()) == ["first", "fourth", "second"]


def test_reads_can_fail(bucket):
    fs = filesystem(bucket)
    fs.pipe_file(f"{bucket.name}/a", b"1")
    bucket.proxy.disturb(1, Error(404, "NoSuchKey"), matching=lambda request: request.kind == "get")
    with pytest.raises(FileNotFoundError):
        fs.cat_file(f"{bucket.name}/a")
    assert fs.cat_file(f"{bucket.name}/a") == b"1"


def test_another_process_interferes(bucket):
    fs = filesystem(bucket)
    bucket.proxy.disturb(1, Call(lambda: bucket.restore({"a": b"theirs"})))
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{bucket.name}/a", b"ours", mode="create")
    assert bucket.read() == {"a": b"theirs"}


@pytest.mark.parametrize("disturbance", [None, Error(403, "AccessDenied")])
def test_points_of_requests(disturbance, bucket):
    bucket.restore({"old": b"old"})
    options, name = bucket.options, bucket.name

    def work():
        import s3fs

        fs = s3fs.S3FileSystem(**options)
        fs.pipe_file(f"{name}/new", b"new")
        fs.rm_file(f"{name}/old")

    points, keys = [], []
    for point in request_points(work, bucket, disturbance):
        points.append(point)
        keys.append(list(bucket.etags()))
    assert keys == [["old"], ["new", "old"], ["new"]]
    assert [point.what.split()[0] for point in points] == ["put", "delete", "nothing"]
    assert [point.disturbed for point in points] == [True, True, False]
    assert [bool(point.error) for point in points] == [disturbance is not None] * 2 + [False]
