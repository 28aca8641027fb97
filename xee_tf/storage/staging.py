"""The staging folders of runs that write to a destination, and what dead runs left behind.

A run stages everything in one hidden folder beside its destination, ``.<name>-<token>.parts``. The token
contains the machine, the process and its start time, so that a later run can check whether the process still
exists. If other processes of a cluster work for the run, each of them adds a file, its signature. Processes
of other machines cannot be checked: they count as alive for one hour after the last change of the folder.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from xee_tf.errors import DestinationError
from xee_tf.storage.failures import storage_errors
from xee_tf.storage.location import Location
from xee_tf.storage.notes import DamagedNoteError, read_note, write_note
from xee_tf.storage.processes import LEASE, PROCESS, TOKEN, is_alive, new_token, process_token

__all__ = [
    "Staging",
    "is_working",
    "last_written",
    "read_uploads",
    "remove_leftovers",
    "remove_lock",
    "renewed",
    "staging_folders",
    "write_uploads",
]

_ATTEMPTS = 20  # to delete a folder
_RENEWAL = 60.0  # seconds between two signatures of a process
# Staging folders and temporary files of versions before 0.3, which do not name their process.
_OLD = r"(?=\d*[a-f])[0-9a-f]{12}\.parts|(?=\d*[a-f])[0-9a-f]{8}\.tmp"  # not the digits of a date

_RELEASED = "released"
_TAKEN = "taken"
_UPLOADS = "uploads.json"
_signed: dict[str, float] = {}  # time of the last signature of this process, by folder
_ended: set[str] = set()  # tokens of runs that this process has ended, although tasks may still run


@dataclass(frozen=True)
class Staging:
    """The staging folder of a run; small and picklable.

    Parameters
    ----------
    destination : Location
        The file, folder or prefix that the run writes.
    token : str
        The id of the run, which names the process that began it.

    Examples
    --------
    >>> staging = Staging.begin(Location.of("memory://runs/scene"))
    >>> staging.folder.name == f".scene-{staging.token}.parts"
    True
    """

    destination: Location
    token: str

    @classmethod
    def begin(cls, destination: Location) -> Staging:
        """Start a run; nothing is written."""
        return cls(destination, new_token())

    @property
    def folder(self) -> Location:
        """The hidden folder in which the run stages its files."""
        return self.destination.parent.child(f".{self.destination.name}-{self.token}.parts")

    def staged(self, file: Location) -> Location:
        """Return where a file of the destination is staged."""
        return self.folder.child(file.name)

    @property
    def journal(self) -> Location:
        """The file that exists while a run puts its files in place."""
        return self.destination.parent.child(f".{self.destination.name}.commit")

    def sign(self) -> None:
        """Show that this process works for the run; tasks call it before they stage anything.

        Raises
        ------
        DestinationError
            If the run was ended: tasks that still run must not write anything.
        """
        if self.token in _ended:
            raise DestinationError(
                f"Cannot write {self.destination}: this run was interrupted, or another call continues it. "
                "Call the function again."
            )
        now, key = time.monotonic(), self.folder.url
        if self.folder.is_local and not os.path.isdir(self.folder.path):
            _signed.pop(key, None)
        if now - _signed.get(key, -_RENEWAL) < _RENEWAL:
            return
        process = process_token()
        if not self.token.startswith(process) or not self.folder.is_local:
            self.folder.child(f"alive-{process}").write_bytes(b"")
        else:
            with storage_errors("write", self.destination.url, local=True):
                os.makedirs(self.folder.path, exist_ok=True)
                os.utime(self.folder.path)  # a sign for processes of other machines
        _signed[key] = now

    def end(self) -> None:
        """Let tasks of this process that still run write nothing more."""
        _ended.add(self.token)

    def on_disk(self) -> Staging:
        """Return the same run with a staging folder on a local disk, for files that are uploaded at once.

        If the destination is in another store, it is in the folder for temporary files, where those of dead
        runs that wrote to a destination of the same name are deleted.
        """
        if self.destination.is_local:
            return self
        local = Staging(Location(tempfile.gettempdir()).child(self.destination.name), self.token)
        for folder in staging_folders(local.destination):
            if token_of(folder) is not None and not is_working(folder):
                with suppress(OSError, DestinationError):  # of another user
                    folder.remove(recursive=True)
        with storage_errors("write", local.folder.url, left="Nothing was changed."):
            os.mkdir(local.folder.path, 0o700)
        return local

    @property
    def taken(self) -> Location:
        """The file that names the run that has taken up this one, in an object store."""
        return self.folder.child(_TAKEN)

    def release(self) -> None:
        """Let a later run take up what this one has staged, although its processes may still exist."""
        _signed.pop(self.folder.url, None)
        if self.folder.exists():
            if not self.folder.is_local:
                with suppress(FileNotFoundError):
                    self.taken.remove()
            self.folder.child(_RELEASED).write_bytes(b"")

    def take_up(self) -> None:
        """Use what an earlier run has staged."""
        _ended.discard(self.token)
        with suppress(FileNotFoundError):
            self.folder.child(_RELEASED).remove()

    def removed_error(self) -> DestinationError:
        """Return the error for a run whose staged files another run, or another call, has removed."""
        return DestinationError(
            f"Cannot write {self.destination}: its temporary files in {self.folder} were removed. Call the "
            "function again instead of computing the same Delayed twice."
        )

    def remove(self) -> None:
        """Delete the staging folder."""
        _signed.pop(self.folder.url, None)
        _delete(self.folder)

    def abort(self) -> None:
        """Delete the staging folder, even while tasks of the run finish writing to it."""
        self.end()
        _signed.pop(self.folder.url, None)
        self.folder.clear()


def write_uploads(folder: Location, uploads: Mapping[int, str]) -> None:
    """Record the ids of the uploads of a run, by shard, in its staging folder."""
    write_note(folder.child(_UPLOADS), {str(shard): upload for shard, upload in uploads.items()})


def read_uploads(folder: Location) -> dict[int, str] | None:
    """Return the recorded ids of the uploads of a run, by shard; None if they are not known."""
    with suppress(DamagedNoteError):
        if (found := read_note(folder.child(_UPLOADS))) is not None:
            return {int(shard): upload for shard, upload in found.items()}
    return None


def renewed(info: Mapping[str, Any]) -> float | None:
    """Return when a file was written, in seconds since 1970, from its entry in a listing."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        found = info.get(key)
        if isinstance(found, datetime):
            return found.timestamp()
        if isinstance(found, int | float):
            return float(found)
    return None


