"""Access to local paths and object stores through fsspec, with atomic writes."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

import fsspec
from fsspec.asyn import sync
from fsspec.core import url_to_fs

from xee_tf.errors import DestinationError, OptionError, RecordError, XeeTFError, shorten
from xee_tf.extras import extra
from xee_tf.options import check_storage_options
from xee_tf.storage.credentials import require_credentials
from xee_tf.storage.failures import StoreFile, is_inaccessible, is_other_version, storage_errors
from xee_tf.storage.processes import new_token

__all__ = ["Location", "PathLike", "remove_all", "rename", "sync_folder"]

PathLike = str | os.PathLike[str]

# Protocols whose first path segment is a bucket or container, which is never created.
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "obs", "tos"})

# Protocols whose packages are installed by extras.
_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "azure"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
}

# Protocols of what contains files, and not only changes how they are read, as a cache does.
_CONTAINERS = frozenset({"dir", "libarchive", "tar", "zip"})

_ONE_SLASH = re.compile(r"([a-z][a-z0-9_+-]+):/(?!/)")

_WEB = frozenset({"http", "https"})

_CONCURRENT = 64  # requests to Azure at the same time
_GLOB = re.compile(r"[*?\[]")  # filesystems move and delete what matches these, not the file itself

_WHOLE_FILE = 64 << 20  # maximum bytes to download if a server does not support byte ranges


@dataclass(frozen=True)
class Location:
    """A picklable path on any filesystem; all file access goes through this class.

    It is path-like: `os.fspath` returns the local path, or the URL (without storage options) of another
    store.

    Parameters
    ----------
    url : str
        A local path or an fsspec URL ("s3://bucket/scene").
    storage_options : mapping
        Options for fsspec. Never included in a repr, because they may contain credentials.
    etag : str, default ""
        The ETag of the version of an object in S3 that is read; other versions raise an error.

    Examples
    --------
    >>> Location.of("memory://exports/scene").with_suffix("-mixer.json").name
    'scene-mixer.json'
    >>> os.fspath(Location.of("memory://exports/scene"))
    'memory://exports/scene'
    """

    url: str
    # Not hashed: a mapping is not hashable, and xarray requires hashable paths.
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    etag: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(cls, path: PathLike | Location, storage_options: Mapping[str, Any] | None = None) -> Location:
        """Create a location from a string, a `pathlib.Path`, or a `upath.UPath` with its own options.

        A local path becomes absolute: it is resolved in the current directory of the caller, not of the
        process that uses it. Trailing slashes are removed, as are repeated slashes in a URL.

        Raises
        ------
        DestinationError
            If the path is empty, has characters that no path can have, or is a URL without its second slash.
        OptionError
            If `path` is not a string or path-like.

        Examples
        --------
        >>> Location.of("out/scene").url == os.path.abspath("out/scene")
        True
        """
        if isinstance(path, Location):
            return cls.of(path.url, path.storage_options)
        check_storage_options(storage_options)
        given: Any = path  # a UPath need not be an os.PathLike
        options = dict(getattr(given, "storage_options", None) or {})
        options.update(storage_options or {})
        if not isinstance(given, str | os.PathLike) and not hasattr(given, "storage_options"):
            raise OptionError(
                f"A path must be a string or path-like, such as 'out/scene'; got {shorten(repr(path))}."
            )
        # str() of a UPath includes its scheme.
        text = str(path)
        if not text:
            raise DestinationError("The path is empty: pass a name such as 'out/scene'.")
        _check_characters(text)
        for link in text.split("::"):
            _check_slashes(link, given)
        if "::" in text:
            return cls(text, options)
        scheme, separator, rest = text.partition("://")
        if separator and scheme not in ("file", "local"):
            if scheme not in _WEB:  # repeated slashes may be significant to web servers
                rest = re.sub("//+", "/", rest)
            return cls(f"{scheme}://{rest.rstrip('/') if rest.strip('/') else rest}", options)
        return cls(os.path.abspath(os.path.expanduser(rest if separator else text)), options)

    @cached_property
    def _found(self) -> tuple[fsspec.AbstractFileSystem, str]:
        *links, store = self.url.split("::")
        if container := next(filter(_CONTAINERS.__contains__, links), None):
            opened = store.rpartition("/")[0] if container == "dir" else store
            raise DestinationError(
                f"{self.url} cannot be opened: {container!r} needs a path in the folder or archive that it "
                f"opens, such as {container}://scene::{opened}."
            )
        protocols = [link.partition("://")[0] for link in (*links, store)]
        name = next((_EXTRAS[each] for each in protocols if each in _EXTRAS), None)
        try:
            with extra(name, self.url) if name else nullcontext():
                filesystem, path = url_to_fs(self.url, **self.storage_options)
        except XeeTFError:
            raise
        except (ImportError, ValueError) as error:  # a missing package or an unknown protocol
            what = str(error)
            if name == "azure" and "account_name" in what:
                what = (
                    "the account is not known. Pass storage_options={'account_name': '...'}, or set "
                    "AZURE_STORAGE_ACCOUNT_NAME and a key, or AZURE_STORAGE_CONNECTION_STRING."
                )
            elif "Protocol not known" in what:
                what = (
                    "fsspec does not know its protocol. Pass a local path, or a URL such as "
                    "s3://bucket/scene, gs://bucket/scene or az://container/scene."
                )
            raise DestinationError(f"{self.url} cannot be opened: {what}") from error
        require_credentials(filesystem, self.url)
        if self._link[1] and self._link[0].endswith("://"):  # fsspec takes the path of the next link
            path = ""
        return filesystem, str(path)

    def __getstate__(self) -> dict[str, Any]:
        # Without the filesystem instance, which cannot be shared between processes.
        return {"url": self.url, "storage_options": self.storage_options, "etag": self.etag}

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The filesystem (fsspec caches one instance per process)."""
        return self._found[0]

    @property
    def path(self) -> str:
        """The path in the form that the filesystem uses."""
        return self._found[1]

    @property
    def protocols(self) -> frozenset[str]:
        """The names of the filesystem, such as "s3"."""
        protocol = self.fs.protocol
        return frozenset((protocol,) if isinstance(protocol, str) else protocol)

    @property
    def is_local(self) -> bool:
        """Whether it is on a local disk, where files can be renamed and read by other libraries."""
        return "file" in self.protocols

    @property
    def is_s3(self) -> bool:
        """Whether it is in S3, or in a store with the same interface."""
        return "s3" in self.protocols

    @property
    def bucket(self) -> str | None:
        """The bucket or container of an object store; None for other filesystems."""
        protocols = self.protocols | {self._link[0].partition("://")[0].rpartition("::")[2]}  # behind a cache
        return self.path.strip("/").partition("/")[0] if protocols & _BUCKETS else None

    @property
    def key(self) -> str:
        """The name of the object in its bucket."""
        return self.path.strip("/").partition("/")[2]

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, which is read-only."""
        return bool(self.protocols & _WEB)

    @property
    def fresh_fs(self) -> fsspec.AbstractFileSystem:
        """The filesystem with its listings cache cleared, because other processes may write to it."""
        if not self.is_local:
            self.fs.invalidate_cache()
        return self.fs

    @property
    def zarr_options(self) -> dict[str, Any] | None:
        """The storage options for Zarr; None for local folders."""
        return None if self.is_local else dict(self.storage_options) or None

    @cached_property
    def _link(self) -> tuple[str, str]:
        """The URL up to the end of the path, and the archive that holds it: ``zip://scene::/maps.zip``."""
        links = self.url.split("::")
        # A protocol without a path is a cache, which uses the path of the next link.
        number = next((i for i, link in enumerate(links[:-1]) if "://" in link), len(links) - 1)
        path, archive = "::".join(links[: number + 1]), "::".join(links[number + 1 :])
        return path.replace(os.sep, "/"), archive and f"::{archive}"

    def _with_path(self, path: str) -> Location:
        return Location(path + self._link[1], self.storage_options)

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self._link[0].rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The parent folder."""
        head, slash, _ = self._link[0].rpartition("/")
        # "memory://" and Windows drives such as "D:/" keep their slash.
        is_root = head.endswith(":/") or (len(head) == 2 and head[1] == ":")
        return self._with_path(f"{head}/" if is_root else head or slash or ".")

    @property
    def is_root(self) -> bool:
        """Whether it is a whole bucket or web server, to whose name no suffix can be appended."""
        host = self.url.startswith(("http://", "https://")) and self.url.count("/") == 2
        return host or (self.bucket is not None and self.path.strip("/") == self.bucket)

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        # Makes results path-like. Libraries that accept paths also accept URLs as strings.
        return self.url

    def child(self, name: str) -> Location:
        """Return the location of `name` inside this folder."""
        path = self._link[0]
        return self._with_path(path + name if path.endswith("://") else f"{path.rstrip('/')}/{name}")

    def with_suffix(self, suffix: str) -> Location:
        """Return the location with `suffix` appended."""
        return self._with_path(self._link[0] + suffix)

    def without_suffix(self, *suffixes: str) -> Location:
        """Return the location without the first of `suffixes` that matches."""
        path = self._link[0]
        suffix = next((suffix for suffix in suffixes if path.endswith(suffix)), "")
        return self._with_path(path.removesuffix(suffix))

    def temporary(self, ending: str = ".tmp") -> Location:
        """Return a unique hidden location in the same folder, whose name tells the process that writes it."""
        return self.parent.child(f".{self.name.lstrip('.')}-{new_token()}{ending}")

    def _errors(self, action: str) -> AbstractContextManager[None]:
        return storage_errors(action, self.url, local=self.is_local)

    def exists(self) -> bool:
        """Return whether a file or folder exists.

        Raises
        ------
        StorageError
            If this cannot be determined.
        """
        with self._errors("read"):
            if self.is_local:
                try:
                    os.stat(self.path)
                except (FileNotFoundError, NotADirectoryError):
                    return False
                return True
            return bool(self.fresh_fs.exists(self.path))

    def is_folder(self) -> bool:
        """Return whether a folder exists."""
        try:
            with self._errors("read"):
                return bool(self.fresh_fs.isdir(self.path))
        except Exception as error:
            if not is_inaccessible(error):
                raise
            return False

    def entries(self) -> dict[str, bool]:
        """Return the sorted names in this folder, each with whether it is a folder."""
        with self._errors("list"):
            listed = self.fresh_fs.ls(self.path, detail=True)
        found = {
            str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]: entry["type"] == "directory"
            for entry in listed
            if str(entry["name"]).strip("/") != self.path.strip("/")
        }
        return dict(sorted(found.items()))

    def count_files(self) -> int:
        """Return the number of files in this folder, including subfolders."""
        with self._errors("list"):
            return len(self.fresh_fs.find(self.path))

    def info(self) -> Mapping[str, Any]:
        """Return what the store says about the file now: its size, and its time or ETag."""
        with self._errors("read"):
            found: Mapping[str, Any] = self.fresh_fs.info(self.path)
            return found

    def size(self) -> int:
        """Return the size of the file in bytes."""
        return int(self.info()["size"])

    def listed(self) -> dict[str, Mapping[str, Any]]:
        """Return the entries of the same folder whose names start with this name, sorted by name.

        Each name is returned with what the store says about it, such as its type, size and ETag. In a bucket,
        only names that start with this name are listed, not the whole folder. The result is empty if there is
        no such folder, or if it cannot be listed.

        Examples
        --------
        >>> for name in ("scene-mixer.json", "scene-00000.tfrecord", "other"):
        ...     Location.of(f"memory://listed/{name}").write_bytes(b"content")
        >>> [(name, info["size"]) for name, info in Location.of("memory://listed/scene-").listed().items()]
        [('scene-00000.tfrecord', 7), ('scene-mixer.json', 7)]
        """
        folder, name = self.parent, self.name
        try:
            if self.is_local:
                with folder._errors("list"), os.scandir(folder.path) as entries:
                    chosen = sorted(entry.name for entry in entries if entry.name.startswith(name))
                found = {}
                for each in chosen:
                    with suppress(FileNotFoundError):  # removed since it was listed
                        found[each] = self.fs.info(os.path.join(folder.path, each))
            else:
                with folder._errors("list"):
                    found = _find(self.fresh_fs, folder.path, name if self.bucket is not None else "")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except Exception as error:
            if self.is_local or not is_inaccessible(error):
                raise
            return {}
        return {each: found[each] for each in sorted(found) if each.startswith(name)}

    def siblings(self, *, folders: bool = False) -> list[Location]:
        """Return the files (or folders) in the same folder whose names start with this name, sorted."""
        path = self._link[0]
        return [
            self._with_path(path[: len(path) - len(self.name)] + name)
            for name, entry in self.listed().items()
            if (entry["type"] == "directory") == folders
        ]

    @property
    def is_pattern(self) -> bool:
        """Whether it may be a glob pattern, such as ``out/scene-*.tfrecord.gz``."""
        return bool(_GLOB.search(self.url))

    def matching(self) -> list[Location]:
        """Return the files that match this pattern, sorted by name."""
        fs = self.fresh_fs
        try:
            with self._errors("list"):
                paths = sorted(fs.glob(self.path))
        except FileNotFoundError:  # no such bucket
            return []
        if self._link[1]:
            scheme = self._link[0].partition("://")[0]
            return [self._with_path(f"{scheme}://{path.lstrip('/')}") for path in paths]
        return [Location(fs.unstrip_protocol(path), self.storage_options) for path in paths]

    def read_bytes(self, start: int = 0, end: int | None = None) -> bytes:
        """Read the bytes ``start..end`` of the file; by default, the whole file.

        Raises
        ------
        MissingShardError
            If the file does not exist.
        StorageError
            If the file cannot be read.
        RecordError
            If a web server sends a large file as a whole instead of the requested range, or the ETag of the
            file is not `etag`.
        """
        with self._errors("read"):
            if self.etag and self.is_s3:
                return _read_version(self, start, end)
            if start == 0 and end is None:  # an empty object has no range
                return bytes(self.fs.cat_file(self.path))
            if end is None or end <= start:
                return bytes(self.fs.cat_file(self.path, start=start, end=end))
            try:
                data = bytes(self.fs.cat_file(self.path, start=start, end=end))
            except ValueError as error:  # raised by fsspec if the server does not support ranges
                if "range" not in str(error):
                    raise
                data = bytes(self.fs.cat_file(self.path))
        if len(data) > end - start:
            if len(data) > _WHOLE_FILE:
                raise RecordError(
                    f"The server of {self.url} does not support byte ranges: it sent all {len(data)} bytes "
                    f"for a range of {end - start}. Download the files first and open the copies."
                )
            data = data[start:end]
        return data

    def open(self, mode: str = "rb") -> Any:
        """Open the file; in an object store, a written file appears when it is closed.

        If a ``with`` block that writes fails, no object appears.

        Raises
        ------
        DestinationError
            If the file cannot be opened for writing.
        MissingShardError
            If the file does not exist.
        StorageError
            If the file cannot be read.
        """
        action = {"r": "read", "x": "create"}.get(mode[0], "write")
        with self._errors(action):
            if not self.is_local:
                if action != "read":
                    self.make_parent()
                return StoreFile(self.fs.open(self.path, mode), action, self.url, local=False)
            # Without the wrapper of fsspec, which is slow for small files.
            if action == "read":
                return open(self.path, mode)
            try:
                return StoreFile(open(self.path, mode), action, self.url, local=True)
            except FileNotFoundError:
                self.make_parent()
                return StoreFile(open(self.path, mode), action, self.url, local=True)

    def write_bytes(self, data: bytes, *, exclusive: bool = False, durable: bool = False) -> None:
        """Write a small file atomically.

        Parameters
        ----------
        data : bytes
            The content.
        exclusive : bool
            Whether the file must not exist.
        durable : bool
            Whether the content must survive a crash of the machine. Object stores always promise that.

        Raises
        ------
        FileExistsError
            If the file exists and `exclusive` is true.
        DestinationError
            If the file cannot be written.
        """
        if not self.is_local:
            if exclusive and self.exists():  # some stores ignore the condition
                raise FileExistsError(errno.EEXIST, "The object exists", self.url)
            with self._errors("create" if exclusive else "write"):
                self.make_parent()
                self.fs.pipe_file(self.path, data, **({"mode": "create"} if exclusive else {}))
            return
        temporary = self.temporary().path
        try:
            with self._errors("create" if exclusive else "write"):
                self.make_parent()
                with open(temporary, "xb") as file:
                    file.write(data)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                if exclusive:
                    _create(temporary, self.path, data)
                    with suppress(OSError):  # the file exists
                        os.remove(temporary)
                else:
                    rename(temporary, self.path)
                if durable:
                    sync_folder(self.parent.path)
        except BaseException:
            with suppress(OSError):
                os.remove(temporary)
            raise

    def put_file(self, file: PathLike) -> None:
        """Move a local file here; to an object store it is copied.

        Raises
        ------
        DestinationError
            If the file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     Location.of("memory://maps/a.tif").put_file(file.name)
        >>> Location.of("memory://maps/a.tif").size()
        0
        """
        if self.is_local:
            Location(os.fspath(file)).move(self)
            return
        with self._errors("write"):
            self.make_parent()
            self.fs.put_file(os.fspath(file), self.path)

    def move(self, target: Location) -> None:
        """Move this file to `target`, by renaming it if the filesystem supports that.

        If `target` is a symbolic link, the file that it points to is replaced. A local file can be moved to
        another store.
        """
        if self.is_local and not target.is_local:
            target.put_file(self.path)
            self.remove()
            return
        with target._errors("write"):
            target.make_parent()
            if self.is_local:
                rename(self.path, target.path)
            elif _GLOB.search(self.path):
                _move_exactly(self.fs, self.path, target.path)
            else:
                self.fs.mv(self.path, target.path)

    def remove(self, *, recursive: bool = False) -> None:
        """Delete the file, or the folder with its contents if `recursive`.

        Raises
        ------
        FileNotFoundError
            If it does not exist.
        DestinationError
            If it cannot be deleted.
        """
        with self._errors("delete"):
            fs = self.fresh_fs
            is_pattern = not self.is_local and _GLOB.search(self.path)
            if self.bucket is None and not is_pattern:
                fs.rm(self.path, recursive=recursive)
            elif self.bucket is None and recursive:
                _remove_tree(fs, self.path)
            elif not recursive:
                fs.rm_file(self.path)
            elif paths := fs.find(self.path):
                self.remove_objects(paths)
            else:
                raise FileNotFoundError(self.path)

    def remove_objects(self, paths: Sequence[str]) -> None:
        """Delete objects in this folder, many with each request if the store supports that.

        Parameters
        ----------
        paths : sequence of str
            Their paths, in the form that the filesystem uses.

        Raises
        ------
        DestinationError
            If some of them cannot be deleted.
        """
        with self._errors("delete"):
            _remove_objects(self.fs, paths)
            # Some filesystems ignore the errors of such requests.
            left = set(paths).intersection(self.fresh_fs.find(self.path)) if len(paths) > 1 else ()
            for path in sorted(left):
                self.fs.rm_file(path)  # raises the error

    def clear(self) -> None:
        """Delete the folder with its contents, even while other processes finish writing to it."""
        deadline = time.monotonic() + 10
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            with suppress(Exception):  # the caller is about to raise a more important error
                quiet += 1
                if self.exists():
                    quiet = 0
                    self.remove(recursive=True)
            time.sleep(0.05)

    def make_parent(self) -> None:
        """Create the parent folder, unless it is in an object store."""
        if self.is_local:
            os.makedirs(self.parent.path, exist_ok=True)
        elif self.bucket is None and not self.fs.exists(self.parent.path):
            with suppress(Exception):  # a store without folders may raise an error
                self.fs.makedirs(self.parent.path, exist_ok=True)


def _check_characters(text: str) -> None:
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


def _check_slashes(url: str, path: PathLike) -> None:
    """Raise an error for ``s3:/bucket``, which would be a file in a local folder ``s3:``.

    A `pathlib.Path` removes a slash of a URL.
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


