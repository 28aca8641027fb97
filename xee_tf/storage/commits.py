"""Commit the staged files of a run: either all of them appear at the destination, or the old ones stay.

A commit is exclusive: while it has a journal, no other run puts files in place. If it fails, it is undone at
once; if the process is killed, the next run undoes it. `xee_tf.storage.moves` describes what an object store
cannot undo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from crc32c import crc32c

from xee_tf.errors import DestinationError, DestinationExistsError, XeeTFError
from xee_tf.signals import explain_interruption
from xee_tf.storage.failures import storage_errors
from xee_tf.storage.journal import Journal, committed_here, create_journal, needs_staging
from xee_tf.storage.location import Location
from xee_tf.storage.moves import LEFT, Upload, place_files, place_objects, undo
from xee_tf.storage.processes import process_token
from xee_tf.storage.recovery import recover
from xee_tf.storage.runs import Earlier, end_run
from xee_tf.storage.seen import require_unchanged
from xee_tf.storage.staging import Staging, remove_leftovers

__all__ = ["commit"]


def commit(
    staging: Staging,
    staged: Sequence[Location],
    sidecars: Sequence[tuple[Location, bytes]] = (),
    *,
    uploads: Sequence[Upload] = (),
    earlier: Earlier,
) -> None:
    """Put the files of a run in place, and delete its staging folder.

    Parameters
    ----------
    staging : Staging
        The staging folder of the run.
    staged : sequence of Location
        The files or folders to put in place, in the folder of the destination. They are staged as
        ``staging.staged(file)``.
    sidecars : sequence of (Location, bytes)
        Small files that describe the others, in order. The last one marks the result as complete.
    uploads : sequence of Upload
        Objects to put in place.
    earlier : Earlier
        The files of an earlier result.

    Raises
    ------
    DestinationExistsError
        If the existing files are not those that were seen, or another run commits. Nothing is changed.
    DestinationError
        If a staged file is missing, or the files cannot be put in place. The old files are then as before,
        except in an object store in which the replacement had begun.

    Examples
    --------
    >>> file = Location.of("memory://commit/table")
    >>> staging = Staging.begin(file)
    >>> staging.staged(file).write_bytes(b"rows")
    >>> commit(staging, [file], earlier=Earlier(list, {}))
    >>> file.read_bytes(), staging.folder.exists()
    (b'rows', False)
    """
    missing = [file for file in staged if not staging.staged(file).exists()]
    if missing:
        if len(missing) == len(staged) and _is_committed(sidecars):
            staging.remove()  # this task runs again, because a worker died with its result
            return
        raise DestinationError(
            f"Cannot write {missing[0]}: its temporary file in {staging.folder} is missing. Run it again."
        )
    targets = [*(upload.target for upload in uploads), *staged]
    try:
        with _journal(staging, targets, sidecars, earlier) as old:
            if staging.destination.is_local:
                place_files(staging, staged, sidecars, old)
            else:
                place_objects(staging, staged, sidecars, uploads, old)
    except DestinationExistsError:
        if uploads and _is_committed(sidecars) and not staging.folder.exists():
            return  # this task runs again, because a worker died with its result
        if not needs_staging(staging):
            if earlier.identity is not None:
                staging.release()  # a later run continues, or removes what is staged
            else:
                staging.remove()  # what is staged will never be used
        raise
    finally:
        end_run(staging)
    with suppress(DestinationError):  # the result is complete, and the next run removes what is left
        staging.remove()
        remove_leftovers(staging.destination)


def _is_committed(sidecars: Sequence[tuple[Location, bytes]]) -> bool:
    try:
        return bool(sidecars) and all(file.read_bytes() == data for file, data in sidecars)
    except FileNotFoundError:
        return False


@contextmanager
def _journal(
    staging: Staging,
    targets: Sequence[Location],
    sidecars: Sequence[tuple[Location, bytes]],
    earlier: Earlier,
) -> Iterator[Sequence[Location]]:
    """Hold the journal while files are put in place, and yield the old files; undo the body if it fails."""
    recover(staging.destination)
    seen = earlier.when_begun(staging)
    # A journal must list what is there, because it is used to undo the commit.
    require_unchanged(staging.destination, earlier.files(), seen)
    journal = Journal(
        process_token(),
        staging.token,
        [*(file.name for file in targets), *(file.name for file, _ in sidecars)],
        dict(seen),
        {file.name: crc32c(data) for file, data in sidecars},
    )
    if staging.destination.is_local:
        os.makedirs(staging.folder.path, exist_ok=True)
    with committed_here(staging):
        try:
            create_journal(staging.journal, journal)
            old = earlier.files()  # no other run changes them while the journal exists
            require_unchanged(staging.destination, old, seen)
        except BaseException:
            with suppress(OSError, XeeTFError):
                if staging.journal.read_bytes() == journal.data():  # not that of another run
                    staging.journal.remove()
            raise
        try:
            yield old
        except BaseException as error:
            left = undo(journal, staging)
            staging.journal.remove()
            if isinstance(error, Exception):
                url, is_local = staging.destination.url, staging.destination.is_local
                with storage_errors("write", url, local=is_local, left=LEFT[left]):
                    raise
            if left != "old":
                explain_interruption(error, f"{LEFT[left]} Run it again.")
            raise
        try:
            staging.journal.remove()
        except DestinationError as error:
            raise DestinationError(f"{error} {LEFT['new']}") from error
