"""Commit staged files to their destination: either all of them appear, or the old ones stay.

A commit is exclusive: it creates the journal ``.<name>.commit`` beside the destination, which lists what it
replaces. On a local disk, the old files are moved into the staging folder, those that mark a result as
complete first; then the new files are renamed, marks last. If that fails, the old files are moved back; if
the process is killed, the next run does it. In an object store, where old and new objects have the same
names, the marks of the old files are deleted first, and from then on the old files are lost: readers raise an
error until the marks of the new files are written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, Literal, Protocol, get_args

from crc32c import crc32c

from xee_tf.errors import DestinationError, DestinationExistsError, XeeTFError
from xee_tf.options import IfExists, one_of
from xee_tf.signals import explain_interruption
from xee_tf.storage.destinations import refuse_existing
from xee_tf.storage.failures import storage_errors
from xee_tf.storage.location import Location, remove_all, rename, sync_folder
from xee_tf.storage.notes import DamagedNoteError, is_torn_note, note_bytes, read_note, write_note
from xee_tf.storage.processes import TOKEN, is_alive, new_token, process_token
from xee_tf.storage.s3 import abort_dead_uploads
from xee_tf.storage.staging import (
    Staging,
    is_working,
    remove_leftovers,
    remove_lock,
    renewed,
    staging_folders,
    token_of,
)
from xee_tf.storage.zarr_record import ROOT_METADATA

__all__ = [
    "Earlier",
    "Upload",
    "begin",
    "commit",
    "discard",
    "interruption",
    "is_resumable",
    "look",
    "recover",
    "sync",
]

Seen = Mapping[str, str]
"""What exists at a destination: for each name, a text that changes if the file is replaced."""


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
        """Look at what exists, unless this was done; the first task of a run calls it."""
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


_THREADS = 16
_SEEN = "seen.json"
_IDENTITY = "identity.json"
_starting = Lock()
_started: set[str] = set()  # staging folders of which this process has looked at the destination
_committing: set[str] = set()  # tokens of the runs that this process commits
_noting = Lock()  # for _committing
_OLD = "replaced"  # folder for the old files, in the staging folder

_Left = Literal["old", "new", "nothing"]
_LEFT: Mapping[_Left, str] = {
    "old": "Nothing was changed.",
    "new": "All files are in place.",
    "nothing": "The old files had been replaced in part, and were deleted.",
}


class Upload(Protocol):
    """An object that was uploaded completely, but does not exist until the upload is completed."""

    @property
    def target(self) -> Location:
        """The object."""

    def complete(self) -> None:
        """Make the object appear; it replaces an old one."""


class Identity(Protocol):
    """What a run writes; see `xee_tf.identity.RunIdentity`."""

    def to_json(self) -> dict[str, Any]:
        """Return a description in JSON's types."""

    def explain_difference(self, stored: Any) -> str:
        """Return how this run differs from the one with the given description; empty if it does not."""


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
            clear_leftovers(destination, committing, [staging])
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


def clear_leftovers(destination: Location, committing: bool, keep: Collection[Staging] = ()) -> None:
    """Delete what dead runs staged, except those to keep; `committing` is the result of `recover`."""
    if destination.is_s3 and not committing:
        abort_dead_uploads(destination, keep)
    remove_leftovers(destination, keep)


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
        if holder is None or is_alive(holder["process"], _written(taken)):
            return None
        taken.write_bytes(token)
    if taken.read_bytes() != token:
        return None  # another run took it at the same time
    earlier.take_up()
    return earlier


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


def look(destination: Location, files: Iterable[Location]) -> dict[str, str]:
    """Return what exists of some files in the folder of a destination; see `Seen`.

    Examples
    --------
    >>> file = Location.of("memory://commit/scene")
    >>> look(file, [file])
    {}
    >>> file.write_bytes(b"1")
    >>> before = look(file, [file])
    >>> file.write_bytes(b"2")
    >>> look(file, [file]) == before
    False
    """
    listed = {} if destination.is_local else destination.listed()  # a single request
    found = {}
    for file in files:
        if listed and file.name.startswith(destination.name) and file.name not in listed:
            continue
        with suppress(FileNotFoundError):
            found[file.name] = _fingerprint(file, listed.get(file.name))
    return found


