"""Show how much of a computation is done: a bar in a terminal, and a few lines in the log of a job."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from dask.callbacks import Callback

__all__ = ["Meter", "ProgressCallback", "show_cluster_progress"]

_WIDTH = 30  # characters of the bar
_TICK = 0.2  # seconds between two states of the bar
_LOG_FIRST = 2.0  # seconds before the first line of a log, and between two lines
_LOG_SILENCE = 30.0  # seconds after which there is a line in any case
_LOG_SHARE = 10  # per cent between two lines


class Meter:
    """Show a proportion on standard error, or in a notebook on standard output.

    A terminal gets a bar that moves. Other files get a line for every 10 %, but none in the first two
    seconds, and one after 30 seconds without a line.

    Parameters
    ----------
    stream : file, optional
        Where to show it.
    clock : callable, optional
        The time in seconds.

    Examples
    --------
    >>> import io
    >>> times = iter([0, 1, 60, 120])
    >>> log = io.StringIO()
    >>> meter = Meter(log, lambda: next(times))
    >>> meter.show(1, 8), meter.show(4, 8), meter.close(8, 8)
    (None, None, None)
    >>> print(log.getvalue(), end="")
    50 % done in 1:00, about 1:00 left
    100 % done in 2:00
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        in_notebook = "ipykernel" in sys.modules
        self._stream = stream or (sys.stdout if in_notebook else sys.stderr)
        self._moves = in_notebook or self._stream.isatty()
        self._clock, self._began = clock, clock()
        self._last, self._percent, self._shown = self._began, 0, False

    def show(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        now = self._clock()
        percent = 100 * done // max(1, total)
        if self._moves:
            if not self._shown or now - self._last >= _TICK:
                self._draw(percent, now, "\r")
        elif now - self._last >= _LOG_FIRST and (
            percent // _LOG_SHARE > self._percent // _LOG_SHARE or now - self._last >= _LOG_SILENCE
        ):
            self._draw(percent, now, "")

    def close(self, done: int, total: int) -> None:
        """Show the last state, unless the log has no line yet, and leave the line of the bar."""
        if self._shown:
            percent = 100 * done // max(1, total)
            if self._moves or percent > self._percent:
                self._draw(percent, self._clock(), "\r" if self._moves else "")
            if self._moves:
                self._write("\n")

    def _draw(self, percent: int, now: float, start: str) -> None:
        self._last, self._percent, self._shown = now, percent, True
        elapsed = now - self._began
        text = f"{percent} % done in {_clock_text(elapsed)}"
        if 0 < percent < 100:
            text += f", about {_clock_text(elapsed * (100 - percent) / percent)} left"
        if self._moves:
            filled = _WIDTH * percent // 100
            self._write(f"{start}[{'#' * filled}{' ' * (_WIDTH - filled)}] {text:<40}")
        else:
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed terminal must not end the computation
            self._moves = self._shown = False


class ProgressCallback(Callback):  # type: ignore[misc]
    """Show the progress of Dask's local schedulers with a `Meter`."""

    def __init__(self) -> None:
        super().__init__()
        self._done = self._total = 0
        self._stopped = threading.Event()

    def _start_state(self, _: Any, state: Any) -> None:
        self._done = len(state["finished"])
        self._total = self._done + sum(len(state[name]) for name in ("ready", "waiting", "running"))
        self._thread = threading.Thread(target=self._run, name="xee-tf-progress", daemon=True)
        self._thread.start()

    def _posttask(self, *_: Any) -> None:
        self._done += 1

    def _finish(self, *_: Any) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        meter = Meter()
        while not self._stopped.wait(_TICK):
            meter.show(self._done, self._total)
        meter.close(self._done, self._total)


def show_cluster_progress(future: Any) -> None:
    """Show the progress of a Future, and return when it is finished."""
    if "ipykernel" in sys.modules:
        from distributed import progress

        progress(future)
        return
    from distributed.diagnostics.progressbar import TextProgressBar

    meter, last = Meter(), (0, 1)

    class Bar(TextProgressBar):  # type: ignore[misc]
        def _draw_bar(self, remaining: int, all: int, **_: Any) -> None:
            nonlocal last
            last = all - remaining, all
            meter.show(*last)

        def _draw_stop(self, **_: Any) -> None:
            pass

    try:
        Bar([future])
    finally:
        meter.close(*last)


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
