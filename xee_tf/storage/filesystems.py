"""Open the filesystem of a URL with fsspec, or say what is wrong with the URL.

A URL may be a chain of links: ``zip://scene::s3://bucket/maps.zip`` is a file in an archive in a bucket, and
``simplecache::s3://bucket/scene`` is read through a cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import PurePath
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from xee_tf.errors import DestinationError, StorageError, XeeTFError, shorten
from xee_tf.extras import extra
from xee_tf.storage.credentials import contains_secret, mask_secrets, require_credentials
from xee_tf.storage.failures import explain_store

__all__ = ["BUCKETS", "EXTRAS", "WEB", "check_characters", "check_slashes", "has_wildcard", "open_filesystem"]

BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "obs", "tos"})
"""Protocols whose first path segment is a bucket or container, which is never created."""

WEB = frozenset({"http", "https"})
"""Protocols of web servers."""

EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "azure"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
}
"""Protocols whose packages are installed by an extra, with its name."""

# Protocols of what contains files. Others, such as caches, only change how files are read.
_CONTAINERS = frozenset({"dir", "libarchive", "tar", "zip"})

_ONE_SLASH = re.compile(r"([a-z][a-z0-9_+-]+):/(?!/)")
_WILDCARD = re.compile(r"[*?\[]")


def open_filesystem(url: str, storage_options: Mapping[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the filesystem of a URL, of which fsspec keeps one instance per process, and the path in it.

    Raises
    ------
    DestinationError
        If the protocol is unknown, its package is missing, or the URL or an option is incomplete.
    StorageError
        If a source of credentials gives none, or the filesystem asks a server that cannot be reached.

    Examples
    --------
    >>> open_filesystem("memory://exports/scene", {})[1]
    '/exports/scene'
    """
    *links, store = url.split("::")
    if container := next(filter(_CONTAINERS.__contains__, links), None):
        opened = store.rpartition("/")[0] if container == "dir" else store
        raise DestinationError(
            f"{url} cannot be opened: {container!r} needs a path in the folder or archive that it "
            f"opens, such as {container}://scene::{opened}."
        )
    protocols = [link.partition("://")[0] for link in (*links, store)]
    name = next((EXTRAS[each] for each in protocols if each in EXTRAS), None)
    try:
        with extra(name, url) if name else nullcontext():
            filesystem, path = url_to_fs(url, **storage_options)
    except XeeTFError:
        raise
    except Exception as error:
        # A missing package, an unknown protocol, or options that the filesystem does not have.
        is_option = isinstance(error, ImportError | ValueError | TypeError | KeyError)
        mask = partial(mask_secrets, storage_options)
        explained = mask(_explain(error, name)) if is_option else explain_store(error, "read", mask)
        cause = None if contains_secret(storage_options, error) else error  # is shown in tracebacks
        kind = DestinationError if is_option else StorageError
        raise kind(f"{url} cannot be opened: {explained}") from cause
    require_credentials(filesystem, url)
    return filesystem, str(path)


def _explain(error: Exception, name: str | None) -> str:
    """Say why fsspec cannot open a filesystem; `name` is that of its extra."""
    what = str(error)
    if name == "azure" and "account_name" in what:
        return (
            "the account is not known. Pass storage_options={'account_name': '...'}, or set "
            "AZURE_STORAGE_ACCOUNT_NAME and a key, or AZURE_STORAGE_CONNECTION_STRING."
        )
    if "Protocol not known: azure" in what:  # of obstore
        return "fsspec knows its protocol by the name az: pass az://container/scene."
    if "Protocol not known" in what:
        return (
            "fsspec does not know its protocol. Pass a local path, or a URL such as s3://bucket/scene, "
            "gs://bucket/scene or az://container/scene."
        )
    return f"{what}. Check the storage options." if isinstance(error, TypeError | KeyError) else what


def check_characters(text: str) -> None:
    """Raise an error for characters that no path can have; the system would raise a ValueError later."""
    try:
        is_path = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise DestinationError(
            f"{shorten(repr(text))} cannot be a path, because it contains a null character or half of a "
            "surrogate pair: remove it."
        )


def check_slashes(url: str, path: object) -> None:
    """Raise an error for ``s3:/bucket``, which would be a file in a local folder ``s3:``.

    A `pathlib.Path` of a URL has lost a slash; `path` is what the user passed.
    """
    match = _ONE_SLASH.match(url)
    if match and match[1] in fsspec.available_protocols():
        kind = "the string " if isinstance(path, PurePath) else ""
        slashes = ":///" if match[1] in ("file", "local") else "://"
        whole = match[1] + slashes + url[match.end() :]
        raise DestinationError(
            f"{url} has one slash where a URL has two: pass {kind}{whole}, or "
            f"{os.curdir}{os.sep}{url} for a local folder of this name."
        )


def has_wildcard(path: str) -> bool:
    """Return whether filesystems may take a path for a glob pattern, and move or delete what matches it.

    Examples
    --------
    >>> has_wildcard("out/scene[1]"), has_wildcard("out/scene")
    (True, False)
    """
    return bool(_WILDCARD.search(path))
