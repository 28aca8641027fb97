"""What a model on a server costs: requests, bytes and times, counted in each process and added up."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from xee_tf.remote.responses import Response

__all__ = ["PredictionStats", "Recorder", "recorder_of", "stats_everywhere"]

_GROWTH = math.log(1.05)  # times are told to 5 %, so that those of all workers can be put together


@dataclass(frozen=True)
class PredictionStats:
    """What was asked of a server so far.

    Parameters
    ----------
    requests : int
        Attempts, repeated ones included.
    answered : int
        Requests that came back with predictions.
    instances : int
        Tiles or rows in these.
    retries : int
        Attempts after the first one.
    throttled : int
        Attempts that the server put off (429).
    failures : int
        Requests that were given up.
    bytes_sent, bytes_received : int
        Of bodies; those of repeated requests count each time.
    seconds : float
        Of all attempts together; several run at one time.
    latencies : mapping from int to int
        How many answers took how long, in classes of 5 %; `latency` reads it.

    Examples
    --------
    >>> recorder = Recorder()
    >>> recorder.sent(1000, Response(429, "HTTP 429", seconds=0.1), again=False)
    >>> recorder.sent(1000, Response(200, "HTTP 200", b"{}", seconds=0.2), again=True)
    >>> recorder.finished(instances=4)
    >>> recorder.stats()
    <xee_tf.PredictionStats 4 instances in 1 request, 1 retry (1 throttled), 0 failures>
      sent       2,000 bytes
      received   2 bytes
      latency    0.20 s (median), 0.20 s (90 %), 0.20 s (99 %)
    """

    requests: int = 0
    answered: int = 0
    instances: int = 0
    retries: int = 0
    throttled: int = 0
    failures: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    seconds: float = 0.0
    latencies: Mapping[int, int] = field(default_factory=dict)

    def latency(self, quantile: float) -> float:
        """Seconds within which a share of the answers came, to 5 %; NaN if there are none.

        Parameters
        ----------
        quantile : float
            0.5 for the median.
        """
        wanted = quantile * sum(self.latencies.values())
        seen = 0
        for size in sorted(self.latencies):
            seen += self.latencies[size]
            if seen >= wanted:
                return math.exp((size + 0.5) * _GROWTH)
        return math.nan

    def __add__(self, other: PredictionStats) -> PredictionStats:
        numbers = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__dataclass_fields__
            if name != "latencies"
        }
        return PredictionStats(**numbers, latencies=Counter(self.latencies) + Counter(other.latencies))

    def __repr__(self) -> str:
        retries = f"{self.retries:,} retr{'y' if self.retries == 1 else 'ies'}"
        failures = f"{self.failures:,} failure{'' if self.failures == 1 else 's'}"
        if self.throttled:
            retries += f" ({self.throttled:,} throttled)"
        latency = ", ".join(
            f"{self.latency(share):.2f} s ({name})"
            for share, name in ((0.5, "median"), (0.9, "90 %"), (0.99, "99 %"))
        )
        return (
            f"<xee_tf.PredictionStats {self.instances:,} instances in {self.answered:,} "
            f"request{'' if self.answered == 1 else 's'}, {retries}, {failures}>\n"
            f"  sent       {self.bytes_sent:,} bytes\n"
            f"  received   {self.bytes_received:,} bytes\n"
            f"  latency    {latency}"
        )


class Recorder:
    """Counts, from any number of threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stats = PredictionStats()

    def sent(self, size: int, response: Response, *, again: bool) -> None:
        """An attempt of `size` bytes and what came of it; `again` if it was not the first one."""
        latencies = {}
        if response.ok:
            latencies[math.floor(math.log(max(response.seconds, 1e-6)) / _GROWTH)] = 1
        self._add(
            PredictionStats(
                requests=1,
                retries=int(again),
                throttled=int(response.throttled),
                bytes_sent=size,
                bytes_received=len(response.body),
                seconds=response.seconds,
                latencies=latencies,
            )
        )

    def finished(self, instances: int | None) -> None:
        """A request is done; None: it was given up."""
        if instances is None:
            self._add(PredictionStats(failures=1))
        else:
            self._add(PredictionStats(answered=1, instances=instances))

    def stats(self) -> PredictionStats:
        """What was counted so far."""
        return self._stats

    def _add(self, more: PredictionStats) -> None:
        with self._lock:
            self._stats += more


_recorders: dict[Hashable, Recorder] = {}


def recorder_of(connector: Hashable) -> Recorder:
    """The recorder of this process for a connector."""
    return _recorders.setdefault(connector, Recorder())


def _stats_here(connector: Hashable) -> tuple[tuple[str, int], PredictionStats]:
    """A name of this process, and what it counted for a connector."""
    return (socket.gethostname(), os.getpid()), recorder_of(connector).stats()


def _forget() -> None:
    """A forked process starts from nothing: what its parent counted is told by that."""
    _recorders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def stats_everywhere(connector: Hashable) -> PredictionStats:
    """What this process counted, and the workers of the current cluster if there is one."""
    found = dict([_stats_here(connector)])
    if "distributed" in sys.modules:
        from distributed import default_client

        try:
            client = default_client()
        except ValueError:
            pass
        else:
            # Workers may be threads of this process: by its name it counts once.
            found.update(client.run(_stats_here, connector).values())
    return sum(found.values(), PredictionStats())