def remove_all(files: Sequence[Location]) -> None:
    """Delete files and folders that exist in one folder, in an object store with few requests.

    Examples
    --------
    >>> files = [Location.of(f"memory://removed/{name}") for name in ("a", "b")]
    >>> for file in files:
    ...     file.write_bytes(b"")
    >>> remove_all(files)
    >>> [file.exists() for file in files]
    [False, False]
    """
    if not files or files[0].bucket is None:
        for file in files:
            file.remove(recursive=True)
        return
    prefix = os.path.commonprefix([file.name for file in files])  # noqa: RUF071 - not paths
    names = files[0].parent.child(prefix)

    def listed(kind: str) -> list[Location]:
        found = names.listed()
        return [file for file in files if found.get(file.name, {}).get("type") == kind]

    for folder in listed("directory"):
        folder.remove(recursive=True)
    with names._errors("delete"):
        _remove_objects(files[0].fs, [file.path for file in listed("file")])
    for file in listed("file"):  # some filesystems ignore the errors of such requests
        file.remove()


def _move_exactly(fs: fsspec.AbstractFileSystem, source: str, target: str) -> None:
    """Move a file whose path `fs.mv` may take for a pattern."""
    try:
        fs.cp_file(source, target)
    except NotImplementedError:  # filesystems that cannot copy rename, and take no path for a pattern
        fs.mv(source, target)
    else:
        fs.rm_file(source)


