"""Write a prediction to Zarr chunk by chunk, and continue an interrupted run."""

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
from xee_tf.identity import IdentityOptions, RunIdentity
from xee_tf.models import ModelSpec
from xee_tf.names import check_zarr
from xee_tf.options import IfExists, check_flags, one_of, parse, spelled
from xee_tf.predict.image import RENAME, Prediction, predict_image
from xee_tf.predict.options import PREDICT_SPELLING, PredictKeywords, PredictOptions
from xee_tf.predict.resuming import identify_run
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
from xee_tf.upload import require_format

__all__ = ["predict_to_zarr"]

_SPELLING = replace(
    PREDICT_SPELLING,
    replaced={**PREDICT_SPELLING.replaced, "merge": "the store contains only predictions; omit it"},
    renamed={"store": "destination"},
)

# A key in the record of a store, and a folder next to the record with an empty file for each finished chunk,
# which exists only while the store is written.
_DESCRIPTION, _FINISHED = "prediction", "finished"


@spelled(_SPELLING, PredictOptions, IdentityOptions)
def predict_to_zarr(
    model: ModelSpec,
    image: xr.Dataset | xr.DataArray,
    destination: PathLike | Location,
    *,
    resume: bool = True,
    if_exists: IfExists = "error",
    identity: str | None = None,
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    **options: Unpack[PredictKeywords],
) -> Location:
    """Predict every pixel of a raster and write a Zarr store; a repeated call resumes an interrupted run.

    Each chunk is written when it is predicted, so that the whole result is never in memory.

    Parameters
    ----------
    model : Model
        The model to predict with.
    image : Dataset or DataArray
        The raster, as for `xee_tf.Model.predict_image`. Its coordinates are also stored if Zarr
        supports them and they are not lazy: text, numbers and times.
    destination : str or path-like
        The ``.zarr`` folder to write: a local path or a URL that fsspec supports.
    **options
        Options of `xee_tf.Model.predict_image`, except `merge`.
    resume : bool, default True
        Whether to resume an interrupted run and keep a complete store. False starts again and requires
        ``if_exists="overwrite"`` if the store exists.
    if_exists : {"error", "overwrite"}, default "error"
        What to do if the store exists and cannot be resumed, or `resume` is False. "overwrite" replaces
        only empty folders and stores that this package wrote. On a local disk, the new store is written to
        ``<destination>.replacement``, and the old store is kept until the new one is complete. In an object
        store, the old store is deleted before the first chunk is predicted.
    progress : bool, default False
        Whether to show a progress bar.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    Location
        The store, which is path-like: open it with ``xr.open_zarr(store, decode_coords="all",
        consolidated=False)``. `os.fspath` returns its local path or URL.

    Raises
    ------
    DestinationExistsError
        If the store exists and contains other predictions or data, or `resume` is False; the message contains
        the difference.
    DestinationError
        If the store cannot be written.
    OptionError, GeoreferenceError, ModelError
        As raised by `xee_tf.Model.predict_image`.
    PredictionError
        If the model fails or returns something other than what was declared. Finished chunks are kept.

    Notes
    -----
    A chunk is recorded in the folder ``.xee_tf`` inside the store when all its bands are written. Recorded
    chunks are not predicted again; partly written chunks are. A store can be moved and resumed elsewhere.
    Another call does not change a complete store, unless some of its files are missing: then all of it is
    predicted again.

    A run is continued only if everything that affects its values is the same: the code and weights of the
    model, its options, the options of the prediction, and the bands, nodata values, georeference and arrays
    of the image; see `identity`. `batch_size` and `skip_masked` may change.

    Values of integer outputs are truncated and clamped to the range of the dtype declared in the model's
    `output_bands`, as in Earth Engine. An output whose dtype is neither declared nor part of the model's
    signature is float32, even if the model returns integers.

    Examples
    --------
    >>> import tempfile, xee_tf
    >>> scene = xr.Dataset({"B4": (("y", "x"), np.arange(16.0).reshape(4, 4))},
    ...     {"y": [105.0, 75.0, 45.0, 15.0], "x": [15.0, 45.0, 75.0, 105.0]}).rio.write_crs("EPSG:32633")
    >>> model = xee_tf.Model.from_function(lambda b: 2 * b[..., 0], input_tile_size=2, output_bands=["twice"])
    >>> store = predict_to_zarr(model, scene, tempfile.mkdtemp() + "/twice.zarr")
    >>> predicted = xr.open_zarr(store, decode_coords="all", consolidated=False)
    >>> float(predicted.twice[3, 3]), predicted.rio.crs.to_string()
    (30.0, 'EPSG:32633')
    """
    one_of("if_exists", if_exists, get_args(IfExists))
    check_flags(resume=resume, progress=progress)
    location = Location.of(destination, storage_options)
    require_format(location, "zarr", "Use xee_tf.predict_to_cog for a .tif.")
    require_reachable(location)
    identity = IdentityOptions(identity=identity).identity
    prediction = predict_image(model, image, parse(PredictOptions, options), merge=False)
    predicted = prediction.dataset
    check_zarr(predicted.variables, location, RENAME)
    description = identify_run(model, prediction, identity)
    target, replacement = location, _replacement(location)
    difference = ""
    if location.exists():
        difference = _explain_difference(location, description) if resume else "resume is False"
        if difference and if_exists == "error":
            raise DestinationExistsError(
                f"{location} exists and cannot be resumed: {difference}. Choose another name, or replace "
                "it with if_exists='overwrite'."
            )
        if difference:
            require_own_store(location)
            target = replacement
    elif replacement.exists() and not _explain_difference(replacement, description):
        target = replacement  # a previous run was interrupted before it moved the complete store
    require_writable(target)
    if target != location and target.exists():
        difference = _explain_difference(target, description) if resume else "resume is False"
    if difference and target.exists():
        require_own_store(target)
        target.remove(recursive=True)
    bands = {str(name): band.data for name, band in predicted.data_vars.items()}
    if read_record(target).get("state", BEGUN) == BEGUN:
        if target.exists():  # an interrupted run left part of the metadata or an empty folder
            require_own_store(target)
            target.remove(recursive=True)
        create_store(to_storable(predicted), target, compute=False, **{_DESCRIPTION: description.to_json()})
    if not _is_complete(target, bands):
        record, markers = read_record(target), target.child(RECORD).child(_FINISHED)
        if record["state"] == COMPLETE:  # files are missing, and it is unknown of which chunks
            record["state"] = PREPARED
            if markers.exists():
                markers.remove(recursive=True)
            write_record(target, record)
        chunks = _outer_chunks(prediction)
        finished = set(markers.entries()) if markers.exists() else set()
        indices = [index for index in np.ndindex(*map(len, chunks)) if _chunk_name(index) not in finished]
        if indices:
            edges = tuple(map(chunk_edges, chunks))
            writer = _ChunkWriter(target, tuple(bands), edges)
            run_graph(
                each_chunk(writer, list(bands.values()), indices, "xee-tf-write"),
                progress,
                "Finished chunks are kept: run it again to continue.",
            )
        write_record(target, {**record, "state": COMPLETE, "files": _count_files(target, bands)})
        if markers.exists():
            markers.remove(recursive=True)
    if target != location:
        replace_store(target, location)
    return location


