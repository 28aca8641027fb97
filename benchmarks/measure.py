"""What a measurement is, and how times are taken."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    Parameters
    ----------
    what, against : str
        What was measured, and beside what.
    value, goal : float
        The figure and what is wanted of it, in `unit`.
    more : bool
        Whether more is better.
    note : str
        The figures behind it.
    """

    what: str
    against: str
    value: float
    unit: str
    goal: float
    more: bool
    note: str

    @property
    def reached(self) -> bool:
        return self.value >= self.goal if self.more else self.value <= self.goal


def best_times(functions: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """The shortest of several runs of each function, taken in turns so that all see the same machine."""
    times: dict[str, float] = dict.fromkeys(functions, float("inf"))
    for _ in range(repeat):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def peak_memory() -> int:
    """Most bytes that this process has had in memory.

    Linux counts them for the process from its start (``getrusage`` begins with what its parent had).
    """
    try:
        [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
