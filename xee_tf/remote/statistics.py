"""Statistics of the requests to a server, collected in each process and summed over a Dask cluster."""

from __future__ import annotations

import math
import os
import socket
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from xee_tf.display import Summary
from xee_tf.errors import OptionError
from xee_tf.graph import cluster_client
from xee_tf.remote.responses import Response

__all__ = ["PredictionStats", "Recorder", "collect_stats", "get_recorder"]

_BIN_WIDTH = math.log(1.05)  # histogram bins of 5 % can be summed over all workers


@dataclass(frozen=True)
class PredictionStats:
    """Statistics of the requests sent to a server so far.

    Parameters
    ----------
    requests : int
        Number of attempts, including retries.
    answered : int
        Number of requests that returned predictions.
    instances : int
        Number of tiles or rows in these requests.
    retries : int
        Number of attempts after the first one of each request.
    throttled : int
        Number of attempts rejected because the server was busy (429).
    failures : int
        Number of requests that failed.
    bytes_sent, bytes_received : int
        Total size of the bodies, where each attempt counts.
    seconds : float
        Total duration of all attempts; concurrent attempts are added up.
    latencies : mapping of int to int
        Histogram of the durations of successful attempts, with logarithmic bins of 5 %; see `latency`.

    Examples
    --------
    >>> recorder = Recorder()
    >>> recorder.add_attempt(1000, Response(429, "HTTP 429", seconds=0.1), is_retry=False)
    >>> recorder.add_attempt(1000, Response(200, "HTTP 200", b"{}", seconds=0.2), is_retry=True)
    >>> recorder.add_success(instances=4)
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
        """Return a quantile of the durations of successful attempts.

        Parameters
        ----------
        quantile : float
            Quantile to return, from 0 to 1; 0.5 is the median.

        Returns
        -------
        float
            Duration in seconds with a precision of 5 %; NaN if there were no successful attempts.

        Examples
        --------
        >>> round(PredictionStats(latencies={0: 1}).latency(0.5), 1)
        1.0
        """
        target = quantile * sum(self.latencies.values())
        count = 0
        for bin_index in sorted(self.latencies):
            count += self.latencies[bin_index]
            if count >= target:
                return math.exp((bin_index + 0.5) * _BIN_WIDTH)
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
            f"{self.latency(quantile):.2f} s ({name})"
            for quantile, name in ((0.5, "median"), (0.9, "90 %"), (0.99, "99 %"))
        )
        return (
            f"<xee_tf.PredictionStats {self.instances:,} instances in {self.answered:,} "
            f"request{'' if self.answered == 1 else 's'}, {retries}, {failures}>\n"
            f"  sent       {self.bytes_sent:,} bytes\n"
            f"  received   {self.bytes_received:,} bytes\n"
            f"  latency    {latency}"
        )

    def _repr_html_(self) -> str:
        head, *lines = repr(self).splitlines()
        name, _, detail = head.strip("<>").removeprefix("xee_tf.").partition(" ")
        rows = [(label, text) for label, text in (line.split(maxsplit=1) for line in lines)]
        return Summary(name, detail, rows).html()


class Recorder:
    """Collect the statistics of one connector; may be used by several threads at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stats = PredictionStats()

    def add_attempt(self, size: int, response: Response, *, is_retry: bool) -> None:
        """Record an attempt with a body of `size` bytes, and its response."""
        latencies = {}
        if response.ok:
            latencies[math.floor(math.log(max(response.seconds, 1e-6)) / _BIN_WIDTH)] = 1
        self._add(
            PredictionStats(
                requests=1,
                retries=int(is_retry),
                throttled=int(response.throttled),
                bytes_sent=size,
                bytes_received=len(response.body),
                seconds=response.seconds,
                latencies=latencies,
            )
        )

    def add_success(self, instances: int) -> None:
        """Record a request that returned predictions."""
        self._add(PredictionStats(answered=1, instances=instances))

    def add_failure(self) -> None:
        """Record a request that failed."""
        self._add(PredictionStats(failures=1))

    def stats(self) -> PredictionStats:
        """Return the statistics so far."""
        return self._stats

    def _add(self, more: PredictionStats) -> None:
        with self._lock:
            self._stats += more


_recorders: dict[Hashable, Recorder] = {}


def get_recorder(connector: Hashable) -> Recorder:
    """Return the recorder of this process for a connector."""
    return _recorders.setdefault(connector, Recorder())


def _process_stats(connector: Hashable) -> tuple[tuple[str, int], PredictionStats]:
    """Return an identifier of this process and its statistics for a connector."""
    return (socket.gethostname(), os.getpid()), get_recorder(connector).stats()


def _clear() -> None:
    """Reset the statistics in a forked process: its parent reports its own."""
    _recorders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_clear)


def collect_stats(connector: Hashable) -> PredictionStats:
    """Return the summed statistics of this process and the workers of the current Dask cluster, if any.

    Raises
    ------
    OptionError
        If the client of the cluster is asynchronous: then this call cannot wait for the numbers of workers.
    """
    found = dict([_process_stats(connector)])
    if (client := cluster_client()) is not None:
        if client.asynchronous:
            raise OptionError(
                "The current Dask client is asynchronous, so that this call cannot wait for the statistics "
                "of its workers. Use a synchronous client."
            )
        # Workers that are threads of this process have the same key and count once.
        found.update(client.run(_process_stats, connector).values())
    return sum(found.values(), PredictionStats())
