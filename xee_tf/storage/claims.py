"""Claims of destinations that a run writes in place, or that only one run at a time may write.

A claim is the file ``.<name>.writer`` beside the destination, which contains the token of the run. A process
renews its claims as long as it exists. The claim of a run that no longer exists is taken over: at once if its
process was on this machine, otherwise one hour after the claim was last renewed.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from xee_tf.errors import DestinationExistsError
from xee_tf.storage.commits import commit
from xee_tf.storage.location import Location
from xee_tf.storage.processes import LEASE, TOKEN, is_alive
from xee_tf.storage.runs import Earlier
from xee_tf.storage.seen import look
from xee_tf.storage.staging import (
    Staging,
    is_working,
    remove_leftovers,
    remove_lock,
    renewed,
    staging_folders,
    token_of,
)
from xee_tf.storage.zarr_record import remove_old_replacement, require_own_store

__all__ = ["claim", "earlier_store", "remove_other_runs", "replace_store", "staged_runs"]

_RENEWAL = LEASE / 12
_WAIT = 20.0


@contextmanager
def claim(destination: Location) -> Iterator[Staging]:
    """Begin a run that is the only one to write to a destination until the block ends.

    Raises
    ------
    DestinationExistsError
        If another run writes to the destination.

    Examples
    --------
    >>> store = Location.of("memory://claims/p.zarr")
    >>> with claim(store):
    ...     with claim(store):
    ...         pass
    Traceback (most recent call last):
    ...
    xee_tf.errors.DestinationExistsError: Another run writes memory://claims/p.zarr: \
memory://claims/.p.zarr.writer exists. Nothing was changed. Wait until that run has finished; if there \
is none, delete this file.
    """
    run, file = Staging.begin(destination), destination.parent.child(f".{destination.name}.writer")
    data = run.token.encode()
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(file, data, ended), daemon=True)
    try:
        _create(run, file, data)
        renewal.start()
        yield run
    finally:
        ended.set()
        if renewal.is_alive():
            renewal.join(_WAIT)  # it must not write the claim again
        with suppress(FileNotFoundError, IsADirectoryError):
            if file.read_bytes() == data:
                file.remove()


def _renew(file: Location, data: bytes, ended: threading.Event) -> None:
    """Renew a claim from time to time, for processes of other machines, until the run has ended."""
    while not ended.wait(_RENEWAL):
        with suppress(Exception):  # the store may be reachable again next time
            if file.read_bytes() != data:
                return
            if file.is_local:
                os.utime(file.path)
            else:
                file.write_bytes(data)


def staged_runs(destination: Location) -> list[Staging]:
    """Return the runs that staged a file or folder for a destination that is claimed.

    None of them is alive, because each one claimed the destination.
    """
    tokens = filter(None, map(token_of, staging_folders(destination)))
    runs = [Staging(destination, token) for token in tokens]
    return [run for run in runs if run.staged(destination).exists()]


def earlier_store(store: Location) -> Earlier:
    """Return what exists of a store when a run begins; see `Earlier`."""

    def files() -> list[Location]:
        return [store] if store.exists() else []

    return Earlier(files, look(store, files()))


def replace_store(run: Staging, earlier: Earlier) -> None:
    """Put a store that a run has staged in place of the earlier one.

    Raises
    ------
    DestinationExistsError
        If the earlier store contains something that this package did not write; it may be new.
    """
    if run.destination.exists():
        require_own_store(run.destination)
    commit(run, [run.destination], earlier=earlier)


def remove_other_runs(run: Staging, keep: Collection[Staging] = ()) -> None:
    """Delete what other runs left of a destination that `run` has claimed, except the runs to keep."""
    for other in staged_runs(run.destination):
        if other != run and other not in keep:
            other.remove()
    remove_leftovers(run.destination, keep)
    remove_old_replacement(run.destination)


def _create(run: Staging, file: Location, data: bytes) -> None:
    for _ in range(2):
        with suppress(FileExistsError):
            file.write_bytes(data, exclusive=True)
            if file.read_bytes() == data:  # some object stores ignore the condition of an exclusive creation
                return
        with suppress(FileNotFoundError, IsADirectoryError):
            holder = file.read_bytes()
            if holder == data:
                return
            if _is_held(run.destination, file, holder):
                break
            remove_lock(file, holder)
    raise DestinationExistsError(
        f"Another run writes {run.destination}: {file} exists. Nothing was changed. Wait until that run has "
        "finished; if there is none, delete this file."
    )


def _is_held(destination: Location, file: Location, holder: bytes) -> bool:
    """Return whether the run of a claim still exists."""
    match = re.fullmatch(TOKEN, holder.decode(errors="replace"))
    if match is None:
        return True  # not a file of this package
    if is_alive(match["process"], renewed(file.info())):
        return True
    folder = Staging(destination, match[0]).folder
    return folder.exists() and is_working(folder)  # processes of a cluster sign in it