@dataclass(frozen=True)
class _ChunkWriter:
    """Write one chunk of all bands and mark it as finished. Small and picklable.

    `edges` are the boundaries of chunks along mapped dimensions, y and x.
    """

    location: Location
    bands: tuple[str, ...]
    edges: tuple[tuple[int, ...], ...]

    def __call__(self, index: tuple[int, ...], blocks: Sequence[npt.NDArray[Any]]) -> None:
        spans = [slice(*edge[number : number + 2]) for edge, number in zip(self.edges, index, strict=True)]
        try:
            group = open_arrays(self.location)
            for name, block in zip(self.bands, blocks, strict=True):
                inner = [slice(None)] * (block.ndim - len(spans))
                group[name][(*spans[:-2], *inner, *spans[-2:])] = block
        except OSError as error:
            raise DestinationError(
                f"A chunk of {self.location} cannot be written on {socket.gethostname()}: {error}. All "
                "worker processes need access to the store."
            ) from error
        self.location.child(RECORD).child(_FINISHED).child(_chunk_name(index)).write_bytes(b"")


def _explain_difference(store: Location, description: RunIdentity) -> str:
    """Return why a store, complete or not, is not the store that would be written; empty if it is."""
    record = read_record(store)
    if _DESCRIPTION not in record:
        return "it does not contain a prediction that was written by this function"
    return description.explain_difference(record[_DESCRIPTION]) or explain_changes(store)


def _is_complete(store: Location, bands: Iterable[str]) -> bool:
    """Return whether all chunks were written and none of their files is missing."""
    record = read_record(store)
    return record.get("state") == COMPLETE and _count_files(store, bands) >= record.get("files", 0)


def _count_files(store: Location, bands: Iterable[str]) -> int:
    return sum(store.child(band).count_files() for band in bands)


def _replacement(location: Location) -> Location:
    """Return where a store is written that will replace an existing store."""
    return beside(location, ".replacement") if location.is_local else location


def _outer_chunks(prediction: Prediction) -> tuple[tuple[int, ...], ...]:
    """Return the chunks along mapped dimensions, y and x, which are the same for all bands."""
    output = prediction.outputs[0]
    chunks = prediction.dataset[output.name].chunks or ()
    return (*chunks[: -2 - len(output.dims)], *chunks[-2:])


def _chunk_name(index: tuple[int, ...]) -> str:
    return "-".join(map(str, index))
