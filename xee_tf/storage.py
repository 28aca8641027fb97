"""Local paths and object stores, through fsspec; files appear whole or not at all."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

import fsspec
from fsspec.core import url_to_fs

from xee_tf.errors import DestinationError, DestinationExistsError, RecordError
from xee_tf.options import IfExists, one_of

__all__ = ["Location", "PathLike"]

PathLike = str | os.PathLike[str]

# Stores whose first name is a bucket or container, which only its owner creates.
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "obs", "tos"})

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
        process that uses it. A slash at its end is dropped.

        Raises
        ------
        DestinationError
            If the path is empty.

        Examples
        --------
        >>> Location.of("out/scene").url == os.path.abspath("out/scene")
        True
        """
        if isinstance(path, Location):
            return cls.of(path.url, path.storage_options)
        options = dict(getattr(path, "storage_options", None) or {})
        options.update(storage_options or {})
        # UPath keeps its scheme in str(); os.fspath of a Path is the plain local path.
        text = str(path)
        if not text:
            raise DestinationError("The path is empty: give a name such as 'out/scene'.")
        if "::" in text:
            return cls(text, options)
        scheme, separator, rest = text.partition("://")
        if separator and scheme not in ("file", "local"):
            return cls(text.rstrip("/") if rest.strip("/") else text, options)
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
    def _fresh(self) -> fsspec.AbstractFileSystem:
        """The filesystem without listings that it remembers: other processes write there too."""
        if not self.is_local:
            self.fs.invalidate_cache()
        return self.fs

    @property
    def zarr_options(self) -> dict[str, Any] | None:
        """The storage options as Zarr takes them: none for local folders."""
        return None if self.is_local else dict(self.storage_options) or None

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.url.replace(os.sep, "/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The folder that holds it."""
        head, slash, _ = self.url.replace(os.sep, "/").rpartition("/")
        return Location(head or slash or ".", self.storage_options)

    def __str__(self) -> str:
        return self.url

    def child(self, name: str) -> Location:
        """A name inside this folder."""
        return Location(f"{self.url.rstrip('/')}/{name}", self.storage_options)

    def with_suffix(self, suffix: str) -> Location:
        """The same path with `suffix` appended."""
        return Location(self.url + suffix, self.storage_options)

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        return bool(self._fresh.exists(self.path))

    def is_folder(self) -> bool:
        """Whether a folder is there."""
        return bool(self._fresh.isdir(self.path))

    def entries(self) -> dict[str, bool]:
        """The names in this folder, sorted, each with whether it is a folder."""
        found = {
            str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]: entry["type"] == "directory"
            for entry in self._fresh.ls(self.path, detail=True)
            if str(entry["name"]).strip("/") != self.path.strip("/")
        }
        return dict(sorted(found.items()))

    def size(self) -> int:
        """Bytes of the file."""
        return int(self._fresh.size(self.path))

    def siblings(self) -> list[Location]:
        """Files in the same folder whose names start with this one's, sorted by name."""
        folder = self.parent
        if not folder.exists():
            return []
        return [
            Location(self.url[: len(self.url) - len(self.name)] + name, self.storage_options)
            for name, is_folder in folder.entries().items()
            if not is_folder and name.startswith(self.name)
        ]

    @property
    def is_pattern(self) -> bool:
        """Whether it may stand for several files, as ``out/scene-*.tfrecord.gz`` does."""
        return any(sign in self.url for sign in "*?[")

    def matching(self) -> list[Location]:
        """The files that this pattern stands for, sorted by name."""
        fs = self._fresh
        return [
            Location(fs.unstrip_protocol(path), self.storage_options) for path in sorted(fs.glob(self.path))
        ]

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
        temporary = self.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")
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
        """Put this file in the place of `target`: a rename where the filesystem has one."""
        with target._writing():
            target._make_parent()
        if not self.is_local:
            self.fs.mv(self.path, target.path)
        else:
            os.replace(self.path, target.path)

    def remove(self, *, recursive: bool = False) -> None:
        """Delete the file, or the folder and all in it."""
        self._fresh.rm(self.path, recursive=recursive)

    def require_free(self, if_exists: str, *, folder: bool = False) -> None:
        """Raise `DestinationExistsError` if something is here that may not be replaced.

        Parameters
        ----------
        if_exists : {"error", "overwrite"}
        folder : bool
            A folder is written, and not a file, which never takes the place of a folder.

        Raises
        ------
        OptionError
            If `if_exists` is neither "error" nor "overwrite".
        """
        one_of("if_exists", if_exists, get_args(IfExists))
        self.require_key()
        if not folder and self.is_folder():
            raise DestinationExistsError(
                f"{self} is a folder, and a file cannot replace it: choose another name, or name a file in "
                f"that folder, such as {self.child('name' + os.path.splitext(self.name)[1])}."
            )
        if if_exists == "error" and self.exists():
            raise DestinationExistsError(
                f"{self} exists: choose another name, or replace it with if_exists='overwrite'."
            )

    def require_writable(self) -> None:
        """Raise `DestinationError` if a file cannot be made here; leaves nothing behind.

        In an object store the bucket must exist: none is ever made. Whether its objects can be written is
        known only at the first one.
        """
        self.require_key()
        if self.is_local:
            self._require_writable_folder()
        elif self.bucket is not None:
            self._require_bucket(self.bucket)

    def require_key(self) -> None:
        """Raise `DestinationError` if this is a whole bucket: a name inside the bucket is needed."""
        if self.bucket is not None and self.path.strip("/") == self.bucket:
            scheme = self.url.partition("://")[0]
            raise DestinationError(
                f"{self.url} is a bucket without a name in it: add one, such as "
                f"{scheme}://{self.bucket or 'bucket'}/scene."
            )

    def _require_writable_folder(self) -> None:
        folder = os.path.abspath(self.parent.path)
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        if not os.path.isdir(folder):
            raise DestinationError(f"Cannot write {self.url}: {folder} is a file, not a folder.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise DestinationError(
                f"Cannot write {self.url}: no permission to create files in {folder}. "
                "Choose another folder or change its permissions."
            )

    def _require_bucket(self, bucket: str) -> None:
        fs = self._fresh
        if fs.exists(bucket):
            return
        # An account that may only write objects cannot look at their bucket; listing gives the reason.
        try:
            fs.ls(bucket)
        except FileNotFoundError:
            raise DestinationError(
                f"Cannot write {self.url}: there is no bucket {bucket!r}. Correct its name, or create the "
                "bucket first."
            ) from None
        except PermissionError:
            return
        except Exception as error:
            raise DestinationError(f"Cannot write {self.url}: the bucket {bucket!r} gives {error}") from error

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
