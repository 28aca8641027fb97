"""Access to files on local disks and in object stores: look, read, write, move and delete.

Files appear whole, and errors name the file and say what to do.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

from xee_tf.storage.address import Address, PathLike
from xee_tf.storage.failures import is_inaccessible, storage_errors
from xee_tf.storage.filesystems import has_wildcard
from xee_tf.storage.local import rename, write_file
from xee_tf.storage.objects import (
    find_entries,
    move_file,
    read_range,
    read_version,
    remove_objects,
    remove_tree,
)
from xee_tf.storage.store_file import StoreFile

__all__ = ["Location"]


@dataclass(frozen=True)
class Location(Address):
    """A file or folder on any filesystem; all file access goes through this class.

    It is picklable and path-like. `Location.of` creates one from a path or URL and the options of fsspec.

    Examples
    --------
    >>> scene = Location.of("memory://locations/scene")
    >>> scene.with_suffix("-mixer.json").write_bytes(b"{}")
    >>> [file.name for file in scene.siblings()]
    ['scene-mixer.json']
    """

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

    def is_file(self) -> bool:
        """Return whether a file exists.

        Raises
        ------
        StorageError
            If this cannot be determined.
        """
        if self.is_local:
            return os.path.isfile(self.path)
        try:
            return bool(self.info()["type"] == "file")
        except FileNotFoundError:
            return False

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

        Each name comes with what the store says about it, such as its type, size and ETag. In a bucket, only
        these names are listed, not the whole folder. The result is empty if there is no such folder, or if it
        cannot be listed.

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
                    try:
                        found[each] = self.fs.info(os.path.join(folder.path, each))
                    except OSError as error:
                        # It was removed since it was listed, or is a link to itself.
                        if error.errno not in (errno.ENOENT, errno.ELOOP):
                            raise
            else:
                with folder._errors("list"):
                    found = find_entries(self.fresh_fs, folder.path, name if self.bucket is not None else "")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except Exception as error:
            if self.is_local or not is_inaccessible(error):
                raise
            return {}
        return {each: found[each] for each in sorted(found) if each.startswith(name)}

    def siblings(self, *, folders: bool = False) -> list[Location]:
        """Return the files (or folders) in the same folder whose names start with this name, sorted."""
        return [
            self.sibling(name)
            for name, entry in self.listed().items()
            if (entry["type"] == "directory") == folders
        ]

    def matching(self) -> dict[Location, Mapping[str, Any]]:
        """Return the files that match this pattern, sorted by name, each with what the store says about it.

        Examples
        --------
        >>> for name in ("b-1", "a-1", "a-2"):
        ...     Location.of(f"memory://matching/{name}").write_bytes(b"content")
        >>> [(file.name, info["size"]) for file, info in Location.of("memory://matching/*-1").matching().items()]
        [('a-1', 7), ('b-1', 7)]
        """
        fs = self.fresh_fs
        try:
            with self._errors("list"):
                found = fs.glob(self.path, detail=True)
        except FileNotFoundError:  # no such bucket
            return {}
        return {self._with_fs_path(path): found[path] for path in sorted(found)}

    def _with_fs_path(self, path: str) -> Location:
        """Return the location of a path in the form that the filesystem uses."""
        if self._link[1]:
            scheme = self._link[0].partition("://")[0]
            return self._with_path(f"{scheme}://{path.lstrip('/')}")
        return Location(self.fs.unstrip_protocol(path), self.storage_options)

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
                return read_version(self, start, end)
            if start == 0 and end is None:  # an empty object has no range
                return bytes(self.fs.cat_file(self.path))
            if self.is_local and end is not None:
                return _read_part(self.path, start, end)
            return read_range(self, start, end)

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
        with self._errors("create" if exclusive else "write"):
            self.make_parent()
            write_file(self.path, data, exclusive=exclusive, durable=durable)

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
            else:
                move_file(self.fs, self.path, target.path)

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
            if self.is_local or (self.bucket is None and not has_wildcard(self.path)):
                fs.rm(self.path, recursive=recursive)
            elif not recursive:
                fs.rm_file(self.path)
            elif self.bucket is None:
                remove_tree(fs, self.path)
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
            remove_objects(self.fs, paths)
            # Some filesystems ignore the errors of such requests.
            left = set(paths).intersection(self.fresh_fs.find(self.path)) if len(paths) > 1 else ()
            for path in sorted(left):
                self.fs.rm_file(path)  # raises the error

    def clear(self) -> None:
        """Delete the folder with its contents, even while other processes finish writing to it."""
        deadline = time.monotonic() + 10
        quiet = failures = 0
        while quiet < 3 and time.monotonic() < deadline:
            try:
                quiet += 1
                if self.exists():
                    quiet = 0
                    self.remove(recursive=True)
                failures = 0
            except Exception:  # the caller is about to raise a more important error
                failures += 1
                # A folder cannot be deleted while files are added to it; a bucket refuses for other reasons.
                if failures == 3 and self.bucket is not None:
                    return
            time.sleep(0.05)

    def make_parent(self) -> None:
        """Create the parent folder, unless it is in an object store."""
        if self.is_local:
            os.makedirs(self.parent.path, exist_ok=True)
        elif self.bucket is None and not self.fs.exists(self.parent.path):
            with suppress(Exception):  # a store without folders may raise an error
                self.fs.makedirs(self.parent.path, exist_ok=True)


def _read_part(path: str, start: int, end: int) -> bytes:
    """Read a part of a local file with as few copies and calls as possible; fsspec buffers it."""
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        data = file.read(max(0, end - start))
        while len(data) < end - start and (more := file.read(end - start - len(data))):
            data += more  # a single call reads at most 2 GiB
    return data
