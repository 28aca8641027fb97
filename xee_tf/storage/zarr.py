"""Zarr stores: what they can hold, whether a folder is one of ours, and putting a new one in its place."""

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
    "open_arrays",
    "read_record",
    "replace_store",
    "require_our_store",
    "storable",
    "why_changed",
    "write_record",
]

RECORD = ".xee_tf"
"""The Zarr group, inside each store of this package, that says what the store is.

It is no attribute: xarray hands attributes on, so that stores which others derive would have them too.
"""

ZARR_METADATA = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Files that Zarr, of formats 3 and 2, keeps its metadata in."""

# Files of a Zarr group, and of the systems that people look into folders with.
_METADATA = (ZARR_METADATA - {".zarray"}) | {".DS_Store"}
_PARTIAL = r"(zarr|\.z\w+)\.[0-9a-f]{32}\.partial"  # what zarr leaves of a file where its process is killed
# What the folder of an array holds: metadata, and chunks of format 3 or 2.
_OF_ARRAY = re.compile(rf"zarr\.json|\.zarray|\.zattrs|\.DS_Store|c|\d+(\.\d+)*|{_PARTIAL}")

# Where nodes of Zarr have their metadata, in format 3 or 2.
_Take = Callable[[Any], Any]
_ATTRIBUTES: Mapping[str, _Take] = {"zarr.json": lambda found: dict(found["attributes"]), ".zattrs": dict}
_SHAPE_AND_DTYPE: Mapping[str, _Take] = {
    "zarr.json": itemgetter("shape", "data_type"),
    ".zarray": itemgetter("shape", "dtype"),
}


BEGUN, PREPARED, COMPLETE = "begun", "prepared", "complete"
"""States of a store: metadata are written, all metadata are there, all pixels are there."""


def create_store(dataset: xr.Dataset, store: Location, *, compute: bool, **facts: Any) -> None:
    """Write a Dataset, as `storable` gives it, where nothing is yet, with a record of what the store is.

    Without `compute`, lazy bands are not written. The `facts` are for the record, as JSON holds them.
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
    """What the first file has that a node of Zarr does have; None if there is none."""
    for file, take in files.items():
        with suppress(OSError, ValueError, KeyError, TypeError):
            return take(json.loads(node.child(file).read_bytes()))
    return None


def read_record(store: Location) -> dict[str, Any]:
    """What `write_record` has written; empty where that is nothing."""
    found: dict[str, Any] | None = _metadata(store.child(RECORD), _ATTRIBUTES)
    return found or {}


def write_record(store: Location, record: Mapping[str, Any]) -> None:
    """Note in a store that this package writes it, and what it is."""
    try:
        group = _open_group(store.child(RECORD), "a", attributes=dict(record))  # if there is none yet
        if dict(group.attrs) != dict(record):
            group.attrs.put(dict(record))
    except OSError as error:
        raise DestinationError(f"{store} cannot be written: {error}") from error


def open_arrays(store: Location) -> Any:
    """The group of a store that is there, to write into its arrays."""
    return _open_group(store, "r+")


def _open_group(store: Location, mode: Literal["a", "r+"], **options: Any) -> Any:
    import zarr

    return zarr.open_group(
        store.url, mode=mode, storage_options=store.zarr_options, use_consolidated=False, **options
    )


def stored_arrays(store: Location, names: Iterable[Hashable]) -> dict[str, list[Any]]:
    """Shape and dtype of the arrays of a store, as their metadata say; without those that are not there."""
    found = {name: _metadata(store.child(name), _SHAPE_AND_DTYPE) for name in sorted(map(str, names))}
    return {name: list(array) for name, array in found.items() if array is not None}


def why_changed(store: Location) -> str:
    """Why the arrays of a store of ours are not those that were written; empty if they are.

    Of a store that was begun, arrays may be missing.
    """
    record = read_record(store)
    if record.get("state") == BEGUN:
        return ""
    written = record.get("arrays") or {}
    there = stored_arrays(store, written)
    changed = next((name for name in written if there.get(name) != written[name]), "")
    return f"its array {changed!r} is not the one that was written" if changed else ""


