"""Composed objects of Google Cloud Storage; see `xee_tf.storage.uploads`.

A part is an object in the staging folder of the run, and the parts are composed to the final object. The
temporary objects are deleted with the staging folder.
"""

from __future__ import annotations

from collections.abc import Sequence

from crc32c import crc32c

from xee_tf.storage.failures import storage_errors
from xee_tf.storage.location import Location
from xee_tf.storage.staging import Staging

__all__ = ["MOST_PARTS", "SMALLEST_PART", "abort", "complete", "create", "exists", "put"]

SMALLEST_PART = 1
MOST_PARTS = 1000  # composed in two steps

_MOST_SOURCES = 32


def create(staging: Staging, target: Location) -> str:
    """Return the name of the folder for the parts; see `UploadService`."""
    return staging.folder.name


def put(target: Location, upload: str, number: int, body: bytes) -> str:
    """Write a part; see `UploadService`."""
    # The checksum is part of the name, so that a task that runs again cannot replace the part.
    name = f"{target.name}.{number:05d}-{crc32c(body):08x}"
    target.parent.child(upload).child(name).write_bytes(body)
    return name


def complete(target: Location, upload: str, tags: Sequence[str]) -> None:
    """Compose the parts; see `UploadService`."""
    folder = target.parent.child(upload)
    sources = [folder.child(tag) for tag in tags]
    while len(sources) > _MOST_SOURCES:
        sources = [_compose(group[0].with_suffix(".joined"), group) for group in _grouped(sources)]
    _compose(target, sources)


def exists(target: Location, upload: str, tags: Sequence[str] = ()) -> bool:
    """Return whether the parts exist; see `UploadService`."""
    return not tags or set(tags) <= set(target.parent.child(upload).child(f"{target.name}.").listed())


def abort(target: Location, upload: str) -> None:
    """Do nothing: the parts are deleted with the staging folder."""


def _grouped(sources: Sequence[Location]) -> list[Sequence[Location]]:
    return [sources[start : start + _MOST_SOURCES] for start in range(0, len(sources), _MOST_SOURCES)]


def _compose(target: Location, sources: Sequence[Location]) -> Location:
    """Compose objects of the same bucket; return the new object."""
    names = [{"name": source.key} for source in sources]
    document = {"sourceObjects": names, "destination": {"contentType": "application/octet-stream"}}
    with storage_errors("write", target.url, local=False):
        target.fs.call("POST", "b/{}/o/{}/compose", target.bucket, target.key, json=document)
    return target
