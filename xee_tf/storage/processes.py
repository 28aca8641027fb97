"""Tokens that name a process on any machine, and tell whether it still exists."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
import uuid
from contextlib import suppress
from functools import cache

import psutil

__all__ = ["LEASE", "PROCESS", "TOKEN", "is_alive", "new_token", "process_token", "temporary_name"]

LEASE = 3600.0
"""Seconds for which a process of another machine counts as alive after its last sign of life."""

PROCESS = r"[0-9a-f]{8}-[0-9a-f]{1,8}-[0-9a-f]{8}"
"""Regular expression of a process token: machine, process id, start time."""

TOKEN = rf"(?P<process>{PROCESS})-[0-9a-f]{{8}}"
"""Regular expression of a token from `new_token`."""


@cache
def _machine() -> str:
    """Return a hash of what distinguishes this machine, its boot and its container from others."""
    facts = [platform.node(), str(uuid.getnode())]
    with suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            facts.append(file.read())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


@cache
def _process_token(pid: int) -> str:
    return f"{_machine()}-{pid:x}-{_started(pid):08x}"


def _started(pid: int) -> int:
    """Return when a process started: in clock ticks after the boot on Linux, otherwise in seconds.

    Raises
    ------
    psutil.NoSuchProcess
        If there is no such process.
    """
    try:
        # Not create_time of psutil, which changes when the clock is set.
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19]) & 0xFFFFFFFF
    except (OSError, ValueError, IndexError):
        return int(psutil.Process(pid).create_time())


def process_token() -> str:
    """Return the token of this process: machine, process id and start time.

    Examples
    --------
    >>> is_alive(process_token(), renewed=0)
    True
    """
    return _process_token(os.getpid())  # not the token of the parent after a fork


def is_alive(process: str, renewed: float | None) -> bool:
    """Return whether a process exists.

    Parameters
    ----------
    process : str
        A token from `process_token`. A text that is none counts as a process of another machine.
    renewed : float or None
        Time of its last sign of life in seconds since 1970, which decides about processes of other machines;
        None if the store does not tell.
    """
    known = re.fullmatch(PROCESS, process)
    machine, pid, start = process.split("-") if known else ("", "", "")
    if machine != _machine():
        return renewed is None or time.time() - renewed < LEASE
    try:
        status = psutil.Process(int(pid, 16)).status()
        # Outside Linux, the start time is rounded, and computed from the clock of each process.
        return abs(_started(int(pid, 16)) - int(start, 16)) < 3 and status != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # of another user
        return True


def new_token() -> str:
    """Return a unique token that starts with the token of this process."""
    return f"{process_token()}-{uuid.uuid4().hex[:8]}"


def temporary_name(name: str) -> str:
    r"""Return a unique hidden name for a temporary file; it names the process that writes the file.

    Examples
    --------
    >>> import re
    >>> bool(re.fullmatch(rf"\.scene-{TOKEN}\.tmp", temporary_name("scene")))
    True
    """
    return f".{name.lstrip('.')}-{new_token()}.tmp"
