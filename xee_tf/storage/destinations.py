"""Checks of a destination before the work begins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NoReturn, get_args

from xee_tf.errors import DestinationError, DestinationExistsError, XeeTFError
from xee_tf.options import IfExists, one_of
from xee_tf.storage.equivalents import bucket_url
from xee_tf.storage.failures import is_inaccessible, storage_errors
from xee_tf.storage.location import Location
from xee_tf.storage.staging import Staging, remove_leftovers

__all__ = [
    "bucket_exists",
    "refuse_existing",
    "refuse_resuming",
    "require_free",
    "require_other",
    "require_reachable",
    "require_writable",
]

# Filesystems on top of another one, which are for reading.
_ON_TOP = frozenset({"blockcache", "cached", "filecache", "reference", "simplecache", "tar", "zip"})

_LONGEST = 200  # bytes of a name: file systems permit 255, and temporary files add up to 54


def require_other(location: Location, sources: Iterable[object]) -> None:
    """Check that a destination is none of the files from which the input was opened.

    Parameters
    ----------
    location : Location
        The destination.
    sources : iterable of object
        What xarray records as ``encoding["source"]``: paths and URLs; other objects are ignored.

    Raises
    ------
    DestinationExistsError
        If it is one of them.
    """
    for source in sources:
        if isinstance(source, str | os.PathLike):
            try:
                same = Location.of(source).url.rstrip("/") == location.url.rstrip("/")
            except (XeeTFError, ValueError):  # GDAL has names that are no locations
                continue
            if same:
                raise DestinationExistsError(
                    f"{location} is also the input, which would be lost: choose another destination."
                )


def require_free(location: Location, if_exists: str, *, folder: bool = False) -> None:
    """Check that nothing at a location would be replaced without permission, before the work begins.

    If a commit was interrupted, it is not known what is there before `begin` has undone the commit.

    Parameters
    ----------
    location : Location
        The destination.
    if_exists : {"error", "overwrite", "resume"}
        Whether existing files may be replaced.
    folder : bool
        Whether the destination is a Zarr store, whose record tells whether it can be resumed. A file never
        replaces a folder, and does not tell what it was written from.

    Raises
    ------
    DestinationExistsError
        If the destination exists and may not be replaced.
    OptionError
        If `if_exists` is not a valid choice.
    """
    one_of("if_exists", if_exists, get_args(IfExists))
    require_reachable(location)
    if not folder and location.is_folder():
        raise DestinationExistsError(
            f"{location} is a folder, which a file cannot replace: choose another name, or a file in that "
            f"folder, such as {location.child('name' + os.path.splitext(location.name)[1])}."
        )
    if if_exists == "overwrite" or (if_exists == "resume" and folder):
        return
    if location.exists() and not Staging(location, "").journal.exists():
        if location.is_local:
            remove_leftovers(location)  # of a run that was killed after it had put its files in place
        refuse_existing([location], if_exists)


def refuse_existing(existing: Sequence[Location], if_exists: str, *, resumable: bool = False) -> None:
    """Raise an error about files that exist and may not be replaced.

    Parameters
    ----------
    existing : sequence of Location
        The files.
    if_exists : {"error", "resume"}
        What the user wants.
    resumable : bool
        Whether the files tell what they were written from.

    Raises
    ------
    DestinationExistsError
        In any case.
    """
    several = f" ({len(existing)} files of an earlier export)" if len(existing) > 1 else ""
    unknown = ""
    if if_exists == "resume" and not resumable:
        unknown = ", and files of its format do not tell what they were written from"
    raise DestinationExistsError(
        f"{existing[0]} already exists{several}{unknown}: choose another name, or replace it with "
        "if_exists='overwrite'."
    )


def refuse_resuming(location: Location, difference: str, cause: Exception | None = None) -> NoReturn:
    """Raise an error about a result that exists and is not the one that a run would write.

    Raises
    ------
    DestinationExistsError
        In any case.
    """
    raise DestinationExistsError(
        f"{location} exists and cannot be resumed: {difference}. Choose another name, or replace it with "
        "if_exists='overwrite'."
    ) from cause


def require_writable(location: Location) -> None:
    """Raise `DestinationError` if a file cannot be created at a location; nothing is written.

    Whether objects can be written to a bucket cannot be checked in advance.
    """
    require_reachable(location)
    if not location.is_local:
        return
    if os.path.islink(location.path) and not os.path.exists(location.path):
        raise DestinationError(
            f"Cannot write {location.url}: it is a symbolic link to {os.path.realpath(location.path)}, which "
            "does not exist. Remove the link, or choose another name."
        )
    folder = os.path.abspath(location.parent.path)
    size = len(os.fsencode(location.name))
    if size > _LONGEST:
        raise DestinationError(
            f"Cannot write {location.url}: the name is too long: it has {size} bytes, and may have at most "
            f"{_LONGEST}, because those of temporary files are longer. Choose a shorter name."
        )
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        raise DestinationError(f"Cannot write {location.url}: {folder} is a file, not a folder.")
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise DestinationError(f"Cannot write {location.url}: the disk is read-only. Choose another folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DestinationError(
            f"Cannot write {location.url}: no permission to create files in {folder}. "
            "Choose another folder or change its permissions."
        )


def require_reachable(location: Location, *, zarr: bool = False) -> None:
    """Raise `DestinationError` if a location is a bucket, or its store is unreachable or read-only.

    Buckets are never created. If `zarr` is true, zarr writes to the location.
    """
    _require_direct(location, zarr=zarr)
    if location.is_local:
        return
    if location.bucket is not None and location.is_root:
        scheme = location.url.partition("://")[0]
        raise DestinationError(
            f"{location.url} is a bucket: append an object name, such as "
            f"{scheme}://{location.bucket or 'bucket'}/scene."
        )
    if location.is_web:
        url = bucket_url(location.url)
        raise DestinationError(
            f"Cannot write {location.url}: web servers are read-only. "
            + (
                f"Pass {url}."
                if url
                else "Choose a local path or an object store, such as s3://bucket/scene."
            )
        )
    with storage_errors("write", location.url, local=False):
        if location.bucket is None:
            location.parent.exists()
        elif not bucket_exists(location):
            raise DestinationError(
                f"Cannot write {location.url}: the bucket {location.bucket!r} does not exist. Correct its "
                "name, or create it first."
            )


def _require_direct(location: Location, *, zarr: bool) -> None:
    """Raise an error for a cache or an archive, in which files cannot be moved.

    zarr cannot open a folder of a store as a filesystem, either ("dir").
    """
    *links, store = location.url.split("::")
    names = {link.partition("://")[0] for link in [*links, store]}
    if not names & (_ON_TOP | {"dir"} if zarr else _ON_TOP):
        return
    only_caches = links and not any("://" in link for link in links)  # which have no paths of their own
    example = f", such as {store}" if only_caches else ""
    raise DestinationError(
        f"Cannot write {location.url}: files are not written through caches, archives and other filesystems "
        f"on top of a store. Write to the store itself{example}."
    )


def bucket_exists(location: Location) -> bool:
    """Return whether the bucket of a location exists; True if it has none, or the account may not see it."""
    if location.bucket is None:
        return True
    fs = location.fresh_fs
    if fs.exists(location.bucket):
        return True
    # An account that may only access objects cannot check its bucket; listing it gives the reason. Without a
    # prefix, the listing of a missing bucket is empty.
    folder, name = (location, "scene") if location.is_root else (location.parent, location.name)
    try:
        fs.find(folder.path, maxdepth=1, prefix=name)
    except FileNotFoundError:
        return False
    except Exception as error:
        if not is_inaccessible(error):
            raise
    return True
