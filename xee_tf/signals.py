"""SIGTERM, which batch systems send before they kill a process, interrupts like Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

__all__ = [
    "NOTHING_CHANGED",
    "Terminated",
    "announce_stop",
    "explain_interruption",
    "if_interrupted",
    "interruptible",
    "print_line",
    "sigterm_raises",
    "speaking",
]

NOTHING_CHANGED = "Temporary files were deleted, and nothing else was changed. Run it again."
"""What to say about an interrupted run that was cleaned up."""

_TOGETHER = 1.0  # seconds
_NOTHING_KEPT = "Nothing is kept: run it again to begin anew."

_outlook: ContextVar[Callable[[], str] | None] = ContextVar("outlook", default=None)
_say: ContextVar[Callable[[str], object] | None] = ContextVar("say", default=None)


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""


@contextmanager
def sigterm_raises() -> Iterator[list[int]]:
    """Let SIGTERM raise `Terminated` in the body; a second one ends the process, without cleaning up.

    A second one that follows at once belongs to the first: ``timeout`` and batch systems send the signal to
    the process and to its group. This has no effect outside the main thread, on Windows, and if the program
    handles SIGTERM itself.

    Yields
    ------
    received : list of int
        The signals that were received.
    """
    received: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    if os.name != "posix" or not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield received
        return

    began = 0.0

    def on_signal(number: int, _: object) -> None:
        nonlocal began
        if not received:
            received.append(number)
            began = time.monotonic()
            raise Terminated("The process received SIGTERM.")
        if time.monotonic() - began > _TOGETHER:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, on_signal)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class interruptible(AbstractContextManager[None]):  # noqa: N801 - used like a function
    """Let SIGTERM interrupt the body like Ctrl-C, so that it cleans up; then let it end the process.

    Functions that write files are decorated with it; see `sigterm_raises`. What `explain_interruption` says
    is printed to standard error. A decorated function raises a KeyboardInterrupt without the traceback of the
    package and of Dask, and without earlier exceptions.
    """

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a function."""

        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                with _interruptible():
                    return function(*args, **kwargs)
            except KeyboardInterrupt as error:
                raise error.with_traceback(None) from None

        return call

    def __enter__(self) -> None:
        self._inside = _interruptible()
        self._inside.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        return self._inside.__exit__(*error)


@contextmanager
def if_interrupted(outlook: Callable[[], str]) -> Iterator[None]:
    """Say what will be kept, and how to go on, if a computation in the body is interrupted.

    `outlook` returns this; an empty text if nothing is kept. Inside another `if_interrupted`, this has no
    effect: the caller knows more about what is kept.
    """
    token = _outlook.set(_outlook.get() or outlook)
    try:
        yield
    finally:
        _outlook.reset(token)


@contextmanager
def speaking(say: Callable[[str], object]) -> Iterator[None]:
    """Let `announce_stop` call a function in place of printing to standard error."""
    token = _say.set(say)
    try:
        yield
    finally:
        _say.reset(token)


def announce_stop(error: BaseException) -> None:
    """Say at once what becomes of an interrupted computation that waits for the tasks that are running.

    What is said at the end, when it is known what was kept, repeats how to go on: it is the last line, and
    this one may be far above it, or the last one if the process is killed while it waits.
    """
    if not isinstance(error, KeyboardInterrupt):
        return
    expected = _outlook.get()
    outlook = (expected() if expected else "") or _NOTHING_KEPT
    if getattr(sys.stderr, "isatty", bool)():
        print_line("")  # after the ^C of the terminal
    say = _say.get() or print_line
    say(f"Interrupted: stopping as soon as the tasks that are running have ended. {outlook}")


@contextmanager
def _interruptible() -> Iterator[None]:
    with sigterm_raises() as received:
        try:
            yield
        except Terminated as error:
            if received:  # else this is inside another `sigterm_raises`, which ends the process
                print_line(" ".join(["Terminated.", *getattr(error, "__notes__", ["Run it again."])]))
            raise
        finally:
            if received:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.raise_signal(signal.SIGTERM)


def explain_interruption(error: BaseException, advice: str, *, instead: bool = False) -> None:
    """Add a sentence to the message of an interruption, unless it has one; other errors do not change.

    With `instead`, replace what it says: the caller has kept more than the function that was interrupted.

    Examples
    --------
    >>> error = Terminated()
    >>> explain_interruption(error, "Run it again.")
    >>> error.__notes__
    ['Run it again.']
    """
    if not isinstance(error, KeyboardInterrupt):
        return
    if instead:
        error.__notes__ = []
    if not getattr(error, "__notes__", []):
        error.add_note(advice)


def print_line(line: str) -> None:
    """Print a line to standard error, if somebody can read it."""
    with suppress(OSError, ValueError):  # standard error may be closed
        sys.stdout.flush()
        print(line, file=sys.stderr, flush=True)
