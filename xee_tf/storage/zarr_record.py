"""The record in each Zarr store of this package: what it was written from, and how far it is.

A store is unfinished until its root has metadata: they are written last, and xarray cannot open it before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from operator import itemgetter
from typing import Any

from xee_tf.errors import DestinationExistsError
from xee_tf.storage.location import Location
from xee_tf.storage.processes import LEASE, TOKEN
from xee_tf.storage.staging import Staging

__all__ = [
    "BEGUN",
    "COMPLETE",
    "PREPARED",
    "RECORD",
    "ROOT_METADATA",
    "ZARR_METADATA",
    "beside",
    "clear_store",
    "explain_changes",
    "has_root",
    "is_finished",
    "read_record",
    "remove_old_replacement",
    "remove_temporary_files",
    "require_own_store",
    "stored_arrays",
    "write_record",
]

RECORD = ".xee_tf"
"""The Zarr group in each store of this package that identifies the store.

It is not an attribute, because xarray copies attributes to derived datasets, which may be stored elsewhere.
"""

BEGUN, PREPARED, COMPLETE = "begun", "prepared", "complete"
"""States of a store: metadata incomplete, metadata complete, pixels complete."""

ZARR_METADATA = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Metadata files of Zarr formats 3 and 2."""

ROOT_METADATA = (".zmetadata", ".zattrs", ".zgroup", "zarr.json")
"""Metadata files of the root in the order in which they are written: without the last, it is no group."""

# Files of a Zarr group, and files that desktop systems add to folders.
_METADATA = (ZARR_METADATA - {".zarray"}) | {".DS_Store"}
# Temporary files that a killed process left: those of zarr and of `Location.write_bytes`.
_TEMPORARY = rf"(zarr|\.z\w+|\d+(\.\d+)*)\.[0-9a-f]{{32}}\.partial|\.\S+-{TOKEN}\.tmp"
# Files in an array's folder: metadata, and chunks in format 3 or 2.
_OF_ARRAY = r"zarr\.json|\.zarray|\.zattrs|(c/)?\d+([./]\d+)*|c"
# Files of a record, and of chunks that `predict_to_zarr` has finished.
_OF_RECORD = r"zarr\.json|\.zgroup|\.zattrs|finished/\d+(-\d+)*"
# Files of other software, and what processes left that were killed, in any folder.
_ANYWHERE = rf"(.*/)?(\.DS_Store|{_TEMPORARY})"

# Metadata files of Zarr nodes in format 3 or 2.
_Take = Callable[[Any], Any]
_ATTRIBUTES: Mapping[str, _Take] = {
    "zarr.json": lambda found: {**found["attributes"], "format": 3},
    ".zattrs": lambda found: {**found, "format": 2},
}
_SHAPE_AND_DTYPE: Mapping[str, _Take] = {
    "zarr.json": itemgetter("shape", "data_type"),
    ".zarray": itemgetter("shape", "dtype"),
}

# Errors of files that do not exist or are damaged; what an unreachable store holds is not known.
_NO_METADATA = (
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    ValueError,
    KeyError,
    TypeError,
    RecursionError,
)


def _metadata(node: Location, files: Mapping[str, _Take]) -> Any:
    """Return the metadata from the first existing file of a Zarr node; None if there is none."""
    for file, take in files.items():
        with suppress(*_NO_METADATA):
            return take(json.loads(node.child(file).read_bytes()))
    return None


def read_record(store: Location) -> dict[str, Any]:
    """Read the record that `write_record` wrote; return an empty dict if there is none, or it is damaged."""
    found: dict[str, Any] | None = _metadata(store.child(RECORD), _ATTRIBUTES)
    return found if found is not None and _is_valid(found) else {}


def _is_valid(record: Mapping[str, Any]) -> bool:
    state, arrays, root = record.get("state"), record.get("arrays"), record.get("root")
    return (
        state in (None, BEGUN, PREPARED, COMPLETE)
        and (isinstance(arrays, dict) or (arrays is None and state is None))
        and (root is None or _is_text(root))
        and isinstance(record.get("files", 0), int)
    )


def _is_text(files: Any) -> bool:
    return isinstance(files, dict) and all(isinstance(text, str) for text in files.values())


def write_record(store: Location, record: Mapping[str, Any], *, durable: bool = False) -> None:
    """Write the record that identifies a store of this package; its key ``format`` is that of the store."""
    group, attributes = store.child(RECORD), dict(record)
    if record["format"] == 2:
        # First the attributes, which identify the store.
        group.child(".zattrs").write_bytes(json.dumps(attributes).encode(), durable=durable)
        group.child(".zgroup").write_bytes(b'{"zarr_format": 2}', durable=durable)
    else:
        metadata = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        group.child("zarr.json").write_bytes(json.dumps(metadata).encode(), durable=durable)


def stored_arrays(store: Location, names: Iterable[Hashable]) -> dict[str, list[Any]]:
    """Return the shape and dtype of arrays in a store, from their metadata; missing arrays are omitted."""
    found = {name: _metadata(store.child(name), _SHAPE_AND_DTYPE) for name in sorted(map(str, names))}
    return {name: list(array) for name, array in found.items() if array is not None}


