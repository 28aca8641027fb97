"""Import TensorFlow without the messages that its libraries print while they are loaded.

They are about processors, missing GPUs and its own logging, and belong to no result. ``TF_CPP_MIN_LOG_LEVEL``
suppresses those of computations, but not those of the import, which are printed before it is read.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

__all__ = ["importing_tensorflow"]

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_NONE = "3"  # not even errors: a computer without a GPU has one

_LOCK = RLock()
"""Standard error belongs to the process."""

_MESSAGES = re.compile(
    rb"""
    ^(?: WARNING:\ All\ log\ messages\ before\ absl::InitializeLog.*
       | [IWE]\d{4}\ \d\d:\d\d:\d+\.\d+\ .*
       | \d{4}-\d\d-\d\d\ \d\d:\d\d:\d\d\.\d+:\ [IWE]\ .*
       | To\ enable\ the\ following\ instructions:.*
    )\r?\n?
    """,
    re.VERBOSE | re.MULTILINE,
)


@contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Drop the messages of TensorFlow in the body; everything else on standard error is printed after it.

    This has no effect if TensorFlow is imported already, or if the user has set ``TF_CPP_MIN_LOG_LEVEL``,
    which shows the messages if the import ends the process.
    """
    if "tensorflow" in sys.modules or _LEVEL in os.environ:
        yield
        return
    with _LOCK:
        if "tensorflow" in sys.modules:  # another thread has imported it
            yield
            return
        os.environ[_LEVEL] = _NONE
        try:
            with _filtered():
                yield
        finally:
            del os.environ[_LEVEL]


@contextmanager
def _filtered() -> Iterator[None]:
    """Hold back what is written to standard error, also by libraries, and print what is no such message."""
    try:
        sys.stderr.flush()
        original = os.dup(2)
    except (OSError, ValueError, AttributeError):  # there is none
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            if rest := _MESSAGES.sub(b"", held.read()):
                os.write(2, rest)
