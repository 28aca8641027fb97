"""Measurements of time and memory."""

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
    """A measurement and its goal.

    Parameters
    ----------
    name : str
        What was measured.
    baseline : str
        What it is compared with.
    value : float
        The result, in `unit`.
    unit : str
        Unit of `value` and `goal`.
    goal : float
        The expected minimum or maximum of `value`.
    higher_is_better : bool
        Whether `goal` is a minimum.
    note : str
        The absolute figures.
    """

    name: str
    baseline: str
    value: float
    unit: str
    goal: float
    higher_is_better: bool
    note: str

    @property
    def passed(self) -> bool:
        return self.value >= self.goal if self.higher_is_better else self.value <= self.goal


def best_times(functions: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """Return the shortest of several runs of each function. The functions alternate, to share any load."""
    times: dict[str, float] = dict.fromkeys(functions, float("inf"))
    for _ in range(repeat):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def peak_memory() -> int:
    """Return the peak memory of this process in bytes.

    On Linux it is read from ``/proc``, because ``getrusage`` starts with the memory of the parent process.
    """
    try:
        [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
