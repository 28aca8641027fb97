"""Object stores in which an object is uploaded in parts, and does not appear until it is completed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from xee_tf.storage import azure, gcs, s3
from xee_tf.storage.address import PathLike
from xee_tf.storage.location import Location
from xee_tf.storage.staging import Staging

__all__ = ["UploadService", "stage_local_file", "upload_service"]


class UploadService(Protocol):
    """How objects are uploaded to a store in parts; each store has a module with these functions.

    The number of a part, from 1, decides its place in the object, not its time.

    Parameters
    ----------
    SMALLEST_PART : int
        Minimum size in bytes of all parts but the last.
    MOST_PARTS : int
        Maximum number of parts of an object.
    """

    SMALLEST_PART: int
    MOST_PARTS: int

    def create(self, staging: Staging, target: Location) -> str:
        """Create an upload for a run; return its id."""

    def put(self, target: Location, upload: str, number: int, body: bytes) -> str:
        """Upload a part; return a tag that identifies its content. A part may be uploaded again."""

    def complete(self, target: Location, upload: str, tags: Sequence[str]) -> None:
        """Make the object appear, with the parts that have these tags; it replaces an old one."""

    def exists(self, target: Location, upload: str, tags: Sequence[str] = ()) -> bool:
        """Return whether an upload exists, with the parts that have these tags."""

    def abort(self, target: Location, upload: str) -> None:
        """Delete the parts, unless the store deletes them otherwise."""


_SERVICES: Mapping[str, UploadService] = {"s3": s3, "abfs": azure, "gs": gcs}


def upload_service(location: Location) -> UploadService | None:
    """Return how objects are uploaded in parts to the store of a location; None if they cannot.

    Examples
    --------
    >>> upload_service(Location.of("memory://exports/scene")) is None
    True
    """
    return next((service for name, service in _SERVICES.items() if name in location.protocols), None)


@dataclass(frozen=True)
class _LocalUpload:
    """A local file that becomes an object."""

    path: PathLike
    target: Location

    def complete(self) -> None:
        """Upload the file; the object appears, or replaces an old one, when all bytes are there."""
        self.target.put_file(self.path)


def stage_local_file(
    staging: Staging, target: Location, path: PathLike
) -> tuple[list[Location], list[_LocalUpload]]:
    """Prepare the commit of a local file in another store; return what is staged, and what is to be uploaded.

    In an object store, an object appears when all of its bytes are there, so it is not uploaded before.
    """
    if target.bucket is not None:
        return [], [_LocalUpload(path, target)]
    staging.staged(target).put_file(path)
    return [target], []
