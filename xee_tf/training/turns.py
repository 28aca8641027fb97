"""Requests that share a limited memory, served in the order in which they were made."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

__all__ = ["Turn", "Turns"]


class Turns:
    """The turns of requests, of which those served at a time use only a few windows.

    Parameters
    ----------
    most : int
        The number of different windows that can be used at a time. A request that needs more is served alone.

    Examples
    --------
    >>> turns = Turns(2)
    >>> with Turn(turns, ["a"]) as first, Turn(turns, ["a", "b"]) as second:
    ...     first.wait()
    ...     second.wait()
    ...     turns.used
    ['a', 'b']
    >>> turns.used
    []
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._waiting: list[Turn] = []
        self._counts: Counter[Hashable] = Counter()  # of the requests that use each window

    @property
    def used(self) -> list[Any]:
        """The windows that are used, in the order of their first requests."""
        with self._changed:
            return list(self._counts)

    def begin(self, turn: Turn) -> None:
        """Add a request after all others."""
        with self._changed:
            self._waiting.append(turn)
            self._serve()

    def wait(self, turn: Turn) -> None:
        """Wait until a request is served."""
        with self._changed:
            self._changed.wait_for(lambda: turn not in self._waiting)

    def end(self, turn: Turn) -> None:
        """Remove a request, served or not."""
        with self._changed:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._counts.subtract(turn.windows)
                self._counts = +self._counts  # without windows that are not used
            self._serve()

    def _serve(self) -> None:
        """Serve the next requests if their windows and those in use are few enough."""
        while self._waiting:
            windows = set(self._waiting[0].windows)
            if self._counts and len(self._counts.keys() | windows) > self._most:
                break
            self._counts.update(self._waiting.pop(0).windows)
        self._changed.notify_all()


class Turn:
    """The turn of a request: a context that begins where the order of requests is decided.

    A request that is served does not wait for another one. The first of those that wait is therefore served
    in the end.

    Parameters
    ----------
    turns : Turns
        The turns of all requests.
    windows : iterable of hashable
        The windows that the request uses, each once.
    """

    def __init__(self, turns: Turns, windows: Iterable[Hashable]) -> None:
        self._turns, self.windows = turns, tuple(windows)

    def __enter__(self) -> Turn:
        self._turns.begin(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self._turns.end(self)

    def wait(self) -> None:
        """Wait until the request is served."""
        self._turns.wait(self)
