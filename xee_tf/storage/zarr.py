"""Write Zarr stores, identify stores that this package wrote, and replace them."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import xarray as xr

from xee_tf.errors import DestinationError, DestinationExistsError
from xee_tf.storage.location import Location

__all__ = [
    "BEGUN",
    "COMPLETE",
    "PREPARED",
    "RECORD",
    "ZARR_METADATA",
    "beside",
    "create_store",
    "explain_changes",
    "open_arrays",
    "read_record",
    "replace_store",
    "require_own_store",
    "to_storable",
    "write_record",
]

RECORD = ".xee_tf"
"""The Zarr group in each store of this package that identifies the store.

It is not an attribute, because xarray copies attributes to derived datasets, which may be stored elsewhere.
"""

ZARR_METADATA = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Metadata files of Zarr formats 3 and 2."""

# Files of a Zarr group, and files that desktop systems add to folders.
_METADATA = (ZARR_METADATA - {".zarray"}) | {".DS_Store"}
_PARTIAL = r"(zarr|\.z\w+)\.[0-9a-f]{32}\.partial"  # temporary files of a zarr process that was killed
# Contents of an array's folder: metadata, and chunks in format 3 or 2.
_OF_ARRAY = re.compile(rf"zarr\.json|\.zarray|\.zattrs|\.DS_Store|c|\d+(\.\d+)*|{_PARTIAL}")

# Metadata files of Zarr nodes in format 3 or 2.
_Take = Callable[[Any], Any]
_ATTRIBUTES: Mapping[str, _Take] = {"zarr.json": lambda found: dict(found["attributes"]), ".zattrs": dict}
_SHAPE_AND_DTYPE: Mapping[str, _Take] = {
    "zarr.json": itemgetter("shape", "data_type"),
    ".zarray": itemgetter("shape", "dtype"),
}


BEGUN, PREPARED, COMPLETE = "begun", "prepared", "complete"
"""States of a store: metadata incomplete, metadata complete, pixels complete."""


def create_store(dataset: xr.Dataset, store: Location, *, compute: bool, **facts: Any) -> None:
    """Write a Dataset from `to_storable` to a new store, with a record that identifies the store.

    Without `compute`, lazy bands are not written. The `facts` are added to the record as JSON.
    """
    names = [str(name) for name in dataset.variables]
    write_record(store, {**facts, "state": BEGUN, "arrays": dict.fromkeys(names)})
    written = dataset.to_zarr(
        store.url, mode="a", compute=False, consolidated=False, storage_options=store.zarr_options
    )
    if compute:
        written.compute()
    state = COMPLETE if compute else PREPARED
    write_record(store, {**facts, "state": state, "arrays": stored_arrays(store, names)})


def _metadata(node: Location, files: Mapping[str, _Take]) -> Any:
    """Return the metadata from the first existing file of a Zarr node; None if there is none."""
    for file, take in files.items():
        with suppress(OSError, ValueError, KeyError, TypeError):
            return take(json.loads(node.child(file).read_bytes()))
    return None


def read_record(store: Location) -> dict[str, Any]:
    """Read the record that `write_record` wrote; return an empty dict if there is none."""
    found: dict[str, Any] | None = _metadata(store.child(RECORD), _ATTRIBUTES)
    return found or {}


def write_record(store: Location, record: Mapping[str, Any]) -> None:
    """Write the record that identifies a store of this package."""
    try:
        group = _open_group(store.child(RECORD), "a", attributes=dict(record))  # for a new group
        if dict(group.attrs) != dict(record):
            group.attrs.put(dict(record))
    except OSError as error:
        raise DestinationError(f"{store} cannot be written: {error}") from error


def open_arrays(store: Location) -> Any:
    """Open an existing store for writing to its arrays."""
    return _open_group(store, "r+")


def _open_group(store: Location, mode: Literal["a", "r+"], **options: Any) -> Any:
    import zarr

    return zarr.open_group(
        store.url, mode=mode, storage_options=store.zarr_options, use_consolidated=False, **options
    )


