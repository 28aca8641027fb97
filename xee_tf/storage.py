"""Local paths and object stores, through fsspec; files appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from xee_tf.errors import DestinationError, DestinationExistsError, OptionError, RecordError

__all__ = ["Location", "PathLike"]

PathLike = str | os.PathLike[str]

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
        """From a string, a `pathlib.Path`, or a `upath.UPath` with options of its own."""
        if isinstance(path, Location):
            return path
        options = dict(getattr(path, "storage_options", None) or {})
        options.update(storage_options or {})
        if not isinstance(path, str):
            # UPath keeps its scheme in str(); os.fspath of a Path is the plain local path.
            path = str(path)
        if not path:
            raise DestinationError("The path is empty: give a prefix such as 'out/scene'.")
        return cls(os.path.expanduser(path), options)

    @cached_property
    def _found(self) -> tuple[fsspec.AbstractFileSystem, str]:
        filesystem, path = url_to_fs(self.url, **self.storage_options)
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
    def is_local(self) -> bool:
        """Whether it is on this machine's disks: files can be renamed there, and read by other libraries."""
        protocols = (self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol
        return "file" in protocols

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
        return bool(self.fs.exists(self.path))

    def size(self) -> int:
        """Bytes of the file."""
        return int(self.fs.size(self.path))

    def siblings(self) -> list[Location]:
        """Files in the same folder whose names start with this one's, sorted by name."""
        folder = self.parent
        fs, path = folder.fs, folder.path
        if not fs.exists(path):
            return []
        entries = fs.ls(path, detail=True, refresh=True) if not self.is_local else fs.ls(path, detail=True)
        names = (entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file")
        return [
            Location(self.url[: len(self.url) - len(self.name)] + name, self.storage_options)
            for name in sorted(names)
            if name.startswith(self.name)
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
        """An open file; on an object store it appears when it is closed."""
        if self.is_local:
            # Without fsspec's wrapper, which costs more than small files do.
            try:
                return open(self.path, mode)
            except FileNotFoundError:
                if "w" not in mode:
                    raise
                self._make_parent()
                return open(self.path, mode)
        if "w" in mode:
            self._make_parent()
        return self.fs.open(self.path, mode)

    def write_bytes(self, data: bytes) -> None:
        """Write a small file whole or not at all."""
        if not self.is_local:
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

    def move(self, target: Location) -> None:
        """Put this file in the place of `target`: a rename where the filesystem has one."""
        target._make_parent()
        if not self.is_local:
            self.fs.mv(self.path, target.path)
        else:
            os.replace(self.path, target.path)

    def remove(self, *, recursive: bool = False) -> None:
        """Delete the file, or the folder and all in it."""
        self.fs.rm(self.path, recursive=recursive)

    def require_free(self, if_exists: str) -> None:
        """Raise `DestinationExistsError` if something is here and `if_exists` is "error".

        Raises
        ------
        OptionError
            If `if_exists` is neither "error" nor "overwrite".
        """
        if if_exists not in ("error", "overwrite"):
            raise OptionError(f"if_exists must be 'error' or 'overwrite'; got {if_exists!r}.")
        if if_exists == "error" and self.exists():
            raise DestinationExistsError(
                f"{self} exists: choose another name, or replace it with if_exists='overwrite'."
            )

    def require_writable(self) -> None:
        """Raise `DestinationError` if a file cannot be made here; leaves nothing behind."""
        if not self.is_local:
            return  # object stores say so at the first PUT; a probe object would cost a request
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

    def _make_parent(self) -> None:
        fs = self.fs
        if self.is_local:
            os.makedirs(self.parent.path, exist_ok=True)
        elif not fs.exists(self.parent.path):
            with suppress(Exception):  # buckets have no folders; a store that needs none may refuse
                fs.makedirs(self.parent.path, exist_ok=True)
