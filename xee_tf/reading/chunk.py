"""A chunk of all bands, read by all threads that want one of them, and no more of it than they want."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Event, Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.geometry import Window
from xee_tf.reading.patches import Target, fill_patches, fill_window, window_records
from xee_tf.reading.reader import ImageReader

__all__ = ["BandChunk", "Box", "Index", "bounds_of", "read_box"]

Box = tuple[tuple[int, int], ...]
"""First pixel, and the one behind the last, along (y, x), or along (patch, y, x) with margins; or the same
of steps along the further dimensions of a band."""

Index = int | slice | Sequence[int] | npt.NDArray[Any]

_PART_BYTES = 2 << 20  # of records, about, that a thread reads at a time


def bounds_of(key: Index, length: int) -> tuple[tuple[int, int], Index]:
    """The stretch that an index along one axis needs, and the index into that stretch.

    Examples
    --------
    >>> bounds_of(slice(8, 1, -2), 10), bounds_of(-1, 10)
    (((2, 9), slice(None, None, -2)), ((9, 10), 0))
    """
    if isinstance(key, slice):
        numbers = range(length)[key]
        if not numbers:
            return (0, 0), slice(0, 0)
        low, high = min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1])
        return (low, high + 1), slice(None, None, numbers.step)
    if isinstance(key, Sequence | np.ndarray):
        chosen = np.asarray(key)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen % max(length, 1)
        if not chosen.size:
            return (0, 0), slice(0, 0)
        return (int(chosen.min()), int(chosen.max()) + 1), chosen - chosen.min()
    start = operator.index(key) % length
    return (start, start + 1), 0


def read_box(reader: ImageReader, steps: Mapping[str, Box], box: Box) -> dict[str, npt.NDArray[Any]]:
    """The pixels of a box, for each band those of some of its steps.

    Parameters
    ----------
    reader : ImageReader
    steps : mapping from band to Box
        Ranges along its further dimensions; none for a scalar band.
    box : Box

    Returns
    -------
    dict of str to ndarray, shape (..., y, x) or (patch, ..., y, x)

    Raises
    ------
    RecordError
        If a record is corrupt.
    """
    job = _Job(reader, steps, box)
    job.help()
    return job.out


class BandChunk:
    """A chunk as Dask's `getter` takes it: an array of bands, indexed ``[band, ..., y, x]``.

    Dask puts the slices that a user takes of a chunk right into that index, so that only the
    records behind them are read. Of one box all bands are read together: who comes first starts, the
    threads that come for the other bands help, and each takes its band away. Who wants but a few steps of
    a band reads those for himself.

    Parameters
    ----------
    reader : ImageReader
    box : Box
        Where the chunk lies.
    """

    ndim = 3
    """Least number of axes; Dask's `getter` asks whether there are any."""

    def __init__(self, reader: ImageReader, box: Box) -> None:
        self.reader = reader
        self.box = box
        self.together = True
        self._start()

    def _start(self) -> None:
        self.shape = (len(self.reader.bands), *(end - begin for begin, end in self.box))
        self._jobs: dict[Box, tuple[_Job, set[str]]] = {}
        self._lock = Lock()

    def __getstate__(self) -> tuple[ImageReader, Box]:
        return self.reader, self.box

    def __setstate__(self, state: tuple[ImageReader, Box]) -> None:
        self.reader, self.box = state
        self.together = False  # a copy in another process is there for one band
        self._start()

    def __getitem__(self, key: tuple[Index, ...]) -> npt.NDArray[Any]:
        band = self.reader.bands[operator.index(key[0])]  # type: ignore[arg-type]
        front = len(self.box) - 2  # the axis of patches, where margins are kept
        whole = (*self.box[:front], *((0, length) for length in band.shape), *self.box[front:])
        parts = [bounds_of(index, end - begin) for index, (begin, end) in zip(key[1:], whole, strict=True)]
        wanted = tuple(
            (begin + first, begin + last) for (begin, _), ((first, last), _) in zip(whole, parts, strict=True)
        )
        steps = wanted[front:-2]
        box = (*wanted[:front], *wanted[-2:])
        found = self._read(band.name, steps, box, steps == whole[front:-2])
        # Axis by axis from the last one on: what lists mean here is an outer product.
        for axis in reversed(range(len(parts))):
            found = found[(slice(None),) * axis + (parts[axis][1],)]
        return found

    def _read(self, name: str, steps: Box, box: Box, complete: bool) -> npt.NDArray[Any]:
        if not complete:
            return read_box(self.reader, {name: steps}, box)[name]
        with self._lock:
            job, left = self._jobs.get(box, (None, set()))
            if job is None or name not in left:
                left = {band.name for band in self.reader.bands} if self.together and job is None else {name}
                bands = [band for band in self.reader.bands if band.name in left]
                every = {band.name: tuple((0, length) for length in band.shape) for band in bands}
                job = _Job(self.reader, every, box)
                if len(left) > 1:
                    self._jobs[box] = job, left
            left.discard(name)
            if not left:
                self._jobs.pop(box, None)
        job.help()
        return job.out.pop(name)


