"""Find a commit that was interrupted, and undo it.

The journal of a commit whose process no longer exists tells that it was interrupted, and how to undo it.
"""

from __future__ import annotations

from contextlib import suppress

from xee_tf.errors import DestinationExistsError
from xee_tf.storage.journal import TORN, foreign_journal, is_committing, read_journal
from xee_tf.storage.location import Location
from xee_tf.storage.moves import undo
from xee_tf.storage.processes import is_alive, process_token
from xee_tf.storage.staging import Staging, last_written, remove_lock

__all__ = ["interruption", "recover"]


def interruption(destination: Location) -> str:
    """Return why a destination is incomplete, as a sentence, or "" if no commit is in progress.

    Readers call it if they do not find the file that marks a result as complete.
    """
    staging = Staging(destination, "")
    journal = read_journal(staging.journal)
    if journal is None:
        return ""
    if is_committing(journal, staging):
        return f"A run is putting the files of {destination} in place: try again when it has finished."
    return (
        f"A run was interrupted while it put the files of {destination} in place. Run it again: this first "
        + ("restores the old files." if destination.is_local else "deletes what is incomplete.")
    )


def recover(destination: Location) -> bool:
    """Undo a commit that was interrupted; return whether another run is committing.

    Raises
    ------
    DestinationExistsError
        If another run undoes it.
    """
    staging = Staging(destination, "")
    journal = read_journal(staging.journal)
    if journal is None:
        return False
    if is_committing(journal, staging):
        return True
    # Only one process undoes the commit: another one would undo what comes after it.
    lock = staging.journal.with_suffix(".undo")
    try:
        lock.write_bytes(process_token().encode(), exclusive=True)
    except FileExistsError:
        if lock.is_folder():
            raise foreign_journal(lock, "it is a folder") from None
        with suppress(FileNotFoundError):  # it vanished
            holder = lock.read_bytes()
            if not is_alive(holder.decode(errors="replace"), last_written(lock)):
                remove_lock(lock, holder)
                return recover(destination)
        raise DestinationExistsError(
            f"Another run is restoring the files of {destination} after an interruption. Run this one again."
        ) from None
    try:
        if read_journal(staging.journal) == journal:
            if journal != TORN:
                undo(journal, Staging(destination, journal.token))
            staging.journal.remove()
    finally:
        lock.remove()
    return False
