"""Local paths and object stores, through fsspec; files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from xee_tf.errors import DestinationError, OptionError, RecordError, shorten
from xee_tf.options import check_storage_options

__all__ = ["Location", "PathLike", "is_refused"]

PathLike = str | os.PathLike[str]

# Stores whose first name is a bucket or container, which only its owner creates.
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "obs", "tos"})

_WEB = frozenset({"http", "https"})

_WHOLE_FILE = 64 << 20  # bytes of a file that is read whole where a server does not send parts of it


@dataclass(frozen=True)
class Location:
    """A path on some filesystem: small, picklable, and the only way files are touched.

    Parameters
    ----------
    url : str
        A local path or an fsspec URL ("s3://bucket/scene").
    storage_options : mapping
        Handed to fsspec. Never shown in a repr: it may hold credentials.

    Examples
    --------
    >>> Location.of("memory://exports/scene").with_suffix("-mixer.json").name
    'scene-mixer.json'
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, path: PathLike | Location, storage_options: Mapping[str, Any] | None = None) -> Location:
        """From a string, a `pathlib.Path`, or a `upath.UPath` with options of its own.

        A local path becomes absolute: it means the folder of the caller, whatever the folder of the
        process that uses it. A slash at its end is dropped, and so are slashes beside others in a URL.

        Raises
        ------
        DestinationError
            If the path is empty.
        OptionError
            If it is no path.

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
                f"A path is a string or path-like, such as 'out/scene'; got {shorten(repr(path))}."
            )
        # UPath keeps its scheme in str(); os.fspath of a Path is the plain local path.
        text = str(path)
        if not text:
            raise DestinationError("The path is empty: give a name such as 'out/scene'.")
        if "::" in text:
            return cls(text, options)
        scheme, separator, rest = text.partition("://")
        if separator and scheme not in ("file", "local"):
            if scheme not in _WEB:  # whose servers decide what two slashes mean
                rest = re.sub("//+", "/", rest)
            return cls(f"{scheme}://{rest.rstrip('/') if rest.strip('/') else rest}", options)
        return cls(os.path.abspath(os.path.expanduser(rest if separator else text)), options)

    @cached_property
    def _found(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            filesystem, path = url_to_fs(self.url, **self.storage_options)
        except (ImportError, ValueError) as error:  # a package that is not installed, an unknown protocol
            raise DestinationError(f"{self.url} cannot be opened: {error}") from error
        return filesystem, str(path)

    def __getstate__(self) -> dict[str, Any]:
        # An open filesystem stays in its process.
        return {"url": self.url, "storage_options": self.storage_options}

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The filesystem (fsspec keeps one instance per process)."""
        return self._found[0]

    @property
    def path(self) -> str:
        """The path as the filesystem itself spells it."""
        return self._found[1]

    @property
    def _protocols(self) -> frozenset[str]:
        protocol = self.fs.protocol
        return frozenset((protocol,) if isinstance(protocol, str) else protocol)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's disks: files can be renamed there, and read by other libraries."""
        return "file" in self._protocols

    @property
    def bucket(self) -> str | None:
        """The bucket or container of an object store; None where there are only folders."""
        return self.path.strip("/").partition("/")[0] if self._protocols & _BUCKETS else None

    @property
    def is_web(self) -> bool:
        """Whether a web server has it: nothing can be written there."""
        return bool(self._protocols & _WEB)

    @property
    def fresh_fs(self) -> fsspec.AbstractFileSystem:
        """The filesystem without listings that it remembers: other processes write there too."""
        if not self.is_local:
            self.fs.invalidate_cache()
        return self.fs

    @property
    def zarr_options(self) -> dict[str, Any] | None:
        """The storage options as Zarr takes them: none for local folders."""
        return None if self.is_local else dict(self.storage_options) or None

    @cached_property
    def _link(self) -> tuple[str, str]:
        """The URL up to the end of the path, and the archive that holds it: ``zip://scene::/maps.zip``."""
        links = self.url.split("::")
        # A name alone is a cache, which has the path of what follows it.
        number = next((i for i, link in enumerate(links[:-1]) if "://" in link), len(links) - 1)
        path, archive = "::".join(links[: number + 1]), "::".join(links[number + 1 :])
        return path.replace(os.sep, "/"), archive and f"::{archive}"

    def _with_path(self, path: str) -> Location:
        return Location(path + self._link[1], self.storage_options)

    @property
    def name(self) -> str:
        """What follows the last slash of the path."""
        return self._link[0].rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The folder that holds it."""
        head, slash, _ = self._link[0].rpartition("/")
        # "memory://" and a drive of Windows, "D:/", keep their slash.
        is_root = head.endswith(":/") or (len(head) == 2 and head[1] == ":")
        return self._with_path(f"{head}/" if is_root else head or slash or ".")

    @property
    def is_root(self) -> bool:
        """Whether it is a whole bucket, or a web server: nothing can be appended to its name."""
        host = self.url.startswith(("http://", "https://")) and self.url.count("/") == 2
        return host or (self.bucket is not None and self.path.strip("/") == self.bucket)

    def __str__(self) -> str:
        return self.url

    def child(self, name: str) -> Location:
        """A name inside this folder."""
        path = self._link[0]
        return self._with_path(path + name if path.endswith("://") else f"{path.rstrip('/')}/{name}")

    def with_suffix(self, suffix: str) -> Location:
        """The same path with `suffix` appended."""
        return self._with_path(self._link[0] + suffix)

    def without_suffix(self, *suffixes: str) -> Location:
        """The same path without the first of those endings that it has."""
        path = self._link[0]
        suffix = next((suffix for suffix in suffixes if path.endswith(suffix)), "")
        return self._with_path(path.removesuffix(suffix))

    def temporary(self, ending: str = ".tmp") -> Location:
        """A name that nothing else has, beside this one: ``scene.1f0a93c2.tmp``."""
        return self.with_suffix(f".{uuid.uuid4().hex[:8]}{ending}")

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        return bool(self.fresh_fs.exists(self.path))

    def is_folder(self) -> bool:
        """Whether a folder is there."""
        try:
            return bool(self.fresh_fs.isdir(self.path))
        except Exception as error:
            if not is_refused(error):
                raise
            return False

    def entries(self) -> dict[str, bool]:
        """The names in this folder, sorted, each with whether it is a folder."""
        found = {
            str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]: entry["type"] == "directory"
            for entry in self.fresh_fs.ls(self.path, detail=True)
            if str(entry["name"]).strip("/") != self.path.strip("/")
        }
        return dict(sorted(found.items()))

    def count_files(self) -> int:
        """How many files are in this folder and those in it."""
        return len(self.fresh_fs.find(self.path))

    def size(self) -> int:
        """Bytes of the file."""
        return int(self.fresh_fs.size(self.path))

    def siblings(self, *, folders: bool = False) -> list[Location]:
        """Files, or folders, in the same folder whose names start with this one's, sorted by name."""
        folder, path = self.parent, self._link[0]
        try:
            entries = folder.entries() if folder.exists() else {}
        except Exception as error:
            if self.is_local or not is_refused(error):
                raise
            entries = {}
        return [
            self._with_path(path[: len(path) - len(self.name)] + name)
            for name, is_folder in entries.items()
            if is_folder == folders and name.startswith(self.name)
        ]

    @property
    def is_pattern(self) -> bool:
        """Whether it may stand for several files, as ``out/scene-*.tfrecord.gz`` does."""
        return any(sign in self.url for sign in "*?[")

    def matching(self) -> list[Location]:
        """The files that this pattern stands for, sorted by name."""
        fs = self.fresh_fs
        try:
            paths = sorted(fs.glob(self.path))
        except FileNotFoundError:  # no such bucket
            return []
        if self._link[1]:
            scheme = self._link[0].partition("://")[0]
            return [self._with_path(f"{scheme}://{path.lstrip('/')}") for path in paths]
        return [Location(fs.unstrip_protocol(path), self.storage_options) for path in paths]

    def read_bytes(self, start: int = 0, end: int | None = None) -> bytes:
        """The bytes ``start..end`` of the file; all of it by default.

        Raises
        ------
        RecordError
            If a web server sends the whole of a large file instead of the bytes.
        """
        if end is None or end <= start:
            return bytes(self.fs.cat_file(self.path, start=start, end=end))
        try:
            data = bytes(self.fs.cat_file(self.path, start=start, end=end))
        except ValueError as error:  # how fsspec refuses servers without ranges
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
        """An open file; on an object store it appears when it is closed.

        Raises
        ------
        DestinationError
            If it is opened for writing and that is not possible in this process.
        """
        if "w" not in mode:
            # Without fsspec's wrapper, which costs more than small files do.
            return open(self.path, mode) if self.is_local else self.fs.open(self.path, mode)
        with self._writing():
            if not self.is_local:
                self._make_parent()
                return self.fs.open(self.path, mode)
            try:
                return open(self.path, mode)
            except FileNotFoundError:
                self._make_parent()
                return open(self.path, mode)

    def write_bytes(self, data: bytes) -> None:
        """Write a small file whole or not at all."""
        if not self.is_local:
            with self._writing():
                self.fs.pipe_file(self.path, data)
            return
        temporary = self.temporary()
        try:
            with temporary.open("wb") as file:
                file.write(data)
            temporary.move(self)
        except BaseException:
            with suppress(OSError):
                temporary.remove()
            raise

    def put_file(self, file: PathLike) -> None:
        """Put a file of this machine here: on a local disk it is moved, to an object store it is copied.

        Raises
        ------
        DestinationError
            If it cannot be written here.

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
        with self._writing():
            self._make_parent()
            self.fs.put_file(os.fspath(file), self.path)

    def move(self, target: Location) -> None:
        """Put this file in the place of `target`: a rename where the filesystem has one.

        Where `target` is a link, what it leads to is replaced. A file of this machine can be moved to
        another store.
        """
        if self.is_local and not target.is_local:
            target.put_file(self.path)
            self.remove()
            return
        with target._writing():
            target._make_parent()
        if not self.is_local:
            self.fs.mv(self.path, target.path)
            return
        path = os.path.realpath(target.path)
        try:
            os.replace(self.path, path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # The link leads to another disk: copied there first, so that the file appears whole.
            copy = Location(path).temporary().path
            shutil.copyfile(self.path, copy)
            os.replace(copy, path)
            os.remove(self.path)

    def remove(self, *, recursive: bool = False) -> None:
        """Delete the file, or the folder and all in it."""
        self.fresh_fs.rm(self.path, recursive=recursive)

    def clear(self) -> None:
        """Delete the folder and all in it, while other processes that have begun may still write there."""
        deadline = time.monotonic() + 10
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            with suppress(Exception):  # what made the caller give up is the error to show
                quiet += 1
                if self.exists():
                    quiet = 0
                    self.remove(recursive=True)
            time.sleep(0.05)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the filesystem refuses is a `DestinationError`, which names the machine too."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            where = ""
            if self.is_local:
                where = f" on {socket.gethostname()}. Every process that writes needs access to its folder"
            raise DestinationError(f"Cannot write {self.url}: {reason}{where}.") from error

    def _make_parent(self) -> None:
        if self.is_local:
            os.makedirs(self.parent.path, exist_ok=True)
        elif self.bucket is None and not self.fs.exists(self.parent.path):
            with suppress(Exception):  # a store that has no folders may refuse
                self.fs.makedirs(self.parent.path, exist_ok=True)


def is_refused(error: Exception) -> bool:
    """Whether an error is one of the usual answers of a server without that file, or without access to it.

    Where a store may not be listed, a missing file looks like a forbidden one; simple web servers fail. What
    may pass (too many requests, a gateway) is no such answer.
    """
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status <= 500 and status not in (408, 429)
    return refused or isinstance(error, PermissionError | FileNotFoundError)