def _fingerprint(file: Location, info: Mapping[str, Any] | None) -> str:
    if not file.is_local:
        infos = [info or file.info()]
        if infos[0].get("type") == "directory":  # the metadata of a Zarr store
            for name in ROOT_METADATA:
                with suppress(FileNotFoundError):
                    infos.append(file.child(name).info())
        keys = ("ETag", "etag", "generation", "md5", "size", "type")
        return str([[*map(each.get, keys), renewed(each)] for each in infos])
    found = os.stat(file.path)
    facts = [(found.st_ino, found.st_size, found.st_mtime_ns)]
    # A folder does not change when a file in it is replaced, but the metadata of a Zarr store does.
    for name in ROOT_METADATA:
        with suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(os.path.join(file.path, name))
            facts.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return str(facts)


@dataclass(frozen=True)
class _Journal:
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
        What existed before; see `Seen`.
    sidecars : mapping of str to int
        CRC-32C of the small files that are written last.
    """

    process: str
    token: str
    new: list[str]
    old: dict[str, str]
    sidecars: dict[str, int]

    def data(self) -> bytes:
        return note_bytes(asdict(self))


# A journal whose writer was killed before all of it was written, and so before anything was changed. This can
# happen in stores that are neither local disks nor object stores.
_TORN = _Journal("", "", [], {}, {})


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
                _place_files(staging, staged, sidecars, old)
            else:
                _place_objects(staging, staged, sidecars, uploads, old)
    except DestinationExistsError:
        if uploads and _is_committed(sidecars) and not staging.folder.exists():
            return  # this task runs again, because a worker died with its result
        if not _is_committing_same(staging):
            if earlier.identity is not None:
                staging.release()  # a later run continues, or removes what is staged
            else:
                staging.remove()  # what is staged will never be used
        raise
    finally:
        _started.discard(staging.folder.url)
    with suppress(DestinationError):  # the result is complete, and the next run removes what is left
        staging.remove()
        remove_leftovers(staging.destination)


def _is_committing_same(staging: Staging) -> bool:
    """Return whether a journal needs the staging folder of a run, because a Delayed is computed twice."""
    journal = _read(staging)
    return staging.token in _committing or (journal is not None and journal.token == staging.token)


def discard(staging: Staging) -> None:
    """Delete what a run has staged, even if it could be resumed; the same run may begin again."""
    _started.discard(staging.folder.url)
    staging.remove()


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
    _check_seen(staging, earlier.files(), seen)
    journal = _Journal(
        process_token(),
        staging.token,
        [*(file.name for file in targets), *(file.name for file, _ in sidecars)],
        dict(seen),
        {file.name: crc32c(data) for file, data in sidecars},
    )
    if staging.destination.is_local:
        os.makedirs(staging.folder.path, exist_ok=True)
    with _committed_here(staging):
        try:
            _create(staging.journal, journal)
            old = earlier.files()  # no other run changes them while the journal exists
            _check_seen(staging, old, seen)
        except BaseException:
            with suppress(OSError, XeeTFError):
                if staging.journal.read_bytes() == journal.data():  # not that of another run
                    staging.journal.remove()
            raise
        try:
            yield old
        except BaseException as error:
            left = _undo(journal, staging)
            staging.journal.remove()
            if isinstance(error, Exception):
                url, is_local = staging.destination.url, staging.destination.is_local
                with storage_errors("write", url, local=is_local, left=_LEFT[left]):
                    raise
            if left != "old":
                explain_interruption(error, f"{_LEFT[left]} Run it again.")
            raise
        try:
            staging.journal.remove()
        except DestinationError as error:
            raise DestinationError(f"{error} {_LEFT['new']}") from error


@contextmanager
def _committed_here(staging: Staging) -> Iterator[None]:
    """Note that this process commits a run, as long as its journal exists: no other thread undoes that.

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


def _create(location: Location, journal: _Journal) -> None:
    """Create a journal; raise an error if there is one."""
    try:
        location.write_bytes(journal.data(), exclusive=True, durable=True)
    except FileExistsError:
        if location.is_folder():
            raise _foreign_journal(location, "it is a folder") from None
        raise _other_commit(location, "exists") from None
    # Some object stores ignore the condition of an exclusive creation.
    if not location.is_local and location.read_bytes() != journal.data():
        raise _other_commit(location, "was created at the same time")


def _other_commit(journal: Location, why: str) -> DestinationExistsError:
    return DestinationExistsError(
        f"Another run is putting its files in place: {journal} {why}. Nothing was changed. Wait until that "
        "run has finished, then run this one again."
    )


