"""The state of files: sizes, times and tags, which change if a file changes, and are quick to determine."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import fsspec

from xee_tf.errors import shorten

__all__ = [
    "UnknownContentError",
    "array_state",
    "file_state",
    "listed_state",
    "raster_state",
    "store_state",
    "url_state",
]

# Names in fsspec's descriptions of files; each kind of store has some of them.
_TELLING = (
    "ETag",
    "etag",
    "VersionId",
    "version_id",
    "generation",
    "md5Hash",
    "content_settings",
    "checksum",
    "Content-MD5",
    "Digest",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "updated",
    "modified",
    "mtime",
    "created",
)
# Files beside a raster that GDAL reads: overviews, masks, statistics and metadata.
_BESIDE = (".ovr", ".msk", ".aux.xml")
_GDAL_PREFIX = {"/vsicurl/": "", "/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://"}


class UnknownContentError(Exception):
    """It cannot be determined whether something has changed; the message says why."""


State = list[tuple[str, ...]]
"""For each file, its path and what changes if the file changes."""


def file_state(path: str) -> State:
    """Return the state of a local file, and of the files beside it that GDAL reads.

    The time of the last change of the file's metadata is included, because programs such as ``cp -p`` restore
    the time of the last modification.
    """
    found: State = []
    for each in (path, *(path + suffix for suffix in _BESIDE)):
        try:
            stat = os.stat(each)
        except OSError:
            continue
        found.append((each, str(stat.st_size), str(stat.st_mtime_ns), str(stat.st_ctime_ns)))
    return found


def folder_state(folder: str) -> State:
    """Return the state of all files in a local folder, including subfolders, sorted by path."""
    found: State = []
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    stat = entry.stat()
                    times = str(stat.st_mtime_ns), str(stat.st_ctime_ns)
                    found.append((entry.path, str(stat.st_size), *times))
    return sorted(found)


def url_state(filesystem: Any, path: str) -> State:
    """Return the state of one file on a filesystem of fsspec, or of all files in a folder.

    Raises
    ------
    UnknownContentError
        If the files cannot be listed, or the filesystem tells neither times nor tags.
    """
    try:
        return listed_state(filesystem, path)
    except UnknownContentError:
        raise
    except Exception as error:
        raise UnknownContentError(f"{path} cannot be listed: {error}") from error


def listed_state(filesystem: Any, path: str) -> State:
    """Return the same as `url_state`; errors of the filesystem are raised as they are.

    Raises
    ------
    UnknownContentError
        If the filesystem tells neither times nor tags.
    """
    local = _local_path(filesystem, path)
    if local is not None:
        return folder_state(local) if os.path.isdir(local) else file_state(local)
    filesystem = _synchronous(filesystem)
    filesystem.invalidate_cache()
    # One request for a thousand files; listings of web servers have no times.
    is_web = "http" in _protocols(filesystem)
    infos = ({} if is_web else filesystem.find(path, detail=True)) or {path: filesystem.info(path)}
    return sorted(_telling(name, info) for name, info in infos.items())


def _telling(name: str, info: Any) -> tuple[str, ...]:
    telling = [str(info[key]) for key in _TELLING if info.get(key) is not None]
    if not telling:
        raise UnknownContentError(f"the storage of {name} tells neither times nor tags of files")
    return (name, str(info.get("size")), *telling)


def raster_state(dataset: Any) -> State:
    """Return the state of all files of an open rasterio dataset, with overviews and the sources of a VRT.

    Of a remote file, only its own state is returned.
    """
    is_remote = dataset.name.startswith(("http://", "https://", *filter(None, _GDAL_PREFIX.values())))
    if is_remote and not dataset.name.lower().endswith(".vrt"):
        return _gdal_state(dataset.name)  # GDAL would ask for twenty names beside it
    return _gdal_files(dataset.files, {dataset.name})


def _gdal_files(files: Iterable[str], seen: set[str]) -> State:
    import rasterio

    found: State = []
    for name in dict.fromkeys(map(str, files)):
        found += _gdal_state(name)
        if name.lower().endswith(".vrt") and name not in seen:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a VRT without a georeference
                with rasterio.open(name) as inner:
                    found += _gdal_files(inner.files, seen | {name})
    if not found:
        raise UnknownContentError("the raster has no files")
    return sorted(set(found))


def _gdal_state(name: str) -> State:
    """Return the state of a file by GDAL's name: a path, a URL, or a file in an archive."""
    for prefix, scheme in _GDAL_PREFIX.items():
        if name.startswith(prefix):
            name = scheme + name.removeprefix(prefix)
    if "://" in name and not name.startswith("/vsi"):
        try:
            return url_state(*fsspec.core.url_to_fs(name))
        except (ImportError, ValueError) as error:
            raise UnknownContentError(f"{name} cannot be opened: {error}") from error
    path = re.sub(r"^(/vsi\w+/)+\{?", "", name)
    for end in (len(path), *(match.start() for match in re.finditer("[/}]", path))):
        for start in ("", "/"):
            if os.path.isfile(start + path[:end]):
                return file_state(start + path[:end])
    raise UnknownContentError(f"there is no file {name}")


