"""Multipart uploads to S3; see `xee_tf.storage.uploads`.

An upload exists until it is completed or aborted. All of its parts but the last must have at least 5 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from xee_tf.errors import DestinationError, StorageError
from xee_tf.storage.failures import is_missing, storage_errors
from xee_tf.storage.location import Location
from xee_tf.storage.staging import Staging, is_working, read_uploads, staging_folders

__all__ = [
    "MOST_PARTS",
    "SMALLEST_PART",
    "abort",
    "abort_dead_uploads",
    "complete",
    "create",
    "exists",
    "put",
]

SMALLEST_PART = 5 << 20
MOST_PARTS = 9000  # 10,000 are allowed


def create(staging: Staging, target: Location) -> str:
    """Create an upload; see `UploadService`."""
    return str(_call(target, "create_multipart_upload")["UploadId"])


def put(target: Location, upload: str, number: int, body: bytes) -> str:
    """Upload a part; see `UploadService`."""
    return str(_call(target, "upload_part", UploadId=upload, PartNumber=number, Body=body)["ETag"])


def complete(target: Location, upload: str, tags: Sequence[str]) -> None:
    """Complete an upload; see `UploadService`."""
    parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
    _call(target, "complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": parts})


def exists(target: Location, upload: str, tags: Sequence[str] = ()) -> bool:
    """Return whether an upload exists; see `UploadService`."""
    try:
        _call(target, "list_parts", UploadId=upload, MaxParts=1)
    except DestinationError as error:
        if not is_missing(error):
            raise
        return False
    return True


def abort(target: Location, upload: str) -> None:
    """Abort an upload; see `UploadService`."""
    with suppress(DestinationError):  # it was completed or aborted before
        _call(target, "abort_multipart_upload", UploadId=upload)


def _call(target: Location, method: str, **arguments: Any) -> Any:
    """Call a method of the S3 client for an object."""
    with storage_errors("write", target.url, local=False):
        return target.fs.call_s3(method, Bucket=target.bucket, Key=target.key, **arguments)


def abort_dead_uploads(destination: Location, keep: Collection[Staging] = ()) -> None:
    """Abort the multipart uploads to a destination, or to shards with this prefix, that no run uses.

    Those of the runs to keep stay.
    """
    living: set[str] = set()
    kept = {staging.folder.url for staging in keep}
    for folder in staging_folders(destination):
        if folder.url in kept or is_working(folder):
            known = read_uploads(folder)
            if known is None:
                if folder.url in kept:
                    continue  # the run was killed before it had recorded its uploads
                return  # the run is creating its uploads, which cannot be told from those of dead runs
            living |= set(known.values())
    ours = re.compile(rf"{re.escape(destination.key)}(-\d{{5,}}\.tfrecord(\.gz)?)?")
    for upload in _uploads(destination):
        if upload["UploadId"] not in living and ours.fullmatch(upload["Key"]):
            target = destination.parent.child(upload["Key"].rsplit("/", 1)[-1])
            abort(target, upload["UploadId"])


def _uploads(location: Location) -> Iterator[Mapping[str, Any]]:
    """Yield the multipart uploads to keys that start with that of a location."""
    page: Mapping[str, Any] = {}
    objects = {"Bucket": location.bucket, "Prefix": location.key}
    while True:
        markers = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        after = {name: page[key] for name, key in markers.items() if page.get(key)}
        try:
            with storage_errors("list", location.url, local=False):
                page = location.fs.call_s3("list_multipart_uploads", **objects, **after)
        except (StorageError, DestinationError):  # not permitted, or not offered by this store
            return
        yield from page.get("Uploads", [])
        if not page.get("IsTruncated"):
            return