def require_our_store(store: Location) -> None:
    """Raise an error unless a folder may be deleted: it is empty, or a Zarr store that this package wrote.

    Raises
    ------
    DestinationExistsError
        With what is there instead.

    Examples
    --------
    >>> folder = Location.of("memory://stores/documents")
    >>> folder.child("thesis.txt").write_bytes(b"A thesis")
    >>> require_our_store(folder)
    Traceback (most recent call last):
    ...
    xee_tf.errors.DestinationExistsError: memory://stores/documents is not replaced, because it is not a \
store that xee_tf wrote: it holds 'thesis.txt'. Choose another name, or delete it first.
    """
    if found := _foreign(store):
        raise DestinationExistsError(
            f"{store} is not replaced, because it is not a store that xee_tf wrote: {found}. Choose another "
            "name, or delete it first."
        )


def _foreign(store: Location) -> str:
    """Why a path may not be deleted, as part of a sentence; empty if it may."""
    if not store.is_folder():
        return "it is a file"
    entries = store.entries()
    if not entries:
        return ""
    record = read_record(store)
    ours = record.get("arrays") or {}
    members = {name for name, is_folder in entries.items() if is_folder}
    known = members | _METADATA
    if odd := [each for each in entries if each not in known and not re.fullmatch(_PARTIAL, each)]:
        return f"it holds {odd[0]!r}"
    if not record:
        strange = next((name for name in sorted(members) if not _is_node(store.child(name))), "")
        return f"it holds {strange!r}" if strange else f"it is a Zarr store without {RECORD!r}"
    for name in sorted(members - {RECORD}):
        if name not in ours:
            return f"it holds {name!r}"
        if stray := [each for each in store.child(name).entries() if not _OF_ARRAY.fullmatch(each)]:
            return f"it holds {f'{name}/{stray[0]}'!r}"
    return why_changed(store)


def _is_node(folder: Location) -> bool:
    return any(folder.child(name).exists() for name in ZARR_METADATA - {".zattrs", ".zmetadata"})


def beside(store: Location, suffix: str = "") -> Location:
    """A name beside a store, on the same disk: where the path is a link, beside what it leads to."""
    if not store.is_local:
        return store.with_suffix(suffix)
    return Location(os.path.realpath(store.path) + suffix, store.storage_options)


def replace_store(new: Location, store: Location) -> None:
    """Put a complete store in the place of another one, which is deleted.

    On local disks both are renamed, and a failure leaves the old one. An object store has no renaming: the
    old one is deleted, then the objects of the new one are copied.

    Raises
    ------
    DestinationError
        If that fails; the new store is then still complete under its own name.
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


def storable(dataset: xr.Dataset) -> xr.Dataset:
    """A Dataset without the attributes and coordinates that Zarr cannot hold, and without lazy coordinates.

    Examples
    --------
    >>> steps = xr.Dataset(coords={"step": [b"dry", b"wet"], "owner": object()}, attrs={"title": "a", 7: "b"})
    >>> storable(steps).step.values.tolist(), list(storable(steps).coords), storable(steps).attrs
    (['dry', 'wet'], ['step'], {'title': 'a'})
    """
    coords = {name: _as_stored(coord) for name, coord in dataset.coords.items()}
    bands = {
        name: xr.Variable(band.dims, band.data, _storable_attrs(band.attrs), band.encoding)
        for name, band in dataset.data_vars.items()
    }
    stored = {name: coord for name, coord in coords.items() if coord is not None}
    return xr.Dataset(bands, stored, _storable_attrs(dataset.attrs))


def _as_stored(coord: xr.DataArray) -> xr.Variable | None:
    """A coordinate as it is stored; None if that is not possible."""
    import zarr

    if coord.chunks is not None:
        return None
    values = coord.values
    with suppress(UnicodeDecodeError):
        if values.dtype.kind not in "biufcmM":
            # Zarr's own specification has texts of any length, but none of a fixed one.
            values = np.asarray(np.char.decode(values) if values.dtype.kind == "S" else values, dtype=object)
    calendar = {key: coord.encoding[key] for key in ("units", "calendar") if key in coord.encoding}
    for encoding in (calendar, {}):
        stored = xr.Variable(coord.dims, values, _storable_attrs(coord.attrs), encoding)
        with suppress(Exception), warnings.catch_warnings():  # of xarray's and Zarr's encoders
            warnings.simplefilter("error")
            xr.Dataset(coords={coord.name: stored}).to_zarr(zarr.storage.MemoryStore(), consolidated=False)
            return stored
    return None


def _storable_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes that JSON has: texts, numbers, truths, and lists and mappings of these."""
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