def store_state(store: Any, path: str) -> Iterator[Any]:
    """Yield the state of an array or group in a Zarr store; for a store in memory, its content.

    Raises
    ------
    UnknownContentError
        If the kind of store is unknown, or it tells neither times nor tags.
    """
    while hasattr(store, "_store"):  # wrappers, such as a store that logs
        store = store._store
    kind = type(store).__name__
    if hasattr(store, "fs") and isinstance(getattr(store, "path", None), str):
        yield from url_state(store.fs, f"{store.path.rstrip('/')}/{path}".rstrip("/"))
    elif kind == "LocalStore":
        yield from folder_state(os.path.join(str(store.root), path))
    elif kind == "ZipStore":
        yield from file_state(str(store.path))
    elif kind == "ObjectStore":
        yield from _listed_objects(store.store, path)
    elif isinstance(content := getattr(store, "_store_dict", None), dict):
        for name in sorted(content):
            if name.startswith(f"{path}/" if path else ""):
                yield name, content[name].to_bytes()
    else:
        raise UnknownContentError(f"a Zarr store of type {kind} does not tell when its objects changed")


def _listed_objects(store: Any, path: str) -> State:
    """Return the state of the objects of a store of obstore, which lists a thousand in one request."""
    name = repr(store)  # with the bucket and the prefix
    try:
        infos = [each for part in store.list(prefix=path or None) for each in part]
    except Exception as error:
        why = shorten(str(error).partition("\n")[0].rstrip("."), 200)
        raise UnknownContentError(f"{name} cannot be listed: {why}") from error
    keys = ("path", "size", "e_tag", "last_modified")
    return sorted((name, *(str(info[key]) for key in keys)) for info in infos)


def array_state(array: Any) -> Iterator[Any]:
    """Yield the state of a Zarr array; see `store_state`."""
    place = array.store_path
    yield from store_state(place.store, place.path)


def _local_path(filesystem: Any, path: str) -> str | None:
    """Return the path on the local disk, if the filesystem is the local one or a wrapper of it."""
    filesystem = getattr(filesystem, "sync_fs", filesystem)
    return str(filesystem._strip_protocol(path)) if "file" in _protocols(filesystem) else None


def _protocols(filesystem: Any) -> tuple[str, ...]:
    """Return the names of a filesystem; `filecache` is not `file`."""
    found = getattr(filesystem, "protocol", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _synchronous(filesystem: Any) -> Any:
    """Return an instance that can be called from any thread; Zarr's instances belong to its event loop."""
    filesystem = getattr(filesystem, "sync_fs", filesystem)
    if not getattr(filesystem, "asynchronous", False):
        return filesystem
    options = {**filesystem.storage_options, "asynchronous": False}
    return type(filesystem)(*filesystem.storage_args, **options)
