"""Operations for which the methods of fsspec's filesystems do not suffice.

They take names with ``*``, ``?`` or ``[`` for patterns, may delete several objects with too many requests or
without raising all errors, do not read a chosen version of an object, and cannot read parts of a file if the
server sends only whole ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import fsspec
from fsspec.asyn import sync

from xee_tf.errors import RecordError
from xee_tf.storage.address import Address
from xee_tf.storage.failures import is_other_version
from xee_tf.storage.filesystems import has_wildcard

__all__ = ["find_entries", "move_file", "read_range", "read_version", "remove_objects", "remove_tree"]

_CONCURRENT = 64  # requests to Azure at the same time
_WHOLE_FILE = 64 << 20  # maximum bytes to download if a server does not support byte ranges


def find_entries(fs: fsspec.AbstractFileSystem, folder: str, prefix: str) -> dict[str, Mapping[str, Any]]:
    """Return the entries of a folder by name: those whose names start with a prefix, and perhaps others."""
    if prefix:
        try:
            found = fs.find(folder, maxdepth=1, withdirs=True, detail=True, prefix=prefix).values()
        except (TypeError, ValueError):  # not all filesystems support these options together
            found = fs.ls(folder, detail=True)
    else:
        found = fs.ls(folder, detail=True)
    names = ((str(entry["name"]).rstrip("/"), entry) for entry in found)
    return {name.rsplit("/", 1)[-1]: entry for name, entry in names if name.strip("/") != folder.strip("/")}


def move_file(fs: fsspec.AbstractFileSystem, source: str, target: str) -> None:
    """Move a file, whose path is not taken for a pattern."""
    if not has_wildcard(source):
        fs.mv(source, target)
        return
    try:
        fs.cp_file(source, target)
    except NotImplementedError:  # filesystems that cannot copy rename, and take no path for a pattern
        fs.mv(source, target)
    else:
        fs.rm_file(source)


def remove_tree(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Delete a file or folder whose path `fs.rm` would take for a pattern."""
    if not fs.isdir(path):
        fs.rm_file(path)
        return
    found = fs.find(path, withdirs=True, detail=True)
    for each in sorted({*found, path}, reverse=True):  # a folder comes after its contents
        if each in found and found[each]["type"] != "directory":
            fs.rm_file(each)
        else:
            with suppress(FileNotFoundError):  # in some stores, only files make a folder
                fs.rmdir(each)


def remove_objects(fs: fsspec.AbstractFileSystem, paths: Sequence[str]) -> None:
    """Delete objects, many with each request if the store supports that.

    Some filesystems ignore the errors of such requests, so the caller looks what is left.
    """
    several = [path for path in paths if not has_wildcard(path)] if len(paths) > 1 else []
    if several:
        with suppress(RuntimeError, FileNotFoundError):  # of adlfs and gcsfs
            if hasattr(fs, "service_client"):
                _delete_blobs(fs, several)
            else:
                fs.rm(several)
    for path in set(paths).difference(several):
        fs.rm_file(path)


def _delete_blobs(fs: Any, paths: Sequence[str]) -> None:
    """Delete blobs of Azure at the same time, with one request for each: `rm` of adlfs needs two."""

    async def delete() -> None:
        for number in range(0, len(paths), _CONCURRENT):
            chosen = paths[number : number + _CONCURRENT]
            await asyncio.gather(*map(fs._rm_file, chosen), return_exceptions=True)

    sync(fs.loop, delete)


def read_range(file: Address, start: int, end: int | None) -> bytes:
    """Read the bytes ``start..end`` of a file.

    Raises
    ------
    RecordError
        If a web server sends a large file as a whole instead of the range.
    """
    fs, path = file.fs, file.path
    if end is None or end <= start:
        return bytes(fs.cat_file(path, start=start, end=end))
    try:
        data = bytes(fs.cat_file(path, start=start, end=end))
    except ValueError as error:  # raised by fsspec if the server does not support ranges
        if "range" not in str(error):
            raise
        data = bytes(fs.cat_file(path))
    if len(data) > end - start:
        if len(data) > _WHOLE_FILE:
            raise RecordError(
                f"The server of {file} does not support byte ranges: it sent all {len(data)} bytes "
                f"for a range of {end - start}. Download the files first and open the copies."
            )
        data = data[start:end]
    return data


def read_version(file: Address, start: int, end: int | None) -> bytes:
    """Read the bytes ``start..end`` of an object in S3 whose ETag is known.

    Raises
    ------
    RecordError
        If the object has another ETag.
    """
    fs: Any = file.fs
    last = "" if end is None else max(end, start + 1) - 1

    async def read() -> bytes:
        arguments = {"Bucket": file.bucket, "Key": file.key}
        if start or end is not None:  # an empty object has no range
            arguments["Range"] = f"bytes={start}-{last}"
        body = (await fs._call_s3("get_object", IfMatch=file.etag, **arguments))["Body"]
        try:
            return bytes(await body.read())
        finally:
            body.close()

    try:
        data: bytes = sync(fs.loop, read)
    except Exception as error:
        if not is_other_version(error):
            raise
        raise RecordError(f"{file} was replaced or modified after it was opened: open it again.") from error
    return data if end is None else data[: max(0, end - start)]
