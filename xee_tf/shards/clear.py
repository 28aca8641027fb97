"""Clearing up after an export that failed."""

from __future__ import annotations

import time
from contextlib import suppress

from xee_tf.storage import Location

__all__ = ["clear"]


def clear(folder: Location) -> None:
    """Remove what a failed export has put aside, while tasks that had begun may still add to it."""
    deadline = time.monotonic() + 10
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:
        with suppress(Exception):  # the error that made the export fail is the one to show
            quiet += 1
            if folder.exists():
                quiet = 0
                folder.remove(recursive=True)
        time.sleep(0.05)
