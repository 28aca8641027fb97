"""The file or folder of a model in any store: its version, its content, and a local copy to load it from."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from xee_tf.errors import MissingModelError, MissingShardError, ModelError, StorageError
from xee_tf.identity import UnknownContentError, listed_state
from xee_tf.storage import Location, PathLike, bucket_exists, storage_errors

__all__ = ["ModelFiles", "missing_error", "model_errors"]

_NOT_IN_NAMES = re.compile(r'[/\\:*?"<>|]')  # characters that some file system refuses


@dataclass(frozen=True)
class ModelFiles:
    """The file or folder of a model.

    Parameters
    ----------
    location : Location
        Where it is.
    state : tuple, optional
        For a URL, what identifies the version that is used, such as the ETag of each file; another version is
        then an error. Default: whatever is there when the model is opened.

    Examples
    --------
    >>> file = ModelFiles.of("memory://models/a.keras")
    >>> file.location.write_bytes(b"first")
    >>> first = file.pinned()
    >>> with first.local_copy() as path:
    ...     os.path.basename(path)
    'a.keras'
    >>> file.location.write_bytes(b"second")
    >>> with first.local_copy() as path:
    ...     pass
    Traceback (most recent call last):
    ...
    xee_tf.errors.ModelError: memory://models/a.keras was replaced after the prediction had been created: \
create the prediction again.
    """

    location: Location
    state: tuple[tuple[str, ...], ...] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, path: PathLike, storage_options: Mapping[str, Any] | None = None) -> ModelFiles:
        """Create it from a path, which may be relative, or a URL."""
        return cls(Location.of(path, storage_options))

    def __str__(self) -> str:
        return self.location.url

    def pinned(self) -> ModelFiles:
        """Return the version that exists now, which other processes compare with what they find.

        Local files are not pinned: the times of copies on several machines may differ.
        """
        if self.location.is_local or self.state is not None:
            return self
        return replace(self, state=self._current_state())

    def unpinned(self) -> ModelFiles:
        """Return whatever version is there; see `pinned`."""
        return self if self.state is None else replace(self, state=None)

    def version(self, names: Collection[str] = ("",)) -> Hashable:
        """Return a value that changes when the model is replaced.

        Of a local folder, these are the times of the files `names`; of a URL, the state of all files.
        """
        if self.location.is_local:
            path = self.location.path
            return tuple(_modified_time(os.path.join(path, name) if name else path) for name in names)
        return self._current_state() if self.state is None else self.state

    def digest(self, ignored: Collection[str] = ()) -> str:
        """Return a hash of the names and contents of the files, except some names in a folder."""
        found = hashlib.sha256()
        with model_errors(self.location):
            for path, name in self.paths().items():
                if name not in ignored:
                    found.update(f"{name}\0".encode())
                    with self.location.fs.open(path, "rb") as file:
                        found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()

    def paths(self) -> dict[str, str]:
        """Return the paths of all files, in the form that the filesystem uses, each with its name inside.

        The name of a single file is empty.

        Raises
        ------
        ModelError
            If it is a SavedModel on a web server that does not list its files.
        """
        root = self.location.path
        try:
            with model_errors(self.location):
                found = self.location.fresh_fs.find(root)
        except (MissingModelError, StorageError):
            self._require_listing({})
            raise
        except ValueError as error:  # of a URL without a bucket
            raise ModelError(f"The files of {self} cannot be listed: {error}. Correct the URL.") from error
        paths = {path: path[len(root) :].strip("/") for path in sorted(found)} or {root: ""}
        self._require_listing(paths)
        return paths

    def _require_listing(self, paths: Mapping[str, str]) -> None:
        """Raise an error if a web server has a SavedModel whose files it does not list."""
        if not self.location.is_web or "?" in self.location.url or any(paths.values()):
            return
        if self.location.child("saved_model.pb").exists():
            raise ModelError(
                f"{self} is a SavedModel, but its web server does not list the files of folders: use a "
                "server that does, a bucket, or a single .keras file."
            )

    @contextmanager
    def local_copy(self, paths: Mapping[str, str] | None = None) -> Iterator[str]:
        """Provide a local path: its own, or that of a copy with the same name in a private temporary folder.

        Parameters
        ----------
        paths : mapping of str to str, optional
            The files to copy, in the form of `paths`. Default: all.

        Raises
        ------
        MissingModelError
            If it does not exist.
        ModelError
            If it is not the version that is used, or a file would be outside the folder.
        StorageError
            If it cannot be read.
        """
        if self.location.is_local:
            yield self.location.path
            return
        with tempfile.TemporaryDirectory(prefix="xee-tf-") as folder:
            # With the name of the folder above: that of the model, if its own name is a version.
            copy = os.path.join(folder, _safe_name(self.location.parent), _safe_name(self.location))
            chosen = _without_markers(self.paths() if paths is None else paths)
            targets = [os.path.join(copy, *name.split("/")) if name else copy for name in chosen.values()]
            for name, target in zip(chosen.values(), targets, strict=True):
                if name and not _is_inside(copy, target):
                    raise ModelError(f"{self} has a file {name!r}, whose copy would be outside the folder.")
            with model_errors(self.location):
                for target in targets:
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                self.location.fs.get(list(chosen), targets)
            # Not before: the files may be replaced while they are copied.
            if self.state is not None and self._current_state() != self.state:
                raise ModelError(
                    f"{self} was replaced after the prediction had been created: create the prediction again."
                )
            try:
                yield copy
            except ModelError as error:  # of TensorFlow or Keras, which know only the copy
                if copy not in str(error):
                    raise
                raise type(error)(str(error).replace(copy, str(self))) from error.__cause__

    def _current_state(self) -> tuple[tuple[str, ...], ...]:
        location = self.location
        paths = self.paths() if location.is_web else [location.path]  # listings of web servers have no times
        with model_errors(location):
            try:
                return tuple(each for path in paths for each in listed_state(location.fresh_fs, path))
            except UnknownContentError:
                pass
        return (("sha256", self.digest()),)


@contextmanager
def model_errors(location: Location) -> Iterator[None]:
    """Convert errors of a disk or store to `StorageError` or `MissingModelError`; see `storage_errors`."""
    try:
        with storage_errors("read", location.url, local=location.is_local):
            yield
    except MissingShardError as error:
        raise MissingModelError(str(error)) from error


def missing_error(location: Location, what: str) -> MissingModelError:
    """Create the error for a path that does not exist; `what` is what was expected there."""
    reason = "the path does not exist"
    if not bucket_exists(location):
        reason = f"the bucket {location.bucket!r} does not exist; correct its name"
    return MissingModelError(f"There is no {what} at {location}: {reason}.")


def _modified_time(file: str) -> int | None:
    """Return the modification time of a file in nanoseconds, or None if it does not exist."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return None


def _safe_name(location: Location) -> str:
    """Return the last component of a path, as the name of a local file or folder."""
    name = _NOT_IN_NAMES.sub("_", location.file_name)
    return "model" if name in ("", ".", "..") else name


def _without_markers(paths: Mapping[str, str]) -> dict[str, str]:
    """Omit objects that some programs create for folders: their names are those of folders of others."""
    folders = {str(folder) for name in paths.values() for folder in PurePosixPath(name).parents}
    return {path: name for path, name in paths.items() if name not in folders}


def _is_inside(folder: str, path: str) -> bool:
    """Return whether a path is in a folder; on Windows, names may have drives and backslashes."""
    folder, path = os.path.realpath(folder), os.path.realpath(path)
    try:
        return path != folder and os.path.commonpath([folder, path]) == folder
    except ValueError:  # on another drive
        return False
