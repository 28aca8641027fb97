"""Find a complete result at a destination, which a run with the same identity need not write again."""

from __future__ import annotations

from typing import TypeVar

from xee_tf.errors import ManifestError
from xee_tf.sidecars.manifest import ImageManifest, TableManifest
from xee_tf.sidecars.manifest_files import read_manifest
from xee_tf.storage import Location, refuse_resuming

__all__ = ["complete_manifest"]

M = TypeVar("M", ImageManifest, TableManifest)


def complete_manifest(
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
        If there is a manifest that cannot be read.
    """
    try:
        found = read_manifest(manifest)
    except ManifestError as error:
        refuse_resuming(
            destination, f"its manifest, {manifest.name}, is damaged or of another version", error
        )
    if not isinstance(found, kind) or not found.shards:
        return None
    listed = destination.listed()
    if mixer is not None and mixer.name not in listed:
        return None
    sizes = [(listed.get(shard.file.path, {}).get("size"), shard.file.bytes) for shard in found.shards]
    return found if all(size == expected for size, expected in sizes) else None
