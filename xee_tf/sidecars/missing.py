"""Errors for exports and files that do not exist, with what the user can check."""

from __future__ import annotations

import os
import re

from xee_tf.display import abbreviated
from xee_tf.errors import MissingShardError, XeeTFError
from xee_tf.sidecars.names import IMAGE_MANIFEST, MIXER, RECORDS, SHARD, TABLE_MANIFEST, table_location
from xee_tf.storage import (
    Location,
    bucket_exists,
    bucket_url,
    explain_unfinished,
    explain_unfinished_in,
    storage_errors,
)

__all__ = ["missing_error"]

_MOST = 3  # names in a message
_ENDING = re.compile(rf"-({SHARD}|{MIXER}|{IMAGE_MANIFEST}|{TABLE_MANIFEST})$")


def missing_error(location: Location, message: str) -> MissingShardError:
    """Return an error whose message also says what was found instead.

    This is a bucket or folder that does not exist, a run that has not finished, or other files.

    Examples
    --------
    >>> Location.of("memory://missing-error/scene-00000.tfrecord").write_bytes(b"")
    >>> print(missing_error(Location.of("memory://missing-error/scene"), "No export was found."))
    No export was found. Files with similar names: scene-00000.tfrecord.
    >>> print(missing_error(Location.of("memory://missing-error/other"), "No export was found."))
    No export was found. No name in memory://missing-error starts with 'other'.
    """
    try:
        return MissingShardError(f"{message} {_look(location)}".rstrip())
    except XeeTFError:  # the store cannot be listed
        return MissingShardError(message)


def _look(location: Location) -> str:
    """Describe what is found at a location; empty if this does not help."""
    if location.is_web:
        url = bucket_url(location.url)
        return f"Folders and private objects of buckets are read from {url}." if url else ""
    if not location.name:
        return ""
    with storage_errors("list", location.url, local=location.is_local):
        exists = bucket_exists(location)
    if not exists:
        return f"The bucket {location.bucket!r} does not exist: check its name, and the address of the store."
    if location.is_folder():
        return explain_unfinished_in(location)
    if location.is_root or location.is_pattern:
        return ""
    folder = location.parent
    if location.is_local and not os.path.isdir(folder.path):
        return f"The folder {folder} does not exist."
    ending = _ENDING.search(location.name)
    prefix = location.without_suffix(*([ending[0]] if ending else []), *RECORDS)
    if unfinished := explain_unfinished(prefix) or explain_unfinished(table_location(prefix)):
        return unfinished
    if names := list(prefix.listed()):
        return f"Files with similar names: {abbreviated(names, most=_MOST)}."
    return f"No name in {folder} starts with {prefix.name!r}."
