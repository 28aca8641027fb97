"""A temporary file of rows of the same size, which tasks write in any order and others read in order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.storage.failures import storage_errors
from xee_tf.storage.runs import Earlier
from xee_tf.storage.staging import Staging

__all__ = ["RowFile"]

_BINARY = getattr(os, "O_BINARY", 0)  # on Windows
_LEFT = "The files that exist were not changed."


@dataclass(frozen=True)
class RowFile:
    """A file of rows of numbers in the staging folder of a run on a local disk; small and picklable.

    Rows that were not written are zeros. The file is deleted with the folder.

    Parameters
    ----------
    staging : Staging
        The run.
    earlier : Earlier or None
        The files of an earlier result at the destination; None if it is not in the folder of the run.
    name : str
        Name of the file.
    width : int
        Number of values in a row, as float32.

    Examples
    --------
    >>> import tempfile
    >>> from xee_tf.storage.location import Location
    >>> file = RowFile(Staging.begin(Location(tempfile.mkdtemp() + "/table")), None, "rows", 2)
    >>> file.write(np.array([0, 3]), np.array([[1, 2], [7, 8]], np.float32))
    >>> file.read(2, 5).tolist()
    [[0.0, 0.0], [7.0, 8.0], [0.0, 0.0]]
    """

    staging: Staging
    earlier: Earlier | None
    name: str
    width: int

    @property
    def path(self) -> str:
        """Path of the file."""
        return self.staging.folder.child(self.name).path

    def write(self, numbers: npt.NDArray[np.int64], rows: npt.NDArray[np.float32]) -> None:
        """Write rows to their ascending numbers; consecutive ones are written together."""
        self.staging.sign()
        if self.earlier is not None:
            self.earlier.start(self.staging)
        data = np.ascontiguousarray(rows, np.float32).view(np.uint8).reshape(-1).data
        size = 4 * self.width
        begins = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        places, ends = numbers[begins].tolist(), [*begins[1:].tolist(), len(numbers)]
        with storage_errors("write", self.staging.destination.url, local=True, left=_LEFT):
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
            except FileNotFoundError:  # the folder existed when the task started
                raise self.staging.removed_error() from None
            try:
                for place, begin, end in zip(places, begins.tolist(), ends, strict=True):
                    os.lseek(file, place * size, os.SEEK_SET)
                    view = data[begin * size : end * size]
                    while view:
                        view = view[os.write(file, view) :]
            finally:
                os.close(file)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows ``start`` to ``stop - 1``."""
        rows = np.zeros((stop - start, self.width), np.float32)
        view = rows.view(np.uint8).reshape(-1).data
        with storage_errors("read", self.path, local=True), open(self.path, "rb", buffering=0) as file:
            file.seek(4 * self.width * start)
            while view and (size := file.readinto(view)):  # the file may end with rows of zeros
                view = view[size:]
        return rows
