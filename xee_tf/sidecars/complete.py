"""Find a complete result at a destination, which a run with the same identity need not write again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from xee_tf.errors import DestinationError, ManifestError
from xee_tf.identity import RunIdentity, explain_other
from xee_tf.sidecars.documents import ManifestShard
from xee_tf.sidecars.manifest import ImageManifest, TableManifest
from xee_tf.sidecars.manifest_files import read_manifest
from xee_tf.storage import Location, clear_leftovers, interruption, recover, refuse_resuming

__all__ = ["deleted_error", "find_complete", "find_same"]

M = TypeVar("M", ImageManifest, TableManifest)


def _complete_manifest(
    kind: type[M], manifest: Location, destination: Location, mixer: Location | None = None
) -> M | None:
    """Return the manifest of a result whose files exist with their sizes; None if there is none.

    Parameters
    ----------
    kind : type
        The kind of manifest.
    manifest : Location
        The file of the manifest.
    destination : Location
        The prefix of the image, or the file of the table.
    mixer : Location, optional
        The mixer, which is written last, if there is one.

    Raises
    ------
    DestinationExistsError
        If there is a manifest that cannot be read, or whose files are missing or have other sizes.
    """
    try:
        found = read_manifest(manifest)
    except ManifestError as error:
        refuse_resuming(
            destination, f"its manifest, {manifest.name}, is damaged or of another version", error
        )
    if not isinstance(found, kind) or not found.shards:
        return None
    difference = _difference(found.shards, destination.listed(), mixer)
    if not difference:
        return found
    if interruption(destination):
        return None
    refuse_resuming(destination, difference)


def find_complete(
    kind: type[M],
    manifest: Location,
    destination: Location,
    identity: RunIdentity,
    *,
    mixer: Location | None = None,
    compute: bool,
) -> M | None:
    """Return the manifest of a complete result of the same run; None if there is none.

    With `compute`, a commit that was interrupted is undone first, and what dead runs left is deleted.

    Raises
    ------
    DestinationExistsError
        If there is a result that was written from something else; see also `_complete_manifest`.
    """
    committing = compute and recover(destination)
    found = _complete_manifest(kind, manifest, destination, mixer)
    if found is None:
        return None
    if difference := explain_other(identity, found.identity):
        refuse_resuming(destination, difference)
    if compute:
        clear_leftovers(destination, committing)
    return found


def find_same(
    kind: type[M],
    manifest: Location,
    destination: Location,
    identity: Mapping[str, Any] | None,
    *,
    mixer: Location | None = None,
) -> M | None:
    """Return the manifest of a complete result with the same identity; None if there is none.

    If a Delayed is computed twice, it finds what it wrote the first time.
    """
    if identity is None:
        return None
    found = _complete_manifest(kind, manifest, destination, mixer)
    return found if found is not None and found.identity == identity else None


def deleted_error(destination: Location) -> DestinationError:
    """Return the error for a result that was complete when a Delayed was created, and no longer exists."""
    return DestinationError(f"{destination} was deleted after this run was planned. Call the function again.")


def _difference(
    shards: Sequence[ManifestShard], listed: Mapping[str, Mapping[str, Any]], mixer: Location | None
) -> str:
    """Return which file is missing or has another size; "" if none."""
    for shard in shards:
        name, expected = shard.file.path, shard.file.bytes
        if name not in listed:
            return f"its file {name} is missing"
        if (size := listed[name].get("size")) != expected:
            return f"its file {name} has {size:,} bytes instead of {expected:,}"
    if mixer is not None and mixer.name not in listed:
        return f"its mixer {mixer.name} is missing"
    return ""