def _check_seen(staging: Staging, existing: Sequence[Location], seen: Seen) -> None:
    """Raise an error if the existing files are not those that were seen when the run began."""
    found = look(staging.destination, existing)
    changed = next((name for name in {**found, **seen} if found.get(name) != seen.get(name)), None)
    if changed is None:
        return
    what = "was written" if changed in found else "was deleted"
    after = f"{staging.destination.parent.child(changed)} {what} after this run was planned"
    if not seen:
        raise DestinationExistsError(
            f"{after}, and already exists: nothing was changed. Choose another name, or replace it with "
            "if_exists='overwrite'."
        )
    raise DestinationExistsError(
        f"{after}, by another run or program: nothing was changed. Run it again to replace what is there now."
    )


def _place_files(
    staging: Staging,
    staged: Sequence[Location],
    sidecars: Sequence[tuple[Location, bytes]],
    old: Sequence[Location],
) -> None:
    """Put files in place on a local disk, where files are renamed."""
    for file, data in sidecars:
        with staging.staged(file).open("wb") as opened:
            opened.write(data)
    files = [*staged, *(file for file, _ in sidecars)]
    aside = staging.folder.child(_OLD)
    os.makedirs(aside.path, exist_ok=True)
    sync(*(staging.staged(file).path for file in files))
    sync_folder(staging.folder.path)
    replaced = {file.name for file in files}
    for file in old:
        # A link to a file that is replaced stays, and one to a file that is not needed is removed.
        move = rename if file.name in replaced else os.rename
        move(file.path, aside.child(file.name).path)
    for file in files:
        rename(staging.staged(file).path, file.path)
    sync_folder(staging.destination.parent.path)


def sync(*paths: str) -> None:
    """Write files, and folders with all that they contain, to the disk."""
    files = [path for path in paths if not os.path.isdir(path)]
    folders = [folder for path in paths for folder in os.walk(path, topdown=False)]
    files += [os.path.join(folder, name) for folder, _, names in folders for name in names]
    with ThreadPoolExecutor(_THREADS) as pool:  # file systems write the files of several threads at once
        list(pool.map(_sync_file, files))
    for folder, _, _ in folders:
        sync_folder(folder)


def _sync_file(path: str) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _place_objects(
    staging: Staging,
    staged: Sequence[Location],
    sidecars: Sequence[tuple[Location, bytes]],
    uploads: Sequence[Upload],
    old: Sequence[Location],
) -> None:
    """Put objects in place in a store in which they replace those of the same names."""
    targets = {target.name for target in (*staged, *(upload.target for upload in uploads))}
    remove_all([file for file in old if file.name not in targets])

    def move(target: Location) -> None:
        source = staging.staged(target)
        if source.is_folder():
            _replace_tree(source, target)
        else:
            _move_over(source, target)

    with ThreadPoolExecutor(_THREADS) as pool:
        waiting = [pool.submit(upload.complete) for upload in uploads]
        waiting += [pool.submit(move, target) for target in staged]
        try:
            for done in waiting:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for file, data in sidecars:
        file.write_bytes(data)


def _move_over(source: Location, target: Location) -> None:
    """Move a file to a place where there may be an old one, which some stores refuse or ignore."""
    if source.bucket is not None:
        source.move(target)
        return
    with suppress(DestinationError):
        source.move(target)
    if source.exists():
        with suppress(FileNotFoundError):
            target.remove()
        source.move(target)
    if source.exists():
        raise DestinationError(f"Cannot write {target}: the store did not move {source}, but gave no error.")


def _replace_tree(source: Location, target: Location) -> None:
    """Copy the objects of a Zarr store over an old one, so that it cannot be opened until all are there."""
    fs, origin, base = source.fresh_fs, source.path.rstrip("/"), target.path.rstrip("/")
    marks = [f"{base}/{name}" for name in reversed(ROOT_METADATA)]
    old = fs.find(base)
    for chosen in ([path for path in marks if path in old], [path for path in old if path not in marks]):
        if chosen:
            target.remove_objects(chosen)
    pairs = [(path, base + path[len(origin) :]) for path in fs.find(origin)]
    for chosen in ([p for p in pairs if p[1] not in marks], [p for p in pairs if p[1] in marks]):
        if target.bucket is None:  # filesystems that create no folders cannot copy into new ones
            for path, copy in chosen:
                target.child(copy[len(base) + 1 :]).write_bytes(bytes(fs.cat_file(path)))
        elif chosen:
            fs.copy([path for path, _ in chosen], [path for _, path in chosen], on_error="raise")


def _undo(journal: _Journal, staging: Staging) -> _Left:
    """Undo an interrupted commit as far as possible; return which files are there."""
    return (_undo_files if staging.destination.is_local else _undo_objects)(journal, staging)


