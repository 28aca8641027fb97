"""Retry requests that may succeed later, after random pauses and until a deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

from xee_tf.remote.responses import Response

__all__ = ["retry_until"]

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 20.0


def retry_until(
    attempt: Callable[[float, int], Response],
    timeout: float,
    deadline: float,
    sleep: Callable[[float], object] = time.sleep,
) -> Response:
    """Call `attempt` until it succeeds, fails permanently or runs out of time; return the last response.

    Parameters
    ----------
    attempt : callable
        Called with its timeout in seconds and the number of earlier attempts.
    timeout, deadline : float
        Maximum duration in seconds of one attempt, and of all attempts and pauses together.
    sleep : callable, optional
        Function that waits for a number of seconds.

    Examples
    --------
    >>> responses = iter([Response(503, "HTTP 503", message="starting"), Response(200, "HTTP 200", b"done")])
    >>> response = retry_until(lambda timeout, before: next(responses), 60, 600, sleep=lambda seconds: None)
    >>> response.body, response.attempts
    (b'done', 2)
    """
    spent, attempts = 0.0, 0
    while True:
        response = attempt(min(timeout, deadline - spent), attempts)
        attempts += 1
        # Durations of attempts, not the clock: time spent waiting for the limits does not count.
        spent += response.seconds
        pause = _pause_before(attempts, response.retry_after)
        if response.ok or not response.retryable or spent + pause >= deadline:
            return replace(response, attempts=attempts, seconds=spent)
        sleep(pause)
        spent += pause


def _pause_before(attempts: int, retry_after: float | None = None) -> float:
    """Return a random pause in seconds, up to a bound that doubles with each attempt ("full jitter").

    It is added to the time that the server requests (``Retry-After``), so that clients that are throttled
    together do not retry together.

    Examples
    --------
    >>> all(0 <= _pause_before(3) <= 1.0 and 7 <= _pause_before(1, 7.0) <= 7.25 for _ in range(100))
    True
    """
    bound = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempts - 1, 20))
    return (retry_after or 0.0) + random.uniform(0, bound)
