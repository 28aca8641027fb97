"""Show how much of a computation is done: a bar in a terminal, and a few lines in the log of a job."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

from dask.callbacks import Callback

from xee_tf.display import counted

__all__ = ["Counted", "Meter", "Progress", "ProgressCallback", "show_cluster_progress"]

_WIDTH = 30  # characters of the bar, if there is room for it
_TICK = 0.2  # seconds between two states of the bar
_CLUSTER_TICK = 0.5  # seconds between two questions to a scheduler
_LOG_FIRST = 2.0  # seconds before the first line of a log, and between two lines
_LOG_SILENCE = 30.0  # seconds after which there is a line in any case
_LOG_SHARE = 10  # per cent between two lines


@dataclass(frozen=True)
class Counted:
    """What the progress of a graph counts: some of its tasks, which users know under another name.

    Parameters
    ----------
    prefix : str
        How the names of these tasks begin; their keys are tuples of the name and numbers.
    unit : str
        What each of them completes.
    done : str
        The participle that says what was done to it.
    before : int, default 0
        How many an earlier run has completed, so that the graph has no tasks for them.
    """

    prefix: str
    unit: str
    done: str
    before: int = 0


@dataclass(frozen=True)
class Progress:
    """How to show the progress of a graph.

    Parameters
    ----------
    counted : Counted
        What is counted.
    names : collection of str
        The names of the tasks that count.
    total : int
        The number of units, with those of an earlier run.
    """

    counted: Counted
    names: Collection[str]
    total: int

    @classmethod
    def of(cls, graph: Iterable[Any], counted: Counted) -> Progress:
        """Find the tasks of a graph that count."""
        names: set[str] = set()
        total = counted.before
        for key in graph:
            if type(key) is tuple and type(key[0]) is str and key[0].startswith(counted.prefix):
                names.add(key[0])
                total += 1
        return cls(counted, names, total)


class Meter:
    """Show a number of units on standard error, or in a notebook on standard output.

    A terminal and a notebook get a bar that moves. Other files get a line for every 10 %, but none in the
    first two seconds, and one after 30 seconds without a line.

    Parameters
    ----------
    counted : Counted
        What is counted.
    total : int
        The number of units, with those of an earlier run.
    stream : file, optional
        Where to show it.
    clock : callable, optional
        The time in seconds.

    Examples
    --------
    >>> import io
    >>> times = iter([0, 1, 60, 120])
    >>> log = io.StringIO()
    >>> meter = Meter(Counted("write-", "chunk", "predicted"), 8, log, lambda: next(times))
    >>> meter.show(1), meter.show(4), meter.close(8)
    (None, None, None)
    >>> print(log.getvalue(), end="")
    4 of 8 chunks predicted (50 %), 4 per minute, about 1:00 left
    8 of 8 chunks predicted (100 %), 4 per minute, in 2:00
    """

    def __init__(
        self,
        counted: Counted,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        in_notebook = "ipykernel" in sys.modules
        self._counted, self._total = counted, total
        self._stream = stream or (sys.stdout if in_notebook else sys.stderr)
        self._moves = in_notebook or self._stream.isatty()
        self._clock, self._began = clock, clock()
        self._last, self._number, self._shown = self._began, counted.before, False
        self._length = 0  # of the longest text
        self._waiting = False

    def show(self, number: int, *, waiting: bool = False) -> None:
        """Show that a number of units are done, with those of an earlier run; or that no worker is there."""
        now, self._waiting = self._clock(), waiting
        if self._moves:
            if not self._shown or now - self._last >= _TICK:
                self._draw(number, now)
        elif now - self._last >= _LOG_FIRST and (
            self._share(number) // _LOG_SHARE > self._share(self._number) // _LOG_SHARE
            or now - self._last >= _LOG_SILENCE
        ):
            self._draw(number, now)

    def close(self, number: int) -> None:
        """Show the last state, unless the log has no line yet, and leave the line of the bar."""
        if self._moves:
            self._draw(number, self._clock())
            self._write("\n")
        elif self._shown and number > self._number:
            self._draw(number, self._clock())

    def _share(self, number: int) -> int:
        return 100 * number // max(1, self._total)

    def _draw(self, number: int, now: float) -> None:
        self._last, self._number, self._shown = now, number, True
        texts = self._texts(number, now - self._began)
        if not self._moves:
            self._write(f"{texts[0]}\n")
            return
        # A line that is longer than the terminal is wide could not be drawn over.
        room = shutil.get_terminal_size((100, 24)).columns - 1
        text = next((each for each in texts if len(each) <= room), texts[-1])
        self._length = max(self._length, len(text))
        width = min(_WIDTH, room - self._length - 3)
        if width >= _WIDTH // 3:
            filled = width * self._share(number) // 100
            text = f"[{'#' * filled}{' ' * (width - filled)}] {text}"
        self._write("\r" + text.ljust(self._length + width + 3)[:room])

    def _texts(self, number: int, elapsed: float) -> list[str]:
        """Say how many are done, how fast, and how long the rest will take; then this in fewer words."""
        own = number - self._counted.before
        what = f"{counted(self._total, self._counted.unit)} {self._counted.done}"
        share = f"({self._share(number)} %)"
        done = f"{number:,} of {what} {share}"
        rate = [_rate_text(own / elapsed)] if own and elapsed > 0 else []
        time = []
        if number >= self._total:
            time = [f"in {_clock_text(elapsed)}"]
        elif self._waiting:
            rate, time = [], ["waiting for workers"]
        elif own:
            time = [f"about {_clock_text(elapsed * (self._total - number) / own)} left"]
        shorter = [done, *rate, *time], [done, *time], [done], [f"{number:,} of {self._total:,} {share}"]
        return [", ".join(parts) for parts in shorter]

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed terminal must not end the computation
            self._moves = self._shown = False


class ProgressCallback(Callback):  # type: ignore[misc]
    """Show the progress of Dask's local schedulers with a `Meter`."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress, self._names = progress, progress.names
        self._done = progress.counted.before
        self._stopped = threading.Event()

    def _start_state(self, *_: Any) -> None:
        self._thread = threading.Thread(target=self._run, name="xee-tf-progress", daemon=True)
        self._thread.start()

    def _posttask(self, key: Any, *_: Any) -> None:
        if type(key) is tuple and key[0] in self._names:
            self._done += 1

    def _finish(self, *_: Any) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        meter = Meter(self._progress.counted, self._progress.total)
        while not self._stopped.wait(_TICK):
            meter.show(self._done)
        meter.close(self._done)