def stored_arrays(store: Location, names: Iterable[Hashable]) -> dict[str, list[Any]]:
    """Return the shape and dtype of arrays in a store, from their metadata; missing arrays are omitted."""
    found = {name: _metadata(store.child(name), _SHAPE_AND_DTYPE) for name in sorted(map(str, names))}
    return {name: list(array) for name, array in found.items() if array is not None}


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
    if unknown := [each for each in entries if each not in known and not re.fullmatch(_PARTIAL, each)]:
        return f"it contains {unknown[0]!r}"
    if not record:
        folder = next((name for name in sorted(members) if not _is_node(store.child(name))), "")
        return f"it contains {folder!r}" if folder else f"it is a Zarr store without {RECORD!r}"
    for name in sorted(members - {RECORD}):
        if name not in ours:
            return f"it contains {name!r}"
        if files := [each for each in store.child(name).entries() if not _OF_ARRAY.fullmatch(each)]:
            return f"it contains {f'{name}/{files[0]}'!r}"
    return explain_changes(store)


def _is_node(folder: Location) -> bool:
    return any(folder.child(name).exists() for name in ZARR_METADATA - {".zattrs", ".zmetadata"})


def beside(store: Location, suffix: str = "") -> Location:
    """Return a location next to a store on the same disk; symbolic links are resolved first."""
    if not store.is_local:
        return store.with_suffix(suffix)
    return Location(os.path.realpath(store.path) + suffix, store.storage_options)


def replace_store(new: Location, store: Location) -> None:
    """Replace a store by a complete new one; the old store is deleted.

    On local disks both are renamed, and the old store is kept if that fails. Object stores do not support
    renaming: the old store is deleted, then the objects of the new store are copied.

    Raises
    ------
    DestinationError
        If the replacement fails; the new store is then still complete under its own name.
    """
    try:
        if new.is_local:
            _swap(new.path, os.path.realpath(store.path))
            return
        if store.exists():
            store.remove(recursive=True)
        files = new.fs.find(new.path)
        targets = [store.path.rstrip("/") + file[len(new.path.rstrip("/")) :] for file in files]
        store.fs.copy(files, targets, on_error="raise")
        new.remove(recursive=True)
    except OSError as error:
        raise DestinationError(f"{store} cannot be replaced by {new}, which is complete: {error}") from error


def to_storable(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset without lazy coordinates and without attributes and coordinates unsupported by Zarr.

    Examples
    --------
    >>> steps = xr.Dataset(coords={"step": [b"dry", b"wet"], "owner": object()}, attrs={"title": "a", 7: "b"})
    >>> to_storable(steps).step.values.tolist(), list(to_storable(steps).coords), to_storable(steps).attrs
    (['dry', 'wet'], ['step'], {'title': 'a'})
    """
    coords = {name: _encode_coord(coord) for name, coord in dataset.coords.items()}
    bands = {
        name: xr.Variable(band.dims, band.data, _storable_attrs(band.attrs), band.encoding)
        for name, band in dataset.data_vars.items()
    }
    stored = {name: coord for name, coord in coords.items() if coord is not None}
    return xr.Dataset(bands, stored, _storable_attrs(dataset.attrs))


def _encode_coord(coord: xr.DataArray) -> xr.Variable | None:
    """Return a coordinate in the form in which Zarr stores it; None if that is not possible."""
    import zarr

    if coord.chunks is not None:
        return None
    values = coord.values
    with suppress(UnicodeDecodeError):
        if values.dtype.kind not in "biufcmM":
            # The Zarr specification has variable-length strings, but no fixed-length strings.
            values = np.asarray(np.char.decode(values) if values.dtype.kind == "S" else values, dtype=object)
    calendar = {key: coord.encoding[key] for key in ("units", "calendar") if key in coord.encoding}
    for encoding in (calendar, {}):
        stored = xr.Variable(coord.dims, values, _storable_attrs(coord.attrs), encoding)
        with suppress(Exception), warnings.catch_warnings():  # from the encoders of xarray and Zarr
            warnings.simplefilter("error")
            xr.Dataset(coords={coord.name: stored}).to_zarr(zarr.storage.MemoryStore(), consolidated=False)
            return stored
    return None


def _storable_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the attributes that JSON supports: strings, numbers, booleans, lists and mappings of these."""
    found = {}
    for name, value in attrs.items():
        plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        try:
            json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError):
            continue
        if isinstance(name, str) and type(plain) in (str, int, float, bool, list, tuple, dict, type(None)):
            found[name] = value
    return found


def _swap(new: str, path: str) -> None:
    if not os.path.lexists(path):
        os.rename(new, path)
        return
    old = Location(path).temporary(".old").path
    os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
