"""A chunk of all bands, read together by the threads that need one of them, as far as they need it."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from threading import Event, Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.geometry import Window
from xee_tf.reading.opened import OpenedExport
from xee_tf.reading.patches import Target, fill_patches, fill_window, window_records

__all__ = ["BandChunk", "Box", "Index", "bounds_of"]

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


class BandChunk:
    """An array of bands, indexed ``[band, ..., y, x]``, whose records are read when it is indexed.

    Dask's `getter` takes it as a chunk, with the slices that a user takes of the chunk in the index, so that
    only the records behind them are read. All bands of one box are read together: the first thread that
    indexes it starts, the threads that index the other bands help, and each takes its band away. A part of
    the steps of a band is read by itself; `together` is whether all bands are read when one is indexed.
    """

    ndim = 3
    """Least number of axes; Dask's `getter` asks whether there are any."""

    def __init__(self, export: OpenedExport, box: Box, *, together: bool = True) -> None:
        self.export = export
        self.box = box
        self.together = together
        self.shape = (len(export.bands), *(end - begin for begin, end in box))
        self._jobs: dict[Box, tuple[_Job, set[str]]] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process is there for one band.
        return partial(BandChunk, together=False), (self.export, self.box)

    def __getitem__(self, key: tuple[Index, ...]) -> npt.NDArray[Any]:
        band = self.export.bands[operator.index(key[0])]  # type: ignore[arg-type]
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
        if not (complete and self.together):
            return _Job(self.export, {name: steps}, box).take(name)
        with self._lock:
            if box not in self._jobs:
                every = {band.name: tuple((0, length) for length in band.shape) for band in self.export.bands}
                self._jobs[box] = _Job(self.export, every, box), set(every)
            job, left = self._jobs[box]
            if name not in left:  # taken before
                job = _Job(self.export, {name: steps}, box)
            left.discard(name)
            if not left:
                del self._jobs[box]
        return job.take(name)


class _Job:
    """Reads a box, for each band some of its steps, by as many threads as help."""

    def __init__(self, export: OpenedExport, steps: Mapping[str, Box], box: Box) -> None:
        self._export = export
        self._box = box
        self._out: dict[str, npt.NDArray[Any]] = {}
        self._targets: list[Target] = []  # `_out` loses the arrays that were taken away
        front = len(box) - 2
        empty = any(begin == end for begin, end in box)
        for name, wanted in steps.items():
            lengths = [end - begin for begin, end in (*box[:front], *wanted, *box[front:])]
            self._out[name] = _empty(export, name, lengths)
            if 0 not in lengths:
                self._targets.append(
                    Target.of(export.band(name), wanted, self._out[name], front, export.masked.get(name))
                )
        self._parts = deque(() if empty or not self._targets else _parts(export, box))
        self._left = len(self._parts)
        self._lock = Lock()
        self._done = Event()
        self._error: BaseException | None = None
        if not self._left:
            self._done.set()

    def take(self, name: str) -> npt.NDArray[Any]:
        """The pixels of a band, once; this thread reads parts until none is left, and waits for others."""
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
        return self._out.pop(name)

    def _read(self, start: int, stop: int) -> None:
        window = Window(*self._box[-2], *self._box[-1])
        if len(self._box) == 3:
            fill_patches(self._export, self._targets, window, self._box[0][0], start, stop)
        else:
            fill_window(self._export, self._targets, window, start, stop)


def _empty(export: OpenedExport, name: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """An array that records fill; where patches were dropped it holds what is masked."""
    dtype = export.dtypes[name]
    if export.patches is None:
        return np.empty(shape, dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else export.band(name).default or 0, dtype)


def _parts(export: OpenedExport, box: Box) -> Iterator[tuple[int, int]]:
    """Runs of patches to read, none of them long."""
    runs = [box[0]] if len(box) == 3 else window_records(export.grid, Window(*box[-2], *box[-1]))
    step = max(1, _PART_BYTES // (export.record_bytes * export.per_patch))
    for start, stop in runs:
        for first in range(start, stop, step):
            yield first, min(first + step, stop)
