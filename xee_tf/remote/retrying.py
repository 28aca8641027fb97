"""Asking again: what may succeed later is repeated after a random pause, until a deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from xee_tf.remote.answers import Answer

__all__ = ["Outcome", "ask_until", "pause_before"]

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 20.0


@dataclass(frozen=True)
class Outcome:
    """The last answer to a request that may have been repeated.

    Parameters
    ----------
    answer : Answer
    attempts : int
    seconds : float
        Since the first of them was sent, without waiting for others to finish.
    """

    answer: Answer
    attempts: int
    seconds: float

    def __str__(self) -> str:
        said = f" It said: {self.answer.words}" if self.answer.words else ""
        tried = f" ({self.attempts} attempts in {self.seconds:.1f} s)" if self.attempts > 1 else ""
        return f"{self.answer.status}.{said}{tried}"


def ask_until(
    attempt: Callable[[float, int], Answer],
    timeout: float,
    deadline: float,
    sleep: Callable[[float], object] = time.sleep,
) -> Outcome:
    """Attempt until there is an answer that counts, or no time is left.

    Parameters
    ----------
    attempt : callable
        Takes the seconds that it may take and how many were made before it.
    timeout : float
        Seconds of one attempt at most.
    deadline : float
        Seconds of all attempts and of the pauses between them.
    sleep : callable, optional

    Examples
    --------
    >>> answers = iter([Answer(503, "HTTP 503", words="starting"), Answer(200, "HTTP 200", b"done")])
    >>> outcome = ask_until(lambda timeout, before: next(answers), 60, 600, sleep=lambda seconds: None)
    >>> outcome.answer.body, outcome.attempts
    (b'done', 2)
    """
    spent, attempts = 0.0, 0
    while True:
        answer = attempt(min(timeout, deadline - spent), attempts)
        attempts += 1
        # What an attempt took, not the clock: waiting for a turn is not the server's fault.
        spent += answer.seconds
        if answer.ok or not answer.worth_retrying:
            return Outcome(answer, attempts, spent)
        pause = pause_before(attempts, answer.retry_after)
        if spent + pause >= deadline:
            return Outcome(answer, attempts, spent)
        sleep(pause)
        spent += pause


def pause_before(attempts: int, retry_after: float | None = None) -> float:
    """Seconds to wait after so many attempts: anything up to a bound that doubles ("full jitter").

    What the server asks for (``Retry-After``) is added in front, so that those who were put off together do
    not come back together.

    Examples
    --------
    >>> all(0 <= pause_before(3) <= 1.0 and 7 <= pause_before(1, 7.0) <= 7.25 for _ in range(100))
    True
    """
    bound = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempts - 1, 20))
    return (retry_after or 0.0) + random.uniform(0, bound)