def _undo_files(journal: _Journal, staging: Staging) -> _Left:
    """Move the old files back. If this is interrupted too, it can be repeated."""
    parent, folder = staging.destination.parent.path, staging.folder.path
    there = os.path.lexists

    def place(name: str) -> str:
        return os.path.realpath(os.path.join(parent, name))

    def staged(name: str) -> str:
        return os.path.join(folder, name)

    def aside(name: str) -> str:
        return os.path.join(folder, _OLD, name)

    if not there(os.path.join(folder, _OLD)):  # it is created before anything is renamed
        return "old"
    if all(there(place(name)) and not there(staged(name)) for name in journal.new):
        return "new"
    for name in journal.new:
        is_new = name not in journal.old or there(aside(name))
        if there(place(name)) and not there(staged(name)) and is_new:
            rename(place(name), staged(name))
    for name in journal.old:
        if os.path.islink(aside(name)):
            os.rename(aside(name), os.path.join(parent, name))
        elif there(aside(name)):
            rename(aside(name), place(name))
    sync_folder(parent)
    return "old"


def _undo_objects(journal: _Journal, staging: Staging) -> _Left:
    """Delete new objects, and the old ones if some of them were replaced or deleted."""
    parent = staging.destination.parent
    files = {name: parent.child(name) for name in [*journal.old, *journal.new]}
    found = look(staging.destination, files.values())
    if journal.sidecars:
        complete = all(
            name in found and crc32c(files[name].read_bytes()) == crc
            for name, crc in journal.sidecars.items()
        )
    else:
        complete = all(name in found and not staging.staged(files[name]).exists() for name in journal.new)
    if complete:
        return "new"
    unchanged = all(found.get(name) == known for name, known in journal.old.items())
    remove_all([files[name] for name in found if not unchanged or name not in journal.old])
    return "old" if unchanged else "nothing"


def interruption(destination: Location) -> str:
    """Return why a destination is incomplete, as a sentence, or "" if no commit is in progress.

    Readers call it if they do not find the file that marks a result as complete.
    """
    staging = Staging(destination, "")
    journal = _read(staging)
    if journal is None:
        return ""
    if _is_committing(journal, staging):
        return f"A run is putting the files of {destination} in place: try again when it has finished."
    return (
        f"A run was interrupted while it put the files of {destination} in place. Run it again: this first "
        + ("restores the old files." if destination.is_local else "deletes what is incomplete.")
    )


def _read(staging: Staging) -> _Journal | None:
    """Read the journal of a destination; return None if there is none."""
    try:
        found = read_note(staging.journal)
    except DamagedNoteError as error:
        if is_torn_note(staging.journal):
            return _TORN
        raise _foreign_journal(staging.journal, str(error)) from None
    return None if found is None else _Journal(**found)


def _foreign_journal(location: Location, why: str) -> DestinationError:
    name = re.sub(r"(^\.)|(\.commit(\.undo)?$)", "", location.name)
    return DestinationError(
        f"{location} is not a journal of xee_tf, because {why}. Exports to {name!r} need this name: "
        "rename it or, if no other run writes to this destination, delete it."
    )


def recover(destination: Location) -> bool:
    """Undo a commit that was interrupted; return whether another run is committing."""
    staging = Staging(destination, "")
    journal = _read(staging)
    if journal is None:
        return False
    if _is_committing(journal, staging):
        return True
    # Only one process undoes the commit: another one would undo what comes after it.
    lock = staging.journal.with_suffix(".undo")
    try:
        lock.write_bytes(process_token().encode(), exclusive=True)
    except FileExistsError:
        if lock.is_folder():
            raise _foreign_journal(lock, "it is a folder") from None
        with suppress(FileNotFoundError):  # it vanished
            holder = lock.read_bytes()
            if not is_alive(holder.decode(errors="replace"), _written(lock)):
                remove_lock(lock, holder)
                return recover(destination)
        raise DestinationExistsError(
            f"Another run is restoring the files of {destination} after an interruption. Run this one again."
        ) from None
    try:
        if _read(staging) == journal:
            if journal != _TORN:
                _undo(journal, Staging(destination, journal.token))
            staging.journal.remove()
    finally:
        lock.remove()
    return False


def _is_committing(journal: _Journal, staging: Staging) -> bool:
    """Return whether a process still puts files in place; this one may have failed to undo a commit."""
    if journal == _TORN:
        folders = staging_folders(staging.destination)
        return any(is_working(folder) for folder in folders if folder.url != staging.folder.url)
    if journal.process == process_token():
        return journal.token in _committing
    return is_alive(journal.process, _written(staging.journal))


def _written(file: Location) -> float | None:
    with suppress(FileNotFoundError):
        return renewed(file.fresh_fs.info(file.path))
    return None
