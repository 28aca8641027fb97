"""Files on local disks: they appear whole, and survive a crash of the machine once they are synchronized.

The functions take paths. A symbolic link stays, and what it points to is replaced.
"""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from xee_tf.storage.processes import temporary_name

__all__ = ["rename", "sync_all", "sync_folder", "write_file"]

_THREADS = 16


def write_file(path: str, data: bytes, *, exclusive: bool = False, durable: bool = False) -> None:
    """Write a small file in an existing folder atomically; see `Location.write_bytes`."""
    temporary = _temporary(path)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if exclusive:
            _create(temporary, path, data)
            with suppress(OSError):  # the file exists
                os.remove(temporary)
        else:
            rename(temporary, path)
        if durable:
            sync_folder(os.path.dirname(path))
    except BaseException:
        with suppress(OSError):
            os.remove(temporary)
        raise


def _create(source: str, target: str, data: bytes) -> None:
    """Give a file another name, which must not exist."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # the disk has no hard links
        with open(target, "xb") as file:
            file.write(data)


def rename(source: str, target: str) -> None:
    """Rename a file or folder, and replace a file at the target.

    Of a symbolic link, the file or folder that it points to is renamed or replaced.
    """
    source, target = os.path.realpath(source), os.path.realpath(target)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A link points to another disk: copy the file there first, so that the rename is atomic.
        copy = _temporary(target)
        shutil.move(source, copy)
        os.replace(copy, target)


def _temporary(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, temporary_name(name))


def sync_all(*paths: str) -> None:
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


def sync_folder(path: str) -> None:
    """Write the names in a folder to the disk."""
    if os.name != "posix":  # folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
