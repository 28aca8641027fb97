"""Put staged files in place, and undo that.

On a local disk, the old files are moved into the staging folder, those that mark a result as complete first;
then the new files are renamed, marks last. To undo it, the old files are moved back.

In an object store, where old and new objects have the same names, the marks of the old files are deleted
first, and from then on the old files are lost: readers raise an error until the marks of the new files are
written. To undo it, what is there is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, Protocol

from crc32c import crc32c

from xee_tf.errors import DestinationError
from xee_tf.storage.failures import storage_errors
from xee_tf.storage.journal import Journal
from xee_tf.storage.local import rename, sync_all, sync_folder
from xee_tf.storage.location import Location
from xee_tf.storage.objects import remove_objects
from xee_tf.storage.seen import look
from xee_tf.storage.staging import Staging
from xee_tf.storage.zarr_record import ROOT_METADATA

__all__ = ["LEFT", "Left", "Upload", "place_files", "place_objects", "undo"]

_THREADS = 16
_OLD = "replaced"  # folder for the old files, in the staging folder

Left = Literal["old", "new", "nothing"]
"""Which files a commit has left that was undone."""

LEFT: Mapping[Left, str] = {
    "old": "Nothing was changed.",
    "new": "All files are in place.",
    "nothing": "The old files had been replaced in part, and were deleted.",
}
"""The same in a sentence."""


class Upload(Protocol):
    """An object that was uploaded completely, but does not exist until the upload is completed."""

    @property
    def target(self) -> Location:
        """The object."""

    def complete(self) -> None:
        """Make the object appear; it replaces an old one."""


def place_files(
    staging: Staging,
    staged: Sequence[Location],
    sidecars: Sequence[tuple[Location, bytes]],
    old: Sequence[Location],
) -> None:
    """Put files in place on a local disk, where files are renamed; see `xee_tf.storage.commit`."""
    for file, data in sidecars:
        with staging.staged(file).open("wb") as opened:
            opened.write(data)
    files = [*staged, *(file for file, _ in sidecars)]
    aside = staging.folder.child(_OLD)
    os.makedirs(aside.path, exist_ok=True)
    sync_all(*(staging.staged(file).path for file in files))
    sync_folder(staging.folder.path)
    replaced = {file.name for file in files}
    for file in old:
        # A link to a file that is replaced stays, and one to a file that is not needed is removed.
        move = rename if file.name in replaced else os.rename
        move(file.path, aside.child(file.name).path)
    for file in files:
        rename(staging.staged(file).path, file.path)
    sync_folder(staging.destination.parent.path)


def place_objects(
    staging: Staging,
    staged: Sequence[Location],
    sidecars: Sequence[tuple[Location, bytes]],
    uploads: Sequence[Upload],
    old: Sequence[Location],
) -> None:
    """Put objects in place in a store in which they replace those of the same names."""
    targets = {target.name for target in (*staged, *(upload.target for upload in uploads))}
    _remove_all([file for file in old if file.name not in targets])

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


def _remove_all(files: Sequence[Location]) -> None:
    """Delete files and folders that exist in one folder, in an object store with few requests.

    Examples
    --------
    >>> files = [Location.of(f"memory://removed/{name}") for name in ("a", "b")]
    >>> for file in files:
    ...     file.write_bytes(b"")
    >>> _remove_all(files)
    >>> [file.exists() for file in files]
    [False, False]
    """
    if not files or files[0].bucket is None:
        for file in files:
            file.remove(recursive=True)
        return
    prefix = os.path.commonprefix([file.name for file in files])  # noqa: RUF071 - not paths
    names = files[0].parent.child(prefix)

    def listed(kind: str) -> list[Location]:
        found = names.listed()
        return [file for file in files if found.get(file.name, {}).get("type") == kind]

    for folder in listed("directory"):
        folder.remove(recursive=True)
    with storage_errors("delete", names.url, local=False):
        remove_objects(files[0].fs, [file.path for file in listed("file")])
    for file in listed("file"):  # some filesystems ignore the errors of such requests
        file.remove()


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
    for copies in ([p for p in pairs if p[1] not in marks], [p for p in pairs if p[1] in marks]):
        if target.bucket is None:  # filesystems that create no folders cannot copy into new ones
            for path, copy in copies:
                target.child(copy[len(base) + 1 :]).write_bytes(bytes(fs.cat_file(path)))
        elif copies:
            fs.copy([path for path, _ in copies], [path for _, path in copies], on_error="raise")


def undo(journal: Journal, staging: Staging) -> Left:
    """Undo an interrupted commit as far as possible; return which files are there."""
    return (_undo_files if staging.destination.is_local else _undo_objects)(journal, staging)


def _undo_files(journal: Journal, staging: Staging) -> Left:
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


def _undo_objects(journal: Journal, staging: Staging) -> Left:
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
    _remove_all([files[name] for name in found if not unchanged or name not in journal.old])
    return "old" if unchanged else "nothing"
