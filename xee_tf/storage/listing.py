"""List the files with a common prefix, in one request where the store can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xee_tf.storage.location import Location, is_inaccessible

__all__ = ["list_files"]


def list_files(prefix: Location) -> dict[str, Mapping[str, Any]]:
    """Return the files whose names start with the name of a prefix, each with what the store says about it.

    In a bucket, only names with this prefix are listed, not the whole folder. The result is empty if there
    are no such files, or if the store cannot be listed.

    Examples
    --------
    >>> for name in ("scene-mixer.json", "scene-00000.tfrecord", "other"):
    ...     Location.of(f"memory://list-files/{name}").write_bytes(b"content")
    >>> [(name, info["size"]) for name, info in list_files(Location.of("memory://list-files/scene-")).items()]
    [('scene-00000.tfrecord', 7), ('scene-mixer.json', 7)]
    """
    fs, folder, name = prefix.fresh_fs, prefix.parent.path, prefix.name
    try:
        entries = fs.ls(folder, detail=True) if prefix.bucket is None else _find(fs, folder, name)
    except Exception as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        if not missing and (prefix.is_local or not is_inaccessible(error)):
            raise
        return {}
    depth = folder.strip("/").count("/") + 1
    found = {
        path.rsplit("/", 1)[-1]: entry
        for entry in entries
        if (path := str(entry["name"])) and entry["type"] == "file"
    }
    return {
        key: found[key]
        for key in sorted(found)
        if key.startswith(name) and str(found[key]["name"]).strip("/").count("/") == depth
    }


def _find(fs: Any, folder: str, name: str) -> list[Mapping[str, Any]]:
    """List the objects of a bucket with a prefix."""
    try:
        found = fs.find(folder, maxdepth=1, detail=True, prefix=name)
    except (TypeError, ValueError):  # some filesystems do not support both options
        found = fs.find(folder, detail=True, prefix=name)
    return list(found.values())