class _Job:
    """Reads a box, by as many threads as care to help."""

    def __init__(self, reader: ImageReader, steps: Mapping[str, Box], box: Box) -> None:
        self.reader = reader
        self.box = box
        self.out: dict[str, npt.NDArray[Any]] = {}
        self._targets: list[Target] = []  # `out` loses those that were taken away
        front = len(box) - 2
        empty = any(begin == end for begin, end in box)
        for name, wanted in steps.items():
            lengths = [end - begin for begin, end in (*box[:front], *wanted, *box[front:])]
            self.out[name] = _empty(reader, name, lengths)
            if 0 not in lengths:
                self._targets.append(
                    Target.of(reader.band(name), wanted, self.out[name], front, reader.masked.get(name))
                )
        self._parts = deque(() if empty or not self._targets else _parts(reader, box))
        self._left = len(self._parts)
        self._lock = Lock()
        self._done = Event()
        self._error: BaseException | None = None
        if not self._left:
            self._done.set()

    def help(self) -> None:
        """Do parts of the work until none is left, and wait for those that others do."""
        while self._parts:
            try:
                part = self._parts.popleft()
            except IndexError:
                break
            try:
                if self._error is None:
                    self._read(*part)
            except BaseException as error:
                self._error = error
            finally:
                with self._lock:
                    self._left -= 1
                    if not self._left:
                        self._targets = []
                        self._done.set()
        self._done.wait()
        if self._error is not None:
            raise self._error

    def _read(self, start: int, stop: int) -> None:
        targets = self._targets
        (top, bottom), (left, right) = self.box[-2:]
        if len(self.box) == 2:
            fill_window(self.reader, targets, Window(top, bottom, left, right), start, stop)
            return
        height, width = self.reader.grid.stored.shape
        if (top, bottom, left, right) == (0, height, 0, width):
            fill_patches(self.reader, targets, self.box[0][0], start, stop)
            return
        for first in range(start, stop):
            whole = [
                replace(target, array=np.empty((1, target.array.shape[1], height, width), target.array.dtype))
                for target in targets
            ]
            for target, full in zip(targets, whole, strict=True):
                if self.reader.patches is not None:  # a patch that was dropped stays as it is
                    full.array[0, :, top:bottom, left:right] = target.array[first - self.box[0][0]]
            fill_patches(self.reader, whole, first, first, first + 1)
            for target, full in zip(targets, whole, strict=True):
                target.array[first - self.box[0][0]] = full.array[0, :, top:bottom, left:right]


def _empty(reader: ImageReader, name: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """An array that records fill; where patches were dropped it holds what is masked."""
    dtype = reader.dtypes[name]
    if reader.patches is None:
        return np.empty(shape, dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else reader.band(name).default or 0, dtype)


def _parts(reader: ImageReader, box: Box) -> Iterator[tuple[int, int]]:
    """Runs of patches to read, none of them long."""
    (top, bottom), (left, right) = box[-2:]
    runs = [box[0]] if len(box) == 3 else window_records(reader.grid, Window(top, bottom, left, right))
    step = max(1, _PART_BYTES // (reader.record_bytes * reader.per_patch))
    for start, stop in runs:
        for first in range(start, stop, step):
            yield first, min(first + step, stop)
