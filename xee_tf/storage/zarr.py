"""Write Zarr stores that can be opened only when they are complete.

The metadata of a store are encoded in memory, by xarray, and written without those of the root, which are
kept in the record until the pixels are complete.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xee_tf.errors import DestinationError
from xee_tf.storage.failures import storage_errors
from xee_tf.storage.local import sync_all, sync_folder
from xee_tf.storage.location import Location
from xee_tf.storage.staging import Staging
from xee_tf.storage.zarr_record import (
    BEGUN,
    COMPLETE,
    PREPARED,
    ROOT_METADATA,
    read_record,
    stored_arrays,
    write_record,
)

__all__ = ["StoredBand", "finish_store", "hide_store", "prepare_store", "stored_bands", "to_storable"]


def prepare_store(dataset: xr.Dataset, store: Location, run: Staging, **facts: Any) -> None:
    """Write the metadata and coordinates of a Dataset from `to_storable` to a new store.

    The store cannot be opened by xarray until `finish_store`. The `facts` are added to its record as JSON.
    On a local disk, the store appears with all of them, because `run` stages them first.
    """
    place = run.staged(store) if store.is_local else store
    files = _encode(dataset)
    root = {name: files.pop(name).decode() for name in ROOT_METADATA if name in files}
    names = [str(name) for name in dataset.variables]
    record = {**facts, "format": 3 if "zarr.json" in root else 2, "root": root}
    with storage_errors("write", store.url, local=store.is_local):
        write_record(place, {**record, "state": BEGUN, "arrays": dict.fromkeys(names)})
        for name, data in files.items():
            place.child(name).write_bytes(data)
        write_record(place, {**record, "state": PREPARED, "arrays": stored_arrays(place, names)})
        if place != store:
            place.move(store)


def _encode(dataset: xr.Dataset) -> dict[str, bytes]:
    """Return the files of a store without the lazy bands; the metadata are consolidated."""
    import zarr

    # Without the tasks of the bands, whose graph xarray would build.
    bands = {name: _without_tasks(band.variable) for name, band in dataset.data_vars.items()}
    dataset = dataset.assign(bands)

    files: dict[str, Any] = {}
    memory = zarr.storage.MemoryStore(files)
    with warnings.catch_warnings():
        # Zarr warns that other implementations may not read consolidated metadata of format 3.
        warnings.filterwarnings("ignore", "Consolidated metadata is", UserWarning)
        dataset.to_zarr(memory, compute=False, consolidated=True)
        zarr.consolidate_metadata(memory)
    return {name: buffer.to_bytes() for name, buffer in files.items()}


def _without_tasks(band: xr.Variable) -> xr.Variable:
    """Return a lazy band of the same metadata with a single task, if Zarr can store its chunks."""
    sizes = band.chunks
    if sizes is None or any({*each[:-1]} - {each[0]} or each[-1] > each[0] for each in sizes):
        return band
    encoding = {**band.encoding, "chunks": tuple(each[0] for each in sizes)}
    return xr.Variable(band.dims, da.zeros(band.shape, dtype=band.dtype, chunks=-1), band.attrs, encoding)


def finish_store(store: Location, **facts: Any) -> None:
    """Make a store from `prepare_store` complete: write the metadata of its root, then its record."""
    record = read_record(store)
    root = record.pop("root")
    with storage_errors("write", store.url, local=store.is_local):
        _sync(store, record["arrays"])
        for name, text in root.items():  # in the order of ROOT_METADATA
            store.child(name).write_bytes(text.encode(), durable=True)
        write_record(store, {**record, **facts, "state": COMPLETE}, durable=True)


def _sync(store: Location, names: Iterable[str]) -> None:
    """Write folders of a store on a local disk to the disk."""
    if store.is_local:
        for name in names:
            sync_all(store.child(name).path)
        sync_folder(store.path)


def hide_store(store: Location) -> None:
    """Make a store unfinished: remove the metadata of its root, and keep them in its record."""
    record = read_record(store)
    if "root" not in record:
        found = {name: store.child(name) for name in ROOT_METADATA if store.child(name).exists()}
        record["root"] = {name: file.read_bytes().decode() for name, file in found.items()}
    write_record(store, {**record, "state": PREPARED})
    for name in reversed(ROOT_METADATA):
        if store.child(name).exists():
            store.child(name).remove()


@dataclass(frozen=True)
class StoredBand:
    """A band in a store, as a target of `xee_tf.graph.store_chunks`; small and picklable.

    Parameters
    ----------
    store : Location
        The store.
    name : str
        Name of the band.
    zarr_format : int
        Format of the store.
    run : Staging
        The run that writes; each process opens the band once for each run.
    """

    store: Location
    name: str
    zarr_format: Literal[2, 3]
    run: Staging

    def __setitem__(self, key: tuple[slice, ...], values: npt.NDArray[Any]) -> None:
        folder = self.store.child(self.name)
        with storage_errors("write", folder.url, local=folder.is_local):
            self.run.sign()
            array = _open(self)
            if _is_empty(values, array.fill_value):
                return
            try:
                array[key] = values
            except FileNotFoundError:  # Zarr creates no folders in stores that need them
                for chunk in _chunk_files(folder, array, key):
                    chunk.make_parent()
                array[key] = values


def _chunk_files(folder: Location, array: Any, key: tuple[slice, ...]) -> Iterator[Location]:
    """Yield the files of the chunks of an array that hold some of its values."""
    sizes = array.shards or array.chunks
    spans = [span.indices(length) for span, length in zip(key, array.shape, strict=True)]
    numbers = [
        range(start // size, -(-stop // size)) for (start, stop, _), size in zip(spans, sizes, strict=True)
    ]
    for index in product(*numbers):
        yield folder.child(array.metadata.encode_chunk_key(index))


def _is_empty(values: npt.NDArray[Any], fill: Any) -> bool:
    """Return whether a chunk of a new store need not be written; Zarr would request its deletion."""
    if not values.size:
        return True
    first = values.flat[0]
    if values.dtype.kind == "f":
        return bool(np.isnan(first) and np.isnan(fill) and np.isnan(values).all())
    return values.dtype.kind in "biu" and bool(first == fill and (values == fill).all())


@lru_cache(maxsize=1024)
def _open(band: StoredBand) -> Any:
    import zarr

    try:
        return zarr.open_array(
            band.store.url,
            path=band.name,
            mode="r+",
            zarr_format=band.zarr_format,
            storage_options=band.store.zarr_options,
        )
    except OSError:
        raise
    except Exception as error:  # of any kind, if the metadata are damaged
        raise DestinationError(
            f"The metadata of {band.store.child(band.name)} are damaged ({type(error).__name__}: {error}). "
            "Delete the store, and write it again."
        ) from error


def stored_bands(store: Location, names: Iterable[str], run: Staging) -> list[StoredBand]:
    """Return the bands of a store from `prepare_store`, to write to them."""
    zarr_format = read_record(store)["format"]
    return [StoredBand(store, name, zarr_format, run) for name in names]


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
