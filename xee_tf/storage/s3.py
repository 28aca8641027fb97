"""Multipart uploads to S3: which run they belong to, and how those of dead runs are aborted."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from xee_tf.errors import DestinationError
from xee_tf.storage.failures import storage_errors
from xee_tf.storage.location import Location
from xee_tf.storage.notes import DamagedNoteError, read_note
from xee_tf.storage.staging import Staging, is_working, staging_folders

__all__ = ["UPLOADS", "abort_dead_uploads", "call_s3", "known_uploads"]

UPLOADS = "uploads.json"
"""The file in the staging folder of a run that lists its uploads."""


def call_s3(target: Location, method: str, **arguments: Any) -> Any:
    """Call a method of the S3 client for an object.

    Raises
    ------
    DestinationError
        If it fails.
    """
    bucket, _, key = target.path.partition("/")
    with storage_errors("write", target.url, local=False):
        return target.fs.call_s3(method, Bucket=bucket, Key=key, **arguments)


def known_uploads(file: Location) -> dict[int, str] | None:
    """Read the ids of the uploads of a run, by shard; return None if they are not known."""
    with suppress(DamagedNoteError):
        if (found := read_note(file)) is not None:
            return {int(shard): upload for shard, upload in found.items()}
    return None


def abort_dead_uploads(destination: Location, keep: Collection[Staging] = ()) -> None:
    """Abort the multipart uploads to a destination, or to shards with this prefix, that no run uses.

    Those of the runs to keep stay.
    """
    living: set[str] = set()
    kept = {staging.folder.url for staging in keep}
    for folder in staging_folders(destination):
        if folder.url in kept or is_working(folder):
            if (known := known_uploads(folder.child(UPLOADS))) is None:
                return  # the run is creating its uploads, which cannot be told from those of dead runs
            living |= set(known.values())
    bucket, _, key = destination.path.partition("/")
    ours = re.compile(rf"{re.escape(key)}(-\d{{5,}}\.tfrecord(\.gz)?)?")
    for upload in _uploads(destination, bucket, key):
        if upload["UploadId"] not in living and ours.fullmatch(upload["Key"]):
            target = destination.parent.child(upload["Key"].rsplit("/", 1)[-1])
            with suppress(DestinationError):  # another run aborted it
                call_s3(target, "abort_multipart_upload", UploadId=upload["UploadId"])


def _uploads(location: Location, bucket: str, prefix: str) -> Iterator[Mapping[str, Any]]:
    """Yield the multipart uploads that have begun."""
    page: Mapping[str, Any] = {}
    while True:
        markers = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        after = {name: page[key] for name, key in markers.items() if page.get(key)}
        try:
            page = location.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **after)
        except PermissionError:  # the account may only write objects
            return
        yield from page.get("Uploads", [])
        if not page.get("IsTruncated"):
            return
