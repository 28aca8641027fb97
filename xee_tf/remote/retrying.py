"""Asking again: what may succeed later is repeated after a random pause, until a deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

from xee_tf.remote.responses import Response

__all__ = ["ask_until"]

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 20.0


def ask_until(
    attempt: Callable[[float, int], Response],
    timeout: float,
    deadline: float,
    sleep: Callable[[float], object] = time.sleep,
) -> Response:
    """The last answer of attempts that are made until one counts, or no time is left.

    Parameters
    ----------
    attempt : callable
        Takes the seconds that it may take and how many were made before it.
    timeout, deadline : float
        Seconds of one attempt at most, and of all of them with the pauses between.
    sleep : callable, optional

    Examples
    --------
    >>> responses = iter([Response(503, "HTTP 503", message="starting"), Response(200, "HTTP 200", b"done")])
    >>> response = ask_until(lambda timeout, before: next(responses), 60, 600, sleep=lambda seconds: None)
    >>> response.body, response.attempts
    (b'done', 2)
    """
    spent, attempts = 0.0, 0
    while True:
        response = attempt(min(timeout, deadline - spent), attempts)
        attempts += 1
        # What an attempt took, not the clock: waiting for a turn is not the server's fault.
        spent += response.seconds
        pause = _pause_before(attempts, response.retry_after)
        if response.ok or not response.worth_retrying or spent + pause >= deadline:
            return replace(response, attempts=attempts, seconds=spent)
        sleep(pause)
        spent += pause


def _pause_before(attempts: int, retry_after: float | None = None) -> float:
    """Seconds to wait after so many attempts: anything up to a bound that doubles ("full jitter").

    What the server asks for (``Retry-After``) is added in front, so that those who were put off together do
    not come back together.

    Examples
    --------
    >>> all(0 <= _pause_before(3) <= 1.0 and 7 <= _pause_before(1, 7.0) <= 7.25 for _ in range(100))
    True
    """
    bound = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempts - 1, 20))
    return (retry_after or 0.0) + random.uniform(0, bound)
