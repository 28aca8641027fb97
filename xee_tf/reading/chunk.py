"""Chunks of all bands, whose records are read by the threads that need one of the bands."""

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
from xee_tf.reading.patches import Target, fill_patches, fill_window, patches_in_window

__all__ = ["BandChunk"]

Box = tuple[tuple[int, int], ...]
"""Half-open ranges (begin, end) along (y, x), along (patch, y, x) if margins are kept, or along the extra
dimensions of a band."""

Index = int | slice | Sequence[int] | npt.NDArray[Any]

_PART_BYTES = 2 << 20  # approximate size of the records that a thread reads at a time


def _split_index(key: Index, length: int) -> tuple[tuple[int, int], Index]:
    """Split an index along one axis into the range that it needs and the index into that range.

    Examples
    --------
    >>> _split_index(slice(8, 1, -2), 10), _split_index(-1, 10)
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
    """An array of bands, indexed as ``[band, ..., y, x]``, whose records are read when it is indexed.

    Dask's `getter` uses it as a chunk and passes the user's slices of the chunk in the index, so that only
    the necessary records are read. All bands of one box are read together: the first thread that indexes a
    band starts to read, threads that index other bands help, and each thread removes the result for its band.
    Some of the steps of a band are read separately.

    Parameters
    ----------
    export : OpenedExport
        The export.
    box : Box
        The range of pixels.
    together : bool, default True
        Whether to read all bands when one band is indexed.
    """

    ndim = 3
    """Minimum number of axes; Dask's `getter` requires this attribute."""

    def __init__(self, export: OpenedExport, box: Box, *, together: bool = True) -> None:
        self.export = export
        self.box = box
        self.together = together
        self.shape = (len(export.bands), *(end - begin for begin, end in box))
        self._jobs: dict[Box, tuple[_Job, set[str]]] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process is used for one band.
        return partial(BandChunk, together=False), (self.export, self.box)

    def __getitem__(self, key: tuple[Index, ...]) -> npt.NDArray[Any]:
        band = self.export.bands[operator.index(key[0])]  # type: ignore[arg-type]
        front = len(self.box) - 2  # 1 for the patch axis if margins are kept, else 0
        whole = (*self.box[:front], *((0, length) for length in band.shape), *self.box[front:])
        parts = [_split_index(index, end - begin) for index, (begin, end) in zip(key[1:], whole, strict=True)]
        ranges = tuple(
            (begin + first, begin + last) for (begin, _), ((first, last), _) in zip(whole, parts, strict=True)
        )
        steps = ranges[front:-2]
        box = (*ranges[:front], *ranges[-2:])
        values = self._read(band.name, steps, box, all_steps=steps == whole[front:-2])
        # One axis at a time, last axis first: lists form an outer product.
        for axis in reversed(range(len(parts))):
            values = values[(slice(None),) * axis + (parts[axis][1],)]
        return values

    def _read(self, name: str, steps: Box, box: Box, *, all_steps: bool) -> npt.NDArray[Any]:
        if not (all_steps and self.together):
            return _Job(self.export, {name: steps}, box).take(name)
        with self._lock:
            if box not in self._jobs:
                every = {band.name: tuple((0, length) for length in band.shape) for band in self.export.bands}
                self._jobs[box] = _Job(self.export, every, box), set(every)
            job, remaining = self._jobs[box]
            if name not in remaining:  # the band was already taken
                job = _Job(self.export, {name: steps}, box)
            remaining.discard(name)
            if not remaining:
                del self._jobs[box]
        return job.take(name)


class _Job:
    """Reads a box and the given steps of each band, with any number of threads."""

    def __init__(self, export: OpenedExport, steps: Mapping[str, Box], box: Box) -> None:
        self._export = export
        self._box = box
        self._out: dict[str, npt.NDArray[Any]] = {}
        self._targets: list[Target] = []  # arrays are removed from `_out` by `take`
        front = len(box) - 2
        empty = any(begin == end for begin, end in box)
        for name, ranges in steps.items():
            lengths = [end - begin for begin, end in (*box[:front], *ranges, *box[front:])]
            self._out[name] = _output_array(export, name, lengths)
            if 0 not in lengths:
                array, masked = self._out[name], export.masked.get(name)
                self._targets.append(Target.from_band(export.band(name), ranges, array, front, masked))
        self._parts = deque(() if empty or not self._targets else _split_box(export, box))
        self._remaining = len(self._parts)
        self._lock = Lock()
        self._done = Event()
        self._error: BaseException | None = None
        if not self._remaining:
            self._done.set()

    def take(self, name: str) -> npt.NDArray[Any]:
        """Read parts until none remain, wait for other threads, then remove and return the band's pixels."""
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
                    self._remaining -= 1
                    if not self._remaining:
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


def _output_array(export: OpenedExport, name: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """Return an array for the pixels of a band, masked if patches were dropped."""
    dtype = export.dtypes[name]
    if export.patches is None:
        return np.empty(shape, dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else export.band(name).default or 0, dtype)


def _split_box(export: OpenedExport, box: Box) -> Iterator[tuple[int, int]]:
    """Yield short ranges of patches to read."""
    runs = [box[0]] if len(box) == 3 else patches_in_window(export.grid, Window(*box[-2], *box[-1]))
    step = max(1, _PART_BYTES // (export.record_bytes * export.records_per_patch))
    for start, stop in runs:
        for first in range(start, stop, step):
            yield first, min(first + step, stop)
