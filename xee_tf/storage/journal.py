"""The journal of a commit: the file ``.<name>.commit``, which exists while files are put in place.

It keeps other runs out, and lists what is replaced by what, so that a later run can undo the commit if the
process is killed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from threading import Lock

from xee_tf.errors import DestinationError, DestinationExistsError
from xee_tf.storage.location import Location
from xee_tf.storage.notes import DamagedNoteError, is_torn_note, note_bytes, read_note
from xee_tf.storage.processes import is_alive, process_token
from xee_tf.storage.staging import Staging, is_working, last_written, staging_folders

__all__ = [
    "TORN",
    "Journal",
    "committed_here",
    "create_journal",
    "foreign_journal",
    "is_committing",
    "needs_staging",
    "read_journal",
]


@dataclass(frozen=True)
class Journal:
    """The content of a journal.

    Parameters
    ----------
    process : str
        The token of the process that commits.
    token : str
        The token of its run.
    new : list of str
        Names of the files that are put in place.
    old : mapping of str to str
        What existed before; see `xee_tf.storage.seen.Seen`.
    sidecars : mapping of str to int
        CRC-32C of the small files that are written last.
    """

    process: str
    token: str
    new: list[str]
    old: dict[str, str]
    sidecars: dict[str, int]

    def data(self) -> bytes:
        """Return the bytes of the file."""
        return note_bytes(asdict(self))


TORN = Journal("", "", [], {}, {})
"""A journal whose writer was killed before all of it was written, and so before anything was changed.

This can happen in stores that are neither local disks nor object stores.
"""

_committing: set[str] = set()  # tokens of the runs that this process commits
_noting = Lock()


def create_journal(file: Location, journal: Journal) -> None:
    """Write a journal durably.

    Raises
    ------
    DestinationExistsError
        If there is one already, because another run commits.
    DestinationError
        If there is a folder of this name.
    """
    try:
        file.write_bytes(journal.data(), exclusive=True, durable=True)
    except FileExistsError:
        if file.is_folder():
            raise foreign_journal(file, "it is a folder") from None
        raise _other_commit(file, "exists") from None
    # Some object stores ignore the condition of an exclusive creation.
    if not file.is_local and file.read_bytes() != journal.data():
        raise _other_commit(file, "was created at the same time")


def read_journal(file: Location) -> Journal | None:
    """Read a journal; return None if there is none.

    Raises
    ------
    DestinationError
        If there is a file or folder of this name that is not a journal.
    """
    try:
        found = read_note(file)
    except DamagedNoteError as error:
        if is_torn_note(file):
            return TORN
        raise foreign_journal(file, str(error)) from None
    return None if found is None else Journal(**found)


def foreign_journal(file: Location, why: str) -> DestinationError:
    """Return the error for a file or folder with the name of a journal that is none."""
    name = re.sub(r"(^\.)|(\.commit(\.undo)?$)", "", file.name)
    return DestinationError(
        f"{file} is not a journal of xee_tf, because {why}. Exports to {name!r} need this name: "
        "rename it or, if no other run writes to this destination, delete it."
    )


def _other_commit(file: Location, why: str) -> DestinationExistsError:
    return DestinationExistsError(
        f"Another run is putting its files in place: {file} {why}. Nothing was changed. Wait until that "
        "run has finished, then run this one again."
    )


@contextmanager
def committed_here(staging: Staging) -> Iterator[None]:
    """Note that this process commits a run, so that no other thread of it undoes the commit.

    Raises
    ------
    DestinationExistsError
        If another thread commits the same run, because the same Delayed is computed twice.
    """
    with _noting:
        if staging.token in _committing:
            raise _other_commit(staging.journal, "exists")
        _committing.add(staging.token)
    try:
        yield
    finally:
        _committing.discard(staging.token)


def is_committing(journal: Journal, staging: Staging) -> bool:
    """Return whether a process still puts files in place.

    If the process is this one, it may also have failed to undo its commit.
    """
    if journal == TORN:
        folders = staging_folders(staging.destination)
        return any(is_working(folder) for folder in folders if folder.url != staging.folder.url)
    if journal.process == process_token():
        return journal.token in _committing
    return is_alive(journal.process, last_written(staging.journal))


def needs_staging(staging: Staging) -> bool:
    """Return whether a journal names a run, whose staging folder must stay.

    If a Delayed is computed twice, another thread may commit the same run.
    """
    journal = read_journal(staging.journal)
    return staging.token in _committing or (journal is not None and journal.token == staging.token)
