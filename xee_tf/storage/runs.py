"""Begin a run: notice what exists, remove what dead runs left, or continue an interrupted run.

A run that may be resumed has the note ``identity.json`` in its staging folder. A run that looks at its
destination in its first task, and not when it is planned, notes there what it saw, in ``seen.json``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, get_args

from xee_tf.errors import DestinationError, DestinationExistsError, XeeTFError, warn
from xee_tf.options import IfExists, one_of
from xee_tf.storage.destinations import refuse_existing
from xee_tf.storage.location import Location
from xee_tf.storage.notes import DamagedNoteError, read_note, write_note
from xee_tf.storage.processes import TOKEN, is_alive, new_token
from xee_tf.storage.recovery import interruption, recover
from xee_tf.storage.s3 import abort_dead_uploads
from xee_tf.storage.seen import Seen, look
from xee_tf.storage.staging import (
    Staging,
    is_working,
    last_written,
    remove_leftovers,
    staging_folders,
    token_of,
)

__all__ = ["Earlier", "begin", "clear_leftovers", "discard", "end_run", "has_staged", "is_resumable"]

_SEEN = "seen.json"
_IDENTITY = "identity.json"
_NOTES = re.compile(r"identity\.json|seen\.json|alive-.+|released|taken")  # all that is not staged
_starting = Lock()
_started: set[str] = set()  # staging folders of which this process has looked at the destination


class Identity(Protocol):
    """What a run writes; see `xee_tf.identity.RunIdentity`."""

    def to_json(self) -> dict[str, Any]:
        """Return a description in JSON's types."""

    def explain_difference(self, stored: Any) -> str:
        """Return how this run differs from the one with the given description; empty if it does not."""


@dataclass(frozen=True)
class Earlier:
    """The files of an earlier result at a destination.

    Parameters
    ----------
    files : callable
        Returns the existing files, all of which are replaced or deleted. Files without which the result is
        not complete come first. Must be picklable.
    seen : Seen or None
        What existed when the run began. None: `start` looks at it.
    identity : mapping, optional
        What the run writes, in JSON's types, if a later run may resume it.
    """

    files: Callable[[], Sequence[Location]]
    seen: Seen | None
    identity: Mapping[str, Any] | None = None

    def start(self, staging: Staging) -> None:
        """Look at what exists, unless this was done; every task of a run that stages something calls it."""
        if staging.folder.url in _started:
            return
        with _starting:  # other tasks wait until it is known what exists
            if staging.folder.url not in _started:
                self._start(staging)
                _started.add(staging.folder.url)

    def _start(self, staging: Staging) -> None:
        if self.identity is None and self.seen is not None:
            return
        recover(staging.destination)  # before anything is staged, because it moves files back
        if self.identity is not None:
            staging.take_up()
            write_note(staging.folder.child(_IDENTITY), self.identity)
        if self.seen is None:
            remove_leftovers(staging.destination)
            with suppress(FileExistsError):
                seen = look(staging.destination, self.files())
                write_note(staging.folder.child(_SEEN), seen, exclusive=True)

    def when_begun(self, staging: Staging) -> Seen:
        """Return what existed when the run began."""
        if self.seen is not None:
            return self.seen
        file = staging.folder.child(_SEEN)
        try:
            seen = read_note(file)
        except DamagedNoteError as error:
            raise DestinationError(
                f"Cannot write {staging.destination}: {file} cannot be used, because {error}. Run it again."
            ) from None
        if seen is None:
            raise staging.removed_error()
        return seen


