"""What exists at a destination, in a form that shows whether a file was replaced.

A run looks when it begins, and again before it puts its files in place, so that it does not replace what
another run or program has written meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from xee_tf.errors import DestinationExistsError
from xee_tf.storage.location import Location
from xee_tf.storage.staging import renewed
from xee_tf.storage.zarr_record import ROOT_METADATA

__all__ = ["Seen", "look", "require_unchanged"]

Seen = Mapping[str, str]
"""What exists at a destination: for each name, a text that changes if the file is replaced."""


def look(destination: Location, files: Iterable[Location]) -> dict[str, str]:
    """Return what exists of some files in the folder of a destination; see `Seen`.

    Examples
    --------
    >>> file = Location.of("memory://commit/scene")
    >>> look(file, [file])
    {}
    >>> file.write_bytes(b"1")
    >>> before = look(file, [file])
    >>> file.write_bytes(b"2")
    >>> look(file, [file]) == before
    False
    """
    listed = {} if destination.is_local else destination.listed()  # a single request
    found = {}
    for file in files:
        if listed and file.name.startswith(destination.name) and file.name not in listed:
            continue
        with suppress(FileNotFoundError):
            found[file.name] = _fingerprint(file, listed.get(file.name))
    return found


def _fingerprint(file: Location, info: Mapping[str, Any] | None) -> str:
    """Return a text that changes if a file is replaced; `info` is its entry in a listing.

    A folder does not change when a file in it is replaced, but the metadata of a Zarr store do.
    """
    if file.is_local:
        found = os.stat(file.path)
        facts = [(found.st_ino, found.st_size, found.st_mtime_ns)]
        for name in ROOT_METADATA:
            with suppress(FileNotFoundError, NotADirectoryError):
                found = os.stat(os.path.join(file.path, name))
                facts.append((found.st_ino, found.st_size, found.st_mtime_ns))
        return str(facts)
    infos = [info or file.info()]
    if infos[0].get("type") == "directory":
        for name in ROOT_METADATA:
            with suppress(FileNotFoundError):
                infos.append(file.child(name).info())
    keys = ("ETag", "etag", "generation", "md5", "size", "type")
    return str([[*map(each.get, keys), renewed(each)] for each in infos])


def require_unchanged(destination: Location, existing: Iterable[Location], seen: Seen) -> None:
    """Check that the existing files are those that were seen when the run began.

    Raises
    ------
    DestinationExistsError
        If a file is new, was replaced or was deleted.
    """
    found = look(destination, existing)
    changed = next((name for name in {**found, **seen} if found.get(name) != seen.get(name)), None)
    if changed is None:
        return
    what = "was written" if changed in found else "was deleted"
    after = f"{destination.parent.child(changed)} {what} after this run was planned"
    if not seen:
        raise DestinationExistsError(
            f"{after}, and already exists: nothing was changed. Choose another name, or replace it with "
            "if_exists='overwrite'."
        )
    raise DestinationExistsError(
        f"{after}, by another run or program: nothing was changed. Run it again to replace what is there now."
    )
