"""A prediction written to Zarr chunk by chunk, that goes on where an interrupted one stopped."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from xee_tf.blocks import chunk_edges
from xee_tf.errors import DestinationError, DestinationExistsError
from xee_tf.graph import each_chunk, run_graph
from xee_tf.models import ModelSpec
from xee_tf.names import check_zarr
from xee_tf.options import IfExists, check_flags, one_of, parse, spelled
from xee_tf.predict.image import RENAME, Prediction, predict_image
from xee_tf.predict.options import PREDICT_SPELLING, PredictKeywords, PredictOptions
from xee_tf.predict.resuming import Description, describe_run, difference
from xee_tf.storage import (
    BEGUN,
    COMPLETE,
    PREPARED,
    RECORD,
    Location,
    PathLike,
    beside,
    create_store,
    explain_changes,
    open_arrays,
    read_record,
    replace_store,
    require_own_store,
    require_reachable,
    require_writable,
    to_storable,
    write_record,
)

__all__ = ["predict_to_zarr"]

_SPELLING = replace(
    PREDICT_SPELLING,
    replaced={**PREDICT_SPELLING.replaced, "merge": "the store holds predictions alone; leave it out"},
    renamed={"store": "destination"},
)

# In the record of a store: what was predicted; and a folder beside it, while the store is written, that has
# an empty file for each chunk that is there.
_DESCRIPTION, _FINISHED = "prediction", "finished"


@spelled(_SPELLING, PredictOptions)
def predict_to_zarr(
    model: ModelSpec,
    image: xr.Dataset | xr.DataArray,
    destination: PathLike | Location,
    *,
    resume: bool = True,
    if_exists: IfExists = "error",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    **options: Unpack[PredictKeywords],
) -> Location:
    """Predict a raster into a Zarr store; call it again and it continues where it was interrupted.

    Each chunk is noted, in a folder ``.xee_tf`` inside the store, when all its bands are written. Chunks
    that are noted are never predicted again; half-written ones are. When all are there, the store is noted
    to be complete, and left alone from then on. The notes move with the store. A complete store of which
    files have gone is predicted again.

    A run is continued only if it is the same work: the same function or model, by code and weights, the
    same options, bands, nodata and place, and the same image. Images in Dask arrays are recognised by the
    names of these, which say from which files they are read, and how: a Zarr store whose pixels are
    rewritten in place looks the same, and needs ``resume=False``. ``batch_size`` and ``skip_masked`` may
    change.

    Parameters
    ----------
    model : Model
    image : Dataset or DataArray
        Its attributes and coordinates are stored too, as far as Zarr can hold them: texts, numbers and
        times, and no lazy coordinates.
    destination : str or path-like
        ``.zarr`` folder, local or any URL that fsspec knows. A relative path means the current folder.
    resume : bool
        Continue what is there. False: begin anew.
    if_exists : {"error", "overwrite"}, optional
        What to do with a store that cannot be continued, or that you do not want to continue. "overwrite"
        replaces stores that this package wrote and empty folders, and nothing else. On a local disk the old
        store stays until the new one, ``<destination>.replacement`` until then, is complete. In an object
        store the old one is deleted before the first chunk is predicted.
    progress : bool
        Show a bar.
    storage_options : mapping, optional
        Handed to fsspec.
    **options
        As for `xee_tf.Model.predict_image`; ``merge`` is not among them: the store holds predictions alone.

    Returns
    -------
    Location
        The store. Open it with ``xr.open_zarr(path, decode_coords="all", consolidated=False)``.

    Raises
    ------
    DestinationExistsError
        If the store exists and holds something else, which is named, or `resume` is False.
    DestinationError
        If the store cannot be written.
    OptionError, GeoreferenceError, ModelError, PredictionError
        As predicting does. What was finished before an error is kept.

    Examples
    --------
    >>> import tempfile, xee_tf
    >>> scene = xr.Dataset({"B4": (("y", "x"), np.arange(16.0).reshape(4, 4))},
    ...     {"y": [105.0, 75.0, 45.0, 15.0], "x": [15.0, 45.0, 75.0, 105.0]}).rio.write_crs("EPSG:32633")
    >>> model = xee_tf.Model.from_function(lambda b: 2 * b[..., 0], input_tile_size=2, output_bands=["twice"])
    >>> store = predict_to_zarr(model, scene, tempfile.mkdtemp() + "/twice.zarr")
    >>> found = xr.open_zarr(store.path, decode_coords="all", consolidated=False)
    >>> float(found.twice[3, 3]), found.rio.crs.to_string()
    (30.0, 'EPSG:32633')
    """
    one_of("if_exists", if_exists, get_args(IfExists))
    check_flags(resume=resume, progress=progress)
    location = Location.of(destination, storage_options)
    require_reachable(location)
    prediction = predict_image(model, image, parse(PredictOptions, options), merge=False)
    predicted = prediction.dataset
    check_zarr(predicted.variables, location, RENAME)
    description = describe_run(model, prediction)
    target, replacement = location, _replacement(location)
    found = ""
    if location.exists():
        found = _difference(location, description) if resume else "resume is False"
        if found and if_exists == "error":
            raise DestinationExistsError(
                f"{location} exists and cannot be continued: {found}. Choose another name, or replace "
                "it with if_exists='overwrite'."
            )
        if found:
            require_own_store(location)
            target = replacement
    elif replacement.exists() and not _difference(replacement, description):
        target = replacement  # it was to be put in place
    require_writable(target)
    if target != location and target.exists():
        found = _difference(target, description) if resume else "resume is False"
    if found and target.exists():
        require_own_store(target)
        target.remove(recursive=True)
    bands = {str(name): band.data for name, band in predicted.data_vars.items()}
    if read_record(target).get("state", BEGUN) == BEGUN:
        if target.exists():  # an interruption left some metadata, or an empty folder
            require_own_store(target)
            target.remove(recursive=True)
        create_store(to_storable(predicted), target, compute=False, **{_DESCRIPTION: description})
    if not _is_complete(target, bands):
        record, notes = read_record(target), target.child(RECORD).child(_FINISHED)
        if record["state"] == COMPLETE:  # files of it have gone, and notes do not say which
            record["state"] = PREPARED
            if notes.exists():
                notes.remove(recursive=True)
            write_record(target, record)
        chunks = _outer_chunks(prediction)
        finished = set(notes.entries()) if notes.exists() else set()
        indices = [index for index in np.ndindex(*map(len, chunks)) if _marker(index) not in finished]
        if indices:
            edges = tuple(map(chunk_edges, chunks))
            writer = _ChunkWriter(target, tuple(bands), edges)
            run_graph(each_chunk(writer, list(bands.values()), indices, "xee-tf-write"), progress)
        write_record(target, {**record, "state": COMPLETE, "files": _count_files(target, bands)})
        if notes.exists():
            notes.remove(recursive=True)
    if target != location:
        replace_store(target, location)
    return location


@dataclass(frozen=True)
class _ChunkWriter:
    """Writes one chunk of all bands, and notes that it is there; small and picklable.

    `edges` are where chunks begin and end, along mapped dimensions, y and x.
    """

    location: Location
    bands: tuple[str, ...]
    edges: tuple[tuple[int, ...], ...]

    def __call__(self, index: tuple[int, ...], blocks: Sequence[npt.NDArray[Any]]) -> None:
        spans = [slice(*edge[at : at + 2]) for edge, at in zip(self.edges, index, strict=True)]
        try:
            group = open_arrays(self.location)
            for name, block in zip(self.bands, blocks, strict=True):
                inner = [slice(None)] * (block.ndim - len(spans))
                group[name][(*spans[:-2], *inner, *spans[-2:])] = block
        except OSError as error:
            raise DestinationError(
                f"A chunk of {self.location} cannot be written on {socket.gethostname()}: {error}. All "
                "processes that predict need access to the store."
            ) from error
        self.location.child(RECORD).child(_FINISHED).child(_marker(index)).write_bytes(b"")


def _difference(store: Location, description: Description) -> str:
    """Why a store is not the one that would be written; empty if it is, as far as it was written."""
    record = read_record(store)
    if _DESCRIPTION not in record:
        return "it holds no prediction that was begun by this function"
    if found := difference(record[_DESCRIPTION], description):
        return found
    return explain_changes(store)


def _is_complete(store: Location, bands: Iterable[str]) -> bool:
    """Whether all pixels were written, and no file of them has gone since."""
    record = read_record(store)
    return record.get("state") == COMPLETE and _count_files(store, bands) >= record.get("files", 0)


def _count_files(store: Location, bands: Iterable[str]) -> int:
    return sum(store.child(band).count_files() for band in bands)


def _replacement(location: Location) -> Location:
    """Where the store is written that takes the place of another one."""
    return beside(location, ".replacement") if location.is_local else location


def _outer_chunks(prediction: Prediction) -> tuple[tuple[int, ...], ...]:
    """Chunks along mapped dimensions, y and x; all bands have those alike."""
    output = prediction.outputs[0]
    chunks = prediction.dataset[output.name].chunks or ()
    return (*chunks[: -2 - len(output.dims)], *chunks[-2:])


def _marker(index: tuple[int, ...]) -> str:
    return "-".join(map(str, index))
