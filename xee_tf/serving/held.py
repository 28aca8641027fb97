"""A limit for all requests that are in memory at the same time."""

from __future__ import annotations

from threading import Lock

from xee_tf.remote import Code
from xee_tf.serving import limits
from xee_tf.serving.failures import RequestError

__all__ = ["HeldBytes"]


class HeldBytes:
    """The bytes of the requests that are received or processed, over all protocols.

    They have at most 2 GiB, or twice `max_request_bytes` if that is more: a request and its decompressed
    content always fit.
    """

    def __init__(self, max_request_bytes: int) -> None:
        self._limit = max(limits.HELD_BYTES, 2 * max_request_bytes)
        self._lock, self._held = Lock(), 0

    def add(self, size: int) -> None:
        """Count further bytes; raise a `RequestError` without counting them if they are too many.

        Examples
        --------
        >>> held = HeldBytes(1000)
        >>> held.add(1 << 31)
        >>> held.add(1)
        Traceback (most recent call last):
        xee_tf.serving.failures.RequestError: The requests in progress take all memory that the server ...
        """
        with self._lock:
            if self._held + size > self._limit:
                raise RequestError(
                    Code.RESOURCE_EXHAUSTED,
                    f"The requests in progress take all memory that the server has for them ({self._limit} "
                    "bytes); try again later.",
                    retry_after=1,
                )
            self._held += size

    @property
    def is_scarce(self) -> bool:
        """Whether more than half of the bytes are taken, so that slow requests must make way."""
        return 2 * self._held > self._limit

    def remove(self, size: int) -> None:
        """Stop counting bytes that were added."""
        with self._lock:
            self._held -= size