def show_cluster_progress(client: Any, future: Any, progress: Progress) -> None:
    """Show the progress of a Future, and return when it is finished.

    The scheduler counts the tasks of each name anyway, so that it is only asked for the numbers.
    """
    groups = list(progress.names)  # the scheduler groups tasks by the first part of their keys
    seen: dict[str, int] = {}

    def count(dask_scheduler: Any) -> tuple[dict[str, int], int]:
        found = {}
        for name in groups:
            if (group := dask_scheduler.task_groups.get(name)) is not None:
                # Results that are no longer needed are first released, then forgotten.
                found[name] = sum(group.states[state] for state in ("memory", "released", "forgotten"))
        return found, len(dask_scheduler.workers)

    meter, before = Meter(progress.counted, progress.total), progress.counted.before
    done, workers = before, 1
    try:
        while not _is_finished(future, _CLUSTER_TICK):
            with suppress(Exception):  # the computation does not depend on what is shown
                found, workers = client.run_on_scheduler(count)
                # Groups whose tasks were all forgotten are deleted.
                seen |= {name: number for name, number in found.items() if number > seen.get(name, 0)}
                done = max(done, before + sum(seen.values()))
            meter.show(min(done, progress.total), waiting=not workers)
        if future.status == "finished":
            done = progress.total
    finally:
        meter.close(done)


def _is_finished(future: Any, timeout: float) -> bool:
    """Wait until a Future is finished, or the time is over."""
    from distributed import wait

    try:
        wait(future, timeout=timeout)
    except TimeoutError:
        return False
    return True


def _rate_text(per_second: float) -> str:
    """Format a rate with two digits, as a number that is at least 1 if it is not very small.

    Examples
    --------
    >>> _rate_text(1234.5), _rate_text(1.26), _rate_text(0.5), _rate_text(1 / 1000)
    ('1,200 per second', '1.3 per second', '30 per minute', '3.6 per hour')
    """
    for unit, seconds in (("second", 1), ("minute", 60), ("hour", 3600)):
        if per_second * seconds >= 1 or unit == "hour":
            break
    rate = float(f"{per_second * seconds:.2g}")
    return f"{rate:,.0f} per {unit}" if rate == int(rate) else f"{rate:g} per {unit}"


def _clock_text(seconds: float) -> str:
    """Format a duration.

    Examples
    --------
    >>> _clock_text(62), _clock_text(3661)
    ('1:02', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