def _remove_tree(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Delete a file or folder whose path `fs.rm` would take for a pattern."""
    if not fs.isdir(path):
        fs.rm_file(path)
        return
    found = fs.find(path, withdirs=True, detail=True)
    for each in sorted({*found, path}, reverse=True):  # a folder comes after its contents
        if each in found and found[each]["type"] != "directory":
            fs.rm_file(each)
        else:
            with suppress(FileNotFoundError):  # in some stores, only files make a folder
                fs.rmdir(each)


def _remove_objects(fs: fsspec.AbstractFileSystem, paths: Sequence[str]) -> None:
    several = [path for path in paths if not _GLOB.search(path)] if len(paths) > 1 else []
    if several:
        with suppress(RuntimeError, FileNotFoundError):  # of adlfs and gcsfs; callers look what is left
            if hasattr(fs, "service_client"):
                _delete_blobs(fs, several)
            else:
                fs.rm(several)
    for path in set(paths).difference(several):
        fs.rm_file(path)


def _delete_blobs(fs: Any, paths: Sequence[str]) -> None:
    """Delete blobs of Azure at the same time, with one request for each: `rm` of adlfs needs two."""

    async def delete() -> None:
        for number in range(0, len(paths), _CONCURRENT):
            chosen = paths[number : number + _CONCURRENT]
            await asyncio.gather(*map(fs._rm_file, chosen), return_exceptions=True)

    sync(fs.loop, delete)


def _read_version(file: Location, start: int, end: int | None) -> bytes:
    """Read bytes of an object in S3 whose ETag is known."""
    fs: Any = file.fs
    last = "" if end is None else max(end, start + 1) - 1

    async def read() -> bytes:
        arguments = {"Bucket": file.bucket, "Key": file.key}
        if start or end is not None:  # an empty object has no range
            arguments["Range"] = f"bytes={start}-{last}"
        body = (await fs._call_s3("get_object", IfMatch=file.etag, **arguments))["Body"]
        try:
            return bytes(await body.read())
        finally:
            body.close()

    try:
        data: bytes = sync(fs.loop, read)
    except Exception as error:
        if not is_other_version(error):
            raise
        raise RecordError(f"{file} was replaced or modified after it was opened: open it again.") from error
    return data if end is None else data[: max(0, end - start)]


def rename(source: str, target: str) -> None:
    """Rename a local file or folder, and replace a file at the target.

    Of a symbolic link, the file or folder that it points to is renamed or replaced.
    """
    source, target = os.path.realpath(source), os.path.realpath(target)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A link points to another disk: copy the file there first, so that the rename is atomic.
        copy = Location(target).temporary().path
        shutil.move(source, copy)
        os.replace(copy, target)


def _create(source: str, target: str, data: bytes) -> None:
    """Give a local file another name, which must not exist."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # the disk has no hard links
        with open(target, "xb") as file:
            file.write(data)


def sync_folder(path: str) -> None:
    """Make the names in a local folder survive a crash of the machine."""
    if os.name != "posix":  # folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _find(fs: fsspec.AbstractFileSystem, folder: str, prefix: str) -> dict[str, Mapping[str, Any]]:
    """Return the entries of a folder whose names start with a prefix, and perhaps others."""
    if prefix:
        try:
            found = fs.find(folder, maxdepth=1, withdirs=True, detail=True, prefix=prefix).values()
        except (TypeError, ValueError):  # not all filesystems support these options together
            found = fs.ls(folder, detail=True)
    else:
        found = fs.ls(folder, detail=True)
    names = ((str(entry["name"]).rstrip("/"), entry) for entry in found)
    return {name.rsplit("/", 1)[-1]: entry for name, entry in names if name.strip("/") != folder.strip("/")}
