"""Zarr stores: what they can hold, whether a folder is one of ours, and putting a new one in its place."""

from __future__ import annotations

import json
import os
import shutil
import uuid
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr

from xee_tf.errors import DestinationError, DestinationExistsError
from xee_tf.names import ZARR_METADATA
from xee_tf.storage import Location

__all__ = [
    "IMAGE",
    "PREDICTION",
    "beside",
    "foreign_entry",
    "replace_store",
    "require_our_store",
    "storable",
    "store_attributes",
]

PREDICTION = "xee_tf_prediction"
IMAGE = "xee_tf_image"
"""Attributes that mark the stores of `predict_to_zarr` and of `upload_image`."""

# Files of a Zarr group, and of the systems that people look into folders with.
_METADATA = (ZARR_METADATA - {".zarray"}) | {".DS_Store"}
_MEMBER_METADATA = ("zarr.json", ".zarray", ".zgroup")


def store_attributes(store: Location) -> dict[str, Any] | None:
    """The attributes of a Zarr group of format 3 or 2; None where there is none."""
    for name in ("zarr.json", ".zattrs"):
        try:
            found = json.loads(store.child(name).read_bytes())
            attributes = found["attributes"] if name == "zarr.json" else found
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return attributes if isinstance(attributes, dict) else None
    return None


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


def foreign_entry(store: Location) -> str:
    """The first entry of a folder that belongs to no Zarr store; empty if there is none."""
    for name, is_folder in store.entries().items():
        child = store.child(name)
        if not is_folder and name not in _METADATA:
            return name
        if is_folder and not any(child.child(each).exists() for each in _MEMBER_METADATA):
            return name
    return ""


def _foreign(store: Location) -> str:
    """Why a path may not be deleted, as part of a sentence; empty if it may."""
    if not store.is_folder():
        return "it is a file"
    if entry := foreign_entry(store):
        return f"it holds {entry!r}"
    if not store.entries():
        return ""
    attributes = store_attributes(store) or {}
    if not {PREDICTION, IMAGE} & set(attributes):
        return f"it is a Zarr store without the attribute {PREDICTION!r} or {IMAGE!r}"
    return ""


def beside(store: Location, suffix: str) -> Location:
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
    old = f"{path}.{uuid.uuid4().hex[:8]}.old"
    os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