def begin(
    destination: Location,
    files: Callable[[], Sequence[Location]],
    if_exists: str,
    compute: bool = True,
    identity: Identity | None = None,
) -> tuple[Staging, Earlier]:
    """Begin a run: look at what exists, and remove what dead runs left behind.

    Parameters
    ----------
    destination : Location
        The file, folder or prefix that the run writes.
    files : callable
        See `Earlier`.
    if_exists : {"error", "overwrite", "resume"}
        Whether existing files may be replaced, or an interrupted run is resumed.
    compute : bool
        If False, nothing is removed or restored before the first task runs.
    identity : Identity, optional
        What the run writes, if `if_exists` is "resume".

    Raises
    ------
    DestinationExistsError
        If there are files that may not be replaced, or an interrupted run with another identity.
    OptionError
        If `if_exists` is not a valid choice.
    """
    one_of("if_exists", if_exists, get_args(IfExists))
    if not compute and if_exists == "overwrite":
        return Staging.begin(destination), Earlier(files, None)
    committing = compute and recover(destination)  # before a folder that a journal names is taken up
    staging = _interrupted(destination, identity, compute) if identity else None
    staging = staging or Staging.begin(destination)
    try:
        if compute:
            useful = clear_leftovers(destination, committing, [staging])
            if useful and if_exists == "error":
                warn(
                    f"What an interrupted run had kept for {destination} was deleted, because this call "
                    "does not continue it. To continue an interrupted run, call it with if_exists='resume'."
                )
        undone_later = not compute and interruption(destination)
        seen = {} if undone_later else look(destination, files())
        if seen and if_exists != "overwrite":
            existing = [destination.parent.child(name) for name in seen]
            refuse_existing(existing, if_exists, resumable=identity is not None)
    except BaseException:
        if compute:
            with suppress(XeeTFError):  # the error that is raised is more important
                staging.release()  # what was taken up
        raise
    return staging, Earlier(files, seen, identity.to_json() if identity else None)


def clear_leftovers(destination: Location, committing: bool, keep: Collection[Staging] = ()) -> bool:
    """Delete what dead runs staged, except those to keep; `committing` is the result of `recover`.

    Return whether a run could have been resumed.
    """
    if destination.is_s3 and not committing:
        abort_dead_uploads(destination, keep)
    return remove_leftovers(destination, keep, is_resumable)


def end_run(staging: Staging) -> None:
    """Note that a run has ended in this process; the same run, of a Delayed, may begin again."""
    _started.discard(staging.folder.url)


def discard(staging: Staging) -> None:
    """Delete what a run has staged, even if it could be resumed; the same run may begin again."""
    end_run(staging)
    staging.remove()


def has_staged(staging: Staging) -> bool:
    """Return whether a run has staged something, in addition to its notes."""
    return any(_NOTES.fullmatch(name) is None for name in staging.folder.entries())


def is_resumable(folder: Location) -> bool:
    """Return whether the run of a staging folder can be resumed."""
    return folder.child(_IDENTITY).exists()


def _interrupted(destination: Location, identity: Identity, compute: bool) -> Staging | None:
    """Return what an interrupted run with the same identity has staged, or None.

    Raises
    ------
    DestinationExistsError
        If there is only a run with another identity.
    """
    difference = ""
    for folder in staging_folders(destination):
        token = token_of(folder)
        if token is None or is_working(folder):
            continue
        try:
            stored = read_note(folder.child(_IDENTITY))
        except DamagedNoteError:
            continue
        if stored is None:
            continue
        difference = identity.explain_difference(stored)
        if not difference:
            taken = _take_up(Staging(destination, token)) if compute else Staging(destination, token)
            if taken is not None:
                return taken
    if difference:
        raise DestinationExistsError(
            f"The interrupted run that wrote {destination} cannot be resumed: {difference}. Undo the change, "
            "or start again with if_exists='overwrite'."
        )
    return None


def _take_up(earlier: Staging) -> Staging | None:
    """Take over what an interrupted run has staged; return None if another run was faster."""
    if earlier.folder.is_local:
        staging = Staging.begin(earlier.destination)
        earlier.take_up()  # before the folder has its new name, so that no other run takes it for released
        earlier.end()  # tasks that still run would stage files in a folder of the old name
        try:
            os.rename(earlier.folder.path, staging.folder.path)
        except FileNotFoundError:
            return None
        return staging
    taken, token = earlier.taken, new_token().encode()
    try:
        taken.write_bytes(token, exclusive=True)
    except FileExistsError:
        holder = re.fullmatch(TOKEN, taken.read_bytes().decode(errors="replace"))
        if holder is None or is_alive(holder["process"], last_written(taken)):
            return None
        taken.write_bytes(token)
    if taken.read_bytes() != token:
        return None  # another run took it at the same time
    earlier.take_up()
    return earlier