def is_finished(store: Location) -> bool:
    """Return whether a store of this package is complete; xarray can open no other."""
    record = read_record(store)
    return record.get("state") == COMPLETE and has_root(store)


def has_root(store: Location) -> bool:
    """Return whether the root of a store is a Zarr group, so that xarray can open the store."""
    return store.child("zarr.json").exists() or store.child(".zgroup").exists()


def explain_changes(store: Location) -> str:
    """Return why the arrays of a store differ from those that were written, or "" if they do not.

    An unfinished store may lack arrays.
    """
    record = read_record(store)
    if record.get("state") == BEGUN:
        return ""
    written = record.get("arrays") or {}
    current = stored_arrays(store, written)
    changed = next((name for name in written if current.get(name) != written[name]), "")
    return f"its array {changed!r} is not the one that was written" if changed else ""


def require_own_store(store: Location) -> None:
    """Check that a folder may be deleted: it is empty, or a Zarr store that this package wrote.

    Raises
    ------
    DestinationExistsError
        If the folder has other contents.

    Examples
    --------
    >>> folder = Location.of("memory://stores/documents")
    >>> folder.child("thesis.txt").write_bytes(b"A thesis")
    >>> require_own_store(folder)
    Traceback (most recent call last):
    ...
    xee_tf.errors.DestinationExistsError: memory://stores/documents is not replaced, because it is not a \
store that xee_tf wrote: it contains 'thesis.txt'. Choose another name, or delete it first.
    """
    if found := _foreign_contents(store):
        raise DestinationExistsError(
            f"{store} is not replaced, because it is not a store that xee_tf wrote: {found}. Choose another "
            "name, or delete it first."
        )


def _foreign_contents(store: Location) -> str:
    """Return why a path may not be deleted, as part of a sentence, or "" if it may."""
    if not store.is_folder():
        return "it is a file"
    entries = store.entries()
    if not entries:
        return ""
    record = read_record(store)
    ours = record.get("arrays") or {}
    members = {name for name, is_folder in entries.items() if is_folder}
    known = members | _METADATA
    if unknown := [each for each in entries if each not in known and not re.fullmatch(_TEMPORARY, each)]:
        return f"it contains {unknown[0]!r}"
    if not record:
        folder = next((name for name in sorted(members) if not _is_node(store.child(name))), "")
        return (
            f"it contains {folder!r}"
            if folder
            else f"it is a Zarr store without {RECORD!r}, or with a damaged one"
        )
    for name in sorted(members - {RECORD}):
        if name not in ours:
            return f"it contains {name!r}"
    for path in sorted(store.fresh_fs.find(store.path)):
        folder, _, file = path.removeprefix(store.path.rstrip("/")).lstrip("/").partition("/")
        known_files = _OF_RECORD if folder == RECORD else _OF_ARRAY
        if file and not re.fullmatch(rf"{known_files}|{_ANYWHERE}", file):
            return f"it contains {f'{folder}/{file}'!r}"
    return explain_changes(store)


def _is_node(folder: Location) -> bool:
    return any(folder.child(name).exists() for name in ZARR_METADATA - {".zattrs", ".zmetadata"})


def clear_store(store: Location, run: Staging) -> None:
    """Delete an unfinished store of this package; the run that calls it must have claimed the store.

    It can be repeated after an interruption.
    """
    if not store.exists():
        return
    if store.is_local:
        aside = run.folder.child("cleared").temporary().path  # an earlier one may have been left
        os.makedirs(run.folder.path, exist_ok=True)
        os.rename(store.path, aside)
        shutil.rmtree(aside)
        return
    if record := read_record(store):
        write_record(store, {**record, "state": BEGUN})
    own = f"{store.child(RECORD).path}/"
    paths = store.fresh_fs.find(store.path)
    for last in (False, True):  # the record last
        if chosen := [path for path in paths if path.startswith(own) == last]:
            store.remove_objects(chosen)


def remove_temporary_files(store: Location) -> None:
    """Delete the temporary files that a killed process left in a store; no process may write to the store."""
    if store.is_local:
        for folder, _, files in os.walk(store.path):
            for name in files:
                if re.fullmatch(_TEMPORARY, name):
                    os.remove(os.path.join(folder, name))


def remove_old_replacement(store: Location) -> None:
    """Delete the unfinished store that a version before 0.3 left beside a store that it was to replace.

    It is recognized by its record, and kept if it has other contents, is complete, or was changed recently.
    """
    folder = store.with_suffix(".replacement")
    if not store.is_local or not folder.is_folder():
        return
    record = read_record(folder)
    unfinished = record.get("state") in (BEGUN, PREPARED) and "prediction" in record and "root" not in record
    if not unfinished or _foreign_contents(folder):
        return
    times = [os.stat(path).st_mtime for path in folder.fs.find(folder.path)]
    if time.time() - max(times) >= LEASE:
        folder.remove(recursive=True)


def beside(store: Location) -> Location:
    """Return a store with symbolic links resolved; files next to it are on the same disk."""
    return Location(os.path.realpath(store.path), store.storage_options) if store.is_local else store