def last_written(file: Location) -> float | None:
    """Return when a file was written; None if it does not exist, or the store does not tell."""
    with suppress(FileNotFoundError):
        return renewed(file.fresh_fs.info(file.path))
    return None


def staging_folders(destination: Location) -> list[Location]:
    """Return the staging folders and temporary files of a destination, of living and dead runs."""
    name, folder = re.escape(destination.name), destination.parent
    ours = re.compile(rf"\.{name}(\.commit(\.undo)?|\.writer)?-{TOKEN}\.(parts|tmp)|\.?{name}[.-]({_OLD})")
    entries = [*folder.child(f".{destination.name}").listed()]
    if destination.is_local:
        entries += folder.child(f"{destination.name}.").listed()
    return [folder.child(entry) for entry in entries if ours.fullmatch(entry)]


def token_of(folder: Location) -> str | None:
    """Return the token of the run of a staging folder; None if it has another name."""
    found = re.search(rf"-({TOKEN})\.parts$", folder.name)
    return found[1] if found else None


def is_working(folder: Location) -> bool:
    """Return whether a process works for the run of a staging folder."""
    files = folder.fresh_fs.find(folder.path, detail=True)
    for name, info in files.items():
        if name.endswith(f"{folder.name}/{_TAKEN}"):  # by a run that may not have signed yet
            with suppress(FileNotFoundError):
                holder = re.match(PROCESS, folder.child(_TAKEN).read_bytes().decode(errors="replace"))
                if holder and is_alive(holder[0], renewed(info)):
                    return True
    if any(name.endswith(f"/{_RELEASED}") for name in files):
        return False
    times = [renewed(info) for info in files.values()]
    if folder.is_local:
        with suppress(OSError):
            times.append(os.stat(folder.path).st_mtime)
    latest = None if None in times else max((found for found in times if found is not None), default=0.0)
    began = re.search(rf"-{TOKEN}\.(parts|tmp)$", folder.name)
    if began is None:  # the process is not known
        return latest is None or time.time() - latest < LEASE
    if is_alive(began["process"], latest):
        return True
    if latest is not None and time.time() - latest >= LEASE:
        return False  # workers of a cluster may exist for longer than the runs that they worked for
    signed = [re.search(rf"alive-({PROCESS})$", name) for name in files]
    return any(is_alive(match[1], latest) for match in signed if match)


def remove_leftovers(
    destination: Location,
    keep: Collection[Staging] = (),
    is_useful: Callable[[Location], bool] = lambda folder: False,
) -> bool:
    """Delete what dead runs staged for a destination; the files of living runs, and those to keep, stay.

    Return whether any of it was useful. The journal of an interrupted commit must be recovered before,
    because it refers to these files.
    """
    kept = {staging.folder.url for staging in keep}
    useful = False
    for folder in staging_folders(destination):
        if folder.url not in kept and not is_working(folder):
            useful = is_useful(folder) or useful
            _delete(folder)
    return useful


def remove_lock(file: Location, holder: bytes) -> None:
    """Remove the file with which a dead run kept others out, unless its content is no longer `holder`.

    Another run may have replaced the file since it was read.
    """
    if not file.is_local:
        if file.read_bytes() == holder:
            file.remove()
        return
    aside = file.temporary().path
    with storage_errors("delete", file.path):
        os.rename(file.path, aside)
        if Location(aside).read_bytes() != holder:
            with suppress(FileExistsError):
                os.link(aside, file.path)
        os.remove(aside)


def _delete(folder: Location) -> None:
    """Delete a folder, even if another process deletes it at the same time and removes files first."""
    for _ in range(_ATTEMPTS):
        try:
            folder.remove(recursive=True)
            return
        except FileNotFoundError:
            if not folder.exists():
                return
