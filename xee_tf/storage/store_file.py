"""An open file on a disk or in a store: its errors name it, and what is incomplete is discarded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

from xee_tf.storage.failures import storage_errors

__all__ = ["StoreFile"]


class StoreFile:
    """A file on a disk or in a store, whose errors name it.

    If a ``with`` block that writes to an object fails, the incomplete object is discarded.

    Parameters
    ----------
    file : file-like
        The open file.
    action : {"read", "write", "create"}
        What it was opened for.
    url : str
        The path or URL, for messages.
    local : bool
        Whether it is on a local disk.
    """

    def __init__(self, file: Any, action: str, url: str, local: bool) -> None:
        self._file, self._about = file, (action, url, local)

    def _errors(self) -> AbstractContextManager[None]:
        action, url, local = self._about
        return storage_errors(action, url, local=local)

    def write(self, data: Any) -> int:
        """Write bytes."""
        with self._errors():
            return int(self._file.write(data))

    def read(self, size: int = -1) -> bytes:
        """Read bytes."""
        with self._errors():
            return bytes(self._file.read(size))

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer."""
        with self._errors():
            return int(self._file.readinto(buffer))

    def flush(self) -> None:
        """Write what is buffered."""
        with self._errors():
            self._file.flush()

    def close(self) -> None:
        """Close the file; an object appears."""
        with self._errors():
            self._file.close()

    def discard(self) -> None:
        """Close the file without publishing what was written; a local file stays as it is."""
        with suppress(Exception):
            if hasattr(self._file, "discard"):
                self._file.discard()
                self._file.closed = True  # otherwise fsspec publishes it when it is garbage collected
            else:
                self._file.close()

    def __enter__(self) -> StoreFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._about[0] != "read":
            self.discard()
        else:
            self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)
